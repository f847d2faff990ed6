"""A folder of images and a folder of label images with the same names: the simplest format for custom data."""

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np

from pix2seqd.data.annotations import conversion, cure
from pix2seqd.data.annotations.masks import is_mask_folders
from pix2seqd.data.annotations.records import SPLIT_NAMES, is_hidden
from pix2seqd.data.archive import read_image
from pix2seqd.data.coco import splits
from pix2seqd.data.label_images import ARRAY, LOSSLESS_SUFFIXES
from pix2seqd.data.labels import DECLARATIONS, Labels, read_declaration
from pix2seqd.data.sample import Sample
from pix2seqd.data.tables import ROBOFLOW_CLASSES
from pix2seqd.files import InputError, files_below
from pix2seqd.images.load import IMAGE_SUFFIXES

LABEL_FOLDERS = ("labels", "masks", "label", "mask", "annotations", "gt", "ann_dir")
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "img_dir")
LABEL_SUFFIXES = LOSSLESS_SUFFIXES | {ARRAY}
NOT_LABELS = (IMAGE_SUFFIXES | {".npz", ".mat", ".h5", ".hdf5", ".nii", ".gz"}) - LABEL_SUFFIXES
"""Suffixes of images and arrays that are not read as labels."""
NNUNET_SPLITS = {"train": "Tr", "test": "Ts"}
"""How nnU-Net ends the names of the folders of a split, `imagesTr` and `labelsTr`."""
EVEN = 0.7
"""Share of the pixels that are as the next one: more in label images, less than the rest of it in photographs."""
SEPARATORS = r"[_. -]"
"""What sets the parts of a name apart."""
MAX_FOLDERS = 50
"""Number of folders that are looked into for those of a data set."""
LABEL_WORDS = re.compile(
    r"(?i)(^|[_. -])(cp_)?(masks?|labels?|labell?ed|lbls?|seg|segmentation|gt|groundtruth|annotations?)([_. -]|$)"
)
"""Words that tell a label image from an image in the same folder."""
IMAGE_WORDS = re.compile(r"(?i)(^|[_. -])(rgb|imgs?|images?|photos?|raw|orig|original|input|leftimg8bit)([_. -]|$)")
"""Words that tell the image from label images of several kinds in the same folder."""
LABEL_STUDIO = re.compile(r"task-\d+-annotation-\d+-.*tag-.*")
"""Name of a mask that Label Studio exports: of one tag and one task."""
ADE20K = re.compile(r"ADE_.*_(seg|parts_\d+)\.png")
"""Name of a label image of ADE20K."""
DISTRIBUTED = {
    "training/mask/*_training_mask.gif": "is DRIVE as distributed, whose mask is the field of view; in training, move "
    'mask away and call 1st_manual \'labels\', and write image_name: "*_training" and label_name: "*_manual1" to '
    "{0}/classes.yaml",
    "Annotations_unsupervised/480p": "is DAVIS as distributed; give davis:{0}@val or davis:{0}@train",
    "JPEGImages/480p": "is DAVIS as distributed; move JPEGImages/480p to images and Annotations/480p to labels",
    "*/JPEGImages": "is YouTube-VOS as distributed; in each split, call JPEGImages 'images' and Annotations 'labels'",
    "panomasks": "is VIPSeg as distributed, whose values are classes or class * 100 + number; save class * 1000 + "
    "number with 16 bits to labels, and call imgs 'images'",
    "data_2d_semantics": "is KITTI-360 as distributed; move data_2d_raw/SEQUENCE/image_00/data_rect to images/SEQUENCE "
    "and data_2d_semantics/train/SEQUENCE/image_00/instance to labels/SEQUENCE, and leave out images without labels",
    "stuffthingmaps": "is COCO-Stuff as distributed; call stuffthingmaps 'labels', write 'coding: class' to "
    "{0}/classes.yaml, and move the images of each split to images/SPLIT",
    "training/v2.0": "is Mapillary Vistas 2 as distributed; move v2.0/instances of each split to its folder labels, "
    "and write 'coding: class*256+id from 0' to {0}/classes.yaml",
    "*/tissue images": "is NuInsSeg as distributed; move ORGAN/tissue images to images/ORGAN and ORGAN/label masks to "
    "labels/ORGAN",
    "*-object-segmentation.csv": "is Open Images as distributed; put the masks of image NAME into masks/NAME, and the "
    "images into images",
}
"""File or folder in a data set → what the data set is, and what to do; `{0}` is its folder."""
LABEL_STUDIO_CURE = (
    "masks of Label Studio name a task but not its image: export the project as JSON instead, and give that to "
    "pix2seqd convert-data"
)


