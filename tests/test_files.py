import json

import pytest

from pix2seqd.files import InputError, read_json, write_atomically, write_json


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_atomically_error_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), write_atomically(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_write_atomically_interrupt_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), write_atomically(path) as temporary:
        temporary.write_text("half of the n")
        raise KeyboardInterrupt
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
