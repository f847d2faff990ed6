"""Clips read from folders of frames, the frames of clips as a data set of images, and clips at a lower frame rate."""

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources.abc import Traversable
from itertools import accumulate

import numpy as np

from pix2seqd.data.archive import children, read_image, read_png
from pix2seqd.data.sample import Clip, ClipDataset, LazyFrames, Mapped, Sample
from pix2seqd.files import InputError, is_dir
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy


@dataclass(frozen=True)
class LabelledClips:
    """Sequences of images and label PNGs, in folders of the same names. A `ClipDataset`.

    Attributes:
        taxonomy: what the classes mean.
        images: folder with one folder of images per sequence.
        labels: folder with one folder of PNGs per sequence.
        sequences: names of the sequences.
        suffix: file name suffix of the images, such as ".jpg".
        modes: the Pillow modes that the PNGs may have.
        panoptic: decodes the pixels of a PNG; raises a ValueError for unknown labels.
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
        """The clip of one sequence: all frames that have a label PNG, named "SEQUENCE/FRAME", each read on access.

        What is missing or damaged, or has an unknown label, is an `InputError`, of a frame on access to it.
        """
        sequence = self.sequences[index]
        for folder in (self.images / sequence, self.labels / sequence):
            if not is_dir(folder):
                raise InputError(f"{folder} is missing; fetch it")
        names = [png.name.removesuffix(".png") for png in children(self.labels / sequence, ".png")]
        if not names:
            raise InputError(f"{self.labels / sequence} has no PNG; fetch it again")
        return Clip(sequence, LazyFrames(len(names), partial(self._frame, sequence, names)))

    def _frame(self, sequence: str, names: list[str], number: int) -> Sample:
        name = names[number]
        png = self.labels / sequence / f"{name}.png"
        image = read_image(self.images / sequence / f"{name}{self.suffix}")
        labels = np.asarray(read_png(png, self.modes, image))
        try:
            panoptic = self.panoptic(labels)
        except ValueError as error:
            raise InputError(f"{png}: {error}; fetch it again") from error
        return Sample(f"{sequence}/{name}", np.asarray(image), panoptic, tuple(image.info["notes"]))


class ClipFrames:
    """The frames of all clips as a data set of images. A `Dataset`."""

    def __init__(self, clips: ClipDataset) -> None:
        self.clips = clips
        self._ends = list(accumulate(len(clips[i].frames) for i in range(len(clips))))

    @property
    def taxonomy(self) -> Taxonomy:
        """The taxonomy of the clips."""
        return self.clips.taxonomy

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        clip = bisect_right(self._ends, index)
        return self.clips[clip].frames[index - (self._ends[clip - 1] if clip else 0)]


def every_nth(clips: ClipDataset, n: int) -> ClipDataset:
    """Clips reduced to every `n`-th frame, from the first on, for faster motion."""

    def reduced(clip: Clip) -> Clip:
        kept = range(0, len(clip.frames), n)
        return Clip(clip.name, LazyFrames(len(kept), lambda k: clip.frames[kept[k]]))

    return Mapped(clips, clips.taxonomy, reduced)
