"""Distillation (the paper's way to fewer steps, §5): a student learns where its teacher's trajectories end.

A consistency model (Song et al. 2023) for analog bits: from any state that the student itself meets at its few steps,
its prediction is drawn to the mask that the teacher reaches from that very state in all its steps. One trajectory has
one end, so there is nothing to average over, not even the order of the ids.
"""

from collections import deque
from pathlib import Path

import torch
from torch import Tensor

from pix2seqd.analog_bits import bit2int
from pix2seqd.config import AugmentConfig, InferConfig, Recipe, TrainConfig
from pix2seqd.diffusion import ddim_step, gamma, time_steps
from pix2seqd.files import InputError, read_json, write_json
from pix2seqd.loss import cross_entropy, instance_weights
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.run.train import train
from pix2seqd.weights import Pretrained, from_pretrained, transfer

_AUGMENT = AugmentConfig(jitter=(0.5, 2.0), color_jitter=0.2, flip="horizontal")
"""A student forgets what it is not shown, such as other scales (docs/results.md); no label has to stay true."""


class Student(Pix2SeqD):
    """A copy of the teacher whose loss is its distance from the teacher; the truth takes no part.

    Args of the constructor:
        teacher: the model; it stays as it is.
        full: how the teacher is sampled.
        few: how the student will be.
    """

    def __init__(self, teacher: Pix2SeqD, full: InferConfig, few: InferConfig) -> None:
        super().__init__(teacher.config)
        self.load_state_dict(teacher.state_dict())
        self.teacher = [teacher.eval()]  # in a list: no part of the student
        self.full, self.few = full, few

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
        """Cross-entropy between the student's prediction at each of its steps and the end of the teacher's trajectory.

        Args are those of `Pix2SeqD.train_loss`; t, instances and state are not read, and of the masks only the size.
        """
        config, teacher = self.config, self.teacher[0].to(images.device)
        with torch.no_grad():
            teachers_h = teacher.pixel_encoder(images)
        h = self.pixel_encoder(images)
        shape = (len(images), config.total_bits, *masks.shape[-2:])
        m_t = torch.randn(shape, device=images.device) if noise is None else noise
        losses = []
        for now, after in time_steps(self.few.steps, self.few.td):
            left = max(round(self.full.steps * now), 1)
            end = deque(teacher.denoise(teachers_h, m_t, left, self.full.td, past, start=now), maxlen=1).pop()
            target = bit2int(end > 0, config.bits)
            times = torch.tensor([now, after], device=images.device)
            m_logits, m_pred = self.mask_decoder(m_t, h, times[:1].expand(len(m_t)), past)
            weights = instance_weights(target[:, 1], config.p, config.max_instances)
            losses.append(cross_entropy(m_logits, target, weights).mean())
            m_t = ddim_step(m_t, m_pred.detach(), *gamma(times, config.schedule))
        return torch.stack(losses).mean()

    forward = train_loss


def distill(
    checkpoint: str,
    data: str,
    out: Path,
    *,
    full: int,
    few: int,
    td: float,
    config: TrainConfig,
    start: str = "",
    resume: bool = False,
) -> Pretrained:
    """Distil a checkpoint; the folder is that of a training run, and can be resumed like one.

    Args:
        checkpoint: the teacher, sampled with its own τ_d: a bundled name, a folder or a hub id.
        data: pictures, as `Recipe.train_data`; their labels only say at which scale `DataConfig.diameter` wants them.
        out: folder of the run; out/model is the student.
        full: steps of the teacher; 0: those of its checkpoint.
        few: steps of the student, whose answer is one sample.
        td: τ_d of the student.
        config: how it is trained.
        start: checkpoint whose weights the student begins with; empty: the teacher's.
        resume: go on with the run in `out`.

    Raises:
        InputError: the teacher gives no logits; `start` is another network; a run is resumed with another teacher;
            whatever `train` raises.
    """
    teacher = from_pretrained(checkpoint)
    if teacher.model.config.head != "softmax":
        raise InputError(f"{checkpoint} has a linear head; distillation needs logits: give one with a softmax head")
    # No truth is learnt, so a student can be shown windows of the size that the teacher is used with.
    height, width = (side * teacher.infer.enlarge for side in teacher.data.size)
    shown = teacher.data.replace(size=(height, width))
    infer = teacher.infer.replace(steps=few, first_steps=0, td=td, consensus=1, afresh=0.0, enlarge=1)
    recipe = Recipe(teacher.model.config, shown, _AUGMENT, config, infer, data, init=start or checkpoint)
    slow = teacher.infer.replace(steps=full or teacher.infer.steps)
    taught = {"teacher": checkpoint, "steps": slow.steps}  # of which the recipe, the student's, knows nothing

    def student(_: Recipe) -> Student:
        built = Student(teacher.model, slow, infer)
        if start and transfer(from_pretrained(start).model, built):
            raise InputError(f"{start} is another network than {checkpoint}; give one distilled from it")
        stored = out / "teacher.json"
        if resume and stored.is_file() and read_json(stored) != taught:
            raise InputError(f"{out} was started with another teacher or other steps of it; see {stored}")
        out.mkdir(parents=True, exist_ok=True)
        write_json(stored, taught)
        return built

    return train(recipe, out, resume, student)
