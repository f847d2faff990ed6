"""The number of times that a JPEG goes over its pixels."""

import re

from pix2seqd.files import InputError

MAX_SCANS = 50
"""Scans of a JPEG that is decoded. Programs write about ten; of a few bytes each, thousands would take minutes."""
_MARKER = re.compile(rb"\xff+([\x01-\xcf\xd8-\xfe])")
_START, _END, _SCAN, _EMPTY = 0xD8, 0xD9, 0xDA, 0x01


def check_scans(content: bytes) -> None:
    """Refuse a JPEG of more than `MAX_SCANS` scans, before it is decoded.

    Raises:
        InputError: it has more.
    """
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
