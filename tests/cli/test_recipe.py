import os
import re
from pathlib import Path

import pytest

from pix2seqd.cli.main import app
from pix2seqd.cli.recipe import read_recipe, to_yaml
from pix2seqd.config import ModelConfig, Recipe
from pix2seqd.files import InputError
from pix2seqd.training.recipes import RECIPES, smoke


@pytest.mark.parametrize("name", RECIPES)
def test_read_recipe_reads_what_to_yaml_writes(tmp_path, name):
    assert read_recipe([name]) == RECIPES[name]
    (tmp_path / "r.yaml").write_text(to_yaml(RECIPES[name]), encoding="utf-8")
    assert read_recipe([str(tmp_path / "r.yaml")]) == RECIPES[name]


def test_read_recipe_later_files_and_options_have_priority(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train:\n  lr: 1e-4\n  steps: 5\nmodel:\n  encoder:\n    backbone:\n      depths: [1, 1]\n")
    flags = ["--train.steps", "7", "--train.batch-size=3", "--data.size", "[96, 80]", "--train-data", "coco:x@y"]
    recipe = read_recipe(["nuclei", str(path), *flags])
    base = RECIPES["nuclei"]
    assert recipe.train == base.train.replace(lr=1e-4, steps=7, batch_size=3)
    assert recipe.data == base.data.replace(size=(96, 80))
    assert recipe.model == base.model.replace(encoder={"backbone": {**base.model.encoder.backbone, "depths": [1, 1]}})
    assert read_recipe(["nuclei", "--model.decoder.head-dim", "16"]).model.decoder.head_dim == 16
    assert recipe.train_data == "coco:x@y" and recipe.augment == base.augment


def test_read_recipe_file_alone_has_the_papers_defaults(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train_data: shapes:10\n")
    assert read_recipe([str(path)]) == Recipe(ModelConfig(), train_data="shapes:10")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nuclei"),
        (["--train.steps", "3"], "first; for your own images: pix2seqd train own --train-data DIR"),
        (["nucleii"], "did you mean 'nuclei'"),
        (["nuclei", "--train.stesp", "3"], "'steps'"),
        (["nuclei", "--trian.steps", "3"], "--train"),
        (["nuclei", "--resmue"], "--resume"),
        (["nuclei", "--train.steps"], "needs a value"),
        (["nuclei", "--train.steps", "many"], r"^train\.steps must be of type int, not 'many'"),
        (["nuclei", "--train.steps", "2.5"], r"train\.steps"),
        (["nuclei", "--train.steps", "true"], r"train\.steps"),
        (["nuclei", "--train.lr", "fast"], r"train\.lr"),
        (["nuclei", "--train.lr", ".nan"], r"train\.lr"),
        (["nuclei", "--train", "3"], "^train must be a section of settings"),
        (["nuclei", "--data.layout", "tiel"], r"^data\.layout must be one of resize, tile, not 'tiel'"),
        (["nuclei", "--data.size", "64"], r"data\.size"),
        (["nuclei", "--data.size", "[64]"], r"data\.size"),
        (["nuclei", "--data.size", "[64, x]"], r"data\.size"),
        (["nuclei", "--data.size", "[64"], "YAML"),
        (["nuclei", "--model.mask.scale", "-1"], r"^model\.mask: scale must be positive"),
        (["nuclei", "--model.encoder.layer", "2"], r"^model\.encoder has .*did you mean 'layers'"),
        (["nuclei", "--model.mask-stride", "2"], r"^model has .*did you mean 'mask\.stride'"),
        (["nuclei", "--model.mask.stride", "2.5"], r"^model\.mask\.stride must be of type int, not 2\.5"),
        (["nuclei", "--model.mask", "3"], r"^model\.mask must be a section of settings"),
        (["nuclei", "--exclude", "[a.jpg]"], "unknown option --exclude"),
        (["nuclei", "--clips.self-past-prob", "0.5"], "past_frames"),
        (["nuclei", "--model.encoder.backbone", "resnet"], "backbone"),
    ],
)
def test_read_recipe_error_is_one_line_that_names_the_setting(arguments, says):
    with pytest.raises(InputError, match=says) as caught:
        read_recipe(arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "3", "- a", "a: [", b"\xff\xfe"])
def test_read_recipe_names_a_file_without_settings(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=r"mine\.yaml") as caught:
        read_recipe([str(path)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["no", "'no'"])
def test_read_recipe_precision_no_is_not_false(text, tmp_path):
    assert read_recipe(["nuclei", "--train.precision", text]).train.precision == "no"
    (tmp_path / "mine.yaml").write_text(f"train: {{precision: {text}}}\n")
    assert read_recipe([str(tmp_path / "mine.yaml")]).train.precision == "no"


def test_read_recipe_empty_value_resets_init():
    assert RECIPES["shapes"].init and read_recipe(["shapes", "--init", ""]).init == ""


def test_read_recipe_smoke_is_small_and_settings_have_priority(tmp_path):
    assert read_recipe(["coco-1024"], small=True) == smoke(RECIPES["coco-1024"])
    recipe = read_recipe(["coco-1024", "--train.steps", "7", "--init", "x"], small=True)
    expected = smoke(RECIPES["coco-1024"])
    assert recipe == expected.replace(train=expected.train.replace(steps=7), init="x")
    path = tmp_path / "mine.yaml"
    path.write_text("model: {encoder: {backbone: {model_type: dinov2, patch_size: 14}}}\ntrain: {accumulate: 2}\n")
    assert read_recipe([str(path)], small=True).train.batch_size == 8


@pytest.mark.parametrize("page", ["README.md", "docs/training.md", "--help"])
def test_recipe_lists_name_every_recipe(page, capsys):
    root = Path(__file__).parents[2]
    if page == "--help":
        app(["train", "--help"])
        text = capsys.readouterr().out
    else:
        text = (root / page).read_text()
    missing = [name for name in RECIPES if not re.search(rf"[ `(]{re.escape(name)}[`, .;)]", text)]
    assert not missing


def test_read_recipe_aliases_pipe_or_large_file_is_a_one_line_error(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("a: &a [x]\nb: *a\n")
    with pytest.raises(InputError, match="anchor or alias"):
        read_recipe([str(path)])
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match="at most 1,048,576"):
        read_recipe([str(path)])
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match="is a device or a pipe"):
        read_recipe([str(path)])


def test_read_recipe_sizes_have_limits_unless_they_are_trusted():
    wide = ["shapes", "--data.size", "[8192,8192]"]
    with pytest.raises(InputError, match=r"size must be at most 4096, .*; --trust-size allows it"):
        read_recipe(wide)
    assert read_recipe([*wide, "--trust-size", "true"]).data.size == (8192, 8192)
