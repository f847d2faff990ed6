import io
import struct
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from pix2seqd.files import InputError
from pix2seqd.images import load, tiff
from pix2seqd.images.frames import open_clip
from pix2seqd.images.load import image_size, load_image, open_pixels

H, W = 40, 56
RNG = np.random.default_rng(7)
DEEP = ["uint16", "int16", "uint32", "int32", "uint64", "float16", "float32", "float64", "int8"]


def drawn(*shape, dtype="uint16"):
    """Values that need more than 8 bits: 12 bits, as cameras have, in another order in every array."""
    values = RNG.permutation(np.linspace(0, 4095, int(np.prod(shape)))).reshape(shape)
    return (values / 41 if dtype in ("uint8", "int8") else values).astype(dtype)


def stretched(values):
    values = values.astype(float)
    return np.rint((values - values.min()) / (values.max() - values.min()) * 255).astype(int)


def read(path, channel=None):
    """Values of the image, and the notes."""
    notes: list[str] = []
    image = load_image(path, channel, notes.append)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int), notes


def grey(values):
    return np.repeat(values[..., None], 3, axis=-1)


def save(folder, values, **options):
    path = folder / "a.tif"
    tifffile.imwrite(path, values, **options)
    return path


@pytest.mark.parametrize("dtype", [*DEEP, "uint8"])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_load_image_rgb_tiff(tmp_path, dtype, planarconfig, byteorder):
    values = drawn(H, W, 3, dtype=dtype)
    stored = values if planarconfig == "contig" else np.moveaxis(values, -1, 0)
    path = save(tmp_path, stored, photometric="rgb", planarconfig=planarconfig, byteorder=byteorder)
    expected = values if dtype == "uint8" else stretched(values)
    shown, notes = read(path)
    assert (shown == expected).all() and not notes


@pytest.mark.parametrize("dtype", [*DEEP, "uint8"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_load_image_grey_tiff(tmp_path, dtype, byteorder):
    values = drawn(H, W, dtype=dtype)
    path = save(tmp_path, values, byteorder=byteorder)
    assert (read(path)[0] == grey(values if dtype == "uint8" else stretched(values))).all()


def test_load_image_12_bits_in_16bit_rgb_keep_their_levels(tmp_path):
    values = np.linspace(0, 208, H * W * 3).astype("uint16").reshape(H, W, 3)
    shown, _ = read(save(tmp_path, values, photometric="rgb"))
    assert len(np.unique(shown)) == 209


@pytest.mark.parametrize("compression", ["lzw", "zlib", "adobe_deflate", "zstd", "packbits", "lzma"])
@pytest.mark.parametrize(
    ("dtype", "layout"),
    [
        ("uint8", {}),
        ("uint16", {"tile": (16, 32)}),
        ("uint16", {"predictor": True}),
        ("float32", {"rowsperstrip": 7}),
        ("float32", {"predictor": True}),
    ],
)
def test_load_image_compressed_tiff(tmp_path, compression, dtype, layout):
    values = drawn(3, H, W, dtype=dtype)
    path = save(tmp_path, values, photometric="rgb", planarconfig="separate", compression=compression, **layout)
    expected = np.moveaxis(values, 0, -1)
    assert (read(path)[0] == (expected if dtype == "uint8" else stretched(expected))).all()


@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}])
def test_load_image_jpeg_in_tiff_equals_pillow(tmp_path, photometric, layout):
    rows, columns = np.mgrid[:H, :W]
    values = np.stack([rows * 4, columns * 3, rows + columns], -1).astype("uint8")
    values = values if photometric == "rgb" else values[..., 0]
    path = save(tmp_path, values, photometric=photometric, compression="jpeg", **layout)
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert (read(path)[0] == expected).all()
    assert abs(expected - (values if photometric == "rgb" else grey(values))).mean() < 12


def test_load_image_bigtiff(tmp_path):
    values = drawn(H, W, 3)
    assert (read(save(tmp_path, values, photometric="rgb", bigtiff=True))[0] == stretched(values)).all()


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_load_image_packed_bits_tiff(tmp_path, bits):
    values = drawn(H, W) >> (12 - min(bits, 12))
    assert (read(save(tmp_path, values, bitspersample=bits))[0] == grey(stretched(values))).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_load_image_white_is_zero_tiff(tmp_path, dtype):
    values = drawn(H, W, dtype=dtype)
    expected = values if dtype == "uint8" else stretched(values)
    assert (read(save(tmp_path, values, photometric="miniswhite"))[0] == grey(255 - expected.astype(int))).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
