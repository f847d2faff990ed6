"""A data set with the categories of a model: the same ones, which may stand in another order."""

from dataclasses import dataclass, replace

from pix2seqd.data.sample import Clip, ClipDataset, Dataset, LazyFrames, Sample
from pix2seqd.files import InputError
from pix2seqd.panoptic.taxonomy import Category, Taxonomy


@dataclass(frozen=True)
class Reordered:
    """The samples of a data set, whose segments have the classes of another taxonomy. A `Dataset`."""

    dataset: Dataset
    taxonomy: Taxonomy
    """Has every category of the data set, with the same id."""

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        return _with_taxonomy(self.dataset[index], self.taxonomy)


@dataclass(frozen=True)
class ReorderedClips:
    """The same for clips. A `ClipDataset`."""

    clips: ClipDataset
    taxonomy: Taxonomy

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        clip = self.clips[index]
        return Clip(clip.name, LazyFrames(len(clip.frames), lambda k: _with_taxonomy(clip.frames[k], self.taxonomy)))


def with_categories(dataset: Dataset, taxonomy: Taxonomy) -> Dataset:
    """The data set with the taxonomy of a model, which has each of its categories: the same id, name and kind.

    The categories may be in another order, and the model may have more of them. Colours may differ.

    Raises:
        InputError: the model lacks a category; the message names it.
    """
    return dataset if _is_same(taxonomy, dataset.taxonomy) else Reordered(dataset, taxonomy)


def clips_with_categories(clips: ClipDataset, taxonomy: Taxonomy) -> ClipDataset:
    """`with_categories` for clips.

    Raises:
        InputError: the model lacks a category.
    """
    return clips if _is_same(taxonomy, clips.taxonomy) else ReorderedClips(clips, taxonomy)


def _is_same(model: Taxonomy, data: Taxonomy) -> bool:
    """Whether the categories have the same order too."""
    known = {_meaning(category): category for category in model.categories}
    for category in data.categories:
        if _meaning(category) not in known:
            same_id = [c for c in model.categories if c.id == category.id]
            near = same_id or [c for c in model.categories if c.name == category.name]
            instead = f"has {_meaning(near[0])}" if near else f"has no category {category.id}"
            raise InputError(
                f"the categories of model and data differ: the data has {_meaning(category)}, the model {instead}; "
                "give data with the categories of the model"
            )
    return list(known) == [_meaning(category) for category in data.categories]


def _meaning(category: Category) -> str:
    return f'{category.id} "{category.name}" ({"thing" if category.isthing else "stuff"})'


def _with_taxonomy(sample: Sample, taxonomy: Taxonomy) -> Sample:
    return replace(sample, panoptic=replace(sample.panoptic, taxonomy=taxonomy))
