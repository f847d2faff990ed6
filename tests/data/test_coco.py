import json
import os
from pathlib import Path

import numpy as np
import pytest
from miniatures import refusal
from PIL import Image

from pix2seqd.data.coco import CocoPanoptic, splits
from pix2seqd.metrics.panoptic_quality import PanopticQuality

CAT, CROWD, LAWN = 70_000, 300, 5
"""Segment ids of the miniature data set (conftest.py)."""
SHARED = Path(__file__).parents[3] / "shared" / "data"


def test_coco_items(mini):
    data = CocoPanoptic.open(mini, "val")
    assert len(data) == 2
    assert [(c.id, c.name, c.isthing, c.color) for c in data.taxonomy.categories] == [
        (7, "cat", True, (200, 0, 0)),
        (3, "lawn", False, (0, 200, 0)),
    ]
    sample = data[0]
    assert sample.name == "a"
    assert sample.image.shape == (6, 8, 3)
    assert sample.image.dtype == np.uint8
    facts = {s.id: (s.category_id, s.name, s.isthing, s.area, s.bbox, s.iscrowd) for s in sample.panoptic.segments}
    assert facts == {
        LAWN: (3, "lawn", False, 31, (1, 0, 7, 6), False),
        CROWD: (7, "cat", True, 5, (3, 5, 5, 1), True),
        CAT: (7, "cat", True, 6, (2, 1, 2, 3), False),
    }
    assert (sample.panoptic.segmentation[:, 0] == 0).all(), "void stays void"
    assert data[1].name == "b é"


def test_coco_records_keep_other_fields(mini):
    assert [record["modality"] for record in CocoPanoptic.open(mini, "val").records] == ["a", "b é"]


def test_coco_iteration_ends(mini):
    assert len(list(CocoPanoptic.open(mini, "val"))) == 2


