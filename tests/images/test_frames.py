from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from video_files import RATE, faststart, read

from pix2seqd.files import InputError
from pix2seqd.images.frames import CLOCK, VideoWriter, check_upload


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
