import os
import re
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest
import tifffile
from PIL import Image
from video_files import RATE, faststart, read

from pix2seqd.files import InputError
from pix2seqd.images.frames import CLOCK, VideoWriter, check_upload, open_clip


def drawn(number: int, size: tuple[int, int] = (48, 32)) -> Image.Image:
    """Its brightness tells its number, from 1; right of the middle it is dark."""
    image = Image.new("RGB", size)
    image.paste((20 * number,) * 3, (0, 0, size[0] // 2, size[1]))
    return image


def write(path: Path, frames: int = 8, size: tuple[int, int] = (48, 32), times: list[float] | None = None) -> Path:
    with VideoWriter(path, RATE) as video:
        for number in range(1, frames + 1):
            video.write(drawn(number, size), times[number - 1] if times else (number - 1) / 10)
    return path


def number_of(image: Image.Image) -> int:
    return round(np.asarray(image)[:, : image.width // 2 - 2].mean() / 20)


@pytest.mark.parametrize("size", [(48, 32), (47, 33), (16, 16), (3, 2)])
def test_video_writer_and_open_clip_round_trip(tmp_path: Path, size: tuple[int, int]):
    frames, warnings = read(write(tmp_path / "a.mp4", size=size))
    assert not warnings
    assert [frame.number for frame in frames] == list(range(1, 9))
    assert [round(frame.time, 4) for frame in frames] == [k / 10 for k in range(8)]
    assert {frame.image.size for frame in frames} == {tuple(side + side % 2 for side in size)}
    if size[0] > 4:
        assert [number_of(frame.image) for frame in frames] == list(range(1, 9))


def test_video_writer_keeps_frame_times(tmp_path: Path):
    times = [0, 0.1, 0.15, 1.7, 1.75, 9]
    frames, _ = read(write(tmp_path / "a.mp4", 6, times=times))
    assert [frame.time for frame in frames] == pytest.approx(times, abs=2 / CLOCK)


def test_video_writer_unfinished_file_can_be_read(tmp_path: Path):
    video = VideoWriter(tmp_path / "a.mp4", Fraction(1))
    for number in range(9):
        video.write(drawn(number + 1), number)
    killed = (tmp_path / "a.mp4").read_bytes()  # what is there if the process dies now
    (tmp_path / "b.mp4").write_bytes(killed)
    frames, _ = read(tmp_path / "b.mp4")
    assert [number_of(frame.image) for frame in frames] == list(range(1, len(frames) + 1)) != []
    video.__exit__(None, None, None)
    assert len(read(tmp_path / "a.mp4")[0]) == 9


def test_video_writer_without_h264_writes_mpeg4(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    frames, warnings = read(write(tmp_path / "a.mp4"))
    assert not warnings and [number_of(frame.image) for frame in frames] == list(range(1, 9))


def test_video_writer_missing_folder_is_an_error(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot write .*choose another --out"):
        write(tmp_path / "no" / "a.mp4")


@pytest.fixture
def strangers(tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder with a video for other files to name, and the addresses that a server there was asked for."""
    asked: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    write(tmp_path / "secret.mp4")
    drawn(1).save(tmp_path / "still.jpg")
    (tmp_path / "address.txt").write_text(f"http://127.0.0.1:{server.server_port}/secret.mp4")
    yield tmp_path, asked
    server.shutdown()
    thread.join()
    server.server_close()


PLAYLISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n",
    "ffconcat": "ffconcat version 1.0\nfile '{target}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet '
    'contentType="video"><Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL><SegmentBase/>'
    "</Representation></AdaptationSet></Period></MPD>",
    "idx": "# VobSub index file, v7\nsize: 48x32\nid: en, index: 0\ntimestamp: 00:00:00:000, filepos: 0\n",
    "ivr": "[general]\nhttp={target}\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{target}"/></svg>',
    "ass": "[Script Info]\nVideo File: {target}\n",
}


@pytest.mark.parametrize("suffix", [*PLAYLISTS, "mp4"])
@pytest.mark.parametrize("kind", PLAYLISTS)
def test_open_clip_file_that_names_others_is_refused(strangers: tuple[Path, list[str]], kind: str, suffix: str):
    folder, asked = strangers
    for target in ("secret.mp4", str(folder / "secret.mp4"), (folder / "address.txt").read_text()):
        source = folder / f"a.{suffix}"
        source.write_text(PLAYLISTS[kind].format(target=target))
        with pytest.raises(InputError, match=re.escape(source.name)):
            read(source)
        with pytest.raises(InputError, match=re.escape(source.name)):
            check_upload(source, 10**6)
    assert not asked


@pytest.mark.parametrize(
    "name",
    [
        "concat:secret.mp4|secret.mp4",
        "subfile,,start,0,end,0,,:secret.mp4",
        "file:secret.mp4",
        "crypto:secret.mp4",
        "cache:secret.mp4",
        "async:secret.mp4",
        "still%d",
        "pipe:0",
        "-",
        "data:video/mp4;base64,AAAA",
    ],
)
def test_open_clip_names_are_names_of_files(strangers: tuple[Path, list[str]], name: str, monkeypatch):
    monkeypatch.chdir(strangers[0])
    with pytest.raises(InputError, match="does not exist; check the path"):
        read(Path(name))
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy("secret.mp4", name)
    assert len(read(Path(name))[0]) == 8


@pytest.mark.parametrize("name", ["still%*.jpg", "%d.jpg", "still.jpg.mp4"])
def test_open_clip_pattern_of_images_is_no_clip(strangers: tuple[Path, list[str]], name: str, monkeypatch):
    monkeypatch.chdir(strangers[0])
    shutil.copy("still.jpg", "0.jpg")
    if name.endswith("mp4"):
        shutil.copy("still.jpg", name)
    with pytest.raises(InputError, match=r"does not exist; check the path|one still image"):
        read(Path(name))


@pytest.mark.parametrize("scheme", ["http", "https", "rtsp", "ftp"])
def test_open_clip_address_is_not_fetched(strangers: tuple[Path, list[str]], scheme: str):
    folder, asked = strangers
    address = (folder / "address.txt").read_text().replace("http", scheme)
    with pytest.raises(InputError, match="is an address, not a file"), open_clip(address, print, 10):
        pass
    assert not asked


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_open_clip_pipe_or_device_is_refused(tmp_path: Path, kind: str):
    source = tmp_path / "a.mp4"
    os.mkfifo(source) if kind == "pipe" else source.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="is a device or a pipe"):
        read(source)


def test_open_clip_folder_natural_order_without_broken_images(tmp_path: Path):
    for number in (1, 2, 9, 10, 11):
        drawn(number).save(tmp_path / f"t{number}.png")
    (tmp_path / "t3.png").write_bytes(b"no image")
    frames, warnings = read(tmp_path)
    assert [frame.name for frame in frames] == ["t1.png", "t2.png", "t9.png", "t10.png", "t11.png"]
    assert [frame.number for frame in frames] == [1, 2, 4, 5, 6]
    assert [frame.time for frame in frames] == [0, 0.1, 0.3, 0.4, 0.5]
    assert len(warnings) == 1 and "frame 3 is left out" in warnings[0] and "t3.png" in warnings[0]


def test_open_clip_tiff_stack_and_gif(tmp_path: Path):
    pages = [drawn(number) for number in (1, 2, 3)]
    for name, options in (("a.tif", {}), ("a.gif", {"duration": 200})):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:], **options)
        frames, warnings = read(tmp_path / name)
        assert not warnings
        assert [number_of(frame.image) for frame in frames] == [1, 2, 3]
        assert frames[1].time == pytest.approx(0.1 if name == "a.tif" else 0.2)


def test_open_clip_applies_video_rotation(tmp_path: Path):
    with av.open(tmp_path / "a.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_image(drawn(10))))
        container.mux(stream.encode(None))
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    straight = b"".join(n.to_bytes(4, "big") for n in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
    turned = b"".join(n.to_bytes(4, "big", signed=True) for n in (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30))
    at = content.index(straight, content.index(b"tkhd"))
    content[at : at + len(turned)] = turned  # shown turned by 90 degrees clockwise
    (tmp_path / "b.mp4").write_bytes(content)
    frames, _ = read(tmp_path / "b.mp4")
    shown = np.asarray(frames[0].image)[..., 0]
    assert shown.shape == (48, 32)
    assert shown[:20].mean() > 150 and shown[28:].mean() < 50  # what was left is on top


def test_open_clip_truncated_video_yields_its_frames_and_warns(tmp_path: Path):
    whole = faststart(tmp_path / "b.mp4", write(tmp_path / "a.mp4", 12)).read_bytes()
    (tmp_path / "c.mp4").write_bytes(whole[: len(whole) - 150])
    frames, warnings = read(tmp_path / "c.mp4")
    assert 0 < len(frames) < 12
    assert [number_of(frame.image) for frame in frames] == list(range(1, len(frames) + 1))
    assert "it is cut short" in warnings[-1] and "of 12" in warnings[-1]


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_open_clip_truncated_tiff_stack_yields_its_pages_and_warns(tmp_path: Path, compression: str | None):
    pages = [drawn(number) for number in range(1, 9)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression=compression)
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "b.tif").write_bytes(whole[: len(whole) * 6 // 10])
    frames, warnings = read(tmp_path / "b.tif")
    assert [number_of(frame.image) for frame in frames] == [1, 2, 3, 4]
    assert "b.tif ends after page" in warnings[-1] and "cut short" in warnings[-1]


def test_check_upload_huge_tiff_stack_is_an_error(tmp_path: Path):
    Image.new("L", (30_000, 20_000)).save(tmp_path / "a.tif", compression="tiff_deflate")
    with pytest.raises(InputError, match=r"a\.tif: more than"):
        check_upload(tmp_path / "a.tif", 1000)


def encode(path: Path, numbers: range | list[int], **options: str) -> Path:
    """A video of which the frames of other numbers were dropped."""
    with av.open(path, "w", options=options) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number in numbers:
            frame = av.VideoFrame.from_image(drawn(number))
            frame.pts, frame.time_base = number - 1, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def trim(path: Path, source: Path, frames: int) -> Path:
    """The same video without its first frames, as phones trim it: they stay in the file and are not shown."""
    with av.open(source) as old, av.open(path, "w", options={"movflags": "faststart"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(old.streams.video[0]):
            if packet.dts is not None and packet.pts is not None:
                shift = round(Fraction(frames, 10) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                new.mux(packet)
    return path


def test_open_clip_trimmed_video_is_complete(tmp_path: Path):
    path = trim(tmp_path / "b.mp4", encode(tmp_path / "a.mp4", range(1, 11)), 4)
    with av.open(path) as container:
        assert container.streams.video[0].frames == 10  # this is what the file says
    frames, warnings = read(path)
    assert [number_of(frame.image) for frame in frames] == [5, 6, 7, 8, 9, 10] and not warnings
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 60])
    assert "it is cut short" in read(path)[1][-1]


def test_open_clip_avi_with_dropped_frames_is_complete(tmp_path: Path):
    path = encode(tmp_path / "a.avi", [1, 2, 5, 6, 8, 9, 10])
    with av.open(path) as container:
        assert container.streams.video[0].frames > 7
    frames, warnings = read(path)
    assert [number_of(frame.image) for frame in frames] == [1, 2, 5, 6, 8, 9, 10] and not warnings


@pytest.mark.parametrize("suffix", ["avi", "mp4"])
def test_open_clip_cut_video_warns(tmp_path: Path, suffix: str):
    encode(tmp_path / f"a.{suffix}", range(1, 11), **({"movflags": "faststart"} if suffix == "mp4" else {}))
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    end = len(whole) if suffix == "mp4" else whole.rindex(b"idx1")
    (tmp_path / f"a.{suffix}").write_bytes(whole[: end - 20])
    assert "it is cut short" in read(tmp_path / f"a.{suffix}")[1][-1]


@pytest.mark.parametrize("suffix", ["webp", "png", "avif"])
def test_open_clip_animation(tmp_path: Path, suffix: str):
    pages = [drawn(number) for number in range(1, 6)]
    path = tmp_path / f"a.{suffix}"
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=200)
    frames, warnings = read(path)
    assert [number_of(frame.image) for frame in frames] == [1, 2, 3, 4, 5] and not warnings
    assert [frame.time for frame in frames] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "gif", "webp", "avif", "bmp", "ppm"])
def test_open_clip_still_image_is_an_error(tmp_path: Path, suffix: str):
    drawn(3).save(tmp_path / f"a.{suffix}")
    with pytest.raises(InputError, match=r"one still image, not a clip; use `pix2seqd segment`"):
        read(tmp_path / f"a.{suffix}")


def read_stack(
    path: Path, values: np.ndarray, channel: str | None = None, along: Literal["t", "z"] = "t", **options
) -> tuple[list[int], list[str]]:
    """Brightness of the frames of a TIFF that tifffile writes, and the notes."""
    tifffile.imwrite(path, values, photometric="minisblack", **options)
    notes: list[str] = []
    with open_clip(str(path), pytest.fail, 10, channel, notes.append, along) as clip:
        frames = list(clip.frames)
        assert clip.read is not None and [frame.number for frame in clip.read([2, 1, 2])] == [2, 1, 2]
    assert clip.total == len(frames)
    return [int(np.asarray(frame.image)[0, 0, 0]) for frame in frames], notes


@pytest.mark.parametrize("kind", [{"ome": True}, {"imagej": True}, {}])
@pytest.mark.parametrize("axes", ["TYX", "TZYX", "TCYX", "TZCYX", "CTZYX", "ZTYX"])
def test_open_clip_tiff_goes_along_time(tmp_path: Path, kind: dict, axes: str):
    if "imagej" in kind and axes not in ("TYX", "TZYX", "TCYX", "TZCYX"):
        pytest.skip("ImageJ has one order of axes")
    lengths = {"T": 4, "Z": 3, "C": 5, "Y": 20, "X": 24}
    place = np.indices([lengths[axis] for axis in axes])
    weights = {"T": 40, "Z": 10, "C": 1, "Y": 0, "X": 0}
    values = sum(weights[axis] * index for axis, index in zip(axes, place, strict=True)).astype("uint8")
    shown, notes = read_stack(tmp_path / "a.tif", values, metadata={"axes": axes}, **kind)
    assert shown == [0, 40, 80, 120]
    assert "its 4 frames are taken along time (T)" in notes[0]
    assert ("depth (Z): 3" in notes[0]) == ("Z" in axes)
    assert ("--channel" in notes[-1]) == ("C" in axes) and len(notes) == 1 + ("C" in axes)
    if "C" in axes:
        assert read_stack(tmp_path / "a.tif", values, "3", metadata={"axes": axes}, **kind)[0] == [2, 42, 82, 122]


@pytest.mark.parametrize("kind", [{"ome": True}, {"imagej": True}, {"imagej": True, "compression": "zlib"}])
def test_open_clip_tiff_channels_in_another_thread(tmp_path: Path, kind: dict):
    """`ClipWriter` measures a frame in a thread, while the next frames are read."""
    values = np.random.default_rng(0).integers(0, 256, (200, 20, 30), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values, metadata={"axes": "TYX"}, **kind)
    warnings: list[str] = []
    with open_clip(str(tmp_path / "a.tif"), warnings.append, 10) as clip, ThreadPoolExecutor(1) as pool:
        frames = [(frame, pool.submit(lambda frame=frame: list(frame.channels()))) for frame in clip.frames]
    assert not warnings and len(frames) == 200
    for expected, (frame, channels) in zip(values, frames, strict=True):
        ((_, measured),) = channels.result()
        assert (measured == expected).all() and (np.asarray(frame.image)[..., 0] == expected).all()


def test_open_clip_tiff_pages_without_an_axis(tmp_path: Path):
    values = np.arange(4, dtype="uint8")[:, None, None].repeat(20, 1).repeat(24, 2)
    for options in ({}, {"metadata": None}, {"compression": "lzw"}):
        shown, notes = read_stack(tmp_path / "a.tif", values, **options)
        assert shown == [0, 1, 2, 3]
        assert len(notes) == 1 and "along pages (the file names no axis)" in notes[0]
    with tifffile.TiffWriter(tmp_path / "b.tif") as tiff:
        for page in values:
            tiff.write(page)
    assert [int(np.asarray(frame.image)[0, 0, 0]) for frame in read(tmp_path / "b.tif")[0]] == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", [{"imagej": True}, {}])
def test_open_clip_tiff_with_one_page_entry(tmp_path: Path, kind: dict):
    """ImageJ writes stacks of more than 4 GB so: one entry, and the planes one after another."""
    values = np.arange(4, dtype=">u2")[:, None, None].repeat(20, 1).repeat(24, 2)
    values[:, 1:] = np.arange(23 * 20 - 4 * 20 + 76)[:456].reshape(19, 24)
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=">", **kind) as tiff:
        tiff.write(values, metadata={"axes": "TYX"}, photometric="minisblack", truncate=True)
    frames, warnings = read(tmp_path / "a.tif")
    first = [int(np.asarray(frame.image)[0, 0, 0]) for frame in frames]
    assert first == [round(number * 255 / 455) for number in range(4)] and not warnings
    if kind:  # tifffile does not take a cut stack of ImageJ for one
        return
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:-900])
    frames, warnings = read(tmp_path / "a.tif")
    assert len(frames) == 3 and "frame 4 is left out" in warnings[0] and "cut short" in warnings[0]


@pytest.mark.parametrize("axes", ["ZYX", "CYX", "ZCYX"])
def test_open_clip_tiff_without_time_is_an_error(tmp_path: Path, axes: str):
    values = np.zeros([{"Z": 3, "C": 5, "Y": 20, "X": 24}[axis] for axis in axes], "uint8")
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", metadata={"axes": axes})
    reason = r"no time axis \(depth \(Z\): 3\)" if "Z" in axes else "one still image"
    with pytest.raises(InputError, match=rf"a\.tif: it .*{reason}.*`pix2seqd segment`"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize("axes", ["ZYX", "TZYX", "ZTYX", "TZCYX", "ZCYX", "PZYX", "QYX"])
def test_open_clip_along_z(tmp_path: Path, axes: str):
    lengths = {"T": 4, "Z": 3, "C": 5, "P": 2, "Q": 3, "Y": 20, "X": 24}
    weights = {"T": 40, "Z": 10, "C": 1, "P": 50, "Q": 10, "Y": 0, "X": 0}
    place = np.indices([lengths[axis] for axis in axes])
    values = sum(weights[axis] * index for axis, index in zip(axes, place, strict=True)).astype("uint8")
    shown, notes = read_stack(tmp_path / "a.tif", values, along="z", metadata={"axes": axes})
    assert shown == [0, 10, 20] and "its 3 planes are taken along" in notes[0] and "--along" not in notes[0]
    assert ("of each the first image is taken" in notes[0]) == ("T" in axes or "P" in axes)
    assert ("pages (the file names no axis)" if axes == "QYX" else "depth (Z)") in notes[0]
    if "C" in axes:
        channel = read_stack(tmp_path / "a.tif", values, "3", along="z", metadata={"axes": axes})[0]
        assert channel == [2, 12, 22]


def test_open_clip_time_and_depth_names_the_other_choice(tmp_path: Path):
    _, notes = read_stack(tmp_path / "a.tif", np.zeros((4, 3, 20, 24), "uint8"), metadata={"axes": "TZYX"})
    assert (
        "along time (T); of each the first plane is taken (depth (Z): 3); `pix2seqd video FILE --along z`" in notes[0]
    )
    with pytest.raises(InputError, match=r"no time axis \(depth \(Z\): 3\); `pix2seqd video FILE --along z` goes"):
        read_stack(tmp_path / "a.tif", np.zeros((3, 20, 24), "uint8"), metadata={"axes": "ZYX"})


@pytest.mark.parametrize("kind", ["tif", "gif", "webp", "mp4", "one.tif"])
def test_open_clip_along_z_without_depths_is_an_error_that_names_the_axes(tmp_path: Path, kind: str):
    path, pages = tmp_path / f"a.{kind}", [drawn(number) for number in (1, 2, 3)]
    if kind == "tif":
        tifffile.imwrite(path, np.zeros((3, 20, 24), "uint8"), metadata={"axes": "TYX"})
    elif kind == "mp4":
        write(path)
    else:
        pages[0].save(path, **({} if kind == "one.tif" else {"save_all": True, "append_images": pages[1:]}))
    message = {"tif": r"no depth axis \(time \(T\): 3\); `pix2seqd video FILE` goes", "one.tif": "one still image"}
    with (
        pytest.raises(InputError, match=message.get(kind, r"has one axis, time, and no depth \(Z\)")),
        open_clip(str(path), pytest.fail, 10, along="z") as clip,
    ):
        list(clip.frames)


def test_open_clip_folder_of_planes(tmp_path: Path):
    for number in (1, 2, 10):
        drawn(number).save(tmp_path / f"z{number}.tif")
    with open_clip(str(tmp_path), pytest.fail, 10, along="z") as clip:
        assert clip.total == 3 and clip.read is not None
        assert [(frame.number, frame.name) for frame in clip.read([3, 1])] == [(3, "z10.tif"), (1, "z1.tif")]


def test_open_clip_channel_of_a_video_and_of_a_folder(tmp_path: Path):
    values = np.zeros((32, 48, 3), "uint8")
    values[..., 1] = 200
    (tmp_path / "frames").mkdir()
    for number in range(2):
        Image.fromarray(values).save(tmp_path / f"frames/{number}.png")
    with VideoWriter(tmp_path / "a.mp4", RATE) as video:
        video.write(Image.fromarray(values), 0)
    for name in ("frames", "a.mp4"):
        with open_clip(str(tmp_path / name), pytest.fail, 10, "green") as clip:
            assert all(abs(np.asarray(frame.image).astype(int) - 200).max() < 12 for frame in clip.frames)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.mp4", None, "does not exist; check the path"),
        ("text.mp4", b"not a video at all", "it is not a video or cut short"),
        ("empty.mp4", b"", "it is not a video or cut short"),
        ("7", None, "/dev/video7 does not exist; connect it, or give another number"),
        ("text.tif", b"no image", "is not an image"),
    ],
)
def test_open_clip_not_a_clip_is_a_one_line_error(
    tmp_path: Path, monkeypatch, name: str, content: bytes | None, message: str
):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read(name)


def test_open_clip_without_frames_is_an_error(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="holds no frame that can be read"):
        read(tmp_path)
    write(tmp_path / "silent.mp4", 0)
    with pytest.raises(InputError, match=r"silent\.mp4"):
        read(tmp_path / "silent.mp4")


def test_open_clip_refuses_too_many_pixels_before_decoding(tmp_path: Path, monkeypatch):
    path = write(tmp_path / "a.mp4", size=(48, 32))
    monkeypatch.setenv("PIX2SEQD_MAX_PIXELS", str(48 * 32 - 1))
    with pytest.raises(InputError, match=r"a\.mp4: more than 1,535 pixels"), open_clip(str(path), print, 10):
        pass
