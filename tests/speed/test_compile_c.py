"""C is compiled once where possible; otherwise plain operations are used."""

import hashlib
import multiprocessing
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pix2seqd.speed import compile_c, exchange, fused_cpu
from pix2seqd.speed.winograd import is_supported


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    """A C file; compiled libraries are kept in tmp_path / "cache" / "pix2seqd"."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "half.c"
    (tmp_path / "numbers.h").write_text("#define TWO 2")
    path.write_text('#include "numbers.h"\nint half(int x) { return x / TWO; }')
    return path


@pytest.mark.usefixtures("compiled")
def test_load_compiles_once_and_after_changes(source, tmp_path, monkeypatch):
    def half(x: int) -> int:
        functions = compile_c.load(source, {"half": "i"})
        assert functions is not None
        return functions.half(x)

    assert half(9) == 4
    (kept,) = (tmp_path / "cache" / "pix2seqd").iterdir()
    assert kept.suffix == ".so"
    with monkeypatch.context() as without:
        without.setattr(subprocess, "Popen", None)
        assert half(8) == 4
    source.write_text('#include "numbers.h"\nint half(int x) { return (x + 1) / TWO; }')
    assert half(9) == 5
    (tmp_path / "numbers.h").write_text("#define TWO 5")
    assert half(9) == 2
    assert len(list(kept.parent.iterdir())) == 3


@pytest.mark.usefixtures("compiled")
def test_load_cache_not_writable(source, tmp_path):
    (tmp_path / "cache").write_text("a file where a folder should be")
    functions = compile_c.load(source, {"half": "i"})
    assert functions is not None and functions.half(6) == 3


@pytest.mark.usefixtures("compiled")
def test_load_no_home_folder(source, monkeypatch):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    functions = compile_c.load(source, {"half": "i"})
    assert functions is not None and functions.half(6) == 3


@pytest.mark.usefixtures("compiled")
def test_load_broken_source_warns_and_leaves_nothing(source, tmp_path):
    source.write_text("int half(int x) { return")
    with pytest.warns(UserWarning, match="half.c could not be compiled"):
        assert compile_c.load(source, {"half": "i"}) is None
    assert not list(tmp_path.rglob("*.so"))


@pytest.mark.usefixtures("nothing_loaded")
def test_load_without_compiler_plain_operations_serve(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    x, convolution = torch.randn(2, 8, 3, 3), nn.Conv2d(64, 64, 3, padding=1)
    with torch.no_grad():
        assert fused_cpu.library() is None and not fused_cpu.is_supported(x)
        assert torch.allclose(
            fused_cpu.FusedGroupNorm(8)(x, silu=True), F.silu(F.group_norm(x, 2, eps=1e-5)), atol=1e-6
        )
    assert not is_supported(convolution)


def half(source: Path, x: int) -> int:
    functions = compile_c.load(source, {"half": "i"})
    assert functions is not None
    return functions.half(x)


def compile_elsewhere(source: Path) -> Path:
    """The compiled file, made by another process: what this one has loaded must not be changed."""
    child = multiprocessing.get_context("fork").Process(target=compile_c.load, args=(source, {"half": "i"}))
    child.start()
    child.join()
    return kept(source)


def kept(source: Path) -> Path:
    """The one compiled file in the cache."""
    (file,) = (source.parent / "cache" / "pix2seqd").iterdir()
    return file


DAMAGES = {
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: os.truncate(file, file.stat().st_size // 2),
    "one bit": lambda file: file.write_bytes(b"\x00" + file.read_bytes()[1:]),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "writable by others": lambda file: file.chmod(0o666),
    "a link": lambda file: (file.rename(file.parents[1] / "x"), file.symlink_to(file.parents[1] / "x")),
    "a pipe": lambda file: (file.unlink(), os.mkfifo(file)),
}


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_load_damaged_or_foreign_file_is_compiled_anew_once(source, damage, monkeypatch):
    """No such file is given to the loader: a file cut short ends the process with SIGBUS."""
    file = compile_elsewhere(source)
    whole = file.read_bytes()
    damage(file)
    assert half(source, 9) == 4
    assert kept(source).read_bytes() == whole and kept(source).stat().st_mode & 0o777 == 0o600
    monkeypatch.setattr(subprocess, "Popen", None)
    assert half(source, 9) == 4


@pytest.mark.usefixtures("compiled")
def test_load_other_code_under_the_old_name_is_not_run(source):
    file = compile_elsewhere(source)
    other = source.with_name("other.c")
    other.write_text("int half(int x) { return 666; }")
    subprocess.run(["gcc", "-shared", "-fPIC", str(other), "-o", str(file)], check=True)
    file.chmod(0o600)
    assert half(source, 9) == 4


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_load_cache_that_others_may_write_is_not_used(source, mode):
    file = compile_elsewhere(source)
    file.parent.chmod(mode)
    file.unlink()
    assert half(source, 9) == 4
    assert not list(file.parent.iterdir()), "it went to a private folder"


@pytest.mark.usefixtures("compiled")
def test_load_cache_of_another_user_is_not_used(source, monkeypatch):
    before = compile_elsewhere(source).stat()
    monkeypatch.setattr(os, "geteuid", lambda: before.st_uid + 1)
    loaded = []
    monkeypatch.setattr(compile_c, "_kept", lambda *_: loaded.append(1))
    assert half(source, 9) == 4
    assert not loaded and kept(source).stat() == before


@pytest.mark.usefixtures("compiled")
def test_load_writes_to_the_disk_before_it_names_the_file(source, monkeypatch):
    seen = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda number: (seen.append("fsync"), fsync(number)))
    monkeypatch.setattr(Path, "replace", lambda *names: (seen.append("replace"), replace(*names))[1])
    assert half(source, 9) == 4
    assert seen == ["fsync", "replace", "fsync"]


@pytest.mark.usefixtures("compiled")
def test_load_missing_function_means_not_compiled(source):
    with pytest.warns(UserWarning, match=r"half\.c could not be compiled"):
        assert compile_c.load(source, {"half": "i", "third": "i"}) is None


def fake_compiler(place: Path, script: str, monkeypatch) -> Path:
    """A gcc that runs a script, first in the path."""
    (place / "bin").mkdir()
    file = place / "bin" / "gcc"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place / 'bin'}:{os.environ['PATH']}")
    return file


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.usefixtures("compiled")
def test_load_compiler_that_hangs_is_ended_with_its_children_and_remembered(source, tmp_path, monkeypatch):
    script = f"sleep 600 & echo $! >> {tmp_path}/children; wait"
    compiler = fake_compiler(tmp_path, script, monkeypatch)
    monkeypatch.setattr(compile_c, "TIMEOUT", 1)
    began = time.monotonic()
    with pytest.warns(UserWarning, match="could not be compiled"):
        assert compile_c.load(source, {"half": "i"}) is None
    assert time.monotonic() - began < 10
    (child,) = map(int, (tmp_path / "children").read_text().split())
    time.sleep(0.2)
    assert not runs(child)
    with pytest.warns(UserWarning, match=r"did not end before; remove .*\.failed to try again"):
        assert compile_c.load(source, {"half": "i"}) is None
    assert len((tmp_path / "children").read_text().split()) == 1, "it was not tried again"
    compiler.unlink()  # another version
    assert half(source, 9) == 4


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("script", ["exit 0", "exit 1", 'for out; do :; done; echo no library > "$out"'])
def test_load_compiler_that_makes_nothing_usable_warns(source, tmp_path, monkeypatch, script):
    fake_compiler(tmp_path, script, monkeypatch)
    with pytest.warns(UserWarning, match="could not be compiled"):
        assert compile_c.load(source, {"half": "i"}) is None


@pytest.mark.usefixtures("nothing_loaded")
def test_load_plain_compiles_nothing(source, monkeypatch, tmp_path):
    monkeypatch.setenv("PIX2SEQD_PLAIN", "1")
    monkeypatch.setattr(subprocess, "Popen", None)
    assert compile_c.load(source, {"half": "i"}) is None
    names = exchange.available(torch.device("cpu"), torch.float32)
    assert not {"Winograd", "fused norms", "fused bits", "fused head"} & set(names)
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("compiled")
def test_load_cache_link_of_the_user_is_followed(source, tmp_path):
    (tmp_path / "disk").mkdir(mode=0o700)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "pix2seqd").symlink_to(tmp_path / "disk")
    assert half(source, 9) == 4
    assert len(list((tmp_path / "disk").iterdir())) == 1
    shutil.rmtree(tmp_path / "disk")


@pytest.mark.usefixtures("compiled")
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
def test_load_file_of_another_user_is_removed_and_compiled_anew(source):
    file = compile_elsewhere(source)
    os.chown(file, 12345, -1)
    assert half(source, 9) == 4
    assert kept(source).stat().st_uid == os.geteuid()


@pytest.mark.usefixtures("compiled")
def test_load_folder_above_in_which_all_may_replace_the_cache(source, monkeypatch):
    file = compile_elsewhere(source)
    loaded = []
    monkeypatch.setattr(compile_c, "_kept", lambda *_: loaded.append(1))
    file.parents[1].chmod(0o777)
    assert half(source, 9) == 4 and not loaded
    file.parents[1].chmod(0o1777)  # as /tmp: others may make files, and not replace this folder
    assert half(source, 9) == 4 and loaded


@pytest.mark.usefixtures("compiled")
def test_load_relative_cache_is_not_used(source, tmp_path, monkeypatch):
    """A folder of a stranger, in which the user stands, may hold files of this name that the user owns."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "elsewhere")
    assert half(source, 9) == 4
    assert not (tmp_path / "elsewhere").exists() and list((tmp_path / "home").rglob("*.so"))


