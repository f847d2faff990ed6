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
import tifffile
from PIL import Image

PAGE = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
OWN = """--train.steps 2 --train.batch_size 2 --train.evaluations 1 --train.evaluate_images 1 --train.workers 0
    --train.precision "'no'" --data.size "[32, 32]" --infer.consensus 1"""
"""Options added to `train own`."""
QUICK = """--smoke --train.precision "'no'" --train.steps 2 --train.batch_size 2 --train.save_every 2 --infer.steps 1
    --infer.min_pixels 1"""
"""Options added to every training of the page."""


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


def detection(home: Path, outlines: int, unlisted: int) -> None:
    """A detection JSON of one image, and annotations of an image that it does not list."""
    home.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 40)).save(home / "a.jpg")
    ones = [[[x, 1, x + 1, 1, x + 1, 3, x, 3]] for x in range(outlines)]
    annotations = [{"id": i, "image_id": 1, "category_id": 3, "segmentation": s} for i, s in enumerate(ones)]
    annotations += [{**annotations[0], "id": 100 + i, "image_id": 2} for i in range(unlisted)]
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": annotations}
    content["categories"] = [{"id": 3, "name": "cell"}]
    (home / "a.json").write_text(json.dumps(content))


def test_convert_data_lost_labels_are_an_error(run, tmp_path):
    detection(tmp_path / "few", 20, 1)
    code, out, _ = run("convert-data", "few/a.json", "out")
    assert out.splitlines()[1].startswith("instances overlap in 0 images") and "\\n" not in out
    assert code == 0 and "1 annotations are dropped" in out
    detection(tmp_path / "many", 10, 1)
    code, out, err = run("convert-data", "many/a.json", "out2")
    assert code == 2 and "1 of 11 annotations" in err and "--allow-dropped" in err
    assert "image 2 is not in images" in (tmp_path / "out2/dropped.txt").read_text()
    assert run("convert-data", "many/a.json", "out3", "--allow-dropped")[0] == 0


def test_check_data_detection_json_names_convert_data(run, tmp_path):
    detection(tmp_path / "few", 3, 0)
    for source in ("few/a.json", "few"):
        code, _, err = run("check-data", source)
        assert code == 2 and "pix2seqd convert-data few/a.json" in err
    (tmp_path / "b.txt").write_text("")
    assert "give the folder" in run("check-data", "b.txt")[2]


def test_check_data_annotations_name_the_whole_command(run, tmp_path):
    (tmp_path / "bowl/one/masks").mkdir(parents=True)
    (tmp_path / "bowl/one/images").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "bowl/one/images/one.png")
    for number in range(3):
        pixels = np.zeros((6, 8), np.uint8)
        pixels[2 * number : 2 * number + 2] = 255
        Image.fromarray(pixels).save(tmp_path / f"bowl/one/masks/{number}.png")
    for source in ("bowl", "folder:bowl", "coco:bowl"):
        code, _, err = run("check-data", source)
        assert code == 2 and err.splitlines()[-1].endswith("(one mask file for each object), to be converted first: "
                                                           "pix2seqd convert-data bowl OUT")  # fmt: skip
    assert run("convert-data", "bowl", "out")[0] == 0
    code, out, _ = run("check-data", "out")
    assert code == 0 and "things per item: 3..3" in out


def test_convert_data_splits(run, tmp_path):
    """All splits, one of them, one that is not there; a single file gets the name that is given."""
    detection(tmp_path / "d/train", 3, 0)
    detection(tmp_path / "d/valid", 3, 0)
    assert run("convert-data", "d", "all")[0] == 0
    assert {path.stem for path in (tmp_path / "all").glob("*.json")} == {"panoptic_train", "panoptic_valid"}
    assert run("convert-data", "d", "one", "--split", "valid")[0] == 0
    assert [path.name for path in (tmp_path / "one").glob("*.json")] == ["panoptic_valid.json"]
    code, _, err = run("convert-data", "d", "none", "--split", "test")
    assert code == 2 and "d has no split test; it has train, valid" in err
    assert run("convert-data", "d/train/a.json", "named", "--split", "x")[0] == 0
    assert (tmp_path / "named/panoptic_x.json").is_file()


def test_convert_data_without_a_usable_image_writes_its_report(run, tmp_path):
    detection(tmp_path / "d", 3, 1)
    (tmp_path / "d/a.jpg").unlink()
    code, _, err = run("convert-data", "d/a.json", "out")
    assert code == 2 and "no image of d/a.json can be used" in err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["dropped.txt"]
    lines = (tmp_path / "out/dropped.txt").read_text().splitlines()
    assert len(lines) == 4 and sum("d/a.jpg does not exist" in line for line in lines) == 3


