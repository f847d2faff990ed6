"""A data set in COCO panoptic format that several processes extend at the same time."""

import hashlib
import itertools
import json
import secrets
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from pix2seqd.config import InferConfig, current_name
from pix2seqd.files import TEMPORARY, InputError, leftovers, lock_errors
from pix2seqd.panoptic.journal import Entry, PanopticJson, broken, key_of, read_head, read_records
from pix2seqd.panoptic.parts import find_parts, part_name
from pix2seqd.panoptic.taxonomy import Taxonomy

LOCK = ".panoptic.json.lock"
PATIENCE = 60
"""Seconds to wait while another process writes `panoptic.json`."""

FOLDERS = ("images", "panoptic", "overlay")
NOTHING: Mapping[str, Any] = MappingProxyType({})
"""`also` of most records, one for all of them."""


class Recorded(NamedTuple):
    """The part of an image's record that is kept in memory."""

    name: str
    """The stem of its files, in a part after the part's folder: `part-00000/a`."""
    suffix: str
    """Of its image's file."""
    has_settings: bool
    """Whether it was made with the settings of this process."""
    identity: int | None
    """`identity_of` its record."""
    also: Mapping[str, Any]
    is_unfamiliar: bool


class PanopticFolder(AbstractContextManager["PanopticFolder"]):
    """`panoptic.json` and the names of the files beside it, of a folder or of its parts; a context manager.

    An image has a key: the path of its source (`source` in its record), or the digest of its content (`sha256`).

    | hidden file | content |
    |---|---|
    | `.panoptic.json.lock` | held while `panoptic.json` or a name is changed |
    | `.panoptic.journal` | new entries (`PanopticJson`); in the folder of each part |
    | `.panoptic.writer-TOKEN.lock` | held by each process that writes into the folder, until it ends |
    | `.panoptic.names` | a line for each name that these processes took; new names are appended |

    Where no process writes, `.panoptic.names` and temporary files are leftovers of processes that were killed. They
    are removed at the next start. The names in `panoptic.json` stay, and entries of a journal come into it.

    In parts of N images, part K has the images with ids from K N + 1 to (K + 1) N. An image stays in its part.
    """

    def __init__(
        self,
        out: Path,
        taxonomy: Taxonomy,
        description: str,
        settings: Mapping[str, Any] | None = None,
        *,
        is_exclusive: bool = False,
        shard: int | None = None,
    ) -> None:
        """Open a folder that exists; an `InputError` if its `panoptic.json` does not fit, or it cannot be written to.

        Args:
            out: the folder.
            taxonomy: the categories of everything in it.
            description: `info.description` of a new `panoptic.json`.
            settings: what the results of this process depend on. Processes with other settings cannot write the same
                images meanwhile.
            is_exclusive: whether a `panoptic.json` with another description is refused, and an empty one is written if
                there is none.
            shard: number of images of a part; None: the folder itself has all.
        """
        self._out, self._taxonomy, self._description, self._shard = out, taxonomy, description, shard
        self._is_exclusive, self._own_settings = is_exclusive, settings
        self._names = out / ".panoptic.names"
        self._token = secrets.token_hex(8)
        self._settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self._lock = FileLock(out / LOCK, timeout=PATIENCE)
        self._own_lock = self._writer_lock(self._token)
        self._bytes_read = 0
        """Bytes of `.panoptic.names` that this process has read."""
        self._stems: dict[str, str] = {}
        """Key of an image → name of its files."""
        self._taken: set[str] = set()
        """Names in use, in lower case."""
        self._next_number: dict[str, int] = {}
        """Name that several images want → the number from which a free one is looked for."""
        self._settings_of: dict[str, str] = {}
        """Token of a writing process → digest of its settings."""
        self._foreign: dict[str, str] = {}
        """Key of an image that a process with other settings writes → token of that process."""
        self._jsons: dict[str, PanopticJson] = {}
        """Folder of a part → its `panoptic.json`."""
        self._sizes: Counter[str] = Counter()
        """Folder of a part → number of names in it."""
        self._newest_part = 0
        """Number of the part that new images get, unless it is full."""
        self._unsaved: set[str] = set()
        """Parts whose journal has entries that are not in `panoptic.json`."""
        self.recorded: dict[str, Recorded] = {}
        """Key of each image in `panoptic.json` or a journal → what is kept of its record."""
        with self.locked():
            parts = layout(out, shard)
            if not self._has_other_writers():
                self._remove_leftovers(parts)
            for part in parts:  # before the process counts as a writer, since a result may be refused
                self._open_part(part)
            self._own_lock.acquire()
            self._append_names({"writer": self._token, "settings": self._settings})

    def __exit__(self, *error: Any) -> None:
        with self.locked():
            self._own_lock.release()
            Path(self._own_lock.lock_file).unlink(missing_ok=True)
            if not self._has_other_writers():
                self._names.unlink(missing_ok=True)

    @property
    def writers(self) -> int:
        """Number of processes that write into the folder."""
        return len(list(self._out.glob(".panoptic.writer-*.lock")))

    def add(self, key: str, entry: Entry) -> None:
        """Add or replace the entry of an image that has a name; its image's id is set by `save`."""
        name = self._stems[key]
        part = name.rpartition("/")[0]
        with self.locked():
            self._jsons[part].add(key, entry)
        self._unsaved.add(part)
        self.recorded[key] = _recorded(name, Path(entry[0]["file_name"]).suffix, entry[0], self._own_settings)

    def save(self) -> None:
        """Bring all that was added into `panoptic.json`."""
        with self.locked():
            for part in sorted(self._unsaved):
                self._jsons[part].save()
                self._unsaved.discard(part)

    def stored(self, keys: Iterable[str]) -> Iterator[tuple[str, Entry]]:
        """The entries of images that have names, one at a time, part by part; nothing may be saved meanwhile."""
        self.save()
        by_part: dict[str, set[str]] = {}
        for key in keys:
            by_part.setdefault(self._stems[key].rpartition("/")[0], set()).add(key)
        for part, wanted in by_part.items():
            yield from self._jsons[part].stored(wanted)

    def stems(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Take names for files, so that no image of another key gets them; `wanted` is key → name.

        A recorded image keeps its name; otherwise it is the wanted one, with -2, -3, ... if another image has it. In a
        result in parts, the part comes first (`parts.locate`). If another process writes one of the images with other
        settings, this is an `InputError`.
        """
        with self.locked():
            self._read_new_names()
            for key in wanted:
                if (other := self._foreign.get(key)) and self._is_running(other):
                    raise InputError(
                        f"another process writes {key} into {self._out} with other settings; wait for it, or choose "
                        "another --out"
                    )
            for key, stem in wanted.items():
                if key not in self._stems:
                    self._register(key, self._free_name(stem))
            names = {key: self._stems[key] for key in wanted}
            for part in {name.rpartition("/")[0] for name in names.values()} - self._jsons.keys():
                self._create_part(part)
            self._append_names(*({"writer": self._token, "key": key, "stem": name} for key, name in names.items()))
        return names

    def stem(self, key: str) -> str | None:
        """The name of an image, as `stems` gave it; None: it has none yet, or a process with other settings has it."""
        return None if key in self._foreign else self._stems.get(key)

    def _open_part(self, part: str) -> None:
        """Bring the journal that killed processes left into `panoptic.json`, and read that."""
        opened = self._json(part)
        if opened.path.exists():
            self._check(opened.path)
        if opened.path.exists() or opened.journal.exists() or self._is_exclusive:
            opened.save()
            self._read_part(part, opened.path)

    def _create_part(self, part: str) -> None:
        """Make a part if no other process did."""
        begun = self._json(part)
        begun.path.parent.mkdir(exist_ok=True)
        if not begun.path.exists():
            begun.save()

    def _json(self, part: str) -> PanopticJson:
        info: dict[str, Any] = {"description": self._description}
        number = int(part.removeprefix("part-") or 0)
        info |= {"part": number, "images_per_part": self._shard} if self._shard else {}
        empty = {"info": info, "categories": self._taxonomy.to_coco()}
        self._jsons[part] = PanopticJson(self._out / part, empty, number * (self._shard or 0))
        return self._jsons[part]

    def _check(self, path: Path) -> None:
        """Refuse a `panoptic.json` of another origin, or with other categories."""
        head = read_head(path)
        description = _info(path, head).get("description")
        try:
            same = Taxonomy.from_coco(head["categories"]) == self._taxonomy
        except (KeyError, TypeError, ValueError) as error:
            raise broken(path) from error
        if not same:
            raise InputError(f"{path} has other categories than this model; choose another --out")
        if self._is_exclusive and description != self._description:
            raise InputError(f"{path} is not a result {self._description.partition(' ')[2]}; choose another --out")

    def _read_part(self, part: str, path: Path) -> None:
        """Take the names in a `panoptic.json`, and remember its entries."""
        prefix = f"{part}/" if part else ""
        recorded: dict[int, tuple[str, Recorded]] = {}
        try:
            ids = set()
            for image in read_records(path, "images"):
                if not isinstance(image["id"], int):
                    raise ValueError(image["id"])
                ids.add(image["id"])
                key, file = key_of(image), Path(image["file_name"])
                name = prefix + file.stem
                self._register(key, name)
                if key is not None:
                    recorded[image["id"]] = key, _recorded(name, file.suffix, image, self._own_settings)
            for annotation in read_records(path, "annotations"):
                number, mask = annotation["image_id"], prefix + annotation["file_name"]
                if number not in ids:
                    raise ValueError(number)
                key, about = recorded.pop(number, (None, None))
                if about is None or mask != f"{about.name}.png":  # otherwise its name is taken already
                    self._taken.add(_alike(prefix + Path(annotation["file_name"]).stem))
                if key is not None and about is not None:
                    self.recorded[key] = about
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise broken(path) from error

    def _free_name(self, wanted: str) -> str:
        """The wanted name, with -2, -3, ... if it is in use; in a result in parts, after the part that gets it."""
        prefix = ""
        if self._shard:
            while self._sizes[part_name(self._newest_part)] >= self._shard:
                self._newest_part += 1
            prefix = f"{part_name(self._newest_part)}/"
        # On some file systems A.png and a.png are the same file.
        first = _alike(prefix + wanted)
        for number in itertools.count(self._next_number.get(first, 1)):
            name = prefix + (wanted if number == 1 else f"{wanted}-{number}")
            if _alike(name) not in self._taken:
                self._next_number[first] = number
                return name
        raise AssertionError

    def _register(self, key: str | None, name: str) -> None:
        """Remember that a name is in use, and by which image."""
        if _alike(name) not in self._taken:
            self._taken.add(_alike(name))
            self._sizes[name.rpartition("/")[0]] += 1
        if key is not None:
            self._stems.setdefault(key, name)

    def _read_new_names(self) -> None:
        """Read the names that other processes took since the last time."""
        with self._names.open("a+b") as file:
            file.seek(self._bytes_read)
            lines = file.read()
            whole = lines[: lines.rfind(b"\n") + 1]
            if whole != lines:  # the process that wrote this line was killed before it used the name
                file.truncate(self._bytes_read + len(whole))
        self._bytes_read += len(whole)
        for line in whole.splitlines():
            noted = json.loads(line)
            if "settings" in noted:
                self._settings_of[noted["writer"]] = noted["settings"]
                continue
            self._register(noted["key"], noted["stem"])
            if self._settings_of.get(noted["writer"]) != self._settings:
                self._foreign[noted["key"]] = noted["writer"]

    def _append_names(self, *lines: Mapping[str, str]) -> None:
        """Write lines to `.panoptic.names`, so that the other processes know them."""
        self._read_new_names()
        text = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        with self._names.open("ab") as file:
            file.write(text)
        self._bytes_read += len(text)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within this context no other process changes anything; an `InputError` if one holds the lock for too long."""
        busy = f"another process keeps writing to {self._out}; try again, or choose another"
        with lock_errors(self._out, busy, "another --out"), self._lock:
            yield

    def _writer_lock(self, token: str) -> FileLock:
        return FileLock(self._out / f".panoptic.writer-{token}.lock", blocking=False)

    def _is_running(self, token: str) -> bool:
        """Whether a writing process still holds its lock; the lock file of one that was killed is removed."""
        lock = self._writer_lock(token)
        try:
            with lock:
                Path(lock.lock_file).unlink(missing_ok=True)
        except Timeout:
            return True
        return False

    def _has_other_writers(self) -> bool:
        tokens = [path.stem.rpartition("-")[2] for path in self._out.glob(".panoptic.writer-*.lock")]
        return any(self._is_running(token) for token in tokens if token != self._token)

    def _remove_leftovers(self, parts: Iterable[str]) -> None:
        self._names.unlink(missing_ok=True)
        for folder in (self._out / part for part in parts):
            inside = folder.glob(f"[!.]*/{TEMPORARY}")  # also in the folders of other tools' files
            for path in (*leftovers(folder / "panoptic.json"), *inside):
                path.unlink(missing_ok=True)


def layout(out: Path, shard: int | None) -> list[str]:
    """The parts of a result that is there; "" is the folder itself, of a result without parts.

    Parts of another size, parts where none are wanted or the reverse, and a folder that is a part are an `InputError`.
    """
    parts, whole = find_parts(out), out / "panoptic.json"
    first = next((folder / whole.name for folder in parts.values()), whole)
    size = _info(first, read_head(first)).get("images_per_part") if first.exists() else None
    if size and first == whole:
        raise InputError(f"{out} is one part of the result {out.parent}; give that, or choose another --out")
    if parts and not size:
        raise InputError(f"{first} is not written by `pix2seqd segment`; choose another --out")
    if parts and size != shard:
        raise InputError(f"{out} has parts of {size} images; give --shard {size}, or choose another --out")
    if shard and whole.exists():
        raise InputError(f"{out} has a result without --shard; leave --shard out, or choose another --out")
    return [folder.name for folder in parts.values()] if shard else [""]


def _info(path: Path, head: Mapping[str, Any]) -> dict[str, Any]:
    """`info` of the head of a `panoptic.json`."""
    info = head.get("info", {})
    if not isinstance(info, dict):
        raise broken(path)
    return info


def identity_of(image: Mapping[str, Any]) -> int | None:
    """A hash of the bytes of an image's source, and of when this was modified; None: it has no source."""
    source = image.get("source")
    return hash((source["bytes"], source["modified_ns"])) if source else None


def _recorded(name: str, suffix: str, image: Mapping[str, Any], settings: Mapping[str, Any] | None) -> Recorded:
    made_with, also = image.get("settings"), image.get("also") or NOTHING
    is_current = made_with == settings
    if made_with and settings and not is_current:
        before = {current_name(key): value for key, value in made_with.items()}
        later = {key: value for key, value in InferConfig().to_dict().items() if key in settings}
        is_current = {**later, **before} == settings  # settings that came later had their defaults
    return Recorded(name, sys.intern(suffix), is_current, identity_of(image), also, bool(image.get("unfamiliar")))


def _alike(name: str) -> str:
    """What names have in common that are the same file on some file systems: A.png and a.png, and é as one or two."""
    alike = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return name if alike == name else alike  # the same string takes no memory
