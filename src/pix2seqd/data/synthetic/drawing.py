"""Rendering of a synthetic scene to a label map and an image, both pure functions of `Scene` and size.

Everything is painted back to front from signed distances. The label map uses their sign, and the image a smooth edge of
one pixel.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pix2seqd.data.synthetic.scene import Scene, Stuff, Thing

MIN_AREA = 24 / 128**2
"""Minimum visible area of a layer, as a share of the image. Smaller layers are removed from the scene."""
MIN_VISIBLE = 0.25
"""Minimum visible share of a thing's area. Below it, the class could not be recognised."""

_CELLS = 32  # period of the noise grid, in wavelengths
_REACH = 1.3  # distance to the farthest point of any outline, in radii


@dataclass(frozen=True)
class _View:
    """World coordinates of pixel centres, x `[w]` and y `[h]`, and pixels per unit."""

    x: np.ndarray
    y: np.ndarray
    pixels: int

    @classmethod
    def of(cls, scene: Scene, size: tuple[int, int]) -> "_View":
        pixels = min(size)
        y, x = (
            (np.arange(n, dtype=np.float32) + 0.5) / pixels + offset
            for n, offset in zip(size, reversed(scene.camera), strict=True)
        )
        return cls(x, y, pixels)

    def around(self, thing: Thing, margin: float = 0.0) -> tuple[slice, slice, "_View"]:
        """The rows and columns that a thing can cover, and the view restricted to them."""
        reach = thing.radius * _REACH + margin + 1 / self.pixels
        rows = slice(*np.searchsorted(self.y, (thing.y - reach, thing.y + reach)))
        columns = slice(*np.searchsorted(self.x, (thing.x - reach, thing.x + reach)))
        return rows, columns, _View(self.x[columns], self.y[rows], self.pixels)


def drop_hidden(scene: Scene, size: tuple[int, int]) -> tuple[Scene, np.ndarray]:
    """Remove layers that are hardly visible from a scene of this size (height, width), and label the others.

    Returns the reduced scene, and int32 `[h, w]`: the number of the visible layer per pixel, stuff from 1, then things.
    """
    view = _View.of(scene, size)
    labels = np.ones(size, np.int32)
    areas = []
    for number, stuff in enumerate(scene.stuff[1:], start=2):
        labels[_region(stuff, view) > 0] = number
    for number, thing in enumerate(scene.things, start=len(scene.stuff) + 1):
        rows, columns, local = view.around(thing)
        inside = _outline(thing, local)[0] <= 0
        labels[rows, columns][inside] = number
        areas.append(np.count_nonzero(inside))
    visible = np.bincount(labels.ravel(), minlength=len(scene.stuff) + len(scene.things) + 1)[1:]
    minimum = max(1.0, MIN_AREA * labels.size)
    stuff = tuple(s for s, n in zip(scene.stuff, visible, strict=False) if n >= minimum) or scene.stuff[:1]
    things = tuple(
        thing
        for thing, n, area in zip(scene.things, visible[len(scene.stuff) :], areas, strict=True)
        if n >= max(minimum, MIN_VISIBLE * area)
    )
    if (stuff, things) == (scene.stuff, scene.things):
        return scene, labels
    return drop_hidden(replace(scene, stuff=stuff, things=things), size)


def render(scene: Scene, size: tuple[int, int]) -> np.ndarray:
    """Render the scene with smooth edges; `size` is (height, width). Returns uint8 `[h, w, 3]`."""
    view = _View.of(scene, size)
    canvas = _surface(scene.stuff[0], view)
    for stuff in scene.stuff[1:]:
        _paint(canvas, _surface(stuff, view), np.clip(0.5 + view.pixels * _region(stuff, view), 0, 1))
    toward = np.array([np.cos(scene.light), np.sin(scene.light)], np.float32)
    for thing in scene.things:
        _cast_shadow(canvas, thing, view, toward, scene.shadow)
        rows, columns, local = view.around(thing)
        distance, u, v = _outline(thing, local)
        low, high = np.array(thing.colors, np.float32)[:, :, None, None]
        colors = low + (high - low) * _PATTERNS[thing.pattern](u * thing.pitch * np.pi, v * thing.pitch * np.pi)
        dx, dy = local.x - thing.x, local.y[:, None] - thing.y
        shade = 1 + 0.3 / thing.radius * (dx * toward[0] + dy * toward[1])
        shade *= 0.65 + 0.35 * np.clip(-distance / (0.2 * thing.radius), 0, 1)
        _paint(canvas[:, rows, columns], colors * shade, np.clip(0.5 - view.pixels * distance, 0, 1))
    return _expose(canvas, scene, toward)


