"""KITTI-STEP (Weber et al. 2021): the videos of KITTI tracking with panoptic maps."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from pix2seqd.data import cityscapes
from pix2seqd.data.archive import children, find, locate
from pix2seqd.data.clips import LabelledClips
from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import VOID, Taxonomy

TAXONOMY = Taxonomy(
    tuple(replace(category, isthing=category.name in ("person", "car")) for category in cityscapes.TAXONOMY.categories)
)
"""The classes of Cityscapes; only person and car are things, with tracks."""
VOID_LABEL = 255


def open_kitti_step(directory: str | Path, split: str) -> LabelledClips:
    """Open the videos of a split, `train` or `val`, as clips; a track has one id in all frames.

    Panoptic maps are in `panoptic_maps/SPLIT/SEQUENCE/`, optionally below `kitti-step/` as in the distributed archive.
    Images are in `images/SPLIT/SEQUENCE/`, in `training/image_02/SEQUENCE/`, or in `data_tracking_image_2.zip`. If they
    are missing, the `InputError` names the expected path.
    """
    home = Path(directory)
    maps = (f"panoptic_maps/{split}", f"kitti-step/panoptic_maps/{split}")
    frames = (f"images/{split}", "training/image_02", "data_tracking_image_2.zip/training/image_02")
    labels = find(f"the panoptic maps of KITTI-STEP's split {split!r}", *(locate(home, path) for path in maps))
    images = find("the images of KITTI-STEP", *(locate(home, path) for path in frames))
    sequences = tuple(child.name for child in children(labels) if child.is_dir())
    if not sequences:
        raise InputError(f"{labels} has no folder SEQUENCE; fetch it again")
    return LabelledClips(TAXONOMY, images, labels, sequences, ".png", ("RGB",), panoptic)


def to_mask(png: np.ndarray) -> np.ndarray:
    """A panoptic map → the mask tensor of the paper (§2), int64 `[2, h, w]`: class 1..19 and track id, void 0 in both.

    The map is uint8 `[h, w, 3]`: R is the class 0..18, or 255 for void; 256 G + B is the track, 0 for stuff and crowds.
    A class outside 0..18 is a ValueError.
    """
    label, high, low = np.moveaxis(png.astype(np.int64), -1, 0)
    void = label == VOID_LABEL
    if (unknown := label[~void & (label >= len(TAXONOMY))]).size:
        raise ValueError(f"class {unknown[0]} is outside 0..{len(TAXONOMY) - 1} (255 = void)")
    return np.where(void, VOID, np.stack([label + 1, 256 * high + low]))


def panoptic(png: np.ndarray) -> Panoptic:
    """Decode a panoptic map: each track, crowd region and stuff class is a segment; see `to_mask`."""
    class_map, ids = to_mask(png)
    thing = np.array(TAXONOMY.things)
    segmentation = class_map * _CLASS_STEP + np.where(thing[class_map], ids, 0)
    classes = {i: i // _CLASS_STEP for i in np.unique(segmentation).tolist() if i != VOID}
    crowds = [i for i, number in classes.items() if thing[number] and i % _CLASS_STEP == 0]
    return Panoptic.from_segmentation(segmentation, classes, TAXONOMY, crowds)


_CLASS_STEP = 2**16
"""Segment ids are class · 2¹⁶ + track."""
