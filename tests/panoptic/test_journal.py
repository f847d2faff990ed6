"""`panoptic.json` that grows by a journal."""

import json

import pytest

from pix2seqd.files import InputError
from pix2seqd.panoptic.journal import PanopticJson, read_head, read_records

EMPTY = {"info": {"description": "x"}, "categories": [{"id": 1, "name": "a"}]}


def entry(name, key="k"):
    return {"id": 0, "file_name": name, "sha256": key}, {"image_id": 0, "file_name": name, "segments_info": []}


def content(folder):
    return json.loads((folder / "panoptic.json").read_text())


def test_save_keeps_records_without_key_and_replaces_by_key(tmp_path):
    theirs = {"id": 4, "file_name": "theirs.png"}
    read = {**EMPTY, "images": [theirs], "annotations": [{"image_id": 4, "file_name": "theirs.png"}], "licenses": [7]}
    (tmp_path / "panoptic.json").write_text(json.dumps(read, indent=2))
    opened = PanopticJson(tmp_path, EMPTY)
    for name in ("a.png", "b.png"):
        opened.add("k", entry(name))
        opened.save()
        after = content(tmp_path)
        assert [(image["id"], image["file_name"]) for image in after["images"]] == [(4, "theirs.png"), (5, name)]
        assert [(a["image_id"], a["file_name"]) for a in after["annotations"]] == [(4, "theirs.png"), (5, name)]
        assert after["licenses"] == [7] and after["categories"] == EMPTY["categories"]
    assert dict(opened.stored(["k", "other"])) == {"k": (after["images"][1], after["annotations"][1])}


def test_save_last_entry_of_a_key_counts_and_order_is_kept(tmp_path):
    opened = PanopticJson(tmp_path, EMPTY, last=20)
    for key, name in (("a", "a.png"), ("b", "b.png"), ("a", "a-new.png")):
        opened.add(key, entry(name, key))
    opened.save()
    opened.add("c", entry("c.png", "c"))
    opened.add("b", entry("b-new.png", "b"))
    opened.save()
    read, expected = content(tmp_path), [(21, "a-new.png"), (22, "b-new.png"), (23, "c.png")]
    assert [(image["id"], image["file_name"]) for image in read["images"]] == expected
    assert [(annotation["image_id"], annotation["file_name"]) for annotation in read["annotations"]] == expected


def test_save_after_a_kill_in_the_middle_of_a_line(tmp_path):
    killed, other = PanopticJson(tmp_path, EMPTY), PanopticJson(tmp_path, EMPTY)
    killed.add("a", entry("a.png", "a"))
    killed.add("b", entry("b.png", "b"))
    whole = killed.journal.read_bytes()
    for cut in range(whole.rindex(b'["b"'), len(whole) - 1):
        (tmp_path / "panoptic.json").unlink(missing_ok=True)
        killed.journal.write_bytes(whole[:cut])
        other.add("c", entry("c.png", "c"))
        other.save()
        assert [image["file_name"] for image in content(tmp_path)["images"]] == ["a.png", "c.png"]
        assert not killed.journal.exists()


def test_save_killed_before_the_journal_is_removed(tmp_path):
    opened = PanopticJson(tmp_path, EMPTY)
    opened.add("a", entry("a.png", "a"))
    journal = opened.journal.read_bytes()
    opened.save()
    before = content(tmp_path)
    opened.journal.write_bytes(journal)
    opened.save()
    assert content(tmp_path) == before


def test_save_without_news_writes_an_empty_one_once(tmp_path):
    opened = PanopticJson(tmp_path, EMPTY)
    opened.save()
    assert content(tmp_path) == {**EMPTY, "images": [], "annotations": []}
    before = (tmp_path / "panoptic.json").stat().st_mtime_ns
    opened.save()
    assert (tmp_path / "panoptic.json").stat().st_mtime_ns == before and read_head(opened.path) == EMPTY


def test_read_records_of_a_cut_file_is_an_error(tmp_path):
    opened = PanopticJson(tmp_path, EMPTY)
    for key in "abc":
        opened.add(key, entry(f"{key}.png", key))
    opened.save()
    whole = opened.path.read_bytes()
    for cut in range(0, len(whole) - 3, 7):
        opened.path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=r"panoptic\.json"):
            list(read_records(opened.path, "annotations"))


@pytest.mark.parametrize("name", ["Grüße, \u2028\x85.png", "a\\n],.png", "], "])
def test_records_of_odd_names(tmp_path, name):
    opened = PanopticJson(tmp_path, EMPTY)
    for _ in range(2):
        opened.add("a", entry(name, "a"))
        opened.save()
        assert [image["file_name"] for image in read_records(opened.path, "images")] == [name]
        assert content(tmp_path)["annotations"][0]["file_name"] == name
