"""Our checkpoints in `transformers`: importing this module registers them for its pipeline and auto classes.

`Segmenter` does the work, so the results are the same.
"""

import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partialmethod
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
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
from transformers.image_utils import load_image as fetch_image
from transformers.models.auto.modeling_auto import MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.image_segmentation import ImageSegmentationPipeline
from transformers.utils.generic import ModelOutput
from transformers.utils.hub import cached_file

from pix2seqd.checkpoint import (
    MAX_CONFIG,
    MODEL_TYPE,
    SECTIONS,
    Checkpoint,
    from_pretrained,
    read_settings,
    save_pretrained,
)
from pix2seqd.config import MAX_CHANNELS, Recipe
from pix2seqd.files import InputError, read_json
from pix2seqd.images.load import Source, load_image
from pix2seqd.images.resize import resize_labels
from pix2seqd.panoptic.panoptic import UNLIKE, Panoptic, unique_inverse
from pix2seqd.panoptic.taxonomy import VOID, Taxonomy
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.segmenter import ImageOptions, Segmenter

OUTSIDE = -1
"""Class and id of pixels where an image was padded to the size of the largest in its batch."""
NO_LABEL = -1
"""Pixels without a class or instance, where `transformers` counts labels and instances from 0."""
OPTIONS = frozenset(ImageOptions.__annotations__) - {"seed"} | {"batch_size"}
"""Options of the forward pass."""
REFUSED = ("quantization_config", "load_in_8bit", "load_in_4bit", "gguf_file", "state_dict", "output_loading_info")
"""Options of `from_pretrained` that ask for another model or another result than there is."""


class Pix2SeqDConfig(PreTrainedConfig):
    """config.json as `save_pretrained` writes it; `id2label` and `label2id` name the classes from 0."""

    model_type = MODEL_TYPE

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> "Pix2SeqDConfig":
        """Read the config of a folder or of a repository on the hub.

        Raises:
            OSError: not found.
            InputError: as `pix2seqd.checkpoint.read_settings`.
        """
        name = pretrained_model_name_or_path
        return super().from_pretrained(name, *args, **{"name_or_path": str(name), **kwargs})

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], *, trust_size: bool = False, **kwargs: Any) -> Any:
        """From the content of config.json, which may be untrusted: only values that were checked are used.

        `trust_size` is that of `pix2seqd.checkpoint.from_pretrained`, the other options are those of
        `PreTrainedConfig.from_dict`.

        Raises:
            InputError: as `pix2seqd.checkpoint.read_settings`.
        """
        name = kwargs.get("name_or_path")
        where = f"{name}: config.json" if name else "config.json"
        settings, _ = read_settings(config_dict, where, trust_size=trust_size)
        names = [category.name for category in settings.taxonomy.categories]
        checked = {key: config_dict[key] for key in ("pix2seqd", *SECTIONS, "categories")}
        labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        return super().from_dict({**checked, **labels}, **kwargs)

    @classmethod
    def from_json_file(cls, json_file: Any) -> Any:
        """From the path of a config.json; as `from_dict`."""
        return cls.from_dict(cls._dict_from_json_file(json_file), name_or_path=str(json_file))

    @classmethod
    def _dict_from_json_file(cls, json_file: Any) -> Any:
        return read_json(json_file, MAX_CONFIG)


@dataclass
class Pix2SeqDOutput(ModelOutput):
    """Outputs of the model."""

    loss: Tensor | None = None
    """The training loss (Algorithm 1), a scalar, if labels were given."""
    masks: Tensor | None = None
    """int64 `[b, 2, h, w]`: class (from 1) and segment id, 0 = void in both, `OUTSIDE` where the batch is padded. None
    if labels were given."""
    scores: Tensor | None = None
    """float64 `[b, n]`: score of the segment with this id, 0 to 1 (`Segment.score`); 0 for ids that are not used. None:
    all scores are 1."""