LAYOUTS = {
    "nuclei": ("val", Path("panoptic_val.json"), Path("val"), Path("panoptic_val")),
    "coco": (
        "val2017",
        Path("annotations/panoptic_val2017.json"),
        Path("val2017"),
        Path("annotations/panoptic_val2017"),
    ),
    "ours": ("", Path("panoptic.json"), Path("images"), Path("panoptic")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_coco_layouts(tmp_path, draw, layout):
    split, *paths = LAYOUTS[layout]
    draw(tmp_path, *paths)
    assert splits(tmp_path) == [split]
    assert CocoPanoptic.open(tmp_path, split)[0].name == "a"
    (tmp_path / paths[1]).rename(tmp_path / "elsewhere")
    assert str(tmp_path / paths[1]) in refusal(lambda: CocoPanoptic.open(tmp_path, split))
    (tmp_path / "elsewhere").rename(tmp_path / paths[1])
    (tmp_path / paths[2]).rename(tmp_path / "gone")
    assert str(tmp_path / paths[2]) in refusal(lambda: CocoPanoptic.open(tmp_path, split))


@pytest.fixture
def distributed(tmp_path, draw, pack):
    """COCO as distributed: three zip files, one of which contains zip files."""
    split, *paths = LAYOUTS["coco"]
    plain = CocoPanoptic.open(draw(tmp_path / "plain", *paths), split)
    home = draw(tmp_path / "zipped", *paths)
    pack(home / "annotations" / "panoptic_val2017", home / "annotations" / "panoptic_val2017.zip")
    pack(home / "annotations", home / "panoptic_annotations_trainval2017.zip")
    pack(home / "val2017", home / "val2017.zip")
    return home, plain


def same(one, two) -> bool:
    pairs = list(zip(one, two, strict=True))
    return all(
        a.name == b.name
        and np.array_equal(a.image, b.image)
        and np.array_equal(a.panoptic.segmentation, b.panoptic.segmentation)
        and a.panoptic.segments == b.panoptic.segments
        for a, b in pairs
    )


def test_coco_distributed_zip_files(distributed):
    home, plain = distributed
    assert splits(home) == ["val2017"]
    before = sorted(home.rglob("*"))
    assert same(CocoPanoptic.open(home, "val2017"), plain)
    assert sorted(home.rglob("*")) == before, "nothing is unpacked"


def test_coco_pngs_beside_images(tmp_path, draw):
    split, *paths = LAYOUTS["coco"]
    draw(tmp_path, *paths)
    (tmp_path / paths[2]).rename(tmp_path / "panoptic_val2017")
    assert CocoPanoptic.open(tmp_path, split)[0].name == "a"


def test_coco_errors_name_missing_and_damaged_zip_files(distributed):
    home, _ = distributed
    (home / "val2017.zip").rename(home / "other.zip")
    message = refusal(lambda: CocoPanoptic.open(home, "val2017"))
    assert f"{home / 'val2017'} or {home / 'val2017.zip' / 'val2017'}" in message
    content = (home / "other.zip").read_bytes()
    (home / "val2017.zip").write_bytes(content[: len(content) // 2])
    assert str(home / "val2017.zip") in refusal(lambda: CocoPanoptic.open(home, "val2017"))


def test_coco_unknown_split(mini, tmp_path, draw):
    draw(tmp_path, Path("panoptic_train.json"), Path("train"), Path("panoptic_train"))
    message = refusal(lambda: CocoPanoptic.open(mini, "test"))
    assert "panoptic_test.json" in message
    assert "train, val" in message
    assert "none" in refusal(lambda: CocoPanoptic.open(tmp_path / "nowhere", "val"))


def test_coco_string_ids_nested_names_and_links(mini, edit):
    (mini / "val" / "deep").mkdir()
    (mini / "val" / "a.png").rename(mini / "hidden.png")
    (mini / "val" / "deep" / "a.v2.png").symlink_to(mini / "hidden.png")

    def change(content):
        content["images"][0].update(id="a", file_name="deep/a.v2.png")
        content["annotations"][0]["image_id"] = "a"

    edit(change)
    assert CocoPanoptic.open(mini, "val")[0].name == os.path.join("deep", "a.v2")  # noqa: PTH118


def put(*path_and_value):
    """A change of the json: the value at a path of keys."""
    *path, last, value = path_and_value

    def change(content):
        for key in path:
            content = content[key]
        content[last] = value

    return change


def drop(*path):
    *path, last = path

    def change(content):
        for key in path:
            content = content[key]
        del content[last]

    return change


STRUCTURE = [
    (drop("categories"), "no 'categories'"),
    (drop("images"), "no 'images'"),
    (put("annotations", {}), "'annotations' should be list, not dict"),
    (put("images", []), "no images"),
    (put("images", 1, 5), "images[1]"),
    (drop("images", 1, "file_name"), "images[1] has no 'file_name'"),
    (put("images", 1, "file_name", 3), "images[1]: 'file_name' should be str, not int"),
    (put("images", 1, "id", True), "images[1]: 'id'"),
    (put("images", 1, "id", 11), "image id 11 appears twice"),
    (put("images", 1, "file_name", "a.jpg"), "image name 'a' appears twice"),
    (put("annotations", 0, "segments_info", None), "annotations[0]: 'segments_info'"),
    (put("annotations", 0, "image_id", 12), "annotation of image 12 appears twice"),
    (put("annotations", 0, "image_id", 99), "99"),
    (drop("categories", 0, "name"), "category number 1"),
    (put("categories", 0, "id", 3), "category id 3 is used more than once"),
    (put("categories", 0, "id", float("inf")), "categories"),
]


@pytest.mark.parametrize(("change", "expected"), STRUCTURE)
def test_coco_open_rejects_structural_errors(mini, edit, change, expected):
    edit(change)
    message = refusal(lambda: CocoPanoptic.open(mini, "val"))
    assert "panoptic_val.json" in message
    assert expected in message


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"null", b"\xff\xfe{", b"[" * 100_000])
def test_coco_open_rejects_broken_json(mini, content):
    (mini / "panoptic_val.json").write_bytes(content)
    assert "panoptic_val.json" in refusal(lambda: CocoPanoptic.open(mini, "val"))


FIRST = ("annotations", 0, "segments_info", 0)
ITEM = [
    (put(*FIRST, "category_id", 99), "99"),
    (put(*FIRST, "category_id", "7"), "'category_id' should be int, not str"),
    (put(*FIRST, "id", 6), "segment id 5 is in the PNG but not in segments_info"),
    (put(*FIRST, "id", 300), "segment id 300 appears twice"),
    (put(*FIRST, "iscrowd", "no"), "iscrowd 'no'"),
    (put("annotations", 0, "segments_info", 0, None), "segments_info[0]"),
    (drop(*FIRST, "id"), "segments_info[0] has no 'id'"),
    (drop(*FIRST), "segment id 5 is in the PNG but not in segments_info"),
    (drop("annotations", 0), "no annotation for image 'a.png'"),
    (put("annotations", 0, "file_name", "none.png"), "panoptic_val/none.png"),
    (put("images", 0, "file_name", "none.png"), "val/none.png"),
    (put("images", 0, "file_name", "bad\n\ud800\x00"), "is missing"),
    (put("images", 0, "file_name", ""), "is missing"),
    (put("images", 0, "file_name", "x" * 300), "is missing"),
    (put("annotations", 0, "file_name", "a/" * 3000), "is missing"),
    (put("images", 0, "file_name", "../val/a.png"), "leaves"),
    (put("annotations", 0, "file_name", "deep/../../val/a.png"), "leaves"),
    (put("annotations", 0, "file_name", "/etc/hostname"), "leaves"),
]


@pytest.mark.parametrize(("change", "expected"), ITEM)
def test_coco_rejects_bad_item_and_reads_others(mini, edit, change, expected):
    edit(change)
    data = CocoPanoptic.open(mini, "val")
    message = refusal(lambda: data[0])
    assert expected in message
    assert str(mini) in message
    assert data[1].name == "b é"


def test_coco_rejects_segment_without_pixels(mini, edit):
    edit(lambda content: content["annotations"][0]["segments_info"].append({"id": 9, "category_id": 3}))
    data = CocoPanoptic.open(mini, "val")
    assert "segment id 9 is in segments_info but not in the PNG" in refusal(lambda: data[0])


def test_coco_rejects_bad_pngs(mini):
    data, png = CocoPanoptic.open(mini, "val"), mini / "panoptic_val" / "a.png"
    content = png.read_bytes()
    for broken in (b"", b"not an image", content[:50], content[:-30], content[:45] + b"\0\0\0\0" + content[49:]):
        png.write_bytes(broken)
        assert "cannot be read as PNG" in refusal(lambda: data[0])
        assert str(png) in refusal(lambda: data[0])
    Image.new("RGB", (6, 8)).save(png)
    message = refusal(lambda: data[0])
    assert "6 x 8" in message
    assert "8 x 6" in message
    assert str(mini / "val" / "a.png") in message
    Image.new("L", (8, 6), 5).save(png)
    assert "not RGB" in refusal(lambda: data[0])


def test_coco_names_damaged_image(mini):
    (mini / "val" / "a.png").write_bytes(b"GIF89a")
    assert str(mini / "val" / "a.png") in refusal(lambda: CocoPanoptic.open(mini, "val")[0])


def test_coco_palette_png(mini):
    png = mini / "panoptic_val" / "a.png"
    expected = CocoPanoptic.open(mini, "val")[0].panoptic
    Image.open(png).quantize(8).save(png)
    assert Image.open(png).mode == "P"
    assert np.array_equal(CocoPanoptic.open(mini, "val")[0].panoptic.segmentation, expected.segmentation)


@pytest.mark.skipif(not (SHARED / "coco_sample").is_dir(), reason="the shared COCO images are not available")
def test_coco_sample_pq_against_itself_is_1():
    home = SHARED / "coco_sample"
    data = CocoPanoptic(home / "panoptic_examples.json", home / "input_images", home / "panoptic_examples")
    quality = PanopticQuality(data.taxonomy)
    for sample in data:
        quality.update(sample.panoptic, sample.panoptic)
    assert quality.compute()["All"] == {"pq": 1, "sq": 1, "rq": 1, "n": 8}


@pytest.mark.skipif(not (SHARED / "coco_sample").is_dir(), reason="the shared COCO images are not available")
def test_coco_sample_round_trip():
    home = SHARED / "coco_sample"
    data = CocoPanoptic(home / "panoptic_examples.json", home / "input_images", home / "panoptic_examples")
    truth = json.loads((home / "panoptic_examples.json").read_text())
    annotations = {annotation["image_id"]: annotation for annotation in truth["annotations"]}
    for record, sample in zip(data.records, data, strict=True):
        expected = annotations[record["id"]]
        rgb, written = sample.panoptic.to_coco(record["id"], expected["file_name"])
        assert (written["image_id"], written["file_name"]) == (expected["image_id"], expected["file_name"])
        keys = ("id", "category_id", "area", "bbox", "iscrowd")
        given, mine = (
            sorted([info[key] for key in keys] for info in annotation["segments_info"])
            for annotation in (expected, written)
        )
        assert mine == given
        png = np.asarray(Image.open(home / "panoptic_examples" / expected["file_name"]).convert("RGB"))
        assert np.array_equal(rgb, png)
