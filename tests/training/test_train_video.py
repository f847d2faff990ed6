"""Learning to track: ids come from the past masks, or there is no telling which is which."""

import numpy as np
import pytest
import torch

from pix2seqd.config import AugmentConfig, ClipsConfig, DataConfig, InferConfig, ModelConfig, Recipe
from pix2seqd.data.clip_examples import clip_example
from pix2seqd.data.sample import Clip, Sample
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Category, Taxonomy
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.training import rollouts as module
from pix2seqd.training.recipes import RECIPES
from pix2seqd.training.rollouts import own_predictions

TAXONOMY = Taxonomy((Category(1, "cell", True, (9, 9, 9)), Category(2, "ground", False, (0, 0, 0))))


@pytest.fixture
def recipe(tiny: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr("pix2seqd.data.ids.ID_DISTANCE", 20)  # the two cells are neighbours
    model = tiny.replace(
        decoder={"past_frames": 1, "normalize_noisy": True, "bit_logits": True},
        mask={"stride": 1, "bits": (2, 2), "max_instances": 3},
    )
    return Recipe(
        model=model.replace(mask={"scale": 0.3}),
        data=DataConfig(size=(16, 16), ids="reused"),
        infer=InferConfig(steps=2),
    )


def two_cells() -> Clip:
    """Two equal squares that move a little."""
    frames = []
    for t in range(2):
        labels = np.ones((16, 16), int)
        labels[2 + t : 7 + t, 3:8], labels[9 + t : 14 + t, 9:14] = 2, 3
        image = np.where(labels > 1, 220, 20).astype(np.uint8)[..., None].repeat(3, axis=2)
        frames.append(Sample(f"{t}", image, Panoptic.from_segmentation(labels, {1: 2, 2: 1, 3: 1}, TAXONOMY)))
    return Clip("two", frames)


def batch_of(recipe: Recipe, size: int, seed: int) -> dict[str, torch.Tensor]:
    """Examples of the clip; the ids of the squares are random in each."""
    examples = [clip_example(two_cells(), TAXONOMY, recipe, np.random.default_rng([seed, k])) for k in range(size)]
    return {key: torch.stack([example[key] for example in examples]) for key in examples[0]}


@pytest.mark.slow
def test_train_video_model_keeps_ids_of_the_past(recipe):
    torch.manual_seed(0)
    model = Pix2SeqD(recipe.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(150):
        loss = model(**batch_of(recipe, 8, step))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    batch = batch_of(recipe, 16, 999)
    noise = torch.randn(16, recipe.model.mask.total_bits, 16, 16)
    cells = batch["masks"][:, 1] > 0

    def kept(past: torch.Tensor) -> float:
        return (model.infer(batch["images"], noise, 4, past=past) == batch["masks"])[:, 1][cells].float().mean().item()

    assert kept(batch["past"]) > 0.9
    assert kept(torch.zeros_like(batch["past"])) < 0.8


def test_own_predictions_self_past_replaces_the_last_past_mask(tiny, build):
    model = build(tiny.replace(decoder={"past_frames": 2}))
    recipe = Recipe(model=model.config, clips=ClipsConfig(self_past_prob=1.0))
    past = torch.ones(3, 2, 2, 16, 16, dtype=torch.long)
    past[1, 0] = past[2, 1] = 0  # the mask two frames before is missing, or the last one
    batch = {"images": torch.rand(3, 3, 32, 32), "past": past.clone(), "past_images": torch.rand(3, 3, 32, 32)}
    own_predictions(model, batch, recipe)
    assert set(batch) == {"images", "past"}
    assert not torch.equal(batch["past"][0, 1], past[0, 1])
    assert torch.equal(batch["past"][0, 0], past[0, 0])
    assert torch.equal(batch["past"][1:], past[1:]), "ids would not be the clip's"
    never = recipe.replace(clips={"self_past_prob": 0.0})
    batch = {"images": torch.rand(3, 3, 32, 32), "past": past.clone(), "past_images": torch.rand(3, 3, 32, 32)}
    own_predictions(model, batch, never)
    assert torch.equal(batch["past"], past)


def test_own_predictions_rollout_times_are_those_of_inference(tiny, build):
    """The step is random; an example without a past mask keeps the corrupted truth."""
    model = build(tiny.replace(decoder={"past_frames": 1}))
    recipe = Recipe(model=model.config, clips=ClipsConfig(rollout_prob=1.0), infer=InferConfig(steps=3, td=1.0))
    past = torch.ones(2, 1, 2, 16, 16, dtype=torch.long)
    past[1] = 0
    seen = {}
    for seed in range(12):
        torch.manual_seed(seed)
        batch = {"images": torch.rand(2, 3, 32, 32), "masks": past[:, 0].clone(), "past": past.clone()}
        own_predictions(model, batch, recipe)
        seen[round(float(batch["t"][0]), 3)] = batch["state"][0]
        assert batch["state"].shape == (2, model.config.mask.total_bits, 16, 16)
        assert torch.equal(batch["past"], past) and batch["t"][1] not in (1, 2 / 3, 1 / 3)
        assert torch.isfinite(model(**batch))
    assert set(seen) == {1, 0.667, 0.333}
    assert seen[1].std() > 0.9, "pure noise first"
    assert seen[0.667].std() < seen[1].std()


def test_own_predictions_rollout_states_equal_denoise(tiny, build, monkeypatch):
    """The second state of two steps with a large τ_d is the first prediction itself."""
    model = build(tiny.replace(decoder={"past_frames": 1}))
    recipe = Recipe(model=model.config, clips=ClipsConfig(rollout_prob=1.0), infer=InferConfig(steps=2, td=5.0))
    past, images = torch.ones(1, 1, 2, 16, 16, dtype=torch.long), torch.rand(1, 3, 32, 32)
    noise = torch.randn(1, model.config.mask.total_bits, 16, 16)
    monkeypatch.setattr(module, "_noise", lambda past, model: noise)
    states = {}
    for _ in range(20):
        batch = {"images": images, "masks": past[:, 0], "past": past}
        own_predictions(model, batch, recipe)
        states[float(batch["t"])] = batch["state"]
    with torch.no_grad():
        first = next(model.denoise(model.pixel_encoder(images), noise, 2, 5.0, past))
    assert set(states) == {1.0, 0.5}
    assert torch.equal(states[1.0], noise)
    assert torch.allclose(states[0.5], first, atol=1e-2) and not torch.allclose(first, torch.zeros(()), atol=1e-2)


def test_recipe_nuclei_video_continues_nuclei():
    image, video = RECIPES["nuclei"], RECIPES["nuclei-video"]
    assert video.model == image.model.replace(decoder={"past_frames": 2})
    assert (video.data, video.init) == (image.data, "nuclei")
    assert video.train_data.removeprefix("nuclei-clips:").startswith(image.train_data.removeprefix("coco:") + ":")
    assert video.augment != AugmentConfig()
