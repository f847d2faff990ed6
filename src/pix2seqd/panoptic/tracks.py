"""The tracks of a clip: in which frames an object was seen, how large it was, and which cell it divided from."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median

import numpy as np

from pix2seqd.panoptic.outlines import inside
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.segment import Segment

MIN_FRAMES = 3
"""Tracks that were seen in fewer frames are mostly errors of the model."""
OVERLAP = 0.5
"""A daughter lies with more than this share of her pixels where her mother was in the frame before."""
LOSS = 0.25
"""A mother loses more than this share of her area when she divides."""


@dataclass
class Track:
    """One object over time."""

    first_frame: int
    isthing: bool
    parent: int = 0
    """Id of the track of the cell that divided; 0: none."""
    categories: Counter[int] = field(default_factory=Counter)
    """Category id → number of frames."""
    areas: list[int] = field(default_factory=list)
    """Pixels in each frame from the first to the last in which it was seen; 0: not seen."""
    moments: np.ndarray = field(default_factory=lambda: np.zeros(3))
    """Sums of x, y and the frame's number over all pixels of all frames; of things only."""

    def add(self, number: int, segment: Segment, centroid: tuple[float, float]) -> None:
        """Add a frame in which the object was seen; frames since the last one get area 0."""
        self.areas += [0] * (number - self.first_frame - len(self.areas)) + [segment.area]
        self.categories[segment.category_id] += 1
        self.moments += np.array([*centroid, number]) * segment.area

    @property
    def category_id(self) -> int:
        """The category in most frames."""
        return self.categories.most_common(1)[0][0]

    @property
    def seen(self) -> int:
        """Number of frames in which the object was seen."""
        return self.categories.total()

    @property
    def last_frame(self) -> int:
        """Number of the last frame in which the object was seen."""
        return self.first_frame + len(self.areas) - 1


class Tracks(dict[int, Track]):
    """The tracks by their ids, frame by frame.

    **Divisions.** The tracker lets one daughter continue the mother's track and starts a track for the other
    (`inference.tracking.Tracker`). The mother is found here, from two consecutive frames. The other daughter has a
    `parent` if more than `OVERLAP` of her pixels were in a thing of her category, and that thing goes on with less than
    1 - `LOSS` of its area before and of its usual (median) area. So two things that were one segment for a few frames
    and part again do not count as a division.

    Args of the constructor:
        divide: whether to look for divisions; the frames are time points, not depths.
    """

    def __init__(self, divide: bool = True) -> None:
        super().__init__()
        self._divide = divide
        self._before: tuple[int, Panoptic] | None = None

    def parents(self, number: int, panoptic: Panoptic) -> dict[int, int]:
        """The divisions in the next frame: id of each new track that has a mother → the mother's id.

        The frame's number is larger than those before; the ids of its segments are those of tracks.
        """
        if not self._divide or self._before is None or self._before[0] != number - 1:
            return {}
        born = (segment for segment in panoptic.things if segment.id not in self)
        found = {segment.id: self._mother(self._before[1], panoptic, segment) for segment in born}
        return {daughter: mother for daughter, mother in found.items() if mother}

    def add(
        self,
        number: int,
        panoptic: Panoptic,
        centroids: Mapping[int, tuple[float, float]],
        parents: Mapping[int, int],
    ) -> None:
        """Add the next frame, with the `centroid` of each thing and the `parents` in it."""
        for segment in panoptic.segments:
            if segment.id not in self:
                self[segment.id] = Track(number, segment.isthing, parents.get(segment.id, 0))
            self[segment.id].add(number, segment, centroids.get(segment.id, (0, 0)))
        self._before = number, panoptic

    def lasting(self, min_frames: int) -> Iterator[tuple[int, Track]]:
        """Ids and tracks, in the order of the ids, without those seen in fewer frames."""
        return ((number, self[number]) for number in sorted(self) if self[number].seen >= min_frames)

    def _mother(self, before: Panoptic, panoptic: Panoptic, daughter: Segment) -> int:
        """Id of the track from which a new thing divided, or 0."""
        left, top, width, height = daughter.bbox
        part = np.s_[top : top + height, left : left + width]
        under = before.segmentation[part][panoptic.segmentation[part] == daughter.id]
        mother = int(np.bincount(under).argmax())
        now = next((segment for segment in panoptic.things if segment.id == mother), None)
        if now is None or now.category_id != daughter.category_id:
            return 0
        areas = self[mother].areas
        usual = min(areas[-1], median(area for area in areas if area))
        overlaps = (under == mother).sum() > OVERLAP * daughter.area
        return mother if overlaps and now.area < (1 - LOSS) * usual else 0


def centroid(panoptic: Panoptic, segment: Segment) -> tuple[float, float]:
    """Mean x and mean y of the pixels of a segment; the first pixel of a row or column is 0."""
    left, top, width, height = segment.bbox
    own = inside(panoptic.segmentation, segment)
    x = left + own.sum(axis=0) @ np.arange(width) / segment.area
    return float(x), float(top + own.sum(axis=1) @ np.arange(height) / segment.area)
