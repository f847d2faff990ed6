"""Conversion of annotations (outlines or masks of objects, which may overlap) to COCO panoptic format.

Most annotations have no depth order. A pixel that several instances cover is given to the smallest one (a ball in
front of a player), and among equal sizes to the last one. Where a format orders its objects, that order comes first.
Crowds lie below all instances, and a semantic map below crowds.
"""

import math
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from pix2seqd.data.annotations import FORMATS, cure, recognize_annotations
from pix2seqd.data.annotations.records import Annotations, ImageFinder, Record, Shape
from pix2seqd.data.archive import labels_orientation, read_image, turned_hint
from pix2seqd.data.find import find_splits
from pix2seqd.data.folder import other_arrangement
from pix2seqd.data.labels import Labels
from pix2seqd.data.outlines import MAX_WORK, Mask, too_large
from pix2seqd.files import (
    InputError,
    a_few,
    is_file,
    leftovers,
    printable,
    read_json,
    write_atomically,
    write_json,
    write_together,
)
from pix2seqd.images.load import upright
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import VOID, Category, Taxonomy, distinct_color

MAX_DROPPED = 0.05
"""Share of annotations that may be dropped before the conversion counts as failed."""

NO_PIXEL = "no pixel of the image is in it, as with coordinates in degrees, or of an image of another size"
"""Why an outline is lost that is nowhere in its image."""
MIN_SIDE, MIN_OVERLAP = 4, 0.5
"""Sides of a mask, in pixels, from which its place is compared with its bounding box, and how far they agree then."""
MANY_RECTANGLES = 10
"""Number of objects that are all rectangles, above which they may be bounding boxes."""


_Instance = tuple[Shape, Mask]


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
    vanished: list[str] = field(default_factory=list)
    """Names of annotations without a visible pixel: empty, or covered by smaller instances."""
    unlisted: int = 0
    """Number of annotations of images that the source does not list."""
    rectangles: int = 0
    """Number of instances that fill their bounding box."""
    boxed: int = 0
    """Number of outlines that come with a bounding box."""
    misplaced: int = 0
    """Number of those that lie elsewhere than the box says."""
    notes: dict[str, int] = field(default_factory=dict)
    """What was left out of images, or how their labels were taken → number of images."""
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
            return "no label is left" + (f" ({self.dropped[0]})" if self.dropped else "")
        if len(self.dropped) > MAX_DROPPED * self.annotations:
            return f"{len(self.dropped):,} of {self.annotations:,} annotations are dropped, more than {MAX_DROPPED:.0%}"
        return ""

    @property
    def lines(self) -> list[str]:
        """The statistics, one a line."""
        share = self.overlap_pixels / max(1, self.pixels)
        found = [
            f"{self.images:,} images, {self.segments:,} segments ({self.crowds:,} of them crowds)",
            f"instances overlap in {self.overlaps:,} images, {share:.2%} of all pixels: the smaller one is on top",
            f"{len(self.vanished):,} annotations have no pixel left"
            + (f": {a_few(self.vanished)}" if self.vanished else ""),
        ]
        found += [f"{self.unlisted:,} annotations belong to no image"] if self.unlisted else []
        found += [f"{count:,} images: {note}" for note, count in self.notes.items()]
        if self.rectangles == self.segments - self.crowds > MANY_RECTANGLES:
            found.append("every object fills its bounding box; boxes instead of outlines would be wrong labels")
        if 2 * self.misplaced > self.boxed:
            found.append(
                f"warning: {self.misplaced:,} of {self.boxed:,} outlines lie elsewhere than their bounding boxes "
                "(bbox) say; if x and y are swapped, or one of both is of another size, the labels are wrong"
            )
        return found


