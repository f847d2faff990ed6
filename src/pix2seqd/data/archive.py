"""Files of a data set, in a folder or straight from its owners' zip files, without unpacking them.

Readers take a `Traversable`: what a `pathlib.Path` and a `Zipped` have in common.
"""

import functools
import io
import mmap
import posixpath
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import IO, Any

from PIL import Image

from pix2seqd.files import InputError
from pix2seqd.images.load import load_image


@dataclass(frozen=True)
class Zipped(Traversable):
    """A file or folder inside a zip file, or inside a zip file in a zip file; as good as a path, for reading.

    It holds names only, so that data sets can be copied to worker processes.
    """

    archives: tuple[str, ...]
    """The zip file on the disk, then the zip files inside it, each named as in the one before."""
    at: str = ""
    """The place in the last of them, parts joined by "/"; "" for its root."""

    def __truediv__(self, child: Any) -> "Zipped":
        return self.joinpath(child)

    def joinpath(self, *descendants: Any) -> "Zipped":
        """The place below, as with "/"."""
        return Zipped(self.archives, posixpath.join(self.at, *map(str, descendants)))

    def __str__(self) -> str:
        return "/".join((*self.archives, self.at) if self.at else self.archives)

    @property
    def name(self) -> str:
        """The last part of the place."""
        return posixpath.basename(self.at or self.archives[-1])

    def is_file(self) -> bool:
        """There is such a file."""
        return self.at in _archive(self.archives).files

    def is_dir(self) -> bool:
        """There is such a folder."""
        return self.at in _archive(self.archives).folders

    def iterdir(self) -> Iterator["Zipped"]:
        """What the folder holds."""
        return (self / child for child in _archive(self.archives).folders.get(self.at, ()))

    def read_bytes(self) -> bytes:
        """The content of the file.

        Raises:
            InputError: missing or damaged.
        """
        try:
            return _archive(self.archives).zip.read(self.at)
        except KeyError as error:
            raise InputError(f"{self} does not exist") from error
        except _DAMAGED as error:
            raise InputError(f"{self} cannot be unpacked ({error}); fetch the zip file again") from error

    def read_text(self, encoding: str | None = None) -> str:
        """The content of a text file, UTF-8 if nothing is said."""
        return self.read_bytes().decode(encoding or "utf-8")

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> IO[Any]:  # type: ignore[override] # one of many modes
        """The whole file, unpacked in memory; its name is the place."""
        content = io.BytesIO(self.read_bytes())
        content.name = str(self)  # type: ignore[attr-defined]
        return content if "b" in mode else io.TextIOWrapper(content, *args, **kwargs)


_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, NotImplementedError, RuntimeError)


def place(home: Traversable, path: str) -> Traversable:
    """A file or folder below a folder, there or not; zip files on the way are looked into.

    Args:
        home: the folder.
        path: "/" between parts, as in "gtFine_trainvaltest.zip/gtFine/val".

    Raises:
        InputError: a zip file is damaged.
    """
    for part in path.split("/"):
        home = home / part
        if part.endswith(".zip") and home.is_file():
            home = Zipped((*home.archives, home.at) if isinstance(home, Zipped) else (str(home),))
    return home


def find(what: str, *places: Traversable) -> Traversable:
    """The first of several places that is there.

    Raises:
        InputError: none is; the message says what is looked for, and where.
    """
    for each in places:
        if each.is_dir() or each.is_file():
            return each
    raise InputError(f"{what} is missing; expected {' or '.join(dict.fromkeys(map(str, places)))}")


def children(folder: Traversable, suffix: str = "") -> list[Traversable]:
    """What is in a folder and ends so, sorted by name; hidden files, which some systems leave, do not count."""
    found = (child for child in folder.iterdir() if child.name.endswith(suffix) and not child.name.startswith("."))
    return sorted(found, key=lambda child: child.name)


def read_picture(file: Traversable) -> Image.Image:
    """A picture as RGB, as `load_image` reads it.

    Raises:
        InputError: missing or damaged.
    """
    if isinstance(file, Path):
        image = load_image(file)
    else:
        with file.open("rb") as content:
            image = load_image(content)
    image.filename = str(file)  # type: ignore[attr-defined] # as Pillow's own, for messages
    return image


def read_png(file: Traversable, modes: tuple[str, ...], of: Image.Image | None = None) -> Image.Image:
    """A PNG of labels, with its pixels as they are stored.

    Args:
        file: the PNG.
        modes: Pillow's names of the kinds of pixels that make sense.
        of: the picture it belongs to, from `read_picture`; nothing is decoded unless both have one size.

    Raises:
        InputError: missing or damaged, of another kind, or of another size.
    """
    if not file.is_file():
        raise InputError(f"{str(file)!r} is missing; fetch it")
    try:
        with file.open("rb") as content, Image.open(content) as png:
            if of is not None and png.size != of.size:
                whose = f"its picture {getattr(of, 'filename', '')}"
                sizes = f"{png.width} x {png.height} but {whose} is {of.width} x {of.height}"
                raise InputError(f"{file} is {sizes}; export it at the picture's size")
            if png.mode not in modes:
                raise InputError(f"{file} is not {' or '.join(modes)} (but {png.mode}); export its labels so")
            return png.copy()
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{file} cannot be read as PNG ({reason}); export it again") from error


@dataclass(frozen=True, eq=False)
class _Archive:
    zip: zipfile.ZipFile
    view: memoryview
    """Its bytes."""
    files: frozenset[str]
    folders: dict[str, dict[str, None]]
    """Folder → names of what is in it."""


@functools.cache
def _archive(archives: tuple[str, ...]) -> _Archive:
    """An open zip file, once per process; processes forked later share it."""
    *outer, last = archives
    try:
        if outer:
            view = _inner_view(_archive(tuple(outer)), last)
        else:
            with Path(last).open("rb") as file:
                view = _map(file)
        opened = zipfile.ZipFile(io.BufferedReader(_View(view)))
    except (*_DAMAGED, ValueError) as error:
        raise InputError(f"{'/'.join(archives)} is not a whole zip file ({error}); fetch it again") from error
    files = frozenset(name for name in opened.namelist() if not name.endswith("/"))
    folders: dict[str, dict[str, None]] = {"": {}}
    for name in opened.namelist():
        parts = name.rstrip("/").split("/")
        for depth, part in enumerate(parts):
            folders.setdefault("/".join(parts[:depth]), {})[part] = None
        if name.endswith("/"):
            folders.setdefault("/".join(parts), {})
    return _Archive(opened, view, files, folders)


def _inner_view(outer: _Archive, name: str) -> memoryview:
    """The bytes of a zip file in a zip file: a part of the outer file, or a temporary file if it is compressed."""
    info = outer.zip.getinfo(name)
    if info.compress_type == zipfile.ZIP_STORED:
        start = info.header_offset + 30 + sum(struct.unpack_from("<HH", outer.view, info.header_offset + 26))
        return outer.view[start : start + info.file_size]
    with tempfile.TemporaryFile() as file, outer.zip.open(info) as packed:
        shutil.copyfileobj(packed, file)
        file.flush()
        return _map(file)


def _map(file: Any) -> memoryview:
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


class _View(io.RawIOBase):
    """A file in memory that is not copied. Its position is its own: forked processes do not disturb each other."""

    def __init__(self, view: memoryview) -> None:
        self.view, self.position = view, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.position = max(0, offset + (0, self.position, len(self.view))[whence])
        return self.position

    def readinto(self, buffer: Any) -> int:
        part = self.view[self.position : self.position + len(buffer)]
        buffer[: len(part)] = part
        self.position += len(part)
        return len(part)
