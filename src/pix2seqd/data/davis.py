"""DAVIS 2017, unsupervised (Caelles et al. 2019), at 480p, as a folder or as its zip file."""

from pathlib import Path

import numpy as np

from pix2seqd.data.archive import find, place
from pix2seqd.data.clips import LabelledClips
from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Category, Taxonomy

TAXONOMY = Taxonomy((Category(1, "object", True, (220, 20, 60)), Category(2, "background", False, (200, 200, 200))))
"""DAVIS tells objects apart but does not name them."""
BACKGROUND_ID = 256
"""Segment id of the background, which has label 0; objects keep their label, 1 to 254."""
VOID_LABEL = 255


def open_davis(directory: str | Path, split: str) -> LabelledClips:
    """The videos of a split, each a clip; its objects have the ids of the annotation.

    `JPEGImages/480p/`, `Annotations_unsupervised/480p/` and `ImageSets/2017/SPLIT.txt` are looked for in the folder, in
    `DAVIS/` in it, and in the owners' `DAVIS-2017-Unsupervised-trainval-480p.zip`.

    Args:
        directory: the data set's folder.
        split: `train` or `val`.

    Raises:
        InputError: a piece is missing; the message names the path expected.
    """
    images, labels, names = (
        find(
            f"the {what} of DAVIS",
            *(place(Path(directory), f"{home}{piece}") for home in ("", "DAVIS/", f"{_ZIP}/DAVIS/")),
        )
        for piece, what in (
            ("JPEGImages/480p", "folder of pictures"),
            ("Annotations_unsupervised/480p", "folder of labels"),
            (f"ImageSets/2017/{split}.txt", f"list of the split {split!r}"),
        )
    )
    sequences = tuple(names.read_text(encoding="utf-8").split())
    if not sequences:
        raise InputError(f"{names} lists no sequence; fetch it again")
    return LabelledClips(TAXONOMY, images, labels, sequences, ".jpg", ("P", "L"), panoptic)


_ZIP = "DAVIS-2017-Unsupervised-trainval-480p.zip"


def panoptic(labels: np.ndarray) -> Panoptic:
    """What an annotation means: 0 background, 255 void, else the number of the object; integers `[h, w]`."""
    labels = np.where(labels == 0, BACKGROUND_ID, labels.astype(np.int32))
    ids = np.unique(labels).tolist()
    classes = {i: 2 if i == BACKGROUND_ID else 1 for i in ids if i != VOID_LABEL}
    return Panoptic.from_segmentation(labels, classes, TAXONOMY)
