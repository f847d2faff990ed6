"""Fewer steps (the paper's outlook, §5): a checkpoint is trained for the number of steps that it will take.

This is a kind of consistency training (Song et al. 2023). The model takes its few steps as in inference, and from every
state that it reaches, its prediction is compared with the truth. A mask with random ids cannot be the target of one
step: noise does not say which instance gets which id, so the best prediction would be an average. Masks that differ
only in their ids are equivalent, so the target is the one in which the ids follow from the first state, unless a
neighbour needs the id (as Kulikov et al. 2018, "Deep Coloring", let the network choose the colours). Where sampling
starts from a grid of ids (`Pix2SeqD.initial_state`), an instance has the id of the cell at its middle. Where it starts
from noise, it has the id that the noise over it is most like: data and noise are assigned to each other as in
"Immiscible Diffusion" (Li et al. 2024).
"""

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from pix2seqd.analog_bits import binary_codes, code_table, to_codes
from pix2seqd.checkpoint import Checkpoint, from_pretrained
from pix2seqd.config import AugmentConfig, DataConfig, InferConfig, ModelConfig, Recipe, TrainConfig
from pix2seqd.diffusion import ddim_step, gamma, time_steps
from pix2seqd.files import InputError
from pix2seqd.loss import cross_entropy
from pix2seqd.panoptic.reused_ids import ID_DISTANCE, assign_preferred, near_boxes
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.training.train import train

Start = Literal["cells", "noise"]
"""What a student starts from: a grid of ids, or noise as in the paper."""

_BIT_WEIGHT = 2.0
"""Weight of a bit of the first state for or against an id, in nats per pixel of an instance."""

_KEPT = 1e9
"""Preference for the id of a track, in nats: above that of any number of pixels."""

MIN_SHARE = 0.15
"""`InferConfig.min_share` of a student: few steps leave more fragments than many (docs/notebook/few-steps.md)."""


