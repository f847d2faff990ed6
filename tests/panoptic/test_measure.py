import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from skimage.measure import regionprops_table

from pix2seqd.files import InputError
from pix2seqd.images import load
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_coco([{"id": 7, "name": "cell"}, {"id": 9, "name": "ground", "isthing": 0}])
THEIRS = {
    "id": "label",
    "area": "area",
    "centroid_x": "centroid-1",
    "centroid_y": "centroid-0",
    "bbox_x": "bbox-1",
    "bbox_y": "bbox-0",
    "perimeter": "perimeter",
    "eccentricity": "eccentricity",
    "intensity_mean": "intensity_mean",
    "intensity_min": "intensity_min",
    "intensity_max": "intensity_max",
}


def panoptic(segmentation: np.ndarray) -> Panoptic:
    ids = np.unique(segmentation[segmentation > 0]).tolist()
    return Panoptic.from_segmentation(segmentation, dict.fromkeys(ids, 1), TAXONOMY)


def discs(size: int, step: int) -> np.ndarray:
    """A label image full of ellipses."""
    y, x = np.mgrid[:step, :step] - (step - 1) / 2
    cell = (y * y + 1.7 * x * x + 0.6 * x * y < (step / 2 - 1) ** 2).astype(np.int32)
    count = size // step
    return np.kron(np.arange(1, count * count + 1).reshape(count, count), np.ones((step, step), np.int32)) * np.tile(
        cell, (count, count)
    )


@given(npst.arrays(np.int32, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.integers(0, 4)))
@settings(max_examples=60, deadline=None)
def test_measures_equal_those_of_scikit_image(segmentation):
    values = np.random.default_rng(0).integers(0, 65536, segmentation.shape).astype(np.uint16)
    found = panoptic(segmentation).to_measures(values, pixel_size=0.5)
    properties = ("label", "area", "centroid", "bbox", "perimeter", "eccentricity", "orientation")
    intensities = ("intensity_mean", "intensity_min", "intensity_max")
    theirs = regionprops_table(segmentation, values, properties=(*properties, *intensities))
    for column, name in THEIRS.items():
        assert np.allclose(np.asarray(found[column]), theirs[name], atol=1e-9), column
    # Opposite directions are one axis, and an even spread has none.
    spread = np.asarray(found["eccentricity"]) > 1e-3
    assert np.allclose(np.cos(2 * (found["orientation"] - theirs["orientation"]))[spread], 1)
    assert np.allclose(found["area_um2"], 0.25 * theirs["area"])
    assert np.allclose(found["perimeter_um"], 0.5 * theirs["perimeter"])


def test_measures_work_band_by_band(monkeypatch):
    labels = discs(120, 15)
    image = np.random.default_rng(1).normal(size=labels.shape)
    whole = panoptic(labels).to_measures(image)
    monkeypatch.setattr(load, "BAND", 120 * 7)
    for column, values in panoptic(labels).to_measures(image).items():
        assert column == "category" or np.allclose(np.asarray(values), np.asarray(whole[column]), equal_nan=True)


def test_measures_of_one_pixel_and_of_a_line_are_defined():
    labels = np.zeros((9, 9), np.int32)
    labels[4, 4] = 3
    labels[7, 2:8] = 8
    table = panoptic(labels).to_measures()
    assert [table[name][0] for name in ("area", "perimeter", "eccentricity", "orientation")] == [1, 0, 0, 0]
    assert table["eccentricity"][1] == 1 and math.isclose(abs(table["orientation"][1]), math.pi / 2)
    assert all(np.isfinite(np.asarray(table[name])).all() for name in table if name not in ("category", "score"))


def test_measures_of_nothing_have_all_columns_and_no_rows():
    empty = Panoptic.from_segmentation(np.zeros((5, 6), int), {}, TAXONOMY)
    table = empty.to_measures(np.zeros((5, 6, 3), np.uint8), pixel_size=1)
    assert {len(values) for values in table.values()} == {0} and "intensity_max_blue" in table and "area_um2" in table


def test_measures_score_category_stuff_and_border():
    labels = np.full((6, 6), 2)
    labels[2:4, 2:5] = 1
    found = Panoptic.from_segmentation(labels, {1: 1, 2: 2}, TAXONOMY, scores={1: 0.25}).to_measures()
    assert found["category"].tolist() == ["cell", "ground"]
    assert found["touching_border"].tolist() == [False, True]
    assert found["score"][0] == 0.25 and np.isnan(found["score"][1])


def test_measures_leave_values_out_that_are_not_finite():
    labels = np.array([[1, 1, 1, 2, 2]])
    values = np.array([[1.0, np.nan, 3.0, np.inf, np.nan]])
    table = panoptic(labels).to_measures(values)
    assert [table[f"intensity_{kind}"][0] for kind in ("mean", "min", "max")] == [2, 1, 3]
    assert all(np.isnan(table[f"intensity_{kind}"][1]) for kind in ("mean", "min", "max"))


def test_measures_image_of_another_size_is_an_error():
    with pytest.raises(InputError, match="the image is 5 x 4 pixels, but its segmentation 3 x 2"):
        panoptic(np.ones((2, 3), int)).to_measures(np.zeros((4, 5), np.uint8))


@pytest.mark.parametrize("size", ["0.65um", 0, -1, math.nan, math.inf])
def test_measures_pixel_size_that_is_none_is_a_line(size):
    panoptic = Panoptic.from_segmentation(np.ones((3, 4), int), {1: 1}, TAXONOMY)
    for measured in (panoptic.to_measures, panoptic.to_geojson):
        with pytest.raises(InputError, match=f"^pixel_size must be a number of micrometres above 0, .*, not {size}$"):
            measured(pixel_size=size)
    assert panoptic.to_measures(pixel_size=0.5)["area_um2"] == [3]


def test_measures_are_columns_that_pandas_takes():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(panoptic(discs(60, 15)).to_measures(np.zeros((60, 60, 3), np.uint8), 0.5))
    assert len(frame) == 16 and frame.area.dtype == np.int64 and (frame.category == "cell").all()
    assert math.isclose(frame.area_um2.sum(), 0.25 * frame.area.sum())


@pytest.mark.slow
def test_measures_of_5000_segments_take_at_most_two_seconds():
    whole = panoptic(np.pad(discs(2044, 28), (0, 4)))
    values = np.random.default_rng(0).integers(0, 65536, (2048, 2048), np.uint16)
    assert len(whole.segments) == 5329
    started = time.process_time()
    whole.to_measures(values, pixel_size=0.5)
    assert time.process_time() - started <= 2
