import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from miniatures import refusal
from PIL import Image

from pix2seqd.data import open_dataset, remarks
from pix2seqd.data.categories import with_categories
from pix2seqd.data.find import with_prefix
from pix2seqd.data.folder import Folder
from pix2seqd.data.labels import Labels
from pix2seqd.data.split import Part
from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import id_to_rgb
from pix2seqd.panoptic.taxonomy import Taxonomy

SHARED = Path(__file__).parents[3] / "shared" / "data"

CLASSES = np.array([[0, 0, 1, 1, 1, 1], [0, 2, 1, 2, 2, 1], [2, 2, 255, 2, 2, 2]])
"""Grass 0, sky 1, sheep 2, void 255; two sheep by connected components, which touch at no side."""
SHEEP = np.array([[0, 0, 0, 0, 0, 0], [0, 1, 0, 3, 3, 0], [1, 1, 0, 3, 3, 3]])
"""Number of the sheep at each pixel."""
NAMES = {"labels": {0: "grass", 1: "sky", 2: "sheep"}, "things": ["sheep"], "void": 255}


def put(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if mode == "P":
        image = image.convert("L")
        image.putpalette(list(range(255, -1, -1)) * 3)  # arbitrary colours
    image.save(path)


def draw(home: Path, pixels: np.ndarray, split: str = "", **declared) -> Path:
    """A data set with one image."""
    put(home / "images" / split / "a.jpg", np.zeros((*pixels.shape[:2], 3), np.uint8))
    put(home / "labels" / split / "a.png", pixels)
    if declared:
        (home / "classes.yaml").write_text(yaml.safe_dump(declared))
    return home


def facts(data: Folder) -> set[tuple]:
    return {(s.name, s.isthing, s.area, s.bbox, s.iscrowd) for s in data[0].panoptic.segments}


TRUTH = {
    ("grass", False, 3, (0, 0, 2, 2), False),
    ("sky", False, 6, (2, 0, 4, 2), False),
    ("sheep", True, 3, (0, 1, 2, 2), False),
    ("sheep", True, 5, (3, 1, 3, 2), False),
}

with_void = np.where(CLASSES == 255, 0, CLASSES + 1)
"""The same classes where 0 is void: grass 1, sky 2, sheep 3."""
thousands = np.where(with_void == 3, 3000 + SHEEP, with_void)
CODED = {
    "grey": (CLASSES.astype(np.uint8), NAMES),
    "grey as colours": (np.repeat(CLASSES[..., None], 3, axis=2).astype(np.uint8), NAMES),
    "16 bit": (thousands.astype(np.uint16), {}),
    "16 bit, stuff too": (np.where(with_void < 3, with_void * 1000, thousands).astype(np.uint16), {}),
    "colours": (id_to_rgb(thousands * (thousands >= 1000) + with_void * 1000 * (thousands < 1000)), {}),
    "two channels": (np.stack([with_void, SHEEP, 0 * SHEEP], axis=-1).astype(np.uint8), {}),
    "grey and alpha": (np.stack([with_void, SHEEP], axis=-1).astype(np.uint8), {}),
}


@pytest.mark.parametrize("name", CODED)
def test_folder_detects_and_reads_every_coding(tmp_path, name):
    pixels, declared = CODED[name]
    declared = declared or {"labels": {1: "grass", 2: "sky", 3: "sheep"}}
    assert facts(Folder.open(draw(tmp_path, pixels, **declared))) == TRUTH


def test_folder_palette_png_by_index(tmp_path):
    draw(tmp_path, CLASSES.astype(np.uint8), **NAMES)
    put(tmp_path / "labels/a.png", CLASSES.astype(np.uint8), "P")
    assert Image.open(tmp_path / "labels/a.png").mode == "P"
    assert facts(Folder.open(tmp_path)) == TRUTH


def test_folder_without_declaration(tmp_path):
    data = Folder.open(draw(tmp_path, CLASSES.astype(np.uint8)))
    assert [(c.id, c.name, c.isthing) for c in data.taxonomy.categories] == [
        (1, "0", False),
        (2, "1", False),
        (3, "2", False),
    ]
    assert data[0].panoptic.segmentation[2, 2] == 0
    assert data[0].name == "a"
    printed = str(data.labels)
    for assumption in ("coding", "void: [255]", "named by number", "all is stuff"):
        assert assumption in printed


def test_folder_printed_declaration_round_trip(tmp_path):
    """Writing the printed text to classes.yaml gives the same labels."""
    data = Folder.open(draw(tmp_path, CODED["two channels"][0]))
    assert {c.name for c in data.taxonomy.categories if c.isthing} == {"3"}
    (tmp_path / "classes.yaml").write_text(str(data.labels))
    again = Folder.open(tmp_path)
    assert again.labels == data.labels
    assert again.labels.assumed == ()


def test_folder_binary_mask_has_two_classes(tmp_path):
    data = Folder.open(draw(tmp_path, (CLASSES == 2).astype(np.uint8) * 255, coding="class"))
    assert [c.name for c in data.taxonomy.categories] == ["0", "255"]


def test_folder_splits_share_classes(tmp_path):
    draw(tmp_path, np.full((2, 2), 4, np.uint8), "train")
    draw(tmp_path, np.full((2, 2), 9, np.uint8), "val")
    assert Folder.open(tmp_path, "train").taxonomy == Folder.open(tmp_path, "val").taxonomy
    with pytest.raises(InputError, match=r"splits in .*: train, val"):
        Folder.open(tmp_path)


def test_folder_crowds(tmp_path):
    """A thing without a number is a crowd; in two channels, number 255 is."""
    sixteen = np.array([[26, 26001, 26002, 7]], np.uint16)
    data = Folder.open(draw(tmp_path / "a", sixteen, labels={26: "car", 7: "road"}))
    assert [(s.name, s.iscrowd) for s in data[0].panoptic.segments] == [
        ("road", False),
        ("car", True),
        ("car", False),
        ("car", False),
    ]
    two = np.array([[[26, 255], [26, 0], [26, 1], [7, 0]]], np.uint8)
    data = Folder.open(draw(tmp_path / "b", two, labels={26: "car", 7: "road"}))
    assert sum(s.iscrowd for s in data[0].panoptic.segments) == 1
    assert len(data[0].panoptic.segments) == 4


LAYOUTS = [("images/val", "labels/val"), ("val/images", "val/labels"), ("val", "val_labels")]


@pytest.mark.parametrize(("images", "labels"), LAYOUTS)
def test_folder_layouts(tmp_path, images, labels):
    put(tmp_path / images / "a.png", np.zeros((3, 6, 3), np.uint8))
    put(tmp_path / labels / "a.png", CLASSES.astype(np.uint8))
    assert len(Folder.open(tmp_path, "val")) == 1
    assert len(open_dataset(f"folder:{tmp_path}@val", (8, 8))) == 1


def test_folder_label_in_neither_things_nor_stuff_is_void(tmp_path):
    """As in the classes.json of CamVid."""
    draw(tmp_path, CLASSES.astype(np.uint8))
    labels = '{"0": "grass", "1": "sky", "2": "sheep", "255": "unlabelled"}'
    (tmp_path / "classes.json").write_text(
        f'{{"labels": {labels}, "things": ["sheep"], "stuff": ["grass", "sky"], "stats": {{}}}}'
    )
    assert facts(Folder.open(tmp_path)) == TRUTH


DECLARED_WRONGLY = [
    ({"codign": "class"}, "did you mean 'coding'"),
    ({"names": {1: "sky"}}, "did you mean 'labels'"),
    ({"1": "car"}, "write the names of values below 'labels'"),
    ({"ignore_index": 255}, "did you mean 'void'"),
    ({"coding": "rgb"}, "two-channel"),
    ({"labels": ["a"]}, "1: car"),
    ({"labels": {"a": 1}}, "1: car"),
    ({**NAMES, "things": ["wolf"]}, "'wolf'"),
    ({**NAMES, "stuff": ["sheep"]}, "class 2 is in both things and stuff"),
    ({**NAMES, "things": [9]}, "[9]"),
    ({"void": [0, 1, 2, 255]}, "no class"),
    ({"labels": {1: "a", 2: "a"}}, "more than once"),
]


@pytest.mark.parametrize(("declared", "says"), DECLARED_WRONGLY)
def test_folder_rejects_invalid_declaration(tmp_path, declared, says):
    draw(tmp_path, CLASSES.astype(np.uint8), **declared)
    message = refusal(lambda: Folder.open(tmp_path))
    assert says in message
    assert "classes.yaml" in message


def test_folder_rejects_broken_yaml(tmp_path):
    draw(tmp_path, CLASSES.astype(np.uint8))
    for text in ("{", "- a"):
        (tmp_path / "classes.yaml").write_text(text)
        assert "classes.yaml" in refusal(lambda: Folder.open(tmp_path))


def test_folder_errors_name_invalid_item(tmp_path):
    png = tmp_path / "labels/a.png"
    draw(tmp_path, CLASSES.astype(np.uint8), **{**NAMES, "labels": {0: "grass", 2: "sheep"}})
    assert f"{png}: value 1 is not a class" in refusal(lambda: Folder.open(tmp_path)[0])
    numbered = {"labels": {1: "grass", 2: "sky", 3: "sheep"}, "things": [1]}
    draw(tmp_path, CODED["two channels"][0], **numbered)
    assert f"{png}: class 'sheep' has numbered instances" in refusal(lambda: Folder.open(tmp_path)[0])
    put(tmp_path / "images/a.jpg", np.zeros((5, 5, 3), np.uint8))
    message = refusal(lambda: Folder.open(tmp_path)[0])
    assert str(png) in message
    assert "5 x 5" in message


def test_folder_errors_name_unpaired_files(tmp_path):
    draw(tmp_path, CLASSES.astype(np.uint8))
    put(tmp_path / "images/b.png", np.zeros((3, 6, 3), np.uint8))
    assert "images has 'b' but" in refusal(lambda: Folder.open(tmp_path))
    (tmp_path / "images/b.png").rename(tmp_path / "images/a.png")
    assert "'a.jpg' and 'a.png'" in refusal(lambda: Folder.open(tmp_path))
    (tmp_path / "images/a.jpg").unlink()
    assert len(Folder.open(tmp_path)) == 1
    (tmp_path / "images/a.png").unlink()
    (tmp_path / "images").rmdir()
    assert str(tmp_path / "images") in refusal(lambda: Folder.open(tmp_path))
    assert "none" in refusal(lambda: Folder.open(tmp_path / "nowhere"))


def test_folder_rejects_images_as_labels(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert "too many values" in refusal(lambda: Folder.open(draw(tmp_path, noise)))


def test_open_dataset_leaves_images_out(tmp_path):
    draw(tmp_path, CLASSES.astype(np.uint8), **NAMES)
    put(tmp_path / "images/b.png", np.zeros((3, 6, 3), np.uint8))
    put(tmp_path / "labels/b.png", CLASSES.astype(np.uint8))
    put(tmp_path / "images/c.png", np.zeros((3, 6, 3), np.uint8))
    put(tmp_path / "labels/c.png", CLASSES.astype(np.uint8))
    for left_out, names in (("", ["a", "b", "c"]), (",-a.jpg", ["b", "c"]), (",-a.jpg,-c.png", ["b"])):
        data = open_dataset(f"folder:{tmp_path}{left_out}", (8, 8))
        assert [data[i].name for i in range(len(data))] == names
    with pytest.raises(InputError, match=r"b\.png,-d\.png' has no image 'd\.png' to leave out"):
        open_dataset(f"folder:{tmp_path},-b.png,-d.png", (8, 8))


@pytest.mark.skipif(not (SHARED / "coco_sample").is_dir(), reason="the shared COCO images are not available")
def test_folder_two_channel_pngs_of_panopticapi(tmp_path):
    from pix2seqd.data.coco import CocoPanoptic

    home = SHARED / "coco_sample"
    coco = CocoPanoptic(home / "panoptic_examples.json", home / "input_images", home / "panoptic_examples")
    labels = sorted((home / "panoptic_examples_2ch_format").glob("*.png"))
    for png, sample in zip(labels, coco, strict=True):
        known = Labels.open(tmp_path, labels)
        panoptic = known.read(png, Image.fromarray(sample.image), known.taxonomy)
        ours, theirs = (
            sorted((s.category_id, s.area, s.bbox, s.iscrowd) for s in p.segments) for p in (panoptic, sample.panoptic)
        )
        assert ours == theirs


def pair(home: Path, image: str, label: str) -> None:
    put(home / image, np.zeros((3, 6, 3), np.uint8))
    put(home / label, CLASSES.astype(np.uint8))


NAMINGS = [
    (("images/{}.png", "labels/{}_mask.png"), 'label_name: "*_mask"'),
    (("images/{}.png", "labels/{}_masks.tif"), 'label_name: "*_masks"'),
    (("images/{}.jpg", "masks/{}_label.png"), 'label_name: "*_label"'),
    (("images/{}_img.png", "labels/{}_cp_masks.png"), 'image_name: "*_img" and label_name: "*_cp_masks"'),
    (("images/img_{}.png", "labels/mask_{}.png"), 'image_name: "img_*" and label_name: "mask_*"'),
    (("images/image{}.png", "labels/label{}.png"), 'image_name: "image*" and label_name: "label*"'),
    (("{}.jpg", "{}_mask.png"), 'label_name: "*_mask"'),
    (("{}.png", "{}_masks.png"), 'label_name: "*_masks"'),
    (("train/{}.png", "train/{}_label.png"), 'label_name: "*_label"'),
]


@pytest.mark.parametrize(("names", "offered"), NAMINGS)
@pytest.mark.parametrize("count", [1, 3])
def test_folder_offers_names_of_labels(tmp_path, names, offered, count):
    stems = ["17", "08", "a_42"][:count]
    for stem in stems:
        pair(tmp_path, *(name.format(stem) for name in names))
    split = "train" if names[0].startswith("train") else ""
    message = refusal(lambda: Folder.open(tmp_path, split))
    assert f"write {offered} to {tmp_path / 'classes.yaml'}" in message
    (tmp_path / "classes.yaml").write_text(offered.replace(" and ", "\n"))
    assert {sample.name for sample in Folder.open(tmp_path, split)} == set(stems)


def test_folder_nested_folders_stray_files_and_suffix_case(tmp_path):
    for name in ("plate1/a", "plate1/b", "plate2/a"):
        pair(tmp_path, f"images/{name}.JPG", f"labels/{name}.PNG")
    for stray in ("images/Thumbs.db", "images/plate1/readme.txt", "labels/.DS_Store", "labels/__MACOSX/x.png"):
        (tmp_path / stray).parent.mkdir(exist_ok=True)
        (tmp_path / stray).write_bytes(b"")
    data = Folder.open(tmp_path)
    assert [sample.name for sample in data] == ["plate1/a", "plate1/b", "plate2/a"]
    assert [path.name for path in data.skipped] == ["Thumbs.db", "readme.txt"]
    assert data.records[0]["file_name"] == "plate1/a.JPG"
    assert [sample.name for sample in Folder.open(tmp_path, "plate1")] == ["a", "b"], "a folder can still be named"


def test_folder_nested_folders_in_a_split(tmp_path):
    for name in ("train/aachen/a", "train/b", "val/a"):
        pair(tmp_path, f"images/{name}.jpg", f"labels/{name}.png")
    assert [sample.name for sample in Folder.open(tmp_path, "train")] == ["aachen/a", "b"]
    assert "splits in" in refusal(lambda: Folder.open(tmp_path))


def test_folder_names_in_capitals(tmp_path):
    """As Windows users write them, with a declaration that begins with a byte-order mark."""
    for folder, suffix in (("Images", "JPG"), ("Masks", "PNG")):
        (tmp_path / "train" / folder).mkdir(parents=True)
        Image.fromarray(np.eye(6, dtype=np.uint8)).save(tmp_path / "train" / folder / f"a.{suffix}")
    (tmp_path / "classes.yml").write_bytes("\ufefflabels: {0: ground, 1: cat}\r\nthings: [cat]\r\n".encode())
    data = Folder.open(tmp_path, "train")
    assert [segment.name for segment in data[0].panoptic.segments] == ["ground", *["cat"] * 6]
    (tmp_path / "classes.yml").write_text("labels: {0: ground}", encoding="utf-16")
    with pytest.raises(InputError, match=r"classes\.yml is not text in UTF-8; save it as UTF-8"):
        Folder.open(tmp_path, "train")


@pytest.mark.parametrize("end", ["-labelled.tif", "_lbl.tif", "-labels.png", "_masks.png"])
def test_folder_names_of_microscopy_tools_are_offered(tmp_path, end):
    for number in range(2):
        name = f"slide [x={number}]"
        Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / f"{name}.png")
        Image.fromarray(np.eye(6, 8, dtype=np.uint8)).save(tmp_path / f"{name}{end}")
    with pytest.raises(InputError, match="side by side") as caught:
        Folder.open(tmp_path)
    offered = re.search(r"write (.*) to ", str(caught.value))[1]
    (tmp_path / "classes.yaml").write_text(f"{offered}\ncoding: class\n")
    assert len(Folder.open(tmp_path)) == 2


@pytest.mark.parametrize("suffix", [".npz", ".mat", ".nii"])
def test_folder_labels_of_other_kinds_are_named(tmp_path, suffix):
    """CoNSeP has pictures of the labels beside them, which are no label images."""
    for name in ("Images/a.png", "Overlay/a.png"):
        put(tmp_path / name, np.zeros((3, 6, 3), np.uint8))
    (tmp_path / "Labels").mkdir()
    (tmp_path / f"Labels/a{suffix}").touch()
    assert f"Labels has {suffix} files, which are not read as labels" in refusal(lambda: Folder.open(tmp_path))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_folder_labels_of_the_stored_image_turn_with_it(tmp_path, suffix):
    stored = np.arange(48, dtype=np.uint8).reshape(6, 8)
    labels = np.where(stored == 21, 1, 0).astype(np.uint8)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "images/a.png", exif=exif)
    Image.fromarray(labels).save(tmp_path / f"labels/a.{suffix}")
    (tmp_path / "classes.yaml").write_text("coding: class\n")
    sample = Folder.open(tmp_path)[0]
    assert sample.image.shape == (8, 6, 3)
    assert sample.image[sample.panoptic.segmentation == 2].tolist() == [[21, 21, 21]]
    assert "as stored and turned with it" in sample.notes[0]
    Image.fromarray(np.rot90(labels, -1)).save(tmp_path / f"labels/a.{suffix}")
    sample = Folder.open(tmp_path)[0]
    assert sample.image[sample.panoptic.segmentation == 2].tolist() == [[21, 21, 21]]
    assert "as shown (upright), as their size says" in sample.notes[0]
    Image.fromarray(labels[:, :5]).save(tmp_path / f"labels/a.{suffix}")
    with pytest.raises(InputError, match="5 x 6 but its image"):
        Folder.open(tmp_path)[0]


