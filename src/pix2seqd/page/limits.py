"""Limits of a request, and the folder of uploads and downloads."""

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
MAX_AGE = 3600
"""Seconds that uploads and downloads stay on the disk."""
SWEEP_INTERVAL = 300
"""Seconds between two searches for old files."""


@dataclass(frozen=True)
class Limits:
    """A request beyond one of these limits is refused with a message."""

    megabytes: int = 50
    """Size of an upload."""
    pixels: int = 4_000_000
    """Size of an image or a frame."""
    steps: int = 50
    samples: int = 12
    frames: int = 300
    seconds: int = 600
    """Computing time of a request."""
    queue: int = 16
    """Requests of each kind that wait or compute."""


class Turns:
    """Lets one request compute at a time, each for a limited time.

    The model runs under a lock, step by step. If a visitor leaves, the model is free after the current step.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._lock = seconds, Lock()

    def take(self, results: Iterator[T]) -> Iterator[T]:
        """The results of an iterator. No other request computes meanwhile.

        Raises:
            InputError: the time is over.
        """
        started = time.monotonic()
        while True:
            if time.monotonic() - started > self._seconds:
                raise InputError(f"stopped after {self._seconds:g} seconds; choose fewer steps or a smaller image")
            with self._lock:
                result: Any = next(results, self)
            if result is self:
                return
            yield result


class Scratch:
    """The folder of uploads and downloads. Files in it are removed after `MAX_AGE`, and when the server ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clear()
        self._number = 0

    def clear(self) -> None:
        """Remove everything, including the files of a server that was killed."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def new_folder(self) -> Path:
        """Make a new empty folder."""
        self._number += 1
        path = self.folder / f"made-{self._number}"
        path.mkdir(parents=True)
        return path

    @contextmanager
    def swept(self) -> Iterator[None]:
        """Within this context a thread removes old files regularly; at its end everything is removed."""
        done, permanent = Event(), frozenset(self.folder.glob("*"))  # the first files belong to the page itself

        def sweeping() -> None:
            while not done.wait(SWEEP_INTERVAL):
                self._sweep(permanent)

        thread = Thread(target=sweeping, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self.clear()

    def _sweep(self, permanent: frozenset[Path]) -> None:
        for path in set(self.folder.glob("*")) - permanent:
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > MAX_AGE:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def resolve(self, path: str) -> Path:
        """The file that a path from a browser names.

        Raises:
            InputError: the path leads out of this folder, or the file does not exist (any more).
        """
        found = Path(path).resolve()
        if not found.is_relative_to(self.folder.resolve()) or not found.is_file():
            raise InputError("this file is no longer here; upload it again")
        return found
