"""Files of a data set, read from a folder or directly from the zip files in which it is distributed.

Readers take a `Traversable`, the interface that `pathlib.Path` and `ZipPath` share.
"""

import functools
import io
import mmap
import posixpath
import shutil
import struct
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import IO, Any

from PIL import Image, ImageOps, UnidentifiedImageError

from pix2seqd.files import MAX_DEPTH, InputError
from pix2seqd.images.gif import check_comments
from pix2seqd.images.load import (
    EXIF_ORIENTATION,
    check_pixels,
    check_pointer,
    decoding,
    load_image,
    stored_orientation,
)

MAX_MEMBER = 2**30
"""Bytes of the largest file in a zip file that is read as a whole."""
MAX_RATIO = 200
"""How many times larger than packed such a file may be if it is larger than `FREE_BYTES`."""
FREE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class ZipPath(Traversable):
    """The path of a file or folder inside a zip file, or inside a zip file within a zip file. Read only.

    It holds names only, so that data sets can be pickled and sent to worker processes.
    """

    archives: tuple[str, ...]
    """The zip file on disk, followed by the zip files nested in it, each by its path in the one before."""
    member: str = ""
    """Path in the innermost zip file, with "/" between parts; "" is its root."""

    def joinpath(self, *descendants: Any) -> "ZipPath":
        """The path of a descendant, as with the operator "/"."""
        return ZipPath(self.archives, posixpath.join(self.member, *map(str, descendants)))

    def __str__(self) -> str:
        return "/".join((*self.archives, self.member) if self.member else self.archives)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.member or self.archives[-1])

    def is_file(self) -> bool:
        """Whether the path is a file."""
        return self.member in _archive(self.archives).files

    def is_dir(self) -> bool:
        """Whether the path is a folder."""
        return self.member in _archive(self.archives).folders

    def iterdir(self) -> Iterator["ZipPath"]:
        """The files and folders in this folder."""
        return (self.joinpath(child) for child in _archive(self.archives).folders.get(self.member, ()))

    def read_bytes(self) -> bytes:
        """The content of the file.

        Raises:
            InputError: the file is missing, damaged or too large.
        """
        try:
            return unpacked(_archive(self.archives).zip, self.member, str(self))
        except KeyError as error:
            raise InputError(f"{self} does not exist") from error
        except DAMAGED as error:
            raise InputError(f"{self} cannot be unpacked ({error}); fetch the zip file again") from error

    def read_text(self, encoding: str | None = None) -> str:
        """The content of a text file; UTF-8 by default."""
        return self.read_bytes().decode(encoding or "utf-8")

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> IO[Any]:  # type: ignore[override] # any mode
        """The file, decompressed into memory; its `name` is this path."""
        content = io.BytesIO(self.read_bytes())
        content.name = str(self)  # type: ignore[attr-defined]
        return content if "b" in mode else io.TextIOWrapper(content, *args, **kwargs)


DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, NotImplementedError, RuntimeError)
"""What `zipfile` raises for damaged and encrypted files."""


def unpacked(opened: zipfile.ZipFile, member: str, name: str) -> bytes:
    """The content of a file in a zip file; `name` is for messages.

    Raises:
        InputError: it is too large to unpack, or packed in another way than by deflate.
        KeyError: there is none.
        DAMAGED: it cannot be unpacked.
    """
    info = opened.getinfo(member)
    _check_member(info, name, MAX_MEMBER)
    with opened.open(info) as packed:
        return packed.read(info.file_size)  # without a number it unpacks more than the size that the file states


def locate(home: Traversable, path: str) -> Traversable:
    """The path of a file or folder below a folder, through zip files; it need not exist.

    Args:
        home: the folder.
        path: relative path with "/" between parts, as in "gtFine_trainvaltest.zip/gtFine/val".

    Raises:
        InputError: a zip file on the path is damaged.
    """
    for part in path.split("/"):
        home = home / part
        if part.endswith(".zip") and home.is_file():
            home = ZipPath((*home.archives, home.member) if isinstance(home, ZipPath) else (str(home),))
    return home


def find(what: str, *paths: Traversable) -> Traversable:
    """The first of several paths that exists.

    Raises:
        InputError: none exists; the message names `what` and the paths.
    """
    for path in paths:
        if path.is_dir() or path.is_file():
            return path
    raise InputError(f"{what} is missing; expected {' or '.join(dict.fromkeys(map(str, paths)))}")


def children(folder: Traversable, suffix: str = "") -> list[Traversable]:
    """The entries of a folder whose names end in `suffix`, sorted by name, without hidden files."""
    found = (child for child in folder.iterdir() if child.name.endswith(suffix) and not child.name.startswith("."))
    return sorted(found, key=lambda child: child.name)


