"""`--also` of `pix2seqd segment` and `pix2seqd video`: further files for other tools."""

import csv
import itertools
import json
import os
import unicodedata
from pathlib import Path

import numpy as np
import pandas
import pytest
import roifile
import tifffile
from fake_segmenter import FakeSegmenter, draw
from filelock import FileLock
from PIL import Image
from pycocotools.coco import COCO
from shapely.geometry import shape

from pix2seqd.files import InputError
from pix2seqd.panoptic import collect, extra_files, results
from pix2seqd.panoptic.extra_files import PLACES, ExtraFiles

ALL = ",".join(PLACES)


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


def content(out: str | Path = "o") -> dict:
    return json.loads((Path(out) / "panoptic.json").read_text())


def rows(name: str, out: str | Path = "o") -> list[dict[str, str]]:
    with (Path(out) / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def labels(record: dict, out: str | Path = "o") -> np.ndarray:
    """The ids of things of an image, from panoptic/."""
    (annotation,) = (a for a in content(out)["annotations"] if a["image_id"] == record["id"])
    png = np.asarray(Image.open(Path(out) / "panoptic" / annotation["file_name"])).astype(int) @ [1, 256, 65536]
    return np.where(np.isin(png, [info["id"] for info in annotation["segments_info"] if info["isthing"]]), png, 0)


def check_whole(images: int, out: str = "o") -> None:
    """Every file can be read by its own tool's library and has the segments of panoptic.json, each once."""
    records = content(out)["images"]
    assert len(records) == images
    table = pandas.read_csv(Path(out) / "measures.csv", keep_default_na=True)
    key = "frame" if "time" in records[0] else "image"
    assert not table.duplicated([key, "id"]).any()
    segments = [info for annotation in content(out)["annotations"] for info in annotation["segments_info"]]
    assert sorted(table.area) == sorted(info["area"] for info in segments)
    counts = pandas.read_csv(Path(out) / "counts.csv")
    assert len(counts) == images and counts["nucleus"].sum() == (table.category == "nucleus").sum()
    coco = COCO(str(Path(out) / "instances.json"))
    assert len(coco.getAnnIds()) == len({a["id"] for a in coco.dataset["annotations"]})
    for record in records:
        stem = Path(next(a["file_name"] for a in content(out)["annotations"] if a["image_id"] == record["id"])).stem
        truth = labels(record, out)
        assert np.array_equal(tifffile.imread(Path(out) / "labels" / f"{stem}.tif"), truth)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[record["id"]]))
        painted = np.zeros_like(truth)
        for annotation in annotations:
            painted[coco.annToMask(annotation) > 0] = annotation["segment_id"]
        assert np.array_equal(painted, truth)
        features = json.loads((Path(out) / "geojson" / f"{stem}.geojson").read_text())["features"]
        assert sum(shape(feature["geometry"]).area for feature in features) == (truth > 0).sum()
        if features:
            rois = roifile.roiread(Path(out) / "rois" / f"{stem}.zip")
            assert len(rois) == len(features) if isinstance(rois, list) else len(features) == 1
        shapes = json.loads((Path(out) / "labelme" / f"{stem}.json").read_text())
        assert (shapes["imageHeight"], shapes["imageWidth"]) == truth.shape and len(shapes["shapes"]) == len(features)


def test_segment_also_everything(run, segmenter, tmp_path: Path):
    for name, blobs in (("a.png", 2), ("a.jpg", 3), ("b, é.png", 1), ("none.png", 0)):
        draw(tmp_path / "in" / name, blobs=blobs)
    code, out, err = run("segment", "in", "--out", "o", "--also", ALL, "--pixel-size", "0.5um")
    assert code == 0, err
    assert "measures.csv, counts.csv, instances.json" in lines(out)[-1]
    check_whole(4)
    names = [record["file_name"] for record in content()["images"]]
    assert [row["image"] for row in rows("counts.csv")] == names
    assert [row["nucleus"] for row in rows("counts.csv")] == ["3", "2", "1", "0"]
    row = next(row for row in rows("measures.csv") if row["category"] == "nucleus")
    assert float(row["area_um2"]) == int(row["area"]) / 4 and row["score"] == "0.25"
    with tifffile.TiffFile("o/labels/a.tif") as tiff:
        assert np.allclose(tiff.pages.first.resolution, 2) and (tiff.imagej_metadata or {})["unit"] == "um"
    assert json.loads(Path("o/labelme/a-2.json").read_text())["imagePath"] == "../images/a-2.png"


