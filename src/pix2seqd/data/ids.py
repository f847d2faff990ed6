"""Which id each segment gets in a training mask: drawn anew every time a picture is sampled (paper §2)."""

import numpy as np

from pix2seqd.config import DataConfig
from pix2seqd.panoptic import measure
from pix2seqd.taxonomy import VOID, Taxonomy


def draw_mask(
    segmentation: np.ndarray,
    classes: dict[int, int],
    taxonomy: Taxonomy,
    config: DataConfig,
    max_instances: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Mask tensor of a segmentation, with random ids.

    Args:
        segmentation: segment ids `[h, w]` at mask resolution, 0 = void.
        classes: segment id → contiguous class; others become void.
        taxonomy: says which classes are things.
        config: unique or reused ids.
        max_instances: ids are 1 .. max_instances - 1.
        rng: source of randomness.

    Returns:
        (mask, instances): int64 `[2, h, w]`; int64 `[h, w]`, a number per segment, for the loss weights.
    """
    measured = measure(segmentation)
    present = [i for i in measured if i in classes]
    if config.ids == "unique":
        # More segments than ids: the smallest become void (`check-data` counts such pictures).
        present = sorted(present, key=lambda i: -measured[i][0])[: max_instances - 1]
        ids = dict(zip(present, (rng.permutation(max_instances - 1) + 1).tolist(), strict=False))
    else:
        things = [i for i in present if taxonomy.category(classes[i]).isthing]
        boxes = np.array([measured[i][1] for i in things]).reshape(-1, 4)
        colors = color_boxes(boxes, config.id_distance, max_instances - 1, rng)
        ids = dict(zip(things, colors.tolist(), strict=True))
    keys, dense = np.unique(segmentation, return_inverse=True)
    kept = set(present)
    table = np.array([[classes[i], ids.get(i, VOID)] if i in kept else [VOID, VOID] for i in keys.tolist()])
    numbers = np.array([n + 1 if i in kept else 0 for n, i in enumerate(keys.tolist())])
    dense = dense.reshape(segmentation.shape)
    return np.moveaxis(table[dense], -1, 0).astype(np.int64), numbers[dense].astype(np.int64)


def color_boxes(boxes: np.ndarray, distance: int, colors: int, rng: np.random.Generator) -> np.ndarray:
    """Random ids 1 .. colors, such that instances whose boxes come within `distance` differ.

    Boxes are cheaper than outlines and only ever forbid too much. Instances with the fewest free neighbours go
    first (Matula & Beck's smallest-last order), so that few ids suffice; where even so none is free, the one used
    least among the neighbours is taken.

    Args:
        boxes: `[n, 4]` x, y, width, height.
        distance: pixels.
        colors: number of ids, 1 or more.
        rng: source of randomness.
    """
    low, high = boxes[:, :2] - distance, boxes[:, :2] + boxes[:, 2:]
    near = np.all((low[:, None] < high[None]) & (low[None] < high[:, None]), axis=-1)
    np.fill_diagonal(near, False)
    order: list[int] = []
    degree = near.sum(axis=1).astype(float)
    for _ in range(len(boxes)):
        last = int(degree.argmin())
        order.append(last)
        degree = degree - near[last]
        degree[last] = np.inf
    result = np.zeros(len(boxes), np.int64)
    for i in reversed(order):
        used = np.bincount(result[near[i]], minlength=colors + 1)[1:]
        result[i] = rng.choice(np.flatnonzero(used == used.min())) + 1
    return result
