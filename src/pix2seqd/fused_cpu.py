"""What lies between the products on CPUs, in C (`fused_cpu.c`).

PyTorch's own operations pass over whole maps one after the other, and their exponential, exact to the last bit, is
what most of their time goes into. Where nothing can be compiled, they serve.
"""

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from pix2seqd import native

_ARGUMENTS = {"group_norm": "ppllllpplfiii", "softmax": "plli", "gelu": "plii", "expected_bits": "ppllifii"}


def suits(x: Tensor) -> bool:
    """Whether the functions below take a tensor: a real one (not traced) on a CPU, without gradients, if compiled."""
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and library() is not None
    )


def group_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> Tensor:
    """`[b, c, h, w]` with groups of channels normalised, times a weight, plus a bias; then SiLU if `silu`.

    `weight` and `bias` are `[b, c]`, or `[1, c]` for all examples. The result lies channels last.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.empty_like(x)
    weight, bias = weight.float().contiguous(), bias.float().contiguous()
    b, c, h, w = x.shape
    apart = c if len(weight) > 1 else 0
    affine = weight.data_ptr(), bias.data_ptr(), apart
    _call("group_norm", x.data_ptr(), y.data_ptr(), b, h * w, c, groups, *affine, eps, silu, _half(x))
    return y


def softmax_(x: Tensor) -> Tensor:
    """Softmax over the last dimension of bfloat16, in place if that is contiguous."""
    assert _half(x)
    x = x.contiguous()
    _call("softmax", x.data_ptr(), x.numel() // x.shape[-1], x.shape[-1])
    return x


def gelu_(x: Tensor) -> Tensor:
    """GELU, in place if `x` is contiguous."""
    x = x.contiguous()
    _call("gelu", x.data_ptr(), x.numel(), _half(x))
    return x


def expected_bits(logits: Tensor, scale: float) -> Tensor:
    """As `analog_bits.expected_bits`; the probabilities never exist in memory."""
    b, values, h, w = logits.shape
    flat, n = logits.movedim(1, -1).reshape(-1, values), values.bit_length() - 1
    flat = flat if flat.stride(1) == 1 else flat.contiguous()
    bits = torch.empty(len(flat), n)
    _call("expected_bits", flat.data_ptr(), bits.data_ptr(), len(flat), flat.stride(0), n, scale, _half(flat))
    return bits.view(b, h, w, n).movedim(-1, 1)


def _call(name: str, *arguments: float) -> None:
    getattr(library(), name)(*arguments, torch.get_num_threads())


def _half(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None: they cannot be compiled here."""
    return native.load(Path(__file__).with_suffix(".c"), _ARGUMENTS)
