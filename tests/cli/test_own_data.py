"""The commands of docs/datasets.md, word for word, and other commands on data."""

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image

PAGE = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
QUICK = """--smoke --train.precision "'no'" --train.steps 2 --train.batch_size 2 --train.save_every 2 --infer.steps 1
    --infer.min_pixels 1"""
"""Options added to every training of the page."""


@pytest.fixture(autouse=True)
def accelerator():
    """accelerate would keep the precision of the first run in this process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def section(title: str) -> str:
    """The shell blocks of a section of the page, as one script."""
    _, _, rest = PAGE.partition(f"\n## {title}\n")
    assert rest
    return "".join(re.findall(r"^```sh\n(.*?)^```", rest.partition("\n## ")[0], re.DOTALL | re.MULTILINE))


def follow(script: str, run: Callable[..., Any]) -> str:
    """Run a script, `pix2seqd` in this process and the rest in a shell. Returns the printed text."""
    printed = ""
    for part in re.split(r"^(pix2seqd .*\n)", script, flags=re.MULTILINE):
        if part.startswith("pix2seqd "):
            _, *arguments = shlex.split(part)
            quick = shlex.split(QUICK) if arguments[0] == "train" else []
            code, out, err = run(*arguments, *quick)
            assert code == 0, (part, out, err)
            printed += out
        elif part.strip():
            subprocess.run(["bash", "-euc", part], check=True)
    return printed


def photos(home: Path, count: int = 5) -> None:
    """Cats and dogs (1 and 2) on a background (0), with a void (255) border between some."""
    for folder in ("images", "labels"):
        (home / folder).mkdir(parents=True)
    for number in range(1, count + 1):
        labels = np.zeros((24, 32), np.uint8)
        labels[4:12, 3:12], labels[10:20, 18:30], labels[20:, :4] = 1, 1 + number % 2, 255
        colors = np.array([[90, 160, 60], [200, 40, 40], [40, 40, 200]], np.uint8)
        Image.fromarray(colors[labels % 255]).save(home / f"images/{number:04d}.jpg")
        Image.fromarray(labels).save(home / f"labels/{number:04d}.png")


def test_datasets_page_folder_of_pngs_to_trained_model(run, tmp_path):
    photos(tmp_path / "photos")
    printed = follow(section("Your own folder of PNGs, step by step"), run)
    assert "named by number" in printed and "all is stuff" in printed, "step 2"
    assert "things: [cat, dog]" in printed and (tmp_path / "sheet.png").is_file(), "step 3"
    assert [path.name for path in (tmp_path / "photos/images/val").iterdir()] == ["0005.jpg"], "step 4"
    config = json.loads((tmp_path / "runs/photos/model/config.json").read_text())
    assert "cat" in json.dumps(config), "step 5"
    assert (tmp_path / "results/overlay/0005.png").is_file()
    assert json.loads((tmp_path / "evaluation.json").read_text())["all"]["images"] == 1
    printed = follow(section("Shards"), run)
    assert "4 samples in 1 shards" in printed


def test_datasets_page_converts_outlines(run, tmp_path):
    for folder in ("annotations", "train"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "train/a.jpg")
    outlines = [[[1, 1, 5, 1, 5, 5, 1, 5]], [[4, 4, 7, 4, 7, 6, 4, 6]]]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 8, "height": 6}],
        "annotations": [{"id": i, "image_id": 1, "category_id": 3, "segmentation": s} for i, s in enumerate(outlines)],
        "categories": [{"id": 3, "name": "cell"}],
    }
    (tmp_path / "annotations/instances_train.json").write_text(json.dumps(content))
    printed = follow(section("Outlines: COCO detection json"), run)
    assert "overlap in 1 images, 2.08%" in printed
    assert "things per item: 2..2" in printed


def test_check_data_images_clips_and_folder(run, tmp_path):
    code, out, _ = run("check-data", "shapes:3", "--contact-sheet", "sheet.png")
    assert code == 0 and "ring" in out and "3 items, all readable" in out and (tmp_path / "sheet.png").is_file()
    code, out, _ = run("check-data", "shapes-clips:2x3")
    assert code == 0 and "6 items, all readable" in out
    photos(tmp_path / "photos", 1)
    code, out, _ = run("check-data", "photos")
    assert code == 0 and "named by number" in out and "1 items, all readable" in out
    (tmp_path / "photos/images/0001.jpg").write_bytes(b"not an image")
    code, out, _ = run("check-data", "folder:photos")
    assert code == 2 and "0001.jpg" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["check-data", "folder:nowhere"], "nowhere"),
        (["check-data", "fodler:photos"], "folder:DIR"),
        (["check-data", "shapes:3", "--split", "val"], "shapes:3@val"),
        (["convert-data", "nowhere.json", "out"], "nowhere.json"),
        (["convert-data", "a.json", "out", "--split", "../x"], "--split"),
        (["shard", "shapes:3", "photos/images/0001.jpg"], "0001.jpg"),
        (["shard", "shapes:3", "out", "--jpeg", "0"], "--jpeg"),
        (["shard", "shapes:3", "out", "--megabytes", "0"], "--megabytes"),
    ],
)
def test_data_commands_bad_input_prints_one_line(run, tmp_path, arguments, says):
    photos(tmp_path / "photos", 1)
    code, _, err = run(*arguments)
    last = err.splitlines()[-1]
    assert code == 2 and last.startswith("pix2seqd: ") and says in last


def test_convert_data_lists_what_it_left_out(run, tmp_path):
    photos(tmp_path / "photos", 1)
    images = [{"id": i, "file_name": f"000{i}.jpg"} for i in (1, 2)]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "photos/images/a.json").write_text(json.dumps(content))
    code, out, _ = run("convert-data", "photos/images/a.json", "out")
    assert code == 2 and "left out: " in out and "0002.jpg" in out and "coco:out" in out
