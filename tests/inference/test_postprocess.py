from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pix2seqd.images import load
from pix2seqd.inference import postprocess
from pix2seqd.inference.postprocess import (
    fill_small,
    join_uncertain,
    majority_vote,
    mean_confidence,
    segments_by_component,
    segments_by_id,
)
from pix2seqd.inference.stitching import LabelStitcher, windows
from pix2seqd.panoptic.runs import Runs
from pix2seqd.panoptic.taxonomy import VOID, Taxonomy

CAT, DOG, LAWN = 1, 2, 3
TAXONOMY = Taxonomy.from_coco(
    [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}, {"id": 9, "name": "lawn", "isthing": 0}]
)


def join(tiles: Iterable[tuple[int, int, postprocess.LabelMap]], height: int, width: int, taxonomy: Taxonomy):
    """Top, left and labels of windows → one label map."""
    joined = LabelStitcher(height, width, taxonomy)
    for top, left, found in tiles:
        joined.add(top, left, found, np.zeros(found[0].shape, np.uint8))
    runs, classes = joined.labels()
    return runs.decode(runs.values), classes


def mask(classes: list[list[int]], ids: list[list[int]]) -> np.ndarray:
    return np.array([classes, ids])


def segments(labels: np.ndarray, class_of: dict[int, int]) -> set[tuple[int, frozenset[int]]]:
    """(class, pixels) of every segment, without its number."""
    return {(class_of[i], frozenset(np.flatnonzero(labels == i).tolist())) for i in np.unique(labels).tolist() if i}


@pytest.mark.parametrize("min_pixels", [0, 6, 25])
def test_majority_vote_equals_the_official_one(official, min_pixels: int):
    voted = majority_vote(np.stack([official["unit/vote/sem"], official["unit/vote/id"]]), min_pixels)
    recorded = [official[f"unit/vote/min{min_pixels}_{channel}"] for channel in ("sem", "id")]
    assert np.array_equal(voted, np.stack(recorded))


def test_majority_vote_majority_and_tie():
    voted = majority_vote(mask([[2, 1, 3, 3, 1, 0, 0]], [[5, 5, 6, 6, 6, 7, 7]]), 0)
    assert voted.tolist() == [[[1, 1, 3, 3, 3, 0, 0]], [[5, 5, 6, 6, 6, 0, 0]]]
    assert majority_vote(np.zeros((2, 0, 3), np.int64), 4).shape == (2, 0, 3)


def test_segments_by_id_one_segment_per_thing_and_stuff_class():
    classes = [[CAT, CAT, DOG, LAWN, LAWN, LAWN, CAT]]
    ids = [[4, 4, 4, 8, 9, 9, 0]]
    labels, class_of = segments_by_id(mask(classes, ids), TAXONOMY, 0)
    # Id 4 is mostly cat; both ids of lawn are one segment; id 0 is void whatever its class.
    assert segments(labels, class_of) == {(CAT, frozenset({0, 1, 2})), (LAWN, frozenset({3, 4, 5}))}
    assert labels[0, 6] == 0
    assert sorted(class_of) == [1, 2]


def test_segments_by_id_small_ids_become_void():
    labels, class_of = segments_by_id(mask([[CAT] * 3 + [DOG] * 2], [[1, 1, 1, 2, 2]]), TAXONOMY, 3)
    assert segments(labels, class_of) == {(CAT, frozenset({0, 1, 2}))}


def test_segments_by_component_separates_things_that_share_an_id():
    classes = np.full((6, 12), LAWN)
    ids = np.zeros((6, 12), int)
    places = [(1, 0, CAT, 1), (1, 4, CAT, 2), (1, 8, CAT, 1), (4, 8, CAT, 1), (1, 10, CAT, 3), (4, 0, DOG, 1)]
    for top, left, category, identity in places:
        classes[top : top + 2, left : left + 2] = category
        ids[top : top + 2, left : left + 2] = identity
    labels, class_of = segments_by_component(np.stack([classes, ids]), TAXONOMY, 0)
    expected = set()
    for top, left, category, _ in places:
        area = np.zeros((6, 12), bool)
        area[top : top + 2, left : left + 2] = True
        expected.add((category, frozenset(np.flatnonzero(area).tolist())))
    expected.add((LAWN, frozenset(np.flatnonzero(classes == LAWN).tolist())))
    assert segments(labels, class_of) == expected


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), colors=st.integers(1, 4), height=st.integers(1, 12), width=st.integers(1, 12))
def test_segments_by_component_random_masks(seed: int, colors: int, height: int, width: int):
    rng = np.random.default_rng(seed)
    classes, ids = rng.integers(0, 6, (height, width)), rng.integers(0, colors, (height, width))
    labels, class_of = segments_by_component(np.stack([classes, ids]), TAXONOMY, 0)
    classes[classes > LAWN] = 0  # there is no such class
    assert list(class_of) == list(range(1, len(class_of) + 1))
    assert list(class_of.values()) == sorted(class_of.values()), "numbered by class"
    assert set(np.unique(labels).tolist()) - {0} == set(class_of)
    assert np.array_equal(labels == 0, classes == 0)
    assert all((classes[labels == i] == c).all() for i, c in class_of.items())
    assert sum(c == LAWN for c in class_of.values()) <= 1
    thing = (classes == CAT) | (classes == DOG)
    same = (labels[:, 1:] == labels[:, :-1])[thing[:, 1:] & thing[:, :-1]]
    alike = ((classes[:, 1:] == classes[:, :-1]) & (ids[:, 1:] == ids[:, :-1]))[thing[:, 1:] & thing[:, :-1]]
    assert np.array_equal(same, alike), "neighbours are of one segment where class and id agree"
    assert all(len(np.unique(ids[labels == i])) == 1 for i, c in class_of.items() if c != LAWN)


