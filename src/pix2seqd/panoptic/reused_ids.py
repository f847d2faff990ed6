"""Reused ids by graph colouring: few ids for any number of instances, such that neighbours differ."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

A = TypeVar("A", np.ndarray, Tensor)

ID_DISTANCE = 4
"""Mask pixels: things whose boxes come as near as that have different ids."""


def neighbours(boxes: np.ndarray, distance: float) -> np.ndarray:
    """Which instances' boxes come within `distance` pixels: bool `[n, n]`.

    Boxes `[n, 4]` are x, y, width, height; of a clip `[frames, n, 4]`, nan where an instance is absent. They are
    cheaper than outlines; instances whose boxes are near but whose pixels are not count as neighbours too.
    """
    near = near_boxes(boxes, distance)
    near = near if near.ndim == 2 else np.asarray(near.any(axis=0))
    np.fill_diagonal(near, False)
    return near


def near_boxes(boxes: A, distance: float) -> A:
    """Which boxes `[..., n, 4]` come within `distance` of each other, or are the same: bool `[..., n, n]`."""
    low, high = boxes[..., :2] - distance, boxes[..., :2] + boxes[..., 2:]
    cross = (low[..., :, None, :] < high[..., None, :, :]) & (low[..., None, :, :] < high[..., :, None, :])
    return cross.all(-1)  # pyright: ignore[reportReturnType]


def assign(
    boxes: np.ndarray,
    distance: float,
    colors: int,
    rng: np.random.Generator,
    previous: Sequence[int] = (),
) -> np.ndarray:
    """Random ids 1..colors, such that neighbours differ.

    The instances are coloured in Matula & Beck's smallest-last order, which needs few ids. If no id is free, the one
    that is used least among the neighbours is taken.

    Args:
        boxes: as `neighbours` takes them.
        distance: likewise.
        colors: number of ids, 1 or more.
        rng: source of randomness.
        previous: ids that instances have already, 0 = none; one is kept unless an earlier neighbour has it.
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
    for i, color in enumerate(previous):
        result[i] = 0 if (result[near[i]] == color).any() else color
    for i in reversed(order):
        if result[i]:
            continue
        used = np.bincount(result[near[i]], minlength=colors + 1)[1:]
        result[i] = rng.choice(np.flatnonzero(used == used.min())) + 1
    return result


def assign_preferred(near: Tensor, preference: Tensor, present: Tensor) -> Tensor:
    """The ids 1..colors that instances prefer, such that neighbours differ.

    The instance that would lose most by its second choice comes first. If no id is free, one of those that are used
    least among the neighbours is taken.

    Args:
        near: which instances are neighbours, bool `[b, n, n]`.
        preference: of each instance for each id, higher is better, `[b, n, colors]`.
        present: which instances exist, bool `[b, n]`.

    Returns:
        int64 `[b, n]`, 0 for instances that do not exist.
    """
    left, examples = present.clone(), torch.arange(len(present), device=present.device)
    result, used = torch.zeros_like(present, dtype=torch.long), torch.zeros_like(preference)
    for _ in range(int(present.sum(dim=1).max()) if present.numel() else 0):
        free = torch.where(used == used.amin(dim=2, keepdim=True), preference, -torch.inf)
        best, *second = free.topk(min(2, free.shape[2]), dim=2).values.unbind(dim=2)
        loss = best - second[0] if second else torch.ones_like(best)
        i = torch.where(left, loss, -1).argmax(dim=1)
        here, color = left[examples, i], free[examples, i].argmax(dim=1)
        result[examples, i] += here * (color + 1)
        used[examples, :, color] += here[:, None] * near[examples, i]
        left[examples, i] = False
    return result
