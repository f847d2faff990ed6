import numpy as np
import pytest
from PIL import Image

from pix2seqd.data.convert import open_annotations
from pix2seqd.files import InputError

OBJECTS = np.array([[0, 1, 1, 255, 2, 2, 0, 0]] * 3 + [[0, 3, 3, 255, 0, 0, 0, 0]] * 3, np.uint8)
CLASSES = np.array([[0, 15, 15, 255, 15, 15, 0, 0]] * 3 + [[0, 8, 8, 255, 0, 0, 0, 0]] * 3, np.uint8)
COLORS = {15: (192, 128, 128), 8: (64, 0, 0), 255: (224, 224, 192)}


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels, "P")
    image.putpalette(b"".join(bytes(COLORS.get(i, (i, i, 0) if i else (0, 0, 0))) for i in range(256)))
    image.save(path)


def voc(home, draw, objects=True, classes=True):
    for stem in ("a", "b"):
        draw(home / f"JPEGImages/{stem}.jpg")
        if objects:
            save(home / f"SegmentationObject/{stem}.png", OBJECTS)
        if classes:
            save(home / f"SegmentationClass/{stem}.png", CLASSES)
    lists = home / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for name, stems in (("train", "a\n"), ("val", "b\nmissing\n"), ("trainval", "a\nb\n")):
        (lists / f"{name}.txt").write_text(stems)
    return home


def values(sample, by):
    """The segmentation with each segment as `by` gives it."""
    named = np.zeros(sample.panoptic.segmentation.shape, object)
    for segment in sample.panoptic.segments:
        named[sample.panoptic.segmentation == segment.id] = by(segment)
    return named


def test_read_voc_objects_and_classes(tmp_path, draw, converted):
    found = converted(voc(tmp_path / "VOC2012", draw))
    assert list(found) == ["train", "val"]
    (sample,) = found["train"]
    expected = np.zeros((6, 8), object)
    expected[CLASSES == 15], expected[CLASSES == 8] = "person", "cat"
    assert (values(sample, lambda s: s.name) == expected).all()
    areas = [s.area for s in sample.panoptic.segments]
    assert areas == [6, 6, 6] and not any(s.iscrowd for s in sample.panoptic.segments)


def test_read_voc_labelmap_of_colours(tmp_path, draw, converted):
    """CVAT writes colours of its own, and their names."""
    home = voc(tmp_path / "v", draw)
    for stem in ("a", "b"):
        path = home / f"SegmentationClass/{stem}.png"
        Image.open(path).convert("RGB").save(path)
    with pytest.raises(InputError, match=r"labelmap\.txt"):
        open_annotations(home)
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::", "cat:64,0,0::", "nurse:192,128,128::"]
    (home / "labelmap.txt").write_text("\n".join(lines))
    (sample,) = converted(home)["val"]
    assert [(s.name, s.category_id, s.area) for s in sample.panoptic.segments] == [
        ("cat", 1, 6),
        ("nurse", 2, 6),
        ("nurse", 2, 6),
    ]


def test_read_voc_other_folders_name_classes_by_number(tmp_path, draw):
    annotations = open_annotations(voc(tmp_path / "v", draw))["train"]
    assert [c.name for c in annotations.taxonomy.categories] == ["8", "15"]
    assert any("labelmap.txt" in note for note in annotations.notes)


def test_read_voc_classes_or_objects_only(tmp_path, draw, converted):
    (sample,) = converted(voc(tmp_path / "VOC2007", draw, objects=False))["train"]
    assert [(s.name, s.isthing, s.area) for s in sample.panoptic.segments] == [("person", False, 12), ("cat", False, 6)]
    annotations = open_annotations(voc(tmp_path / "o", draw, classes=False))["train"]
    assert [shape.name for shape in annotations.records[0].shapes] == [f"object {n} (object)" for n in (1, 2, 3)]


def test_read_voc_objects_without_class_are_lost(tmp_path, draw):
    home = voc(tmp_path / "VOC2012", draw)
    save(home / "SegmentationClass/a.png", np.where(OBJECTS == 3, 0, CLASSES).astype(np.uint8))
    shapes = open_annotations(home)["train"].records[0].shapes
    assert [s.lost for s in shapes if s.lost] == ["its pixels have no class"]


def test_read_voc_faults_name_the_file(tmp_path, draw):
    home = voc(tmp_path / "VOC2012", draw)
    save(home / "SegmentationObject/a.png", OBJECTS[:4])
    with pytest.raises(InputError, match=r"a\.png and .*a\.png differ in size"):
        open_annotations(home)
    save(home / "SegmentationObject/a.png", OBJECTS)
    save(home / "SegmentationClass/a.png", np.where(CLASSES == 8, 77, CLASSES).astype(np.uint8))
    with pytest.raises(InputError, match="class 77"):
        open_annotations(home)


def test_read_voc_as_distributed_lies_two_folders_deep(tmp_path, draw, converted):
    voc(tmp_path / "VOCdevkit/VOC2012", draw)
    assert list(converted(tmp_path)) == ["train", "val"]
    voc(tmp_path / "VOCdevkit/VOC2007", draw)
    with pytest.raises(InputError, match=r"several data sets of Pascal VOC; give .*VOC2007 or .*VOC2012"):
        open_annotations(tmp_path)


def test_read_voc_of_labelme2voc_beside_arrays(tmp_path, draw, converted):
    home = voc(tmp_path / "v", draw)
    for name in ("SegmentationClass", "SegmentationObject"):
        (home / name).rename(home / f"{name}PNG")
        (home / name).mkdir()
        np.save(home / name / "a.npy", CLASSES)
    assert [len(sample.panoptic.things) for sample in converted(home)["train"]] == [3]
