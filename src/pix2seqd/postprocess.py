"""From generated masks to segments: majority class, connected components, small segments, seams (§4.1; official code).

A *label map* here is int64 `[h, w]`, 0 = void, together with a dictionary label → contiguous class.
"""

import numpy as np
from scipy import ndimage

from pix2seqd.taxonomy import VOID, Taxonomy

Labels = tuple[np.ndarray, dict[int, int]]


def majority_vote(mask: np.ndarray, min_pixels: int) -> np.ndarray:
    """Give every id the class most of its pixels have; ids of fewer than `min_pixels` pixels become void.

    Ties go to the smallest class; id 0 is an id like any other (official code).

    Args:
        mask: integers `[2, h, w]`, class and id.
        min_pixels: 0 keeps all.

    Returns:
        The same shape.
    """
    classes, ids = mask[0].ravel(), mask[1].ravel()
    present, dense = np.unique(ids, return_inverse=True)
    votes = np.zeros((len(present), int(classes.max(initial=0)) + 1), np.int64)
    np.add.at(votes, (dense, classes), 1)
    winner = votes.argmax(axis=1)
    winner[votes.sum(axis=1) < min_pixels] = VOID
    voted = winner[dense].reshape(mask[0].shape)
    return np.stack([voted, np.where(voted == VOID, VOID, mask[1])]).astype(mask.dtype)


def segments_by_id(mask: np.ndarray, taxonomy: Taxonomy, min_pixels: int) -> Labels:
    """Segments of a mask whose ids are unique: majority class per id, id 0 void, stuff of one class is one segment."""
    voted = majority_vote(mask, min_pixels)
    classes, ids = np.where(voted[1] == VOID, VOID, voted)
    keys, dense = np.unique(np.stack([classes.ravel(), ids.ravel()]), axis=1, return_inverse=True)
    label_of: dict[tuple[int, int], int] = {}
    table = []
    for class_index, instance in keys.T.tolist():
        isthing = class_index != VOID and taxonomy.category(class_index).isthing
        key = (class_index, instance if isthing else 0)
        table.append(VOID if class_index == VOID else label_of.setdefault(key, len(label_of) + 1))
    labels = np.array(table)[dense.ravel()].reshape(mask[0].shape)
    return labels, {label: class_index for (class_index, _), label in label_of.items()}


def segments_by_component(mask: np.ndarray, taxonomy: Taxonomy, min_pixels: int) -> Labels:
    """Segments of a mask whose ids are reused: connected components of (class, id); stuff of one class is one segment.

    Components of things smaller than `min_pixels` are mostly specks of a wrong id inside or at the rim of a larger
    one: their pixels take the label of the nearest pixel that stays.
    """
    classes, ids = mask.astype(np.int64)
    labels = np.zeros(classes.shape, np.int64)
    class_of: dict[int, int] = {}
    for class_index in range(1, len(taxonomy) + 1):
        inside = classes == class_index
        if not inside.any():
            continue
        if not taxonomy.category(class_index).isthing:
            labels[inside] = len(class_of) + 1
            class_of[len(class_of) + 1] = class_index
            continue
        for instance in np.unique(ids[inside]):
            found, count = ndimage.label(inside & (ids == instance))
            labels[found > 0] = found[found > 0] + len(class_of)
            class_of.update({len(class_of) + i: class_index for i in range(1, count + 1)})
    return fill_small(labels, class_of, taxonomy, min_pixels)


def fill_small(labels: np.ndarray, class_of: dict[int, int], taxonomy: Taxonomy, min_pixels: int) -> Labels:
    """Dissolve thing segments of fewer than `min_pixels` pixels into whatever is nearest."""
    areas = np.bincount(labels.ravel(), minlength=len(class_of) + 1)
    small = [i for i, c in class_of.items() if areas[i] < min_pixels and taxonomy.category(c).isthing]
    if not small:
        return labels, class_of
    gone = np.isin(labels, small)
    if gone.all():
        return np.zeros_like(labels), {}
    nearest = ndimage.distance_transform_edt(gone, return_distances=False, return_indices=True)
    return labels[tuple(nearest)], {i: c for i, c in class_of.items() if i not in small}


