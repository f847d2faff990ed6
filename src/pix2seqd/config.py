"""Every setting of the project as frozen dataclasses; an unknown key is an error that names the nearest field."""

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints


class Config:
    """Base of the configs: reading from and writing to plain dictionaries, strictly."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from plain values (as JSON or YAML give them); lists become tuples, dictionaries nested configs.

        Raises:
            ValueError: a key that is no field (the message names the nearest one), or a value of another kind.
        """
        hints = get_type_hints(cls)
        names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        converted: dict[str, Any] = {}
        for key, value in values.items():
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names)}"
                raise ValueError(f"{cls.__name__} has no setting {key!r}{hint}")
            _check_kind(f"{cls.__name__}.{key}", hints[key], value)
            if isinstance(hints[key], type) and issubclass(hints[key], Config) and isinstance(value, Mapping):
                value = hints[key].from_dict(value)
            converted[key] = tuple(value) if isinstance(value, list) else value
        return cls(**converted)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed."""
        return replace(self, **changes)  # type: ignore[type-var]


def _check_kind(name: str, kind: Any, value: Any) -> None:
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, not {value!r}")
    allowed = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}.get(kind)
    if allowed and type(value) not in allowed:
        raise ValueError(f"{name} must be of type {kind.__name__}, not {value!r}")


def require(*checks: tuple[bool, str]) -> None:
    """Raise ValueError with the message of the first check that does not hold."""
    for holds, message in checks:
        if not holds:
            raise ValueError(message)


def require_probabilities(config: Config, *names: str) -> None:
    """Raise ValueError unless these fields of a configuration are from 0 to 1."""
    for name in names:
        value = getattr(config, name)
        require((0 <= value <= 1, f"{name} must be a probability, not {value}"))


def resnet_backbone(depths: tuple[int, ...], stem: int, widths: tuple[int, ...], layer_type: str) -> dict[str, Any]:
    """Fields of a `transformers` ResNet: blocks and channels per stage, channels of the stem, basic or bottleneck."""
    sizes = {"depths": list(depths), "embedding_size": stem, "hidden_sizes": list(widths)}
    stages = [f"stage{i + 1}" for i in range(len(depths))]
    return {"model_type": "resnet", **sizes, "layer_type": layer_type, "out_features": stages}


@dataclass(frozen=True)
class ModelConfig(Config):
    """The two networks of Figure 2 and the diffusion they serve. Defaults are the paper's."""

    # The mask and its analog bits (§2, §3.2)
    bits: tuple[int, int] = (8, 8)
    """Bits of the class channel and of the id channel; the mask can hold 2^bits values per channel."""
    classes: int = 134
    """Classes including void; generated classes above are clipped."""
    max_instances: int = 101
    """Ids including 0; generated ids above are clipped."""
    scale: float = 0.1
    """b: the analog bits are -b or +b (Table 3)."""
    schedule: str = "cosine"
    """γ(t), see `diffusion.gamma`."""
    time_scaling: float = 1000.0
    """The decoder reads γ(t) · time_scaling. The official configs leave the value open (docs/paper.md)."""
    normalize_noisy: bool = False
    """Bring the noisy bits to unit variance at every noise level before the decoder reads them (an option of the
    official code that the paper leaves off): with short trainings the decoder else long ignores them."""
    bit_logits: bool = False
    """The decoder also gives a logit per bit, to which what the noisy bit itself says is added; a value's logit is
    its own plus those of its bits. Short trainings learn ids many times sooner (not in the paper, docs/results.md)."""
    init_id_cell: int = 0
    """Above 0, sampling does not start from noise but from a mask of ids in cells of so many mask pixels a side, which
    a single step can give to what lies there (`pix2seqd distill`; not in the paper)."""
    loss: Literal["cross_entropy", "l2"] = "cross_entropy"
    """Table 4."""
    head: Literal["softmax", "linear"] = "softmax"
    """softmax: logits over the values of a channel, whose expected bits are the prediction; linear: bits directly."""
    p: float = 0.2
    """Exponent of the loss weights 1 / c^p (Table 5)."""
    mask_stride: int = 2
    """Picture pixels per mask pixel, along each axis."""

    # Pixel encoder (Figure 2, left)
    backbone: dict[str, Any] = field(
        default_factory=lambda: resnet_backbone((3, 4, 6), 64, (256, 512, 1024), "bottleneck")
    )
    """Configuration of a `transformers` backbone: `model_type` and its fields."""
    stem_pool: Literal["same", "symmetric", "none"] = "same"
    """A ResNet's max pooling: padded as TensorFlow's "same" (official), as PyTorch's (pretrained), or left out, which
    halves all strides (small objects)."""
    image_mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    image_std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    encoder_dim: int = 512
    encoder_layers: int = 12
    encoder_heads: int = 16
    encoder_mlp_dim: int = 2048
    encoder_dropout: float = 0.1
    drop_path: float = 0.1
    fuse_dim: int = 256
    """Channels of the feature map that the decoder reads."""

    # Mask decoder (Figure 2, right)
    dim: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2)
    res_blocks: tuple[int, ...] = (1, 1, 1, 1)
    kernel_size: int = 3
    decoder_dim: int = 512
    decoder_layers: int = 6
    decoder_head_dim: int = 64
    decoder_dropout: float = 0.0
    mask_patch: int = 1
    """The U-Net works on patches of so many mask pixels a side: 2 makes it four times cheaper (not in the paper)."""
    condition_on_map: bool = True
    """Concatenate the image's feature map to the noisy mask; False feeds zeros (mask pre-training, §4.1)."""
    condition_on_tokens: bool = True
    """Cross-attend to the image's tokens."""
    past_frames: int = 0
    """How many past masks condition the decoder (§3.4)."""

    def __post_init__(self) -> None:
        sizes = (self.encoder_dim, self.encoder_heads, self.encoder_mlp_dim, self.fuse_dim, self.dim, self.decoder_dim)
        sizes += (self.decoder_head_dim, self.mask_stride, self.mask_patch, *self.multipliers, *self.res_blocks)
        counts = (self.encoder_layers, self.decoder_layers, self.past_frames, self.init_id_cell)
        rates = (self.encoder_dropout, self.drop_path, self.decoder_dropout)
        checks = (
            (min(sizes) >= 1, "widths, heads, strides, multipliers and res_blocks must be 1 or more"),
            (min(counts) >= 0, "numbers must be 0 or more"),
            (all(0 <= rate < 1 for rate in rates), "dropout and drop_path must be from 0 to below 1"),
            (self.p >= 0, f"p must be 0 or more, not {self.p}"),
            (self.kernel_size % 2 == 1, f"kernel_size must be odd, not {self.kernel_size}"),
            (min(self.classes, self.max_instances) >= 2, "classes and max_instances count void: 2 or more"),
            (len(self.multipliers) == len(self.res_blocks), "multipliers and res_blocks must be of equal length"),
            (min(self.bits) >= 1 and max(self.bits) <= 16, "bits must be between 1 and 16"),
            (self.classes <= 2 ** self.bits[0], f"{self.classes} classes do not fit {self.bits[0]} bits"),
            (self.max_instances <= 2 ** self.bits[1], f"{self.max_instances} ids do not fit {self.bits[1]} bits"),
            (self.head == "softmax" or self.loss == "l2", "the cross-entropy loss needs the softmax head"),
            (self.head == "softmax" or not self.bit_logits, "bit_logits need the softmax head"),
            (self.scale > 0, "scale must be positive"),
            (self.encoder_dim % self.encoder_heads == 0, "encoder_dim must be a multiple of encoder_heads"),
            (self.decoder_dim % self.decoder_head_dim == 0, "decoder_dim must be a multiple of decoder_head_dim"),
            ("model_type" in self.backbone, "backbone needs a model_type"),
        )
        require(*checks)

    @property
    def total_bits(self) -> int:
        """Channels of the analog bits."""
        return sum(self.bits)

    @classmethod
    def preset(cls, name: Literal["paper", "small", "tiny"]) -> "ModelConfig":
        """`paper`: 94,492,480 parameters (Table 1). `small` and `tiny` train on a CPU."""
        small = cls(
            bits=(4, 6),
            classes=16,
            max_instances=64,
            backbone=resnet_backbone((2, 2, 2), 32, (48, 96, 192), "basic"),
            encoder_dim=192,
            encoder_layers=2,
            encoder_heads=6,
            encoder_mlp_dim=576,
            encoder_dropout=0.0,
            drop_path=0.0,
            fuse_dim=64,
            dim=64,
            multipliers=(1, 2, 3),
            res_blocks=(1, 1, 1),
            decoder_dim=192,
            decoder_layers=3,
            decoder_head_dim=32,
        )
        presets = {
            "paper": cls(),
            "small": small,
            "tiny": small.replace(
                backbone=resnet_backbone((1, 1, 1), 16, (16, 32, 64), "basic"),
                encoder_dim=64,
                encoder_layers=1,
                encoder_heads=2,
                encoder_mlp_dim=128,
                fuse_dim=32,
                dim=32,
                multipliers=(1, 2),
                res_blocks=(1, 1),
                decoder_dim=64,
                decoder_layers=1,
            ),
        }
        if name not in presets:
            raise ValueError(f"no preset {name!r}; there are {', '.join(presets)}")
        return presets[name]


