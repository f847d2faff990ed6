"""The command `serve`, up to the page itself."""

import signal

import pytest

from pix2seqd.cli import serve as module
from pix2seqd.cli.serve import serve
from pix2seqd.files import InputError


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
