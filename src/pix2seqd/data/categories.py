"""A data set with the categories of a model: the same ones, which may stand in another order."""

from dataclasses import replace
from functools import partial
from typing import Any

from pix2seqd.data.sample import Clip, Item, Items, LazyFrames, Mapped
from pix2seqd.files import InputError
from pix2seqd.panoptic.taxonomy import Taxonomy


def with_categories(dataset: Items[Item], taxonomy: Taxonomy) -> Items[Item]:
    """The data set with the taxonomy of a model, which has each of its categories: the same id, name and kind.

    The categories may be in another order, and the model may have more of them. Colours may differ. An `InputError`
    names a category that the model lacks.
    """
    if _is_same(taxonomy, dataset.taxonomy):
        return dataset
    return Mapped(dataset, taxonomy, partial(_with_taxonomy, taxonomy=taxonomy))


def _is_same(model: Taxonomy, data: Taxonomy) -> bool:
    """Whether the categories have the same order too."""
    known = list(map(str, model.categories))
    for category in data.categories:
        if str(category) not in known:
            same_id = [c for c in model.categories if c.id == category.id]
            near = same_id or [c for c in model.categories if c.name == category.name]
            instead = f"has {near[0]}" if near else f"has no category {category.id}"
            raise InputError(
                f"the categories of model and data differ: the data has {category}, the model {instead}; "
                "give data with the categories of the model"
            )
    return known == list(map(str, data.categories))


def _with_taxonomy(item: Any, taxonomy: Taxonomy) -> Any:
    """A sample or clip with this taxonomy."""
    if isinstance(item, Clip):
        return Clip(item.name, LazyFrames(len(item.frames), lambda k: _with_taxonomy(item.frames[k], taxonomy)))
    return replace(item, panoptic=replace(item.panoptic, taxonomy=taxonomy))