def test_fill_small_specks_take_the_nearest_label():
    labels = np.array([[1, 1, 1, 2, 1, 1], [1, 1, 1, 1, 1, 4], [3, 3, 3, 3, 3, 0], [0] * 6, [3, 0, 3, 3, 3, 3]])
    classes = {1: CAT, 2: DOG, 3: LAWN, 4: LAWN}
    filled, class_of = fill_small(labels, classes, 6)
    assert filled[0, 3] == 1 and filled[1, 5] == 1
    assert class_of == {1: CAT, 3: LAWN}, "things and stuff alike"
    assert np.array_equal(filled[2:], labels[2:]), "these eight void pixels are connected"
    assert (fill_small(labels, classes, 9)[0][2:] == 3).all(), "void specks are filled too"
    assert (fill_small(labels, classes, 0)[0] == labels).all()
    nothing, gone = fill_small(np.array([[1, 1], [1, 1]]), {1: CAT}, 6)
    assert not nothing.any()
    assert gone == {}


def test_fill_small_90000_specks():
    labels = np.arange(1, 90_001).reshape(300, 300)
    labels[0] = 1
    filled, class_of = fill_small(labels, dict.fromkeys(np.unique(labels).tolist(), CAT), 2)
    assert (filled == 1).all() and class_of == {1: CAT}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), minimum=st.integers(0, 12), zoom=st.integers(1, 4), parts=st.integers(3, 9))
