"""CVAT for images 1.1: one XML file with polygons, masks, boxes and ellipses of all images."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from pix2seqd.data.annotations.records import (
    Annotations,
    ImageFinder,
    Record,
    Shape,
    drawn,
    join_groups,
    make_taxonomy,
    parse_size,
    unusable,
)
from pix2seqd.data.outlines import FARTHEST, Mask, ellipse_mask, polygon_mask, rectangle, turned
from pix2seqd.files import MAX_TEXT, XML_COSTS, InputError, read_bytes, require_memory

MAX_DEPTH = 50
"""Elements within elements of an XML file."""
OTHERS = ("meta", "version", "tag")


def read_xml(path: Path) -> ElementTree.Element:
    """The content of an XML file; an `InputError` if it is missing, too large or deep, or not XML.

    Declarations of its own (DOCTYPE), which can make much of little, are refused too.
    """
    builder, parser, depth = ElementTree.TreeBuilder(), expat.ParserCreate(), 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise InputError(f"{path} is nested more than {MAX_DEPTH} deep; export it again")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def refuse(*_: object) -> None:
        raise InputError(f"{path} has a DOCTYPE, which annotation tools do not write; remove it")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    content = read_bytes(path, MAX_TEXT)
    require_memory(path, content, XML_COSTS)
    try:
        parser.Parse(content, True)
        return builder.close()
    except (expat.ExpatError, ValueError, LookupError) as error:  # LookupError: an encoding that is not known
        raise InputError(f"{path} is not valid XML ({error}); export it again") from error


def is_cvat(root: ElementTree.Element, path: Path) -> bool:
    """Whether the content of an XML file is CVAT's; an `InputError` if it is of another known format."""
    if root.tag == "annotations" and root.find("track") is not None:
        raise InputError(f"{path} has the tracks of a video; export as 'CVAT for images 1.1'")
    return root.tag == "annotations" and root.find("image") is not None


def read_cvat(path: Path, root: ElementTree.Element, images: Path | None = None) -> dict[str, Annotations]:
    """Read the XML file, whose content is `root`; an `InputError` if it has no label.

    Shapes of one group and label are one object. A higher `z_order` is on top. `images` is the folder of the images;
    None: `images` beside the file, otherwise the file's folder.
    """
    home = path.parent
    folder = images or (home / "images" if (home / "images").is_dir() else home)
    labels = {e.findtext("name", "").strip(): e.findtext("color") for e in root.iterfind("meta//labels/label")}
    found = (child.get("label", "").strip() for image in root.iter("image") for child in image)
    names = list(dict.fromkeys([*labels, *sorted(name for name in found if name)]))
    if not names:
        raise InputError(f"{path} has no label; export it again")
    finder = ImageFinder(folder)
    records = [_record(image, finder) for image in root.iter("image")]
    return {"": Annotations(path, folder, make_taxonomy(names, path, colors=labels), records)}


def _record(image: ElementTree.Element, finder: ImageFinder) -> Record:
    name = image.get("name", "")
    children = [child for child in image if child.tag not in OTHERS]
    parts = [(_shape(f"{child.tag} {n}", child), _group(child)) for n, child in enumerate(children, start=1)]
    path = finder.find(name) or name.replace("\\", "/").rpartition("/")[2] or "(without a name)"
    return Record(path, list(join_groups(parts)), parse_size(image.get("width"), image.get("height")))


def _group(element: ElementTree.Element) -> str | None:
    group = element.get("group_id", "0").strip()
    return group if group not in ("", "0") else None


def _shape(name: str, element: ElementTree.Element) -> Shape:
    label = element.get("label", "").strip()
    name = f"{name} ({label})"
    decoders = {"polygon": _polygon, "box": _box, "ellipse": _ellipse, "mask": _mask}
    if element.tag in decoders and not label:
        return unusable(name, "it has no label")
    order = element.get("z_order", "0")
    depth = int(order) if order.lstrip("-").isdecimal() and len(order) < 10 else 0
    return replace(drawn(name, label, element.tag, decoders, element), depth=depth)


def _numbers(element: ElementTree.Element, *keys: str) -> list[float]:
    try:
        values = [float(element.get(key, "nan")) for key in keys]
    except ValueError:
        values = [np.nan]
    if not (np.abs(values) <= FARTHEST).all():
        raise ValueError(f"it lacks one of {', '.join(keys)}")
    return values


def _polygon(element: ElementTree.Element, height: int, width: int) -> Mask:
    try:
        points = [[float(v) for v in pair.split(",")] for pair in element.get("points", "").split(";") if pair.strip()]
    except ValueError as error:
        raise ValueError("its points are not pairs of numbers") from error
    return polygon_mask(points, height, width)


def _box(element: ElementTree.Element, height: int, width: int) -> Mask:
    left, top, right, bottom = _numbers(element, "xtl", "ytl", "xbr", "ybr")
    corners = np.array(rectangle(left, top, right, bottom))
    if element.get("rotation"):
        center = corners.mean(axis=0)
        corners = turned(corners - center, _numbers(element, "rotation")[0]) + center
    return polygon_mask(corners.tolist(), height, width)


def _ellipse(element: ElementTree.Element, height: int, width: int) -> Mask:
    x, y, rx, ry = _numbers(element, "cx", "cy", "rx", "ry")
    degrees = _numbers(element, "rotation")[0] if element.get("rotation") else 0.0
    return ellipse_mask((x, y), (rx, ry), degrees, height, width)


def _mask(element: ElementTree.Element, height: int, width: int) -> Mask:
    """Alternating runs of 0 and 1, row by row, in the box of the mask."""
    left, top, w, h = (int(value) for value in _numbers(element, "left", "top", "width", "height"))
    try:
        runs = [int(run) for run in element.get("rle", "").split(",")]
    except ValueError as error:
        raise ValueError("its runs are no numbers") from error
    if left < 0 or top < 0 or w < 1 or h < 1 or left + w > width or top + h > height:
        raise ValueError("its box is not inside the image")
    if min(runs) < 0 or sum(runs) != w * h:
        raise ValueError("its runs do not cover its box")
    return Mask.of(np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(h, w), top, left)
