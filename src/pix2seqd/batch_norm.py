"""Batch normalisation as the official code's: biased running variance, and over all processes' batches together."""

from typing import Any

import torch
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm2d whose running variance is the biased batch variance, as TensorFlow's; it counts no batches."""

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(channels, eps, momentum)
        self.num_batches_tracked = None

    # The parent's own version would ask for the count of batches.
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
        """With the statistics of all processes' batches together, as the official global batch norm."""
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
    """Sum over the processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.apply(gradients[0].contiguous())
