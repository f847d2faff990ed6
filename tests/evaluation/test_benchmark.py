import pytest
import torch

from pix2seqd.checkpoint import Checkpoint, save_pretrained
from pix2seqd.config import DataConfig, InferConfig
from pix2seqd.data.synthetic.shapes import TAXONOMY
from pix2seqd.evaluation import benchmark as module
from pix2seqd.evaluation.benchmark import benchmark, flop, measure
from pix2seqd.inference.tiling import Tiling


@pytest.fixture
def few_runs(monkeypatch):
    """Medians of three runs at most, since the numbers need not be exact."""
    monkeypatch.setattr(
        module, "measure", lambda run, device, warm_up=True, runs=5: measure(run, device, warm_up, min(runs, 3))
    )


@pytest.mark.usefixtures("few_runs")
def test_benchmark_measures_every_part_and_says_where():
    said = []
    results = benchmark("tiny", [32], [1, 2], "cpu", "float32", said.append)
    (found,) = results["sizes"].values()
    parts = [f"{part}_{kind}" for part in ("encoder", "step") for kind in ("s", "tflop", "share_of_limit")]
    parts += ["end_to_end_1_steps_s", "images_per_s_2_steps", "peak_memory_gb", "best_batch"]
    assert all(found[part] > 0 for part in parts)
    assert found["end_to_end_2_steps_s"] > found["encoder_s"]
    assert {"torch", "device", "threads", "limit_tflops"} <= set(results["machine"])
    assert said
    first, *_, last = results["items"]
    assert (first, last) == ("plain", "all")
    assert all(found[f"{part}_s"] > 0 for found in results["items"].values() for part in ("encoder", "step"))
    assert set(results["machine"]["speed"].split(", ")) == set(results["items"]) - {"plain", "all"}


@pytest.mark.usefixtures("few_runs")
def test_benchmark_checkpoints_with_a_diameter_do_not_search_the_scale(tiny, build, tmp_path, monkeypatch):
    data = DataConfig(size=(32, 32), layout="tile", overlap=8, diameter=6.0)
    save_pretrained(Checkpoint(build(tiny), TAXONOMY, data, InferConfig(steps=1, consensus=3)), tmp_path)
    monkeypatch.setattr(Tiling, "estimate_scale", lambda *_: pytest.fail("the benchmark searched the scale"))
    monkeypatch.setattr(module, "ceiling", lambda *_: 1e12)
    results = benchmark(str(tmp_path), [64], [1], "cpu", "float32", str)
    assert results["sizes"]["64"]["end_to_end_1_steps_s"] > 0


@pytest.mark.gpu
def test_benchmark_gpu():
    results = benchmark("tiny", [32], [1], "cuda", "auto", str)
    assert results["sizes"]["32"]["step_share_of_limit"] > 0


def test_flop_counts_convolutions_and_products():
    convolution, x = torch.nn.Conv2d(4, 8, 3, padding=1), torch.randn(1, 4, 6, 5)
    assert flop(lambda: convolution(x)) == 2 * 9 * 4 * 8 * 30
    q, k = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8)
    with torch.no_grad():
        counted = flop(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, k))
    assert counted == 2 * 2 * (2 * 3) * 5 * 7 * 8, "two products for each head"
