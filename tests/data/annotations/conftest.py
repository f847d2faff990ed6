"""What the tests of all formats need: images to annotate, and the data sets that annotations become."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pix2seqd.data.coco import CocoPanoptic
from pix2seqd.data.convert import convert, open_annotations
from pix2seqd.data.sample import Sample


@pytest.fixture
def draw() -> Callable[..., Path]:
    """`draw(path, width=8, height=6)`: an image file."""

    def apply(path: Path, width: int = 8, height: int = 6) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (width, height), (90, 60, 30)).save(path)
        return path

    return apply


@pytest.fixture
def converted(tmp_path: Path) -> Callable[..., dict[str, list[Sample]]]:
    """`converted(source, images=None)`: split → its samples, after a conversion to `tmp_path`/out."""

    def apply(source: Path, images: Path | None = None) -> dict[str, list[Sample]]:
        found = {}
        for split, annotations in open_annotations(source, images).items():
            convert(annotations, tmp_path / "out", split)
            data = CocoPanoptic.open(tmp_path / "out", split)
            found[split] = [data[i] for i in range(len(data))]
        return found

    return apply


@pytest.fixture
def segments() -> Callable[[Sample], list[tuple[str, list[str]]]]:
    """Name and mask of each segment, in the order of ids; a mask has a line of "#" and "." for each row."""

    def apply(sample: Sample) -> list[tuple[str, list[str]]]:
        drawn = []
        for segment in sample.panoptic.segments:
            mask = sample.panoptic.segmentation == segment.id
            drawn.append((segment.name, ["".join(".#"[int(value)] for value in row) for row in mask]))
        return drawn

    return apply
