"""Serve the page: which requests are answered. The page itself contacts no other machine."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import compare_digest
from threading import Lock
from typing import TYPE_CHECKING, Any

from pix2seqd.files import InputError
from pix2seqd.page.limits import Limits, Scratch, Turns

if TYPE_CHECKING:
    from pix2seqd.segmenter import Segmenter

LOCAL = ("127.0.0.1", "localhost", "::1")
GET = re.compile(
    r"/(?:|config|theme\.css|favicon\.ico|manifest\.json|robots\.txt|logout|(?:assets|static)/.*|gradio_api/"
    r"(?:info|user|app_id|startup-events|login_check|queue/data|upload_progress|heartbeat/\w+|file=(?!https?:).*))/?"
)
POST = re.compile(r"/(?:login|gradio_api/(?:queue/join|upload|cancel|reset))/?")
"""The paths that the page needs. All other paths of gradio are refused."""
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'self'; form-action 'self'; base-uri 'self'"
)
"""The content security policy. Browsers contact no other host for this page."""

ENVIRONMENT = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_SHARE": "False", "GRADIO_MCP_SERVER": "False"}
"""Environment variables that gradio reads when it is imported and when components are made."""
OFFLINE: dict[str, Any] = {
    "share": False,
    "inbrowser": False,
    "quiet": True,
    "prevent_thread_lock": True,
    "show_error": True,
    "footer_links": [],
    "run_history": False,
    "max_threads": 8,
    "state_session_capacity": 64,
    "enable_monitoring": False,
    "ssr_mode": False,
    "pwa": False,
    "mcp_server": False,
}
"""Options of gradio's launch: no sharing, no statistics, and nothing that the page does not need."""


class Guard:
    """ASGI middleware: admits known paths and hosts and bodies of limited size, and adds the policy to every answer."""

    def __init__(self, app: Any, hosts: tuple[str, ...], max_bytes: int) -> None:
        self._app, self._hosts, self._max_bytes = app, hosts, max_bytes

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if refusal := self._refusal(scope, headers):
            await _answer(send, *refusal)
            return
        received = 0

        async def limited() -> dict[str, Any]:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message if received <= self._max_bytes else {"type": "http.disconnect"}

        async def guarded(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                extra = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = message | {"headers": [*message.get("headers", []), *extra]}
            await send(message)

        await self._app(scope, limited, guarded)

    def _refusal(self, scope: dict[str, Any], headers: dict[bytes, str]) -> tuple[int, str] | None:
        # A foreign site whose name resolves to this machine must not reach the page (DNS rebinding).
        host = re.sub(r":\d+$", "", headers.get(b"host", "")).strip("[]")
        if self._hosts and host not in self._hosts:
            return 421, f"this server is not {host!r}"
        allowed = {"GET": GET, "HEAD": GET, "POST": POST}.get(scope.get("method", ""))
        if scope["type"] != "http" or allowed is None or not allowed.fullmatch(scope["path"]):
            return 404, "this page does not exist"
        length = headers.get(b"content-length", "0")
        if not length.isdigit() or int(length) > self._max_bytes:
            return 413, f"too large; the limit is {self._max_bytes // 2**20} MB"
        return None


async def _answer(send: Any, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


@contextmanager
def serving(
    segmenter: "Segmenter",
    folder: Path,
    *,
    clip_segmenter: "Segmenter | None" = None,
    samples: Path | None = None,
    defaults: Mapping[str, Any] = {},
    limits: Limits | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    password: str | None = None,
) -> Iterator[str]:
    """Serve the page within this context, which yields its address.

    Args:
        segmenter: the model.
        clip_segmenter: the model of the tab Clip, which finds the same things; None: the same model.
        folder: the only folder that is written to. It holds the data set of saved images, and `.scratch`.
        samples: folder of images and clips that visitors can click.
        defaults: start values of the controls that differ from the checkpoint's, by name as in
            `pix2seqd.segmenter.ImageOptions`.
        limits: limits of a request.
        host: address to listen on.
        port: None takes a free port.
        password: visitors must enter it, with any user name.

    Raises:
        InputError: gradio is not installed, or the port is in use.
    """
    limits, scratch = limits or Limits(), Scratch(folder.absolute() / ".scratch")
    os.environ.update(ENVIRONMENT, GRADIO_TEMP_DIR=str(scratch.folder))
    try:
        from gradio import processing_utils, themes
        from starlette.middleware import Middleware
    except ImportError as error:
        raise InputError("the page needs gradio; install it with: pip install 'pix2seqd[web]'") from error
    from pix2seqd.page.page import STYLE, build
    from pix2seqd.page.site import Site

    processing_utils.async_ssrf_protected_download = _fetch_nothing  # pyright: ignore[reportAttributeAccessIssue]
    site = Site(segmenter, folder, scratch, limits, Turns(limits.seconds), Lock(), clip_segmenter)
    page = build(site, samples, defaults).queue(max_size=limits.queue)
    guard = Middleware(Guard, hosts=LOCAL if host in LOCAL else (), max_bytes=(limits.megabytes + 1) * 2**20)
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            auth=(lambda _, given: compare_digest(given.encode(), password.encode())) if password else None,
            max_file_size=f"{limits.megabytes}mb",
            **OFFLINE,
            app_kwargs={"middleware": [guard]},
            theme=themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=STYLE,
        )
    except OSError as error:
        scratch.clear()
        raise InputError(f"cannot listen on {host}:{port} ({error}); choose another --port") from error
    with scratch.swept():
        try:
            yield url
        finally:
            page.close(verbose=False)


async def _fetch_nothing(*_: Any, **__: Any) -> str:
    """Replaces gradio's download of URLs from requests."""
    raise InputError("this page downloads nothing from the network; upload the file")
