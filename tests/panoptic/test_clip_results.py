import csv
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import tifffile
from drawn_stack import draw_stack
from fake_segmenter import CELLS
from PIL import Image

from pix2seqd.files import InputError
from pix2seqd.images.frames import DecodedFrame
from pix2seqd.images.load import load_image
from pix2seqd.panoptic.clip_results import ClipWriter
from pix2seqd.panoptic.extra_files import ExtraFiles
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy

NUCLEUS, BACKGROUND = 1, 2
GROUND = 900


def panoptic(labels: np.ndarray) -> Panoptic:
    """Labels of nuclei on background."""
    classes = {**dict.fromkeys(np.unique(labels).tolist(), NUCLEUS), GROUND: BACKGROUND}
    return Panoptic.from_segmentation(np.where(labels, labels, GROUND), classes, CELLS)


def write(out: Path, frames: dict[int, np.ndarray], **options) -> ClipWriter:
    with ClipWriter(out, CELLS, {}, Fraction(10), **options) as writer:
        for number, labels in frames.items():
            image = Image.new("RGB", labels.shape[::-1])
            writer.write(DecodedFrame(number, image, (number - 1) / 10), panoptic(labels))
    return writer


def frame(*tracks: int) -> np.ndarray:
    """A square of 4 pixels a side for each track, side by side in the order given."""
    labels = np.zeros((8, 40), int)
    for place, track in enumerate(tracks):
        labels[2:6, 6 * place : 6 * place + 4] = track
    return labels


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def listed(out: Path) -> list[int]:
    return [track["id"] for track in json.loads((out / "tracks.json").read_text())["tracks"]]


def test_clip_writer_lists_only_tracks_that_lasted(tmp_path: Path):
    frames = {1: frame(1, 2), 2: frame(1), 3: frame(1, 3), 4: frame(4, 3), 5: frame(4, 3, 5)}
    for min_frames, ids in ((1, [1, 2, 3, 4, 5]), (2, [1, 3, 4]), (3, [1, 3])):
        writer = write(tmp_path, frames, min_frames=min_frames)
        assert listed(tmp_path) == [*ids, GROUND] and writer.min_frames == min_frames
        assert sorted({int(row["id"]) for row in rows(tmp_path / "tracks.csv")}) == ids
        assert sorted(writer.lengths) == [1, 1, 2, 3, 3]
        annotation = json.loads((tmp_path / "panoptic.json").read_text())["annotations"][0]
        assert [segment["id"] for segment in annotation["segments_info"]] == [1, 2, GROUND]


def test_clip_writer_short_clip_keeps_tracks_of_all_its_frames(tmp_path: Path):
    writer = write(tmp_path, {1: frame(1, 2), 2: frame(1)})
    assert writer.min_frames == 2 and listed(tmp_path) == [1, GROUND]
    write(tmp_path, {1: frame(1, 2)})
    assert listed(tmp_path) == [1, 2, GROUND]
    write(tmp_path, {})
    assert listed(tmp_path) == [] and rows(tmp_path / "tracks.csv") == []


def test_clip_writer_tracks_csv_agrees_with_tracks_json(tmp_path: Path):
    mother, daughters = frame(), frame()
    mother[2:6, 0:12] = 1
    daughters[2:6, 0:5], daughters[2:6, 7:12] = 1, 2
    write(tmp_path, {1: mother, 2: mother, 3: daughters, 5: daughters}, min_frames=1)
    found = rows(tmp_path / "tracks.csv")
    assert list(found[0]) == ["frame", "time", "id", "category", "x", "y", "area", "parent"]
    assert list(found[0].values()) == ["1", "0.0", "1", "nucleus", "5.50", "3.50", "48", ""]
    assert [(row["frame"], row["id"], row["x"], row["parent"]) for row in found[2:4]] == [
        ("3", "1", "2.00", ""),
        ("3", "2", "9.00", "1"),
    ]
    for track in json.loads((tmp_path / "tracks.json").read_text())["tracks"]:
        areas = {int(row["frame"]): int(row["area"]) for row in found if int(row["id"]) == track["id"]}
        span = range(track["first_frame"], track["last_frame"] + 1)
        assert not track["isthing"] or track["areas"] == [areas.get(number, 0) for number in span]


def test_clip_writer_parent_that_is_not_listed_is_left_out(tmp_path: Path):
    mother, daughters = frame(), frame()
    mother[2:6, 0:12] = 1
    daughters[2:6, 0:5], daughters[2:6, 7:12] = 1, 2
    later = np.where(daughters == 2, 2, 0)
    write(tmp_path, {1: mother, 2: daughters, 3: later, 4: later})
    assert {(row["id"], row["parent"]) for row in rows(tmp_path / "tracks.csv")} == {("2", "")}


def test_clip_writer_lists_are_whole_when_the_process_is_killed(tmp_path: Path):
    writer = ClipWriter(tmp_path, CELLS, {}, Fraction(10), ctc=True, min_frames=2)
    for number in (1, 2, 3):
        writer._save_after = 0.0
        writer.write(DecodedFrame(number, Image.new("RGB", (40, 8)), 0.0), panoptic(frame(1, number + 1)))
    assert listed(tmp_path) == [1, GROUND]  # nothing is closed
    assert [row["frame"] for row in rows(tmp_path / "tracks.csv")] == ["1", "2", "3"]
    assert len((tmp_path / "ctc" / "res_track.txt").read_text().splitlines()) == 4
    writer.__exit__(None, None, None)