def test_load_image_alpha_tiff_is_laid_over_white(tmp_path, dtype, colours, planarconfig):
    most = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    values = np.concatenate([drawn(2, 2, colours, dtype=dtype), np.zeros((2, 2, 1), dtype)], -1)
    values[0, 0, -1] = most
    stored = values if planarconfig == "contig" else np.moveaxis(values, -1, 0)
    kind = "rgb" if colours == 3 else "minisblack"
    shown, notes = read(
        save(tmp_path, stored, photometric=kind, planarconfig=planarconfig, extrasamples=["unassalpha"])
    )
    expected = values[..., :-1] if dtype == "uint8" else stretched(values[..., :-1])
    assert (shown[0, 0] == expected[0, 0]).all() and not notes
    assert (shown[1] == 255).all() and (shown[0, 1] == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "LAB"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "packbits"])
def test_load_image_8bit_tiff_equals_pillow(tmp_path, mode, compression):
    samples = {"L": 1, "1": 1, "P": 1, "RGB": 3, "LAB": 3}.get(mode, 4)
    values = drawn(H, W, samples, dtype="uint8")
    image = Image.frombytes("L" if mode in "1P" else mode, (W, H), values.tobytes())
    if mode == "1":
        image = image.convert("1")
    elif mode == "P":
        image = image.convert("RGB").quantize(32)
    image.save(tmp_path / "a.tif", compression=compression)
    with Image.open(tmp_path / "a.tif") as stored:
        expected = load_image(stored)
    assert (read(tmp_path / "a.tif")[0] == np.asarray(expected)).all()


@pytest.mark.parametrize("compression", ["group3", "group4", "tiff_ccitt"])
def test_load_image_fax_tiff(tmp_path, compression):
    bits = Image.fromarray(drawn(H, W, dtype="uint8") > 50)
    bits.save(tmp_path / "a.tif", compression=compression)
    assert (read(tmp_path / "a.tif")[0] == grey(np.asarray(bits) * 255)).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_load_image_palette_tiff(tmp_path, dtype):
    most = 2 ** (8 * np.dtype(dtype).itemsize)
    colours = RNG.integers(0, 65536, (3, most)).astype("uint16")
    values = RNG.integers(0, most, (H, W)).astype(dtype)
    shown, _ = read(save(tmp_path, values, photometric="palette", colormap=colours))
    assert (shown == np.moveaxis(colours[:, values], 0, -1) >> 8).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
