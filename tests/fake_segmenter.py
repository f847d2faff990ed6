"""A replacement of the model that needs milliseconds and no torch, for tests of the command line."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from PIL import Image
from scipy import ndimage

from pix2seqd.files import InputError
from pix2seqd.images.load import load_image
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy

CELLS = Taxonomy.from_coco([{"id": 1, "name": "nucleus"}, {"id": 2, "name": "background", "isthing": 0}])
TAXONOMIES = {
    "nuclei": CELLS,
    "nuclei-fast": CELLS,
    "nuclei-video": CELLS,
    "other": Taxonomy.from_coco([{"id": 1, "name": "cat"}, {"id": 2, "name": "sky", "isthing": 0}]),
}


class FakeSegmenter:
    """Bright blobs are things. `seen` counts the images; with `fail_at`, `error` is raised at that image."""

    seen = 0
    fail_at = None
    error: BaseException = KeyboardInterrupt()
    familiar_width: int | None = None
    """Images that are wider look strange; None: the model cannot tell."""

    def __init__(self, name):
        self.name, self.taxonomy = name, TAXONOMIES[name]
        self.checkpoint = SimpleNamespace(data=SimpleNamespace(size=(64, 64)))

    @classmethod
    def from_pretrained(cls, name, device="auto", dtype="auto", trust_size=False):
        if name not in TAXONOMIES:
            raise InputError(f"no checkpoint {name!r}; give nuclei")
        return cls(name)

    def describe(self, clip=False):
        return {"model": self.name, "steps": 20, "td": 1.0, "min_pixels": 1}

    def images(
        self,
        sources,
        *,
        seed=0,
        steps=None,
        td=None,
        min_pixels=None,
        batch_size=None,
        on_window=None,
        consensus=None,
        min_score=0,
        classes=None,
    ):
        for source in sources:
            if FakeSegmenter.seen == FakeSegmenter.fail_at:
                raise FakeSegmenter.error
            FakeSegmenter.seen += 1
            blobs, count = ndimage.label(np.asarray(load_image(source)).mean(axis=-1) > 100)
            of_label = {**dict.fromkeys(range(1, count + 1), 1), count + 1: 2}
            scores = {label: label / (count + 1) for label in of_label}  # the later, the surer
            labels = np.where(blobs, blobs, count + 1)
            found = Panoptic.from_segmentation(labels, of_label, self.taxonomy, scores=scores)
            limit = FakeSegmenter.familiar_width
            found = replace(found, ood_score=blobs.shape[1] / limit) if limit else found
            yield found.select(lambda s: s.score >= min_score and (classes is None or s.name in classes))

    def video(self, frames, **options):
        for frame in frames:
            panoptic = next(self.images([frame], **options))
            yield panoptic.renumbered({s.id: s.id if s.isthing else 100 for s in panoptic.segments})


def draw(path, blobs=2, size=(40, 30)):
    """A dark image with bright squares."""
    image = Image.new("L", size, 20)
    for blob in range(blobs):
        image.paste(200, (3 + 6 * blob, 5, 7 + 6 * blob, 9))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path
