"""Resizing, padding and normalizing images, and resizing label maps back (§4.1; official code)."""

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage
from torch import Tensor

from pix2seqd.images.load import BAND, Pixels, bands

_CHUNK = 2**16
"""Pixels near outlines that are computed at a time."""
_BANDS = 8
"""Bands of a large image that is scaled."""
_NEAR = [(1, 1), *((i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1))]
"""Rows and columns of the cells around a pixel; its own cell comes first, so that it wins ties."""
PAD = 0.3
"""Value of the pixels that padding adds (official code); their mask is void."""


class ScaledImage:
    """An image at another size, of which parts are computed when they are asked for: a band of rows at a time.

    Antialiased bilinear; equals TensorFlow's. A part has the same bits as in the whole.

    Attributes:
        shape: 3, height and width.
    """

    def __init__(self, pixels: Pixels, table: np.ndarray | None, height: int, width: int) -> None:
        """Of pixels, changed by a `stretch_table` if there is one, at this height and width; nothing is read yet."""
        self.shape = 3, height, width
        self._pixels, self._table = pixels, table
        # A band costs the time of the whole image (`_resize_rows`), so there are few.
        self._rows = max(BAND, height * width // _BANDS if height != pixels.height else 0) // width
        self.release()

    def __getitem__(self, part: tuple[slice, slice, slice]) -> Tensor:
        """Channels, rows and columns, float 0..1: `image[:, top:bottom, left:right]`."""
        channels, rows, columns = part
        start, stop, _ = rows.indices(self.shape[1])
        if start < self._start or stop > self._stop:
            self._start, self._stop = start, min(max(stop, start + self._rows), self.shape[1])
            self._band = _at_least(self._band, self._stop - start)
            self._scale(start, self._stop, self._band)
        return self._band[channels, start - self._start : stop - self._start, columns].clone()

    def release(self) -> None:
        """Let go of the memory of the last band."""
        self._start = self._stop = 0
        # Memory that is used again: freed between small pieces that stay, it would not be one piece any more.
        self._band = self._strip = torch.empty(3, 0, self.shape[2])

    def _scale(self, start: int, stop: int, result: Tensor) -> None:
        """Write these rows of the result, all columns, into the first rows of a tensor."""
        _, height, width = self.shape
        whole = self._pixels.height
        if height == whole:
            self._widen(start, stop, result)
            return
        first, last = _rows_for(start, stop, whole, height)
        self._strip = _at_least(self._strip, last - first)
        self._widen(first, last, self._strip)
        band = self._strip[:, : last - first]
        step = max(2, BAND // (4 * (whole + height)))
        for left in (max(0, min(left, width - 2)) for left in range(0, width, step)):  # of one column, PyTorch errs
            scaled = _resize_rows(band[:, :, left : left + step], first, whole, height)
            result[:, : stop - start, left : left + step] = scaled[:, start:stop]

    def _widen(self, start: int, stop: int, result: Tensor) -> None:
        """Write these rows of the image, at the width of the result, into the first rows of a tensor."""
        step = max(1, BAND // (8 * self._pixels.width))
        for row in range(start, stop, step):
            values = self._pixels.rows(row, min(row + step, stop))
            values = torch.from_numpy(np.array(values if self._table is None else self._table[values]))
            part = resize_image(to_float(values.permute(2, 0, 1)), len(values), self.shape[2])
            result[:, row - start : row - start + len(values)] = part


def _at_least(memory: Tensor, rows: int) -> Tensor:
    """The tensor `[3, h, w]` itself if it has so many rows, otherwise a new one."""
    return memory if memory.shape[1] >= rows else torch.empty(3, rows, memory.shape[2])


def to_float(image: Tensor) -> Tensor:
    """uint8 of any shape → float 0..1; floats as they are."""
    return image if image.is_floating_point() else image.float().div_(255)


def resize_image(image: Tensor, height: int, width: int) -> Tensor:
    """Antialiased bilinear: float `[3, h, w]` → `[3, height, width]`; equals TensorFlow's."""
    if image.shape[1:] == (height, width):
        return image
    return F.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]


def resize_part(image: Tensor, height: int, width: int, rows: slice, columns: slice) -> Tensor:
    """`resize_image(image, height, width)[:, rows, columns]`, float 0..1, of which little more is computed.

    It has the same bits as in the whole. The image is uint8 or float 0..1, `[3, h, w]`.
    """
    if image.shape[1:] == (height, width):
        return to_float(image)[:, rows, columns]
    (top, bottom, _), (left, right, _) = rows.indices(height), columns.indices(width)
    # One column more, where there is one: PyTorch errs on a single column, and the sum of a cut tensor is rounded in
    # another way than that of a whole one.
    start, stop = (left - 1, right) if left else (0, min(right + 1, width))
    first, last = _rows_for(top, bottom, image.shape[1], height)
    strip = resize_image(to_float(image[:, first:last]).contiguous(), last - first, width)[:, :, start:stop]
    return _resize_rows(strip, first, image.shape[1], height)[:, top:bottom, left - start : right - start]


def _rows_for(start: int, stop: int, whole: int, height: int) -> tuple[int, int]:
    """The first row, and the one after the last, of an image of `whole` rows from which these of `height` are made."""
    scale = whole / height
    reach = max(scale, 1) + 1
    return max(math.floor(start * scale - reach), 0), min(math.ceil(stop * scale + reach), whole)


def _resize_rows(strip: Tensor, first: int, whole: int, height: int) -> Tensor:
    """Resize an image of `whole` rows to `height` of which only a strip is known, from the row `first` on.

    Rounding depends on the number of a row. Rows that are far away may be anything, so they are 0 here.
    """
    padded = torch.zeros(3, whole, strip.shape[2])
    padded[:, first : first + strip.shape[1]] = strip
    return resize_image(padded, height, strip.shape[2])


def resize_labels(
    labels: np.ndarray,
    height: int,
    width: int,
    size: tuple[int, int] | None = None,
    stride: int = 1,
    part: tuple[slice, slice] = (slice(None), slice(None)),
) -> np.ndarray:
    """Nearest with half-pixel centres: integers `[..., h, w]` → `[..., height, width]`; equals TensorFlow's.

    Args:
        labels: the map.
        height: of the result.
        width: likewise.
        size: height and width of the map that is resized: `labels` with each pixel repeated `stride` times along both
            axes, without the rows and columns beyond this size; None: all.
        stride: see `size`.
        part: rows and columns of the result that are wanted.
    """
    sides = labels.shape[-2] * stride, labels.shape[-1] * stride
    if (height, width) == (size or sides) == labels.shape[-2:]:
        return labels[..., part[0], part[1]]
    rows, columns = (nearest(n, m, stride)[p] for n, m, p in zip((height, width), size or sides, part, strict=True))
    return labels.take(rows, axis=-2).take(columns, axis=-1)  # a third of the time of both at once


def nearest(pixels: int, cells: int, stride: int = 1) -> np.ndarray:
    """The cell from which each of so many pixels along one axis is resized (`resize_labels`), over `stride`."""
    places = (np.arange(pixels, dtype=np.float32) + 0.5) * np.float32(cells / pixels)
    return np.minimum(places.astype(np.int64), cells - 1) // stride


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
    for rows in bands(height, width):
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

    `around` and `sure` are labels and weights of the cells of these rows, and one cell more on each side; `row` and
    `column` are those of each pixel's cell, without that. `down` and `across`, `[3, n]`, are the weights of the rows
    and columns before it, of it and after it.
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
    counts = Image.fromarray(image.reshape(len(image), -1)).histogram()  # numpy takes twice the time
    table = stretch_table(np.array(counts))
    return image if table is None else table.take(image)


def stretch_table(counts: np.ndarray) -> np.ndarray | None:
    """What "percentile" makes of each value, uint8 `[256]`, from the `counts` of 0 to 255; None: no change."""
    low, high = (_percentile(counts, percent) for percent in (0.5, 99.8))
    if high <= low:
        return None
    return ((np.arange(256) - low) * (255 / (high - low))).clip(0, 255).round().astype(np.uint8)


def _percentile(counts: np.ndarray, percent: float) -> float:
    """The same as `numpy.percentile` of the values that were counted."""
    place = (counts.sum() - 1) * (percent / 100)
    low, high = (int(np.searchsorted(counts.cumsum(), at, "right")) for at in (math.floor(place), math.ceil(place)))
    share = place - math.floor(place)
    return high - (high - low) * (1 - share) if share >= 0.5 else low + (high - low) * share
