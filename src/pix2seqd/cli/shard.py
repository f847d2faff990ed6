"""The command `pix2seqd shard`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from pix2seqd.cli.options import count


def shard(
    source: str,
    out: Path,
    /,
    *,
    megabytes: Annotated[float, Parameter(validator=Number(gt=0))] = 1000,
    jpeg: Annotated[int | None, count(1, 100)] = None,
) -> None:
    """Write a data set as WebDataset shards: few large files, for data beyond one disk or on slow file systems.

    Args:
        source: any data set, e.g. coco:DIR@train.
        out: folder to write to; train on shards:OUT (extra `shards`).
        megabytes: a shard that is larger is closed.
        jpeg: quality of the pictures as JPEG. Default: PNG, which loses nothing.
    """
    from rich.console import Console
    from rich.progress import track

    from pix2seqd.data import open_dataset
    from pix2seqd.data.shards import write_shards

    dataset = open_dataset(source, (128, 128))
    samples = (dataset[index] for index in range(len(dataset)))
    console = Console(stderr=True)
    shown = track(samples, "sharding", total=len(dataset), console=console, transient=True)
    number = write_shards(dataset.taxonomy, shown, out, megabytes, jpeg)
    print(f"written to {out}: {len(dataset):,} samples in {number:,} shards; train on shards:{out}")
