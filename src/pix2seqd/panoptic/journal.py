"""`panoptic.json` that grows image by image, each at the same cost, however many images are in it."""

import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from pix2seqd.files import MAX_TEXT, InputError, json_line, read_json, write_atomically

JOURNAL = ".panoptic.journal"
LISTS = ("images", "annotations")
_IMAGES, _ANNOTATIONS = b', "images": [\n', b'], "annotations": [\n'
_END = b"]}\n"

Entry = tuple[dict[str, Any], dict[str, Any]]
"""Records of one image in the lists `images` and `annotations`."""


class PanopticJson:
    """`panoptic.json` of a folder, and the journal of what is new. The folder's lock is held while they are used.

    | file | content |
    |---|---|
    | `panoptic.json` | a line for each record, so that a long one is read and written in little memory |
    | `.panoptic.journal` | a line for each entry that is not in `panoptic.json` yet |

    A process that is killed leaves the journal, and maybe half a line in it, which does not count. The next `save`
    brings the entries into `panoptic.json`. An entry has a key (`key_of`) and replaces the one of the same key.
    """

    def __init__(self, folder: Path, empty: Mapping[str, Any], last: int = 0) -> None:
        """Nothing is read or written; the folder exists.

        A new `panoptic.json` gets the content of `empty` besides its lists. Ids of images begin after `last`.
        """
        self.path, self.journal = folder / "panoptic.json", folder / JOURNAL
        self._empty, self._last = dict(empty), last

    def add(self, key: str, entry: Entry) -> None:
        """Add or replace an entry in the journal; `save` gives it its image's id."""
        if self.journal.is_symlink():  # nothing is written where it leads
            self.journal.unlink()
        with self.journal.open("ab") as file:
            # After a line break, because another process may have been killed in the middle of its line.
            file.write(f"\n{json_line([key, *entry])}\n".encode())

    def save(self) -> None:
        """Bring the journal into `panoptic.json`; write an empty one if there is none."""
        if self.path.exists() and not self.journal.exists():
            return
        try:
            self._write(self._offsets())
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # its records are of other forms
            raise broken(self.path) from error
        self.journal.unlink(missing_ok=True)

    def _write(self, offsets: Mapping[str, int]) -> None:
        """Write `panoptic.json` with the entries of the journal that begin at these bytes."""
        head = read_head(self.path) if self.path.exists() else self._empty
        ids: dict[str, int] = {}
        replaced: dict[int, str] = {}
        write_lists(self.path, head, self._images(offsets, ids, replaced), self._annotations(offsets, ids, replaced))

    def stored(self, keys: Collection[str]) -> Iterator[tuple[str, Entry]]:
        """The saved entries of some keys, one at a time."""
        if not self.path.exists():
            return
        images = {image["id"]: image for image in read_records(self.path, "images") if key_of(image) in keys}
        for annotation in read_records(self.path, "annotations") if images else ():
            if image := images.get(annotation["image_id"]):
                yield key_of(image) or "", (image, annotation)

    def _offsets(self) -> dict[str, int]:
        """Key → byte at which its last line begins in the journal."""
        offsets: dict[str, int] = {}
        if self.journal.exists():
            offset = 0
            with _opened(self.journal) as file:
                for line in file:
                    if entry := _parse_line(line):
                        offsets[entry[0]] = offset
                    offset += len(line)
        return offsets

    def _images(self, offsets: Mapping[str, int], ids: dict[str, int], replaced: dict[int, str]) -> Iterator[bytes]:
        """The lines of the images, some replaced, then the new ones.

        The ids of both go into `ids` by their keys, and the keys of those that are replaced into `replaced` by id.
        """
        last = self._last
        for line in self._lines("images"):
            image = _parsed(self.path, line)
            last, key = max(last, image["id"]), key_of(image)
            if key is not None and key in offsets:
                ids[key] = image["id"]
                replaced[image["id"]] = key
                yield from self._new_lines({key: offsets[key]}, ids, 0)
            else:
                yield line
        new = {key: offset for key, offset in offsets.items() if key not in ids}
        ids |= zip(new, itertools.count(last + 1), strict=False)
        yield from self._new_lines(new, ids, 0)

    def _annotations(
        self, offsets: Mapping[str, int], ids: Mapping[str, int], replaced: Mapping[int, str]
    ) -> Iterator[bytes]:
        """The lines of the annotations, some replaced, then the new ones."""
        left = dict(offsets)
        for line in self._lines("annotations"):
            # They are long, and mostly none is replaced.
            key = replaced.get(_parsed(self.path, line)["image_id"]) if replaced else None
            if key is not None and key in left:
                yield from self._new_lines({key: left.pop(key)}, ids, 1)
            else:
                yield line
        yield from self._new_lines(left, ids, 1)

    def _new_lines(self, offsets: Mapping[str, int], ids: Mapping[str, int], part: int) -> Iterator[bytes]:
        """Lines of the journal's images (part 0) or annotations (part 1)."""
        if offsets:
            with self.journal.open("rb") as journal:
                for key, offset in offsets.items():
                    journal.seek(offset)
                    _, *entry = json.loads(journal.readline())
                    entry[0]["id"] = entry[1]["image_id"] = ids[key]
                    yield json_line(entry[part]).encode()

    def _lines(self, name: str) -> Iterator[bytes]:
        return _lines(self.path, name) if self.path.exists() else iter(())


