"""Every setting of the project as frozen dataclasses; an unknown key is an error that names the nearest field.

The config.json of a checkpoint may come from an untrusted source: type, length and range of each value are checked
before it is used. Sizes have limits too, because a model may be too large for the machine.

Each setting names its source: a section of the paper, "official" for the official TensorFlow code, or "not in the
paper" for what was added here.
"""

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from reprlib import repr as short_repr
from typing import Annotated, Any, Literal, Self, get_args, get_origin, get_type_hints

BUNDLED = Path(__file__).parent / "checkpoints"
"""Folder of the checkpoints that come with the package."""
CARD = "README.md"
"""The model card in a checkpoint's folder."""
DEFAULT_MODEL = "nuclei-fast"
"""The checkpoint for images where nobody names one."""
DEFAULT_FOR_CLIPS = "nuclei-video"
"""The checkpoint for clips where nobody names one."""
MAX_CHANNELS = 2**16
"""Largest number of channels or blocks, and of any number in the settings of a backbone."""
MAX_LAYERS = 1000
"""Largest number of layers, and of levels."""
MAX_PIXELS = 4096
"""Largest height and width of the network's input."""
MAX_STEPS = 10_000
"""Largest number of denoising steps, and of their average."""
MAX_SAMPLES = 999
"""Largest number of samples that have to agree."""
_MAX_ITEMS = 20_000
"""Values in the settings of a backbone; the names of ImageNet's classes may be among them."""
_MAX_TEXT = 1000
"""Characters of a setting."""
_MAX_NUMBER = 2**63 - 1
"""Largest number in a setting that has no limit of its own."""
_TRUST = "; --trust-size allows it"
"""End of a message about a limit."""
_RENAMED = {"InferConfig.sure": "early_exit"}
"""Names that settings had before, which checkpoints and runs may have → their names now."""


ZOOMS = 0.125, 4.0
"""Smallest and largest zoom to which images of things of one size are brought (`DataConfig.diameter`)."""


def current_name(name: str, config: str = "InferConfig") -> str:
    """The name that a setting has now; checkpoints, runs and results may have the one before."""
    return _RENAMED.get(f"{config}.{name}", name)


def bundled_names() -> list[str]:
    """The names of the bundled checkpoints, in alphabetical order."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/config.json"))


@dataclass(frozen=True)
class Range:
    """The values that a number, or each entry of a list, may have; none is infinite."""

    low: float = 0
    high: float = math.inf
    above: bool = False
    """Whether `low` itself, 0, is not among them."""
    below: bool = False
    """Whether `high` itself is not among them."""
    limit: float = math.inf
    """Largest value unless sizes are trusted: more make a model too large or too slow for many machines."""

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError unless the value is in the range."""
        shown = f"from {self.low:g} to {'below ' * self.below}{self.high:g}"
        if self.high == math.inf:
            shown = "positive" if self.above else f"{self.low:g} or more"
        for entry in value if isinstance(value, tuple) else (value,):
            inside = self.low <= entry <= self.high and math.isfinite(entry)
            at_end = (self.above and entry == self.low) or (self.below and entry == self.high)
            check(inside and not at_end, f"{name} must be {shown}, not {value}")

    def check_limit(self, name: str, value: Any) -> None:
        """Raise ValueError if the value is above the limit."""
        largest = max(value) if isinstance(value, tuple) else value
        check(largest <= self.limit, f"{name} must be at most {self.limit}, not {short_repr(value)}{_TRUST}")


Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
Share = Annotated[float, Range(0, 1)]
BelowOne = Annotated[float, Range(0, 1, below=True)]
Positive = Annotated[float, Range(above=True)]
Channels = Annotated[int, Range(1, limit=MAX_CHANNELS)]
Layers = Annotated[int, Range(0, limit=MAX_LAYERS)]


