"""The tab Correct: edit segments by hand, let the model complete them, save them in a data set."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import gradio as gr

from pix2seqd.page import editing
from pix2seqd.page.site import (
    MODEL,
    QUICK,
    Parts,
    Site,
    count,
    export,
    generate,
    require_work,
    result_values,
    rows,
    stopped,
    with_messages,
)
from pix2seqd.page.work import SAVES, Work


def tab(site: Site, parts: Parts) -> None:
    """Lay out the tab."""
    category = parts.category
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            category.render()
            with gr.Row():
                relabel = gr.Button("Set class", size="sm", min_width=70)
                merge = gr.Button("Merge", size="sm", min_width=70)
                split = gr.Button("Split", size="sm", min_width=70)
            with gr.Row():
                remove = gr.Button("Delete", size="sm", min_width=70)
                keep = gr.Button("Keep", size="sm", min_width=70)
                undo = gr.Button("Undo", size="sm", min_width=70)
            everything = gr.Radio(
                [("segments that I corrected or kept (green)", False), ("every segment, and fills the void", True)],
                value=False,
                label="Complete does not change",
            )
            with gr.Row():
                complete = gr.Button("Complete", variant="primary", min_width=90, elem_id="complete")
                stop = gr.Button("Stop", min_width=90)
            save = gr.Button("Save to the data set", elem_id="save")
            saved = gr.Markdown(f"Saved images go to\n`{site.folder}`")
        with gr.Column(scale=3, min_width=320, elem_classes="foremost"):
            parts.correct_view.render()
    _editing_events(
        site, parts, category, {"merge": merge, "split": split, "remove": remove, "keep": keep, "undo": undo}
    )

    def relabelled(work: Work | None, category_id: int) -> tuple[Any, ...]:
        return _edited(require_work(work).relabelled(category_id))

    def completed(work: Work | None, everything: bool, request: gr.Request, *values: Any) -> Iterator[tuple[Any, ...]]:
        work = require_work(work)
        hints, panoptic = work.hints(everything), work.panoptic
        for value, panoptic in generate(site, work, hints, values):  # noqa: B007
            yield gr.skip(), gr.skip(), value, gr.skip(), gr.skip()
        yield result_values(site, work.changed(panoptic), f"completed: {count(panoptic)}", request)

    def stored(work: Work | None, request: gr.Request) -> tuple[Work, str, list[str]]:
        work = require_work(work)
        number = editing.append(site.folder, work.name, work.image, work.panoptic)
        message = f"**Saved.** `{site.folder}` has {number} {'image' if number == 1 else 'images'} now."
        return replace(work, unsaved=False), message, export(site, work, request)

    relabel.click(with_messages(relabelled), [parts.work, category], parts.result, **QUICK)
    inputs = [parts.work, everything, *parts.settings]
    running = complete.click(with_messages(completed), inputs, parts.result, **MODEL, show_progress="hidden")
    stop.click(stopped, [parts.work], [parts.correct_view], cancels=[running], **QUICK)
    parts.opened.success(None, cancels=[running])
    save.click(with_messages(stored), [parts.work], [parts.work, saved, parts.files], **QUICK, concurrency_id=SAVES)


def _begun(before: Work, now: Work) -> str:
    """A sentence if painting began a new segment."""
    known = {segment.id for segment in before.panoptic.segments}
    new = [segment for segment in now.panoptic.segments if segment.id not in known and now.selected == (segment.id,)]
    return f" · new {new[0].name}; paint again to extend it, or click it with Select to begin another" if new else ""


def _edited(work: Work, more: str = "") -> tuple[Any, ...]:
    chosen = f" · {len(work.selected)} selected" if work.selected else ""
    value = work.view(note=count(work.panoptic) + chosen + more)
    return work, value, value, rows(work.panoptic), None


def _editing_events(site: Site, parts: Parts, category: gr.Dropdown, buttons: dict[str, gr.Button]) -> None:
    actions: dict[str, Callable[[Work], Work]] = {
        "merge": Work.merged,
        "split": Work.split,
        "remove": Work.removed,
        "keep": Work.confirmed,
        "undo": Work.undone,
    }

    def doing(action: Callable[[Work], Work]) -> Callable[[Work | None], tuple[Any, ...]]:
        return lambda work: _edited(action(require_work(work)))

    for name, button in buttons.items():
        button.click(with_messages(doing(actions[name])), [parts.work], parts.result, **QUICK)

    def drawn(work: Work | None, category_id: int, event: gr.EventData) -> tuple[Any, ...]:
        data = event._data or {}
        work = require_work(work)
        fresh = work.drawn(data.get("tool"), data.get("points"), data.get("radius"), category_id)
        return _edited(fresh, "" if fresh.selected == work.selected else _begun(work, fresh))

    # Strokes can arrive faster than they are handled. All of them are handled, in their order.
    order = {**QUICK, "concurrency_limit": 1, "trigger_mode": "multiple"}
    parts.correct_view.edit(with_messages(drawn), [parts.work, category], parts.result, **order)
