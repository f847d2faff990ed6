"""Label Studio: a json with the polygons, masks of a brush, rectangles and ellipses of all tasks."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pix2seqd.data.annotations.coco_json import find_images, near
from pix2seqd.data.annotations.records import (
    Annotations,
    ImageFinder,
    Record,
    Shape,
    drawn,
    labels_of,
    local_name,
    make_taxonomy,
    parse_size,
    unusable,
)
from pix2seqd.data.outlines import FARTHEST, MAX_RUNS, Mask, ellipse_mask, polygon_mask, rectangle, turned
from pix2seqd.files import InputError, is_file
from pix2seqd.images.load import IMAGE_SUFFIXES

KINDS = ("polygon", "brush", "rectangle", "ellipse", "keypoint", "bitmask", "vector")
"""Results of an annotation that are shapes, with or without `labels` behind; the last three are not read."""
OPAQUE = 127
"""Alpha above which a pixel is of a brush's mask, whose edges are soft."""


def is_label_studio(content: Any) -> bool:
    """Whether the content of a json file is Label Studio's."""
    first = content[0] if isinstance(content, list) and content else None
    return (
        isinstance(first, dict) and isinstance(first.get("data"), dict) and isinstance(first.get("annotations"), list)
    )


def read_label_studio(path: Path, content: Any, images: Path | None = None) -> dict[str, Annotations]:
    """Read the tasks; `images` is the folder of their images, None: near the file.

    Of several annotations of a task, the one marked as ground truth is taken, otherwise the first. Tasks without one
    are left out. A file without labelled object or without the names of its images is an `InputError`.
    """
    several = unlabelled = 0
    names: list[str] = []
    results: list[list[dict[str, Any]]] = []
    for number, task in enumerate(content, start=1):
        found = _annotations(task)
        several, unlabelled = several + (len(found) > 1), unlabelled + (not found)
        if not found:
            continue
        data = task["data"] if isinstance(task.get("data"), dict) else {}
        name = data.get("image") or _image(data)
        if not isinstance(name, str) or "\0" in name:
            raise InputError(f"{path}: task number {number} names no image; export it again")
        names.append(name.partition("?d=")[2] or name)  # of a file of the server's own disk
        results.append(found[0])
    notes = [f"{several} tasks have several annotations; of these, one is taken"] if several else []
    notes += [f"{unlabelled} tasks have no annotation; they are left out"] if unlabelled else []
    folder = images or near(path, names)
    finder = ImageFinder(folder)
    paths = find_images(names, finder, notes)
    own = [name if is_file(folder / name) else finder.original(name) or name for name in paths]
    if twice := next((name for name, count in Counter(own).items() if count > 1), None):
        tasks = " and ".join(name for name, image in zip(names, own, strict=True) if image == twice)
        raise InputError(f"{path} has several tasks of the image {twice}, {tasks}; delete all but one in Label Studio")
    records = [
        Record(name, [_shape(f"shape {n}", *shape) for n, shape in enumerate(_labelled(found), 1)], _size(found))
        for name, found in zip(paths, results, strict=True)
    ]
    if not (labels := labels_of(records)):
        raise InputError(f"{path} has no labelled object; label some in Label Studio")
    return {"": Annotations(path, folder, make_taxonomy(labels, path), records, notes=notes)}


def _image(data: Mapping[str, Any]) -> str | None:
    """The value that names the image of a task: one that ends as images do, otherwise an address."""
    names = [value for value in data.values() if isinstance(value, str) and "/" in value]
    return next(
        (n for n in names if PurePosixPath(local_name(n)).suffix.lower() in IMAGE_SUFFIXES), next(iter(names), None)
    )


def _annotations(task: Any) -> list[list[dict[str, Any]]]:
    """The results of each annotation of a task, the one to take first."""
    given = task.get("annotations") if isinstance(task, dict) else None
    valid = [a for a in given if isinstance(a, dict)] if isinstance(given, list) else []
    valid = [a for a in valid if not a.get("was_cancelled") and isinstance(a.get("result"), list)]
    valid.sort(key=lambda a: not a.get("ground_truth"))
    return [[result for result in a["result"] if isinstance(result, dict)] for a in valid]


