"""Images whose rows are read when they are needed."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from pix2seqd.files import InputError
from pix2seqd.images import load
from pix2seqd.images.load import Pixels, TiffPixels, load_image, open_pixels

H, W = 150, 190


def values(channels: int, dtype: str) -> np.ndarray:
    shape = (H, W) if channels == 1 else (H, W, channels)
    drawn = np.random.default_rng(channels).normal(100, 30, shape)
    drawn[70:] += 40  # so that each band has its own range
    if np.dtype(dtype).kind == "f":
        drawn[3, 5] = np.nan
        drawn[100, 100] = np.inf
    return drawn.clip(0, 255).astype(dtype) if dtype == "uint8" else drawn.astype(dtype)


LAYOUTS = {
    "tiles": {"tile": (64, 32)},
    "compressed tiles": {"tile": (48, 64), "compression": "zlib", "predictor": True},
    "strips": {"rowsperstrip": 7, "compression": "lzw"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, "uint8"), (3, "uint8"), (1, "uint16"), (3, "uint16"), (1, "float32")]
)
def test_open_pixels_rows_of_a_pyramid_are_those_of_the_whole(layout, channels, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "BAND", W * 20)
    path, drawn = tmp_path / "slide.ome.tif", values(channels, dtype)
    options = {"photometric": "rgb" if channels == 3 else "minisblack", **LAYOUTS[layout]}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(drawn, subifds=2, **options)
        for level in (2, 4):
            file.write(drawn[::level, ::level], subfiletype=1, **options)
    pixels, whole = open_pixels(path), np.asarray(load_image(path))
    assert isinstance(pixels, TiffPixels) and (pixels.height, pixels.width) == (H, W)
    for start, stop in ((0, H), (60, 71), (149, 150), (0, 1), (64, 128)):
        assert np.array_equal(pixels.rows(start, stop), whole[start:stop])
    assert np.array_equal(pixels.counts, np.bincount(whole.ravel(), minlength=256))
    assert np.array_equal(np.asarray(load_image(pixels)), whole)


def test_open_pixels_reads_only_the_tiles_of_the_rows(tmp_path, monkeypatch):
    path, read = tmp_path / "a.tif", []
    tifffile.imwrite(path, values(1, "uint8"), tile=(16, 16))
    pixels = open_pixels(path)
    decode = pixels._tiff.page.decode
    monkeypatch.setattr(pixels._tiff.page, "decode", lambda data, at, **options: read.append(at) or decode(data, at))
    pixels.rows(40, 45)
    across = -(-W // 16)
    assert read == list(range(2 * across, 3 * across))


@pytest.mark.parametrize("channel", [None, 2, "green"])
def test_open_pixels_one_channel(channel, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", values(3, "uint16"), tile=(32, 32), photometric="rgb")
    shown = open_pixels(tmp_path / "a.tif", channel)
    assert np.array_equal(shown.rows(0, H), np.asarray(load_image(tmp_path / "a.tif", channel)))


def test_open_pixels_damaged_tile_is_an_error_at_once(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values(3, "uint8"), tile=(64, 64), photometric="rgb", compression="zlib")
    with tifffile.TiffFile(path) as file:
        place = file.pages.first.dataoffsets[4]
    content = bytearray(path.read_bytes())
    content[place : place + 40] = b"x" * 40
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.tif cannot be decoded"):
        open_pixels(path)


def test_open_pixels_of_an_image_in_memory_is_no_copy():
    image = Image.new("RGB", (5, 4), (1, 2, 3))
    assert open_pixels(image)._image is image
    assert open_pixels(open_pixels(image))._image is image
    turned = image.copy()
    turned.getexif()[load.EXIF_ORIENTATION] = 6
    pixels = open_pixels(turned)
    assert (pixels.width, pixels.height) == (4, 5) and type(pixels) is Pixels