def test_segment_also_a_subset_writes_no_others(run, segmenter, tmp_path: Path):
    draw(tmp_path / "a.png")
    assert run("segment", "a.png", "--out", "o", "--also", "rois, labels")[0] == 0
    assert {path.name for path in Path("o").iterdir() if not path.name.startswith(".")} == {
        *("images", "panoptic", "overlay", "panoptic.json", "labels", "rois")
    }


def test_segment_again_with_another_also_does_not_segment_again(run, segmenter, tmp_path: Path):
    for number in range(3):
        draw(tmp_path / "in" / f"{number}.png", blobs=number)
    run("segment", "in", "--out", "o")
    assert FakeSegmenter.seen == 3
    code, out, _ = run("segment", "in", "--out", "o", "--also", ALL)
    assert code == 0 and FakeSegmenter.seen == 3
    assert "3 skipped" in out and "3 not segmented again: measures.csv" in out
    check_whole(3)
    before = {path: path.stat().st_mtime_ns for path in Path("o/labels").iterdir()}
    code, out, _ = run("segment", "in", "--out", "o", "--also", "labels")
    assert code == 0 and "not segmented again" not in out
    assert {path: path.stat().st_mtime_ns for path in Path("o/labels").iterdir()} == before
    Path("o/labels/1.tif").unlink()
    _, out, _ = run("segment", "in", "--out", "o", "--also", "labels")
    assert "1 not segmented again: labels/" in out and FakeSegmenter.seen == 3
    check_whole(3)


def test_segment_again_with_another_pixel_size_writes_what_depends_on_it(run, segmenter, tmp_path: Path):
    draw(tmp_path / "a.png")
    run("segment", "a.png", "--out", "o", "--also", "measures,rois", "--pixel-size", "650nm")
    before = Path("o/rois/a.zip").stat().st_mtime_ns
    area = int(rows("measures.csv")[0]["area"])
    assert float(rows("measures.csv")[0]["area_um2"]) == pytest.approx(area * 0.65**2)
    run("segment", "a.png", "--out", "o", "--also", "measures,rois", "--pixel-size", "2µm")
    assert float(rows("measures.csv")[0]["area_um2"]) == area * 4
    assert Path("o/rois/a.zip").stat().st_mtime_ns == before and FakeSegmenter.seen == 1
    run("segment", "a.png", "--out", "o", "--also", "measures")
    assert "area_um2" not in rows("measures.csv")[0]


