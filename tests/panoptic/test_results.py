import json
import os
from pathlib import Path

import numpy as np
import pytest
from fake_segmenter import TAXONOMIES, draw
from PIL import Image

from pix2seqd.data.coco import CocoPanoptic
from pix2seqd.files import InputError
from pix2seqd.images.load import find_images, load_image
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.results import PanopticWriter
from pix2seqd.panoptic.taxonomy import Taxonomy

TAXONOMY = TAXONOMIES["nuclei"]
SETTINGS = {"model": "nuclei", "seed": 0}


def result(source):
    """Two segments and some void."""
    image = load_image(source)
    segmentation = np.zeros((image.height, image.width), int)
    segmentation[2:] = 1
    segmentation[5:9, 3:8] = 300
    return image, Panoptic.from_segmentation(segmentation, {1: 2, 300: 1}, TAXONOMY)


def write(out, *sources, settings=SETTINGS):
    with PanopticWriter(out, TAXONOMY, settings) as writer:
        for source in sources:
            writer.write(source, *result(source))


def content(out):
    return json.loads((out / "panoptic.json").read_text(encoding="utf-8"))


def names(out):
    return [image["file_name"] for image in content(out)["images"]]


def test_find_images_sorted_folders_and_any_file(tmp_path):
    for name in ("b.PNG", "a.jpg", ".hidden.png", "sub/c.png", "B.tiff"):
        draw(tmp_path / "d" / name)
    (tmp_path / "d" / "notes.txt").write_text("x")
    odd = tmp_path / "odd.xyz"
    found = find_images([odd, tmp_path / "d", tmp_path / "d" / "a.jpg", Path(tmp_path / "d/sub/../a.jpg")])
    assert [path.name for path in found] == ["B.tiff", "a.jpg", "b.PNG", "odd.xyz"]


def test_find_images_folder_without_images_is_an_error(tmp_path):
    draw(tmp_path / "sub" / "a.png")
    with pytest.raises(InputError, match="no images"):
        find_images([tmp_path])


def test_panoptic_writer_output_loads_as_coco_data_set(tmp_path):
    sources = [draw(tmp_path / "in" / name) for name in ("a.png", "Grüße, Öl.jpg")]
    out = tmp_path / "out"
    write(out, *sources)
    dataset = CocoPanoptic.open(out)
    assert dataset.taxonomy == TAXONOMY
    assert [dataset[i].name for i in range(len(dataset))] == ["a", "Grüße, Öl"]
    for sample, source in zip(map(dataset.__getitem__, range(2)), sources, strict=True):
        image, panoptic = result(source)
        assert (sample.image == np.asarray(image)).all()
        assert (sample.panoptic.segmentation == panoptic.segmentation).all()
        assert sample.panoptic.segments == panoptic.segments


def test_panoptic_writer_json_fields(tmp_path):
    write(tmp_path / "out", draw(tmp_path / "a.png", size=(40, 30)))
    read = content(tmp_path / "out")
    (image,) = read["images"]
    assert (image["id"], image["file_name"], image["width"], image["height"]) == (1, "a.png", 40, 30)
    (annotation,) = read["annotations"]
    assert (annotation["image_id"], annotation["file_name"]) == (1, "a.png")
    assert annotation["segments_info"][1] == {
        "id": 300,
        "category_id": 1,
        "area": 20,
        "bbox": [3, 5, 5, 4],
        "iscrowd": 0,
        "name": "nucleus",
        "isthing": True,
    }
    assert Taxonomy.from_coco(read["categories"]) == TAXONOMY
    png = np.asarray(Image.open(tmp_path / "out/panoptic/a.png"))
    assert png[6, 4].tolist() == [300 % 256, 1, 0] and png[0, 0].tolist() == [0, 0, 0]
    assert Image.open(tmp_path / "out/overlay/a.png").size == (40, 30)


def test_panoptic_writer_equal_stems_get_stable_suffixes(tmp_path):
    first, second = draw(tmp_path / "d1/a.png"), draw(tmp_path / "d2/a.png", size=(20, 20))
    third = draw(tmp_path / "d2/A.bmp", size=(15, 15))
    out = tmp_path / "out"
    write(out, second)
    write(out, first, second, third)
    assert names(out) == ["a.png", "a-2.png", "A-3.bmp"]
    assert [Image.open(out / "panoptic" / n).size for n in ("a.png", "a-2.png", "A-3.png")] == [
        (20, 20),
        (40, 30),
        (15, 15),
    ]
    assert len(CocoPanoptic.open(out)[1].panoptic.segments) == 2


def test_is_done_reads_the_old_name_of_a_setting(tmp_path):
    source, out = draw(tmp_path / "a.png"), tmp_path / "out"
    write(out, source, settings={**SETTINGS, "sure": 0.5})
    for setting, expected in (("early_exit", True), ("sure", True), ("adaptive", False)):
        assert PanopticWriter(out, TAXONOMY, {**SETTINGS, setting: 0.5}).is_done(source) == expected


