import json
import tracemalloc
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from miniatures import refusal
from PIL import Image

from pix2seqd.data.annotations.records import Annotations, Shape
from pix2seqd.data.archive import read_image
from pix2seqd.data.check import check
from pix2seqd.data.coco import CocoPanoptic
from pix2seqd.data.convert import Conversion, Painter, convert, open_annotations
from pix2seqd.data.outlines import Mask
from pix2seqd.files import InputError, encoded
from pix2seqd.images.load import load_image


def box(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def write(home: Path, of_first: list[dict[str, Any]], **more: Any) -> Path:
    """A detection json with two images of 8 x 6 pixels; the second has one ball."""
    home.mkdir(exist_ok=True)
    for name in ("a", "b"):
        Image.new("RGB", (8, 6)).save(home / f"{name}.jpg")
    content = {
        "images": [{"id": i, "file_name": f"{n}.jpg", "width": 8, "height": 6} for i, n in ((3, "a"), (9, "b"))],
        "annotations": [{"id": i, "image_id": 3, **a} for i, a in enumerate(of_first)]
        + [{"id": 99, "image_id": 9, "category_id": 37, "segmentation": box(0, 0, 2, 2)}],
        "categories": [{"id": 1, "name": "player"}, {"id": 37, "name": "ball"}],
        **more,
    }
    path = home / "instances_val.json"
    path.write_text(json.dumps(content))
    return path


def read(path: Path) -> Annotations:
    (annotations,) = open_annotations(path).values()
    return annotations


def run(path: Path, split: str = "val", **more: Any) -> tuple[Conversion, CocoPanoptic]:
    out = path.parent / "out"
    report = convert(read(path), out, split, **more)
    return report, CocoPanoptic.open(out, split)


def masks(data: CocoPanoptic, index: int = 0) -> dict[str, list[tuple]]:
    """Category → area, box and crowd of its segments."""
    found: dict[str, list[tuple]] = {}
    for s in data[index].panoptic.segments:
        found.setdefault(s.name, []).append((s.area, s.bbox, s.iscrowd))
    return found


PLAYER = {"category_id": 1, "segmentation": box(1, 0, 7, 6)}
BALL = {"category_id": 37, "segmentation": box(6, 4, 8, 6)}
CROWD = {"category_id": 1, "iscrowd": 1, "segmentation": {"size": [6, 8], "counts": [12, 6, 6, 6, 18]}}


@pytest.mark.parametrize("order", [[PLAYER, BALL, CROWD], [CROWD, BALL, PLAYER]])
def test_convert_smaller_on_top_and_crowds_below(tmp_path, order):
    report, data = run(write(tmp_path, order))
    found = masks(data)
    assert found["ball"] == [(4, (6, 4, 2, 2), False)]
    assert found["player"] == [(36 - 2, (1, 0, 6, 6), False)]
    assert (report.overlaps, report.overlap_pixels, report.pixels) == (1, 2, 96), "a crowd below is no overlap"
    assert check(data, 10).ok


def test_convert_keeps_crowds(tmp_path):
    report, data = run(write(tmp_path, [{**PLAYER, "segmentation": box(0, 0, 3, 6)}, CROWD]))
    assert masks(data)["player"] == [(6, (4, 0, 1, 6), True), (18, (0, 0, 3, 6), False)]
    assert (report.segments, report.crowds) == (3, 1)


def test_convert_counts_vanished_annotations(tmp_path):
    """Empty outlines, covered ones, and the first of two equal ones."""
    quarters = [{**BALL, "segmentation": box(x, 4, x + 1, 6)} for x in (6, 7)]
    report, data = run(write(tmp_path, [BALL, BALL, *quarters, {**PLAYER, "segmentation": []}]))
    assert sorted(report.vanished) == ["annotation 0", "annotation 1", "annotation 4"]
    assert len(masks(data)["ball"]) == 2
    assert "3 annotations have no pixel left" in "\n".join(report.lines)
    report, data = run(write(tmp_path / "equal", [BALL, BALL]))
    assert report.vanished == ["annotation 0"]


def test_convert_void_or_background(tmp_path):
    _, data = run(write(tmp_path, [BALL]))
    assert (data[0].panoptic.segmentation == 0).sum() == 44
    _, data = run(write(tmp_path / "b", [BALL]), background="lawn")
    assert masks(data)["lawn"] == [(44, (0, 0, 8, 6), False)]
    assert [(c.id, c.name, c.isthing) for c in data.taxonomy.categories] == [
        (1, "player", True),
        (37, "ball", True),
        (38, "lawn", False),
    ]


def test_painter_keeps_a_bit_for_each_pixel_of_an_outline(tmp_path):
    """Of hundreds of objects of a large image, masks would fill the memory."""
    annotations = read(write(tmp_path / "data", [PLAYER]))
    masks = [lambda height, width, n=n: Mask.of(np.ones((height - n, width), bool), n) for n in range(80)]
    shapes = [Shape(str(n), "player", mask) for n, mask in enumerate(masks)]
    record = replace(annotations.records[0], shapes=shapes, size=(1000, 1000))
    image = read_image(BytesIO(encoded(Image.new("L", (1000, 1000)))))
    tracemalloc.start()
    found = Painter(annotations).paint(record, image, Conversion())
    assert tracemalloc.get_traced_memory()[1] < 40 * 2**20, "as masks they have 80 MB"
    tracemalloc.stop()
    assert [s.area for s in found.segments] == [*[1_000] * 79, 921_000]


def test_outlines_of_an_image_that_take_too_long_together_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pix2seqd.data.convert.MAX_WORK", 100)
    path = write(tmp_path / "data", [PLAYER] * 9)
    with pytest.raises(InputError, match="cover more than 2,147,483,648 pixels together; cut the image into tiles"):
        run(path)


def test_convert_semantic_map_below_instances(tmp_path):
    """Pixels of a class that the json has become void outside instances; values may collide with ids of the json."""
    semantic = np.zeros((6, 8), np.uint8)
    semantic[:, :2], semantic[0] = 1, 2
    (tmp_path / "maps").mkdir()
    for name in ("a", "b"):
        Image.fromarray(semantic).save(tmp_path / "maps" / f"{name}.png")
    (tmp_path / "maps/classes.yaml").write_text("labels: {0: lawn, 1: player, 2: sky}\nthings: []\nvoid: []\n")
    path = write(tmp_path, [{**PLAYER, "segmentation": box(0, 0, 1, 6)}])
    _, data = run(path, semantic=tmp_path / "maps")
    assert [(c.id, c.name) for c in data.taxonomy.categories] == [
        (1, "player"),
        (37, "ball"),
        (38, "lawn"),
        (39, "sky"),
    ]
    assert masks(data) == {
        "lawn": [(30, (2, 1, 6, 5), False)],
        "sky": [(7, (1, 0, 7, 1), False)],
        "player": [(6, (0, 0, 1, 6), False)],
    }
    assert (data[0].panoptic.segmentation == 0).sum() == 5


def test_convert_links_images_in_nested_folders(tmp_path):
    path = write(tmp_path, [BALL])
    content = json.loads(path.read_text())
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.jpg").rename(tmp_path / "deep/a.jpg")
    content["images"][0].update(file_name="deep/a.jpg", licence=4)
    path.write_text(json.dumps(content))
    _, data = run(path, split="")
    assert data[0].name == str(Path("deep/a"))
    assert data.records[0]["licence"] == 4
    assert (tmp_path / "out/panoptic/deep/a.png").is_file()


def test_convert_skips_and_lists_unusable_images(tmp_path):
    for number, bad in enumerate(({"category_id": 5}, {"segmentation": "?"}, {"segmentation": [[1, 2, 3]]})):
        report, data = run(write(tmp_path / str(number), [{**BALL, **bad}]))
        assert len(report.errors) == 1
        assert "annotation 0 " in report.errors[0]
        assert len(data) == 1
    path = write(tmp_path / "size", [BALL])
    Image.new("RGB", (6, 8)).save(path.parent / "a.jpg")
    report, _ = run(path)
    assert "a.jpg is 6 x 8 but" in report.errors[0]
    (path.parent / "b.jpg").unlink()
    with pytest.raises(InputError, match="no image"):
        convert(read(path), tmp_path / "new")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["dropped.txt"], "only the report"


def test_convert_counts_annotations_of_unlisted_images(tmp_path):
    report, _ = run(write(tmp_path, [{**BALL, "image_id": 4}]))
    assert "1 annotations belong to no image" in "\n".join(report.lines)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"images": None}, "not COCO detection json"),
        ({"images": [{"id": 3}]}, "file_name"),
        ({"annotations": [{}]}, "image_id"),
        ({"categories": [{}]}, "category number 1"),
        ({"images": [{"id": 3, "file_name": "../none.jpg"}]}, "file name ../none.jpg, and no such"),
        ({"images": [{"id": i, "file_name": f"a.{i}"} for i in (3, 4)]}, "one name"),
    ],
)
def test_detection_rejects_broken_json(tmp_path, more, says):
    path = write(tmp_path, [], **more)
    with pytest.raises(InputError, match=says) as caught:
        open_annotations(path)
    assert str(path) in str(caught.value)


