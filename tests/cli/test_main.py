import gc
import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock

import numpy as np
import pytest
import tifffile
from fake_segmenter import TAXONOMIES, FakeSegmenter, draw
from PIL import Image

from pix2seqd.cli import main as cli
from pix2seqd.cli.options import loading
from pix2seqd.data.coco import CocoPanoptic
from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.training.recipes import RECIPES

COMMAND = [sys.executable, "-m", "pix2seqd"]


def lines(text):
    return text.strip().splitlines()


def notes(err, model="nuclei-fast"):
    """The notes on stderr after the first, which says what the model finds."""
    first, *others = [line for line in lines(err) if line.startswith("pix2seqd:")]
    assert first.startswith(f"pix2seqd: model {model} finds ") and first.endswith(": pix2seqd models")
    return others


def settings(out):
    return [image["settings"] for image in json.loads((out / "panoptic.json").read_text())["images"]]


def test_loading_leaves_garbage_collection_on():
    with loading():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), loading():
        raise KeyError
    assert gc.isenabled()


def test_segment_one_image_writes_data_set_and_prints_table(run, segmenter, tmp_path):
    draw(tmp_path / "a cell é.png", blobs=2)
    code, out, err = run("segment", "a cell é.png")
    assert code == 0
    assert err == "pix2seqd: model nuclei-fast finds nucleus and background; for other images: pix2seqd models\n"
    assert "3 segments" in out and out.count("nucleus") == 2 and "stuff" in out
    assert lines(out)[-1].startswith("written to pix2seqd-out")
    (sample,) = (CocoPanoptic.open("pix2seqd-out")[i] for i in range(1))
    assert [s.name for s in sample.panoptic.segments] == ["nucleus", "nucleus", "background"]


def test_segment_table_has_the_scores(run, segmenter, tmp_path):
    draw(tmp_path / "a.png", blobs=2)
    _, out, _ = run("segment", "a.png")
    cells = [line.split("│")[1:-1] for line in lines(out) if line.startswith("│")]
    shown = {row[0].strip(): row[3].strip() for row in cells}
    (sample,) = (CocoPanoptic.open("pix2seqd-out")[i] for i in range(1))
    assert "score" in out and shown == {str(s.id): f"{s.score:.2f}" for s in sample.panoptic.segments}


def test_segment_says_which_results_have_another_name(run, segmenter, tmp_path):
    for place in ("plate 1/a.png", "plate 2/a.png", "plate 2/a.tif", "plate 2/b.png"):
        draw(tmp_path / place)
    code, _, err = run("segment", "plate 1", "plate 2", "--out", "o")
    (note,) = notes(err)
    assert code == 0 and f"{Path('plate 2/a.png')} is a-2, {Path('plate 2/a.tif')} is a-3 in the results" in note
    stored = {Path(image["source"]["path"]).parent.name: image["file_name"] for image in CocoPanoptic.open("o").records}
    assert stored["plate 1"] == "a.png"
    assert not notes(run("segment", "plate 1", "plate 2", "--out", "o")[2]), "said once"
    for number in range(9):
        draw(tmp_path / f"{number}" / "a.png")
    (note,) = notes(run("segment", *map(str, range(9)), "--out", "p")[2])
    assert "4/a.png is a-5, 5/a.png is a-6 and 3 more in the results" in note


def test_segment_table_is_limited_to_largest_segments(run, segmenter, tmp_path):
    draw(tmp_path / "a.png", blobs=30, size=(200, 20))
    _, out, _ = run("segment", "a.png")
    assert "31 segments" in out and "and 11 smaller" in out
    assert str(11 * 16) in out  # their pixels
    assert len(lines(out)) < 32


def test_segment_folder_prints_summary_without_table(run, segmenter, tmp_path):
    for i in range(20):
        draw(tmp_path / "in" / f"{i}.png", blobs=i, size=(130, 15))
    code, out, _ = run("segment", "in", "--out", "o", "--batch-size", 3)
    assert code == 0
    summary, last = lines(out)
    assert summary.startswith("20 segmented in") and "0 failed" in summary
    assert last.startswith("written to o")
    dataset = CocoPanoptic.open("o")
    for i in range(20):
        sample = dataset[i]
        assert len(sample.panoptic.segments) == int(sample.name) + 1


