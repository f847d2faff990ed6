"""YOLO segmentation, as Ultralytics, Roboflow and CVAT write it: a text file an image, and `data.yaml`.

A row is the number of a class and the corners of an outline, as shares of width and height. A row of five numbers is a
bounding box.
"""

import os
import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pix2seqd.data.annotations.records import (
    ONLY_BOX,
    SPLIT_NAMES,
    Annotations,
    ImageFinder,
    Record,
    Shape,
    lost,
    make_taxonomy,
    path_parts,
    unusable,
    visible,
)
from pix2seqd.data.labels import by_number
from pix2seqd.data.outlines import MAX_POINTS, Mask, fill_polygon
from pix2seqd.files import LINE_COSTS, InputError, is_dir, is_file, read_text, read_yaml
from pix2seqd.images.load import IMAGE_SUFFIXES

SPLITS = ("train", "val", "valid", "test")
NAME_FILES = ("classes.txt", "obj.names", "labels/classes.txt")
"""Where tools without data.yaml write the names, one a line."""
OTHER_TEXTS = ("classes.txt", "train.txt", "val.txt", "test.txt")
"""Text files without rows."""
MANY_BOXES = 10
"""Number of outlines, all of four corners, above which they may be boxes."""
MIN_FILLED = 0.3
"""Share of a side of the box of a pose that its points take up at least, in the middle of all poses."""
LOOKED_AT = 1000
"""Number of rows from which poses can be told."""
OUTSIDE = 0.1
"""How far a corner may lie outside the image, as a share of its side; farther ones are no shares but pixels."""

DOTA = re.compile(r"(?m)^(-?[0-9.]+ ){8}[^ \n]+ [0-2]\r?$")
"""A row of DOTA: the four corners of a box, its class and whether it is difficult."""
NO_ROW = "it is not the number of a class and coordinates"
ROW_COSTS = {**dict.fromkeys(LINE_COSTS, 700), b" ": 100, b"\t": 100}
"""Bytes of memory for each such byte of a file of rows, as measured."""


def is_yolo_yaml(path: Path) -> bool:
    """Whether a YAML file describes a YOLO data set."""
    try:
        content = read_yaml(read_text(path), str(path))
    except InputError:
        return False
    return isinstance(content, dict) and "names" in content and any(key in content for key in ("path", *SPLITS))


def has_rows(folder: Path) -> bool:
    """Whether a folder, or one in it, has text files of YOLO's rows."""
    return any(_numbers(line) is not None for _, text in _texts(folder) for line in text.splitlines()[:1])


def dota_file(folder: Path) -> Path | None:
    """A text file with rows of DOTA in a folder or below it."""
    return next((path for path, text in _texts(folder) if DOTA.search(text)), None)


def _texts(folder: Path) -> Iterator[tuple[Path, str]]:
    """Some text files that may have rows, and their content; those in another encoding than UTF-8 are none."""
    for path in [p for p in visible(folder, "**/*.txt") if p.name not in OTHER_TEXTS][:5]:
        try:
            yield path, read_text(path, ROW_COSTS)
        except InputError as error:
            if not isinstance(error.__cause__, UnicodeDecodeError):
                raise


def _numbers(line: str) -> list[float] | None:
    try:
        values = list(map(float, line.split()))
    except ValueError:
        return None
    return values if len(values) >= 5 and values[0] >= 0 and values[0].is_integer() else None


def read_yolo(path: Path, images: Path | None = None) -> dict[str, Annotations]:
    """Read a YOLO data set: its data.yaml, or a folder without one, whose annotations are those of "".

    `images` is their folder, if it is neither where data.yaml says nor `images` beside `labels`. A data.yaml that is
    not understood, and bounding boxes or keypoints only, are an `InputError`.
    """
    home = path if path.is_dir() else path.parent
    content: Any = {} if path.is_dir() else read_yaml(read_text(path), str(path))
    if "kpt_shape" in content:
        raise InputError(f"{path} describes keypoints (kpt_shape), which have no outlines; export segmentation")
    names = _names(content, path, home)
    splits = {split: content[split] for split in SPLITS if content.get(split)} if not images else {}
    notes: list[str] = []
    root = str(content.get("path") or "")
    if "test" in splits and len(splits) > 1 and not any(_place(entry, home, root) for entry in _listed(splits["test"])):
        notes.append(f"{splits.pop('test')} does not exist, and test is left out")  # Roboflow always names it
    folders = {split: _folders(given, home, root, path) for split, given in splits.items()}
    if not folders:
        folders = {"": [images or next((f for f in (home / "images", home) if f.is_dir()), home)]}
        for split in SPLITS if not images else ():
            if found := [f for f in (home / "images" / split, home / split / "images") if f.is_dir()]:
                folders[split] = found
        if len(folders) > 1:
            del folders[""]
    found = {split: _pairs(listed) for split, listed in folders.items()}
    if not any(found.values()):
        where = ", ".join(str(folder) for listed in folders.values() for folder in listed)
        raise InputError(f"{path}: there are no images in {where}; give their folder: convert-data --images")
    if not names:
        names = _numbered(found)
        notes.append("the classes are named by number, as neither data.yaml nor classes.txt gives names")
    if _are_poses(found):
        raise InputError(
            f"{path} has keypoints: each row is a bounding box and points in it, which are no outlines; "
            "export segmentation"
        )
    notes.append("category ids are 1 higher than YOLO's, as 0 means void")
    if _are_turned_boxes(found):
        notes.append("every outline has four corners; turned boxes (OBB) instead of outlines would be wrong labels")
    taxonomy = make_taxonomy(names.values(), path, [number + 1 for number in names])
    result = {}
    used = {label for pairs in found.values() for _, label in pairs}
    for split, pairs in found.items():
        if not pairs:
            notes.append(f"{split} has no images and is left out")
            continue
        folder = _common_folder([image for image, _ in pairs])
        records = [Record(i.relative_to(folder).as_posix(), _shapes(label, names)) for i, label in pairs]
        result[split] = Annotations(path, folder, taxonomy, records, _without_image(pairs, used), notes)
    return result


