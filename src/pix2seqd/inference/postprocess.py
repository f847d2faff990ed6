"""From generated masks to segments: majority class, connected components, small segments (§4.1; official code).

Every function that finds segments returns a label map (`LabelMap`).
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components

from pix2seqd.images.load import bands
from pix2seqd.panoptic.panoptic import unique_inverse
from pix2seqd.panoptic.runs import Runs
from pix2seqd.panoptic.taxonomy import VOID, Taxonomy

LabelMap = tuple[np.ndarray, dict[int, int]]
"""A label map: integers `[h, w]`, 0 = void, and the contiguous class of each label."""

MAX_CONFIDENCE = 255
"""Highest confidence of a pixel; 0 is the lowest."""
_SQUARES = ((512, 64), (32, 8))
"""Side of the squares in which pixels are given to their nearest segment, and pixels around a square in which that
segment is looked for: in the small ones, otherwise in the large one, otherwise in the whole image."""


def majority_vote(mask: np.ndarray, min_pixels: int) -> np.ndarray:
    """Give every id the class of most of its pixels; ids of fewer than `min_pixels` pixels become void.

    Ties go to the smallest class; id 0 is treated as any other id (official code). Masks are integers `[2, h, w]`,
    class and id.
    """
    classes, ids = mask[0].ravel(), mask[1].ravel()
    present, dense = unique_inverse(ids)
    columns = int(classes.max(initial=0)) + 1
    votes = np.bincount(dense * columns + classes, minlength=len(present) * columns).reshape(-1, columns)
    winner = votes.argmax(axis=1)
    winner[votes.sum(axis=1) < min_pixels] = VOID
    voted = winner[dense].reshape(mask[0].shape)
    return np.stack([voted, np.where(voted == VOID, VOID, mask[1])]).astype(mask.dtype)


def segments_by_id(mask: np.ndarray, taxonomy: Taxonomy, min_pixels: int) -> LabelMap:
    """Segments of a mask with unique ids: majority class per id, one segment per stuff class.

    Id 0 is void. Classes beyond the taxonomy are void too; a model may have more classes than the taxonomy.
    """
    voted = majority_vote(mask, min_pixels)
    classes, ids = np.where((voted[1] == VOID) | (voted[0] > len(taxonomy)), VOID, voted)
    # After the vote an id has one class.
    present, dense = unique_inverse(ids.ravel())
    class_of = np.zeros(len(present), classes.dtype)
    class_of[dense] = classes.ravel()
    label_of: dict[tuple[int, int], int] = {}
    table = np.zeros(len(present), np.int64)
    for k in np.lexsort((present, class_of)).tolist():
        class_index = int(class_of[k])
        isthing = class_index != VOID and taxonomy.category(class_index).isthing
        key = (class_index, int(present[k]) if isthing else 0)
        table[k] = VOID if class_index == VOID else label_of.setdefault(key, len(label_of) + 1)
    labels = table[dense].reshape(mask[0].shape)
    return labels, {label: class_index for (class_index, _), label in label_of.items()}


def segments_by_component(mask: np.ndarray, taxonomy: Taxonomy, min_pixels: int) -> LabelMap:
    """Segments of a mask with reused ids: connected components of (class, id), and one segment per stuff class.

    Segments and components of void below `min_pixels` are mostly specks in a larger segment or at its edge. Their
    pixels take the label of the nearest pixel of a segment that stays.
    """
    classes, ids = mask
    things = np.array(taxonomy.things)
    classes = np.where(classes < len(things), classes, VOID).astype(np.int32)
    id_count = int(ids.max(initial=0)) + 1
    runs = Runs.encode(np.where(things[classes], classes * id_count + ids, classes * id_count))
    class_of_run = runs.values // id_count
    # Numbered by class, then by id, then row by row.
    places = np.where(things[class_of_run], _components(runs, things[class_of_run]), 0)
    order, number = np.unique(runs.values * np.int64(len(places)) + places, return_inverse=True)
    number += class_of_run.all()  # there is no void, which would be the first
    class_of = dict(zip(number.tolist(), class_of_run.tolist(), strict=True)) if len(order) else {}
    class_of = {label: class_of[label] for label in sorted(class_of) if label != VOID}
    return fill_small(runs.decode(number.astype(np.int32)), class_of, min_pixels, in_place=True)


def _components(runs: Runs, things: np.ndarray) -> np.ndarray:
    """The connected component of each run, numbered from 0 by their first pixels; only runs of `things` are joined."""
    first = np.zeros(runs.shape, bool)
    first.ravel()[runs.starts] = True
    numbers, values = runs.decode(np.arange(len(runs.starts), dtype=np.int32)), runs.decode(runs.values * things)
    # Each pair of runs that touch, once: where one of them begins.
    touching = (values[1:] == values[:-1]) & (values[1:] > 0) & (first[1:] | first[:-1])
    edges = np.ones(int(touching.sum()), bool), (numbers[:-1][touching], numbers[1:][touching])
    return connected_components(sparse.csr_matrix(edges, (len(runs.starts),) * 2), directed=False)[1]


def join_uncertain(
    found: LabelMap, certainty: np.ndarray, taxonomy: Taxonomy, limit: float
) -> tuple[LabelMap, np.ndarray]:
    """Join touching segments of one thing class unless both of their ids are certain.

    A thing that is much larger than a cell of the first state often comes in pieces, with an id of which the model is
    not sure in each. Two segments stay apart if the product of the mean probabilities of their ids is `limit` or more;
    `certainty`, integers `[h, w]`, is the probability of each pixel's id, 0 to `MAX_CONFIDENCE`. Returns the segments,
    each with the lowest label of its pieces, and the labels that have several pieces.
    """
    labels, class_of = found
    kinds, certain = np.zeros((2, max(class_of, default=0) + 1))
    for label, mean in mean_confidence(Runs.encode(labels), certainty).items():
        if label != VOID and taxonomy.category(class_of[label]).isthing:
            kinds[label], certain[label] = class_of[label], mean
    pairs = []
    for one, two in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
        touching = (one != two) & (kinds[one] == kinds[two]) & (kinds[one] > 0)
        pairs.append(np.stack([one[touching], two[touching]]))
    one, two = np.unique(np.concatenate(pairs, axis=1), axis=1)
    join = certain[one] * certain[two] < limit
    table = lowest_joined(np.stack([one[join], two[join]]), len(kinds)).astype(labels.dtype)
    joined = np.flatnonzero(np.bincount(table, minlength=len(table)) > 1)
    return (table[labels], {label: c for label, c in class_of.items() if table[label] == label}), joined


def lowest_joined(pairs: np.ndarray, count: int) -> np.ndarray:
    """For each label 0..count - 1 the lowest label that pairs `[2, n]` join it with, int32 `[count]`."""
    edges = sparse.csr_matrix((np.ones(pairs.shape[1], bool), tuple(pairs)), (count, count))
    component = connected_components(edges, directed=False)[1]
    _, lowest, own = np.unique(component, return_index=True, return_inverse=True)
    return lowest[own].astype(np.int32)


def mean_confidence(labels: Runs, confidence: np.ndarray) -> dict[int, float]:
    """The score of every label: the mean confidence of its pixels, 0 to 1.

    Args:
        labels: runs of labels ≥ 0.
        confidence: integers `[h, w]`, 0 to `MAX_CONFIDENCE`.
    """
    counts = labels.areas(1)
    sums = np.zeros(len(counts))
    for rows in bands(*labels.shape):
        sums += np.bincount(labels.rows(rows.start, rows.stop).ravel(), confidence[rows].ravel(), len(sums))
    present = np.flatnonzero(counts)
    means = sums[present] / (MAX_CONFIDENCE * counts[present])
    return dict(zip(present.tolist(), means.round(4).tolist(), strict=True))


def fill_small(labels: np.ndarray, class_of: dict[int, int], min_pixels: int, in_place: bool = False) -> LabelMap:
    """Give the pixels of segments and void specks of fewer than `min_pixels` pixels to the nearest segment or void.

    Labels are integers `[h, w]`, 0 = void. With `in_place` they may be changed, which saves the memory of a copy.
    """
    runs = Runs.encode(labels)
    areas = runs.areas(max(class_of, default=0) + 1)
    small = [i for i in class_of if areas[i] < min_pixels]
    lost = np.zeros(len(areas), bool)
    lost[small] = True
    removed = runs.decode(lost[runs.values])
    if areas[VOID] and min_pixels > 1:
        _add_specks(removed, labels, min_pixels)
    if not removed.any():
        return labels, class_of
    if removed.all():
        return np.zeros_like(labels), {}
    return _nearest(labels if in_place else labels.copy(), removed), {
        i: c for i, c in class_of.items() if areas[i] >= min_pixels
    }


def _add_specks(removed: np.ndarray, labels: np.ndarray, min_pixels: int) -> None:
    """Set the pixels of void's components of fewer than `min_pixels` pixels, in bands of rows."""
    for rows in bands(*labels.shape, minimum=2 * min_pixels):
        # A component that is small has fewer rows than pixels, so all of it is seen.
        start = max(0, rows.start - min_pixels)
        found: Any = ndimage.label(labels[start : rows.stop + min_pixels] == VOID)
        specks = found[0]
        small = np.bincount(specks.ravel()) < min_pixels
        small[0] = False  # not void
        removed[rows] |= small[specks[rows.start - start : rows.stop - start]]


