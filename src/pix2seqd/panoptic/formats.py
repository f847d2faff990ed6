"""`Panoptic` in further formats of other tools: the dictionaries of `transformers`, and COCO instances."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import ndimage

from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy


def to_segments(panoptic: Panoptic) -> dict[str, Any]:
    """The dictionary that `post_process_panoptic_segmentation` of `transformers` returns.

    Returns:
        "segmentation": int32 `[h, w]`, 0 = void; "segments_info": per segment its "id", "label_id" (position of its
        category in the taxonomy, from 0), "was_fused" (stuff) and "score" (1 where a segment has none).
    """
    return {
        "segmentation": panoptic.segmentation.copy(),
        "segments_info": [
            {
                "id": segment.id,
                "label_id": panoptic.taxonomy.class_of(segment.category_id) - 1,
                "was_fused": not segment.isthing,
                "score": 1.0 if segment.score is None else segment.score,
            }
            for segment in panoptic.segments
        ],
    }


def from_segments(segments: Mapping[str, Any], taxonomy: Taxonomy) -> Panoptic:
    """The inverse of `to_segments`; pixels without a record become void.

    Raises:
        InputError: a label_id is not a position in the taxonomy.
    """
    classes = {int(info["id"]): int(info["label_id"]) + 1 for info in segments["segments_info"]}
    for segment_id, class_index in classes.items():
        if not 1 <= class_index <= len(taxonomy):
            raise InputError(
                f"segment {segment_id} has label_id {class_index - 1}, but there are {len(taxonomy)} categories; "
                "give the taxonomy of the model that made it"
            )
    scores = {int(info["id"]): float(info["score"]) for info in segments["segments_info"] if "score" in info}
    return Panoptic.from_segmentation(np.asarray(segments["segmentation"]), classes, taxonomy, scores=scores)


def to_instances(panoptic: Panoptic, image_id: int, first_id: int = 1) -> list[dict[str, Any]]:
    """Things as entries of the list `annotations` of COCO instances json, which detection tools train on and the
    annotation tools CVAT ("COCO 1.0") and Label Studio import.

    Args:
        panoptic: the segmentation; `Taxonomy.to_coco` of its taxonomy is the list `categories`.
        image_id: id of the image's entry in the list `images`.
        first_id: id of the first annotation; the others follow it.

    Returns:
        Per thing: id, image_id, category_id, area, bbox, iscrowd and segmentation. The latter is a list of polygons
        along the edges of the pixels, one per connected part, with holes joined to the outline; of a crowd it is an
        uncompressed run-length encoding.
    """
    entries = []
    for number, segment in enumerate(panoptic.things, start=first_id):
        x, y, width, height = segment.bbox
        inside = panoptic.segmentation == segment.id
        entries.append(
            {
                "id": number,
                "image_id": image_id,
                "category_id": segment.category_id,
                "area": segment.area,
                "bbox": list(segment.bbox),
                "iscrowd": int(segment.iscrowd),
                "segmentation": run_lengths(inside)
                if segment.iscrowd
                else polygons(inside[y : y + height, x : x + width], x, y),
            }
        )
    return entries


def run_lengths(inside: np.ndarray) -> dict[str, Any]:
    """COCO's uncompressed run-length encoding of a bool map `[h, w]`: column by column, first a run outside."""
    values = np.concatenate([[False], inside.T.ravel()])
    starts = np.flatnonzero(np.diff(values))
    return {"size": list(inside.shape), "counts": np.diff(starts, prepend=0, append=inside.size).tolist()}


def polygons(inside: np.ndarray, left: int = 0, top: int = 0) -> list[list[int]]:
    """Outlines of the 4-connected parts of a bool map `[h, w]`: x, y, x, y, ... of pixel corners, plus (left, top)."""
    parts, count = ndimage.label(inside)  # pyright: ignore[reportGeneralTypeIssues]
    result = []
    for part in range(1, count + 1):
        outline, *holes = sorted(_loops(parts == part), key=_doubled_area)
        start = outline[0]
        for hole in holes:  # the way to the hole and back is one line, which encloses no area
            outline = [*outline, start, *hole, hole[0]]
        result.append([n for x, y in outline for n in (x + left, y + top)])
    return result


def _doubled_area(loop: list[tuple[int, int]]) -> int:
    """Twice the signed area; the pixels are on the right of a loop, so the outermost loop has the lowest value."""
    return sum(x1 * y0 - x0 * y1 for (x0, y0), (x1, y1) in zip(loop, [*loop[1:], loop[0]], strict=True))


def _loops(inside: np.ndarray) -> list[list[tuple[int, int]]]:
    """Closed lines of pixel edges around a connected part, corners only; its pixels are on the right."""
    padded = np.pad(inside, 1)
    after: dict[tuple[int, int], list[tuple[int, int]]] = {}  # corner → directions of the edges that start there
    # Side of the pixel that is outside (row, column), then the edge's start (x, y) and direction.
    for (row, column), (x, y), direction in (
        ((-1, 0), (0, 0), (1, 0)),
        ((0, 1), (1, 0), (0, 1)),
        ((1, 0), (1, 1), (-1, 0)),
        ((0, -1), (0, 1), (0, -1)),
    ):
        outside = ~np.roll(padded, (-row, -column), (0, 1))[1:-1, 1:-1]
        for at_y, at_x in np.argwhere(inside & outside).tolist():
            after.setdefault((at_x + x, at_y + y), []).append(direction)
    loops = []
    while after:
        start = at = next(iter(after))
        heading, loop = after[at][0], []
        while True:
            ways = after[at]
            right = (-heading[1], heading[0])
            turned = right if right in ways else ways[0]  # where two pixels touch at a corner, stay at the same pixel
            if turned != heading or not loop:
                loop.append(at)
            ways.remove(turned)
            if not ways:
                del after[at]
            heading, at = turned, (at[0] + turned[0], at[1] + turned[1])
            if at == start and (at not in after or (-heading[1], heading[0]) not in after[at]):
                break
        loops.append(loop)
    return loops
