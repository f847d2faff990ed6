"""Synthetic panoptic scenes: stuff with procedural texture, overlapping things, light, shadow and noise.

A scene is first drawn at random (`scene`) and then rendered (`drawing`).
"""

import numpy as np

from pix2seqd.data.sample import Sample
from pix2seqd.data.synthetic.drawing import drop_hidden, render
from pix2seqd.data.synthetic.scene import STUFF, THINGS, Scene, random_scene
from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Category, Taxonomy, distinct_color

_NAMED_COLORS = zip(
    STUFF + THINGS,
    ((150, 200, 250), (80, 160, 60), (30, 80, 180), (180, 90, 60), *map(distinct_color, range(len(THINGS)))),
    strict=True,
)
TAXONOMY = Taxonomy(
    tuple(Category(i, name, name in THINGS, color) for i, (name, color) in enumerate(_NAMED_COLORS, start=1))
)


class Shapes:
    """`length` scenes of `size` (height, width) pixels; item i depends only on (seed, i). A `Dataset`."""

    taxonomy = TAXONOMY

    def __init__(self, length: int, size: tuple[int, int] = (128, 128), seed: int = 0) -> None:
        if length < 1 or min(size) < 1 or seed < 0:
            raise InputError(f"length {length}, size {size}, seed {seed}: give 1 or more, 1x1 or more, 0 or more")
        self.length, self.size, self.seed = length, size, seed

    def __len__(self) -> int:
        return self.length

    def scene(self, index: int) -> Scene:
        """The scene of item `index`: the stuff and things of its segments. It has a stuff even if things cover it."""
        return self._labelled(index)[0]

    def __getitem__(self, index: int) -> Sample:
        """Segments 1..k are the stuff of `scene(index)`, and k+1.. its things, far to near; no pixel is void."""
        scene, labels = self._labelled(index)
        names = [layer.name for layer in (*scene.stuff, *scene.things)]
        classes = {i: (STUFF + THINGS).index(name) + 1 for i, name in enumerate(names, start=1)}
        panoptic = Panoptic.from_segmentation(labels, classes, TAXONOMY)
        return Sample(f"{self.seed:04d}-{index:08d}", render(scene, self.size), panoptic)

    def _labelled(self, index: int) -> tuple[Scene, np.ndarray]:
        if not 0 <= index < self.length:
            raise IndexError(f"item {index} of {self.length}")  # also ends a for loop over the data set
        height, width = self.size
        scene = random_scene(np.random.default_rng([self.seed, index]), width / height)
        return drop_hidden(scene, self.size)
