"""Run-length codes in a CSV file, as Kaggle's competitions have them: the columns ImageId, EncodedPixels and ClassId.

A row is one object: pairs of the first pixel of a run and its length. Pixels are counted from 1, down each column.
"""

import csv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pix2seqd.data.annotations.records import Annotations, ImageFinder, Record, Shape, make_taxonomy
from pix2seqd.data.outlines import MAX_RUNS, Mask, column_runs
from pix2seqd.data.tables import columns, delimiter
from pix2seqd.files import CSV_COSTS, MAX_TEXT, InputError, read_text

IMAGE, RUNS, KIND = "imageid", "encodedpixels", "classid"
"""Names of the columns, in lower case."""
NONE = ("", "-1", "nan")
"""Codes of an image in which nothing is."""
OTHER_COLUMNS = (
    ({"region_shape_attributes"}, "is a CSV file of VIA; save the project as JSON in VIA"),
    ({"image_label", RUNS}, "has image and class in one column; split it into the columns ImageId and ClassId"),
    ({"maskpath", "imageid"}, "lists mask files; put those of each image into a folder masks/IMAGE"),
    *(
        (
            {"id", runs},
            f"seems to have run-length codes; call the columns id and {runs} ImageId and EncodedPixels",
        )
        for runs in ("annotation", "segmentation", "encoding", "rle", "rle_mask")
    ),
    ({"xmin", "ymin"}, "has bounding boxes only; draw outlines or masks"),
)
"""Columns of CSV files that are not read, and what to do."""


def is_rle_csv(path: Path) -> bool:
    """Whether the first line of a CSV file has the columns of run-length codes, also in UTF-16, which is refused."""
    return {IMAGE, RUNS} <= set(columns(path))


def csv_cure(path: Path) -> str:
    """What a CSV file of another known kind is, and what to do with it; "" for one that is not known."""
    found = set(columns(path))
    return next((cure for needed, cure in OTHER_COLUMNS if needed <= found), "")


def read_rle_csv(path: Path, images: Path | None = None) -> Annotations:
    """Read the file; without a column ClassId, all objects are of the class `object`.

    Args:
        path: the file.
        images: folder of the images; None: that of the file. They may lie in folders below it.

    Raises:
        InputError: a row lacks a column; or an error of `Annotations`.
    """
    csv.field_size_limit(MAX_TEXT)
    lines = read_text(path, CSV_COSTS).splitlines()
    rows = list(csv.reader(lines, delimiter=delimiter(lines[0])))
    head = [name.strip().lower() for name in rows[0]]
    if twice := next((name for name in (IMAGE, RUNS, KIND) if head.count(name) > 1), ""):
        raise InputError(f"{path} has the column {twice} twice; remove one")
    listed: dict[str, list[tuple[str, str, str]]] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) != len(head):
            raise InputError(f"{path}, line {number}, has {len(row)} cells instead of {len(head)}; correct it")
        cells: dict[str, Any] = dict(zip(head, (cell.strip() for cell in row), strict=True))
        found = listed.setdefault(cells[IMAGE], [])
        if cells[RUNS].lower() not in NONE:
            found.append((f"line {number}", cells.get(KIND) or "object", cells[RUNS]))
    kinds = sorted({kind for found in listed.values() for _, kind, _ in found}) or ["object"]
    numbers = {kind: number for number, kind in enumerate(kinds, start=1)}
    finder = ImageFinder(images or path.parent)
    records = []
    for name, found in listed.items():
        shapes = [Shape(line, numbers[kind], partial(_mask, code)) for line, kind, code in found]
        records.append(Record(finder.named(name) or name, shapes))
    note = "run-length codes are read as Kaggle's: pixels are counted from 1, down each column"
    taxonomy = make_taxonomy({number: kind for kind, number in numbers.items()}, path)
    return Annotations(path, finder.folder, taxonomy, records, notes=[note])


def _mask(code: str, height: int, width: int) -> Mask:
    try:
        numbers = np.array([int(word) for word in code.split()], np.int64)
    except (ValueError, OverflowError) as error:
        raise ValueError("its runs are no numbers") from error
    if len(numbers) % 2 or len(numbers) > MAX_RUNS:
        raise ValueError(f"it has {len(numbers):,} numbers, which are no pairs of start and length")
    starts, lengths = numbers[::2] - 1, numbers[1::2]
    is_inside = numbers.min(initial=1) >= 1 and numbers.max(initial=1) <= height * width  # so that no sum overflows
    if not is_inside or (starts + lengths).max(initial=0) > height * width:
        raise ValueError(f"its runs are outside the image, which has {height * width:,} pixels")
    steps = starts[1:] - starts[:-1]
    if height != width and len(steps) > 2 and abs(np.median(steps) - width) < 0.2 * abs(height - width):
        raise ValueError("its runs seem to go along rows; Kaggle's go down columns: encode the transposed masks")
    return column_runs(starts, starts + lengths, height)
