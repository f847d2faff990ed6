"""COCO panoptic format: one json, a folder of pictures, a folder of PNGs whose colours are segment ids.

What concerns the whole data set (the json and its lists) is checked when it is opened; what concerns one picture when
that picture is asked for, so that one bad file does not hide the others.
"""

import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pix2seqd.data.sample import Sample
from pix2seqd.files import InputError, read_json
from pix2seqd.panoptic import Panoptic
from pix2seqd.preprocess import load_image
from pix2seqd.taxonomy import Taxonomy


class CocoPanoptic:
    """A data set in COCO panoptic format, in the order of the json's `images`. A `Dataset`.

    Attributes:
        taxonomy: the json's `categories`, in its order.
        records: the json's `images`, one per item, with whatever else they say (e.g. `modality`).
    """

    def __init__(self, json_path: str | Path, images: str | Path, panoptic: str | Path) -> None:
        """Read the json; pictures and PNGs are read item by item.

        Args:
            json_path: with the lists `categories`, `images` and `annotations`.
            images: folder that the images' `file_name` is relative to.
            panoptic: folder that the annotations' `file_name` is relative to.

        Raises:
            InputError: a file or folder is missing; the json is broken, or an entry lacks a key or has it of the
                wrong type; there is no image; an image id or name appears twice; an annotation belongs
                to no image.
        """
        self.json_path, self.images, self.panoptic = Path(json_path), Path(images), Path(panoptic)
        content = read_json(self.json_path)
        for folder, what in ((self.images, "pictures"), (self.panoptic, "panoptic PNGs")):
            if not folder.is_dir():
                raise InputError(f"{folder} is missing: the {what} of {self.json_path} are expected in this folder")
        try:
            self.taxonomy = Taxonomy.from_coco(_field(content, "categories", list, str(self.json_path)))
        except (ValueError, OverflowError) as error:
            raise InputError(f"{self.json_path}: {error}; correct its categories") from error
        self.records = self._entries(content, "images", id=int | str, file_name=str)
        annotations = self._entries(content, "annotations", image_id=int | str, file_name=str, segments_info=list)
        ids = self._unique("image id", [record["id"] for record in self.records])
        self._unique("image name", [_stem(record["file_name"]) for record in self.records])
        owners = self._unique("annotation of image", [annotation["image_id"] for annotation in annotations])
        if not ids:
            raise InputError(f"{self.json_path} lists no images; add some")
        if strays := owners - ids:
            raise InputError(f"{self.json_path}: images lacks {strays.pop()!r}, which has an annotation; add it")
        self._annotations = {annotation["image_id"]: annotation for annotation in annotations}

    @classmethod
    def open(cls, directory: str | Path, split: str = "", images: str | Path | None = None) -> "CocoPanoptic":
        """Find the pieces of a data set in a folder, in one of three layouts.

        | json | pictures | PNGs |
        |---|---|---|
        | `panoptic_SPLIT.json` | `SPLIT/` | `panoptic_SPLIT/` |
        | `annotations/panoptic_SPLIT.json` | `SPLIT/` | `annotations/panoptic_SPLIT/` (as COCO's own) |
        | `panoptic.json`, for the split "" | `images/` | `panoptic/` (as `pix2seqd segment` writes it) |

        Args:
            directory: the data set's folder.
            split: `train`, `val2017`, ...; "" for the third layout.
            images: where the pictures are, if elsewhere.

        Raises:
            InputError: there is no such split, or a piece of it is missing (named with the path expected); and what
                the constructor raises.
        """
        directory = Path(directory)
        if split not in (present := splits(directory)):
            have = ", ".join(present) or "none; see CocoPanoptic.open for the layouts"
            expected = directory / (f"panoptic_{split}.json" if split else "panoptic.json")
            raise InputError(f"{expected} does not exist; splits in {directory}: {have}")
        if not split:
            return cls(directory / "panoptic.json", images or directory / "images", directory / "panoptic")
        home = directory if (directory / f"panoptic_{split}.json").is_file() else directory / "annotations"
        return cls(home / f"panoptic_{split}.json", images or directory / split, home / f"panoptic_{split}")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        """The picture and its truth; ids as in the PNG, crowds marked, void 0.

        Raises:
            IndexError: no such item.
            InputError: picture, PNG or annotation is missing or damaged; they differ in size; a file name leaves the
                data set's folder; an unknown category; PNG and json do not have the same segments.
        """
        record = self.records[index]
        annotation = self._annotations.get(record["id"])
        if annotation is None:
            raise InputError(f"{self.json_path} has no annotation for image {record['file_name']!r}; add it")
        picture = self._within(self.images, record["file_name"])
        png = self._within(self.panoptic, annotation["file_name"])
        image = load_image(picture)
        mask = _read_png(png, image.size, picture)
        segments = _segments(annotation, f"{self.json_path}: annotation of {record['file_name']!r}")
        try:
            panoptic = Panoptic.from_coco(mask, {"segments_info": segments}, self.taxonomy)
        except (KeyError, ValueError) as error:
            raise InputError(f"{png} and {self.json_path} disagree: {error.args[0]}; correct one of them") from error
        return Sample(_stem(record["file_name"]), np.asarray(image), panoptic)

    def _entries(self, content: Any, key: str, **kinds: Any) -> list[dict[str, Any]]:
        """The list `content[key]`, every entry of which has these fields of these types."""
        entries = _field(content, key, list, str(self.json_path))
        for number, entry in enumerate(entries):
            for field, kind in kinds.items():
                _field(entry, field, kind, f"{self.json_path}: {key}[{number}]")
        return entries

    def _unique(self, what: str, values: list[Any]) -> set[Any]:
        if len(set(values)) < len(values):
            repeated, _ = Counter(values).most_common(1)[0]
            raise InputError(f"{self.json_path}: {what} {repeated!r} appears twice; make it unique")
        return set(values)

    def _within(self, folder: Path, name: str) -> Path:
        """The file of this name; a name must not lead out of the folder (symbolic links in it may)."""
        path = Path(name)
        if path.is_absolute() or path.drive or ".." in path.parts:
            raise InputError(f"{self.json_path}: file name {name!r} leaves {folder}; give a path inside it")
        if not (folder / path).is_file():
            raise InputError(f"{str(folder / path)!r} is missing, though {self.json_path} names it; fetch it")
        return folder / path


