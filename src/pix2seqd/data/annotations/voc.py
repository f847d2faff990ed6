"""Pascal VOC's segmentation: images of object numbers (SegmentationObject) and of classes (SegmentationClass)."""

import re
from collections.abc import Callable, Collection
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from pix2seqd.data.annotations.records import (
    Annotations,
    ImageFinder,
    Record,
    Shape,
    lost,
    make_taxonomy,
    visible,
)
from pix2seqd.data.label_images import LOSSLESS_SUFFIXES, read_label_image
from pix2seqd.data.labels import as_rgb_number
from pix2seqd.data.outlines import Mask
from pix2seqd.files import InputError, read_text
from pix2seqd.panoptic.panoptic import id_to_rgb, unique_inverse
from pix2seqd.panoptic.runs import Box, Runs

OBJECTS, CLASSES, IMAGES = "SegmentationObject", "SegmentationClass", "JPEGImages"
VOID = 255
VOID_COLOR = 224 + 256 * 224 + 65536 * 192
"""What VOC's palette has for 255."""
BASE = 2**32
"""A class and the number of an object are one key: class * BASE + number."""
FIRST_COLOR = 1000
"""Number of the first object, where objects have colours: above `VOID`."""
NAMES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
BACKGROUND = ("background", "_background_")
HOME = re.compile(r"VOC\d{4}")
"""The folder in which Pascal VOC itself is distributed."""


def is_voc(folder: Path) -> bool:
    """Whether a folder has label images as Pascal VOC arranges them."""
    return _place(folder, CLASSES).is_dir() or _place(folder, OBJECTS).is_dir()


def _place(home: Path, name: str) -> Path:
    """The folder of label images; Labelme's `labelme2voc` has them in SegmentationClassPNG, beside arrays of NumPy."""
    return png if (png := home / f"{name}PNG").is_dir() else home / name


def read_voc(home: Path, images: Path | None = None) -> dict[str, Annotations]:
    """Read a folder as Pascal VOC, CVAT and Labelme's `labelme2voc` write it, for each list in ImageSets/Segmentation.

    Without images of objects, classes are stuff; without images of classes, all objects are of the class `object`.
    The void border (255, or the colour of 255) belongs to nothing. `images` is the folder of the images, or JPEGImages.
    Without lists, the split is "". A damaged label image, or a class without a name, is an `InputError`.
    """
    folder = images or home / IMAGES
    if not folder.is_dir():
        raise InputError(f"{folder} is missing: the images of {home}; give their folder: convert-data --images")
    only_objects = not _place(home, CLASSES).is_dir()
    given = _place(home, OBJECTS if only_objects else CLASSES)
    labels, objects = (
        {p.stem: p for p in visible(place, "*") if p.suffix.lower() in LOSSLESS_SUFFIXES}
        for place in (given, _place(home, OBJECTS))
    )
    if not labels:
        raise InputError(f"{given} has no label images; export them as PNG")
    read = lru_cache(maxsize=2)(partial(_read, _colors(home), objects, {} if only_objects else labels))

    def look(stem: str) -> tuple[tuple[int, ...], Any, Any]:
        keys, boxes, without = read(stem)
        return keys.shape, list(boxes), without  # the label image itself is read again when it is painted

    seen = {stem: look(stem) for stem in labels}
    names, notes = _names(home, sorted({kind for _, pairs, _ in seen.values() for kind, _ in pairs}), only_objects)
    if not objects:
        notes.append(f"there is no folder {OBJECTS}: classes have no instances, all are stuff")
    taxonomy = make_taxonomy(names.values(), home, list(names), things=bool(objects))
    finder = ImageFinder(folder)

    def record(stem: str) -> Record:
        (height, width), pairs, without = seen[stem]
        shapes = [lost(f"object {number}", "its pixels have no class") for number in without]
        for kind, number in pairs:
            name = f"object {number} ({names[kind]})" if number else names[kind]
            shapes.append(
                Shape(name, names[kind], partial(_mask, read, stem, (kind, number)), bool(objects) and not number)
            )
        return Record(finder.beside(stem, folder) or f"{stem}.jpg", shapes, (width, height))

    splits = _splits(home, labels, notes)
    return {
        split: Annotations(home, folder, taxonomy, [record(stem) for stem in stems], notes=notes)
        for split, stems in splits.items()
    }


def _splits(home: Path, labels: Collection[str], notes: list[str]) -> dict[str, list[str]]:
    """Split → stems of its images, from the lists in ImageSets."""
    lists = {path.stem: path for path in visible(home / "ImageSets/Segmentation", "*.txt")}
    if len(lists) > 1:
        lists.pop("trainval", None)
    found: dict[str, list[str]] = {}
    without = 0
    for split, path in lists.items():
        stems = [line.strip() for line in read_text(path).splitlines() if line.strip()]
        found["" if split == "default" else split] = [stem for stem in stems if stem in labels]
        without += sum(stem not in labels for stem in stems)
    if without:
        notes.append(f"{without} images in the lists have no label image and are left out")
    return {split: stems for split, stems in found.items() if stems} or {"": list(labels)}


