"""How the quality depends on steps, τ_d and the smallest segment (Figure 6); each picture is encoded once."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from PIL import Image
from rich.table import Table
from torch import Tensor, nn

from pix2seqd import distributed
from pix2seqd.data.sample import Dataset
from pix2seqd.evaluation.images import check_categories
from pix2seqd.evaluation.plot import Curve, curves
from pix2seqd.metrics import percent
from pix2seqd.metrics.mean_iou import MeanIoU
from pix2seqd.metrics.panoptic_quality import PanopticQuality
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.pixel_encoder import ImageFeatures
from pix2seqd.segmenter import Segmenter

TITLES = {"steps": "denoising steps", "td": "time difference td", "min_pixels": "smallest segment, pixels"}
"""What may vary (fields of `InferConfig`), as the plot calls it."""


def sweep(
    segmenter: Segmenter,
    dataset: Dataset,
    values: Mapping[str, Sequence[float]],
    seed: int = 0,
    progress: Callable[[Iterator[int]], Iterator[int]] = iter,
) -> list[dict[str, Any]]:
    """Score a segmenter under several settings of inference, one thing varied at a time.

    Several processes share the pictures and all get the whole result.

    Args:
        segmenter: what is scored; its checkpoint's defaults hold for what does not vary.
        dataset: the truth; its categories must be the segmenter's.
        values: "steps", "td" or "min_pixels" → values to try.
        seed: of the noise, the same for all.
        progress: wraps the iteration over the numbers of the pictures.

    Returns:
        For each value {"varied": what, "steps", "td", "min_pixels": the setting, "pq", "sq", "rq", "pq_things",
        "pq_stuff", "mean_iou": 0..1}.

    Raises:
        InputError: the categories differ, or a value makes no sense.
    """
    check_categories(segmenter.taxonomy, dataset)
    base = _defaults(segmenter)
    asked = [(name, {**base, name: value}) for name in values for value in values[name]]
    scores = {tuple(s.values()): (PanopticQuality(dataset.taxonomy), MeanIoU(dataset.taxonomy)) for _, s in asked}
    first, stride = distributed.rank(), distributed.world_size()
    for index in progress(iter(range(first, len(dataset), stride))):
        sample = dataset[index]
        with encoded_once(segmenter.model):
            for setting, metrics in scores.items():
                prediction = segmenter.image(sample.image, seed=seed, **dict(zip(base, setting, strict=True)))
                for metric in metrics:
                    metric.update(sample.panoptic, prediction)
    for metric in chain.from_iterable(scores.values()):
        metric.state = distributed.all_reduce(metric.state)
    found = {key: _summary(*metrics) for key, metrics in scores.items()}
    return [{"varied": name, **setting, **found[tuple(setting.values())]} for name, setting in asked]


def _defaults(segmenter: Segmenter) -> dict[str, Any]:
    """The checkpoint's setting for pictures: a video model takes as many steps as on a first frame."""
    infer = segmenter.checkpoint.infer
    return {"steps": infer.first_steps or infer.steps, "td": infer.td, "min_pixels": infer.min_pixels}


def _summary(quality: PanopticQuality, iou: MeanIoU) -> dict[str, float]:
    result = quality.compute()
    return {
        **{key: result["All"][key] for key in ("pq", "sq", "rq")},
        "pq_things": result["Things"]["pq"],
        "pq_stuff": result["Stuff"]["pq"],
        "mean_iou": iou.compute()["mean_iou"],
    }


@contextmanager
def encoded_once(model: Pix2SeqD) -> Iterator[None]:
    """Within it, the model's pixel encoder answers pictures that it has seen before from memory."""
    encoder = model.pixel_encoder
    model.pixel_encoder = _Remembering(encoder)  # type: ignore[assignment]
    try:
        yield
    finally:
        model.pixel_encoder = encoder


class _Remembering(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.seen: list[tuple[Tensor, ImageFeatures]] = []

    def forward(self, images: Tensor) -> ImageFeatures:
        for before, features in self.seen:
            if torch.equal(before, images):
                return features
        self.seen.append((images, self.encoder(images)))
        return self.seen[-1][1]


def render(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Table of a sweep, in percent."""
    table = Table("steps", "td", "min pixels", "PQ", "SQ", "RQ", "PQ things", "PQ stuff", "mIoU")
    for row, following in zip(rows, [*rows[1:], {"varied": None}], strict=True):
        shown = (percent(row[key]) for key in ("pq", "sq", "rq", "pq_things", "pq_stuff", "mean_iou"))
        table.add_row(*(f"{row[name]:g}" for name in TITLES), *shown, end_section=row["varied"] != following["varied"])
    return table


def plot(rows: Sequence[Mapping[str, Any]], segmenter: Segmenter) -> Image.Image:
    """Figure 6: a panel for each thing that varies; the checkpoint's own value is marked."""
    panels = []
    for name in dict.fromkeys(row["varied"] for row in rows):
        points = {f"{row[name]:g}": 100 * row["pq"] for row in rows if row["varied"] == name}
        marked = f"{_defaults(segmenter)[name]:g}"
        panels.append(Curve(TITLES[name], list(points), list(points.values()), marked=marked))
    return curves(panels, "PQ")