def test_load_image_cmyk_tiff(tmp_path, dtype, planarconfig):
    values = drawn(H, W, 4, dtype=dtype) << (0 if dtype == "uint8" else 4)
    stored = values if planarconfig == "contig" else np.moveaxis(values, -1, 0)
    shown, _ = read(save(tmp_path, stored, photometric="separated", planarconfig=planarconfig))
    upper = (values >> 8 * (values.itemsize - 1)).astype("uint8")
    assert (shown == np.asarray(Image.frombytes("CMYK", (W, H), upper.tobytes()).convert("RGB"))).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_load_image_tiff_orientation(tmp_path, orientation, dtype):
    values = drawn(H, W, 3, dtype=dtype)
    path = save(tmp_path, values, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    undo = [None, 0, 3, 1, 5, 4, 6, 2][orientation - 1]
    expected = Image.fromarray((values if dtype == "uint8" else stretched(values)).astype("uint8"))
    expected = expected if undo is None else expected.transpose(Image.Transpose(undo))
    shown, _ = read(path)
    assert shown.shape == (expected.height, expected.width, 3) and (shown == np.asarray(expected)).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float64"])
@pytest.mark.parametrize(("channels", "taken"), [(2, 2), (3, 3), (4, 1), (5, 1), (12, 1)])
@pytest.mark.parametrize("layout", ["contig", "separate", "ome", "imagej", "axes", "unnamed"])
def test_load_image_channels_tiff(tmp_path, dtype, channels, taken, layout):
    if layout == "imagej" and dtype == "float64":
        dtype = "float32"
    values = drawn(H, W, channels, dtype=dtype)
    first = np.ascontiguousarray(np.moveaxis(values, -1, 0))
    if layout == "unnamed":  # tifffile stores [h, w, 5] as h pages of w rows
        if channels in (3, 4):
            pytest.skip("tifffile takes these for colours")
        path = save(tmp_path, values)
    elif layout in ("contig", "separate"):
        stored = values if layout == "contig" else first
        path = save(tmp_path, stored, photometric="minisblack", planarconfig=layout)
    else:
        kind = {} if layout == "axes" else {layout: True}
        path = save(tmp_path, first, photometric="minisblack", metadata={"axes": "CYX"}, **kind)
    expected = values[..., :taken]
    expected = expected if dtype == "uint8" else stretched(expected)
    if taken == 1:
        expected = np.repeat(expected, 3, axis=-1)
    elif taken == 2:
        expected = np.concatenate([expected, np.zeros((H, W, 1), int)], -1)
    shown, notes = read(path)
    assert (shown == expected).all()
    assert len(notes) == 1 and "--channel" in notes[0] and str(path) in notes[0]
    one, notes = read(path, channels)
    assert (one == grey(values[..., -1] if dtype == "uint8" else stretched(values[..., -1]))).all() and not notes
    assert (read(path, str(channels))[0] == one).all()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_load_image_rgb_with_more_channels_says_so(tmp_path, dtype):
    values = drawn(H, W, 5, dtype=dtype)
    shown, notes = read(save(tmp_path, values, photometric="rgb", planarconfig="contig"))
    expected = values[..., :3] if dtype == "uint8" else stretched(values[..., :3])
    assert (shown == expected).all()
    assert len(notes) == 1 and "the first 3 of 5 channels are taken, as colours; --channel" in notes[0]


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("kind", ["grey", "palette"])
def test_load_image_few_bits_tiff_equals_pillow(tmp_path, bits, kind):
    values = RNG.integers(0, 2**bits, (H, W)).astype("uint8")
    packed = np.packbits(np.unpackbits(values[..., None], axis=-1)[..., -bits:].reshape(H, -1), axis=-1)
    colours = {320: tuple(RNG.integers(0, 65536, 3 * 2**bits).tolist())} if kind == "palette" else {}
    directory = ImageFileDirectory_v2()
    tags = {256: W, 257: H, 258: bits, 259: 1, 262: 3 if colours else 1, 277: 1, 278: H, 279: packed.size, 273: 0}
    for tag, value in {**tags, **colours}.items():
        directory[tag] = value
    content = io.BytesIO(b"II*\0" + struct.pack("<I", 8))
    content.seek(0, io.SEEK_END)
    directory.save(content)  # it makes the place of the strip relative to its own end
    content.write(packed.tobytes())
    (tmp_path / "a.tif").write_bytes(content.getvalue())
    with Image.open(tmp_path / "a.tif") as image:
        expected = np.asarray(image.convert("RGB"))
    assert (read(tmp_path / "a.tif")[0] == expected).all()
    if not colours:
        assert (expected[..., 0] == values * (255 // (2**bits - 1))).all()


def test_load_image_ycbcr_tiff_equals_pillow(tmp_path):
    Image.fromarray(drawn(H, W, 3, dtype="uint8")).save(tmp_path / "a.tif", compression="jpeg", quality=90)
    Image.fromarray(drawn(H, W, 3, dtype="uint8")).convert("YCbCr").save(tmp_path / "b.tif", compression="tiff_lzw")
    for name in ("a.tif", "b.tif"):
        with Image.open(tmp_path / name) as image:
            assert (read(tmp_path / name)[0] == np.asarray(image.convert("RGB"))).all()


def test_load_image_channel_names(tmp_path):
    values = drawn(4, H, W)
    names = ["DAPI", "GFP", "488", "Cy5"]
    ome = tmp_path / "ome.tif"
    tifffile.imwrite(
        ome, values, ome=True, photometric="minisblack", metadata={"axes": "CYX", "Channel": {"Name": names}}
    )
    imagej = tmp_path / "imagej.tif"
    tifffile.imwrite(imagej, values, imagej=True, metadata={"axes": "CYX", "Labels": names})
    for path in (ome, imagej):
        for number, name in enumerate(names):
            assert (read(path, name.lower())[0] == grey(stretched(values[number]))).all()
        assert "DAPI, GFP, 488, Cy5" in read(path)[1][0]
        with pytest.raises(
            InputError, match=r"'mCherry' is not a channel of it; give a number from 1 to 4 \(DAPI, GFP"
        ):
            load_image(path, "mCherry")


@pytest.mark.parametrize("channel", [0, 4, "0", "-1", "1.5", "", "blue-ish"])
def test_load_image_unknown_channel_is_an_error(tmp_path, channel):
    path = save(tmp_path, drawn(H, W, 3, dtype="uint8"), photometric="rgb")
    with pytest.raises(
        InputError, match=r"a\.tif: .*is not a channel of it; give a number from 1 to 3 \(red, green, blue"
    ):
        load_image(path, channel)
    Image.new("RGB", (3, 3)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: .*is not a channel of it"):
        load_image(tmp_path / "a.png", channel)


def test_load_image_channel_of_colours(tmp_path):
    values = drawn(H, W, 3, dtype="uint8")
    paths = [tmp_path / name for name in ("a.png", "a.tif", "palette.tif")]
    for path in paths[:2]:
        Image.fromarray(values).save(path)
    Image.fromarray(values).quantize(64).save(paths[2])
    for path in paths:
        colours = read(path)[0]
        for number, name in enumerate(("red", "green", "blue")):
            assert (read(path, name)[0] == grey(colours[..., number])).all()
            assert (read(path, number + 1)[0] == grey(colours[..., number])).all()
    assert (np.asarray(load_image(values, "green")) == grey(values[..., 1])).all()
    many = drawn(H, W, 7)
    assert (np.asarray(load_image(many, 6)) == grey(stretched(many[..., 5]))).all()


@pytest.mark.parametrize("kind", [{"ome": True}, {"imagej": True}, {}])
def test_load_image_takes_first_plane_and_says_what_is_left_out(tmp_path, kind):
    values = drawn(5, 3, 2, H, W)
    path = save(tmp_path, values, metadata={"axes": "TZCYX"}, photometric="minisblack", **kind)
    shown, notes = read(path)
    assert (shown[..., :2] == stretched(np.moveaxis(values[0, 0], 0, -1))).all()
    assert "the first of 15 planes is taken, 14 left out" in notes[0] and "time (T): 5, depth (Z): 3" in notes[0]
    assert "`pix2seqd video`" in notes[0] and "`pix2seqd segment`" in notes[0] and len(notes) == 2


def test_load_image_depths_name_the_command_that_takes_them(tmp_path):
    path = save(tmp_path, drawn(6, H, W), metadata={"axes": "ZYX"}, photometric="minisblack")
    _, notes = read(path)
    assert len(notes) == 1 and "5 left out (depth (Z): 6); `pix2seqd video FILE --along z` goes" in notes[0]
    path = save(tmp_path, drawn(5, 3, H, W), metadata={"axes": "TZYX"}, photometric="minisblack")
    assert "along time (T); `pix2seqd video FILE --along z` goes" in read(path)[1][0]


def test_load_image_declared_axes_beat_planar_colours(tmp_path):
    values = drawn(3, H, W)
    path = save(tmp_path, values, metadata={"axes": "ZYX"}, photometric="rgb", planarconfig="separate")
    assert (read(path)[0] == grey(stretched(values[0]))).all()


def test_load_image_volume_in_one_page(tmp_path):
    values = drawn(32, 48, 64)
    path = save(tmp_path, values, volumetric=True, tile=(16, 16, 16), compression="zlib")
    shown, notes = read(path)
    assert (shown == grey(stretched(values[0]))).all() and "31 left out" in notes[0]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("flagged", [True, False])
@pytest.mark.parametrize("order", ["subifds", "large first", "small first"])
def test_load_image_pyramid_gives_largest_level(tmp_path, dtype, flagged, order):
    values = drawn(256, 384, dtype=dtype)
    levels = [values, values[::2, ::2], values[::4, ::4]]
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        for level in levels[::-1] if order == "small first" else levels:
            whole = level is values
            tiff.write(
                level,
                subifds=2 if order == "subifds" and whole else None,
                subfiletype=1 if flagged and not whole else 0,
                tile=(64, 64),
                metadata=None,
            )
    shown, notes = read(path)
    assert (shown == grey(values if dtype == "uint8" else stretched(values))).all() and not notes


def test_load_image_ome_pyramid(tmp_path):
    values = drawn(4, 256, 256)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as tiff:
        tiff.write(values, subifds=1, metadata={"axes": "CYX"}, photometric="minisblack", tile=(64, 64))
        tiff.write(values[:, ::2, ::2], subfiletype=1, photometric="minisblack", tile=(64, 64))
    assert (read(tmp_path / "a.ome.tif", 3)[0] == grey(stretched(values[2]))).all()


def test_load_image_of_several_sizes_takes_first_and_says_so(tmp_path):
    small, large = drawn(40, 56, dtype="uint8"), drawn(90, 70, dtype="uint8")
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(small, metadata=None)
        tiff.write(large, metadata=None)
    shown, notes = read(tmp_path / "a.tif")
    assert (shown == grey(small)).all() and len(notes) == 1 and "1 more images in it" in notes[0]


def test_load_image_file_of_a_set_is_read_by_itself(tmp_path):
    """Every file of a multi-file OME-TIFF describes the whole; each is an image of its own."""
    values = drawn(2, H, W)
    plane = '<TiffData FirstT="{0}" IFD="0" PlaneCount="1"><UUID FileName="{0}.ome.tif">urn:uuid:{0}</UUID></TiffData>'
    for number in (0, 1):
        xml = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{number}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" '
            f'SizeX="{W}" SizeY="{H}" SizeC="1" SizeZ="1" SizeT="2">'
            f"{plane.format(0)}{plane.format(1)}</Pixels></Image></OME>"
        )
        tifffile.imwrite(tmp_path / f"{number}.ome.tif", values[number], description=xml, metadata=None)
    for number in (0, 1):
        assert (read(tmp_path / f"{number}.ome.tif")[0] == grey(stretched(values[number]))).all()


def test_load_image_tiff_from_a_stream():
    content = io.BytesIO()
    values = drawn(H, W, 3)
    tifffile.imwrite(content, values, photometric="rgb")
    content.seek(0)
    assert (np.asarray(load_image(content)) == stretched(values)).all()


@pytest.mark.parametrize(
    "options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}, {"compression": "lzw", "predictor": True}]
)
@pytest.mark.parametrize("shape", [(3, H, W), (H, W, 3)])
def test_load_image_cut_tiff_is_an_error(tmp_path, options, shape):
    path = save(tmp_path, drawn(*shape), photometric="rgb", **options)
    whole = path.read_bytes()
    for share in (0.3, 0.6, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(InputError, match=r"a\.tif cannot be decoded, it is damaged or cut short") as caught:
            load_image(path)
        assert "\n" not in str(caught.value)


def test_load_image_complex_tiff_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"a\.tif: .*complex64; save integers or floats"):
        load_image(save(tmp_path, drawn(H, W).astype("complex64")))


def header(**tags: int) -> bytes:
    """A TIFF without pixels."""
    directory = ImageFileDirectory_v2()
    values = {256: 64, 257: 64, 258: 16, 259: 8, 262: 1, 277: 1, 273: 8, 279: 10, 278: 64}
    for tag, value in {**values, **{int(name[1:]): value for name, value in tags.items()}}.items():
        directory[tag] = value
    content = io.BytesIO()
    content.write(b"II*\0" + struct.pack("<I", 8))
    directory.save(content)
    return content.getvalue()


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"t256": 60_000, "t257": 60_000}, r"150,000,000 pixels \(60000 x 60000\)"),
        ({"t256": 12_500, "t257": 12_500}, r"150,000,000 pixels \(12500 x 12500\)"),
        ({"t322": 60_000, "t323": 60_000, "t324": 8, "t325": 10}, "a tile of it"),
        ({"t256": 12_000, "t257": 12_000, "t277": 20}, "too many to read"),
    ],
)
def test_load_image_huge_tiff_is_not_decoded(tmp_path, monkeypatch, tags, reason):
    (tmp_path / "a.tif").write_bytes(header(**tags))
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match=reason):
        load_image(tmp_path / "a.tif")


