"""`ResNet` equals that of `transformers`, except where the official code differs."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from pix2seqd.layers.resnet import Block, ResNet

SIZES = {"depths": [2, 1, 2], "embedding_size": 8, "hidden_sizes": [16, 24, 32]}
OUT = ["stage1", "stage3"]


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
@pytest.mark.parametrize("changes", [{}, {"downsample_in_first_stage": True}, {"downsample_in_bottleneck": True}])
@pytest.mark.parametrize("training", [False, True])
def test_resnet_equals_transformers(layer_type, changes, training):
    from transformers import ResNetBackbone, ResNetConfig

    torch.manual_seed(0)
    fields = {**SIZES, "layer_type": layer_type, "out_features": OUT, **changes}
    theirs = ResNetBackbone(ResNetConfig(**fields)).train(training)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
    ours = ResNet(**fields, stem_pool="symmetric").train(training)
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.endswith("num_batches_tracked")})
    images = torch.randn(2, 3, 64, 96)
    maps, expected_maps = ours(images), theirs(images).feature_maps
    assert ours.channels == [16, 32] == list(theirs.channels)
    for found, expected, stride in zip(maps, expected_maps, ours.strides, strict=True):
        torch.testing.assert_close(found, expected)
        assert found.shape[2:] == (64 // stride, 96 // stride)
    for levels in (maps, expected_maps):
        sum(level.square().sum() for level in levels).backward()
    gradients = dict(theirs.named_parameters())
    for name, value in ours.named_parameters():
        torch.testing.assert_close(value.grad, gradients[name].grad, rtol=1e-3, atol=1e-3)


def test_resnet_ignores_unused_fields():
    from transformers import ResNetConfig

    fields = ResNetConfig(**SIZES, layer_type="basic", num_labels=7).to_dict()
    assert ResNet(**fields).channels == [32], "of the last stage, as in transformers"


def test_resnet_block_starts_as_identity():
    x = torch.rand(1, 16, 4, 4)
    for halving in (None, 0, 1):
        assert torch.equal(Block(16, 16, 1, halving).eval()(x), x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_sizes": [16]}, "equal length"),
        ({"depths": [], "hidden_sizes": []}, "equal length, 1 or more"),
        ({"layer_type": "dense"}, "layer_type must be basic or bottleneck"),
        ({"hidden_act": "gelu"}, "hidden_act relu"),
        ({"out_features": ["stage4"]}, "out_features must be some of stage1, stage2, stage3"),
        ({"out_features": ["stage2", "stage1"]}, "in this order"),
        ({"out_features": []}, "out_features"),
        ({"out_indices": [1, 2]}, "give out_features"),
    ],
)
def test_resnet_impossible_configuration_is_an_error(changes, message):
    with pytest.raises(ValueError, match=message):
        ResNet(**{**SIZES, **changes})


def test_segmenter_bundled_checkpoint_does_not_import_transformers():
    code = "from pix2seqd import Segmenter; Segmenter.from_pretrained('nuclei-fast'); import sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "torch" in loaded and "transformers" not in loaded
