import sys
from types import ModuleType

import pytest
from fake_segmenter import FakeSegmenter


@pytest.fixture
def segmenter(monkeypatch):
    module = ModuleType("pix2seqd.segmenter")
    module.Segmenter = FakeSegmenter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pix2seqd.segmenter", module)
    monkeypatch.setattr(FakeSegmenter, "seen", 0)
    monkeypatch.setattr(FakeSegmenter, "fail_at", None)
    return FakeSegmenter


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command in an empty folder: arguments → (exit code, stdout, stderr)."""
    from pix2seqd.app.cli import main

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["pix2seqd", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        return (exit_.value.code or 0, *capsys.readouterr())

    monkeypatch.chdir(tmp_path)
    return call
