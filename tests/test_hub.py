"""Publishing and fetching checkpoints, against a server on this machine that speaks the hub's protocol."""

import base64
import hashlib
import html
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from pix2seqd.checkpoint import BUNDLED, FILES
from pix2seqd.data.synthetic.shapes import TAXONOMY
from pix2seqd.files import InputError
from pix2seqd.hub import model_card, push_to_hub
from pix2seqd.panoptic.taxonomy import Taxonomy
from pix2seqd.segmenter import Segmenter

REPOSITORY = "someone/shapes"
COMMIT = "c" * 40
RESULTS = {
    "settings": {"data": "shapes:4@1", "steps": 7, "td": None},
    "all": {
        "images": 4,
        "panoptic_quality": {
            "All": {"pq": 0.5, "sq": 0.75, "rq": 0.625},
            "Things": {"pq": 0.25},
            "Stuff": {"pq": None},
        },
        "average_precision": {"thresholds": {"0.50": {"ap": 0.125}}},
    },
}


class Hub(BaseHTTPRequestHandler):
    """One repository in memory; `requests` is what was asked."""

    files: dict[str, bytes]
    requests: list[str]

    def answer(self, content: object = b"", status: int = 200, **headers: str) -> None:
        self.requests.append(f"{self.command} {self.path}")
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if "Bearer secret" not in self.headers.get("Authorization", ""):
            return self.answer({"error": "log in"}, 401)
        if self.path == "/api/repos/create":
            return self.answer({"url": f"http://{self.headers['Host']}/{REPOSITORY}"})
        if "/preupload/" in self.path:
            asked = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            return self.answer({"files": asked})
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self.answer(
            {"commitUrl": f"http://{self.headers['Host']}/{REPOSITORY}/commit/{COMMIT}", "commitOid": COMMIT}
        )

    def do_GET(self) -> None:
        name = self.path.split("?")[0].rpartition("/")[2]
        if not self.files or REPOSITORY not in self.path:
            return self.answer({"error": "no such repository"}, 404, **{"X-Error-Code": "RepoNotFound"})
        if "/resolve/" in self.path and name in self.files:
            content = self.files[name]
            return self.answer(content, ETag=f'"{hashlib.sha1(content).hexdigest()}"')
        if "/tree/" in self.path:
            return self.answer(
                [{"type": "file", "path": n, "size": len(c), "oid": "0" * 40} for n, c in self.files.items()]
            )
        if "/api/models/" in self.path:
            return self.answer({"id": REPOSITORY, "sha": COMMIT, "siblings": [{"rfilename": n} for n in self.files]})
        return self.answer({"error": "no such file"}, 404, **{"X-Error-Code": "EntryNotFound"})

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    """Address and repository of a fake hub."""
    handler = type("OneHub", (Hub,), {"files": {}, "requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


FETCH = """
import hashlib, sys
from pix2seqd.checkpoint import from_pretrained
from pix2seqd.files import InputError
for name in sys.argv[1:]:
    try:
        print(from_pretrained(name).digest)
    except InputError as error:
        print(error)
"""


def fetch(address: str, cache: Path, *names: str, command: Sequence[str] = ("-c", FETCH)) -> list[str]:
    """The lines that a command prints about repositories (their digests, or errors); the process knows no other hub."""
    environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0"}
    run = [sys.executable, *command, *names]
    done = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_push_to_hub_then_from_pretrained_online_and_from_cache(hub, folder, tmp_path):
    address, repository = hub
    (folder / "private.txt").write_text("not for others")
    where = push_to_hub(
        folder, REPOSITORY, data="drawn shapes", licence="cc0-1.0", results=RESULTS, endpoint=address, token="secret"
    )
    assert REPOSITORY in where
    assert sorted(repository.files) == sorted([*FILES, "README.md"])
    for name, content in repository.files.items():
        assert content == (folder / name).read_bytes(), name
    digest = hashlib.sha256(repository.files["model.safetensors"]).hexdigest()
    listed = "\n".join(fetch(address, tmp_path / "other", REPOSITORY, command=["-m", "pix2seqd", "models"]))
    assert REPOSITORY in listed and "drawn shapes" in listed and "PQ 50.0 (all)" in listed
    assert fetch(address, tmp_path / "cache", REPOSITORY) == [digest]
    repository.requests.clear()
    again, missing = fetch(address, tmp_path / "cache", REPOSITORY, "someone/else")
    assert again == digest and missing.startswith("no checkpoint 'someone/else'")
    assert not any(REPOSITORY in path for path in repository.requests), "the cache suffices"


BACKBONES = """
import sys, time
from pix2seqd.checkpoint import find_backbone
from pix2seqd.files import InputError
from pix2seqd.layers.backbones import pretrained_backbone
for name in sys.argv[1:]:
    start = time.monotonic()
    try:
        print(pretrained_backbone(find_backbone(name))[0]["backbone"]["hidden_sizes"])
    except InputError as error:
        print(time.monotonic() - start < 4, error)
"""


@pytest.mark.slow
def test_find_backbone_from_the_hub_and_from_cache(hub, tmp_path):
    from transformers import ResNetBackbone, ResNetConfig

    address, repository = hub
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "layer_type": "basic"}
    ResNetBackbone(ResNetConfig(**sizes)).save_pretrained(tmp_path / "net")
    repository.files |= {path.name: path.read_bytes() for path in (tmp_path / "net").iterdir()}
    command = ["-c", BACKBONES]
    assert fetch(address, tmp_path / "cache", REPOSITORY, command=command) == ["[8, 16, 24]"]
    found, missing = fetch("http://127.0.0.1:1", tmp_path / "cache", REPOSITORY, "someone/else", command=command)
    assert found == "[8, 16, 24]", "the cache suffices"
    assert missing.startswith("True no backbone 'someone/else': no such folder, and the hub cannot be reached")
    del repository.files["model.safetensors"]
    (bare,) = fetch(address, tmp_path / "other", REPOSITORY, command=command)
    assert "has no model.safetensors on the hub" in bare


def test_segmenter_push_to_hub_sends_the_files_it_was_loaded_from(hub, folder):
    address, repository = hub
    segmenter = Segmenter.from_pretrained(folder, "cpu", "bfloat16")
    where = segmenter.push_to_hub(REPOSITORY, data="shapes", licence="cc0-1.0", endpoint=address, token="secret")
    assert REPOSITORY in where
    assert repository.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()


def test_segmenter_push_to_hub_without_files_is_an_error(hub, pretrained):
    address, repository = hub
    with pytest.raises(InputError, match="has no folder; write it with save_pretrained"):
        Segmenter(pretrained, "cpu", "float32").push_to_hub(REPOSITORY, endpoint=address, token="secret")
    assert not repository.requests


def test_push_to_hub_keeps_an_existing_card(hub, folder):
    (folder / "README.md").write_text("mine")
    push_to_hub(folder, REPOSITORY, endpoint=hub[0], token="secret")
    assert hub[1].files["README.md"] == b"mine"


def test_push_to_hub_without_card_or_checkpoint_sends_nothing(hub, folder, tmp_path):
    address, repository = hub
    with pytest.raises(InputError, match=r"README\.md does not exist; write it, or give data and licence"):
        push_to_hub(folder, REPOSITORY, data="drawn shapes", endpoint=address, token="secret")
    with pytest.raises(InputError, match="is not a folder"):
        push_to_hub(tmp_path / "nothing", REPOSITORY, endpoint=address, token="secret")
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="is damaged"):
        push_to_hub(folder, REPOSITORY, data="shapes", licence="cc0-1.0", endpoint=address, token="secret")
    assert not repository.requests


