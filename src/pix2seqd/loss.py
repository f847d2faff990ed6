"""Losses of §3.2: softmax cross-entropy (and ℓ2, Table 4), weighted per instance (Table 5, Figure 4)."""

from typing import Any

import torch
from torch import Tensor


class _CrossEntropy(torch.autograd.Function):
    """-log softmax(logits)[target], keeping only the logits for the backward pass.

    At 512² masks the logits of one image are 0.5 GB; PyTorch's version would keep log-probabilities as well.
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
        logits: for each mask channel `[b, values, h, w]`.
        masks: int64 `[b, channels, h, w]`.
        weights: `[b, h, w]`.

    Returns:
        float32 `[b, h, w]`; its mean is the loss of Algorithm 1.
    """
    losses = [_CrossEntropy.apply(group.float(), masks[:, k]) for k, group in enumerate(logits)]
    return weights * torch.stack(losses).mean(dim=0)


def l2(m_pred: Tensor, m_bits: Tensor, weights: Tensor) -> Tensor:
    """Weighted squared error of the analog bits (Eq. 2): `[b, bits, h, w]` twice → `[b, h, w]`."""
    return weights * (m_pred.float() - m_bits).square().mean(dim=1)


def instance_weights(ids: Tensor, p: float, max_instances: int) -> Tensor:
    """w = 1 / (c + 1)^p, normalised to a mean of 1 per image; c is the pixel count of a pixel's instance (Figure 4).

    Official: + 1; the paper has 1 / c^p. Void (id 0) counts as an instance.

    Args:
        ids: int64 `[b, h, w]`.
        p: 0 gives all pixels the weight 1.
        max_instances: ids from this number on get weight 0 if p > 0 (official).

    Returns:
        float32 `[b, h, w]`.
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
