"""Supervisely: a json an image (`DATASET/ann`) with polygons and bitmaps, images in `DATASET/img`, and `meta.json`."""

import base64
import zlib
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from pix2seqd.data.annotations.records import (
    Annotations,
    ImageFinder,
    Record,
    Shape,
    by_split,
    drawn,
    labels_of,
    make_taxonomy,
    parse_size,
    read_jsons,
    unusable,
)
from pix2seqd.data.outlines import Mask, combine, polygon_mask, rectangle, stored_mask
from pix2seqd.files import MAX_TEXT, InputError, read_json

META = "meta.json"


def is_supervisely(content: Any) -> bool:
    """Whether the content of a json file is that of one image in Supervisely's format."""
    return isinstance(content, dict) and isinstance(content.get("objects"), list) and "size" in content


def read_supervisely(path: Path, images: Path | None = None) -> dict[str, Annotations]:
    """Read a project, one of its data sets, or the file of one image; an `InputError` if a file is damaged.

    The classes and their colours are those of `meta.json`, which has all, otherwise the titles of all objects, sorted.
    `images` is the folder of the images; None: `img` beside the folder of each file. Returns split → annotations, if
    all data sets of the project are called train, val or similar; otherwise the split is "".
    """
    home = path if path.is_dir() else path.parent.parent
    contents, _ = read_jsons(path, home, is_supervisely)
    finder = ImageFinder(images or home)
    records: list[tuple[str, Record]] = []
    for file, content in contents.items():
        shapes = [_shape(f"object {n}", entry) for n, entry in enumerate(content["objects"], start=1)]
        size = content["size"] if isinstance(content["size"], dict) else {}
        record = Record(_image(file, finder), shapes, parse_size(size.get("width"), size.get("height")))
        records.append((file.parent.parent.name if path.is_dir() else "", record))
    titles = labels_of(record for _, record in records)
    meta = next((place / META for place in (home, home.parent) if (place / META).is_file()), None)
    colors = _classes(meta) if meta else dict.fromkeys(titles)
    if unknown := [title for title in titles if title not in colors]:
        raise InputError(f"{meta} lacks the class {unknown[0]}; export the project again")
    if not colors:
        raise InputError(f"{path} has no labelled object; label some in Supervisely")
    return by_split(records, path, finder.folder, make_taxonomy(colors, meta or path, colors=colors))


def _classes(meta: Path) -> dict[str, Any]:
    """Title → colour, as it is written, of each class of `meta.json`."""
    content = read_json(meta)
    entries = content.get("classes") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and entry.get("title") for entry in entries):
        raise InputError(f"{meta} has no list of classes with titles; export the project again")
    return {str(entry["title"]).strip(): entry.get("color") for entry in entries}


def _title(entry: Any) -> str:
    return str(entry.get("classTitle") or "").strip() if isinstance(entry, dict) else ""


def _image(file: Path, finder: ImageFinder) -> str:
    """The image of a file, as a path below the finder's folder; its name alone if it is not found."""
    there = file.parent.parent / "img" / file.stem
    if there.is_file() and there.is_relative_to(finder.folder):
        return there.relative_to(finder.folder).as_posix()
    return finder.find(file.stem) or finder.beside(file.stem, there.parent) or file.stem


def _shape(name: str, entry: Any) -> Shape:
    title = _title(entry)
    if not title:
        return unusable(name, "it has no class")
    kind = str(entry.get("geometryType") or ("bitmap" if entry.get("bitmap") else "polygon"))
    decoders = {"polygon": _polygon, "rectangle": _rectangle, "bitmap": _bitmap}
    return drawn(f"{name} ({title})", title, kind, decoders, entry)


def _points(entry: Mapping[str, Any], key: str) -> Any:
    points = entry.get("points")
    return points.get(key) if isinstance(points, dict) else None


def _polygon(entry: Mapping[str, Any], height: int, width: int) -> Mask:
    outline = polygon_mask(_points(entry, "exterior"), height, width)
    holes = _points(entry, "interior") or []
    if not isinstance(holes, list):
        raise ValueError("its interior is not a list of holes")
    return combine(chain([outline], (polygon_mask(hole, height, width) for hole in holes)), np.greater)


def _rectangle(entry: Mapping[str, Any], height: int, width: int) -> Mask:
    """The box of two corners, of which both pixels are inside."""
    try:
        (x0, y0), (x1, y1) = np.asarray(_points(entry, "exterior"), float).tolist()
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("it does not have 2 corners") from error
    (left, right), (top, bottom) = sorted((x0, x1)), sorted((y0, y1))
    return polygon_mask(rectangle(left, top, right + 1, bottom + 1), height, width)


def _bitmap(entry: Mapping[str, Any], height: int, width: int) -> Mask:
    """A PNG, compressed and in base 64, whose left upper pixel lies at `origin`."""
    bitmap = entry.get("bitmap")
    data, origin = (bitmap.get("data"), bitmap.get("origin")) if isinstance(bitmap, dict) else (None, None)
    if not (isinstance(origin, list) and len(origin) == 2 and all(type(value) is int for value in origin)):
        raise ValueError("its bitmap has no origin")
    try:
        png = zlib.decompressobj().decompress(base64.b64decode(str(data)), MAX_TEXT)
    except (zlib.error, ValueError) as error:
        raise ValueError("its bitmap is damaged") from error
    return stored_mask(png, origin[0], origin[1], height, width)
