"""Outlines that viewers of microscopy save: a file for each image, with its name.

Aperio ImageScope (MoNuSeg, MoNuSAC) and ASAP write XML, QuPath GeoJSON, and ImageJ ROIs, one or a zip file of them.
"""

import re
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from pix2seqd.data.annotations.cvat import read_xml
from pix2seqd.data.annotations.records import (
    Annotations,
    ImageFinder,
    Record,
    Shape,
    is_hidden,
    lost,
    make_taxonomy,
    unusable,
    visible,
)
from pix2seqd.data.archive import DAMAGED, unpacked
from pix2seqd.data.outlines import Mask, combine, ellipse_mask, polygon_mask, rectangle
from pix2seqd.files import MAX_TEXT, InputError, read_bytes, read_json

SUFFIXES = (".xml", ".geojson", ".json", ".zip", ".roi")
ROI_WORDS = re.compile(r"(?i)[_. -]*(rois?|roi_?set)$")
"""What Cellpose and others add to the name of the image."""
NO_CLASS = ("", "None", "Description")
"""Names of layers and groups that no user gave."""
AREAS = ("annotation", "PathAnnotationObject")
"""What QuPath calls regions that a person drew, in which it detects objects."""
DETECTIONS = ("detection", "cell", "PathDetectionObject", "PathCellObject")

_Ring = list[list[float]]
"""Corners x, y."""


def is_viewers_xml(root: Element) -> bool:
    """Whether the content of an XML file is of ImageScope or ASAP."""
    return root.find("Annotation/Regions") is not None or root.tag == "ASAP_Annotations"


def is_geojson(content: Any) -> bool:
    """Whether the content of a json file is GeoJSON."""
    one = content[0] if isinstance(content, list) and content else content
    return isinstance(one, dict) and one.get("type") in ("Feature", "FeatureCollection")


def is_roi_file(path: Path) -> bool:
    """Whether a file is a ROI of ImageJ, or a zip file of them alone."""
    if path.suffix.lower() == ".roi":
        return True
    try:
        with zipfile.ZipFile(path) as held:
            names = _members(held)
    except (*DAMAGED, ValueError):
        return False
    return bool(names) and all(name.lower().endswith(".roi") for name in names)


def _members(held: zipfile.ZipFile) -> list[str]:
    """The names of the files in a zip file."""
    return [name for name in held.namelist() if not name.endswith("/") and not is_hidden(name.split("/"))]


def read_viewers(path: Path, images: Path | None = None) -> dict[str, Annotations]:
    """Read the files of a folder, with those in folders below it, or one file; the annotations are those of "".

    `images` is the folder of the images, whose names up to the suffix are those of the files; None: that of the files.
    A damaged file, and outlines in several planes, or of regions and of objects in them, are an `InputError`.
    """
    home = path if path.is_dir() else path.parent
    files = [p for p in visible(home, "**/*") if p.suffix.lower() in SUFFIXES] if path.is_dir() else [path]
    shapes = {file: found for file in files if (found := _shapes(file)) is not None}
    kinds = sorted({shape.label for found in shapes.values() for shape in found} - {""}) or ["object"]
    finder = ImageFinder(images or home)
    records = [
        Record(_image(file, finder), [_named(f"outline {n}", shape, kinds) for n, shape in enumerate(found, start=1)])
        for file, found in shapes.items()
    ]
    return {"": Annotations(path, finder.folder, make_taxonomy(kinds, path), records)}


def _named(name: str, shape: Shape, kinds: Collection[str]) -> Shape:
    """A shape with its name; one without a class is an object, unless others have classes."""
    label = shape.label or "object"
    if label not in kinds and not shape.lost:
        return unusable(name, "it has no class, as others have")
    return replace(shape, name=name, label=label)


def _image(file: Path, finder: ImageFinder) -> str:
    """The image of a file, as a path below the finder's folder."""
    stems = dict.fromkeys([file.stem, ROI_WORDS.sub("", file.stem) or file.stem])
    places = [file.parent] if file.parent.is_relative_to(finder.folder) else []
    found = (finder.beside(stem, place) or finder.named(stem) for stem in stems for place in [*places, finder.folder])
    return next(filter(None, found), f"{file.stem} (the image of {file.name}, of its name)")


