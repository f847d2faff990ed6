"""VGG Image Annotator (VIA), versions 1 and 2: one json with the regions of all images."""

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
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
    unusable,
)
from pix2seqd.data.outlines import Mask, ellipse_mask, polygon_mask
from pix2seqd.files import InputError


def is_via(content: Any) -> bool:
    """Whether the content of a json file is VIA's: a project, or its annotations."""
    entries = list(_entries(content))
    return bool(entries) and all(
        isinstance(entry, dict) and isinstance(entry.get("filename"), str) and "regions" in entry for entry in entries
    )


def _entries(content: Any) -> Iterator[Any]:
    content = content.get("_via_img_metadata", content) if isinstance(content, dict) else {}
    yield from content.values() if isinstance(content, dict) else ()


def read_via(path: Path, content: Any, images: Path | None = None) -> Annotations:
    """Read the json of VIA.

    The class is the region's only attribute; without attributes, all are `object`.

    Args:
        path: the file.
        content: what it holds.
        images: folder of the images; None: that of the json.

    Raises:
        InputError: regions have several attributes; or an error of `Annotations`.
    """
    folder = images or path.parent
    entries = list(_entries(content))
    regions = [_regions(entry) for entry in entries]
    attributes = Counter(key for listed in regions for region in listed for key in _attributes(region))
    if len(attributes) > 1:
        raise InputError(f"{path}: regions have several attributes ({', '.join(attributes)}); keep that of the class")
    key = next(iter(attributes), "")
    labels = sorted({_label(region, key) for listed in regions for region in listed} - {""}) or ["object"]
    numbers = {label: number for number, label in enumerate(labels, start=1)}
    finder = ImageFinder(folder)
    records = []
    for entry, listed in zip(entries, regions, strict=True):
        name = entry["filename"]
        shapes = [_shape(f"region {n}", region, _label(region, key), numbers) for n, region in enumerate(listed, 1)]
        records.append(Record(finder.find(name) or Path(name.replace("\\", "/")).name, shapes))
    return Annotations(path, folder, make_taxonomy({i: name for name, i in numbers.items()}, path), records)


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
        value = next((name for name, chosen in value.items() if chosen), "")
    return str(value).strip()


def _shape(name: str, region: Any, label: str, numbers: Mapping[str, int]) -> Shape:
    if label not in numbers:
        return Shape(name, 0, unusable("it has no class"))
    shape = region.get("shape_attributes") if isinstance(region, dict) else None
    if not isinstance(shape, dict):
        return Shape(name, 0, unusable("it has no shape"))
    kind = shape.get("name")
    if not isinstance(kind, str):
        return Shape(name, 0, unusable("it has no kind of shape"))
    if kind in ("point", "line", "polyline"):
        return lost(name, f"it is a {kind}, which has no area")
    return Shape(name, numbers[label], partial(_mask, kind, shape))


def _mask(kind: str, shape: Mapping[str, Any], height: int, width: int) -> Mask:
    if kind == "polygon":
        xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
        if not (isinstance(xs, list) and isinstance(ys, list) and len(xs) == len(ys)):
            raise ValueError("its points are no pairs of numbers")
        return polygon_mask([list(pair) for pair in zip(xs, ys, strict=True)], height, width)
    if kind == "rect":
        x, y, w, h = _numbers(shape, "x", "y", "width", "height")
        return polygon_mask([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], height, width)
    if kind == "circle":
        x, y, radius = _numbers(shape, "cx", "cy", "r")
        return ellipse_mask((x, y), (radius, radius), 0, height, width)
    if kind == "ellipse":
        x, y, rx, ry = _numbers(shape, "cx", "cy", "rx", "ry")
        theta = shape.get("theta", 0)
        degrees = float(np.rad2deg(theta)) if isinstance(theta, int | float) else 0.0
        return ellipse_mask((x, y), (rx, ry), degrees, height, width)
    raise ValueError(f"its kind {kind} is not known")


def _numbers(shape: Mapping[str, Any], *keys: str) -> list[float]:
    values = [shape.get(key) for key in keys]
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in values):
        raise ValueError(f"it lacks one of {', '.join(keys)}")
    return [float(value) for value in values if value is not None]
