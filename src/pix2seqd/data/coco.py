"""COCO panoptic format: a json, a folder of images, and a folder of PNGs whose colours encode segment ids.

The folders may be zipped. The json and its lists are checked when the data set is opened. The files of an image are
checked when that image is read, so that one bad file does not prevent the use of the others.
"""

from collections import Counter
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pix2seqd.data.archive import children, find, locate, read_image, read_png
from pix2seqd.data.sample import Sample
from pix2seqd.files import InputError, is_file, read_json
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.parts import find_parts
from pix2seqd.panoptic.taxonomy import Taxonomy


class CocoAnnotations:
    """The annotations of a data set or of a prediction: the content of a json, and a folder of PNGs.

    Attributes:
        taxonomy: the `categories` of the json, in its order.
        image_ids: ids of the annotated images, in the order of the json.
    """

    def __init__(self, json_path: Traversable, content: Any, panoptic: Traversable) -> None:
        """Check the json; PNGs are read on access.

        Args:
            json_path: path of the json, for messages.
            content: its content, with the lists `categories` and `annotations`.
            panoptic: folder that the annotations' `file_name` is relative to.

        Raises:
            InputError: the folder is missing; an entry lacks a key or has a value of the wrong type; an image has
                two annotations.
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

    def read(self, image_id: int | str, name: str, image: Image.Image | None = None) -> Panoptic:
        """Read the segmentation of an image, with the ids of the PNG; crowds are marked, void is 0.

        Args:
            image_id: id of the image.
            name: name of the image, for messages.
            image: the image, from `read_image`; the PNG must have its size.

        Raises:
            InputError: the PNG or the annotation is missing or damaged; a file name leaves the folder; a category is
                unknown; the PNG and the json do not have the same segments.
        """
        annotation = self._annotations.get(image_id)
        if annotation is None:
            raise InputError(f"{self.json_path} has no annotation for image {name!r}; add it")
        png = _within(self.panoptic, annotation["file_name"], self.json_path)
        mask = np.asarray(read_png(png, ("RGB", "RGBA", "P"), image).convert("RGB"))
        segments = _segments(annotation, f"{self.json_path}: annotation of {name!r}")
        try:
            return Panoptic.from_coco(mask, {"segments_info": segments}, self.taxonomy)
        except (KeyError, ValueError) as error:
            raise InputError(f"{png} and {self.json_path} disagree: {error.args[0]}; correct one of them") from error


class CocoPanoptic:
    """A data set in COCO panoptic format, in the order of the json's `images`. A `Dataset`.

    Attributes:
        taxonomy: the `categories` of the json, in its order.
        records: the `images` of the json, one per item, with all their fields (e.g. `modality`).
    """

    def __init__(
        self,
        json_path: str | Traversable,
        images: str | Traversable,
        panoptic: str | Traversable,
        content: Any = None,
    ) -> None:
        """Read the json; images and PNGs are read on access.

        Args:
            json_path: json with the lists `categories`, `images` and `annotations`.
            images: folder that the images' `file_name` is relative to.
            panoptic: folder that the annotations' `file_name` is relative to.
            content: of the json, if it was read already.

        Raises:
            InputError: a file or folder is missing; the json is broken; it lists no image; an image id or name appears
                twice; an annotation belongs to no image; or an error of `CocoAnnotations`.
        """
        self.json_path, self.images, pngs = (
            Path(p) if isinstance(p, str) else p for p in (json_path, images, panoptic)
        )
        content = read_json(self.json_path) if content is None else content
        self._annotations = CocoAnnotations(self.json_path, content, pngs)
        if not self.images.is_dir():
            raise InputError(f"{self.images} is missing: the images of {self.json_path} are expected in this folder")
        self.taxonomy = self._annotations.taxonomy
        self.records = _entries(content, "images", self.json_path, id=int | str, file_name=str)
        ids = _unique("image id", [record["id"] for record in self.records], self.json_path)
        _unique("image name", [_stem(record["file_name"]) for record in self.records], self.json_path)
        if not ids:
            raise InputError(f"{self.json_path} lists no images; add some")
        if unlisted := set(self._annotations.image_ids) - ids:
            raise InputError(f"{self.json_path}: annotated image {unlisted.pop()!r} is not in images; add it")

    @classmethod
    def open(cls, directory: str | Path, split: str = "") -> "CocoPanoptic":
        """Open a split of a data set, "" for none, in one of the four layouts of docs/datasets.md, or as COCO has it.

        Raises:
            InputError: the split does not exist, a part of it is missing (the message names the expected path), or an
                error of the constructor.
        """
        directory = Path(directory)
        if split not in (available := splits(directory)):
            from pix2seqd.data.annotations import conversion  # its readers are needed for this message only

            if not available and (found := conversion(directory)):
                raise InputError(found)
            have = ", ".join(available) or "none; see docs/datasets.md for the layouts"
            expected = directory / (f"panoptic_{split}.json" if split else "panoptic.json")
            raise InputError(f"{expected} does not exist; splits in {directory}: {have}")
        if not split and find_parts(directory):
            json_path, content, _ = read_folder(directory)
            return cls(json_path, directory, directory, content)
        folder, name = (split, f"panoptic_{split}") if split else ("images", "panoptic")
        home = next(home for home in _homes(directory) if (home / f"{name}.json").is_file())
        images = find("the folder of images", *_candidates(directory, folder))
        # The PNGs of COCO may be unpacked beside the images.
        pngs = find("the folder of panoptic PNGs", *_candidates(home, name), *_candidates(directory, name))
        return cls(home / f"{name}.json", images, pngs)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        """The image and its ground truth, with the ids of the PNG; crowds are marked, void is 0.

        Raises:
            IndexError: `index` is out of range.
            InputError: the image, the PNG or the annotation is missing or damaged; their sizes differ; a file name
                leaves the folder of the data set; a category is unknown; the PNG and the json do not have the same
                segments.
        """
        record = self.records[index]
        name = record["file_name"]
        image = read_image(_within(self.images, name, self.json_path))
        panoptic = self._annotations.read(record["id"], name, image)
        return Sample(_stem(name), np.asarray(image), panoptic, tuple(image.info["notes"]))


def read_folder(directory: Path) -> tuple[Path, Any, Path]:
    """The json of what `pix2seqd segment` wrote; of parts all together, as if there were one.

    Args:
        directory: the folder with `panoptic.json`, or with `part-00000/panoptic.json` and so on.

    Returns:
        The path of the json, for messages; its content; and the folder that the annotations' `file_name` is relative
        to. In a result in parts, all file names are relative to `directory`.

    Raises:
        InputError: there is none, it is broken, or the parts have different categories.
    """
    parts = find_parts(directory)
    if not parts:
        return directory / "panoptic.json", read_json(directory / "panoptic.json"), directory / "panoptic"
    whole: dict[str, Any] = {"images": [], "annotations": []}
    for part in parts.values():
        path = part / "panoptic.json"
        content = read_json(path)
        categories = _field(content, "categories", list, str(path))
        if whole.setdefault("categories", categories) != categories:
            raise InputError(f"{path} has other categories than the parts before; move it to another folder")
        for key, folder in (("images", "images"), ("annotations", "panoptic")):
            for entry in _entries(content, key, path, file_name=str):
                entry["file_name"] = f"{part.name}/{folder}/{entry['file_name']}"
                whole[key].append(entry)
    return directory / "part-*" / "panoptic.json", whole, directory


def splits(directory: str | Path) -> list[str]:
    """Names of the splits in a folder, one per json; "" stands for `panoptic.json`, also of parts.

    Raises:
        InputError: the folder has a `panoptic.json` and parts too.
    """
    directory = Path(directory)
    found = {json.name for home in _homes(directory) for json in children(home, ".json")}
    plain = [""] if find_parts(directory) or (directory / "panoptic.json").is_file() else []
    return plain + sorted(name[9:-5] for name in found if name.startswith("panoptic_"))


def _homes(directory: Path) -> list[Traversable]:
    """The existing folders in which a json may be."""
    nested = (locate(directory, path) for path in ("annotations", "panoptic_annotations_trainval2017.zip/annotations"))
    return [home for home in (directory, *nested) if home.is_dir()]


def _candidates(home: Traversable, name: str) -> tuple[Traversable, Traversable]:
    """The two possible paths of a folder: unpacked, or in the zip file of the same name."""
    return home / name, locate(home, f"{name}.zip/{name}")


def _entries(content: Any, key: str, where: Traversable, **kinds: Any) -> list[dict[str, Any]]:
    """The list `content[key]`, after checking that every entry has the fields `kinds`, of these types."""
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
    """The file of this name; the name must not leave the folder (symbolic links inside may)."""
    path = Path(name)
    if path.is_absolute() or path.drive or ".." in path.parts:
        raise InputError(f"{where}: file name {name!r} leaves {folder}; give a path inside it")
    file = folder / path.as_posix()
    if not is_file(file):
        raise InputError(f"{str(file)!r} is missing but listed in {where}; fetch it")
    return file


def _field(entry: Any, key: str, kind: Any, where: str) -> Any:
    """`entry[key]`, after checking that it exists and has this type; booleans are not accepted as numbers."""
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
    """The segments of the annotation, after checking their ids."""
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
    """Name of an item: the path of its image without the suffix."""
    return str(Path(file_name).parent / Path(file_name).stem)
