import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pix2seqd.inference.consensus import consensus, uncertainty
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_coco([{"id": 7, "name": "cat"}, {"id": 4, "name": "lawn", "isthing": 0}])
CAT, LAWN = 1, 2


def panoptic(labels: np.ndarray) -> Panoptic:
    """1 is the lawn, 2 and more are cats, 0 is void."""
    return Panoptic.from_segmentation(labels, {i: LAWN if i == 1 else CAT for i in range(1, 20)}, TAXONOMY)


def blank(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """A lawn `[24, 32]` with cats in boxes (top, left, bottom, right)."""
    labels = np.ones((24, 32), np.int32)
    for number, (top, left, bottom, right) in enumerate(boxes, start=2):
        labels[top:bottom, left:right] = number
    return labels


def things(found: Panoptic) -> list[tuple[int, int, int, int]]:
    return sorted(segment.bbox for segment in found.segments if segment.isthing)


@st.composite
def label_maps(draw):
    labels = npst.arrays(np.int32, (5, 6), elements=st.integers(0, 4))
    return draw(st.lists(labels, min_size=2, max_size=4))


@given(label_maps(), st.permutations(range(2, 20)))
def test_consensus_and_uncertainty_do_not_depend_on_ids(maps, order):
    table = np.array([0, 1, *order])
    samples, renamed = [panoptic(m) for m in maps], [panoptic(maps[0]), *(panoptic(table[m]) for m in maps[1:])]
    assert np.allclose(uncertainty(samples), uncertainty(renamed))
    one, two = consensus(samples), consensus(renamed)
    assert np.array_equal(one.class_map(), two.class_map())
    assert len(one.segments) == len(two.segments)


@given(label_maps())
def test_uncertainty_range_and_0_for_equal_samples(maps):
    measured = uncertainty([panoptic(m) for m in maps])
    assert measured.dtype == np.float32
    assert measured.shape == (5, 6)
    assert (measured >= 0).all()
    assert (measured <= 1).all()
    assert (uncertainty([panoptic(maps[0])] * 3) == 0).all()


@given(label_maps())
def test_consensus_equal_samples(maps):
    found = consensus([panoptic(maps[0])] * 3)
    expected = panoptic(maps[0])
    assert np.array_equal(found.class_map(), expected.class_map())
    pairs = np.unique(np.stack([found.segmentation.ravel(), expected.segmentation.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))


def test_uncertainty_cut_thing_and_other_class():
    whole, cut = blank((4, 4, 12, 24)), blank((4, 4, 12, 14), (4, 14, 12, 24))
    measured = uncertainty([panoptic(whole), panoptic(cut)])
    assert np.allclose(measured[4:12, 4:24], 0.5)
    assert (measured[13:] == 0).all()
    measured = uncertainty([panoptic(whole), panoptic(blank())])
    assert (measured[4:12, 4:24] == 1).all()
    assert 0 < measured[20, 20] < 0.3


def test_uncertainty_one_sample_is_an_error():
    with pytest.raises(ValueError, match="two samples"):
        uncertainty([panoptic(blank())])


def test_consensus_joins_rare_cuts_and_cuts_rare_joins():
    cut = [blank((4, 2, 12, x), (4, x, 12, 28)) for x in (6, 15, 24)]
    whole = [blank((4, 2, 12, 28))] * 2
    assert things(consensus([panoptic(m) for m in cut + whole])) == [(2, 4, 26, 8)]
    pair = blank((4, 4, 12, 14), (4, 14, 12, 24))
    joined = blank((4, 4, 12, 24))
    assert things(consensus([panoptic(m) for m in (pair, joined, pair)])) == [(4, 4, 10, 8), (14, 4, 10, 8)]


def test_consensus_moving_edge_keeps_neighbours_apart():
    maps = [blank((4, 4, 12, x), (4, x, 12, 24)) for x in (12, 13, 14, 15, 16)]
    left, right = things(consensus([panoptic(m) for m in maps]))
    assert left[2] + right[2] == 20
    assert abs(left[2] - 10) <= 1


def test_consensus_score_is_agreement_times_score_of_the_samples():
    both, one = blank((4, 4, 12, 14), (14, 4, 22, 14)), blank((4, 4, 12, 14))
    maps = [both, both, one]
    found = consensus([panoptic(m) for m in maps])
    scores = {segment.bbox: segment.score for segment in found.things}
    assert scores == {(4, 4, 10, 8): 1, (4, 14, 10, 8): pytest.approx(2 / 3, abs=1e-4)}
    half = [Panoptic.from_segmentation(m, {1: LAWN, 2: CAT, 3: CAT}, TAXONOMY, scores={2: 0.5}) for m in maps]
    scores = {segment.bbox: segment.score for segment in consensus(half).things}
    assert scores[4, 4, 10, 8] == 0.5
    shifted = consensus([panoptic(blank((4, 4, 12, x))) for x in (14, 14, 24)])
    assert shifted.things[0].score == pytest.approx((1 + 1 + 0.5) / 3, abs=1e-4)


def test_consensus_drops_rare_and_small_things():
    common, rare = blank((4, 4, 12, 14)), blank((4, 4, 12, 14), (16, 20, 22, 26))
    assert things(consensus([panoptic(m) for m in (common, rare, common)])) == [(4, 4, 10, 8)]
    assert things(consensus([panoptic(rare)] * 3, min_pixels=37)) == [(4, 4, 10, 8)]
