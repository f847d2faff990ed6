import json
import time

import pytest
from miniatures import refusal

from pix2seqd.data.annotations.coco_json import read_coco
from pix2seqd.data.annotations.records import ImageFinder
from pix2seqd.data.convert import convert, open_annotations
from pix2seqd.files import InputError

SQUARE = [[1, 1, 4, 1, 4, 4, 1, 4]]
DRAWN = ["........", ".###....", ".###....", ".###....", "........", "........"]
CELL = {"id": 1, "name": "cell"}
LARGE = {"file_name": "a.jpg", "width": 64, "height": 48}


def write(path, draw, annotations, categories=(CELL,), images=None, image="a.jpg", encoding="utf-8"):
    """A json of one image, and annotations with the keys of a whole one unless they are given."""
    draw(path.parent / image)
    default = {"image_id": 7, "category_id": 1, "segmentation": SQUARE}
    content = {
        "images": images or [{"id": 7, "file_name": "a.jpg", "width": 8, "height": 6}],
        "annotations": [{"id": number, **default, **given} for number, given in enumerate(annotations)],
        "categories": list(categories),
    }
    path.write_text(json.dumps(content, ensure_ascii=False), encoding=encoding)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_read_coco_encodings(tmp_path, draw, converted, segments, encoding):
    path = write(tmp_path / "c/a.json", draw, [{}], [{"id": 1, "name": "Zelle μ"}], encoding=encoding)
    assert segments(converted(path)[""][0]) == [("Zelle μ", DRAWN)]


@pytest.mark.parametrize(
    ("categories", "given", "ids", "says"),
    [
        ([{"id": 0, "name": "cell"}, {"id": 1, "name": "dot"}], 0, [1, 2], "1 higher"),
        ([{"id": 0, "name": "cells", "supercategory": "none"}, CELL], 1, [1], "Roboflow"),
        ([{"id": 0, "name": "cell", "supercategory": "none"}, {"id": 1, "name": "dot"}], 0, [1, 2], "1 higher"),
        ([{"id": 0, "name": "cell", "supercategory": "none"}], 0, [1], "1 higher"),
        ([{"id": "1", "name": "cell"}], 1, [1], None),
        ([{"id": 1.0, "name": "cell"}], "1", [1], None),
        ([{"id": "c", "name": "cell"}, {"id": "d", "name": "dot"}], "c", [1, 2], "become 1 to 2"),
        ([{"id": -4, "name": "cell"}], -4, [1], "become 1 to 1"),
        ([{"id": 10**12, "name": "cell"}], 10**12, [1], "become 1 to 1"),
        ([{"id": 4, "name": "cell"}], "cell", [4], "name of their category"),
    ],
)
def test_read_coco_category_ids(tmp_path, draw, converted, segments, categories, given, ids, says):
    path = write(tmp_path / "c/a.json", draw, [{"category_id": given}], categories)
    annotations = open_annotations(path)[""]
    assert [category.id for category in annotations.taxonomy.categories] == ids
    assert [says for note in annotations.notes if says and says in note] == [says] * bool(says)
    assert segments(converted(path)[""][0]) == [("cell", DRAWN)]


@pytest.mark.parametrize(
    ("color", "expected"),
    [
        ([1, 2, 3], (1, 2, 3)),
        ("#0A0b0c", (10, 11, 12)),
        ("red", (255, 0, 0)),
        ("null", None),
        (None, None),
        ([], None),
        ("#12", None),
        ([300, 0, 0], None),
        ({"r": 1}, None),
    ],
)
def test_read_coco_colours(tmp_path, draw, color, expected):
    annotations = open_annotations(write(tmp_path / "a.json", draw, [{}], [{**CELL, "color": color}]))[""]
    found = annotations.taxonomy.category(1).color
    assert found == expected or (expected is None and found == (242, 109, 109))
    understood = expected or color in ("null", None, [])
    assert bool(annotations.notes) == (not understood)


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("a.jpg", "c/a.jpg"),
        ("train/a.jpg", "c/a.jpg"),
        ("images\\a.jpg", "c/a.jpg"),
        ("C:\\Users\\me\\a.jpg", "c/a.jpg"),
        ("/home/me/a.jpg", "c/deep/er/a.jpg"),
        ("a.jpg", "images/a.jpg"),
        ("a.jpg", "c/images/a.jpg"),
        ("a_jpg.rf.0123456789abcdef.jpg", "c/a.jpg"),
        ("a.jpg", "c/a_jpg.rf.0123456789abcdef.jpg"),
        ("A.JPG", "c/deep/a.jpg"),
    ],
)
def test_read_coco_finds_the_image(tmp_path, draw, converted, segments, name, at):
    path = write(tmp_path / "c/x.json", draw, [{}], images=[{"id": 7, "file_name": name}], image=f"../{at}")
    assert segments(converted(path)[""][0]) == [("cell", DRAWN)]


