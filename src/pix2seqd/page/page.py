"""The page and its tabs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from pix2seqd.page import clip, correct, image, uncertainty
from pix2seqd.page.site import Site

STYLE = """
.gradio-container { width: 100%; max-width: 1500px !important; margin: 0 auto !important; }
.gradio-container main { width: 100%; min-width: 0; }
#samples .grid-wrap { overflow-y: auto !important; }
#samples .grid-container { padding-top: 24px; grid-template-columns: repeat(auto-fill, minmax(80px, 1fr)) !important; }
#drawn .grid-container { grid-template: none / repeat(auto-fill, minmax(150px, 1fr)) !important; }
@media (max-width: 640px) {
  .gradio-container > .main { padding: 16px !important; }
  .tab-wrapper { height: 44px !important; }
  .tab-wrapper button { padding: 0 10px !important; font-size: 15px !important; } /* or a menu hides some tabs */
  .tab-container button, .reset-button { min-height: 40px !important; min-width: 40px; }
  .foremost { order: -1; } /* the image before its buttons */
}
footer { display: none !important; }
.heading p { margin: 0; color: var(--block-label-text-color); }
"""


def build(site: Site, samples: Path | None, given: Mapping[str, Any]) -> gr.Blocks:
    """The page, ready to be launched.

    Args:
        site: the model, its limits and folders.
        samples: folder of samples that visitors can click.
        given: start values of the controls that differ from the checkpoint's (`InferConfig`).
    """
    name, infer = site.segmenter.checkpoint.name, site.segmenter.checkpoint.infer
    first = given.get("steps", infer.first_steps)  # given steps also hold for images
    defaults = {**infer.to_dict(), "first_steps": first, **given}
    with gr.Blocks(title="pix2seqd", analytics_enabled=False, fill_width=True) as blocks:
        gr.Markdown(f"## pix2seqd\nPanoptic segmentation by bit diffusion · model `{name}`", elem_classes="heading")
        work = gr.State(None)
        with gr.Tab("Image"):
            parts = image.tab(site, work, samples, defaults)
        with gr.Tab("Correct"):
            correct.tab(site, parts)
        with gr.Tab("Uncertainty"):
            uncertainty.tab(site, parts)
        with gr.Tab("Clip"):
            own = site.clip_segmenter
            clip.tab(site, parts, samples, own.checkpoint.infer.steps if own else defaults["steps"])
    return blocks