@dataclass(frozen=True)
class DataConfig(Config):
    """How pictures and masks are presented to the model, in training and in use; saved with every checkpoint."""

    size: tuple[int, int] = (256, 256)
    """Height and width of the network's input in pixels."""
    layout: Literal["resize", "tile"] = "resize"
    """resize: the whole picture, scaled to fit, padded at bottom and right (COCO); tile: overlapping windows at a
    fixed scale, whose segments are joined across the seams (microscopy)."""
    zoom: float = 1.0
    """tile: network pixels per picture pixel."""
    diameter: float = 0.0
    """tile; above 0: pictures are scaled so that their things are about so many network pixels across, in training
    by the truth, in use by what a first pass at `zoom` finds (`Panoptic.diameter` measures both)."""
    overlap: int = 32
    """tile: network pixels that neighbouring windows share."""
    ids: Literal["unique", "reused"] = "unique"
    """unique: every segment of a picture has an id of its own (paper §2). reused: things within `id_distance` of
    each other differ, distant ones may share an id, and instances are connected components of (class, id); stuff
    has id 0. For pictures with more instances than the id bits can count."""
    id_distance: int = 4
    """reused: mask pixels."""
    normalize: Literal["none", "percentile"] = "none"
    """percentile: stretch each picture so that its 0.5th and 99.8th percentiles become 0 and 1."""

    def __post_init__(self) -> None:
        overlaps = self.layout == "resize" or 0 <= self.overlap < min(self.size)
        require(
            (min(self.size) >= 1, f"size must be positive, not {self.size}"),
            (self.zoom > 0, f"zoom must be positive, not {self.zoom}"),
            (0 <= self.diameter < float("inf"), f"diameter must be 0 or more, not {self.diameter}"),
            (not self.diameter or self.layout == "tile", "diameter needs layout tile; resize has a scale of its own"),
            (overlaps, f"overlap must be 0 or more and below the size, not {self.overlap}"),
            (self.id_distance >= 0, f"id_distance must be 0 or more, not {self.id_distance}"),
        )

    def at_scale_of(self, diameter: float) -> Self:
        """With the zoom that things `diameter` picture pixels across call for; 0: nobody knows, `zoom` as it is."""
        if not self.diameter or not diameter:
            return self
        # Beyond these bounds it is one huge or tiny thing, which says little about scale.
        return self.replace(zoom=min(max(self.diameter / diameter, 0.125), 4.0))


