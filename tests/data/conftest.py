"""A miniature data set in COCO panoptic format, drawn into a temporary folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pix2seqd.panoptic import id_to_rgb

CATEGORIES = [
    {"id": 7, "name": "cat", "isthing": 1, "color": [200, 0, 0]},
    {"id": 3, "name": "lawn", "isthing": 0, "color": [0, 200, 0]},
]
CAT, CROWD, LAWN = 70_000, 300, 5
"""Segment ids."""


def draw_coco(home: Path, json_path: Path, images: Path, panoptic: Path) -> Path:
    """Two pictures of 8 x 6: a lawn with a cat, a crowd of cats and a void column; and a lawn alone."""
    for folder in (json_path.parent, images, panoptic):
        (home / folder).mkdir(parents=True, exist_ok=True)
    first = np.full((6, 8), LAWN)
    first[1:4, 2:4], first[5, 3:], first[:, 0] = CAT, CROWD, 0
    truth = {"a": first, "b é": np.full((6, 8), LAWN)}
    annotations = []
    for number, (name, ids) in enumerate(truth.items(), start=11):
        Image.fromarray((id_to_rgb(ids) * 37).astype(np.uint8)).save(home / images / f"{name}.png")
        Image.fromarray(id_to_rgb(ids)).save(home / panoptic / f"{name}.png")
        categories = {LAWN: 3, CAT: 7, CROWD: 7}
        segments = [
            {"id": i, "category_id": categories[i], "iscrowd": int(i == CROWD)} for i in np.unique(ids).tolist() if i
        ]
        annotations.append({"image_id": number, "file_name": f"{name}.png", "segments_info": segments})
    records = [{"id": i, "file_name": f"{n}.png", "modality": n} for i, n in enumerate(truth, start=11)]
    content = {"images": records, "annotations": annotations, "categories": CATEGORIES}
    (home / json_path).write_text(json.dumps(content))
    return home


@pytest.fixture
def draw() -> Callable[[Path, Path, Path, Path], Path]:
    """`draw(home, json_path, images, panoptic)`, the paths relative to `home`."""
    return draw_coco


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
