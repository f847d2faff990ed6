import pytest

from pix2seqd.data.annotations import open_annotations
from pix2seqd.files import InputError

SQUARE = "0 0.125 0.1666667 0.5 0.1666667 0.5 0.6666667 0.125 0.6666667"
"""x 1 to 4, y 1 to 4 of 8 x 6 pixels."""
BOX = "1 0.5 0.5 0.2 0.2"
SQUARE_DRAWN = ["........", ".###....", ".###....", ".###....", "........", "........"]


def yolo(home, draw, rows, yaml="train: images/train\nval: images/val\nnames: [cell, dot]\n"):
    """One image in train and one in val; `rows` are those of train."""
    for split, lines in (("train", rows), ("val", [SQUARE])):
        draw(home / f"images/{split}/a_{split}.jpg")
        (home / f"labels/{split}").mkdir(parents=True, exist_ok=True)
        (home / f"labels/{split}/a_{split}.txt").write_text("\n".join(lines))
    if yaml:
        (home / "data.yaml").write_text(yaml)
    return home


def test_read_yolo_outlines_become_their_pixels(tmp_path, draw, converted, segments):
    triangle = "1 0.5 0 1 0 1 1"
    home = yolo(tmp_path / "y", draw, [SQUARE, triangle])
    found = converted(home / "data.yaml")
    assert list(found) == ["train", "val"]
    assert segments(found["val"][0]) == [("cell", SQUARE_DRAWN)]
    names = [name for name, _ in segments(found["train"][0])]
    assert sorted(names) == ["cell", "dot"]
    (dot,) = (mask for name, mask in segments(found["train"][0]) if name == "dot")
    # The side from (4, 0) to (8, 6): right of x = 4 + (row + 0.5) * 4 / 6, for centres of pixels.
    expected = ["".join("#" if x + 0.5 >= 4 + (y + 0.5) * 4 / 6 else "." for x in range(8)) for y in range(6)]
    assert dot == expected


@pytest.mark.parametrize(
    "yaml",
    [
        "path: ../datasets/y\ntrain: images/train\nval: images/val\nnames: {0: cell, 1: dot}\n",
        "train: ../images/train\nval: ../images/val\nnc: 2\nnames: ['cell', 'dot']\n",
        "\ufefftrain: [C:\\Users\\me\\y\\images\\train]\nval: /home/me/y/images/val\nnames: {'0': cell, '1': dot}\n",
        "train: train.txt\nval: images/val\nnames: [cell, dot]\r\n",
    ],
    ids=["names as mapping", "roboflow", "paths of another computer", "list of images"],
)
def test_read_yolo_finds_images_wherever_yaml_says(tmp_path, draw, converted, segments, yaml):
    home = yolo(tmp_path / "y", draw, [SQUARE], "")
    (home / "data.yaml").write_text(yaml, encoding="utf-8")
    (home / "train.txt").write_text("./images/train/a_train.jpg\n")
    found = converted(home)
    assert {split: segments(of_split[0]) for split, of_split in found.items()} == {
        "train": [("cell", SQUARE_DRAWN)],
        "val": [("cell", SQUARE_DRAWN)],
    }


def test_read_yolo_folder_without_yaml(tmp_path, draw, converted, segments):
    home = yolo(tmp_path / "y", draw, [SQUARE], "")
    assert segments(converted(home)["train"][0]) == [("0", SQUARE_DRAWN)]
    (home / "classes.txt").write_text("nucleus\r\ndot\r\n")
    assert open_annotations(home)["train"].taxonomy.category(1).name == "nucleus"


def test_read_yolo_images_without_rows_are_kept(tmp_path, draw, converted):
    home = yolo(tmp_path / "y", draw, [SQUARE])
    draw(home / "images/train/empty.jpg")
    assert [s.panoptic.segments for s in converted(home)["train"]][1] == ()


def test_read_yolo_boxes_among_outlines_are_dropped(tmp_path, draw):
    shapes = open_annotations(yolo(tmp_path / "y", draw, [SQUARE, BOX, "1 0.5 0.5 0.2 0.2 0.9"]))["train"].records[0]
    assert [bool(shape.lost) for shape in shapes.shapes] == [False, True, True]


def test_read_yolo_boxes_only_are_refused(tmp_path, draw):
    with pytest.raises(InputError, match="only bounding boxes"):
        open_annotations(yolo(tmp_path / "y", draw, [BOX]))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("2 0 0 1 0 1 1", "class 2 is not in names, which have 2"),
        ("0 0 0 80 0 80 60", "no shares"),
        ("0 0 0 1 0 1 1 1 1 1", "odd number"),
        ("cell 0 0 1 0 1 1", "not the number of a class"),
        ("0 0 0 1,0 0 1 1", "not the number of a class"),
        ("0 0 0 nan 0 1 1", "no shares"),
        ("0 0 0 inf 0 1 1", "no shares"),
    ],
)
def test_read_yolo_damaged_row_gives_the_reason(tmp_path, draw, row, says):
    (shape,) = open_annotations(yolo(tmp_path / "y", draw, [row]))["train"].records[0].shapes
    with pytest.raises(ValueError, match=says):
        shape.mask(6, 8)


@pytest.mark.parametrize(
    ("yaml", "says"),
    [
        ("train: images/nowhere\nnames: [cell]\n", "images/nowhere is not in"),
        ("train: images/train\nnames: cell\n", "names should be a list"),
        ("train: images/train\nnames: [cell, dot]\nkpt_shape: [3, 2]\n", "keypoints"),
        ("train: images/train\nnames: [cell, cell]\n", "used more than once"),
        ("train: images/train\nnames: {.inf: cell}\n", "names should be a list"),
        ("train: labels/train\nnames: [cell, dot]\n", "no images"),
    ],
)
def test_read_yolo_rejects_broken_yaml(tmp_path, draw, yaml, says):
    home = yolo(tmp_path / "y", draw, [SQUARE], yaml)
    with pytest.raises(InputError, match=says):
        open_annotations(home / "data.yaml")


def test_read_yolo_rows_without_an_image_are_lost(tmp_path, draw):
    """But not those of an image that no split lists."""
    home = yolo(tmp_path / "y", draw, [SQUARE], "train: train.txt\nnames: [cell]\n")
    (home / "train.txt").write_text("images/train/a_train.jpg\n")
    draw(home / "images/train/other.jpg")
    for name in ("other", "lost"):
        (home / f"labels/train/{name}.txt").write_text(f"{SQUARE}\n{SQUARE}\n")
    (home / "labels/train/classes.txt").write_text("cell\n")
    unlisted = open_annotations(home)["train"].unlisted
    assert len(unlisted) == 2 and unlisted[0].startswith("lost.txt: lost has no image in ")


@pytest.mark.parametrize(("row", "said"), [(SQUARE, True), ("1 0.5 0 1 0 1 1", False)])
def test_read_yolo_outlines_of_four_corners_may_be_boxes(tmp_path, draw, row, said):
    home = yolo(tmp_path, draw, [SQUARE] * 11 + [row])
    assert any("turned boxes" in note for note in open_annotations(home)["train"].notes) == said