def read_image(file: Traversable | io.BytesIO) -> Image.Image:
    """Read an image as RGB; see `load_image`.

    Its `info["notes"]` lists what was left out of it, and how its labels are taken, see `labels_orientation`.

    Args:
        file: the file, or its content with a `name` for messages.

    Raises:
        InputError: the file is missing or damaged.
    """
    notes: list[str] = []
    name = str(getattr(file, "name", "")) if isinstance(file, io.BytesIO) else str(file)
    if isinstance(file, Path | io.BytesIO):
        image = load_image(file, note=notes.append)
    else:
        with file.open("rb") as content:
            image = load_image(content, note=notes.append)
    image.filename = name  # type: ignore[attr-defined] # the attribute that Pillow sets, for messages
    image.info["notes"] = [_for_data(note.removeprefix(f"{name}: ")) for note in notes]
    return image


def _for_data(note: str) -> str:
    """A note of `load_image` with the cure for data sets, which have no options for channels and planes."""
    what, cure, _ = note.partition("; ")
    return f"{what}; to use others, save them as images of their own" if cure else what


def labels_orientation(size: tuple[int, int] | None, image: Image.Image) -> int | None:
    """The EXIF orientation by which labels have to be turned to lie on their image; `info["notes"]` says how they are.

    Args:
        size: width and height of the labels, or None if unknown.
        image: the image, from `read_image`, which shows it upright.

    Returns:
        1 if they lie on the image as it is shown; the image's orientation if they have the size in which it is stored;
        None if they have neither size.
    """
    orientation = image.info.get("orientation", 1)
    if size not in (None, image.size):
        if orientation < 5 or size != image.size[::-1]:
            return None
        how = "as stored and turned with it, as their size says"
    elif orientation >= 5 and size is not None and image.width != image.height:
        how, orientation = "as shown (upright), as their size says", 1
    elif orientation > 1:
        how, orientation = "as shown (upright), though their size does not tell", 1
    else:
        return 1
    _note(image, f"turned by the EXIF orientation; labels are taken {how}")
    return orientation


def _note(image: Image.Image, note: str) -> None:
    notes = image.info.setdefault("notes", [])
    if note not in notes:
        notes.append(note)


def find_orientation(name: str, size: tuple[int, int], own: int, image: Image.Image | None) -> int:
    """The orientation by which labels have to be turned: their own if the size fits then, or as `labels_orientation`.

    Args:
        name: of the file of the labels, for messages.
        size: width and height of the labels as they are stored.
        own: the orientation that this file has, 1 for none.
        image: the image that they belong to, from `read_image`, or None if it does not matter.

    Raises:
        InputError: the size is not that of the image.
    """
    if own > 1 and (image is None or image.size == (size[::-1] if own >= 5 else size)):
        orientation: int | None = own
        if image is not None:
            _note(image, "the labels have an orientation of their own, and are turned by it")
    else:
        orientation = 1 if image is None else labels_orientation(size, image)
    if image is not None and orientation is None:
        raise InputError(f"{name} is {size_mismatch(size, image)}")
    return orientation or 1


def size_mismatch(size: tuple[int, int], image: Image.Image) -> str:
    """What differs between the size of labels and their image, and the cure."""
    name = getattr(image, "filename", "")
    return (
        f"{size[0]} x {size[1]} but its image {name} is {image.width} x {image.height}; "
        f"export it at the image's size{turned_hint(size, image)}"
    )


def turned_hint(size: tuple[int, int], image: Image.Image) -> str:
    """A further cure where labels have the size of the image but for a quarter turn; otherwise empty."""
    return ", or turn the image, which may have lost its EXIF orientation" if size == image.size[::-1] else ""


def read_png(file: Traversable, modes: tuple[str, ...], image: Image.Image | None = None) -> Image.Image:
    """Read a label PNG (also a BMP or GIF) with its stored pixel values.

    Args:
        file: the PNG.
        modes: the allowed Pillow modes, such as "L" or "I;16".
        image: the image that the labels belong to, from `read_image`. The size is compared before decoding. Labels of
            the size in which an image with an EXIF orientation is stored are turned with it.

    Raises:
        InputError: the file is missing or damaged, or has another mode or size.
    """
    if not file.is_file():
        raise InputError(f"{file} is missing; fetch it")
    try:
        with warnings.catch_warnings(action="ignore"), file.open("rb") as content, _open_png(content, str(file)) as png:
            check_pixels(*png.size)
            own = stored_orientation(png) if "exif" in png.info else 1  # without it, Pillow would decode the pixels
            orientation = find_orientation(str(file), png.size, own, image)
            if png.mode not in modes:
                raise InputError(f"{file} is not {' or '.join(modes)} (but {png.mode}); export its labels in that mode")
            labels = _stored_values(png, str(file))
            if orientation > 1:
                labels.getexif()[EXIF_ORIENTATION] = orientation
                labels = ImageOps.exif_transpose(labels)
            return labels
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        if isinstance(error, UnidentifiedImageError):
            with file.open("rb") as content:
                check_pointer(content, str(file))
            reason = "it is none, whatever its name says"
        raise InputError(f"{file} cannot be read as PNG, BMP or GIF ({reason}); export it again") from error