def test_segment_trust_size_takes_a_checkpoint_above_the_limits(run, folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config["infer"]["steps"] = 10**6
    (folder / "config.json").write_text(json.dumps(config))
    command = ("segment", draw(tmp_path / "a.png"), "--model", folder, "--steps", 1)
    code, _, err = run(*command)
    assert code == 2 and "steps must be at most 10000, not 1000000; --trust-size allows it" in err
    assert run(*command, "--trust-size")[0] == 0


@pytest.mark.parametrize("command", ["segment", "video"])
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--classes typo", "there is no class 'typo'; known: "),
        ("--consensus 2", "consensus must be 1, 3, 5"),
        ("--diameter 5", "leave diameter out"),
        ("--min-score 2", "--min-score"),
        ("--also lables", "there is no 'lables'"),
        ("--also labels --pixel-size 3", "--pixel-size 3 is not a size"),
        ("--pixel-size 3um", "--pixel-size needs --also"),
        ("--channel 7", "'7' is not a channel"),
    ],
)
def test_segment_and_video_refused_options_leave_nothing_behind(run, folder, tmp_path, command, options, words):
    draw(tmp_path / "in" / "a.png")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(
        command, "in/a.png" if command == "segment" else "in", "--out", "o", "--model", folder, *options.split()
    )
    assert code == 2 and words in out + err
    assert sorted(tmp_path.rglob("*")) == before


def test_segment_no_readable_image_does_not_say_that_it_wrote_any(run, segmenter, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no image")
    code, out, _ = run("segment", "a.png", "b.png")
    assert code == 2 and "2 failed" in out and "written to" not in out
    draw(tmp_path / "b.png")
    code, out, _ = run("segment", "a.png", "b.png")
    assert code == 2 and "1 failed" in out and "written to" in out


def test_segment_and_video_foreign_folder_gets_nothing_new(run, segmenter, tmp_path):
    draw(tmp_path / "in" / "a.png")
    run("segment", "in", "--out", "o")
    run("video", "in", "--out", "v")
    before = sorted(tmp_path.rglob("[!.]*"))
    for command in (("segment", "in", "--out", "v"), ("video", "in", "--out", "o")):
        code, _, err = run(*command, "--also", "geojson,rois")
        assert code == 2 and "choose another --out" in err
    assert "has other categories" in run("segment", "in", "--out", "o", "--model", "other", "--also", "rois")[2]
    assert sorted(tmp_path.rglob("[!.]*")) == before


@pytest.mark.parametrize(
    "command",
    [
        "segment a.png --out o --engine ray",
        "segment a.png --out o --video",
        "video a.png --out o --along z --also ctc",
        "video a.png --out o --first-steps 0",
        "segment a.png --out o --model missing",
        "video a.png --out o --model missing",
        "export missing --out o",
        "serve --out o --model missing",
        "serve --out o --consensus 2",
        "serve --out o --diameter 5 --model facades",
    ],
)
def test_commands_refuse_before_they_make_a_folder(run, tmp_path, command):
    if "--engine ray" in command and importlib.util.find_spec("ray"):
        pytest.skip("Ray is installed")
    draw(tmp_path / "a.png")
    assert run(*command.split())[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--out folder", "folder is a folder; give the name of a file"),
        ("--csv evaluation.json", "two results would be written to"),
        ("--plot b.png --reliability ./b.png", "two results would be written to"),
        ("--out missing/a.json", "cannot write to missing"),
    ],
)
def test_evaluate_refuses_files_that_it_could_not_write_before_it_begins(run, tmp_path, options, words):
    (tmp_path / "folder").mkdir()
    code, _, err = run("evaluate", "missing", "--data", "shapes:2", *options.split())
    assert code == 2 and words in err


def test_sweep_refuses_the_name_of_its_plot(run):
    code, _, err = run("sweep", "missing", "--data", "shapes:2", "--steps", "1,2", "--out", "a.png")
    assert code == 2 and "two results would be written to" in err


