"""What makes a JPEG slow to decode: parts of its head, and the number of times that it goes over its pixels."""

import re
from typing import IO

from pix2seqd.files import InputError

MAX_SCANS = 50
"""Scans of a JPEG that is decoded. Programs write about ten; of a few bytes each, thousands would take minutes."""
MAX_SEGMENTS = 500
"""Segments before the first scan. Pillow joins those of a kind one by one, so that thousands take minutes."""
_SKIPPED = 1000
"""Bytes between segments that take as long as a segment."""
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_START, _END, _SCAN, _EMPTY = 0xD8, 0xD9, 0xDA, 0x01


def check_scans(content: bytes) -> None:
    """Raise an `InputError` for a JPEG of more than `MAX_SCANS` scans, before it is decoded."""
    at = scans = 0
    while (found := _MARKER.search(content, at)) and (marker := found[1][0]) != _END:
        at = found.end()
        if marker not in (_START, _EMPTY):  # all others have a length, which counts its own two bytes
            at += int.from_bytes(content[at : at + 2])
        scans += marker == _SCAN
        if scans > MAX_SCANS:
            raise InputError(
                f"it goes over its pixels more than {MAX_SCANS} times (scans); save it again as JPEG or PNG"
            )


def check_segments(file: IO[bytes]) -> None:
    """Raise an `InputError` for a JPEG of more than `MAX_SEGMENTS` segments before its first scan; other files pass."""
    place, work = file.tell(), 0.0
    if file.read(2) == b"\xff\xd8":
        while len(head := file.read(4)) == 4 and head[:2] != bytes([0xFF, _SCAN]):
            size = int.from_bytes(head[2:])
            is_segment = head[0] == 0xFF and head[1] != 0xFF and size >= 2
            work += 1 if is_segment else 1 / _SKIPPED
            if work > MAX_SEGMENTS:
                raise InputError(f"it has more than {MAX_SEGMENTS} segments before its pixels; save it again as PNG")
            file.seek(size - 2 if is_segment else -3, 1)  # what is no segment is skipped byte by byte
    file.seek(place)
