"""The complete state of a training run on disk, so that a killed run resumes with the same results."""

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors.torch import save
from torch.optim.swa_utils import AveragedModel

from pix2seqd import distributed
from pix2seqd.checkpoint import read_tensors
from pix2seqd.files import TEMPORARY, InputError, read_json, sync_folder, write_atomically, write_json
from pix2seqd.pix2seq_d import Pix2SeqD

PATIENCE = 30
"""Seconds that a run waits for the workers of one that was killed: they keep its folder until they notice."""


@dataclass
class TrainState:
    """Everything that changes in training. Random numbers need no state: they are drawn from (seed, step)."""

    model: Pix2SeqD
    ema: AveragedModel
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0
    """Time that the steps have taken, with the evaluations between them; counted with `TrainConfig.minutes` only."""
    last: int = 0
    """The step at which the run ends, as planned so far."""


@contextmanager
def run_lock(out: Path) -> Iterator[None]:
    """Keep the folder of a run for this process; what a killed one left there half-written is removed.

    If another process has it, this is an `InputError` that names the process.
    """
    lock, owner = out / ".train.lock", out / ".train.pid"
    try:
        out.mkdir(parents=True, exist_ok=True)
        sync_folder(out.parent)
        held = FileLock(lock)
        try:
            held.acquire(timeout=0)
        except Timeout:
            held.acquire(timeout=PATIENCE if _has_ended(*_owner(owner)) else 0)
        with write_atomically(owner) as temporary:  # not where a link leads
            temporary.write_text(f"{os.getpid()} {socket.gethostname()}")
    except Timeout as error:
        number, host = _owner(owner)
        who = f"process {number} on {host}" if host else "another process"
        raise InputError(f"{out} is in use: {who} trains there; wait for it, or choose another --out") from error
    except OSError as error:
        raise InputError(f"cannot write to the folder {out} ({error.strerror}); choose another --out") from error
    try:
        _sweep(out)
        yield
    finally:
        held.release()


def _owner(path: Path) -> tuple[str, str]:
    """Number and machine of the process that had a folder last; empty: not known."""
    number, _, host = path.read_text(errors="replace").partition(" ") if path.is_file() else ("", "", "")
    return number, host


def _has_ended(number: str, host: str) -> bool:
    """Whether a process ran on this machine and runs no more."""
    if os.name != "posix" or host != socket.gethostname() or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)
    return False


def _sweep(out: Path) -> None:
    """Remove what a killed process left half-written."""
    latest = _latest(out / "state")
    for folder in (out / "state").glob("step-*"):
        if latest is None or folder != latest[1]:
            shutil.rmtree(folder, ignore_errors=True)
    for folder in (out, out / "model", out / "last", out / "state", *(out / "state").glob("step-*")):
        for part in folder.glob(TEMPORARY):
            with suppress(OSError):
                part.unlink()


def _latest(folder: Path) -> tuple[int, Path, float] | None:
    """Step, folder and `TrainState.seconds` of the last checkpoint; None: there is none yet."""
    path = folder / "latest.json"
    if not path.is_file():
        return None
    content = read_json(path)
    latest: dict[str, Any] = content if isinstance(content, dict) else {}
    step, seconds, name = latest.get("step"), latest.get("seconds", 0.0), str(latest.get("folder"))
    if (
        type(step) is not int
        or not 0 <= step < 2**31
        or not re.fullmatch(r"step-\d{1,10}", name, re.ASCII)
        or type(seconds) not in (int, float)
        or not 0 <= seconds < 2**31
    ):
        raise InputError(f"{path} names no checkpoint of a run; restore it, or start anew with another --out")
    return step, folder / name, float(seconds)


def save_state(state: TrainState, folder: Path) -> None:
    """Write `folder`/step-N, let `folder`/latest.json point to it, then delete older steps.

    All processes have the same state; the first one writes it.
    """
    if distributed.rank() > 0:
        return
    target = folder / f"step-{state.step:08d}"
    latest = _latest(folder)
    if latest and latest[:2] == (state.step, target):
        return  # saved already, and not to be touched again: it is the only one
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name, values in _tensors(state).items():
        with write_atomically(target / f"{name}.safetensors") as temporary:
            temporary.write_bytes(save(values))  # of `save_file` an error of the disk is none of the system
    for written in (folder, folder.parent):  # the names of the new folders, before anything points at them
        sync_folder(written)
    write_json(folder / "latest.json", {"step": state.step, "folder": target.name, "seconds": state.seconds})
    for old in folder.glob("step-*"):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)


def load_state(state: TrainState, folder: Path) -> None:
    """Restore the latest checkpoint in place; an `InputError` if it is damaged or belongs to another model.

    A run that was killed before its first checkpoint starts from the beginning.
    """
    latest = _latest(folder)
    if latest is None:
        return
    state.step, source, state.seconds = latest
    expected = _tensors(state)
    for name, tensors in expected.items():
        loaded = read_tensors(source / f"{name}.safetensors")
        if name == "optimizer":
            _load_optimizer(state, loaded, source)
            continue
        if set(loaded) != set(tensors) or any(loaded[k].shape != tensors[k].shape for k in loaded):
            raise InputError(f"{source} belongs to a model of another configuration")
        (state.model if name == "model" else state.ema.module).load_state_dict(loaded)
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


def _load_optimizer(state: TrainState, loaded: dict[str, torch.Tensor], source: Path) -> None:
    values: dict[int, dict[str, torch.Tensor]] = {}
    parameters = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    for name, value in loaded.items():
        index, _, key = name.partition(".")
        known = index.isdecimal() and len(index) < 10 and int(index) < len(parameters)
        if not known or value.shape not in ((), parameters[int(index)].shape):
            raise InputError(f"{source} belongs to a model of another configuration")
        values.setdefault(int(index), {})[key] = value
    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": values})
