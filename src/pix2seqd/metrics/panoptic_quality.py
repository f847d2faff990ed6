"""Panoptic quality (Kirillov et al. 2019) with the rules of COCO; equal to the official panopticapi."""

from typing import Any

import numpy as np

from pix2seqd.metrics.overlap import UNIT, classes, mean_of_present, overlap_matrix
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy


class PanopticQuality:
    """Running PQ, SQ and RQ of a data set.

    A predicted segment is a true positive if its IoU with a true segment of its category, not a crowd, is above 0.5.
    Predicted pixels on true void do not count in the union. Crowds are not required to be found. An unmatched
    prediction is ignored if more than half of it lies on true void or on crowds of its category.

    Attributes:
        taxonomy: the categories.
        state: int64 `[4, n categories]`: sum of IoU in `UNIT`, true positives, false positives, false negatives.
            States of several processes can be added (all-reduce).
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self.state = np.zeros((4, len(taxonomy)), np.int64)

    def update(self, truth: Panoptic, prediction: Panoptic) -> None:
        """Count one image; errors are those of `overlap_matrix`."""
        matrix = overlap_matrix(self.taxonomy, truth, prediction)
        true_class = classes(self.taxonomy, truth.segments)
        predicted_class = classes(self.taxonomy, prediction.segments)
        crowd = np.array([segment.iscrowd for segment in truth.segments], bool)
        void, shared = matrix[0, 1:], matrix[1:, 1:]
        area = matrix[:, 1:].sum(0)
        same = true_class[:, None] == predicted_class[None]

        union = matrix[1:].sum(1)[:, None] + (area - void)[None] - shared
        match = same & ~crowd[:, None] & (2 * shared > union)
        rows, columns = np.nonzero(match)
        iou = np.rint(shared[rows, columns] / union[rows, columns] / UNIT).astype(np.int64)
        missed = true_class[~crowd & ~match.any(1)]
        excused = void + np.where(same & crowd[:, None], shared, 0).sum(0)
        wrong = predicted_class[~match.any(0) & (2 * excused <= area)]

        np.add.at(self.state[0], true_class[rows] - 1, iou)
        for row, found in zip(self.state[1:], (true_class[rows], wrong, missed), strict=True):
            np.add.at(row, found - 1, 1)

    def compute(self) -> dict[str, Any]:
        """PQ, SQ and RQ, each 0..1.

        Returns:
            "All", "Things", "Stuff": {"pq", "sq", "rq"}, means over the n categories that occur, and "n";
            "per_class": category id → {"name", "pq", "sq", "rq", "tp", "fp", "fn"}. Undefined values are nan.
        """
        iou, (tp, fp, fn) = self.state[0] * UNIT, self.state[1:]
        occurrences = np.where(tp + fp + fn > 0, tp + (fp + fn) / 2, np.nan)
        values = {
            "pq": iou / occurrences,
            "sq": np.where(np.isnan(occurrences), np.nan, iou / np.maximum(tp, 1)),
            "rq": tp / occurrences,
        }
        thing = np.array([category.isthing for category in self.taxonomy.categories])
        result: dict[str, Any] = {}
        for name, chosen in (("All", thing | True), ("Things", thing), ("Stuff", ~thing)):
            result[name] = {key: mean_of_present(value[chosen]) for key, value in values.items()}
            result[name]["n"] = int((~np.isnan(occurrences[chosen])).sum())
        result["per_class"] = {
            category.id: {
                "name": category.name,
                **{key: float(value[index]) for key, value in values.items()},
                **{key: int(count[index]) for key, count in (("tp", tp), ("fp", fp), ("fn", fn))},
            }
            for index, category in enumerate(self.taxonomy.categories)
        }
        return result
