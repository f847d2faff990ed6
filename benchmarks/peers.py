"""Compare the speed with that of other models, on the same image: python benchmarks/peers.py [--sizes 512,1024]

Mask2Former (ResNet-50) and EoMT from `transformers`, built from their configurations with random weights, against
pix2seqd at the paper's size. The other models: read the file, resize, normalise, forward; post-processing is not
counted, which favours them. pix2seqd: the same and everything after it, up to the panoptic PNG.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from transformers import (
    EomtConfig,
    EomtForUniversalSegmentation,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    ResNetConfig,
)

from pix2seqd.checkpoint import Checkpoint
from pix2seqd.evaluation.benchmark import machine, measure, with_random_weights
from pix2seqd.files import write_json
from pix2seqd.segmenter import Segmenter
from pix2seqd.speed.exchange import cast_weights
from pix2seqd.speed.hardware import keep_freed_memory


def mask2former(size: int):
    backbone = ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"])  # ResNet-50
    return Mask2FormerForUniversalSegmentation(Mask2FormerConfig(backbone_config=backbone, num_labels=133))


def eomt(hidden_size: int, layers: int, heads: int):
    return lambda size: EomtForUniversalSegmentation(
        EomtConfig(
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            image_size=size,
            num_labels=133,
        )
    )


PEERS = {"Mask2Former R50": mask2former, "EoMT-S": eomt(384, 12, 6), "EoMT-L": eomt(1024, 24, 16)}


def read(path: Path, size: int) -> torch.Tensor:
    pixels = np.asarray(Image.open(path).convert("RGB").resize((size, size)), np.float32) / 255
    return ((torch.from_numpy(pixels) - 0.45) / 0.225).permute(2, 0, 1)[None]


def peer_seconds(build, path: Path, size: int, device: torch.device, dtype: torch.dtype, compiled: bool) -> float:
    torch.manual_seed(0)
    model = build(size).eval().to(device).to(memory_format=torch.channels_last)
    if dtype == torch.bfloat16:
        cast_weights(model)
    forward = torch.compile(model) if compiled else model

    def run() -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            forward(pixel_values=read(path, size).to(device).contiguous(memory_format=torch.channels_last))

    return measure(run, device)


def pix2seqd_seconds(
    pretrained: Checkpoint, path: Path, size: int, device: torch.device, dtype: torch.dtype, steps: int
) -> float:
    data = pretrained.data.replace(size=(size, size))
    sized = Checkpoint(pretrained.model, pretrained.taxonomy, data, pretrained.infer, "paper")
    segmenter = Segmenter(sized, str(device), str(dtype).removeprefix("torch."))
    target = path.with_name("out.png")
    return measure(lambda: segmenter.image(path, steps=steps).save(target), device, warm_up=steps < 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="512,1024")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--steps", default="2,20")
    parser.add_argument("--peers", default=",".join(PEERS), help="some of: %(default)s")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--compile", action="store_true", help="torch.compile for the other models")
    parser.add_argument("--preset", default="paper", help="preset of pix2seqd")
    parser.add_argument("--out", type=Path, default=Path("peers.json"))
    given = parser.parse_args()
    if given.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device; leave --device out")
    keep_freed_memory()  # the other models gain by it too
    pretrained = with_random_weights(given.preset)
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.png"
        for size in map(int, given.sizes.split(",")):
            rng = np.random.default_rng(0)
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).resize((size, size)).save(path)
            for dtype in (getattr(torch, name) for name in given.dtypes.split(",")):
                at = {"size": size, "dtype": str(dtype).removeprefix("torch.")}
                for name in filter(None, given.peers.split(",")):
                    try:
                        seconds = peer_seconds(PEERS[name], path, size, given.device, dtype, given.compile)
                    except RuntimeError as error:  # not every model runs in every precision
                        print(f"{name} {at}: {str(error).splitlines()[0]}")
                        continue
                    rows.append({"model": name, **at, "seconds": seconds})
                for steps in map(int, given.steps.split(",")):
                    seconds = pix2seqd_seconds(pretrained, path, size, given.device, dtype, steps)
                    rows.append({"model": f"pix2seqd {given.preset}, {steps} steps", **at, "seconds": seconds})
    table = Table("model", "size", "dtype", "seconds", f"against pix2seqd, {given.steps.split(',')[0]} steps")
    base_name = f"{given.steps.split(',')[0]} steps"
    for row in rows:
        base = next(
            r["seconds"]
            for r in rows
            if r["size"] == row["size"] and r["model"].endswith(base_name) and r["dtype"] == row["dtype"]
        )
        table.add_row(
            row["model"], str(row["size"]), row["dtype"], f"{row['seconds']:.3f}", f"{row['seconds'] / base:.2f}"
        )
    Console().print(table)
    write_json(given.out, {"machine": machine(given.device), "compiled": given.compile, "rows": rows})


if __name__ == "__main__":
    main()
