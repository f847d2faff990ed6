"""Evaluation of a `Segmenter`, as on the command line, on a labelled data set."""

import csv
from collections.abc import Callable, Iterator
from functools import partial
from io import StringIO
from itertools import tee
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from pix2seqd import distributed
from pix2seqd.data.categories import with_categories
from pix2seqd.data.sample import Dataset, Sample
from pix2seqd.files import printable
from pix2seqd.metrics import percent
from pix2seqd.metrics.average_precision import AveragePrecision
from pix2seqd.metrics.detection_ap import DetectionAP
from pix2seqd.metrics.mean_iou import MeanIoU
from pix2seqd.metrics.panoptic_quality import PanopticQuality
from pix2seqd.panoptic.extra_files import escaped
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.segment import Segment
from pix2seqd.panoptic.taxonomy import Taxonomy
from pix2seqd.segmenter import Segmenter

METRICS = {
    "panoptic_quality": PanopticQuality,
    "average_precision": AveragePrecision,
    "detection_ap": DetectionAP,
    "mean_iou": MeanIoU,
}
"""Every measure of an evaluation, by its key in the result."""
MIN_SCORES = (0.0, 0.2, 0.3, 0.4, 0.5)
"""Values of `InferConfig.min_score` of which `evaluate_min_scores` takes the best."""


def evaluate(
    segmenter: Segmenter,
    dataset: Dataset,
    *,
    groups: list[str] | None = None,
    progress: Callable[[Iterator[Any]], Iterator[Any]] = iter,
    **options: Any,
) -> dict[str, Any]:
    """Score a segmenter on a data set. Processes share the samples, and each returns the complete result.

    Args:
        segmenter: the segmenter.
        dataset: images with ground truth; the segmenter must have their categories (`with_categories`).
        groups: group of each sample (e.g. a modality), for additional scores per group.
        progress: wraps the iteration over the samples.
        options: options of `Segmenter.images`: seed, steps, td, min_pixels, batch_size.

    Returns:
        "all" and each group → "images", what each of `METRICS` computes, values 0..1, and "confusion": {"classes":
        names, void first; "pixels": counts, rows are true and columns predicted classes}, or None above
        `mean_iou.MAX_CONFUSED` categories.

    Raises:
        InputError: the segmenter lacks a category.
    """
    taxonomy = segmenter.taxonomy
    dataset = with_categories(dataset, taxonomy)
    names = ["all", *dict.fromkeys(groups or ())]
    scores = {name: _metrics(taxonomy) for name in names}
    for number, sample, prediction in progress(_predictions(segmenter, dataset, **options)):
        for name in dict.fromkeys(("all", groups[number] if groups else "all")):
            for metric in scores[name].values():
                metric.update(sample.panoptic, prediction)
    return {
        name: _result(metrics, taxonomy, groups.count(name) if groups and name != "all" else len(dataset))
        for name, metrics in scores.items()
    }


def evaluate_min_scores(segmenter: Segmenter, dataset: Dataset) -> tuple[float, dict[str, Any]]:
    """Score a segmenter on a data set with its categories, at the `InferConfig.min_score` with the highest PQ.

    Returns the lowest of the best `MIN_SCORES`, and its result: what `evaluate` gives for all images. Each image is
    segmented once.
    """
    taxonomy = segmenter.taxonomy
    scores = {limit: _metrics(taxonomy) for limit in MIN_SCORES}
    for _, sample, prediction in _predictions(segmenter, dataset, min_score=0.0):
        for limit, metrics in scores.items():
            kept = prediction.select(partial(Segment.has_score, minimum=limit))
            for metric in metrics.values():
                metric.update(sample.panoptic, kept)
    results = {limit: _result(metrics, taxonomy, len(dataset)) for limit, metrics in scores.items()}
    best = max(MIN_SCORES, key=lambda limit: np.nan_to_num(results[limit]["panoptic_quality"]["All"]["pq"], nan=-1.0))
    return best, results[best]


def _metrics(taxonomy: Taxonomy) -> dict[str, Any]:
    return {key: metric(taxonomy) for key, metric in METRICS.items()}


def _predictions(segmenter: Segmenter, dataset: Dataset, **options: Any) -> Iterator[tuple[int, Sample, Panoptic]]:
    """Number, truth and prediction of this process's share of the images."""
    numbers = range(distributed.rank(), len(dataset), distributed.world_size())
    samples, again = tee(dataset[i] for i in numbers)
    yield from zip(numbers, again, segmenter.images((sample.image for sample in samples), **options), strict=True)


def _result(metrics: dict[str, Any], taxonomy: Taxonomy, images: int) -> dict[str, Any]:
    """What `evaluate` gives for a group, of the counts of all processes."""
    for metric in metrics.values():
        metric.state = distributed.all_reduce(metric.state)
    computed = {key: metric.compute() for key, metric in metrics.items()}
    return {"images": images, **computed, "confusion": _confusion(taxonomy, metrics["mean_iou"])}


def _confusion(taxonomy: Taxonomy, iou: MeanIoU) -> dict[str, Any] | None:
    if not iou.has_matrix:
        return None
    return {"classes": ["void", *(category.name for category in taxonomy.categories)], "pixels": iou.state.tolist()}


def class_table(results: dict[str, Any], taxonomy: Taxonomy) -> str:
    """The scores of every class and group as CSV, 0..1; what is not defined is empty.

    Args:
        results: of `evaluate`.
        taxonomy: the categories.
    """
    text = StringIO()
    writer = csv.writer(text)
    writer.writerow(["images", "id", "category", "kind", "pq", "sq", "rq", "tp", "fp", "fn", "iou"])
    for group, result in results.items():
        quality, iou = result["panoptic_quality"]["per_class"], result["mean_iou"]["per_class"]
        for category in taxonomy.categories:
            row = {**quality[category.id], "iou": iou[category.id]["iou"]}
            values = [row[key] for key in ("pq", "sq", "rq", "tp", "fp", "fn", "iou")]
            shown = ["" if value != value else value for value in values]
            writer.writerow([escaped(group), category.id, escaped(category.name), category.kind, *shown])
    return text.getvalue()


def render(results: dict[str, Any]) -> Group:
    """Tables of an evaluation, in percent."""
    heads = ("PQ\nthings", "PQ\nstuff", "AP\n@0.5", "F1\n@0.5", "AP by\nscore", "ECE", "mIoU")
    overall = Table("images", "n", "PQ", "SQ", "RQ", *heads, padding=0)  # it fits a terminal of 80 characters
    for name, result in results.items():
        quality, hit = result["panoptic_quality"], result["average_precision"]["thresholds"]["0.50"]
        values = [quality["All"][key] for key in ("pq", "sq", "rq")]
        values += [quality["Things"]["pq"], quality["Stuff"]["pq"], hit["ap"], hit["f1"]]
        values += [result["detection_ap"]["ap"], result["detection_ap"]["calibration_error"]]
        shown = map(percent, (*values, result["mean_iou"]["mean_iou"]))
        overall.add_row(Text(printable(name)), str(result["images"]), *shown)
    classes = Table("category", "PQ", "SQ", "RQ", "tp", "fp", "fn")
    for row in results["all"]["panoptic_quality"]["per_class"].values():
        counts = [str(row[key]) for key in ("tp", "fp", "fn")]
        classes.add_row(Text(printable(row["name"])), *(percent(row[key]) for key in ("pq", "sq", "rq")), *counts)
    return Group(overall, classes)
