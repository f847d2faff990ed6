"""Number of id switches of tracked objects."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pix2seqd.metrics.overlap import classes, overlap_matrix
from pix2seqd.panoptic.panoptic import Panoptic, Segment
from pix2seqd.panoptic.taxonomy import Taxonomy


class IdSwitches:
    """Running count over the frames of videos, in order of time. All frames of a sequence belong to one process.

    In a frame, a true thing is *found* if a predicted thing of its class has an IoU above 0.5 with it (at most one
    has). Its id has *switched* if the id of that prediction differs from the last one that found it, in any earlier
    frame.

    Attributes:
        taxonomy: the categories.
        visible: number of true things, counted in every frame.
        found: number of those that were found.
        switches: number of those whose id switched.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self.visible = self.found = self.switches = 0
        self._last: dict[tuple[str, int], int] = {}

    def __add__(self, other: "IdSwitches") -> "IdSwitches":
        """The metric of both sets of sequences."""
        result = IdSwitches(self.taxonomy)
        for part in (self, other):
            result.visible += part.visible
            result.found += part.found
            result.switches += part.switches
            result._last |= part._last
        return result

    def update(self, sequence: str, truth: Panoptic, prediction: Panoptic) -> None:
        """Count the next frame of a sequence. True crowds are left out, and true void pixels are ignored."""
        matrix = overlap_matrix(self.taxonomy, truth, prediction)
        shared = matrix[1:, 1:]
        areas, predicted_areas = matrix[1:].sum(axis=1, keepdims=True), matrix[1:, 1:].sum(axis=0)
        same = np.equal.outer(classes(self.taxonomy, truth.segments), classes(self.taxonomy, prediction.segments))
        covered = same & _things(truth.segments)[:, None] & (2 * shared > areas + predicted_areas - shared)
        self.visible += int(_things(truth.segments).sum())
        for i, j in np.argwhere(covered):
            key, now = (sequence, truth.segments[i].id), prediction.segments[j].id
            self.found += 1
            self.switches += self._last.get(key, now) != now
            self._last[key] = now

    def compute(self) -> dict[str, Any]:
        """Counts "switches", "found", "visible"; ratios "found_share" and "switches_per_100_found" (undefined: nan)."""
        share = self.found / self.visible if self.visible else float("nan")
        rate = 100 * self.switches / self.found if self.found else float("nan")
        counts = {"switches": self.switches, "found": self.found, "visible": self.visible}
        return {**counts, "found_share": share, "switches_per_100_found": rate}


def _things(segments: Sequence[Segment]) -> np.ndarray:
    return np.array([segment.isthing and not segment.iscrowd for segment in segments], bool)
