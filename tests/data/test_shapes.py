from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from pix2seqd.data.synthetic.drawing import MIN_AREA, drop_hidden, render
from pix2seqd.data.synthetic.scene import MAX_THINGS, STUFF, THINGS, Scene, Stuff, Thing
from pix2seqd.data.synthetic.shapes import Shapes
from pix2seqd.files import InputError

SKY = Stuff("sky", True, 0.5, 0.0, 0.0, ((0.2, 0.3, 0.8), (0.6, 0.7, 0.9), (0, 0, 0)), 1.0, 0.0, 1)
GRASS = replace(SKY, name="grass", colors=((0.1, 0.3, 0.1), (0.3, 0.7, 0.2), (0, 0, 0)), seed=2)


def thing(name: str, x: float, y: float, radius: float) -> Thing:
    return Thing(name, x, y, radius, 1.0, 0.0, ((1.0, 0.1, 0.1), (1.0, 0.1, 0.1)), "plain", 1.0)


@pytest.fixture(scope="module")
def samples():
    return list(Shapes(150, (96, 96), seed=3))


def test_shapes_depend_only_on_seed_and_index():
    for size in ((64, 64), (48, 80)):
        one, other = Shapes(9, size, seed=4), Shapes(1000, size, seed=4)
        other[0]
        assert np.array_equal(one[5].image, other[5].image)
        assert np.array_equal(one[5].panoptic.segmentation, other[5].panoptic.segmentation)
        assert one[5].name == other[5].name
        assert one.scene(5) == other.scene(5)
        assert not np.array_equal(one[5].image, one[6].image)
        assert not np.array_equal(one[5].image, Shapes(9, size, seed=5)[5].image)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (33, 57), (160, 96)])
def test_shapes_sizes(size: tuple[int, int]):
    for index in range(5):
        sample = Shapes(5, size)[index]
        assert sample.image.shape == (*size, 3)
        assert sample.image.dtype == np.uint8
        assert sample.panoptic.segmentation.shape == size
        assert sample.panoptic.segmentation.min() > 0, "no pixel is void"


def test_shapes_is_a_sequence():
    data = Shapes(3, (16, 16))
    assert len(data) == len(list(data)) == 3
    assert len({sample.name for sample in data}) == 3
    with pytest.raises(IndexError):
        data[3]


@pytest.mark.parametrize("arguments", [(0, (8, 8), 0), (5, (8, 0), 0), (5, (8, 8), -1)])
def test_shapes_rejects_invalid_arguments(arguments):
    with pytest.raises(InputError, match="1 or more"):
        Shapes(*arguments)


def test_shapes_segments_match_scene(samples):
    data = Shapes(150, (96, 96), seed=3)
    for index, sample in enumerate(samples):
        scene, segments = data.scene(index), sample.panoptic.segments
        assert [s.name for s in segments] == [layer.name for layer in (*scene.stuff, *scene.things)]
        assert [s.isthing for s in segments] == [False] * len(scene.stuff) + [True] * len(scene.things)
        assert len({s.name for s in segments if not s.isthing}) == len(scene.stuff), "one segment per stuff"
        assert min(s.area for s in segments) >= MIN_AREA * 96**2


def test_shapes_variety(samples):
    names = Counter(s.name for sample in samples for s in sample.panoptic.segments)
    assert set(names) == set(STUFF + THINGS)
    assert min(names.values()) > 50
    things = Counter(sum(s.isthing for s in sample.panoptic.segments) for sample in samples)
    assert min(things) <= 1
    assert max(things) == MAX_THINGS
    assert len({len([s for s in sample.panoptic.segments if not s.isthing]) for sample in samples}) >= 3


def test_shapes_colour_does_not_predict_class(samples):
    """A classifier by nearest mean colour is near chance on things."""
    rows = [
        (THINGS.index(s.name), sample.image[sample.panoptic.segmentation == s.id].mean(0))
        for sample in samples
        for s in sample.panoptic.segments
        if s.isthing
    ]
    labels, colors = np.array([row[0] for row in rows]), np.stack([row[1] for row in rows])
    half = len(rows) // 2
    means = np.stack([colors[:half][labels[:half] == c].mean(0) for c in range(len(THINGS))])
    guesses = np.linalg.norm(colors[half:, None] - means, axis=-1).argmin(1)
    assert (guesses == labels[half:]).mean() < 0.32