def test_segment_min_score_and_classes_are_recorded_and_drop_segments(run, segmenter, tmp_path):
    draw(tmp_path / "a.png", blobs=3)
    for options, kept in (
        ((), ["nucleus"] * 3 + ["background"]),
        (("--min-score", 0.5), ["nucleus"] * 2 + ["background"]),
        (("--min-score", 0.5, "--classes", "nucleus"), ["nucleus"] * 2),
        (("--classes", "background, nucleus", "--min-score", 1), ["background"]),
        (("--classes", "background", "--classes", "nucleus"), ["nucleus"] * 3 + ["background"]),
    ):
        code, out, _ = run("segment", "a.png", *options)
        assert code == 0 and "skipped" not in out, "other filters are other settings"
        (sample,) = (CocoPanoptic.open("pix2seqd-out")[i] for i in range(1))
        assert [s.name for s in sample.panoptic.segments] == kept
        assert all(s.score is not None for s in sample.panoptic.segments)
    assert settings(tmp_path / "pix2seqd-out")[0]["classes"] == ["background", "nucleus"]
    assert "1 skipped" in run("segment", "a.png", "--classes", "nucleus,background")[1], "in any order"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--classes", "nuclei"), ("'nuclei'", "nucleus, background")),
        (("--classes", "nucleus,,"), ("''", "nucleus, background")),
        (("--min-score", "1.5"), ("min-score", "1.5")),
    ],
)
def test_segment_and_video_unknown_class_or_score(run, segmenter, tmp_path, options, words):
    for command in ("segment", "video"):
        draw(tmp_path / "in" / "a.png")
        code, _, err = run(command, "in", "--out", "o", *options)
        assert code == 2
        (line,) = (line for line in lines(err) if line.startswith("pix2seqd:"))
        assert all(word in line for word in words)
        assert not list((tmp_path / "o").rglob("*.png"))


def test_segment_warns_of_unfamiliar_images_and_records_them(run, segmenter, tmp_path, monkeypatch):
    monkeypatch.setattr(segmenter, "familiar_width", 50)
    for number, width in enumerate((40, 75, 50, 60)):
        draw(tmp_path / "in" / f"{number}.png", size=(width, 30))
    code, out, err = run("segment", "in", "--out", "o")
    (told,) = notes(err)
    assert code == 0 and "4 segmented" in out
    assert "warning: 2 of 4 images look unlike those that nuclei-fast is made for (1.png, 3.png)" in told
    assert [record["unfamiliar"] for record in CocoPanoptic.open("o").records] == [False, True, False, True]
    assert [record["ood_score"] for record in CocoPanoptic.open("o").records] == [0.8, 1.5, 1.0, 1.2]
    assert notes(run("segment", "in", "--out", "o")[2]) == [told]  # results that are kept
    monkeypatch.setattr(segmenter, "familiar_width", None)
    assert not notes(run("segment", "in", "--out", "other")[2])
    assert "unfamiliar" not in CocoPanoptic.open("other").records[1]


def test_segment_warning_names_a_few_of_many(run, segmenter, tmp_path, monkeypatch):
    monkeypatch.setattr(segmenter, "familiar_width", 30)
    for number in range(8):
        draw(tmp_path / "in" / f"{number}.png")
    (told,) = notes(run("segment", "in", "--out", "o")[2])
    assert "8 of 8 images" in told and "(0.png, 1.png, 2.png, 3.png, 4.png and 3 more)" in told


def test_segment_names_bad_files_and_segments_the_others(run, segmenter, tmp_path):
    draw(tmp_path / "in" / "a.png")
    draw(tmp_path / "in" / "z.png")
    (tmp_path / "in" / "empty.png").write_bytes(b"")
    (tmp_path / "in" / "folder.png").mkdir()
    (tmp_path / "in" / "[red]text.png").write_text("hello")
    code, out, err = run("segment", "in", "missing.png", "--out", "o")
    assert code == 2
    errors = notes(err)
    assert len(errors) == 4
    for name in ("in/empty.png", "in/folder.png", "in/[red]text.png", "missing.png"):
        assert sum(name in line for line in errors) == 1
    assert "2 segmented" in out and "4 failed" in out
    assert [record["file_name"] for record in CocoPanoptic.open("o").records] == ["a.png", "z.png"]


