"""TIFF files: axes and planes of any layout are read, label images are written; the only user of tifffile."""

import io
import logging
import math
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import IO, Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from PIL import Image, TiffImagePlugin

from pix2seqd.files import InputError
from pix2seqd.images.jpeg import check_scans

# tifffile logs what it repairs or skips, in its own words; what concerns the user is raised here.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of TIFF and BigTIFF files."""
AXES = {"T": "time (T)", "Z": "depth (Z)", "C": "channels", "P": "positions", "I": "pages (the file names no axis)"}
"""What messages call the axes of planes; I stands for pages whose axis the file does not name."""
MAX_SAMPLES = 16
"""An unnamed last axis of at most so many values holds channels: no image is so narrow and also a stack."""
IMAGES = {
    **dict.fromkeys((6, 7, 33007, 34892), "JPEG"),
    **dict.fromkeys((33003, 33004, 33005, 34712), "JPEG2000"),
    34933: "PNG",
    **dict.fromkeys((34927, 50001), "WEBP"),
}
"""TIFF's compressions whose data are whole images, which have a size of their own; and Pillow's names of them."""
ALLOWED = 65536
"""Pixels that such an image may have, however small its tile is."""
SUB_PAGES, MAX_TAGS = 330, 4096
"""The tag with the pages below a page, and the largest number of tags of a page that tifffile reads."""
MAX_MIXED = 5000
"""Pages, with those below them, of a file whose pages differ in size or kind; tifffile compares each with all."""
SPARE = 10_000
"""Planes that a file may name without holding them; the rest of them may be in other files."""
GDAL_NODATA = 42113
"""The tag with the value of pixels without data, as text."""
RAW = (tifffile.PHOTOMETRIC.CFA, tifffile.PHOTOMETRIC.LINEAR_RAW)
"""The colours of what a camera's sensor sees."""
MAX_LEVELS = 16
"""Number of pages below the first one that are looked at."""
ALPHA = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)


def is_tiff(file: IO[bytes]) -> bool:
    """Whether a file begins as a TIFF does; it is at its start again afterwards."""
    start = file.read(4)
    file.seek(0)
    return start in MAGIC


class _File(tifffile.TiffFile):  # pyright: ignore[reportGeneralTypeIssues] # final, but two of its steps cost too much
    """A file whose structure is looked at before tifffile spends time or memory on it.

    Attributes:
        held: number of its pages, with those below them.
    """

    held = 0

    def _series_generic(self) -> Any:
        if self.held <= MAX_MIXED:
            return super()._series_generic()
        if not self.is_uniform:
            raise InputError(f"it has {self.held:,} pages of several sizes or kinds; save them as files of their own")
        return self._series_uniform()

    def _series_ome(self) -> Any:
        """Nothing, so that the pages are taken as they are, if OME-XML names far more planes than the file holds."""
        most = SPARE + 2 * self.held
        return super()._series_ome() if self._named_planes(most) <= most else []

    def _named_planes(self, most: int) -> float:
        """The largest number of planes that some part of the OME-XML names; of each, tifffile makes an entry."""
        largest, listed = 0.0, 0
        with suppress(ElementTree.ParseError, ValueError):  # tifffile says what is wrong
            for element in ElementTree.fromstring(self.ome_metadata or "").iter():
                given = element.attrib
                if element.tag.endswith("Pixels"):
                    values = math.prod(int(given.get(f"Size{axis}", 1)) for axis in "XYCZT")
                    largest = max(largest, values / max(1, self.pages.first.size))
                elif element.tag.endswith("TiffData"):
                    number = int(given.get("NumPlanes", 1 if "IFD" in given else self.held))
                    listed += int(given.get("PlaneCount", number))
                elif "Along" in element.tag and "Start" in given:
                    start, end, step = (float(given.get(name, 1)) for name in ("Start", "End", "Step"))
                    length = (end - start) / step if step else math.inf
                    largest = max(largest, length if length <= most else math.inf)
        return max(largest, listed)


