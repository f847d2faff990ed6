"""`Segmenter`: the only path from pixels to `Panoptic`, for the command line, the evaluation and Python."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, product, tee
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from pix2seqd import postprocess
from pix2seqd.config import InferConfig, require
from pix2seqd.files import InputError
from pix2seqd.panoptic import Panoptic
from pix2seqd.placement import normalize, pad_image, resize_image, resize_labels
from pix2seqd.preprocess import Source, load_image
from pix2seqd.taxonomy import Taxonomy
from pix2seqd.weights import Pretrained, from_pretrained


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


class Segmenter:
    """A checkpoint, ready to segment pictures.

    Args of the constructor:
        pretrained: model, taxonomy and settings.
        device: "auto" takes a CUDA device where there is one.
        dtype: precision of the networks; "auto" is bfloat16 where the hardware computes it natively, else float32.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        device: str = "auto",
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    ) -> None:
        self.device = _device(device)
        self.model = pretrained.model.to(self.device).to(memory_format=torch.channels_last).eval()  # pyright: ignore
        self.pretrained = pretrained
        self.bfloat16 = dtype == "bfloat16" or (dtype == "auto" and _native_bfloat16(self.device))

    @classmethod
    def from_pretrained(
        cls, name: str | Path, device: str = "auto", dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    ) -> Self:
        """From a folder, a bundled name ("nuclei") or a hub id.

        Raises:
            InputError: no such checkpoint, or it is damaged; no such device.
        """
        return cls(from_pretrained(name), device, dtype)

    @property
    def taxonomy(self) -> Taxonomy:
        """What the categories of the results mean."""
        return self.pretrained.taxonomy

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        height, width = self.pretrained.data.size
        return height * self.pretrained.infer.enlarge, width * self.pretrained.infer.enlarge

    def describe(self) -> dict[str, Any]:
        """What determines a result beside the picture, the seed and the options of the call; plain values."""
        return {
            "model": self.pretrained.name,
            "weights": self.pretrained.digest,
            "dtype": "bfloat16" if self.bfloat16 else "float32",
            **self.pretrained.infer.to_dict(),
        }

    def image(
        self,
        source: Source,
        *,
        seed: int = 0,
        steps: int | None = None,
        td: float | None = None,
        min_pixels: int | None = None,
    ) -> Panoptic:
        """Segment one picture.

        Args:
            source: path, PIL image or array, whatever `load_image` takes.
            seed: of the picture's own noise; the same seed gives the same segmentation, alone or in a batch.
            steps: how often the decoder runs, 1 or more; None: the checkpoint's default, as for all that follow.
            td: τ_d ≥ 0 (§3.3).
            min_pixels: smaller segments are discarded.

        Returns:
            A segmentation of the picture's own size.

        Raises:
            InputError: the picture cannot be read, or an option makes no sense.
        """
        return next(self.images([source], seed=seed, steps=steps, td=td, min_pixels=min_pixels))

    def images(
        self,
        sources: Iterable[Source],
        *,
        seed: int = 0,
        steps: int | None = None,
        td: float | None = None,
        min_pixels: int | None = None,
        batch_size: int | None = None,
    ) -> Iterator[Panoptic]:
        """Segment many pictures, each as `image` does; `batch_size` windows go through the network at once."""
        options = self._options(seed, steps, td, min_pixels)
        # On CPUs larger batches gain nothing, and batches of one give the same bits whatever surrounds a picture.
        if batch_size is None:
            batch_size = 1 if self.device.type == "cpu" else 8
        if batch_size < 1:
            raise InputError(f"batch size must be 1 or more, not {batch_size}")
        # Windows and their masks are streams: of a large picture, and of many, only a few exist at any time.
        pictures, again = tee(self._scaled(np.asarray(load_image(source))) for source in sources)
        windows = chain.from_iterable(self._windows(picture, seed) for picture in pictures)
        masks = self._masks(windows, options, batch_size)
        for picture in again:
            yield self._assemble(picture, masks, options)

    def _options(self, seed: int, steps: int | None, td: float | None, min_pixels: int | None) -> InferConfig:
        given = {"steps": steps, "td": td, "min_pixels": min_pixels}
        try:
            require((0 <= seed < 2**63, f"seed must be 0 or more and below 2^63, not {seed}"))
            return self.pretrained.infer.replace(**{key: value for key, value in given.items() if value is not None})
        except ValueError as error:
            raise InputError(str(error)) from error

    def _scaled(self, picture: np.ndarray) -> Scaled:
        config, stride = self.pretrained.data, self.model.config.mask_stride
        pixels = normalize(picture, config.normalize)
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float().div_(255)
        height, width = picture.shape[:2]
        fit = min(self.size[0] / height, self.size[1] / width)
        scale = fit if config.layout == "resize" else config.zoom
        image = resize_image(image, max(round(height * scale), 1), max(round(width * scale), 1))
        tall, wide = (-(-n // stride) for n in image.shape[1:])
        tops, lefts = (
            postprocess.windows(n, size // stride, config.overlap // stride)
            for n, size in zip((tall, wide), self.size, strict=True)
        )
        return Scaled((height, width), image, (tall, wide), list(product(tops, lefts)))

    def _windows(self, picture: Scaled, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Picture `[3, H, W]` and noise `[bits, h, w]` of each window; a picture has a generator of its own."""
        height, width = self.size
        stride, bits = self.model.config.mask_stride, self.model.config.total_bits
        generator = torch.Generator().manual_seed(seed)
        for top, left in picture.corners:
            part = picture.image[:, top * stride : top * stride + height, left * stride : left * stride + width]
            noise = torch.randn(bits, height // stride, width // stride, generator=generator)
            yield pad_image(part, height, width), noise

    def _masks(
        self, windows: Iterator[tuple[Tensor, Tensor]], options: InferConfig, batch_size: int
    ) -> Iterator[np.ndarray]:
        """The generated mask of each window, int64 `[2, h, w]`."""
        while batch := list(islice(windows, batch_size)):
            images, noise = (torch.stack(part).to(self.device) for part in zip(*batch, strict=True))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16), torch.inference_mode():
                images = images.contiguous(memory_format=torch.channels_last)
                masks = self.model.infer(images, noise, options.steps, options.td)
            yield from masks.cpu().numpy()

    def _assemble(self, picture: Scaled, masks: Iterator[np.ndarray], options: InferConfig) -> Panoptic:
        """Masks of a picture's windows → segments at the picture's size."""
        config, taxonomy, least = self.pretrained.data, self.taxonomy, options.min_pixels
        find = postprocess.segments_by_id if config.ids == "unique" else postprocess.segments_by_component
        if config.layout == "resize":
            labels, classes = find(self._restored(next(masks), picture), taxonomy, least)
        else:
            tall, wide = picture.extent
            scale = config.zoom / self.model.config.mask_stride
            tiles = (
                (top, left, find(mask[:, : tall - top, : wide - left], taxonomy, round(least * scale**2)))
                for (top, left), mask in zip(picture.corners, masks, strict=False)
            )
            labels, classes = postprocess.join(tiles, tall, wide, taxonomy)
            labels, classes = postprocess.fill_small(self._restored(labels, picture), classes, taxonomy, least)
        return Panoptic.from_segmentation(labels, classes, taxonomy).renumbered()

    def _restored(self, labels: np.ndarray, picture: Scaled) -> np.ndarray:
        """`[..., h, w]` of a mask → of the picture: to the network's scale, without padding, then back (official)."""
        stride, (height, width) = self.model.config.mask_stride, picture.image.shape[1:]
        labels = labels.repeat(stride, axis=-2).repeat(stride, axis=-1)[..., :height, :width]
        return resize_labels(labels, *picture.size)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"no device {name!r} here ({str(error).splitlines()[0]}); use auto or cpu") from error
    return device


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
