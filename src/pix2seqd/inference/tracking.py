"""Tracking: ids that mean the same object in all frames of a video (§3.4)."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pix2seqd.panoptic.panoptic import Panoptic, Segment
from pix2seqd.panoptic.reused_ids import assign
from pix2seqd.panoptic.runs import Runs, pairwise_iou, shared_pixels

REACH = 1.5
"""Largest motion between two frames at which a reused id still counts, in lengths of the thing."""
UNIQUE = 4.0
"""Score of a unique id, above that of any geometry."""
MIN_SCORE = 0.1
"""Pairs with a lower score (see `Tracker`) are different objects."""
MEMORY = 2
"""Frames for which a track is kept after it was last seen, if the model's memory is not longer."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame whose segments carry the ids of their tracks."""

    panoptic: Panoptic
    generated: dict[int, int]
    """The model's id of each track: the one it gave to most pixels, or the one it was given (`Tracker.past`)."""


class Tracker:
    """Renames the segments of successive frames so that an id means the same object in all of them.

    A video model gives an object the id that it had in the past masks. Ids that are `unique` in a frame therefore
    decide alone. Reused ids, and objects that move from one window to another, need geometry as well. The score of a
    segment and a track of one class is their IoU, plus the closeness of their boxes' centres, from 1 at the same place
    to 0 at `REACH`, times the ratio of their areas: an object that moves by its own length overlaps itself no more. If
    the model gave both the same id, this adds a quarter of their closeness (reused) or `UNIQUE` (unique, of any class).
    Segments and tracks are paired for the highest sum of scores, without pairs below `MIN_SCORE`.

    * A segment without a match starts a new track: it is new, or was hidden for longer than the memory (the model's,
      at least `MEMORY` frames). Track ids are never used again, even if the model uses its own ids again.
    * An object that leaves and returns within the memory continues its track.
    * When an object divides, the part with the higher score continues its track, and the others start new ones.
    * Stuff of a class is one track in all frames.
    * There may be more things than the model has ids. Where ids are reused, all are distinguished. Where ids are
      unique, the surplus things share an id, and with it a segment, or are void.

    Args of the constructor:
        unique: no two things of a window share a generated id.
        memory: number of past frames that the model reads.
    """

    def __init__(self, unique: bool, memory: int = 0) -> None:
        self._unique = unique
        self._frames: deque[Frame] = deque(maxlen=max(memory, MEMORY))
        self._stuff: dict[int, int] = {}
        self._tracks = 0
        self._rng = np.random.default_rng(0)

    def update(self, panoptic: Panoptic, generated: np.ndarray | None = None) -> Panoptic:
        """The next frame, of the size of those before, with track ids as segment ids.

        `generated` is the id that the model gave each pixel, 0 = none, integers `[h, w]`, or `[samples, h, w]` of
        several samples with the same past masks; None: no ids that could be matched.
        """
        from scipy.optimize import linear_sum_assignment  # slow to import, and images need no tracks

        ids = {segment.id: self._track_of_stuff(segment) for segment in panoptic.segments if not segment.isthing}
        given = {} if generated is None else most_frequent(panoptic, generated)
        seen: set[int] = set()
        for frame in reversed(self._frames):
            new = [segment for segment in panoptic.segments if segment.id not in ids]
            old = [track for track in frame.panoptic.segments if track.isthing and track.id not in seen]
            scores = self._scores(Frame(panoptic, given), new, frame, old)
            scores[scores < MIN_SCORE] = 0  # two pairs below the minimum must not outweigh one above it
            for i, j in zip(*linear_sum_assignment(scores, maximize=True), strict=True):
                if scores[i, j] > 0:
                    ids[new[i].id] = old[j].id
            seen.update(track.id for track in old)  # matched by a later frame; its earlier position no longer counts
        for segment in panoptic.segments:
            if segment.id not in ids:
                ids[segment.id] = self._new_track()
        result = panoptic.renumbered(ids)
        self._frames.append(Frame(result, {ids[i]: number for i, number in given.items()}))
        return result

    def past(self, ids: int, distance: float) -> list[Frame]:
        """The last frames, oldest first, with the ids for the model's past masks: one id per track in all frames.

        A track keeps the model's id, 1 to `ids`, unless an older track has it: any other track where ids are unique, a
        neighbour (within `distance` pixels) where they are reused. Stuff has an id only where ids are unique.
        """
        latest: dict[int, int] = {}
        for frame in reversed(self._frames):
            latest |= frame.generated  # the oldest last: ids that were given have priority over generated ones
        frames = [{s.id: s.bbox for s in f.panoptic.segments if self._unique or s.isthing} for f in self._frames]
        tracks = sorted({track for boxes in frames for track in boxes})
        absent = (np.nan,) * 4
        boxes = np.array([[boxes.get(track, absent) for track in tracks] for boxes in frames])
        boxes = np.zeros((1, len(tracks), 4)) if self._unique else boxes.reshape(len(frames), -1, 4)
        preferred = [latest.get(track, 0) for track in tracks]
        given = dict(zip(tracks, assign(boxes, distance, ids, self._rng, preferred).tolist(), strict=True))
        self._frames = deque((Frame(frame.panoptic, given) for frame in self._frames), self._frames.maxlen)
        return list(self._frames)

    def _scores(self, now: Frame, new: Sequence[Segment], then: Frame, old: Sequence[Segment]) -> np.ndarray:
        """Scores of all pairs, float `[segments, tracks]`."""
        overlap = intersection_over_union(now.panoptic, new, then.panoptic, old)
        same_class = np.equal.outer([s.category_id for s in new], [s.category_id for s in old])
        mine, theirs = (
            np.array([frame.generated.get(segment.id, 0) for segment in segments], int)
            for frame, segments in ((now, new), (then, old))
        )
        same_id = (mine[:, None] == theirs) & (mine[:, None] > 0)
        boxes, others = (np.array([s.bbox for s in segments], float).reshape(-1, 4) for segments in (new, old))
        apart = np.linalg.norm(_centres(boxes)[:, None] - _centres(others), axis=-1)
        length = np.maximum.outer(boxes[:, 2:].max(axis=1), others[:, 2:].max(axis=1))
        close = (1 - apart / (REACH * length)).clip(0)
        areas, other_areas = (np.array([s.area for s in segments], float) for segments in (new, old))
        alike = np.minimum.outer(areas, other_areas) / np.maximum.outer(areas, other_areas)
        scores = same_class * (overlap + close * alike)
        return scores + (UNIQUE * same_id if self._unique else 0.25 * same_class * same_id * close)

    def _track_of_stuff(self, segment: Segment) -> int:
        if segment.category_id not in self._stuff:
            self._stuff[segment.category_id] = self._new_track()
        return self._stuff[segment.category_id]

    def _new_track(self) -> int:
        self._tracks += 1
        return self._tracks


