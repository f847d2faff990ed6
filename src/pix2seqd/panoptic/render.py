"""Drawing segments: over the image, or as a map of colours."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from pix2seqd.files import InputError
from pix2seqd.images.load import Source, bands, open_pixels
from pix2seqd.panoptic.runs import Runs
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
    pixels = open_pixels(image)
    height, width = segmentation.shape
    if (pixels.width, pixels.height) != (width, height):
        raise InputError(
            f"the image is {pixels.width} x {pixels.height} but its segmentation {width} x {height}; "
            "give the image that was segmented"
        )
    ids = [VOID, *(segment.id for segment in segments)]
    isthing = np.array([False, *(segment.isthing for segment in segments)])
    colors = np.array([(0, 0, 0), *(segment_color(segment, taxonomy) for segment in segments)], np.uint8)
    opacity = np.where(isthing, 255 * alpha, 255 * alpha * STUFF_STRENGTH).astype(np.uint8)
    opacity[0] = 0
    paints = np.concatenate([np.column_stack([colors, opacity]), np.insert(_lighter(colors), 3, 230, axis=1)])
    reach = max(1, min(width, height) // 400)
    result = Image.new("RGB", (width, height))
    for rows in bands(height, width):
        start = max(0, rows.start - reach)
        numbers = _segment_index(segmentation[start : rows.stop + reach], ids)
        inner = np.s_[rows.start - start : rows.stop - start]
        outline = isthing[numbers[inner]] & _near_an_edge(numbers, reach)[inner]
        painted = Image.fromarray(paints[numbers[inner] + len(ids) * outline])
        band = Image.fromarray(pixels.rows(rows.start, rows.stop))
        band.paste(painted.convert("RGB"), (0, 0), painted.getchannel("A"))
        result.paste(band, (0, rows.start))
    if len(taxonomy) > 2:
        _write_names(result, segments, segmentation, ids)
    return result


def segment_color(segment: Segment, taxonomy: Taxonomy) -> tuple[int, int, int]:
    """RGB 0..255 of a segment in all views: a thing's depends on its id, that of stuff is its category's."""
    if segment.isthing:
        return distinct_color(segment.id)
    return taxonomy.category(taxonomy.class_of(segment.category_id)).color


def _lighter(colors: np.ndarray) -> np.ndarray:
    return (colors * 0.65 + 255 * 0.35).astype(np.uint8)


def _segment_index(segmentation: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """The position of each pixel's id in `ids`, which are sorted."""
    runs = Runs.encode(segmentation).indexed(ids)
    return runs.decode(runs.values)


def _near_an_edge(numbers: np.ndarray, reach: int) -> np.ndarray:
    """Pixels with more than one segment within `reach` pixels up, down, left and right of them, bool `[h, w]`."""
    along, down = (
        # An edge lies between a pixel and the next one, and both have to be near.
        _any(_any(np.pad(np.diff(numbers, axis=axis) != 0, reach), 2 * reach, axis), 2 * reach + 1, 1 - axis)
        for axis in (0, 1)
    )
    return along | down


def _any(mask: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Whether any of `size` consecutive elements along an axis is set, for each first one (a sliding maximum)."""
    mask, covered = np.moveaxis(mask, axis, 0), 1
    while covered < size:
        step = min(covered, size - covered)
        mask, covered = mask[:-step] | mask[step:], covered + step
    return np.moveaxis(mask, 0, axis)


def _write_names(
    result: Image.Image, segments: Sequence[Segment], segmentation: np.ndarray, ids: Sequence[int]
) -> None:
    """Write each segment's name where it has most room, if the whole text fits."""
    size = max(MIN_TEXT_SIZE, min(result.size) // 45)
    font, margin = ImageFont.load_default(size), size // 6
    draw = ImageDraw.Draw(result)
    step = 1 + min(result.size) // 512  # the position need not be exact
    coarse = _segment_index(segmentation[::step, ::step], ids)
    inside = np.pad(~_near_an_edge(coarse, 1), 1)
    # Text is about four times as wide as high: distances along y count four times, so that wide spots win.
    room = np.asarray(ndimage.distance_transform_edt(inside, sampling=(4, 1)))[1:-1, 1:-1]
    spots = ndimage.maximum_position(room, coarse, range(1, len(segments) + 1))
    for segment, spot in zip(segments, spots, strict=True):
        y, x = (step * v for v in spot)
        left, top, right, bottom = (round(v) for v in draw.textbbox((x, y), segment.name, font, anchor="mm"))
        left, top, right, bottom = left - margin, top - margin, right + margin, bottom + margin
        fits = left >= 0 and top >= 0 and right <= result.width and bottom <= result.height
        if fits and (segmentation[top:bottom, left:right] == segment.id).mean() > 0.97:
            stroke = max(1, size // 9)
            draw.text((x, y), segment.name, "white", font, anchor="mm", stroke_width=stroke, stroke_fill=(20, 20, 20))
