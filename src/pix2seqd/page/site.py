"""Shared by the tabs: the models and their limits, the components that several tabs write to, and messages."""

import functools
import html
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import Dependency

from pix2seqd.files import InputError
from pix2seqd.interop.cards import HEADS, UNKNOWN
from pix2seqd.page import viewer
from pix2seqd.page.limits import Limits, Turns
from pix2seqd.page.models import Models
from pix2seqd.page.scratch import Scratch
from pix2seqd.page.work import Work
from pix2seqd.panoptic.extra_files import PLACES, write_further
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy

MODEL: dict[str, Any] = {"concurrency_id": "model", "concurrency_limit": 1, "api_visibility": "private"}
"""Settings of events that use the model: one at a time among all visitors."""
QUICK: dict[str, Any] = {"concurrency_limit": 4, "api_visibility": "private", "show_progress": "hidden"}
"""Settings of all other events."""


@dataclass(frozen=True)
class Site:
    """Shared by all visitors."""

    models: Models
    folder: Path
    scratch: Scratch
    limits: Limits
    turns: Turns
    given: Mapping[str, Any]
    """Start values of the controls that differ from the checkpoints' (`InferConfig`)."""

    def defaults(self, model: str) -> dict[str, Any]:
        """Start values of the controls for a model; an `InputError` if there is no such model."""
        infer = self.models.settings(model).infer
        first = self.given.get("steps", infer.image_steps)  # given steps also hold for images
        return {"seed": 0, "diameter": 0.0, **infer.to_dict(), "first_steps": first, **self.given}


@dataclass(frozen=True)
class Parts:
    """The components that several tabs share."""

    work: gr.State
    settings: list[gr.Component]
    """The inputs of `options_of`, and the model, which is the last of them."""
    about: gr.HTML
    """What is known of the model."""
    category: gr.Dropdown
    """The class of what is corrected."""
    image_view: gr.HTML
    correct_view: gr.HTML
    table: gr.Dataframe
    files: gr.File
    opened: Dependency
    """The event of a new image."""

    @property
    def result(self) -> list[gr.Component]:
        """The outputs of an event that changes the segmentation; `result_values` gives their values."""
        return [self.work, self.image_view, self.correct_view, self.table, self.files]

    @property
    def model(self) -> gr.Component:
        """Chooses the model."""
        return self.settings[-1]


