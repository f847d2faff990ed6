"""Things in the formats of other tools: COCO instances, QuPath's GeoJSON, ImageJ's ROIs, labelme's polygons."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pix2seqd.panoptic.outlines import Ring, compressed_run_lengths, inside, joined, parts, polygons, run_lengths
from pix2seqd.panoptic.segment import Segment
from pix2seqd.panoptic.taxonomy import Taxonomy

if TYPE_CHECKING:
    from roifile import ImagejRoi

Outlined = list[tuple[Segment, list[list[Ring]]]]
"""Things with their outlines."""
MAX_ROI = 60_535
"""Largest whole number that ImageJ reads as a coordinate of a ROI; larger ones are written as floats."""


def outlined(segmentation: np.ndarray, segments: Sequence[Segment]) -> Outlined:
    """The segments of countable objects, each with the outlines of its parts; see `outlines.parts`."""
    things = (segment for segment in segments if segment.isthing)
    return [(thing, list(parts(inside(segmentation, thing), *thing.bbox[:2]))) for thing in things]


def to_instances(
    segmentation: np.ndarray, segments: Sequence[Segment], image_id: int, first_id: int, as_polygons: bool
) -> list[dict[str, Any]]:
    """Entries of the list `annotations` of COCO instances json; see `Panoptic.to_instances`."""
    entries = []
    shape = segmentation.shape[0], segmentation.shape[1]
    for number, segment in enumerate((segment for segment in segments if segment.isthing), start=first_id):
        x, y, _, _ = segment.bbox
        if not as_polygons:
            coded: Any = compressed_run_lengths(inside(segmentation, segment), x, y, shape)
        elif segment.iscrowd:
            coded = run_lengths(segmentation == segment.id)
        else:
            coded = polygons(inside(segmentation, segment), x, y)
        entries.append(
            {
                "id": number,
                "image_id": image_id,
                "category_id": segment.category_id,
                "segment_id": segment.id,
                "area": segment.area,
                "bbox": list(segment.bbox),
                "iscrowd": int(segment.iscrowd),
                **({} if segment.score is None else {"score": segment.score}),
                "segmentation": coded,
            }
        )
    return entries


def to_geojson(things: Outlined, taxonomy: Taxonomy, measures: Mapping[str, Any]) -> dict[str, Any]:
    """A GeoJSON FeatureCollection of detections for QuPath; see `Panoptic.to_geojson`."""
    rows = {int(measures["id"][row]): row for row in range(len(measures["id"]))}
    numeric = [column for column in measures if column != "category"]
    features = []
    for segment, found in things:
        # QuPath stores no NaN (JSON has none): a measure that has no value is left out.
        values = ((column, float(measures[column][rows[segment.id]])) for column in numeric)
        areas = [[[*map(list, ring), list(ring[0])] for ring in rings] for rings in found]
        color = taxonomy.category(taxonomy.class_of(segment.category_id)).color
        one = len(areas) == 1
        features.append(
            {
                "type": "Feature",
                "geometry": {
                    "type": "Polygon" if one else "MultiPolygon",
                    "coordinates": areas[0] if one else areas,
                },
                "properties": {
                    "objectType": "detection",
                    "classification": {"name": segment.name, "color": list(color)},
                    "measurements": {column: value for column, value in values if math.isfinite(value)},
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def to_rois(things: Outlined, position: int = 0) -> "list[ImagejRoi]":
    """One ROI of ImageJ per thing; see `Panoptic.to_rois`."""
    from roifile import ROI_TYPE, ImagejRoi

    result = []
    for segment, found in things:
        # The name becomes that of a file in a zip, and roifile writes characters of 16 bits only.
        shown = "".join("_" if letter in "/\\:" or ord(letter) > 0xFFFF else letter for letter in segment.name)
        name, rings = f"{shown} {segment.id}", [ring for rings in found for ring in rings]
        if len(rings) == 1:
            corners = np.array(rings[0])
            roi = ImagejRoi.frompoints(corners if corners.max() <= MAX_ROI else corners.astype(np.float32), name=name)
            roi.roitype = ROI_TYPE.TRACED  # as ImageJ's wand makes them, along the edges of pixels
        else:
            path = [number for ring in rings for number in _path(ring)]
            roi = ImagejRoi(name=name, roitype=ROI_TYPE.RECT, shape_roi_size=len(path))
            roi.multi_coordinates = np.array(path, np.float32)
        roi.left, roi.top, width, height = segment.bbox
        roi.right, roi.bottom, roi.position = roi.left + width, roi.top + height, position
        result.append(roi)
    return result


def _path(ring: Ring) -> Iterator[int]:
    """ImageJ's path, which is filled by the even-odd rule: 0 x y goes to a corner, 1 x y draws a line, 4 closes it."""
    for number, (x, y) in enumerate(ring):
        yield from (min(number, 1), x, y)
    yield 4


def to_labelme(things: Outlined, size: tuple[int, ...], image_path: str, image_data: str | None) -> dict[str, Any]:
    """The content of a labelme file; see `Panoptic.to_labelme`. `size` is the image's height and width."""
    shapes = [
        {
            "label": segment.name,
            "points": [[float(x), float(y)] for x, y in joined(rings)],
            "group_id": segment.id,
            "description": "" if segment.score is None else f"score {segment.score:.3f}",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }
        for segment, found in things
        for rings in found
    ]
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": image_data,
        "imageHeight": size[0],
        "imageWidth": size[1],
    }
