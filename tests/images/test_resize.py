import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pix2seqd.analog_bits import Quantizer
from pix2seqd.checkpoint import Checkpoint
from pix2seqd.config import DataConfig, InferConfig, ModelConfig
from pix2seqd.data.augment import fit_crop, jittered_size
from pix2seqd.data.synthetic.shapes import TAXONOMY
from pix2seqd.images import resize
from pix2seqd.images.load import Pixels
from pix2seqd.images.resize import (
    PAD,
    ScaledImage,
    normalize,
    pad_image,
    resize_image,
    resize_labels,
    resize_part,
    smooth_labels,
)
from pix2seqd.pixel_encoder import ImageFeatures
from pix2seqd.segmenter import Segmenter


@pytest.mark.parametrize(("height", "width"), [(4, 6), (16, 24), (5, 7), (11, 9)])
def test_resize_labels_equals_official(official, height: int, width: int):
    labels = np.moveaxis(official["unit/nearest/in"], -1, 1)
    recorded = np.moveaxis(official[f"unit/nearest/{height}x{width}"], -1, 1)
    assert np.array_equal(resize_labels(labels, height, width), recorded)


@settings(max_examples=100, deadline=None)
@given(st.tuples(*[st.integers(1, 400)] * 4))
def test_resize_labels_equals_torch_nearest_exact(sizes: tuple[int, int, int, int]):
    height, width, to_height, to_width = sizes
    labels = np.arange(height * width).reshape(height, width)
    expected = F.interpolate(torch.from_numpy(labels)[None, None].double(), (to_height, to_width), mode="nearest-exact")
    ours = resize_labels(labels, to_height, to_width)
    assert ours.shape == (to_height, to_width)
    different = (ours != expected[0, 0].numpy()).mean()
    assert different < 0.05 + 1 / min(ours.shape), "only halves that round may differ"
    if to_height % height == 0 and to_width % width == 0:
        assert np.array_equal(ours, labels.repeat(to_height // height, 0).repeat(to_width // width, 1))


def spline_matrix(pixels: int, cells: float, side: int) -> np.ndarray:
    """Quadratic B-splines of the cells at the pixels, `[pixels, side]`; beyond the map its last cell goes on."""
    at = (np.arange(pixels)[:, None] + 0.5) * cells / pixels - np.arange(-1, side + 1) - 0.5
    distance = np.abs(at)
    weights = np.where(distance < 0.5, 0.75 - distance**2, np.maximum(1.5 - distance, 0) ** 2 / 2)
    weights[:, 1] += weights[:, 0]
    weights[:, -2] += weights[:, -1]
    return weights[:, 1:-1]


@pytest.mark.parametrize("seed", range(6))
def test_smooth_labels_equals_every_label_by_itself(monkeypatch, seed: int):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 14, 2)
    labels = rng.integers(0, 4, (height, width)) * rng.integers(1, 10**6)
    sure = rng.integers(0, 256, (height, width)).astype(np.uint8)
    extent = height - rng.random() * 0.9, width - rng.random() * 0.9
    down, across = (spline_matrix(5 * side, cells, side) for side, cells in zip(labels.shape, extent, strict=True))
    values = np.unique(labels)
    planes = np.stack([down @ ((labels == value) * (sure + 1.0)) @ across.T for value in values])
    monkeypatch.setattr(resize, "_CHUNK", 100)
    found = smooth_labels(labels, sure, extent, 5 * height, 5 * width)
    assert found.dtype == labels.dtype
    best, own = planes.max(axis=0), np.take_along_axis(planes, np.searchsorted(values, found)[None], axis=0)[0]
    assert (own >= best * (1 - 1e-5)).all(), "the label with the highest value, or an equal one"


def test_smooth_labels_disc_has_no_stairs():
    def disc(side: int) -> np.ndarray:
        at = (np.arange(side) + 0.5) / side - 0.5
        return (at[:, None] ** 2 + at**2 < 0.4**2).astype(np.int32)

    truth, coarse = disc(160), disc(20)
    sure = np.full(coarse.shape, 200, np.uint8)
    smooth, blocks = smooth_labels(coarse, sure, (20, 20), 160, 160), resize_labels(coarse, 160, 160)
    assert (smooth != truth).sum() < 0.75 * (blocks != truth).sum()
    share = truth.reshape(20, 8, 20, 8).mean(axis=(1, 3))
    informed = smooth_labels(coarse, (255 * np.abs(2 * share - 1)).astype(np.uint8), (20, 20), 160, 160)
    assert (informed != truth).sum() < 0.4 * (blocks != truth).sum(), "a cell on the outline is less sure"
    assert np.array_equal(smooth_labels(coarse, sure, (20, 20), 20, 20), coarse), "nothing to enlarge"
    larger = smooth_labels(coarse, np.where(coarse, 250, 150).astype(np.uint8), (20, 20), 160, 160)
    assert larger.sum() > smooth.sum(), "an outline moves away from the surer side"


@pytest.mark.parametrize(("height", "width"), [(11, 15), (12, 17), (40, 50)])
def test_resize_image_equals_official(official, height: int, width: int):
    ours = resize_image(official.tensor("unit/bilinear_aa/in")[0], height, width)
    assert official.error(f"unit/bilinear_aa/{height}x{width}", ours[None]) < 5e-6


def official_image(official) -> torch.Tensor:
    return torch.from_numpy(official["data/image"]).movedim(-1, 0)


def test_resize_and_pad_equal_official_evaluation_transform(official):
    height, width = official["data/eval_unpadded_image_size"].tolist()
    shown = pad_image(resize_image(official_image(official), height, width), 64, 64)[:, ::3, ::3].movedim(0, -1)
    assert official.error("data/eval_image", shown) < 2e-5
    labels = np.moveaxis(official["data/label_map"], -1, 0)
    recorded = np.moveaxis(official["data/eval_label_map"], -1, 0)
    assert np.array_equal(resize_labels(labels, height, width), recorded[:, :height, :width])
    assert not recorded[:, height:].any()


sides = st.integers(1, 40)


@settings(max_examples=30, deadline=None)
@given(size=st.tuples(sides, sides), scaled=st.tuples(sides, sides), data=st.data())
def test_resize_part_has_the_bits_of_the_whole(size, scaled, data):
    rows, columns = (
        slice(*sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)).filter(lambda t: t[0] != t[1]))))
        for n in scaled
    )
    seed = data.draw(st.integers(0, 9))
    image = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).permute(2, 0, 1)
    whole = resize_image(image.float() / 255, *scaled)
    for pixels in (image, image.float() / 255):
        part = resize_part(pixels, scaled[0], scaled[1], rows, columns)
        if scaled[1] > 1:  # of one column, PyTorch errs
            assert torch.equal(part, whole[:, rows, columns])
            assert torch.equal(part.mean(dim=(1, 2)), whole[:, rows, columns].mean(dim=(1, 2)))
    labels = np.arange(size[0] * size[1]).reshape(size)
    assert np.array_equal(
        resize_labels(labels, *scaled, part=(rows, columns)), resize_labels(labels, *scaled)[rows, columns]
    )


