"""Images of any common format → 8-bit RGB, as a viewer shows them."""

import errno
import io
import math
import os
import stat
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageCms, ImageOps

from pix2seqd.files import InputError, printable

MAX_PIXELS = 150_000_000
"""Images with more pixels (450 MB as RGB) are refused before they are decoded: a small file can claim any size."""

Source = str | PathLike[str] | IO[bytes] | Image.Image | np.ndarray
"""What `load_image` accepts."""


def load_image(source: Source) -> Image.Image:
    """Read an image as RGB with its EXIF orientation applied.

    Colour spaces are converted (grey, bilevel, palette, CMYK, YCbCr, HSV, CIELAB); transparent pixels are laid over
    white; of an animation or a multi-page file the first frame is read. Images deeper than 8 bits a channel
    (16- and 32-bit integers, floats) are stretched linearly from their own finite minimum..maximum to 0..255: NaN
    becomes the minimum, infinities the nearest end, and a constant image black. 8-bit images keep their values.

    Args:
        source: a path, a file opened for reading bytes, a Pillow image of any mode, or an array: bool, integer or
            float `[h, w]`, `[h, w, 1]`, `[h, w, 3]` (RGB) or uint8 `[h, w, 4]` (RGBA). All channels of an array are
            stretched together.

    Returns:
        A new image of mode RGB and the size that a viewer shows; `source` is not changed.

    Raises:
        InputError: missing, unreadable, empty, truncated or not an image; more than `MAX_PIXELS` pixels; an array of
            another shape or kind.
    """
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source))
    if isinstance(source, Image.Image):
        with decoding(getattr(source, "filename", "") or "the given image"):
            return _to_rgb(source)
    if isinstance(source, io.IOBase):
        with decoding(str(getattr(source, "name", "the given file"))), Image.open(source) as image:
            return _to_rgb(image)
    if not isinstance(source, str | PathLike):
        raise InputError(f"cannot read an image from a {type(source).__name__}; give a path, a PIL image or an array")
    path = Path(source)
    _check_file(path)
    # Given a path, Pillow maps raw pixels into memory, and garbles a TIFF that is stored on its side.
    with decoding(str(path)), path.open("rb") as file, Image.open(file) as image:
        return _to_rgb(image)


def _check_file(path: Path) -> None:
    """Refuse everything but regular, non-empty files; opening a named pipe would wait forever."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; check the path") from error
    except (OSError, ValueError) as error:
        loop = isinstance(error, OSError) and error.errno == errno.ELOOP
        reason = "its symbolic links form a loop" if loop else getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {str(path)!r}: {reason}; check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} is a folder, not an image; give the files in it")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is not a regular file; save the image to a file first")
    if status.st_size == 0:
        raise InputError(f"{path} is empty (0 bytes); fetch or export it again")


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Turn every error of decoding into one `InputError` that begins with `name`, and hide Pillow's warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: {_TOO_LARGE}") from error
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{name} is not an image in a known format; convert it to PNG, JPEG or TIFF") from error
    except PermissionError as error:
        raise InputError(f"{name} may not be read (permission denied); change its permissions") from error
    except Exception as error:  # Pillow's decoders raise anything on damaged data: struct.error, IndexError, ...
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name} cannot be decoded, it is damaged or cut short ({reason}); fetch it again") from error


_TOO_LARGE = f"more than {MAX_PIXELS:,} pixels; scale it down or cut it into pieces"


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise InputError(f"{image.width} x {image.height} is {_TOO_LARGE}")
    image = _upright(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_stretch(np.asarray(image))).convert("RGB")
    if image.mode == "LAB":
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        assert converted is not None  # it is None only when working in place
        return converted
    if image.has_transparency_data:
        image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except SyntaxError:  # the EXIF block is damaged; the pixels may still be fine
        return image


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    channels = array.shape[2] if array.ndim == 3 else 1
    shaped = array.ndim in (2, 3) and array.size and (channels in (1, 3) or (channels == 4 and array.dtype == np.uint8))
    if not shaped or array.dtype.kind not in "buif":
        raise InputError(
            f"an array of shape {list(array.shape)} and type {array.dtype} is not an image; "
            "give numbers [h, w], [h, w, 3] (RGB) or uint8 [h, w, 4] (RGBA), height first"
        )
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    return Image.fromarray(np.ascontiguousarray(array if array.dtype == np.uint8 else _stretch(array)))


def _stretch(values: np.ndarray) -> np.ndarray:
    """Linear map of the finite minimum..maximum to uint8 0..255; same shape."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    if low == high:
        return np.zeros(values.shape, np.uint8)
    half = 1.0 if math.isfinite(high - low) else 0.5  # the range itself may exceed the largest float
    values = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low) * half
    return np.rint((values - low * half) / (high * half - low * half) * 255).astype(np.uint8)


IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pcx"}
    | {".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp"}
)
"""Files in a folder that are read as images; a file that is given itself may have any name."""


def find_images(arguments: Iterable[Path]) -> list[Path]:
    """The given files, and the images directly in given folders, without hidden ones; sorted, each once.

    Raises:
        InputError: a folder cannot be listed or holds no image.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        try:
            inside = list(argument.iterdir()) if argument.is_dir() else None
        except OSError as error:
            raise InputError(f"cannot list {argument}: {error.strerror}; check its permissions") from error
        if inside is not None:
            inside = [p for p in inside if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
            if not inside:
                raise InputError(f"{argument} holds no images (its subfolders are not searched); give another folder")
        for path in [argument] if inside is None else inside:
            found.setdefault(absolute(path), path)
    return [found[key] for key in sorted(found)]


def absolute(path: Path) -> str:
    """Absolute path, one per file; links are not followed, so two links to one file are two images."""
    return printable(str(Path(os.path.normpath(path)).absolute()))
