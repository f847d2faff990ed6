"""What makes a GIF slow to read: comments in very many parts."""

from typing import IO

from pix2seqd.files import InputError

MAX_PARTS = 5000
"""Parts of the comments before an image, of at most 255 bytes each. Pillow joins them one by one, so the time grows
as the square."""


def check_comments(file: IO[bytes]) -> None:
    """Raise an `InputError` for a GIF of more than `MAX_PARTS` parts of comments before an image; other files pass."""
    place, content = file.tell(), b""
    if file.read(4) == b"GIF8":
        file.seek(place)
        content = file.read()
    file.seek(place)
    size, parts = len(content), 0
    at = 13 + _palette(content[10:11])
    while at < size and (kind := content[at]) != ord(";"):
        at += 1
        is_comment = content[at : at + 1] == b"\xfe"
        if kind == ord("!"):
            at += 1
        elif kind == ord(","):
            parts, at = 0, at + 10 + _palette(content[at + 8 : at + 9])
        else:  # which Pillow skips
            continue
        while at < size and (length := content[at]):
            at += 1 + length
            parts += kind == ord("!") and is_comment
            if parts > MAX_PARTS:
                raise InputError(f"it has comments of more than {MAX_PARTS} parts; save it again as PNG")
        at += 1


def _palette(flags: bytes) -> int:
    """Bytes of the palette that follows; `flags` is one byte, or empty where the file ends."""
    return 6 << (flags[0] & 7) if flags and flags[0] & 128 else 0
