"""Two processes on the CPU, started once by torchrun, compared with one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pix2seqd import distributed
from pix2seqd.checkpoint import Checkpoint, from_pretrained, save_pretrained
from pix2seqd.config import DataConfig, InferConfig, ModelConfig, Recipe, TrainConfig
from pix2seqd.data import open_clips, open_dataset
from pix2seqd.data.loader import training_loader
from pix2seqd.data.synthetic.shapes import TAXONOMY
from pix2seqd.evaluation.clips import evaluate_video
from pix2seqd.evaluation.images import evaluate
from pix2seqd.evaluation.sweep import sweep
from pix2seqd.files import InputError
from pix2seqd.layers.norms import BatchNorm
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.segmenter import Segmenter
from pix2seqd.training.train import train

DATA = "shapes:5@1"
SCRIPT = """
import json, sys
from pathlib import Path
import torch
from pix2seqd.config import Recipe
from pix2seqd.data import open_clips, open_dataset
from pix2seqd.files import InputError
from pix2seqd.layers.norms import BatchNorm
from pix2seqd import distributed
from pix2seqd.training.ablate import ablate
from pix2seqd.evaluation.images import evaluate
from pix2seqd.evaluation.clips import evaluate_video
from pix2seqd.evaluation.sweep import sweep
from pix2seqd.training.train import train
from pix2seqd.segmenter import Segmenter
from pix2seqd.checkpoint import from_pretrained

recipe, out, data = Recipe.from_dict(json.loads(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
rank, count = distributed.rank(), distributed.world_size()
segmenter, size = Segmenter(from_pretrained(out / "model")), recipe.data.size
results = {
    "images": evaluate(segmenter, open_dataset(data, size)),
    "sweep": sweep(segmenter, open_dataset("shapes:3@1", size), {"steps": (1, 2)}),
    "clips": evaluate_video(segmenter, open_clips("shapes-clips:3x3", size, 3)),
}
(out / f"results-{rank}.json").write_text(json.dumps(results))

torch.manual_seed(0)
x = torch.randn(4, 3, 5, 5) * 2 + 1
norm = BatchNorm(3)
part = x[rank * 2 : rank * 2 + 2].clone().requires_grad_()
y = norm(part)
(y * x[rank * 2 : rank * 2 + 2].square()).sum().backward()
torch.save((y.detach(), part.grad, norm.running_mean, norm.running_var), out / f"norm-{rank}.pt")
train(recipe, out / "run")
short = recipe.replace(train=recipe.train.replace(steps=1, evaluate_images=0))
(out / f"table-{rank}.json").write_text(json.dumps(ablate("table4", short, out / "tables", seeds=1)))
"""


RECIPE = Recipe(
    model=ModelConfig.preset("tiny"),
    data=DataConfig(size=(32, 32)),
    train=TrainConfig(
        batch_size=4, steps=4, accumulate=2, precision="no", workers=0, save_every=2, log_every=2, evaluate_images=2
    ),
    infer=InferConfig(steps=1),
    train_data="shapes:6",
    eval_data="shapes:2@1",
)


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    """Folder with the results of two processes."""
    out = tmp_path_factory.mktemp("together")
    (out / "script.py").write_text(SCRIPT)
    model = Pix2SeqD(RECIPE.model)
    save_pretrained(Checkpoint(model, TAXONOMY, RECIPE.data, RECIPE.infer), out / "model")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [str(out / "script.py"), json.dumps(RECIPE.to_dict()), str(out), DATA]
    done = subprocess.run([*launcher, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[:6000]
    return out


def test_evaluate_two_processes_equal_one(together):
    segmenter, size = Segmenter(from_pretrained(together / "model")), RECIPE.data.size
    alone = {
        "images": evaluate(segmenter, open_dataset(DATA, size)),
        "sweep": sweep(segmenter, open_dataset("shapes:3@1", size), {"steps": (1, 2)}),
        "clips": evaluate_video(segmenter, open_clips("shapes-clips:3x3", size, 3)),
    }
    assert alone["images"]["all"]["images"] == 5 and alone["clips"]["frames"] == 9
    for rank in range(2):
        results = json.loads((together / f"results-{rank}.json").read_text())
        for scores in (results, alone):
            scores["clips"]["frames_per_second"] = None
        assert json.dumps(results, sort_keys=True) == json.dumps(json.loads(json.dumps(alone)), sort_keys=True)


def test_ablate_two_processes_agree(together):
    first, second = (json.loads((together / f"table-{rank}.json").read_text()) for rank in range(2))
    assert json.dumps(first) == json.dumps(second)
    assert [row["row"] for row in first] == ["l2", "cross_entropy"]


def test_train_two_processes_resume_in_one(together):
    longer = RECIPE.replace(train=RECIPE.train.replace(steps=4))
    assert json.loads((together / "run" / "state" / "latest.json").read_text())["step"] == 4
    stored = json.loads((together / "run" / "recipe.json").read_text())
    stored["train"]["steps"] = 6
    (together / "run" / "recipe.json").write_text(json.dumps(stored))
    train(longer.replace(train=longer.train.replace(steps=6)), together / "run", resume=True)
    assert json.loads((together / "run" / "state" / "latest.json").read_text())["step"] == 6


def test_training_loader_two_processes_share_the_same_images():
    data = open_dataset("shapes:6", RECIPE.data.size)
    one = [batch["images"] for batch in training_loader(data, RECIPE, 1)]
    two = [[batch["images"] for batch in training_loader(data, RECIPE, 1, rank, 2)] for rank in range(2)]
    for images, parts in zip(
        torch.cat(one).split(4), zip(torch.cat(two[0]).split(2), torch.cat(two[1]).split(2), strict=True), strict=True
    ):
        assert sorted(p.sum().item() for p in images) == sorted(p.sum().item() for part in parts for p in part)


def test_batch_norm_two_processes_share_statistics(together):
    torch.manual_seed(0)
    x = torch.randn(4, 3, 5, 5) * 2 + 1
    whole, norm = x.clone().requires_grad_(), BatchNorm(3)
    y = norm(whole)
    (y * x.square()).sum().backward()
    parts = [torch.load(together / f"norm-{rank}.pt") for rank in range(2)]
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), y.detach())
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), whole.grad)
    for part in parts:
        torch.testing.assert_close(part[2], norm.running_mean)
        torch.testing.assert_close(part[3], norm.running_var)


@pytest.mark.parametrize("given", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "many"}, {"WORLD_SIZE": "2", "RANK": "0"}])
def test_an_environment_that_is_not_of_torchrun_is_one_line(given, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"WORLD_SIZE is .*; unset it, or start with torchrun"):
        distributed.rank()
