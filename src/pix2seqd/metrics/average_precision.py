"""Average precision of instances as in the Data Science Bowl 2018 and StarDist: tp / (tp + fp + fn)."""

from typing import Any

import numpy as np

from pix2seqd.metrics.overlap import UNIT, classes, overlap_matrix
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy

PERCENT = np.arange(50, 100, 5)
"""The IoU thresholds 0.50, 0.55 … 0.95, in percent, so that integer comparisons are exact."""


class AveragePrecision:
    """Running AP of the thing instances of a data set.

    A predicted instance is a true positive at a threshold if its IoU with a true instance of its category is strictly
    greater (Kaggle's rule; StarDist also accepts equality). Above 0.5 the match is unique, so no assignment is needed.
    Crowds are not instances, and void is treated as background.

    Attributes:
        taxonomy: the categories; all thing categories are counted together.
        state: int64 `[5, 10 thresholds]`: true positives, false positives, false negatives, sum over images of AP in
            `UNIT`, number of images with any instance. States of several processes can be added.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self.state = np.zeros((5, len(PERCENT)), np.int64)

    def update(self, truth: Panoptic, prediction: Panoptic) -> None:
        """Count one image; errors are those of `overlap_matrix`."""
        found = hits(self.taxonomy, truth, prediction)
        _, rows, columns = found.shape
        tp = found.sum((1, 2))
        present = rows + columns - tp
        ap = np.rint(tp / np.maximum(present, 1) / UNIT).astype(np.int64)
        self.state += np.stack([tp, columns - tp, rows - tp, ap, present > 0])

    def compute(self) -> dict[str, Any]:
        """AP and related scores, each 0..1; nan if there is no instance.

        Returns:
            "thresholds": "0.50" … "0.95" → {"ap", "precision", "recall", "f1": from the pooled counts of all images, as
            in StarDist; "ap_per_image": mean over images; "tp", "fp", "fn"}; "mean_ap" and "mean_ap_per_image" (the
            score of the Data Science Bowl 2018): means over the thresholds. Images without any true or predicted
            instance are left out of the means over images.
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


def hits(taxonomy: Taxonomy, truth: Panoptic, prediction: Panoptic) -> np.ndarray:
    """Whether an instance is matched, bool `[10 thresholds, true instances, predicted instances]`."""
    matrix = overlap_matrix(taxonomy, truth, prediction)
    rows = np.flatnonzero([segment.isthing and not segment.iscrowd for segment in truth.segments])
    columns = np.flatnonzero([segment.isthing for segment in prediction.segments])
    same = classes(taxonomy, truth.segments)[rows, None] == classes(taxonomy, prediction.segments)[None, columns]
    shared = matrix[1:, 1:][np.ix_(rows, columns)]
    union = matrix.sum(1)[1 + rows, None] + matrix.sum(0)[None, 1 + columns] - shared
    return same & (100 * shared > PERCENT[:, None, None] * union)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return numerator / np.where(denominator > 0, denominator, np.nan)
