"""The tab Clip: segment a video frame by frame, and list its tracks."""

import shutil
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr

from pix2seqd.files import InputError, read_json
from pix2seqd.images.frames import DecodedFrame, check_upload, open_clip
from pix2seqd.inference.depths import segment_frames
from pix2seqd.page.site import (
    MODEL,
    QUICK,
    Parts,
    Site,
    as_html,
    count,
    options_of,
    samples_in,
    steps_slider,
    table_of,
    to_result,
    view,
    visitor_of,
    with_messages,
)
from pix2seqd.page.viewer import data_uri, reduced, show
from pix2seqd.panoptic.clip_results import ClipWriter
from pix2seqd.panoptic.extra_files import PLACES, ExtraFiles
from pix2seqd.panoptic.panoptic import Panoptic

SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".gif", ".tif", ".tiff"})
FRAMES_PER_SECOND = 10.0
"""For TIFF stacks, which have no times."""
FURTHER = ExtraFiles(tuple(PLACES)).without("labelme")
"""Written for each frame; labelme's files would hold every frame again."""
END = 300
"""Seconds that *Stop* waits until the last frame is done and all files are written."""
KEPT_RUNS = 4
"""Clips that *Stop* can still ask for."""
WARNINGS = 3
"""Messages about a clip that are shown."""


@dataclass
class Run:
    """A clip that is being segmented. `ended` is set when all of its files are written."""

    out: Path
    value: dict[str, Any] = field(default_factory=dict)
    """Of the viewer; empty before the first frame is done."""
    position: str = ""
    """The last frame that is done, in words."""
    ended: Event = field(default_factory=Event)


def tab(site: Site, parts: Parts, samples: Path | None) -> list[gr.Component]:
    """Lay out the tab. Returns the components to which `values` gives values."""
    found = samples_in(samples, SUFFIXES)
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            source = gr.File(label="Clip: video, GIF or TIFF stack", height=140, elem_id="clip")
            sample = gr.Radio([p.name for p in found], label="Samples", visible=bool(found), elem_id="clips")
            frames = gr.Slider(2, site.limits.frames, min(50, site.limits.frames), step=1, label="Frames at most")
            text, value = values(site, site.models.first)
            later = steps_slider(site.limits, value, "Steps of each later frame")
            model = gr.Markdown(text, elem_id="clip-model")
            with gr.Row():
                run = gr.Button("Segment", variant="primary", min_width=90, elem_id="segment-clip")
                stop = gr.Button("Stop", min_width=90, elem_id="stop-clip")
        with gr.Column(scale=3, min_width=320, elem_id="clip-result"):
            frame_view = view(placeholder="Upload a clip or choose a sample. Each frame appears when it is done.")
            table = table_of("Tracks", "track", "class", "kind", "first frame", "last frame", "mean area")
            files = gr.File(label="Downloads: video, tracks, everything", file_count="multiple", interactive=False)
    clips = Clips(site, found)
    settings = [source, sample, frames, later, *parts.settings]
    outputs = [frame_view, table, files]
    running = run.click(with_messages(clips.segment), settings, outputs, **MODEL, show_progress="hidden")
    run.click(None, js=to_result("clip-result"))
    stop.click(with_messages(clips.stop), None, outputs, cancels=[running], **QUICK)
    source.upload(lambda: None, None, sample, **QUICK)
    sample.input(lambda: None, None, source, **QUICK)
    return [model, later]


