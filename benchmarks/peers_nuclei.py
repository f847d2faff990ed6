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
    python benchmarks/peers_nuclei.py DIR --tool nuclei-fast --out OUT    # the bundled checkpoint
    python benchmarks/peers_nuclei.py DIR --tool score --out OUT    # a Markdown table, and a contact sheet per tool

The minutes are CPU time of one thread, so that other work on the machine takes nothing from a tool. Included is what
a tool computes from the labels before its first step; StarDist's thresholds and Cellpose's model of sizes come after.
--minutes 0 only predicts with the weights that are there: repeat it in turns, since the score takes the shortest of
each image's times. A time goes from the image file to the label image on disk; the networks are loaded and warm.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

Parts = dict[str, list[tuple[str, str]]]
"""Image and label image of each item of "train", "tune" and "test"."""
Ends = dict[str, np.ndarray]
"""`clocks` at the end of each stage of a training."""
MAX_EPOCHS = 300
"""Of Cellpose. From 101 to 300 the learning rate rises in the first 10, and is halved ten times in the last 50."""


def read(path: str) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def clocks() -> np.ndarray:
    """Seconds by the clock on the wall, and of CPU."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return np.array([time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in used)])


def stardist_image(path: str) -> np.ndarray:
    from csbdeep.utils import normalize  # pyright: ignore[reportMissingImports]

    return normalize(read(path), 1, 99.8, axis=(0, 1))


def train_stardist(data: Path, parts: Parts, minutes: float, out: Path, ends: Ends) -> None:
    """The configuration and augmentation of StarDist's examples, for images of three channels."""
    from keras.callbacks import Callback  # pyright: ignore[reportMissingImports]
    from stardist import fill_label_holes  # pyright: ignore[reportMissingImports]
    from stardist.models import Config2D, StarDist2D  # pyright: ignore[reportMissingImports]

    end = clocks()[1] + 60 * minutes

    class Deadline(Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = clocks()[1] > end

    def augment(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        turns, flip = np.random.randint(4), np.random.choice((-1, 1))
        image, labels = (np.rot90(a, turns)[::flip] for a in (image, labels))
        image = image * np.random.uniform(0.6, 2) + np.random.uniform(-0.2, 0.2)
        return image + 0.02 * np.random.uniform(0, 1) * np.random.normal(0, 1, image.shape), labels

    images = {part: [stardist_image(image) for image, _ in parts[part]] for part in ("train", "tune")}
    labels = {part: [fill_label_holes(tifffile.imread(label)) for _, label in parts[part]] for part in images}
    config = Config2D(n_rays=32, grid=(2, 2), n_channel_in=3, use_gpu=False, train_tensorboard=False)
    model = StarDist2D(config, name="weights", basedir=str(out))
    model.prepare_for_training()
    model.callbacks.append(Deadline())
    tune = images["tune"], labels["tune"]
    model.train(images["train"], labels["train"], validation_data=tune, augmenter=augment, seed=0)
    ends["training"] = clocks()
    model.optimize_thresholds(*tune)
    ends["thresholds"] = clocks()


def train_cellpose(data: Path, parts: Parts, minutes: float, out: Path, ends: Ends) -> None:
    """`train_seg` with its defaults but two windows a step, then `train_size` with fewer and smaller windows.

    A step of eight windows takes 12 seconds of a core; with two, four times as many steps fit into the time.
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
    labels = [tifffile.imread(label).astype(np.int32) for _, label in parts["train"]]
    flows = labels_to_flows(labels, device=torch.device("cpu"))
    ends["flows"] = clocks()
    images = [read(image) for image, _ in parts["train"]]
    given = {"train_data": images, "train_labels": flows, "channels": [0, 0]}

    def run(epochs: int, batches: int):
        began = clocks()[1]
        net = CellposeModel(gpu=False, pretrained_model=False, diam_mean=17.0, mkldnn=False).net
        length = {"batch_size": 2, "n_epochs": epochs, "nimg_per_epoch": 2 * batches}
        path, *_ = train.train_seg(net, **given, **length, save_path=out)
        return clocks()[1] - began, net, path

    run(1, 1)  # compiles
    short, long = run(1, 1)[0], run(1, 9)[0]
    ends["measuring a step"] = clocks()
    step = (long - short) / 8
    steps = (60 * minutes - (ends["flows"] - ends["start"])[1] - short) / step
    batches = int(np.ceil(steps / MAX_EPOCHS))
    print(f"{step:.2f} CPU seconds a step, {batches} steps an epoch", flush=True)
    _, net, path = run(max(1, round(steps / batches)), batches)
    ends["training"] = clocks()
    train.train_size(net, path, **given, bsize=256, n_epochs=1, nimg_per_epoch=min(200, len(images)))
    ends["size model"] = clocks()
    (out / "weights.txt").write_text(str(path))


def train_pix2seqd(data: Path, parts: Parts, minutes: float, out: Path, ends: Ends) -> None:
    clock = "import time; time.perf_counter = time.process_time; from pix2seqd.cli.main import main; main()"
    command = [sys.executable, "-c", clock, "train", "own", "--train-data", f"folder:{data}@train", "--init", "none"]
    command += ["--train.minutes", str(minutes), "--train.workers", "0", "--out", str(out / "run")]
    subprocess.run(command, check=True)
    ends["training"] = clocks()


def load(out: Path) -> Callable[[str], np.ndarray]:
    """The networks in OUT/TOOL, or the bundled checkpoint of that name."""
    if out.name == "stardist":
        from stardist.models import StarDist2D  # pyright: ignore[reportMissingImports]

        stardist = StarDist2D(None, name="weights", basedir=str(out))
        return lambda path: stardist.predict_instances(stardist_image(path))[0]
    if out.name == "cellpose":
        from cellpose.models import CellposeModel, SizeModel  # pyright: ignore[reportMissingImports]

        file = (out / "weights.txt").read_text()
        cellpose = CellposeModel(gpu=False, pretrained_model=file)
        size = SizeModel(cellpose, pretrained_size=file + "_size.npy")

        def predict(path: str) -> np.ndarray:
            diameter, _ = size.eval(image := read(path), channels=[0, 0])
            return cellpose.eval(image, channels=[0, 0], diameter=diameter)[0]

        return predict
    from pix2seqd.segmenter import Segmenter

    segmenter = Segmenter.from_pretrained(out.name if out.name != "pix2seqd" else out / "run" / "model")
    return lambda path: segmenter.image(path).to_labels()


def split(data: Path) -> Parts:
    from pix2seqd.data.check import content
    from pix2seqd.data.folder import Folder
    from pix2seqd.data.split import divide

    def files(dataset: Folder, name: str) -> list[tuple[str, str]]:
        images = [data / "images" / name / record["file_name"] for record in dataset.records]
        return [(str(i), str(next((data / "labels" / name).glob(f"{i.stem}.*")))) for i in images]

    train = Folder.open(data, "train")
    items, parts = files(train, "train"), divide([content(sample.image) for sample in train])
    kept, tune = ([items[i] for i in part] for part in parts)
    return {"train": kept, "tune": tune, "test": files(Folder.open(data, "val"), "val")}


def predict(tool: Callable[[str], np.ndarray], parts: Parts, out: Path) -> None:
    """Write the labels of all test images, and append their times to times.json."""
    tool(parts["test"][0][0])
    seconds = []
    for image, _ in parts["test"]:
        began = clocks()
        tifffile.imwrite(out / "labels" / f"{Path(image).stem}.tif", tool(image).astype(np.uint16))
        seconds.append((clocks() - began).tolist())
    passes = json.loads(times.read_text()) if (times := out / "times.json").exists() else []
    times.write_text(json.dumps([*passes, seconds]))


def score(data: Path, out: Path) -> None:
    """Print the table, with times of the wall clock and of CPU (in parentheses), and write OUT/TOOL.png."""
    from pix2seqd.data.folder import Folder
    from pix2seqd.metrics.average_precision import AveragePrecision
    from pix2seqd.metrics.panoptic_quality import PanopticQuality
    from pix2seqd.panoptic.panoptic import Panoptic

    truth = Folder.open(data, "val")
    thing = next(i for i, c in enumerate(truth.taxonomy.categories, start=1) if c.isthing)
    print("| tool | PQ | SQ | RQ | AP@0.5 | s an image | minutes |\n|---|---|---|---|---|---|---|")
    for folder in sorted(path.parent for path in out.glob("*/times.json")):
        quality, precision = PanopticQuality(truth.taxonomy), AveragePrecision(truth.taxonomy)
        sheet = Image.new("RGB", (6 * 256, 4 * 256))  # 24 corners
        for index in range(len(truth)):
            sample = truth[index]
            labels = tifffile.imread(folder / "labels" / f"{sample.name}.tif").astype(np.int32)
            found = Panoptic.from_segmentation(labels, dict.fromkeys(range(1, labels.max() + 1), thing), truth.taxonomy)
            quality.update(sample.panoptic, found)
            precision.update(sample.panoptic, found)
            sheet.paste(found.overlay(sample.image).crop((0, 0, 256, 256)), (index % 6 * 256, index // 6 * 256))
        sheet.save(out / f"{folder.name}.png")
        pq, ap = quality.compute()["Things"], precision.compute()["thresholds"]["0.50"]["ap"]
        values = " | ".join(f"{100 * value:.1f}" for value in (pq["pq"], pq["sq"], pq["rq"], ap))
        wall, cpu = np.min(json.loads((folder / "times.json").read_text()), axis=0).mean(axis=0)
        stages = json.loads(file.read_text()) if (file := folder / "minutes.json").exists() else {}
        spent = "; ".join(f"{name} {wall:.1f} ({cpu:.1f})" for name, (wall, cpu) in stages.items())
        print(f"| {folder.name} | {values} | {wall:.2f} ({cpu:.2f}) | {spent or '–'} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DIR")
    tools = {"stardist": train_stardist, "cellpose": train_cellpose, "pix2seqd": train_pix2seqd}
    parser.add_argument("--tool", choices=["split", *tools, "nuclei-fast", "score"], required=True)
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
        (out / "labels").mkdir(parents=True, exist_ok=True)
        parts = json.loads(file.read_text())
        if given.tool in tools and given.minutes:
            ends = {"start": clocks()}
            tools[given.tool](given.data, parts, given.minutes, out, ends)
            minutes = {name: ((end - start) / 60).tolist() for (_, start), (name, end) in pairwise(ends.items())}
            (out / "minutes.json").write_text(json.dumps(minutes))
        predict(load(out), parts, out)


if __name__ == "__main__":
    main()
