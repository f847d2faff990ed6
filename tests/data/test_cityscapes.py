import numpy as np
import pytest
from miniatures import CITYSCAPES_LABELS as LABELS
from miniatures import CITYSCAPES_NAMES as NAMES
from miniatures import draw_cityscapes, turn
from PIL import Image

from pix2seqd.data import open_dataset, remarks
from pix2seqd.data.cityscapes import TAXONOMY, Cityscapes
from pix2seqd.files import InputError


@pytest.fixture
def home(tmp_path):
    return draw_cityscapes(tmp_path)


def facts(sample):
    return {s.id: (s.name, s.area, s.iscrowd) for s in sample.panoptic.segments}


def test_cityscapes_segments_match_official_conversion(home):
    data = Cityscapes.open(home, "val")
    assert [sample.name for sample in data] == NAMES
    assert data[2].image.shape == (3, 4, 3)
    assert data[2].image[0, 0].tolist() == [4, 2, 3], "the image of its own city"
    assert facts(data[0]) == {
        7: ("road", 2, False),
        23: ("sky", 1, False),
        26: ("car", 1, True),
        33: ("bicycle", 1, True),
        24000: ("person", 1, False),
        26001: ("car", 2, False),
        26002: ("car", 1, False),
    }
    assert np.array_equal(data[0].panoptic.segmentation == 0, np.isin(LABELS, [0, 1, 29001]))


def test_cityscapes_taxonomy():
    ids = [category.id for category in TAXONOMY.categories]
    assert ids == [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert [c.id for c in TAXONOMY.categories if c.isthing] == [24, 25, 26, 27, 28, 31, 32, 33]


def test_cityscapes_zip_files(home, pack):
    expected = [facts(sample) for sample in Cityscapes.open(home, "val")]
    for kind in ("leftImg8bit", "gtFine"):
        pack(home / kind, home / f"{kind}_trainvaltest.zip")
    data = Cityscapes.open(home, "val")
    assert [sample.name for sample in data] == NAMES
    assert [facts(sample) for sample in data] == expected


def test_cityscapes_label_ids_without_instance_ids(home):
    for path in home.rglob("*_instanceIds.png"):
        path.unlink()
    found = facts(open_dataset(f"cityscapes:{home}@val", (8, 8))[0])
    assert found[26] == ("car", 4, True)
    assert found[7] == ("road", 2, False)


def test_cityscapes_errors_name_missing_files(home):
    with pytest.raises(InputError, match=r"leftImg8bit/train or .*leftImg8bit_trainvaltest\.zip/leftImg8bit/train"):
        Cityscapes.open(home, "train")
    (home / "gtFine").rename(home / "gt")
    with pytest.raises(InputError, match=r"gtFine/val or .*gtFine_trainvaltest\.zip/gtFine/val"):
        Cityscapes.open(home, "val")
    (home / "gtFine" / "val").mkdir(parents=True)
    with pytest.raises(InputError, match="gtFine/val has no file"):
        Cityscapes.open(home, "val")
    (home / "gtFine" / "val").rmdir()
    (home / "gt" / "val").rename(home / "gtFine" / "val")
    image = home / "leftImg8bit" / "val" / "bonn" / f"{NAMES[2]}_leftImg8bit.png"
    image.unlink()
    data = Cityscapes.open(home, "val")
    with pytest.raises(InputError, match=image.name):
        data[2]
    Image.new("RGB", (5, 5)).save(image)
    with pytest.raises(InputError, match=f"instanceIds.png is 4 x 3 but its image {image} is 5 x 5"):
        data[2]


def test_cityscapes_says_how_labels_are_taken(home):
    turn(home / f"leftImg8bit/val/aachen/{NAMES[0]}_leftImg8bit.png")
    data = Cityscapes.open(home, "val")
    assert "EXIF" in data[0].notes[0] and data[1].notes == ()
    assert any("EXIF" in line and NAMES[0] in line for line in remarks(data, "cityscapes"))
