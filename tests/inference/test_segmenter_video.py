"""`Segmenter.video`."""

import itertools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pix2seqd.checkpoint import Checkpoint, inflate_for_video
from pix2seqd.config import DataConfig, InferConfig, ModelConfig
from pix2seqd.files import InputError
from pix2seqd.inference.postprocess import MAX_CONFIDENCE
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy
from pix2seqd.pixel_encoder import ImageFeatures
from pix2seqd.segmenter import Segmenter

CELL, GROUND = 1, 2
TAXONOMY = Taxonomy.from_coco([{"id": 1, "name": "cell"}, {"id": 2, "name": "ground", "isthing": 0}])
WHOLE = DataConfig(size=(32, 32))
TILES = DataConfig(size=(32, 32), layout="tile", overlap=16, ids="reused")


@pytest.fixture
def make(tiny, build) -> Callable[..., Segmenter]:
    """A segmenter of a random model, on the CPU in float32."""

    def segmenter(data: DataConfig, past_frames: int = 2, **infer: float) -> Segmenter:
        model = build(tiny.replace(decoder={"past_frames": past_frames}, mask={"stride": 1}))
        config = InferConfig(**{"steps": 1, "first_steps": 2, "min_pixels": 0, **infer})  # type: ignore[arg-type]
        return Segmenter(Checkpoint(model, TAXONOMY, data, config), "cpu", "float32")

    return segmenter


@pytest.fixture
def reading(make, monkeypatch) -> Callable[..., Segmenter]:
    """A segmenter whose model reads class and id from red and green of the image."""

    def segmenter(data: DataConfig, **how: int) -> Segmenter:
        result = make(data, **how)
        model: ModelConfig = result.model.config

        def denoise(h: ImageFeatures, state: Tensor, steps: int, *_: object, **__: object) -> Iterator[Tensor]:
            masks = (h.map[:, :2] * 255).round().long()
            masks = torch.where(masks[:, :1] > GROUND, torch.tensor([[[GROUND]], [[7]]]), masks)  # the grey padding
            planes = [masks[:, k] >> i & 1 for k, n in enumerate(model.mask.bits) for i in range(n)]
            yield from [torch.stack(planes, dim=1) * 2.0 - 1] * steps

        monkeypatch.setattr(result.model.pixel_encoder, "forward", lambda images: ImageFeatures(images, images))
        monkeypatch.setattr(result.model.mask_decoder, "prepare", lambda h, t: None)
        monkeypatch.setattr(result.model, "denoise", denoise)
        return result

    return segmenter


def noise(frames: int, size: tuple[int, int] = (32, 32)) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (frames, *size, 3), dtype=np.uint8))


def cells(*places: tuple[int, int, int], size: tuple[int, int]) -> np.ndarray:
    """An image for `reading`: squares of 8 pixels with top, left and generated id."""
    image = np.full((*size, 3), (GROUND, 7, 0), np.uint8)
    for top, left, identity in places:
        image[top : top + 8, left : left + 8] = CELL, identity, 0
    return image


def same(one: Panoptic, two: Panoptic) -> bool:
    return np.array_equal(one.segmentation, two.segmentation) and one.segments == two.segments


@pytest.mark.parametrize("data", [WHOLE, TILES])
def test_video_first_frame_of_an_inflated_model_equals_image(make, data: DataConfig):
    segmenter = make(data, past_frames=0)
    video = Segmenter(
        Checkpoint(inflate_for_video(segmenter.model), TAXONOMY, data, segmenter.checkpoint.infer), "cpu", "float32"
    )
    (first,) = video.video(noise(1, (40, 50)), seed=3)
    expected = segmenter.image(noise(1, (40, 50))[0], seed=3, steps=2)
    assert np.array_equal(first.class_map(), expected.class_map())
    assert len(first.segments) == len(expected.segments) > 0


@pytest.mark.parametrize("data", [WHOLE, TILES])
def test_video_same_seed_same_result(make, data: DataConfig):
    segmenter, frames = make(data), noise(2)
    one, two, other = (list(segmenter.video(frames, seed=seed)) for seed in (1, 1, 2))
    assert all(map(same, one, two)) and not all(map(same, one, other))


def test_video_past_masks_and_steps_change_later_frames_only(make):
    segmenter, frames = make(TILES), noise(3)
    plain = list(segmenter.video(frames))
    changed = list(segmenter.video(frames, steps=4))
    assert same(changed[0], plain[0]) and not same(changed[1], plain[1])
    assert not same(next(segmenter.video(frames, first_steps=5)), plain[0])
    # The third frame differs without the frames before.
    assert not np.array_equal(next(segmenter.video(frames[2:], first_steps=1)).segmentation, plain[2].segmentation)


