"""3 × 3 convolutions with a quarter of the multiplications (Winograd 1980; Lavin & Gray 2016), for float32 on CPUs.

Each tile of 6 × 6 pixels gives 4 × 4 results, F(4 × 4, 3 × 3). This is the transposed form of a product of
polynomials: the kernel is evaluated at five points and infinity, and pixels and products are transformed to match
(`winograd.c`).
"""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pix2seqd.speed import compile_c

_A, _B = 0.75, 1.5
"""The points are 0, ±A, ±B, as in `winograd.c`: rounding errors are smaller than with 0, ±1 and ±2
(docs/notebook/speed-cpu.md)."""

_MIN_TILES = 4
"""With fewer tiles the direct convolution is faster."""


def _kernel_transform() -> Tensor:
    """Matrix `[6, 3]` that evaluates a kernel at the points, with the factors that `winograd.c` omits."""
    a, b = _A**2, _B**2
    factors = np.array([1 / (a * b), *[1 / (2 * a * (a - b))] * 2, *[1 / (2 * b * (b - a))] * 2, 1.0])
    points = np.concatenate([np.vander([0, _A, -_A, _B, -_B], 3, increasing=True), np.eye(3)[-1:]])
    return torch.from_numpy(points * factors[:, None])


class Winograd(nn.Conv2d):
    """A convolution whose kernel is transformed once, into four times as many numbers.

    Args of the constructor:
        convolution: one that `is_supported`. It is not changed; weight and bias are shared.
    """

    kernel: Tensor

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__(convolution.in_channels, convolution.out_channels, 3, padding=1, device="meta")
        self.weight, self.bias = convolution.weight, convolution.bias
        transform, block = _kernel_transform(), _functions().winograd_block()
        kernel = torch.einsum("pi,qj,ocij->pqoc", transform, transform, self.weight.detach().double())
        kernel = kernel.float().reshape(-1, block, self.in_channels).transpose(1, 2)  # 4-D could become channels last
        self.register_buffer("kernel", kernel.contiguous(), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """`[b, in, h, w]` → `[b, out, h, w]`; by Winograd's method, channels last, for float32 without gradients."""
        b, c, height, width = input.shape
        small = -(-height // 4) * -(-width // 4) < _MIN_TILES
        plain = input.dtype == self.kernel.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if small or c != self.in_channels or not plain or not compile_c.is_supported(input):
            return super().forward(input)
        x = input.contiguous(memory_format=torch.channels_last)
        y = x.new_empty(b, height, width, self.out_channels).permute(0, 3, 1, 2)
        bias = x.new_zeros(self.out_channels) if self.bias is None else self.bias
        pointers = [tensor.data_ptr() for tensor in (x, self.kernel, bias, y)]
        _functions().winograd(*pointers, b, height, width, c, self.out_channels, torch.get_num_threads())
        return y


def is_supported(convolution: nn.Conv2d) -> bool:
    """Whether `Winograd` is compiled here and can replace the convolution."""
    c, functions = convolution, library()
    plain = c.kernel_size == (3, 3) and c.stride == c.padding == c.dilation == (1, 1) and c.groups == 1
    if functions is None or not plain or c.padding_mode != "zeros":
        return False
    return c.in_channels % functions.winograd_block() == c.out_channels % functions.winograd_block() == 0


def _functions() -> ctypes.CDLL:
    functions = library()
    assert functions is not None
    return functions


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None if they cannot be compiled here."""
    return compile_c.load(Path(__file__).with_suffix(".c"), {"winograd": "ppppllllli", "winograd_block": ""})