@dataclass(frozen=True)
class Layout:
    """Where the files of a split are."""

    images: Path
    """Folder of the images."""
    labels: Path
    """Folder of the label images."""
    classes: Path | None = None
    """Folder of the class images, if the label images say only the instance."""
    nested: bool = True
    """Whether folders in these folders belong to the split too."""


class Folder:
    """Images and their label images, sorted by name. A `Dataset`.

    Attributes:
        labels: the meaning of the labels' values, declared or detected.
        taxonomy: the taxonomy of `labels`.
        records: `file_name` of each image, with "/" between folders.
        skipped: files beside the images and labels that are neither.
    """

    def __init__(self, pairs: "Pairs", labels: Labels) -> None:
        """A data set of files that are read on access.

        Args:
            pairs: the files.
            labels: the meaning of the labels' values.
        """
        self.labels, self.taxonomy, self.skipped = labels, labels.taxonomy, pairs.skipped
        self._files, home = pairs.files, pairs.layout.images
        self._names = list(pairs.files)
        self.records: list[Mapping[str, Any]] = [
            {"file_name": image.relative_to(home).as_posix()} for image, *_ in self._files.values()
        ]

    @classmethod
    def open(cls, directory: str | Path, split: str = "") -> "Folder":
        """Open a split, "" for none, in one of the layouts of docs/datasets.md, where classes.yaml is optional.

        What it does not declare is detected in the labels of *all* splits, so that they agree.

        Raises:
            InputError: the split does not exist, a file has no partner, two images have the same stem, or an error of
                `Labels.open`.
        """
        directory = Path(directory)
        names = _Names.declared(directory)
        known = label_splits(directory)
        if split not in known and split and (grouped := _grouped(directory, split)):
            known[split] = grouped
        if split not in known:
            raise InputError(_no_split(directory, split, known))
        pairs = Pairs.find(known[split], names, directory)
        every = [pairs] + [Pairs.of_labels(layout, names) for name, layout in known.items() if name != split]
        files = sorted({(label, kind) for p in every for _, label, kind in p.files.values()})
        class_files = [kind for _, kind in files if kind is not None]
        if class_files and len(class_files) < len(files):
            raise InputError(f"{directory} has class images in some splits only; add the others")
        try:
            return cls(pairs, Labels.open(directory, [label for label, _ in files], class_files))
        except InputError as error:
            if reason := _swapped(pairs.layout.images, pairs.layout.labels):
                raise InputError(reason) from error
            raise

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        """The image and its ground truth; segment ids count from 1 in the order of classes.

        Raises:
            IndexError: `index` is out of range.
            InputError: a file is damaged; the sizes differ; a pixel value is not a class; a stuff class has numbered
                instances.
        """
        name = self._names[index]
        path, label, classes = self._files[name]
        image = read_image(path)
        panoptic = self.labels.read(label, image, self.taxonomy, classes)
        return Sample(name, np.asarray(image), panoptic, tuple(image.info["notes"]))


@dataclass(frozen=True)
class _Names:
    """How the names of an image and of its labels follow from what they have in common, `*`."""

    image: str = "*"
    label: str = "*"

    @classmethod
    def declared(cls, directory: Path) -> "_Names":
        """The keys `image_name` and `label_name` of a declaration.

        Raises:
            InputError: a name is not text with one `*`; or an error of `read_declaration`.
        """
        path, content = read_declaration(directory)
        names = [content.get(key, "*") for key in ("image_name", "label_name")]
        for name in names:
            if not isinstance(name, str) or name.count("*") != 1 or "/" in name:
                raise InputError(f'{path}: image_name and label_name need one *, as in label_name: "*_mask"')
        return cls(*names)

    def __str__(self) -> str:
        """The lines for classes.yaml."""
        image = f'image_name: "{self.image}" and ' if self.image != "*" else ""
        return f'{image}label_name: "{self.label}"'


