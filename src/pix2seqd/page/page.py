"""The page and its tabs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from pix2seqd.page import clip, correct, image, uncertainty
from pix2seqd.page.site import QUICK, Parts, Site, about, update_classes, with_messages
from pix2seqd.page.work import Work

STYLE = """
.gradio-container { width: 100%; max-width: 1500px !important; margin: 0 auto !important; }
.gradio-container main { width: 100%; min-width: 0; }
#samples .grid-wrap { overflow-y: auto !important; }
#samples .grid-container { padding-top: 24px; grid-template-columns: repeat(auto-fill, minmax(80px, 1fr)) !important; }
#drawn .grid-container { grid-template: none / repeat(auto-fill, minmax(150px, 1fr)) !important; }
#image-result .label-clear-button, #clip-result .label-clear-button { display: none; } /* hides a download for good */
@media (max-width: 640px) {
  .gradio-container > .main { padding: 16px !important; }
  .tab-wrapper { height: 44px !important; }
  .tab-wrapper button { padding: 0 10px !important; font-size: 15px !important; } /* or a menu hides some tabs */
  .tab-container button, button.sm, button.label-wrap, .label-clear-button, .reset-button, .icon-button,
  .source-selection button, .file .download a {
    min-height: 40px !important; min-width: 40px !important;
  }
  .source-selection { height: 40px !important; }
  .source-selection button { padding: 9px !important; }
  .tab-like-container { height: 42px !important; } /* a number and its reset button */
  button.label-wrap, .file .download a { display: flex !important; align-items: center; }
  .file .download a { justify-content: flex-end; }
  .foremost { order: -1; } /* the image before its buttons */
  /* or three files are called "stre… .json" */
  .file .filename { flex-wrap: wrap; align-items: center; min-height: 40px; overflow-wrap: anywhere; }
  .file .filename * { display: inline !important; white-space: normal !important; }
  .file .download { min-width: 5.5rem !important; }
}
footer { display: none !important; }
.heading p { margin: 0; color: var(--block-label-text-color); }
"""


def build(site: Site, samples: Path | None) -> gr.Blocks:
    """The page, ready to be launched; visitors can click the samples of a folder."""
    with gr.Blocks(title="pix2seqd", analytics_enabled=False, fill_width=True) as blocks:
        gr.Markdown("## pix2seqd\nPanoptic segmentation by bit diffusion", elem_classes="heading")
        work = gr.State(None)
        with gr.Tab("Image"):
            parts = image.tab(site, work, samples)
        with gr.Tab("Correct"):
            correct.tab(site, parts)
        with gr.Tab("Uncertainty"):
            uncertainty.tab(site, parts)
        with gr.Tab("Clip"):
            later = clip.tab(site, parts, samples)
        _choosing(site, parts, later)
    return blocks


def _choosing(site: Site, parts: Parts, later: list[Any]) -> None:
    """What the choice of a model changes: what is said of it, the settings, and the classes of an empty segmentation.

    A segmentation of another model stays until *Segment* is pressed.
    """

    def chosen(work: Work | None, model: str) -> tuple[Any, ...]:
        settings, defaults = site.models.settings(model), site.defaults(model)
        if work is not None and not work.panoptic.segments:
            work = replace(work, panoptic=replace(work.panoptic, taxonomy=settings.taxonomy), past=())
        values = [defaults[name] for name in ("first_steps", "td", "min_pixels", "seed", "consensus")]
        diameter = gr.Number(value=defaults["diameter"], visible=settings.data.diameter > 0)
        return work, about(site, model), *values, diameter, *clip.values(site, model)

    changed = [parts.work, parts.about, *parts.settings[:-1], *later]
    event = parts.model.change(with_messages(chosen), [parts.work, parts.model], changed, **QUICK)  # pyright: ignore
    event.then(*update_classes(parts), **QUICK)