def test_load_image_tiff_at_the_pixel_limit(tmp_path, monkeypatch):
    path = save(tmp_path, drawn(H, W))
    monkeypatch.setattr(load, "MAX_PIXELS", H * W)
    load_image(path)
    monkeypatch.setattr(load, "MAX_PIXELS", H * W - 1)
    with pytest.raises(InputError, match="56 x 40"):
        load_image(path)


@pytest.mark.parametrize("suffix", ["eps", "ps", "pdf", "wmf", "ico", "tga", "png"])
def test_load_image_other_formats_are_never_opened(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"a.{suffix}"
    content = {
        "wmf": b"\xd7\xcd\xc6\x9a\0\0" + bytes(40),
        "png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n",
    }
    if suffix in content:
        path.write_bytes(content[suffix])
    else:
        Image.new("RGB", (16, 16)).save(path, format={"ps": "EPS"}.get(suffix))
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("another program is called"))
    with pytest.raises(InputError, match=r"known format \(JPEG, PNG, TIFF, BMP, GIF, WebP, AVIF, PNM\); convert it"):
        load_image(path)


def png16(values):
    import imagecodecs

    return imagecodecs.png_encode(values)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_load_image_16bit_png_keeps_its_levels(tmp_path, channels):
    values = drawn(H, W, channels)
    colours = values if channels == 3 else values[..., :-1]
    if channels != 3:
        values[..., -1] = 65535
    (tmp_path / "a.png").write_bytes(png16(values))
    expected = stretched(colours)
    assert (read(tmp_path / "a.png")[0] == (expected if channels > 2 else np.repeat(expected, 3, -1))).all()
    (tmp_path / "b.png").write_bytes(png16(values)[:-400])
    with pytest.raises(InputError, match="cut short"):
        load_image(tmp_path / "b.png")


