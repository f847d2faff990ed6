"""C is compiled once where possible; otherwise plain operations are used."""

import subprocess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pix2seqd.speed import compile_c, fused_cpu
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
        without.setattr(subprocess, "run", None)
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
