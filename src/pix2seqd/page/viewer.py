"""The value of a viewer of the page: an image and its segments as JSON, which viewer.js draws."""

import base64
from collections.abc import Collection
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from pix2seqd.files import encoded
from pix2seqd.panoptic.panoptic import Panoptic, id_to_rgb, unique_inverse
from pix2seqd.panoptic.render import segment_color
from pix2seqd.panoptic.taxonomy import VOID

MAX_SIDE = 1400
"""Longer side of an image that is sent to a browser, in pixels. Strokes are still in pixels of the whole image."""


def parts(editable: bool, placeholder: str) -> dict[str, str]:
    """Markup, style and script of a viewer, as `gradio.HTML` takes them.

    An editable one has tools, which trigger the event `edit`. The placeholder is shown while there is no image.
    """
    here = files("pix2seqd.page")
    names = {"html_template": "viewer.html", "css_template": "viewer.css", "js_on_load": "viewer.js"}
    found = {parameter: (here / name).read_text(encoding="utf-8") for parameter, name in names.items()}
    kind = "viewer editable" if editable else "viewer"
    found["html_template"] = found["html_template"].replace("KIND", kind).replace("PLACEHOLDER", placeholder)
    return found


def data_uri(image: Image.Image, kind: str = "PNG") -> str:
    """The image as a data URL: JPEG for viewing, PNG for exact values."""
    content = encoded(image, kind, **({"quality": 90} if kind == "JPEG" else {"compress_level": 1}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"


def reduced(image: Image.Image) -> Image.Image:
    """The image, reduced to `MAX_SIDE`."""
    result = image.copy()
    result.thumbnail((MAX_SIDE, MAX_SIDE))
    return result


def show(
    image: str,
    panoptic: Panoptic,
    *,
    progress: float = 1.0,
    note: str = "",
    selected: Collection[int] = (),
    kept: Collection[int] = (),
) -> dict[str, Any]:
    """The value of a viewer: an image (`data_uri`) and its segments, at the size of the whole image.

    The share `progress`, 0..1, is finished. The outlines of `selected` ids are white, those of `kept` ones green.
    """
    height, width = panoptic.segmentation.shape
    # Ids can be any number. The browser gets row numbers instead, which fit into two bytes.
    _, rows = unique_inverse(np.append(panoptic.segmentation.ravel(), VOID))
    ids = Image.fromarray(id_to_rgb(rows[:-1].reshape(height, width)))
    if max(ids.size) > MAX_SIDE:
        scale = MAX_SIDE / max(ids.size)
        ids = ids.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.NEAREST)
    segments = [
        asdict(segment)
        | {
            "color": segment_color(segment, panoptic.taxonomy),
            "selected": segment.id in selected,
            "kept": segment.id in kept,
        }
        for segment in panoptic.segments
    ]
    content = {"image": image, "ids": data_uri(ids), "segments": segments, "size": [width, height]}
    return content | {"progress": progress, "note": note}
