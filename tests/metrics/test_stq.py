import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pix2seqd.metrics.stq import StepQuality

SKY, GRASS, CAT, DOG = 1, 2, 3, 4
SEEDS = st.integers(0, 2**32 - 1)


def frame(*pixels):
    """A frame of one row from (class, id) pixels: [2, 1, n]."""
    return np.array(pixels).T[:, None]


def stq(taxonomy, *frames, sequence="a"):
    metric = StepQuality(taxonomy)
    for truth, prediction in frames:
        metric.update(sequence, truth, prediction)
    return metric


def random_frames(seed):
    rng = np.random.default_rng(seed)
    both = np.stack([rng.integers(0, 5, (2, 3, 4)), rng.integers(0, 3, (2, 3, 4))], axis=1)
    return both[0], both[1]


def literal_stq(frames, things):
    """The definition, pixel by pixel, with sets of pixels: mean over true tubes of Σ TPA · IoU / |tube|, and mIoU."""
    true, predicted, semantic = {}, {}, {}
    for number, (truth, prediction) in enumerate(frames):
        for where in np.ndindex(truth.shape[1:]):
            pixel = (number, *where)
            tc, ti, pc, pi = (int(m[where]) for m in (*truth, *prediction))
            crowd = tc in things and ti == 0
            if tc in things and not crowd:
                true.setdefault((tc, ti), set()).add(pixel)
            if pc in things and not crowd:
                predicted.setdefault((pc, pi), set()).add(pixel)
            if tc != 0:
                semantic.setdefault(tc, (set(), set()))[0].add(pixel)
                semantic.setdefault(pc, (set(), set()))[1].add(pixel)
    aq = [sum(len(t & p) ** 2 / len(t | p) for p in predicted.values()) / len(t) for t in true.values()]
    iou = [len(t & p) / len(t | p) for t, p in semantic.values()]
    return (np.mean(aq) if aq else math.nan), (np.mean(iou) if iou else math.nan)


def test_stq_track_changes_id(taxonomy):
    truth = frame((SKY, 0), (CAT, 1))
    result = stq(taxonomy, (truth, frame((SKY, 0), (CAT, 5))), (truth, frame((SKY, 0), (CAT, 6)))).compute()
    # One true tube of 2 pixels; each predicted tube covers 1 of them with IoU 1/2: (1·1/2 + 1·1/2) / 2.
    assert result["AQ"] == 1 / 2
    assert result["SQ"] == 1
    assert result["STQ"] == pytest.approx(math.sqrt(1 / 2))


def test_stq_association_ignores_class(taxonomy):
    result = stq(taxonomy, (frame((SKY, 0), (CAT, 1)), frame((SKY, 0), (DOG, 1)))).compute()
    assert result["AQ"] == 1
    assert result["SQ"] == pytest.approx(1 / 3)
    assert result["per_class"][10]["iou"] == 1
    assert result["per_class"][41]["iou"] == 0


def test_stq_perfect_and_zero(taxonomy):
    truth = frame((SKY, 0), (CAT, 1), (CAT, 2), (0, 0))
    perfect = stq(taxonomy, (truth, truth)).compute()
    assert (perfect["STQ"], perfect["AQ"], perfect["SQ"]) == (1, 1, 1)
    wrong = stq(taxonomy, (truth, frame((GRASS, 0), (SKY, 0), (SKY, 0), (SKY, 0)))).compute()
    assert (wrong["STQ"], wrong["AQ"], wrong["SQ"]) == (0, 0, 0)


def test_stq_crowds_count_in_sq_only(taxonomy):
    truth, prediction = frame((CAT, 0), (CAT, 0), (CAT, 1)), frame((CAT, 7), (CAT, 8), (CAT, 7))
    result = stq(taxonomy, (truth, prediction)).compute()
    assert (result["AQ"], result["SQ"]) == (1, 1)


def test_stq_predicted_void_is_a_class_as_official(taxonomy):
    result = stq(taxonomy, (frame((SKY, 0), (SKY, 0)), frame((SKY, 0), (0, 0)))).compute()
    assert result["SQ"] == (1 / 2 + 0) / 2


def test_stq_sequences_do_not_share_tracks(taxonomy):
    one, two = frame((CAT, 1)), frame((CAT, 2))
    apart = stq(taxonomy, (one, one), sequence="a") + stq(taxonomy, (two, one), sequence="b")
    together = stq(taxonomy, (one, one), (two, one))
    assert apart.compute()["AQ"] == 1
    assert together.compute()["AQ"] == 1 / 2
    assert apart.compute()["sequences"] == {name: {"STQ": 1, "AQ": 1, "SQ": 1} for name in "ab"}


def test_stq_empty_is_nan(taxonomy):
    result = stq(taxonomy).compute()
    assert all(math.isnan(result[key]) for key in ("STQ", "AQ", "SQ"))


@given(st.lists(SEEDS, min_size=1, max_size=3))
def test_stq_equals_definition(taxonomy, seeds):
    frames = [random_frames(seed) for seed in seeds]
    result = stq(taxonomy, *frames).compute()
    aq, sq = literal_stq(frames, {CAT, DOG})
    assert (result["AQ"], result["SQ"]) == pytest.approx((aq, sq), nan_ok=True)


@given(st.lists(SEEDS, min_size=2, max_size=4))
def test_stq_sum_of_parts_within_a_sequence(taxonomy, seeds):
    frames = [random_frames(seed) for seed in seeds]
    parts = stq(taxonomy, *frames[1:][::-1]) + stq(taxonomy, frames[0])
    assert repr(parts.compute()) == repr(stq(taxonomy, *frames).compute())


def test_stq_rejects_mismatches(taxonomy):
    with pytest.raises(ValueError, match="prediction is 2 × 1 × 1 pixels but the truth 2 × 1 × 2"):
        stq(taxonomy, (frame((SKY, 0), (SKY, 0)), frame((SKY, 0))))
    with pytest.raises(ValueError, match="prediction has class 255, outside 0"):
        stq(taxonomy, (frame((SKY, 0)), frame((255, 0))))
