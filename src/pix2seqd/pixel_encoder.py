"""Pixel encoder (Figure 2, left): backbone → transformer → pyramid merge. Runs once per image."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pix2seqd.config import ModelConfig
from pix2seqd.layers import efficientnet_lite
from pix2seqd.layers.norms import GroupNorm
from pix2seqd.layers.resnet import ResNet
from pix2seqd.layers.transformer import TransformerLayer, glorot, position_code


class ImageFeatures(NamedTuple):
    """Features of an image for the mask decoder."""

    map: Tensor
    """`[b, map_dim, h, w]` at the resolution of the mask (divided by `patch`): concatenated to the noisy mask."""
    tokens: Tensor
    """`[b, n, encoder.dim]`: memory of the cross-attention."""


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
        self.backbone = build_backbone(config)
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
        """Encode images.

        Raises:
            ValueError: height or width is not a multiple of the backbone's coarsest stride.
        """
        stride = self.backbone.strides[-1]
        if images.shape[-2] % stride or images.shape[-1] % stride:
            raise ValueError(f"image height and width must be multiples of {stride}, not {tuple(images.shape[-2:])}")
        if not (self.config.decoder.condition_on_map or self.config.decoder.condition_on_tokens):
            return self._empty(images)
        *fine, coarse = self.backbone((images - self.mean) / self.std)
        height, width = coarse.shape[-2:]
        x = self.dropout(coarse.flatten(2).transpose(1, 2))  # [b, n, c]
        x = self.project_norm(self.project(x)) + position_code(height, width, self.project.out_features, x.device)
        for layer in self.layers:
            x = layer(x)
        tokens = self.out_norm(x)
        encoded = tokens.transpose(1, 2).unflatten(2, (height, width))
        return ImageFeatures(self.merge([*fine, encoded]), tokens)

    def _empty(self, images: Tensor) -> ImageFeatures:
        """Features for a decoder that reads no image (mask pre-training, §4.1): zeros and no tokens."""
        cell = self.config.mask.stride * self.config.decoder.patch
        height, width = (n // cell for n in images.shape[-2:])
        tokens = images.new_zeros(len(images), 0, self.config.encoder.dim)
        return ImageFeatures(images.new_zeros(len(images), self.config.encoder.map_dim, height, width), tokens)


class PyramidMerge(nn.Module):
    """Merge feature maps from coarse to fine, then upsample to the mask's resolution.

    Args of the constructor:
        channels, strides: of the maps, fine to coarse.
        dim: output channels.
        stride: image pixels per output cell.
    """

    def __init__(self, channels: list[int], strides: list[int], dim: int, stride: int) -> None:
        super().__init__()
        # Levels finer than the output are not used.
        levels = [(c, s) for c, s in zip(channels, strides, strict=True) if s >= stride]
        if not levels or levels[0][1] % stride:
            raise ValueError(f"no backbone level of strides {strides} can serve a map of stride {stride}")
        self.skip = len(channels) - len(levels)
        blocks: list[nn.Module] = []
        current, at = levels.pop()
        while levels:
            lateral, finer = levels.pop()
            blocks.append(MergeBlock(current, lateral, lateral, at // finer))
            current, at = lateral, finer
        self.blocks = nn.ModuleList(blocks)
        self.last = MergeBlock(current, dim, dim, at // stride) if at > stride or current != dim else None

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
        x = self.conv2(x)  # frees its input before the next map is made; these maps are the encoder's largest
        return self.norm2(x, silu=True)


class Backbone(nn.Module):
    """A backbone, from this package or from `transformers`: image → feature maps, fine to coarse."""

    def __init__(self, network: nn.Module, channels: list[int], strides: list[int]) -> None:
        super().__init__()
        self.network = network
        self.channels = channels
        self.strides = strides

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """`[b, 3, H, W]` → maps `[b, channels[i], H / strides[i], W / strides[i]]`."""
        maps = self.network(images)
        return tuple(getattr(maps, "feature_maps", maps))


def build_backbone(config: ModelConfig) -> Backbone:
    """The backbone of a config, with random weights.

    Raises:
        ValueError: no backbone has this type, or its configuration is not valid.
    """
    values = dict(config.encoder.backbone)
    model_type = values.pop("model_type")
    try:
        if model_type == "resnet":
            network = ResNet(**values, stem_pool=config.encoder.stem_pool)
        elif model_type in efficientnet_lite.FACTORS and not values:
            network = efficientnet_lite.EfficientNetLite(*efficientnet_lite.FACTORS[model_type])
        else:
            return _of_transformers(model_type, values)
        return Backbone(network, list(network.channels), list(network.strides))
    except Exception as error:  # any error here comes from the configuration
        reason = " ".join(str(error).split())
        if isinstance(error, TypeError | AttributeError | LookupError):  # their words are those of programmers
            reason = "a setting is missing, unknown or of another kind"
        raise ValueError(f"backbone {model_type!r} cannot be built: {reason}") from error


def _of_transformers(model_type: str, values: dict[str, Any]) -> Backbone:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

    config = AutoConfig.for_model(model_type, **values)
    if type(config) not in MODEL_FOR_BACKBONE_MAPPING:
        raise ValueError("transformers has no backbone of this type")
    network: Any = MODEL_FOR_BACKBONE_MAPPING[type(config)](config)  # pyright: ignore
    return Backbone(network, [int(c) for c in network.channels], _strides(config, list(config.out_features)))


def pretrained_backbone(name: str) -> tuple[dict[str, Any], nn.Module]:
    """A backbone with trained weights.

    Args:
        name: the folder of a `transformers` checkpoint (ResNet, Swin, ConvNeXtV2, DINOv2, DINOv3, ...), or one of
            `efficientnet_lite.FACTORS`, whose weights are a package each (`efficientnet_lite.package`);
            `checkpoint.find_backbone` finds it.

    Returns:
        (changes, network): the fields of `EncoderConfig` for the backbone, and the network. Levels coarser than
        stride 16 are left out, as in the paper, and not built where `transformers` allows it. Images are normalised as
        in the backbone's training (ImageNet statistics, or to -1..1).

    Raises:
        ValueError: the checkpoint does not exist, or is not a backbone.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

    if name in efficientnet_lite.FACTORS:
        half = (0.5,) * 3
        changes = {"backbone": {"model_type": name}, "image_mean": half, "image_std": half}
        return changes, efficientnet_lite.pretrained(name)
    try:
        config = AutoConfig.from_pretrained(name)
        stages = list(config.stage_names[1:])
        strides = _strides(config, stages)
        names = [stage for stage, stride in zip(stages, strides, strict=True) if stride <= 16]
        if len(names) < len(stages) and config.model_type in _PYRAMIDS:
            config = _with_stages(config, names)
        config.out_features = names[-1:] if len(set(strides)) == 1 else names
        network = MODEL_FOR_BACKBONE_MAPPING[type(config)].from_pretrained(name, config=config)  # pyright: ignore
    except (KeyError, AttributeError) as error:
        kinds = ", ".join(_PYRAMIDS)
        raise ValueError(f"{name} is a network without stages; give one such as {kinds} or dinov2") from error
    except (ValueError, OSError) as error:
        raise ValueError(f"{name} is no backbone that can be used: {str(error).strip().splitlines()[0]}") from error
    changes = {
        "backbone": {**config.to_diff_dict(), "model_type": config.model_type, "out_features": config.out_features},
        "stem_pool": "symmetric",
        "image_mean": (0.485, 0.456, 0.406),
        "image_std": (0.229, 0.224, 0.225),
    }
    return changes, network


_PYRAMIDS = ("resnet", "convnext", "convnextv2", "swin", "swinv2")
"""Networks that can end after any stage."""


def _with_stages(config: Any, names: list[str]) -> Any:
    """The configuration of the network that ends after these stages, without unused parameters."""
    derived = ("stage_names", "out_features", "out_indices", "num_layers", "hidden_size")
    values = {key: value for key, value in config.to_diff_dict().items() if key not in derived}
    for key in ("depths", "hidden_sizes", "num_heads", "pretrained_window_sizes"):
        if hasattr(config, key):
            values[key] = list(getattr(config, key))[: len(names)]
    if hasattr(config, "num_stages"):
        values["num_stages"] = len(names)
    return type(config)(**values)


def _strides(config: Any, stages: list[str]) -> list[int]:
    """Strides of stages: all the patch size in a ViT; in pyramids the stem's stride, doubled at each stage."""
    patch = getattr(config, "patch_size", None)
    first = patch if isinstance(patch, int) else 4
    if config.model_type in ("dinov2", "dinov2_with_registers", "dinov3_vit"):
        return [first] * len(stages)
    return [first * 2 ** max(config.stage_names.index(stage) - 1, 0) for stage in stages]
