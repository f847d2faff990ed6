"""Resizing, padding and normalizing images, and resizing label maps back (§4.1; official code)."""

from typing import Literal

import numpy as np
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

_CHUNK = 2**16
"""Pixels near outlines that are computed at a time."""
_BAND = 2**22
"""Pixels of an enlarged label map that are computed at a time."""
_NEAR = [(1, 1), *((i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1))]
"""Rows and columns of the cells around a pixel; its own cell comes first, so that it wins ties."""
PAD = 0.3
"""Value of the pixels that padding adds (official code); their mask is void."""


def resize_image(image: Tensor, height: int, width: int) -> Tensor:
    """Antialiased bilinear: float `[3, h, w]` → `[3, height, width]`; equals TensorFlow's."""
    if image.shape[1:] == (height, width):
        return image
    return F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]


def resize_labels(
    labels: np.ndarray, height: int, width: int, size: tuple[int, int] | None = None, stride: int = 1
) -> np.ndarray:
    """Nearest with half-pixel centres: integers `[..., h, w]` → `[..., height, width]`; equals TensorFlow's.

    Args:
        labels: the map.
        height: of the result.
        width: likewise.
        size: height and width of the map that is resized: `labels` with each pixel repeated `stride` times along both
            axes, without the rows and columns beyond this size; None: all.
        stride: see `size`.
    """
    sides = labels.shape[-2] * stride, labels.shape[-1] * stride
    if (height, width) == (size or sides) == labels.shape[-2:]:
        return labels
    rows, columns = (
        np.minimum(((np.arange(n, dtype=np.float32) + 0.5) * np.float32(m / n)).astype(np.int64), m - 1) // stride
        for n, m in zip((height, width), size or sides, strict=True)
    )
    return labels[..., rows[:, None], columns[None, :]]


def smooth_labels(
    labels: np.ndarray, weights: np.ndarray, extent: tuple[float, float], height: int, width: int
) -> np.ndarray:
    """Enlarge a label map with smooth outlines: integers `[h, w]` → `[height, width]` (not in the paper).

    Every label's region, filled with its weights, is enlarged by quadratic B-splines, and each pixel goes to the label
    with the highest value there. A B-spline reaches 3 × 3 cells, so only these are compared, and only near outlines.

    Args:
        labels: the map.
        weights: how sure the label of each cell is, of any scale; integers ≥ 0 `[h, w]`. They move an outline within a
            cell.
        extent: height and width of the image in cells; the map may be larger by less than a cell.
        height: height of the image in pixels.
        width: likewise.
    """
    (row, down), (column, across) = (
        _spline(pixels, cells, side) for pixels, cells, side in zip((height, width), extent, labels.shape, strict=True)
    )
    result = np.empty((height, width), labels.dtype)
    for start in range(0, height, max(1, _BAND // width)):
        rows = np.s_[start : start + max(1, _BAND // width)]
        first, last = row[rows][0], row[rows][-1]
        # The cells of these rows, and one more on each side; beyond the map its edge goes on.
        cells = np.arange(first - 1, last + 2).clip(0, len(labels) - 1)
        around = np.pad(labels[cells], ((0, 0), (1, 1)), mode="edge")
        sure = np.pad(weights[cells].astype(np.float32) + 1, ((0, 0), (1, 1)), mode="edge")
        result[rows] = _smooth_band(around, sure, row[rows] - first, down[:, rows], column, across)
    return result


def _smooth_band(
    around: np.ndarray, sure: np.ndarray, row: np.ndarray, down: np.ndarray, column: np.ndarray, across: np.ndarray
) -> np.ndarray:
    """Rows of `smooth_labels`.

    Args:
        around: labels of the cells of these rows, and one cell more on each side.
        sure: weights of these cells.
        row: the row of each pixel's cell, without the cells on the side.
        down: the weights of the rows before it, of it and after it, `[3, n]`.
        column: the column of each pixel's cell.
        across: the weights of the columns, likewise.
    """
    outline = (ndimage.maximum_filter(around, 3) != ndimage.minimum_filter(around, 3))[1:-1, 1:-1]
    result = around[1:-1, 1:-1][row[:, None], column]
    at_y, at_x = np.nonzero(outline[row[:, None], column])
    for start in range(0, len(at_y), _CHUNK):
        y, x = at_y[start : start + _CHUNK], at_x[start : start + _CHUNK]
        cells = [(row[y] + i, column[x] + j) for i, j in _NEAR]
        near = np.stack([around[cell] for cell in cells])
        weight = np.stack([sure[cell] * down[i, y] * across[j, x] for cell, (i, j) in zip(cells, _NEAR, strict=True)])
        # Most pixels have a majority for their own cell; the others need the votes of all labels.
        lost = np.flatnonzero(2 * np.where(near == near[0], weight, 0).sum(axis=0) < weight.sum(axis=0))
        near, weight = near[:, lost], weight[:, lost]
        votes = np.stack([np.where(near == label, weight, 0).sum(axis=0) for label in near])
        result[y[lost], x[lost]] = near[votes.argmax(axis=0), np.arange(len(lost))]
    return result


def _spline(pixels: int, cells: float, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Along one axis: the cell of each pixel, and the weights of the cells before it, of it and after it, `[3, n]`."""
    at = (np.arange(pixels) + 0.5) * (cells / pixels)
    cell = np.minimum(at.astype(np.int64), side - 1)
    off = (at - cell - 0.5).astype(np.float32)  # from the middle of the cell, -0.5 to 0.5
    return cell, np.stack([(0.5 - off) ** 2 / 2, 0.75 - off**2, (0.5 + off) ** 2 / 2])


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
