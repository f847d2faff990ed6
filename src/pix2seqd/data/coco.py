"""COCO panoptic format: one json, a folder of pictures, a folder of PNGs whose colours are segment ids; zipped or not.

What concerns the whole data set (the json and its lists) is checked when it is opened; what concerns one picture when
that picture is asked for, so that one bad file does not hide the others.
"""

from collections import Counter
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pix2seqd.data.archive import children, find, place, read_picture, read_png
from pix2seqd.data.sample import Sample
from pix2seqd.files import InputError, read_json
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy


class CocoAnnotations:
    """The annotations of a data set or of a prediction: a json's contents, and a folder of PNGs.

    Attributes:
        taxonomy: the json's `categories`, in its order.
        image_ids: of the images that have an annotation, in the order of the json.
    """

    def __init__(self, json_path: Traversable, content: Any, panoptic: Traversable) -> None:
        """Check the contents; PNGs are read when asked for.

        Args:
            json_path: the json, for messages.
            content: what it holds, with the lists `categories` and `annotations`.
            panoptic: folder that the annotations' `file_name` is relative to.

        Raises:
            InputError: the folder is missing; an entry lacks a key or has it of the wrong type; an image has two
                annotations.
        """
        self.json_path, self.panoptic = json_path, panoptic
        if not panoptic.is_dir():
            raise InputError(f"{panoptic} is missing: the panoptic PNGs of {json_path} are expected in this folder")
        try:
            self.taxonomy = Taxonomy.from_coco(_field(content, "categories", list, str(json_path)))
        except (ValueError, OverflowError) as error:
            raise InputError(f"{json_path}: {error}; correct its categories") from error
        kinds = {"image_id": int | str, "file_name": str, "segments_info": list}
        annotations = _entries(content, "annotations", json_path, **kinds)
        _unique("annotation of image", [annotation["image_id"] for annotation in annotations], json_path)
        self._annotations = {annotation["image_id"]: annotation for annotation in annotations}
        self.image_ids = tuple(self._annotations)

    def read(self, image_id: int | str, name: str, picture: Image.Image | None = None) -> Panoptic:
        """The segmentation of an image; ids as in the PNG, crowds marked, void 0.

        Args:
            image_id: of the image.
            name: of the image, for messages.
            picture: the image, from `read_picture`: the PNG must have its size.

        Raises:
            InputError: PNG or annotation is missing or damaged; a file name leaves the folder; an unknown category;
                PNG and json do not have the same segments.
        """
        annotation = self._annotations.get(image_id)
        if annotation is None:
            raise InputError(f"{self.json_path} has no annotation for image {name!r}; add it")
        png = _within(self.panoptic, annotation["file_name"], self.json_path)
        mask = np.asarray(read_png(png, ("RGB", "RGBA", "P"), picture).convert("RGB"))
        segments = _segments(annotation, f"{self.json_path}: annotation of {name!r}")
        try:
            return Panoptic.from_coco(mask, {"segments_info": segments}, self.taxonomy)
        except (KeyError, ValueError) as error:
            raise InputError(f"{png} and {self.json_path} disagree: {error.args[0]}; correct one of them") from error


