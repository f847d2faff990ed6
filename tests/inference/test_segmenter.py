import gc
import json
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage
from torch import Tensor

from pix2seqd.checkpoint import Checkpoint, save_pretrained
from pix2seqd.config import DataConfig, InferConfig, ModelConfig
from pix2seqd.files import InputError
from pix2seqd.images.familiarity import Familiarity
from pix2seqd.inference.consensus import consensus
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy
from pix2seqd.segmenter import Segmenter

CAT, LAWN, DOG = 1, 2, 3
TAXONOMY = Taxonomy.from_coco(
    [{"id": 7, "name": "cat"}, {"id": 4, "name": "lawn", "isthing": 0}, {"id": 9, "name": "dog"}]
)
TILE = DataConfig(size=(32, 32), layout="tile", overlap=12, ids="reused")
SIZES = [(1, 1), (2, 1000), (70, 1), (20, 31), (32, 32), (33, 32), (32, 33), (64, 97), (75, 110)]


@pytest.fixture
def make(tiny, build) -> Callable[..., Segmenter]:
    """A segmenter of a random model, on the CPU in float32."""

    def segmenter(
        data: DataConfig, model: ModelConfig = tiny, taxonomy: Taxonomy = TAXONOMY, input_scale: int = 1
    ) -> Segmenter:
        infer = InferConfig(steps=2, td=1.0, min_pixels=0, input_scale=input_scale)
        return Segmenter(Checkpoint(build(model), taxonomy, data, infer), "cpu", "float32")

    return segmenter


