"""Training batches. They depend only on (seed, position), not on the number of workers and processes."""

import signal
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from pix2seqd.config import DataConfig, Recipe
from pix2seqd.data.augment import augment
from pix2seqd.data.clip_examples import clip_example
from pix2seqd.data.ids import draw_mask
from pix2seqd.data.sample import ClipDataset, Dataset
from pix2seqd.data.shards import Shards
from pix2seqd.files import InputError
from pix2seqd.images.resize import normalize, resize_labels

ENDS = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}
"""Signals that end a training: what schedulers send, and a terminal that is closed (Windows has no such signal)."""


class TrainingExamples(TorchDataset[dict[str, torch.Tensor]]):
    """An endless stream of training examples, by position.

    Position n is in epoch n // length. Each epoch has its own order, and each example its own random generator, seeded
    by (seed, epoch, index). Decoded images are cached up to `cache_bytes`.
    """

    def __init__(self, dataset: Dataset, recipe: Recipe, cache_bytes: int = 2**31) -> None:
        self.dataset = dataset
        self.recipe = recipe
        self.cache: dict[int, tuple[np.ndarray, np.ndarray, dict[int, int], DataConfig]] = {}
        self.cache_left = cache_bytes
        self.epoch_order: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        epoch, rank = divmod(position, len(self.dataset))
        index = int(self._order(epoch)[rank])
        return self.example(index, np.random.default_rng([self.recipe.train.seed, epoch, index]))

    def example(self, index: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Augment sample `index` and draw its ids.

        Returns:
            "images": float `[3, H, W]` in 0..1; "masks": int64 `[2, h, w]`, class and id at mask resolution; with
            reused ids also "instances": int64 `[h, w]`.
        """
        recipe = self.recipe
        image, segmentation, classes, data = self._read(index)
        tensor, labels = augment(image, segmentation, data, recipe.augment, rng)
        stride = recipe.model.mask.stride
        labels = resize_labels(labels, labels.shape[0] // stride, labels.shape[1] // stride)
        mask, instances = draw_mask(
            labels, classes, self.dataset.taxonomy, recipe.data, recipe.model.mask.max_instances, rng
        )
        example = {"images": tensor.contiguous(), "masks": torch.from_numpy(mask)}
        if recipe.data.ids == "reused":
            example["instances"] = torch.from_numpy(instances)
        return example

    def _order(self, epoch: int) -> np.ndarray:
        """The order of samples in an epoch; cached, because drawing a long one takes longer than reading a sample."""
        if epoch != self.epoch_order[0]:
            rng = np.random.default_rng([self.recipe.train.seed, epoch])
            dataset = self.dataset
            order = dataset.order(rng) if isinstance(dataset, Shards) else rng.permutation(len(dataset))
            self.epoch_order = epoch, order
        return self.epoch_order[1]

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray, dict[int, int], DataConfig]:
        if index in self.cache:
            return self.cache[index]
        sample = self.dataset[index]
        panoptic = sample.panoptic.without_crowds()
        data = self.recipe.data.at_scale_of(panoptic.diameter())
        item = (normalize(sample.image, data.normalize), panoptic.segmentation, panoptic.classes, data)
        size = item[0].nbytes + item[1].nbytes
        if size <= self.cache_left:
            self.cache_left -= size
            self.cache[index] = item
        return item


class ClipExamples(TrainingExamples):
    """An endless stream of training examples from clips (§3.4); see `TrainingExamples`."""

    def __init__(self, clips: ClipDataset, recipe: Recipe) -> None:
        super().__init__(cast(Dataset, clips), recipe)
        self.clips = clips

    def example(self, index: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Draw a frame of clip `index` and the masks before it; see `clip_example`."""
        return clip_example(self.clips[index], self.clips.taxonomy, self.recipe, rng)


class Positions(Sampler[int]):
    """The positions of the stream that one process trains on: its share of every batch, from `start` to `stop`."""

    def __init__(self, start: int, stop: int, share: int, process: int, processes: int) -> None:
        self.start, self.stop, self.share, self.process, self.processes = start, stop, share, process, processes

    def __iter__(self) -> Iterator[int]:
        for batch in range(self.start, self.stop, self.share * self.processes):
            first = batch + self.process * self.share
            yield from range(first, first + self.share)

    def __len__(self) -> int:
        return (self.stop - self.start) // self.processes


def training_loader(
    dataset: Dataset | ClipDataset, recipe: Recipe, start_step: int, process: int = 0, processes: int = 1
) -> "DataLoader[Any]":
    """Micro-batches of one of several processes, from `start_step` to the last step of the recipe.

    The data set has clips if the model of the recipe has past frames, otherwise images. A batch size that is not
    divisible by the number of processes times accumulated micro-batches is an `InputError`.
    """
    train = recipe.train
    share, rest = divmod(train.batch_size, processes * train.accumulate)
    if rest or not share:
        parts = f"{processes} processes × {train.accumulate} micro-batches"
        raise InputError(f"batch_size {train.batch_size} does not divide among {parts}; change one of them")
    positions = Positions(start_step * train.batch_size, train.steps * train.batch_size, share, process, processes)
    if recipe.model.decoder.past_frames:
        examples = ClipExamples(cast(ClipDataset, dataset), recipe)
    else:
        examples = TrainingExamples(cast(Dataset, dataset), recipe)
    return DataLoader(
        examples,
        batch_size=share,
        sampler=positions,
        num_workers=train.workers,
        worker_init_fn=_ignore_ends,
    )


def _ignore_ends(worker: int) -> None:
    """Every process gets these signals; the training process ends its workers after it has saved."""
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)
