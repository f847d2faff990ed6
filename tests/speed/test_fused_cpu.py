"""The functions of `fused_cpu.c` against plain operations in double precision."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pix2seqd.analog_bits import Quantizer, evidence_gain, expected_bits
from pix2seqd.mask_decoder import BitHead
from pix2seqd.speed import fused_cpu

pytestmark = pytest.mark.usefixtures("compiled")

DTYPES = [torch.float32, torch.bfloat16]


def rounding(dtype: torch.dtype) -> float:
    """Largest relative error of one rounding."""
    return torch.finfo(dtype).eps / 2


def test_is_supported_float32_and_bfloat16_without_gradients():
    assert fused_cpu.library() is not None
    with torch.no_grad():
        assert all(fused_cpu.is_supported(torch.zeros(1, dtype=dtype)) for dtype in DTYPES)
        assert not fused_cpu.is_supported(torch.zeros(1, dtype=torch.float64))
        assert not fused_cpu.is_supported(torch.zeros(1, device="meta"))
    assert not fused_cpu.is_supported(torch.zeros(1)), "gradients are required"


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
    # The mean is subtracted after the scale, as in PyTorch: both are rounded.
    scaled = (grouped.abs() / (variance + 1e-5).sqrt()).max() * weight.abs().max()
    assert torch.allclose(found.double(), exact, rtol=2 * rounding(dtype), atol=2e-6 + 1e-6 * float(scaled))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_group_norm_same_bits_alone_in_batch_any_threads(dtype, set_threads):
    x, weight, bias = torch.randn(5, 48, 37, 41).to(dtype), *torch.randn(2, 5, 48)
    together = []
    for threads in (1, 2, 3):
        set_threads(threads)
        together.append(fused_cpu.group_norm(x, weight, bias, 12, 1e-5, silu=True))
    alone = [fused_cpu.group_norm(x[i : i + 1], weight[i : i + 1], bias[i : i + 1], 12, 1e-5, True) for i in range(5)]
    assert all(torch.equal(together[0], other) for other in [*together, torch.cat(alone)])


def test_group_norm_flat_image_with_one_odd_pixel():
    x = torch.full((1, 8, 512, 512), 0.1)
    x[:, :, 0, 0] = 100
    found = fused_cpu.group_norm(x, torch.ones(1, 8), torch.zeros(1, 8), 2, 1e-5, silu=False).double()
    x = x.double()
    exact = (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()
    assert torch.allclose(found, exact, rtol=1e-4, atol=1e-5)


def test_group_norm_wrong_shapes_and_empty_image():
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


def test_fused_functions_keep_nan():
    nan = torch.nan
    x = torch.randn(1, 8, 5, 5)
    x[0, 1, 2, 3] = nan
    found = fused_cpu.group_norm(x, torch.ones(1, 8), torch.zeros(1, 8), 2, 1e-5, silu=True)
    assert found[:, :4].isnan().all() and not found[:, 4:].isnan().any()
    for place in (0, 3, 40):
        logits = torch.randn(1, 64, 1, 2)
        logits[0, place, 0, 0] = nan
        for dtype in DTYPES:
            assert fused_cpu.expected_bits(logits.to(dtype), 1.0).isnan().all(dim=1).tolist() == [[[True, False]]]


def test_expected_bits_default_dtype_bfloat16():
    logits = torch.randn(1, 16, 8, 8)
    expected = fused_cpu.expected_bits(logits, 1.0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert torch.equal(fused_cpu.expected_bits(logits, 1.0), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_fused_group_norm_traced():
    with torch.no_grad():
        norm, x = fused_cpu.FusedGroupNorm(8), torch.randn(2, 8, 3, 3)
        assert torch.allclose(torch.jit.trace(norm, torch.randn(2, 8, 3, 3))(x), norm(x), atol=1e-5)


def test_fused_group_norm_with_gradients():
    norm, x, time = fused_cpu.FusedGroupNorm(24), torch.randn(3, 24, 7, 5), torch.randn(3, 48)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    for given_time in (None, time, time[:1]):
        plain = norm(x, given_time, silu=True)
        with torch.no_grad():
            fused = norm(x, given_time, silu=True)
        assert plain.requires_grad and not fused.requires_grad
        assert torch.allclose(plain, fused, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bits", [1, 2, 5, 8])
def test_expected_bits(bits, dtype):
    values = 2**bits
    both = torch.randn(2, 2 * values, 9, 7).mul(5).to(dtype).contiguous(memory_format=torch.channels_last)
    for logits in (both[:, values:], both[:, :values, :4], torch.randn(1, values, 3, 5).mul(1e3).to(dtype)):
        exact = expected_bits(logits.double(), 0.1)
        assert torch.allclose(fused_cpu.expected_bits(logits, 0.1), exact.float(), atol=1e-6)


def patches(b: int, height: int, width: int, bits: tuple[int, ...], dtype: torch.dtype):
    """Logits and noisy bits of patches of 4 × 4 pixels, and the time of each example."""
    outputs = sum(bits) + sum(2**n for n in bits)
    logits = torch.randn(b, 16 * outputs, height, width).mul(4).to(dtype)
    return logits, torch.randn(b, sum(bits), 4 * height, 4 * width), torch.rand(b) * 0.9 + 0.05


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("bits", "height", "width"), [((2, 4), 5, 7), ((1, 8), 3, 2), ((4, 1), 1, 1)])
def test_patch_bits_is_the_head(tiny, bits, height, width, dtype):
    mask = {"bits": bits, "classes": 2, "max_instances": 2}
    model = tiny.replace(mask=mask, decoder={"patch": 4, "bit_logits": True})
    logits, noisy, gammas = patches(2, height, width, bits, dtype)
    found = fused_cpu.patch_bits(logits, noisy, evidence_gain(model.mask.scale, gammas), bits, model.mask.scale)
    exact = BitHead(model)(logits.float(), noisy, gammas)
    assert found.dtype == torch.float32 and found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(found, exact, atol=1e-5 * model.mask.scale)


def test_patch_bits_same_bits_alone_in_batch_any_threads(set_threads):
    logits, noisy, gammas = patches(3, 9, 11, (2, 4), torch.bfloat16)
    together = []
    for threads in (1, 2, 3):
        set_threads(threads)
        together.append(fused_cpu.patch_bits(logits, noisy, gammas, (2, 4), 0.2))
    alone = [fused_cpu.patch_bits(logits[[i]], noisy[[i]], gammas[[i]], (2, 4), 0.2) for i in range(3)]
    assert all(torch.equal(together[0], other) for other in [*together, torch.cat(alone)])


def test_patch_bits_nan_and_wrong_shapes():
    logits, noisy, gammas = patches(1, 2, 2, (2, 4), torch.float32)
    logits[0, 3 * 16 + 5, 1, 0] = torch.nan  # value 3 of the class, sixth pixel of the patch
    lost = fused_cpu.patch_bits(logits, noisy, gammas, (2, 4), 1.0).isnan()
    assert lost[0, :2, 5, 1].all() and lost.sum() == 2
    for wrong in [(logits[:, :-16], noisy), (logits, noisy[:, :-1]), (logits, noisy[..., :-1])]:
        with pytest.raises(ValueError, match="noisy bits"):
            fused_cpu.patch_bits(*wrong, gammas, (2, 4), 1.0)


def test_fused_bit_head_of_other_patches_is_the_plain_one(tiny):
    with torch.no_grad():
        for patch in (1, 2):
            model = tiny.replace(decoder={"patch": patch, "bit_logits": True})
            plain, fused = BitHead(model), fused_cpu.FusedBitHead(model)
            outputs = sum(plain.values) + model.mask.total_bits
            x, noisy = torch.randn(1, patch**2 * outputs, 3, 3), torch.randn(1, model.mask.total_bits, *[3 * patch] * 2)
            assert torch.equal(fused(x, noisy, torch.tensor([0.5])), plain(x, noisy, torch.tensor([0.5])))


@pytest.mark.parametrize("bits", [(2, 4), (1, 8), (3,)], ids=str)
def test_fused_values_are_the_plain_ones_bit_by_bit(set_threads, bits):
    m_pred = torch.randn(2, sum(bits), 33, 50).clamp(-1, 1) * 0.2
    m_pred[0, :, :2, :3] = 0  # off
    m_pred[0, :, 3, 3] = 0.1 * (1 + 1e-6)
    limits = tuple(2**n - 2 for n in bits)  # below the largest value
    plain, fused = (cls(bits, 0.2, "binary", limits) for cls in (Quantizer, fused_cpu.FusedQuantizer))
    given = (m_pred, m_pred.contiguous(memory_format=torch.channels_last), m_pred[:, :, 5:20, 7:])
    for threads, found in itertools.product((1, 2), given):
        set_threads(threads)
        with torch.inference_mode():
            assert torch.equal(fused.values(found), plain.values(found))
            assert torch.equal(fused.probabilities(found), plain.probabilities(found))


def test_fused_values_of_other_encodings_and_types_are_the_plain_ones():
    for encoding, dtype in (("gray", torch.float32), ("binary", torch.float64)):
        plain, fused = (cls((2, 4), 0.2, encoding, (2, 15)) for cls in (Quantizer, fused_cpu.FusedQuantizer))
        m_pred = torch.randn(1, 6, 5, 7, dtype=dtype).clamp(-1, 1) * 0.2
        with torch.inference_mode():
            assert torch.equal(fused.values(m_pred), plain.values(m_pred))
            assert torch.equal(fused.probabilities(m_pred), plain.probabilities(m_pred))