def _common(name: str, path: Path, home: Path) -> str | None:
    """What an image and its label have in common: the path below `home` without suffix, or None if `name` does not fit.

    Args:
        name: the pattern of the file's stem, with one `*`.
        path: the file.
        home: the folder that the result is relative to.
    """
    before, after = name.split("*")
    stem = path.stem
    if len(stem) <= len(before + after) or not (stem.startswith(before) and stem.endswith(after)):
        return None
    common = path.relative_to(home).parent / stem[len(before) : len(stem) - len(after)]
    return unicodedata.normalize("NFC", common.as_posix())  # macOS takes the accents of letters apart


@dataclass(frozen=True)
class Pairs:
    """The files of a split."""

    layout: Layout
    files: Mapping[str, tuple[Path, Path, Path | None]]
    """Name → image, label image and class image, sorted by name."""
    skipped: tuple[Path, ...]
    """Files that are none of these."""

    @classmethod
    def find(cls, layout: Layout, names: _Names, directory: Path) -> "Pairs":
        """Find each image's labels.

        Raises:
            InputError: the folder of images is missing; a file has no partner; two images have the same stem.
        """
        if not layout.images.is_dir():
            if reason := _distributed(directory):
                raise InputError(reason)
            raise InputError(f"{layout.images} is missing: the images of {layout.labels} are expected in this folder")
        truth = _by_name(layout.labels, layout, names.label, LABEL_SUFFIXES)
        beside = layout.images == layout.labels
        labels = set(truth.values()) if beside else set()
        images = _by_name(layout.images, layout, names.image, IMAGE_SUFFIXES, without=labels)
        for name in _of_other_kinds(images, truth) if beside else ():
            del images[name]
        inside = (p for p in _files(layout.images) if not images and p.suffix.lower() in IMAGE_SUFFIXES)
        if not layout.nested and (deeper := next((p for p in inside if p.parent != layout.images), None)):
            raise InputError(
                f"{layout.images} has images only in folders, such as {deeper}, but {layout.labels} has label images "
                "without folders; move either, so that both lie in folders of the same names"
            )
        if not images and (others := sorted({p.suffix for p in _files(layout.images, layout.nested)} - {""})):
            raise InputError(f"{layout.images} has no images (but {', '.join(others)}); save them as TIFF, PNG or JPEG")
        _check_partners(layout.images, images, layout.labels, truth, names, directory)
        kinds: Mapping[str, Path | None] = dict.fromkeys(truth)
        if layout.classes is not None:
            found = _by_name(layout.classes, layout, "*", LOSSLESS_SUFFIXES)
            _check_partners(layout.labels, truth, layout.classes, found, _Names(), directory)
            kinds = found
        files = {name: (images[name], truth[name], kinds[name]) for name in sorted(truth)}
        used = {path for paths in files.values() for path in paths}
        folders = dict.fromkeys(f for f in (layout.images, layout.labels, layout.classes) if f is not None)
        skipped = [path for folder in folders for path in _files(folder, layout.nested) if path not in used]
        return cls(layout, files, tuple(path for path in skipped if path.name not in (*DECLARATIONS, ROBOFLOW_CLASSES)))

    @classmethod
    def of_labels(cls, layout: Layout, names: _Names) -> "Pairs":
        """The label and class images of a split whose images are not needed; the label stands for the image."""
        truth = _by_name(layout.labels, layout, names.label, LABEL_SUFFIXES)
        found = _by_name(layout.classes, layout, "*", LOSSLESS_SUFFIXES) if layout.classes is not None else {}
        return cls(layout, {name: (path, path, found.get(name)) for name, path in truth.items()}, ())


def _of_other_kinds(images: Iterable[str], truth: Collection[str]) -> list[str]:
    """Names that begin with that of an image and end alike for all images: other results, beside the label images."""
    ends: dict[str, list[str]] = {}
    for name in set(images) - set(truth):
        for match in re.finditer(SEPARATORS, name):
            if name[: match.start()] in truth:
                ends.setdefault(name[match.start() :], []).append(name)
    return [name for names in ends.values() if len(names) == len(truth) for name in names]


