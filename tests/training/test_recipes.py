"""Each number of the recipes against the paper's text; every recipe in its smoke size, end to end."""

from pathlib import Path

import pytest
import torch

import pix2seqd
from pix2seqd.checkpoint import Checkpoint, from_pretrained, save_pretrained
from pix2seqd.config import AugmentConfig, Recipe
from pix2seqd.data.synthetic.shapes import TAXONOMY
from pix2seqd.files import InputError
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.segmenter import Segmenter
from pix2seqd.training.paper_recipes import PAPER_RECIPES, steps
from pix2seqd.training.recipes import RECIPES, smoke
from pix2seqd.training.train import new_model, train

# Name → image, mask (pixels a side), epochs, batch: §4.1 "Training" for the first two, §4.3 for the third.
SIZES = {"coco-256": (256, 128, 800, 512), "coco-1024": (1024, 512, 15, 16), "coco-512": (512, 256, 100, 128)}
# Name → steps, rate, warm-up steps: what the official code computes for the same stages.
OFFICIAL = {"coco-256": (184_824, 1e-4, 1155), "coco-1024": (110_895, 1e-5, 0)}


def mask_size(recipe: Recipe) -> tuple[int, ...]:
    return tuple(n // recipe.model.mask.stride for n in recipe.data.size)


@pytest.mark.parametrize("name", SIZES)
def test_coco_recipes_have_the_papers_sizes_and_epochs(name: str):
    image, mask, epochs, batch = SIZES[name]
    recipe = PAPER_RECIPES[name]
    assert recipe.data.size == (image, image) and mask_size(recipe) == (mask, mask)
    assert recipe.train.batch_size == batch
    assert recipe.train.steps * batch / 118_287 == pytest.approx(epochs, abs=batch / 118_287)
    assert recipe.train_data.endswith("@train2017") and recipe.eval_data.endswith("@val2017")


@pytest.mark.parametrize("name", OFFICIAL)
def test_coco_recipes_have_the_official_optimiser(name: str):
    train = PAPER_RECIPES[name].train
    assert (train.steps, train.lr, train.warmup_steps) == OFFICIAL[name]
    assert (train.end_lr_factor, train.weight_decay, train.clip_norm, train.ema_decay) == (0.1, 0.05, 1.0, 0.999)


def test_coco_recipes_augment_only_the_low_resolution_stage():
    low = PAPER_RECIPES["coco-256"].augment
    assert (low.jitter, low.color_jitter) == ((1.0, 3.0), 1.0), "§4.1: scale jittering of strength [1.0, 3.0]"
    assert PAPER_RECIPES["coco-1024"].augment == AugmentConfig(), "§4.1: without augmentation"


@pytest.mark.parametrize("name", PAPER_RECIPES)
def test_paper_recipes_have_the_papers_model_and_inference(name: str):
    model, infer = PAPER_RECIPES[name].model, PAPER_RECIPES[name].infer
    assert (model.mask.scale, model.loss, model.p) == (0.1, "cross_entropy", 0.2), "the best of Tables 3, 4 and 5"
    assert (model.decoder.dim, model.decoder.multipliers) == (128, (1, 1, 2, 2)), "§4.1"
    assert (model.decoder.layers, model.decoder.transformer_dim, model.encoder.dim) == (6, 512, 512), "§4.1"
    if name.startswith(("coco", "city")):
        assert (infer.steps, infer.td, infer.min_pixels) == (20, 2.0, 80), "§4.1 Inference"


def test_paper_recipes_coco_masks_without_images_and_cityscapes_mask_size():
    masks, cityscapes = PAPER_RECIPES["coco-masks"].model, PAPER_RECIPES["cityscapes"]
    assert not masks.decoder.condition_on_map and not masks.decoder.condition_on_tokens, "§4.1 unconditional"
    assert mask_size(cityscapes) == (512, 1024) and cityscapes.model.mask.classes == 20, "§1; 19 classes and void"
    assert cityscapes.train.steps == steps(100, 2975, 16) == 18_594


def test_video_recipes_have_the_papers_inference_and_official_sizes():
    davis, kitti = PAPER_RECIPES["davis"], PAPER_RECIPES["kitti-step"]
    infer = davis.infer
    assert (infer.first_steps, infer.steps, infer.td, infer.min_pixels) == (32, 8, 1.0, 10), "§4.1 Inference"
    assert davis.data.size == (512, 1024) and mask_size(davis) == (256, 512)
    assert kitti.data.size == (384, 1248) and mask_size(kitti) == (192, 624)
    assert davis.model.mask.max_instances == 1 + 15 + 1 and kitti.model.mask.max_instances == 256, (
        "here the background has an id"
    )
    for recipe in (davis, kitti):
        train = recipe.train
        assert (train.steps, train.batch_size, train.lr, train.end_lr_factor, train.ema_decay) == (
            50_000, 32, 1e-5, 1.0, 0.99,
        )  # fmt: skip
        assert recipe.model.decoder.past_frames == 2 and recipe.clips.past_dropout == 0.2, "§3.4; official"
        assert 0.1 <= recipe.clips.first_frame <= 0.2, "ours"
        assert recipe.augment.jitter == (1.0, 1.0) and recipe.augment.color_jitter == 0


def shapes(model: Pix2SeqD) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def test_paper_recipes_have_table_1_parameters_and_matching_shapes():
    assert RECIPES["coco-256"].model == RECIPES["coco-1024"].model == RECIPES["coco-512"].model
    with torch.device("meta"):
        model, masks, cityscapes = (Pix2SeqD(RECIPES[name].model) for name in ("coco-1024", "coco-masks", "cityscapes"))
    assert sum(p.numel() for p in model.parameters()) == 94_492_480
    first, masks = shapes(model), shapes(masks)
    assert first == shapes(cityscapes)
    missing = first.keys() - masks.keys()
    assert missing and all(".cross_" in name for name in missing), "only the cross-attention starts from random weights"
    assert masks.items() <= first.items()


@pytest.mark.parametrize("name", RECIPES)
def test_smoke_every_recipe_trains_and_loads(name: str, tmp_path: Path):
    recipe = smoke(RECIPES[name])
    assert recipe.model.mask.bits[1] == RECIPES[name].model.mask.bits[1]
    train(recipe, tmp_path)
    segmenter = Segmenter.from_pretrained(tmp_path / "model", device="cpu")
    assert segmenter.model.config == recipe.model
    assert segmenter.taxonomy == TAXONOMY


def differing(one: Pix2SeqD, other: Pix2SeqD) -> set[str]:
    """Names of tensors that are in both and not equal."""
    first, second = one.state_dict(), other.state_dict()
    return {name for name in first.keys() & second.keys() if not torch.equal(first[name], second[name])}


def test_new_model_stage_starts_from_the_stage_before(tmp_path: Path):
    def stage(name: str, init: Path) -> Pix2SeqD:
        recipe = smoke(RECIPES[name])
        recipe = recipe.replace(init=str(init), eval_data="", train=recipe.train.replace(steps=1, warmup_steps=0))
        if name == "cityscapes":  # twice as large as the stage before, as 1024 is to 256
            recipe = recipe.replace(data=recipe.data.replace(size=(128, 128)))
        before, start = from_pretrained(init).model, new_model(recipe)
        assert not differing(before, start)
        train(recipe, tmp_path / name)
        return before

    encoder = smoke(RECIPES["coco-256"])
    data, infer = encoder.data, encoder.infer
    save_pretrained(Checkpoint(Pix2SeqD(encoder.model), TAXONOMY, data, infer), tmp_path / "encoder")
    first = stage("coco-masks", tmp_path / "encoder")
    masks = stage("coco-256", tmp_path / "coco-masks" / "model")
    stage("cityscapes", tmp_path / "coco-256" / "model")
    changed = differing(first, masks)
    assert changed and all(name.startswith("mask_decoder.") for name in changed), (
        "this stage does not train the encoder"
    )


def test_new_model_reads_a_tensorflow_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from pix2seqd.interop import official

    recipe = smoke(RECIPES["coco-256"])
    monkeypatch.setattr(
        official, "read_tensorflow_checkpoint", lambda folder: {"rest/stem_ln/gamma:0": torch.full((32,), 7)}
    )
    (tmp_path / "checkpoint").write_text("")
    model = new_model(recipe.replace(init=str(tmp_path)))
    assert (model.pixel_encoder.project_norm.weight == 7).all()


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_size_fits_the_strides(name: str):
    model, size = RECIPES[name].model, RECIPES[name].data.size
    coarsest = 2 ** (len(model.encoder.backbone["depths"]) + (model.encoder.stem_pool != "none"))
    cell = model.mask.stride * model.decoder.patch * 2 ** (len(model.decoder.multipliers) - 1)
    assert all(n % coarsest == 0 and n % cell == 0 for n in size)


def test_train_public_recipe_or_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    recipe = smoke(pix2seqd.RECIPES["shapes"])
    recipe = recipe.replace(train=recipe.train.replace(steps=1), eval_data="")
    monkeypatch.setitem(pix2seqd.RECIPES, "short", recipe)
    one, other = (pix2seqd.train(given, out=tmp_path / str(n)).model for n, given in enumerate((recipe, "short")))
    assert not differing(one, other)
    with pytest.raises(InputError, match="there is no recipe 'shorter'; give one of nuclei, "):
        pix2seqd.train("shorter", out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
