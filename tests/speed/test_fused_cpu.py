"""The functions of `fused_cpu.c` against plain operations in double precision."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pix2seqd.analog_bits import expected_bits
from pix2seqd.inference.runner import Runner
from pix2seqd.layers.norms import GroupNorm
from pix2seqd.layers.transformer import TransformerLayer, attend
from pix2seqd.mask_decoder import ResBlock
from pix2seqd.speed import fused_cpu

pytestmark = pytest.mark.usefixtures("compiled")

DTYPES = [torch.float32, torch.bfloat16]


def rounding(dtype: torch.dtype) -> float:
    """Largest relative error of one rounding."""
    return torch.finfo(dtype).eps / 2


def test_they_are_compiled_here():
    assert fused_cpu.library() is not None
    with torch.no_grad():
        assert all(fused_cpu.suits(torch.zeros(1, dtype=dtype)) for dtype in DTYPES)
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
    corner=st.sampled_from([0.0, 0.0, 50.0]),
)
def test_group_norm(dtype, b, groups, size, height, width, alike, silu, mean, corner):
    torch.manual_seed(height * width)
    c = groups * size
    x = torch.randn(b, c, height, width) * 2 + mean
    x[:, :, 0, 0] += corner
    x = x.to(dtype)
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
def test_a_norm_has_the_same_bits_alone_in_a_batch_and_with_any_number_of_threads(dtype, set_threads):
    x, weight, bias = torch.randn(5, 48, 37, 41).to(dtype), *torch.randn(2, 5, 48)
    together = []
    for threads in (1, 2, 3):
        set_threads(threads)
        together.append(fused_cpu.group_norm(x, weight, bias, 12, 1e-5, silu=True))
    alone = [fused_cpu.group_norm(x[i : i + 1], weight[i : i + 1], bias[i : i + 1], 12, 1e-5, True) for i in range(5)]
    assert all(torch.equal(together[0], other) for other in [*together, torch.cat(alone)])


def test_a_flat_picture_with_one_odd_pixel_is_normalised():
    x = torch.full((1, 8, 512, 512), 0.1)
    x[:, :, 0, 0] = 100
    found = fused_cpu.group_norm(x, torch.ones(1, 8), torch.zeros(1, 8), 2, 1e-5, silu=False).double()
    x = x.double()
    exact = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
    assert torch.allclose(found, exact, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused_and_what_is_empty_stays_so():
    weight, x = torch.ones(1, 8), torch.zeros(1, 8, 2, 2)
    for wrong in [
        (weight[:, :4], weight, 2),
        (weight, weight[:, :4], 2),
        (weight.expand(2, 8), weight, 2),
        (weight, weight, 3),
    ]:
        with pytest.raises(ValueError, match="groups"):
            fused_cpu.group_norm(x, *wrong, 1e-5, silu=False)
    with pytest.raises(ValueError, match="6 logits"):
        fused_cpu.expected_bits(torch.zeros(1, 6, 2, 2), 1.0)
    assert fused_cpu.group_norm(x[:, :, :0], weight, weight, 2, 1e-5, silu=True).shape == (1, 8, 0, 2)
    assert fused_cpu.softmax_(torch.zeros(2, 0).bfloat16()).shape == (2, 0)


def test_what_is_no_number_does_not_become_one():
    nan = torch.nan
    x = torch.randn(1, 8, 5, 5)
    x[0, 1, 2, 3] = nan
    found = fused_cpu.group_norm(x, torch.ones(1, 8), torch.zeros(1, 8), 2, 1e-5, silu=True)
    assert found[:, :4].isnan().all() and not found[:, 4:].isnan().any()
    for place in (0, 3, 40):
        scores = torch.randn(2, 41)
        scores[0, place] = nan
        assert fused_cpu.softmax_(scores.bfloat16()).isnan().any(dim=1).tolist() == [True, False]
        logits = torch.randn(1, 64, 1, 2)
        logits[0, place, 0, 0] = nan
        for dtype in DTYPES:
            assert fused_cpu.expected_bits(logits.to(dtype), 1.0).isnan().all(dim=1).tolist() == [[[True, False]]]
    assert fused_cpu.gelu_(torch.tensor([1.0, nan])).isnan().tolist() == [False, True]


def test_other_defaults_of_numbers_do_not_matter():
    logits = torch.randn(1, 16, 8, 8)
    expected = fused_cpu.expected_bits(logits, 1.0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert torch.equal(fused_cpu.expected_bits(logits, 1.0), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_scaled_sum(dtype):
    x, y = (torch.randn(2, 5, 37, 41).to(dtype).contiguous(memory_format=torch.channels_last) for _ in range(2))
    exact = (x.double() + y.double()) * 0.7
    for other in (y, y.contiguous()):
        changed = x.clone(memory_format=torch.preserve_format)
        found = fused_cpu.scaled_sum_(changed, other, 0.7)
        assert found.data_ptr() == changed.data_ptr()
        assert torch.allclose(found.double(), exact, rtol=rounding(dtype), atol=1e-6)
    for refused in (y[:1], *(y.to(other) for other in DTYPES if other != dtype)):
        with pytest.raises(ValueError, match="5, 37, 41"):
            fused_cpu.scaled_sum_(x, refused, 0.7)


def test_a_residual_block_leaves_its_input_as_it_is(tiny):
    block, x = ResBlock(32, 32, 8, tiny), torch.randn(1, 32, 16, 16).contiguous(memory_format=torch.channels_last)
    before, time = x.clone(), torch.zeros(1, 64)
    with torch.inference_mode():
        fused = block(x, time)
    assert torch.equal(x, before)
    assert torch.allclose(block(x, time), fused, atol=1e-5)


@pytest.fixture
def called(monkeypatch) -> list[str]:
    """Names of the functions of C that are called."""
    names, call = [], fused_cpu._call
    monkeypatch.setattr(fused_cpu, "_call", lambda name, *rest: (names.append(name), call(name, *rest)))
    return names


def test_the_networks_call_them(tiny, build, called, monkeypatch):
    sampler = Runner(build(tiny), "cpu", "bfloat16")
    with sampler._precision():
        sampler.model.infer(torch.rand(1, 3, 64, 64), torch.randn(1, 5, 32, 32), 1)
    assert set(called) == {"group_norm", "softmax", "gelu", "expected_bits", "scaled_sum"}
    called.clear()
    with torch.enable_grad():
        TransformerLayer(16, 4, 32)(torch.randn(1, 5, 16))
    assert not called


def test_a_traced_norm_is_made_of_plain_operations():
    with torch.no_grad():
        norm, x = GroupNorm(8), torch.randn(2, 8, 3, 3)
        assert torch.allclose(torch.jit.trace(norm, torch.randn(2, 8, 3, 3))(x), norm(x), atol=1e-5)


def test_the_layer_computes_what_it_computes_with_gradients():
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
    found = fused_cpu.gelu_(x)
    assert found.data_ptr() == x.data_ptr()
    assert torch.allclose(found.double(), exact, rtol=2 * rounding(dtype), atol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_expected_bits(bits, dtype):
    values = 2**bits
    both = torch.randn(2, 2 * values, 9, 7).mul(5).to(dtype).contiguous(memory_format=torch.channels_last)
    for logits in (both[:, values:], both[:, :values, :4], torch.randn(1, values, 3, 5).mul(1e3).to(dtype)):
        exact = expected_bits(logits.double(), 0.1)
        assert torch.allclose(fused_cpu.expected_bits(logits, 0.1), exact.float(), atol=1e-6)


def test_a_model_gives_the_masks_of_plain_operations(tiny, build, monkeypatch):
    model = build(tiny)
    images, noise = torch.rand(2, 3, 64, 64), torch.randn(2, 5, 32, 32)
    sampler = Runner(model, "cpu", "float32")

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
