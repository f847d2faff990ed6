import dataclasses
import json
import re
from pathlib import Path

import pytest

import pix2seqd
from pix2seqd.config import (
    AugmentConfig,
    Config,
    DataConfig,
    InferConfig,
    ModelConfig,
    Recipe,
    TrainConfig,
    resnet_backbone,
)
from pix2seqd.training.recipes import RECIPES

ALL = (ModelConfig, DataConfig, InferConfig, AugmentConfig, TrainConfig, Recipe)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_a_recipe_survives_json(recipe: Recipe):
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))).to_dict() == recipe.to_dict()
    assert Recipe.from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize("name", ["paper", "small", "tiny"])
def test_presets_survive_json(name):
    config = ModelConfig.preset(name)
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_papers_values_are_the_defaults():
    """§2 to §4.1, Tables 3 and 5; 12 encoder layers make the 94.5M parameters of Table 1."""
    config = ModelConfig()
    assert config == ModelConfig.preset("paper")
    assert (config.bits, config.scale, config.p, config.schedule) == ((8, 8), 0.1, 0.2, "cosine")
    assert (config.dim, config.multipliers, config.decoder_layers, config.decoder_dim) == (128, (1, 1, 2, 2), 6, 512)
    assert (config.encoder_layers, config.encoder_dim, config.loss, config.head) == (
        12,
        512,
        "cross_entropy",
        "softmax",
    )
    assert config.backbone == resnet_backbone((3, 4, 6), 64, (256, 512, 1024), "bottleneck")
    assert (InferConfig().steps, InferConfig().min_pixels) == (20, 80)
    assert (TrainConfig().weight_decay, TrainConfig().clip_norm, TrainConfig().ema_decay) == (0.05, 1.0, 0.999)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (
            ModelConfig,
            {"encoder_layer": 3},
            "ModelConfig has no setting 'encoder_layer'; did you mean 'encoder_layers'?",
        ),
        (Recipe, {"trian": {}}, "Recipe has no setting 'trian'; did you mean 'train'?"),
        (DataConfig, {"q": 1}, "DataConfig has no setting 'q'; known: size, layout"),
        (Recipe, {"model": {}, "train": {"lrr": 1.0}}, "TrainConfig has no setting 'lrr'; did you mean 'lr'?"),
        (DataConfig, {"layout": "tiles"}, "DataConfig.layout must be one of resize, tile, not 'tiles'"),
        (TrainConfig, {"steps": "many"}, "TrainConfig.steps must be of type int, not 'many'"),
        (TrainConfig, {"steps": 1.5}, "TrainConfig.steps must be of type int, not 1.5"),
        (TrainConfig, {"lr": True}, "TrainConfig.lr must be of type float, not True"),
    ],
)
def test_what_is_not_understood_is_named(kind: type[Config], values: dict, message: str):
    with pytest.raises(ValueError, match=re.escape(message)):
        kind.from_dict(values)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (ModelConfig, {"bits": (4, 8)}, "134 classes do not fit 4 bits"),
        (ModelConfig, {"bits": (8, 6)}, "101 ids do not fit 6 bits"),
        (ModelConfig, {"bits": (8, 17)}, "between 1 and 16"),
        (ModelConfig, {"head": "linear"}, "cross-entropy loss needs the softmax head"),
        (ModelConfig, {"scale": 0.0}, "scale must be positive"),
        (ModelConfig, {"scale": float("nan")}, "scale must be positive"),
        (ModelConfig, {"multipliers": (1, 2)}, "equal length"),
        (ModelConfig, {"encoder_heads": 7}, "multiple of encoder_heads"),
        (ModelConfig, {"decoder_head_dim": 100}, "multiple of decoder_head_dim"),
        (ModelConfig, {"dim": 0}, "1 or more"),
        (ModelConfig, {"mask_stride": 0}, "1 or more"),
        (ModelConfig, {"past_frames": -1}, "0 or more"),
        (ModelConfig, {"drop_path": 1.0}, "below 1"),
        (ModelConfig, {"kernel_size": 2}, "odd"),
        (ModelConfig, {"classes": 1}, "2 or more"),
        (ModelConfig, {"p": -1.0}, "p must be 0 or more"),
        (ModelConfig, {"backbone": {}}, "model_type"),
        (DataConfig, {"size": (0, 5)}, "size must be positive"),
        (DataConfig, {"zoom": 0.0}, "zoom must be positive"),
        (DataConfig, {"layout": "tile", "size": (32, 32), "overlap": 32}, "overlap must be"),
        (InferConfig, {"steps": 0}, "steps must be 1 or more"),
        (InferConfig, {"td": float("nan")}, "td must be 0 or more"),
        (InferConfig, {"min_pixels": -1}, "min_pixels must be 0 or more"),
        (InferConfig, {"first_steps": -1}, "first_steps must be 0 or more"),
        (InferConfig, {"adaptive": 0.5}, "adaptive must be 0 or 1 and more"),
        (AugmentConfig, {"jitter": (2.0, 1.0)}, "jitter"),
        (AugmentConfig, {"jitter": (0.0, 1.0)}, "jitter"),
        (AugmentConfig, {"invert": 1.5}, "probability"),
        (TrainConfig, {"batch_size": 0}, "batch_size must be 1 or more"),
        (TrainConfig, {"lr": float("inf")}, "lr must be positive"),
        (TrainConfig, {"ema_decay": 1.0}, "ema_decay"),
        (TrainConfig, {"save_every": 0}, "save_every must be 1 or more"),
        (TrainConfig, {"clip_norm": 0.0}, "clip_norm must be positive"),
    ],
)
def test_senseless_values_are_refused_at_once(kind, changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        kind().replace(**changes)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match="no preset 'huge'; there are paper, small, tiny"):
        ModelConfig.preset("huge")  # type: ignore[arg-type]


def test_no_setting_goes_unread():
    """Every field is read somewhere as an attribute, outside the configuration itself."""
    source = Path(pix2seqd.__file__).parent
    code = "\n".join(path.read_text() for path in source.rglob("*.py") if path.name != "config.py")
    for kind in ALL:
        for field in dataclasses.fields(kind):
            assert re.search(rf"\.{field.name}\b", code), f"{kind.__name__}.{field.name} is read nowhere"
