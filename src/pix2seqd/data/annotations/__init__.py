"""Annotations of other tools, recognised by looking, and read to one form that `data.convert` paints."""

import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pix2seqd.data.annotations.coco_json import is_detection, is_panoptic, read_coco
from pix2seqd.data.annotations.cvat import is_cvat, read_cvat, read_xml
from pix2seqd.data.annotations.label_studio import is_label_studio, read_label_studio
from pix2seqd.data.annotations.labelme import is_labelme, read_labelme
from pix2seqd.data.annotations.masks import is_mask_folders, read_mask_folders
from pix2seqd.data.annotations.records import SPLIT_NAMES, Annotations, make_taxonomy, visible
from pix2seqd.data.annotations.rle_csv import csv_cure, is_rle_csv, read_rle_csv
from pix2seqd.data.annotations.supervisely import is_supervisely, read_supervisely
from pix2seqd.data.annotations.via import is_via, is_via_csv, read_via, read_via_csv
from pix2seqd.data.annotations.viewers import is_geojson, is_roi_file, is_viewers_xml, read_viewers
from pix2seqd.data.annotations.voc import is_voc, read_voc
from pix2seqd.data.annotations.voc_xml import is_voc_xml, read_voc_xml
from pix2seqd.data.annotations.yolo import dota_file, has_rows, is_yolo_yaml, read_yolo
from pix2seqd.files import InputError, read_json

FORMATS = (
    "COCO detection json, YOLO segmentation (data.yaml), Labelme, Label Studio (JSON), VGG VIA, CVAT for images 1.1 "
    "(XML), Supervisely, Pascal VOC segmentation or XML with polygons, Kaggle's run-length codes (CSV), a file of "
    "ImageScope, ASAP, QuPath (GeoJSON) or ImageJ (ROIs) for each image, or one mask file for each object"
)
VIEWERS = "outlines of a viewer"
"""What messages call those of ImageScope, ASAP, QuPath and ImageJ."""
OF_AN_IMAGE = "polygons in an XML file for each image"
"""What messages call those of Pascal VOC's XML and LabelMe."""
PER_IMAGE = {
    "Labelme": read_labelme,
    "Supervisely": read_supervisely,
    VIEWERS: read_viewers,
    OF_AN_IMAGE: read_voc_xml,
}
"""Formats with a file for each image, and what reads one file or a folder of them."""
LOOKED_AT = 50
"""Number of json or XML files of a folder that are looked at."""
DEPTH = ("*", "*/*", "*/*/*", "*/*/*/*")


@dataclass(frozen=True)
class Found:
    """Annotations that were recognised."""

    format: str
    """What messages call it."""
    path: Path
    """The file or folder to convert."""
    read: Callable[[Path | None], dict[str, Annotations]]
    """Folder of the images, or None to look for it → split → annotations."""


def recognize_annotations(path: Path) -> Found | None:
    """The format of a file, or of what is in a folder; None if it is none that can be converted.

    An `InputError` says that the file is damaged, or of a known format that cannot be converted.
    """
    if not path.is_dir():
        return _in_file(path)
    yamls = [p for p in visible(path, "*") if p.suffix.lower() in (".yaml", ".yml")]
    if found := next(filter(is_yolo_yaml, yamls), None):
        return Found("YOLO", found, partial(read_yolo, found))
    if homes := [folder for folder in (path, *visible(path, "*/"), *visible(path, "*/*/")) if is_voc(folder)]:
        if len(homes) > 1:
            raise InputError(f"{path} has several data sets of Pascal VOC; give {' or '.join(map(str, homes[:5]))}")
        return Found("Pascal VOC", homes[0], partial(read_voc, homes[0]))
    if found := _in_jsons(path):
        return found
    if found := _first(chain(_files(path, ".xml"), _files(path, ".geojson")), path):
        return found
    if is_mask_folders(path):
        return Found("one mask file for each object", path, partial(read_mask_folders, path))
    if has_rows(path):
        return Found("YOLO", path, partial(read_yolo, path))
    if any(map(is_roi_file, chain(_files(path, ".zip"), _files(path, ".roi")))):
        return _per_image(VIEWERS, path)
    tables = [table for table in _files(path, ".csv") if is_rle_csv(table) or is_via_csv(table)]
    return _together(path, [found for table in tables if (found := _in_file(table))])