def windows(length: int, size: int, overlap: int) -> list[int]:
    """Starts of the windows of `size` that cover `length`, evenly spread, sharing `overlap` or more."""
    if length <= size:
        return [0]
    count = -(-(length - overlap) // (size - overlap))
    return [round(i * (length - size) / (count - 1)) for i in range(count)]


def join(tiles: list[tuple[int, int, Labels]], height: int, width: int, taxonomy: Taxonomy) -> Labels:
    """Join the label maps of overlapping windows into one.

    In an overlap every pixel goes to the window it lies deeper in. Thing segments of two windows become one where
    they agree on more than half of what both together cover in the overlap; stuff joins by class.

    Args:
        tiles: (top, left, labels of the window); windows may reach beyond the picture.
        height: of the picture.
        width: of the picture.
        taxonomy: which classes are things.
    """
    canvas = np.zeros((height, width), np.int64)
    depth = np.zeros((height, width))
    parent: list[int] = [0]
    class_of: dict[int, int] = {}
    placed: list[tuple[int, int, np.ndarray]] = []
    stuff: dict[int, int] = {}
    for top, left, (labels, classes) in tiles:
        labels = labels[: height - top, : width - left]
        table = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
        for label, class_index in classes.items():
            if label >= len(table):
                continue
            if not taxonomy.category(class_index).isthing and class_index in stuff:
                table[label] = stuff[class_index]
                continue
            parent.append(len(parent))
            table[label] = parent[-1]
            class_of[parent[-1]] = class_index
            if not taxonomy.category(class_index).isthing:
                stuff[class_index] = parent[-1]
        labels = table[labels]
        things = np.array([i for i, c in class_of.items() if taxonomy.category(c).isthing], np.int64)
        for other in placed:
            _unite(other, (top, left, labels), things, class_of, parent)
        placed.append((top, left, labels))
        region = np.s_[top : top + labels.shape[0], left : left + labels.shape[1]]
        inner = _depth(labels.shape)
        deeper = inner > depth[region]
        canvas[region][deeper] = labels[deeper]
        depth[region][deeper] = inner[deeper]
    roots = np.array([_root(parent, i) for i in range(len(parent))])
    return roots[canvas], {i: c for i, c in class_of.items() if roots[i] == i}


def _depth(shape: tuple[int, ...]) -> np.ndarray:
    """Distance of each pixel of a window to its border, from 1."""
    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) + 1.0 for n in shape)
    return np.minimum(rows[:, None], columns[None, :])


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        i = parent[i]
    return i


def _unite(
    a: tuple[int, int, np.ndarray],
    b: tuple[int, int, np.ndarray],
    things: np.ndarray,
    class_of: dict[int, int],
    parent: list[int],
) -> None:
    """Union of the things of two windows that agree in their overlap."""
    top, left = max(a[0], b[0]), max(a[1], b[1])
    bottom, right = (min(a[i] + a[2].shape[i], b[i] + b[2].shape[i]) for i in (0, 1))
    if bottom <= top or right <= left:
        return
    one, two = (labels[top - y : bottom - y, left - x : right - x].ravel() for y, x, labels in (a, b))
    one, two = np.where(np.isin(one, things), one, 0), np.where(np.isin(two, things), two, 0)
    pairs, shared = np.unique(np.stack([one, two]), axis=1, return_counts=True)
    area_one, area_two = np.bincount(one), np.bincount(two)
    for (i, j), common in zip(pairs.T.tolist(), shared.tolist(), strict=True):
        if i and j and class_of[i] == class_of[j] and 2 * common > area_one[i] + area_two[j] - common:
            first, second = sorted((_root(parent, i), _root(parent, j)))
            parent[second] = first
