"""COCO detection json, as COCO, CVAT, Roboflow, Label Studio and others write it."""

import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pix2seqd.data.annotations.records import (
    ONLY_BOX,
    Annotations,
    ImageFinder,
    Record,
    Shape,
    checked_taxonomy,
    local_name,
    lost,
    parse_color,
    parse_size,
    path_parts,
    unusable,
)
from pix2seqd.data.outlines import FARTHEST, decode_mask
from pix2seqd.files import InputError, is_file
from pix2seqd.panoptic.taxonomy import Category, distinct_color

MAX_ID = 2**31 - 1
MANY_CROWDS = 0.5
"""Share of the annotations that are marked as crowds, above which they are objects; COCO has 1 % of crowds."""


def is_detection(content: Any) -> bool:
    """Whether the content of a json file is COCO detection json."""
    return isinstance(content, dict) and {"images", "annotations"} <= content.keys() and not is_panoptic(content)


def is_panoptic(content: Any) -> bool:
    """Whether the content of a json file is COCO panoptic json."""
    annotations = content.get("annotations") if isinstance(content, dict) else None
    first = annotations[0] if isinstance(annotations, list) and annotations else None
    return isinstance(first, dict) and "segments_info" in first


def read_coco(path: Path, content: Any, images: Path | None = None) -> Annotations:
    """Read the content of a COCO detection json, with the lists `images`, `annotations` and `categories`.

    `images` is the folder of the images; None: that of the json, or another one near it that has the first images. A
    json that is broken or has bounding boxes only is an `InputError`.
    """
    entries, annotations, categories = (_entries(content, key, path) for key in ("images", "annotations", "categories"))
    if not categories:
        raise InputError(f"{path} has no categories; export it with them")
    notes: list[str] = []
    labels, kinds = _categories(categories, annotations, path, notes)
    masks = _masks_marked_as_crowds(annotations, notes)
    names = [_file_name(entry, f"{path}: image number {n}") for n, entry in enumerate(entries, start=1)]
    folder = images or near(path, names)
    if images is None and folder != path.parent:
        notes.append(f"the images are those in {folder}")
    ids = [_key(entry, "id", f"{path}: image number {n}") for n, entry in enumerate(entries, start=1)]
    if len(set(ids)) < len(ids):
        raise InputError(f"{path} has two images with one name or id; rename one")
    shapes: dict[int | str, list[Shape]] = {key: [] for key in ids}
    by_text = _by_text(ids, names)
    unlisted = []
    for number, entry in enumerate(annotations, start=1):
        image = _key(entry, "image_id", f"{path}: annotation number {number}")
        name = f"annotation {_shown(entry.get('id', f'number {number}'))}"
        if image in by_text:
            shapes[by_text[image]].append(_shape(entry, name, labels, _is_crowd(entry) and number not in masks))
        else:
            unlisted.append(f"{name}: image {_shown(entry['image_id'])} is not in images")
    paths = find_images(names, ImageFinder(folder), notes)
    records = [
        Record(file_name, shapes[key], parse_size(entry.get("width"), entry.get("height")), {**entry, "id": key})
        for file_name, key, entry in zip(paths, ids, entries, strict=True)
    ]
    return Annotations(path, folder, checked_taxonomy(kinds, path), records, unlisted, notes)


def _entries(content: Any, key: str, path: Path) -> list[Mapping[str, Any]]:
    entries = content.get(key) if isinstance(content, dict) else None
    if key == "annotations" and isinstance(entries, dict):  # by their id, as LIVECell's
        entries = list(entries.values())
    if not isinstance(entries, list):
        raise InputError(f"{path} is not COCO detection json: it has no list {key!r}; see docs/datasets.md")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            raise InputError(f"{path} is not COCO detection json: {key} number {number} has no keys; correct it")
    return entries


