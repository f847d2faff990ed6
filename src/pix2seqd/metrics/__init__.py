"""The field's metrics, each additive: `a + b` of two processes equals one process that saw everything."""

import math


def percent(value: float) -> str:
    """A score 0..1 as tables show it; nan, where there is nothing to score, as a dash."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}"