def _open_png(content: IO[bytes], name: str) -> Image.Image:
    with decoding(name):
        check_comments(content)
    return Image.open(content, formats=("PNG", "BMP", "GIF"))


def _stored_values(png: Image.Image, name: str) -> Image.Image:
    """A copy of an opened PNG, BMP or GIF with the values in the file, which Pillow changes for some depths.

    Raises:
        InputError: it has several frames, or colours of 16 bits.
    """
    if (frames := getattr(png, "n_frames", 1)) > 1:
        raise InputError(f"{name} has {frames} frames; save one label image for each image")
    tiles = getattr(png, "tile", ()) if png.format == "PNG" else ()
    depth = str(tiles[0].args) if tiles else ""
    if depth.endswith(";16B") and not png.mode.startswith("I"):
        raise InputError(f"{name} has colours of 16 bits, which would lose a half; save 8 bits, or grey of 16 bits")
    labels = png.copy()
    if depth in ("L;2", "L;4"):  # spread to 0..255
        step = 255 // (2 ** int(depth[2]) - 1)
        labels = labels.point([value // step for value in range(256)])
    return labels


@dataclass(frozen=True, eq=False)
class _Archive:
    zip: zipfile.ZipFile
    view: memoryview
    """The bytes of the zip file."""
    files: frozenset[str]
    folders: dict[str, dict[str, None]]
    """Folder → names of its entries."""


@functools.cache
def _archive(archives: tuple[str, ...]) -> _Archive:
    """Open a zip file, once per process; processes forked later share it."""
    *outer, last = archives
    try:
        if outer:
            view = _inner_view(_archive(tuple(outer)), last)
        else:
            with Path(last).open("rb") as file:
                view = _map(file)
        opened = zipfile.ZipFile(io.BufferedReader(_View(view)))
    except (*DAMAGED, ValueError) as error:
        raise InputError(f"{'/'.join(archives)} is not a whole zip file ({error}); fetch it again") from error
    files = frozenset(name for name in opened.namelist() if not name.endswith("/"))
    folders: dict[str, dict[str, None]] = {"": {}}
    for name in opened.namelist():
        parts = name.rstrip("/").split("/")
        if len(parts) > MAX_DEPTH:
            raise InputError(f"{'/'.join(archives)} has folders nested more than {MAX_DEPTH} deep; make it flatter")
        for depth, part in enumerate(parts):
            folders.setdefault("/".join(parts[:depth]), {})[part] = None
        if name.endswith("/"):
            folders.setdefault("/".join(parts), {})
    return _Archive(opened, view, files, folders)


def _inner_view(outer: _Archive, name: str) -> memoryview:
    """The bytes of a nested zip file: a part of the outer file, or a temporary file if it is compressed."""
    info = outer.zip.getinfo(name)
    if info.compress_type == zipfile.ZIP_STORED:
        start = info.header_offset + 30 + sum(struct.unpack_from("<HH", outer.view, info.header_offset + 26))
        return outer.view[start : start + info.file_size]
    _check_member(info, name, shutil.disk_usage(tempfile.gettempdir()).free // 2)
    with tempfile.TemporaryFile() as file, outer.zip.open(info) as packed:
        shutil.copyfileobj(packed, file)
        file.flush()
        return _map(file)


def _check_member(info: zipfile.ZipInfo, name: str, most: int) -> None:
    """Refuse a packed file before it is unpacked: a small zip file can hold any size. No more than it says comes out.

    Raises:
        InputError: it is larger than `most`, far larger than packed, or packed in another way than by deflate.
    """
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # of others Python unpacks all at once
        raise InputError(f"{name} is packed by another method than deflate; unpack the zip file yourself")
    size = info.file_size
    if size > most or (size > FREE_BYTES and size > MAX_RATIO * info.compress_size):
        packed = f"{size:,} bytes, packed {info.compress_size:,}"
        raise InputError(f"{name} is too large to unpack here ({packed}); unpack the zip file yourself")


def _map(file: Any) -> memoryview:
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


class _View(io.RawIOBase):
    """A file over a memory view. Each object has its own position, so forked processes can read at the same time."""

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
