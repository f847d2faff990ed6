"""How the nuclei of a made clip live: they drift, turn, deform, push each other, divide, come into focus and leave it.

Lengths are in pixels, times in frames, vectors are (y, x). Only numbers are moved here; `nuclei_clips` draws them.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

WARM_UP = 8
"""Frames that are lived through before the first one shown, so that it may fall into the middle of a division."""
_DIVIDING = 5  # frames from the first sign of a division to the last frame of the mother
_GROWING = 8.0  # frames until daughters are round and of their final size
_NEVER = 10**6


@dataclass(frozen=True)
class Temper:
    """How lively a clip is."""

    pace: float
    """Typical motion per frame, in radii of the nucleus."""
    flow: np.ndarray
    """`[2]` what all nuclei drift by per frame, in pixels."""
    division: float
    """Probability that a nucleus begins to divide, per frame."""
    defocus: float
    """Probability that a nucleus begins to leave the focal plane, or to come back, per frame."""


@dataclass(frozen=True, eq=False)
class Bodies:
    """The nuclei at one moment; every field is an array whose first axis is the nucleus."""

    source: np.ndarray
    """Which nucleus of the real picture it looks like, int `[n]`."""
    id: np.ndarray
    """Stays with it; int `[n]`."""
    radius: np.ndarray
    """Of the nucleus it looks like, `[n]`."""
    center: np.ndarray
    """`[n, 2]`."""
    velocity: np.ndarray
    angle: np.ndarray
    """How far it is turned, radians `[n]`."""
    spin: np.ndarray
    shape: np.ndarray
    """Stretch along two diagonal directions, and bend along y and x: small numbers `[n, 4]`."""
    light: np.ndarray
    """Contrast relative to the picture it comes from, about 1; `[n]`."""
    focus: np.ndarray
    """1 in the focal plane, 0 invisible; `[n]`."""
    leaving: np.ndarray
    """Whether it leaves the focal plane or comes (back); bool `[n]`."""
    axis: np.ndarray
    """Direction of its division, radians `[n]`."""
    divides: np.ndarray
    """Frames until it is two; `[n]`."""
    age: np.ndarray
    """Frames since it was born of a division; `[n]`."""
    size: np.ndarray
    """Final size relative to the nucleus it looks like, `[n]`."""

    def __len__(self) -> int:
        return len(self.source)

    @property
    def progress(self) -> np.ndarray:
        """Of its division: 0 not dividing .. 1 about to part; `[n]`."""
        return np.clip(1 - self.divides / _DIVIDING, 0, 1)

    def matrices(self) -> np.ndarray:
        """From the outline in the picture to the present one, without bends and waist; `[n, 2, 2]`."""
        turn = _turn(self.angle)
        one, two = np.exp(self.shape[:, 0]), self.shape[:, 1]
        stretch = np.stack([np.stack([one, two], -1), np.stack([two, 1 / one], -1)], -2)
        young = np.exp(-self.age / _GROWING)
        along = (1 + 0.45 * self.progress) * (1 - 0.3 * young)
        across = (1 - 0.2 * self.progress) * (1 + 0.05 * young)
        axis = _turn(self.axis)
        division = axis * np.stack([along, across], -1)[:, None] @ axis.swapaxes(1, 2)
        size = self.size * (1 - 0.15 * young)
        return size[:, None, None] * (division @ turn @ stretch)


def _turn(angle: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)


def settle(rng: np.random.Generator, source: np.ndarray, center: np.ndarray, radius: np.ndarray) -> Bodies:
    """Nuclei as they lie in the picture, at rest."""
    n = len(source)
    zeros = np.zeros(n)
    return Bodies(
        source=source,
        id=np.arange(n),
        radius=radius,
        center=center.astype(float),
        velocity=np.zeros((n, 2)),
        angle=zeros,
        spin=zeros,
        shape=np.zeros((n, 4)),
        light=zeros + 1,
        focus=zeros + 1,
        leaving=np.zeros(n, bool),
        axis=rng.uniform(0, np.pi, n),
        divides=np.full(n, _NEVER),
        age=zeros + _NEVER,
        size=zeros + 1,
    )


def live(rng: np.random.Generator, bodies: Bodies, temper: Temper, frames: int) -> list[Bodies]:
    """The same nuclei and their offspring, frame by frame.

    Of two daughters the larger one keeps its mother's id, the other gets a new one: a track goes on through a division
    and another begins.
    """
    apart = _distances(bodies.center)  # nuclei that lie close together in the picture may stay so
    history, next_id = [], len(bodies)
    for time in range(-WARM_UP, frames):
        if (due := bodies.divides <= 0).any():
            family = np.concatenate([np.arange(len(bodies)), np.flatnonzero(due)])
            apart = apart[np.ix_(family, family)]
            bodies = _divide(rng, bodies, due, next_id)
            next_id += int(due.sum())
        bodies = _step(rng, bodies, temper, apart)
        if time >= 0:
            history.append(bodies)
    return history


def _divide(rng: np.random.Generator, bodies: Bodies, due: np.ndarray, next_id: int) -> Bodies:
    """Turn each mother into her larger daughter and append the other."""
    share = rng.uniform(0.42, 0.5, len(bodies))
    way = rng.choice([-1.0, 1.0], len(bodies))[:, None]
    way = way * np.stack([np.cos(bodies.axis), np.sin(bodies.axis)], -1) * (bodies.radius * bodies.size)[:, None]
    turned = np.where(due, rng.uniform(-0.3, 0.3, len(bodies)), 0)

    def daughters(part: np.ndarray, sign: int) -> Bodies:
        grown = np.where(due, bodies.size * np.sqrt(part) * 1.15, bodies.size)
        where = np.where(due, 1.0, 0.0)[:, None] * sign * way
        return replace(
            bodies,
            center=bodies.center + 0.72 * where,
            velocity=bodies.velocity + 0.12 * where,
            angle=bodies.angle + sign * turned,
            divides=np.where(due, _NEVER, bodies.divides),
            age=np.where(due, 0, bodies.age),
            size=grown,
        )

    old, young = daughters(1 - share, 1), daughters(share, -1)
    young = replace(young, id=next_id + np.cumsum(due) - 1)
    pairs = ((getattr(old, f.name), getattr(young, f.name)[due]) for f in fields(Bodies))
    return Bodies(*(np.concatenate(pair) for pair in pairs))


def _step(rng: np.random.Generator, bodies: Bodies, temper: Temper, apart: np.ndarray) -> Bodies:
    n, pace = len(bodies), temper.pace
    dividing = bodies.divides < _NEVER
    velocity = 0.75 * bodies.velocity + rng.normal(0, 0.55 * pace, (n, 2)) * bodies.radius[:, None]
    velocity *= np.where(dividing, 0.6, 1.0)[:, None]
    spin = 0.8 * bodies.spin + rng.normal(0, 0.12 * pace, n)
    starts = ~dividing & (bodies.age > 3 * _GROWING) & (rng.random(n) < temper.division)
    divides = np.where(starts, _DIVIDING, bodies.divides - dividing)
    changes = rng.random(n) < temper.defocus
    leaving = np.where(bodies.leaving, ~changes, changes & ~dividing)
    return replace(
        bodies,
        center=bodies.center + velocity + temper.flow + _push(bodies, apart),
        velocity=velocity,
        angle=bodies.angle + np.where(dividing, 0, spin),
        spin=spin,
        shape=0.95 * bodies.shape + rng.normal(0, 0.04 * min(1.0, pace**0.5 * 2), (n, 4)),
        light=np.clip(bodies.light + rng.normal(0, 0.01, n), 0.75, 1.25),
        focus=np.clip(bodies.focus + np.where(leaving, -0.3, 0.3), 0, 1),
        leaving=leaving,
        divides=divides,
        age=bodies.age + 1,
    )


def _distances(center: np.ndarray) -> np.ndarray:
    return np.linalg.norm(center[:, None] - center[None], axis=-1)


def _push(bodies: Bodies, apart: np.ndarray) -> np.ndarray:
    """`[n, 2]`: nuclei closer than both their sizes allow, and than they lay at first, give way; not all the way."""
    radius = bodies.radius * bodies.size
    distance = _distances(bodies.center)
    wanted = np.minimum(0.95 * (radius[:, None] + radius), apart)
    # Daughters are counted as far apart as their mother from herself, 0; they need room of their own.
    wanted = np.where(apart == 0, 0.9 * (radius[:, None] + radius), wanted)
    np.fill_diagonal(wanted, 0)
    overlap = np.clip(wanted - distance, 0, None) / np.maximum(distance, 1e-6)
    return 0.25 * (overlap[..., None] * (bodies.center[:, None] - bodies.center[None])).sum(axis=1)
