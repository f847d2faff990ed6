"""Clips of synthetic scenes: things move, turn, grow, hide each other, leave and enter; the camera pans; no download.

A clip is one described scene (`shapes_scene`) and how everything in it moves; each frame is the scene at its time,
drawn as `shapes` draws a picture.
"""

from dataclasses import dataclass, replace

import numpy as np

from pix2seqd.data.sample import Clip, MadeFrames, Sample
from pix2seqd.data.synthetic.drawing import drop_hidden, render
from pix2seqd.data.synthetic.scene import STUFF, THINGS, Scene, Thing, describe
from pix2seqd.data.synthetic.shapes import TAXONOMY
from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic


@dataclass(frozen=True)
class Motion:
    """How a thing moves, per frame; at the frame `present` it is as described."""

    present: int
    velocity: tuple[float, float]
    """x, y, in the scene's units."""
    spin: float
    """Radians."""
    growth: float
    """Of the logarithm of its radius."""

    def of(self, thing: Thing, frame: int) -> Thing:
        """The thing in a frame."""
        time = frame - self.present
        return replace(
            thing,
            x=thing.x + time * self.velocity[0],
            y=thing.y + time * self.velocity[1],
            angle=thing.angle + time * self.spin,
            radius=float(thing.radius * np.exp(np.clip(time * self.growth, -0.5, 0.5))),
        )


@dataclass(frozen=True)
class Play:
    """A scene in motion."""

    scene: Scene
    motions: tuple[Motion, ...]
    """Of each thing."""
    pan: tuple[float, float]
    """Of the camera, per frame."""

    def at(self, frame: int) -> Scene:
        """The scene in a frame; the grain of the sensor is new in each."""
        things = (m.of(thing, frame) for thing, m in zip(self.scene.things, self.motions, strict=True))
        camera = (frame * self.pan[0], frame * self.pan[1])
        return replace(self.scene, things=tuple(things), camera=camera, seed=self.scene.seed + frame)


def describe_motion(rng: np.random.Generator, scene: Scene, frames: int) -> Play:
    """Draw how a scene moves: some clips are calm, some lively; some things rest."""
    pace = float(np.exp(rng.uniform(np.log(0.003), np.log(0.04))))
    pan = rng.normal(0, 0.4 * pace, 2) * (rng.random() < 0.5)

    def motion() -> Motion:
        rests = rng.random() < 0.2
        velocity = rng.normal(0, pace, 2) * (not rests)
        spin, growth = rng.normal(0, 4 * pace), rng.normal(0, 0.5 * pace)
        return Motion(int(rng.integers(frames)), (float(velocity[0]), float(velocity[1])), float(spin), float(growth))

    motions = [motion() for _ in scene.things]
    # Things are described as seen by a camera at rest: bring each to where the camera is when it is present.
    things = (
        replace(thing, x=thing.x + m.present * float(pan[0]), y=thing.y + m.present * float(pan[1]))
        for thing, m in zip(scene.things, motions, strict=True)
    )
    return Play(replace(scene, things=tuple(things)), tuple(motions), (float(pan[0]), float(pan[1])))


class ShapesClips:
    """`length` clips of `frames` frames of `size` (height, width) pixels; clip i depends on (seed, i) alone.

    A `ClipDataset`.
    """

    taxonomy = TAXONOMY

    def __init__(self, length: int, frames: int, size: tuple[int, int], seed: int = 0) -> None:
        if min(length, frames, *size) < 1 or seed < 0:
            raise InputError(f"{length} clips of {frames} frames of size {size}, seed {seed}: give 1 or more, seed ≥ 0")
        self.length, self.frames, self.size, self.seed = length, frames, size, seed

    def __len__(self) -> int:
        return self.length

    def play(self, index: int) -> Play:
        """What clip `index` shows."""
        if not 0 <= index < self.length:
            raise IndexError(f"clip {index} of {self.length}")
        rng = np.random.default_rng([self.seed, index])
        scene = describe(rng, self.size[1] / self.size[0])
        return describe_motion(rng, scene, self.frames)

    def __getitem__(self, index: int) -> Clip:
        """Segments 1..k are the stuff of `play(index)`, k+1.. its things far to near; each frame has those in view."""
        play, name = self.play(index), f"{self.seed:04d}-{index:08d}"
        return Clip(name, MadeFrames(self.frames, lambda frame: self._draw(play, frame, f"{name}-{frame:05d}")))

    def _draw(self, play: Play, frame: int, name: str) -> Sample:
        whole = play.at(frame)
        scene, labels = drop_hidden(whole, self.size)
        layers = (*whole.stuff, *whole.things)
        classes = {i: (STUFF + THINGS).index(layer.name) + 1 for i, layer in enumerate(layers, start=1)}
        # What is hidden is taken out of the scene, whose numbers close up; the clip's do not.
        numbers = {id(layer): i for i, layer in enumerate(layers, start=1)}
        table = np.array([0, *(numbers[id(layer)] for layer in (*scene.stuff, *scene.things))])
        return Sample(name, render(scene, self.size), Panoptic.from_segmentation(table[labels], classes, TAXONOMY))
