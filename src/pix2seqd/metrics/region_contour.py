"""Region similarity J and contour accuracy F in the unsupervised protocol of DAVIS 2017 (Caelles et al. 2019)."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from pix2seqd.metrics.overlap import check_sizes, mean_of_present

MAX_PROPOSALS = 20
VOID_LABEL = 255
TOLERANCE = 0.008
"""Maximum distance of matching contours, as a share of the image diagonal."""


@dataclass(frozen=True, eq=False)
class SequenceScores:
    """Scores of the objects of one sequence, each with its assigned proposal, ordered by proposal.

    Attributes:
        objects: the true ids, int `[n]`.
        proposals: the predicted ids, int `[n]`; an id without pixels means that the object was not found.
        j: IoU, float64 `[n, frames]`.
        f: F-measure of the contour, float64 `[n, frames]`.
    """

    objects: np.ndarray
    proposals: np.ndarray
    j: np.ndarray
    f: np.ndarray


class RegionContour:
    """Running J and F of a set of videos. All frames of a sequence belong to one process."""

    def __init__(self) -> None:
        self.scores: dict[str, SequenceScores] = {}

    def __add__(self, other: "RegionContour") -> "RegionContour":
        """The metric of both sets of sequences; a `ValueError` if one is in both."""
        if twice := sorted(self.scores.keys() & other.scores.keys()):
            raise ValueError(f"sequence {twice[0]} was counted twice")
        result = RegionContour()
        result.scores = self.scores | other.scores
        return result

    def update(
        self,
        sequence: str,
        truth: Iterable[np.ndarray],
        prediction: Iterable[np.ndarray],
        max_proposals: int = MAX_PROPOSALS,
    ) -> None:
        """Count one whole sequence.

        Args:
            sequence: name of the sequence.
            truth: frames of object ids, integers `[h, w]`; 0 = background, 255 = void, which is ignored. The objects
                are 1 to the highest id of the first frame; other ids are background.
            prediction: the same number of frames of proposal ids 0..max_proposals, consistent over the frames.
            max_proposals: maximum number of proposals; the protocol allows 20.

        Raises:
            ValueError: there is no frame; the number or size of frames differs; an id is above `max_proposals`; the
                sequence was counted before.
        """
        if sequence in self.scores:
            raise ValueError(f"sequence {sequence} was counted twice")
        try:
            self.scores[sequence] = score_sequence(truth, prediction, max_proposals)
        except ValueError as error:
            raise ValueError(f"sequence {sequence}: {error}") from error

    def compute(self) -> dict[str, Any]:
        """Means, recalls (share of frames above 0.5) and decays (first minus last quarter) over frames.

        Returns:
            "global": means over all objects: "J&F-Mean", "J-Mean", "J-Recall", "J-Decay", and likewise for F;
            "sequences": name → {"J_per_object" (means), "J_recall_per_object", "J_decay_per_object", likewise for F,
            "objects", "proposals"}, each with keys "NAME_1", "NAME_2" … As in the official tool, these numbers follow
            the order of the proposals; "objects" and "proposals" hold the ids in the files. nan without objects.
        """
        sequences: dict[str, dict[str, dict[str, Any]]] = {}
        columns: dict[str, list[float]] = {f"{m}-{s}": [] for m in "JF" for s in ("Mean", "Recall", "Decay")}
        for name in sorted(self.scores):
            scores = self.scores[name]
            keys = [f"{name}_{number}" for number in range(1, len(scores.objects) + 1)]
            table: dict[str, dict[str, Any]] = {}
            for letter, values in (("J", scores.j), ("F", scores.f)):
                statistics = np.array([_statistics(value) for value in values]).reshape(-1, 3)
                for what, column in zip(("Mean", "Recall", "Decay"), statistics.T.tolist(), strict=True):
                    columns[f"{letter}-{what}"] += column
                    part = "" if what == "Mean" else f"_{what.lower()}"
                    table[f"{letter}{part}_per_object"] = dict(zip(keys, column, strict=True))
            table["objects"] = dict(zip(keys, scores.objects.tolist(), strict=True))
            table["proposals"] = dict(zip(keys, scores.proposals.tolist(), strict=True))
            sequences[name] = table
        overall = {key: mean_of_present(np.array(column)) for key, column in columns.items()}
        return {"global": {"J&F-Mean": (overall["J-Mean"] + overall["F-Mean"]) / 2, **overall}, "sequences": sequences}


def score_sequence(
    truth: Iterable[np.ndarray], prediction: Iterable[np.ndarray], max_proposals: int = MAX_PROPOSALS
) -> SequenceScores:
    """Score all proposals against all objects in every frame, then assign them one to one by the mean of J and F.

    See `RegionContour.update`.
    """
    objects, used = -1, 0
    j, f = [], []
    for number, (true, predicted) in enumerate(zip_longest(truth, prediction), start=1):
        if true is None or predicted is None:
            raise ValueError(f"the {'truth' if true is None else 'prediction'} has only {number - 1} frames")
        check_sizes(true, predicted)
        if objects < 0:
            objects = int(true[true != VOID_LABEL].max(initial=0))
        lowest, highest = int(predicted.min(initial=0)), int(predicted.max(initial=0))
        if lowest < 0 or highest > max_proposals:
            wrong = lowest if lowest < 0 else highest
            raise ValueError(f"frame {number} has proposal id {wrong}; keep at most {max_proposals}, numbered from 1")
        used = max(used, highest)
        void = true == VOID_LABEL
        true_ids = np.where((true > objects) | void, 0, true).astype(np.intp)
        predicted_ids = np.where(void, 0, predicted).astype(np.intp)
        slots = max(objects, max_proposals)
        j.append(_region(true_ids, predicted_ids, objects, slots))
        f.append(_contour(true_ids, predicted_ids, objects, slots))
    if objects < 0:
        raise ValueError("it has no frame")
    # [proposals, objects, frames]; if there are fewer proposals than objects, the missing ones are empty.
    j_all, f_all = (np.stack(values, axis=-1)[: max(used, objects)] for values in (j, f))
    rows, columns = linear_sum_assignment(-(j_all.mean(-1) + f_all.mean(-1)) / 2)
    return SequenceScores(columns + 1, rows + 1, j_all[rows, columns], f_all[rows, columns])


def _region(truth: np.ndarray, prediction: np.ndarray, objects: int, proposals: int) -> np.ndarray:
    """IoU of each pair, float64 `[proposals, objects]`; 1 where both are empty."""
    pairs = np.bincount((prediction * (objects + 1) + truth).ravel(), minlength=(proposals + 1) * (objects + 1))
    pairs = pairs.reshape(proposals + 1, objects + 1)
    shared = pairs[1:, 1:]
    union = pairs[1:].sum(1)[:, None] + pairs[:, 1:].sum(0)[None] - shared
    return np.where(union == 0, 1.0, shared / np.maximum(union, 1))


def _contour(truth: np.ndarray, prediction: np.ndarray, objects: int, proposals: int) -> np.ndarray:
    """F-measure of each pair's contours, float64 `[proposals, objects]`; 1 where both are empty."""
    radius = int(np.ceil(TOLERANCE * np.hypot(*truth.shape)))
    true_edge = _boundary(_bit_planes(truth, objects))
    predicted_edge = _boundary(_bit_planes(prediction, proposals))
    # Only contour pixels are compared. Each is a 0/1 vector over the objects, so matrix products count the matches.
    where = np.nonzero(np.bitwise_or.reduce(np.concatenate([true_edge, predicted_edge])))
    true, near_true = (_unpack(bits, where, objects) for bits in (true_edge, _dilate(true_edge, radius)))
    predicted, near_predicted = (
        _unpack(bits, where, proposals) for bits in (predicted_edge, _dilate(predicted_edge, radius))
    )
    true_length, predicted_length = true.sum(1)[None], predicted.sum(1)[:, None]
    precision = predicted @ near_true.T / np.maximum(predicted_length, 1)
    recall = near_predicted @ true.T / np.maximum(true_length, 1)
    f = 2 * precision * recall / np.where(precision + recall > 0, precision + recall, 1)
    return np.where((true_length == 0) & (predicted_length == 0), 1.0, f)