def test_fill_small_part_by_part_equals_the_whole(seed: int, minimum: int, zoom: int, parts: int):
    """Squares, bands and how far is looked are so small here that all of them meet, also in ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, (13, 11)).repeat(zoom, axis=0).repeat(zoom, axis=1)
    classes = {1: CAT, 2: DOG, 3: CAT, 4: LAWN, 5: DOG}
    specks = ndimage.label(labels == VOID)[0]
    removed = (np.bincount(specks.ravel()) < minimum)[specks] & (specks > 0)
    small = [label for label in classes if (labels == label).sum() < minimum]
    removed |= np.isin(labels, small)
    nearest = ndimage.distance_transform_edt(removed, return_distances=False, return_indices=True)
    expected = labels[tuple(nearest)] if not removed.all() else 0 * labels
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "BAND", labels.shape[1] * parts)
        patch.setattr(postprocess, "_SQUARES", ((3 * parts, 2 * (seed % 5)), (parts, seed % 5)))
        before = labels.copy()
        filled, class_of = fill_small(labels, classes, minimum)
        assert np.array_equal(labels, before), "they may be needed"
        spare, _ = fill_small(before, classes, minimum, in_place=True)
    assert np.array_equal(filled, expected) and np.array_equal(spare, expected)
    if removed.any():
        assert class_of == {label: c for label, c in classes.items() if label not in small and not removed.all()}


PIECES = np.array([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 0], [5, 5, 4, 0]])


@pytest.mark.parametrize(
    ("limit", "pieces"),
    [(0.0, []), (0.3, []), (0.35, [{1, 3}]), (0.7, [{1, 2, 3}]), (1.0, [{1, 2, 3}])],
)
def test_join_uncertain_touching_things_of_one_class(limit: float, pieces: list[set[int]]):
    """Labels 1 to 3 are cats with ids of certainty 0.8, 0.8 and 0.4, 4 is a dog, 5 is a lawn."""
    classes = {1: CAT, 2: CAT, 3: CAT, 4: DOG, 5: LAWN}
    certainty = (np.array([0, 0.8, 0.8, 0.4, 0.1, 0.1])[PIECES] * 255).round().astype(int)
    (labels, class_of), joined = join_uncertain((PIECES, classes), certainty, TAXONOMY, limit)
    whole = {label: {label} for label in classes} | {min(group): group for group in pieces}
    whole = {label: group for label, group in whole.items() if not any(label in g - {min(g)} for g in pieces)}
    assert class_of == {label: classes[label] for label in whole}
    assert joined.tolist() == [min(group) for group in pieces]
    for label, group in whole.items():
        assert ((labels == label) == np.isin(PIECES, list(group))).all()


def test_join_uncertain_does_not_join_what_does_not_touch():
    apart = np.array([[1, 0, 2], [1, 0, 2], [0, 3, 0]])
    (labels, class_of), joined = join_uncertain(
        (apart, dict.fromkeys((1, 2, 3), CAT)), np.zeros_like(apart), TAXONOMY, 1.0
    )
    assert (labels == apart).all() and set(class_of) == {1, 2, 3} and not joined.size


def test_mean_confidence_of_each_label():
    labels, confidence = np.array([[1, 1, 0], [4, 4, 4]]), np.array([[255, 0, 7], [51, 51, 51]])
    assert mean_confidence(Runs.encode(labels), confidence) == {0: round(7 / 255, 4), 1: 0.5, 4: 0.2}
    assert mean_confidence(Runs.encode(np.zeros((0, 3), int)), np.zeros((0, 3), int)) == {}


# Windows and seams


@settings(max_examples=200, deadline=None)
@given(length=st.integers(1, 3000), size=st.integers(2, 300), share=st.floats(0, 0.99))
def test_windows_cover_everything_and_overlap(length: int, size: int, share: float):
    overlap = int(size * share)
    starts = windows(length, size, overlap)
    assert starts[0] == 0
    assert starts[-1] + size >= length
    assert starts[-1] == max(length - size, 0)
    assert all(0 < after - before <= size - overlap for before, after in pairwise(starts))


def scene(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, dict[int, int]]:
    """Lawn with up to 12 discs, cats and dogs; later ones cover earlier ones."""
    rows, columns = np.mgrid[:height, :width]
    labels, class_of = np.ones((height, width), np.int64), {1: LAWN}
    for label in range(2, 14):
        y, x, radius = rng.integers(0, height), rng.integers(0, width), rng.integers(3, 7)
        labels[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = label
        class_of[label] = int(rng.integers(CAT, LAWN))
    return labels, {i: c for i, c in class_of.items() if (labels == i).any()}


@pytest.mark.parametrize("seed", range(8))
def test_join_restores_a_scene_cut_into_windows(seed: int):
    rng = np.random.default_rng(seed)
    height, width = 50, 70
    labels, class_of = scene(rng, height, width)
    tiles = []
    for top in windows(height, 32, 16):
        for left in windows(width, 32, 16):
            part = labels[top : top + 32, left : left + 32]
            shuffled = rng.permutation(13) + 1  # each window has its own numbers
            table = np.concatenate([[0], shuffled])
            present = np.unique(part).tolist()
            tiles.append((top, left, (table[part], {int(table[i]): class_of[i] for i in present})))
    joined = join(tiles, height, width, TAXONOMY)
    assert segments(*joined) == segments(labels, class_of)


def test_join_window_larger_than_the_image():
    tile = (np.full((8, 8), 1), {1: CAT})
    labels, class_of = join([(0, 0, tile)], 5, 3, TAXONOMY)
    assert labels.shape == (5, 3)
    assert segments(labels, class_of) == {(CAT, frozenset(range(15)))}


def test_join_disagreeing_things_and_classes_stay_apart():
    left = np.zeros((4, 8), np.int64)
    left[:, 4:] = 1
    right = np.zeros((4, 8), np.int64)
    right[:, 3:] = 1
    # They share one column of the four of the overlap.
    apart = join([(0, 0, (left, {1: CAT})), (0, 4, (right, {1: CAT}))], 4, 12, TAXONOMY)
    assert len(apart[1]) == 2
    whole = np.ones((4, 8), np.int64)
    mixed = join([(0, 0, (whole, {1: CAT})), (0, 4, (whole, {1: DOG}))], 4, 12, TAXONOMY)
    assert sorted(mixed[1].values()) == [CAT, DOG]
    one = join([(0, 0, (whole, {1: CAT})), (0, 4, (whole, {1: CAT}))], 4, 12, TAXONOMY)
    assert segments(*one) == {(CAT, frozenset(range(48)))}
