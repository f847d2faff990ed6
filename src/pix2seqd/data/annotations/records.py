"""What the readers of annotation formats have in common: images, and the outlines of the objects in them."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, islice
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from PIL import ImageColor

from pix2seqd.data.outlines import Mask, combine
from pix2seqd.files import MAX_DEPTH, InputError, files_below, is_file, read_json
from pix2seqd.images.load import IMAGE_SUFFIXES
from pix2seqd.panoptic.taxonomy import Category, Taxonomy, distinct_color

MAX_SEARCHED = 200_000
"""Files and folders that are looked through for an image that is not at its place."""
SPLIT_NAMES = re.compile(r"(?i)(train|trainval|training|val|valid|validation|test|testing|dev|eval)\d*")
"""Folders of these names are splits; other folders in a folder of labels only group its files."""
ONLY_BOX = "it has only a bounding box, no outline"
ONLY_BOXES = (
    "has only bounding boxes; training needs the outline or mask of each object: draw polygons or masks "
    "(most annotation tools turn boxes into masks with Segment Anything), and export these"
)
MANY_NUMBERED = 3
"""Number of classes that differ in a number only from which they may be the objects of one class."""
WITHOUT_AREA = (
    *("point", "points", "line", "linestrip", "polyline"),
    *("cuboid", "cuboid_2d", "graph", "skeleton"),
)
"""Kinds of shapes that have no area, as tools call them."""
ROBOFLOW_NAME = re.compile(r"(.+)_([^\W_]+)\.rf\.[0-9A-Za-z]+\.\w+")
"""A name that Roboflow gives an image: `cat_jpg.rf.0123abcd.jpg` was `cat.jpg`."""

LABEL_STUDIO_NAME = re.compile(r"[0-9a-f]{8}-(.+)")
"""A name that Label Studio gives an uploaded image: `0123abcd-cat.jpg` was `cat.jpg`."""


@dataclass(frozen=True)
class Shape:
    """One labelled object."""

    name: str
    """What messages call it, such as "annotation 7"."""
    label: str
    """Name of its category; "" if it has none, and cannot be used."""
    mask: Callable[[int, int], Mask]
    """Height and width of the labels → its pixels. It raises ValueError if the outline is damaged."""
    crowd: bool = False
    depth: int = 0
    """Where the format orders its objects: the higher one is on top."""
    lost: str = ""
    """Why it has no outline; it is dropped, and the image is kept."""
    bbox: tuple[float, ...] | None = None
    """Left, top, width and height in pixels of the labels, if the format gives them beside the outline."""


@dataclass(frozen=True)
class Record:
    """One image and its objects."""

    file_name: str
    """Path of the image below `Annotations.images`, with "/" between folders."""
    shapes: Sequence[Shape]
    size: tuple[int, int] | None = None
    """Width and height of the labels, if the format gives them."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Other keys for the image's entry in the result; `id` is its number if missing."""
    content: bytes | None = None
    """The image file itself, if the annotations hold it."""

    @property
    def png(self) -> str:
        """Name of the image's PNG of segments."""
        return PurePosixPath(self.file_name).with_suffix(".png").as_posix()