@pytest.mark.usefixtures("compiled")
def test_load_full_disk_keeps_nothing_and_works(source, tmp_path, monkeypatch):
    def full(path, content):
        path.open("wb").write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert half(source, 9) == 4
    assert not list((tmp_path / "cache" / "pix2seqd").iterdir())


@pytest.mark.usefixtures("compiled")
def test_load_cache_in_which_nothing_can_be_written(source, tmp_path, monkeypatch):
    (tmp_path / "cache" / "pix2seqd").mkdir(parents=True, mode=0o700)

    def refuse(path, **_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "touch", refuse)
    assert half(source, 9) == 4
    fake_compiler(tmp_path, "sleep 600", monkeypatch)
    monkeypatch.setattr(compile_c, "TIMEOUT", 0.2)
    with pytest.warns(
        UserWarning, match=r"could not be compiled.*did not end within"
    ):  # which cannot be noted anywhere
        assert compile_c.load(source, {"half": "i"}) is None


@pytest.mark.usefixtures("compiled")
def test_load_several_processes_at_once_leave_one_whole_file(source):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=lambda n=n: queue.put(half(source, 2 * n))) for n in range(4)]
    for child in children:
        child.start()
    assert sorted(queue.get(timeout=60) for _ in children) == [0, 1, 2, 3]
    for child in children:
        child.join()
    file = kept(source)
    assert file.stem.endswith(hashlib.sha256(file.read_bytes()).hexdigest())