class Clips:
    """The events of the tab; each visitor's page segments one clip, an uploaded one or one of the samples."""

    def __init__(self, site: Site, samples: Sequence[Path]) -> None:
        self._site, self._samples = site, samples
        self._runs: dict[str | None, Run] = {}

    def segment(
        self, path: str | None, sample: str | None, frames: int, steps: int, request: gr.Request, *values: Any
    ) -> Iterator[tuple[Any, ...]]:
        """The tab's values after each frame, and at the end."""
        source = self._source(path, sample, request)
        options, model = self._options(steps, values)
        run = Run(self._site.scratch.new_folder(visitor_of(request)) / "clip")
        self._runs[request.session_hash] = run
        while len(self._runs) > KEPT_RUNS:
            del self._runs[next(iter(self._runs))]
        try:
            with closing(segmented(self._site, model, source, run.out, frames, options)) as results:
                familiar = False
                for done, total, frame, panoptic in self._site.turns.take(results):
                    # As in `pix2seqd video`: where one frame looks familiar, the others are dim views of the same.
                    familiar |= not panoptic.unfamiliar
                    panoptic = replace(panoptic, ood_score=None) if familiar else panoptic
                    run.position = f"frame {done} of {total}"
                    note = f"{run.position}: {count(panoptic)}"
                    shown = {"progress": done / total, "note": note}
                    run.value = show(data_uri(reduced(frame.image), "JPEG"), panoptic, **shown)
                    yield run.value, gr.skip(), gr.skip()
        except InputError as error:  # the time is over, or a frame cannot be used
            message = str(error).replace(str(source), source.name)  # visitors do not know the server's folders
            if not run.value:
                raise InputError(message) from error
            gr.Warning(as_html(message))
            yield ended(run)
        else:
            self._runs.pop(request.session_hash, None)
            yield run.value | {"progress": 1.0}, tracks(run.out), export(run.out)
        finally:
            run.ended.set()

    def stop(self, request: gr.Request) -> tuple[Any, ...]:
        """The tab's values when the frame that is being segmented is done."""
        run = self._runs.pop(request.session_hash, None)
        if run is None:  # it waited for its turn, or is done
            return gr.skip(), gr.skip(), gr.skip()
        if not run.ended.wait(END):
            raise InputError("the frame that is being segmented takes too long; this clip has no files")
        return ended(run)

    def _source(self, path: str | None, sample: str | None, request: gr.Request) -> Path:
        """The uploaded clip, or the sample of this name: the browser never sends its path."""
        named = [each for each in self._samples if each.name == sample]
        if path is None and not named:
            raise InputError("no clip yet; upload one or choose a sample")
        source = named[0] if path is None else self._site.scratch.resolve(path, visitor_of(request))
        check_upload(source, self._site.limits.pixels)
        return source

    def _options(self, steps: int, values: tuple[Any, ...]) -> tuple[dict[str, Any], str]:
        """Options of `Segmenter.video`, and the model."""
        options, model = options_of(values), self._site.models.for_clips(values[-1])
        if model == values[-1]:
            options["first_steps"] = options["steps"]
        else:  # what the tab Image says about steps and samples is not for it
            options = {key: options[key] for key in ("seed", "min_pixels", "diameter")}
        return {**options, "steps": int(steps)}, model


def values(site: Site, model: str) -> tuple[str, int]:
    """What the tab says about its model, and the number of steps of later frames, where `model` is chosen."""
    name = site.models.for_clips(model)
    if name == model:
        text = "The first frame and all other settings are those of the tab *Image*."
        return f"Model `{name}`. {text}", site.defaults(model)["steps"]
    text = "Seed, smallest segment and diameter are those of the tab *Image*."
    return f"Model `{name}`. {text}", site.models.settings(name).infer.steps


def ended(run: Run) -> tuple[Any, ...]:
    """The values of the tab after a clip that was not segmented to its end: what is done stays."""
    if not run.value:
        return None, [], None
    note = f"stopped after {run.position}; the files hold the frames that are done"
    return run.value | {"progress": 1.0, "note": note}, tracks(run.out), export(run.out)


def segmented(
    site: Site, model: str, path: Path, out: Path, max_frames: int, options: dict[str, Any]
) -> Generator[tuple[int, int, DecodedFrame, Panoptic], None, None]:
    """Segment a clip and write it to `out`, as `pix2seqd video` does.

    Yields:
        Number of the frame, total number of frames, the frame, its segmentation.
    """
    segmenter = site.models.get(model)
    warnings: list[str] = []

    def warn(message: str) -> None:
        if len(warnings) < WARNINGS:
            gr.Warning(as_html(message.replace(str(path), path.name)))
        warnings.append(message)

    with open_clip(str(path), warn, FRAMES_PER_SECOND) as clip:
        total = min(clip.total or max_frames, max_frames)
        results = segment_frames(partial(segmenter.video, **options), islice(clip.frames, max_frames))
        settings = {**segmenter.describe(clip=True), **options}
        with ClipWriter(out, segmenter.taxonomy, settings, clip.rate, also=FURTHER) as writer:
            for number, (frame, panoptic) in enumerate(results, start=1):
                writer.write(frame, panoptic)
                yield number, max(total, number), frame, panoptic


def tracks(out: Path) -> list[list[Any]]:
    """Rows of the table of tracks, longest track first."""
    records = read_json(out / "tracks.json")["tracks"]
    records.sort(key=lambda track: -sum(area > 0 for area in track["areas"]))
    return [
        [
            track["id"],
            track["name"],
            "thing" if track["isthing"] else "stuff",
            track["first_frame"],
            track["last_frame"],
            round(sum(track["areas"]) / sum(area > 0 for area in track["areas"])),
        ]
        for track in records
    ]


def export(out: Path) -> list[str]:
    """Paths of the downloads: the video, the tracks, and everything in one archive."""
    archive = shutil.make_archive(str(out), "zip", out)
    return [str(out / "overlay.mp4"), str(out / "tracks.json"), archive]
