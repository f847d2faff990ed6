"""Label images, read with their stored values: PNG, TIFF, BMP and GIF, or an array of NumPy."""

from pathlib import Path

import numpy as np
from PIL import Image

from pix2seqd.data.archive import find_orientation, read_png
from pix2seqd.files import InputError
from pix2seqd.images.load import check_pixels, check_plane, tiff_orientation, upright
from pix2seqd.images.tiff import Tiff, is_tiff

LOSSLESS_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp", ".gif"})
"""Files that are read as label images, in lower case."""
ARRAY = ".npy"
"""Suffix of arrays, which are read as label images too."""
MODES = ("1", "L", "P", "I", "I;16", "I;16B", "LA", "RGB", "RGBA")


def read_label_image(path: Path, image: Image.Image | None = None, *, rgb: bool = False) -> np.ndarray:
    """Read the stored values of a PNG, TIFF, BMP, GIF or a file of NumPy: int64 `[h, w]` or `[h, w, channels]`.

    `image` is the one that the labels belong to, from `read_image`; the sizes are compared. Labels with an orientation
    of their own are turned by it, and those of the size in which an image with an EXIF orientation is stored with it.
    With `rgb`, values of a palette are looked up. A file that is missing or damaged, or has another size than the
    image, several planes, values that are not whole numbers from 0, or colours whose alpha channel says more than they
    do, is an `InputError`.
    """
    is_array = path.suffix.lower() == ARRAY
    if not is_array and not _is_tiff(path):
        png = read_png(path, MODES, image)
        pixels = np.asarray(png.convert("RGB") if rgb and png.mode == "P" else png).astype(np.int64)
        if png.mode == "RGBA":
            check_alpha(path, pixels)
        return pixels
    pixels, own = (_read_array(path), 1) if is_array else _read_tiff(path)
    pixels = upright(pixels, find_orientation(str(path), (pixels.shape[1], pixels.shape[0]), own, image))
    usable = not np.iscomplexobj(pixels) and np.isfinite(pixels).all()
    if pixels.dtype.kind == "f" and np.isnan(pixels).any() and not (np.nan_to_num(pixels) % 1).any():
        raise InputError(
            f"{path} has pixels that are no number (NaN); save those without a label as 255 or 65535, and declare that "
            "as void"
        )
    whole = pixels.astype(np.int64) if usable else np.full(1, -1)
    if usable and np.array_equal(whole, pixels) and whole.min(initial=0) < 0:
        raise InputError(
            f"{path} has values that are not whole numbers from 0, such as {whole.min()}; "
            "save pixels without a label as 255 or 65535, and declare that as void; where 0 is an object, add 1 to all"
        )
    if whole.min(initial=0) < 0 or not np.array_equal(whole, pixels):
        raise InputError(f"{path} has values that are not whole numbers from 0; export labels, not probabilities")
    return whole


def check_alpha(path: Path, pixels: np.ndarray) -> None:
    """Raise an `InputError` if pixels `[h, w, channels]` of one colour differ in alpha, the last channel."""
    alpha = pixels[..., -1]
    if alpha.min(initial=255) == alpha.max(initial=0):
        return
    values = pixels[..., :-1] @ 256 ** np.arange(pixels.shape[2] - 1)
    if len(np.unique(values)) < len(np.unique(values * 256 + alpha)):
        raise InputError(
            f"{path} has pixels of one colour that differ in the alpha channel, which would be left out; "
            "save the labels without it, or, if it is the mask, save it alone as a grey image; if a class and the "
            "number of an object are in different channels (BDD100K), save class * 1000 + number as grey of 16 bits"
        )


def palette_colors(path: Path) -> dict[int, tuple[int, ...]]:
    """Palette index → colour, for the indices that occur in a label image; empty if it has no palette."""
    if path.suffix.lower() == ARRAY or _is_tiff(path):
        return {}
    png = read_png(path, MODES)
    if png.mode != "P":
        return {}
    colors = np.array(png.getpalette("RGB")).reshape(-1, 3)
    return {i: tuple(colors[i].tolist()) for i in np.unique(np.asarray(png)).tolist() if i < len(colors)}


def _is_tiff(path: Path) -> bool:
    """Whether a file is a TIFF, whatever its name; one that is missing is none."""
    if not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return is_tiff(file)
    except OSError:  # it is reported where it is read
        return False


def _read_array(path: Path) -> np.ndarray:
    """Values `[h, w]` as stored. Objects of Python are not opened, since they can run code."""
    try:
        pixels = np.lib.format.open_memmap(path, mode="r")  # a small file cannot claim a large array so
    except Exception as error:  # of a damaged head: TypeError, TokenError, ...
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as array ({reason}); save the label image as PNG or TIFF") from error
    if pixels.ndim != 2 or pixels.dtype.kind not in "buif":
        kind = f"shape {' x '.join(map(str, pixels.shape))} and type {pixels.dtype}"
        raise InputError(f"{path} is an array of {kind}; save one label image [h, w] of numbers for each image")
    check_pixels(pixels.shape[1], pixels.shape[0])
    return pixels


def _read_tiff(path: Path) -> tuple[np.ndarray, int]:
    """Pixels `[h, w]` or `[h, w, channels]` as stored, and their orientation."""
    try:
        with path.open("rb") as file:
            tiff = Tiff(file)
            check_plane(tiff)
            planes, orientation = [*tiff.axes.values()], tiff_orientation(tiff)
            if tiff.channels > 4 or tiff.channels != tiff.page.samplesperpixel:
                planes.append(tiff.channels)
            pixels = None if planes else tiff.plane({}, range(tiff.channels))
            if pixels is not None and tiff.is_planar and _are_planes(pixels):
                planes, pixels = [tiff.channels], None
    except Exception as error:  # decoders raise anything on damaged data
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} cannot be read as TIFF ({reason}); export it again") from error
    if pixels is None:
        size = " x ".join(map(str, [*planes, *reversed(tiff.size)]))
        raise InputError(f"{path} has several planes ({size}); save one label image of one plane for each image")
    if pixels.shape[2] > 2 and pixels.max(initial=0) > 255:
        raise InputError(f"{path} has colours of 16 bits, whose meaning is not known; save 8 bits, or grey of 16 bits")
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels, orientation


def _are_planes(channels: np.ndarray) -> bool:
    """Whether planar channels `[h, w, channels]` are several label images, which programs save as [3, h, w] too."""
    values = [np.unique(channel) for channel in np.moveaxis(channels, -1, 0)]
    numbered = all(len(found) > 1 and np.array_equal(found, np.arange(len(found))) for found in values)
    return numbered or channels.max(initial=0) > 255
