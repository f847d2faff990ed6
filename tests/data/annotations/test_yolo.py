import timeit

import numpy as np
import pytest

from pix2seqd.data.convert import open_annotations
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


@pytest.mark.parametrize("yaml", [f"train: {'x' * 300}\nnames: [cell]\n", f"train: {'a/' * 3000}\nnames: [cell]\n"])
def test_read_yolo_folder_of_too_long_a_name_is_missing(tmp_path, draw, yaml):
    home = yolo(tmp_path, draw, [SQUARE], yaml)
    with pytest.raises(InputError, match="is not in"):
        open_annotations(home / "data.yaml")


@pytest.mark.parametrize(
    "yaml",
    [
        "path: {0}/other\ntrain: images\nnames: [cell]\n",
        "train: {0}/other/images\nnames: [cell]\n",
        "path: ../other\ntrain: images\nnames: [cell]\n",
        "train: ../other/images\nnames: [cell]\n",
        "path: ..\\\\other\ntrain: images\nnames: [cell]\n",
        "train: ../other/train.txt\nnames: [cell]\n",
        "train: ..\nnames: [cell]\n",
    ],
)
def test_read_yolo_folders_outside_of_the_data_set_are_refused(tmp_path, draw, yaml):
    draw(tmp_path / "other/images/a.jpg")
    (tmp_path / "other/train.txt").write_text("images/a.jpg\n")
    home = yolo(tmp_path / "y", draw, [SQUARE], yaml.format(tmp_path))
    with pytest.raises(InputError, match=r"lies outside of .*; copy data\.yaml into the folder"):
        open_annotations(home / "data.yaml")
    assert len(open_annotations(home / "data.yaml", tmp_path / "other/images")[""].records) == 1


@pytest.mark.parametrize("line", ["{}/secret.jpg", "../secret.jpg", "images/../../secret.jpg"])
def test_read_yolo_list_of_images_stays_in_the_data_set(tmp_path, draw, line):
    draw(tmp_path / "secret.jpg")
    home = yolo(tmp_path / "y", draw, [SQUARE], "train: train.txt\nnames: [cell]\n")
    (home / "train.txt").write_text(f"images/train/a_train.jpg\n{line.format(tmp_path)}\n")
    train = open_annotations(home)["train"]
    assert all((train.images / record.file_name).is_relative_to(home) for record in train.records)
    assert not (train.images / train.records[1].file_name).exists()


def test_read_yolo_rows_with_tabs_and_several_spaces(tmp_path, draw):
    rows = ["0  0.5   0.5  0.2  0.2", "\t0\t0.5\t0.5\t0.2\t0.2 ", SQUARE.replace(" ", "   "), SQUARE.replace(" ", "\t")]
    shapes = open_annotations(yolo(tmp_path / "y", draw, rows))["train"].records[0].shapes
    assert [bool(shape.lost) for shape in shapes] == [True, True, False, False]
    assert all(shape.mask(6, 8).area == 9 for shape in shapes[2:])


def test_read_yolo_reads_many_rows_in_about_linear_time(tmp_path, draw):
    times = []
    for number, count in enumerate((5_000, 20_000)):
        home = yolo(tmp_path / str(number), draw, [SQUARE] * count)
        times.append(min(timeit.repeat(lambda: open_annotations(home), number=1, repeat=3)))  # noqa: B023
    assert times[1] < 8 * times[0]


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
        ("train: images/train\nnames: {0: cell, '00': dot}\n", "names should be a list"),
        ("train: images/train\nnames: {0.5: cell}\n", "names should be a list"),
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


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("points", [4, 17])
def test_read_yolo_poses_are_refused(tmp_path, draw, count, points):
    """A box and keypoints, some of which are not seen; with an even number of numbers they look like an outline."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(5):
        middle, size = rng.uniform(0.3, 0.7, 2), rng.uniform(0.1, 0.3, 2)
        seen = rng.random((points, 1)) < 0.8
        places = np.where(seen, middle + rng.uniform(-0.5, 0.5, (points, 2)) * size, 0)
        places = np.concatenate([places, seen], 1)[:, :count]
        rows.append(" ".join(map(str, [0, *middle, *size, *places.ravel()])))
    with pytest.raises(InputError, match="has keypoints: each row is a bounding box and points in it"):
        open_annotations(yolo(tmp_path, draw, rows, "train: images/train\nnames: [cell]\n"))


def test_read_yolo_outlines_are_no_poses(tmp_path, draw):
    angle = np.linspace(0, 2 * np.pi, 13)[:-1]
    rows = []
    for number in range(5):
        middle = 0.3 + 0.1 * number
        rows.append(
            "0 " + " ".join(map(str, np.stack([middle + np.cos(angle) / 9, 0.5 + np.sin(angle) / 9], 1).ravel()))
        )
    shapes = open_annotations(yolo(tmp_path, draw, rows))["train"].records[0].shapes
    assert all(shape.mask(90, 90).area for shape in shapes)


def test_read_yolo_test_that_does_not_exist_is_left_out(tmp_path, draw):
    """Roboflow names it in each data.yaml."""
    yaml = "train: ../images/train\nval: ../images/val\ntest: ../test/images\nnames: [cell, dot]\n"
    found = open_annotations(yolo(tmp_path / "y", draw, [SQUARE], yaml))
    assert list(found) == ["train", "val"]
    assert "../test/images does not exist, and test is left out" in found["train"].notes
    with pytest.raises(InputError, match="images/nowhere is not in"):
        open_annotations(yolo(tmp_path / "z", draw, [SQUARE], yaml.replace("images/val", "images/nowhere")))


def test_read_yolo_few_small_outlines_of_as_many_corners_are_no_poses(tmp_path, draw):
    rows = [
        f"0 {x} {y} {x + 0.05} {y} {x + 0.05} {y + 0.05} {x} {y + 0.05} {x} {y}" for x, y in ((0.5, 0.5), (0.6, 0.4))
    ]
    assert len(open_annotations(yolo(tmp_path, draw, rows))["train"].records[0].shapes) == 2
