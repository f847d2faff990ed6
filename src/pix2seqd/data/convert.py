"""COCO detection json (outlines of instances, which may overlap) → a data set in COCO panoptic format.

The format knows no depth, so a rule decides who owns a pixel that several instances cover: the smaller instance is on
top (a ball in front of a player), of equal ones the later; crowds lie below all instances, a semantic map below crowds.
"""

import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pix2seqd.data.label_pngs import Labels
from pix2seqd.data.outlines import decode_mask
from pix2seqd.files import InputError, read_json, write_atomically, write_json
from pix2seqd.images.load import load_image
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import VOID, Category, Taxonomy, distinct_color


@dataclass
class Conversion:
    """What became of a detection json."""

    pictures: int = 0
    segments: int = 0
    crowds: int = 0
    """Of the segments."""
    pixels: int = 0
    overlaps: int = 0
    """Pictures in which instances cover each other."""
    overlap_pixels: int = 0
    """Pixels that two or more instances cover."""
    vanished: list[Any] = field(default_factory=list)
    """Ids of annotations without a pixel of their own: empty, or all covered by smaller ones."""
    strays: int = 0
    """Annotations of pictures that the json does not list."""
    errors: list[str] = field(default_factory=list)
    """One line for each picture that was left out."""

    def __str__(self) -> str:
        """A line per fact."""
        share = self.overlap_pixels / max(1, self.pixels)
        shown = ", ".join(map(str, self.vanished[:5])) + (", ..." if len(self.vanished) > 5 else "")
        return (
            f"{self.pictures:,} pictures, {self.segments:,} segments ({self.crowds:,} of them crowds)\n"
            f"instances overlap in {self.overlaps:,} pictures, {share:.2%} of all pixels: the smaller one is on top\n"
            f"{len(self.vanished):,} annotations have no pixel left" + (f": {shown}" if shown else "")
        ) + (f"\n{self.strays:,} annotations belong to no picture" if self.strays else "")


