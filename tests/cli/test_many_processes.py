"""Several processes segment one folder: with --workers, under torchrun, on a Ray cluster, or as separate commands."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from pix2seqd.checkpoint import Checkpoint, save_pretrained
from pix2seqd.cli.main import main
from pix2seqd.config import DataConfig, InferConfig, ModelConfig
from pix2seqd.data.synthetic.shapes import TAXONOMY, Shapes
from pix2seqd.panoptic.results import PanopticWriter, make_folders, write_files
from pix2seqd.pix2seq_d import Pix2SeqD

COUNT = 5


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A checkpoint, five images of which two share a stem, one file that is not an image, and one process's result."""
    place = tmp_path_factory.mktemp("many")
    data = DataConfig(size=(32, 32))
    save_pretrained(Checkpoint(Pix2SeqD(ModelConfig.preset("tiny")), TAXONOMY, data, InferConfig(steps=1)), place / "m")
    (place / "in").mkdir()
    for i in range(COUNT):
        name = f"{i}.png" if i else "1.bmp"
        Image.fromarray(Shapes(COUNT, (32, 32))[i].image).save(place / "in" / name)
    (place / "in" / "broken.png").write_bytes(b"not an image")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit, match="2"):
        patch.setattr(sys, "argv", ["pix2seqd", *arguments(place, "one")])
        main()
    return place


def arguments(place: Path, out: str) -> list[str]:
    options = ("--model", str(place / "m"), "--out", str(place / out), "--also", "measures,coco")
    return ["segment", str(place / "in"), *options]


def segment(place: Path, out: str, *options: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *launcher, "pix2seqd", *arguments(place, out), *options],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"},
    )


def assert_same(place: Path, out: str) -> None:
    """Both folders have the same files with the same content, and the same records except for their ids and order."""
    one, other = (json.loads((place / name / "panoptic.json").read_text()) for name in ("one", out))
    assert len(one["images"]) == COUNT
    assert [image["id"] for image in sorted(other["images"], key=lambda i: i["id"])] == list(range(1, COUNT + 1))
    records = [{image["file_name"]: {**image, "id": 0} for image in content["images"]} for content in (one, other)]
    assert records[0] == records[1]
    for annotation in other["annotations"]:
        masks = [np.asarray(Image.open(place / name / "panoptic" / annotation["file_name"])) for name in ("one", out)]
        assert np.array_equal(*masks)
    for name in ("measures.csv", "counts.csv"):
        assert len({tuple(sorted((place / folder / name).read_text().splitlines())) for folder in ("one", out)}) == 1
    instances = [json.loads((place / folder / "instances.json").read_text())["annotations"] for folder in ("one", out)]
    assert [entry["id"] for entry in instances[1]] == list(range(1, len(instances[0]) + 1))
    codes = [sorted((entry["segmentation"]["counts"], entry["area"]) for entry in entries) for entries in instances]
    assert codes[0] == codes[1]


