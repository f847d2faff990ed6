"""The command `pix2seqd video`."""

import time
from collections.abc import Iterator
from functools import partial
from itertools import chain, islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from pix2seqd.cards import DEFAULT_FOR_CLIPS
from pix2seqd.cli.options import CHECKPOINT_DEFAULTS, Inference, count, print_summary, print_unfamiliar
from pix2seqd.files import InputError

if TYPE_CHECKING:
    from rich.progress import Progress

    from pix2seqd.images.frames import DecodedFrame


def video(
    source: str,
    /,
    *,
    model: str = DEFAULT_FOR_CLIPS,
    out: Path = Path("pix2seqd-video"),
    channel: str | None = None,
    first_steps: Annotated[int | None, count(1, 1000)] = None,
    adaptive: Annotated[float | None, Parameter(validator=Number(gte=0, lte=1000))] = None,
    fps: Annotated[float, Parameter(validator=Number(gt=0, lte=1000))] = 10,
    inference: Inference = CHECKPOINT_DEFAULTS,
) -> int:
    """Segment a video and track its objects.

    OUT receives overlay.mp4 (one colour per track), panoptic/NUMBER.png and panoptic.json (COCO panoptic format; the
    segment ids are the tracks), and tracks.json. After Ctrl-C these files are complete up to the last frame.

    Args:
        source: A video file, an animation, a TIFF stack (along its time axis), a folder of images, or the number of a
            camera (0 is the first).
        model: A bundled model (nuclei-fast, nuclei, nuclei-video, shapes), the folder of a checkpoint, or the id of a
            model on the Hugging Face hub.
        out: Folder to write to. An earlier result of this command in it is replaced.
        channel: Number (from 1) or name of the channel to take, of images with channels. Default: up to three channels
            are shown as colours; of more, the first is taken.
        first_steps: Number of denoising steps of the first frame. --steps is the number for later frames. Default: set
            by the checkpoint.
        adaptive: Average number of steps of a later frame. More steps are spent where the mask changes. 0 always takes
            --steps. Default: set by the checkpoint.
        fps: Frames per second of overlay.mp4 for a folder or a stack. Videos keep their own times.
        inference: How the checkpoint is used.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from pix2seqd.images.frames import open_clip
    from pix2seqd.panoptic.clip_results import ClipWriter

    if Path(source).resolve() in ((out / name).resolve() for name in ("overlay.mp4", "panoptic")):
        raise InputError(f"{source} would be overwritten; choose another --out")
    errors = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:

        def report(message: str) -> None:
            nonlocal errors
            errors += 1
            _print_message(progress, message)

        with open_clip(source, report, fps, channel, partial(_print_message, progress)) as clip:
            segmenter = inference.segmenter(model)
            print_summary(segmenter)
            given = {"first_steps": first_steps, "adaptive": adaptive}
            options = {**inference.given(), **{name: value for name, value in given.items() if value is not None}}
            settings = {**segmenter.describe(), **options, "source": source}
            settings |= {} if channel is None else {"channel": channel}
            to_segment, to_write = tee(clip.frames)
            results, started = segmenter.video((frame.image for frame in to_segment), **options), time.monotonic()
            # Errors in the options or the first frame are reported before an earlier result is replaced.
            results = chain(list(islice(results, 1)), results)
            with ClipWriter(out, segmenter.taxonomy, settings, clip.rate) as writer:
                task, done = progress.add_task("segmenting", total=clip.total, speed=""), 0
                frames = _check_rate(to_write, 1 / float(clip.rate), progress)
                for done, (panoptic, frame) in enumerate(zip(results, frames, strict=False), start=1):
                    writer.write(frame, panoptic)
                    progress.update(task, advance=1, speed=f"{done / (time.monotonic() - started):.1f} frames/s")
    seconds = time.monotonic() - started
    print_unfamiliar(writer.unfamiliar, done, "frames", segmenter.describe()["model"])
    print(f"{done} frames in {seconds:.1f} s ({done / seconds:.1f} frames/s), {writer.things} things tracked")
    print(f"written to {out}: overlay.mp4, panoptic/, panoptic.json, tracks.json")
    return 2 if errors else 0


def _check_rate(frames: Iterator["DecodedFrame"], interval: float, progress: "Progress") -> Iterator["DecodedFrame"]:
    """The frames unchanged; a message, once, if their times are uneven."""
    before, even = None, True
    for frame in frames:
        if before and even:
            even = abs(frame.time - before.time - interval * (frame.number - before.number)) <= interval / 2
            if not even:
                first = f"first at frame {frame.number}"
                _print_message(progress, f"the frame rate varies ({first}); overlay.mp4 keeps the time of every frame")
        before = frame
        yield frame


def _print_message(progress: "Progress", message: str) -> None:
    progress.console.print(f"pix2seqd: {' '.join(message.split())}", markup=False, highlight=False, soft_wrap=True)
