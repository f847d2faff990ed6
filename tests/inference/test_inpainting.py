from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pix2seqd.checkpoint import Checkpoint
from pix2seqd.config import DataConfig, InferConfig
from pix2seqd.files import InputError
from pix2seqd.inference.inpainting import NO_HINT, downsample, match_given
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy
from pix2seqd.segmenter import Segmenter

TAXONOMY = Taxonomy.from_coco(
    [{"id": 7, "name": "cat"}, {"id": 4, "name": "lawn", "isthing": 0}, {"id": 9, "name": "dog"}]
)
CAT, LAWN, DOG = 1, 2, 3
RESIZE = DataConfig(size=(32, 32))
TILE = DataConfig(size=(32, 32), layout="tile", overlap=12, ids="reused")


@pytest.fixture
def make(tiny, build) -> Callable[..., Segmenter]:
    """A segmenter of a random model, on the CPU in float32."""

    def segmenter(data: DataConfig, stride: int = 2, min_pixels: int = 0, early_exit: float = 0.0) -> Segmenter:
        infer = InferConfig(steps=3, td=1.0, min_pixels=min_pixels, early_exit=early_exit)
        model = build(tiny.replace(mask={"stride": stride}))
        return Segmenter(Checkpoint(model, TAXONOMY, data, infer), "cpu", "float32")

    return segmenter


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (47, 70, 3), np.uint8)


