"""`pix2seqd segment --shard N`: a result in parts, which is read as one."""

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from fake_segmenter import TAXONOMIES, FakeSegmenter, draw
from PIL import Image
from pycocotools.coco import COCO

from pix2seqd import files
from pix2seqd.cli import segmenting
from pix2seqd.data import open_dataset
from pix2seqd.data.coco import CocoPanoptic, splits
from pix2seqd.files import InputError
from pix2seqd.page import editing
from pix2seqd.panoptic import collect, extra_files, journal, results
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.results import PanopticWriter

PARTS = ("part-00000", "part-00001", "part-00002")


@pytest.fixture
def images(segmenter, tmp_path: Path) -> Path:
    """Seven images of equal names in two folders, with 0 to 6 blobs."""
    for number in range(7):
        draw(tmp_path / f"in{number // 4}" / f"{number % 4}.png", blobs=number)
    return tmp_path


def content(part: str) -> dict:
    return json.loads((Path("o") / part / "panoptic.json").read_text())


def check_parts(sizes: list[int]) -> None:
    """Each part is a data set by itself, and all are one: each image once, with its own mask and ids."""
    assert sorted(path.name for path in Path("o").glob("part-*")) == list(PARTS[: len(sizes)])
    sources: list[str] = []
    numbers: list[int] = []
    annotations: list[int] = []
    for number, (part, size) in enumerate(zip(PARTS, sizes, strict=False)):
        dataset = CocoPanoptic.open(Path("o") / part)
        assert len(dataset) == size
        ids = [record["id"] for record in dataset.records]
        assert sorted(ids) == list(range(3 * number + 1, 3 * number + 1 + size))
        for index, record in enumerate(dataset.records):
            blobs = 4 * int(Path(record["source"]["path"]).parent.name[-1]) + int(Path(record["source"]["path"]).stem)
            assert len(dataset[index].panoptic.things) == blobs
        coco = COCO(str(Path("o") / part / "instances.json"))
        assert set(coco.getImgIds()) == set(ids)
        sources += [record["source"]["path"] for record in dataset.records]
        numbers += ids
        annotations += coco.getAnnIds()
    assert len(set(sources)) == len(sources) == len(set(numbers))
    assert len(set(annotations)) == len(annotations) == sum(range(7))
    whole = open_dataset("coco:o", (8, 8))
    assert len(whole) == sum(sizes) and len({whole[index].name for index in range(len(whole))}) == len(whole)
    assert not list(Path("o").rglob(".panoptic.journal")) and not list(Path("o").rglob("*.part"))


def test_segment_shard_writes_parts_that_are_read_as_one(run, images):
    code, out, err = run("segment", "in0", "in1", "--out", "o", "--shard", "3", "--also", "coco,measures")
    assert code == 0, err
    assert out.splitlines()[-1].startswith("written to o/part-*: panoptic.json")
    check_parts([3, 3, 1])
    assert [image["file_name"] for image in content("part-00001")["images"]] == ["3.png", "0.png", "1.png"]
    assert content("part-00001")["info"] == {**content("part-00000")["info"], "part": 1}
    whole = CocoPanoptic.open("o")
    assert whole[3].name == "part-00001/images/3" and whole.taxonomy == TAXONOMIES["nuclei"]
    assert splits("o") == [""]
    code, out, err = run("segment", "in0", "in1", "--out", "o", "--shard", "3", "--also", "coco,measures")
    assert code == 0 and "7 skipped" in out and FakeSegmenter.seen == 7
    check_parts([3, 3, 1])


