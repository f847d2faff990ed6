import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pix2seqd.panoptic.runs import Runs, joint

MAPS = npst.arrays(np.int32, st.tuples(st.integers(0, 7), st.integers(0, 7)), elements=st.integers(0, 3))


@settings(max_examples=100, deadline=None)
@given(labels=MAPS)
def test_runs_of_a_map_give_it_back_and_measure_it(labels: np.ndarray):
    runs = Runs.encode(labels)
    assert np.array_equal(runs.decode(runs.values), labels)
    for start, stop in ((i, j) for j in range(len(labels) + 1) for i in range(j)):
        assert np.array_equal(runs.rows(start, stop), labels[start:stop])
    assert np.array_equal(runs.areas(4), np.bincount(labels.ravel(), minlength=4))
    measured = runs.measure()
    assert list(measured) == [label for label in range(1, 4) if (labels == label).any()]
    for label, (area, (x, y, width, height)) in measured.items():
        rows, columns = np.nonzero(labels == label)
        assert area == len(rows) and (x, y) == (columns.min(), rows.min())
        assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_joint_runs_have_one_label_in_each_map(count: int):
    maps = np.random.default_rng(count).integers(0, 3, (count, 6, 9)).repeat(2, axis=2)
    labels, starts = joint([Runs.encode(one) for one in maps])
    for one, values in zip(maps, labels, strict=True):
        assert np.array_equal(Runs(starts, values, (6, 18)).decode(values), one)
    assert len(starts) <= maps[0].size / 2, "no more than the maps need"
