"""`Panoptic` from and to the dictionaries of `transformers`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy


def to_segments(panoptic: Panoptic) -> dict[str, Any]:
    """The dictionary that `post_process_panoptic_segmentation` of `transformers` returns.

    Returns:
        "segmentation": int32 `[h, w]`, 0 = void; "segments_info": per segment its "id", "label_id" (position of its
        category in the taxonomy, from 0), "was_fused" (stuff) and "score" (1 where a segment has none).
    """
    return {
        "segmentation": panoptic.segmentation.copy(),
        "segments_info": [
            {
                "id": segment.id,
                "label_id": panoptic.taxonomy.class_of(segment.category_id) - 1,
                "was_fused": not segment.isthing,
                "score": 1.0 if segment.score is None else segment.score,
            }
            for segment in panoptic.segments
        ],
    }


def from_segments(segments: Mapping[str, Any], taxonomy: Taxonomy) -> Panoptic:
    """The inverse of `to_segments`; pixels without a record become void.

    Raises:
        InputError: a label_id is not a position in the taxonomy.
    """
    classes = {int(info["id"]): int(info["label_id"]) + 1 for info in segments["segments_info"]}
    for segment_id, class_index in classes.items():
        if not 1 <= class_index <= len(taxonomy):
            raise InputError(
                f"segment {segment_id} has label_id {class_index - 1}, but there are {len(taxonomy)} categories; "
                "give the taxonomy of the model that made it"
            )
    scores = {int(info["id"]): float(info["score"]) for info in segments["segments_info"] if "score" in info}
    return Panoptic.from_segmentation(np.asarray(segments["segmentation"]), classes, taxonomy, scores=scores)
