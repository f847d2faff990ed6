"""`Segment`: the record of one segment of a `Panoptic`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """One segment: a thing instance, or all pixels of one stuff class."""

    id: int
    """Value of its pixels in `Panoptic.segmentation`, 1 or more."""
    category_id: int
    """The data set's category id."""
    name: str
    """The category's name."""
    isthing: bool
    """True: a countable object. False: stuff, one segment per image."""
    area: int
    """Pixels."""
    bbox: tuple[int, int, int, int]
    """x, y, width, height in pixels."""
    iscrowd: bool = False
    """True: several things of one category that were not told apart."""
