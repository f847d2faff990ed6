"""What every data set yields: pictures, or clips of pictures, and their true panoptic segmentation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, overload

import numpy as np

from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy


@dataclass(frozen=True, eq=False)
class Sample:
    """One labelled picture.

    Attributes:
        name: the stem of its file, unique in the data set.
        image: uint8 `[h, w, 3]`, RGB.
        panoptic: the truth, at the same height and width; crowds are marked, not removed.
    """

    name: str
    image: np.ndarray
    panoptic: Panoptic


class Dataset(Protocol):
    """A sequence of samples that share a taxonomy. Items are pure functions of their index: no hidden state."""

    @property
    def taxonomy(self) -> Taxonomy:
        """What the classes of all samples mean."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class Subset:
    """Some samples of a data set, in the order of `indices`."""

    dataset: Dataset
    indices: tuple[int, ...]

    @property
    def taxonomy(self) -> Taxonomy:
        """The data set's."""
        return self.dataset.taxonomy

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]


@dataclass(frozen=True, eq=False)
class Clip:
    """Consecutive labelled frames of one size; a segment keeps its id and category from frame to frame.

    Attributes:
        name: unique in the data set.
        frames: in the order of time; may be read only when they are asked for.
    """

    name: str
    frames: Sequence[Sample]


class MadeFrames(Sequence[Sample]):
    """Frames that are made when they are asked for: frame i is `make(i)`."""

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


class ClipDataset(Protocol):
    """A sequence of clips that share a taxonomy. Items are pure functions of their index: no hidden state."""

    @property
    def taxonomy(self) -> Taxonomy:
        """What the classes of all clips mean."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Clip: ...
