"""How the cost of everything around the networks grows with pixels, things and images.

    python benchmarks/growth.py --images 1000,10000 [--shard 10000] [--write 1000]
    python benchmarks/growth.py --large 3072 --consensus 1

One row per scene: seconds of finding segments in a mask, of the record of segments, of the consensus of three samples,
and of the overlay. Each cost should grow no faster than the number in front of it. Then a row for each number of
images, written by `pix2seqd segment` with a stub in place of the networks: milliseconds an image (of the clock, and of
the CPU), the seconds of the longest one, and the peak of memory; then the process is killed, and the next one needs so
many seconds and so much memory until it knows what is done, and has lost so many images. With `--write`, only the last
images are written and timed; those before them are recorded with empty files, in a tenth of the time.

`--large` segments one image of so many pixels a side instead, from a tiled TIFF to its folder, with a stub in place of
the networks of nuclei-fast, and prints processor seconds and the peak of memory of the process.
"""

import argparse
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from PIL import Image

from pix2seqd.cli.options import Inference
from pix2seqd.cli.segment import segment
from pix2seqd.images.familiarity import moments
from pix2seqd.images.load import load_image
from pix2seqd.inference.consensus import consensus
from pix2seqd.inference.denoiser import Denoiser, Step
from pix2seqd.inference.postprocess import segments_by_component
from pix2seqd.inference.runner import Runner
from pix2seqd.inference.tiling import Window
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.parts import locate
from pix2seqd.panoptic.results import PanopticWriter
from pix2seqd.panoptic.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_coco([{"id": 1, "name": "disc"}, {"id": 2, "name": "background", "isthing": 0}])
SETTINGS = {"model": "stub", "steps": 2, "td": 1.0, "min_pixels": 20, "weights": 64 * "0"}
SCENES = ((512, 312), (1024, 1250), (2048, 312), (2048, 5000), (2048, 20_000), (4096, 20_000))


def discs(side: int, things: int) -> np.ndarray:
    """A mask `[2, side, side]` with about so many discs, whose ids are reused."""
    cells = int(np.ceil(np.sqrt(things)))
    step = side / cells
    place = np.arange(side)
    cell, offset = (place / step).astype(int), place % step - step / 2
    inside = np.hypot(offset[:, None], offset) < step * 0.4
    ids = np.random.default_rng(0).integers(0, 16, (cells, cells))[cell[:, None], cell]
    return np.stack([np.where(inside, 1, 2), np.where(inside, ids, 0)]).astype(np.int32)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    return call(), time.perf_counter() - started


def scene(side: int, things: int) -> None:
    mask = discs(side, things)
    (labels, classes), finding = timed(lambda: segments_by_component(mask, TAXONOMY, 20))
    found, recording = timed(lambda: Panoptic.from_segmentation(labels, classes, TAXONOMY).renumbered())
    moved = [Panoptic.from_segmentation(np.roll(labels, k, axis=1), classes, TAXONOMY) for k in (1, 2)]
    _, agreeing = timed(lambda: consensus([found, *moved], 20))
    _, drawing = timed(lambda: found.overlay(np.zeros((side, side, 3), np.uint8)))
    seconds = " ".join(f"{each:8.2f}" for each in (finding, recording, agreeing, drawing))
    print(f"{side:6} {len(found.segments):8} {seconds}", flush=True)


def write_all(folder: Path, sources: list[Path], shard: int | None, written: int, report: Any) -> None:
    """Write a ready result for the last images, as `pix2seqd segment` does, and end like a process that is killed."""
    mask = discs(64, 9)
    found = Panoptic.from_segmentation(*segments_by_component(mask, TAXONOMY, 0), TAXONOMY)
    writer = PanopticWriter(folder, TAXONOMY, SETTINGS, sources, shard=shard)
    for source in sources[:-written]:
        record(writer, folder, source, found)
    started, cpu, slowest = time.perf_counter(), time.process_time(), 0.0
    for source in sources[-written:]:
        before = time.perf_counter()
        writer.write(source, load_image(source), found)
        slowest = max(slowest, time.perf_counter() - before)
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    report.put((wall, cpu, slowest, peak()))
    report.close()
    report.join_thread()
    os.kill(os.getpid(), signal.SIGKILL)


def record(writer: PanopticWriter, folder: Path, source: Path, found: Panoptic) -> None:
    """Record an image as one that is done, with empty files."""
    part, stem = locate(folder, writer.stem(source))
    for name in (f"images/{stem}.png", f"panoptic/{stem}.png", f"overlay/{stem}.png"):
        (part / name).touch()
    status, (height, width) = source.stat(), found.segmentation.shape
    identity = {"path": str(source), "bytes": status.st_size, "modified_ns": status.st_mtime_ns}
    image = {"id": 0, "file_name": f"{stem}.png", "width": width, "height": height, "source": identity}
    writer.add(source, ({**image, "settings": SETTINGS}, found.annotation(0, f"{stem}.png")))


