"""Masks of a video, frame by frame: past masks are the condition, and few steps suffice where little changes (§3.4)."""

from collections import deque
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from pix2seqd.analog_bits import analog
from pix2seqd.config import InferConfig
from pix2seqd.diffusion import corrupt, gamma
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.pixel_encoder import ImageFeatures

SETTLED = 0.02
"""A mask has settled when, of the pixels that carry an id, at most this share changes from one step to the next."""


class Stream:
    """Generates the masks of one clip, given those of the last frames.

    A frame is one window or several (the tiles of a large picture), each with a past of its own, and each is generated
    `config.consensus` times. Past masks that do not exist yet are void, as officially. A model without past masks
    generates every frame by itself.

    With `config.adaptive`, a later frame's first prediction is compared with the mask of the frame before, and every
    further one with the one before it; where they agree (`SETTLED`), the rest of the steps is saved for frames that
    change more. Never are more steps spent, on the average of the frames after the first, than `adaptive`; samples that
    without the past do not count.
    """

    def __init__(self, model: Pix2SeqD, config: InferConfig) -> None:
        self._model, self._config = model, config
        self.told = config.consensus - int(config.unconditioned_share * config.consensus)
        """How many samples of a later frame are told of the past; they are the first."""
        self._past: list[Tensor] = []
        self._to_come = 0
        """Masks of the present frame that are still to be generated."""
        self._saved = 0.0
        """Steps, summed over them, that the budget leaves for the present frame."""

    def generate(self, h: ImageFeatures, noise: Tensor, first: int = 0, sample: int = 0) -> Tensor:
        """Masks of some of the present frame's windows.

        Args:
            h: what the encoder makes of them.
            noise: standard normal `[b, bits, h, w]`.
            first: the number of the first of them; the others follow.
            sample: which of the frame's samples; those from `told` on are not told of the past.

        Returns:
            int64 `[b, 2, h, w]`.
        """
        config = self._config
        past = [masks[first : first + len(noise)] for masks in self._past] if sample < self.told else []
        start = config.t_start if past else 1.0
        if start < 1:
            noise = self._corrupted(past[-1], noise, start)
        steps = self._allowed(len(noise)) if past else config.first_steps or config.steps
        predictions = self._model.denoise(h, noise, steps, config.td, self._condition(past), start=start)
        if not past or not config.adaptive:
            return self._model.to_masks(deque(predictions, maxlen=1).pop())  # the last step's
        masks, used = self._until_settled(predictions, past[-1])
        self._saved -= used * len(noise)
        self._to_come -= len(noise)
        return masks

    def remember(self, past: Sequence[Tensor]) -> None:
        """Go on to the next frame.

        Args:
            past: the masks of all windows of the last frames, oldest first, int64 `[windows, 2, h, w]` each.
        """
        self._past = list(past)[-max(self._model.config.decoder.past_frames, 1) :]
        self._to_come = len(self._past[-1]) * self.told
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

    def _corrupted(self, masks: Tensor, noise: Tensor, t: float) -> Tensor:
        config = self._model.config
        gamma_t = gamma(torch.full((len(masks),), t, device=masks.device), config.schedule)
        return corrupt(analog(masks, config.mask.bits, config.mask.scale), noise, gamma_t)

    def _until_settled(self, predictions: Iterator[Tensor], before: Tensor) -> tuple[Tensor, int]:
        """The masks and the number of steps they took."""
        used = 0
        for m_pred in predictions:
            masks, used = self._model.to_masks(m_pred), used + 1
            if settled(masks, before):
                return masks, used
            before = masks
        return before, used


def settled(masks: Tensor, before: Tensor) -> bool:
    """Whether hardly a pixel with an id differs between two predictions, in each mask of the batch `[b, 2, h, w]`."""
    changed = (masks != before).any(dim=1).sum(dim=(1, 2))
    with_id = ((masks[:, 1] > 0) | (before[:, 1] > 0)).sum(dim=(1, 2))
    return bool((changed <= SETTLED * with_id).all())
