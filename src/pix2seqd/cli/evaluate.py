"""The command `pix2seqd evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from pix2seqd.cli.options import CHECKPOINT_DEFAULTS, Checkpoint, Inference, count, not_none
from pix2seqd.files import InputError, require, say

if TYPE_CHECKING:
    from pix2seqd.data.sample import Dataset
    from pix2seqd.panoptic.taxonomy import Taxonomy
    from pix2seqd.segmenter import Segmenter


def evaluate(
    checkpoint: Checkpoint,
    /,
    *,
    data: str,
    group_by: str | None = None,
    every: Annotated[int, count(1)] = 1,
    tracking: Literal["model", "iou", "none"] = "model",
    first_steps: Annotated[int | None, count(1, 1000)] = None,
    adaptive: Annotated[float | None, Parameter(validator=Number(gte=0, lte=1000))] = None,
    limit: Annotated[int | None, count(1)] = None,
    out: Path = Path("evaluation.json"),
    csv: Path | None = None,
    plot: Path | None = None,
    reliability: Path | None = None,
    inference: Inference = CHECKPOINT_DEFAULTS,
) -> None:
    """Score a checkpoint on labelled images or clips.

    Images get PQ (panoptic quality), AP (average precision of objects), F1 (the harmonic mean of precision and recall)
    and mean IoU (intersection over union of classes). "AP by score" is COCO's AP, with segments sorted by their score.
    "ECE" (expected calibration error) says how far scores are from the share of segments that are right. Clips get J&F
    (regions and contours of the tracks), STQ (segmentation and tracking quality) and the number of id switches, with
    steps and frames per second. The results are printed as a table and written as JSON. For images the JSON also has
    the confusion matrix of the pixels: rows are true classes, columns predicted classes, and void stands for pixels
    without a class.

    Args:
        data: Labelled data. Images: coco:DIR[@SPLIT], folder:DIR[@SPLIT], cityscapes:DIR@SPLIT, shapes:COUNT[@SEED].
            Clips: davis:DIR@SPLIT, kitti-step:DIR@SPLIT, nuclei-clips:DIR@SPLIT:COUNT[xFRAMES],
            shapes-clips:COUNT[xFRAMES][@SEED]. See docs/datasets.md.
        group_by: For images: a key of the image records in the data set's JSON, for example modality. Images with the
            same value are also scored as a group.
        every: For clips: use every Nth frame only, so that objects move faster. 1 uses all frames.
        tracking: For clips: where ids come from. model: the model sees the past masks, as in `pix2seqd video`. iou:
            each frame is segmented by itself, then segments are matched by IoU. none: each frame is segmented by
            itself and keeps the ids that the model generated.
        first_steps: For clips: number of denoising steps of the first frame. --steps is the number for later frames.
            Default: set by the checkpoint.
        adaptive: For clips: average number of steps of a later frame. More steps are spent where the mask changes. 0
            always takes --steps. Default: set by the checkpoint.
        limit: Number of images or clips to score, evenly spread over the data. Default: all.
        out: JSON file to write.
        csv: For images: CSV file to write, with the scores of every class.
        plot: For images: PNG file to write, with the PQ of every class and the confusion matrix. It needs `pip install
            "pix2seqd[train]"`.
        reliability: For images: PNG file to write, a plot of the share of segments that are right against their score.
            It needs `pip install "pix2seqd[train]"`.
        inference: How the checkpoint is used.
    """
    from pix2seqd import distributed
    from pix2seqd.data import is_clips
    from pix2seqd.metrics.mean_iou import MAX_CONFUSED
    from pix2seqd.panoptic.results import check_files

    clips = is_clips(data)
    if (clips and group_by is not None) or (not clips and (tracking != "model" or every > 1)):
        raise InputError("--group-by is for images, --tracking and --every for clips; leave it out")
    if clips and (csv or plot or reliability):
        raise InputError("--csv, --plot and --reliability are for images; leave them out")
    for option, file in (("--plot", plot), ("--reliability", reliability)):
        if file:
            require(option, "train", "matplotlib")
            if file.suffix.lower() != ".png":
                raise InputError(f"{option} {file} must end with .png")
    tracked = _tracking_options(clips and tracking == "model", first_steps, adaptive)
    check_files(out, csv, plot, reliability)
    distributed.rank()  # from here on each process has a device of its own
    segmenter, options = inference.segmenter(checkpoint), inference.given()
    if plot and len(segmenter.taxonomy) > MAX_CONFUSED:
        raise InputError(f"--plot shows up to {MAX_CONFUSED} categories; give --csv instead")
    if clips:
        _evaluate_clips(segmenter, data, out, every, tracking, limit, {**options, **tracked})
    else:
        results = _evaluate_images(segmenter, data, out, group_by, limit, options)
        if distributed.rank() == 0:
            _write_more(results, segmenter.taxonomy, csv, plot, reliability)


def _tracking_options(allowed: bool, first_steps: int | None, adaptive: float | None) -> dict[str, float]:
    """The tracking options that were given; refused where the model does not track."""
    given = not_none(first_steps=first_steps, adaptive=adaptive)
    if given and not allowed:
        raise InputError(f"--{min(given).replace('_', '-')} is for clips with --tracking model; leave it out")
    return given


def _evaluate_images(
    segmenter: "Segmenter", data: str, out: Path, group_by: str | None, limit: int | None, options: dict[str, Any]
) -> dict[str, Any]:
    from pix2seqd import distributed
    from pix2seqd.cli.scoring import progress_bar, report
    from pix2seqd.data import open_dataset, remarks
    from pix2seqd.data.sample import Subset, subsample
    from pix2seqd.evaluation import images as run

    whole = open_dataset(data, segmenter.checkpoint.data.size)
    if distributed.rank() == 0:
        for line in remarks(whole, data):
            say(line)
    dataset = subsample(whole, limit)
    groups = _groups(whole, group_by)
    groups = [groups[i] for i in dataset.indices] if groups and isinstance(dataset, Subset) else groups
    progress = progress_bar(len(dataset))
    results = run.evaluate(segmenter, dataset, groups=groups, progress=progress, **options)
    if distributed.rank() == 0:
        settings = {**segmenter.describe(), **options, "data": data, **not_none(limit=limit)}
        report(run.render(results), out, settings, results)
        say(f"written to {out}")
    return results


def _write_more(
    results: dict[str, Any], taxonomy: "Taxonomy", csv: Path | None, plot: Path | None, reliability: Path | None
) -> None:
    """Write the tables and plots that were asked for."""
    from pix2seqd.evaluation import images as run
    from pix2seqd.evaluation import plot as plots
    from pix2seqd.files import write_atomically, write_png

    every = results["all"]
    if csv:
        with write_atomically(csv) as temporary:
            table = run.class_table(results, taxonomy)
            temporary.write_text(table, encoding="utf-8", errors="backslashreplace", newline="")
    if plot:
        rows = every["panoptic_quality"]["per_class"].values()
        scores = plots.scores([row["name"] for row in rows], [row["pq"] for row in rows], **every["confusion"])
        write_png(plot, scores)
    if reliability:
        write_png(reliability, plots.reliability(every["detection_ap"]["reliability"]))
    for path in filter(None, (csv, plot, reliability)):
        say(f"written to {path}")


def _groups(dataset: "Dataset", key: str | None) -> list[str] | None:
    """The value of `key` in each image record of the data set's JSON."""
    if key is None:
        return None
    records = getattr(dataset, "records", [])
    if not records or any(key not in record for record in records):
        raise InputError(f"not every image record of the data set has the key {key!r}; choose another --group-by")
    return [str(record[key]) for record in records]


def _evaluate_clips(
    segmenter: "Segmenter",
    data: str,
    out: Path,
    every: int,
    tracking: Literal["model", "iou", "none"],
    limit: int | None,
    options: dict[str, Any],
) -> None:
    from pix2seqd import distributed
    from pix2seqd.cli.scoring import CLIP_FRAMES, max_tracks, progress_bar, report
    from pix2seqd.data import open_clips
    from pix2seqd.data.clips import every_nth
    from pix2seqd.data.sample import subsample
    from pix2seqd.evaluation import clips as run

    clips = every_nth(subsample(open_clips(data, segmenter.size, CLIP_FRAMES), limit), every)
    result = run.evaluate_video(
        segmenter, clips, tracking=tracking, max_tracks=max_tracks(data), progress=progress_bar(len(clips)), **options
    )
    if distributed.rank() > 0:
        return
    settings = {**segmenter.describe(clip=True), "every": every, "tracking": tracking, **options, "data": data}
    settings |= not_none(limit=limit)
    report(run.render({tracking: result}), out, settings, result)
    say(f"written to {out}")