def test_folder_pages_of_labels_are_no_colours(tmp_path):
    """tifffile writes an array [3, h, w] as colours."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        labels = np.stack([np.eye(6, 8, k=k, dtype=np.uint8) for k in (0, 1, 2)])
        tifffile.imwrite(tmp_path / folder / "a.tif", labels, photometric="rgb", planarconfig="separate")
    with pytest.raises(InputError, match="several planes"):
        Folder.open(tmp_path)


def test_remarks_say_what_was_recognised_and_left_out_once(tmp_path):
    for number in range(7):
        put(tmp_path / f"labels/{number}.png", CLASSES.astype(np.uint8))
        (tmp_path / "images").mkdir(exist_ok=True)
        tifffile.imwrite(
            tmp_path / f"images/{number}.tif", np.zeros((5, *CLASSES.shape), np.uint8), metadata={"axes": "CYX"}
        )
    source = f"folder:{tmp_path},-3.tif"
    coding, channels = remarks(open_dataset(source, (1, 1)), source)
    assert coding.startswith(f"{source}: labels are read as coding: class, because")
    assert channels.endswith(
        "images such as 0: the first of 5 channels is taken; to use others, save them as images of their own"
    )
    opened = open_dataset(source, (1, 1))
    reordered = Taxonomy(opened.taxonomy.categories[::-1])
    names = tuple(opened[i].name for i in range(len(opened)))
    divided = Part(with_categories(opened, reordered), (0, 1), names, "data.json")
    assert remarks(divided, source)[0] == coding, "a part of it, with categories in another order, too"
    (tmp_path / "data.json").write_text(json.dumps({"train": {"data": source}}))
    assert remarks(divided, f"split:{tmp_path / 'data.json'}@train")[0] == coding, "under the name that was given"
    (tmp_path / "classes.yaml").write_text("coding: class\n")
    assert len(remarks(open_dataset(source, (1, 1)), source)) == 1


@pytest.mark.parametrize(
    ("images", "labels"),
    [("images", "Mask"), ("Image", "labels"), ("imgs", "annotations"), ("img_dir", "ann_dir"), ("images", "gt")],
)
def test_folder_other_names_of_folders(tmp_path, images, labels):
    pair(tmp_path, f"{images}/training/a.jpg", f"{labels}/training/a.png")
    assert [sample.name for sample in Folder.open(tmp_path, "training")] == ["a"]


@pytest.mark.parametrize("images", ["train", "train_images", "train_imgs"])
def test_folder_splits_with_their_kind(tmp_path, images):
    pair(tmp_path, f"{images}/a.jpg", "train_masks/a.png")
    assert [sample.name for sample in Folder.open(tmp_path, "train")] == ["a"]


def test_folder_two_folders_of_labels_are_not_guessed(tmp_path):
    pair(tmp_path, "images/a.jpg", "labels/a.png")
    put(tmp_path / "masks/a.png", CLASSES.astype(np.uint8))
    assert "labels and" in (message := refusal(lambda: Folder.open(tmp_path))) and "masks both have" in message


def test_folder_accents_that_macos_takes_apart(tmp_path):
    """A composed and a decomposed letter look the same."""
    pair(tmp_path, "images/Z\u00e4hler.jpg", "labels/Za\u0308hler.png")
    assert [sample.name for sample in Folder.open(tmp_path)] == ["Z\u00e4hler"]


@pytest.mark.parametrize("split", ["", "train/"])
def test_folder_image_and_labels_that_differ_in_the_suffix_alone(tmp_path, split):
    pair(tmp_path, f"{split}a.jpg", f"{split}a.png")
    message = refusal(lambda: Folder.open(tmp_path))
    assert "a.jpg and a.png" in message and f"{tmp_path / split / 'labels'}" in message


def test_folder_of_cellpose_without_exported_masks(tmp_path):
    """The file of Cellpose is a pickle, which could run code: it is never opened."""
    put(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    (tmp_path / "a_seg.npy").write_bytes(b"no array")
    message = refusal(lambda: Folder.open(tmp_path))
    assert "a_seg.npy" in message and "save the masks as PNG or TIFF" in message


def test_folder_names_of_folders_that_say_nothing(tmp_path):
    pair(tmp_path, "X/a.jpg", "Y/a.png")
    assert "has the folders X, Y; call that of the images 'images'" in refusal(lambda: Folder.open(tmp_path))


def test_folder_without_readable_images(tmp_path):
    pair(tmp_path, "labels/a.png", "labels/a.png")
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "images/a.npy", np.eye(3))
    message = refusal(lambda: Folder.open(tmp_path))
    assert "images has no images (but .npy); save them as" in message


def roboflow(home: Path, classes: str) -> Path:
    for split in ("train", "valid"):
        pair(home, f"{split}/a_jpg.rf.0f.jpg", f"{split}/a_jpg.rf.0f_mask.png")
        (home / split / "_classes.csv").write_text(classes)
    return home


def test_folder_of_roboflow_has_its_names(tmp_path):
    home = roboflow(tmp_path / "a", "Pixel Value, Class\n0, grass\n1, sky\n2, sheep\n")
    data = Folder.open(home, "valid")
    assert [c.name for c in data.taxonomy.categories] == ["grass", "sky", "sheep"] and not data.skipped
    (home / "classes.yaml").write_text("things: [sheep]\n")
    assert [c.name for c in Folder.open(home, "train").taxonomy.categories if c.isthing] == ["sheep"]
    (home / "valid/_classes.csv").write_text("Pixel Value, Class\n0, sky\n")
    assert "valid/_classes.csv has other classes" in refusal(lambda: Folder.open(home, "train"))
    (home / "valid/_classes.csv").write_text(f"Pixel Value, Class\n0, {'x' * 200_000}\n")
    assert "valid/_classes.csv is not a table of classes" in refusal(lambda: Folder.open(home, "train"))
    other = roboflow(tmp_path / "b", "filename, sky\na.jpg, 1\n")
    assert 'label_name: "*_mask"' in refusal(lambda: Folder.open(other, "train"))


@pytest.mark.parametrize("given", ["above/set/images", "above/set/labels", ""])
def test_folder_near_a_data_set_names_it(tmp_path, given):
    pair(tmp_path / "above/set", "images/a.jpg", "labels/a.png")
    message = refusal(lambda: Folder.open(tmp_path / given))
    assert f"give {tmp_path / 'above'}" in message


def test_folder_masks_of_each_class_or_object_have_a_cure(tmp_path):
    for name in ("a1", "b2"):
        put(tmp_path / f"classes/images/{name}.jpg", np.zeros((3, 6, 3), np.uint8))
        put(tmp_path / f"objects/images/{name}.jpg", np.zeros((3, 6, 3), np.uint8))
        for kind in ("cat", "dog"):
            put(tmp_path / f"classes/masks/{kind}/{name}.png", CLASSES.astype(np.uint8))
            put(tmp_path / f"objects/masks/{name}_{kind}.png", CLASSES.astype(np.uint8))
    message = refusal(lambda: Folder.open(tmp_path / "classes"))
    assert "masks/cat and the folders beside it" in message and "one label image" in message
    assert "into a folder" in (message := refusal(lambda: Folder.open(tmp_path / "objects"))) and "masks/a1" in message


def test_folder_key_that_is_not_known_is_said(tmp_path):
    data = Folder.open(draw(tmp_path, CLASSES.astype(np.uint8), **NAMES, licence="CC0"))
    assert "no meaning of the key licence" in str(data.labels)


@pytest.mark.parametrize("apart", [False, True])
def test_folder_several_label_images_of_each_image_are_offered_by_kind(tmp_path, apart):
    """Cityscapes' files, in two folders or all in one."""
    images, labels = (tmp_path / name if apart else tmp_path for name in ("images", "labels"))
    for city in ("aachen_0", "bonn_1"):
        put(images / f"{city}_leftImg8bit.png", np.zeros((6, 8, 3), np.uint8))
        ids = np.full((6, 8), 7, np.uint16)
        ids[:2], ids[4:] = 26000, 26001
        put(labels / f"{city}_gtFine_instanceIds.png", ids)
        put(labels / f"{city}_gtFine_labelIds.png", np.where(ids > 7, 26, 7).astype(np.uint8))
        (labels / f"{city}_gtFine_polygons.json").write_text('{"imgHeight": 6, "objects": []}')
    with pytest.raises(InputError) as caught:
        open_dataset(with_prefix(str(tmp_path)), (1, 1))
    lines = ['image_name: "*_leftImg8bit"', 'label_name: "*_gtFine_instanceIds"']
    assert " and ".join(lines) in str(caught.value) and "classes.yaml" in str(caught.value)
    assert not apart or 'label_name: "*_gtFine_labelIds"' in str(caught.value)
    (tmp_path / "classes.yaml").write_text("\n".join(lines))
    data = open_dataset(with_prefix(str(tmp_path)), (1, 1))
    assert [len(sample.panoptic.things) for sample in data] == [2, 2]


