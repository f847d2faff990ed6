import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pix2seqd.loss import cross_entropy, instance_weights, l2


def example(seed: int = 0, values: tuple[int, ...] = (4, 8)):
    generator = torch.Generator().manual_seed(seed)
    logits = tuple(torch.randn(2, n, 3, 5, generator=generator) * 5 for n in values)
    masks = torch.stack([torch.randint(0, n, (2, 3, 5), generator=generator) for n in values], dim=1)
    return logits, masks, torch.rand(2, 3, 5, generator=generator)


def test_cross_entropy_equals_torch():
    logits, masks, weights = example()
    ours, theirs = ([group.clone().requires_grad_() for group in logits] for _ in range(2))
    loss = cross_entropy(tuple(ours), masks, weights)
    parts = [F.cross_entropy(group, masks[:, k], reduction="none") for k, group in enumerate(theirs)]
    expected = weights * torch.stack(parts).mean(dim=0)
    assert torch.allclose(loss, expected, atol=1e-6)
    upstream = torch.randn(loss.shape, generator=torch.Generator().manual_seed(1))
    loss.backward(upstream)
    expected.backward(upstream)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-6)


def test_cross_entropy_large_logits():
    logits, masks, weights = example()
    large = tuple((group * 1e4).requires_grad_() for group in logits)
    loss = cross_entropy(large, masks, weights).mean()
    loss.backward()
    assert loss.isfinite()
    assert all(group.grad.isfinite().all() for group in large)


def test_cross_entropy_bfloat16_logits_in_float32():
    logits, masks, weights = example()
    halves = tuple(group.bfloat16() for group in logits)
    assert torch.equal(
        cross_entropy(halves, masks, weights), cross_entropy(tuple(h.float() for h in halves), masks, weights)
    )


def test_cross_entropy_keeps_the_logits_once():
    """At 512² masks they are 0.5 GB per image, so nothing else of their size may be kept."""
    logits, masks, weights = example(values=(256, 256))
    leaves = tuple(group.requires_grad_() for group in logits)
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        cross_entropy(leaves, masks, weights)
    assert sum(kept.values()) < 1.1 * sum(group.untyped_storage().nbytes() for group in logits)


def test_l2():
    m_pred, m_bits = torch.full((1, 4, 2, 2), 0.3), torch.full((1, 4, 2, 2), 0.1)
    weights = torch.tensor([[[1.0, 2.0], [0.0, 1.0]]])
    assert torch.allclose(l2(m_pred, m_bits, weights), 0.04 * weights)


@pytest.mark.parametrize("p", ["0.0", "0.2", "0.5", "1.0"])
def test_instance_weights_equal_the_official_ones(official, p: str):
    ids = torch.from_numpy(official["unit/mask_weight/ids"]).long()
    ours = instance_weights(ids, float(p), 101)
    assert np.abs(ours.numpy() - official[f"unit/mask_weight/p{p}"]).max() < 2e-6


def test_instance_weights_ids_out_of_range_equal_the_official_ones(official):
    ids = torch.from_numpy(official["unit/mask_weight/ids_oob"]).long()
    ours = instance_weights(ids, 0.2, 101)
    assert np.abs(ours.numpy() - official["unit/mask_weight/oob_p0.2"]).max() < 2e-6


@settings(max_examples=50, deadline=None)
@given(
    p=st.floats(0, 2),
    max_instances=st.integers(1, 100),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    seed=st.integers(0, 1000),
)
def test_instance_weights_mean_one_and_larger_for_small_instances(
    p: float, max_instances: int, height: int, width: int, seed: int
):
    ids = torch.randint(0, max_instances, (2, height, width), generator=torch.Generator().manual_seed(seed))
    weights = instance_weights(ids, p, max_instances)
    assert torch.allclose(weights.mean(dim=(1, 2)), torch.ones(2), atol=1e-4)
    for image, weight in zip(ids, weights, strict=True):
        present, counts = image.unique(return_counts=True)
        of = torch.stack([weight[image == i].mean() for i in present])
        assert all(torch.allclose(weight[image == i], of[n], rtol=1e-5) for n, i in enumerate(present))
        order = counts.argsort()
        assert (of[order].diff() <= 1e-6).all()
