import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pix2seqd.metrics.average_precision import AveragePrecision

SEEDS = st.integers(0, 2**32 - 1)


def ap(taxonomy, *pairs):
    metric = AveragePrecision(taxonomy)
    for truth, prediction in pairs:
        metric.update(truth, prediction)
    return metric


def row(*runs):
    """One line of pixels from (id, length) runs."""
    return [[segment for segment, length in runs for _ in range(length)]]


def test_average_precision_hand_computed_scene(scene, taxonomy):
    # A cat found with IoU 7/10, a cat missed, a false cat; stuff does not count.
    truth = scene(row((1, 10), (2, 5), (9, 5)), {1: 3, 2: 3, 9: 1})
    prediction = scene(row((1, 7), (0, 8), (3, 5)), {1: 3, 3: 3})
    result = ap(taxonomy, (truth, prediction)).compute()
    half = result["thresholds"]["0.50"]
    assert (half["tp"], half["fp"], half["fn"]) == (1, 1, 1)
    assert (half["ap"], half["precision"], half["recall"], half["f1"]) == (1 / 3, 1 / 2, 1 / 2, 1 / 2)
    # The IoU must exceed the threshold: an IoU of 0.7 is a match at 0.65 but not at 0.70.
    assert [t for t, values in result["thresholds"].items() if values["tp"]] == ["0.50", "0.55", "0.60", "0.65"]
    assert result["mean_ap"] == pytest.approx(4 / 10 / 3)
    assert result["mean_ap_per_image"] == pytest.approx(4 / 10 / 3)


def test_average_precision_pooled_and_per_image(scene, taxonomy):
    one = scene(row((1, 4)), {1: 3})
    none = scene(row((0, 4)), {})
    three = scene(row((1, 1), (2, 1), (3, 1), (0, 1)), {1: 3, 2: 3, 3: 3})
    half = ap(taxonomy, (one, one), (three, none), (none, none)).compute()["thresholds"]["0.50"]
    assert half["ap"] == 1 / 4
    assert half["ap_per_image"] == 1 / 2


def test_average_precision_category_mismatch_and_crowds(scene, taxonomy):
    cat, dog = scene(row((1, 4)), {1: 3}), scene(row((1, 4)), {1: 4})
    half = ap(taxonomy, (cat, dog)).compute()["thresholds"]["0.50"]
    assert (half["tp"], half["fp"], half["fn"]) == (0, 1, 1)
    crowd = scene(row((1, 4)), {1: 3}, crowds=(1,))
    assert ap(taxonomy, (crowd, scene(row((0, 4)), {}))).compute()["thresholds"]["0.50"]["fn"] == 0


def test_average_precision_empty_is_nan(taxonomy):
    result = ap(taxonomy).compute()
    assert math.isnan(result["mean_ap"])
    assert math.isnan(result["thresholds"]["0.50"]["f1"])


@given(SEEDS)
def test_average_precision_truth_against_itself_is_1(random_scene, taxonomy, seed):
    truth = random_scene(seed).without_crowds()
    result = ap(taxonomy, (truth, truth)).compute()
    if any(segment.isthing for segment in truth.segments):
        assert result["mean_ap"] == result["mean_ap_per_image"] == 1
        assert all(values["f1"] == 1 for values in result["thresholds"].values())


@given(SEEDS, SEEDS)
def test_average_precision_swap_exchanges_precision_and_recall(random_scene, taxonomy, first, second):
    truth, prediction = random_scene(first).without_crowds(), random_scene(second).without_crowds()
    there, back = ap(taxonomy, (truth, prediction)), ap(taxonomy, (prediction, truth))
    assert np.array_equal(there.state, back.state[[0, 2, 1, 3, 4]])


@given(st.lists(st.tuples(SEEDS, SEEDS), min_size=2, max_size=5))
def test_average_precision_sum_of_parts_is_exact(random_scene, taxonomy, seeds):
    pairs = [(random_scene(a), random_scene(b)) for a, b in seeds]
    parts = ap(taxonomy, *pairs[1:][::-1])
    parts.state += ap(taxonomy, pairs[0]).state
    assert repr(parts.compute()) == repr(ap(taxonomy, *pairs).compute())


def test_average_precision_rejects_size_mismatch(scene, taxonomy):
    with pytest.raises(ValueError, match="prediction is 1 × 3 pixels but the truth 1 × 4"):
        ap(taxonomy, (scene(row((1, 4)), {1: 3}), scene(row((1, 3)), {1: 3})))
