"""A result in parts: `part-00000`, `part-00001`, ..., each of which is a whole data set in COCO panoptic format."""

import re
from pathlib import Path

from pix2seqd.files import InputError

_NAME = re.compile(r"part-(\d{5,})")


def part_name(number: int) -> str:
    """The folder of a part; numbers begin at 0."""
    return f"part-{number:05}"


def find_parts(out: Path) -> dict[int, Path]:
    """The parts of a result by their numbers, ascending; an `InputError` if a result without parts is beside them."""
    named = ((_NAME.fullmatch(path.name), path) for path in out.glob("part-*"))
    found = {int(match[1]): path for match, path in named if match and (path / "panoptic.json").is_file()}
    if found and (out / "panoptic.json").exists():
        raise InputError(f"{out} has a panoptic.json and also parts ({part_name(min(found))}); move one of them away")
    return dict(sorted(found.items()))


def locate(out: Path, name: str) -> tuple[Path, str]:
    """The folder and the stem of an image's files, from its name in the whole result: `part-00000/a`, or `a`."""
    path = out / name
    return path.parent, path.name
