"""A data set in COCO panoptic format that several processes extend at the same time."""

import hashlib
import itertools
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from pix2seqd.files import PARTS, InputError, read_json, write_json
from pix2seqd.panoptic.taxonomy import Taxonomy

LOCK = ".panoptic.json.lock"
PATIENCE = 60
"""Seconds to wait while another process writes `panoptic.json`."""

FOLDERS = ("images", "panoptic", "overlay")

Entry = tuple[dict[str, Any], dict[str, Any]]
"""Records of one image in the lists `images` and `annotations`."""


class PanopticFolder:
    """`panoptic.json` and the names of the files beside it; a context manager.

    An image has a key: the path of its source (`source` in its record), or the digest of its content (`sha256`).

    | hidden file | content |
    |---|---|
    | `.panoptic.json.lock` | held while `panoptic.json` or a name is changed |
    | `.panoptic.writer-TOKEN.lock` | held by each process that writes into the folder, until it ends |
    | `.panoptic.names` | a line for each name that these processes took; new names are appended |

    Where no process writes, `.panoptic.names` and temporary files are leftovers of processes that were killed. They
    are removed at the next start. The names in `panoptic.json` stay.
    """

    def __init__(
        self,
        out: Path,
        taxonomy: Taxonomy,
        description: str,
        settings: Mapping[str, Any] | None = None,
        *,
        is_exclusive: bool = False,
    ) -> None:
        """Open a folder that exists.

        Args:
            out: the folder.
            taxonomy: the categories of everything in it.
            description: `info.description` of a new `panoptic.json`.
            settings: what the results of this process depend on. Processes with other settings cannot write the same
                images meanwhile.
            is_exclusive: whether a `panoptic.json` with another description is refused, and an empty one is written if
                there is none.

        Raises:
            InputError: `panoptic.json` is broken, has other categories or is refused, or the folder cannot be written
                to.
        """
        self._out, self._taxonomy, self._description = out, taxonomy, description
        self._json, self._names = out / "panoptic.json", out / ".panoptic.names"
        self._token = secrets.token_hex(8)
        self._settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        self._lock = FileLock(out / LOCK, timeout=PATIENCE)
        self._life = self._life_of(self._token)
        self._read_to = 0
        self._stems: dict[str, str] = {}
        self._taken: set[str] = set()
        self._tried: dict[str, int] = {}
        self._settings_of: dict[str, str] = {}
        self._foreign: dict[str, str] = {}
        with self.locked():
            content = self.read()
            if is_exclusive and content["info"].get("description") != description:
                raise InputError(f"{self._json} is not a result {description.partition(' ')[2]}; choose another --out")
            if is_exclusive and not self._json.exists():
                write_json(self._json, content)
            if not self._others_live():
                self._remove_leftovers()
            self._life.acquire()
            for image in content["images"]:
                self._take(_key(image), Path(image["file_name"]).stem)
            for annotation in content["annotations"]:
                self._taken.add(Path(annotation["file_name"]).stem.casefold())
            self._note({"writer": self._token, "settings": self._settings})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.locked():
            self._life.release()
            Path(self._life.lock_file).unlink(missing_ok=True)
            if not self._others_live():
                self._names.unlink(missing_ok=True)

    def read(self) -> dict[str, Any]:
        """The content of `panoptic.json`; that of an empty data set if there is none.

        Raises:
            InputError: it is broken or has other categories.
        """
        if not self._json.exists():
            info, categories = {"description": self._description}, self._taxonomy.to_coco()
            return {"info": info, "images": [], "annotations": [], "categories": categories}
        content = read_json(self._json)
        try:
            same = Taxonomy.from_coco(content["categories"]) == self._taxonomy
            ids = {image["id"]: Path(image["file_name"]) for image in content["images"]}
            if not (isinstance(content.get("info", {}), dict) and all(isinstance(number, int) for number in ids)):
                raise ValueError(content.get("info"))
            content.setdefault("info", {})
            [(ids[annotation["image_id"]], Path(annotation["file_name"])) for annotation in content["annotations"]]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self._json} is not in COCO panoptic format; choose another --out") from error
        if not same:
            raise InputError(f"{self._json} has other categories than this model; choose another --out")
        return content

    @contextmanager
    def changing(self) -> Iterator[dict[str, Any]]:
        """The content of `panoptic.json`, which no other process changes meanwhile; it is written at the end."""
        with self.locked():
            content = self.read()
            yield content
            write_json(self._json, content)

    def stems(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Take names for files, so that no image of another key gets them.

        Args:
            wanted: by the key of the image, the name that it should have.

        Returns:
            The names by key: the same as before for a known image; otherwise the wanted name, with -2, -3, ... if
            another image has it.

        Raises:
            InputError: another process writes one of the images with other settings.
        """
        with self.locked():
            self._catch_up()
            for key in wanted:
                if (other := self._foreign.get(key)) and self._lives(other):
                    raise InputError(
                        f"another process writes {key} into {self._out} with other settings; wait for it, or choose "
                        "another --out"
                    )
            for key, stem in wanted.items():
                if key not in self._stems:
                    self._take(key, self._free(stem))
            self._note(*({"writer": self._token, "key": key, "stem": self._stems[key]} for key in wanted))
        return {key: self._stems[key] for key in wanted}

    def _free(self, wanted: str) -> str:
        # On some file systems A.png and a.png are the same file.
        numbers = itertools.count(self._tried.get(wanted.casefold(), 1))
        for number in numbers:
            stem = wanted if number == 1 else f"{wanted}-{number}"
            if stem.casefold() not in self._taken:
                self._tried[wanted.casefold()] = number
                return stem
        raise AssertionError

    def _take(self, key: str | None, stem: str) -> None:
        self._taken.add(stem.casefold())
        if key is not None:
            self._stems.setdefault(key, stem)

    def _catch_up(self) -> None:
        """Read the names that other processes took since the last time."""
        with self._names.open("a+b") as file:
            file.seek(self._read_to)
            lines = file.read()
            whole = lines[: lines.rfind(b"\n") + 1]
            if whole != lines:  # the process that wrote this line was killed before it used the name
                file.truncate(self._read_to + len(whole))
        self._read_to += len(whole)
        for line in whole.splitlines():
            noted = json.loads(line)
            if "settings" in noted:
                self._settings_of[noted["writer"]] = noted["settings"]
                continue
            self._take(noted["key"], noted["stem"])
            if self._settings_of.get(noted["writer"]) != self._settings:
                self._foreign[noted["key"]] = noted["writer"]

    def _note(self, *lines: Mapping[str, str]) -> None:
        self._catch_up()
        text = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
        with self._names.open("ab") as file:
            file.write(text)
        self._read_to += len(text)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within this context no other process changes anything.

        Raises:
            InputError: another process holds the lock for too long, or the folder cannot be written to.
        """
        try:
            with self._lock:
                yield
        except Timeout as error:
            raise InputError(f"another process keeps writing to {self._out}; try again, or choose another") from error
        except NotImplementedError as error:
            raise InputError(f"the file system of {self._out} has no locks; choose another --out") from error
        except OSError as error:
            raise InputError(f"cannot write to {self._out} ({error.strerror}); choose another --out") from error

    def _life_of(self, token: str) -> FileLock:
        return FileLock(self._out / f".panoptic.writer-{token}.lock", blocking=False)

    def _lives(self, token: str) -> bool:
        life = self._life_of(token)
        try:
            with life:
                Path(life.lock_file).unlink(missing_ok=True)
        except Timeout:
            return True
        return False

    def _others_live(self) -> bool:
        tokens = [path.stem.rpartition("-")[2] for path in self._out.glob(".panoptic.writer-*.lock")]
        return any(self._lives(token) for token in tokens if token != self._token)

    def _remove_leftovers(self) -> None:
        self._names.unlink(missing_ok=True)
        inside = self._out.glob(f"[!.]*/{PARTS}")  # also in the folders of other tools' files
        for path in (*self._out.glob(f".{self._json.name}{PARTS}"), *inside):
            path.unlink(missing_ok=True)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Keep other processes from writing `panoptic.json` of a folder within this context.

    Raises:
        InputError: another process writes it.
    """
    lock = FileLock(out / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"another process writes into {out}; wait for it, or choose another --out") from error
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def entries(content: Mapping[str, Any]) -> dict[str, Entry]:
    """The records of the images that have a key, by it."""
    annotations = {annotation["image_id"]: annotation for annotation in content["annotations"]}
    keyed = ((_key(image), image) for image in content["images"])
    return {key: (image, annotations[image["id"]]) for key, image in keyed if key and image["id"] in annotations}


def put(content: dict[str, Any], new: Mapping[str, Entry]) -> None:
    """Add records by their keys, or replace those of the same keys. Numbers of images are set in the records."""
    present = entries(content)
    free = itertools.count(1 + max((image["id"] for image in content["images"]), default=0))
    for key, (image, annotation) in new.items():
        # Chosen at every save: another process may have taken the number after an interrupted save.
        image["id"] = annotation["image_id"] = present[key][0]["id"] if key in present else next(free)
    by_id = {image["id"]: (image, annotation) for image, annotation in new.values()}
    known = {image["id"] for image, _ in present.values()}
    added = [entry for number, entry in by_id.items() if number not in known]
    for name, number, part in (("images", "id", 0), ("annotations", "image_id", 1)):
        kept = [by_id[record[number]][part] if record[number] in by_id else record for record in content[name]]
        content[name] = kept + [entry[part] for entry in added]


def _key(image: Mapping[str, Any]) -> str | None:
    source = image.get("source")
    return source["path"] if isinstance(source, Mapping) and source else image.get("sha256")