@dataclass(frozen=True)
class InferConfig(Config):
    """Defaults of inference; saved with every checkpoint."""

    steps: int = 20
    td: float = 1.0
    """τ_d of §3.3."""
    min_pixels: int = 80
    """Smaller segments are discarded (§4.1)."""
    min_share: float = 0.0
    """With `DataConfig.diameter`: segments below this share of the area of a disc that wide are discarded, too."""
    input_scale: int = 1
    """The network's input is so many times that of training a side: the networks carry over to other sizes (§4.1)."""
    consensus: int = 1
    """The answer is what so many samples agree on (`ensemble.consensus`), an odd number; not around known pixels."""
    unconditioned_share: float = 0.0
    """Share of the samples of a video's later frames that are told of no past, as a first frame's: their consensus with
    the others, which give the ids, mends what the past got wrong."""
    first_steps: int = 0
    """Steps of a video's first frame, and of a picture (§4.2, Figure 7); 0: as many as `steps`."""
    adaptive: float = 0.0
    """Later frames take as many steps as they need, at most `steps`, on average at most so many; 0: always `steps`."""

    def __post_init__(self) -> None:
        require(
            (self.steps >= 1, f"steps must be 1 or more, not {self.steps}"),
            (0 <= self.td < float("inf"), f"td must be 0 or more, not {self.td}"),
            (self.min_pixels >= 0, f"min_pixels must be 0 or more, not {self.min_pixels}"),
            (0 <= self.min_share < 1, f"min_share must be from 0 to below 1, not {self.min_share}"),
            (self.input_scale >= 1, f"input_scale must be 1 or more, not {self.input_scale}"),
            (self.consensus >= 1 and self.consensus % 2 == 1, f"consensus must be 1, 3, 5 ..., not {self.consensus}"),
            (
                0 <= self.unconditioned_share < 1,
                f"unconditioned_share must be from 0 to below 1, not {self.unconditioned_share}",
            ),
            (self.first_steps >= 0, f"first_steps must be 0 or more, not {self.first_steps}"),
            (self.adaptive == 0 or self.adaptive >= 1, f"adaptive must be 0 or 1 and more, not {self.adaptive}"),
        )


