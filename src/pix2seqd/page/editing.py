"""Correcting a segmentation by hand: pure functions from `Panoptic` to `Panoptic`, and saving what came out.

Every function keeps the ids, categories and crowd marks of the segments that it is not about.
"""

import hashlib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from pix2seqd.files import InputError, read_json, write_atomically, write_json
from pix2seqd.panoptic.panoptic import Panoptic, Segment
from pix2seqd.panoptic.taxonomy import VOID, Taxonomy


def stroke(points: Sequence[tuple[float, float]], radius: float, shape: tuple[int, int]) -> np.ndarray:
    """The pixels under a brush.

    Args:
        points: x, y of the brush's centre along its way, in pixels from the picture's upper left corner.
        radius: of the brush, pixels, 0 or more; the way is never thinner than a pixel.
        shape: height and width of the picture.

    Returns:
        bool `[h, w]`.
    """
    canvas = Image.new("1", (shape[1], shape[0]))
    draw = ImageDraw.Draw(canvas)
    way = [(math.floor(x), math.floor(y)) for x, y in points]
    draw.point(way, fill=1)
    draw.line(way, fill=1)
    centre = np.array(canvas)
    if radius < 1 or not centre.any():
        return centre
    return np.asarray(ndimage.distance_transform_edt(~centre)) <= radius


def paint(panoptic: Panoptic, where: np.ndarray, segment_id: int) -> Panoptic:
    """Give the pixels of `where`, bool `[h, w]`, to a segment."""
    _segment(panoptic, segment_id)
    return _changed(panoptic, np.where(where, segment_id, panoptic.segmentation))


def add(panoptic: Panoptic, where: np.ndarray, category_id: int) -> tuple[Panoptic, int]:
    """Make a segment of the pixels of `where`, bool `[h, w]`; stuff joins the segment of its category.

    Returns:
        The new segmentation, and the id that the pixels have in it.
    """
    segment_id = _home(panoptic, category_id) or _free_ids(panoptic, 1)[0]
    segmentation = np.where(where, segment_id, panoptic.segmentation)
    return _changed(panoptic, segmentation, {segment_id: _class_of(panoptic, category_id)}), segment_id


def erase(panoptic: Panoptic, where: np.ndarray) -> Panoptic:
    """Turn the pixels of `where`, bool `[h, w]`, to void."""
    return _changed(panoptic, np.where(where, VOID, panoptic.segmentation))


def remove(panoptic: Panoptic, ids: Iterable[int]) -> Panoptic:
    """Turn whole segments to void."""
    return erase(panoptic, np.isin(panoptic.segmentation, list(ids)))


def merge(panoptic: Panoptic, ids: Iterable[int]) -> tuple[Panoptic, int]:
    """Make one segment of several; it has the id and the category of the largest.

    Returns:
        The new segmentation, and that id.

    Raises:
        InputError: fewer than two segments, or no such segment.
    """
    segments = [_segment(panoptic, i) for i in ids]
    if len(segments) < 2:
        raise InputError("select two or more segments to merge")
    largest = max(segments, key=lambda segment: segment.area).id
    where = np.isin(panoptic.segmentation, [segment.id for segment in segments])
    return _changed(panoptic, np.where(where, largest, panoptic.segmentation)), largest


def split(panoptic: Panoptic, segment_id: int, cut: np.ndarray | None = None) -> tuple[Panoptic, list[int]]:
    """Make a segment of each connected part of a thing.

    Args:
        panoptic: what to change.
        segment_id: of a thing.
        cut: bool `[h, w]`, pixels that separate; they go to the nearest part.

    Returns:
        The new segmentation, and the ids of the parts, the largest (which keeps the id) first.

    Raises:
        InputError: no such segment, stuff, or it stays in one part.
    """
    if not _segment(panoptic, segment_id).isthing:
        raise InputError("stuff has one segment in a picture, whatever its parts; change its class first")
    inside = panoptic.segmentation == segment_id
    apart = inside if cut is None else inside & ~_tight(cut)
    parts, count = cast(tuple[np.ndarray, int], ndimage.label(apart, np.ones((3, 3))))
    if count < 2:
        raise InputError(f"segment {segment_id} is one piece; draw a line right across it with Cut")
    if cut is not None:
        nearest = np.asarray(ndimage.distance_transform_edt(parts == 0, return_distances=False, return_indices=True))
        parts = np.where(inside, parts[tuple(nearest)], 0)
    order = np.argsort(-np.bincount(parts[inside])[1:], kind="stable") + 1
    ids = [segment_id, *_free_ids(panoptic, count - 1)]
    table = np.zeros(count + 1, int)
    table[order] = ids
    kind = _classes(panoptic)[segment_id]
    return _changed(panoptic, np.where(inside, table[parts], panoptic.segmentation), dict.fromkeys(ids, kind)), ids


def relabel(panoptic: Panoptic, segment_id: int, category_id: int) -> tuple[Panoptic, int]:
    """Give a segment another category; stuff joins the segment of its category.

    Returns:
        The new segmentation, and the id that the segment's pixels have in it.
    """
    _segment(panoptic, segment_id)
    home = _home(panoptic, category_id) or segment_id
    segmentation = np.where(panoptic.segmentation == segment_id, home, panoptic.segmentation)
    return _changed(panoptic, segmentation, {home: _class_of(panoptic, category_id)}), home


def only(panoptic: Panoptic, ids: Iterable[int]) -> Panoptic:
    """Some segments; everything else is void."""
    return erase(panoptic, ~np.isin(panoptic.segmentation, list(ids)))


