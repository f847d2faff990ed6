"""What a synthetic scene consists of, in small frozen records, and the random draws that make one.

Lengths are in units of the picture's shorter side, x to the right, y down, so a scene looks alike at any resolution.
Textures live in world or object coordinates: moving a thing (`dataclasses.replace`) or the camera keeps them attached
to what they belong to.

Colour says little: things take any two colours, water may be as blue as the sky, grass as brown as brick. Classes
differ by outline (things) and texture (stuff).
"""

import colorsys
from dataclasses import dataclass

import numpy as np

STUFF = ("sky", "grass", "water", "brick")
THINGS = ("disk", "square", "triangle", "star", "ring")
PATTERNS = ("plain", "stripes", "checks", "dots", "marble")
MOST_THINGS = 10

RGB = tuple[float, float, float]
"""Components 0..1."""


@dataclass(frozen=True)
class Stuff:
    """One background region, painted over the regions before it."""

    name: str
    wavy: bool
    """True: everything below a wavy horizon. False: irregular patches."""
    level: float
    """Height of the horizon (0 top, 1 bottom); for patches the share of the plane left free."""
    slope: float
    roughness: float
    colors: tuple[RGB, RGB, RGB]
    """Dark and light tone of the texture, and of the specks that clutter it."""
    pitch: float
    """Size of the texture, around 1."""
    clutter: float
    """0 (clean) .. 1 (specks everywhere)."""
    seed: int


@dataclass(frozen=True)
class Thing:
    """One object; its outline has about the area of a disk of this radius."""

    name: str
    x: float
    y: float
    radius: float
    stretch: float
    """Height over width before the turn, up to 1."""
    angle: float
    """Radians, clockwise in the picture."""
    colors: tuple[RGB, RGB]
    pattern: str
    pitch: float
    """Periods of the pattern per radius."""


@dataclass(frozen=True)
class Scene:
    """All that is to be seen in one picture."""

    stuff: tuple[Stuff, ...]
    """Back to front; the first covers everything."""
    things: tuple[Thing, ...]
    """Far to near: each hides those before it."""
    light: float = 0.0
    """Direction the light comes from, radians; shadows fall the other way."""
    shadow: float = 0.4
    """Darkness of the cast shadows, 0..1."""
    contrast: float = 1.0
    brightness: float = 0.0
    blur: float = 0.0
    """0 (sharp) .. 0.25 (each pixel's neighbours weigh half of it)."""
    grain: float = 0.0
    """Standard deviation of the sensor noise; pictures are 0..1."""
    camera: tuple[float, float] = (0.0, 0.0)
    """World x, y of the picture's top left corner."""
    seed: int = 0
    """Of the grain."""


def describe(rng: np.random.Generator, aspect: float = 1.0) -> Scene:
    """Draw a random scene for a picture of this width / height; some of its things may be hidden."""
    wide, high = max(aspect, 1.0), max(1 / aspect, 1.0)
    ground = rng.permutation(STUFF[1:])[: rng.integers(1, 4)].tolist()
    names = ["sky", *ground] if rng.random() < 0.75 else ground
    levels = np.sort(rng.uniform(0.2, 0.9, len(names))) * high
    things = [_describe_thing(rng, wide, high) for _ in range(rng.integers(1, MOST_THINGS + 1))]
    return Scene(
        stuff=tuple(_describe_stuff(rng, name, level) for name, level in zip(names, levels.tolist(), strict=True)),
        things=tuple(things),
        light=rng.uniform(0, 2 * np.pi),
        shadow=rng.uniform(0.15, 0.6),
        contrast=rng.uniform(0.7, 1.2),
        brightness=rng.uniform(-0.08, 0.16),
        blur=float(rng.choice([0.0, rng.uniform(0, 0.25)])),
        grain=rng.uniform(0, 0.05),
        seed=int(rng.integers(2**31)),
    )


def _describe_stuff(rng: np.random.Generator, name: str, level: float) -> Stuff:
    hue, saturation, value = {
        "sky": (rng.choice([rng.uniform(0.5, 0.68), rng.uniform(0.0, 0.12)], p=[0.7, 0.3]), (0.05, 0.6), (0.5, 0.85)),
        "grass": (rng.uniform(0.1, 0.42), (0.25, 0.7), (0.25, 0.55)),
        "water": (rng.uniform(0.42, 0.68), (0.2, 0.8), (0.25, 0.6)),
        "brick": (rng.choice([rng.uniform(0.0, 0.13), rng.random()], p=[0.7, 0.3]), (0.1, 0.6), (0.3, 0.7)),
    }[name]
    saturation, value = rng.uniform(*saturation), rng.uniform(*value)
    wavy = rng.random() < 0.6
    return Stuff(
        name=name,
        wavy=wavy,
        level=level if wavy else rng.uniform(0.45, 0.62),
        slope=rng.normal(0, 0.2),
        roughness=rng.uniform(0.0, 0.3),
        colors=(
            _rgb(hue, min(1, saturation * 1.2), value * 0.65),
            _rgb(hue + rng.normal(0, 0.03), saturation * 0.7, min(1, value * 1.4)),
            _rgb(rng.random(), rng.uniform(0, 0.6), rng.random()),
        ),
        pitch=rng.uniform(0.7, 1.5),
        clutter=float(rng.choice([0.0, rng.random()])),
        seed=int(rng.integers(2**31)),
    )


def _describe_thing(rng: np.random.Generator, wide: float, high: float) -> Thing:
    hue = rng.random()
    return Thing(
        name=str(rng.choice(THINGS)),
        x=rng.uniform(0.04, wide - 0.04),
        y=rng.uniform(0.04, high - 0.04),
        radius=float(np.exp(rng.uniform(np.log(0.05), np.log(0.2)))),
        stretch=rng.uniform(0.7, 1.0),
        angle=rng.uniform(0, 2 * np.pi),
        colors=(
            _rgb(hue, rng.uniform(0, 1), rng.uniform(0.25, 1)),
            _rgb(hue + rng.normal(0, 0.25), rng.uniform(0, 1), rng.uniform(0.1, 1)),
        ),
        pattern=str(rng.choice(PATTERNS)),
        pitch=rng.uniform(1.0, 2.2),
    )


def _rgb(hue: float, saturation: float, value: float) -> RGB:
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
