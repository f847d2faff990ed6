import functools
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pix2seqd.data.outlines import Mask, column_runs, combine, decode_mask, ellipse_mask, fill_polygon

BOX = np.zeros((6, 7), bool)
BOX[1:4, 2:5] = True
BOX[5, 0] = True


def decoded(segmentation, height: int, width: int) -> np.ndarray:
    return decode_mask(segmentation, height, width).whole(height, width)


def test_decode_mask_polygon_pixel_centres():
    assert np.argwhere(decoded([[2, 1, 5, 1, 5, 4, 2, 4]], 6, 7)).tolist() == np.argwhere(BOX[:5]).tolist()
    assert not decoded([[2.6, 1.6, 3.4, 1.6, 3.4, 2.4, 2.6, 2.4]], 6, 7).any(), "between four centres"
    assert decoded([[2.4, 1.4, 2.6, 1.4, 2.6, 1.6, 2.4, 1.6]], 6, 7).sum() == 1, "around a centre"


def test_decode_mask_several_polygons_beyond_the_image():
    two = [[-9, -9, 1, -9, 1, 1, -9, 1], [6, 5, 99, 5, 99, 99, 6, 99]]
    assert np.argwhere(decoded(two, 6, 7)).tolist() == [[0, 0], [5, 6]]


def test_decode_mask_empty_polygons():
    for empty in ([], [[]], [[1, 1]], [[1, 1, 4, 4]]):
        assert not decoded(empty, 6, 7).any()


@given(st.lists(st.tuples(st.floats(-20, 40), st.floats(-20, 40)), min_size=3, max_size=8))
def test_decode_mask_even_odd_rule(points):
    inside = decoded([[v for point in points for v in point]], 9, 11)
    for row, column in ((0, 0), (4, 5), (8, 10), (2, 9)):
        crossings = 0
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
            if (y0 <= row + 0.5) != (y1 <= row + 0.5):
                crossings += x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0) <= column + 0.5
        assert inside[row, column] == crossings % 2


def test_decode_mask_plain_run_lengths():
    counts = [5, 1, 7, 3, 3, 3, 3, 3, 14]
    assert np.array_equal(decoded({"size": [6, 7], "counts": counts}, 6, 7), BOX)


def test_decode_mask_compressed_run_lengths():
    """The strings were encoded by pycocotools 2.0.11."""
    for counts in ("5172L000;", b"5172L000;"):
        assert np.array_equal(decoded({"size": [6, 7], "counts": counts}, 6, 7), BOX)
    window = np.zeros((40, 30), bool)
    window[3:38, 2:29] = True
    window[10:20, 5:9] = False
    counts = "c2S150000TO5;KE5;KE5;KE5;Ka000000000000000000000000000000000000000U1"
    assert np.array_equal(decoded({"size": [40, 30], "counts": counts}, 40, 30), window)


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        (None, "neither"),
        ("text", "neither"),
        ([[1, 2, 3]], "polygon"),
        ([[1, float("nan")]], "polygon"),
        ({"size": [7, 6], "counts": [42]}, "size"),
        ({"size": [6, 7]}, "no counts"),
        ({"size": [6, 7], "counts": [41]}, "cover"),
        ({"size": [6, 7], "counts": [43, -1]}, "cover"),
        ({"size": [6, 7], "counts": "5172L000"}, "cover"),
        ({"size": [6, 7], "counts": "5172L000;P"}, "damaged"),
        ({"size": [6, 7], "counts": "5172L000; "}, "damaged"),
    ],
)
def test_decode_mask_rejects_damaged_segmentations(segmentation, says):
    with pytest.raises(ValueError, match=says):
        decode_mask(segmentation, 6, 7)


def quickly_refused(segmentation, height: int, width: int, says: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=says):
        decode_mask(segmentation, height, width)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("value", [1e308, 10**400, float("inf"), float("nan"), 1.1e7, -1.1e7])
def test_decode_mask_coordinate_beyond_any_image(value):
    quickly_refused([[2, 1, value, 1, 5, 4]], 6, 7, "coordinates that are not from -10000000 to 10000000")
    assert decoded([[-1e7, -1e7, 1e7, -1e7, 1e7, 1e7, -1e7, 1e7]], 6, 7).all()


@pytest.mark.parametrize(
    "polygon", ["1234", None, 3, {}, [[1, 2], [3, 4]], ["1", "2"], [1, 2, True, 4], [1, 2, None, 4]]
)
def test_decode_mask_polygon_of_something_else(polygon):
    quickly_refused([polygon], 6, 7, "a polygon is not a list")


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        ([[0, 0, 5, 5] * 25_001], "more than 50,000 points"),
        ([[0, 0, 5, 0, 5, 5]] * 2_001, "more than 2,000 polygons"),
        ({"size": [10_000, 10_000], "counts": [1] * 5_000_000}, "more than 4,194,304 runs"),
        ({"size": [10_000, 10_000], "counts": "o" * 1_000_000}, "damaged"),
        ({"size": [10_000, 10_000], "counts": "1" * 1_000_000}, "does not cover"),
        ({"size": [10_000, 10_000], "counts": [10**400]}, "does not cover"),
        ({"size": [10_000, 10_000], "counts": [1e8]}, "no integers"),
        ({"size": [10_000, 10_000], "counts": [True, 99_999_999]}, "no integers"),
        ({"size": [10_000, 10_000], "counts": [[1]]}, "no integers"),
        ({"size": [10_000, 10_000], "counts": "\udcff"}, "damaged"),
        ({"size": 3, "counts": []}, "has size 3"),
        ({"size": None, "counts": []}, "has size None"),
        ({"size": [0] * 10**6, "counts": []}, "has size"),
    ],
)
def test_decode_mask_costly_or_damaged(segmentation, says):
    quickly_refused(segmentation, 10_000, 10_000, says)


