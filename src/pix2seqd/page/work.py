"""The state of a visitor: an image, its segments, the selected and the kept segments, and what can be undone."""

import math
import zlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from pix2seqd.files import InputError
from pix2seqd.images.load import image_size, load_image
from pix2seqd.page import editing
from pix2seqd.page.viewer import data_uri, reduced, show
from pix2seqd.panoptic.panoptic import Panoptic, Segment
from pix2seqd.panoptic.taxonomy import Taxonomy

SAVES = "saves"
"""The events that save; the server's end waits for them."""
UNDO = 30
"""Number of changes that can be undone."""
MAX_POINTS = 20_000
"""Largest number of points of a stroke."""


@dataclass(frozen=True)
class Snapshot:
    """An earlier segmentation. Its mask is compressed, from some millions of pixels to some ten thousand bytes."""

    mask: bytes
    segments: tuple[Segment, ...]
    kept: frozenset[int]


@dataclass(frozen=True, eq=False)
class Work:
    """An image and its segmentation so far. A change makes a new object.

    Attributes:
        name: name of the image file.
        image: RGB.
        shown: the image for the browser, as a data URL.
        panoptic: its segmentation; void at first.
        selected: ids of the selected segments, in the order of selection.
        kept: ids of the segments that the visitor corrected or confirmed.
        past: earlier segmentations that can be restored, oldest first.
        unsaved: whether there are corrections that are not saved.
    """

    name: str
    image: Image.Image
    shown: str
    panoptic: Panoptic
    selected: tuple[int, ...] = ()
    kept: frozenset[int] = frozenset()
    past: tuple[Snapshot, ...] = ()
    unsaved: bool = False

    @classmethod
    def open(cls, path: Path, name: str, taxonomy: Taxonomy, max_pixels: int) -> Self:
        """Read an uploaded image of at most `max_pixels`. Messages have `name`, which the visitor knows."""
        try:
            size = image_size(path)
        except Exception:  # `load_image` raises a clear message for any such file
            size = (0, 0)
        if size[0] * size[1] > max_pixels:
            raise InputError(
                f"{name} has {size[0]} x {size[1]} pixels, more than the {max_pixels:,} that this page accepts; "
                "make it smaller, or use `pix2seqd segment`"
            )
        try:
            image = load_image(path)
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from error
        empty = Panoptic(np.zeros((image.height, image.width), np.int32), (), taxonomy)
        return cls(name, image, data_uri(reduced(image), "JPEG"), empty)

    def view(self, panoptic: Panoptic | None = None, progress: float = 1.0, note: str = "") -> dict[str, Any]:
        """The value of a viewer: this segmentation, or the given one of the same image."""
        if panoptic is not None:
            return show(self.shown, panoptic, progress=progress, note=note)
        return show(self.shown, self.panoptic, note=note, selected=self.selected, kept=self.kept)

    def changed(self, panoptic: Panoptic, kept: Collection[int] = (), selected: Collection[int] = ()) -> "Work":
        """With another segmentation, the ids `selected`, and the ids `kept` besides those kept already.

        The change can be undone, unless the categories change too.
        """
        present = {segment.id for segment in panoptic.segments}
        mask = zlib.compress(self.panoptic.segmentation.tobytes(), 1)
        past = (*self.past, Snapshot(mask, self.panoptic.segments, self.kept))[-UNDO:]
        return replace(
            self,
            panoptic=panoptic,
            kept=(self.kept | set(kept)) & present,
            selected=tuple(i for i in selected if i in present),
            past=past if panoptic.taxonomy == self.panoptic.taxonomy else (),
            unsaved=True,
        )

    def undone(self) -> "Work":
        """As before the last change; an `InputError` if there is none."""
        if not self.past:
            raise InputError("nothing to undo")
        last, shape = self.past[-1], self.panoptic.segmentation.shape
        mask = np.frombuffer(zlib.decompress(last.mask), np.int32).reshape(shape)
        panoptic = Panoptic(mask, last.segments, self.panoptic.taxonomy)
        return replace(self, panoptic=panoptic, kept=last.kept, selected=(), past=self.past[:-1], unsaved=True)

    def drawn(self, tool: Any, points: Any, radius: Any, category_id: int) -> "Work":
        """The result of a stroke with a tool of the viewer; an `InputError` if what the browser sent is wrong.

        Args:
            tool: select, add (to the selection), paint, erase or cut.
            points: x, y along the stroke, in pixels of the image.
            radius: radius of the brush, pixels; cut ignores it.
            category_id: category of a segment that is painted while none is selected.
        """
        points, radius = _checked(points, radius)
        radius = 0 if tool == "cut" else radius
        where = editing.stroke(points, radius, self.panoptic.segmentation.shape)
        under = set(np.unique(self.panoptic.segmentation[where]).tolist()) & {s.id for s in self.panoptic.segments}
        match tool:
            case "select" | "add":
                one = next(iter(under), None) if len(under) == 1 else None
                alone = () if one is None or self.selected == (one,) else (one,)
                return self._toggled(one) if tool == "add" else replace(self, selected=alone)
            case "paint":
                return self._painted(where, category_id)
            case "erase":
                things = {s.id for s in self.panoptic.segments if s.isthing}
                return self.changed(editing.erase(self.panoptic, where), under & things, self.selected)
            case "cut":
                return self._cut(where, under)
        raise InputError(f"there is no tool {tool!r}")

    def _painted(self, where: np.ndarray, category_id: int) -> "Work":
        """The pixels go to the selected segment; without one they begin a new segment of the category."""
        if not where.any():
            raise InputError("this stroke is beside the image")
        if len(self.selected) > 1:
            raise InputError(
                f"{len(self.selected)} segments are selected; select one of them to paint into it, or none"
            )
        if self.selected:
            panoptic, painted = editing.paint(self.panoptic, where, self.selected[0]), self.selected[0]
        else:
            panoptic, painted = editing.add(self.panoptic, where, category_id)
        if np.array_equal(panoptic.segmentation, self.panoptic.segmentation):
            name = next(segment.name for segment in self.panoptic.segments if segment.id == painted)
            clear = "click it with Select, so that nothing is selected, " if self.selected else ""
            raise InputError(f"this is {name} already; for a new segment {clear}choose its class, and paint")
        return self.changed(panoptic, [painted], [painted])

    def _toggled(self, segment_id: int | None) -> "Work":
        """With a segment added to the selection or removed from it. None clears the selection."""
        if segment_id in self.selected:
            return replace(self, selected=tuple(i for i in self.selected if i != segment_id))
        return replace(self, selected=() if segment_id is None else (*self.selected, segment_id))

    def _cut(self, where: np.ndarray, under: Collection[int]) -> "Work":
        """The things that the line crosses, of the segments under it, are divided."""
        panoptic, parts = self.panoptic, []
        for segment in self.panoptic.segments:
            if segment.isthing and segment.id in under:
                try:
                    panoptic, ids = editing.split(panoptic, segment.id, where)
                except InputError:  # the line touches the thing but does not divide it
                    continue
                parts += ids
        if not parts:
            raise InputError("the line crosses no thing; draw it from one side of a segment to the other")
        return self.changed(panoptic, parts, parts)

    def merged(self) -> "Work":
        """The selected segments become one."""
        panoptic, segment_id = editing.merge(self.panoptic, self.selected)
        return self.changed(panoptic, [segment_id], [segment_id])

    def split(self) -> "Work":
        """The unconnected parts of the selected segments become segments."""
        panoptic, parts = self.panoptic, []
        for segment_id in self._selection():
            panoptic, ids = editing.split(panoptic, segment_id)
            parts += ids
        return self.changed(panoptic, parts, parts)

    def removed(self) -> "Work":
        """Without the selected segments."""
        selected = self._selection()
        return self.changed(self.panoptic.select(lambda segment: segment.id not in selected))

    def relabelled(self, category_id: int) -> "Work":
        """The selected segments get another category."""
        panoptic, ids = self.panoptic, []
        for segment_id in self._selection():
            panoptic, new_id = editing.relabel(panoptic, segment_id, category_id)
            ids.append(new_id)
        return self.changed(panoptic, ids, ids)

    def confirmed(self) -> "Work":
        """The selected segments are kept. If all of them are kept already, they are no longer kept."""
        ids = set(self._selection())
        kept = self.kept - ids if ids <= self.kept else self.kept | ids
        return replace(self.changed(self.panoptic), kept=frozenset(kept))

    def hints(self, everything: bool) -> Panoptic:
        """The segments that the model must leave: the kept ones, or all; an `InputError` if there are none."""
        if not everything and not self.kept:
            raise InputError("nothing is corrected or kept yet; correct or keep a segment, or choose every segment")
        hints = self.panoptic.select(lambda segment: everything or segment.id in self.kept)
        if not hints.segments:
            raise InputError("every pixel is void; segment the image or paint something first")
        return hints

    def _selection(self) -> tuple[int, ...]:
        if not self.selected:
            raise InputError("select one or more segments first: choose Select and click them")
        return self.selected


def _checked(points: Any, radius: Any) -> tuple[list[tuple[float, float]], float]:
    try:
        if not 0 < len(points) <= MAX_POINTS:
            raise ValueError(len(points))
        path = [(float(x), float(y)) for x, y in points]
        size = float(radius)
        if not (0 <= size <= 1000 and all(math.isfinite(v) and abs(v) < 1e6 for point in path for v in point)):
            raise ValueError(size)
    except (TypeError, ValueError) as error:
        raise InputError("this stroke is not valid; draw it again") from error
    return path, size
