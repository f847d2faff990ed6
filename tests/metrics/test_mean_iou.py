import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pix2seqd.metrics.mean_iou import MeanIoU

SEEDS = st.integers(0, 2**32 - 1)


def miou(taxonomy, *pairs):
    metric = MeanIoU(taxonomy)
    for truth, prediction in pairs:
        metric.update(truth, prediction)
    return metric


def test_mean_iou_hand_computed_scene(scene, taxonomy):
    # Sky: 3 of 4 pixels found. Cat: 2 found and 1 false. The void column is ignored, whatever the prediction.
    truth = scene([[1, 1, 1, 1, 2, 2, 0]], {1: 1, 2: 3})
    prediction = scene([[1, 1, 1, 2, 2, 2, 4]], {1: 1, 2: 3, 4: 4})
    result = miou(taxonomy, (truth, prediction)).compute()
    assert result["per_class"][10] == {"name": "sky", "iou": 3 / 4}
    assert result["per_class"][30]["iou"] == 2 / 3
    assert math.isnan(result["per_class"][41]["iou"])
    assert result["mean_iou"] == pytest.approx((3 / 4 + 2 / 3) / 2)
    assert result["pixel_accuracy"] == pytest.approx(5 / 6)


def test_mean_iou_predicted_void_is_an_error_not_a_class(scene, taxonomy):
    truth, prediction = scene([[1, 1]], {1: 1}), scene([[1, 0]], {1: 1})
    assert miou(taxonomy, (truth, prediction)).compute()["mean_iou"] == 1 / 2


def test_mean_iou_ignores_instances(scene, taxonomy):
    truth, prediction = scene([[1, 1, 2, 2]], {1: 3, 2: 3}), scene([[7, 7, 7, 7]], {7: 3})
    assert miou(taxonomy, (truth, prediction)).compute()["mean_iou"] == 1


def test_mean_iou_empty_is_nan(taxonomy):
    result = miou(taxonomy).compute()
    assert math.isnan(result["mean_iou"])
    assert math.isnan(result["pixel_accuracy"])


@given(st.lists(st.tuples(SEEDS, SEEDS), min_size=2, max_size=4))
def test_mean_iou_sum_of_parts_is_exact(random_scene, taxonomy, seeds):
    pairs = [(random_scene(a), random_scene(b)) for a, b in seeds]
    parts = miou(taxonomy, pairs[0])
    parts.state += miou(taxonomy, *pairs[1:]).state
    assert repr(parts.compute()) == repr(miou(taxonomy, *pairs).compute())


@given(st.lists(st.tuples(SEEDS, SEEDS), min_size=1, max_size=3))
def test_mean_iou_of_many_classes_without_a_matrix_is_the_same(random_scene, taxonomy, seeds):
    pairs = [(random_scene(a), random_scene(b)) for a, b in seeds]
    expected = miou(taxonomy, *pairs).compute()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pix2seqd.metrics.mean_iou.MAX_CONFUSED", 1)
        found = miou(taxonomy, *pairs)
        assert found.state.shape == (3, len(taxonomy) + 1) and repr(found.compute()) == repr(expected)


def test_mean_iou_rejects_size_mismatch(scene, taxonomy):
    with pytest.raises(ValueError, match="prediction is 2 × 1 pixels but the truth 1 × 2"):
        miou(taxonomy, (scene([[1, 1]], {1: 1}), scene([[1], [1]], {1: 1})))