def intersection_over_union(
    one: Panoptic, segments: Sequence[Segment], two: Panoptic, others: Sequence[Segment]
) -> np.ndarray:
    """IoU of segments of two segmentations of one size: float `[segments, others]`."""
    rows, columns = ({segment.id: k for k, segment in enumerate(part)} for part in (segments, others))
    pairs, values = pairwise_iou(Runs.encode(one.segmentation), Runs.encode(two.segmentation))
    result = np.zeros((len(rows), len(columns)))
    for (i, j), value in zip(pairs.T.tolist(), values.tolist(), strict=True):
        if i in rows and j in columns:
            result[rows[i], columns[j]] = value
    return result


def most_frequent(panoptic: Panoptic, values: np.ndarray) -> dict[int, int]:
    """The value that most pixels of each segment have, of integers ≥ 0 `[..., h, w]`; ties go to the smallest."""
    repeated = np.tile(panoptic.segmentation, (values.size // panoptic.segmentation.size, 1))
    pairs, pixels = shared_pixels(Runs.encode(repeated), Runs.encode(values.reshape(repeated.shape)))
    most: dict[int, tuple[int, int]] = {}
    for (segment, value), count in zip(pairs.T.tolist(), pixels.tolist(), strict=True):
        most[segment] = max(most.get(segment, (0, 0)), (count, -value))
    return {segment.id: -most[segment.id][1] for segment in panoptic.segments}


def _centres(boxes: np.ndarray) -> np.ndarray:
    """`[n, 4]` x, y, width, height → `[n, 2]`."""
    return boxes[:, :2] + boxes[:, 2:] / 2
