"""FSDP2 on two CPU processes, started once by torchrun, against DDP on two."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import DistributedType
from accelerate.utils import FullyShardedDataParallelPlugin
from safetensors.torch import load_file

from pix2seqd.checkpoint import from_pretrained
from pix2seqd.config import ClipsConfig, DataConfig, InferConfig, ModelConfig, Recipe, TrainConfig
from pix2seqd.files import InputError
from pix2seqd.training.sharded import set_up
from pix2seqd.training.train import new_state, training_data

SCRIPT = """
import json, os, shutil, sys
from pathlib import Path
import torch
from accelerate import DistributedType, PartialState
from accelerate.state import AcceleratorState
from torch.distributed.tensor import DTensor
from pix2seqd.config import Recipe
from pix2seqd import distributed as processes
from pix2seqd.training.log import TrainLog
from pix2seqd.training.train import train

def fsdp(on):
    AcceleratorState._reset_state()
    os.environ["ACCELERATE_USE_FSDP"] = str(on)
    # accelerate heeds the option on GPUs only, so it has to take the CPUs for such.
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU if on else DistributedType.MULTI_CPU

def interrupted(log, state):
    step(log, state)
    shares = [p.to_local().numel() for p in state.model.parameters() if isinstance(p, DTensor)]
    (out / f"share-{rank}.json").write_text(json.dumps(sum(shares)))
    if state.step == 2 and rank == 1:
        os.kill(os.getpid(), 15)

def half(run):
    TrainLog.step = interrupted
    try:
        train(recipe, run)
    except KeyboardInterrupt:
        TrainLog.step = step
    assert json.loads((run / "state" / "latest.json").read_text())["step"] == 2

step = TrainLog.step
recipe, out = Recipe.from_dict(json.loads(sys.argv[1])), Path(sys.argv[2])
rank, count = processes.place()
fsdp(False)
train(recipe, out / "ddp")
half(out / "ddp-fsdp")
fsdp(True)
train(recipe, out / "fsdp")
train(recipe, out / "ddp-fsdp", resume=True)
half(out / "fsdp-fsdp")
if rank == 0:
    shutil.copytree(out / "fsdp-fsdp", out / "fsdp-ddp")
processes.wait()
train(recipe, out / "fsdp-fsdp", resume=True)
fsdp(False)
train(recipe, out / "fsdp-ddp", resume=True)
"""
RECIPE = Recipe(
    model=ModelConfig.preset("tiny").replace(decoder={"past_frames": 1}),
    data=DataConfig(size=(32, 32)),
    train=TrainConfig(
        batch_size=4,
        steps=3,
        accumulate=2,
        lr=1e-3,
        clip_norm=0.1,
        ema_decay=0.5,
        precision="no",
        workers=0,
        save_every=2,
        evaluate_images=1,
    ),
    clips=ClipsConfig(self_past_prob=0.5),
    infer=InferConfig(steps=1),
    train_data="shapes-clips:6x3",
    eval_data="shapes:1@1",
)


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    """What two processes left."""
    out = tmp_path_factory.mktemp("together")
    (out / "script.py").write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [str(out / "script.py"), json.dumps(RECIPE.to_dict()), str(out)]
    # What `accelerate launch` sets by default.
    environment = {**os.environ, "FSDP_VERSION": "2", "FSDP_CPU_RAM_EFFICIENT_LOADING": "true"}
    done = subprocess.run([*launcher, *arguments], capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[:6000]
    return out


def weights(run: Path) -> dict[str, torch.Tensor]:
    """All tensors of a finished run: state and published model."""
    files = [*(run / "state" / "step-00000003").iterdir(), run / "model" / "model.safetensors"]
    return {f"{file.stem}/{name}": value for file in files for name, value in load_file(file).items()}


@pytest.mark.parametrize("run", ["fsdp", "ddp-fsdp", "fsdp-ddp"])
def test_sharded_training_gives_the_weights_of_ddp(together, run):
    """Up to rounding: the norm of the gradients is summed in another order. Weights move by some 1e-3 a step."""
    expected, found = weights(together / "ddp"), weights(together / run)
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5, msg=name)
    start = new_state(RECIPE, training_data(RECIPE)).model.state_dict()
    for part in ("model", "ema"):
        moved = [(found[f"{part}/{name}"] - value).abs().max() for name, value in start.items()]
        assert sum(float(m) > 1e-4 for m in moved) > len(moved) / 2, "or there was nothing to compare"


def test_a_sharded_run_stopped_and_resumed_equals_an_undisturbed_one_bit_for_bit(together):
    whole, resumed = weights(together / "fsdp"), weights(together / "fsdp-fsdp")
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def test_each_process_keeps_its_share_of_the_weights(together):
    shares = [json.loads((together / f"share-{rank}.json").read_text()) for rank in range(2)]
    model = from_pretrained(together / "fsdp" / "model").model
    assert sum(shares) == sum(p.numel() for p in model.parameters())
    assert max(shares) < 0.6 * sum(shares)


@pytest.mark.parametrize("options", [{"fsdp_version": 1}, {"fsdp_version": 2, "auto_wrap_policy": "size_based_wrap"}])
def test_other_ways_to_shard_are_refused(options):
    plugin = FullyShardedDataParallelPlugin(**options)
    accelerator = SimpleNamespace(distributed_type=DistributedType.FSDP, state=SimpleNamespace(fsdp_plugin=plugin))
    with pytest.raises(InputError, match="--fsdp_version 2"):
        set_up(accelerator)  # pyright: ignore[reportArgumentType]