def test_decode_mask_as_many_polygons_and_points_as_allowed_takes_seconds():
    draw = np.random.default_rng(0)
    for polygons in (draw.uniform(0, 640, (2_000, 8)), draw.uniform(0, 640, (1, 100_000))):
        began = time.process_time()
        decode_mask(polygons.tolist(), 480, 640)
        assert time.process_time() - began < 10


@pytest.mark.parametrize("at_once", [1, 50, 2**20])
def test_fill_polygon_follows_the_even_odd_rule_pixel_by_pixel(monkeypatch, at_once):
    monkeypatch.setattr("pix2seqd.data.outlines.MAX_CROSSED", at_once)
    rng = np.random.default_rng(0)
    for count in (3, 4, 9, 20):
        points = rng.uniform(-5, 25, (count, 2))
        inside = fill_polygon(points, 18, 21).whole(18, 21)
        (x0, y0), (x1, y1) = points.T, np.roll(points, -1, 0).T
        for y, x in np.argwhere(np.ones_like(inside)).tolist():
            crosses = (y0 <= y + 0.5) != (y1 <= y + 0.5)
            left = x0 + (y + 0.5 - y0) / np.where(crosses, y1 - y0, 1) * (x1 - x0) <= x + 0.5
            assert inside[y, x] == ((crosses & left).sum() % 2 == 1)


@pytest.mark.parametrize("degrees", [0, 30, 90, 200])
def test_ellipse_mask_has_the_pixels_whose_centres_are_inside(degrees):
    y, x = np.mgrid[:40, :50] + 0.5
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    for center, radii in (((25, 20), (12, 5)), ((2, 38), (9, 9)), ((60, 20), (14, 3)), ((25, 20), (1000, 900))):
        dx, dy = x - center[0], y - center[1]
        inside = ((dx * cos + dy * sin) / radii[0]) ** 2 + ((dy * cos - dx * sin) / radii[1]) ** 2 <= 1
        assert np.array_equal(ellipse_mask(center, radii, degrees, 40, 50).whole(40, 50), inside)


def test_column_runs_in_any_order_that_overlap_and_pass_the_end_of_columns():
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 5, 40):
        for longest in (3, 30):
            starts = rng.integers(0, 90, count)
            ends = starts + rng.integers(0, longest, count)
            flat = np.zeros(120, bool)
            for start, end in zip(starts, ends, strict=True):
                flat[start:end] = True
            found = column_runs(starts, ends, 12)
            assert np.array_equal(found.whole(12, 10), flat.reshape(10, 12).T)


def test_combine_adds_takes_away_and_does_either():
    rng = np.random.default_rng(0)
    wholes = rng.random((4, 9, 11)) < 0.3
    wholes[2] = False
    for operator in (np.logical_or, np.greater, np.logical_xor):
        found = combine(map(Mask.of, wholes), operator)
        assert np.array_equal(found.whole(9, 11), functools.reduce(operator, wholes))
        assert found.area == found.whole(9, 11).sum()
    assert combine([]).area == 0


def test_outlines_that_cover_a_large_image_again_and_again_are_refused(monkeypatch):
    zigzag = [value for n in range(20_000) for value in (n / 2, 12_000 * (n % 2))]
    quickly_refused([zigzag], 12_000, 12_000, "cover more than 2,147,483,648 pixels together; cut the image")
    monkeypatch.setattr("pix2seqd.data.outlines.MAX_WORK", 10_000)
    whole = [0, 0, 40, 0, 40, 40, 0, 40]
    assert decode_mask([whole] * 2, 40, 40).area == 1600
    quickly_refused([whole] * 2_000, 40, 40, "cover more than")
    quickly_refused({"size": [400, 400], "counts": [0, 400 * 400]}, 400, 400, "cover more than")


def test_an_outline_takes_as_long_as_its_own_box():
    """Thousands of small objects of a large image are seen at once."""
    small = [[9_000, 9_000, 9_040, 9_000, 9_040, 9_050, 9_000, 9_050]]
    runs = {"size": [12_000, 12_000], "counts": [9_000 * 12_001, 50, 12_000**2 - 9_000 * 12_001 - 50]}
    for segmentation, shape in ((small, (50, 40)), (runs, (50, 1))):
        tracemalloc.start()
        found = decode_mask(segmentation, 12_000, 12_000)
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()
        assert (found.shape, found.area) == (shape, shape[0] * shape[1])