def test_convert_rejects_existing_output_and_background_name(tmp_path):
    path = write(tmp_path, [BALL])
    run(path)
    with pytest.raises(InputError, match="exists already"):
        run(path)
    with pytest.raises(InputError, match="ball"):
        convert(read(path), tmp_path / "new", background="ball")


def test_convert_reports_every_dropped_annotation(tmp_path):
    """An empty outline, a covered one, one of an unlisted image and one of an image that is missing."""
    path = write(tmp_path, [BALL, BALL, {**PLAYER, "segmentation": []}, {**BALL, "image_id": 4}])
    (tmp_path / "b.jpg").unlink()
    report, _ = run(path)
    assert (report.annotations, len(report.dropped)) == (5, 4)
    lines = (tmp_path / "out/dropped_val.txt").read_text().splitlines()
    assert lines == report.dropped
    for says in ("annotation 0 of a.jpg: other objects", "annotation 2 of a.jpg: no pixel", "annotation 3: image 4"):
        assert any(line.startswith(says) for line in lines)
    assert "4 of 5 annotations" in report.lost


def test_convert_reports_names_that_no_text_file_holds_as_escapes(tmp_path):
    path = write(tmp_path, [BALL, {**BALL, "image_id": "\ud800\x1b[31m"}])
    run(path)
    assert "image \\ud800\\x1b[31m is not" in (tmp_path / "out/dropped_val.txt").read_text()


