import json
import os
import time
import tracemalloc
from pathlib import Path

import pytest

from pix2seqd import files
from pix2seqd.files import (
    JSON_COSTS,
    InputError,
    exclusive_lock,
    json_line,
    printable,
    read_json,
    read_text,
    read_yaml,
    require_memory,
    sync,
    write_atomically,
    write_json,
    write_together,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_write_atomically_error_or_interrupt_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), write_atomically(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_write_atomically_replaces_only_at_the_end(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with write_atomically(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_write_atomically_missing_folder_is_a_one_line_error(tmp_path):
    with (
        pytest.raises(InputError, match=r"cannot write .*missing.a\.txt") as caught,
        write_atomically(tmp_path / "missing" / "a.txt"),
    ):
        pass
    assert "\n" not in str(caught.value)


def test_write_json_and_read_json_round_trip_with_accents(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"name": "Zürich", "n": [1, 2.5, None]})
    assert read_json(path) == {"name": "Zürich", "n": [1, 2.5, None]}
    assert "Zürich" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000], ids=["empty", "cut", "binary", "deep"]
)
def test_read_json_broken_is_a_one_line_error(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.json") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ['{"a": 1, "b": 2, "a": 1}', '[{"b": {"a": [], "a": {}}}]', '{"a\\u0062": 1, "ab": 2}']
)
def test_read_json_key_twice_is_an_error(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r'a\.json is not valid JSON \(the key "ab?" twice in one object'):
        read_json(path)


def test_read_json_missing_file_or_folder_is_an_error_with_name(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.json"):
        read_json(tmp_path / "nothing.json")
    with pytest.raises(InputError, match="folder"):
        read_json(tmp_path)


def test_write_json_unserializable_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, [object()])
    assert json.loads(path.read_text()) == [1]


def test_write_atomically_file_as_folder_is_a_one_line_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot write"):
        write_json(tmp_path / "file" / "a.json", [])


def test_write_json_nan_and_infinity_become_null(tmp_path):
    write_json(tmp_path / "a.json", {"a": float("nan"), 3: ({"b": float("-inf")}, 0.5, 7), "name": "nan"})
    assert read_json(tmp_path / "a.json") == {"a": None, "3": [{"b": None}, 0.5, 7], "name": "nan"}


@pytest.mark.parametrize("kind", ["pipe", "link to a device"])
def test_read_json_and_write_atomically_pipe_or_device_is_refused(tmp_path, kind):
    path = tmp_path / "a.json"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"a\.json is a device or a pipe"):
        read_json(path)
    with pytest.raises(InputError, match=r"a\.json is a device or a pipe"):
        write_json(path, [])
    assert names(tmp_path) == ["a.json"]


def test_read_json_larger_than_allowed_is_not_read(tmp_path):
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole, which takes no place on the disk
    with pytest.raises(InputError, match=r"a\.json has 1,099,511,627,776 bytes; such a file has at most 536,870,912"):
        read_json(path)
    write_json(path, "x" * 100)
    with pytest.raises(InputError, match="at most 50"):
        read_json(path, 50)


