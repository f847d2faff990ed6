"""Settings that follow from drawn data sets, and whole runs on folders of label images."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pix2seqd.checkpoint import from_pretrained
from pix2seqd.config import ModelConfig
from pix2seqd.data import open_dataset
from pix2seqd.data.sample import Sample
from pix2seqd.files import InputError, write_json
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Category, Taxonomy
from pix2seqd.training import own
from pix2seqd.training.own import Choices, choose, find_data, is_similar, measure, nearest, prepare, resumed


class Drawn(list[Sample]):
    """Samples with a taxonomy. A `Dataset`."""

    def __init__(self, taxonomy: Taxonomy, samples: list[Sample]) -> None:
        super().__init__(samples)
        self.taxonomy = taxonomy


def categories(*kinds: str) -> Taxonomy:
    """Categories of these kinds, "thing" or "stuff", named after kind and number."""
    return Taxonomy(
        tuple(Category(i, f"{kind}{i}", kind == "thing", (1, 2, i % 250)) for i, kind in enumerate(kinds, start=1))
    )


def drawn(taxonomy: Taxonomy, maps: list[tuple[np.ndarray, dict[int, int]]], color: bool = True) -> Drawn:
    """Images of noise with segments that are brighter; each map comes with its id → class."""
    rng = np.random.default_rng(0)
    samples = []
    for number, (ids, classes) in enumerate(maps):
        image = rng.integers(0, 60, (*ids.shape, 3)) + 100 * (ids > 1)[..., None]
        image = image if color else image[..., :1].repeat(3, axis=2)
        samples.append(Sample(str(number), image.astype(np.uint8), Panoptic.from_segmentation(ids, classes, taxonomy)))
    return Drawn(taxonomy, samples)


def cells(count: int = 6, side: int = 96, square: int = 8, per_row: int = 5) -> Drawn:
    """Grey images with squares of similar size at random places of a grid, on a background that comes first."""
    rng = np.random.default_rng(1)
    maps = []
    for _ in range(count):
        ids = np.ones((side, side), int)
        pitch = side // per_row
        for number, place in enumerate(rng.permutation(per_row**2)[: per_row**2 // 2], start=2):
            y, x = (n * pitch for n in divmod(int(place), per_row))
            ids[y : y + square + number % 3, x : x + square] = number
        maps.append((ids, {int(i): 1 if i == 1 else 2 for i in np.unique(ids)}))
    return drawn(categories("stuff", "thing"), maps, color=False)


def streets(count: int = 6, classes: int = 5) -> Drawn:
    """Coloured images of 128 x 192 with sky above a road, and things of several classes and sizes on the road."""
    taxonomy = categories("stuff", "stuff", *["thing"] * (classes - 2))
    rng = np.random.default_rng(2)
    maps = []
    for _ in range(count):
        ids = np.ones((128, 192), int)
        ids[60:] = 2
        for number, size in enumerate((40, 20, 10), start=3):
            x = int(rng.integers(0, 40)) + 50 * (number - 3)
            ids[70 : 70 + size, x : x + size] = number
        maps.append((ids, {1: 1, 2: 2, **{n: 3 + int(rng.integers(classes - 2)) for n in (3, 4, 5)}}))
    return drawn(taxonomy, maps)


def chosen(data: Drawn, **given: object) -> dict[str, object]:
    """What is chosen for a run from random weights."""
    return choose(measure(data, "drawn"), None, given).values


def test_choose_many_similar_things_of_one_class():
    data = measure(cells(), "cells")
    assert is_similar(data) and nearest(data) == "nuclei-fast" and chosen(cells())["model.mask.stride"] == 2
    values = choose(data, from_pretrained("nuclei-fast"), {}).values
    assert (
        values["data.layout"] == "tile" and values["data.diameter"] == 24 and values["data.normalize"] == "percentile"
    )
    assert values["augment.flip"] == "all" and values["augment.invert"] > 0
    assert values["data.ids"] == "reused" and values["model.mask.bits"] == [2, 4] and values["model.mask.classes"] == 3
    assert values["model.mask.init_id_cell"] == 16 and values["train.minutes"] == 30
    assert "infer.join_below" not in values, "such things touch, and are about as large as a cell"
    assert values["model.mask.stride"] == from_pretrained("nuclei-fast").model.config.mask.stride


@pytest.mark.parametrize(("side", "stride"), [(20, 2), (5, 1)])
def test_choose_the_resolution_of_masks_by_the_size_of_things(side, stride):
    ids = np.ones((128, 160), int)
    ids[64:] = 2
    for number in (3, 4, 5):
        ids[70 : 70 + side, 40 * (number - 3) : 40 * (number - 3) + side] = number
    taxonomy = categories("stuff", "stuff", "thing", "thing")
    assert chosen(drawn(taxonomy, [(ids, {1: 1, 2: 2, 3: 3, 4: 4, 5: 3})] * 3))["model.mask.stride"] == stride


def test_choose_scenes_with_an_up():
    data = measure(streets(), "streets")
    assert not is_similar(data) and nearest(data) != "nuclei-fast"
    values = chosen(streets())
    assert values["data.layout"] == "resize" and values["data.size"] == [128, 192]
    assert values["augment.flip"] == "horizontal" and values["augment.invert"] == 0
    assert values["infer.join_below"] > 0
    assert values["model.mask.classes"] == 6 and values["model.mask.bits"][0] == 3


@pytest.mark.parametrize(("classes", "bits"), [(2, 2), (7, 3), (300, 9), (1000, 10)])
def test_choose_any_number_of_classes(classes, bits):
    values = chosen(streets(3, classes=max(classes, 3)))
    assert values["model.mask.bits"][0] == max(bits, 2) and "model.decoder.head" not in values


def test_choose_thousands_of_classes_takes_the_linear_head():
    data = streets(2, classes=5000)
    values = chosen(data)
    assert values["model.mask.bits"][0] == 13 and values["model.mask.classes"] == 5001
    assert (values["model.decoder.head"], values["model.loss"], values["model.mask.init_id_cell"]) == (
        "linear",
        "l2",
        0,
    )
    assert nearest(measure(data, "x")) == ""


def test_choose_without_things():
    ids = np.ones((64, 64), int)
    ids[40:] = 2
    values = chosen(drawn(categories("stuff", "stuff"), [(ids, {1: 1, 2: 2})] * 2))
    assert values["model.mask.bits"] == [2, 1] and values["model.mask.max_instances"] == 2


def test_choose_things_in_pieces_get_unique_ids():
    ids = np.ones((64, 64), int)
    for number in range(2, 6):
        ids[number * 10 : number * 10 + 6, 2:20] = number
        ids[number * 10 : number * 10 + 6, 40:60] = number
    data = drawn(categories("stuff", "thing", "thing"), [(ids, {1: 1, 2: 2, 3: 3, 4: 2, 5: 3})])
    assert chosen(data)["data.ids"] == "unique"
    assert chosen(streets())["data.ids"] == "reused"


def test_choose_tiny_things_in_large_images_get_windows():
    ids = np.ones((900, 1200), int)
    rng = np.random.default_rng(0)
    for number in range(2, 30):
        y, x = rng.integers(0, 800, 2)
        ids[y : y + 6 * (1 + number % 9), x : x + 8] = number
    data = drawn(categories("stuff", "thing", "thing"), [(ids, {i: min(i, 3 if i % 2 else 2) for i in range(1, 30)})])
    values = chosen(data)
    assert values["data.layout"] == "tile" and values["data.size"] == [256, 256] and "data.diameter" not in values


@pytest.mark.parametrize("zoom", [1, 2])
def test_choose_photographs_have_the_scale_of_the_start(zoom: int):
    ids = np.ones((480, 640), int)
    ids[200:] = 2
    for number in range(3, 15):
        x = 50 * (number - 3)
        ids[220 : 220 + 2 * number, x : x + 20] = number
    ids = ids.repeat(zoom, axis=0).repeat(zoom, axis=1)
    taxonomy = categories("stuff", "stuff", "thing", "thing")
    data = measure(drawn(taxonomy, [(ids, {1: 1, 2: 2, **{n: 3 + n % 2 for n in range(3, 15)}})]), "drawn")
    start = from_pretrained("facades")
    values = choose(data, start, {}).values
    assert max(start.data.size) == 640 and values["data.layout"] == "tile" and values["data.zoom"] == 1 / zoom
    assert values["data.size"] == [320, 320] and values["infer.input_scale"] == 2
    assert values["model.mask.stride"] == start.model.config.mask.stride
    assert values["train.lr"] == 5e-4, "the start has other categories"
    for given in (None, start):  # nothing is known of the scale, or the user chooses the size
        values = choose(data, given, {"data.size": [192, 256]} if given else {}).values
        assert values["data.layout"] == "resize" and values["data.size"] == [192, 256]
    lines = choose(data, start, {"data.layout": "resize"}).lines
    assert [line for line in lines if line.startswith("data.layout")] == ["data.layout resize: as given"]


def test_choose_given_settings_hold_and_others_follow():
    values = chosen(streets(), **{"model.mask.classes": 40, "data.size": [64, 96], "train.steps": 7})
    assert values["model.mask.bits"][0] == 6 and values["data.size"] == [64, 96] and values["train.batch_size"] == 8
    assert values["train.minutes"] == 0 and values["train.steps"] == 7


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"model.mask.classes": 3}, "has 6 classes with void; leave --model.mask.classes out, or give 6 or more"),
        ({"model.mask.bits": [2, 4]}, r"6 classes do not fit 2 bits; .*\[3, 4\]"),
        ({"model.mask.max_instances": 100}, r"100 ids with 0 do not fit 4 bits; .*\[3, 7\]"),
    ],
)
def test_choose_impossible_settings_name_the_flags(given, says):
    with pytest.raises(InputError, match=says):
        chosen(streets(), **given)


def test_choices_print_a_reason_each():
    choices = Choices({"a.b": 3})
    assert choices.set("a.b", 1, "why") == 3 and choices.set("a.c", (1, 2), "so") == (1, 2)
    assert choices.lines == ["a.b 3: as given", "a.c [1, 2]: so"] and choices.nested() == {"a": {"b": 3, "c": (1, 2)}}
    for line in choose(measure(cells(), "x"), None, {}).lines:
        assert line.partition(": ")[2]


def write_cells(home: Path, splits: tuple[str, ...] = ("",), count: int = 4) -> Path:
    """A folder of 16-bit label TIFFs as microscopy tools write them."""
    data = cells(count * len(splits), side=48, square=7, per_row=4)
    for number, sample in enumerate(data):
        split = splits[number % len(splits)]
        for folder in ("images", "labels"):
            (home / folder / split).mkdir(parents=True, exist_ok=True)
        Image.fromarray(sample.image).save(home / "images" / split / f"{number}.png")
        tifffile.imwrite(home / "labels" / split / f"{number}.tif", sample.panoptic.to_labels().astype(np.uint16))
    (home / "classes.yaml").write_text("coding: instance\n")  # so few objects might also be classes
    return home


def test_find_data_takes_a_bare_folder_and_its_splits(tmp_path):
    one = write_cells(tmp_path / "one")
    assert find_data(str(one), "") == (f"folder:{one}", "", "")
    two = write_cells(tmp_path / "two", ("train", "val"))
    assert find_data(str(two), "")[:2] == (f"folder:{two}@train", f"folder:{two}@val")
    assert find_data(str(two), "shapes:3")[:2] == (f"folder:{two}@train", "shapes:3")
    assert find_data("shapes:8", "")[:2] == ("shapes:8", "")
    three = write_cells(tmp_path / "three", ("test", "val"))
    with pytest.raises(
        InputError, match=f"several splits; give --train-data folder:{three}@test or folder:{three}@val"
    ):
        find_data(str(three), "")


@pytest.mark.parametrize("source", ["", "nowhere", "shapes-clips:4", "nuclei-clips:x:4"])
def test_find_data_bad_input(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"give|gives"):
        find_data(source, "")


def test_prepare_holds_a_tenth_out_and_says_so(tmp_path):
    home = write_cells(tmp_path / "cells", count=12)
    recipe, content, lines = prepare({"train_data": str(home), "init": "none"}, tmp_path / "run")
    assert len(content["eval"]["chosen"]) == 1 and len(content["train"]["chosen"]) == 11
    assert any("1 are held out by their content" in line for line in lines)
    assert recipe.train_data == f"split:{tmp_path / 'run' / 'data.json'}@train" and recipe.init == ""
    assert [c["name"] for c in content["categories"]] == ["object", "background"], (
        "things first, as nuclei-fast has them"
    )


def test_prepare_single_image_is_trained_and_scored(tmp_path):
    home = write_cells(tmp_path / "cells", count=1)
    _, content, lines = prepare({"train_data": str(home), "init": "none"}, tmp_path / "run")
    assert content["train"]["chosen"] == content["eval"]["chosen"] == [0]
    assert any("single image" in line for line in lines)


def test_prepare_refuses_data_that_cannot_be_used(tmp_path):
    home = write_cells(tmp_path / "cells")
    (home / "images" / "2.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"2\.png.*pix2seqd check-data folder:"):
        prepare({"train_data": str(home)}, tmp_path / "run")
    Image.new("L", (48, 48)).save(home / "images" / "2.png")
    with pytest.raises(InputError, match=r"leave --model\.decoder\.past_frames out"):
        prepare({"train_data": str(home), "model": {"decoder": {"past_frames": 2}}}, tmp_path / "run")


def test_prepare_says_that_scored_images_are_trained_on(tmp_path):
    train, scored = write_cells(tmp_path / "a", count=3), write_cells(tmp_path / "b", count=2)
    given = {"train_data": str(train), "eval_data": str(scored), "init": "none"}
    _, _, lines = prepare(dict(given), tmp_path / "run")
    assert sum("2 of these images are trained on too" in line for line in lines) == 1
    for path in (scored / "images").iterdir():
        with Image.open(path) as image:
            image.point(lambda value: 255 - value).save(path)
    assert not any("trained on too" in line for line in prepare(dict(given), tmp_path / "run")[2])


def test_prepare_names_both_data_sets_whose_classes_differ(tmp_path):
    train, scored = write_cells(tmp_path / "a"), write_cells(tmp_path / "b")
    (scored / "classes.yaml").write_text("coding: instance\nlabels: {1: spot}\n")
    with pytest.raises(InputError, match=r"b has other classes than folder:.*a, which makes the model: .*spot"):
        prepare({"train_data": str(train), "eval_data": str(scored)}, tmp_path / "run")


TINY = ModelConfig.preset("tiny").replace(mask={"stride": 1})
QUICK = {
    "model": {"encoder": TINY.encoder.to_dict(), "decoder": TINY.decoder.to_dict()},
    "data": {"size": (32, 32), "overlap": 8},
    "train": {"steps": 4, "batch_size": 2, "workers": 0, "precision": "no", "evaluations": 2, "evaluate_images": 1},
    "infer": {"steps": 1, "consensus": 1, "input_scale": 1},
    "init": "none",
}


@pytest.mark.slow
def test_train_own_needs_neither_cyclopts_nor_av():
    code = "import sys; sys.modules.update(cyclopts=None, av=None); import pix2seqd.training.own, pix2seqd.cli.recipe"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("out", ["file/run", "file"])
def test_train_own_out_that_cannot_be_written_is_said_before_the_data_are_read(tmp_path, out):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"^cannot write to .*file .*--out"):
        own.train_own({"train_data": str(tmp_path / "nowhere")}, tmp_path / out)


@pytest.mark.slow
def test_train_own_writes_best_last_and_images_and_goes_on(tmp_path, capsys):
    home, out = write_cells(tmp_path / "cells"), tmp_path / "run"
    own.train_own({**QUICK, "train_data": str(home)}, out)
    printed = capsys.readouterr().out
    assert "held out" in printed and "model.mask.classes 3: 2 categories and void" in printed
    for name in ("results.png", "confusion.png", "predictions.png", "data.json"):
        assert (out / name).is_file()
    results = json.loads((out / "results.json").read_text())
    assert [score["step"] for score in results["evaluations"]] == [2, 4] and results["best"] in (2, 4)
    best, last = (from_pretrained(out / name) for name in ("model", "last"))
    assert best.taxonomy == last.taxonomy and best.model.config.mask.init_id_cell > 0
    assert len(open_dataset(f"split:{out / 'data.json'}@eval", (32, 32))) == 1

    own.train_own({"train": {"steps": 6}}, out, resume=True)
    assert "planned for 4 steps and now for 6 steps" in capsys.readouterr().out
    assert json.loads((out / "state" / "latest.json").read_text())["step"] == 6
    with pytest.raises(InputError, match="already holds a run"):
        own.train_own({"train_data": str(home)}, out)


KILLED = """
import json, os, signal, sys
from pathlib import Path
import pix2seqd.files
from pix2seqd.training import own

