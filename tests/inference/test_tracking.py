import numpy as np
import pytest

from pix2seqd.inference.tracking import Tracker
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy

CELL, DEBRIS, GROUND = 1, 2, 3
TAXONOMY = Taxonomy.from_coco(
    [{"id": 5, "name": "cell"}, {"id": 6, "name": "debris"}, {"id": 9, "name": "ground", "isthing": 0}]
)
Thing = tuple[int, int, int] | tuple[int, int, int, int]
"""Top, left and generated id of a square of 10 pixels a side; perhaps its class."""


def frame(*things: Thing, ground: bool = True) -> tuple[Panoptic, np.ndarray]:
    """Segmentation 60 x 100 and generated ids; segments are numbered in the order given, the ground last."""
    segmentation = np.full((60, 100), len(things) + 1)
    generated = np.zeros((60, 100), int)
    classes = {len(things) + 1: GROUND}
    for number, (top, left, identity, *kind) in enumerate(things, start=1):
        region = np.s_[max(top, 0) : top + 10, max(left, 0) : left + 10]
        segmentation[region], generated[region] = number, identity
        classes[number] = kind[0] if kind else CELL
    if not ground:
        segmentation[segmentation == len(things) + 1] = 0
    return Panoptic.from_segmentation(segmentation, classes, TAXONOMY), generated


def track_at(panoptic: Panoptic, top: int, left: int) -> int:
    return int(panoptic.segmentation[top + 5, left + 5])


def follow(tracker: Tracker, *frames: tuple[Panoptic, np.ndarray], informed: bool = True) -> list[Panoptic]:
    return [tracker.update(panoptic, ids if informed else None) for panoptic, ids in frames]


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("informed", [True, False])
def test_tracker_slow_things_keep_their_tracks(unique: bool, informed: bool):
    frames = [frame((20, 10 + 3 * k, 7), (40 - 3 * k, 60, 4)) for k in range(6)]
    results = follow(Tracker(unique), *frames, informed=informed)
    for k, result in enumerate(results):
        assert track_at(result, 20, 10 + 3 * k) == track_at(results[0], 20, 10)
        assert track_at(result, 40 - 3 * k, 60) == track_at(results[0], 40, 60)
        ids = [segment.id for segment in result.segments]
        assert ids == sorted(set(ids)) == np.unique(result.segmentation).tolist()
        assert all(segment.area == (result.segmentation == segment.id).sum() for segment in result.segments)


@pytest.mark.parametrize("unique", [True, False])
def test_tracker_generated_ids_follow_fast_things(unique: bool):
    """Two cells in a row move on by more than half the distance between them: by place, one is its neighbour."""
    row = frame((20, 10, 1), (20, 24, 2)), frame((20, 19, 1), (20, 33, 2))
    one, two = follow(Tracker(unique), *row)
    assert track_at(two, 20, 19) == track_at(one, 20, 10)
    assert track_at(two, 20, 33) == track_at(one, 20, 24)
    one, two = follow(Tracker(unique), *row, informed=False)
    assert track_at(two, 20, 19) == track_at(one, 20, 24)


def test_tracker_things_that_no_longer_overlap_keep_their_tracks_without_ids():
    before, after = follow(
        Tracker(False), frame((20, 10, 0), (40, 60, 0)), frame((20, 21, 0), (31, 62, 0)), informed=False
    )
    assert track_at(after, 20, 21) == track_at(before, 20, 10)
    assert track_at(after, 31, 62) == track_at(before, 40, 60)


def test_tracker_of_two_places_the_thing_of_the_same_size_keeps_the_track():
    old, new = np.zeros((2, 40, 60), int)
    old[20:30, 20:30], new[20:30, 31:41], new[20:24, 12:16] = 1, 1, 2
    one = Panoptic.from_segmentation(old, {1: CELL}, TAXONOMY), old
    two = Panoptic.from_segmentation(new, {1: CELL, 2: CELL}, TAXONOMY), new
    before, after = follow(Tracker(False), one, two, informed=False)
    assert after.segmentation[25, 35] == before.segmentation[25, 25]


