"""Attention in bfloat16 as two matrix products, on CPUs without AMX."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pix2seqd.layers.transformer import Attention

QUERIES = 512
"""Queries at a time, so that their scores stay in the processor's cache."""


class ProductAttention(Attention):
    """`Attention` for inference: in bfloat16 the scores are one matrix product, not done by blocks."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As `Attention.attend`; float32, and where gradients are needed, goes to PyTorch's kernel."""
        if q.dtype != torch.bfloat16 or torch.is_grad_enabled():
            return F.scaled_dot_product_attention(q, k, v)
        q, k = q * q.shape[-1] ** -0.5, k.transpose(2, 3)
        return torch.cat([(part @ k).softmax(dim=-1) @ v for part in q.split(QUERIES, dim=2)], dim=2)