def test_segment_again_with_other_settings_leaves_nothing_old(run, segmenter, tmp_path: Path):
    draw(tmp_path / "in" / "a.png")
    draw(tmp_path / "in" / "b.png")
    run("segment", "in", "--out", "o", "--also", ALL)
    run("segment", "in/a.png", "--out", "o", "--seed", "1")
    assert {row["image"] for row in rows("measures.csv")} == {"b.png"} == {row["image"] for row in rows("counts.csv")}
    assert [image["file_name"] for image in COCO("o/instances.json").loadImgs([2])] == ["b.png"]
    assert not [path for folder, _ in PLACES.values() for path in Path("o", folder).glob("a.*")]
    run("segment", "in/b.png", "--out", "o", "--seed", "1")
    assert not Path("o/measures.csv").exists() and not Path("o/instances.json").exists()
    run("segment", "in", "--out", "o", "--seed", "1", "--also", ALL)
    check_whole(2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("writes", [2, 4, 9, 11, 17, 23, 35, 37, 38, 39])
def test_segment_killed_and_repeated_is_complete(run, segmenter, tmp_path: Path, monkeypatch, writes: int):
    """The process ends without a word before it writes one of its files: nine of each image, then three of the run."""
    for number in range(4):
        draw(tmp_path / "in" / f"{number}.png", blobs=number)
    if (child := os.fork()) == 0:
        count = itertools.count(1)
        writers = [(module, "write_atomically") for module in (collect, extra_files, results)]
        for module, name in (*writers, (results, "write_png"), (collect, "write_lists")):
            written = getattr(module, name)

            def write(path: Path, *content, real=written):
                return os._exit(9) if next(count) == writes else real(path, *content)

            monkeypatch.setattr(module, name, write)
        run("segment", "in", "--out", "o", "--also", ALL, "--batch-size", "1")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    code, _, err = run("segment", "in", "--out", "o", "--also", ALL)
    assert code == 0, err
    check_whole(4)


@pytest.mark.parametrize("command", ["segment", "video"])
def test_also_temporary_files_of_a_killed_process_are_swept(run, segmenter, tmp_path: Path, command: str):
    draw(tmp_path / "in" / "a.png")
    draw(tmp_path / "in" / "b.png")
    places = [
        *itertools.chain(*extra_files.FOLDER_FILES.values()),
        "panoptic.json",
        "panoptic/a.png",
        "geojson/a.geojson",
    ]
    places += ["tracks.json", "tracks.csv"] if command == "video" else []
    for place in places:
        path = Path("o", place)
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / f".{path.name}.0123456789abcdef.part").write_text("half")
    Path("o/.mine.part").write_text("of the user")
    busy = FileLock("o/.also.lock")
    with busy:  # another process puts the files together
        assert run(command, "in", "--out", "o")[0] == 0
        assert command == "video" or Path("o/.counts.csv.0123456789abcdef.part").exists()
    assert run(command, "in", "--out", "o")[0] == 0
    assert [path.name for path in Path("o").rglob("*.part")] == [".mine.part"]


def test_segment_after_ctrl_c_has_the_files_of_what_is_done(run, segmenter, tmp_path: Path, monkeypatch):
    for number in range(5):
        draw(tmp_path / "in" / f"{number}.png", blobs=number)
    monkeypatch.setattr(segmenter, "fail_at", 3)
    assert run("segment", "in", "--out", "o", "--also", ALL)[0] == 130
    check_whole(3)
    monkeypatch.setattr(segmenter, "fail_at", None)
    assert run("segment", "in", "--out", "o", "--also", ALL)[0] == 0
    check_whole(5)


def test_segment_also_measures_have_the_values_of_the_file(run, segmenter, tmp_path: Path):
    values = np.full((2, 15, 20), 1000, np.uint16)
    values[0, 2:6, 2:6], values[1, 2:6, 2:6] = 50_000, 7
    metadata = {"axes": "CYX", "Channel": {"Name": ["DAPI", "a,b"]}}
    tifffile.imwrite(tmp_path / "a.tif", values, ome=True, photometric="minisblack", metadata=metadata)
    code, _, err = run("segment", "a.tif", "--out", "o", "--channel", "DAPI", "--also", "measures")
    assert code == 0, err
    (row,) = (row for row in rows("measures.csv") if row["category"] == "nucleus")
    assert [row[f"intensity_{kind}_DAPI"] for kind in ("mean", "min", "max")] == ["50000"] * 3
    assert row["intensity_mean_a,b"] == "7"


def test_segment_also_images_with_other_channels_share_one_table(run, segmenter, tmp_path: Path):
    draw(tmp_path / "in" / "grey.png")
    Image.open(tmp_path / "in" / "grey.png").convert("RGB").save(tmp_path / "in" / "rgb.png")
    run("segment", "in", "--out", "o", "--also", "measures")
    table = pandas.read_csv("o/measures.csv").set_index("image")
    assert table.loc["grey.png", "intensity_mean"].notna().all()
    assert table.loc["rgb.png", "intensity_mean"].isna().all()
    assert (table.loc["grey.png", "intensity_mean"].to_numpy() == table.loc["rgb.png", "intensity_mean_red"]).all()


