"""The files of a whole output folder that `--also` names, merged from those of its images or frames."""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pix2seqd.files import InputError, json_line, leftovers, read_json, write_atomically
from pix2seqd.panoptic.extra_files import (
    FOLDER_FILES,
    ExtraFiles,
    cell,
    coco_image,
    csv_writer,
    escaped,
    first_columns,
    path_of,
    write_rows,
)
from pix2seqd.panoptic.journal import read_head, read_records, write_lists
from pix2seqd.panoptic.parts import find_parts
from pix2seqd.panoptic.results import writing

LOCK = ".also.lock"
"""Held while the files of a whole folder are written."""
IDS_OF_A_PART = 2**32
"""Part K of a result has ids of annotations above K times this, so that those of all parts differ."""
NO_MEANS = ("id", "frame", "time", "category", "orientation", "touching_border")
"""Columns of measures.csv without a mean over a track; positions have none either."""


@dataclass(frozen=True)
class Item:
    """One image or frame whose files are merged into those of the folder."""

    stem: str
    image: dict[str, Any]
    """Its entry in the list `images` of panoptic.json."""
    counts: Counter[int] = field(default_factory=Counter)
    """Category id → number of segments."""


def remove_leftovers(out: Path) -> None:
    """Remove what killed processes left of the files of a whole folder or its parts, unless one writes these now."""
    names = [name for whole in FOLDER_FILES.values() for name in whole]
    for folder in (out, *find_parts(out).values()):
        if any(leftovers(folder / name) for name in names):
            with writing(folder), suppress(Timeout), FileLock(folder / LOCK, blocking=False):
                for path in (path for name in names for path in leftovers(folder / name)):
                    path.unlink()


def collect(out: Path, also: ExtraFiles) -> None:
    """Merge the files of the images that panoptic.json says to have them into those of the whole folder.

    Several processes may do this; the last one includes what all of them have written. Files of the whole folder that
    are there already are written again, too, so that they hold nothing of a segmentation that was replaced.
    """
    there = {
        kind
        for kind, names in FOLDER_FILES.items()
        if kind in also.kinds or any((out / name).exists() for name in names)
    }
    path = out / "panoptic.json"
    if not there or not path.exists():
        return
    with writing(out), FileLock(out / LOCK):
        head = read_head(path)
        # Images come first: another process may add some meanwhile, and of each of these there is an annotation then.
        images = [{**coco_image(image), "also": image.get("also", {})} for image in read_records(path, "images")]
        seen = {
            annotation["image_id"]: (
                Path(annotation["file_name"]).stem,
                Counter(segment["category_id"] for segment in annotation["segments_info"]),
            )
            for annotation in read_records(path, "annotations")
        }
        for kind in there:
            items = [
                Item(stem, image, counts)
                for image in images
                if kind in image["also"]
                for stem, counts in [seen[image["id"]]]
            ]
            last = head.get("info", {}).get("part", 0) * IDS_OF_A_PART
            merge(out, kind, items, head["categories"], last)


def merge(
    out: Path,
    kind: str,
    items: Sequence[Item],
    categories: Sequence[Mapping[str, Any]],
    last: int = 0,
    min_frames: int = 1,
) -> None:
    """Write the files of a whole folder from those of its images, by their numbers; without images, remove them.

    Args:
        out: the folder.
        kind: one of `FOLDER_FILES`.
        items: the images; those whose file is missing are left out.
        categories: the list `categories` of panoptic.json.
        last: ids of annotations begin after this one.
        min_frames: smallest number of frames of a track in track_measures.csv.
    """
    ordered = sorted(items, key=lambda item: item.image["id"])
    found = [(item, path) for item in ordered if (path := path_of(out, kind, item.stem)).is_file()]
    if not found:
        for name in FOLDER_FILES[kind]:
            (out / name).unlink(missing_ok=True)
    elif kind == "coco":
        _merge_instances(out / "instances.json", found, categories, last)
    else:
        _merge_measures(out / "measures.csv", out / "track_measures.csv", found, min_frames)
        names = [escaped(category["name"]) for category in categories]
        with write_atomically(out / "counts.csv") as temporary, csv_writer(temporary) as writer:
            writer.writerow([*first_columns(found[0][0].image), *names])
            for item, _ in found:
                counts = (item.counts[category["id"]] for category in categories)
                writer.writerow([*map(cell, first_columns(item.image).values()), *counts])


