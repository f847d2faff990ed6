"""`Segmenter`: the only path from pixels to `Panoptic`, for the command line, the evaluation and Python."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import chain, islice, tee
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, Unpack

import numpy as np
import torch
from torch import Tensor

from pix2seqd.checkpoint import Checkpoint, find_folder, from_pretrained
from pix2seqd.config import InferConfig, require
from pix2seqd.files import InputError
from pix2seqd.images.load import Source, load_image
from pix2seqd.inference.consensus import consensus
from pix2seqd.inference.inpainting import Canvas
from pix2seqd.inference.runner import Runner
from pix2seqd.inference.tiling import Scaled, Windows
from pix2seqd.inference.tracking import Tracker
from pix2seqd.inference.video import Stream
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy

_LOOKS = 2
"""How often the scale of a picture is corrected by what is seen at the scale before: things that are far too large
seem to be several, small ones to be one."""
_LOOK_WINDOWS = 4
_LOOK_STEPS = 5
_NEAR = 1.25
"""Scales that differ by less are as good."""


class ImageOptions(TypedDict, total=False):
    """How a picture is segmented; what is left out or None is as the checkpoint says (`InferConfig`)."""

    seed: int
    """Of the picture's own noise; the same seed gives the same segmentation, alone or in a batch. 0 if left out."""
    steps: int | None
    """How often the decoder runs, 1 or more."""
    td: float | None
    """τ_d ≥ 0 (§3.3)."""
    min_pixels: int | None
    """Smaller segments are discarded."""
    diameter: float | None
    """What things measure across, in pixels of the picture, for checkpoints that bring them to one size
    (`DataConfig.diameter`); 0: it looks for itself first."""
    consensus: int | None
    """Odd number of samples, from the seeds from `seed` on, whose consensus is the answer (`ensemble.consensus`)."""


