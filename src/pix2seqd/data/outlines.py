"""Instance masks of COCO detection json: polygons, and plain or compressed run-length codes (RLE)."""

import io
import reprlib
from collections.abc import Mapping, Sequence
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
FARTHEST = 1e7
"""Largest coordinate of a point in pixels, in both directions; more than an image has."""
MAX_CROSSED = 2**20
"""Crossings of sides and rows of pixels that are computed at once."""
_MAX_BITS = 60
"""Of one run: far more than any image has pixels."""


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Decode the `segmentation` of an annotation.

    Args:
        segmentation: a list of polygons x1, y1, x2, y2, ... in pixels, of which the union is taken; or a run-length
            code with `size` and `counts`, a list or a string.
        height: height of the image.
        width: width of the image.

    Returns:
        bool `[height, width]`.

    Raises:
        ValueError: the segmentation is damaged or has another size.
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
    inside = np.zeros((height, width), bool)
    for points in polygons:
        fill_polygon(inside, points)
    return inside


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


def fill_polygon(inside: np.ndarray, points: np.ndarray) -> None:
    """Add a polygon: the pixels whose centres are inside by the even-odd rule; pixel i spans i to i + 1.

    `PIL.ImageDraw` also fills the pixels that the outline touches, which enlarges small objects.

    Args:
        inside: bool `[height, width]`, changed in place.
        points: `[n, 2]` x, y.
    """
    height, width = inside.shape
    # A side goes through the centres of these rows; of many small polygons each has few.
    y = np.ceil(np.clip(points[:, 1], 0, height) - 0.5).astype(int)
    top, bottom = y.min(initial=height), y.max(initial=0)
    if top >= bottom:
        return
    low, high = np.clip([points[:, 0].min(), points[:, 0].max()], 0, width)
    left, right = (int(np.ceil(x - 0.5)) for x in (low, high))
    crossed = np.zeros((bottom - top, right - left + 1), np.uint8)
    ends, others = np.roll(points, -1, axis=0), np.roll(y, -1)
    counts, begins = np.abs(others - y), np.minimum(y, others)
    until = np.cumsum(counts)
    first = 0
    while first < len(points):  # sides with so many rows that they do not fill the memory
        last = max(first + 1, np.searchsorted(until, until[first] - counts[first] + MAX_CROSSED, "right"))
        sides = np.repeat(np.arange(first, last), counts[first:last])
        rows = begins[sides] + np.arange(len(sides)) - (until - counts)[sides] + (until - counts)[first]
        (x0, y0), (x1, y1) = points[sides].T, ends[sides].T
        at = np.clip(x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0), low, high)
        np.add.at(crossed, (rows - top, np.ceil(at - 0.5).astype(int) - left), 1)  # 256 is 0, and as even
        first = last
    inside[top:bottom, left:right] |= np.bitwise_xor.accumulate(crossed & 1, axis=1)[:, :-1].astype(bool)


def polygon_mask(points: Any, height: int, width: int) -> np.ndarray:
    """The mask of one polygon.

    Args:
        points: corners x, y, in pixels.
        height: height of the image.
        width: width of the image.

    Raises:
        ValueError: the corners are no pairs of finite numbers, or too far outside.
    """
    pairs = isinstance(points, list | tuple) and all(isinstance(p, list | tuple) and len(p) == 2 for p in points)
    if not pairs:
        raise ValueError("its points are no pairs of numbers")
    return decode_mask([[value for point in points for value in point]], height, width)


def rectangle(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    """The corners of a rectangle, as `polygon_mask` takes them."""
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def ellipse_mask(
    center: tuple[float, float], radii: tuple[float, float], degrees: float, height: int, width: int
) -> np.ndarray:
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
    if not min(radii):
        return np.zeros((height, width), bool)
    y, x = np.ogrid[:height, :width]
    dx, dy, angle = x + 0.5 - center[0], y + 0.5 - center[1], np.deg2rad(degrees)
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    with np.errstate(over="ignore"):  # what is so far out that no float holds it is outside
        return (along / radii[0]) ** 2 + (across / radii[1]) ** 2 <= 1


def stored_mask(png: bytes, left: int, top: int, height: int, width: int) -> np.ndarray:
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
    inside = np.zeros((height, width), bool)
    x, y = max(0, left), max(0, top)
    part = part[y - top : y - top + max(0, height - y), x - left : x - left + max(0, width - x)]
    inside[y : y + part.shape[0], x : x + part.shape[1]] = part
    return inside


def _decode_runs(code: Mapping[str, Any], height: int, width: int) -> np.ndarray:
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
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


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
