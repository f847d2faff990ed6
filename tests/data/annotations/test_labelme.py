import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from pix2seqd.data.convert import open_annotations
from pix2seqd.files import InputError


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode()


def shape(kind, points, label="cell", group=None, **more):
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}, **more}


def write(path, shapes, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"version": "5.4.1", "shapes": shapes, "imagePath": f"{path.stem}.jpg", "imageData": None}
    path.write_text(json.dumps({**content, "imageHeight": 6, "imageWidth": 8, **more}))
    return path


L_SHAPE = np.array([[1, 0], [1, 0], [1, 1]], bool)


@pytest.mark.parametrize(
    ("given", "drawn"),
    [
        (
            shape("polygon", [[1, 1], [4, 1], [4, 3], [1, 3]]),
            ["........", ".###....", ".###....", "........", "........", "........"],
        ),
        (
            shape("rectangle", [[6, 5], [2, 3]]),
            ["........", "........", "........", "..####..", "..####..", "........"],
        ),
        (
            shape("rectangle", [[2, 3], [6, 3], [6, 5], [2, 5]]),
            ["........", "........", "........", "..####..", "..####..", "........"],
        ),
        (
            shape("circle", [[4, 3], [4, 5]]),
            ["........", "...##...", "..####..", "..####..", "...##...", "........"],
        ),
        (
            shape("mask", [[5, 2], [6, 4]], mask=png(L_SHAPE)),
            ["........", "........", ".....#..", ".....#..", ".....##.", "........"],
        ),
        (
            shape("mask", [[-1, 4], [0, 6]], mask=png(~L_SHAPE)),
            ["........", "........", "........", "........", "#.......", "#......."],
        ),
        (
            shape("rotation", [[4, 0.9], [6.1, 3], [4, 5.1], [1.9, 3]]),
            ["........", "...##...", "..####..", "..####..", "...##...", "........"],
        ),
        (
            shape(None, [[0, 0], [8, 0], [8, 1], [0, 1]]),
            ["########", *["........"] * 5],
        ),
    ],
)
def test_read_labelme_shapes_become_their_pixels(tmp_path, draw, converted, segments, given, drawn):
    draw(tmp_path / "l/a.jpg")
    write(tmp_path / "l/a.json", [given])
    assert segments(converted(tmp_path / "l")[""][0]) == [("cell", drawn)]


def test_read_labelme_groups_are_one_object(tmp_path, draw, converted):
    draw(tmp_path / "l/a.jpg")
    parts = [("rectangle", [[0, 0], [2, 2]], "cell", 0), ("rectangle", [[4, 0], [6, 2]], "cell", 0)]
    parts += [("rectangle", [[0, 4], [2, 6]], "dot", 0), ("rectangle", [[4, 4], [6, 6]], "cell", None)]
    write(tmp_path / "l/a.json", [shape(*part) for part in parts])
    (sample,) = converted(tmp_path / "l")[""]
    assert sorted((s.name, s.area) for s in sample.panoptic.segments) == [("cell", 4), ("cell", 8), ("dot", 4)]


def test_read_labelme_points_and_lines_are_dropped(tmp_path, draw):
    draw(tmp_path / "l/a.jpg")
    kinds = ["point", "line", "linestrip", "points", "spline"]
    whole = shape("rectangle", [[0, 0], [2, 2]])
    write(tmp_path / "l/a.json", [shape(kind, [[1, 1], [2, 2]]) for kind in kinds] + [whole])
    shapes = open_annotations(tmp_path / "l")[""].records[0].shapes
    assert [bool(s.lost) for s in shapes] == [True] * 5 + [False]
    assert "its kind spline is not known" in shapes[4].lost


