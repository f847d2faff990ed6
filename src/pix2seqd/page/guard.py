"""Which requests are answered, and to whom. `Guard` stands before gradio."""

import asyncio
import ipaddress
import json
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode

from python_multipart.exceptions import FormParserError
from starlette.requests import ClientDisconnect

from pix2seqd.files import InputError, printable, say
from pix2seqd.page.limits import Limits
from pix2seqd.page.scratch import Scratch
from pix2seqd.page.visitors import LOCAL, Tries, Visitors, is_local

FILE = "/gradio_api/file="
UPLOAD = "/gradio_api/upload"
JOIN = "/gradio_api/queue/join"
GET = re.compile(
    r"/(?:|config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|logout|(?:assets|static)/.*|gradio_api/"
    r"(?:info|user|app_id|startup-events|login_check|queue/data|upload_progress|heartbeat/\w+|file=(?!https?:).*))/?"
)
POST = re.compile(r"/(?:login|gradio_api/(?:queue/join|upload|cancel|reset))/?")
"""The paths that the page needs. All other paths of gradio are refused."""
PAGE = re.compile(r"[\w-]{1,64}", re.ASCII)
"""The number by which a page names itself (gradio's session)."""
IGNORED = (b"x-forwarded-host", b"x-gradio-server")
"""Headers in which a request names another host for the addresses on the page; gradio would believe them."""
RANGE = re.compile(rb"bytes=(\d{1,18}-\d{0,18}|-\d{1,18})")
"""The part of a file that browsers ask for. Gradio fails at several parts; without the header all of it is sent."""
MAX_BODY = 4 * 2**20
"""Bytes of a request that is not an upload."""
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'; form-action 'self'; base-uri 'self'"
)
"""The content security policy. Browsers contact no other host for this page."""
HEADERS = {
    b"content-security-policy": POLICY.encode(),
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
}
"""Added to every answer."""


