"""A miniature data set in COCO panoptic format, drawn into a temporary folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from miniatures import draw_coco, zip_folder


@pytest.fixture
def draw() -> Callable[[Path, Path, Path, Path], Path]:
    """`draw(home, json_path, images, panoptic)`, the paths relative to `home`."""
    return draw_coco


@pytest.fixture
def pack() -> Callable[[Path, Path], None]:
    """`pack(folder, archive)`."""
    return zip_folder


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    return draw_coco(tmp_path, Path("panoptic_val.json"), Path("val"), Path("panoptic_val"))


@pytest.fixture
def edit(mini: Path) -> Callable[[Callable[[Any], None]], None]:
    """Change the json of `mini` in place."""

    def apply(change: Callable[[Any], None]) -> None:
        path = mini / "panoptic_val.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return apply
