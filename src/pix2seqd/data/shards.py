"""Shards: many samples in few tar files of the package `webdataset` (extra `shards`), with an index for random access.

| path | content |
|---|---|
| `shard-000000.tar`, ... | per sample `NUMBER.png` or `NUMBER.jpg` (image), `NUMBER.panoptic.png` (as COCO's), \
`NUMBER.json` (name, notes and `segments_info`) |
| `index.json` | `categories` (as COCO's) and `shards`: file and where each sample begins and ends |
"""

import io
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pix2seqd.data.sample import Sample
from pix2seqd.files import InputError, encoded, is_file, read_json, require, write_json, write_together
from pix2seqd.images.jpeg import check_scans
from pix2seqd.images.load import check_pixels, decoding, open_image
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy

_DAMAGED = (
    *(OSError, SyntaxError, tarfile.TarError, RecursionError, OverflowError),
    *(AttributeError, KeyError, TypeError, ValueError),
)
INDEX = "index.json"
MAX_SAMPLE = 2**30
"""Bytes of the largest sample that is read."""
SHUFFLED_TOGETHER = 8
"""Shards whose samples an epoch mixes: it reads so many files at a time."""


class Shards:
    """The samples of a folder of shards, in the order they were written. A `Dataset`.

    The index says where each sample lies, so any sample is one read: what a training sees, and in which order, depends
    on (seed, epoch, position) as with every other data set, whatever the number of workers and processes.
    """

    def __init__(self, directory: str | Path) -> None:
        """Read the index; shards are read sample by sample, and may be links to other disks.

        An `InputError` says that `webdataset`, the index or a shard is missing, or that the index is damaged.
        """
        require("reading shards", "shards", "webdataset")
        self.directory = Path(directory)
        if not (self.directory / INDEX).is_file():
            raise InputError(f"{self.directory / INDEX} is missing; write shards with pix2seqd shard")
        content = read_json(self.directory / INDEX)
        try:
            self.taxonomy = Taxonomy.from_coco(content["categories"])
            self._files = [self.directory / _file_name(shard["file"]) for shard in content["shards"]]
            self._offsets = [_offsets(shard["offsets"]) for shard in content["shards"]]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{self.directory / INDEX} is damaged ({error}); write the shards again") from error
        self._starts = np.cumsum([0, *(len(offsets) - 1 for offsets in self._offsets)])
        for file in self._files:
            if not is_file(file):
                raise InputError(f"{file} is missing; fetch it, or link to where it is")

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Sample:
        """The sample as it was written; an `InputError` if the shard is damaged."""
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        shard = int(np.searchsorted(self._starts, index, "right")) - 1
        start, stop = self._offsets[shard][index - self._starts[shard] :][:2].tolist()
        try:
            with self._files[shard].open("rb") as file:
                if stop > file.seek(0, os.SEEK_END) or stop - start > MAX_SAMPLE:
                    raise ValueError(stop)
                file.seek(start)
                (item,) = _items(file.read(stop - start))
            record = json.loads(item["json"])
            with decoding(f"{self._files[shard]}, byte {start}"):
                mask, image = (
                    open_image(io.BytesIO(content))
                    for content in (item["panoptic.png"], item.get("png") or item["jpg"])
                )
                check_pixels(*mask.size)
                check_pixels(*image.size)
                if (image.mode, image.size) != ("RGB", mask.size):
                    raise ValueError(image.mode)
                if image.format == "JPEG":
                    check_scans(item["jpg"])
            panoptic = Panoptic.from_coco(mask, record, self.taxonomy)
            return Sample(str(record["name"]), np.asarray(image), panoptic, tuple(map(str, record.get("notes", ()))))
        except _DAMAGED as error:
            raise InputError(f"{self._files[shard]} is damaged at byte {start}; fetch it again") from error

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """A random order of all samples for one epoch that reads `SHUFFLED_TOGETHER` random shards at a time."""
        shards = [np.arange(start, stop) for start, stop in zip(self._starts, self._starts[1:], strict=False)]
        drawn = rng.permutation(len(shards))
        together = (drawn[i : i + SHUFFLED_TOGETHER] for i in range(0, len(drawn), SHUFFLED_TOGETHER))
        return np.concatenate([rng.permutation(np.concatenate([shards[i] for i in group])) for group in together])