def _labelled(results: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str, str]]:
    """The shapes among results, with the kind and the label of each. A label may be a result of its own, of one id."""
    found: list[tuple[dict[str, Any], str, str]] = []
    own = {str(r.get("id")): label for r in results if r.get("type") == "labels" and (label := _label(r, "labels"))}
    for result in results:
        given = str(result.get("type"))
        kind = given.removesuffix("labels")
        if kind in KINDS:
            found.append((result, kind, _label(result, given) or own.get(str(result.get("id")), "")))
    return found


def _label(result: Mapping[str, Any], key: str) -> str:
    value = result.get("value")
    given = value.get(key) if isinstance(value, dict) else None
    return ", ".join(map(str, given)).strip() if isinstance(given, list) else ""


def _shape(name: str, result: Mapping[str, Any], kind: str, label: str) -> Shape:
    if not label:
        return unusable(name, "it has no label")
    if result.get("image_rotation"):
        return unusable(name, "its image is turned in Label Studio, which is not followed", label)
    decoders = {"polygon": _polygon, "brush": _brush, "rectangle": _rectangle, "ellipse": _ellipse}
    kind = "point" if kind == "keypoint" else kind
    return drawn(f"{name} ({label})", label, kind, decoders, result["value"])


def _numbers(value: Mapping[str, Any], *keys: str) -> list[float]:
    numbers = [value.get(key, 0) if key == "rotation" else value.get(key) for key in keys]
    valid = [float(n) for n in numbers if isinstance(n, int | float) and not isinstance(n, bool) and abs(n) <= FARTHEST]
    if len(valid) < len(keys):
        raise ValueError(f"it lacks one of {', '.join(keys)}")
    return valid


def _polygon(value: Mapping[str, Any], height: int, width: int) -> Mask:
    try:
        points = np.asarray(value.get("points"), float).reshape(-1, 2) * (width / 100, height / 100)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("its points are not pairs of numbers") from error
    return polygon_mask(points.tolist(), height, width)


def _rectangle(value: Mapping[str, Any], height: int, width: int) -> Mask:
    """Turned clockwise around its left upper corner."""
    x, y, w, h, degrees = _numbers(value, "x", "y", "width", "height", "rotation")
    corners = np.array(rectangle(0, 0, w, h)) * (width / 100, height / 100)
    corners = turned(corners, degrees) + np.array([x * width / 100, y * height / 100])
    return polygon_mask(corners.tolist(), height, width)


def _ellipse(value: Mapping[str, Any], height: int, width: int) -> Mask:
    x, y, rx, ry, degrees = _numbers(value, "x", "y", "radiusX", "radiusY", "rotation")
    radii = rx * width / 100, ry * height / 100
    return ellipse_mask((x * width / 100, y * height / 100), radii, degrees, height, width)


def _brush(value: Mapping[str, Any], height: int, width: int) -> Mask:
    """The code of the channels of an RGBA image, bit by bit: runs of one value, or that many values; alpha is the mask.

    It begins with the number of values (32 bits), the bits of each (5), and four lengths of lengths (4 each).
    """
    code = value.get("rle")
    if not isinstance(code, list) or len(code) > MAX_RUNS or not all(type(v) is int and 0 <= v < 256 for v in code):
        raise ValueError("its mask is not a list of bytes")
    bits = "".join(f"{byte:08b}" for byte in code)
    place, filled = 0, 0
    values = np.zeros(height * width * 4, np.uint8)

    def read(count: int) -> int:
        nonlocal place
        place += count
        if place > len(bits):
            raise ValueError("its mask is cut short")
        return int(bits[place - count : place], 2)

    if read(32) != values.size or read(5) != 7:
        raise ValueError("its mask is not of the size of its image")
    sizes = [read(4) + 1 for _ in range(4)]
    while filled < values.size:
        same = read(1)
        end = filled + 1 + read(sizes[read(2)])
        if end > values.size:
            raise ValueError("its mask is larger than its image")
        values[filled:end] = [read(8) for _ in range(1 if same else end - filled)]
        filled = end
    return Mask.of(values[3::4].reshape(height, width) > OPAQUE)


def _size(results: list[dict[str, Any]]) -> tuple[int, int] | None:
    return next(filter(None, (parse_size(r.get("original_width"), r.get("original_height")) for r in results)), None)
