import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from pix2seqd.files import InputError
from pix2seqd.panoptic.formats import from_segments, to_segments
from pix2seqd.panoptic.outlines import polygons, run_lengths
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_coco(
    [{"id": 200, "name": "sky", "isthing": 0}, {"id": 17, "name": "cat"}, {"id": 3, "name": "dog"}]
)
SKY, CAT, DOG = 1, 2, 3
LABELS = np.array([[1, 1, 5, 5], [1, 0, 5, 5], [9, 9, 9, 0]])


@pytest.fixture
def panoptic() -> Panoptic:
    return Panoptic.from_segmentation(LABELS, {1: SKY, 5: CAT, 9: DOG}, TAXONOMY, crowds=[9])


def filled(polygon: list[int], shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centre lies inside, by the number of edges above it (even-odd)."""
    points = list(zip(polygon[::2], polygon[1::2], strict=True))
    result = np.zeros(shape, bool)
    for (x0, y0), (x1, y1) in zip(points, [*points[1:], points[0]], strict=True):
        low, high = sorted((x0, x1))
        for x in range(low, high):
            crossing = y0 + (y1 - y0) * (x + 0.5 - x0) / (x1 - x0)
            result[:, x] ^= np.arange(shape[0]) + 0.5 > crossing
    return result


@given(npst.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
@settings(max_examples=300)
def test_polygons_enclose_exactly_the_pixels(inside):
    found = [filled(polygon, inside.shape) for polygon in polygons(inside)]
    assert np.array_equal(np.any(found, axis=0) if found else np.zeros_like(inside), inside)
    assert sum(part.sum() for part in found) == inside.sum()


def test_polygons_have_corners_only():
    inside = np.zeros((9, 9), bool)
    inside[2:6, 3:8] = True
    (polygon,) = polygons(inside, left=10, top=20)
    corners = set(zip(polygon[::2], polygon[1::2], strict=True))
    assert corners == {(13, 22), (18, 22), (18, 26), (13, 26)}
    assert len(polygon) == 8


@given(npst.arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_run_lengths_go_by_columns_and_start_outside(inside):
    record = run_lengths(inside)
    values = np.repeat(np.arange(len(record["counts"])) % 2 == 1, record["counts"])
    assert np.array_equal(values.reshape(record["size"][::-1]).T, inside)


def test_to_instances_polygons_and_crowd_run_lengths(panoptic):
    cat, dog = panoptic.to_instances(image_id=12, first_id=40, as_polygons=True)
    assert (cat["id"], dog["id"], cat["image_id"], cat["category_id"], cat["iscrowd"]) == (40, 41, 12, 17, 0)
    assert (cat["area"], cat["bbox"]) == (4, [2, 0, 2, 2])
    assert np.array_equal(filled(cat["segmentation"][0], LABELS.shape), LABELS == 5)
    assert dog["segmentation"]["size"] == [3, 4]
    assert sum(dog["segmentation"]["counts"][1::2]) == 3


def test_to_segments_and_from_segments_round_trip(panoptic):
    record = to_segments(panoptic)
    assert [info["label_id"] for info in record["segments_info"]] == [0, 1, 2]
    assert [info["was_fused"] for info in record["segments_info"]] == [True, False, False]
    back = from_segments(record, TAXONOMY)
    assert np.array_equal(back.segmentation, panoptic.segmentation)
    assert [s.category_id for s in back.segments] == [s.category_id for s in panoptic.segments]
    record["segments_info"][0]["label_id"] = 3
    with pytest.raises(InputError, match="label_id 3, but there are 3 categories"):
        from_segments(record, TAXONOMY)


def test_repr_png_void_black_and_a_colour_per_segment(panoptic):
    image = Image.open(io.BytesIO(panoptic._repr_png_()))
    assert (image.format, image.size) == ("PNG", (4, 3))
    pixels = np.asarray(image.convert("RGB"))
    assert (pixels[1, 1] == 0).all(), "void is black"
    assert len({tuple(pixels[y, x]) for y, x in ((0, 0), (0, 3), (2, 0))}) == 3
