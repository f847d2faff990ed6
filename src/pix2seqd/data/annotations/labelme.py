"""Labelme: a json an image, with polygons, rectangles, circles and masks. Also X-AnyLabeling and AnyLabeling."""

import base64
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pix2seqd.data.annotations.records import (
    SPLIT_NAMES,
    Annotations,
    ImageFinder,
    Record,
    Shape,
    join_groups,
    lost,
    make_taxonomy,
    unusable,
    visible,
)
from pix2seqd.data.outlines import Mask, ellipse_mask, polygon_mask, stored_mask
from pix2seqd.files import InputError, is_file, read_json, read_text
from pix2seqd.images.load import IMAGE_SUFFIXES

WITHOUT_AREA = ("point", "points", "line", "linestrip")
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
    """Read a folder of Labelme's files, with those in folders below it, or one file.

    The classes are those of `labels.txt` in the folder, otherwise all labels, sorted.

    Args:
        path: the folder or file.
        images: folder of the images, if they lie neither where the files say nor beside them.

    Returns:
        Split → annotations, if all files lie in folders that are called train, val or similar; otherwise "".

    Raises:
        InputError: a file is damaged; or an error of `Annotations`.
    """
    home = path if path.is_dir() else path.parent
    files = visible(home, "**/*.json") if path.is_dir() else [path]
    contents = {file: content for file in files if is_labelme(content := read_json(file))}
    labels = {_label(shape) for content in contents.values() for shape in content["shapes"]} - {""}
    listed = read_text(home / "labels.txt").splitlines() if (home / "labels.txt").is_file() else sorted(labels)
    names = [name for name in dict.fromkeys(line.strip() for line in listed) if name and name not in IGNORED]
    if unknown := sorted(labels - {*names, *IGNORED}):
        raise InputError(f"{home / 'labels.txt'} lacks the label {unknown[0]}; add it")
    if not names:
        raise InputError(f"{path} has no labelled object; label some")
    notes = (
        [] if len(contents) == len(files) else [f"{len(files) - len(contents)} json files are not Labelme's; skipped"]
    )
    numbers = {name: number for number, name in enumerate(names, start=1)}
    finder = ImageFinder(images or home)
    taxonomy = make_taxonomy(dict(enumerate(names, 1)), path)
    tops = {file: file.relative_to(home).parts[0] for file in contents}
    grouped = all(SPLIT_NAMES.fullmatch(top) for top in tops.values())
    records: dict[str, list[Record]] = {}
    for file, content in contents.items():
        record = _record(file, content, numbers, finder, images or home)
        records.setdefault(tops[file] if grouped else "", []).append(record)
    return {split: Annotations(path, images or home, taxonomy, r, notes=notes) for split, r in records.items()}


def _label(shape: Any) -> str:
    return str(shape.get("label") or "").strip() if isinstance(shape, dict) else ""


def _record(
    file: Path, content: Mapping[str, Any], numbers: Mapping[str, int], finder: ImageFinder, home: Path
) -> Record:
    parts = [(_shape(f"shape {n}", shape, numbers), _group(shape)) for n, shape in enumerate(content["shapes"], 1)]
    shapes = list(join_groups(part for part in parts if part[0] is not None))  # pyright: ignore[reportArgumentType]
    size = content.get("imageWidth"), content.get("imageHeight")
    size = (size[0], size[1]) if all(isinstance(side, int) and side > 0 for side in size) else None
    name = content["imagePath"].replace("\\", "/")
    found = _image(file, name, finder, home)
    if found is None and isinstance(data := content.get("imageData"), str) and data:
        inside = file.parent.relative_to(home).as_posix() if file.is_relative_to(home) else "."
        suffix = PurePosixPath(name).suffix
        own = file.stem + (suffix if suffix.lower() in IMAGE_SUFFIXES else ".png")
        return Record((PurePosixPath(inside) / own).as_posix(), shapes, size, content=_decoded(data, file))  # pyright: ignore[reportArgumentType]
    return Record(found or PurePosixPath(name).name or f"{file.stem}.jpg", shapes, size)  # pyright: ignore[reportArgumentType]


def _image(file: Path, name: str, finder: ImageFinder, home: Path) -> str | None:
    """The image of a file, as a path below the finder's folder."""
    there = Path(os.path.normpath(file.parent / name))
    if name and is_file(there) and there.is_relative_to(home):
        return there.relative_to(home).as_posix()
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


def _shape(name: str, shape: Any, numbers: Mapping[str, int]) -> Shape | None:
    """The shape; None for what is no object."""
    label = _label(shape)
    if label in IGNORED:
        return None
    if label not in numbers:
        return Shape(name, 0, unusable("it has no label"))
    name = f"{name} ({label})"
    kind, points = str(shape.get("shape_type") or "polygon"), shape.get("points")
    if kind in WITHOUT_AREA:
        return lost(name, f"it is a {kind}, which has no area")
    decoders = {"polygon": _polygon, "rotation": _polygon, "rectangle": _rectangle, "circle": _circle, "mask": _mask}
    if kind not in decoders:
        return lost(name, f"its kind {kind} is not known; draw it as a polygon")
    return Shape(name, numbers[label], partial(decoders[kind], points, shape.get("mask")))


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
    (x0, y0), (x1, y1) = _corners(points, 2).tolist()
    return polygon_mask([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], height, width)


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
