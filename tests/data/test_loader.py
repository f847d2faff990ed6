from itertools import islice

import numpy as np
import pytest
import torch

from pix2seqd.config import AugmentConfig, DataConfig, ModelConfig, Recipe, TrainConfig
from pix2seqd.data.coco import CocoPanoptic
from pix2seqd.data.loader import Positions, TrainingExamples, training_loader
from pix2seqd.data.sample import Sample
from pix2seqd.data.synthetic.shapes import Shapes
from pix2seqd.files import InputError


@pytest.fixture
def recipe() -> Recipe:
    return Recipe(
        model=ModelConfig.preset("tiny"),
        data=DataConfig(size=(16, 24)),
        augment=AugmentConfig(jitter=(0.8, 1.5), color_jitter=0.5, flip="horizontal"),
        train=TrainConfig(batch_size=6, steps=5, workers=0, seed=3),
    )


class InMemory:
    """Samples in memory, because rendering them is the slowest part of these tests."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples, self.taxonomy = samples, samples[0].panoptic.taxonomy

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


@pytest.fixture(scope="module")
def data() -> InMemory:
    return InMemory(list(Shapes(7, (20, 20))))


def batches(dataset, recipe: Recipe, start: int = 0, process: int = 0, processes: int = 1) -> list[dict]:
    return list(training_loader(dataset, recipe, start, process, processes))


def assert_same(one: list[dict], other: list[dict]) -> None:
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_training_loader_batch(data, recipe):
    (batch, *rest) = batches(data, recipe)
    assert len(rest) == 4
    assert set(batch) == {"images", "masks"}
    assert batch["images"].shape == (6, 3, 16, 24)
    assert batch["images"].dtype == torch.float32
    assert 0 <= batch["images"].min() < batch["images"].max() <= 1
    assert batch["masks"].shape == (6, 2, 8, 12)
    assert batch["masks"].dtype == torch.int64
    assert batch["masks"][:, 0].max() <= len(Shapes.taxonomy)
    assert batch["masks"][:, 1].max() < recipe.model.mask.max_instances
    assert torch.equal(batch["masks"][:, 0] == 0, batch["masks"][:, 1] == 0), "void in both channels"


def test_training_loader_reused_ids_add_instances(data, recipe):
    (batch, *_) = batches(data, recipe.replace(data=recipe.data.replace(ids="reused")))
    assert set(batch) == {"images", "masks", "instances"}
    assert batch["instances"].shape == (6, 8, 12)
    assert torch.equal(batch["instances"] == 0, batch["masks"][:, 0] == 0)


def test_training_loader_independent_of_workers(data, recipe):
    two = recipe.replace(train=recipe.train.replace(workers=2))
    assert_same(batches(data, recipe), batches(data, two))


@pytest.mark.parametrize("accumulate", [1, 3])
def test_training_loader_resumes_at_start_step(data, recipe, accumulate: int):
    recipe = recipe.replace(train=recipe.train.replace(accumulate=accumulate))
    whole = batches(data, recipe)
    assert_same(batches(data, recipe, start=2), whole[2 * accumulate :])
    assert batches(data, recipe, start=5) == []


@pytest.mark.parametrize(("processes", "accumulate"), [(1, 2), (2, 1), (3, 2), (6, 1)])
def test_training_loader_splits_batches_among_processes(data, recipe, processes: int, accumulate: int):
    whole = batches(data, recipe)
    shared = recipe.replace(train=recipe.train.replace(accumulate=accumulate))
    shares = [batches(data, shared, process=p, processes=processes) for p in range(processes)]
    for step, batch in enumerate(whole):
        parts = [share[step * accumulate + micro] for micro in range(accumulate) for share in shares]
        for key, value in batch.items():
            assert torch.equal(torch.cat([part[key] for part in parts]), value)


def test_positions_of_one_process():
    positions = Positions(start=6, stop=30, share=2, process=1, processes=3)
    assert list(positions) == [8, 9, 14, 15, 20, 21, 26, 27]
    assert len(positions) == 8


def test_training_loader_rejects_indivisible_batch(data, recipe):
    with pytest.raises(InputError, match="batch_size 6 does not divide among 4 processes × 1 micro-batches"):
        training_loader(data, recipe, 0, 0, 4)
    with pytest.raises(InputError, match="does not divide"):
        training_loader(data, recipe.replace(train=recipe.train.replace(accumulate=7)), 0)


class Counted:
    """Images filled with their index; counts how often each is read."""

    taxonomy = Shapes.taxonomy

    def __init__(self, length: int) -> None:
        self.length, self.reads, self.sample = length, [0] * length, Shapes(1, (16, 24))[0]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        self.reads[index] += 1
        sample = self.sample
        return Sample(str(index), np.full_like(sample.image, index), sample.panoptic)


def test_training_examples_epochs_are_permutations(recipe):
    examples = TrainingExamples(Counted(10), recipe.replace(augment=AugmentConfig()))
    seen = [round(examples[position]["images"].max().item() * 255) for position in range(40)]
    epochs = [seen[i : i + 10] for i in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    other = TrainingExamples(Counted(10), recipe.replace(augment=AugmentConfig(), train=recipe.train.replace(seed=4)))
    assert [round(other[p]["images"].max().item() * 255) for p in range(10)] != epochs[0]


def test_training_examples_augmentation_differs_between_epochs(recipe):
    examples = TrainingExamples(Shapes(1, (16, 24)), recipe)
    images = [example["images"] for example in islice(examples, 5)]
    assert all(not torch.equal(images[0], image) for image in images[1:])
    masks = [examples[position]["masks"] for position in range(5)]
    assert len({tuple(mask[1].unique().tolist()) for mask in masks}) > 1, "ids differ too"
    assert torch.equal(examples[3]["images"], images[3])


def test_training_examples_cache_limit(recipe):
    for budget, reads in ((2**20, 1), (0, 3)):
        counted = Counted(4)
        examples = TrainingExamples(counted, recipe, cache_bytes=budget)
        for position in range(12):
            examples[position]
        assert counted.reads == [reads] * 4


def test_training_examples_crowds_are_void(mini, recipe):
    """`mini` is 8 x 6: a lawn with a cat, a crowd of cats of 5 pixels and a void column; and an image of lawn only."""
    plain = recipe.replace(augment=AugmentConfig(), data=DataConfig(size=(12, 16)))
    examples = TrainingExamples(CocoPanoptic.open(mini, "val"), plain)
    masks = [examples[position]["masks"] for position in (0, 1)]
    assert {int((mask[0] == 0).sum()) for mask in masks} == {0, 6 + 5}
