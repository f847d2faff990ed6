"""Cityscapes (Cordts et al. 2016), fine annotations: `leftImg8bit` and `gtFine`, as folders or as zip files."""

from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np

from pix2seqd.data.archive import children, find, locate, read_image, read_png
from pix2seqd.data.sample import Sample
from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Category, Taxonomy

_STUFF = (
    (7, "road", (128, 64, 128)),
    (8, "sidewalk", (244, 35, 232)),
    (11, "building", (70, 70, 70)),
    (12, "wall", (102, 102, 156)),
    (13, "fence", (190, 153, 153)),
    (17, "pole", (153, 153, 153)),
    (19, "traffic light", (250, 170, 30)),
    (20, "traffic sign", (220, 220, 0)),
    (21, "vegetation", (107, 142, 35)),
    (22, "terrain", (152, 251, 152)),
    (23, "sky", (70, 130, 180)),
)
_THINGS = (
    (24, "person", (220, 20, 60)),
    (25, "rider", (255, 0, 0)),
    (26, "car", (0, 0, 142)),
    (27, "truck", (0, 0, 70)),
    (28, "bus", (0, 60, 100)),
    (31, "train", (0, 80, 100)),
    (32, "motorcycle", (0, 0, 230)),
    (33, "bicycle", (119, 11, 32)),
)
TAXONOMY = Taxonomy(
    tuple(
        Category(number, name, isthing, color)
        for isthing, group in ((False, _STUFF), (True, _THINGS))
        for number, name, color in group
    )
)
"""The 19 evaluated classes with the label ids of Cityscapes; contiguous class c is train id c - 1."""

_KINDS = ("_gtFine_instanceIds.png", "_gtFine_labelIds.png")


@dataclass(frozen=True)
class Cityscapes:
    """A split of Cityscapes: every image that has labels, sorted by name. A `Dataset`.

    Attributes:
        images: folder of the images, `CITY/NAME_leftImg8bit.png`.
        labels: the label PNGs.
    """

    images: Traversable
    labels: tuple[Traversable, ...]
    taxonomy: Taxonomy = TAXONOMY

    @classmethod
    def open(cls, directory: str | Path, split: str) -> "Cityscapes":
        """Open a split, `train` or `val`.

        Images are in `leftImg8bit/SPLIT/` or `leftImg8bit_trainvaltest.zip`, labels in `gtFine/SPLIT/` or
        `gtFine_trainvaltest.zip`, both with one folder per city. Without `*_instanceIds.png`, `*_labelIds.png` are
        read. If one is missing, the `InputError` names the expected path.
        """
        images, labels = (
            find(
                f"the {what} of Cityscapes' split {split!r}",
                locate(Path(directory), f"{folder}/{split}"),
                locate(Path(directory), f"{folder}_trainvaltest.zip/{folder}/{split}"),
            )
            for folder, what in (("leftImg8bit", "images"), ("gtFine", "labels"))
        )
        cities = [city for city in children(labels) if city.is_dir()]
        for kind in _KINDS:
            if files := tuple(png for city in cities for png in children(city, kind)):
                return cls(images, files)
        raise InputError(f"{labels} has no file CITY/*{_KINDS[0]}; fetch it again")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """The image, named by city, sequence and frame ("bonn_000004_000019"), and its ground truth.

        Segments have the ids of the label PNG. As in the official conversion to COCO panoptic format, a thing without
        instances (an id below 1000) is a crowd, and labels that are not evaluated are void.
        """
        png = self.labels[index]
        name = png.name.partition("_gtFine_")[0]
        image = read_image(self.images / name.partition("_")[0] / f"{name}_leftImg8bit.png")
        labels = np.asarray(read_png(png, ("I;16", "I", "L"), image)).astype(np.int32)
        segments = {i: i if i < 1000 else i // 1000 for i in np.unique(labels).tolist()}
        known = {category.id: category for category in self.taxonomy.categories}
        classes = {i: self.taxonomy.class_of(number) for i, number in segments.items() if number in known}
        crowds = [i for i in classes if i < 1000 and known[i].isthing]
        panoptic = Panoptic.from_segmentation(labels, classes, self.taxonomy, crowds)
        return Sample(name, np.asarray(image), panoptic, tuple(image.info["notes"]))