class Segmenter:
    """A checkpoint, ready to segment pictures.

    Args of the constructor:
        pretrained: model (moved there; what is kept is a copy for inference, not for saving), taxonomy and settings.
        device: "auto" takes a CUDA device where there is one.
        dtype: precision of the networks; "auto" is bfloat16 where the hardware computes it natively, else float32.
    """

    def __init__(
        self,
        pretrained: Checkpoint,
        device: str = "auto",
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    ) -> None:
        self.runner = Runner(pretrained.model, device, dtype)
        self.model, self.device, self.bfloat16 = self.runner.model, self.runner.device, self.runner.bfloat16
        self.checkpoint = replace(pretrained, model=self.model)
        self.windows = Windows(pretrained)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, device: str = "auto", dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    ) -> Self:
        """From a folder, a bundled name ("nuclei") or a hub id.

        Raises:
            InputError: no such checkpoint, or it is damaged; no such device.
        """
        return cls(from_pretrained(name), device, dtype)

    @property
    def taxonomy(self) -> Taxonomy:
        """What the categories of the results mean."""
        return self.checkpoint.taxonomy

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return self.windows.size

    def describe(self) -> dict[str, Any]:
        """What determines a result beside the picture, the seed and the options of the call; plain values."""
        return {
            "model": self.checkpoint.name,
            "weights": self.checkpoint.digest,
            "dtype": "bfloat16" if self.bfloat16 else "float32",
            **self.checkpoint.infer.to_dict(),
        }

    def image(self, source: Source, *, known: Panoptic | None = None, **given: Unpack[ImageOptions]) -> Panoptic:
        """Segment one picture.

        Args:
            source: path, PIL image or array, whatever `load_image` takes.
            known: what is given, of the picture's size; void is unknown. Its pixels keep their segment (id and
                category), the rest is sampled to go with them (once: there is no consensus), and a segment grows where
                it was given in part.
            given: see `ImageOptions`.

        Returns:
            A segmentation of the picture's own size.

        Raises:
            InputError: the picture cannot be read, an option makes no sense, or `known` has another size or other
                categories.
        """
        if known is None:
            return next(self.images([source], **given))
        options, seed = self._image_options(given)
        return self._continued(self.scaled(source, options), known, options, seed)

    __call__ = image

    def push_to_hub(self, repository: str, **options: Any) -> str:
        """Upload the checkpoint that this segmenter was loaded from to the Hugging Face hub.

        The files themselves are uploaded: the networks held here may have a lower precision.

        Args:
            repository: "owner/name"; made if it does not exist.
            options: as `pix2seqd.hub.push_to_hub` takes them (data, licence, results, token, ...).

        Returns:
            The upload's address.

        Raises:
            InputError: the checkpoint was not loaded from files, or as `pix2seqd.hub.push_to_hub`.
        """
        from pix2seqd.interop.hub import push_to_hub

        if not self.checkpoint.name:
            raise InputError("this checkpoint has no folder; write it with save_pretrained and push that folder")
        return push_to_hub(find_folder(self.checkpoint.name), repository, **options)

    def progress(
        self, source: Source, *, known: Panoptic | None = None, **given: Unpack[ImageOptions]
    ) -> Iterator[tuple[float, Panoptic]]:
        """`image`, showing how the segmentation comes about.

        Yields:
            The share that is done, up to 1, and the segmentation so far; the last is what `image` returns. There is
            one after each denoising step. Where windows are sampled one after the other (those of a large picture
            with `known`, or `InferConfig.seams` "known"), there is one after each window, void where none is done. Of
            a consensus, the first sample is shown step by step, and then until all samples are there.
        """
        options, seed = self._image_options(given)
        picture = self.scaled(source, options)
        if known is not None or options.seams == "known":
            canvases = self._continuing(picture, known, options, seed, every_step=True)
            shown = ((share, self.windows.finish(c, picture, known, options.min_pixels)) for share, c in canvases)
        else:
            shown = self._steps(picture, options, seed)
        rounds = options.consensus if known is None else 1
        found: list[Panoptic] = []
        for share, panoptic in shown:
            found = [panoptic]
            yield share / rounds, panoptic
        for number in range(1, rounds):
            found += self._samples(picture, 1, options, seed + number, self.runner.batch_size)
            last = number + 1 == rounds
            yield (number + 1) / rounds, self._agreed(picture, found, options) if last else found[0]

    def samples(self, source: Source, n: int = 5, **given: Unpack[ImageOptions]) -> list[Panoptic]:
        """Several segmentations of one picture: number k, from 0, is `image` with the seed `seed + k`, no consensus.

        `pix2seqd.inference.consensus` says how sure they are, and what they agree on.

        Raises:
            InputError: as `image`, or n is below 1.
        """
        if n < 1:
            raise InputError(f"the number of samples must be 1 or more, not {n}")
        options, seed = self._image_options(given)
        self._image_options({"seed": seed + n - 1})
        return self._samples(self.scaled(source, options), n, options, seed, self.runner.batch_size)

    def images(
        self, sources: Iterable[Source], *, batch_size: int | None = None, **given: Unpack[ImageOptions]
    ) -> Iterator[Panoptic]:
        """Segment many pictures, each as `image` does; `batch_size` windows go through the network at once."""
        options, seed = self._image_options(given)
        batch_size = self.runner.batch_size if batch_size is None else batch_size
        if batch_size < 1:
            raise InputError(f"batch size must be 1 or more, not {batch_size}")

        def generate(images: Tensor, noise: Tensor) -> Tensor:
            return self.model.infer(images, noise, options.steps, options.td)

        # Windows and their masks are streams: of a large picture, and of many, only a few exist at any time.
        pictures = (self.scaled(source, options) for source in sources)
        if options.seams == "known" or options.consensus > 1:
            for picture in pictures:
                yield self._agreed(
                    picture, self._samples(picture, options.consensus, options, seed, batch_size), options
                )
            return
        pictures, again = tee(pictures)
        windows = chain.from_iterable(self.windows.cut(picture, _generator(seed)) for picture in pictures)
        masks = self.runner.masks(windows, generate, batch_size)
        for picture in again:
            yield self.windows.assemble(picture, masks, options.min_pixels)

    def video(
        self,
        frames: Iterable[Source],
        *,
        first_steps: int | None = None,
        t_start: float | None = None,
        adaptive: float | None = None,
        **given: Unpack[ImageOptions],
    ) -> Iterator[Panoptic]:
        """Segment a video and track what is in it (§3.4), frame by frame: each is answered before the next is read.

        Only what the next frame needs is kept, so `frames` may be endless (a camera). A segment's id means the same
        object in all frames; `tracking.Tracker` says how, and what becomes of objects that leave, return, divide or
        are too many. Checkpoints for images work too: every frame by itself, matched with the one before by IoU.

        Args:
            frames: of one size, whatever `load_image` takes.
            first_steps: how often the decoder runs on the first frame; None: the checkpoint's default, as below.
            t_start: time in (0, 1] at which later frames start; below 1 from the corrupted mask of the frame before.
            adaptive: average steps of later frames, 1 or more, spent where the mask changes; 0: always `steps`.
            given: see `ImageOptions`; steps are those of later frames, and the scale of the first frame that shows a
                thing is that of all. The same frames and seed give the same result.

        Raises:
            InputError: a frame cannot be read or has another size than the first, or an option makes no sense.
        """
        options, seed = self._options({**given, "first_steps": first_steps, "t_start": t_start, "adaptive": adaptive})
        data, model = self.checkpoint.data, self.model.config
        stream, tracker = Stream(self.model, options), Tracker(data.ids == "unique", model.past_frames)
        informed = model.past_frames > 0 or options.t_start < 1
        generators, size = [_generator(seed + k) for k in range(options.consensus)], None
        for number, frame in enumerate(frames, start=1):
            picture = self.scaled(frame, options)
            if picture.size != (size := size or picture.size):
                now, before = (f"{width} x {height}" for height, width in (picture.size, size))
                raise InputError(f"frame {number} is {now} pixels, but those before are {before}; give one size only")
            masks = self._masks(picture, generators, stream, self.runner.batch_size)
            found = [self.windows.assemble(picture, iter(sample), options.min_pixels) for sample in masks]
            told = masks[: stream.told] if informed else []
            ids = [self.windows.generated_ids(picture, sample) for sample in told]
            yield (result := tracker.update(self._agreed(picture, found, options), np.stack(ids) if ids else None))
            if data.diameter and not options.diameter:
                if not result.diameter():
                    continue  # nothing yet that would tell the scale, or the next frame of anything
                options = options.replace(diameter=data.diameter / picture.zoom)  # all frames at one scale
            past = tracker.tell(model.max_instances - 1, data.id_distance * model.mask_stride / picture.zoom)
            drawn = (self.windows.drawn(frame.panoptic, frame.generated, picture) for frame in past)
            stream.remember([torch.from_numpy(masks).to(self.device) for masks in drawn])

    def scaled(self, source: Source, options: InferConfig) -> Scaled:
        """A picture at the network's scale; with `DataConfig.diameter`, that at which its things have this size.

        The scale depends on nothing but the picture, so that it is the same for every seed.
        """
        data, image = self.checkpoint.data, load_image(source)
        picture = self.windows.scaled(image, data.at_scale_of(options.diameter).zoom)
        if not data.diameter or options.diameter:
            return picture
        for _ in range(_LOOKS):
            corners = picture.corners[:: -(-len(picture.corners) // _LOOK_WINDOWS)]
            look = replace(picture, corners=corners)
            masks = self.runner.masks(self.windows.cut(look, _generator(0)), self._look, self.runner.batch_size)
            zoom = data.at_scale_of(self.windows.diameter(look, masks)).zoom
            if 1 / _NEAR < zoom / picture.zoom < _NEAR:
                break
            picture = self.windows.scaled(image, zoom)
        return picture

    def _image_options(self, given: Mapping[str, Any]) -> tuple[InferConfig, int]:
        steps = given.get("steps")
        steps = self.checkpoint.infer.first_steps or None if steps is None else steps
        return self._options({**given, "steps": steps, "first_steps": 0})

    def _options(self, given: Mapping[str, Any]) -> tuple[InferConfig, int]:
        """What holds for a call, and its seed."""
        changes = {key: value for key, value in given.items() if value is not None}
        seed = changes.pop("seed", 0)
        scales = self.checkpoint.data.diameter > 0
        try:
            require(
                (0 <= seed < 2**63, f"seed must be 0 or more and below 2^63, not {seed}"),
                (scales or not changes.get("diameter"), "this checkpoint does not scale pictures; leave diameter out"),
            )
            return self.checkpoint.infer.replace(**changes), seed
        except ValueError as error:
            raise InputError(str(error)) from error

    def _look(self, images: Tensor, noise: Tensor) -> Tensor:
        infer = self.checkpoint.infer  # the checkpoint's: the scale is the same whatever a call asks for
        return self.model.infer(images, noise, min(_LOOK_STEPS, infer.first_steps or infer.steps), infer.td)

    def _samples(self, picture: Scaled, n: int, options: InferConfig, seed: int, batch_size: int) -> list[Panoptic]:
        """Segmentations from the seeds `seed` .. `seed + n - 1`."""
        if options.seams == "known":
            return [self._continued(picture, None, options, seed + k) for k in range(n)]
        generators = [_generator(seed + k) for k in range(n)]
        masks = self._masks(picture, generators, Stream(self.model, options), batch_size)
        return [self.windows.assemble(picture, iter(sample), options.min_pixels) for sample in masks]

    def _masks(
        self,
        picture: Scaled,
        generators: Sequence[torch.Generator],
        stream: Stream,
        batch_size: int,
    ) -> list[list[np.ndarray]]:
        """For the noise of each generator the masks of all windows; the encoder sees every window once."""
        masks: list[list[np.ndarray]] = [[] for _ in generators]
        windows = zip(*(self.windows.cut(picture, generator) for generator in generators), strict=True)
        while batch := list(islice(windows, batch_size)):
            h = self.runner.encoded([drawn[0][0] for drawn in batch])
            first = len(masks[0])
            for sample, drawn in enumerate(zip(*batch, strict=True)):
                generate = partial(stream.generate, h, first=first, sample=sample)
                masks[sample].extend(self.runner.generated([noise for _, noise in drawn], generate))
        return masks

    def _agreed(self, picture: Scaled, found: list[Panoptic], options: InferConfig) -> Panoptic:
        least = self.windows.least(picture, options.min_pixels)
        return consensus(found, least) if len(found) > 1 else found[0]

    def _steps(self, picture: Scaled, options: InferConfig, seed: int) -> Iterator[tuple[float, Panoptic]]:
        """One sample, all its windows at once: the share done, and the segmentation after each denoising step."""
        streams = []
        windows = self.windows.cut(picture, _generator(seed))
        while batch := list(islice(windows, self.runner.batch_size)):
            images, noise = zip(*batch, strict=True)
            streams.append(self.runner.denoised(self.runner.encoded(images), noise, options))
        for step, masks in enumerate(zip(*streams, strict=True), start=1):
            found = self.windows.assemble(picture, chain.from_iterable(masks), options.min_pixels)
            yield step / options.steps, found

    def _continued(self, picture: Scaled, known: Panoptic | None, options: InferConfig, seed: int) -> Panoptic:
        _, canvas = deque(self._continuing(picture, known, options, seed), maxlen=1).pop()
        return self.windows.finish(canvas, picture, known, options.min_pixels)

    def _continuing(
        self, picture: Scaled, known: Panoptic | None, options: InferConfig, seed: int, every_step: bool = False
    ) -> Iterator[tuple[float, Canvas]]:
        """Sample window after window, each continuing what is known: the share done, and the mask so far."""
        canvas, windows = self.windows.canvas(picture, known), self.windows.cut(picture, _generator(seed))
        count = len(picture.corners)
        for number, ((top, left), (image, noise)) in enumerate(zip(picture.corners, windows, strict=True), start=1):
            given = torch.from_numpy(canvas.mask(top, left, *noise.shape[1:]))[None].to(self.device)
            h = self.runner.encoded([image])
            for step, masks in enumerate(self.runner.denoised(h, [noise], options, given), start=1):
                if step == options.steps or (count == 1 and every_step):
                    after = canvas if step == options.steps else deepcopy(canvas)
                    self.windows.add(after, top, left, masks[0], picture, options.min_pixels)
                    yield ((number - 1) + step / options.steps) / count, after


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