@pytest.mark.parametrize("plain", [True, False])
def test_load_image_16bit_ppm_keeps_its_levels(tmp_path, plain):
    values = drawn(H, W, 3)
    body = " ".join(map(str, values.ravel())).encode() if plain else values.astype(">u2").tobytes()
    (tmp_path / "a.ppm").write_bytes(b"%s\n%d %d\n65535\n" % (b"P3" if plain else b"P6", W, H) + body)
    assert (read(tmp_path / "a.ppm")[0] == stretched(values)).all()


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif"])
def test_load_image_animation_says_how_many_frames_are_left_out(tmp_path: Path, suffix):
    frames = [Image.new("RGB", (32, 24), (60 * k,) * 3) for k in range(1, 4)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    _, notes = read(tmp_path / f"a.{suffix}")
    assert len(notes) == 1 and "the first of 3 frames is taken" in notes[0] and "`pix2seqd video`" in notes[0]


def strip(content, side, compression):
    """A grey TIFF of `side` x `side` pixels in one strip."""
    tags = {256: side, 257: side, 258: 8, 259: compression, 262: 1, 273: 8, 277: 1, 278: side, 279: len(content)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<4sI", b"II*\0", 8 + len(content)) + content + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    ("codec", "compression"),
    [("jpeg8", 7), ("jpeg8", 33007), ("jpeg8", 34892), ("png", 34933), ("jpeg2k", 34712), ("jpeg2k", 33004)],
)
def test_load_image_tile_that_is_larger_inside_is_not_decoded(tmp_path, codec, compression, monkeypatch):
    encode, path = getattr(imagecodecs, f"{codec}_encode"), tmp_path / "a.tif"
    path.write_bytes(strip(encode(np.zeros((H, H), np.uint8)), H, compression))
    assert load_image(path).size == (H, H)
    path.write_bytes(strip(encode(np.zeros((600, 600), np.uint8)), H, compression))
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match="larger than the tile"):
        load_image(path)


