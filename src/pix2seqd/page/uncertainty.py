"""The tab Uncertainty: several samples of one image, where they disagree, and their consensus."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from pix2seqd.page.site import (
    MODEL,
    QUICK,
    Parts,
    Site,
    count,
    options_of,
    require_work,
    result_values,
    update_classes,
    view,
    visitor_of,
    with_messages,
)
from pix2seqd.page.viewer import reduced
from pix2seqd.page.work import Work
from pix2seqd.panoptic.panoptic import Panoptic

HEAT_AT = (0.0, 0.3, 0.6, 0.85, 1.0)
HEAT = ((0, 0, 0), (110, 15, 110), (235, 85, 45), (255, 205, 60), (255, 255, 220))
"""Colours of the disagreement, and the values between 0 and 1 that they stand for."""


def tab(site: Site, parts: Parts) -> None:
    """Lay out the tab."""
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            gr.Markdown("Segments the image of the tab *Image* several times, with its settings and different noise.")
            number = gr.Slider(2, site.limits.samples, 4, step=1, label="Samples", elem_id="number")
            with gr.Row():
                run = gr.Button("Draw", variant="primary", min_width=90, elem_id="draw")
                stop = gr.Button("Stop", min_width=90)
            correct = gr.Button("Use the consensus in Correct", elem_id="take")
            summary_text = gr.Markdown()
        with gr.Column(scale=3, min_width=320):
            with gr.Row():
                with gr.Column(min_width=300):
                    gr.Markdown("Disagreement, from black (none) to white (most)")
                    heat = gr.Image(show_label=False, interactive=False, buttons=["fullscreen"])
                with gr.Column(min_width=300):
                    gr.Markdown("Consensus")
                    consensus = view()
            gr.Markdown("Samples")
            gallery = gr.Gallery(
                show_label=False,
                height="auto",
                object_fit="contain",
                interactive=False,
                buttons=["fullscreen"],
                elem_id="drawn",
            )
    agreed = gr.State(None)

    def drawn(work: Work | None, number: int, request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        work, options = require_work(work), options_of(values)
        samples: list[Panoptic] = []

        def several() -> Iterator[tuple[float, Panoptic]]:
            for k in range(number):  # single samples, because a consensus would hide the disagreement
                sample_options: dict[str, Any] = {**options, "seed": options["seed"] + k, "consensus": 1}
                for share, panoptic in site.models.get(values[-1]).progress(work.image, **sample_options):
                    yield (k + share) / number, panoptic
                samples.append(panoptic)  # pyright: ignore[reportPossiblyUnboundVariable]

        for share, panoptic in site.turns.take(several()):
            value = work.view(panoptic, share, f"sample {min(len(samples) + 1, number)} of {number}")
            yield gr.skip(), value, gr.skip(), gr.skip(), gr.skip()
        yield summary(work, samples, options["min_pixels"], site.scratch.new_folder(visitor_of(request)))

    def taken(work: Work | None, agreed: Panoptic | None, request: gr.Request) -> tuple[Any, ...]:
        work = require_work(work)
        if agreed is None or agreed.segmentation.shape != work.panoptic.segmentation.shape:
            raise gr.Error("draw samples of this image first", print_exception=False)
        return result_values(site, work.changed(agreed), "consensus of the samples", request)

    outputs = [heat, consensus, gallery, summary_text, agreed]
    inputs = [parts.work, number, *parts.settings]
    running = run.click(with_messages(drawn), inputs, outputs, **MODEL, show_progress="hidden")
    stop.click(None, cancels=[running])
    parts.opened.success(lambda: [None] * len(outputs), None, outputs, cancels=[running], **QUICK)
    taking = correct.click(with_messages(taken), [parts.work, agreed], parts.result, **QUICK)
    taking.then(*update_classes(parts), **QUICK)


def summary(work: Work, samples: list[Panoptic], min_pixels: int, folder: Path) -> tuple[Any, ...]:
    """The values of the tab: disagreement, consensus, samples, a sentence, and the consensus for Correct.

    Images are written to `folder`.
    """
    from pix2seqd.inference import consensus as ensemble

    disagreement = ensemble.uncertainty(samples)
    agreed = ensemble.consensus(samples, min_pixels)
    drawn = {f"sample-{k}.png": sample.overlay(work.image) for k, sample in enumerate(samples, start=1)}
    drawn["disagreement.png"] = heatmap(work.image, disagreement)
    for name, image in drawn.items():
        reduced(image).save(folder / name)
    gallery = [
        (str(folder / f"sample-{k}.png"), f"{k}: {len(sample.things)} things")
        for k, sample in enumerate(samples, start=1)
    ]
    text = f"{len(samples)} samples disagree on {100 * float((disagreement > 0.5).mean()):.1f} % of the pixels."
    view = work.view(agreed, note=count(agreed))
    return str(folder / "disagreement.png"), view, gallery, text, agreed


def heatmap(image: Image.Image, disagreement: np.ndarray) -> Image.Image:
    """The disagreement, 0..1 `[h, w]`, in colours over the darkened grey image."""
    heat = np.stack([np.interp(disagreement, HEAT_AT, channel) for channel in zip(*HEAT, strict=True)], axis=-1)
    grey = np.asarray(image.convert("L"), np.float32)[..., None] * 0.45
    strength = np.clip(disagreement * 3, 0, 1)[..., None]
    return Image.fromarray((grey * (1 - strength) + heat * strength).astype(np.uint8))
