"""The parts of a data set that a run trains on and is scored on, written down so that they stay the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pix2seqd.data.categories import with_categories
from pix2seqd.data.sample import Dataset, Sample, Subset
from pix2seqd.files import InputError, read_json
from pix2seqd.panoptic.taxonomy import Taxonomy

SUBSETS = ("train", "eval")


@dataclass(frozen=True)
class Part(Subset[Sample]):
    """Some samples of a data set that was divided. A `Dataset`."""

    names: tuple[str, ...]
    """Names of all samples of the data set, in its order, when it was divided."""
    file: str
    """The file that divides the data set, for messages."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        self.check(sample.name == self.names[self.indices[index]])
        return sample

    def check(self, same: bool) -> None:
        """Raise an `InputError` unless the data set is the `same` that was divided."""
        if not same:
            raise InputError(
                f"the data has other images than when {self.file} divided it; restore them, or start with another --out"
            )


def divide(contents: Sequence[bytes], share: float = 0.1) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Divide items by the digests of their contents; equal items stay together, others hardly matter for an item.

    Returns the indices, ascending, of the items in the first and in the second part, which has this share of the
    different contents, at least one, but not all. A single content is in both.
    """
    distinct = sorted(set(contents))
    second = set(distinct[: max(1, min(round(share * len(distinct)), len(distinct) - 1))])
    parts = [
        tuple(i for i, content in enumerate(contents) if (content in second) == wanted) for wanted in (False, True)
    ]
    return parts[0] or parts[1], parts[1]


def describe(
    taxonomy: Taxonomy, train: str, evaluate: str, names: Sequence[str] = (), held_out: Sequence[int] = ()
) -> dict[str, Any]:
    """The content of the file that `open_part` reads: the data to train on and to score, as `open_dataset` takes them.

    The taxonomy has the order of the model's classes. If one data set is divided, `names` are those of all its samples,
    and `held_out` the indices of those that are scored.
    """
    parts: dict[str, Any] = {"train": {"data": train}, "eval": {"data": evaluate}}
    if names:
        out = set(held_out)
        chosen = [i for i in range(len(names)) if i not in out] or sorted(out)
        parts = {"names": list(names), "train": {"data": train, "chosen": chosen}}
        parts["eval"] = {"data": evaluate, "chosen": sorted(out)}
    return {"categories": taxonomy.to_coco(), **parts}


def undivided(source: str) -> str:
    """The name of the data set that `split:FILE@PART` is a part of; other names stay."""
    kind, _, rest = source.partition(":")
    file, _, part = rest.rpartition("@")
    if kind != "split":
        return source
    try:
        return str(read_json(file)[part]["data"])
    except (KeyError, TypeError) as error:
        raise _damaged(file) from error


def _damaged(file: str) -> InputError:
    return InputError(f"{file} does not describe the data of a run; start anew with another --out")


def open_part(file: str, part: str, open_source: Callable[[str], Dataset]) -> Dataset:
    """Open a part, one of `SUBSETS`, of the data of a run.

    `file` has the content that `describe` makes; `open_source` opens the data set of a name. What is missing, damaged
    or has changed is an `InputError`.
    """
    content = read_json(file)
    try:
        taxonomy = Taxonomy.from_coco(content["categories"])
        source, names = str(content[part]["data"]), tuple(content.get("names", ()))
        chosen = tuple(int(i) for i in content[part]["chosen"]) if names else ()
        if min(chosen, default=-bool(names)) < 0:
            raise ValueError(chosen)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise _damaged(file) from error
    try:
        dataset = with_categories(open_source(source), taxonomy)
    except RecursionError as error:  # a file that names itself
        raise _damaged(file) from error
    if not names:
        return dataset
    found = Part(dataset, chosen, names, file)
    found.check(len(dataset) == len(names) and max(chosen) < len(names))
    return found