def open_annotations(path: Path, images: Path | None = None) -> dict[str, Annotations]:
    """Read annotations of any of `FORMATS`.

    Args:
        path: a file or folder.
        images: folder of the images; None: looked for.

    Returns:
        Split → annotations; without splits, one for "".

    Raises:
        InputError: the format is not known, or an error of its reader; the folder of images does not exist.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    if images is not None and not images.is_dir():
        raise InputError(f"{images} is not a folder; give the folder of the images")
    found = recognize_annotations(path)
    if found is None:
        if path.is_dir() and find_splits(path)[1]:
            raise InputError(f"{path} needs no conversion; see how it is understood: pix2seqd check-data {path}")
        if path.is_dir() and (reason := other_arrangement(path)):
            raise InputError(reason)
        if path.is_dir() and (reason := cure(path)):
            raise InputError(f"{path} has no annotations that can be converted; {reason}; give {FORMATS}")
        raise InputError(f"{path} has no annotations that can be converted; give {FORMATS}")
    return found.read(images)


class Painter:
    """Paints panoptic segmentations from annotations.

    Attributes:
        taxonomy: the categories of the annotations, then those of the semantic map, then the background.
    """

    def __init__(self, annotations: Annotations, semantic: Path | None = None, background: str | None = None) -> None:
        """Prepare the categories.

        Args:
            annotations: the source.
            semantic: folder of label PNGs with the names of the images, declared by a classes.yaml in it. They fill the
                pixels without an instance. Categories that the annotations also have (by name) become void there.
            background: name of a stuff category for all pixels that would otherwise be void.

        Raises:
            InputError: the semantic map is missing or not understood; the background's name is in use.
        """
        self.annotations, self.semantic = annotations, semantic
        own = annotations.taxonomy
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
        self._class_of = {category.name: i for i, category in enumerate(self.taxonomy.categories, start=1)}
        self._added = {category.name: len(own) + i for i, category in enumerate(added, start=1)}

    def paint(self, record: Record, image: Image.Image, report: Conversion) -> Panoptic:
        """Paint the segmentation of one image.

        Args:
            record: an image of the annotations.
            image: the image itself, from `read_image`.
            report: statistics, updated in place.

        Raises:
            InputError: the image differs in size from the annotations; an annotation is damaged or has an unknown
                category; the semantic map is missing or damaged.
        """
        source, name = self.annotations.source, record.file_name
        orientation = labels_orientation(record.size, image)
        if orientation is None:
            assert record.size is not None
            says = f"{source} says {record.size[0]} x {record.size[1]}"
            hint = turned_hint(record.size, image)
            path = self.annotations.images / name
            raise InputError(f"{path} is {image.width} x {image.height} but {says}; correct one of them{hint}")
        canvas, classes = self._base_layer(image, name)
        instances = self._instances(record, image, orientation, report)
        once, twice = np.zeros((2, *canvas.shape), bool)
        crowds = []
        first = len(classes) + 1
        for segment_id, (shape, mask) in enumerate(instances, start=first):
            classes[segment_id] = self._class_of[shape.label]
            if shape.crowd:
                crowds.append(segment_id)
            for box, inside in mask.bands():
                np.copyto(canvas[box], segment_id, where=inside)
                if not shape.crowd:
                    twice[box] |= once[box] & inside
                    once[box] |= inside
        panoptic = Panoptic.from_segmentation(canvas, classes, self.taxonomy, crowds)
        visible = {segment.id for segment in panoptic.segments}
        for i, (shape, mask) in enumerate(instances, start=first):
            if i in visible:
                report.rectangles += not shape.crowd and mask.area == math.prod(mask.shape)
            else:
                why = "other objects cover it" if mask.area else NO_PIXEL
                report.vanished.append(shape.name)
                report.dropped.append(f"{shape.name} of {name}: {why}")
        report.dropped += [f"{shape.name} of {name}: {shape.lost}" for shape in record.shapes if shape.lost]
        report.overlaps += int(twice.any())
        report.overlap_pixels += int(twice.sum())
        report.pixels += canvas.size
        report.images += 1
        report.segments += len([segment for segment in panoptic.segments if segment.category_id != self._filled])
        report.crowds += len(visible.intersection(crowds))
        return panoptic

    def _base_layer(self, image: Image.Image, name: str) -> tuple[np.ndarray, dict[int, int]]:
        """Segment ids `[h, w]` below the instances and the class of each; ids count from 1 without gaps."""
        canvas, classes = np.zeros((image.height, image.width), np.int32), {}
        if self.semantic is not None:
            semantic = self.labels.read(self.semantic / f"{PurePosixPath(name).stem}.png", image, self.labels.taxonomy)
            canvas = semantic.segmentation.copy()
            classes = {s.id: self._added.get(s.name, VOID) for s in semantic.segments}
            canvas[np.isin(canvas, [i for i, found in classes.items() if found == VOID])] = VOID
        if self.background is not None:
            classes[len(classes) + 1] = self.background
            canvas[canvas == VOID] = len(classes)
        return canvas, classes

    def _instances(self, record: Record, image: Image.Image, orientation: int, report: Conversion) -> list[_Instance]:
        """Annotations and their masks, back to front."""
        width, height = record.size or image.size
        decoded, work = [], 0
        for shape in record.shapes:
            if shape.lost:
                continue
            try:
                mask = shape.mask(height, width)
                work += mask.work
                if work > MAX_WORK:
                    raise ValueError(too_large())
            except ValueError as error:
                reason = f"{shape.name} cannot be used ({error})"
                raise InputError(f"{self.annotations.source}: {reason}; correct it") from error
            if shape.bbox and min(mask.shape) >= MIN_SIDE:
                report.boxed += 1
                report.misplaced += _overlap(mask, shape.bbox) < MIN_OVERLAP
            if orientation > 1:
                mask = Mask.of(upright(mask.whole(height, width), orientation))
            decoded.append((shape, mask))
        return sorted(decoded, key=lambda found: (not found[0].crowd, found[0].depth, -found[1].area))


def _overlap(mask: Mask, bbox: tuple[float, ...]) -> float:
    """How far the box of a mask is a bounding box of left, top, width and height: intersection over union."""
    sides = zip(reversed(mask.box), bbox[:2], bbox[2:], strict=True)
    common = math.prod(max(0.0, min(s.stop, start + size) - max(s.start, start)) for s, start, size in sides)
    return common / max(1.0, math.prod(mask.shape) + bbox[2] * bbox[3] - common)


def convert(
    annotations: Annotations,
    out: Path,
    split: str = "",
    *,
    semantic: Path | None = None,
    background: str | None = None,
    progress: Callable[[list[Record]], Iterable[Record]] = iter,
) -> Conversion:
    """Write a data set for `CocoPanoptic`: a json, PNGs, and a link to the folder of images.

    A conversion that fails or is interrupted leaves nothing but its report, see `write_together`.

    Args:
        annotations: the source.
        out: folder to write to.
        split: name of the split; "" for none.
        semantic: as in `Painter`.
        background: as in `Painter`.
        progress: wraps the images, to show how many are done.

    Returns:
        Statistics. Images that cannot be used are left out and listed in `errors`. Annotations that are lost are listed
        in `dropped`. Both are in the file `dropped.txt` (`dropped_SPLIT.txt`) of `out`.

    Raises:
        InputError: `out` already has this split or splits of other categories; no image can be used; or an error of
            `write_together` or `Painter`.
    """
    suffix = f"_{split}" if split else ""
    pngs, images, json_name = f"panoptic{suffix}", split or "images", f"panoptic{suffix}.json"
    painter = Painter(annotations, semantic, background)
    report = Conversion(unlisted=len(annotations.unlisted), dropped=list(annotations.unlisted))
    report.annotations = len(annotations.unlisted) + sum(len(record.shapes) for record in annotations.records)
    with write_together(out) as stage:
        if held := [out / name for name in (pngs, images, json_name) if (out / name).exists()]:
            raise InputError(f"{held[-1]} exists already; choose another folder")
        _check_same_categories(out, painter.taxonomy)
        for path in leftovers(out / f"dropped{suffix}.txt"):
            path.unlink()
        converted, unlabelled = _convert_images(progress(annotations.records), painter, stage / pngs, report)
        if lines := report.dropped + unlabelled:
            with write_atomically(out / f"dropped{suffix}.txt") as temporary:
                temporary.write_text("\n".join(map(printable, lines)) + "\n", encoding="utf-8")
        if not converted:
            there = any(r.content or is_file(annotations.images / r.file_name) for r in annotations.records)
            cure = "" if there else "; if the images are in another folder, name it: --images FOLDER_OF_IMAGES"
            error = f"the first error is: {report.errors[0]}{cure}"
            raise InputError(f"no image of {annotations.source} can be used; {error}")
        records, entries, segments = zip(*converted, strict=True)
        _give_images(annotations, records, stage / images)
        content = {"images": entries, "annotations": segments, "categories": painter.taxonomy.to_coco()}
        write_json(stage / json_name, content)
    return report


_Converted = tuple[Record, dict[str, Any], dict[str, Any]]
"""An image that is done, with its entries in the lists `images` and `annotations`."""


def _convert_images(
    records: Iterable[Record], painter: Painter, folder: Path, report: Conversion
) -> tuple[list[_Converted], list[str]]:
    """Write the PNGs of all images that can be used into a folder.

    Returns:
        The images that are done, and one line for each other one without annotations.
    """
    converted: list[_Converted] = []
    unlabelled: list[str] = []
    finder = ImageFinder(painter.annotations.images)
    for number, record in enumerate(records, start=1):
        try:
            image = _read_image(painter.annotations, record, finder)
            panoptic = painter.paint(record, image, report)
        except InputError as error:
            report.errors.append(str(error))
            report.dropped += [f"{shape.name}: {error}" for shape in record.shapes]
            unlabelled += [] if record.shapes else [str(error)]
            continue
        for note in image.info["notes"]:
            report.notes[note] = report.notes.get(note, 0) + 1
        own = {"id": record.fields.get("id", number), "file_name": record.file_name}
        path = folder / record.png
        path.parent.mkdir(parents=True, exist_ok=True)
        panoptic.to_png().save(path, format="PNG")
        entry = {**record.fields, **own, "width": image.width, "height": image.height}
        converted.append((record, entry, panoptic.annotation(own["id"], record.png)))
    return converted, unlabelled


def _check_same_categories(out: Path, taxonomy: Taxonomy) -> None:
    """Refuse to put a split beside others that number their classes in another way."""
    for path in sorted(out.glob("panoptic*.json")):
        content = read_json(path)
        others = content.get("categories") if isinstance(content, dict) else None
        listed = others if isinstance(others, list) else [None]
        found = [(other.get("id"), other.get("name")) if isinstance(other, dict) else None for other in listed]
        if found and found != [(category.id, category.name) for category in taxonomy.categories]:
            raise InputError(
                f"{path} has other categories than this split would have; convert all splits at once or list the same "
                "classes for each, or choose another folder"
            )


def _read_image(annotations: Annotations, record: Record, finder: ImageFinder) -> Image.Image:
    if record.content is None:
        path = annotations.images / record.file_name
        if not is_file(path) and (fitting := finder.several(record.file_name)):
            places = ", ".join(str(annotations.images / each) for each in fitting[:5])
            raise InputError(
                f"{path} does not exist, and several images have this name ({places}); write the folder of the right "
                f"one before the name in {annotations.source}, or name it: --images FOLDER_OF_IMAGES"
            )
        return read_image(path)
    content = BytesIO(record.content)
    content.name = f"{annotations.source}: the image of {record.file_name}"
    return read_image(content)


def _give_images(annotations: Annotations, records: Sequence[Record], folder: Path) -> None:
    """Link the folder of images, or copy its images where links cannot be made (e.g. Windows without the privilege)."""
    if all(record.content is None for record in records):
        with suppress(OSError):
            folder.symlink_to(annotations.images.resolve(), target_is_directory=True)
            return
    for record in records:
        path = folder / record.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        if record.content is None:
            shutil.copyfile(annotations.images / record.file_name, path)
        else:
            path.write_bytes(record.content)
