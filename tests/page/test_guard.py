"""Strangers on the page: other visitors, other sites, stuck connections, passwords. Skipped without gradio."""

import asyncio
import json
import re
import socket
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_segmenter import draw
from page_segmenter import PageSegmenter

pytest.importorskip("gradio", reason="needs the extra web")
import httpx
from visitor import Visitor

from pix2seqd.files import InputError
from pix2seqd.page import correct, server
from pix2seqd.page.guard import Guard
from pix2seqd.page.limits import Limits
from pix2seqd.page.scratch import Scratch
from pix2seqd.page.server import serving
from pix2seqd.page.visitors import Visitors

STEPS = {"steps": 2, "min_pixels": 1}


@pytest.fixture(scope="module", autouse=True)
def own_temporary_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:  # gradio serves any file in /tmp
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("other")))
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("guard")


@pytest.fixture(scope="module")
def url(place):
    limits = Limits(megabytes=1, visitor_megabytes=1, total_megabytes=3, patience=1)
    with serving(PageSegmenter(), place / "out", defaults=STEPS, limits=limits) as url:
        yield url


def image_of(place, seed=0):
    """A file of its own, so that no other test has uploaded it."""
    path = place / f"{seed}.png"
    draw(path, blobs=2, size=(40 + seed, 30))
    return path


def segment(visitor, path):
    """Open and segment an image; the paths of the files that the page offers."""
    assert "error" not in visitor.open(visitor.upload(path))
    return re.findall(r'"path": "([^"]+)"', json.dumps(visitor.call("segment", "click")))


def address(url):
    return url.removeprefix("http://").rstrip("/").rsplit(":", 1)


def test_guard_files_are_seen_by_their_visitor_only(url, place):
    one, other = Visitor(url), Visitor(url)
    found = [one.upload(image_of(place, 1)), *segment(one, image_of(place, 2))]
    assert len(found) > 4
    for path in found:
        assert one.http.get(f"/gradio_api/file={path}").status_code == 200
        assert other.http.get(f"/gradio_api/file={path}").status_code == 404
        assert other.http.get(f"/gradio_api/file={Path(path).parent}/./{Path(path).name}").status_code == 404
        given = {"path": path, "meta": {"_type": "gradio.FileData"}}
        assert "no longer here" in other.join("image", "change", [given]).json()["detail"]


@pytest.mark.parametrize("path", ["/etc/passwd", "/dev/zero", "http://127.0.0.1:9/a.png", "../a", "", ["/etc/passwd"]])
@pytest.mark.parametrize("wrap", [lambda file: file, lambda file: {"image": {"a": [file]}}])
def test_guard_gradio_copies_no_file_that_is_not_the_visitors(url, place, path, wrap):
    """Gradio would copy it into its folder before a function is called, /dev/zero until the disk is full."""
    visitor = Visitor(url)
    answer = visitor.join("segment", "click", [wrap({"path": path, "meta": {"_type": "gradio.FileData"}})])
    assert (answer.status_code, answer.json()["detail"]) == (403, "this file is no longer here; upload it again")
    assert not [found for found in (place / "out").rglob("*") if found.name in ("passwd", "zero")]


@pytest.mark.parametrize("part", ["0-1,3-4", "0-1, 3-4", ",".join(["0-0"] * 1000), "0-" + "9" * 5000, "a-b", "-", ""])
def test_guard_parts_of_a_file_that_are_not_understood_give_all_of_it(url, place, part):
    visitor, file = Visitor(url), image_of(place, 6)
    found = f"/gradio_api/file={visitor.upload(file)}"
    answer = visitor.http.get(found, headers={"range": f"bytes={part}"})
    assert (answer.status_code, answer.content) == (200, file.read_bytes())
    answers = [visitor.http.get(found, headers={"range": f"bytes={given}"}) for given in ("1-3", "-2", "999999-")]
    assert [answer.status_code for answer in answers] == [206, 206, 416]
    assert answers[0].content == file.read_bytes()[1:4]


def test_guard_names_of_results_cannot_be_guessed(url, place):
    visitor = Visitor(url)
    folders = {Path(segment(visitor, image_of(place, seed))[-1]).parent.name for seed in (3, 4)}
    assert len(folders) == 2 and all(len(name) >= 22 for name in folders)


