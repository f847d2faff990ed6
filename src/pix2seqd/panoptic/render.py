"""Drawing segments: over the image, or as a map of colours."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from pix2seqd.files import InputError
from pix2seqd.images.load import Source, load_image
from pix2seqd.panoptic.segment import Segment
from pix2seqd.panoptic.taxonomy import VOID, Taxonomy, distinct_color

STUFF_STRENGTH = 0.6
"""Opacity of stuff as a share of that of things, so that things stand out."""
MIN_TEXT_SIZE = 11
"""Pixels; smaller letters cannot be read."""


def overlay(
    image: Source, segmentation: np.ndarray, segments: Sequence[Segment], taxonomy: Taxonomy, alpha: float
) -> Image.Image:
    """Draw segments over their image; `Panoptic.overlay` describes arguments, result and errors."""
    image = load_image(image)
    height, width = segmentation.shape
    if image.size != (width, height):
        raise InputError(
            f"the image is {image.width} x {image.height} but its segmentation {width} x {height}; "
            "give the image that was segmented"
        )
    # One row per segment, void first: searchsorted turns ids (up to 2**24) into rows without a table of that size.
    rows = np.searchsorted([VOID, *(segment.id for segment in segments)], segmentation)
    isthing = np.array([False, *(segment.isthing for segment in segments)])
    colors = np.array([(0, 0, 0), *(segment_color(segment, taxonomy) for segment in segments)], np.uint8)
    opacity = np.where(isthing, 255 * alpha, 255 * alpha * STUFF_STRENGTH).astype(np.uint8)
    opacity[0] = 0
    paint, mask = colors[rows], opacity[rows]
    outline = isthing[rows] & _near_an_edge(rows, 2 * max(1, min(width, height) // 400) + 1)
    paint[outline] = _lighter(colors)[rows[outline]]
    mask[outline] = 230
    result = Image.composite(Image.fromarray(paint), image, Image.fromarray(mask))
    if len(taxonomy) > 2:
        _write_names(result, segments, rows)
    return result


def segment_color(segment: Segment, taxonomy: Taxonomy) -> tuple[int, int, int]:
    """RGB 0..255 of a segment in all views: a thing's depends on its id, that of stuff is its category's."""
    if segment.isthing:
        return distinct_color(segment.id)
    return taxonomy.category(taxonomy.class_of(segment.category_id)).color


def _lighter(colors: np.ndarray) -> np.ndarray:
    return (colors * 0.65 + 255 * 0.35).astype(np.uint8)


def _near_an_edge(rows: np.ndarray, size: int) -> np.ndarray:
    """Pixels whose window of `size` x `size` pixels holds more than one segment, bool `[h, w]`."""
    return ndimage.minimum_filter(rows, size) != ndimage.maximum_filter(rows, size)


def _write_names(result: Image.Image, segments: Sequence[Segment], rows: np.ndarray) -> None:
    """Write each segment's name where it has most room, if the whole text fits."""
    size = max(MIN_TEXT_SIZE, min(result.size) // 45)
    font, margin = ImageFont.load_default(size), size // 6
    draw = ImageDraw.Draw(result)
    step = 1 + min(result.size) // 512  # the position need not be exact
    coarse = rows[::step, ::step]
    inside = np.pad(~_near_an_edge(coarse, 3), 1)
    # Text is about four times as wide as high: distances along y count four times, so that wide spots win.
    room = np.asarray(ndimage.distance_transform_edt(inside, sampling=(4, 1)))[1:-1, 1:-1]
    spots = ndimage.maximum_position(room, coarse, range(1, len(segments) + 1))
    for row, (segment, spot) in enumerate(zip(segments, spots, strict=True), start=1):
        y, x = (step * v for v in spot)
        left, top, right, bottom = (round(v) for v in draw.textbbox((x, y), segment.name, font, anchor="mm"))
        left, top, right, bottom = left - margin, top - margin, right + margin, bottom + margin
        fits = left >= 0 and top >= 0 and right <= result.width and bottom <= result.height
        if fits and (rows[top:bottom, left:right] == row).mean() > 0.97:
            stroke = max(1, size // 9)
            draw.text((x, y), segment.name, "white", font, anchor="mm", stroke_width=stroke, stroke_fill=(20, 20, 20))