def _nearest(labels: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Give each removed pixel of `labels` the label of the nearest pixel that stays; no other pixel is read."""
    (side, reach), (small, near) = _SQUARES
    height, width = labels.shape
    for square in _squares(slice(0, height), slice(0, width), side):
        if (
            removed[square].any()
            and not all(_fill(labels, removed, part, near) for part in _squares(*square, small))
            and not _fill(labels, removed, square, reach)
        ):
            return labels[tuple(_nearest_position(removed))]
    return labels


def _squares(rows: slice, columns: slice, side: int) -> Iterator[tuple[slice, slice]]:
    """Squares that cover a part of a map; those at its end are smaller."""
    for y, x in product(range(rows.start, rows.stop, side), range(columns.start, columns.stop, side)):
        yield slice(y, min(y + side, rows.stop)), slice(x, min(x + side, columns.stop))


def _fill(labels: np.ndarray, removed: np.ndarray, square: tuple[slice, slice], reach: int) -> bool:
    """`_nearest` for the pixels of a square; False, and nothing is done, if one may have a nearest pixel beyond."""
    rows, columns = np.nonzero(removed[square])
    if not len(rows):
        return True
    y, x = (max(0, part.start - reach) for part in square)
    around = np.s_[y : square[0].stop + reach, x : square[1].stop + reach]
    lost = removed[around]
    if lost.all():
        return False
    rows, columns = rows + (square[0].start - y), columns + (square[1].start - x)
    nearest = _nearest_position(lost)[:, rows, columns]
    if lost.size < removed.size and np.hypot(nearest[0] - rows, nearest[1] - columns).max() > reach:
        return False
    labels[around][rows, columns] = labels[around][nearest[0], nearest[1]]
    return True


def _nearest_position(removed: np.ndarray) -> np.ndarray:
    """Row and column of the nearest pixel that is not removed, int32 `[2, h, w]`."""
    position = ndimage.distance_transform_edt(removed, return_distances=False, return_indices=True)
    return np.asarray(position, np.int32)