def strokes(shape: tuple[int, int], seed: int = 0) -> Panoptic:
    """Thin strokes of nine things, a piece of lawn and a crowd; ids are not 1..n."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for number in range(9):
        y, x = rng.integers(0, shape[0] - 1), rng.integers(0, shape[1] - 12)
        labels[y, x : x + 12] = 5 + 1000 * number
    labels[:6, :9] = 77
    labels[-3:, -4:] = 88
    classes = {5 + 1000 * number: (CAT, DOG)[number % 2] for number in range(9)} | {77: LAWN, 88: CAT}
    return Panoptic.from_segmentation(labels, classes, TAXONOMY, crowds=[88])


def same(one: Panoptic, two: Panoptic) -> bool:
    return np.array_equal(one.segmentation, two.segmentation) and one.segments == two.segments


@pytest.mark.parametrize(
    "data", [RESIZE, TILE, TILE.replace(ids="unique"), TILE.replace(zoom=1.7), RESIZE.replace(ids="reused")]
)
@pytest.mark.parametrize("stride", [1, 2])
def test_image_hints_stay(make, image, data: DataConfig, stride: int):
    hints = strokes((47, 70))
    found = make(data, stride, min_pixels=20).image(image, hints=hints)
    given = hints.segmentation > 0
    assert np.array_equal(found.segmentation[given], hints.segmentation[given])
    records = {segment.id: segment for segment in found.segments}
    for segment in hints.segments:
        kept = records[segment.id]
        assert (kept.category_id, kept.isthing, kept.iscrowd) == (segment.category_id, segment.isthing, segment.iscrowd)
    assert (found.class_map() == LAWN).sum() == sum(s.area for s in found.segments if s.category_id == 4)
    assert len([s for s in found.segments if s.category_id == 4]) == 1, "the generated lawn is the given lawn"


def test_image_hints_everywhere_are_the_result(make, image):
    hints = Panoptic.from_segmentation(np.full((47, 70), 9), {9: DOG}, TAXONOMY)
    assert same(make(TILE).image(image, hints=hints), hints)


def test_image_hints_same_seed_same_result(make, image):
    segmenter, hints = make(TILE), strokes((47, 70))
    assert same(segmenter.image(image, hints=hints, seed=4), segmenter.image(image, hints=hints, seed=4))
    assert not same(segmenter.image(image, hints=hints, seed=4), segmenter.image(image, hints=hints, seed=5))


def test_image_hints_of_wrong_size_or_categories_is_an_error(make, image):
    with pytest.raises(InputError, match=r"hints are 47 x 70 but the image is 70 x 47"):
        make(TILE).image(image, hints=strokes((70, 47)))
    other = Taxonomy.from_coco([{"id": 1, "name": "cow"}])
    hints = Panoptic.from_segmentation(np.ones((47, 70), int), {1: 1}, other)
    with pytest.raises(InputError, match="other categories"):
        make(TILE).image(image, hints=hints)


def test_progress_around_hints_ends_where_the_model_is_sure(make, image):
    segmenter = make(RESIZE, early_exit=1e-6)
    (share, _), *more = segmenter.progress(image, hints=strokes((47, 70)))
    assert share == 1 and not more, "the model is sure after the first step"


@pytest.mark.parametrize("data", [RESIZE, TILE])
@pytest.mark.parametrize("hinted", [False, True])
def test_progress_ends_with_the_result_of_image(make, image, data: DataConfig, hinted: bool):
    segmenter = make(data)
    hints = strokes((47, 70)) if hinted else None
    shares, shown = zip(*segmenter.progress(image, hints=hints, seed=2), strict=True)
    assert list(shares) == sorted(shares)
    assert shares[-1] == 1
    windows = len(segmenter.tiling.resize(image).corners)
    assert len(shares) == (3 if windows == 1 or not hinted else windows)
    assert all(panoptic.segmentation.shape == (47, 70) for panoptic in shown)
    assert same(shown[-1], segmenter.image(image, hints=hints, seed=2))


def test_progress_consensus_ends_with_the_result_of_image(make, image):
    segmenter = make(TILE)
    *_, (share, last) = segmenter.progress(image, seed=2, consensus=3)
    assert share == 1
    assert same(last, segmenter.image(image, seed=2, consensus=3))
    assert not same(last, segmenter.image(image, seed=2))


@pytest.mark.parametrize("data", [RESIZE, TILE])
def test_samples_equal_image_with_following_seeds(make, image, data: DataConfig):
    segmenter = make(data)
    samples = segmenter.samples(image, 3, seed=5)
    assert len(samples) == 3
    assert all(same(sample, segmenter.image(image, seed=5 + k)) for k, sample in enumerate(samples))
    with pytest.raises(InputError, match="1 or more, not 0"):
        segmenter.samples(image, 0)


def test_image_hints_windows_continue_finished_neighbours(make, monkeypatch):
    """A perfect model of one long thing, with a hint in a corner: every window gets the result of its neighbour."""
    segmenter = make(TILE, stride=1)
    labels = np.full((30, 100), LAWN)
    labels[10:20] = CAT
    given_hints = []

    def denoise(h, noise, steps, td, past, hints, prepared):
        mask = torch.full((1, 2, *noise.shape[2:]), 0)
        mask[:, 0], mask[:, 0, 10:20], mask[:, 1, 10:20] = LAWN, CAT, 1 + len(given_hints) % 5
        given_hints.append(hints)
        yield from [torch.where(hints >= 0, hints, mask)] * steps

    monkeypatch.setattr(segmenter.model, "denoise", denoise)
    monkeypatch.setattr(segmenter.model, "to_masks", lambda mask: mask)
    corner = np.zeros((30, 100), np.int32)
    corner[0, 0] = 1
    hints = Panoptic.from_segmentation(corner, {1: LAWN}, TAXONOMY)
    found = segmenter.image(np.zeros((30, 100, 3), np.uint8), hints=hints)
    assert np.array_equal(found.class_map(), labels)
    assert len(found.segments) == 2
    assert (given_hints[0] == NO_HINT).sum() == given_hints[0].numel() - 1
    assert all((given[0, 0, 10:20, :4] == CAT).all() for given in given_hints[1:]), (
        "the part that lies deeper in the window before"
    )
    assert all((given[:, :, :, 14:] == NO_HINT).all() for given in given_hints[1:])


# The model


def test_denoise_hints_stay_at_every_step(tiny, build):
    model = build(tiny)
    generator = torch.Generator().manual_seed(0)
    images, noise = torch.rand(2, 3, 32, 32, generator=generator), torch.randn(2, 5, 16, 16, generator=generator)
    given = torch.full((2, 2, 16, 16), NO_HINT)
    given[:, 0, :5], given[:, 1, 3:7] = 2, 6  # a class, an id, both
    h = model.pixel_encoder(images)
    for m_pred in model.denoise(h, noise, 4, hints=given):
        masks = model.to_masks(m_pred)
        assert (masks[given >= 0] == given[given >= 0]).all()
    nothing = torch.full_like(given, NO_HINT)
    *_, free = model.denoise(h, noise, 4, hints=nothing)
    *_, plain = model.denoise(h, noise, 4)
    assert torch.allclose(free, plain, atol=1e-5)
    assert not torch.equal(m_pred[:, :, 8:], plain[:, :, 8:]), "hints change the other pixels"


# Which segments are continued


def test_adopt_segment_with_two_given_things_is_split():
    found = np.ones((1, 9), int)
    given = np.array([[0, 4, 0, 0, 0, 0, 0, 6, 0]])
    labels, classes = match_given((found, {1: CAT}), given, {4: CAT, 6: CAT}, TAXONOMY)
    assert labels.tolist() in ([[4] * 4 + [i] + [6] * 4] for i in (4, 6))
    assert classes[4] == classes[6] == CAT


def test_adopt_segment_of_another_class_stays_apart():
    labels, classes = match_given((np.ones((1, 4), int), {1: DOG}), np.array([[4, 0, 0, 0]]), {4: CAT}, TAXONOMY)
    assert labels[0, 0] == 4
    assert classes[int(labels[0, 1])] == DOG


@given(
    npst.arrays(int, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.sampled_from([0, 0, 0, 3, 8])),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 3),
)
def test_downsample_keeps_every_stroke(labels, height, width, stride):
    small = downsample(labels, height, width, stride)
    assert small.shape == (-(-height // stride), -(-width // stride))
    assert set(np.unique(small).tolist()) <= set(np.unique(labels).tolist()) | {0}
    assert small.any() == labels.any()
