"""Reused ids: as few as the bits can say, for any number of instances, so that neighbours differ."""

from collections.abc import Sequence

import numpy as np


def color_boxes(
    boxes: np.ndarray,
    distance: float,
    colors: int,
    rng: np.random.Generator,
    wanted: Sequence[int] = (),
) -> np.ndarray:
    """Random ids 1 .. colors, such that instances whose boxes come within `distance` differ.

    Boxes are cheaper than outlines and only ever forbid too much. Instances with the fewest free neighbours go
    first (Matula & Beck's smallest-last order), so that few ids suffice; where even so none is free, the one used
    least among the neighbours is taken.

    Args:
        boxes: `[n, 4]` x, y, width, height; `[frames, n, 4]` of a clip, nan where absent.
        distance: pixels.
        colors: number of ids, 1 or more.
        rng: source of randomness.
        wanted: ids that instances have already, 0 = none; one keeps its id unless a neighbour before it does.
    """
    low, high = boxes[..., :2] - distance, boxes[..., :2] + boxes[..., 2:]
    crossing = (low[..., :, None, :] < high[..., None, :, :]) & (low[..., None, :, :] < high[..., :, None, :])
    near = np.asarray(crossing.all(axis=-1))
    near = near if near.ndim == 2 else np.asarray(near.any(axis=0))
    np.fill_diagonal(near, False)
    order: list[int] = []
    degree = near.sum(axis=1).astype(float)
    for _ in range(len(near)):
        last = int(degree.argmin())
        order.append(last)
        degree = degree - near[last]
        degree[last] = np.inf
    result = np.zeros(len(near), np.int64)
    for i, color in enumerate(wanted):
        result[i] = 0 if (result[near[i]] == color).any() else color
    for i in reversed(order):
        if result[i]:
            continue
        used = np.bincount(result[near[i]], minlength=colors + 1)[1:]
        result[i] = rng.choice(np.flatnonzero(used == used.min())) + 1
    return result