@pytest.mark.parametrize("big", [0, 70_000])
def test_clip_writer_stack_measures_ellipsoids(tmp_path: Path, big: int):
    _, truth = draw_stack((24, 80, 90), count=3)
    truth = np.where(truth, truth.astype(int) + big, 0)
    planes = {number: truth[number - 1] for number in range(1, 25) if number != 7}
    truth[6] = 0  # it could not be read
    write(tmp_path, planes, stack="cells")
    labels = tifffile.imread(tmp_path / "labels" / "cells.tif")
    assert labels.dtype == (np.uint32 if big else np.uint16) and (labels == truth).all()
    with tifffile.TiffFile(tmp_path / "labels" / "cells.tif") as tiff:
        assert tiff.series[0].axes == "ZYX"
    notes: list[str] = []
    assert load_image(tmp_path / "labels" / "cells.tif", note=notes.append).size == (90, 80)
    assert "depth (Z): 24" in notes[0]
    found = rows(tmp_path / "volumes.csv")
    assert [int(row["id"]) for row in found] == [big + 1, big + 2, big + 3]
    for row in found:
        index = np.nonzero(truth == int(row["id"]))
        assert int(row["volume"]) == len(index[0])
        assert [float(row[axis]) for axis in "zyx"] == pytest.approx([axis.mean() for axis in index], abs=0.006)
        numbers = (index[0].min() + 1, index[0].max() + 1, len(np.unique(index[0])))
        assert tuple(int(row[name]) for name in ("first_plane", "last_plane", "planes")) == numbers
    assert not (tmp_path / "tracks.csv").exists()
    assert listed(tmp_path) == sorted([GROUND, *(big + number for number in (1, 2, 3))])


@pytest.mark.parametrize("stack", ["", "cells"])
def test_clip_writer_tables_have_no_formulas(tmp_path: Path, stack: str):
    taxonomy = Taxonomy.from_coco([{"id": 1, "name": "=1+1"}])
    found = Panoptic.from_segmentation(frame(1), {1: 1}, taxonomy)
    with ClipWriter(tmp_path, taxonomy, {}, Fraction(10), stack=stack, min_frames=1) as writer:
        writer.write(DecodedFrame(1, Image.new("RGB", (40, 8)), 0.0), found)
    (row,) = rows(tmp_path / ("volumes.csv" if stack else "tracks.csv"))
    assert row["category"] == "'=1+1"


@pytest.mark.parametrize(("size", "distance"), [(0.5, 2.0), (0.5, None), (None, 2.0), (None, None)])
def test_clip_writer_volumes_have_the_known_units(tmp_path: Path, size: float | None, distance: float | None):
    also = ExtraFiles((), size)
    write(tmp_path, {1: frame(1), 2: frame(1)}, stack="cells", also=also, plane_distance=distance, min_frames=1)
    (row, *_) = rows(tmp_path / "volumes.csv")
    in_micrometres = {"x_um": 0.75, "y_um": 1.75} if size else {}
    in_micrometres |= {"z_um": 1.0} if distance else {}
    in_micrometres |= {"volume_um3": 16.0} if size and distance else {}
    assert (row["volume"], row["x"], row["y"], row["z"]) == ("32", "1.50", "3.50", "0.50")
    assert {name: float(value) for name, value in row.items() if "um" in name and name != "volume"} == in_micrometres


def test_clip_writer_label_stack_has_the_pixel_size(tmp_path: Path):
    for name, size, distance in (("a", 0.65, None), ("b", None, None), ("c", 0.65, 2.0)):
        lengths = {"also": ExtraFiles(("measures",), size), "plane_distance": distance}
        write(tmp_path / name, {1: frame(1), 2: frame(1)}, stack="cells", **lengths)
        with tifffile.TiffFile(tmp_path / name / "labels" / "cells.tif") as tiff:
            assert tiff.series[0].axes == "ZYX" and tiff.ome_metadata
            pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        sizes = [pixels.get(f"PhysicalSize{axis}") for axis in "XYZ"]
        assert sizes == [size, size, distance]
        assert pixels.get("PhysicalSizeXUnit") == (size and "µm")


def test_clip_writer_track_measures_have_the_tracks_of_the_lists(tmp_path: Path):
    frames = {1: frame(1, 2), 2: frame(1, 2), 3: frame(1), 4: frame(1, 3, 2)}
    for min_frames, tracks in ((1, [1, 2, 3, GROUND]), (3, [1, 2, GROUND]), (9, [1, GROUND])):
        write(tmp_path, frames, also=ExtraFiles(("measures",)), min_frames=min_frames)
        measured = [int(row["id"]) for row in rows(tmp_path / "track_measures.csv")]
        assert measured == listed(tmp_path) == tracks
        assert {int(row["id"]) for row in rows(tmp_path / "measures.csv")} == {1, 2, 3, GROUND}


def test_clip_writer_replaces_all_files_of_an_earlier_result_and_no_others(tmp_path: Path):
    write(tmp_path, {1: frame(1), 2: frame(1)}, ctc=True)
    (tmp_path / "ctc" / "mask_mine.tif").touch()
    write(tmp_path, {1: frame(1)}, stack="a")
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    common = {"overlay.mp4", "panoptic.json", "panoptic/000001.png", "tracks.json", "ctc/mask_mine.tif"}
    assert files == {*common, "volumes.csv", "labels/a.tif"}
    (tmp_path / "labels" / "corrected.tif").touch()
    write(tmp_path, {1: frame(1)})
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {*common, "labels/corrected.tif", "tracks.csv"}


def test_clip_writer_folder_of_another_command_keeps_its_files(tmp_path: Path):
    (tmp_path / "panoptic.json").write_text('{"info": {"description": "mine"}}')
    (tmp_path / "tracks.csv").write_text("mine")
    with pytest.raises(InputError, match="not a result of `pix2seqd video`"):
        write(tmp_path, {1: frame(1)})
    assert (tmp_path / "tracks.csv").read_text() == "mine"
