"""Normalisation as the official code does it: groups of channels, and batches over all processes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pix2seqd.speed import fused_cpu
from pix2seqd.speed.hardware import runs_triton


class GroupNorm(nn.GroupNorm):
    """The official code's groups: a quarter of the channels as groups, 32 at most (fewer if that divides not)."""

    def __init__(self, channels: int, groups_of: int | None = None) -> None:
        most = max(min((groups_of or channels) // 4, 32), 1)
        super().__init__(next(n for n in range(most, 0, -1) if channels % n == 0), channels, eps=1e-5)

    def forward(self, input: Tensor, time: Tensor | None = None, silu: bool = False) -> Tensor:
        """Normalise.

        Args:
            input: `[b, c, h, w]`.
            time: scale - 1 and shift that follow, `[b, 2c]`, or `[1, 2c]` for all examples alike; None: there are none.
            silu: whether SiLU comes last.
        """
        weight, bias = self.weight[None], self.bias[None]
        if time is not None:
            # Both affine maps as one: a pass over the picture less for each.
            scale, shift = time.float().chunk(2, dim=1)
            weight, bias = weight * (scale + 1), bias * (scale + 1) + shift
        if runs_triton(input.device):
            from pix2seqd.speed.triton_norm import group_norm

            return group_norm(input, weight, bias, self.num_groups, self.eps, silu)[0]
        if fused_cpu.suits(input):
            return fused_cpu.group_norm(input, weight, bias, self.num_groups, self.eps, silu)
        y = self._affine(input, weight, bias)
        # Nobody else reads the result: in place, unless autograd needs it.
        return F.silu(y, inplace=not torch.is_grad_enabled()) if silu else y

    def _affine(self, input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        fast = input.dtype == torch.bfloat16 and input.device.type == "cpu" and torch.is_grad_enabled()
        if fast and input.stride() == torch.empty_like(input, memory_format=torch.channels_last).stride():
            return _ChannelsLast.apply(input, weight, bias, self.num_groups, self.eps)
        if len(weight) == 1:
            return F.group_norm(input, self.num_groups, weight[0], bias[0], self.eps)
        return _scaled(F.group_norm(input, self.num_groups, eps=self.eps), weight, bias)


def _scaled(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    weight, bias = (v.to(x.dtype)[:, :, None, None] for v in (weight, bias))
    return torch.addcmul(bias, x, weight)


class _ChannelsLast(torch.autograd.Function):
    """The same with a backward that takes a quarter of PyTorch's time on CPUs in bfloat16 (docs/speed.md).

    One example after the other stays in the processor's cache; all sums are float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        affine = (weight[0], bias[0]) if len(weight) == 1 else (None, None)
        y, mean, rstd = torch.native_group_norm(x, *affine, len(x), x.shape[1], x[0, 0].numel(), groups, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y if len(weight) == 1 else _scaled(y, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        (b, c, h, w), groups = x.shape, mean.shape[1]
        of_x = torch.empty_like(x, memory_format=torch.channels_last)
        of_weight, of_bias = (torch.empty(b, c) for _ in range(2))
        flat_x, flat_y, result = (v.permute(0, 2, 3, 1).reshape(b, h * w, c) for v in (x, gradients[0], of_x))
        for i in range(b):
            mean_i, rstd_i = (v[i].float().repeat_interleave(c // groups) for v in (mean, rstd))
            scale = weight[i % len(weight)] * rstd_i
            g, z = flat_y[i].float(), flat_x[i].float().sub_(mean_i).mul_(rstd_i)
            of_bias[i], of_weight[i] = g.sum(0), (g * z).sum(0)
            # d loss / dx = (g·w - mean(g·w) - z · mean(g·w·z)) / deviation, means over each group.
            g_mean, gz_mean = (
                (v[i] * scale).view(groups, -1).mean(1).repeat_interleave(c // groups) / (h * w)
                for v in (of_bias, of_weight)
            )
            result[i] = g.mul_(scale).addcmul_(z, gz_mean.neg_()).sub_(g_mean)
        if len(weight) == 1:
            of_weight, of_bias = of_weight.sum(0, keepdim=True), of_bias.sum(0, keepdim=True)
        return of_x, of_weight, of_bias, None, None


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
