"""The command `serve`, up to the page itself."""

import signal
import sys
from contextlib import contextmanager

import pytest

from pix2seqd.cli import serve as module
from pix2seqd.cli.serve import serve
from pix2seqd.files import InputError
from pix2seqd.page import server


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "10.0.0.1", "lab.example"])
@pytest.mark.parametrize("password", [None, ""])
def test_serve_refuses_other_machines_without_password(host, password, tmp_path):
    with pytest.raises(InputError, match="set --password or allow it with --open"):
        serve(host=host, password=password, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_serve_second_sigterm_does_not_interrupt_the_end(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit):
            module._end()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_serve_makes_its_folder_and_offers_the_bundled_models(monkeypatch, segmenter, tmp_path):
    asked = {}

    @contextmanager
    def serving(first, out, **options):
        asked.update(options, first=first.name, is_there=out.is_dir())
        yield "http://here"

    monkeypatch.setattr(server, "serving", serving)
    monkeypatch.setattr(module.time, "sleep", lambda _: sys.exit(0))
    with pytest.raises(SystemExit):
        serve(out=tmp_path / "new" / "page", samples=tmp_path / "none")
    assert asked["is_there"] and asked["first"] == asked["card"].name == "nuclei-fast"
    assert asked["load"]("nuclei").name == "nuclei"
