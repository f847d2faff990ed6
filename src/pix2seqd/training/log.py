"""What a training run shows and writes: progress, TensorBoard scalars and images, evaluations, checkpoints."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pix2seqd.checkpoint import Checkpoint
from pix2seqd.config import Recipe
from pix2seqd.data import open_dataset
from pix2seqd.data.categories import with_categories
from pix2seqd.data.sample import Dataset, Subset
from pix2seqd.evaluation.images import evaluate
from pix2seqd.segmenter import Segmenter
from pix2seqd.training.state import TrainState, save_state

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SAMPLES = 4
"""Sample images of an evaluation."""


class TrainLog:
    """The log of a run, as a context manager. The main process writes it; the others help to evaluate and save.

    Args of the constructor:
        out: folder of the run.
        recipe: how often to log, to save and to evaluate.
        start_step: the step at which the run starts.
        pretrained: the EMA, which is evaluated.
        main: whether this is the main process.

    Raises:
        InputError: the evaluation data is missing, or its categories are not the training data's.
    """

    def __init__(self, out: Path, recipe: Recipe, start_step: int, pretrained: Checkpoint, main: bool = True) -> None:
        self.config = recipe.train
        self.out = out
        self.checkpoint = pretrained
        self.eval_data = _spread(recipe)
        if self.eval_data:  # an error comes before the training, not after hours
            self.eval_data = with_categories(self.eval_data, pretrained.taxonomy)
        self.main = main
        self.writer: SummaryWriter | None = None
        self.losses: list[torch.Tensor] = []
        self.since = (start_step, time.perf_counter())
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}"), TimeRemainingColumn())
        self.progress = Progress(TextColumn("training"), *columns, disable=not main)
        self.task = self.progress.add_task("", total=self.config.steps, completed=start_step, status="")

    def __enter__(self) -> Self:
        if self.main:
            from torch.utils.tensorboard import SummaryWriter

            # Hide what a killed run logged after the state from which it resumes.
            self.writer = SummaryWriter(str(self.out / "logs"), purge_step=self.since[0] + 1)
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Flush and stop drawing."""
        self.progress.stop()
        if self.writer:
            self.writer.close()

    def add(self, loss: torch.Tensor) -> None:
        """Take the loss of a micro-batch."""
        if self.main:
            self.losses.append(loss.detach())

    def step(self, state: TrainState) -> None:
        """Log, save and evaluate as often as the recipe says; call after each optimiser step."""
        config, step = self.config, state.step
        self.progress.update(self.task, completed=step)
        if self.writer and (step % config.log_every == 0 or step == config.steps):
            self._scalars(state, self.writer)
        if step % config.save_every == 0 and step < config.steps:
            save_state(state, self.out / "state")
        if step == config.steps or (config.evaluate_every and step % config.evaluate_every == 0):
            self._evaluate(state)

    def _scalars(self, state: TrainState, writer: "SummaryWriter") -> None:
        loss = torch.stack(self.losses).float().mean().item()
        self.losses.clear()
        first, began = self.since
        self.since = (state.step, time.perf_counter())
        rate = (state.step - first) * self.config.batch_size / (self.since[1] - began)
        status = f"loss {loss:.4f} · {rate:.1f} images/s"
        self.progress.update(self.task, status=status)
        if not self.progress.console.is_terminal:
            self.progress.console.print(f"step {state.step}/{self.config.steps} · {status}")
        writer.add_scalar("train/loss", loss, state.step)
        writer.add_scalar("train/images_per_second", rate, state.step)
        writer.add_scalar("train/lr", state.optimizer.param_groups[0]["lr"], state.step)

    def _evaluate(self, state: TrainState) -> None:
        """PQ, AP and sample images (image, truth, prediction side by side) of the EMA."""
        if self.eval_data is None:
            return
        device = str(next(state.model.parameters()).device)
        segmenter = Segmenter(self.checkpoint, device=device)
        result = evaluate(segmenter, self.eval_data)["all"]
        if self.writer is None:
            return
        for name, values in result["panoptic_quality"].items():
            if name in ("All", "Things", "Stuff") and values["n"]:
                self.writer.add_scalar(f"eval/PQ {name.lower()}", values["pq"], state.step)
        self.writer.add_scalar("eval/AP50", result["average_precision"]["thresholds"]["0.50"]["ap"], state.step)
        self.progress.console.print(f"step {state.step}: PQ {100 * result['panoptic_quality']['All']['pq']:.1f}")
        for i in range(min(SAMPLES, len(self.eval_data))):
            sample = self.eval_data[i]
            shown = [sample.panoptic, segmenter.image(sample.image)]
            images = [sample.image, *(np.asarray(panoptic.overlay(sample.image)) for panoptic in shown)]
            self.writer.add_image(f"samples/{i}", np.concatenate(images, axis=1), state.step, dataformats="HWC")
        self.since = (state.step, time.perf_counter())


def _spread(recipe: Recipe) -> Dataset | None:
    """Evenly spread samples of the evaluation data."""
    if not recipe.eval_data or not recipe.train.evaluate_images:
        return None
    whole = open_dataset(recipe.eval_data, recipe.data.size)
    count = min(recipe.train.evaluate_images, len(whole))
    return Subset(whole, tuple(int(i) for i in np.linspace(0, len(whole) - 1, count)))
