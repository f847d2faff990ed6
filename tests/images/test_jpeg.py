"""JPEGs of many scans: each of a few bytes goes over all pixels."""

import io
import struct
import time
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from pix2seqd.files import InputError
from pix2seqd.images.frames import open_clip
from pix2seqd.images.jpeg import MAX_SCANS, check_scans
from pix2seqd.images.load import image_size, load_channels, load_image


def jpeg(scans, side=2048):
    """A grey progressive JPEG whose last scan is repeated."""
    content = io.BytesIO()
    Image.new("L", (side, side)).save(content, "JPEG", progressive=True)
    plain = content.getvalue()
    last = plain.rindex(b"\xff\xda")
    return plain[:last] + plain[last:-2] * scans + plain[-2:]


def test_load_image_jpeg_of_many_scans_is_refused_in_time(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(5000))
    for reading in (load_image, lambda path: list(load_channels(path))):
        began = time.process_time()
        with pytest.raises(InputError, match=r"a\.jpg: it goes over its pixels more than 50 times"):
            reading(tmp_path / "a.jpg")
        assert time.process_time() - began < 2


def test_load_image_tiff_of_jpeg_of_many_scans_is_refused(tmp_path):
    content = jpeg(5000)
    tags = {256: 2048, 257: 2048, 258: 8, 259: 7, 262: 1, 273: 8, 277: 1, 278: 2048, 279: len(content)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = struct.pack("<4sI", b"II*\0", 8 + len(content))
    (tmp_path / "a.tif").write_bytes(head + content + struct.pack("<H", len(tags)) + entries + bytes(4))
    with pytest.raises(InputError, match="more than 50 times"):
        load_image(tmp_path / "a.tif")


def test_open_clip_of_jpegs_of_many_scans_is_refused(tmp_path):
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=Fraction(10))
        stream.width = stream.height = 2048
        stream.pix_fmt = "yuvj420p"
        for number, content in enumerate((jpeg(1), jpeg(5000))):
            packet = av.Packet(content)
            packet.stream, packet.pts, packet.dts = stream, number, number
            packet.time_base, packet.is_keyframe = Fraction(1, 10), True
            container.mux(packet)
    with (
        pytest.raises(InputError, match=r"a\.avi: it goes over its pixels more than 50 times"),
        open_clip(str(tmp_path / "a.avi"), lambda _: None, 10.0) as clip,
    ):
        list(clip.frames)


def test_check_scans_takes_usual_jpegs():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 1}, {"icc_profile": b"\xff\xda" * 40_000}):
        content = io.BytesIO()
        noise.save(content, "JPEG", **options)
        check_scans(content.getvalue())
        assert load_image(io.BytesIO(content.getvalue())).size == (64, 64)
    check_scans(jpeg(MAX_SCANS - 10))
    check_scans(b"")


@pytest.mark.parametrize(
    "inserted",
    [b"\xff\xfe\0\x02" * 100_000, (b"\xff\xe1\xff\xffExif\0\0" + bytes(65527)) * 600, b"\xff" * 10**6, b"a" * 10**6],
)
def test_load_image_jpeg_of_many_segments_is_refused(inserted, tmp_path):
    plain = jpeg(0, 16)
    path = tmp_path / "a.jpg"
    path.write_bytes(plain[:2] + inserted + plain[2:])
    for reading in (load_image, image_size):
        with pytest.raises(InputError, match="it has more than 500 segments before its pixels; save it again as PNG"):
            reading(path)
    path.write_bytes(plain[:2] + b"\xff\xfe\0\x02" * 400 + plain[2:])
    assert load_image(path).size == (16, 16)
