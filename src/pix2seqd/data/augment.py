"""Data augmentation of a labelled image: scale jitter, crop, flips, colour jitter and padding (§4.1)."""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pix2seqd.config import AugmentConfig, DataConfig
from pix2seqd.images.resize import pad_image, resize_image, resize_labels, resize_part, to_float


def jittered_size(size: tuple[int, int], target: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width of an image scaled to `scale` times the largest size that fits `target`.

    The result is truncated in float32, as in the official code.
    """
    ratio = min(np.float32(scale) * np.float32(t) / np.float32(s) for t, s in zip(target, size, strict=True))
    height, width = (int(np.float32(s) * ratio) for s in size)
    return max(height, 1), max(width, 1)


def fit_crop(
    image: Tensor, labels: np.ndarray, target: tuple[int, int], scale: float, offset: tuple[float, float]
) -> tuple[Tensor, np.ndarray]:
    """Scale an image relative to the target, then crop it to the target (official scale_jitter, fixed_size_crop).

    Args:
        image: uint8 or float 0..1, `[3, h, w]`.
        labels: integers `[h, w]`.
        target: height and width.
        scale: 1 fits the image into the target.
        offset: position of the crop along each axis, as a share 0..1 of the excess.

    Returns:
        Image, float `[3, h', w']` in 0..1, and labels `[h', w']`, at most as large as the target.
    """
    size = jittered_size((image.shape[1], image.shape[2]), target, scale)
    starts = (int(max(n - t, 0) * u) for n, t, u in zip(size, target, offset, strict=True))
    rows, columns = (slice(start, start + t) for start, t in zip(starts, target, strict=True))
    return resize_part(image, *size, rows, columns), resize_labels(labels, *size, part=(rows, columns))


def tile_crop(
    image: Tensor, labels: np.ndarray, target: tuple[int, int], zoom: float, offset: tuple[float, float]
) -> tuple[Tensor, np.ndarray]:
    """Cut a window out of the image and scale it by `zoom`; for the layout "tile"; as `fit_crop` otherwise."""
    size = image.shape[1:]
    window = [min(max(round(t / zoom), 1), n) for t, n in zip(target, size, strict=True)]
    top, left = (round((n - w) * u) for n, w, u in zip(size, window, offset, strict=True))
    image = image[:, top : top + window[0], left : left + window[1]]
    labels = labels[top : top + window[0], left : left + window[1]]
    height, width = (min(max(round(w * zoom), 1), t) for w, t in zip(window, target, strict=True))
    return resize_image(to_float(image), height, width), resize_labels(labels, height, width)


def jitter_colors(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    """SimCLR's colour jitter in random order (p = 0.8), then greyscale (p = 0.2 · strength).

    The image is float `[3, h, w]` in 0..1, before and after; a strength of 0 changes nothing.
    """
    if strength == 0:
        return image
    if rng.random() < 0.8:
        for change in rng.permutation(3):
            image = (_brightness, _contrast, _hue_saturation)[change](image, strength, rng).clamp_(0, 1)
    if rng.random() < 0.2 * strength:
        red, green, blue = image
        image = (0.299 * red + 0.587 * green + 0.114 * blue).expand(3, -1, -1)
    return image


def _brightness(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    return image * rng.uniform(max(1 - 0.8 * strength, 0), 1 + 0.8 * strength)


def _contrast(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    mean = image.mean(dim=(1, 2), keepdim=True)
    return (image - mean).mul_(rng.uniform(max(1 - 0.8 * strength, 0), 1 + 0.8 * strength)).add_(mean)


def _hue_saturation(image: Tensor, strength: float, rng: np.random.Generator) -> Tensor:
    pixels = (image * 255).round_().byte().permute(1, 2, 0).contiguous().numpy()
    old = np.arange(256, dtype=np.float32)
    hues = (old + 255 * rng.uniform(-0.2, 0.2) * strength) % 255
    saturations = (old * rng.uniform(max(1 - 0.8 * strength, 0), 1 + 0.8 * strength)).clip(0, 255)
    hue, saturation, value = np.moveaxis(np.array(Image.fromarray(pixels).convert("HSV")), 2, 0)
    index = 256 * hues.astype(np.int32).take(hue) + saturations.astype(np.int32).take(saturation)
    changed = F.embedding(torch.from_numpy(index), _shares())
    changed.mul_(torch.from_numpy(value)[..., None]).add_(0.5).floor_()
    return changed.permute(2, 0, 1).div_(255)


@cache
def _shares() -> Tensor:
    """Red, green and blue as shares of the value, by 256 · hue + saturation: float32 `[65536, 3]`.

    Value times share, rounded, is what Pillow makes of HSV, in a quarter of the time.
    """
    steps = np.arange(256, dtype=np.float32)
    distance = np.abs((steps[:, None] * 6 / 255 - np.array([0, 2, 4], np.float32) + 3) % 6 - 3)
    return torch.from_numpy(1 - (steps / 255)[:, None] * (distance - 1).clip(0, 1)[:, None]).reshape(-1, 3)


def augment(
    image: np.ndarray, labels: np.ndarray, data: DataConfig, config: AugmentConfig, rng: np.random.Generator
) -> tuple[Tensor, np.ndarray]:
    """Draw one random training example (§4.1).

    Args:
        image: uint8 `[h, w, 3]`.
        labels: segment ids `[h, w]`.
        data: target size and layout.
        config: kinds and ranges of the augmentations.
        rng: the only source of randomness.

    Returns:
        Image, float `[3, H, W]` in 0..1, and labels `[H, W]`, at the network's input size; padding has label 0.
    """
    low, high = config.jitter
    if data.layout == "resize":
        scale, crop = rng.uniform(low, high), fit_crop
    else:
        # Log-uniform: object sizes vary by ratios.
        scale, crop = data.zoom * float(np.exp(rng.uniform(np.log(low), np.log(high)))), tile_crop
    offset = (rng.random(), rng.random())
    tensor, labels = crop(
        torch.from_numpy(np.require(image, requirements=["C", "W"])).permute(2, 0, 1), labels, data.size, scale, offset
    )
    if config.flip != "none" and rng.random() < 0.5:
        tensor, labels = tensor.flip(2), labels[:, ::-1]
    if config.flip == "all":
        turns = int(rng.integers(4)) if data.size[0] == data.size[1] else 2 * int(rng.integers(2))
        tensor, labels = tensor.rot90(turns, (1, 2)), np.rot90(labels, turns)
    tensor = jitter_colors(tensor, config.color_jitter, rng)
    if rng.random() < config.invert:
        tensor = 1 - tensor
    missing = [t - n for t, n in zip(data.size, labels.shape, strict=True)]
    return pad_image(tensor, *data.size), np.pad(labels, ((0, missing[0]), (0, missing[1])))