def test_is_done_result_from_before_a_setting_had_its_default(tmp_path):
    source, out = draw(tmp_path / "a.png"), tmp_path / "out"
    write(out, source, settings=SETTINGS)
    for scales, expected in (([1.0], True), ([1.0, 1.2], False)):
        assert PanopticWriter(out, TAXONOMY, {**SETTINGS, "sample_scales": scales}).is_done(source) == expected


def test_is_done_same_file_same_settings_and_existing_results(tmp_path):
    source, other = draw(tmp_path / "a.png"), draw(tmp_path / "b.png")
    out = tmp_path / "out"
    write(out, source)

    def done(settings=SETTINGS):
        return PanopticWriter(out, TAXONOMY, settings).is_done(source)

    assert done()
    assert not PanopticWriter(out, TAXONOMY, SETTINGS).is_done(other)
    assert not done({**SETTINGS, "seed": 1})
    os.utime(source, ns=(0, 12345))
    assert not done()
    write(out, source)
    assert done()
    for part in ("panoptic/a.png", "overlay/a.png", "images/a.png"):
        (out / part).rename(tmp_path / "aside.png")
        assert not done()
        (tmp_path / "aside.png").rename(out / part)
    source.unlink()
    assert not done()


def test_panoptic_writer_rewriting_replaces_one_entry(tmp_path):
    sources = [draw(tmp_path / f"{name}.png") for name in "abc"]
    out = tmp_path / "out"
    write(out, *sources)
    before = content(out)
    write(out, sources[1], settings={**SETTINGS, "seed": 9})
    after = content(out)
    assert [image["settings"]["seed"] for image in after["images"]] == [0, 9, 0]
    assert after["images"][::2] == before["images"][::2]
    assert after["annotations"] == before["annotations"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, InputError])
def test_panoptic_writer_saves_json_after_any_error(tmp_path, error):
    out = tmp_path / "out"
    sources = [draw(tmp_path / f"{i}.png") for i in range(5)]
    with pytest.raises(error), PanopticWriter(out, TAXONOMY, SETTINGS) as writer:
        writer._save_after = float("inf")
        for source in sources[:3]:
            writer.write(source, *result(source))
        raise error
    assert names(out) == ["0.png", "1.png", "2.png"]
    assert not list(out.rglob("*.part"))


def test_panoptic_writer_saves_json_while_running(tmp_path):
    """A kill leaves no time to write it."""
    with PanopticWriter(tmp_path / "out", TAXONOMY, SETTINGS) as writer:
        for i in range(3):
            source = draw(tmp_path / f"{i}.png")
            writer._save_after = 0.0
            writer.write(source, *result(source))
            assert names(tmp_path / "out")[-1] == f"{i}.png"


def test_panoptic_writer_foreign_json_is_not_overwritten(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    theirs = json.dumps({"images": [], "annotations": [], "categories": TAXONOMY.to_coco()})
    (out / "panoptic.json").write_text(theirs)
    with pytest.raises(InputError, match="choose another --out"):
        PanopticWriter(out, TAXONOMY, SETTINGS)
    assert (out / "panoptic.json").read_text() == theirs


def test_panoptic_writer_other_categories_is_an_error(tmp_path):
    write(tmp_path / "out", draw(tmp_path / "a.png"))
    with pytest.raises(InputError, match="other categories"):
        PanopticWriter(tmp_path / "out", TAXONOMIES["other"], SETTINGS)


@pytest.mark.parametrize("broken", ["", "{", "[]", "[1, 2]", '{"info": 3}', '{"info": {"description": 1}}'])
def test_panoptic_writer_broken_json_is_an_error(tmp_path, broken):
    out = tmp_path / "out"
    out.mkdir()
    (out / "panoptic.json").write_text(broken)
    with pytest.raises(InputError, match=r"panoptic\.json"):
        PanopticWriter(out, TAXONOMY, SETTINGS)


def test_panoptic_writer_file_as_output_is_an_error(tmp_path):
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(InputError, match="cannot write"):
            PanopticWriter(out, TAXONOMY, SETTINGS)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_panoptic_writer_without_write_permission_is_an_error(tmp_path):
    write(tmp_path / "out", draw(tmp_path / "a.png"))
    (tmp_path / "out" / "panoptic").chmod(0o500)
    with pytest.raises(InputError, match="cannot write"):
        PanopticWriter(tmp_path / "out", TAXONOMY, SETTINGS)


def test_panoptic_writer_file_name_not_in_utf8(tmp_path):
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    try:
        draw(source)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    write(tmp_path / "out", source)
    assert PanopticWriter(tmp_path / "out", TAXONOMY, SETTINGS).is_done(source)
    assert len(CocoPanoptic.open(tmp_path / "out")[0].panoptic.segments) == 2
