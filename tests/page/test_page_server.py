"""The page over HTTP, with requests of a browser and of an attacker. Skipped without gradio."""

import json
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fake_segmenter import draw
from page_segmenter import PageSegmenter
from PIL import Image

pytest.importorskip("gradio", reason="needs the extra web")
import httpx  # comes with gradio
from visitor import Visitor

from pix2seqd.page.limits import Limits
from pix2seqd.page.server import serving
from pix2seqd.panoptic.panoptic import rgb_to_id

QUEUE = 6
GIVEN = {"steps": 4, "td": 20.0, "min_pixels": 3, "seed": 5, "consensus": 11, "diameter": 12.5}
"""The options that the server is started with."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def segmenter():
    return PageSegmenter()


@pytest.fixture(scope="module")
def url(place, segmenter):
    limits, samples = Limits(megabytes=1, pixels=20_000, queue=QUEUE), draw(place / "samples" / "first.png").parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(place / "tmp"))  # gradio serves any file in /tmp
        with serving(segmenter, place / "out", samples=samples, defaults=GIVEN, limits=limits) as url:
            yield url
    assert not (place / "out" / ".scratch").exists()


@pytest.fixture
def visitor(url):
    return Visitor(url)


def test_server_segment_streams_steps_with_the_given_options(visitor, segmenter, place):
    source = draw(place / "a.png", blobs=3)
    visitor.open(visitor.upload(source))
    assert visitor.join("segment", "click").status_code == 200
    messages = list(visitor.answers())
    shown = sum(message["msg"] == "process_generating" for message in messages)
    assert shown == 6  # the beginning, 4 steps and the result
    (path,) = (p for p in (place / "out" / ".scratch").rglob("a-panoptic.png"))
    *_, (_, expected) = segmenter.progress(source, **segmenter.calls[-1])
    assert (rgb_to_id(np.asarray(Image.open(path))) == expected.segmentation).all()
    assert segmenter.calls[-1] == GIVEN


def test_server_draw_takes_single_samples_of_different_seeds(visitor, segmenter, place):
    visitor.open(visitor.upload(draw(place / "several.png")))
    assert "error" not in visitor.call("draw", "click")
    assert [(call["seed"], call["consensus"]) for call in segmenter.calls[-4:]] == [(5, 1), (6, 1), (7, 1), (8, 1)]


def test_server_clip_passes_first_and_later_steps(visitor, segmenter, place):
    frame = Image.new("L", (64, 48), 20)
    frame.save(place / "clip.tif", save_all=True, append_images=[frame, frame])
    path = visitor.upload(place / "clip.tif")
    event = visitor.events["segment-clip", "click"]
    data = [visitor.inputs.get(i) for i in event["inputs"]]
    data[0], data[3] = {"path": path, "orig_name": "clip.tif", "meta": {"_type": "gradio.FileData"}}, 2
    output = visitor.call("segment-clip", "click", data)
    assert "error" not in output
    assert (segmenter.calls[-1]["first_steps"], segmenter.calls[-1]["steps"]) == (4, 2)


def test_server_opens_a_sample_outside_the_scratch_folder(visitor):
    assert visitor.join("samples", "select", event_data={"index": 0, "value": None}).status_code == 200
    *_, last = visitor.answers()
    (given,) = last["output"]["data"]
    assert given["orig_name"] == "first.png" and "error" not in visitor.open(given["path"])


def test_server_error_names_uploaded_file_that_is_not_an_image(visitor, place):
    (place / "notes.png").write_text("not an image at all")
    output = visitor.open(visitor.upload(place / "notes.png"))
    assert "notes.png is not an image" in output["error"] and str(place) not in output["error"]


def test_server_refuses_too_many_pixels_and_bytes(visitor, place):
    output = visitor.open(visitor.upload(draw(place / "wide.png", size=(300, 200))))
    assert "wide.png has 300 x 200 pixels" in output["error"]
    (place / "big.png").write_bytes(bytes(3 * 2**20))
    assert visitor.upload(place / "big.png").status_code == 413


@pytest.mark.parametrize("element", ["segment", "complete", "save", "draw", "segment-clip"])
def test_server_button_without_image_returns_a_message(visitor, element):
    error = visitor.call(element, "click")["error"]
    assert "no image yet" in error or "no clip yet" in error


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", "http://127.0.0.1:9/x.png", "https://example.org"])
def test_server_never_reads_or_downloads_foreign_paths(visitor, path):
    output = visitor.open(path)
    assert output.get("error") and "root:" not in json.dumps(output)
    # Gradio accepts files as the input of any component.
    output = visitor.call("save", "click", [{"path": path, "meta": {"_type": "gradio.FileData"}}])
    assert output.get("error") and "root:" not in json.dumps(output)


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=http://127.0.0.1:9/",
        "/gradio_api/file=%2Fetc%2Fpasswd",
        "/gradio_api/file=pyproject.toml",
        "/gradio_api/proxy=http://127.0.0.1:9/",
        "/gradio_api/deep_link?session_hash=a",
        "/gradio_api/run/predict",
        "/monitoring",
        "/static/..%2f..%2froutes.py",
        "/docs",
        "/openapi.json",
    ],
)
def test_server_refuses_other_paths(visitor, path):
    answer = visitor.http.get(path)
    assert answer.status_code in (403, 404, 405) and "root:" not in answer.text


def test_server_refuses_other_methods_hosts_and_large_bodies(visitor):
    assert visitor.http.put("/config").status_code == 404
    assert visitor.http.post("/gradio_api/process_recording").status_code == 404
    assert visitor.http.get("/", headers={"host": "evil.example"}).status_code == 421
    assert visitor.http.post("/gradio_api/queue/join", content=bytes(3 * 2**20)).status_code == 413


def test_server_sends_policy_and_turns_analytics_off(visitor):
    answer = visitor.http.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    config = visitor.http.get("/config").json()
    assert config["analytics_enabled"] is False and not config.get("is_space")
    assert "fonts.googleapis.com" not in answer.text + json.dumps(config)


def test_server_fifty_requests_are_answered_or_refused_by_the_queue(url, segmenter, place):
    source = draw(place / "load.png", blobs=2)

    def visit(number):
        visitor = Visitor(url, f"load{number}")
        given = {"path": visitor.upload(source), "orig_name": "load.png", "meta": {"_type": "gradio.FileData"}}
        first = visitor.join("image", "change", [given])
        if first.status_code != 200:
            return first.json()["detail"].split(".")[0]
        list(visitor.answers())
        answer = visitor.join("segment", "click")
        if answer.status_code != 200:
            return answer.json()["detail"].split(".")[0]
        *_, last = visitor.answers()
        return "answered" if last["success"] else last["output"]["error"]

    with ThreadPoolExecutor(50) as pool:
        outcome = Counter(pool.map(visit, range(50)))
    assert set(outcome) <= {"answered", "Queue is full"} and outcome["answered"] >= QUEUE
    assert visit(99) == "answered"  # the server still answers


def test_server_closed_connection_frees_the_model(visitor, url, segmenter, place, monkeypatch):
    closed = threading.Event()

    def endless(*_, **__):
        try:
            (panoptic,) = segmenter.images([place / "slow.png"])
            while True:
                time.sleep(0.05)
                yield 0.5, panoptic
        finally:
            closed.set()

    visitor.open(visitor.upload(draw(place / "slow.png")))
    monkeypatch.setattr(segmenter, "progress", endless)
    visitor.join("segment", "click")
    for message in visitor.answers():
        if message["msg"] == "process_generating":
            break  # this closes the connection
    assert closed.wait(30)
    monkeypatch.undo()
    other = Visitor(url, "next")
    other.open(other.upload(draw(place / "slow.png")))
    assert "error" not in other.call("segment", "click")


def test_server_requires_the_password(place, segmenter):
    with serving(segmenter, place / "locked", password="open sesame") as url, httpx.Client(base_url=url) as http:
        assert http.get("/config").status_code == 401
        assert http.post("/gradio_api/queue/join", json={}).status_code == 401
        assert http.post("/login", data={"username": "me", "password": "wrong"}).status_code == 400
        assert http.post("/login", data={"username": "me", "password": "open sesame"}).status_code == 200
        assert http.get("/config").status_code == 200


def test_server_clip_takes_the_model_for_clips_with_its_own_settings(place, segmenter):
    own = PageSegmenter()
    frame = Image.new("L", (64, 48), 20)
    frame.save(place / "other.tif", save_all=True, append_images=[frame, frame])
    before = len(segmenter.calls)
    with serving(segmenter, place / "two", clip_segmenter=own, defaults=GIVEN) as url:
        visitor = Visitor(url, "two")
        event = visitor.events["segment-clip", "click"]
        data = [visitor.inputs.get(i) for i in event["inputs"]]
        path = visitor.upload(place / "other.tif")
        data[0], data[3] = {"path": path, "orig_name": "other.tif", "meta": {"_type": "gradio.FileData"}}, 3
        assert "error" not in visitor.call("segment-clip", "click", data)
    assert own.calls == [{"seed": 5, "min_pixels": 3, "diameter": 12.5, "steps": 3}] and len(segmenter.calls) == before
