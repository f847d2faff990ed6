import numpy as np
import pytest
from PIL import Image

from pix2seqd.data.convert import convert, open_annotations
from pix2seqd.files import InputError

ROBOFLOW = """<annotation><folder></folder><filename>{name}</filename><size><width>8</width><height>6</height></size>
<object><name>cat</name><bndbox><xmin>1</xmin><xmax>4</xmax><ymin>1</ymin><ymax>3</ymax></bndbox>
<polygon><x1>1</x1><y1>1</y1><x2>4</x2><y2>1</y2><x3>4</x3><y3>3</y3><x4>1</x4><y4>3</y4></polygon></object>
<object><name>dog</name><bndbox/></object></annotation>"""
LABELME = """<annotation><filename>
{name}
</filename><folder>x</folder><object><name> cat </name><deleted>0</deleted><polygon><username/>
<pt><x> 1 </x><y>1</y></pt><pt><x>4</x><y>1</y></pt><pt><x>4</x><y>3</y></pt><pt><x>1</x><y>3</y></pt></polygon>
</object><object><name>old</name><deleted>1</deleted></object><imagesize><nrows>6</nrows><ncols>8</ncols></imagesize>
</annotation>"""


def put(folder, content, name="a.jpg"):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(folder / name)
    (folder / f"{name[:-4]}.xml").write_text(content.format(name=name))


@pytest.mark.parametrize(("content", "names"), [(ROBOFLOW, ["cat", "dog"]), (LABELME, ["cat"])])
def test_voc_xml_polygons(tmp_path, content, names):
    put(tmp_path / "d", content)
    (annotations,) = open_annotations(tmp_path / "d").values()
    assert [c.name for c in annotations.taxonomy.categories] == names
    report = convert(annotations, tmp_path / "out")
    assert (report.images, report.segments) == (1, 1)
    assert report.dropped == ["object 2 (dog) of a.jpg: it has only a bounding box, no outline"] * (len(names) - 1)
    assert (np.asarray(Image.open(tmp_path / "out/panoptic/a.png"))[..., 0] > 0).sum() == 6


def test_voc_xml_splits_and_images_without_objects(tmp_path):
    put(tmp_path / "train", ROBOFLOW, "a_jpg.rf.0a.jpg")
    put(tmp_path / "train", "<annotation><filename>{name}</filename></annotation>", "b.jpg")
    put(tmp_path / "valid", ROBOFLOW)
    found = open_annotations(tmp_path)
    assert {split: [r.file_name for r in part.records] for split, part in found.items()} == {
        "train": ["train/a_jpg.rf.0a.jpg", "train/b.jpg"],
        "valid": ["valid/a.jpg"],
    }


def test_voc_xml_boxes_only_and_damaged_points(tmp_path):
    put(
        tmp_path / "boxes",
        "<annotation><filename>{name}</filename><object><name>a</name><bndbox/></object></annotation>",
    )
    with pytest.raises(InputError, match="has only bounding boxes"):
        open_annotations(tmp_path / "boxes")
    put(tmp_path / "damaged", ROBOFLOW.replace("<y2>1</y2>", ""))
    (annotations,) = open_annotations(tmp_path / "damaged").values()
    with pytest.raises(ValueError, match="not pairs of numbers"):
        annotations.records[0].shapes[0].mask(6, 8)
