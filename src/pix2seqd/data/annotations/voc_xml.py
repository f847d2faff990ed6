"""Polygons in an XML file for each image: Pascal VOC's as Roboflow writes it, and LabelMe's (also from CVAT)."""

from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from pix2seqd.data.annotations.cvat import read_xml
from pix2seqd.data.annotations.records import (
    ONLY_BOX,
    Annotations,
    ImageFinder,
    Record,
    Shape,
    by_split,
    labels_of,
    lost,
    make_taxonomy,
    parse_size,
    unusable,
    visible,
)
from pix2seqd.data.outlines import polygon_mask
from pix2seqd.files import InputError


def is_voc_xml(root: ElementTree.Element) -> bool:
    """Whether the content of an XML file is that of one image."""
    return root.tag == "annotation" and (root.find("object") is not None or root.find("filename") is not None)


def read_voc_xml(path: Path, images: Path | None = None) -> dict[str, Annotations]:
    """Read a folder of such files, with those in folders below it, or one file; an `InputError` if one is damaged.

    `images` is the folder of the images, if they lie neither beside the files nor below the folder. Returns split →
    annotations, if all files lie in folders that are called train, val or similar; otherwise the split is "".
    """
    home = path if path.is_dir() else path.parent
    files = [file for file in visible(home, "**/*") if file.suffix.lower() == ".xml"] if path.is_dir() else [path]
    roots = {file: root for file in files if is_voc_xml(root := read_xml(file))}
    finder = ImageFinder(images or home)
    records: list[tuple[str, Record]] = []
    for file, root in roots.items():
        shapes = [_shape(f"object {n}", element) for n, element in enumerate(_objects(root), start=1)]
        sizes = (("size/width", "size/height"), ("imagesize/ncols", "imagesize/nrows"))
        size = next(filter(None, (parse_size(root.findtext(w), root.findtext(h)) for w, h in sizes)), None)
        name = _text(root, "filename") or file.stem
        beside = finder.beside(Path(name).stem, file.parent) if file.is_relative_to(finder.folder) else None
        record = Record(beside or finder.find(name) or finder.named(file.stem) or name, shapes, size)
        records.append((file.relative_to(home).parts[0], record))
    if not (labels := labels_of(record for _, record in records)):
        raise InputError(f"{path} has no object with a name; label some")
    return by_split(records, path, finder.folder, make_taxonomy(labels, path))


def _objects(root: ElementTree.Element) -> list[ElementTree.Element]:
    """The objects that were not deleted."""
    return [element for element in root.iterfind("object") if _text(element, "deleted") != "1"]


def _text(element: ElementTree.Element, key: str = "name") -> str:
    return element.findtext(key, "").strip()


def _shape(name: str, element: ElementTree.Element) -> Shape:
    label = _text(element)
    if not label:
        return unusable(name, "it has no name")
    polygon = element.find("polygon")
    if polygon is None:
        masked = element.find("segm") is not None
        return lost(f"{name} ({label})", "it is a mask of LabelMe; export polygons" if masked else ONLY_BOX, label)
    corners = [[_text(point, "x"), _text(point, "y")] for point in polygon.iterfind("pt")]
    ends = (number for number in range(1, len(polygon) + 1) if polygon.find(f"x{number}") is not None)
    corners = corners or [[_text(polygon, f"x{number}"), _text(polygon, f"y{number}")] for number in ends]
    try:
        points = [[float(x), float(y)] for x, y in corners]
    except ValueError:
        return unusable(name, "its points are not pairs of numbers", label)
    return Shape(f"{name} ({label})", label, partial(polygon_mask, points))
