import json

import numpy as np
import pytest
from PIL import Image

from pix2seqd.data.convert import convert, open_annotations
from pix2seqd.files import InputError


def result(kind, value, label="cell", **more):
    """One shape in an image of 8 x 6."""
    given = {**value, f"{kind}labels": [label]}
    return {"original_width": 8, "original_height": 6, "image_rotation": 0, "type": f"{kind}labels", "value": given} | {
        "id": "r",
        "from_name": "label",
        "to_name": "image",
        **more,
    }


def brush(mask):
    """Runs of one value and single values, as Label Studio writes the channels of a mask."""
    values = np.repeat(np.where(mask, 255, 0).ravel(), 4).tolist()
    bits, place = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16)), 0
    while place < len(values):
        same = next((i for i, v in enumerate(values[place:]) if v != values[place]), len(values) - place)
        if same > 8:
            bits += f"1{2:02b}{same - 1:08b}{values[place]:08b}"
        else:
            same = min(6, len(values) - place)
            bits += f"0{0:02b}{same - 1:03b}" + "".join(f"{v:08b}" for v in values[place : place + same])
        place += same
    bits += "0" * (-len(bits) % 8)
    return {"format": "rle", "rle": [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]}


def task(*results, image="/data/upload/1/0123abcd-a.jpg", **more):
    return {"id": 1, "data": {"image": image}, "annotations": [{"result": list(results), **more}]}


def write(folder, *tasks):
    Image.new("RGB", (8, 6)).save(folder / "a.jpg")
    (folder / "project-1.json").write_text(json.dumps(tasks))
    return folder / "project-1.json"


def drawn(folder, *shapes):
    """The pixels of the first shape of the first image."""
    (record,) = open_annotations(write(folder, task(*shapes)))[""].records
    mask, canvas = record.shapes[0].mask(6, 8), np.zeros((6, 8), bool)
    for box, inside in mask.bands():
        canvas[box] = inside
    return ["".join(".#"[value] for value in row) for row in canvas.astype(int).tolist()]


PICTURE = [".#......", "####....", "........", ".......#", "......##", "........"]


def test_label_studio_brush(tmp_path):
    mask = np.array([[letter == "#" for letter in row] for row in PICTURE])
    assert drawn(tmp_path, result("brush", brush(mask))) == PICTURE


@pytest.mark.parametrize(
    ("kind", "value", "rows"),
    [
        ("polygon", {"points": [[12.5, 50], [50, 50], [50, 100], [12.5, 100]]}, {3: ".###....", 5: ".###...."}),
        ("rectangle", {"x": 25, "y": 0, "width": 50, "height": 50}, {0: "..####..", 2: "..####..", 3: "........"}),
        ("rectangle", {"x": 50, "y": 0, "width": 50, "height": 50, "rotation": 90}, {0: ".###....", 3: ".###...."}),
        ("ellipse", {"x": 50, "y": 50, "radiusX": 25, "radiusY": 16.67, "rotation": 0}, {1: "........", 3: "..####.."}),
    ],
)
def test_label_studio_shapes(tmp_path, kind, value, rows):
    found = drawn(tmp_path, result(kind, value))
    assert {row: found[row] for row in rows} == rows


def test_label_studio_label_of_its_own_and_converted(tmp_path):
    box = {"x": 0, "y": 0, "width": 50, "height": 100, "rotation": 0}
    apart = [{**result("rectangle", box), "type": "rectangle", "value": box}]
    apart.append({**result("rectangle", box), "type": "labels", "value": {**box, "labels": ["leaf"]}})
    unread = [result("keypoint", {"x": 1, "y": 1}), result("bitmask", {"imageDataURL": "x"}), result("vector", {})]
    nothing = {"id": 2, "data": {"image": "b.jpg"}, "annotations": []}
    path = write(tmp_path, task(*apart, *unread, image="/data/local-files/?d=x/a.jpg"), nothing)
    (annotations,) = open_annotations(path).values()
    assert [c.name for c in annotations.taxonomy.categories] == ["cell", "leaf"]
    assert "1 tasks have no annotation; they are left out" in annotations.notes
    report = convert(annotations, tmp_path / "out")
    assert (report.images, report.segments, len(report.dropped)) == (1, 1, 3)


def test_label_studio_of_several_annotations_takes_the_ground_truth(tmp_path):
    one, other = (result("rectangle", {"x": x, "y": 0, "width": 25, "height": 100}) for x in (0, 50))
    given = task(one)
    given["annotations"] += [{"result": [other], "ground_truth": True}, {"result": [], "was_cancelled": True}]
    (annotations,) = open_annotations(write(tmp_path, given)).values()
    assert annotations.records[0].shapes[0].mask(6, 8).box[1] == slice(4, 6)
    assert "1 tasks have several annotations; of these, one is taken" in annotations.notes


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (result("polygon", {"points": [[1, "a"]]}), "not pairs of numbers"),
        (result("rectangle", {"x": 1}), "it lacks one of"),
        (result("brush", {"rle": [0, 0, 0, 192, 63]}), "cut short"),
        (result("brush", {"rle": [0, 0, 0, 1, 56, 0, 0]}), "not of the size of its image"),
        (result("brush", {"rle": [256]}), "not a list of bytes"),
        (result("polygon", {"points": [[0, 0], [1, 1], [0, 1]]}, image_rotation=90), "turned in Label Studio"),
    ],
)
def test_label_studio_damaged_shapes(tmp_path, shape, says):
    (annotations,) = open_annotations(write(tmp_path, task(shape))).values()
    with pytest.raises(ValueError, match=says):
        annotations.records[0].shapes[0].mask(6, 8)


def test_label_studio_without_labels_or_images(tmp_path):
    with pytest.raises(InputError, match="has no labelled object"):
        open_annotations(write(tmp_path, task()))
    with pytest.raises(InputError, match="task number 1 names no image"):
        open_annotations(write(tmp_path, {"data": {}, "annotations": [{"result": []}]}))


def test_label_studio_image_is_the_value_that_ends_as_images_do(tmp_path):
    given = task(result("rectangle", {"x": 0, "y": 0, "width": 50, "height": 50}))
    given["data"] = {"text": "dog and/or cat", "photo": "/data/upload/1/0123abcd-a.jpg"}
    (record,) = open_annotations(write(tmp_path, given))[""].records
    assert record.file_name == "a.jpg"


@pytest.mark.parametrize(
    "names", [("a.jpg", "a.jpg"), ("0123abcd-a.jpg", "89abcdef-a.jpg"), ("0123abcd-a.jpg", "a.jpg")]
)
def test_label_studio_two_tasks_of_one_image_are_named(tmp_path, names):
    box = result("rectangle", {"x": 0, "y": 0, "width": 50, "height": 50})
    tasks = [task(box, image=f"/data/upload/1/{name}") for name in names]
    with pytest.raises(InputError, match=r"several tasks of the image a\.jpg, .*; delete all but one in Label Studio"):
        open_annotations(write(tmp_path, *tasks))
