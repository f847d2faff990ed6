"""The tab Correct: edit segments by hand, let the model complete them, save them to a data set."""

from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr

from pix2seqd.page import editing
from pix2seqd.page.site import MODEL, QUICK, Parts, Site, count, export, need, rows, sampling, shown, stopped, told
from pix2seqd.page.work import Work


def tab(site: Site, parts: Parts) -> None:
    """Lay out the tab."""
    categories = [(category.name, category.id) for category in site.segmenter.taxonomy.categories]
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            category = gr.Dropdown(categories, value=categories[0][1], label="Class", elem_id="category")
            with gr.Row():
                relabel = gr.Button("Set class", size="sm", min_width=70)
                merge = gr.Button("Merge", size="sm", min_width=70)
                split = gr.Button("Split", size="sm", min_width=70)
            with gr.Row():
                remove = gr.Button("Delete", size="sm", min_width=70)
                keep = gr.Button("Keep", size="sm", min_width=70)
                undo = gr.Button("Undo", size="sm", min_width=70)
            everything = gr.Radio(
                [("what I corrected or kept (green)", False), ("every segment; fill the void", True)],
                value=False,
                label="Complete leaves as it is",
            )
            with gr.Row():
                complete = gr.Button("Complete", variant="primary", min_width=90, elem_id="complete")
                stop = gr.Button("Stop", min_width=90)
            save = gr.Button("Save to the data set", elem_id="save")
            saved = gr.Markdown(f"Saved pictures go to\n`{site.folder}`")
        with gr.Column(scale=3, min_width=320, elem_classes="foremost"):
            parts.correct_view.render()
    _editing_events(
        site, parts, category, {"merge": merge, "split": split, "remove": remove, "keep": keep, "undo": undo}
    )

    def relabelled(work: Work | None, category_id: int) -> tuple[Any, ...]:
        return _edited(need(work).relabelled(category_id))

    def completed(work: Work | None, everything: bool, *values: Any) -> Iterator[tuple[Any, ...]]:
        work = need(work)
        known, panoptic = work.known(everything), work.panoptic
        for picture, panoptic in sampling(site, work, known, values):  # noqa: B007
            yield work, gr.skip(), picture, gr.skip(), gr.skip()
        yield shown(site, work.changed(panoptic), f"completed: {count(panoptic)}")

    def stored(work: Work | None) -> tuple[str, list[str]]:
        work = need(work)
        with site.saving:
            pictures = editing.append(site.folder, work.name, work.image, work.panoptic)
        said = f"**Saved.** `{site.folder}` has {pictures} {'picture' if pictures == 1 else 'pictures'} now."
        return said, export(site, work)

    relabel.click(told(relabelled), [parts.work, category], parts.result, **QUICK)
    inputs = [parts.work, everything, *parts.settings]
    running = complete.click(told(completed), inputs, parts.result, **MODEL, show_progress="hidden")
    stop.click(stopped, [parts.work], [parts.correct_view], cancels=[running], **QUICK)
    save.click(told(stored), [parts.work], [saved, parts.files], **QUICK)


def _edited(work: Work) -> tuple[Any, ...]:
    chosen = f" · {len(work.selected)} selected" if work.selected else ""
    picture = work.view(note=count(work.panoptic) + chosen)
    return work, picture, picture, rows(work.panoptic), None


def _editing_events(site: Site, parts: Parts, category: gr.Dropdown, buttons: dict[str, gr.Button]) -> None:
    actions: dict[str, Callable[[Work], Work]] = {
        "merge": Work.merged,
        "split": Work.split,
        "remove": Work.removed,
        "keep": Work.confirmed,
        "undo": Work.undone,
    }

    def doing(action: Callable[[Work], Work]) -> Callable[[Work | None], tuple[Any, ...]]:
        return lambda work: _edited(action(need(work)))

    for name, button in buttons.items():
        button.click(told(doing(actions[name])), [parts.work], parts.result, **QUICK)

    def drawn(work: Work | None, category_id: int, event: gr.EventData) -> tuple[Any, ...]:
        data = event._data or {}
        fresh = need(work).drawn(data.get("tool"), data.get("points"), data.get("radius"), category_id)
        return _edited(fresh)

    # Strokes may come faster than they are answered: all are taken, in their order.
    order = {**QUICK, "concurrency_limit": 1, "trigger_mode": "multiple"}
    parts.correct_view.edit(told(drawn), [parts.work, category], parts.result, **order)
