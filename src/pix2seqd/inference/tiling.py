"""From an image to the windows that the network sees, and from their masks back to the image's segments."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pix2seqd.checkpoint import Checkpoint, coarsest_cell
from pix2seqd.config import InferConfig
from pix2seqd.files import InputError
from pix2seqd.images.load import Source, bands, open_pixels
from pix2seqd.images.resize import ScaledImage, nearest, pad_image, resize_labels, smooth_labels, stretch_table
from pix2seqd.inference import postprocess, stitching
from pix2seqd.inference.inpainting import InpaintedMask, combine, downsample
from pix2seqd.inference.postprocess import LabelMap
from pix2seqd.panoptic.panoptic import Panoptic, typical_diameter
from pix2seqd.panoptic.runs import Runs
from pix2seqd.panoptic.taxonomy import VOID
from pix2seqd.speed.hardware import give_back_memory

_LARGE = 2**22
"""Mask pixels of an image for which it is worth returning memory to the system from time to time."""

_PARTS = 4
"""Sides of windows are multiples of this part of the network's input: images of many sizes then have few shapes, which
batches and CUDA graphs need."""
_LARGEST = 1.25
"""Largest window in multiples of the network's input: one larger window replaces two that overlap."""
_ENOUGH = 32
"""Things that tell the scale of an image."""


@dataclass(frozen=True)
class ResizedImage:
    """An image at the network's scale, and the windows that the network sees one by one."""

    size: tuple[int, int]
    """Height and width of the image as it was given."""
    pixels: ScaledImage
    """float `[3, H, W]`, 0..1; parts are computed when they are asked for."""
    mask_size: tuple[int, int]
    """Height and width of its mask."""
    window: tuple[int, int]
    """Height and width of the windows' masks."""
    corners: list[tuple[int, int]]
    """Top and left of the windows' masks in its mask, row by row."""
    zoom: float
    """Network pixels per image pixel."""
    moments: list[Tensor] = field(default_factory=list)
    """`familiarity.moments` of the windows that the encoder has seen."""

    def give_back_memory(self) -> None:
        """Return what was freed to the system, if the image is large (`hardware.give_back_memory`)."""
        if math.prod(self.mask_size) > _LARGE:
            give_back_memory()


@dataclass(frozen=True)
class Window:
    """The networks' input for one window."""

    number: int
    """Number of the window in its image, from 0."""
    pixels: Tensor
    """float `[3, H, W]`, 0..1."""
    noise: tuple[Tensor, ...]
    """Standard normal `[bits, h, w]` for each sample."""
    hints: Tensor | None = None
    """int64 `[2, h, w]`, given classes and ids, -1 where nothing is given."""
    inside: tuple[int, int] = (0, 0)
    """Height and width of the part of `pixels` that is the image; the rest is padding."""
    moments: list[Tensor] = field(default_factory=list)
    """`ResizedImage.moments` of its image."""


class ScaleEstimate(NamedTuple):
    """What some windows of an image at one zoom say of its scale."""

    diameter: float
    """The things' typical diameter (`panoptic.typical_diameter`) in image pixels; 0: there are none."""
    score: float
    """The mean score of the things' pixels, 0 to 1."""
    things: int
    """Number of things."""


