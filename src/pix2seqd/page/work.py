"""What a person has on the page: a picture, its segments, what is selected and kept, and the way back. No gradio."""

import math
import zlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from pix2seqd.files import InputError
from pix2seqd.images.load import load_image
from pix2seqd.page import editing
from pix2seqd.page.viewer import data_uri, reduced, show
from pix2seqd.panoptic.panoptic import Panoptic, Segment
from pix2seqd.panoptic.taxonomy import Taxonomy

UNDO = 30
"""Steps back."""
MOST_POINTS = 20_000
"""Of a stroke."""


@dataclass(frozen=True)
class Past:
    """A segmentation as it was, compressed: masks of some millions of pixels shrink to some ten thousand bytes."""

    mask: bytes
    segments: tuple[Segment, ...]
    kept: frozenset[int]


@dataclass(frozen=True, eq=False)
class Work:
    """A picture and its segmentation as far as it has come. Changes make a new one.

    Attributes:
        name: of the picture's file.
        image: RGB.
        shown: the picture for the browser, as a URL.
        panoptic: its segmentation; void at first.
        selected: ids, in the order of selection.
        kept: ids of the segments that a person has corrected or confirmed; `known` leaves out the others.
        past: what can be undone, oldest first.
    """

    name: str
    image: Image.Image
    shown: str
    panoptic: Panoptic
    selected: tuple[int, ...] = ()
    kept: frozenset[int] = frozenset()
    past: tuple[Past, ...] = ()

    @classmethod
    def open(cls, path: Path, name: str, taxonomy: Taxonomy, most_pixels: int) -> Self:
        """Read a picture.

        Raises:
            InputError: no picture, or too many pixels; the message has the name that the person knows.
        """
        try:
            with Image.open(path) as header:
                size = header.size
        except Exception:  # whatever it is, `load_image` finds the words for it
            size = (0, 0)
        if size[0] * size[1] > most_pixels:
            raise InputError(
                f"{name} has {size[0]} x {size[1]} pixels, more than the {most_pixels:,} that this page takes; "
                "make it smaller, or use `pix2seqd segment`"
            )
        try:
            image = load_image(path)
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from error
        empty = Panoptic(np.zeros((image.height, image.width), np.int32), (), taxonomy)
        return cls(name, image, data_uri(reduced(image), "JPEG"), empty)

    def view(self, panoptic: Panoptic | None = None, progress: float = 1.0, note: str = "") -> dict[str, Any]:
        """What the viewer shows: the segmentation, or another one of the same picture."""
        if panoptic is not None:
            return show(self.shown, panoptic, progress=progress, note=note)
        return show(self.shown, self.panoptic, note=note, selected=self.selected, kept=self.kept)

    def changed(self, panoptic: Panoptic, kept: Collection[int] = (), selected: Collection[int] = ()) -> "Work":
        """With another segmentation, which can be undone.

        Args:
            panoptic: the new one.
            kept: ids to keep, beside those that were kept.
            selected: ids.
        """
        present = {segment.id for segment in panoptic.segments}
        mask = zlib.compress(self.panoptic.segmentation.tobytes(), 1)
        return replace(
            self,
            panoptic=panoptic,
            kept=(self.kept | set(kept)) & present,
            selected=tuple(i for i in selected if i in present),
            past=(*self.past, Past(mask, self.panoptic.segments, self.kept))[-UNDO:],
        )

    def undone(self) -> "Work":
        """As before the last change.

        Raises:
            InputError: there is none.
        """
        if not self.past:
            raise InputError("nothing to undo")
        last, shape = self.past[-1], self.panoptic.segmentation.shape
        mask = np.frombuffer(zlib.decompress(last.mask), np.int32).reshape(shape)
        panoptic = Panoptic(mask, last.segments, self.panoptic.taxonomy)
        return replace(self, panoptic=panoptic, kept=last.kept, selected=(), past=self.past[:-1])

    def drawn(self, tool: Any, points: Any, radius: Any, category_id: int) -> "Work":
        """What a tool of the viewer does.

        Args:
            tool: select, paint, erase or cut.
            points: x, y along the way, in the picture's pixels.
            radius: of the brush, pixels; a cut has none.
            category_id: of what is painted with nothing selected.

        Raises:
            InputError: the tool cannot be used like that; values from a browser are checked here.
        """
        points, radius = _checked(points, radius)
        radius = 0 if tool == "cut" else radius
        where = editing.stroke(points, radius, self.panoptic.segmentation.shape)
        under = set(np.unique(self.panoptic.segmentation[where]).tolist()) & {s.id for s in self.panoptic.segments}
        match tool:
            case "select":
                return self._selecting(next(iter(under), None) if len(under) == 1 else None)
            case "paint" if len(self.selected) == 1:
                panoptic = editing.paint(self.panoptic, where, self.selected[0])
                return self.changed(panoptic, self.selected, self.selected)
            case "paint":
                panoptic, new = editing.add(self.panoptic, where, category_id)
                return self.changed(panoptic, [new], [new])
            case "erase":
                things = {s.id for s in self.panoptic.segments if s.isthing}
                return self.changed(editing.erase(self.panoptic, where), under & things, self.selected)
            case "cut":
                return self._cut(where)
        raise InputError(f"there is no tool {tool!r}")

    def _selecting(self, segment_id: int | None) -> "Work":
        """With a segment selected or not selected any more; None: with none."""
        if segment_id in self.selected:
            return replace(self, selected=tuple(i for i in self.selected if i != segment_id))
        return replace(self, selected=() if segment_id is None else (*self.selected, segment_id))

    def _cut(self, where: np.ndarray) -> "Work":
        """Divides the things that the line leads across."""
        panoptic, parts = self.panoptic, []
        for segment in self.panoptic.segments:
            if segment.isthing and where[self.panoptic.segmentation == segment.id].any():
                try:
                    panoptic, ids = editing.split(panoptic, segment.id, where)
                except InputError:  # the line only touches it
                    continue
                parts += ids
        if not parts:
            raise InputError("the line leads across no thing; draw it from one side of a segment to the other")
        return self.changed(panoptic, parts, parts)

    def merged(self) -> "Work":
        """The selected segments as one."""
        panoptic, segment_id = editing.merge(self.panoptic, self.selected)
        return self.changed(panoptic, [segment_id], [segment_id])

    def split(self) -> "Work":
        """The selected segments' unconnected parts as segments of their own."""
        panoptic, parts = self.panoptic, []
        for segment_id in self._some():
            panoptic, ids = editing.split(panoptic, segment_id)
            parts += ids
        return self.changed(panoptic, parts, parts)

    def removed(self) -> "Work":
        """Without the selected segments."""
        return self.changed(editing.remove(self.panoptic, self._some()))

    def relabelled(self, category_id: int) -> "Work":
        """The selected segments in another category."""
        panoptic, homes = self.panoptic, []
        for segment_id in self._some():
            panoptic, home = editing.relabel(panoptic, segment_id, category_id)
            homes.append(home)
        return self.changed(panoptic, homes, homes)

    def confirmed(self) -> "Work":
        """The selected segments are kept, or, if all of them are already, no longer kept."""
        ids = set(self._some())
        kept = self.kept - ids if ids <= self.kept else self.kept | ids
        return replace(self.changed(self.panoptic), kept=frozenset(kept))

    def known(self, everything: bool) -> Panoptic:
        """What sampling anew has to leave as it is: what is kept, or all that is not void.

        Raises:
            InputError: nothing is.
        """
        if not everything and not self.kept:
            raise InputError("nothing is corrected or kept yet; correct or keep something, or keep every segment")
        known = self.panoptic if everything else editing.only(self.panoptic, self.kept)
        if not known.segments:
            raise InputError("every pixel is void; segment the picture or paint something first")
        return known

    def _some(self) -> tuple[int, ...]:
        if not self.selected:
            raise InputError("select one or more segments first: choose Select and click them")
        return self.selected


def _checked(points: Any, radius: Any) -> tuple[list[tuple[float, float]], float]:
    try:
        if not 0 < len(points) <= MOST_POINTS:
            raise ValueError(len(points))
        way = [(float(x), float(y)) for x, y in points]
        size = float(radius)
        if not (0 <= size <= 1000 and all(math.isfinite(v) and abs(v) < 1e6 for point in way for v in point)):
            raise ValueError(size)
    except (TypeError, ValueError) as error:
        raise InputError("this stroke is not understood; draw it again") from error
    return way, size
