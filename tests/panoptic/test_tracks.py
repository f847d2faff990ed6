import numpy as np
import pytest

from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy
from pix2seqd.panoptic.tracks import Tracks, centroid

TAXONOMY = Taxonomy.from_coco([{"id": 5, "name": "cell"}, {"id": 6, "name": "debris"}, {"id": 9, "name": "ground"}])
CELL, DEBRIS = 1, 2
Box = tuple[int, int, int, int] | tuple[int, int, int, int, int]
"""Top, left, height and width; perhaps the class."""


def frame(**things: Box) -> Panoptic:
    """A frame of 60 x 100 pixels with rectangles by their tracks: a is 1, b is 2, ..."""
    segmentation, classes = np.zeros((60, 100), int), {}
    for name, (top, left, height, width, *kind) in things.items():
        number = ord(name) - ord("a") + 1
        segmentation[top : top + height, left : left + width] = number
        classes[number] = kind[0] if kind else CELL
    return Panoptic.from_segmentation(segmentation, classes, TAXONOMY)


def follow(*frames: Panoptic | None, divide: bool = True) -> Tracks:
    """The tracks of a clip; None is a frame that is left out."""
    tracks = Tracks(divide)
    for number, panoptic in enumerate(frames, start=1):
        if panoptic is not None:
            places = {segment.id: centroid(panoptic, segment) for segment in panoptic.segments}
            tracks.add(number, panoptic, places, tracks.parents(number, panoptic))
    return tracks


MOTHER = frame(a=(20, 10, 10, 20))
DAUGHTERS = frame(a=(20, 8, 10, 10), b=(20, 22, 10, 10))


def test_tracks_daughter_has_her_mother_as_parent():
    tracks = follow(MOTHER, MOTHER, DAUGHTERS, DAUGHTERS)
    assert (tracks[1].parent, tracks[2].parent) == (0, 1)
    assert (tracks[2].first_frame, tracks[2].last_frame, tracks[2].seen) == (3, 4, 2)


@pytest.mark.parametrize(
    "frames",
    [
        (MOTHER, frame(a=(20, 10, 10, 20), b=(40, 40, 10, 10))),  # a new cell elsewhere
        (MOTHER, frame(a=(20, 10, 10, 18), b=(20, 28, 10, 2))),  # a speck breaks off
        (MOTHER, frame(b=(20, 8, 10, 10), c=(20, 22, 10, 10))),  # the mother's track does not go on
        (MOTHER, frame(a=(20, 8, 10, 10), b=(20, 22, 10, 10, DEBRIS))),  # of another category
        (MOTHER, frame(a=(20, 8, 10, 10), b=(20, 26, 10, 20))),  # mostly beside the mother
        (MOTHER, None, DAUGHTERS),  # nobody knows what happened in between
        (DAUGHTERS, DAUGHTERS, MOTHER, frame(a=(20, 8, 10, 10), c=(20, 22, 10, 10))),  # two touched and part again
        (frame(), MOTHER),
    ],
)
def test_tracks_other_new_tracks_have_no_parent(frames: tuple[Panoptic | None, ...]):
    assert {track.parent for track in follow(*frames).values()} == {0}


def test_tracks_depths_do_not_divide():
    assert follow(MOTHER, DAUGHTERS, divide=False)[2].parent == 0


def test_tracks_lengths_areas_and_majority_category():
    seen = frame(a=(20, 10, 10, 20))
    tracks = follow(seen, None, frame(b=(0, 0, 3, 4)), frame(a=(20, 10, 10, 20, DEBRIS)), seen)
    assert tracks[1].areas == [200, 0, 0, 200, 200] and tracks[1].seen == 3 and tracks[1].category_id == 5
    assert (tracks[1].first_frame, tracks[1].last_frame) == (1, 5)
    assert [number for number, _ in tracks.lasting(2)] == [1] and [number for number, _ in tracks.lasting(1)] == [1, 2]
    assert tracks[1].moments == pytest.approx(np.array([19.5, 24.5, (1 + 4 + 5) / 3]) * 600)


def test_centroid_equals_the_mean_of_the_pixels():
    segmentation = np.random.default_rng(0).integers(0, 3, (30, 40))
    panoptic = Panoptic.from_segmentation(segmentation, {1: CELL, 2: CELL}, TAXONOMY)
    for segment in panoptic.segments:
        rows, columns = np.nonzero(segmentation == segment.id)
        assert centroid(panoptic, segment) == pytest.approx((columns.mean(), rows.mean()))