def splits(directory: str | Path) -> list[str]:
    """Names of the splits that a data set's folder has a json for; "" stands for a plain `panoptic.json`."""
    directory = Path(directory)
    found = [*directory.glob("panoptic_*.json"), *directory.glob("annotations/panoptic_*.json")]
    plain = [""] if (directory / "panoptic.json").is_file() else []
    return plain + sorted({path.stem.removeprefix("panoptic_") for path in found})


def _field(entry: Any, key: str, kind: Any, where: str) -> Any:
    """`entry[key]`, if it is there and of this type (true and false are no numbers)."""
    if not isinstance(entry, dict):
        raise InputError(f"{where} is not an object with {key!r}; see the COCO panoptic format")
    if key not in entry:
        raise InputError(f"{where} has no {key!r}; see the COCO panoptic format")
    value = entry[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        wanted, given = getattr(kind, "__name__", kind), type(value).__name__
        raise InputError(f"{where}: {key!r} should be {wanted}, not {given}; see the COCO panoptic format")
    return value


def _segments(annotation: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The annotation's segments, known to have sound ids."""
    seen = set()
    for number, info in enumerate(annotation["segments_info"]):
        _field(info, "category_id", int, f"{where}: segments_info[{number}]")
        segment_id = _field(info, "id", int, f"{where}: segments_info[{number}]")
        if info.get("iscrowd", 0) not in (0, 1):
            raise InputError(f"{where}: segment {segment_id} has iscrowd {info['iscrowd']!r}; make it 0 or 1")
        if segment_id in seen:
            raise InputError(f"{where}: segment id {segment_id} appears twice; make it unique")
        seen.add(segment_id)
    return annotation["segments_info"]


def _stem(file_name: str) -> str:
    """Name of an item: the path of its picture without the suffix."""
    return str(Path(file_name).parent / Path(file_name).stem)


def _read_png(path: Path, size: tuple[int, int], picture: Path) -> np.ndarray:
    """Colours uint8 `[h, w, 3]` of a panoptic PNG; nothing is decoded unless it has the picture's size."""
    try:
        with Image.open(path) as png:
            if png.size != size:
                raise InputError(
                    f"{path} is {png.width} x {png.height} but its picture {picture} is {size[0]} x {size[1]}; "
                    "export it at the picture's size"
                )
            if png.mode not in ("RGB", "RGBA", "P"):
                raise InputError(f"{path} is not RGB (but {png.mode}), so it holds no segment ids; export it as RGB")
            return np.asarray(png.convert("RGB"))
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as PNG ({reason}); export it again") from error
