"""FSDP2: the weights, their gradients and what AdamW remembers are shared out among the processes (`--use_fsdp`).

The EMA and all that is on disk stay whole, so that evaluation and checkpoints are those of one process.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from pix2seqd.files import InputError


def set_up(accelerator: Accelerator) -> None:
    """Make accelerate's settings suit us where FSDP was asked for.

    Raises:
        InputError: version 1, or a model in units, whose weights are missing where its parts are called by themselves.
    """
    plugin = accelerator.state.fsdp_plugin if accelerator.distributed_type == DistributedType.FSDP else None
    if plugin is None:
        return
    if plugin.fsdp_version != 2 or plugin.auto_wrap_policy is not None:
        raise InputError("training takes FSDP of version 2, one unit: give --fsdp_version 2 and no auto_wrap_policy")
    plugin.mixed_precision_policy = None  # autocast as under DDP: weights and sums of gradients stay float32
    plugin.cpu_ram_efficient_loading = False  # all processes have the weights; accelerate would fail at the buffers


def prepare(accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, Any]:
    """Model and optimiser for the processes there are.

    FSDP2 shards the model in place. What the optimiser remembers goes along, which accelerate leaves behind.
    """
    before = list(model.parameters())
    prepared = accelerator.prepare(model, optimizer)
    for old, new in zip(before, model.parameters(), strict=True):
        if isinstance(new, DTensor) and old in optimizer.state:
            optimizer.state[new] = {
                key: distribute_tensor(value, new.device_mesh, new.placements) if value.shape == new.shape else value
                for key, value in optimizer.state.pop(old).items()
            }
    return prepared


def is_sharded(model: nn.Module) -> bool:
    """Whether this process has only a part of the weights."""
    return isinstance(model, FSDPModule)


def gathered(value: Tensor) -> Tensor:
    """The whole tensor; for a sharded one, all processes must ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """Inside, every process has all weights of the model; for a sharded one, all must enter."""
    if isinstance(model, FSDPModule):
        model.unshard()
    yield
    if isinstance(model, FSDPModule):
        model.reshard()
