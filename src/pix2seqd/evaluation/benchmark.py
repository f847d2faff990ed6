"""Speed of a model on this machine, part by part, and the share of the machine's measured limit that it reaches."""

import copy
import math
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.table import Table
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from pix2seqd.checkpoint import Checkpoint, from_pretrained
from pix2seqd.config import DataConfig, InferConfig, ModelConfig
from pix2seqd.inference.runner import Runner
from pix2seqd.inference.tiling import Tiling
from pix2seqd.panoptic.taxonomy import Taxonomy
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.segmenter import Segmenter
from pix2seqd.speed import available, hardware, is_plain


def with_random_weights(preset: str) -> Checkpoint:
    """A preset of `ModelConfig`, for its speed alone."""
    torch.manual_seed(0)
    config = ModelConfig.preset(preset)  # pyright: ignore[reportArgumentType]
    model = Pix2SeqD(config).eval()
    with torch.no_grad():  # the last layers start at zero, which no trained model's are
        for parameter in model.mask_decoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    categories = [
        {"id": i, "name": f"class {i}", "supercategory": "thing", "isthing": 1, "color": [i, i, i]}
        for i in range(1, config.mask.classes)
    ]
    return Checkpoint(model, Taxonomy.from_coco(categories), DataConfig(), InferConfig(), preset)


def preset_or_checkpoint(name: str, trust_size: bool = False) -> Checkpoint:
    """A preset (paper, small, tiny; random weights), or a checkpoint; arguments as `from_pretrained`."""
    return with_random_weights(name) if name in ("paper", "small", "tiny") else from_pretrained(name, trust_size)


def benchmark(
    name: str,
    sizes: list[int],
    steps: list[int],
    device: str,
    dtype: Any,
    progress: Callable[[str], None] = print,
    trust_size: bool = False,
) -> dict[str, Any]:
    """Measure.

    Args:
        name: as `preset_or_checkpoint` takes it.
        sizes: sides of square images, network input; ascending, so that the peaks of memory are each size's own.
        steps: numbers of denoising steps to run end to end.
        device: of `Segmenter`.
        dtype: likewise.
        progress: called with what is measured next.
        trust_size: as `from_pretrained` takes it.

    Returns:
        {"machine": ..., "sizes": {size: ...}}: seconds are medians, after a warm-up; FLOP are counted, not estimated.
    """
    pretrained = preset_or_checkpoint(name, trust_size)
    segmenter = Segmenter(pretrained, device, dtype)
    plain, count = pretrained.model, _counter(pretrained.model)
    progress("the machine's limit")
    limit = ceiling(segmenter.device, segmenter.bfloat16)
    settings = {"model": name, "dtype": "bfloat16" if segmenter.bfloat16 else "float32"}
    hardware_found = {**machine(segmenter.device, segmenter.bfloat16), "limit_tflops": limit / 1e12}

    results = {}
    for size in sorted(sizes):
        progress(f"{name} at {size}")
        results[str(size)] = _at_size(_for_size(segmenter, size), _image(size), steps, limit, count)
    for size in sorted(sizes):  # afterwards: the process's peaks of memory are those of single images
        progress(f"the best batch at {size}")
        alone, sized = results[str(size)], _for_size(segmenter, size)
        results[str(size)] |= _best_batch(sized, _image(size), min(steps), limit, count, alone)
    smallest = min(sizes)
    progress(f"each item of pix2seqd.speed at {smallest}")
    items = gains(plain, *_inputs(_for_size(segmenter, smallest), _image(smallest), 1), segmenter.bfloat16)
    return {**settings, "machine": hardware_found, "sizes": results, "items": items}


def gains(model: Pix2SeqD, images: Tensor, m_t: Tensor, bfloat16: bool) -> dict[str, dict[str, float]]:
    """Seconds of encoder and decoder step as plain PyTorch, with each item of `pix2seqd.speed` alone, and with all.

    The model is plain, on the device of `images` `[b, 3, H, W]`, 0..1, and `m_t` `[b, bits, h, w]`, both channels last.
    """
    device = images.device
    names = available(device, torch.bfloat16 if bfloat16 else torch.float32)
    found = {}
    for title, items in (("plain", []), *((name, [name]) for name in names), ("all", names)):
        hardware.keep_freed_memory(False)  # an item of its own, which stays with the process otherwise
        fast = Runner(model, str(device), "bfloat16" if bfloat16 else "float32", items).model
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bfloat16, cache_enabled=False):
            runs = parts(fast, images, m_t)
            found[title] = {f"{name}_s": measure(runs[name], device) for name in ("encoder", "step")}
    return found


