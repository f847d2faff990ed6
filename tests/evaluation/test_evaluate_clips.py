from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pix2seqd.checkpoint import Checkpoint
from pix2seqd.config import DataConfig, InferConfig
from pix2seqd.data.sample import Clip, Sample
from pix2seqd.evaluation.clips import evaluate_video, largest_tracks, object_labels, plot, render, sweep_steps
from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Category, Taxonomy
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.segmenter import Segmenter

TAXONOMY = Taxonomy((Category(1, "cell", True, (9, 9, 9)), Category(2, "ground", False, (0, 0, 0))))


def frame(*ids: int, crowds: tuple[int, ...] = ()) -> Panoptic:
    """Cells in a row, 4 x 4 pixels each; 0 is void, 99 ground."""
    labels = np.kron(np.array([ids]), np.ones((4, 4), int))
    return Panoptic.from_segmentation(labels, {99: 2, **{i: 1 for i in ids if 0 < i < 99}}, TAXONOMY, crowds)


class Clips:
    """Two clips of three frames: two cells move right by their width; in the second clip, a cell enters."""

    taxonomy = TAXONOMY
    truths = (
        (frame(1, 2, 99, 99), frame(99, 1, 2, 99), frame(99, 99, 1, 2)),
        (frame(5, 99, 99, 99), frame(5, 8, 99, 99), frame(5, 99, 8, 99)),
    )

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Clip:
        samples = [Sample(f"{k}", np.zeros((4, 16, 3), np.uint8), truth) for k, truth in enumerate(self.truths[index])]
        return Clip(f"clip {index}", samples)


class Fake:
    """A segmenter whose `video` and `image` return given results."""

    taxonomy = TAXONOMY
    checkpoint = SimpleNamespace(data=DataConfig(ids="reused"))

    def __init__(self, clips: tuple[tuple[Panoptic, ...], ...]) -> None:
        self.clips, self.stills = iter(clips), iter([f for clip in clips for f in clip])
        self.model = self

    def denoise(self) -> None:
        raise AssertionError("there is no model")

    def video(self, frames: Any, **options: Any) -> Any:
        yield from next(self.clips)

    def image(self, image: Any, **options: Any) -> Panoptic:
        return next(self.stills)


def score(predictions: tuple[tuple[Panoptic, ...], ...], **options: Any) -> dict[str, Any]:
    return evaluate_video(Fake(predictions), Clips(), **options)  # type: ignore[arg-type]


def test_evaluate_video_ground_truth_scores_1():
    result = score(Clips.truths)
    assert result["region_contour"]["global"]["J&F-Mean"] == 1
    assert result["step_quality"]["STQ"] == pytest.approx(1)
    assert result["id_switches"]["switches"] == 0
    assert result["id_switches"]["found_share"] == 1
    assert (result["clips"], result["frames"]) == (2, 6)


def test_evaluate_video_swapped_ids():
    """Two cells swap ids in the last frame of the first clip: two switches, and J of both is 0 in that frame."""
    swapped = (*Clips.truths[0][:2], frame(99, 99, 2, 1))
    result = score((swapped, Clips.truths[1]))
    assert result["id_switches"]["switches"] == 2
    assert result["region_contour"]["global"]["J-Mean"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert result["step_quality"]["SQ"] == 1
    assert result["step_quality"]["AQ"] < 1


def test_evaluate_video_baselines_with_and_without_matching():
    """Cells are numbered from the left in each frame. Matching fails when a row of cells moves by their width."""
    stills = (
        (frame(1, 2, 99, 99), frame(99, 1, 2, 99), frame(99, 99, 1, 2)),
        (frame(1, 99, 99, 99), frame(2, 1, 99, 99), frame(2, 99, 1, 99)),
    )
    unmatched, matched = (score(stills, tracking=tracking)["id_switches"]["switches"] for tracking in ("none", "iou"))
    assert unmatched == 1, "5 was 1 and then 2"
    assert matched == 4, (
        "both cells of the first clip twice; the moving cell of the second is alone and keeps its track"
    )


def test_object_labels_things_of_first_frame():
    first, later = object_labels([frame(3, 99, 0, 7, crowds=(7,)), frame(3, 5, 0, 7, crowds=(7,))])
    assert first[0, ::4].tolist() == [1, 0, 255, 255]
    assert later[0, ::4].tolist() == [1, 0, 255, 255]


def test_largest_tracks_max_tracks():
    one, two = largest_tracks([frame(40, 7, 99, 99), frame(7, 7, 99, 0)], max_tracks=1)
    assert one[0, ::4].tolist() == [0, 1, 0, 0]
    assert two[0, ::4].tolist() == [1, 1, 0, 0]


@pytest.fixture
def segmenter(build, tiny) -> Segmenter:
    model: Pix2SeqD = build(tiny.replace(decoder={"past_frames": 1}))
    return Segmenter(Checkpoint(model, TAXONOMY, DataConfig(size=(32, 32)), InferConfig(steps=2)), "cpu", "float32")


def test_evaluate_video_counts_steps(segmenter, set_threads):
    set_threads(1)
    result = evaluate_video(segmenter, Clips(), first_steps=3, steps=1)
    assert (result["first_steps"], result["steps"]) == (3, 1)
    assert "denoise" not in vars(segmenter.model), "the model is restored"


def test_sweep_steps_figure_7(segmenter):
    rows = sweep_steps(segmenter, Clips(), (1, 3), (1,))
    assert [(row["value"], row["first_steps"], row["steps"]) for row in rows["first_steps"]] == [(1, 1, 2), (3, 3, 2)]
    assert [(row["value"], row["first_steps"], row["steps"]) for row in rows["steps"]] == [(1, 2, 1)]
    assert plot(rows, segmenter).width > 0
    assert render({"8/1": rows["steps"][0]}).row_count == 1


def test_evaluate_video_rejects_other_categories():
    class Others(Clips):
        taxonomy = Taxonomy((Category(1, "car", True, (9, 9, 9)),))

    with pytest.raises(InputError, match="categories"):
        evaluate_video(Fake(Clips.truths), Others())  # type: ignore[arg-type]
