"""Valid files of every kind that the package reads, and damaged ones: a reader gives a result or one line."""

import copy
import io
import json
import random
import resource
import shutil
import sys
import tempfile
import time
import zipfile
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import tifffile
import yaml
from PIL import Image

from pix2seqd.checkpoint import BUNDLED, from_pretrained
from pix2seqd.data import archive, open_dataset
from pix2seqd.data.archive import children, locate, read_image, read_png
from pix2seqd.data.convert import convert, open_annotations
from pix2seqd.data.label_images import read_label_image
from pix2seqd.data.outlines import decode_mask
from pix2seqd.data.shards import write_shards
from pix2seqd.data.synthetic.shapes import Shapes
from pix2seqd.files import InputError, is_control, read_json, read_yaml
from pix2seqd.images import familiarity
from pix2seqd.images.frames import VideoWriter, open_clip
from pix2seqd.images.load import load_image, open_pixels
from pix2seqd.interop.cards import read_card
from pix2seqd.panoptic.results import PanopticWriter
from pix2seqd.panoptic.taxonomy import Taxonomy

SECONDS, BYTES = 5, 2**30
"""What reading one file may take: of the processor's time, and of memory beside what is taken anyway."""
EXTREMES = [b"\0", b"\xff", b"\xff\xff", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\1\0", b"\xff" * 8, b"\x1b[31m"]
VALUES = [
    *(None, True, -1, 0, 2**16, 2**31, 2**63, 10**30, 1e308, -0.5, float("nan"), float("inf")),
    *("", "x" * 5000, "\x1b]0;x\x07", "a\nb", "../../etc/passwd", "\ud800", [], {}, [[]], [1] * 5000, {"a": {}}),
]


def pixels(*shape: int, kind: type = np.uint8) -> np.ndarray:
    """The same values every time."""
    return np.random.default_rng(3).integers(0, np.iinfo(kind).max, shape).astype(kind)


def stored(image: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    """An image file that Pillow writes."""
    content = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(content, kind, **options)
    return content.getvalue()


def tiff(values: np.ndarray, **options) -> bytes:
    """A TIFF file."""
    content = io.BytesIO()
    tifffile.imwrite(content, values, **options)
    return content.getvalue()


def video(folder: Path) -> bytes:
    """Six frames of H.264."""
    with VideoWriter(folder / "clip.mp4", Fraction(10)) as writer:
        for number in range(6):
            writer.write(Image.fromarray(np.full((32, 48, 3), 40 * number, np.uint8)), number / 10)
    return (folder / "clip.mp4").read_bytes()


LABELS = np.kron(np.arange(12).reshape(3, 4), np.ones((8, 8), int)).astype(np.uint8)
GREY = Image.fromarray(pixels(24, 32))
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 32, "height": 24}],
    "annotations": [
        {
            "image_id": 1,
            "file_name": "a.png",
            "segments_info": [
                {"id": n, "category_id": 1, "area": 64, "bbox": [0, 0, 8, 8], "iscrowd": 0} for n in range(1, 12)
            ],
        }
    ],
    "categories": [{"id": 1, "name": "cell", "isthing": 1, "color": [200, 0, 0]}],
}
CLASSES = {"labels": {value: f"class {value}" for value in range(12)}, "stuff": ["class 1"], "things": ["class 2"]}
OUTLINES = [
    [[1, 1, 8, 1, 8, 8, 1, 8]],
    {"counts": [10, 20, 30, 708], "size": [24, 32]},
    {"counts": "Ph0", "size": [24, 32]},
]


