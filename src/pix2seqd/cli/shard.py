"""The command `pix2seqd shard`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from pix2seqd.cli.options import count
from pix2seqd.files import say


def shard(
    source: str,
    out: Path,
    /,
    *,
    megabytes: Annotated[float, Parameter(validator=Number(gt=0))] = 1000,
    jpeg: Annotated[int | None, count(1, 100)] = None,
) -> None:
    """Write a data set as WebDataset shards.

    Shards are a few large files. They suit data sets that are larger than a disk, or that lie on a slow file system.

    Args:
        source: A data set of images, for example coco:DIR@train. See docs/datasets.md.
        out: Folder to write to. To train on it: --train-data shards:OUT.
        megabytes: Size of a shard, in MB. A new shard begins when this size is exceeded.
        jpeg: Store images as JPEG of this quality, 1 to 100. Default: PNG, which is lossless.
    """
    from pix2seqd.cli.progress import tracked
    from pix2seqd.data import open_dataset
    from pix2seqd.data.shards import write_shards

    dataset = open_dataset(source, (128, 128))
    samples = (dataset[index] for index in range(len(dataset)))
    shown = tracked(samples, "sharding", len(dataset))
    number = write_shards(dataset.taxonomy, shown, out, megabytes, jpeg)
    say(f"written to {out}: {len(dataset):,} samples in {number:,} shards; train on shards:{out}")
