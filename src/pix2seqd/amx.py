"""Products of bfloat16 on processors with AMX, in C (`amx.c`): convolutions, linear layers and attention.

PyTorch's own bring each weight into the order of the tiles at every use, and take twice as long (docs/speed.md).
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from pix2seqd import native

M = TypeVar("M", bound=nn.Module)

_ARGUMENTS = {
    "convolution": "ppppllllli",
    "linear": "pppplll" + "i",
    "attention": "pppp" + "lllll" + "llllll" + "fi",
    "amx": "",
}


class Linear(nn.Linear):
    """A linear layer's results, its weight packed once.

    Args of the constructor:
        layer: of bfloat16, inputs and outputs in multiples of 32; it stays as it is, and weight and bias are shared.
    """

    packed: Tensor
    float_bias: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, device="meta")
        _share(self, layer)

    def forward(self, input: Tensor) -> Tensor:
        """`[..., in]` → `[..., out]`, bfloat16 under autocast without gradients."""
        if not _suits(input) or input.shape[-1] != self.in_features:
            return super().forward(input)
        return _linear(input.bfloat16().contiguous(), self)


class Conv2d(nn.Conv2d):
    """A convolution's results, its kernel packed once: 1 × 1 or 3 × 3, of stride 1, with zeros around.

    Args of the constructor:
        layer: of bfloat16, channels in multiples of 32; it stays as it is, and weight and bias are shared.
    """

    packed: Tensor
    float_bias: Tensor

    def __init__(self, layer: nn.Conv2d) -> None:
        (size, _), (padding, _) = layer.kernel_size, layer.padding
        super().__init__(layer.in_channels, layer.out_channels, size, padding=int(padding), device="meta")
        _share(self, layer)

    def forward(self, input: Tensor) -> Tensor:
        """`[b, in, h, w]` → `[b, out, h, w]`, bfloat16, channels last under autocast without gradients."""
        if not _suits(input) or input.shape[1] != self.in_channels:
            return super().forward(input)
        x = input.bfloat16().contiguous(memory_format=torch.channels_last).movedim(1, -1)
        if self.kernel_size == (1, 1):
            return _linear(x, self).movedim(-1, 1)
        y = x.new_empty(*x.shape[:-1], self.out_channels)
        _call("convolution", x, self.packed, self.float_bias, y, *x.shape, self.out_channels)
        return y.movedim(-1, 1)


def _share(new: Linear | Conv2d, old: nn.Linear | nn.Conv2d) -> None:
    new.weight, new.bias = old.weight, old.bias  # type: ignore[assignment]
    weight = old.weight.detach().bfloat16().flatten(2) if old.weight.dim() > 2 else old.weight.detach()[..., None]
    out, inputs, places = weight.shape
    # Blocks of 32 outputs; in them of 32 inputs; in them places; in them two tiles of 16 outputs, inputs by twos.
    tiles = weight.reshape(out // 32, 2, 16, inputs // 32, 16, 2, places).permute(0, 3, 6, 1, 4, 2, 5)
    bias = weight.new_zeros(out) if old.bias is None else old.bias.detach()
    new.register_buffer("packed", tiles.contiguous().flatten(), persistent=False)
    new.register_buffer("float_bias", bias.float(), persistent=False)


def _linear(x: Tensor, layer: Linear | Conv2d) -> Tensor:
    y = x.new_empty(*x.shape[:-1], len(layer.float_bias))
    _call("linear", x, layer.packed, layer.float_bias, y, x.shape[:-1].numel(), x.shape[-1], y.shape[-1])
    return y


def attends(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether `attention` takes these."""
    plain = all(x.dtype == torch.bfloat16 and native.suits(x) and x.numel() > 0 for x in (q, k, v))
    return plain and library() is not None and q.shape[-1] % 32 == 0


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / √head_dim) v, bfloat16; `[b, heads, n, head_dim]` and twice `[b, heads, m, head_dim]`."""
    b, heads, n, d = q.shape
    q, k, v = (_rows(x) for x in (q, k, v))
    y = q.new_empty(b, n, heads, d)
    strides = [stride for x in (q, k, v) for stride in x.stride()[:2]]
    _call("attention", q, k, v, y, b, heads, n, k.shape[1], d, *strides, d**-0.5)
    return y.transpose(1, 2)


def _rows(x: Tensor) -> Tensor:
    """`[b, heads, n, d]` → `[b, n, heads, d]`; the last two lie together."""
    x = x.transpose(1, 2)
    return x if x.stride()[2:] == (x.shape[-1], 1) else x.contiguous()


def with_amx(model: M) -> M:
    """A copy for inference under autocast of bfloat16; what is not packed is shared."""
    return native.with_layers(model, _layer_for)


def _layer_for(layer: nn.Module) -> nn.Module | None:
    if library() is None or not isinstance(layer, nn.Linear | nn.Conv2d):
        return None
    if layer.weight.dtype != torch.bfloat16 or layer.weight.shape[0] % 32 or layer.weight.shape[1] % 32:
        return None
    if isinstance(layer, nn.Linear):
        return Linear(layer)
    (size, other), plain = layer.kernel_size, layer.padding_mode == "zeros" and layer.groups == 1
    plain = plain and size == other and size in (1, 3) and layer.padding == (size // 2, size // 2)
    return Conv2d(layer) if plain and layer.stride == layer.dilation == (1, 1) else None


def _suits(input: Tensor) -> bool:
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return (autocast or input.dtype == torch.bfloat16) and native.suits(input) and input.numel() > 0


def _call(name: str, *arguments: Tensor | float) -> None:
    addresses = [x.data_ptr() if isinstance(x, Tensor) else x for x in arguments]
    getattr(library(), name)(*addresses, torch.get_num_threads())


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None: the processor or the system has no AMX, or they cannot be compiled here."""
    if not torch.cpu._is_amx_tile_supported():
        return None
    functions = native.load(Path(__file__).with_suffix(".c"), _ARGUMENTS)
    return functions if functions is not None and functions.amx() else None
