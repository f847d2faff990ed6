"""What other programs write beside images: tables of classes and their colours, and nnU-Net's `dataset.json`."""

import csv
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pix2seqd.files import InputError, read_json, read_text

ROBOFLOW_CLASSES = "_classes.csv"
"""Where Roboflow writes the names of the classes of its masks."""
NNUNET = "dataset.json"
"""Where nnU-Net has the names of its classes."""
LABEL_COLORS = "label_colors.txt"
"""Where CamVid, and CVAT's exports to it, have a red, green, blue and name in each line."""
NAME_COLUMNS = ("name", "names", "class", "classes", "class_name", "class_names", "label", "label_name")
"""Column of the name in a CSV file of colours, such as class_dict.csv of Kaggle's CamVid."""
MAX_CELL = 131_072
"""Number of characters of a cell in a table of classes."""
CHANNELS = (("r", "g", "b"), ("red", "green", "blue"))
"""Columns of the colour."""


def columns(path: Path) -> list[str]:
    """The names in the first line of a CSV file, in lower case; empty if there is no file."""
    if not path.is_file():
        return []
    try:
        with path.open("rb") as file:
            start = file.read(1000)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    encoding = "utf-16" if start.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8-sig"
    head = start.decode(encoding, errors="replace").partition("\n")[0]
    return [name.strip().strip('"').lower() for name in head.split(delimiter(head))]


def delimiter(head: str) -> str:
    """What separates the columns: a comma, or a semicolon or tab where there is none."""
    return next((mark for mark in ";\t" if mark in head and "," not in head), ",")


def roboflow_classes(home: Path) -> dict[str, Any]:
    """The `labels` and `label_name` of a declaration by `_classes.csv`, which Roboflow writes beside `*_mask.png`.

    It is in the folder of each split; different ones are an `InputError`. Empty without such a file.
    """
    found: dict[str, str] = {}
    for path in [home / ROBOFLOW_CLASSES, *sorted(home.glob(f"*/{ROBOFLOW_CLASSES}"))]:
        rows = _cells(path, read_text(path).splitlines()) if path.is_file() else []
        head, *rest = [[cell.strip() for cell in row] for row in rows if len(row) == 2] or [[]]
        if [cell.lower() for cell in head] != ["pixel value", "class"]:
            continue  # of another export
        names = dict(rest)
        if found not in ({}, names):
            raise InputError(f"{path} has other classes than those of another split; export all splits together")
        found = names
    return {"labels": found, "label_name": "*_mask"} if found else {}


def nnunet(home: Path, known: Container[str]) -> dict[str, Any]:
    """What `dataset.json` of nnU-Net says, beside `imagesTr` and `labelsTr`; `known` keys are declared otherwise.

    These are the keys `coding`, `labels`, `void` and `image_name` of a declaration; none without such a file. If it has
    no names, a name for a region of several values, or a file for each channel of an image, it is an `InputError`.
    """
    path = home / NNUNET
    if not path.is_file() or not (home / "labelsTr").is_dir():
        return {}
    content = read_json(path)
    given = content.get("labels") if isinstance(content, dict) else None
    if not isinstance(given, dict):
        raise InputError(f"{path} has no labels with names; export it again")
    if "image_name" not in known and (more := _second_channels(home)):
        raise InputError(
            f"{more[0]} is another channel of an image; save the channels of each image as one file, or write "
            f'image_name: "*_0000" to {home / "classes.yaml"} to take the first channel only'
        )
    names: dict[int, str] = {}
    for key, value in given.items():
        value, name = (int(key), value) if str(key).isdecimal() else (value, key)
        if isinstance(value, bool) or not isinstance(value, int):
            if "labels" in known:
                continue
            raise InputError(
                f"{path}: {name} is a region of several values; name each value in {home / 'classes.yaml'}, as "
                "labels: {0: background, 1: oedema}"
            )
        names[value] = str(name)
    void = [value for value, name in names.items() if name == "ignore"]
    return {"coding": "class", "labels": names, "image_name": "*_0000", **({"void": void} if void else {})}


