"""`DataConfig.diameter`: images are scaled so that their things have one size."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pix2seqd.checkpoint import Checkpoint
from pix2seqd.config import AugmentConfig, DataConfig, InferConfig, ModelConfig, Recipe, TrainConfig
from pix2seqd.data.loader import TrainingExamples
from pix2seqd.data.sample import Sample
from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic, typical_diameter
from pix2seqd.panoptic.taxonomy import Taxonomy
from pix2seqd.segmenter import Segmenter

LAWN, CAT = 1, 2
TAXONOMY = Taxonomy.from_coco([{"id": 1, "name": "lawn", "isthing": 0}, {"id": 2, "name": "cat"}])
DATA = DataConfig(size=(64, 64), layout="tile", overlap=24, ids="reused", diameter=12.0)


def cats(radius: float, size: int, apart: int) -> Panoptic:
    """Discs on a lawn, in a grid."""
    rows, columns = np.mgrid[:size, :size]
    labels, classes = np.ones((size, size), np.int32), {1: LAWN}
    for y in range(apart // 2, size, apart):
        for x in range(apart // 2, size, apart):
            classes[len(classes) + 1] = CAT
            labels[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = len(classes)
    return Panoptic.from_segmentation(labels, classes, TAXONOMY)


def drawn(panoptic: Panoptic) -> np.ndarray:
    return np.where(panoptic.class_map()[..., None] == CAT, np.uint8(220), np.uint8(30)).repeat(3, axis=2)


@pytest.fixture
def segmenter(tiny, build, answer_with) -> Callable[..., Segmenter]:
    """A segmenter whose model finds bright pixels, and the list of its numbers of steps."""

    def make(data: DataConfig = DATA, **infer: float) -> tuple[Segmenter, list[int]]:
        options = InferConfig(steps=2, min_pixels=4).replace(**infer)
        pretrained = Checkpoint(build(tiny.replace(mask={"stride": 1})), TAXONOMY, data, options)
        result, steps_taken = Segmenter(pretrained, "cpu", "float32"), []

        def infer(images: Tensor, noise: Tensor, steps: int, td: float) -> Tensor:
            steps_taken.append(steps)
            bright = images[:, 0] > 0.5
            return torch.stack([torch.where(bright, CAT, LAWN), bright.long()], 1)

        answer_with(result.model, infer)
        return result, steps_taken

    return make


@pytest.fixture
def estimating(tiny, build, answer_with, monkeypatch) -> tuple[Segmenter, list[float]]:
    """A segmenter whose model finds bright pixels; the zoom of each window."""
    model = build(tiny.replace(mask={"stride": 1}))
    scaling, zooms = Segmenter(Checkpoint(model, TAXONOMY, DATA, InferConfig(steps=2)), "cpu", "float32"), []

    def infer(images: Tensor, noise: Tensor, steps: int, td: float) -> Tensor:
        bright = images[:, 0] > 0.5
        return torch.stack([torch.where(bright, CAT, LAWN), bright.long()], 1)

    def noting(image, masks):
        return estimate_scale(image, (zooms.append(image.zoom) or mask for mask in masks))

    answer_with(scaling.model, infer)
    estimate_scale = scaling.tiling.estimate_scale
    monkeypatch.setattr(scaling.tiling, "estimate_scale", noting)
    return scaling, zooms


@given(st.lists(st.integers(1, 500), min_size=1, max_size=20), st.integers(1, 9))
def test_typical_diameter_scales_and_lies_in_range(areas: list[int], factor: int):
    across = typical_diameter(areas)
    assert 2 * np.sqrt(min(areas) / np.pi) <= across <= 2 * np.sqrt(max(areas) / np.pi)
    assert typical_diameter([a * factor**2 for a in areas]) == pytest.approx(across * factor)


def test_typical_diameter_fragments_and_no_things():
    assert typical_diameter([400] * 3 + [4] * 50) == typical_diameter([400])
    assert typical_diameter([]) == 0
    assert replace(cats(5, 40, 20), segments=()).diameter() == 0


@pytest.mark.parametrize("radius", [5, 9, 16])
def test_training_examples_are_scaled_by_the_truth(radius: int):
    truth = cats(radius, 160, 40)

    class One:
        taxonomy = TAXONOMY

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Sample:
            return Sample("one", drawn(truth), truth)

    model = ModelConfig.preset("tiny").replace(mask={"stride": 1})
    recipe = Recipe(model=model, data=DATA, augment=AugmentConfig(), train=TrainConfig(workers=0))
    example = TrainingExamples(One(), recipe)[0]
    _, sizes = np.unique(example["instances"][example["masks"][0] == CAT].numpy(), return_counts=True)
    assert 2 * np.sqrt(np.max(sizes) / np.pi) == pytest.approx(12, rel=0.15)


@pytest.mark.parametrize(("own", "quick"), [(2, 1), (4, 1), (5, 5), (20, 5)], ids=str)
@pytest.mark.parametrize(("radius", "apart"), [(3, 16), (6, 20), (24, 64)])
def test_image_scale_is_estimated_first(segmenter, radius: int, apart: int, own: int, quick: int):
    truth = cats(radius, 192, apart)
    scaling, steps_taken = segmenter(steps=own)
    image = drawn(truth)
    assert scaling.resize(image).zoom == pytest.approx(12 / truth.diameter(), rel=0.2)
    steps_taken.clear()
    found = scaling.image(image, steps=3)
    assert found.segmentation.shape == (192, 192)
    assert (found.class_map() == truth.class_map()).mean() > 0.95
    assert len(found.segments) == len(truth.segments)
    assert set(steps_taken) == {quick, 3}, "estimates with one step or five, then the given steps"


@pytest.mark.parametrize(("radius", "apart", "tried"), [(3, 16, 5), (6, 20, 2), (10, 40, 1), (24, 64, 3)])
def test_image_scale_is_estimated_at_several_scales(estimating, radius: int, apart: int, tried: int):
    """The search ends at the first scale at which the things are clear and have about the size of the training."""
    truth = cats(radius, 192, apart)
    scaling, zooms = estimating
    assert scaling.resize(drawn(truth)).zoom == pytest.approx(12 / truth.diameter(), rel=0.2)
    assert len(set(zooms)) == tried, zooms


def test_image_without_things_is_tried_at_all_scales_and_keeps_its_own(estimating):
    scaling, zooms = estimating
    assert scaling.resize(np.zeros((100, 100, 3), np.uint8)).zoom == 1
    assert set(zooms) == {0.125, 0.25, 0.5, 1, 2}


def test_an_estimate_less_plausible_than_another_is_short(estimating, monkeypatch):
    """At twice the size the four windows of an estimate show nothing that was not seen before."""
    scaling, zooms = estimating
    monkeypatch.setattr("pix2seqd.inference.scale._SCALES", {1.0: 2.0, 2.0: 2.0})  # no scale is clear
    monkeypatch.setattr("pix2seqd.inference.scale._FEW", 1)
    scaling.resize(drawn(cats(6, 192, 20)))
    assert zooms.count(2) == 1 < zooms.count(1)


def test_image_given_diameter_needs_no_estimate(segmenter):
    scaling, steps_taken = segmenter()
    scaling.image(drawn(cats(12, 96, 32)), diameter=24.0)
    assert set(steps_taken) == {2}
    assert scaling.resize(drawn(cats(12, 96, 32)), 24.0).zoom == 0.5


def test_resize_empty_image_keeps_its_scale(segmenter):
    scaling, _ = segmenter()
    assert scaling.resize(np.zeros((50, 70, 3), np.uint8)).zoom == 1


def test_video_all_frames_have_the_scale_of_the_first(segmenter, monkeypatch):
    scaling, _ = segmenter()
    zooms, scaled = [], scaling.resize
    monkeypatch.setattr(scaling, "resize", lambda *given: zooms.append(scaled(*given).zoom) or scaled(*given))
    list(scaling.video([drawn(cats(radius, 96, 32)) for radius in (12, 6, 12)]))
    assert len(set(zooms)) == 1
    assert zooms[0] == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize("diameter", [1.4, 500.0])
def test_image_diameter_that_needs_another_zoom_is_an_error(segmenter, diameter: float):
    scaling, _ = segmenter()
    with pytest.raises(InputError, match=f"diameter must be from .* not {diameter:g}; scale the image"):
        scaling.image(np.zeros((20, 20, 3), np.uint8), diameter=diameter)


def test_image_diameter_without_scaling_is_an_error(segmenter):
    scaling, _ = segmenter(DATA.replace(diameter=0.0))
    with pytest.raises(InputError, match="leave diameter out"):
        scaling.image(np.zeros((20, 20, 3), np.uint8), diameter=5.0)
    with pytest.raises(ValueError, match="tile"):
        DataConfig(diameter=12.0)


@pytest.mark.parametrize(("min_share", "specks"), [(0.0, True), (0.25, False)])
@pytest.mark.parametrize("factor", [1, 2])
def test_image_min_share_drops_small_segments_at_any_scale(segmenter, min_share, specks, factor):
    """Discs of diameter 13 and one of 5, a seventh of their area, and the same image at twice the size."""
    truth = cats(6.3, 96, 24).segmentation.copy()
    truth[44:49, 44:49] = truth.max() + 1
    truth = truth.repeat(factor, 0).repeat(factor, 1)
    classes = {int(i): CAT if i > 1 else LAWN for i in np.unique(truth)}
    image = drawn(Panoptic.from_segmentation(truth, classes, TAXONOMY))
    found = segmenter(min_share=min_share)[0].image(image, diameter=13.0 * factor)
    assert sum(segment.isthing for segment in found.segments) == 16 + specks
