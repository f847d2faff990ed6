import base64
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image

from pix2seqd.data.annotations import conversion
from pix2seqd.data.convert import open_annotations
from pix2seqd.files import InputError

POLYGON = {
    "classTitle": "cat",
    "geometryType": "polygon",
    "points": {"exterior": [[1, 1], [6, 1], [6, 5], [1, 5]], "interior": [[[2, 2], [4, 2], [4, 4], [2, 4]]]},
}
CLASSES = [{"title": "dog", "color": "#00FF00"}, {"title": "cat", "color": "#FF0000"}]


def bitmap(mask, origin, mode="P", title="dog"):
    """As the tools of Supervisely write it: a palette of which index 0 is transparent, or RGBA."""
    if mode == "P":
        png = Image.fromarray(np.asarray(mask, np.uint8), "P")
        png.putpalette([0, 0, 0, 255, 255, 255])
        options = {"transparency": 0}
    else:
        png, options = Image.fromarray(np.stack([np.asarray(mask, np.uint8) * 255] * 4, -1)), {}
    file = io.BytesIO()
    png.save(file, "PNG", **options)
    data = base64.b64encode(zlib.compress(file.getvalue())).decode()
    return {"classTitle": title, "geometryType": "bitmap", "bitmap": {"data": data, "origin": origin}}


def project(home, draw, objects, dataset="ds", name="a.jpg", meta=CLASSES):
    draw(home / dataset / "img" / name)
    path = home / dataset / "ann" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"size": {"height": 6, "width": 8}, "objects": objects, "tags": []}))
    if meta is not None:
        (home / "meta.json").write_text(json.dumps({"classes": meta, "tags": []}))
    return path


@pytest.mark.parametrize("mode", ["P", "RGBA"])
def test_read_supervisely_polygons_with_holes_and_bitmaps(tmp_path, draw, converted, segments, mode):
    project(tmp_path, draw, [POLYGON, bitmap([[1, 1, 0], [0, 1, 1]], [6, 4], mode)])
    (sample,) = converted(tmp_path)[""]
    assert [c.name for c in sample.panoptic.taxonomy.categories] == ["dog", "cat"]
    assert sample.panoptic.taxonomy.categories[1].color == (255, 0, 0)
    found = dict(segments(sample))
    assert found["cat"] == ["........", ".#####..", ".#..##..", ".#..##..", ".#####..", "........"]
    assert found["dog"] == [*["........"] * 4, "......##", ".......#"]


def test_read_supervisely_rectangle_has_both_corners(tmp_path, draw, converted, segments):
    entry = {"classTitle": "cat", "geometryType": "rectangle", "points": {"exterior": [[5, 3], [2, 1]]}}
    project(tmp_path, draw, [entry])
    ((_, mask),) = segments(converted(tmp_path)[""][0])
    assert mask == ["........", *["..####.."] * 3, *["........"] * 2]


def test_read_supervisely_datasets_of_splits_and_one_file(tmp_path, draw):
    paths = [project(tmp_path, draw, [POLYGON], split) for split in ("train", "val")]
    assert {split: found.records[0].file_name for split, found in open_annotations(tmp_path).items()} == {
        "train": "train/img/a.jpg",
        "val": "val/img/a.jpg",
    }
    assert open_annotations(paths[0])[""].records[0].file_name == "img/a.jpg"
    assert "pix2seqd convert-data" in conversion(tmp_path)


def test_read_supervisely_without_meta_takes_all_titles(tmp_path, draw):
    project(tmp_path, draw, [POLYGON, bitmap([[1]], [0, 0])], meta=None)
    assert [c.name for c in open_annotations(tmp_path)[""].taxonomy.categories] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({**POLYGON, "points": {"exterior": "x"}}, "not pairs of numbers"),
        ({**POLYGON, "points": {"exterior": [[0, 0], [3, 0], [3, 3]], "interior": 5}}, "not a list of holes"),
        ({**POLYGON, "geometryType": "rectangle"}, "2 corners"),
        ({**POLYGON, "geometryType": "rectangle", "points": {"exterior": [[1, 2], ["a", 4]]}}, "2 corners"),
        ({"classTitle": "cat", "bitmap": {"data": "x"}}, "no origin"),
        ({"classTitle": "cat", "bitmap": {"data": "eHh4eA==", "origin": [0, 0]}}, "damaged"),
        (
            {"classTitle": "cat", "bitmap": {"data": base64.b64encode(zlib.compress(b"x")).decode(), "origin": [0, 0]}},
            "PNG",
        ),
        ({"geometryType": "polygon"}, "no class"),
    ],
)
def test_read_supervisely_damaged_objects(tmp_path, draw, entry, says):
    project(tmp_path, draw, [entry])
    (shape,) = open_annotations(tmp_path)[""].records[0].shapes
    with pytest.raises(ValueError, match=says):
        shape.mask(6, 8)


def test_read_supervisely_drops_what_has_no_area_and_refuses_unknown_classes(tmp_path, draw):
    project(tmp_path, draw, [{"classTitle": "cat", "geometryType": "line", "points": {"exterior": [[0, 0], [1, 1]]}}])
    (shape,) = open_annotations(tmp_path)[""].records[0].shapes
    assert "no area" in shape.lost
    project(tmp_path, draw, [POLYGON], meta=[{"title": "dog"}])
    with pytest.raises(InputError, match=r"meta\.json lacks the class cat; export the project again"):
        open_annotations(tmp_path)
    project(tmp_path, draw, [], meta=[])
    with pytest.raises(InputError, match="no labelled object"):
        open_annotations(tmp_path)
