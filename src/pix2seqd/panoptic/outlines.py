"""Outlines and run lengths of bool maps, in pixels."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import ndimage

from pix2seqd.panoptic.segment import Segment

Ring = list[tuple[int, int]]
"""The corners (x, y) of a closed line along the edges of pixels; the last is not the first again."""


def inside(segmentation: np.ndarray, segment: Segment) -> np.ndarray:
    """Whether each pixel of a segment's box belongs to it, bool `[height, width]`."""
    x, y, width, height = segment.bbox
    return segmentation[y : y + height, x : x + width] == segment.id


def parts(inside: np.ndarray, left: int = 0, top: int = 0) -> Iterator[list[Ring]]:
    """The 4-connected parts of a bool map `[h, w]`: of each its outline, then its holes.

    No ring crosses or touches itself. Holes are 4-connected, too: a hole may touch the outline, or another hole, at a
    corner. (left, top) is added to every corner.
    """
    labels, _ = ndimage.label(inside)  # pyright: ignore[reportGeneralTypeIssues]
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        rows, columns = box
        rings = sorted(_rings(labels[box] == number), key=_doubled_area)
        right, down = columns.start + left, rows.start + top
        yield [[(x + right, y + down) for x, y in ring] for ring in rings]


def joined(rings: list[Ring]) -> Ring:
    """One ring of the outline and its holes; the way to each hole and back is one line, which encloses no area."""
    outline, *holes = rings
    start = outline[0]
    for hole in holes:
        outline = [*outline, start, *hole, hole[0]]
    return outline


def polygons(inside: np.ndarray, left: int = 0, top: int = 0) -> list[list[int]]:
    """Outlines of the 4-connected parts of a bool map `[h, w]`: x, y, x, y, ... of pixel corners, plus (left, top)."""
    return [[n for corner in joined(rings) for n in corner] for rings in parts(inside, left, top)]


def run_lengths(inside: np.ndarray) -> dict[str, Any]:
    """COCO's uncompressed run-length encoding of a bool map `[h, w]`: column by column, first a run outside."""
    return {"size": list(inside.shape), "counts": _runs(inside, 0, 0, inside.shape[0], inside.size)}


def compressed_run_lengths(inside: np.ndarray, left: int, top: int, size: tuple[int, int]) -> dict[str, Any]:
    """COCO's compressed run-length encoding, as `pycocotools.mask.encode` makes it.

    `inside`, bool `[h, w]`, is a box of the image at a column and row; `size` is height and width of the image.
    """
    counts = _runs(inside, left, top, size[0], size[0] * size[1])
    text = []
    for number, count in enumerate(counts):
        # From the fourth on, the difference to the count before the last; five bits a character, lowest first.
        rest = count - counts[number - 2] if number > 2 else count
        more = True
        while more:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            text.append(chr(48 + bits + 32 * more))
    return {"size": list(size), "counts": "".join(text)}


def _runs(inside: np.ndarray, left: int, top: int, height: int, pixels: int) -> list[int]:
    """Lengths of the runs outside and inside, of a box at (left, top) of an image."""
    padded = np.pad(inside, ((1, 1), (0, 0)))
    columns, rows = np.nonzero((padded[1:] != padded[:-1]).T)
    places = (columns + left) * height + rows + top
    # A run that ends a column and one that begins the next are one.
    again = np.flatnonzero(places[1:] == places[:-1])
    places = np.delete(places, [*again, *(again + 1)])
    counts = np.diff(places, prepend=0).tolist()
    last = pixels - (int(places[-1]) if len(places) else 0)
    return [*counts, last] if last or not counts else counts


def _doubled_area(loop: Ring) -> int:
    """Twice the signed area; the pixels are on the right of a loop, so the outermost loop has the lowest value."""
    return sum(x1 * y0 - x0 * y1 for (x0, y0), (x1, y1) in zip(loop, [*loop[1:], loop[0]], strict=True))


def _rings(inside: np.ndarray) -> list[Ring]:
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
            left = (heading[1], -heading[0])
            # Where two pixels touch at a corner, go on around the same hole, which makes the outline two simple lines.
            turned = left if left in ways else ways[0]
            if turned != heading or not loop:
                loop.append(at)
            ways.remove(turned)
            if not ways:
                del after[at]
            heading, at = turned, (at[0] + turned[0], at[1] + turned[1])
            if at == start and (at not in after or (heading[1], -heading[0]) not in after[at]):
                break
        loops.append(loop)
    return loops
