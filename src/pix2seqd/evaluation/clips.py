"""Evaluation on clips: `Segmenter.video`, as on the command line, and two baselines."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, Literal

import numpy as np
from PIL import Image
from rich.table import Table
from torch import Tensor

from pix2seqd import distributed
from pix2seqd.data.categories import with_categories
from pix2seqd.data.sample import Clip, ClipDataset
from pix2seqd.evaluation.plot import Curve, curves
from pix2seqd.inference.tracking import Tracker
from pix2seqd.metrics import percent
from pix2seqd.metrics.id_switches import IdSwitches
from pix2seqd.metrics.region_contour import VOID_LABEL, RegionContour
from pix2seqd.metrics.stq import StepQuality
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.runs import mapped
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.segmenter import Segmenter

Tracking = Literal["model", "iou", "none"]
"""Source of the track ids. "model": `Segmenter.video`. The baselines segment each frame separately; "iou" matches the
segments of consecutive frames by IoU, and "none" keeps the ids of the single frames."""
Progress = Callable[[Iterator[Any]], Iterator[Any]]


@dataclass
class StepCount:
    """Number of windows, and of decoder steps summed over windows."""

    windows: int = 0
    steps: int = 0


def evaluate_video(
    segmenter: Segmenter,
    clips: ClipDataset,
    *,
    tracking: Tracking = "model",
    max_tracks: int | None = None,
    progress: Progress = iter,
    **options: Any,
) -> dict[str, Any]:
    """Score a segmenter on clips. Processes share the clips, and each returns the complete result.

    Args:
        segmenter: the segmenter.
        clips: clips with ground truth; the segmenter must have their categories (`with_categories`).
        tracking: source of the track ids.
        max_tracks: number of tracks per clip that count in J&F, largest first; DAVIS allows 20. None: all.
        progress: wraps the iteration over the clips.
        options: options of `Segmenter.video`; for the baselines, of `Segmenter.image`.

    Returns:
        "clips", "frames": counts; "region_contour", "step_quality", "id_switches": results of `RegionContour`,
        `StepQuality` and `IdSwitches`; "first_steps", "steps": decoder steps per mask in first and in later frames,
        including those that estimate the scale; "frames_per_second": of the segmentation in one process, without
        reading and scoring. J&F counts the things of the first frame of a clip.

    Raises:
        InputError: the segmenter lacks a category, or an option is invalid.
    """
    clips = with_categories(clips, segmenter.taxonomy)
    contours, quality, switches = RegionContour(), StepQuality(clips.taxonomy), IdSwitches(clips.taxonomy)
    first, later = StepCount(), StepCount()
    frames, seconds = 0, 0.0
    process, stride = distributed.rank(), distributed.world_size()
    for clip in progress(clips[i] for i in range(process, len(clips), stride)):
        predictions = []
        truths = [frame.panoptic for frame in clip.frames]
        stream = _predictions(segmenter, clip, tracking, options)
        for truth in truths:
            with count_steps(segmenter.model, later if predictions else first):
                began = time.perf_counter()
                predictions.append(next(stream))
                seconds += time.perf_counter() - began
            quality.update(clip.name, _tracks(truth), _tracks(predictions[-1]))
            switches.update(clip.name, truth, predictions[-1])
        frames += len(truths)
        proposals = largest_tracks(predictions, max_tracks)
        max_proposals = max_tracks or max(int(p.max()) for p in proposals)
        contours.update(clip.name, object_labels(truths), proposals, max_proposals)
    counts = np.array([first.steps, first.windows, later.steps, later.windows, frames])
    shares = distributed.all_gather((contours, quality, switches, counts, seconds))
    return {"clips": len(clips), **_merge(shares)}


def _merge(shares: list[tuple[Any, ...]]) -> dict[str, Any]:
    """Combine the results of all processes."""
    contours, quality, switches, counts, seconds = (reduce(add, parts) for parts in zip(*shares, strict=True))
    first_steps, first_windows, steps, windows, frames = counts.tolist()
    return {
        "frames": frames,
        "region_contour": contours.compute(),
        "step_quality": quality.compute(),
        "id_switches": switches.compute(),
        "first_steps": first_steps / max(first_windows, 1),
        "steps": steps / max(windows, 1),
        "frames_per_second": frames / seconds,
    }


def _predictions(segmenter: Segmenter, clip: Clip, tracking: Tracking, options: dict[str, Any]) -> Iterator[Panoptic]:
    images = [frame.image for frame in clip.frames]
    if tracking == "model":
        yield from segmenter.video(images, **options)
        return
    tracker = Tracker(segmenter.checkpoint.data.ids == "unique")
    for image in images:
        panoptic = segmenter.image(image, **options)
        yield tracker.update(panoptic) if tracking == "iou" else panoptic


@contextmanager
def count_steps(model: Pix2SeqD, count: StepCount) -> Iterator[None]:
    """Context in which the decoder steps of the model are counted."""
    denoise = model.denoise

    def counting(h: Any, noise: Tensor, *args: Any, **options: Any) -> Iterator[Tensor]:
        count.windows += len(noise)
        for m_pred in denoise(h, noise, *args, **options):
            count.steps += len(noise)
            yield m_pred

    model.denoise = counting  # type: ignore[method-assign]
    try:
        yield
    finally:
        del model.denoise


def _tracks(panoptic: Panoptic) -> np.ndarray:
    """Mask tensor `[2, h, w]` of classes and track ids; stuff and crowds have id 0."""
    return np.stack([panoptic.class_map(), _things(panoptic)])


def _things(panoptic: Panoptic) -> np.ndarray:
    """Segment ids `[h, w]` of things, 0 elsewhere."""
    return panoptic.select(lambda segment: segment.isthing and not segment.iscrowd).segmentation


def object_labels(truths: Sequence[Panoptic]) -> list[np.ndarray]:
    """Ground truth of J&F, int `[h, w]` per frame: things of the first frame 1.., void and crowds 255, otherwise 0.

    The protocol has labels up to 254. Of more things, those with the lowest ids are counted.
    """
    ids = np.unique(_things(truths[0]))
    ids = ids[ids > 0][: VOID_LABEL - 1]
    frames = []
    for truth in truths:
        crowds = [segment.id for segment in truth.segments if segment.iscrowd]
        ignored = np.isin(truth.segmentation, [0, *crowds])
        number = np.searchsorted(ids, truth.segmentation) + 1
        known = np.isin(truth.segmentation, ids)
        frames.append(np.where(ignored, VOID_LABEL, np.where(known, number, 0)))
    return frames


def largest_tracks(predictions: Sequence[Panoptic], max_tracks: int | None = None) -> list[np.ndarray]:
    """The largest thing tracks of a clip, int `[h, w]` per frame: 1.. by decreasing size, otherwise 0."""
    things = np.stack([_things(prediction) for prediction in predictions])
    ids, pixels = np.unique(things[things > 0], return_counts=True)
    kept = ids[np.argsort(-pixels, kind="stable")][:max_tracks]
    return list(mapped(things, {track: number for number, track in enumerate(kept.tolist(), start=1)}, int))


def render(results: dict[str, dict[str, Any]]) -> Table:
    """Table of evaluations by name, in percent except steps and frames per second."""
    table = Table("", "J&F", "J", "F", "STQ", "AQ", "SQ", "found", "id switches", "steps", "frames/s")
    for name, result in results.items():
        contour, quality, switches = result["region_contour"]["global"], result["step_quality"], result["id_switches"]
        shares = [contour[f"{key}-Mean"] for key in ("J&F", "J", "F")] + [quality[k] for k in ("STQ", "AQ", "SQ")]
        table.add_row(
            name,
            *map(percent, [*shares, switches["found_share"]]),
            str(switches["switches"]),
            f"{result['first_steps']:.3g}/{result['steps']:.3g}",
            f"{result['frames_per_second']:.2f}",
        )
    return table


def defaults(segmenter: Segmenter) -> dict[str, int]:
    """The numbers of steps that the checkpoint uses."""
    infer = segmenter.checkpoint.infer
    return {"first_steps": infer.image_steps, "steps": infer.steps}


def sweep_steps(
    segmenter: Segmenter,
    clips: ClipDataset,
    first_steps: Sequence[int],
    steps: Sequence[int],
    seed: int = 0,
    progress: Progress = iter,
    **options: Any,
) -> dict[str, list[dict[str, Any]]]:
    """Figure 7: vary the steps of first frames with the default steps of later frames, and vice versa.

    Returns:
        "first_steps" and "steps" → for each of these values, the result of `evaluate_video` with the seed and options,
        and "value".
    """
    rows: dict[str, list[dict[str, Any]]] = {"first_steps": [], "steps": []}
    settings = [("first_steps", value) for value in first_steps] + [("steps", value) for value in steps]
    for name, value in progress(iter(settings)):
        chosen = {**defaults(segmenter), name: value}
        result = evaluate_video(segmenter, clips, seed=seed, **chosen, **options)
        rows[name].append({"value": value, **result})
    return rows


def plot(rows: dict[str, list[dict[str, Any]]], segmenter: Segmenter) -> Image.Image:
    """Plot Figure 7; the default values of the checkpoint are marked."""
    titles = {"first_steps": "steps of the first frame", "steps": "steps of the other frames"}
    panels = []
    for name, results in rows.items():
        values = [100 * result["region_contour"]["global"]["J&F-Mean"] for result in results]
        panels.append(
            Curve(titles[name], [str(r["value"]) for r in results], values, marked=str(defaults(segmenter)[name]))
        )
    return curves(panels, "J&F")
