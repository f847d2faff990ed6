"""The documentation as a site, and its notebook."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"
NOTEBOOK = DOCS / "notebook.ipynb"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("sphinx-build", path=str(Path(sys.executable).parent)) is None, reason="no sphinx")
def test_the_site_builds_without_a_warning(tmp_path: Path):
    pytest.importorskip("furo")
    pytest.importorskip("myst_parser")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-d",
        tmp_path / "cache",
        DOCS,
        tmp_path / "site",
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = {page.stem for page in DOCS.glob("*.md")}
    assert pages <= {page.stem for page in (tmp_path / "site").glob("*.html")}
    assert "Segment one picture." in (tmp_path / "site" / "api.html").read_text()
    front = re.sub("<[^>]+>", "", (tmp_path / "site" / "index.html").read_text())
    assert "pix2seqd segment examples/nuclei.png" in front, "the README's first steps are its quick start"
    loaded = [line for page in (tmp_path / "site").glob("*.html") for line in page.read_text().split("<")]
    outside = [line for line in loaded if line.startswith(("script src=", 'link rel="stylesheet"')) and "://" in line]
    assert not outside, "a reader without a network sees the same"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebook", NOTEBOOK.with_suffix(".py"))
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notebook_is_what_its_script_runs_and_shows_pictures(script):
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert [cell["source"] for cell in cells] == script.CELLS
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert NOTEBOOK.stat().st_size <= 200_000


def test_a_cell_shows_what_it_prints_and_its_last_value(script):
    names = {}
    code = "from PIL import Image\npicture = Image.new('L', (2, 2))\nprint('made')\npicture"
    stream, display = script.run(code, names)
    assert stream == {"output_type": "stream", "name": "stdout", "text": "made\n"}
    assert display["data"]["image/png"].startswith("iVBOR")
    assert script.run("size = picture.size", names) == []
    assert names["size"] == (2, 2)