@dataclass
class Annotations:
    """The annotated images of a split."""

    source: Path
    """The file or folder that was read."""
    images: Path
    """Folder that the file names are relative to."""
    taxonomy: Taxonomy
    records: list[Record]
    unlisted: list[str] = field(default_factory=list)
    """One line for each annotation of an image that the format does not list."""
    notes: list[str] = field(default_factory=list)
    """What was understood in another way than it is written, one line each."""

    def __post_init__(self) -> None:
        """Check what all formats may get wrong.

        Raises:
            InputError: no image; no or the same name of images; a name that leaves the folder; bounding boxes only.
        """
        if not self.records:
            raise InputError(f"{self.source} lists no image; export it with its images")
        for record in self.records:
            path = PurePosixPath(record.file_name)
            if not path.name:
                raise InputError(f"{self.source} has an image without a file name; name it")
            if path.is_absolute() or ".." in path.parts or Path(record.file_name).drive:
                raise InputError(
                    f"{self.source} has the file name {record.file_name}, and no such image is in {self.images} or "
                    "below; copy it there, or name its folder: --images FOLDER_OF_IMAGES"
                )
        if len({record.png for record in self.records}) < len(self.records):
            raise InputError(f"{self.source} has two images with one name or id; rename one")
        self._note_numbers()
        lost = [shape.lost for record in self.records for shape in record.shapes]
        if lost and all(reason == ONLY_BOX for reason in lost):
            raise InputError(f"{self.source} {ONLY_BOXES}")

    def _note_numbers(self) -> None:
        """Note classes that seem to be the objects of one, as cell-1, cell-2, of which an image has each once."""
        counts = (Counter(shape.label for shape in record.shapes) for record in self.records)
        several = {label for count in counts for label, times in count.items() if times > 1}
        stems: dict[str, list[str]] = {}
        for category in self.taxonomy.categories:
            if re.fullmatch(r".*\D[0-9]+", category.name):
                stems.setdefault(category.name.rstrip("0123456789"), []).append(category.name)
        for stem, names in stems.items():
            if len(names) >= MANY_NUMBERED and several.isdisjoint(names):
                self.notes.append(
                    f"an image has {names[0]}, {names[1]}, ... ({len(names)} classes) once at most; if they are the "
                    f"objects of one class, call all of them {stem.rstrip(' _-.#')}"
                )


class ImageFinder:
    """Finds images by the names that annotation tools write: with folders of another computer, or new names."""

    def __init__(self, folder: Path) -> None:
        """Look in this folder and those below it."""
        self.folder = folder
        self._by_name: dict[str, list[str]] | None = None
        self._by_original: dict[str, list[str]] | None = None
        self._by_stem: dict[Path, dict[str, list[Path]]] = {}
        self._names: dict[tuple[str, ...], Collection[str]] = {}

    def find(self, name: str) -> str | None:
        """Path of an image below the folder, with "/" between folders; None if there is none, or several.

        Before the name there may be any folders, with "/" or backslashes. If there is no such file, it may be written
        as in an address: `my%20cat.jpg`.
        """
        found = self._find(name)
        return self._find(unquote(name)) if found is None and "%" in name else found

    def _find(self, name: str) -> str | None:
        parts = path_parts(name)
        for start in range(len(parts)):
            path = PurePosixPath(*parts[start:])
            if not Path(path).drive and is_file(self.folder / path):
                return path.as_posix()
        found = self._below().get(parts[-1].casefold() if parts else "", [])
        return found[0] if len(found) == 1 else None

    def named(self, name: str) -> str | None:
        """Path of the image of a name with or without its suffix, as of `find`; None if there is none, or several."""
        found = {path for path in map(self.find, [name, *self._with_suffix(name)]) if path}
        return found.pop() if len(found) == 1 else None

    def several(self, name: str) -> list[str]:
        """Paths of the images of a name, with or without its suffix, in any folder, of which `find` chooses none."""
        lasts = {path_parts(each)[-1].casefold() for each in [name, *self._with_suffix(name)] if path_parts(each)}
        found = sorted(path for last in lasts for path in self._below().get(last, []))
        return found if len(found) > 1 else []

    def _with_suffix(self, name: str) -> list[str]:
        """The name with each suffix of an image that a file has where `find` looks.

        Asking the disk for every suffix would take minutes for a list of a hundred thousand images that are not there.
        """
        found: set[str] = set()
        for written in {name, unquote(name)}:
            *folders, stem = path_parts(written) or [""]
            places = [self._listed(tuple(folders[start:])) for start in range(len(folders) + 1)]
            ends = (suffix for suffix in IMAGE_SUFFIXES if any(stem + suffix in place for place in places))
            found.update(ends, (suffix for suffix in IMAGE_SUFFIXES if (stem + suffix).casefold() in self._below()))
        return [name + suffix for suffix in sorted(found)]

    def _listed(self, folders: tuple[str, ...]) -> Collection[str]:
        """The names in a folder below the finder's; none if there is no such folder."""
        if folders not in self._names:
            self._names[folders] = ()
            with suppress(OSError, ValueError):
                self._names[folders] = frozenset(path.name for path in self.folder.joinpath(*folders).iterdir())
        return self._names[folders]

    def original(self, name: str) -> str | None:
        """The image that Roboflow or Label Studio renamed, or Roboflow from this name; None if none or several."""
        name = PurePosixPath(name.replace("\\", "/")).name
        if renamed := ROBOFLOW_NAME.fullmatch(name):
            return self.find(f"{renamed[1]}.{renamed[2]}")
        if renamed := LABEL_STUDIO_NAME.fullmatch(name):
            return self.find(renamed[1])
        stem = name.replace(".", "_").casefold()
        if self._by_original is None:
            self._by_original = {}
            for key, paths in self._below().items():
                self._by_original.setdefault(key.partition(".rf.")[0], []).extend(paths if ".rf." in key else ())
        found = self._by_original.get(stem, [])
        return found[0] if len(found) == 1 else None

    def beside(self, stem: str, folder: Path) -> str | None:
        """The image of this stem directly in `folder`, as a path below the finder's folder; None if none or several."""
        if folder not in self._by_stem:
            self._by_stem[folder] = {}
            for path in folder.glob("*"):
                if path.suffix.lower() in IMAGE_SUFFIXES:
                    self._by_stem[folder].setdefault(path.stem, []).append(path)
        found = self._by_stem[folder].get(stem, [])
        inside = len(found) == 1 and found[0].is_relative_to(self.folder)
        return found[0].relative_to(self.folder).as_posix() if inside else None

    def _below(self) -> dict[str, list[str]]:
        if self._by_name is None:
            self._by_name = {}
            for path in islice(files_below(self.folder), MAX_SEARCHED):
                if path.suffix.lower() in IMAGE_SUFFIXES:
                    below = path.relative_to(self.folder).as_posix()
                    self._by_name.setdefault(path.name.casefold(), []).append(below)
        return self._by_name


