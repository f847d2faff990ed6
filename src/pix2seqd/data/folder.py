"""A folder of pictures and a folder of label PNGs with the same names: the shortest way to train on one's own data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pix2seqd.data.archive import read_picture
from pix2seqd.data.label_pngs import Labels
from pix2seqd.data.sample import Sample
from pix2seqd.files import InputError


class Folder:
    """Pictures and their label PNGs, in the order of their names. A `Dataset`.

    Attributes:
        labels: what the values of the PNGs mean, declared or found out.
        taxonomy: of `labels`.
        records: `file_name` of each picture.
    """

    def __init__(self, pictures: Path, pngs: Path, labels: Labels) -> None:
        """Pair the files of two folders; they are read item by item.

        Raises:
            InputError: there is no folder of pictures; a file has no partner; two pictures have one stem.
        """
        if not pictures.is_dir():
            raise InputError(f"{pictures} is missing: the pictures of {pngs} are expected in this folder")
        self.labels, self.taxonomy = labels, labels.taxonomy
        by_stem, truth = _by_stem(pictures), _by_stem(pngs, ".png")
        if alone := sorted(by_stem.keys() ^ truth.keys()):
            have, lacks = (pictures, pngs) if alone[0] in by_stem else (pngs, pictures)
            raise InputError(
                f"{have} has {alone[0]!r} but {lacks} has not ({len(alone)} files have no partner); "
                "a picture and its label PNG have the same name up to the suffix"
            )
        self._pairs = [(by_stem[stem], truth[stem]) for stem in sorted(truth)]
        self.records: list[Mapping[str, Any]] = [{"file_name": picture.name} for picture, _ in self._pairs]

    @classmethod
    def open(cls, directory: str | Path, split: str = "") -> "Folder":
        """Find the two folders, in one of these layouts; classes.yaml is beside them or missing.

        | split | pictures | label PNGs |
        |---|---|---|
        | "" | `images/` | `labels/` |
        | SPLIT | `images/SPLIT/` | `labels/SPLIT/` |
        | SPLIT | `SPLIT/images/` | `SPLIT/labels/` |
        | SPLIT | `SPLIT/` | `SPLIT_labels/` |

        Args:
            directory: the data set's folder. What classes.yaml leaves out is found in the PNGs of *all* splits, so
                that they agree.
            split: `train`, `val`, ...; "" for the first layout.

        Raises:
            InputError: there is no such split; and what the constructor and `Labels.open` raise.
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
        """The picture and its truth; segment ids count from 1 in the order of classes.

        Raises:
            IndexError: no such item.
            InputError: a file is damaged; the sizes differ; a value that is no class; a stuff class with instances.
        """
        picture, png = self._pairs[index]
        image = read_picture(picture)
        return Sample(picture.stem, np.asarray(image), self.labels.read(png, image, self.taxonomy))


def _by_stem(folder: Path, suffix: str = "") -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in _files(folder, suffix):
        if path.stem in found:
            raise InputError(f"{folder} has {found[path.stem].name!r} and {path.name!r}; rename one with its label PNG")
        found[path.stem] = path
    return found


def _files(folder: Path, suffix: str) -> list[Path]:
    """Not the hidden ones, which some systems leave."""
    return sorted(path for path in folder.glob(f"[!.]*{suffix}") if path.is_file())


def label_splits(directory: Path) -> dict[str, tuple[Path, Path]]:
    """Folders of pictures and of label PNGs by split, of those splits that have a label PNG."""
    found = {"": (directory / "images", directory / "labels")}
    for labels in sorted(directory.glob("labels/*/")):
        found[labels.name] = (directory / "images" / labels.name, labels)
    for labels in sorted(directory.glob("*/labels/")):
        found[labels.parent.name] = (labels.parent / "images", labels)
    for labels in sorted(directory.glob("*_labels/")):
        found[labels.name.removesuffix("_labels")] = (labels.with_name(labels.name.removesuffix("_labels")), labels)
    return {split: pair for split, pair in found.items() if _files(pair[1], ".png")}