def test_folder_cityscapes_as_distributed_names_its_splits(tmp_path):
    for split in ("train", "val"):
        put(tmp_path / f"leftImg8bit/{split}/bonn/bonn_1_leftImg8bit.png", np.zeros((6, 8, 3), np.uint8))
        put(tmp_path / f"gtFine/{split}/bonn/bonn_1_gtFine_labelIds.png", np.zeros((6, 8), np.uint8))
    with pytest.raises(InputError, match=f"give cityscapes:{tmp_path}@train or cityscapes:{tmp_path}@val"):
        open_dataset(with_prefix(str(tmp_path)), (1, 1))


@pytest.mark.parametrize("home", ["labels", "."])
def test_folder_masks_of_label_studio_have_a_cure(tmp_path, home):
    put(tmp_path / "images/photo.png", np.zeros((6, 8, 3), np.uint8))
    for number, tag in enumerate(("Car", "Road")):
        mask = np.eye(6, 8, dtype=np.uint8) * 255
        put(tmp_path / home / f"task-1-annotation-7-by-1-tag-{tag}-{number}.png", mask)
    with pytest.raises(InputError, match="name a task but not its image: export the project as JSON instead"):
        open_dataset(with_prefix(str(tmp_path)), (1, 1))


def test_folder_thumbnails_of_synology_are_no_images(tmp_path):
    for name in ("a", "b"):
        put(tmp_path / f"images/x/{name}.png", np.zeros((6, 8, 3), np.uint8))
        put(tmp_path / f"labels/x/{name}.png", np.eye(6, 8, dtype=np.uint8))
    put(tmp_path / "images/x/@eaDir/a.png/SYNOPHOTO_THUMB_S.png", np.zeros((3, 4, 3), np.uint8))
    (tmp_path / "classes.yaml").write_text("coding: class")
    assert len(Folder.open(tmp_path)) == 2


