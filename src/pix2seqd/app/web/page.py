"""The page: its tabs."""

from pathlib import Path
from typing import Any

import gradio as gr

from pix2seqd.app.web import clip, correct, image, uncertainty
from pix2seqd.app.web.site import Site

STYLE = """
.gradio-container { max-width: 1500px !important; margin: 0 auto !important; }
.gradio-container main { width: 100%; min-width: 0; }
#samples .grid-container { grid-template-columns: repeat(auto-fill, minmax(80px, 1fr)) !important; }
footer { display: none !important; }
.heading p { margin: 0; color: var(--body-text-color-subdued); }
"""


def build(site: Site, samples: Path | None, defaults: dict[str, Any]) -> gr.Blocks:
    """The page, ready to be launched.

    Args:
        site: what it works with.
        samples: folder of what visitors may click.
        defaults: what the controls start with: what `InferConfig` has, and perhaps seed.
    """
    name = site.segmenter.pretrained.name
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
            clip.tab(site, parts, samples, defaults["steps"])
    return blocks
