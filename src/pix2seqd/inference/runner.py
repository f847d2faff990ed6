"""`Runner`: the networks on a device at a precision, from windows and noise to masks, step by step."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pix2seqd.files import InputError
from pix2seqd.images.familiarity import moments
from pix2seqd.inference.denoiser import Denoiser, Step
from pix2seqd.inference.postprocess import MAX_CONFIDENCE
from pix2seqd.inference.tiling import Window
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.pixel_encoder import ImageFeatures
from pix2seqd.speed import accelerate, is_plain
from pix2seqd.speed.hardware import native_bfloat16


class Runner:
    """A model on a device at a precision.

    Args of the constructor:
        model: is moved to the device.
        device: "auto" takes a CUDA device where there is one.
        dtype: precision of the networks; "auto" is bfloat16 where the hardware computes it natively, otherwise float32.
        fast: exchange modules for faster ones of the same results (`speed.accelerate`), unless PIX2SEQD_PLAIN=1; or
            only these items of `speed.exchange.ITEMS`, in any case.

    Raises:
        InputError: the device does not exist here.
    """

    def __init__(
        self,
        model: Pix2SeqD,
        device: str,
        dtype: Literal["auto", "float32", "bfloat16"],
        fast: bool | Collection[str] = True,
    ) -> None:
        self.device = _device(device)
        if fast is True and is_plain():
            fast = False
        self.bfloat16 = dtype == "bfloat16" or (dtype == "auto" and bool(fast) and native_bfloat16(self.device))
        model = model.to(self.device).to(memory_format=torch.channels_last).eval()  # pyright: ignore
        precision = torch.bfloat16 if self.bfloat16 else torch.float32
        self.model = accelerate(model, self.device, precision, None if fast is True else fast or ())

    @property
    def batch_size(self) -> int:
        """Default number of windows that go through the networks at once."""
        # On CPUs larger batches are not faster, and with batches of one the bits do not depend on other images.
        return 1 if self.device.type == "cpu" else 8

    def denoise(self, windows: Sequence[Window], denoiser: Denoiser) -> Iterator[Step]:
        """The denoising loop: the encoder runs once for the windows, then the steps of each sample follow.

        The windows, of one image or of several, have the same number of samples; the denoiser decides on steps and past
        masks.
        """
        h, inside = self.encode(windows), [window.inside for window in windows]
        hints = [window.hints for window in windows if window.hints is not None]
        given, number = self._batch(hints) if hints else None, windows[0].number
        kept: tuple[Tensor, Tensor] | None = None  # the first sample, and which windows the model is sure of
        (samples,) = {len(window.noise) for window in windows}
        for sample in range(samples):
            if kept is not None and kept[1].all():
                yield Step(sample, kept[0], True)
                continue
            noise = self._batch([window.noise[sample] for window in windows])
            predictions = denoiser.denoise(h, noise, number, sample, given, inside, kept, samples)
            while True:
                with self._precision():  # entered for each step: it must not apply to the caller's code between steps
                    step = next(predictions, None)
                if step is None:
                    break
                yield step
                if denoiser.skips and sample == 0 and step.is_last and samples > 1:
                    kept = step.m_pred, denoiser.certain(step.m_pred, inside)

    def encode(self, windows: Sequence[Window]) -> ImageFeatures:
        """The encoder's features of the windows; their moments are added to `Window.moments`."""
        with self._precision():
            images = self._batch([window.pixels for window in windows])
            h = self.model.pixel_encoder(images.contiguous(memory_format=torch.channels_last))
        for window, features in zip(windows, h.map, strict=True):
            window.moments.append(moments(features, window.pixels.shape[1:], window.inside))
        return h

    @torch.inference_mode()
    def masks(self, step: Step) -> np.ndarray:
        """The windows' masks after a step, integers `[b, 4, h, w]`, uint8 if all classes and ids fit.

        Channels: class, id, and the model's confidence in the class and in the id, 0 to `MAX_CONFIDENCE`.
        """
        config = self.model.config.mask
        confidence = self.model.quantizer.probabilities(step.m_pred)
        kind = torch.uint8 if max(config.classes, config.max_instances) <= 256 else torch.int32
        masks = self.model.to_masks(step.m_pred).to(kind)
        return torch.cat([masks, (confidence * MAX_CONFIDENCE).round().to(kind)], dim=1).cpu().numpy()

    def _batch(self, tensors: Sequence[Tensor]) -> Tensor:
        """Tensors of several windows as one batch on the device."""
        return torch.stack(tuple(tensors)).to(self.device)

    @contextmanager
    def _precision(self) -> Iterator[None]:
        """Context in which the networks compute at the runner's precision, without gradients."""
        # No cache: weights are cast already, and results inside a CUDA graph must not be used outside it.
        precision = torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16, cache_enabled=False)
        with precision, torch.inference_mode():
            yield


def _device(name: str) -> torch.device:
    """The device of this name, "auto" or as PyTorch takes it; one that does not exist here is refused."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"no device {name!r} here ({str(error).splitlines()[0]}); use auto or cpu") from error
    return device