def test_folder_images_in_folders_and_labels_without_are_said(tmp_path):
    put(tmp_path / "images/x/a.png", np.zeros((6, 8, 3), np.uint8))
    put(tmp_path / "labels/a.png", np.eye(6, 8, dtype=np.uint8))
    with pytest.raises(InputError, match=r"has images only in folders, such as .*a\.png, but .* so that both lie"):
        Folder.open(tmp_path)


def test_folder_thousands_of_classes(tmp_path):
    """16 bits of classes, named or not; more colours or values than classes can have are refused with the cure."""
    labels = np.arange(40 * 50).reshape(40, 50).repeat(4, 0).repeat(4, 1)
    home = draw(tmp_path / "a", labels.astype(np.uint16), coding="class", void=[])
    assert len(Folder.open(home).taxonomy) == 2000
    declared = {"labels": {value: f"kind {value}" for value in range(2000)}}
    home = draw(tmp_path / "b", labels.astype(np.uint16), **declared)
    assert [c.name for c in Folder.open(home).taxonomy.categories][-1] == "kind 1999"
    colors = np.stack([labels % 256, labels // 256, 0 * labels + 9], -1).astype(np.uint8)
    home = draw(tmp_path / "c", colors, coding="color")
    assert "too many colours to be classes; if each is one object" in refusal(lambda: Folder.open(home))
    many = np.arange(250 * 280).reshape(250, 280).astype(np.int32)
    put(tmp_path / "d/images/a.jpg", np.zeros((250, 280, 3), np.uint8))
    (tmp_path / "d/labels").mkdir()
    tifffile.imwrite(tmp_path / "d/labels/a.tif", many)
    (tmp_path / "d/classes.yaml").write_text("coding: class")
    assert "too many values to be classes, more than 65,536" in refusal(lambda: Folder.open(tmp_path / "d"))


def test_folder_beside_masks_of_its_name_is_no_part_of_a_data_set(tmp_path):
    """Data sets called cells_masks and other in one folder: cells_masks would be the labels of images in cells."""
    put(tmp_path / "cells_masks/one/a.png", CLASSES.astype(np.uint8))
    put(tmp_path / "cells_masks/two/a.png", CLASSES.astype(np.uint8))
    assert "has the folders one, two" in refusal(lambda: Folder.open(tmp_path / "cells_masks"))


def test_folder_without_images_is_said(tmp_path):
    put(tmp_path / "labels/a_mask.png", CLASSES.astype(np.uint8))
    put(tmp_path / "labels/a_label.png", CLASSES.astype(np.uint8))
    (tmp_path / "images").mkdir()
    assert "has 'a_label' but" in refusal(lambda: Folder.open(tmp_path))


@pytest.mark.parametrize("place", ["labels", "train/masks", "masks/train"])
def test_folder_labels_of_jpeg_are_said(tmp_path, place):
    put(tmp_path / place / "a.jpg", CLASSES.astype(np.uint8))
    (tmp_path / place.replace("masks", "images").replace("labels", "images")).mkdir(parents=True)
    message = refusal(lambda: open_dataset(with_prefix(str(tmp_path)), (1, 1)))
    assert f"{tmp_path / place} has JPEG files" in message and "a threshold restores the values: mogrify" in message
    put(tmp_path / place.replace("masks", "images").replace("labels", "images") / "a.jpg", CLASSES.astype(np.uint8))
    assert "has JPEG files" in refusal(lambda: open_dataset(with_prefix(str(tmp_path)), (1, 1)))


def test_folder_labels_of_a_format_that_is_not_read_are_said(tmp_path):
    put(tmp_path / "images/a.png", CLASSES.astype(np.uint8))
    put(tmp_path / "masks/a.pgm", CLASSES.astype(np.uint8))
    message = refusal(lambda: open_dataset(with_prefix(str(tmp_path)), (1, 1)))
    assert message == f"{tmp_path / 'masks'} has .pgm files, which are not read as labels; save PNG or TIFF"


def test_folder_of_mask_folders_is_named_and_not_one_of_its_images(tmp_path):
    for name in "ab":
        put(tmp_path / f"stage1/{name}/images/{name}.png", np.zeros((6, 8, 3), np.uint8))
        for number in range(2):
            put(tmp_path / f"stage1/{name}/masks/{number}.png", np.eye(6, 8, number, np.uint8) * 255)
    assert refusal(lambda: Folder.open(tmp_path)).endswith(f"give {tmp_path / 'stage1'}")


def test_folder_of_the_cell_tracking_challenge_says_what_to_move(tmp_path):
    labels = np.zeros((20, 20), np.uint16)
    labels[2:8, 2:8], labels[10:18, 10:18] = 1, 2
    for frame in ("000", "001"):
        put(tmp_path / f"01/t{frame}.tif", np.zeros((20, 20), np.uint16))
        put(tmp_path / f"01_GT/SEG/man_seg{frame}.tif", labels)
    message = refusal(lambda: Folder.open(tmp_path))
    assert 'image_name: "t*" and label_name: "man_seg*"' in message
    for old, new in (("01", "images/01"), ("01_GT/SEG", "labels/01")):
        assert f"{tmp_path / old} to {tmp_path / new}" in message
        (tmp_path / new).parent.mkdir()
        (tmp_path / old).rename(tmp_path / new)
    (tmp_path / "classes.yaml").write_text('coding: instance\nimage_name: "t*"\nlabel_name: "man_seg*"\n')
    assert [len(sample.panoptic.things) for sample in Folder.open(tmp_path)] == [2, 2]


def test_folder_without_labels_names_the_file_that_is_not_read(tmp_path):
    put(tmp_path / "a.png", np.zeros((6, 8, 3), np.uint8))
    (tmp_path / "RoiSet.zip").write_bytes(b"PK")
    assert "RoiSet.zip: unpack it" in refusal(lambda: Folder.open(tmp_path))


@pytest.mark.parametrize("image", ["images/{}", "images/10k/train/{}"])
def test_folder_labels_in_a_folder_of_another_name_are_said(tmp_path, image):
    """Oxford's pets have annotations/trimaps, BDD100K has images/10k and labels/sem_seg."""
    for stem in ("a", "b"):
        pair(tmp_path, image.format(stem) + ".jpg", f"annotations/trimaps/{stem}.png")
    message = refusal(lambda: Folder.open(tmp_path))
    target = tmp_path / image.format("").rstrip("/").replace("images", "annotations")
    assert f"move the files of {tmp_path / 'annotations/trimaps'} to {target}" in message
    target.mkdir(exist_ok=True, parents=True)
    for path in (tmp_path / "annotations/trimaps").iterdir():
        path.rename(target / path.name)
    assert len(Folder.open(tmp_path)) == 2


def test_folder_images_without_labels_may_move_away(tmp_path):
    for stem in ("a", "b"):
        pair(tmp_path, f"images/{stem}.jpg", f"labels/{stem}.png")
    put(tmp_path / "images/c.jpg", np.zeros((3, 6, 3), np.uint8))
    assert "or move images without labels to another folder" in refusal(lambda: Folder.open(tmp_path))


@pytest.mark.parametrize(
    ("place", "names"),
    [("training", "1st_manual, images"), ("Train/Urban", "images_png, masks_png"), (".", "car, images, road")],
)
def test_folder_names_of_folders_that_say_nothing_are_found_below(tmp_path, place, names):
    for name in names.split(", "):
        put(tmp_path / place / name / "a.png", CLASSES.astype(np.uint8))
    message = refusal(lambda: Folder.open(tmp_path))
    assert f"{tmp_path / place} has the folders {names}; call that of the images 'images'" in message
    assert ("draw those of an image into one label image" in message) == (place == ".")


@pytest.mark.parametrize("ends", [["_Object Identities"], ["_Cells", "_Nuclei"]])
def test_folder_labels_that_begin_with_the_name_of_an_image_are_offered(tmp_path, ends):
    """As ilastik and CellProfiler write them; the kind that is not chosen is skipped."""
    for stem in ("i1", "i2", "i10"):
        for end in ends:
            pair(tmp_path, f"{stem}.png", f"{stem}{end}.tif")
    message = refusal(lambda: Folder.open(tmp_path))
    assert all(f'label_name: "*{end}"' in message for end in ends)
    (tmp_path / "classes.yaml").write_text(f'label_name: "*{ends[-1]}"')
    data = Folder.open(tmp_path)
    assert [sample.name for sample in data] == ["i1", "i10", "i2"]
    assert len(data.skipped) == (3 if len(ends) > 1 else 0)
    put(tmp_path / "i10_b.png", np.zeros((3, 6, 3), np.uint8))
    assert "has 'i10_b' but" in refusal(lambda: Folder.open(tmp_path)), "an image without labels"


def test_folder_masks_of_each_class_side_by_side_have_a_cure(tmp_path):
    for stem in ("a", "b"):
        put(tmp_path / f"images/{stem}.jpg", np.zeros((3, 6, 3), np.uint8))
        for kind in ("car", "road"):
            put(tmp_path / f"masks/{stem}_{kind}.png", CLASSES.astype(np.uint8))
    message = refusal(lambda: Folder.open(tmp_path))
    assert 'label_name: "*_car" or label_name: "*_road"' in message
    assert "if each is the mask of a class, draw those of an image into one" in message


def test_folder_of_labelme_json_to_dataset_is_named(tmp_path):
    for name in ("img", "label", "label_viz"):
        put(tmp_path / f"a_json/{name}.png", CLASSES.astype(np.uint8))
    assert "a_json is of labelme_json_to_dataset" in refusal(lambda: Folder.open(tmp_path))


def test_folder_names_that_differ_in_capital_letters_are_said(tmp_path):
    pair(tmp_path, "images/IMG_1.JPG", "labels/img_1.png")
    assert "names differ in capital letters only" in refusal(lambda: Folder.open(tmp_path))


def test_folder_labels_among_the_images_are_said(tmp_path):
    for stem in ("a", "b"):
        pair(tmp_path, f"images/{stem}.png", f"images/{stem}_mask.png")
    message = refusal(lambda: Folder.open(tmp_path))
    home = tmp_path / "images"
    assert f'write label_name: "*_mask" to {home / "classes.yaml"}, and give {home}' in message
    (home / "classes.yaml").write_text('label_name: "*_mask"')
    assert len(Folder.open(home)) == 2


def nnunet(home: Path, **content: object) -> Path:
    for number in range(3):
        put(home / f"imagesTr/road_{number:04d}_0000.png", np.zeros((3, 6, 3), np.uint8))
        put(home / f"labelsTr/road_{number:04d}.png", np.array([[0, 0, 1, 1, 2, 2]] * 3, np.uint8))
    put(home / "imagesTs/road_0009_0000.png", np.zeros((3, 6, 3), np.uint8))
    (home / "dataset.json").write_text(json.dumps({"numTraining": 3, "file_ending": ".png"} | content))
    return home


@pytest.mark.parametrize(
    "labels", [{"background": 0, "road": 1, "ignore": 2}, {"0": "background", "1": "road", "2": "ignore"}]
)
def test_folder_nnunet_has_names(tmp_path, labels):
    """Of both versions; class "ignore" is void."""
    data = open_dataset(with_prefix(str(nnunet(tmp_path, labels=labels))), (1, 1))
    assert [c.name for c in data.taxonomy.categories] == ["background", "road"]
    assert len(data) == 3 and (data[0].panoptic.segmentation[:, 4:] == 0).all()
    (tmp_path / "classes.yaml").write_text("things: [road]")
    assert [c.isthing for c in Folder.open(tmp_path, "train").taxonomy.categories] == [False, True]


def test_folder_nnunet_that_is_not_read_has_a_cure(tmp_path):
    regions = nnunet(tmp_path / "a", labels={"background": 0, "whole": [1, 2], "core": [2]})
    assert "whole is a region of several values" in refusal(lambda: Folder.open(regions, "train"))
    (regions / "classes.yaml").write_text("labels: {0: none, 1: rim, 2: core}")
    assert [c.name for c in Folder.open(regions, "train").taxonomy.categories] == ["none", "rim", "core"]
    channels = nnunet(tmp_path / "b", labels={"background": 0, "road": 1, "car": 2})
    put(channels / "imagesTr/road_0000_0001.png", np.zeros((3, 6), np.uint8))
    assert "another channel of an image" in refusal(lambda: Folder.open(channels, "train"))
    (channels / "classes.yaml").write_text('image_name: "*_0000"')
    assert len(Folder.open(channels, "train")) == 3
    volumes = tmp_path / "c/labelsTr"
    volumes.mkdir(parents=True)
    (volumes / "brain.nii.gz").write_bytes(b"0" * 400)
    content = {"labels": {"background": 0, "tumour": 1}, "numTraining": 1, "file_ending": ".nii.gz"}
    (tmp_path / "c/dataset.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="save the slices of imagesTr and labelsTr as PNG or TIFF"):
        open_dataset(with_prefix(str(tmp_path / "c")), (1, 1))


@pytest.mark.parametrize("given", ["A1", "."])
def test_folder_plants_have_several_label_images(tmp_path, given):
    """As the leaves of CVPPP."""
    for number in range(3):
        leaves = np.repeat(np.repeat(np.array([[0, 1, 2], [3, 0, number + 1]], np.uint8), 8, 0), 8, 1)
        kinds = {"rgb": np.zeros((16, 24, 3), np.uint8), "label": leaves, "fg": (leaves > 0) * np.uint8(255)}
        for kind, pixels in (kinds | {"centers": kinds["fg"]}).items():
            put(tmp_path / f"A1/plant{number:03d}_{kind}.png", pixels)
    with pytest.raises(InputError) as caught:
        open_dataset(with_prefix(str(tmp_path / given)), (1, 1))
    lines = 'image_name: "*_rgb" and label_name: "*_label"'
    assert f"{lines} to {tmp_path / 'A1/classes.yaml'}" in str(caught.value)
    assert given == "A1" or f"give {tmp_path / 'A1'}" in str(caught.value)
    (tmp_path / "A1/classes.yaml").write_text(lines.replace(" and ", "\n") + "\ncoding: instance")
    data = Folder.open(tmp_path / "A1")
    assert [len(sample.panoptic.things) for sample in data] == [3, 3, 3]
    assert len(data.skipped) == 6


def test_folder_takes_folders_that_are_links(tmp_path):
    for name in "ab":
        pair(tmp_path / "disk", f"images/{name}.png", f"labels/{name}.png")
        pair(tmp_path / "here", f"images/own/{name}.png", f"labels/own/{name}.png")
    for kind in ("images", "labels"):
        (tmp_path / "here" / kind / "more").symlink_to(tmp_path / "disk" / kind)
        (tmp_path / "disk" / kind / "ring").symlink_to(tmp_path / "here" / kind)
    names = ["more/a.png", "more/b.png", "own/a.png", "own/b.png"]
    assert [record["file_name"] for record in Folder.open(tmp_path / "here").records] == names


def test_folder_links_to_nothing_are_said(tmp_path):
    """git-annex and DVC leave them where a file was not fetched, here of an image and its labels."""
    for stem in "ab":
        pair(tmp_path, f"images/{stem}.png", f"labels/{stem}.png")
    for kind in ("images", "labels"):
        (tmp_path / kind / "b.png").unlink()
        (tmp_path / kind / "b.png").symlink_to(tmp_path / "annex")
    assert "labels/b.png is missing" in refusal(lambda: Folder.open(tmp_path))


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.float32])
def test_folder_arrays_of_numpy_are_labels(tmp_path, kind):
    draw(tmp_path, CLASSES.astype(np.uint8), **NAMES)
    (tmp_path / "labels/a.png").unlink()
    np.save(tmp_path / "labels/a.npy", CLASSES.astype(kind))
    assert facts(Folder.open(tmp_path)) == TRUTH


def test_folder_arrays_beside_label_images_are_skipped(tmp_path):
    draw(tmp_path, CLASSES.astype(np.uint8), **NAMES)
    for name in ("a.npy", "a_seg.npy"):
        np.save(tmp_path / "labels" / name, np.zeros(3))
    data = Folder.open(tmp_path)
    assert facts(data) == TRUTH and [path.name for path in data.skipped] == ["a.npy", "a_seg.npy"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (np.array({"masks": 1}), "Python objects"),
        (np.zeros((3, 6, 2), int), "an array of shape 3 x 6 x 2 and type int64; save one"),
        (np.full((3, 6), -1), "not whole numbers from 0, such as -1"),
        (np.ones((3, 5), int), "5 x 3 but its image"),
        (None, "cannot be read as array"),
    ],
)
def test_folder_arrays_that_are_no_labels_are_refused(tmp_path, content, says):
    draw(tmp_path, CLASSES.astype(np.uint8), **NAMES)
    (tmp_path / "labels/a.png").unlink()
    if content is None:
        (tmp_path / "labels/a.npy").write_bytes(b"\x93NUMPY\x01\x00")
    else:
        np.save(tmp_path / "labels/a.npy", content)
    assert says in refusal(lambda: Folder.open(tmp_path)[0])