def _shapes(file: Path) -> list[Shape] | None:
    """What a file holds, without names; None if it is of no viewer."""
    match file.suffix.lower():
        case ".xml":
            root = read_xml(file)
            return [*_of_image_scope(root), *_of_asap(root)] if is_viewers_xml(root) else None
        case ".json" | ".geojson":
            content = read_json(file)
            return _of_geojson(file, content) if is_geojson(content) else None
        case _:
            return _of_imagej(file) if is_roi_file(file) else None


def _outline(kind: str, rings: Sequence[_Ring], holes: Sequence[_Ring] = (), *, oval: bool = False) -> Shape:
    """What lies in an odd number of rings, or in the ellipse in the box of two corners, without what is in holes."""

    def mask(height: int, width: int) -> Mask:
        if oval:
            (x0, y0), (x1, y1) = rings[0]
            middle, radii = ((x0 + x1) / 2, (y0 + y1) / 2), (abs(x1 - x0) / 2, abs(y1 - y0) / 2)
            filled = ellipse_mask(middle, radii, 0, height, width)
        else:
            filled = combine((polygon_mask(ring, height, width) for ring in rings), np.logical_xor)
        return combine(chain([filled], (polygon_mask(hole, height, width) for hole in holes)), np.greater)

    return Shape("", kind, mask)


def _points(elements: Iterable[Element]) -> list[list[float]]:
    """The corners of the attributes X and Y; what is no number is NaN, which no mask takes."""
    try:
        return [
            [float(e.get("X", "nan").replace(",", ".")), float(e.get("Y", "nan").replace(",", "."))] for e in elements
        ]
    except ValueError:
        return [[np.nan, np.nan]]


def _of_image_scope(root: Element) -> Iterator[Shape]:
    """The regions of all layers: a layer is a class. Negative regions are holes in the others of their layer."""
    layers = [layer for layer in root.iterfind("Annotation") if layer.find("Regions/Region") is not None]
    for layer in layers:
        names = [layer.get("Name", ""), *(a.get("Name", "") for a in layer.iterfind("Attributes/Attribute"))]
        kind = next((name.strip() for name in names if name.strip() not in NO_CLASS), "")
        if not kind and len(layers) > 1:
            kind = f"layer {layer.get('Id', '')}".strip()
        regions = [(region, _points(region.iter("Vertex"))) for region in layer.iterfind("Regions/Region")]
        holes = [points for region, points in regions if region.get("NegativeROA") == "1"]
        for region, points in regions:
            form, pair = region.get("Type", "0"), len(points) == 2
            if region.get("NegativeROA") == "1":
                continue
            if form not in ("0", "1", "2") or (pair and form == "0") or (not pair and form == "2"):
                yield lost("", f"it has type {form} and {len(points)} points, which is no area", kind)
            elif pair:
                box = rectangle(*points[0], *points[1])
                yield _outline(kind, [points if form == "2" else box], holes, oval=form == "2")
            else:
                yield _outline(kind, [points], [hole for hole in holes if _meet(hole, points)])


def _meet(first: list[list[float]], second: list[list[float]]) -> bool:
    """Whether the boxes of some corners and of others have pixels in common."""
    a, b = np.array(first), np.array(second)
    return bool(len(a) and len(b) and (a.min(0) <= b.max(0)).all() and (b.min(0) <= a.max(0)).all())


def _of_asap(root: Element) -> Iterator[Shape]:
    """The annotations of ASAP: a group is a class."""
    for element in root.iterfind("Annotations/Annotation"):
        group = element.get("PartOfGroup", "").strip()
        kind, points = "" if group in NO_CLASS else group, _points(element.iter("Coordinate"))
        if (form := element.get("Type", "Polygon")) in ("Polygon", "Rectangle", "Spline"):
            yield _outline(kind, [points])
        else:
            yield lost("", f"it is a {form}, which has no area", kind)


