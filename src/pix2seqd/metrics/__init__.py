"""Evaluation metrics. They are additive: the sum of two processes' metrics equals the metric of all their data."""

import math


def percent(value: float) -> str:
    """Format a score 0..1 as a percentage for tables; nan (undefined) is a dash."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}"
