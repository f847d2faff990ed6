import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from pix2seqd.metrics.region_contour import RegionContour, score_sequence

SEEDS = st.integers(0, 2**32 - 1)
EMPTY = np.zeros((20, 30), np.uint8)


def box(label, y, x, height=6, width=8, base=EMPTY):
    frame = base.copy()
    frame[y : y + height, x : x + width] = label
    return frame


def literal_f(truth, prediction):
    """The official definition for one pair of binary masks, with scipy's dilation."""

    def edge(mask):
        padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
        right, below, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:].copy()
        diagonal[-1], diagonal[:, -1] = mask[-1], mask[:, -1]
        return (mask ^ right) | (mask ^ below) | (mask ^ diagonal)

    radius = math.ceil(0.008 * math.hypot(*truth.shape))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    true, predicted = edge(truth), edge(prediction)
    near_true, near_predicted = (ndimage.binary_dilation(e, y**2 + x**2 <= radius**2) for e in (true, predicted))
    if not true.any() or not predicted.any():
        return float(true.any() == predicted.any())
    precision, recall = near_true[predicted].mean(), near_predicted[true].mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_region_contour_equals_davis2017_evaluation(reference):
    maps, records = reference("jf")
    official = records["official"]
    metric = RegionContour()
    for name in official["sequences"]:
        metric.update(name, maps[f"osvos/{name}"], maps[f"rvos/{name}"])
    result = metric.compute()
    assert result["global"] == pytest.approx(official["global"], abs=1e-9)
    for name, expected in official["sequences"].items():
        for key, values in expected.items():
            assert result["sequences"][name][key] == pytest.approx(values, abs=1e-9), (name, key)


def test_region_contour_perfect_prediction_with_other_ids():
    truth = [box(1, 2, t, base=box(2, 10, 15)) for t in range(5)]
    prediction = [np.array([0, 17, 4])[frame] for frame in truth]
    metric = RegionContour()
    metric.update("cats", truth, prediction)
    result = metric.compute()
    assert result["global"] == {
        key: float(not key.endswith("Decay"))
        for key in ("J&F-Mean", "J-Mean", "J-Recall", "J-Decay", "F-Mean", "F-Recall", "F-Decay")
    }
    # Numbered by proposal, as in the official tool.
    assert result["sequences"]["cats"]["objects"] == {"cats_1": 2, "cats_2": 1}
    assert result["sequences"]["cats"]["proposals"] == {"cats_1": 4, "cats_2": 17}


def test_region_contour_lost_object_mean_recall_and_decay():
    # Found in the first four of eight frames only.
    metric = RegionContour()
    metric.update("cat", [box(1, 4, 4)] * 8, [box(1, 4, 4)] * 4 + [EMPTY] * 4)
    result = metric.compute()["global"]
    assert (result["J-Mean"], result["J-Recall"], result["J-Decay"]) == (1 / 2, 1 / 2, 1)
    assert (result["F-Mean"], result["F-Recall"], result["F-Decay"]) == (1 / 2, 1 / 2, 1)


def test_score_sequence_contour_tolerance():
    # The diagonal of 36 pixels gives a tolerance of 1 pixel. A shift by one lowers J but not F.
    scores = score_sequence([box(1, 4, 4)], [box(1, 4, 5)])
    assert scores.j[0, 0] == (6 * 7) / (6 * 9)
    assert scores.f[0, 0] == 1
    assert score_sequence([box(1, 4, 4)], [box(1, 4, 9)]).f[0, 0] < 0.6


def test_score_sequence_one_assignment_per_sequence():
    # The ids are swapped in the last of three frames; the assignment follows the majority.
    right, swapped = box(1, 2, 2, base=box(2, 12, 20)), box(2, 2, 2, base=box(1, 12, 20))
    scores = score_sequence([right] * 3, [right, right, swapped])
    assert scores.j.tolist() == [[1, 1, 0], [1, 1, 0]]


def test_score_sequence_ignores_void():
    truth = box(255, 4, 12, 6, 4, base=box(1, 4, 4))
    scores = score_sequence([truth], [box(1, 4, 4, 6, 12)])
    assert (scores.j[0, 0], scores.f[0, 0]) == (1, 1)


def test_score_sequence_missing_proposal_and_absent_object():
    truth = [box(1, 2, 2, base=box(2, 12, 20)), box(1, 2, 2)]
    scores = score_sequence(truth, [box(1, 2, 2)] * 2)
    assert scores.objects.tolist() == [1, 2]
    assert scores.j.tolist() == scores.f.tolist() == [[1, 1], [0, 1]]


def test_score_sequence_objects_of_first_frame():
    scores = score_sequence([box(1, 2, 2), box(2, 2, 2)], [box(1, 2, 2)] * 2)
    assert scores.j.tolist() == [[1, 0]]


def test_region_contour_without_objects_is_nan():
    metric = RegionContour()
    assert math.isnan(metric.compute()["global"]["J&F-Mean"])
    metric.update("empty", [EMPTY], [box(1, 2, 2)])
    assert math.isnan(metric.compute()["global"]["J-Mean"])


@given(SEEDS)
def test_score_sequence_equals_definition(seed):
    rng = np.random.default_rng(seed)
    truth, prediction = (np.kron(rng.integers(0, 3, (2, 5, 4)), np.ones((1, 3, 40), int)) for _ in range(2))
    prediction = np.roll(prediction, rng.integers(-3, 4, 2), (1, 2))
    scores = score_sequence(truth, prediction)
    for o, p, j, f in zip(scores.objects, scores.proposals, scores.j, scores.f, strict=True):
        pairs = [(true == o, found == p) for true, found in zip(truth, prediction, strict=True)]
        assert j == pytest.approx([(a & b).sum() / (a | b).sum() if (a | b).any() else 1 for a, b in pairs])
        assert f == pytest.approx([literal_f(a, b) for a, b in pairs])


def test_region_contour_sum_of_sequences():
    first, second = RegionContour(), RegionContour()
    first.update("a", [box(1, 4, 4)], [box(1, 4, 6)])
    second.update("b", [box(1, 4, 4)], [box(1, 5, 7)])
    whole = RegionContour()
    whole.update("b", [box(1, 4, 4)], [box(1, 5, 7)])
    whole.update("a", [box(1, 4, 4)], [box(1, 4, 6)])
    assert (first + second).compute() == (second + first).compute() == whole.compute()
    with pytest.raises(ValueError, match="sequence a was counted twice"):
        _ = first + whole
    with pytest.raises(ValueError, match="sequence a was counted twice"):
        first.update("a", [EMPTY], [EMPTY])


def test_region_contour_rejects_mismatches():
    for truth, prediction, message in [
        ([EMPTY] * 2, [EMPTY], "sequence x: the prediction has only 1 frames"),
        ([EMPTY], [EMPTY] * 2, "sequence x: the truth has only 1 frames"),
        ([], [], "sequence x: it has no frame"),
        ([EMPTY], [EMPTY[1:]], "sequence x: the prediction is 19 × 30 pixels but the truth 20 × 30"),
        ([EMPTY], [box(21, 2, 2)], "sequence x: frame 1 has proposal id 21; keep at most 20"),
    ]:
        with pytest.raises(ValueError, match=message):
            RegionContour().update("x", truth, prediction)
