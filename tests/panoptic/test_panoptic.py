import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic, id_to_rgb, rgb_to_id
from pix2seqd.panoptic.runs import Runs
from pix2seqd.panoptic.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_coco(
    [
        {"id": 200, "name": "sky", "isthing": 0},
        {"id": 17, "name": "cat", "isthing": 1},
        {"id": 3, "name": "dog", "isthing": 1},
    ]
)
LARGEST = 2**24 - 1


@st.composite
def panoptics(draw):
    """Any size, any ids up to 2^24 - 1, void, crowds."""
    shape = draw(npst.array_shapes(min_dims=2, max_dims=2, max_side=12))
    ids = draw(st.lists(st.integers(1, LARGEST), min_size=1, max_size=6, unique=True))
    segmentation = draw(npst.arrays(np.int64, shape, elements=st.sampled_from([0, *ids])))
    classes = {i: draw(st.integers(1, len(TAXONOMY))) for i in ids}
    crowds = draw(st.lists(st.sampled_from(ids), unique=True))
    return Panoptic.from_segmentation(segmentation, classes, TAXONOMY, crowds)


def same(one, other):
    return (one.segmentation == other.segmentation).all() and one.segments == other.segments


@given(panoptics())
def test_to_coco_and_from_coco_round_trip(panoptic):
    png, annotation = panoptic.to_coco()
    assert (png.dtype, png.shape) == (np.uint8, (*panoptic.segmentation.shape, 3))
    assert same(Panoptic.from_coco(png, json.loads(json.dumps(annotation)), TAXONOMY), panoptic)


@given(panoptics())
def test_to_labels_numbers_the_things_and_round_trips(panoptic):
    labels = panoptic.to_labels()
    assert (labels.dtype, labels.shape) == (np.int32, panoptic.segmentation.shape)
    stuff = [s.id for s in panoptic.segments if not s.isthing]
    assert ((labels == 0) == np.isin(panoptic.segmentation, [0, *stuff])).all()
    for label, thing in enumerate(panoptic.things, start=1):
        assert ((labels == label) == (panoptic.segmentation == thing.id)).all()
    classes = {label: TAXONOMY.class_of(thing.category_id) for label, thing in enumerate(panoptic.things, start=1)}
    again = Panoptic.from_segmentation(labels, classes, TAXONOMY)
    assert [s.id for s in again.segments] == list(range(1, len(panoptic.things) + 1))
    assert (again.to_labels() == labels).all()


@given(panoptics())
def test_to_detections_has_one_row_per_thing_and_round_trips(panoptic):
    found = panoptic.to_detections()
    n, (height, width) = len(panoptic.things), panoptic.segmentation.shape
    assert set(found) == {"xyxy", "mask", "class_id", "confidence", "tracker_id", "data"}
    assert (found["xyxy"].dtype, found["xyxy"].shape) == (np.float32, (n, 4))
    assert (found["mask"].dtype, found["mask"].shape) == (bool, (n, height, width))
    assert (found["class_id"].dtype, found["class_id"].shape) == (np.int64, (n,))
    assert (found["tracker_id"].dtype, found["tracker_id"].shape) == (np.int64, (n,))
    assert found["data"]["class_name"].shape == (n,)
    assert found["confidence"] is None
    for row, thing in enumerate(panoptic.things):
        ys, xs = np.nonzero(found["mask"][row])
        assert found["xyxy"][row].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert found["data"]["class_name"][row] == thing.name
    labels = (found["mask"] * np.arange(1, n + 1)[:, None, None]).sum(axis=0)
    assert (labels == panoptic.to_labels()).all()


def test_to_detections_values():
    labels = np.array([[1, 1, 5, 5], [1, 0, 5, 5], [9, 9, 9, 0]])
    found = Panoptic.from_segmentation(labels, {1: 1, 5: 2, 9: 3}, TAXONOMY, crowds=[9]).to_detections()
    assert found["xyxy"].tolist() == [[2, 0, 4, 2], [0, 2, 3, 3]]
    assert found["class_id"].tolist() == [17, 3]
    assert np.array_equal(found["mask"][0], labels == 5)
    assert found["data"]["class_name"].tolist() == ["cat", "dog"]


@given(npst.arrays(np.int32, (3, 4), elements=st.integers(0, LARGEST)))
def test_id_to_rgb_and_rgb_to_id_use_the_coco_colour_code(ids):
    rgb = id_to_rgb(ids)
    assert rgb.dtype == np.uint8
    assert (rgb[..., 0] + 256 * rgb[..., 1].astype(int) + 65536 * rgb[..., 2].astype(int) == ids).all()
    assert (rgb_to_id(rgb) == ids).all()


