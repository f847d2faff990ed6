import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Category, Taxonomy

SHARED = Path(__file__).parents[3] / "shared" / "reference"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/reference")
TAXONOMY = Taxonomy(
    (Category(7, "cat", True, (1, 2, 3)), Category(3, "lawn", False, (4, 5, 6)), Category(9, "pond", False, (7, 8, 9)))
)


@pytest.fixture
def run(run):
    """Arguments of `pix2seqd metric` → (exit code, stdout, stderr)."""
    return lambda *arguments: run("metric", *arguments)


def refusal(run, *arguments):
    code, _, complaint = run(*arguments)
    assert code == 2
    assert len(complaint.strip().splitlines()) == 1
    return complaint


def write_coco(path, maps, taxonomy=TAXONOMY, **changes):
    """A JSON and its PNGs. Ids 1.. are cats, 100 is lawn."""
    pngs = path.with_suffix("")
    pngs.mkdir(exist_ok=True)
    annotations = []
    for image_id, ids in maps.items():
        classes = {i: 2 if i == 100 else 1 for i in np.unique(ids).tolist() if i}
        panoptic = Panoptic.from_segmentation(ids, classes, taxonomy)
        png, annotation = panoptic.to_coco(image_id, f"{image_id}.png")
        annotations.append(annotation)
        Image.fromarray(png).save(pngs / f"{image_id}.png")
    content = {"annotations": annotations, "categories": taxonomy.to_coco(), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return path


@pytest.fixture
def maps():
    first, second = np.full((6, 8), 100), np.full((6, 8), 100)
    first[1:3, 1:3], first[4:, 4:], second[:3] = 1, 2, 3
    return {11: first, 12: second}


def test_metric_pq_of_the_truth_is_1(run, tmp_path, maps):
    truth = write_coco(tmp_path / "truth.json", maps)
    code, shown, _ = run("pq", truth, truth, "--json", tmp_path / "scores.json")
    assert code == 0
    assert "cat" in shown
    assert "pond" not in shown, "a category that does not occur is not shown"
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["All"] == {"pq": 1, "sq": 1, "rq": 1, "n": 2}
    assert scores["Things"]["n"] == scores["Stuff"]["n"] == 1
    assert scores["per_class"]["7"] == {"name": "cat", "pq": 1, "sq": 1, "rq": 1, "tp": 3, "fp": 0, "fn": 0}
    assert scores["per_class"]["9"]["pq"] is None, "an empty class is null"


def test_metric_pq_without_categories_and_with_prediction_pngs(run, tmp_path, maps):
    truth = write_coco(tmp_path / "truth.json", maps)
    maps[11][4:, 4:] = 100
    prediction = write_coco(tmp_path / "prediction.json", maps, categories=None)
    (tmp_path / "prediction").rename(tmp_path / "elsewhere")
    arguments = ("pq", truth, prediction, "--json", tmp_path / "scores.json")
    assert str(tmp_path / "prediction") in refusal(run, *arguments)
    assert run(*arguments, "--prediction-pngs", tmp_path / "elsewhere")[0] == 0
    cat = json.loads((tmp_path / "scores.json").read_text())["per_class"]["7"]
    assert (cat["tp"], cat["fp"], cat["fn"]) == (2, 0, 1)


def test_metric_pq_errors_name_the_file(run, tmp_path, maps):
    truth = write_coco(tmp_path / "truth.json", maps)
    dogs = Taxonomy((Category(7, "dog", True, (1, 2, 3)), *TAXONOMY.categories[1:]))
    other = write_coco(tmp_path / "dogs.json", maps, dogs)
    assert "category 7 'dog' (thing)" in refusal(run, "pq", truth, other)
    fewer = write_coco(tmp_path / "fewer.json", {11: maps[11]})
    assert "fewer.json has no annotation for image '12'" in refusal(run, "pq", truth, fewer)
    small = write_coco(tmp_path / "small.json", {11: maps[11], 12: maps[12][:4]})
    message = refusal(run, "pq", truth, small)
    assert "image 12" in message
    assert "4 × 8" in message
    (tmp_path / "fewer" / "11.png").unlink()
    assert str(tmp_path / "fewer" / "11.png") in refusal(run, "pq", truth, fewer)
    assert "gone.json" in refusal(run, "pq", truth, tmp_path / "gone.json")
    assert "--sequences" in refusal(run, "pq", truth, truth, "--sequences", truth)


@needs_shared
@pytest.mark.parametrize("name", ["same", "shift", "shift_void_class_merge"])
def test_metric_pq_equals_panopticapi(run, tmp_path, name):
    home = SHARED / "pq"
    assert run("pq", home / "gt.json", home / f"pred_{name}.json", "--json", tmp_path / "scores.json")[0] == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    official = json.loads((home / "panopticapi.json").read_text())[name]
    for part in ("All", "Things", "Stuff"):
        assert scores[part] == pytest.approx(official[part], abs=1e-9)
    for number, values in official["per_class"].items():
        found = scores["per_class"][number]
        assert {key: found[key] or 0 for key in values} == pytest.approx(values, abs=1e-9)


def write_video(folder, frames):
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        Image.fromarray(np.asarray(frame, np.uint8)).save(folder / f"{number:05d}.png")


@pytest.fixture
def objects():
    """Two objects that move; four frames of 20 × 30."""
    frames = np.zeros((4, 20, 30), np.uint8)
    for t in range(4):
        frames[t, 2:8, 3 + t : 10 + t], frames[t, 12:18, 20 - t : 27 - t] = 1, 2
    return frames


def test_metric_jf_scores_and_errors(run, tmp_path, objects):
    for name in ("bear", "cows"):
        write_video(tmp_path / "truth" / name, objects)
    write_video(tmp_path / "prediction" / "bear", np.array([0, 9, 4])[objects])
    arguments = ("jf", tmp_path / "truth", tmp_path / "prediction", "--json", tmp_path / "scores.json")
    message = refusal(run, *arguments)
    assert str(tmp_path / "prediction" / "cows" / "00000.png") in message
    (tmp_path / "val.txt").write_text("bear\n")
    code, shown, _ = run(*arguments, "--sequences", tmp_path / "val.txt")
    assert code == 0
    assert "bear" in shown
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["global"]["J&F-Mean"] == scores["global"]["J-Recall"] == 1
    assert scores["sequences"]["bear"]["J_per_object"] == {"bear_1": 1, "bear_2": 1}
    write_video(tmp_path / "prediction" / "cows", [*objects[:3], objects[3, :9]])
    message = refusal(run, *arguments)
    assert "cows" in message
    assert "9 × 30" in message


def kitti_maps(tracks):
    """Three frames of a road with two cars that have these tracks."""
    frames = np.zeros((3, 6, 9, 3), np.uint8)
    for t in range(3):
        frames[t, 1:3, 1 + t : 4 + t] = (13, 0, tracks[0])
        frames[t, 4:, 2:5] = (13, 1, tracks[1])
        frames[t, :, 8] = (255, 0, 0)
    return frames


def test_metric_stq_scores(run, tmp_path):
    write_video(tmp_path / "truth" / "0002", kitti_maps((1, 2)))
    write_video(tmp_path / "same" / "0002", kitti_maps((4, 5)))
    mixed = kitti_maps((1, 2))
    mixed[2] = kitti_maps((7, 2))[2]
    write_video(tmp_path / "mixed" / "0002", mixed)
    scores = []
    for name in ("same", "mixed"):
        code, shown, _ = run("stq", tmp_path / "truth", tmp_path / name, "--json", tmp_path / "scores.json")
        assert code == 0
        assert "car" in shown
        scores.append(json.loads((tmp_path / "scores.json").read_text()))
    assert [scores[0][key] for key in ("STQ", "AQ", "SQ")] == [1, 1, 1]
    # One of two tracks is 12 of 18 pixels long in one piece and 6 in another: (12/18)² + (6/18)² of it is kept.
    assert scores[1]["AQ"] == pytest.approx((1 + 5 / 9) / 2)
    assert scores[1]["SQ"] == 1
    assert scores[1]["per_class"]["26"] == {"name": "car", "iou": 1}
    assert scores[1]["per_class"]["24"]["iou"] is None


def test_metric_jf_and_stq_errors_name_the_file(run, tmp_path):
    good, bad = tmp_path / "good", tmp_path / "bad"
    write_video(good / "a", kitti_maps((1, 2)))
    write_video(bad / "a", np.full((3, 6, 9, 3), 40))
    file = str(bad / "a" / "00000.png")
    message = refusal(run, "stq", good, bad)
    assert file in message
    assert "class 40" in message
    message = refusal(run, "jf", good, bad)
    assert f"{good / 'a' / '00000.png'} is not L or P (but RGB)" in message
    Image.new("RGB", (9, 5)).save(file)
    message = refusal(run, "stq", good, bad)
    assert file in message
    assert "5 × 9" in message
    assert "is not a folder" in refusal(run, "jf", tmp_path / "gone", bad)
    assert "has no sequence" in refusal(run, "jf", good / "a", bad)
    assert "val.txt" in refusal(run, "jf", good, bad, "--sequences", tmp_path / "val.txt")
    assert "--truth-pngs" in refusal(run, "jf", good, bad, "--truth-pngs", good)
    (tmp_path / "val.txt").write_text("b")
    assert str(good / "b") in refusal(run, "jf", good, bad, "--sequences", tmp_path / "val.txt")


def test_metric_jf_refuses_a_pipe_as_list(run, tmp_path):
    os.mkfifo(tmp_path / "val.txt")
    (tmp_path / "truth" / "bear").mkdir(parents=True)
    arguments = ("jf", tmp_path / "truth", tmp_path / "truth", "--sequences", tmp_path / "val.txt")
    assert "val.txt is a device or a pipe" in refusal(run, *arguments)
