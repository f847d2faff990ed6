import multiprocessing
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from pix2seqd.data import archive
from pix2seqd.data.archive import ZipPath, children, find, locate, read_image, read_png
from pix2seqd.files import InputError


def tree(folder):
    """Relative path → content of every file below a folder."""
    found = {}
    for child in children(folder):
        found |= {f"{child.name}/{k}": v for k, v in tree(child).items()} if child.is_dir() else {}
        found |= {child.name: child.read_bytes()} if child.is_file() else {}
    return found


@pytest.fixture
def files(tmp_path):
    home = tmp_path / "files"
    for name in ("a/1.txt", "a/b/2.txt", "c.txt"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(name * 1000)
    return home


def test_zip_path_same_entries_as_folder(files, tmp_path, pack):
    expected = tree(files)
    pack(files, tmp_path / "it.zip")
    zipped = locate(tmp_path, "it.zip/files")
    assert tree(zipped) == expected
    assert [child.name for child in children(zipped)] == ["a", "c.txt"]
    assert (zipped / "a").is_dir()
    assert (zipped / "a" / "b" / "2.txt").is_file()
    assert not (zipped / "a" / "2.txt").is_file()
    assert not (zipped / "x").is_dir()
    assert list((zipped / "x").iterdir()) == []


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_path_nested_zip_file(files, tmp_path, pack, compression):
    expected = tree(files)
    pack(files, tmp_path / "inner.zip")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w", compression) as outer:
        outer.writestr("before.txt", "x" * 77)
        outer.write(tmp_path / "inner.zip", "deep/inner.zip")
    (tmp_path / "inner.zip").unlink()
    zipped = locate(tmp_path, "outer.zip/deep/inner.zip/files")
    assert tree(zipped) == expected
    assert str(zipped / "c.txt") == str(tmp_path / "outer.zip/deep/inner.zip/files/c.txt")


def test_zip_path_folders_without_entries(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        target.writestr("x/y/z.txt", "z")
    assert locate(tmp_path, "a.zip/x/y").is_dir()


def test_zip_path_overflowed_file_count(tmp_path):
    """As in COCO's zip file of training PNGs, whose 16-bit count says 52751 instead of 118287."""
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as target:
        for number in range(5):
            target.writestr(f"{number}.txt", "x")
    content = bytearray(path.read_bytes())
    end = content.rfind(b"PK\5\6")
    content[end + 8 : end + 12] = b"\2\0\2\0"
    path.write_bytes(content)
    assert len(children(locate(tmp_path, "a.zip"))) == 5


def read(zipped, queue, turns):
    queue.put([zipped.read_bytes() for _ in range(turns)])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_zip_path_concurrent_processes(tmp_path, method):
    contents = {f"{n}.txt": bytes([n]) * 100_000 for n in range(2)}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        for name, content in contents.items():
            target.writestr(name, content)
    home = locate(tmp_path, "a.zip")
    assert (home / "0.txt").read_bytes() == contents["0.txt"]  # the file is open before the processes start
    context = multiprocessing.get_context(method)
    queues = {name: context.Queue() for name in contents}
    workers = [context.Process(target=read, args=(home / name, queues[name], 50)) for name in contents]
    for worker in workers:
        worker.start()
    for name, content in contents.items():
        assert all(found == content for found in queues[name].get(timeout=60))
    for worker in workers:
        worker.join()


def test_zip_path_pickles_without_content(tmp_path, files, pack):
    pack(files, tmp_path / "it.zip")
    zipped = locate(tmp_path, "it.zip/files/c.txt")
    zipped.read_bytes()
    assert pickle.loads(pickle.dumps(zipped)) == zipped
    assert len(pickle.dumps(zipped)) < 1000


def test_find_returns_first_existing_path(files):
    assert find("it", files / "x", files / "a", files / "c.txt") == files / "a"
    with pytest.raises(InputError, match=r"the thing is missing; expected .*/x or .*/y$"):
        find("the thing", files / "x", files / "y", files / "x")


def test_zip_path_errors_name_damaged_files(tmp_path):
    path = tmp_path / "a.zip"
    for content in (b"", b"PK\x03\x04 no more", b"x" * 1000):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"a\.zip is not a whole zip file.*fetch it again"):
            locate(tmp_path, "a.zip/b").is_dir()
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as target:
        target.writestr("x.txt", b"hello" * 100)
    content = (tmp_path / "b.zip").read_bytes()
    (tmp_path / "b.zip").write_bytes(content.replace(b"hellohello", b"hellohullo", 1))
    with pytest.raises(InputError, match=r"b\.zip/x\.txt cannot be unpacked"):
        locate(tmp_path, "b.zip/x.txt").read_bytes()
    with pytest.raises(InputError, match=r"b\.zip/y\.txt does not exist"):
        locate(tmp_path, "b.zip/y.txt").read_bytes()


def test_read_image_and_read_png_from_zip_file(tmp_path, pack):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    (tmp_path / "p").mkdir()
    Image.fromarray(pixels).save(tmp_path / "p" / "a.png")
    (tmp_path / "p" / "b.png").write_bytes(b"no image")
    pack(tmp_path / "p", tmp_path / "p.zip")
    home = locate(tmp_path, "p.zip/p")
    assert isinstance(home, ZipPath)
    image = read_image(home / "a.png")
    assert np.array_equal(np.asarray(image), pixels)
    assert np.array_equal(np.asarray(read_png(home / "a.png", ("RGB",), image)), pixels)
    with pytest.raises(InputError, match=r"p\.zip/p/b\.png is not an image"):
        read_image(home / "b.png")
    with pytest.raises(InputError, match=r"p\.zip/p/c\.png does not exist"):
        read_image(home / "c.png")
    with pytest.raises(InputError, match=r"p\.zip/p/c\.png is missing"):
        read_png(home / "c.png", ("RGB",))


def test_zip_path_small_file_that_unpacks_to_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "FREE_BYTES", 2**20)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("bomb", bytes(2**24))
        target.writestr("fits", bytes(2**19))
        target.writestr("inner.zip", bytes(2**24))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(InputError, match=r"a\.zip/bomb is too large to unpack"):
        locate(tmp_path, "a.zip/bomb").read_bytes()
    with pytest.raises(InputError, match=r"inner\.zip is too large to unpack"):
        locate(tmp_path, "a.zip/inner.zip/x").is_file()
    monkeypatch.undo()
    assert len(locate(tmp_path, "a.zip/fits").read_bytes()) == 2**19


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_path_refuses_methods_that_unpack_all_at_once(tmp_path, compression, monkeypatch):
    """Python unpacks all of them, whatever size the file states: a zip file of 300 bytes holds 200 MB."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", compression) as target:
        target.writestr("x", "x")
        target.writestr("inner.zip", "x")
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("unpacked"))
    for path in ("x", "inner.zip/x"):
        with pytest.raises(InputError, match="by another method than deflate; unpack"):
            locate(tmp_path, f"a.zip/{path}").open("rb")


def test_zip_path_unpacks_no_more_than_the_size_it_says(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as target:
        target.writestr("x", bytes(2**25))
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace((2**25).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    zipped = locate(tmp_path, "a.zip/x")
    zipped.is_file()
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="cannot be unpacked"):
            zipped.read_bytes()
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_zip_path_deep_folders_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as target:
        target.writestr("a/" * 10_000 + "x", b"")
    with pytest.raises(InputError, match="nested more than"):
        locate(tmp_path, "a.zip/x").is_file()


def test_read_png_refuses_too_many_pixels(tmp_path, monkeypatch):
    Image.new("L", (30, 20)).save(tmp_path / "a.png")
    monkeypatch.setenv("PIX2SEQD_MAX_PIXELS", "599")
    with pytest.raises(InputError, match="more than 599 pixels"):
        read_png(tmp_path / "a.png", ("L",))
