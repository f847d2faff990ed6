import ast
import dataclasses
import inspect
import json
import re
import sys
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

import pix2seqd
from pix2seqd.config import (
    AugmentConfig,
    ClipsConfig,
    Config,
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    InferConfig,
    MaskConfig,
    ModelConfig,
    Recipe,
    TrainConfig,
    resnet_backbone,
)
from pix2seqd.segmenter import Segmenter
from pix2seqd.training.recipes import RECIPES, smoke
from pix2seqd.training.train import train

ALL = [kind for kind in Config.__subclasses__() if kind.__module__ == Config.__module__]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_config_every_field_says_its_source(kind: type[Config]):
    """A section or table of the paper, the official code, or neither."""
    (home,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(home, ast.ClassDef)
    fields = [(line, text) for line, text in pairwise(home.body) if isinstance(line, ast.AnnAssign)]
    assert len(fields) == len(dataclasses.fields(kind))  # type: ignore[arg-type]
    for line, text in fields:
        assert isinstance(text, ast.Expr), ast.unparse(line)
        said = " ".join(ast.literal_eval(text.value).split())
        assert re.search(r"§|Table|Figure|[Oo]fficial|[Nn]ot in the paper", said), ast.unparse(line)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_recipe_json_round_trip(recipe: Recipe):
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))).to_dict() == recipe.to_dict()
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize("name", ["paper", "small", "tiny"])
def test_model_config_presets_json_round_trip(name):
    config = ModelConfig.preset(name)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_config_defaults_are_the_papers():
    """§2 to §4.1, Tables 3 and 5; 12 encoder layers make the 94.5M parameters of Table 1."""
    config = ModelConfig()
    encoder, decoder, mask = config.encoder, config.decoder, config.mask
    assert config == ModelConfig.preset("paper")
    assert (mask.bits, mask.scale, config.p, config.schedule) == ((8, 8), 0.1, 0.2, "cosine")
    assert (decoder.dim, decoder.multipliers, decoder.layers, decoder.transformer_dim) == (128, (1, 1, 2, 2), 6, 512)
    assert (encoder.layers, encoder.dim, config.loss, decoder.head) == (12, 512, "cross_entropy", "softmax")
    assert encoder.backbone == resnet_backbone((3, 4, 6), 64, (256, 512, 1024), "bottleneck")
    assert (InferConfig().steps, InferConfig().min_pixels) == (20, 80)
    assert (TrainConfig().weight_decay, TrainConfig().clip_norm, TrainConfig().ema_decay) == (0.05, 1.0, 0.999)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (EncoderConfig, {"layer": 3}, "EncoderConfig has no setting 'layer'; did you mean 'layers'?"),
        (ModelConfig, {"decoder": {"drop": 0.1}}, "ModelConfig.decoder has no setting 'drop'; did you mean 'dropout'?"),
        (
            ModelConfig,
            {"encoder_layer": 3},
            "ModelConfig has no setting 'encoder_layer'; did you mean 'encoder.layers'?",
        ),
        (Recipe, {"past_noise": 0.1}, "Recipe has no setting 'past_noise'; did you mean 'clips.past_noise'?"),
        (ModelConfig, {"mask": 3}, "ModelConfig.mask must be a section of settings, not 3"),
        (Recipe, {"trian": {}}, "Recipe has no setting 'trian'; did you mean 'train'?"),
        (DataConfig, {"q": 1}, "DataConfig has no setting 'q'; known: size, layout"),
        (Recipe, {"model": {}, "train": {"lrr": 1.0}}, "Recipe.train has no setting 'lrr'; did you mean 'lr'?"),
        (DataConfig, {"layout": "tiles"}, "DataConfig.layout must be one of resize, tile, not 'tiles'"),
        (TrainConfig, {"steps": "many"}, "TrainConfig.steps must be of type int, not 'many'"),
        (TrainConfig, {"steps": 1.5}, "TrainConfig.steps must be of type int, not 1.5"),
        (TrainConfig, {"lr": True}, "TrainConfig.lr must be of type float, not True"),
    ],
)
def test_from_dict_unknown_or_wrong_value_is_an_error(kind: type[Config], values: dict, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        kind.from_dict(values)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (MaskConfig, {"bits": (4, 8)}, "134 classes do not fit 4 bits"),
        (MaskConfig, {"bits": (8, 6)}, "101 ids do not fit 6 bits"),
        (MaskConfig, {"classes": 70_000}, "70000 classes are too many"),
        (MaskConfig, {"bits": (8, 17)}, "bits must be from 1 to 16"),
        (MaskConfig, {"scale": 0.0}, "scale must be positive"),
        (MaskConfig, {"scale": float("nan")}, "scale must be positive"),
        (MaskConfig, {"stride": 0}, "1 or more"),
        (MaskConfig, {"init_id_cell": -1}, "0 or more"),
        (MaskConfig, {"classes": 1}, "2 or more"),
        (EncoderConfig, {"heads": 7}, "multiple of heads"),
        (EncoderConfig, {"map_dim": 0}, "1 or more"),
        (EncoderConfig, {"layers": -1}, "0 or more"),
        (EncoderConfig, {"drop_path": 1.0}, "below 1"),
        (EncoderConfig, {"backbone": {}}, "model_type"),
        (DecoderConfig, {"multipliers": (1, 2)}, "equal length"),
        (DecoderConfig, {"head_dim": 100}, "multiple of head_dim"),
        (DecoderConfig, {"dim": 0}, "1 or more"),
        (DecoderConfig, {"patch": 0}, "1 or more"),
        (DecoderConfig, {"past_frames": -1}, "0 or more"),
        (DecoderConfig, {"dropout": 1.0}, "below 1"),
        (DecoderConfig, {"kernel_size": 2}, "odd"),
        (DecoderConfig, {"head": "linear", "bit_logits": True}, "softmax head"),
        (ModelConfig, {"decoder": {"head": "linear"}}, "cross-entropy loss needs the softmax head"),
        (ModelConfig, {"mask": {"bits": (4, 8)}}, "134 classes do not fit 4 bits"),
        (ModelConfig, {"p": -1.0}, "p must be 0 or more"),
        (ClipsConfig, {"past_noise": 1.5}, "must be from 0 to 1"),
        (ClipsConfig, {"rollout_prob": -0.5}, "must be from 0 to 1"),
        (ClipsConfig, {"past_stride": 0}, "past_stride must be 1 or more"),
        (DataConfig, {"size": (0, 5)}, "size must be 1 or more"),
        (DataConfig, {"zoom": 0.0}, "zoom must be from 0.01 to 100"),
        (DataConfig, {"layout": "tile", "size": (32, 32), "overlap": 32}, "overlap must be"),
        (InferConfig, {"steps": 0}, "steps must be 1 or more"),
        (InferConfig, {"td": float("nan")}, "td must be 0 or more"),
        (InferConfig, {"min_pixels": -1}, "min_pixels must be 0 or more"),
        (InferConfig, {"first_steps": -1}, "first_steps must be 0 or more"),
        (InferConfig, {"adaptive": 0.5}, "adaptive must be 0 or 1 and more"),
        (AugmentConfig, {"jitter": (2.0, 1.0)}, "jitter"),
        (AugmentConfig, {"jitter": (0.0, 1.0)}, "jitter"),
        (AugmentConfig, {"invert": 1.5}, "must be from 0 to 1"),
        (TrainConfig, {"batch_size": 0}, "batch_size must be 1 or more"),
        (TrainConfig, {"lr": float("inf")}, "lr must be positive"),
        (TrainConfig, {"ema_decay": 1.0}, "ema_decay"),
        (TrainConfig, {"save_every": 0}, "save_every must be 1 or more"),
        (TrainConfig, {"clip_norm": 0.0}, "clip_norm must be positive"),
    ],
)
def test_config_impossible_value_is_an_error(kind, changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        kind().replace(**changes)


def test_replace_changes_some_fields_of_a_nested_config():
    config = ModelConfig().replace(mask={"stride": 4}, decoder={"head": "linear"}, loss="l2")
    assert config.mask == MaskConfig(stride=4) and config.decoder == DecoderConfig(head="linear")
    assert config.encoder == EncoderConfig() and ModelConfig() == ModelConfig.preset("paper")
    backbone = {"model_type": "swin"}
    assert EncoderConfig().replace(backbone=backbone).backbone == backbone, "a plain dictionary is replaced as a whole"
    with pytest.raises(TypeError, match="strid"):
        ModelConfig().replace(mask={"strid": 4})


def test_preset_unknown_is_an_error():
    with pytest.raises(ValueError, match="no preset 'huge'; there are paper, small, tiny"):
        ModelConfig.preset("huge")  # type: ignore[arg-type]


class Reads:
    """Which field of which config the package reads, outside config.py."""

    def __init__(self) -> None:
        self.seen: set[tuple[type, str]] = set()

    def __enter__(self) -> Self:
        source, seen = Path(pix2seqd.__file__).parent, self.seen

        def read(config: Config, name: str) -> Any:
            frame: Any = sys._getframe(1)
            if isinstance(getattr(type(config), frame.f_code.co_name, None), property):
                frame = frame.f_back.f_back  # whoever asks for the property, beyond this function
            reader = Path(frame.f_code.co_filename)
            if reader.is_relative_to(source) and reader.name != "config.py":
                seen.add((type(config), name))
            return object.__getattribute__(config, name)

        Config.__getattribute__ = read  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        del Config.__getattribute__

    def unread(self, *kinds: type[Config]) -> list[str]:
        """Names of the fields of these configs that nothing has read."""
        every = [(kind, field.name) for kind in kinds for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
        return [f"{kind.__name__}.{name}" for kind, name in every if (kind, name) not in self.seen]


@pytest.fixture(scope="module")
def reads(tmp_path_factory) -> Reads:
    """The settings that training a video model on windows, an image and a video read."""
    recipe = smoke(RECIPES["nuclei-video"])
    recipe = recipe.replace(
        train={"steps": 2, "batch_size": 2},
        infer={"first_steps": 1, "input_scale": 1, "consensus": 1, "unconditioned_share": 0.0},
        eval_data="shapes:1@1",
    )
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), np.uint8)
    with Reads() as reads:
        checkpoint = train(recipe, tmp_path_factory.mktemp("reads") / "run")
        segmenter = Segmenter(checkpoint, "cpu", "float32")
        segmenter.image(frames[0])
        assert len(list(segmenter.video(frames, diameter=24.0))) == 3
    return reads


def test_config_every_setting_is_read(reads: Reads):
    assert reads.unread(*ALL) == []

    @dataclasses.dataclass(frozen=True)
    class Unused(Config):
        size: int = 0
        steps: int = 0

    assert reads.unread(Unused, TrainConfig) == ["Unused.size", "Unused.steps"]


def test_settings_are_read_under_their_former_names():
    assert InferConfig.from_dict({"sure": 0.5}) == InferConfig(early_exit=0.5)
    with pytest.raises(ValueError, match="early_exit must be of type float"):
        InferConfig.from_dict({"sure": "much"})
