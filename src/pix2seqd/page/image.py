"""The tab Image: open an image and segment it."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from pix2seqd.page.site import (
    MODEL,
    QUICK,
    Parts,
    Site,
    about,
    classes,
    count,
    generate,
    require_work,
    result_values,
    samples_in,
    steps_slider,
    stopped,
    table_of,
    to_result,
    update_classes,
    view,
    visitor_of,
    with_messages,
)
from pix2seqd.page.work import Work

SAMPLES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


def tab(site: Site, work: gr.State, samples: Path | None) -> Parts:
    """Lay out the tab. The other tabs use the components that it returns."""
    with gr.Row():
        with gr.Column(scale=1, min_width=300):
            upload = _upload(site, samples)
            model, known = _models(site)
            with gr.Row():
                run = gr.Button("Segment", variant="primary", min_width=90, elem_id="segment")
                stop = gr.Button("Stop", min_width=90)
            known.render()
            settings = [*_settings(site), model]
        with gr.Column(scale=3, min_width=320, elem_id="image-result"):
            image_view = view(placeholder="Drop an image, paste one, take one with a camera, or click a sample.")
            table = table_of("Segments", "id", "class", "kind", "score", "pixels", "x", "y", "width", "height")
            files = gr.File(
                label="Downloads: overlay, COCO, measures, others", file_count="multiple", interactive=False
            )
    correct_view = view(editable=True, placeholder="Segment an image on the tab Image first.")
    correct_view.unrender()
    category = gr.Dropdown(
        **classes(site.models.settings(site.models.first).taxonomy), label="Class", elem_id="category", render=False
    )
    events = _Events(site)
    result = [work, image_view, correct_view, table, files]
    running = run.click(with_messages(events.segment), [work, *settings], result, **MODEL, show_progress="hidden")
    # A computation for the image before must not replace the new one.
    opened = upload.change(with_messages(events.open), [upload, model], result, **QUICK, cancels=[running])
    parts = Parts(work, settings, known, category, image_view, correct_view, table, files, opened)

    for event in (opened, running):
        event.then(*update_classes(parts), **QUICK)
    run.click(None, js=to_result("image-result"))
    stop.click(stopped, [work], [image_view], cancels=[running], **QUICK)
    return parts


class _Events:
    """The events of the tab; their values are those of `Parts.result`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def open(self, given: tuple[str, str] | None, model: str, request: gr.Request) -> tuple[Any, ...]:
        if given is None:
            return None, None, None, [], None
        path = self._site.scratch.resolve(given[0], visitor_of(request))
        taxonomy = self._site.models.settings(model).taxonomy
        fresh = Work.open(path, Path(given[1] or path.name).name, taxonomy, self._site.limits.pixels)
        value = fresh.view(note=f"{fresh.name} · {fresh.image.width} x {fresh.image.height}")
        return fresh, value, value, [], None

    def segment(self, work: Work | None, request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        work = require_work(work)
        panoptic = work.panoptic
        for value, panoptic in generate(self._site, work, None, values):  # noqa: B007
            yield gr.skip(), value, gr.skip(), gr.skip(), gr.skip()
        done = replace(work.changed(panoptic), kept=frozenset(), unsaved=False)
        yield result_values(self._site, done, count(done.panoptic), request)


def _upload(site: Site, samples: Path | None) -> gr.Image:
    """Where an image is dropped, pasted or taken, and the samples below it."""
    upload = gr.Image(
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard", "webcam"],
        label="Image",
        height=240,
        buttons=[],
        elem_id="image",
    )
    upload.preprocess = _as_uploaded  # pyright: ignore[reportAttributeAccessIssue]
    _samples(site, upload, samples_in(samples, SAMPLES))
    return upload


def _models(site: Site) -> tuple[gr.Dropdown, gr.HTML]:
    """The choice of the model, and what is known of the chosen one."""
    names, first = list(site.models.cards), site.models.first
    model = gr.Dropdown(names, value=first, label="Model", visible=len(names) > 1, filterable=False, elem_id="model")
    return model, gr.HTML(about(site, first), elem_id="about", render=False)


def _settings(site: Site) -> list[gr.Component]:
    """The controls of the options, in the order of `options_of`."""
    defaults = site.defaults(site.models.first)
    with gr.Accordion("Settings", open=False):
        return [
            steps_slider(site.limits, defaults["first_steps"], "Denoising steps"),
            gr.Slider(0, max(10, defaults["td"]), defaults["td"], step=0.1, label="τ_d, time difference in steps"),
            gr.Number(defaults["min_pixels"], minimum=0, precision=0, label="Smallest segment, in pixels"),
            gr.Number(defaults["seed"], minimum=0, precision=0, label="Seed"),
            gr.Slider(1, max(9, defaults["consensus"]), defaults["consensus"], step=2, label="Samples to agree"),
            gr.Number(
                defaults["diameter"],
                minimum=0,
                label="Diameter of the objects, in pixels; 0: estimated",
                visible=site.models.settings(site.models.first).data.diameter > 0,
            ),
        ]


def _as_uploaded(payload: Any) -> tuple[str, str] | None:
    """Path and original name. `load_image` reads more formats than gradio, and its errors are clear."""
    return payload and (payload.path, payload.orig_name or "")


def _samples(site: Site, upload: gr.Image, found: Sequence[Path]) -> None:
    if not found:
        return
    gallery = gr.Gallery(
        [(str(path), path.stem) for path in found],
        label="Samples: click one",
        columns=4,
        fit_columns=False,
        height=160,
        allow_preview=False,
        object_fit="cover",
        interactive=False,
        buttons=[],
        elem_id="samples",
    )

    def chosen(event: gr.SelectData, request: gr.Request) -> str:
        # The browser sends a number, never a file name. Gradio serves copies in its own folder only.
        return str(shutil.copy(found[event.index], site.scratch.new_folder(visitor_of(request))))

    gallery.select(chosen, None, upload, **QUICK)
