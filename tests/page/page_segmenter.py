"""A fast replacement of `Segmenter` with everything that the page uses. Bright blobs are things."""

from types import SimpleNamespace

import numpy as np
from fake_segmenter import FakeSegmenter

from pix2seqd.config import DataConfig, InferConfig, ModelConfig
from pix2seqd.panoptic.panoptic import Panoptic


class PageSegmenter(FakeSegmenter):
    """Blobs appear one by one, one in each step. A pixel in the corner depends on the seed, as noise does."""

    def __init__(self, name="fake", taxonomy="nuclei"):
        super().__init__(taxonomy)
        settings = {"infer": InferConfig(), "data": DataConfig(layout="tile", diameter=8.0), "taxonomy": self.taxonomy}
        self.checkpoint = SimpleNamespace(name=name, model=SimpleNamespace(config=ModelConfig()), **settings)
        self.calls = []

    def progress(self, source, *, hints=None, seed=0, steps=None, td=None, min_pixels=None, **options):
        self.calls.append({"seed": seed, "steps": steps, "td": td, "min_pixels": min_pixels, **options})
        (whole,) = self.images([source])
        segmentation = np.array(whole.segmentation)
        segmentation[0, : 1 + seed % 7] = 0
        classes = whole.classes
        if hints is not None:
            shift = max((s.id for s in hints.segments), default=0)
            given = hints.classes
            segmentation = np.where(
                hints.segmentation > 0, hints.segmentation, (segmentation + shift) * (segmentation > 0)
            )
            classes = {i + shift: c for i, c in classes.items()} | given
        for step in range(1, steps + 1):
            last = step == steps
            part = classes if last else {i: c for i, c in classes.items() if i % steps < step}
            yield step / steps, Panoptic.from_segmentation(segmentation, part, self.taxonomy)

    def video(self, frames, **options):
        self.calls.append(options)
        for frame in frames:
            yield from self.images([frame])