def _for_size(segmenter: Segmenter, size: int) -> Segmenter:
    """The same networks for square images of this side, each seen at once and sampled once."""
    checkpoint, result = segmenter.checkpoint, copy.copy(segmenter)
    data = checkpoint.data.replace(size=(size, size), layout="resize", diameter=0.0)
    infer = checkpoint.infer.replace(input_scale=1, consensus=1)
    result.checkpoint = replace(checkpoint, data=data, infer=infer)
    result.tiling = Tiling(result.checkpoint)
    return result


def _image(size: int) -> Image.Image:
    """A square image of 16 × 16 random colours, enlarged."""
    coarse = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    return Image.fromarray(coarse).resize((size, size))


Count = Callable[[Tensor, Tensor], dict[str, int]]
"""FLOP of the plain networks' `parts`, for images and noisy masks of these shapes."""


def _counter(model: Pix2SeqD) -> Count:
    """Counts on a copy without weights, which computes nothing."""
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    tensors = chain(model.parameters(), model.buffers())
    plain = copy.deepcopy(model, {id(tensor): fake.from_tensor(tensor) for tensor in tensors})

    def count(images: Tensor, m_t: Tensor) -> dict[str, int]:
        with fake:
            runs = parts(plain, fake.from_tensor(images), fake.from_tensor(m_t))
            return {name: flop(run) for name, run in runs.items()}

    return count


def _at_size(segmenter: Segmenter, image: Image.Image, steps: list[int], limit: float, count: Count) -> dict[str, Any]:
    device = segmenter.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    found = _networks(segmenter, image, 1, limit, count)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.png", Path(folder) / "out.png"
        image.save(source)
        for n in sorted(steps):
            seconds = measure(
                lambda n=n: segmenter.image(source, steps=n).save(target), device, warm_up=n == min(steps)
            )
            found[f"end_to_end_{n}_steps_s"] = seconds
            found[f"images_per_s_{n}_steps"] = 1 / seconds
            found.setdefault("before_and_after_s", max(seconds - _network_seconds(found, n), 0.0))
    found["peak_memory_gb"] = peak_memory(device)
    return found


def _networks(segmenter: Segmenter, image: Image.Image, batch: int, limit: float, count: Count) -> dict[str, float]:
    """Seconds, FLOP and share of the limit of encoder and decoder step for a batch of one image repeated."""
    device, (images, m_t) = segmenter.device, _inputs(segmenter, image, batch)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=segmenter.bfloat16):
        found, operations_of = {}, count(images, m_t)
        for name, run in parts(segmenter.model, images, m_t).items():
            seconds, operations = measure(run, device), operations_of[name]
            found[f"{name}_s"], found[f"{name}_tflop"] = seconds, operations / 1e12
            found[f"{name}_share_of_limit"] = operations / seconds / limit
    found["step_us_per_mask_pixel"] = 1e6 * found["step_s"] / m_t[:, 0].numel()
    return found


def _network_seconds(found: dict[str, float], steps: int) -> float:
    """Time of all network passes of a batch, from the times of `parts`."""
    return found["encoder_s"] + found["prepare_s"] + steps * found["step_s"]


def _inputs(segmenter: Segmenter, image: Image.Image, batch: int) -> tuple[Tensor, Tensor]:
    """One image and its noise, `batch` times, on the device and channels last."""
    tiling = segmenter.tiling
    window = next(tiling.split(tiling.resize(image), [torch.Generator().manual_seed(0)]))
    repeated = (part[None].repeat(batch, 1, 1, 1).to(segmenter.device) for part in (window.pixels, window.noise[0]))
    images, m_t = (part.contiguous(memory_format=torch.channels_last) for part in repeated)
    return images, m_t


def parts(model: Pix2SeqD, images: Tensor, m_t: Tensor) -> dict[str, Callable[[], Any]]:
    """The network passes, without gradients: "encoder" and "prepare" run once for an image, "step" once for a step.

    Args:
        model: plain, or as a `Runner` computes it.
        images: `[b, 3, H, W]`, 0..1, channels last.
        m_t: `[b, bits, h, w]`, likewise.
    """
    h, times = model.pixel_encoder(images), torch.linspace(1, 0, 20, device=images.device)
    prepared = model.mask_decoder.prepare(h, times)
    return {
        "encoder": lambda: model.pixel_encoder(images),
        "prepare": lambda: model.mask_decoder.prepare(h, times),
        "step": lambda: model.mask_decoder.predict(m_t, prepared.at(0)),
    }