def _by_name(
    folder: Path, layout: Layout, name: str, suffixes: Iterable[str], without: Iterable[Path] = ()
) -> dict[str, Path]:
    """What an image and its label have in common → file, for the files of some suffixes that fit the pattern `name`."""
    found: dict[str, Path] = {}
    for path in sorted(_files(folder, layout.nested), key=_is_array):
        common = _common(name, path, folder)
        if common is None or path.suffix.lower() not in suffixes or path in without or _is_of_cellpose(path):
            continue
        if common in found and _is_array(path):
            continue  # the same labels lie beside it as an image
        if common in found:
            both = f"{found[common].name!r} and {path.name!r}"
            raise InputError(f"{folder} has {both}; keep one of them, or rename one and its partner")
        found[common] = path
    return found


def _files(folder: Path, nested: bool = True) -> list[Path]:
    """The files of a folder, and with `nested` those of its subfolders, sorted, without hidden ones."""
    found = files_below(folder) if nested else folder.glob("*")
    visible = (p for p in found if not is_hidden(p.relative_to(folder).parts))
    return sorted(path for path in visible if path.is_file() or not path.exists())


def _labels(folder: Path, name: str = "*", *, nested: bool = True) -> list[Path]:
    """The label images of a folder."""
    fits = (p for p in _files(folder, nested) if p.suffix.lower() in LABEL_SUFFIXES and not _is_of_cellpose(p))
    return [path for path in fits if _common(name, path, folder) is not None]


def _is_array(path: Path) -> bool:
    return path.suffix.lower() == ARRAY


def _is_of_cellpose(path: Path) -> bool:
    """Whether a file is Cellpose's own, which is never opened, since such a file can run code."""
    return path.name.endswith("_seg.npy")


def label_splits(directory: Path) -> dict[str, Layout]:
    """Split → its folders, for splits with at least one label image.

    Raises:
        InputError: classes.yaml is not understood.
    """
    name = _Names.declared(directory).label
    found: dict[str, Layout] = {}
    if is_mask_folders(directory):
        return {}
    for split, end in NNUNET_SPLITS.items():
        layout = Layout(directory / f"images{end}", directory / f"labels{end}")
        if _labels(layout.labels):
            found[split] = layout
    for word in LABEL_FOLDERS:
        for split, layout in _with_folders(directory, word):
            if not _labels(layout.labels, nested=layout.nested):
                continue
            if split in found:
                both = f"{found[split].labels} and {layout.labels}"
                raise InputError(f"{both} both have label images; move one of the two folders away")
            found[split] = layout
    if not found and name != "*":
        splits = [path for path in sorted(directory.glob("*/")) if SPLIT_NAMES.fullmatch(path.name)]
        beside = {path.name: Layout(path, path) for path in splits} or {"": Layout(directory, directory)}
        found = {split: layout for split, layout in beside.items() if _labels(layout.labels, name)}
    return found


def _with_folders(directory: Path, word: str) -> Iterator[tuple[str, Layout]]:
    """Possible splits with folders of labels called `word`."""
    home = _child(directory, word)
    inside = [path for path in sorted(home.glob("*/")) if not path.name.startswith(".")]
    nested = not any(SPLIT_NAMES.fullmatch(path.name) for path in inside) and not _labels(home, nested=False)
    images, classes = _image_folder(directory), _child(directory, "classes")
    yield "", Layout(images, home, _existing(classes), nested)
    if not nested:
        for labels in inside:
            split = labels.name
            yield split, Layout(images / split, labels, _existing(classes / split))
    for split in sorted(path for path in directory.glob("*/") if _child(path, word).is_dir()):
        labels = _child(split, word)
        yield split.name, Layout(_image_folder(split), labels, _existing(_child(split, "classes")))
    for labels in sorted(directory.glob(f"*_{word}/")):
        split = labels.name.removesuffix(f"_{word}")
        alike = (directory / f"{split}_{images}" for images in IMAGE_FOLDERS)
        images = directory / split
        images = images if images.is_dir() else next((path for path in alike if path.is_dir()), images)
        yield split, Layout(images, labels, _existing(directory / f"{split}_classes"))