def test_read_coco_does_not_choose_among_images_of_one_name(tmp_path, draw):
    path = write(tmp_path / "x.json", draw, [{}], images=[{"id": 7, "file_name": "f/a.jpg"}], image="d/a.jpg")
    draw(tmp_path / "e/a.jpg")
    assert open_annotations(path)[""].records[0].file_name == "f/a.jpg"
    message = refusal(lambda: convert(open_annotations(path)[""], tmp_path / "out"))
    assert all(str(tmp_path / place) in message for place in ("d/a.jpg", "e/a.jpg"))
    assert convert(open_annotations(path, tmp_path / "e")[""], tmp_path / "out").images == 1  # as the message says


@pytest.mark.parametrize(
    "segmentation",
    [SQUARE, SQUARE[0], [[1, 1], [4, 1], [4, 4], [1, 4]], {"size": [6, 8], "counts": [7, 3, 3, 3, 3, 3, 26]}],
)
def test_read_coco_forms_of_outlines(tmp_path, draw, converted, segments, segmentation):
    path = write(tmp_path / "c/a.json", draw, [{"segmentation": segmentation}])
    assert segments(converted(path)[""][0]) == [("cell", DRAWN)]


@pytest.mark.parametrize(
    "entry",
    [
        {"file_name": "my%20cell.jpg"},
        {"file_name": "https://example.com/bucket/my%20cell.jpg?signed=1"},
        {"file_name": "s3://bucket/x/my cell.jpg"},
        {"coco_url": "http://images.cocodataset.org/train2017/my%20cell.jpg"},
    ],
)
def test_read_coco_names_that_are_addresses(tmp_path, draw, converted, segments, entry):
    draw(tmp_path / "c/images/my cell.jpg")
    path = write(tmp_path / "c/a.json", draw, [{}], images=[{"id": 7, **entry}])
    assert "found under another name" in " ".join(open_annotations(path)[""].notes)
    assert segments(converted(path)[""][0]) == [("cell", DRAWN)]


def test_read_coco_keypoints_are_no_outlines(tmp_path, draw):
    path = write(tmp_path / "a.json", draw, [{"segmentation": None, "keypoints": [1, 1, 2]}, {"segmentation": None}])
    assert [shape.lost for shape in open_annotations(path)[""].records[0].shapes] == [
        "it has keypoints instead of an outline",
        "it has no outline",
    ]


@pytest.mark.parametrize("nothing", [[], None, ""])
def test_read_coco_boxes(tmp_path, draw, nothing):
    box = {"segmentation": nothing, "bbox": [1, 1, 3, 3]}
    shapes = open_annotations(write(tmp_path / "a.json", draw, [{}, box]))[""].records[0].shapes
    assert [shape.lost for shape in shapes] == ["", "it has only a bounding box, no outline"]
    with pytest.raises(InputError, match=r"a\.json has only bounding boxes; .*masks"):
        open_annotations(write(tmp_path / "a.json", draw, [box, box]))


def test_read_coco_images_by_text(tmp_path, draw):
    given = [{"image_id": "7"}, {"image_id": 7.0}, {"image_id": "a.jpg"}, {"image_id": "b.jpg"}]
    annotations = open_annotations(write(tmp_path / "a.json", draw, given))[""]
    assert len(annotations.records[0].shapes) == 3
    assert annotations.unlisted == ["annotation 3: image b.jpg is not in images"]


