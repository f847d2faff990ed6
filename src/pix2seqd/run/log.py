"""What a training run shows: a progress line, TensorBoard scalars."""

import time
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pix2seqd.config import Recipe
from pix2seqd.run.checkpoint import TrainState


class TrainLog:
    """Progress bar with loss, images/s and time left; scalars every `log_every` steps. Silent on other processes."""

    def __init__(self, out: Path, recipe: Recipe, start_step: int, main: bool) -> None:
        self.config = recipe.train
        self.main = main
        self.losses: list[torch.Tensor] = []
        self.since = (start_step, time.perf_counter())
        if not main:
            return
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(out / "logs"))
        self.progress = Progress(
            TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[status]}"), TimeRemainingColumn()
        )
        self.task = self.progress.add_task("", total=self.config.steps, completed=start_step, status="")
        self.progress.start()

    def add(self, loss: torch.Tensor) -> None:
        """Take the loss of a micro-batch."""
        self.losses.append(loss.detach())

    def step(self, state: TrainState) -> None:
        """After each optimiser step."""
        if not self.main:
            self.losses.clear()
            return
        self.progress.update(self.task, completed=state.step)
        if state.step % self.config.log_every and state.step != self.config.steps:
            return
        loss = torch.stack(self.losses).float().mean().item()
        self.losses.clear()
        first, began = self.since
        now = time.perf_counter()
        rate = (state.step - first) * self.config.batch_size / (now - began)
        self.since = (state.step, now)
        status = f"loss {loss:.4f} · {rate:.1f} images/s"
        self.progress.update(self.task, status=status)
        if not self.progress.console.is_terminal:
            self.progress.console.print(f"step {state.step}/{self.config.steps} · {status}")
        self.writer.add_scalar("train/loss", loss, state.step)
        self.writer.add_scalar("train/images_per_second", rate, state.step)
        self.writer.add_scalar("train/lr", state.optimizer.param_groups[0]["lr"], state.step)

    def close(self, state: TrainState) -> None:
        """Flush and stop drawing."""
        if self.main:
            self.progress.stop()
            self.writer.close()
