"""Measures of segments: size, place, form, and intensities in the image's channels."""

import math
from collections.abc import Iterable, Sequence
from numbers import Real

import numpy as np

from pix2seqd.files import InputError
from pix2seqd.images.load import Channel, bands
from pix2seqd.panoptic.runs import mapped
from pix2seqd.panoptic.segment import Segment

_STEPS = np.zeros(50)
"""Length of the outline at a pixel of the edge: see `_perimeters`."""
_STEPS[[5, 7, 15, 17, 25, 27]] = 1
_STEPS[[21, 33]] = math.sqrt(2)
_STEPS[[13, 23]] = (1 + math.sqrt(2)) / 2


def measures(
    segmentation: np.ndarray,
    segments: Sequence[Segment],
    channels: Iterable[Channel] = (),
    pixel_size: float | None = None,
) -> dict[str, np.ndarray]:
    """Measure all segments of a map, int `[h, w]`; see `Panoptic.to_measures` for the columns.

    There is one record for each id in the map. `channels` are name and values `[h, w]` of each channel of the image;
    values that are not finite are left out. `pixel_size` is micrometres of a pixel's side; None: unknown. A channel of
    another size, or a pixel size that is not a number above 0, is an `InputError`.
    """
    if pixel_size is not None and not (isinstance(pixel_size, Real) and 0 < pixel_size < math.inf):
        raise InputError(f"pixel_size must be a number of micrometres above 0, such as 0.65, not {pixel_size}")
    height, width = segmentation.shape
    boxes = np.array([segment.bbox for segment in segments], np.int64).reshape(-1, 4)
    left, top, wide, high = boxes.T
    areas = np.array([segment.area for segment in segments], np.int64)
    numbers = mapped(segmentation, {segment.id: number for number, segment in enumerate(segments, start=1)})
    x, y, variance_x, variance_y, covariance = _moments(numbers, left, top, areas)
    spread = np.hypot(variance_x - variance_y, 2 * covariance)
    longest = variance_x + variance_y + spread
    table = {
        "id": np.array([segment.id for segment in segments], np.int64),
        "category": np.array([segment.name for segment in segments], object),
        "score": np.array([math.nan if s.score is None else s.score for s in segments], np.float64),
        "area": areas,
        "centroid_x": x,
        "centroid_y": y,
        "bbox_x": left,
        "bbox_y": top,
        "bbox_width": wide,
        "bbox_height": high,
        "perimeter": _perimeters(numbers, len(segments)),
        "eccentricity": np.sqrt(np.divide(2 * spread, longest, out=np.zeros_like(spread), where=longest > 0)),
        "orientation": np.arctan2(2 * covariance, variance_y - variance_x) / 2,
        "touching_border": (left == 0) | (top == 0) | (left + wide == width) | (top + high == height),
    }
    if pixel_size is not None:
        for column in ("area", "centroid_x", "centroid_y", *(c for c in table if c.startswith("bbox_")), "perimeter"):
            name, power = ("area_um2", 2) if column == "area" else (f"{column}_um", 1)
            table[name] = table[column] * pixel_size**power
    for name, values in channels:
        if values.shape != (height, width):
            size = " x ".join(map(str, reversed(values.shape)))
            raise InputError(f"the image is {size} pixels, but its segmentation {width} x {height}; give its own image")
        end = f"_{name}" if name else ""
        for kind, column in zip(("mean", "min", "max"), _intensities(numbers, values, len(segments)), strict=True):
            table[f"intensity_{kind}{end}"] = column
    return table


def _moments(numbers: np.ndarray, left: np.ndarray, top: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Mean x, mean y, variance of x, variance of y and covariance of each segment's pixels, float64 `[5, n]`."""
    # Places are relative to each segment's box: small whole numbers, whose sums are exact.
    left, top = np.append(0, left).astype(np.float64), np.append(0, top).astype(np.float64)
    sums = np.zeros((5, len(left)))
    for rows in bands(*numbers.shape):
        y, x = np.nonzero(numbers[rows])
        own = numbers[rows][y, x].astype(np.intp)
        x, y = x - left[own], y + rows.start - top[own]
        for total, values in zip(sums, (x, y, x * x, y * y, x * y), strict=True):
            total += np.bincount(own, values, len(left))
    x, y, xx, yy, xy = sums[:, 1:] / areas
    return np.stack([x + left[1:], y + top[1:], xx - x * x, yy - y * y, xy - x * y])


def _perimeters(numbers: np.ndarray, count: int) -> np.ndarray:
    """Length of each segment's outlines, holes included, as `skimage.measure.perimeter` estimates it.

    A pixel is on the edge if one of its four neighbours is of another segment or outside the image. Its share of the
    length depends on how many of its neighbours are on the edge of the same segment (Benkrid and Crookes, 2000).
    """
    height, width = numbers.shape
    lengths = np.zeros(count + 1)
    for rows in bands(*numbers.shape):
        start, stop = rows.start, rows.stop
        part = np.full((stop - start + 4, width + 4), -1, np.int32)  # two rows and columns more on each side
        first, last = max(0, start - 2), min(height, stop + 2)
        part[first - start + 2 : last - start + 2, 2:-2] = numbers[first:last]
        middle = part[1:-1, 1:-1]
        edge = np.zeros_like(middle)
        for beside in (part[:-2, 1:-1], part[2:, 1:-1], part[1:-1, :-2], part[1:-1, 2:]):
            edge |= middle != beside
        edge = np.where((edge != 0) & (middle > 0), middle, 0)
        y, x = np.nonzero(edge[1:-1, 1:-1])
        own = edge[y + 1, x + 1]
        kind = np.ones(len(own), np.int64)
        for dy in (0, 1, 2):
            for dx in (0, 1, 2):
                if (dy, dx) != (1, 1):
                    kind += np.where(edge[y + dy, x + dx] == own, 2 if 1 in (dy, dx) else 10, 0)
        lengths += np.bincount(own, _STEPS[kind], count + 1)
    return lengths[1:]


def _intensities(numbers: np.ndarray, values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, minimum and maximum of the finite values of each segment; NaN where it has none."""
    pixels, sums = np.zeros(count + 1), np.zeros(count + 1)
    low, high = np.full(count + 1, math.inf), np.full(count + 1, -math.inf)
    for rows in bands(*numbers.shape):
        band, own = numbers[rows].ravel(), values[rows].ravel().astype(np.float64)
        if values.dtype.kind == "f":
            finite = np.isfinite(own)
            band, own = band[finite], own[finite]
        pixels += np.bincount(band, minlength=count + 1)
        sums += np.bincount(band, own, count + 1)
        np.minimum.at(low, band, own)
        np.maximum.at(high, band, own)
    some = pixels > 0
    mean = np.divide(sums, pixels, out=np.full(count + 1, math.nan), where=some)
    return mean[1:], np.where(some, low, math.nan)[1:], np.where(some, high, math.nan)[1:]
