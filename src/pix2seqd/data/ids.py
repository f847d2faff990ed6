"""Random segment ids of training masks, drawn each time an image is sampled (paper §2)."""

import numpy as np

from pix2seqd.config import DataConfig
from pix2seqd.panoptic.panoptic import unique_inverse
from pix2seqd.panoptic.reused_ids import ID_DISTANCE, assign
from pix2seqd.panoptic.runs import Runs
from pix2seqd.panoptic.taxonomy import VOID, Taxonomy


def draw_mask(
    segmentation: np.ndarray,
    classes: dict[int, int],
    taxonomy: Taxonomy,
    config: DataConfig,
    max_instances: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Mask tensor of a segmentation, with random ids (§2). The frames of a clip share one draw (§3.4).

    Args:
        segmentation: segment ids at mask resolution, 0 = void; `[h, w]`, or `[frames, h, w]` for a clip.
        classes: segment id → contiguous class; segments that are not listed become void.
        taxonomy: the categories; it separates things from stuff.
        config: unique or reused ids; reused ids differ between things that are neighbours in any frame.
        max_instances: the paper's K; ids are 1 .. K - 1, and 0 is void.
        rng: source of randomness.

    Returns:
        (mask, instances): int64 `[2, h, w]`, class and id; int64 `[h, w]`, a number per segment, for the loss weights.
        Both have a leading axis for the frames of a clip.
    """
    frames = [Runs.encode(frame).measure() for frame in segmentation.reshape(-1, *segmentation.shape[-2:])]
    present = sorted({i for frame in frames for i in frame if i in classes})
    if config.ids == "unique":
        # If there are more segments than ids, the smallest become void (`check-data` counts such images).
        largest = {i: max(frame[i][0] for frame in frames if i in frame) for i in present}
        present = sorted(present, key=lambda i: -largest[i])[: max_instances - 1]
        ids = dict(zip(present, (rng.permutation(max_instances - 1) + 1).tolist(), strict=False))
    else:
        things = [i for i in present if taxonomy.category(classes[i]).isthing]
        absent = (0, (np.nan,) * 4)  # nan: not a neighbour of any box
        boxes = np.array([[frame.get(i, absent)[1] for i in things] for frame in frames]).reshape(len(frames), -1, 4)
        colors = assign(boxes, ID_DISTANCE, max_instances - 1, rng)
        ids = dict(zip(things, colors.tolist(), strict=True))
    keys, dense = unique_inverse(segmentation)
    kept = set(present)
    table = [
        (classes[i], ids.get(i, VOID), n) if i in kept else (VOID, VOID, 0) for n, i in enumerate(keys.tolist(), 1)
    ]
    class_map, id_map, numbers = (column[dense] for column in np.array(table, np.int64).reshape(-1, 3).T)
    return np.stack([class_map, id_map], axis=-3), numbers