def test_tracker_unique_and_reused_ids():
    far_apart = frame((0, 0, 3)), frame((45, 85, 3))
    one, two = follow(Tracker(True), *far_apart)
    assert track_at(two, 45, 85) == track_at(one, 0, 0)
    one, two = follow(Tracker(False), *far_apart)
    assert track_at(two, 45, 85) != track_at(one, 0, 0)
    # A unique id has priority even over a thing that stands still; a reused id that changed is corrected.
    exchanged = frame((20, 10, 1), (20, 60, 2)), frame((20, 10, 2), (20, 60, 1))
    one, two = follow(Tracker(True), *exchanged)
    assert track_at(two, 20, 10) == track_at(one, 20, 60)
    one, two = follow(Tracker(False), *exchanged)
    assert track_at(two, 20, 10) == track_at(one, 20, 10)


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize(("gap", "memory", "returns"), [(1, 0, True), (2, 0, False), (2, 3, True), (3, 3, False)])
def test_tracker_return_within_and_after_the_memory(unique: bool, gap: int, memory: int, returns: bool):
    shown, hidden = frame((20, 10, 7), (40, 60, 4)), frame((40, 60, 4))
    results = follow(Tracker(unique, memory), shown, *[hidden] * gap, shown)
    assert (track_at(results[-1], 20, 10) == track_at(results[0], 20, 10)) is returns
    assert track_at(results[-1], 40, 60) == track_at(results[0], 40, 60)


def test_tracker_id_used_again_starts_a_new_track():
    ids = [track_at(result, 20, 10) for result in follow(Tracker(True), frame((20, 10, 7)), *[frame()] * 3)]
    assert ids[1] != ids[0]  # the ground
    results = follow(Tracker(True), frame((20, 10, 7)), *[frame()] * 2, frame((20, 70, 7)), frame((20, 10, 7)))
    tracks = [track_at(results[0], 20, 10), track_at(results[3], 20, 70), track_at(results[4], 20, 10)]
    assert tracks[0] not in tracks[1:] and tracks[1] == tracks[2]


def test_tracker_low_scores_do_not_add_up():
    """Segments 130 pixels apart (score 0.13) and, the other way round, twice 137 (0.087): only the first is enough."""
    old, new = np.zeros((2, 1, 700), int)
    old[:, 300:400], old[:, 567:667] = 1, 2
    new[:, 430:530], new[:, 163:263] = 1, 2
    one, two = (Panoptic.from_segmentation(labels, {1: CELL, 2: CELL}, TAXONOMY) for labels in (old, new))
    (before, after) = follow(Tracker(False), (one, old), (two, new), informed=False)
    assert after.segmentation[0, 430] == before.segmentation[0, 300]
    assert after.segmentation[0, 163] not in before.segmentation


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("informed", [True, False])
def test_tracker_late_thing_starts_a_new_track(unique: bool, informed: bool):
    one, two = follow(Tracker(unique), frame((20, 10, 7)), frame((40, 60, 4), (20, 10, 7)), informed=informed)
    assert track_at(two, 20, 10) == track_at(one, 20, 10)
    assert track_at(two, 40, 60) > max(segment.id for segment in one.segments)


@pytest.mark.parametrize("ids", [(1, 2), (2, 1), (1, 1), (3, 4)])
def test_tracker_division_one_daughter_keeps_the_track(ids: tuple[int, int]):
    segmentation = np.zeros((60, 100), int)
    segmentation[20:30, 10:30] = 1
    mother = Panoptic.from_segmentation(segmentation, {1: CELL}, TAXONOMY), segmentation
    one, two = follow(Tracker(False), mother, frame((20, 8, ids[0]), (20, 22, ids[1]), ground=False))
    daughters = {track_at(two, 20, 8), track_at(two, 20, 22)}
    assert len(daughters) == 2 and track_at(one, 20, 10) in daughters
    if ids[0] != ids[1] and 1 in ids:  # the daughter with the mother's id
        assert track_at(two, 20, 8 if ids[0] == 1 else 22) == track_at(one, 20, 10)