def _expose(canvas: np.ndarray, scene: Scene, toward: np.ndarray) -> np.ndarray:
    """Apply uneven light, blur, contrast and sensor noise: float `[3, h, w]` → uint8 `[h, w, 3]`."""
    _, height, width = canvas.shape
    x, y = np.linspace(-0.2, 0.2, width, dtype=np.float32), np.linspace(-0.2, 0.2, height, dtype=np.float32)
    canvas = canvas * (1 + toward[0] * x + toward[1] * y[:, None])
    for axis in (1, 2) if scene.blur else ():
        ahead, behind = np.roll(canvas, -1, axis), np.roll(canvas, 1, axis)
        canvas = canvas + scene.blur * (ahead + behind - 2 * canvas)
    canvas = (canvas - 0.5) * scene.contrast + (0.5 + scene.brightness)
    canvas += scene.grain * np.random.default_rng(scene.seed).standard_normal(canvas.shape, np.float32)
    return np.ascontiguousarray((np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8).transpose(1, 2, 0))


def _paint(canvas: np.ndarray, colors: np.ndarray, alpha: np.ndarray) -> None:
    canvas += alpha * (colors - canvas)


def _cast_shadow(canvas: np.ndarray, thing: Thing, view: _View, toward: np.ndarray, strength: float) -> None:
    soft = 0.25 * thing.radius
    shifted = replace(thing, x=thing.x - 0.3 * thing.radius * toward[0], y=thing.y - 0.3 * thing.radius * toward[1])
    rows, columns, local = view.around(shifted, soft)
    canvas[:, rows, columns] *= 1 - strength * np.clip(0.5 - _outline(shifted, local)[0] / (2 * soft), 0, 1)


# stuff


def _noise(rng: np.random.Generator, view: _View, tall: float, wide: float) -> np.ndarray:
    """Smooth noise `[h, w]` in 0..1 with features of size (tall, wide): a random grid, interpolated along y, then x."""
    grid = rng.random((_CELLS, _CELLS), np.float32)
    return _interpolate(view.y / tall) @ grid @ _interpolate(view.x / wide).T


def _interpolate(position: np.ndarray) -> np.ndarray:
    """Interpolation weights `[n, _CELLS]` of the periodic grid points at n positions."""
    low = np.floor(position).astype(int)
    part = position - low
    part = part * part * (3 - 2 * part)
    weights = np.zeros((len(position), _CELLS), np.float32)
    index = np.arange(len(position))
    weights[index, low % _CELLS] = 1 - part
    weights[index, (low + 1) % _CELLS] = part
    return weights


def _region(stuff: Stuff, view: _View) -> np.ndarray:
    """Approximate signed distance `[h, w]` to the border of a stuff region, above 0 inside."""
    rng = np.random.default_rng(stuff.seed)
    if stuff.wavy:
        coarse, fine = rng.random((2, _CELLS), np.float32) - 0.5
        horizon = stuff.level + stuff.slope * (view.x - 0.5)
        horizon += stuff.roughness * (_interpolate(view.x / 0.4) @ coarse + 0.3 * _interpolate(view.x / 0.08) @ fine)
        return view.y[:, None] - horizon
    hills = 0.8 * _noise(rng, view, 0.35, 0.5) + 0.2 * _noise(rng, view, 0.1, 0.15)
    return 0.4 * (hills - stuff.level)


def _surface(stuff: Stuff, view: _View) -> np.ndarray:
    """Texture colours `[3, h, w]` of a stuff layer, over the whole view."""
    rng = np.random.default_rng([stuff.seed, 1])
    dark, light, speck = np.array(stuff.colors, np.float32)[:, :, None, None]
    colors = dark + (light - dark) * _TEXTURES[stuff.name](rng, view, stuff.pitch)
    if stuff.clutter:
        specks = np.clip(12 * (_noise(rng, view, 0.025, 0.03) - 1 + 0.15 * stuff.clutter), 0, 1)
        _paint(colors, speck, specks)
    return colors


