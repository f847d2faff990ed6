import torch

from pix2seqd.layers.norms import GroupNorm


def test_group_norm_time_scales_and_shifts():
    norm, x, time = GroupNorm(8), torch.randn(2, 8, 4, 4), torch.randn(2, 16)
    scale, shift = time[:, :, None, None].chunk(2, dim=1)
    assert torch.allclose(norm(x, time), norm(x) * (scale + 1) + shift, atol=1e-5)
    assert torch.allclose(norm(x, time[:1]), norm(x) * (scale[:1] + 1) + shift[:1], atol=1e-5)
