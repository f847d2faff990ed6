"""Clips frame by frame, and stacks of depths from the sharpest plane to both ends."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice, tee

import numpy as np
from PIL import Image

from pix2seqd.files import InputError
from pix2seqd.images.frames import DecodedFrame
from pix2seqd.panoptic.panoptic import Panoptic

BLOCK = 8
"""Pixels of a side of the blocks whose mean brightness is compared: the mean of so many pixels has little noise."""

Planes = Callable[[Iterable[int]], Iterator[DecodedFrame]]
"""Reads planes by their numbers, from 1, in the order given; it leaves out what cannot be read."""
Video = Callable[[Iterable[Image.Image]], Iterator[Panoptic]]
"""Segments the frames of a clip, as `Segmenter.video` does: the same frames give the same result."""


def sharpest(planes: Iterable[DecodedFrame]) -> int:
    """Number of the plane in which neighbouring blocks differ most; an `InputError` if planes have different sizes."""
    found: list[tuple[float, int]] = []
    size = None
    for plane in planes:
        if plane.image.size != (size := size or plane.image.size):
            now, before = (f"{width} x {height}" for width, height in (plane.image.size, size))
            raise InputError(f"{plane.name} is {now} pixels, but the planes before are {before}; give one size only")
        found.append((sharpness(plane.image), -plane.number))
    return -max(found)[1]


def sharpness(image: Image.Image) -> float:
    """Mean squared difference of neighbouring blocks of `BLOCK` pixels a side (fewer in tiny images)."""
    blocks = np.asarray(image.convert("L").reduce(max(1, min(BLOCK, *(side // 2 for side in image.size)))), float)
    return float(sum(np.square(np.diff(blocks, axis=axis)).sum() for axis in (0, 1)) / blocks.size)


def segment_depths(video: Video, planes: Planes, start: int, total: int) -> Iterator[tuple[DecodedFrame, Panoptic]]:
    """Segment a stack with the memory of past masks, so that a thing has one id in all planes.

    The first plane of a stack is often empty, and a model for videos takes scale and first masks from its first frame.
    So the plane number `start` of `total` is segmented first, then those before it, backwards, then those after it. The
    results up to `start` are in memory until all of these are done. Yields planes and their segmentations in the order
    of the numbers. If an error or Ctrl-C comes, first those that are done, then the error.
    """
    done: list[tuple[DecodedFrame, Panoptic]] = []
    try:
        for result in segment_frames(video, planes(range(start, 0, -1))):
            done.append(result)
    except (Exception, KeyboardInterrupt):
        yield from reversed(done)
        raise
    first, before = done[0][1], [segment for _, panoptic in done for segment in panoptic.segments]
    shared = {segment.id for segment in first.segments}
    shift = max((segment.id for segment in before), default=0) - max(shared, default=0)
    stuff = {segment.category_id: segment.id for segment in before if not segment.isthing}
    yield from reversed(done)
    done.clear()
    for plane, panoptic in islice(segment_frames(video, planes(range(start, total + 1))), 1, None):
        new = {s.id: s.id if s.id in shared else s.id + shift for s in panoptic.segments}
        new |= {s.id: stuff.setdefault(s.category_id, new[s.id]) for s in panoptic.segments if not s.isthing}
        yield plane, panoptic.renumbered(new)


def segment_frames(video: Video, frames: Iterable[DecodedFrame]) -> Iterator[tuple[DecodedFrame, Panoptic]]:
    """Frames and their segmentations, in the order of `frames`."""
    to_segment, kept = tee(frames)
    results = video(frame.image for frame in to_segment)
    return ((frame, panoptic) for panoptic, frame in zip(results, kept, strict=False))
