import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pix2seqd.metrics.panoptic_quality import PanopticQuality
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy

SEEDS = st.integers(0, 2**32 - 1)
PREDICTIONS = ["same", "shift", "void", "class", "merge", "fill", "shift_void_class_merge"]


def pq(taxonomy: Taxonomy, *pairs: tuple[Panoptic, Panoptic]) -> PanopticQuality:
    metric = PanopticQuality(taxonomy)
    for truth, prediction in pairs:
        metric.update(truth, prediction)
    return metric


@pytest.mark.parametrize("name", PREDICTIONS)
def test_panoptic_quality_equals_panopticapi(reference, name):
    maps, records = reference("pq")
    taxonomy = Taxonomy.from_coco(records["gt"]["categories"])

    def panoptic(source, annotation):
        ids = {info["id"]: taxonomy.class_of(info["category_id"]) for info in annotation["segments_info"]}
        crowds = [info["id"] for info in annotation["segments_info"] if info.get("iscrowd")]
        return Panoptic.from_segmentation(maps[f"{source}/{annotation['image_id']}"], ids, taxonomy, crowds)

    truths = {record["image_id"]: panoptic("gt", record) for record in records["gt"]["annotations"]}
    pairs = [(truths[record["image_id"]], panoptic(name, record)) for record in records[name]["annotations"]]
    result = pq(taxonomy, *pairs).compute()
    official = records["official"][name]
    for group in ("All", "Things", "Stuff"):
        assert result[group] == pytest.approx(official[group], abs=1e-9), group
    # The file lists only classes with a score above 0.
    for category_id, values in result["per_class"].items():
        expected = official["per_class"].get(str(category_id), {"pq": 0, "sq": 0, "rq": 0})
        if not math.isnan(values["pq"]):
            assert {key: values[key] for key in expected} == pytest.approx(expected, abs=1e-9), category_id
        assert math.isnan(values["pq"]) == (values["tp"] + values["fp"] + values["fn"] == 0)


def test_panoptic_quality_hand_computed_scene(scene, taxonomy):
    # Sky found with IoU 6/8, one cat found exactly, one cat missed, a false dog.
    truth = scene([[1, 1, 1, 1], [1, 1, 1, 1], [2, 2, 3, 3]], {1: 1, 2: 3, 3: 3})
    prediction = scene([[1, 1, 1, 4], [1, 1, 1, 4], [2, 2, 4, 4]], {1: 1, 2: 3, 4: 4})
    result = pq(taxonomy, (truth, prediction)).compute()
    cat, dog, sky = (result["per_class"][i] for i in (30, 41, 10))
    assert (sky["pq"], sky["sq"], sky["rq"]) == (0.75, 0.75, 1)
    assert (cat["pq"], cat["sq"], cat["rq"], cat["tp"], cat["fn"]) == (1 / 1.5, 1, 1 / 1.5, 1, 1)
    assert (dog["pq"], dog["sq"], dog["rq"], dog["fp"]) == (0, 0, 0, 1)
    assert math.isnan(result["per_class"][20]["pq"])
    assert result["All"]["n"] == 3
    assert result["Stuff"] == {"pq": 0.75, "sq": 0.75, "rq": 1, "n": 1}
    assert result["Things"]["pq"] == pytest.approx(1 / 3)


def test_panoptic_quality_iou_one_half_is_not_a_match(scene, taxonomy):
    truth, prediction = scene([[1, 1, 2]], {1: 3, 2: 1}), scene([[1, 2, 2]], {1: 3, 2: 1})
    cat = pq(taxonomy, (truth, prediction)).compute()["per_class"][30]
    assert (cat["tp"], cat["fp"], cat["fn"]) == (0, 1, 1)


def test_panoptic_quality_ignores_predicted_pixels_on_void(scene, taxonomy):
    truth = scene([[1, 1, 0, 0, 0]], {1: 3})
    # The cat spreads over void (IoU stays 1); the dog lies on void only and is ignored.
    result = pq(taxonomy, (truth, scene([[1, 1, 1, 2, 2]], {1: 3, 2: 4}))).compute()
    assert result["All"] == {"pq": 1, "sq": 1, "rq": 1, "n": 1}
    # Half on void is not more than half: the dog counts as wrong.
    truth = scene([[1, 1, 0]], {1: 1})
    dog = pq(taxonomy, (truth, scene([[1, 2, 2]], {1: 1, 2: 4}))).compute()["per_class"][41]
    assert dog["fp"] == 1


