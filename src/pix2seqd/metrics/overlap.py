"""Overlap of the segments of ground truth and prediction, in pixels."""

from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from pix2seqd.panoptic.panoptic import Panoptic, Segment
from pix2seqd.panoptic.runs import Runs, shared_pixels
from pix2seqd.panoptic.taxonomy import Taxonomy

UNIT = 2.0**-40
"""Sums of ratios are stored as integers in this unit. Integer addition is exact in any order, so results do not depend
on the number of processes. The rounding error is 5e-13 per ratio, and int64 holds the sum of eight million."""


def overlap_matrix(taxonomy: Taxonomy, truth: Panoptic, prediction: Panoptic) -> np.ndarray:
    """Pixels shared by each pair of segments, int64 `[1 + true segments, 1 + predicted segments]`; index 0 is void.

    Raises:
        ValueError: the sizes differ, the categories are not those of `taxonomy`, or a map has an id without a record.
    """
    check_categories(taxonomy, truth.taxonomy, "truth")
    check_categories(taxonomy, prediction.taxonomy, "prediction")
    check_sizes(truth.segmentation, prediction.segmentation)
    maps = (Runs.encode(panoptic.segmentation) for panoptic in (truth, prediction))
    (true_ids, predicted_ids), counts = shared_pixels(*maps)
    matrix = np.zeros((1 + len(truth.segments), 1 + len(prediction.segments)), np.int64)
    rows = _index(true_ids, truth.segments, "truth")
    columns = _index(predicted_ids, prediction.segments, "prediction")
    matrix[rows, columns] = counts
    return matrix


def classes(taxonomy: Taxonomy, segments: Sequence[Segment]) -> np.ndarray:
    """Contiguous class of each segment, int64 `[segments]`."""
    return np.array([taxonomy.class_of(segment.category_id) for segment in segments], np.int64)


def check_categories(expected: Taxonomy, actual: Taxonomy, whose: str) -> None:
    """Raise a ValueError that names the first category whose position, id, name or kind differs; colours may differ."""
    if actual is expected:
        return
    for number, pair in enumerate(zip_longest(expected.categories, actual.categories), start=1):
        wanted, found = ("missing" if category is None else str(category) for category in pair)
        if wanted != found:
            raise ValueError(
                f"the categories of the {whose} are not the metric's: number {number} is {found} instead of {wanted}"
            )


def check_sizes(truth: np.ndarray, prediction: np.ndarray) -> None:
    """Raise a ValueError if the shapes of two maps, `[..., h, w]`, differ."""
    if truth.shape != prediction.shape:
        sizes = [" × ".join(str(side) for side in array.shape) for array in (truth, prediction)]
        raise ValueError(f"the prediction is {sizes[1]} pixels but the truth {sizes[0]}; predict at the truth's size")


def mean_of_present(values: np.ndarray) -> float:
    """Mean of the values that are not nan; nan if all are."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")


def _index(ids: np.ndarray, segments: Sequence[Segment], whose: str) -> np.ndarray:
    """Row of each id in the overlap matrix: 0 for void, then the segments, which are sorted by id."""
    known = np.array([0, *(segment.id for segment in segments)])
    index = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    if (unknown := ids[known[index] != ids]).size:
        raise ValueError(f"segment id {unknown[0]} is in the map of the {whose} but has no record; add its category")
    return index