def test_guard_page_of_another_visitor_is_refused(url, place):
    one = Visitor(url)
    one.open(one.upload(image_of(place, 5)))
    other = Visitor(url, one.name)
    assert other.join("segment", "click").status_code == 403
    assert other.http.get(f"/gradio_api/queue/data?session_hash={one.name}").status_code == 403
    assert other.http.get(f"/gradio_api/heartbeat/{one.name}").status_code == 403
    body = {"session_hash": one.name, "fn_index": 1, "event_id": "x"}
    assert other.http.post("/gradio_api/cancel", json=body).status_code == 403
    assert other.http.post("/gradio_api/queue/join", json={"session_hash": ["x"], "data": []}).status_code == 403
    assert "error" not in one.call("segment", "click")


ROUTES = {
    "page": ("GET", "/"),
    "config": ("GET", "/config"),
    "upload": ("POST", "/gradio_api/upload"),
    "join": ("POST", "/gradio_api/queue/join"),
    "answers": ("GET", "/gradio_api/queue/data?session_hash=a"),
    "heartbeat": ("GET", "/gradio_api/heartbeat/a"),
    "file": ("GET", "/gradio_api/file=a"),
    "login": ("POST", "/login"),
}


@pytest.mark.parametrize("route", ROUTES)
def test_guard_refuses_other_origins(url, route):
    method, path = ROUTES[route]
    host, port = address(url)
    with httpx.Client(base_url=url) as http:
        for origin in (
            "http://evil.example",
            "null",
            f"http://{host}:1",
            f"http://localhost:{port}",
            f"http://{host}.",
        ):
            answer = http.request(method, path, headers={"origin": origin})
            assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers, origin
        assert http.request(method, path, headers={"sec-fetch-site": "cross-site"}).status_code == (
            200 if route == "page" else 403
        )


def test_guard_refuses_another_origin_beside_its_own(url):
    own = url.rstrip("/")
    for origins in (("http://evil.example", own), (own, "http://evil.example"), (own, "null")):
        answer = httpx.get(f"{url}config", headers=[("origin", origin) for origin in origins])
        assert answer.status_code == 403
    assert httpx.get(f"{url}config", headers=[("origin", own), ("origin", own)]).status_code == 200


def test_guard_allows_no_origin_by_its_headers(url):
    own = {"origin": url.rstrip("/")}
    with httpx.Client(base_url=url) as http:
        answer = http.get("/config", headers=own)
        assert answer.status_code == 200 and not [name for name in answer.headers if name.startswith("access-control")]
        asked = own | {"access-control-request-method": "POST"}
        assert "access-control-allow-origin" not in http.options("/gradio_api/upload", headers=asked).headers


def status(guard, **headers):
    """The status of a request to `guard`, made without a network."""
    statuses = []

    async def send(message):
        statuses.append(message.get("status"))

    async def receive():
        return {"type": "http.request"}

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": given}
    asyncio.run(guard(scope, receive, send))
    return statuses[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "10.0.0.5", "::"])
