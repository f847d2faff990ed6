"""Instance masks of annotations: polygons, ellipses, pictures, and plain or compressed run-length codes (RLE)."""

import io
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pix2seqd.files import InputError
from pix2seqd.images.load import check_pixels

MAX_POINTS = 50_000
"""Points of all polygons of one segmentation."""
MAX_POLYGONS = 2_000
"""Polygons of one segmentation."""
MAX_RUNS = 2**22
"""Runs, or characters of a compressed code, of one segmentation."""
MAX_WORK = 2**31
"""Pixels of the bounding boxes of all masks of one image, and of the parts that masks are made of."""
FARTHEST = 1e7
"""Largest coordinate of a point in pixels, in both directions; more than an image has."""
MAX_CROSSED = 2**20
"""Crossings of sides and rows of pixels that are computed at once."""
BAND = 2**18
"""Pixels of a mask that are looked at at once: they fit into the processor's cache."""
_CROSSING = 32
"""Pixels that can be filled in the time of one crossing."""
_MAX_BITS = 60
"""Of one run: far more than any image has pixels."""


@dataclass(frozen=True)
class Mask:
    """The pixels of an object, as bits of its bounding box: thousands in a large image would fill the memory.

    Attributes:
        box: rows and columns of the bounding box; both are empty if the mask is.
        bits: its pixels, eight a byte, `[h, ceil(w / 8)]`.
        work: what it took to make the mask, see `MAX_WORK`.
    """

    box: tuple[slice, slice]
    bits: np.ndarray
    work: int

    @classmethod
    def of(cls, inside: np.ndarray, top: int = 0, left: int = 0, work: int = 0) -> "Mask":
        """From bool `[h, w]` at a place in the image; `work` is what it took beside the pixels of its box."""
        rows = np.flatnonzero(inside.any(axis=1))
        columns = np.flatnonzero(inside[rows[0] : rows[-1] + 1].any(axis=0)) if rows.size else rows
        y, x = (slice(found[0], found[-1] + 1) if found.size else slice(0, 0) for found in (rows, columns))
        box = slice(top + y.start, top + y.stop), slice(left + x.start, left + x.stop)
        seen = inside[y, x]
        return cls(box, np.packbits(seen, axis=1), work + seen.size)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the bounding box."""
        return self.box[0].stop - self.box[0].start, self.box[1].stop - self.box[1].start

    def bands(self) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
        """Rows and columns of a part of the bounding box, and which of its pixels are inside, bool `[h, w]`."""
        (rows, columns), (height, width) = self.box, self.shape
        step = max(1, BAND // max(1, width))
        for first in range(0, height, step):
            inside = np.unpackbits(self.bits[first : first + step], axis=1, count=width).view(bool)
            yield (slice(rows.start + first, rows.start + first + len(inside)), columns), inside

    def transposed(self) -> "Mask":
        """The mask of the transposed image."""
        inside = np.unpackbits(self.bits, axis=1, count=self.shape[1]).view(bool)
        rows, columns = self.box
        return Mask((columns, rows), np.packbits(inside.T, axis=1), self.work)

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.bitwise_count(self.bits).sum())

    def whole(self, height: int, width: int) -> np.ndarray:
        """The mask in an image of this size, bool `[height, width]`."""
        whole = np.zeros((height, width), bool)
        for box, inside in self.bands():
            whole[box] = inside
        return whole


def combine(masks: Iterable[Mask], operator: Callable[..., Any] = np.logical_or) -> Mask:
    """One mask of several, from the first to the last.

    Args:
        masks: no more are made than `MAX_WORK` allows; of none, the result is empty.
        operator: what is done with each but the first: `np.logical_or` adds it, `np.greater` takes it away, and
            `np.logical_xor` does one where the other was done.

    Raises:
        ValueError: they are more than `MAX_WORK`.
    """
    parts, work = [], 0
    for mask in masks:
        parts.append(mask)
        work += mask.work
        if work > MAX_WORK:
            raise ValueError(too_large())
    if len(parts) == 1:
        return parts[0]
    boxes = [part.box for part in parts if part.bits.size] or [(slice(0, 0), slice(0, 0))]
    top, left = (min(box[axis].start for box in boxes) for axis in (0, 1))
    bottom, right = (max(box[axis].stop for box in boxes) for axis in (0, 1))
    inside = np.zeros((bottom - top, right - left), bool)
    for number, part in enumerate(parts):
        for (rows, columns), band in part.bands():
            view = inside[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
            (operator if number else np.logical_or)(view, band, out=view)
    return Mask.of(inside, top, left, work)


def too_large() -> str:
    """The message about masks above `MAX_WORK`."""
    return f"its outlines cover more than {MAX_WORK:,} pixels together; cut the image into tiles"


def decode_mask(segmentation: Any, height: int, width: int) -> Mask:
    """Decode the `segmentation` of an annotation.

    Args:
        segmentation: a list of polygons x1, y1, x2, y2, ... in pixels, of which the union is taken; or a run-length
            code with `size` and `counts`, a list or a string.
        height: height of the image.
        width: width of the image.

    Raises:
        ValueError: the segmentation is damaged, has another size or would take too long.
    """
    if isinstance(segmentation, Mapping):
        return _decode_runs(segmentation, height, width)
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str):
        raise ValueError("segmentation is neither polygons nor a run-length code")
    if len(segmentation) > MAX_POLYGONS:
        raise ValueError(f"the segmentation has more than {MAX_POLYGONS:,} polygons")
    polygons = [_polygon(given) for given in segmentation]
    if sum(map(len, polygons)) > MAX_POINTS:
        raise ValueError(f"the polygons have more than {MAX_POINTS:,} points")
    return combine(fill_polygon(points, height, width) for points in polygons)


def _polygon(given: Any) -> np.ndarray:
    """`[n, 2]` x, y of a list x1, y1, x2, y2, ...

    Raises:
        ValueError: it is none, or has coordinates that are not finite or beyond `FARTHEST`.
    """
    try:
        numbers = isinstance(given, list | tuple) and all(type(number) in (int, float) for number in given)
        points = np.asarray(given, float) if numbers and len(given) % 2 == 0 else None
    except OverflowError:  # an integer that no float holds
        points = np.full(2, np.inf)
    if points is None:
        raise ValueError("a polygon is not a list x1, y1, x2, y2, ...")
    if not (np.abs(points) <= FARTHEST).all():  # neither holds for NaN
        raise ValueError(f"a polygon has coordinates that are not from -{FARTHEST:.0f} to {FARTHEST:.0f}")
    return points.reshape(-1, 2)


def fill_polygon(points: np.ndarray, height: int, width: int) -> Mask:
    """The mask of a polygon: the pixels whose centres are inside by the even-odd rule; pixel i spans i to i + 1.

    `PIL.ImageDraw` also fills the pixels that the outline touches, which enlarges small objects.

    Args:
        points: `[n, 2]` x, y.
        height: height of the image.
        width: width of the image.

    Raises:
        ValueError: it has more pixels and crossings with rows than `MAX_WORK`.
    """
    # A side goes through the centres of these rows; of many small polygons each has few.
    y = np.ceil(np.clip(points[:, 1], 0, height) - 0.5).astype(int)
    top, bottom = y.min(initial=height), y.max(initial=0)
    if top >= bottom:
        return Mask.of(np.zeros((0, 0), bool))
    low, high = np.clip([points[:, 0].min(), points[:, 0].max()], 0, width)
    left, right = (int(np.ceil(x - 0.5)) for x in (low, high))
    ends, others = np.roll(points, -1, axis=0), np.roll(y, -1)
    counts, begins = np.abs(others - y), np.minimum(y, others)
    until = np.cumsum(counts)
    work = _CROSSING * int(until[-1])
    if work + (bottom - top) * (right - left) > MAX_WORK:
        raise ValueError(too_large())
    crossed = np.zeros((bottom - top, right - left + 1), np.uint8)
    first = 0
    while first < len(points):  # sides with so many rows that they do not fill the memory
        last = max(first + 1, np.searchsorted(until, until[first] - counts[first] + MAX_CROSSED, "right"))
        sides = np.repeat(np.arange(first, last), counts[first:last])
        rows = begins[sides] + np.arange(len(sides)) - (until - counts)[sides] + (until - counts)[first]
        (x0, y0), (x1, y1) = points[sides].T, ends[sides].T
        at = np.clip(x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0), low, high)
        np.add.at(crossed, (rows - top, np.ceil(at - 0.5).astype(int) - left), 1)  # 256 is 0, and as even
        first = last
    np.bitwise_and(crossed, 1, out=crossed)
    np.bitwise_xor.accumulate(crossed, axis=1, out=crossed)
    return Mask.of(crossed[:, :-1].view(bool), int(top), left, work)


def polygon_mask(points: Any, height: int, width: int) -> Mask:
    """The mask of one polygon.

    Args:
        points: corners x, y, in pixels.
        height: height of the image.
        width: width of the image.

    Raises:
        ValueError: the corners are not pairs of finite numbers or too far outside, or as `fill_polygon`.
    """
    pairs = isinstance(points, list | tuple) and all(isinstance(p, list | tuple) and len(p) == 2 for p in points)
    if not pairs:
        raise ValueError("its points are not pairs of numbers")
    return decode_mask([[value for point in points for value in point]], height, width)


def rectangle(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    """The corners of a rectangle, as `polygon_mask` takes them."""
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Points `[n, 2]` (x, y) turned around (0, 0), clockwise, as seen."""
    angle = np.deg2rad(degrees)
    return points @ [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]