def path_parts(name: str) -> list[str]:
    """The last parts of a path as tools write it, `MAX_DEPTH` at most; none of them leads up or to another drive."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return [part for part in parts if not re.fullmatch("[A-Za-z]:", part)][-MAX_DEPTH:]


def local_name(name: str) -> str:
    """A file name with "/" between folders; of an address on the web, the path without the host."""
    return unquote(urlsplit(name).path).lstrip("/") if "://" in name else name.replace("\\", "/")


def visible(folder: Path, pattern: str) -> list[Path]:
    """The files that fit a pattern, sorted, without hidden ones and those of macOS's archives."""
    try:
        below = (path for path in files_below(folder) if path.match(pattern[3:]))
        found = list(islice(below if pattern.startswith("**/") else folder.glob(pattern), MAX_SEARCHED))
    except OSError as error:  # a folder was removed meanwhile, or the disk fails
        raise InputError(f"cannot list {folder} ({error.strerror}: {error.filename}); try again") from error
    return sorted(path for path in found if not is_hidden(path.relative_to(folder).parts))


def is_hidden(parts: Iterable[str]) -> bool:
    """Whether a path of these parts is that of a hidden file, or of one that macOS or a disk of Synology adds."""
    return any(part.startswith((".", "__MACOSX", "@eaDir")) for part in parts)


def labels_of(records: Iterable[Record]) -> list[str]:
    """The labels of all shapes, sorted."""
    return sorted({shape.label for record in records for shape in record.shapes} - {""})


def make_taxonomy(
    names: Iterable[str], source: Path, ids: Sequence[int] = (), things: bool = True, colors: Mapping[str, Any] = {}
) -> Taxonomy:
    """Categories of one kind; an `InputError` that names `source` if a name is empty or used twice.

    Without `ids`, they are counted from 1. `colors` has the colours of names, as `parse_color` takes them; other names
    get one of their own.
    """
    kinds = [
        Category(number, name, things, parse_color(colors.get(name)) or distinct_color(n))
        for n, (name, number) in enumerate(zip(names, ids or count(1), strict=False))
    ]
    return checked_taxonomy(kinds, source)


