"""Compare onnxruntime with PyTorch: python benchmarks/exported.py [--models nuclei-fast,paper] [--size 256]

Encoder and decoder step of one window, float32, on all threads: the networks as `Segmenter` runs them, and the exported
graphs (extra `onnx`) in onnxruntime. Nothing else should run on the machine.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table

from pix2seqd.evaluation.benchmark import machine, measure, parts, preset_or_checkpoint
from pix2seqd.files import write_json
from pix2seqd.inference.runner import Runner
from pix2seqd.interop.onnx import export_onnx

CPU = torch.device("cpu")


@torch.inference_mode()
def seconds(name: str, size: int, folder: Path) -> dict[str, float]:
    model = preset_or_checkpoint(name).model
    export_onnx(model, folder, (size, size))
    encoder, step = (
        onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
        for name in ("encoder.onnx", "step.onnx")
    )
    model = Runner(model, "cpu", "float32").model
    side = size // model.config.mask.stride
    shapes = (1, 3, size, size), (1, model.config.mask.total_bits, side, side)
    images, m_t = (torch.rand(shape).contiguous(memory_format=torch.channels_last) for shape in shapes)
    h, part = model.pixel_encoder(images), parts(model, images, m_t)
    arrays = [x.contiguous().numpy() for x in (images, m_t, h.map, h.tokens)]
    time = np.array([1.0], np.float32)
    return {
        "encoder, pix2seqd": measure(part["encoder"], CPU),
        "encoder, onnxruntime": measure(lambda: run(encoder, arrays[0]), CPU),
        "step, pix2seqd": measure(part["step"], CPU),
        "step, onnxruntime": measure(lambda: run(step, *arrays[1:], time), CPU),
    }


def run(session: Any, *inputs: np.ndarray) -> list[np.ndarray]:
    """The results of a graph for its inputs, in order."""
    names = [node.name for node in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="nuclei-fast,paper", help="checkpoints or presets")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path("exported.json"))
    options = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models.split(","):
            found[name] = seconds(name, options.size, Path(folder) / name)
    table = Table("seconds", *found)
    for part in next(iter(found.values())):
        table.add_row(part, *(f"{values[part]:.3f}" for values in found.values()))
    Console().print(table)
    write_json(options.out, {"machine": machine(CPU), "size": options.size, "seconds": found})


if __name__ == "__main__":
    main()
