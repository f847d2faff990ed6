import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pix2seqd.config import DataConfig
from pix2seqd.data.ids import draw_mask
from pix2seqd.panoptic.taxonomy import Taxonomy

CELL, TISSUE = 1, 2
TAXONOMY = Taxonomy.from_coco([{"id": 5, "name": "cell"}, {"id": 6, "name": "tissue", "isthing": 0}])
UNIQUE, REUSED = DataConfig(), DataConfig(ids="reused")


def scene(seed: int, size: int = 24, things: int = 12) -> tuple[np.ndarray, dict[int, int]]:
    """Small rectangles on tissue, with a void corner."""
    rng = np.random.default_rng(seed)
    labels = np.full((size, size), 1000)
    labels[:5, :5] = 0
    for i in range(1, things + 1):
        top, left, height, width = *rng.integers(0, size, 2), *rng.integers(1, 6, 2)
        labels[top : top + height, left : left + width] = i
    return labels, {1000: TISSUE} | {i: CELL for i in range(1, things + 1) if (labels == i).any()}


def class_map(labels: np.ndarray, classes: dict[int, int]) -> np.ndarray:
    return np.select([labels == label for label in classes], list(classes.values()), 0)


def draw(labels: np.ndarray, classes: dict[int, int], config: DataConfig, max_instances: int, seed: int = 0):
    return draw_mask(labels, classes, TAXONOMY, config, max_instances, np.random.default_rng(seed))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_draw_mask_unique_ids(seed: int):
    labels, classes = scene(seed)
    (found, ids), instances = draw(labels, classes, UNIQUE, 101, seed)
    assert np.array_equal(found, class_map(labels, classes))
    assert np.array_equal(ids == 0, labels == 0)
    given_ids = {label: np.unique(ids[labels == label]).tolist() for label in classes}
    assert all(len(of) == 1 for of in given_ids.values())
    assert len({of[0] for of in given_ids.values()}) == len(classes)
    assert 1 <= min(of[0] for of in given_ids.values()) <= max(of[0] for of in given_ids.values()) <= 100
    for label in classes:
        (number,) = np.unique(instances[labels == label])
        assert np.array_equal(instances == number, labels == label)


def test_draw_mask_unique_ids_cover_their_range():
    labels, classes = np.array([[1, 2]]), {1: CELL, 2: CELL}
    drawn = {tuple(draw(labels, classes, UNIQUE, 5, seed)[0][1, 0].tolist()) for seed in range(200)}
    assert drawn == {(i, j) for i in range(1, 5) for j in range(1, 5) if i != j}
    again = draw(labels, classes, UNIQUE, 5, 7)[0]
    assert np.array_equal(again, draw(labels, classes, UNIQUE, 5, 7)[0])


def test_draw_mask_more_segments_than_ids():
    labels = np.repeat([1, 2, 3, 4], [5, 1, 7, 2])[None]
    (found, ids), instances = draw(labels, dict.fromkeys((1, 2, 3, 4), CELL), UNIQUE, 3)
    assert np.array_equal(found > 0, (labels == 1) | (labels == 3))
    assert np.array_equal(ids > 0, found > 0)
    assert sorted(set(ids[0].tolist())) == [0, 1, 2]
    assert np.array_equal(instances > 0, found > 0)


def test_draw_mask_segments_without_class_are_void():
    for config in (UNIQUE, REUSED):
        mask, instances = draw(np.array([[1, 2, 0]]), {2: CELL}, config, 16)
        assert mask[:, 0, [0, 2]].tolist() == [[0, 0], [0, 0]]
        assert mask[0, 0, 1] == CELL
        assert instances[0, 0] == instances[0, 2] == 0


@pytest.mark.parametrize("config", [UNIQUE, REUSED], ids=["unique", "reused"])
def test_draw_mask_empty_map_is_void(config):
    mask, instances = draw(np.zeros((4, 6), int), {}, config, 16)
    assert mask.shape == (2, 4, 6)
    assert mask.dtype == np.int64
    assert not mask.any()
    assert not instances.any()


def gap(one: np.ndarray, other: np.ndarray) -> int:
    """Chebyshev distance between two sets of pixels."""
    between = np.abs(np.argwhere(one)[:, None] - np.argwhere(other)[None]).max(axis=-1)
    return int(between.min())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), distance=st.integers(0, 6))
def test_draw_mask_reused_ids_differ_between_neighbours(seed: int, distance: int):
    labels, classes = scene(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pix2seqd.data.ids.ID_DISTANCE", distance)
        (found, ids), instances = draw(labels, classes, REUSED, 64, seed)
    assert np.array_equal(found, class_map(labels, classes))
    assert not ids[found == TISSUE].any(), "stuff has id 0"
    things = [label for label in classes if label != 1000]
    given_ids = {label: np.unique(ids[labels == label]).tolist() for label in things}
    assert all(len(of) == 1 and 1 <= of[0] <= 63 for of in given_ids.values())
    for n, one in enumerate(things):
        for other in things[:n]:
            if gap(labels == one, labels == other) <= distance:
                assert given_ids[one] != given_ids[other]
    assert len(np.unique(instances[labels > 0])) == len(classes), "every segment has its own number for the loss"
