"""Normalisation as in the official code: over groups of channels, and over the batches of all processes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GroupNorm(nn.GroupNorm):
    """Group normalisation with the official code's number of groups: a quarter of the channels, at most 32.

    If this number does not divide the channels, the next smaller divisor is taken.
    """

    def __init__(self, channels: int, groups_of: int | None = None) -> None:
        maximum = max(min((groups_of or channels) // 4, 32), 1)
        super().__init__(next(n for n in range(maximum, 0, -1) if channels % n == 0), channels, eps=1e-5)

    def forward(self, input: Tensor, time: Tensor | None = None, silu: bool = False) -> Tensor:
        """Normalise.

        Args:
            input: `[b, c, h, w]`.
            time: scale - 1 and shift after the normalisation, `[b, 2c]`, or `[1, 2c]` for all examples; None: neither.
            silu: whether SiLU comes last.
        """
        weight, bias = self.affine_map(time)
        y = self.normalize(input, weight, bias)
        # Nothing else reads the result, so SiLU works in place unless autograd needs its input.
        return F.silu(y, inplace=not torch.is_grad_enabled()) if silu else y

    def affine_map(self, time: Tensor | None) -> tuple[Tensor, Tensor]:
        """Weight and bias, `[b, c]` or `[1, c]`: those of the layer and of the time as one affine map."""
        weight, bias = self.weight[None], self.bias[None]
        if time is None:
            return weight, bias
        scale, shift = time.float().chunk(2, dim=1)
        return weight * (scale + 1), bias * (scale + 1) + shift

    def normalize(self, input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """`[b, c, h, w]` normalised, times `weight`, plus `bias` (each `[b, c]` or `[1, c]`)."""
        if len(weight) == 1:
            return F.group_norm(input, self.num_groups, weight[0], bias[0], self.eps)
        return scale_and_shift(F.group_norm(input, self.num_groups, eps=self.eps), weight, bias)


def scale_and_shift(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x · weight + bias in the type of `x`: `[b, c, h, w]` and twice `[b, c]`."""
    weight, bias = (v.to(x.dtype)[:, :, None, None] for v in (weight, bias))
    return torch.addcmul(bias, x, weight)


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose running variance is the biased batch variance, as in TensorFlow; batches are not counted."""

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(channels, eps, momentum)
        self.num_batches_tracked = None

    # The parent's version expects the number of batches.
    _load_from_state_dict = nn.Module._load_from_state_dict

    def forward(self, input: Tensor) -> Tensor:
        """`[b, c, h, w]` → the same shape."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return super().forward(input)
        if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
            return self._over_processes(input)
        momentum = self.momentum or 0.0
        output, mean, inverse_deviation = torch.native_batch_norm(
            input, self.weight, self.bias, None, None, True, momentum, self.eps
        )
        with torch.no_grad():
            self.running_mean.lerp_(mean.float(), momentum)
            self.running_var.lerp_(inverse_deviation.float().pow(-2) - self.eps, momentum)
        return output

    def _over_processes(self, x: Tensor) -> Tensor:
        """Normalise with the statistics of the batches of all processes, as the official global batch norm."""
        assert self.running_mean is not None and self.running_var is not None
        wide = x.float()
        moments = torch.stack([wide.mean((0, 2, 3)), wide.square().mean((0, 2, 3))])
        mean, square = _Sum.apply(moments) / torch.distributed.get_world_size()
        variance = square - mean.square()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum or 0.0)
            self.running_var.lerp_(variance, self.momentum or 0.0)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (wide * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]).to(x.dtype)


class _Sum(torch.autograd.Function):
    """Sum over the processes; its gradient is also summed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.apply(gradients[0].contiguous())
