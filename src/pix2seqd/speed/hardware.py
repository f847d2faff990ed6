"""What the machine can do, and may: bfloat16, Triton, and memory that stays with the process."""

import ctypes
import os
import sys
from importlib.util import find_spec

import torch

_TRITON = find_spec("triton") is not None
"""PyTorch for CUDA brings Triton on Linux; without it the plain operations are used."""


def is_plain() -> bool:
    """Whether the environment asks for plain PyTorch."""
    return os.environ.get("PIX2SEQD_PLAIN", "0") not in ("", "0")


def runs_triton(device: torch.device) -> bool:
    """Whether the kernels of `pix2seqd.speed.triton_norm` run on a device."""
    return device.type == "cuda" and _TRITON


def native_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices in bfloat16 faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def keep_freed_memory(keep: bool = True) -> None:
    """Let glibc keep freed memory for the next tensor; False restores the default.

    By default every tensor above 32 MB is returned to the system, which clears its pages again at each layer. On a mask
    of 512 × 512 this takes longer than the arithmetic between the convolutions (docs/notebook/speed-cpu.md).
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc only
        if mallopt is not None:
            trim_threshold, mmap_max = -1, -4
            mallopt(mmap_max, 0 if keep else 2**16)
            mallopt(trim_threshold, 2**31 - 1 if keep else 2**17)


def give_back_memory() -> None:
    """Return all freed memory to the system once, also where `keep_freed_memory` keeps it.

    Windows of a large image leave holes between what stays, into which the maps of the whole image do not fit.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
        if trim is not None:
            trim(0)
