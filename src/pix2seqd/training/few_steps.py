"""Fewer steps (the paper's outlook, §5): a checkpoint learns to be right in as many steps as it will be given.

A kind of consistency training (Song et al. 2023): the model takes its few steps as in use, and from every state that it
comes to by itself its prediction is drawn to the truth. What makes one step possible at all is that ids are names: a
mask with ids drawn at random is no target, since noise cannot tell which instance is to be called what, and the best
single step would be an average. So sampling starts from names in cells (`Pix2SeqD.initial_state`), and of all masks
that say the same the target is the one in which an instance has the name that lies at its middle, as far as its
neighbours leave it (as Kulikov et al. 2018, "Deep Coloring", let instances have what colour they like).
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pix2seqd.analog_bits import codes
from pix2seqd.checkpoint import Checkpoint, from_pretrained
from pix2seqd.config import AugmentConfig, DataConfig, InferConfig, ModelConfig, Recipe, TrainConfig
from pix2seqd.diffusion import ddim_step, gamma, time_steps
from pix2seqd.files import InputError
from pix2seqd.loss import cross_entropy, instance_weights
from pix2seqd.panoptic.reused_ids import ID_DISTANCE, assign_preferred, crossing
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.training.train import train

_SURE = 2.0
"""What a bit of the first state says for or against an id, in nats per pixel of an instance."""

_MIN_SHARE = 0.15
"""`InferConfig.min_share` of a student: few steps leave more cut off than many (docs/results.md)."""


class Student(Pix2SeqD):
    """A copy of a model that starts from names in cells, and whose loss is that of its own few steps.

    Args of the constructor:
        teacher: the model; it stays as it is.
        data: how masks get their ids.
        few: how the student is sampled.
    """

    def __init__(self, teacher: Pix2SeqD, data: DataConfig, few: InferConfig) -> None:
        super().__init__(student_config(teacher.config))
        self.load_state_dict(teacher.state_dict())
        self.data, self.few = data, few

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

        Args are those of `Pix2SeqD.train_loss`; t and state are not read.
        """
        config = self.config
        h = self.pixel_encoder(images)
        shape = (len(images), config.mask.total_bits, *masks.shape[-2:])
        m_t = self.initial_state(torch.randn(shape, device=images.device) if noise is None else noise)
        weights = instance_weights(*self._counted(masks, instances))
        # Nobody reads ids of stuff where ids are reused, and their 0 would mix with a thing's id along its outline.
        of_ids = weights if instances is None else weights * (masks[:, 1] > 0)
        m_pred, losses = None, []
        for step in time_steps(self.few.steps, self.few.td):
            times, before = torch.tensor(step, device=images.device), m_pred
            m_logits, m_pred = self.mask_decoder(m_t, h, times[:1].expand(len(m_t)), past)
            target = self.named(masks, instances, m_t, before, m_logits[1], past)
            for channel, weight in enumerate((weights, of_ids)):
                one = slice(channel, channel + 1)
                losses.append(cross_entropy(m_logits[one], target[:, one], weight).mean())
            m_t = ddim_step(m_t, m_pred.detach(), *gamma(times, config.schedule))
        return torch.stack(losses).mean()

    forward = train_loss

    @torch.no_grad()
    def named(
        self,
        masks: Tensor,
        instances: Tensor | None,
        first: Tensor,
        before: Tensor | None,
        logits: Tensor,
        past: Tensor | None = None,
    ) -> Tensor:
        """The same masks with other ids: those that an instance already has for the most part.

        That is at first what the first state shows at its middle, and then what the step before predicted. In between
        the prediction decides, and among neighbours who would lose most by another id.

        Args:
            masks: int64 `[b, 2, h, w]`.
            instances: int64 `[b, h, w]`, which instance a pixel belongs to where ids are reused; None: the ids.
            first: the first state, `[b, bits, h, w]`.
            before: the analog bits that the step before predicted, likewise; None: there was none.
            logits: what is predicted for the id channel, `[b, 2^bits, h, w]`.
            past: masks of past frames; they say which ids are meant, so such examples stay as they are.

        Returns:
            int64 `[b, 2, h, w]`; pixels of id 0 keep it, and where ids are reused a thing may get it, too.
        """
        config = self.config
        numbers = masks[:, 1] if instances is None else instances
        # Where ids are reused, 0 is one of them: what makes a thing of a pixel is its class.
        legal = slice(1 if instances is None else 0, config.mask.max_instances)
        signs = codes(config.mask.bits[1], logits.device)[legal] * 2 - 1
        places = _places(numbers)
        there = _totals(masks[:, 1:] > 0, places)[..., 0] > 0
        boxes = _boxes(numbers, places)

        ids_of, half = slice(-config.mask.bits[1], None), config.mask.init_id_cell // 2
        if before is None:
            seen = first[:, ids_of]
            for ways in ((1, 0), (0, 1)):  # the mean over a square
                size, padding = [2 * half * n + 1 for n in ways], [half * n for n in ways]
                seen = F.avg_pool2d(seen, size, 1, padding, count_include_pad=False)
            x, y = (boxes[..., :2] + boxes[..., 2:] // 2).unbind(dim=2)
            middles = torch.where(there, x + seen.shape[-1] * y, 0)[:, None].expand(-1, config.mask.bits[1], -1)
            shown = seen.flatten(2).gather(2, middles).mT * _totals(torch.ones_like(seen[:, :1]), places)
        else:
            shown = _totals(before[:, ids_of].sign(), places)
        likelihood = _totals(logits.float().log_softmax(dim=1)[:, legal], places)

        near = crossing(boxes, ID_DISTANCE) if instances is not None else there[:, None]
        near = near & ~torch.eye(there.shape[1], dtype=torch.bool, device=near.device)
        ids = assign_preferred(near, likelihood + _SURE * (shown @ signs.T), there) - 1 + legal.start
        renamed = torch.where(there, ids, 0).gather(1, numbers.flatten(1)).view_as(numbers)
        if past is not None:
            renamed = torch.where(past.flatten(1).any(dim=1)[:, None, None], masks[:, 1], renamed)
        return torch.stack([masks[:, 0], renamed], dim=1)


Places = tuple[Tensor, tuple[int, int]]
"""Where each pixel's number stands in a table of all examples' numbers, and how many of both there are."""


def _places(numbers: Tensor) -> Places:
    """Of the numbers `[b, h, w]`."""
    b, most = len(numbers), int(numbers.max()) + 1
    return (numbers + most * torch.arange(b, device=numbers.device)[:, None, None]).flatten(), (b, most)


def _totals(values: Tensor, places: Places) -> Tensor:
    """Sums of `values` `[b, c, h, w]` over the pixels of each number: `[b, numbers, c]`."""
    index, (b, most) = places
    sums = torch.zeros(b * most, values.shape[1], device=values.device)
    return sums.index_add_(0, index, values.movedim(1, -1).flatten(0, 2).float()).view(b, most, -1)


def _boxes(numbers: Tensor, places: Places) -> Tensor:
    """x, y, width and height, int64 `[b, numbers, 4]`, of the pixels that have each of the numbers `[b, h, w]`."""
    index, (b, most) = places
    edges = []
    for axis in (2, 1):
        at = torch.arange(numbers.shape[axis], device=numbers.device).unsqueeze(2 - axis).expand_as(numbers).flatten()
        low, high = (
            at.new_zeros(b * most).scatter_reduce(0, index, at, how, include_self=False) for how in ("amin", "amax")
        )
        edges.append((low, high - low + 1))
    (x, width), (y, height) = edges
    return torch.stack([x, y, width, height], dim=1).view(b, most, 4)


def student_config(teacher: ModelConfig) -> ModelConfig:
    """The same networks; names come in cells of the size that their coarsest map sees as one place."""
    return teacher.replace(mask={"init_id_cell": teacher.decoder.patch * 2 ** (len(teacher.decoder.multipliers) - 1)})


def distill(
    checkpoint: str,
    data: str,
    out: Path,
    *,
    few: int,
    td: float,
    config: TrainConfig,
    side: int = 0,
    resume: bool = False,
) -> Checkpoint:
    """Make a checkpoint that needs few steps; the folder is that of a training run, and can be resumed like one.

    Args:
        checkpoint: where it starts: a bundled name, a folder or a hub id.
        data: labelled pictures, as `Recipe.train_data`; what `pix2seqd segment` wrote will do, too.
        out: folder of the run; out/model is the result.
        few: its steps; its answer is one sample.
        td: its τ_d.
        config: how it is trained.
        side: of the windows that it is shown; 0: that of those in use, which stay as they are.
        resume: go on with the run in `out`.

    Raises:
        InputError: the checkpoint gives no logits; whatever `train` raises.
    """
    teacher = from_pretrained(checkpoint)
    if teacher.model.config.decoder.head != "softmax":
        raise InputError(f"{checkpoint} has a linear head; distillation needs logits: give one with a softmax head")
    in_use = tuple(n * teacher.infer.input_scale for n in teacher.data.size)
    shown = teacher.data.replace(size=(side, side) if side else in_use)
    infer = teacher.infer.replace(
        steps=few, first_steps=0, td=td, consensus=1, unconditioned_share=0.0, min_share=_MIN_SHARE
    )
    model, as_shown = student_config(teacher.model.config), infer.replace(input_scale=1)
    recipe = Recipe(
        model,
        shown,
        _augmentation(shown),
        train=config,
        infer=as_shown,
        train_data=data,
        init=checkpoint,
    )
    return train(recipe, out, resume, lambda _: Student(teacher.model, shown, infer), (teacher.data, infer))


def _augmentation(data: DataConfig) -> AugmentConfig:
    """A student forgets what it is not shown, such as other scales (docs/results.md)."""
    common = AugmentConfig(jitter=(0.6, 1.8), color_jitter=0.3, flip="horizontal")
    return common if data.layout == "resize" else common.replace(flip="all", invert=0.1)
