import os
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image, ImageCms

from pix2seqd.files import InputError
from pix2seqd.images import load as preprocess
from pix2seqd.images.load import absolute, image_size, load_image, open_pixels

GRADIENT = np.stack(np.broadcast_arrays(np.arange(0, 240, 8)[None, :], np.arange(0, 200, 10)[:, None], 90), -1)
RGB = Image.fromarray(GRADIENT.astype(np.uint8))  # 30 wide, 20 high, smooth: it survives palettes and JPEG


def pixels(source):
    image = load_image(source)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def lab(image):
    profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(image, *profiles, outputMode="LAB")


@pytest.mark.parametrize(
    ("image", "tolerance"),
    [
        (RGB, 0),
        (RGB.convert("RGBA"), 0),
        (RGB.convert("RGBX"), 0),
        (RGB.convert("CMYK"), 0),
        (RGB.convert("YCbCr"), 2),
        (RGB.convert("HSV"), 3),
        (lab(RGB), 4),
        (RGB.quantize(256), 8),
    ],
    ids=lambda value: getattr(value, "mode", None),
)
def test_load_image_colour_modes(tmp_path, image, tolerance):
    assert abs(pixels(image) - GRADIENT).mean() <= tolerance
    if image.mode not in ("HSV", "RGBX"):
        path = tmp_path / ("a.png" if image.mode in ("RGB", "RGBA", "P") else "a.tif")
        # Pillow 12 cannot read the uncompressed YCbCr that it writes.
        image.save(path, **({"compression": "tiff_lzw"} if path.suffix == ".tif" else {}))
        assert abs(pixels(path) - GRADIENT).mean() <= tolerance


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "tif", "webp", "jpg", "ppm"])
def test_load_image_common_formats(tmp_path, suffix):
    path = tmp_path / f"Grüße an alle.{suffix}"
    RGB.save(path)
    assert abs(pixels(path) - GRADIENT).mean() < 6
    assert abs(pixels(str(path)) - pixels(path)).max() == 0


def test_load_image_grey_and_bilevel_values(tmp_path):
    grey = Image.fromarray(np.array([[10, 20], [30, 40]], np.uint8))
    assert pixels(grey)[..., 0].tolist() == [[10, 20], [30, 40]]
    bits = Image.fromarray(np.array([[True, False]]))
    assert bits.mode == "1"
    assert pixels(bits).tolist() == [[[255] * 3, [0] * 3]]


def test_load_image_alpha_is_laid_over_white(tmp_path):
    rgba = Image.new("RGBA", (3, 1), (200, 0, 0, 255))
    rgba.putpixel((1, 0), (200, 0, 0, 0))
    rgba.putpixel((2, 0), (0, 0, 0, 128))
    assert pixels(rgba)[0].tolist() == [[200, 0, 0], [255] * 3, [127] * 3]
    grey = rgba.convert("LA")
    assert pixels(grey)[0, 1:].tolist() == [[255] * 3, [127] * 3]
    premultiplied = grey.convert("La")
    assert pixels(premultiplied)[0, 1].tolist() == [255] * 3


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_load_image_transparent_colour_is_laid_over_white(tmp_path, mode):
    image = Image.new(mode, (2, 1), 0)
    image.putpixel((1, 0), 1 if mode != "RGB" else (1, 1, 1))
    if mode == "P":
        image.putpalette([9, 9, 9, 7, 7, 7])
    path = tmp_path / "a.png"
    image.save(path, transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert pixels(path)[0].tolist() == [[255] * 3, [7] * 3 if mode == "P" else [1] * 3]


@pytest.mark.parametrize("kind", ["RGBA.png", "LA.png", "P.png", "P.gif", "RGBA.webp", "RGBA.tif", "LA.tif", "16.png"])
def test_load_image_that_is_transparent_everywhere_is_refused(tmp_path, kind):
    path, mode = tmp_path / kind, kind.partition(".")[0]
    rgba = np.dstack([GRADIENT, np.zeros((20, 30))]).astype(np.uint8)
    if mode == "16":
        path.write_bytes(imagecodecs.png_encode(rgba.astype(np.uint16) * 257))
    elif mode == "P":
        Image.new("P", (30, 20)).save(path, transparency=0)
    else:
        Image.fromarray(rgba).convert(mode).save(path)
    what = "transparent colour" if mode == "P" else "alpha channel"
    with pytest.raises(InputError, match=f"{kind}: all of it is transparent .* save it without the {what}"):
        load_image(path)
    for source in (rgba, Image.fromarray(rgba)):
        with pytest.raises(InputError, match="all of it is transparent"):
            load_image(source)


@pytest.mark.parametrize("kind", ["RGBA.png", "LA.png", "P.png", "RGBA.tif", "16.png"])
def test_load_image_with_an_alpha_of_0_and_1_is_refused(tmp_path, kind):
    """As programs write it that take 1 for what is opaque."""
    path, mode = tmp_path / kind, kind.partition(".")[0]
    rgba = np.dstack([GRADIENT, np.ones((20, 30))]).astype(np.uint8)
    if mode == "16":
        path.write_bytes(imagecodecs.png_encode(np.dstack([GRADIENT, np.ones((20, 30))]).astype(np.uint16)))
    elif mode == "P":
        Image.new("P", (30, 20)).save(path, transparency=b"\1")
    else:
        Image.fromarray(rgba).convert(mode).save(path)
    with pytest.raises(InputError, match=f"{kind}: all of it is (nearly )?transparent .* save it without"):
        load_image(path)
    for source in (rgba, Image.fromarray(rgba)):
        with pytest.raises(InputError, match=r"nearly transparent .its alpha channel is at most 1 of 255"):
            load_image(source)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "int32", "float32"])
