"""Clips of synthetic scenes: things move, turn, grow, occlude each other, leave and enter, and the camera pans.

A clip is a random scene (`scene`) and the motion of its things and its camera. Each frame is the scene at one time,
rendered as in `shapes`.
"""

from dataclasses import dataclass, replace

import numpy as np

from pix2seqd.data.sample import Clip, LazyFrames, Sample
from pix2seqd.data.synthetic.drawing import drop_hidden, render
from pix2seqd.data.synthetic.scene import STUFF, THINGS, Scene, Thing, random_scene
from pix2seqd.data.synthetic.shapes import TAXONOMY
from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic


@dataclass(frozen=True)
class Motion:
    """The motion of a thing per frame, relative to its description at the frame `reference`."""

    reference: int
    velocity: tuple[float, float]
    """x, y, in units of the scene."""
    spin: float
    """Rotation in radians."""
    growth: float
    """Change of the logarithm of the radius."""

    def apply(self, thing: Thing, frame: int) -> Thing:
        """The thing at a frame."""
        time = frame - self.reference
        return replace(
            thing,
            x=thing.x + time * self.velocity[0],
            y=thing.y + time * self.velocity[1],
            angle=thing.angle + time * self.spin,
            radius=float(thing.radius * np.exp(np.clip(time * self.growth, -0.5, 0.5))),
        )


@dataclass(frozen=True)
class MovingScene:
    """A scene and its motion."""

    scene: Scene
    motions: tuple[Motion, ...]
    """Motion of each thing."""
    pan: tuple[float, float]
    """Motion of the camera per frame, x and y."""

    def at(self, frame: int) -> Scene:
        """The scene at a frame; every frame has new sensor noise."""
        things = (m.apply(thing, frame) for thing, m in zip(self.scene.things, self.motions, strict=True))
        camera = (frame * self.pan[0], frame * self.pan[1])
        return replace(self.scene, things=tuple(things), camera=camera, seed=self.scene.seed + frame)


def random_motion(rng: np.random.Generator, scene: Scene, frames: int) -> MovingScene:
    """Draw the motion of a scene. The speed varies between clips, and some things do not move."""
    pace = float(np.exp(rng.uniform(np.log(0.003), np.log(0.04))))
    pan = rng.normal(0, 0.4 * pace, 2) * (rng.random() < 0.5)

    def motion() -> Motion:
        rests = rng.random() < 0.2
        velocity = rng.normal(0, pace, 2) * (not rests)
        spin, growth = rng.normal(0, 4 * pace), rng.normal(0, 0.5 * pace)
        return Motion(int(rng.integers(frames)), (float(velocity[0]), float(velocity[1])), float(spin), float(growth))

    motions = [motion() for _ in scene.things]
    # Things are described for a camera at rest. Shift each by the camera position at its reference frame.
    things = (
        replace(thing, x=thing.x + m.reference * float(pan[0]), y=thing.y + m.reference * float(pan[1]))
        for thing, m in zip(scene.things, motions, strict=True)
    )
    return MovingScene(replace(scene, things=tuple(things)), tuple(motions), (float(pan[0]), float(pan[1])))


class ShapesClips:
    """`length` clips of `frames` frames of `size` (height, width) pixels; clip i depends only on (seed, i)."""

    taxonomy = TAXONOMY

    def __init__(self, length: int, frames: int, size: tuple[int, int], seed: int = 0) -> None:
        if min(length, frames, *size) < 1 or seed < 0:
            raise InputError(f"{length} clips of {frames} frames of size {size}, seed {seed}: give 1 or more, seed ≥ 0")
        self.length, self.frames, self.size, self.seed = length, frames, size, seed

    def __len__(self) -> int:
        return self.length

    def moving_scene(self, index: int) -> MovingScene:
        """The scene of clip `index` and its motion."""
        if not 0 <= index < self.length:
            raise IndexError(f"clip {index} of {self.length}")
        rng = np.random.default_rng([self.seed, index])
        scene = random_scene(rng, self.size[1] / self.size[0])
        return random_motion(rng, scene, self.frames)

    def __getitem__(self, index: int) -> Clip:
        """Segments 1..k are the stuff of `moving_scene(index)`, k+1.. its things, far to near, if visible."""
        moving, name = self.moving_scene(index), f"{self.seed:04d}-{index:08d}"
        return Clip(name, LazyFrames(self.frames, lambda frame: self._render(moving, frame, f"{name}-{frame:05d}")))

    def _render(self, moving: MovingScene, frame: int, name: str) -> Sample:
        whole = moving.at(frame)
        scene, labels = drop_hidden(whole, self.size)
        layers = (*whole.stuff, *whole.things)
        classes = {i: (STUFF + THINGS).index(layer.name) + 1 for i, layer in enumerate(layers, start=1)}
        # `drop_hidden` renumbers the remaining layers; segment ids must stay those of the clip.
        numbers = {id(layer): i for i, layer in enumerate(layers, start=1)}
        table = np.array([0, *(numbers[id(layer)] for layer in (*scene.stuff, *scene.things))])
        return Sample(name, render(scene, self.size), Panoptic.from_segmentation(table[labels], classes, TAXONOMY))
