from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from pix2seqd.data.check import Report, check, compare, contact_sheet
from pix2seqd.data.coco import CocoPanoptic
from pix2seqd.data.sample import Sample
from pix2seqd.data.synthetic.shapes import Shapes
from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Category, Taxonomy


class PartlyUnreadable:
    """`Shapes` whose items before `bad` cannot be read."""

    def __init__(self, length: int, bad: int) -> None:
        self.shapes, self.bad = Shapes(length, (40, 60)), bad
        self.taxonomy = self.shapes.taxonomy

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> Sample:
        if index < self.bad:
            raise InputError(f"/some/[red]file{index:03d}.png is missing; fetch it")
        return self.shapes[index]


def text(report: Report) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(report)
    return capture.get()


def test_check_counts_coco(mini):
    report = check(CocoPanoptic.open(mini, "val"), id_capacity=1)
    assert report.ok
    assert report.items == 2
    cat, lawn = report.tallies[7], report.tallies[3]
    assert (cat.images, cat.segments, cat.pixels) == (1, 1, 6), "the crowd of cats is not counted"
    assert (lawn.images, lawn.segments, lawn.pixels) == (2, 2, 31 + 48)
    assert report.instances == [1, 0]
    assert report.sizes == {(8, 6): 2}
    assert (report.pixels, report.void_pixels, report.crowd_pixels) == (96, 6, 5)
    printed = text(report)
    for fact in ("cat", "lawn", "2 items, all readable", "8 x 6", "0..1", "void 6.2%", "crowd 5.2%"):
        assert fact in printed


def test_check_counts_images_with_too_many_things():
    taxonomy = Taxonomy((Category(1, "dot", True, (255, 0, 0)), Category(2, "unused", False, (0, 0, 255))))
    samples = []
    for things in (0, 2, 3, 4):
        ids = np.arange(things + 1)[None]
        panoptic = Panoptic.from_segmentation(ids, dict.fromkeys(range(1, things + 1), 1), taxonomy)
        samples.append(Sample(str(things), np.zeros((1, things + 1, 3), np.uint8), panoptic))

    class Dots(list[Sample]):
        pass

    dots = Dots(samples)
    dots.taxonomy = taxonomy
    report = check(dots, id_capacity=2)
    assert report.overfull == 2
    assert report.tallies[2].images == 0
    printed = text(report)
    assert "0..4, median 2.5" in printed
    assert "2 items have more than the 2 ids (--ids)" in printed
    assert "width 1..5, height 1..1" in printed
    assert "unused" in printed


def test_check_collects_all_errors_and_shows_twenty():
    report = check(PartlyUnreadable(30, bad=25), 63)
    assert not report.ok
    assert len(report.errors) == 25
    assert len(report.instances) == 5
    printed = text(report)
    assert "30 items, 25 of them unusable" in printed
    assert "/some/[red]file019.png" in printed
    assert "file020" not in printed
    assert "and 5 more" in printed


def test_check_all_items_unreadable():
    report = check(PartlyUnreadable(3, bad=3), 63)
    assert "3 items, 3 of them unusable" in text(report)


def test_check_names_bad_coco_item_and_counts_others(mini):
    (mini / "panoptic_val" / "a.png").unlink()
    report = check(CocoPanoptic.open(mini, "val"), 63)
    assert len(report.errors) == 1
    assert str(mini / "panoptic_val" / "a.png") in report.errors[0]
    assert report.tallies[3].images == 1


def test_contact_sheet_image_beside_overlay(tmp_path):
    data = Shapes(7, (32, 64))
    contact_sheet(data, tmp_path / "sheet.png", count=2, side=64)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (128, 128, 3)
    for row, index in enumerate((0, 6)):
        band = sheet[64 * row + 16 : 64 * row + 48]
        assert np.array_equal(band[:, :64], data[index].image)
        overlay = data[index].panoptic.overlay(Image.fromarray(data[index].image))
        assert np.array_equal(band[:, 64:], overlay)
        assert (sheet[64 * row : 64 * row + 16] == 255).all(), "the rest of the square is white"


def test_contact_sheet_skips_unreadable_items(tmp_path):
    contact_sheet(PartlyUnreadable(4, bad=3), tmp_path / "sheet.png", side=32)
    assert Image.open(tmp_path / "sheet.png").size == (64, 32)
    with pytest.raises(InputError, match="no item"):
        contact_sheet(PartlyUnreadable(4, bad=4), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_contact_sheet_missing_folder(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        contact_sheet(Shapes(1, (8, 8)), tmp_path / "nowhere" / "sheet.png")


def test_check_warns_of_empty_classes_unlabelled_and_repeated_images():
    taxonomy = Taxonomy((Category(1, "dot", True, (255, 0, 0)), Category(2, "unused", False, (0, 0, 255))))
    image = np.zeros((1, 2, 3), np.uint8)
    labels = [Panoptic.from_segmentation(np.array([[0, i]]), {1: 1}, taxonomy) for i in (0, 1, 1)]
    samples = [Sample(name, image + shade, p) for name, shade, p in zip("abc", (0, 1, 1), labels, strict=True)]

    class Dots(list[Sample]):
        pass

    dots = Dots(samples)
    dots.taxonomy = taxonomy
    report = check(dots, 9)
    assert report.warnings == [
        "1 classes occur in no image: unused",
        "1 images have no label: a",
        "1 images repeat the content of another: b and c",
    ]
    assert "warning: 1 images have no label: a" in text(report)
    assert compare({"all": report}) == []
    assert compare({"train": report, "val": check(Shapes(4, (8, 8)), 9)})[0] == "1 classes occur in train only: dot"


def test_check_lists_how_images_and_labels_were_taken():
    note = "turned by the EXIF orientation; labels are taken as stored and turned with it, as their size says"

    class Turned(PartlyUnreadable):
        def __getitem__(self, index: int) -> Sample:
            return replace(super().__getitem__(index), notes=(note,) if index else ())

    data = Turned(3, 0)
    assert f"2 images: {note}: {data[1].name}, {data[2].name}" in check(data, 10).warnings
