"""Reference scores of the official tools, from the fixtures in the repository.

The fixtures store label maps as run lengths. `python tests/metrics/conftest.py` regenerates them from ../shared.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from pix2seqd.panoptic.panoptic import Panoptic, rgb_to_id
from pix2seqd.panoptic.taxonomy import Category, Taxonomy

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "reference"
FIXTURES = ROOT / "tests" / "fixtures"


class Reference(NamedTuple):
    maps: dict[str, np.ndarray]
    """pq: "gt/IMAGE_ID", "PREDICTION/IMAGE_ID" → segment ids; jf: "osvos/SEQUENCE" (truth), "rvos/SEQUENCE"."""
    records: dict[str, Any]
    """The json files."""


def read_shared(name: str) -> Reference:
    folder = SHARED / name
    if name == "jf":
        stacks = {
            f"{tool.name}/{sequence.name}": np.stack([np.array(Image.open(p)) for p in sorted(sequence.glob("*.png"))])
            for tool in (folder / "osvos", folder / "rvos")
            for sequence in sorted(tool.iterdir())
        }
        return Reference(stacks, {"official": json.loads((folder / "davis2017_evaluation.json").read_text())})
    maps, records = {}, {"official": json.loads((folder / "panopticapi.json").read_text())}
    for path in sorted(folder.glob("*.json")):
        if path.stem == "panopticapi":
            continue
        content = json.loads(path.read_text())
        key = path.stem.removeprefix("pred_")
        records[key] = {k: content[k] for k in ("annotations", "categories") if k in content}
        for annotation in content["annotations"]:
            png = Image.open(folder / path.stem / annotation["file_name"])
            maps[f"{key}/{annotation['image_id']}"] = rgb_to_id(np.asarray(png))
    return Reference(maps, records)


def read_fixture(name: str) -> Reference:
    with np.load(FIXTURES / f"{name}.npz") as stored:
        records = json.loads(bytes(stored["records"]))
        maps = {
            key: np.repeat(stored[f"{key}.values"], stored[f"{key}.lengths"]).reshape(shape)
            for key, shape in records.pop("shapes").items()
        }
    return Reference(maps, records)


def write_fixture(name: str) -> None:
    maps, records = read_shared(name)
    arrays = {}
    for key, values in maps.items():
        flat = values.ravel()
        starts = np.flatnonzero(np.append(True, flat[1:] != flat[:-1]))
        arrays[f"{key}.values"], arrays[f"{key}.lengths"] = flat[starts], np.diff(starts, append=flat.size)
    content = json.dumps({**records, "shapes": {key: value.shape for key, value in maps.items()}})
    arrays["records"] = np.frombuffer(content.encode(), np.uint8)
    np.savez_compressed(FIXTURES / f"{name}.npz", **arrays)


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Reference]:
    """A function name → Reference."""
    return read_fixture


@pytest.fixture(scope="session")
def official_files() -> Callable[[str], Reference]:
    """The same from the files of the official tools."""
    if not SHARED.is_dir():
        pytest.skip("no ../shared/reference")
    return read_shared


@pytest.fixture(scope="session")
def taxonomy() -> Taxonomy:
    """Two stuff and two thing categories, with ids that are not contiguous."""
    names = [(10, "sky", False), (20, "grass", False), (30, "cat", True), (41, "dog", True)]
    return Taxonomy(tuple(Category(i, name, isthing, (i, i, i)) for i, name, isthing in names))


@pytest.fixture(scope="session")
def scene(taxonomy: Taxonomy):
    """A function (rows of segment ids, {id: class}) → Panoptic."""

    def build(rows: Any, classes: dict[int, int], crowds: tuple[int, ...] = ()) -> Panoptic:
        return Panoptic.from_segmentation(np.array(rows, np.int32), classes, taxonomy, crowds)

    return build


@pytest.fixture(scope="session")
def random_scene(scene):
    """A function seed → Panoptic of 8 × 9 pixels with blocks of up to five segments, void and possibly a crowd."""

    def build(seed: int) -> Panoptic:
        rng = np.random.default_rng(seed)
        blocks = np.kron(rng.integers(0, 6, (4, 3)), np.ones((2, 3), int))
        noisy = np.where(rng.random(blocks.shape) < 0.2, rng.integers(0, 6, blocks.shape), blocks)
        classes = {segment: int(rng.integers(1, 5)) for segment in range(1, 6)}
        return scene(noisy, classes, crowds=(5,) if rng.random() < 0.5 else ())

    return build


if __name__ == "__main__":
    for each in ("pq", "jf"):
        write_fixture(each)
