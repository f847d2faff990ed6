"""Further files beside the segmentations of an output folder, for other tools: what `--also` names."""

import base64
import csv
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pix2seqd.files import InputError, encoded, json_line, write_atomically
from pix2seqd.images.load import Channel, decoding, load_channels
from pix2seqd.images.tiff import write_labels
from pix2seqd.panoptic import exports
from pix2seqd.panoptic.journal import Entry
from pix2seqd.panoptic.measure import measures
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.results import writing
from pix2seqd.panoptic.taxonomy import Taxonomy

PLACES = {
    "measures": ("measures", ".csv"),
    "labels": ("labels", ".tif"),
    "coco": ("instances", ".json"),
    "geojson": ("geojson", ".geojson"),
    "rois": ("rois", ".zip"),
    "labelme": ("labelme", ".json"),
}
"""Kinds of further files → folder and suffix of the files of single images."""
IN_MICROMETRES = ("measures", "labels", "geojson")
"""Kinds whose files depend on the size of a pixel."""
FOLDER_FILES = {"measures": ("measures.csv", "counts.csv", "track_measures.csv"), "coco": ("instances.json",)}
"""The files of a whole folder, which are merged from those of its images (`panoptic.collect`)."""
UNITS = {"um": 1.0, "µm": 1.0, "μm": 1.0, "nm": 0.001}  # two characters for the same sign are in use
"""Micrometres of each unit of a pixel size."""
PIXEL_SIZES = 1e-4, 1e6
"""Smallest and largest size of a pixel, in micrometres."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""Characters with which a formula begins in a spreadsheet program, or which it leaves out before one."""


@dataclass(frozen=True)
class ExtraFiles:
    """The further files that are written for each segmentation."""

    kinds: tuple[str, ...] = ()
    """Names of `PLACES`, in its order."""
    pixel_size: float | None = None
    """Micrometres of a pixel's side; None: unknown."""

    @classmethod
    def parse(cls, kinds: str | None, pixel_size: str | None, *more: str, stack: bool = False) -> "ExtraFiles":
        """From the options --also, names with commas between them, and --pixel-size, a number with its unit, or None.

        The caller knows `more` names of --also. If a `stack` of depths is written, its files have the pixel size too.
        An unknown name or unit, or a size that nothing needs, is an `InputError`.
        """
        names = [name.strip() for name in kinds.split(",")] if kinds is not None else []
        for name in names:
            if name not in (*PLACES, *more):
                raise InputError(f"--also {kinds}: there is no {name!r}; give any of {','.join((*PLACES, *more))}")
        size = None if pixel_size is None else micrometres("--pixel-size", pixel_size)
        if size is not None and not stack and not set(names) & set(IN_MICROMETRES):
            raise InputError(f"--pixel-size needs --also with any of {','.join(IN_MICROMETRES)}")
        return cls(tuple(kind for kind in PLACES if kind in names), size)

    def without(self, kind: str) -> "ExtraFiles":
        """The same kinds except one."""
        return ExtraFiles(tuple(each for each in self.kinds if each != kind), self.pixel_size)

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders that are written to, below the output folder."""
        return tuple(PLACES[kind][0] for kind in self.kinds)

    @property
    def names(self) -> str:
        """Names of the files and folders, for messages."""
        whole = [name for kind in self.kinds for name in FOLDER_FILES.get(kind, ())[:2]]
        return ", ".join([*whole, *(f"{folder}/" for folder in self.folders)])

    def record(self) -> dict[str, float | None]:
        """Each kind with the pixel size of its files, as JSON values; an image's entry in panoptic.json keeps it."""
        return {kind: self.pixel_size if kind in IN_MICROMETRES else None for kind in self.kinds}

    def paths(self, out: Path, stem: str) -> dict[str, Path]:
        """The files of one image in the folder, by their names in `PLACES`."""
        return {kind: path_of(out, kind, stem) for kind in self.kinds}

    def missing(self, out: Path, stem: str, written: Mapping[str, Any]) -> "ExtraFiles":
        """The kinds that an image lacks, if `written` is what its entry in panoptic.json lists (`record`)."""
        missing = (
            kind
            for kind, size in self.record().items()
            if kind not in written or written[kind] != size or not path_of(out, kind, stem).is_file()
        )
        return ExtraFiles(tuple(missing), self.pixel_size)


NO_FILES = ExtraFiles()
"""No further files."""


def remove(out: Path, stem: str) -> None:
    """Remove all further files of an image, before it gets another segmentation."""
    with writing(out):
        for kind in PLACES:
            path_of(out, kind, stem).unlink(missing_ok=True)


def remove_all(out: Path) -> None:
    """Remove the further files of all frames, and those of the whole folder."""
    with writing(out):
        for kind, (folder, suffix) in PLACES.items():
            for path in (out / folder).glob(f"*{suffix}"):
                if path.stem.isdecimal():
                    path.unlink()
            for name in FOLDER_FILES.get(kind, ()):
                (out / name).unlink(missing_ok=True)


