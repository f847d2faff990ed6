"""Conversion of a COCO detection json (instance outlines, which may overlap) to COCO panoptic format.

Detection annotations have no depth order. A pixel that several instances cover is given to the smallest one (a ball in
front of a player), and among equal sizes to the last one. Crowds lie below all instances, and a semantic map below
crowds.
"""

import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pix2seqd.data.labels import Labels
from pix2seqd.data.outlines import decode_mask
from pix2seqd.files import InputError, read_json, write_atomically, write_json
from pix2seqd.images.load import load_image
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import VOID, Category, Taxonomy, distinct_color

MAX_DROPPED = 0.05
"""Share of annotations that may be dropped before the conversion counts as failed."""


@dataclass
class Conversion:
    """Statistics of a conversion."""

    images: int = 0
    segments: int = 0
    crowds: int = 0
    """Number of segments that are crowds."""
    pixels: int = 0
    overlaps: int = 0
    """Number of images in which instances overlap."""
    overlap_pixels: int = 0
    """Number of pixels that two or more instances cover."""
    vanished: list[Any] = field(default_factory=list)
    """Ids of annotations without a visible pixel: empty, or covered by smaller instances."""
    unlisted: int = 0
    """Number of annotations of images that the json does not list."""
    errors: list[str] = field(default_factory=list)
    """One line for each image that was left out."""
    annotations: int = 0
    """Number of annotations of the source."""
    dropped: list[str] = field(default_factory=list)
    """One line for each annotation that is not in the result, with the reason."""

    @property
    def lost(self) -> str:
        """Why the result has too few labels: none, or more than `MAX_DROPPED` dropped; "" if it has enough."""
        if not self.segments:
            return "no label is left"
        if len(self.dropped) > MAX_DROPPED * self.annotations:
            return f"{len(self.dropped):,} of {self.annotations:,} annotations are dropped, more than {MAX_DROPPED:.0%}"
        return ""

    def __str__(self) -> str:
        """The statistics, one per line."""
        share = self.overlap_pixels / max(1, self.pixels)
        shown = ", ".join(map(str, self.vanished[:5])) + (", ..." if len(self.vanished) > 5 else "")
        return (
            f"{self.images:,} images, {self.segments:,} segments ({self.crowds:,} of them crowds)\n"
            f"instances overlap in {self.overlaps:,} images, {share:.2%} of all pixels: the smaller one is on top\n"
            f"{len(self.vanished):,} annotations have no pixel left" + (f": {shown}" if shown else "")
        ) + (f"\n{self.unlisted:,} annotations belong to no image" if self.unlisted else "")


class Detection:
    """A COCO detection json, from which panoptic segmentations are painted.

    Attributes:
        taxonomy: the categories of the json (things, unless `isthing` is 0), then those of the semantic map, then the
            background.
        images: the `images` of the json.
        unlisted: the annotations of images that the json does not list.
    """

    def __init__(
        self, json_path: Path, image_folder: Path, semantic: Path | None = None, background: str | None = None
    ) -> None:
        """Read the json.

        Args:
            json_path: json with the lists `images`, `annotations` and `categories`.
            image_folder: folder that the images' `file_name` is relative to.
            semantic: folder of label PNGs with the names of the images, declared by a classes.yaml in it. They fill the
                pixels without an instance. Categories that the json also has (by name) become void there.
            background: name of a stuff category for all pixels that would otherwise be void.

        Raises:
            InputError: the json is broken; two images have one name or id; a file name leaves the folder; the semantic
                map is missing or not understood; the background's name is in use.
        """
        self.json_path, self.image_folder, self.semantic = json_path, image_folder, semantic
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
            raise InputError(f"{json_path} has a file name that leaves {image_folder}; give paths inside it")
        if min(len(set(pngs)), len(ids)) < len(pngs):
            raise InputError(f"{json_path} has two images with one name or id; rename one")
        self.unlisted = [a for image_id, found in self.annotations.items() if image_id not in ids for a in found]
        self._add_stuff(own, background)

    def _add_stuff(self, own: Taxonomy, background: str | None) -> None:
        """Append the categories that only the semantic map has, and the background, with new ids."""
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
        self._filled = self.taxonomy.category(self.background).id if self.background is not None else None
        self._added = {category.name: len(own) + i for i, category in enumerate(added, start=1)}

    def paint(self, record: Mapping[str, Any], report: Conversion) -> Panoptic:
        """Paint the segmentation of one image.

        Args:
            record: an entry of `images`.
            report: statistics, updated in place.

        Raises:
            InputError: the image is missing, damaged, or differs in size from the json; an annotation is damaged or has
                an unknown category.
        """
        image = load_image(self.image_folder / record["file_name"])
        width, height = image.size
        if (record.get("width", width), record.get("height", height)) != image.size:
            raise InputError(
                f"{self.image_folder / record['file_name']} is {width} x {height} but {self.json_path} says "
                f"{record.get('width')} x {record.get('height')}; correct one of them"
            )
        canvas, classes = self._base_layer(image, record)
        instances = self._instances(self.annotations[record["id"]], height, width)
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
        visible = {segment.id for segment in panoptic.segments}
        for i, (annotation, mask) in enumerate(instances, start=first):
            if i not in visible:
                why = "other objects cover it" if mask.any() else "its outline is empty"
                report.vanished.append(annotation.get("id"))
                report.dropped.append(f"annotation {annotation.get('id')} of {record['file_name']}: {why}")
        report.overlaps += int((covered > 1).any())
        report.overlap_pixels += int((covered > 1).sum())
        report.pixels += canvas.size
        report.images += 1
        report.segments += len([segment for segment in panoptic.segments if segment.category_id != self._filled])
        report.crowds += len(visible.intersection(crowds))
        return panoptic

    def _base_layer(self, image: Image.Image, record: Mapping[str, Any]) -> tuple[np.ndarray, dict[int, int]]:
        """Segment ids `[h, w]` below the instances and the class of each; ids count from 1 without gaps."""
        canvas, classes = np.zeros((image.height, image.width), np.int32), {}
        if self.semantic is not None:
            semantic = self.labels.read(self.semantic / _png(record).name, image, self.labels.taxonomy)
            canvas = semantic.segmentation.copy()
            classes = {s.id: self._added.get(s.name, VOID) for s in semantic.segments}
            canvas[np.isin(canvas, [i for i, found in classes.items() if found == VOID])] = VOID
        if self.background is not None:
            classes[len(classes) + 1] = self.background
            canvas[canvas == VOID] = len(classes)
        return canvas, classes

    def _instances(
        self, annotations: list[Mapping[str, Any]], height: int, width: int
    ) -> list[tuple[Mapping[str, Any], np.ndarray]]:
        """Annotations and their masks, back to front."""
        decoded = []
        for annotation in annotations:
            try:
                self.taxonomy.class_of(annotation["category_id"])
                decoded.append((annotation, decode_mask(annotation["segmentation"], height, width)))
            except (KeyError, TypeError, ValueError) as error:
                reason = f"annotation {annotation.get('id')!r} cannot be used ({error.args[0]})"
                raise InputError(f"{self.json_path}: {reason}; correct it") from error
        return sorted(decoded, key=lambda pair: (not pair[0].get("iscrowd"), -int(pair[1].sum())))


