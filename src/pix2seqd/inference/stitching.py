"""Windows of a large image, and their segments joined across the seams (not in the paper)."""

from dataclasses import replace

import numpy as np

from pix2seqd.inference.postprocess import LabelMap, lowest_joined
from pix2seqd.panoptic.runs import Runs, pairwise_iou
from pix2seqd.panoptic.taxonomy import VOID, Taxonomy

Tile = tuple[int, int, np.ndarray]
"""Top, left and labels of a window."""


class Canvas:
    """A map of the whole image in which every pixel has the value of the window in which it lies deepest.

    A pixel lies deep in a window if it is far from those edges at which the window was cut from the image. Windows come
    in ascending order of top, so the rows above a window are finished.

    Args of the constructor:
        height, width: of the map.
        dtype: of its values.
        as_runs: keep the map as `runs`, of which only the rows of the last windows exist as an array.
    """

    def __init__(self, height: int, width: int, dtype: type[np.integer], as_runs: bool = False) -> None:
        self._shape, self._as_runs = (height, width), as_runs
        self._top, self._rows = 0, np.zeros((0 if as_runs else height, width), dtype)
        self._parts: list[Runs] = []
        self._windows: list[tuple[int, int, tuple[int, int]]] = []

    def paint(self, top: int, left: int, values: np.ndarray) -> None:
        """Write the values of a window, `[h, w]`; it may extend beyond the image."""
        values = values[: self._shape[0] - top, : self._shape[1] - left]
        height, width = values.shape
        self._finish(top)
        missing = top + height - self._top - len(self._rows)
        if missing > 0:
            self._rows = np.pad(self._rows, ((0, missing), (0, 0)))
        region = self._rows[top - self._top :, left : left + width][:height]
        np.copyto(region, values, where=self._deepest(top, left, (height, width)), casting="same_kind")

    def runs(self) -> Runs:
        """The whole map, with `as_runs`."""
        self._finish(self._shape[0])
        return Runs.stack(self._parts)

    @property
    def values(self) -> np.ndarray:
        """The whole map, `[height, width]`, without `as_runs`; 0 where no window was written yet."""
        return self._rows

    def _finish(self, top: int) -> None:
        """With `as_runs`: encode the rows above `top`, where no window will be written any more."""
        if self._as_runs and top > self._top:
            self._parts.append(Runs.encode(self._rows[: top - self._top]))
            self._rows, self._top = self._rows[top - self._top :].copy(), top

    def _deepest(self, top: int, left: int, shape: tuple[int, int]) -> np.ndarray:
        """Which pixels of a window lie deeper in it than in any window before it, bool `[h, w]`."""
        depth, deepest = window_depth(top, left, shape, self._shape), np.ones(shape, bool)
        self._windows = [window for window in self._windows if window[0] + window[2][0] > top]
        for y, x, other in self._windows:
            rows, columns = (
                (max(a, b), min(a + n, b + m)) for a, n, b, m in zip((top, left), shape, (y, x), other, strict=True)
            )
            if columns[0] < columns[1]:
                own, others = (
                    np.s_[rows[0] - i : rows[1] - i, columns[0] - j : columns[1] - j] for i, j in ((top, left), (y, x))
                )
                deepest[own] &= depth[own] > window_depth(y, x, other, self._shape)[others]
        self._windows.append((top, left, shape))
        return deepest


def windows(length: int, size: int, overlap: int) -> list[int]:
    """Starts of evenly spaced windows of `size` that cover `length` and overlap by `overlap` or more."""
    if length <= size:
        return [0]
    count = _count(length, size, overlap)
    return [round(i * (length - size) / (count - 1)) for i in range(count)]


