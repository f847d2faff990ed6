"""The folder of uploads and downloads: who may see which file, how much there may be, and when it is removed."""

import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Lock, Thread

from filelock import FileLock, Timeout

from pix2seqd.files import InputError
from pix2seqd.page.limits import Limits

MAX_AGE = 3600
"""Seconds that uploads and downloads stay on the disk."""
SWEEP_INTERVAL = 300
"""Seconds between two searches for old files."""
MAX_FILES = 500
"""Uploads and results of a visitor, of any size: looking through very many would keep the server from answering."""
MAX_ALL_FILES = 5000
"""Those of all visitors."""


class Scratch:
    """A folder `parent/TOKEN` of one server. A visitor sees the own files, and those of the page itself.

    Files are removed after `MAX_AGE`, and when the server ends. Servers may share `parent`: each removes its own
    folder, and at its start those of servers that were killed (nobody holds their locks).

    Raises:
        InputError: `parent` is a link.
    """

    def __init__(self, parent: Path, limits: Limits) -> None:
        self.folder = parent / secrets.token_urlsafe(16)
        self._limits, self._guard = limits, Lock()
        self._owners: dict[Path, set[str]] = {}
        self._expected: list[tuple[str, int]] = []
        self._permanent: frozenset[Path] = frozenset()
        if parent.is_symlink():  # all folders where it leads would be removed
            raise InputError(f"{parent} is a link; remove it")
        parent.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.folder)
        self._lock.acquire()  # before the folder is there, so that no other server takes it for a leftover
        self.folder.mkdir()
        for other in parent.iterdir():
            with suppress(Timeout):
                if other.is_dir():
                    with _lock(other):
                        _remove_with_lock(other)

    def clear(self) -> None:
        """Remove everything of this server."""
        _remove_with_lock(self.folder)
        self._lock.release()
        with suppress(OSError):  # another server's folder is there
            self.folder.parent.rmdir()

    def new_folder(self, visitor: str) -> Path:
        """Make a new empty folder for results of a visitor; an `InputError` if there is no room for it."""
        self.make_room(visitor)
        path = self.folder / secrets.token_urlsafe(16)
        path.mkdir(parents=True)
        self.give(path, visitor)
        return path

    def give(self, path: Path, visitor: str) -> None:
        """A visitor may see a file, or all files of a folder."""
        with self._guard:
            self._owners.setdefault(path, set()).add(visitor)

    def may_see(self, path: Path, visitor: str) -> bool:
        """Whether a visitor may see a file."""
        path = Path(os.path.normpath(path))
        return any(
            above in self._permanent or visitor in self._owners.get(above, ()) for above in (path, *path.parents)
        )

    def resolve(self, path: str, visitor: str) -> Path:
        """The file that a path from a browser names; an `InputError` if it is not here, or another visitor's."""
        found = Path(path).resolve()
        inside = found.is_relative_to(self.folder.resolve()) and found.is_file()
        if not inside or not self.may_see(Path(path), visitor):
            raise InputError("this file is no longer here; upload it again")
        return found

    @contextmanager
    def expecting(self, visitor: str, size: int) -> Iterator[None]:
        """Reserve room for an upload of `size` bytes within this context; an `InputError` if there is none."""
        self.make_room(visitor, size)
        upload = (visitor, size)
        self._expected.append(upload)
        try:
            yield
        finally:
            self._expected.remove(upload)
            if not self._expected:  # files in the folder itself are now parts of broken uploads
                for path in self.folder.iterdir():
                    if path.is_file():
                        path.unlink(missing_ok=True)

    def make_room(self, visitor: str, size: int = 0) -> None:
        """Remove the oldest files of a visitor until `size` more bytes, and one file, fit into the visitor's share.

        If they do not, or not into what all visitors may have together, this is an `InputError`.
        """
        with self._guard:
            own = sorted((path for path, owners in self._owners.items() if visitor in owners), key=_modified)
            expected = list(self._expected)
            used = size + sum(size for other, size in expected if other == visitor) + sum(map(_bytes, own))
            share = self._limits.visitor_megabytes * 2**20
            while own and (used > share or len(own) >= MAX_FILES):
                oldest = own.pop(0)
                used -= _bytes(oldest)
                self._take(oldest, visitor)
            if used > share:
                raise InputError(f"uploads may have {self._limits.visitor_megabytes} MB together; wait for the others")
            room = self._limits.total_megabytes * 2**20 - size - sum(size for _, size in expected)
            if len(self._owners) >= MAX_ALL_FILES or _bytes(self.folder) > room:
                raise InputError("the files of all visitors fill this server; try again in an hour")

    def _take(self, path: Path, visitor: str) -> None:
        owners = self._owners[path]
        owners.discard(visitor)
        if not owners:
            del self._owners[path]
            _remove(path)
            if path.parent != self.folder:  # gradio makes a folder for each upload
                with suppress(OSError):  # which has another file
                    path.parent.rmdir()

    @contextmanager
    def swept(self) -> Iterator[None]:
        """Within this context a thread removes old files regularly; at its end everything is removed."""
        done = Event()
        self._permanent = frozenset(set(self.folder.iterdir()) - set(self._owners))  # these are the page's own

        def sweeping() -> None:
            while not done.wait(SWEEP_INTERVAL):
                self._sweep()

        thread = Thread(target=sweeping, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.clear()

    def _sweep(self) -> None:
        with self._guard:  # others walk through the same folders
            for path in set(self.folder.iterdir()) - self._permanent:
                with suppress(OSError):
                    if time.time() - path.stat().st_mtime > MAX_AGE:
                        _remove(path)
            for path in [path for path in self._owners if not path.exists()]:
                del self._owners[path]


def _bytes(path: Path) -> int:
    total = 0
    for file in (path, *path.rglob("*")):
        with suppress(OSError):  # removed meanwhile
            total += file.lstat().st_size
    return total


def _modified(path: Path) -> float:
    return path.stat().st_mtime if path.exists() else 0.0


def _lock(folder: Path) -> FileLock:
    return FileLock(folder.with_name(f"{folder.name}.lock"), blocking=False, thread_local=False)


def _remove_with_lock(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