class Detection:
    """A COCO detection json, ready to be painted.

    Attributes:
        taxonomy: the json's categories (things, unless they say `isthing` 0), then those of the semantic map, then
            the background.
        images: the json's `images`.
        strays: number of annotations of other images.
    """

    def __init__(
        self, json_path: Path, pictures: Path, semantic: Path | None = None, background: str | None = None
    ) -> None:
        """Read the json.

        Args:
            json_path: with the lists `images`, `annotations` and `categories`.
            pictures: folder that the images' `file_name` is relative to.
            semantic: folder of label PNGs named as the pictures, which lie below the instances; classes.yaml in it
                declares them. What it has of the json's own categories (by name) becomes void where no instance is.
            background: name of a stuff category for all that is void otherwise.

        Raises:
            InputError: the json is broken; two pictures have one name, or a name leads out of the folder; the
                semantic map is missing or not understood.
        """
        self.json_path, self.pictures, self.semantic = json_path, pictures, semantic
        content = read_json(json_path)
        try:
            self.images: list[Mapping[str, Any]] = content["images"]
            ids = {image["id"] for image in self.images}
            pngs = [_png(image) for image in self.images]
            self.annotations: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
            for annotation in content["annotations"]:
                self.annotations[annotation["image_id"]].append(annotation)
            own = Taxonomy.from_coco(content["categories"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{json_path} is not COCO detection json ({error!r}); see docs/datasets.md") from error
        if any(png.is_absolute() or ".." in png.parts for png in pngs):
            raise InputError(f"{json_path} has a file name that leaves {pictures}; give paths inside it")
        if min(len(set(pngs)), len(ids)) < len(pngs):
            raise InputError(f"{json_path} has two images of one name or id; rename one")
        self.strays = sum(len(found) for image_id, found in self.annotations.items() if image_id not in ids)
        self._add_stuff(own, background)

    def _add_stuff(self, own: Taxonomy, background: str | None) -> None:
        """The map's categories that the json lacks, and the background, follow the json's, with ids of their own."""
        known = {category.name for category in own.categories}
        added: list[Category] = []
        if self.semantic is not None:
            self.labels = Labels.open(self.semantic, sorted(self.semantic.glob("*.png")))
            added = [category for category in self.labels.taxonomy.categories if category.name not in known]
        if background is not None:
            added.append(Category(0, background, isthing=False, color=(0, 0, 0)))
        next_id = 1 + max(category.id for category in own.categories)
        renumbered = (replace(c, id=next_id + i, color=distinct_color(len(own) + i)) for i, c in enumerate(added))
        try:
            self.taxonomy = Taxonomy((*own.categories, *renumbered))
        except ValueError as error:
            raise InputError(f"{error}; choose another name for the background") from error
        self.background = len(self.taxonomy) if background is not None else None
        self._added = {category.name: len(own) + i for i, category in enumerate(added, start=1)}

    def paint(self, image: Mapping[str, Any], report: Conversion) -> Panoptic:
        """The segmentation of one image.

        Args:
            image: of `images`.
            report: where overlaps and vanished annotations are counted.

        Raises:
            InputError: the picture is missing, damaged or not of the json's size; an annotation is damaged or of an
                unknown category.
        """
        picture = load_image(self.pictures / image["file_name"])
        width, height = picture.size
        if (image.get("width", width), image.get("height", height)) != picture.size:
            raise InputError(
                f"{self.pictures / image['file_name']} is {width} x {height} but {self.json_path} says "
                f"{image.get('width')} x {image.get('height')}; correct one of them"
            )
        canvas, classes = self._below(picture, image)
        instances = self._instances(self.annotations[image["id"]], height, width)
        covered = np.zeros((height, width), np.int32)
        crowds = []
        first = len(classes) + 1
        for segment_id, (annotation, mask) in enumerate(instances, start=first):
            canvas[mask] = segment_id
            classes[segment_id] = self.taxonomy.class_of(annotation["category_id"])
            if annotation.get("iscrowd"):
                crowds.append(segment_id)
            else:
                covered += mask
        panoptic = Panoptic.from_segmentation(canvas, classes, self.taxonomy, crowds)
        left = {segment.id for segment in panoptic.segments}
        report.vanished += [a.get("id") for i, (a, _) in enumerate(instances, start=first) if i not in left]
        report.overlaps += int((covered > 1).any())
        report.overlap_pixels += int((covered > 1).sum())
        report.pixels += canvas.size
        report.pictures += 1
        report.segments += len(left)
        report.crowds += len(left.intersection(crowds))
        return panoptic

    def _below(self, picture: Image.Image, image: Mapping[str, Any]) -> tuple[np.ndarray, dict[int, int]]:
        """What lies below the instances: segment ids, and their classes; ids count from 1 without gaps."""
        canvas, classes = np.zeros((picture.height, picture.width), np.int32), {}
        if self.semantic is not None:
            below = self.labels.read(self.semantic / _png(image).name, picture, self.labels.taxonomy)
            canvas = below.segmentation.copy()
            classes = {s.id: self._added.get(s.name, VOID) for s in below.segments}
            canvas[np.isin(canvas, [i for i, found in classes.items() if found == VOID])] = VOID
        if self.background is not None:
            classes[len(classes) + 1] = self.background
            canvas[canvas == VOID] = len(classes)
        return canvas, classes

    def _instances(
        self, annotations: list[Mapping[str, Any]], height: int, width: int
    ) -> list[tuple[Mapping[str, Any], np.ndarray]]:
        """Annotations and their masks, from the lowest to the one on top."""
        decoded = []
        for annotation in annotations:
            try:
                self.taxonomy.class_of(annotation["category_id"])
                decoded.append((annotation, decode_mask(annotation["segmentation"], height, width)))
            except (KeyError, TypeError, ValueError) as error:
                reason = f"annotation {annotation.get('id')!r} cannot be used ({error.args[0]})"
                raise InputError(f"{self.json_path}: {reason}; correct it") from error
        return sorted(decoded, key=lambda pair: (not pair[0].get("iscrowd"), -int(pair[1].sum())))


def convert(detection: Detection, images: Iterable[Mapping[str, Any]], out: Path, split: str = "") -> Conversion:
    """Write a data set that `CocoPanoptic` reads: json, PNGs, and a link to the folder of pictures.

    Args:
        detection: the source.
        images: `detection.images`, or some of them.
        out: folder to write to.
        split: name of the split, "" for none.

    Returns:
        What was done. An image that cannot be used is left out and listed.

    Raises:
        InputError: `out` has this split already or cannot be written to; no image can be used.
    """
    suffix = f"_{split}" if split else ""
    json_path, pngs, pictures = out / f"panoptic{suffix}.json", out / f"panoptic{suffix}", out / (split or "images")
    if json_path.exists() or pictures.exists():
        raise InputError(f"{json_path if json_path.exists() else pictures} exists already; choose another folder")
    report = Conversion(strays=detection.strays)
    records, annotations = [], []
    for image in images:
        try:
            panoptic = detection.paint(image, report)
        except InputError as error:
            report.errors.append(str(error))
            continue
        path = pngs / _png(image)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {path.parent} ({error.strerror}); choose another") from error
        png, annotation = panoptic.to_coco(image["id"], _png(image).as_posix())
        with write_atomically(path) as temporary:
            Image.fromarray(png).save(temporary, format="PNG")
        records.append(image)
        annotations.append(annotation)
    if not records:
        raise InputError(f"no image of {detection.json_path} can be used; the first: {report.errors[0]}")
    try:
        pictures.symlink_to(detection.pictures.resolve(), target_is_directory=True)
    except OSError:  # e.g. Windows, where not everyone may make links
        shutil.copytree(detection.pictures, pictures)
    content = {"images": records, "annotations": annotations, "categories": detection.taxonomy.to_coco()}
    write_json(json_path, content)
    return report


def _png(image: Mapping[str, Any]) -> Path:
    """Name of the picture's PNG."""
    return Path(image["file_name"]).with_suffix(".png")
