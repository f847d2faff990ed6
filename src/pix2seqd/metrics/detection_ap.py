"""Average precision of instances sorted by score, as in COCO, and how well the scores are calibrated."""

from typing import Any

import numpy as np

from pix2seqd.metrics.average_precision import PERCENT, hits
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy

LEVELS = 1000
"""Scores are counted in steps of 1 / LEVELS; instances of one step rank equally."""
RECALLS = np.linspace(0, 1, 101)
"""The recalls at which COCO reads the precision."""
BINS = 10
"""Bars of the reliability plot, of equal width."""


class DetectionAP:
    """Running AP of the thing instances of a data set, sorted by `Segment.score`; an instance without one counts as 1.

    Segments do not overlap, so a match at an IoU above 0.5 is unique and does not depend on the order.

    Attributes:
        taxonomy: the categories.
        state: int64 `[thing categories, 12, LEVELS + 1]`, by the step of the score: predictions, true positives at each
            of the ten IoU thresholds, and in the last row, first column only, the number of true instances. States of
            several processes can be added.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self._rows = {c.id: row for row, c in enumerate(c for c in taxonomy.categories if c.isthing)}
        shape = len(self._rows), 2 + len(PERCENT), LEVELS + 1
        self.state = np.zeros(shape, np.int64)

    def update(self, truth: Panoptic, prediction: Panoptic) -> None:
        """Count one image; errors are those of `overlap_matrix`."""
        found = hits(self.taxonomy, truth, prediction).sum(axis=1).T  # [predictions, thresholds], 0 or 1
        for segment, matched in zip(prediction.things, found, strict=True):
            level = LEVELS if segment.score is None else round(LEVELS * segment.score)
            self.state[self._rows[segment.category_id], :-1, level] += np.concatenate([[1], matched])
        for segment in truth.things:
            self.state[self._rows[segment.category_id], -1, 0] += not segment.iscrowd

    def compute(self) -> dict[str, Any]:
        """AP and calibration, each 0..1; nan if there is no instance.

        Returns:
            "ap50", "ap75" and "ap" (mean over the IoU thresholds 0.50, 0.55 … 0.95): means over the categories with a
            true instance. "calibration_error" (ECE): mean distance of a prediction's score from the precision at an IoU
            of 0.5 of predictions with similar scores. "reliability": per tenth of the scores "score" (mean),
            "precision" (at an IoU of 0.5) and "count", pooled over the categories.
        """
        present = [self._average_precision(part) for part in self.state if part[-1, 0]]
        ap = np.mean(present, axis=0) if present else np.full(len(PERCENT), np.nan)
        levels = np.arange(LEVELS + 1)
        count, matched = self.state[:, 0].sum(axis=0), self.state[:, 1].sum(axis=0)
        bins = np.minimum(levels * BINS // LEVELS, BINS - 1)
        counts, scores, right = (np.bincount(bins, v, BINS) for v in (count, count * levels / LEVELS, matched))
        error = np.abs(scores - right).sum() / counts.sum() if counts.any() else np.nan
        bars = [
            {"score": float(s / n), "precision": float(r / n), "count": int(n)}
            for n, s, r in zip(counts, scores, right, strict=True)
            if n
        ]
        return {
            "ap50": float(ap[0]),
            "ap75": float(ap[5]),
            "ap": float(ap.mean()),
            "calibration_error": float(error),
            "reliability": bars,
        }

    def _average_precision(self, part: np.ndarray) -> np.ndarray:
        """AP of one category at each IoU threshold."""
        falling = part[:-1, ::-1]  # the highest score first
        falling = falling[:, falling[0] > 0].cumsum(axis=1)
        precision = np.maximum.accumulate((falling[1:] / falling[0])[:, ::-1], axis=1)[:, ::-1]
        precision = np.pad(precision, ((0, 0), (0, 1)))  # 0 at recalls that are not reached
        recall = falling[1:] / part[-1, 0]
        return np.array([p[np.searchsorted(r, RECALLS)].mean() for p, r in zip(precision, recall, strict=True)])
