"""Batches for training: a pure function of (seed, position), whatever the number of workers and processes."""

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


class TrainingExamples(TorchDataset[dict[str, torch.Tensor]]):
    """Example number n of an endless stream: epoch n // length, in that epoch's own order, augmented by its own rng.

    Pictures are decoded once and kept (`cache`) as far as `cache_bytes` reaches.
    """

    def __init__(self, dataset: Dataset, recipe: Recipe, cache_bytes: int = 2**31) -> None:
        self.dataset = dataset
        self.recipe = recipe
        self.cache: dict[int, tuple[np.ndarray, np.ndarray, dict[int, int], DataConfig]] = {}
        self.cache_left = cache_bytes
        self.drawn: tuple[int, np.ndarray] = (-1, np.empty(0, int))

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        epoch, place = divmod(position, len(self.dataset))
        index = int(self._order(epoch)[place])
        return self.example(index, np.random.default_rng([self.recipe.train.seed, epoch, index]))

    def example(self, index: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Sample `index` as the model trains on it."""
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
        """Which sample comes when; kept, since drawing a long one takes longer than a sample."""
        if epoch != self.drawn[0]:
            rng = np.random.default_rng([self.recipe.train.seed, epoch])
            whole = self.dataset
            self.drawn = epoch, whole.order(rng) if isinstance(whole, Shards) else rng.permutation(len(whole))
        return self.drawn[1]

    def _read(self, index: int) -> tuple[np.ndarray, np.ndarray, dict[int, int], DataConfig]:
        if index in self.cache:
            return self.cache[index]
        sample = self.dataset[index]
        panoptic = sample.panoptic.without_crowds()
        classes = {s.id: panoptic.taxonomy.class_of(s.category_id) for s in panoptic.segments}
        data = self.recipe.data.at_scale_of(panoptic.diameter())
        item = (normalize(sample.image, data.normalize), panoptic.segmentation, classes, data)
        size = item[0].nbytes + item[1].nbytes
        if size <= self.cache_left:
            self.cache_left -= size
            self.cache[index] = item
        return item


class ClipExamples(TrainingExamples):
    """As `TrainingExamples`, of clips (§3.4)."""

    def __init__(self, clips: ClipDataset, recipe: Recipe) -> None:
        super().__init__(cast(Dataset, clips), recipe)
        self.clips = clips

    def example(self, index: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """A frame of clip `index`, and the masks before it, as the model trains on them."""
        return clip_example(self.clips[index], self.clips.taxonomy, self.recipe, rng)


class Positions(Sampler[int]):
    """The stretch of the stream that one process trains on: every `processes`-th batch-share from `start` on."""

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
    """Micro-batches of one process, from `start_step` to the last step of the recipe.

    The data are clips if the recipe's model has past frames, else pictures.

    Raises:
        InputError: the batch does not divide among processes and accumulated micro-batches.
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
        worker_init_fn=_await_the_end,
    )


def _await_the_end(worker: int) -> None:
    """A scheduler sends SIGTERM to every process; the training one ends the workers when it has saved."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
