"""Label maps as runs of equal pixels (run-length encoding): an image has far fewer runs than pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

Box = tuple[int, int, int, int]
"""x, y, width, height in pixels."""


@dataclass(frozen=True)
class Runs:
    """A label map row by row; a run ends at the end of its row at the latest.

    Attributes:
        starts: integers `[n]`, ascending: the number of each run's first pixel in the flattened map.
        values: integers `[n]`, the label of its pixels.
        shape: height and width of the map.
    """

    starts: np.ndarray
    values: np.ndarray
    shape: tuple[int, int]

    @classmethod
    def encode(cls, labels: np.ndarray) -> "Runs":
        """The runs of integers `[h, w]`."""
        first = np.ones(labels.shape, bool)
        np.not_equal(labels[:, 1:], labels[:, :-1], out=first[:, 1:])
        starts = np.flatnonzero(first)
        return cls(_narrow(starts, labels.size), labels.ravel()[starts], (labels.shape[0], labels.shape[1]))

    @classmethod
    def stack(cls, parts: "Sequence[Runs]") -> "Runs":
        """Maps of one width, one below the other."""
        height, width = sum(part.shape[0] for part in parts), parts[0].shape[1]
        firsts = np.cumsum([0, *(part.shape[0] * width for part in parts[:-1])])
        starts = np.concatenate([part.starts + first for part, first in zip(parts, firsts, strict=True)])
        return cls(_narrow(starts, height * width), np.concatenate([part.values for part in parts]), (height, width))

    @property
    def lengths(self) -> np.ndarray:
        """Pixels of each run, `[n]`."""
        return np.diff(self.starts, append=self.shape[0] * self.shape[1])

    def areas(self, count: int) -> np.ndarray:
        """Pixels of each label from 0, int64 `[count or more]`."""
        return np.bincount(self.values, self.lengths, count).astype(np.int64)

    def indexed(self, labels: Sequence[int]) -> "Runs":
        """The position of each label in `labels`, which are sorted; ids reach 2²⁴, too many for a table."""
        return replace(self, values=np.searchsorted(labels, self.values).astype(np.int32))

    def decode(self, values: np.ndarray) -> np.ndarray:
        """Expand one value for each run to a map `[h, w]`."""
        return np.repeat(values, self.lengths).reshape(self.shape)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """The labels of these rows, `[stop - start, w]`: the rest of a large map need not exist."""
        begin, end = start * self.shape[1], stop * self.shape[1]
        runs = slice(np.searchsorted(self.starts, begin, "right") - 1, np.searchsorted(self.starts, end))
        lengths = np.diff(self.starts[runs].clip(begin), append=end)
        return np.repeat(self.values[runs], lengths).reshape(stop - start, self.shape[1])

    def measure(self) -> dict[int, tuple[int, Box]]:
        """Area and box of every non-zero label, by ascending labels."""
        order = np.argsort(self.values)  # so that the runs of a label follow each other
        labels, begin = np.unique(self.values[order], return_index=True)
        row, left = np.divmod(self.starts[order], max(self.shape[1], 1))
        lengths = self.lengths[order].astype(np.int64)
        top, bottom = np.minimum.reduceat(row, begin), np.maximum.reduceat(row, begin) + 1
        first, last = np.minimum.reduceat(left, begin), np.maximum.reduceat(left + lengths, begin)
        areas = np.add.reduceat(lengths, begin)
        boxes = np.stack([first, top, last - first, bottom - top], axis=1)
        found = zip(labels.tolist(), areas.tolist(), map(tuple, boxes.tolist()), strict=True)
        return {label: (area, box) for label, area, box in found if label}


def mapped(labels: np.ndarray, values: Mapping[int, int], dtype: type = np.int32) -> np.ndarray:
    """The value of each pixel's label, of integers ≥ 0 `[h, w]`; 0 for labels without a value."""
    table = np.zeros(1 + max(int(labels.max(initial=0)), *values, 0), dtype)
    table[list(values)] = list(values.values())
    return table[labels]


def joint(maps: Sequence[Runs]) -> tuple[np.ndarray, np.ndarray]:
    """The runs of pixels that have equal labels in each of several maps of one size.

    Returns:
        The labels of each run in each map, `[maps, n]`, and the runs' first pixels, `[n]`.
    """
    starts = np.sort(np.concatenate([one.starts for one in maps]), kind="stable")  # fast for what is sorted in parts
    starts = starts[np.diff(starts, prepend=-1) > 0]
    # The run of each map that holds the start.
    return np.stack([one.values[np.searchsorted(one.starts, starts, "right") - 1] for one in maps]), starts


def shared_pixels(*maps: Runs) -> tuple[np.ndarray, np.ndarray]:
    """The combinations of labels that pixels have in maps of one size, `[maps, m]`, sorted, and their pixels, `[m]`."""
    labels, starts = joint(maps)  # there are far fewer runs than pixels to be sorted
    return group_sum(labels, np.diff(starts, append=maps[0].shape[0] * maps[0].shape[1]))


def group_sum(keys: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum the counts of equal keys: integers `[k, n]` and `[n]` → distinct sorted keys `[k, m]` and sums `[m]`."""
    order = np.lexsort(keys[::-1])
    keys, counts = keys[:, order], counts[order]
    first = np.flatnonzero(np.append([True] * (len(counts) > 0), (keys[:, 1:] != keys[:, :-1]).any(axis=0)))
    return keys[:, first], np.add.reduceat(counts, first).astype(np.int64)


def pairwise_iou(one: Runs, two: Runs) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of labels that share pixels in two maps of one size, `[2, m]`, sorted, and their IoU, float64 `[m]`."""
    pairs, shared = shared_pixels(one, two)
    areas = (np.bincount(i, shared)[i] for i in (np.unique(side, return_inverse=True)[1] for side in pairs))
    return pairs, shared / (sum(areas) - shared)


def _narrow(starts: np.ndarray, pixels: int) -> np.ndarray:
    return starts.astype(np.int32) if pixels < 2**31 else starts
