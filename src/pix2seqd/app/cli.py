"""The command `pix2seqd`. Each subcommand is a function; what is heavy is imported when a subcommand needs it."""

import math
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from pix2seqd.files import InputError

if TYPE_CHECKING:
    from rich.progress import Progress

    from pix2seqd.app.media import PanopticWriter
    from pix2seqd.segmenter import Segmenter

SHOWN_SEGMENTS = 20

app = App(
    name="pix2seqd",
    help="Panoptic segmentation of pictures by bit diffusion (Pix2Seq-D).",
    version=lambda: version("pix2seqd"),
    exit_on_error=False,  # `main` turns errors into one line
    print_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)


def main() -> None:
    """Run the command line: exit code 0, 2 after bad input, 130 after Ctrl-C; no traceback for either."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # names a terminal cannot show
    try:
        sys.exit(app() or 0)
    except (InputError, CycloptsError) as error:
        print(_line(error), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("pix2seqd: interrupted; what is finished is kept and the same command goes on", file=sys.stderr)
        sys.exit(130)


def _line(error: Exception) -> str:
    return f"pix2seqd: {' '.join(str(error).split())}"


def _whole(_: type, tokens: Sequence[Any]) -> int:
    """Strict, where cyclopts would round 2.5."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value!r} is not a whole number.") from None


def _count(least: int, most: float = math.inf) -> Parameter:
    return Parameter(converter=_whole, validator=Number(gte=least, lte=most))


@app.command(usage="Usage: pix2seqd segment FILE|FOLDER... [OPTIONS]")
def segment(
    *pictures: Path,
    model: str = "nuclei",
    out: Path = Path("pix2seqd-out"),
    steps: Annotated[int | None, _count(1, 1000)] = None,
    td: Annotated[float | None, Parameter(validator=Number(gte=0, lte=1000))] = None,
    seed: Annotated[int, _count(0, 2**63 - 1)] = 0,
    min_pixels: Annotated[int | None, _count(0)] = None,
    batch_size: Annotated[int | None, _count(1)] = None,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
) -> int:
    """Segment pictures; the result is a data set in COCO panoptic format, with an overlay for each picture.

    OUT receives panoptic.json, panoptic/STEM.png (segment ids), overlay/STEM.png (for the eye) and images/ (copies).
    Pictures that are done already with the same settings are skipped, so an interrupted run goes on where it was.

    Args:
        pictures: picture files, and folders whose pictures are taken (without subfolders).
        model: a bundled model (nuclei, shapes), a checkpoint folder, or an id on the Hugging Face hub.
        out: folder to write to.
        steps: denoising steps; more is slower and finer. Default: the checkpoint's.
        td: time difference of the asymmetric time intervals (section 3.3). Default: the checkpoint's.
        seed: start of the random numbers; the same seed gives the same result.
        min_pixels: smaller segments are dropped. Default: the checkpoint's.
        batch_size: pictures at a time; changes the speed, not the result.
        device: where to compute; auto takes a GPU if there is one.
        dtype: precision; auto takes what suits the device.
    """
    from pix2seqd.app.media import PanopticWriter, find_pictures, make_folders
    from pix2seqd.preprocess import load_image

    sources = find_pictures(pictures)
    if not sources:
        raise InputError("nothing to segment; give a picture or a folder of pictures")
    if len(sources) == 1:
        load_image(sources[0])  # a mistyped name is told before the model is loaded
    make_folders(out)
    from pix2seqd.segmenter import Segmenter

    segmenter = Segmenter.from_pretrained(model, device=device, dtype=dtype)
    options = {"seed": seed, "steps": steps, "td": td, "min_pixels": min_pixels}
    with PanopticWriter(out, segmenter.taxonomy, {"model": model, **options}) as writer:
        failed = _segment_into(writer, segmenter, sources, {**options, "batch_size": batch_size})
        if len(sources) == 1:
            _print_segments(sources[0].name, writer.segments(sources[0]))
    print(f"written to {out}: panoptic.json, panoptic/, overlay/, images/")
    return 2 if failed else 0


def _segment_into(
    writer: "PanopticWriter", segmenter: "Segmenter", sources: list[Path], options: dict[str, Any]
) -> int:
    """Segment what is not done yet and say how it went; returns the number of files that could not be read."""
    from pix2seqd.preprocess import load_image

    todo = [source for source in sources if not writer.is_done(source)]
    batch = options["batch_size"] or 8
    failed = 0
    started = time.monotonic()
    with _progress(len(todo)) as progress:
        task = progress.add_task("segmenting", total=len(todo), speed="")
        for start in range(0, len(todo), batch):
            images = {}
            for source in todo[start : start + batch]:
                try:
                    images[source] = load_image(source)
                except InputError as error:
                    failed += 1
                    progress.console.print(_line(error), markup=False, highlight=False, soft_wrap=True)
                    progress.advance(task)
            for (source, image), panoptic in zip(
                images.items(), segmenter.images(list(images.values()), **options), strict=True
            ):
                writer.write(source, image, panoptic)
                speed = (progress.tasks[task].completed + 1) / (time.monotonic() - started)
                progress.update(task, advance=1, speed=f"{speed:.1f} files/s")
    seconds = time.monotonic() - started
    if len(sources) > 1 or not todo:
        done = len(todo) - failed
        print(
            f"{done} segmented in {seconds:.1f} s ({done / max(seconds, 1e-9):.1f} files/s), "
            f"{len(sources) - len(todo)} skipped (done before with the same settings), {failed} failed"
        )
    return failed


def _progress(files: int) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    columns = (*columns, TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=files < 2)


def _print_segments(title: str, segments: list[dict[str, Any]]) -> None:
    """A table of the largest segments."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    right = [Column(head, justify="right") for head in ("pixels", "x", "y", "width", "height")]
    table = Table(
        Column("id", justify="right"), "name", "kind", *right, title=Text(f"{title}: {len(segments)} segments")
    )
    by_area = sorted(segments, key=lambda info: info["area"], reverse=True)
    for info in by_area[:SHOWN_SEGMENTS]:
        kind = "thing" if info["isthing"] else "stuff"
        table.add_row(str(info["id"]), Text(info["name"]), kind, str(info["area"]), *map(str, info["bbox"]))
    if rest := by_area[SHOWN_SEGMENTS:]:
        table.add_row("", f"and {len(rest)} smaller", "", str(sum(info["area"] for info in rest)))
    Console().print(table)
