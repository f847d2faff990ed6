"""`Segmenter`: from images to `Panoptic`, for the command line, the evaluation and Python.

The way of an image: `inference.scale` finds its scale, `Tiling.resize` resizes it, and `Tiling.split` cuts windows.
`Runner.denoise` encodes the windows and denoises a mask for each. The loop is that of Algorithm 2, `Pix2SeqD.denoise`;
`Denoiser` decides on steps and past masks. `Tiling.stitch` turns the masks into segments of the whole image, and
`consensus` makes one segmentation of several samples.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, cycle, groupby, islice, repeat, tee
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypedDict, Unpack

import numpy as np
import torch

from pix2seqd.checkpoint import Checkpoint, find_folder, from_pretrained
from pix2seqd.config import DEFAULT_MODEL, ZOOMS, InferConfig, check
from pix2seqd.files import InputError
from pix2seqd.images import familiarity
from pix2seqd.images.load import Source, open_pixels
from pix2seqd.inference.consensus import consensus
from pix2seqd.inference.denoiser import Denoiser, Step
from pix2seqd.inference.runner import Runner
from pix2seqd.inference.scale import best_zoom
from pix2seqd.inference.tiling import ResizedImage, ScaleEstimate, Tiling, Window
from pix2seqd.inference.tracking import Tracker
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.reused_ids import ID_DISTANCE
from pix2seqd.panoptic.taxonomy import Taxonomy

_FEW_WINDOWS = 4
"""Most windows, evenly spread over an image, from which its scale is estimated, or it is described."""


class ImageOptions(TypedDict, total=False):
    """How an image is segmented; an option that is left out or None has the checkpoint's value (`InferConfig`)."""

    seed: int
    """Seed of the image's noise, 0 or more; the same seed gives the same segmentation, alone or in a batch. Default:
    0."""
    steps: int | None
    """Number of decoder steps, 1 or more. If it is given, all of them are taken, and all samples, whatever
    `InferConfig.early_exit` says."""
    td: float | None
    """τ_d ≥ 0 (§3.3)."""
    min_pixels: int | None
    """Segments of fewer image pixels are discarded."""
    diameter: float | None
    """Diameter of the things in image pixels, for checkpoints that bring things to one size
    (`DataConfig.diameter`); 0, the default: it is measured in a quick segmentation of the image first."""
    consensus: int | None
    """Odd number of samples, with the seeds `seed`, `seed + 1`, ... and the scales of `InferConfig.sample_scales`; the
    result is their consensus (`consensus.consensus`)."""
    smooth: bool | None
    """Where the mask is coarser than the image, outlines are smooth; False: blocks of the mask's pixels."""
    min_score: float | None
    """Segments with a lower score (`Segment.score`), 0 to 1, become void; segments without a score stay."""
    classes: Collection[str] | None
    """Names of categories; segments of other categories become void. Default: all."""


@dataclass(frozen=True)
class _Call:
    """The options of one call, checked and complete."""

    infer: InferConfig
    """The checkpoint's settings with those of the call."""
    seed: int
    diameter: float
    """Diameter of the things in image pixels; 0: not known."""
    classes: frozenset[str]
    """Names of the categories to keep."""

    def select(self, panoptic: Panoptic) -> Panoptic:
        """Segments of these classes whose score is high enough; the rest becomes void."""
        minimum = self.infer.min_score
        return panoptic.select(lambda segment: segment.name in self.classes and segment.has_score(minimum))


class _View(NamedTuple):
    """An image at one scale."""

    image: ResizedImage
    generators: list[torch.Generator]
    """Of the samples that have this scale."""