def _names(content: Any, path: Path, home: Path) -> dict[int, str]:
    """Number of a class → its name; empty if no file tells."""
    if not isinstance(content, dict):
        raise InputError(f"{path} should have lines such as 'names: [cell]'; see docs/datasets.md")
    names = content.get("names")
    if names is None:
        file = next((home / name for name in NAME_FILES if (home / name).is_file()), None)
        names = read_text(file).splitlines() if file else []
        names = [name.strip() for name in names if name.strip()]
    if isinstance(names, list):
        names = dict(enumerate(names))
    try:
        return {number: str(name).strip() for number, name in by_number(names).items()}
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: names should be a list, or lines such as '0: cell'; correct it") from error


def _folders(given: Any, home: Path, root: str, path: Path) -> list[Path]:
    """The folders or lists of images of a split; paths may be those of another computer.

    None may lie outside of `home`: a data set of strangers may not name any folder.
    """
    found = []
    for entry in _listed(given):
        if (place := _place(entry, home, root)) is None:
            raise InputError(f"{path}: {entry} is not in {home}; correct it, or give convert-data --images")
        if not Path(os.path.abspath(place)).is_relative_to(os.path.abspath(home)):  # noqa: PTH100
            raise InputError(
                f"{path}: {entry} lies outside of {home}; copy {path.name} into the folder of the data set and remove "
                "the line 'path' from it, or give the folder of the images: convert-data --images"
            )
        found.append(place)
    return found


def _listed(given: Any) -> list[str]:
    return [str(entry).replace("\\", "/") for entry in (given if isinstance(given, list) else [given])]


def _place(plain: str, home: Path, root: str) -> Path | None:
    """The folder or list of images that data.yaml names, in `home` if it is there too; None if it is missing."""
    parts, root = path_parts(plain), root.replace("\\", "/")
    # Roboflow writes ../train/images for the folder train/images beside data.yaml.
    own = home / "/".join(parts) if parts and not root else home / root / plain
    # The end of a path of another computer, but not the images of all splits for those of one.
    starts = (start for start in range(1, len(parts)) if not SPLIT_NAMES.fullmatch(parts[start - 1]))
    ends = (home / "/".join(parts[start:]) for start in (0, *starts)) if parts else ()
    return next(filter(_exists, [own, home / root / plain, home / plain, *ends]), None)


def _exists(place: Path) -> bool:
    return is_dir(place) or is_file(place)


def _pairs(places: list[Path]) -> list[tuple[Path, Path]]:
    """Each image and the file of its rows, which is missing if nothing is in the image."""
    images: list[Path] = []
    for place in places:
        if place.is_dir():
            images += [p for p in visible(place, "**/*") if p.suffix.lower() in IMAGE_SUFFIXES]
        else:  # a list of images, a path in each line
            lines = [line.strip() for line in read_text(place).splitlines() if line.strip()]
            finder = ImageFinder(place.parent)
            images += [place.parent / (finder.find(line) or "/".join(path_parts(line))) for line in lines]
    return [(image, _label(image)) for image in dict.fromkeys(images)]


def _label(image: Path) -> Path:
    """The text file of an image: in `labels` instead of `images`, or beside it."""
    parts = list(image.parts)
    for at in range(len(parts) - 2, -1, -1):
        if parts[at].lower() == "images":
            label = Path(*parts[:at], "labels", *parts[at + 1 :]).with_suffix(".txt")
            if label.is_file():
                return label
    return image.with_suffix(".txt")


