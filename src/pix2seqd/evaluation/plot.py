"""Plots with Pillow alone: curves side by side, and pictures in a labelled grid."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

INK, FAINT, LINE, MARK = (40, 40, 40), (222, 222, 222), (31, 98, 173), (204, 82, 40)
FINE = 3
"""Drawn so many times larger, then reduced: smooth lines."""
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 320, 248, 46, 46, 24, 14
"""A panel, and the margins around its axes, in pixels."""


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
    spreads = [(v, s) for p in panels for v, s in zip(p.values, p.spread or [0.0] * len(p.values), strict=True)]
    known = [(v, s) for v, s in spreads if not math.isnan(v)] or [(0.0, 0.0)]
    low, high, step = _axis(min(v - s for v, s in known), max(v + s for v, s in known))
    image = Image.new("RGB", (FINE * WIDTH * len(panels), FINE * HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    for number, panel in enumerate(panels):
        _panel(draw, panel, number * WIDTH, (low, high, step), label if number == 0 else "")
    return image.resize((WIDTH * len(panels), HEIGHT), Image.Resampling.LANCZOS)


def _axis(low: float, high: float) -> tuple[float, float, float]:
    """(lowest, highest, distance) of about five round ticks that enclose the values."""
    span = max(high - low, 1e-3)
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(n * power for n in (1, 2, 5, 10) if span / (n * power) <= 5)
    return math.floor(low / step) * step, math.ceil((high + step / 100) / step) * step, step


def _panel(draw: ImageDraw.ImageDraw, panel: Curve, x0: int, axis: tuple[float, float, float], label: str) -> None:
    low, high, step = axis

    def place(x: float, y: float) -> tuple[float, float]:
        """Share of the axes, 0..1 each → pixels."""
        return FINE * (x0 + LEFT + x * (WIDTH - LEFT - RIGHT)), FINE * (HEIGHT - BOTTOM - y * (HEIGHT - BOTTOM - TOP))

    def write(at: tuple[float, float], text: str, anchor: str, dx: int = 0, dy: int = 0) -> None:
        font = ImageFont.load_default(12 * FINE)
        draw.text((at[0] + FINE * dx, at[1] + FINE * dy), text, INK, font, anchor=anchor)

    for n in range(round((high - low) / step) + 1):
        y = n * step / (high - low)
        draw.line([place(0, y), place(1, y)], FAINT, FINE)
        write(place(0, y), f"{low + n * step:.{max(0, -math.floor(math.log10(step)))}f}", "rm", dx=-6)
    draw.line([place(0, 0), place(1, 0)], INK, FINE)
    write(place(0.5, 0), panel.title, "ma", dy=24)
    write(place(0, 1), label, "lb", dx=-LEFT + 4, dy=-8)  # above the highest tick
    places = []
    for n, (name, value) in enumerate(zip(panel.names, panel.values, strict=True)):
        x = (n + 0.5) / len(panel.names)
        write(place(x, 0), name, "ma", dy=6)
        if math.isnan(value):
            continue
        spread = panel.spread[n] if panel.spread else 0.0
        bar = [place(x, (value + sign * spread - low) / (high - low)) for sign in (-1, 1)]
        draw.line(bar, LINE, FINE)
        places.append((place(x, (value - low) / (high - low)), MARK if name == panel.marked else LINE))
    if places:
        draw.line([at for at, _ in places], LINE, 2 * FINE, joint="curve")
    for (x, y), color in places:
        draw.ellipse([x - 4 * FINE, y - 4 * FINE, x + 4 * FINE, y + 4 * FINE], color, "white", FINE)


def grid(rows: Sequence[Sequence[Image.Image]], row_names: Sequence[str], column_names: Sequence[str]) -> Image.Image:
    """Pictures of one size in rows, each row named at its left and each column below."""
    width, height = rows[0][0].size
    font, gap = ImageFont.load_default(14), 6
    left = gap + max((round(font.getlength(name)) + gap for name in row_names if name), default=0)
    size = (left + len(rows[0]) * (width + gap), gap + len(rows) * (height + gap) + 20)
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    for y, (row, name) in enumerate(zip(rows, row_names, strict=True)):
        top = gap + y * (height + gap)
        draw.text((gap, top + height / 2), name, INK, font, anchor="lm")
        for x, picture in enumerate(row):
            image.paste(picture, (left + x * (width + gap), top))
    for x, name in enumerate(column_names):
        draw.text((left + x * (width + gap) + width / 2, size[1] - 4), name, INK, font, anchor="mb")
    return image
