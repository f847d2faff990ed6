"""Versions of the libraries: the bounds in pyproject.toml, and constraints.txt."""

import re
import subprocess
import sys
import tomllib
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
    """Those of constraints.txt, and the oldest that pyproject.toml allows, as built packages of the index."""
    wanted = [*(f"--extra={extra}" for extra in extras), "--only-binary=:all:", "--python-version=3.11"]
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "pyproject.toml", *wanted, *options]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True, timeout=600)
    if re.search(r"connect|resolve host|timed out", done.stderr, re.IGNORECASE):
        pytest.skip("needs the package index")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "gradio==" in done.stdout
