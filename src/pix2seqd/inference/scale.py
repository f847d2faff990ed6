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
"""Zooms, an octave apart, at which a model estimates; and the `_plausibility` from which on no further one is tried.
The likely scales come first, and the one that costs most comes last."""
_MAX_RATIO = 1.7
"""An estimate counts if the ratio of its diameter to `DataConfig.diameter`, or its inverse, is below this."""
_FEW = 8
"""Number of things after which an estimate that is less plausible than another one ends."""
_MANY_STEPS = 5
"""Steps of an estimate of a model that takes as many or more. One that takes fewer was trained for few, and says as
much about the scale in one."""


def best_zoom(estimate: Estimator, data: DataConfig, side: int, steps: int) -> float:
    """The zoom at which a model that takes `steps` gives its things the highest scores.

    One scale after the other is tried, up to the first clear one, without those at which the image's shorter side,
    `side` pixels, is smaller than a thing (docs/notebook/few-steps.md). Without things the answer is `data.zoom`.
    """
    best, best_diameter = 0.0, 0.0
    for zoom, clear in _SCALES.items():
        if max(round(side * zoom), 1) < data.diameter:
            continue
        plausibility, diameter = 0.0, 0.0
        for found in estimate(zoom, _MANY_STEPS if steps >= _MANY_STEPS else 1):
            plausibility, diameter = _plausibility(found, zoom, data.diameter), found.diameter
            if found.things >= _FEW and plausibility < best:
                break
        if plausibility > best:
            best, best_diameter = plausibility, diameter
        if best >= clear:
            break
    return data.at_scale_of(best_diameter).zoom


def _plausibility(estimate: ScaleEstimate, zoom: float, diameter: float) -> float:
    """The estimate's score, 0 to 1, less if its things do not have this `diameter` in network pixels."""
    found = estimate.diameter * zoom
    ratio = max(found, diameter) / min(found, diameter) if found else _MAX_RATIO
    return estimate.score / math.sqrt(ratio) if ratio < _MAX_RATIO else 0.0
