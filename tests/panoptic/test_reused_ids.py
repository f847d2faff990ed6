import numpy as np
import pytest
import torch

from pix2seqd.panoptic.reused_ids import assign, assign_preferred


def test_assign_15_ids_for_400_instances():
    """400 cells in rows, each with eight neighbours: nine ids are enough, and the greedy colouring finds 15."""
    boxes = np.array([(10 * x, 10 * y, 8, 8) for x in range(20) for y in range(20)])
    colors = assign(boxes, 4, 15, np.random.default_rng(0))
    grid = colors.reshape(20, 20)
    assert (grid[1:] != grid[:-1]).all()
    assert (grid[:, 1:] != grid[:, :-1]).all()
    assert (grid[1:, 1:] != grid[:-1, :-1]).all()
    assert (grid[1:, :-1] != grid[:-1, 1:]).all()
    assert set(colors.tolist()) == set(range(1, 16)), "all ids are in use"


def test_assign_takes_least_used_id_if_none_is_free():
    boxes = np.array([(0, 0, 5, 5)] * 6)
    colors = assign(boxes, 1, 3, np.random.default_rng(0))
    assert np.bincount(colors).tolist() == [0, 2, 2, 2]
    assert assign(np.zeros((0, 4), int), 1, 3, np.random.default_rng(0)).shape == (0,)


@pytest.mark.parametrize(("left", "near"), [(5, True), (8, True), (9, False)])
def test_assign_distance_is_in_pixels(left: int, near: bool):
    """Boxes of columns 0..4 and left..: their nearest pixels are left - 4 apart."""
    boxes = np.array([(0, 0, 5, 5), (left, 0, 5, 5)])
    same = any(len(set(assign(boxes, 4, 2, np.random.default_rng(seed)).tolist())) == 1 for seed in range(30))
    assert same is not near


def test_assign_keeps_wanted_ids_unless_an_earlier_neighbour_has_them():
    boxes = np.array([(0, 0, 5, 5), (6, 0, 5, 5), (12, 0, 5, 5), (90, 0, 5, 5), (96, 0, 5, 5)])
    for seed in range(5):
        colors = assign(boxes, 4, 15, np.random.default_rng(seed), previous=[3, 3, 4, 3, 0]).tolist()
        assert [colors[0], colors[2], colors[3]] == [3, 4, 3]
        assert colors[1] not in (0, 3, 4) and colors[4] not in (0, 3)


def preferred(near: np.ndarray, preference: np.ndarray, others: int = 0) -> list[int]:
    """Of one example, alone or beside one of `others` instances more."""
    n, colors = preference.shape
    nears, preferences = torch.zeros(2, n + others, n + others).bool(), torch.rand(2, n + others, colors)
    nears[0, :n, :n], preferences[0, :n] = torch.from_numpy(near), torch.from_numpy(preference)
    there = torch.ones(2, n + others).bool()
    there[0, n:] = False
    found = assign_preferred(nears, preferences, there)[0].tolist()
    assert not any(found[n:]), "who is not there gets no id"
    return found[:n]


@pytest.mark.parametrize("others", [0, 3])
def test_assign_preferred_largest_loss_first(others):
    near = np.array([[False, True, False], [True, False, False], [False, False, False]])
    preference = np.array([[0.0, 5.0, 4.0], [0.0, 5.0, 1.0], [0.0, 1.0, 0.5]])
    assert preferred(near, preference, others) == [3, 2, 2]


@pytest.mark.parametrize("others", [0, 3])
def test_assign_preferred_takes_least_used_id_if_none_is_free(others):
    near = ~np.eye(3, dtype=bool)
    assert np.bincount(preferred(near, np.array([[2.0, 1.0]] * 3), others)).tolist()[1:] in ([2, 1], [1, 2])
    assert preferred(near, np.ones((3, 1)), others) == [1, 1, 1]
    assert preferred(np.zeros((0, 0), bool), np.zeros((0, 4)), others) == []
