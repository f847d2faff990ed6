"""Training examples from clips: the last of a few frames, and the masks of those before it (§3.4)."""

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
"""Standard deviation of how far outlines move in a wrong past mask, in mask pixels, over `_PATCH` of which the shift
changes smoothly."""
_PATCH = 12


def frame_size(data: DataConfig, augment: AugmentConfig) -> tuple[int, int]:
    """Height and width that frames made for training need, so that at the smallest scale they still fill the input."""
    if data.layout == "resize":
        return data.size
    height, width = (math.ceil(n / (data.zoom * augment.jitter[0])) for n in data.size)
    return height, width


def clip_example(clip: Clip, taxonomy: Taxonomy, recipe: Recipe, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """A random frame, to be segmented given those before it, as the model trains on it.

    All frames are augmented alike, and ids are drawn once for all of them.

    Returns:
        What an example from a picture has, and "past", int64 `[f, 2, h, w]`, oldest first, void where there is no frame
        yet or it is left out; with `ClipsConfig.self_past_prob` also "past_images",
        float `[3, H, W]`: the frame just before.
    """
    config, f = recipe.clips, recipe.model.decoder.past_frames
    first = rng.random() < config.first_frame
    stride = 1 if config.past_stride == 1 else int(rng.integers(1, config.past_stride + 1))
    now = int(rng.integers(min(0 if first else f * stride, len(clip.frames) - 1), len(clip.frames)))
    there = [] if first else [k for k in range(now - f * stride, now, stride) if k >= 0]
    before = [k for k in there if rng.random() >= config.past_dropout]
    seed = int(rng.integers(2**63))
    frames = [clip.frames[k] for k in (*before, now)]
    data = recipe.data.at_scale_of(frames[-1].panoptic.diameter())
    shown, labels, classes = zip(*(_augmented(frame, data, recipe, seed) for frame in frames), strict=True)
    present = {i: c for part in classes for i, c in part.items()}
    masks, instances = draw_mask(np.stack(labels), present, taxonomy, recipe.data, recipe.model.mask.max_instances, rng)
    past = np.full((f, *masks.shape[1:]), VOID)
    for k, mask, numbers in zip(before, masks, instances, strict=False):
        past[f - (now - k) // stride] = wrong_past(mask, numbers, config.past_noise, rng) if config.past_noise else mask
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
    """Picture, labels at mask resolution and classes of a frame; the seed is the clip's."""
    panoptic = frame.panoptic.without_crowds()
    classes = {s.id: panoptic.taxonomy.class_of(s.category_id) for s in panoptic.segments}
    pixels = normalize(frame.image, data.normalize)
    rng = np.random.default_rng(seed)
    image, labels = augment(pixels, panoptic.segmentation, data, recipe.augment, rng)
    height, width = (n // recipe.model.mask.stride for n in labels.shape)
    return image.contiguous(), resize_labels(labels, height, width), classes


def wrong_past(mask: np.ndarray, instances: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A mask as a model might have predicted it: errors feed back in use, so training should show some.

    Outlines move by about a pixel. Each instance is, with this probability, lost (it becomes what fills most of the
    mask), joined to its nearest neighbour, or cut in two, of which one half takes another instance's values.

    Args:
        mask: int64 `[2, h, w]`.
        instances: int64 `[h, w]`, a number per instance, 0 = void.
        share: probability, 0..1.
        rng: source of randomness.
    """
    changed = _mistaken(mask, instances, share, rng)
    height, width = instances.shape
    coarse = rng.normal(0, _SHIFT, (1, 2, height // _PATCH + 2, width // _PATCH + 2)).astype(np.float32)
    shift = F.interpolate(torch.from_numpy(coarse), (height, width), mode="bilinear")[0].round().long().numpy()
    rows, columns = (
        np.clip(np.indices(instances.shape)[k] + shift[k], 0, n - 1) for k, n in enumerate((height, width))
    )
    return changed[:, rows, columns]


def _mistaken(mask: np.ndarray, instances: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A mask with some instances lost, joined or cut, outlines as they are; see `wrong_past`."""
    numbers, first, index, counts = np.unique(instances, return_index=True, return_inverse=True, return_counts=True)
    index = index.reshape(instances.shape)  # of each pixel's instance in `numbers`
    grid = np.indices(instances.shape)
    centers = np.stack([np.bincount(index.ravel(), weights=axis.ravel()) for axis in grid]) / counts
    largest = int(counts.argmax())
    distances = np.linalg.norm(centers[:, :, None] - centers[:, None], axis=0)
    np.fill_diagonal(distances, np.inf)
    distances[:, largest] = np.inf
    itself = np.arange(len(numbers))
    errors = [np.full(len(numbers), largest), distances.argmin(axis=1), rng.integers(len(numbers), size=len(numbers))]
    wrong = (rng.random(len(numbers)) < share) & (itself != largest)
    kind = rng.integers(3, size=len(numbers))
    source = np.where(wrong, np.choose(kind, errors), itself)
    turns = rng.uniform(0, 2 * np.pi, len(numbers))
    normal = np.stack([np.sin(turns), np.cos(turns)])
    kept = (wrong & (kind == 2))[index] & (((grid - centers[:, index]) * normal[:, index]).sum(axis=0) > 0)
    return mask.reshape(2, -1)[:, first][:, np.where(kept, index, source[index])]
