import json
from pathlib import Path

import pytest
from PIL import Image

from pix2seqd import files
from pix2seqd.cli.convert_data import convert_data
from pix2seqd.data.annotations import FORMATS, conversion, recognize_annotations
from pix2seqd.data.convert import open_annotations
from pix2seqd.files import InputError

COMMAND = "pix2seqd convert-data"
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4]]}],
    "categories": [{"id": 1, "name": "cell"}],
}
LABELME = {"shapes": [{"label": "cell", "points": [[0, 0], [4, 0], [4, 4]]}], "imagePath": "a.jpg", "imageData": None}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_open_annotations_roboflow_splits(tmp_path, draw):
    for split in ("train", "valid"):
        write(tmp_path / split / "_annotations.coco.json", COCO)
        draw(tmp_path / split / "a.jpg")
    assert list(open_annotations(tmp_path)) == ["train", "valid"]


def test_open_annotations_coco_folder_takes_instances(tmp_path, draw):
    captions = {"images": COCO["images"], "annotations": [{"id": 1, "image_id": 1, "caption": "cells"}]}
    for split in ("train2017", "val2017"):
        write(tmp_path / f"annotations/instances_{split}.json", COCO)
        write(tmp_path / f"annotations/captions_{split}.json", captions)
        draw(tmp_path / split / "a.jpg")
    found = open_annotations(tmp_path)
    assert list(found) == ["train2017", "val2017"]
    assert found["val2017"].images == tmp_path / "val2017"


def test_open_annotations_several_files_are_listed(tmp_path, draw):
    for name in ("a", "b"):
        write(tmp_path / "sub" / f"{name}.json", COCO)
    with pytest.raises(InputError, match=r"several json files; give one of them: .*a\.json or .*b\.json"):
        open_annotations(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", [{"image_id": 1, "category_id": 1, "bbox": []}], "results of a model"),
        ("a.json", [{"data_row": {}}], "Labelbox"),
        ("a.json", [{"segmentation": {}, "area": 9, "predicted_iou": 0.9}], "masks of Segment Anything"),
        ("a.json", [{"data": {}, "annotations": []}], "label some in Label Studio"),
        ("a.json", {"objects": [], "size": {}}, "Supervisely"),
        ("a.json", {"items": [], "categories": {}}, "Datumaro"),
        ("a.json", [{"image": "a.jpg", "annotations": []}], "CreateML"),
        ("a.geojson", {"type": "Point", "coordinates": [1, 2]}, "COCO detection json, YOLO"),
        ("a.json", {"images": [], "annotations": [{"segments_info": []}], "categories": []}, "needs no conversion"),
        ("a.json", {"hello": 1}, "COCO detection json, YOLO"),
        ("a.json", "[", "not valid JSON"),
        ("a.zip", "PK", "unpack"),
        ("a.txt", "0 0 0 1 1 1 0", "data.yaml"),
        ("a.ndjson", "{}", "Labelbox"),
        ("a.csv", "a,b", "COCO"),
        ("a.json", {"item": {}, "annotations": []}, "Darwin"),
        ("a.json", {"metadata": {}, "instances": []}, "SuperAnnotate"),
        ("a.json", {"imgHeight": 6, "objects": []}, "Cityscapes"),
        ("a.json", {"dataset": "d", "image": {}, "annotations": []}, "Darwin"),
        ("a.json", [{"className": "car", "points": []}], "SuperAnnotate"),
        ("a.json", {"project_name": "p", "label_classes": [], "images": []}, "Hasty"),
        ("a.json", {"filename": "/a.jpg", "annotations": [], "metadata": {}}, "Dataloop"),
        ("a.json", {"name": "n", "dataset": {}, "samples": []}, "Segments.ai"),
        ("a.json", {"asset": {}, "regions": []}, "VoTT"),
        ("a.json", {"name": "p", "tags": [], "assets": {}}, "VoTT"),
        ("a.vott", {"name": "p"}, "VoTT exports no masks"),
        ("a.json", [{"label_hash": "h", "data_units": {}}], "Encord"),
        ("a.json", [{"externalId": "a.jpg", "labels": []}], "Kili"),
        ("a.json", [{"task_id": "t", "response": {}}], "Scale"),
        ("a.json", [{"image": "a.jpg", "label": []}], "Label Studio"),
        ("a.json", [{"name": "a.jpg", "labels": []}], "BDD100K"),
        ("a.json", {"image": {}, "annotations": []}, "SA-1B"),
        ("a.json", {"project": {}, "file": {}, "metadata": {}}, "VIA 3"),
        ("a.csv", "MaskPath,ImageID,LabelName", "masks/IMAGE"),
        ("a.csv", "filename,xmin,ymin,xmax,ymax", "bounding boxes only"),
        ("a.xml", "<annotation><object><name>a</name></object></annotation>", "has only bounding boxes"),
        ("a.json", {"labels": {}, "numTraining": 2, "file_ending": ".png"}, "save the slices of imagesTr and labelsTr"),
        ("a.json", {"samples": [{"filepath": "data/a.jpg"}]}, "FiftyOne; export it as COCODetectionDataset"),
        ("a.nii.gz", "", "save the slices"),
        ("a.parquet", "PAR1", "as files"),
        ("a.h5", "x", "PNG or TIFF"),
        ("a.manifest", "{}", "SageMaker"),
        ("a.roi", "Iout", "ROIs that are damaged"),
        ("a.npy", "x", "PNG or TIFF"),
        ("a.yaml", "a: 1", "COCO detection json, YOLO"),
        ("a.json", {"info": {"description": "ISAT"}, "objects": []}, "ISAT"),
        ("a.json", {"videos": [], "annotations": [], "categories": []}, "tracks of videos"),
        ("a.json", {"id": 1, "task": {}, "result": []}, "Label Studio; export the project as JSON"),
        ("a.json", {"annotation": {"object": []}}, "ADE20K"),
        ("a.json", {"features": {"xy": []}, "metadata": {}}, "xBD"),
        ("a.csv", "annotation_id,annotator,id,image,label", "Label Studio; export it as JSON"),
        ("a.csv", "index,shape-type,vertex-index,axis-0,axis-1", "convert the layer to labels"),
        ("a.ndjson", "{}", "Ultralytics, export YOLO"),
        ("a.seg.nrrd", "NRRD", "save its slices"),
        ("a.ilp", "", "export its images and label images"),
        ("a.annotations", "<Annotations/>", "GeoJSON"),
        ("a.arrow", "ARROW1", "as files"),
        ("a.tar", "", "unpack"),
        ("a.foo", "", "COCO detection json, YOLO"),
    ],
)
def test_open_annotations_refuses_other_formats_with_a_cure(tmp_path, name, content, says):
    write(tmp_path / name, content)
    with pytest.raises(InputError, match=says) as caught:
        open_annotations(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "a,b"),
        ("a.csv", "id,encoding"),
        ("a.ndjson", "{}"),
        ("a.xml", "<Annotations/>"),
        ("a.geojson", '{"type": "Point", "coordinates": [1, 2]}'),
        ("RoiSet.zip", "PK"),
        ("b/c/a.json", {"hello": 1}),
        ("a.nrrd", "NRRD"),
        ("a.zarr/0/0/0", "x"),
    ],
)
def test_open_annotations_names_what_it_found_in_a_folder(tmp_path, draw, name, content):
    draw(tmp_path / "a.jpg")
    write(tmp_path / "readme.txt", "nothing")
    write(tmp_path / name, content)
    with pytest.raises(InputError) as caught:
        open_annotations(tmp_path)
    place = name.partition("/0")[0]  # a zarr is a folder
    assert str(tmp_path / place) in str(caught.value) and "readme" not in str(caught.value)