def test_segment_also_names_that_spreadsheets_would_compute(run, segmenter, tmp_path: Path):
    names = ["=1+1.png", "+a.png", "@b.png", '-quote".png', "plain, é.png"]
    for name in names:
        draw(tmp_path / "in" / name)
    assert run("segment", "in", "--out", "o", "--also", "measures")[0] == 0
    found = {row["image"] for row in rows("measures.csv")}
    assert found == {"'=1+1.png", "'+a.png", "'@b.png", "'-quote\".png", "plain, é.png"}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r=", "\n=", "＝", "＋", "－", "＠"])
def test_names_in_csv_files_are_never_computed(start: str):
    """Spreadsheet programs leave tabs and line breaks out, and some read signs of full width as signs."""
    assert extra_files.escaped(f"{start}1+1") == extra_files.cell(f"{start}1+1") == f"'{start}1+1"


def test_segment_also_names_that_are_one_file_on_some_systems(run, segmenter, tmp_path: Path):
    """APFS takes é as one character and as two for the same, and A for a."""
    for folder, name in (("a", "é"), ("b", "e\u0301"), ("c", "É"), ("d", "E\u0301")):
        draw(tmp_path / folder / f"{name}.png")
    assert run("segment", "a", "b", "c", "d", "--out", "o", "--also", "labels")[0] == 0
    names = [path.name for path in Path("o/labels").iterdir()]
    assert len(names) == len({unicodedata.normalize("NFD", name).casefold() for name in names}) == 4


def test_segment_also_from_a_damaged_result_names_it(run, segmenter, tmp_path: Path):
    draw(tmp_path / "in" / "a.png")
    draw(tmp_path / "in" / "b.png")
    run("segment", "in", "--out", "o")
    Image.new("RGB", (40, 30)).save("o/panoptic/a.png")
    code, out, err = run("segment", "in", "--out", "o", "--also", "measures")
    assert code == 2 and "o/panoptic/a.png" in err and "delete it and repeat the command" in err
    assert "1 not segmented again" in out and {row["image"] for row in rows("measures.csv")} == {"b.png"}
    Path("o/panoptic/a.png").unlink()
    assert run("segment", "in", "--out", "o", "--also", "measures")[0] == 0
    assert {row["image"] for row in rows("measures.csv")} == {"a.png", "b.png"}


@pytest.mark.parametrize("name", ["measures/a.csv", "instances/a.json"])
def test_segment_also_damaged_file_of_an_image_names_it(run, segmenter, tmp_path: Path, name: str):
    draw(tmp_path / "a.png")
    run("segment", "a.png", "--out", "o", "--also", "measures,coco")
    Path("o", name).write_text('id,area\n1,2,3\n{"annotations": 3}')
    code, _, err = run("segment", "a.png", "--out", "o", "--also", "measures,coco")
    assert code == 2 and name in err and "Traceback" not in err
    Path("o", name).unlink()
    assert run("segment", "a.png", "--out", "o", "--also", "measures,coco")[0] == 0


@pytest.mark.parametrize("command", ["segment", "video"])
@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--also", "masks"], f"there is no 'masks'; give any of {ALL}"),
        (["--also", "measures,,labels"], "there is no ''"),
        (["--also", ""], "there is no ''"),
        (["--also", "Measures"], "there is no 'Measures'"),
        (["--pixel-size", "0.65um"], "--pixel-size needs --also with any of measures,labels,geojson"),
        (["--also", "rois", "--pixel-size", "0.65um"], "--pixel-size needs --also"),
        *(
            (["--also", "measures", f"--pixel-size={size}"], f"--pixel-size {size} is not a size")
            for size in ("0.65", "um", "0um", "-1um", "0,65um", "1mm", "1e3um", "nanum", "1" * 400 + "um", "1.2.3um")
        ),
    ],
)
def test_also_wrong_options_are_refused_in_one_line(run, segmenter, tmp_path: Path, command, options, says):
    draw(tmp_path / "in" / "1.png")
    code, out, err = run(command, "in", "--out", "o", *options)
    (line,) = lines(err)
    assert code == 2 and out == "" and says in line and not Path("o").exists()


