"""Curves side by side (matplotlib, extra `train`), and images in a labelled grid."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, LINE, MARK = "#282828", "#dedede", "#1f62ad", "#cc5228"
WIDTH, HEIGHT = 3.2, 2.4
"""A panel, in inches."""
DPI = 200


@dataclass(frozen=True)
class Curve:
    """One panel: what `title` (below the axis) does to the values."""

    title: str
    names: Sequence[str]
    """Of the points, at even distances."""
    values: Sequence[float]
    spread: Sequence[float] | None = None
    """Half the length of each point's error bar."""
    marked: str = ""
    """Name of the point that is shown as the default."""


def curves(panels: Sequence[Curve], label: str) -> Image.Image:
    """Panels side by side with a common vertical axis, called `label`; values that are nan are left out."""
    from matplotlib.figure import Figure

    figure = Figure((WIDTH * len(panels), HEIGHT), DPI, layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    axes[0].set_ylabel(label, color=INK)
    ticks = _ticks(panels)
    axes[0].set_yticks(ticks)
    axes[0].set_ylim(ticks[0], ticks[-1])
    for ax, panel in zip(axes, panels, strict=True):
        _draw(ax, panel)
    return _drawn(figure)


def reliability(bars: Sequence[Mapping[str, float]]) -> Image.Image:
    """Precision of segments with similar scores against their score; on the diagonal a score is calibrated.

    Args:
        bars: "score", "precision" and "count", as `DetectionAP.compute` gives them.
    """
    from matplotlib.figure import Figure

    figure = Figure((WIDTH, WIDTH), DPI, layout="constrained")
    ax = figure.subplots()
    scores, precisions, counts = (np.array([bar[key] for bar in bars]) for key in ("score", "precision", "count"))
    ax.plot([0, 1], [0, 1], color=FAINT, linewidth=1.6)
    ax.plot(scores, precisions, color=LINE, linewidth=1.6, clip_on=False)
    # The area of a point is the share of the segments.
    ax.scatter(scores, precisions, 12 + 400 * counts / max(counts.sum(), 1), LINE, edgecolors="white", clip_on=False)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ax.set_xlabel("score", color=INK)
    ax.set_ylabel("share that is right (IoU > 0.5)", color=INK)
    _style(ax)
    return _drawn(figure)


def _drawn(figure: "Figure") -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _ticks(panels: Sequence[Curve]) -> Sequence[float]:
    """About five round values that enclose all points and their error bars."""
    from matplotlib.ticker import MaxNLocator

    spreads = [(v, s) for p in panels for v, s in zip(p.values, p.spread or [0.0] * len(p.values), strict=True)]
    known = [(v, s) for v, s in spreads if not math.isnan(v)] or [(0.0, 0.0)]
    low, high = min(v - s for v, s in known), max(v + s for v, s in known)
    return MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, max(high, low + 0.1))


def _draw(ax: "Axes", panel: Curve) -> None:
    points = [n for n, value in enumerate(panel.values) if not math.isnan(value)]
    values = [panel.values[n] for n in points]
    spread = [panel.spread[n] for n in points] if panel.spread else None
    ax.errorbar(points, values, spread, color=LINE, linewidth=1.6, elinewidth=1, clip_on=False)
    colors = [MARK if panel.names[n] == panel.marked else LINE for n in points]
    ax.scatter(points, values, 34, colors, edgecolors="white", clip_on=False, zorder=3)
    ax.set_xticks(range(len(panel.names)), panel.names)
    ax.set_xlim(-0.5, len(panel.names) - 0.5)
    ax.set_xlabel(panel.title, color=INK)
    ax.grid(axis="y", color=FAINT, clip_on=False)
    _style(ax)


def _style(ax: "Axes") -> None:
    ax.set_axisbelow(True)
    ax.spines[["left", "right", "top"]].set_visible(False)
    ax.spines["bottom"].set_color(INK)
    ax.tick_params(length=0, labelcolor=INK)


def grid(rows: Sequence[Sequence[Image.Image]], row_names: Sequence[str], column_names: Sequence[str]) -> Image.Image:
    """Images of one size in rows, each row named at its left and each column below."""
    width, height = rows[0][0].size
    font, gap = ImageFont.load_default(14), 6
    left = gap + max((round(font.getlength(name)) + gap for name in row_names if name), default=0)
    size = (left + len(rows[0]) * (width + gap), gap + len(rows) * (height + gap) + 20)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for y, (row, name) in enumerate(zip(rows, row_names, strict=True)):
        top = gap + y * (height + gap)
        draw.text((gap, top + height / 2), name, INK, font, anchor="lm")
        for x, cell in enumerate(row):
            image.paste(cell, (left + x * (width + gap), top))
    for x, name in enumerate(column_names):
        draw.text((left + x * (width + gap) + width / 2, size[1] - 4), name, INK, font, anchor="mb")
    return image