def with_messages(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with each `InputError` turned into a message on the page."""

    @functools.wraps(function)
    def once(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except InputError as error:
            raise gr.Error(as_html(error), print_exception=False) from error

    @functools.wraps(function)
    def stepwise(*arguments: Any) -> Iterator[Any]:
        try:
            yield from function(*arguments)
        except InputError as error:
            raise gr.Error(as_html(error), print_exception=False) from error

    return stepwise if inspect.isgeneratorfunction(function) else once


def as_html(message: object) -> str:
    """A message for gradio, which takes it for HTML; it may have names of files and categories."""
    return html.escape(str(message), quote=False)


def require_work(work: Work | None) -> Work:
    """The work; an `InputError` if there is no image yet."""
    if work is None:
        raise InputError("no image yet; drop one on the tab Image, or click a sample")
    return work


def options_of(values: tuple[Any, ...]) -> dict[str, Any]:
    """Options of the segmenter, from the values of `Parts.settings`."""
    steps, td, min_pixels, seed, consensus, diameter, _ = values
    options = {"steps": int(steps), "td": float(td), "min_pixels": int(min_pixels or 0), "seed": int(seed or 0)}
    return options | {"consensus": int(consensus), "diameter": float(diameter or 0)}


def steps_slider(limits: Limits, value: int, label: str) -> gr.Slider:
    """A slider for the number of denoising steps. The start value can be above the limit of visitors."""
    return gr.Slider(1, max(value, limits.steps), value, step=1, label=label)


def view(editable: bool = False, placeholder: str = "The result appears here.") -> gr.HTML:
    """A viewer (see viewer.py)."""
    return gr.HTML(None, **viewer.parts(editable, placeholder))  # pyright: ignore[reportArgumentType]


def table_of(label: str, *heads: str) -> gr.Dataframe:
    """An empty table below a viewer."""
    return gr.Dataframe(headers=[*heads], interactive=False, max_height=300, label=label, buttons=[])


def samples_in(folder: Path | None, suffixes: Collection[str]) -> list[Path]:
    """The files of a folder that the page offers as samples."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)[:12] if folder else []


def to_result(element: str) -> str:
    """JavaScript that shows an element where the page is narrow and the element lies below."""
    return f"() => {{ if (innerWidth <= 640) document.getElementById('{element}').scrollIntoView() }}"


def rows(panoptic: Panoptic) -> list[list[Any]]:
    """Rows of the table of segments, largest first."""
    by_area = sorted(panoptic.segments, key=lambda segment: segment.area, reverse=True)
    kinds = ("stuff", "thing")
    return [[s.id, s.name, kinds[s.isthing], "" if s.score is None else s.score, s.area, *s.bbox] for s in by_area]


def visitor_of(request: gr.Request) -> str:
    """The visitor who asks (`pix2seqd.page.visitors`)."""
    assert request.request is not None
    return request.request.scope["visitor"]


def export(site: Site, work: Work, request: gr.Request) -> list[str]:
    """Write overlay, COCO PNG and COCO JSON, and the formats of other tools; return their paths for download.

    The measures have no intensities, because the page keeps the 8-bit view of an image, not the values of its file.
    """
    folder, stem = site.scratch.new_folder(visitor_of(request)), Path(work.name).stem[:80] or "image"
    work.panoptic.overlay(work.image).save(folder / f"{stem}-overlay.png")
    work.panoptic.save(folder / f"{stem}-panoptic.png")
    record = {"id": 1, "file_name": work.name, "width": work.image.width, "height": work.image.height}
    paths = {kind: folder / f"{stem}-{end}{suffix}" for kind, (end, suffix) in PLACES.items()}
    write_further(paths, record, work.panoptic, tuple, shown=work.image)
    ours = [folder / f"{stem}-{end}" for end in ("overlay.png", "panoptic.png", "panoptic.json")]
    return [str(path) for path in (*ours, *paths.values())]


def result_values(site: Site, work: Work, note: str, request: gr.Request) -> tuple[Any, ...]:
    """Values for `Parts.result`."""
    value = work.view(note=note)
    return work, value, value, rows(work.panoptic), export(site, work, request)


def generate(site: Site, work: Work, hints: Panoptic | None, values: tuple[Any, ...]) -> Iterator[tuple[Any, Panoptic]]:
    """Run the model. Yields the value of the viewer and the segmentation after each step."""
    options, model = options_of(values), values[-1]
    note = "0 %" if site.models.is_loaded(model) else f"loading the model {model}"
    yield work.view(hints or work.panoptic, 0.01, note), work.panoptic
    for share, panoptic in site.turns.take(site.models.get(model).progress(work.image, hints=hints, **options)):
        note = f"{round(100 * share)} % · {len(panoptic.segments)} segments"
        yield work.view(panoptic, share, note), panoptic


def about(site: Site, model: str) -> str:
    """What is known of a model, as HTML."""
    card = site.models.cards[model]
    known = [(head, getattr(card, key)) for key, head in HEADS.items() if getattr(card, key) != UNKNOWN]
    return "".join(f"<div><b>{head}</b> {html.escape(text)}</div>" for head, text in known)


def classes(taxonomy: Taxonomy, chosen: int | None = None) -> dict[str, Any]:
    """Choices and value of the control for the class; the chosen category is kept if there is one of this id."""
    ids = [category.id for category in taxonomy.categories]
    choices = [(category.name, category.id) for category in taxonomy.categories]
    return {"choices": choices, "value": chosen if chosen in ids else ids[0]}


def update_classes(parts: Parts) -> tuple[Callable[..., Any], list[Any], list[Any]]:
    """An event that offers the classes of the work, which has those of the model that segmented it."""

    def classes_of(work: Work | None, chosen: int | None) -> Any:
        return gr.skip() if work is None else gr.Dropdown(**classes(work.panoptic.taxonomy, chosen))

    return classes_of, [parts.work, parts.category], [parts.category]


def stopped(work: Work | None) -> Any:
    """The value of a viewer after Stop: the work as it was before."""
    return work and work.view(note=f"stopped · {count(work.panoptic)}")


def count(panoptic: Panoptic) -> str:
    """The number of things and of stuff segments, in words."""
    things = sum(segment.isthing for segment in panoptic.segments)
    text = f"{things} thing{'s' * (things != 1)}, {len(panoptic.segments) - things} stuff"
    unlike = "the image looks unlike those that the model is made for; its segments may mean nothing"
    return f"{text} · warning: {unlike}" if panoptic.unfamiliar else text
