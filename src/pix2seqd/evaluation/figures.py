"""Figures 3 and 4 of the paper, from any labelled image."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pix2seqd.analog_bits import analog
from pix2seqd.config import DataConfig, ModelConfig
from pix2seqd.data.ids import draw_mask
from pix2seqd.data.sample import Sample
from pix2seqd.diffusion import corrupt, gamma
from pix2seqd.evaluation.plot import grid
from pix2seqd.images.resize import resize_image, resize_labels
from pix2seqd.loss import instance_weights

CONFIG = ModelConfig()
"""The paper's configuration, for its bits and noise schedule."""


def noisy_masks(
    sample: Sample,
    side: int = 160,
    scales: Sequence[float] = (1.0, 0.1),
    times: Sequence[float] = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9),
) -> Image.Image:
    """Figure 3: the mask with increasing noise (Eq. 1), a row for each input scaling b and a column for each time t.

    The analog bits are scaled to unit variance and projected to red, green and blue with fixed random weights. Each
    (class, id) has a colour, and the noise of the colours is as strong as that of the bits. `side` is the longer side
    of the mask in pixels.
    """
    _, mask = _resized(sample, side)
    generator = torch.Generator().manual_seed(0)
    eps = torch.randn(1, CONFIG.mask.total_bits, *mask.shape[-2:], generator=generator)
    mix = torch.randn(3, CONFIG.mask.total_bits, generator=generator)
    rows = []
    for scale in scales:
        m_bits = analog(mask[None], CONFIG.mask.bits, scale)
        noisy = [(gamma(torch.tensor([t]), CONFIG.schedule), t) for t in times]
        states = [corrupt(m_bits, eps, g)[0] / (g * scale**2 + 1 - g).sqrt() for g, _ in noisy]
        rows.append([_colored(torch.einsum("cn,nhw->chw", mix, state)) for state in states])
    return grid(rows, [f"b = {scale:g}" for scale in scales], [f"t = {t:g}" for t in times])


def loss_weights(sample: Sample, side: int = 240, exponents: Sequence[float] = (0.0, 0.2, 0.4, 0.6)) -> Image.Image:
    """Figure 4: the image, and the loss weight of each mask pixel for several p (§3.2). Warm colours are high weights.

    `side` is the longer side of each panel in pixels.
    """
    image, mask = _resized(sample, side)
    max_instances = 2 ** CONFIG.mask.bits[1]
    logs = [instance_weights(mask[1][None], p, max_instances)[0].clamp(min=1e-3).log() for p in exponents]
    limit = max(1e-6, *(weights.abs().max().item() for weights in logs))
    maps = [Image.fromarray(_diverging_colors((weights / limit).numpy())) for weights in logs]
    return grid([[image, *maps]], [""], ["", *(f"p = {p:g}" for p in exponents)])


def _resized(sample: Sample, side: int) -> tuple[Image.Image, Tensor]:
    """Image and mask `[2, h, w]` with a longer side of `side` pixels; ids are drawn as in training."""
    panoptic, rng = sample.panoptic, np.random.default_rng(0)
    height, width = panoptic.segmentation.shape
    scale = side / max(height, width)
    height, width = max(round(height * scale), 1), max(round(width * scale), 1)
    labels = resize_labels(panoptic.segmentation, height, width)
    mask, _ = draw_mask(labels, panoptic.classes, panoptic.taxonomy, DataConfig(), 2 ** CONFIG.mask.bits[1], rng)
    tensor = torch.from_numpy(np.array(sample.image)).permute(2, 0, 1).float() / 255
    return _to_image(resize_image(tensor, height, width)), torch.from_numpy(mask)


def _colored(mixed: Tensor) -> Image.Image:
    """`[3, h, w]` of about unit variance per bit → RGB, with a range of ± 3 standard deviations."""
    return _to_image(0.5 + mixed / (6 * CONFIG.mask.total_bits**0.5))


def _to_image(tensor: Tensor) -> Image.Image:
    """Float `[3, h, w]`, 0..1 → RGB image."""
    return Image.fromarray((tensor.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().numpy())


def _diverging_colors(values: np.ndarray) -> np.ndarray:
    """-1..1 → uint8 RGB `[h, w, 3]`: blue, white at 0, yellow to red."""
    points = (-1.0, -0.5, 0.0, 0.4, 0.7, 1.0)
    colors = ((28, 42, 120), (80, 140, 210), (240, 240, 235), (250, 215, 110), (240, 120, 50), (165, 15, 35))
    channels = [np.interp(values, points, channel) for channel in zip(*colors, strict=True)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)
