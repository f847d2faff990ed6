"""Instance masks of COCO detection json: polygons, and plain or compressed run-length codes (RLE)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


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
    inside = np.zeros((height, width), bool)
    for polygon in segmentation:
        points = np.asarray(polygon, float)
        if points.ndim != 1 or len(points) % 2 or not np.isfinite(points).all():
            raise ValueError("a polygon is not a list x1, y1, x2, y2, ...")
        inside |= fill_polygon(points.reshape(-1, 2), height, width)
    return inside


def fill_polygon(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rasterise a polygon: the pixels whose centres are inside by the even-odd rule; pixel i spans i to i + 1.

    `PIL.ImageDraw` also fills the pixels that the outline touches, which enlarges small objects.

    Args:
        points: `[n, 2]` x, y.
        height: height of the image.
        width: width of the image.

    Returns:
        bool `[height, width]`.
    """
    crossed = np.zeros((height, width + 1), np.uint8)
    for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        first, last = sorted(np.ceil(np.clip([y0, y1], 0, height) - 0.5).astype(int))
        rows = np.arange(first, last)
        if len(rows):
            x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
            crossed[rows, np.ceil(np.clip(x, 0, width) - 0.5).astype(int)] ^= 1
    return np.bitwise_xor.accumulate(crossed, axis=1)[:, :width].astype(bool)


def _decode_runs(code: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """Alternating runs of 0 and 1, column by column."""
    counts = code.get("counts")
    if list(code.get("size", ())) != [height, width]:
        raise ValueError(f"the run-length code has size {code.get('size')}, the image [{height}, {width}]")
    if not isinstance(counts, str | bytes | list):
        raise ValueError("the run-length code has no counts")
    runs = counts if isinstance(counts, list) else _decompress(counts)
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError("the run-length code does not cover the image")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _decompress(counts: str | bytes) -> list[int]:
    """Decode the compressed runs of COCO: five bits per character, lowest first, signed.

    From the fourth run on, the values are differences from the run two positions before.
    """
    text = counts.encode() if isinstance(counts, str) else counts
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift or any(not 48 <= character < 112 for character in text):
        raise ValueError("the compressed run-length code is damaged")
    return runs