def ellipse_mask(
    center: tuple[float, float], radii: tuple[float, float], degrees: float, height: int, width: int
) -> Mask:
    """The mask of an ellipse: the pixels whose centres are inside.

    Args:
        center: x, y in pixels.
        radii: along x and y, before it is turned.
        degrees: how far it is turned clockwise, as seen.
        height: height of the image.
        width: width of the image.

    Raises:
        ValueError: a number is not finite or too large, or a radius is negative.
    """
    if not (np.abs([*center, *radii, degrees]) <= FARTHEST).all() or min(radii) < 0:
        raise ValueError("its centre, radius or angle is no number of pixels or degrees")
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    across, down = np.hypot(radii[0] * cos, radii[1] * sin), np.hypot(radii[0] * sin, radii[1] * cos)
    left, right = (int(np.clip(center[0] + side * across, 0, width)) for side in (-1, 1))
    top, bottom = (int(np.clip(center[1] + side * down, 0, height)) for side in (-1, 1))
    inside = np.zeros((min(bottom + 1, height) - top, min(right + 1, width) - left), bool)
    x = np.arange(left, left + inside.shape[1]) + 0.5 - center[0]
    if min(radii) > 0:
        for row in range(len(inside)):  # not all at once, which takes 50 bytes a pixel
            y = top + row + 0.5 - center[1]
            with np.errstate(over="ignore"):  # what is so far out that no float holds it is outside
                distance = ((x * cos + y * sin) / radii[0]) ** 2 + ((y * cos - x * sin) / radii[1]) ** 2
            inside[row] = distance <= 1
    return Mask.of(inside, top, left)