def sync(path, real=pix2seqd.files.sync):
    if json.loads(sys.argv[3]) in path.as_posix():
        os.kill(os.getpid(), signal.SIGKILL)
    real(path)

pix2seqd.files.sync = sync
own.train_own(json.loads(sys.argv[1]), Path(sys.argv[2]))
"""
"""Train, and end without a word when a file of this name has been written, but not yet been put in its place."""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="no SIGKILL")
def test_train_own_killed_and_resumed_is_the_same_run(tmp_path):
    """In the first checkpoint, and after the best model was written, before its score is."""
    home = write_cells(tmp_path / "cells")
    settings = {**QUICK, "train": {**QUICK["train"], "save_every": 1}, "train_data": str(home)}
    own.train_own(settings, tmp_path / "whole")

    def files(out: Path) -> list[str]:
        found = (path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
        return sorted(path for path in found if not path.startswith("logs/"))

    for name in ("step-00000001/.ema", "/.results.json"):
        out = tmp_path / "run"
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "-c", KILLED, json.dumps(settings), str(out), json.dumps(name)]
        assert subprocess.run(command, capture_output=True, check=False).returncode == -signal.SIGKILL
        with pytest.raises(InputError, match="already holds a run; go on with --resume"):
            own.train_own(settings, out)
        own.train_own(settings, out, resume=True)
        assert files(out) == files(tmp_path / "whole"), name
        for folder in ("model", "last"):
            assert from_pretrained(out / folder).digest == from_pretrained(tmp_path / "whole" / folder).digest, name


def test_train_own_twice_at_once_leaves_the_first_ones_data(tmp_path, monkeypatch):
    """Its data set is opened after the file is written, and again with --resume."""
    one, other, out = write_cells(tmp_path / "one"), write_cells(tmp_path / "other", count=5), tmp_path / "run"
    begun = []

    def begin(*_: object) -> None:
        begun.append((out / own.DATA_FILE).read_text())
        if len(begun) == 1:
            with pytest.raises(InputError, match="another process writes into"):
                own.train_own({**QUICK, "train_data": str(other)}, out)
            assert (out / own.DATA_FILE).read_text() == begun[0]

    monkeypatch.setattr(own, "train", begin)
    own.train_own({**QUICK, "train_data": str(one)}, out)
    assert len(begun) == 1


def test_resumed_refuses_other_data_and_settings(tmp_path):
    home, out = write_cells(tmp_path / "cells"), tmp_path / "run"
    recipe, content, _ = prepare({**QUICK, "train_data": str(home)}, out)
    out.mkdir()
    write_json(out / "recipe.json", recipe.to_dict())
    write_json(out / "data.json", content)
    assert resumed({**QUICK, "train_data": str(home)}, out).train.steps == 4, "the same command again"
    assert resumed({"train": {"minutes": 2.0}}, out).train.minutes == 2
    for settings, says in (
        ({"train_data": "shapes:4"}, "was started with other data"),
        ({"train": {"lr": 1.0}}, "was started with another --train.lr"),
        ({"init": "shapes"}, "began with --init none"),
    ):
        with pytest.raises(InputError, match=says):
            resumed(settings, out)
    write_json(out / "data.json", {"train": []})
    with pytest.raises(InputError, match=r"data\.json does not describe the data"):
        resumed({"train_data": str(home)}, out)