class Refusal(Exception):  # noqa: N818
    """A request is answered with a status and a line of text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Guard:
    """ASGI middleware: admits known paths, hosts and origins, bodies of limited size, and files of the own session.

    Args:
        app: gradio's application.
        host: address that the server listens on.
        names: further names under which browsers may ask for it.
        visitors: the visitors.
        scratch: their files.
        limits: limits of a request.
        is_locked: whether visitors have to log in; gradio compares the password.
    """

    def __init__(
        self,
        app: Any,
        host: str,
        names: Collection[str],
        visitors: Visitors,
        scratch: Scratch,
        limits: Limits,
        is_locked: bool,
    ) -> None:
        self._app, self._host, self._names = app, host, {name.lower() for name in names}
        self._visitors, self._scratch, self._limits, self._tries = visitors, scratch, limits, Tries()
        self._is_locked, self._admitted = is_locked, set[str]()
        self.ending = False
        """Whether new requests are refused because the server ends."""
        self.entering = 0
        """Requests of an event that gradio is putting into its queue."""

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        visitor, cookie = self._visitors.of(headers.get(b"cookie", "")), None
        if visitor is None:
            visitor, cookie = self._visitors.new()
        body, begun = _Body(receive, self._limits.patience), False
        scope = {**scope, "headers": [one for one in scope["headers"] if _is_heeded(*one)]}
        upload = scope["path"].startswith(UPLOAD) and scope["method"] == "POST"

        async def guarded(message: dict[str, Any]) -> None:
            nonlocal begun
            if body.is_broken:  # gradio calls it an internal error
                return
            begun = True
            if message["type"] == "http.response.start":
                if upload and message["status"] >= 400:
                    print(f"pix2seqd: an upload was refused ({message['status']})", file=sys.stderr, flush=True)
                # Gradio allows origins by repeating what the browser sent. No other origin needs an answer.
                kept = [(name, value) for name, value in message["headers"] if not name.startswith(b"access-control-")]
                given = cookie
                if scope["path"].rstrip("/") == "/login" and message["status"] < 400:
                    self._tries.succeeded(_address(scope))
                    if visitor not in self._admitted:  # another page of this host may have set the cookie before
                        admitted, given = self._visitors.new()
                        self._admitted.add(admitted)
                elif scope["path"].rstrip("/") == "/logout":
                    self._admitted.discard(visitor)
                extra = [*HEADERS.items(), *([(b"set-cookie", given.encode())] if given else [])]
                message = message | {"headers": [*kept, *extra]}
            await send(message)

        try:
            size = self._check(scope, headers)
            await self._check_owner(scope, visitor, body)
            with self._scratch.expecting(visitor, size) if upload else self._entered(scope):
                if self.ending and scope["method"] == "POST":  # not before the body, which may have come slowly
                    raise Refusal(503, "the server is ending")
                await self._app({**scope, "visitor": visitor}, body, self._noting(guarded, visitor, upload))
        except Refusal as refusal:
            await _answer(guarded, scope, refusal.status, refusal.text)
        except InputError as full:
            await _answer(guarded, scope, 507, str(full))
        except (ClientDisconnect, FormParserError):
            body.is_broken = False
            await _answer(guarded, scope, 400, "this request is broken or too slow; try again")
        except Exception as error:  # gradio raises anything for a body that its own page would not send
            say(f"pix2seqd: a request to {scope['path'][:100]} failed ({reason(error)})", to_stderr=True)
            if not begun:
                await _answer(guarded, scope, 500, "this request is not understood; load the page again")

    def _check(self, scope: dict[str, Any], headers: dict[bytes, str]) -> int:
        """Check everything but the visitor. Returns the size of the body."""
        # A foreign site whose name resolves to this machine must not reach the page (DNS rebinding).
        host = headers.get(b"host", "").lower()
        origins = {value.decode("latin-1").lower() for name, value in scope["headers"] if name == b"origin"} - {""}
        if not self._is_own(re.sub(r":\d+$", "", host).strip("[]").rstrip(".")):
            raise Refusal(421, f"this server is not {printable(host)!r}; see --names")
        foreign = origins - {f"http://{host}", f"https://{host}"}
        # Other sites may link to the page, but not use its files and requests.
        linked = headers.get(b"sec-fetch-site", "none") not in ("same-origin", "none")
        if foreign or (linked and (scope["method"], scope["path"]) != ("GET", "/")):
            raise Refusal(403, "this request comes from another site")
        allowed = {"GET": GET, "HEAD": GET, "POST": POST}.get(scope["method"])
        if allowed is None or not allowed.fullmatch(scope["path"]):
            raise Refusal(404, "this page does not exist")
        limit = (self._limits.megabytes + 1) * 2**20
        if not scope["path"].startswith(UPLOAD):
            limit = min(limit, MAX_BODY)
        # Of a body in chunks the server heeds no length, whatever the head says.
        length = "" if b"transfer-encoding" in headers else headers.get(b"content-length", "0")
        if not length.isdigit():
            raise Refusal(411, "the length of the request is missing")
        if int(length) > limit:
            raise Refusal(413, f"too large; the limit is {limit // 2**20} MB")
        return int(length)

    @contextmanager
    def _entered(self, scope: dict[str, Any]) -> Iterator[None]:
        """Count a request in `entering` within this context, if it is one."""
        number = scope["path"].rstrip("/") == JOIN
        self.entering += number
        try:
            yield
        finally:
            self.entering -= number

    def _is_own(self, name: str) -> bool:
        if name in LOCAL or name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return not is_local(self._host)  # a site cannot make its name resolve to this page if it has no name

    async def _check_owner(self, scope: dict[str, Any], visitor: str, body: "_Body") -> None:
        """Check that a request is about the visitor's own things."""
        path, query = scope["path"].rstrip("/"), parse_qs(scope["query_string"].decode("latin-1"))
        if self._is_locked and path.startswith("/gradio_api/") and visitor not in self._admitted:
            raise Refusal(401, "log in first")  # gradio itself does not ask this on all of its routes
        if path.startswith(FILE) and not self._scratch.may_see(Path(path.removeprefix(FILE)), visitor):
            raise Refusal(404, "this file is no longer here")
        if "upload_id" in query:  # progress, with the names of files, is for the visitor who uploads them
            query["upload_id"] = [f"{visitor}-{query['upload_id'][0]}"]
            scope["query_string"] = urlencode(query, doseq=True).encode()
        if path == "/login" and scope["method"] == "POST" and (wait := self._tries.begin(_address(scope))):
            raise Refusal(429, f"too many wrong passwords; wait {wait:.0f} seconds")
        pages = query.get("session_hash", [])
        if path.startswith("/gradio_api/heartbeat/"):
            pages = [path.rpartition("/")[2]]
        if path in (JOIN, "/gradio_api/cancel"):
            content = _json(await body.whole())
            pages = [content.get("session_hash")]
            # Gradio would copy any file of this machine, and what an address gives, before a function sees its path.
            if not all(self._scratch.may_see(Path(file), visitor) for file in _paths(content)):
                raise Refusal(403, "this file is no longer here; upload it again")
        for page in pages:
            if not isinstance(page, str) or not PAGE.fullmatch(page) or self._visitors.is_of_another(page, visitor):
                raise Refusal(403, "this page belongs to another visitor; load it again")
            if path == JOIN and not self._visitors.enter(page, visitor):
                full = f"{self._limits.visitors} visitors have corrections here that are not saved; try again later"
                raise Refusal(429, full)

    def _noting(self, send: Any, visitor: str, upload: bool) -> Any:
        """`send`, which also gives uploaded files, whose paths are in the answer, to the visitor."""
        if not upload:
            return send
        answered = b""

        async def noted(message: dict[str, Any]) -> None:
            nonlocal answered
            answered += message.get("body", b"")
            if message["type"] == "http.response.body" and not message.get("more_body"):
                try:
                    paths = json.loads(answered)
                except ValueError:
                    paths = []  # a refusal
                for path in paths if isinstance(paths, list) else []:
                    self._scratch.give(Path(path), visitor)
            await send(message)

        return noted


