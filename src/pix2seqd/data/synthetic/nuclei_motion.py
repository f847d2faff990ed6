"""Simulated motion of nuclei: they drift, turn, deform, push each other, divide, and enter and leave the focal plane.

Lengths are in pixels, times in frames, and vectors are (y, x). `nuclei_clips` renders the result.
"""

from dataclasses import dataclass, fields, replace

import numpy as np

WARM_UP = 8
"""Frames simulated before the first frame of a clip, so that a clip can begin during a division."""
_DIVIDING = 5  # frames from the start of a division to the last frame of the mother
_GROWING = 8.0  # time constant in frames with which daughters become round and reach their final size
_NEVER = 10**6


@dataclass(frozen=True)
class MotionParameters:
    """Amount of motion in a clip."""

    pace: float
    """Typical motion per frame, in radii of the nucleus."""
    flow: np.ndarray
    """Common drift of all nuclei per frame, in pixels, `[2]`."""
    division: float
    """Probability per frame that a nucleus begins to divide."""
    defocus: float
    """Probability per frame that a nucleus begins to leave the focal plane or to return."""


@dataclass(frozen=True, eq=False)
class Nuclei:
    """The states of n nuclei in one frame; the first axis of every array is the nucleus."""

    source: np.ndarray
    """Index of the real nucleus whose appearance it has, int `[n]`."""
    id: np.ndarray
    """Track id, int `[n]`."""
    radius: np.ndarray
    """Radius of the real nucleus, `[n]`."""
    center: np.ndarray
    """`[n, 2]`."""
    velocity: np.ndarray
    """Per frame, `[n, 2]`."""
    angle: np.ndarray
    """Rotation in radians, `[n]`."""
    spin: np.ndarray
    """Change of `angle` per frame, `[n]`."""
    shape: np.ndarray
    """Stretch along two diagonal directions, and bend along y and x, all near 0, `[n, 4]`."""
    light: np.ndarray
    """Contrast relative to the real image, about 1, `[n]`."""
    focus: np.ndarray
    """1 in the focal plane .. 0 invisible, `[n]`."""
    leaving: np.ndarray
    """True while it leaves the focal plane, False while it returns or stays, bool `[n]`."""
    axis: np.ndarray
    """Direction of its division in radians, `[n]`."""
    frames_to_division: np.ndarray
    """Frames until it is divided, `[n]`."""
    age: np.ndarray
    """Frames since the division that produced it, `[n]`."""
    size: np.ndarray
    """Final size relative to the real nucleus, `[n]`."""

    def __len__(self) -> int:
        return len(self.source)

    @property
    def progress(self) -> np.ndarray:
        """Progress of the division, 0 (not dividing) .. 1 (last frame of the mother), `[n]`."""
        return np.clip(1 - self.frames_to_division / _DIVIDING, 0, 1)

    def matrices(self) -> np.ndarray:
        """Linear maps from the real outline to the present one, without bend and waist, `[n, 2, 2]`."""
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


def at_rest(rng: np.random.Generator, source: np.ndarray, center: np.ndarray, radius: np.ndarray) -> Nuclei:
    """Nuclei at rest, as in the real image: their indices there, int `[n]`, centres `[n, 2]` and radii `[n]`."""
    n = len(source)
    zeros = np.zeros(n)
    return Nuclei(
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
        frames_to_division=np.full(n, _NEVER),
        age=zeros + _NEVER,
        size=zeros + 1,
    )


def simulate(rng: np.random.Generator, nuclei: Nuclei, motion: MotionParameters, frames: int) -> list[Nuclei]:
    """Simulate nuclei and their offspring; return their states in each of `frames` frames.

    After a division, the larger daughter keeps the id of its mother, and the other one gets a new id.
    """
    apart = _distances(nuclei.center)  # nuclei that are close in the real image may stay close
    history, next_id = [], len(nuclei)
    for time in range(-WARM_UP, frames):
        if (due := nuclei.frames_to_division <= 0).any():
            family = np.concatenate([np.arange(len(nuclei)), np.flatnonzero(due)])
            apart = apart[np.ix_(family, family)]
            nuclei = _divide(rng, nuclei, due, next_id)
            next_id += int(due.sum())
        nuclei = _step(rng, nuclei, motion, apart)
        if time >= 0:
            history.append(nuclei)
    return history


