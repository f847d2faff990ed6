"""The commands on miniatures of the paper's data sets, with the recipes for these data sets."""

import json

import pytest
from miniatures import draw_cityscapes, draw_coco, draw_davis, draw_kitti_step

DATA = {
    "coco-256": (draw_coco, "coco:{}@val2017"),
    "cityscapes": (draw_cityscapes, "cityscapes:{}@val"),
    "davis": (draw_davis, "davis:{}@val"),
    "kitti-step": (draw_kitti_step, "kitti-step:{}@val"),
}


@pytest.mark.parametrize("recipe", DATA)
def test_check_train_evaluate_on_official_layouts(run, tmp_path, recipe):
    draw, source = DATA[recipe]
    source = source.format(draw(tmp_path / "data"))
    code, shown, _ = run("check-data", source)
    assert code == 0
    assert "all readable and consistent" in shown
    data = ("--train-data", source, "--eval-data", source)
    assert run("train", recipe, "--smoke", "--train.steps", 2, *data, "--out", "trained")[0] == 0
    assert run("evaluate", "trained/model", "--data", source)[0] == 0
    assert json.loads((tmp_path / "evaluation.json").read_text())["settings"]["data"] == source
