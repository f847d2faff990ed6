import json
from pathlib import Path

import numpy as np
import pytest
import roifile
from PIL import Image, ImageDraw
from pycocotools import mask as coco
from shapely.geometry import shape

from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_coco(
    [
        {"id": 5, "name": "cell", "color": [1, 2, 3]},
        {"id": 8, "name": 'a/b, "é" 🙂'},
        {"id": 9, "name": "sky", "isthing": 0},
    ]
)
CELL, ODD, SKY = 1, 2, 3


@pytest.fixture
def panoptic() -> Panoptic:
    """A square with a hole, a thing in two parts, one pixel, a crowd; stuff around them and some void."""
    labels = np.full((20, 30), 50)
    labels[0, :5] = 0
    labels[2:8, 2:9] = 3
    labels[4:6, 4:6] = 50
    labels[10:14, 3:6] = labels[10:14, 10:12] = 4
    labels[19, 29] = 70_000
    labels[12:18, 15:25] = 9
    return Panoptic.from_segmentation(
        labels, {3: CELL, 4: ODD, 70_000: CELL, 9: CELL, 50: SKY}, TAXONOMY, crowds=[9], scores={3: 0.5}
    )


@pytest.mark.parametrize("as_polygons", [False, True])
def test_to_instances_give_the_masks_to_pycocotools(panoptic, as_polygons):
    entries = panoptic.to_instances(image_id=4, first_id=10, as_polygons=as_polygons)
    assert [entry["id"] for entry in entries] == [10, 11, 12, 13]
    assert [entry["segment_id"] for entry in entries] == [s.id for s in panoptic.things]
    assert [entry.get("score") for entry in entries] == [0.5, None, None, None]
    for entry, segment in zip(entries, panoptic.things, strict=True):
        coded = entry["segmentation"]
        if isinstance(coded, list):
            coded = coco.merge(coco.frPyObjects(coded, 20, 30))
        elif isinstance(coded["counts"], list):
            coded = coco.frPyObjects(coded, 20, 30)
        assert np.array_equal(coco.decode(coded) > 0, panoptic.segmentation == segment.id)
        assert entry["iscrowd"] == int(segment.id == 9)


def test_to_geojson_are_valid_detections_of_the_same_area(panoptic):
    features = json.loads(json.dumps(panoptic.to_geojson(pixel_size=0.5), allow_nan=False))["features"]
    assert [f["geometry"]["type"] for f in features] == ["Polygon", "MultiPolygon", "Polygon", "Polygon"]
    for feature, segment in zip(features, panoptic.things, strict=True):
        outline, properties = shape(feature["geometry"]), feature["properties"]
        x, y, width, height = segment.bbox
        assert outline.is_valid and outline.area == segment.area and outline.bounds == (x, y, x + width, y + height)
        assert properties["objectType"] == "detection" and properties["classification"]["name"] == segment.name
        measured = properties["measurements"]
        assert measured["id"] == segment.id and measured["area_um2"] == segment.area / 4
        assert measured.get("score") == segment.score
    assert features[0]["properties"]["classification"]["color"] == [1, 2, 3]
    assert len(features[0]["geometry"]["coordinates"]) == 2  # the outline and the hole
    assert all(ring[0] == ring[-1] for ring in features[0]["geometry"]["coordinates"])


def test_to_rois_fill_the_same_pixels_after_a_round_trip(panoptic, tmp_path: Path):
    roifile.roiwrite(tmp_path / "rois.zip", panoptic.to_rois())
    read = roifile.roiread(tmp_path / "rois.zip")
    assert isinstance(read, list) and len(read) == 4
    for roi, segment in zip(read, panoptic.things, strict=True):
        inside = np.zeros(panoptic.segmentation.shape, bool)
        for ring in roi.coordinates(multi=True):  # even-odd, as ImageJ fills them
            image = Image.new("1", (30 * 4, 20 * 4))
            ImageDraw.Draw(image).polygon([(4 * x - 1, 4 * y - 1) for x, y in ring], fill=1)
            inside ^= np.asarray(image)[2::4, 2::4]
        assert np.array_equal(inside, panoptic.segmentation == segment.id)
        x, y, width, height = segment.bbox
        assert (roi.left, roi.top, roi.right, roi.bottom) == (x, y, x + width, y + height)
    assert [roi.name for roi in read] == ["cell 3", 'a_b, "é" _ 4', "cell 9", "cell 70000"]


def test_to_rois_beyond_the_whole_numbers_of_imagej():
    labels = np.zeros((3, 61_000), int)
    labels[1, 60_600:60_990] = 1
    (roi,) = Panoptic.from_segmentation(labels, {1: CELL}, TAXONOMY).to_rois()
    coordinates = np.asarray(roifile.ImagejRoi.frombytes(roi.tobytes()).coordinates())
    assert coordinates.min(axis=0).tolist() == [60_600, 1] and coordinates.max(axis=0).tolist() == [60_990, 2]


def test_to_labelme_one_shape_per_part_and_groups(panoptic):
    content = json.loads(json.dumps(panoptic.to_labelme("../images/a.png")))
    assert (content["imagePath"], content["imageData"]) == ("../images/a.png", None)
    assert (content["imageHeight"], content["imageWidth"]) == (20, 30)
    assert [(s["label"], s["group_id"]) for s in content["shapes"]] == [
        *(("cell", 3), ('a/b, "é" 🙂', 4), ('a/b, "é" 🙂', 4), ("cell", 9), ("cell", 70_000)),
    ]
    assert all(s["shape_type"] == "polygon" and s["flags"] == {} and s["mask"] is None for s in content["shapes"])
    areas = []
    for found in content["shapes"]:
        x, y = np.array(found["points"]).T
        areas.append(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)
    assert areas == [6 * 7 - 4, 12, 8, 60, 1]


def test_exports_without_things_are_empty():
    sky = Panoptic.from_segmentation(np.ones((4, 5), int), {1: SKY}, TAXONOMY)
    assert (sky.to_instances(), sky.to_rois(), sky.to_geojson()["features"]) == ([], [], [])
    assert sky.to_labelme("a.png")["shapes"] == []


@pytest.mark.slow
def test_exports_of_70000_instances():
    labels = np.arange(1, 70_001, dtype=np.int64).reshape(200, 350)
    many = Panoptic.from_segmentation(labels, dict.fromkeys(range(1, 70_001), CELL), TAXONOMY)
    table = many.to_measures()
    assert len(table["id"]) == 70_000 and (np.asarray(table["area"]) == 1).all()
    last = many.to_instances()[-1]
    assert last["id"] == 70_000 and coco.decode(last["segmentation"])[-1, -1] == 1
