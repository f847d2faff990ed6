"""How a folder that is given without a prefix is opened."""

import json
from pathlib import Path

from pix2seqd.files import InputError


def find_splits(home: Path) -> tuple[str, list[str]]:
    """The kind of a data set and its splits, by its files.

    Returns:
        "coco" or "folder", the prefix of its name; and its splits, "" for one without a name. If there is none, the
        kind is "folder", which is to be opened for a message that says what is missing.

    Raises:
        InputError: it does not exist, is a file, or holds outlines only.
    """
    from pix2seqd.data.coco import splits
    from pix2seqd.data.folder import label_splits

    if not home.is_dir():
        raise InputError(_not_a_folder(home))
    if found := splits(home):
        return "coco", found
    if not (found := list(label_splits(home))):
        files = sorted([*home.glob("*.json"), *home.glob("*/*.json")])
        if detection := next(filter(_is_detection, files[:20]), None):
            raise InputError(_not_a_folder(detection))
    return "folder", found


def named(kind: str, home: Path, split: str) -> str:
    """The name of a split, as `open_dataset` takes it."""
    return f"{kind}:{home}" + (f"@{split}" if split else "")


def with_prefix(source: str) -> str:
    """The name of a data set; a folder without a prefix gets its own if it has one split. Other names stay.

    Raises:
        InputError: it has several splits, or it is a file.
    """
    home = Path(source)
    if ":" in source or not source:
        return source
    kind, found = find_splits(home)
    if len(found) > 1:
        names = " or ".join(named(kind, home, split) for split in found)
        raise InputError(f"{source} has several splits; give {names}")
    return named(kind, home, found[0] if found else "")


def _not_a_folder(path: Path) -> str:
    """The message about a source that is a file or missing."""
    if not path.exists():
        return f"{path} does not exist; give a folder, or a data set such as coco:DIR@train or folder:DIR@train"
    if _is_detection(path):
        return f"{path} holds outlines; convert it first: pix2seqd convert-data {path} OUT --images FOLDER_OF_IMAGES"
    return f"{path} is a file; give the folder of the data set"


def _is_detection(path: Path) -> bool:
    """Whether a file is COCO detection JSON."""
    if path.suffix.lower() != ".json":
        return False
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    annotations = content.get("annotations") if isinstance(content, dict) else None
    first = annotations[0] if isinstance(annotations, list) and annotations else None
    return isinstance(first, dict) and "image_id" in first and "segments_info" not in first
