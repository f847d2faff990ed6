"""The documentation names what exists, and the code keeps the house rules."""

import ast
import dataclasses
import functools
import importlib
import inspect
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from rich.console import Console

from pix2seqd import config
from pix2seqd.checkpoint import BUNDLED
from pix2seqd.cli.main import app
from pix2seqd.interop import cards

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
PAGES = [page for folder in (".", "docs", "examples") for page in sorted((ROOT / folder).glob("*.md"))]


def of_pages(found: dict[Path, list[Any]]) -> Any:
    """Parameters of a test: everything found in the pages, named after the page."""
    return [pytest.param(item, id=f"{page.name}-{item}"[:80]) for page, items in found.items() for item in items]


def blocks(page: Path, language: str) -> list[str]:
    """The contents of a page's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[str]:
    """Every call of `pix2seqd` in the shell blocks of a page, without what comes before it."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    return [part.strip() for line in lines for part in line.split("&&") if part.strip().startswith("pix2seqd ")]


def resolve(name: str) -> object:
    """The module, class, function, method or dataclass field of a dotted name."""
    parts = name.split(".")
    found: Any = importlib.import_module(parts[0])
    for position, part in enumerate(parts[1:], start=2):
        if inspect.ismodule(found) and not hasattr(found, part):
            found = importlib.import_module(".".join(parts[:position]))
        elif dataclasses.is_dataclass(found) and part in {field.name for field in dataclasses.fields(found)}:
            return found
        else:
            found = getattr(found, part)
    return found


NAMES = {page: sorted(set(re.findall(r"`(pix2seqd(?:\.\w+)+)", page.read_text()))) for page in PAGES}


@pytest.mark.parametrize("name", of_pages(NAMES))
def test_every_object_that_the_pages_name_exists(name: str):
    if name.startswith("pix2seqd.speed.triton_norm"):
        pytest.importorskip("triton")
    resolve(name)


@pytest.mark.parametrize("name", ["pix2seqd.nothing", "pix2seqd.config.ModelConfig.nothing", "pix2seqd.loss.l3"])
def test_a_name_that_does_not_exist_is_noticed(name: str):
    with pytest.raises((AttributeError, ImportError)):
        resolve(name)


LINKS = {
    page: sorted(
        {
            link
            for link in re.findall(r"\]\(([^)\s#]+)|(?:src|href)=\"([^\"#]+)", page.read_text())
            for link in link
            if link and "://" not in link and not link.startswith("mailto:")
        }
    )
    for page in PAGES
}


@pytest.mark.parametrize(("page", "link"), [(page, link) for page, links in LINKS.items() for link in links])
def test_every_file_that_the_pages_link_to_exists(page: Path, link: str):
    assert (page.parent / link).exists()


@functools.cache
def help_of(subcommand: str) -> str:
    """What `pix2seqd SUBCOMMAND --help` prints."""
    text = io.StringIO()
    app([subcommand, "--help"], console=Console(file=text, width=200))
    return text.getvalue()


@pytest.mark.parametrize("command", of_pages({page: commands(page) for page in PAGES}))
def test_every_command_in_the_pages_has_its_subcommand_and_its_options(command: str):
    _, subcommand, *arguments = shlex.split(command, comments=True)
    assert subcommand in list(app)
    # `train` and `ablate` also take the settings of a recipe, such as --train.steps.
    settings = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(config.Recipe)]
    for option in (argument.split("=")[0] for argument in arguments if argument.startswith("--")):
        known = subcommand in ("train", "ablate") and option.split(".")[0] in settings
        assert known or re.search(rf"{option}\b", help_of(subcommand)), f"{subcommand} has no {option}"


def test_the_first_commands_of_the_readme_are_the_main_job_and_the_tests():
    """`.ci/run` runs these two."""
    block = blocks(ROOT / "README.md", "sh")[0]
    lines = [line for line in block.splitlines() if line.strip() and not line.startswith("#")]
    main_job, tests = (line.partition("#")[0].strip() for line in lines)
    assert main_job.startswith("pip install -e . && pix2seqd segment ")
    assert tests == 'pip install -e ".[test]" && pytest'


def test_table_of_models_in_the_readme_is_current():
    """`pix2seqd models --markdown` prints it."""
    assert f"\n\n{cards.markdown(cards.bundled())}\n\n" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", of_pages({page: blocks(page, "python") for page in PAGES}))
def test_python_in_the_pages_compiles_and_imports_what_exists(block: str):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pix2seqd"):
            for alias in node.names:
                resolve(f"{node.module}.{alias.name}")


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages speak of: a (small) picture by several names, a trained model."""
    folder = tmp_path_factory.mktemp("newcomer")
    (folder / "examples").mkdir()
    with Image.open(ROOT / "examples" / "nuclei.png") as picture:
        for name in ("examples/nuclei.png", "cells.png"):
            picture.crop((0, 0, 96, 96)).save(folder / name)
    (folder / "runs" / "nuclei").mkdir(parents=True)
    (folder / "runs" / "nuclei" / "model").symlink_to(BUNDLED / "nuclei")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("block", of_pages({page: blocks(page, "python") for page in PAGES}))
def test_python_in_the_pages_runs(block: str, newcomer: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(newcomer)
    exec(compile(block, "page", "exec"), {})


@pytest.mark.parametrize("block", of_pages({page: blocks(page, "yaml") for page in PAGES}))
def test_settings_files_in_the_pages_are_understood(block: str, tmp_path: Path):
    from pix2seqd.cli.recipe import read_recipe

    (tmp_path / "mine.yaml").write_text(block)
    recipe = read_recipe(["nuclei", str(tmp_path / "mine.yaml")])
    assert set(yaml.safe_load(block)) <= set(recipe.to_dict())


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Public classes, functions and methods of a module, by name."""
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{node.name}.")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_public_objects_have_docstrings(path: Path):
    text = path.read_text()
    tree = ast.parse(text)
    assert not text or ast.get_docstring(tree), "the module has no docstring"
    bare = [name for name, node in public(tree.body) if not ast.get_docstring(node)]
    assert not bare, "no docstring"
