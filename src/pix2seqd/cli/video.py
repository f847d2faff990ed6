"""The command `pix2seqd video`."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain, islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

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
    print_message,
    print_summary,
    print_unfamiliar,
)
from pix2seqd.config import DEFAULT_FOR_CLIPS
from pix2seqd.files import InputError, printable, resolved, say

if TYPE_CHECKING:
    from PIL.Image import Image

    from pix2seqd.images.frames import DecodedFrame, FrameStream
    from pix2seqd.inference.depths import Video
    from pix2seqd.panoptic.clip_results import ClipWriter
    from pix2seqd.panoptic.panoptic import Panoptic


def video(
    source: str,
    /,
    *,
    model: Checkpoint = DEFAULT_FOR_CLIPS,
    out: Path = Path("pix2seqd-video"),
    along: Literal["t", "z"] = "t",
    min_frames: Annotated[int, count(1)] = 3,
    channel: Channel = None,
    first_steps: Annotated[int | None, count(1, 1000)] = None,
    adaptive: Annotated[float | None, Parameter(validator=Number(gte=0, lte=1000))] = None,
    fps: Annotated[float, Parameter(validator=Number(gt=0, lte=1000))] = 10,
    also: str | None = None,
    pixel_size: str | None = None,
    plane_distance: str | None = None,
    selection: Selection = ALL_SEGMENTS,
    inference: Inference = CHECKPOINT_DEFAULTS,
) -> int:
    """Segment a video and track its objects.

    OUT receives overlay.mp4 (one colour per track), panoptic/NUMBER.png and panoptic.json (COCO panoptic format; the
    segment ids are the tracks), tracks.json, and tracks.csv (place and area of each object in each frame). Of a stack
    of depths, it receives labels/NAME.tif (3-D label stack) and volumes.csv instead of tracks.csv. After Ctrl-C these
    files are complete up to the last frame.

    Args:
        source: A video file, an animation, a TIFF stack, a folder of images, or the number of a camera (0 is the
            first).
        out: Folder to write to. An earlier result of this command in it is replaced.
        along: Axis of the frames. t: time. z: the depths of a TIFF stack, or a folder with an image for each depth. An
            object keeps its id through the depths. The sharpest plane is segmented first. One mask is sampled
            for each plane (--consensus 1), unless --consensus is given.
        min_frames: Objects that are seen in fewer frames are left out of the summary, tracks.json, tracks.csv,
            volumes.csv and track_measures.csv. The masks keep them.
        first_steps: Number of denoising steps of the first frame. --steps is the number for later frames. Default: set
            by the checkpoint.
        adaptive: Average number of steps of a later frame. More steps are spent where the mask changes. 0 always takes
            --steps. Default: set by the checkpoint.
        fps: Frames per second of overlay.mp4 for a folder or a stack. Videos keep their own times.
        also: Further files for other tools, separated by commas. measures: measures.csv, counts.csv and
            track_measures.csv. coco: instances.json. Of each frame: labels: labels/NUMBER.tif. geojson:
            geojson/NUMBER.geojson for QuPath. rois: rois/NUMBER.zip for ImageJ. labelme: labelme/NUMBER.json.
            ctc: masks and tracks of the Cell Tracking Challenge, in ctc/.
        pixel_size: Length of a pixel's side with its unit, um or nm (0.65um), for measures, labels and geojson, and
            with --along z for volumes.csv. Default: lengths are in pixels.
        plane_distance: With --along z: distance from one plane to the next with its unit (2um), for volumes.csv and
            labels.
        selection: Which segments are kept, frame by frame. The others are tracked too, but not written.
        inference: How the checkpoint is used.
    """
    with loading():
        from pix2seqd.images.frames import open_clip
        from pix2seqd.panoptic.clip_results import ClipWriter

    files = _further_files(also, pixel_size, plane_distance, along)
    _check_source(source, out, files["also"].folders)
    stack = _stack_name(source) if along == "z" else ""
    progress = _ClipProgress("planes" if stack else "frames")
    with progress.bar, open_clip(source, progress.warn, fps, channel, progress.note, along) as clip:
        segmenter = inference.segmenter(model)
        # Samples without past masks see things in the noise of the empty planes at the ends of a stack.
        options: dict[str, Any] = {"consensus": 1} if stack else {}
        options |= {**inference.given(), **selection.given(segmenter.taxonomy)}
        options |= not_none(first_steps=first_steps, adaptive=adaptive)
        print_summary(segmenter)
        settings = {**segmenter.describe(clip=True), **options}
        settings |= {"source": source, "along": along, "min_frames": min_frames, **not_none(channel=channel)}
        progress.start(clip.total and clip.total + bool(stack))  # one plane of a stack is segmented twice
        results = _segment(clip, source, stack, partial(segmenter.video, **options), progress)
        # Errors in the options or the first frame are reported before an earlier result is replaced.
        results = chain(list(islice(results, 1)), results)
        lists = {"min_frames": min_frames, "stack": stack}
        with ClipWriter(out, segmenter.taxonomy, settings, clip.rate, **lists, **files) as writer:
            _write(writer, results)
    done, seconds, word = writer.frames, progress.seconds, progress.word
    tracked = _describe_tracks(writer.lengths, writer.min_frames, word)
    # Frames show one scene. Where a single one looks familiar, the others are dim views of the same.
    if len(writer.unfamiliar) == done:
        print_unfamiliar(writer.unfamiliar, done, word, segmenter.describe()["model"])
    print(f"{_counted(done, word)} in {seconds:.1f} s ({done / seconds:.1f} {word}/s), {tracked}")
    written = [f"labels/{stack}.tif", "volumes.csv"] if stack else ["tracks.csv", *["ctc/"] * files["ctc"]]
    written += [files["also"].names] if files["also"].kinds else []
    written += ["track_measures.csv"] * ("measures" in files["also"].kinds)
    say(f"written to {out}: overlay.mp4, panoptic/, panoptic.json, tracks.json, {', '.join(written)}")
    return 2 if progress.errors else 0


class _ClipProgress:
    """The progress bar of a clip, and the messages above it; `word` is "frames" or "planes"."""

    def __init__(self, word: str) -> None:
        from pix2seqd.cli.progress import bar_with_speed

        self.bar = bar_with_speed()
        self.word = word
        self.errors = 0
        """Number of frames, or ends of files, that could not be read."""
        self._printed: set[str] = set()

    def note(self, message: str) -> None:
        """Print a message, unless it was printed before: the planes of a stack are read twice."""
        if message not in self._printed:
            print_message(self.bar, message)
        self._printed.add(message)

    def warn(self, message: str) -> None:
        """Count an error, and print it."""
        self.errors += 1
        self.note(message)

    def start(self, total: int | None) -> None:
        """Start the clock; the bar is shown after the first frame."""
        self._task = self.bar.add_task("segmenting", total=total, speed="", visible=False)
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self._started

    def counted(self, results: Iterable["Panoptic"]) -> Iterator["Panoptic"]:
        """The results unchanged; each moves the bar."""
        for panoptic in results:
            speed = (self.bar.tasks[self._task].completed + 1) / self.seconds
            self.bar.update(self._task, advance=1, visible=True, speed=f"{speed:.1f} {self.word}/s")
            yield panoptic


def _further_files(also: str | None, pixel_size: str | None, plane_distance: str | None, along: str) -> dict[str, Any]:
    """Further files, as `ClipWriter` takes them, from the options of the command."""
    from pix2seqd.panoptic.extra_files import ExtraFiles, micrometres

    further = ExtraFiles.parse(also, pixel_size, "ctc", stack=along == "z")
    distance = None if plane_distance is None else micrometres("--plane-distance", plane_distance)
    ctc = "ctc" in (name.strip() for name in (also or "").split(","))
    if along == "z":
        if ctc:
            raise InputError("--also ctc needs frames over time; leave it out with --along z")
        further = further.without("labels")  # labels/ holds the whole stack
    elif distance:
        raise InputError("--plane-distance is for stacks of depths; give --along z too")
    return {"also": further, "ctc": ctc, "plane_distance": distance}


def _check_source(source: str, out: Path, folders: Iterable[str]) -> None:
    """Refuse a source that the command would overwrite, or that lies in one of the `folders` that it writes."""
    from pix2seqd.panoptic.clip_results import OUTPUTS

    if any(resolved(source).is_relative_to(resolved(out / name)) for name in (*OUTPUTS, *folders)):
        raise InputError(f"{source} would be overwritten; choose another --out")


def _stack_name(source: str) -> str:
    """Name of the label stack: that of the file without its suffix, or of the folder."""
    path = resolved(source)
    return printable(path.name if path.is_dir() else path.stem) or "stack"


def _segment(
    clip: "FrameStream", source: str, stack: str, video: "Video", progress: _ClipProgress
) -> "Iterator[tuple[DecodedFrame, Panoptic]]":
    """Frames and their segmentations, in the order of the frames; a stack is segmented from its sharpest plane."""
    from pix2seqd.inference.depths import segment_depths, segment_frames, sharpest

    def segment(images: Iterable["Image"]) -> Iterator["Panoptic"]:
        return progress.counted(video(images))

    if clip.read and stack:
        start = sharpest(clip.frames)
        progress.note(f"{source}: plane {start} is the sharpest; it is segmented first, then those on both sides")
        return segment_depths(segment, clip.read, start, clip.total or 0)
    return segment_frames(segment, _check_rate(clip.frames, 1 / float(clip.rate), progress))


def _write(writer: "ClipWriter", results: "Iterator[tuple[DecodedFrame, Panoptic]]") -> None:
    """Write the results. Each is written in a thread, while the networks compute the next one."""
    with ThreadPoolExecutor(1) as pool:
        running: Future[None] | None = None
        try:
            for result in results:
                if running:
                    running.result()  # nothing is written after what could not be
                running = pool.submit(writer.write, *result)
        finally:
            if running:
                running.result()


def _describe_tracks(lengths: list[int], min_frames: int, word: str) -> str:
    """The summary of the tracks of things, of which `lengths` are the numbers of frames."""
    lasting = [length for length in lengths if length >= min_frames]
    text = f"{_counted(len(lasting), 'things')} tracked"
    text += f" (median length {_counted(median(lasting), word)})" if lasting else ""
    if short := len(lengths) - len(lasting):
        text += f"; not counted: {short} seen in fewer than {min_frames} {word} (--min-frames 1 counts them)"
    return text


def _counted(number: float, words: str) -> str:
    return f"{number:.10g} {words.removesuffix('s' * (number == 1))}"


def _check_rate(frames: Iterator["DecodedFrame"], interval: float, progress: _ClipProgress) -> Iterator["DecodedFrame"]:
    """The frames unchanged; a message, once, if their times are uneven."""
    before, even = None, True
    for frame in frames:
        if before and even:
            even = abs(frame.time - before.time - interval * (frame.number - before.number)) <= interval / 2
            if not even:
                first = f"first at frame {frame.number}"
                progress.note(f"the frame rate varies ({first}); overlay.mp4 keeps the time of every frame")
        before = frame
        yield frame