@pytest.mark.parametrize(
    ("codec", "compression", "name"),
    [
        ("jpegxl", 50002, "JPEGXL"),
        ("jpegxl", 52546, "JPEGXL_DNG"),
        ("jpegxr", 34934, "JPEGXR"),
        ("jpegxr", 22610, "JPEGXR_NDPI"),
        ("lerc", 34887, "LERC"),
    ],
)
def test_load_image_tile_of_unknown_size_inside_is_not_decoded(tmp_path, codec, compression, name, monkeypatch):
    encode, path = getattr(imagecodecs, f"{codec}_encode"), tmp_path / "a.tif"
    path.write_bytes(strip(encode(np.zeros((H, H), np.uint8)), H, compression))
    monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda *_: pytest.fail("decoded"))
    with pytest.raises(InputError, match=f"its compression, {name}, is not read; save it with another one"):
        load_image(path)


@pytest.mark.parametrize(("codec", "compression"), [("zlib", 8), ("zstd", 50000), ("lzw", 5), ("lzma", 34925)])
def test_load_image_strip_unpacks_to_no_more_than_its_pixels(tmp_path, codec, compression):
    packed = getattr(imagecodecs, f"{codec}_encode")(bytes(2**26))
    (tmp_path / "a.tif").write_bytes(strip(packed, H, compression))
    tracemalloc.start()
    with suppress(InputError):
        assert load_image(tmp_path / "a.tif").size == (H, H)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_load_image_tile_whose_size_comes_late_is_not_decoded(tmp_path):
    jpeg = imagecodecs.jpeg8_encode(np.zeros((600, 600), np.uint8))
    more = (b"\xff\xe5\xff\xff" + bytes(65533)) * 2
    (tmp_path / "a.tif").write_bytes(strip(jpeg[:2] + more + jpeg[2:], H, 7))
    with pytest.raises(InputError, match="larger than the tile"):
        load_image(tmp_path / "a.tif")


