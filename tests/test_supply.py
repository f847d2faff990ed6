"""Versions of the libraries: the bounds in pyproject.toml, and constraints.txt."""

import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HOME = Path(__file__).parents[1]
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
WEB = [Requirement(line) for line in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["web"])]


def pinned():
    lines = (HOME / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_constraints_name_a_version_within_the_bounds_of_each_requirement():
    versions = pinned()
    for requirement in WEB:
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_what_the_page_takes_from_the_inside_of_libraries_has_upper_bounds():
    bounds = {requirement.name: str(requirement.specifier) for requirement in WEB}
    assert "<" in bounds["gradio"] and "<" in bounds["uvicorn"]


def uv(*arguments):
    """Run uv, which looks into the package index; its output."""
    command = [sys.executable, "-m", "uv", "pip", *map(str, arguments)]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=600)
    if re.search(r"connect|resolve host|timed out", done.stderr, re.IGNORECASE):
        pytest.skip("needs the package index")
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def resolve(extras, *options):
    """The versions that fit each other, a line each, as built packages of the index."""
    wanted = [*(f"--extra={extra}" for extra in extras), "--only-binary=:all:", "--python-version=3.11"]
    return uv("compile", "--quiet", "--no-annotate", "pyproject.toml", *wanted, *options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("extras", "options"),
    [
        (["web"], ["--constraints", "constraints.txt"]),
        (["web"], ["--resolution", "lowest-direct"]),
        (["web", "test"], ["--resolution", "lowest-direct"]),
    ],
    ids=["constraints", "lowest", "lowest for tests"],
)
def test_versions_can_be_installed_together(extras, options):
    """Those of constraints.txt, and the oldest that pyproject.toml allows."""
    assert "gradio==" in resolve(extras, *options)


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the oldest versions are those for Python 3.11")
def test_oldest_versions_pass_the_tests(tmp_path):
    """All fast tests, with the oldest versions that pyproject.toml allows beside this PyTorch."""
    import torch

    (tmp_path / "override.txt").write_text("torch; python_version < '3'")  # none, or the index gives one for GPUs
    extras, options = ("web", "test", "notebook", "docs", "onnx"), ("--override", tmp_path / "override.txt")
    (tmp_path / "oldest.txt").write_text(resolve(extras, "--resolution", "lowest-direct", *options))
    venv.create(tmp_path / "oldest")
    python = tmp_path / "oldest" / "bin" / "python"
    uv("install", "--quiet", "--python", python, "--no-deps", "--requirements", tmp_path / "oldest.txt")
    (inside,) = (tmp_path / "oldest").glob("lib/*/site-packages")
    (inside / "torch.pth").write_text(str(Path(torch.__file__).parents[1]))  # after the versions that were installed
    command = [python, "-m", "pytest", "-n", "2", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(HOME / "src"), "PYTEST_ADDOPTS": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=HOME, env=environment, capture_output=True, text=True, timeout=4 * 3600)
    assert done.returncode == 0, done.stdout[-3000:]