def test_guard_answers_to_its_own_names_only(host, tmp_path):
    async def page(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    limits = Limits()
    visitors = Visitors(1, lambda _: False, lambda _: None)
    guard = Guard(page, host, ["Lab.example"], visitors, Scratch(tmp_path, limits), limits, False)
    for name in ("localhost:7860", "127.0.0.1", "[::1]:7860", "lab.example:80", "LAB.example."):
        assert status(guard, host=name) == 200
    for name in ("evil.example", "localhost.evil.example:7860", "127.0.0.1.evil.example", ""):
        assert status(guard, host=name) == status(guard, host=name, origin=f"http://{name}") == 421
    # A name cannot be made to resolve elsewhere where there is none.
    assert status(guard, host="192.168.1.7:7860") == (421 if host in ("127.0.0.1", "::1") else 200)


def test_guard_share_of_a_visitor_drops_the_oldest_files(url, place):
    visitor, rng = Visitor(url), np.random.default_rng(0)
    found = []
    for k in range(3):
        (place / f"noise{k}.bin").write_bytes(rng.bytes(400_000))
        found.append(visitor.upload(place / f"noise{k}.bin"))
        time.sleep(0.02)
    assert [visitor.http.get(f"/gradio_api/file={path}").status_code for path in found] == [404, 200, 200]
    assert not Path(found[0]).exists()


def test_guard_refuses_uploads_beyond_the_share_of_all(url, place):
    rng, statuses = np.random.default_rng(1), []
    for k in range(9):
        (place / f"many{k}.bin").write_bytes(rng.bytes(900_000))
        answer = Visitor(url).upload(place / f"many{k}.bin")
        statuses.append(200 if isinstance(answer, str) else answer.status_code)
    assert statuses[0] == 200 and statuses[-1] == 507 and "try again" in answer.text
    for path in (place / "out" / ".scratch").rglob("many*.bin"):
        path.unlink()


def send_and_wait(url, data, seconds=20):
    """Send bytes; returns what the server answers before it closes the connection, and after how long."""
    host, port = address(url)
    started = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(data)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer, time.monotonic() - started


HEAD = b"POST /gradio_api/upload HTTP/1.1\r\nHost: %s\r\nContent-Length: 5000\r\n"
KIND = b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\nabc'


@pytest.mark.parametrize("sent", ["nothing", "half a line", "no end of the head", "no body", "half a body"])
def test_guard_closes_stuck_connections(url, sent, place):
    host = ":".join(address(url)).encode()
    data = {
        "nothing": b"",
        "half a line": b"GET / HT",
        "no end of the head": HEAD % host,
        "no body": HEAD % host + KIND,
        "half a body": HEAD % host + KIND + PART,
    }[sent]
    answer, seconds = send_and_wait(url, data)
    assert seconds < 10 and (b" 400 " in answer) == ("body" in sent)
    assert not [path for path in (place / "out" / ".scratch").glob("*/*") if path.is_file()]


@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/upload", "/login"])
@pytest.mark.parametrize("length", ["", "Content-Length: 5\r\n"])
def test_guard_refuses_a_body_of_any_length(url, path, length):
    """In chunks it has no end; the server heeds no length beside them."""
    head = f"POST {path} HTTP/1.1\r\nHost: {':'.join(address(url))}\r\nConnection: close\r\n{length}"
    answer, _ = send_and_wait(url, f"{head}Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n".encode())
    assert b" 411 " in answer.splitlines()[0]


def test_guard_broken_upload_gives_one_line(url, place, capfd):
    host, port = address(url)
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(HEAD % ":".join((host, port)).encode() + KIND + PART)
        time.sleep(0.3)
    broken = httpx.post(
        f"{url}gradio_api/upload", content=b"nonsense", headers={"content-type": "multipart/form-data; boundary=b"}
    )
    assert broken.status_code == 400
    time.sleep(0.5)
    lines = capfd.readouterr().err.splitlines()
    assert lines == ["pix2seqd: an upload was refused (400)"] * 2
    assert not [path for path in (place / "out" / ".scratch").glob("*/*") if path.is_file()]


def test_guard_requests_that_gradio_does_not_understand_give_one_line_each(url, capfd):
    visitor = Visitor(url)
    body = {"session_hash": visitor.name, "data": []}
    assert visitor.http.post("/gradio_api/upload", files=[("files", ("", b"x"))]).status_code == 500
    assert visitor.http.post("/gradio_api/queue/join", json=body | {"fn_index": -1}).status_code == 500
    nan = json.dumps(body | {"fn_index": float("nan")}).encode()
    kind = {"content-type": "application/json"}
    assert visitor.http.post("/gradio_api/queue/join", content=nan, headers=kind).status_code == 500
    number = visitor.events["segment", "click"]["id"]
    assert visitor.http.post("/gradio_api/queue/join", json=body | {"fn_index": number}).status_code == 200
    assert "error" in list(visitor.answers())[-1]["output"]
    lines = [line for line in capfd.readouterr().err.splitlines() if "upload was refused" not in line]
    assert len(lines) == 4 and all(line.startswith("pix2seqd: a request to ") for line in lines), lines


@pytest.mark.parametrize("header", ["x-forwarded-host", "x-gradio-server"])
def test_guard_other_hosts_in_headers_are_ignored(url, header):
    with httpx.Client(base_url=url) as http:
        for path in ("/", "/config"):
            answer = http.get(path, headers={header: "http://evil.example"})
            assert answer.status_code == 200 and "evil.example" not in answer.text


def test_guard_refuses_a_new_page_rather_than_forget_corrections(place):
    limits = Limits(visitors=2)
    with serving(PageSegmenter(), place / "few", defaults=STEPS, limits=limits) as url:
        first, second = Visitor(url), Visitor(url)
        for seed, visitor in enumerate((first, second), start=20):
            segment(visitor, image_of(place, seed))
            assert "error" not in visitor.paint(3, 3)
        third = Visitor(url)
        answer = third.join("segment", "click")
        assert answer.status_code == 429 and "not saved" in answer.json()["detail"]
        assert "error" not in first.call("save", "click")
        until = time.monotonic() + 10
        while (answer := third.join("segment", "click")).status_code == 429 and time.monotonic() < until:
            time.sleep(0.05)  # the request to save is still being cleared away
        assert answer.status_code == 200 and "no image yet" in list(third.answers())[-1]["output"]["error"]
        time.sleep(0.3)
        assert "no image yet" in first.call("save", "click")["error"]
        assert "error" not in second.call("save", "click")


def test_guard_keeps_corrections_of_a_page_whose_connection_broke(place, monkeypatch):
    """As that of a laptop that sleeps does. Gradio drops its state after an hour; here after a second."""
    monkeypatch.setenv("GRADIO_IS_E2E_TEST", "1")
    with serving(PageSegmenter(), place / "asleep", defaults=STEPS) as url:
        awake, done = Visitor(url), Visitor(url)
        for seed, visitor in enumerate((awake, done), start=24):
            segment(visitor, image_of(place, seed))
            assert "error" not in visitor.paint(3, 3)
        assert "error" not in done.call("save", "click")
        for visitor in (awake, done):
            with visitor.http.stream("GET", f"/gradio_api/heartbeat/{visitor.name}") as stream:
                next(stream.iter_bytes())
        time.sleep(4)
        assert "error" not in awake.call("save", "click")
        assert "no image yet" in done.call("save", "click")["error"], "nothing of it would be lost"


def test_guard_failed_passwords_are_slowed_down(place):
    with serving(PageSegmenter(), place / "locked", password="open sesame") as url, httpx.Client(base_url=url) as http:

        def status(password):
            return http.post("/login", data={"username": "me", "password": password}).status_code

        assert [status("wrong") for _ in range(5)] == [400, 400, 400, 429, 429]
        assert status("open sesame") == 429  # otherwise the answer would tell
        time.sleep(1.1)
        assert status("open sesame") == 200 and http.get("/gradio_api/info").status_code == 200
        assert http.post("/gradio_api/reset", json={"event_id": "x"}).status_code == 200
        assert http.get("/logout").status_code == 302
        assert http.post("/gradio_api/reset", json={"event_id": "x"}).status_code == 401, "gradio does not ask here"


def test_guard_login_gives_another_cookie(place):
    """Pages of other ports of this host can set cookies here: who set one before the login would be admitted by it."""
    with serving(PageSegmenter(), place / "fixed", password="open sesame") as url, httpx.Client(base_url=url) as http:
        http.get("/config")
        before = dict(http.cookies)
        assert http.post("/login", data={"username": "me", "password": "open sesame"}).status_code == 200
        assert http.get("/gradio_api/startup-events").status_code == 200
        assert httpx.get(f"{url}gradio_api/startup-events", cookies=before).status_code == 401
        after = dict(http.cookies)
        assert http.post("/login", data={"username": "me", "password": "open sesame"}).status_code == 200
        assert http.cookies.items() >= {name: after[name] for name in before}.items(), "open pages stay the visitor's"


@pytest.mark.parametrize("ends", [True, False])
def test_guard_slow_request_is_refused_if_the_server_ends_meanwhile(tmp_path, ends):
    """Otherwise it would come into the queue after nobody waits for it any more."""
    counts, answers = [], []

    async def page(scope, receive, send):
        counts.append(guard.entering)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        guard.ending = ends
        return {"type": "http.request", "body": b'{"session_hash": "a"}'}

    async def send(message):
        answers.append(message.get("status"))

    visitors, limits = Visitors(1, lambda _: False, lambda _: None), Limits()
    guard = Guard(page, "127.0.0.1", [], visitors, Scratch(tmp_path, limits), limits, False)
    scope = {"type": "http", "method": "POST", "path": "/gradio_api/queue/join", "query_string": b""}
    scope["headers"] = [(b"host", b"localhost"), (b"content-length", b"21")]
    asyncio.run(guard(scope, receive, send))
    assert (answers[0], counts, guard.entering) == ((503, [], 0) if ends else (200, [1], 0))


@pytest.mark.parametrize("path", ["queue/join", "cancel", "upload", "heartbeat/a", "queue/data?session_hash=a", "info"])
def test_guard_without_password_nothing_is_answered(place, path):
    limits = Limits()
    visitors = Visitors(1, lambda _: False, lambda _: None)

    async def page(scope, receive, send):
        raise AssertionError

    guard = Guard(page, "127.0.0.1", [], visitors, Scratch(place / "empty", limits), limits, True)
    statuses = []

    async def send(message):
        statuses.append(message.get("status"))

    post = path in ("queue/join", "cancel", "upload")
    path, _, query = path.partition("?")
    scope = {"type": "http", "method": "POST" if post else "GET", "path": f"/gradio_api/{path}"}
    scope |= {"query_string": query.encode(), "headers": [(b"host", b"localhost")]}
    asyncio.run(guard(scope, None, send))
    assert statuses[0] == 401


def test_serving_listens_on_ipv6(place):
    if not socket.has_ipv6:
        pytest.skip("needs IPv6")
    with serving(PageSegmenter(), place / "six", host="::1") as url:
        assert url.startswith("http://[::1]:") and httpx.get(f"{url}config").status_code == 200


def test_serving_refuses_a_port_in_use(place):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(InputError, match=f"cannot listen on 127.0.0.1:{port}"),
            serving(PageSegmenter(), place / "taken", port=port),
        ):
            pass
    assert not (place / "taken" / ".scratch").exists()


