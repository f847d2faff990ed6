"""The command `pix2seqd segment`."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pix2seqd.cli.options import (
    ALL_SEGMENTS,
    CHECKPOINT_DEFAULTS,
    Channel,
    Checkpoint,
    Inference,
    Selection,
    count,
    loading,
    not_none,
    print_renamed,
    print_summary,
    print_unfamiliar,
)
from pix2seqd.config import DEFAULT_MODEL
from pix2seqd.files import InputError, printable, require, say

if TYPE_CHECKING:
    from pix2seqd.cli.segmenting import Job, Results, Todo, WindowsBar
    from pix2seqd.panoptic.results import PanopticWriter
    from pix2seqd.segmenter import Segmenter

    Run = Callable[[Segmenter, Todo, Job, WindowsBar], Results]
    """Segments files, with a bar for those of many windows where this process does it."""

Engine = Literal["local", "ray"]


def segment(
    *images: Path,
    model: Checkpoint = DEFAULT_MODEL,
    out: Path = Path("pix2seqd-out"),
    channel: Channel = None,
    also: str | None = None,
    pixel_size: str | None = None,
    batch_size: Annotated[int | None, count(1)] = None,
    shard: Annotated[int | None, count(1)] = None,
    engine: Engine = "local",
    workers: Annotated[int, count(1)] = 1,
    selection: Selection = ALL_SEGMENTS,
    inference: Inference = CHECKPOINT_DEFAULTS,
) -> int:
    """Segment images.

    The folder OUT becomes a data set in COCO panoptic format: panoptic.json, panoptic/NAME.png (segment ids) and
    images/ (copies). overlay/NAME.png shows each image with its segments in colour.

    Images that were segmented with the same settings before are skipped. To continue an interrupted run, repeat the
    command.

    Args:
        images: Image files, and folders of images (without their subfolders).
        out: Folder to write to.
        also: Further files for other tools, separated by commas. measures: measures.csv and counts.csv. labels:
            labels/NAME.tif. coco: instances.json. geojson: geojson/NAME.geojson for QuPath. rois: rois/NAME.zip for
            ImageJ. labelme: labelme/NAME.json. Images that have a result get them without being segmented again.
        pixel_size: Length of a pixel's side with its unit, um or nm (0.65um), for measures, labels and geojson.
            Default: lengths are in pixels.
        batch_size: Number of images that are read at a time, and of image windows that the network computes at a
            time. It changes the speed, not the result. Default: chosen automatically.
        shard: For very many images: number N of images in each part, for example 10000. OUT then has part-00000/,
            part-00001/, ..., and each of these has all of the above for N images. coco:OUT is all parts as one data
            set.
        engine: local: this machine, or the processes that torchrun started, which share the images. ray: a Ray
            cluster; it needs `pip install "pix2seqd[ray]"`.
        workers: Number of processes that share the images, or of Ray actors. Each has its part of the cores and its own
            copy of the model. On two free cores, 2 saved 7 to 26 % of the time of a few dozen images
            (docs/speed.md). The result is the same.
        selection: Which segments are kept.
        inference: How the checkpoint is used.
    """
    from functools import partial

    with loading():
        from pix2seqd.cli.segmenting import Job, print_segments
        from pix2seqd.panoptic.collect import collect, remove_leftovers
        from pix2seqd.panoptic.extra_files import ExtraFiles
        from pix2seqd.panoptic.folder import FOLDERS
        from pix2seqd.panoptic.results import PanopticWriter, check_out

    _check_engine(engine, workers)
    further = ExtraFiles.parse(also, pixel_size)
    sources = _find_sources(images, channel)  # a mistyped name is reported before torch and the model are loaded
    check_out(out, shard)
    run = _start(engine, workers, sources, out)
    with loading():
        from pix2seqd import distributed

    processes = distributed.world_size()
    if engine == "local" and workers > 1 and processes > 1:
        raise InputError("torchrun has started several processes already; leave --workers out")
    segmenter = inference.segmenter(model)
    options = {**inference.given(), **selection.given(segmenter.taxonomy)}
    next(segmenter.images((), **options), None)  # refuses what is wrong with them before anything is written
    print_summary(segmenter)
    settings = {**segmenter.describe(), **options, **not_none(channel=channel)}
    folders = (*FOLDERS, *further.folders)
    writer = PanopticWriter(out, segmenter.taxonomy, settings, sources, shard=shard, folders=folders)
    remove_leftovers(out)
    own = sources[distributed.rank() :: processes]
    place = out.absolute() if engine == "ray" else out  # Ray's workers have another working directory
    job = Job(partial(inference.segmenter, model), place, settings, options, batch_size, channel, further)
    try:
        with writer:
            failed = _segment_new(segmenter, own, job, run, writer)
            if len(sources) == len(own) == 1 and not failed:
                print_segments(sources[0].name, writer.segments(sources[0]))
            unlike = [source.name for source in writer.unfamiliar(own)]
            print_unfamiliar(unlike, len(own), "images", segmenter.describe()["model"])
    finally:
        for folder in writer.parts:
            collect(folder, further)
    distributed.barrier()
    names = "panoptic.json, panoptic/, overlay/, images/" + (f", {further.names}" if further.kinds else "")
    if failed < len(own) or not own:
        say(f"written to {out}{'/part-*' if shard else ''}: {names}")
    return 2 if failed else 0


def _check_engine(engine: Engine, workers: int) -> None:
    """Refuse more workers than this machine has cores, and Ray where it is not installed."""
    import os

    if engine == "local" and workers > (cores := os.cpu_count() or 1):
        raise InputError(f"--workers {workers}: this machine has {cores} cores; give at most {cores}")
    if engine == "ray":
        require("--engine ray", "ray", "ray")


def _find_sources(images: tuple[Path, ...], channel: str | None) -> list[Path]:
    """The image files; a single one is opened, to check that it can be read and has the channel."""
    from pix2seqd.images.load import find_images, open_pixels

    sources = find_images(images)
    if not sources:
        raise InputError("nothing to segment; give an image or a folder of images")
    if len(sources) == 1:
        open_pixels(sources[0], channel)
    return sources


def _start(engine: Engine, workers: int, sources: list[Path], out: Path) -> "Run":
    """What segments the files: this process, others of this machine, which begin to load, or a Ray cluster."""
    from pix2seqd.cli.segmenting import segment_files

    if engine == "ray":
        from pix2seqd.cli.ray_engine import on_ray

        return lambda segmenter, todo, job, bar: on_ray(job, todo, workers) if todo else iter(())
    if min(workers, len(sources)) < 2:
        return segment_files
    from pix2seqd.cli.workers import on_workers, start_loading

    loading = None if _seems_done(sources, out) else start_loading()

    def run(segmenter: "Segmenter", todo: "Todo", job: "Job", bar: "WindowsBar") -> "Results":
        if len(todo) < 2:
            return segment_files(segmenter, todo, job, bar)
        return on_workers(job, todo, workers, loading or start_loading())

    return run


def _segment_new(segmenter: "Segmenter", sources: list[Path], job: "Job", run: "Run", writer: "PanopticWriter") -> int:
    """Segment the files that have no result yet, and write what the others lack; returns how many failed."""
    from pix2seqd.cli.segmenting import WindowsBar, record_results, write_missing_files

    todo, done = [], []
    for source in sources:
        (done if writer.is_done(source) else todo).append(source)
    named = [(source, writer.stem(source)) for source in todo]
    print_renamed([(source, stem.rpartition("/")[2]) for source, stem in named])
    bar = WindowsBar(len(todo))
    failed = record_results(writer, sources, todo, run(segmenter, named, job, bar), bar)
    return failed + write_missing_files(writer, job.out, done, segmenter.taxonomy, job.also)


def _seems_done(sources: list[Path], out: Path) -> bool:
    """Whether the last file has a result, so that further processes may not be needed."""
    from pix2seqd.panoptic.parts import find_parts

    name = f"{printable(sources[-1].stem)}.png"
    return any((folder / "panoptic" / name).is_file() for folder in (out, *find_parts(out).values()))