def conversion(path: Path) -> str:
    """The message that annotations in a file or folder are to be converted, with the command; "" if there are none.

    Errors are those of `recognize_annotations`, or that there are bounding boxes only.
    """
    found = recognize_annotations(path)
    if found is None:
        return ""
    records = [(part.images / r.file_name, r.content) for part in found.read(None).values() for r in part.records]
    option = "" if any(content or image.is_file() for image, content in records) else " --images FOLDER_OF_IMAGES"
    command = f"pix2seqd convert-data {shlex.quote(str(found.path))} OUT{option}"
    return f"{path} holds annotations ({found.format}), to be converted first: {command}"


def _per_image(name: str, path: Path) -> Found:
    """The annotations of a format that has a file for each image: one file, or all files of a folder."""
    return Found(name, path, partial(PER_IMAGE[name], path))


def _files(folder: Path, suffix: str) -> Iterator[Path]:
    """Files of a suffix in a folder and up to three levels below it."""
    for pattern in DEPTH:
        yield from (path for path in visible(folder, pattern) if path.suffix.lower() == suffix)


def _in_file(path: Path) -> Found | None:
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        return Found("YOLO", path, partial(read_yolo, path)) if is_yolo_yaml(path) else None
    if suffix == ".xml":
        root = read_xml(path)
        if is_viewers_xml(root):
            return _per_image(VIEWERS, path)
        if is_voc_xml(root):
            return _per_image(OF_AN_IMAGE, path)
        return Found("CVAT", path, partial(read_cvat, path, root)) if is_cvat(root, path) else None
    if suffix in (".json", ".geojson"):
        return _in_json(path, read_json(path))
    if suffix == ".csv" and is_rle_csv(path):
        return Found("run-length codes", path, partial(read_rle_csv, path))
    if suffix == ".csv" and is_via_csv(path):
        return Found("VGG VIA", path, partial(read_via_csv, path))
    if suffix == ".csv" and (reason := csv_cure(path)):
        raise InputError(f"{path} {reason}")
    if suffix in (".zip", ".roi") and is_roi_file(path):
        return _per_image(VIEWERS, path)
    if suffix in CURES:
        raise InputError(f"{path} cannot be converted; {CURES[suffix]}")
    return None


def _in_json(path: Path, content: Any) -> Found | None:
    if is_detection(content):
        split = path.stem.removeprefix("instances_") if path.stem.startswith("instances_") else ""
        return Found("COCO detection", path, lambda images: {split: read_coco(path, content, images)})
    if is_label_studio(content):
        return Found("Label Studio", path, partial(read_label_studio, path, content))
    for name, is_ours in (("Labelme", is_labelme), ("Supervisely", is_supervisely), (VIEWERS, is_geojson)):
        if is_ours(content):
            return _per_image(name, path)
    if is_via(content):
        return Found("VGG VIA", path, partial(read_via, path, content))
    if reason := _refusal(content):
        raise InputError(f"{path} {reason}")
    return None


def cure(folder: Path) -> str:
    """What to do with a file of a known kind that is not read, if a folder of nothing recognised has one below it."""
    if boxes := dota_file(folder):
        return f"{boxes} has boxes of DOTA, which are no outlines; iSAID has outlines for its images, as COCO json"
    known = CURES.keys() - {".txt"} | {".json", ".geojson", ".xml"}
    places = (place for file in visible(folder, "**/*") for place in [*reversed(file.parents), file])
    other = next((place for place in places if place.suffix.lower() in known and place.is_relative_to(folder)), None)
    if other and other.suffix.lower() == ".csv" and (reason := csv_cure(other)):
        return f"{other} {reason}"
    return f"of {other}: {CURES.get(other.suffix.lower(), 'it is of no known format')}" if other else ""