def test_folder_of_coco_stuff_is_not_taken_for_its_splits(tmp_path):
    for place in ("images/train2017", "images/val2017", "stuffthingmaps/train2017", "stuffthingmaps/val2017"):
        put(tmp_path / place / "a.png", np.zeros((3, 6, 3), np.uint8))
    assert "call stuffthingmaps 'labels'" in refusal(lambda: Folder.open(tmp_path))


def test_folder_of_dota_has_a_cure(tmp_path):
    put(tmp_path / "images/a.png", np.zeros((3, 6, 3), np.uint8))
    (tmp_path / "labelTxt").mkdir()
    row = "1.0 1.0 4.0 1.0 4.0 2.0 1.0 2.0 small-vehicle 1"
    (tmp_path / "labelTxt/a.txt").write_text(f"imagesource:GoogleEarth\ngsd:0.14\n{row}\n")
    assert "boxes of DOTA, which are no outlines; iSAID has outlines" in refusal(lambda: Folder.open(tmp_path))


def test_folder_text_in_another_encoding_is_no_obstacle(tmp_path):
    put(tmp_path / "a.png", np.zeros((3, 6, 3), np.uint8))
    (tmp_path / "readme.txt").write_bytes("Käse".encode("latin-1"))
    assert "has no label images" in refusal(lambda: Folder.open(tmp_path))


