"""Quality as a function of steps, τ_d and minimum segment size (Figure 6). A scale of an image is encoded once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from PIL import Image
from rich.table import Table
from torch import Tensor

from pix2seqd import distributed
from pix2seqd.data.categories import with_categories
from pix2seqd.data.sample import Dataset
from pix2seqd.evaluation.plot import Curve, curves
from pix2seqd.metrics import percent
from pix2seqd.metrics.mean_iou import MeanIoU
from pix2seqd.metrics.panoptic_quality import PanopticQuality
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.pixel_encoder import ImageFeatures
from pix2seqd.segmenter import Segmenter

TITLES = {"steps": "denoising steps", "td": "time difference td", "min_pixels": "smallest segment, pixels"}
"""Fields of `InferConfig` that can be varied → axis titles."""


def sweep(
    segmenter: Segmenter,
    dataset: Dataset,
    values: Mapping[str, Sequence[float]],
    seed: int = 0,
    progress: Callable[[Iterator[int]], Iterator[int]] = iter,
) -> list[dict[str, Any]]:
    """Score a segmenter with several inference settings, varying one at a time (Figure 6).

    Processes share the images, and each returns the complete result. Settings that do not vary have the checkpoint's
    defaults, and all have the same noise.

    Args:
        segmenter: the segmenter.
        dataset: images with ground truth; the segmenter must have their categories (`with_categories`).
        values: "steps", "td" or "min_pixels" → values to try.
        seed: seed of the noise.
        progress: wraps the iteration over the indices of the images.

    Returns:
        For each value {"varied": name of the varied setting; "steps", "td", "min_pixels": the setting; "pq", "sq",
        "rq", "pq_things", "pq_stuff", "mean_iou": 0..1}.
    """
    dataset = with_categories(dataset, segmenter.taxonomy)
    base = _defaults(segmenter)
    settings = [(name, {**base, name: value}) for name in values for value in values[name]]
    scores = {tuple(s.values()): (PanopticQuality(dataset.taxonomy), MeanIoU(dataset.taxonomy)) for _, s in settings}
    first, stride = distributed.rank(), distributed.world_size()
    for index in progress(iter(range(first, len(dataset), stride))):
        sample = dataset[index]
        with cached_encoder(segmenter.model):
            for setting, metrics in scores.items():
                prediction = segmenter.image(sample.image, seed=seed, **dict(zip(base, setting, strict=True)))
                for metric in metrics:
                    metric.update(sample.panoptic, prediction)
    for metric in chain.from_iterable(scores.values()):
        metric.state = distributed.all_reduce(metric.state)
    found = {key: _summary(*metrics) for key, metrics in scores.items()}
    return [{"varied": name, **setting, **found[tuple(setting.values())]} for name, setting in settings]


def _defaults(segmenter: Segmenter) -> dict[str, Any]:
    """Default setting of the checkpoint for images; a video model uses the steps of a first frame."""
    infer = segmenter.checkpoint.infer
    return {"steps": infer.image_steps, "td": infer.td, "min_pixels": infer.min_pixels}


def _summary(quality: PanopticQuality, iou: MeanIoU) -> dict[str, float]:
    result = quality.compute()
    return {
        **{key: result["All"][key] for key in ("pq", "sq", "rq")},
        "pq_things": result["Things"]["pq"],
        "pq_stuff": result["Stuff"]["pq"],
        "mean_iou": iou.compute()["mean_iou"],
    }


@contextmanager
def cached_encoder(model: Pix2SeqD) -> Iterator[None]:
    """Context in which the pixel encoder of the model encodes equal inputs once."""
    encode, cache = model.pixel_encoder.forward, list[tuple[Tensor, ImageFeatures]]()

    def cached(images: Tensor) -> ImageFeatures:
        for encoded, features in cache:
            if torch.equal(encoded, images):
                return features
        cache.append((images, encode(images)))
        return cache[-1][1]

    model.pixel_encoder.forward = cached
    try:
        yield
    finally:
        del model.pixel_encoder.forward  # of the instance; the class has its own


def render(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Table of a sweep, in percent."""
    table = Table("steps", "td", "min pixels", "PQ", "SQ", "RQ", "PQ things", "PQ stuff", "mIoU")
    for row, following in zip(rows, [*rows[1:], {"varied": None}], strict=True):
        shown = (percent(row[key]) for key in ("pq", "sq", "rq", "pq_things", "pq_stuff", "mean_iou"))
        table.add_row(*(f"{row[name]:g}" for name in TITLES), *shown, end_section=row["varied"] != following["varied"])
    return table


def plot(rows: Sequence[Mapping[str, Any]], segmenter: Segmenter) -> Image.Image:
    """Figure 6: a panel for each varied setting; the default value of the checkpoint is marked."""
    panels = []
    for name in dict.fromkeys(row["varied"] for row in rows):
        points = {f"{row[name]:g}": 100 * row["pq"] for row in rows if row["varied"] == name}
        marked = f"{_defaults(segmenter)[name]:g}"
        panels.append(Curve(TITLES[name], list(points), list(points.values()), marked=marked))
    return curves(panels, "PQ")