CURES = {
    ".zip": "unpack it, and give the folder",
    ".txt": "give the folder of the data set, or its data.yaml",
    ".csv": "of CSV files, only VIA's and those with columns ImageId and EncodedPixels are known; export as COCO json",
    ".ndjson": "Labelbox's export has links instead of masks; convert it to COCO json with Labelbox's tools; of "
    "Ultralytics, export YOLO",
    ".jsonl": "export as COCO json",
    ".vott": "VoTT exports no masks; convert the regions of its assets to COCO json",
    ".manifest": "SageMaker's manifest has links instead of masks; fetch the masks, and name their folder labels",
    ".tfrecord": "export as COCO json",
    **dict.fromkeys((".npy", ".npz", ".mat", ".h5", ".hdf5", ".zarr", ".n5"), "save label images as PNG or TIFF"),
    **dict.fromkeys((".ilp", ".czi", ".nd2", ".lif"), "export its images and label images as TIFF"),
    **dict.fromkeys((".nii", ".dcm", ".nrrd", ".mha", ".mhd"), "save its slices and their label images as PNG or TIFF"),
    **dict.fromkeys((".annotations", ".ndpa"), "export the outlines as GeoJSON in pixels, or label images"),
    ".gz": "unpack it; of NIfTI (.nii.gz), save the slices and their label images as PNG or TIFF",
    **dict.fromkeys((".parquet", ".arrow", ".mdb", ".pkl"), "save the images and label images in it as files"),
    ".tar": "unpack it, and give the folder",
}
"""Suffix of files that are not read, and what to do instead."""
OF_ENTRIES = (
    ({"image_id", "category_id"}, "has only the results of a model; give the json that also has images and categories"),
    (
        {"segmentation", "predicted_iou"},
        "has masks of Segment Anything, without images and classes; join the files to one COCO json with a category",
    ),
    ({"data_row"}, "is from Labelbox; export it as COCO json"),
    ({"Labeled Data"}, "is from Labelbox; export it as COCO json"),
    ({"image", "label"}, "is Label Studio's short form (JSON-MIN); export as JSON"),
    ({"image", "annotator"}, "is Label Studio's short form (JSON-MIN); export as JSON"),
    ({"data", "completions"}, "is from an old Label Studio; export it as JSON from a newer one"),
    (
        {"image", "annotations"},
        "is from CreateML, which has bounding boxes only; export masks as COCO json",
    ),
    ({"className"}, "is from SuperAnnotate; export it as COCO json"),
    ({"label_hash", "data_units"}, "is from Encord; export it as COCO json"),
    ({"externalId", "labels"}, "is from Kili; export it as COCO json"),
    ({"task_id", "response"}, "is from Scale, and may have links instead of masks; convert it to COCO json"),
    ({"name", "labels"}, "is from BDD100K; use its label images, or convert it to COCO json with its tools"),
)
"""Keys of the entries of a list, and why it cannot be converted."""
OF_ONE = (
    ({"items", "categories"}, "is from Datumaro; export it as COCO json"),
    ({"item", "annotations"}, "is from V7 Darwin; export it as COCO json"),
    ({"metadata", "instances"}, "is from SuperAnnotate; export it as COCO json"),
    ({"dataset", "image", "annotations"}, "is from V7 Darwin; export it as COCO json"),
    ({"project_name", "label_classes", "images"}, "is from Hasty; export it as COCO json"),
    ({"filename", "annotations", "metadata"}, "is from Dataloop; export it as COCO json"),
    ({"image", "annotations"}, "has masks without classes, as SA-1B; join the files to one COCO json with a category"),
    ({"project", "file", "metadata"}, "is of VIA 3; draw the outlines in VIA 2, or export as COCO json"),
    (
        {"labels", "numTraining"},
        "is of nnU-Net, whose images are not read here; save the slices of imagesTr and labelsTr as PNG or TIFF, one "
        "file for each, under the same names",
    ),
    ({"dataset", "samples"}, "is from Segments.ai and has links instead of masks; export it as COCO panoptic"),
    ({"info", "objects"}, "is from ISAT; convert it to COCO json with ISAT"),
    ({"task", "result"}, "is one annotation of Label Studio; export the project as JSON"),
    ({"annotation"}, "is of ADE20K; take its benchmark for scene parsing, which has label images"),
    ({"features", "metadata"}, "is of xBD; use its label images, the folder targets"),
    ({"videos", "annotations"}, "has tracks of videos, as YouTube-VIS; convert its frames to COCO json with images"),
    ({"asset", "regions"}, "is from VoTT; convert its regions to COCO json"),
    ({"assets", "tags"}, "is from VoTT; convert its regions to COCO json"),
    ({"samples"}, "is from FiftyOne; export it as COCODetectionDataset"),
    (
        {"objects"},
        "has outlines as Cityscapes and Mapillary write them; use the label images beside it, those of Cityscapes with "
        'the lines image_name: "*_leftImg8bit" and label_name: "*_gtFine_instanceIds" in classes.yaml',
    ),
    ({"annotations", "categories"}, "is COCO json without images; export it with images"),
    ({"images", "categories"}, "is COCO json without annotations; export it with annotations"),
)
"""Keys of a json, and why it cannot be converted."""


