"""The page over HTTP, with requests of a browser and of an attacker. Skipped without gradio."""

import gc
import json
import tempfile
import threading
import time
import weakref
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_segmenter import draw
from page_segmenter import PageSegmenter
from PIL import Image

pytest.importorskip("gradio", reason="needs the extra web")
import httpx  # comes with gradio
from visitor import Visitor

from pix2seqd.files import InputError
from pix2seqd.interop import cards
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


def clip_of(visitor, path, frames):
    """Upload a TIFF stack; the inputs of the tab Clip."""
    frame = Image.new("L", (64, 48), 20)
    frame.save(path, save_all=True, append_images=[frame] * (frames - 1))
    clip = {"path": visitor.upload(path), "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}
    return visitor.values("segment-clip", clip=clip)


def test_server_clip_that_is_a_still_image_is_named_without_its_folder(visitor, place):
    output = visitor.call("segment-clip", "click", clip_of(visitor, place / "still.tif", 1))
    assert output["error"].startswith("still.tif: it is one still image")


@pytest.mark.parametrize(("scores", "warns"), [((2, 0.5, 2), False), ((2, 2, 2), True)])
def test_server_clip_is_unlike_the_training_only_if_all_frames_are(visitor, place, monkeypatch, scores, warns):
    def video(self, frames, **options):
        for frame, score in zip(frames, scores, strict=True):
            yield replace(next(self.images([frame])), ood_score=score)

    monkeypatch.setattr(PageSegmenter, "video", video)
    output = visitor.call("segment-clip", "click", clip_of(visitor, place / "dim.tif", 3))
    note = output["data"][0]["note"]
    assert note.startswith("frame 3 of 3") and ("unlike" in note) == warns


def test_server_opens_a_sample_outside_the_scratch_folder(visitor):
    assert visitor.join("samples", "select", event_data={"index": 0, "value": None}).status_code == 200
    *_, last = visitor.answers()
    (given,) = last["output"]["data"]
    assert given["orig_name"] == "first.png" and "error" not in visitor.open(given["path"])


def test_messages_of_the_page_show_names_as_they_are():
    """Gradio takes them for HTML; a category of a stranger's checkpoint may be called so."""
    from gradio import Error

    from pix2seqd.page.site import with_messages

    @with_messages
    def fails():
        raise InputError("there is no class 'a<img src=x>&'")

    with pytest.raises(Error) as raised:
        fails()
    assert raised.value.message == "there is no class 'a&lt;img src=x&gt;&amp;'"


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
    given = {"path": path, "orig_name": "a.png", "meta": {"_type": "gradio.FileData"}}
    for element, kind in (("image", "change"), ("save", "click")):  # gradio accepts files as the input of any component
        answer = visitor.join(element, kind, [given])
        assert answer.status_code == 403 and "upload it again" in answer.json()["detail"]
    output = visitor.call("image", "change", [path])
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


@pytest.fixture(scope="module")
def several(place):
    """A page with all bundled models, of which only stand-ins are ever loaded; they count their loads."""
    loaded = Counter()
    found = {}

    def load(name):
        loaded[name] += 1
        found[name] = PageSegmenter(name, "other" if name == "shapes" else "nuclei")
        return found[name]

    limits = Limits(pixels=20_000)
    with serving(load("nuclei-fast"), place / "several", load=load, limits=limits) as url:
        yield url, loaded, found


def ask(visitor, element, kind="click", **given):
    return visitor.call(element, kind, visitor.values(element, kind, **given))


def test_server_offers_the_bundled_models_with_what_they_find(several):
    visitor = Visitor(several[0])
    choices = {i: c for i, c in visitor.choices.items() if visitor.ids.get(i) == "model"}
    (offered,) = choices.values()
    assert [name for name, _ in offered] == [card.name for card in cards.bundled()]
    about = ask(visitor, "model", "change", model="shapes")["data"]
    told = json.dumps(about)
    for fact in ("made for", "not for", "disk, ", "PQ 80.9"):
        assert fact in told, fact
    assert not [name for name in several[1] if name == "shapes"], "the choice alone loads nothing"


def test_server_chosen_model_segments_with_its_categories(several, place):
    url, loaded, found = several
    visitor = Visitor(url)
    visitor.open(visitor.upload(draw(place / "chosen.png", blobs=3)))
    output = ask(visitor, "segment", model="shapes")
    assert "error" not in output and len(found["shapes"].calls) == 1
    (path,) = (p for p in (place / "several" / ".scratch").rglob("chosen-panoptic.json"))
    assert [category["name"] for category in json.loads(path.read_text())["categories"]] == ["cat", "sky"]
    assert "error" not in ask(visitor, "segment", model="nuclei-fast")
    for name in ("owner/other", "../nuclei", "", None, ["shapes"]):
        assert ask(visitor, "segment", model=name).get("error"), "only what is offered is loaded"
    assert set(loaded) <= {card.name for card in cards.bundled()}


def test_server_clip_takes_the_model_for_clips_of_the_chosen_one(several, place):
    url, _, found = several
    frame = Image.new("L", (64, 48), 20)
    frame.save(place / "other.tif", save_all=True, append_images=[frame, frame])
    for chosen, taken in (("nuclei", "nuclei-video"), ("shapes", "shapes")):
        visitor = Visitor(url)
        clip = {"path": visitor.upload(place / "other.tif"), "orig_name": "other.tif"}
        clip["meta"] = {"_type": "gradio.FileData"}
        before = len(found[chosen].calls) if chosen in found else 0
        assert "error" not in ask(visitor, "segment-clip", clip=clip, model=chosen)
        call = found[taken].calls[-1]
        assert ("first_steps" in call) == (taken == chosen), "its own settings, unless it is the chosen one"
        assert taken == chosen or (len(found[chosen].calls) if chosen in found else 0) == before


def test_server_keeps_two_models_in_memory(several, place):
    url, _, found = several
    visitor = Visitor(url)
    visitor.open(visitor.upload(draw(place / "memory.png")))
    for name in ("nuclei-fast", "shapes", "nuclei", "nuclei-video", "nuclei-fast"):
        assert "error" not in ask(visitor, "segment", model=name)
    kept = [weakref.ref(found.pop(name)) for name in list(found)]
    gc.collect()
    assert sum(model() is not None for model in kept) == 2


def test_server_stop_keeps_the_frames_that_are_done(several, place, monkeypatch):
    frame = Image.new("L", (64, 48), 20)
    frame.save(place / "long.tif", save_all=True, append_images=[frame] * 9)
    reached = threading.Event()

    def slow(self, frames, **options):
        for number, panoptic in enumerate(quick(self, frames, **options), start=1):
            yield panoptic
            if number == 3:
                reached.set()
            time.sleep(0.05 if number < 3 else 1)

    quick = PageSegmenter.video
    monkeypatch.setattr(PageSegmenter, "video", slow)
    visitor = Visitor(several[0])
    clip = {"path": visitor.upload(place / "long.tif"), "orig_name": "long.tif", "meta": {"_type": "gradio.FileData"}}
    joined = visitor.join("segment-clip", "click", visitor.values("segment-clip", clip=clip)).json()
    for message in visitor.answers():
        if reached.is_set() and message["msg"] == "process_generating":
            break
    body = {
        "session_hash": visitor.name,
        "fn_index": visitor.events["segment-clip", "click"]["id"],
        "event_id": joined["event_id"],
    }
    assert visitor.http.post("/gradio_api/cancel", json=body).status_code == 200
    output = visitor.call("stop-clip", "click")
    value, _, files = output["data"]
    assert "stopped after frame" in value["note"] and "the files hold the frames that are done" in value["note"]
    paths = [file["path"] for file in files]
    content = visitor.http.get(f"/gradio_api/file={paths[1]}").json()
    written = list(Path(paths[1]).parent.glob("panoptic/*.png"))
    assert 3 <= len(written) < 9 and content["tracks"]
    assert zipfile.is_zipfile(paths[2])
