"""Compare with StarDist and Cellpose on nuclei: all trained from nothing on the same images for the same time.

Each tool has its own virtual environment. None loads trained weights.

    python -m venv stardist && stardist/bin/pip install stardist tensorflow-cpu pillow
    python -m venv cellpose && cellpose/bin/pip install "cellpose<4" pillow    # with a CPU build of torch

DIR has images/train, images/val, labels/train and labels/val (label images as TIFF, 0 is background). A tenth of the
train images, chosen by their content as `pix2seqd train own` does, is for the tools to choose by (`tune`): the best
weights of pix2seqd and StarDist, and StarDist's thresholds. All tools are scored on the val images. In this order, the
tools with their own python, the others in the project's environment:

    python benchmarks/peers_nuclei.py DIR --tool split --out OUT
    stardist/bin/python benchmarks/peers_nuclei.py DIR --tool stardist --minutes 30 --out OUT
    cellpose/bin/python benchmarks/peers_nuclei.py DIR --tool cellpose --minutes 30 --out OUT
    python benchmarks/peers_nuclei.py DIR --tool pix2seqd --minutes 30 --out OUT
    python benchmarks/peers_nuclei.py DIR --tool nuclei-fast --minutes 0 --out OUT   # the bundled checkpoint
    python benchmarks/peers_nuclei.py DIR --tool score --out OUT       # a Markdown table, and a contact sheet per tool

The minutes are CPU time of one thread, so that other work on the machine takes nothing from a tool. Included is what
a tool computes from the labels before its first step; StarDist's thresholds and Cellpose's model of sizes come after.

--minutes 0 only predicts with the weights that are there: repeat it in turns, since the score takes the shortest of
each image's times. A time goes from the image file to the label image on disk, without loading the weights; the
networks have run once before.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

Parts = dict[str, list[tuple[str, str]]]
"""Image and label image of each item of "train", "tune" and "test"."""
Predict = Callable[[str], np.ndarray]
"""From an image file to labels `[h, w]`."""
MAX_EPOCHS = 300
"""Of Cellpose. From 101 to 300 the learning rate rises in the first 10, and is halved ten times in the last 50."""
SHOWN = 12
"""Images in a contact sheet."""


def read(path: str) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Cost:
    """Seconds of the stages of a training, by the clock on the wall and of CPU."""

    def __init__(self) -> None:
        self.stages: dict[str, list[float]] = {}
        self._last = np.array([time.perf_counter(), cpu_seconds()])

    def end(self, stage: str) -> None:
        now = np.array([time.perf_counter(), cpu_seconds()])
        self.stages[stage], self._last = (now - self._last).tolist(), now
        print(f"{stage}: seconds, wall and CPU: {self.stages[stage]}", flush=True)


def stardist_image(path: str) -> np.ndarray:
    from csbdeep.utils import normalize

    return normalize(read(path), 1, 99.8, axis=(0, 1))


def stardist_augment(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As in StarDist's examples: turns and flips, intensity, noise."""
    turns, flip = np.random.randint(4), np.random.choice((-1, 1))
    image, labels = (np.rot90(a, turns)[::flip] for a in (image, labels))
    image = image * np.random.uniform(0.6, 2) + np.random.uniform(-0.2, 0.2)
    return image + 0.02 * np.random.uniform(0, 1) * np.random.normal(0, 1, image.shape), labels


