import numpy as np
import pytest

from pix2seqd.data.synthetic.shapes import Shapes
from pix2seqd.data.synthetic.shapes_clips import ShapesClips
from pix2seqd.files import InputError


def clips(**changes) -> ShapesClips:
    return ShapesClips(**{"length": 30, "frames": 6, "size": (40, 48), "seed": 0, **changes})


def test_shapes_clips_depend_only_on_seed_and_index():
    one, other = clips()[3], clips(length=4)[3]
    for a, b in zip(one.frames, other.frames, strict=True):
        assert (a.image == b.image).all()
        assert (a.panoptic.segmentation == b.panoptic.segmentation).all()
    assert (clips(seed=1)[3].frames[0].image != one.frames[0].image).any()


def test_shapes_clips_ids_keep_category_and_position():
    """A segment keeps its category, and in slow clips most labels are equal in consecutive frames."""
    shared = []
    for i in range(30):
        categories: dict[int, int] = {}
        before = None
        for frame in clips()[i].frames:
            labels = frame.panoptic.segmentation
            assert labels.shape == (40, 48) and labels.min() >= 1
            for segment in frame.panoptic.segments:
                assert categories.setdefault(segment.id, segment.category_id) == segment.category_id
            if before is not None:
                shared.append((labels == before).mean())
            before = labels
    assert np.median(shared) > 0.9
    assert min(shared) < 0.99, "something moves"


def test_shapes_clips_things_leave_and_enter():
    changes = [
        {s.id for s in clip.frames[0].panoptic.segments} ^ {s.id for s in clip.frames[-1].panoptic.segments}
        for clip in (clips(frames=24)[i] for i in range(30))
    ]
    assert 5 < sum(map(bool, changes)) < 30


def test_shapes_clips_only_noise_changes_without_motion():
    moving = clips().moving_scene(0)
    first = moving.at(0)
    assert first.stuff == moving.at(5).stuff
    assert first.seed != moving.at(5).seed


def test_shapes_clips_frames_slicing():
    frames = clips()[0].frames
    assert [f.name for f in frames[1:3]] == [frames[1].name, frames[2].name]
    assert frames[-1].name == frames[5].name
    with pytest.raises(IndexError):
        frames[6]


def test_shapes_clips_rejects_invalid_arguments():
    with pytest.raises(IndexError):
        clips()[30]
    with pytest.raises(InputError, match="1 or more"):
        clips(frames=0)
    assert clips().taxonomy is Shapes.taxonomy
