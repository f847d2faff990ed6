from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pix2seqd.analog_bits import bit2int, to_codes
from pix2seqd.config import DataConfig, ModelConfig, resnet_backbone
from pix2seqd.data.ids import draw_mask
from pix2seqd.data.synthetic.shapes import Shapes
from pix2seqd.diffusion import time_steps
from pix2seqd.images.resize import resize_labels
from pix2seqd.pix2seq_d import Pix2SeqD

# Size


def test_pix2seq_d_paper_preset_parameters():
    """Table 1, and its parts."""
    with torch.device("meta"):
        model = Pix2SeqD(ModelConfig.preset("paper"))
    parts = {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in (
            ("all", model),
            ("backbone", model.pixel_encoder.backbone),
            ("layer", model.pixel_encoder.layers[0]),
            ("merge", model.pixel_encoder.merge),
            ("decoder", model.mask_decoder),
        )
    }
    assert parts == {
        "all": 94_492_480,
        "backbone": 8_543_296,
        "layer": 3_152_384,
        "merge": 4_003_840,
        "decoder": 43_589_888,
    }


@pytest.mark.parametrize(("preset", "size"), [("small", (64, 96)), ("tiny", (32, 32)), ("tiny", (48, 16))])
def test_pix2seq_d_presets_train_and_infer(preset, size: tuple[int, int]):
    torch.manual_seed(0)
    config = ModelConfig.preset(preset)
    model = Pix2SeqD(config)
    images, noise = torch.rand(2, 3, *size), torch.randn(2, config.mask.total_bits, size[0] // 2, size[1] // 2)
    masks = torch.stack([torch.randint(0, n, (2, size[0] // 2, size[1] // 2)) for n in (9, 30)], dim=1)
    loss = model(images, masks)
    loss.backward()
    # The last layers start at zero: all values are equally likely.
    assert loss.item() == pytest.approx((4 + 6) / 2 * np.log(2), rel=1e-3)
    assert all(parameter.grad is not None for parameter in model.parameters())
    result = model.eval().infer(images, noise, steps=2)
    assert result.shape == masks.shape
    assert result.dtype == torch.int64
    assert (result[:, 0] < config.mask.classes).all()
    assert (result[:, 1] < config.mask.max_instances).all()


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"mask": {"bits": (3, 1), "classes": 5, "max_instances": 2}}, (16, 32)),
        ({"decoder": {"multipliers": (1, 1, 2), "res_blocks": (2, 1, 1)}}, (32, 16)),
        ({"decoder": {"multipliers": (2,), "res_blocks": (1,)}}, (16, 16)),
        ({"mask": {"stride": 4}}, (32, 48)),
        ({"decoder": {"patch": 2}, "mask": {"stride": 1}}, (16, 32)),
        ({"encoder": {"stem_pool": "none"}, "decoder": {"patch": 2}, "mask": {"stride": 1}}, (8, 16)),
        ({"encoder": {"stem_pool": "symmetric"}}, (32, 32)),
        ({"encoder": {"layers": 0}, "decoder": {"layers": 0}}, (32, 32)),
        ({"decoder": {"head": "linear"}, "loss": "l2"}, (32, 32)),
        ({"loss": "l2"}, (32, 32)),
        ({"decoder": {"condition_on_map": False}}, (32, 32)),
        ({"decoder": {"condition_on_tokens": False}}, (32, 32)),
        ({"decoder": {"past_frames": 2}}, (32, 32)),
        ({"decoder": {"bit_logits": True, "normalize_noisy": True, "patch": 2, "past_frames": 1}}, (32, 32)),
        ({"decoder": {"time_scaling": 1.0}, "mask": {"scale": 1.0}, "schedule": "sigmoid@-3,3,1", "p": 0.0}, (32, 32)),
    ],
    ids=str,
)
def test_pix2seq_d_settings(tiny, build, changes: dict[str, Any], size: tuple[int, int]):
    config = tiny.replace(**changes)
    model = build(config)
    height, width = size[0] // config.mask.stride, size[1] // config.mask.stride
    images, noise = torch.rand(2, 3, *size), torch.randn(2, config.mask.total_bits, height, width)
    masks = model.infer(images, noise, steps=3)
    assert masks.shape == (2, 2, height, width)
    (logits, *_), m_pred = model.mask_decoder(noise, model.pixel_encoder(images), torch.rand(2))
    assert m_pred.shape == noise.shape
    assert m_pred.abs().max() <= config.mask.scale * 1.001
    assert logits.shape[1] == (config.mask.total_bits if config.decoder.head == "linear" else 2 ** config.mask.bits[0])
    loss = model.train()(images, masks)
    loss.backward()
    assert loss.isfinite()


# Errors


def test_pix2seq_d_wrong_size_is_an_error(tiny, build):
    model = build(tiny)
    with pytest.raises(ValueError, match=r"multiples of 16, not \(32, 40\)"):
        model.pixel_encoder(torch.rand(1, 3, 32, 40))
    h = model.pixel_encoder(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match=r"multiples of 2, not \(16, 15\)"):
        model.mask_decoder(torch.randn(1, 5, 16, 15), h, torch.rand(1))


def test_pix2seq_d_wrong_number_of_past_masks_is_an_error(tiny, build):
    images, noise = torch.rand(1, 3, 32, 32), torch.randn(1, 5, 16, 16)
    with pytest.raises(ValueError, match="does not condition on past masks"):
        build(tiny).infer(images, noise, 1, past=torch.zeros(1, 2, 2, 16, 16).long())
    with pytest.raises(ValueError, match="conditions on 2 past masks, not 1"):
        build(tiny.replace(decoder={"past_frames": 2})).infer(
            images, noise, 1, past=torch.zeros(1, 1, 2, 16, 16).long()
        )


def test_pix2seq_d_impossible_mask_stride_is_an_error(tiny):
    with pytest.raises(ValueError, match="no backbone level of strides"):
        Pix2SeqD(tiny.replace(mask={"stride": 3}))
    with pytest.raises(ValueError, match="no backbone level of strides"):
        Pix2SeqD(tiny.replace(mask={"stride": 32}))


# Guarantees


def test_infer_same_mask_alone_and_in_batch(tiny, build):
    model = build(tiny)
    images, noise = torch.rand(5, 3, 32, 48), torch.randn(5, 5, 16, 24)
    together = model.infer(images, noise, steps=4)
    for i in range(5):
        assert torch.equal(model.infer(images[i : i + 1], noise[i : i + 1], steps=4)[0], together[i])


def test_denoise_depends_on_every_argument(tiny, build):
    model = build(tiny.replace(decoder={"past_frames": 1}))
    images, noise, past = torch.rand(1, 3, 32, 32), torch.randn(1, 5, 16, 16), torch.zeros(1, 1, 2, 16, 16).long()

    def bits(images: Tensor = images, noise: Tensor = noise, past: Tensor = past, **options: Any) -> Tensor:
        *_, m_pred = model.denoise(model.pixel_encoder(images), noise, past=past, **({"steps": 3} | options))
        return m_pred

    first = bits()
    assert torch.equal(bits(), first)
    assert torch.equal(bits(past=None), first), "no past is all void"
    assert not torch.equal(bits(images=images.flip(3)), first)
    assert not torch.equal(bits(noise=noise.flip(3)), first)
    assert not torch.equal(bits(past=past + 1), first)
    assert not torch.equal(bits(steps=4), first)
    assert not torch.equal(bits(td=0.0), first)


def test_infer_encoder_once_decoder_every_step(tiny, build):
    model, calls = build(tiny), []
    model.pixel_encoder.register_forward_hook(lambda *_: calls.append("encoder"))
    model.mask_decoder.norm_in.register_forward_hook(lambda *_: calls.append("decoder"))
    model.infer(torch.rand(1, 3, 32, 32), torch.randn(1, 5, 16, 16), steps=6)
    assert calls == ["encoder"] + ["decoder"] * 6


def test_train_loss_depends_on_the_seed(tiny, build):
    model, images = build(tiny), torch.rand(2, 3, 32, 32)
    masks = torch.randint(0, 4, (2, 2, 16, 16))
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        losses.append(model(images, masks).item())
    assert losses[0] == losses[1] != losses[2]


def test_train_loss_reused_ids_weighed_by_instance(tiny, build):
    """One id on two instances of 8 pixels has the weights of two ids of 8 pixels."""
    model = build(tiny.replace(p=1.0))
    images, t, noise = torch.rand(1, 3, 32, 32), torch.tensor([0.5]), torch.randn(1, 5, 16, 16)
    masks = torch.zeros(1, 2, 16, 16).long()
    masks[..., :2, :4], masks[..., 8:10, :4] = 1, 1
    instances = torch.zeros(1, 16, 16).long()
    instances[:, :2, :4], instances[:, 8:10, :4] = 1, 2
    separate = masks.clone()
    separate[:, 1, 8:10, :4] = 2
    weights = model.pixel_weights(masks, instances)
    assert torch.equal(weights, model.pixel_weights(separate, None))
    by_id, by_instance = (model(images, masks, t=t, noise=noise, instances=i).item() for i in (None, instances))
    assert by_id != by_instance
    assert by_instance == model(images, masks, t=t, noise=noise, instances=separate[:, 1]).item()


BACKBONES = {
    "swin": {"embed_dim": 16, "depths": [1, 1, 1], "num_heads": [1, 2, 2], "window_size": 4},
    "convnextv2": {"hidden_sizes": [16, 24, 32], "depths": [1, 1, 1], "num_stages": 3},
    "dinov2": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8, "image_size": 64},
    "dinov3_vit": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    "resnet": {"depths": [1, 1, 1], "embedding_size": 8, "hidden_sizes": [16, 24, 32], "layer_type": "bottleneck"},
}


