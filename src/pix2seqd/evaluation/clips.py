"""Evaluation on clips: the very `Segmenter.video` of the command line, and what it has to beat."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from operator import add
from typing import Any, Literal

import numpy as np
from PIL import Image
from rich.table import Table
from torch import Tensor

from pix2seqd import distributed
from pix2seqd.data.sample import Clip, ClipDataset
from pix2seqd.evaluation.images import check_categories
from pix2seqd.evaluation.plot import Curve, curves
from pix2seqd.inference.tracking import Tracker
from pix2seqd.metrics import percent
from pix2seqd.metrics.id_switches import IdSwitches
from pix2seqd.metrics.region_contour import VOID_LABEL, RegionContour
from pix2seqd.metrics.stq import StepQuality
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.segmenter import Segmenter

Tracking = Literal["model", "iou", "none"]
"""model: `Segmenter.video`. The baselines segment every frame by itself; iou: segments of successive frames are matched
by IoU; none: they are not, and keep the numbers they come with."""


Progress = Callable[[Iterator[Any]], Iterator[Any]]


class Count:
    """What a model was asked for: windows, and decoder steps summed over windows."""

    windows = steps = 0


def evaluate_video(
    segmenter: Segmenter,
    clips: ClipDataset,
    *,
    tracking: Tracking = "model",
    most: int | None = None,
    progress: Progress = iter,
    **options: Any,
) -> dict[str, Any]:
    """Score a segmenter on clips; several processes share them and all get the whole result.

    Args:
        segmenter: what is scored.
        clips: the truth; its categories must be the segmenter's.
        tracking: how ids come about.
        most: tracks per clip that J&F takes into account, the largest; DAVIS allows 20. None: all.
        progress: wraps the iteration over the clips.
        options: of `Segmenter.video`; the baselines take those of `Segmenter.image`.

    Returns:
        "clips", "frames"; "region_contour", "step_quality", "id_switches": what `RegionContour`, `StepQuality` and
        `IdSwitches` compute; "first_steps" and "steps": decoder steps per mask, of first and of later frames, a first
        look's included; "frames_per_second" of one process's segmentation, reading and scoring left out. J&F counts
        the things of a clip's first frame.

    Raises:
        InputError: the categories differ, or an option makes no sense.
    """
    check_categories(segmenter.taxonomy, clips)
    contours, quality, switches = RegionContour(), StepQuality(clips.taxonomy), IdSwitches(clips.taxonomy)
    first, later = Count(), Count()
    frames, seconds = 0, 0.0
    process, stride = distributed.rank(), distributed.world_size()
    for clip in progress(clips[i] for i in range(process, len(clips), stride)):
        predictions = []
        truths = [frame.panoptic for frame in clip.frames]
        answers = _answers(segmenter, clip, tracking, options)
        for truth in truths:
            with counted(segmenter.model, later if predictions else first):
                began = time.perf_counter()
                predictions.append(next(answers))
                seconds += time.perf_counter() - began
            quality.update(clip.name, _tracks(truth), _tracks(predictions[-1]))
            switches.update(clip.name, truth, predictions[-1])
        frames += len(truths)
        proposals = renumbered(predictions, most)
        contours.update(clip.name, objects(truths), proposals, most or max(int(p.max()) for p in proposals))
    counts = np.array([first.steps, first.windows, later.steps, later.windows, frames])
    shares = distributed.all_gather((contours, quality, switches, counts, seconds))
    return {"clips": len(clips), **_together(shares)}


def _together(shares: list[tuple[Any, ...]]) -> dict[str, Any]:
    """The result of all processes."""
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


def _answers(segmenter: Segmenter, clip: Clip, tracking: Tracking, options: dict[str, Any]) -> Iterator[Panoptic]:
    pictures = [frame.image for frame in clip.frames]
    if tracking == "model":
        yield from segmenter.video(pictures, **options)
        return
    tracker = Tracker(segmenter.checkpoint.data.ids == "unique")
    for picture in pictures:
        panoptic = segmenter.image(picture, **options)
        yield tracker.update(panoptic) if tracking == "iou" else panoptic


@contextmanager
def counted(model: Pix2SeqD, count: Count) -> Iterator[None]:
    """Within it, the model's decoder steps are counted."""
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
    """Mask tensor `[2, h, w]` of classes and tracks; stuff and crowds have id 0."""
    classes = panoptic.class_map()
    return np.stack([classes, _things(panoptic)])