SQUARE = [[1, 1], [20, 1], [20, 12], [1, 12]]
PNG = b64encode(stored(LABELS[:8, :8], "PNG")).decode()
BITMAP = b64encode(zlib.compress(stored(np.full((4, 4), 255, np.uint8), "PNG"))).decode()
LABELME = [
    {"label": "cell", "points": points, "group_id": None, "shape_type": kind, **more}
    for kind, points, more in (
        ("polygon", SQUARE, {}),
        ("circle", SQUARE[:2], {}),
        ("mask", [[1, 1], [8, 8]], {"mask": PNG}),
    )
]
VIA = [
    {"shape_attributes": shape, "region_attributes": {"kind": "cell"}}
    for shape in (
        {"name": "polygon", "all_points_x": [1, 20, 20], "all_points_y": [1, 1, 12]},
        {"name": "ellipse", "cx": 9, "cy": 9, "rx": 4, "ry": 2, "theta": 0.5},
    )
]
SUPERVISELY = [
    {"classTitle": "cell", "geometryType": "polygon", "points": {"exterior": SQUARE, "interior": [SQUARE[1:]]}},
    {"classTitle": "cell", "geometryType": "bitmap", "bitmap": {"data": BITMAP, "origin": [6, 4]}},
]
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><job><labels><label><name>cell</name><color>#ff0000</color></label></labels>
</job></meta><image id="0" name="a.png" width="32" height="24">
<polygon label="cell" points="1.0,1.0;4,1;4,3;1,3" z_order="0"/><ellipse label="cell" cx="4" cy="3" rx="2" ry="1"/>
<box label="cell" xtl="2" ytl="2" xbr="6" ybr="4" rotation="90"/>
<mask label="cell" rle="1, 2, 1, 2" left="5" top="3" width="3" height="2"/></image></annotations>"""
DETECTION = {
    **COCO,
    "annotations": [
        {"id": n, "image_id": 1, "category_id": 1, "bbox": [0, 0, 8, 8], "iscrowd": 0, "segmentation": outline}
        for n, outline in enumerate(OUTLINES)
    ],
}
ANNOTATIONS = {
    "detection": ("instances_val.json", json.dumps(DETECTION)),
    "cvat": ("annotations.xml", CVAT),
    "labelme": ("a.json", json.dumps({"shapes": LABELME, "imagePath": "a.png", "imageHeight": 24, "imageWidth": 32})),
    "via": ("via.json", json.dumps({"a": {"filename": "a.png", "size": 1, "regions": VIA, "file_attributes": {}}})),
    "supervisely": ("d/ann/a.png.json", json.dumps({"size": {"height": 24, "width": 32}, "objects": SUPERVISELY})),
    "yolo": ("labels/a.txt", "0 0.1 0.1 0.5 0.1 0.5 0.6\n1 0.5 0.5 0.2 0.2\n"),
    "yolo settings": ("data.yaml", "path: .\ntrain: images\nval: images\nnames: {0: cell, 1: dot}\n"),
    "runs": ("labels.csv", "ImageId,ClassId,EncodedPixels\na.png,3,8 2 14 2\na.png,1,1 1\n"),
    "voc list": ("ImageSets/Segmentation/train.txt", "a\nb\n"),
}
"""Name and content of the file that is damaged, by kind; `read_annotations` adds the others."""
SHARD = ("index.json", "shard-000000.tar")
CELLS = [{"id": 1, "name": "cell", "isthing": 1, "color": [200, 0, 0]}]


def seeds(folder: Path) -> dict[str, list[bytes]]:
    """Valid files by kind."""
    colour, deep = pixels(24, 32, 3), pixels(24, 32, kind=np.uint16)
    frames = [Image.fromarray(np.full((24, 32), 80 * number, np.uint8)) for number in range(3)]
    several = {"save_all": True, "append_images": frames[1:]}
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("d/a.png", stored(colour, "PNG"))
        target.writestr("d/b.json", json.dumps(COCO))
    weights = BUNDLED / "shapes"
    return {
        **shards(folder / "shards"),
        "image": [
            *(stored(colour, kind) for kind in ("PNG", "JPEG", "BMP", "WEBP", "PPM")),
            *(stored(GREY, kind) for kind in ("PNG", "GIF", "TIFF")),
            stored(Image.fromarray(deep), "PNG"),
            tiff(colour, compression="zlib"),
            tiff(deep, tile=(16, 16), compression="lzw"),
            tiff(pixels(3, 24, 32)),
            b"P3 2 2 255 " + b"9 " * 12,
        ],
        "label": [stored(LABELS, "PNG"), tiff(LABELS.astype(np.uint16)), tiff(LABELS, compression="zlib")],
        "clip": [
            video(folder),
            tiff(pixels(4, 24, 32), imagej=True, metadata={"axes": "TYX"}),
            stored(frames[0], "GIF", **several),
        ],
        "json": [json.dumps(COCO).encode()],
        "coco": [json.dumps(COCO).encode()],
        "yaml": [yaml.safe_dump(CLASSES).encode(), b"a: [1, 2, {b: c}]\nd: 1\n"],
        "classes": [yaml.safe_dump(CLASSES).encode()],
        "outline": [json.dumps(outline).encode() for outline in OUTLINES],
        "zip": [zipped.getvalue()],
        "config": [(weights / "config.json").read_bytes()],
        "weights": [(weights / "model.safetensors").read_bytes()],
        "familiarity": [(weights / familiarity.FILE).read_bytes()],
        "card": [(weights / "README.md").read_bytes()],
        "result": [json.dumps({"info": {"description": "written by pix2seqd segment"}, **COCO}).encode()],
        "pyramid": [pyramid(folder)],
        **{kind: [content.encode()] for kind, (_, content) in ANNOTATIONS.items()},
    }


def shards(folder: Path) -> dict[str, list[bytes]]:
    """The two files of a folder of shards, by kind."""
    shutil.rmtree(folder, ignore_errors=True)
    scenes = Shapes(2, (16, 20))
    write_shards(scenes.taxonomy, scenes, folder, megabytes=1)
    return {f"shards: {name}": [(folder / name).read_bytes()] for name in SHARD}


def read_clip(path: Path) -> None:
    """Some frames of a clip."""
    with open_clip(str(path), lambda _: None, 10.0) as clip:
        for _ in islice(clip.frames, 20):
            pass


def read_samples(source: str) -> None:
    """Some samples of a data set."""
    dataset = open_dataset(source, (32, 32))
    for number in range(min(2, len(dataset))):
        dataset[number]


def read_zip(path: Path) -> None:
    """Everything in a zip file."""
    archive._archive.cache_clear()
    home = locate(path.parent, path.name)
    for folder in children(home):
        for child in children(folder) if folder.is_dir() else ():
            for reading in (read_json, read_image, lambda file: read_png(file, ("L", "RGB"))):
                try:
                    reading(child)
                except InputError:
                    continue


def pyramid(folder: Path) -> bytes:
    """A TIFF in tiles with a second level."""
    with tifffile.TiffWriter(folder / "slide.tif") as file:
        file.write(pixels(48, 64, 3), subifds=1, tile=(16, 16), compression="zlib", photometric="rgb")
        file.write(pixels(24, 32, 3), subfiletype=1, tile=(16, 16), compression="jpeg", photometric="rgb")
    return (folder / "slide.tif").read_bytes()


def read_pyramid(path: Path) -> None:
    """All rows of a large image."""
    image = open_pixels(path)
    for start in range(0, image.height, max(1, image.height // 4)):
        image.rows(start, min(start + 8, image.height))


def read_annotations(kind: str, home: Path, content: bytes) -> None:
    """Convert a data set of which one file is damaged."""
    shutil.rmtree(home, ignore_errors=True)
    name, _ = ANNOTATIONS[kind]
    image = {"supervisely": "d/img/a.png", "labelme": "a.png", "voc list": "JPEGImages/a.png"}.get(kind, "images/a.png")
    files = {image: stored(pixels(24, 32, 3), "PNG")}
    if kind == "supervisely":
        files["meta.json"] = json.dumps({"classes": [{"title": "cell", "color": "#FF0000"}]}).encode()
    if kind.startswith("yolo"):
        files |= {ANNOTATIONS[each][0]: ANNOTATIONS[each][1].encode() for each in ("yolo", "yolo settings")}
    if kind == "voc list":
        masks = stored(Image.fromarray((LABELS % 3).astype(np.uint8)).convert("P"), "PNG")
        files |= {f"Segmentation{each}/a.png": masks for each in ("Object", "Class")}
    files[name] = content
    for file, written in files.items():
        (home / file).parent.mkdir(parents=True, exist_ok=True)
        (home / file).write_bytes(written)
    for split, part in open_annotations(home).items():
        convert(part, home / "out", split)


def read_result(home: Path, content: bytes) -> None:
    """Go on with a result of `pix2seqd segment`."""
    home.mkdir(exist_ok=True)
    (home / "panoptic.json").write_bytes(content)
    with PanopticWriter(home, Taxonomy.from_coco(CELLS), {}, []):
        pass


def read_outline(path: Path) -> None:
    """A segmentation of COCO json."""
    try:
        decode_mask(read_json(path), 24, 32).whole(24, 32)
    except ValueError as error:  # the caller adds the name of the file
        raise InputError(str(error)) from error


def read(kind: str, path: Path, content: bytes) -> None:
    """Read a file as a file of this kind."""
    path = path.with_suffix({"zip": ".zip"}.get(kind, ".tif" if content[:2] in (b"II", b"MM") else ".png"))
    path.write_bytes(content)
    home = path.parent
    match kind:
        case "image":
            load_image(path)
        case "label":
            read_label_image(path)
        case "clip":
            read_clip(path)
        case "json":
            read_json(path)
        case "yaml":
            read_yaml(content.decode("utf-8", "replace"), str(path))
        case "outline":
            read_outline(path)
        case "zip":
            read_zip(path)
        case "coco":
            for folder in ("images", "panoptic"):
                (home / folder).mkdir(exist_ok=True)
            (home / "images" / "a.png").write_bytes(stored(pixels(24, 32, 3), "PNG"))
            mask = np.zeros((24, 32, 3), np.uint8)
            mask[..., 0] = LABELS
            (home / "panoptic" / "a.png").write_bytes(stored(mask, "PNG"))
            (home / "panoptic.json").write_bytes(content)
            read_samples(f"coco:{home}")
        case "classes":
            for folder, values in (("images", np.zeros((24, 32, 3), np.uint8)), ("labels", LABELS)):
                (home / folder).mkdir(exist_ok=True)
                (home / folder / "a.png").write_bytes(stored(values, "PNG"))
            (home / "classes.yaml").write_bytes(content)
            read_samples(f"folder:{home}")
        case "pyramid":
            read_pyramid(path)
        case "result":
            read_result(home / "result", content)
        case "familiarity" | "card":
            model = home / kind
            model.mkdir(exist_ok=True)
            for name in ("config.json", "model.safetensors"):
                (model / name).unlink(missing_ok=True)
                (model / name).symlink_to(BUNDLED / "shapes" / name)
            (model / (familiarity.FILE if kind == "familiarity" else "README.md")).write_bytes(content)
            read_card(model) if kind == "card" else from_pretrained(model)
        case "shards: index.json" | "shards: shard-000000.tar":
            shards(home / "shards")
            (home / "shards" / kind.partition(": ")[2]).write_bytes(content)
            read_samples(f"shards:{home / 'shards'}")
        case "config" | "weights":
            model = home / "model"
            model.mkdir(exist_ok=True)
            for name in ("config.json", "model.safetensors"):
                target = model / name
                target.unlink(missing_ok=True)
                if (name == "config.json") == (kind == "config"):
                    target.write_bytes(content)
                else:
                    target.symlink_to(BUNDLED / "shapes" / name)
            from_pretrained(model)
        case _:
            read_annotations(kind, home / "annotated", content)


def places(node: object) -> Iterator[tuple[object, object]]:
    """(parent, key) of everything inside."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in list(items):
        yield node, key
        yield from places(value)