def write_further(
    paths: Mapping[str, Path],
    record: Mapping[str, Any],
    panoptic: Panoptic,
    channels: Callable[[], Iterable[Channel]],
    pixel_size: float | None = None,
    shown: Image.Image | None = None,
) -> None:
    """Write the further files of one image or frame; an `InputError` if the image cannot be read, or writing failed.

    Args:
        paths: the files, by their names in `PLACES`; their folders exist.
        record: the image's entry in the list `images` of panoptic.json.
        panoptic: its segmentation.
        channels: reads the image's channels.
        pixel_size: micrometres of a pixel's side; None: unknown.
        shown: the image, to become a part of labelme's file; None: that names the copy in images/.
    """
    table: dict[str, np.ndarray] = {}
    if {"measures", "geojson"} & paths.keys():
        table = measures(panoptic.segmentation, panoptic.segments, channels(), pixel_size)
    things: exports.Outlined = []
    if {"geojson", "rois", "labelme"} & paths.keys():
        things = exports.outlined(panoptic.segmentation, panoptic.segments)
    for kind, path in paths.items():
        with write_atomically(path) as temporary:
            match kind:
                case "measures":
                    write_rows(temporary, {**first_columns(record), **table}, len(panoptic.segments))
                case "labels":
                    labels = panoptic.select(lambda segment: segment.isthing).segmentation
                    write_labels(temporary, labels, pixel_size)
                case "coco":
                    content = {"images": [{**coco_image(record), "id": 1}], "annotations": panoptic.to_instances()}
                    _write_json(temporary, {**content, "categories": panoptic.taxonomy.to_coco()})
                case "geojson":
                    _write_json(temporary, exports.to_geojson(things, panoptic.taxonomy, table))
                case "rois":
                    from roifile import roiwrite

                    frame = record["id"] if "time" in record else 0
                    roiwrite(temporary, exports.to_rois(things, frame), mode="w")
                case "labelme":
                    name = f"{path.stem}.png" if shown else f"../images/{record['file_name']}"
                    data = base64.b64encode(encoded(shown)).decode() if shown else None
                    _write_json(temporary, exports.to_labelme(things, panoptic.segmentation.shape, name, data))


def write_for_image(out: Path, also: ExtraFiles, entry: Entry, panoptic: Panoptic) -> Entry:
    """Write the further files of an image whose result is in `out`; returns its records, which say what is written."""
    record, annotation = entry
    channels = partial(load_channels, out / "images" / record["file_name"])
    write_further(also.paths(out, _stem(entry)), record, panoptic, channels, also.pixel_size)
    return {**record, "also": {**record.get("also", {}), **also.record()}}, annotation


def read_result(out: Path, entry: Entry, taxonomy: Taxonomy) -> Panoptic:
    """The segmentation of an image in the folder; an `InputError` if it is not what panoptic.json describes."""
    path = out / "panoptic" / entry[1]["file_name"]
    try:
        with decoding(str(path)), Image.open(path, formats=["PNG"]) as png:
            return Panoptic.from_coco(png.convert("RGB"), entry[1], taxonomy)
    except InputError as error:
        raise InputError(f"{path} is not what panoptic.json describes; delete it and repeat the command") from error


def micrometres(option: str, text: str) -> float:
    """A length in micrometres, from a number with its unit; an `InputError`, which names the option, if it is none."""
    match = re.fullmatch(rf"([0-9]+\.?[0-9]*|\.[0-9]+) ?({'|'.join(UNITS)})", text.strip())
    size = float(f"{float(match[1]) * UNITS[match[2]]:.12g}") if match else 0.0
    if not PIXEL_SIZES[0] <= size <= PIXEL_SIZES[1]:
        raise InputError(f"{option} {text} is not a size from 0.1nm to 1000000um; give it as 0.65um or 650nm")
    return size


def path_of(out: Path, kind: str, stem: str) -> Path:
    """The file of one image."""
    folder, suffix = PLACES[kind]
    return out / folder / f"{stem}{suffix}"


def _stem(entry: Entry) -> str:
    return Path(entry[1]["file_name"]).stem


def first_columns(record: Mapping[str, Any]) -> dict[str, Any]:
    """The first columns of an image's rows; a frame has a time."""
    return {"frame": record["id"], "time": record["time"]} if "time" in record else {"image": record["file_name"]}


def coco_image(record: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of an image's entry in panoptic.json that COCO's list `images` has."""
    return {key: record[key] for key in ("id", "file_name", "width", "height")}


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json_line(content), encoding="utf-8")


def write_rows(path: Path, table: Mapping[str, Any], count: int) -> None:
    """A CSV file of columns; a single value stands in every row."""
    columns = [value if isinstance(value, list | np.ndarray) else [value] * count for value in table.values()]
    with csv_writer(path) as writer:
        writer.writerow(table)
        writer.writerows(map(cell, row) for row in zip(*columns, strict=True))


@contextmanager
def csv_writer(path: Path) -> Iterator[Any]:
    """A writer of the `csv` module for a new file; bytes of names that are not text become escapes."""
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        yield csv.writer(file, lineterminator="\n")


def cell(value: Any) -> str:
    """A value as it stands in a CSV file: numbers with ten digits, nothing for NaN and None, names as `escaped`."""
    if value is None:
        return ""
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else f"{value:.10g}"
    return str(value)


def escaped(value: str) -> str:
    """A name, after an apostrophe if a spreadsheet program would otherwise compute it."""
    return f"'{value}" if value.startswith(FORMULA_STARTS) else value