def stored_mask(png: bytes, left: int, top: int, height: int, width: int) -> Mask:
    """A mask that is stored as the PNG of a part of the image; what is not black and not transparent is inside.

    Args:
        png: content of the PNG.
        left: column of its first pixel in the image; it may lie partly outside.
        top: row of its first pixel.
        height: height of the image.
        width: width of the image.

    Raises:
        ValueError: it is no PNG, or has too many pixels.
    """
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as opened:
            check_pixels(*opened.size)
            grey, alpha = np.moveaxis(np.asarray(opened.convert("LA")), -1, 0)
            part = (grey > 0) & (alpha > 0)
    except InputError as error:
        raise ValueError(str(error)) from error
    except Exception as error:  # of damaged data, Pillow raises anything
        raise ValueError("its mask is no PNG") from error
    x, y = max(0, left), max(0, top)
    seen = part[y - top : y - top + max(0, height - y), x - left : x - left + max(0, width - x)]
    return Mask.of(seen, y, x, part.size)


def column_runs(starts: np.ndarray, ends: np.ndarray, height: int) -> Mask:
    """The mask of runs of pixels, which are counted from 0 down each column.

    Args:
        starts: first pixel of each run, `[n]`; runs may overlap.
        ends: pixel after its last, `[n]`.
        height: height of the image.

    Raises:
        ValueError: the mask is larger than `MAX_WORK`.
    """
    order = np.argsort(starts, kind="stable")
    order = order[starts[order] < ends[order]]
    if not order.size:
        return combine([])
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    apart = np.flatnonzero(starts[1:] > ends[:-1])  # the others touch, and are one run
    starts, ends = starts[np.append(0, apart + 1)], ends[np.append(apart, -1)]
    (left, top), (right, bottom) = np.divmod(starts, height), np.divmod(ends - 1, height)
    if (left == right).all():  # no run goes on in the next column, so that only some rows are needed
        first, last = int(top.min()), int(bottom.max()) + 1
    else:
        first, last = 0, height
    tall, column = last - first, int(left[0])
    if tall * (int(right[-1]) + 1 - column) > MAX_WORK:
        raise ValueError(too_large())
    edges = np.stack([(left - column) * tall + top - first, (right - column) * tall + bottom - first + 1], 1).ravel()
    lengths = np.diff(edges, prepend=0, append=(int(right[-1]) + 1 - column) * tall)
    inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(-1, tall).T
    return Mask.of(inside, first, column, inside.size)


def _decode_runs(code: Mapping[str, Any], height: int, width: int) -> Mask:
    """Alternating runs of 0 and 1, column by column."""
    counts, size = code.get("counts"), code.get("size")
    if not isinstance(size, list | tuple) or list(size) != [height, width]:
        raise ValueError(f"the run-length code has size {reprlib.repr(size)}, the image [{height}, {width}]")
    if not isinstance(counts, str | bytes | list):
        raise ValueError("the run-length code has no counts")
    if len(counts) > MAX_RUNS:
        raise ValueError(f"the run-length code has more than {MAX_RUNS:,} runs")
    runs = counts if isinstance(counts, list) else _decompress(counts)
    if any(type(run) is not int for run in runs):
        raise ValueError("the run-length code has runs that are no integers")
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError("the run-length code does not cover the image")
    until = np.cumsum(runs, dtype=np.int64)
    return column_runs(until[:-1:2], until[1::2], height)


def _decompress(counts: str | bytes) -> list[int]:
    """Decode the compressed runs of COCO: five bits per character, lowest first, signed.

    From the fourth run on, the values are differences from the run two positions before.
    """
    text = counts.encode(errors="surrogatepass") if isinstance(counts, str) else counts
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if shift > _MAX_BITS:  # a number of a million digits would take hours
            break
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift or any(not 48 <= character < 112 for character in text):
        raise ValueError("the compressed run-length code is damaged")
    return runs