def start_again(folder: Path, sources: list[Path], shard: int | None, written: int, report: Any) -> None:
    """Open the folder as the next process does, and look for what is done."""
    started, cpu = time.perf_counter(), time.process_time()
    with PanopticWriter(folder, TAXONOMY, SETTINGS, sources, shard=shard) as writer:
        done = sum(writer.is_done(source) for source in sources)
    report.put((done, time.perf_counter() - started, time.process_time() - cpu, peak()))


def peak() -> float:
    """Largest memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def many_images(count: int, shard: int | None, written: int) -> None:
    """The writer of `pix2seqd segment`, with images of 64 × 64 and a ready result; each part is a process."""
    context, written = multiprocessing.get_context("spawn"), min(written, count)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        sources = [Path(folder) / "in" / f"{number:07}.png" for number in range(count)]
        sources[0].parent.mkdir()
        Image.fromarray((discs(64, 9)[0] * 90).astype(np.uint8)).save(sources[0])
        for source in sources[1:]:
            source.write_bytes(sources[0].read_bytes())
        for part in (write_all, start_again):
            report = context.Queue()
            process = context.Process(target=part, args=(Path(folder) / "out", sources, shard, written, report))
            process.start()
            results.append(report.get())
            process.join()
    (wall, cpu, slowest, memory), (done, restart, restart_cpu, again) = results
    print(
        f"{count:8} {1000 * wall / written:8.2f} {1000 * cpu / written:8.2f} {slowest:8.1f} {memory:8.0f} "
        f"{restart:8.1f} {restart_cpu:8.1f} {again:8.0f} {count - done:8}",
        flush=True,
    )


def stub(self: Runner, windows: Sequence[Window], stream: Denoiser) -> Iterator[Step]:
    """In place of the networks: each pixel's class and id are in the image's red and green."""
    features = torch.zeros(self.model.config.encoder.map_dim, 8, 8)
    for window in windows:
        window.moments.append(moments(features, window.pixels.shape[1:], window.inside))
    pixels = torch.stack([window.pixels for window in windows])
    yield from (Step(sample, pixels, True) for sample in range(len(windows[0].noise)))


def masks(self: Runner, step: Step) -> np.ndarray:
    red, green = step.m_pred[:, 0], step.m_pred[:, 1]
    inside = red > 0.5
    sure = torch.full_like(red, 200)
    channels = [torch.where(inside, 1, 2), torch.where(inside, (green * 15).round(), 0), sure, sure]
    return torch.stack([channel.to(torch.uint8) for channel in channels], dim=1).numpy()


def large(side: int, samples: int) -> None:
    """One image of discs, file to folder."""
    Runner.denoise, Runner.masks = stub, masks
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tif"
        tiles = (discs_tile(top, left, side) for top in range(0, side, 256) for left in range(0, side, 256))
        layout = {"tile": (256, 256), "photometric": "rgb", "compression": "zlib"}
        tifffile.imwrite(path, tiles, shape=(side, side, 3), dtype=np.uint8, bigtiff=True, **layout)
        started = time.process_time()
        segment(path, out=Path(folder) / "out", inference=Inference(consensus=samples, diameter=24))
    seconds = time.process_time() - started
    print(f"{side}: {seconds:.1f} s, {seconds / side**2 * 1e6:.2f} s a megapixel, {peak() / 2**10:.2f} GB", flush=True)


def discs_tile(top: int, left: int, side: int) -> np.ndarray:
    y, x = np.arange(top, top + 256), np.arange(left, left + 256)
    inside = np.hypot((y % 29 - 14)[:, None], x % 29 - 14) < 12
    ids = (y // 29 * 7)[:, None] + x // 29 * 3
    return np.stack([np.where(inside, 230, 20), ids % 16 * 17, (x + y[:, None]) % 5], axis=-1).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="1000,10000", help="numbers of images")
    parser.add_argument("--shard", type=int, help="number of images of a part")
    parser.add_argument("--write", type=int, default=sys.maxsize, help="so many of them at most are written")
    parser.add_argument("--scenes", type=int, default=len(SCENES), help="number of scenes")
    parser.add_argument("--large", type=int, help="pixels of a side of one image")
    parser.add_argument("--consensus", type=int, default=3, help="samples, with --large")
    options = parser.parse_args()
    if options.large:
        large(options.large, options.consensus)
        return
    print("  side   things  finding recording consensus  overlay (seconds)")
    for side, things in SCENES[: options.scenes]:
        scene(side, things)
    print("  images  ms each   CPU ms  longest       MB  restart      CPU       MB     lost")
    for count in map(int, options.images.split(",")):
        many_images(count, options.shard, options.write)


if __name__ == "__main__":
    main()