def test_write_atomically_same_process_number_twice_does_not_collide(tmp_path, monkeypatch):
    """Processes in two containers may have the same number."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path = tmp_path / "a.txt"
    with write_atomically(path) as first, write_atomically(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert names(tmp_path) == ["a.txt"]


def test_write_atomically_long_name(tmp_path):
    path = tmp_path / ("ü" * 120)
    with write_atomically(path) as temporary:
        temporary.write_text("x")
    assert path.read_text() == "x"


def test_write_atomically_file_and_folder_are_on_the_disk(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda number: (synced.append(str(Path(f"/proc/self/fd/{number}").readlink())), fsync(number))
    )
    write_json(tmp_path / "a.json", 1)
    assert len(synced) == 2 and synced[0].endswith(".part") and synced[1] == str(tmp_path)
    sync(tmp_path / "a.json")
    assert synced[2:] == [str(tmp_path / "a.json")]


def test_input_error_shows_control_characters_as_escapes():
    message = str(InputError("a\x1b]0;owned\x07 b\r\nc\x9b31m \udcff; Zürich 日本語\u3000e\u0301"))
    assert message == "a\\x1b]0;owned\\x07 b c\\x9b31m \\udcff; Zürich 日本語\u3000e\u0301"
    assert printable("plain \\ name") == "plain \\ name"


def test_read_yaml_round_trip():
    text = "labels: {0: cell, 1: 'a: b'}\nsize: [256, 256]\nrate: 1.0e-3\nname: Zürich\n"
    assert read_yaml(text, "a.yaml") == {
        "labels": {0: "cell", 1: "a: b"},
        "size": [256, 256],
        "rate": 1e-3,
        "name": "Zürich",
    }


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 11))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "has an anchor or alias"),
        ("a: &b 1", "has an anchor or alias"),
        ("a: *b", "has an anchor or alias"),
        ("[" * 1000 + "]" * 1000, "is nested more than 50 deep"),
        ("".join(" " * n + "a:\n" for n in range(60)) + " " * 60 + "b: 1", "is nested more than 50 deep"),
        ("a" * (2**20 + 1), "may have 1,048,576"),
        ("when: 2001-99-99", "is not valid YAML"),
        (f"n: {'9' * 10_000}", "is not valid YAML"),
        ("a: !!python/object/apply:os.system [true]", "is not valid YAML"),
        ("a: !!set {b, c}", "has the tag"),
        ("a: !!binary aGVsbG8=", "has the tag"),
        ("a: ! 1", "has the tag"),
        ("n: 1" + ":1" * 500_000, "a number of 1,000,001 digits"),
        (f"n: 0x{'f' * 5000}", "a number of 5,002 digits"),
        ("a: 1\nb: {c: 1, c: 2}", "the key 'c' twice"),
        ("{1: a, 0x1: b}", "two keys that are the same"),
        ("{1: a, 1.0: b}", "two keys that are the same"),
        ("a: [", "is not valid YAML"),
        ("? {a: 1}\n: 2", "is not valid YAML"),
        ("\x00", "is not valid YAML"),
    ],
)
def test_read_yaml_costly_or_damaged_is_a_quick_one_line_error(text, message):
    began = time.process_time()
    with pytest.raises(InputError, match=message) as caught:
        read_yaml(text, "a.yaml")
    assert time.process_time() - began < 5
    assert str(caught.value).startswith("a.yaml") and "\n" not in str(caught.value)


def test_read_yaml_dates_stay_text():
    assert read_yaml("2001-12-14: 2024-05-01\nb: 2001-12-14t21:59:43.10-05:00", "a.yaml") == {
        "2001-12-14": "2024-05-01",
        "b": "2001-12-14t21:59:43.10-05:00",
    }


def test_read_yaml_40000_categories_takes_seconds():
    began = time.process_time()
    content = read_yaml("\n".join(f"{n}: c{n}" for n in range(40_000)), "a.yaml")
    assert len(content) == 40_000 and time.process_time() - began < 5


def test_write_json_halves_of_characters_are_kept(tmp_path):
    content = {"name": "Zürich \ud800", "n": [1.5]}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content
    assert json.loads(json_line(content).encode()) == content


def test_write_json_deep_content_is_one_line_and_keeps_the_old_file(tmp_path):
    path, deep = tmp_path / "a.json", []
    write_json(path, [1])
    for _ in range(5000):
        deep = [deep]
    for write in (lambda: write_json(path, deep), lambda: json_line(deep)):
        with pytest.raises(InputError, match="is nested too deep"):
            write()
    assert read_json(path) == [1] and [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_read_json_encodings(tmp_path, encoding):
    (tmp_path / "a.json").write_text('{"name": "Zelle μ"}', encoding=encoding)
    assert read_json(tmp_path / "a.json") == {"name": "Zelle μ"}


def test_read_json_in_another_encoding_names_the_cure(tmp_path):
    (tmp_path / "a.json").write_text('{"name": "Käse"}', encoding="latin-1")
    with pytest.raises(InputError, match=r"a\.json is not text in UTF-8; save it as UTF-8"):
        read_json(tmp_path / "a.json")


RESULT = ["a.tar", "images", "index.json"]


def write_result(out, at=lambda: None):
    """Write `RESULT`; `at` is called when all is written but the last."""
    with write_together(out) as stage:
        (stage / "images").mkdir()
        (stage / "images" / "a.png").write_bytes(b"png")
        (stage / "a.tar").write_bytes(b"tar")
        at()
        (stage / "index.json").write_text("{}")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_write_together_error_or_interrupt_leaves_nothing(tmp_path, error):
    def stop():
        raise error

    with pytest.raises(error):
        write_result(tmp_path / "out", stop)
    assert not (tmp_path / "out").exists()
    write_result(tmp_path / "out")
    assert names(tmp_path / "out") == RESULT and names(tmp_path / "out" / "images") == ["a.png"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("renames", range(6))
def test_write_together_killed_leaves_no_half_result(tmp_path, monkeypatch, renames):
    """Killed before its first rename, its second, ...; what a killed process completed is there at the next start."""
    out = tmp_path / "out"
    if (child := os.fork()) == 0:
        rename, done = Path.rename, []

        def killed(path, target):
            if len(done) == renames:
                os.kill(os.getpid(), 9)
            done.append(path)
            return rename(path, target)

        monkeypatch.setattr(Path, "rename", killed)
        write_result(out)
        os._exit(0)
    assert (os.waitpid(child, 0)[1] == 9) == (renames < 4)
    assert (out / "index.json").exists() == (renames >= 4), "JSON comes last"
    if renames == 0:
        write_result(out)
    else:
        with pytest.raises(InputError, match="exists already"):
            write_result(out)
    assert names(out) == RESULT and names(out / "images") == ["a.png"]


def test_write_together_second_process_is_refused_and_the_first_goes_on(tmp_path):
    def second():
        with pytest.raises(InputError, match=r"another process writes into .*; wait for it, or choose another folder"):
            write_result(tmp_path)

    write_result(tmp_path, second)
    assert names(tmp_path) == RESULT


def test_write_together_nothing_of_the_user_is_replaced(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"own")
    with pytest.raises(InputError, match=r"a\.tar exists already; choose another folder"):
        write_result(tmp_path)
    assert (tmp_path / "a.tar").read_bytes() == b"own"


def test_write_together_file_in_place_of_the_folder_is_one_line(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match=r"cannot write to the folder .*out"):
        write_result(tmp_path / "out")


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
@pytest.mark.parametrize("name", [".together.complete", ".together.part"])
def test_write_together_takes_nothing_from_where_a_link_leads(tmp_path, name):
    out, home = tmp_path / "out", tmp_path / "home"
    out.mkdir()
    home.mkdir()
    (home / "precious.txt").write_text("precious")
    (out / name).symlink_to(home)
    with pytest.raises(InputError, match="cannot write to the folder"):
        write_result(out)
    assert names(home) == ["precious.txt"]


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_alone_does_not_follow_a_link(tmp_path):
    """A lock of filelock before 3.20.1 empties the file that the link leads to."""
    (tmp_path / "precious.txt").write_text("precious")
    (tmp_path / "a.lock").symlink_to(tmp_path / "precious.txt")
    with pytest.raises(InputError, match="choose another folder"), exclusive_lock(tmp_path / "a.lock"):
        pass
    assert (tmp_path / "precious.txt").read_text() == "precious"


@pytest.mark.parametrize(
    "unit",
    ["[]", "[1]", "[[[[[[[[]]]]]]]]", "{}", '{"":0}', "1000", "1.5", '"ab"', '"\u0101b"', '"\U0001f600"'],
)
def test_the_memory_of_a_json_is_estimated_before_it_is_understood(unit, tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("[" + ",".join([unit] * (300_000 // len(unit))) + "]")
    tracemalloc.start()
    read_json(path)
    _, needed = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    monkeypatch.setattr(files, "MAX_MEMORY", int(0.75 * needed))
    monkeypatch.setattr(files, "MAX_GROWTH", 0)
    with pytest.raises(InputError, match=r"a.json would take about .* GB of memory, .*; split it into several files"):
        read_json(path)


def test_a_small_file_may_not_become_gigabytes(tmp_path):
    """45 MB of lists in lists take 2 GB."""
    path = tmp_path / "a.json"
    path.write_text("[" + ",".join(["[" * 40 + "]" * 40] * 550_000) + "]")
    with pytest.raises(InputError, match=r"would take about 2.\d GB of memory, and may take 1.1; split it"):
        read_json(path)


def test_the_segments_of_coco_are_read_although_they_are_many(tmp_path):
    """As COCO's 118,000 images of panoptic segments, but a hundredth of them."""
    segment = '{"id": 9616253, "category_id": 155, "iscrowd": 0, "bbox": [1, 257, 477, 481], "area": 229471}'
    image = '{"file_name": "000000000009.png", "image_id": 9, "segments_info": [' + ", ".join([segment] * 11) + "]}"
    size = 100 * len(content := f"[{', '.join([image] * 1180)}]".encode())
    assert size > 120e6
    require_memory(tmp_path, content * 100, JSON_COSTS)


def test_large_annotations_as_tools_write_them_are_read(tmp_path):
    """COCO's instances of 2017 have 448 MB of outlines; a file of that size made of nothing but commas is refused."""
    points = ", ".join(f"{x / 7:.2f}" for x in range(7, 700))
    require_memory(tmp_path, f'{{"segmentation": [[{points}]], "area": 702.1}},'.encode() * 40_000, JSON_COSTS)
    with pytest.raises(InputError, match=r"may take 1.9; split it"):
        require_memory(tmp_path, b"0," * 60_000_000, JSON_COSTS)


def test_many_lines_are_refused(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("\n" * 100_000)
    assert len(read_text(tmp_path / "a.txt")) == 100_000
    monkeypatch.setattr(files, "MAX_MEMORY", 5_000_000)
    with pytest.raises(InputError, match=r"would take about 0\.0 GB"):
        read_text(tmp_path / "a.txt")
