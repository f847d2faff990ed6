"""The command `pix2seqd distill`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from pix2seqd.cli.options import CHECKPOINT_NAME, Flag, TrustSize, count
from pix2seqd.files import say


def distill(
    checkpoint: Annotated[str, Parameter(help=f"The model to start from: {CHECKPOINT_NAME}")],
    /,
    *,
    data: str,
    out: Path,
    steps: Annotated[int, count(1, 1000)] = 2,
    td: Annotated[float, Parameter(validator=Number(gte=0, lte=1000))] = 1.0,
    start: Literal["cells", "noise"] = "cells",
    iterations: Annotated[int, count(1)] = 1000,
    batch_size: Annotated[int, count(1)] = 16,
    size: Annotated[int, count(0)] = 0,
    lr: Annotated[float, Parameter(validator=Number(gt=0, lte=1))] = 5e-4,
    workers: Annotated[int, count(0)] = 1,
    resume: Flag = False,
    trust_size: TrustSize = False,
) -> None:
    """Train a checkpoint to need only one or two denoising steps.

    OUT/model is the result. A run can be stopped at any moment and continued with --resume.

    Args:
        data: Data to train on, for example coco:DIR@train. Without labels, use the output folder of `pix2seqd segment`
            with many steps.
        out: Folder of the run.
        steps: Number of denoising steps that the result takes.
        td: Time difference of the paper's asymmetric time intervals (section 3.3) that the result takes, in steps.
        start: What sampling starts from. cells: a grid of ids, one for each cell of the grid; best for one step or two.
            noise: as in the paper.
        iterations: Number of training steps.
        batch_size: Number of images per training step.
        size: Height of the square windows to train on, in pixels. 0 takes the size of the windows that the checkpoint
            uses. The result is used with that size in any case.
        lr: Learning rate at the start. It falls linearly to a fiftieth.
        workers: Number of processes that prepare images. The result does not depend on it.
        resume: Continue the run in the folder OUT.
    """
    from pix2seqd.config import TrainConfig
    from pix2seqd.training import few_steps as run

    # The half-life of the moving average is short, so that even a short run forgets the first checkpoint.
    config = TrainConfig(
        batch_size,
        iterations,
        lr,
        end_lr_factor=0.02,
        warmup_steps=min(50, iterations // 10),
        ema_decay=min(0.5 ** (20 / iterations), 0.999),
        workers=workers,
    )
    options = {"steps": steps, "td": td, "config": config, "start": start, "side": size}
    run.distill(checkpoint, data, out, **options, resume=resume, trust_size=trust_size)
    say(f"written to {out}; try it: pix2seqd segment IMAGE --model {out / 'model'}")
