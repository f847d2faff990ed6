"""The Triton kernels: on a GPU if there is one, otherwise in Triton's interpreter, if it is installed."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pix2seqd.analog_bits import expected_bits
from pix2seqd.layers.norms import GroupNorm

fused = pytest.importorskip("pix2seqd.speed.triton_norm", exc_type=ImportError)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 128, 8, 44, 32), (3, 24, 5, 4, 6), (2, 320, 13, 7, 32), (2, 4, 1, 3, 1)]
"""Examples, channels, height, width, groups: one tile and several, and numbers that are no powers of two."""


def plain(x: Tensor, weight: Tensor, bias: Tensor, groups: int, silu: bool) -> Tensor:
    y = F.group_norm(x, groups, eps=1e-5) * weight[:, :, None, None] + bias[:, :, None, None]
    return F.silu(y) if silu else y


@pytest.mark.parametrize(("silu", "parts"), [(False, 512), (True, 2)])
@pytest.mark.parametrize("alike", [False, True], ids=["weights of each example", "weights of all"])
@pytest.mark.parametrize("shape", SHAPES)
def test_triton_group_norm_equals_plain(shape, alike, silu, parts, monkeypatch):
    monkeypatch.setattr(fused, "_PARTS", parts)
    b, c, h, w, groups = shape
    torch.manual_seed(0)
    x = (torch.randn(b, c, h, w) * 2 + 5).to(DEVICE, memory_format=torch.channels_last)
    weight, bias, upstream = (torch.randn(n, c).to(DEVICE) for n in (1 if alike else b, 1 if alike else b, b))
    upstream = upstream[:, :, None, None] * torch.randn(b, c, h, w).to(DEVICE)
    found = []
    for dtype in (torch.float64, torch.float32):
        inputs = [v.to(dtype).requires_grad_() for v in (x, weight, bias)]
        y = plain(*inputs, groups, silu) if dtype == torch.float64 else fused.group_norm(*inputs, groups, 1e-5, silu)[0]
        found.append([y, *torch.autograd.grad((y * upstream).sum(), inputs)])
    for exact, ours in zip(*found, strict=True):
        assert ours.dtype == torch.float32
        assert (exact - ours).abs().max() < 2e-5 * (1 + exact.abs().max())
    assert found[1][0].is_contiguous(memory_format=torch.channels_last)


def test_triton_group_norm_bfloat16_and_other_layouts():
    x = torch.randn(2, 24, 6, 5, device=DEVICE)
    weight, bias = torch.randn(2, 1, 24, device=DEVICE)
    exact = plain(x, weight, bias, 6, True)
    ours, _ = fused.group_norm(x.bfloat16(), weight, bias, 6, 1e-5, True)
    assert ours.dtype == torch.bfloat16 and (exact - ours).abs().max() < 0.02 * exact.abs().max()
    assert torch.allclose(fused.group_norm(x, weight, bias, 6, 1e-5, True)[0], exact, atol=1e-5)


@pytest.mark.parametrize("values", [4, 256])
def test_triton_expected_bits_equal_plain(values):
    both = torch.randn(2, 2 * values, 9, 7).mul(5).contiguous(memory_format=torch.channels_last)
    for logits in (both[:, values:], both[:, :values, :4], torch.randn(1, values, 3, 5)):
        with torch.enable_grad():
            exact = expected_bits(logits, 0.1)
        assert torch.allclose(fused.expected_bits(logits.to(DEVICE), 0.1).cpu(), exact, atol=1e-6)


@pytest.mark.gpu
def test_triton_group_norm_gpu_equals_cpu():
    norm, x, time = GroupNorm(48), torch.randn(3, 48, 9, 8), torch.randn(3, 96)
    with torch.no_grad():
        here = norm(x, time, silu=True)
        there = fused.TritonGroupNorm(48).cuda()(x.cuda(), time.cuda(), silu=True)
    assert torch.allclose(here, there.cpu(), atol=1e-5)