def test_serving_waits_for_an_image_that_is_being_saved(place, monkeypatch):
    append, begun = correct.editing.append, threading.Event()

    def slow(*arguments):
        begun.set()
        time.sleep(1)
        return append(*arguments)

    monkeypatch.setattr(correct.editing, "append", slow)
    with serving(PageSegmenter(), place / "saved", defaults=STEPS) as url:
        visitor = Visitor(url)
        segment(visitor, image_of(place, 40))
        visitor.join("save", "click")
        answers = threading.Thread(target=lambda: outcome.extend(visitor.answers()))
        outcome = []
        answers.start()
        assert begun.wait(20)
    answers.join(20)
    assert outcome[-1]["success"] and len(json.loads((place / "saved" / "panoptic.json").read_text())["images"]) == 1


def test_serving_waits_for_a_request_that_is_on_its_way(monkeypatch):
    monkeypatch.setattr(server, "SAVING", 0.2)
    page: Any = SimpleNamespace(_queue=SimpleNamespace(event_queue_per_concurrency_id={}))
    for number in (0, 1):
        guard: Any = SimpleNamespace(entering=number)
        assert server._wait_for_saves(page, guard) == number


def test_serving_reports_an_image_that_was_not_saved(place, monkeypatch):
    begun, end = threading.Event(), threading.Event()
    monkeypatch.setattr(server, "SAVING", 0.2)
    monkeypatch.setattr(correct.editing, "append", lambda *_: begun.set() or end.wait(20))
    with (
        pytest.raises(InputError, match="ended while 1 image"),
        serving(PageSegmenter(), place / "lost", defaults=STEPS) as url,
    ):
        visitor = Visitor(url)
        segment(visitor, image_of(place, 41))
        visitor.join("save", "click")
        assert begun.wait(20)
    end.set()
