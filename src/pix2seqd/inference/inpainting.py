"""Pixels whose segment is known before a window is sampled: given by the caller, or by windows that are finished.

A `Canvas` is the mask of a whole picture, as it fills up window by window. It says what each window should take as
known, and takes the sampled window back. What the model is told is the class alone: known segments in ids that it
would not have chosen cut theirs in two (docs/annotation.md). Which segments they continue, `adopt` says afterwards.
"""

from itertools import count

import numpy as np
from scipy import ndimage

from pix2seqd.images.resize import resize_labels
from pix2seqd.inference.postprocess import Labels, fill_small
from pix2seqd.inference.stitching import window_depth
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import VOID, Taxonomy

UNKNOWN = -1
"""Value of what is to be generated, in both channels of a known mask."""


class Canvas:
    """The labels of a whole picture's mask while its windows are sampled one after the other.

    Attributes:
        labels: int32 `[h, w]`, 0 = void or not sampled yet.
        class_of: label → contiguous class.
    """

    def __init__(self, known: np.ndarray, class_of: dict[int, int], taxonomy: Taxonomy) -> None:
        self.labels = known.astype(np.int32)
        self.class_of = dict(class_of)
        self.taxonomy = taxonomy
        # What the caller gave is deeper than any window.
        self._depth = np.where(known != VOID, np.iinfo(np.int32).max, 0)

    def known(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Labels of a window `[height, width]`, cut at the picture's end, where they are not to be sampled.

        Of what windows share, the part that lies deeper in a finished one is known.
        """
        return np.where(self._open(top, left, height, width), VOID, self.labels[self._region(top, left, height, width)])

    def mask(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """What a model is to continue in a window, int64 `[2, height, width]`: known classes, `UNKNOWN` elsewhere."""
        result = np.full((2, height, width), UNKNOWN)
        known = self.known(top, left, height, width)
        labels, dense = np.unique(known, return_inverse=True)
        classes = np.array([self.class_of[i] if i != VOID else UNKNOWN for i in labels.tolist()])
        result[0, : known.shape[0], : known.shape[1]] = classes[dense].reshape(known.shape)
        return result

    def add(self, top: int, left: int, found: Labels, min_pixels: int) -> None:
        """Take a sampled window's labels where they were not known; things below `min_pixels` go to the nearest."""
        height, width = found[0].shape
        known, region = self.known(top, left, height, width), self._region(top, left, height, width)
        window = self._open(top, left, height, width)
        labels, class_of = adopt(found, known, self.class_of, self.taxonomy)
        new = {label: class_of[label] for label in class_of.keys() - self.class_of.keys()}
        labels, new = fill_small(labels, new, min_pixels)
        self.class_of |= new
        self.labels[region][window] = labels[window]
        self._depth[region][window] = window_depth(top, left, labels.shape, self.labels.shape)[window]

    def _open(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        depth = self._depth[self._region(top, left, height, width)]
        return window_depth(top, left, depth.shape, self.labels.shape) > depth

    def _region(self, top: int, left: int, height: int, width: int) -> tuple[slice, slice]:
        return np.s_[top : top + height, left : left + width]


def adopt(found: Labels, known: np.ndarray, class_of: dict[int, int], taxonomy: Taxonomy) -> Labels:
    """Give what was found the labels of the known segments that it continues.

    A thing that contains pixels of one known thing of its class becomes part of it; one that contains several is
    shared out, each pixel to the nearest. Stuff joins by class. The rest get new labels.

    Args:
        found: labels `[h, w]` and their classes.
        known: labels `[h, w]`, 0 = not known; they stay.
        class_of: known label → contiguous class, also of labels that occur elsewhere.
        taxonomy: which classes are things.

    Returns:
        The labels, and the class of all: `class_of` and what is new.
    """
    labels, classes = found
    given = known != VOID
    holders: dict[int, list[int]] = {}
    for label, owner in np.unique(np.stack([labels[given], known[given]]), axis=1).T.tolist():
        if label != VOID and classes[label] == class_of[owner]:
            holders.setdefault(label, []).append(owner)
    class_of, stuff = dict(class_of), {c: i for i, c in class_of.items() if not taxonomy.category(c).isthing}
    table = np.zeros(max(classes, default=0) + 1, np.int64)
    for label, class_index in classes.items():
        new = max(class_of, default=0) + 1
        table[label] = stuff.get(class_index) or holders.get(label, [new])[0]
        class_of[int(table[label])] = class_index
    result = table[labels]
    for label, owners in holders.items():
        if len(owners) > 1 and taxonomy.category(classes[label]).isthing:
            inside = labels == label
            seeds = np.where(inside & np.isin(known, owners), known, VOID)
            nearest = np.asarray(
                ndimage.distance_transform_edt(seeds == VOID, return_distances=False, return_indices=True)
            )
            result[inside] = seeds[tuple(np.asarray(nearest))][inside]
    return np.where(given, known, result), class_of


def reduced(labels: np.ndarray, height: int, width: int, stride: int) -> np.ndarray:
    """Labels of a picture at the resolution of its mask; thin strokes stay, for a mask pixel takes any label it covers.

    Args:
        labels: integers `[h, w]`, 0 = not known.
        height: of the picture at the network's scale.
        width: likewise.
        stride: pixels of that picture per mask pixel, along each axis.

    Returns:
        `[ceil(height / stride), ceil(width / stride)]`.
    """
    padding = ((0, -height % stride), (0, -width % stride))
    result = np.pad(resize_labels(labels, height, width), padding)[stride // 2 :: stride, stride // 2 :: stride].copy()
    rows, columns = np.nonzero(labels)
    cells = tuple(
        ((at + 0.5) * (new / old) / stride).astype(np.int64)
        for at, new, old in zip((rows, columns), (height, width), labels.shape, strict=True)
    )
    empty = result[cells] == VOID
    result[tuple(cell[empty] for cell in cells)] = labels[rows[empty], columns[empty]]
    return result


def united(labels: np.ndarray, class_of: dict[int, int], known: Panoptic) -> Panoptic:
    """The result: given pixels as they were given, with their ids; what is new gets the smallest ids that are free.

    Args:
        labels: `[h, w]`; 1 .. n continue the n segments of `known`, in its order.
        class_of: label → contiguous class.
        known: what was given, at the same height and width.
    """
    given = [segment.id for segment in known.segments]
    free = (i for i in count(1) if i not in set(given))
    ids = {
        label: given[label - 1] if label <= len(given) else next(free) for label in np.unique(labels).tolist() if label
    }
    known_class = {segment.id: known.taxonomy.class_of(segment.category_id) for segment in known.segments}
    classes = {new: class_of[label] for label, new in ids.items()} | known_class
    table = np.zeros(max(ids, default=0) + 1, np.int32)
    table[list(ids)] = list(ids.values())
    segmentation = np.where(known.segmentation != VOID, known.segmentation, table[labels])
    crowds = [segment.id for segment in known.segments if segment.iscrowd]
    return Panoptic.from_segmentation(segmentation, classes, known.taxonomy, crowds)
