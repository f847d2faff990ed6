"""`pix2seqd distill`: a checkpoint that needs fewer steps."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from pix2seqd.cli.options import count


def distill(
    checkpoint: str,
    /,
    *,
    data: str,
    out: Path,
    steps: Annotated[int, count(1, 1000)] = 2,
    td: Annotated[float, Parameter(validator=Number(gte=0, lte=1000))] = 1.0,
    iterations: Annotated[int, count(1)] = 1000,
    batch_size: Annotated[int, count(1)] = 16,
    size: Annotated[int, count(0)] = 0,
    lr: Annotated[float, Parameter(validator=Number(gt=0, lte=1))] = 5e-4,
    workers: Annotated[int, count(0)] = 1,
    resume: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Train a checkpoint to need a step or two; OUT/model is the result.

    Args:
        checkpoint: where it starts: bundled (nuclei, nuclei-fast, nuclei-video, shapes), a folder, or an id on the
            Hugging Face hub.
        data: coco:DIR[@SPLIT], or whatever `train` takes; without labels, what `segment` wrote with many steps.
        out: folder of the run.
        steps: denoising steps of the result.
        td: time difference of the result.
        iterations: training steps.
        batch_size: pictures per training step.
        size: side of the windows that it is trained on; 0: that of those in use, which stay as they are.
        lr: learning rate at the start; it falls linearly to a fiftieth.
        workers: processes that prepare pictures; the result does not depend on it.
        resume: go on with the run in that folder.
    """
    from pix2seqd.config import TrainConfig
    from pix2seqd.training import few_steps as run

    # The average has forgotten the start, where the checkpoint is, halfway through even a short run.
    config = TrainConfig(
        batch_size,
        iterations,
        lr,
        end_lr_factor=0.02,
        warmup_steps=min(50, iterations // 10),
        ema_decay=min(0.5 ** (20 / iterations), 0.999),
        workers=workers,
    )
    run.distill(checkpoint, data, out, few=steps, td=td, config=config, side=size, resume=resume)
    print(f"written to {out}; try it: pix2seqd segment PICTURE --model {out / 'model'}")
