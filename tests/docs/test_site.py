"""The documentation as a site, and its notebooks."""

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
NOTEBOOKS = ("notebook.ipynb", "own-data.ipynb")


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
    assert "Segment one image." in (tmp_path / "site" / "api.html").read_text()
    front = re.sub("<[^>]+>", "", (tmp_path / "site" / "index.html").read_text())
    assert "pix2seqd segment examples/nuclei.png" in front, "the README's first steps are its quick start"
    loaded = [line for page in (tmp_path / "site").glob("*.html") for line in page.read_text().split("<")]
    outside = [line for line in loaded if line.startswith(("script src=", 'link rel="stylesheet"')) and "://" in line]
    assert not outside, "a reader without a network sees the same"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebook", DOCS / "notebook.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_what_its_script_runs_and_shows_pictures(script, name: str):
    cells = json.loads((DOCS / name).read_text())["cells"]
    assert ["".join(cell["source"]) for cell in cells] == script.NOTEBOOKS[name]
    assert [cell["cell_type"] for cell in cells] == [("markdown", "code")[number % 2] for number in range(len(cells))]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
    assert not any(output["output_type"] == "error" for output in outputs)


def test_every_notebook_has_its_script_and_all_are_small(script):
    assert {path.name for path in DOCS.glob("*.ipynb")} == set(script.NOTEBOOKS) == set(NOTEBOOKS)
    assert sum((DOCS / name).stat().st_size for name in NOTEBOOKS) <= 300_000


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_valid_and_its_code_compiles(script, name: str):
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.read(DOCS / name, as_version=4), relax_add_props=False)
    for source in script.NOTEBOOKS[name][1::2]:
        lines = ["pass" if line.startswith(("!", "%")) else line for line in source.splitlines()]
        compile("\n".join(lines), name, "exec")


def test_a_notebook_runs_in_its_folder_and_keeps_outputs(script):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    code = "from pathlib import Path\nfrom PIL import Image\nprint(Path.cwd())\nImage.new('L', (2, 2))"
    made = script.notebook(["text", code])
    script.run(made)
    printed, shown = made.cells[1].outputs
    assert printed["text"].strip() == str(DOCS)
    assert shown["data"]["image/png"].startswith("iVBOR") and "image/jpeg" not in shown["data"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_from_its_first_to_its_last_cell(script, name: str):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    made = script.notebook([source.replace("minutes = 3", "minutes = 0.3") for source in script.NOTEBOOKS[name]])
    script.run(made)  # raises if a cell fails
    commands = [output["text"] for cell in made.cells for output in cell.get("outputs", ()) if "text" in output]
    assert not any("Traceback" in text or "error:" in text for text in commands)
    assert sum("image/png" in o.get("data", {}) for cell in made.cells for o in cell.get("outputs", ())) == 2
