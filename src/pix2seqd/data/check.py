"""The report of `pix2seqd check-data`: every item of a data set is read and counted."""

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps
from rich.console import Console, Group
from rich.progress import track
from rich.table import Column, Table
from rich.text import Text

from pix2seqd.data.contours import are_outlines, are_strokes
from pix2seqd.data.sample import Dataset, Sample, evenly_spaced
from pix2seqd.files import InputError, a_few, printable, write_png
from pix2seqd.panoptic.taxonomy import VOID, Category, Taxonomy

ERRORS_SHOWN = 20
MANY_RECTANGLES = 10
"""Number of things that fill their bounding box, above which they may be boxes; few outlines do."""
LARGE = 16
"""Number of pixels from which a thing is no rectangle by chance."""


@dataclass
class Tally:
    """Counts of one category, without crowds."""

    images: int = 0
    segments: int = 0
    pixels: int = 0


@dataclass
class Report:
    """Statistics of a data set, from all items that can be read. It can be printed with rich."""

    taxonomy: Taxonomy
    id_capacity: int
    """Number of things per image that the model's ids can distinguish."""
    items: int = 0
    """Number of items, including those that cannot be read."""
    tallies: dict[int, Tally] = field(default_factory=dict)
    """Category id → its counts, for all categories of the taxonomy."""
    instances: list[int] = field(default_factory=list)
    """Number of things in each readable item, without crowds."""
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(width, height) → number of items."""
    pixels: int = 0
    void_pixels: int = 0
    crowd_pixels: int = 0
    errors: list[str] = field(default_factory=list)
    """One line for each item that cannot be used."""
    unlabelled: list[str] = field(default_factory=list)
    """Names of the items without a segment."""
    contents: dict[bytes, str] = field(default_factory=dict)
    """Digest of an image's pixels → name of the first item with them."""
    repeated: list[tuple[str, str]] = field(default_factory=list)
    """Names of items with equal images: the first, and each later one."""
    outlines: list[str] = field(default_factory=list)
    """Names of the items whose segments are mostly lines around nothing."""
    strokes: list[str] = field(default_factory=list)
    """Names of the items whose segments are thin lines with little area."""
    rectangles: int = 0
    """Number of things that fill their bounding box, of `LARGE` pixels or more."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """What was left out of images, or how their labels were taken → names of the items."""

    @property
    def warnings(self) -> list[str]:
        """One line for each finding that does not prevent training but may be a mistake."""
        found = []
        if empty := [c.name for c in self.taxonomy.categories if not self.tallies[c.id].images]:
            found.append(f"{len(empty):,} classes occur in no image: {a_few(empty)}")
        if self.unlabelled:
            found.append(f"{len(self.unlabelled):,} images have no label: {a_few(self.unlabelled)}")
        if self.outlines:
            found.append(f"{len(self.outlines):,} images have only lines around their things: {a_few(self.outlines)}")
        if self.strokes:
            what = "images have only thin lines; of scribbles, what lies beside them is wrongly taken for background"
            found.append(f"{len(self.strokes):,} {what}: {a_few(self.strokes)}")
        if self.rectangles > MANY_RECTANGLES and 2 * self.rectangles > sum(self.instances):
            filled = f"{self.rectangles:,} of {sum(self.instances):,} things fill their bounding box"
            found.append(f"{filled}; boxes instead of outlines would be wrong labels")
        if self.repeated:
            pairs = [f"{first} and {later}" for first, later in self.repeated]
            found.append(f"{len(pairs):,} images repeat the content of another: {a_few(pairs)}")
        found += [f"{len(names):,} images: {note}: {a_few(names)}" for note, names in self.notes.items()]
        return found

    @property
    def ok(self) -> bool:
        """Whether every item can be read and is consistent."""
        return not self.errors

    @property
    def overfull(self) -> int:
        """Number of items with more things than `id_capacity`."""
        return sum(count > self.id_capacity for count in self.instances)

    def add(self, sample: Sample) -> None:
        """Count one item."""
        segments = sample.panoptic.segments
        digest = content(sample.image)
        first = self.contents.setdefault(digest, sample.name)
        if first != sample.name:
            self.repeated.append((first, sample.name))
        for note in sample.notes:
            self.notes.setdefault(note, []).append(sample.name)
        if not segments:
            self.unlabelled.append(sample.name)
        segmentation = sample.panoptic.segmentation
        around = max((s for s in segments if not s.isthing), key=lambda s: s.area, default=None)
        drawn = np.where(segmentation == around.id, VOID, segmentation) if around else segmentation
        if are_outlines(drawn):
            self.outlines.append(sample.name)
        elif are_strokes(drawn):
            self.strokes.append(sample.name)
        height, width = segmentation.shape
        self.sizes[width, height] += 1
        self.pixels += height * width
        self.void_pixels += int(np.count_nonzero(segmentation == VOID))
        self.crowd_pixels += sum(s.area for s in segments if s.iscrowd)
        things = [s for s in segments if s.isthing and not s.iscrowd]
        self.instances.append(len(things))
        self.rectangles += sum(s.area == s.bbox[2] * s.bbox[3] >= LARGE for s in things)
        for segment in segments:
            if not segment.iscrowd:
                self.tallies[segment.category_id].segments += 1
                self.tallies[segment.category_id].pixels += segment.area
        for category_id in {s.category_id for s in segments if not s.iscrowd}:
            self.tallies[category_id].images += 1

    def __rich__(self) -> Group:
        """A table of the categories, then lines of statistics, then the first errors."""
        counts = (Column(head, justify="right") for head in ("images", "segments", "pixels"))
        table = Table("id", "category", "kind", *counts)
        for category in self.taxonomy.categories:
            table.add_row(*self._row(category))
        lines = [self._overview(), *(Text(printable(fact)) for fact in (self._facts() if self.instances else ()))]
        lines += [Text(printable(f"warning: {line}"), "yellow") for line in self.warnings if self.instances]
        shown = [Text(printable(f"  {message}"), "red") for message in self.errors[:ERRORS_SHOWN]]
        if len(self.errors) > ERRORS_SHOWN:
            shown.append(Text(f"  and {len(self.errors) - ERRORS_SHOWN} more", "red"))
        return Group(table, *lines, *shown)

    def _row(self, category: Category) -> list[str | Text]:
        tally = self.tallies[category.id]
        share = f"{tally.pixels / max(1, self.pixels):.1%}"
        return [str(category.id), Text(category.name), category.kind, f"{tally.images:,}", f"{tally.segments:,}", share]

    def _overview(self) -> Text:
        if self.ok:
            return Text(f"{self.items:,} items, all readable and consistent", "green")
        return Text(f"{self.items:,} items, {len(self.errors):,} of them unusable", "red")

    def _facts(self) -> Iterator[str]:
        widths, heights = zip(*self.sizes, strict=True)
        (width, height), often = self.sizes.most_common(1)[0]
        yield (
            f"width {min(widths)}..{max(widths)}, height {min(heights)}..{max(heights)}; "
            f"most often {width} x {height} (x{often:,})"
        )
        yield (
            f"things per item: {min(self.instances)}..{max(self.instances)}, median {median(self.instances):g}; "
            f"{self.overfull:,} items have more than the {self.id_capacity} ids (--ids)"
        )
        yield f"void {self.void_pixels / self.pixels:.1%} and crowd {self.crowd_pixels / self.pixels:.1%} of all pixels"


AnyReport = TypeVar("AnyReport", bound=Report)


def content(image: np.ndarray) -> bytes:
    """A digest of an image's pixels: 16 bytes that equal images share."""
    return hashlib.blake2b(repr(image.shape).encode() + image.tobytes(), digest_size=16).digest()


