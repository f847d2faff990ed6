import pytest
import torch

from pix2seqd.layers.norms import GroupNorm


@pytest.mark.parametrize("times", [None, 1, 3], ids=["no time", "one time", "a time per example"])
def test_bfloat16_on_a_cpu_has_the_gradients_of_float32(times):
    """There it has a backward of its own."""
    torch.manual_seed(0)
    norm = GroupNorm(24)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    x = torch.randn(3, 24, 5, 4).bfloat16().contiguous(memory_format=torch.channels_last)
    time = None if times is None else torch.randn(times, 48)
    wanted = torch.randn(3, 24, 5, 4)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        inputs = [x.to(dtype).requires_grad_(), *norm.parameters()]
        inputs += [] if time is None else [time.clone().requires_grad_()]
        y = norm(inputs[0], inputs[3] if time is not None else None)
        assert y.dtype == dtype
        found.append([y, *torch.autograd.grad((y * wanted).sum(), inputs)])
    for exact, rounded in zip(*found, strict=True):
        assert (exact - rounded).abs().max() < 0.02 * exact.abs().max()


def test_the_time_scales_and_shifts_what_is_normalised():
    norm, x, time = GroupNorm(8), torch.randn(2, 8, 4, 4), torch.randn(2, 16)
    scale, shift = time[:, :, None, None].chunk(2, dim=1)
    assert torch.allclose(norm(x, time), norm(x) * (scale + 1) + shift, atol=1e-5)
    assert torch.allclose(norm(x, time[:1]), norm(x) * (scale[:1] + 1) + shift[:1], atol=1e-5)
