"""The functions of `fused_cpu.c` against plain operations in double precision."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pix2seqd import fused_cpu
from pix2seqd.analog_bits import expected_bits
from pix2seqd.group_norm import GroupNorm
from pix2seqd.sampler import Sampler
from pix2seqd.transformer import GELU, attend

pytestmark = pytest.mark.usefixtures("compiled")

DTYPES = [torch.float32, torch.bfloat16]
THREADS = [1, 2, 3]


def rounding(dtype: torch.dtype) -> float:
    """Largest relative error of one rounding."""
    return torch.finfo(dtype).eps / 2


def with_threads(threads: int, run) -> Tensor:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return run()
    finally:
        torch.set_num_threads(before)


def test_they_are_compiled_here():
    assert fused_cpu.library() is not None
    with torch.no_grad():
        assert fused_cpu.suits(torch.zeros(1))
        assert not fused_cpu.suits(torch.zeros(1, dtype=torch.float64))
        assert not fused_cpu.suits(torch.zeros(1, device="meta"))
    assert not fused_cpu.suits(torch.zeros(1)), "gradients are wanted"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=30, deadline=None)
@given(
    b=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 32]),
    size=st.integers(1, 9),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    alike=st.booleans(),
    silu=st.booleans(),
    mean=st.sampled_from([0.0, -3.0, 100.0]),
)
def test_group_norm(dtype, b, groups, size, height, width, alike, silu, mean):
    torch.manual_seed(height * width)
    c = groups * size
    x = (torch.randn(b, c, height, width) * 2 + mean).to(dtype)
    weight, bias = torch.randn(2, 1 if alike else b, c)
    found = fused_cpu.group_norm(x, weight, bias, groups, 1e-5, silu)
    grouped = x.double().view(b, groups, -1)
    variance, center = torch.var_mean(grouped, dim=2, correction=0, keepdim=True)
    normal = ((grouped - center) / (variance + 1e-5).sqrt()).view(x.shape)
    exact = normal * weight[:, :, None, None] + bias[:, :, None, None]
    exact = F.silu(exact) if silu else exact
    assert found.dtype == dtype and found.is_contiguous(memory_format=torch.channels_last)
    # The mean is taken away after the scale, as PyTorch does: both are rounded.
    scaled = (grouped.abs() / (variance + 1e-5).sqrt()).max() * weight.abs().max()
    assert torch.allclose(found.double(), exact, rtol=2 * rounding(dtype), atol=2e-6 + 1e-6 * float(scaled))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_norm_has_the_same_bits_alone_in_a_batch_and_with_any_number_of_threads(dtype):
    x, weight, bias = torch.randn(5, 48, 37, 41).to(dtype), *torch.randn(2, 5, 48)
    together = [with_threads(n, lambda: fused_cpu.group_norm(x, weight, bias, 12, 1e-5, silu=True)) for n in THREADS]
    alone = [fused_cpu.group_norm(x[i : i + 1], weight[i : i + 1], bias[i : i + 1], 12, 1e-5, True) for i in range(5)]
    assert all(torch.equal(together[0], other) for other in [*together, torch.cat(alone)])


def test_the_layer_uses_it_and_computes_what_it_computes_with_gradients():
    norm, x, time = GroupNorm(24), torch.randn(3, 24, 7, 5), torch.randn(3, 48)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    for given_time in (None, time, time[:1]):
        plain = norm(x, given_time, silu=True)
        with torch.no_grad():
            fused = norm(x, given_time, silu=True)
        assert plain.requires_grad and not fused.requires_grad
        assert torch.allclose(plain, fused, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.integers(1, 300), st.sampled_from([0.01, 3.0, 1e4]), st.sampled_from([0.0, -200.0, 1e6]))
def test_softmax(rows: int, m: int, spread: float, mean: float):
    torch.manual_seed(rows * m)
    x = (torch.randn(rows, m) * spread + mean).bfloat16()
    exact = x.double().softmax(-1)
    found = fused_cpu.softmax_(x)
    assert found.data_ptr() == x.data_ptr()
    assert torch.allclose(x.double(), exact, rtol=1.05 * rounding(torch.bfloat16), atol=1e-30)


def test_attention_in_bfloat16_is_that_of_plain_operations():
    q, k, v = torch.randn(3, 2, 4, 70, 16).bfloat16().unbind()
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    with torch.no_grad():
        assert torch.allclose(attend(q, k, v).double(), exact, atol=0.02)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gelu(dtype):
    x = torch.cat([torch.linspace(-30, 30, 20001), torch.tensor([0.0, -1e30, 1e30])]).to(dtype)
    exact = F.gelu(x.double())
    with torch.no_grad():
        found = GELU()(x.clone())
    assert torch.allclose(found.double(), exact, rtol=2 * rounding(dtype), atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_expected_bits(bits, dtype):
    values = 2**bits
    both = torch.randn(2, 2 * values, 9, 7).mul(5).to(dtype).contiguous(memory_format=torch.channels_last)
    for logits in (both[:, values:], both[:, :values, :4], torch.randn(1, values, 3, 5).mul(1e3).to(dtype)):
        with torch.enable_grad():
            exact = expected_bits(logits.double(), 0.1)
        with torch.no_grad():
            assert torch.allclose(expected_bits(logits, 0.1), exact.float(), atol=1e-6)


def test_a_model_gives_the_masks_of_plain_operations(tiny, build, monkeypatch):
    model = build(tiny)
    images, noise = torch.rand(2, 3, 64, 64), torch.randn(2, 5, 32, 32)
    sampler = Sampler(model, "cpu", "float32")

    def bits() -> Tensor:
        with torch.inference_mode():
            return list(sampler.model.denoise(sampler.model.pixel_encoder(images), noise, 3))[-1]

    fused = bits()
    monkeypatch.setattr(fused_cpu, "suits", lambda x: False)
    plain = bits()
    assert not torch.equal(fused, plain), "both are the same operations"
    assert torch.allclose(fused, plain, atol=1e-5)
    sure = (plain.abs() > 1e-5).all(dim=1, keepdim=True)  # elsewhere any rounding may turn a bit
    assert sure.float().mean() > 0.99
    masks = model.to_masks(fused), model.to_masks(plain)
    assert ((masks[0] == masks[1]) | ~sure).all()
    assert len(masks[0].unique()) > 2
