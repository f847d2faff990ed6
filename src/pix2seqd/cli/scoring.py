"""The progress bar of scoring, which several processes may share."""

from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import track

from pix2seqd import distributed as processes


def scoring(total: int, shared: bool = True) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """What wraps an iteration to show how far it is; of several processes the first one shows its own.

    Args:
        total: number of items.
        shared: whether each process has a share of them, or all go through all.
    """
    number, count = processes.place()
    mine = len(range(number, total, count)) if shared else total

    def wrapped(items: Iterator[Any]) -> Iterator[Any]:
        console = Console(stderr=True)
        yield from track(items, "scoring", total=mine, console=console, transient=True, disable=number > 0)

    return wrapped
