import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic, id_to_rgb, measure, rgb_to_id
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
def test_coco_picture_and_record_give_the_same_back(panoptic):
    annotation = json.loads(json.dumps(panoptic.annotation(1, "a.png")))
    assert same(Panoptic.from_coco(panoptic.to_rgb(), annotation, TAXONOMY), panoptic)


@given(npst.arrays(np.int32, (3, 4), elements=st.integers(0, LARGEST)))
def test_colour_code_is_red_plus_256_green_plus_65536_blue(ids):
    rgb = id_to_rgb(ids)
    assert rgb.dtype == np.uint8
    assert (rgb[..., 0] + 256 * rgb[..., 1].astype(int) + 65536 * rgb[..., 2].astype(int) == ids).all()
    assert (rgb_to_id(rgb) == ids).all()


@given(panoptics())
def test_every_segment_is_measured_as_by_hand(panoptic):
    assert [s.id for s in panoptic.segments] == [i for i in np.unique(panoptic.segmentation) if i]
    for segment in panoptic.segments:
        ys, xs = np.nonzero(panoptic.segmentation == segment.id)
        assert segment.area == len(ys)
        assert segment.bbox == (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
        assert TAXONOMY.categories[TAXONOMY.class_of(segment.category_id) - 1].name == segment.name


def test_the_record_says_what_coco_and_people_need():
    panoptic = Panoptic.from_segmentation(np.array([[0, 7], [7, 7]]), {7: 2}, TAXONOMY, crowds=[7])
    assert panoptic.annotation(5, "x.png") == {
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


def test_ids_without_a_class_become_void_and_classes_without_pixels_no_segment():
    panoptic = Panoptic.from_segmentation(np.array([[1, 2, 3]]), {2: 1, 9: 2}, TAXONOMY)
    assert panoptic.segmentation.tolist() == [[0, 2, 0]]
    assert [s.id for s in panoptic.segments] == [2]


def test_class_map_is_contiguous_with_void_0():
    panoptic = Panoptic.from_segmentation(np.array([[0, 5, LARGEST]]), {5: 3, LARGEST: 1}, TAXONOMY)
    assert panoptic.class_map().tolist() == [[0, 3, 1]]


@given(panoptics())
def test_crowds_become_void_and_the_rest_stays(panoptic):
    kept = panoptic.without_crowds()
    assert kept.segments == tuple(s for s in panoptic.segments if not s.iscrowd)
    crowds = [s.id for s in panoptic.segments if s.iscrowd]
    assert (kept.segmentation == np.where(np.isin(panoptic.segmentation, crowds), 0, panoptic.segmentation)).all()


@given(panoptics())
def test_renumbering_gives_1_to_n_in_the_same_order(panoptic):
    new = panoptic.renumbered()
    assert [s.id for s in new.segments] == list(range(1, len(panoptic.segments) + 1))
    for old, segment in zip(panoptic.segments, new.segments, strict=True):
        assert ((panoptic.segmentation == old.id) == (new.segmentation == segment.id)).all()
        assert (old.category_id, old.area, old.bbox) == (segment.category_id, segment.area, segment.bbox)


@pytest.mark.parametrize(
    ("ids", "infos", "error"),
    [
        ([[1, 2]], [1], "2 is in the picture but not in segments_info"),
        ([[1, 1]], [1, 2], "2 is in segments_info but not in the picture"),
    ],
)
def test_picture_and_record_that_disagree_are_refused(ids, infos, error):
    annotation = {"segments_info": [{"id": i, "category_id": 17} for i in infos]}
    with pytest.raises(ValueError, match=error):
        Panoptic.from_coco(id_to_rgb(np.array(ids)), annotation, TAXONOMY)


def test_an_unknown_category_is_refused():
    annotation = {"segments_info": [{"id": 1, "category_id": 99}]}
    with pytest.raises(KeyError, match="99"):
        Panoptic.from_coco(id_to_rgb(np.array([[1]])), annotation, TAXONOMY)


@settings(max_examples=10)
@given(panoptics())
def test_saved_files_read_back(tmp_path_factory, panoptic):
    path = tmp_path_factory.mktemp("saved") / "a b é.png"
    panoptic.save(path)
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    taxonomy = Taxonomy.from_coco(record["categories"])
    assert taxonomy == TAXONOMY
    with Image.open(path) as png:
        assert same(Panoptic.from_coco(png, record, taxonomy), panoptic)


def test_saving_where_nothing_can_be_written_is_an_input_error(tmp_path):
    panoptic = Panoptic.from_segmentation(np.array([[1]]), {1: 1}, TAXONOMY)
    with pytest.raises(InputError, match="cannot write"):
        panoptic.save(tmp_path / "missing" / "a.png")


def test_measuring_needs_no_memory_for_ids_that_are_not_there():
    assert measure(np.array([[0, 2**31 - 1]], np.int32)) == {2**31 - 1: (1, (1, 0, 1, 1))}