class CocoPanoptic:
    """A data set in COCO panoptic format, in the order of the json's `images`. A `Dataset`.

    Attributes:
        taxonomy: the json's `categories`, in its order.
        records: the json's `images`, one per item, with whatever else they say (e.g. `modality`).
    """

    def __init__(self, json_path: str | Traversable, images: str | Traversable, panoptic: str | Traversable) -> None:
        """Read the json; pictures and PNGs are read item by item.

        Args:
            json_path: with the lists `categories`, `images` and `annotations`.
            images: folder that the images' `file_name` is relative to.
            panoptic: folder that the annotations' `file_name` is relative to.

        Raises:
            InputError: a file or folder is missing; the json is broken; there is no image; an image id or name
                appears twice; an annotation belongs to no image; and what `CocoAnnotations` raises.
        """
        self.json_path, self.images, pngs = (
            Path(p) if isinstance(p, str) else p for p in (json_path, images, panoptic)
        )
        content = read_json(self.json_path)
        self._annotations = CocoAnnotations(self.json_path, content, pngs)
        if not self.images.is_dir():
            raise InputError(f"{self.images} is missing: the pictures of {self.json_path} are expected in this folder")
        self.taxonomy = self._annotations.taxonomy
        self.records = _entries(content, "images", self.json_path, id=int | str, file_name=str)
        ids = _unique("image id", [record["id"] for record in self.records], self.json_path)
        _unique("image name", [_stem(record["file_name"]) for record in self.records], self.json_path)
        if not ids:
            raise InputError(f"{self.json_path} lists no images; add some")
        if strays := set(self._annotations.image_ids) - ids:
            raise InputError(f"{self.json_path}: images lacks {strays.pop()!r}, which has an annotation; add it")

    @classmethod
    def open(cls, directory: str | Path, split: str = "") -> "CocoPanoptic":
        """Find the pieces of a data set in a folder, in one of three layouts.

        | json | pictures | PNGs |
        |---|---|---|
        | `panoptic_SPLIT.json` | `SPLIT/` | `panoptic_SPLIT/` |
        | `annotations/panoptic_SPLIT.json` | `SPLIT/` | `annotations/panoptic_SPLIT/` (as COCO's own) |
        | `panoptic.json`, for the split "" | `images/` | `panoptic/` (as `pix2seqd segment` writes it) |

        Each folder may also be a zip file of its name that holds it, and `annotations/` the one that COCO distributes,
        `panoptic_annotations_trainval2017.zip`.

        Args:
            directory: the data set's folder.
            split: `train`, `val2017`, ...; "" for the third layout.

        Raises:
            InputError: there is no such split, or a piece of it is missing (named with the path expected); and what
                the constructor raises.
        """
        directory = Path(directory)
        if split not in (present := splits(directory)):
            have = ", ".join(present) or "none; see CocoPanoptic.open for the layouts"
            expected = directory / (f"panoptic_{split}.json" if split else "panoptic.json")
            raise InputError(f"{expected} does not exist; splits in {directory}: {have}")
        pictures, name = (split, f"panoptic_{split}") if split else ("images", "panoptic")
        home = next(home for home in _homes(directory) if (home / f"{name}.json").is_file())
        images = find("the folder of pictures", *_packed(directory, pictures))
        # Some unpack COCO's PNGs beside its pictures.
        pngs = find("the folder of panoptic PNGs", *_packed(home, name), *_packed(directory, name))
        return cls(home / f"{name}.json", images, pngs)

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
        name = record["file_name"]
        image = read_picture(_within(self.images, name, self.json_path))
        return Sample(_stem(name), np.asarray(image), self._annotations.read(record["id"], name, image))


def splits(directory: str | Path) -> list[str]:
    """Names of the splits that a data set's folder has a json for; "" stands for a plain `panoptic.json`."""
    directory = Path(directory)
    found = {json.name for home in _homes(directory) for json in children(home, ".json")}
    plain = [""] if (directory / "panoptic.json").is_file() else []
    return plain + sorted(name[9:-5] for name in found if name.startswith("panoptic_"))


def _homes(directory: Path) -> list[Traversable]:
    """The places that a json may be in, if they are there."""
    inside = (place(directory, each) for each in ("annotations", "panoptic_annotations_trainval2017.zip/annotations"))
    return [home for home in (directory, *inside) if home.is_dir()]


def _packed(home: Traversable, name: str) -> tuple[Traversable, Traversable]:
    """Where a folder may be: as it is, or in the zip file of its name."""
    return home / name, place(home, f"{name}.zip/{name}")


def _entries(content: Any, key: str, where: Traversable, **kinds: Any) -> list[dict[str, Any]]:
    """The list `content[key]`, every entry of which has these fields of these types."""
    entries = _field(content, key, list, str(where))
    for number, entry in enumerate(entries):
        for field, kind in kinds.items():
            _field(entry, field, kind, f"{where}: {key}[{number}]")
    return entries


def _unique(what: str, values: list[Any], where: Traversable) -> set[Any]:
    if len(set(values)) < len(values):
        repeated, _ = Counter(values).most_common(1)[0]
        raise InputError(f"{where}: {what} {repeated!r} appears twice; make it unique")
    return set(values)


def _within(folder: Traversable, name: str, where: Traversable) -> Traversable:
    """The file of this name; a name must not lead out of the folder (symbolic links in it may)."""
    path = Path(name)
    if path.is_absolute() or path.drive or ".." in path.parts:
        raise InputError(f"{where}: file name {name!r} leaves {folder}; give a path inside it")
    file = folder / path.as_posix()
    if not file.is_file():
        raise InputError(f"{str(file)!r} is missing, though {where} names it; fetch it")
    return file


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