def _child(folder: Path, name: str) -> Path:
    """The folder of a name in another one, or of a name in capitals, as Images."""
    others = (path for path in sorted(folder.glob("*/")) if path.name.lower() == name)
    return folder / name if (folder / name).is_dir() else next(others, folder / name)


def _image_folder(folder: Path) -> Path:
    """The folder of images in another one; `images` if there is none."""
    found = (_child(folder, name) for name in IMAGE_FOLDERS)
    return next((path for path in found if path.is_dir()), folder / "images")


def _grouped(directory: Path, split: str) -> Layout | None:
    """A folder in the folder of labels that is not a split by its name, opened as one."""
    for word in LABEL_FOLDERS:
        if (labels := directory / word / split).is_dir() and _labels(labels):
            return Layout(_image_folder(directory) / split, labels, _existing(directory / "classes" / split))
    return None


def _existing(folder: Path) -> Path | None:
    return folder if _labels(folder) else None


def _no_split(directory: Path, split: str, known: Mapping[str, Layout]) -> str:
    """The message about a split without label images."""
    have = ", ".join(name or "(without a name)" for name in known) or "none"
    if not known and (coco := splits(directory)):
        names = " or ".join(f"coco:{directory}" + (f"@{name}" if name else "") for name in coco)
        return f"{directory} is in COCO panoptic format, no folder of label images; give {names}"
    if not known and (found := conversion(directory)):
        return found
    expected = directory / "labels" / split
    if not known and (reason := other_arrangement(directory)):
        return reason
    if not known and directory.is_dir():
        others = sorted({path.suffix for path in _files(expected)} - {""})
        held = f" (but {', '.join(others)})" if others else ""
        reason = "" if held else cure(directory)
        other = f"{reason}; otherwise, " if reason else ""
        return (
            f"{expected} has no label images{held}; {other}save those of {directory / 'images' / split} there, under "
            "the same names, as PNG or TIFF; see docs/datasets.md for other folders"
        )
    return f"{expected} has no label images; splits in {directory}: {have}; see docs/datasets.md"


def _of_other_formats(directory: Path) -> str:
    """The message about a folder for label images that has files of formats that are not read as labels; "" if none."""
    for word in LABEL_FOLDERS:
        for _, layout in _with_folders(directory, word):
            place, files = layout.labels, _files(layout.labels, layout.nested)
            suffixes = sorted({path.suffix.lower() for path in files} & NOT_LABELS)
            if suffixes and (reason := _swapped(layout.images, place)):
                return reason
            if {".jpg", ".jpeg"} & set(suffixes):
                return (
                    f"{place} has JPEG files, which change the values of labels; export the labels again as PNG or "
                    "TIFF; of black and white masks, a threshold restores the values: "
                    f"mogrify -format png -threshold 50% {place}/*.jpg"
                )
            if suffixes:
                return f"{place} has {', '.join(suffixes)} files, which are not read as labels; save PNG or TIFF"
    return ""


def _swapped(images: Path, labels: Path) -> str:
    """The message about folders of images and of labels whose names are swapped, by the first file of each; or ""."""
    even: list[float] = []
    for folder in (images, labels):
        pictures = (path for path in _files(folder) if path.suffix.lower() in IMAGE_SUFFIXES)
        for path in islice(pictures, 1):
            with suppress(InputError):
                pixels = np.asarray(read_image(path)).reshape(-1, 3)
                if (pixels != pixels[0]).any():  # of one colour, it may be either
                    even.append((pixels[1:] == pixels[:-1]).all(-1).sum() / len(pixels))
    if len(even) < 2 or not even[0] > EVEN > 1 - EVEN > even[1]:
        return ""
    return f"{labels} seems to hold the images, and {images} the labels; swap the names of the two folders"


