"""ResNet (He et al. 2016) as in the official code, with the parameter names of `transformers`.

Importing `transformers` would take longer than segmenting a small image.
"""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pix2seqd.layers.norms import BatchNorm


class ResNet(nn.Module):
    """Image `[b, 3, H, W]` → maps `[b, channels[i], H / strides[i], W / strides[i]]`, fine to coarse.

    Args of the constructor:
        depths, hidden_sizes: blocks and channels of each stage.
        embedding_size: channels of the stem.
        layer_type: "basic", or "bottleneck", which has a quarter of the channels inside.
        out_features: the stages whose maps are returned, "stage1" and so on; None: the last.
        downsample_in_first_stage: whether the first stage halves the resolution like the others.
        downsample_in_bottleneck: whether a bottleneck halves in its first convolution instead of its second.
        hidden_act: only "relu".
        stem_pool: see `EncoderConfig.stem_pool`.
        unused: other fields of a configuration of `transformers`.

    Raises:
        ValueError: the arguments do not describe a network.
    """

    def __init__(
        self,
        depths: Sequence[int] = (3, 4, 6, 3),
        hidden_sizes: Sequence[int] = (256, 512, 1024, 2048),
        embedding_size: int = 64,
        layer_type: str = "bottleneck",
        out_features: Sequence[str] | None = None,
        downsample_in_first_stage: bool = False,
        downsample_in_bottleneck: bool = False,
        hidden_act: str = "relu",
        stem_pool: str = "same",
        **unused: Any,
    ) -> None:
        super().__init__()
        names = [f"stage{number + 1}" for number in range(len(depths))]
        out = names[-1:] if out_features is None else list(out_features)
        if not len(depths) == len(hidden_sizes) > 0:
            raise ValueError(f"depths {depths} and hidden_sizes {hidden_sizes} must be of equal length, 1 or more")
        if layer_type not in ("basic", "bottleneck") or hidden_act != "relu":
            raise ValueError(f"layer_type must be basic or bottleneck and hidden_act relu: {layer_type}, {hidden_act}")
        if out_features is None and unused.get("out_indices"):
            raise ValueError("give out_features, not out_indices")
        if not out or out != [name for name in names if name in out]:
            raise ValueError(f"out_features must be some of {', '.join(names)}, in this order, not {', '.join(out)}")
        self.out = [names.index(name) for name in out]
        self.channels = [hidden_sizes[stage] for stage in self.out]
        first = (2 if stem_pool == "none" else 4) * (2 if downsample_in_first_stage else 1)
        self.strides = [first << stage for stage in self.out]

        self.stem_pool = stem_pool
        self.embedder = nn.ModuleDict({"embedder": ConvNorm(3, embedding_size, 7, 2)})
        halving = None if layer_type == "basic" else 0 if downsample_in_bottleneck else 1
        stages, width = nn.ModuleList(), embedding_size
        for stage, (depth, dim) in enumerate(zip(depths, hidden_sizes, strict=True)):
            strides = [2 if stage or downsample_in_first_stage else 1] + [1] * (depth - 1)
            dims = [width] + [dim] * (depth - 1)
            blocks = [Block(before, dim, stride, halving) for before, stride in zip(dims, strides, strict=True)]
            stages.append(nn.ModuleDict({"layers": nn.Sequential(*blocks)}))
            width = dim
        self.encoder = nn.ModuleDict({"stages": stages})

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps of `out_features`."""
        x = F.relu(self.embedder["embedder"](images), inplace=True)
        if self.stem_pool == "same":  # as TensorFlow pads: an odd pixel at the end
            x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=float("-inf")), 3, 2)
        elif self.stem_pool == "symmetric":
            x = F.max_pool2d(x, 3, 2, padding=1)
        maps = []
        for stage in self.encoder["stages"]:  # type: ignore[union-attr]
            x = stage["layers"](x)
            maps.append(x)
        return [maps[stage] for stage in self.out]


class Block(nn.Module):
    """Two 3 × 3 convolutions, or a bottleneck of 1 × 1, 3 × 3 and 1 × 1, with a residual; it starts as an identity.

    Args of the constructor:
        halving: index of the bottleneck's convolution with the stride; None: a basic block, where it is the first.
    """

    def __init__(self, in_dim: int, out_dim: int, stride: int, halving: int | None) -> None:
        super().__init__()
        inner = out_dim // 4
        shapes = [(in_dim, out_dim, 3), (out_dim, out_dim, 3)]
        if halving is not None:
            shapes = [(in_dim, inner, 1), (inner, inner, 3), (inner, out_dim, 1)]
        self.layer = nn.Sequential(*(ConvNorm(*s, stride if i == (halving or 0) else 1) for i, s in enumerate(shapes)))
        nn.init.zeros_(self.layer[-1].normalization.weight)  # type: ignore[arg-type]
        keeps = stride == 1 and in_dim == out_dim
        self.shortcut = nn.Identity() if keeps else ConvNorm(in_dim, out_dim, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`[b, in_dim, h, w]` → `[b, out_dim, h / stride, w / stride]`."""
        *first, last = self.layer
        y = x
        for layer in first:
            y = F.relu(layer(y), inplace=True)
        return F.relu(last(y).add_(self.shortcut(x)), inplace=True)


class ConvNorm(nn.Module):
    """Convolution and batch normalisation."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_dim, out_dim, kernel, stride, padding=kernel // 2, bias=False)
        # TensorFlow's truncated normal at ±2σ has 0.8796 of its nominal deviation; Keras compensates this.
        std = (in_dim * kernel**2) ** -0.5 / 0.87962566103423978
        nn.init.trunc_normal_(self.convolution.weight, std=std, a=-2 * std, b=2 * std)
        self.normalization = BatchNorm(out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """`[b, in_dim, h, w]` → `[b, out_dim, h / stride, w / stride]`."""
        return self.normalization(self.convolution(x))
