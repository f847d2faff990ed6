"""What the page's viewer shows: a picture and its segments as one JSON value that viewer.js draws."""

import base64
import io
from collections.abc import Collection
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from pix2seqd.panoptic.panoptic import Panoptic, compact, id_to_rgb
from pix2seqd.panoptic.render import segment_color
from pix2seqd.panoptic.taxonomy import VOID

LONGEST = 1400
"""Pixels of the longer side that a browser is sent; what is drawn is in the picture's own pixels all the same."""


def parts(editable: bool, invitation: str) -> dict[str, str]:
    """Markup, style and script of a viewer, as `gradio.HTML` takes them.

    Args:
        editable: whether it has tools, which raise the event `edit`.
        invitation: what it says without a picture.
    """
    here = files("pix2seqd.page")
    names = {"html_template": "viewer.html", "css_template": "viewer.css", "js_on_load": "viewer.js"}
    found = {parameter: (here / name).read_text(encoding="utf-8") for parameter, name in names.items()}
    kind = "viewer editable" if editable else "viewer"
    found["html_template"] = found["html_template"].replace("KIND", kind).replace("INVITATION", invitation)
    return found


def data_uri(image: Image.Image, kind: str = "PNG") -> str:
    """A picture inside a URL: JPEG for the eye, PNG for exact values."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **({"quality": 90} if kind == "JPEG" else {"compress_level": 1}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def reduced(image: Image.Image) -> Image.Image:
    """The picture, not larger than what a browser is sent."""
    result = image.copy()
    result.thumbnail((LONGEST, LONGEST))
    return result


def show(
    picture: str,
    panoptic: Panoptic,
    *,
    progress: float = 1.0,
    note: str = "",
    selected: Collection[int] = (),
    kept: Collection[int] = (),
) -> dict[str, Any]:
    """The viewer's value.

    Args:
        picture: as `data_uri` gives it.
        panoptic: its segments, at the picture's own size.
        progress: share that is done, 0..1.
        note: line below the picture.
        selected: ids that are outlined in white.
        kept: ids that are outlined in green.
    """
    height, width = panoptic.segmentation.shape
    # A browser knows segments by their row: ids may be any number, rows fit into two bytes.
    _, rows = compact(np.append(panoptic.segmentation.ravel(), VOID))
    ids = Image.fromarray(id_to_rgb(rows[:-1].reshape(height, width)))
    if max(ids.size) > LONGEST:
        scale = LONGEST / max(ids.size)
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
    content = {"picture": picture, "ids": data_uri(ids), "segments": segments, "size": [width, height]}
    return content | {"progress": progress, "note": note}