def test_segment_shard_images_stay_in_their_parts(run, images):
    run("segment", "in0", "--out", "o", "--shard", "3", "--also", "coco")
    os.utime("in0/1.png", ns=(0, 1))  # is segmented again
    draw(images / "in0" / "00.png", blobs=0)
    (images / "in0" / "00.png").rename(images / "in1" / "0.png")
    code, _, err = run("segment", "in1", "in0", "--out", "o", "--shard", "3", "--also", "coco")
    assert code == 0 and FakeSegmenter.seen == 4 + 1 + 3, err
    first = [image["source"]["path"].split("/")[-2:] for image in content("part-00000")["images"]]
    assert first == [["in0", "0.png"], ["in0", "1.png"], ["in0", "2.png"]]
    assert [len(content(part)["images"]) for part in PARTS] == [3, 3, 1]


def test_segment_shard_fills_the_place_of_an_image_that_failed(run, images):
    (images / "in0" / "1.png").write_text("no image")
    assert run("segment", "in0", "in1", "--out", "o", "--shard", "3", "--also", "coco")[0] == 2
    assert [len(content(part)["images"]) for part in PARTS] == [2, 3, 1]
    draw(images / "in0" / "1.png", blobs=1)
    assert run("segment", "in0", "in1", "--out", "o", "--shard", "3", "--also", "coco")[0] == 0
    check_parts([3, 3, 1])


def test_segment_shard_adds_further_files_to_all_parts(run, images):
    assert run("segment", "in0", "in1", "--out", "o", "--shard", "3")[0] == 0
    code, out, _ = run("segment", "in0", "in1", "--out", "o", "--shard", "3", "--also", "coco,labels")
    assert code == 0 and "7 not segmented again" in out and FakeSegmenter.seen == 7
    check_parts([3, 3, 1])
    assert len(list(Path("o").glob("part-*/labels/*.tif"))) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("writes", [1, 2, 4, 7, 12, 13, 17, 20, 26, 29, 33, 36])
