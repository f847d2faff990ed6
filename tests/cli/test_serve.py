"""The command `serve`, up to the page itself."""

import os
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


@pytest.fixture
def handlers():
    """The handlers of signals, which the command sets, are as they were afterwards."""
    before = {number: signal.getsignal(number) for number in module._ENDS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_serve_second_sigterm_does_not_interrupt_the_end(handlers):
    with pytest.raises(SystemExit):
        module._end()
    assert {signal.getsignal(number) for number in module._ENDS} == {signal.SIG_IGN}


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows")
@pytest.mark.parametrize("nohup", [False, True])
def test_serve_ends_in_order_when_its_terminal_is_closed(handlers, nohup, monkeypatch, segmenter, tmp_path):
    signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)
    ended = []

    @contextmanager
    def serving(*_, **__):
        try:
            yield "http://here"
        finally:
            ended.append(True)

    def sleep(_):
        os.kill(os.getpid(), signal.SIGHUP)
        sys.exit(1)

    monkeypatch.setattr(server, "serving", serving)
    monkeypatch.setattr(module.time, "sleep", sleep)
    with pytest.raises(SystemExit) as end:
        serve(out=tmp_path / "page", samples=tmp_path / "none")
    assert end.value.code == int(nohup) and ended


def test_serve_makes_its_folder_and_offers_the_bundled_models(handlers, monkeypatch, segmenter, tmp_path):
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
