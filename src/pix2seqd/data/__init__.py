"""Data sets and the conversion of their samples to training batches."""

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from pix2seqd.data.sample import ClipDataset, Dataset, Subset, evenly_spaced
from pix2seqd.data.split import SUBSETS, open_part, undivided
from pix2seqd.files import InputError

if TYPE_CHECKING:
    from pix2seqd.data.coco import CocoPanoptic
    from pix2seqd.data.folder import Folder

SOURCES = (
    "coco:DIR[@SPLIT], cityscapes:DIR@SPLIT, davis:DIR@SPLIT, kitti-step:DIR@SPLIT, folder:DIR[@SPLIT], shards:DIR or "
    "shapes:COUNT[@SEED]; coco:DIR@SPLIT,-FILE leaves an image out, and so for folder:"
)

CLIP_SOURCES = (
    "davis:DIR@SPLIT, kitti-step:DIR@SPLIT, nuclei-clips:DIR[@SPLIT]:COUNT[xFRAMES] or "
    "shapes-clips:COUNT[xFRAMES][@SEED]"
)

LOOKED_AT = 5
"""Images of a data set that `remarks` reads."""


def open_dataset(source: str, size: tuple[int, int]) -> Dataset:
    """Open the data set that a command line or recipe names, one of `SOURCES` (docs/datasets.md).

    It may also be `split:FILE@PART`, a part of the data of a run of `pix2seqd train own`. `size` is height and width of
    synthetic images, in pixels.

    Raises:
        InputError: the name is not understood, or the data set or an image to leave out does not exist.
    """
    kind, _, rest = source.partition(":")
    rest, *left_out = rest.split(",-") if kind in ("coco", "folder") else [rest]
    path, _, detail = rest.partition("@")
    if kind == "coco" and path:
        from pix2seqd.data.coco import CocoPanoptic

        return _without(CocoPanoptic.open(path, detail), left_out, source)
    if kind == "folder" and path:
        from pix2seqd.data.folder import Folder

        return _without(Folder.open(path, detail), left_out, source)
    if kind == "shards" and path:
        from pix2seqd.data.shards import Shards

        return Shards(rest)
    if kind == "split" and detail in SUBSETS:
        return open_part(path, detail, partial(open_dataset, size=size))
    if kind == "shapes" and path.isdecimal() and int(path) and (detail.isdecimal() or not detail):
        from pix2seqd.data.synthetic.shapes import Shapes

        return Shapes(int(path), size, seed=int(detail or 0))
    if kind == "cityscapes" and path and detail:
        from pix2seqd.data.cityscapes import Cityscapes

        return Cityscapes.open(path, detail)
    if kind in ("davis", "kitti-step") and path and detail:
        from pix2seqd.data.clips import ClipFrames

        return ClipFrames(open_clips(source, size, 1))
    raise InputError(f"data {source!r} is not understood; give {SOURCES}")


def remarks(dataset: Dataset, source: str) -> list[str]:
    """What a user should know before a data set is used, one line each; a few images of it are read.

    That is the coding of label images, where it was recognised and not declared, what was left out of images, and how
    labels were taken. The lines call a part of a data set as the whole.
    """
    whole: Any = dataset
    source = undivided(source)
    while hasattr(whole, "dataset"):  # a part of a data set, or one with its categories in another order
        whole = whole.dataset
    labels = getattr(whole, "labels", None)
    assumed = [line for line in getattr(labels, "assumed", ()) if line.startswith("coding")]
    lines = [f"{source}: labels are read as {line}; check-data shows more, classes.yaml changes it" for line in assumed]
    notes: dict[str, str] = {}
    for index in evenly_spaced(len(dataset), LOOKED_AT):
        with suppress(InputError):  # whoever reads all images reports it
            sample = dataset[index]
            notes |= {note: sample.name for note in sample.notes if note not in notes}
    return lines + [f"{source}: images such as {name}: {note}" for note, name in notes.items()]


def open_clips(source: str, size: tuple[int, int], frames: int) -> ClipDataset:
    """Open the clips that a command line or recipe names, one of `CLIP_SOURCES`.

    `size` is height and width of synthetic frames, in pixels, and `frames` the number of frames of a synthetic clip, if
    the source does not give it.

    Raises:
        InputError: the name is not understood, or the data set does not exist.
    """
    kind, _, rest = source.partition(":")
    path, _, detail = rest.partition("@")
    if kind == "davis" and path and detail:
        from pix2seqd.data.davis import open_davis

        return open_davis(path, detail)
    if kind == "kitti-step" and path and detail:
        from pix2seqd.data.kitti_step import open_kitti_step

        return open_kitti_step(path, detail)
    if made := re.fullmatch(r"(.+):(\d+)(?:x(\d+))?", rest) if kind == "nuclei-clips" else None:
        from pix2seqd.data.synthetic.nuclei_clips import NucleiClips

        images = open_dataset(f"coco:{made[1]}", size)
        return NucleiClips(images, int(made[2]), int(made[3] or frames), size)
    if made := re.fullmatch(r"(\d+)(?:x(\d+))?(?:@(\d+))?", rest) if kind == "shapes-clips" else None:
        from pix2seqd.data.synthetic.shapes_clips import ShapesClips

        return ShapesClips(int(made[1]), int(made[2] or frames), size, seed=int(made[3] or 0))
    raise InputError(f"clips {source!r} are not understood; give {CLIP_SOURCES}")


def is_clips(source: str) -> bool:
    """Whether the source names clips, to be opened with `open_clips`."""
    return source.partition(":")[0] in ("davis", "kitti-step", "nuclei-clips", "shapes-clips")


def _without(dataset: "CocoPanoptic | Folder", left_out: Sequence[str], source: str) -> Dataset:
    if not left_out:
        return dataset
    names = [record["file_name"] for record in dataset.records]
    if missing := sorted(set(left_out) - set(names)):
        raise InputError(f"data {source!r} has no image {missing[0]!r} to leave out; remove the name or correct it")
    return Subset(dataset, tuple(i for i, name in enumerate(names) if name not in left_out))
