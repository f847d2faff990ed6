"""Recognition and reading of label images of other tools, drawn here."""

import io
import math
import re
import shutil
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import yaml
from miniatures import refusal
from PIL import Image
from scipy import ndimage

from pix2seqd.data import remarks
from pix2seqd.data.check import check
from pix2seqd.data.folder import Folder
from pix2seqd.data.label_images import read_label_image
from pix2seqd.data.labels import Labels
from pix2seqd.files import InputError


def discs(count: int, side: int = 96, seed: int = 0, pitch: int = 12) -> np.ndarray:
    """`count` round objects on 0, numbered from 1, int32 `[side, side]`."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    rows, columns = np.mgrid[:side, :side]
    places = rng.permutation((side // pitch) ** 2)[:count]
    assert len(places) == count
    for number, place in enumerate(sorted(places.tolist()), start=1):
        y, x = (pitch * p + pitch // 2 for p in divmod(place, side // pitch))
        labels[(rows - y) ** 2 + (columns - x) ** 2 <= rng.uniform(0.3, 0.5) ** 2 * pitch**2] = number
    return labels


def scenes(count: int, values: list[int], side: int = 48, patches: int = 3) -> list[np.ndarray]:
    """Class images: several blocks of each value on 0, large and small ones, as areas of land."""
    found = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        labels = np.zeros((side, side), np.int32)
        places = rng.permutation(36)[: patches * len(values)]
        for number, (place, value) in enumerate(zip(places.tolist(), values * patches, strict=False)):
            (y, x), size = (8 * p for p in divmod(place, 6)), (7, 4, 2)[number // len(values) % 3]
            labels[y : y + size, x : x + size] = value
        found.append(labels)
    return found


def terrain(values: list[int], seed: int, smooth: float = 4) -> np.ndarray:
    """Classes in patches of all sizes that fill the image."""
    noise = np.random.default_rng(seed).standard_normal((len(values), 96, 96))
    return np.array(values)[ndimage.gaussian_filter(noise, (0, smooth, smooth)).argmax(0)]


def write(home: Path, drawn: list[np.ndarray], suffix: str = ".png", folder: str = "labels", **declared) -> Path:
    """A data set with these label images, black images and a declaration."""
    for index, pixels in enumerate(drawn):
        for name, content in (("images", np.zeros((*pixels.shape[:2], 3), np.uint8)), (folder, pixels)):
            path = home / name / (f"{index}.jpg" if name == "images" else f"{index}{suffix}")
            path.parent.mkdir(parents=True, exist_ok=True)
            if suffix.lower().startswith(".tif") and name == folder:
                tifffile.imwrite(path, content, planarconfig="contig" if pixels.ndim == 3 else None)
            else:
                # Pillow writes no 32-bit PNG.
                Image.fromarray(content.astype(np.uint16) if content.dtype.itemsize > 2 else content).save(path)
    if declared:
        (home / "classes.yaml").write_text(yaml.safe_dump(declared, sort_keys=False))
    return home


def categories(data: Folder) -> list[tuple[str, bool]]:
    return [(c.name, c.isthing) for c in data.taxonomy.categories]


def colored(labels: np.ndarray, colors: dict[int, tuple[int, int, int]]) -> np.ndarray:
    table = np.zeros((max(colors) + 1, 3), np.uint8)
    table[list(colors)] = list(colors.values())
    return table[labels]


@pytest.mark.parametrize(
    ("counts", "dtype", "suffix"),
    [
        ([24], np.uint8, ".png"),
        ([24, 24, 24], np.uint16, ".png"),
        ([24, 31, 12], np.uint8, ".tif"),
        ([3, 0, 40], np.uint16, ".tif"),
        ([24, 31, 12], np.int32, ".tiff"),
        ([24, 31, 12], np.uint32, ".TIF"),
        ([24, 31, 12], np.float32, ".tif"),
        ([24, 31, 12], np.uint8, ".bmp"),
        ([24, 31, 12], np.uint8, ".PNG"),
    ],
)
def test_folder_recognizes_instance_images(tmp_path, counts, dtype, suffix):
    images = [discs(count, seed=seed).astype(dtype) for seed, count in enumerate(counts)]
    data = Folder.open(write(tmp_path, images, suffix))
    assert data.labels.coding == "instance"
    assert categories(data) == [("background", False), ("object", True)]
    for sample, labels, count in zip(data, images, counts, strict=True):
        things = [s for s in sample.panoptic.segments if s.isthing]
        assert len(things) == count
        assert sorted(s.area for s in things) == sorted(np.unique(labels[labels > 0], return_counts=True)[1].tolist())
    assert "# assumed coding: instance, because" in str(data.labels)
    (tmp_path / "classes.yaml").write_text(str(data.labels))
    again = Folder.open(tmp_path)
    assert again.labels == data.labels and again.labels.assumed == ()


def test_folder_recognizes_1500_instances_and_gaps_in_their_numbers(tmp_path):
    many = discs(1500, side=400, pitch=10)
    assert len(Folder.open(write(tmp_path / "a", [many.astype(np.uint16)]))[0].panoptic.things) == 1500
    rng = np.random.default_rng(0)
    tracks = np.concatenate([[0], rng.permutation(np.arange(1, 60_000))[:1500]])[many]
    data = Folder.open(write(tmp_path / "b", [tracks.astype(np.uint16)]))
    assert (data.labels.coding, len(data[0].panoptic.things)) == ("instance", 1500)
    large = np.where(many > 0, many.astype(np.int64) + 2**32 - 2000, 0).astype(np.uint32)
    data = Folder.open(write(tmp_path / "c", [large], ".tif"))
    assert (data.labels.coding, len(data[0].panoptic.things)) == ("instance", 1500)


def test_folder_instance_in_two_parts_is_one_segment(tmp_path):
    labels = discs(30)
    labels[labels == 7] = 8
    (sample,) = Folder.open(write(tmp_path, [labels.astype(np.uint8)]))
    assert len(sample.panoptic.things) == 29


def test_folder_instance_class_has_a_name(tmp_path):
    labels = [discs(3).astype(np.uint8)]
    data = Folder.open(write(tmp_path / "a", labels, coding="instance", labels={1: "nucleus"}))
    assert categories(data) == [("background", False), ("nucleus", True)]
    data = Folder.open(write(tmp_path / "b", labels, coding="instance", labels={1: "nucleus"}, void=0))
    assert categories(data) == [("nucleus", True)]
    assert (data[0].panoptic.segmentation == 0).sum() == (labels[0] == 0).sum()
    data = Folder.open(write(tmp_path / "c", [np.where(labels[0] == 2, 255, labels[0])], coding="instance", void=255))
    assert len(data[0].panoptic.things) == 2
    wrong = write(tmp_path / "d", labels, coding="instance", labels={1: "nucleus", 2: "cell"})
    assert "the one class" in refusal(lambda: Folder.open(wrong))


def test_folder_few_instances_are_refused_with_their_readings(tmp_path):
    write(tmp_path, [discs(count, seed=count).astype(np.uint8) for count in (3, 5, 4)])
    message = refusal(lambda: Folder.open(tmp_path))
    assert "'coding: instance'" in message and "'coding: class'" in message
    assert str(tmp_path / "classes.yaml") in message
    for coding, count in (("instance", 2), ("class", 6)):
        (tmp_path / "classes.yaml").write_text(f"coding: {coding}\n")
        assert len(Folder.open(tmp_path).taxonomy) == count


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param(scenes(4, [1, 2, 3, 4, 5, 6]), id="several patches"),
        pytest.param(scenes(6, [7, 11, 26], patches=1), id="the same few values"),
        pytest.param([np.where(discs(2) == 2, 255, discs(2))], id="one class and void"),
        pytest.param(scenes(3, [*range(1, 13)]), id="many"),
    ],
)
def test_folder_classes_stay_classes(tmp_path, labels):
    data = Folder.open(write(tmp_path, [pixels.astype(np.uint8) for pixels in labels]))
    assert data.labels.coding == "class"
    assert not any(isthing for _, isthing in categories(data))


BINARY = {
    "0 and 1": lambda mask: mask.astype(np.uint8),
    "black and white": lambda mask: mask.astype(np.uint8) * 255,
    "one bit": lambda mask: mask,
    "16 bits": lambda mask: mask.astype(np.uint16) * 65535,
    "white in colours": lambda mask: np.stack([mask.astype(np.uint8) * 255] * 3, -1),
    "red": lambda mask: np.stack([mask.astype(np.uint8) * 255, *[np.zeros(mask.shape, np.uint8)] * 2], -1),
    "opaque": lambda mask: np.stack([*[mask.astype(np.uint8) * 255] * 3, np.full(mask.shape, 255, np.uint8)], -1),
    "with its own alpha": lambda mask: np.stack([mask.astype(np.uint8) * 255] * 4, -1),
    "grey with its own alpha": lambda mask: np.stack([mask.astype(np.uint8) * 255] * 2, -1),
}


@pytest.mark.parametrize("kind", BINARY)
def test_folder_masks_are_refused_with_their_readings(tmp_path, kind):
    """Each line that the message offers is a whole classes.yaml, and gives what the message says of it."""
    masks = [discs(count, seed=count) > 0 for count in (3, 0, 5)]
    home = write(tmp_path, [BINARY[kind](mask) for mask in masks])
    message = refusal(lambda: Folder.open(home))
    lines = re.findall(r"'([a-z]+: [^']+)'", message)
    assert len(lines) == 3 and str(home / "classes.yaml") in message
    areas = [mask.sum() for mask in masks]
    for line, things in zip(lines, ([3, 0, 5], [0, 0, 0], [1, 0, 1]), strict=True):
        (home / "classes.yaml").write_text(line)
        samples = list(Folder.open(home))
        assert [len(sample.panoptic.things) for sample in samples] == things
        marked = [[s for s in sample.panoptic.segments if s.category_id > 1] for sample in samples]
        assert [sum(s.area for s in segments) for segments in marked] == areas


@pytest.mark.parametrize("table", [[0, 85, 170, 255], [0, 127, 255], [0, 128, 255], [0, 51, 102, 153, 204, 255]])
def test_folder_classes_spread_to_255_are_not_taken_for_void(tmp_path, table):
    labels = [np.array(table, np.uint8)[pixels] for pixels in scenes(3, [*range(1, len(table))])]
    home = write(tmp_path, labels)
    assert "'void: []'" in (message := refusal(lambda: Folder.open(home))) and "'void: 255'" in message
    for void, left_out in (("[]", 0), ("255", (labels[0] == 255).sum())):
        (home / "classes.yaml").write_text(f"void: {void}\ncoding: class\n")
        data = Folder.open(home)
        assert len(data.taxonomy) == len(table) - bool(left_out)
        assert (data[0].panoptic.segmentation == 0).sum() == left_out


@pytest.mark.parametrize("table", [[0, 1, 255], [0, 1, 2, 255], [0, 40, 199, 255]])
def test_folder_255_beside_other_values_is_void(tmp_path, table):
    labels = [np.array(table, np.uint8)[pixels] for pixels in scenes(3, [*range(1, len(table))])]
    assert Folder.open(write(tmp_path, labels)).labels.void == {255}


@pytest.mark.parametrize(
    ("table", "said", "line", "left"),
    [
        ([0, 1, 255], "0 and 1 are classes and 255 is void", "void: []", ["0", "1", "255"]),
        ([0, 1, 2, 255], "0, 1 and 2 are classes and 255 is void", "void: []", ["0", "1", "2", "255"]),
        ([1, 2, 3], "1, 2 and 3 are classes, and none is void", "void: 3", ["1", "2"]),  # Oxford's pets
        ([0, 1, 2, 3, 4, 5, 6, 7], "0 to 7 (8 values) are classes, and none", "void: 7", list("0123456")),
    ],
)
def test_folder_void_is_said_with_the_line_that_changes_it(tmp_path, table, said, line, left):
    drawn = scenes(3, [*range(1, len(table))])
    home = write(tmp_path, [np.array(table, np.uint8)[pixels] for pixels in drawn])
    (remark,) = remarks(Folder.open(home), "cells")
    assert said in remark and f"'{line}'" in remark and "classes.yaml" in remark
    (home / "classes.yaml").write_text(f"{line}\n")
    assert [name for name, _ in categories(Folder.open(home))] == left


def half(value: int, other: int, count: int = 4) -> list[np.ndarray]:
    """Masks of which every other one has another value, as of two exports."""
    return [
        (pixels * (other if index % 2 else value)).astype(np.uint8) for index, pixels in enumerate(scenes(count, [1]))
    ]


@pytest.mark.parametrize(
    ("labels", "declared", "value", "void"),
    [
        pytest.param(half(1, 255), {}, 255, [0, 1, 0, 1], id="0 and 1 in one image, 0 and 255 in another"),
        pytest.param(half(255, 1), {"labels": {0: "ground", 1: "cell"}}, 255, [1, 0, 1, 0], id="the same with names"),
        pytest.param(half(255, 255), {"labels": {0: "ground", 1: "cell"}}, 255, [1] * 4, id="none has the name"),
        pytest.param([np.where(pixels, 1, 255) for pixels in half(1, 1)], {}, 255, [1] * 4, id="1 and 255"),
        pytest.param([np.array([0, 1, 254])[pixels] for pixels in scenes(3, [1, 2])], {}, 254, [1] * 3, id="254"),
        pytest.param([np.array([0, 1, 7, 250])[pixels] for pixels in scenes(3, [1, 2, 3])], {}, 250, [1] * 3, id="250"),
    ],
)
def test_folder_value_that_may_be_void_is_not_guessed(tmp_path, labels, declared, value, void):
    home = write(tmp_path, [pixels.astype(np.uint8) for pixels in labels], coding="class", **declared)
    message = refusal(lambda: Folder.open(home))
    assert f"'void: []' ({value} is a class)" in message and f"'void: {value}'" in message
    assert str(home / "classes.yaml") in message
    write(home, [], coding="class", void=value, **declared)
    assert [int((sample.panoptic.segmentation == 0).any()) for sample in Folder.open(home)] == void
    labelled = {**declared, "labels": {**declared["labels"], 255: "dust"}} if declared else {}
    write(home, [], coding="class", void=[], **labelled)
    assert not any((sample.panoptic.segmentation == 0).any() for sample in Folder.open(home))


def test_folder_class_images_of_0_and_255_are_not_guessed(tmp_path):
    labels = [discs(count, seed=count).astype(np.uint8) for count in (5, 8)]
    home = write(write(tmp_path, labels), [(pixels > 0) * np.uint8(255) for pixels in labels], folder="classes")
    assert "'void: []' (255 is a class)" in refusal(lambda: Folder.open(home))
    (home / "classes.yaml").write_text("void: []\n")
    assert [len(sample.panoptic.things) for sample in Folder.open(home)] == [5, 8]


def test_folder_trimaps_offer_the_value_between(tmp_path):
    cells = [(discs(3, seed=seed, pitch=24) > 0) for seed in range(3)]
    maps = [np.where(ndimage.binary_dilation(c) & ~ndimage.binary_erosion(c), 128, c * 255) for c in cells]
    home = write(tmp_path, [pixels.astype(np.uint8) for pixels in maps])
    assert "'void: 128' (nothing is known there, as in a trimap)" in refusal(lambda: Folder.open(home))
    (home / "classes.yaml").write_text("void: 128\nthings: [255]\n")
    assert categories(Folder.open(home)) == [("0", False), ("255", True)]
    assert [len(sample.panoptic.things) for sample in Folder.open(home)] == [3, 3, 3]


def test_folder_masks_of_which_nothing_was_sampled_are_looked_at(tmp_path):
    """Defects: most images have none."""
    labels = [np.zeros((12, 12), np.uint8) for _ in range(41)]
    labels[7][2:5, 2:5] = 1
    assert "'things: [1]'" in refusal(lambda: Folder.open(write(tmp_path, labels)))
    assert "nothing is labelled" in refusal(lambda: Folder.open(write(tmp_path / "empty", labels[:5])))


@pytest.mark.parametrize("channels", [2, 4])
def test_folder_masks_in_the_alpha_channel_are_refused(tmp_path, channels):
    mask = (discs(5) > 0).astype(np.uint8) * 255
    labels = np.stack([*[np.full_like(mask, 255)] * (channels - 1), mask], -1)
    assert "alpha channel" in refusal(lambda: Folder.open(write(tmp_path, [labels])))


@pytest.mark.parametrize(("high", "dtype"), [(2**16 - 1, np.uint16), (2**32 - 1, np.uint32)])
def test_folder_highest_value_is_not_guessed(tmp_path, high, dtype):
    """Some programs write the highest value for pixels without a label."""
    for name, images in (("class", scenes(3, [1, 2, 3])), ("instance", [discs(20), discs(30)])):
        wide = [np.where(np.arange(len(pixels))[:, None] < 3, high, pixels).astype(dtype) for pixels in images]
        home = write(tmp_path / name, wide, ".tif")
        message = refusal(lambda: Folder.open(home))  # noqa: B023
        assert f"'coding: {name}'" in message and f"'void: {high}'" in message
        (home / "classes.yaml").write_text(f"void: {high}\n")
        data = Folder.open(home)
        assert data.labels.coding == name
        assert (data[0].panoptic.segmentation == 0).sum() == (wide[0] == high).sum()


def test_read_label_image_goes_by_the_content(tmp_path):
    tifffile.imwrite(tmp_path / "a.png", discs(5).astype(np.uint16))
    Image.fromarray(discs(5).astype(np.uint16)).save(tmp_path / "b.tif", format="PNG")
    assert all(np.array_equal(read_label_image(tmp_path / name), discs(5)) for name in ("a.png", "b.tif"))
    (tmp_path / "c.png").write_bytes(b"")
    message = refusal(lambda: read_label_image(tmp_path / "c.png"))
    assert "c.png cannot be read as PNG, BMP or GIF (it is none" in message and "<" not in message


def test_folder_two_objects_in_each_of_few_images_are_not_guessed(tmp_path):
    message = refusal(lambda: Folder.open(write(tmp_path, [discs(2, seed=n).astype(np.uint8) for n in range(3)])))
    assert "'coding: instance' (0 is background, each other value is one object)" in message


def grey_png(values: np.ndarray, bits: int) -> bytes:
    """A PNG of 1, 2, 4 or 8 bits a pixel, which Pillow does not write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    places = np.unpackbits(values.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
    rows = np.packbits(places.reshape(len(values), -1), axis=1)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_read_label_image_grey_of_few_bits_has_its_values(tmp_path, bits):
    values = np.arange(21).reshape(3, 7) % 2**bits
    (tmp_path / "a.png").write_bytes(grey_png(values, bits))
    assert np.array_equal(read_label_image(tmp_path / "a.png"), values)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_read_label_image_refuses_colours_of_16_bits(tmp_path, channels):
    pixels = np.full((4, 5, channels), 300, np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    assert "a.png has colours of 16 bits" in refusal(lambda: read_label_image(tmp_path / "a.png"))


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_read_label_image_refuses_animations(tmp_path, suffix):
    first, second = (Image.fromarray(discs(count).astype(np.uint8)) for count in (3, 5))
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[second])
    assert "has 2 frames; save one" in refusal(lambda: read_label_image(tmp_path / f"a.{suffix}"))


def test_read_label_image_names_a_value_below_0(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((8, 8), -1, np.int16))
    message = refusal(lambda: read_label_image(tmp_path / "a.tif"))
    assert "-1; save pixels without a label as 255" in message and "where 0 is an object, add 1 to all" in message


@pytest.mark.parametrize("zoom", [2, 4])
def test_folder_masks_with_soft_edges_are_refused(tmp_path, zoom):
    """A mask that was resized has a few grey values between 0 and 255."""
    soft = Image.fromarray(((discs(9) > 0) * 255).astype(np.uint8)).resize((96 * zoom,) * 2, Image.Resampling.BILINEAR)
    values = np.asarray(soft).round(-1 if zoom == 4 else 0)
    assert len(np.unique(values)) > 3
    assert "smeared" in refusal(lambda: Folder.open(write(tmp_path, [np.minimum(values, 255).astype(np.uint8)])))


def test_folder_thin_classes_stay_classes(tmp_path):
    """Inside, border and neighbourhood of a cell, as for a U-Net; lines of one pixel."""
    cells = discs(9)
    border = (cells > 0) & (ndimage.minimum_filter(cells, 3) == 0)
    around = (cells == 0) & (ndimage.maximum_filter(cells, 3) > 0)
    labels = np.select([border, around, cells > 0], [2, 3, 1]).astype(np.uint8)
    assert Folder.open(write(tmp_path / "a", [labels])).labels.coding == "class"
    lines = np.full((40, 40), 3)
    lines[::5], lines[:, ::7] = 1, 2
    assert Folder.open(write(tmp_path / "b", [lines.astype(np.uint8)])).labels.coding == "class"
    assert Folder.open(write(tmp_path / "c", [colored(lines, COLORS)])).labels.coding == "color"


def test_folder_parts_of_which_images_lack_some_are_not_guessed(tmp_path):
    """The parts of a car: 18 classes of one patch and of similar size; each image shows other ones."""
    labels = []
    for seed in range(8):
        shown = np.random.default_rng(seed).random(19) < 0.75
        parts = np.kron(np.arange(1, 19).reshape(3, 6), np.pad(np.ones((9, 9), int), 2))
        labels.append(np.where(shown[parts], parts, 0).astype(np.uint8))
    message = refusal(lambda: Folder.open(write(tmp_path / "parts", labels)))
    assert "'coding: instance'" in message and "'coding: class'" in message
    same = [discs(24, seed=seed).astype(np.uint8) for seed in range(6)]
    assert "'coding: class'" in refusal(lambda: Folder.open(write(tmp_path / "same", same)))


@pytest.mark.parametrize("where", ["labels", "classes"])
def test_folder_classes_in_colours_are_not_taken_for_red(tmp_path, where):
    colors = colored(scenes(1, [1, 2])[0], COLORS)
    if where == "labels":
        home = write(tmp_path, [colors], coding="class")
    else:
        home = write(write(tmp_path, [discs(5, 48).astype(np.uint8)]), [colors], folder="classes")
    assert "colours instead of grey values" in refusal(lambda: Folder.open(home)[0])


def test_folder_many_classes_of_one_patch_are_not_guessed(tmp_path):
    """A face: the same classes in each image, from large to small."""
    labels = np.zeros((128, 128), np.int32)
    for value in range(1, 13):
        size = 3 + 4 * value
        row, column = divmod(value - 1, 4)
        labels[42 * row : 42 * row + min(size, 40), 32 * column : 32 * column + min(size // 4, 30)] = value
    message = refusal(lambda: Folder.open(write(tmp_path, [labels.astype(np.uint8)] * 5)))
    assert "'coding: instance'" in message and "'coding: class'" in message


def test_folder_named_classes_are_not_instances(tmp_path):
    names = {0: "ground", **{value: f"class {value}" for value in range(1, 25)}}
    assert Folder.open(write(tmp_path, [discs(24).astype(np.uint8)], labels=names)).labels.coding == "class"


def smear(labels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(labels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("colors", [False, True])
def test_folder_labels_smeared_by_jpeg_are_refused(tmp_path, colors):
    labels = (scenes(1, [1, 2, 3], 96)[0] * 80).astype(np.uint8)
    labels = np.stack([labels, 255 - labels, labels // 2], -1) if colors else labels
    home = write(tmp_path / "a", [smear(labels, 60)])
    assert "too many values to be labels" in refusal(lambda: Folder.open(home))
    home = write(tmp_path / "b", [labels], ".jpg")
    message = refusal(lambda: Folder.open(home))
    assert "JPEG" in message and "PNG" in message


def test_folder_resized_labels_are_refused(tmp_path):
    small = Image.fromarray((scenes(1, [1, 2, 3, 4])[0] * 50).astype(np.uint8))
    home = write(tmp_path, [np.asarray(small.resize((211, 211), Image.Resampling.BICUBIC))])
    assert "too many values to be labels" in refusal(lambda: Folder.open(home))


@pytest.mark.parametrize("how", ["JPEG", "smaller", "larger"])
@pytest.mark.parametrize("labels", [terrain([*range(6)], 0), discs(6)], ids=["classes", "instances"])
def test_folder_few_low_values_that_were_interpolated_are_refused(tmp_path, labels, how):
    """Between 0 and 5 appear 1 to 4, which are classes, too."""
    image = Image.fromarray(labels.astype(np.uint8))
    side = {"smaller": 70, "larger": 150}.get(how, 96)
    resized = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
    home = write(tmp_path, [smear(np.asarray(image), 90) if how == "JPEG" else resized])
    assert "smeared them" in (message := refusal(lambda: Folder.open(home))) and "'coding: class'" in message
    (home / "classes.yaml").write_text("coding: class\n")
    assert Folder.open(home).labels.coding == "class"


COLORS = {0: (0, 0, 0), 1: (128, 64, 128), 2: (0, 0, 142), 3: (70, 130, 180), 4: (0, 255, 0), 5: (255, 0, 0)}


def hex_name(value: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*COLORS[value])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize("values", [[1, 2, 3, 4, 5], [4, 5]])
def test_folder_recognizes_colors(tmp_path, mode, values):
    labels = scenes(3, values)
    write(tmp_path, [colored(pixels, COLORS) for pixels in labels])
    for index, path in enumerate(sorted((tmp_path / "labels").iterdir()) if mode != "RGB" else ()):
        image = Image.open(path).convert(mode)
        if mode == "P":  # a palette in another order for each image
            image = Image.fromarray(((labels[index] + index) % 6).astype(np.uint8), "L")
            image.putpalette([channel for i in range(6) for channel in COLORS[(i - index) % 6]])
        image.save(path)
    data = Folder.open(tmp_path)
    assert data.labels.coding == "color"
    assert {name for name, _ in categories(data)} == {hex_name(value) for value in [0, *values]}
    for sample, pixels in zip(data, labels, strict=True):
        areas = {s.name: s.area for s in sample.panoptic.segments}
        assert areas == {hex_name(v): int((pixels == v).sum()) for v in np.unique(pixels).tolist()}
    (tmp_path / "classes.yaml").write_text(str(data.labels))
    assert Folder.open(tmp_path).labels == data.labels


def test_folder_declared_colors(tmp_path):
    labels = scenes(2, [1, 2])
    colors = {"void": [0, 0, 0], "road": [128, 64, 128], "car": "#00008e"}
    home = write(tmp_path, [colored(pixels, COLORS) for pixels in labels], colors=colors, things=["car"])
    data = Folder.open(home)
    assert categories(data) == [("road", False), ("car", True)]
    segments = data[0].panoptic.segments
    assert len([s for s in segments if s.name == "car"]) == 3
    assert (data[0].panoptic.segmentation == 0).sum() == (labels[0] == 0).sum()
    assert Folder.open(write(tmp_path, [], **yaml.safe_load(str(data.labels)))).labels == data.labels
    del colors["car"]
    write(tmp_path, [], colors=colors)
    data = Folder.open(tmp_path)
    assert "colour [0, 0, 142] is not in colors" in refusal(lambda: data[0])


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ({"colors": {"road": [1, 2]}}, "correct road"),
        ({"colors": {"road": [1, 2, 256]}}, "correct road"),
        ({"colors": ["road"]}, "road: [128, 64, 128]"),
        ({"colors": {"road": [1, 2, 3], "car": [1, 2, 3]}}, "colour of another class"),
        ({"colors": {"road": [1, 2, 3]}, "labels": {1: "road"}}, "instead of labels"),
        ({"colors": {"road": [1, 2, 3]}, "coding": "class"}, "coding: color"),
        ({"label_name": "_mask"}, 'label_name: "*_mask"'),
        ({"label_nam": "*_mask"}, "label_name"),
    ],
)
def test_folder_rejects_invalid_colors_and_names(tmp_path, declared, says):
    message = refusal(lambda: Folder.open(write(tmp_path, scenes(1, [1]), ".tif", **declared)))
    assert says in message and "classes.yaml" in message


def random_colors(labels: np.ndarray, seed: int) -> np.ndarray:
    colors = np.random.default_rng(seed).integers(30, 256, (labels.max() + 1, 3)).astype(np.uint8)
    colors[0] = 0
    return colors[labels]


def test_folder_instances_in_random_colors(tmp_path):
    images = [random_colors(discs(count, seed=count), count) for count in (12, 17, 9)]
    data = Folder.open(write(tmp_path, images))
    assert data.labels.coding == "instance"
    assert [len(sample.panoptic.things) for sample in data] == [12, 17, 9]
    message = refusal(lambda: Folder.open(write(tmp_path / "one", images[:1])))
    assert "'coding: color'" in message and "'coding: instance'" in message and "coco:" in message


@pytest.mark.parametrize(("count", "side"), [(20, 96), (300, 240)])
def test_folder_objects_numbered_in_red_and_green_are_no_classes(tmp_path, count, side):
    """Numbers as R + 256 G: below 256, green says nothing."""
    ids = [discs(count + seed, side=side, seed=seed) for seed in range(3)]
    home = write(tmp_path, [np.stack([n % 256, n // 256, 0 * n], -1).astype(np.uint8) for n in ids])
    assert "'coding: instance'" in refusal(lambda: Folder.open(home))
    (home / "classes.yaml").write_text("coding: instance\n")
    assert [len(sample.panoptic.things) for sample in Folder.open(home)] == [count, count + 1, count + 2]


def test_folder_grey_with_constant_alpha_is_grey(tmp_path):
    labels = [np.stack([pixels, np.full_like(pixels, 255)], -1).astype(np.uint8) for pixels in scenes(2, [1, 2])]
    data = Folder.open(write(tmp_path, labels))
    assert data.labels.coding == "class" and len(data.taxonomy) == 3


def test_folder_cityscapes_ids_in_colors_with_low_values(tmp_path):
    """7 is a class without instance, 26001 and 26002 are two cars; red and green do not number objects."""
    ids = np.select([discs(2) == 1, discs(2) == 2], [26001, 26002], 7)
    data = Folder.open(write(tmp_path, [np.stack([ids % 256, ids // 256, 0 * ids], -1).astype(np.uint8)]))
    assert data.labels.coding == "class*1000+id"
    assert categories(data) == [("7", False), ("26", True)]


def test_folder_class_images_beside_instance_images(tmp_path):
    labels = [discs(count, seed=count) for count in (5, 8)]
    classes = [np.where(pixels > 0, 1 + pixels % 2, 0) for pixels in labels]
    classes[0][:2] = 4  # stuff
    write(tmp_path, [pixels.astype(np.uint16) for pixels in labels], ".tif")
    write(tmp_path, [pixels.astype(np.uint8) for pixels in classes], folder="classes")
    data = Folder.open(tmp_path)
    assert categories(data) == [("0", False), ("1", True), ("2", True), ("4", False)]
    assert [s.name for s in data[0].panoptic.things] == ["1", "1", "2", "2", "2"]
    (tmp_path / "classes.yaml").write_text("labels: {0: background, 1: tumour, 2: stroma, 4: border}\n")
    assert Folder.open(tmp_path)[1].panoptic.things[0].name == "tumour"
    classes[0][classes[0] == 2] = np.arange((classes[0] == 2).sum()) % 2 + 1
    write(tmp_path, [classes[0].astype(np.uint8)], folder="classes")
    assert "more than one class" in refusal(lambda: Folder.open(tmp_path)[0])
    (tmp_path / "classes/1.png").unlink()
    assert "has '1' but" in refusal(lambda: Folder.open(tmp_path))


def test_read_label_image_tiff_forms(tmp_path):
    labels = discs(9).astype(np.uint16)
    path = tmp_path / "a.tif"
    for options in (
        {"byteorder": ">"},
        {"compression": "zlib"},
        {"bigtiff": True, "tile": (32, 32)},
        {"imagej": True},
        {"ome": True},
        {"shaped": False, "rowsperstrip": 5},
    ):
        tifffile.imwrite(path, labels, **options)
        assert np.array_equal(read_label_image(path), labels), options
    tifffile.imwrite(path, labels[None, None], imagej=True, metadata={"axes": "ZCYX"})
    assert np.array_equal(read_label_image(path), labels)
    Image.fromarray(labels).save(path, compression="tiff_lzw")
    assert np.array_equal(read_label_image(path), labels), "a compression that tifffile reads with another library"
    colors = random_colors(discs(9), 0)
    for planar in ("contig", "separate"):
        content = colors if planar == "contig" else np.moveaxis(colors, 2, 0)
        tifffile.imwrite(path, content, photometric="rgb", planarconfig=planar)
        assert np.array_equal(read_label_image(path), colors)


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (np.full((8, 8), 0.5, np.float32), "whole numbers"),
        (np.full((8, 8), np.nan, np.float32), "no number (NaN)"),
        (np.full((8, 8), -3, np.int16), "whole numbers"),
        (np.full((8, 8), 1j, np.complex64), "whole numbers"),
        (np.zeros((5, 8, 8), np.uint8), "several planes (5 x 8 x 8)"),
    ],
)
def test_read_label_image_rejects(tmp_path, pixels, says):
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    message = refusal(lambda: read_label_image(tmp_path / "a.tif"))
    assert says in message and "a.tif" in message
    (tmp_path / "a.tif").write_bytes(b"II*\0 damaged")
    assert "cannot be read as TIFF" in refusal(lambda: read_label_image(tmp_path / "a.tif"))


def test_folder_of_another_use_called_classes_changes_no_class_images(tmp_path):
    labels = [pixels.astype(np.uint8) for pixels in scenes(2, [1, 2])]
    write(write(tmp_path, labels, coding="class"), [255 - pixels for pixels in labels], folder="classes")
    data = Folder.open(tmp_path)
    assert [name for name, _ in categories(data)] == ["0", "1", "2"]
    assert len(data[0].panoptic.segments) == 3


def test_folder_objects_with_void_border_are_not_guessed(tmp_path):
    """As in Pascal VOC's SegmentationObject: objects from 1, and 255 between them and the background."""
    labels = [discs(count, seed=count) for count in (2, 4, 3)]
    labels = [np.where(np.roll(pixels, 1, 0) != pixels, 255, pixels).astype(np.uint8) for pixels in labels]
    message = refusal(lambda: Folder.open(write(tmp_path, labels)))
    assert "'coding: instance'" in message and "'coding: class'" in message
    (tmp_path / "classes.yaml").write_text("coding: instance\nvoid: 255\n")
    assert [len(sample.panoptic.things) for sample in Folder.open(tmp_path)] == [2, 4, 3]


def test_folder_few_ids_that_differ_between_images_are_not_guessed(tmp_path):
    labels = [np.where(discs(4) > 0, discs(4) * 50 + seed * 7, 0).astype(np.uint8) for seed in range(4)]
    assert "other ones in each image" in refusal(lambda: Folder.open(write(tmp_path, labels)))


@pytest.mark.parametrize("counts", [(1, 4, 9), (2, 3, 4, 5), (7,)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_folder_few_instances_of_which_one_was_deleted_are_not_guessed(tmp_path, counts, dtype):
    labels = [discs(count, seed=count) for count in counts]
    labels[-1][labels[-1] == 2] = 0
    message = refusal(lambda: Folder.open(write(tmp_path, [pixels.astype(dtype) for pixels in labels], ".tif")))
    assert "'coding: instance'" in message and "'coding: class'" in message


def test_labels_open_refuses_aliases_in_classes_yaml(tmp_path):
    lines = ["a0: &a0 [x, x]", *(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]" for k in range(1, 40))]
    (tmp_path / "classes.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"classes\.yaml has an anchor or alias"):
        Labels.open(tmp_path, [])


def cut(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Instances of which a share has two patches: another one of the size of an instance is added to it."""
    rng = np.random.default_rng(seed)
    count = int(labels.max())
    kept = round(count / (1 + share))
    numbers = np.concatenate([np.arange(1, kept + 1), rng.choice(np.arange(1, kept + 1), count - kept, replace=False)])
    return np.concatenate([[0], rng.permutation(numbers)])[labels]


def renumbered(labels: np.ndarray, seed: int, highest: int = 0, first: int = 1) -> np.ndarray:
    """The instances with other numbers, in ascending order: some from `first` to `highest`, or all from `first`."""
    count = int(labels.max())
    numbers = np.arange(first, first + count)
    if highest:
        numbers = np.sort(np.random.default_rng(seed).permutation(np.arange(first, highest + 1))[:count])
    return np.concatenate([[0], numbers])[labels]


def filling(count: int, seed: int, lines: bool) -> np.ndarray:
    """Cells side by side, numbered from 1, with lines of 0 between them or without any 0."""
    points = np.random.default_rng(seed).uniform(0, 96, (count, 2))
    places = np.stack(np.mgrid[:96, :96], -1)[:, :, None]
    cells = ((places - points) ** 2).sum(-1).argmin(-1) + 1
    return np.where(ndimage.maximum_filter(cells, 3) != ndimage.minimum_filter(cells, 3), 0, cells) if lines else cells


def stack(count: int, slices: int = 6) -> list[np.ndarray]:
    """Slices whose numbers go on from slice to slice."""
    return [renumbered(discs(count, seed=z), z, first=1 + z * count) for z in range(slices)]


def tracks(count: int, frames: int = 6) -> list[np.ndarray]:
    """The same cells at about the same place in all frames."""
    return [np.roll(discs(count, pitch=16), frame, 1) for frame in range(frames)]


INSTANCES = {
    "a third in two patches": [cut(discs(count, seed=count), 0.33, count) for count in (40, 28, 52, 33)],
    "a third in two patches, one image": [cut(discs(40), 0.33, 0)],
    "most in two patches": [cut(discs(count, seed=count), 0.6, count) for count in (40, 28, 52, 33)],
    "few in two patches": [cut(discs(count, seed=count), 0.5, count) for count in (5, 7, 4)],
    "few in two patches, one image": [cut(discs(6), 0.5, 0)],
    "filtered": [renumbered(discs(20 + seed, seed=seed), seed, highest=40) for seed in range(6)],
    "filtered, a third in two patches": [
        renumbered(cut(discs(24 + seed, seed=seed), 0.33, seed), seed, highest=50) for seed in range(6)
    ],
    "random numbers of 8 bits": [renumbered(discs(15, seed=seed), seed, highest=255) for seed in range(6)],
    "random numbers, a third in two patches": [
        renumbered(cut(discs(15, seed=seed), 0.33, seed), seed, highest=255) for seed in range(6)
    ],
    "random numbers of 16 bits, a third in two patches": [
        renumbered(cut(discs(15, seed=seed), 0.33, seed), seed, highest=60000) for seed in range(6)
    ],
    "side by side": [filling(count, count, False) for count in (20, 31, 16, 25)],
    "side by side, few": [filling(count, count, False) for count in (5, 8, 4, 6)],
    "side by side, one image": [filling(7, 0, False)],
    "side by side with lines": [filling(count, count, True) for count in (20, 31, 16, 25)],
    "numbered through a stack": stack(20),
    "few, numbered through a stack": stack(3),
    "a stack, a third in two patches": [cut(labels, 0.33, 0) for labels in stack(20)[:1]] + stack(20)[1:],
    "tracks": tracks(20),
    "few tracks": tracks(3),
    "from 2": [renumbered(discs(count, seed=count), 0, first=2) for count in (14, 25, 18)],
    "from 100": [renumbered(cut(discs(count, seed=count), 0.5, 0), 0, first=100) for count in (5, 7, 4)],
    "one in each image, numbered through": [discs(1, 24, seed) * (seed + 1) for seed in range(8)],
    "spread up to 255": [discs(count, seed=count) * (255 // count) for count in (5, 3, 15, 17)],
    "spread up to 255, a third in two patches": [
        np.round(labels * 255 / labels.max()).astype(int)
        for labels in (cut(discs(count, seed=count), 0.33, count) for count in (8, 6, 9))
    ],
    "in many patches near each other": [
        np.where(np.arange(96)[:, None] % 6 == 0, 0, filling(20, seed, False)) for seed in range(4)
    ],
    "the same 8 in groups": [filling(8, seed, False) * (terrain([0, 1], seed, 8) > 0) for seed in range(4)],
    "8, 16, 24, the same few": [discs(6 + seed, seed=seed) * 8 for seed in range(4)],
    "on a background of 1": [discs(count, seed=count) + 1 for count in (3, 6, 4)],
}


@pytest.mark.parametrize("kind", INSTANCES)
def test_folder_instances_never_become_classes(tmp_path, kind):
    """Whatever is not certain is refused with the line that makes it right."""
    images = INSTANCES[kind]
    write(tmp_path, [labels.astype(np.uint8 if labels.max() < 256 else np.uint16) for labels in images])
    try:
        data = Folder.open(tmp_path)
    except InputError as error:
        assert "'coding: instance' (0 is background, each other value is one object)" in str(error)
        (tmp_path / "classes.yaml").write_text("coding: instance\n")
        data = Folder.open(tmp_path)
    assert data.labels.coding == "instance"
    counts = [len(np.unique(labels[labels > 0])) for labels in images]
    assert [len(sample.panoptic.things) for sample in data] == counts


@pytest.mark.parametrize("kind", ["a third in two patches", "most in two patches", "random numbers of 8 bits"])
def test_folder_instances_that_are_certain_are_read(tmp_path, kind):
    data = Folder.open(write(tmp_path, [labels.astype(np.uint8) for labels in INSTANCES[kind]]))
    assert data.labels.coding == "instance"
    ends = [int(labels.max()) for labels in INSTANCES[kind]]
    said = "each value is one patch" if "random" in kind else f"without a gap, up to {min(ends)} to {max(ends)}"
    assert said in data.labels.assumed[0]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("gap", [False, True])
def test_folder_many_objects_alone_are_certain_in_few_images(tmp_path, count, gap):
    """Of sizes that differ a lot, and some of them deleted."""
    images = []
    for seed in range(count):
        large, small = discs(16, 128, seed, 32), discs(9, 128, seed + 9, 7)
        alone = (small > 0) & (ndimage.maximum_filter(large, 5) == 0)
        present = np.unique(labels := np.where(alone, small + 16, large))[1:]
        numbers = np.zeros(26, np.uint8)
        numbers[present] = np.random.default_rng(seed).permutation(len(present)) + 1
        images.append(np.where(labels == 3, 0, numbers[labels]) if gap else numbers[labels])
    data = Folder.open(write(tmp_path, images))
    assert data.labels.coding == "instance"
    assert [len(sample.panoptic.things) for sample in data] == [len(np.unique(labels)) - 1 for labels in images]


def facade(seed: int) -> np.ndarray:
    """A wall on a street, with windows of one size and doors: few patches, none of them on a background."""
    labels = np.full((96, 96), 1)
    labels[80:] = 2
    for number, place in enumerate(np.random.default_rng(seed).permutation(12).tolist()):
        y, x = 8 + 26 * (place // 4), 6 + 22 * (place % 4)
        labels[y : y + 14, x : x + 10] = 3 + number % 3
    labels[:4] = 0
    return labels


def some(highest: int, count: int, seed: int) -> list[int]:
    """Some of many classes."""
    return np.random.default_rng(seed).permutation(np.arange(1, highest + 1))[:count].tolist()


def street(seed: int) -> np.ndarray:
    """As Cityscapes: 19 classes from 0, and 255 where there is none."""
    labels = terrain([*some(19, 12, seed), 256], seed)
    return labels - 1


def photograph(seed: int, border: bool) -> np.ndarray:
    """As Pascal VOC: one or two of 20 classes, each of one or two objects, with 255 around them."""
    blobs = discs(3, 96, seed, pitch=32)
    classes = np.array([0, *np.random.default_rng(seed).permutation(np.tile(some(20, 2, seed), 2))[:3]])[blobs]
    edge = ndimage.maximum_filter(blobs, 3) != ndimage.minimum_filter(blobs, 3)
    return np.where(edge, 255, classes) if border else classes


CLASSES = {
    "two in patches": [terrain([0, 1, 2], seed) for seed in range(3)],
    "7 kinds of land, large": [terrain(some(7, 4, seed), seed, 14) for seed in range(8)],
    "land in tens": [terrain([*range(10, 110, 10)], seed) for seed in range(3)],
    "land of four digits": [terrain([1110, 1120, 1210, 2110, 3120], seed) for seed in range(3)],
    "a clip of land": [np.roll(terrain([0, 1, 2], 3), step, 1) for step in range(4)],
    "one facade": [facade(0)],
    "two facades": [facade(0), facade(1)],
    "40 in one image": [terrain([*range(40)], 0)],
    "150 of which an image has 12": [terrain([0, *some(150, 12, seed)], seed) for seed in range(8)],
    "one image of 150": [terrain([0, *some(150, 12, 0)], 0)],
    "a street": [street(seed) for seed in range(6)],
    "photographs with borders": [photograph(seed, True) for seed in range(12)],
    "photographs": [photograph(seed, False) for seed in range(20)],
}


@pytest.mark.parametrize("kind", CLASSES)
def test_folder_classes_that_are_certain_are_read(tmp_path, kind):
    images = CLASSES[kind]
    dtype = np.uint8 if max(labels.max() for labels in images) < 256 else np.uint16
    data = Folder.open(write(tmp_path, [labels.astype(dtype) for labels in images]))
    assert data.labels.coding == "class"
    found = np.unique(np.concatenate([np.unique(labels) for labels in images]))
    assert [name for name, _ in categories(data)] == [str(value) for value in found if value != 255]


def test_folder_specks_beside_instances_say_nothing(tmp_path):
    images = [discs(count, seed=count) for count in (20, 31, 12)]
    for labels in images:
        labels[::12, ::12] = np.arange(1, 65).reshape(8, 8) % (labels.max() + 1)
    assert Folder.open(write(tmp_path, [labels.astype(np.uint8) for labels in images])).labels.coding == "instance"


@pytest.mark.parametrize(
    ("line", "things"), [("things: [2]", [3, 5]), ("things: [1]", [1, 1]), ("coding: class", [0, 0])]
)
def test_folder_masks_of_1_and_2_are_not_guessed(tmp_path, line, things):
    home = write(tmp_path, [((discs(count) > 0) + 1).astype(np.uint8) for count in (3, 5)])
    assert f"'{line}'" in refusal(lambda: Folder.open(home))
    (home / "classes.yaml").write_text(line)
    assert [len(sample.panoptic.things) for sample in Folder.open(home)] == things


def test_folder_full_thousands_are_not_guessed(tmp_path):
    home = write(tmp_path, [(labels * 1000).astype(np.uint16) for labels in scenes(3, [1, 2, 3])])
    message = refusal(lambda: Folder.open(home))
    assert "all full thousands" in message
    assert all(f"'coding: {coding}'" in message for coding in ("instance", "class*1000+id", "class"))


def test_folder_instances_in_colours_never_become_classes(tmp_path):
    """In random colours, and in those of a table, as DAVIS; a third has two patches, or there is one in each image."""
    ids = [cut(discs(count, seed=count), 0.33, count) for count in (15, 22, 9, 18)]
    table = np.random.default_rng(0).integers(30, 256, (30, 3)).astype(np.uint8) * (np.arange(30)[:, None] > 0)
    sets = {
        "random": [random_colors(labels, seed) for seed, labels in enumerate(ids)],
        "table": [table[labels].astype(np.uint8) for labels in ids],
        "few": [random_colors(discs(2, seed=seed), seed) for seed in range(4)],
        "one": [random_colors(discs(1, seed=seed), seed) for seed in range(4)],
    }
    for name, images in sets.items():
        message = refusal(lambda: Folder.open(write(tmp_path / name, images)))  # noqa: B023
        assert "'coding: instance'" in message and "'coding: color'" in message, name


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_folder_classes_in_one_channel_of_colours_are_not_guessed(tmp_path, channel):
    """One channel is the class, and the two others the number of the object, as in the simulator CARLA."""
    images = []
    for seed in range(3):
        objects = discs(5, seed=seed)
        kinds = np.where(objects > 0, 12 + objects % 3, terrain([1, 2, 8, 9], seed))
        number = np.where(objects > 0, 300 + 500 * seed + 37 * objects, 0)
        channels = [number % 256, number // 256]
        images.append(np.stack([*channels[:channel], kinds, *channels[channel:]], -1).astype(np.uint8))
    message = refusal(lambda: Folder.open(write(tmp_path, images)))
    assert "one channel has only low numbers" in message and "save class * 1000 + number" in message
    assert "'coding: color'" in message and "'coding: instance'" in message


def test_folder_photographs_in_colours_are_classes(tmp_path):
    table = np.random.default_rng(0).integers(30, 256, (21, 3)).astype(np.uint8) * (np.arange(21)[:, None] > 0)
    images = [table[photograph(seed, False)].astype(np.uint8) for seed in range(20)]
    assert Folder.open(write(tmp_path, images)).labels.coding == "color"


def test_folder_colours_that_are_nearly_the_same_are_said(tmp_path):
    table = np.array([[0, 0, 0], [128, 64, 128], [10, 200, 40]], np.uint8)
    images = [table[terrain([0, 1, 2], seed)] for seed in range(2)]
    assert "nearly the same" not in str(Folder.open(write(tmp_path / "a", images)).labels)
    images[1][..., 0] = np.where(images[1][..., 0] == 128, 127, images[1][..., 0])
    said = Folder.open(write(tmp_path / "b", images)).labels.assumed[0]
    assert "#7f4080 and #804080 are nearly the same" in said


@pytest.mark.parametrize(("first", "coding"), [(1, "class*256+id"), (0, "class*256+id from 0")])
def test_folder_class_times_256(tmp_path, first, coding):
    """As in the instance images of KITTI, which count from 1, and of Mapillary Vistas, which count from 0."""
    ids = [discs(count, seed=count) - 1 for count in (20, 24, 18)]
    coded = [np.where(n >= 0, (24 + n % 3) * 256 + n // 3 + first, 7 * 256).astype(np.uint16) for n in ids]
    data = Folder.open(write(tmp_path, coded))
    assert data.labels.coding == coding
    assert categories(data) == [("7", False), ("24", True), ("25", True), ("26", True)]
    assert [len(sample.panoptic.things) for sample in data] == [20, 24, 18]
    (tmp_path / "classes.yaml").write_text("coding: instance\nvoid: 1792\n")
    assert [len(sample.panoptic.things) for sample in Folder.open(tmp_path)] == [20, 24, 18]


def test_folder_class_times_256_without_number(tmp_path):
    """Number 0 is a crowd of a thing class where objects count from 1, and an object where they count from 0."""
    labels = np.array([[0, 0, 26 * 256, 26 * 256 + 1, 7 * 256, 5]] * 4, np.uint16)
    data = Folder.open(write(tmp_path, [labels], coding="class*256+id"))
    assert [(s.name, s.isthing, s.iscrowd) for s in data[0].panoptic.segments] == [
        ("7", False, False), ("26", True, True), ("26", True, False)
    ]  # fmt: skip
    data = Folder.open(write(tmp_path, [labels[:, 2:5]], coding="class*256+id from 0"))
    assert [(s.name, s.iscrowd) for s in data[0].panoptic.segments] == [("7", False), ("26", False), ("26", False)]


def test_folder_number_times_1000_and_class_is_not_guessed(tmp_path):
    """As MMDetection writes it: land has low values and several patches, each object one high value and one patch."""
    coded = []
    for seed in range(4):
        objects = discs(5 + seed, seed=seed)
        coded.append(np.where(objects > 0, (objects // 2 + 1) * 1000 + 24 + objects % 2, terrain([7, 8, 11], seed)))
    message = refusal(lambda: Folder.open(write(tmp_path, [labels.astype(np.uint16) for labels in coded])))
    assert "'coding: class' (" in message and "'coding: instance' (" in message


def coded(count: int, seed: int, base: int, *, first: str = "class") -> np.ndarray:
    """`count` objects of the classes 1, 2 and 3, each numbered from 1 in its class, on land of the classes 4 and 5."""
    objects = discs(count, 240, seed, pitch=8)
    classes, numbers = 1 + objects % 3, (objects + 2) // 3
    high, low = (classes, numbers) if first == "class" else (numbers, classes)
    land = np.kron(terrain([4, 5], seed), np.ones((3, 3), int))[:240, :240]
    return np.where(objects > 0, high * base + low, land)


@pytest.mark.parametrize("base", [10_000, 1_000_000])
def test_folder_class_times_10000_is_not_taken_for_1000(tmp_path, base):
    """Where ten times larger classes fit as well, nothing is guessed; numbers above 999 are certain."""
    counts = (24, 36, 15)
    home = write(tmp_path, [coded(n, n, base).astype(np.int32) for n in counts], ".tif")
    message = refusal(lambda: Folder.open(home))
    assert "'coding: class*1000+id' (" in message
    assert f"'coding: class*{base}+id' (class * {base} + number of the object)" in message
    (home / "classes.yaml").write_text(f"coding: class*{base}+id\n")
    data = Folder.open(home)
    assert categories(data) == [("1", True), ("2", True), ("3", True), ("4", False), ("5", False)]
    assert [len(sample.panoptic.things) for sample in data] == [*counts]


def test_folder_class_times_10000_with_numbers_above_999_is_certain(tmp_path):
    many = np.zeros((100, 200), np.int32)
    many[::2, ::2] = np.arange(1, 5001).reshape(50, 100)
    many = np.kron(many, np.ones((3, 3), int))
    images = [np.where(many > 0, 20_000 + many, 0), np.where(many > 4000, 10_000 + many - 4000, 0)]
    data = Folder.open(write(tmp_path / "many", [labels.astype(np.int32) for labels in images], ".tif"))
    assert data.labels.coding == "class*10000+id"
    assert [len(sample.panoptic.things) for sample in data] == [5000, 1000]


@pytest.mark.parametrize("base", [256, 1000])
def test_folder_number_before_class(tmp_path, base):
    """As MMDetection writes it."""
    counts = (45, 72, 60)
    data = Folder.open(write(tmp_path, [coded(n, n, base, first="id").astype(np.uint16) for n in counts]))
    assert data.labels.coding == f"id*{base}+class"
    assert categories(data) == [("1", True), ("2", True), ("3", True), ("4", False), ("5", False)]
    assert [len(sample.panoptic.things) for sample in data] == [*counts]


@pytest.mark.parametrize("base", [10, 100, 255])
def test_folder_objects_beside_land_are_no_classes(tmp_path, base):
    """Values below 1000 that are a class and a number: land of many patches does not hide that most are one patch."""
    home = write(tmp_path, [coded(n, n, base).astype(np.uint16) for n in (24, 21, 18)])
    assert "'coding: instance' (" in (message := refusal(lambda: Folder.open(home)))
    assert base != 100 or "'coding: class*100+id' (" in message


def test_folder_class_times_256_that_may_begin_at_0_or_1_is_not_guessed(tmp_path):
    """Of two classes, one counts from 0 and the other from 1."""
    ids = [discs(count, seed=count) for count in (20, 24, 18)]
    coded = [np.where(n > 0, (24 + n % 2) * 256 + n // 2, 7 * 256).astype(np.uint16) for n in ids]
    message = refusal(lambda: Folder.open(write(tmp_path, coded)))
    assert "'coding: class*256+id' (" in message and "'coding: class*256+id from 0' (" in message


def test_folder_void_of_instances_are_numbers(tmp_path):
    """1 is a number too, and not the class of all objects."""
    labels = discs(6).astype(np.uint8)
    data = Folder.open(write(tmp_path, [labels + 1], coding="instance", void=1))
    assert categories(data) == [("background", False), ("object", True)]
    assert [len(sample.panoptic.things) for sample in data] == [6]
    assert ((data[0].panoptic.segmentation == 0) == (labels == 0)).all()
    (tmp_path / "classes.yaml").write_text(str(data.labels))
    assert Folder.open(tmp_path).labels == data.labels


def test_folder_more_objects_than_8_bits_hold_are_refused(tmp_path):
    home = write(tmp_path, [(discs(700, 240, pitch=8) % 256).astype(np.uint8)])
    assert "more than 255 objects were saved with 8 bits" in refusal(lambda: Folder.open(home))
    (home / "classes.yaml").write_text("coding: instance\n")
    assert len(Folder.open(home)[0].panoptic.things) == 255


@pytest.mark.parametrize("value", [1, 7, 255])
def test_folder_images_of_one_value_without_0(tmp_path, value):
    home = write(tmp_path, [np.full((9, 9), value, np.uint8)] * 3)
    if value == 255:
        assert "'void: []' (255 is a class)" in refusal(lambda: Folder.open(home))
    else:
        assert categories(Folder.open(home)) == [(str(value), False)]


def organs(values: list[int], seed: int, share: float = 1) -> np.ndarray:
    """A slice of an atlas: regions at the same places in all slices, of which each slice lacks some."""
    middles = np.random.default_rng(0).uniform(6, 90, (len(values), 2))
    rng = np.random.default_rng(seed + 1)
    shown = rng.random(len(values)) < share
    places = np.stack(np.mgrid[:96, :96], -1)[:, :, None]
    nearest = ((places - middles - rng.normal(0, 3, middles.shape)) ** 2).sum(-1).argmin(-1)
    inside = ((places[:, :, 0] - 48) ** 2).sum(-1) < 44**2
    return np.where(inside & shown[nearest], np.array(values)[nearest], 0)


def numbered(count: int, ids: np.ndarray, seed: int, pieces: int) -> np.ndarray:
    """`count` objects of some ids, each in pieces that lie anywhere."""
    rng = np.random.default_rng(seed)
    owners = rng.permutation(np.repeat(np.sort(rng.choice(ids, count, replace=False)), pieces))
    return np.concatenate([[0], owners])[discs(count * pieces, seed=seed)]


SUBCORTICAL = [2, 3, 4, 5, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 26, 28, 41, 42, 43, 44, 46, 47, 49, 50, 51, 52]
CORTEX = [2, 41, *(side + n for side in (1000, 2000) for n in range(1, 36) if n != 4)]
SPARSE = np.arange(3, 240, 2)
ATLASES = {
    "few large ids": [organs([2, 41, 1002], seed) for seed in range(4)],
    "few large ids, of both sides": [organs([2, 41, 1001, 2001], seed) for seed in range(3)],
    "few large ids, one slice": [organs([2, 41, 1002], 0)],
    "subcortical": [organs([*SUBCORTICAL, 251, 252, 253, 254, 255], seed, 0.5) for seed in range(3)],
    "cortex": [organs(CORTEX, seed, 0.5) for seed in range(4)],
    "cortex, nearly all": [organs(CORTEX, seed, 0.95) for seed in range(3)],
    "cortex, one slice": [organs(CORTEX, 0, 0.9)],
    "ids of millions": [organs([*range(7, 900, 40), *range(182305689, 182305789, 5)], seed, 0.5) for seed in range(4)],
    "sparse in three": [numbered(12, SPARSE, seed, 1) for seed in range(3)],
    "sparse in one": [numbered(20, SPARSE * 9, 0, 1)],
    "parts of one body, one image": [filling(12, 0, False) * (discs(1, 96, 0, 96) > 0)],
    "sparse, some return": [numbered(6, SPARSE[::3] * 9, seed, 1) for seed in range(6)],
}


@pytest.mark.parametrize("kind", ATLASES)
def test_folder_atlases_never_become_instances(tmp_path, kind):
    """Organs of one patch each, whose ids have gaps, are refused with the line that makes them classes."""
    images = ATLASES[kind]
    write(tmp_path, [labels.astype(np.uint32) for labels in images], ".tif")
    message = refusal(lambda: Folder.open(tmp_path))
    assert "'coding: class' (each value is a class)" in message and "'coding: instance'" in message
    found = np.unique(np.concatenate([np.unique(labels) for labels in images]))
    (tmp_path / "classes.yaml").write_text("coding: class\nvoid: []\n")
    assert [name for name, _ in categories(Folder.open(tmp_path))] == [str(value) for value in found]
    names = {int(value): f"region {value}" for value in found}
    (tmp_path / "classes.yaml").write_text(yaml.safe_dump({"labels": names, "void": []}))
    assert Folder.open(tmp_path).labels.coding == "class", "all values are named"


def test_folder_255_beside_254_is_not_guessed(tmp_path):
    home = write(tmp_path, [organs([251, 252, 253, 254, 255], 0).astype(np.uint8)], coding="class")
    assert "'void: []' (255 is a class)" in refusal(lambda: Folder.open(home))


def slices(count: int, seed: int, depth: int, most: int = 6) -> list[np.ndarray]:
    """Slices of a stack with `count` neurites, each in some pieces of any size, which move little between slices."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:96, :96]
    pieces = [value for value in range(1, count + 1) for _ in range(rng.integers(most // 2, most + 1))]
    places, steps = rng.uniform(8, 88, (len(pieces), 2)), rng.normal(0, 1, (len(pieces), 2))
    radii = np.exp(rng.normal(1.2, 0.5, len(pieces)))
    found = []
    for z in range(depth):
        labels = np.zeros((96, 96), np.int32)
        for value, (y, x), radius in zip(pieces, places + z * steps, radii, strict=True):
            labels[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2] = value
        found.append(labels)
    return found


def nerves(seed: int) -> np.ndarray:
    """10 objects, each in some pieces of different sizes, on a background that is half of the image."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((10, 96, 96)), (0, 6, 6)).max(0)
    kinds = terrain([*range(1, 11)], seed, 6)
    return np.where(noise > np.quantile(noise, 0.55), kinds, 0)


def packed(count: int, pieces: int, seed: int) -> np.ndarray:
    """Objects that fill the image, each in pieces that lie anywhere."""
    owners = np.repeat(np.arange(1, count + 1), pieces)
    return owners[filling(count * pieces, seed, False) - 1]


PIECES = {
    **{f"packed, {n}": [packed(n, 3, seed) for seed in range(3)] for n in (6, 12, 20, 40)},
    "packed, one image": [packed(20, 3, 0)],
    "packed, 6 of many images": [packed(6, 3, seed) for seed in range(6)],
    "packed, 5 pieces": [packed(14, 5, seed) for seed in range(3)],
    "packed, ids of a volume": [
        np.sort(np.random.default_rng(seed).choice(99, 20, replace=False))[packed(20, 3, seed) - 1] + 1
        for seed in range(4)
    ],
    "packed, with membranes": [
        np.where(ndimage.maximum_filter(one, 3) != ndimage.minimum_filter(one, 3), 0, one)
        for one in (packed(12, 4, seed) for seed in range(3))
    ],
    **{f"{n} in each image": [numbered(n, np.arange(1, n + 1), seed, 4) for seed in range(3)] for n in (2, 5, 9, 16)},
    "two images": [numbered(4, np.arange(1, 5), seed, 4) for seed in range(2)],
    **{f"{n} of a stack": slices(n, n, 6) for n in (2, 4, 7)},
    "two slices": slices(3, 0, 2),
    "few of a stack, of one or two pieces": slices(3, 1, 6, 2),
    "few of a stack, with gaps": [np.array([0, 4, 17, 60, 61])[labels] for labels in slices(4, 2, 6, 3)],
    "few of a stack, with ids of 16 bits": [labels * 1003 + (labels > 0) for labels in slices(4, 2, 6)],
    "counted": [numbered(count, np.arange(1, count + 1), count, 4) for count in (5, 4, 3)],
    "counted, one image": [numbered(5, np.arange(1, 6), 0, 4)],
    "other ids in each image": [numbered(8, np.arange(1, 250), seed, 4) for seed in range(4)],
    "ids of a volume": [numbered(8, np.arange(1, 20), seed, 4) for seed in range(4)],
    "ids of 16 bits": [numbered(8, np.arange(1000, 60000), seed, 4) for seed in range(4)],
    "the same ids of 16 bits": [numbered(8, np.arange(1000, 9000, 1000) + 7, seed, 4) for seed in range(4)],
    "uneven, one image": [nerves(0)],
    "uneven": [nerves(seed) for seed in range(3)],
    "more than classes": [
        np.concatenate([[0], np.random.default_rng(0).integers(1, 101, 300)])[discs(300, 240)] for _ in range(2)
    ],
}


@pytest.mark.parametrize("kind", PIECES)
def test_folder_objects_in_far_pieces_never_become_classes(tmp_path, kind):
    """Nerves that a slice cuts several times."""
    images = PIECES[kind]
    home = write(tmp_path, [labels.astype(np.uint16) for labels in images])
    assert "'coding: instance' (0 is background, each other value is one object)" in refusal(lambda: Folder.open(home))
    (home / "classes.yaml").write_text("coding: instance\n")
    counts = [len(np.unique(labels[labels > 0])) for labels in images]
    assert [len(sample.panoptic.things) for sample in Folder.open(home)] == counts


@pytest.mark.parametrize("kind", ["5 in each image", "4 of a stack"])
def test_folder_objects_in_far_pieces_never_become_colours(tmp_path, kind):
    table = np.random.default_rng(0).integers(30, 256, (17, 3)).astype(np.uint8) * (np.arange(17)[:, None] > 0)
    images = [table[labels].astype(np.uint8) for labels in PIECES[kind]]
    message = refusal(lambda: Folder.open(write(tmp_path, images)))
    assert "'coding: instance'" in message and "'coding: color'" in message


def test_folder_cells_of_some_kinds_stay_classes(tmp_path):
    """They are alike, as pieces are, but there are many of each kind, or the same kinds in all images."""
    kinds = [np.concatenate([[0], np.random.default_rng(s).integers(1, 5, 40)])[discs(40, seed=s)] for s in range(3)]
    assert Folder.open(write(tmp_path, [labels.astype(np.uint8) for labels in kinds])).labels.coding == "class"


def pairs(count: int, seed: int, through: bool, stuff: int = 1) -> np.ndarray:
    """Class and number of objects of the classes 2 and 3, `[h, w, 2]`; numbered in each class, or through both."""
    labels, classes = discs(count, seed=seed), 2 + np.arange(count) % 2
    numbers = np.arange(1, count + 1) if through else np.arange(count) // 2 + 1
    return np.stack([np.concatenate([[stuff], classes])[labels], np.concatenate([[0], numbers])[labels]], -1)


@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 2), (np.uint16, 2), (np.uint8, 3)])
def test_folder_swapped_channels_are_refused(tmp_path, through, dtype, channels):
    images = [pairs(count, count, through).astype(dtype) for count in (9, 14, 11)]
    more = [np.zeros((*image.shape[:2], channels - 2), dtype) for image in images]
    home = write(tmp_path / "a", [np.concatenate(both, -1) for both in zip(images, more, strict=True)], ".tif")
    data = Folder.open(home)
    assert data.labels.coding == "two-channel"
    assert [len(sample.panoptic.things) for sample in data] == [9, 14, 11]
    swapped = [np.concatenate([image[..., ::-1], rest], -1) for image, rest in zip(images, more, strict=True)]
    message = refusal(lambda: Folder.open(write(tmp_path / "b", swapped, ".tif")))
    if channels == 2:
        assert "the first channel seems to number the objects" in message and "'coding: two-channel'" in message
    else:
        assert "'coding: instance'" in message and "'coding: color'" in message


def test_folder_two_channels_that_number_nothing_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    noise = np.stack([scenes(1, [1, 2])[0], np.kron(rng.integers(0, 90, (12, 12)), np.ones((4, 4), int))], -1)
    assert "neither of their two channels" in refusal(lambda: Folder.open(write(tmp_path, [noise.astype(np.uint8)])))


def test_folder_two_channels_of_16_bits_have_more_than_255_objects(tmp_path):
    labels = discs(300, 240)
    data = Folder.open(write(tmp_path, [np.stack([1 + (labels > 0), labels], -1).astype(np.uint16)], ".tif"))
    assert data.labels.coding == "two-channel" and len(data[0].panoptic.things) == 300


def test_read_label_image_refuses_tiffs_with_colours_of_16_bits(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((8, 9, 3), 300, np.uint16), photometric="rgb")
    assert "colours of 16 bits" in refusal(lambda: read_label_image(tmp_path / "a.tif"))


LOW = {
    "blue": [(0, 0, 1), (0, 0, 2), (0, 0, 3)],
    "red and green": [(1, 0, 0), (0, 1, 0), (1, 1, 0)],
    "two": [(1, 0, 0), (0, 1, 0)],
    "one red": [(1, 0, 0), (1, 1, 0), (1, 2, 0)],
    "both": [(1, 1, 0), (1, 2, 0), (2, 1, 0)],
    "green from 4": [(0, 4, 0), (0, 5, 0), (0, 6, 0)],
}


@pytest.mark.parametrize("kind", LOW)
@pytest.mark.parametrize("patches", [1, 3])
def test_folder_few_low_colours_are_no_numbers(tmp_path, kind, patches):
    table = dict(enumerate(LOW[kind], start=1))
    images = [colored(labels, {0: (0, 0, 0), **table}) for labels in scenes(3, [*table], patches=patches)]
    home = write(tmp_path, images)
    if patches == 1:
        assert "'coding: color'" in refusal(lambda: Folder.open(home))
        (home / "classes.yaml").write_text("coding: color\n")
    data = Folder.open(home)
    assert data.labels.coding == "color" and len(data.taxonomy) == 1 + len(table)


@pytest.mark.parametrize("void", [True, False])
def test_folder_class_and_number_in_low_channels_are_no_colours(tmp_path, void):
    """As KITTI-STEP has them: red the class, blue the number of the object."""
    images = []
    for seed in range(4):
        land, cars = terrain([0, 1, 2, 8, 10], seed), discs(5, pitch=24, seed=seed)
        red = np.where(cars > 0, 13, np.where(void & (land == 2), 255, land))
        images.append(np.dstack([red, 0 * red, cars]).astype(np.uint8))
    message = refusal(lambda: Folder.open(write(tmp_path, images)))
    assert "only low numbers" in message and "save class * 1000 + number" in message


def test_folder_classes_stretched_in_each_image_are_refused(tmp_path):
    """As programs show them: the highest class of each image is 255."""
    images = [np.round(terrain([*range(n)], n) / (n - 1) * 255).astype(np.uint8) for n in (4, 2, 3, 4)]
    assert "is stretched to 255 on its own" in refusal(lambda: Folder.open(write(tmp_path, images)))
    alike = [np.round(terrain([*range(4)], n) / 3 * 255).astype(np.uint8) for n in range(4)]
    assert "is stretched" not in refusal(lambda: Folder.open(write(tmp_path / "alike", alike)))


def test_folder_numbers_among_colours_are_refused(tmp_path):
    images = [terrain([0, 1, 2, 3], seed).astype(np.uint8) for seed in range(4)]
    images[1] = colored(images[1], COLORS)
    message = refusal(lambda: Folder.open(write(tmp_path, images)))
    assert "have numbers, as 3.png, and others colours, as 1.png; save all of them alike" in message


def test_folder_colours_with_red_and_blue_swapped_are_said(tmp_path):
    table = {0: (0, 0, 0), 1: (128, 64, 0), 2: (200, 20, 60), 3: (7, 90, 30)}
    images = [colored(terrain([0, 1, 2, 3], seed), table) for seed in range(4)]
    said = "red and blue swapped"
    assert said not in Folder.open(write(tmp_path / "a", images)).labels.assumed[0]
    images[2] = images[2][..., ::-1].copy()
    assert said in Folder.open(write(tmp_path / "b", images)).labels.assumed[0]


def test_folder_inverted_masks_offer_0_as_the_object(tmp_path):
    masks = [np.where(discs(12, seed=seed) > 0, 0, 255).astype(np.uint8) for seed in range(3)]
    assert "or 'things: [0]' (each connected patch of 0" in refusal(lambda: Folder.open(write(tmp_path, masks)))
    write(tmp_path, masks, things=[0])
    assert len(Folder.open(tmp_path)[0].panoptic.things) == 12
    upright = [255 - mask for mask in masks]
    assert "things: [0]" not in refusal(lambda: Folder.open(write(tmp_path / "upright", upright)))


def test_folder_masks_of_8_and_16_bits_are_to_be_saved_alike(tmp_path):
    masks = [(discs(12) > 0).astype(np.uint8) * np.uint8(255), (discs(9) > 0).astype(np.uint16) * np.uint16(65535)]
    assert "save all of them with 8 bits" in refusal(lambda: Folder.open(write(tmp_path, masks)))


def test_read_label_image_names_nan(tmp_path):
    labels = discs(5).astype(np.float32)
    labels[:9] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", labels)
    assert "no number (NaN); save those without a label as 255" in refusal(lambda: read_label_image(tmp_path / "a.tif"))


def test_folder_colours_that_cycle_are_said_to_need_numbers(tmp_path):
    cycle = {0: (0, 0, 0), **{number: (255 - 20 * number, 30 * number, 99) for number in range(1, 9)}}
    images = [colored(np.where(discs(n) > 0, discs(n) % 8 + 1, 0), cycle) for n in (30, 44, 36)]
    assert "save a number for each object" in refusal(lambda: Folder.open(write(tmp_path, images)))


@pytest.mark.parametrize("quality", [95, 98, 100])
@pytest.mark.parametrize("kind", ["mask", "values", "0 and 1", "colours"])
def test_folder_labels_that_were_jpegs_of_high_quality_are_refused(tmp_path, quality, kind):
    labels = terrain([0, 1, 2] if kind != "0 and 1" else [0, 1], 0, 8)
    table = {"mask": [0, 255, 0], "values": [0, 100, 200], "0 and 1": [0, 1], "colours": [0, 1, 2]}[kind]
    pixels = np.array(table)[labels].astype(np.uint8)
    pixels = colored(labels, COLORS) if kind == "colours" else pixels
    smeared = smear(pixels, quality)
    assert (smeared != pixels).any()
    assert "JPEG" in refusal(lambda: Folder.open(write(tmp_path, [smeared])))


@pytest.mark.parametrize("quality", [75, 85, 90, 92])
@pytest.mark.parametrize("kind", ["objects", "land"])
def test_folder_masks_of_0_and_1_that_were_jpegs_are_refused(tmp_path, quality, kind):
    """Their borders have moved, and 2 appears, but nothing looks smeared."""
    mask = discs(9, pitch=32) > 0 if kind == "objects" else terrain([0, 1], 0, 8)
    home = write(tmp_path, [smear(np.asarray(mask, np.uint8), quality)], things=[1])
    message = refusal(lambda: Folder.open(home))
    assert "0.png has" in message and "JPEG or resizing has smeared them" in message and "'coding: class'" in message
    (home / "classes.yaml").write_text("coding: class\n")
    assert len(Folder.open(home)) == 1


@pytest.mark.parametrize("size", [4, 8])
def test_folder_enlarged_labels_are_no_jpegs(tmp_path, size):
    """Their pixels fit the blocks of JPEG."""
    small = np.random.default_rng(0).integers(0, 3, (96 // size, 96 // size))
    labels = np.kron(small, np.ones((size, size), int)).astype(np.uint8)
    assert Folder.open(write(tmp_path, [labels])).labels.coding == "class"


@pytest.mark.parametrize("folder", ["images", "labels"])
def test_folder_of_git_that_lacks_large_files_says_so(tmp_path, folder):
    home = write(tmp_path, [discs(5).astype(np.uint8)], coding="class")
    (path,) = (home / folder).iterdir()
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert f"{path} is a pointer of Git LFS" in refusal(lambda: Folder.open(home)[0])


def lines(labels: np.ndarray, width: int = 1) -> np.ndarray:
    """Each value as a line of this width around nothing."""
    side = 2 * width + 1
    inside = ndimage.minimum_filter(labels, side, mode="constant", cval=-1) == ndimage.maximum_filter(labels, side)
    return np.where(inside, 0, labels)


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("kind", ["objects", "mask", "colours", "classes"])
def test_folder_lines_around_objects_are_refused(tmp_path, kind, width):
    drawn = [lines(discs(count, pitch=24), width) for count in (16, 12, 14)]
    if kind == "mask":
        drawn = [np.where(labels > 0, 255, 0).astype(np.uint8) for labels in drawn]
    if kind == "colours":
        drawn = [np.stack([labels * 9 % 251, labels * 31 % 251, labels], -1).astype(np.uint8) for labels in drawn]
    if kind == "classes":
        drawn = [lines(terrain([0, 1, 2, 3], seed, smooth=8), width).astype(np.uint8) for seed in range(3)]
    home = write(tmp_path, drawn, things=[255]) if kind == "mask" else write(tmp_path, drawn)
    coding = "color" if kind == "colours" else "class"
    message = refusal(lambda: Folder.open(home))
    assert f"write to {home / 'classes.yaml'}: 'coding: {coding}'" in message
    # Of rings with numbers, `class` would make each number a class.
    assert ("or 'coding: instance' (0 is background, each other value is one object)" in message) == (coding == "class")
    assert "0.png has only lines around objects" in message
    write(home, drawn, coding=coding)
    assert len(Folder.open(home)) == 3


@pytest.mark.parametrize("width", [5, 6])
@pytest.mark.parametrize("kind", ["objects", "mask"])
def test_folder_wide_lines_around_large_objects_are_refused(tmp_path, kind, width):
    drawn = [lines(discs(count, 320, pitch=80), width).astype(np.uint8) for count in (14, 12, 16)]
    if kind == "mask":
        drawn = [np.where(labels > 0, 255, 0).astype(np.uint8) for labels in drawn]
    assert "0.png has only lines around objects" in refusal(lambda: Folder.open(write(tmp_path, drawn)))


def test_folder_rings_of_large_holes_are_objects(tmp_path):
    drawn = [lines(discs(count, 256, pitch=32), 6).astype(np.uint8) for count in (40, 50, 60)]
    assert all((ndimage.label(labels == 0)[1]) > 30 for labels in drawn)
    assert Folder.open(write(tmp_path, drawn)).labels.coding == "instance"


def test_folder_lines_may_be_classes_that_are_named(tmp_path):
    drawn = [lines(terrain([0, 1, 2, 3], seed, smooth=8)).astype(np.uint8) for seed in range(3)]
    home = write(tmp_path, drawn, labels={0: "ground", 1: "kerb", 2: "fence", 3: "wall"})
    assert [name for name, _ in categories(Folder.open(home))] == ["ground", "kerb", "fence", "wall"]


def strokes(count: int, width: int, seed: int) -> np.ndarray:
    """Wavy open lines of this width, numbered from 1, uint8 `[192, 192]`."""
    rng, labels = np.random.default_rng(seed), np.zeros((192, 192), np.uint8)
    for number in range(1, count + 1):
        columns = np.arange(10, 10 + 100 // (1 + number % 2))
        rows = 180 * number // (count + 1) + 3 * np.sin(columns / rng.uniform(4, 9))
        for offset in range(width):
            labels[rows.astype(int) + offset, columns] = number
    return labels


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("colours", [True, False])
def test_folder_scribbles_are_no_areas(tmp_path, width, colours):
    """Strokes of a brush for each class, and nothing said of the rest."""
    table = np.array([0, 1, 2, *[3] * 8, 1, 3])
    drawn = [table[strokes(12, width, seed)] for seed in range(4)]
    drawn = [colored(labels, COLORS) if colours else labels.astype(np.uint8) for labels in drawn]
    home, coding = write(tmp_path, drawn), "color" if colours else "class"
    message = refusal(lambda: Folder.open(home))
    assert "0.png has only thin lines; of scribbles" in message and f"'coding: {coding}'" in message
    (home / "classes.yaml").write_text(f"coding: {coding}")
    found = check(Folder.open(home), 100).warnings
    assert any(line.startswith("4 images have only thin lines; of scribbles") for line in found)


@pytest.mark.parametrize("named", [{}, {"labels": {0: "background", 255: "neurite"}}])
def test_folder_thin_objects_that_are_declared_are_read(tmp_path, named):
    home = write(tmp_path, [np.where(strokes(5, 3, seed) > 0, 255, 0).astype(np.uint8) for seed in range(3)])
    assert "'things: [255]'" in refusal(lambda: Folder.open(home))
    (home / "classes.yaml").write_text(yaml.safe_dump({"things": [255], **named}))
    assert [isthing for _, isthing in categories(Folder.open(home))] == [False, True]


def test_folder_borders_around_filled_objects_are_no_lines_around_nothing(tmp_path):
    cells = [discs(count, pitch=24) for count in (16, 12, 14)]
    home = write(tmp_path, [np.where(lines(c, 2), 2, np.minimum(c, 1)).astype(np.uint8) for c in cells], void=[])
    assert categories(Folder.open(home)) == [("0", False), ("1", False), ("2", False)]


def test_report_warns_of_lines_around_objects(tmp_path):
    home = write(tmp_path, [lines(discs(16, pitch=24)), discs(16, pitch=24)], coding="instance")
    warnings = check(Folder.open(home), 100).warnings
    assert [line for line in warnings if "lines around" in line] == ["1 images have only lines around their things: 0"]


@pytest.mark.parametrize("palette", [True, False])
def test_folder_colours_that_differ_in_each_image_are_no_classes(tmp_path, palette):
    home = write(tmp_path, [terrain([0, 1, 2, 3], seed).astype(np.uint8) for seed in range(4)])
    for seed, path in enumerate(sorted((home / "labels").glob("*"))):
        image = Image.open(path).convert("P")
        image.putpalette(np.random.default_rng(seed).integers(0, 256, 768).tolist())
        (image if palette else image.convert("RGB")).save(path)
    message = refusal(lambda: Folder.open(home))
    assert "other ones in each image" in message and ("'coding: class'" in message) == palette
    if palette:
        (home / "classes.yaml").write_text("coding: class")
        assert categories(Folder.open(home)) == [(str(value), False) for value in range(4)]


@pytest.mark.parametrize("kind", ["numbered", "one value", "classes"])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_folder_points_are_no_objects(tmp_path, kind, width):
    points = [np.zeros((192, 192), np.uint8) for _ in range(3)]
    for seed, labels in enumerate(points):
        for number, place in enumerate(np.random.default_rng(seed).permutation(400)[: 20 + seed].tolist(), start=1):
            rows, columns = np.mgrid[:width, :width] + 9 * np.reshape(divmod(place, 20), (2, 1, 1))
            labels[rows, columns] = {"numbered": number, "one value": 255, "classes": 1 + number % 3}[kind]
    message = refusal(lambda: Folder.open(write(tmp_path, points)))
    assert "0.png has only points, which have no area; draw masks" in message


@pytest.mark.parametrize("things", [None, [1, 2]])
def test_folder_small_objects_of_a_class_are_no_strokes(tmp_path, things):
    """Together they have as many pixels as a stroke, and none of them is wide."""
    objects = [discs(count, 128, seed, pitch=8) for seed, count in enumerate((40, 44, 36))]
    classes = [np.where(labels > 0, 1 + labels % 2, 0).astype(np.uint8) for labels in objects]
    home = write(tmp_path, classes, **({"things": things} if things else {}))
    assert [name for name, _ in categories(Folder.open(home))][-2:] == ["1", "2"]
    assert not any("thin lines" in line for line in check(Folder.open(home), 100).warnings)


def test_folder_objects_with_stray_pixels_are_no_points(tmp_path):
    masks = []
    for seed in range(3):
        mask = np.zeros((192, 192), np.uint8)
        mask[20:40, 20:40] = mask[100:120, 40:60] = 255
        mask[5 + 10 * np.arange(18), np.random.default_rng(seed).integers(80, 190, 18)] = 255
        masks.append(mask)
    assert categories(Folder.open(write(tmp_path, masks, things=[255]))) == [("0", False), ("255", True)]


def test_report_warns_of_boxes(tmp_path):
    boxes = np.zeros((96, 96), np.uint8)
    for number in range(12):
        y, x = (24 * part for part in divmod(number, 4))
        boxes[y : y + 9 + number, x : x + 12] = number + 1
    found = check(Folder.open(write(tmp_path, [boxes, discs(10, pitch=24)], coding="instance")), 100).warnings
    assert "12 of 22 things fill their bounding box; boxes instead of outlines would be wrong labels" in found
    shutil.rmtree(tmp_path)
    found = check(Folder.open(write(tmp_path, [discs(16, pitch=24), discs(10, pitch=24)], coding="instance")), 100)
    assert not any("box" in line for line in found.warnings)


@pytest.mark.parametrize("orientation", [3, 6, 8])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_folder_labels_with_an_orientation_of_their_own_are_turned(tmp_path, suffix, orientation):
    """As a painting program leaves them that keeps what the photograph said."""
    shown = discs(20)[:60].astype(np.uint16)
    turned = {3: 2, 6: 1, 8: 3}[orientation]
    stored, path = np.rot90(shown, turned).copy(), tmp_path / "labels" / f"0{suffix}"
    write(tmp_path, [shown], suffix)
    if suffix == ".png":
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(stored).save(path, exif=exif)
    else:
        tifffile.imwrite(path, stored, extratags=[(274, "H", 1, orientation, True)])
    assert np.array_equal(read_label_image(path, Image.open(tmp_path / "images/0.jpg")), shown)
    assert Folder.open(tmp_path)[0].notes == ("the labels have an orientation of their own, and are turned by it",)
    Image.new("RGB", (60, 30)).save(tmp_path / "images/0.jpg")
    assert "but its image" in refusal(lambda: Folder.open(tmp_path)[0])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_folder_labels_that_fit_only_as_stored_are_not_turned(tmp_path, suffix):
    """As a program leaves them that turned the pixels and kept the orientation."""
    shown, path = discs(20)[:60].astype(np.uint16), tmp_path / "labels" / f"0{suffix}"
    write(tmp_path, [shown], suffix)
    if suffix == ".png":
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(shown).save(path, exif=exif)
    else:
        tifffile.imwrite(path, shown, extratags=[(274, "H", 1, 6, True)])
    assert np.array_equal(read_label_image(path, Image.open(tmp_path / "images/0.jpg")), shown)


@pytest.mark.parametrize("count", [20, 1200])
def test_folder_background_of_1_is_no_object(tmp_path, count):
    """As a watershed of MATLAB or scikit-image leaves it, with lines of 0 around the objects."""
    block = np.pad(np.ones((4, 4), int), 4)
    ring = np.pad(np.zeros((6, 6), int), 3, constant_values=1)
    ring[4:8, 4:8] = 0
    drawn = []
    for seed in range(4):
        columns = math.ceil(math.sqrt(count + 5 * seed))
        numbers = np.arange(2, columns**2 + 2).reshape(columns, columns)
        numbers[numbers > count + 5 * seed + 1] = 1
        drawn.append((np.kron(numbers, block) + np.tile(ring, (columns, columns))).astype(np.uint16))
    assert "'void: 1'" in (message := refusal(lambda: Folder.open(write(tmp_path, drawn))))
    assert "'coding: instance'" in message
    write(tmp_path, drawn, coding="instance", void=1)
    assert sum(s.isthing for s in Folder.open(tmp_path)[0].panoptic.segments) == count


def tones(labels: np.ndarray) -> np.ndarray:
    """A greedy graph colouring: the numbers of objects become the lowest tones that no neighbour has."""
    found = np.zeros_like(labels)
    for number in range(1, labels.max() + 1):
        near = ndimage.binary_dilation(labels == number, np.ones((3, 3)))
        found[labels == number] = min(set(range(1, 9)) - set(found[near].tolist()))
    return found


@pytest.mark.parametrize("form", ["grey", "colours", "red"])
@pytest.mark.parametrize("packed", [True, False])
def test_folder_tones_that_tell_neighbours_apart_are_no_classes(tmp_path, packed, form):
    drawn = []
    for seed in range(6):
        places = np.random.default_rng(seed).random((40, 2)) * 96
        rows, columns = np.mgrid[:96, :96]
        away = (rows[..., None] - places[:, 0]) ** 2 + (columns[..., None] - places[:, 1]) ** 2
        labels = away.argmin(-1) + 1
        drawn.append(tones(labels if packed else np.where(away.min(-1) < 81, labels, 0)))
    if form != "grey":  # BBBC039 has the tones as red
        table = {tone: (tone, 0, 0) if form == "red" else (255 * (tone % 2), 30 * tone, 90) for tone in range(1, 9)}
        drawn = [colored(tones, table) for tones in drawn]
    coding = "class" if form == "grey" else "color"
    message = refusal(lambda: Folder.open(write(tmp_path, drawn)))
    assert re.search(r"if (values|colours) only tell neighbours apart, give each object a number of its own", message)
    write(tmp_path, drawn, coding=coding)
    assert Folder.open(tmp_path).labels.coding == coding


@pytest.mark.parametrize("kinds", [3, 4])
def test_folder_kinds_of_cells_that_touch_are_classes(tmp_path, kinds):
    drawn = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        places, rows, columns = rng.random((25, 2)) * 128, *np.mgrid[:128, :128]
        away = (rows[..., None] - places[:, 0]) ** 2 + (columns[..., None] - places[:, 1]) ** 2
        drawn.append(np.where(away.min(-1) < 144, rng.integers(1, kinds + 1, 25)[away.argmin(-1)], 0))
    assert Folder.open(write(tmp_path, drawn)).labels.coding == "class"


def test_folder_nuclei_in_cells_are_classes(tmp_path):
    drawn = []
    for seed in range(6):
        places = np.random.default_rng(seed).permutation(16)[: 9 + seed]
        rows, columns = np.indices((96, 96)) % 24 - 12
        inside = np.isin(
            np.add(*(n // 24 * step for n, step in zip(np.indices((96, 96)), (4, 1), strict=True))), places
        )
        cells = inside & (rows**2 + columns**2 <= 100)
        drawn.append(cells * 1 + (inside & (rows**2 + (columns - 4) ** 2 <= 24)))
    assert Folder.open(write(tmp_path, drawn)).labels.coding == "class"


@pytest.mark.parametrize("instances_first", [True, False])
@pytest.mark.parametrize("masks", [True, False])
def test_folder_classes_among_numbers_of_objects_are_refused(tmp_path, instances_first, masks):
    numbers = [discs(count, seed=count) for count in (12, 20, 17, 23, 15, 19)]
    others = [(labels > 0) * 1 if masks else np.where(labels > 0, labels % 2 + 1, 0) for labels in numbers[:2]]
    write(tmp_path, [*numbers, *others] if instances_first else [*others, *numbers])
    message = refusal(lambda: Folder.open(tmp_path))
    assert re.search(r"most number the objects, as .*, but values of .* have many patches, as classes have", message)
    assert "save all of them alike, also those of all splits" in message


def test_folder_background_of_the_highest_value_is_no_object(tmp_path):
    drawn = [np.where(m > 0, m - 1, count) for count in (12, 20, 17, 23) for m in [discs(count, seed=count)]]
    message = refusal(lambda: Folder.open(write(tmp_path, drawn)))
    assert "or, if it is another value in each image, to be saved as 0; where" in message


def test_folder_object_of_0_among_objects_that_fill_the_image_is_no_background(tmp_path):
    drawn = []
    for seed in range(4):
        places = np.random.default_rng(seed).random((60, 2)) * 96
        rows, columns = np.mgrid[:96, :96]
        drawn.append(((rows[..., None] - places[:, 0]) ** 2 + (columns[..., None] - places[:, 1]) ** 2).argmin(-1))
    assert "where 0 is an object, add 1 to all values" in refusal(lambda: Folder.open(write(tmp_path, drawn)))


@pytest.mark.parametrize("kind", ["scaled", "numbered"])
def test_folder_images_of_two_codings_are_refused(tmp_path, kind):
    if kind == "scaled":
        drawn = scenes(5, [1, 2, 3, 4])
        others = [60 * labels for labels in drawn[:2]]
    else:
        drawn = [discs(count, seed=count) for count in (12, 20, 17, 23, 15)]
        others = [np.where(labels > 0, labels + 1000, 0) for labels in drawn[:2]]
    message = refusal(lambda: Folder.open(write(tmp_path, [*drawn, *others])))
    assert "values of one or of another kind, and none has both" in message


def test_folder_images_with_few_of_many_classes_are_of_one_coding(tmp_path):
    images = [[1, 2], [2, 3, 4], [4, 5], [7, 8], [8, 9]]
    drawn = [terrain([0, *values], seed) for seed, values in enumerate(images)]
    assert Folder.open(write(tmp_path, drawn)).labels.coding == "class"


@pytest.mark.parametrize("kind", ["npz", "pickle", "shape", "cut"])
def test_read_label_image_damaged_array_is_one_line(tmp_path, kind):
    path = tmp_path / "a.npy"
    head = {"npz": b"", "pickle": b"\x80\x04N.", "shape": b"(True, 4)", "cut": b"(" * 9000}[kind]
    if kind == "npz":
        np.savez(tmp_path / "a.npz", np.eye(3, dtype=np.uint8))
        head = (tmp_path / "a.npz").read_bytes()
    elif kind != "pickle":
        text = b"{'descr': '|u1', 'fortran_order': False, 'shape': " + head + b", }\n"
        head = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(16)
    path.write_bytes(head)
    with pytest.raises(InputError, match=r"a\.npy cannot be read as array"):
        read_label_image(path)
