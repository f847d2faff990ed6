"""The items of data sets: labelled images and labelled clips, with panoptic ground truth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, overload

import numpy as np

from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy


@dataclass(frozen=True, eq=False)
class Sample:
    """One labelled image.

    Attributes:
        name: stem of the file name, unique in the data set.
        image: uint8 `[h, w, 3]`, RGB.
        panoptic: the ground truth, `[h, w]`; crowds are marked, not removed.
        notes: one line each about what was left out of the image, and how its labels were taken.
    """

    name: str
    image: np.ndarray
    panoptic: Panoptic
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Clip:
    """Consecutive labelled frames of one size; a segment has the same id and category in all frames.

    Attributes:
        name: unique in the data set.
        frames: in order of time; they may be read on access.
    """

    name: str
    frames: Sequence[Sample]


class LazyFrames(Sequence[Sample]):
    """Frames computed on access: frame i is `make(i)`."""

    def __init__(self, length: int, make: Callable[[int], Sample]) -> None:
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        numbers = range(self._length)[index]
        return self._make(numbers) if isinstance(numbers, int) else [self._make(i) for i in numbers]


Item = TypeVar("Item")
CovariantItem = TypeVar("CovariantItem", covariant=True)


class Items(Protocol[CovariantItem]):
    """A sequence of items with one taxonomy. An item depends only on its index."""

    @property
    def taxonomy(self) -> Taxonomy:
        """The categories of all items."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> CovariantItem: ...


Dataset = Items[Sample]
ClipDataset = Items[Clip]


@dataclass(frozen=True)
class Subset(Generic[Item]):
    """The items of a data set at `indices`, in that order. A `Dataset` or `ClipDataset`."""

    dataset: Items[Item]
    indices: tuple[int, ...]

    @property
    def taxonomy(self) -> Taxonomy:
        """The taxonomy of the data set."""
        return self.dataset.taxonomy

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Item:
        return self.dataset[self.indices[index]]


@dataclass(frozen=True)
class Mapped(Generic[Item]):
    """The items of a data set or a sequence, each changed by a function. A `Dataset` or `ClipDataset`."""

    dataset: Items[Any] | Sequence[Any]
    taxonomy: Taxonomy
    change: Callable[[Any], Item]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Item:
        return self.change(self.dataset[index])


def evenly_spaced(length: int, count: int) -> tuple[int, ...]:
    """`count` indices, or all if there are fewer, evenly spread from the first to the last of `length`."""
    return tuple(int(i) for i in np.linspace(0, length - 1, min(count, length)))


def subsample(dataset: Items[Item], count: int | None) -> Items[Item]:
    """At most `count` items, evenly spread over the data set; None: all."""
    return dataset if count is None or count >= len(dataset) else Subset(dataset, evenly_spaced(len(dataset), count))
