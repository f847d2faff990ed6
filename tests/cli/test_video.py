import csv
import inspect
import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import tifffile
from fake_segmenter import draw
from PIL import Image
from video_files import RATE, faststart, read

from pix2seqd.cli.video import video
from pix2seqd.files import InputError
from pix2seqd.images.frames import DecodedFrame, VideoWriter
from pix2seqd.panoptic.clip_results import ClipWriter
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.tracks import MIN_FRAMES


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
    assert all(image["unfamiliar"] is True and image["ood_score"] == 1.25 for image in images)


def test_video_does_not_warn_of_a_scene_that_looks_familiar_in_one_frame(run, segmenter, folder, tmp_path, monkeypatch):
    whole = segmenter.video

    def video(self, frames, **options):
        for number, found in enumerate(whole(self, frames, **options)):
            yield replace(found, ood_score=0.9 if number == 2 else 1.25)

    monkeypatch.setattr(segmenter, "video", video)
    code, _, err = run("video", "in", "--out", "out")
    assert code == 0 and "look unlike" not in err
    judged = [image["unfamiliar"] for image in results(tmp_path / "out")[0]["images"]]
    assert judged == [number != 2 for number in range(12)], "each frame's record stays"


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


def test_video_summary_counts_tracks_that_lasted(run, segmenter, folder: Path, tmp_path: Path):
    for number in (11, 12):
        draw(folder / f"{number}.png", blobs=4)
    code, out, _ = run("video", "in", "--out", "out")
    assert code == 0 and "3 things tracked (median length 12 frames); not counted: 1 seen in fewer than 3 frames" in out
    assert [track["id"] for track in results(tmp_path / "out")[1]] == [1, 2, 3, 100]
    code, out, _ = run("video", "in", "--out", "out", "--min-frames", "1")
    assert code == 0 and "4 things tracked (median length 9 frames)\n" in out
    check_whole(tmp_path / "out", segmenter("nuclei-video").taxonomy, list(range(1, 13)))
    assert results(tmp_path / "out")[0]["info"]["settings"]["min_frames"] == 1


def test_video_min_frames_has_the_default_of_the_writer():
    assert inspect.signature(video).parameters["min_frames"].default == MIN_FRAMES


def test_video_also_ctc(run, segmenter, folder: Path, tmp_path: Path):
    code, out, _ = run("video", "in", "--out", "out", "--also", "ctc")
    assert code == 0 and "tracks.csv, ctc/" in out
    assert (tmp_path / "out/ctc/res_track.txt").read_text() == "1 0 11 0\n2 0 11 0\n3 6 11 0\n"
    masks = [tifffile.imread(tmp_path / f"out/ctc/mask{number:03d}.tif") for number in range(12)]
    assert [mask.max() for mask in masks] == [2] * 6 + [3] * 6 and masks[0].dtype == np.uint16


@pytest.fixture
def stack(tmp_path: Path) -> np.ndarray:
    """cells.tif, planes/z1.tif to z9.tif and both.tif (time and depth): two cells in 6 of 9 planes; the truth."""
    truth = np.zeros((9, 40, 60), np.uint16)
    truth[2:8, 5:15, 5:15], truth[2:8, 20:34, 30:50] = 1, 2
    values = np.where(truth, 200, 20).astype("uint8")
    values[5, 20:34, 30:50] = 250  # the sharpest plane
    tifffile.imwrite(tmp_path / "cells.tif", values, imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "both.tif", np.stack([values, values * 0]), imagej=True, metadata={"axes": "TZYX"})
    (tmp_path / "planes").mkdir()
    for number, plane in enumerate(values, start=1):
        tifffile.imwrite(tmp_path / f"planes/z{number}.tif", plane)
    return truth


@pytest.mark.parametrize("source", ["cells.tif", "both.tif", "planes"])
def test_video_along_z_writes_a_label_stack_and_volumes(run, segmenter, stack, tmp_path: Path, source: str):
    code, out, err = run("video", source, "--out", "out", "--along", "z")
    name = source.removesuffix(".tif")
    assert code == 0 and f"labels/{name}.tif, volumes.csv" in out and "9 planes in" in out
    assert "2 things tracked (median length 6 planes)\n" in out
    assert f"{source}: plane 6 is the sharpest" in err and err.count("plane 6") == 1
    assert ("of each the first image is taken (time (T): 2)" in err) == (source == "both.tif")
    assert (tifffile.imread(tmp_path / f"out/labels/{name}.tif") == stack).all()
    lines = (tmp_path / "out/volumes.csv").read_text().splitlines()
    assert lines[1:] == ["1,nucleus,600,4.50,9.50,9.50,3,8,6", "2,nucleus,1680,4.50,26.50,39.50,3,8,6"]
    check_whole(tmp_path / "out", segmenter("nuclei-video").taxonomy, list(range(1, 10)))
    settings = results(tmp_path / "out")[0]["info"]["settings"]
    assert (settings["along"], settings["consensus"]) == ("z", 1)
    assert segmenter.seen == 10  # plane 6 twice


