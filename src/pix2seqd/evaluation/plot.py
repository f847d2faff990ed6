"""Curves, bars and confusion matrices (matplotlib, extra `train`), and images in a labelled grid."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, LINE, MARK = "#282828", "#dedede", "#1f62ad", "#cc5228"
WIDTH, HEIGHT = 3.2, 2.4
"""A panel, in inches."""
DPI = 200
MAX_NAMES = 40
"""Classes whose names a plot has room for."""
MAX_CURVES = 10
"""Classes that get a curve each."""


@dataclass(frozen=True)
class Curve:
    """One panel: what `title` (below the axis) does to the values."""

    title: str
    names: Sequence[str]
    """Names of the points, which are drawn at even distances."""
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
    return _image(figure)


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
    return _image(figure)


def _image(figure: "Figure") -> Image.Image:
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


def training_curves(
    losses: Sequence[tuple[int, float]],
    steps: Sequence[int],
    quality: Sequence[float],
    classes: Mapping[str, Sequence[float]],
) -> Image.Image:
    """The course of a run in three panels: loss, PQ of all classes, PQ of each class.

    Args:
        losses: (step, loss).
        steps: of the evaluations.
        quality: PQ of each evaluation, 0..1 or nan.
        classes: name of each class → its PQ at each evaluation, likewise. The first `MAX_CURVES` are drawn.
    """
    from matplotlib.figure import Figure

    figure = Figure((3 * WIDTH, HEIGHT), DPI, layout="constrained")
    loss, total, each = figure.subplots(1, 3)
    loss.plot(*zip(*losses, strict=True) if losses else ([], []), color=LINE, linewidth=1.6)
    total.plot(steps, 100 * np.array(quality), color=LINE, linewidth=1.6, marker="o", markersize=4)
    for name, values in list(classes.items())[:MAX_CURVES]:
        each.plot(steps, 100 * np.array(values, float), linewidth=1.2, marker="o", markersize=3, label=_short(name))
    for ax, label in ((loss, "loss"), (total, "PQ"), (each, "PQ of each class")):
        ax.set_xlabel("step", color=INK)
        ax.set_ylabel(label, color=INK)
        _plain(ax)
    for ax in (total, each):
        ax.set_ylim(0, 100)
    figure.legend(*each.get_legend_handles_labels(), loc="outside right upper", fontsize=6, frameon=False)
    return _image(figure)


def confusion_matrix(classes: Sequence[str], pixels: Sequence[Sequence[int]]) -> Image.Image:
    """How the pixels of each true class (rows) are divided among the predicted classes (columns).

    Args:
        classes: names, void first.
        pixels: counts, rows are true classes.
    """
    figure, (ax,) = _squares(1, len(classes))
    _draw_confusion(figure, ax, classes, pixels)
    return _image(figure)


def scores(
    names: Sequence[str], quality: Sequence[float], classes: Sequence[str], pixels: Sequence[Sequence[int]]
) -> Image.Image:
    """PQ of each class, 0..1, nan where it does not occur, as bars beside the `confusion_matrix`; void has no bar."""
    figure, (bars, matrix) = _squares(2, len(classes))
    places = np.arange(len(names))
    bars.barh(places, np.nan_to_num(100 * np.array(quality, float)), color=LINE)
    bars.set_yticks(places, map(_short, names)) if len(names) <= MAX_NAMES else bars.set_yticks([])
    bars.invert_yaxis()
    bars.set_xlim(0, 100)
    bars.set_xlabel("PQ", color=INK)
    _plain(bars, "x")
    _draw_confusion(figure, matrix, classes, pixels)
    return _image(figure)


def _squares(panels: int, classes: int) -> "tuple[Figure, Sequence[Axes]]":
    """A figure of panels side by side, each as large as the names of so many classes need."""
    from matplotlib.figure import Figure

    side = max(3.0, 1.5 + 0.35 * min(classes, MAX_NAMES))
    figure = Figure((panels * side + 0.8, side), DPI, layout="constrained")
    return figure, figure.subplots(1, panels, squeeze=False)[0]


def _draw_confusion(figure: "Figure", ax: "Axes", classes: Sequence[str], pixels: Sequence[Sequence[int]]) -> None:
    counts = np.array(pixels, float)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    shown = ax.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    named = len(classes) <= MAX_NAMES
    ticks, labels = (range(len(classes)), [_short(name) for name in classes]) if named else ([], [])
    ax.set_xticks(ticks, labels, rotation=90)
    ax.set_yticks(ticks, labels)
    if len(classes) <= MAX_NAMES / 2:
        for row, column in np.argwhere(shares >= 0.5).tolist():
            value = shares[row, column]
            color = "white" if value > 60 else INK
            ax.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=6, color=color)
    ax.set_xlabel("predicted", color=INK)
    ax.set_ylabel("true", color=INK)
    ax.tick_params(length=0, labelsize=7, labelcolor=INK)
    figure.colorbar(shown, ax=ax, shrink=0.8).set_label("% of the true class's pixels", color=INK)


def _short(name: str) -> str:
    """A name for a plot; $ would begin a formula, and _ at its start hide a legend's entry."""
    return (name if len(name) <= 24 else f"{name[:23]}…").replace("$", r"\$").lstrip("_") or "-"


def _plain(ax: "Axes", axis: Literal["x", "y"] = "y") -> None:
    ax.grid(axis=axis, color=FAINT)
    _style(ax)
    ax.tick_params(labelsize=7)


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
