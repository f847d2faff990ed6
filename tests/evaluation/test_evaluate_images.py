import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from pix2seqd.checkpoint import Checkpoint
from pix2seqd.config import DataConfig, InferConfig
from pix2seqd.data.sample import Sample
from pix2seqd.data.synthetic.shapes import TAXONOMY, Shapes
from pix2seqd.evaluation.images import class_table, evaluate, evaluate_min_scores, render
from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Category, Taxonomy
from pix2seqd.segmenter import Segmenter

DATA = Shapes(4, (40, 56))


class Oracle:
    """A segmenter that returns the ground truth, or void for the images `blind`."""

    def __init__(self, taxonomy: Taxonomy = TAXONOMY, blind: tuple[int, ...] = ()) -> None:
        self.taxonomy, self.blind = taxonomy, blind
        self.options: dict[str, Any] = {}

    def images(self, sources: Iterator[np.ndarray], **options: Any) -> Iterator[Panoptic]:
        self.options = options
        for number, image in enumerate(sources):
            assert np.array_equal(image, DATA[number].image)
            truth = replace(DATA[number].panoptic, taxonomy=self.taxonomy)
            void = Panoptic.from_segmentation(np.zeros_like(truth.segmentation), {}, self.taxonomy)
            yield void if number in self.blind else truth


def scored(*blind: int, **options: Any) -> dict[str, Any]:
    return evaluate(Oracle(blind=blind), DATA, **options)  # type: ignore[arg-type]


def test_evaluate_ground_truth_scores_1_and_void_0():
    result = scored()["all"]
    assert result["images"] == 4
    assert result["panoptic_quality"]["All"]["pq"] == 1
    assert result["average_precision"]["thresholds"]["0.95"]["ap"] == 1
    assert result["mean_iou"]["mean_iou"] == 1
    nothing = scored(0, 1, 2, 3)["all"]
    assert nothing["panoptic_quality"]["All"]["pq"] == 0
    assert nothing["average_precision"]["thresholds"]["0.50"]["ap"] == 0


@pytest.mark.parametrize(("right", "wrong", "limit"), [(0.6, 0.25, 0.3), (0.25, 0.1, 0.2), (None, 0.9, 0.0)])
def test_evaluate_min_scores_leaves_out_what_is_mostly_wrong(right: float | None, wrong: float, limit: float):
    class Unsure(Oracle):
        def images(self, sources: Iterator[np.ndarray], **options: Any) -> Iterator[Panoptic]:
            for number, truth in enumerate(super().images(sources, **options)):
                # The segments of the last two images are upside down, and the model is less sure of them.
                found = replace(truth, segmentation=truth.segmentation[::-1]) if number > 1 else truth
                score = wrong if number > 1 else right
                yield replace(found, segments=tuple(replace(segment, score=score) for segment in truth.segments))

    segmenter = Unsure()
    best, result = evaluate_min_scores(segmenter, DATA)  # type: ignore[arg-type]
    assert best == limit and segmenter.options == {"min_score": 0.0}
    assert result["images"] == 4
    if limit:
        assert result["panoptic_quality"] == scored(2, 3)["all"]["panoptic_quality"]


def test_evaluate_groups():
    result = scored(1, 3, groups=["light", "dark", "light", "dark"])
    assert list(result) == ["all", "light", "dark"]
    assert [part["images"] for part in result.values()] == [4, 2, 2]
    quality = [part["panoptic_quality"]["All"]["pq"] for part in result.values()]
    assert quality[1:] == [1, 0]
    assert 0 < quality[0] < 1
    assert scored(groups=["all"] * 4)["all"]["images"] == 4, "a group may be named all"


def test_evaluate_passes_options_and_progress():
    oracle, seen = Oracle(), []

    def progress(samples: Iterator[Any]) -> Iterator[Any]:
        for sample in samples:
            seen.append(sample)
            yield sample

    evaluate(oracle, DATA, progress=progress, seed=3, steps=2)  # type: ignore[arg-type]
    assert oracle.options == {"seed": 3, "steps": 2}
    assert len(seen) == len(DATA)


@pytest.mark.parametrize("change", ["name", "kind", "id", "fewer"])
def test_evaluate_rejects_other_categories(change: str):
    first, second, *rest = TAXONOMY.categories
    other = {
        "name": (Category(first.id, "fog", first.isthing, first.color), second, *rest),
        "kind": (Category(first.id, first.name, not first.isthing, first.color), second, *rest),
        "id": (Category(77, first.name, first.isthing, first.color), second, *rest),
        "fewer": (first, second),
    }[change]
    with pytest.raises(InputError, match="categories") as error:
        evaluate(Oracle(Taxonomy(other)), DATA)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    assert ("fog" in str(error.value)) == (change == "name")