@pytest.mark.parametrize(
    ("text", "size"),
    [("0.65um", 0.65), ("0.65µm", 0.65), ("0.65μm", 0.65), ("650nm", 0.65), (".5 um", 0.5), ("2.um", 2)],
)
def test_also_parse_pixel_size(text: str, size: float):
    assert ExtraFiles.parse("labels,measures,labels", text) == ExtraFiles(("measures", "labels"), size)


def test_also_parse_spelled_names():
    assert ExtraFiles.parse(None, None) == ExtraFiles() and ExtraFiles.parse(ALL, None).kinds == tuple(PLACES)
    with pytest.raises(InputError):
        ExtraFiles.parse("png", None)


def test_video_also_everything(run, segmenter, tmp_path: Path):
    for number in range(1, 7):
        draw(tmp_path / "in" / f"{number}.png", blobs=1 if number < 4 else 2)
    code, out, err = run("video", "in", "--out", "o", "--also", ALL, "--pixel-size", "0.5um", "--fps", "5")
    assert code == 0, err
    assert "measures.csv, counts.csv" in lines(out)[-1]
    check_whole(6)
    first = rows("measures.csv")[0]
    assert (first["frame"], first["time"]) == ("1", "0") and first["intensity_mean"] == "200"
    tracks = pandas.read_csv("o/track_measures.csv").set_index("id")
    assert tracks.loc[[1, 2], "first_frame"].tolist() == [1, 4] and tracks.loc[[1, 2], "frames"].tolist() == [6, 3]
    assert tracks.loc[1, "area"] == 16 and tracks.loc[1, "area_um2"] == 4 and tracks.loc[1, "path_length"] == 0
    assert [roi.position for roi in roifile.roiread("o/rois/000005.zip")] == [5, 5]
    assert json.loads(Path("o/labelme/000002.json").read_text())["imageData"]
    assert run("video", "in", "--out", "o")[0] == 0
    left = [path.name for path in Path("o").rglob("*") if path.suffix in (".csv", ".tif", ".zip", ".geojson")]
    assert left == ["tracks.csv"]
    assert not Path("o/instances.json").exists()


def test_video_after_ctrl_c_has_the_files_of_what_is_done(run, segmenter, tmp_path: Path, monkeypatch):
    for number in range(1, 7):
        draw(tmp_path / "in" / f"{number}.png")
    monkeypatch.setattr(segmenter, "fail_at", 4)
    assert run("video", "in", "--out", "o", "--also", ALL)[0] == 130
    check_whole(4)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_segment_also_without_write_permission_is_an_error(run, segmenter, tmp_path: Path):
    draw(tmp_path / "a.png")
    Path("o/labels").mkdir(parents=True)
    Path("o/labels").chmod(0o500)
    code, _, err = run("segment", "a.png", "--out", "o", "--also", "labels")
    assert code == 2 and "cannot write" in err and FakeSegmenter.seen == 0


def test_write_further_time_per_image_does_not_grow(run, segmenter, tmp_path: Path, monkeypatch):
    """Only the files of the image itself are read and written while a run goes on."""
    draw(tmp_path / "in" / "a.png")
    calls: list[Path] = []
    real = extra_files.write_atomically
    monkeypatch.setattr(extra_files, "write_atomically", lambda path: calls.append(path) or real(path))
    for number in range(5):
        draw(tmp_path / "in" / f"{number}.png")
    run("segment", "in", "--out", "o", "--also", ALL)
    assert len(calls) == 6 * len(PLACES) == len(set(calls))
