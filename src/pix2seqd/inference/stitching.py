"""Windows of a large image, and their segments joined across the seams (not in the paper)."""

from collections.abc import Iterable

import numpy as np

from pix2seqd.inference.postprocess import Labels
from pix2seqd.panoptic.panoptic import compact
from pix2seqd.panoptic.taxonomy import VOID, Taxonomy

Tile = tuple[int, int, np.ndarray]
"""Top, left and labels of a window."""


class Canvas:
    """A map of the whole image in which every pixel has the value of the window in which it lies deepest.

    Attributes:
        values: `[height, width]`, 0 where no window was written yet.
    """

    def __init__(self, height: int, width: int, dtype: type[np.integer] = np.int32) -> None:
        self.values = np.zeros((height, width), dtype)
        self._depth = np.zeros((height, width), np.int32)

    def paint(self, top: int, left: int, values: np.ndarray) -> None:
        """Write the values of a window, `[h, w]`; it may extend beyond the image."""
        values = values[: len(self.values) - top, : self.values.shape[1] - left]
        inner = window_depth(top, left, values.shape, self.values.shape)
        region = np.s_[top : top + values.shape[0], left : left + values.shape[1]]
        deeper = inner > self._depth[region]
        self.values[region][deeper] = values[deeper]
        self._depth[region][deeper] = inner[deeper]


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


def join(tiles: Iterable[tuple[int, int, Labels]], height: int, width: int, taxonomy: Taxonomy) -> Labels:
    """Join the label maps of overlapping windows into one.

    In an overlap every pixel goes to the window in which it lies deeper. Things of two windows become one if their IoU
    in the overlap is above 0.5. Stuff is joined by class.

    Args:
        tiles: (top, left, labels of the window), in ascending order of top; windows may extend beyond the image.
        height: height of the image.
        width: width of the image.
        taxonomy: which classes are things.

    Returns:
        Labels int32 `[height, width]`, and the class of each label that occurs.
    """
    canvas = Canvas(height, width)
    class_of = list(range(len(taxonomy) + 1))  # labels of void and stuff are their classes; things get the next numbers
    parent = list(class_of)
    placed: list[Tile] = []
    for top, left, (labels, classes) in tiles:
        labels = labels[: height - top, : width - left]
        tile = (top, left, _renumbered(labels, classes, class_of, taxonomy))
        parent.extend(range(len(parent), len(class_of)))
        placed = [other for other in placed if other[0] + len(other[2]) > top]
        for i, j in (pair for other in placed for pair in _agreeing(other, tile)):
            if class_of[i] == class_of[j]:
                low, high = sorted((_root(parent, i), _root(parent, j)))
                parent[high] = low
        placed.append(tile)
        canvas.paint(*tile)
    roots = np.array([_root(parent, i) for i in range(len(parent))], np.int32)
    labels = roots[canvas.values]
    return labels, {i: class_of[i] for i in np.flatnonzero(np.bincount(labels.ravel())).tolist() if i != VOID}


def _renumbered(labels: np.ndarray, classes: dict[int, int], class_of: list[int], taxonomy: Taxonomy) -> np.ndarray:
    """Labels of a window → labels of the image; each thing gets a new label, whose class is added to `class_of`."""
    table = np.zeros(max(classes, default=0) + 1, np.int32)
    for label, class_index in classes.items():
        table[label] = class_index
        if taxonomy.category(class_index).isthing:
            table[label] = len(class_of)
            class_of.append(class_index)
    return table[labels]


def _agreeing(one: Tile, two: Tile) -> list[tuple[int, int]]:
    """Pairs of labels of two windows with an IoU above 0.5 in their overlap."""
    top, left = max(one[0], two[0]), max(one[1], two[1])
    bottom, right = (min(tile[axis] + tile[2].shape[axis] for tile in (one, two)) for axis in (0, 1))
    if bottom <= top or right <= left:
        return []
    parts = [labels[top - y : bottom - y, left - x : right - x].ravel() for y, x, labels in (one, two)]
    (rows, row), (columns, column) = (compact(part) for part in parts)
    shared = np.bincount(row * len(columns) + column, minlength=len(rows) * len(columns)).reshape(len(rows), -1)
    union = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0) - shared
    return [(int(rows[i]), int(columns[j])) for i, j in np.argwhere(2 * shared > union)]


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        i = parent[i]
    return i


def window_depth(top: int, left: int, shape: tuple[int, ...], whole: tuple[int, ...]) -> np.ndarray:
    """Distance of each pixel of a window of `shape` from the edges cut from the `whole`, int `[h, w]`."""
    rows, columns = (_depth(*part) for part in zip((top, left), shape, whole, strict=True))
    return np.minimum(rows[:, None], columns)


def _depth(start: int, length: int, whole: int) -> np.ndarray:
    """Distance of each pixel of a window from its ends, from 1; an end that is also the image's does not count."""
    steps, far = np.arange(1, length + 1), np.full(length, np.iinfo(np.int32).max)
    return np.minimum(steps if start > 0 else far, steps[::-1] if start + length < whole else far)
