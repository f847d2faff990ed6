"""`Panoptic`: which pixel belongs to which segment, and what each segment is.

A segmentation has two forms:

* the *mask tensor* of the paper (§2), int64 `[2, h, w]`: channel 0 the contiguous class, channel 1 the instance id,
  0 = void in both. The model trains on it and generates it;
* `Panoptic`: a map of segment ids and a record per segment, as COCO panoptic JSON and PNG store it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pix2seqd.files import encoded, write_json, write_png
from pix2seqd.images.load import Source, load_channels
from pix2seqd.panoptic import exports, render
from pix2seqd.panoptic.measure import measures
from pix2seqd.panoptic.runs import Runs, mapped
from pix2seqd.panoptic.segment import Segment
from pix2seqd.panoptic.taxonomy import VOID, Taxonomy

if TYPE_CHECKING:
    from roifile import ImagejRoi

UNLIKE = "look unlike those that the model is made for; their segments may mean nothing"
"""What a warning says of images that are `Panoptic.unfamiliar`."""


@dataclass(frozen=True, eq=False)
class Panoptic:
    """A panoptic segmentation of one image.

    Attributes:
        segmentation: int32 `[h, w]`, segment id per pixel, 0 = void.
        segments: one record per id present in `segmentation`, ordered by id.
        taxonomy: what the category ids mean.
        ood_score: out-of-distribution score, 0 or more: a Mahalanobis distance of the image's features from those of
            the training images, 1 at the limit above which it is `unfamiliar`. None: not known, because the checkpoint
            has no statistics of its training images, the image is smaller than all of them, or no model made this.
    """

    segmentation: np.ndarray
    segments: tuple[Segment, ...]
    taxonomy: Taxonomy
    ood_score: float | None = None

    def __repr__(self) -> str:
        """One line: all segments would fill pages."""
        height, width = self.segmentation.shape
        return f"<Panoptic: {width} x {height} pixels, {len(self.segments)} segments>"

    @property
    def unfamiliar(self) -> bool:
        """Whether the image looks unlike what the model was trained on, so that the result may mean nothing."""
        return self.ood_score is not None and self.ood_score > 1

    @classmethod
    def from_segmentation(
        cls,
        segmentation: np.ndarray,
        classes: Mapping[int, int],
        taxonomy: Taxonomy,
        crowds: Sequence[int] = (),
        scores: Mapping[int, float] | None = None,
    ) -> "Panoptic":
        """From a map of segment ids and the contiguous class of each id.

        Areas and boxes are measured.

        Args:
            segmentation: integers `[h, w]`, 0 = void. Ids without an entry in `classes` become void.
            classes: segment id → contiguous class 1..n. Ids that no pixel has are dropped.
            taxonomy: names and kinds of the classes.
            crowds: ids of crowd regions (COCO's `iscrowd`).
            scores: segment id → score, 0 to 1; segments without an entry have none.
        """
        runs = Runs.encode(segmentation)
        ids = np.where(np.isin(runs.values, list(classes)), runs.values, VOID).astype(np.int32)
        return cls._measured(replace(runs, values=ids), classes, taxonomy, crowds, scores)

    @classmethod
    def from_runs(
        cls, runs: Runs, classes: Mapping[int, int], taxonomy: Taxonomy, scores: Mapping[int, float]
    ) -> "Panoptic":
        """From the runs of a map of labels, whose array may be gone already; ids are 1..n in the order of the labels.

        Args:
            runs: of labels, 0 = void. Labels without an entry in `classes` become void.
            classes: label → contiguous class 1..n.
            taxonomy: names and kinds of the classes.
            scores: label → score, 0 to 1.
        """
        labels, dense = np.unique(runs.values, return_inverse=True)
        new = {label: at for at, label in enumerate((i for i in labels.tolist() if i in classes), start=1)}
        ids = np.array([new.get(label, VOID) for label in labels.tolist()], np.int32)[dense]
        renumbered = {at: classes[label] for label, at in new.items()}
        scored = {at: scores[label] for label, at in new.items()}
        return cls._measured(replace(runs, values=ids), renumbered, taxonomy, (), scored)

    @classmethod
    def _measured(
        cls,
        runs: Runs,
        classes: Mapping[int, int],
        taxonomy: Taxonomy,
        crowds: Sequence[int],
        scores: Mapping[int, float] | None,
    ) -> "Panoptic":
        segments = []
        for segment_id, (area, bbox) in runs.measure().items():
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
                    score=(scores or {}).get(segment_id),
                )
            )
        return cls(runs.decode(runs.values), tuple(segments), taxonomy)

    @classmethod
    def from_coco(cls, png: np.ndarray | Image.Image, annotation: Mapping[str, Any], taxonomy: Taxonomy) -> "Panoptic":
        """From a COCO panoptic PNG and its annotation, the inverse of `to_coco`.

        Args:
            png: RGB, id = R + 256 G + 65536 B: a Pillow image, or uint8 `[h, w, 3]`.
            annotation: an entry of the list `annotations` of COCO panoptic json; "segments_info" is read.
            taxonomy: the json's `categories`, see `Taxonomy.from_coco`.

        Raises:
            KeyError: a segment's category is not in the taxonomy.
            ValueError: the PNG and the annotation do not have the same segment ids.
        """
        runs = Runs.encode(rgb_to_id(np.asarray(png)))
        infos = {int(info["id"]): info for info in annotation["segments_info"]}
        present = set(np.unique(runs.values).tolist()) - {VOID}
        if missing := sorted(present - set(infos)):
            raise ValueError(f"segment id {missing[0]} is in the PNG but not in segments_info")
        if missing := sorted(set(infos) - present):
            raise ValueError(f"segment id {missing[0]} is in segments_info but not in the PNG")
        classes = {i: taxonomy.class_of(int(info["category_id"])) for i, info in infos.items()}
        crowds = [i for i, info in infos.items() if info.get("iscrowd", 0)]
        scores = {i: float(info["score"]) for i, info in infos.items() if info.get("score") is not None}
        return cls._measured(runs, classes, taxonomy, crowds, scores)

    @property
    def things(self) -> tuple[Segment, ...]:
        """The segments of countable objects, ordered by id; the others are stuff."""
        return tuple(segment for segment in self.segments if segment.isthing)

    @property
    def classes(self) -> dict[int, int]:
        """Segment id → contiguous class, as `from_segmentation` takes them."""
        return {segment.id: self.taxonomy.class_of(segment.category_id) for segment in self.segments}

    def to_coco(self, image_id: int = 1, file_name: str = "mask.png") -> tuple[np.ndarray, dict[str, Any]]:
        """The PNG and the annotation of COCO panoptic format, as panopticapi reads them.

        Args:
            image_id: id of the image's entry in the list `images`.
            file_name: name under which the PNG is going to be saved.

        Returns:
            The PNG's pixels, uint8 `[h, w, 3]`, id = R + 256 G + 65536 B; and an entry for the list `annotations`,
            in which each segment also has "name", "isthing" and, if it has one, "score". `Taxonomy.to_coco` gives the
            list `categories`.
        """
        return id_to_rgb(self.segmentation), self.annotation(image_id, file_name)

    def to_png(self) -> Image.Image:
        """The PNG of `to_coco` as an image of mode RGB, which a large one is made into without an array between."""
        height, width = self.segmentation.shape
        ids = np.ascontiguousarray(self.segmentation, "<i4")  # the bytes are R, G, B and 0
        return Image.frombytes("RGB", (width, height), ids.data.cast("B"), "raw", "RGBX", 0, 1)

    def annotation(self, image_id: int, file_name: str) -> dict[str, Any]:
        """The annotation of `to_coco`, with the same arguments."""
        infos = [
            {
                "id": segment.id,
                "category_id": segment.category_id,
                "area": segment.area,
                "bbox": list(segment.bbox),
                "iscrowd": int(segment.iscrowd),
                "name": segment.name,
                "isthing": segment.isthing,
                **({} if segment.score is None else {"score": segment.score}),
            }
            for segment in self.segments
        ]
        return {"image_id": image_id, "file_name": file_name, "segments_info": infos}

    def to_labels(self) -> np.ndarray:
        """A label image as Fiji, napari and Cellpose read it.

        Returns:
            int32 `[h, w]`: label k from 1 to n is `things[k - 1]`; 0 is everything else (stuff and void). A crowd
            counts as one thing; `without_crowds` removes it.
        """
        return mapped(self.segmentation, {segment.id: label for label, segment in enumerate(self.things, start=1)})

    def to_detections(self) -> dict[str, Any]:
        """The things as arguments of `supervision.Detections(**...)`, one row for each of `things`.

        Returns:
            "xyxy": float32 `[n, 4]`, left, top, right and bottom in pixels; "mask": bool `[n, h, w]`; "class_id":
            int64 `[n]`, the data set's category ids; "confidence": float32 `[n]`, the scores, or None where they are
            missing; "tracker_id": int64 `[n]`, the segment ids, which stay the same in all frames of a video; "data":
            {"class_name": str `[n]`}.
        """
        boxes = np.array([segment.bbox for segment in self.things], np.float32).reshape(-1, 4)
        ids = np.array([segment.id for segment in self.things], np.int64)
        scores = [segment.score for segment in self.things]
        return {
            "xyxy": np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
            "mask": self.segmentation[None] == ids[:, None, None],
            "class_id": np.array([segment.category_id for segment in self.things], np.int64),
            "confidence": None if None in scores or not scores else np.array(scores, np.float32),
            "tracker_id": ids,
            "data": {"class_name": np.array([segment.name for segment in self.things], str)},
        }

    def to_measures(self, image: Source | None = None, pixel_size: float | None = None) -> dict[str, np.ndarray]:
        """Measures of all segments, things and stuff, as `pandas.DataFrame(...)` takes them.

        Places are in pixels, and the centre of the first pixel is (0, 0), as in scikit-image; ImageJ and QuPath call it
        (0.5, 0.5).

        Args:
            image: the image that was segmented, for its intensities: a path, a PIL image or an array. The values are
                those of its file, all channels (`images.load.load_channels`), not those of the 8-bit view.
            pixel_size: micrometres of a pixel's side, for the columns in µm.

        Returns:
            Columns of one row for each of `segments`. "id"; "category", its name; "score", NaN where there is none;
            "area" in pixels; "centroid_x", "centroid_y"; "bbox_x", "bbox_y", "bbox_width", "bbox_height"; "perimeter",
            holes included, 0 for one pixel; "eccentricity" of the ellipse with the same second moments, 0 (circle, or
            one pixel) to 1 (line); "orientation" of that ellipse's longest axis in radians, from the vertical,
            counter-clockwise, -π/2 to π/2, 0 where all axes are equal; "touching_border", bool. With a pixel size,
            all lengths and areas again: "area_um2", "centroid_x_um", ... With an image,
            "intensity_mean", "intensity_min" and "intensity_max", with "_" and its name for each of several channels;
            pixels that are NaN or infinite do not count.

        Raises:
            InputError: the image cannot be read or has another size than the segmentation; pixel_size is not above 0.
        """
        return measures(self.segmentation, self.segments, () if image is None else load_channels(image), pixel_size)

    def to_instances(self, image_id: int = 1, first_id: int = 1, as_polygons: bool = False) -> list[dict[str, Any]]:
        """The things as entries of the list `annotations` of COCO instances json.

        Args:
            image_id: id of the image's entry in the list `images`.
            first_id: id of the first annotation; the others follow it.
            as_polygons: outlines instead of run lengths, for tools that take no others: a list of polygons along the
                edges of the pixels, one per connected part, with holes joined to the outline; of a crowd an
                uncompressed run-length encoding.

        Returns:
            Per thing: id, image_id, category_id, segment_id (its id in `segments`), area, bbox, iscrowd, score (if it
            has one) and segmentation: a run-length encoding, compressed, as `pycocotools.mask` makes it.
            `Taxonomy.to_coco` gives the list `categories`.
        """
        return exports.to_instances(self.segmentation, self.segments, image_id, first_id, as_polygons)

    def to_geojson(self, image: Source | None = None, pixel_size: float | None = None) -> dict[str, Any]:
        """The things as a GeoJSON FeatureCollection, which QuPath imports as detections.

        Args:
            image: as in `to_measures`.
            pixel_size: as in `to_measures`.

        Returns:
            Per thing a feature with its outline along the edges of the pixels, in pixels, (0, 0) being the corner of
            the first pixel (a Polygon with holes; a MultiPolygon if the thing has several parts); its category as
            the classification, with its colour; and the columns of `to_measures` as measurements.
        """
        return exports.to_geojson(self._outlined(), self.taxonomy, self.to_measures(image, pixel_size))

    def to_rois(self) -> "list[ImagejRoi]":
        """The things as ROIs of ImageJ; `roifile.roiwrite("rois.zip", panoptic.to_rois())` writes a ROI set.

        Returns:
            One ROI per thing, named after its category and id; composite if it has holes or several parts.
        """
        return exports.to_rois(self._outlined())

    def to_labelme(self, image_path: str, image_data: str | None = None) -> dict[str, Any]:
        """The things as the content of a labelme file.

        Args:
            image_path: path of the image as seen from the file.
            image_data: the image itself, a file of its own encoded as base64; None: labelme opens `image_path`.

        Returns:
            A dictionary for JSON, with a polygon for each part of a thing. Parts of one thing share its id as
            "group_id"; holes are joined to the outline.
        """
        return exports.to_labelme(self._outlined(), self.segmentation.shape, image_path, image_data)

    def diameter(self) -> float:
        """`typical_diameter` of the things, in pixels; crowds do not count."""
        return typical_diameter([segment.area for segment in self.things if not segment.iscrowd])

    def class_map(self) -> np.ndarray:
        """Contiguous class per pixel, int32 `[h, w]`, 0 = void."""
        return mapped(self.segmentation, self.classes)

    def overlay(self, image: Source, alpha: float = 0.5) -> Image.Image:
        """Draw the segments over their image.

        Stuff takes the colour of its category, each thing a colour that depends on its id alone, and a thin, lighter
        outline inside its edge. Void pixels keep the image's values. Where a taxonomy has more than two categories,
        segments that are large enough carry their name.

        Args:
            image: the image that was segmented: a path, a PIL image or an array, as `load_image` takes it.
            alpha: opacity of things, 0 to 1; stuff is fainter.

        Returns:
            A new RGB image of the same size.

        Raises:
            InputError: the image cannot be read or has another size than the segmentation.
        """
        return render.overlay(image, self.segmentation, self.segments, self.taxonomy, alpha)

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the segments in their colours, void black."""
        return encoded(self.overlay(np.zeros((*self.segmentation.shape, 3), np.uint8), alpha=1))

    def save(self, path: str | Path) -> None:
        """Write `path` (COCO panoptic PNG) and beside it the same name with `.json` (categories, annotation).

        Raises:
            InputError: the folder does not exist or cannot be written to.
        """
        path = Path(path)
        write_png(path, self.to_png())
        content = {"categories": self.taxonomy.to_coco(), **self.annotation(1, path.name)}
        write_json(path.with_suffix(".json"), content)

    def without_crowds(self) -> "Panoptic":
        """The same with crowd regions turned to void, as training needs it: a crowd is not an instance."""
        return self.select(lambda segment: not segment.iscrowd)

    def select(self, keep: Callable[[Segment], bool]) -> "Panoptic":
        """The same with the segments for which `keep` is false turned to void; the others stay as they are."""
        kept = tuple(segment for segment in self.segments if keep(segment))
        if len(kept) == len(self.segments):
            return self
        segmentation = mapped(self.segmentation, {segment.id: segment.id for segment in kept})
        return replace(self, segmentation=segmentation, segments=kept)

    def renumbered(self, ids: Mapping[int, int] | None = None) -> "Panoptic":
        """The same segments under other ids.

        Args:
            ids: present id → new id, for all segments; None: 1..n in their present order.
        """
        ids = ids or {segment.id: new for new, segment in enumerate(self.segments, start=1)}
        if all(segment.id == ids[segment.id] for segment in self.segments):
            return self
        segments = sorted((replace(s, id=ids[s.id]) for s in self.segments), key=lambda segment: segment.id)
        return replace(self, segmentation=mapped(self.segmentation, ids), segments=tuple(segments))

    def _outlined(self) -> exports.Outlined:
        return exports.outlined(self.segmentation, self.segments)


def typical_diameter(areas: Sequence[int]) -> float:
    """Diameter, in pixels, of a disc as large as the thing that the median pixel of all things belongs to.

    The median is over pixels, not over things, because small fragments hardly change it.

    Args:
        areas: pixels of each thing; the result for no things is 0.
    """
    if not areas:
        return 0.0
    ordered = np.sort(areas)
    return float(2 * np.sqrt(ordered[np.searchsorted(ordered.cumsum(), ordered.sum() / 2)] / np.pi))


def unique_inverse(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted distinct values of integers ≥ 0 of any shape, and the position of each element's value among them."""
    if labels.max(initial=0) >= 2**16:
        flat = labels.ravel()  # runs of equal pixels are sorted: there are far fewer of them than pixels
        starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
        values, index = np.unique(flat[starts], return_inverse=True)
        return values, np.repeat(index, np.diff(starts, append=flat.size)).reshape(labels.shape)
    # Counting is ten times faster than sorting.
    present = np.bincount(labels.ravel()) > 0
    return np.flatnonzero(present), (np.cumsum(present) - 1)[labels]


def rgb_to_id(rgb: np.ndarray) -> np.ndarray:
    """COCO's colour code: uint8 `[h, w, 3 or more]` → int32 `[h, w]`, id = R + 256 G + 65536 B."""
    ids = rgb[..., 2].astype(np.int32)
    for channel in (1, 0):
        ids <<= 8
        ids |= rgb[..., channel]
    return ids


def id_to_rgb(ids: np.ndarray | int) -> np.ndarray:
    """Integers below 2²⁴ of any shape → uint8 `[..., 3]`."""
    ids = np.asarray(ids)
    return np.stack([ids & 255, (ids >> 8) & 255, (ids >> 16) & 255], axis=-1).astype(np.uint8)