@pytest.mark.parametrize("model_type", BACKBONES)
def test_build_backbone_strides_and_channels(tiny, build, model_type: str):
    pyramid = not model_type.startswith("dino")
    stages = ["stage1", "stage2", "stage3"] if pyramid else ["stage2"]
    backbone = {"model_type": model_type, "out_features": stages, **BACKBONES[model_type]}
    model = build(tiny.replace(encoder={"backbone": backbone}))
    images = torch.rand(1, 3, 32, 64)
    network = model.pixel_encoder.backbone
    maps = network(images)
    expected = [4, 8, 16] if pyramid else [BACKBONES[model_type].get("patch_size", 16)]
    assert network.strides == expected
    assert network.channels == [level.shape[1] for level in maps]
    assert [level.shape[2:] for level in maps] == [(32 // s, 64 // s) for s in expected]
    masks = model.infer(images, torch.randn(1, 5, 16, 32), steps=2)
    model.train()(images, masks).backward()
    assert maps[0].isfinite().all()


def test_build_backbone_unknown_is_an_error(tiny):
    for backbone in ({"model_type": "no_such"}, {"model_type": "gpt2"}, resnet_backbone((1, 1), 8, (16,), "basic")):
        with pytest.raises(ValueError, match=r"backbone '.*' cannot be built"):
            Pix2SeqD(tiny.replace(encoder={"backbone": backbone}))


def test_pixel_encoder_normalises_images(tiny, build):
    model = build(tiny)
    other = build(tiny.replace(encoder={"image_mean": (0.5, 0.4, 0.3), "image_std": (0.2, 0.3, 0.4)}))
    images = torch.rand(1, 3, 32, 32)
    shifted = images * torch.tensor([0.2, 0.3, 0.4])[:, None, None] + torch.tensor([0.5, 0.4, 0.3])[:, None, None]
    assert torch.allclose(other.pixel_encoder(shifted).map, model.pixel_encoder(images).map, atol=1e-4)


def test_pix2seq_d_overfits_two_images():
    torch.manual_seed(0)
    config = ModelConfig.preset("tiny")
    images, masks = [], []
    for sample in Shapes(2, (32, 32), seed=1):
        panoptic = sample.panoptic
        labels = resize_labels(panoptic.segmentation, 16, 16)
        rng = np.random.default_rng(0)
        mask, _ = draw_mask(labels, panoptic.classes, panoptic.taxonomy, DataConfig(), config.mask.max_instances, rng)
        images.append(torch.from_numpy(sample.image).movedim(2, 0) / 255)
        masks.append(torch.from_numpy(mask))
    batch, truth = torch.stack(images), torch.stack(masks)
    model = Pix2SeqD(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(100):
        loss = model(batch, truth)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.1 * losses[0]
    noise = torch.randn(2, config.mask.total_bits, 16, 16, generator=torch.Generator().manual_seed(0))
    found = model.eval().infer(batch, noise, steps=8)
    for channel, index in product((0, 1), (0, 1)):
        assert (found[index, channel] == truth[index, channel]).float().mean() > 0.95


def test_initial_state_ids_in_cells(tiny, build):
    config = tiny.replace(mask={"bits": (2, 4), "max_instances": 16, "init_id_cell": 2})
    noise = torch.randn(40, 6, 21, 30, generator=torch.Generator().manual_seed(3))
    state = build(config).initial_state(noise)
    assert state.shape == noise.shape and set(state.unique().tolist()) == {-1.0, 1.0}
    classes, ids = bit2int(state > 0, config.mask.bits).unbind(dim=1)
    assert (classes == 0).all()
    starts = set()
    for number, shown in enumerate(ids):
        assert set(shown.unique().tolist()) == set(range(16))
        rows, columns = (int((shown.movedim(axis, 0)[0] != shown.movedim(axis, 0)[1]).any()) for axis in (0, 1))
        starts.add((rows, columns, int(shown[0, 0])))
        cells = state[number, 2:, rows::2, columns::2]
        whole = cells.repeat_interleave(2, 1).repeat_interleave(2, 2)
        assert torch.equal(whole[:, : 21 - rows, : 30 - columns], state[number, 2:, rows:, columns:])
        for axis in (1, 2):
            for far in (1, 2, 3):
                differing = (cells != cells.roll(-far, axis)).sum(dim=0).movedim(axis - 1, 0)[: -far - 2]
                assert (differing == 2 - far % 2).all(), "1, 2, 1 bits: four cells in a row have four ids"
    assert len(starts) > 25 and {start[:2] for start in starts} == {(0, 0), (0, 1), (1, 0), (1, 1)}
    alone = build(config).initial_state(noise[1:2])
    assert torch.equal(alone, state[1:2]), "alone as in a batch"
    assert build(tiny).initial_state(noise) is noise


def test_initial_state_shows_the_ids_of_the_last_past_mask(tiny, build):
    config = tiny.replace(mask={"bits": (2, 4), "max_instances": 16, "init_id_cell": 2}, decoder={"past_frames": 2})
    model, noise = build(config), torch.randn(2, 6, 16, 16, generator=torch.Generator().manual_seed(3))
    past = torch.zeros(2, 2, 2, 16, 16, dtype=torch.long)
    past[:, :, 0], past[:, 0, 1], past[0, 1, 1, 4:9, 2:7] = 1, 5, 13
    cells, state = model.initial_state(noise), model.initial_state(noise, past)
    shown = past[:, -1, 1] > 0
    assert (bit2int(state > 0, config.mask.bits)[:, 1][shown] == 13).all()
    assert torch.equal(torch.where(shown[:, None], 0, state), torch.where(shown[:, None], 0, cells))


def test_denoise_from_what_is_prepared(tiny, build):
    model = build(tiny)
    h, noise = model.pixel_encoder(torch.rand(1, 3, 64, 64)), torch.randn(1, tiny.mask.total_bits, 32, 32)
    prepared = model.mask_decoder.prepare(h, torch.tensor([now for now, _ in time_steps(3, 1.0)]))
    for alone, shared in zip(
        model.denoise(h, noise, 3, 1.0), model.denoise(h, noise, 3, 1.0, prepared=prepared), strict=True
    ):
        assert torch.equal(alone, shared)


@pytest.mark.parametrize("encoding", ["gray", "random"])
def test_pix2seq_d_encoding_is_plain_binary_of_the_codes(tiny, build, encoding):
    tiny = tiny.replace(mask={"classes": 4, "max_instances": 8}, decoder={"past_frames": 1}, p=0.0)
    binary, other = build(tiny), build(tiny.replace(mask={"encoding": encoding}))
    bits = tiny.mask.bits
    torch.manual_seed(1)
    images, t = torch.rand(2, 3, 32, 32), torch.tensor([0.2, 0.7])
    masks, past = (torch.stack([torch.randint(0, n, (2, 16, 16)) for n in (4, 8)], dim=1) for _ in range(2))
    noise = torch.randn(2, sum(bits), 16, 16)
    coded, past_coded = (to_codes(each, bits, encoding) for each in (masks, past))
    with torch.no_grad():
        loss = other(images, masks, past[:, None], t=t, noise=noise)
        assert torch.equal(loss, binary(images, coded, past_coded[:, None], t=t, noise=noise))
        assert not torch.equal(loss, binary(images, masks, past[:, None], t=t, noise=noise))
        found = other.infer(images, noise, 2, past=past[:, None])
        assert torch.equal(to_codes(found, bits, encoding), binary.infer(images, noise, 2, past=past_coded[:, None]))
        *_, m_pred = other.denoise(other.pixel_encoder(images), noise, 2, past=past[:, None], hints=masks)
        assert torch.equal(other.to_masks(m_pred), masks), "hints are encoded and decoded alike"
