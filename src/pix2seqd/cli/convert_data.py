"""The command `pix2seqd convert-data`."""

from pathlib import Path
from typing import TYPE_CHECKING

from pix2seqd.cli.options import Flag
from pix2seqd.files import InputError, say

if TYPE_CHECKING:
    from pix2seqd.data.convert import Conversion


def convert_data(
    annotations: Path,
    out: Path,
    /,
    *,
    images: Path | None = None,
    split: str | None = None,
    semantic: Path | None = None,
    background: str | None = None,
    allow_dropped: Flag = False,
) -> int:
    """Convert the outlines or masks of annotation tools to COCO panoptic format.

    The format is recognised: COCO detection json, YOLO segmentation (data.yaml), Labelme, Label Studio (JSON), VGG VIA,
    CVAT for images 1.1 (XML), Supervisely, Pascal VOC segmentation or XML with polygons, Kaggle's run-length codes
    (CSV), a file of ImageScope, ASAP, QuPath (GeoJSON) or ImageJ (ROIs) for each image, or one mask file for each
    object. The result can be trained on. Where instances overlap, the smaller one is on top, unless the format orders
    them. The command prints how often this happens. Images are linked, not copied. Annotations that are lost are listed
    in OUT/dropped.txt. The exit code is 2 if images are left out, if more than 5 % of the annotations are lost, or if
    no label remains.

    Args:
        annotations: JSON, XML, CSV, ROIs or data.yaml, or the folder of the data set, for example
            annotations/instances_val2017.json.
        out: Folder to write to. Several splits can share a folder.
        images: Folder of the images. Default: where the annotations say, or near them.
        split: Name of the split. Default: SPLIT if the JSON is named instances_SPLIT.json, otherwise none. Of
            annotations with several splits: the one to convert. Default: all.
        semantic: Folder of label PNGs with the names of the images. They label the pixels without an instance. The
            file classes.yaml in this folder gives their meaning.
        background: Name of a stuff category for all pixels that would otherwise be void.
        allow_dropped: Accept lost annotations and images that are left out: the exit code is 0.
    """
    from pix2seqd.cli.progress import tracked
    from pix2seqd.data.convert import convert, open_annotations

    if split is not None and Path(split).name != split:
        raise InputError(f"--split {split!r} is not a plain name; leave out folders")
    found = open_annotations(annotations, images)
    if split is not None:
        # A single file is what the user says; data sets name their own splits.
        renamed = next(iter(found.values())) if "" in found or annotations.suffix.lower() == ".json" else None
        if (chosen := found.get(split, renamed)) is None:
            raise InputError(f"{annotations} has no split {split}; it has {', '.join(found)}")
        found = {split: chosen}
    for note in dict.fromkeys(note for part in found.values() for note in part.notes):
        say(f"note: {note}")
    reasons = []
    for name, part in found.items():
        report = convert(
            part,
            out,
            name,
            semantic=semantic,
            background=background,
            progress=lambda records: tracked(records, "converting"),
        )
        _print(report, out, name)
        reasons.append(report.lost or ("images are left out" if report.errors else ""))
    if not allow_dropped and (reason := next(filter(None, reasons), "")):
        raise InputError(f"{annotations}: {reason}; correct it, or accept the result with --allow-dropped")
    return 0


def _print(report: "Conversion", out: Path, split: str) -> None:
    for line in report.lines:
        say(f"{split}: {line}" if split else line)
    for error in report.errors:
        say(f"left out: {error}")
    if report.dropped:
        listed = out / (f"dropped_{split}.txt" if split else "dropped.txt")
        say(f"{len(report.dropped):,} annotations are dropped; {listed} gives the reasons")
    source = f"coco:{out}@{split}" if split else f"coco:{out}"
    say(f"written to {out}; check it: pix2seqd check-data {source}")