def test_video_yields_each_frame_before_reading_the_next(make):
    read = []

    def camera() -> Iterator[np.ndarray]:
        for number in itertools.count():
            read.append(number)
            yield noise(1)[0]

    results = make(WHOLE).video(camera())
    for number in range(4):
        next(results)
        assert read == list(range(number + 1))


def test_video_keeps_only_the_last_frames_in_memory(make):
    alive = []
    for number, panoptic in enumerate(make(WHOLE).video(itertools.repeat(noise(1)[0]))):
        alive.append(weakref.ref(panoptic.segmentation))
        if number == 7:
            break
    del panoptic
    assert sum(reference() is not None for reference in alive) <= 2


@pytest.mark.parametrize(("data", "size"), [(WHOLE, (32, 32)), (TILES, (32, 32)), (TILES, (40, 90))])
@pytest.mark.parametrize("past_frames", [0, 2])
def test_video_moving_things_keep_their_track(reading, data: DataConfig, size, past_frames: int):
    starts = [(2, 0, 1), (14, 20, 2), (24, 4, 3)] if size == (32, 32) else [(2, 0, 1), (16, 40, 2), (30, 78, 3)]
    steps = [2, -2, 1] if size == (32, 32) else [6, 4, -5]
    frames = [
        cells(*((t, x + k * v, i) for (t, x, i), v in zip(starts, steps, strict=True)), size=size) for k in range(6)
    ]
    results = list(reading(data, past_frames=past_frames).video(frames))
    for (top, left, _), v in zip(starts, steps, strict=True):
        assert len({result.segmentation[top + 4, left + k * v + 4] for k, result in enumerate(results)}) == 1
    assert all(len(result.segments) == 4 for result in results)
    assert len({result.segmentation[-1, -1] for result in results}) == 1


def test_video_division_and_late_return_start_new_tracks(reading):
    size = (32, 32)
    one = cells((10, 10, 4), size=size)
    two = cells((10, 6, 4), (10, 15, 5), size=size)
    clip = [one, two, two, *[cells(size=size)] * 3, one]
    results = list(reading(TILES).video(clip))
    mother, daughter, other = results[0].segmentation[14, 14], *results[2].segmentation[14, [10, 19]]
    assert mother == daughter != other
    assert results[-1].segmentation[14, 14] not in (mother, other, 0)