def _second_channels(home: Path) -> list[Path]:
    """The files in which nnU-Net has the second channel of an image that has labels."""
    found = sorted((home / "imagesTr").glob("*_0001.*"))
    return [path for path in found if (home / "labelsTr" / f"{path.stem[:-5]}{path.suffix}").is_file()]


def color_table(home: Path) -> tuple[Path, dict[str, list[int]]] | None:
    """The table of the colours of label images in a folder: its file, and name → red, green and blue; None without one.

    Several tables, and rows without a name, or of one name or colour, are an `InputError`.
    """
    places = [*(path for path in sorted(home.glob("*.csv")) if _name_and_color(path)), home / LABEL_COLORS]
    tables = {path: found for path in places if path.is_file() and (found := _rows(path))}
    if len(tables) > 1:
        names = " and ".join(path.name for path in tables)
        raise InputError(f"{home} has several tables of colours, {names}; keep that of the label images")
    for path, found in tables.items():
        colors: dict[str, list[int]] = {}
        for name, color in found:
            if not name:
                raise InputError(f"{path}: the colour {color} has no name; give it one")
            if name in colors or color in colors.values():
                same = next((other for other, known in colors.items() if known == color), name)
                raise InputError(f"{path} has two rows of the name or colour of {same}; correct one")
            colors[name] = color
        return path, colors
    return None


def check_grey(images: Iterable[np.ndarray], path: Path, colors: dict[str, list[int]], declaration: Path) -> None:
    """Raise an `InputError` if label images are grey, with values that are no greys of a table of colours but its rows.

    `images` are some label images, `[h, w]` or `[h, w, channels]`; `colors` is what the table at `path` says;
    `declaration` is where the user can say what the values mean.
    """
    greys = [color[0] for color in colors.values() if len(set(color)) == 1]
    if all(pixels.ndim == 3 or np.isin(pixels, greys).all() for pixels in images):
        return
    names = yaml.safe_dump(dict(enumerate(colors)), default_flow_style=True, width=2**20, allow_unicode=True).strip()
    raise InputError(
        f"{path.parent}: the label images are grey, but {path.name} gives colours; if value 0 means its first row, 1 "
        f"the second, and so on, write 'labels: {names}' to {declaration}; otherwise move {path.name} away"
    )


def _name_and_color(path: Path) -> tuple[int, list[int]] | None:
    """The columns of the name and of the channels of a CSV file; None if it is no table of colours."""
    head = columns(path)
    named = [head.index(word) for word in NAME_COLUMNS if word in head]
    found = [[head.index(word) for word in words] for words in CHANNELS if set(words) <= set(head)]
    return (named[0], found[0]) if named and found else None


def _rows(path: Path) -> list[tuple[str, list[int]]]:
    """Name and colour of each row of a table of colours."""
    every = enumerate(read_text(path).splitlines(), start=1)
    written = {number: line for number, line in every if line.strip() and not line.startswith("#")}
    numbers, lines = list(written), list(written.values())
    if csv_columns := _name_and_color(path) if path.suffix == ".csv" else None:
        name, channels = csv_columns
        cells = _cells(path, lines, delimiter=delimiter(lines[0]), skipinitialspace=True)[1:]
        numbers = numbers[1:]
    else:
        name, channels, cells = 3, [0, 1, 2], [line.split(maxsplit=3) for line in lines]
    rows: list[tuple[str, list[int]]] = []
    for number, row in zip(numbers, cells, strict=False):  # a cell in quotes may have several lines
        color = [row[i].strip() for i in channels] if len(row) > max(name, *channels) else []
        if not color or not all(cell.isdecimal() and len(cell) < 4 and int(cell) < 256 for cell in color):
            raise InputError(
                f"{path}: line {number} is not a name and red, green and blue from 0 to 255; correct it, or move the "
                "file away"
            )
        rows.append((row[name].strip(), [int(cell) for cell in color]))
    return rows


def _cells(path: Path, lines: list[str], **options: Any) -> list[list[str]]:
    """The cells of the lines of a CSV file; options as `csv.reader` takes them."""
    csv.field_size_limit(MAX_CELL)  # which readers of long run-length codes raise
    try:
        return list(csv.reader(lines, **options))
    except csv.Error as error:  # a longer cell
        raise InputError(f"{path} is not a table of classes ({error}); export it again") from error
