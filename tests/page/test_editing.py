"""Corrections by hand, and the data set that they are saved in."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pix2seqd.data import check
from pix2seqd.data.coco import CocoPanoptic
from pix2seqd.files import InputError
from pix2seqd.page import editing
from pix2seqd.panoptic import journal
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_coco(
    [{"id": 7, "name": "cell"}, {"id": 3, "name": "crowd of cells"}, {"id": 5, "name": "glass", "isthing": 0}]
)
CELL, CROWD, GLASS = 7, 3, 5


def scene():
    """Glass 9, two cells 1 and 4 side by side, and a crowd 300."""
    segmentation = np.full((12, 16), 9)
    segmentation[2:6, 2:6] = 1
    segmentation[2:6, 6:9] = 4
    segmentation[8:10, 2:8] = 300
    return Panoptic.from_segmentation(segmentation, {1: 1, 4: 1, 9: 3, 300: 2}, TAXONOMY, crowds=[300])


def box(top, bottom, left, right, shape=(12, 16)):
    where = np.zeros(shape, bool)
    where[top:bottom, left:right] = True
    return where


def ids(panoptic):
    return [segment.id for segment in panoptic.segments]


def without(segment_id):
    return scene().select(lambda segment: segment.id != segment_id)


def area(panoptic, segment_id):
    return next(segment.area for segment in panoptic.segments if segment.id == segment_id)


def test_paint_moves_pixels_to_a_segment():
    after = editing.paint(scene(), box(2, 6, 6, 8), 1)
    assert (area(after, 1), area(after, 4), area(after, 9)) == (24, 4, area(scene(), 9))
    assert ids(editing.paint(scene(), box(0, 12, 0, 16), 1)) == [1]


def test_add_makes_a_thing_and_joins_stuff():
    after, new = editing.add(scene(), box(10, 12, 10, 12), CELL)
    assert new == 2 and area(after, 2) == 4
    after, joined = editing.add(scene(), box(2, 6, 2, 6), GLASS)
    assert joined == 9 and 1 not in ids(after)
    empty = Panoptic.from_segmentation(np.zeros((12, 16), int), {}, TAXONOMY)
    after, first = editing.add(empty, box(0, 2, 0, 2), GLASS)
    assert (first, ids(after)) == (1, [1])


def test_erase_leaves_void():
    after = editing.erase(scene(), box(0, 12, 0, 6))
    assert 1 not in ids(after) and (after.segmentation[:, :6] == 0).all()


def test_merge_keeps_id_of_the_largest():
    after, merged = editing.merge(scene(), [4, 1])
    assert merged == 1 and area(after, 1) == 28 and 4 not in ids(after)
    with pytest.raises(InputError, match="two or more"):
        editing.merge(scene(), [1])
    with pytest.raises(InputError, match="no segment 77"):
        editing.merge(scene(), [1, 77])


def test_split_by_parts_and_by_a_line():
    in_parts = editing.paint(scene(), box(8, 12, 12, 15), 1)  # 12 pixels away from the other 16
    after, parts = editing.split(in_parts, 1)
    assert parts == [1, 2] and (area(after, 1), area(after, 2)) == (16, 12)
    after, parts = editing.split(scene(), 1, box(0, 12, 3, 4))
    assert [area(after, part) for part in parts] == [8, 8]
    assert area(after, 4) == 12
    diagonal = editing.stroke([(1, 1), (7, 7)], 0, (12, 16))
    assert len(editing.split(scene(), 1, diagonal)[1]) == 2
    with pytest.raises(InputError, match="one piece"):
        editing.split(scene(), 1)
    with pytest.raises(InputError, match="stuff"):
        editing.split(scene(), 9)


def test_relabel_changes_category_and_joins_stuff():
    after, home = editing.relabel(scene(), 4, CROWD)
    assert home == 4 and next(s for s in after.segments if s.id == 4).category_id == CROWD
    after, home = editing.relabel(scene(), 4, GLASS)
    assert home == 9 and ids(after) == [1, 9, 300]
    with pytest.raises(InputError, match="unknown category id 99"):
        editing.relabel(scene(), 4, 99)


def test_edits_leave_other_segments_and_crowds_unchanged():
    before = scene()
    for after in (
        editing.merge(before, [1, 4])[0],
        editing.erase(before, box(0, 2, 0, 2)),
    ):
        assert next(s for s in after.segments if s.id == 300) == next(s for s in before.segments if s.id == 300)
    assert not any(s.iscrowd for s in editing.relabel(before, 300, CELL)[0].segments)
    assert before.segments == scene().segments and (before.segmentation == scene().segmentation).all()


@pytest.mark.parametrize(("radius", "thick"), [(0, 1), (0.5, 1), (2, 5), (40, 40)])
def test_stroke_has_width_of_the_brush_and_stays_in_the_image(radius, thick):
    where = editing.stroke([(10.5, 10.5), (30.5, 10.5)], radius, (40, 60))
    assert where.shape == (40, 60) and where[10, 10:31].all()
    assert where[:, 20].sum() == thick
    assert editing.stroke([(5.2, 7.9)], 0, (40, 60)).tolist()[7][5] is True
    assert editing.stroke([(5.2, 7.9)], 0, (40, 60)).sum() == 1
    assert not editing.stroke([(500, 500)], 3, (40, 60)).any()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("paeqmsr"), st.integers(0, 11), st.integers(0, 15), st.integers(0, 9))))
def test_random_edits_leave_a_consistent_segmentation(edits):
    panoptic = scene()
    for kind, y, x, number in edits:
        where = editing.stroke([(x, y)], number / 3, panoptic.segmentation.shape)
        present = ids(panoptic)
        some = present[number % len(present)] if present else 1
        category = TAXONOMY.categories[number % 3].id
        try:
            match kind:
                case "p":
                    panoptic = editing.paint(panoptic, where, some)
                case "a":
                    panoptic, _ = editing.add(panoptic, where, category)
                case "e":
                    panoptic = editing.erase(panoptic, where)
                case "q":
                    panoptic = panoptic.select(lambda segment, some=some: segment.id != some)
                case "m":
                    panoptic, _ = editing.merge(panoptic, present[:2])
                case "s":
                    panoptic, _ = editing.split(panoptic, some, where)
                case "r":
                    panoptic, _ = editing.relabel(panoptic, some, category)
        except InputError:
            continue
    again = Panoptic.from_coco(*panoptic.to_coco(), TAXONOMY)
    assert again.segments == panoptic.segments
    stuff = [segment.category_id for segment in panoptic.segments if not segment.isthing]
    assert len(stuff) == len(set(stuff))


def image(value=0):
    return Image.fromarray(np.full((12, 16, 3), value, np.uint8))


def test_append_writes_a_data_set_and_extends_it(tmp_path):
    out = tmp_path / "set"
    assert editing.append(out, "a.jpg", image(), scene()) == 1
    assert editing.append(out, "sub/a.tif", image(1), without(1)) == 2
    dataset = CocoPanoptic.open(out)
    assert dataset.taxonomy == TAXONOMY and [dataset[i].name for i in range(2)] == ["a", "a-2"]
    assert dataset[0].panoptic.segments == scene().segments
    assert (dataset[1].image == np.asarray(image(1))).all()
    assert check.check(dataset, 100).ok


def test_append_same_image_replaces_mask_and_its_file(tmp_path):
    editing.append(tmp_path, "a.png", image(), scene())
    editing.append(tmp_path, "b.png", image(1), scene())
    assert editing.append(tmp_path, "a.png", image(), without(4)) == 2
    dataset = CocoPanoptic.open(tmp_path)
    assert [4 in ids(dataset[i].panoptic) for i in range(2)] == [False, True]
    assert len(list((tmp_path / "panoptic").iterdir())) == len(list((tmp_path / "images").iterdir())) == 2


def test_append_failing_before_the_json_leaves_data_set_unchanged(tmp_path, monkeypatch):
    editing.append(tmp_path, "a.png", image(), scene())

    def full(*_):
        raise InputError("disk full")

    monkeypatch.setattr(journal, "write_atomically", full)
    for changed in (image(), image(1)):
        with pytest.raises(InputError, match="disk full"):
            editing.append(tmp_path, "a.png", changed, without(4))
    dataset = CocoPanoptic.open(tmp_path)
    assert len(dataset) == 1 and dataset[0].panoptic.segments == scene().segments


def test_append_keeps_other_entries_of_the_json(tmp_path):
    editing.append(tmp_path, "a.png", image(), scene())
    path = tmp_path / "panoptic.json"
    content = json.loads(path.read_text()) | {"licenses": ["mine"]}
    content["images"][0]["modality"] = "fluorescence"
    path.write_text(json.dumps(content))
    editing.append(tmp_path, "b.png", image(1), scene())
    content = json.loads(path.read_text())
    assert content["licenses"] == ["mine"] and content["images"][0]["modality"] == "fluorescence"


@pytest.mark.parametrize("content", ["{", "[]", '{"images": [], "annotations": []}', "other"])
def test_append_refuses_invalid_or_other_json_and_leaves_it(tmp_path, content):
    if content == "other":
        categories = [{"id": 1, "name": "cat"}]
        content = json.dumps({"images": [], "annotations": [], "categories": categories})
    (tmp_path / "panoptic.json").write_text(content)
    with pytest.raises(InputError, match=r"panoptic\.json"):
        editing.append(tmp_path, "a.png", image(), scene())
    assert (tmp_path / "panoptic.json").read_text() == content


@pytest.mark.parametrize("name", ["../../x.png", "/etc/passwd", ".png", "", "x" * 300 + ".png", "a\\b.png"])
def test_append_unsafe_name_stays_in_the_folder(tmp_path, name):
    editing.append(tmp_path / "set", name, image(), scene())
    assert len(CocoPanoptic.open(tmp_path / "set")[0].panoptic.segments) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_append_refuses_an_empty_mask(tmp_path):
    with pytest.raises(InputError, match="void"):
        editing.append(tmp_path / "set", "a.png", image(), scene().select(lambda segment: False))
    assert not (tmp_path / "set").exists()
