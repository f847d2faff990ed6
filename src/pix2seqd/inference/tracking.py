"""Which segment of a frame is which of the frames before: ids that mean the same object over time (§3.4)."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from pix2seqd.panoptic.panoptic import Panoptic, Segment
from pix2seqd.panoptic.reused_ids import assign
from pix2seqd.panoptic.taxonomy import VOID

REACH = 1.5
"""How far a thing may move from one frame to the next for its reused id to be believed, in lengths of the thing."""
LEAST = 0.1
"""Segments whose score (see `Tracker`) is lower are different objects."""
MEMORY = 2
"""Frames a track outlives its last sight, unless the model remembers more."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame whose segments carry the ids of their tracks."""

    panoptic: Panoptic
    generated: dict[int, int]
    """The id under which the model knows each track: the one it gave most pixels, or was told (`Tracker.past`)."""


class Tracker:
    """Renames the segments of successive frames so that an id means the same object in all of them.

    A video model has done the work: it gives an object the id that it had in the past masks. What is left to do:
    ids that are `unique` in a frame decide alone; where they are reused, and where an object goes from one window
    to another, geometry decides with them. The score of a segment and a track of the same class is their IoU, plus,
    if the model gave them the same id, 2 (unique) or the closeness of their boxes' centres (reused): from 1 at the
    same place to 0 at `REACH`. Segments and tracks are paired for the highest sum of scores, none below `LEAST`.
    Without generated ids this is the matching by IoU that a model for images needs.

    * What finds no track, enters or was hidden for longer than the memory (the model's, at least `MEMORY` frames)
      starts a new one; ids of tracks are never used again, even if the model uses its own again.
    * What leaves and comes back within the memory carries on its track.
    * When an object divides, the part with the higher score carries on its track, and the others start new ones.
    * Stuff of a class is one track throughout.
    * Of more things than the model has ids, any number are told apart where ids are reused; where they are unique,
      those beyond share an id, and with it a segment, or are void.

    Args of the constructor:
        unique: no two things of a window share a generated id.
        memory: frames that the model remembers.
    """

    def __init__(self, unique: bool, memory: int = 0) -> None:
        self._unique = unique
        self._frames: deque[Frame] = deque(maxlen=max(memory, MEMORY))
        self._stuff: dict[int, int] = {}
        self._tracks = 0
        self._rng = np.random.default_rng(0)

    def update(self, panoptic: Panoptic, generated: np.ndarray | None = None) -> Panoptic:
        """The next frame's segments under the ids of their tracks.

        Args:
            panoptic: segmentation `[h, w]` of the size of the frames before.
            generated: the id that the model gave each pixel, 0 = none, integers `[h, w]`, or `[samples, h, w]` of
                several that were told of the same past; None: they say nothing.
        """
        ids = {segment.id: self._track_of_stuff(segment) for segment in panoptic.segments if not segment.isthing}
        given = {} if generated is None else most_frequent(panoptic, generated)
        seen: set[int] = set()
        for frame in reversed(self._frames):
            new = [segment for segment in panoptic.segments if segment.id not in ids]
            old = [track for track in frame.panoptic.segments if track.isthing and track.id not in seen]
            scores = self._scores(Frame(panoptic, given), new, frame, old)
            scores[scores < LEAST] = 0  # two pairs that do not count must not outweigh one that does
            for i, j in zip(*linear_sum_assignment(scores, maximize=True), strict=True):
                if scores[i, j] > 0:
                    ids[new[i].id] = old[j].id
            seen.update(track.id for track in old)  # known from a later frame: where it was before says nothing
        for segment in panoptic.segments:
            if segment.id not in ids:
                ids[segment.id] = self._new_track()
        result = panoptic.renumbered(ids)
        self._frames.append(Frame(result, {ids[i]: number for i, number in given.items()}))
        return result

    def past(self, ids: int, distance: float) -> list[Frame]:
        """The last frames, oldest first, as a model is to be told of them: one id per track, the same in all.

        A track keeps the id that the model knows it by, unless an older one that is told apart by its id has it: every
        other one where ids are unique, its neighbours where they are reused. Stuff has one where ids are unique only.

        Args:
            ids: the largest that the model can generate.
            distance: pixels within which things are neighbours.
        """
        known: dict[int, int] = {}
        for frame in reversed(self._frames):
            known |= frame.generated  # the oldest last: it was told, and what the model then made of it may differ
        frames = [{s.id: s.bbox for s in f.panoptic.segments if self._unique or s.isthing} for f in self._frames]
        tracks = sorted({track for boxes in frames for track in boxes})
        absent = (np.nan,) * 4
        boxes = np.array([[boxes.get(track, absent) for track in tracks] for boxes in frames])
        boxes = np.zeros((1, len(tracks), 4)) if self._unique else boxes.reshape(len(frames), -1, 4)
        wanted = [known.get(track, 0) for track in tracks]
        told = dict(zip(tracks, assign(boxes, distance, ids, self._rng, wanted).tolist(), strict=True))
        self._frames = deque((Frame(frame.panoptic, told) for frame in self._frames), self._frames.maxlen)
        return list(self._frames)

    def _scores(self, now: Frame, new: Sequence[Segment], then: Frame, old: Sequence[Segment]) -> np.ndarray:
        """float `[segments, tracks]`."""
        scores = intersection_over_union(now.panoptic, new, then.panoptic, old)
        same_class = np.equal.outer([s.category_id for s in new], [s.category_id for s in old])
        mine, theirs = (
            np.array([frame.generated.get(segment.id, 0) for segment in segments], int)
            for frame, segments in ((now, new), (then, old))
        )
        same_id = (mine[:, None] == theirs) & (mine[:, None] > 0)
        if self._unique:
            return scores * same_class + 2.0 * same_id
        boxes, others = (np.array([s.bbox for s in segments], float).reshape(-1, 4) for segments in (new, old))
        apart = np.linalg.norm(_centres(boxes)[:, None] - _centres(others), axis=-1)
        length = np.maximum.outer(boxes[:, 2:].max(axis=1), others[:, 2:].max(axis=1))
        return same_class * (scores + same_id * (1 - apart / (REACH * length)).clip(0))

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
    """Of some segments of two pictures of one size: float `[segments, others]`."""
    rows, columns = _rows(one, segments), _rows(two, others)
    shape = len(segments) + 1, len(others) + 1
    shared = np.bincount((rows * shape[1] + columns).ravel(), minlength=shape[0] * shape[1]).reshape(shape)[1:, 1:]
    areas, other_areas = (np.array([s.area for s in parts], int) for parts in (segments, others))
    return shared / (areas[:, None] + other_areas - shared)