class Pix2SeqDForUniversalSegmentation(PreTrainedModel):
    """A checkpoint as a model of `transformers`; its forward pass is `Segmenter.images`, or with labels the loss.

    The weights are always float32. Another dtype, as `to` and `from_pretrained` take it, is the precision that the
    networks compute at.
    """

    config_class = Pix2SeqDConfig
    main_input_name = "pixel_values"
    accepts_loss_kwargs = False
    """Tells `Trainer` that a batch's loss is a mean over its images."""

    def __init__(self, config: Pix2SeqDConfig, checkpoint: Checkpoint | None = None, dtype: Any = "auto") -> None:
        super().__init__(config)
        if checkpoint is None:  # `from_config`: random weights
            settings, _ = read_settings(config.to_dict(), "the given config")
            checkpoint = Checkpoint(Pix2SeqD(settings.model), settings.taxonomy, settings.data, settings.infer)
        self.network = checkpoint.model
        self.checkpoint = checkpoint
        self.precision = _precision(dtype)
        self._segmenter: tuple[Any, Segmenter] | None = None
        # The weights have the names that they have in model.safetensors, also in what `Trainer` saves and loads.
        self.register_state_dict_post_hook(_rename("network.", ""))
        self.register_load_state_dict_pre_hook(_rename("", "network."))

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        name: str | Path,
        *_: Any,
        config: Pix2SeqDConfig | None = None,
        dtype: Any = "auto",
        torch_dtype: Any = None,
        device_map: Any = None,
        trust_size: bool = False,
        **options: Any,
    ) -> Self:
        """Load a folder or a repository of the hub, as strictly as `pix2seqd.checkpoint.from_pretrained`.

        Args:
            name: the folder, or "owner/name".
            config: config of this checkpoint; None: read it.
            dtype: precision of the networks, as `Segmenter` takes it, or torch.float32 or torch.bfloat16.
            torch_dtype: the older name of dtype.
            device_map: one device for the whole model, also as {"": device}; "auto": a GPU if there is one. None: the
                CPU.
            trust_size: as `pix2seqd.checkpoint.from_pretrained` takes it.
            options: where to find it (revision, cache_dir, token, local_files_only, ...). Those that have no meaning
                here are ignored, but not those that ask for other classes, quantized weights or another result.

        Raises:
            OSError: not found.
            InputError: damaged, config and weights do not fit each other, or the device does not exist here.
            ValueError: another precision, several devices, or an option that asks for another model.
        """
        precision, device = _precision(dtype if torch_dtype is None else torch_dtype), _one_device(device_map)
        if refused := [option for option in REFUSED if options.get(option)]:
            raise ValueError(f"from_pretrained takes no {refused[0]}: it loads the checkpoint as it is; leave it out")
        names = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")
        source = {key: options[key] for key in names if key in options}
        paths = [cached_file(str(name), file, **source) for file in ("model.safetensors", "config.json")]
        # It checks what the next line takes on trust.
        checkpoint = from_pretrained(Path(str(paths[-1])).parent, trust_size)
        if config is None:
            labels = {key: options[key] for key in ("id2label", "label2id", "num_labels") if key in options}
            config = Pix2SeqDConfig.from_pretrained(name, trust_size=trust_size, **source, **labels)
        own = [category.name for category in checkpoint.taxonomy.categories]
        named = list((config.id2label or {}).values())
        if named != own or Taxonomy.from_coco(config.categories) != checkpoint.taxonomy:
            raise InputError(
                f"{name}: the given config has other categories than the checkpoint ({', '.join(own)}); leave config, "
                "id2label and num_labels out. `pix2seqd train` trains other categories"
            )
        model = cls(config, checkpoint, precision).eval()
        return model if device is None else model.to(device)

    def save_pretrained(  # pyright: ignore
        self, save_directory: str | Path, *_: Any, push_to_hub: bool = False, **__: Any
    ) -> None:
        """Write the checkpoint folder again (float32), as `pix2seqd.checkpoint.save_pretrained`.

        Raises:
            InputError: the folder cannot be written to.
            ValueError: it is also to be uploaded; `pix2seqd.hub.push_to_hub` does that.
        """
        if push_to_hub:
            raise ValueError("save_pretrained does not upload; give the folder to pix2seqd.hub.push_to_hub afterwards")
        save_pretrained(self.checkpoint, save_directory)

    def to(self, *args: Any, **options: Any) -> Self:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Move the weights to a device; a dtype is the precision that the networks compute at.

        Raises:
            InputError: the device does not exist here.
            ValueError: another dtype than torch.float32 and torch.bfloat16.
        """
        given = [*args, options.pop("dtype", None)]
        for dtype in (value for value in given if isinstance(value, torch.dtype)):
            self.precision = _precision(dtype)
        places = [value for value in given if value is not None and not isinstance(value, torch.dtype)]
        if not places and not options:
            return self
        try:
            return super().to(*places, **options)
        except (RuntimeError, AssertionError) as error:
            where = options.get("device", *places[:1])
            raise InputError(f"cannot move the model to {where!r}: {str(error).splitlines()[0]}") from error

    def cuda(self, device: Any = None) -> Self:  # pyright: ignore[reportIncompatibleVariableOverride]
        """As `to`."""
        return self.to("cuda" if device is None else torch.device("cuda", device))

    float = partialmethod(to, torch.float32)  # pyright: ignore
    bfloat16 = partialmethod(to, torch.bfloat16)  # pyright: ignore
    half = partialmethod(to, torch.float16)  # pyright: ignore
    double = partialmethod(to, torch.float64)  # pyright: ignore

    def forward(
        self,
        pixel_values: Tensor,
        pixel_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        seed: int = 0,
        **options: Any,
    ) -> Pix2SeqDOutput:
        """Segment a batch of images, or with labels compute the loss that training minimises.

        Args:
            pixel_values: uint8 `[b, 3, h, w]`, RGB, as `Pix2SeqDImageProcessor` makes it.
            pixel_mask: `[b, h, w]`, 1 inside an image and 0 where it was padded at bottom and right.
            labels: int64 `[b, 2, h, w]`, class (from 1) and segment id of each pixel, 0 = void in both, as
                `Pix2SeqDImageProcessor` makes it from segmentation maps. They may also have the resolution of the
                mask (`MaskConfig.stride`). Ids and windows of large images are drawn at random, as in
                `pix2seqd train`; then the other arguments have no effect.
            seed: seed of each image's noise.
            options: arguments of `Segmenter.images`: steps, td, min_pixels, consensus, diameter, smooth, min_score,
                classes, batch_size.

        Raises:
            ValueError: the arguments have other shapes, types or values.
            InputError: an option is out of range.
        """
        if not _is_batch(pixel_values, torch.uint8) or pixel_values.ndim != 4 or pixel_values.shape[1] != 3:
            given = _shown(pixel_values)
            raise ValueError(f"pixel_values must be uint8 [b, 3, h, w], as the image processor makes it, not {given}")
        if self.dtype != torch.float32:
            raise ValueError(f"the weights must be float32, not {self.dtype}; load the model anew and use model.to")
        if unknown := sorted(options.keys() - OPTIONS):
            raise ValueError(f"the model has no option {unknown[0]!r}; known: {', '.join(sorted(OPTIONS))}")
        batch, _, height, width = pixel_values.shape
        inside = torch.ones(batch, height, width) if pixel_mask is None else pixel_mask
        if not isinstance(inside, Tensor) or inside.shape != (batch, height, width) or not inside.any((1, 2)).all():
            expected = f"[{batch}, {height}, {width}]"
            raise ValueError(f"pixel_mask must be {expected} and 1 somewhere in each image, not {_shown(inside)}")
        sizes = [(int(part.any(1).sum()), int(part.any(0).sum())) for part in inside]
        padded = pixel_values.permute(0, 2, 3, 1).cpu().numpy()
        images = [image[:tall, :wide] for image, (tall, wide) in zip(padded, sizes, strict=True)]
        if labels is not None:
            truth = self._truth(labels, (batch, 2, height, width))
            cut = [mask[:, :tall, :wide] for mask, (tall, wide) in zip(truth, sizes, strict=True)]
            return Pix2SeqDOutput(loss=self._loss(images, cut))
        masks = torch.full((batch, 2, height, width), OUTSIDE)
        found = list(self._ready().images(images, seed=seed, **options))
        if unlike := sum(panoptic.unfamiliar for panoptic in found):
            warnings.warn(f"{unlike} of {batch} images {UNLIKE}", stacklevel=2)
        count = 1 + max((segment.id for each in found for segment in each.segments), default=0)
        scores = torch.zeros(batch, count, dtype=torch.float64)
        for mask, row, (tall, wide), panoptic in zip(masks, scores, sizes, found, strict=True):
            both = np.stack([panoptic.class_map(), panoptic.segmentation])
            mask[:, :tall, :wide] = torch.from_numpy(both)
            for segment in panoptic.segments:
                row[segment.id] = 1.0 if segment.score is None else segment.score
        return Pix2SeqDOutput(masks=masks, scores=scores)

    def _ready(self) -> Segmenter:
        """The segmenter of the weights as they are now; it holds copies of some."""
        state = (self.device, self.precision, *((id(p), p._version) for p in self.parameters()))
        if self._segmenter is None or self._segmenter[0] != state:
            training = self.training
            self._segmenter = state, Segmenter(self.checkpoint, str(self.device), self.precision)
            self.train(training)
        return self._segmenter[1]

    def _truth(self, labels: Tensor, shape: tuple[int, int, int, int]) -> np.ndarray:
        """Labels at the images' size, int64 `[b, 2, h, w]`; other shapes, types and values are refused."""
        stride = self.checkpoint.model.config.mask.stride
        small = (*shape[:2], shape[2] // stride, shape[3] // stride)
        if not _is_batch(labels, torch.int64, torch.int32, torch.uint8) or tuple(labels.shape) not in (shape, small):
            given = _shown(labels)
            raise ValueError(f"labels must be integers of shape {shape}, class and id of each pixel, not {given}")
        truth = labels.clamp(min=VOID).long().cpu().numpy()  # the model's own masks are below 0 outside of the image
        if tuple(labels.shape) != shape:
            truth = resize_labels(truth, *shape[2:])
        classes = len(self.checkpoint.taxonomy)
        if truth[:, 0].max(initial=0) > classes:
            raise ValueError(f"labels have class {truth[:, 0].max()}, but the model knows the classes 1 to {classes}")
        if ((truth[:, 0] == VOID) != (truth[:, 1] == VOID)).any():
            raise ValueError("labels have a class without an id, or an id without a class; give both, or 0 in both")
        return truth

    def _loss(self, images: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> Tensor:
        """Loss of images, uint8 `[h, w, 3]`, and their masks, int64 `[2, h, w]`."""
        from pix2seqd.data.loader import TrainingExamples
        from pix2seqd.data.sample import Mapped, Sample

        if self.training:  # the statistics are those of other weights, and of other images
            self.checkpoint = replace(self.checkpoint, familiarity=None)
        taxonomy, pairs = self.checkpoint.taxonomy, list(zip(images, truth, strict=True))
        samples = Mapped(pairs, taxonomy, lambda pair: Sample("", pair[0], _panoptic(pair[1], taxonomy)))
        recipe = Recipe(self.checkpoint.model.config, self.checkpoint.data)
        examples = TrainingExamples(samples, recipe, cache_bytes=0)
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        drawn = [examples.example(index, rng) for index in range(len(pairs))]
        batch = {key: torch.stack([one[key] for one in drawn]).to(self.device) for key in drawn[0]}
        lower = self.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16) if lower else nullcontext():
            return self.network(**batch)


def _panoptic(mask: np.ndarray, taxonomy: Taxonomy) -> Panoptic:
    """The segments of an int64 mask `[2, h, w]`: the pixels of a class and an id; of stuff, those of the class."""
    stuff = np.array([False, *(not category.isthing for category in taxonomy.categories)])
    ids = np.where(stuff[mask[0]], 1, mask[1])
    count = int(ids.max()) + 1
    keys, dense = unique_inverse(mask[0] * count + ids)
    classes = {number: key // count for number, key in enumerate(keys.tolist(), start=1) if key}
    return Panoptic.from_segmentation(dense + 1, classes, taxonomy)


def _is_batch(value: Any, *dtypes: torch.dtype) -> bool:
    return isinstance(value, Tensor) and value.dtype in dtypes and len(value) > 0


def _shown(value: Any) -> str:
    """Type and shape of a value, for messages."""
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _precision(dtype: Any) -> Any:
    """A precision as `Segmenter` takes it, of the same or of a dtype of torch; others are refused."""
    precision = str(dtype).removeprefix("torch.")
    if precision not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"dtype must be auto, float32 or bfloat16, not {precision}: the networks have no other")
    return precision


def _one_device(device_map: Any) -> Any:
    """The device of the whole model; None: the CPU, where it is loaded. Several devices are refused."""
    if device_map in ("auto", "balanced", "balanced_low_0", "sequential"):
        return "cuda" if torch.cuda.is_available() else None
    if isinstance(device_map, Mapping):
        if set(device_map) != {""}:
            raise ValueError('device_map must name one device for the whole model, such as "cuda" or {"": 0}')
        return device_map[""]
    return device_map


def _rename(before: str, after: str) -> Callable[..., None]:
    """A hook that exchanges the beginning of the names in a module's state."""

    def rename(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
        for name in [name for name in state if name.startswith(prefix + before)]:
            state[prefix + after + name.removeprefix(prefix + before)] = state.pop(name)

    return rename


class Pix2SeqDImageProcessor(BaseImageProcessor):
    """Images → uint8 tensors, and the model's masks → the results of `Mask2FormerImageProcessor`."""

    model_input_names = ("pixel_values", "pixel_mask")

    def __init__(self, label_ids_to_fuse: Sequence[int] = (), **_: Any) -> None:
        """Other settings, which an untrusted preprocessor_config.json may have, are ignored.

        Raises:
            InputError: label_ids_to_fuse, which may come from there too, is not a list of classes.
        """
        super().__init__()
        known = isinstance(label_ids_to_fuse, list | tuple) and all(
            type(label) is int and 0 <= label < MAX_CHANNELS for label in label_ids_to_fuse
        )
        if not known:
            raise InputError("preprocessor_config.json: label_ids_to_fuse must be a list of class numbers from 0")
        self.label_ids_to_fuse = list(label_ids_to_fuse)
        """Classes (from 0) that are stuff."""

    def preprocess(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: Source | Sequence[Source],
        segmentation_maps: Any = None,
        instance_id_to_semantic_id: Mapping[int, int] | Sequence[Mapping[int, int]] | None = None,
        return_tensors: str | None = None,
        **_: Any,
    ) -> BatchFeature:
        """Images of any size → "pixel_values" and "pixel_mask", padded to one size; with maps also "labels".

        Args:
            images: one image or a list of them, of any kind that `load_image` reads.
            segmentation_maps: the truth, for training: one for each image, of its size. A `Panoptic`, or integers
                `[h, w]`: the segment of each pixel.
            instance_id_to_semantic_id: for maps of integers: segment → class (from 0, as in `id2label`), for all maps
                or one for each. Value 0 is void if it has no class here.
            return_tensors: "pt" gives tensors, otherwise NumPy's arrays.

        Raises:
            InputError: an image cannot be read.
            ValueError: there are no images; maps do not fit them, or hold segments without a class.
        """
        sources: Sequence[Any] = images if isinstance(images, list | tuple) else [images]
        if not sources:
            raise ValueError("there are no images; give one or more")
        arrays = [np.asarray(load_image(source)) for source in sources]
        height, width = (max(array.shape[axis] for array in arrays) for axis in (0, 1))
        values = np.zeros((len(arrays), 3, height, width), np.uint8)
        inside = np.zeros((len(arrays), height, width), np.int64)
        for number, array in enumerate(arrays):
            tall, wide = array.shape[:2]
            values[number, :, :tall, :wide] = array.transpose(2, 0, 1)
            inside[number, :tall, :wide] = 1
        features = {"pixel_values": values, "pixel_mask": inside}
        if segmentation_maps is not None:
            maps = segmentation_maps if isinstance(images, list | tuple) else [segmentation_maps]
            classes = instance_id_to_semantic_id
            every: list[Any] = list(classes) if isinstance(classes, list | tuple) else [classes] * len(arrays)
            if not len(maps) == len(every) == len(arrays):
                raise ValueError(f"{len(arrays)} images need as many segmentation maps, not {len(maps)}")
            features["labels"] = np.full((len(arrays), 2, height, width), VOID, np.int64)
            for number, (array, given, each) in enumerate(zip(arrays, maps, every, strict=True)):
                mask, (tall, wide) = _mask(given, each), array.shape[:2]
                if mask.shape != (2, tall, wide):
                    shown = f"{mask.shape[2]} x {mask.shape[1]}"
                    raise ValueError(f"segmentation map {number} is {shown}, but its image is {wide} x {tall}")
                features["labels"][number, :, :tall, :wide] = mask
        return BatchFeature(features, tensor_type=return_tensors)

    def post_process_semantic_segmentation(
        self,
        outputs: Pix2SeqDOutput,
        target_sizes: Sequence[tuple[int, int]] | None = None,
        return_segmentation_scores: bool = False,
    ) -> list[Tensor]:
        """The class of each pixel.

        Args:
            outputs: the model's outputs.
            target_sizes: height and width of each result; None: those of the image.
            return_segmentation_scores: must be False; the model gives one class a pixel, not the scores of all.

        Returns:
            Per image int64 `[h, w]`: the class, from 0 as in `id2label`, and `NO_LABEL` (-1) where there is none.
        """
        if return_segmentation_scores:
            raise ValueError("return_segmentation_scores: the model gives one class a pixel, not the scores of all")
        return [torch.from_numpy(mask[0].astype(np.int64) - 1) for mask in _masks(outputs, target_sizes)]

    def post_process_instance_segmentation(
        self,
        outputs: Pix2SeqDOutput,
        threshold: float = 0.0,
        mask_threshold: float = 0.5,
        overlap_mask_area_threshold: float = 0.8,
        target_sizes: Sequence[tuple[int, int]] | None = None,
        return_coco_annotation: bool = False,
        return_binary_maps: bool = False,
    ) -> list[dict[str, Any]]:
        """The things of each image.

        Args:
            outputs: the model's outputs.
            threshold: things with a lower score are left out.
            mask_threshold: has no effect, because the masks are not probabilities.
            overlap_mask_area_threshold: has no effect, because segments do not overlap.
            target_sizes: height and width of each result; None: those of the image.
            return_coco_annotation: "segmentation" is a list, for each thing its runs as `transformers` counts them: row
                by row, start (from 1), length, start, length, ...
            return_binary_maps: "segmentation" is float32 `[things, h, w]`, 1 inside a thing.

        Returns:
            Per image "segmentation", float32 `[h, w]`, the number of the thing (from 0) or -1; and "segments_info",
            for each thing its number "id", "label_id" (from 0), "was_fused" (False) and "score".
        """
        if return_coco_annotation and return_binary_maps:
            raise ValueError("give return_coco_annotation or return_binary_maps, not both")
        results = []
        for result in self.post_process_panoptic_segmentation(outputs, threshold, target_sizes=target_sizes):
            infos = [info for info in result["segments_info"] if info["label_id"] not in self.label_ids_to_fuse]
            segments = result["segmentation"]
            segmentation: Any = torch.full(segments.shape, float(NO_LABEL))
            for number, info in enumerate(infos):
                segmentation[segments == info["id"]] = number
            if return_binary_maps and infos:
                segmentation = (segmentation == torch.arange(len(infos))[:, None, None]).float()
            if return_coco_annotation:
                segmentation = [_runs(segmentation.numpy() == number) for number in range(len(infos))]
            infos = [{**info, "id": number} for number, info in enumerate(infos)]
            results.append({"segmentation": segmentation, "segments_info": infos})
        return results

    def post_process_panoptic_segmentation(
        self,
        outputs: Pix2SeqDOutput,
        threshold: float = 0.0,
        mask_threshold: float = 0.5,
        overlap_mask_area_threshold: float = 0.8,
        label_ids_to_fuse: Collection[int] | None = None,
        target_sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[dict[str, Any]]:
        """Segments of each image.

        Args:
            outputs: the model's outputs.
            threshold: segments with a lower score are left out.
            mask_threshold: has no effect, because the masks are not probabilities.
            overlap_mask_area_threshold: has no effect, because segments do not overlap.
            label_ids_to_fuse: classes (from 0) whose segments are made one; None: the model's stuff, which is one
                segment each anyway.
            target_sizes: height and width of each result; None: those of the image.

        Returns:
            Per image "segmentation" and "segments_info" as `pix2seqd.panoptic.formats.to_segments` describes them,
            the former as int32 tensor.
        """
        fused = self.label_ids_to_fuse if label_ids_to_fuse is None else label_ids_to_fuse
        results = []
        for number, mask in enumerate(_masks(outputs, target_sizes)):
            scores = None if outputs.scores is None else outputs.scores[number].tolist()
            ids, first, dense = np.unique(mask[1], return_index=True, return_inverse=True)
            labels = mask[0].ravel()[first] - 1
            kept = ids.copy()
            for label in fused:
                kept[labels == label] = ids[labels == label].min(initial=ids[-1])
            infos = [
                {"id": i, "label_id": label, "was_fused": label in fused, "score": scores[i] if scores else 1.0}
                for i, label in zip(ids.tolist(), labels.tolist(), strict=True)
                if i != VOID
            ]
            infos = [info for info in infos if info["id"] in kept and info["score"] >= threshold]
            kept[~np.isin(kept, [info["id"] for info in infos])] = VOID
            segmentation = torch.from_numpy(kept[dense.reshape(mask[1].shape)].astype(np.int32))
            results.append({"segmentation": segmentation, "segments_info": infos})
        return results


def _masks(outputs: Pix2SeqDOutput, target_sizes: Any) -> Iterator[np.ndarray]:
    """The mask of each image, int64 `[2, h, w]`, without padding, at its size or the one that is asked for."""
    if outputs.masks is None:
        raise ValueError("the outputs hold no masks; give the outputs of the model without labels")
    if target_sizes is not None and len(target_sizes) != len(outputs.masks):
        raise ValueError(f"{len(outputs.masks)} images need as many target_sizes, not {len(target_sizes)}")
    for number, padded in enumerate(outputs.masks.cpu().numpy()):
        inside = padded[0] != OUTSIDE
        mask = padded[:, : inside.any(1).sum(), : inside.any(0).sum()]
        if target_sizes is not None:
            size = [int(side) for side in target_sizes[number]]
            if len(size) != 2 or min(size) < 1:
                raise ValueError(f"target_sizes: {size} is not a height and a width; give two numbers from 1")
            mask = resize_labels(mask, size[0], size[1])
        yield mask


def _runs(inside: np.ndarray) -> list[int]:
    """Run-length encoding of `transformers` of a bool map: row by row, start (from 1), length, start, length, ..."""
    runs = np.flatnonzero(np.diff(inside.ravel(), prepend=False, append=False)) + 1
    runs[1::2] -= runs[::2]
    return runs.tolist()


def _mask(given: Any, classes: Mapping[int, int] | None) -> np.ndarray:
    """A segmentation map as `Pix2SeqDImageProcessor.preprocess` takes it → int64 `[2, h, w]`, class and id."""
    if isinstance(given, Panoptic):
        given = given.without_crowds()
        return np.stack([given.class_map(), given.segmentation]).astype(np.int64)
    values = np.asarray(given)
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"a segmentation map must be integers [h, w], not {values.dtype} {list(values.shape)}")
    if classes is None:
        raise ValueError("the classes of the segments are missing; give instance_id_to_semantic_id")
    ids, dense = np.unique(values, return_inverse=True)
    for i in ids.tolist():
        if i not in classes and i != VOID:
            raise ValueError(f"segment {i} has no class; add it to instance_id_to_semantic_id, or make its pixels 0")
        if classes.get(i, 0) < 0:
            raise ValueError(f"segment {i} has class {classes[i]}; classes count from 0, as in id2label")
    rows = [[classes[i] + 1, n] if i in classes else [VOID, VOID] for n, i in enumerate(ids.tolist(), start=1)]
    return np.moveaxis(np.array(rows, np.int64)[dense.reshape(values.shape)], -1, 0)


class Pix2SeqDPipeline(ImageSegmentationPipeline):
    """The pipeline "image-segmentation"; with models of other packages it is that of `transformers`.

    With ours, files are read as `pix2seqd segment` reads them, and a batch may hold images of any sizes. Void is no
    class of the subtask "semantic". No segment is left out unless a threshold is given. Options of the model's forward
    pass (`seed=1`, `min_score=0.9`) may be given too; unknown ones are a `ValueError`.
    """

    @property
    def _is_ours(self) -> bool:
        return isinstance(self.model, Pix2SeqDForUniversalSegmentation)

    def _sanitize_parameters(self, **given: Any) -> Any:
        reading, forward, results = super()._sanitize_parameters(**given)
        if self._is_ours:
            known = {*reading, *results, "local_files_only"}  # `pipeline` reads the last, but does not take it away
            forward = {key: value for key, value in given.items() if key not in known}
        return reading, forward, results

    def preprocess(self, image: Any, subtask: str | None = None, timeout: float | None = None) -> Any:
        """Read an image; the processor gets the images of a batch together, when all are read."""
        if not self._is_ours:
            return super().preprocess(image, subtask, timeout)
        if isinstance(image, str) and not os.path.isfile(image):  # noqa: PTH113 # it may be too long for a path
            image = fetch_image(image, timeout=timeout)
        pixels = np.asarray(load_image(image))
        return {"image": pixels, "target_size": [pixels.shape[:2]]}

    def _forward(self, model_inputs: Any, **options: Any) -> Any:
        if not self._is_ours:
            return super()._forward(model_inputs)
        inputs = self.image_processor(model_inputs["image"], return_tensors="pt")  # pyright: ignore
        outputs = self.model(**inputs, **options)
        outputs["target_size"] = model_inputs["target_size"]
        return outputs

    def postprocess(self, model_outputs: Any, subtask: str | None = None, **thresholds: Any) -> Any:  # pyright: ignore
        """Name, score and mask of each segment, or of each class for the subtask "semantic", which has no scores.

        Raises:
            ValueError: another subtask than panoptic, instance and semantic.
        """
        if not self._is_ours:
            return super().postprocess(model_outputs, subtask, **thresholds)
        if subtask != "semantic":
            return super().postprocess(model_outputs, subtask, **{"threshold": 0.0, **thresholds})
        sizes, names = model_outputs["target_size"], dict(self.model.config.id2label or {})
        classes = self.image_processor.post_process_semantic_segmentation(model_outputs, sizes)[0].numpy()  # pyright: ignore
        return [
            {"score": None, "label": names[label], "mask": Image.fromarray((classes == label).astype(np.uint8) * 255)}
            for label in np.unique(classes).tolist()
            if label != NO_LABEL
        ]


AutoConfig.register(MODEL_TYPE, Pix2SeqDConfig)
AutoImageProcessor.register(Pix2SeqDConfig, image_processor_classes={"pil": Pix2SeqDImageProcessor})
# The pipeline looks for models under both classes, and warns of models whose names are not in the mapping.
for auto in (AutoModelForUniversalSegmentation, AutoModelForImageSegmentation):
    auto.register(Pix2SeqDConfig, Pix2SeqDForUniversalSegmentation)
MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES.update({MODEL_TYPE: Pix2SeqDForUniversalSegmentation.__name__})  # pyright: ignore
PIPELINE_REGISTRY.supported_tasks["image-segmentation"]["impl"] = Pix2SeqDPipeline
