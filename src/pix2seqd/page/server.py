"""Serve the page. It contacts no other machine."""

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import compare_digest
from typing import TYPE_CHECKING, Any

from pix2seqd.files import InputError, require, say
from pix2seqd.page.limits import Limits, Turns
from pix2seqd.page.scratch import Scratch
from pix2seqd.page.visitors import Visitors
from pix2seqd.page.work import SAVES, Work

if TYPE_CHECKING:
    from gradio import Blocks

    from pix2seqd.interop.cards import Card
    from pix2seqd.page.guard import Guard
    from pix2seqd.segmenter import Segmenter

ENVIRONMENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "GRADIO_MCP_SERVER": "False",
    "GRADIO_ANALYTICS_MAX_EVENTS": "100",  # it keeps the times of all requests,
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**9),  # and summarises them after each
}
"""Environment variables that gradio reads when it is imported and when components are made."""
OFFLINE: dict[str, Any] = {
    "show_error": True,
    "footer_links": [],
    "run_history": False,
    "enable_monitoring": False,
    "ssr_mode": False,
    "pwa": False,
    "mcp_server": False,
}
"""Options of gradio: no sharing, no statistics, and nothing that the page does not need."""
SAVING = 60
"""Seconds that the server waits at its end for images that are being saved."""


@contextmanager
def serving(
    segmenter: "Segmenter",
    folder: Path,
    *,
    load: "Callable[[str], Segmenter] | None" = None,
    card: "Card | None" = None,
    samples: Path | None = None,
    defaults: Mapping[str, Any] = {},
    limits: Limits | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    names: Collection[str] = (),
    password: str | None = None,
) -> Iterator[str]:
    """Serve the page within this context, which yields its address.

    At its end the context waits for images that are being saved.

    Args:
        segmenter: the model that is chosen at first.
        folder: the only folder that is written to. It holds the data set of saved images, and `.scratch`.
        load: loads a bundled model by its name; None: there is no other model to choose.
        card: what is known of the first model; None: what it finds, or what the bundled one of this name states.
        samples: folder of images and clips that visitors can click.
        defaults: start values of the controls that differ from the checkpoint's, as `segmenter.ImageOptions`.
        limits: limits of a request and of a visitor.
        host: address to listen on.
        port: None takes a free port.
        names: names under which browsers may ask for the page, besides addresses and the machine's own name.
        password: visitors must enter it, with any user name.

    Raises:
        InputError: gradio is not installed, the server cannot listen there, or at the end an image was not saved.
    """
    require("the page", "web", "gradio")
    limits = limits or Limits()
    scratch = Scratch(folder.absolute() / ".scratch", limits)
    os.environ.update(ENVIRONMENT, GRADIO_TEMP_DIR=str(scratch.folder))
    from gradio import processing_utils, queueing

    from pix2seqd.page.connections import listening
    from pix2seqd.page.guard import Guard
    from pix2seqd.page.models import Models
    from pix2seqd.page.page import build
    from pix2seqd.page.site import Site

    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # `Guard` notes broken uploads
    processing_utils.async_ssrf_protected_download = _fetch_nothing  # pyright: ignore[reportAttributeAccessIssue]
    queueing.traceback = _OneLine  # pyright: ignore[reportAttributeAccessIssue, reportPrivateImportUsage]
    site = Site(Models(segmenter, load, card), folder, scratch, limits, Turns(limits.seconds), defaults)
    del segmenter  # it makes room for others
    page = build(site, samples)
    app = _app(page, limits, password)
    page.state_holder.delete_all_expired_state = lambda: _expire(page)
    visitors = Visitors(limits.visitors, lambda name: _is_busy(page, name), lambda name: _forget(page, name))
    own_names = {*names, host, socket.gethostname(), socket.getfqdn()}
    guard = Guard(app, host, own_names, visitors, scratch, limits, password is not None)
    with scratch.swept(), listening(guard, host, port, limits.patience) as url:
        try:
            yield url
        finally:
            guard.ending = True
            unsaved = _wait_for_saves(page, guard)
            page._queue.close()
            page.is_running = False
    if unsaved:
        raise InputError(f"the server ended while {unsaved} images were being saved; save them again")


def _app(page: "Blocks", limits: Limits, password: str | None) -> Any:
    """The page as an ASGI application."""
    from gradio import mount_gradio_app, themes
    from starlette.applications import Starlette

    from pix2seqd.page.page import STYLE

    page.queue(max_size=limits.queue)
    page.state_session_capacity = limits.visitors + 1  # gradio itself forgets none: `Visitors` does
    page.max_threads = page._queue.max_thread_count = 8
    return mount_gradio_app(
        Starlette(),  # pyright: ignore[reportArgumentType]
        page,
        "/",
        auth=(lambda _, given: compare_digest(given.encode(), password.encode())) if password is not None else None,
        max_file_size=f"{limits.megabytes}mb",
        theme=themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=STYLE,
        **OFFLINE,
    )


def _is_busy(page: "Blocks", name: str) -> bool:
    """Whether a visitor's page has unsaved corrections, or a request that is not answered."""
    state = page.state_holder.session_data.get(name)
    work = [value for value in state.state_data.values() if isinstance(value, Work)] if state else []
    waiting = list(page._queue.event_ids_to_events.values())
    return any(value.unsaved for value in work) or any(event.session_hash == name for event in waiting)


def _expire(page: "Blocks") -> None:
    """Drop what pages that were left an hour ago hold, but no unsaved corrections: their connection may have broken."""
    for name in list(page.state_holder.session_data):
        if not _is_busy(page, name):
            page.state_holder.delete_state(name, expired_only=True)


def _forget(page: "Blocks", name: str) -> None:
    page.state_holder.session_data.pop(name, None)
    page.state_holder.time_last_used.pop(name, None)


def _wait_for_saves(page: "Blocks", guard: "Guard") -> int:
    """Wait for images that visitors are saving. Returns the number of those that are not saved."""
    until, waited = time.monotonic() + SAVING, False
    while (number := guard.entering + _saving(page)) and time.monotonic() < until:
        waited = True
        time.sleep(0.05)
    if waited:
        time.sleep(1)  # for the answer
    return number


def _saving(page: "Blocks") -> int:
    saves = page._queue.event_queue_per_concurrency_id.get(SAVES)  # None: nobody has saved yet
    return saves.current_concurrency + len(saves.queue) if saves else 0


class _OneLine:
    """Replaces the module `traceback` where gradio prints what went wrong in an event: the log gets one line."""

    @staticmethod
    def print_exc() -> None:
        from pix2seqd.page.guard import reason

        error = sys.exception()
        say(f"pix2seqd: a request to the page failed ({reason(error) if error else ''})", to_stderr=True)


async def _fetch_nothing(*_: Any, **__: Any) -> str:
    """Replaces gradio's download of URLs from requests."""
    raise InputError("this page downloads nothing from the network; upload the file")
