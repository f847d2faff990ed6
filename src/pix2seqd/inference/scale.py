"""The scale of an image, found by looks at it, for checkpoints with `DataConfig.diameter` (not in the paper).

A *look* is a quick segmentation of some windows at one scale. It tells the typical diameter of the things that it
finds, and their mean score (`tiling.Look`). At a wrong scale a large thing looks like several, and small things look
like one, but the model is less sure of them.
"""

import math
from collections.abc import Callable, Iterator

from pix2seqd.config import DataConfig
from pix2seqd.inference.tiling import Look

Looks = Callable[[float, int], Iterator[Look]]
"""Looks at an image at a zoom (network pixels per image pixel), with a number of steps: a `Look` after each window."""

_SCALES = {0.5: 0.7, 1.0: 0.6, 0.25: 0.6, 0.125: 0.6, 2.0: 0.6}
"""Zoom of each look of a model that starts from ids in cells, an octave apart; and what a look has to be worth
(`_worth`) to be the last one. The likely scales come first, and the one that costs most comes last."""
_MAX_RATIO = 1.7
"""A look counts if the ratio of its things' diameter to `DataConfig.diameter`, or its inverse, is below this."""
_FEW = 8
"""Number of things after which a look that is worth less than another one ends."""
_CORRECTIONS = 2
"""Most looks of a model that starts from noise; each is at the scale that the one before found."""
_EQUAL = 1.25
"""Two scales whose ratio is below this are the same: no further look is needed."""
_STEPS = 5
"""Most steps of a look of a model that starts from noise."""


def surest_zoom(look: Looks, data: DataConfig, side: int) -> float:
    """The zoom at which a model that starts from ids in cells is surest of its things.

    It looks at one scale after the other, and stops at the first clear one. Scores are weighed by the ratio to
    `DataConfig.diameter`. One step tells as much as two (docs/notebook/few-steps.md).

    Args:
        look: looks at the image.
        data: the size that things have in training; its `zoom` is the answer if there are no things.
        side: the image's shorter side in pixels; at scales at which it is smaller than a thing, there is no look.
    """
    best_worth, best_diameter = 0.0, 0.0
    for zoom, clear in _SCALES.items():
        if max(round(side * zoom), 1) < data.diameter:
            continue
        worth, diameter = 0.0, 0.0
        for seen in look(zoom, 1):
            worth, diameter = _worth(seen, zoom, data.diameter), seen.diameter
            if seen.things >= _FEW and worth < best_worth:
                break
        if worth > best_worth:
            best_worth, best_diameter = worth, diameter
        if best_worth >= clear:
            break
    return data.at_scale_of(best_diameter).zoom


def corrected_zoom(look: Looks, data: DataConfig, steps: int) -> float:
    """The zoom that a model which starts from noise finds; its scores in few steps tell scales apart less well.

    The first look is at the checkpoint's zoom, the second at the zoom that the first one found.

    Args:
        look: looks at the image.
        data: the checkpoint's zoom, and the size that things have in training.
        steps: the checkpoint's number of steps.
    """
    zoom = data.zoom
    for _ in range(_CORRECTIONS):
        *_, last = look(zoom, min(_STEPS, steps))
        found = data.at_scale_of(last.diameter).zoom
        if not last.diameter or 1 / _EQUAL < found / zoom < _EQUAL:
            break
        zoom = found
    return zoom


def _worth(look: Look, zoom: float, diameter: float) -> float:
    """How much a look says, 0 to 1: its score, less if its things do not have this `diameter` in network pixels."""
    found = look.diameter * zoom
    ratio = max(found, diameter) / min(found, diameter) if found else _MAX_RATIO
    return look.score / math.sqrt(ratio) if ratio < _MAX_RATIO else 0.0
