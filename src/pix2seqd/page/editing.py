"""Correct a segmentation by hand, with pure functions from `Panoptic` to `Panoptic`, and save the result.

Every function leaves the ids, categories and crowd marks of the other segments as they are.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from pix2seqd.files import InputError, printable, write_png
from pix2seqd.panoptic.folder import PanopticFolder
from pix2seqd.panoptic.journal import read_records
from pix2seqd.panoptic.panoptic import Panoptic, Segment
from pix2seqd.panoptic.results import make_folders
from pix2seqd.panoptic.taxonomy import VOID

PAGE = "annotated with pix2seqd serve"
"""`info.description` of the data set that the page makes."""


def stroke(points: Sequence[tuple[float, float]], radius: float, shape: tuple[int, int]) -> np.ndarray:
    """The pixels under a brush, bool `[h, w]`, of an image of this shape.

    `points` are x, y of its centre along the stroke, in pixels from the image's upper left corner. A stroke is never
    thinner than a pixel, whatever the radius.
    """
    canvas = Image.new("1", (shape[1], shape[0]))
    draw = ImageDraw.Draw(canvas)
    path = [(math.floor(x), math.floor(y)) for x, y in points]
    draw.point(path, fill=1)
    draw.line(path, fill=1)
    centre = np.array(canvas)
    if radius < 1 or not centre.any():
        return centre
    return np.asarray(ndimage.distance_transform_edt(~centre)) <= radius


def paint(panoptic: Panoptic, where: np.ndarray, segment_id: int) -> Panoptic:
    """Give the pixels of `where`, bool `[h, w]`, to a segment."""
    _segment(panoptic, segment_id)
    return _changed(panoptic, np.where(where, segment_id, panoptic.segmentation))


def add(panoptic: Panoptic, where: np.ndarray, category_id: int) -> tuple[Panoptic, int]:
    """Make a segment of the pixels of `where`, bool `[h, w]`. Stuff joins the segment of its category.

    Returns:
        The new segmentation, and the id that the pixels have in it.
    """
    segment_id = _stuff_segment(panoptic, category_id) or _free_ids(panoptic, 1)[0]
    segmentation = np.where(where, segment_id, panoptic.segmentation)
    return _changed(panoptic, segmentation, {segment_id: _class_of(panoptic, category_id)}), segment_id


def erase(panoptic: Panoptic, where: np.ndarray) -> Panoptic:
    """Turn the pixels of `where`, bool `[h, w]`, into void."""
    return _changed(panoptic, np.where(where, VOID, panoptic.segmentation))


def merge(panoptic: Panoptic, ids: Iterable[int]) -> tuple[Panoptic, int]:
    """Make one segment of several, with the id and the category of the largest; the new segmentation, and that id."""
    segments = [_segment(panoptic, i) for i in ids]
    if len(segments) < 2:
        raise InputError("select two or more segments to merge")
    largest = max(segments, key=lambda segment: segment.area).id
    where = np.isin(panoptic.segmentation, [segment.id for segment in segments])
    return _changed(panoptic, np.where(where, largest, panoptic.segmentation)), largest


def split(panoptic: Panoptic, segment_id: int, cut: np.ndarray | None = None) -> tuple[Panoptic, list[int]]:
    """Make a segment of each connected part of a thing.

    `cut` are pixels that separate the parts, bool `[h, w]`; they go to the nearest part. Returns the new segmentation,
    and the ids of the parts; the largest comes first and keeps the id. Stuff, or a thing of one part, is an
    `InputError`.
    """
    if not _segment(panoptic, segment_id).isthing:
        raise InputError("stuff is one segment in an image, even in several parts; change its class first")
    inside = panoptic.segmentation == segment_id
    apart = inside if cut is None else inside & ~_without_diagonals(cut)
    parts, count = cast(tuple[np.ndarray, int], ndimage.label(apart, np.ones((3, 3))))
    if count < 2:
        raise InputError(f"segment {segment_id} is in one piece; draw a line across it with Cut")
    if cut is not None:
        nearest = np.asarray(ndimage.distance_transform_edt(parts == 0, return_distances=False, return_indices=True))
        parts = np.where(inside, parts[tuple(nearest)], 0)
    order = np.argsort(-np.bincount(parts[inside])[1:], kind="stable") + 1
    ids = [segment_id, *_free_ids(panoptic, count - 1)]
    table = np.zeros(count + 1, int)
    table[order] = ids
    kind = panoptic.classes[segment_id]
    return _changed(panoptic, np.where(inside, table[parts], panoptic.segmentation), dict.fromkeys(ids, kind)), ids


def relabel(panoptic: Panoptic, segment_id: int, category_id: int) -> tuple[Panoptic, int]:
    """Give a segment another category. Stuff joins the segment of its category.

    Returns:
        The new segmentation, and the id that the segment's pixels have in it.
    """
    _segment(panoptic, segment_id)
    home = _stuff_segment(panoptic, category_id) or segment_id
    segmentation = np.where(panoptic.segmentation == segment_id, home, panoptic.segmentation)
    return _changed(panoptic, segmentation, {home: _class_of(panoptic, category_id)}), home


def append(folder: Path, name: str, image: Image.Image, panoptic: Panoptic) -> int:
    """Add an image and its segmentation to a data set in COCO panoptic format. The same image is replaced.

    The layout is `panoptic.json`, `images/`, `panoptic/`; the folder is made if need be. The JSON is written last and
    in one step, so that it always names complete files that belong together. Other entries of the JSON are kept. The
    stem of `name` is kept too, with -2, -3, ... if another image has it. Returns the number of images in the data set.
    A segmentation that is all void, a folder that cannot be written to or has other categories is an `InputError`.
    """
    if not panoptic.segments:
        raise InputError("every pixel is void; segment or paint something before saving")
    make_folders(folder, ("images", "panoptic"))
    digest = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
    wanted = printable(Path(name).stem.lstrip(".")[:80]) or "image"
    with PanopticFolder(folder, panoptic.taxonomy, PAGE) as shared, shared.locked():
        stem = shared.stems({digest: wanted})[digest]
        record, before = dict(shared.stored([digest])).get(digest, ({}, {}))
        record = {
            "file_name": f"{stem}.png",
            "width": image.width,
            "height": image.height,
            "sha256": digest,
        } | record
        # A new mask gets a new name, so that the old mask exists until the JSON names the new one.
        mask, annotation = panoptic.to_coco()
        annotation["file_name"] = f"{stem}-{hashlib.sha256(mask.tobytes()).hexdigest()[:8]}.png"
        drawn = {f"images/{stem}.png": image, f"panoptic/{annotation['file_name']}": Image.fromarray(mask)}
        for name, written in drawn.items():
            write_png(folder / name, written)
        shared.add(digest, (record, annotation))
        shared.save()
        if before and before["file_name"] != annotation["file_name"]:
            (folder / "panoptic" / Path(before["file_name"]).name).unlink(missing_ok=True)
        return sum(1 for _ in read_records(folder / "panoptic.json", "images"))


def _without_diagonals(line: np.ndarray) -> np.ndarray:
    """The line with its diagonal steps filled, because parts that touch at a corner count as connected."""
    padded = np.pad(line, 1)
    above, left, right = padded[:-2, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    return line | (above & (left | right))


def _segment(panoptic: Panoptic, segment_id: int) -> Segment:
    found = next((segment for segment in panoptic.segments if segment.id == segment_id), None)
    if found is None:
        raise InputError(f"there is no segment {segment_id}; select one of the image")
    return found


def _class_of(panoptic: Panoptic, category_id: int) -> int:
    try:
        return panoptic.taxonomy.class_of(category_id)
    except KeyError as error:
        raise InputError(f"{error.args[0]}; choose one of the classes") from error


def _stuff_segment(panoptic: Panoptic, category_id: int) -> int | None:
    """Id of the segment of a stuff category. None if there is none yet, or if the category is a thing."""
    if panoptic.taxonomy.category(_class_of(panoptic, category_id)).isthing:
        return None
    return next((segment.id for segment in panoptic.segments if segment.category_id == category_id), None)


def _free_ids(panoptic: Panoptic, count: int) -> list[int]:
    """The smallest unused ids."""
    taken = {segment.id for segment in panoptic.segments}
    return [i for i in range(1, len(taken) + count + 1) if i not in taken][:count]


def _changed(panoptic: Panoptic, segmentation: np.ndarray, classes: Mapping[int, int] | None = None) -> Panoptic:
    """The segmentation with new pixels and some new classes.

    A crowd whose class changes is no longer a crowd. A segment that a person changed has no score.
    """
    before = panoptic.classes
    after = before | dict(classes or {})
    crowds = [
        segment.id for segment in panoptic.segments if segment.iscrowd and after[segment.id] == before[segment.id]
    ]
    differs = segmentation != panoptic.segmentation
    touched = {*np.unique(segmentation[differs]).tolist(), *np.unique(panoptic.segmentation[differs]).tolist()}
    scores = {
        segment.id: segment.score
        for segment in panoptic.segments
        if segment.score is not None and segment.id not in touched and after[segment.id] == before[segment.id]
    }
    return Panoptic.from_segmentation(segmentation, after, panoptic.taxonomy, crowds, scores)
