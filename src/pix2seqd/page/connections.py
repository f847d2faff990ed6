"""The web server below the page: a thread with uvicorn, which closes connections that stand still."""

import asyncio
import functools
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from time import sleep
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from pix2seqd.files import InputError

MAX_CONNECTIONS = 500
"""Connections at a time. Further requests are refused."""


class PatientProtocol(H11Protocol):
    """HTTP/1.1. uvicorn itself waits for ever for the head of a request and for a client that takes its answer."""

    def __init__(self, *arguments: Any, patience: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._patience = patience
        self._head: asyncio.TimerHandle | None = None
        self._taken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A client connects; its request must begin soon."""
        super().connection_made(transport)
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Bytes arrive."""
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        """A request is answered; the next one must come soon."""
        super().on_response_complete()
        self._watch_head()

    def pause_writing(self) -> None:
        """The client takes the answer more slowly than it is made."""
        super().pause_writing()
        self._taken = self.loop.call_later(10 * self._patience, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has taken it."""
        super().resume_writing()
        self._taken = _cancelled(self._taken)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection ends."""
        self._head, self._taken = _cancelled(self._head), _cancelled(self._taken)
        super().connection_lost(exc)

    def _watch_head(self) -> None:
        between = self.cycle is None or self.cycle.response_complete
        if not between:
            self._head = _cancelled(self._head)
        elif self._head is None:
            self._head = self.loop.call_later(self._patience, self.transport.abort)


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


@contextmanager
def listening(app: Any, host: str, port: int | None, patience: float) -> Iterator[str]:
    """Serve an ASGI application from a thread within this context, which yields the address."""
    try:
        family, *_, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        opened = socket.create_server(address[:2], family=family)
    except OSError as error:
        address = f"{host}:{port}" if port else host
        raise InputError(f"cannot listen on {address} ({error.strerror}); choose another --host or --port") from error
    config = uvicorn.Config(
        app,
        http=functools.partial(PatientProtocol, patience=patience),  # pyright: ignore[reportArgumentType]
        ws="none",
        log_level="warning",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        sleep(0.01)
    shown = {"0.0.0.0": "localhost", "::": "localhost"}.get(host, f"[{host}]" if ":" in host else host)
    try:
        yield f"http://{shown}:{opened.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(timeout=15)
        opened.close()
