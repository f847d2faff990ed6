"""`Denoiser`: how many steps the masks of an image or a clip take, and which past masks they see (§3.4)."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pix2seqd.config import InferConfig
from pix2seqd.diffusion import time_steps
from pix2seqd.mask_decoder import StepCache
from pix2seqd.panoptic.taxonomy import Taxonomy
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.pixel_encoder import ImageFeatures

CONVERGED = 0.02
"""A mask has converged if at most this share of the pixels with an id changes from one step to the next."""


class Step(NamedTuple):
    """One step of the denoising loop."""

    sample: int
    """Number of the sample, from 0."""
    m_pred: Tensor
    """Predicted analog bits, `[b, bits, h, w]`."""
    is_last: bool
    """Whether this is the last step of the sample."""


class Denoiser:
    """How the masks of an image, or of one clip frame by frame, are denoised.

    A frame is one window or several (the tiles of a large image), each with its own past masks, and each is generated
    `config.consensus` times. Past masks that do not exist yet are void, as in the official code. A model without past
    masks generates every frame independently.

    With `config.adaptive`, a later frame's first prediction is compared with the mask of the frame before, and every
    further one with the one before it; if they agree (`CONVERGED`), the remaining steps are saved for frames that
    change more. Frames after the first take at most `adaptive` steps on average; samples without past masks do not
    count.

    With `config.early_exit`, a window of which the model is sure (`certain`) takes no more steps, and if it is so after
    the first sample, no more samples.

    Args of the constructor:
        model: the networks.
        config: steps, samples and when they end.
        taxonomy: the categories of the classes.
    """

    def __init__(self, model: Pix2SeqD, config: InferConfig, taxonomy: Taxonomy) -> None:
        self._model, self._config = model, config
        spare = model.config.mask.classes - len(taxonomy.things)
        self._things = torch.tensor(taxonomy.things + [False] * max(spare, 0))
        self.conditioned = config.consensus - int(config.unconditioned_share * config.consensus)
        """Number of samples of a later frame that get the past masks; the first samples do."""
        self.skips = config.early_exit > 0 and config.consensus > 1
        """Whether windows of which the first sample is sure take no further samples."""
        self._past: list[Tensor] = []
        self._prepared: tuple[ImageFeatures, int, StepCache] | None = None
        """The last features, steps and result of `_prepare`."""
        self._remaining = 0
        """Masks of the present frame that are not generated yet."""
        self._saved = 0.0
        """Steps that the masks of the present frame may take in total (`InferConfig.adaptive`): a mean number for each
        mask, and what earlier frames did not use."""

    def denoise(
        self,
        h: ImageFeatures,
        noise: Tensor,
        number: int = 0,
        sample: int = 0,
        hints: Tensor | None = None,
        inside: Sequence[tuple[int, int]] = (),
        kept: tuple[Tensor, Tensor] | None = None,
        samples: int = 1,
    ) -> Iterator[Step]:
        """Denoise some of the present frame's windows.

        Args:
            h: the encoder's features of the windows.
            noise: standard normal `[b, bits, h, w]`.
            number: number of the first of these windows in the frame.
            sample: number of the sample; samples from `conditioned` on get no past masks.
            hints: int64 `[b, 2, h, w]`, as `Pix2SeqD.denoise` takes them.
            inside: as in `certain`.
            kept: analog bits that are final already, `[b, bits, h, w]`, and for which windows they are, bool `[b]`.
            samples: number of samples of these windows.
        """
        config = self._config
        past = [masks[number : number + len(noise)] for masks in self._past] if sample < self.conditioned else []
        steps = self._allowed(len(noise)) if past else config.image_steps
        before = past[-1] if past and config.adaptive else None
        condition = self._condition(past)
        prepared = self._prepare(h, steps) if condition is None and samples > 1 else None
        if sample + 1 == samples:
            self._prepared = None  # features need not be kept while those of the next windows are computed
        predictions = self._model.denoise(h, noise, steps, config.td, condition, hints=hints, prepared=prepared)
        used = 0
        for used, m_pred in enumerate(predictions, start=1):
            done = used == steps
            if config.early_exit:
                if kept is not None:
                    m_pred = torch.where(kept[1][:, None, None, None], kept[0], m_pred)
                if not done:
                    kept = m_pred, self.certain(m_pred, inside)
                    done = bool(kept[1].all())
            if before is not None:
                masks = self._model.to_masks(m_pred)
                done = done or converged(masks, before)
                before = masks
            yield Step(sample, m_pred, done)
            if done:
                break
        if before is not None:
            self._saved -= used * len(noise)
            self._remaining -= len(noise)

    def _prepare(self, h: ImageFeatures, steps: int) -> StepCache:
        """`MaskDecoder.prepare` without past masks, once for all samples of the same windows."""
        if self._prepared is None or self._prepared[0] is not h or self._prepared[1] != steps:
            t = torch.tensor([now for now, _ in time_steps(steps, self._config.td)], device=h.map.device)
            self._prepared = h, steps, self._model.mask_decoder.prepare(h, t)
        return self._prepared[2]

    @torch.inference_mode()
    def certain(self, m_pred: Tensor, inside: Sequence[tuple[int, int]]) -> Tensor:
        """Whether the model is sure of each window (`InferConfig.early_exit`), bool `[b]`.

        Args:
            m_pred: predicted analog bits `[b, bits, h, w]`.
            inside: height and width of the part of each window that is the image, in network pixels.
        """
        stride, limit = self._model.config.mask.stride, self._config.early_exit
        of_class, of_id = self._model.quantizer.probabilities(m_pred).unbind(dim=1)
        things = self._things.to(m_pred.device)[self._model.to_masks(m_pred)[:, 0]]
        confidence = torch.where(things, of_class * of_id, of_class)
        means = [
            part[: -(-height // stride), : -(-width // stride)].mean()
            for part, (height, width) in zip(confidence, inside, strict=True)
        ]
        return torch.stack(means) >= limit

    def remember(self, past: Sequence[Tensor]) -> None:
        """Go on to the next frame.

        Args:
            past: masks of all windows of the last frames, oldest first, int64 `[windows, 2, h, w]` each.
        """
        self._past = list(past)[-max(self._model.config.decoder.past_frames, 1) :]
        self._remaining = len(self._past[-1]) * self.conditioned
        self._saved += self._config.adaptive * self._remaining

    def _allowed(self, masks: int) -> int:
        """Most steps that each of the next `masks` masks of the frame may take, 1 or more."""
        config = self._config
        if not config.adaptive:
            return config.steps
        others = self._remaining - masks  # each of these needs at least one step
        return max(1, min(config.steps, int((self._saved - others) / masks)))

    def _condition(self, past: list[Tensor]) -> Tensor | None:
        """Past masks `[b, f, 2, h, w]`, oldest first; None if all are void or the model reads none."""
        frames = self._model.config.decoder.past_frames
        if not past or not frames:
            return None
        return torch.stack([torch.zeros_like(past[0])] * (frames - len(past)) + past, dim=1)


def converged(masks: Tensor, before: Tensor) -> bool:
    """Whether two predictions `[b, 2, h, w]` hardly differ in pixels with an id, in each mask of the batch."""
    changed = (masks != before).any(dim=1).sum(dim=(1, 2))
    with_id = ((masks[:, 1] > 0) | (before[:, 1] > 0)).sum(dim=(1, 2))
    return bool((changed <= CONVERGED * with_id).all())
