"""The scale of an image, estimated for checkpoints with `DataConfig.diameter` (not in the paper).

An estimate is a quick segmentation of some windows at one scale. It gives the typical diameter of the things found, and
their mean score (`tiling.ScaleEstimate`). At a wrong scale a large thing looks like several, and small things look like
one, but the model is less sure of them.
"""

import math
from collections.abc import Callable, Iterator

from pix2seqd.config import DataConfig
from pix2seqd.inference.tiling import ScaleEstimate

Estimator = Callable[[float, int], Iterator[ScaleEstimate]]
"""From a zoom (network pixels per image pixel) and a number of steps: an estimate after each window."""

_SCALES = {0.5: 0.7, 1.0: 0.6, 0.25: 0.6, 0.125: 0.6, 2.0: 0.6}
"""Zooms, an octave apart, at which a model that starts from ids in cells estimates; and the `_plausibility` from which
on no further one is tried. The likely scales come first, and the one that costs most comes last."""
_MAX_RATIO = 1.7
"""An estimate counts if the ratio of its diameter to `DataConfig.diameter`, or its inverse, is below this."""
_FEW = 8
"""Number of things after which an estimate that is less plausible than another one ends."""
_CORRECTIONS = 2
"""Most estimates of a model that starts from noise; each is at the scale that the one before found."""
_EQUAL = 1.25
"""Two scales whose ratio is below this are the same: no further estimate is needed."""
_STEPS = 5
"""Most steps of an estimate of a model that starts from noise."""


def surest_zoom(estimate: Estimator, data: DataConfig, side: int) -> float:
    """The zoom at which a model that starts from ids in cells is surest of its things.

    One scale after the other is tried, up to the first clear one, without those at which the image's shorter side,
    `side` pixels, is smaller than a thing. One step tells as much as two (docs/notebook/few-steps.md). Without things
    the answer is `data.zoom`.
    """
    best, best_diameter = 0.0, 0.0
    for zoom, clear in _SCALES.items():
        if max(round(side * zoom), 1) < data.diameter:
            continue
        plausibility, diameter = 0.0, 0.0
        for found in estimate(zoom, 1):
            plausibility, diameter = _plausibility(found, zoom, data.diameter), found.diameter
            if found.things >= _FEW and plausibility < best:
                break
        if plausibility > best:
            best, best_diameter = plausibility, diameter
        if best >= clear:
            break
    return data.at_scale_of(best_diameter).zoom


def corrected_zoom(estimate: Estimator, data: DataConfig, steps: int) -> float:
    """The zoom that a model which starts from noise finds; its scores in few steps tell scales apart less well.

    The first estimate is at the checkpoint's zoom, the second at the zoom that the first one found; they take no more
    than the checkpoint's `steps`.
    """
    zoom = data.zoom
    for _ in range(_CORRECTIONS):
        *_, last = estimate(zoom, min(_STEPS, steps))
        found = data.at_scale_of(last.diameter).zoom
        if not last.diameter or 1 / _EQUAL < found / zoom < _EQUAL:
            break
        zoom = found
    return zoom


def _plausibility(estimate: ScaleEstimate, zoom: float, diameter: float) -> float:
    """The estimate's score, 0 to 1, less if its things do not have this `diameter` in network pixels."""
    found = estimate.diameter * zoom
    ratio = max(found, diameter) / min(found, diameter) if found else _MAX_RATIO
    return estimate.score / math.sqrt(ratio) if ratio < _MAX_RATIO else 0.0
