"""Segmenting many files: what is done already is skipped, what cannot be read is named, and the rest goes on."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from pix2seqd.app.media import PanopticWriter
from pix2seqd.files import InputError
from pix2seqd.preprocess import load_image

if TYPE_CHECKING:
    from pix2seqd.segmenter import Segmenter

SHOWN_SEGMENTS = 20


def segment_into(writer: PanopticWriter, segmenter: "Segmenter", sources: list[Path], options: dict[str, Any]) -> int:
    """Segment what is not done yet and say how it went; returns the number of files that could not be read."""
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
                    line = f"pix2seqd: {' '.join(str(error).split())}"
                    progress.console.print(line, markup=False, highlight=False, soft_wrap=True)
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


def _progress(files: int) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    columns = (*columns, TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=files < 2)


def print_segments(title: str, segments: list[dict[str, Any]]) -> None:
    """A table of the largest segments."""
    if not segments:
        print(f"{title}: no segments, every pixel is void")
        return
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
