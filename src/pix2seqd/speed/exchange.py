"""`accelerate`: exchange the modules of a model for faster ones with the same parameters and results.

The method and its layers are plain PyTorch. Their faster versions are in the files of this folder. Each item gains
about 10 % or more of an encoder pass or a decoder step on some machine (docs/speed.md). `PIX2SEQD_PLAIN=1` switches
them off.
"""

import copy
from collections.abc import Callable, Collection
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch
from torch import nn

from pix2seqd.analog_bits import ExpectedBits, Quantizer
from pix2seqd.layers.norms import GroupNorm
from pix2seqd.layers.transformer import Attention
from pix2seqd.mask_decoder import BitHead
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.speed import cuda_graphs, fused_cpu, hardware, winograd
from pix2seqd.speed.attention import ProductAttention
from pix2seqd.speed.hardware import is_plain
from pix2seqd.speed.training_norm import TrainingGroupNorm

GPU_MAX_LOGITS = 2**28
"""Number of logits that a GPU computes at a time, enough to use all of it."""


class Item(NamedTuple):
    """One way to make a model faster."""

    applies: Callable[[torch.device, torch.dtype], bool]
    """Whether it works on a device at a precision."""
    apply: Callable[[Pix2SeqD], None]
    """Changes a model for inference, a copy, in place."""


def accelerate(
    model: Pix2SeqD, device: torch.device, dtype: torch.dtype, items: Collection[str] | None = None
) -> Pix2SeqD:
    """A faster copy of a model for inference; float32 weights are shared with the model.

    Args:
        model: on the device, in eval mode.
        device: the model's device.
        dtype: float32, or bfloat16 for use under autocast.
        items: names of `ITEMS` to use; None: all that apply, or none if `is_plain`.
    """
    model = copy.deepcopy(model, {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())})
    if items is None:
        items = () if is_plain() else available(device, dtype)
    for name in ITEMS:  # in this order: graphs record the modules of the others
        if name in items:
            ITEMS[name].apply(model)
    return model


def available(device: torch.device, dtype: torch.dtype) -> list[str]:
    """Names of the items that work on a device at a precision."""
    return [name for name, item in ITEMS.items() if item.applies(device, dtype)]


def accelerate_training(model: Pix2SeqD, device: torch.device, dtype: torch.dtype) -> None:
    """Make a model for training faster, in place; the parameters of the optimiser stay the same tensors."""
    if is_plain():
        return
    if hardware.runs_triton(device):
        _triton_norms(model)
    elif device.type == "cpu":
        hardware.keep_freed_memory()
        if dtype == torch.bfloat16:
            _exchange(model, GroupNorm, TrainingGroupNorm)


def _exchange(model: nn.Module, cls: type[nn.Module], faster: type[nn.Module]) -> None:
    """Turn every module of a class into one of a subclass with the same parameters."""
    for module in model.modules():
        if type(module) is cls:
            module.__class__ = faster


def _triton_norms(model: Pix2SeqD) -> None:
    from pix2seqd.speed.triton_norm import TritonGroupNorm

    _exchange(model, GroupNorm, TritonGroupNorm)


def _triton_bits(model: Pix2SeqD) -> None:
    from pix2seqd.speed.triton_norm import TritonExpectedBits

    _exchange(model, ExpectedBits, TritonExpectedBits)


def _fuse_bits(model: Pix2SeqD) -> None:
    _exchange(model, ExpectedBits, fused_cpu.FusedExpectedBits)
    _exchange(model, Quantizer, fused_cpu.FusedQuantizer)


def _use_winograd(model: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Conv2d and winograd.is_supported(child):
                setattr(parent, name, winograd.Winograd(child))


def cast_weights(model: nn.Module) -> None:
    """Cast once the weights that autocast would cast at every use; the results are the same, bit for bit."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            for name, parameter in module.named_parameters(recurse=False):
                cast = nn.Parameter(parameter.detach().to(torch.bfloat16), requires_grad=False)
                setattr(module, name, cast)


def _use_large_strips(model: Pix2SeqD) -> None:
    model.mask_decoder.max_logits = GPU_MAX_LOGITS


def _products_pay(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and dtype == torch.bfloat16 and not torch.cpu._is_amx_tile_supported()


def _compiled(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cpu" and fused_cpu.library() is not None


def _triton(device: torch.device, dtype: torch.dtype) -> bool:
    return hardware.runs_triton(device)


def _cuda(device: torch.device, dtype: torch.dtype) -> bool:
    return device.type == "cuda"


ITEMS = {
    "kept memory": Item(lambda device, dtype: device.type == "cpu", lambda model: hardware.keep_freed_memory()),
    "weights cast once": Item(lambda device, dtype: dtype == torch.bfloat16, cast_weights),
    "Winograd": Item(
        lambda device, dtype: device.type == "cpu" and dtype == torch.float32 and winograd.library() is not None,
        _use_winograd,
    ),
    "attention by products": Item(_products_pay, partial(_exchange, cls=Attention, faster=ProductAttention)),
    "fused norms": Item(_compiled, partial(_exchange, cls=GroupNorm, faster=fused_cpu.FusedGroupNorm)),
    "fused bits": Item(_compiled, _fuse_bits),
    "fused head": Item(_compiled, partial(_exchange, cls=BitHead, faster=fused_cpu.FusedBitHead)),
    "Triton norms": Item(_triton, _triton_norms),
    "Triton bits": Item(_triton, _triton_bits),
    "large strips": Item(_cuda, _use_large_strips),
    "CUDA graphs": Item(_cuda, cuda_graphs.record_graphs),
}
"""All items by name, in the order in which they are applied."""
