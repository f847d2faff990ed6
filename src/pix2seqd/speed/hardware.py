"""What a machine is good at, and how to use it: bfloat16 where it is native, memory that stays with the process."""

import copy
import ctypes
import sys
from importlib.util import find_spec
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)

_TRITON = find_spec("triton") is not None
"""PyTorch for CUDA brings it on Linux; without it the plain operations serve."""


def runs_triton(device: torch.device) -> bool:
    """Whether the kernels of `pix2seqd.speed.triton_norm` run there."""
    return device.type == "cuda" and _TRITON


def native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices in bfloat16 faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def in_bfloat16(model: M) -> M:
    """A copy for inference under autocast: weights that autocast would cast at every use are cast once.

    These are those of convolutions and linear layers; the results are the same bits.
    """
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(torch.bfloat16)
    return model


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the next tensor, for the rest of the process.

    Else every tensor above 32 MB goes back to the system and its pages are cleared again at each layer: on a mask of
    512 × 512 that costs more than the arithmetic of the layers between the convolutions (docs/speed.md).
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc only
        if mallopt is not None:
            trim_threshold, mmap_max = -1, -4
            mallopt(mmap_max, 0)
            mallopt(trim_threshold, 2**31 - 1)
