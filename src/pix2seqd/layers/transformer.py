"""Transformer layers of encoder and decoder, and sinusoidal embeddings of time and positions (paper §3.1)."""

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

L = TypeVar("L", nn.Linear, nn.Conv2d)
KeyValue = tuple[Tensor, Tensor] | None
"""Keys and values, each `[b, heads, n, head_dim]`; None: self-attention."""


class Attention(nn.Module):
    """Multi-head attention; the initial ranges are those of the official Keras layer (docs/paper.md)."""

    def __init__(self, dim: int, heads: int, context_dim: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(context_dim or dim, dim)
        self.value = nn.Linear(context_dim or dim, dim)
        self.out = nn.Linear(dim, dim)
        head_dim = dim // heads
        for layer in (self.query, self.key, self.value):
            _uniform(layer, math.sqrt(6 / (layer.in_features * (heads + head_dim))))
        _uniform(self.out, math.sqrt(6 / (heads * (head_dim + dim))))

    def memory(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of `context` `[b, m, context_dim]`, each `[b, heads, m, head_dim]`."""
        return self._heads(self.key(context)), self._heads(self.value(context))

    def forward(self, x: Tensor, memory: KeyValue = None) -> Tensor:
        """`x` `[b, n, dim]` attends to a memory, or to itself: `[b, n, dim]`."""
        keys, values = self.memory(x) if memory is None else memory
        return self.out(self.attend(self._heads(self.query(x)), keys, values).transpose(1, 2).flatten(2))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q kᵀ / √head_dim) v; `[b, heads, n, head_dim]` and twice `[b, heads, m, head_dim]`."""
        return F.scaled_dot_product_attention(q, k, v)

    def _heads(self, x: Tensor) -> Tensor:
        """`[b, n, dim]` → `[b, heads, n, head_dim]`."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class TransformerLayer(nn.Module):
    """Pre-norm layer: self-attention, optional cross-attention to the image's tokens, MLP; each with a residual."""

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_dim: int,
        context_dim: int | None = None,
        dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.self_norm = nn.LayerNorm(dim, eps=1e-6)
        self.self_attention = Attention(dim, heads)
        self.cross_norm = nn.LayerNorm(dim, eps=1e-6) if context_dim else None
        self.cross_attention = Attention(dim, heads, context_dim) if context_dim else None
        self.mlp_norm = nn.LayerNorm(dim, eps=1e-6)
        wide, narrow = glorot(nn.Linear(dim, mlp_dim)), glorot(nn.Linear(mlp_dim, dim))
        self.mlp = nn.Sequential(wide, nn.GELU(), nn.Dropout(dropout), narrow)
        self.drop_path = drop_path

    def memory(self, context: Tensor) -> KeyValue:
        """Keys and values of the tokens `context` `[b, m, context_dim]`; None without a cross-attention."""
        return None if self.cross_attention is None else self.cross_attention.memory(context)

    def forward(self, x: Tensor, memory: KeyValue = None) -> Tensor:
        """`x` [b, n, dim] → [b, n, dim]."""
        x = x + self._drop(self.self_attention(self.self_norm(x)))
        if self.cross_attention is not None and self.cross_norm is not None:
            x = x + self._drop(self.cross_attention(self.cross_norm(x), memory))
        return x + self._drop(self.mlp(self.mlp_norm(x)))

    def _drop(self, branch: Tensor) -> Tensor:
        """Stochastic depth: drop the branch of whole examples."""
        if not self.training or self.drop_path == 0:
            return branch
        keep = 1 - self.drop_path
        alive = (torch.rand(len(branch), 1, 1, device=branch.device) + keep).floor()
        return branch * (alive / keep).to(branch.dtype)


def sinusoidal_embedding(x: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of real numbers: `[...]` → float32 `[..., dim]`, sines first, then cosines; dim is even."""
    rates = 10000 ** (-2 * torch.arange(dim // 2, device=x.device, dtype=torch.float32) / dim)
    angles = x[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def position_encoding(height: int, width: int, dim: int, device: torch.device | None = None) -> Tensor:
    """Sinusoidal encoding of every position of a grid, row by row: float32 `[height * width, dim]`.

    Both axes run from 0 to 2π at any size, so that the code works at other resolutions (§4.1).
    A grid of one row or one column gets a one-dimensional encoding.
    """
    if min(height, width) == 1:
        positions = torch.arange(height * width, device=device, dtype=torch.float32)
        return sinusoidal_embedding(positions / max(height * width - 1, 1) * (2 * math.pi), dim)
    rows, columns = (
        sinusoidal_embedding(torch.arange(n, device=device, dtype=torch.float32) / (n - 1) * (2 * math.pi), dim // 2)
        for n in (height, width)
    )
    grid = torch.cat([rows[:, None].expand(height, width, -1), columns[None].expand(height, width, -1)], dim=-1)
    return grid.flatten(0, 1)


def glorot(layer: L, scale: float = 1.0) -> L:
    """Glorot-uniform weights times √scale, zero biases; the official code initialises last layers with scale 1e-10."""
    nn.init.xavier_uniform_(layer.weight, gain=math.sqrt(scale))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _uniform(layer: nn.Linear, limit: float) -> None:
    """Weights uniform in [-limit, limit], zero biases."""
    nn.init.uniform_(layer.weight, -limit, limit)
    nn.init.zeros_(layer.bias)
