from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from pix2seqd.files import InputError
from pix2seqd.images.frames import open_clip
from pix2seqd.images.load import load_channels, load_image
from pix2seqd.images.tiff import write_labels

RANDOM = np.random.default_rng(0)
DEEP = RANDOM.integers(0, 65536, (7, 9, 3)).astype(np.uint16)
EIGHT = RANDOM.integers(0, 256, (7, 9, 3)).astype(np.uint8)


def channels(source) -> dict[str, np.ndarray]:
    return dict(load_channels(source))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.bmp", "a.webp"])
def test_load_channels_8_bit_colours_are_those_that_are_shown(tmp_path: Path, name: str):
    Image.fromarray(EIGHT).save(tmp_path / name)
    found = channels(tmp_path / name)
    assert list(found) == ["red", "green", "blue"]
    assert np.array_equal(np.stack(list(found.values()), -1), np.asarray(load_image(tmp_path / name)))


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_load_channels_grey_is_one_channel_without_a_name(tmp_path: Path, mode: str):
    image = Image.fromarray(EIGHT[..., 0]).convert(mode)
    image.save(tmp_path / "a.png")
    found = channels(tmp_path / "a.png")
    assert list(found) == [""] and np.array_equal(found[""], np.asarray(load_image(tmp_path / "a.png"))[..., 0])


def test_load_channels_16_bit_png_keeps_its_values(tmp_path: Path):
    (tmp_path / "colour.png").write_bytes(imagecodecs.png_encode(DEEP))
    (tmp_path / "grey.png").write_bytes(imagecodecs.png_encode(np.ascontiguousarray(DEEP[..., 0])))
    found = channels(tmp_path / "colour.png")
    assert list(found) == ["red", "green", "blue"] and np.array_equal(np.stack(list(found.values()), -1), DEEP)
    assert np.array_equal(channels(tmp_path / "grey.png")[""], DEEP[..., 0])


@pytest.mark.parametrize("kind", ["uint16", "int16", "float32", "uint8"])
def test_load_channels_tiff_has_all_channels_of_the_first_plane(tmp_path: Path, kind: str):
    values = RANDOM.integers(0, 100, (2, 5, 7, 9)).astype(kind)
    metadata = {"axes": "TCYX", "Channel": {"Name": ["DAPI", "GFP", "GFP", "", "Cy5"]}}
    tifffile.imwrite(tmp_path / "a.tif", values, ome=True, photometric="minisblack", metadata=metadata)
    found = channels(tmp_path / "a.tif")
    assert len(found) == 5
    for plane, own in zip(found.values(), values[0], strict=True):
        assert np.array_equal(plane, own) and plane.dtype == own.dtype


def test_load_channels_names_that_are_not_unique_become_numbers(tmp_path: Path):
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "GFP"]}}
    tifffile.imwrite(
        tmp_path / "a.tif", np.moveaxis(DEEP, -1, 0), ome=True, photometric="minisblack", metadata=metadata
    )
    assert list(channels(tmp_path / "a.tif")) == ["DAPI", "2", "3"]


def test_load_channels_tiff_without_transparency(tmp_path: Path):
    rgba = np.concatenate([DEEP, DEEP[..., :1]], axis=-1)
    tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    found = channels(tmp_path / "a.tif")
    assert list(found) == ["red", "green", "blue"] and np.array_equal(found["blue"], DEEP[..., 2])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "deep.tif"])
def test_load_channels_are_upright_as_the_image_is(tmp_path: Path, orientation: int, name: str):
    values = np.zeros((5, 9), np.uint16)
    values[0, 0], values[0, -1], values[-1, 0] = 65535, 40000, 20000
    if name == "a.png":
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray((values >> 8).astype(np.uint8)).save(tmp_path / name, exif=exif)
    else:
        tifffile.imwrite(tmp_path / name, values, extratags=[(274, "H", 1, orientation, True)])
    (found,) = channels(tmp_path / name).values()
    shown = np.asarray(load_image(tmp_path / name))[..., 0]
    assert np.array_equal(np.argsort(found.ravel(), kind="stable"), np.argsort(shown.ravel(), kind="stable"))
    assert found.shape == shown.shape


def test_load_channels_of_arrays():
    assert list(channels(DEEP)) == ["red", "green", "blue"] and np.array_equal(channels(DEEP)["green"], DEEP[..., 1])
    assert list(channels(DEEP[..., 0])) == [""] and list(channels(DEEP[..., :2])) == ["1", "2"]
    assert list(channels(np.concatenate([EIGHT, EIGHT[..., :1]], -1))) == ["red", "green", "blue"]
    assert list(channels(Image.fromarray(DEEP[..., 0]))) == [""]


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_load_channels_what_is_no_image_is_an_error(tmp_path: Path, content: bytes | None):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.png"):
        channels(tmp_path / "a.png")
    with pytest.raises(InputError, match="not an image"):
        channels(np.zeros(3))


def test_frames_of_a_stack_have_their_own_channels(tmp_path: Path):
    values = RANDOM.integers(0, 65536, (3, 2, 7, 9)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, imagej=True, metadata={"axes": "TCYX"})
    (tmp_path / "in").mkdir()
    Image.fromarray(DEEP[..., 0]).save(tmp_path / "in" / "1.tif")
    with open_clip(str(tmp_path / "a.tif"), print, 10) as clip:
        found = [dict(frame.channels()) for frame in clip.frames]
    assert np.array_equal(np.array([list(frame.values()) for frame in found]), values)
    with open_clip(str(tmp_path / "in"), print, 10) as clip:
        assert [np.array_equal(dict(frame.channels())[""], DEEP[..., 0]) for frame in clip.frames] == [True]


@pytest.mark.parametrize(
    ("largest", "kind"), [(5, "uint16"), (65_535, "uint16"), (65_536, "uint32"), (2**24, "uint32")]
)
def test_write_labels_reads_back_with_its_scale(tmp_path: Path, largest: int, kind: str):
    labels = RANDOM.integers(0, 5, (7, 9)).astype(np.int32)
    labels.flat[0] = largest
    write_labels(tmp_path / "a.tif", labels, pixel_size=0.65)
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        read, metadata = tiff.asarray(), tiff.imagej_metadata
        resolution = tiff.pages.first.resolution
        assert tiff.series[0].axes == "YX"
    assert read.dtype == kind and np.array_equal(read, labels)
    assert metadata is not None and metadata["unit"] == "um"
    assert np.allclose(resolution, 1 / 0.65)


@pytest.mark.parametrize("size", [None, 1e-4, 1e6])
def test_write_labels_any_scale_or_none(tmp_path: Path, size: float | None):
    write_labels(tmp_path / ".a.ome.tif.part", np.zeros((3, 4), int), size)
    with tifffile.TiffFile(tmp_path / ".a.ome.tif.part") as tiff:
        assert tiff.asarray().shape == (3, 4) and ("unit" in (tiff.imagej_metadata or {})) == (size is not None)
        assert size is None or np.allclose(tiff.pages.first.resolution, 1 / size, rtol=1e-3)