def _of_geojson(file: Path, content: Any) -> list[Shape]:
    """The features of GeoJSON in pixels, as QuPath writes them; all of one plane, and objects or regions alone."""
    if isinstance(content, dict) and "crs" in content:
        raise InputError(f"{file} has coordinates of a map (crs); convert them to pixels of the image, and remove crs")
    features = content.get("features", [content]) if isinstance(content, dict) else content
    features = [feature for feature in features if isinstance(feature, dict)] if isinstance(features, list) else []
    types = {_text(_of(feature, "properties").get("objectType") or feature.get("id")) for feature in features}
    if types.intersection(AREAS) and types.intersection(DETECTIONS):
        raise InputError(f"{file} has annotations and detections of QuPath; export those that are the objects alone")
    planes = [_of(_of(feature, "geometry"), "plane") for feature in features]  # QuPath leaves the first one out
    if len({(str(plane.get("z", 0)), str(plane.get("t", 0))) for plane in planes}) > 1:
        raise InputError(f"{file} has outlines in several planes of an image; export those of one plane")
    return [_feature(feature) for feature in features]


def _of(holder: Any, key: str) -> Mapping[str, Any]:
    """The object under a key of JSON; empty if there is none."""
    value = holder.get(key) if isinstance(holder, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _feature(feature: Any) -> Shape:
    properties, geometry = _of(feature, "properties"), _of(feature, "geometry")
    given = _of(properties, "classification")
    names = given.get("names", [given.get("name") or properties.get("classification")])
    kind = ": ".join(filter(None, map(_text, names if isinstance(names, list) else ()))).strip()
    form, coordinates = str(geometry.get("type")), geometry.get("coordinates")
    if form not in ("Polygon", "MultiPolygon"):
        return lost("", f"it is a {form}, which has no area", kind)
    polygons: Any = [coordinates] if form == "Polygon" else coordinates
    try:
        return _outline(kind, [[corner[:2] for corner in ring] for rings in polygons for ring in rings])
    except TypeError:  # it is no list of lists; no mask takes it
        return _outline(kind, [[[np.nan, np.nan]]])


def _of_imagej(file: Path) -> list[Shape]:
    """The ROIs of ImageJ, all of one plane of a stack. Their names say nothing of a class."""
    from roifile import ROI_SUBTYPE, ROI_TYPE, ImagejRoi

    try:
        if file.suffix.lower() == ".roi":
            contents = [read_bytes(file, MAX_TEXT)]
        else:
            with zipfile.ZipFile(file) as held:
                if sum(info.file_size for info in held.infolist()) > MAX_TEXT:
                    raise InputError(f"{file} holds more than {MAX_TEXT:,} bytes; split it")
                contents = [unpacked(held, name, f"{file}/{name}") for name in _members(held)]
        rois = [ImagejRoi.frombytes(content) for content in contents]
        areas = (ROI_TYPE.POLYGON, ROI_TYPE.RECT, ROI_TYPE.OVAL, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED)
        others = (ROI_SUBTYPE.TEXT, ROI_SUBTYPE.ARROW, ROI_SUBTYPE.IMAGE)
        found = []
        for roi in rois:
            with np.errstate(invalid="ignore"):  # of coordinates that are no numbers
                rings = [np.asarray(ring, float).tolist() for ring in roi.coordinates(multi=True)]
            drawn = roi.subtype if roi.subtype in others else roi.roitype if roi.roitype not in areas else None
            found.append(lost("", f"it is a {drawn.name.lower()}, which has no area") if drawn else _outline("", rings))
    # roifile raises RuntimeError for the curves of some joined ROIs.
    except (*DAMAGED, ValueError, TypeError, IndexError) as error:
        raise InputError(f"{file} has ROIs that are damaged or have curves; save them again, as polygons") from error
    if len({(roi.position, roi.c_position, roi.z_position, roi.t_position) for roi in rois}) > 1:
        raise InputError(f"{file} has ROIs in several planes of a stack; save those of each plane with its image")
    return found