OME = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels DimensionOrder="XYCZT" Type="uint8" '
    'SizeX="{x}" SizeY="40" SizeC="1" SizeZ="1" SizeT="{t}">{more}</Pixels></Image></OME>'
)


@pytest.mark.parametrize(
    "description",
    [
        OME.format(x=40, t=10**10, more="<TiffData/>"),
        OME.format(x=40 * 10**10, t=1, more="<TiffData/>"),
        OME.format(x=40, t=3, more='<TiffData IFD="0" PlaneCount="10000000000"/>'),
        OME.format(x=40, t=3, more='<TiffData IFD="0" PlaneCount="9000"/>' * 1000),
        OME.format(x=40, t=3, more='<TiffData/><AlongZ Start="0" End="1e11"/>'),
    ],
)
def test_load_image_ome_that_names_more_planes_than_there_are(tmp_path, description):
    values = drawn(40, 40, dtype="uint8")
    tifffile.imwrite(tmp_path / "a.ome.tif", values, description=description, metadata=None)
    began = time.process_time()
    tracemalloc.start()
    image, _ = read(tmp_path / "a.ome.tif")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(image[..., 0], values) and peak < 2**26 and time.process_time() - began < 5


@pytest.mark.parametrize("description", ['{"shape": [1000000000, 40, 40]}', "shape=(1000000000,40,40)"])
def test_tiff_that_names_more_planes_than_there_are_is_refused(tmp_path, description):
    tifffile.imwrite(tmp_path / "a.tif", drawn(40, 40, dtype="uint8"), description=description, metadata=None)
    for reading in (load_image, image_size, lambda path: open_clip(str(path), print, 1.0).__enter__()):
        with pytest.raises(InputError, match="it names 1,000,000,000 planes, far more than it holds"):
            reading(tmp_path / "a.tif")


def test_load_image_tiff_of_many_pages_of_several_sizes_is_refused(tmp_path, monkeypatch):
    """tifffile compares each with all others. Of one size, there may be as many as one likes."""
    for name, sizes in (("a", [H] * 9), ("b", [H, W] * 5)):
        with tifffile.TiffWriter(tmp_path / f"{name}.tif") as writer:
            for size in sizes:
                writer.write(drawn(size, H), contiguous=False, metadata=None)
    monkeypatch.setattr(tiff, "MAX_MIXED", 3)
    assert load_image(tmp_path / "a.tif").size == (H, H)
    with pytest.raises(InputError, match="it has 10 pages of several sizes or kinds"):
        load_image(tmp_path / "b.tif")


