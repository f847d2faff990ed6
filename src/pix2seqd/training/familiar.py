"""Statistics of the training images, kept with a checkpoint: the base of the warning about images unlike them."""

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from pix2seqd.checkpoint import Checkpoint
from pix2seqd.data.sample import Clip, ClipDataset, Dataset, Sample, evenly_spaced
from pix2seqd.images.familiarity import Familiarity
from pix2seqd.segmenter import Segmenter

IMAGES = 256
"""Number of images that are taken."""
MIN_IMAGES = 16
"""Fewer training images say too little."""
_SCALES = (1.0, 0.8, 1.25)
"""The scale that inference estimates differs from that of the labels by such factors."""

_CROPS = 2
"""Parts of each image that are taken too, if images are shown as a whole: photographs of the same kind have other
shapes, and show more or less of a scene."""


def training_statistics(
    checkpoint: Checkpoint, datasets: Iterable[tuple[Dataset | ClipDataset, int]], device: str = "auto"
) -> Familiarity | None:
    """Run training images through the encoder; None if there are fewer than `MIN_IMAGES`.

    Each of the datasets comes with the number of images to take, evenly spread over it.
    """
    segmenter, statistics, pixels = Segmenter(checkpoint, device), [], []
    for dataset, count in datasets:
        for number, sample in enumerate(_subsample(dataset, count)):
            diameter = sample.panoptic.diameter() if checkpoint.data.diameter else 0.0
            whole = checkpoint.data.layout == "resize"
            # Images that are scaled to one size all show as much.
            pixels.append(1 if whole else sample.panoptic.segmentation.size)
            for image in (sample.image, *(_crop(sample.image, [number, k]) for k in range(_CROPS if whole else 0))):
                statistics.append(segmenter.feature_statistics(image, diameter * _SCALES[number % len(_SCALES)]))
    return Familiarity.fit(torch.stack(statistics), min(pixels)) if len(pixels) >= MIN_IMAGES else None


def _crop(image: np.ndarray, seed: list[int]) -> np.ndarray:
    """A part of an image `[h, w, 3]`: 0.3 to 1 of its height and of its width, anywhere."""
    rng = np.random.default_rng(seed)
    rows, columns = (max(1, round(n * rng.uniform(0.3, 1))) for n in image.shape[:2])
    y, x = rng.integers(image.shape[0] - rows + 1), rng.integers(image.shape[1] - columns + 1)
    return image[y : y + rows, x : x + columns]


def _subsample(dataset: Dataset | ClipDataset, count: int) -> Iterator[Sample]:
    """Images at even distances; of a clip one frame."""
    for index in evenly_spaced(len(dataset), count):
        item = dataset[index]
        yield item.frames[index % len(item.frames)] if isinstance(item, Clip) else item
