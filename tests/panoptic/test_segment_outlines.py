import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from pycocotools import mask as coco
from scipy import ndimage
from shapely.geometry import MultiPolygon, Polygon

from pix2seqd.panoptic.outlines import compressed_run_lengths, parts

MAPS = npst.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def drawn(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


@given(MAPS)
@settings(max_examples=100, deadline=None)
def test_parts_are_valid_polygons_of_the_same_area(inside):
    found = list(parts(inside))
    assert len(found) == ndimage.label(inside)[1]
    shape = MultiPolygon([(outline, holes) for outline, *holes in found])
    assert shape.is_valid and shape.area == inside.sum()


def test_parts_hole_that_touches_the_outline_at_a_corner_stays_a_hole():
    ((outline, hole),) = parts(drawn("###", "#.#", "##."))
    assert len(hole) == 4 and Polygon(outline, [hole]).is_valid and Polygon(hole).area == 1


def test_parts_are_moved_by_left_and_top():
    ((outline,),) = parts(drawn("..", ".#"), left=10, top=20)
    assert set(outline) == {(11, 21), (12, 21), (12, 22), (11, 22)}


@given(MAPS, st.integers(0, 3), st.integers(0, 3), st.integers(0, 2), st.integers(0, 2))
@settings(max_examples=100, deadline=None)
def test_compressed_run_lengths_are_those_of_pycocotools(inside, left, top, right, bottom):
    whole = np.pad(inside, ((top, bottom), (left, right)))
    record = compressed_run_lengths(inside, left, top, whole.shape)
    assert record == {"size": list(whole.shape), "counts": coco.encode(np.asfortranarray(whole))["counts"].decode()}


def test_compressed_run_lengths_of_large_images():
    whole = np.zeros((3000, 2000), bool)
    whole[700:2900, 1500:1700] = True
    record = compressed_run_lengths(whole[700:2900, 1500:1700], 1500, 700, whole.shape)
    assert record["counts"] == coco.encode(np.asfortranarray(whole))["counts"].decode()