@given(panoptics())
def test_from_segmentation_measures_area_and_box(panoptic):
    assert [s.id for s in panoptic.segments] == [i for i in np.unique(panoptic.segmentation) if i]
    for segment in panoptic.segments:
        ys, xs = np.nonzero(panoptic.segmentation == segment.id)
        assert segment.area == len(ys)
        assert segment.bbox == (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
        assert TAXONOMY.categories[TAXONOMY.class_of(segment.category_id) - 1].name == segment.name


def test_to_coco_annotation_fields():
    panoptic = Panoptic.from_segmentation(np.array([[0, 7], [7, 7]]), {7: 2}, TAXONOMY, crowds=[7])
    assert panoptic.to_coco(5, "x.png")[1] == {
        "image_id": 5,
        "file_name": "x.png",
        "segments_info": [
            {
                "id": 7,
                "category_id": 17,
                "area": 3,
                "bbox": [0, 0, 2, 2],
                "iscrowd": 1,
                "name": "cat",
                "isthing": True,
            }
        ],
    }


def test_from_segmentation_drops_ids_without_class_and_classes_without_pixels():
    panoptic = Panoptic.from_segmentation(np.array([[1, 2, 3]]), {2: 1, 9: 2}, TAXONOMY)
    assert panoptic.segmentation.tolist() == [[0, 2, 0]]
    assert [s.id for s in panoptic.segments] == [2]


def test_class_map_is_contiguous_with_void_0():
    panoptic = Panoptic.from_segmentation(np.array([[0, 5, LARGEST]]), {5: 3, LARGEST: 1}, TAXONOMY)
    assert panoptic.class_map().tolist() == [[0, 3, 1]]


@given(panoptics())
def test_without_crowds_turns_only_crowds_to_void(panoptic):
    kept = panoptic.without_crowds()
    assert kept.segments == tuple(s for s in panoptic.segments if not s.iscrowd)
    crowds = [s.id for s in panoptic.segments if s.iscrowd]
    assert (kept.segmentation == np.where(np.isin(panoptic.segmentation, crowds), 0, panoptic.segmentation)).all()


@given(panoptics())
def test_renumbered_ids_are_1_to_n_in_the_same_order(panoptic):
    new = panoptic.renumbered()
    assert [s.id for s in new.segments] == list(range(1, len(panoptic.segments) + 1))
    for old, segment in zip(panoptic.segments, new.segments, strict=True):
        assert ((panoptic.segmentation == old.id) == (new.segmentation == segment.id)).all()
        assert (old.category_id, old.area, old.bbox) == (segment.category_id, segment.area, segment.bbox)


@pytest.mark.parametrize(
    ("ids", "infos", "error"),
    [
        ([[1, 2]], [1], "2 is in the PNG but not in segments_info"),
        ([[1, 1]], [1, 2], "2 is in segments_info but not in the PNG"),
    ],
)
def test_from_coco_different_ids_in_png_and_annotation_is_an_error(ids, infos, error):
    annotation = {"segments_info": [{"id": i, "category_id": 17} for i in infos]}
    with pytest.raises(ValueError, match=error):
        Panoptic.from_coco(id_to_rgb(np.array(ids)), annotation, TAXONOMY)


def test_from_coco_unknown_category_is_an_error():
    annotation = {"segments_info": [{"id": 1, "category_id": 99}]}
    with pytest.raises(KeyError, match="99"):
        Panoptic.from_coco(id_to_rgb(np.array([[1]])), annotation, TAXONOMY)


@settings(max_examples=10)
@given(panoptics())
def test_save_and_from_coco_round_trip(tmp_path_factory, panoptic):
    path = tmp_path_factory.mktemp("saved") / "a b é.png"
    panoptic.save(path)
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    taxonomy = Taxonomy.from_coco(record["categories"])
    assert taxonomy == TAXONOMY
    with Image.open(path) as png:
        assert same(Panoptic.from_coco(png, record, taxonomy), panoptic)


def test_save_to_a_missing_folder_is_an_input_error(tmp_path):
    panoptic = Panoptic.from_segmentation(np.array([[1]]), {1: 1}, TAXONOMY)
    with pytest.raises(InputError, match="cannot write"):
        panoptic.save(tmp_path / "missing" / "a.png")


def test_measure_id_2_31_needs_no_table():
    assert Runs.encode(np.array([[0, 2**31 - 1]], np.int32)).measure() == {2**31 - 1: (1, (1, 0, 1, 1))}


def test_panoptic_shows_itself_in_one_line():
    panoptic = Panoptic.from_segmentation(np.tile(np.arange(50), (40, 1)), dict.fromkeys(range(1, 50), 2), TAXONOMY)
    assert repr(panoptic) == "<Panoptic: 50 x 40 pixels, 49 segments>"
