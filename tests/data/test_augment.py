from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from pix2seqd.config import AugmentConfig, DataConfig
from pix2seqd.data.augment import _hue_saturation, _shares, augment, fit_crop, jitter_colors, jittered_size, tile_crop
from pix2seqd.images.resize import PAD

RESIZE, TILE = DataConfig(size=(32, 48)), DataConfig(size=(32, 32), layout="tile", overlap=8)
EVERYTHING = AugmentConfig(jitter=(0.5, 2.0), color_jitter=1.0, invert=0.5, flip="all")


def coordinates(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An image and labels that both encode the position of each pixel."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 255 // max(height - 1, 1), columns * 255 // max(width - 1, 1), 0 * rows], axis=-1)
    return image.astype(np.uint8), 1 + rows * width + columns


def run(data: DataConfig, config: AugmentConfig, seed: int = 0, size: tuple[int, int] = (40, 60)):
    return augment(*coordinates(*size), data, config, np.random.default_rng(seed))


def test_augment_defaults_fit_and_pad():
    image, labels = run(RESIZE, AugmentConfig(), size=(16, 48))
    assert image.shape == (3, 32, 48)
    assert labels.shape == (32, 48)
    assert np.array_equal(labels[:16], coordinates(16, 48)[1])
    assert not labels[16:].any()
    assert torch.allclose(image[:, :16], torch.from_numpy(coordinates(16, 48)[0]).permute(2, 0, 1) / 255)
    assert (image[:, 16:] == PAD).all()


@pytest.mark.parametrize("data", [RESIZE, TILE], ids=["resize", "tile"])
def test_augment_depends_only_on_generator(data):
    first, again, other = (run(data, EVERYTHING, seed) for seed in (3, 3, 4))
    assert torch.equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    seed=st.integers(0, 1000),
    flip=st.sampled_from(["none", "horizontal", "all"]),
    layout=st.sampled_from(["resize", "tile"]),
    target=st.sampled_from([(32, 32), (16, 48)]),
    zoom=st.sampled_from([0.5, 1.0, 2.0]),
)
@example(size=(2, 21), seed=21, flip="all", layout="tile", target=(32, 32), zoom=0.5)  # white is 1 + 1e-7
def test_augment_output_size_and_padding(size, seed: int, flip: Any, layout: Any, target, zoom: float):
    data = DataConfig(size=target, layout=layout, overlap=4, zoom=zoom)
    config = AugmentConfig(jitter=(0.3, 3.0), color_jitter=0.5, invert=0.5, flip=flip)
    image, labels = run(data, config, seed, size)
    assert image.shape == (3, *target)
    assert labels.shape == target
    assert image.min() >= -1e-6, "resizing rounds"
    assert image.max() <= 1 + 1e-6
    assert 0 <= labels.min() <= labels.max() <= size[0] * size[1]
    assert (image[:, torch.from_numpy(labels == 0)] == PAD).all(), "void is padding"
    rows, columns = np.nonzero(labels)
    assert len(rows) == (rows.max() + 1) * (columns.max() + 1), "padding at the bottom and right"


@pytest.mark.parametrize("data", [RESIZE, TILE, TILE.replace(zoom=2.0)], ids=["resize", "tile", "zoomed tile"])
@pytest.mark.parametrize("seed", range(6))
def test_augment_moves_image_and_labels_together(data, seed: int):
    """Without colour jitter, colours and labels encode the same positions."""
    height, width = 60, 60
    image, labels = run(data, AugmentConfig(jitter=(0.7, 1.9), flip="all"), seed, (height, width))
    shown = labels > 0
    rows, columns = np.divmod(labels[shown] - 1, width)
    colors = image[:, torch.from_numpy(shown)].numpy()
    assert np.abs(colors[0] * (height - 1) - rows).max() < 2
    assert np.abs(colors[1] * (width - 1) - columns).max() < 2


def test_augment_flips_cover_all_symmetries():
    counts = {}
    for config, data in (("none", TILE), ("horizontal", TILE), ("all", TILE), ("all", RESIZE)):
        found = set()
        for seed in range(64):
            _, labels = run(data, AugmentConfig(flip=config), seed, data.size)  # type: ignore[arg-type]
            found.add(labels.tobytes())
        counts[config, data.size] = len(found)
    square, wide = (32, 32), (32, 48)
    assert counts == {("none", square): 1, ("horizontal", square): 2, ("all", square): 8, ("all", wide): 4}