def _read(
    colors: dict[int, int], objects: dict[str, Path], classes: dict[str, Path], stem: str
) -> tuple[np.ndarray, dict[tuple[int, int], Box], list[int]]:
    """Keys `[h, w]`, 0 for background and void; (class, number) and box of each; numbers without a class."""
    if classes:
        kinds = _classes(classes[stem], colors)
        numbers = _objects(objects[stem]) if stem in objects else np.zeros_like(kinds)
    else:
        numbers = _objects(objects[stem])
        kinds = np.minimum(numbers, 1)
    if numbers.shape != kinds.shape:
        raise InputError(f"{objects[stem]} and {classes[stem]} differ in size; export them again")
    void = (kinds == VOID) | (numbers == VOID)
    keys = np.where(void | (kinds == 0), 0, kinds * BASE + numbers)
    boxes = {divmod(key, BASE): box for key, (_, box) in Runs.encode(keys).measure().items()}
    without = set(np.unique(numbers[~void]).tolist()) - {0} - {number for _, number in boxes}
    return keys, boxes, sorted(without)


def _classes(path: Path, colors: dict[int, int]) -> np.ndarray:
    """The class of each pixel: the value, or what `labelmap.txt` says of its colour."""
    pixels = read_label_image(path, rgb=bool(colors))
    if not colors:
        if pixels.ndim == 3:
            raise InputError(f"{path} has colours; add labelmap.txt with lines such as 'cell:128,0,0::'")
        return pixels
    colors = {VOID_COLOR: VOID, **colors}
    found, dense = unique_inverse(as_rgb_number(pixels))
    if unknown := [color for color in found.tolist() if color not in colors]:
        raise InputError(f"{path}: colour {id_to_rgb(unknown[0]).tolist()} is not in labelmap.txt; add it")
    return np.array([colors[color] for color in found.tolist()])[dense]


def _objects(path: Path) -> np.ndarray:
    """The number of the object of each pixel; of colours, in the order of their values."""
    pixels = read_label_image(path)
    if pixels.ndim == 2:
        return pixels
    colors, dense = unique_inverse(as_rgb_number(pixels))
    numbers = [0 if c == 0 else VOID if c == VOID_COLOR else FIRST_COLOR + n for n, c in enumerate(colors)]
    return np.array(numbers)[dense]


def _mask(
    read: Callable[[str], tuple[np.ndarray, Any, Any]], stem: str, key: tuple[int, int], height: int, width: int
) -> Mask:
    keys, boxes, _ = read(stem)
    left, top, across, down = boxes[key]
    return Mask.of(keys[top : top + down, left : left + across] == key[0] * BASE + key[1], top, left)


def _label_map(home: Path) -> list[tuple[str, str]]:
    """Name and colour of each line of `labelmap.txt`, or only names of `class_names.txt`."""
    for name in ("labelmap.txt", "class_names.txt"):
        if (home / name).is_file():
            lines = [line.strip() for line in read_text(home / name).splitlines()]
            return [(p[0], p[1] if len(p) > 1 else "") for ln in lines if ln and ln[0] != "#" for p in [ln.split(":")]]
    return []


def _colors(home: Path) -> dict[int, int]:
    """Colour → class, from 1 in the order of `labelmap.txt`; background is 0. Empty if it has no colours."""
    colors: dict[int, int] = {}
    rows = [(name, color) for name, color in _label_map(home) if color]
    kinds = [name for name, _ in rows if name.lower() not in BACKGROUND]
    for name, color in rows:
        try:
            red, green, blue = (int(channel) for channel in color.split(","))
        except ValueError as error:
            raise InputError(f"{home / 'labelmap.txt'}: the colour {color} is not three numbers; correct it") from error
        colors[red + 256 * green + 65536 * blue] = kinds.index(name) + 1 if name in kinds else 0
    return colors


def _names(home: Path, found: list[int], only_objects: bool) -> tuple[dict[int, str], list[str]]:
    """Name of each class, and notes on how they were found."""
    if only_objects:
        return {1: "object"}, [f"there is no folder {CLASSES}: all objects are of one class, object"]
    listed = [name for name, _ in _label_map(home) if name.lower() not in (*BACKGROUND, "__ignore__")]
    if listed:
        names = dict(enumerate(listed, start=1))
    elif HOME.fullmatch(home.resolve().name):
        names = dict(enumerate(NAMES, start=1))
    else:
        cure = f"to name them, write {home / 'labelmap.txt'} with a line for each, from background on"
        return {value: str(value) for value in found or [1]}, [f"the classes are named by number; {cure}"]
    if unknown := [value for value in found if value not in names]:
        raise InputError(f"{home}: class {unknown[0]} of the label images has no name in labelmap.txt; add it")
    return names, []
