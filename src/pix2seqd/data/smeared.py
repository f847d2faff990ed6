"""Label images whose values JPEG or interpolation has changed."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from pix2seqd.files import InputError

MIXED = 0.1
"""Share of the pixels at borders from which values between the two sides were interpolated; labels have 0.02."""
MIN_BORDER = 50
"""Number of pixels at borders from which this can be told."""
SOFT = 64
"""Value from which a mask may have values between 0 and its own, at its edges."""
LOW = 16
"""Value below which all values are so low that JPEG changes them by little."""
QUALITIES = (50, 60, 70, 75, 80, 85, 87, 88, *range(90, 96))
"""Qualities of JPEG that programs use; higher ones leave specks."""
SIDE = 512
"""Side of the part of a large image that is compared with itself as JPEG."""
MIN_CHANGED = 100
"""Number of pixels that JPEG has to change for a comparison."""
UNCHANGED = 0.2
"""Share of them that it changes in an image that was a JPEG of this quality; in other images it is 0.3 and more."""


def is_smooth(pixels: np.ndarray) -> bool:
    """Whether grey values `[h, w]` are a mask with soft edges: lines of one pixel between 0 and the highest."""
    high = int(pixels.max(initial=0))
    between = (pixels > 0) & (pixels < high)
    if high < SOFT or len(np.unique(pixels[between])) < 2 or (pixels == 0).sum() < between.sum():
        return False
    block = pixels[1:, 1:]
    blocks = between[1:, 1:] & (block == pixels[:-1, 1:]) & (block == pixels[1:, :-1]) & (block == pixels[:-1, :-1])
    return bool(between.sum() < (pixels == high).sum() and blocks.sum() < 0.1 * between.sum())


def is_mixed(pixels: np.ndarray) -> bool:
    """Whether grey values `[h, w]` were interpolated: at borders lie pixels of values between the two sides.

    A border of one value, such as a class for the outline of cells, is none.
    """
    apart, between = 0, [np.zeros(0, pixels.dtype)]
    for rows in (pixels, pixels.T):
        before, middle, after = rows[:, :-2], rows[:, 1:-1], rows[:, 2:]
        border = np.abs(before - after) > 1
        inside = border & (np.minimum(before, after) < middle) & (middle < np.maximum(before, after))
        apart += int(border.sum())
        between.append(middle[inside])
    found = np.concatenate(between)
    return bool(apart >= MIN_BORDER and len(found) > MIXED * apart and (found != found[:1]).any())


def smeared(path: Path) -> InputError:
    """The error that most values of a label image are specks."""
    return InputError(
        f"{path} has too many values to be labels, most are specks or lines: it is a picture, or JPEG or resizing has "
        "smeared them; export the labels again as PNG or TIFF, without interpolation"
    )


def mixed(path: Path, declaration: Path, what: str) -> InputError:
    """The error that a label image has `what` nobody drew; the user can choose the coding in the file `declaration`."""
    return InputError(
        f"{path} has {what}: JPEG or resizing has smeared them; export the labels again as PNG or TIFF, without "
        f"interpolation; if they are meant, write the coding, such as 'coding: class', to {declaration}"
    )


def was_jpeg(pixels: np.ndarray) -> bool:
    """Whether low grey values `[h, w]` were a JPEG, such as a mask of 0 and 1, whose borders it moves.

    JPEG of the same quality hardly changes them again, unless its blocks of 8 x 8 pixels begin elsewhere.
    """
    height, width = (min(side - side % 8 - 8, SIDE) for side in pixels.shape)
    rows, columns = np.nonzero(pixels[:, 1:] != pixels[:, :-1])
    if min(height, width) < 8 or pixels.max(initial=0) >= LOW or not len(rows):
        return False
    top = _start(int(np.median(rows)) - height // 2, pixels.shape[0] - 8 - height)
    left = _start(int(np.median(columns)) - width // 2, pixels.shape[1] - 8 - width)
    part = pixels[top : top + height + 8, left : left + width + 8].astype(np.uint8)
    cells = part[:height, :width].reshape(height // 4, 4, width // 4, 4)
    if (cells == cells[:, :1, :, :1]).all():
        return False  # a label image of fewer pixels that was enlarged fits the blocks too
    for quality in QUALITIES:
        there, elsewhere = (_changed(part[k : k + height, k : k + width], quality) for k in (0, 4))
        if elsewhere >= MIN_CHANGED and there < UNCHANGED * elsewhere:
            return True
    return False


def _start(wanted: int, highest: int) -> int:
    """The block of 8 pixels at a place, or at the nearest one from 0 to the highest."""
    return min(max(0, wanted), highest) // 8 * 8


def _changed(values: np.ndarray, quality: int) -> int:
    """Number of pixels of grey values, uint8 `[h, w]`, that JPEG changes."""
    file = io.BytesIO()
    Image.fromarray(values).save(file, "JPEG", quality=quality)
    return int((np.asarray(Image.open(file)) != values).sum())
