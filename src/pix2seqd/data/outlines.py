"""Instance masks as COCO detection json stores them: polygons, and run-length codes plain or compressed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Bool `[h, w]` of an annotation's `segmentation`.

    Args:
        segmentation: a list of polygons x1, y1, x2, y2, ... in pixels, whose union counts; or a run-length code with
            `size` and `counts`, a list or a string.
        height: of the picture.
        width: of the picture.

    Raises:
        ValueError: none of these, or a code of another size.
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
    """Bool `[h, w]`: the pixels whose centres are inside (even-odd rule); pixel i reaches from i to i + 1.

    Pillow's polygons also cover the pixels that their outline touches, which makes small objects grow.

    Args:
        points: `[n, 2]` x, y.
        height: of the picture.
        width: of the picture.
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
    """Runs of 0 and 1 in turn, column by column."""
    counts = code.get("counts")
    if list(code.get("size", ())) != [height, width]:
        raise ValueError(f"the run-length code has size {code.get('size')}, the picture [{height}, {width}]")
    if not isinstance(counts, str | bytes | list):
        raise ValueError("the run-length code has no counts")
    runs = counts if isinstance(counts, list) else _decompress(counts)
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError("the run-length code does not cover the picture")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _decompress(counts: str | bytes) -> list[int]:
    """COCO's compressed runs: five bits a character, lowest first, signed; from the fourth on differences to the
    run before the last.
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
