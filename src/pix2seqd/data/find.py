"""How a folder that is given without a prefix is opened."""

from pathlib import Path

from pix2seqd.files import InputError


def find_splits(home: Path) -> tuple[str, list[str]]:
    """The kind of a data set, "coco" or "folder", by its files, and its splits, "" for one without a name.

    A kind "folder" without splits is to be opened for a message that says what is missing. What does not exist, or is a
    file, is an `InputError`.
    """
    from pix2seqd.data.coco import splits
    from pix2seqd.data.folder import label_splits

    if not home.is_dir():
        raise InputError(_not_a_folder(home))
    if found := splits(home):
        return "coco", found
    return "folder", list(label_splits(home))


def named(kind: str, home: Path, split: str) -> str:
    """The name of a split, as `open_dataset` takes it."""
    return f"{kind}:{home}" + (f"@{split}" if split else "")


def with_prefix(source: str) -> str:
    """The name of a data set; a folder without a prefix gets its own, if it has one split. Other names stay."""
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
    from pix2seqd.data.annotations import conversion

    if not path.exists():
        return f"{path} does not exist; give a folder, or a data set such as coco:DIR@train or folder:DIR@train"
    return conversion(path) or f"{path} is a file; give the folder of the data set"
