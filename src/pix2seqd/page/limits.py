"""Limits of a request and of a visitor."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar

from pix2seqd.files import InputError

T = TypeVar("T")


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
    visitor_megabytes: int = 500
    """Uploads and results of a visitor."""
    total_megabytes: int = 5_000
    """Uploads and results of all visitors together."""
    visitors: int = 64
    """Open pages that the server remembers. Those with unsaved corrections are never forgotten for a new one."""
    patience: float = 30
    """Seconds without a byte of a request after which its connection is closed. A whole request has ten times that."""


class Turns:
    """Lets one request compute at a time, each for a limited time.

    The model runs under a lock, step by step. If a visitor leaves, the model is free after the current step.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._lock = seconds, Lock()

    def take(self, results: Iterator[T]) -> Iterator[T]:
        """The results of an iterator, while no other request computes; an `InputError` when the time is over."""
        started = time.monotonic()
        while True:
            if time.monotonic() - started > self._seconds:
                raise InputError(f"stopped after {self._seconds:g} seconds; choose fewer steps or a smaller image")
            with self._lock:
                result: Any = next(results, self)
            if result is self:
                return
            yield result
