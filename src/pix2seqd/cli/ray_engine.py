"""Segmenting many files on a Ray cluster; Ray starts a lost worker's files anew, and only those."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pix2seqd.cli.segmenting import Results, locally
from pix2seqd.files import InputError

if TYPE_CHECKING:
    from pix2seqd.segmenter import Segmenter


class Worker:
    """An actor: a segmenter, loaded once, that takes batches of files."""

    def __init__(self, load: "Callable[[], Segmenter]", out: str, settings: dict[str, Any], options: dict[str, Any]):
        self.segmenter, self.out, self.settings, self.options = load(), Path(out), settings, options

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Rows of `source` and `stem` → rows of `source` and either `entry`, as JSON, or `error`."""
        todo = [(Path(source), stem) for source, stem in zip(batch["source"], batch["stem"], strict=True)]
        rows: dict[str, list[str]] = {"source": [], "entry": [], "error": []}
        for source, entry in locally(self.segmenter, self.out, todo, self.settings, self.options):
            failed = isinstance(entry, InputError)
            rows["source"].append(str(source))
            rows["entry"].append("" if failed else json.dumps(entry))
            rows["error"].append(str(entry) if failed else "")
        return rows


def on_ray(
    load: "Callable[[], Segmenter]",
    out: Path,
    todo: list[tuple[Path, str]],
    settings: dict[str, Any],
    options: dict[str, Any],
    workers: int,
) -> Results:
    """Like `locally`, on `workers` actors of the cluster that RAY_ADDRESS names, or of this machine.

    Files and `out` must be reachable under the same paths on every machine of the cluster.

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
    # A block is what Ray repeats when a worker dies.
    data = ray.data.from_items(items, override_num_blocks=-(-len(items) // batch))
    rows = data.map_batches(
        Worker,  # pyright: ignore[reportArgumentType]
        fn_constructor_args=(load, str(out.absolute()), settings, options),
        batch_size=batch,
        concurrency=workers,
        max_restarts=-1,
        max_task_retries=-1,
    )
    for row in rows.iter_rows():
        error = InputError(row["error"]) if row["error"] else None
        yield names[row["source"]], error or tuple(json.loads(row["entry"]))
