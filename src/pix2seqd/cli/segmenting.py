"""Segment many files. Files that cannot be read are reported, and the others are still segmented."""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console
from rich.progress import TaskID
from rich.table import Column, Table
from rich.text import Text

from pix2seqd.cli.options import print_message
from pix2seqd.cli.progress import bar_with_speed
from pix2seqd.files import InputError, printable, say
from pix2seqd.images.load import Pixels, image_size, open_pixels
from pix2seqd.panoptic.extra_files import NO_FILES, ExtraFiles, read_result, remove, write_for_image
from pix2seqd.panoptic.journal import Entry
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.parts import locate
from pix2seqd.panoptic.results import PanopticWriter, write_files
from pix2seqd.panoptic.taxonomy import Taxonomy

if TYPE_CHECKING:
    from pix2seqd.segmenter import Segmenter

T = TypeVar("T")

SHOWN_SEGMENTS = 20
"""Rows of the table of segments."""

LARGE = 2**24
"""Pixels of the images that are read together, unless one of them has more."""

Todo = list[tuple[Path, str]]
"""Files, each with the name that its results get (`PanopticWriter.stem`)."""
Results = Iterator[tuple[Path, Entry | InputError | str]]
"""Files, each with the records of its result or with its error; before that maybe a note about what was left out."""


@dataclass(frozen=True)
class Job:
    """How files are segmented, and where the results go. It can be sent to other processes."""

    load: "Callable[[], Segmenter]"
    """Makes the segmenter of a process."""
    out: Path
    """The output folder."""
    settings: dict[str, Any]
    """Recorded with each result."""
    options: dict[str, Any]
    """Of `Segmenter.images`, without `batch_size`."""
    batch_size: int | None = None
    """Number of files that are read, and of windows that are computed, at a time; None: chosen automatically."""
    channel: str | None = None
    """The channel of every file; see `open_pixels`."""
    also: ExtraFiles = NO_FILES
    """Further files that are written."""


class WindowsBar:
    """A progress bar within an image of many windows, beside the one of the files."""

    MANY = 50
    """Windows; images of fewer have no bar."""

    def __init__(self, files: int) -> None:
        self.progress = bar_with_speed(disable=files < 2)
        self._task: TaskID | None = None

    def __call__(self, done: int, of: int) -> None:
        """Show how many windows of an image are done."""
        if of < self.MANY:
            return
        if self.progress.disable and self.progress.console.is_terminal:
            self.progress.disable = False
            self.progress.start()
        if self._task is None:
            self._task = self.progress.add_task("windows of this image", total=of, speed="")
        self.progress.update(self._task, completed=done, total=of)
        if done == of:
            self.progress.remove_task(self._task)
            self._task = None


def record_results(
    writer: PanopticWriter, sources: list[Path], todo: list[Path], results: Results, bar: WindowsBar
) -> int:
    """Record the results of the files `todo` and print a summary; the other `sources` of this process have results.

    Returns the number of files that could not be read.
    """
    failed = done = 0
    started = time.monotonic()
    with bar.progress as progress:
        task = progress.add_task("segmenting", total=len(todo), speed="")
        for source, entry in results:
            if isinstance(entry, InputError | str):
                print_message(progress, entry)
                if isinstance(entry, InputError):
                    failed += 1
                    progress.advance(task)
                continue
            done += 1
            writer.add(source, entry)
            speed = done / (time.monotonic() - started)
            progress.update(task, advance=1, speed=f"{speed:.1f} files/s")
    seconds = time.monotonic() - started
    if len(sources) > 1 or not todo:
        print(
            f"{done} segmented in {seconds:.1f} s ({done / max(seconds, 1e-9):.1f} files/s), "
            f"{len(sources) - len(todo)} skipped (done before with the same settings), {failed} failed"
        )
    return failed


def segment_files(
    segmenter: "Segmenter", todo: Todo, job: Job, on_window: Callable[[int, int], None] = lambda done, of: None
) -> Results:
    """Segment files in this process and write their results; `on_window` is as in `Segmenter.images`.

    While the networks compute, the next files are read and the last results are written.
    """
    chunks = _chunks(todo, job.batch_size or 8)
    with ThreadPoolExecutor(2) as pool:
        for read in _pipelined((partial(_read, chunk, job.channel) for chunk in chunks), pool):
            yield from ((source, said) for (source, _), said in read if not isinstance(said, Pixels))
            good = [(names, image) for names, image in read if isinstance(image, Pixels)]
            del read
            images = [image for _, image in good]
            results = segmenter.images(images, batch_size=job.batch_size, on_window=on_window, **job.options)
            writes = (
                partial(_write, job, stem, source, image, panoptic)
                for ((source, stem), image), panoptic in zip(good, results, strict=True)
            )
            for ((source, _), _), entry in zip(good, _pipelined(writes, pool), strict=True):
                yield source, entry


