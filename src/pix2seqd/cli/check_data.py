"""The command `pix2seqd check-data`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pix2seqd.cli.options import count
from pix2seqd.files import InputError

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
    """Tell what was understood of a data set, and refuse what is inconsistent.

    Args:
        source: any data set, e.g. folder:DIR@train, or the folder itself; see docs/datasets.md.
        split: of a folder, the split to check, e.g. train. Default: all there are.
        contact_sheet: PNG to write with some pictures and their segments (with one split only).
        ids: things per picture that the model can tell apart; more are counted.
    """
    from rich.console import Console

    from pix2seqd.data import check
    from pix2seqd.data.folder import Folder

    whole = True
    for name, dataset in _datasets(source, split, contact_sheet is not None):
        Console().print(name, markup=False, highlight=False, soft_wrap=True)
        if isinstance(dataset, Folder):
            print(f"# what the label PNGs mean; to change it, write this to classes.yaml\n{dataset.labels}", end="")
        report = check.check(dataset, ids)
        Console().print(report)
        whole &= report.ok
        if contact_sheet:
            check.contact_sheet(dataset, contact_sheet)
            print(f"written to {contact_sheet}")
    return 0 if whole else 2


def _datasets(source: str, split: str | None, one: bool) -> Iterator[tuple[str, "Dataset"]]:
    """What to check, with a name for each."""
    from pix2seqd.data import is_clips, open_clips, open_dataset
    from pix2seqd.data.clips import EachFrame
    from pix2seqd.data.coco import CocoPanoptic, splits
    from pix2seqd.data.folder import Folder, label_splits

    if ":" in source and not Path(source).exists():
        if split is not None:
            raise InputError(f"--split is for folders; name the split in the source, {source}@{split}")
        size = (128, 128)
        yield source, EachFrame(open_clips(source, size, 4)) if is_clips(source) else open_dataset(source, size)
        return
    found, kind = splits(source), CocoPanoptic
    if not found and (pairs := label_splits(Path(source))):
        found, kind = list(pairs), Folder
    names = [split] if split is not None else found or [""]
    if one and len(names) > 1:
        raise InputError(f"a contact sheet shows one split; give --split {' or --split '.join(names)}")
    for name in names:
        yield f"{source} {name}".rstrip(), kind.open(source, name)
