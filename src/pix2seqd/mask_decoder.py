"""Mask decoder (Figure 2, right; Figure 5): a TransUNet that denoises analog bits. Runs once per step."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pix2seqd.analog_bits import analog, bit_evidence, expected_bits, value_logits
from pix2seqd.config import ModelConfig
from pix2seqd.diffusion import gamma
from pix2seqd.pixel_encoder import ImageFeatures, group_norm
from pix2seqd.transformer import TransformerLayer, glorot, position_code, scalar_code


class MaskDecoder(nn.Module):
    """Noisy analog bits, image features, time and past masks → what the mask is (§3.1, §3.4)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dims = [config.dim * m for m in config.multipliers]
        time_dim = 4 * config.dim
        patch_area = config.mask_patch**2
        self.time1 = glorot(nn.Linear(config.dim, time_dim))
        self.time2 = glorot(nn.Linear(time_dim, time_dim))
        mask_channels = config.total_bits * (1 + config.past_frames) * patch_area
        self.conv_in = glorot(nn.Conv2d(mask_channels + config.fuse_dim, dims[0], 1))
        self.norm_in = group_norm(dims[0])

        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        skips = [dims[0]]
        x_dim = dims[0]
        for level, (dim, blocks) in enumerate(zip(dims, config.res_blocks, strict=True)):
            last = level == len(dims) - 1
            self.down.append(DownUnit(x_dim, dim, blocks, time_dim, config, downsample=not last))
            skips += [dim] * (blocks if last else blocks + 1)
            x_dim = dim
        self.transformer = BottleneckTransformer(x_dim, time_dim, config) if config.decoder_layers else None
        x_dim = config.decoder_dim if self.transformer else x_dim
        for level in reversed(range(len(dims))):
            laterals = [skips.pop() for _ in range(config.res_blocks[level] + 1)]
            self.up.append(UpUnit(x_dim, dims[level], laterals, time_dim, config, upsample=level > 0))
            x_dim = dims[level]
        self.norm_out = group_norm(x_dim, config.dim)
        values = [2**n for n in config.bits] if config.head == "softmax" else [config.total_bits]
        self.values = values
        outputs = sum(values) + (config.total_bits if config.bit_logits else 0)
        self.conv_out = glorot(nn.Conv2d(x_dim, outputs * patch_area, 1), scale=1e-10)
        if config.bit_logits:
            # Not zero like the rest: what the layers before learn has to matter from the first step on.
            nn.init.xavier_uniform_(self.conv_out.weight[sum(values) * patch_area :].data, gain=0.3)

    def forward(
        self, m_t: Tensor, features: ImageFeatures, t: Tensor, past: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Predict the mask (Algorithm 2's `mask_decoder`).

        Args:
            m_t: noisy analog bits `[b, bits, h, w]`; h and w multiples of `mask_patch · 2^(levels - 1)`.
            features: of the image, from `PixelEncoder`.
            t: times in [0, 1], `[b]`. The network reads γ(t) · time_scaling, as the official one.
            past: int64 `[b, f, 2, h, w]`, masks of past frames, oldest first; None = all void (§3.4).

        Returns:
            (logits, m_pred): per mask channel `[b, 2^bits, h, w]` (the linear head: one tensor, the raw bits), and
            the expected analog bits, float32 `[b, bits, h, w]` in [-scale, scale].
        """
        logits = self.logits(m_t, features, t, past)
        if self.config.head == "linear":
            return logits, logits[0].float().clamp(-self.config.scale, self.config.scale)
        return logits, torch.cat([expected_bits(group, self.config.scale) for group in logits], dim=1)

    def logits(self, m_t: Tensor, features: ImageFeatures, t: Tensor, past: Tensor | None = None) -> tuple[Tensor, ...]:
        """The first part of `forward`'s answer alone: training needs no bits, and they cost memory."""
        config = self.config
        gamma_t, noisy = gamma(t, config.schedule), m_t
        if config.normalize_noisy:
            variance = gamma_t * config.scale**2 + 1 - gamma_t
            m_t = m_t * variance.rsqrt()[:, None, None, None]
        time = F.silu(self.time1(scalar_code(gamma_t * config.time_scaling, config.dim)))
        time = F.silu(self.time2(time))  # [b, time_dim]
        x = self.norm_in(self._first(m_t, features, past))

        skips = [x]
        for unit in self.down:
            x = unit(x, time, skips)
        if self.transformer is not None:
            x = self.transformer(x, time, features.tokens)
        for unit in self.up:
            x = unit(x, time, skips)
        assert not skips

        x = F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(x))), config.mask_patch)
        if not config.bit_logits:
            return x.split(self.values, dim=1)
        *groups, bit_logits = x.float().split([*self.values, config.total_bits], dim=1)
        bit_logits = bit_logits + bit_evidence(noisy, config.scale, gamma_t)
        parts = bit_logits.split(list(config.bits), dim=1)
        return tuple(group + value_logits(part) for group, part in zip(groups, parts, strict=True))

    def _first(self, m_t: Tensor, features: ImageFeatures, past: Tensor | None) -> Tensor:
        """First convolution of [noisy bits | feature map | past bits]: `[b, dim, h / mask_patch, w / mask_patch]`."""
        config = self.config
        divisor = config.mask_patch * 2 ** (len(config.multipliers) - 1)
        if m_t.shape[-2] % divisor or m_t.shape[-1] % divisor:
            raise ValueError(f"mask height and width must be multiples of {divisor}, not {tuple(m_t.shape[-2:])}")
        image_map = features.map if config.condition_on_map else torch.zeros_like(features.map)
        now = torch.cat([F.pixel_unshuffle(m_t, config.mask_patch).to(image_map.dtype), image_map], dim=1)
        if not config.past_frames:
            if past is not None:
                raise ValueError("the model does not condition on past masks; see weights.inflate_for_video")
            return self.conv_in(now)
        if past is None:
            past = torch.zeros(len(m_t), config.past_frames, 2, *m_t.shape[-2:], dtype=torch.long, device=m_t.device)
        if past.shape[1] != config.past_frames:
            raise ValueError(f"the model conditions on {config.past_frames} past masks, not {past.shape[1]}")
        bits = [analog(past[:, f], config.bits, config.scale) for f in range(config.past_frames)]
        before = F.pixel_unshuffle(torch.cat(bits, dim=1), config.mask_patch).to(image_map.dtype)
        # Apart, so that a model inflated from one for images adds exact zeros to what that one computes.
        of_now, of_before = self.conv_in.weight.split([now.shape[1], before.shape[1]], dim=1)
        return F.conv2d(now, of_now, self.conv_in.bias) + F.conv2d(before, of_before)


