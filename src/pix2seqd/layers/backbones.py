"""Backbones of the pixel encoder (paper §3.1): ResNet, EfficientNet-Lite, and all that `transformers` has."""

from typing import Any

from torch import Tensor, nn

from pix2seqd.config import EncoderConfig
from pix2seqd.layers import efficientnet_lite
from pix2seqd.layers.resnet import ResNet


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


def build_backbone(config: EncoderConfig) -> Backbone:
    """The backbone that a config describes, with random weights; a `ValueError` if there is none."""
    values = dict(config.backbone)
    model_type = values.pop("model_type")
    try:
        if model_type == "resnet":
            network = ResNet(**values, stem_pool=config.stem_pool)
        elif model_type in efficientnet_lite.FACTORS:
            network = efficientnet_lite.EfficientNetLite(*efficientnet_lite.FACTORS[model_type], **values)
        else:
            return _of_transformers(model_type, values)
        return Backbone(network, list(network.channels), list(network.strides))
    except Exception as error:  # any error here comes from the configuration
        reason = " ".join(str(error).split())
        if isinstance(error, TypeError | AttributeError | LookupError):  # their messages name things in the code
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
        stride 16 are left out, as in the paper, and not built where `transformers` allows it; EfficientNet-Lite keeps
        its level of stride 32, without which it knows little of photographs (docs/notebook/facades.md). Images are
        normalised as in the backbone's training (ImageNet statistics, or to -1..1).

    Raises:
        ValueError: the checkpoint does not exist, or is not a backbone.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

    if name in efficientnet_lite.FACTORS:
        half = (0.5,) * 3
        blocks = efficientnet_lite.block_count(name)
        changes = {"backbone": {"model_type": name, "blocks": blocks}, "image_mean": half, "image_std": half}
        return changes, efficientnet_lite.pretrained(name, blocks)
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
        raise ValueError(f"{name} cannot be used as a backbone: {str(error).strip().splitlines()[0]}") from error
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
    """Strides of stages. ViT: the patch size for all. Pyramid: the stem's stride, doubled at each further stage."""
    patch = getattr(config, "patch_size", None)
    first = patch if isinstance(patch, int) else 4
    if config.model_type in ("dinov2", "dinov2_with_registers", "dinov3_vit"):
        return [first] * len(stages)
    return [first * 2 ** max(config.stage_names.index(stage) - 1, 0) for stage in stages]