def convert(detection: Detection, records: Iterable[Mapping[str, Any]], out: Path, split: str = "") -> Conversion:
    """Write a data set for `CocoPanoptic`: a json, PNGs, and a link to the folder of images.

    Args:
        detection: the source.
        records: `detection.images`, or a part of them.
        out: folder to write to.
        split: name of the split; "" for none.

    Returns:
        Statistics. Images that cannot be used are left out and listed in `errors`. Annotations that are lost are listed
        in `dropped`, and in the file `dropped.txt` (`dropped_SPLIT.txt`) of `out`.

    Raises:
        InputError: `out` already has this split or cannot be written to; no image can be used.
    """
    suffix = f"_{split}" if split else ""
    json_path, pngs, images = out / f"panoptic{suffix}.json", out / f"panoptic{suffix}", out / (split or "images")
    if json_path.exists() or images.exists():
        raise InputError(f"{json_path if json_path.exists() else images} exists already; choose another folder")
    report = Conversion(unlisted=len(detection.unlisted), annotations=len(detection.unlisted))
    for annotation in detection.unlisted:
        report.dropped.append(f"annotation {annotation.get('id')}: image {annotation['image_id']} is not in images")
    converted, annotations = [], []
    for record in records:
        of_image = detection.annotations.get(record["id"], [])
        report.annotations += len(of_image)
        try:
            panoptic = detection.paint(record, report)
        except InputError as error:
            report.errors.append(str(error))
            report.dropped += [f"annotation {annotation.get('id')}: {error}" for annotation in of_image]
            continue
        path = pngs / _png(record)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {path.parent} ({error.strerror}); choose another") from error
        png, annotation = panoptic.to_coco(record["id"], _png(record).as_posix())
        with write_atomically(path) as temporary:
            Image.fromarray(png).save(temporary, format="PNG")
        converted.append(record)
        annotations.append(annotation)
    if not converted:
        raise InputError(f"no image of {detection.json_path} can be used; the first error is: {report.errors[0]}")
    try:
        images.symlink_to(detection.image_folder.resolve(), target_is_directory=True)
    except OSError:  # e.g. Windows, where links need a privilege
        shutil.copytree(detection.image_folder, images)
    content = {"images": converted, "annotations": annotations, "categories": detection.taxonomy.to_coco()}
    write_json(json_path, content)
    if report.dropped:
        with write_atomically(out / f"dropped{suffix}.txt") as temporary:
            temporary.write_text("\n".join(report.dropped) + "\n", encoding="utf-8")
    return report


def _png(record: Mapping[str, Any]) -> Path:
    """Name of the PNG of an image."""
    return Path(record["file_name"]).with_suffix(".png")