def window_size(length: int, largest: int, overlap: int, unit: int) -> int:
    """The smallest size, in multiples of `unit`, of as many windows as those of the `largest` size would be."""
    count = _count(length, largest, overlap)
    return -(-(length + (count - 1) * overlap) // (count * unit)) * unit


def _count(length: int, size: int, overlap: int) -> int:
    """Number of windows of `size` that cover `length` and overlap by `overlap` or more."""
    return max(-(-(length - overlap) // (size - overlap)), 1)


class LabelStitcher:
    """Label maps of overlapping windows that become one, with their confidence.

    In an overlap every pixel goes to the window in which it lies deeper. Things of two windows become one if their IoU
    in the overlap is above 0.5. Stuff is joined by class. What lies above the last windows is kept as runs.
    """

    def __init__(self, height: int, width: int, taxonomy: Taxonomy) -> None:
        self._size, self._taxonomy = (height, width), taxonomy
        self._canvas, self._confidence = Canvas(height, width, np.int32, as_runs=True), Canvas(height, width, np.uint8)
        # Labels of void and stuff are their classes; things get the next numbers.
        self._class_of = list(range(len(taxonomy) + 1))
        self._same: list[tuple[int, int]] = []
        """Pairs of labels of one thing."""
        self._placed: list[Tile] = []

    def add(self, top: int, left: int, found: LabelMap, confidence: np.ndarray) -> None:
        """Add a window, whose top is not above that of the window before; it may extend beyond the image."""
        class_of = self._class_of
        labels, classes = found[0][: self._size[0] - top, : self._size[1] - left], found[1]
        tile = (top, left, _renumbered(labels, classes, class_of, self._taxonomy))
        self._placed = [other for other in self._placed if other[0] + len(other[2]) > top]
        agreeing = (pair for other in self._placed for pair in _agreeing(other, tile))
        self._same += [(i, j) for i, j in agreeing if class_of[i] == class_of[j]]
        self._placed.append(tile)
        self._canvas.paint(*tile)
        self._confidence.paint(top, left, confidence)

    @property
    def confidence(self) -> np.ndarray:
        """The confidence of each pixel, uint8 `[height, width]`."""
        return self._confidence.values

    def labels(self) -> tuple[Runs, dict[int, int]]:
        """Labels int32 of all pixels, and the class of each label that occurs."""
        runs = self._canvas.runs()
        values = lowest_joined(np.array(self._same, int).reshape(-1, 2).T, len(self._class_of))[runs.values]
        return replace(runs, values=values), {i: self._class_of[i] for i in np.unique(values).tolist() if i != VOID}


def _renumbered(labels: np.ndarray, classes: dict[int, int], class_of: list[int], taxonomy: Taxonomy) -> np.ndarray:
    """Labels of a window → labels of the image; each thing gets a new label, whose class is added to `class_of`."""
    table = np.zeros(max(classes, default=0) + 1, np.int32)
    for label, class_index in classes.items():
        table[label] = class_index
        if taxonomy.category(class_index).isthing:
            table[label] = len(class_of)
            class_of.append(class_index)
    return table[labels]


def _agreeing(one: Tile, two: Tile) -> list[list[int]]:
    """Pairs of labels of two windows with an IoU above 0.5 in their overlap."""
    top, left = max(one[0], two[0]), max(one[1], two[1])
    bottom, right = (min(tile[axis] + tile[2].shape[axis] for tile in (one, two)) for axis in (0, 1))
    if bottom <= top or right <= left:
        return []
    parts = (Runs.encode(labels[top - y : bottom - y, left - x : right - x]) for y, x, labels in (one, two))
    pairs, iou = pairwise_iou(*parts)
    return pairs[:, iou > 0.5].T.tolist()


def window_depth(top: int, left: int, shape: tuple[int, ...], whole: tuple[int, ...]) -> np.ndarray:
    """Distance of each pixel of a window of `shape` from the edges cut from the `whole`, int `[h, w]`."""
    rows, columns = (_depth(*part) for part in zip((top, left), shape, whole, strict=True))
    return np.minimum(rows[:, None], columns)


def _depth(start: int, length: int, whole: int) -> np.ndarray:
    """Distance of each pixel of a window from its ends, from 1; an end that is also the image's does not count."""
    steps, far = np.arange(1, length + 1), np.full(length, np.iinfo(np.int32).max)
    return np.minimum(steps if start > 0 else far, steps[::-1] if start + length < whole else far)
