"""Labelme: a json an image, with polygons, rectangles, circles and masks. Also X-AnyLabeling and AnyLabeling."""

import base64
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pix2seqd.data.annotations.records import (
    Annotations,
    ImageFinder,
    Record,
    Shape,
    by_split,
    drawn,
    join_groups,
    labels_of,
    make_taxonomy,
    parse_size,
    read_jsons,
    unusable,
)
from pix2seqd.data.outlines import Mask, ellipse_mask, polygon_mask, rectangle, stored_mask
from pix2seqd.files import InputError, is_file, read_text
from pix2seqd.images.load import IMAGE_SUFFIXES

IGNORED = ("__ignore__", "_background_")
"""Labels that are no object, by Labelme's convention."""


def is_labelme(content: Any) -> bool:
    """Whether the content of a json file is Labelme's."""
    return (
        isinstance(content, dict)
        and isinstance(content.get("shapes"), list)
        and isinstance(content.get("imagePath"), str)
    )


def read_labelme(path: Path, images: Path | None = None) -> dict[str, Annotations]:
    """Read a folder of Labelme's files, with those in folders below it, or one file; an `InputError` if one is damaged.

    The classes are those of `labels.txt` in the folder, otherwise all labels, sorted. `images` is the folder of the
    images, if they lie neither where the files say nor beside them. Returns split → annotations, if all files lie in
    folders that are called train, val or similar; otherwise the split is "".
    """
    home = path if path.is_dir() else path.parent
    contents, others = read_jsons(path, home, is_labelme)
    finder = ImageFinder(images or home)
    records = [(file.relative_to(home).parts[0], _record(file, content, finder)) for file, content in contents.items()]
    labels = labels_of(record for _, record in records)
    listed = read_text(home / "labels.txt").splitlines() if (home / "labels.txt").is_file() else labels
    names = [name for name in dict.fromkeys(line.strip() for line in listed) if name and name not in IGNORED]
    if unknown := sorted(set(labels) - set(names)):
        raise InputError(f"{home / 'labels.txt'} lacks the label {unknown[0]}; add it")
    if not names:
        raise InputError(f"{path} has no labelled object; label some")
    notes = [f"{others} json files are not Labelme's; skipped"] if others else []
    return by_split(records, path, finder.folder, make_taxonomy(names, path), notes)


def _label(shape: Any) -> str:
    return str(shape.get("label") or "").strip() if isinstance(shape, dict) else ""


def _record(file: Path, content: Mapping[str, Any], finder: ImageFinder) -> Record:
    parts = [(_shape(f"shape {n}", shape), _group(shape)) for n, shape in enumerate(content["shapes"], 1)]
    shapes = list(join_groups(part for part in parts if part[0] is not None))  # pyright: ignore[reportArgumentType]
    size = parse_size(content.get("imageWidth"), content.get("imageHeight"))
    name = content["imagePath"].replace("\\", "/")
    found = _image(file, name, finder)
    if found is None and isinstance(data := content.get("imageData"), str) and data:
        inside = file.parent.relative_to(finder.folder).as_posix() if file.is_relative_to(finder.folder) else "."
        suffix = PurePosixPath(name).suffix
        own = file.stem + (suffix if suffix.lower() in IMAGE_SUFFIXES else ".png")
        return Record((PurePosixPath(inside) / own).as_posix(), shapes, size, content=_decoded(data, file))
    return Record(found or PurePosixPath(name).name or f"{file.stem}.jpg", shapes, size)


def _image(file: Path, name: str, finder: ImageFinder) -> str | None:
    """The image of a file, as a path below the finder's folder."""
    there = Path(os.path.normpath(file.parent / name))
    if name and is_file(there) and there.is_relative_to(finder.folder):
        return there.relative_to(finder.folder).as_posix()
    beside = finder.beside(file.stem, file.parent) if file.parent.is_relative_to(finder.folder) else None
    return beside or (finder.find(name) if name else None) or finder.beside(file.stem, finder.folder)


def _decoded(data: str, file: Path) -> bytes:
    try:
        return base64.b64decode(data.partition(",")[2] if data.startswith("data:") else data)
    except ValueError as error:
        raise InputError(f"{file} holds an image (imageData) that is damaged; save it again with Labelme") from error


def _group(shape: Any) -> Any:
    group = shape.get("group_id") if isinstance(shape, dict) else None
    return group if isinstance(group, int | str) and group != "" else None


def _shape(name: str, shape: Any) -> Shape | None:
    """The shape; None for what is no object."""
    label = _label(shape)
    if label in IGNORED:
        return None
    if not label:
        return unusable(name, "it has no label")
    kind, points = str(shape.get("shape_type") or "polygon"), shape.get("points")
    decoders = {"polygon": _polygon, "rotation": _polygon, "rectangle": _rectangle, "circle": _circle, "mask": _mask}
    return drawn(f"{name} ({label})", label, kind, decoders, points, shape.get("mask"))


def _corners(points: Any, count: int) -> np.ndarray:
    try:
        corners = np.asarray(points, float)
    except (TypeError, ValueError, OverflowError):
        corners = np.empty(0)
    if corners.shape != (count, 2) or not np.isfinite(corners).all():
        raise ValueError(f"it does not have {count} points")
    return corners


def _polygon(points: Any, _: Any, height: int, width: int) -> Mask:
    return polygon_mask(points, height, width)


def _rectangle(points: Any, _: Any, height: int, width: int) -> Mask:
    if isinstance(points, list) and len(points) == 4:  # X-AnyLabeling writes all corners
        return polygon_mask(points, height, width)
    return polygon_mask(rectangle(*_corners(points, 2).ravel().tolist()), height, width)


def _circle(points: Any, _: Any, height: int, width: int) -> Mask:
    center, edge = _corners(points, 2)
    radius = float(np.hypot(*(edge - center)))
    return ellipse_mask((center[0], center[1]), (radius, radius), 0, height, width)


def _mask(points: Any, data: Any, height: int, width: int) -> Mask:
    """A mask that is stored as a PNG of the box from the first point to the second, both inside."""
    left, top = np.rint(_corners(points, 2).min(axis=0)).astype(int)
    if not isinstance(data, str):
        raise ValueError("it has no mask")
    try:
        png = base64.b64decode(data)
    except ValueError as error:
        raise ValueError("its mask is no PNG") from error
    return stored_mask(png, int(left), int(top), height, width)
