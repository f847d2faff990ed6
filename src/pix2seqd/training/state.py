"""The complete state of a training run on disk, so that a killed run resumes with the same results."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel

from pix2seqd import distributed
from pix2seqd.checkpoint import read_tensors
from pix2seqd.files import InputError, read_json, write_atomically, write_json
from pix2seqd.pix2seq_d import Pix2SeqD


@dataclass
class TrainState:
    """Everything that changes in training. Random numbers need no state: they are drawn from (seed, step)."""

    model: Pix2SeqD
    ema: AveragedModel
    optimizer: torch.optim.Optimizer
    step: int = 0


def save_state(state: TrainState, folder: Path) -> None:
    """Write `folder`/step-N, let `folder`/latest.json point to it, then delete older steps.

    All processes have the same state; the first one writes it.
    """
    if distributed.rank() > 0:
        return
    target = folder / f"step-{state.step:08d}"
    latest = {"step": state.step, "folder": target.name}
    if (folder / "latest.json").is_file() and read_json(folder / "latest.json") == latest:
        return  # saved already; it is the only copy, so it is not written again
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name, values in _tensors(state).items():
        with write_atomically(target / f"{name}.safetensors") as temporary:
            save_file(values, temporary)
    write_json(folder / "latest.json", latest)
    for old in folder.glob("step-*"):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)


def load_state(state: TrainState, folder: Path) -> None:
    """Restore the latest checkpoint in place.

    A run that was killed before its first checkpoint starts from the beginning.

    Raises:
        InputError: the state is damaged or belongs to another model.
    """
    if not (folder / "latest.json").is_file():
        return
    latest = read_json(folder / "latest.json")
    source = folder / latest["folder"]
    expected = _tensors(state)
    for name, tensors in expected.items():
        loaded = read_tensors(source / f"{name}.safetensors")
        if name == "optimizer":
            _load_optimizer(state, loaded)
            continue
        if set(loaded) != set(tensors) or any(loaded[k].shape != tensors[k].shape for k in loaded):
            raise InputError(f"{source} belongs to a model of another configuration")
        (state.model if name == "model" else state.ema.module).load_state_dict(loaded)
    state.step = int(latest["step"])
    state.ema.n_averaged.fill_(max(state.step, 1))


def _tensors(state: TrainState) -> dict[str, dict[str, torch.Tensor]]:
    optimizer = {
        f"{index}.{key}": value
        for index, values in state.optimizer.state_dict()["state"].items()
        for key, value in values.items()
    }
    groups = {"model": state.model.state_dict(), "ema": state.ema.module.state_dict(), "optimizer": optimizer}
    return {
        name: {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        for name, tensors in groups.items()
    }


def _load_optimizer(state: TrainState, loaded: dict[str, torch.Tensor]) -> None:
    values: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in loaded.items():
        index, key = name.split(".", 1)
        values.setdefault(int(index), {})[key] = value
    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": values})