def check(dataset: Dataset, id_capacity: int, kind: type[AnyReport] = Report) -> AnyReport:
    """Read every item of a data set, for a report of some kind. Items that cannot be read are listed as errors.

    `id_capacity` is the number of things per image that the model's ids can distinguish.
    """
    report = kind(dataset.taxonomy, id_capacity)
    report.items = len(dataset)
    report.tallies = {category.id: Tally() for category in dataset.taxonomy.categories}
    for index in track(range(len(dataset)), "checking", console=Console(stderr=True), transient=True):
        try:
            sample = dataset[index]
        except InputError as error:
            report.errors.append(str(error))
        else:
            report.add(sample)
    return report


def compare(reports: Mapping[str, Report]) -> list[str]:
    """Warnings about the splits of a data set, one line each: equal images in two splits, classes in one split only.

    Args:
        reports: name of the split → its report.
    """
    found = []
    for (one, first), (other, second) in combinations(reports.items(), 2):
        if both := first.contents.keys() & second.contents.keys():
            pairs = sorted(f"{first.contents[digest]} and {second.contents[digest]}" for digest in both)
            found.append(f"{len(both):,} images of {one} are also in {other} (same content): {a_few(pairs)}")
    for name, report in reports.items() if len(reports) > 1 else ():
        rest = [_occurring(other) for key, other in reports.items() if key != name]
        if alone := [category for category in _occurring(report) if not any(category in other for other in rest)]:
            found.append(f"{len(alone):,} classes occur in {name} only: {a_few(alone)}")
    return found


def _occurring(report: Report) -> list[str]:
    """Names of the categories that some image has."""
    return [category.name for category in report.taxonomy.categories if report.tallies[category.id].images]


def contact_sheet(dataset: Dataset, path: str | Path, count: int = 12, side: int = 256) -> None:
    """Write a PNG with up to `count` items, evenly spaced in the data set, each as image and overlay side by side.

    Args:
        dataset: any data set; items that cannot be read are left out.
        path: the PNG to write.
        count: number of items, 1 or more.
        side: side in pixels of the square that each image is fitted into.

    Raises:
        InputError: none of the chosen items can be read, or `path` cannot be written.
    """
    pairs = [pair for index in evenly_spaced(len(dataset), count) if (pair := _pair(dataset, index, side))]
    if not pairs:
        raise InputError("no item of the data set can be drawn; see the errors that check-data lists")
    columns = math.ceil(math.sqrt(len(pairs) / 2))
    sheet = Image.new("RGB", (2 * side * columns, side * math.ceil(len(pairs) / columns)), "white")
    for position, pair in enumerate(pairs):
        row, column = divmod(position, columns)
        for half, tile in enumerate(pair):
            sheet.paste(tile, (side * (2 * column + half), side * row))
    write_png(path, sheet)


def _pair(dataset: Dataset, index: int, side: int) -> tuple[Image.Image, ...] | None:
    try:
        sample = dataset[index]
    except InputError:
        return None  # `check` reports the error
    image = Image.fromarray(sample.image)
    tiles = image, sample.panoptic.overlay(image)
    return tuple(ImageOps.pad(tile, (side, side), color="white") for tile in tiles)