@pytest.mark.usefixtures("compiled")
def test_load_sweeps_what_a_killed_process_left(source):
    file = compile_elsewhere(source)
    for name, age in (("old", 3600), ("new", 0)):
        part = file.with_name(f".{name}.part")
        part.write_bytes(b"half")
        os.utime(part, (time.time() - age,) * 2)
    file.unlink()
    assert half(source, 9) == 4
    assert sorted(path.suffix for path in file.parent.iterdir()) == [".part", ".so"]
    assert (file.parent / ".new.part").exists(), "it may be another process's, which still writes"


@pytest.mark.usefixtures("compiled")
def test_load_symbols_that_are_found_nowhere_mean_not_compiled(source):
    source.write_text("int missing(int); int half(int x) { return missing(x); }")
    for _ in range(2):  # what is kept is no better
        with pytest.warns(UserWarning, match=r"could not be compiled.*undefined symbol: missing"):
            assert compile_c.load(source, {"half": "i"}) is None


@pytest.mark.usefixtures("compiled")
def test_load_interrupted_compiler_ends_with_its_children(source, tmp_path, monkeypatch):
    fake_compiler(tmp_path, f"sleep 600 & echo $! >> {tmp_path}/children; wait", monkeypatch)
    monkeypatch.setattr(subprocess.Popen, "wait", lambda process, timeout=None: interrupted(process, timeout, tmp_path))
    with pytest.raises(KeyboardInterrupt):
        compile_c.load(source, {"half": "i"})
    (child,) = map(int, (tmp_path / "children").read_text().split())
    time.sleep(0.2)
    assert not runs(child)
    assert not list((tmp_path / "cache" / "pix2seqd").iterdir()), "Ctrl-C says nothing about the compiler"


def interrupted(process, timeout, place):
    """`Popen.wait` with Ctrl-C once the compiler has a child."""
    if timeout is None:
        return process.poll()
    while not (place / "children").is_file() or not (place / "children").read_text().strip():
        time.sleep(0.01)
    raise KeyboardInterrupt
