"""VGG Image Annotator (VIA), versions 1 and 2: one json or CSV file with the regions of all images."""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pix2seqd.data.annotations.records import (
    Annotations,
    ImageFinder,
    Record,
    Shape,
    drawn,
    labels_of,
    make_taxonomy,
    unusable,
)
from pix2seqd.data.outlines import Mask, ellipse_mask, polygon_mask, rectangle
from pix2seqd.data.tables import columns, delimiter
from pix2seqd.files import CSV_COSTS, MAX_TEXT, InputError, read_text

SHAPE, ATTRIBUTES = "region_shape_attributes", "region_attributes"
"""Columns of VIA's CSV file that hold json."""


def is_via(content: Any) -> bool:
    """Whether the content of a json file is VIA's: a project, or its annotations."""
    entries = list(_entries(content))
    return bool(entries) and all(
        isinstance(entry, dict) and isinstance(entry.get("filename"), str) and "regions" in entry for entry in entries
    )


def _entries(content: Any) -> Iterator[Any]:
    content = content.get("_via_img_metadata", content) if isinstance(content, dict) else {}
    yield from content.values() if isinstance(content, dict) else ()


def read_via(path: Path, content: Any, images: Path | None = None) -> dict[str, Annotations]:
    """Read the content of a json file of VIA.

    The class is the region's only attribute; several are an `InputError`. Without attributes, all are `object`.
    `images` is the folder of the images; None: that of the json.
    """
    folder = images or path.parent
    entries = list(_entries(content))
    regions = [_regions(entry) for entry in entries]
    attributes = Counter(key for listed in regions for region in listed for key in _attributes(region))
    if len(attributes) > 1:
        raise InputError(f"{path}: regions have several attributes ({', '.join(attributes)}); keep that of the class")
    key = next(iter(attributes), "")
    finder = ImageFinder(folder)
    records = []
    for entry, listed in zip(entries, regions, strict=True):
        name = entry["filename"]
        shapes = [_shape(f"region {n}", region, _label(region, key)) for n, region in enumerate(listed, 1)]
        records.append(Record(finder.find(name) or Path(name.replace("\\", "/")).name, shapes))
    return {"": Annotations(path, folder, make_taxonomy(labels_of(records) or ["object"], path), records)}


def is_via_csv(path: Path) -> bool:
    """Whether the first line of a CSV file has VIA's columns."""
    return {"filename", SHAPE, ATTRIBUTES} <= {name.lstrip("#") for name in columns(path)}


def read_via_csv(path: Path, images: Path | None = None) -> dict[str, Annotations]:
    """Read the CSV file of VIA, as `read_via` does; an `InputError` if a line is damaged."""
    csv.field_size_limit(MAX_TEXT)
    lines = read_text(path, CSV_COSTS).splitlines()
    head = [name.lstrip("#") for name in columns(path)]
    entries: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(csv.reader(lines[1:], delimiter=delimiter(lines[0])), start=2):
        if not row:
            continue
        try:
            cells = dict(zip(head, row, strict=True))
            shape, attributes = (json.loads(cells[key] or "{}") for key in (SHAPE, ATTRIBUTES))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}, is damaged ({error}); export it again") from error
        name = cells["filename"]
        entry = entries.setdefault(name, {"filename": name, "regions": []})
        entry["regions"] += [{"shape_attributes": shape, ATTRIBUTES: attributes}] if shape else []
    return read_via(path, entries, images)


def _regions(entry: Mapping[str, Any]) -> list[Any]:
    regions = entry["regions"]
    return list(regions.values()) if isinstance(regions, dict) else regions if isinstance(regions, list) else []


def _attributes(region: Any) -> Mapping[str, Any]:
    found = region.get("region_attributes") if isinstance(region, dict) else None
    return {key: value for key, value in found.items() if value not in ("", {})} if isinstance(found, dict) else {}


def _label(region: Any, key: str) -> str:
    if not key:
        return "object"
    value = _attributes(region).get(key, "")
    if isinstance(value, dict):  # check boxes: {"cell": true}
        value = ", ".join(name for name, chosen in value.items() if chosen)
    return str(value).strip()


def _shape(name: str, region: Any, label: str) -> Shape:
    if not label:
        return unusable(name, "it has no class")
    shape = region.get("shape_attributes") if isinstance(region, dict) else None
    if not isinstance(shape, dict):
        return unusable(name, "it has no shape", label)
    kind = shape.get("name")
    if not isinstance(kind, str):
        return unusable(name, "it has no kind of shape", label)
    decoders = {"polygon": _polygon, "rect": _rectangle, "circle": _circle, "ellipse": _ellipse}
    return drawn(name, label, kind, decoders, shape)


def _polygon(shape: Mapping[str, Any], height: int, width: int) -> Mask:
    xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
    if not (isinstance(xs, list) and isinstance(ys, list) and len(xs) == len(ys)):
        raise ValueError("its points are not pairs of numbers")
    return polygon_mask([list(pair) for pair in zip(xs, ys, strict=True)], height, width)


def _rectangle(shape: Mapping[str, Any], height: int, width: int) -> Mask:
    x, y, w, h = _numbers(shape, "x", "y", "width", "height")
    return polygon_mask(rectangle(x, y, x + w, y + h), height, width)


def _circle(shape: Mapping[str, Any], height: int, width: int) -> Mask:
    x, y, radius = _numbers(shape, "cx", "cy", "r")
    return ellipse_mask((x, y), (radius, radius), 0, height, width)


def _ellipse(shape: Mapping[str, Any], height: int, width: int) -> Mask:
    x, y, rx, ry = _numbers(shape, "cx", "cy", "rx", "ry")
    theta = shape.get("theta", 0)
    degrees = float(np.rad2deg(theta)) if isinstance(theta, int | float) else 0.0
    return ellipse_mask((x, y), (rx, ry), degrees, height, width)


def _numbers(shape: Mapping[str, Any], *keys: str) -> list[float]:
    values = [shape.get(key) for key in keys]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        raise ValueError(f"it lacks one of {', '.join(keys)}")
    return [float(value) for value in values if value is not None]
