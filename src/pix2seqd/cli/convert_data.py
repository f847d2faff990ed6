"""The command `pix2seqd convert-data`."""

from pathlib import Path

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
) -> int:
    """Convert COCO detection json (polygons, run-length codes) to COCO panoptic format, which can be trained on.

    Where instances overlap, the smaller one is on top; what was hidden or lost is counted. Pictures are linked, not
    copied.

    Args:
        json: the detection json, e.g. annotations/instances_val2017.json.
        out: folder to write to; several splits may share one.
        images: folder of the pictures. Default: the json's folder.
        split: name of the split. Default: SPLIT of a json named instances_SPLIT.json, otherwise none.
        semantic: folder of label PNGs named as the pictures, for the pixels without an instance; classes.yaml in it
            says what they mean.
        background: name of a stuff category for all pixels that would be void otherwise.
    """
    from rich.console import Console
    from rich.progress import track

    from pix2seqd.data.convert import Detection, convert

    if split is None:
        name = json.stem
        split = name.removeprefix("instances_") if name.startswith("instances_") else ""
    if Path(split).name != split:
        raise InputError(f"--split {split!r} is not a name; give one without folders")
    detection = Detection(json, images or json.parent, semantic, background)
    console = Console(stderr=True)
    report = convert(detection, track(detection.images, "converting", console=console, transient=True), out, split)
    print(report)
    for error in report.errors:
        print(f"left out: {error}")
    source = f"coco:{out}@{split}" if split else f"coco:{out}"
    print(f"written to {out}; look at it: pix2seqd check-data {source}")
    return 2 if report.errors else 0
