"""Label images in which objects were drawn as lines around them, as strokes or as dots, and not filled."""

import numpy as np
from scipy import ndimage

from pix2seqd.panoptic.panoptic import unique_inverse

WIDEST = 4
"""Width in pixels of the widest line that is looked for around what is small."""
LINE = 0.2
"""Width of the widest line around what is larger, as a share of the side of a square of this area."""
CROSSINGS = 0.02
"""Number of places that are wider, as a share of the pixels of a line: where lines cross."""
ENCLOSED = 0.5
"""Number of pixels of 0 that lines enclose, as a share of their own, from which they surround objects."""
FEWEST = 10
"""Number of dots from which they are points that somebody marked."""
DOT = 7
"""Width in pixels of the largest dot."""
DOTTED = 0.05
"""Share of an image that dots cover at most."""
ALIKE = 0.8
"""Share of the patches of an image that are equal if they are dots: no two objects are."""
STROKE = 7
"""Width in pixels of the widest stroke of a brush."""
LONG = 10
"""Pixels of a stroke in one patch, as a multiple of the square of its width."""
SPARSE = 0.1
"""Share of an image that strokes cover at most."""
MOST = 200
"""Number of values that are looked at; a sample is enough."""


def are_outlines(values: np.ndarray) -> bool:
    """Whether most values other than 0 of an image, integers `[h, w]`, are thin closed lines around nothing but 0."""
    masks = _masks(values)
    return bool(2 * sum(_is_outline(mask, values[box] == 0) for mask, box in masks) > len(masks))


def are_strokes(values: np.ndarray) -> bool:
    """Whether all values other than 0 of an image, integers `[h, w]`, are thin long lines, of which little is covered.

    Those around nothing but 0 are outlines.
    """
    drawn = np.count_nonzero(values)
    return bool(0 < drawn <= SPARSE * values.size) and all(_is_stroke(mask) for mask, _ in _masks(values))


def are_points(values: np.ndarray) -> bool:
    """Whether an image, integers `[h, w]`, has only single pixels or equal small dots that are not 0, and several."""
    patches, count = ndimage.label(values > 0, np.ones((3, 3)))  # pyright: ignore[reportGeneralTypeIssues]
    if count < FEWEST or np.count_nonzero(values) > DOTTED * values.size:
        return False
    boxes = [(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in ndimage.find_objects(patches)]
    kinds, often = np.unique(np.column_stack([boxes, np.bincount(patches.ravel())[1:]]), axis=0, return_counts=True)
    high, wide, pixels = kinds[often.argmax()]
    most = often.max() >= ALIKE * count and 2 * often.max() * pixels > np.count_nonzero(values)  # not stray pixels
    return bool(most and max(high, wide) <= DOT)


def _masks(values: np.ndarray) -> list[tuple[np.ndarray, tuple[slice, slice]]]:
    """The pixels of some values other than 0, bool `[h, w]`, and the box of each."""
    found, dense = unique_inverse(values)
    dense += 1
    boxes = ndimage.find_objects(dense)
    present = np.flatnonzero(found)
    return [(dense[boxes[i]] == i + 1, boxes[i]) for i in present[:: max(1, len(present) // MOST)]]


def _is_thin(mask: np.ndarray, width: int) -> bool:
    """Whether hardly any place of a mask, bool `[h, w]`, is wider than so many pixels."""
    wide = ndimage.minimum_filter(mask.view(np.uint8), width + 1, mode="constant")
    return bool(wide.sum(dtype=int) <= CROSSINGS * mask.sum())


def _is_stroke(mask: np.ndarray) -> bool:
    """Whether a mask, bool `[h, w]`, is thin, and most of it in long patches: small objects are thin too."""
    width = next((width for width in range(1, STROKE + 1) if _is_thin(mask, width)), None)
    if width is None:
        return False
    patches, _ = ndimage.label(mask, np.ones((3, 3)))  # pyright: ignore[reportGeneralTypeIssues]
    sizes = np.bincount(patches.ravel())[1:]
    return bool(2 * sizes[sizes >= LONG * width**2].sum() > sizes.sum())


def _is_outline(mask: np.ndarray, background: np.ndarray) -> bool:
    """Whether a mask is thin and encloses background, both bool `[h, w]`."""
    areas, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))  # pyright: ignore[reportGeneralTypeIssues]
    enclosed = np.where(background & ~mask, areas[1:-1, 1:-1], 0)
    sizes = np.bincount(enclosed[enclosed != areas[0, 0]])[1:]
    if sizes.sum() < ENCLOSED * mask.sum():
        return False
    return _is_thin(mask, max(WIDEST, int(LINE * np.sqrt(sizes.max()))))
