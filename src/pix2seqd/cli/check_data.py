"""The command `pix2seqd check-data`."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pix2seqd.cli.options import count
from pix2seqd.files import InputError, a_few, say

if TYPE_CHECKING:
    from pix2seqd.data.sample import Dataset


def check_data(
    source: str,
    /,
    *,
    split: str | None = None,
    contact_sheet: Path | None = None,
    ids: Annotated[int, count(1)] = 100,
) -> int:
    """Check a data set, and show how it was understood.

    Every image and its labels are read. The command prints the categories with the number of their segments, warnings,
    and the errors that it found. The exit code is 2 if there are errors. All splits of a folder are compared: images
    that are in two splits, and classes that are in one only.

    Args:
        source: A data set such as coco:DIR@train, folder:DIR@train or shapes:4, or the folder itself. See
            docs/datasets.md.
        split: For a folder: the split to check, for example train. Default: all splits.
        contact_sheet: PNG file to write, with some of the images and their segments. It shows one split only.
        ids: Number of objects in an image that the model can tell apart. The images with more objects are counted.
    """
    from rich.console import Console

    from pix2seqd.data import check
    from pix2seqd.data.folder import Folder
    from pix2seqd.panoptic.results import check_files

    check_files(contact_sheet)
    reports: dict[str, check.Report] = {}
    for name, dataset in _datasets(source, split, contact_sheet is not None):
        say(name)
        if isinstance(dataset, Folder):
            say("# meaning of the label images; to change it, write this to classes.yaml")
            for line in str(dataset.labels).splitlines():
                say(line)
            _print_skipped(dataset.skipped)
        reports[name] = report = check.check(dataset, ids)
        Console().print(report)
        if contact_sheet:
            check.contact_sheet(dataset, contact_sheet)
            say(f"written to {contact_sheet}")
    for line in check.compare(reports):
        say(f"warning: {line}")
    return 0 if all(report.ok for report in reports.values()) else 2


def _print_skipped(files: Sequence[Path]) -> None:
    if files:
        names = a_few([path.name for path in files])
        say(f"skipped {len(files):,} files that are not images with labels: {names}")


def _datasets(source: str, split: str | None, one_only: bool) -> Iterator[tuple[str, "Dataset"]]:
    """The data sets to check, each with its name."""
    from pix2seqd.data import is_clips, open_clips, open_dataset
    from pix2seqd.data.clips import ClipFrames
    from pix2seqd.data.coco import CocoPanoptic
    from pix2seqd.data.find import find_splits
    from pix2seqd.data.folder import Folder

    if ":" in source and not Path(source).exists():
        if split is not None:
            raise InputError(f"--split is for folders; name the split in the source, {source}@{split}")
        size = (128, 128)
        yield source, ClipFrames(open_clips(source, size, 4)) if is_clips(source) else open_dataset(source, size)
        return
    kind, found = find_splits(Path(source))
    names = [split] if split is not None else found or [""]
    if one_only and len(names) > 1:
        raise InputError(f"a contact sheet shows one split only; give --split {' or --split '.join(names)}")
    for name in names:
        yield f"{source} {name}".rstrip(), (CocoPanoptic if kind == "coco" else Folder).open(source, name)