def test_load_image_deep_tiff_is_stretched(tmp_path, dtype):
    path = tmp_path / "deep.tif"
    Image.fromarray(np.array([[1000, 2000], [3000, 1500]], dtype)).save(path)
    assert pixels(path)[..., 0].tolist() == [[0, 128], [255, 64]]


def test_load_image_16bit_png_is_stretched(tmp_path):
    path = tmp_path / "deep.png"
    Image.fromarray(np.array([[5, 6, 7]], np.uint16)).save(path)
    assert pixels(path)[0, :, 0].tolist() == [0, 128, 255]


def test_load_image_nan_and_infinity_become_the_ends():
    values = np.array([[np.nan, 1, 3], [np.inf, -np.inf, 2]])
    assert pixels(values)[..., 0].tolist() == [[0, 0, 255], [255, 0, 128]]


@pytest.mark.parametrize("value", [0, 700, np.nan, np.inf])
def test_load_image_constant_deep_image_is_black(value):
    assert not pixels(np.full((2, 3), value, float)).any()


@given(
    npst.arrays(
        st.sampled_from([np.float64, np.float32, np.int64, np.uint16, np.int8]),
        npst.array_shapes(min_dims=2, max_dims=2),
    )
)
def test_load_image_stretch_keeps_order_and_uses_full_range(values):
    with warnings.catch_warnings(), np.errstate(all="raise", under="ignore"):
        warnings.simplefilter("error")
        grey = pixels(values)[..., 0]
    finite = np.isfinite(values)
    if finite.any() and values[finite].astype(float).min() < values[finite].astype(float).max():
        assert (grey.min(), grey.max()) == (0, 255)
    order = np.argsort(values[finite], kind="stable")
    assert (np.diff(grey[finite][order]) >= 0).all()


def test_load_image_arrays():
    grey = np.array([[0, 100], [200, 255]], np.uint8)
    assert pixels(grey)[..., 1].tolist() == grey.tolist()
    assert pixels(grey[..., None])[..., 1].tolist() == grey.tolist()
    assert (pixels(GRADIENT.astype(np.uint8)) == GRADIENT).all()
    assert pixels(grey > 50)[..., 0].tolist() == [[0, 255], [255, 255]]
    rgba = np.dstack([GRADIENT, np.zeros((20, 30))]).astype(np.uint8)
    rgba[0, 0, 3] = 255
    assert (pixels(rgba)[1:] == 255).all() and pixels(rgba)[0, 0].tolist() == GRADIENT[0, 0].tolist()
    assert pixels(GRADIENT.astype(np.uint8)[::-1, ::2]).shape == (20, 15, 3)


