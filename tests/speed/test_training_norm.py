import pytest
import torch

from pix2seqd.speed.training_norm import TrainingGroupNorm


@pytest.mark.parametrize("times", [None, 1, 3], ids=["no time", "one time", "a time per example"])
def test_training_group_norm_bfloat16_gradients_equal_float32(times):
    torch.manual_seed(0)
    norm = TrainingGroupNorm(24)
    norm.weight.data.normal_()
    norm.bias.data.normal_()
    x = torch.randn(3, 24, 5, 4).bfloat16().contiguous(memory_format=torch.channels_last)
    time = None if times is None else torch.randn(times, 48)
    upstream = torch.randn(3, 24, 5, 4)
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        inputs = [x.to(dtype).requires_grad_(), *norm.parameters()]
        inputs += [] if time is None else [time.clone().requires_grad_()]
        y = norm(inputs[0], inputs[3] if time is not None else None)
        assert y.dtype == dtype
        found.append([y, *torch.autograd.grad((y * upstream).sum(), inputs)])
    for exact, rounded in zip(*found, strict=True):
        assert (exact - rounded).abs().max() < 0.02 * exact.abs().max()