def write_shards(
    taxonomy: Taxonomy, samples: Iterable[Sample], out: str | Path, megabytes: float, quality: int | None = None
) -> int:
    """Write samples, in this order, as shards in the folder `out`; returns the number of shards.

    A shard that is larger than `megabytes` is closed. `quality`, 1..100, is that of JPEG images; None writes PNG, which
    loses nothing. If this fails or is interrupted, `out` is left as it was, see `write_together`. Shards in `out` and a
    sample that cannot be read are an `InputError`.
    """
    shards: list[dict[str, Any]] = []
    with write_together(Path(out)) as stage:
        if there := [path for path in (Path(out) / INDEX, *Path(out).glob("shard-*.tar")) if path.exists()]:
            raise InputError(f"{out} has shards already ({there[0].name}); choose another folder")
        rest = iter(samples)
        waiting, number = next(rest, None), 0
        while waiting:
            name = f"shard-{len(shards):06d}.tar"
            with tarfile.open(stage / name, "w", format=tarfile.USTAR_FORMAT) as tar:
                offsets = [tar.offset]
                while waiting and offsets[-1] < megabytes * 10**6:
                    for suffix, content in _content(waiting, number, quality):
                        member = tarfile.TarInfo(f"{number:09d}.{suffix}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
                    offsets.append(tar.offset)
                    waiting, number = next(rest, None), number + 1
            shards.append({"file": name, "offsets": offsets})
        write_json(stage / INDEX, {"categories": taxonomy.to_coco(), "shards": shards})
    return len(shards)


def _content(sample: Sample, number: int, quality: int | None) -> Iterator[tuple[str, bytes]]:
    """Suffixes and contents of a sample's files."""
    image = Image.fromarray(sample.image)
    yield ("png", encoded(image, "PNG")) if quality is None else ("jpg", encoded(image, "JPEG", quality=quality))
    yield "panoptic.png", encoded(sample.panoptic.to_png(), "PNG")
    annotation = sample.panoptic.annotation(number, f"{number:09d}.panoptic.png")
    record = {"name": sample.name, "notes": list(sample.notes), **annotation}
    yield "json", json.dumps(record, ensure_ascii=False).encode()


def _file_name(given: str) -> str:
    """A name of a file in the same folder; a `ValueError` if it leads elsewhere."""
    if set(given) & {"/", "\\"} or given in ("", ".."):
        raise ValueError(f"{given[:100]!r} is no name of a shard")
    return given


def _offsets(given: list[int]) -> np.ndarray:
    """Where the samples of a shard begin, and the end; a `ValueError` if they do not ascend."""
    offsets = np.array(given, np.int64)
    if offsets.ndim != 1 or not len(offsets) or offsets[0] < 0 or (np.diff(offsets) <= 0).any():
        raise ValueError("offsets that do not ascend")
    return offsets


def _items(part: bytes) -> Iterator[dict[str, bytes]]:
    """Suffix → content of the samples in a part of a tar file; a `ValueError` or `TarError` if it is no plain one.

    webdataset reads shards from their beginning only, so it is given the part that holds the sample as a shard. It
    also unpacks compressed and sparse files, of any size; `write_shards` writes none.
    """
    from webdataset.tariterators import group_by_keys, tar_file_expander

    at, block = 0, tarfile.BLOCKSIZE
    while at < len(part) and part[at]:  # zeros are the end
        member = tarfile.TarInfo.frombuf(part[at : at + block], "utf-8", "strict")
        if not member.name[:1].isdigit() or member.type != tarfile.REGTYPE or not 0 <= member.size <= len(part):
            raise ValueError(member.name)
        at += block * (1 + -(-member.size // block))
    return group_by_keys(tar_file_expander([{"url": "", "stream": io.BytesIO(part)}]))