@pytest.mark.parametrize("files", [1, 3])
def test_segment_channels_and_planes_are_reported_once_per_file(run, segmenter, tmp_path, files):
    values = np.zeros((3, 5, 15, 20), "uint16")
    values[0, 3, 2:6, 2:6] = 4000
    (tmp_path / "in").mkdir()
    for number in range(files):
        tifffile.imwrite(tmp_path / f"in/{number}.tif", values, imagej=True, metadata={"axes": "TCYX"})
    code, _, err = run("segment", "in", "--out", "o")
    told = notes(err)
    assert code == 0 and "failed" not in err and len(told) == 2 * files
    for number in range(files):
        own = [line for line in told if f"in/{number}.tif: " in line]
        assert "2 left out (time (T): 3); `pix2seqd video` takes those along time (T)" in own[0]
        assert "the first of 5 channels is taken; --channel takes another" in own[1]
    seen = FakeSegmenter.seen
    code, _, err = run("segment", "in", "--out", "o", "--channel", "4")
    assert code == 0 and "--channel" not in err and FakeSegmenter.seen == seen + files
    assert settings(tmp_path / "o")[0]["channel"] == "4"
    assert [s.name for s in CocoPanoptic.open("o")[0].panoptic.segments] == ["nucleus", "background"]
    code, _, err = run("segment", "in", "--out", "o", "--channel", "GFP")
    assert code == 2 and "'GFP' is not a channel of it; give a number from 1 to 5" in err and "Traceback" not in err


def test_segment_again_skips_finished_images(run, segmenter, tmp_path):
    draw(tmp_path / "a.png")
    _, first, _ = run("segment", "a.png")
    before = (tmp_path / "pix2seqd-out/panoptic.json").read_bytes()
    code, again, _ = run("segment", "a.png")
    assert code == 0 and FakeSegmenter.seen == 1
    assert "1 skipped" in again and again.endswith(first)
    assert (tmp_path / "pix2seqd-out/panoptic.json").read_bytes() == before


@pytest.mark.parametrize("change", [("--seed", 1), ("--steps", 7), ("--td", 2), ("--min-pixels", 9)])
def test_segment_again_with_other_settings_repeats(run, segmenter, tmp_path, change):
    draw(tmp_path / "a.png")
    run("segment", "a.png")
    run("segment", "a.png", *change)
    assert FakeSegmenter.seen == 2
    assert settings(tmp_path / "pix2seqd-out")[0][change[0][2:].replace("-", "_")] == change[1]


def test_segment_again_with_explicit_defaults_skips(run, segmenter, tmp_path):
    draw(tmp_path / "a.png")
    run("segment", "a.png")
    run("segment", "a.png", "--steps", 20, "--seed", 0, "--batch-size", 2)
    assert FakeSegmenter.seen == 1


def test_segment_after_ctrl_c_keeps_results_and_continues(run, segmenter, tmp_path, monkeypatch):
    for i in range(6):
        draw(tmp_path / "in" / f"{i}.png")
    monkeypatch.setattr(segmenter, "fail_at", 4)
    code, _, err = run("segment", "in")
    assert code == 130 and "Traceback" not in err
    assert lines(err)[-1].startswith("pix2seqd: interrupted")
    assert len(settings(tmp_path / "pix2seqd-out")) == 4
    monkeypatch.setattr(segmenter, "fail_at", None)
    code, out, _ = run("segment", "in")
    assert code == 0 and segmenter.seen == 6
    assert "2 segmented" in out and "4 skipped" in out
    assert len(CocoPanoptic.open("pix2seqd-out")) == 6