def _bit_planes(labels: np.ndarray, count: int) -> np.ndarray:
    """Labels 0..count `[h, w]` → uint8 `[ceil(count / 8), h, w]`, where bit k - 1 of a pixel means "label is k".

    Each following operation then processes eight objects per byte.
    """
    table = np.packbits(np.eye(count + 1, dtype=np.uint8)[:, 1:], axis=1, bitorder="little")
    return np.take(table.T, labels, axis=1)


def _unpack(planes: np.ndarray, where: tuple[np.ndarray, ...], count: int) -> np.ndarray:
    """The bits at some pixels, float64 `[count, pixels]`."""
    return np.unpackbits(planes[:, *where], axis=0, count=count, bitorder="little").astype(np.float64)


def _boundary(planes: np.ndarray) -> np.ndarray:
    """Pixels that differ from their right, lower or lower right neighbour, if it exists (Martin's seg2bmap)."""
    edge = np.zeros_like(planes)
    edge[:, :, :-1] |= planes[:, :, :-1] ^ planes[:, :, 1:]
    edge[:, :-1] |= planes[:, :-1] ^ planes[:, 1:]
    edge[:, :-1, :-1] |= planes[:, :-1, :-1] ^ planes[:, 1:, 1:]
    return edge


def _dilate(planes: np.ndarray, radius: int) -> np.ndarray:
    """Dilation by the disk x² + y² ≤ radius², row by row; the horizontal spread widens from the pole to the equator."""
    height, width = planes.shape[1:]
    spread, result, half = planes.copy(), np.zeros_like(planes), 0
    for dy in range(radius, -1, -1):
        while (half + 1) ** 2 + dy**2 <= radius**2:
            half += 1
            if half < width:
                spread[:, :, half:] |= planes[:, :, :-half]
                spread[:, :, :-half] |= planes[:, :, half:]
        if dy < height:
            result[:, dy:] |= spread[:, : height - dy]
            result[:, : height - dy] |= spread[:, dy:]
    return result


def _statistics(values: np.ndarray) -> tuple[float, float, float]:
    """Mean, recall and decay of one object's values `[frames]`."""
    quarters = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    decay = values[: quarters[1] + 1].mean() - values[quarters[3] :].mean()
    return float(values.mean()), float((values > 0.5).mean()), float(decay)
