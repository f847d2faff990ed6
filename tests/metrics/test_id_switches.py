import numpy as np
import pytest

from pix2seqd.metrics.id_switches import IdSwitches
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Category, Taxonomy

TAXONOMY = Taxonomy((Category(1, "cell", True, (9, 9, 9)), Category(2, "ground", False, (0, 0, 0))))


def frame(*ids: int) -> Panoptic:
    """Cells in a row, ten pixels each; 0 is ground, which has the id 99."""
    row = np.repeat(np.where(np.array(ids) == 0, 99, ids), 10)[None]
    return Panoptic.from_segmentation(row, {99: 2, **{i: 1 for i in ids if i}}, TAXONOMY)


@pytest.mark.parametrize(
    ("truth", "prediction", "switches", "found", "visible"),
    [
        ([(1, 2)] * 3, [(7, 8)] * 3, 0, 6, 6),
        ([(1, 2)] * 3, [(7, 8), (8, 7), (8, 7)], 2, 6, 6),
        ([(1, 0)] * 3, [(7, 0), (0, 0), (8, 0)], 1, 2, 3),  # lost, then found with another id
        ([(1, 0), (0, 0), (1, 0)], [(7, 0), (0, 0), (7, 0)], 0, 2, 2),  # left and returned
        ([(1, 1)] * 2, [(7, 8), (8, 7)], 0, 0, 2),  # each half has an IoU of 0.5
    ],
)
def test_id_switches_hand_computed_sequences(truth, prediction, switches, found, visible):
    metric = IdSwitches(TAXONOMY)
    for true, predicted in zip(truth, prediction, strict=True):
        metric.update("a", frame(*true), frame(*predicted))
    result = metric.compute()
    assert (result["switches"], result["found"], result["visible"]) == (switches, found, visible)


def test_id_switches_sequences_are_separate():
    metric = IdSwitches(TAXONOMY)
    metric.update("a", frame(1), frame(7))
    metric.update("b", frame(1), frame(8))
    assert metric.compute()["switches"] == 0


def test_id_switches_without_things_is_nan():
    metric = IdSwitches(TAXONOMY)
    metric.update("a", frame(0), frame(0))
    assert np.isnan(metric.compute()["switches_per_100_found"])