def test_tracker_more_things_than_reused_ids():
    """One generated id for all: they are tracked by position."""
    places = [(top, left) for top in (0, 15, 30, 45) for left in range(0, 90, 15)]
    frames = [frame(*((top, left + k, 1) for top, left in places)) for k in range(5)]
    results = follow(Tracker(False), *frames)
    assert len({track_at(results[0], *place) for place in places}) == len(places)
    for top, left in places:
        assert track_at(results[-1], top, left + 4) == track_at(results[0], top, left)


def test_tracker_change_of_class():
    changes = frame((20, 10, 3, CELL)), frame((20, 10, 3, DEBRIS))
    one, two = follow(Tracker(False), *changes)
    assert track_at(two, 20, 10) != track_at(one, 20, 10)
    one, two = follow(Tracker(True), *changes)
    assert track_at(two, 20, 10) == track_at(one, 20, 10)


def test_tracker_stuff_keeps_one_track():
    results = follow(Tracker(False), frame(), *[frame(ground=False)] * 5, frame((20, 10, 7)))
    assert results[-1].segmentation[0, 0] == results[0].segmentation[0, 0] != 0
    assert [len(result.segments) for result in results[1:6]] == [0] * 5


def test_tracker_keeps_only_the_frames_of_the_memory():
    tracker = Tracker(False, memory=2)
    for k in range(20):
        tracker.update(*frame((20, 10 + k % 50, 7)))
    assert len(tracker._frames) == 2


# The ids of the past masks


@pytest.mark.parametrize("unique", [True, False])
def test_tracker_past_has_the_generated_ids(unique: bool):
    tracker = Tracker(unique)
    one, two = follow(tracker, frame((20, 10, 7), (20, 40, 3)), frame((20, 12, 7), (20, 42, 3), (20, 70, 5)))
    before, now = tracker.past(15, 4)
    assert (before.panoptic, now.panoptic) == (one, two)
    expected = {track_at(two, 20, 12): 7, track_at(two, 20, 42): 3, track_at(two, 20, 70): 5}
    assert expected.items() <= now.generated.items()
    assert before.generated == now.generated


def test_tracker_past_keeps_the_first_id():
    tracker = Tracker(unique=False)
    (one,) = follow(tracker, frame((20, 10, 7)))
    for identity in (9, 9, 2):
        tracker.past(15, 4)
        (two,) = follow(tracker, frame((20, 10, identity)))
        assert track_at(two, 20, 10) == track_at(one, 20, 10)
        assert tracker.past(15, 4)[-1].generated[track_at(one, 20, 10)] == 7


@pytest.mark.parametrize("unique", [True, False])
def test_tracker_past_division_gets_two_ids(unique: bool):
    """Reused ids differ among neighbours only: the distant cell keeps the mother's id."""
    tracker = Tracker(unique)
    _, two = follow(tracker, frame((20, 10, 7)), frame((20, 8, 7), (20, 19, 7), (20, 80, 7)))
    given = tracker.past(15, 4)[-1].generated
    mother, daughter, far = (given[track_at(two, 20, left)] for left in (8, 19, 80))
    assert mother == 7 and daughter not in (0, 7)
    assert (far == 7) is not unique


def test_tracker_past_stuff_has_an_id_if_ids_are_unique():
    for unique in (True, False):
        tracker = Tracker(unique)
        (one,) = follow(tracker, frame((20, 10, 1)))
        (given,) = tracker.past(15, 4)
        assert (given.generated.get(track_at(one, 50, 90), 0) > 0) is unique
