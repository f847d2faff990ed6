import json

import pytest
from PIL import Image

from pix2seqd.files import InputError
from pix2seqd.panoptic.taxonomy import Category, Taxonomy
from pix2seqd.training.results import Results

TAXONOMY = Taxonomy((Category(1, "cat", True, (1, 2, 3)), Category(2, "_lawn $x$", False, (4, 5, 6))))
CONFUSION = {"classes": ["void", "cat", "_lawn $x$"], "pixels": [[0, 0, 0], [1, 8, 1], [0, 2, 8]]}


def result(pq: float) -> dict:
    """An evaluation in which the lawn is never found."""
    quality = {"All": {"pq": pq, "sq": 1.0, "rq": pq}}
    quality["per_class"] = {1: {"name": "cat", "pq": pq}, 2: {"name": "_lawn $x$", "pq": float("nan")}}
    return {"panoptic_quality": quality, "confusion": CONFUSION}


def test_results_keeps_the_best_and_counts_since(tmp_path):
    results = Results(tmp_path, TAXONOMY, 0)
    assert [results.add(step, 1.0, result(pq)) for step, pq in ((5, 0.2), (10, 0.4), (15, 0.4), (20, 0.3))] == [
        True,
        True,
        False,
        False,
    ]
    assert results.best["step"] == 10 and results.waited == 2


def test_results_undefined_pq_is_never_better(tmp_path):
    results = Results(tmp_path, TAXONOMY, 0)
    assert results.add(5, 1.0, result(float("nan"))) and results.add(10, 1.0, result(0.0))
    assert not results.add(15, 1.0, result(float("nan"))) and results.best["step"] == 10


def test_results_written_and_read_again_without_what_came_after_the_state(tmp_path):
    results = Results(tmp_path, TAXONOMY, 0)
    results.losses += [(5, 2.0), (10, 1.0)]
    results.add(5, 3.0, result(0.2))
    results.add(10, 6.0, result(0.6))
    results.write()
    results.draw(result(0.6), [[Image.new("RGB", (20, 10))] * 3] * 2)
    for name in ("results.png", "confusion.png", "predictions.png"):
        assert min(Image.open(tmp_path / name).size) > 100
    assert json.loads((tmp_path / "results.json").read_text())["best"] == 10
    again = Results(tmp_path, TAXONOMY, 7)
    assert again.losses == [(5, 2.0)] and again.best["step"] == 5 and again.waited == 0
    assert Results(tmp_path, TAXONOMY, 0).scores == [], "a new run"


@pytest.mark.parametrize(
    "content",
    [
        *("[]", '{"evaluations": [{}]}', '{"losses": [1]}', '{"losses": [[-1e999, 1]]}', "no json"),
        '{"evaluations": [{"step": 1, "seconds": 1, "pq": 0.5, "per_class": null}]}',
        '{"evaluations": [{"step": 1, "seconds": 1, "pq": 0.5, "per_class": {"cat": "x"}}]}',
    ],
)
def test_results_damaged_file_is_a_one_line_error(tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(InputError, match=r"results\.json"):
        Results(tmp_path, TAXONOMY, 7)
