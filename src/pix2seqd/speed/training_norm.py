"""GroupNorm for training in bfloat16 on CPUs, with a faster backward pass."""

from typing import Any

import torch
from torch import Tensor

from pix2seqd.layers.norms import GroupNorm, scale_and_shift


class TrainingGroupNorm(GroupNorm):
    """`GroupNorm` whose gradient is computed example by example, in float32, to fit into the processor's cache."""

    def normalize(self, input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """As `GroupNorm.normalize`."""
        channels_last = input.stride() == torch.empty_like(input, memory_format=torch.channels_last).stride()
        if not (channels_last and input.dtype == torch.bfloat16 and torch.is_grad_enabled()):
            return super().normalize(input, weight, bias)
        return _Normalize.apply(input, weight, bias, self.num_groups, self.eps)


class _Normalize(torch.autograd.Function):
    """The backward pass takes a quarter of PyTorch's time on CPUs in bfloat16 (docs/notebook/speed-cpu.md)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        affine = (weight[0], bias[0]) if len(weight) == 1 else (None, None)
        y, mean, rstd = torch.native_group_norm(x, *affine, len(x), x.shape[1], x[0, 0].numel(), groups, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y if len(weight) == 1 else scale_and_shift(y, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        (b, c, h, w), groups = x.shape, mean.shape[1]
        x_grad = torch.empty_like(x, memory_format=torch.channels_last)
        weight_grad, bias_grad = (torch.empty(b, c) for _ in range(2))
        flat_x, flat_y, result = (v.permute(0, 2, 3, 1).reshape(b, h * w, c) for v in (x, gradients[0], x_grad))
        for i in range(b):
            mean_i, rstd_i = (v[i].float().repeat_interleave(c // groups) for v in (mean, rstd))
            scale = weight[i % len(weight)] * rstd_i
            g, z = flat_y[i].float(), flat_x[i].float().sub_(mean_i).mul_(rstd_i)
            bias_grad[i], weight_grad[i] = g.sum(0), (g * z).sum(0)
            # d loss / dx = (g·w - mean(g·w) - z · mean(g·w·z)) / deviation, means over each group.
            g_mean, gz_mean = (
                (v[i] * scale).view(groups, -1).mean(1).repeat_interleave(c // groups) / (h * w)
                for v in (bias_grad, weight_grad)
            )
            result[i] = g.mul_(scale).addcmul_(z, gz_mean.neg_()).sub_(g_mean)
        if len(weight) == 1:
            weight_grad, bias_grad = weight_grad.sum(0, keepdim=True), bias_grad.sum(0, keepdim=True)
        return x_grad, weight_grad, bias_grad, None, None