def test_convert_few_dropped_annotations_are_accepted(tmp_path):
    many = [{**BALL, "segmentation": box(x, y, x + 1, y + 1)} for y in range(6) for x in range(8)]
    report, _ = run(write(tmp_path, [*many[:40], {**PLAYER, "segmentation": []}]))
    assert len(report.dropped) == 1 and report.lost == ""
    report, _ = run(write(tmp_path / "none", [], annotations=[]), background="lawn")
    assert report.lost == "no label is left"
    assert not (tmp_path / "none/out/dropped_val.txt").exists()


def stripes(path: Path, orientation: int) -> None:
    """An image of 8 x 6 stored pixels, that is to be shown in another orientation."""
    path.parent.mkdir(exist_ok=True)
    image = Image.fromarray(np.repeat(np.arange(48, dtype=np.uint8).reshape(6, 8, 1) * 4, 3, axis=2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_convert_labels_of_stored_size_turn_with_the_image(tmp_path, orientation):
    """The object lies on the pixels that it was drawn on, in the image as stored or as shown."""
    for name in "ab":
        stripes(tmp_path / f"c/{name}.png", orientation)
    shown = load_image(tmp_path / "c/a.png").size
    for given, pixel in (((8, 6), [40, 40, 40]), (shown, None)):
        home = tmp_path / f"{given[0]}"
        images = [{"id": 1, "file_name": "a.png", "width": given[0], "height": given[1]}]
        annotations = [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": box(2, 1, 3, 2)}]
        home.mkdir(exist_ok=True)
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "dot"}]}
        (home / "a.json").write_text(json.dumps(content))
        stripes(home / "a.png", orientation)
        (source,) = open_annotations(home / "a.json").values()
        report = convert(source, home / f"out{pixel}")
        sample = CocoPanoptic.open(home / f"out{pixel}")[0]
        y, x = np.argwhere(sample.panoptic.segmentation)[0]
        assert (sample.panoptic.segmentation > 0).sum() == 1
        if given != (8, 6) or orientation < 5:
            assert (x, y) == (2, 1), "as shown"
        else:
            assert sample.image[y, x].tolist() == pixel, "as stored: the pixel of row 1 and column 2"
        told = "as their size says" if orientation >= 5 else "their size does not tell"
        assert [told in note for note in report.notes] == [True] * (orientation > 1)


def test_convert_swapped_sides_name_the_orientation(tmp_path):
    path = write(tmp_path, [BALL])
    Image.new("RGB", (6, 8)).save(tmp_path / "a.jpg")
    report, _ = run(path)
    assert "may have lost its EXIF orientation" in report.errors[0]


