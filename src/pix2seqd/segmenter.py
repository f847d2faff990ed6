"""`Segmenter`: the only path from pixels to `Panoptic`, for the command line, the evaluation and Python."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
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
class Window:
    """A part of a picture at the network's input size, and where it lies."""

    image: Tensor
    """float `[3, H, W]`, 0..1."""
    noise: Tensor
    """float `[bits, h, w]`: the first state."""
    top: int
    left: int
    """Of its mask, in the mask of the whole picture."""
    used: tuple[int, int]
    """Height and width of its mask that show the picture; the rest is padding."""


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
        """From a folder, a bundled name ("nuclei", "shapes") or a hub id.

        Raises:
            InputError: no such checkpoint, or it is damaged; no such device.
        """
        return cls(from_pretrained(name), device, dtype)

    @property
    def taxonomy(self) -> Taxonomy:
        """What the categories of the results mean."""
        return self.pretrained.taxonomy

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
        batch_size = batch_size or (1 if self.device.type == "cpu" else 8)
        if batch_size < 1:
            raise InputError(f"batch size must be 1 or more, not {batch_size}")
        pending = iter(sources)
        while chunk := list(islice(pending, batch_size)):
            pictures = [np.asarray(load_image(source)) for source in chunk]
            split = [self._windows(picture, seed) for picture in pictures]
            masks = self._masks([window for part in split for window in part], options, batch_size)
            for picture, part in zip(pictures, split, strict=True):
                yield self._assemble(picture.shape[:2], [(window, next(masks)) for window in part], options)

    def _options(self, seed: int, steps: int | None, td: float | None, min_pixels: int | None) -> InferConfig:
        given = {"steps": steps, "td": td, "min_pixels": min_pixels}
        try:
            require((seed >= 0, f"seed must be 0 or more, not {seed}"))
            return self.pretrained.infer.replace(**{key: value for key, value in given.items() if value is not None})
        except ValueError as error:
            raise InputError(str(error)) from error

    def _windows(self, picture: np.ndarray, seed: int) -> list[Window]:
        """Cut or scale a picture to the network's size; its noise comes from a generator of its own."""
        config, stride = self.pretrained.data, self.model.config.mask_stride
        generator = torch.Generator().manual_seed(seed)
        pixels = normalize(picture, config.normalize)
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float() / 255
        height, width = image.shape[1:]
        if config.layout == "resize":
            scale = min(config.size[0] / height, config.size[1] / width)
        else:
            scale = config.zoom
        image = resize_image(image, max(round(height * scale), 1), max(round(width * scale), 1))
        (tall, wide), overlap = image.shape[1:], config.overlap
        result = []
        for top in (s - s % stride for s in postprocess.windows(tall, config.size[0], overlap)):
            for left in (s - s % stride for s in postprocess.windows(wide, config.size[1], overlap)):
                part = image[:, top : top + config.size[0], left : left + config.size[1]]
                noise = torch.randn(
                    self.model.config.total_bits, *(n // stride for n in config.size), generator=generator
                )
                used = (-(-part.shape[1] // stride), -(-part.shape[2] // stride))
                result.append(Window(pad_image(part, *config.size), noise, top // stride, left // stride, used))
        return result

    def _masks(self, windows: Sequence[Window], options: InferConfig, batch_size: int) -> Iterator[np.ndarray]:
        """The generated mask of each window, int64 `[2, h, w]`."""
        for start in range(0, len(windows), batch_size):
            batch = windows[start : start + batch_size]
            images = torch.stack([window.image for window in batch]).to(self.device)
            noise = torch.stack([window.noise for window in batch]).to(self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16), torch.inference_mode():
                images = images.contiguous(memory_format=torch.channels_last)
                masks = self.model.infer(images, noise, options.steps, options.td)
            yield from masks.cpu().numpy()

    def _assemble(
        self, size: tuple[int, ...], parts: list[tuple[Window, np.ndarray]], options: InferConfig
    ) -> Panoptic:
        """Masks of a picture's windows → segments at the picture's size."""
        config, taxonomy = self.pretrained.data, self.taxonomy
        find = postprocess.segments_by_id if config.ids == "unique" else postprocess.segments_by_component
        cropped = [(w, mask[:, : w.used[0], : w.used[1]]) for w, mask in parts]
        if config.layout == "resize":
            mask = resize_labels(cropped[0][1], size[0], size[1])
            labels, classes = find(mask, taxonomy, options.min_pixels)
        else:
            tiles = [(w.top, w.left, find(mask, taxonomy, options.min_pixels)) for w, mask in cropped]
            bottom = max(w.top + w.used[0] for w, _ in cropped)
            right = max(w.left + w.used[1] for w, _ in cropped)
            labels, classes = postprocess.join(tiles, bottom, right, taxonomy)
            labels = resize_labels(labels, size[0], size[1])
            labels, classes = postprocess.fill_small(labels, classes, taxonomy, options.min_pixels)
        return Panoptic.from_segmentation(labels, classes, taxonomy).renumbered()


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