def _things(panoptic: Panoptic) -> np.ndarray:
    """Segment ids `[h, w]` of things, 0 elsewhere."""
    things = [segment.id for segment in panoptic.segments if segment.isthing and not segment.iscrowd]
    return np.where(np.isin(panoptic.segmentation, things), panoptic.segmentation, 0)


def objects(truths: Sequence[Panoptic]) -> list[np.ndarray]:
    """Frames `[h, w]` of the objects that J&F counts: things of the first frame 1.., void and crowds 255, else 0.

    The labels of that protocol count to 254; of more things than that, those with the lowest ids are counted.
    """
    ids = np.unique(_things(truths[0]))
    ids = ids[ids > 0][: VOID_LABEL - 1]
    frames = []
    for truth in truths:
        crowds = [segment.id for segment in truth.segments if segment.iscrowd]
        ignored = np.isin(truth.segmentation, [0, *crowds])
        number = np.searchsorted(ids, truth.segmentation) + 1
        counted = np.isin(truth.segmentation, ids)
        frames.append(np.where(ignored, VOID_LABEL, np.where(counted, number, 0)))
    return frames


def renumbered(predictions: Sequence[Panoptic], most: int | None = None) -> list[np.ndarray]:
    """Frames `[h, w]` of a clip's tracks of things, 1.. by falling size, the `most` largest; 0 elsewhere."""
    things = np.stack([_things(prediction) for prediction in predictions])
    ids, pixels = np.unique(things[things > 0], return_counts=True)
    kept = ids[np.argsort(-pixels, kind="stable")][:most]
    table = np.zeros(int(things.max(initial=0)) + 1, int)
    table[kept] = np.arange(1, len(kept) + 1)
    return list(table[things])


def render(results: dict[str, dict[str, Any]]) -> Table:
    """Table of evaluations by name; percent, but for steps and frames per second."""
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
    """The checkpoint's numbers of steps."""
    infer = segmenter.checkpoint.infer
    return {"first_steps": infer.first_steps or infer.steps, "steps": infer.steps}


def sweep_steps(
    segmenter: Segmenter,
    clips: ClipDataset,
    first_steps: Sequence[int],
    steps: Sequence[int],
    seed: int = 0,
    progress: Progress = iter,
    **options: Any,
) -> dict[str, list[dict[str, Any]]]:
    """Figure 7: the steps of first frames varied while later ones take the checkpoint's, and the other way round.

    Returns:
        "first_steps" and "steps" → for each value what `evaluate_video` returns, and "value".
    """
    rows: dict[str, list[dict[str, Any]]] = {"first_steps": [], "steps": []}
    settings = [("first_steps", value) for value in first_steps] + [("steps", value) for value in steps]
    for name, value in progress(iter(settings)):
        chosen = {**defaults(segmenter), name: value}
        result = evaluate_video(segmenter, clips, seed=seed, **chosen, **options)
        rows[name].append({"value": value, **result})
    return rows


def plot(rows: dict[str, list[dict[str, Any]]], segmenter: Segmenter) -> Image.Image:
    """Figure 7; the checkpoint's own values are marked."""
    titles = {"first_steps": "steps of the first frame", "steps": "steps of the other frames"}
    panels = []
    for name, results in rows.items():
        values = [100 * result["region_contour"]["global"]["J&F-Mean"] for result in results]
        panels.append(
            Curve(titles[name], [str(r["value"]) for r in results], values, marked=str(defaults(segmenter)[name]))
        )
    return curves(panels, "J&F")