@pytest.mark.parametrize("change", ["order", "more", "colours"])
def test_evaluate_maps_the_same_categories(change: str):
    first, second, *rest = TAXONOMY.categories
    other = {
        "order": (second, *rest, first),
        "more": (Category(99, "fog", False, (1, 2, 3)), *TAXONOMY.categories),
        "colours": tuple(Category(c.id, c.name, c.isthing, (1, 2, 3)) for c in TAXONOMY.categories),
    }[change]
    oracle = Oracle(Taxonomy(other), blind=(1,))
    result, expected = (evaluate(each, DATA)["all"]["panoptic_quality"] for each in (oracle, Oracle(blind=(1,))))  # type: ignore[arg-type]
    assert result["All"] == pytest.approx(expected["All"])
    for category, scores in expected["per_class"].items():
        assert json.dumps(result["per_class"][category]) == json.dumps(scores)


def test_evaluate_independent_of_batch_size(tiny, build):
    model = build(tiny.replace(mask={"bits": (4, 3), "classes": 10}))
    checkpoint = Checkpoint(model, TAXONOMY, DataConfig(size=(32, 48)), InferConfig(steps=1, min_pixels=0))
    segmenter = Segmenter(checkpoint, "cpu", "float32")
    one, many = (evaluate(segmenter, DATA, seed=1, batch_size=size) for size in (1, 3))
    assert json.dumps(one) == json.dumps(many), "compared as text, because nan != nan"
    things = one["all"]["average_precision"]["thresholds"]["0.50"]
    assert things["tp"] + things["fn"] == sum(s.isthing for i in range(4) for s in DATA[i].panoptic.segments)


def test_render_groups_categories_and_percent():
    odd = Taxonomy((Category(1, "cell [b]", True, (0, 0, 0)), Category(2, "never", False, (9, 9, 9))))
    half = Panoptic.from_segmentation(np.array([[1, 1, 0, 2]]), {1: 1, 2: 1}, odd)
    found = Panoptic.from_segmentation(np.array([[1, 1, 0, 0]]), {1: 1}, odd)
    oracle = SimpleNamespace(taxonomy=odd, images=lambda sources, **_: (found for _ in sources))
    data = [Sample("x", np.zeros((1, 4, 3), np.uint8), half)]
    dataset = type("Data", (list,), {"taxonomy": odd})(data)
    results = evaluate(oracle, dataset, groups=["[red]"])  # type: ignore[arg-type]
    text = io.StringIO()
    Console(file=text, width=120).print(render(results))
    assert "[red]" in text.getvalue()
    row = next(line for line in text.getvalue().splitlines() if "cell [b]" in line)
    # One of two found: PQ = RQ = 1 / (1 + 1/2), SQ = 1, tp fp fn.
    assert [cell.strip() for cell in row.strip("│ ").split("│")] == ["cell [b]", "66.7", "100.0", "66.7", "1", "0", "1"]
    assert "–" in next(line for line in text.getvalue().splitlines() if "never" in line)


def test_evaluate_confusion_matrix_and_class_table():
    results = scored(1, groups=["a", "b", "a", "b"])
    confusion = results["all"]["confusion"]
    pixels = np.array(confusion["pixels"])
    assert confusion["classes"] == ["void", *(c.name for c in TAXONOMY.categories)]
    assert pixels.sum() == 4 * 40 * 56 and pixels[1:, 0].sum() > 0 and pixels[:, 1:].sum() == np.diag(pixels)[1:].sum()
    rows = list(csv.DictReader(io.StringIO(class_table(results, TAXONOMY))))
    assert [row["images"] for row in rows] == ["all"] * 9 + ["a"] * 9 + ["b"] * 9
    for row, scores in zip(rows, results["all"]["panoptic_quality"]["per_class"].values(), strict=False):
        assert row["category"] == scores["name"] and row["kind"] in ("thing", "stuff")
        assert (row["pq"] == "") == (scores["pq"] != scores["pq"]) and int(row["fn"]) == scores["fn"]
        assert row["pq"] == "" or float(row["pq"]) == pytest.approx(scores["pq"])


def test_class_table_has_no_formulas():
    first, *rest = TAXONOMY.categories
    taxonomy = Taxonomy((replace(first, name="=1+1"), *rest))
    results = {"-a": scored()["all"]}  # the table takes numbers by the categories' ids
    row = next(csv.DictReader(io.StringIO(class_table(results, taxonomy))))
    assert (row["images"], row["category"]) == ("'-a", "'=1+1")
