import numpy as np
import pytest

from pix2seqd.data.annotations import conversion
from pix2seqd.data.convert import open_annotations
from pix2seqd.files import InputError

SQUARE = "8 2 14 2"
"""Rows 1 and 2 of columns 1 and 2 of an image of 6 rows, down the columns and from 1."""


def table(path, *rows, head="ImageId,EncodedPixels"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join((head, *rows)) + "\n")
    return path


def test_read_rle_csv_a_row_is_an_object(tmp_path, draw, converted, segments):
    for name in ("a", "b", "c"):
        draw(tmp_path / f"{name}/images/{name}.png")
    table(tmp_path / "labels.csv", f"a,{SQUARE}", "b,1 1", "a,31 6", "c,")
    assert "pix2seqd convert-data" in conversion(tmp_path)
    first, second, third = converted(tmp_path)[""]
    assert sorted(segments(first)) == [
        ("object", [".....#.."] * 6),
        ("object", ["........", *[".##....."] * 2, *["........"] * 3]),
    ]
    assert segments(second) == [("object", ["#.......", *["........"] * 5])]
    assert segments(third) == []


def test_read_rle_csv_classes_and_names_with_a_suffix(tmp_path, draw):
    draw(tmp_path / "train/a.jpg")
    path = table(tmp_path / "train.csv", f"a.jpg,3,{SQUARE}", "a.jpg,1,1 1", head="\ufeffImageId,ClassId,EncodedPixels")
    found = open_annotations(path)[""]
    assert [(c.id, c.name) for c in found.taxonomy.categories] == [(1, "1"), (2, "3")]
    assert found.records[0].file_name == "train/a.jpg"
    assert [shape.label for shape in found.records[0].shapes] == ["3", "1"]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("1 2 3", "3 numbers"),
        ("1 x", "no numbers"),
        ("0 2", "outside the image, which has 48 pixels"),
        ("47 3", "outside"),
        (f"{2**63 - 1} {2**63 - 1}", "outside"),
        ("1 2 9 2 17 2 25 2", "go along rows"),
    ],
)
def test_read_rle_csv_damaged_codes(tmp_path, draw, code, says):
    draw(tmp_path / "a.png")
    (shape,) = open_annotations(table(tmp_path / "x.csv", f"a,{code}"))[""].records[0].shapes
    with pytest.raises(ValueError, match=says):
        shape.mask(6, 8)


def test_read_rle_csv_long_codes(tmp_path, draw):
    """Longer than the cells that Python's module csv reads by default."""
    draw(tmp_path / "a.png", 400, 300)
    mask = np.indices((300, 400)).sum(axis=0) % 2 == 0
    starts = np.flatnonzero(mask.T.ravel()) + 1
    (shape,) = (
        open_annotations(table(tmp_path / "x.csv", "a," + " ".join(f"{s} 1" for s in starts)))[""].records[0].shapes
    )
    assert np.array_equal(shape.mask(300, 400).whole(300, 400), mask)


def test_read_rle_csv_repeated_runs_and_a_class_without_name(tmp_path, draw):
    draw(tmp_path / "a.png")
    path = table(tmp_path / "x.csv", "a," + " ".join(["1 4"] * 200) + ",", head="ImageId,EncodedPixels,ClassId")
    found = open_annotations(path)[""]
    assert found.records[0].shapes[0].mask(6, 8).area == 4
    assert [category.name for category in found.taxonomy.categories] == ["object"]


def test_read_rle_csv_faults(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    table(tmp_path / "a.csv", "a,1 1")
    table(tmp_path / "sample_submission.csv", "a,1 1")
    with pytest.raises(
        InputError, match=r"several files of annotations; give one of them: .*a\.csv or .*submission\.csv"
    ):
        open_annotations(tmp_path)
    with pytest.raises(InputError, match=r"line 2, has 3 cells instead of 2"):
        open_annotations(table(tmp_path / "b.csv", "a,1 1,7"))
    with pytest.raises(InputError, match="ImageId and EncodedPixels"):
        open_annotations(table(tmp_path / "c.csv", head="filename,xmin"))
    with pytest.raises(InputError, match="the column encodedpixels twice"):
        open_annotations(table(tmp_path / "d.csv", "a,1 1,7 1", head="ImageId,EncodedPixels,encodedpixels"))


@pytest.mark.parametrize("mark", [";", "\t"])
def test_read_rle_csv_columns_apart_by_other_marks(tmp_path, draw, mark):
    draw(tmp_path / "a.jpg")
    table(tmp_path / "x.csv", f"a{mark}{SQUARE}\r", head=f"ImageId{mark}EncodedPixels\r")
    (shape,) = open_annotations(tmp_path)[""].records[0].shapes
    assert shape.mask(6, 8).area == 4


def test_read_rle_csv_in_utf_16_is_refused_with_the_cure(tmp_path):
    (tmp_path / "x.csv").write_text(f"ImageId,EncodedPixels\na,{SQUARE}\n", encoding="utf-16")
    with pytest.raises(InputError, match=r"x\.csv is not text in UTF-8; save it as UTF-8"):
        open_annotations(tmp_path)


ALONG_ROWS = "10 2 18 2"
"""The same square, along the rows of an image of 8 columns."""


@pytest.mark.parametrize(
    ("head", "row", "kind"),
    [
        ("ImageId_ClassId,EncodedPixels", f"a_b.jpg_3,{SQUARE}", "3"),
        ("Image_Label,EncodedPixels", f"a_b.jpg_Fish,{SQUARE}", "Fish"),
        ("ImageId,EncodedPixels,Height,Width,CategoryId", f"a_b.jpg,{SQUARE},6,8,7", "7"),
        ("img,rle_mask", f"a_b.jpg,{ALONG_ROWS}", "object"),
        ("id,annotation,width,height,cell_type", f"a_b,{ALONG_ROWS},8,6,astro", "astro"),
        ("id,class,segmentation", f"a_b,bowel,{ALONG_ROWS}", "bowel"),
        ("id,rle_mask", f"a_b,{SQUARE}", "object"),
        ("id,encoding", f"a_b,{SQUARE}", "object"),
        ("id,organ,rle,age", f"a_b,lung,{SQUARE},50", "object"),
    ],
)
def test_read_rle_csv_columns_of_competitions(tmp_path, draw, converted, segments, head, row, kind):
    draw(tmp_path / "train/a_b.jpg")
    table(tmp_path / "train.csv", row, head=head)
    (sample,) = converted(tmp_path)[""]
    assert segments(sample) == [(kind, ["........", *[".##....."] * 2, *["........"] * 3])]


def test_read_rle_csv_runs_down_columns_where_rows_are_expected(tmp_path, draw):
    draw(tmp_path / "a.png")
    path = table(tmp_path / "x.csv", "a.png,1 2 7 2 13 2 19 2", head="img,rle_mask")
    (shape,) = open_annotations(path)[""].records[0].shapes
    with pytest.raises(ValueError, match="seem to go down columns; here they go along rows"):
        shape.mask(6, 8)
