import pytest

from pix2seqd.data.convert import open_annotations
from pix2seqd.files import InputError

EMPTY = "........"


def write(home, draw, inside, meta="<label><name>cell</name><color>#ff0000</color></label>", image="a.jpg"):
    draw(home / "images/a.jpg")
    (home / "annotations.xml").write_text(
        f"""<?xml version="1.0" encoding="utf-8"?>
        <annotations><version>1.1</version><meta><job><labels>{meta}</labels></job></meta>
        <image id="0" name="{image}" width="8" height="6">{inside}</image></annotations>"""
    )
    return home / "annotations.xml"


@pytest.mark.parametrize(
    ("given", "drawn"),
    [
        (
            '<polygon label="cell" points="1.0,1.0;4,1;4,3;1,3" z_order="0"/>',
            [EMPTY, ".###....", ".###....", EMPTY, EMPTY, EMPTY],
        ),
        (
            '<box label="cell" xtl="2" ytl="1" xbr="6" ybr="3"/>',
            [EMPTY, "..####..", "..####..", EMPTY, EMPTY, EMPTY],
        ),
        (
            '<box label="cell" xtl="2" ytl="2" xbr="6" ybr="4" rotation="90"/>',
            [EMPTY, *["...##..."] * 4, EMPTY],
        ),
        (
            # Turned clockwise by 45 degrees, the right end goes down.
            '<box label="cell" xtl="0" ytl="2.5" xbr="8" ybr="3.5" rotation="45"/>',
            [".#......", "..#.....", "...#....", "....#...", ".....#..", "......#."],
        ),
        (
            '<ellipse label="cell" cx="4" cy="3" rx="2" ry="1"/>',
            [EMPTY, EMPTY, "..####..", "..####..", EMPTY, EMPTY],
        ),
        (
            '<mask label="cell" rle="1, 2, 1, 2" left="5" top="3" width="3" height="2"/>',
            [EMPTY, EMPTY, EMPTY, "......##", "......##", EMPTY],
        ),
    ],
)
def test_read_cvat_shapes_become_their_pixels(tmp_path, draw, converted, segments, given, drawn):
    found = converted(write(tmp_path / "c", draw, given))[""][0]
    assert segments(found) == [("cell", drawn)]


def test_read_cvat_order_and_groups(tmp_path, draw, converted):
    """The large box is above the small one by its order; two others are one object."""
    inside = """<box label="cell" xtl="0" ytl="0" xbr="4" ybr="4" z_order="2"/>
        <box label="cell" xtl="3" ytl="3" xbr="5" ybr="5" z_order="1"/>
        <box label="cell" xtl="6" ytl="0" xbr="7" ybr="1" group_id="3"/>
        <box label="cell" xtl="6" ytl="4" xbr="7" ybr="5" group_id="3"/>"""
    (sample,) = converted(write(tmp_path / "c", draw, inside))[""]
    assert sorted(segment.area for segment in sample.panoptic.segments) == [2, 3, 16]
    assert sample.panoptic.taxonomy.category(1).color == (255, 0, 0)


def test_read_cvat_shapes_without_area_are_dropped(tmp_path, draw):
    others = "".join(
        f'<{kind} label="cell" points="1,1;2,2"/>' for kind in ("polyline", "points", "cuboid", "skeleton")
    )
    inside = '<tag label="cell"/><box label="cell" xtl="0" ytl="0" xbr="4" ybr="4"/>' + others
    shapes = open_annotations(write(tmp_path / "c", draw, inside))[""].records[0].shapes
    assert [bool(s.lost) for s in shapes] == [False, True, True, True, True]


def test_read_cvat_image_names_with_folders(tmp_path, draw, converted):
    inside = '<box label="cell" xtl="0" ytl="0" xbr="4" ybr="4"/>'
    path = write(tmp_path / "c", draw, inside, image="train\\a.jpg")
    assert converted(path)[""][0].panoptic.segments[0].area == 16


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ('<polygon label="cell" points="1,1;x,y"/>', "not pairs"),
        ('<polygon label="cell" points="1;2;3"/>', "not pairs"),
        ('<box label="cell" xtl="0"/>', "lacks one of"),
        ('<mask label="cell" rle="1, 2" left="5" top="3" width="3" height="2"/>', "do not cover"),
        ('<mask label="cell" rle="6" left="7" top="3" width="3" height="2"/>', "not inside"),
        ('<mask label="cell" rle="a" left="5" top="3" width="3" height="2"/>', "no numbers"),
        ('<mask label="cell" rle="-1, 7" left="5" top="3" width="3" height="2"/>', "do not cover"),
        ('<polygon points="1,1;2,2"/>', "no label"),
    ],
)
def test_read_cvat_damaged_shape_gives_the_reason(tmp_path, draw, given, says):
    (shape,) = open_annotations(write(tmp_path / "c", draw, given))[""].records[0].shapes
    with pytest.raises(ValueError, match=says):
        shape.mask(6, 8)


LAUGHS = """<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">
<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]><annotations>&c;</annotations>"""
EXTERNAL = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotations>&x;</annotations>'


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (LAUGHS.encode(), "DOCTYPE"),
        (LAUGHS.encode("utf-16"), "DOCTYPE"),
        (EXTERNAL.encode(), "DOCTYPE"),
        (b"<annotations>" + b"<a>" * 100_000, "nested"),
        (b"<annotations>", "not valid XML"),
        (b"", "not valid XML"),
        (b'<?xml version="1.0" encoding="klingon"?><annotations/>', "not valid XML"),
        (b"<annotation><object><bndbox/></object></annotation>", "no object with a name"),
        (b"<annotations><track><box/></track></annotations>", "tracks of a video"),
        (b"<annotations><image name='a.jpg'/></annotations>", "no label"),
        (b"<html/>", "COCO detection json, YOLO"),
    ],
)
def test_read_xml_refuses_what_is_not_cvat(tmp_path, content, says):
    path = tmp_path / "annotations.xml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        open_annotations(path)
    assert str(path) in str(caught.value)


def test_read_cvat_splits_with_labels_in_another_order_have_the_same_classes(tmp_path, draw, converted):
    cell, dot = (f"<label><name>{name}</name><color>#ff0000</color></label>" for name in ("cell", "dot"))
    for split, meta in {"train": cell + dot, "val": dot + cell}.items():
        write(tmp_path / "c" / split, draw, '<box label="dot" xtl="2" ytl="1" xbr="6" ybr="3"/>', meta)
    found = converted(tmp_path / "c")
    assert [samples[0].panoptic.segments[0].name for samples in found.values()] == ["dot", "dot"]
    assert found["train"][0].panoptic.taxonomy == found["val"][0].panoptic.taxonomy