def write_lists(path: Path, head: Mapping[str, Any], images: Iterable[bytes], annotations: Iterable[bytes]) -> None:
    """Write JSON with the lists `images` and `annotations`, whose records come one by one, each a line of JSON."""
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        file.write(json_line(head)[:-1].encode())
        for start, lines in ((_IMAGES, images), (_ANNOTATIONS, annotations)):
            file.write(start)
            for number, line in enumerate(lines):
                file.write(b",\n" * (number > 0) + line)
            file.write(b"\n")
        file.write(_END)


def key_of(image: Mapping[str, Any]) -> str | None:
    """The key of an image's record: the path of its source, or the digest of its content."""
    source = image.get("source")
    return source["path"] if isinstance(source, Mapping) and source else image.get("sha256")


def read_head(path: Path) -> dict[str, Any]:
    """The keys of a `panoptic.json` besides its lists; an `InputError` if it is broken."""
    with _opened(path) as file:
        line = file.readline(MAX_TEXT)
    if line.endswith(_IMAGES):
        return _parsed(path, line.removesuffix(_IMAGES) + b"}")
    return {key: value for key, value in _whole_json(path).items() if key not in LISTS}


def read_records(path: Path, name: str) -> Iterator[dict[str, Any]]:
    """The records of a list of a `panoptic.json`, one at a time; an `InputError` if it is broken."""
    for line in _lines(path, name):
        yield _parsed(path, line)


def _lines(path: Path, name: str) -> Iterator[bytes]:
    """The records of a list, each as a line of JSON. Files of other programs may have them in any form."""
    with _opened(path) as file:
        if not file.readline(MAX_TEXT).endswith(_IMAGES):
            yield from (json_line(record).encode() for record in _whole_json(path)[name])
            return
        here = name == "images"
        for line in file:
            if line == _ANNOTATIONS:
                if here:
                    return
                here = True
            elif line == _END:
                return
            elif here and line != b"\n":
                yield line.rstrip(b",\n")
    raise broken(path)


def _parsed(path: Path, line: bytes) -> Any:
    try:
        return json.loads(line.decode())  # of bytes, `loads` guesses the encoding, which takes longer
    except (ValueError, RecursionError) as error:
        raise broken(path) from error


def _whole_json(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or any(not isinstance(content.get(name), list) for name in LISTS):
        raise broken(path)
    return content


def _parse_line(line: bytes) -> Any:
    """The content of a line of the journal; None if it is empty, was never written to its end, or is not an entry."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, list) and [type(part) for part in entry] == [str, dict, dict] else None


def _opened(path: Path) -> IO[bytes]:
    """Open a file to read it; reading a pipe or a device might never end."""
    if not path.is_file():
        raise InputError(f"{path} is not an ordinary file; remove it, or choose another --out")
    return path.open("rb")


def broken(path: Path) -> InputError:
    """The error about a `panoptic.json` that cannot be used."""
    return InputError(f"{path} is not in COCO panoptic format; choose another --out")