@pytest.mark.parametrize(
    ("at", "path"),
    [
        ("a.jpg", "a.jpg"),
        ("images/a.jpg", "..\\images\\a.jpg"),
        ("images/a.jpg", "C:\\Users\\me\\a.jpg"),
        ("labels/a.png", "../somewhere/else/b.jpg"),
    ],
    ids=["as written", "windows", "another computer", "same stem beside the file"],
)
def test_read_labelme_finds_the_image(tmp_path, draw, converted, at, path):
    draw(tmp_path / "l" / at)
    write(tmp_path / "l/labels/a.json", [shape("rectangle", [[0, 0], [2, 2]])], imagePath=path)
    assert converted(tmp_path / "l")[""][0].panoptic.segments[0].area == 4


def test_read_labelme_takes_the_image_out_of_the_json(tmp_path, draw, converted):
    pixels = np.arange(144, dtype=np.uint8).reshape(6, 8, 3)
    given = shape("rectangle", [[0, 0], [2, 2]])
    write(tmp_path / "l/sub/a.json", [given], imageData=png(pixels), imagePath="x.png")
    draw(tmp_path / "l/b.jpg")
    write(tmp_path / "l/b.json", [given])
    b, a = converted(tmp_path / "l")[""]
    assert np.array_equal(a.image, pixels) and abs(b.image[0, 0].astype(int) - (90, 60, 30)).max() <= 2
    assert not (tmp_path / "out/images").is_symlink()


def test_read_labelme_labels_txt_orders_classes(tmp_path, draw):
    draw(tmp_path / "l/a.jpg")
    path = write(tmp_path / "l/a.json", [shape("rectangle", [[0, 0], [2, 2]]), shape("polygon", [], "__ignore__")])
    (tmp_path / "l/labels.txt").write_text("__ignore__\n_background_\ndot\ncell\n")
    annotations = open_annotations(tmp_path / "l")[""]
    assert [c.name for c in annotations.taxonomy.categories] == ["dot", "cell"]
    assert len(annotations.records[0].shapes) == 1
    (tmp_path / "l/labels.txt").write_text("dot\n")
    with pytest.raises(InputError, match="lacks the label cell"):
        open_annotations(path)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (shape("polygon", [[1, 1], [2]]), "not pairs"),
        (shape("polygon", None), "not pairs"),
        (shape("polygon", [["1", "2"]]), "x1, y1"),
        (shape("rectangle", [[1, 1]]), "does not have 2 points"),
        (shape("circle", [[1, 1], [float("nan"), 2]]), "does not have 2 points"),
        (shape("mask", [[1, 1], [2, 2]]), "has no mask"),
        (shape("mask", [[1, 1], [2, 2]], mask="?"), "no PNG"),
        (shape("polygon", [[1, 1]], label=""), "no label"),
        ("?", "no label"),
    ],
)
def test_read_labelme_damaged_shape_gives_the_reason(tmp_path, draw, given, says):
    draw(tmp_path / "l/a.jpg")
    write(tmp_path / "l/a.json", [shape("rectangle", [[0, 0], [2, 2]]), given])
    bad = open_annotations(tmp_path / "l")[""].records[0].shapes[-1]
    with pytest.raises(ValueError, match=says):
        bad.mask(6, 8)


def test_read_labelme_folders_of_splits_share_their_classes(tmp_path, draw, converted):
    for split, label in (("train", "cell"), ("val", "dot")):
        draw(tmp_path / f"l/{split}/a.jpg")
        write(tmp_path / f"l/{split}/a.json", [shape("rectangle", [[0, 0], [2, 2]], label)])
    found = converted(tmp_path / "l")
    ids = {split: samples[0].panoptic.segments[0].category_id for split, samples in found.items()}
    assert ids == {"train": 1, "val": 2}


def test_labelme_files_and_images_in_folders_that_are_links(tmp_path, draw):
    write(draw(tmp_path / "disk/sub/a.jpg").with_suffix(".json"), [shape("polygon", [[1, 1], [4, 1], [4, 3]])])
    write(draw(tmp_path / "here/b.jpg").with_suffix(".json"), [])
    (tmp_path / "here/more").symlink_to(tmp_path / "disk")
    (record, _) = sorted(open_annotations(tmp_path / "here")[""].records, key=lambda record: -len(record.shapes))
    assert record.file_name == "more/sub/a.jpg"
