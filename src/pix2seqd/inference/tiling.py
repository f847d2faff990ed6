"""From a picture to the windows that the network sees, and from their masks back to the picture's segments."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from pix2seqd.checkpoint import Checkpoint
from pix2seqd.files import InputError
from pix2seqd.images.load import Source, load_image
from pix2seqd.images.resize import normalize, pad_image, resize_image, resize_labels
from pix2seqd.inference import postprocess, stitching
from pix2seqd.inference.inpainting import Canvas, reduced, united
from pix2seqd.inference.postprocess import Labels
from pix2seqd.panoptic.panoptic import Panoptic, typical_diameter
from pix2seqd.panoptic.taxonomy import VOID, Taxonomy


@dataclass(frozen=True)
class Scaled:
    """A picture at the network's scale, and the windows that the network sees one by one."""

    size: tuple[int, int]
    """Height and width of the picture itself."""
    image: Tensor
    """float `[3, H, W]`, 0..1."""
    extent: tuple[int, int]
    """Height and width of its mask."""
    corners: list[tuple[int, int]]
    """Top and left of the windows' masks in its mask, row by row."""
    zoom: float
    """Network pixels per picture pixel."""


class Windows:
    """How a checkpoint looks at pictures, without its networks."""

    def __init__(self, pretrained: Checkpoint) -> None:
        self.data, self.model, self.taxonomy = pretrained.data, pretrained.model.config, pretrained.taxonomy
        height, width = self.data.size
        input_scale = pretrained.infer.input_scale
        self.size = height * input_scale, width * input_scale
        """Height and width of the network's input."""
        self.min_area = pretrained.infer.min_share * math.pi / 4 * self.data.diameter**2
        """Network pixels of the smallest segment that counts (`InferConfig.min_share`)."""

    def scaled(self, source: Source, zoom: float | None = None) -> Scaled:
        """Read a picture and bring it to the network's scale; layout tile: to `zoom` times its own, or the data's."""
        config, stride = self.data, self.model.mask.stride
        picture = np.asarray(load_image(source))
        pixels = normalize(picture, config.normalize)
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float().div_(255)
        height, width = picture.shape[:2]
        fit = min(self.size[0] / height, self.size[1] / width)
        scale = fit if config.layout == "resize" else zoom or config.zoom
        image = resize_image(image, max(round(height * scale), 1), max(round(width * scale), 1))
        tall, wide = (-(-n // stride) for n in image.shape[1:])
        tops, lefts = (
            stitching.windows(n, size // stride, config.overlap // stride)
            for n, size in zip((tall, wide), self.size, strict=True)
        )
        return Scaled((height, width), image, (tall, wide), list(product(tops, lefts)), scale)

    def cut(self, picture: Scaled, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Picture `[3, H, W]` and noise `[bits, h, w]` of each window; a picture or clip has its own generator."""
        height, width = self.size
        stride, bits = self.model.mask.stride, self.model.mask.total_bits
        for top, left in picture.corners:
            part = picture.image[:, top * stride : top * stride + height, left * stride : left * stride + width]
            noise = torch.randn(bits, height // stride, width // stride, generator=generator)
            yield pad_image(part, height, width), noise

    @property
    def find(self) -> Callable[[np.ndarray, Taxonomy, int], Labels]:
        """What turns a mask, integers `[2, h, w]`, into segments: (mask, taxonomy, least pixels) → labels."""
        unique = self.data.ids == "unique"
        return postprocess.segments_by_id if unique else postprocess.segments_by_component

    def least(self, picture: Scaled, min_pixels: int) -> int:
        """Pixels of the picture that a segment needs to count."""
        return max(min_pixels, round(self.min_area / picture.zoom**2))

    def assemble(self, picture: Scaled, masks: Iterator[np.ndarray], min_pixels: int) -> Panoptic:
        """Masks of a picture's windows → segments at the picture's size; `least` drops the small ones."""
        config, taxonomy, least = self.data, self.taxonomy, self.least(picture, min_pixels)
        if config.layout == "resize":
            labels, classes = self.find(self.restored(next(masks), picture), taxonomy, least)
        else:
            scale = picture.zoom / self.model.mask.stride
            tiles = self._tiles(picture, masks, round(least * scale**2))
            labels, classes = stitching.join(tiles, *picture.extent, taxonomy)
            labels, classes = postprocess.fill_small(self.restored(labels, picture), classes, least)
        return Panoptic.from_segmentation(labels, classes, taxonomy).renumbered()

    def _tiles(self, picture: Scaled, masks: Iterator[np.ndarray], least: int) -> Iterator[tuple[int, int, Labels]]:
        """Top, left and segments, of `least` mask pixels and more, of each window; `masks` may go on beyond them."""
        tall, wide = picture.extent
        for (top, left), mask in zip(picture.corners, masks, strict=False):
            yield top, left, self.find(mask[:, : tall - top, : wide - left], self.taxonomy, least)

    def diameter(self, picture: Scaled, masks: Iterator[np.ndarray]) -> float:
        """Of the things in the windows (`panoptic.typical_diameter`), in pixels of the picture; 0 if there are none."""
        areas: list[int] = []
        for _, _, labels in self._tiles(picture, masks, 0):
            found = Panoptic.from_segmentation(*labels, self.taxonomy)
            areas += [segment.area for segment in found.segments if segment.isthing]
        return typical_diameter(areas) * self.model.mask.stride / picture.zoom

    def generated_ids(self, picture: Scaled, masks: Sequence[np.ndarray]) -> np.ndarray:
        """The id that the model gave each pixel of the picture, `[h, w]`, 0 = none."""
        tiles = ((top, left, mask[1]) for (top, left), mask in zip(picture.corners, masks, strict=True))
        return self.restored(stitching.paint(tiles, *picture.extent), picture)

    def drawn(self, panoptic: Panoptic, ids: Mapping[int, int], picture: Scaled) -> np.ndarray:
        """Masks of the picture's windows, int64 `[windows, 2, h, w]`, void beyond the picture: `assemble` turned round.

        Args:
            panoptic: a segmentation of the picture's size.
            ids: of its segments, by their own id; 0 for the others.
            picture: says where the windows are.
        """
        height, width = (n // self.model.mask.stride for n in self.size)
        _, tall, wide = picture.image.shape
        labels = reduced(panoptic.segmentation, tall, wide, self.model.mask.stride)
        table = np.zeros((2, int(panoptic.segmentation.max(initial=VOID)) + 1), np.int64)
        for segment in panoptic.segments:
            table[:, segment.id] = self.taxonomy.class_of(segment.category_id), ids.get(segment.id, 0)
        mask = np.pad(table[:, labels], ((0, 0), (0, height), (0, width)))
        return np.stack([mask[:, top : top + height, left : left + width] for top, left in picture.corners])

    def restored(self, labels: np.ndarray, picture: Scaled) -> np.ndarray:
        """`[..., h, w]` of a mask → of the picture: to the network's scale, without padding, then back (official)."""
        stride, (height, width) = self.model.mask.stride, picture.image.shape[1:]
        labels = labels.repeat(stride, axis=-2).repeat(stride, axis=-1)[..., :height, :width]
        return resize_labels(labels, *picture.size)

    def canvas(self, picture: Scaled, known: Panoptic | None) -> Canvas:
        """The mask of a picture, to be sampled window by window, with what is known of it.

        Raises:
            InputError: what is known has another size than the picture, or other categories than the checkpoint.
        """
        if known is None:
            return Canvas(np.zeros(picture.extent, np.int32), {}, self.taxonomy)
        if known.segmentation.shape != picture.size:
            given, own = (f"{width} x {height}" for height, width in (known.segmentation.shape, picture.size))
            raise InputError(f"the known pixels are {given} but the picture is {own}; give a map of the picture's size")
        if known.taxonomy.categories != self.taxonomy.categories:
            raise InputError("the known pixels have other categories than the checkpoint; give them its taxonomy")
        compact = known.renumbered()
        # The network knows no crowds.
        counted = [segment.id for segment in compact.segments if not segment.iscrowd]
        labels = np.where(np.isin(compact.segmentation, counted), compact.segmentation, VOID)
        classes = {segment.id: self.taxonomy.class_of(segment.category_id) for segment in compact.segments}
        _, height, width = picture.image.shape
        return Canvas(reduced(labels, height, width, self.model.mask.stride), classes, self.taxonomy)

    def add(self, canvas: Canvas, top: int, left: int, mask: np.ndarray, picture: Scaled, min_pixels: int) -> None:
        """Put a sampled mask on the canvas; `least` drops small segments."""
        least = self.least(picture, min_pixels)
        tall, wide = canvas.labels.shape
        found = self.find(mask[:, : tall - top, : wide - left], self.taxonomy, 0)
        canvas.add(top, left, found, round(least * canvas.labels.size / math.prod(picture.size)))

    def finish(self, canvas: Canvas, picture: Scaled, known: Panoptic | None, min_pixels: int) -> Panoptic:
        """The mask of a picture → segments at the picture's size, with what was given as it was given."""
        least = self.least(picture, min_pixels)
        known = known or Panoptic(np.zeros(picture.size, np.int32), (), self.taxonomy)
        new = {label: c for label, c in canvas.class_of.items() if label > len(known.segments)}
        labels, _ = postprocess.fill_small(self.restored(canvas.labels, picture), new, least)
        return united(labels, canvas.class_of, known)
