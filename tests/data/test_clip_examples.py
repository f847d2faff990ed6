import numpy as np
import pytest
import torch

from pix2seqd.config import AugmentConfig, DataConfig, ModelConfig, Recipe, TrainConfig
from pix2seqd.data.clip_examples import clip_example, corrupt_past, frame_size
from pix2seqd.data.ids import draw_mask
from pix2seqd.data.loader import training_loader
from pix2seqd.data.sample import Clip, Sample
from pix2seqd.data.synthetic.shapes_clips import ShapesClips
from pix2seqd.panoptic.panoptic import Panoptic


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(
        model=ModelConfig.preset("tiny").replace(decoder={"past_frames": 2}),
        data=DataConfig(size=(16, 24)),
        augment=AugmentConfig(jitter=(0.8, 1.5), color_jitter=0.5, flip="horizontal"),
        train=TrainConfig(batch_size=6, steps=5, workers=0, seed=3),
    )


CLIPS = ShapesClips(7, 3, (20, 30))


def clipped(recipe: Recipe, **changes: float) -> Recipe:
    return recipe.replace(clips=changes)


def batches(recipe: Recipe, start: int = 0, process: int = 0, processes: int = 1) -> list[dict[str, torch.Tensor]]:
    return list(training_loader(CLIPS, recipe, start, process, processes))


def test_clip_batch_shapes(recipe):
    (batch, *_) = batches(recipe)
    assert set(batch) == {"images", "masks", "past"}
    assert batch["images"].shape == (6, 3, 16, 24)
    assert batch["masks"].shape == (6, 2, 8, 12)
    assert batch["past"].shape == (6, 2, 2, 8, 12)
    assert batch["past"].dtype == torch.int64
    assert batch["past"].flatten(2).any(dim=-1).all(), "two past masks each"


def test_clip_batches_depend_only_on_seed_and_position(recipe):
    noisy = clipped(recipe, first_frame=0.3, past_dropout=0.3, past_noise=0.3)
    whole, tail = batches(noisy), batches(noisy, start=3)
    halves = [batches(noisy, process=k, processes=2) for k in (0, 1)]
    for key in ("images", "masks", "past"):
        assert all(torch.equal(a[key], b[key]) for a, b in zip(whole[3:], tail, strict=True))
        joined = [torch.cat([a[key], b[key]]) for a, b in zip(*halves, strict=True)]
        assert all(torch.equal(a[key], b) for a, b in zip(whole, joined, strict=True))


def test_clip_example_frames_share_crop_and_ids(recipe):
    """In a clip of identical frames, past masks equal the present mask."""
    for ids in ("unique", "reused"):
        still = recipe.replace(data=recipe.data.replace(ids=ids))
        frame = CLIPS[1].frames[0]
        clip = type(CLIPS[1])("still", [frame] * 3)
        example = clip_example(clip, CLIPS.taxonomy, still, np.random.default_rng(0))
        assert torch.equal(example["past"][0], example["masks"]) and torch.equal(example["past"][1], example["masks"])


def test_clip_example_first_frame_and_dropped_masks_are_void(recipe):
    def share_void(**changes: float) -> torch.Tensor:
        masks = torch.cat([b["past"] for b in batches(clipped(recipe, **changes))])
        return (~masks.flatten(2).any(dim=-1)).float().mean(dim=0)

    assert share_void(first_frame=1.0).tolist() == [1, 1]
    assert share_void(past_dropout=1.0).tolist() == [1, 1]
    assert all(0.2 < share < 0.8 for share in share_void(past_dropout=0.5).tolist())


def test_clip_example_short_clip_begins_with_void(recipe):
    clip = type(CLIPS[1])("short", list(CLIPS[1].frames[:2]))
    past = clip_example(clip, CLIPS.taxonomy, recipe, np.random.default_rng(0))["past"]
    assert not past[0].any() and past[1].any()


def test_clip_example_past_stride(recipe):
    """Each frame has a mask of one class of its own, which identifies the frame of a past mask."""
    frames = []
    for k in range(1, 8):
        panoptic = Panoptic.from_segmentation(np.full((16, 24), k), {k: k}, CLIPS.taxonomy)
        frames.append(Sample(str(k), np.zeros((16, 24, 3), np.uint8), panoptic))
    clip, faster = Clip("ticks", frames), clipped(recipe, past_stride=3)
    seen = set()
    for seed in range(60):
        example = clip_example(clip, CLIPS.taxonomy, faster, np.random.default_rng(seed))
        now = int(example["masks"][0].max())
        older, newer = (int(mask[0].max()) for mask in example["past"])
        assert older, "the clip is long enough for two past masks"
        assert now - newer == newer - older
        seen.add(now - newer)
    assert seen == {1, 2, 3}


def test_clip_example_past_images_for_self_past_prob(recipe):
    own = recipe.replace(clips={"self_past_prob": 0.5})
    assert batches(own)[0]["past_images"].shape == (6, 3, 16, 24)


def test_draw_mask_clip_reused_ids_differ_between_neighbours(monkeypatch):
    """Two squares that touch only in the second frame, and one that is far from both in all frames."""
    frames = np.ones((2, 8, 30), int)
    frames[0, 2:4, 2:4], frames[0, 2:4, 12:14], frames[:, 2:4, 26:28] = 2, 3, 4
    frames[1, 2:4, 8:10], frames[1, 2:4, 10:12] = 2, 3
    classes = {1: 1, 2: 5, 3: 5, 4: 5}  # grass and disks
    config = DataConfig(ids="reused")
    monkeypatch.setattr("pix2seqd.data.ids.ID_DISTANCE", 2)
    for seed in range(20):
        mask, instances = draw_mask(frames, classes, CLIPS.taxonomy, config, 3, np.random.default_rng(seed))
        assert mask.shape == (2, 2, 8, 30) and instances.shape == (2, 8, 30)
        ids = {k: set(mask[:, 1][frames == k].tolist()) for k in (2, 3, 4)}
        assert all(len(found) == 1 for found in ids.values()), "an id is the same in both frames"
        assert ids[2] != ids[3]


def test_corrupt_past_amount_of_errors():
    mask = np.zeros((2, 32, 32), np.int64)
    mask[0] = 2
    instances = np.ones((32, 32), np.int64)
    for k in range(16):
        box = np.s_[8 * (k // 4) + 1 : 8 * (k // 4) + 6, 8 * (k % 4) + 1 : 8 * (k % 4) + 6]
        mask[0][box], mask[1][box], instances[box] = 1, k + 1, k + 2
    rng = np.random.default_rng(0)
    moved, changed = (
        np.mean([(corrupt_past(mask, instances, p, rng) != mask).any(0).mean() for _ in range(20)]) for p in (0, 0.5)
    )
    assert 0.02 < moved < 0.3, "outlines move"
    assert changed > moved + 0.05, "instances change"
    result = corrupt_past(mask, instances, 1.0, rng)
    assert ((result[0] == 2) == (result[1] == 0)).all(), "class and id belong together"


def test_frame_size_for_smallest_scale():
    tiles = DataConfig(size=(128, 96), layout="tile", zoom=2.0)
    assert frame_size(tiles, AugmentConfig(jitter=(0.5, 2.0))) == (128, 96)
    assert frame_size(tiles, AugmentConfig(jitter=(0.3, 2.0))) == (214, 160)
    assert frame_size(DataConfig(size=(128, 96)), AugmentConfig(jitter=(0.3, 2.0))) == (128, 96)