def test_folder_number_before_class_is_among_the_choices(tmp_path):
    """MMDetection's number * 1000 + class, of which the numbers do not tell enough."""
    for name, kinds in {"a": (24, 26, 24, 26), "b": (26, 26, 24, 24)}.items():
        pixels = np.full((20, 20), 7, np.int32)
        for number, kind in enumerate(kinds, start=1):
            pixels[5 * number - 4 : 5 * number - 1, 2:6] = 1000 * number + kind
        put(tmp_path / f"images/{name}.png", np.zeros((20, 20, 3), np.uint8))
        put(tmp_path / f"labels/{name}.tif", pixels)
    message = refusal(lambda: Folder.open(tmp_path))
    assert "'coding: id*1000+class' (number of the object * 1000 + class)" in message
    (tmp_path / "classes.yaml").write_text("coding: id*1000+class")
    assert [len(sample.panoptic.things) for sample in Folder.open(tmp_path)] == [4, 4]


def test_folder_of_a_folder_with_images_and_labels_side_by_side(tmp_path):
    for stem in ("i1", "i2"):
        pair(tmp_path / "tiles", f"{stem} [x=0].png", f"{stem} [x=0]-labelled.tif")
    message = refusal(lambda: Folder.open(tmp_path))
    assert (
        f'label_name: "*-labelled" to {tmp_path / "tiles" / "classes.yaml"}, and give {tmp_path / "tiles"}' in message
    )
    (tmp_path / "tiles" / "classes.yaml").write_text('label_name: "*-labelled"')
    assert len(Folder.open(tmp_path / "tiles")) == 2


