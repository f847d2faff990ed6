"""A stack of depths with known truth: bright ellipsoids that do not touch."""

import numpy as np


def draw_stack(
    shape: tuple[int, int, int] = (28, 160, 160), count: int = 10, seed: int = 0, noise: float = 6.0
) -> tuple[np.ndarray, np.ndarray]:
    """Image, uint8 `[depths, h, w]`, and truth, uint16 of the same shape: 1.. for the ellipsoids, otherwise 0.

    Half axes are 5 to 8 planes and 10 to 15 pixels. No ellipsoid touches an end of the stack.
    """
    rng = np.random.default_rng(seed)
    truth, light = np.zeros(shape, np.uint16), np.zeros(shape)
    while truth.max() < count:
        axes = np.array([rng.uniform(5, 8), *rng.uniform(10, 15, 2)])
        center = rng.uniform(axes + 2, np.array(shape) - axes - 3)
        low, high = np.maximum(center - axes - 4, 0).astype(int), (center + axes + 5).astype(int)
        box = tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))
        offset = (np.moveaxis(np.indices(truth[box].shape), 0, -1) + low - center).astype(np.float32)
        distance = np.sqrt(((offset / axes) ** 2).sum(-1))
        if truth[box][((offset / (axes + 3)) ** 2).sum(-1) < 1].any():
            continue
        truth[box][distance < 1] = truth.max() + 1
        light[box] += rng.uniform(0.6, 1) * np.clip(4 * (1.05 - distance), 0, 1)
    image = 20 + 200 * light + rng.normal(0, noise, shape)
    return image.clip(0, 255).astype(np.uint8), truth
