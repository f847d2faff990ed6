"""Mask decoder (Figure 2, right; Figure 5): a TransUNet that denoises analog bits. Runs once per step."""

import math
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pix2seqd.analog_bits import ExpectedBits, analog, bit_evidence, to_codes, value_logits
from pix2seqd.config import ModelConfig
from pix2seqd.diffusion import gamma
from pix2seqd.layers.norms import GroupNorm
from pix2seqd.layers.transformer import KeyValue, TransformerLayer, glorot, position_encoding, sinusoidal_embedding
from pix2seqd.pixel_encoder import ImageFeatures

MAX_LOGITS = 2**20
"""Number of logits that inference computes at a time: 4 MB of float32 fit into a processor's cache."""


class StepCache(NamedTuple):
    """Everything that does not depend on the noisy mask, computed once for all steps (`MaskDecoder.prepare`)."""

    conditioning: Tensor
    """Share of image and past masks in the result of the first convolution, `[b, dim, h / patch, w / patch]`."""
    memories: list[KeyValue]
    """Keys and values of the image's tokens for each cross-attention of the transformer; None where it has none."""
    positions: Tensor
    """Position encoding of the transformer's tokens, `[n, transformer_dim]`."""
    gammas: Tensor
    """γ(t) of each example or of each step, `[s]`, 0..1."""
    times: dict[str, Tensor]
    """Name of a block → its projection of the time embedding, `[s, c]`."""

    def at(self, step: int) -> Self:
        """The cache of one step, from 0; its time is that of all examples."""
        one = slice(step, step + 1)
        return self._replace(gammas=self.gammas[one], times={name: time[one] for name, time in self.times.items()})


