"""From generated masks to segments: majority class, connected components, small segments (§4.1; official code).

A *label map* here is integers `[h, w]`, 0 = void, together with a dictionary label → contiguous class.
"""

import numpy as np
from scipy import ndimage

from pix2seqd.panoptic.panoptic import compact
from pix2seqd.panoptic.taxonomy import VOID, Taxonomy

Labels = tuple[np.ndarray, dict[int, int]]

CERTAIN = 255
"""Highest confidence of a pixel; 0 is the lowest."""


def majority_vote(mask: np.ndarray, min_pixels: int) -> np.ndarray:
    """Give every id the class of most of its pixels; ids of fewer than `min_pixels` pixels become void.

    Ties go to the smallest class; id 0 is treated as any other id (official code).

    Args:
        mask: integers `[2, h, w]`, class and id.
        min_pixels: 0 keeps all.

    Returns:
        The same shape.
    """
    classes, ids = mask[0].ravel(), mask[1].ravel()
    present, dense = compact(ids)
    columns = int(classes.max(initial=0)) + 1
    votes = np.bincount(dense * columns + classes, minlength=len(present) * columns).reshape(-1, columns)
    winner = votes.argmax(axis=1)
    winner[votes.sum(axis=1) < min_pixels] = VOID
    voted = winner[dense].reshape(mask[0].shape)
    return np.stack([voted, np.where(voted == VOID, VOID, mask[1])]).astype(mask.dtype)


def segments_by_id(mask: np.ndarray, taxonomy: Taxonomy, min_pixels: int) -> Labels:
    """Segments of a mask with unique ids: majority class per id, one segment per stuff class.

    Id 0 is void. Classes beyond the taxonomy are void too; a model may have more classes than the taxonomy.
    """
    voted = majority_vote(mask, min_pixels)
    classes, ids = np.where((voted[1] == VOID) | (voted[0] > len(taxonomy)), VOID, voted)
    # After the vote an id has one class.
    present, dense = compact(ids.ravel())
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


def segments_by_component(mask: np.ndarray, taxonomy: Taxonomy, min_pixels: int) -> Labels:
    """Segments of a mask with reused ids: connected components of (class, id), and one segment per stuff class.

    Segments and components of void below `min_pixels` are mostly specks in a larger segment or at its edge. Their
    pixels take the label of the nearest pixel of a segment that stays.
    """
    classes, ids = mask.astype(np.int64)
    things = np.array([False, *(category.isthing for category in taxonomy.categories)])
    classes = np.where(classes < len(things), classes, VOID)
    thing, id_count = things[classes], int(ids.max(initial=0)) + 1
    keys = classes * id_count + np.where(thing, ids, 0)
    found, count = _components(np.where(thing, keys, 0))
    found = np.where(thing | (classes == VOID), found, count + classes)
    key_of = np.zeros(count + len(things), np.int64)
    key_of[found] = keys
    # Numbered by class, then by id, then row by row.
    present = np.flatnonzero(key_of)
    order = present[key_of[present].argsort(kind="stable")]
    label_of = np.zeros_like(key_of)
    label_of[order] = np.arange(1, len(order) + 1)
    class_of = dict(enumerate((key_of[order] // id_count).tolist(), start=1))
    return fill_small(label_of[found], class_of, min_pixels)


def _components(keys: np.ndarray) -> tuple[np.ndarray, int]:
    """Connected components of equal keys above 0, numbered from 1 by their first pixels, and their number."""
    height, width = keys.shape
    joined = np.zeros((max(2 * height - 1, 0), max(2 * width - 1, 0)), bool)  # all pixels, and a cell between each two
    joined[::2, ::2] = keys > 0
    joined[1::2, ::2] = (keys[1:] == keys[:-1]) & (keys[1:] > 0)
    joined[::2, 1::2] = (keys[:, 1:] == keys[:, :-1]) & (keys[:, 1:] > 0)
    found, count = ndimage.label(joined)  # pyright: ignore[reportGeneralTypeIssues]
    return found[::2, ::2], count


def mean_confidence(labels: np.ndarray, confidence: np.ndarray) -> dict[int, float]:
    """The score of every label: the mean confidence of its pixels, 0 to 1.

    Args:
        labels: integers `[h, w]`.
        confidence: integers `[h, w]`, 0 to `CERTAIN`.
    """
    sums, counts = np.bincount(labels.ravel(), confidence.ravel()), np.bincount(labels.ravel())
    present = np.flatnonzero(counts)
    means = sums[present] / (CERTAIN * counts[present])
    return dict(zip(present.tolist(), means.round(4).tolist(), strict=True))


def fill_small(labels: np.ndarray, class_of: dict[int, int], min_pixels: int) -> Labels:
    """Give the pixels of segments and void specks of fewer than `min_pixels` pixels to the nearest segment or void."""
    areas = np.bincount(labels.ravel(), minlength=max(class_of, default=0) + 1)
    small = [i for i in class_of if areas[i] < min_pixels]
    removed = np.isin(labels, small)
    if areas[VOID]:
        specks = np.asarray(ndimage.label(labels == VOID)[0], int)  # pyright: ignore[reportIndexIssue]
        small_speck = np.bincount(specks.ravel()) < min_pixels
        small_speck[0] = False  # not void
        removed |= small_speck[specks]
    if not removed.any():
        return labels, class_of
    if removed.all():
        return np.zeros_like(labels), {}
    nearest = np.asarray(ndimage.distance_transform_edt(removed, return_distances=False, return_indices=True))
    return labels[tuple(nearest)], {i: c for i, c in class_of.items() if areas[i] >= min_pixels}
