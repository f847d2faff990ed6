"""The tab Clip: segment a video frame by frame, and list its tracks."""

import shutil
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import gradio as gr

from pix2seqd.files import InputError, read_json
from pix2seqd.images.frames import DecodedFrame, check_upload, open_clip
from pix2seqd.inference.depths import follow
from pix2seqd.page.site import (
    MODEL,
    QUICK,
    Parts,
    Site,
    count,
    settings_of,
    steps_slider,
    view,
    visitor_of,
    with_messages,
)
from pix2seqd.page.viewer import data_uri, reduced, show
from pix2seqd.panoptic.also import PLACES, Also
from pix2seqd.panoptic.clip_results import ClipWriter
from pix2seqd.panoptic.panoptic import Panoptic

SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".gif", ".tif", ".tiff"})
FRAMES_PER_SECOND = 10.0
"""For TIFF stacks, which have no times."""
FURTHER = Also(tuple(PLACES)).without("labelme")
"""Written for each frame; labelme's files would hold every frame again."""


def tab(site: Site, parts: Parts, samples: Path | None, steps: int) -> None:
    """Lay out the tab. `steps` is the start value of the steps of later frames."""
    found = sorted(p for p in samples.iterdir() if p.suffix.lower() in SUFFIXES)[:12] if samples else []
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            source = gr.File(label="Clip: video, GIF or TIFF stack", height=140, elem_id="clip")
            sample = gr.Radio([p.name for p in found], label="Samples", visible=bool(found), elem_id="clips")
            frames = gr.Slider(2, site.limits.frames, min(50, site.limits.frames), step=1, label="Frames at most")
            later = steps_slider(site.limits, steps, "Denoising steps of each later frame")
            if site.clip_segmenter:
                name = site.clip_segmenter.checkpoint.name
                gr.Markdown(f"Model `{name}`. Seed, smallest segment and diameter are those of the tab *Image*.")
            else:
                gr.Markdown("The first frame and all other settings are those of the tab *Image*.")
            with gr.Row():
                run = gr.Button("Segment", variant="primary", min_width=90, elem_id="segment-clip")
                stop = gr.Button("Stop", min_width=90)
        with gr.Column(scale=3, min_width=320):
            frame_view = view(placeholder="Upload a clip or choose a sample. Each frame appears when it is done.")
            table = gr.Dataframe(
                headers=["track", "class", "kind", "first frame", "last frame", "mean area"],
                interactive=False,
                max_height=300,
                label="Tracks",
                buttons=[],
            )
            files = gr.File(label="Downloads: video, tracks, everything", file_count="multiple", interactive=False)

    def segment(
        path: str | None, chosen: str | None, frames: int, steps: int, request: gr.Request, *values: Any
    ) -> Iterator[tuple[Any, ...]]:
        # The browser sends the name of a sample, never its path.
        named = next((sample for sample in found if sample.name == chosen), None)
        if path is None and named is None:
            raise InputError("no clip yet; upload one or choose a sample")
        given = site.scratch.resolve(path, visitor_of(request)) if path else named
        assert given is not None
        check_upload(given, site.limits.pixels)
        out = site.scratch.new_folder(visitor_of(request)) / "clip"
        options, value = settings_of(values), {}
        if site.clip_segmenter:  # another model: what the tab Image says about steps and samples is not for it
            options = {key: options[key] for key in ("seed", "min_pixels", "diameter")}
        else:
            options["first_steps"] = options["steps"]
        options["steps"] = int(steps)
        for done, total, frame, panoptic in site.turns.take(segmented(site, given, out, frames, options)):
            note = f"frame {done} of {total}: {count(panoptic)}"
            value = show(data_uri(reduced(frame.image), "JPEG"), panoptic, progress=done / total, note=note)
            yield value, gr.skip(), gr.skip()
        yield value | {"progress": 1.0}, tracks(out), export(out)

    settings = [source, sample, frames, later, *parts.settings]
    running = run.click(with_messages(segment), settings, [frame_view, table, files], **MODEL, show_progress="hidden")
    stop.click(None, cancels=[running])
    source.upload(lambda: None, None, sample, **QUICK)
    sample.input(lambda: None, None, source, **QUICK)


def segmented(
    site: Site, path: Path, out: Path, max_frames: int, options: dict[str, Any]
) -> Iterator[tuple[int, int, DecodedFrame, Panoptic]]:
    """Segment a clip and write it to `out`, as `pix2seqd video` does.

    Yields:
        Number of the frame, total number of frames, the frame, its segmentation.
    """
    segmenter = site.clip_segmenter or site.segmenter
    with open_clip(str(path), lambda _: None, FRAMES_PER_SECOND) as clip:
        total = min(clip.total or max_frames, max_frames)
        results = follow(partial(segmenter.video, **options), islice(clip.frames, max_frames))
        settings = {**segmenter.describe(), **options}
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
