"""Names that command a terminal, in files, folders, categories and cards: no command prints them as they are."""

import json
import shutil

import numpy as np
import pytest
from fake_segmenter import draw
from PIL import Image

from pix2seqd.files import is_control

EVIL = "a\x1b]0;owned\x07b\nc\u202ed\x9be\rf\udcff"
"""Sets the title of a terminal, breaks lines, shows what follows from right to left; its last byte is no text."""
CELLS = [{"id": 1, "name": "disk"}, {"id": 2, "name": "sky", "isthing": 0}]


@pytest.fixture
def tell(run):
    """Run a command; the exit code and everything that it prints, which no terminal obeys."""

    def call(*arguments):
        code, out, err = run(*arguments)
        told = out + err
        assert [hex(ord(c)) for c in told if c != "\n" and is_control(c)] == []
        assert "\\x1b]0;" in told or "\\u202e" in told, "the name is shown"
        return code, told

    return call


def coco(home, name=EVIL, categories=CELLS, **record):
    """A data set of one image in COCO panoptic format, whose file has this name."""
    draw(home / "images" / f"{name}.png")
    (home / "panoptic").mkdir()
    Image.fromarray(np.full((30, 40, 3), (1, 0, 0), np.uint8)).save(home / "panoptic" / f"{name}.png")
    content = {
        "images": [{"id": 1, "file_name": f"{name}.png", "width": 40, "height": 30, **record}],
        "annotations": [
            {
                "image_id": 1,
                "file_name": f"{name}.png",
                "segments_info": [{"id": 1, "category_id": 1, "area": 1200, "bbox": [0, 0, 40, 30], "iscrowd": 0}],
            }
        ],
        "categories": categories,
    }
    (home / "panoptic.json").write_text(json.dumps(content))
    return home


def test_segment_evil_names_are_escaped(tell, segmenter, tmp_path):
    one = draw(tmp_path / "in" / f"{EVIL}.png")
    assert tell("segment", one, "--out", f"o{EVIL}", "--also", "measures,labels,coco,geojson,rois,labelme")[0] == 0
    (one.parent / f"bad{EVIL}.png").write_text("no image")
    assert tell("segment", "in", "--out", f"o{EVIL}")[0] == 2
    assert tell("segment", tmp_path / f"none{EVIL}")[0] == 2
    assert tell("segment", one, "--model", EVIL)[0] == 2
    assert tell("segment", one, f"--{EVIL}")[0] == 2
    assert tell("segment", one, "--classes", EVIL)[0] == 2


def test_segment_unfamiliar_evil_name_is_escaped(tell, segmenter, tmp_path, monkeypatch):
    monkeypatch.setattr(segmenter, "familiar_width", 10)
    assert "look unlike" in tell("segment", draw(tmp_path / f"{EVIL}.png"))[1]


def test_video_evil_names_are_escaped(tell, segmenter, tmp_path):
    draw(tmp_path / EVIL / f"1{EVIL}.png")
    (tmp_path / EVIL / f"2{EVIL}.png").write_text("no image")
    for along in "tz":
        assert tell("video", tmp_path / EVIL, "--along", along, "--out", f"o{EVIL}{along}")[0] == 2
    assert tell("video", f"{EVIL}.mp4")[0] == 2


def test_models_evil_names_and_cards_are_escaped(tell, folder, tmp_path):
    facts = json.dumps({"license": EVIL[:-1], "pix2seqd": dict.fromkeys(("made_for", "quality"), EVIL[:-1])})
    (folder / "README.md").write_text(f"---\n{facts}\n---\n")
    for name in (folder, shutil.copytree(folder, tmp_path / EVIL)):
        assert tell("models", name)[0] == tell("models", name, "--markdown")[0] == 0
    assert tell("models", f"none{EVIL}")[0] == 2


def test_check_data_evil_names_are_escaped(tell, tmp_path):
    home = coco(tmp_path / EVIL)
    assert tell("check-data", f"coco:{home}", "--contact-sheet", f"{EVIL}.png")[0] == 0
    (home / "panoptic" / f"{EVIL}.png").write_text("no image")
    assert tell("check-data", f"coco:{home}")[0] == 2
    assert tell("check-data", f"coco:{tmp_path}@{EVIL}")[0] == 2
    bad = coco(tmp_path / "bad", categories=[{"id": 1, "name": EVIL}])
    assert tell("check-data", f"coco:{bad}")[0] == 2


def test_check_data_evil_names_of_own_images_are_escaped(tell, tmp_path):
    home = tmp_path / EVIL
    for part in ("images", "labels"):
        for name in (EVIL, "b", "c"):
            draw(home / part / f"{name}.png")
        draw(home / part / f"only{part}{EVIL}.png")
    tell("check-data", f"folder:{home}")


def test_convert_data_evil_names_are_escaped(tell, tmp_path):
    home = tmp_path / EVIL
    draw(home / f"{EVIL}.png")
    shapes = [{"label": "disk", "points": [[1, 1], [1, 9], [9, 9]], "shape_type": "polygon"}]
    shapes.append({"label": EVIL, "points": [[1, 1], [1, 1], [1, 1]], "shape_type": "polygon"})
    content = {"imagePath": f"{EVIL}.png", "imageWidth": 40, "imageHeight": 30}
    (home / f"{EVIL}.json").write_text(json.dumps({**content, "shapes": shapes}))
    tell("convert-data", home, f"o{EVIL}")
    (home / f"{EVIL}.json").write_text(json.dumps({**content, "shapes": shapes[:1]}))
    assert tell("convert-data", home, f"p{EVIL}")[0] == 0


def test_evaluate_evil_groups_and_names_are_escaped(tell, folder, tmp_path):
    named = coco(tmp_path / EVIL, where=EVIL, categories=json.loads((folder / "config.json").read_text())["categories"])
    command = ("evaluate", folder, "--data", f"coco:{named}", "--steps", 1, "--out", f"{EVIL}.json")
    assert tell(*command, "--group-by", "where", "--csv", f"{EVIL}.csv")[0] == 0


def test_metric_evil_sequences_are_escaped(tell, tmp_path):
    mask = Image.fromarray(np.pad(np.ones((4, 4), np.uint8), 3))
    for kind in ("truth", "found"):
        for number in range(3):
            path = tmp_path / kind / EVIL / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            mask.save(path)
    assert tell("metric", "jf", "truth", "found", "--json", f"{EVIL}.json")[0] == 0
    shutil.rmtree(tmp_path / "found" / EVIL)
    assert tell("metric", "jf", "truth", "found")[0] == 2


def test_train_evil_settings_and_data_are_escaped(tell, tmp_path):
    turned = "a\u202eb"  # YAML has no control characters
    home = coco(tmp_path / turned)
    assert tell("train", EVIL)[0] == tell("train", "shapes", f"--{EVIL}", 1)[0] == 2
    for options in (["shapes", "--train-data", f"coco:{home}"], ["shapes", "--init", turned, "--smoke"]):
        assert tell("train", *options, "--show")[0] == 2
    assert tell("train", "shapes", "--smoke", "--out", tmp_path / EVIL[:-1], "--train.steps", 1)[0] == 0
    code, told = tell("train", "shapes", "--smoke", "--out", tmp_path / EVIL, "--train.steps", 1)
    assert code == 2 and "is not UTF-8 text" in told, "TensorBoard's files"
