"""Data sets, and what turns their samples into training batches."""

from pix2seqd.data.sample import Dataset, Subset
from pix2seqd.files import InputError

SOURCES = "coco:DIR[@SPLIT] or shapes:COUNT[@SEED]"


def open_dataset(source: str, size: tuple[int, int], exclude: tuple[str, ...] = ()) -> Dataset:
    """The data set that a command line or recipe names.

    Args:
        source: `coco:DIR[@SPLIT]`, a folder in COCO panoptic format, or `shapes:COUNT[@SEED]`, synthetic scenes.
        size: height and width of pictures that are made here.
        exclude: file names of pictures to leave out.

    Raises:
        InputError: not understood, or not there.
    """
    kind, _, rest = source.partition(":")
    place, _, detail = rest.partition("@")
    if kind == "coco" and place:
        from pix2seqd.data.coco import CocoPanoptic

        whole = CocoPanoptic.open(place, detail)
        if not exclude:
            return whole
        return Subset(whole, tuple(i for i, record in enumerate(whole.records) if record["file_name"] not in exclude))
    if kind == "shapes" and place.isdecimal() and int(place) and (detail.isdecimal() or not detail):
        from pix2seqd.data.shapes import Shapes

        return Shapes(int(place), size, seed=int(detail or 0))
    raise InputError(f"data {source!r} is not understood; give {SOURCES}")