def test_load_image_tiff_of_many_pages_below_one_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(drawn(H, H), subifds=1, metadata=None)
        writer.write(drawn(H, H), metadata=None)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    at = content.index(struct.pack("<HH", 330, 13))
    place = struct.unpack_from("<I", content, at + 8)[0]
    struct.pack_into("<II", content, at + 4, 60_000, len(content))
    (tmp_path / "a.tif").write_bytes(content + struct.pack("<I", place) * 60_000)
    began = time.process_time()
    with pytest.raises(InputError, match="it has 60,001 pages of several sizes or kinds"):
        load_image(tmp_path / "a.tif")
    assert time.process_time() - began < 5


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("page", [0, 1])
def test_load_image_pages_in_a_circle_are_refused(tmp_path, page, bigtiff):
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path, bigtiff=bigtiff) as writer:
        for values in drawn(3, H, W):
            writer.write(values, contiguous=False)
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == 3
        end, target = tiff.pages.next_page_offset, tiff.pages[page].offset
        form = tiff.tiff.offsetformat
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, end, target)
    path.write_bytes(content)
    with pytest.raises(InputError, match="circle"):
        load_image(path)


@pytest.mark.parametrize("form", ["pillow", "strips", "tiles", "planar"])
def test_load_image_ycbcr_without_compression(tmp_path, form):
    rgb = Image.fromarray(np.linspace(0, 255, H * W * 3).reshape(H, W, 3).astype(np.uint8))
    wanted, path = rgb.convert("YCbCr"), tmp_path / "a.tif"
    values = np.asarray(wanted)
    if form == "pillow":
        wanted.save(path)
    elif form == "planar":
        tifffile.imwrite(path, np.moveaxis(values, -1, 0).copy(), photometric="ycbcr", planarconfig="separate")
    else:
        tifffile.imwrite(path, values, photometric="ycbcr", tile=(16, 16) if form == "tiles" else None, rowsperstrip=8)
    assert np.array_equal(np.asarray(load_image(path)), np.asarray(wanted.convert("RGB")))


def test_load_image_planes_of_cielab_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", drawn(3, H, W, dtype="uint8"), photometric="cielab", planarconfig="separate")
    with pytest.raises(InputError, match="save it as RGB"):
        load_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("int16", "-9999"), ("float32", "-3.4028234663852886e+38"), ("uint16", "65535")]
)
@pytest.mark.parametrize("rows", [None, 4])
def test_load_image_nodata_of_gdal_takes_no_part_in_the_stretch(tmp_path, dtype, nodata, rows):
    """As satellite images have it where the scene ends; otherwise the rest would be nearly one value."""
    values = np.arange(96).reshape(8, 12).astype(dtype)
    values[0] = np.dtype(dtype).type(float(nodata))
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, rowsperstrip=rows, extratags=[(42113, 2, len(nodata) + 1, nodata, True)])
    expected = np.rint((np.arange(96).reshape(8, 12) - 12) / 83 * 255)
    expected[0] = 0
    assert np.array_equal(np.asarray(load_image(path))[..., 0], expected)
    assert np.array_equal(open_pixels(path).rows(0, 8)[..., 0], expected)


@pytest.mark.parametrize("kind", ["DNG", "without a preview", "linear", "CR2"])
def test_load_image_raw_file_of_a_camera_is_refused(tmp_path, kind):
    """Its preview would be read, which has far fewer pixels."""
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tiff:
        if kind == "DNG":
            tiff.write(np.zeros((6, 8, 3), np.uint8), photometric="rgb", subfiletype=1, subifds=1)
        if kind == "CR2":
            tiff.write(np.zeros((6, 8, 3), np.uint8), photometric="rgb")
        elif kind == "linear":
            tiff.write(np.zeros((24, 32, 3), np.uint16), photometric="linear_raw")
        else:
            tiff.write(np.zeros((24, 32), np.uint16), photometric="cfa")
    if kind == "CR2":
        content = path.read_bytes()
        at = len(content) + 2  # the list of tags moves to the end, and Canon's mark to its usual place
        tags = content[int.from_bytes(content[4:8], "little") :]
        path.write_bytes(content[:4] + at.to_bytes(4, "little") + b"CR\2\0" + content[12:] + b"\0\0" + tags)
    with pytest.raises(InputError, match=r"a\.tif: it is a camera's raw file; export it as TIFF or JPEG"):
        load_image(path)