def _without_image(pairs: list[tuple[Path, Path]], used: set[Path]) -> list[str]:
    """One line for each row beside those of the images that belongs to no image, also to none of another split."""
    folders = {label.parent: image.parent for image, label in pairs if label.is_file()}
    found = []
    for labels, images in folders.items():
        stems = {path.stem for path in images.iterdir()}
        for text in visible(labels, "*.txt"):
            if text not in used and text.stem not in stems and text.name not in OTHER_TEXTS:
                rows = [line for line in _lines(text) if _numbers(line)]
                found += [f"{text.name}: {text.stem} has no image in {images}" for _ in rows]
    return found


def _numbered(found: dict[str, list[tuple[Path, Path]]]) -> dict[int, str]:
    """The classes of all rows, named by number."""
    firsts = {line.split()[0] for line in _rows(found)}
    numbers = sorted({int(float(first)) for first in firsts if re.fullmatch(r"\d+(\.0*)?", first)})
    return {number: str(number) for number in numbers or [0]}


def _are_turned_boxes(found: dict[str, list[tuple[Path, Path]]]) -> bool:
    """Whether there are many rows, all of the number of a class and four corners."""
    boxes = 0
    for line in _rows(found):
        if len(line.split()) != 9:
            return False  # of most data in the first file
        boxes += 1
    return boxes > MANY_BOXES


def _are_poses(found: dict[str, list[tuple[Path, Path]]]) -> bool:
    """Whether all rows looked at are a bounding box and points in it, each with two numbers or three."""
    rows = [values for line in islice(_rows(found), LOOKED_AT) if (values := _numbers(line)) and len(values) > 9]
    alike = bool(rows) and len(set(map(len, rows))) == 1
    # Two corners of an outline are no middle and size: the others are near the first, and fill no such box.
    filled = [[_filled(row, count) for row in rows] for count in (2, 3)] if alike else []
    return any(min(shares) >= 0 and np.median(shares) > MIN_FILLED for shares in filled)


def _filled(values: list[float], count: int) -> float:
    """How much of the longer side of a box the points in it take up, from 0 to 1; -1 for a row that is no pose.

    A pose is a class, a box of middle and size, and points of `count` numbers in it, of which 0, 0 is none.
    """
    middle, size, rest = np.array(values[1:3]), np.array(values[3:5]), values[5:]
    if len(rest) % count:
        return -1
    points = np.array(rest).reshape(-1, count)[:, :2]
    points = points[(points != 0).any(axis=1)]
    if (np.abs(points - middle) > size / 2 + 0.01).any():
        return -1
    return float((np.ptp(points, axis=0) / np.maximum(size, 1e-9)).max()) if len(points) else 0


def _rows(found: dict[str, list[tuple[Path, Path]]]) -> Iterator[str]:
    """The rows of all splits."""
    return (line for pairs in found.values() for _, label in pairs if label.is_file() for line in _lines(label))


def _lines(label: Path) -> list[str]:
    return [line for line in read_text(label, ROW_COSTS).splitlines() if line.strip()]


def _shapes(label: Path, names: dict[int, str]) -> list[Shape]:
    lines = enumerate(read_text(label, ROW_COSTS).splitlines() if label.is_file() else [], start=1)
    file = label.name
    return [_shape(f"line {number} of {file}", line, names) for number, line in lines if line.strip()]


def _shape(name: str, line: str, names: dict[int, str]) -> Shape:
    """The shape of a row, of which only the class is read: its coordinates are when it is painted."""
    words = line.split()
    number = _class(words[0])
    if number is None:
        return unusable(name, NO_ROW)
    if number not in names:
        return unusable(name, f"its class {number} is not in names, which have {len(names)} classes")
    if len(words) in (5, 6) and _numbers(line) is not None:
        return lost(name, ONLY_BOX)
    return Shape(name, names[number], partial(_outline, line))


def _class(word: str) -> int | None:
    """The number of a class, which some tools write as 3.0."""
    try:
        number = float(word)
    except ValueError:
        return None
    return int(number) if number >= 0 and number.is_integer() else None


def _outline(line: str, height: int, width: int) -> Mask:
    values = _numbers(line)
    if values is None:
        raise ValueError(NO_ROW)
    corners = values[1:]
    if len(corners) % 2:
        raise ValueError("it has an odd number of coordinates, as with a confidence at the end")
    points = np.array(corners).reshape(-1, 2)
    if len(points) > MAX_POINTS:
        raise ValueError(f"its outline has more than {MAX_POINTS:,} points")
    if not (np.abs(points - 0.5) <= 0.5 + OUTSIDE).all():
        raise ValueError("its coordinates are no shares of width and height, from 0 to 1")
    return fill_polygon(points * (width, height), height, width)


def _common_folder(images: list[Path]) -> Path:
    """The innermost folder that holds all images."""
    folder = images[0].parent
    while not all(image.is_relative_to(folder) for image in images):
        folder = folder.parent
    return folder