@pytest.mark.parametrize("fault", ["interrupted", "full disk"])
def test_convert_leaves_nothing_half_written(tmp_path, fault, monkeypatch):
    annotations = read(write(tmp_path, [BALL]))

    def stop(records):
        yield records[0]
        raise KeyboardInterrupt if fault == "interrupted" else OSError(28, "No space left on device")

    with pytest.raises(KeyboardInterrupt if fault == "interrupted" else InputError):
        convert(annotations, tmp_path / "new", progress=stop)
    assert not (tmp_path / "new").exists()
    convert(annotations, tmp_path / "new", "val")
    before = sorted(tmp_path.rglob("new/*"))
    with pytest.raises((KeyboardInterrupt, InputError)):
        convert(annotations, tmp_path / "new", "train", progress=stop)
    assert sorted(tmp_path.rglob("new/*")) == before


def test_convert_two_processes_and_leftovers(tmp_path):
    annotations, out = read(write(tmp_path, [BALL])), tmp_path / "new"
    (out / ".together.part" / "panoptic_val").mkdir(parents=True)
    (out / ".dropped_val.txt.0123456789abcdef.part").write_text("left by a process that was killed")

    def meanwhile(records):
        with pytest.raises(InputError, match="another process writes into"):
            convert(annotations, out, "val")
        yield from records

    convert(annotations, out, "val", progress=meanwhile)
    assert sorted(path.name for path in out.iterdir()) == ["panoptic_val", "panoptic_val.json", "val"]


def test_convert_copies_images_where_links_cannot_be_made(tmp_path, monkeypatch):
    """As on Windows. The folder of the result lies in that of the images, and is not copied into itself."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("a required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    _, data = run(write(tmp_path, [BALL]))
    assert sorted(p.name for p in (tmp_path / "out/val").iterdir()) == ["a.jpg", "b.jpg"]
    assert masks(data)["ball"] == [(4, (6, 4, 2, 2), False)]


def test_convert_refuses_a_split_of_other_categories(tmp_path):
    path = write(tmp_path, [BALL])
    run(path)
    other = write(tmp_path / "other", [BALL], categories=[{"id": 1, "name": "ball"}, {"id": 37, "name": "player"}])
    with pytest.raises(InputError, match="other categories"):
        convert(read(other), tmp_path / "out", "train")
    for listed in (5, [1], {"id": 1}, None):
        (tmp_path / "out" / "panoptic_test.json").write_text(json.dumps({"categories": listed}))
        with pytest.raises(InputError, match="other categories"):
            convert(read(path), tmp_path / "out", "train")
    (tmp_path / "out" / "panoptic_test.json").unlink()
    convert(read(path), tmp_path / "out", "train")


def test_convert_tells_of_boxes_drawn_as_polygons(tmp_path):
    many = [{**BALL, "segmentation": box(x, y, x + 1, y + 1)} for y in range(6) for x in range(8)]
    assert "fills its bounding box" in run(write(tmp_path, many))[0].lines[-1]
    triangle = {**BALL, "segmentation": [[0, 0, 8, 0, 8, 6]]}
    assert "fills its bounding box" not in "\n".join(run(write(tmp_path / "b", [triangle, *many[:40]]))[0].lines)


def test_open_annotations_of_label_images_side_by_side_says_so(tmp_path):
    for name in ("a", "a_mask"):
        Image.new("L", (8, 6)).save(tmp_path / f"{name}.png")
    assert 'label_name: "*_mask"' in refusal(lambda: open_annotations(tmp_path))


@pytest.mark.parametrize("name", ["../a.jpg", "..\\\\images\\\\a.jpg", "../../media/upload/1/0123abcd-a.jpg"])
def test_detection_finds_images_beside_its_folder(tmp_path, name):
    """As scripts and Label Studio write them, whose uploads have eight digits before their names."""
    path = write(tmp_path, [BALL], images=[{"id": 3, "file_name": name.replace("\\\\", "\\"), "width": 8, "height": 6}])
    assert [record.file_name for record in read(path).records] == ["a.jpg"]


def test_convert_without_images_names_the_option(tmp_path):
    path = write(tmp_path, [BALL])
    for image in tmp_path.glob("*.jpg"):
        image.unlink()
    with pytest.raises(InputError, match=r"does not exist.* name it: --images FOLDER_OF_IMAGES"):
        run(path)