def test_open_annotations_of_label_images_need_no_conversion(tmp_path, draw):
    draw(tmp_path / "images/a.jpg")
    draw(tmp_path / "labels/a.png")
    with pytest.raises(InputError, match=r"needs no conversion; .* pix2seqd check-data"):
        open_annotations(tmp_path)


@pytest.mark.parametrize("missing", ["nowhere", "a.json"])
def test_open_annotations_missing(tmp_path, missing):
    with pytest.raises(InputError, match="does not exist"):
        open_annotations(tmp_path / missing)
    write(tmp_path / "x.json", COCO)
    with pytest.raises(InputError, match="not a folder"):
        open_annotations(tmp_path / "x.json", tmp_path / missing)


def test_conversion_is_the_whole_command(tmp_path, draw):
    write(tmp_path / "my data/a.json", COCO)
    assert conversion(tmp_path / "my data").endswith(
        f"pix2seqd convert-data '{tmp_path}/my data/a.json' OUT --images FOLDER_OF_IMAGES"
    )
    draw(tmp_path / "my data/a.jpg")
    assert conversion(tmp_path / "my data").endswith(f"pix2seqd convert-data '{tmp_path}/my data/a.json' OUT")
    write(tmp_path / "l/a.json", LABELME)
    draw(tmp_path / "l/a.jpg")
    assert conversion(tmp_path / "l").endswith(f"(Labelme), to be converted first: {COMMAND} {tmp_path}/l OUT")


def test_recognize_annotations_plain_folders_have_none(tmp_path, draw):
    draw(tmp_path / "images/a.jpg")
    draw(tmp_path / "labels/a.png")
    write(tmp_path / "readme.txt", "1 2 3 4 5 cells")
    write(tmp_path / "settings.json", {"a": 1})
    write(tmp_path / "page.xml", "<html/>")
    assert recognize_annotations(tmp_path) is None and conversion(tmp_path) == ""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("annotations.xml", "<annotations>" + '<a b="c"/>' * 5000 + "</annotations>"),
        ("labels.csv", "ImageId,EncodedPixels\n" + "a.png,1 1\n" * 5000),
        ("labels/a.txt", "0 .1 .1 .2 .2 .3 .1\n" * 5000),
    ],
)
def test_annotations_that_need_more_memory_than_allowed_are_refused(name, content, tmp_path, monkeypatch):
    (tmp_path / "images").mkdir()
    Image.new("L", (8, 6)).save(tmp_path / "images/a.png")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    monkeypatch.setattr(files, "MAX_MEMORY", 1_000_000)
    monkeypatch.setattr(files, "MAX_GROWTH", 0)
    with pytest.raises(InputError, match=f"{Path(name).name} would take about .* GB of memory"):
        open_annotations(tmp_path if name.startswith("labels/") else tmp_path / name)


def test_the_help_of_convert_data_names_the_formats():
    assert FORMATS in " ".join((convert_data.__doc__ or "").split())
