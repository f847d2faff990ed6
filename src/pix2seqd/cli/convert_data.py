"""The command `pix2seqd convert-data`."""

from pathlib import Path

from pix2seqd.cli.options import Flag
from pix2seqd.files import InputError


def convert_data(
    json: Path,
    out: Path,
    /,
    *,
    images: Path | None = None,
    split: str | None = None,
    semantic: Path | None = None,
    background: str | None = None,
    allow_dropped: Flag = False,
) -> int:
    """Convert COCO detection JSON to COCO panoptic format.

    Detection JSON holds outlines (polygons or run-length codes). The result can be trained on. Where instances overlap,
    the smaller one is on top. The command prints how often this happens. Images are linked, not copied. Annotations
    that are lost are listed in OUT/dropped.txt. The exit code is 2 if images are left out, if more than 5 % of the
    annotations are lost, or if no label remains.

    Args:
        json: Detection JSON, for example annotations/instances_val2017.json.
        out: Folder to write to. Several splits can share a folder.
        images: Folder of the images. Default: the folder of the JSON.
        split: Name of the split. Default: SPLIT if the JSON is named instances_SPLIT.json, otherwise none.
        semantic: Folder of label PNGs with the names of the images. They label the pixels without an instance. The
            file classes.yaml in this folder gives their meaning.
        background: Name of a stuff category for all pixels that would otherwise be void.
        allow_dropped: Accept lost annotations and images that are left out: the exit code is 0.
    """
    from rich.console import Console
    from rich.progress import track

    from pix2seqd.data.convert import Detection, convert

    if split is None:
        name = json.stem
        split = name.removeprefix("instances_") if name.startswith("instances_") else ""
    if Path(split).name != split:
        raise InputError(f"--split {split!r} is not a plain name; leave out folders")
    detection = Detection(json, images or json.parent, semantic, background)
    console = Console(stderr=True)
    report = convert(detection, track(detection.images, "converting", console=console, transient=True), out, split)
    print(report)
    for error in report.errors:
        print(f"left out: {error}")
    if report.dropped:
        listed = out / (f"dropped_{split}.txt" if split else "dropped.txt")
        print(f"{len(report.dropped):,} annotations are dropped; {listed} gives the reasons")
    source = f"coco:{out}@{split}" if split else f"coco:{out}"
    print(f"written to {out}; check it: pix2seqd check-data {source}")
    if not allow_dropped and (reason := report.lost or ("images are left out" if report.errors else "")):
        raise InputError(f"{json}: {reason}; correct it, or accept the result with --allow-dropped")
    return 0