def _divide(rng: np.random.Generator, nuclei: Nuclei, due: np.ndarray, next_id: int) -> Nuclei:
    """Replace each mother by its larger daughter, and append the other one."""
    share = rng.uniform(0.42, 0.5, len(nuclei))
    offset = rng.choice([-1.0, 1.0], len(nuclei))[:, None]
    offset = offset * np.stack([np.cos(nuclei.axis), np.sin(nuclei.axis)], -1) * (nuclei.radius * nuclei.size)[:, None]
    turned = np.where(due, rng.uniform(-0.3, 0.3, len(nuclei)), 0)

    def daughters(part: np.ndarray, sign: int) -> Nuclei:
        grown = np.where(due, nuclei.size * np.sqrt(part) * 1.15, nuclei.size)
        step = np.where(due, 1.0, 0.0)[:, None] * sign * offset
        return replace(
            nuclei,
            center=nuclei.center + 0.72 * step,
            velocity=nuclei.velocity + 0.12 * step,
            angle=nuclei.angle + sign * turned,
            frames_to_division=np.where(due, _NEVER, nuclei.frames_to_division),
            age=np.where(due, 0, nuclei.age),
            size=grown,
        )

    old, young = daughters(1 - share, 1), daughters(share, -1)
    young = replace(young, id=next_id + np.cumsum(due) - 1)
    pairs = ((getattr(old, f.name), getattr(young, f.name)[due]) for f in fields(Nuclei))
    return Nuclei(*(np.concatenate(pair) for pair in pairs))


def _step(rng: np.random.Generator, nuclei: Nuclei, motion: MotionParameters, apart: np.ndarray) -> Nuclei:
    n, pace = len(nuclei), motion.pace
    dividing = nuclei.frames_to_division < _NEVER
    velocity = 0.75 * nuclei.velocity + rng.normal(0, 0.55 * pace, (n, 2)) * nuclei.radius[:, None]
    velocity *= np.where(dividing, 0.6, 1.0)[:, None]
    spin = 0.8 * nuclei.spin + rng.normal(0, 0.12 * pace, n)
    starts = ~dividing & (nuclei.age > 3 * _GROWING) & (rng.random(n) < motion.division)
    frames_to_division = np.where(starts, _DIVIDING, nuclei.frames_to_division - dividing)
    changes = rng.random(n) < motion.defocus
    leaving = np.where(nuclei.leaving, ~changes, changes & ~dividing)
    return replace(
        nuclei,
        center=nuclei.center + velocity + motion.flow + _separation(nuclei, apart),
        velocity=velocity,
        angle=nuclei.angle + np.where(dividing, 0, spin),
        spin=spin,
        shape=0.95 * nuclei.shape + rng.normal(0, 0.04 * min(1.0, pace**0.5 * 2), (n, 4)),
        light=np.clip(nuclei.light + rng.normal(0, 0.01, n), 0.75, 1.25),
        focus=np.clip(nuclei.focus + np.where(leaving, -0.3, 0.3), 0, 1),
        leaving=leaving,
        frames_to_division=frames_to_division,
        age=nuclei.age + 1,
    )


def _distances(center: np.ndarray) -> np.ndarray:
    return np.linalg.norm(center[:, None] - center[None], axis=-1)


def _separation(nuclei: Nuclei, apart: np.ndarray) -> np.ndarray:
    """Displacement `[n, 2]` that separates overlapping nuclei a little.

    Two nuclei overlap if they are closer than their radii allow and closer than `apart`, their initial distance.
    """
    radius = nuclei.radius * nuclei.size
    distance = _distances(nuclei.center)
    minimum = np.minimum(0.95 * (radius[:, None] + radius), apart)
    # The initial distance of two daughters is 0, that of their mother to itself, so it does not apply.
    minimum = np.where(apart == 0, 0.9 * (radius[:, None] + radius), minimum)
    np.fill_diagonal(minimum, 0)
    overlap = np.clip(minimum - distance, 0, None) / np.maximum(distance, 1e-6)
    return 0.25 * (overlap[..., None] * (nuclei.center[:, None] - nuclei.center[None])).sum(axis=1)
