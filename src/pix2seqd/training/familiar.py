"""Statistics of the training images, kept with a checkpoint: the base of the warning about images unlike them."""

from collections.abc import Iterable, Iterator

import torch

from pix2seqd.checkpoint import Checkpoint
from pix2seqd.data.sample import Clip, ClipDataset, Dataset, Sample, evenly
from pix2seqd.images.familiarity import Familiarity
from pix2seqd.segmenter import Segmenter

IMAGES = 256
"""Number of images that are looked at."""
_SCALES = (1.0, 0.8, 1.25)
"""The scale that a first look finds differs from that of the labels by such factors."""


def learn(
    checkpoint: Checkpoint, datasets: Iterable[tuple[Dataset | ClipDataset, int]], device: str = "auto"
) -> Familiarity | None:
    """Run training images through the encoder.

    Args:
        checkpoint: the trained model.
        datasets: what it was trained on, each with the number of images to take, evenly spread over it.
        device: of `Segmenter`.

    Returns:
        The statistics; None if there are too few images.
    """
    segmenter, described, pixels = Segmenter(checkpoint, device), [], []
    for dataset, count in datasets:
        for number, sample in enumerate(_spread(dataset, count)):
            diameter = sample.panoptic.diameter() if checkpoint.data.diameter else 0.0
            # Images that are scaled to one size all show as much.
            pixels.append(sample.panoptic.segmentation.size if checkpoint.data.layout == "tile" else 1)
            described.append(segmenter.describe_image(sample.image, diameter * _SCALES[number % len(_SCALES)]))
    return Familiarity.fit(torch.stack(described), min(pixels)) if described else None


def _spread(dataset: Dataset | ClipDataset, count: int) -> Iterator[Sample]:
    """Images at even distances; of a clip one frame."""
    for index in evenly(len(dataset), count):
        item = dataset[index]
        yield item.frames[index % len(item.frames)] if isinstance(item, Clip) else item