@pytest.mark.parametrize(
    "array",
    [np.zeros(5), np.zeros((3, 8, 9)), np.zeros((0, 4)), np.zeros((2, 2, 4)), np.zeros((2, 2), complex), np.array("x")],
    ids=lambda array: f"{array.shape} {array.dtype}",
)
def test_load_image_unsupported_array_is_an_error_with_its_shape(array):
    with pytest.raises(InputError) as caught:
        load_image(array)
    assert str(list(array.shape)) in str(caught.value) and str(array.dtype) in str(caught.value)


@pytest.mark.parametrize("other", [None, b"bytes", ["a.png"], 3])
def test_load_image_other_objects_are_an_error(other):
    with pytest.raises(InputError, match=type(other).__name__):
        load_image(other)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_load_image_exif_orientation(tmp_path, suffix, orientation):
    upright = Image.fromarray(
        np.kron(np.array([[0, 80], [160, 240], [120, 40]], np.uint8), np.ones((16, 16), np.uint8))
    )
    # How a camera stores an upright image for each value of the tag.
    undo = [None, 0, 3, 1, 5, 2, 6, 4][orientation - 1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    stored.save(path, exif=exif, **({"quality": 95} if suffix != "png" else {}))
    loaded = load_image(path)
    assert loaded.size == upright.size
    assert abs(np.asarray(loaded)[..., 0].astype(int) - np.asarray(upright)).mean() < 5


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_load_image_damaged_exif(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    RGB.save(path, exif=b"Exif\0\0garbage")
    assert load_image(path).size == RGB.size


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_load_image_animation_gives_first_frame(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    frames = [Image.new("RGB", (6, 4), color) for color in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert abs(pixels(path) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("size", [(1, 1), (5000, 1), (1, 5000)])
def test_load_image_extreme_sizes(tmp_path, size):
    path = tmp_path / "a.png"
    Image.new("L", size, 7).save(path)
    assert load_image(path).size == size


def test_load_image_does_not_change_its_source():
    array = GRADIENT.astype(np.uint8)
    load_image(array).putpixel((0, 0), (1, 2, 3))
    copy = RGB.copy()
    load_image(copy).putpixel((0, 0), (1, 2, 3))
    assert (array == GRADIENT).all() and (np.asarray(copy) == GRADIENT).all()


def png(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def bad_files(folder):
    whole = folder / "whole.png"
    RGB.save(whole)
    (folder / "cut.png").write_bytes(whole.read_bytes()[:-40])
    (folder / "header.png").write_bytes(whole.read_bytes()[:20])
    RGB.save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:-100])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("hello")
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "dangling.png").symlink_to("nothing")
    os.mkfifo(folder / "pipe.png")
    (folder / "bomb.png").write_bytes(png(60_000, 60_000))
    (folder / "large.png").write_bytes(png(12_500, 12_500))  # above our limit, below Pillow's own


def test_load_image_address_is_to_be_downloaded():
    with pytest.raises(InputError, match="is an address, not a file; download it"):
        load_image("https://example.com/image.png")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.png", "does not exist"),
        ("dangling.png", "does not exist"),
        ("empty.png", "empty"),
        ("cut.png", "cut short"),
        ("cut.jpg", "cut short"),
        ("header.png", "cut short"),
        ("text.png", "known format"),
        ("folder.png", "folder"),
        ("loop.png", "loop"),
        ("pipe.png", "regular file"),
        ("bomb.png", "150,000,000 pixels"),
        ("large.png", "12500 x 12500"),
        ("whole.png/a.png", "Not a directory"),
        ("n" * 300, "too long"),
        ("nul\0.png", "null"),
    ],
)
def test_load_image_bad_file_is_a_one_line_error_with_name(tmp_path, name, reason):
    bad_files(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=reason) as caught:
            load_image(tmp_path / name)
    message = str(caught.value)
    assert "\n" not in message and name.replace("\0", "\\x00") in message
    assert "; " in message  # the cure


def test_load_image_decompression_bomb_is_not_decoded(tmp_path, monkeypatch):
    (tmp_path / "large.png").write_bytes(png(12_500, 12_500))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(InputError):
        load_image(tmp_path / "large.png")


def test_load_image_at_the_pixel_limit(monkeypatch):
    monkeypatch.setattr(preprocess, "MAX_PIXELS", 600)
    assert load_image(RGB).size == (30, 20)
    with pytest.raises(InputError, match="31 x 20"):
        load_image(Image.new("RGB", (31, 20)))


def test_load_image_pixel_limit_can_be_set(tmp_path, monkeypatch):
    RGB.save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setenv("PIX2SEQD_MAX_PIXELS", "599")
    with pytest.raises(InputError, match=r"a\.png: more than 599 pixels .*set PIX2SEQD_MAX_PIXELS"):
        load_image(tmp_path / "a.png")
    monkeypatch.setenv("PIX2SEQD_MAX_PIXELS", "600")
    assert load_image(tmp_path / "a.png").size == (30, 20)
    for bad in ("0", "-1", "many", "1e9", "٣", "9" * 5000):
        monkeypatch.setenv("PIX2SEQD_MAX_PIXELS", bad)
        with pytest.raises(InputError, match=r"PIX2SEQD_MAX_PIXELS is .*set it to a number"):
            load_image(tmp_path / "a.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_load_image_without_read_permission_is_an_error(tmp_path):
    RGB.save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(InputError, match="permission"):
        load_image(tmp_path / "a.png")


def test_load_image_hides_pillow_size_warning(tmp_path, monkeypatch):
    RGB.save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_image(tmp_path / "a.png").size == RGB.size


def test_load_image_pillow_image_of_damaged_file_is_an_error(tmp_path):
    path = tmp_path / "cut.png"
    RGB.save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with Image.open(path) as image, pytest.raises(InputError, match=r"cut\.png.*cut short"):
        load_image(image)


def test_image_size_of_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    pipe = os.open(tmp_path / "a.png", os.O_RDWR)  # otherwise opening it would wait for ever
    os.write(pipe, bytes(100))
    with pytest.raises(InputError, match="is not a regular file"):
        image_size(tmp_path / "a.png")
    os.close(pipe)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "a.webp"])