class Config:
    """Base of the configs: reading from and writing to plain dictionaries, strictly; the `Range` of each field."""

    def __post_init__(self) -> None:
        for name, allowed in _ranges(type(self)).items():
            allowed.check(name, getattr(self, name))
        self._check()

    def _check(self) -> None:
        """Raise ValueError if settings do not fit each other."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], trust_size: bool = False) -> Self:
        """Build from plain values (as JSON or YAML give them); lists become tuples, dictionaries nested configs.

        Args:
            values: the settings.
            trust_size: the limits of sizes (`Range.limit`, and those of a backbone's settings) do not hold.

        Raises:
            ValueError: an unknown key (the message names the nearest field), a value of another type, above its limit,
                or out of range.
        """
        return cls._built(cls.checked(values, trust_size))

    @classmethod
    def checked(cls, values: Mapping[str, Any], trust_size: bool = False, name: str = "") -> dict[str, Any]:
        """Some of the settings as their fields hold them, each checked by itself; nested configs are dictionaries.

        Arguments and errors are those of `from_dict`; ranges are not checked. Messages call this config `name`.
        """
        name, kinds, ranges, found = name or cls.__name__, get_type_hints(cls), _ranges(cls), {}
        for given, value in values.items():
            key = current_name(given, cls.__name__)
            if key not in kinds:
                near = difflib.get_close_matches(str(key), cls.names(), n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(kinds)}"
                raise ValueError(f"{name} has no setting {short_repr(key)}{hint}")
            found[key] = _convert(f"{name}.{key}", kinds[key], value, trust_size)
            if key in ranges and not trust_size:
                ranges[key].check_limit(f"{name}.{key}", found[key])
        return found

    @classmethod
    def _built(cls, values: Mapping[str, Any], path: str = "") -> Self:
        """The config of `checked` values; messages about a nested config begin with its path."""
        kinds, fields = get_type_hints(cls), dict(values)
        for key, value in values.items():
            if is_section(kinds[key]) and isinstance(value, dict):
                fields[key] = kinds[key]._built(value, f"{path}.{key}".removeprefix("."))
        try:
            return cls(**fields)
        except ValueError as error:
            raise ValueError(f"{path}: {error}".removeprefix(": ")) from error

    @classmethod
    def names(cls) -> list[str]:
        """All settings, those of nested configs after a dot: `mask`, `mask.bits`."""
        hints = get_type_hints(cls).items()
        nested = [(name, kind.names()) for name, kind in hints if is_section(kind)]
        return [*dict(hints), *(f"{name}.{inner}" for name, inside in nested for inner in inside)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they are read back from JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[call-overload]  # tuples become lists

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; a dictionary changes some fields of a nested config.

        `config.replace(mask={"stride": 1})` is `config.replace(mask=config.mask.replace(stride=1))`.
        """
        for name, value in changes.items():
            section = getattr(self, name, None)
            if isinstance(section, Config) and isinstance(value, Mapping):
                changes[name] = section.replace(**value)
        return replace(self, **changes)  # type: ignore[type-var]


@cache
def _ranges(config: type[Config]) -> dict[str, Range]:
    """The fields that have a range."""
    hints = get_type_hints(config, include_extras=True).items()
    return {name: kind.__metadata__[0] for name, kind in hints if get_origin(kind) is Annotated}


def merged(below: Any, above: Any) -> Any:
    """Settings in nested dictionaries, of which those `above` have priority; backbones of other types are replaced."""
    if not isinstance(below, Mapping) or not isinstance(above, Mapping) or "model_type" in above:
        return above
    return {**below, **{key: merged(below.get(key), value) for key, value in above.items()}}


def nested(path: str, value: Any) -> dict[str, Any]:
    """A setting in nested dictionaries, from its path, such as "model.mask.bits"."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def is_section(kind: Any) -> bool:
    """Whether the values of a field of this kind are nested configs."""
    return isinstance(kind, type) and issubclass(kind, Config)


def _convert(name: str, kind: Any, value: Any, trust_size: bool) -> Any:
    """A plain value as a field of this kind holds it; a `ValueError` if it is of another kind or length."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        check(value in inner, f"{name} must be one of {', '.join(inner)}, not {short_repr(value)}")
        return value
    if origin is tuple:
        check(isinstance(value, list | tuple), f"{name} must be a list, not {short_repr(value)}")
        if inner[-1] is Ellipsis:
            check(1 <= len(value) <= MAX_LAYERS, f"{name} must have 1 to {MAX_LAYERS} entries, not {len(value)}")
            inner = inner[:1] * len(value)
        check(len(value) == len(inner), f"{name} must have {len(inner)} entries, not {len(value)}")
        pairs = enumerate(zip(inner, value, strict=True))
        return tuple(_convert(f"{name}[{i}]", *pair, trust_size) for i, pair in pairs)
    if origin is dict:
        check(isinstance(value, Mapping), f"{name} must be a section of settings, not {short_repr(value)}")
        return _check_backbone(name, value, trust_size)
    if is_section(kind):
        check(isinstance(value, Mapping | kind), f"{name} must be a section of settings, not {short_repr(value)}")
        return value if isinstance(value, kind) else kind.checked(value, trust_size, name)
    allowed = (int, float) if kind is float else (kind,)
    check(type(value) in allowed, f"{name} must be of type {kind.__name__}, not {short_repr(value)}")
    _check_plain(name, value, _MAX_NUMBER)
    return value


def _check_backbone(name: str, values: Mapping[str, Any], trust_size: bool) -> dict[str, Any]:
    """The settings of a backbone, of which only `transformers` knows the fields: plain values within limits pass.

    A setting that asks for code or weights of others is a `ValueError` too.
    """
    pending: list[tuple[str, Any]] = [(name, values)]
    for name, value in pending:  # nested values are appended meanwhile
        check(len(pending) <= _MAX_ITEMS, f"{name}: a backbone may have {_MAX_ITEMS:,} settings")
        if isinstance(value, Mapping):
            for key, item in value.items():
                allowed = isinstance(key, str | int) and len(str(key)) <= _MAX_TEXT
                # An implementation of attention may be the name of a repository with code.
                allowed = allowed and not any(
                    word in str(key) for word in ("implementation", "auto_map", "remote_code")
                )
                check(allowed, f"{name} must not have the setting {short_repr(key)}")
                pending.append((f"{name}.{key}", item))
        elif isinstance(value, list | tuple):
            pending.extend((f"{name}[{i}]", item) for i, item in enumerate(value))
        else:
            _check_plain(name, value, _MAX_NUMBER if trust_size else MAX_CHANNELS, "" if trust_size else _TRUST)
    model_type = values.get("model_type")
    check(isinstance(model_type, str), f"{name} needs a model_type, the name of a backbone")
    check(model_type != "timm_backbone", "backbone 'timm_backbone' is not supported: it fetches weights of its own")
    return dict(values)


def _check_plain(name: str, value: Any, limit: int, cure: str = "") -> None:
    """Refuse what is not a plain value, numbers that are not finite or beyond `limit`, and long or unprintable text."""
    if isinstance(value, str):
        plain = len(value) <= _MAX_TEXT and value.isprintable()
        check(plain, f"{name} must be a line of at most {_MAX_TEXT} printable characters, not {short_repr(value)}")
    elif isinstance(value, float):
        check(math.isfinite(value), f"{name} must be a finite number, not {value}")
    elif value is not None:
        check(isinstance(value, int), f"{name} must be a plain value, not {short_repr(value)}")
        check(abs(value) <= limit, f"{name} must be at most {limit}, not {short_repr(value)}{cure}")


def check(holds: bool, message: str) -> None:
    """Raise ValueError with a message unless something holds."""
    if not holds:
        raise ValueError(message)


def resnet_backbone(depths: tuple[int, ...], stem: int, widths: tuple[int, ...], layer_type: str) -> dict[str, Any]:
    """Fields of a `transformers` ResNet: blocks and channels per stage, channels of the stem, basic or bottleneck."""
    sizes = {"depths": list(depths), "embedding_size": stem, "hidden_sizes": list(widths)}
    stages = [f"stage{i + 1}" for i in range(len(depths))]
    return {"model_type": "resnet", **sizes, "layer_type": layer_type, "out_features": stages}


@dataclass(frozen=True)
class EncoderConfig(Config):
    """The pixel encoder (Figure 2, left): a backbone, transformer layers, and the merge of their maps."""

    backbone: dict[str, Any] = field(
        default_factory=lambda: resnet_backbone((3, 4, 6), 64, (256, 512, 1024), "bottleneck")
    )
    """`model_type` and the fields of a `transformers` backbone (§3.1, §4.1: ResNet-50; officially its first stages)."""
    stem_pool: Literal["same", "symmetric", "none"] = "same"
    """A ResNet's max pooling: padded as TensorFlow's "same" (official), as PyTorch's (pretrained), or left out, which
    halves all strides (small objects). Not in the paper."""
    image_mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Subtracted from red, green and blue, which are from 0 to 1. Not in the paper; official: none."""
    image_std: Annotated[tuple[float, float, float], Range(above=True)] = (1.0, 1.0, 1.0)
    """Divides red, green and blue after that. Not in the paper; official: none."""
    dim: Channels = 512
    """Channels of the transformer layers and of the tokens (§4.1)."""
    layers: Layers = 12
    """Transformer layers. §4.1 says 6; only 12, the official number, make the parameters of Table 1."""
    heads: Channels = 16
    """Attention heads of each layer. Not in the paper; official."""
    mlp_dim: Channels = 2048
    """Channels inside each layer's MLP. Not in the paper; official."""
    dropout: BelowOne = 0.1
    """Share of activations that training drops. Not in the paper; official."""
    drop_path: BelowOne = 0.1
    """Probability that training skips a layer's residual branch. Not in the paper; official."""
    map_dim: Channels = 256
    """Channels of the feature map that the decoder reads beside the noisy mask. Not in the paper; official."""

    def _check(self) -> None:
        check(self.dim % self.heads == 0, "dim must be a multiple of heads")
        check("model_type" in self.backbone, "backbone needs a model_type")


@dataclass(frozen=True)
class DecoderConfig(Config):
    """The mask decoder (Figure 2, right): a TransUNet, what it is conditioned on, and its output."""

    dim: Channels = 128
    """Channels of the U-Net at a multiplier of 1 (§4.1)."""
    multipliers: Annotated[tuple[int, ...], Range(1, limit=MAX_CHANNELS)] = (1, 1, 2, 2)
    """Channels of each level, in multiples of `dim`; a level has half the resolution of the one before (§4.1)."""
    res_blocks: Annotated[tuple[int, ...], Range(1, limit=MAX_CHANNELS)] = (1, 1, 1, 1)
    """Residual blocks of each level. Not in the paper; official."""
    kernel_size: Annotated[int, Range(1, 63)] = 3
    """Side of the blocks' convolutions in pixels of their level. Not in the paper; official."""
    transformer_dim: Channels = 512
    """Channels of the transformer layers at the coarsest level (§4.1)."""
    layers: Layers = 6
    """Transformer layers (§4.1)."""
    head_dim: Channels = 64
    """Channels of an attention head. Not in the paper; official."""
    dropout: BelowOne = 0.0
    """Share of activations that training drops. Not in the paper; official."""
    patch: Channels = 1
    """Side of the U-Net's patches in mask pixels: 2 makes it four times cheaper. Not in the paper."""
    condition_on_map: bool = True
    """Concatenate the image's feature map to the noisy mask (§3.1); False feeds zeros (mask pre-training, §4.1)."""
    condition_on_tokens: bool = True
    """Cross-attend to the image's tokens (§3.1); False: no cross-attention (mask pre-training, §4.1)."""
    past_frames: Layers = 0
    """How many past masks are concatenated to the noisy mask (§3.4: 2 for videos)."""
    time_scaling: Positive = 1000.0
    """The network reads γ(t) · time_scaling. Not in the paper; the official configs leave it open (docs/paper.md)."""
    normalize_noisy: bool = False
    """Bring the noisy bits to unit variance at every noise level. Not in the paper; an official option that is off
    there. Without it, short trainings ignore the noisy mask for a long time."""
    head: Literal["softmax", "linear"] = "softmax"
    """softmax: logits over the values of a channel, whose expected bits are the prediction (§3.2); linear: the analog
    bits directly (Table 4, ℓ2)."""
    bit_logits: bool = False
    """The softmax head also gives a logit per bit, to which the evidence of the noisy bit is added; a value's logit is
    its own plus those of its bits. Short trainings learn ids many times sooner (docs/notebook/nuclei.md). Not in the
    paper."""

    @property
    def cell(self) -> int:
        """Side of a pixel of the U-Net's coarsest level, in mask pixels."""
        return self.patch * 2 ** (len(self.multipliers) - 1)

    def _check(self) -> None:
        check(self.kernel_size % 2 == 1, f"kernel_size must be odd, not {self.kernel_size}")
        check(len(self.multipliers) == len(self.res_blocks), "multipliers and res_blocks must be of equal length")
        check(self.transformer_dim % self.head_dim == 0, "transformer_dim must be a multiple of head_dim")
        check(self.head == "softmax" or not self.bit_logits, "bit_logits need the softmax head")


@dataclass(frozen=True)
class MaskConfig(Config):
    """The mask of classes and ids, and the analog bits that stand for it (§2, §3.2)."""

    bits: Annotated[tuple[int, int], Range(1, 16)] = (8, 8)
    """Bits of the class channel and of the id channel: 2^bits values each (§2; the numbers are official)."""
    classes: Annotated[int, Range(2)] = 134
    """Classes including void (§4.1: the 133 of MS-COCO); generated classes above are clipped."""
    max_instances: Annotated[int, Range(2)] = 101
    """Ids including 0 (§2: K + 1; the number is official); generated ids above are clipped."""
    scale: Positive = 0.1
    """b: the analog bits are -b or +b (§3.2, Table 3)."""
    encoding: Literal["binary", "gray", "random"] = "binary"
    """Code of a value: plain binary (§2), Gray code, or a fixed random permutation (the discrete encodings of Bit
    Diffusion, Chen et al. 2022)."""
    stride: Annotated[int, Range(1, limit=MAX_PIXELS)] = 2
    """Image pixels per mask pixel, along each axis (§4.1: 1024 × 1024 for images, 512 × 512 for masks)."""
    init_id_cell: Annotated[int, Range(0, limit=MAX_PIXELS)] = 0
    """Above 0, sampling starts from a grid of ids instead of noise: side of a cell in mask pixels. A single
    step can give the id of a cell to the object there (`pix2seqd distill`). In a video, the ids of the last past mask
    replace those of the cells. Not in the paper."""

    def _check(self) -> None:
        counts = (("classes", self.classes, self.bits[0]), ("ids", self.max_instances, self.bits[1]))
        needed = [max(bits, (count - 1).bit_length()) for _, count, bits in counts]
        for what, count, bits in counts:
            check(count <= 2**16, f"{count} {what} are too many; the limit is {2**16} (16 bits)")
            message = f'{count} {what} do not fit {bits} bits; --model.mask.bits "{needed}" suits'
            check(count <= 2**bits, message)

    @property
    def total_bits(self) -> int:
        """Channels of the analog bits."""
        return sum(self.bits)


@dataclass(frozen=True)
class ModelConfig(Config):
    """The two networks of Figure 2, the mask between them, and the diffusion's training. Defaults are the paper's."""

    encoder: EncoderConfig = EncoderConfig()
    """Figure 2, left."""
    decoder: DecoderConfig = DecoderConfig()
    """Figure 2, right."""
    mask: MaskConfig = MaskConfig()
    """§2, §3.2."""
    schedule: str = "cosine"
    """γ(t), see `diffusion.gamma` (§2; the function is official)."""
    loss: Literal["cross_entropy", "l2"] = "cross_entropy"
    """§3.2, Table 4."""
    p: Annotated[float, Range(0)] = 0.2
    """Exponent of the loss weights 1 / c^p, where c is the pixels of an instance (§3.2, Table 5)."""

    def _check(self) -> None:
        check(self.decoder.head == "softmax" or self.loss == "l2", "the cross-entropy loss needs the softmax head")

    @classmethod
    def preset(cls, name: Literal["paper", "small", "tiny"]) -> "ModelConfig":
        """`paper`: 94,492,480 parameters (Table 1). `small` and `tiny` train on a CPU."""
        small = cls(
            encoder=EncoderConfig(
                backbone=resnet_backbone((2, 2, 2), 32, (48, 96, 192), "basic"),
                dim=192,
                layers=2,
                heads=6,
                mlp_dim=576,
                dropout=0.0,
                drop_path=0.0,
                map_dim=64,
            ),
            decoder=DecoderConfig(
                dim=64, multipliers=(1, 2, 3), res_blocks=(1, 1, 1), transformer_dim=192, layers=3, head_dim=32
            ),
            mask=MaskConfig(bits=(4, 6), classes=16, max_instances=64),
        )
        presets = {
            "paper": cls(),
            "small": small,
            "tiny": small.replace(
                encoder={
                    "backbone": resnet_backbone((1, 1, 1), 16, (16, 32, 64), "basic"),
                    "dim": 64,
                    "layers": 1,
                    "heads": 2,
                    "mlp_dim": 128,
                    "map_dim": 32,
                },
                decoder={"dim": 32, "multipliers": (1, 2), "res_blocks": (1, 1), "transformer_dim": 64, "layers": 1},
            ),
        }
        if name not in presets:
            raise ValueError(f"no preset {name!r}; there are {', '.join(presets)}")
        return presets[name]


@dataclass(frozen=True)
class DataConfig(Config):
    """How images and masks are prepared for the model, in training and inference; saved with every checkpoint."""

    size: Annotated[tuple[int, int], Range(1, limit=MAX_PIXELS)] = (256, 256)
    """Height and width of the network's input in pixels (§4.1: 256 × 256, later 1024 × 1024)."""
    layout: Literal["resize", "tile"] = "resize"
    """resize: the whole image, scaled to fit, padded at bottom and right (official); tile: overlapping windows at a
    fixed scale, whose segments are joined across the seams (microscopy; not in the paper)."""
    zoom: Annotated[float, Range(0.01, 100)] = 1.0
    """tile: network pixels per image pixel. Not in the paper."""
    diameter: Annotated[float, Range(0, limit=MAX_PIXELS)] = 0.0
    """tile; above 0: images are scaled so that their things have about this diameter in network pixels. Training takes
    their size from the truth; inference measures it first, in a quick segmentation (`Segmenter.resize`). Not in the
    paper."""
    overlap: int = 32
    """tile: network pixels that neighbouring windows share. Not in the paper."""
    ids: Literal["unique", "reused"] = "unique"
    """unique: every segment of an image has an id of its own (§2). reused: things near each other differ, distant ones
    may share an id, and instances are connected components of (class, id); stuff has id 0. For images with more
    instances than the id bits can count (not in the paper; see `pix2seqd.panoptic.reused_ids`)."""
    normalize: Literal["none", "percentile"] = "none"
    """percentile: stretch each image so that its 0.5th and 99.8th percentiles become 0 and 1. Not in the paper."""

    def _check(self) -> None:
        overlaps = self.layout == "resize" or 0 <= self.overlap < min(self.size)
        check(not self.diameter or self.layout == "tile", "diameter needs layout tile; resize has a scale of its own")
        check(overlaps, f"overlap must be 0 or more and below the size, not {self.overlap}")

    def at_scale_of(self, diameter: float) -> Self:
        """A copy with the zoom for things of `diameter` image pixels; 0: unknown, `zoom` is not changed."""
        if not self.diameter or not diameter:
            return self
        # Beyond these bounds it is probably a single huge or tiny thing, which says little about scale.
        return self.replace(zoom=min(max(self.diameter / diameter, ZOOMS[0]), ZOOMS[1]))


@dataclass(frozen=True)
class InferConfig(Config):
    """Defaults of inference; saved with every checkpoint."""

    steps: Annotated[int, Range(1, limit=MAX_STEPS)] = 20
    """Denoising steps (§4.1, Figure 6)."""
    td: Annotated[float, Range(0)] = 1.0
    """τ_d, the asymmetric time interval, in steps (§3.3, Figure 6)."""
    min_pixels: Whole = 80
    """Segments of fewer image pixels are discarded (§4.1, Figure 6)."""
    min_share: BelowOne = 0.0
    """With `DataConfig.diameter`: segments below this share of the area of a disc of that diameter are discarded too.
    Not in the paper."""
    min_score: Share = 0.0
    """Segments with a lower score (`panoptic.Segment.score`), 0 to 1, are discarded. Not in the paper."""
    join_below: Share = 0.0
    """Touching segments of one thing class are joined if the chance that both have the right id, the product of the
    mean probabilities of their ids, is below this; 0: none. Not in the paper."""
    input_scale: Annotated[int, Range(1, 16)] = 1
    """Side of the network's input in multiples of that in training; the networks work at other sizes (§4.1)."""
    consensus: Annotated[int, Range(1, limit=MAX_SAMPLES)] = 1
    """Odd number of samples whose consensus is the result (`inference.consensus`); with hints one sample is taken.
    Not in the paper."""
    sample_scales: tuple[float, ...] = (1.0,)
    """Scales of the samples of a consensus, in turn, 0.5 to 2 times that of the image for the network. The first is 1,
    and in videos all are. Not in the paper."""
    smooth: bool = False
    """Where the mask is coarser than the image, outlines are smooth (`resize.smooth_labels`); False: each pixel takes
    the nearest mask pixel (official). Not in the paper."""
    unconditioned_share: BelowOne = 0.0
    """Share of the samples of a video's later frames without past masks, as in a first frame. They correct errors of
    past masks; the ids come from the other samples. Not in the paper."""
    early_exit: Share = 0.0
    """Above 0: early exit. A window whose pixels' segments have this mean probability takes no further steps, and after
    the first sample no further samples of its scale. 0, or if the number of steps is given (`--steps`): all are taken.
    Not in the paper."""
    first_steps: Annotated[int, Range(0, limit=MAX_STEPS)] = 0
    """Steps of a mask without past masks: of a video's first frame (§4.2, Figure 7), of an image, and of samples that
    get none (`unconditioned_share`); 0: as many as `steps`."""
    adaptive: Annotated[float, Range(0, limit=MAX_STEPS)] = 0.0
    """Later frames take as many steps as they need: at most `steps`, and at most this number on average; 0: always
    `steps`. §3.4 suggests it."""

    @property
    def image_steps(self) -> int:
        """Steps of an image, and of a mask without past masks: `first_steps`, or `steps` where that is 0."""
        return self.first_steps or self.steps

    def _check(self) -> None:
        check(self.consensus % 2 == 1, f"consensus must be 1, 3, 5 ..., not {self.consensus}")
        check(not 0 < self.adaptive < 1, f"adaptive must be 0 or 1 and more, not {self.adaptive}")
        check(
            tuple(self.sample_scales[:1]) == (1,) and all(0.5 <= scale <= 2 for scale in self.sample_scales),
            f"sample_scales must be 1 and further numbers from 0.5 to 2, not {list(self.sample_scales)}",
        )


@dataclass(frozen=True)
class AugmentConfig(Config):
    """Random changes of a training image, the same for all frames of a clip; the defaults change nothing."""

    jitter: tuple[float, float] = (1.0, 1.0)
    """Range of the random scale (§4.1 "scale jittering"); above 1 crops, below 1 pads."""
    color_jitter: Annotated[float, Range(0)] = 0.0
    """Strength of brightness, contrast, saturation and hue changes, and greyscale; 1 is SimCLR's. Not in the paper;
    official: 1 at low resolution."""
    invert: Share = 0.0
    """Probability of a negative (microscopy: bright on dark or dark on bright). Not in the paper."""
    flip: Literal["none", "horizontal", "all"] = "none"
    """horizontal: half of the images are mirrored (official); all: the eight symmetries of the square, for images
    without an up. Not in the paper."""

    def _check(self) -> None:
        low, high = self.jitter
        check(0 < low <= high, f"jitter must be a range of positive scales, not {self.jitter}")


@dataclass(frozen=True)
class ClipsConfig(Config):
    """The past masks of a training example (§3.4); by default the true ones."""

    first_frame: Share = 0.0
    """Probability that a frame is shown as the first one, without past masks. Not in the paper."""
    past_dropout: Share = 0.0
    """Probability that a past mask is left out. Not in the paper; official: 0.2."""
    past_noise: Share = 0.0
    """Above 0, past masks have errors like those of predictions: outlines move by about a mask pixel, and this share of
    the instances is lost, joined or cut. Not in the paper."""
    past_stride: Count = 1
    """The distance of past masks in frames is drawn from 1 to this number for each example: faster motion. Not in the
    paper."""
    self_past_prob: Share = 0.0
    """Probability that the last past mask is the model's own quick prediction, as in inference. Not in the paper."""
    rollout_prob: Share = 0.0
    """Probability that the noisy mask of an example with past masks is one that the model reaches from noise, at a step
    of `InferConfig`. Not in the paper."""


@dataclass(frozen=True)
class TrainConfig(Config):
    """How a model is trained (§4.1; the official code's optimiser)."""

    batch_size: Count = 32
    """Images per step, over all processes and accumulated micro-batches (§4.1: 16 to 512)."""
    steps: Count = 1000
    """Updates of the weights (§4.1 gives epochs, see `paper_recipes`)."""
    lr: Positive = 1e-3
    """AdamW's learning rate after the warm-up. Not in the paper's text; official: 1e-4 to 1e-5."""
    end_lr_factor: float = 0.1
    """The rate falls linearly to lr · end_lr_factor at the last step. Not in the paper's text; official."""
    backbone_lr_factor: Share = 1.0
    """The backbone's learning rate as a multiple of lr; below 1 keeps more of a pretrained one. Not in the paper."""
    warmup_steps: Whole = 0
    """Steps in which the rate rises linearly from 0. Not in the paper's text; official."""
    weight_decay: Annotated[float, Range(0)] = 0.05
    """AdamW's weight decay, on every parameter. Not in the paper's text; official."""
    clip_norm: Positive = 1.0
    """Largest norm of the gradient. Not in the paper's text; official."""
    ema_decay: BelowOne = 0.999
    """Decay of the moving average of the weights, per step. Not in the paper's text; official."""
    accumulate: Count = 1
    """Micro-batches per step. Not in the paper."""
    precision: Literal["auto", "bf16", "no"] = "auto"
    """no: float32; auto: bf16 where the hardware computes it natively, otherwise float32. Not in the paper."""
    seed: Whole = 0
    """Seed of weights, order, augmentation and noise. Not in the paper."""
    workers: Whole = 1
    """Processes that prepare images; the result does not depend on it. Not in the paper."""
    log_every: Count = 50
    """Steps between TensorBoard scalars. Not in the paper."""
    save_every: Count = 500
    """Steps between checkpoints. Not in the paper."""
    evaluate_every: Whole = 0
    """Steps between evaluations (scalars and sample images in TensorBoard); 0: only at the end. Not in the paper."""
    evaluate_images: Whole = 32
    """Images of an evaluation while training, spread over the evaluation data. Not in the paper."""
    minutes: Annotated[float, Range(0)] = 0.0
    """Above 0: length of the run in minutes, evaluations included; it takes at most `steps`. The learning rate and the
    half-life of the moving average follow the measured number of steps that fit. Not in the paper."""
    evaluations: Whole = 0
    """Above 0: number of evaluations, evenly spread over the run, in place of `evaluate_every`; model/ is the one with
    the best PQ, last/ the last one. Not in the paper."""
    patience: Whole = 0
    """Above 0: early stopping after this number of `evaluations` without a better PQ. Not in the paper."""

    def _check(self) -> None:
        check(self.evaluations > 0 or not self.patience, "patience needs evaluations")


@dataclass(frozen=True)
class Recipe(Config):
    """A complete training run, as a value."""

    model: ModelConfig
    """The networks (§3) and their loss (§3.2)."""
    data: DataConfig = DataConfig()
    """Size and scale of the images, and the ids (§2, §4.1)."""
    augment: AugmentConfig = AugmentConfig()
    """Random changes of the training images (§4.1)."""
    clips: ClipsConfig = ClipsConfig()
    """Past masks in training (§3.4)."""
    train: TrainConfig = TrainConfig()
    """Optimiser and schedule (§4.1)."""
    infer: InferConfig = InferConfig()
    """Sampling (§3.3, §4.1)."""
    train_data: str = ""
    """The training images, or clips where the model has past frames: any name of docs/datasets.md (§4.1: MS-COCO,
    Cityscapes, DAVIS)."""
    eval_data: str = ""
    """Images for evaluation while training; empty: none. Not in the paper."""
    backbone: str = ""
    """Folder or hub id of a pretrained `transformers` backbone, or efficientnet_lite0, 1 or 2; it replaces
    `model.encoder.backbone` (§3.1)."""
    init: str = ""
    """Checkpoint to start from: a bundled name, a folder or a hub id. All weights that fit are taken
    (`checkpoint.transfer`). It may also be a folder of the official TensorFlow model (§4.1: the encoder trained on
    Objects365)."""
    trust_size: bool = False
    """Take a model and an `init` of any size. Otherwise sizes have limits, see `checkpoint.from_pretrained`. Not in the
    paper."""

    def _check(self) -> None:
        needs_past = self.clips.self_past_prob or self.clips.rollout_prob
        known = self.model.decoder.past_frames > 0 or not needs_past
        check(known, "self_past_prob and rollout_prob need a model with past_frames")
