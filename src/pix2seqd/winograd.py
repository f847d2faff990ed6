"""3 × 3 convolutions with a quarter of the multiplications (Winograd 1980; Lavin & Gray 2016), for float32 on CPUs.

Of each tile of 6 × 6 pixels 4 × 4 results are computed. Results are the values of a product of polynomials: evaluating
pixels and kernel at five points and infinity turns a tile's convolution into one product per value. All of it is matrix
products, whose bits do not depend on the other pictures of a batch.
"""

import copy
from itertools import chain
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)

_POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
"""Rounding errors are twice those of a direct convolution; with the usual 0, ±1 and ±2 they are four times as large."""

_CHANNELS, _TILES = 64, 16
"""With fewer channels or tiles the direct convolution is faster."""

_STRIP = 256
"""Tiles at a time: what is computed of them stays in a processor's cache."""


def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """What pixels `[6, 6]`, kernel `[6, 3]` and products `[4, 6]` are multiplied with, along rows and columns."""

    def values(coefficients: int) -> np.ndarray:
        at_infinity = np.eye(coefficients)[-1:]
        return np.concatenate([np.vander(_POINTS, coefficients, increasing=True), at_infinity])

    pixels, kernel, products = np.linalg.inv(values(6)).T, values(3), values(4).T
    return torch.tensor(pixels).float(), torch.tensor(kernel).float(), torch.tensor(products).float()


_PIXELS, _KERNEL, _PRODUCTS = _matrices()


class Winograd(nn.Conv2d):
    """A convolution's results, its kernel made ready once: four times as many numbers.

    Args of the constructor:
        convolution: 3 × 3, padding 1; it stays as it is, and weight and bias are shared.
    """

    kernel: Tensor

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__(convolution.in_channels, convolution.out_channels, 3, padding=1, device="meta")
        self.weight, self.bias = convolution.weight, convolution.bias
        weight = convolution.weight.detach().permute(2, 3, 1, 0)  # [3, 3, in, out]
        kernel = _both_ways(_KERNEL, weight.reshape(3, 3, -1)).view(36, *weight.shape[2:])
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """`[b, in, h, w]` → `[b, out, h, w]`, channels last."""
        height, width = input.shape[-2:]
        down, across = -(-height // 4), -(-width // 4)  # tiles
        if down * across < _TILES:
            return super().forward(input)
        result = input.new_empty(len(input), down, 4, across, 4, self.out_channels)
        rows = max(_STRIP // across, 1)
        # One strip's pixels with their neighbours: a whole picture between zeros would cost two passes over memory.
        pixels = input.new_zeros(4 * min(rows, down) + 2, 4 * across + 2, self.in_channels)
        bias = 0 if self.bias is None else self.bias
        for picture, out in zip(input.permute(0, 2, 3, 1), result, strict=True):
            for top, strip in zip(range(0, down, rows), out.split(rows), strict=True):
                above = int(top == 0)  # row of zeros
                known = picture[4 * top - 1 + above : 4 * (top + len(strip)) + 1]
                pixels[:above] = 0
                pixels[above : above + len(known), 1 : width + 1] = known
                pixels[above + len(known) :] = 0
                torch.add(self._strip(pixels[: 4 * len(strip) + 2], len(strip), across), bias, out=strip)
        result = result.view(len(input), 4 * down, 4 * across, -1)[:, :height, :width].permute(0, 3, 1, 2)
        return result.contiguous(memory_format=torch.channels_last)

    def _strip(self, pixels: Tensor, down: int, across: int) -> Tensor:
        """`[4 · down + 2, 4 · across + 2, in]` → `[down, 4, across, 4, out]`."""
        tiles = pixels.unfold(0, 6, 4).unfold(1, 6, 4).permute(3, 4, 0, 1, 2)  # [6, 6, down, across, in]
        values = _both_ways(_PIXELS, tiles.reshape(6, 6, -1)).view(36, down * across, -1)
        products = torch.bmm(values, self.kernel).view(6, 6, -1)
        return _both_ways(_PRODUCTS, products).view(4, 4, down, across, -1).permute(2, 0, 3, 1, 4)


def _both_ways(matrix: Tensor, squares: Tensor) -> Tensor:
    """Multiply columns and then rows of `n` squares `[m, m, n]` by a matrix `[k, m]`: `[k, k, n]`."""
    k, m = matrix.shape
    columns = torch.bmm(matrix.expand(m, k, m), squares.transpose(0, 1))  # [m, k, n]
    return torch.bmm(matrix.expand(k, k, m), columns.transpose(0, 1))


def with_winograd(model: M) -> M:
    """A copy for inference in float32; what is not a kernel of such a convolution is shared."""
    model = copy.deepcopy(model, {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())})
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Conv2d) and _suits(child):
                setattr(parent, name, Winograd(child))
    return model


def _suits(convolution: nn.Conv2d) -> bool:
    c = convolution
    plain = c.kernel_size == (3, 3) and c.stride == c.padding == c.dilation == (1, 1) and c.groups == 1
    return plain and min(c.in_channels, c.out_channels) >= _CHANNELS
