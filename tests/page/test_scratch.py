"""The folder of uploads and downloads."""

import os
import time

import pytest

from pix2seqd.files import InputError
from pix2seqd.page import scratch as module
from pix2seqd.page.limits import Limits
from pix2seqd.page.scratch import Scratch


@pytest.fixture
def scratch(tmp_path):
    return Scratch(tmp_path / "s", Limits(visitor_megabytes=1, total_megabytes=2))


def test_scratch_removes_old_files_without_requests(scratch, monkeypatch):
    monkeypatch.setattr(module, "SWEEP_INTERVAL", 0.01)
    thumbnail = scratch.folder / "thumbnail"
    thumbnail.mkdir()
    os.utime(thumbnail, (0, 0))
    with scratch.swept():
        old, new = scratch.new_folder("me"), scratch.new_folder("me")
        os.utime(old, (0, 0))
        for _ in range(1000):
            if not old.exists():
                break
            time.sleep(0.01)
        assert not old.exists() and new.exists() and thumbnail.exists()
        assert scratch.may_see(thumbnail / "a.png", "anyone") and not scratch.may_see(new, "other")
    assert not scratch.folder.parent.exists()


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_scratch_empties_no_folder_to_which_a_link_leads(tmp_path):
    """It removes what servers that were killed have left."""
    (tmp_path / "home" / "precious").mkdir(parents=True)
    (tmp_path / "s").symlink_to(tmp_path / "home")
    with pytest.raises(InputError, match="s is a link; remove it"):
        Scratch(tmp_path / "s", Limits())
    assert (tmp_path / "home" / "precious").exists()


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside.png", "", "in/../../outside.png", "in", "http://x/y.png"])
def test_scratch_resolve_refuses_paths_outside(scratch, tmp_path, path, monkeypatch):
    own = scratch.new_folder("me")
    (own / "in.png").write_text("x")
    (tmp_path / "outside.png").write_text("secret")
    (own / "in").mkdir()
    (own / "link.png").symlink_to(tmp_path / "outside.png")
    monkeypatch.chdir(own)
    for bad in (path, str(own / "link.png")):
        with pytest.raises(InputError, match="upload it again"):
            scratch.resolve(bad, "me")
    with pytest.raises(InputError, match="upload it again"):
        scratch.resolve(str(own / "in.png"), "other")
    assert scratch.resolve(str(own / "in.png"), "me") == own / "in.png"


def test_scratch_leaves_the_files_of_a_running_server_and_removes_those_of_a_killed_one(scratch):
    mine = scratch.new_folder("me")
    killed = scratch.folder.parent / "killed"
    (killed / "made-1").mkdir(parents=True)
    second = Scratch(scratch.folder.parent, Limits())
    assert mine.exists() and not killed.exists()
    second.clear()
    assert mine.exists() and sorted(path.suffix for path in scratch.folder.parent.iterdir()) == ["", ".lock"]
    scratch.clear()
    assert not scratch.folder.parent.exists()


def test_scratch_make_room_drops_own_oldest_files_and_keeps_what_others_have_too(scratch):
    shared, old, new = (scratch.folder / name for name in ("shared", "old", "new"))
    for age, path in enumerate((shared, old, new)):
        path.write_bytes(bytes(400_000))
        os.utime(path, (age, age))
        scratch.give(path, "me")
    scratch.give(shared, "other")
    scratch.make_room("me", 500_000)
    assert not scratch.may_see(shared, "me") and scratch.may_see(shared, "other") and shared.exists()
    assert not old.exists() and new.exists()
    with pytest.raises(InputError, match="1 MB"):
        scratch.make_room("me", 1_100_000)


def test_scratch_refuses_beyond_the_share_of_all(scratch):
    with scratch.expecting("one", 900_000), scratch.expecting("two", 900_000):
        with pytest.raises(InputError, match="all visitors"):
            scratch.make_room("three", 900_000)
        with pytest.raises(InputError, match="1 MB"):
            scratch.make_room("one", 900_000)
    scratch.make_room("three", 900_000)


def test_scratch_parts_of_broken_uploads_are_removed(scratch):
    with scratch.expecting("me", 10):
        (scratch.folder / "tmpabc").write_text("half")
    assert list(scratch.folder.iterdir()) == []


def test_scratch_number_of_files_is_limited(scratch, monkeypatch):
    """Of any size: to look through 60,000 of a few bytes takes seconds, in which nobody gets an answer."""
    monkeypatch.setattr(module, "MAX_FILES", 3)
    monkeypatch.setattr(module, "MAX_ALL_FILES", 5)

    def upload(visitor, number):
        scratch.make_room(visitor)
        path = scratch.folder / f"{visitor}{number}" / "a.png"
        path.parent.mkdir()
        path.write_bytes(b"a")
        os.utime(path, (number, number))
        scratch.give(path, visitor)

    for number in range(6):
        upload("one", number)
    assert sorted(path.name for path in scratch.folder.iterdir()) == ["one3", "one4", "one5"]
    upload("two", 0)
    upload("two", 1)
    with pytest.raises(InputError, match="all visitors"):
        upload("two", 2)
