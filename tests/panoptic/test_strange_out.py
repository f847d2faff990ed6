"""Output folders from strangers: each gives a result or one line, and nothing outside of them is changed."""

import json
import os

import pytest
from fake_segmenter import draw

HEAD = '{"info": {"description": "pix2seqd"}, "categories": []'
DEEP = "[" * 5000 + "]" * 5000
ENTRIES = ("5", "{}", '["k"]', '["k", 1, 2]', '["k", {}, {}]', '[[1], {"id": 1}, {}]', "[5, {}, {}]", DEEP)
LINES = tuple(f'{HEAD}, "images": [\n{line}\n], "annotations": [\n]}}\n' for line in ("5", "{}", DEEP))


def files(**content):
    """Makes an output folder of these files; / in a name is written as __."""

    def make(out, _outside):
        for name, text in content.items():
            path = out / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return make


def links(*names):
    """Makes an output folder whose files lead to one outside."""

    def make(out, outside):
        for name in names:
            (out / name).symlink_to(outside / "precious.txt")

    return make


def pipes(*names):
    def make(out, _outside):
        for name in names:
            os.mkfifo(out / name)

    return make


def folders(*names):
    def make(out, _outside):
        for name in names:
            (out / name / "full").mkdir(parents=True)

    return make


HIDDEN = (".panoptic.journal", ".panoptic.names", ".panoptic.json.lock")
OUTS = {
    **{f"pipe {name}": pipes(name) for name in ("panoptic.json", *HIDDEN)},
    **{f"link {name}": links(name) for name in ("panoptic.json", *HIDDEN)},
    **{f"folder {name}": folders(name) for name in ("panoptic.json", *HIDDEN)},
    **{f"journal {text[:20]}": files(**{".panoptic.journal": f"{text}\n"}) for text in ENTRIES},
    **{f"json {text[-30:]}": files(**{"panoptic.json": text}) for text in (DEEP, *LINES)},
    "json and journal": files(**{"panoptic.json": LINES[0], ".panoptic.journal": '["k", {}, {}]\n'}),
    "settings": files(**{"panoptic.json": json.dumps({"info": 5, "categories": 5, "images": [], "annotations": []})}),
    "part deep": files(**{"part-00000__panoptic.json": DEEP}),
    "writer": files(**{".panoptic.writer-x.lock": "", ".panoptic.names": DEEP + "\n5\n{}\n"}),
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("kind", OUTS)
def test_segment_into_a_strange_folder(kind, run, segmenter, tmp_path):
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (outside / "precious.txt").write_text("precious")
    OUTS[kind](out, outside)
    code, _, err = run("segment", draw(tmp_path / "a.png"), "--out", out)
    assert code in (0, 2), err
    assert len([line for line in err.splitlines() if "finds nucleus" not in line]) == (code == 2), err
    assert (outside / "precious.txt").read_text() == "precious"


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_segment_again_writes_nothing_where_a_journal_leads(run, segmenter, tmp_path):
    out = tmp_path / "out"
    assert run("segment", draw(tmp_path / "a.png"), "--out", out)[0] == 0
    (out / ".panoptic.journal").symlink_to(tmp_path / "new.txt")
    assert run("segment", draw(tmp_path / "b.png"), "--out", out)[0] == 0
    assert not (tmp_path / "new.txt").exists()
    assert len(json.loads((out / "panoptic.json").read_text())["images"]) == 2