def _merge_instances(
    whole: Path, found: Sequence[tuple[Item, Path]], categories: Sequence[Mapping[str, Any]], last: int
) -> None:
    def annotations() -> Iterator[bytes]:
        numbers = count(last + 1)
        for item, path in found:
            content = read_json(path)
            with _parsing(path):
                for entry in content["annotations"]:
                    yield json.dumps({**entry, "id": next(numbers), "image_id": item.image["id"]}).encode()

    images = (json_line(coco_image(item.image)).encode() for item, _ in found)
    write_lists(whole, {"categories": categories}, images, annotations())


def _merge_measures(whole: Path, tracks: Path, found: Sequence[tuple[Item, Path]], min_frames: int) -> None:
    """One table from those of all images, which may have different columns, and the means of each track of a clip."""
    columns: dict[str, None] = {}
    for _, path in found:
        columns |= dict.fromkeys(next(_rows(path), ()))
    means: dict[int, _Track] = {}
    with write_atomically(whole) as temporary, csv_writer(temporary) as writer:
        writer.writerow(columns)
        for _, path in found:
            rows = _rows(path)
            header = next(rows, [])
            with _parsing(path):
                for row in rows:
                    values = dict(zip(header, row, strict=True))
                    if "frame" in columns:
                        means.setdefault(int(values["id"]), _Track(int(values["frame"]))).add(values)
                    writer.writerow([values.get(column, "") for column in columns])
    if "frame" in columns:
        lasting = {number: track for number, track in means.items() if track.categories.total() >= min_frames}
        with write_atomically(tracks) as temporary:
            write_rows(temporary, _track_table(lasting, columns), len(lasting))


@dataclass
class _Track:
    """The sums of a track's measures over the frames in which it was seen."""

    first_frame: int
    last_frame: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    sums: dict[str, float] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    positions: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Unit → the last centroid, x and y."""
    paths: dict[str, float] = field(default_factory=dict)
    """Unit → length of the way so far."""

    def add(self, row: Mapping[str, str]) -> None:
        """Add a row of measures.csv, of a later frame."""
        self.last_frame = int(row["frame"])
        self.categories[row["category"]] += 1
        for column, value in row.items():
            if value and _has_mean(column):
                self.sums[column] = self.sums.get(column, 0) + float(value)
                self.counts[column] += 1
        for unit in ("", "_um"):
            if row.get(f"centroid_x{unit}"):
                position = float(row[f"centroid_x{unit}"]), float(row[f"centroid_y{unit}"])
                self.paths[unit] = self.paths.get(unit, 0) + math.dist(self.positions.get(unit, position), position)
                self.positions[unit] = position


def _has_mean(column: str) -> bool:
    return column not in NO_MEANS and not column.startswith(("bbox_", "centroid_"))


def _track_table(tracks: Mapping[int, _Track], columns: Iterable[str]) -> dict[str, list[Any]]:
    """The columns of track_measures.csv."""
    ordered = [tracks[number] for number in sorted(tracks)]
    table: dict[str, list[Any]] = {
        "id": sorted(tracks),
        "category": [track.categories.most_common(1)[0][0] for track in ordered],
        "first_frame": [track.first_frame for track in ordered],
        "last_frame": [track.last_frame for track in ordered],
        "frames": [track.categories.total() for track in ordered],
    }
    for unit in ("", "_um"):
        if f"centroid_x{unit}" in columns:
            table[f"path_length{unit}"] = [track.paths.get(unit, math.nan) for track in ordered]
    for column in filter(_has_mean, columns):
        table[column] = [
            track.sums[column] / track.counts[column] if track.counts[column] else math.nan for track in ordered
        ]
    return table


def _rows(path: Path) -> Iterator[list[str]]:
    with _parsing(path), path.open(encoding="utf-8", newline="") as file:
        yield from csv.reader(file)


@contextmanager
def _parsing(path: Path) -> Iterator[None]:
    """Turn an error in the content of an image's file into an `InputError`."""
    try:
        yield
    except (csv.Error, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged; delete it and repeat the command") from error
