"""Segment many files on a Ray cluster. Ray repeats the files of a lost worker, and only those."""

import json
from pathlib import Path
from typing import Any

from pix2seqd.cli.segmenting import Job, Results, Todo, segment_files
from pix2seqd.files import InputError


class Worker:
    """A Ray actor that loads the segmenter once and segments batches of files."""

    def __init__(self, job: Job):
        self.segmenter, self.job = job.load(), job

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Rows of `source` and `stem` → rows of `source` and one of `entry`, as JSON, `error` and `note`."""
        todo = [(Path(source), stem) for source, stem in zip(batch["source"], batch["stem"], strict=True)]
        rows: dict[str, list[str]] = {"source": [], "entry": [], "error": [], "note": []}
        for source, entry in segment_files(self.segmenter, todo, self.job):
            rows["source"].append(str(source))
            rows["entry"].append("" if isinstance(entry, InputError | str) else json.dumps(entry))
            rows["error"].append(str(entry) if isinstance(entry, InputError) else "")
            rows["note"].append(entry if isinstance(entry, str) else "")
        return rows


def on_ray(job: Job, todo: Todo, workers: int) -> Results:
    """Segment files on `workers` actors of the cluster that RAY_ADDRESS names, otherwise of this machine.

    The arguments are those of `on_workers`. Every machine of the cluster must see the files and the output folder, an
    absolute path, under the same paths.
    """
    import ray  # pyright: ignore[reportMissingImports]

    batch = job.batch_size or 1
    items = [{"source": str(source.absolute()), "stem": stem} for source, stem in todo]
    names = {str(source.absolute()): source for source, _ in todo}
    # When a worker dies, Ray repeats its block.
    data = ray.data.from_items(items, override_num_blocks=-(-len(items) // batch))
    rows = data.map_batches(
        Worker,  # pyright: ignore[reportArgumentType]
        fn_constructor_args=(job,),
        batch_size=batch,
        concurrency=workers,
        max_restarts=-1,
        max_task_retries=-1,
    )
    for row in rows.iter_rows():
        error = InputError(row["error"]) if row["error"] else None
        yield names[row["source"]], error or row["note"] or tuple(json.loads(row["entry"]))
