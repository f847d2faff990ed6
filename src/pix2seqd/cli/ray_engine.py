"""Segment many files on a Ray cluster. Ray repeats the files of a lost worker, and only those."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pix2seqd.cli.segmenting import Results, locally
from pix2seqd.files import InputError
from pix2seqd.panoptic.also import NOTHING, Also

if TYPE_CHECKING:
    from pix2seqd.segmenter import Segmenter


class Worker:
    """A Ray actor that loads the segmenter once and segments batches of files."""

    def __init__(
        self,
        load: "Callable[[], Segmenter]",
        out: str,
        settings: dict[str, Any],
        options: dict[str, Any],
        channel: str | None,
        also: Also = NOTHING,
    ):
        self.segmenter, self.out, self.settings, self.options = load(), Path(out), settings, options
        self.channel, self.also = channel, also

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Rows of `source` and `stem` → rows of `source` and one of `entry`, as JSON, `error` and `note`."""
        todo = [(Path(source), stem) for source, stem in zip(batch["source"], batch["stem"], strict=True)]
        rows: dict[str, list[str]] = {"source": [], "entry": [], "error": [], "note": []}
        for source, entry in locally(
            self.segmenter, self.out, todo, self.settings, self.options, self.channel, self.also
        ):
            rows["source"].append(str(source))
            rows["entry"].append("" if isinstance(entry, InputError | str) else json.dumps(entry))
            rows["error"].append(str(entry) if isinstance(entry, InputError) else "")
            rows["note"].append(entry if isinstance(entry, str) else "")
        return rows


def on_ray(
    load: "Callable[[], Segmenter]",
    out: Path,
    todo: list[tuple[Path, str]],
    settings: dict[str, Any],
    options: dict[str, Any],
    channel: str | None,
    also: Also,
    workers: int,
) -> Results:
    """Like `locally`, but on `workers` actors of the cluster that RAY_ADDRESS names, otherwise of this machine.

    Every machine of the cluster must see the files and `out` under the same paths.

    Raises:
        InputError: Ray is not installed.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise InputError('--engine ray needs Ray: pip install "pix2seqd[ray]"') from error
    batch = options["batch_size"] or 1
    items = [{"source": str(source.absolute()), "stem": stem} for source, stem in todo]
    names = {str(source.absolute()): source for source, _ in todo}
    # When a worker dies, Ray repeats its block.
    data = ray.data.from_items(items, override_num_blocks=-(-len(items) // batch))
    rows = data.map_batches(
        Worker,  # pyright: ignore[reportArgumentType]
        fn_constructor_args=(load, str(out.absolute()), settings, options, channel, also),
        batch_size=batch,
        concurrency=workers,
        max_restarts=-1,
        max_task_retries=-1,
    )
    for row in rows.iter_rows():
        error = InputError(row["error"]) if row["error"] else None
        yield names[row["source"]], error or row["note"] or tuple(json.loads(row["entry"]))
