from pathlib import Path

import numpy as np
import pytest
import tifffile

from pix2seqd.files import InputError
from pix2seqd.panoptic import ctc
from pix2seqd.panoptic.ctc import CtcWriter
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_coco([{"id": 1, "name": "cell"}, {"id": 2, "name": "ground", "isthing": 0}])
GROUND = 900


def frame(*tracks: int) -> Panoptic:
    """A row of 40 pixels: one for each track, the rest is ground."""
    row = np.full((1, 40), GROUND)
    row[0, : len(tracks)] = tracks
    return Panoptic.from_segmentation(row, {**dict.fromkeys(tracks, 1), GROUND: 2}, TAXONOMY)


def write(folder: Path, frames: dict[int, Panoptic], parents: dict[int, dict[int, int]] | None = None) -> list:
    writer = CtcWriter(folder)
    for number, panoptic in frames.items():
        writer.write(number, panoptic, (parents or {}).get(number, {}))
    writer.save()
    return check(folder)


def check(folder: Path) -> list[tuple[int, ...]]:
    """The rules of the Cell Tracking Challenge; returns the lines of `res_track.txt`."""
    lines = [tuple(map(int, line.split())) for line in (folder / "res_track.txt").read_text().splitlines()]
    masks = [tifffile.imread(path) for path in sorted(folder.glob("mask*.tif"))]
    assert all(mask.dtype == np.uint16 and mask.ndim == 2 for mask in masks)
    labels = [label for label, *_ in lines]
    assert len(set(labels)) == len(labels) and all(0 < label < 2**16 for label in labels)
    ends = {label: end for label, _, end, _ in lines}
    for label, begin, end, parent in lines:
        assert begin <= end and (parent == 0 or ends[parent] < begin)
        assert [time for time, mask in enumerate(masks) if (mask == label).any()] == list(range(begin, end + 1))
    assert {int(value) for mask in masks for value in np.unique(mask)} <= {0, *labels}
    return lines


def test_ctc_writer_cuts_a_track_with_a_gap(tmp_path: Path):
    lines = write(tmp_path, {1: frame(70, 300), 2: frame(70), 3: frame(70, 300), 4: frame(300)})
    assert lines == [(1, 0, 2, 0), (2, 0, 0, 0), (3, 2, 3, 2)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(f"mask{n:03d}.tif" for n in range(4)),
        "res_track.txt",
    ]


def test_ctc_writer_both_daughters_have_the_mother_as_parent(tmp_path: Path):
    lines = write(tmp_path, {1: frame(7), 2: frame(7, 8), 3: frame(7, 8)}, {2: {8: 7}})
    assert lines == [(1, 0, 0, 0), (2, 1, 2, 1), (3, 1, 2, 1)]


def test_ctc_writer_frame_that_was_left_out_is_empty(tmp_path: Path):
    assert write(tmp_path, {2: frame(7), 4: frame(7)}) == [(1, 1, 1, 0), (2, 3, 3, 1)]
    assert [tifffile.imread(tmp_path / f"mask{n:03d}.tif").max() for n in range(4)] == [0, 1, 0, 2]


def test_ctc_writer_without_things(tmp_path: Path):
    assert write(tmp_path, {1: frame(), 2: frame()}) == []


def test_ctc_writer_more_digits_when_there_are_more_frames(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(ctc, "DIGITS", 1)
    write(tmp_path, {number: frame(5) for number in range(1, 13)})
    assert sorted(path.name for path in tmp_path.glob("*.tif")) == [f"mask{n:02d}.tif" for n in range(12)]


def test_ctc_writer_too_many_labels_is_an_error_and_leaves_a_whole_result(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(ctc, "MAX_LABEL", 3)
    writer = CtcWriter(tmp_path)
    writer.write(1, frame(5, 6, 7), {})
    with pytest.raises(InputError, match=r"frame 2 .* 3 tracks .*--also ctc"):
        writer.write(2, frame(5, 6, 8), {})
    writer.save()
    assert len(check(tmp_path)) == 3


@pytest.mark.slow
def test_ctc_writer_py_ctcmetrics_finds_it_valid_and_equal_to_itself(tmp_path: Path):
    metrics = pytest.importorskip("ctc_metrics")
    frames = {1: frame(7, 9), 2: frame(7, 8, 9), 3: frame(7, 8), 4: frame(7, 8, 9)}
    for name in ("01_RES", "01_GT/TRA", "01_GT/SEG"):
        (tmp_path / name).mkdir(parents=True)
    write(tmp_path / "01_RES", frames, {2: {8: 7}})
    assert metrics.validate_sequence(str(tmp_path / "01_RES"), threads=1) == {"Valid": 1}
    truth = tmp_path / "01_GT" / "TRA"
    (truth / "man_track.txt").write_bytes((tmp_path / "01_RES" / "res_track.txt").read_bytes())
    for path in (tmp_path / "01_RES").glob("*.tif"):
        for folder, kind in (("TRA", "man_track"), ("SEG", "man_seg")):
            copy = tmp_path / "01_GT" / folder / path.name.replace("mask", kind)
            copy.write_bytes(path.read_bytes())
    scores = metrics.evaluate_sequence(str(tmp_path / "01_RES"), str(tmp_path / "01_GT"), threads=1)
    assert {name: scores[name] for name in ("Valid", "DET", "TRA", "SEG")} == {"Valid": 1, "DET": 1, "TRA": 1, "SEG": 1}
