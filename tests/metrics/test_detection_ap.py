import math
from dataclasses import replace

import numpy as np
import pytest

from pix2seqd.metrics.detection_ap import DetectionAP
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Category, Taxonomy

EXPECTED = [0.07596219960325991, 0.19923045085900917, 0.011232373237323732]
"""AP, AP50 and AP75."""
PETS = Taxonomy((Category(30, "cat", True, (1, 1, 1)), Category(41, "dog", True, (2, 2, 2))))


def scored(panoptic: Panoptic, *scores: float | None) -> Panoptic:
    segments = (replace(segment, score=score) for segment, score in zip(panoptic.segments, scores, strict=True))
    return replace(panoptic, segments=tuple(segments))


def row(*runs):
    """One line of pixels from (id, length) runs."""
    return [[segment for segment, length in runs for _ in range(length)]]


def pair(seed: int) -> tuple[Panoptic, Panoptic]:
    """Truth and prediction, 40 × 40 pixels: blocks, of which some moved, some are missing and some are new."""
    rng = np.random.default_rng(seed)
    truth, found = np.zeros((2, 40, 40), np.int32)
    for number in range(16):
        top, left = 10 * (number // 4), 10 * (number % 4)
        down, right = rng.integers(0, 3, 2)
        if rng.random() < 0.8:
            truth[top : top + 7, left : left + 7] = number + 1
        if rng.random() < 0.8:
            found[top + down : top + down + 7, left + right : left + right + 6] = number + 1
    classes = {i: 1 + (i % 3 == 0) for i in range(1, 17)}
    wrong = {i: 3 - c if rng.random() < 0.1 else c for i, c in classes.items()}
    scores = dict(zip(range(1, 17), (rng.permutation(1001)[:16] / 1000).tolist(), strict=True))
    return (
        Panoptic.from_segmentation(truth, classes, PETS),
        Panoptic.from_segmentation(found, wrong, PETS, scores=scores),
    )


def test_detection_ap_equals_pycocotools():
    """Numbers of COCOeval (pycocotools 2.0.11, segm, maxDets 1000). No pair has an IoU that equals a threshold."""
    metric = DetectionAP(PETS)
    for seed in range(6):
        metric.update(*pair(seed))
    result = metric.compute()
    assert [result["ap"], result["ap50"], result["ap75"]] == pytest.approx(EXPECTED, abs=1e-9)


def test_detection_ap_right_order_is_better(scene, taxonomy):
    truth = scene(row((1, 4), (2, 4), (0, 4)), {1: 3, 2: 3})
    found = scene(row((1, 4), (2, 4), (3, 4)), {1: 3, 2: 3, 3: 3})
    results = []
    for scores in ((0.9, 0.8, 0.1), (0.5, 0.5, 0.5), (0.2, 0.3, 0.9), (None, None, None)):
        metric = DetectionAP(taxonomy)
        metric.update(truth, scored(found, *scores))
        results.append(metric.compute()["ap50"])
    assert results == pytest.approx([1, 2 / 3, 2 / 3, 2 / 3])


def test_detection_ap_stuff_crowds_and_nothing(scene, taxonomy):
    empty = DetectionAP(taxonomy).compute()
    assert math.isnan(empty["ap"]) and math.isnan(empty["calibration_error"]) and not empty["reliability"]
    metric = DetectionAP(taxonomy)
    metric.update(scene(row((1, 4), (9, 4)), {1: 3, 9: 1}, crowds=(1,)), scene(row((0, 4), (9, 4)), {9: 1}))
    assert math.isnan(metric.compute()["ap"])


def test_detection_ap_calibration(scene, taxonomy):
    """Of four with the score 0.75 three are right, of two with 0.2 none."""
    truth = scene(row((1, 2), (2, 2), (3, 2), (0, 6)), {1: 3, 2: 3, 3: 4})
    found = scene(row((1, 2), (2, 2), (3, 2), (4, 2), (5, 2), (6, 2)), dict.fromkeys((1, 2, 4, 5, 6), 3) | {3: 4})
    metric = DetectionAP(taxonomy)
    metric.update(truth, scored(found, 0.75, 0.75, 0.75, 0.75, 0.2, 0.2))
    result = metric.compute()
    assert result["calibration_error"] == pytest.approx(2 / 6 * 0.2)
    low, high = result["reliability"]
    assert low == pytest.approx({"score": 0.2, "precision": 0, "count": 2})
    assert high == pytest.approx({"score": 0.75, "precision": 0.75, "count": 4})


def test_detection_ap_states_of_several_processes_add_up():
    one, two, both = (DetectionAP(PETS) for _ in range(3))
    for metric, seed in ((one, 1), (two, 2), (both, 1), (both, 2)):
        metric.update(*pair(seed))
    one.state += two.state
    assert one.compute() == both.compute()
