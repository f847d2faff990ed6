import math

import numpy as np
import pytest
from PIL import Image, ImageColor

from pix2seqd.evaluation.plot import (
    LINE,
    MARK,
    Curve,
    _ticks,
    confusion_matrix,
    curves,
    grid,
    reliability,
    scores,
    training_curves,
)


@pytest.mark.parametrize(("low", "high"), [(20.1, 45.5), (0.0, 0.0), (43.9, 43.9), (99.2, 100.0), (0.0, 3.0), (1, 1e5)])
def test_curves_axis_encloses_the_values_with_few_round_ticks(low: float, high: float):
    ticks = _ticks([Curve("a", ["1"], [low]), Curve("b", ["1"], [high])])
    step = float(ticks[1] - ticks[0])
    assert ticks[0] <= low and high <= ticks[-1] and 1 <= len(ticks) - 1 <= 7
    assert any(math.isclose(step / 10 ** math.floor(math.log10(step) + 1e-9), n) for n in (1, 2, 5))


def test_curves_draw_each_point_at_its_value_and_mark_the_default():
    def height_of_mark(value: float) -> int:
        panel = Curve("steps", ["1", "2", "3"], [10.0, value, 30.0], [1.0, 0.0, 2.0], marked="2")
        near = np.abs(np.asarray(curves([panel], "PQ")).astype(int) - ImageColor.getrgb(MARK)).sum(axis=2) < 30
        assert near.any()
        return int(np.argwhere(near)[:, 0].mean())

    assert height_of_mark(28.0) < height_of_mark(20.0) < height_of_mark(12.0), "pixels count from the top"


def test_curves_missing_values_are_left_out():
    image = curves([Curve("a", ["1", "2"], [math.nan, 3.0]), Curve("b", ["1"], [math.nan])], "PQ")
    assert image.size[0] == 2 * curves([Curve("a", ["1"], [1.0])], "PQ").size[0]


def test_reliability_draws_each_bar_at_its_score_and_precision():
    def place(score: float, precision: float) -> np.ndarray:
        image = np.asarray(reliability([{"score": score, "precision": precision, "count": 3}])).astype(int)
        return np.argwhere(np.abs(image - ImageColor.getrgb(LINE)).sum(axis=2) < 30).mean(axis=0)

    (row, column), (lower, right) = place(0.3, 0.8), place(0.6, 0.2)
    assert lower > row and right > column
    side = (right - column) / 0.3
    assert (lower - row) / side == pytest.approx(0.6, abs=0.02), "both axes have one scale"
    assert reliability([]).size == reliability([{"score": 1.0, "precision": 1.0, "count": 1}]).size


def test_grid_shows_every_image():
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)]
    images = [Image.new("RGB", (30, 20), color) for color in colors]
    shown = np.asarray(grid([images[:2], images[2:]], ["b = 1", "b = 0.1"], ["t = 0", "t = 1"]))
    for color in colors:
        assert (shown == color).all(axis=2).sum() == 30 * 20


def blue(image: Image.Image) -> int:
    """Number of pixels of the bars' and curves' colour."""
    pixels = np.asarray(image).astype(int)
    return int((np.abs(pixels - ImageColor.getrgb(LINE)).max(axis=2) < 30).sum())


def test_scores_draw_longer_bars_for_higher_values():
    classes, pixels = ["void", "cat", "$dog_"], [[0, 0, 0], [0, 9, 1], [2, 0, 8]]
    low, high = (scores(classes[1:], [value, float("nan")], classes, pixels) for value in (0.1, 0.9))
    low, high = (blue(image.crop((0, 0, image.width * 2 // 5, image.height))) for image in (low, high))  # the bars
    assert high > 4 * low > 0


def test_confusion_matrix_is_dark_where_classes_meet():
    def darkness(pixels: list[list[int]]) -> float:
        return float(255 - np.asarray(confusion_matrix(["void", "cat", "dog"], pixels).convert("L")).mean())

    right, spread = [[0, 0, 0], [0, 9, 0], [0, 0, 9]], [[0, 0, 0], [3, 3, 3], [3, 3, 3]]
    assert darkness(right) != pytest.approx(darkness(spread), rel=0.01)
    assert min(confusion_matrix([str(i) for i in range(60)], np.eye(60, dtype=int).tolist()).size) > 1000


def test_training_curves_draw_what_is_known():
    nothing = training_curves([], [], [], {"cat": []})
    some = training_curves([(1, 2.0), (2, 1.0)], [1, 2], [0.1, 0.9], {"cat": [0.1, 0.9], "_dog": [float("nan")] * 2})
    assert blue(some) > blue(nothing) + 100
