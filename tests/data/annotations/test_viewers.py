import json
import tracemalloc
import zipfile

import numpy as np
import pytest
import roifile
from miniatures import refusal

from pix2seqd.data.annotations import conversion
from pix2seqd.data.annotations.viewers import is_roi_file
from pix2seqd.data.convert import open_annotations
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Category, Taxonomy

SQUARE = [[2, 1], [6, 1], [6, 5], [2, 5]]
HOLE = [[3, 2], [5, 2], [5, 4], [3, 4]]
FULL = ["........", "..####..", "..####..", "..####..", "..####..", "........"]
RING = [*FULL[:2], "..#..#..", "..#..#..", *FULL[4:]]
OVAL = ["........", "...##...", "..####..", "..####..", "...##...", "........"]


def vertices(points, tag="Vertex"):
    return "".join(f'<{tag} X="{x}" Y="{y}"/>' for x, y in points)


def region(points, **attributes):
    given = "".join(f' {key}="{value}"' for key, value in attributes.items())
    return f"<Region{given}><Attributes/><Vertices>{vertices(points)}</Vertices></Region>"


def scope(*layers):
    """ImageScope's XML with layers of a name of the attribute and regions."""
    text = "".join(
        f'<Annotation Id="{n}" Name=""><Attributes><Attribute Name="{name}" Value=""/></Attributes>'
        f"<Regions><RegionAttributeHeaders/>{''.join(regions)}</Regions></Annotation>"
        for n, (name, *regions) in enumerate(layers, start=1)
    )
    return f'<?xml version="1.0"?><Annotations MicronsPerPixel="0.25">{text}</Annotations>'


def asap(*shapes):
    text = "".join(
        f'<Annotation Name="A" Type="{kind}" PartOfGroup="{group}"><Coordinates>{vertices(points, "Coordinate")}'
        "</Coordinates></Annotation>"
        for kind, group, points in shapes
    )
    return f"<ASAP_Annotations><Annotations>{text}</Annotations><AnnotationGroups/></ASAP_Annotations>"


def feature(rings, kind="cell", form="Polygon", object_type="detection", **geometry):
    properties = {"objectType": object_type, **({"classification": {"name": kind}} if kind else {})}
    return {
        "type": "Feature",
        "geometry": {"type": form, "coordinates": rings, **geometry},
        "properties": properties,
    }


def closed(points):
    return [*points, points[0]]


@pytest.mark.parametrize(
    ("name", "content", "kind", "drawn"),
    [
        ("a.xml", scope(("Description", region(SQUARE))), "object", FULL),
        ("a.xml", scope(("Epithelial", region(SQUARE, Type=0))), "Epithelial", FULL),
        ("a.xml", scope(("", region(SQUARE), region(HOLE, NegativeROA=1))), "object", RING),
        ("a.xml", scope(("", region([SQUARE[0], SQUARE[2]], Type=1))), "object", FULL),
        ("a.xml", scope(("", region([SQUARE[2], SQUARE[0]], Type=2))), "object", OVAL),
        ("a.xml", scope(("",), ("", region([[f"{x},0", y] for x, y in SQUARE]))), "object", FULL),
        ("a.xml", asap(("Polygon", "None", SQUARE)), "object", FULL),
        ("a.xml", asap(("Spline", "Tumor", SQUARE)), "Tumor", FULL),
        ("a.geojson", {"type": "FeatureCollection", "features": [feature([closed(SQUARE)])]}, "cell", FULL),
        ("a.jpg.geojson", [feature([closed(SQUARE), closed(HOLE)], kind="")], "object", RING),
        ("a.json", feature([[closed(SQUARE)]], form="MultiPolygon"), "cell", FULL),
        ("a.geojson", feature([[[x, y, 0] for x, y in SQUARE]]), "cell", FULL),
    ],
)
@pytest.mark.parametrize("whole", [False, True])
def test_read_viewers_outlines_become_their_pixels(
    tmp_path, draw, converted, segments, name, content, kind, drawn, whole
):
    draw(tmp_path / "v/Tissue Images/a.jpg")
    path = tmp_path / "v/Annotations" / name
    path.parent.mkdir(parents=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    found = converted(tmp_path / "v") if whole else converted(path, tmp_path / "v/Tissue Images")
    assert segments(found[""][0]) == [(kind, drawn)]


def test_read_viewers_several_layers_are_classes(tmp_path, draw):
    """MoNuSAC names its layers; without names they have their number."""
    other = [[x + 2, y] for x, y in HOLE]
    for name, names in (("named", ("Epithelial", "Lymphocyte")), ("plain", ("", ""))):
        draw(tmp_path / name / "a.tif")
        path = tmp_path / name / "a.xml"
        path.write_text(scope((names[0], region(HOLE)), (names[1], region(other))))
        (record,) = open_annotations(path)[""].records
        assert record.file_name == "a.tif"
    assert [c.name for c in open_annotations(tmp_path / "named")[""].taxonomy.categories] == [
        "Epithelial",
        "Lymphocyte",
    ]
    assert [c.name for c in open_annotations(tmp_path / "plain")[""].taxonomy.categories] == ["layer 1", "layer 2"]


def square_roi(**given):
    roi = roifile.ImagejRoi.frompoints(np.array(SQUARE, np.int32), name="0003-0004")
    for key, value in given.items():
        setattr(roi, key, value)
    return roi


TEXT = bytearray(square_roi(roitype=roifile.ROI_TYPE.RECT).tobytes() + bytes(64))
TEXT[48:50] = b"\0\1"  # the subtype of text


@pytest.mark.parametrize("name", ["a.zip", "a.roi", "a_rois.zip", "a RoiSet.zip", "a-ROI.roi"])
def test_read_viewers_rois_of_imagej(tmp_path, draw, converted, segments, name):
    draw(tmp_path / "v/a.png")
    roifile.roiwrite(tmp_path / "v" / name, [square_roi()] if name.endswith("zip") else square_roi())
    assert segments(converted(tmp_path / "v")[""][0]) == [("object", FULL)]


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"name": "Tumor: Positive", "color": [1, 2, 3]}, "Tumor: Positive"),
        ({"names": ["Tumor", "Positive"]}, "Tumor: Positive"),
        ("Tumor", "Tumor"),
        ({}, "object"),
        ({"names": 5}, "object"),
        (None, "object"),
    ],
)
def test_read_viewers_classes_of_qupath(tmp_path, draw, given, kind):
    draw(tmp_path / "a.png")
    first, second = feature([SQUARE]), feature([HOLE], plane={"c": -1, "z": 0, "t": 0})
    for one in (first, second):
        one["properties"] = {"classification": given}
    (tmp_path / "a.geojson").write_text(json.dumps([first, second]))
    assert [category.name for category in open_annotations(tmp_path)[""].taxonomy.categories] == [kind]