class Student(Pix2SeqD):
    """A copy of a model. Its loss is that of its own few steps.

    The teacher is not changed; `data` says how masks get their ids, `infer` how the student is sampled.
    """

    def __init__(self, teacher: Pix2SeqD, data: DataConfig, infer: InferConfig, start: Start = "cells") -> None:
        super().__init__(student_config(teacher.config, start))
        self.load_state_dict(teacher.state_dict())
        self.data, self.infer_config = data, infer

    def train_loss(
        self,
        images: Tensor,
        masks: Tensor,
        past: Tensor | None = None,
        *,
        t: Tensor | None = None,
        noise: Tensor | None = None,
        instances: Tensor | None = None,
        state: Tensor | None = None,
    ) -> Tensor:
        """Cross-entropy of the prediction at each step, averaged over steps and channels.

        Args are those of `Pix2SeqD.train_loss`; t and state are not read, for they follow from the steps.
        """
        config = self.config
        h = self.pixel_encoder(images)
        shape = (len(images), config.mask.total_bits, *masks.shape[-2:])
        m_t = self.initial_state(torch.randn(shape, device=images.device) if noise is None else noise, past)
        weights = self.pixel_weights(masks, instances)
        # Where ids are reused, stuff needs no id, and its 0 would mix with a thing's id along the outline.
        id_weights = weights if instances is None else weights * (masks[:, 1] > 0)
        m_pred, losses = None, []
        for step in time_steps(self.infer_config.steps, self.infer_config.td):
            times, before = torch.tensor(step, device=images.device), m_pred
            m_logits, m_pred = self.mask_decoder(m_t, h, times[:1].expand(len(m_t)), past)
            target = self.relabel(masks, instances, m_t, before, m_logits[1], past)
            target = to_codes(target, config.mask.bits, config.mask.encoding)
            for channel, weight in enumerate((weights, id_weights)):
                one = slice(channel, channel + 1)
                losses.append(cross_entropy(m_logits[one], target[:, one], weight).mean())
            m_t = ddim_step(m_t, m_pred.detach(), *gamma(times, config.schedule))
        return torch.stack(losses).mean()

    forward = train_loss

    @torch.no_grad()
    def relabel(
        self,
        masks: Tensor,
        instances: Tensor | None,
        first: Tensor,
        before: Tensor | None,
        logits: Tensor,
        past: Tensor | None = None,
    ) -> Tensor:
        """The same masks with other ids: for each instance the id that most of it already has.

        At the first step this is the id that the first state shows at the middle of the instance, or that noise over
        the instance is most like. At later steps it is the id that the previous step predicted. Where this is not
        clear, the present prediction decides; among neighbours, the one with the larger loss by another id gets the id.

        Args:
            masks: int64 `[b, 2, h, w]`.
            instances: int64 `[b, h, w]`, which instance a pixel belongs to where ids are reused; None: the ids.
            first: the first state, `[b, bits, h, w]`.
            before: the analog bits that the previous step predicted, likewise; None at the first step.
            logits: prediction for the id channel, `[b, 2^bits, h, w]`.
            past: masks of past frames, int64 `[b, f, 2, h, w]`. They determine the ids of the instances that they show.

        Returns:
            int64 `[b, 2, h, w]`; pixels of id 0 keep it, and where ids are reused a thing may also get id 0.
        """
        config = self.config
        numbers = masks[:, 1] if instances is None else instances
        # Where ids are reused, 0 is a normal id: the class says whether a pixel belongs to a thing.
        lowest = 1 if instances is None else 0
        allowed = code_table(config.mask.bits[1], config.mask.encoding)[lowest : config.mask.max_instances]
        allowed = allowed.to(logits.device)
        signs = binary_codes(config.mask.bits[1], logits.device)[allowed] * 2 - 1
        places = _places(numbers)
        present = _totals(masks[:, 1:] > 0, places)[..., 0] > 0
        boxes = _boxes(numbers, places)

        ids_of = slice(-config.mask.bits[1], None)
        if before is None:
            if config.mask.init_id_cell:
                middles = (boxes[..., :2] + boxes[..., 2:] // 2) * present[..., None]
                seen = _at(_mean_around(first[:, ids_of], config.mask.init_id_cell // 2), middles)
            else:
                seen = _noise_over(numbers, first[:, ids_of], places)
            shown = seen * _totals(torch.ones_like(first[:, :1]), places)
        else:
            shown = _totals(before[:, ids_of].sign(), places)
        likelihood = _totals(logits.float().log_softmax(dim=1)[:, allowed], places)

        near = near_boxes(boxes, ID_DISTANCE) if instances is not None else present[:, None]
        near = near & ~torch.eye(present.shape[1], dtype=torch.bool, device=near.device)
        preference = likelihood + _BIT_WEIGHT * (shown @ signs.T)
        if past is not None:
            preference += self._tracked(masks[:, 1], past, places, lowest)
        ids = assign_preferred(near, preference, present) - 1 + lowest
        renamed = torch.where(present, ids, 0).gather(1, numbers.flatten(1)).view_as(numbers)
        return torch.stack([masks[:, 0], renamed], dim=1)

    def _tracked(self, ids: Tensor, past: Tensor, places: "Places", lowest: int) -> Tensor:
        """Preference `[b, n, ids]` that leaves instances the ids `[b, h, w]` that the past shows near them.

        An instance that the past does not show, because it is new or was missed, has no id yet and may get any.
        """
        colors = torch.arange(lowest, self.config.mask.max_instances, device=ids.device)
        near = (past[:, :, 1, None] == colors[:, None, None]).any(dim=1).float()
        reach = 2 * self.config.mask.init_id_cell
        for axes in ((1, 0), (0, 1)):
            near = F.max_pool2d(near, [2 * reach * n + 1 for n in axes], 1, [reach * n for n in axes])
        own = (ids[:, None] == colors[:, None, None]).float()
        return _KEPT * (_totals(near * own, places) > 0)


Places = tuple[Tensor, tuple[int, int]]
"""Index of each pixel's number in a table of all examples' numbers, and the table's size (examples, numbers)."""


def _places(numbers: Tensor) -> Places:
    """`Places` of the numbers `[b, h, w]`."""
    b, count = len(numbers), int(numbers.max()) + 1
    return (numbers + count * torch.arange(b, device=numbers.device)[:, None, None]).flatten(), (b, count)


def _totals(values: Tensor, places: Places) -> Tensor:
    """Sums of `values` `[b, c, h, w]` over the pixels of each number: `[b, numbers, c]`."""
    index, (b, count) = places
    sums = torch.zeros(b * count, values.shape[1], device=values.device)
    return sums.index_add_(0, index, values.movedim(1, -1).flatten(0, 2).float()).view(b, count, -1)


def _mean_around(values: Tensor, reach: int) -> Tensor:
    """The mean of `values` `[b, c, h, w]` over the square that reaches so far from each pixel."""
    for axes in ((1, 0), (0, 1)):
        size, padding = [2 * reach * n + 1 for n in axes], [reach * n for n in axes]
        values = F.avg_pool2d(values, size, 1, padding, count_include_pad=False)
    return values


def _at(values: Tensor, places: Tensor) -> Tensor:
    """`values` `[b, c, h, w]` at places (x, y), int64 `[b, n, 2]`: `[b, n, c]`."""
    index = places[..., 0] + values.shape[-1] * places[..., 1]
    return values.flatten(2).gather(2, index[:, None].expand(-1, values.shape[1], -1)).mT


def _noise_over(numbers: Tensor, noise: Tensor, places: Places) -> Tensor:
    """Weighted sums of `noise` `[b, c, h, w]`, of unit variance, over the pixels of each number: `[b, numbers, c]`.

    The weights are a Gaussian around the centroid, exp(-2) at the edge of a disk, so that pixels along the outline,
    of which a first prediction is not sure, count little.
    """
    height, width = numbers.shape[-2:]
    y, x = torch.meshgrid(*(torch.arange(n, device=noise.device) for n in (height, width)), indexing="ij")
    at = torch.stack([x, y, torch.ones_like(x)]).float().expand(len(numbers), -1, -1, -1)
    sums = _totals(at, places).gather(1, numbers.flatten(1)[..., None].expand(-1, -1, 3)).mT.unflatten(2, x.shape)
    center, area = sums[:, :2] / sums[:, 2:], sums[:, 2:]
    weights = torch.exp(-2 * torch.pi * (at[:, :2] - center).square().sum(dim=1, keepdim=True) / area)
    return _totals(weights * noise, places) / _totals(weights**2, places).sqrt().clamp(min=1e-6)


def _boxes(numbers: Tensor, places: Places) -> Tensor:
    """x, y, width and height, int64 `[b, numbers, 4]`, of the pixels that have each of the numbers `[b, h, w]`."""
    index, (b, count) = places
    edges = []
    for axis in (2, 1):
        at = torch.arange(numbers.shape[axis], device=numbers.device).unsqueeze(2 - axis).expand_as(numbers).flatten()
        low, high = (
            at.new_zeros(b * count).scatter_reduce(0, index, at, how, include_self=False) for how in ("amin", "amax")
        )
        edges.append((low, high - low + 1))
    (x, width), (y, height) = edges
    return torch.stack([x, y, width, height], dim=1).view(b, count, 4)


def student_config(teacher: ModelConfig, start: Start = "cells") -> ModelConfig:
    """The same networks with this start; a new cell is one pixel of the decoder's coarsest map."""
    cell = teacher.mask.init_id_cell or teacher.decoder.cell
    return teacher.replace(mask={"init_id_cell": cell if start == "cells" else 0})


def distill(
    checkpoint: str,
    data: str,
    out: Path,
    *,
    steps: int,
    td: float,
    config: TrainConfig,
    start: Start = "cells",
    side: int = 0,
    resume: bool = False,
    trust_size: bool = False,
) -> Checkpoint:
    """Train a checkpoint that needs few steps. The folder is that of a training run, and can be resumed like one.

    Args:
        checkpoint: the teacher: a bundled name, a folder or a hub id.
        data: labelled images, as `Recipe.train_data`; results of `pix2seqd segment` work too.
        out: folder of the run; out/model is the result.
        steps: denoising steps of the result, which takes one sample by default.
        td: τ_d of the result.
        config: settings of the training.
        start: what sampling starts from.
        side: side of the training windows in pixels; 0: as in inference.
        resume: continue the run in `out`.
        trust_size: as `pix2seqd.checkpoint.from_pretrained` takes it.

    Raises:
        InputError: the checkpoint gives no logits, or as `train`.
    """
    teacher = from_pretrained(checkpoint, trust_size)
    if teacher.model.config.decoder.head != "softmax":
        raise InputError(f"{checkpoint} has a linear head; distillation needs logits: give one with a softmax head")
    input_size = tuple(n * teacher.infer.input_scale for n in teacher.data.size)
    train_data = teacher.data.replace(size=(side, side) if side else input_size)
    infer = teacher.infer.replace(
        steps=steps, first_steps=0, td=td, consensus=1, unconditioned_share=0.0, min_share=MIN_SHARE
    )
    recipe = Recipe(
        student_config(teacher.model.config, start),
        train_data,
        _augmentation(train_data),
        train=config,
        infer=infer.replace(input_scale=1),
        train_data=data,
        init=checkpoint,
        trust_size=trust_size,
    )
    return train(recipe, out, resume, lambda _: Student(teacher.model, train_data, infer, start), (teacher.data, infer))


def _augmentation(data: DataConfig) -> AugmentConfig:
    """Other scales, colours and orientations, which a student would otherwise forget (docs/notebook/few-steps.md)."""
    common = AugmentConfig(jitter=(0.6, 1.8), color_jitter=0.3, flip="horizontal")
    return common if data.layout == "resize" else common.replace(flip="all", invert=0.1)
