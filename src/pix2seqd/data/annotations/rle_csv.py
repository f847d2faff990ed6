"""Run-length codes in a CSV file, as Kaggle's competitions have them, such as ImageId, EncodedPixels, ClassId.

A row is one object: pairs of the first pixel of a run and its length. Pixels are counted from 1, down each column, or
in some competitions along each row.
"""

import csv
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pix2seqd.data.annotations.records import (
    Annotations,
    ImageFinder,
    Record,
    Shape,
    labels_of,
    make_taxonomy,
)
from pix2seqd.data.outlines import MAX_RUNS, Mask, column_runs
from pix2seqd.data.tables import columns, delimiter
from pix2seqd.files import CSV_COSTS, MAX_TEXT, InputError, read_text

LAYOUTS = (
    ("imageid", "encodedpixels", False),
    ("imageid_classid", "encodedpixels", False),
    ("image_label", "encodedpixels", False),
    ("img", "rle_mask", True),
    ("id", "annotation", True),
    ("id", "segmentation", True),
    ("id", "rle_mask", False),
    ("id", "encoding", False),
    ("id", "rle", False),
)
"""Columns of the image (with the class after its last "_", if the name has one) and of the code, in lower case, and
whether pixels are counted along rows: Airbus and others, Severstal, clouds, Carvana, Sartorius, UW-Madison, salt and
both of HuBMAP."""
KINDS = ("classid", "categoryid", "class", "cell_type", "label")
"""Columns of the class."""
NONE = ("", "-1", "nan")
"""Codes of an image in which nothing is."""
OTHER_COLUMNS = (
    ({"maskpath", "imageid"}, "lists mask files; put those of each image into a folder masks/IMAGE"),
    ({"annotation_id", "annotator"}, "is from Label Studio; export it as JSON"),
    ({"shape-type", "vertex-index"}, "has shapes of napari; convert the layer to labels, and save that as TIFF"),
    ({"xmin", "ymin"}, "has bounding boxes only; draw outlines or masks"),
)
"""Columns of CSV files that are not read, and what to do."""


def is_rle_csv(path: Path) -> bool:
    """Whether the first line of a CSV file has the columns of run-length codes, also in UTF-16, which is refused."""
    return _layout(columns(path)) is not None


def _layout(head: list[str]) -> tuple[str, str, bool] | None:
    """The first of `LAYOUTS` whose columns are there."""
    return next((layout for layout in LAYOUTS if {*layout[:2]} <= set(head)), None)


def csv_cure(path: Path) -> str:
    """What a CSV file of another known kind is, and what to do with it; "" for one that is not known."""
    found = set(columns(path))
    return next((cure for needed, cure in OTHER_COLUMNS if needed <= found), "")


def read_rle_csv(path: Path, images: Path | None = None) -> dict[str, Annotations]:
    """Read the file; without a class, all objects are of the class `object`.

    `images` is the folder of the images, or one above it; None: that of the file. A row that lacks a column is an
    `InputError`.
    """
    csv.field_size_limit(MAX_TEXT)
    lines = read_text(path, CSV_COSTS).splitlines()
    rows = list(csv.reader(lines, delimiter=delimiter(lines[0])))
    head = [name.strip().lower() for name in rows[0]]
    layout = _layout(head)
    assert layout is not None, "is_rle_csv was asked"
    image, runs, along_rows = layout
    kind_column = next((name for name in KINDS if name in head), "")
    if twice := next((name for name in (image, runs, kind_column) if head.count(name) > 1), ""):
        raise InputError(f"{path} has the column {twice} twice; remove one")
    listed: dict[str, list[tuple[str, str, str]]] = {}
    for number, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        if len(row) != len(head):
            raise InputError(f"{path}, line {number}, has {len(row)} cells instead of {len(head)}; correct it")
        cells: dict[str, Any] = dict(zip(head, (cell.strip() for cell in row), strict=True))
        name, kind = cells[image], cells.get(kind_column)
        if "_" in image:
            name, _, kind = name.rpartition("_")
        found = listed.setdefault(name, [])
        if cells[runs].lower() not in NONE:
            found.append((f"line {number}", kind or "object", cells[runs]))
    finder = ImageFinder(images or path.parent)
    records = []
    for name, found in listed.items():
        shapes = [Shape(line, kind, partial(_mask, code, along_rows)) for line, kind, code in found]
        records.append(Record(finder.named(name) or name, shapes))
    order = "along each row" if along_rows else "down each column"
    note = f"run-length codes are read as Kaggle's: a row of the table is an object, pixels are counted from 1, {order}"
    taxonomy = make_taxonomy(labels_of(records) or ["object"], path)
    return {"": Annotations(path, finder.folder, taxonomy, records, notes=[note])}


def _mask(code: str, along_rows: bool, height: int, width: int) -> Mask:
    try:
        numbers = np.array([int(word) for word in code.split()], np.int64)
    except (ValueError, OverflowError) as error:
        raise ValueError("its runs are no numbers") from error
    if len(numbers) % 2 or len(numbers) > MAX_RUNS:
        raise ValueError(f"it has {len(numbers):,} numbers, which are not pairs of start and length")
    starts, lengths = numbers[::2] - 1, numbers[1::2]
    is_inside = numbers.min(initial=1) >= 1 and numbers.max(initial=1) <= height * width  # so that no sum overflows
    if not is_inside or (starts + lengths).max(initial=0) > height * width:
        raise ValueError(f"its runs are outside the image, which has {height * width:,} pixels")
    steps = starts[1:] - starts[:-1]
    other = height if along_rows else width
    if height != width and len(steps) > 2 and abs(np.median(steps) - other) < 0.2 * abs(height - width):
        seem, expected = ("down columns", "along rows")[:: 1 if along_rows else -1]
        raise ValueError(f"its runs seem to go {seem}; here they go {expected}: encode the transposed masks")
    if along_rows:
        return column_runs(starts, starts + lengths, width).transposed()
    return column_runs(starts, starts + lengths, height)
