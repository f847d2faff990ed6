"""`pix2seqd distill`: a checkpoint that needs fewer steps."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from pix2seqd.app.options import count


def distill(
    checkpoint: str,
    /,
    *,
    data: str,
    out: Path,
    steps: Annotated[int, count(1, 1000)] = 2,
    td: Annotated[float, Parameter(validator=Number(gte=0, lte=1000))] = 1.0,
    teacher_steps: Annotated[int, count(0, 1000)] = 0,
    iterations: Annotated[int, count(1)] = 1000,
    batch_size: Annotated[int, count(1)] = 16,
    start: str = "",
    lr: Annotated[float, Parameter(validator=Number(gt=0, lte=1))] = 2e-4,
    resume: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Distil a checkpoint into one that needs a step or two; OUT/model is the result.

    Args:
        checkpoint: bundled (nuclei, nuclei-fast, nuclei-video, shapes), a folder, or an id on the Hugging Face hub.
        data: coco:DIR[@SPLIT], or whatever `train` takes; labels only say the scale, where the model needs one.
        out: folder of the run.
        steps: denoising steps of the result.
        td: time difference of the result.
        teacher_steps: denoising steps of the teacher; 0: as its checkpoint says.
        iterations: training steps.
        batch_size: pictures per training step.
        start: checkpoint to go on from, distilled before; empty: the teacher itself.
        lr: learning rate at the start; it falls linearly to a tenth.
        resume: go on with the run in that folder.
    """
    from pix2seqd.config import TrainConfig
    from pix2seqd.run import distill as run

    # The average has forgotten the teacher, where it starts, halfway through even a short run.
    decay = min(0.5 ** (20 / iterations), 0.999)
    config = TrainConfig(batch_size, iterations, lr, warmup_steps=min(50, iterations // 10), ema_decay=decay)
    run.distill(checkpoint, data, out, full=teacher_steps, few=steps, td=td, config=config, start=start, resume=resume)
    print(f"written to {out}; try it: pix2seqd segment PICTURE --model {out / 'model'}")