def edited(content: bytes, draw: random.Random, load: Callable, dump: Callable) -> bytes:
    """A text of JSON or YAML with some values replaced."""
    whole = [load(content)]
    for _ in range(draw.randint(1, 3)):
        parent, key = draw.choice(list(places(whole)))
        parent[key] = copy.deepcopy(draw.choice(VALUES))
    return dump(whole[0])


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The bytes with one to six changes."""
    changed = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 3, 6])):
        at = draw.randrange(min(len(changed), draw.choice([64, 512, 10**9])) or 1)
        piece = changed[at : at + draw.choice([1, 4, 16, 64])]
        match draw.randrange(6):
            case 0:
                changed[at : at + 1] = draw.randbytes(1)
            case 1:
                extreme = draw.choice(EXTREMES)
                changed[at : at + len(extreme)] = extreme
            case 2:
                del changed[at : at + len(piece)]
            case 3:
                changed[at:at] = piece * draw.choice([1, 2, 200])
            case 4:
                changed[at:at] = draw.randbytes(draw.randint(1, 30))
            case 5:
                del changed[at:]
        if not changed:
            break
    return bytes(changed)


JSONS = (
    *("json", "coco", "outline", "config", "result", "detection", "labelme", "via", "supervisely"),
    "shards: index.json",
)
"""Kinds of which most are damaged value by value."""


def strange(kind: str, valid: list[bytes], draw: random.Random) -> bytes:
    """A damaged file of a kind."""
    content = draw.choice(valid)
    if kind in JSONS and draw.random() < 0.7:
        return edited(content, draw, json.loads, lambda value: json.dumps(value).encode())
    if kind in ("yaml", "classes") and draw.random() < 0.5:
        return edited(content, draw, yaml.safe_load, lambda value: repr(value).encode("utf-8", "replace"))
    return damaged(content, draw)


def attempt(kind: str, valid: list[bytes], seed: int, folder: Path) -> str | None:
    """Read one strange file. Returns what is wrong with the reader's answer, or None."""
    content = strange(kind, valid, random.Random(f"{kind} {seed}"))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        read(kind, folder / "strange", content)
    except InputError as error:
        message = str(error)
        if any(map(is_control, message)) or len(message) > 3000:
            return f"message {message[:300]!r}"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:500]
    if (seconds := time.process_time() - began) > SECONDS:
        return f"{seconds:.1f} s"
    if (more := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) > BYTES // 1024:
        return f"{more // 1024} MB"
    return None


def main(first: int, count: int, *kinds: str) -> None:
    """Read `count` files of each kind, or of these, and print what is wrong as JSON lines."""
    folder = Path(tempfile.mkdtemp())
    try:
        for kind, valid in seeds(folder).items():
            if kinds and kind not in kinds:
                continue
            for content in valid:
                read(kind, folder / "strange", content)
            for seed in range(first, first + count):
                if wrong := attempt(kind, valid, seed, folder):
                    print(json.dumps({"kind": kind, "seed": seed, "wrong": wrong}), flush=True)
            print(json.dumps({"kind": kind, "read": count}), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
