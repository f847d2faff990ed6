"""CUDA graphs return the results of their functions."""

import warnings
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from pix2seqd.segmenter import Segmenter
from pix2seqd.speed.cuda_graphs import Graphed

pytestmark = pytest.mark.gpu


class Pair(NamedTuple):
    sums: list[Tensor | None]
    product: Tensor


def pair(x: Tensor, y: Tensor, more: Tensor | None = None) -> Pair:
    return Pair([x + y, None if more is None else x - more], x @ y)


def test_graphed_equals_the_function():
    graphed, n = Graphed(pair, torch.cuda.graph_pool_handle()), 0
    kept = []
    for mode in (torch.no_grad, torch.inference_mode, torch.no_grad):
        with mode():
            for size in (4, 5, 4, 4, 5):
                for more in (None, torch.randn(size, size, device="cuda"), None):
                    x, y = torch.randn(2, size, size, device="cuda")
                    kept.append((graphed(x, y, more), pair(x, y, more)))
    for found, expected in kept:  # later calls change no earlier result
        assert isinstance(found, Pair) and torch.equal(found.product, expected.product)
        for ours, theirs in zip(found.sums, expected.sums, strict=True):
            assert ours is None if theirs is None else torch.equal(ours, theirs)
            n += 1
    assert n == 90 and all(graphed.graphs.values()), "all were captured"


def test_graphed_not_capturable_warns_once():
    graphed = Graphed(lambda x: x * x.sum().item(), torch.cuda.graph_pool_handle())
    x = torch.ones(3, device="cuda")
    assert torch.equal(graphed(x), 3 * x)
    with pytest.warns(UserWarning, match="no CUDA graph"):
        assert torch.equal(graphed(x), 3 * x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(graphed(2 * x), 12 * x), "it warns once"
    assert torch.equal(torch.ones(2, device="cuda") + 1, torch.full((2,), 2.0, device="cuda")), "CUDA still works"


@pytest.mark.parametrize(("dtype", "min_agreement"), [("float32", 0.999), ("bfloat16", 0.97)])
def test_segmenter_gpu_equals_cpu(dtype, min_agreement):
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    here, there = (Segmenter.from_pretrained("nuclei-fast", device, dtype) for device in ("cpu", "cuda"))
    options = {"diameter": 24.0, "consensus": 1}
    expected = here.image(image, **options)
    found = [next(iter(there.images([image], **options))) for _ in range(3)]
    for each in found:
        assert np.array_equal(each.segmentation, found[0].segmentation), "the same again, with graphs"
        assert np.mean((each.segmentation > 0) == (expected.segmentation > 0)) > min_agreement
    assert there.model.mask_decoder.predict.graphs