def _chunks(todo: Todo, maximum: int) -> Iterator[Todo]:
    """Files that are read together: at most `maximum`, and fewer if they are large."""
    chunk: Todo = []
    pixels = 0
    for names in todo:
        size = 0
        with suppress(Exception):  # reading it says what is wrong
            size = math.prod(image_size(names[0]))
        if chunk and (len(chunk) == maximum or pixels + size > LARGE):
            yield chunk
            chunk, pixels = [], 0
        chunk.append(names)
        pixels += size
    if chunk:
        yield chunk


def write_missing_files(
    writer: PanopticWriter, out: Path, sources: list[Path], taxonomy: Taxonomy, also: ExtraFiles
) -> int:
    """Write the further files that images segmented before lack, from their results, and print how many images.

    Returns the number of images that failed.
    """
    missing = {source: also.missing(*locate(out, writer.stem(source)), writer.also(source)) for source in sources}
    todo = [source for source in sources if missing[source].kinds]
    if not todo:
        return 0
    failed = 0
    with bar_with_speed(disable=len(todo) < 2) as progress:
        task = progress.add_task("writing further files", total=len(todo), speed="")
        for source, entry in writer.entries(todo):
            try:
                folder, _ = locate(out, writer.stem(source))
                panoptic = read_result(folder, entry, taxonomy)
                writer.add(source, write_for_image(folder, missing[source], entry, panoptic))
            except InputError as error:
                failed += 1
                print_message(progress, error)
            progress.advance(task)
    say(f"{len(todo) - failed} not segmented again: {also.names} written from the results in {out}")
    return failed


def _write(job: Job, name: str, source: Path, image: Pixels, panoptic: Panoptic) -> Entry:
    """Write all files of one image; those of an earlier segmentation of it go."""
    folder, stem = locate(job.out, name)
    remove(folder, stem)
    entry = write_files(folder, stem, source, image, panoptic, job.settings)
    return write_for_image(folder, job.also, entry, panoptic) if job.also.kinds else entry


def _read(chunk: Todo, channel: str | None) -> list[tuple[tuple[Path, str], Pixels | InputError | str]]:
    """Images, errors and notes, in the order of the files."""
    read: list[tuple[tuple[Path, str], Pixels | InputError | str]] = []
    for names in chunk:
        notes: list[str] = []
        try:
            image = open_pixels(names[0], channel, notes.append)
        except InputError as error:
            image = error
        read += [(names, result) for result in (*notes, image)]
    return read


def _pipelined(calls: Iterator[Callable[[], T]], pool: Executor) -> Iterator[T]:
    """The results of calls, in order. Each call runs in the pool while the next call is prepared.

    If preparing a call fails, the result of the call before comes first, then the error.
    """
    running: Future[T] | None = None
    try:
        for call in calls:
            previous, running = running, pool.submit(call)
            if previous:
                yield previous.result()
    except (Exception, KeyboardInterrupt):
        if running:
            yield running.result()
        raise
    if running:
        yield running.result()


def print_segments(title: str, segments: list[dict[str, Any]]) -> None:
    """Print a table of the largest segments."""
    if not segments:
        say(f"{title}: no segments, every pixel is void")
        return
    right = [Column(head, justify="right") for head in ("score", "pixels", "x", "y", "width", "height")]
    table = Table(
        Column("id", justify="right"),
        "name",
        "kind",
        *right,
        title=Text(printable(f"{title}: {len(segments)} segment{'s' * (len(segments) != 1)}")),
    )
    by_area = sorted(segments, key=lambda info: info["area"], reverse=True)
    for info in by_area[:SHOWN_SEGMENTS]:
        kind = "thing" if info["isthing"] else "stuff"
        score = f"{info['score']:.2f}" if "score" in info else ""
        numbers = (score, *map(str, (info["area"], *info["bbox"])))
        table.add_row(str(info["id"]), Text(printable(info["name"])), kind, *numbers)
    if rest := by_area[SHOWN_SEGMENTS:]:
        table.add_row("", f"and {len(rest)} smaller", "", "", str(sum(info["area"] for info in rest)))
    Console().print(table)
