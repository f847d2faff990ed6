"""Steps and conditions of the denoising loop: past masks of a video, and few steps where little changes (§3.4)."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pix2seqd.config import InferConfig
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.pixel_encoder import ImageFeatures

SETTLED = 0.02
"""A mask has settled when, of the pixels that carry an id, at most this share changes from one step to the next."""


class Step(NamedTuple):
    """What the denoising loop yields."""

    sample: int
    """Which sample of the windows, from 0."""
    m_pred: Tensor
    """Predicted analog bits, `[b, bits, h, w]`."""
    is_last: bool
    """Whether the sample is done."""


class Stream:
    """How the masks of an image, or of one clip frame by frame, are denoised.

    A frame is one window or several (the tiles of a large image), each with a past of its own, and each is generated
    `config.consensus` times. Past masks that do not exist yet are void, as officially. A model without past masks
    generates every frame by itself.

    With `config.adaptive`, a later frame's first prediction is compared with the mask of the frame before, and every
    further one with the one before it; where they agree (`SETTLED`), the rest of the steps is saved for frames that
    change more. On the average of the frames after the first, at most `adaptive` steps are spent; samples without the
    past do not count.
    """

    def __init__(self, model: Pix2SeqD, config: InferConfig) -> None:
        self._model, self._config = model, config
        self.conditioned = config.consensus - int(config.unconditioned_share * config.consensus)
        """How many samples of a later frame are conditioned on the past; they are the first."""
        self._past: list[Tensor] = []
        self._to_come = 0
        """Masks of the present frame that are still to be generated."""
        self._saved = 0.0
        """Steps, summed over them, that the budget leaves for the present frame."""

    def denoise(
        self, h: ImageFeatures, noise: Tensor, first: int = 0, sample: int = 0, hints: Tensor | None = None
    ) -> Iterator[Step]:
        """The steps of some of the present frame's windows.

        Args:
            h: what the encoder makes of them.
            noise: standard normal `[b, bits, h, w]`.
            first: the number of the first of them; the others follow.
            sample: which of the frame's samples; those from `conditioned` on do not see the past.
            hints: int64 `[b, 2, h, w]`, as `Pix2SeqD.denoise` takes them.
        """
        config = self._config
        past = [masks[first : first + len(noise)] for masks in self._past] if sample < self.conditioned else []
        steps = self._allowed(len(noise)) if past else config.first_steps or config.steps
        before = past[-1] if past and config.adaptive else None
        predictions = self._model.denoise(h, noise, steps, config.td, self._condition(past), hints=hints)
        used = 0
        for used, m_pred in enumerate(predictions, start=1):
            done = used == steps
            if before is not None:
                masks = self._model.to_masks(m_pred)
                done = done or settled(masks, before)
                before = masks
            yield Step(sample, m_pred, done)
            if done:
                break
        if before is not None:
            self._saved -= used * len(noise)
            self._to_come -= len(noise)

    def remember(self, past: Sequence[Tensor]) -> None:
        """Go on to the next frame.

        Args:
            past: the masks of all windows of the last frames, oldest first, int64 `[windows, 2, h, w]` each.
        """
        self._past = list(past)[-max(self._model.config.decoder.past_frames, 1) :]
        self._to_come = len(self._past[-1]) * self.conditioned
        self._saved += self._config.adaptive * self._to_come

    def _allowed(self, masks: int) -> int:
        config = self._config
        if not config.adaptive:
            return config.steps
        others = self._to_come - masks  # each of which needs a step
        return max(1, min(config.steps, int((self._saved - others) / masks)))

    def _condition(self, past: list[Tensor]) -> Tensor | None:
        """Past masks `[b, f, 2, h, w]`, oldest first; None: all void, or a model without."""
        frames = self._model.config.decoder.past_frames
        if not past or not frames:
            return None
        return torch.stack([torch.zeros_like(past[0])] * (frames - len(past)) + past, dim=1)


def settled(masks: Tensor, before: Tensor) -> bool:
    """Whether hardly a pixel with an id differs between two predictions, in each mask of the batch `[b, 2, h, w]`."""
    changed = (masks != before).any(dim=1).sum(dim=(1, 2))
    with_id = ((masks[:, 1] > 0) | (before[:, 1] > 0)).sum(dim=(1, 2))
    return bool((changed <= SETTLED * with_id).all())