def checked_taxonomy(categories: Iterable[Category], source: Path) -> Taxonomy:
    """A taxonomy; what is wrong with it is an InputError that names `source`."""
    try:
        return Taxonomy(tuple(categories))
    except ValueError as error:
        raise InputError(f"{source}: {error}; correct its categories") from error


def parse_color(value: Any) -> tuple[int, int, int] | None:
    """A colour as tools write it: three numbers 0..255, "#ff0000", or its name; None for anything else."""
    try:
        if isinstance(value, str):
            return ImageColor.getrgb(value.strip())[:3]
        red, green, blue = (int(channel) for channel in value[:3])
    except (TypeError, ValueError, KeyError, OverflowError):
        return None
    return (red, green, blue) if all(0 <= channel <= 255 for channel in (red, green, blue)) else None


def read_jsons(path: Path, home: Path, is_ours: Callable[[Any], bool]) -> tuple[dict[Path, Any], int]:
    """The json files of one format, with their content, and how many others there are.

    `path` is one file, or the folder `home` of the data set, which is searched with those below it.
    """
    files = visible(home, "**/*.json") if path.is_dir() else [path]
    contents = {file: content for file in files if is_ours(content := read_json(file))}
    return contents, len(files) - len(contents)


def parse_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Width and height as tools write them, numbers or text; None for anything else."""
    try:
        sides = int(width), int(height)
    except (TypeError, ValueError, OverflowError):
        return None
    return sides if min(sides) > 0 else None


def drawn(name: str, label: str, kind: str, decoders: Mapping[str, Callable[..., Mask]], *drawing: Any) -> Shape:
    """A shape of some kind that a tool has; one without an area is `lost`.

    `decoders` has for each kind, such as polygon, what makes the mask of a `drawing`, a height and a width.
    """
    if kind in WITHOUT_AREA:
        return lost(name, f"it is a {kind}, which has no area", label)
    if kind not in decoders:
        return lost(name, f"its kind {kind} is not known; draw it as a polygon", label)
    return Shape(name, label, partial(decoders[kind], *drawing))


def by_split(
    records: Sequence[tuple[str, Record]], path: Path, images: Path, taxonomy: Taxonomy, notes: Sequence[str] = ()
) -> dict[str, Annotations]:
    """Split → annotations of records, each after the name of its folder; one split "" unless all are names of splits.

    The other arguments are those of `Annotations`.
    """
    grouped = all(SPLIT_NAMES.fullmatch(folder) for folder, _ in records)
    splits: dict[str, list[Record]] = {}
    for folder, record in records:
        splits.setdefault(folder if grouped else "", []).append(record)
    return {split: Annotations(path, images, taxonomy, listed, notes=list(notes)) for split, listed in splits.items()}


def join_groups(parts: Iterable[tuple[Shape, Any]]) -> Iterator[Shape]:
    """Shapes, each with its group or None, of which those of one group and label are joined to one object."""
    groups: dict[Any, list[Shape]] = {}
    for number, (shape, group) in enumerate(parts):
        alone = group is None or shape.lost
        groups.setdefault(number if alone else (shape.label, str(group)), []).append(shape)
    for shapes in groups.values():
        yield shapes[0] if len(shapes) == 1 else _joined(shapes)


def _joined(shapes: Sequence[Shape]) -> Shape:
    def mask(height: int, width: int) -> Mask:
        return combine(shape.mask(height, width) for shape in shapes)

    first = shapes[0]
    return Shape(f"{first.name} and its group", first.label, mask, depth=max(shape.depth for shape in shapes))


def unusable(name: str, reason: str, label: str = "") -> Shape:
    """A shape that cannot be used; the ValueError that its mask raises gives the reason."""

    def mask(height: int, width: int) -> Mask:
        raise ValueError(reason)

    return Shape(name, label, mask)


def lost(name: str, reason: str, label: str = "") -> Shape:
    """A shape without an outline."""
    return replace(unusable(name, reason, label), lost=reason)