def test_segment_after_input_error_keeps_results(run, segmenter, tmp_path, monkeypatch):
    for i in range(3):
        draw(tmp_path / "in" / f"{i}.png")
    monkeypatch.setattr(segmenter, "fail_at", 2)
    monkeypatch.setattr(segmenter, "error", InputError("the disk\nis full"))
    code, _, err = run("segment", "in")
    assert code == 2 and lines(err)[-1] == "pix2seqd: the disk is full"
    assert len(settings(tmp_path / "pix2seqd-out")) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["segment"], "nothing to segment"),
        (["segment", "missing.png"], "missing.png does not exist"),
        (["segment", "empty"], "no images"),
        (["segment", "a.png", "--model", "nucleus"], "nucleus"),
        (["segment", "a.png", "--out", "a.png"], "cannot write to a.png"),
        (["segment", "a.png", "--steps", "0"], "--steps"),
        (["segment", "a.png", "--steps", "2.5"], "--steps"),
        (["segment", "a.png", "--steps", "many"], "--steps"),
        (["segment", "a.png", "--steps", "1000000000"], "--steps"),
        (["segment", "a.png", "--td", "-0.1"], "--td"),
        (["segment", "a.png", "--td", "nan"], "--td"),
        (["segment", "a.png", "--td", "inf"], "--td"),
        (["segment", "a.png", "--seed", "-1"], "--seed"),
        (["segment", "a.png", "--seed", str(2**64)], "--seed"),
        (["segment", "a.png", "--min-pixels", "-1"], "--min-pixels"),
        (["segment", "a.png", "--batch-size", "0"], "--batch-size"),
        (["segment", "a.png", "--device", "gpu"], "cuda"),
        (["segment", "a.png", "--dtype", "float16"], "bfloat16"),
        (["segment", "a.png", "--stesp", "3"], "Did you mean --steps?"),
        (["segment", "a.png", "--steps"], "--steps"),
        (["segmnt", "a.png"], 'Did you mean "segment"?'),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_main_bad_usage_prints_one_line_and_exits_2(run, segmenter, tmp_path, arguments, says):
    draw(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    code, out, err = run(*arguments)
    assert code == 2 and out == ""
    (line,) = lines(err)
    assert line.startswith("pix2seqd: ") and says in line


def test_segment_unwritable_out_fails_before_loading_the_model(run, segmenter, tmp_path, monkeypatch):
    draw(tmp_path / "a.png")
    (tmp_path / "o").write_text("a file")
    monkeypatch.setattr(segmenter, "from_pretrained", lambda *_, **__: pytest.fail("loaded the model"))
    code, _, err = run("segment", "a.png", "--out", "o")
    assert code == 2 and "choose another --out" in err


def test_segment_file_names_with_dash_or_after_options(run, segmenter, tmp_path):
    for name in ("-a.png", "b.png", "c.png"):
        draw(tmp_path / name)
    assert run("segment", "b.png", "--seed", 3, "c.png", "--", "-a.png")[0] == 0
    assert len(settings(tmp_path / "pix2seqd-out")) == 3


def test_segment_exif_16bit_cmyk_and_bilevel_images_keep_their_size(run, segmenter, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10), "white").save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30)).save(tmp_path / "deep.tif")
    Image.new("CMYK", (1, 1)).save(tmp_path / "dot.tif")
    Image.new("1", (900, 1), 1).save(tmp_path / "line.png")
    code, _, _ = run("segment", *sorted(p.name for p in tmp_path.iterdir()))
    assert code == 0
    dataset = CocoPanoptic.open("pix2seqd-out")  # refuses a mask whose size differs from that of the displayed image
    sizes = {s.name: s.panoptic.segmentation.shape for s in map(dataset.__getitem__, range(4))}
    assert sizes == {"turned": (20, 10), "deep": (20, 30), "dot": (1, 1), "line": (1, 900)}


@pytest.fixture
def data(run, segmenter, tmp_path):
    """Four images with the segmenter's own result as their truth."""
    for i in range(4):
        draw(tmp_path / "in" / f"{i}.png", blobs=i)
    run("segment", "in", "--out", "data")
    content = json.loads((tmp_path / "data/panoptic.json").read_text())
    for image in content["images"]:
        image["stain"] = "HE" if image["id"] < 3 else "DAPI"
    (tmp_path / "data/panoptic.json").write_text(json.dumps(content))
    return tmp_path / "data"


def test_evaluate_prints_a_table_and_writes_json(run, data):
    code, out, _ = run("evaluate", "nuclei", "--data", "coco:data", "--group-by", "stain", "--steps", 3)
    assert code == 0 and "100.0" in out and "nucleus" in out and "DAPI" in out
    assert lines(out)[-1] == "written to evaluation.json"
    results = json.loads((data.parent / "evaluation.json").read_text())
    assert results["settings"]["steps"] == 3 and results["settings"]["data"] == "coco:data"
    assert results["all"]["panoptic_quality"]["All"]["pq"] == 1
    assert {name: results[name]["images"] for name in ("all", "HE", "DAPI")} == {"all": 4, "HE": 2, "DAPI": 2}