@pytest.mark.parametrize("kind", ["RECT", "OVAL"])
def test_read_viewers_rectangles_and_ovals_of_imagej(tmp_path, draw, converted, segments, kind):
    draw(tmp_path / "v/a.png")
    roi = roifile.ImagejRoi(roitype=roifile.ROI_TYPE[kind], left=2, top=1, right=6, bottom=5)
    roifile.roiwrite(tmp_path / "v/a.roi", roi)
    assert segments(converted(tmp_path / "v")[""][0]) == [("object", FULL if kind == "RECT" else OVAL)]


@pytest.mark.parametrize("kind", ["geojson", "rois"])
def test_read_viewers_reads_what_segment_writes(tmp_path, draw, converted, kind):
    """Outlines of things in parts, with holes and with others in them, give the same pixels."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 4, (12, 16)) * (rng.random((12, 16)) < 0.7)
    taxonomy = Taxonomy((Category(1, "cell", True, (1, 2, 3)),))
    panoptic = Panoptic.from_segmentation(numbers, dict.fromkeys(np.unique(numbers[numbers > 0]).tolist(), 1), taxonomy)
    draw(tmp_path / "v/a.png", 16, 12)
    if kind == "geojson":
        (tmp_path / "v/a.geojson").write_text(json.dumps(panoptic.to_geojson()))
    else:
        roifile.roiwrite(tmp_path / "v/a.zip", panoptic.to_rois())
    read = converted(tmp_path / "v")[""][0].panoptic
    masks = {(read.segmentation == s.id).tobytes() for s in read.segments}
    assert masks == {(panoptic.segmentation == s.id).tobytes() for s in panoptic.segments}
    assert {s.name for s in read.segments} == {"cell" if kind == "geojson" else "object"}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.xml", scope(("", region([[1, 1], [4, 4]]))), "type 0 and 2 points"),
        ("a.xml", scope(("", region(SQUARE, Type=4))), "type 4"),
        ("a.xml", asap(("Dot", "None", [[1, 1]])), "Dot"),
        ("a.geojson", feature([1, 1], form="Point"), "Point"),
        ("a.geojson", {"type": "Feature"}, "None"),
        ("a.roi", square_roi(roitype=roifile.ROI_TYPE.POLYLINE), "polyline"),
        ("a.roi", TEXT, "text"),
    ],
)
def test_read_viewers_shapes_without_area_are_lost(tmp_path, draw, name, content, says):
    draw(tmp_path / "a.png")
    if name == "a.roi":
        (tmp_path / name).write_bytes(content if content is TEXT else content.tobytes())
    else:
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    (shape,) = open_annotations(tmp_path)[""].records[0].shapes
    assert says in shape.lost and "no area" in shape.lost


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.geojson", [feature([SQUARE]), feature([HOLE], object_type="annotation")], "annotations and detections"),
        ("a.geojson", [feature([SQUARE]), feature([HOLE], plane={"z": 1})], "several planes"),
        ("a.roi", "Iout", "save them again"),
    ],
)
def test_read_viewers_refuses_with_a_cure(tmp_path, draw, name, content, says):
    draw(tmp_path / "a.png")
    (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    message = refusal(lambda: open_annotations(tmp_path))
    assert says in message and str(tmp_path / name) in message


def test_is_roi_file_zip_file_of_a_later_version_is_none(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as held:
        held.writestr("a.roi", b"")
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[content.index(b"PK\1\2") + 6] = 99
    (tmp_path / "a.zip").write_bytes(content)
    assert not is_roi_file(tmp_path / "a.zip")


def test_read_viewers_joined_rois_with_curves_are_refused(tmp_path, draw):
    draw(tmp_path / "a.png")
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]])
    panoptic = Panoptic.from_segmentation(ring, {1: 1}, Taxonomy((Category(1, "cell", True, (1, 2, 3)),)))
    (roi,) = panoptic.to_rois()
    roi.multi_coordinates[3] = 2  # a curve instead of a line
    roifile.roiwrite(tmp_path / "a.roi", roi)
    assert "have curves; save them again" in refusal(lambda: open_annotations(tmp_path))


def test_read_viewers_zipped_rois_with_the_files_of_macos(tmp_path, draw):
    draw(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        target.writestr("set/1.roi", square_roi().tobytes())
        target.writestr("__MACOSX/set/._1.roi", b"\0\5\x16\7")
    (record,) = open_annotations(tmp_path)[""].records
    assert [shape.name for shape in record.shapes] == ["outline 1"]


def test_read_viewers_zipped_rois_are_unpacked_no_further_than_they_say(tmp_path, draw):
    draw(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("1.roi", bytes(2**25))
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace((2**25).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    tracemalloc.start()
    try:
        assert "a.zip" in refusal(lambda: open_annotations(tmp_path))
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_read_viewers_rois_packed_by_methods_that_unpack_all_at_once_are_refused(tmp_path, draw, compression):
    draw(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", compression) as target:
        target.writestr("1.roi", square_roi().tobytes())
    said = refusal(lambda: open_annotations(tmp_path))
    assert "a.zip/1.roi is packed by another method than deflate" in said


def test_read_viewers_zipped_roi_with_broken_stream_is_refused(tmp_path, draw):
    draw(tmp_path / "a.png")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("1.roi", bytes(2**12))
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[30 + len("1.roi")] = 0xFF  # after the header: no kind of block
    (tmp_path / "a.zip").write_bytes(content)
    assert "are damaged or have curves" in refusal(lambda: open_annotations(tmp_path))


def test_read_viewers_rois_of_a_stack_are_refused(tmp_path, draw):
    draw(tmp_path / "a.png")
    roifile.roiwrite(tmp_path / "a.zip", [square_roi(position=1), square_roi(position=2)], name=["1.roi", "2.roi"])
    assert "several planes of a stack" in refusal(lambda: open_annotations(tmp_path))


@pytest.mark.parametrize(
    "rings", [None, 5, [5], [[5]], [[["a", "b"]]], [[[1]]], [[[1e30, 2], [3, 4], [5, 6]]], [[{"x": 1}]]]
)
def test_read_viewers_damaged_outlines_are_unusable(tmp_path, draw, rings):
    draw(tmp_path / "a.png")
    (tmp_path / "a.geojson").write_text(json.dumps(feature(rings)))
    (shape,) = open_annotations(tmp_path)[""].records[0].shapes
    with pytest.raises(ValueError, match=r"points|coordinates|polygon"):
        shape.mask(6, 8)


def test_read_viewers_object_without_a_class_beside_others_is_unusable(tmp_path, draw):
    draw(tmp_path / "a.png")
    (tmp_path / "a.geojson").write_text(json.dumps([feature([SQUARE]), feature([HOLE], kind="")]))
    first, second = open_annotations(tmp_path)[""].records[0].shapes
    assert first.mask(6, 8).area == 16
    with pytest.raises(ValueError, match="no class"):
        second.mask(6, 8)


def test_conversion_of_viewers_names_the_command(tmp_path, draw):
    draw(tmp_path / "a.png")
    (tmp_path / "a.xml").write_text(scope(("", region(SQUARE))))
    assert f"pix2seqd convert-data {tmp_path} OUT" in conversion(tmp_path)


def test_geojson_of_a_map_is_refused(tmp_path, draw, converted):
    """SpaceNet has degrees and says so; without a word, they are outlines in which no pixel lies."""
    ring = [[-115.1, 36.2], [-115.0, 36.2], [-115.0, 36.3], [-115.1, 36.2]]
    content = {"type": "FeatureCollection", "features": [feature([ring])]}
    write = (draw(tmp_path / "a/b.png").parent / "b.geojson").write_text
    write(json.dumps({**content, "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}}))
    assert "has coordinates of a map" in refusal(lambda: converted(tmp_path / "a"))
    write(json.dumps(content))
    converted(tmp_path / "a")
    assert "as with coordinates in degrees" in (tmp_path / "out/dropped.txt").read_text()