def test_panoptic_quality_crowds(scene, taxonomy):
    truth = scene([[5, 5, 5, 1]], {5: 3, 1: 1}, crowds=(5,))
    cat_on_crowd = scene([[2, 2, 2, 1]], {2: 3, 1: 1})
    dog_on_crowd = scene([[2, 2, 2, 1]], {2: 4, 1: 1})
    counts = pq(taxonomy, (truth, cat_on_crowd)).compute()["per_class"][30]
    assert (counts["tp"], counts["fp"], counts["fn"]) == (0, 0, 0)
    assert pq(taxonomy, (truth, dog_on_crowd)).compute()["per_class"][41]["fp"] == 1


def test_panoptic_quality_empty_is_nan(scene, taxonomy):
    empty = scene([[0, 0]], {})
    result = pq(taxonomy, (empty, empty)).compute()
    assert result["All"]["n"] == 0
    assert math.isnan(result["All"]["pq"])
    assert pq(taxonomy).compute()["Things"]["n"] == 0


@given(SEEDS)
def test_panoptic_quality_truth_against_itself_is_1(random_scene, taxonomy, seed):
    truth = random_scene(seed)
    result = pq(taxonomy, (truth, truth)).compute()["All"]
    assert result["n"] == len({s.category_id for s in truth.segments if not s.iscrowd})
    if result["n"]:
        assert result == {"pq": 1, "sq": 1, "rq": 1, "n": result["n"]}


@given(SEEDS, SEEDS)
def test_panoptic_quality_independent_of_ids(random_scene, taxonomy, first, second):
    truth, prediction = random_scene(first), random_scene(second)
    rename = np.array([0, 900, 30, 7, 70000, 2**23])
    renamed = Panoptic(
        rename[prediction.segmentation].astype(np.int32),
        tuple(sorted((replace(s, id=int(rename[s.id])) for s in prediction.segments), key=lambda s: s.id)),
        taxonomy,
    )
    assert np.array_equal(pq(taxonomy, (truth, prediction)).state, pq(taxonomy, (truth, renamed)).state)


@given(st.lists(st.tuples(SEEDS, SEEDS), min_size=2, max_size=5))
def test_panoptic_quality_sum_of_parts_is_exact(random_scene, taxonomy, seeds):
    pairs = [(random_scene(a), random_scene(b)) for a, b in seeds]
    whole = pq(taxonomy, *pairs)
    parts = pq(taxonomy, *pairs[1:][::-1])
    parts.state += pq(taxonomy, pairs[0]).state
    assert repr(parts.compute()) == repr(whole.compute())


def test_panoptic_quality_rejects_mismatches(scene, taxonomy):
    truth = scene([[1, 1]], {1: 1})
    with pytest.raises(ValueError, match="prediction is 1 × 1 pixels but the truth 1 × 2"):
        pq(taxonomy, (truth, scene([[1]], {1: 1})))
    other = Taxonomy((*taxonomy.categories[:3], replace(taxonomy.categories[3], name="wolf")))
    with pytest.raises(ValueError, match=r"prediction.*number 4 is 41 'wolf' \(thing\) instead of 41 'dog' \(thing\)"):
        pq(taxonomy, (truth, replace(truth, taxonomy=other)))
    shorter = Taxonomy(taxonomy.categories[:3])
    with pytest.raises(ValueError, match=r"truth.*number 4 is missing instead of 41 'dog'"):
        pq(taxonomy, (replace(truth, taxonomy=shorter), truth))
    with pytest.raises(ValueError, match="segment id 9 is in the map of the prediction but has no record"):
        pq(taxonomy, (truth, replace(truth, segmentation=np.array([[1, 9]], np.int32))))


def test_metrics_import_without_torch():
    modules = ["panoptic_quality", "average_precision", "mean_iou", "region_contour", "stq"]
    lines = [f"import pix2seqd.metrics.{name}" for name in modules]
    lines += [
        "import sys",
        "assert not {'torch', 'transformers', 'pix2seqd.data', 'pix2seqd.pix2seq_d'} & set(sys.modules)",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)
