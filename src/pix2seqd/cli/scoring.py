"""Functions that `pix2seqd evaluate` and `pix2seqd sweep` share."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from pix2seqd import distributed
from pix2seqd.cli.progress import tracked
from pix2seqd.files import write_json
from pix2seqd.metrics.region_contour import MAX_PROPOSALS

CLIP_FRAMES = 24
"""Number of frames of generated clips, unless the data source says it."""


def max_tracks(data: str) -> int | None:
    """Number of tracks of a clip that count in J&F: what DAVIS's protocol allows; None: all."""
    return MAX_PROPOSALS if data.startswith("davis:") else None


def progress_bar(total: int, shared: bool = True) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """A function that wraps an iterator and shows a progress bar; of several processes only the first one shows it.

    The processes share the `total` items, unless `shared` is false: then each goes through all of them.
    """
    number, count = distributed.rank(), distributed.world_size()
    own = len(range(number, total, count)) if shared else total
    return lambda items: iter(tracked(items, "scoring", own, disable=number > 0))


def report(table: RenderableType, out: Path, settings: dict[str, Any], scores: dict[str, Any]) -> None:
    """Print a table of scores, and write them with their settings as JSON."""
    Console().print(table)
    write_json(out, {"settings": settings, **scores})
