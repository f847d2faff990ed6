"""Training examples from clips: one frame, and the masks of the frames before it (§3.4)."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from pix2seqd.config import AugmentConfig, DataConfig, Recipe
from pix2seqd.data.augment import augment
from pix2seqd.data.ids import draw_mask
from pix2seqd.data.sample import Clip, Sample
from pix2seqd.images.resize import normalize, resize_labels
from pix2seqd.panoptic.taxonomy import VOID, Taxonomy

_SHIFT = 1.2
"""Standard deviation of the displacement of outlines in a corrupted past mask, in mask pixels."""
_PATCH = 12
"""Grid spacing of the displacement field, in mask pixels; between grid points it is interpolated."""


def frame_size(data: DataConfig, augment: AugmentConfig) -> tuple[int, int]:
    """Height and width of synthetic training frames, such that they fill the input even at the smallest scale."""
    if data.layout == "resize":
        return data.size
    height, width = (math.ceil(n / (data.zoom * augment.jitter[0])) for n in data.size)
    return height, width


def clip_example(clip: Clip, taxonomy: Taxonomy, recipe: Recipe, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """Draw a training example: a random frame of the clip, conditioned on the masks of the frames before it (§3.4).

    All frames are augmented with the same parameters, and ids are drawn once for all of them.

    Returns:
        The entries of an image example (`TrainingExamples.example`), and "past": int64 `[f, 2, h, w]`, oldest first,
        void for frames that do not exist or are dropped. If `ClipsConfig.self_past_prob` is above 0, also
        "past_images": float `[3, H, W]`, the preceding frame.
    """
    config, f = recipe.clips, recipe.model.decoder.past_frames
    first = rng.random() < config.first_frame
    stride = 1 if config.past_stride == 1 else int(rng.integers(1, config.past_stride + 1))
    now = int(rng.integers(min(0 if first else f * stride, len(clip.frames) - 1), len(clip.frames)))
    existing = [] if first else [k for k in range(now - f * stride, now, stride) if k >= 0]
    before = [k for k in existing if rng.random() >= config.past_dropout]
    seed = int(rng.integers(2**63))
    frames = [clip.frames[k] for k in (*before, now)]
    data = recipe.data.at_scale_of(frames[-1].panoptic.diameter())
    shown, labels, classes = zip(*(_augmented(frame, data, recipe, seed) for frame in frames), strict=True)
    present = {i: c for part in classes for i, c in part.items()}
    masks, instances = draw_mask(np.stack(labels), present, taxonomy, recipe.data, recipe.model.mask.max_instances, rng)
    past = np.full((f, *masks.shape[1:]), VOID)
    for k, mask, numbers in zip(before, masks, instances, strict=False):
        mask = corrupt_past(mask, numbers, config.past_noise, rng) if config.past_noise else mask
        past[f - (now - k) // stride] = mask
    example = {"images": shown[-1], "masks": torch.from_numpy(masks[-1]), "past": torch.from_numpy(past)}
    if recipe.data.ids == "reused":
        example["instances"] = torch.from_numpy(instances[-1])
    if config.self_past_prob:
        example["past_images"] = (
            shown[before.index(now - stride)] if now - stride in before else torch.zeros_like(shown[-1])
        )
    return example


def _augmented(
    frame: Sample, data: DataConfig, recipe: Recipe, seed: int
) -> tuple[torch.Tensor, np.ndarray, dict[int, int]]:
    """Image, labels at mask resolution and classes of a frame; `seed` is the same for all frames of the clip."""
    panoptic = frame.panoptic.without_crowds()
    pixels = normalize(frame.image, data.normalize)
    rng = np.random.default_rng(seed)
    image, labels = augment(pixels, panoptic.segmentation, data, recipe.augment, rng)
    height, width = (n // recipe.model.mask.stride for n in labels.shape)
    return image.contiguous(), resize_labels(labels, height, width), panoptic.classes


def corrupt_past(mask: np.ndarray, instances: np.ndarray, prob: float, rng: np.random.Generator) -> np.ndarray:
    """Add errors to a past mask, such as a model makes, because errors feed back at inference.

    Outlines are displaced by about one pixel. With probability `prob`, each instance is removed (it takes the value of
    the largest segment), merged with its nearest neighbour, or split in two, where one half takes the values of another
    instance. Masks are int64 `[2, h, w]`; `instances`, int64 `[h, w]`, has a number per instance, 0 = void.
    """
    changed = _corrupt_instances(mask, instances, prob, rng)
    height, width = instances.shape
    coarse = rng.normal(0, _SHIFT, (1, 2, height // _PATCH + 2, width // _PATCH + 2)).astype(np.float32)
    shift = F.interpolate(torch.from_numpy(coarse), (height, width), mode="bilinear")[0].round().long().numpy()
    rows, columns = (
        np.clip(np.indices(instances.shape)[k] + shift[k], 0, n - 1) for k, n in enumerate((height, width))
    )
    return changed[:, rows, columns]


def _corrupt_instances(mask: np.ndarray, instances: np.ndarray, prob: float, rng: np.random.Generator) -> np.ndarray:
    """Remove, merge or split some instances, without displacement; see `corrupt_past`."""
    numbers, first, index, counts = np.unique(instances, return_index=True, return_inverse=True, return_counts=True)
    index = index.reshape(instances.shape)  # per pixel, the index of its instance in `numbers`
    grid = np.indices(instances.shape)
    centers = np.stack([np.bincount(index.ravel(), weights=axis.ravel()) for axis in grid]) / counts
    largest = int(counts.argmax())
    distances = np.linalg.norm(centers[:, :, None] - centers[:, None], axis=0)
    np.fill_diagonal(distances, np.inf)
    distances[:, largest] = np.inf
    identity = np.arange(len(numbers))
    errors = [np.full(len(numbers), largest), distances.argmin(axis=1), rng.integers(len(numbers), size=len(numbers))]
    wrong = (rng.random(len(numbers)) < prob) & (identity != largest)
    kind = rng.integers(3, size=len(numbers))
    source = np.where(wrong, np.choose(kind, errors), identity)
    turns = rng.uniform(0, 2 * np.pi, len(numbers))
    normal = np.stack([np.sin(turns), np.cos(turns)])
    kept = (wrong & (kind == 2))[index] & (((grid - centers[:, index]) * normal[:, index]).sum(axis=0) > 0)
    return mask.reshape(2, -1)[:, first][:, np.where(kept, index, source[index])]
