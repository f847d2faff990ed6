"""Progress bars on stderr."""

from collections.abc import Iterable
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn, track

T = TypeVar("T")


def tracked(items: Iterable[T], what: str, total: int | None = None, disable: bool = False) -> Iterable[T]:
    """The items unchanged, with a bar that goes when they end; `total` is their number."""
    return track(items, what, total, console=Console(stderr=True), transient=True, disable=disable)


def bar_with_speed(disable: bool = False) -> Progress:
    """A bar whose tasks have a field `speed`, a text."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
    return Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), disable=disable)
