"""Results in bfloat16 are close to those in float32."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from pix2seqd.data import open_dataset
from pix2seqd.evaluation.images import evaluate
from pix2seqd.metrics.panoptic_quality import PanopticQuality
from pix2seqd.segmenter import Segmenter
from pix2seqd.speed.hardware import native_bfloat16

ROOT = Path(__file__).parents[2]
NUCLEI = ROOT.parent / "shared" / "data" / "nuclei"

aten = torch.ops.aten
PRODUCTS = {aten.conv2d.default, aten.linear.default, aten.matmul.default}  # as they are called in inference mode


class Products(TorchDispatchMode):
    """Products of bfloat16 numbers as bfloat16 hardware computes them: summed in float32, rounded once.

    Without such hardware PyTorch computes the same, but takes ten times as long as this class.
    """

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in PRODUCTS or args[0].dtype != torch.bfloat16:
            return func(*args, **(kwargs or {}))
        self.count += 1
        args, kwargs = tree_map_only(Tensor, lambda x: x.float(), (args, kwargs or {}))
        return func(*args, **kwargs).bfloat16()


def products() -> AbstractContextManager[Any]:
    return nullcontext() if native_bfloat16(torch.device("cpu")) else Products()


def segmenters() -> tuple[Segmenter, Segmenter]:
    return (
        Segmenter.from_pretrained("nuclei-fast", device="cpu", dtype="float32"),
        Segmenter.from_pretrained("nuclei-fast", device="cpu", dtype="bfloat16"),
    )


def test_products_equal_pytorch():
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(8, 8, 3, padding=1)
    x, linear = torch.randn(1, 8, 16, 16), torch.nn.Linear(16, 4)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        slow = linear(convolution(x))
        with Products() as mode:
            fast = linear(convolution(x))
    assert mode.count == 2
    assert (slow.float() - fast.float()).abs().max() <= 2**-7 * slow.float().abs().max()


def test_bfloat16_example_crop_close_to_float32():
    image = np.asarray(Image.open(ROOT / "examples" / "nuclei.png"))[:256, :256]
    single, half = segmenters()
    expected = single.image(image, diameter=24.0)
    with products():
        found = half.image(image, diameter=24.0)
    quality = PanopticQuality(single.taxonomy)
    quality.update(expected, found)
    assert quality.compute()["All"]["pq"] > 0.9


@pytest.mark.slow
@pytest.mark.skipif(not NUCLEI.is_dir(), reason="no ../shared/data/nuclei")
def test_bfloat16_pq_within_0_3_points():
    single, half = segmenters()
    dataset = open_dataset(f"coco:{NUCLEI}@val", single.checkpoint.data.size)
    expected = evaluate(single, dataset)
    with products():
        found = evaluate(half, dataset)
    expected, found = (100 * r["all"]["panoptic_quality"]["Things"]["pq"] for r in (expected, found))
    assert expected > 50
    assert abs(found - expected) <= 0.3, (expected, found)
