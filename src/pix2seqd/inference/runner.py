"""`Runner`: the networks on a device, at a precision; from windows of pictures and noise to masks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pix2seqd.config import InferConfig
from pix2seqd.files import InputError
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.pixel_encoder import ImageFeatures
from pix2seqd.speed import accelerate, is_plain
from pix2seqd.speed.hardware import native_bfloat16


class Runner:
    """A model where and how it computes.

    Args of the constructor:
        model: is moved there and changed to that precision.
        device: "auto" takes a CUDA device where there is one.
        dtype: precision of the networks; "auto" is bfloat16 where the hardware computes it natively, otherwise float32.
        fast: exchange modules for faster ones of the same results (`speed.accelerate`).

    Raises:
        InputError: there is no such device.
    """

    def __init__(
        self,
        model: Pix2SeqD,
        device: str,
        dtype: Literal["auto", "float32", "bfloat16"],
        fast: bool = True,
    ) -> None:
        self.device = _device(device)
        fast = fast and not is_plain()
        self.bfloat16 = dtype == "bfloat16" or (dtype == "auto" and fast and native_bfloat16(self.device))
        model = model.to(self.device).to(memory_format=torch.channels_last).eval()  # pyright: ignore
        precision = torch.bfloat16 if self.bfloat16 else torch.float32
        self.model = accelerate(model, self.device, precision, None if fast else ())

    @property
    def batch_size(self) -> int:
        """How many windows go through the networks at once unless somebody says otherwise."""
        # On CPUs larger batches gain nothing, and batches of one give the same bits whatever surrounds a picture.
        return 1 if self.device.type == "cpu" else 8

    def masks(
        self,
        windows: Iterator[tuple[Tensor, Tensor]],
        generate: Callable[[Tensor, Tensor], Tensor],
        batch_size: int,
    ) -> Iterator[np.ndarray]:
        """The generated mask of each window, int64 `[2, h, w]`.

        Args:
            windows: picture `[3, H, W]` and noise `[bits, h, w]` of each.
            generate: batches of both → int64 `[b, 2, h, w]`.
            batch_size: windows at once.
        """
        while batch := list(islice(windows, batch_size)):
            images, noise = (torch.stack(part).to(self.device) for part in zip(*batch, strict=True))
            with self._precision():
                images = images.contiguous(memory_format=torch.channels_last)
                masks = generate(images, noise)
            yield from masks.cpu().numpy()

    def encoded(self, images: Sequence[Tensor]) -> ImageFeatures:
        """What the encoder makes of windows `[3, H, W]`."""
        with self._precision():
            batch = torch.stack(tuple(images)).to(self.device)
            return self.model.pixel_encoder(batch.contiguous(memory_format=torch.channels_last))

    def generated(self, noise: Sequence[Tensor], generate: Callable[[Tensor], Tensor]) -> np.ndarray:
        """int64 `[b, 2, h, w]` of some windows; `generate` makes it of their noise, `[b, bits, h, w]` on the device."""
        with self._precision():
            return generate(torch.stack(tuple(noise)).to(self.device)).cpu().numpy()

    def denoised(
        self,
        h: ImageFeatures,
        noise: Sequence[Tensor],
        options: InferConfig,
        known: Tensor | None = None,
    ) -> Iterator[np.ndarray]:
        """The masks of some windows after each step, int64 `[b, 2, h, w]`; the last are those of `Pix2SeqD.infer`."""
        first = torch.stack(tuple(noise)).to(self.device)
        predictions = self.model.denoise(h, first, options.steps, options.td, known=known)
        while True:
            with self._precision():  # entered anew each time: it must not reach the caller's code between two steps
                m_pred = next(predictions, None)
            if m_pred is None:
                return
            yield self.model.to_masks(m_pred).cpu().numpy()

    @contextmanager
    def _precision(self) -> Iterator[None]:
        # Nothing is cast twice, and what a CUDA graph computes must not be kept for others.
        precision = torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16, cache_enabled=False)
        with precision, torch.inference_mode():
            yield


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"no device {name!r} here ({str(error).splitlines()[0]}); use auto or cpu") from error
    return device