def nuclei(home: Path, split: str, count: int, seed: int) -> None:
    """Images and 16-bit label TIFFs as microscopy tools write them, one of them in a subfolder."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        labels = np.zeros((64, 64), np.uint16)
        places = np.sort(rng.permutation(64)[: 20 + 5 * index])
        for number, place in enumerate(places, start=1):
            y, x = (8 * p + 1 for p in divmod(int(place), 8))
            labels[y : y + 5, x : x + 5] = number
        well = "B2" if index else "A1"
        for folder in ("images", "labels"):
            (home / folder / split / well).mkdir(parents=True, exist_ok=True)
        image = ((labels > 0) * 120 + rng.integers(0, 60, labels.shape)).astype(np.uint8)
        Image.fromarray(image).save(home / f"images/{split}/{well}/{index}.png")
        tifffile.imwrite(home / f"labels/{split}/{well}/{index}_masks.tif", labels)


def test_instance_label_images_to_trained_model(run, tmp_path):
    nuclei(tmp_path / "cells", "train", 3, 0)
    nuclei(tmp_path / "cells", "val", 2, 1)
    code, _, err = run("check-data", "cells")
    assert code == 2 and 'write label_name: "*_masks" to cells/classes.yaml' in err
    (tmp_path / "cells/classes.yaml").write_text('label_name: "*_masks"\n')
    code, out, _ = run("check-data", "cells", "--contact-sheet", "sheet.png", "--split", "train")
    assert code == 0 and "coding: instance" in out and "things per item: 20..30" in out
    train = ("train", "shapes", "--train-data", "folder:cells@train", "--eval-data", "folder:cells@val")
    code, out, err = run(*train, "--out", "runs/cells", *shlex.split(QUICK))
    assert code == 0, err
    assert out.count("folder:cells@train: labels are read as coding: instance, because") == 1
    assert "object" in (tmp_path / "runs/cells/model/config.json").read_text()
    code, out, err = run("evaluate", "runs/cells/model", "--data", "folder:cells@val", "--steps", "1")
    assert code == 0 and "folder:cells@val: labels are read as coding: instance, because" in out, err
    code, _, err = run("segment", "cells/images/val/B2", "--model", "runs/cells/model", "--out", "results")
    assert code == 0, err


def test_check_data_warns_of_suspicious_splits(run, tmp_path):
    photos(tmp_path / "all", 2)
    for folder in ("images", "labels"):
        for split, numbers in (("train", (1,)), ("val", (1, 2))):
            (tmp_path / "photos" / folder / split).mkdir(parents=True)
            for number in numbers:
                (name,) = (tmp_path / "all" / folder).glob(f"000{number}.*")
                (tmp_path / "photos" / folder / split / name.name).write_bytes(name.read_bytes())
    Image.new("L", (32, 24), 255).save(tmp_path / "photos/labels/val/0002.png")
    Image.new("L", (32, 24), 9).save(tmp_path / "photos/labels/train/0001.png")
    (tmp_path / "photos/labels/train/Thumbs.db").write_bytes(b"")
    (tmp_path / "photos/images/train/readme.txt").write_text("")
    (tmp_path / "photos/classes.yaml").write_text("labels: {0: ground, 1: cat, 2: dog, 9: sky, 4: owl}\n")
    code, out, _ = run("check-data", "photos")
    assert code == 0
    for says in (
        "skipped 2 files that are not images with labels: readme.txt, Thumbs.db",
        "warning: 4 classes occur in no image: ground, cat, dog, owl",
        "warning: 1 images have no label: 0002",
        "warning: 1 images of photos train are also in photos val (same content): 0001 and 0001",
        "warning: 1 classes occur in photos train only: sky",
    ):
        assert says in out, says


@pytest.mark.slow
def test_readme_own_images_in_three_commands(run, tmp_path):
    photos(tmp_path / "DIR")
    block = next(b for b in re.findall(r"^```sh\n(.*?)^```", README, re.DOTALL | re.MULTILINE) if "train own" in b)
    commands = [shlex.split(line, comments=True)[1:] for line in block.splitlines()]
    assert [command[0] for command in commands] == ["check-data", "train", "segment"]
    for command in commands:
        code, out, err = run(*command, *(shlex.split(OWN) if command[0] == "train" else []))
        assert code == 0, (command, out, err)
        if command[0] == "train":
            assert (
                "model.mask.classes 4: 3 categories and void" in out and "2 are held out by their content" in out
            )  # the same image twice
            assert out.count("folder:DIR: labels are read as") == out.count("labels are read as") == 1
    assert len(list((tmp_path / "results/overlay").iterdir())) == 5
    code, out, err = run("train", "own", "--out", "runs/mine", "--resume", "--train.steps", 3)
    assert code == 0 and "planned for 2 steps and now for 3 steps" in out, err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--train-data is missing"),
        (["--train-data", "nowhere"], "nowhere does not exist"),
        (["--train-data", "photos/images/0001.jpg"], "0001.jpg is a file"),
        (["--train-data", "shapes-clips:4"], "give images with labels"),
        (["nuclei", "--train-data", "photos"], "leave nuclei out"),
        (["--train-data", "photos", "--model.mask.clases", "4"], "'classes'"),
        (["--train-data", "photos", "--model.mask.classes", "many"], "model.mask.classes must be of type int"),
        (["--train-data", "photos", "--model.mask.classes", "2"], "leave --model.mask.classes out, or give 4 or more"),
        (["--train-data", "photos", "--init", "nothing"], "no checkpoint 'nothing'"),
        (["--train-data", "photos", "--backbone", "efficientnet_lite9"], "did you mean efficientnet_lite"),
        (["--train-data", "photos", "--data.size", "[30, 30]", "--init", "none"], "multiples of"),
        (["--train-data", "photos", "--smoke"], "own has no --smoke"),
    ],
)
def test_train_own_bad_input_prints_one_line_and_trains_nothing(run, tmp_path, arguments, says):
    photos(tmp_path / "photos", 1)
    code, _, err = run("train", "own", "--out", "run", *arguments)
    last = err.splitlines()[-1]
    assert code == 2 and last.startswith("pix2seqd: ") and says in last
    assert not (tmp_path / "run" / "recipe.json").exists()