def test_folder_names_that_differ_in_zeros_are_said(tmp_path):
    for number in range(3):
        put(tmp_path / "images" / f"img_{number}.png", np.zeros((3, 6, 3), np.uint8))
        put(tmp_path / "labels" / f"img_{number:03}.png", CLASSES.astype(np.uint8))
    assert "only in the zeros before their numbers; write them alike" in refusal(lambda: Folder.open(tmp_path))


def test_folder_that_may_not_be_listed_is_an_error(tmp_path, monkeypatch):
    """Otherwise its images would be left out without a word."""
    list_folder = os.scandir

    def refuse(path="."):
        if Path(os.fsdecode(path)).name in ("closed", ".Trashes"):
            raise PermissionError(13, "Permission denied", path)
        return list_folder(path)

    for kind in ("images", "labels"):
        for part in ("open", "closed"):
            (tmp_path / kind / part).mkdir(parents=True)
            Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / kind / part / f"{part}.png")
    (tmp_path / "classes.yaml").write_text("coding: instance")
    assert len(open_dataset(f"folder:{tmp_path}", (32, 32))) == 2
    monkeypatch.setattr(os, "scandir", refuse)
    (tmp_path / "images" / ".Trashes").mkdir()
    (tmp_path / "images" / "closed").rename(tmp_path / "images" / "second")
    (tmp_path / "labels" / "closed").rename(tmp_path / "labels" / "second")
    assert len(open_dataset(f"folder:{tmp_path}", (32, 32))) == 2  # nothing of a hidden folder is asked for
    (tmp_path / "images" / "closed").mkdir()
    with pytest.raises(InputError, match=r"cannot list .*closed .*; check its permissions"):
        open_dataset(f"folder:{tmp_path}", (32, 32))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_folder_of_images_that_is_called_labels_is_said(tmp_path, suffix):
    for number in range(3):
        photograph = np.random.default_rng(number).integers(0, 256, (40, 40, 3)).astype(np.uint8)
        put(tmp_path / "images" / f"{number}.png", np.kron(np.eye(4, dtype=np.uint8), np.full((10, 10), 3, np.uint8)))
        put(tmp_path / "labels" / f"{number}{suffix}", photograph)
    message = refusal(lambda: Folder.open(tmp_path))
    assert f"{tmp_path / 'labels'} seems to hold the images, and {tmp_path / 'images'} the labels; swap" in message