@pytest.mark.parametrize(
    ("categories", "says"),
    [
        ([{"id": 1, "name": "a"}, {"id": "1", "name": "b"}], "two categories have the id 1"),
        ([{"id": 1}], "has no name"),
        ([{"id": True, "name": "a"}], "has no id"),
        ([{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], "used more than once"),
        ([7], "has no keys"),
    ],
)
def test_read_coco_rejects_broken_categories(tmp_path, draw, categories, says):
    with pytest.raises(InputError, match=says) as caught:
        open_annotations(write(tmp_path / "a.json", draw, [{}], categories))
    assert "{" not in str(caught.value), "no Python value"


@pytest.mark.parametrize("name", ["b/" * 20_000 + "a.png", "a_" * 50_000 + ".rf.0.png", "_" * 100_000])
def test_read_coco_long_file_names_take_no_time(tmp_path, name):
    images = [{"id": n, "file_name": f"{n}{name}"} for n in range(10)]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    began = time.process_time()
    read_coco(tmp_path / "a.json", content)
    assert time.process_time() - began < 5


def test_read_coco_8000_images_that_roboflow_renamed(tmp_path, monkeypatch):
    found = {f"{n}_png.rf.0123abcd.png": [f"{n}_png.rf.0123abcd.png"] for n in range(8_000)}
    monkeypatch.setattr(ImageFinder, "_below", lambda _: found)
    images = [{"id": n, "file_name": f"{n}.png"} for n in range(8_000)]
    content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    began = time.process_time()
    records = read_coco(tmp_path / "a.json", content).records
    assert [record.file_name for record in records] == list(found)
    assert time.process_time() - began < 4


def test_read_coco_points_as_shares_are_refused(tmp_path, draw):
    """Otherwise the objects would be one pixel in the corner."""
    given = [{"segmentation": [[0.1, 0.1, 0.9, 0.1, 0.9, 0.9, 0.1, 0.9]]}, {"segmentation": [[1, 1, 4, 1, 4, 3]]}]
    shares, pixels = open_annotations(write(tmp_path / "a.json", draw, given))[""].records[0].shapes
    assert "shares of width and height" in shares.lost and not pixels.lost


def test_read_coco_annotations_by_their_ids(tmp_path, draw):
    """As in LIVECell."""
    path = write(tmp_path / "a.json", draw, [{}, {"id": 2}])
    content = json.loads(path.read_text())
    content["annotations"] = {str(entry["id"]): entry for entry in content["annotations"]}
    path.write_text(json.dumps(content))
    assert len(open_annotations(path)[""].records[0].shapes) == 2


@pytest.mark.parametrize(("marked", "attributes", "crowds"), [(1, False, 1), (1, True, 0), (3, False, 0)])
def test_read_coco_masks_marked_as_crowds_are_objects(tmp_path, draw, marked, attributes, crowds):
    """CVAT marks masks of its brush, others all run-length codes; COCO's real crowds are few."""
    mask = {"segmentation": {"size": [6, 8], "counts": [12, 6, 30]}, "iscrowd": 1}
    mask |= {"attributes": {"occluded": False}} if attributes else {}
    path = write(tmp_path / "c/a.json", draw, [mask] * marked + [{}] * (4 - marked))
    found = open_annotations(path)[""]
    assert sum(shape.crowd for shape in found.records[0].shapes) == crowds
    assert [f"{marked} of 4 annotations are marked as crowds" in note for note in found.notes] == [True] * (not crowds)


@pytest.mark.parametrize(
    ("outline", "bbox", "warned"),
    [
        ([10, 8, 40, 8, 40, 30, 10, 30], [10, 8, 30, 22], 0),
        ([8, 10, 8, 40, 30, 40, 30, 10], [30, 8, 30, 22], 1),  # y before x
        ([10, 8, 2, 40, 8, 2, 40, 30, 2, 10, 30, 2], [10, 8, 30, 22], 1),  # x, y and whether it is seen
        ([5, 4, 20, 4, 20, 15, 5, 15], [10, 8, 30, 22], 1),  # of an image of half the size
        ([10, 8, 40, 8, 40, 30, 10, 30], None, 0),
        ([10, 8, 40, 8, 40, 30, 10, 30], [10, 8, "a", 22], 0),
    ],
)
def test_read_coco_outlines_away_from_their_boxes_are_said(tmp_path, draw, outline, bbox, warned):
    path = write(tmp_path / "a.json", draw, [{"segmentation": [outline], "bbox": bbox}], images=[{"id": 7, **LARGE}])
    draw(tmp_path / "a.jpg", 64, 48)
    (annotations,) = open_annotations(path).values()
    lines = convert(annotations, tmp_path / "out").lines
    assert [line.startswith("warning: 1 of 1 outlines lie elsewhere") for line in lines].count(True) == warned
