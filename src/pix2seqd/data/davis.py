"""DAVIS 2017, unsupervised (Caelles et al. 2019), at 480p, as a folder or as its zip file."""

from pathlib import Path

import numpy as np

from pix2seqd.data.archive import find, locate
from pix2seqd.data.clips import LabelledClips
from pix2seqd.files import InputError, read_text
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Category, Taxonomy

TAXONOMY = Taxonomy((Category(1, "object", True, (220, 20, 60)), Category(2, "background", False, (200, 200, 200))))
"""DAVIS has no object categories."""
BACKGROUND_ID = 256
"""Segment id of the background, which has label 0 in the PNGs. Objects keep their labels, 1 to 254."""
VOID_LABEL = 255


def open_davis(directory: str | Path, split: str) -> LabelledClips:
    """Open the videos of a split, `train` or `val`, as clips; objects have the ids of the annotation.

    `JPEGImages/480p/`, `Annotations_unsupervised/480p/` and `ImageSets/2017/SPLIT.txt` are searched in the folder, in
    its subfolder `DAVIS/`, and in `DAVIS-2017-Unsupervised-trainval-480p.zip`. If one is missing, the `InputError`
    names the expected path; a list with what is no name of a sequence is an `InputError` too.
    """
    images, labels, names = (
        find(
            f"the {what} of DAVIS",
            *(locate(Path(directory), f"{home}{path}") for home in ("", "DAVIS/", f"{_ZIP}/DAVIS/")),
        )
        for path, what in (
            ("JPEGImages/480p", "folder of images"),
            ("Annotations_unsupervised/480p", "folder of labels"),
            (f"ImageSets/2017/{split}.txt", f"list of the split {split!r}"),
        )
    )
    sequences = tuple(read_text(names).split())
    if not sequences:
        raise InputError(f"{names} lists no sequence; fetch it again")
    if other := next((name for name in sequences if set(name) & {"/", "\\"} or name == ".."), ""):
        raise InputError(f"{names}: {other} is no name of a folder; fetch the file again")
    return LabelledClips(TAXONOMY, images, labels, sequences, ".jpg", ("P", "L"), panoptic)


_ZIP = "DAVIS-2017-Unsupervised-trainval-480p.zip"


def panoptic(labels: np.ndarray) -> Panoptic:
    """Decode an annotation, integers `[h, w]`: 0 is background, 255 void, any other value the number of an object."""
    labels = np.where(labels == 0, BACKGROUND_ID, labels.astype(np.int32))
    ids = np.unique(labels).tolist()
    classes = {i: 2 if i == BACKGROUND_ID else 1 for i in ids if i != VOID_LABEL}
    return Panoptic.from_segmentation(labels, classes, TAXONOMY)