@pytest.mark.parametrize("address", ["", "http://127.0.0.1:1"], ids=["refusal", "no hub there"])
def test_push_to_hub_failed_upload_is_a_one_line_error(hub, folder, address: str):
    with pytest.raises(InputError, match=f"cannot upload to '{REPOSITORY}'") as caught:
        push_to_hub(folder, REPOSITORY, data="shapes", licence="cc0-1.0", endpoint=address or hub[0], token="wrong")
    assert "\n" not in str(caught.value)


def test_model_card_content(pretrained):
    card = model_card(pretrained, REPOSITORY, "drawn shapes, CC0", "cc0-1.0", RESULTS)
    head = card.split("---")[1]
    for line in ("license: cc0-1.0", "library_name: pix2seqd", "pipeline_tag: image-segmentation"):
        assert line in head.splitlines()
    assert "Trained on: drawn shapes, CC0" in card
    assert "| all | 4 | 50.0 | 75.0 | 62.5 | 25.0 | – | 12.5 |" in card
    assert "data shapes:4@1, steps 7" in card
    for category in TAXONOMY.categories:
        assert category.name in card
    assert "Measured" not in model_card(pretrained, REPOSITORY, "shapes", "cc0-1.0", {})
    for block in card.split("```python\n")[1:]:
        compile(block.split("```")[0], "card", "exec")


def test_model_card_metadata_are_read_by_the_hub_s_library(pretrained):
    card = ModelCard(model_card(pretrained, REPOSITORY, "drawn shapes: CC0", "cc0-1.0", RESULTS))
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == (
        "cc0-1.0",
        "pix2seqd",
        "image-segmentation",
    )
    (result,) = card.data.eval_results or []
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("shapes:4@1 (all)", "pq", 50.0)
    unmeasured = ModelCard(model_card(pretrained, REPOSITORY, "shapes", "other: mine", {}))
    assert unmeasured.data.license == "other: mine" and not unmeasured.data.eval_results


def test_model_card_renders_as_headings_lists_table_and_code(pretrained):
    names = ("<script>alert(1)</script>", "a|b *c* _d_ `e` [f](g) #1 & ~h~")
    taxonomy = Taxonomy.from_coco([{"id": i, "name": name, "isthing": i} for i, name in enumerate(names, start=1)])
    card = model_card(replace(pretrained, taxonomy=taxonomy), REPOSITORY, "drawn shapes", "cc0-1.0", RESULTS)
    page = MarkdownIt().enable(["table", "strikethrough"]).render(ModelCard(card).text)
    tags = {tag: page.count(f"<{tag}") for tag in ("h1", "h2", "li", "table", "tr", "pre", "script", "em", "a", "s>")}
    assert tags == {"h1": 1, "h2": 2, "li": 2, "table": 1, "tr": 2, "pre": 3, "script": 0, "em": 0, "a": 0, "s>": 0}
    assert all(name in html.unescape(page) for name in names)
    results = {"settings": RESULTS["settings"], "x\n\n# Title": next(v for k, v in RESULTS.items() if k != "settings")}
    page = MarkdownIt().enable("table").render(ModelCard(model_card(pretrained, REPOSITORY, "a", "b", results)).text)
    assert r"x\n\n# Title" in html.unescape(page), "the name of a group of images comes from a data set"


@pytest.mark.parametrize("place", sorted(path for path in BUNDLED.iterdir() if path.is_dir()), ids=lambda p: p.name)
def test_bundled_card_has_the_hub_s_metadata(place: Path):
    data = ModelCard.load(place / "README.md").data
    assert data.license and data.library_name == "pix2seqd" and data.pipeline_tag == "image-segmentation"