def other_arrangement(directory: Path) -> str:
    """The message about a folder that has images, but none that are label images by their place; "" for another one."""
    if reason := _of_other_formats(directory):
        return reason
    if reason := _distributed(directory):
        return reason
    if ade := next((path for path in files_below(directory) if ADE20K.fullmatch(path.name)), None):
        return (
            f"{ade} is of ADE20K, whose colours are a class (red and green) and an object (blue); take its benchmark "
            "for scene parsing (ADEChallengeData2016), which has label images"
        )
    for home in (directory, _image_folder(directory)):
        if kinds := _beside(home):
            several = "one of these kinds: " if len(kinds) > 1 else ""
            return (
                f"{home} seems to hold images and labels side by side; if so, write {several}"
                f"{' or '.join(map(str, kinds))} to {home / 'classes.yaml'}"
                + (f", and give {home}" if home != directory else "")
            )
    homes = [directory, *(path for path in sorted(directory.glob("*/")) if not path.name.startswith("."))]
    files = {home: _files(home, nested=False) for home in homes}
    if pickled := next((path for listed in files.values() for path in listed if _is_of_cellpose(path)), None):
        return (
            f"{pickled} is Cellpose's own file, which is not opened, since such a file can run code; "
            "save the masks as PNG or TIFF in Cellpose, and the folder is understood"
        )
    for home, listed in files.items():
        images = {path.stem: path.name for path in listed if path.suffix.lower() in (".jpg", ".jpeg")}
        labels = {path.stem: path.name for path in listed if path.suffix.lower() in LOSSLESS_SUFFIXES}
        if both := sorted(images.keys() & labels.keys()):
            return (
                f"{home} has {images[both[0]]} and {labels[both[0]]}; if the latter has the labels of the former, "
                f"move all such label images to {home / 'labels'} and the images to {home / 'images'}"
            )
    if masks := next((p for listed in files.values() for p in listed if LABEL_STUDIO.fullmatch(p.stem)), None):
        return f"{masks} is of Label Studio; {LABEL_STUDIO_CURE}"
    if found := sorted(directory.glob("*_GT/SEG/man_seg*.tif")):
        seen, name = found[0].parents[1], found[0].parents[1].name.removesuffix("_GT")
        return (
            f"{directory} is of the Cell Tracking Challenge; move {directory / name} to {directory / 'images' / name} "
            f"and {seen / 'SEG'} to {directory / 'labels' / name}, leave out images without labels, and write "
            f'image_name: "t*" and label_name: "man_seg*" to {directory / "classes.yaml"}'
        )
    if cities := sorted(path.name for path in (directory / "gtFine").glob("*/")):
        names = " or ".join(f"cityscapes:{directory}@{split}" for split in cities)
        return f"{directory} is Cityscapes as distributed; give {names}"
    if place := _near(directory):
        return f"{directory} is no data set, but {place} seems to be one; give {place}"
    beside = {
        home: f"{home} seems to hold images and labels side by side; write {' or '.join(map(str, kinds))} to "
        f"{home / 'classes.yaml'}, and give {home}"
        for home in _below(directory)
        if (kinds := _beside(home))
    }
    if reason := next((reason for reason in beside.values() if "image_name" in reason), ""):  # the surer ones
        return reason
    if (first := next(iter(homes[1:]), None)) and {"img.png", "label.png"} <= {path.name for path in files[first]}:
        return (
            f"{first} is of labelme_json_to_dataset; give the folder of Labelme's JSON files to pix2seqd convert-data"
        )
    for home, below in ((directory, ""), *((place, "") for place in _below(directory)), (directory, "**/")):
        inside = (path for path in sorted(home.glob("*/")) if not SPLIT_NAMES.fullmatch(path.name))
        names = [path.name for path in inside if _has_images(path, below)]
        if len(names) > 1:
            reason = f"{home} has the folders {', '.join(names[:5])}; call that of the images 'images' and that of "
            more = "; if several have the masks of a class each, draw those of an image into one label image"
            return f"{reason}the labels 'labels'{more if len(names) > 2 else ''}"
    return next(iter(beside.values()), "")


def _distributed(directory: Path) -> str:
    """The message about a known data set that lies as it was distributed; "" for other folders."""
    found = (what for pattern, what in DISTRIBUTED.items() if next(directory.glob(pattern), None))
    return next((f"{directory} {what.format(directory)}" for what in found), "")