def test_evaluate_limit_table_and_plot(run, data):
    more = ("--limit", 2, "--csv", "a.csv", "--plot", "a.png", "--group-by", "stain")
    code, out, err = run("evaluate", "nuclei", "--data", "coco:data", *more)
    assert code == 0, err
    results = json.loads((data.parent / "evaluation.json").read_text())
    assert {name: results[name]["images"] for name in ("all", "HE", "DAPI")} == {"all": 2, "HE": 1, "DAPI": 1}
    assert results["settings"]["limit"] == 2 and results["all"]["confusion"]["classes"][0] == "void"
    assert lines((data.parent / "a.csv").read_text())[1].startswith("all,1,nucleus,thing,1.0,")
    assert "written to a.csv" in out and min(Image.open(data.parent / "a.png").size) > 200
    assert FakeSegmenter.seen == 4 + 2, "only two of the four are segmented again"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nuclei"], "--data"),
        (["nuclei", "--data", "coco:data", "--limit", "0"], "--limit"),
        (["nuclei", "--data", "coco:data", "--plot", "a.doc"], "must end with .png"),
        (["nuclei", "--data", "coco:data", "--csv", "missing/a.csv"], "cannot write"),
        (["nuclei", "--data", "shapes-clips:1", "--csv", "a.csv"], "--csv, --plot and --reliability are for images"),
        (["nuclei", "--data", "coco:nowhere"], "nowhere"),
        (["nuclei", "--data", "data"], "coco:DIR"),
        (["nothing", "--data", "coco:data"], "nothing"),
        (["other", "--data", "coco:data"], "categories"),
        (["nuclei", "--data", "coco:data", "--group-by", "color"], "'color'"),
        (["nuclei", "--data", "coco:data", "--out", "missing/a.json"], "cannot write"),
        (["nuclei", "--data", "coco:data", "--steps", "0"], "--steps"),
        (["nuclei", "--data", "coco:data", "--tracking", "iou"], "--tracking and --every for clips"),
        (["nuclei", "--data", "coco:data", "--every", "2"], "--every for clips"),
        (["nuclei", "--data", "coco:data", "--adaptive", "2"], "--adaptive is for clips"),
        (
            ["nuclei", "--data", "shapes-clips:1", "--tracking", "iou", "--first-steps", "2"],
            "--first-steps is for clips",
        ),
        (["nuclei", "--data", "shapes-clips:1", "--group-by", "stain"], "--group-by is for images"),
    ],
)
def test_evaluate_bad_usage_prints_one_line(run, data, arguments, says):
    code, _, err = run("evaluate", *arguments)
    assert code == 2 and says in lines(err)[-1] and lines(err)[-1].startswith("pix2seqd: ")


def test_check_data_prints_categories_and_writes_contact_sheet(run, data, tmp_path):
    code, out, _ = run("check-data", "data", "--contact-sheet", "sheet.png")
    assert code == 0
    assert "nucleus" in out and "background" in out and "4 items, all readable" in out
    assert Image.open(tmp_path / "sheet.png").width > 0


def test_check_data_damaged_data_set_exits_2(run, data):
    (data / "panoptic/2.png").unlink()
    code, out, _ = run("check-data", "data")
    assert code == 2 and "2.png" in out.replace("\n", "")
    assert run("check-data", "data", "--split", "train")[0] == 2
    assert run("check-data", "nowhere")[0] == 2


@pytest.fixture
def trained(monkeypatch):
    """The arguments of each call of `training.train.train`."""
    calls = []
    module = ModuleType("pix2seqd.training.train")
    module.train = lambda *arguments: calls.append(arguments)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pix2seqd.training.train", module)
    return calls


def test_train_recipe_with_changed_settings(run, trained):
    code, out, _ = run("train", "nuclei", "--train.steps", 5, "--resume", "--train-data=shapes:9")
    (call,) = trained
    base = RECIPES["nuclei"]
    assert call == (base.replace(train=base.train.replace(steps=5), train_data="shapes:9"), Path("runs/nuclei"), True)
    assert code == 0 and "--model runs/nuclei/model" in lines(out)[-1]
    run("train", "nuclei", "--out", "elsewhere")
    assert trained[1] == (base, Path("elsewhere"), False)


