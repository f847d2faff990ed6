"""Average precision of instances as the Data Science Bowl 2018 and StarDist define it: tp / (tp + fp + fn)."""

from typing import Any

import numpy as np

from pix2seqd.metrics.overlap import UNIT, classes, overlap_matrix
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy

PERCENT = np.arange(50, 100, 5)
"""The IoU thresholds 0.50, 0.55 … 0.95, in percent so that comparisons are exact."""


class AveragePrecision:
    """Running AP of a data set's thing instances.

    A predicted instance is a true positive at a threshold if a true instance of its category has a strictly greater
    IoU with it (Kaggle's rule; StarDist also admits equality). From 0.5 on such a partner is unique, so that no
    assignment is needed. Crowds are no instances, and void is background like any other.

    Attributes:
        taxonomy: the categories; those that are things are counted, all in one.
        state: int64 `[5, 10 thresholds]`: true positives, false positives, false negatives, the sum over pictures of
            AP in `UNIT`, the number of pictures with any instance. States of several processes may be added up.
    """

    def __init__(self, taxonomy: Taxonomy, state: np.ndarray | None = None) -> None:
        self.taxonomy = taxonomy
        self.state = np.zeros((5, len(PERCENT)), np.int64) if state is None else state.astype(np.int64)

    def __add__(self, other: "AveragePrecision") -> "AveragePrecision":
        """The metric of both sets of pictures together."""
        return AveragePrecision(self.taxonomy, self.state + other.state)

    def update(self, truth: Panoptic, prediction: Panoptic) -> None:
        """Count one picture.

        Raises:
            ValueError: the sizes differ, the categories are not the metric's, or a map has an id without a record.
        """
        matrix = overlap_matrix(self.taxonomy, truth, prediction)
        rows = np.flatnonzero([segment.isthing and not segment.iscrowd for segment in truth.segments])
        columns = np.flatnonzero([segment.isthing for segment in prediction.segments])
        same = (
            classes(self.taxonomy, truth.segments)[rows, None]
            == classes(self.taxonomy, prediction.segments)[None, columns]
        )
        shared = matrix[1:, 1:][np.ix_(rows, columns)]
        union = matrix.sum(1)[1 + rows, None] + matrix.sum(0)[None, 1 + columns] - shared
        hits = same & (100 * shared > PERCENT[:, None, None] * union)
        tp = hits.sum((1, 2))
        present = len(rows) + len(columns) - tp
        ap = np.rint(tp / np.maximum(present, 1) / UNIT).astype(np.int64)
        self.state += np.stack([tp, len(columns) - tp, len(rows) - tp, ap, present > 0])

    def compute(self) -> dict[str, Any]:
        """AP and its kin, each 0..1; nan where there is nothing to count.

        Returns:
            "thresholds": "0.50" … "0.95" → {"ap", "precision", "recall", "f1": all pictures' counts pooled, as
            StarDist; "ap_per_image": mean over pictures; "tp", "fp", "fn"}; "mean_ap" and "mean_ap_per_image"
            (the score of the Data Science Bowl 2018): their means over the thresholds. Pictures without any true or
            predicted instance do not enter the means over pictures.
        """
        tp, fp, fn, ap, images = self.state
        columns = {
            "ap": _ratio(tp, tp + fp + fn),
            "precision": _ratio(tp, tp + fp),
            "recall": _ratio(tp, tp + fn),
            "f1": _ratio(2 * tp, 2 * tp + fp + fn),
            "ap_per_image": _ratio(ap * UNIT, images),
        }
        counts = {"tp": tp, "fp": fp, "fn": fn}
        return {
            "thresholds": {
                f"{percent / 100:.2f}": {
                    **{key: float(value[index]) for key, value in columns.items()},
                    **{key: int(value[index]) for key, value in counts.items()},
                }
                for index, percent in enumerate(PERCENT)
            },
            "mean_ap": float(columns["ap"].mean()),
            "mean_ap_per_image": float(columns["ap_per_image"].mean()),
        }


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return numerator / np.where(denominator > 0, denominator, np.nan)
