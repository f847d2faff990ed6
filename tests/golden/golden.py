"""What the bundled checkpoints, the presets and the commands gave before the package was rearranged.

`python tests/golden/golden.py` writes the files again; do so only where a change of results is meant and explained.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
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
CHECKPOINTS = ("nuclei", "nuclei-fast", "nuclei-video", "shapes")
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


def masks() -> Iterator[tuple[str, np.ndarray]]:
    """Segment ids, of every checkpoint on every image (one sample), of the consensus, around hints, and of the clip."""
    from pix2seqd import Panoptic, Segmenter

    for name in CHECKPOINTS:
        segmenter = Segmenter.from_pretrained(name, device="cpu", dtype="float32")
        for kind, image in images().items():
            yield f"{name}/{kind}", segmenter.image(image, consensus=1).segmentation
        if name == "nuclei-fast":
            image = images()["crop"]
            answer = segmenter.image(image, seed=5)
            yield f"{name}/consensus", answer.segmentation
            half = answer.segmentation.copy()
            half[:, 64:] = 0
            classes = {s.id: answer.taxonomy.class_of(s.category_id) for s in answer.segments}
            hints = Panoptic.from_segmentation(half, classes, answer.taxonomy)
            yield f"{name}/hints", segmenter.image(image, hints=hints).segmentation
            *_, (_, last) = segmenter.progress(image, seed=5)
            yield f"{name}/progress", last.segmentation
        if name.startswith("nuclei-"):
            for number, frame in enumerate(segmenter.video(clip(), consensus=3 if name == "nuclei-video" else 1)):
                yield f"{name}/frame{number}", frame.segmentation


def contract() -> dict[str, object]:
    """Options of every command, and names and shapes of the presets' parameters."""
    from pix2seqd import ModelConfig, Pix2SeqD

    options = {}
    for command in COMMANDS:
        run = [sys.executable, "-m", "pix2seqd", command, "--help"]
        text = subprocess.run(run, capture_output=True, text=True, check=True).stdout
        options[command] = sorted(set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)))
    shapes = {}
    for name in PRESETS:
        state = Pix2SeqD(ModelConfig.preset(name)).state_dict()
        shapes[name] = {key: list(value.shape) for key, value in state.items()}
    return {"options": options, "shapes": shapes}


if __name__ == "__main__":
    found = dict(masks())
    np.savez_compressed(MASKS, **{key: value.astype(np.uint16) for key, value in found.items()})
    CONTRACT.write_text(json.dumps(contract(), separators=(",", ":")).replace("},", "},\n") + "\n")