def test_drop_hidden_near_things_occlude_far_things():
    far, near = thing("disk", 0.4, 0.5, 0.2), thing("square", 0.6, 0.5, 0.2)
    for things in ((far, near), (near, far)):
        scene, labels = drop_hidden(Scene((SKY,), things), (100, 100))
        assert scene.things == things
        alone = [drop_hidden(Scene((SKY,), (t,)), (100, 100))[1] == 2 for t in things]
        assert np.array_equal(labels == 3, alone[1]), "the near thing is complete"
        assert np.array_equal(labels == 2, alone[0] & ~alone[1]), "the far thing lacks the covered pixels"
        assert (alone[0] & alone[1]).any()


def test_drop_hidden_removes_covered_thing():
    hidden, cover = thing("star", 0.5, 0.5, 0.06), thing("disk", 0.5, 0.5, 0.2)
    full, without = Scene((SKY,), (hidden, cover)), Scene((SKY,), (cover,))
    scene, labels = drop_hidden(full, (64, 64))
    assert scene == without
    assert np.unique(labels).tolist() == [1, 2]


def test_drop_hidden_removes_outside_and_tiny_layers():
    below = replace(GRASS, level=1.5)
    scene, _ = drop_hidden(
        Scene((SKY, below), (thing("disk", 3.0, 0.5, 0.1), thing("disk", 0.5, 0.5, 0.005))), (64, 64)
    )
    assert scene == Scene((SKY,), ())
    everywhere = replace(GRASS, level=-1.0)
    assert drop_hidden(Scene((SKY, everywhere), ()), (64, 64))[0] == Scene((everywhere,), ())


@pytest.mark.parametrize("name", THINGS)
def test_drop_hidden_outline_areas(name: str):
    radius, pixels = 0.3, 200
    _, labels = drop_hidden(Scene((SKY,), (thing(name, 0.5, 0.5, radius),)), (pixels, pixels))
    area = (labels == 2).sum() / pixels**2 / (np.pi * radius**2)
    center = labels[pixels // 2, pixels // 2]
    filled = {"disk": (0.98, 1.02), "square": (0.9, 0.94), "triangle": (0.67, 0.72), "star": (0.5, 0.75)}
    if name == "ring":
        assert center == 1, "the hole of a ring is background"
        low, high = 0.92, 1.0
    else:
        assert center == 2
        low, high = filled[name]
    assert low < area < high


def test_render_matches_labels_with_smooth_edges():
    scene = Scene((SKY, GRASS), (thing("disk", 0.5, 0.4, 0.2),), shadow=0.0)
    image = render(scene, (80, 80)).astype(int)
    _, labels = drop_hidden(scene, (80, 80))
    redness = image[..., 0] - image[..., 1]
    assert redness[labels == 3].mean() > 100 > 0 > redness[labels != 3].mean()
    border = (redness > 20) & (redness < 80)
    assert border.sum() > 20, "some edge pixels are mixtures"


def test_render_camera_shift():
    """A camera shift by whole pixels shifts the image."""
    stuff = SKY, replace(GRASS, slope=0.3, roughness=0.3, clutter=1.0), replace(SKY, name="brick", wavy=False, seed=3)
    scene = Scene(stuff, (replace(thing("star", 0.5, 0.6, 0.15), pattern="checks"),))
    moved = replace(scene, camera=(0.0, 16 / 64))
    before, after = (drop_hidden(s, (64, 64))[1] for s in (scene, moved))
    assert np.unique(before[16:]).tolist() == [1, 2, 3, 4]
    assert (before[16:] == after[:48]).mean() > 0.999
    difference = np.abs(render(scene, (64, 64))[16:].astype(int) - render(moved, (64, 64))[:48])
    assert difference.mean() < 1