def append(folder: Path, name: str, image: Image.Image, panoptic: Panoptic) -> int:
    """Add a picture and its segmentation to a data set in COCO panoptic format, or replace those of the same picture.

    The layout is `panoptic.json`, `images/`, `panoptic/`. The json is written last and in one step: whatever happens,
    it names only files that are whole and belong together. What else it says is kept.

    Args:
        folder: the data set; made if it does not exist.
        name: of the picture's file; its stem is kept, with -2, -3, ... where another picture has it.
        image: RGB.
        panoptic: of the picture's size.

    Returns:
        Number of pictures in the data set.

    Raises:
        InputError: nothing is segmented; the folder has a broken `panoptic.json` or one of other categories, or cannot
            be written to.
    """
    if not panoptic.segments:
        raise InputError("every pixel is void; segment or paint something before saving")
    try:
        for part in ("images", "panoptic"):
            (folder / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {folder} ({error.strerror}); choose another folder") from error
    content = _read(folder / "panoptic.json", panoptic.taxonomy)
    images, annotations = content["images"], content["annotations"]
    digest = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    record = next((record for record in images if record.get("sha256") == digest), None)
    if record is None:
        stem = _free_stem(name, {Path(record["file_name"]).stem.casefold() for record in images})
        record = {"id": 1 + max((record["id"] for record in images), default=0), "file_name": f"{stem}.png"}
        record |= {"width": image.width, "height": image.height, "sha256": digest}
        images.append(record)
    # A mask that is corrected again gets another name, so that the old one stands until the json names the new one.
    mask, annotation = panoptic.to_coco(record["id"])
    file_name = f"{Path(record['file_name']).stem}-{hashlib.sha256(mask.tobytes()).hexdigest()[:8]}.png"
    for path, picture in ((f"images/{record['file_name']}", image), (f"panoptic/{file_name}", Image.fromarray(mask))):
        with write_atomically(folder / path) as temporary:
            picture.save(temporary, format="PNG")
    old = [entry for entry in annotations if entry["image_id"] == record["id"]]
    annotations[:] = [entry for entry in annotations if entry not in old]
    annotations.append({**annotation, "file_name": file_name})
    write_json(folder / "panoptic.json", content)
    for entry in old:
        if entry["file_name"] != file_name:
            (folder / "panoptic" / Path(entry["file_name"]).name).unlink(missing_ok=True)
    return len(images)


def _read(path: Path, taxonomy: Taxonomy) -> dict[str, Any]:
    if not path.exists():
        return {
            "info": {"description": "annotated with pix2seqd serve"},
            "images": [],
            "annotations": [],
            "categories": taxonomy.to_coco(),
        }
    content = read_json(path)
    try:
        same = Taxonomy.from_coco(content["categories"]) == taxonomy
        [(int(record["id"]), Path(record["file_name"])) for record in content["images"]]
        [(entry["image_id"], Path(entry["file_name"])) for entry in content["annotations"]]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not in COCO panoptic format; save into another folder") from error
    if not same:
        raise InputError(f"{path} has other categories than this model; save into another folder")
    return content


def _free_stem(name: str, taken: set[str]) -> str:
    wish = Path(name).stem.lstrip(".")[:80] or "picture"
    candidates = (wish if n == 1 else f"{wish}-{n}" for n in itertools.count(1))
    return next(stem for stem in candidates if stem.casefold() not in taken)


def _tight(line: np.ndarray) -> np.ndarray:
    """A line of pixels without diagonal steps, which parts that touch at corners would lead through."""
    padded = np.pad(line, 1)
    above, left, right = padded[:-2, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    return line | (above & (left | right))


def _segment(panoptic: Panoptic, segment_id: int) -> Segment:
    found = next((segment for segment in panoptic.segments if segment.id == segment_id), None)
    if found is None:
        raise InputError(f"there is no segment {segment_id}; select one that is there")
    return found


def _class_of(panoptic: Panoptic, category_id: int) -> int:
    try:
        return panoptic.taxonomy.class_of(category_id)
    except KeyError as error:
        raise InputError(f"{error.args[0]}; choose one of the classes") from error


def _home(panoptic: Panoptic, category_id: int) -> int | None:
    """The segment that pixels of this category belong to; None: of things there may be several."""
    if panoptic.taxonomy.category(_class_of(panoptic, category_id)).isthing:
        return None
    return next((segment.id for segment in panoptic.segments if segment.category_id == category_id), None)


def _classes(panoptic: Panoptic) -> dict[int, int]:
    return {segment.id: panoptic.taxonomy.class_of(segment.category_id) for segment in panoptic.segments}


def _free_ids(panoptic: Panoptic, count: int) -> list[int]:
    """The smallest ids that no segment has."""
    taken = {segment.id for segment in panoptic.segments}
    return [i for i in range(1, len(taken) + count + 1) if i not in taken][:count]


def _changed(panoptic: Panoptic, segmentation: np.ndarray, classes: Mapping[int, int] | None = None) -> Panoptic:
    """Measured anew, with some classes other than before; what has another class is no crowd any more."""
    before = _classes(panoptic)
    after = before | dict(classes or {})
    crowds = [
        segment.id for segment in panoptic.segments if segment.iscrowd and after[segment.id] == before[segment.id]
    ]
    return Panoptic.from_segmentation(segmentation, after, panoptic.taxonomy, crowds)