def _plain(value: Any) -> int | str | None:
    """An id, as a number where its text is one, so that 7, 7.0 and "7" are the same; None for what is no id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        return None
    text = value.strip() if isinstance(value, str) else ""
    return int(text) if text.isdecimal() and len(text) < 20 else value


def _key(entry: Mapping[str, Any], key: str, where: str) -> int | str:
    if (plain := _plain(entry.get(key))) is None:
        raise InputError(f"{where} has no {key} that is a number or text; see docs/datasets.md")
    return plain


def _by_text(keys: Sequence[int | str], texts: Sequence[str]) -> dict[int | str, int | str]:
    """Each key, and each text that belongs to one key and is none itself → the key."""
    counts = Counter(texts)
    named = {text: key for key, text in zip(keys, texts, strict=True) if counts[text] == 1}
    return named | {key: key for key in keys}


def _file_name(entry: Mapping[str, Any], where: str) -> str:
    """The key `file_name`, which LVIS leaves to the address of the image."""
    value = entry.get("file_name") or entry.get("coco_url")
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise InputError(f"{where} has no file_name; see docs/datasets.md")
    return value


def _shown(value: Any) -> str:
    """A value of the json, for messages."""
    return value if isinstance(value, str) else reprlib.repr(value)


def _categories(
    entries: list[Mapping[str, Any]], annotations: list[Mapping[str, Any]], path: Path, notes: list[str]
) -> tuple[dict[int | str, str], list[Category]]:
    """Id in the json, or a name that is none → name of the category, and the categories of the result."""
    wheres = [f"{path}: category number {number}" for number in range(1, len(entries) + 1)]
    keys = [_key(entry, "id", where) for entry, where in zip(entries, wheres, strict=True)]
    names = [str(entry.get("name") or "").strip() for entry in entries]
    if repeated := [key for key, count in Counter(keys).items() if count > 1]:
        raise InputError(f"{path}: two categories have the id {repeated[0]}; make the ids unique")
    if "" in names:
        raise InputError(f"{wheres[names.index('')]} has no name; give it one")
    used = {_plain(annotation.get("category_id")) for annotation in annotations}
    # Roboflow puts a category for the whole project first, which no annotation has.
    root = [
        key
        for key, entry in zip(keys, entries, strict=True)
        if entry.get("supercategory") == "none" and key not in used and len(keys) > 1
    ]
    if len(root) == 1 and root[0] == keys[0]:
        notes.append(f"category {root[0]}, {names[0]}, is left out: Roboflow's row for the project, unused")
        entries, keys, names = entries[1:], keys[1:], names[1:]
    if any(not isinstance(key, int) or key > MAX_ID or key < 0 for key in keys):
        ids = list(range(1, len(keys) + 1))
        notes.append(f"some ids of categories are no numbers from 1 to {MAX_ID}; they become 1 to {len(keys)}")
    elif 0 in keys:
        ids = [int(key) + 1 for key in keys]
        notes.append("category id 0 means void; in the result, all category ids are 1 higher")
    else:
        ids = [int(key) for key in keys]
    colors = [parse_color(entry.get("color")) for entry in entries]
    given = [entry.get("color") not in (None, "", "null", [], {}) for entry in entries]
    if odd := sum(color is None and has for color, has in zip(colors, given, strict=True)):
        notes.append(f"the colours of {odd} categories are not understood; they get others")
    things = [bool(entry.get("isthing", True)) for entry in entries]
    kinds = [
        Category(ids[i], names[i], things[i], colors[i] or distinct_color(i))  # one line each, in the order of the json
        for i in range(len(entries))
    ]
    result = dict(zip(keys, names, strict=True))
    by_text = _by_text(keys, names)
    if named := len([a for a in annotations if (k := _plain(a.get("category_id"))) in by_text and k not in result]):
        notes.append(f"{named} annotations give the name of their category instead of its id")
    return {text: result[key] for text, key in by_text.items()}, kinds


def _is_crowd(entry: Mapping[str, Any]) -> bool:
    return entry.get("iscrowd") in (1, True, "1")


def _masks_marked_as_crowds(annotations: list[Mapping[str, Any]], notes: list[str]) -> set[int]:
    """Which annotations, counted from 1, are marked as crowds but are objects.

    CVAT marks each mask that is drawn with a brush, and other programs each that is a run-length code. Training would
    leave them out.
    """
    crowds = {number for number, entry in enumerate(annotations, start=1) if _is_crowd(entry)}
    # CVAT and Datumaro write "attributes", COCO does not.
    found = {number for number in crowds if "attributes" in annotations[number - 1]}
    if len(crowds) > MANY_CROWDS * len(annotations):
        found = crowds
    if found:
        notes.append(
            f"{len(found):,} of {len(annotations):,} annotations are marked as crowds (iscrowd), as CVAT marks "
            "masks of its brush; they are taken as objects"
        )
    return found


def _shape(entry: Mapping[str, Any], name: str, labels: Mapping[int | str, str], crowd: bool) -> Shape:
    segmentation = entry.get("segmentation")
    if not segmentation and entry.get("bbox"):
        return lost(name, ONLY_BOX)
    if segmentation is None:
        what = next((key for key in ("keypoints", "caption") if key in entry), "no")
        return lost(name, f"it has {what} instead of an outline" if what != "no" else "it has no outline")
    given = entry.get("category_id")
    plain = _plain(given)
    label = None if plain is None else labels.get(plain)
    if label is None:
        return unusable(name, f"its category {_shown(given)} is not in categories")
    polygons = _polygons(segmentation)
    if _are_shares(polygons):
        return lost(name, "its points are shares of width and height; give pixels")
    box = entry.get("bbox")
    valid = isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) and abs(v) <= FARTHEST for v in box)
    return Shape(name, label, partial(decode_mask, polygons), crowd, bbox=tuple(box) if box and valid else None)


def _are_shares(polygons: Any) -> bool:
    """Whether all coordinates of polygons are from 0 to 1, which is one pixel, and some are between."""
    lists = polygons if isinstance(polygons, list) else []
    values = [value for points in lists if isinstance(points, list) for value in points if type(value) in (int, float)]
    return len(values) >= 6 and all(0 <= value <= 1 for value in values) and any(0 < value < 1 for value in values)


def _polygons(segmentation: Any) -> Any:
    """Polygons as COCO writes them, from one that is not in a list, or a list of points."""
    if not isinstance(segmentation, list) or not segmentation:
        return segmentation
    if all(isinstance(value, int | float) for value in segmentation):
        return [segmentation]
    if all(isinstance(point, list) and len(point) == 2 for point in segmentation) and len(segmentation) > 2:
        return [[value for point in segmentation for value in point]]
    return segmentation


def near(path: Path, names: list[str]) -> Path:
    """The folder of the images: that of the json, unless it lacks the first images and one near it has them."""
    home = path.parent
    split = path.stem.removeprefix("instances_")
    places = [home, home / "images", home / split, home.parent / "images" / split, home.parent / split]
    places += [home.parent / "images", home.parent / "images" / home.name, home.parent]
    first = [local_name(name).lstrip("/") for name in names[:5]]
    return next((place for place in places if any(_lies_in(place, name) for name in first)), home)


def _lies_in(folder: Path, name: str) -> bool:
    parts = path_parts(name)
    return any(is_file(folder / "/".join(parts[start:])) for start in range(len(parts)))


def find_images(names: list[str], finder: ImageFinder, notes: list[str]) -> list[str]:
    """The path of each image below the folder; the name itself, with "/" between folders, if it is not found."""
    plain = [local_name(name) for name in names]
    found = [finder.find(name) for name in plain]
    renamed: dict[int, str] = {}
    for number, (name, there) in enumerate(zip(plain, found, strict=True)):
        if there is None and (original := finder.original(name)) is not None:
            renamed[number] = original
    times, taken = Counter(renamed.values()), set(found)
    for number, original in renamed.items():
        if original not in taken and times[original] == 1:
            found[number] = original
    if count := sum(there is not None and there != name for there, name in zip(found, plain, strict=True)):
        example = next((n, t) for n, t in zip(names, found, strict=True) if t not in (None, n.replace("\\", "/")))
        notes.append(f"{count} images are found under another name or folder, as {example[0]} at {example[1]}")
    return [there or name.lstrip("/").rpartition(":/")[2] for there, name in zip(found, plain, strict=True)]
