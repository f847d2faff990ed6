"""Segmentation and tracking quality (STQ) of KITTI-STEP (Weber et al. 2021); equal to deeplab2."""

from typing import Any

import numpy as np

from pix2seqd.metrics.mean_iou import iou_per_class
from pix2seqd.metrics.overlap import check_sizes, mean_of_present
from pix2seqd.panoptic.runs import Runs, group_sum, shared_pixels
from pix2seqd.panoptic.taxonomy import Taxonomy


class StepQuality:
    """Running STQ of videos: the geometric mean of association quality (AQ) and segmentation quality (SQ).

    Frames are the mask tensor of the paper (§2): integers `[2, h, w]`, where channel 0 is the contiguous class 1..n,
    channel 1 the track id, and void is 0 in both. A true thing with id 0 is a crowd; its pixels count in SQ only.

    Attributes:
        taxonomy: the categories.
        counts: sequence → int64 `[5, m]`: true class, true id, predicted class, predicted id, number of pixels. The
            frames of a sequence can be counted in several processes.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self.counts: dict[str, np.ndarray] = {}

    def __add__(self, other: "StepQuality") -> "StepQuality":
        """The metric of both sets of frames."""
        result = StepQuality(self.taxonomy)
        for part in (self, other):
            for sequence, counts in part.counts.items():
                result._count(sequence, counts)
        return result

    def update(self, sequence: str, truth: np.ndarray, prediction: np.ndarray) -> None:
        """Count one frame of a sequence, in any order.

        Truth and prediction are integers `[2, h, w]`; tracks belong to one sequence. Different sizes, or a class
        outside 0..n, are a ValueError.
        """
        check_sizes(truth, prediction)
        keys, pixels = shared_pixels(*map(Runs.encode, (*truth, *prediction)))
        for whose, row in (("truth", keys[0]), ("prediction", keys[2])):
            if (outside := row[(row < 0) | (row > len(self.taxonomy))]).size:
                raise ValueError(f"the {whose} has class {outside[0]}, outside 0..{len(self.taxonomy)} (0 = void)")
        self._count(sequence, np.vstack([keys, pixels]))

    def _count(self, sequence: str, counts: np.ndarray) -> None:
        if sequence in self.counts:
            counts = np.hstack([self.counts[sequence], counts])
        self.counts[sequence] = np.vstack(group_sum(counts[:4], counts[4])).astype(np.int64)

    def compute(self) -> dict[str, Any]:
        """STQ, AQ and SQ, each 0..1.

        Returns:
            "STQ", "AQ", "SQ"; "per_class": category id → {"name", "iou"}; "sequences": name → {"STQ", "AQ", "SQ"}.
            AQ is the mean over all true tracks, and SQ the mean IoU over the classes that occur. As in the official
            code, void predicted on labelled pixels adds one class of IoU 0 to SQ. Undefined values are nan.
        """
        total = np.zeros((len(self.taxonomy) + 1,) * 2, np.int64)
        association, tracks = 0.0, 0
        sequences = {}
        for name in sorted(self.counts):
            confusion, quality, number = self._sequence(self.counts[name])
            sequences[name] = _scores(confusion, quality, number)
            total, association, tracks = total + confusion, association + quality, tracks + number
        iou = zip(self.taxonomy.categories, iou_per_class(total)[1:], strict=True)
        return {
            **_scores(total, association, tracks),
            "per_class": {category.id: {"name": category.name, "iou": float(value)} for category, value in iou},
            "sequences": sequences,
        }

    def _sequence(self, counts: np.ndarray) -> tuple[np.ndarray, float, int]:
        """Confusion matrix `[n + 1, n + 1]`, sum of the association quality of true tracks, number of true tracks."""
        true_class, true_id, predicted_class, _, pixels = counts
        confusion = np.zeros((len(self.taxonomy) + 1,) * 2, np.int64)
        np.add.at(confusion, (true_class, predicted_class), pixels)

        thing = np.array(self.taxonomy.things)
        crowd = thing[true_class] & (true_id == 0)
        true, predicted = thing[true_class] & ~crowd, thing[predicted_class] & ~crowd
        true_track, true_area = _tracks(counts[:2], pixels * true)
        _, predicted_area = _tracks(counts[2:4], pixels * predicted)
        shared = pixels * (true & predicted)
        union = np.maximum(true_area + predicted_area - shared, 1)
        quality = shared / union * shared / np.maximum(true_area, 1)
        return confusion, float(quality.sum()), len(np.unique(true_track[true]))


def _tracks(keys: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Track number and total track area of each column (class, id)."""
    _, track = np.unique(keys, axis=1, return_inverse=True)
    area = np.zeros(track.max(initial=-1) + 1, np.int64)
    np.add.at(area, track, pixels)
    return track, area[track]


def _scores(confusion: np.ndarray, association: float, tracks: int) -> dict[str, float]:
    aq = association / tracks if tracks else float("nan")
    sq = mean_of_present(iou_per_class(confusion))
    return {"STQ": float(np.sqrt(aq * sq)), "AQ": aq, "SQ": sq}
