"""The command `pix2seqd sweep`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pix2seqd.cli.options import Checkpoint, Device, Dtype, TrustSize, count, numbers
from pix2seqd.files import InputError, require, say

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.table import Table

    from pix2seqd.segmenter import Segmenter

WholeNumbers = Annotated[tuple[int, ...], numbers(int, 0)]


def sweep(
    checkpoint: Checkpoint,
    /,
    *,
    data: str,
    steps: WholeNumbers = (),
    first_steps: WholeNumbers = (),
    td: Annotated[tuple[float, ...], numbers(float, 0)] = (),
    min_pixels: WholeNumbers = (),
    seed: Annotated[int, count(0, 2**63 - 1)] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    trust_size: TrustSize = False,
    out: Path = Path("sweep.json"),
) -> None:
    """Score a checkpoint with many inference settings.

    On images this is the paper's Figure 6, on clips Figure 7. One setting varies at a time, the others stay as the
    checkpoint sets them. The scores are printed and written as JSON. A plot is written beside it as PNG.

    Args:
        data: Labelled images or clips, as for `pix2seqd evaluate`.
        steps: Numbers of denoising steps, separated by commas, for example 1,2,5,10,20. On clips: those of all frames
            but the first.
        first_steps: On clips: numbers of denoising steps of the first frame, separated by commas.
        td: On images: time differences of the paper's asymmetric time intervals (section 3.3), in steps, separated by
            commas, for example 0,1,2,3.
        min_pixels: On images: sizes of the smallest segment, in pixels, separated by commas, for example 0,40,80.
        seed: Seed of the random noise.
        out: JSON file to write.
    """
    from pix2seqd import distributed
    from pix2seqd.cli.scoring import report
    from pix2seqd.data import is_clips
    from pix2seqd.files import write_png
    from pix2seqd.panoptic.results import check_files
    from pix2seqd.segmenter import Segmenter

    clips = is_clips(data)
    if clips and (td or min_pixels or not (steps or first_steps)):
        raise InputError("on clips --steps and --first-steps vary; give for instance --first-steps 1,8 --steps 1,8")
    if not clips and (first_steps or not (steps or td or min_pixels)):
        raise InputError("on images give --steps 1,2,5,10,20 or --td 0,1,2,3 or --min-pixels 0,40,80, or several")
    require("the plot of a sweep", "train", "matplotlib")
    check_files(out, out.with_suffix(".png"))
    distributed.rank()  # from here on each process has a device of its own
    segmenter = Segmenter.from_pretrained(checkpoint, device, dtype, trust_size=trust_size)
    if clips:
        scores, table, plot = _sweep_clips(segmenter, data, first_steps, steps, seed)
    else:
        scores, table, plot = _sweep_images(segmenter, data, {"steps": steps, "td": td, "min_pixels": min_pixels}, seed)
    if distributed.rank() == 0:
        report(table, out, {**segmenter.describe(clip=clips), "data": data, "seed": seed}, scores)
        write_png(out.with_suffix(".png"), plot())
        say(f"written to {out} and {out.with_suffix('.png')}")


def _sweep_images(
    segmenter: "Segmenter", data: str, values: Mapping[str, Sequence[float]], seed: int
) -> tuple[dict[str, Any], "Table", "Callable[[], Image]"]:
    from pix2seqd.cli.scoring import progress_bar
    from pix2seqd.data import open_dataset
    from pix2seqd.evaluation import sweep as run

    dataset = open_dataset(data, segmenter.checkpoint.data.size)
    rows = run.sweep(segmenter, dataset, values, seed, progress_bar(len(dataset)))
    return {"rows": rows}, run.render(rows), partial(run.plot, rows, segmenter)


def _sweep_clips(
    segmenter: "Segmenter", data: str, first_steps: Sequence[int], steps: Sequence[int], seed: int
) -> tuple[dict[str, Any], "Table", "Callable[[], Image]"]:
    from pix2seqd.cli.scoring import CLIP_FRAMES, max_tracks, progress_bar
    from pix2seqd.data import open_clips
    from pix2seqd.evaluation import clips as run

    clips = open_clips(data, segmenter.size, CLIP_FRAMES)
    progress = progress_bar(len(first_steps) + len(steps), shared=False)
    rows = run.sweep_steps(segmenter, clips, first_steps, steps, seed, progress, max_tracks=max_tracks(data))
    table = run.render({f"{name} {row['value']}": row for name in rows for row in rows[name]})
    return rows, table, partial(run.plot, rows, segmenter)