@pytest.fixture
def reading(make, tiny, answer_with) -> Callable[..., Segmenter]:
    """A segmenter whose model reads class and id from red and green of the image."""

    def segmenter(data: DataConfig, stride: int = 1, input_scale: int = 1) -> Segmenter:
        result = make(data, tiny.replace(mask={"stride": stride}), input_scale=input_scale)
        height, width = (side * input_scale for side in data.size)

        def infer(images: Tensor, noise: Tensor, steps: int, td: float) -> Tensor:
            assert images.shape[1] == 3 and noise.shape[1] == 5
            assert images.shape[2:] == tuple(side * stride for side in noise.shape[2:])
            if data.layout == "resize":
                assert images.shape[2:] == (height, width)
            for side, whole in zip(images.shape[2:], (height, width), strict=True):
                assert side <= 1.25 * whole and side % (whole // 4) == 0
            masks = (images[:, :2, ::stride, ::stride] * 255).round().long()
            return torch.where(masks[:, :1] > DOG, torch.tensor([[[DOG]], [[1]]]), masks)  # the padding, which is grey

        result.perfect = infer
        answer_with(result.model, infer)
        return result

    return segmenter


def discs(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Class and id, int64 `[2, h, w]`: discs that do not touch on a lawn, in rows of 14 pixels."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    mask = np.stack([np.full((height, width), LAWN), np.zeros((height, width), int)])
    for number, (top, left) in enumerate(product(range(0, height, 14), range(0, width, 14))):
        radius = rng.uniform(2, 6)
        inside = (rows - top - 7 + rng.uniform(-0.5, 0.5)) ** 2 + (columns - left - 7) ** 2 <= radius**2
        mask[:, inside] = [[rng.choice([CAT, DOG])], [number % 7 + 1]]
    return mask


def image_of(mask: np.ndarray) -> np.ndarray:
    return np.stack([*mask, np.zeros_like(mask[0])], axis=-1).astype(np.uint8)


def partition(labels: np.ndarray) -> np.ndarray:
    """The segments numbered in the order of their first pixels: equal partitions are equal arrays."""
    _, first, dense = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[dense].reshape(labels.shape)


def components(mask: np.ndarray) -> np.ndarray:
    """The segments that a mask of reused ids means, `[h, w]`."""
    labels = np.where(mask[0] == LAWN, 1, 0)
    for value in np.unique(mask[0] * 1000 + mask[1]):
        if value // 1000 in (CAT, DOG):
            found = np.asarray(ndimage.label(mask[0] * 1000 + mask[1] == value)[0])
            labels = np.where(found, found + labels.max(), labels)
    return labels


def check_structure(panoptic: Panoptic, size: tuple[int, int]) -> None:
    """Properties of every result of any model."""
    assert panoptic.segmentation.shape == size
    assert panoptic.segmentation.dtype == np.int32
    ids = [segment.id for segment in panoptic.segments]
    assert ids == list(range(1, len(ids) + 1))
    assert set(np.unique(panoptic.segmentation).tolist()) <= {0, *ids}
    assert all(segment.area == (panoptic.segmentation == segment.id).sum() for segment in panoptic.segments)
    stuff = [segment.category_id for segment in panoptic.segments if not segment.isthing]
    assert len(stuff) == len(set(stuff))


def same(one: Panoptic, two: Panoptic) -> bool:
    return np.array_equal(one.segmentation, two.segmentation) and one.segments == two.segments


# Geometry


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_image_tiles_give_every_pixel_its_segment(reading, size: tuple[int, int], stride: int):
    height, width = size
    small = discs(-(-height // stride), -(-width // stride))
    mask = small.repeat(stride, 1).repeat(stride, 2)[:, :height, :width]
    found = reading(TILE, stride).image(image_of(mask))
    check_structure(found, size)
    assert np.array_equal(found.class_map(), mask[0])
    assert np.array_equal(partition(found.segmentation), partition(components(mask)))


@pytest.mark.parametrize("data", [TILE, DataConfig(size=(32, 32), ids="reused")])
def test_image_input_scale_2(reading, data: DataConfig):
    mask = discs(64, 64)  # two training inputs a side: the larger input shows it unscaled
    found = reading(data, stride=2, input_scale=2).image(image_of(mask[:, ::2, ::2].repeat(2, 1).repeat(2, 2)))
    assert np.array_equal(found.class_map(), mask[0, ::2, ::2].repeat(2, 0).repeat(2, 1))


def test_call_equals_image(reading):
    segmenter, image = reading(TILE), image_of(discs(40, 50))
    found, expected = segmenter(image, seed=3), segmenter.image(image, seed=3)
    assert np.array_equal(found.segmentation, expected.segmentation)
    assert found.segments == expected.segments


def test_image_tiles_without_overlap(reading):
    mask = discs(75, 110)
    found = reading(TILE.replace(overlap=0)).image(image_of(mask))
    assert np.array_equal(found.class_map(), mask[0])


def test_image_tiles_with_unique_ids_are_joined(reading):
    mask = discs(12, 60)
    mask[1] = components(mask)  # id 1 is that of the lawn and of the padding
    found = reading(TILE.replace(ids="unique")).image(image_of(mask))
    assert np.array_equal(found.class_map(), mask[0])
    assert np.array_equal(partition(found.segmentation), partition(components(mask)))


@pytest.mark.parametrize("zoom", [0.5, 1.7, 2.0])
@pytest.mark.parametrize("stride", [1, 2])
def test_image_tiles_at_another_zoom(reading, answer_with, zoom: float, stride: int):
    mask = np.full((2, 91, 120), LAWN)
    rows, columns = np.mgrid[:91, :120]
    centres = [(y, x) for y in (12, 45, 78) for x in (12, 44, 76, 107)]
    for y, x in centres:
        mask[:, (rows - y) ** 2 + (columns - x) ** 2 <= 81] = CAT
    segmenter = reading(TILE.replace(zoom=zoom, overlap=16), stride)

    def infer(images: Tensor, *_: object) -> Tensor:
        lawn = F.avg_pool2d(images[:, 0], stride) * 255 > 1.5
        return torch.stack([torch.where(lawn, LAWN, CAT), torch.where(lawn, 0, 1)], 1)

    answer_with(segmenter.model, infer)
    found = segmenter.image(image_of(mask), min_pixels=16)
    check_structure(found, (91, 120))
    cats = [found.segmentation == segment.id for segment in found.segments if segment.isthing]
    assert len(cats) == len(centres)
    for cat in cats:
        y, x = ndimage.center_of_mass(cat)
        assert min(max(abs(y - v), abs(x - u)) for v, u in centres) < 0.75 * max(1, stride / zoom)
    assert (found.class_map() == mask[0]).mean() > 1 - 0.02 * max(1, stride / zoom)


def test_image_tiles_pixel_comes_from_the_deepest_window(reading, answer_with):
    mask = discs(40, 100)
    segmenter = reading(TILE)
    perfect = segmenter.perfect

    def infer(*args: Tensor) -> Tensor:
        masks = perfect(*args)
        masks[..., :6] = masks[..., -6:] = DOG
        return masks

    answer_with(segmenter.model, infer)
    found = segmenter.image(image_of(mask)).class_map()
    assert np.array_equal(found[:, 6:-6], mask[0][:, 6:-6])


def test_image_min_pixels_counts_image_pixels(reading):
    mask = np.full((2, 48, 48), LAWN)
    mask[:, 4:8, 4:8] = CAT  # 16 pixels, 4 of the mask
    mask[:, 20:28, 20:28] = CAT
    segmenter = reading(TILE, 2)
    assert [s.area for s in segmenter.image(image_of(mask), min_pixels=16).segments if s.isthing] == [16, 64]
    cleaned = segmenter.image(image_of(mask), min_pixels=17)
    assert [s.area for s in cleaned.segments if s.isthing] == [64]
    assert (cleaned.segmentation > 0).all(), "the lawn fills the gap"


# The official path from mask to image


def official(mask: np.ndarray, size: tuple[int, int], padded: tuple[int, int], min_pixels: int) -> np.ndarray:
    """Class and id at the image's size: nearest to the padded image, crop, nearest to the image, vote."""

    def nearest(values: Tensor, shape: tuple[int, int]) -> Tensor:
        return F.interpolate(values[None].double(), shape, mode="nearest-exact")[0].long()

    ratio = min(padded[0] / size[0], padded[1] / size[1])
    height, width = (max(round(n * ratio), 1) for n in size)
    classes, ids = nearest(nearest(torch.from_numpy(mask), padded)[:, :height, :width], size).numpy()
    result = np.zeros((2, *size), np.int64)
    for identity in set(ids.ravel().tolist()) - {0}:
        inside = ids == identity
        winner = int(np.bincount(classes[inside]).argmax())
        if winner and inside.sum() >= min_pixels:
            result[:, inside] = [[winner], [0 if winner == LAWN else identity]]
    return result


@pytest.mark.parametrize("size", [(1, 1), (3, 900), (37, 61), (48, 32), (31, 32), (131, 67), (200, 199)])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_image_resize_layout_equals_the_official_path(make, tiny, answer_with, size: tuple[int, int], stride: int):
    segmenter = make(DataConfig(size=(32, 48)), tiny.replace(mask={"stride": stride}))
    mask = np.random.default_rng(0).integers(0, [[[4]], [[8]]], (2, 32 // stride, 48 // stride))
    answer_with(segmenter.model, lambda *_: torch.from_numpy(mask)[None])
    found = segmenter.image(np.zeros((*size, 3), np.uint8), min_pixels=80)
    check_structure(found, size)
    expected = official(mask, size, (32, 48), 80)
    assert np.array_equal(found.class_map(), expected[0])
    assert np.array_equal(partition(found.segmentation), partition(expected[0] * 1000 + expected[1]))


# Scores, filters and outlines


def test_image_scores_are_those_of_the_analog_bits(make, tiny, answer_with):
    """Class and id of a thing, the class of stuff; void has none."""
    segmenter = make(DataConfig(size=(32, 32), ids="reused"), tiny.replace(mask={"stride": 1}))
    scale = segmenter.model.config.mask.scale
    mask = torch.zeros(1, 5, 32, 32)  # bits of the class, then of the id; 0 is off
    mask[:] = -scale
    mask[:, 0, :16], mask[:, 2, :16] = 0.5 * scale, 0.6 * scale  # cat 1
    mask[:, 1, 16:24], mask[:, 3, 16:24] = scale, 0.1 * scale  # lawn, whose id does not count
    bits = segmenter.model.to_masks
    answer_with(segmenter.model, lambda *_: mask)
    segmenter.model.to_masks = bits  # type: ignore[method-assign]
    cat, lawn = segmenter.image(np.zeros((32, 32, 3), np.uint8)).segments
    assert (cat.name, cat.score) == ("cat", pytest.approx(0.75 * 0.8, abs=0.005))
    assert (lawn.name, lawn.score) == ("lawn", 1)


@pytest.mark.parametrize("data", [TILE, DataConfig(size=(32, 48), ids="reused")])
@pytest.mark.parametrize("consensus_of", [1, 3])
def test_min_score_and_classes_turn_other_segments_to_void(make, data: DataConfig, consensus_of: int):
    segmenter = make(data)
    image = np.random.default_rng(3).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    how = {"seed": 2, "consensus": consensus_of}
    whole = segmenter.image(image, **how)
    scores = sorted(segment.score for segment in whole.segments)
    assert 0 < scores[0] < scores[-1] <= 1
    middle, name = scores[len(scores) // 2], whole.segments[0].name
    for options in ({"min_score": middle}, {"classes": [name]}, {"min_score": middle, "classes": {name, "dog"}}):
        wanted = whole.select(
            lambda s, o=options: s.score >= o.get("min_score", 0) and s.name in o.get("classes", [s.name])
        )
        assert len(wanted.segments) < len(whole.segments)
        assert same(segmenter.image(image, **how, **options), wanted)
        assert same([*segmenter.progress(image, **how, **options)][-1][1], wanted)
        (alone,) = segmenter.samples(image, 1, seed=2, **options)
        assert consensus_of == 3 or same(alone, wanted)
    assert same(segmenter.image(image, **how, classes="cat"), segmenter.image(image, **how, classes=["cat"]))


def test_min_score_keeps_hints_without_a_score(make):
    segmenter = make(TILE)
    image, labels = np.zeros((40, 50, 3), np.uint8), np.zeros((40, 50), int)
    labels[:9], labels[30:, :20] = 3, 5
    hints = Panoptic.from_segmentation(labels, {3: CAT, 5: DOG}, TAXONOMY, scores={5: 0.25})
    found = {segment.id: segment for segment in segmenter.image(image, hints=hints).segments}
    assert (found[3].score, found[5].score) == (None, 0.25)
    assert all(0 < segment.score <= 1 for number, segment in found.items() if number not in (3, 5))
    assert [s.id for s in segmenter.image(image, hints=hints, min_score=1).segments] == [3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["cat", "Dog"]}, r"no class 'Dog'; did you mean 'dog'\? known: cat, lawn, dog"),
        ({"min_score": 1.01}, "from 0 to 1"),
        ({"min_score": float("nan")}, "from 0 to 1"),
    ],
)
def test_unknown_class_or_score_out_of_range(make, options, message):
    segmenter, image = make(TILE), np.zeros((8, 8, 3), np.uint8)
    calls = (segmenter.image, lambda *a, **o: next(segmenter.video([image], **o)), segmenter.progress)
    for call in calls:
        with pytest.raises(InputError, match=message):
            call(image, **options)


@pytest.mark.parametrize("data", [TILE.replace(zoom=0.25), DataConfig(size=(32, 32), ids="unique")])
def test_smooth_outlines_of_a_large_disc(reading, data: DataConfig):
    at = np.arange(128) - 63.5
    inside = at[:, None] ** 2 + at**2 < 50**2
    image = image_of(np.where(inside, [[[CAT]], [[1]]], [[[LAWN]], [[2]]]))
    segmenter = reading(data)
    segmenter.tiling.resize = (
        lambda *_, resize=segmenter.tiling.resize: replace(  # no colours between the classes
            resize(image), pixels=torch.from_numpy(image[2::4, 2::4].transpose(2, 0, 1) / 255).float()
        )
    )
    blocks, smooth = (segmenter.image(image, smooth=smooth) for smooth in (False, True))
    for found in (blocks, smooth):
        check_structure(found, (128, 128))
        assert {segment.name for segment in found.segments} == {"cat", "lawn"}
    wrong = [((found.class_map() == CAT) != inside).sum() for found in (blocks, smooth)]
    assert wrong[1] < 0.8 * wrong[0]
    again = segmenter.image(image, smooth=True, min_pixels=8200)
    assert [segment.name for segment in again.segments] == ["lawn"]
    assert (again.segmentation > 0).all() == (data.ids == "reused"), "filled, or void"


# Every model


LAYOUTS = [
    DataConfig(size=(32, 32), ids="unique"),
    DataConfig(size=(32, 48), ids="reused", normalize="percentile"),
    TILE,
    TILE.replace(zoom=2.5),
    TILE.replace(ids="unique", zoom=0.7, normalize="percentile"),
]


@pytest.mark.parametrize("data", LAYOUTS)
@pytest.mark.parametrize("size", [(1, 1), (2, 70), (33, 20)])
def test_image_result_has_the_size_of_the_image(make, data: DataConfig, size: tuple[int, int]):
    one = Taxonomy.from_coco([{"id": 5, "name": "cat"}])  # fewer classes than the model has
    noise = np.random.default_rng(1).integers(0, 256, (*size, 3)).astype(np.uint8)
    for segmenter, image in product(
        (make(data, taxonomy=taxonomy) for taxonomy in (TAXONOMY, one)), (noise, np.zeros_like(noise))
    ):
        check_structure(segmenter.image(image), size)


@pytest.fixture
def images() -> list[np.ndarray]:
    rng = np.random.default_rng(2)
    return [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for size in ((40, 40), (20, 60), (32, 32), (5, 9))]


@pytest.mark.parametrize("data", LAYOUTS[1:3])
def test_images_same_result_alone_and_in_batch(make, images, data: DataConfig):
    segmenter = make(data)
    alone = [segmenter.image(image, seed=3) for image in images]
    assert any(len(panoptic.segments) > 1 for panoptic in alone)
    for batch_size in (None, 1, 3, 16):
        together = segmenter.images(images, seed=3, batch_size=batch_size)
        assert all(same(a, b) for a, b in zip(alone, together, strict=True))
    backwards = list(segmenter.images(images[::-1], seed=3))[::-1]
    assert all(same(a, b) for a, b in zip(alone, backwards, strict=True))


def test_image_depends_on_the_seed_alone(make, images):
    segmenter = make(TILE)
    torch.manual_seed(1)
    first = segmenter.image(images[0], seed=5)
    torch.manual_seed(2)
    assert same(first, segmenter.image(images[0], seed=5))
    assert not same(first, segmenter.image(images[0], seed=6))


def test_image_options_default_to_the_checkpoint(make, images):
    segmenter = make(TILE)
    given = segmenter.image(images[0], steps=2, td=1.0, min_pixels=0)
    assert same(segmenter.image(images[0]), given)
    assert not same(segmenter.image(images[0], steps=3), given)
    things = [s for s in segmenter.image(images[0], min_pixels=30).segments if s.isthing]
    assert all(segment.area >= 30 for segment in things)
    assert len(things) < sum(segment.isthing for segment in given.segments)


def test_images_fills_batches_and_reads_lazily(reading, answer_with, images):
    segmenter = reading(DataConfig(size=(32, 32)))
    read, batches, infer = [], [], segmenter.perfect

    def sources() -> Iterator[np.ndarray]:
        for number, image in enumerate(images):
            read.append(number)
            yield image

    def counted(images: Tensor, *rest: object) -> Tensor:
        batches.append(len(images))
        return infer(images, *rest)

    answer_with(segmenter.model, counted)
    results = segmenter.images(sources(), batch_size=3)
    next(results)
    assert (read, batches) == ([0, 1, 2], [3])
    assert len(list(results)) == 3
    assert batches == [3, 1]


def test_images_unreadable_file_keeps_earlier_results(make, images):
    results = make(TILE).images([images[0], "nowhere.png", images[1]])
    assert next(results).segmentation.shape == (40, 40)
    with pytest.raises(InputError, match=r"nowhere\.png"):
        next(results)


def test_images_path_pil_and_array_give_the_same(make, images, tmp_path):
    segmenter = make(TILE)
    Image.fromarray(images[1]).save(tmp_path / "image.png")
    sources = [images[1], Image.fromarray(images[1]), tmp_path / "image.png", str(tmp_path / "image.png")]
    results = list(segmenter.images(sources))
    assert all(same(results[0], other) for other in results)


@pytest.mark.parametrize(
    "options",
    [
        {"seed": -1},
        {"seed": 2**63},
        {"steps": 0},
        {"td": -0.5},
        {"td": float("nan")},
        {"td": float("inf")},
        {"min_pixels": -1},
        {"batch_size": 0},
    ],
)
def test_images_wrong_option_is_a_one_line_error(make, images, options: dict[str, float]):
    with pytest.raises(InputError) as error:
        list(make(TILE).images(images, **options))
    assert next(iter(options)).replace("_", " ") in str(error.value).replace("_", " ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("device", ["cuda:99", "toaster"])
def test_segmenter_missing_device_is_a_one_line_error(make, device: str):
    with pytest.raises(InputError, match=rf"^no device '{device}' here .*use auto or cpu$"):
        Segmenter(make(TILE).checkpoint, device)


def test_segmenter_from_pretrained_round_trip_and_describe(make, images, tmp_path):
    segmenter = make(TILE)
    save_pretrained(segmenter.checkpoint, tmp_path / "cats")
    loaded = Segmenter.from_pretrained(tmp_path / "cats", device="cpu", dtype="float32")
    assert same(loaded.image(images[0]), segmenter.image(images[0]))
    assert loaded.taxonomy == TAXONOMY
    described = loaded.describe()
    assert json.loads(json.dumps(described)) == described, "results are found again by comparing with stored json"
    assert (described["model"], described["dtype"]) == (str(tmp_path / "cats"), "float32")
    assert (described["steps"], described["td"], described["min_pixels"]) == (2, 1.0, 0)
    assert len(described["weights"]) == 64
    bfloat16 = Segmenter.from_pretrained(tmp_path / "cats", device="cpu", dtype="bfloat16")
    assert bfloat16.describe() != described
    check_structure(bfloat16.image(images[0]), (40, 40))


def test_segmenter_bfloat16_does_not_keep_float32_weights(tiny, build):
    pretrained = Checkpoint(build(tiny), TAXONOMY, TILE, InferConfig())
    model = weakref.ref(pretrained.model)
    segmenter = Segmenter(pretrained, "cpu", "bfloat16")
    assert pretrained.model.pixel_encoder.project.weight.dtype == torch.float32
    assert segmenter.checkpoint.model.pixel_encoder.project.weight.dtype == torch.bfloat16
    del pretrained
    gc.collect()
    assert model() is None


# Consensus


def test_image_consensus_equals_images_and_progress(make, images):
    segmenter = make(TILE)
    agreed = consensus(segmenter.samples(images[0], 3, seed=4, min_pixels=5), 5)
    assert same(segmenter.image(images[0], seed=4, consensus=3, min_pixels=5), agreed)
    both = list(segmenter.images([images[1], images[0]], seed=4, consensus=3, min_pixels=5, batch_size=2))
    assert same(both[1], agreed)
    shares, shown = zip(*segmenter.progress(images[0], seed=4, consensus=3, min_pixels=5), strict=True)
    assert shares == pytest.approx((1 / 6, 1 / 3, 2 / 3, 1))
    assert same(shown[1], segmenter.image(images[0], seed=4, min_pixels=5)) and same(shown[2], shown[1])
    assert same(shown[3], agreed)


def test_image_sure_windows_take_one_step_and_one_sample(make, images, monkeypatch):
    segmenter, steps = make(TILE), []
    predict = segmenter.model.mask_decoder.predict
    monkeypatch.setattr(segmenter.model.mask_decoder, "predict", lambda *a: steps.append(len(a[0])) or predict(*a))
    single = segmenter.image(images[0], steps=1)
    windows = sum(steps)
    for sure, count in ((1e-9, 1), (1.0, 6)):
        infer = segmenter.checkpoint.infer.replace(early_exit=sure, steps=2, consensus=3)
        saving = Segmenter(replace(segmenter.checkpoint, infer=infer), "cpu", "float32")
        steps.clear()
        monkeypatch.setattr(saving.model.mask_decoder, "predict", lambda *a: steps.append(len(a[0])) or predict(*a))
        found = saving.image(images[0])
        assert sum(steps) == count * windows
        assert same(found, next(saving.images(images[:2], batch_size=3)))
        shown = [panoptic for _, panoptic in saving.progress(images[0])]
        assert len(shown) == 4 and same(shown[-1], found)
        second = saving.samples(images[0], 2)[1]
        assert same(second, saving.image(images[0], seed=1, consensus=1)), "samples stay independent"
        steps.clear()
        saving.image(images[0], steps=2)
        assert sum(steps) == 6 * windows, "steps that are asked for are taken"
        if count == 1:
            assert np.array_equal(found.segmentation, consensus([single] * 3).segmentation)


@pytest.mark.parametrize("samples_of", [3, 5])
@pytest.mark.parametrize(("layout", "early_exit"), [("resize", 0.0), ("resize", 0.3), ("tile", 0.0), ("tile", 0.3)])
def test_image_samples_of_several_scales(make, images, monkeypatch, layout: str, early_exit: float, samples_of: int):
    plain, seen = make(TILE.replace(layout=layout)), set()
    infer = plain.checkpoint.infer.replace(consensus=samples_of, sample_scales=(1, 1.5, 0.5), early_exit=early_exit)
    segmenter = Segmenter(replace(plain.checkpoint, infer=infer), "cpu", "float32")
    encoder = segmenter.model.pixel_encoder
    encode = encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda x: seen.add(tuple(x.shape[2:])) or encode(x))
    found = [segmenter.image(image) for image in images]
    assert layout == "tile" or seen == {(32, 32), (48, 48), (16, 16)}
    for size in (2, 3, 8):  # the views of an image may have another number of samples than those beside them
        assert all(map(same, found, segmenter.images(images, batch_size=size)))
        assert all(map(same, found[::-1], segmenter.images(images[::-1], batch_size=size)))
    assert same([panoptic for _, panoptic in segmenter.progress(images[0])][-1], found[0])
    seen.clear()
    samples = segmenter.samples(images[0], samples_of)
    assert layout == "tile" or seen == {(32, 32)}, "samples differ in their noise alone"
    assert all(same(one, segmenter.image(images[0], seed=k, consensus=1)) for k, one in enumerate(samples))
    seen.clear()
    next(segmenter.video(images[:1]))
    assert layout == "tile" or seen == {(32, 32)}
    assert early_exit or not same(found[0], consensus(samples))


@pytest.mark.parametrize("size", [(75, 110), (32, 32), (20, 31)])
@pytest.mark.parametrize("layout", ["resize", "tile"])
def test_image_samples_of_several_scales_show_the_same_places(
    make, tiny, answer_with, layout: str, size: tuple[int, int]
):
    segmenter = make(TILE.replace(layout=layout), tiny.replace(mask={"stride": 2}))
    infer = segmenter.checkpoint.infer.replace(consensus=3, sample_scales=(1, 1.5, 0.5))
    segmenter = Segmenter(replace(segmenter.checkpoint, infer=infer), "cpu", "float32")

    def threshold(images: Tensor, noise: Tensor, steps: int, td: float) -> Tensor:
        bright = images[:, :1, ::2, ::2] > 0.5
        return torch.cat([torch.where(bright, CAT, LAWN), bright], dim=1).float()

    answer_with(segmenter.model, threshold)
    rows, columns = np.mgrid[: size[0], : size[1]]
    disc = (rows - size[0] / 2) ** 2 + (columns - size[1] / 3) ** 2 < (min(size) / 3) ** 2
    found = segmenter.image(np.repeat(disc[..., None] * np.uint8(255), 3, axis=2))
    (cat,) = found.things
    shown = found.segmentation == cat.id
    assert (shown & disc).sum() / (shown | disc).sum() > 0.85


@pytest.mark.parametrize("scales", [(), (2, 1), (1, 0.1), (1, float("nan"))])
def test_sample_scales_out_of_range_are_an_error(scales: tuple[float, ...]):
    with pytest.raises(ValueError, match="sample_scales must be 1 and further numbers"):
        InferConfig(sample_scales=scales)


def test_image_even_consensus_is_an_error(make, images):
    segmenter = make(TILE)
    with pytest.raises(InputError, match="consensus must be 1, 3, 5"):
        segmenter.image(images[0], consensus=2)


# Familiarity


def test_ood_score_is_the_same_however_an_image_is_segmented_and_changes_no_mask(make):
    plain = make(TILE)
    image = image_of(discs(60, 50))
    size = 2 * plain.model.config.encoder.map_dim
    known = Familiarity(torch.zeros(size), torch.eye(size), 600)
    judging = Segmenter(replace(plain.checkpoint, familiarity=known), "cpu", "float32")
    before, after = plain.image(image), judging.image(image)
    assert before.ood_score is None and not before.unfamiliar
    assert np.array_equal(before.segmentation, after.segmentation)
    hints = Panoptic(np.zeros((60, 50), np.int32), (), TAXONOMY)
    others = [
        *judging.images([image, image_of(discs(20, 30)), image], batch_size=2),
        *judging.samples(image, 2),
        judging.image(image, hints=hints),
        judging.image(image, consensus=3),
        [found for _, found in judging.progress(image)][-1],
        [found for _, found in judging.progress(image, hints=hints)][-1],
        *judging.video([image, image]),
        after.renumbered().select(lambda segment: segment.isthing),
    ]
    small = others.pop(1)
    assert [other.ood_score for other in others] == pytest.approx([after.ood_score] * len(others), rel=1e-4)
    assert small.ood_score != pytest.approx(after.ood_score, rel=1e-2)
    assert after.ood_score == pytest.approx(float(judging.feature_statistics(image).square().mean().sqrt()), rel=1e-4)
    assert after.unfamiliar == (after.ood_score > 1)
    assert judging.image(image_of(discs(19, 30))).ood_score is None  # smaller than what it was trained on


def test_images_report_each_window(reading):
    told = []
    segmenter = reading(TILE)
    sources = [np.zeros((size, 40, 3), np.uint8) for size in (40, 100)]
    for _ in segmenter.images(sources, on_window=lambda done, of: told.append((done, of))):
        counts = [len(segmenter.resize(source).corners) for source in sources]
    assert told == [(done, count) for count in counts for done in range(1, count + 1)] and counts[1] > 1


def test_images_report_the_window_of_a_whole_image(reading):
    told = []
    segmenter = reading(DataConfig(size=(32, 32)))
    sources = [np.zeros((40, 40, 3), np.uint8)] * 2
    assert len(list(segmenter.images(sources, smooth=False, on_window=lambda *done: told.append(done)))) == 2
    assert told == [(1, 1)] * 2
