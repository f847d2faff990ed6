"""Reused ids: as few as the bits can say, for any number of instances, so that neighbours differ."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

A = TypeVar("A", np.ndarray, Tensor)

ID_DISTANCE = 4
"""Mask pixels: things whose boxes come as near as that have different ids."""


def neighbours(boxes: np.ndarray, distance: float) -> np.ndarray:
    """Which instances' boxes come within `distance`: bool `[n, n]`.

    Boxes are cheaper than outlines and only ever forbid too much.

    Args:
        boxes: `[n, 4]` x, y, width, height; `[frames, n, 4]` of a clip, nan where absent.
        distance: pixels.
    """
    near = crossing(boxes, distance)
    near = near if near.ndim == 2 else np.asarray(near.any(axis=0))
    np.fill_diagonal(near, False)
    return near


def crossing(boxes: A, distance: float) -> A:
    """Which boxes `[..., n, 4]` come within `distance` of each other, or are the same: bool `[..., n, n]`."""
    low, high = boxes[..., :2] - distance, boxes[..., :2] + boxes[..., 2:]
    cross = (low[..., :, None, :] < high[..., None, :, :]) & (low[..., None, :, :] < high[..., :, None, :])
    return cross.all(-1)  # pyright: ignore[reportReturnType]


def assign(
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


def assign_preferred(near: Tensor, preference: Tensor, there: Tensor) -> Tensor:
    """The ids 1 .. colors that instances would rather have, such that neighbours differ.

    Who would lose most by its second choice goes first; where no id is free, those used least among the neighbours are.

    Args:
        near: who is whose neighbour, bool `[b, n, n]`.
        preference: of each instance for each id, the higher the better, `[b, n, colors]`.
        there: which instances there are, bool `[b, n]`.

    Returns:
        int64 `[b, n]`, 0 where there is none.
    """
    left, examples = there.clone(), torch.arange(len(there), device=there.device)
    result, used = torch.zeros_like(there, dtype=torch.long), torch.zeros_like(preference)
    for _ in range(int(there.sum(dim=1).max()) if there.numel() else 0):
        free = torch.where(used == used.amin(dim=2, keepdim=True), preference, -torch.inf)
        best, *second = free.topk(min(2, free.shape[2]), dim=2).values.unbind(dim=2)
        loss = best - second[0] if second else torch.ones_like(best)
        i = torch.where(left, loss, -1).argmax(dim=1)
        here, color = left[examples, i], free[examples, i].argmax(dim=1)
        result[examples, i] += here * (color + 1)
        used[examples, :, color] += here[:, None] * near[examples, i]
        left[examples, i] = False
    return result