class Tiling:
    """How a checkpoint scales images, cuts them into windows and joins the results; without its networks."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.data, self.model, self.taxonomy = checkpoint.data, checkpoint.model.config, checkpoint.taxonomy
        height, width = self.data.size
        scale = checkpoint.infer.input_scale
        self.size = height * scale, width * scale
        """Height and width of the network's input."""
        is_fixed = self.data.layout == "resize" and len(checkpoint.infer.sample_scales) == 1
        self._cell = 1 if is_fixed else coarsest_cell(checkpoint.model)
        self._units = tuple(max(side // _PARTS // self._cell, 1) * self._cell for side in self.size)
        """Sides of tiles are multiples of these."""
        self._join_below = checkpoint.infer.join_below

    def resize(self, source: Source, zoom: float | None = None, scale: float = 1.0) -> ResizedImage:
        """Read an image and bring it to the network's scale; layout tile: `zoom`, by default `DataConfig.zoom`.

        `scale` multiplies this scale, and with layout resize the size of the network's input.
        """
        config, stride = self.data, self.model.mask.stride
        image = open_pixels(source)
        size = self.size
        if scale != 1:
            size = tuple(max(round(scale * side / self._cell), 1) * self._cell for side in size)
        fit = min(side / own for side, own in zip(size, (image.height, image.width), strict=True))
        zoom = fit if config.layout == "resize" else scale * (zoom or config.zoom)
        height, width = (max(round(side * zoom), 1) for side in (image.height, image.width))
        table = None if config.normalize == "none" else stretch_table(image.counts)
        pixels = ScaledImage(image, table, height, width)
        rows, columns = -(-height // stride), -(-width // stride)
        window = self._tile(rows, columns) if config.layout == "tile" else (size[0] // stride, size[1] // stride)
        tops, lefts = (
            stitching.windows(n, side, config.overlap // stride)
            for n, side in zip((rows, columns), window, strict=True)
        )
        corners = list(product(tops, lefts))
        return ResizedImage((image.height, image.width), pixels, (rows, columns), window, corners, zoom)

    def _tile(self, *mask_size: int) -> tuple[int, int]:
        """Layout tile: height and width of the windows' masks for an image's mask."""
        config, stride = self.data, self.model.mask.stride
        height, width = (
            stitching.window_size(
                n, int(_LARGEST * side) // unit * unit // stride, config.overlap // stride, unit // stride
            )
            for n, side, unit in zip(mask_size, self.size, self._units, strict=True)
        )
        return height, width

    def split(
        self, image: ResizedImage, generators: Sequence[torch.Generator], mask: InpaintedMask | None = None
    ) -> Iterator[Window]:
        """The windows of an image, one by one, with noise of one generator for each sample.

        With a mask to inpaint, the hints of a window are read when it is yielded.
        """
        stride, bits = self.model.mask.stride, self.model.mask.total_bits
        height, width = (side * stride for side in image.window)
        for number, (top, left) in enumerate(image.corners):
            part = image.pixels[:, top * stride : top * stride + height, left * stride : left * stride + width]
            noise = tuple(torch.randn(bits, *image.window, generator=generator) for generator in generators)
            hints = None if mask is None else torch.from_numpy(mask.hints(top, left, *image.window))
            inside = part.shape[1], part.shape[2]
            yield Window(number, pad_image(part, height, width), noise, hints, inside, image.moments)
        image.pixels.release()

    def minimum(self, image: ResizedImage, infer: InferConfig) -> int:
        """Minimum number of image pixels of a segment (`InferConfig.min_pixels`, `InferConfig.min_share`)."""
        smallest = infer.min_share * math.pi / 4 * self.data.diameter**2
        return max(infer.min_pixels, round(smallest / image.zoom**2))

    def stitch(self, image: ResizedImage, masks: Iterable[np.ndarray], infer: InferConfig) -> Panoptic:
        """Masks of an image's windows → segments at the image's size, without those below `minimum`.

        The masks come one by one, integers `[4, h, w]`, as `Runner.masks` gives them; of the settings, `min_pixels` and
        `smooth` count.
        """
        return next(self.stitch_samples(image, ([mask] for mask in masks), infer))

    def stitch_samples(
        self, image: ResizedImage, masks: Iterable[Sequence[np.ndarray]], infer: InferConfig
    ) -> Iterator[Panoptic]:
        """The same for several samples: each window comes with the masks of all samples.

        The samples' segments are computed one after the other, so that the maps of a large image need not exist all
        at once.
        """
        minimum, smooth = self.minimum(image, infer), infer.smooth and self._is_coarser(image)
        if self.data.layout == "resize" and not smooth:  # as the official code
            (found,) = masks  # one window
            for mask in found:
                yield self._official(self.to_image_size(mask, image), minimum)
            return
        scale = image.zoom / self.model.mask.stride
        stitchers: list[stitching.LabelStitcher] = []
        above = 0
        for (top, left), found in zip(image.corners, masks, strict=True):
            if top > above:
                image.give_back_memory()
            above = top
            stitchers = stitchers or [stitching.LabelStitcher(*image.mask_size, self.taxonomy) for _ in found]
            for stitcher, mask in zip(stitchers, found, strict=True):
                segments, confidence = self._segments(
                    _inside(mask, top, left, image.mask_size), round(minimum * scale**2)
                )
                stitcher.add(top, left, segments, confidence)
                del stitcher  # so that `_finished` can let it go
        stitchers.reverse()
        while stitchers:
            image.give_back_memory()
            yield self._finished(stitchers, image, minimum, smooth)

    def _official(self, mask: np.ndarray, minimum: int) -> Panoptic:
        (labels, classes), confidence = self._segments(mask, minimum)
        runs = Runs.encode(labels)
        scores = postprocess.mean_confidence(runs, confidence)
        return Panoptic.from_runs(runs, classes, self.taxonomy, scores)

    def _finished(
        self, stitchers: list[stitching.LabelStitcher], image: ResizedImage, minimum: int, smooth: bool
    ) -> Panoptic:
        """Joined labels of an image's mask, and their confidence → segments at the image's size; the last is taken."""
        stitcher = stitchers.pop()
        (runs, classes), confidence = stitcher.labels(), stitcher.confidence
        del stitcher  # nothing of a large image stays longer than it is needed
        scores = postprocess.mean_confidence(runs, confidence)
        weights = confidence if smooth else None
        del confidence
        labels = self._upsampled(runs, weights, image)
        del weights, runs
        labels, classes = self._without_small(labels, classes, minimum)
        runs = Runs.encode(labels)
        del labels  # before the map of segments is made
        return Panoptic.from_runs(runs, classes, self.taxonomy, scores)

    def _segments(self, mask: np.ndarray, minimum: int) -> tuple[LabelMap, np.ndarray]:
        """Segments of a mask, integers `[4, h, w]`, of `minimum` mask pixels or more; the confidence of its pixels."""
        find = postprocess.segments_by_id if self.data.ids == "unique" else postprocess.segments_by_component
        found, confidence = find(mask[:2], self.taxonomy, minimum), self._confidence(mask)
        if self._join_below:
            found, joined = postprocess.join_uncertain(found, mask[3], self.taxonomy, self._join_below)
            # Their ids say nothing any more.
            np.copyto(confidence, mask[2], where=np.isin(found[0], joined), casting="same_kind")
        return found, confidence

    def _confidence(self, mask: np.ndarray) -> np.ndarray:
        """The model's confidence in each pixel's segment, from its mask: in the class, and of things in the id too."""
        things = np.array(self.taxonomy.things)
        thing = things[np.where(mask[0] < len(things), mask[0], VOID)]
        both = mask[2].astype(np.int32) * mask[3] // postprocess.MAX_CONFIDENCE
        return np.where(thing, both, mask[2]).astype(np.uint8)

    def estimate_scale(self, image: ResizedImage, masks: Iterable[np.ndarray]) -> Iterator[ScaleEstimate]:
        """What the windows' things say of the image's scale, after each window.

        No more masks are read than `_ENOUGH` things need.
        """
        areas: list[int] = []
        scores = 0.0
        for (top, left), mask in zip(image.corners, masks, strict=True):
            (labels, classes), confidence = self._segments(_inside(mask, top, left, image.mask_size), 0)
            mean = postprocess.mean_confidence(Runs.encode(labels), confidence)
            found = Panoptic.from_segmentation(labels, classes, self.taxonomy)
            things = [segment for segment in found.segments if segment.isthing]
            areas += [segment.area for segment in things]
            scores += sum(segment.area * mean[segment.id] for segment in things)
            diameter = typical_diameter(areas) * self.model.mask.stride / image.zoom
            yield ScaleEstimate(diameter, scores / max(sum(areas), 1), len(areas))
            if len(areas) >= _ENOUGH:
                break

    def generated_ids(self, image: ResizedImage, masks: Sequence[np.ndarray]) -> np.ndarray:
        """The id that the model gave each pixel of the image, `[h, w]`, 0 = none."""
        canvas = stitching.Canvas(*image.mask_size, np.int32)
        for (top, left), mask in zip(image.corners, masks, strict=True):
            canvas.paint(top, left, mask[1])
        return self.to_image_size(canvas.values, image)

    def to_masks(self, panoptic: Panoptic, ids: Mapping[int, int], image: ResizedImage) -> np.ndarray:
        """Masks of the image's windows, int64 `[windows, 2, h, w]`, void beyond the image: the inverse of `stitch`.

        Args:
            panoptic: a segmentation of the image's size.
            ids: segment id → id in the mask; 0 for segments that are missing.
            image: the image, for its windows.
        """
        height, width = image.window
        _, rows, columns = image.pixels.shape
        labels = downsample(panoptic.segmentation, rows, columns, self.model.mask.stride)
        table = np.zeros((2, int(panoptic.segmentation.max(initial=VOID)) + 1), np.int64)
        for segment in panoptic.segments:
            table[:, segment.id] = self.taxonomy.class_of(segment.category_id), ids.get(segment.id, 0)
        mask = np.pad(table[:, labels], ((0, 0), (0, height), (0, width)))
        return np.stack([mask[:, top : top + height, left : left + width] for top, left in image.corners])

    def _is_coarser(self, image: ResizedImage) -> bool:
        """Whether the mask has fewer pixels than the image as it was given."""
        return image.zoom < self.model.mask.stride

    def _upsampled(self, labels: Runs, weights: np.ndarray | None, image: ResizedImage) -> np.ndarray:
        """Labels of an image's mask → of the image, `[h, w]`, with smooth outlines if there are weights."""
        stride, sides = self.model.mask.stride, image.pixels.shape[1:]
        if weights is not None:
            height, width = (side / stride for side in sides)
            return smooth_labels(labels.decode(labels.values), weights, (height, width), *image.size)
        rows, columns = (nearest(n, m, stride) for n, m in zip(image.size, sides, strict=True))
        result = np.empty(image.size, np.int32)
        for band in bands(*image.size):  # a mask of a larger scale need not exist as a whole
            first, last = rows[band][0], rows[band][-1]
            result[band] = labels.rows(first, last + 1).take(rows[band] - first, axis=0).take(columns, axis=1)
        return result

    def _without_small(self, labels: np.ndarray, classes: dict[int, int], minimum: int) -> LabelMap:
        """Unique ids: segments of fewer than `minimum` pixels become void; otherwise `fill_small`, in `labels`."""
        if self.data.ids == "reused":
            return postprocess.fill_small(labels, classes, minimum, in_place=True)
        runs = Runs.encode(labels)
        areas = runs.areas(1 + max(classes, default=0))
        classes = {label: c for label, c in classes.items() if areas[label] >= minimum}
        return runs.decode(np.where(np.isin(runs.values, list(classes)), runs.values, VOID)), classes

    def to_image_size(self, labels: np.ndarray, image: ResizedImage) -> np.ndarray:
        """`[..., h, w]` of a mask → of the image: to the network's scale, without padding, then back (official)."""
        stride, (height, width) = self.model.mask.stride, image.pixels.shape[1:]
        return resize_labels(labels, *image.size, (height, width), stride)

    def inpainted(self, image: ResizedImage, hints: Panoptic) -> InpaintedMask:
        """The mask of an image, to be generated window by window around hints.

        Hints of another size than the image, or other categories than the checkpoint's, are an `InputError`.
        """
        if hints.segmentation.shape != image.size:
            hinted, own = (f"{width} x {height}" for height, width in (hints.segmentation.shape, image.size))
            raise InputError(f"the hints are {hinted} but the image is {own}; give a segmentation of the image's size")
        if hints.taxonomy.categories != self.taxonomy.categories:
            raise InputError("the hints have other categories than the checkpoint; give them its taxonomy")
        renumbered = hints.renumbered()
        _, height, width = image.pixels.shape
        labels = downsample(renumbered.without_crowds().segmentation, height, width, self.model.mask.stride)
        return InpaintedMask(labels, renumbered.classes, self.taxonomy)

    def add(self, mask: InpaintedMask, number: int, found: np.ndarray, image: ResizedImage, infer: InferConfig) -> None:
        """Write the generated mask of a window into the image's mask, without segments below `minimum`."""
        top, left = image.corners[number]
        labels, confidence = self._segments(_inside(found, top, left, mask.labels.shape), 0)
        minimum = self.minimum(image, infer) * mask.labels.size / math.prod(image.size)
        mask.add(top, left, labels, round(minimum), confidence)

    def finish(self, mask: InpaintedMask, image: ResizedImage, hints: Panoptic, infer: InferConfig) -> Panoptic:
        """An inpainted mask → segments at the image's size, with the hints as they were given."""
        new = {label: c for label, c in mask.class_of.items() if label > len(hints.segments)}
        smooth = infer.smooth and self._is_coarser(image)
        runs = Runs.encode(mask.labels)
        upsampled = self._upsampled(runs, mask.confidence if smooth else None, image)
        labels, _ = postprocess.fill_small(upsampled, new, self.minimum(image, infer))
        return combine(labels, mask.class_of, hints, postprocess.mean_confidence(runs, mask.confidence))


def _inside(mask: np.ndarray, top: int, left: int, size: Sequence[int]) -> np.ndarray:
    """The part of a window's mask `[..., h, w]` that lies in the mask of its image, of `size` (height, width)."""
    return mask[..., : size[0] - top, : size[1] - left]
