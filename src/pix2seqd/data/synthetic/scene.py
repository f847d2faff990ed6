"""Description of a synthetic scene as frozen records, and random scenes.

Lengths are in units of the image's shorter side, with x to the right and y down, so a scene looks the same at any
resolution. Textures are in world or object coordinates, so they follow a moved thing (`dataclasses.replace`) or camera.

Classes differ by outline (things) and texture (stuff). Colour is not sufficient to recognise them: things have two
random colours, water can be as blue as the sky, and grass as brown as brick.
"""

import colorsys
from dataclasses import dataclass

import numpy as np

STUFF = ("sky", "grass", "water", "brick")
THINGS = ("disk", "square", "triangle", "star", "ring")
PATTERNS = ("plain", "stripes", "checks", "dots", "marble")
MAX_THINGS = 10

RGB = tuple[float, float, float]
"""Components 0..1."""


@dataclass(frozen=True)
class Stuff:
    """One stuff region, painted over the preceding ones."""

    name: str
    wavy: bool
    """True: the region below a wavy horizon. False: irregular patches."""
    level: float
    """Height of the horizon (0 top, 1 bottom); for patches, the share of the plane left free."""
    slope: float
    roughness: float
    colors: tuple[RGB, RGB, RGB]
    """Dark tone and light tone of the texture, and colour of the specks."""
    pitch: float
    """Relative size of the texture, around 1."""
    clutter: float
    """Density of specks, 0 (none) .. 1."""
    seed: int


@dataclass(frozen=True)
class Thing:
    """One object, with about the area of a disk of radius `radius`."""

    name: str
    x: float
    y: float
    radius: float
    stretch: float
    """Height over width before rotation, up to 1."""
    angle: float
    """Rotation in radians, clockwise in the image."""
    colors: tuple[RGB, RGB]
    pattern: str
    pitch: float
    """Periods of the pattern per radius."""


@dataclass(frozen=True)
class Scene:
    """The content of one image."""

    stuff: tuple[Stuff, ...]
    """Back to front; the first covers everything."""
    things: tuple[Thing, ...]
    """Far to near; each one occludes those before it."""
    light: float = 0.0
    """Direction of the light source, radians; shadows fall to the opposite side."""
    shadow: float = 0.4
    """Darkness of the cast shadows, 0..1."""
    contrast: float = 1.0
    brightness: float = 0.0
    blur: float = 0.0
    """Weight of each of a pixel's two neighbours per axis, 0 (sharp) .. 0.25."""
    grain: float = 0.0
    """Standard deviation of the sensor noise, for images in 0..1."""
    camera: tuple[float, float] = (0.0, 0.0)
    """World x, y of the top left corner of the image."""
    seed: int = 0
    """Seed of the sensor noise."""


def random_scene(rng: np.random.Generator, aspect: float = 1.0) -> Scene:
    """Draw a random scene for an image of aspect ratio width / height. Some things may be hidden."""
    wide, tall = max(aspect, 1.0), max(1 / aspect, 1.0)
    ground = rng.permutation(STUFF[1:])[: rng.integers(1, 4)].tolist()
    names = ["sky", *ground] if rng.random() < 0.75 else ground
    levels = np.sort(rng.uniform(0.2, 0.9, len(names))) * tall
    things = [_random_thing(rng, wide, tall) for _ in range(rng.integers(1, MAX_THINGS + 1))]
    return Scene(
        stuff=tuple(_random_stuff(rng, name, level) for name, level in zip(names, levels.tolist(), strict=True)),
        things=tuple(things),
        light=rng.uniform(0, 2 * np.pi),
        shadow=rng.uniform(0.15, 0.6),
        contrast=rng.uniform(0.7, 1.2),
        brightness=rng.uniform(-0.08, 0.16),
        blur=float(rng.choice([0.0, rng.uniform(0, 0.25)])),
        grain=rng.uniform(0, 0.05),
        seed=int(rng.integers(2**31)),
    )


def _random_stuff(rng: np.random.Generator, name: str, level: float) -> Stuff:
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


def _random_thing(rng: np.random.Generator, wide: float, tall: float) -> Thing:
    hue = rng.random()
    return Thing(
        name=str(rng.choice(THINGS)),
        x=rng.uniform(0.04, wide - 0.04),
        y=rng.uniform(0.04, tall - 0.04),
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
