"""The package on systems that lack POSIX: its modules and names are hidden, in a process of its own."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pix2seqd

HIDE = """
import importlib, os, pathlib, pkgutil, signal, sys
import pix2seqd

def load():
    # Without modules for extras that may be missing, and what calls `main`.
    left = ("pix2seqd.__main__", "pix2seqd.cli.ray_engine", "pix2seqd.speed.triton_norm")
    names = [module.name for module in pkgutil.walk_packages(pix2seqd.__path__, "pix2seqd.")]
    for name in names:
        if name not in left:
            importlib.import_module(name)
    return len(names)

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

MODULES = ("resource", "fcntl", "pwd", "grp", "termios", "pty", "tty", "syslog")

def hide():
    # Libraries stay loaded: what they need of a system is theirs to know.
    for name in [*MODULES, *(name for name in sys.modules if name.startswith("pix2seqd."))]:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Hidden())
    for name in ("fork", "getuid", "geteuid", "getgid", "killpg", "getpgid", "setsid", "mkfifo", "sync", "uname"):
        delattr(os, name)
    for name in ("SIGKILL", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGPIPE", "SIGALRM", "SIGCHLD"):
        delattr(signal, name)

def refuse(*_, **__):
    raise OSError("a required privilege is not held by the client")
"""


def run(code: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", HIDE + code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


POSIX = {"resource", "fcntl", "pwd", "grp", "termios", "pty", "tty", "syslog"}


@pytest.mark.parametrize("path", sorted(Path(pix2seqd.__file__).parent.rglob("*.py")), ids=lambda path: path.stem)
def test_no_module_needs_posix_at_import(path):
    """What is imported within a function is left out: it may be guarded."""
    lines = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.Import)]
    assert POSIX.isdisjoint(alias.name for node in lines for alias in node.names)


@pytest.mark.slow
def test_every_module_is_imported_and_data_converted_without_posix(tmp_path):
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(tmp_path / "a.png")
    shape = {"label": "cell", "points": [[1, 1], [5, 1], [5, 4]]}
    (tmp_path / "a.json").write_text(json.dumps({"shapes": [shape], "imagePath": "..\\images\\a.png"}))
    code = """
load()
hide()
print(load())
pathlib.Path.symlink_to = pathlib.Path.hardlink_to = os.symlink = os.link = refuse
from pix2seqd.cli.main import app
print(app(["convert-data", ".", "out"]) or 0, app(["check-data", "out"]) or 0)
"""
    modules, *_, codes = run(code, tmp_path).splitlines()
    assert int(modules) > 100 and codes == "0 0"
    assert (tmp_path / "out/images/a.png").is_file() and not (tmp_path / "out/images").is_symlink()