class MaskDecoder(nn.Module):
    """Noisy analog bits, image features, time and past masks → logits and bits of the mask (§3.1, §3.4)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dims = [config.decoder.dim * m for m in config.decoder.multipliers]
        time_dim = 4 * config.decoder.dim
        patch_area = config.decoder.patch**2
        self.time1 = glorot(nn.Linear(config.decoder.dim, time_dim))
        self.time2 = glorot(nn.Linear(time_dim, time_dim))
        mask_channels = config.mask.total_bits * (1 + config.decoder.past_frames) * patch_area
        self.conv_in = glorot(nn.Conv2d(mask_channels + config.encoder.map_dim, dims[0], 1))
        self.norm_in = GroupNorm(dims[0])

        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        skips = [dims[0]]
        x_dim = dims[0]
        for level, (dim, blocks) in enumerate(zip(dims, config.decoder.res_blocks, strict=True)):
            last = level == len(dims) - 1
            self.down.append(DownUnit(f"down{level}", x_dim, dim, blocks, time_dim, config, downsample=not last))
            skips += [dim] * (blocks if last else blocks + 1)
            x_dim = dim
        self.transformer = BottleneckTransformer(x_dim, time_dim, config) if config.decoder.layers else None
        x_dim = config.decoder.transformer_dim if self.transformer else x_dim
        for level in reversed(range(len(dims))):
            laterals = [skips.pop() for _ in range(config.decoder.res_blocks[level] + 1)]
            self.up.append(UpUnit(f"up{level}", x_dim, dims[level], laterals, time_dim, config, upsample=level > 0))
            x_dim = dims[level]
        self.norm_out = GroupNorm(x_dim, config.decoder.dim)
        self.head = BitHead(config)
        outputs = sum(self.head.values) + (config.mask.total_bits if config.decoder.bit_logits else 0)
        self.conv_out = glorot(nn.Conv2d(x_dim, outputs * patch_area, 1), scale=1e-10)
        self.max_logits = MAX_LOGITS
        if config.decoder.bit_logits:
            # Not zero like the rest, so that the layers before get a gradient from the first step on.
            nn.init.xavier_uniform_(self.conv_out.weight[sum(self.head.values) * patch_area :].data, gain=0.3)

    def forward(
        self, m_t: Tensor, features: ImageFeatures, t: Tensor, past: Tensor | None = None
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Predict the mask (Algorithm 2's `mask_decoder`).

        Args:
            m_t: noisy analog bits `[b, bits, h, w]`; h and w are multiples of `DecoderConfig.cell`.
            features: features of the image, from `PixelEncoder`.
            t: times in [0, 1], `[b]`. The network reads γ(t) · time_scaling (official).
            past: int64 `[b, f, 2, h, w]`, masks of past frames, oldest first; None = all void (§3.4).

        Returns:
            (logits, m_pred): per mask channel `[b, 2^bits, h, w]`, in the order of `analog_bits.to_codes` (the linear
            head: one tensor, the raw bits), and the expected analog bits, float32 `[b, bits, h, w]` in [-scale, scale].
        """
        logits = self.logits(m_t, features, t, past)
        return logits, self.head.bits(logits)

    def logits(self, m_t: Tensor, features: ImageFeatures, t: Tensor, past: Tensor | None = None) -> tuple[Tensor, ...]:
        """Only the logits of `forward`: training does not need the bits, which take memory."""
        cache = self.prepare(features, t, past)
        return self.head.logits(self.conv_out(self._unet(m_t, cache)), m_t, cache.gammas)

    def predict(self, m_t: Tensor, cache: StepCache) -> Tensor:
        """Only the bits of `forward`, from a `StepCache` of one step.

        The logits, the largest tensor, exist only for a strip of rows at a time.
        """
        x = self._unet(m_t, cache)
        patch, width = self.config.decoder.patch, m_t.shape[-1]
        rows = max(self.max_logits // (len(x) * sum(self.head.values) * width * patch), 1)
        strips = zip(x.split(rows, dim=2), m_t.split(rows * patch, dim=2), strict=True)
        return torch.cat([self.head(self.conv_out(part), m, cache.gammas) for part, m in strips], dim=2)

    def prepare(self, features: ImageFeatures, t: Tensor, past: Tensor | None = None) -> StepCache:
        """Compute everything that does not depend on the noisy mask.

        Args:
            features: features of the images, from `PixelEncoder`.
            t: times in [0, 1]: `[b]`, one for each example, or `[s]`, one for each step (see `StepCache.at`).
            past: as in `forward`.
        """
        config = self.config
        gammas = gamma(t, config.schedule)
        time = F.silu(self.time1(sinusoidal_embedding(gammas * config.decoder.time_scaling, config.decoder.dim)))
        time = F.silu(self.time2(time))  # [s, time_dim]
        blocks = (module for module in self.modules() if isinstance(module, ResBlock | BottleneckTransformer))
        height, width = (n >> (len(config.decoder.multipliers) - 1) for n in features.map.shape[-2:])
        return StepCache(
            conditioning=self._conditioning(features, past),
            memories=self.transformer.memories(features.tokens) if self.transformer else [],
            positions=position_encoding(height, width, config.decoder.transformer_dim, t.device),
            gammas=gammas,
            times={block.name: block.time(time) for block in blocks},
        )

    def _conditioning(self, features: ImageFeatures, past: Tensor | None) -> Tensor:
        """Share of feature map and past masks in the first convolution's result: `[b, dim, h / patch, w / patch]`.

        That convolution reads [noisy bits | feature map | past bits]. It is linear, so the share of the last two, which
        are the same in all steps, is computed once.
        """
        config, image_map = self.config, features.map
        noisy = config.mask.total_bits * config.decoder.patch**2
        _, map_weight, past_weight = self.conv_in.weight.split(
            [noisy, config.encoder.map_dim, noisy * config.decoder.past_frames], dim=1
        )
        if not config.decoder.condition_on_map:
            image_map = torch.zeros_like(image_map)
        of_map = F.conv2d(image_map, map_weight, self.conv_in.bias)
        if not config.decoder.past_frames:
            if past is not None:
                raise ValueError("the model does not condition on past masks; see checkpoint.inflate_for_video")
            return of_map
        if past is None:
            size = (n * config.decoder.patch for n in image_map.shape[-2:])
            past = torch.zeros(
                len(image_map), config.decoder.past_frames, 2, *size, dtype=torch.long, device=image_map.device
            )
        if past.shape[1] != config.decoder.past_frames:
            raise ValueError(f"the model conditions on {config.decoder.past_frames} past masks, not {past.shape[1]}")
        codes = (to_codes(frame, config.mask.bits, config.mask.encoding) for frame in past.unbind(dim=1))
        bits = torch.cat([analog(frame, config.mask.bits, config.mask.scale) for frame in codes], dim=1)
        past_bits = _to_patches(bits, config.decoder.patch).to(image_map.dtype)
        return of_map + F.conv2d(past_bits, past_weight)

    def _unet(self, m_t: Tensor, cache: StepCache) -> Tensor:
        """Everything but the last convolution: `[b, bits, h, w]` → `[b, dim, h / patch, w / patch]`."""
        config = self.config
        divisor = config.decoder.cell
        if m_t.shape[-2] % divisor or m_t.shape[-1] % divisor:
            raise ValueError(f"mask height and width must be multiples of {divisor}, not {tuple(m_t.shape[-2:])}")
        if config.decoder.normalize_noisy:
            variance = cache.gammas * config.mask.scale**2 + 1 - cache.gammas
            m_t = m_t * variance.rsqrt()[:, None, None, None]
        noisy = _to_patches(m_t, config.decoder.patch).to(cache.conditioning.dtype)
        x = self.norm_in(F.conv2d(noisy, self.conv_in.weight[:, : noisy.shape[1]]) + cache.conditioning)

        skips = [x]
        for unit in self.down:
            x = unit(x, cache, skips)
        if self.transformer is not None:
            x = self.transformer(x, cache)
        for unit in self.up:
            x = unit(x, cache, skips)
        assert not skips
        return self.norm_out(x, silu=True)


class BitHead(nn.Module):
    """Output of the last convolution → logits of each mask channel, and their expected analog bits (§3.2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        softmax = config.decoder.head == "softmax"
        self.values = [2**n for n in config.mask.bits] if softmax else [config.mask.total_bits]
        """Outputs of each mask channel for a pixel: its logits; of the linear head all bits."""
        self.expected_bits = ExpectedBits(config.mask.scale)

    def forward(self, x: Tensor, m_t: Tensor, gammas: Tensor) -> Tensor:
        """The bits.

        Args:
            x: result of the last convolution, `[b, outputs · patch², h / patch, w / patch]`.
            m_t: noisy analog bits `[b, bits, h, w]`.
            gammas: γ(t), `[b]` or `[1]`.

        Returns:
            Expected analog bits, float32 `[b, bits, h, w]` in [-scale, scale].
        """
        return self.bits(self.logits(x, m_t, gammas))

    def logits(self, x: Tensor, m_t: Tensor, gammas: Tensor) -> tuple[Tensor, ...]:
        """Logits of each mask channel `[b, 2^bits, h, w]`; the linear head: one tensor, the raw bits."""
        config = self.config
        x = _to_pixels(x, config.decoder.patch)
        if not config.decoder.bit_logits:
            return x.split(self.values, dim=1)
        *logits, bit_logits = x.float().split([*self.values, config.mask.total_bits], dim=1)
        bit_logits = bit_logits + bit_evidence(m_t, config.mask.scale, gammas)
        parts = bit_logits.split(list(config.mask.bits), dim=1)
        return tuple(own + value_logits(part) for own, part in zip(logits, parts, strict=True))

    def bits(self, logits: tuple[Tensor, ...]) -> Tensor:
        """Expected analog bits of logits, float32 `[b, bits, h, w]` in [-scale, scale]."""
        scale = self.config.mask.scale
        if self.config.decoder.head == "linear":
            return logits[0].float().clamp(-scale, scale)
        return torch.cat([self.expected_bits(group) for group in logits], dim=1)


class ResBlock(nn.Module):
    """GroupNorm, SiLU and convolution, twice; the time gives a scale and a shift between them."""

    def __init__(self, name: str, in_dim: int, out_dim: int, time_dim: int, config: ModelConfig) -> None:
        super().__init__()
        self.name = name
        padding = config.decoder.kernel_size // 2
        self.norm1 = GroupNorm(in_dim)
        self.conv1 = glorot(nn.Conv2d(in_dim, out_dim, config.decoder.kernel_size, padding=padding))
        self.time = glorot(nn.Linear(time_dim, 2 * out_dim))
        self.norm2 = GroupNorm(out_dim)
        self.dropout = nn.Dropout(config.decoder.dropout)
        self.conv2 = glorot(nn.Conv2d(out_dim, out_dim, config.decoder.kernel_size, padding=padding), scale=1e-10)
        self.shortcut = glorot(nn.Conv2d(in_dim, out_dim, 1)) if in_dim != out_dim else nn.Identity()

    def forward(self, x: Tensor, cache: StepCache) -> Tensor:
        """`x` [b, in_dim, h, w] → [b, out_dim, h, w]; the time, `[b or 1, 2 · out_dim]`, is in the cache."""
        time = cache.times[self.name]
        h = self.norm2(self.conv1(self.norm1(x, silu=True)), time, silu=True)
        h, x = self.conv2(self.dropout(h)), self.shortcut(x)
        return h.add_(x).mul_(math.sqrt(0.5))


class DownUnit(nn.Module):
    """Residual blocks, then a stride-2 convolution; every result is appended to `skips`, the skip connections."""

    def __init__(
        self, name: str, in_dim: int, dim: int, blocks: int, time_dim: int, config: ModelConfig, downsample: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResBlock(f"{name}.{i}", in_dim if i == 0 else dim, dim, time_dim, config) for i in range(blocks)
        )
        self.downsample = glorot(nn.Conv2d(dim, dim, 3, stride=2)) if downsample else None

    def forward(self, x: Tensor, cache: StepCache, skips: list[Tensor]) -> Tensor:
        """`x` [b, in_dim, h, w] → [b, dim, h / 2, w / 2], or without downsampling [b, dim, h, w]."""
        for block in self.blocks:
            x = block(x, cache)
            skips.append(x)
        if self.downsample is not None:
            x = self.downsample(F.pad(x, (0, 1, 0, 1)))  # TensorFlow's "same": an odd pixel at the end
            skips.append(x)
        return x


class UpUnit(nn.Module):
    """Residual blocks, each with a skip connection; then nearest upsampling and a convolution."""

    def __init__(
        self,
        name: str,
        in_dim: int,
        dim: int,
        laterals: list[int],
        time_dim: int,
        config: ModelConfig,
        upsample: bool,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ResBlock(f"{name}.{i}", (in_dim if i == 0 else dim) + lateral, dim, time_dim, config)
            for i, lateral in enumerate(laterals)
        )
        self.upsample = glorot(nn.Conv2d(dim, dim, 3, padding=1)) if upsample else None

    def forward(self, x: Tensor, cache: StepCache, skips: list[Tensor]) -> Tensor:
        """`x` [b, in_dim, h, w] → [b, dim, 2 h, 2 w], or without upsampling [b, dim, h, w]; each block pops a skip."""
        for block in self.blocks:
            x = block(torch.cat([x, skips.pop()], dim=1), cache)
        if self.upsample is not None:
            x = self.upsample(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        return x


class BottleneckTransformer(nn.Module):
    """Transformer decoder layers at the U-Net's coarsest resolution, with cross-attention to the image's tokens."""

    name = "transformer"

    def __init__(self, in_dim: int, time_dim: int, config: ModelConfig) -> None:
        super().__init__()
        dim = config.decoder.transformer_dim
        self.norm_in = GroupNorm(in_dim, dim)  # the official code takes the number of groups from the output
        self.conv_in = glorot(nn.Conv2d(in_dim, dim, 1))
        self.time = glorot(nn.Linear(time_dim, dim))
        self.layers = nn.ModuleList(
            TransformerLayer(
                dim,
                dim // config.decoder.head_dim,
                4 * dim,
                context_dim=config.encoder.dim if config.decoder.condition_on_tokens else None,
                dropout=config.decoder.dropout,
            )
            for _ in range(config.decoder.layers)
        )
        self.norm_out = GroupNorm(dim)
        self.conv_out = glorot(nn.Conv2d(dim, dim, 1))

    def memories(self, tokens: Tensor) -> list[KeyValue]:
        """Keys and values of the image's tokens `[b, n, encoder.dim]`, for each layer."""
        return [layer.memory(tokens) for layer in self.layers]  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor, cache: StepCache) -> Tensor:
        """`x` [b, in_dim, h, w] → [b, dim, h, w]; the time, `[b or 1, dim]`, is one more token."""
        time, (height, width) = cache.times[self.name], x.shape[-2:]
        x = self.conv_in(self.norm_in(x)).flatten(2).transpose(1, 2)  # [b, h·w, dim]
        x = x + cache.positions
        x = torch.cat([x, time[:, None].expand(len(x), 1, -1).to(x.dtype)], dim=1)
        for layer, memory in zip(self.layers, cache.memories, strict=True):
            x = layer(x, memory)
        x = x[:, :-1].contiguous().transpose(1, 2).unflatten(2, (height, width))  # channels last
        return self.conv_out(self.norm_out(x))


def _to_patches(x: Tensor, patch: int) -> Tensor:
    """`[b, c, h, w]` → `[b, c · patch², h / patch, w / patch]`; a patch of one pixel costs no copy."""
    return F.pixel_unshuffle(x, patch) if patch > 1 else x


def _to_pixels(x: Tensor, patch: int) -> Tensor:
    """Inverse of `_to_patches`."""
    return F.pixel_shuffle(x, patch) if patch > 1 else x
