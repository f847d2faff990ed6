"""Resizing, padding and normalizing images, and resizing label maps back (§4.1; official code)."""

from typing import Literal

import numpy as np
import torch.nn.functional as F
from torch import Tensor

PAD = 0.3
"""Value of the pixels that padding adds (official code); their mask is void."""


def resize_image(image: Tensor, height: int, width: int) -> Tensor:
    """Antialiased bilinear: float `[3, h, w]` → `[3, height, width]`; equals TensorFlow's."""
    if image.shape[1:] == (height, width):
        return image
    return F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]


def resize_labels(labels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest with half-pixel centres: integers `[..., h, w]` → `[..., height, width]`; equals TensorFlow's."""
    if labels.shape[-2:] == (height, width):
        return labels
    rows, columns = (
        np.minimum(((np.arange(n, dtype=np.float32) + 0.5) * np.float32(m / n)).astype(np.int64), m - 1)
        for n, m in zip((height, width), labels.shape[-2:], strict=True)
    )
    return labels[..., rows[:, None], columns[None, :]]


def pad_image(image: Tensor, height: int, width: int) -> Tensor:
    """Extend `[3, h, w]` at bottom and right with grey 0.3."""
    return F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1]), value=PAD)


def normalize(image: np.ndarray, mode: Literal["none", "percentile"]) -> np.ndarray:
    """uint8 `[h, w, 3]` → the same; "percentile" stretches the 0.5th to 99.8th percentile of all channels to 0..255.

    All channels are stretched alike, so colours are kept; an image of one value is not changed.
    """
    if mode == "none":
        return image
    low, high = np.percentile(image, (0.5, 99.8))
    if high <= low:
        return image
    return ((np.arange(256) - low) * (255 / (high - low))).clip(0, 255).round().astype(np.uint8)[image]
