"""Several processes (`torchrun … -m pix2seqd …`): who does what, and how their counts come together exactly."""

import atexit
import os
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce

T = TypeVar("T")


def on_cpus() -> bool:
    """Whether several processes compute on CPUs, which accelerate has to be told."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.accelerator.is_available()


def place() -> tuple[int, int]:
    """Number of this process, 0 the one that speaks for all, and how many there are."""
    # Shares of the work may take different times, and nobody is to give up waiting for the others.
    state = PartialState(cpu=on_cpus(), timeout=timedelta(days=30))
    return state.process_index, state.num_processes


@atexit.register
def _leave() -> None:
    """End the threads of torch.distributed before the interpreter ends: now and then one would abort the process."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def wait() -> None:
    """Until all processes are here."""
    PartialState().wait_for_everyone()


def total(counts: np.ndarray) -> np.ndarray:
    """Sum of all processes' counts, the same everywhere; integers, so that the order of adding does not matter."""
    state = PartialState()
    if state.num_processes == 1:
        return counts
    return reduce(torch.from_numpy(counts).to(state.device), "sum").cpu().numpy()  # pyright: ignore


def gather(value: T) -> list[T]:
    """The values of all processes, in the order of their numbers, the same everywhere."""
    return gather_object([value])
