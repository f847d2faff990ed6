"""A folder of images and a folder of label PNGs with the same names: the simplest format for custom data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pix2seqd.data.archive import read_image
from pix2seqd.data.label_pngs import Labels
from pix2seqd.data.sample import Sample
from pix2seqd.files import InputError


class Folder:
    """Images and their label PNGs, sorted by name. A `Dataset`.

    Attributes:
        labels: the meaning of the PNGs' values, declared or detected.
        taxonomy: the taxonomy of `labels`.
        records: `file_name` of each image.
    """

    def __init__(self, images: Path, pngs: Path, labels: Labels) -> None:
        """Pair the files of two folders; they are read on access.

        Raises:
            InputError: the folder of images is missing; a file has no partner; two images have the same stem.
        """
        if not images.is_dir():
            raise InputError(f"{images} is missing: the images of {pngs} are expected in this folder")
        self.labels, self.taxonomy = labels, labels.taxonomy
        by_stem, truth = _by_stem(images), _by_stem(pngs, ".png")
        if unpaired := sorted(by_stem.keys() ^ truth.keys()):
            have, lacks = (images, pngs) if unpaired[0] in by_stem else (pngs, images)
            raise InputError(
                f"{have} has {unpaired[0]!r} but {lacks} does not ({len(unpaired)} files have no partner); "
                "give an image and its label PNG the same name up to the suffix"
            )
        self._pairs = [(by_stem[stem], truth[stem]) for stem in sorted(truth)]
        self.records: list[Mapping[str, Any]] = [{"file_name": image.name} for image, _ in self._pairs]

    @classmethod
    def open(cls, directory: str | Path, split: str = "") -> "Folder":
        """Open a split in one of these layouts, with an optional classes.yaml in `directory`.

        | split | images | label PNGs |
        |---|---|---|
        | "" | `images/` | `labels/` |
        | SPLIT | `images/SPLIT/` | `labels/SPLIT/` |
        | SPLIT | `SPLIT/images/` | `SPLIT/labels/` |
        | SPLIT | `SPLIT/` | `SPLIT_labels/` |

        Args:
            directory: the data set's folder. What classes.yaml does not declare is detected in the PNGs of *all*
                splits, so that they agree.
            split: `train`, `val`, ...; "" for the first layout.

        Raises:
            InputError: the split does not exist; or an error of the constructor or of `Labels.open`.
        """
        directory = Path(directory)
        known = label_splits(directory)
        if split not in known:
            have = ", ".join(name or "(without a name)" for name in known) or "none"
            expected = directory / "labels" / split
            raise InputError(f"{expected} has no label PNGs; splits in {directory}: {have}; see docs/datasets.md")
        pngs = [png for _, folder in known.values() for png in _files(folder, ".png")]
        return cls(*known[split], Labels.open(directory, pngs))

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> Sample:
        """The image and its ground truth; segment ids count from 1 in the order of classes.

        Raises:
            IndexError: `index` is out of range.
            InputError: a file is damaged; the sizes differ; a pixel value is not a class; a stuff class has numbered
                instances.
        """
        path, png = self._pairs[index]
        image = read_image(path)
        return Sample(path.stem, np.asarray(image), self.labels.read(png, image, self.taxonomy))


def _by_stem(folder: Path, suffix: str = "") -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in _files(folder, suffix):
        if path.stem in found:
            raise InputError(f"{folder} has {found[path.stem].name!r} and {path.name!r}; rename one with its label PNG")
        found[path.stem] = path
    return found


def _files(folder: Path, suffix: str) -> list[Path]:
    """The files of a folder with this suffix, sorted, without hidden files."""
    return sorted(path for path in folder.glob(f"[!.]*{suffix}") if path.is_file())


def label_splits(directory: Path) -> dict[str, tuple[Path, Path]]:
    """Split → its folder of images and its folder of label PNGs, for splits with at least one label PNG."""
    found = {"": (directory / "images", directory / "labels")}
    for labels in sorted(directory.glob("labels/*/")):
        found[labels.name] = (directory / "images" / labels.name, labels)
    for labels in sorted(directory.glob("*/labels/")):
        found[labels.parent.name] = (labels.parent / "images", labels)
    for labels in sorted(directory.glob("*_labels/")):
        found[labels.name.removesuffix("_labels")] = (labels.with_name(labels.name.removesuffix("_labels")), labels)
    return {split: pair for split, pair in found.items() if _files(pair[1], ".png")}
