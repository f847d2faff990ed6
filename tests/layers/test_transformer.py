import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pix2seqd.layers.transformer import Attention, TransformerLayer, position_encoding, sinusoidal_embedding


@pytest.mark.parametrize(("height", "width", "dim"), [(4, 6, 32), (5, 3, 48), (2, 2, 8)])
def test_position_encoding_equals_the_official_one(official, height: int, width: int, dim: int):
    recorded = official[f"unit/pos2d/{height}x{width}x{dim}"].reshape(height * width, dim)
    assert np.abs(position_encoding(height, width, dim).numpy() - recorded).max() < 2e-6


@pytest.mark.parametrize(("height", "width"), [(7, 1), (1, 7)])
def test_position_encoding_single_row_or_column(official, height: int, width: int):
    assert np.abs(position_encoding(height, width, 16).numpy() - official["unit/pos1d/7x16"][0]).max() < 2e-6
    assert position_encoding(1, 1, 16).isfinite().all()


@pytest.mark.parametrize("scaling", [1, 1000, 10000])
def test_sinusoidal_embedding_equals_the_official_one(official, scaling: int):
    ours = sinusoidal_embedding(torch.from_numpy(official["unit/time_enc/gamma"]) * scaling, 32)
    # The sine of 10000 is only as exact as the rounding of its argument.
    assert np.abs(ours.numpy() - official[f"unit/time_enc/scale{scaling}_dim32"]).max() < 1e-6 * max(scaling, 2)


def test_attention_equals_softmax_of_products():
    torch.manual_seed(0)
    attention = Attention(12, heads=3, context_dim=7)
    x, context = torch.randn(2, 5, 12), torch.randn(2, 4, 7)
    q, k, v = (
        f(s).reshape(2, -1, 3, 4)
        for f, s in ((attention.query, x), (attention.key, context), (attention.value, context))
    )
    weights = torch.einsum("bnhc,bmhc->bhnm", q, k).div(math.sqrt(4)).softmax(dim=-1)
    expected = attention.out(torch.einsum("bhnm,bmhc->bnhc", weights, v).reshape(2, 5, 12))
    assert torch.allclose(attention(x, attention.memory(context)), expected, atol=1e-6)


def test_attention_initial_ranges_are_keras():
    """Keras counts the fans of three-dimensional kernels (docs/paper.md)."""
    for dim, heads, projection, out in ((512, 16, 0.0156, 0.0263), (512, 8, 0.01276, 0.0361)):
        attention = Attention(dim, heads)
        for layer, limit in ((attention.query, projection), (attention.key, projection), (attention.out, out)):
            assert layer.weight.abs().max().item() == pytest.approx(limit, rel=5e-3)
            assert not layer.bias.any()


def test_transformer_layer_drop_path():
    torch.manual_seed(0)
    layer = TransformerLayer(8, 2, 16, drop_path=0.25)
    branch = torch.ones(4000, 2, 8)
    kept = layer.train()._drop(branch)
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (kept == kept[:, :1, :1]).all()
    assert kept.mean().item() == pytest.approx(1, abs=0.05)
    assert layer.eval()._drop(branch) is branch


def test_transformer_layer_adds_its_branches():
    torch.manual_seed(0)
    layer = TransformerLayer(8, 2, 16, context_dim=6)
    x, context = torch.randn(2, 3, 8), torch.randn(2, 5, 6)
    one = x + layer.self_attention(F.layer_norm(x, (8,), eps=1e-6))
    two = one + layer.cross_attention(F.layer_norm(one, (8,), eps=1e-6), layer.cross_attention.memory(context))
    hidden = F.gelu(layer.mlp[0](F.layer_norm(two, (8,), eps=1e-6)))
    assert torch.allclose(layer(x, layer.memory(context)), two + layer.mlp[3](hidden), atol=1e-6)
