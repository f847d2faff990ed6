"""Tables of classes beside label images, drawn here."""

import numpy as np
import pytest
from miniatures import refusal
from PIL import Image

from pix2seqd.data.folder import Folder

CAMVID = "name,r,g,b\nRoad,128,64,128\nCar,0,0,142\nVoid,0,0,0\n"


def data_set(home, colors, names=("a", "b"), mode="RGB"):
    """Images of 8 x 6, and label images that have each colour in a column."""
    for folder in ("images", "labels"):
        (home / folder).mkdir(parents=True)
    for name in names:
        Image.new("RGB", (8, 6)).save(home / "images" / f"{name}.jpg")
        drawn = np.array(colors, np.uint8)[np.arange(8) * len(colors) // 8][None].repeat(6, 0)
        image = Image.fromarray(drawn)
        (image.quantize() if mode == "P" else image).save(home / "labels" / f"{name}.png")
    return home


@pytest.mark.parametrize("mode", ["RGB", "P"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("class_dict.csv", CAMVID),
        ("class_dict_seg.csv", CAMVID.replace(",", ", ")),
        ("classes.csv", CAMVID.replace(",", ";").replace("name", "Class").upper().replace("ROAD", "Road")),
        ("colors.csv", "id,red,green,blue,label\n1,128,64,128,Road\n2,0,0,142,Car\n0,0,0,0,void\n"),
        ("label_colors.txt", "128 64 128\tRoad\n0 0 142\tCar\n0 0 0\tVoid\n"),
        ("label_colors.txt", "# CVAT\n128 64 128 Road\n0 0 142 Car\n0 0 0 void\n"),
    ],
)
def test_folder_colours_of_a_table(tmp_path, mode, name, text):
    home = data_set(tmp_path, [(128, 64, 128), (0, 0, 142), (0, 0, 0), (128, 64, 128)], mode=mode)
    (home / name).write_text(text)
    (home / "notes.csv").write_bytes(b"patient,r\xe4ume\n1,2\n")
    data = Folder.open(home)
    assert data.labels.coding == "color" and f"colors: those of {name}" in data.labels.assumed
    assert [(c.name.lower(), c.isthing) for c in data.taxonomy.categories] == [("road", False), ("car", False)]
    assert [(s.name.lower(), s.area) for s in data[0].panoptic.segments] == [("road", 24), ("car", 12)]


def test_folder_colours_that_were_interpolated_are_said(tmp_path):
    home = data_set(tmp_path, [(128, 64, 128), (0, 0, 142)])
    (home / "class_dict.csv").write_text(CAMVID)
    drawn = np.asarray(Image.open(home / "labels/b.png")).copy()
    drawn[0, 0] += 1
    Image.fromarray(drawn).save(home / "labels/b.png")
    assert "colour [129, 65, 129] is not in colors; add it" in refusal(lambda: Folder.open(home)[1])
    drawn[..., 0] += np.arange(48, dtype=np.uint8).reshape(6, 8)
    Image.fromarray(drawn).save(home / "labels/b.png")
    assert "JPEG or resizing has smeared them" in refusal(lambda: Folder.open(home)[1])


def test_folder_declaration_comes_before_a_table_of_colours(tmp_path):
    home = data_set(tmp_path, [(128, 64, 128), (0, 0, 142)])
    (home / "class_dict.csv").write_text(CAMVID)
    (home / "classes.yaml").write_text('colors: {street: "#804080", auto: "#00008e"}\n')
    assert [c.name for c in Folder.open(home).taxonomy.categories] == ["street", "auto"]
    (home / "classes.yaml").write_text("things: [Car]\n")
    assert [c.name for c in Folder.open(home).taxonomy.categories if c.isthing] == ["Car"]


def test_folder_grey_values_beside_a_table_of_colours_are_not_guessed(tmp_path):
    home = data_set(tmp_path, [0, 1, 2])
    (home / "class_dict.csv").write_text(CAMVID)
    line = "labels: {0: Road, 1: Car, 2: Void}"
    assert f"'{line}'" in refusal(lambda: Folder.open(home))
    (home / "classes.yaml").write_text(line)
    assert [c.name for c in Folder.open(home).taxonomy.categories] == ["Road", "Car", "Void"]
    (home / "classes.yaml").unlink()
    (home / "class_dict.csv").write_text("name,r,g,b\nnone,0,0,0\nedge,1,1,1\ncell,2,2,2\n")
    assert [c.name for c in Folder.open(home).taxonomy.categories] == ["none", "edge", "cell"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,r,g,b\nroad,1,2\n", "line 2 is not a name and red"),
        ("name,r,g,b\nroad,1,2,256\n", "line 2 is not a name and red"),
        ("name,r,g,b\n\nroad,1,2,3\n\n# old\ncar,1,2\n", "line 6 is not a name and red"),
        ("name,r,g,b\nroad,1,2,x\n", "line 2 is not a name and red"),
        ("name,r,g,b\na,1,2,3\na,1,2,4\n", "two rows of the name or colour of a"),
        ("name,r,g,b\na,1,2,3\nb,1,2,3\n", "two rows of the name or colour of a"),
        ("name,r,g,b\n,1,2,3\n", "has no name; give it one"),
    ],
)
def test_folder_rejects_a_damaged_table_of_colours(tmp_path, text, says):
    home = data_set(tmp_path, [(1, 2, 3), (1, 2, 4)])
    (home / "class_dict.csv").write_text(text)
    message = refusal(lambda: Folder.open(home))
    assert says in message and str(home / "class_dict.csv") in message


def test_folder_rejects_two_tables_of_colours(tmp_path):
    home = data_set(tmp_path, [(1, 2, 3), (1, 2, 4)])
    for name in ("a.csv", "b.csv"):
        (home / name).write_text(CAMVID)
    assert "a.csv and b.csv; keep" in refusal(lambda: Folder.open(home))