def test_segment_shard_killed_and_repeated_is_complete(run, images, monkeypatch, writes: int):
    """The process ends without a word before one of its files is in its place."""
    command = ("segment", "in0", "in1", "--out", "o", "--shard", "3", "--also", "coco")
    if (child := os.fork()) == 0:
        count = itertools.count(1)
        for module in (collect, extra_files, files, journal, results):

            def write(path: Path, real=module.write_atomically):
                return os._exit(9) if next(count) == writes else real(path)

            monkeypatch.setattr(module, "write_atomically", write)
        run(*command, "--batch-size", "1")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    code, _, err = run(*command)
    assert code == 0, err
    check_parts([3, 3, 1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_segment_shard_killed_loses_no_image_that_was_reported(run, images, monkeypatch):
    """What is only in the journals counts: the process is killed long before `panoptic.json` is written again."""
    if (child := os.fork()) == 0:
        monkeypatch.setattr(PanopticWriter, "_save", lambda self: None)
        monkeypatch.setattr(FakeSegmenter, "fail_at", 5)
        monkeypatch.setattr(segmenting, "_pipelined", killed)
        run("segment", "in0", "in1", "--out", "o", "--shard", "3", "--batch-size", "1")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert [len(content(part)["images"]) for part in PARTS] == [0, 0, 0]
    code, out, err = run("segment", "in0", "in1", "--out", "o", "--shard", "3", "--also", "coco")
    assert code == 0 and "2 segmented" in out and "5 skipped" in out, err
    check_parts([3, 3, 1])


def killed(calls, pool):
    """`_pipelined` without threads, in a process that Ctrl-C would end; it is killed instead."""
    try:
        yield from (call() for call in calls)
    except KeyboardInterrupt:
        os._exit(9)


@pytest.mark.parametrize(
    ("first", "then", "says"),
    [
        (["--shard", "3"], ["--shard", "4"], "o has parts of 3 images; give --shard 3, or choose another --out"),
        (["--shard", "3"], [], "o has parts of 3 images; give --shard 3, or choose another --out"),
        ([], ["--shard", "3"], "o has a result without --shard; leave --shard out, or choose another --out"),
        (["--shard", "3"], ["--out", "o/part-00000"], "o/part-00000 is one part of the result o; give that, or choose"),
        (["--shard", "3"], ["--out", "o/part-00000", "--shard", "3"], "o/part-00000 is one part of the result o"),
        (["--shard", "3"], ["--model", "other", "--shard", "3"], "o/part-00000/panoptic.json has other categories"),
    ],
)
def test_segment_does_not_mix_results(run, images, first, then, says):
    assert run("segment", "in0", "--out", "o", *first)[0] == 0
    before = everything()
    code, out, err = run("segment", "in0", "in1", *([] if "--out" in then else ["--out", "o"]), *then)
    assert code == 2 and out == "" and says in err.splitlines()[-1] and FakeSegmenter.seen == 4
    assert everything() == before


def everything() -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in Path("o").rglob("*")}


def test_other_commands_do_not_write_into_parts(run, images):
    run("segment", "in0", "--out", "o", "--shard", "3")
    code, _, err = run("video", "in0", "--out", "o")
    assert code == 2 and "o has a result of `pix2seqd segment` in parts; choose another --out" in err
    image, panoptic = (
        Image.new("RGB", (4, 4)),
        Panoptic.from_segmentation(np.ones((4, 4)), {1: 1}, TAXONOMIES["nuclei"]),
    )
    for folder in ("o", "o/part-00000"):
        with pytest.raises(InputError, match=f"{folder} "):
            editing.append(Path(folder), "a.png", image, panoptic)
    assert not Path("o/panoptic.json").exists() and len(content("part-00000")["images"]) == 3


@pytest.mark.parametrize("shard", ["0", "-1", "1.5", "many"])
def test_segment_shard_wrong_number_is_refused(run, images, shard):
    code, out, err = run("segment", "in0", "--out", "o", f"--shard={shard}")
    assert code == 2 and out == "" and "--shard" in err and not Path("o").exists()


def test_commands_read_parts_as_one(run, images):
    run("segment", "in0", "in1", "--out", "o", "--shard", "3")
    run("segment", "in0", "in1", "--out", "whole")
    code, out, err = run("check-data", "o")
    assert code == 0 and " 7 " in out, err
    for truth, prediction in (("whole", "o"), ("o", "whole"), ("o", "o"), ("whole/panoptic.json", "o")):
        code, out, err = run("metric", "pq", truth, prediction, "--json", "scores.json")
        assert code == 0, err
        scores = json.loads(Path("scores.json").read_text())
        assert scores["All"]["pq"] == 1 and scores["per_class"]["1"]["tp"] == sum(range(7))
    assert run("figures", "coco:o", "--index", "6", "--out", ".")[0] == 0
    code, _, err = run("metric", "pq", "o", "o", "--truth-pngs", "o")
    assert code == 2 and "--truth-pngs has no meaning for a folder; leave it out" in err


def test_parts_that_do_not_belong_together(run, images):
    run("segment", "in0", "in1", "--out", "o", "--shard", "3")
    changed = content("part-00001")
    changed["categories"][0]["name"] = "cell"
    before = Path("o/part-00001/panoptic.json").read_bytes()
    Path("o/part-00001/panoptic.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match=r"part-00001/panoptic\.json has other categories"):
        CocoPanoptic.open("o")
    Path("o/part-00001/panoptic.json").write_bytes(before)
    Path("o/part-00000").rename("o/part-00007")
    assert len(CocoPanoptic.open("o")) == 7
    Path("o/part-00008").mkdir()
    Path("o/part-00008/panoptic.json").write_bytes(before)
    with pytest.raises(InputError, match=r"part-\*/panoptic\.json: annotation of image 4 appears twice"):
        CocoPanoptic.open("o")
    Path("o/panoptic.json").write_bytes(before)
    with pytest.raises(InputError, match=r"o has a panoptic\.json and also parts"):
        open_dataset("coco:o", (8, 8))
    code, _, err = run("segment", "in0", "--out", "o", "--shard", "3")
    assert code == 2 and "move one of them away" in err