def _below(directory: Path) -> Iterator[Path]:
    """Some folders in a folder and in those."""
    return islice((path for pattern in ("*/", "*/*/") for path in sorted(directory.glob(pattern))), MAX_FOLDERS)


def _has_images(folder: Path, below: str) -> bool:
    """Whether there are images directly in a folder, or in those of a pattern below it."""
    return any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.glob(f"{below}[!.]*"))


def _near(directory: Path) -> Path | None:
    """The folder of a data set to which a folder belongs, or one that it holds."""
    with suppress(InputError):
        for layout in label_splits(directory.parent).values():
            if directory in (layout.images, layout.labels) and layout.images.is_dir():
                return directory.parent
    for place in _below(directory) if not _image_folder(directory).is_dir() else ():
        with suppress(InputError):
            if is_mask_folders(place) or label_splits(place):
                return place
    return None


def _beside(directory: Path) -> list[_Names]:
    """The names of images and labels in one folder, if they tell each other apart; several for labels of several kinds.

    Labels have a word for it in their names, or begin with the name of an image.
    """
    folders = [directory, *(path for path in directory.glob("*/") if SPLIT_NAMES.fullmatch(path.name))]
    every = (path for folder in folders for path in _files(folder, nested=False))
    files = [path for path in every if path.suffix.lower() in IMAGE_SUFFIXES]
    lossless = [path for path in files if path.suffix.lower() in LOSSLESS_SUFFIXES]
    stems = {path.stem for path in files}
    longer = [p for p in lossless if any(p.stem[: at.start()] in stems for at in re.finditer(SEPARATORS, p.stem))]
    for labels in ([path for path in lossless if LABEL_WORDS.search(path.stem)], longer):
        images = [path for path in files if path not in labels]
        if names := _naming(images, directory, labels, directory):
            return [names]
        truth = {path.relative_to(directory).with_suffix("").as_posix() for path in labels}
        if kinds := _kinds(images, directory, truth):
            return kinds
    return _of_endings(files)


def _of_endings(files: Iterable[Path]) -> list[_Names]:
    """The names where the files of each image end alike, one of them in a word for an image: `a_rgb`, `a_label`."""
    begins: dict[str, set[Path]] = {}
    for path in files:
        for match in re.finditer(SEPARATORS, path.stem):
            begins.setdefault(path.stem[match.start() :], set()).add(path.parent / path.stem[: match.start()])
    for image in sorted(end for end in begins if IMAGE_WORDS.fullmatch(end)):
        others = sorted(end for end, found in begins.items() if end != image and found == begins[image])
        named = [end for end in others if LABEL_WORDS.fullmatch(end)]
        if others:
            return [_Names(f"*{image}", f"*{end}") for end in named or others]
    return []


def _check_partners(
    images: Path,
    by_name: Mapping[str, Path],
    labels: Path,
    truth: Mapping[str, Path],
    names: _Names,
    directory: Path,
) -> None:
    unpaired = sorted(by_name.keys() ^ truth.keys())
    if not unpaired:
        return
    if reason := _distributed(directory):
        raise InputError(reason)
    have, lacks = (images, labels) if unpaired[0] in by_name else (labels, images)
    cure = "give an image and its label image the same name up to the suffix"
    if truth.keys() < by_name.keys():
        cure += ", or move images without labels to another folder"
    offered = _naming(list(by_name.values()), images, list(truth.values()), labels)
    if names == _Names() and not by_name.keys() & truth.keys():
        if offered:
            cure = f"if an image and its label are named so, write {offered} to {directory / 'classes.yaml'}"
        else:
            kinds = " or ".join(map(str, _kinds(list(by_name.values()), images, truth)))
            several = _several_masks(by_name, labels, truth)
            choice = f"if each image has label images of several kinds, choose one: write {kinds} to "
            choice += f"{directory / 'classes.yaml'}; if each is the mask of a class, draw those of an image into one"
            apart = "" if several or kinds else _other_folder(by_name, images, truth, labels)
            cure = "; ".join(filter(None, [several, choice if kinds else "", apart])) or cure
    if by_name.keys() < truth.keys() and (ends := _further_ends(by_name, truth)):
        one = f'label_name: "*{ends[0]}"'
        cure = f"if each image has label images of several kinds, write {one} to {directory / 'classes.yaml'} to take "
        cure += "these, or move them away to take the others"
    if {name.casefold() for name in by_name} == {name.casefold() for name in truth}:
        cure = "some names differ in capital letters only; write them alike"
    if {_without_zeros(name) for name in by_name} == {_without_zeros(name) for name in truth}:
        cure = "some names differ only in the zeros before their numbers; write them alike"
    raise InputError(f"{have} has {unpaired[0]!r} but {lacks} does not ({len(unpaired)} files have no partner); {cure}")


