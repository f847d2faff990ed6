"""Miniature copies of data sets, in the layouts in which their owners distribute them, and how they are refused."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import id_to_rgb

CATEGORIES = [
    {"id": 7, "name": "cat", "isthing": 1, "color": [200, 0, 0]},
    {"id": 3, "name": "lawn", "isthing": 0, "color": [0, 200, 0]},
]
CAT, CROWD, LAWN = 70_000, 300, 5
"""Segment ids."""


COCO = (Path("annotations/panoptic_val2017.json"), Path("val2017"), Path("annotations/panoptic_val2017"))
"""Where COCO's owners put the JSON, images and PNGs of a split."""


def draw_coco(home: Path, json_path: Path = COCO[0], images: Path = COCO[1], panoptic: Path = COCO[2]) -> Path:
    """Two images of 8 x 6: a lawn with a cat, a crowd of cats and a void column; and a lawn alone."""
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


CITYSCAPES_NAMES = ["aachen_000000_000019", "aachen_000001_000019", "bonn_000000_000019"]
CITYSCAPES_LABELS = np.array([[1, 7, 7, 23], [26001, 26001, 26002, 26], [24000, 33, 29001, 0]])
"""Void, road, sky; two cars and a group of them; a person, a group of bicycles, a caravan (not evaluated), void."""


def turn(path: Path) -> None:
    """Give an image the EXIF orientation 3, upside down."""
    with Image.open(path) as image:
        exif = image.getexif()
        exif[0x0112] = 3
        image.copy().save(path, exif=exif)


def save(pixels: Any, path: Path, mode: str | None = None) -> None:
    """Write uint8 pixels as an image. Mode "P" adds a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels, np.uint8), mode)
    if mode == "P":
        image.putpalette([value for i in range(256) for value in (i, 255 - i, i // 2)])
    image.save(path)


def draw_cityscapes(home: Path) -> Path:
    """Three images of two cities in the split val, as unpacked."""
    for name in CITYSCAPES_NAMES:
        city = name.partition("_")[0]
        images, labels = (home / kind / "val" / city for kind in ("leftImg8bit", "gtFine"))
        save(np.full((3, 4, 3), (len(city), 2, 3)), images / f"{name}_leftImg8bit.png")
        semantic = np.where(CITYSCAPES_LABELS < 1000, CITYSCAPES_LABELS, CITYSCAPES_LABELS // 1000)
        save(semantic, labels / f"{name}_gtFine_labelIds.png")
        save(np.zeros((3, 4, 3)), labels / f"{name}_gtFine_color.png")
        Image.fromarray(CITYSCAPES_LABELS.astype(np.uint16)).save(labels / f"{name}_gtFine_instanceIds.png")
    return home


def draw_davis(home: Path) -> Path:
    """Two sequences of three and two frames: an object that moves right, a second one, and void."""
    for name, length in (("bear", 3), ("cows", 2)):
        for t in range(length):
            labels = np.zeros((4, 6))
            labels[1, t], labels[3, 3:5], labels[0, 5] = 1, 2, 255
            save(np.full((4, 6, 3), 10 * t), home / "JPEGImages" / "480p" / name / f"{t:05d}.jpg")
            save(labels, home / "Annotations_unsupervised" / "480p" / name / f"{t:05d}.png", "P")
    (home / "ImageSets" / "2017").mkdir(parents=True)
    (home / "ImageSets" / "2017" / "val.txt").write_text("cows\nbear\n")
    (home / "ImageSets" / "2017" / "train.txt").write_text("bear\n")
    return home


def kitti_map(t: int) -> np.ndarray:
    """Frame t: a road, a car of track 300, a group of cars, two people of whom the second changes, void."""
    label = np.array([[0, 13, 13], [11, 11, 255]])
    track = np.array([[0, 300, 0], [1, 2 + t, 0]])
    return np.stack([label, track // 256, track % 256], axis=-1)


def draw_kitti_step(home: Path) -> Path:
    """Two validation sequences and one training sequence of two frames, as unpacked."""
    for split, name in (("val", "0002"), ("val", "0006"), ("train", "0000")):
        for t in range(2):
            save(np.full((2, 3, 3), t), home / "training" / "image_02" / name / f"{t:06d}.png")
            save(kitti_map(t), home / "kitti-step" / "panoptic_maps" / split / name / f"{t:06d}.png")
    return home


def zip_folder(folder: Path, archive: Path) -> None:
    """Move a folder into a zip file, or add it to one, under its own name."""
    with zipfile.ZipFile(archive, "a") as target:
        for path in [folder, *sorted(folder.rglob("*"))]:
            target.write(path, path.relative_to(folder.parent))
    shutil.rmtree(folder)


def refusal(action: Callable[[], object]) -> str:
    """The message of the InputError that an action raises, which is one line."""
    with pytest.raises(InputError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)
