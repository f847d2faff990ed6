"""What a training run shows and writes: progress, TensorBoard scalars and images, evaluations, checkpoints."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from PIL import Image
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pix2seqd import distributed
from pix2seqd.checkpoint import Checkpoint, save_pretrained
from pix2seqd.config import Recipe
from pix2seqd.data import open_dataset
from pix2seqd.data.categories import with_categories
from pix2seqd.data.sample import Dataset, subsample
from pix2seqd.evaluation.images import evaluate, evaluate_min_scores
from pix2seqd.files import InputError
from pix2seqd.segmenter import Segmenter
from pix2seqd.training.results import Results
from pix2seqd.training.state import TrainState, save_state

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SAMPLES = 4
"""Sample images of an evaluation in TensorBoard."""
EVALUATION_SHARE = 0.15
"""Share of the time of a run with `TrainConfig.minutes` from which on evaluations are left out, but for the last."""
WAITING = 0.2
"""Share of the time from which on it is said that training waits for images."""
SHEET = 8
"""Images in the contact sheet of the best evaluation."""


class TrainLog:
    """The log of a run, as a context manager. The main process writes it; the others help to evaluate and save.

    Args of the constructor:
        out: folder of the run.
        recipe: how often to log, to save and to evaluate.
        start_step: the step at which the run starts.
        pretrained: the EMA, which is evaluated. With `train.evaluations` each evaluation chooses the `min_score` of its
            `infer`, unless the recipe has one.
        main: whether this is the main process.

    Evaluation data that is missing or has other categories, and a damaged results.json, are an `InputError`.
    """

    def __init__(self, out: Path, recipe: Recipe, start_step: int, pretrained: Checkpoint, main: bool = True) -> None:
        self.config = recipe.train
        self.out = out
        self.checkpoint = pretrained
        self.eval_data = _evaluation_data(recipe)
        if self.eval_data:  # an error comes before the training, not after hours
            self.eval_data = with_categories(self.eval_data, pretrained.taxonomy)
        elif recipe.train.evaluations:
            raise InputError("train.evaluations needs images to score; give --eval-data")
        self.results = Results(out, pretrained.taxonomy, start_step) if recipe.train.evaluations else None
        self.chooses_min_score = self.results is not None and not recipe.infer.min_score
        self.main = main
        self.writer: SummaryWriter | None = None
        self.losses: list[torch.Tensor] = []
        self.waited = 0.0
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
        if self.writer:
            self.writer.close()
        self.progress.stop()  # which fails where the terminal was closed

    def timed(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches unchanged; the time until each one is there is counted, except for the first one."""
        began: float | None = None  # the first batch waits for the start of the worker processes
        for batch in batches:
            if began is not None:
                self.waited += time.perf_counter() - began
            yield batch
            began = time.perf_counter()

    def add(self, loss: torch.Tensor) -> None:
        """Take the loss of a micro-batch."""
        if self.main:
            self.losses.append(loss.detach())

    def step(self, state: TrainState) -> None:
        """Log, save and evaluate as often as the recipe says; call after each optimiser step."""
        config, step, last = self.config, state.step, state.last or self.config.steps
        self.progress.update(self.task, completed=step, total=last)
        if self.writer and (step % config.log_every == 0 or step == last):
            self._scalars(state, self.writer)
        if step % config.save_every == 0 and step < last:
            save_state(state, self.out / "state")
        if step == last or self._is_due(state, last):
            self._evaluate(state)

    def catch_up(self, state: TrainState) -> None:
        """Evaluate a resumed run that was killed after its checkpoint, before the score of this step was written."""
        last = state.last or self.config.steps
        scores = self.results.scores if self.results else []
        is_scored = not self.results or any(score["step"] == state.step for score in scores)
        if state.step and not is_scored and (state.step >= last or self._is_due(state, last)):
            self._evaluate(state)

    @property
    def is_over(self) -> bool:
        """Whether the run ends early, because PQ does not get better."""
        return 0 < self.config.patience <= (self.results.waited if self.results else 0)

    @property
    def has_best(self) -> bool:
        """Whether model/ has the best model of the evaluations so far."""
        return self.results is not None and len(self.results.scores) > 0

    def _is_due(self, state: TrainState, last: int) -> bool:
        """Whether an evaluation follows this step, which is not the last one."""
        config, step = self.config, state.step
        if not self.results:
            return config.evaluate_every > 0 and step % config.evaluate_every == 0
        if config.minutes and self.results.seconds > EVALUATION_SHARE * state.seconds:
            return False
        return step * config.evaluations >= last * (len(self.results.scores) + 1)

    def _scalars(self, state: TrainState, writer: "SummaryWriter") -> None:
        loss = torch.stack(self.losses).float().mean().item()
        self.losses.clear()
        first, began = self.since
        self.since = (state.step, time.perf_counter())
        seconds, waited = self.since[1] - began, self.waited
        rate, self.waited = (state.step - first) * self.config.batch_size / seconds, 0.0
        status = f"loss {loss:.4f} · {rate:.1f} images/s"
        if waited > WAITING * seconds:
            status += f" · waits for images {waited / seconds:.0%} of the time; --train.workers sets their processes"
        self.progress.update(self.task, status=status)
        if not self.progress.console.is_terminal:
            self.progress.console.print(f"step {state.step}/{state.last or self.config.steps} · {status}")
        if self.results:
            self.results.losses.append((state.step, loss))
        writer.add_scalar("train/loss", loss, state.step)
        writer.add_scalar("train/images_per_second", rate, state.step)
        writer.add_scalar("train/lr", state.optimizer.param_groups[-1]["lr"], state.step)

    def _evaluate(self, state: TrainState) -> None:
        """PQ, AP and sample images (image, truth, prediction side by side) of the EMA."""
        if self.eval_data is None:
            return
        began = time.perf_counter()
        device = str(next(self.checkpoint.model.parameters()).device)
        segmenter = Segmenter(self.checkpoint, device=device)
        if self.chooses_min_score:
            limit, result = evaluate_min_scores(segmenter, self.eval_data)
            self.checkpoint = replace(self.checkpoint, infer=self.checkpoint.infer.replace(min_score=limit))
        else:
            result = evaluate(segmenter, self.eval_data)["all"]
        seconds = distributed.mean(time.perf_counter() - began)
        is_best = self.results is not None and self.results.add(state.step, seconds, result)
        if self.writer is None:
            return
        for name, values in result["panoptic_quality"].items():
            if name in ("All", "Things", "Stuff") and values["n"]:
                self.writer.add_scalar(f"eval/PQ {name.lower()}", values["pq"], state.step)
        self.writer.add_scalar("eval/AP50", result["average_precision"]["thresholds"]["0.50"]["ap"], state.step)
        limit = self.checkpoint.infer.min_score
        note = f" with scores from {limit:g}" if self.chooses_min_score and limit else ""
        note += f" (best so far: {100 * self.results.best['pq']:.1f})" if self.results and not is_best else ""
        self.progress.console.print(f"step {state.step}: PQ {100 * result['panoptic_quality']['All']['pq']:.1f}{note}")
        rows = []
        for i in range(min(SHEET if is_best else SAMPLES, len(self.eval_data))):
            sample = self.eval_data[i]
            shown = [sample.panoptic, segmenter.image(sample.image, min_score=limit)]
            rows.append([sample.image, *(np.asarray(panoptic.overlay(sample.image)) for panoptic in shown)])
            if i < SAMPLES:
                joined = np.concatenate(rows[-1], axis=1)
                self.writer.add_image(f"samples/{i}", joined, state.step, dataformats="HWC")
        if self.results:
            if is_best:
                save_state(state, self.out / "state")  # a resumed run knows how the best model came about
                save_pretrained(self.checkpoint, self.out / "model")
                self.results.draw(result, [[Image.fromarray(image) for image in row] for row in rows])
            self.results.write()
        self.since, self.waited = (state.step, time.perf_counter()), 0.0


def _evaluation_data(recipe: Recipe) -> Dataset | None:
    """Evenly spread samples of the evaluation data."""
    if not recipe.eval_data or not recipe.train.evaluate_images:
        return None
    return subsample(open_dataset(recipe.eval_data, recipe.data.size), recipe.train.evaluate_images)
