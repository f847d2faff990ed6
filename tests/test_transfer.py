"""Starting from a checkpoint of other classes, bits or depth; starting from a pretrained backbone."""

from pathlib import Path

import pytest
import torch

from pix2seqd.checkpoint import transfer
from pix2seqd.config import ModelConfig, Recipe
from pix2seqd.data.synthetic.shapes import Shapes
from pix2seqd.files import InputError
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.training.train import new_model, new_state

TINY = ModelConfig.preset("tiny").replace(
    decoder={"bit_logits": True, "patch": 2}, mask={"bits": (2, 4), "classes": 3, "max_instances": 16}
)


def test_transfer_same_configuration_takes_everything() -> None:
    source, target = Pix2SeqD(TINY), Pix2SeqD(TINY)
    assert transfer(source, target) == []
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )


def test_transfer_other_classes_keeps_ids_and_features() -> None:
    source, target = Pix2SeqD(TINY), Pix2SeqD(TINY.replace(mask={"bits": (4, 4), "classes": 10}))
    fresh = target.mask_decoder.conv_in.weight.detach().clone()
    kept = transfer(source, target)
    assert set(kept) == {f"mask_decoder.conv_{side}.{kind}" for side in ("in", "out") for kind in ("weight", "bias")}
    old, new = source.mask_decoder, target.mask_decoder
    # Inputs are class bits, id bits (each for the 4 pixels of a patch) and the feature map.
    assert torch.equal(new.conv_in.weight[:, 16:], old.conv_in.weight[:, 8:])
    assert torch.equal(new.conv_in.weight[:, :16], fresh[:, :16])
    # Outputs are values of class and id, then bits of class and id.
    assert torch.equal(new.conv_out.weight[64:128], old.conv_out.weight[16:80])
    assert torch.equal(new.conv_out.weight[-16:], old.conv_out.weight[-16:])


def test_transfer_deeper_model() -> None:
    source, target = Pix2SeqD(TINY), Pix2SeqD(TINY.replace(decoder={"layers": 2}))
    kept = transfer(source, target)
    assert kept
    assert all(name.startswith("mask_decoder.transformer.layers.1.") for name in kept)


def test_new_model_pretrained_backbone(tmp_path: Path) -> None:
    from transformers import ResNetBackbone, ResNetConfig

    sizes = {"embedding_size": 16, "hidden_sizes": [16, 24, 32, 40], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    network = ResNetBackbone(ResNetConfig(**sizes))
    torch.nn.init.constant_(network.embedder.embedder.normalization.weight, 0.7)
    network.save_pretrained(tmp_path)
    model = new_model(Recipe(model=ModelConfig.preset("tiny"), backbone=str(tmp_path)))
    backbone = model.pixel_encoder.backbone
    assert (backbone.channels, backbone.strides) == ([16, 24, 32], [4, 8, 16])
    assert not any("stages.3" in name for name in model.state_dict()), "unused parameters would make DDP wait"
    assert torch.all(backbone.network.embedder.embedder.normalization.weight == 0.7)
    assert model.config.encoder.image_mean == (0.485, 0.456, 0.406)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        ours = backbone.eval()(images)
        theirs = ResNetBackbone.from_pretrained(tmp_path, out_features=["stage1", "stage2", "stage3"])(images)
    for a, b in zip(ours, theirs.feature_maps, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", ["convnext", "convnextv2", "swinv2"])
def test_new_model_pretrained_backbone_has_no_unused_parameters(kind: str, tmp_path: Path) -> None:
    from transformers import AutoBackbone, AutoConfig

    heads = {"embed_dim": 8, "num_heads": [1, 1, 2, 2], "window_size": 4}
    widths = {"hidden_sizes": [8, 16, 24, 32]} if kind.startswith("convnext") else heads
    whole = AutoBackbone.from_config(AutoConfig.for_model(kind, depths=[1, 1, 1, 1], **widths))
    whole.save_pretrained(tmp_path)
    backbone = new_model(Recipe(model=ModelConfig.preset("tiny"), backbone=str(tmp_path))).pixel_encoder.backbone
    assert backbone.strides == [4, 8, 16]
    sum(features.sum() for features in backbone(torch.rand(1, 3, 64, 64))).backward()
    assert [name for name, value in backbone.named_parameters() if value.grad is None] == []
    trained = {name: value for name, value in whole.state_dict().items() if "norms" not in name}
    ours = backbone.network.state_dict()
    assert all(torch.equal(trained[name], value) for name, value in ours.items() if name in trained)


def test_new_state_missing_backbone_is_an_error(tmp_path: Path) -> None:
    recipe = Recipe(model=ModelConfig.preset("tiny"), backbone=str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="no backbone"):
        new_state(recipe, Shapes(1))


def test_new_state_backbone_without_stages_is_an_error(tmp_path: Path) -> None:
    from transformers import ViTConfig, ViTModel

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    ViTModel(ViTConfig(**sizes)).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="is a network without stages; give one such as resnet"):
        new_state(Recipe(model=ModelConfig.preset("tiny"), backbone=str(tmp_path)), Shapes(1))


def test_transfer_image_to_video_model_keeps_the_output(build, tiny):
    image, video = build(tiny), build(tiny.replace(decoder={"past_frames": 2}), seed=1)
    assert transfer(image, video) == ["mask_decoder.conv_in.weight"]
    images, noise = torch.rand(1, 3, 32, 32), torch.randn(1, 5, 16, 16)
    past = torch.randint(4, (1, 2, 2, 16, 16))
    assert torch.equal(image.infer(images, noise, 2), video.infer(images, noise, 2, past=past))