def _best_batch(
    segmenter: Segmenter, image: Image.Image, steps: int, limit: float, count: Count, alone: dict[str, float]
) -> dict[str, float]:
    """Images/s of the networks with `steps` steps: batches grow from one (`alone`) as long as that pays."""
    best, best_rate = 1, 1 / _network_seconds(alone, steps)
    for batch in (2, 4, 8, 16, 32, 64):
        rate = batch / _network_seconds(_networks(segmenter, image, batch, limit, count), steps)
        if rate < 1.05 * best_rate:
            break
        best, best_rate = batch, rate
    return {"best_batch": best, "best_images_per_s": best_rate}


def measure(run: Callable[[], Any], device: torch.device, warm_up: bool = True, runs: int = 5) -> float:
    """Median seconds of several runs, of fewer where they take long."""
    if warm_up:
        run()
    taken: list[float] = []
    while len(taken) < runs and sum(taken) < 10:
        _wait(device)
        began = time.perf_counter()
        run()
        _wait(device)
        taken.append(time.perf_counter() - began)
    return median(taken)


def flop(run: Callable[[], Any]) -> int:
    """Floating-point operations of convolutions and matrix products, counted while they run."""
    with flop_counter() as counter:
        run()
    return counter.get_total_flops()


def flop_counter() -> FlopCounterMode:
    """PyTorch's, which knows a GPU's fused attention, and a CPU's too."""
    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    more = {attention: lambda q, k, v, *args, **kwargs: sdpa_flop_count(q, k, v)}
    return FlopCounterMode(display=False, custom_mapping=more)


def ceiling(device: torch.device, bfloat16: bool) -> float:
    """FLOP/s of a 3 × 3 convolution of 128 channels to 128, at 256 × 256: what decoders of this kind are made of.

    Of one image on a CPU, of 16 on a GPU, which one does not fill.
    """
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    convolution = nn.Conv2d(128, 128, 3, padding=1).to(device, dtype).to(memory_format=torch.channels_last)  # pyright: ignore
    x: Tensor = torch.randn(16 if device.type == "cuda" else 1, 128, 256, 256, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        return flop(lambda: convolution(x)) / measure(lambda: convolution(x), device, runs=20)


def machine(device: torch.device, bfloat16: bool) -> dict[str, Any]:
    """Hardware, versions, and what of `pix2seqd.speed` is on."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        cpuinfo = Path("/proc/cpuinfo")
        lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else platform.processor()
    versions = {package: version(package) for package in ("pix2seqd", "torch", "transformers")}
    return {
        "device": name,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "amx": bool(torch.cpu._is_amx_tile_supported()),
        "speed": "plain" if is_plain() else ", ".join(available(device, torch.bfloat16 if bfloat16 else torch.float32)),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **versions,
    }


def peak_memory(device: torch.device) -> float:
    """Gigabytes: of the device since the last reset, or of the whole process; NaN on systems that do not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 * (1 if sys.platform == "darwin" else 1024)


def render(results: dict[str, Any]) -> Iterator[Table]:
    """Tables of the machine and of the measured figures."""
    where = Table("machine", "", title="")
    for key, value in results["machine"].items():
        where.add_row(key, f"{value:.3g}" if isinstance(value, float) else str(value))
    yield where
    sizes = results["sizes"]
    table = Table("", *(f"{size} × {size}" for size in sizes))
    for key in next(iter(sizes.values())):
        table.add_row(key, *(f"{values[key]:.4g}" for values in sizes.values()))
    yield table
    plain = results["items"]["plain"]
    gained = Table(
        f"pix2seqd.speed, {next(iter(sizes))} × {next(iter(sizes))}", "encoder, ms", "times", "step, ms", "times"
    )
    for name, found in results["items"].items():
        cells = ((f"{1e3 * found[key]:.1f}", f"{plain[key] / found[key]:.2f}") for key in ("encoder_s", "step_s"))
        gained.add_row(name, *chain.from_iterable(cells))
    yield gained


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
