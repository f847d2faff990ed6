"""Who asks: the visitors of the page, the open pages of each, and wrong passwords."""

import ipaddress
import re
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from threading import Lock

LOCAL = ("127.0.0.1", "localhost", "::1")
"""Names of this machine that no other machine can use."""
IDLE = 24 * 3600
"""Seconds after the last request after which a page with unsaved corrections can be forgotten for a new one."""
FREE_TRIES = 3
"""Wrong passwords of a client before it has to wait."""
LONGEST_WAIT = 300
"""Seconds that a client waits at most for its next try of the password."""
TRIES_A_MINUTE = 30
"""Wrong passwords of all clients together."""
MAX_CLIENTS = 4096
"""Clients whose wrong passwords are remembered."""


def is_local(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Visitors:
    """The visitors, each known by the random value of a cookie, and their open pages.

    A page names itself by a number of its own choice (gradio's session). It belongs to the visitor who used it first.

    Args:
        limit: number of pages that are remembered.
        is_busy: whether a page has unsaved corrections or a request that is not answered.
        forget: called for a page that makes room for another.
    """

    def __init__(self, limit: int, is_busy: Callable[[str], bool], forget: Callable[[str], None]) -> None:
        self.cookie = f"visitor-{secrets.token_hex(8)}"  # browsers share cookies among all ports of a host
        self._limit, self._is_busy, self._forget = limit, is_busy, forget
        self._pages: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def of(self, cookies: str) -> str | None:
        """The visitor that the header `cookie` of a request names."""
        found = re.search(rf"(?:^|;) *{self.cookie}=([\w-]{{43}}) *(?:;|$)", cookies, re.ASCII)
        return found and found[1]

    def new(self) -> tuple[str, str]:
        """A new visitor, and the header `set-cookie` for it."""
        visitor = secrets.token_urlsafe(32)
        return visitor, f"{self.cookie}={visitor}; Path=/; HttpOnly; SameSite=Strict"

    def is_of_another(self, page: str, visitor: str) -> bool:
        """Whether a page belongs to another visitor."""
        return self._pages.get(page, (visitor,))[0] != visitor

    def enter(self, page: str, visitor: str) -> bool:
        """Remember the page of a visitor; False if there is no room for it."""
        if page not in self._pages and len(self._pages) >= self._limit:
            late = time.monotonic() - IDLE
            free = (p for p, (_, used) in self._pages.items() if used < late or not self._is_busy(p))
            if (oldest := next(free, None)) is None:
                return False
            self._forget(oldest)
            del self._pages[oldest]
        self._pages[page] = (visitor, time.monotonic())
        self._pages.move_to_end(page)
        return True


class Tries:
    """Slows down the guessing of a password, for each client and for all of them together."""

    def __init__(self) -> None:
        self._failed: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._recent: deque[float] = deque(maxlen=TRIES_A_MINUTE)
        self._lock = Lock()

    def begin(self, address: str) -> float:
        """Count a try as wrong until `succeeded`. Returns the seconds to wait before it; 0: it may be made now."""
        now, client = time.monotonic(), _network(address)
        with self._lock:
            failures, last = self._failed.get(client, (0, now))
            wait = min(2.0 ** min(failures - FREE_TRIES, 20), LONGEST_WAIT) - (now - last)
            if failures >= FREE_TRIES and wait > 0:
                return wait
            if len(self._recent) == TRIES_A_MINUTE and now - self._recent[0] < 60:
                return 60 - (now - self._recent[0])
            self._recent.append(now)
            self._failed[client] = (failures + 1, now)
            self._failed.move_to_end(client)
            if len(self._failed) > MAX_CLIENTS:
                self._failed.popitem(last=False)
        return 0

    def succeeded(self, address: str) -> None:
        """The last try of a client was right."""
        with self._lock:
            self._failed.pop(_network(address), None)
            if self._recent:
                self._recent.pop()


def _network(address: str) -> str:
    """The client: an IPv4 address, or the network of an IPv6 address, in which one person has many."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    return address if parsed.version == 4 else str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
