import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pix2seqd.speed import compile_c
from pix2seqd.speed.winograd import Winograd, is_supported

pytestmark = pytest.mark.usefixtures("compiled")


def convolution(channels: int, out: int, bias: bool = True) -> nn.Conv2d:
    torch.manual_seed(channels + out)
    return nn.Conv2d(channels, out, 3, padding=1, bias=bias).to(memory_format=torch.channels_last)  # pyright: ignore


def exactly(direct: nn.Conv2d, x: Tensor) -> Tensor:
    return copy.deepcopy(direct).double()(x.double())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 9), st.integers(1, 3), st.integers(1, 70), st.integers(1, 70), st.booleans())
def test_winograd_equals_direct_convolution(batch: int, channels: int, out: int, height: int, width: int, bias: bool):
    direct = convolution(32 * channels, 32 * out, bias)
    x = torch.randn(batch, 32 * channels, height, width)
    with torch.inference_mode():
        found = Winograd(direct)(x)
        exact = exactly(direct, x)
    assert found.shape == exact.shape
    assert torch.allclose(found.double(), exact, atol=2e-5)


@pytest.mark.usefixtures("nothing_loaded")
@pytest.mark.parametrize("lanes", [4, 16])
def test_winograd_other_vector_lengths(lanes: int, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compile_c, "_FLAGS", [*compile_c._FLAGS, f"-DLANES={lanes}"])
    direct, x = convolution(96, 64), torch.randn(2, 96, 23, 30)
    with torch.inference_mode():
        fast = Winograd(direct)
        assert fast.kernel.shape == (36 * 64 // (2 * lanes), 96, 2 * lanes)
        assert torch.allclose(fast(x).double(), exactly(direct, x), atol=2e-5)


def test_winograd_rounding_errors():
    direct, x = convolution(128, 128), torch.randn(1, 128, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        exact = exactly(direct, x)
        errors = [(f(x) - exact).square().mean().sqrt() for f in (direct, Winograd(direct))]
    assert 0 < errors[1] < 3 * errors[0], errors


def test_winograd_same_bits_alone_in_batch_any_threads(set_threads):
    fast, x = Winograd(convolution(64, 96)), torch.randn(5, 64, 36, 50)
    with torch.inference_mode():
        together = fast(x)
        for n in (1, 2, 3):
            set_threads(n)
            assert all(torch.equal(fast(x[i : i + 1])[0], together[i]) for i in range(5))
    assert together.is_contiguous(memory_format=torch.channels_last)


def test_winograd_falls_back_to_direct_convolution():
    direct, x = convolution(32, 32), torch.randn(1, 32, 20, 20)
    fast = Winograd(direct)
    with torch.inference_mode():
        found = fast(x)
        assert not torch.equal(found, direct(x))
        assert torch.equal(fast.to(memory_format=torch.channels_last)(x), found)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(fast(x), direct(x))
        with pytest.raises(RuntimeError, match="channels"):
            fast(torch.randn(1, 16, 20, 20))
        assert torch.equal(copy.deepcopy(fast).double()(x.double()), copy.deepcopy(direct).double()(x.double()))
    x.requires_grad_()
    assert torch.equal(*(torch.autograd.grad(layer(x).sum(), x)[0] for layer in (fast, direct)))


def test_winograd_is_supported_plain_3_by_3_of_many_channels():
    refused = [
        nn.Conv2d(64, 64, 1),
        nn.Conv2d(64, 64, 3),
        nn.Conv2d(64, 64, 3, padding=1, stride=2),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(64, 64, 3, padding=2, dilation=2),
        nn.Conv2d(3, 64, 3, padding=1),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"),
    ]
    assert not any(is_supported(layer) for layer in refused)
    assert is_supported(convolution(64, 64))
