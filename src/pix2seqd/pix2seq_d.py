"""Pix2Seq-D: the two boxes of Figure 2, trained by Algorithm 1 and sampled by Algorithm 2."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pix2seqd.analog_bits import Quantizer, analog, bit2int, to_codes
from pix2seqd.config import ModelConfig
from pix2seqd.diffusion import check_schedule, corrupt, ddim_step, ddpm_step, gamma, time_steps
from pix2seqd.loss import cross_entropy, instance_weights, l2
from pix2seqd.mask_decoder import MaskDecoder, StepCache
from pix2seqd.pixel_encoder import ImageFeatures, PixelEncoder

Sampler = Literal["ddim", "ddpm", "ddpm_small"]


class Pix2SeqD(nn.Module):
    """The model of the paper. Masks are int64 `[b, 2, h, w]`: class, id; 0 = void in both."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        check_schedule(config.schedule)
        self.config = config
        self.pixel_encoder = PixelEncoder(config)
        self.mask_decoder = MaskDecoder(config)
        limits = config.mask.classes - 1, config.mask.max_instances - 1
        self.quantizer = Quantizer(config.mask.bits, config.mask.scale, config.mask.encoding, limits)

    def train_loss(
        self,
        images: Tensor,
        masks: Tensor,
        past: Tensor | None = None,
        *,
        t: Tensor | None = None,
        noise: Tensor | None = None,
        instances: Tensor | None = None,
        state: Tensor | None = None,
    ) -> Tensor:
        """Algorithm 1.

        Args:
            images: `[b, 3, H, W]`, 0..1.
            masks: int64 `[b, 2, h, w]`, h = H / mask.stride.
            past: masks of past frames, int64 `[b, f, 2, h, w]` (§3.4).
            t: times `[b]`; drawn from U[0, 1) if None.
            noise: ε `[b, bits, h, w]`; drawn if None.
            instances: int64 `[b, h, w]`, instance of each pixel where ids are reused; None: the ids.
            state: the noisy mask at t, `[b, bits, h, w]`; None: the corrupted truth.

        Returns:
            The loss, a scalar.
        """
        config = self.config
        h = self.pixel_encoder(images)

        # Discrete masks to analog bits.
        codes = to_codes(masks, config.mask.bits, config.mask.encoding)
        m_bits = analog(codes, config.mask.bits, config.mask.scale)

        # Corrupt analog bits (Eq. 1).
        t = torch.rand(len(images), device=images.device) if t is None else t
        eps = torch.randn_like(m_bits) if noise is None else noise
        m_crpt = corrupt(m_bits, eps, gamma(t, config.schedule)) if state is None else state

        # Predict and compute loss.
        weights = self.pixel_weights(masks, instances)
        if config.loss == "l2":
            m_logits, m_pred = self.mask_decoder(m_crpt, h, t, past)
            # Bits that a linear head gives are clipped in inference only.
            return l2(m_logits[0] if config.decoder.head == "linear" else m_pred, m_bits, weights).mean()
        m_logits = self.mask_decoder.logits(m_crpt, h, t, past)
        return cross_entropy(m_logits, codes, weights).mean()

    forward = train_loss

    def pixel_weights(self, masks: Tensor, instances: Tensor | None) -> Tensor:
        """Weights of the pixels in the loss, `[b, h, w]`, by their ids, or where ids are reused by their instances."""
        if instances is None:
            return instance_weights(masks[:, 1], self.config.p, self.config.mask.max_instances)
        return instance_weights(instances, self.config.p, int(instances.max()) + 1)

    @torch.no_grad()
    def infer(
        self,
        images: Tensor,
        noise: Tensor,
        steps: int = 20,
        td: float = 1.0,
        past: Tensor | None = None,
    ) -> Tensor:
        """Algorithm 2.

        Args:
            images: `[b, 3, H, W]`, 0..1.
            noise: the first state, standard normal `[b, bits, h, w]`, h = H / mask.stride.
            steps: number of decoder steps, 1 or more.
            td: τ_d ≥ 0.
            past: masks of past frames, int64 `[b, f, 2, h, w]`.

        Returns:
            Masks, int64 `[b, 2, h, w]`.
        """
        predictions = self.denoise(self.pixel_encoder(images), noise, steps, td, past)
        m_pred = deque(predictions, maxlen=1).pop()  # the last step's
        return self.to_masks(m_pred)

    @torch.no_grad()
    def denoise(
        self,
        h: ImageFeatures,
        noise: Tensor,
        steps: int = 20,
        td: float = 1.0,
        past: Tensor | None = None,
        sampler: Sampler = "ddim",
        fresh_noise: Callable[[int], Tensor] | None = None,
        hints: Tensor | None = None,
        prepared: StepCache | None = None,
    ) -> Iterator[Tensor]:
        """The loop of Algorithm 2, yielding each step's predicted analog bits `[b, bits, h, w]`.

        Args:
            h: the encoder's features of the images.
            noise: the first state, standard normal `[b, bits, h, w]`.
            steps: as in `infer`.
            td: likewise.
            past: likewise.
            sampler: how the next state is made from the prediction: "ddim" (`diffusion.ddim_step`), "ddpm"
                (`diffusion.ddpm_step`), or "ddpm_small", which is "ddpm" with `small_variance`.
            fresh_noise: step → standard normal noise of the state's shape, for the ddpm samplers.
            hints: int64 `[b, 2, h, w]`, given classes and ids, -1 where nothing is given. They replace the prediction
                of every step, and the state at the step's noise level (Eq. 1 with the first noise).
            prepared: `MaskDecoder.prepare` of the features, the steps' times and `past`; None: it is computed.
        """
        m_t = self.initial_state(noise.float(), past).contiguous(memory_format=torch.channels_last)
        given = None if hints is None else self._hint_bits(hints)
        t = torch.tensor(list(time_steps(steps, td)), device=m_t.device)  # [steps, 2]
        if prepared is None:
            prepared = self.mask_decoder.prepare(h, t[:, 0], past)
        del h  # its map is larger than any of the decoder's, and no longer needed
        for step, (gamma_now, gamma_next) in enumerate(gamma(t, self.config.schedule)):
            # Predict analog bits m_0 from m_t.
            m_pred = self.mask_decoder.predict(m_t, prepared.at(step))
            if given is not None:
                m_pred = torch.where(*given, m_pred)
            yield m_pred
            # Estimate m at t_next.
            if sampler == "ddim":
                m_t = ddim_step(m_t, m_pred, gamma_now, gamma_next)
            else:
                assert fresh_noise is not None, "the ddpm samplers need fresh_noise"
                m_t = ddpm_step(m_t, m_pred, gamma_now, gamma_next, fresh_noise(step), sampler == "ddpm_small")
            if given is not None:
                where, m_hints = given
                m_t = torch.where(where, corrupt(m_hints, noise, gamma_next.expand(len(m_t))), m_t)

    def initial_state(self, noise: Tensor, past: Tensor | None = None) -> Tensor:
        """The state at t = 1 from noise `[b, bits, h, w]`: the noise itself.

        With `MaskConfig.init_id_cell` it is a grid of ids, 1 where a bit is 1 and otherwise -1. Half of the
        id bits number the columns, half the rows. Both are in Gray code: neighbouring cells differ in one bit, so a
        mixture of two cells shows no third id. The noise, 32 numbers or more, gives the offset of the cells. Where the
        last of the masks `past`, int64 `[b, f, 2, h, w]`, has an id, the state has it too.
        """
        cell, bits, encoding = self.config.mask.init_id_cell, self.config.mask.bits, self.config.mask.encoding
        if not cell:
            return noise
        top, left = bit2int(noise.flatten(1)[:, :32, None, None] > 0, (16, 16)).unbind(dim=1)  # [b, 1, 1]
        height, width = (torch.arange(n, device=noise.device) for n in noise.shape[-2:])
        column_bits = (bits[1] + 1) // 2
        row = (top + height[:, None]) // cell % 2 ** (bits[1] - column_bits)
        column = (left + width) // cell % 2**column_bits
        row, column = (n ^ (n >> 1) for n in (row, column))
        ids = (row << column_bits) + column
        if past is not None:
            ids = torch.where(past[:, -1, 1] > 0, past[:, -1, 1], ids)
        every = torch.arange(2 ** bits[1], device=ids.device)
        masks = torch.stack([torch.zeros_like(every), every])[None, :, :, None]
        states = analog(to_codes(masks, bits, encoding), bits, 1.0)[0, :, :, 0]  # of each id, [bits, ids]
        return F.embedding(ids, states.T.contiguous()).movedim(-1, 1)  # channels last

    def _hint_bits(self, hints: Tensor) -> tuple[Tensor, Tensor]:
        """Mask of the given bits, and their analog bits, both `[b, bits, h, w]`."""
        mask = self.config.mask
        where = (hints >= 0).repeat_interleave(torch.tensor(mask.bits, device=hints.device), dim=1)
        return where, analog(to_codes(hints.clamp(min=0), mask.bits, mask.encoding), mask.bits, mask.scale)

    def to_masks(self, m_pred: Tensor) -> Tensor:
        """Quantize analog bits by their sign: `[b, bits, h, w]` → int64 `[b, 2, h, w]`, illegal values clipped."""
        return self.quantizer.values(m_pred)
