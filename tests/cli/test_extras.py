"""What works without the packages of the extras, and what says which extra it needs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_segmenter import draw

from pix2seqd.checkpoint import Checkpoint, save_pretrained
from pix2seqd.config import DataConfig, InferConfig, ModelConfig
from pix2seqd.data.shards import write_shards
from pix2seqd.data.synthetic.shapes import TAXONOMY, Shapes
from pix2seqd.pix2seq_d import Pix2SeqD

EXTRAS = ("accelerate", "tensorboard", "matplotlib", "webdataset")
COMMANDS = f"""
import contextlib, io, json, sys
sys.modules.update(dict.fromkeys({EXTRAS}))  # importing them fails
from pix2seqd.cli.main import main

found = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["pix2seqd", *arguments.split()]
    out, errors = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            main()
        except SystemExit as end:
            errors.flush()
            found.append((end.code or 0, errors.buffer.getvalue().decode()))
print(json.dumps(found))
"""
TRAINING = 'training needs packages that are not installed (accelerate, tensorboard); pip install "pix2seqd[train]"'


@pytest.fixture
def place(tmp_path) -> Path:
    """A folder with a checkpoint, an image and shards."""
    config = ModelConfig.preset("tiny")
    model = Checkpoint(Pix2SeqD(config), TAXONOMY, DataConfig(size=(32, 32)), InferConfig(steps=1))
    save_pretrained(model, tmp_path / "model")
    draw(tmp_path / "image.png")
    write_shards(TAXONOMY, Shapes(2, (32, 32)), tmp_path / "shards", megabytes=1)
    return tmp_path


def bare(place: Path, *commands: str) -> list[tuple[int, str]]:
    """Exit code and stderr of commands in a process for which no package of an extra is installed."""
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_commands_without_extras(place: Path):
    commands = (
        "segment image.png --model model --out results",
        "evaluate model --data shapes:1@1",
        "evaluate model --data shapes-clips:1x2",
        "train shapes --show",
        "figures shapes:1",
        "shard shapes:1 written",
    )
    for command, (code, errors) in zip(commands, bare(place, *commands), strict=True):
        assert code == 0, (command, errors)
    assert (place / "results" / "panoptic.json").is_file() and (place / "results" / "overlay" / "image.png").is_file()


def test_commands_that_need_an_extra_name_it(place: Path):
    needs = {
        "train shapes --smoke": TRAINING,
        "distill model --data shapes:2 --out few": TRAINING,
        "ablate table4 shapes --smoke": '(accelerate, tensorboard, matplotlib); pip install "pix2seqd[train]"',
        "sweep model --data shapes:1 --steps 1": '(matplotlib); pip install "pix2seqd[train]"',
        "evaluate model --data shards:shards": '(webdataset); pip install "pix2seqd[shards]"',
    }
    for (command, says), (code, errors) in zip(needs.items(), bare(place, *needs), strict=True):
        assert code == 2 and says in errors and len(errors.strip().splitlines()) == 1, (command, errors)
        assert errors.startswith("pix2seqd: "), command
    assert not (place / "runs").exists() and not (place / "few").exists()


def test_training_imports_no_package_of_commands_and_videos():
    modules = "pix2seqd.training.train, pix2seqd.training.few_steps, pix2seqd.training.recipes"
    code = f"import sys; import {modules}; print([name for name in ('cyclopts', 'av') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