@pytest.mark.parametrize("scale", [1.0, 1.4, 2.3])
def test_fit_crop_equals_official_training_transform(official, scale: float):
    offset = official[f"data/train{scale}_crop_offset"].tolist()
    # Any fractions that lead to the recorded offset will do.
    size = jittered_size((45, 61), (64, 64), scale)
    top, left = ((o + 0.5) / max(n - 64, 1) for o, n in zip(offset, size, strict=True))
    labels = official["data/label_map"]
    cropped, masks = None, []
    for channel in (0, 1):
        cropped, part = fit_crop(official_image(official), labels[..., channel], (64, 64), scale, (top, left))
        assert list(part.shape) == official[f"data/train{scale}_unpadded_image_size"].tolist()
        part = np.pad(part, [(0, 64 - n) for n in part.shape])
        masks.append(resize_labels(part, 32, 32))
    shown = pad_image(cropped, 64, 64)[:, ::3, ::3].movedim(0, -1)
    assert official.error(f"data/train{scale}_image", shown) < 2e-5
    assert np.array_equal(np.stack(masks, axis=-1), official[f"data/train{scale}_label_map"])


def test_pad_image_official_grey_at_bottom_and_right():
    padded = pad_image(torch.ones(3, 2, 3), 4, 5)
    assert padded.shape == (3, 4, 5)
    assert (padded[:, :2, :3] == 1).all()
    assert (padded[:, 2:] == PAD).all()
    assert (padded[:, :, 3:] == PAD).all()
    assert pytest.approx(0.3) == PAD