@pytest.mark.parametrize("beside", ["", "images/ADE/training/street"])
def test_folder_of_ade20k_names_its_benchmark(tmp_path, beside):
    for number in range(3):
        put(tmp_path / beside / f"ADE_train_{number}.jpg", np.zeros((3, 6, 3), np.uint8))
        put(tmp_path / beside / f"ADE_train_{number}_seg.png", np.zeros((3, 6, 3), np.uint8))
    assert "ADEChallengeData2016" in refusal(lambda: Folder.open(tmp_path))


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        ("JPEGImages/480p/bear/0.jpg", "Annotations_unsupervised/480p/bear/0.png", r"give davis:.*@val"),
        ("JPEGImages/480p/bear/0.jpg", "Annotations/480p/bear/0.png", "move JPEGImages/480p to images"),
        ("train/JPEGImages/a/0.jpg", "train/Annotations/a/0.png", "YouTube-VOS"),
        ("imgs/a/0.jpg", "panomasks/a/0.png", "VIPSeg"),
        ("data_2d_raw/s/image_00/data_rect/0.png", "data_2d_semantics/train/s/image_00/instance/0.png", "KITTI-360"),
        ("train2017/0.jpg", "stuffthingmaps/train2017/0.png", "COCO-Stuff"),
        ("training/images/0.jpg", "training/v2.0/instances/0.png", r"'coding: class\*256\+id from 0'"),
        ("bladder/tissue images/0.png", "bladder/label masks/0.tif", "NuInsSeg"),
        ("train/0.jpg", "masks/0_m0_1.png", "Open Images"),
        ("training/images/0_training.tif", "training/mask/0_training_mask.gif", "DRIVE .* the field of view"),
    ],
)
def test_folder_of_a_known_data_set_as_distributed_has_a_cure(tmp_path, images, labels, says):
    put(tmp_path / images, np.zeros((3, 6, 3), np.uint8))
    put(tmp_path / labels, np.ones((3, 6), np.uint8))
    if "Open Images" in says:
        (tmp_path / "train-annotations-object-segmentation.csv").write_text("MaskPath,ImageID")
    if "DRIVE" in says:
        put(tmp_path / "training/1st_manual/0_manual1.gif", np.ones((3, 6), np.uint8))
    split = "train" if "YouTube" in says else "training" if "DRIVE" in says else ""
    assert re.search(says, refusal(lambda: Folder.open(tmp_path, split)))


def test_folder_of_coco_panoptic_names_its_prefix(tmp_path):
    (tmp_path / "panoptic.json").write_text('{"images": [], "annotations": [{"segments_info": []}], "categories": []}')
    assert refusal(lambda: Folder.open(tmp_path)).endswith(f"no folder of label images; give coco:{tmp_path}")


def test_folder_of_a_second_kind_of_label_images_offers_it(tmp_path):
    """As MMSegmentation leaves COCO-Stuff and others."""
    for number in range(3):
        put(tmp_path / "images" / f"{number}.jpg", np.zeros((3, 6, 3), np.uint8))
        put(tmp_path / "annotations" / f"{number}.png", CLASSES.astype(np.uint8))
        put(tmp_path / "annotations" / f"{number}_labelTrainIds.png", CLASSES.astype(np.uint8) + 1)
    message = refusal(lambda: Folder.open(tmp_path))
    assert f'write label_name: "*_labelTrainIds" to {tmp_path / "classes.yaml"} to take these' in message
    (tmp_path / "classes.yaml").write_text('label_name: "*_labelTrainIds"\ncoding: class\n')
    assert {category.name for category in Folder.open(tmp_path).taxonomy.categories} == {"0", "1", "2", "3"}
