"""Is onnxruntime faster? python benchmarks/exported.py [--models nuclei-fast,paper] [--size 256]

Encoder and decoder step of one window, float32, on all threads: our networks as `Segmenter` runs them, and the exported
graphs (extra `onnx`) in onnxruntime. Nothing else may run meanwhile.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from pix2seqd.export import OnnxSampler, export_onnx, run
from pix2seqd.files import write_json
from pix2seqd.run.benchmark import machine, measure, with_random_weights
from pix2seqd.sampler import Sampler
from pix2seqd.weights import from_pretrained

CPU = torch.device("cpu")


def seconds(name: str, size: int, folder: Path) -> dict[str, float]:
    model = (with_random_weights(name) if name == "paper" else from_pretrained(name)).model
    export_onnx(model, folder, (size, size))
    exported, sampler = OnnxSampler(folder, model), Sampler(model, "cpu", "float32")
    side = size // model.config.mask_stride
    images, m_t = torch.rand(1, 3, size, size), torch.randn(1, model.config.total_bits, side, side)
    channels_last = m_t.contiguous(memory_format=torch.channels_last)
    h = sampler.encoded([images[0]])
    with torch.inference_mode():
        prepared = sampler.model.mask_decoder.prepare(h, torch.linspace(1, 0, 20)).at(0)
    arrays = [x.numpy() for x in (m_t, h.map.contiguous(), h.tokens)]
    time = np.array([1.0], np.float32)

    @torch.inference_mode()
    def step() -> None:
        sampler.model.mask_decoder.predict(channels_last, prepared)

    return {
        "encoder, ours": measure(lambda: sampler.encoded([images[0]]), CPU),
        "encoder, onnxruntime": measure(lambda: run(exported.encoder, images.numpy()), CPU),
        "step, ours": measure(step, CPU),
        "step, onnxruntime": measure(lambda: run(exported.step, *arrays, time), CPU),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="nuclei-fast,paper", help="checkpoints, or paper with random weights")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path("exported.json"))
    given = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in given.models.split(","):
            found[name] = seconds(name, given.size, Path(folder) / name)
    table = Table("seconds", *found)
    for part in next(iter(found.values())):
        table.add_row(part, *(f"{values[part]:.3f}" for values in found.values()))
    Console().print(table)
    write_json(given.out, {"machine": machine(CPU), "size": given.size, "seconds": found})


if __name__ == "__main__":
    main()
