"""A data set with the categories of a model: the same ones, which may stand in another order."""

from dataclasses import dataclass, replace
from typing import Any, Generic

from pix2seqd.data.sample import Clip, Item, Items, LazyFrames
from pix2seqd.files import InputError
from pix2seqd.panoptic.taxonomy import Category, Taxonomy


@dataclass(frozen=True)
class Reordered(Generic[Item]):
    """The items of a data set, whose segments have the classes of another taxonomy. A `Dataset` or `ClipDataset`."""

    dataset: Items[Item]
    taxonomy: Taxonomy
    """Has every category of the data set, with the same id."""

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Item:
        return _with_taxonomy(self.dataset[index], self.taxonomy)


def with_categories(dataset: Items[Item], taxonomy: Taxonomy) -> Items[Item]:
    """The data set with the taxonomy of a model, which has each of its categories: the same id, name and kind.

    The categories may be in another order, and the model may have more of them. Colours may differ.

    Raises:
        InputError: the model lacks a category; the message names it.
    """
    return dataset if _is_same(taxonomy, dataset.taxonomy) else Reordered(dataset, taxonomy)


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


def _with_taxonomy(item: Any, taxonomy: Taxonomy) -> Any:
    """A sample or clip with this taxonomy."""
    if isinstance(item, Clip):
        return Clip(item.name, LazyFrames(len(item.frames), lambda k: _with_taxonomy(item.frames[k], taxonomy)))
    return replace(item, panoptic=replace(item.panoptic, taxonomy=taxonomy))