@dataclass(frozen=True)
class AugmentConfig(Config):
    """Random changes of a training picture; the defaults change nothing."""

    jitter: tuple[float, float] = (1.0, 1.0)
    """Range of the random scale (§4.1 "scale jittering"); above 1 crops, below 1 pads."""
    color_jitter: float = 0.0
    """Strength of brightness, contrast, saturation and hue changes, and greyscale; 1 is SimCLR's."""
    invert: float = 0.0
    """Probability of a negative (microscopy: bright on dark or dark on bright)."""
    flip: Literal["none", "horizontal", "all"] = "none"
    """all: the eight symmetries of the square, for pictures without an up."""
    first_frame: float = 0.0
    """Clips: probability that a frame is shown as the first one, without past masks."""
    past_dropout: float = 0.0
    """Clips: probability that a past mask is left out."""
    past_noise: float = 0.0
    """Clips: above 0, past masks err as predictions do: outlines move, this share of instances is lost, joined, cut."""
    past_stride: int = 1
    """Clips: each example draws how many frames apart its past masks lie, from 1 to this: faster motion."""

    def __post_init__(self) -> None:
        low, high = self.jitter
        require_probabilities(self, "invert", "first_frame", "past_dropout", "past_noise")
        require(
            (0 < low <= high, f"jitter must be a range of positive scales, not {self.jitter}"),
            (self.color_jitter >= 0, f"color_jitter must be 0 or more, not {self.color_jitter}"),
            (self.past_stride >= 1, f"past_stride must be 1 or more, not {self.past_stride}"),
        )


@dataclass(frozen=True)
class TrainConfig(Config):
    """How a model is trained (§4.1; the official code's optimiser)."""

    batch_size: int = 32
    """Pictures per step, over all processes and accumulated micro-batches."""
    steps: int = 1000
    lr: float = 1e-3
    end_lr_factor: float = 0.1
    """The rate falls linearly to lr · end_lr_factor at the last step."""
    warmup_steps: int = 0
    weight_decay: float = 0.05
    """On every parameter, as officially."""
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    accumulate: int = 1
    """Micro-batches per step."""
    precision: Literal["auto", "bf16", "no"] = "auto"
    """no: float32; auto: bf16 where the hardware computes it natively, else float32."""
    seed: int = 0
    self_past_prob: float = 0.0
    """Clips: probability that the last past mask is the model's own quick prediction, as it will be in use."""
    own_past_steps: int = 2
    """Denoising steps of that prediction."""
    rollout_prob: float = 0.0
    """Clips: probability that the noisy mask of an example with a past is one the model comes to itself in use."""
    workers: int = 1
    """Processes that prepare pictures; the result does not depend on it."""
    log_every: int = 50
    """Steps between TensorBoard scalars."""
    save_every: int = 500
    """Steps between checkpoints."""
    evaluate_every: int = 0
    """Steps between evaluations (scalars and sample pictures in TensorBoard); 0: only at the end."""
    evaluate_images: int = 32
    """Pictures of an evaluation while training, spread over the evaluation data."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps", "accumulate", "own_past_steps", "log_every", "save_every"):
            require((getattr(self, name) >= 1, f"{name} must be 1 or more, not {getattr(self, name)}"))
        for name in ("warmup_steps", "workers", "evaluate_every", "evaluate_images", "seed", "weight_decay"):
            require((getattr(self, name) >= 0, f"{name} must be 0 or more, not {getattr(self, name)}"))
        require(
            (0 < self.lr < float("inf"), f"lr must be positive, not {self.lr}"),
            (0 <= self.ema_decay < 1, f"ema_decay must be 0 or more and below 1, not {self.ema_decay}"),
            (self.clip_norm > 0, f"clip_norm must be positive, not {self.clip_norm}"),
        )
        require_probabilities(self, "self_past_prob", "rollout_prob")


@dataclass(frozen=True)
class Recipe(Config):
    """A complete training run, as a value."""

    model: ModelConfig
    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig = TrainConfig()
    infer: InferConfig = InferConfig()
    train_data: str = ""
    """The training pictures, or clips where the model has past frames: any name of docs/datasets.md."""
    exclude: tuple[str, ...] = ()
    """File names of training pictures to leave out, of data sets `coco:` and `folder:`."""
    eval_data: str = ""
    """Pictures for evaluation while training; empty: none."""
    backbone: str = ""
    """Folder or hub id of a pretrained `transformers` backbone, or efficientnet_lite0; it replaces `model.backbone`."""
    init: str = ""
    """Checkpoint to start from, a bundled name, a folder or a hub id: whatever fits is taken (`weights.transfer`).
    A folder may be the official TensorFlow model's too (§4.1: the encoder trained on Objects365)."""

    def __post_init__(self) -> None:
        own = self.train.self_past_prob or self.train.rollout_prob
        require(
            (self.model.past_frames > 0 or not own, "self_past_prob and rollout_prob need a model with past_frames")
        )
