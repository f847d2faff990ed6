import json
from pathlib import Path

import numpy as np
import pytest

from pix2seqd.config import DecoderConfig, ModelConfig, Recipe
from pix2seqd.files import InputError
from pix2seqd.training import ablate as module
from pix2seqd.training.ablate import PAPER, ablate, plot, render, variants
from pix2seqd.training.recipes import RECIPES, smoke

PAPER_MODEL = RECIPES["coco-512"].model


def test_variants_are_the_papers_rows():
    assert [model.mask.scale for model in variants("table3", PAPER_MODEL).values()] == [0.03, 0.1, 0.3, 1.0]
    assert [model.loss for model in variants("table4", PAPER_MODEL).values()] == ["l2", "cross_entropy"]
    assert [model.p for model in variants("table5", PAPER_MODEL).values()] == [0, 0.2, 0.4, 0.6]
    assert PAPER == {"table3": (40.8, 43.9, 38.7, 21.3), "table4": (41.9, 43.9), "table5": (40.4, 43.9, 43.7, 41.3)}


@pytest.mark.parametrize("table", PAPER)
def test_variants_paper_model_is_the_best_row(table):
    rows = list(variants(table, PAPER_MODEL).values())
    assert rows.index(PAPER_MODEL) == int(np.argmax(PAPER[table]))


def test_variants_l2_head_is_linear_without_bit_logits():
    assert variants("table4", ModelConfig())["l2"].decoder.head == "linear"
    assert variants("table4", ModelConfig(decoder=DecoderConfig(bit_logits=True)))["l2"].decoder.head == "softmax"


def test_ablate_trains_each_row_once_and_shares_the_base_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = smoke(RECIPES["shapes"])
    recipe = recipe.replace(train=recipe.train.replace(steps=1, evaluate_images=0), eval_data="shapes:1@1")
    steps, fit = [], module.train

    def counted(recipe: Recipe, out: Path, resume: bool):
        before = (out / "recipe.json").exists()
        assert resume == before
        steps.append((out.parent.name, recipe.train.seed, before))
        return fit(recipe, out, resume)

    monkeypatch.setattr(module, "train", counted)
    four = ablate("table4", recipe, tmp_path, seeds=2)
    assert steps == [("table4-l2", 0, False), ("table4-l2", 1, False), ("base", 0, False), ("base", 1, False)]
    assert [row["row"] for row in four] == ["l2", "cross_entropy"] and [row["base"] for row in four] == [False, True]
    assert all(len(row["pq"]) == 2 for row in four)
    scores = (tmp_path / "base" / "seed-0" / "evaluation.json").stat().st_mtime_ns
    five = ablate("table5", recipe, tmp_path, seeds=1)
    assert ("base", 0, True) in steps[4:] and five[1]["base"] and five[1]["pq"] == four[1]["pq"][:1]
    assert (tmp_path / "base" / "seed-0" / "evaluation.json").stat().st_mtime_ns == scores
    assert render("table5", five).row_count == 4 and plot("table5", five).width > 0
    (tmp_path / "base" / "seed-0" / "evaluation.json").write_text("{}")
    with pytest.raises(InputError, match=r"evaluation\.json is damaged"):
        ablate("table5", recipe, tmp_path, seeds=1)
    with pytest.raises(InputError, match="another"):
        ablate("table5", recipe.replace(infer=recipe.infer.replace(steps=1)), tmp_path, seeds=1)


def test_ablate_command_writes_table_and_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    from pix2seqd.cli.main import app

    rows = [{"row": "l2", "base": False, "paper": 0.419}, {"row": "cross_entropy", "base": True, "paper": 0.439}]
    scores = {"pq": [0.2, 0.3], "pq_things": [float("nan")] * 2, "pq_stuff": [0.1, 0.1], "mean_iou": [0.5, 0.5]}

    def done(table: str, recipe: Recipe, out: Path, seeds: int):
        assert (recipe.train.steps, seeds) == (3, 2)
        return [{**row, **scores} for row in rows]

    monkeypatch.setattr(module, "ablate", done)
    out = str(tmp_path)
    app(["ablate", "table4", "shapes", "--smoke", "--train.steps", "3", "--seeds", "2", "--out", out])
    shown = capsys.readouterr().out
    assert "25.0 ± 7.1" in shown and "43.9" in shown
    stored = json.loads((tmp_path / "table4.json").read_text())
    assert stored["rows"][0]["pq_things"] == [None, None] and stored["recipe"]["train"]["steps"] == 3
    assert (tmp_path / "table4.png").is_file()


def test_ablate_without_eval_data_is_an_error(tmp_path: Path):
    with pytest.raises(InputError, match="eval-data"):
        ablate("table3", smoke(RECIPES["shapes"]).replace(eval_data=""), tmp_path, seeds=1)
