"""Pixel encoder (Figure 2, left): backbone → transformer → pyramid merge. Runs once per image."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pix2seqd.config import ModelConfig
from pix2seqd.layers.backbones import build_backbone
from pix2seqd.layers.norms import GroupNorm
from pix2seqd.layers.transformer import TransformerLayer, glorot, position_encoding


class ImageFeatures(NamedTuple):
    """Features of an image for the mask decoder."""

    map: Tensor
    """`[b, map_dim, h, w]` at the resolution of the mask (divided by `patch`): concatenated to the noisy mask."""
    tokens: Tensor
    """`[b, n, encoder.dim]`: the decoder's cross-attention reads them."""


class PixelEncoder(nn.Module):
    """Image `[b, 3, H, W]`, values 0..1, → `ImageFeatures`.

    The coarsest backbone map becomes tokens for a transformer; its output replaces that map, and the pyramid is
    merged from coarse to fine up to the mask's resolution (§3.1).
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_backbone(config.encoder)
        channels = list(self.backbone.channels)
        self.register_buffer("mean", torch.tensor(config.encoder.image_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.encoder.image_std).view(3, 1, 1), persistent=False)
        self.dropout = nn.Dropout(config.encoder.dropout)
        self.project = glorot(nn.Linear(channels[-1], config.encoder.dim))
        self.project_norm = nn.LayerNorm(config.encoder.dim, eps=1e-6)
        self.layers = nn.ModuleList(
            TransformerLayer(
                config.encoder.dim,
                config.encoder.heads,
                config.encoder.mlp_dim,
                dropout=config.encoder.dropout,
                drop_path=config.encoder.drop_path,
            )
            for _ in range(config.encoder.layers)
        )
        self.out_norm = nn.LayerNorm(config.encoder.dim, eps=1e-6)
        self.merge = PyramidMerge(
            [*channels[:-1], config.encoder.dim],
            list(self.backbone.strides),
            config.encoder.map_dim,
            config.mask.stride * config.decoder.patch,
        )

    def forward(self, images: Tensor) -> ImageFeatures:
        """Encode images `[b, 3, H, W]`, values 0..1; H and W are multiples of the backbone's coarsest stride."""
        stride = self.backbone.strides[-1]
        if images.shape[-2] % stride or images.shape[-1] % stride:
            raise ValueError(f"image height and width must be multiples of {stride}, not {tuple(images.shape[-2:])}")
        if not (self.config.decoder.condition_on_map or self.config.decoder.condition_on_tokens):
            return self._empty(images)
        *fine, coarse = self.backbone((images - self.mean) / self.std)
        height, width = coarse.shape[-2:]
        x = self.dropout(coarse.flatten(2).transpose(1, 2))  # [b, n, c]
        x = self.project_norm(self.project(x)) + position_encoding(height, width, self.project.out_features, x.device)
        for layer in self.layers:
            x = layer(x)
        tokens = self.out_norm(x)
        encoded = tokens.transpose(1, 2).unflatten(2, (height, width))
        return ImageFeatures(self.merge([*fine, encoded]), tokens)

    def _empty(self, images: Tensor) -> ImageFeatures:
        """Features for a decoder that reads no image (mask pre-training, §4.1): zeros and no tokens."""
        stride = self.config.mask.stride * self.config.decoder.patch
        height, width = (n // stride for n in images.shape[-2:])
        tokens = images.new_zeros(len(images), 0, self.config.encoder.dim)
        return ImageFeatures(images.new_zeros(len(images), self.config.encoder.map_dim, height, width), tokens)


class PyramidMerge(nn.Module):
    """Merge feature maps from coarse to fine, then upsample to the mask's resolution.

    Args of the constructor:
        channels, strides: of the maps, fine to coarse.
        dim: output channels.
        stride: image pixels per pixel of the output, along each axis.

    Raises:
        ValueError: no map has a stride that is a multiple of `stride`.
    """

    def __init__(self, channels: list[int], strides: list[int], dim: int, stride: int) -> None:
        super().__init__()
        # Levels finer than the output are not used.
        levels = [(c, s) for c, s in zip(channels, strides, strict=True) if s >= stride]
        if not levels or levels[0][1] % stride:
            raise ValueError(f"no backbone level of strides {strides} can serve a map of stride {stride}")
        self.skip = len(channels) - len(levels)
        blocks: list[nn.Module] = []
        x_dim, x_stride = levels.pop()
        while levels:
            lateral_dim, lateral_stride = levels.pop()
            blocks.append(MergeBlock(x_dim, lateral_dim, lateral_dim, x_stride // lateral_stride))
            x_dim, x_stride = lateral_dim, lateral_stride
        self.blocks = nn.ModuleList(blocks)
        self.last = MergeBlock(x_dim, dim, dim, x_stride // stride) if x_stride > stride or x_dim != dim else None

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps fine to coarse → `[b, dim, h, w]`."""
        *laterals, x = maps[self.skip :]
        for block, lateral in zip(self.blocks, reversed(laterals), strict=True):
            x = block(x, lateral)
        return x if self.last is None else self.last(x)


class MergeBlock(nn.Module):
    """1×1 convolution, nearest upsampling, sum with the finer map, 3×3 convolution; GroupNorm and SiLU after each."""

    def __init__(self, in_dim: int, mid_dim: int, out_dim: int, factor: int) -> None:
        super().__init__()
        self.conv1 = glorot(nn.Conv2d(in_dim, mid_dim, 1))
        self.norm1 = GroupNorm(mid_dim)
        self.factor = factor
        self.conv2 = glorot(nn.Conv2d(mid_dim, out_dim, 3, padding=1))
        self.norm2 = GroupNorm(out_dim)

    def forward(self, x: Tensor, lateral: Tensor | None = None) -> Tensor:
        """`x` [b, in_dim, h, w], `lateral` [b, mid_dim, factor·h, factor·w] → [b, out_dim, factor·h, factor·w]."""
        x = self.norm1(self.conv1(x), silu=True)
        if self.factor > 1:
            x = F.interpolate(x, scale_factor=float(self.factor), mode="nearest")
        if lateral is not None:
            x = lateral + x
        x = self.conv2(x)  # the name x is used again, so that the input, one of the largest maps, is freed at once
        return self.norm2(x, silu=True)
