"""Inpainting: windows whose mask is given in part, by the caller's hints or by finished windows.

An `InpaintedMask` is the mask of a whole image that is filled window by window. It returns the hints of a window, and
takes the generated window. The model gets the given classes but not the ids: with prescribed ids it cut given segments
in two (docs/annotation.md). `match_given` finds afterwards which given segments the generated ones continue.
"""

from itertools import count

import numpy as np
from scipy import ndimage

from pix2seqd.images.resize import resize_labels
from pix2seqd.inference.postprocess import MAX_CONFIDENCE, LabelMap, fill_small
from pix2seqd.inference.stitching import window_depth
from pix2seqd.panoptic.panoptic import Panoptic, unique_inverse
from pix2seqd.panoptic.runs import mapped
from pix2seqd.panoptic.taxonomy import VOID, Taxonomy

NO_HINT = -1
"""Value of pixels that are to be generated, in both channels of a window's hints."""


class InpaintedMask:
    """The labels of a whole image's mask while its windows are generated one after the other.

    Attributes:
        labels: int32 `[h, w]`, 0 = void or not generated yet.
        class_of: label → contiguous class.
        confidence: uint8 `[h, w]`, the model's confidence in the label, 0 to `MAX_CONFIDENCE`.
    """

    def __init__(self, hints: np.ndarray, class_of: dict[int, int], taxonomy: Taxonomy) -> None:
        self.labels = hints.astype(np.int32)
        self.class_of = dict(class_of)
        self.confidence = np.where(hints != VOID, MAX_CONFIDENCE, 0).astype(np.uint8)
        self.taxonomy = taxonomy
        # How deep each pixel lies in the window that gave its label; hints of the caller count as the deepest.
        self._depth = np.where(hints != VOID, np.int32(np.iinfo(np.int32).max), np.int32(0))

    def given(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Given labels of a window `[height, width]`, cropped to the image; 0 where they are to be generated.

        Of an overlap, the part that lies deeper in a finished window is given.
        """
        return np.where(self._open(top, left, height, width), VOID, self.labels[self._region(top, left, height, width)])

    def hints(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """The model's hints for a window, int64 `[2, height, width]`: given classes, `NO_HINT` elsewhere."""
        result = np.full((2, height, width), NO_HINT)
        given = self.given(top, left, height, width)
        labels, dense = unique_inverse(given)
        classes = np.array([self.class_of[i] if i != VOID else NO_HINT for i in labels.tolist()])
        result[0, : given.shape[0], : given.shape[1]] = classes[dense]
        return result

    def add(self, top: int, left: int, found: LabelMap, min_pixels: int, confidence: np.ndarray) -> None:
        """Write a generated window where no labels are given; segments below `min_pixels` go to the nearest one."""
        height, width = found[0].shape
        given, region = self.given(top, left, height, width), self._region(top, left, height, width)
        window = self._open(top, left, height, width)
        labels, class_of = match_given(found, given, self.class_of, self.taxonomy)
        new = {label: class_of[label] for label in class_of.keys() - self.class_of.keys()}
        labels, new = fill_small(labels, new, min_pixels)
        self.class_of |= new
        self.labels[region][window] = labels[window]
        self.confidence[region][window] = confidence[window]
        self._depth[region][window] = window_depth(top, left, labels.shape, self.labels.shape)[window]

    def _open(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Pixels of a window that are to be generated, bool, cropped to the image; the others are given."""
        depth = self._depth[self._region(top, left, height, width)]
        return window_depth(top, left, depth.shape, self.labels.shape) > depth

    def _region(self, top: int, left: int, height: int, width: int) -> tuple[slice, slice]:
        return np.s_[top : top + height, left : left + width]


def match_given(found: LabelMap, given: np.ndarray, class_of: dict[int, int], taxonomy: Taxonomy) -> LabelMap:
    """Give generated segments the labels of the given segments that they continue.

    A thing that contains pixels of one given thing of its class becomes part of it. If it contains several, each of its
    pixels goes to the nearest one. Stuff is joined by class. All other segments get new labels.

    `given` are labels `[h, w]`, 0 = not given, which do not change, and `class_of` their classes, also of labels
    outside this window. Returns the labels, and the class of each: `class_of` with the new ones.
    """
    labels, classes = found
    fixed = given != VOID
    owners_of: dict[int, list[int]] = {}
    for label, owner in np.unique(np.stack([labels[fixed], given[fixed]]), axis=1).T.tolist():
        if label != VOID and classes[label] == class_of[owner]:
            owners_of.setdefault(label, []).append(owner)
    class_of, stuff = dict(class_of), {c: i for i, c in class_of.items() if not taxonomy.category(c).isthing}
    table = np.zeros(max(classes, default=0) + 1, np.int64)
    for label, class_index in classes.items():
        new = max(class_of, default=0) + 1
        table[label] = stuff.get(class_index) or owners_of.get(label, [new])[0]
        class_of[int(table[label])] = class_index
    result = table[labels]
    for label, owners in owners_of.items():
        if len(owners) > 1 and taxonomy.category(classes[label]).isthing:
            inside = labels == label
            seeds = np.where(inside & np.isin(given, owners), given, VOID)
            nearest = np.asarray(
                ndimage.distance_transform_edt(seeds == VOID, return_distances=False, return_indices=True)
            )
            result[inside] = seeds[tuple(np.asarray(nearest))][inside]
    return np.where(fixed, given, result), class_of


def downsample(labels: np.ndarray, height: int, width: int, stride: int) -> np.ndarray:
    """Labels `[h, w]` of an image at the resolution of its mask: `[ceil(height / stride), ceil(width / stride)]`.

    `height` and `width` are the image's at the network's scale, 0 is not given. Thin strokes stay: a void mask pixel
    takes any label inside it.
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


def combine(labels: np.ndarray, class_of: dict[int, int], hints: Panoptic, scores: dict[int, float]) -> Panoptic:
    """The result: the hints with their own ids and scores, and new segments with the smallest free ids.

    Of the labels `[h, w]`, of the size of the hints, 1 .. n continue the n segments of `hints`, in its order; the
    others have a class and a score.
    """
    given = [segment.id for segment in hints.segments]
    free = (i for i in count(1) if i not in set(given))
    ids = {
        label: given[label - 1] if label <= len(given) else next(free) for label in np.unique(labels).tolist() if label
    }
    classes = {new: class_of[label] for label, new in ids.items()} | hints.classes
    kept = {segment.id: segment.score for segment in hints.segments if segment.score is not None}
    scores = kept | {new: scores[label] for label, new in ids.items() if label > len(given)}
    segmentation = np.where(hints.segmentation != VOID, hints.segmentation, mapped(labels, ids))
    crowds = [segment.id for segment in hints.segments if segment.iscrowd]
    return Panoptic.from_segmentation(segmentation, classes, hints.taxonomy, crowds, scores)
