"""Several processes (`torchrun ... -m pix2seqd ...`): rank, number, and exact sums of their counts."""

import atexit
import os
from datetime import timedelta
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist

from pix2seqd.files import InputError

T = TypeVar("T")


def rank() -> int:
    """Number of this process, from 0; process 0 writes and prints for all."""
    return dist.get_rank() if _joined() else 0


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if _joined() else 1


def barrier() -> None:
    """Wait until all processes call this function."""
    if _joined():
        dist.barrier()


def all_reduce(counts: np.ndarray) -> np.ndarray:
    """Sum of all processes' counts, the same in each; integers, so that the order of addition does not matter."""
    if not _joined():
        return counts
    total = torch.tensor(counts, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(total)
    return total.cpu().numpy()


def mean(value: float) -> float:
    """The mean of all processes' values to a thousandth, the same in each."""
    return float(all_reduce(np.array([round(1000 * value)]))[0]) / world_size() / 1000


def all_gather(value: T) -> list[T]:
    """The values of all processes in the order of their ranks, the same in each."""
    values = [value] * world_size()
    if _joined():
        dist.all_gather_object(values, value)
    return values


def _joined() -> bool:
    """Whether there are other processes. The first call joins them and gives each process its own GPU.

    Raises:
        InputError: the environment says that there are, but not how to reach them.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return False
    if not dist.is_initialized():
        try:
            gpu = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else None
            if gpu is not None:
                torch.cuda.set_device(gpu)
            # The processes' shares may take different times, so waiting for the others must not time out.
            dist.init_process_group("gloo" if gpu is None else "nccl", timeout=timedelta(days=30), device_id=gpu)
        except (KeyError, ValueError) as error:  # some machines set a part of it for all that runs there
            raise InputError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but the rest of what torchrun sets is not ({error}); "
                "unset it, or start with torchrun"
            ) from error
    return True


@atexit.register
def _leave() -> None:
    """Stop the threads of torch.distributed before the interpreter ends; otherwise they sometimes abort the process."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