def test_video_more_objects_than_reused_ids(reading):
    places = [(top, left, 1 + (top + left) // 10 % 2) for top in range(0, 60, 10) for left in range(0, 60, 10)]
    segmenter = reading(TILES)
    results = list(segmenter.video([cells(*places, size=(60, 60))] * 3))
    assert len(places) > segmenter.model.config.mask.max_instances
    assert all(len(result.segments) == len(places) + 1 for result in results)
    assert same(results[0], results[2])


def test_video_scale_comes_from_the_first_frame_with_a_thing(reading, monkeypatch):
    size = (64, 64)
    segmenter = reading(TILES.replace(diameter=16.0))
    scales, found = [], iter((1.0, 1.0, 3.0))  # of the frames whose scale is estimated
    scaled = segmenter.resize
    monkeypatch.setattr(segmenter, "resize", lambda *given: scales.append((image := scaled(*given)).zoom) or image)
    monkeypatch.setattr("pix2seqd.segmenter.best_zoom", lambda *_: next(found))
    frames = [cells(size=size)] * 2 + [cells((10, 10, 4), size=size), cells((10, 14, 4), size=size)]
    results = list(segmenter.video([*frames, cells(size=size)]))
    assert scales[:3] == [1, 1, 3.0] and scales[3:] == pytest.approx([3.0] * 2)
    tracks = {int(result.segmentation[14, 17]) for result in results[2:4]}
    assert len(tracks) == 1 and results[2].taxonomy.class_of(1) == CELL and not results[4].diameter()


def test_video_frame_of_another_size_is_an_error(make):
    results = make(WHOLE).video([*noise(2), noise(1, (20, 30))[0]])
    assert len([next(results), next(results)]) == 2
    with pytest.raises(InputError, match="frame 3 is 30 x 20 pixels, but those before are 32 x 32"):
        next(results)


@pytest.mark.parametrize("wrong", [{"first_steps": -1}, {"adaptive": 0.5}])
def test_video_wrong_option_is_an_error(make, wrong: dict[str, float]):
    with pytest.raises(InputError, match=next(iter(wrong))):
        next(make(WHOLE).video(noise(1), **wrong))


def test_video_options_default_to_the_checkpoint(make):
    frames = noise(3)
    given = list(make(WHOLE).video(frames, steps=2, first_steps=3))
    assert all(map(same, make(WHOLE, steps=2, first_steps=3).video(frames), given))
    assert make(WHOLE, first_steps=3).describe()["first_steps"] == 3


# Past masks


@pytest.mark.parametrize("data", [WHOLE, TILES])
@pytest.mark.parametrize(("samples", "unconditioned_share"), [(1, 0.0), (3, 0.0), (3, 0.4)])
def test_video_past_masks_are_the_earlier_results(
    make, monkeypatch, data: DataConfig, samples: int, unconditioned_share: float
):
    """All conditioned samples get the same past masks: class and track of each pixel of the last two results."""
    segmenter, given = make(data, consensus=samples, unconditioned_share=unconditioned_share), []
    infer = segmenter.model.denoise

    def denoise(
        h: object, state: Tensor, steps: int, td: float, past: Tensor | None, **others: Any
    ) -> Iterator[Tensor]:
        given.append(past)
        return infer(h, state, steps, td, past, **others)

    monkeypatch.setattr(segmenter.model, "denoise", denoise)
    results = list(segmenter.video(noise(3)))
    assert len(given) == 3 * samples and all(past is None for past in given[:samples])
    for number in (1, 2):
        pasts = given[number * samples : (number + 1) * samples]
        unconditioned = int(unconditioned_share * samples)
        assert [past is None for past in pasts] == [False] * (samples - unconditioned) + [True] * unconditioned
        pasts = pasts[: samples - unconditioned]
        assert all(torch.equal(past, pasts[0]) for past in pasts)
        classes, ids = pasts[0][0, -1].numpy()
        result = results[number - 1]
        assert np.array_equal(classes, result.class_map())
        for segment in result.segments:
            assert len(np.unique(ids[result.segmentation == segment.id])) == 1
    assert not given[samples][0, 0].any() and np.array_equal(given[2 * samples][0, 0, 0], results[0].class_map())


def test_video_first_frame_equals_image_consensus(make):
    segmenter = make(TILES)
    (first,) = segmenter.video(noise(1, (40, 50)), seed=3, consensus=3)
    expected = segmenter.image(noise(1, (40, 50))[0], seed=3, consensus=3)
    assert np.array_equal(first.class_map(), expected.class_map())
    assert len(first.segments) == len(expected.segments) > 1


def test_video_min_score_and_classes_do_not_change_the_tracks(make):
    segmenter, frames = make(TILES), noise(3, (40, 50))
    whole = list(segmenter.video(frames))
    middle = float(np.median([s.score for panoptic in whole for s in panoptic.segments]))
    for panoptic, found in zip(whole, segmenter.video(frames, min_score=middle, classes=["cell"]), strict=True):
        wanted = panoptic.select(lambda s: s.score >= middle and s.name == "cell")
        assert found.segments == wanted.segments
        assert np.array_equal(found.segmentation, wanted.segmentation)
    assert any(s.score < middle for panoptic in whole for s in panoptic.segments)


def test_to_masks_and_stitch_round_trip(make):
    for data, size in ((WHOLE, (32, 32)), (TILES, (40, 90))):
        tiling = make(data).tiling
        image = tiling.resize(np.zeros((*size, 3), np.uint8))
        labels = np.full(size, 3)
        labels[2:12, 4:20], labels[14:30, 6:30] = 1, 2
        panoptic = Panoptic.from_segmentation(labels, {1: CELL, 2: CELL, 3: GROUND}, TAXONOMY)
        masks = tiling.to_masks(panoptic, {1: 1, 2: 2, 3: 3 * (data is WHOLE)}, image)
        assert len(masks) == len(image.corners)
        sure = np.full_like(masks, MAX_CONFIDENCE)
        back = tiling.stitch(image, iter(np.concatenate([masks, sure], axis=1)), InferConfig(min_pixels=0))
        assert [segment.score for segment in back.segments] == [1] * 3
        assert np.array_equal(back.class_map(), panoptic.class_map())
        assert len(np.unique(np.stack([labels, back.segmentation]).reshape(2, -1), axis=1).T) == len(back.segments) == 3
