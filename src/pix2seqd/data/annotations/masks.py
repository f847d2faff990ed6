"""One mask file for each object, as in the Data Science Bowl 2018: IMAGE/images/*.png and IMAGE/masks/*.png.

Also images/IMAGE.png and masks/IMAGE/*.png.
"""

from functools import partial
from pathlib import Path

import numpy as np

from pix2seqd.data.annotations.records import (
    Annotations,
    ImageFinder,
    Record,
    Shape,
    make_taxonomy,
    visible,
)
from pix2seqd.data.label_images import LOSSLESS_SUFFIXES, read_label_image
from pix2seqd.data.outlines import Mask
from pix2seqd.files import InputError
from pix2seqd.images.load import IMAGE_SUFFIXES, image_size

CHECKED = 5
"""Number of images that are looked at to recognise the format."""


def _pairs(home: Path) -> dict[str, tuple[str | None, list[Path]]]:
    """Name → its image, as a path below `home`, and its masks."""
    finder = ImageFinder(home)
    found: dict[str, tuple[str | None, list[Path]]] = {}
    for folder in visible(home, "*/masks"):
        images = _images(folder)
        masks = [p for p in visible(folder, "*") if p.suffix.lower() in LOSSLESS_SUFFIXES]
        if len(images) == 1:
            found[folder.parent.name] = images[0].relative_to(home).as_posix(), masks
    for folder in () if found else visible(home, "masks/*/"):
        masks = [p for p in visible(folder, "*") if p.suffix.lower() in LOSSLESS_SUFFIXES]
        if masks and (image := finder.beside(folder.name, home / "images")):
            found[folder.name] = image, masks
    return found


def _images(masks: Path) -> list[Path]:
    """The images in the folder beside one of masks."""
    return [p for p in visible(masks.parent / "images", "*") if p.suffix.lower() in IMAGE_SUFFIXES]


def is_mask_folders(home: Path) -> bool:
    """Whether a folder has one mask file for each object."""
    some = [masks for _, masks in list(_pairs(home).values())[:CHECKED]]
    try:
        return any(len(masks) > 1 for masks in some) and all(
            len(np.unique(read_label_image(mask))) <= 2 for masks in some for mask in masks[:2]
        )
    except InputError:
        return False


def read_mask_folders(home: Path, images: Path | None = None) -> dict[str, Annotations]:
    """Read the folder; all objects are of the class `object`."""
    taxonomy = make_taxonomy(["object"], home)
    records = []
    for image, masks in _pairs(home).values():
        shapes = [Shape(mask.name, "object", partial(_mask, mask)) for mask in masks]
        records.append(Record(image or "", shapes, image_size(masks[0]) if masks else None))
    unlisted = [
        f"{mask.relative_to(home).as_posix()}: there is no image in {folder.parent / 'images'}"
        for folder in visible(home, "*/masks")
        if not _images(folder)
        for mask in visible(folder, "*")
    ]
    note = "each mask file is an object of the class object"
    return {"": Annotations(home, home, taxonomy, records, unlisted, [note])}


def _mask(path: Path, height: int, width: int) -> Mask:
    try:
        pixels = read_label_image(path)
    except InputError as error:
        raise ValueError(str(error)) from error
    pixels = pixels if pixels.ndim == 2 else pixels[..., : 1 if pixels.shape[2] < 3 else 3].max(axis=2)
    if pixels.shape != (height, width):
        raise ValueError(f"{path} is {pixels.shape[1]} x {pixels.shape[0]}, another mask {width} x {height}")
    if len(np.unique(pixels)) > 2:
        raise ValueError(f"{path} has more than two values; export masks without smoothing")
    return Mask.of(pixels > 0)