def most_frequent(panoptic: Panoptic, values: np.ndarray) -> dict[int, int]:
    """The value that most pixels of each segment have, of integers ≥ 0 `[..., h, w]`; ties go to the smallest."""
    present = np.bincount(values.ravel()).nonzero()[0]
    dense = np.zeros(int(values.max(initial=0)) + 1, int)
    dense[present] = np.arange(len(present))
    rows = _rows(panoptic, panoptic.segments)
    shape = len(panoptic.segments) + 1, len(present)
    votes = np.bincount((rows * shape[1] + dense[values]).ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    winners = present[votes.argmax(axis=1)].tolist()
    return {segment.id: winner for segment, winner in zip(panoptic.segments, winners[1:], strict=True)}


def _rows(panoptic: Panoptic, segments: Sequence[Segment]) -> np.ndarray:
    """Position of each pixel's segment in the list, from 1; 0 = in none of them."""
    table = np.zeros(int(panoptic.segmentation.max(initial=VOID)) + 1, int)
    table[[segment.id for segment in segments]] = range(1, len(segments) + 1)
    return table[panoptic.segmentation]


def _centres(boxes: np.ndarray) -> np.ndarray:
    """`[n, 4]` x, y, width, height → `[n, 2]`."""
    return boxes[:, :2] + boxes[:, 2:] / 2