def test_train_show_prints_yaml_that_train_reads(run, trained, tmp_path):
    _, out, _ = run("train", "nuclei", "--train.steps", 5, "--show")
    (tmp_path / "mine.yaml").write_text(out)
    run("train", "mine.yaml")
    assert trained[0][0].train.steps == 5 and trained[0][1] == Path("runs/mine")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [([], "nuclei"), (["nucleii"], "nuclei"), (["nuclei", "--resmue"], "--resume"), (["nuclei", "--out"], "--out")],
)
def test_train_bad_usage_prints_one_line(run, trained, arguments, says):
    code, _, err = run("train", *arguments)
    (line,) = lines(err)
    assert code == 2 and says in line and not trained


@pytest.mark.parametrize("arguments", [["--help"], ["segment", "--help"], ["train", "--help"], ["--version"]])
def test_help_imports_no_heavy_library(arguments):
    code = (
        "import sys; from pix2seqd.cli import main as cli\n"
        "try: cli.main()\n"
        "finally: print({'torch', 'transformers', 'numpy', 'PIL', 'scipy'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout and done.stderr.strip() == "set()"


def test_segment_help_names_every_option(run):
    _, out, _ = run("segment", "--help")
    for option in ("model", "out", "steps", "td", "seed", "min-pixels", "batch-size", "device", "dtype"):
        assert f"--{option}" in out


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_main_sigint_exits_130_without_traceback(tmp_path):
    """The signal comes while the command waits for the model."""
    draw(tmp_path / "a.png")
    code = (
        "import sys, time, types; from pix2seqd.cli import main as cli\n"
        "def slow(*_, **__): print('loading', flush=True); time.sleep(600)\n"
        "fake = types.SimpleNamespace(Segmenter=types.SimpleNamespace(from_pretrained=slow))\n"
        "sys.modules['pix2seqd.segmenter'] = fake\n"
        "cli.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "segment", "a.png"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Shells start background jobs with the signal ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None and process.stdout.readline().strip() == "loading"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err.startswith("pix2seqd: interrupted") and len(lines(err)) == 1


def test_python_m_pix2seqd_prints_version():
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == cli.version("pix2seqd")


def test_segment_image_without_segments_prints_message(run, segmenter, tmp_path, monkeypatch):
    draw(tmp_path / "a.png")
    nothing = Panoptic.from_segmentation(np.zeros((30, 40), int), {}, TAXONOMIES["nuclei"])
    monkeypatch.setattr(segmenter, "images", lambda *_, **__: iter([nothing]))
    code, out, _ = run("segment", "a.png")
    assert code == 0 and lines(out)[0] == "a.png: no segments, every pixel is void"


@pytest.mark.parametrize("command", [["segment", ".", "--out"], ["video"], ["models"]])
def test_commands_say_that_a_path_cannot_be_used(run, tmp_path, command):
    """Too long a name here; Python's own questions about a path raise errors of the system."""
    draw(tmp_path / "a.png")
    code, out, err = run(*command, "x" * 300)
    assert code == 2 and len(lines(err)) == 1 and "xxx" in err and not out


def test_streams_that_the_caller_closed(tmp_path):
    """Otherwise a traceback; and a file that is written could get the number of a closed stream."""
    command = f"{sys.executable} -m pix2seqd figures shapes:1@1 --out {tmp_path} <&- >&- 2>&-"
    assert subprocess.run(command, shell=True).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"figure3.png", "figure4.png"}


@pytest.mark.skipif(os.name != "posix", reason="Windows keeps the current folder")
def test_current_folder_that_was_removed(run, tmp_path, monkeypatch):
    """Libraries ended the process with a message about their own files."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    code, _, err = run("models")
    assert code == 2 and "the current folder cannot be used (No such file or directory); change to another" in err


def test_nobody_reads_what_is_printed():
    command = f"{sys.executable} -m pix2seqd train shapes --show | true; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_libraries_do_not_complain_about_what_is_left_at_the_end():
    pytest.importorskip("triton")
    code = "import sys, triton; from pix2seqd.cli.main import main; sys.argv[1:] = ['--version']; main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.mark.skipif(os.name != "posix", reason="needs links")
@pytest.mark.parametrize("command", ["sweep nuclei --data shapes:1@1 --steps 1 --out", "video clip.mp4 --out", "video"])
def test_links_in_a_circle_are_one_line(run, tmp_path, command):
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.MonkeyPatch.context() as patch:  # only the paths are looked at
        patch.setattr("pix2seqd.data.open_dataset", Mock(side_effect=InputError("read")))
        assert run(*command.split(), "one")[0] == 2
