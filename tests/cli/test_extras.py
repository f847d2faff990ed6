"""What works without the packages of the extras, and what says which extra it needs."""

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
COMMAND = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS}))  # importing them fails
from pix2seqd.cli.main import main
main()
"""
TRAINING = 'training needs packages that are not installed (accelerate, tensorboard); pip install "pix2seqd[train]"'


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a checkpoint, an image and shards."""
    place = tmp_path_factory.mktemp("bare")
    config = ModelConfig.preset("tiny")
    model = Checkpoint(Pix2SeqD(config), TAXONOMY, DataConfig(size=(32, 32)), InferConfig(steps=1))
    save_pretrained(model, place / "model")
    draw(place / "image.png")
    write_shards(TAXONOMY, Shapes(2, (32, 32)), place / "shards", megabytes=1)
    return place


def bare(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where no package of an extra is installed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments],
        cwd=place,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        "evaluate model --data shapes:1@1",
        "evaluate model --data shapes-clips:1x2",
        "train shapes --show",
        "figures shapes:1",
        "shard shapes:1 written",
    ],
)
def test_command_without_extras(place: Path, arguments: str):
    done = bare(place, *arguments.split())
    assert done.returncode == 0, done.stderr


def test_segment_without_extras_writes_results(place: Path):
    assert bare(place, "segment", "image.png", "--model", "model", "--out", "results").returncode == 0
    assert (place / "results" / "panoptic.json").is_file() and (place / "results" / "overlay" / "image.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("train shapes --smoke", TRAINING),
        ("distill model --data shapes:2 --out few", TRAINING),
        ("ablate table4 shapes --smoke", '(accelerate, tensorboard, matplotlib); pip install "pix2seqd[train]"'),
        ("sweep model --data shapes:1 --steps 1", '(matplotlib); pip install "pix2seqd[train]"'),
        ("evaluate model --data shards:shards", '(webdataset); pip install "pix2seqd[shards]"'),
    ],
)
def test_command_that_needs_an_extra_names_it(place: Path, arguments: str, says: str):
    done = bare(place, *arguments.split())
    assert done.returncode == 2 and says in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("pix2seqd: ") and not (place / "runs").exists() and not (place / "few").exists()


@pytest.mark.parametrize(
    "module", ["pix2seqd.training.train", "pix2seqd.training.few_steps", "pix2seqd.training.recipes"]
)
def test_training_imports_no_package_of_commands_and_videos(module: str):
    code = f"import sys; import {module}; print([name for name in ('cyclopts', 'av') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