def test_video_along_z_takes_lengths_and_other_clips_no_plane_distance(run, segmenter, stack, tmp_path: Path):
    lengths = "--pixel-size", "500nm", "--plane-distance", "2um"
    assert run("video", "planes", "--out", "out", "--along", "z", *lengths)[0] == 0
    with (tmp_path / "out/volumes.csv").open() as file:
        assert [row["volume_um3"] for row in csv.DictReader(file)] == ["300", "840"]
    code, _, err = run("video", "planes", "--out", "other", *lengths[2:])
    assert code == 2 and "give --along z" in err and not (tmp_path / "other").exists()
    code, _, err = run("video", "planes", "--out", "other", "--along", "z", "--plane-distance", "2")
    assert code == 2 and "--plane-distance 2 is not a size" in err


def test_video_along_z_measures_have_no_times(run, segmenter, stack, tmp_path: Path):
    code, out, _ = run("video", "cells.tif", "--out", "out", "--along", "z", "--also", "measures")
    assert code == 0 and "track_measures.csv" in out
    for name in ("measures.csv", "counts.csv"):
        with (tmp_path / "out" / name).open() as file:
            assert {(row["frame"], row["time"]) for row in csv.DictReader(file)} >= {("3", ""), ("4", "")}
    assert {image["time"] for image in results(tmp_path / "out")[0]["images"]} == {None}


def test_video_of_one_frame_counts_in_the_singular(run, segmenter, stack, tmp_path: Path):
    for number in (*range(1, 5), *range(6, 10)):
        (tmp_path / f"planes/z{number}.tif").unlink()
    code, out, _ = run("video", "planes", "--out", "out", "--along", "z")
    assert code == 0 and out.startswith("1 plane in") and "2 things tracked (median length 1 plane)\n" in out


def test_video_along_z_names_broken_plane_once(run, segmenter, stack, tmp_path: Path):
    (tmp_path / "planes" / "z4.tif").write_bytes(b"no image")
    code, out, err = run("video", "planes", "--out", "out", "--along", "z")
    assert code == 2 and "8 planes in" in out and err.count("frame 4 is left out") == 1
    stack[3] = 0
    assert (tifffile.imread(tmp_path / "out/labels/planes.tif") == stack).all()


@pytest.mark.parametrize("fail_at", [3, 7])
def test_video_along_z_interrupted_keeps_finished_planes(run, segmenter, stack, tmp_path: Path, monkeypatch, fail_at):
    monkeypatch.setattr(segmenter, "fail_at", fail_at)
    assert run("video", "cells.tif", "--out", "out", "--along", "z")[0] == 130
    planes = [4, 5, 6] if fail_at == 3 else [1, 2, 3, 4, 5, 6]
    check_whole(tmp_path / "out", segmenter("nuclei-video").taxonomy, planes)
    stack[: planes[0] - 1] = 0
    assert (tifffile.imread(tmp_path / "out/labels/cells.tif") == stack[:6]).all()


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


def test_video_ends_with_the_frame_that_cannot_be_written(run, segmenter, folder: Path, tmp_path: Path, monkeypatch):
    """Frames are written while the next ones are segmented; none comes after one that is missing."""
    write = ClipWriter.write

    def full(writer: ClipWriter, frame: DecodedFrame, panoptic: Panoptic) -> None:
        if frame.number == 3:
            raise InputError("cannot write to out (No space left on device)")
        write(writer, frame, panoptic)

    monkeypatch.setattr(ClipWriter, "write", full)
    code, _, err = run("video", "in", "--out", "out")
    assert code == 2 and "No space left" in err
    check_whole(tmp_path / "out", segmenter("nuclei-video").taxonomy, [1, 2])


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
    for source in ("out/overlay.mp4", "out/panoptic/", "out/labels/a.tif", "out/ctc"):
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
        (("in", "--min-frames", "0"), "min-frames"),
        (
            ("in", "--also", "ctc,rois,xml"),
            "--also ctc,rois,xml: there is no 'xml'; give any of measures,labels,coco,geojson,rois,labelme,ctc",
        ),
        (("in", "--along", "z", "--also", "ctc"), "--also ctc needs frames over time"),
        (("in", "--along", "x"), "along"),
        (("a.mp4", "--along", "z"), "a.mp4 does not exist"),
        (
            ("time.tif", "--along", "z"),
            "time.tif: it has no depth axis (time (T): 3); `pix2seqd video FILE` goes along",
        ),
        (("depth.tif",), "depth.tif: it has no time axis (depth (Z): 3); `pix2seqd video FILE --along z` goes along"),
    ],
)
def test_video_bad_input_prints_one_line_and_writes_nothing(
    run, segmenter, folder, tmp_path: Path, arguments, message: str
):
    for name, axis in (("time", "T"), ("depth", "Z")):
        values = np.zeros((3, 20, 24), "uint8")
        tifffile.imwrite(tmp_path / f"{name}.tif", values, imagej=True, metadata={"axes": f"{axis}YX"})
    code, _, err = run("video", *arguments, "--out", "out")
    assert code == 2 and message in err and "Traceback" not in err and len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