def _refusal(content: Any) -> str:
    """Why a json of another known format cannot be converted, and the cure; "" for one that is not known."""
    if is_panoptic(content):
        return "is COCO panoptic json, which needs no conversion; see docs/datasets.md for its folders"
    first = content[0] if isinstance(content, list) and content else content
    keys = set(first) if isinstance(first, dict) else set()
    known = OF_ENTRIES if isinstance(content, list) else OF_ONE
    return next((reason for needed, reason in known if needed <= keys), "")


def _in_jsons(folder: Path) -> Found | None:
    """The annotations in the json files of a folder: all COCO files, otherwise the first that is understood."""
    detections: dict[str, list[tuple[Path, Any]]] = {}
    others: list[Found] = []
    first: Found | InputError | None = None
    for path in islice(_files(folder, ".json"), LOOKED_AT):
        try:
            content = read_json(path)
            if is_detection(content):
                detections.setdefault(_split(path, folder), []).append((path, content))
            elif found := _in_json(path, content):
                if found.format in PER_IMAGE:
                    return _per_image(found.format, folder)
                others.append(found)
                first = first or found
        except InputError as error:
            first = first or error
    if not detections:
        if isinstance(first, InputError):
            raise first
        return _together(folder, others)
    if official := {s: [one for one in f if one[0].name.startswith("instances_")] for s, f in detections.items()}:
        detections = {split: files for split, files in official.items() if files} or detections
    if several := next((listed for listed in detections.values() if len(listed) > 1), None):
        names = " or ".join(str(path) for path, _ in several)
        raise InputError(f"{folder} has several json files; give one of them: {names}")
    if len(detections) == 1:
        return _in_json(*next(iter(detections.values()))[0])
    return Found("COCO detection", folder, partial(_read_cocos, {s: listed[0] for s, listed in detections.items()}))


def _first(files: Iterable[Path], folder: Path) -> Found | None:
    """The first of some files that is understood, or all of its format, if each is of many images."""
    found: list[Found] = []
    for path in islice(files, LOOKED_AT):
        one = _in_file(path)
        if one and one.format in PER_IMAGE and not found:
            return _per_image(one.format, folder)
        found += [one] if one else []
    return _together(folder, found)


def _together(folder: Path, found: list[Found]) -> Found | None:
    """The annotations of several files, each of a split; None without any."""
    if len(found) < 2:
        return found[0] if found else None
    splits = {_split(one.path, folder): one for one in found}
    if len(splits) < len(found) or not all(SPLIT_NAMES.fullmatch(split) for split in splits):
        names = " or ".join(str(one.path) for one in found[:5])
        raise InputError(f"{folder} has several files of annotations; give one of them: {names}")

    def read(images: Path | None) -> dict[str, Annotations]:
        return _with_classes_of_all({s: part for s, one in splits.items() for part in one.read(images).values()})

    return Found(found[0].format, folder, read)


def _with_classes_of_all(parts: dict[str, Annotations]) -> dict[str, Annotations]:
    """The splits with the classes of all, of one order: each file has only those that occur in it, or its own order."""
    orders = {tuple(category.name for category in part.taxonomy.categories) for part in parts.values()}
    if len(orders) > 1:
        for part in parts.values():
            part.taxonomy = make_taxonomy(sorted(set().union(*orders)), part.source)
    return parts


def _read_cocos(files: dict[str, tuple[Path, Any]], images: Path | None) -> dict[str, Annotations]:
    return {split: read_coco(path, content, images) for split, (path, content) in files.items()}


def _split(path: Path, folder: Path) -> str:
    """The split of a COCO file: train of instances_train.json, of train.json and of train/_annotations.coco.json."""
    if path.name.startswith("instances_"):
        return path.stem.removeprefix("instances_")
    own_folder = path.parent != folder and path.parent.name not in ("annotations", "labels")
    return path.parent.name if own_folder else path.stem
