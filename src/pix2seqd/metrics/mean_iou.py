"""Mean intersection over union of the classes, from a confusion matrix."""

from typing import Any

import numpy as np

from pix2seqd.metrics.overlap import check_categories, check_sizes, mean_of_present
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import VOID, Taxonomy

MAX_CONFUSED = 300
"""Categories up to which the confusion matrix is kept; it grows with the square of their number."""


def iou_per_class(confusion: np.ndarray) -> np.ndarray:
    """IoU of each class from a confusion matrix.

    Args:
        confusion: pixel counts `[n + 1, n + 1]`; rows are true classes, columns predicted classes, 0 is void.

    Returns:
        float64 `[n + 1]`, nan for classes that occur neither in truth nor in prediction. True void is ignored. Void
        predicted on labelled pixels counts as an error, and then entry 0 is 0; otherwise it is nan.
    """
    confusion = confusion.astype(np.float64)
    confusion[VOID] = 0
    hit = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - hit
    return hit / np.where(union > 0, union, np.nan)


class MeanIoU:
    """Running mean IoU of a data set.

    Attributes:
        taxonomy: the categories.
        state: the confusion matrix, int64 `[n + 1, n + 1]`; rows are true classes, columns predicted classes, 0 is
            void. Above `MAX_CONFUSED` categories int64 `[3, n + 1]`: for each class the labelled pixels that are true,
            predicted, and both. States of several processes can be added.
    """

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        side = len(taxonomy) + 1
        shape = (side, side) if self.has_matrix else (3, side)
        self.state = np.zeros(shape, np.int64)

    @property
    def has_matrix(self) -> bool:
        """Whether the state is the confusion matrix."""
        return len(self.taxonomy) <= MAX_CONFUSED

    def update(self, truth: Panoptic, prediction: Panoptic) -> None:
        """Count the pixels of one image; a `ValueError` if the sizes or the categories differ."""
        check_categories(self.taxonomy, truth.taxonomy, "truth")
        check_categories(self.taxonomy, prediction.taxonomy, "prediction")
        check_sizes(truth.segmentation, prediction.segmentation)
        side = len(self.taxonomy) + 1
        true, predicted = truth.class_map().astype(np.int64), prediction.class_map()
        if self.has_matrix:
            pairs = true * side + predicted
            self.state += np.bincount(pairs.ravel(), minlength=side**2).reshape(side, side)
            return
        labelled = true != VOID
        for row, classes in zip(self.state, (true, predicted, true[true == predicted]), strict=True):
            values = classes if classes.ndim == 1 else classes[labelled]
            row += np.bincount(values.ravel(), minlength=side)

    def compute(self) -> dict[str, Any]:
        """Mean IoU and related scores, each 0..1, over the labelled pixels.

        Returns:
            "mean_iou": mean over the classes that occur in truth or prediction; "pixel_accuracy": share of the labelled
            pixels with the correct class; "per_class": category id → {"name", "iou"}. Undefined values are nan.
        """
        if self.has_matrix:
            iou, labelled = iou_per_class(self.state)[1:], self.state[1:].sum()
            correct = self.state.diagonal()[1:].sum()
        else:
            true, predicted, both = self.state[:, 1:].astype(np.float64)
            union = true + predicted - both
            iou, labelled, correct = both / np.where(union > 0, union, np.nan), true.sum(), both.sum()
        return {
            "mean_iou": mean_of_present(iou),
            "pixel_accuracy": float(correct / labelled) if labelled else float("nan"),
            "per_class": {
                category.id: {"name": category.name, "iou": float(value)}
                for category, value in zip(self.taxonomy.categories, iou, strict=True)
            },
        }
