import json
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import tifffile
from fake_segmenter import draw
from PIL import Image
from video_files import RATE, faststart, read

from pix2seqd.files import InputError
from pix2seqd.images.frames import DecodedFrame, VideoWriter
from pix2seqd.panoptic.clip_results import ClipWriter
from pix2seqd.panoptic.panoptic import Panoptic


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images. The first six show two things, the others three."""
    for number in range(1, 13):
        draw(tmp_path / "in" / f"{number}.png", blobs=2 if number < 7 else 3)
    return tmp_path / "in"


def results(out: Path) -> tuple[dict, list]:
    return json.loads((out / "panoptic.json").read_text()), json.loads((out / "tracks.json").read_text())["tracks"]


def check_whole(out: Path, taxonomy, frames: list[int]) -> None:
    """Every file of the result exists, can be read, and agrees with the others."""
    content, tracks = results(out)
    assert [image["id"] for image in content["images"]] == frames
    assert sorted(path.name for path in (out / "panoptic").iterdir()) == [f"{n:06d}.png" for n in frames]
    areas: dict[int, dict[int, int]] = {}
    for annotation in content["annotations"]:
        with Image.open(out / "panoptic" / annotation["file_name"]) as png:
            panoptic = Panoptic.from_coco(png, annotation, taxonomy)
        for segment in panoptic.segments:
            areas.setdefault(segment.id, {})[annotation["image_id"]] = segment.area
    assert [track["id"] for track in tracks] == sorted(areas)
    for track in tracks:
        own = areas[track["id"]]
        assert (track["first_frame"], track["last_frame"]) == (min(own), max(own))
        assert track["areas"] == [own.get(number, 0) for number in range(min(own), max(own) + 1)]
    if frames:
        shown, complaints = read(out / "overlay.mp4")
        assert len(shown) == len(frames) and not complaints


def test_video_folder_writes_overlay_pngs_and_tracks(run, segmenter, folder: Path, tmp_path: Path):
    code, out, err = run("video", "in", "--out", "out", "--fps", "5")
    assert code == 0, err
    assert "12 frames in " in out and "3 things tracked" in out and "written to out" in out
    check_whole(tmp_path / "out", segmenter("nuclei-video").taxonomy, list(range(1, 13)))
    content, tracks = results(tmp_path / "out")
    assert [image["file_name"] for image in content["images"][:3]] == ["1.png", "2.png", "3.png"]
    assert [image["time"] for image in content["images"][:3]] == [0, 0.2, 0.4]
    assert content["info"]["settings"]["model"] == "nuclei-video"
    assert tracks[0]["name"] == "nucleus" and tracks[0]["areas"] == [16] * 12
    assert [(track["isthing"], track["first_frame"]) for track in tracks] == [(1, 1), (1, 1), (1, 7), (0, 1)]


def test_video_warns_of_unfamiliar_frames(run, segmenter, folder: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(segmenter, "familiar_width", 32)
    code, _, err = run("video", "in", "--out", "out")
    assert code == 0
    assert "pix2seqd: model nuclei-video finds nucleus and background; for other images: pix2seqd models" in err
    assert "warning: 12 of 12 frames look unlike those that nuclei-video is made for (1, 2, 3, 4, 5 and 7 more)" in err
    images = results(tmp_path / "out")[0]["images"]
    assert all(image["unfamiliar"] is True and image["strangeness"] == 1.25 for image in images)


def test_video_overlay_has_the_colours_of_the_tracks(run, segmenter, folder: Path, tmp_path: Path):
    assert run("video", "in", "--out", "out")[0] == 0
    shown, _ = read(tmp_path / "out" / "overlay.mp4")
    panoptic = next(segmenter("nuclei-video").images([folder / "1.png"]))
    wanted = np.asarray(panoptic.overlay(folder / "1.png"), float)
    assert np.abs(np.asarray(shown[0].image, float) - wanted).mean() < 12
    assert np.abs(np.asarray(shown[5].image, float) - np.asarray(shown[0].image, float)).mean() < 3


@pytest.mark.parametrize("channel", [None, "GFP"])
def test_video_tiff_stack_says_which_axis_it_takes(run, segmenter, tmp_path: Path, channel: str | None):
    values = np.zeros((5, 2, 4, 15, 20), "uint8")
    values[:, :, 1, 2:6, 2:6] = 255
    metadata = {"axes": "TZCYX", "Channel": {"Name": ["DAPI", "GFP", "RFP", "Cy5"]}}
    tifffile.imwrite(tmp_path / "a.tif", values, ome=True, photometric="minisblack", metadata=metadata)
    code, out, err = run("video", "a.tif", "--out", "out", *(["--channel", channel] if channel else []))
    assert code == 0 and "5 frames in " in out
    notes = [line for line in err.splitlines() if line.startswith("pix2seqd: a.tif")]
    assert "its 5 frames are taken along time (T); of each the first plane is taken (depth (Z): 2)" in notes[0]
    assert len(notes) == (1 if channel else 2) and ("--channel takes another" in notes[-1]) == (channel is None)
    content, _ = results(tmp_path / "out")
    assert content["info"]["settings"].get("channel") == channel


def test_video_still_image_is_an_error_and_keeps_earlier_results(run, segmenter, folder: Path, tmp_path: Path):
    run("video", "in", "--out", "out")
    before = (tmp_path / "out" / "panoptic.json").read_bytes()
    code, _, err = run("video", "in/1.png", "--out", "out")
    assert code == 2 and err.strip().startswith(
        "pix2seqd: in/1.png is one still image, not a clip; use `pix2seqd segment`"
    )
    assert (tmp_path / "out" / "panoptic.json").read_bytes() == before


def test_video_interrupted_keeps_finished_frames(run, segmenter, folder: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(segmenter, "fail_at", 5)
    code, _, err = run("video", "in", "--out", "out")
    assert code == 130 and "Traceback" not in err
    check_whole(tmp_path / "out", segmenter("nuclei-video").taxonomy, [1, 2, 3, 4, 5])


def test_video_frame_of_other_size_ends_it_and_keeps_finished_frames(
    run, segmenter, folder: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(segmenter, "fail_at", 5)
    monkeypatch.setattr(segmenter, "error", InputError("frame 6 is 64 x 48 pixels, but ..."))
    code, _, err = run("video", "in", "--out", "out")
    assert code == 2 and "frame 6 is 64 x 48" in err
    check_whole(tmp_path / "out", segmenter("nuclei-video").taxonomy, [1, 2, 3, 4, 5])


def test_video_names_broken_frame_and_segments_the_others(run, segmenter, folder: Path, tmp_path: Path):
    (folder / "3.png").write_bytes(b"not an image")
    code, out, err = run("video", "in", "--out", "out")
    assert code == 2 and "frame 3 is left out" in err and "11 frames" in out
    check_whole(tmp_path / "out", segmenter("nuclei-video").taxonomy, [1, 2, *range(4, 13)])
    assert results(tmp_path / "out")[1][0]["areas"][:4] == [16, 16, 0, 16]


def test_video_truncated_file_with_uneven_times_is_reported_and_segmented(run, segmenter, folder: Path, tmp_path: Path):
    with VideoWriter(tmp_path / "a.mp4", RATE) as video:
        for number in range(1, 13):
            video.write(Image.open(folder / f"{number}.png").convert("RGB"), number / 10 + (number > 4))
    assert run("video", "a.mp4", "--out", "whole")[0] == 0
    whole = faststart(tmp_path / "b.mp4", tmp_path / "a.mp4").read_bytes()
    (tmp_path / "c.mp4").write_bytes(whole[:-30])
    code, _, err = run("video", "c.mp4", "--out", "out")
    assert code == 2 and "it is cut short" in err and "the frame rate varies (first at frame 5)" in err
    content, _ = results(tmp_path / "out")
    assert 4 < len(content["images"]) < 12
    check_whole(tmp_path / "out", segmenter("nuclei-video").taxonomy, list(range(1, len(content["images"]) + 1)))
    assert content["images"][4]["time"] == pytest.approx(1.4, abs=0.01)


def test_video_replaces_its_earlier_result_and_nothing_else(run, segmenter, folder: Path, tmp_path: Path):
    assert run("video", "in", "--out", "out")[0] == 0
    (tmp_path / "out" / "panoptic" / "000013.png").touch()  # as a killed process leaves it, without a record
    for number in range(4, 13):
        (folder / f"{number}.png").unlink()
    assert run("video", "in", "--out", "out")[0] == 0
    check_whole(tmp_path / "out", segmenter("nuclei-video").taxonomy, [1, 2, 3])
    assert run("segment", "in", "--out", "other")[0] == 0
    before = (tmp_path / "other" / "panoptic.json").read_bytes()
    code, _, err = run("video", "in", "--out", "other")
    assert code == 2 and "not a result of `pix2seqd video`" in err
    assert (tmp_path / "other" / "panoptic.json").read_bytes() == before


def test_video_keeps_earlier_result_until_the_first_frame(run, segmenter, folder, tmp_path: Path, monkeypatch):
    assert run("video", "in", "--out", "out")[0] == 0
    monkeypatch.setattr(segmenter, "fail_at", segmenter.seen)
    monkeypatch.setattr(segmenter, "error", InputError("adaptive must be 0 or 1 and more"))
    code, _, err = run("video", "in", "--out", "out")
    assert code == 2 and "adaptive must be" in err
    check_whole(tmp_path / "out", segmenter("nuclei-video").taxonomy, list(range(1, 13)))


def test_video_refuses_source_that_would_be_overwritten(run, segmenter, folder: Path, tmp_path: Path):
    assert run("video", "in", "--out", "out")[0] == 0
    for source in ("out/overlay.mp4", "out/panoptic/"):
        code, _, err = run("video", source, "--out", "out")
        assert code == 2 and "would be overwritten" in err
    check_whole(tmp_path / "out", segmenter("nuclei-video").taxonomy, list(range(1, 13)))


def test_clip_writer_full_disk_is_an_input_error(segmenter, tmp_path: Path, monkeypatch):
    taxonomy = segmenter("nuclei-video").taxonomy
    panoptic = Panoptic.from_segmentation(np.ones((32, 48), int), {1: 1}, taxonomy)
    with ClipWriter(tmp_path, taxonomy, {}, RATE) as writer:
        monkeypatch.setattr(writer._annotations, "write", Mock(side_effect=OSError(28, "No space left on device")))
        with pytest.raises(InputError, match=r"cannot write to .*No space left on device.*choose another --out"):
            writer.write(DecodedFrame(1, Image.new("RGB", (48, 32)), 0.0), panoptic)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("no.mp4",), "no.mp4 does not exist"),
        (("in", "--model", "no"), "no checkpoint"),
        (("in", "--first-steps", "0"), "first-steps"),
        (("in", "--fps", "0"), "fps"),
    ],
)
def test_video_bad_input_prints_one_line_and_writes_nothing(
    run, segmenter, folder, tmp_path: Path, arguments, message: str
):
    code, _, err = run("video", *arguments, "--out", "out")
    assert code == 2 and message in err and "Traceback" not in err
    assert not (tmp_path / "out").exists()
