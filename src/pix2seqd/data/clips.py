"""Clips read from folders of frames, clips seen as pictures, and clips that leave frames out."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources.abc import Traversable
from itertools import accumulate

import numpy as np

from pix2seqd.data.archive import children, read_picture, read_png
from pix2seqd.data.sample import Clip, ClipDataset, MadeFrames, Sample
from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy


@dataclass(frozen=True)
class LabelledClips:
    """Sequences of pictures and of label PNGs, in folders of the same names. A `ClipDataset`.

    Attributes:
        taxonomy: what the classes mean.
        images: folder of folders of pictures.
        labels: folder of folders of PNGs.
        sequences: names of the folders.
        suffix: how the pictures' names end.
        modes: Pillow's names of the kinds of pixels that the PNGs may have.
        panoptic: what the pixels of a PNG mean; a ValueError if that is unknown.
    """

    taxonomy: Taxonomy
    images: Traversable
    labels: Traversable
    sequences: tuple[str, ...]
    suffix: str
    modes: tuple[str, ...]
    panoptic: Callable[[np.ndarray], Panoptic]

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> Clip:
        """The clip of one sequence: the frames that have a label PNG, named "SEQUENCE/FRAME", read when asked for.

        Raises:
            InputError: a folder is missing, or has no PNG; for a frame, picture or PNG is missing or damaged, they
                differ in size, or the PNG has an unknown label.
        """
        sequence = self.sequences[index]
        for folder in (self.images / sequence, self.labels / sequence):
            if not folder.is_dir():
                raise InputError(f"{folder} is missing; fetch it")
        names = [png.name.removesuffix(".png") for png in children(self.labels / sequence, ".png")]
        if not names:
            raise InputError(f"{self.labels / sequence} has no PNG; fetch it again")
        return Clip(sequence, MadeFrames(len(names), partial(self._frame, sequence, names)))

    def _frame(self, sequence: str, names: list[str], number: int) -> Sample:
        name = names[number]
        png = self.labels / sequence / f"{name}.png"
        image = read_picture(self.images / sequence / f"{name}{self.suffix}")
        labels = np.asarray(read_png(png, self.modes, image))
        try:
            panoptic = self.panoptic(labels)
        except ValueError as error:
            raise InputError(f"{png}: {error}; fetch it again") from error
        return Sample(f"{sequence}/{name}", np.asarray(image), panoptic)


class EachFrame:
    """The frames of clips as pictures, one after the other. A `Dataset`."""

    def __init__(self, clips: ClipDataset) -> None:
        self.clips = clips
        self._ends = list(accumulate(len(clips[i].frames) for i in range(len(clips))))

    @property
    def taxonomy(self) -> Taxonomy:
        """The clips'."""
        return self.clips.taxonomy

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        clip = bisect_right(self._ends, index)
        return self.clips[clip].frames[index - (self._ends[clip - 1] if clip else 0)]


@dataclass(frozen=True)
class EveryNth:
    """Clips of which only the first frame, the `n`-th after it and so on are shown: faster motion. A `ClipDataset`."""

    clips: ClipDataset
    n: int

    @property
    def taxonomy(self) -> Taxonomy:
        """The clips'."""
        return self.clips.taxonomy

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        clip = self.clips[index]
        shown = range(0, len(clip.frames), self.n)
        return Clip(clip.name, MadeFrames(len(shown), lambda k: clip.frames[shown[k]]))
