"""Losses of §3.2: softmax cross-entropy (and ℓ2, Table 4), weighted per instance (Table 5, Figure 4)."""

from typing import Any

import torch
from torch import Tensor


class _CrossEntropy(torch.autograd.Function):
    """-log softmax(logits)[target], keeping only the logits for the backward pass.

    The logits of one image with a mask of 512 × 512 are 0.5 GB. PyTorch's version would keep as many log-probabilities.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        normalizer = torch.logsumexp(logits, dim=1)
        ctx.save_for_backward(logits, normalizer, target)
        return normalizer - logits.gather(1, target[:, None]).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        logits, normalizer, target = ctx.saved_tensors
        result = (logits - normalizer[:, None]).exp_()
        result.scatter_add_(1, target[:, None], torch.full_like(target[:, None], -1, dtype=result.dtype))
        return result.mul_(gradients[0][:, None]), None


def cross_entropy(logits: tuple[Tensor, ...], masks: Tensor, weights: Tensor) -> Tensor:
    """Weighted cross-entropy of every pixel, averaged over the mask's channels.

    Args:
        logits: for each mask channel `[b, 2^bits, h, w]`.
        masks: int64 `[b, channels, h, w]`, each channel in 0 .. 2^bits - 1.
        weights: `[b, h, w]`, 0 or more (`instance_weights`).

    Returns:
        float32 `[b, h, w]`; its mean is the loss of Algorithm 1.
    """
    losses = [_CrossEntropy.apply(group.float(), masks[:, k]) for k, group in enumerate(logits)]
    return weights * torch.stack(losses).mean(dim=0)


def l2(m_pred: Tensor, m_bits: Tensor, weights: Tensor) -> Tensor:
    """Weighted squared error of the analog bits (Eq. 2), averaged over the bits.

    Args:
        m_pred: predicted analog bits `[b, bits, h, w]`.
        m_bits: true ones, same shape.
        weights: `[b, h, w]`, 0 or more (`instance_weights`).

    Returns:
        float32 `[b, h, w]`; its mean is the loss.
    """
    return weights * (m_pred.float() - m_bits).square().mean(dim=1)


def instance_weights(ids: Tensor, p: float, max_instances: int) -> Tensor:
    """Weights w of the pixels: 1 / (c + 1)^p, where c is the pixels of the instance, with a mean of 1 (Figure 4).

    The + 1 is the official code's; the paper has 1 / c^p. Void (id 0) counts as an instance.

    Args:
        ids: int64 `[b, h, w]`.
        p: exponent, 0 or more; 0 gives all pixels the weight 1.
        max_instances: ids from this number on get the weight 0 if p > 0 (official).

    Returns:
        float32 `[b, h, w]`, 0 or more; the mean of each image is 1.
    """
    if p == 0:
        return torch.ones_like(ids, dtype=torch.float32)
    flat = ids.flatten(1)
    legal = flat < max_instances
    flat = flat.clamp(max=max_instances - 1)
    counts = torch.zeros(len(ids), max_instances, device=ids.device).scatter_add_(1, flat, legal.float())
    weights = (counts.gather(1, flat) + 1).pow(-p) * legal
    weights = weights / weights.mean(dim=1, keepdim=True)
    return weights.reshape(ids.shape)