def _sky(rng: np.random.Generator, view: _View, pitch: float) -> np.ndarray:
    clouds = 0.7 * _noise(rng, view, 0.15 * pitch, 0.4 * pitch) + 0.3 * _noise(rng, view, 0.05 * pitch, 0.1 * pitch)
    return np.clip(0.5 * view.y[:, None] + np.clip(4 * clouds - 2.2, 0, 0.8), 0, 1)


def _grass(rng: np.random.Generator, view: _View, pitch: float) -> np.ndarray:
    return 0.7 * _noise(rng, view, 0.05 * pitch, 0.013 * pitch) + 0.3 * _noise(rng, view, 0.2, 0.25)


def _water(rng: np.random.Generator, view: _View, pitch: float) -> np.ndarray:
    phase = view.y[:, None] / (0.05 * pitch) + 2.5 * _noise(rng, view, 0.15 * pitch, 0.2 * pitch)
    return (0.5 + 0.5 * np.sin(2 * np.pi * phase)) ** 2 * _noise(rng, view, 0.06, 0.15)


def _brick(rng: np.random.Generator, view: _View, pitch: float) -> np.ndarray:
    y, x = view.y[:, None] / (0.07 * pitch), view.x / (0.16 * pitch)
    row = np.floor(y)
    x = x + 0.5 * (row % 2)
    column = np.floor(x)
    tint = rng.random((_CELLS, _CELLS), np.float32)[row.astype(int) % _CELLS, column.astype(int) % _CELLS]
    joint = ((y - row < 0.16) | (x - column < 0.07)).astype(np.float32)
    clay = 0.45 * tint + 0.15 * _noise(rng, view, 0.02, 0.02)
    return clay + joint * (1 - clay)


_TEXTURES: dict[str, Callable[[np.random.Generator, _View, float], np.ndarray]] = {
    "sky": _sky,
    "grass": _grass,
    "water": _water,
    "brick": _brick,
}

# things


def _polygon(corners: int, inner: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def distance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        sector = 2 * np.pi / corners
        return np.hypot(u, v) * np.cos((np.arctan2(v, u) + sector / 2) % sector - sector / 2) - inner

    return distance


def _star(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance to a five-pointed star. By symmetry, only the edge from a tip to a notch is needed."""
    sector = 2 * np.pi / 5
    angle, radius = np.abs(np.arctan2(v, u) % sector - sector / 2), np.hypot(u, v)
    tip, notch = 1.3, 0.55 * np.exp(0.5j * sector)
    across, along = notch.imag, tip - notch.real
    return ((radius * np.cos(angle) - tip) * across + radius * np.sin(angle) * along) / np.hypot(across, along)


_OUTLINES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "disk": lambda u, v: np.hypot(u, v) - 1,
    "square": _polygon(4, 0.85),
    "triangle": _polygon(3, 0.65),
    "star": _star,
    "ring": lambda u, v: np.abs(np.hypot(u, v) - 0.8) - 0.3,
}

_PATTERNS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "plain": lambda u, v: np.zeros_like(u),
    "stripes": lambda u, v: np.clip(0.5 + 2 * np.sin(2 * u), 0, 1),
    "checks": lambda u, v: np.clip(0.5 + 3 * np.sin(u) * np.sin(v), 0, 1),
    "dots": lambda u, v: np.clip(3 * np.cos(u) * np.cos(v) - 1.2, 0, 1),
    "marble": lambda u, v: 0.5 + 0.5 * np.sin(u + 2 * np.sin(0.7 * v)),
}


def _outline(thing: Thing, view: _View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signed distance to the outline (below 0 inside), and the object coordinates u, v, in radii."""
    dx, dy = (view.x - thing.x) / thing.radius, (view.y[:, None] - thing.y) / thing.radius
    cos, sin = np.float32(np.cos(thing.angle)), np.float32(np.sin(thing.angle))
    u, v = cos * dx + sin * dy, (cos * dy - sin * dx) / thing.stretch
    return _OUTLINES[thing.name](u, v) * (thing.radius * thing.stretch), u, v
