"""Label images, read with their stored values: PNG, TIFF, BMP and GIF."""

from pathlib import Path

import numpy as np
from PIL import Image

from pix2seqd.data.archive import read_png
from pix2seqd.files import InputError
from pix2seqd.images.load import check_plane
from pix2seqd.images.tiff import Tiff

LOSSLESS_SUFFIXES = frozenset({".png", ".tif", ".tiff", ".bmp", ".gif"})
"""Files that are read as label images, in lower case."""
MODES = ("1", "L", "P", "I", "I;16", "I;16B", "LA", "RGB", "RGBA")


def read_label_image(path: Path, image: Image.Image | None = None, *, rgb: bool = False) -> np.ndarray:
    """Read the stored values of a label image.

    Args:
        path: a PNG, TIFF, BMP or GIF.
        image: the image that the labels belong to; the sizes are compared.
        rgb: look the values of a palette up, instead of taking the indices.

    Returns:
        int64 `[h, w]` or `[h, w, channels]`.

    Raises:
        InputError: the file is missing or damaged, has another size than the image, several planes, or values that are
            not whole numbers from 0.
    """
    if path.suffix.lower() not in (".tif", ".tiff"):
        png = read_png(path, MODES, image)
        return np.asarray(png.convert("RGB") if rgb and png.mode == "P" else png).astype(np.int64)
    if not path.is_file():
        raise InputError(f"{str(path)!r} is missing; fetch it")
    pixels = _read_tiff(path)
    height, width = pixels.shape[0], pixels.shape[1]
    if image is not None and (width, height) != image.size:
        other = f"its image {getattr(image, 'filename', '')} is {image.width} x {image.height}"
        raise InputError(f"{path} is {width} x {height} but {other}; export it at the image's size")
    whole = pixels.astype(np.int64) if np.isfinite(pixels).all() else np.full(1, -1)
    if whole.min(initial=0) < 0 or not np.array_equal(whole, pixels):
        raise InputError(f"{path} has values that are not whole numbers from 0; export labels, not probabilities")
    return whole


def palette_colors(path: Path) -> dict[int, tuple[int, ...]]:
    """Palette index → colour, for the indices that occur in a label image; empty if it has no palette."""
    if path.suffix.lower() in (".tif", ".tiff"):
        return {}
    png = read_png(path, MODES)
    if png.mode != "P":
        return {}
    colors = np.array(png.getpalette("RGB")).reshape(-1, 3)
    return {i: tuple(colors[i].tolist()) for i in np.unique(np.asarray(png)).tolist() if i < len(colors)}


def _read_tiff(path: Path) -> np.ndarray:
    """Pixels `[h, w]` or `[h, w, channels]` as stored."""
    try:
        with path.open("rb") as file:
            tiff = Tiff(file)
            check_plane(tiff)
            planes = [*tiff.axes.values()]
            if tiff.channels > 4 or tiff.channels != tiff.page.samplesperpixel:
                planes.append(tiff.channels)
            pixels = None if planes else tiff.plane({}, range(tiff.channels))
    except Exception as error:  # decoders raise anything on damaged data
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path} cannot be read as TIFF ({reason}); export it again") from error
    if pixels is None:
        size = " x ".join(map(str, [*planes, *reversed(tiff.size)]))
        raise InputError(f"{path} has several planes ({size}); save one label image of one plane for each image")
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels
