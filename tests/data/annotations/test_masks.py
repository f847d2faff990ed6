import numpy as np
import pytest
from PIL import Image

from pix2seqd.data.annotations import recognize_annotations
from pix2seqd.data.convert import open_annotations


def masks(folder, *boxes):
    folder.mkdir(parents=True, exist_ok=True)
    for number, (left, top, right, bottom) in enumerate(boxes):
        pixels = np.zeros((6, 8), np.uint8)
        pixels[top:bottom, left:right] = 255
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")


@pytest.mark.parametrize("grouped", ["by image", "by kind"])
def test_read_mask_folders_one_file_for_each_object(tmp_path, draw, converted, segments, grouped):
    home = tmp_path / "bowl"
    for name in ("0a1b", "2c3d"):
        draw(home / (f"{name}/images/{name}.png" if grouped == "by image" else f"images/{name}.png"))
        folder = home / (f"{name}/masks" if grouped == "by image" else f"masks/{name}")
        masks(folder, (0, 0, 3, 2), (5, 3, 8, 6), (0, 0, 0, 0))
    first, _ = converted(home)[""]
    empty = "........"
    assert sorted(mask for _, mask in segments(first)) == [
        ["###.....", "###.....", *[empty] * 4],
        [*[empty] * 3, *[".....###"] * 3],
    ]


def test_is_mask_folders_leaves_splits_of_label_images_alone(tmp_path, draw):
    for split in ("train", "val"):
        for number in range(2):
            draw(tmp_path / f"{split}/images/{number}.png")
            (tmp_path / f"{split}/masks").mkdir(exist_ok=True)
            Image.fromarray(np.eye(6, 8, dtype=np.uint8) * 3).save(tmp_path / f"{split}/masks/{number}.png")
    assert recognize_annotations(tmp_path) is None


def test_read_mask_folders_faults(tmp_path, draw):
    draw(tmp_path / "x/images/x.png")
    masks(tmp_path / "x/masks", (0, 0, 3, 2), (5, 3, 8, 6), (3, 3, 4, 4))
    smooth = np.tile(np.arange(8, dtype=np.uint8), (6, 1))
    Image.fromarray(smooth).save(tmp_path / "x/masks/002.png")
    (shape,) = open_annotations(tmp_path)[""].records[0].shapes[2:]
    with pytest.raises(ValueError, match="more than two values"):
        shape.mask(6, 8)
    with pytest.raises(ValueError, match="another mask"):
        open_annotations(tmp_path)[""].records[0].shapes[0].mask(5, 8)


def test_read_mask_folders_masks_without_an_image_are_lost(tmp_path, draw):
    draw(tmp_path / "x/images/x.png")
    for name in "xy":
        masks(tmp_path / name / "masks", (0, 0, 3, 2), (5, 3, 8, 6))
    unlisted = open_annotations(tmp_path)[""].unlisted
    assert [line.partition(":")[0] for line in unlisted] == ["y/masks/000.png", "y/masks/001.png"]
