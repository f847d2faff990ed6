"""What the bundled checkpoints can do, on images they have not been trained on."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pix2seqd.checkpoint import BUNDLED
from pix2seqd.data.synthetic.shapes import Shapes
from pix2seqd.evaluation.images import evaluate
from pix2seqd.segmenter import Segmenter

NUCLEI = Path(__file__).parents[2] / "examples" / "nuclei.png"


@cache
def bundled(name: str) -> Segmenter:
    if not (BUNDLED / name).is_dir():
        pytest.skip(f"no checkpoint {name}")
    return Segmenter.from_pretrained(name, device="cpu")


@pytest.mark.parametrize(
    ("name", "command", "measure"),
    [
        ("nuclei", "pix2seqd train", "pq"),
        ("nuclei-fast", "pix2seqd distill", "pq"),
        ("nuclei-video", "few_steps", "j&f"),
        ("shapes", "pix2seqd train", "pq"),
    ],
)
def test_a_bundled_checkpoint_is_small_and_says_where_it_comes_from(name: str, command: str, measure: str):
    segmenter = bundled(name)
    assert segmenter.describe()["model"] == name
    assert sum(path.stat().st_size for path in (BUNDLED / name).iterdir()) <= 16e6
    card = (BUNDLED / name / "README.md").read_text(encoding="utf-8").lower()
    assert all(word in card for word in ("license", command, measure))


@pytest.mark.parametrize("name", ["nuclei", "nuclei-fast", "nuclei-video", "shapes"])
def test_a_bundled_checkpoint_knows_its_own_images_and_notices_others(name: str):
    """Its statistics belong to its weights: after an exchange of weights, run benchmarks/fit_familiarity.py."""
    segmenter = bundled(name)
    known, size = segmenter.checkpoint.familiarity, segmenter.checkpoint.data.size
    assert known
    page = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(page).multiline_text((10, 10), "not a scene of any kind\n" * 12, "black", ImageFont.load_default(14))
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    own = Shapes(1, size, seed=987)[0].image if name == "shapes" else NUCLEI
    usual = segmenter.checkpoint.data.diameter  # so that the scale need not be estimated
    strange = [known.ood_score(segmenter.feature_statistics(image, usual)) for image in (own, page, noise)]
    assert strange[0] < 0.95 and min(strange[1:]) > 1.05


@pytest.mark.parametrize(
    ("name", "consensus", "side", "least", "most"), [("nuclei", 5, 256, 25, 40), ("nuclei-fast", 1, 512, 90, 140)]
)
def test_nuclei_are_found_in_two_steps(name: str, consensus: int, side: int, least: int, most: int):
    image = Image.open(NUCLEI).crop((0, 0, side, side))
    found = bundled(name).image(image, steps=2, consensus=consensus)
    assert found.segmentation.shape == (side, side)
    areas = [segment.area for segment in found.segments if segment.name == "nucleus"]
    assert least <= len(areas) <= most
    assert 0.1 < sum(areas) / side**2 < 0.4


def test_stuff_and_things_are_told_apart_in_unseen_scenes():
    segmenter = bundled("shapes")
    quality = evaluate(segmenter, Shapes(6, segmenter.checkpoint.data.size, seed=987), consensus=1)["all"]
    assert quality["panoptic_quality"]["Stuff"]["pq"] > 0.75
    assert quality["panoptic_quality"]["Things"]["pq"] > 0.4