def test_normalize_percentile():
    ramp = np.repeat(np.linspace(50, 99, 1000).round().astype(np.uint8), 3).reshape(-1, 20, 3)
    stretched = normalize(ramp, "percentile")
    assert stretched.dtype == np.uint8
    assert (stretched.min(), stretched.max()) == (0, 255)
    assert (np.diff(stretched.astype(int).reshape(-1, 3)[:, 0]) >= 0).all(), "order stays"
    assert normalize(ramp, "none") is ramp
    flat = np.full((4, 4, 3), 7, np.uint8)
    assert np.array_equal(normalize(flat, "percentile"), flat)


class Spy(torch.nn.Module):
    """Stands for the model: remembers the images it is given and answers with one mask."""

    def __init__(self, mask: np.ndarray) -> None:
        super().__init__()
        self.config = ModelConfig()
        self.quantizer = Quantizer(self.config.mask.bits, self.config.mask.scale, "binary", (255, 255))
        self.mask = torch.from_numpy(mask)
        self.seen: list[torch.Tensor] = []

    def pixel_encoder(self, images: torch.Tensor) -> ImageFeatures:
        self.seen.append(images)
        return ImageFeatures(images, images)

    def denoise(self, h: ImageFeatures, noise: torch.Tensor, steps: int, *_: object, **__: object):
        yield from [self.mask[None].expand(len(h.map), -1, -1, -1)] * steps

    def to_masks(self, mask: torch.Tensor) -> torch.Tensor:
        return mask


def test_segmenter_resizes_image_and_mask_as_official(official):
    """Scaled to fit with rounded size, padded; the mask enlarged, freed of its padding and resized to the image."""
    rng = np.random.default_rng(0)
    mask = np.stack([rng.integers(1, len(TAXONOMY) + 1, (32, 32)), rng.integers(1, 101, (32, 32))])
    spy = Spy(mask)
    pretrained = Checkpoint(spy, TAXONOMY, DataConfig(size=(64, 64)), InferConfig(min_pixels=0))  # type: ignore[arg-type]
    segmenter = Segmenter(pretrained, "cpu", "float32")
    panoptic = segmenter.image((official["data/image"] * 255).round().astype(np.uint8))
    (seen,) = segmenter.model.seen  # pyright: ignore
    assert official.error("data/eval_image", seen[0, :, ::3, ::3].movedim(0, -1)) < 3e-3, "8 bits give half of 1/255"
    height, width = official["data/eval_unpadded_image_size"].tolist()
    large = mask.repeat(2, axis=1).repeat(2, axis=2)[:, :height, :width]
    restored = resize_labels(large, 45, 61)
    ids = restored[1]
    for identity in np.unique(ids):
        votes = np.bincount(restored[0][ids == identity])
        assert set(np.unique(panoptic.class_map()[ids == identity])) == {votes.argmax()}


def test_normalize_percentile_is_that_of_numpy():
    rng = np.random.default_rng(0)
    for size in (1, 2, 7, 200, 1001):
        image = np.clip(rng.normal(120, 30, (size, 1, 3)), 0, 255).astype(np.uint8)
        low, high = np.percentile(image, (0.5, 99.8))
        expected = ((image - low) * (255 / max(high - low, 1e-9))).clip(0, 255).round() if high > low else image
        assert np.array_equal(normalize(image, "percentile"), expected)


SIZES = [((90, 70), (90, 70)), ((90, 70), (61, 40)), ((90, 70), (140, 111)), ((90, 70), (90, 33)), ((90, 70), (17, 70))]


@pytest.mark.parametrize(("size", "scaled"), SIZES)
def test_scaled_image_parts_have_the_bits_of_the_whole(size, scaled, monkeypatch):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    table = np.random.default_rng(1).permutation(256).astype(np.uint8)
    whole = resize_image(torch.from_numpy(table[image]).permute(2, 0, 1).float().div_(255), *scaled)
    monkeypatch.setattr(resize, "BAND", scaled[1] * 11)
    pixels = ScaledImage(Pixels(Image.fromarray(image)), table, *scaled)
    assert pixels.shape == whole.shape
    for top in (0, 5, scaled[0] - 6, 3):
        assert torch.equal(pixels[:, top : top + 9, 2:30], whole[:, top : top + 9, 2:30])