class ResBlock(nn.Module):
    """GroupNorm, SiLU and convolution, twice; the time scales and shifts between them."""

    def __init__(self, in_dim: int, out_dim: int, time_dim: int, config: ModelConfig) -> None:
        super().__init__()
        padding = config.kernel_size // 2
        self.norm1 = group_norm(in_dim)
        self.conv1 = glorot(nn.Conv2d(in_dim, out_dim, config.kernel_size, padding=padding))
        self.time = glorot(nn.Linear(time_dim, 2 * out_dim))
        self.norm2 = group_norm(out_dim)
        self.dropout = nn.Dropout(config.decoder_dropout)
        self.conv2 = glorot(nn.Conv2d(out_dim, out_dim, config.kernel_size, padding=padding), scale=1e-10)
        self.shortcut = glorot(nn.Conv2d(in_dim, out_dim, 1)) if in_dim != out_dim else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """`x` [b, in_dim, h, w], `time` [b, time_dim] → [b, out_dim, h, w]."""
        scale, shift = self.time(time)[:, :, None, None].chunk(2, dim=1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h) * (scale + 1) + shift)))
        return (h + self.shortcut(x)) * math.sqrt(0.5)


class DownUnit(nn.Module):
    """Residual blocks, then a stride-2 convolution; every result is kept for the way up."""

    def __init__(
        self, in_dim: int, dim: int, blocks: int, time_dim: int, config: ModelConfig, downsample: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResBlock(in_dim if i == 0 else dim, dim, time_dim, config) for i in range(blocks))
        self.downsample = glorot(nn.Conv2d(dim, dim, 3, stride=2)) if downsample else None

    def forward(self, x: Tensor, time: Tensor, skips: list[Tensor]) -> Tensor:
        """Pushes onto `skips`."""
        for block in self.blocks:
            x = block(x, time)
            skips.append(x)
        if self.downsample is not None:
            x = self.downsample(F.pad(x, (0, 1, 0, 1)))  # TensorFlow's "same": the odd pixel goes after
            skips.append(x)
        return x


class UpUnit(nn.Module):
    """Residual blocks, each of which first takes a map from the way down; then nearest upsampling and a convolution."""

    def __init__(
        self, in_dim: int, dim: int, laterals: list[int], time_dim: int, config: ModelConfig, upsample: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResBlock((in_dim if i == 0 else dim) + lateral, dim, time_dim, config) for i, lateral in enumerate(laterals)
        )
        self.upsample = glorot(nn.Conv2d(dim, dim, 3, padding=1)) if upsample else None

    def forward(self, x: Tensor, time: Tensor, skips: list[Tensor]) -> Tensor:
        """Pops from `skips`."""
        for block in self.blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), time)
        if self.upsample is not None:
            x = self.upsample(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


class BottleneckTransformer(nn.Module):
    """Transformer decoder layers at the U-Net's coarsest resolution, with cross-attention to the image's tokens."""

    def __init__(self, in_dim: int, time_dim: int, config: ModelConfig) -> None:
        super().__init__()
        dim = config.decoder_dim
        self.norm_in = group_norm(in_dim, dim)  # the official code takes the number of groups from the output
        self.conv_in = glorot(nn.Conv2d(in_dim, dim, 1))
        self.time = glorot(nn.Linear(time_dim, dim))
        self.layers = nn.ModuleList(
            TransformerLayer(
                dim,
                dim // config.decoder_head_dim,
                4 * dim,
                context_dim=config.encoder_dim if config.condition_on_tokens else None,
                dropout=config.decoder_dropout,
            )
            for _ in range(config.decoder_layers)
        )
        self.norm_out = group_norm(dim)
        self.conv_out = glorot(nn.Conv2d(dim, dim, 1))

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        """`x` [b, in_dim, h, w] → [b, decoder_dim, h, w]; the time takes part as one more token, at the end."""
        height, width = x.shape[-2:]
        x = self.conv_in(self.norm_in(x)).flatten(2).transpose(1, 2)  # [b, h·w, dim]
        x = x + position_code(height, width, x.shape[-1], x.device)
        x = torch.cat([x, self.time(time)[:, None].to(x.dtype)], dim=1)
        for layer in self.layers:
            x = layer(x, tokens)
        x = x[:, :-1].transpose(1, 2).unflatten(2, (height, width))
        return self.conv_out(self.norm_out(x))
