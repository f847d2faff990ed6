"""`Panoptic`: which pixel belongs to which segment, and what each segment is.

Two forms of the same thing:

* the *mask tensor* of the paper (§2), int64 `[2, h, w]`: channel 0 the contiguous class, channel 1 the instance id,
  0 = void in both. This is what the model trains on and generates;
* `Panoptic`: a map of segment ids and a record per segment, as COCO panoptic json + png store it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from pix2seqd.files import write_atomically, write_json
from pix2seqd.panoptic.taxonomy import VOID, Taxonomy

if TYPE_CHECKING:
    from PIL import Image

    from pix2seqd.images.load import Source


@dataclass(frozen=True)
class Segment:
    """One segment: a thing instance, or all pixels of one stuff class."""

    id: int
    """Value of its pixels in `Panoptic.segmentation`, 1 or more."""
    category_id: int
    """The data set's category id."""
    name: str
    isthing: bool
    area: int
    """Pixels."""
    bbox: tuple[int, int, int, int]
    """x, y, width, height in pixels."""
    iscrowd: bool = False


@dataclass(frozen=True, eq=False)
class Panoptic:
    """A panoptic segmentation of one picture.

    Attributes:
        segmentation: int32 `[h, w]`, segment id per pixel, 0 = void.
        segments: one record per id present in `segmentation`, ordered by id.
        taxonomy: what the category ids mean.
    """

    segmentation: np.ndarray
    segments: tuple[Segment, ...]
    taxonomy: Taxonomy

    @classmethod
    def from_segmentation(
        cls, segmentation: np.ndarray, classes: Mapping[int, int], taxonomy: Taxonomy, crowds: Sequence[int] = ()
    ) -> "Panoptic":
        """From a map of segment ids and the contiguous class of each id.

        Areas and boxes are measured here, once for all segments.

        Args:
            segmentation: integers `[h, w]`, 0 = void. Ids without an entry in `classes` become void.
            classes: segment id → contiguous class 1..n. Ids that no pixel carries are dropped.
            taxonomy: names and kinds of the classes.
            crowds: ids of crowd regions (COCO's `iscrowd`).
        """
        segmentation = np.where(np.isin(segmentation, list(classes)), segmentation, VOID).astype(np.int32)
        boxes = measure(segmentation)
        segments = []
        for segment_id in sorted(boxes):
            area, bbox = boxes[segment_id]
            category = taxonomy.category(classes[segment_id])
            segments.append(
                Segment(
                    id=segment_id,
                    category_id=category.id,
                    name=category.name,
                    isthing=category.isthing,
                    area=area,
                    bbox=bbox,
                    iscrowd=segment_id in crowds,
                )
            )
        return cls(segmentation, tuple(segments), taxonomy)

    @classmethod
    def from_coco(
        cls, png: "np.ndarray | Image.Image", annotation: Mapping[str, Any], taxonomy: Taxonomy
    ) -> "Panoptic":
        """From a COCO panoptic picture (RGB, id = R + 256 G + 65536 B) and its annotation record.

        Raises:
            KeyError: a segment's category is not in the taxonomy.
            ValueError: the picture has a segment the record lacks, or the record one that the picture lacks.
        """
        segmentation = rgb_to_id(np.asarray(png))
        infos = {int(info["id"]): info for info in annotation["segments_info"]}
        present = {int(i) for i in np.unique(segmentation)} - {VOID}
        if missing := sorted(present - set(infos)):
            raise ValueError(f"segment id {missing[0]} is in the picture but not in segments_info")
        if missing := sorted(set(infos) - present):
            raise ValueError(f"segment id {missing[0]} is in segments_info but not in the picture")
        classes = {i: taxonomy.class_of(int(info["category_id"])) for i, info in infos.items()}
        crowds = [i for i, info in infos.items() if info.get("iscrowd", 0)]
        return cls.from_segmentation(segmentation, classes, taxonomy, crowds)

    def annotation(self, image_id: int, file_name: str) -> dict[str, Any]:
        """The record for the `annotations` list of COCO panoptic json; each segment also has name and isthing."""
        return {
            "image_id": image_id,
            "file_name": file_name,
            "segments_info": [
                {
                    "id": segment.id,
                    "category_id": segment.category_id,
                    "area": segment.area,
                    "bbox": list(segment.bbox),
                    "iscrowd": int(segment.iscrowd),
                    "name": segment.name,
                    "isthing": segment.isthing,
                }
                for segment in self.segments
            ],
        }

    def diameter(self) -> float:
        """`typical_diameter` of the things, in pixels; crowds do not count."""
        return typical_diameter([s.area for s in self.segments if s.isthing and not s.iscrowd])

    def to_rgb(self) -> np.ndarray:
        """uint8 `[h, w, 3]`, the COCO panoptic picture."""
        return id_to_rgb(self.segmentation)

    def class_map(self) -> np.ndarray:
        """Contiguous class per pixel, int32 `[h, w]`, 0 = void."""
        table = np.zeros(int(self.segmentation.max(initial=0)) + 1, np.int32)
        for segment in self.segments:
            table[segment.id] = self.taxonomy.class_of(segment.category_id)
        return table[self.segmentation]

    def overlay(self, image: "Source") -> "Image.Image":
        """The picture (path, PIL image or array) with its segments drawn over it (see `render.overlay`)."""
        from pix2seqd.panoptic.render import overlay

        return overlay(self, image)

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the segments in their colours, void black."""
        from pix2seqd.panoptic.render import overlay

        stream = BytesIO()
        overlay(self, np.zeros((*self.segmentation.shape, 3), np.uint8), alpha=1).save(stream, format="PNG")
        return stream.getvalue()

    def save(self, path: "str | Path") -> None:
        """Write `path` (COCO panoptic png) and beside it the same name with `.json` (categories, annotation)."""
        from PIL import Image

        path = Path(path)
        with write_atomically(path) as temporary:
            Image.fromarray(self.to_rgb()).save(temporary, format="PNG")
        record = {"categories": self.taxonomy.to_coco(), **self.annotation(1, path.name)}
        write_json(path.with_suffix(".json"), record)

    def without_crowds(self) -> "Panoptic":
        """Crowd regions turned to void, as for training: a crowd is not an instance."""
        keep = {s.id: self.taxonomy.class_of(s.category_id) for s in self.segments if not s.iscrowd}
        return (
            self
            if len(keep) == len(self.segments)
            else Panoptic.from_segmentation(self.segmentation, keep, self.taxonomy)
        )

    def renumbered(self, ids: Mapping[int, int] | None = None) -> "Panoptic":
        """The same segments under other ids: present id → new id, by default 1..n in their present order."""
        ids = ids or {segment.id: new for new, segment in enumerate(self.segments, start=1)}
        table = np.zeros(int(self.segmentation.max(initial=0)) + 1, np.int32)
        for present, new in ids.items():
            table[present] = new
        segments = sorted((replace(s, id=ids[s.id]) for s in self.segments), key=lambda segment: segment.id)
        return Panoptic(table[self.segmentation], tuple(segments), self.taxonomy)


def typical_diameter(areas: Sequence[int]) -> float:
    """Of a disc as large as the thing that the median pixel of all things belongs to; 0 if there is none.

    The median over pixels hardly notices fragments; that over things would.
    """
    if not areas:
        return 0.0
    ordered = np.sort(areas)
    return float(2 * np.sqrt(ordered[np.searchsorted(ordered.cumsum(), ordered.sum() / 2)] / np.pi))


def measure(segmentation: np.ndarray) -> dict[int, tuple[int, tuple[int, int, int, int]]]:
    """Area and box (x, y, width, height) of every non-zero id of an integer map `[h, w]`."""
    ids, dense = compact(segmentation)
    # Dense ids from 1 on: find_objects allocates one slot per id, and COCO's ids reach 2**24.
    boxes = ndimage.find_objects(dense + 1)
    result = {}
    for segment_id, area, (rows, columns) in zip(ids.tolist(), np.bincount(dense.ravel()).tolist(), boxes, strict=True):
        if segment_id != VOID:
            box = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
            result[segment_id] = (area, box)
    return result


def compact(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values, sorted, of integers ≥ 0 of any shape, and the position of each element's value among them."""
    if labels.max(initial=0) >= 2**16:
        values, index = np.unique(labels, return_inverse=True)
        return values, index.reshape(labels.shape)
    # Counting is ten times faster than sorting.
    present = np.bincount(labels.ravel()) > 0
    return np.flatnonzero(present), (np.cumsum(present) - 1)[labels]


def rgb_to_id(rgb: np.ndarray) -> np.ndarray:
    """COCO's colour code: uint8 `[h, w, 3 or more]` → int32 `[h, w]`, id = R + 256 G + 65536 B."""
    rgb = rgb.astype(np.int32)
    return rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]


def id_to_rgb(ids: np.ndarray) -> np.ndarray:
    """int `[h, w]` below 2²⁴ → uint8 `[h, w, 3]`."""
    return np.stack([ids & 255, (ids >> 8) & 255, (ids >> 16) & 255], axis=-1).astype(np.uint8)