def train_stardist(data: Path, parts: Parts, minutes: float, out: Path, cost: Cost) -> None:
    """The configuration of StarDist's examples, for images of three channels."""
    from keras.callbacks import Callback  # pyright: ignore[reportMissingImports]
    from stardist import fill_label_holes  # pyright: ignore[reportMissingImports]
    from stardist.models import Config2D, StarDist2D  # pyright: ignore[reportMissingImports]

    end = cpu_seconds() + 60 * minutes

    class Deadline(Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = cpu_seconds() > end

    images = {part: [stardist_image(image) for image, _ in parts[part]] for part in ("train", "tune")}
    labels = {part: [fill_label_holes(tifffile.imread(label)) for _, label in parts[part]] for part in images}
    config = Config2D(n_rays=32, grid=(2, 2), n_channel_in=3, use_gpu=False, train_tensorboard=False)
    model = StarDist2D(config, name="weights", basedir=str(out))
    model.prepare_for_training()
    model.callbacks.append(Deadline())
    tune = images["tune"], labels["tune"]
    model.train(images["train"], labels["train"], validation_data=tune, augmenter=stardist_augment, seed=0)
    cost.end("training")
    model.optimize_thresholds(*tune)
    cost.end("thresholds")


def load_stardist(out: Path) -> Predict:
    from stardist.models import StarDist2D  # pyright: ignore[reportMissingImports]

    model = StarDist2D(None, name="weights", basedir=str(out))
    return lambda path: model.predict_instances(stardist_image(path))[0]


def train_cellpose(data: Path, parts: Parts, minutes: float, out: Path, cost: Cost) -> None:
    """`train_seg` with its defaults, then `train_size` (fewer and smaller windows than its default, to save time).

    Channels are those for grey nuclei; nuclei are scaled to 17 pixels, as for Cellpose's own model of nuclei.
    """
    import cv2  # pyright: ignore[reportMissingImports]
    import torch
    from cellpose import io, train  # pyright: ignore[reportMissingImports]
    from cellpose.dynamics import labels_to_flows  # pyright: ignore[reportMissingImports]
    from cellpose.models import CellposeModel  # pyright: ignore[reportMissingImports]

    io.logger_setup()
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    images = [read(image) for image, _ in parts["train"]]
    labels = [tifffile.imread(label).astype(np.int32) for _, label in parts["train"]]
    flows = labels_to_flows(labels, device=torch.device("cpu"))
    cost.end("flows")
    given = {"train_data": images, "train_labels": flows, "channels": [0, 0]}

    def run(epochs: int, batches: int):
        began = cpu_seconds()
        net = CellposeModel(gpu=False, pretrained_model=False, diam_mean=17.0, mkldnn=False).net
        path, *_ = train.train_seg(net, **given, n_epochs=epochs, nimg_per_epoch=8 * batches, save_path=out)
        return cpu_seconds() - began, net, path

    run(1, 1)  # compiles
    short, long = run(1, 1)[0], run(1, 9)[0]
    cost.end("measuring a step")
    step = (long - short) / 8
    steps = (60 * minutes - cost.stages["flows"][1] - short) / step
    batches = int(np.ceil(steps / MAX_EPOCHS))
    print(f"{step:.2f} CPU seconds a step, {batches} steps an epoch", flush=True)
    _, net, path = run(max(1, round(steps / batches)), batches)
    cost.end("training")
    train.train_size(net, path, **given, bsize=256, n_epochs=2)
    cost.end("size model")
    (out / "weights.txt").write_text(str(path))


def load_cellpose(out: Path) -> Predict:
    from cellpose.models import CellposeModel, SizeModel  # pyright: ignore[reportMissingImports]

    path = (out / "weights.txt").read_text()
    model = CellposeModel(gpu=False, pretrained_model=path)
    size = SizeModel(model, pretrained_size=path + "_size.npy")

    def predict(path: str) -> np.ndarray:
        image = read(path)
        diameter, _ = size.eval(image, channels=[0, 0])
        return model.eval(image, channels=[0, 0], diameter=diameter)[0]

    return predict


def train_pix2seqd(data: Path, parts: Parts, minutes: float, out: Path, cost: Cost) -> None:
    clock = "import time; time.perf_counter = time.process_time; from pix2seqd.cli.main import main; main()"
    command = [sys.executable, "-c", clock, "train", "own", "--train-data", f"folder:{data}@train", "--init", "none"]
    command += ["--train.minutes", str(minutes), "--train.workers", "0", "--out", str(out / "run")]
    subprocess.run(command, check=True)
    cost.end("training")


def load_pix2seqd(out: Path) -> Predict:
    from pix2seqd.segmenter import Segmenter

    trained = out / "run" / "model"
    segmenter = Segmenter.from_pretrained(trained if trained.exists() else out.name)
    return lambda path: segmenter.image(path).to_labels()


def split(data: Path) -> Parts:
    from pix2seqd.data.check import content
    from pix2seqd.data.folder import Folder
    from pix2seqd.data.split import divide

    def files(dataset: Folder, name: str) -> list[tuple[str, str]]:
        images = [data / "images" / name / record["file_name"] for record in dataset.records]
        return [(str(i), str(next((data / "labels" / name).glob(f"{i.stem}.*")))) for i in images]

    train = Folder.open(data, "train")
    kept, tune = ([files(train, "train")[i] for i in part] for part in divide([content(s.image) for s in train]))
    return {"train": kept, "tune": tune, "test": files(Folder.open(data, "val"), "val")}


def predict(tool: Predict, parts: Parts, out: Path) -> None:
    """Write the labels of all test images, and append their times to times.json."""
    (out / "labels").mkdir(exist_ok=True)
    tool(parts["test"][0][0])
    seconds = []
    for image, _ in parts["test"]:
        began = time.perf_counter()
        tifffile.imwrite(out / "labels" / f"{Path(image).stem}.tif", tool(image).astype(np.uint16))
        seconds.append(time.perf_counter() - began)
    times = out / "times.json"
    times.write_text(json.dumps([*(json.loads(times.read_text()) if times.exists() else []), seconds]))


def score(data: Path, out: Path) -> None:
    """Print the table, and write OUT/TOOL.png."""
    from pix2seqd.data.folder import Folder
    from pix2seqd.metrics.average_precision import AveragePrecision
    from pix2seqd.metrics.panoptic_quality import PanopticQuality
    from pix2seqd.panoptic.panoptic import Panoptic

    truth = Folder.open(data, "val")
    thing = next(i for i, c in enumerate(truth.taxonomy.categories, start=1) if c.isthing)
    print("| tool | PQ | SQ | RQ | AP@0.5 | s an image | minutes, wall (CPU) |\n|---|---|---|---|---|---|---|")
    for folder in sorted(path.parent for path in out.glob("*/times.json")):
        quality, precision = PanopticQuality(truth.taxonomy), AveragePrecision(truth.taxonomy)
        sheet = Image.new("RGB", (4 * 256, -(-SHOWN // 4) * 256))
        for index, sample in enumerate(truth):
            labels = tifffile.imread(folder / "labels" / f"{sample.name}.tif").astype(np.int32)
            found = Panoptic.from_segmentation(labels, dict.fromkeys(range(1, labels.max() + 1), thing), truth.taxonomy)
            quality.update(sample.panoptic, found)
            precision.update(sample.panoptic, found)
            if index < SHOWN:
                sheet.paste(found.overlay(sample.image), (index % 4 * 256, index // 4 * 256))
        sheet.save(out / f"{folder.name}.png")
        pq, ap = quality.compute()["Things"], precision.compute()["thresholds"]["0.50"]["ap"]
        values = " | ".join(f"{100 * value:.1f}" for value in (pq["pq"], pq["sq"], pq["rq"], ap))
        seconds = np.min(json.loads((folder / "times.json").read_text()), axis=0).mean()
        cost = folder / "cost.json"
        stages = json.loads(cost.read_text()) if cost.exists() else {}
        spent = "; ".join(f"{name} {wall / 60:.1f} ({cpu / 60:.1f})" for name, (wall, cpu) in stages.items())
        print(f"| {folder.name} | {values} | {seconds:.2f} | {spent or '–'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DIR")
    tools = {"stardist": (train_stardist, load_stardist), "cellpose": (train_cellpose, load_cellpose)}
    tools |= dict.fromkeys(("pix2seqd", "nuclei-fast"), (train_pix2seqd, load_pix2seqd))
    parser.add_argument("--tool", choices=["split", *tools, "score"], required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[name] = "1"  # the libraries are imported later
    out, file = given.out / given.tool, given.out / "split.json"
    if given.tool == "split":
        given.out.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(split(given.data), indent=1))
    elif given.tool == "score":
        score(given.data, given.out)
    else:
        out.mkdir(exist_ok=True)
        parts, (train, load) = json.loads(file.read_text()), tools[given.tool]
        if given.minutes:
            cost = Cost()
            train(given.data, parts, given.minutes, out, cost)
            (out / "cost.json").write_text(json.dumps(cost.stages))
        predict(load(out), parts, out)


if __name__ == "__main__":
    main()