class Tiff:
    """An open TIFF file, of which the largest level of a pyramid is read.

    Attributes:
        axes: lengths of the axes along which its planes lie, outermost first: T (time), Z, P (position), I (pages
            without a name), other letters of tifffile. Axes of length 1 are left out.
        channels: number of channels of a plane, alpha included.
        names: names of the channels, or empty.
        size: width and height of a plane.
        values: the largest number of values that are decoded at a time.
        others: number of images in the file that are neither planes nor smaller levels.
        page: the tags of the first plane.
        reading: held by threads that read at the same time: `ClipWriter` measures a frame while the next one is read.
    """

    def __init__(self, file: IO[bytes]) -> None:
        """Read the structure of a file at its start, not its pixels; it is used as long as planes are read.

        A file that holds no image is an `InputError`.
        """
        self._file = file
        self.reading = Lock()
        # A file of a data set of many files is read by itself: each is an image of its own in a folder.
        self._tiff = _File(file, _multifile=False, is_mmstack=False, is_ndtiff=False)
        self._checked: Any = None
        self._kept = -1, np.zeros((0, 0, 0))
        self._check_list()
        self._check_raw()
        series = [one for one in self._series() if math.prod(one.shape)]
        if not series:
            raise InputError("it holds no image; export it again")
        levels = _levels(series)
        first = max(levels, key=lambda one: math.prod(_sides(one)))
        self._image = series.index(first)
        same = [one for one in series if (one.axes, one.shape, one.dtype) == (first.axes, first.shape, first.dtype)]
        self._stacks = [one for one in same if one.keyframe.is_reduced == first.keyframe.is_reduced]
        self.page = first.keyframe
        self.others = sum(one not in [*self._stacks, *levels] and not one.keyframe.is_reduced for one in series)
        self._lead, self._inner = _split(first.axes, first.shape, self.page.ndim)
        self._whole = not {"Y", "X"} <= self._inner.keys()
        if self._whole:  # rows or columns lie on different pages
            self._lead, self._inner = {}, self._lead | self._inner
        if len(self._stacks) > 1:
            stacked = "I" if first.kind in ("shaped", "generic", "uniform") and "I" not in first.axes else "P"
            self._lead = {stacked: len(self._stacks)} | self._lead
        everything = self._lead | self._inner
        self._channel = next((axis for axis in "SC" if axis in everything), "")
        self.channels = everything.get(self._channel, 1)
        self.axes = {a: n for a, n in everything.items() if n > 1 and a not in ("Y", "X", self._channel)}
        self.size = self._inner["X"], self._inner["Y"]
        tile = self.page.tilewidth * self.page.tilelength * self.page.tiledepth if self.page.is_tiled else 0
        self.values = max(math.prod(self._inner.values()), tile)
        planes, bytes_each = math.prod(self._lead.values()), math.prod(self._inner.values()) * first.dtype.itemsize
        if planes > SPARE + 2 * max(self._tiff.held, self._tiff.filehandle.size // bytes_each):
            raise InputError(f"it names {planes:,} planes, far more than it holds; export it again")

    def _check_list(self) -> None:
        """Count the pages; refuse a list of them that leads back into itself, where tifffile would walk in circles."""
        layout = self._tiff.tiff
        tag = f"{layout.byteorder}HH{'I4s' if layout.version == 42 else 'Q8s'}"
        self._file.seek(4 if layout.version == 42 else 8)
        seen: set[int] = set()
        with suppress(struct.error, OverflowError):  # the list is cut short, see `_series`
            while place := struct.unpack(layout.offsetformat, self._file.read(layout.offsetsize))[0]:
                if place in seen:
                    raise InputError("its list of pages leads in a circle; export it again")
                seen.add(place)
                self._file.seek(place)
                tags = struct.unpack(layout.tagnoformat, self._file.read(layout.tagnosize))[0]
                content = self._file.read(min(tags, MAX_TAGS) * layout.tagsize)
                below = (count for code, _, count, _ in struct.iter_unpack(tag, content) if code == SUB_PAGES)
                self._tiff.held += 1 + sum(below)
                self._file.seek(place + layout.tagnosize + tags * layout.tagsize)

    def _check_raw(self) -> None:
        """Refuse a camera's raw file (DNG, NEF, ARW, CR2), of which only a preview would be read."""
        self._file.seek(8)
        is_raw = self._file.read(2) == b"CR"
        with suppress(Exception):  # of damaged data, see `_series`
            first = self._tiff.pages.first
            is_raw |= any(page.photometric in RAW for page in [first, *islice(first.pages or (), MAX_LEVELS)])
        if is_raw:
            raise InputError("it is a camera's raw file; export it as TIFF or JPEG")

    def _series(self) -> list[Any]:
        """Groups of equal pages; of a file with a damaged list of pages only those before the damage, as one group."""
        try:
            return self._tiff.series
        except InputError:
            raise
        except Exception:  # of damaged data, tifffile raises anything
            pages: list[Any] = [self._tiff.pages.first]
            with suppress(Exception):
                for number in range(1, len(self._tiff.pages)):
                    pages.append(self._tiff.pages[number])
            pages = [page for page in pages if page.hash == pages[0].hash]
            shape, axes = (len(pages), *pages[0].shape), "I" + pages[0].axes
            return [tifffile.TiffPageSeries(pages, shape, pages[0].dtype, axes, kind="uniform")]

    @property
    def is_cut(self) -> bool:
        """Whether the list of pages ends early, because the file is cut short or damaged."""
        end = self._tiff.pages.next_page_offset
        if end is None:
            return False
        self._file.seek(end)
        layout = self._tiff.tiff
        try:
            return struct.unpack(layout.offsetformat, self._file.read(layout.offsetsize))[0] != 0
        except struct.error:
            return True

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the channels, or empty."""
        if self.is_rgb:
            return ("red", "green", "blue", "alpha")[: self.channels]
        names: list[str] = []
        if self._tiff.is_ome and self._tiff.ome_metadata:
            images = [e for e in ElementTree.fromstring(self._tiff.ome_metadata) if e.tag.endswith("Image")]
            image = images[min(self._image, len(images) - 1)]
            names = [e.get("Name", "") for e in image.iter() if e.tag.endswith("}Channel")]
        elif self._tiff.is_imagej:
            labels = (self._tiff.imagej_metadata or {}).get("Labels", [])
            # Labels belong to planes, of which the channels lie innermost.
            names = [str(label) for label in labels[: self.channels]]
        return tuple(names) if len(names) == self.channels and all(names) else ()

    @property
    def is_rgb(self) -> bool:
        """Whether the samples of a pixel are red, green and blue, and maybe more."""
        return self._channel == "S" and self.channels >= 3 and self.page.photometric == tifffile.PHOTOMETRIC.RGB

    @property
    def is_planar(self) -> bool:
        """Whether the channels of a page lie one after the other, not side by side in each pixel."""
        return self.channels > 1 and self.page.planarconfig == tifffile.PLANARCONFIG.SEPARATE

    @property
    def alpha(self) -> int | None:
        """Which channel, from 0, is the transparency."""
        extra = self.page.extrasamples if self._channel == "S" else ()
        at = next((number for number, kind in enumerate(extra) if kind in ALPHA), None)
        return None if at is None else self.channels - len(extra) + at

    @cached_property
    def nodata(self) -> float | None:
        """The value of pixels without data in satellite images, as GDAL writes it; None: there is none."""
        with suppress(ValueError, OverflowError):
            value = float(str(self.page.tags.valueof(GDAL_NODATA)).strip("\0 "))
            dtype = self.page.dtype
            return float(dtype.type(value)) if dtype.kind == "f" else value  # a float32 is shorter than its text
        return None

    def converted(self, position: Mapping[str, int]) -> Image.Image | None:
        """A plane whose colours Pillow converts and unpacks (YCbCr, CIELAB, fax, 1 to 4 bits); otherwise None."""
        page = self._page(position)
        kinds = tifffile.PHOTOMETRIC
        plain = (kinds.MINISBLACK, kinds.MINISWHITE, kinds.RGB, kinds.PALETTE, kinds.SEPARATED)
        odd = self.page.photometric not in plain or _bits(self.page) < 8
        # Pillow calls YCbCr without compression damaged, or takes it for RGB, and mixes up the planes of CIELAB.
        odd &= (self.page.photometric, self.page.compression) != (kinds.YCBCR, 1)
        odd &= self.page.photometric != kinds.CIELAB or not self.is_planar
        if not odd or not isinstance(page.index, int) or self.page.compression not in TiffImagePlugin.COMPRESSION_INFO:
            return None
        self._check_whole(page)
        self._pillow.seek(page.index)
        return self._pillow

    def plane(self, position: Mapping[str, int], channels: Sequence[int]) -> np.ndarray:
        """Values of one plane, `[h, w, channels]`, as they are stored; do not change them.

        `position` is the index along each of `axes`, 0 where it is not given; channels are counted from 0. A plane that
        is missing or cut short is an `InputError`.
        """
        if self._channel in self._lead:
            return np.stack(list(self.channel_values(position, channels)), axis=-1)
        values = np.atleast_3d(self._values(position))
        first, count = channels[0], len(channels)
        if list(channels) == list(range(first, first + count)):
            return values[..., first : first + count]  # not a copy, which of a large image fills the memory
        return values[..., list(channels)]

    def channel_values(self, position: Mapping[str, int], channels: Sequence[int]) -> Iterator[np.ndarray]:
        """The same as `plane`, channel by channel, each `[h, w]`."""
        if self._channel in self._lead:
            yield from (self._values({**position, self._channel: channel}) for channel in channels)
            return
        values = self._values(position)
        yield from (values[..., channel] if values.ndim == 3 else values for channel in channels)

    @property
    def in_segments(self) -> bool:
        """Whether the first plane lies in the file as tiles or strips that `rows` can read one by one."""
        page, series = self.page, self._stacks[0]
        axes = "".join(self._inner)
        side_by_side = axes == "YX" or (axes in ("YXS", "YXC") and self._channel == axes[-1] and not self.is_planar)
        alone = not self._whole and self._channel not in self._lead and not series.is_truncated
        return side_by_side and alone and len(page.dataoffsets) > 1 and page.imagedepth == 1 and _bits(page) >= 8

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows of the first plane, `[stop - start, w, channels]`; only the tiles that hold them are decoded."""
        page, (width, _) = self._page({}), self.size
        if self._checked is not page:
            self._check_whole(page)
            self._checked = page
        high = self.page.tilelength if self.page.is_tiled else self.page.rowsperstrip
        parts = [self._row_of_segments(page, number) for number in range(start // high, -(-stop // high))]
        return np.concatenate(parts)[start % high :][: stop - start, :width]

    def _row_of_segments(self, page: Any, number: int) -> np.ndarray:
        """All tiles beside each other, or one strip; the last ones are kept, because bands of rows overlap."""
        if self._kept[0] != number:
            columns, parts = page.chunked[1] if page.is_tiled else 1, []
            for index in range(number * columns, (number + 1) * columns):
                self._file.seek(page.dataoffsets[index])
                content = self._file.read(page.databytecounts[index])
                options = {"jpegtables": page.jpegtables, "jpegheader": self.page.jpegheader}
                values, _, shape = self.page.decode(content or None, index, **options)
                if values is None:  # a tile that the file leaves out is empty
                    values = np.full(shape, self.page.nodata, self.page.dtype)
                parts.append(values[0])
            self._kept = number, np.concatenate(parts, axis=1)
        return self._kept[1]

    @cached_property
    def _pillow(self) -> Image.Image:
        self._file.seek(0)
        return Image.open(self._file, formats=["TIFF"])

    def _page_number(self, position: Mapping[str, int]) -> tuple[Any, int]:
        """The series and the number of the page in it."""
        place = [position.get(axis, 0) for axis in self._lead]
        number = int(np.ravel_multi_index(place, tuple(self._lead.values()))) if place else 0
        pages = max(1, math.prod(self._lead.values()) // len(self._stacks))
        return self._stacks[number // pages], number % pages

    def _page(self, position: Mapping[str, int]) -> Any:
        series, number = self._page_number(position)
        page = series[number if number < len(series) else 0]
        if page is None:
            raise InputError("the file lacks this plane; export it again")
        return page

    def _check_whole(self, page: Any) -> None:
        ends = (start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False))
        if max(ends, default=0) > self._tiff.filehandle.size:
            raise EOFError("the file ends before its pixels do")  # tifffile would fill the rest with zeros
        kind = IMAGES.get(page.compression)
        # Of any other compression (JPEG XL, LERC, ...), a small tile may unpack to an image of any size.
        if kind is None and page.compression not in TiffImagePlugin.COMPRESSION_INFO:
            name = getattr(page.compression, "name", page.compression)
            raise InputError(f"its compression, {name}, is not read; save it with another one, such as LZW or JPEG")
        if kind:
            inside = math.prod((page.tilelength, page.tilewidth) if page.is_tiled else page.shape)
            for start, count in zip(page.dataoffsets, page.databytecounts, strict=False):
                self._file.seek(start)
                _check_image(self._file.read(count), kind, max(ALLOWED, 4 * inside))

    def _values(self, position: Mapping[str, int]) -> np.ndarray:
        """Values of a page `[h, w]`, or `[h, w, channels]` if it holds them."""
        series, number = self._page_number(position)
        if self._whole:
            for page in series:
                self._check_whole(page)
            values = series.asarray()
        elif series.is_truncated and series.dataoffset is not None:
            # Only the first plane has an entry in the list of pages; the others follow it.
            count = math.prod(self._inner.values())
            self._file.seek(series.dataoffset + number * count * series.dtype.itemsize)
            content = self._file.read(count * series.dtype.itemsize)
            values = np.frombuffer(content, series.dtype.newbyteorder(self._tiff.byteorder))
        else:
            page = self._page(position)
            self._check_whole(page)
            values = page.asarray()
        values = values.reshape(tuple(self._inner.values()))
        axes = [axis for axis in self._inner if axis in ("Y", "X", self._channel)]
        values = values[tuple(slice(None) if axis in axes else position.get(axis, 0) for axis in self._inner)]
        return values.transpose([axes.index(axis) for axis in ("Y", "X", self._channel) if axis in axes])


def _check_image(content: bytes, kind: str, limit: int) -> None:
    """Refuse a compressed image of more than `limit` pixels, which would be decoded as a whole, or of many scans."""
    if kind == "JPEG":
        check_scans(content)
    try:
        with Image.open(io.BytesIO(content), formats=[kind]) as image:
            size = image.size
    except Image.DecompressionBombError:
        size = (limit, 2)
    except Exception:  # its decoder says what is wrong
        return
    if math.prod(size) > limit:
        raise InputError("a tile of it holds an image that is larger than the tile; export it again")


def write_labels(path: Path, labels: np.ndarray, pixel_size: float | None = None) -> None:
    """Write a label image, integers from 0 to 2³² - 1, `[h, w]`, as a TIFF in the manner of ImageJ.

    Values have 16 bits, or 32 where one is above 65,535. The compression is deflate, which all readers know.
    `pixel_size` is micrometres of a pixel's side, for the file's scale; None: unknown.
    """
    kind = np.uint32 if labels.max(initial=0) >= 2**16 else np.uint16
    scale = {} if pixel_size is None else {"resolution": (1 / pixel_size, 1 / pixel_size)}
    unit: dict[str, Any] = {} if pixel_size is None else {"unit": "um"}
    # tifffile's own writing of ImageJ's files refuses 32-bit integers, which ImageJ reads.
    description = tifffile.tifffile.imagej_description(labels.shape, axes="YX", mode="grayscale", **unit)
    options: dict[str, Any] = {"photometric": "minisblack", "resolutionunit": "NONE", "compression": "zlib", **scale}
    tifffile.imwrite(path, labels.astype(kind), description=description, metadata=None, **options)


def write_label_stack(
    path: Path,
    planes: Iterable[np.ndarray],
    shape: tuple[int, int, int],
    dtype: type,
    pixel_size: float | None = None,
    plane_distance: float | None = None,
) -> None:
    """Write a label stack as a compressed OME-TIFF with the axes ZYX, plane by plane, of this shape `[planes, h, w]`.

    The type is uint16 or uint32, which Fiji, napari and QuPath open. Micrometres of a pixel's side, and from one plane
    to the next, are for the file's scale; None: unknown.
    """
    layout: dict[str, Any] = {"shape": shape, "dtype": dtype, "photometric": "minisblack", "compression": "zlib"}
    metadata: dict[str, Any] = {"axes": "ZYX"}
    for axis, length in (("X", pixel_size), ("Y", pixel_size), ("Z", plane_distance)):
        if length is not None:
            metadata |= {f"PhysicalSize{axis}": length, f"PhysicalSize{axis}Unit": "µm"}
    tifffile.imwrite(path, iter(planes), **layout, ome=True, metadata=metadata)


def _bits(page: Any) -> int:
    bits = page.bitspersample
    return min(bits) if isinstance(bits, tuple) else bits


def _sides(series: Any) -> tuple[int, int]:
    return series.shape[series.axes.index("X")], series.shape[series.axes.index("Y")]


def _levels(series: list[Any]) -> list[Any]:
    """The first image of a file and its larger levels; thumbnails may come first."""
    full = [one for one in series if not one.keyframe.is_reduced] or series
    width, height = _sides(full[0])
    levels = full[:1]
    for one in full[1:]:
        wide, high = _sides(one)
        similar = abs(wide * height - high * width) <= max(wide, high)
        if similar and wide >= 2 * width - 1 and high >= 2 * height - 1 and one.axes == full[0].axes:
            levels.append(one)
    return levels


def _split(axes: str, shape: tuple[int, ...], inside: int) -> tuple[dict[str, int], dict[str, int]]:
    """Lengths of the axes across pages and within a page; axes without a name become one, I."""
    axes = axes.replace("Q", "I")
    deep = len(axes) > 2 and axes[-3:] == "IYX"
    if deep and shape[-1] <= MAX_SAMPLES < min(shape[-3:-1]):  # an array [h, w, channels], saved without its axes
        axes = axes[:-3] + "YXC"
    lead: dict[str, int] = {}
    inner: dict[str, int] = {}
    for number, (axis, length) in enumerate(zip(axes, shape, strict=True)):
        part = lead if number < len(axes) - inside else inner
        part[axis] = part.get(axis, 1) * length
    return lead, inner
