"""Attention in bfloat16 on processors with AMX, in C (`amx.c`): scores of 32 queries at a time.

Its softmax costs less than that of PyTorch's fused kernel (docs/speed.md).
"""

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from pix2seqd import native

_ARGUMENTS = {"amx": "", "attention": "pppp" + "lllll" + "llllll" + "fi"}


def suits(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether `attention` takes these, and there is one."""
    plain = all(x.dtype == torch.bfloat16 and native.suits(x) and x.numel() > 0 for x in (q, k, v))
    return plain and q.shape[-1] % 32 == 0 and library() is not None


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / √head_dim) v of bfloat16; `[b, heads, n, head_dim]` and twice `[b, heads, m, head_dim]`.

    Raises:
        ValueError: these shapes do not fit, or the heads' dimension is no multiple of 32.
    """
    b, heads, n, d = q.shape
    m = k.shape[2]
    if not (k.shape == v.shape == (b, heads, m, d)) or d % 32:
        raise ValueError(f"queries {tuple(q.shape)}, keys {tuple(k.shape)}, values {tuple(v.shape)}")
    q, k, v = (_rows(x) for x in (q, k, v))
    y = q.new_empty(b, n, heads, d)
    pointers = [x.data_ptr() for x in (q, k, v, y)]
    strides = [stride for x in (q, k, v) for stride in x.stride()[:2]]
    functions = library()
    assert functions is not None
    functions.attention(*pointers, b, heads, n, m, d, *strides, d**-0.5, torch.get_num_threads())
    return y.transpose(1, 2)


def _rows(x: Tensor) -> Tensor:
    """`[b, heads, n, d]` → `[b, n, heads, d]`; the last two lie together."""
    x = x.transpose(1, 2)
    return x if x.stride()[2:] == (x.shape[-1], 1) else x.contiguous()


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None: the processor or the system has no AMX, or they cannot be compiled here."""
    if not torch.cpu._is_amx_tile_supported():
        return None
    functions = native.load(Path(__file__).with_suffix(".c"), _ARGUMENTS)
    return functions if functions is not None and functions.amx() else None
