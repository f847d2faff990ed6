"""`accelerate`: exchanged modules give the results of the plain ones, and the environment switches them off."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pix2seqd.analog_bits import ExpectedBits
from pix2seqd.layers.norms import GroupNorm
from pix2seqd.layers.transformer import Attention
from pix2seqd.mask_decoder import BitHead
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.segmenter import Segmenter
from pix2seqd.speed import accelerate, accelerate_training
from pix2seqd.speed.attention import ProductAttention
from pix2seqd.speed.exchange import ITEMS, available
from pix2seqd.speed.fused_cpu import FusedBitHead, FusedExpectedBits, FusedGroupNorm
from pix2seqd.speed.training_norm import TrainingGroupNorm
from pix2seqd.speed.winograd import Winograd

CPU = torch.device("cpu")
EXCHANGED = (FusedGroupNorm, FusedExpectedBits, FusedBitHead, Winograd)


def kinds(model: Pix2SeqD) -> set[type]:
    return {type(module) for module in model.modules()}


def bits(model: Pix2SeqD, images: Tensor, noise: Tensor) -> Tensor:
    with torch.inference_mode():
        return list(model.denoise(model.pixel_encoder(images), noise, 3))[-1]


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("items", [["Winograd"], ["fused norms"], ["fused bits"], None], ids=str)
def test_accelerate_float32_gives_the_masks_of_the_plain_model(tiny, build, items):
    model = build(tiny.replace(encoder={"map_dim": 64}, decoder={"dim": 64}))
    before = copy.deepcopy(model.state_dict())
    images, noise = torch.rand(2, 3, 128, 128), torch.randn(2, 5, 64, 64)
    fast = accelerate(model, CPU, torch.float32, items)
    plain, found = bits(model, images, noise), bits(fast, images, noise)
    assert not torch.equal(found, plain), "nothing was exchanged"
    assert torch.allclose(found, plain, atol=1e-5)
    sure = (plain.abs() > 1e-5).all(dim=1, keepdim=True)  # elsewhere rounding may flip a bit
    assert sure.float().mean() > 0.99
    masks = model.to_masks(found), model.to_masks(plain)
    assert ((masks[0] == masks[1]) | ~sure).all()
    assert len(masks[1].unique()) > 2
    assert not kinds(model) & set(EXCHANGED), "the model itself was changed"
    for kept in (model, fast):
        assert kept.state_dict().keys() == before.keys()
        assert all(torch.equal(tensor, before[name]) for name, tensor in kept.state_dict().items())


@pytest.mark.usefixtures("compiled")
def test_accelerate_fused_head_gives_the_masks_of_the_plain_model(tiny, build):
    model = build(tiny.replace(decoder={"patch": 4, "bit_logits": True}))
    images, noise = torch.rand(2, 3, 128, 128), torch.randn(2, 5, 64, 64)
    plain = bits(model, images, noise)
    found = bits(accelerate(model, CPU, torch.float32, ["fused head"]), images, noise)
    assert not torch.equal(found, plain), "nothing was exchanged"
    assert torch.allclose(found, plain, atol=1e-5)


@pytest.mark.usefixtures("compiled")
def test_accelerate_exchanges_every_norm_and_the_bits(tiny, build):
    found = kinds(accelerate(build(tiny.replace(encoder={"map_dim": 64}, decoder={"dim": 64})), CPU, torch.float32))
    assert set(EXCHANGED) <= found
    assert not found & {GroupNorm, ExpectedBits, BitHead}


def test_accelerate_bfloat16_weights_cast_once_give_what_autocast_gives(tiny, build):
    model = build(tiny)
    images, noise = torch.rand(1, 3, 32, 32), torch.randn(1, 5, 16, 16)
    cast = accelerate(model, CPU, torch.bfloat16, ["weights cast once"])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model.infer(images, noise, 2), cast.infer(images, noise, 2))
    assert cast.mask_decoder.conv_in.weight.dtype == torch.bfloat16
    assert model.mask_decoder.conv_in.weight.dtype == torch.float32, "the model itself is not changed"


def test_available_names_items(monkeypatch):
    assert set(available(CPU, torch.float32)) <= set(ITEMS)
    assert "weights cast once" in available(CPU, torch.bfloat16)
    assert "Winograd" not in available(CPU, torch.bfloat16)


@pytest.mark.parametrize("how", ["environment", "argument"])
def test_plain_segmenter_has_no_exchanged_module(pretrained, monkeypatch, how):
    if how == "environment":
        monkeypatch.setenv("PIX2SEQD_PLAIN", "1")
    segmenter = Segmenter(pretrained, "cpu", accelerate=how == "environment")
    assert not kinds(segmenter.model) & set(EXCHANGED)
    assert not segmenter.bfloat16


def test_plain_environment_zero_means_fast(pretrained, monkeypatch, compiled):
    monkeypatch.setenv("PIX2SEQD_PLAIN", "0")
    assert FusedGroupNorm in kinds(Segmenter(pretrained, "cpu", "float32").model)


def test_accelerate_training_keeps_the_parameters(tiny, build, monkeypatch):
    model = build(tiny)
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    monkeypatch.setenv("PIX2SEQD_PLAIN", "1")
    accelerate_training(model, CPU, torch.bfloat16)
    assert GroupNorm in kinds(model)
    monkeypatch.delenv("PIX2SEQD_PLAIN")
    accelerate_training(model, CPU, torch.bfloat16)
    assert TrainingGroupNorm in kinds(model) and GroupNorm not in kinds(model)
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before


def test_accelerate_bfloat16_exchanges_attention_where_there_is_no_amx(tiny, build, monkeypatch):
    for amx in (False, True):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda amx=amx: amx)
        found = kinds(accelerate(build(tiny), CPU, torch.bfloat16))
        assert (ProductAttention in found) != amx and (Attention in found) == amx


@pytest.mark.parametrize("queries", [70, 600])
def test_product_attention_bfloat16_is_attention(queries):
    attention, plain = ProductAttention(64, 4), Attention(64, 4)
    q, k, v = (torch.randn(2, 4, n, 16).bfloat16() for n in (queries, 20, 20))
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    with torch.no_grad():
        assert torch.allclose(attention.attend(q, k, v).double(), exact, atol=0.02)
        q, k, v = q.float(), k.float(), v.float()
        assert torch.equal(attention.attend(q, k, v), plain.attend(q, k, v))