def _further_ends(images: Iterable[str], truth: Collection[str]) -> list[str]:
    """How label images beside those of the same names as the images end, alike for all of them."""
    ends = {name.removeprefix(image) for image in islice(images, 1) for name in truth if name.startswith(image)}
    return sorted(end for end in ends if end and all(f"{image}{end}" in truth for image in images))


def _without_zeros(name: str) -> str:
    """A name whose numbers begin with no 0."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)


def _several_masks(images: Iterable[str], labels: Path, truth: Iterable[str]) -> str:
    """The cure where several masks seem to belong to an image; "" if they do not.

    Args:
        images: names of the images.
        labels: folder of the masks.
        truth: names of the masks, with their folders.
    """
    if all(LABEL_STUDIO.fullmatch(Path(name).name) for name in truth):
        return LABEL_STUDIO_CURE
    folders = {name.rpartition("/")[::2] for name in truth}
    known = set(images)
    if len({folder for folder, _ in folders}) > 1 and {stem for _, stem in folders} <= known:
        one = min(folder for folder, _ in folders)
        return (
            f"if {labels / one} and the folders beside it hold the masks of a class each, "
            "draw those of an image into one label image, with another value for each class; otherwise keep one folder"
        )
    if all(any(name.startswith(image) for image in known) for name in truth):
        one = min(known)
        return f"if each is the mask of one object, put those of image {one} into a folder {labels / one}, and so on"
    return ""


def _other_folder(by_name: Mapping[str, Path], images: Path, truth: Mapping[str, Path], labels: Path) -> str:
    """The cure where an image and its label have the same name, but lie in folders of other names; "" otherwise."""
    name, image = min(by_name.items(), default=("", images))
    same = [path for path in truth.values() if path.stem == image.stem]
    if not same:
        return ""
    places = " or ".join(str(path.parent) for path in same[:3])
    return f"if {same[0]} has the labels of {image}, move the files of {places} to {(labels / name).parent}"


def _naming(images: Sequence[Path], image_home: Path, labels: Sequence[Path], label_home: Path) -> _Names | None:
    """The names under which every label has an image, if any are found."""
    for label, image in product(_patterns(labels), _patterns(images)):
        wanted = {_common(label, path, label_home) for path in labels}
        if wanted and wanted <= {_common(image, path, image_home) for path in images} - {None}:
            return _Names(image, label)
    return None


def _kinds(images: Sequence[Path], home: Path, truth: Collection[str]) -> list[_Names]:
    """The names under which every image has a label image, if there are several, as of Cityscapes.

    Args:
        images: the images.
        home: their folder.
        truth: names of all label images, with their folders.
    """
    for image in _patterns(images) if images else ():
        names = {name for path in images if (name := _common(image, path, home))}
        one = min(names)
        ends = sorted(label.removeprefix(one) for label in truth if label.startswith(one))
        fit = [_Names(image, f"*{end}") for end in ends if end and all(name + end in truth for name in names)]
        if len(fit) > 1:
            return fit
    return []


def _patterns(files: Sequence[Path]) -> list[str]:
    """`*`, and it with each beginning or end that all stems share and that is set apart."""
    first, *others = [path.stem for path in files] or [""]
    ends = [first[match.start() :] for match in re.finditer(SEPARATORS, first)]
    starts = [first[: match.end()] for match in re.finditer(r"[_. -]|[A-Za-z](?=[0-9])", first)]
    shared_ends = [f"*{end}" for end in reversed(ends) if all(stem.endswith(end) for stem in others)]
    return ["*", *shared_ends, *(f"{start}*" for start in starts if all(stem.startswith(start) for stem in others))]