class Segmenter:
    """A checkpoint, ready to segment images.

    Args of the constructor:
        checkpoint: model, taxonomy and settings. The model is moved to the device; only a copy for inference is kept.
        device: "auto" takes a CUDA device where there is one.
        dtype: precision of the networks; "auto" is bfloat16 where the hardware computes it natively, otherwise float32.
        accelerate: use faster modules of the same results; False, or PIX2SEQD_PLAIN=1, leaves plain PyTorch.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str = "auto",
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        accelerate: bool = True,
    ) -> None:
        self.runner = Runner(checkpoint.model, device, dtype, accelerate)
        self.model, self.device, self.bfloat16 = self.runner.model, self.runner.device, self.runner.bfloat16
        self.checkpoint = replace(checkpoint, model=self.model)
        self.tiling = Tiling(checkpoint)

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path = DEFAULT_MODEL,
        device: str = "auto",
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        accelerate: bool = True,
        trust_size: bool = False,
    ) -> Self:
        """From a folder, a bundled name or a hub id; by default the bundled model for images.

        Device, dtype and accelerate are as the constructor takes them. `trust_size` takes a model of any size;
        otherwise sizes have limits, see `checkpoint.from_pretrained`.

        Raises:
            InputError: no such checkpoint, or it is damaged; no such device.
        """
        return cls(from_pretrained(name, trust_size), device, dtype, accelerate)

    @property
    def taxonomy(self) -> Taxonomy:
        """The categories of the results."""
        return self.checkpoint.taxonomy

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return self.tiling.size

    def describe(self, clip: bool = False) -> dict[str, Any]:
        """What a result depends on besides its input and the options of a call, as plain values for JSON.

        Model, weights, precision and the settings of `image`, or with `clip` those of `video`.
        """
        return {
            "model": self.checkpoint.name,
            "weights": self.checkpoint.digest,
            "dtype": "bfloat16" if self.bfloat16 else "float32",
            **self._settings(clip).to_dict(),
        }

    def image(self, source: Source, *, hints: Panoptic | None = None, **options: Unpack[ImageOptions]) -> Panoptic:
        """Segment one image.

        Args:
            source: path, PIL image or array, as `load_image` takes it.
            hints: given segments, in a segmentation of the image's size; the model generates the pixels that are void.
                Hinted pixels keep their segment (id, category and score). A segment that is given in part can grow. One
                sample is taken, without a consensus.
            options: see `ImageOptions`.

        Returns:
            A segmentation of the image's own size.

        Raises:
            InputError: the image cannot be read, an option is out of range, or the hints have another size or other
                categories.
        """
        if hints is None:
            return next(self.images([source], **options))
        call = self._call(options)
        image = self.resize(source, call.diameter)
        mask = self.tiling.inpainted(image, hints)
        windows, denoiser = self.tiling.split(image, _generators(call.seed, 1), mask), self._denoiser(call.infer)
        for number, found in enumerate(self._masks(windows, denoiser, 1)):
            self.tiling.add(mask, number, found[0], image, call.infer)
        result = self.tiling.finish(mask, image, hints, call.infer)
        return call.select(self._with_ood_score(result, image))

    __call__ = image

    def push_to_hub(self, repository: str, **options: Any) -> str:
        """Upload the checkpoint that this segmenter was loaded from to the Hugging Face hub.

        The files are uploaded as they are; the networks in memory may have a lower precision.

        Args:
            repository: "owner/name"; made if it does not exist.
            options: as `pix2seqd.hub.push_to_hub` takes them (data, licence, results, token, ...).

        Returns:
            The upload's address.

        Raises:
            InputError: the checkpoint was not loaded from files, or as `pix2seqd.hub.push_to_hub`.
        """
        from pix2seqd.hub import push_to_hub

        if not self.checkpoint.name:
            raise InputError("this checkpoint has no folder; write it with save_pretrained and push that folder")
        return push_to_hub(find_folder(self.checkpoint.name), repository, **options)

    def progress(
        self, source: Source, *, hints: Panoptic | None = None, **options: Unpack[ImageOptions]
    ) -> Iterator[tuple[float, Panoptic]]:
        """Segment one image as `image` does, and yield intermediate results.

        Yields:
            The share that is done, up to 1, and the segmentation so far; the last one is the result of `image`. There
            is one pair after each denoising step. With hints, the windows of a large image are generated one after
            the other; there is one pair after each window, and unfinished windows are void. With a consensus, the
            first sample is shown step by step, and stays until all samples are done.
        """
        call = self._call(options)
        if hints is None:
            steps = self._progress(self._views(source, call), call)
        else:
            steps = self._hinted_progress(self.resize(source, call.diameter), call, hints)
        return ((share, call.select(panoptic)) for share, panoptic in steps)

    def samples(self, source: Source, n: int = 5, **options: Unpack[ImageOptions]) -> list[Panoptic]:
        """Several segmentations of one image: number k, from 0, equals `image` with the seed `seed + k`, no consensus.

        `inference.consensus` computes their uncertainty and their consensus.

        Raises:
            InputError: as `image`, or n is below 1.
        """
        if n < 1:
            raise InputError(f"the number of samples must be 1 or more, not {n}")
        call = self._call(options)
        self._call({"seed": call.seed + n - 1})
        image = self.resize(source, call.diameter)
        # Each sample counts, also where the first one is sure.
        denoiser = self._denoiser(call.infer.replace(consensus=1))
        masks = self._masks(self.tiling.split(image, _generators(call.seed, n)), denoiser)
        found = self.tiling.stitch_samples(image, masks, call.infer)
        return [call.select(self._with_ood_score(sample, image)) for sample in found]

    def images(
        self,
        sources: Iterable[Source],
        *,
        batch_size: int | None = None,
        on_window: Callable[[int, int], None] = lambda done, of: None,
        **options: Unpack[ImageOptions],
    ) -> Iterator[Panoptic]:
        """Segment many images, each as `image` does.

        Args:
            sources: as `image` takes them.
            batch_size: number of windows that go through the network at once.
            on_window: is called after each window with the number of windows of its image that are done, and that the
                image has.
            options: see `ImageOptions`.
        """
        call = self._call(options)
        batch_size = self.runner.batch_size if batch_size is None else batch_size
        if batch_size < 1:
            raise InputError(f"batch size must be 1 or more, not {batch_size}")
        # Windows and their masks are generated one by one, so that only a few exist at any time.
        images, copies = tee(self._views(source, call) for source in sources)
        windows = chain.from_iterable(self.tiling.split(*view) for view in chain.from_iterable(images))
        masks = self._masks(windows, self._denoiser(call.infer), batch_size)
        for views in copies:
            counts = [len(view.image.corners) for view in views]
            reported = _reported(islice(masks, sum(counts)), sum(counts), on_window)
            parts = (islice(reported, count) for count in counts)
            pairs = zip(views, parts, strict=True)
            found = (self.tiling.stitch_samples(view.image, part, call.infer) for view, part in pairs)
            yield call.select(self._consensus(views[0].image, chain.from_iterable(found), call))

    def video(
        self,
        frames: Iterable[Source],
        *,
        first_steps: int | None = None,
        adaptive: float | None = None,
        **options: Unpack[ImageOptions],
    ) -> Iterator[Panoptic]:
        """Segment a video and track its objects (§3.4). Each result is yielded before the next frame is read.

        Only the last frames are kept in memory, so `frames` may be endless (a camera). A segment's id means the same
        object in all frames; `tracking.Tracker` explains how, also for objects that leave, return or divide. A
        checkpoint for images segments every frame independently, and frames are matched by IoU.

        Args:
            frames: images of one size, as `load_image` takes them.
            first_steps: decoder steps of the first frame; None: the checkpoint's value.
            adaptive: average number of steps of later frames, 1 or more, spent where the mask changes; 0: always
                `steps`; None: the checkpoint's value.
            options: see `ImageOptions`. `steps` is for later frames. All frames and samples have the scale of the first
                frame that shows a thing. Segments below `min_score` (default: 0) or not of `classes` are tracked too,
                but not shown. The same frames and seed give the same result.

        Raises:
            InputError: a frame cannot be read or has another size than the first, or an option is out of range.
        """
        call = self._call({**options, "first_steps": first_steps, "adaptive": adaptive}, clip=True)
        data, model = self.checkpoint.data, self.model.config
        denoiser, tracker = self._denoiser(call.infer), Tracker(data.ids == "unique", model.decoder.past_frames)
        conditioned = denoiser.conditioned if model.decoder.past_frames else 0
        generators = _generators(call.seed, call.infer.consensus)
        diameter, size = call.diameter, None
        for number, frame in enumerate(frames, start=1):
            image = self.resize(frame, diameter)
            if image.size != (size := size or image.size):
                now, before = (f"{width} x {height}" for height, width in (image.size, size))
                raise InputError(f"frame {number} is {now} pixels, but those before are {before}; give one size only")
            windows = self.tiling.split(image, generators)
            samples = list(zip(*self._masks(windows, denoiser), strict=True))
            found = [self.tiling.stitch(image, masks, call.infer) for masks in samples]
            ids = [self.tiling.generated_ids(image, masks) for masks in samples[:conditioned]]
            agreed = self._consensus(image, found, call)
            result = tracker.update(agreed, np.stack(ids) if ids else None)
            yield call.select(replace(result, ood_score=agreed.ood_score))
            if data.diameter and not diameter:
                if not result.diameter():
                    continue  # no thing yet: neither a scale nor past masks
                diameter = data.diameter / image.zoom  # all frames at one scale
            past = tracker.past(model.mask.max_instances - 1, ID_DISTANCE * model.mask.stride / image.zoom)
            masks = (self.tiling.to_masks(frame.panoptic, frame.generated, image) for frame in past)
            denoiser.remember([torch.from_numpy(each).to(self.device) for each in masks])

    def resize(self, source: Source, diameter: float = 0.0) -> ResizedImage:
        """An image at the network's scale; with `DataConfig.diameter`, at the scale at which its things have this size.

        The scale depends on the image alone, so it is the same for every seed.

        Args:
            source: as `image` takes it.
            diameter: diameter of the things in image pixels; 0: it is measured.
        """
        data, infer, source = self.checkpoint.data, self.checkpoint.infer, open_pixels(source)
        estimate = partial(self._estimate_scale, source)
        if diameter or not data.diameter:
            zoom = data.at_scale_of(diameter).zoom
        else:
            zoom = best_zoom(estimate, data, min(source.height, source.width), infer.image_steps)
        return self.tiling.resize(source, zoom)

    def _views(self, source: Source, call: _Call) -> list[_View]:
        """An image at each scale of its samples, the first sample's first."""
        source = open_pixels(source)
        image = self.resize(source, call.diameter)
        views: dict[float, _View] = {}
        generators = _generators(call.seed, call.infer.consensus)
        for scale, generator in zip(cycle(call.infer.sample_scales), generators, strict=False):
            if scale not in views:
                views[scale] = _View(image if scale == 1 else self.tiling.resize(source, image.zoom, scale), [])
            views[scale].generators.append(generator)
        return list(views.values())

    def _estimate_scale(self, source: Source, zoom: float, steps: int) -> Iterator[ScaleEstimate]:
        """Segment some windows of an image at a zoom (`inference.scale`); an estimate after each window."""
        # The settings are the checkpoint's, because the scale must not depend on the options of a call.
        quick = self.checkpoint.infer.replace(steps=steps, first_steps=0)
        image = _few_windows(self.tiling.resize(source, zoom))
        masks = self._masks(self.tiling.split(image, _generators(0, 1)), self._denoiser(quick))
        return self.tiling.estimate_scale(image, (found[0] for found in masks))

    def feature_statistics(self, source: Source, diameter: float = 0.0) -> torch.Tensor:
        """The feature statistics (`images.familiarity`) of an image, of a large one of a few windows: float64 `[d]`.

        Source and diameter are as `resize` takes them.
        """
        image = _few_windows(self.resize(source, diameter))
        for window in self.tiling.split(image, ()):
            self.runner.encode([window])
        return familiarity.feature_statistics(image.moments)

    def _settings(self, clip: bool) -> InferConfig:
        """The checkpoint's settings; for clips without a smallest score, which would hide an object in some frames."""
        infer = self.checkpoint.infer
        return infer.replace(min_score=0.0, sample_scales=(1.0,)) if clip else infer

    def _call(self, options: Mapping[str, Any], clip: bool = False) -> _Call:
        """Check the options of a call; those that are missing or None are the checkpoint's."""
        infer = self._settings(clip)
        changes = {key: value for key, value in options.items() if value is not None}
        if changes.keys() & {"steps", "first_steps"}:
            changes["early_exit"] = 0.0  # all steps that are asked for are taken
        if not clip:  # an image is segmented like the first frame of a clip
            changes = {"steps": infer.image_steps, **changes, "first_steps": 0}
        seed, diameter = changes.pop("seed", 0), changes.pop("diameter", 0.0)
        every = {category.name for category in self.taxonomy.categories}
        classes = changes.pop("classes", every)
        classes = frozenset([classes] if isinstance(classes, str) else classes)
        self.taxonomy.check_names(sorted(classes))
        data = self.checkpoint.data
        smallest, largest = data.diameter / ZOOMS[1], data.diameter / ZOOMS[0]
        try:
            check(0 <= seed < 2**63, f"seed must be 0 or more and below 2^63, not {seed}")
            check(0 <= diameter < float("inf"), f"diameter must be 0 or more, not {diameter}")
            check(data.diameter > 0 or not diameter, "this checkpoint does not scale images; leave diameter out")
            check(
                not diameter or smallest <= diameter <= largest,
                f"diameter must be from {smallest:g} to {largest:g} for this checkpoint, not {diameter:g}; "
                "scale the image",
            )
            return _Call(infer.replace(**changes), seed, diameter, classes)
        except ValueError as error:
            raise InputError(str(error)) from error

    def _denoiser(self, infer: InferConfig) -> Denoiser:
        return Denoiser(self.model, infer, self.taxonomy)

    def _loops(self, windows: Iterator[Window], denoiser: Denoiser, batch_size: int) -> Iterator[Iterator[Step]]:
        """The denoising loop of each batch of windows, which have one size and number of samples."""
        for _, equal in groupby(windows, key=lambda window: (window.pixels.shape, len(window.noise))):
            while batch := list(islice(equal, batch_size)):
                yield self.runner.denoise(batch, denoiser)

    def _masks(
        self, windows: Iterator[Window], denoiser: Denoiser, batch_size: int | None = None
    ) -> Iterator[list[np.ndarray]]:
        """For each window, in order, the mask `[4, h, w]` of each sample (`Runner.masks`)."""
        for loop in self._loops(windows, denoiser, self.runner.batch_size if batch_size is None else batch_size):
            samples = [self.runner.masks(step) for step in loop if step.is_last]
            yield from map(list, zip(*samples, strict=True))

    def _consensus(self, image: ResizedImage, found: Iterable[Panoptic], call: _Call) -> Panoptic:
        """The result of an image from the segmentations of its samples."""
        minimum = self.tiling.minimum(image, call.infer)
        agreed = consensus(found, minimum) if call.infer.consensus > 1 else next(iter(found))
        image.give_back_memory()  # before the result is drawn and written
        return self._with_ood_score(agreed, image)

    def _with_ood_score(self, panoptic: Panoptic, image: ResizedImage) -> Panoptic:
        """The segmentation with the image's out-of-distribution score, if the checkpoint has statistics for it."""
        statistics = self.checkpoint.familiarity
        if not statistics or math.prod(image.size) < statistics.min_pixels:
            return panoptic
        return replace(panoptic, ood_score=statistics.ood_score(familiarity.feature_statistics(image.moments)))

    def _progress(self, views: Sequence[_View], call: _Call) -> Iterator[tuple[float, Panoptic]]:
        """All windows advance together: a result after each step of the first sample, then after each sample."""
        found, number, total = [], 0, call.infer.consensus * call.infer.steps
        for view in views:
            loops = self._loops(self.tiling.split(*view), self._denoiser(call.infer), self.runner.batch_size)
            for steps in zip(*(_padded(loop, call.infer.steps) for loop in loops), strict=True):
                number += 1
                is_last = number % call.infer.steps == 0
                if found and not is_last:
                    continue
                masks = chain.from_iterable(map(self.runner.masks, steps))
                shown = self.tiling.stitch(view.image, masks, call.infer)
                if is_last:
                    found.append(shown)
                if number == total:
                    shown = self._consensus(views[0].image, found, call)
                yield number / total, shown if number == total else next(iter(found), shown)

    def _hinted_progress(self, image: ResizedImage, call: _Call, hints: Panoptic) -> Iterator[tuple[float, Panoptic]]:
        """One window after the other; the steps are shown if there is only one window."""
        mask = self.tiling.inpainted(image, hints)
        windows, denoiser = self.tiling.split(image, _generators(call.seed, 1), mask), self._denoiser(call.infer)
        count = len(image.corners)
        for number, loop in enumerate(self._loops(windows, denoiser, 1)):
            for done, step in enumerate(loop, start=1):
                if step.is_last or count == 1:
                    shown = mask if step.is_last else deepcopy(mask)
                    self.tiling.add(shown, number, self.runner.masks(step)[0], image, call.infer)
                    share = (number + (1 if step.is_last else done / call.infer.steps)) / count
                    result = self.tiling.finish(shown, image, hints, call.infer)
                    yield share, self._with_ood_score(result, image)


def _padded(steps: Iterator[Step], count: int) -> Iterator[Step]:
    """`count` steps of each sample: the last one is repeated where a sample needed fewer."""
    used = 0
    for step in steps:
        used += 1
        yield step
        if step.is_last:
            yield from repeat(step, count - used)
            used = 0


def _reported(
    masks: Iterator[list[np.ndarray]], count: int, on_window: Callable[[int, int], None]
) -> Iterator[list[np.ndarray]]:
    """The masks of an image's `count` windows, unchanged; `on_window` is called for each."""
    for done, found in enumerate(masks, start=1):
        on_window(done, count)
        yield found


def _few_windows(image: ResizedImage) -> ResizedImage:
    return replace(image, corners=image.corners[:: -(-len(image.corners) // _FEW_WINDOWS)], moments=[])


def _generators(seed: int, samples: int) -> list[torch.Generator]:
    """One generator for each sample, with the seeds `seed`, `seed + 1`, ..."""
    return [torch.Generator().manual_seed(seed + k) for k in range(samples)]
