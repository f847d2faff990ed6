import json

import pytest

from pix2seqd.data.convert import open_annotations
from pix2seqd.files import InputError

ROWS = ["........", "..####..", "..####..", "..####..", "..####..", "........"]


def write(home, draw, regions, project=False):
    draw(home / "a.jpg")
    content = {"a.jpg123": {"filename": "a.jpg", "size": 123, "regions": regions, "file_attributes": {}}}
    (home / "via.json").write_text(
        json.dumps({"_via_settings": {}, "_via_img_metadata": content} if project else content)
    )
    return home / "via.json"


def region(name, label="cell", **numbers):
    return {"shape_attributes": {"name": name, **numbers}, "region_attributes": {"kind": label}}


@pytest.mark.parametrize(
    ("given", "drawn"),
    [
        (region("polygon", all_points_x=[2, 6, 6, 2], all_points_y=[1, 1, 5, 5]), ROWS),
        (region("rect", x=2, y=1, width=4, height=4), ROWS),
        (region("circle", cx=4, cy=3, r=2), [ROWS[0], "...##...", "..####..", "..####..", "...##...", ROWS[0]]),
        (region("ellipse", cx=4, cy=3, rx=2, ry=1), [ROWS[0], ROWS[0], "..####..", "..####..", ROWS[0], ROWS[0]]),
        (
            region("ellipse", cx=4, cy=3, rx=2, ry=1, theta=1.5707963),
            [ROWS[0], *["...##..."] * 4, ROWS[0]],
        ),
    ],
)
@pytest.mark.parametrize("project", [False, True])
def test_read_via_regions_become_their_pixels(tmp_path, draw, converted, segments, given, drawn, project):
    path = write(tmp_path / "v", draw, [given], project)
    assert segments(converted(path)[""][0]) == [("cell", drawn)]


def test_read_via_version_1_and_no_attributes(tmp_path, draw, converted):
    plain = {**region("rect", x=0, y=0, width=2, height=2), "region_attributes": {}}
    path = write(tmp_path / "v", draw, {"0": plain, "1": plain | region("point") | {"region_attributes": {}}})
    shapes = open_annotations(path)[""].records[0].shapes
    assert [bool(s.lost) for s in shapes] == [False, True]
    assert converted(path)[""][0].panoptic.segments[0].name == "object"


def test_read_via_several_attributes_are_refused(tmp_path, draw):
    two = {**region("rect", x=0, y=0, width=2, height=2), "region_attributes": {"kind": "cell", "age": "3"}}
    with pytest.raises(InputError, match="several attributes"):
        open_annotations(write(tmp_path / "v", draw, [two]))


@pytest.mark.parametrize(
    "bad", [region("rect", x=0), region("polygon", all_points_x=[1], all_points_y=[]), region("cloud"), {"a": 1}]
)
def test_read_via_damaged_region_is_unusable(tmp_path, draw, bad):
    good = region("rect", x=0, y=0, width=2, height=2)
    shapes = open_annotations(write(tmp_path / "v", draw, [good, bad]))[""].records[0].shapes
    with pytest.raises(ValueError, match=r"^(it|its) "):
        shapes[1].mask(6, 8)


def test_read_via_image_without_a_name(tmp_path):
    (tmp_path / "via.json").write_text(json.dumps({"a": {"filename": "", "regions": []}}))
    with pytest.raises(InputError, match="without a file name"):
        open_annotations(tmp_path)


def test_read_via_csv(tmp_path, draw, converted, segments):
    """With an image without regions, and a blank line."""
    for name in ("a", "b"):
        draw(tmp_path / f"v/{name}.jpg")
    head = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    shape = json.dumps(region("rect", x=2, y=1, width=4, height=4)["shape_attributes"]).replace('"', '""')
    rows = [f'a.jpg,12,"{{}}",1,0,"{shape}","{{""kind"":""cell""}}"', "", 'b.jpg,12,"{}",0,0,"{}","{}"']
    path = tmp_path / "v/via.csv"
    path.write_text("\n".join([head, *rows]))
    first, second = converted(tmp_path / "v")[""]
    assert segments(first) == [("cell", ROWS)] and segments(second) == []
    path.write_text("\n".join([head, *rows, 'b.jpg,12,"{}",0,0,"{","{}"']))
    with pytest.raises(InputError, match="line 5, is damaged"):
        open_annotations(path)


def test_read_via_files_of_several_splits(tmp_path, draw):
    """As of the data set of balloons; files that are no splits are not chosen from."""
    for split in ("train", "val"):
        write(tmp_path / split, draw, [region("rect", x=0, y=0, width=2, height=2)])
    found = open_annotations(tmp_path)
    assert list(found) == ["train", "val"] and [len(part.records) for part in found.values()] == [1, 1]
    write(tmp_path / "more", draw, [])
    with pytest.raises(InputError, match=r"several files of annotations; give one of them: .*more/via\.json"):
        open_annotations(tmp_path)


def test_read_via_of_several_check_boxes_has_a_class_of_its_own(tmp_path, draw):
    boxes = [{"cell": True}, {"cell": True, "dead": True}, {"cell": False, "dead": True}]
    given = [region("rect", label=label, x=2 * n, y=0, width=2, height=2) for n, label in enumerate(boxes)]
    annotations = open_annotations(write(tmp_path, draw, given))[""]
    assert [shape.label for shape in annotations.records[0].shapes] == ["cell", "cell, dead", "dead"]


def test_read_via_splits_have_the_classes_of_all(tmp_path, draw, converted):
    for split, labels in {"train": ["cell", "dot"], "val": ["dot"]}.items():
        regions = [region("rect", label=label, x=2 * n, y=0, width=2, height=2) for n, label in enumerate(labels)]
        write(tmp_path / "data" / split, draw, regions)
    found = converted(tmp_path / "data")
    assert {split: [s.name for s in samples[0].panoptic.segments] for split, samples in found.items()} == {
        "train": ["cell", "dot"],
        "val": ["dot"],
    }
    assert found["train"][0].panoptic.taxonomy == found["val"][0].panoptic.taxonomy


@pytest.mark.parametrize(("labels", "noted"), [(["cell-1", "cell-2", "cell-3"], 1), (["cell-1", "cell-2", "cell"], 0)])
@pytest.mark.parametrize("again", [False, True])
def test_classes_that_are_numbers_of_objects_are_noted(tmp_path, draw, labels, noted, again):
    given = [*labels, labels[0]] if again else labels
    regions = [region("rect", label=label, x=2 * n, y=0, width=2, height=2) for n, label in enumerate(given)]
    notes = open_annotations(write(tmp_path, draw, regions))[""].notes
    assert sum(note.endswith("if they are the objects of one class, call all of them cell") for note in notes) == (
        noted and not again
    )
