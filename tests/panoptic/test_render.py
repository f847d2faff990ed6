import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pix2seqd.files import InputError
from pix2seqd.images import load
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy, distinct_color

SKY = {"id": 9, "name": "sky", "isthing": 0, "color": [0, 0, 255]}
CAT = {"id": 17, "name": "cat", "isthing": 1}
DOG = {"id": 18, "name": "dog", "isthing": 1}
TWO, THREE = Taxonomy.from_coco([SKY, CAT]), Taxonomy.from_coco([SKY, CAT, DOG])
GREY = Image.new("RGB", (60, 40), (100, 100, 100))


def scene(taxonomy=TWO, first=1):
    """Void on the left, sky (1) in the middle, two cats on it."""
    segmentation = np.zeros((40, 60), int)
    segmentation[:, 20:] = 5
    segmentation[5:20, 30:50] = first
    segmentation[20:35, 30:50] = 2
    return Panoptic.from_segmentation(segmentation, {5: 1, first: 2, 2: 2}, taxonomy)


def test_overlay_leaves_void_and_colours_segments():
    panoptic = scene()
    drawn = np.asarray(panoptic.overlay(GREY))
    void = panoptic.segmentation == 0
    assert (drawn[void] == 100).all()
    assert (drawn[~void] != 100).any(axis=-1).all()


def test_overlay_band_by_band_and_outlines_as_a_filter_finds_them(monkeypatch):
    segmentation = np.random.default_rng(0).integers(0, 4, (9, 11)).repeat(9, axis=0).repeat(7, axis=1)
    panoptic = Panoptic.from_segmentation(segmentation, {1: 2, 2: 2, 3: 1}, TWO)
    image = Image.new("RGB", (77, 81), (100, 100, 100))
    whole = np.asarray(panoptic.overlay(image, alpha=0))
    near = ndimage.minimum_filter(segmentation, 3) != ndimage.maximum_filter(segmentation, 3)
    assert np.array_equal((whole != 100).any(axis=-1), near & np.isin(segmentation, (1, 2))), "things have outlines"
    monkeypatch.setattr(load, "BAND", 77 * 4)
    assert np.array_equal(np.asarray(panoptic.overlay(image, alpha=0)), whole)


def test_overlay_colours_stuff_by_category_and_things_by_id():
    drawn = np.asarray(scene().overlay(GREY)).astype(int)
    red, green, blue = drawn[2, 25]
    assert blue > red == green
    for y, segment_id in ((12, 1), (27, 2)):
        tint = (drawn[y, 40] - 100) / (np.array(distinct_color(segment_id)) - 100)
        assert np.allclose(tint, 0.5, atol=0.05)
    assert (drawn[12, 40] != drawn[27, 40]).any()


def test_overlay_outlines_touching_things():
    drawn = np.asarray(scene().overlay(GREY)).astype(int)
    inside, rim = drawn[12, 40], drawn[19, 40]
    assert abs(inside - rim).sum() > 60


def test_overlay_alpha_0_keeps_the_inside():
    assert scene().overlay(GREY, alpha=0).getpixel((40, 12)) == (100, 100, 100)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "I;16", "F"])
def test_overlay_image_modes(mode):
    drawn = scene().overlay(Image.new("RGB", (60, 40)).convert(mode) if mode == "RGBA" else Image.new(mode, (60, 40)))
    assert (drawn.mode, drawn.size) == ("RGB", (60, 40))


def test_overlay_applies_exif_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 60)).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        assert scene().overlay(image).size == (60, 40)


def test_overlay_other_size_is_an_error_with_both_sizes():
    with pytest.raises(InputError, match=r"61 x 40.*60 x 40"):
        scene().overlay(Image.new("RGB", (61, 40)))


def large(taxonomy):
    segmentation = np.ones((300, 400), int)
    segmentation[100:103, 100:103] = 2
    return Panoptic.from_segmentation(segmentation, {1: 1, 2: 2}, taxonomy)


def test_overlay_writes_names_that_fit_for_three_categories():
    black = Image.new("RGB", (400, 300))
    plain, named = (np.asarray(large(taxonomy).overlay(black)) for taxonomy in (TWO, THREE))
    ys, xs = np.nonzero((plain != named).any(axis=-1))
    assert len(ys) > 50
    assert np.ptp(xs) < 60 and np.ptp(ys) < 25  # one word: the cat is too small for its name
    tiny = Panoptic.from_segmentation(np.ones((12, 12)), {1: 1}, THREE)
    assert len(np.unique(np.asarray(tiny.overlay(Image.new("RGB", (12, 12)))).reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1)])
@pytest.mark.parametrize("classes", [{}, {3: 1}, {3: 2}])
def test_overlay_extreme_sizes_and_no_segments(shape, classes):
    panoptic = Panoptic.from_segmentation(np.full(shape, 3), classes, THREE)
    assert panoptic.overlay(Image.new("RGB", shape[::-1])).size == shape[::-1]