def reason(error: BaseException) -> str:
    """An error in one short line, for the log."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


class _Body:
    """The body of a request: an awaitable that receives it with limited patience.

    Attributes:
        is_broken: whether it ended early or is too slow.
    """

    def __init__(self, receive: Any, patience: float) -> None:
        self._receive, self._patience = receive, patience
        self._until: float | None = None
        self._complete = False
        self._whole: bytes | None = None
        self.is_broken = False

    async def __call__(self) -> dict[str, Any]:
        if self._whole is not None:
            content, self._whole = self._whole, None
            return {"type": "http.request", "body": content, "more_body": False}
        if self._complete:  # waits for the end of the connection
            return await self._receive()
        loop = asyncio.get_running_loop()
        self._until = self._until or loop.time() + 10 * self._patience
        try:
            seconds = min(self._patience, max(0, self._until - loop.time()))
            message = await asyncio.wait_for(self._receive(), seconds)
        except TimeoutError:
            message = {"type": "http.disconnect"}
        self._complete = not message.get("more_body")
        self.is_broken = message["type"] == "http.disconnect"
        return message

    async def whole(self) -> bytes:
        """The body as a whole; it is received again afterwards."""
        parts: list[bytes] = []
        while not self._complete:
            message = await self()
            if self.is_broken:
                raise ClientDisconnect
            parts.append(message.get("body", b""))
        self._whole = b"".join(parts)
        return self._whole


def _is_heeded(name: bytes, value: bytes) -> bool:
    """Whether gradio gets a header of a request."""
    return name not in IGNORED and (name != b"range" or RANGE.fullmatch(value) is not None)


def _json(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _paths(content: Any) -> Iterator[str]:
    """The paths of all files in the content of a request, as gradio finds them; what is not a path is "/"."""
    left = [content]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if one.get("path") is not None:
                yield one["path"] if isinstance(one["path"], str) else "/"
            left += one.values()
        elif isinstance(one, list):
            left += one


def _address(scope: dict[str, Any]) -> str:
    return (scope.get("client") or ("",))[0]


async def _answer(send: Any, scope: dict[str, Any], status: int, text: str) -> None:
    kind, body = "text/plain", text
    if scope["path"].startswith("/gradio_api/queue"):  # the page shows it as a message
        kind, body = "application/json", json.dumps({"detail": text})
    headers = [(b"content-type", f"{kind}; charset=utf-8".encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
