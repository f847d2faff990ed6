"""What one visitor may ask of the machine, and the folder that everything happens in."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, TypeVar

from pix2seqd.files import InputError

T = TypeVar("T")
KEPT_FOR = 3600
"""Seconds that uploads and downloads stay on the disk."""
SWEPT_EVERY = 300
"""Seconds."""


@dataclass(frozen=True)
class Limits:
    """Beyond these a request is refused with a message."""

    megabytes: int = 50
    """Of an upload."""
    pixels: int = 4_000_000
    """Of a picture or a frame."""
    steps: int = 50
    samples: int = 12
    frames: int = 300
    seconds: int = 600
    """That one request may compute."""
    queue: int = 16
    """Requests that wait or compute, of each kind; the next one is refused."""


class Turns:
    """One computation at a time, each within its time.

    The model runs under a lock, step by step: whoever leaves frees it with the step that is running.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._lock = seconds, Lock()

    def take(self, results: Iterator[T]) -> Iterator[T]:
        """The results, each computed alone.

        Raises:
            InputError: they take too long.
        """
        started = time.monotonic()
        while True:
            if time.monotonic() - started > self._seconds:
                raise InputError(f"stopped after {self._seconds:g} seconds; take fewer steps or a smaller picture")
            with self._lock:
                result: Any = next(results, self)
            if result is self:
                return
            yield result


class Scratch:
    """The folder of uploads and downloads: nothing in it lives longer than `KEPT_FOR`, nor than the server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clear()
        self._number = 0

    def clear(self) -> None:
        """Remove everything, also what a server left that was killed."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def place(self) -> Path:
        """A new empty folder."""
        self._number += 1
        path = self.folder / f"made-{self._number}"
        path.mkdir(parents=True)
        return path

    @contextmanager
    def swept(self) -> Iterator[None]:
        """Remove what is too old now and then, also while nobody asks for anything, and everything in the end."""
        done, lasting = Event(), frozenset(self.folder.glob("*"))  # what is there at first belongs to the page itself

        def sweeping() -> None:
            while not done.wait(SWEPT_EVERY):
                self._sweep(lasting)

        thread = Thread(target=sweeping, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.clear()

    def _sweep(self, lasting: frozenset[Path]) -> None:
        for path in set(self.folder.glob("*")) - lasting:
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > KEPT_FOR:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def holds(self, path: str) -> Path:
        """A path that a browser names, if it leads into this folder.

        Raises:
            InputError: it leads elsewhere, or there is no such file (any more).
        """
        found = Path(path).resolve()
        if not found.is_relative_to(self.folder.resolve()) or not found.is_file():
            raise InputError("this file is not here any more; upload it again")
        return found