def test_load_image_rgb_is_not_copied(tmp_path, monkeypatch, name):
    """A copy of an image near the limit takes 600 MB."""
    path = tmp_path / name
    Image.effect_noise((60, 40), 50).convert("RGB").save(path)
    wanted = np.asarray(Image.open(path))
    monkeypatch.setattr(Image.Image, "copy", lambda image: pytest.fail("copied"))
    image = load_image(path)
    assert image.mode == "RGB" and np.array_equal(np.asarray(image), wanted)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_load_image_transparency_in_bands_is_that_of_the_whole(tmp_path, monkeypatch, mode):
    monkeypatch.setattr(preprocess, "BAND", 60 * 7)
    image = Image.effect_noise((60, 40), 90).convert("RGBA")
    image.putalpha(Image.effect_noise((60, 40), 120))
    image = image.quantize() if mode == "P" else image.convert(mode)
    image.save(tmp_path / "a.png")
    white = Image.new("RGBA", image.size, "white")
    wanted = Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    assert np.array_equal(np.asarray(load_image(tmp_path / "a.png")), np.asarray(wanted))


LARGE = 600, 400
DEEP = {
    "LA16.png": (2, {}),
    "RGB16.png": (3, {}),
    "RGBA16.png": (4, {}),
    "CMYK.tif": (4, {"photometric": "separated"}),
    "RGBA16.tif": (4, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "float.tif": (3, {"photometric": "rgb"}),
}


@pytest.mark.parametrize("name", DEEP)
def test_load_image_values_are_in_memory_once(tmp_path, monkeypatch, name):
    """Near the limit of pixels, each copy of 16-bit colours takes a gigabyte."""
    monkeypatch.setattr(preprocess, "BAND", LARGE[1] * 12)
    channels, options = DEEP[name]
    kind = np.float64 if name == "float.tif" else np.uint8 if name == "CMYK.tif" else np.uint16
    values = np.zeros((*LARGE, channels), kind)
    values[::7] = 200 if kind == np.uint8 else 20_000  # the file is small
    if name.endswith("png"):
        (tmp_path / name).write_bytes(imagecodecs.png_encode(values))
    else:
        tifffile.imwrite(tmp_path / name, values, rowsperstrip=10, compression="zlib", **options)
    load_image(tmp_path / name)  # what is imported and kept
    tracemalloc.start()
    load_image(tmp_path / name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.6 * values.nbytes


@pytest.mark.parametrize(
    ("body", "is_whole"),
    [*((body, False) for body in (b"1 2 65536", b"1 2 3 4", b"1 2 -1", b"1 2 4294967297")), (b"1 2 65535", True)],
)
def test_load_image_16bit_plain_ppm_is_checked(tmp_path, body, is_whole):
    (tmp_path / "a.ppm").write_bytes(b"P3 1 1 65535\n" + body)
    if is_whole:
        assert load_image(tmp_path / "a.ppm").getpixel((0, 0)) == (0, 0, 255)
    else:
        with pytest.raises(InputError, match=r"a\.ppm cannot be decoded"):
            load_image(tmp_path / "a.ppm")


@pytest.mark.parametrize(
    "content", [b"P6 4 4 " + b"9" * 20, b"BM" + bytes(60), b"P6 60000 60000 255\n", b"GIF89a", b"a"]
)
def test_image_size_of_a_damaged_image_is_one_line_with_its_name(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.png"):
        image_size(tmp_path / "a.png")


@given(st.lists(st.sampled_from(["", "/", ".", "..", "a", "..b", "ä c.png"]), min_size=1, max_size=6))
def test_absolute_is_the_path_from_the_present_folder(names):
    """As `pathlib` has it, which takes longer; results that were recorded have these paths."""
    path = Path("/".join(names))
    assert absolute(path) == str(Path(os.path.normpath(path)).absolute())


@pytest.mark.parametrize("layout", ["strips.tif", "rgb.tif", "whole.png", "float.tif"])
@pytest.mark.parametrize(("hot", "said"), [(1, 1), (0, 0), (100, 1)])
def test_load_image_says_that_few_pixels_stretch_the_range(tmp_path, layout, hot, said):
    values = np.random.default_rng(0).integers(100, 1000, (64, 64)).astype(np.uint16)
    values.ravel()[:hot] = 65535
    path = tmp_path / layout
    if layout == "whole.png":
        Image.fromarray(values).save(path)
    else:
        kinds = {"rgb.tif": np.stack([values] * 3, -1), "float.tif": values.astype(np.float32)}
        tifffile.imwrite(path, kinds.get(layout, values), rowsperstrip=16)
    for read in (load_image, open_pixels):
        notes: list[str] = []
        read(path, note=notes.append)
        assert ["99.9% of the values have at most 16 of 256 levels: clip" in note for note in notes] == [True] * said


@pytest.mark.parametrize(("value", "said"), [(-9999, 1), (0, 0)])
def test_load_image_says_that_a_value_for_no_data_stretches_the_range(tmp_path, value, said):
    values = np.random.default_rng(0).uniform(100, 300, (64, 64)).astype(np.float32)
    values[:20] = value
    tifffile.imwrite(tmp_path / "a.tif", values)
    notes: list[str] = []
    load_image(tmp_path / "a.tif", note=notes.append)
    assert ["a value for no data" in note for note in notes] == [True] * said


def test_load_image_range_of_one_value_or_of_8_bits_is_not_judged(tmp_path):
    notes: list[str] = []
    drawn = {"a": np.full((9, 9), 700, np.uint16), "b": np.eye(64, dtype=np.uint8), "c": np.eye(9, dtype=np.uint16)}
    for name, values in drawn.items():
        tifffile.imwrite(tmp_path / f"{name}.tif", values)
        load_image(tmp_path / f"{name}.tif", note=notes.append)
    assert not notes
