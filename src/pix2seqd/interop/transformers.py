"""Our checkpoints in `transformers`: importing this module registers them for its pipeline and auto classes.

`Segmenter` does the work, so the results are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageSegmentation,
    AutoModelForUniversalSegmentation,
    BatchFeature,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES
from transformers.utils.generic import ModelOutput
from transformers.utils.hub import cached_file

from pix2seqd.checkpoint import MODEL_TYPE, Checkpoint, from_pretrained, save_pretrained
from pix2seqd.images.load import Source, load_image
from pix2seqd.images.resize import resize_labels
from pix2seqd.panoptic.taxonomy import VOID
from pix2seqd.segmenter import Segmenter

OUTSIDE = -1
"""Class and id of pixels where an image was padded to the size of the largest in its batch."""


class Pix2SeqDConfig(PreTrainedConfig):
    """config.json as `save_pretrained` writes it; `id2label` names the classes from 0."""

    model_type = MODEL_TYPE

    def __post_init__(self, **kwargs: Any) -> None:
        self.id2label = {i: entry["name"] for i, entry in enumerate(kwargs.get("categories", ()))} or None
        super().__post_init__(**kwargs)


@dataclass
class Pix2SeqDOutput(ModelOutput):
    """What the model returns."""

    masks: Tensor | None = None
    """int64 `[b, 2, h, w]`: class (from 1) and segment id, 0 = void in both, `OUTSIDE` where the batch is padded."""
    scores: Tensor | None = None
    """float64 `[b, n]`: score of the segment with this id, 0 to 1 (`Segment.score`); 0 for ids that are not used."""


class Pix2SeqDForUniversalSegmentation(PreTrainedModel):
    """A checkpoint as a model of `transformers`; its forward pass is `Segmenter.images`."""

    config_class = Pix2SeqDConfig
    main_input_name = "pixel_values"

    def __init__(self, config: Pix2SeqDConfig, checkpoint: Checkpoint, dtype: Any = "auto") -> None:
        super().__init__(config)
        self.network = checkpoint.model
        self.checkpoint = checkpoint
        self.precision = dtype
        self._segmenter: Segmenter | None = None

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, name: str | Path, *_: Any, config: Pix2SeqDConfig | None = None, dtype: Any = "auto", **options: Any
    ) -> Self:
        """Load a folder or a repository of the hub, as strictly as `pix2seqd.checkpoint.from_pretrained`.

        Args:
            name: the folder, or "owner/name".
            config: config of this checkpoint; None: read it.
            dtype: precision of the networks, as `Segmenter` takes it, or torch.float32 or torch.bfloat16.
            options: where to find it (revision, cache_dir, token, local_files_only, ...); others are ignored.

        Raises:
            OSError: not found.
            InputError: damaged, or config and weights do not fit each other.
            ValueError: another precision.
        """
        precision = str(dtype).removeprefix("torch.")
        if precision not in ("auto", "float32", "bfloat16"):
            raise ValueError(f"dtype must be auto, float32 or bfloat16, not {precision}")
        places = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
        place = {key: options[key] for key in places if key in options}
        paths = [cached_file(str(name), file, **place) for file in ("model.safetensors", "config.json")]
        checkpoint = from_pretrained(Path(str(paths[-1])).parent)  # checks what the next line takes on trust
        config = config or Pix2SeqDConfig.from_pretrained(name, **place)
        return cls(config, checkpoint, precision).eval()

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:  # pyright: ignore
        """Write the checkpoint folder again (float32), as `pix2seqd.checkpoint.save_pretrained`."""
        save_pretrained(self.checkpoint, save_directory)

    def forward(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None = None,
        *,
        seed: int = 0,
        **options: Any,
    ) -> Pix2SeqDOutput:
        """Segment a batch of images.

        Args:
            pixel_values: uint8 `[b, 3, h, w]`, RGB, as `Pix2SeqDImageProcessor` makes it.
            pixel_mask: `[b, h, w]`, 1 inside an image and 0 where it was padded at bottom and right.
            seed: seed of each image's noise.
            options: arguments of `Segmenter.images`: steps, td, min_pixels, min_score, classes, batch_size.
        """
        if self._segmenter is None or self._segmenter.device != self.device:
            self._segmenter = Segmenter(self.checkpoint, str(self.device), self.precision)
        batch, _, height, width = pixel_values.shape
        inside = torch.ones(batch, height, width) if pixel_mask is None else pixel_mask
        sizes = [(int(part.any(1).sum()), int(part.any(0).sum())) for part in inside]
        padded = pixel_values.permute(0, 2, 3, 1).cpu().numpy()
        images = [image[:tall, :wide] for image, (tall, wide) in zip(padded, sizes, strict=True)]
        masks = torch.full((batch, 2, height, width), OUTSIDE)
        found = list(self._segmenter.images(images, seed=seed, **options))
        scores = torch.zeros(
            batch, 1 + max((segment.id for each in found for segment in each.segments), default=0), dtype=torch.float64
        )
        for mask, row, (tall, wide), panoptic in zip(masks, scores, sizes, found, strict=True):
            both = np.stack([panoptic.class_map(), panoptic.segmentation])
            mask[:, :tall, :wide] = torch.from_numpy(both)
            for segment in panoptic.segments:
                row[segment.id] = 1.0 if segment.score is None else segment.score
        return Pix2SeqDOutput(masks=masks, scores=scores)


class Pix2SeqDImageProcessor(BaseImageProcessor):
    """Images → uint8 tensors, and the model's masks → the results of `Mask2FormerImageProcessor`."""

    model_input_names = ("pixel_values", "pixel_mask")

    def __init__(self, label_ids_to_fuse: Sequence[int] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.label_ids_to_fuse = list(label_ids_to_fuse)
        """Classes (from 0) that are stuff."""

    def preprocess(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, images: Source | Sequence[Source], return_tensors: str | None = None, **_: Any
    ) -> BatchFeature:
        """Images of any size and kind that `load_image` reads → "pixel_values" and "pixel_mask", padded to one size.

        Raises:
            InputError: an image cannot be read.
        """
        sources: Sequence[Any] = images if isinstance(images, list | tuple) else [images]
        arrays = [np.asarray(load_image(source)) for source in sources]
        height, width = (max(array.shape[axis] for array in arrays) for axis in (0, 1))
        values = np.zeros((len(arrays), 3, height, width), np.uint8)
        inside = np.zeros((len(arrays), height, width), np.int64)
        for number, array in enumerate(arrays):
            tall, wide = array.shape[:2]
            values[number, :, :tall, :wide] = array.transpose(2, 0, 1)
            inside[number, :tall, :wide] = 1
        return BatchFeature({"pixel_values": values, "pixel_mask": inside}, tensor_type=return_tensors)

    def post_process_panoptic_segmentation(
        self, outputs: Pix2SeqDOutput, *_: Any, target_sizes: Sequence[tuple[int, int]] | None = None, **__: Any
    ) -> list[dict[str, Any]]:
        """Segments of each image.

        Args:
            outputs: the model's outputs.
            target_sizes: height and width of each result; None: those of the image.
            Thresholds are ignored. The forward pass takes `min_score`.

        Returns:
            Per image "segmentation" and "segments_info" as `pix2seqd.panoptic.formats.to_segments` describes them,
            the former as int32 tensor.
        """
        if outputs.masks is None or outputs.scores is None:
            raise ValueError("the outputs hold no masks or scores; give the outputs of the model")
        results = []
        for number, (padded, scores) in enumerate(
            zip(outputs.masks.cpu().numpy(), outputs.scores.tolist(), strict=True)
        ):
            inside = padded[0] != OUTSIDE
            mask = padded[:, : inside.any(1).sum(), : inside.any(0).sum()]
            if target_sizes is not None:
                mask = resize_labels(mask, *(int(side) for side in target_sizes[number]))
            ids, first = np.unique(mask[1], return_index=True)
            labels = mask[0].ravel()[first] - 1
            infos = [
                {"id": i, "label_id": label, "was_fused": label in self.label_ids_to_fuse, "score": scores[i]}
                for i, label in zip(ids.tolist(), labels.tolist(), strict=True)
                if i != VOID
            ]
            results.append({"segmentation": torch.from_numpy(mask[1].astype(np.int32)), "segments_info": infos})
        return results


AutoConfig.register(MODEL_TYPE, Pix2SeqDConfig)
AutoImageProcessor.register(Pix2SeqDConfig, image_processor_classes={"pil": Pix2SeqDImageProcessor})
# The pipeline looks for models under both classes, and warns of models whose names are not in the mapping.
for auto in (AutoModelForUniversalSegmentation, AutoModelForImageSegmentation):
    auto.register(Pix2SeqDConfig, Pix2SeqDForUniversalSegmentation)
MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES.update({MODEL_TYPE: Pix2SeqDForUniversalSegmentation.__name__})  # pyright: ignore