@pytest.mark.slow
def test_segment_workers_share_a_folder_and_continue(place):
    done = segment(place, "workers", "--workers", "2")
    assert done.returncode == 2 and done.stderr.count("broken.png") == 1, done.stderr
    assert f"{COUNT} segmented in" in done.stdout and "1 failed" in done.stdout, done.stdout
    assert_same(place, "workers")
    (place / "in" / "broken.png").rename(place / "broken.png")
    again = segment(place, "workers", "--workers", "2")
    (place / "broken.png").rename(place / "in" / "broken.png")
    assert again.returncode == 0 and f"{COUNT} skipped" in again.stdout, again.stdout


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_segment_workers_after_ctrl_c_keep_results_and_continue(place):
    """The terminal sends the signal to all processes. They all hold the pipes, which end with the last one."""
    options = ("--workers", "2", "--steps", "400")
    process = subprocess.Popen(
        [sys.executable, "-m", "pix2seqd", *arguments(place, "stopped"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # Shells start background jobs with the signal ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    whole = place / "stopped" / "panoptic.json"
    while process.poll() is None and not (whole.exists() and json.loads(whole.read_text())["images"]):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=280)
    assert process.returncode == 130 and "Traceback" not in err, err
    recorded = len(json.loads(whole.read_text())["images"])
    assert 0 < recorded < COUNT
    again = segment(place, "stopped", *options)
    assert again.returncode == 2 and f"{recorded} skipped" in again.stdout, again.stdout
    assert len(json.loads(whole.read_text())["images"]) == COUNT


def test_segment_under_torchrun_shares_a_folder(place):
    done = segment(place, "two", launcher=("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"))
    assert done.returncode == 1 and done.stderr.count("broken.png") == 1  # torchrun's own code for a failed process
    assert done.stdout.count(" segmented in") == 2, done.stdout
    assert_same(place, "two")


def assert_parts(place: Path, out: str) -> None:
    """The parts have two images each, the last one has the fifth; together they have those of the folder `one`."""
    one = {image["source"]["path"]: image for image in json.loads((place / "one/panoptic.json").read_text())["images"]}
    found = {}
    for number, size in enumerate((2, 2, 1)):
        content = json.loads((place / out / f"part-{number:05}" / "panoptic.json").read_text())
        assert [image["id"] for image in content["images"]] == list(range(2 * number + 1, 2 * number + 1 + size))
        found |= {image["source"]["path"]: image for image in content["images"]}
        assert not (place / out / f"part-{number:05}" / ".panoptic.journal").exists()
    assert found.keys() == one.keys()
    assert all(found[key]["settings"] == one[key]["settings"] for key in one)


def test_segment_shard_under_torchrun(place):
    """The names of the images of all processes are taken in their order, so each part has its own images."""
    done = segment(
        place, "many", "--shard", "2", launcher=("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    )
    assert done.returncode == 1 and done.stderr.count("broken.png") == 1
    again = segment(place, "many", "--shard", "2")
    assert again.returncode == 2 and "5 skipped" in again.stdout, again.stdout
    assert_parts(place, "many")


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.slow
def test_segment_shard_on_ray(place):
    done = segment(place, "ray-parts", "--engine", "ray", "--workers", "2", "--shard", "2")
    assert done.returncode == 2, done.stderr[-3000:]
    assert_parts(place, "ray-parts")


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
@pytest.mark.slow
def test_segment_on_ray_shares_a_folder_and_continues(place):
    done = segment(place, "ray", "--engine", "ray", "--workers", "2")
    assert done.returncode == 2, done.stderr[-3000:]
    assert "broken.png" in done.stderr
    assert_same(place, "ray")
    again = segment(place, "ray", "--engine", "ray", "--workers", "2")
    assert f"{COUNT} skipped" in again.stdout, again.stdout


def test_panoptic_writer_two_writers_keep_each_others_entries(tmp_path):
    image = Image.new("RGB", (32, 32))
    panoptic = Shapes(1, (32, 32))[0].panoptic
    sources = [tmp_path / name for name in ("a.png", "a.bmp", "b.png", "c.png")]
    for source in sources:
        image.save(source)
    out = tmp_path / "out"
    make_folders(out)
    with PanopticWriter(out, TAXONOMY, {}, sources) as first, PanopticWriter(out, TAXONOMY, {}, sources) as second:
        for writer, source in ((first, 0), (second, 1), (second, 2), (first, 3), (second, 1)):
            stem = writer.stem(sources[source])
            writer.add(sources[source], write_files(out, stem, sources[source], image, panoptic, {}))
    content = json.loads((out / "panoptic.json").read_text())
    assert sorted(record["id"] for record in content["images"]) == [1, 2, 3, 4]
    assert sorted(record["file_name"] for record in content["annotations"]) == ["a-2.png", "a.png", "b.png", "c.png"]
    assert {a["image_id"] for a in content["annotations"]} == {1, 2, 3, 4}


def test_panoptic_writer_interrupted_save_takes_no_id_of_another_writer(tmp_path, monkeypatch):
    image, panoptic = Image.new("RGB", (32, 32)), Shapes(1, (32, 32))[0].panoptic
    sources = [tmp_path / name for name in ("a.png", "b.png")]
    for source in sources:
        image.save(source)
    out = tmp_path / "out"
    with PanopticWriter(out, TAXONOMY, {}, sources) as first, PanopticWriter(out, TAXONOMY, {}, sources) as second:
        with monkeypatch.context() as context:
            context.setattr("pix2seqd.panoptic.journal.write_atomically", Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                first.write(sources[0], image, panoptic)
        second.write(sources[1], image, panoptic)
    content = json.loads((out / "panoptic.json").read_text())
    assert {image["file_name"]: image["id"] for image in content["images"]} == {"a.png": 1, "b.png": 2}
