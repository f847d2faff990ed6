"""How often a tracked object changes its id."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from pix2seqd.metrics.overlap import classes, overlap_matrix
from pix2seqd.panoptic.panoptic import Panoptic, Segment
from pix2seqd.panoptic.taxonomy import Taxonomy


class IdSwitches:
    """Running count over the frames of videos, in the order of time. A sequence belongs to one process as a whole.

    In a frame, a true thing is *found* if a predicted thing of its class covers it with an IoU above 0.5 (there is at
    most one). Its id has *switched* if that one has another id than the last one that found it, however long ago.

    Attributes:
        taxonomy: the categories.
        visible: true things, counted once per frame.
        found: those of them that were found.
        switches: those of them whose id switched.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self.visible = self.found = self.switches = 0
        self._last: dict[tuple[str, int], int] = {}

    def __add__(self, other: "IdSwitches") -> "IdSwitches":
        """The metric of both sets of sequences together."""
        result = IdSwitches(self.taxonomy)
        for part in (self, other):
            result.visible += part.visible
            result.found += part.found
            result.switches += part.switches
            result._last |= part._last
        return result

    def update(self, sequence: str, truth: Panoptic, prediction: Panoptic) -> None:
        """Count the next frame of a sequence; true crowds are left out, true void counts on neither side.

        Raises:
            ValueError: the sizes or the categories differ.
        """
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
        """The counts "switches", "found", "visible", and "found_share", "switches_per_100_found"; nan: undefined."""
        share = self.found / self.visible if self.visible else float("nan")
        rate = 100 * self.switches / self.found if self.found else float("nan")
        counts = {"switches": self.switches, "found": self.found, "visible": self.visible}
        return {**counts, "found_share": share, "switches_per_100_found": rate}


def _things(segments: Sequence[Segment]) -> np.ndarray:
    return np.array([segment.isthing and not segment.iscrowd for segment in segments], bool)
