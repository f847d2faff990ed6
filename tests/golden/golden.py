"""What the bundled checkpoints, the presets and the commands gave before the package was rearranged.

`python tests/golden/golden.py` writes the files again; do so only where a change of results is meant and explained.
"""

import json
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
MASKS, CONTRACT = HERE / "masks.npz", HERE / "contract.json"
EXAMPLE = HERE.parents[1] / "examples" / "nuclei.png"
COMMANDS = (
    *("ablate", "benchmark", "check-data", "convert-data", "distill", "evaluate", "export", "figures", "metric"),
    *("models", "segment", "serve", "shard", "sweep", "train", "video"),
)
CHECKPOINTS = ("facades", "nuclei", "nuclei-fast", "nuclei-video", "shapes")
PRESETS = ("paper", "small", "tiny")


def images() -> dict[str, np.ndarray]:
    """Three images: a crop of the example, another one of odd size, and a drawn scene."""
    from pix2seqd.data import open_dataset

    example = np.asarray(Image.open(EXAMPLE).convert("RGB"))
    scene = np.asarray(open_dataset("shapes:3@7", (128, 128))[2].image)
    return {"crop": example[40:168, 60:188], "odd": example[200:301, 30:181], "scene": scene}


def clip() -> list[np.ndarray]:
    """Three frames: a view that moves over the example."""
    example = np.asarray(Image.open(EXAMPLE).convert("RGB"))
    return [example[100 + 3 * k : 228 + 3 * k, 100 + 5 * k : 228 + 5 * k] for k in range(3)]


def masks(name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Segment ids of a checkpoint: on every image (one sample), of the consensus, around hints, and of the clip."""
    from pix2seqd import Panoptic, Segmenter

    segmenter = Segmenter.from_pretrained(name, device="cpu", dtype="float32")
    selection = {"min_score": 0.0} if name == "facades" else {}  # of these images it is never sure
    for kind, image in images().items():
        yield f"{name}/{kind}", segmenter.image(image, consensus=1, **selection).segmentation
    if name == "nuclei-fast":
        image = images()["crop"]
        answer = segmenter.image(image, seed=5)
        yield f"{name}/consensus", answer.segmentation
        half = answer.segmentation.copy()
        half[:, 64:] = 0
        hints = Panoptic.from_segmentation(half, answer.classes, answer.taxonomy)
        yield f"{name}/hints", segmenter.image(image, hints=hints).segmentation
        *_, (_, last) = segmenter.progress(image, seed=5)
        yield f"{name}/progress", last.segmentation
    if name.startswith("nuclei-"):
        for number, frame in enumerate(segmenter.video(clip(), consensus=3 if name == "nuclei-video" else 1)):
            yield f"{name}/frame{number}", frame.segmentation


def options() -> dict[str, list[str]]:
    """The options of every command, as its help lists them."""
    from pix2seqd.cli.main import app

    found = {}
    for command in COMMANDS:
        with redirect_stdout(StringIO()) as text:
            app([command, "--help"])
        found[command] = sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text.getvalue())))
    return found


def shapes() -> dict[str, dict[str, list[int]]]:
    """Names and shapes of the presets' parameters."""
    import torch

    from pix2seqd import ModelConfig, Pix2SeqD

    found = {}
    for name in PRESETS:
        with torch.device("meta"):
            state = Pix2SeqD(ModelConfig.preset(name)).state_dict()
        found[name] = {key: list(value.shape) for key, value in state.items()}
    return found


if __name__ == "__main__":
    found = {key: value.astype(np.uint16) for name in CHECKPOINTS for key, value in masks(name)}
    np.savez_compressed(MASKS, **found)
    contract = {"options": options(), "shapes": shapes()}
    CONTRACT.write_text(json.dumps(contract, separators=(",", ":")).replace("},", "},\n") + "\n")