def test_augment_scales_cover_jitter_range():
    """An image of the target's size, scaled by s and cropped, keeps a share of 1 / s² of its labels."""
    for data in (RESIZE.replace(size=(40, 40)), TILE.replace(size=(40, 40))):
        shares = []
        for seed in range(60):
            _, labels = run(data, AugmentConfig(jitter=(1.0, 2.0)), seed, (40, 40))
            shares.append(len(np.unique(labels)) / 1600)
        scales = np.array(shares) ** -0.5
        assert 0.97 < scales.min() < 1.1
        assert 1.85 < scales.max() < 2.06


def test_jittered_size_truncates_in_float32_as_official():
    assert jittered_size((45, 61), (64, 64), 1.0) == (47, 63)
    assert jittered_size((64, 64), (64, 64), 1.0) == (64, 64)
    assert jittered_size((1, 1000), (64, 64), 0.01) == (1, 1), "at least one pixel"


def test_fit_crop_and_tile_crop_offsets():
    image, labels = coordinates(64, 64)
    tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    cropped, part = fit_crop(tensor, labels, (32, 32), 2.0, (0.5, 0.25))
    assert part[0, 0] == labels[16, 8]
    assert torch.equal(cropped, tensor[:, 16:48, 8:40])
    cropped, part = tile_crop(tensor, labels, (32, 32), 1.0, (1.0, 0.0))
    assert part[0, 0] == labels[32, 0]
    assert torch.equal(cropped, tensor[:, 32:, :32])
    _, part = tile_crop(tensor, labels, (32, 32), 2.0, (0.0, 0.0))
    assert np.array_equal(part[::2, ::2], labels[:16, :16])


def test_jitter_colors_strength_and_range():
    image = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
    assert jitter_colors(image, 0.0, np.random.default_rng(0)) is image
    changes = {}
    for strength in (0.2, 1.0):
        jittered = [jitter_colors(image, strength, np.random.default_rng(seed)) for seed in range(40)]
        assert all(j.shape == image.shape and j.min() >= 0 and j.max() <= 1 for j in jittered)
        changes[strength] = np.mean([(j - image).abs().mean().item() for j in jittered])
    assert 0 < changes[0.2] < changes[1.0]
    grey = sum(torch.equal(j[0], j[1]) and torch.equal(j[1], j[2]) for j in jittered)
    assert 2 <= grey <= 16, "about a fifth is greyscale"


class Chosen(np.random.Generator):
    """Gives the chosen numbers in turn."""

    def __init__(self, *numbers: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.numbers = list(numbers)

    def uniform(self, *bounds: float) -> float:  # type: ignore[override]
        return self.numbers.pop(0)


@pytest.mark.parametrize(("shift", "factor"), [(0.0, 1.0), (0.2, 1.8), (-0.2, 0.2), (0.07, 0.0)])
def test_hue_saturation_equals_pillow(shift: float, factor: float):
    """Of all colours with values in steps of three."""
    steps = np.arange(0, 256, 3, dtype=np.uint8)
    colors = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(86, -1, 3)
    hsv = np.array(Image.fromarray(colors).convert("HSV"), np.float32)
    hsv[..., 0] = (hsv[..., 0] + 255 * shift) % 255
    hsv[..., 1] = (hsv[..., 1] * factor).clip(0, 255)
    expected = np.array(Image.fromarray(hsv.astype(np.uint8), "HSV").convert("RGB"))
    changed = _hue_saturation(torch.from_numpy(colors).permute(2, 0, 1) / 255, 1.0, Chosen(shift, factor))
    assert torch.equal(changed, torch.from_numpy(expected).permute(2, 0, 1) / 255)


def test_hsv_to_rgb_equals_pillow_for_all_colours():
    hue, saturation = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    for value in (*range(0, 255, 12), 255):
        hsv = np.stack([hue, saturation, np.full_like(hue, value)], axis=-1).astype(np.uint8)
        expected = np.array(Image.fromarray(hsv, "HSV").convert("RGB"))
        assert np.array_equal((_shares() * value + 0.5).floor().numpy(), expected.reshape(-1, 3))


def test_augment_invert():
    plain, _ = run(RESIZE, AugmentConfig(), size=(32, 48))
    negative, _ = run(RESIZE, AugmentConfig(invert=1.0), size=(32, 48))
    assert torch.allclose(plain + negative, torch.ones(()))
