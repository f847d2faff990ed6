"""Reused ids: as few as the bits can say, for any number of instances, so that neighbours differ."""

from collections.abc import Sequence

import numpy as np


def neighbours(boxes: np.ndarray, distance: float) -> np.ndarray:
    """Which instances' boxes come within `distance`: bool `[n, n]`.

    Boxes are cheaper than outlines and only ever forbid too much.

    Args:
        boxes: `[n, 4]` x, y, width, height; `[frames, n, 4]` of a clip, nan where absent.
        distance: pixels.
    """
    low, high = boxes[..., :2] - distance, boxes[..., :2] + boxes[..., 2:]
    crossing = (low[..., :, None, :] < high[..., None, :, :]) & (low[..., None, :, :] < high[..., :, None, :])
    near = np.asarray(crossing.all(axis=-1))
    near = near if near.ndim == 2 else np.asarray(near.any(axis=0))
    np.fill_diagonal(near, False)
    return near


def color_boxes(
    boxes: np.ndarray,
    distance: float,
    colors: int,
    rng: np.random.Generator,
    wanted: Sequence[int] = (),
) -> np.ndarray:
    """Random ids 1 .. colors, such that neighbours differ.

    Instances with the fewest free neighbours go first (Matula & Beck's smallest-last order), so that few ids suffice;
    where even so none is free, the one used least among the neighbours is taken.

    Args:
        boxes: as `neighbours` takes them.
        distance: likewise.
        colors: number of ids, 1 or more.
        rng: source of randomness.
        wanted: ids that instances have already, 0 = none; one keeps its id unless a neighbour before it does.
    """
    near = neighbours(boxes, distance)
    order: list[int] = []
    degree = near.sum(axis=1).astype(float)
    for _ in range(len(near)):
        last = int(degree.argmin())
        order.append(last)
        degree = degree - near[last]
        degree[last] = np.inf
    result = np.zeros(len(near), np.int64)
    for i, color in enumerate(wanted):
        result[i] = 0 if (result[near[i]] == color).any() else color
    for i in reversed(order):
        if result[i]:
            continue
        used = np.bincount(result[near[i]], minlength=colors + 1)[1:]
        result[i] = rng.choice(np.flatnonzero(used == used.min())) + 1
    return result


def color_as_preferred(near: np.ndarray, preference: np.ndarray) -> np.ndarray:
    """The ids 1 .. colors that instances would rather have, such that neighbours differ.

    Who would lose most by its second choice goes first; where no id is free, those used least among the neighbours are.

    Args:
        near: who is whose neighbour, bool `[n, n]`.
        preference: of each instance for each id, the higher the better, `[n, colors]`.
    """
    n, colors = preference.shape
    result, used = np.zeros(n, np.int64), np.zeros((n, colors), int)
    for _ in range(n):
        free = np.where(used == used.min(axis=1, keepdims=True), preference, -np.inf)
        best = np.sort(free, axis=1)
        loss = best[:, -1] - best[:, -2] if colors > 1 else np.ones(n)
        i = int(np.where(result == 0, loss, -1.0).argmax())
        result[i] = free[i].argmax() + 1
        used[near[i], result[i] - 1] += 1
    return result
