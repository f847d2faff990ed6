import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from pix2seqd.checkpoint import Checkpoint
from pix2seqd.config import DataConfig, InferConfig
from pix2seqd.data.synthetic.shapes import TAXONOMY, Shapes
from pix2seqd.evaluation.images import evaluate
from pix2seqd.evaluation.sweep import cached_encoder, plot, render, sweep
from pix2seqd.files import InputError
from pix2seqd.segmenter import Segmenter

DATA = Shapes(2, (40, 56))


@pytest.fixture
def segmenter(tiny, build) -> Segmenter:
    model = build(tiny.replace(mask={"bits": (4, 3), "classes": 10}))
    return Segmenter(
        Checkpoint(model, TAXONOMY, DataConfig(size=(32, 48)), InferConfig(steps=2, td=1.0)), "cpu", "float32"
    )


def test_sweep_rows_equal_evaluate(segmenter: Segmenter):
    rows = sweep(segmenter, DATA, {"steps": (1, 2), "td": (0.0, 1.0), "min_pixels": (0, 80)}, seed=4)
    assert [row["varied"] for row in rows] == ["steps"] * 2 + ["td"] * 2 + ["min_pixels"] * 2
    assert [(row["steps"], row["td"], row["min_pixels"]) for row in rows] == [
        (1, 1, 80), (2, 1, 80), (2, 0, 80), (2, 1, 80), (2, 1, 0), (2, 1, 80),
    ]  # fmt: skip
    for row in rows:
        setting = {name: row[name] for name in ("steps", "td", "min_pixels")}
        expected = evaluate(segmenter, DATA, seed=4, **setting)["all"]
        assert row["pq"] == expected["panoptic_quality"]["All"]["pq"]
        assert row["mean_iou"] == expected["mean_iou"]["mean_iou"]


def test_sweep_defaults_of_video_model(segmenter: Segmenter):
    """A video model segments an image as a first frame."""
    video = dataclasses.replace(segmenter.checkpoint, infer=InferConfig(first_steps=3, steps=1))
    (row,) = sweep(Segmenter(video, "cpu"), DATA, {"td": (1.0,)})
    assert row["steps"] == 3
    assert row["pq"] == evaluate(Segmenter(video, "cpu"), DATA)["all"]["panoptic_quality"]["All"]["pq"]


def test_sweep_encodes_each_image_once(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch):
    seen = []
    encode = type(segmenter.model.pixel_encoder).forward
    monkeypatch.setattr(
        type(segmenter.model.pixel_encoder), "forward", lambda self, x: seen.append(len(x)) or encode(self, x)
    )
    sweep(segmenter, DATA, {"steps": (1, 2, 3), "td": (0.0,)})
    assert seen == [1, 1]


def test_cached_encoder_restores_model(segmenter: Segmenter):
    encoder, names = segmenter.model.pixel_encoder, set(segmenter.model.state_dict())
    with pytest.raises(ZeroDivisionError), cached_encoder(segmenter.model):
        first, other = torch.rand(2, 1, 3, 32, 48)
        with torch.no_grad():
            h = [segmenter.model.pixel_encoder(x) for x in (first, other, first.clone())]
        assert h[0].map is h[2].map and not torch.equal(h[0].map, h[1].map)
        _ = 1 / 0
    assert segmenter.model.pixel_encoder is encoder and set(segmenter.model.state_dict()) == names


def test_sweep_rejects_invalid_value(segmenter: Segmenter):
    with pytest.raises(InputError, match="steps must be 1 or more"):
        sweep(segmenter, DATA, {"steps": (0,)})


def test_plot_panels_and_render_rows(segmenter: Segmenter):
    setting = {"steps": 2, "td": 1.0, "min_pixels": 80, "sq": 0.5, "rq": 0.5, "mean_iou": 0.5}
    scores = {"pq": 0.25, "pq_things": float("nan"), "pq_stuff": 0.25}
    rows = [{"varied": name, **setting, **scores} for name in ("steps", "steps", "td")]
    assert render(rows).row_count == 3
    image = plot(rows, segmenter)
    assert image.width == 2 * plot(rows[:2], segmenter).width and np.asarray(image).std() > 0


def test_sweep_command_writes_json_and_plot(tmp_path: Path, segmenter: Segmenter, monkeypatch, capsys):
    import json

    from PIL import Image

    from pix2seqd.checkpoint import save_pretrained
    from pix2seqd.cli.main import app

    save_pretrained(segmenter.checkpoint, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    app(["sweep", "model", "--data", "shapes:1@5", "--steps", "1,2", "--td", "0.5", "--device", "cpu"])
    stored = json.loads((tmp_path / "sweep.json").read_text())
    assert [row["steps"] for row in stored["rows"]] == [1, 2, 2] and stored["settings"]["data"] == "shapes:1@5"
    assert Image.open(tmp_path / "sweep.png").size[0] > 500
    assert "min pixels" in capsys.readouterr().out
