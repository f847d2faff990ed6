"""Label images in which objects were drawn as lines around them, or as points, and not filled."""

import numpy as np
from scipy import ndimage

from pix2seqd.panoptic.panoptic import unique_inverse

WIDEST = 4
"""Width in pixels of the widest line that is looked for."""
CROSSINGS = 0.02
"""Number of places that are wider, as a share of the pixels of a line: where lines cross."""
ENCLOSED = 0.5
"""Number of pixels of 0 that lines enclose, as a share of their own, from which they surround objects."""
FEWEST = 10
"""Number of single pixels from which they are points that somebody marked."""
MOST = 200
"""Number of values that are looked at; a sample is enough."""


def are_outlines(values: np.ndarray) -> bool:
    """Whether most values other than 0 of an image, integers `[h, w]`, are thin closed lines around nothing but 0."""
    found, dense = unique_inverse(values)
    dense += 1
    boxes = ndimage.find_objects(dense)
    present = np.flatnonzero(found)
    chosen = present[:: max(1, len(present) // MOST)]
    outlines = sum(_is_outline(dense[boxes[i]] == i + 1, values[boxes[i]] == 0) for i in chosen)
    return bool(2 * outlines > len(chosen))


def are_points(values: np.ndarray) -> bool:
    """Whether an image, integers `[h, w]`, has only single pixels that are not 0, and several of them."""
    drawn = values > 0
    beside = (drawn[1:] & drawn[:-1]).any() or (drawn[:, 1:] & drawn[:, :-1]).any()
    return bool(drawn.sum() >= FEWEST and not beside)


def _is_outline(mask: np.ndarray, background: np.ndarray) -> bool:
    """Whether a mask is thin and encloses background, both bool `[h, w]`."""
    wide = mask
    for _ in range(WIDEST):
        wide = wide[1:] & wide[:-1]
    for _ in range(WIDEST):
        wide = wide[:, 1:] & wide[:, :-1]
    if wide.sum() > CROSSINGS * mask.sum():
        return False
    areas, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))  # pyright: ignore[reportGeneralTypeIssues]
    enclosed = (areas != areas[0, 0])[1:-1, 1:-1]
    return bool((background & enclosed & ~mask).sum() >= ENCLOSED * mask.sum())
