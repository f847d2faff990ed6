"""The command `pix2seqd video`."""

import time
from collections.abc import Iterator
from itertools import chain, islice, tee
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pix2seqd.cli.options import AS_PUBLISHED, Inference, count
from pix2seqd.files import InputError

if TYPE_CHECKING:
    from pix2seqd.images.frames import DecodedFrame


def video(
    source: str,
    /,
    *,
    model: str = "nuclei-video",
    out: Path = Path("pix2seqd-video"),
    first_steps: Annotated[int | None, count(1, 1000)] = None,
    adaptive: Annotated[float | None, Parameter(validator=Number(gte=0, lte=1000))] = None,
    fps: Annotated[float, Parameter(validator=Number(gt=0, lte=1000))] = 10,
    inference: Inference = AS_PUBLISHED,
) -> int:
    """Segment a video and track what is in it (section 3.4).

    OUT receives overlay.mp4 (a colour per track), panoptic/NUMBER.png and panoptic.json (COCO panoptic format, segment
    ids = tracks), and tracks.json. All are whole whenever the video ends, Ctrl-C included.

    Args:
        source: a video file, a TIFF stack, a folder of pictures, or the number of a camera.
        model: bundled (nuclei, nuclei-fast, nuclei-video, shapes), a folder, or an id on the Hugging Face hub.
        out: folder to write to; an earlier result of this command in it is replaced.
        first_steps: denoising steps of the first frame; --steps are those of the others. Default: the checkpoint's.
        adaptive: steps of a later frame on average, spent where the mask changes; 0: always --steps.
        fps: frames per second of the overlay of a folder or stack; videos keep their own times.
        inference: how the checkpoint is used.
    """
    from pix2seqd.images.frames import open_clip
    from pix2seqd.panoptic.clip_results import ClipWriter

    if Path(source).resolve() in ((out / name).resolve() for name in ("overlay.mp4", "panoptic")):
        raise InputError(f"{source} would be written over; choose another --out")
    faults = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:

        def complain(message: str) -> None:
            nonlocal faults
            faults += 1
            _say(progress, message)

        with open_clip(source, complain, fps) as clip:
            segmenter = inference.segmenter(model)
            given = {"first_steps": first_steps, "adaptive": adaptive}
            options = {**inference.given(), **{name: value for name, value in given.items() if value is not None}}
            settings = {**segmenter.describe(), **options, "source": source}
            seen, again = tee(clip.frames)
            results, started = segmenter.video((frame.image for frame in seen), **options), time.monotonic()
            # What is wrong with the options or the first frame is told before an earlier result is replaced.
            results = chain(list(islice(results, 1)), results)
            with ClipWriter(out, segmenter.taxonomy, settings, clip.rate) as writer:
                task, done = progress.add_task("segmenting", total=clip.total, speed=""), 0
                frames = _watched(again, 1 / float(clip.rate), progress)
                for done, (panoptic, frame) in enumerate(zip(results, frames, strict=False), start=1):
                    writer.write(frame, panoptic)
                    progress.update(task, advance=1, speed=f"{done / (time.monotonic() - started):.1f} frames/s")
    seconds = time.monotonic() - started
    print(f"{done} frames in {seconds:.1f} s ({done / seconds:.1f} frames/s), {writer.things} things tracked")
    print(f"written to {out}: overlay.mp4, panoptic/, panoptic.json, tracks.json")
    return 2 if faults else 0


def _watched(frames: Iterator["DecodedFrame"], interval: float, progress: Progress) -> Iterator["DecodedFrame"]:
    """The frames; says so, once, where their times are uneven."""
    before, even = None, True
    for frame in frames:
        if before and even:
            even = abs(frame.time - before.time - interval * (frame.number - before.number)) <= interval / 2
            if not even:
                _say(progress, f"the frame rate varies (first at frame {frame.number}); overlay.mp4 keeps every time")
        before = frame
        yield frame


def _say(progress: Progress, message: str) -> None:
    progress.console.print(f"pix2seqd: {' '.join(message.split())}", markup=False, highlight=False, soft_wrap=True)
