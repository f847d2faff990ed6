"""Training: Algorithm 1, AdamW, an exponential moving average (EMA); resumable at any step, bit for bit."""

import math
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pix2seqd import distributed
from pix2seqd.checkpoint import (
    Checkpoint,
    check_size,
    find_backbone,
    from_pretrained,
    save_pretrained,
    transfer,
)
from pix2seqd.config import DataConfig, InferConfig, Recipe, TrainConfig
from pix2seqd.data import is_clips, open_clips, open_dataset, remarks
from pix2seqd.data.clip_examples import frame_size
from pix2seqd.data.loader import ENDS, training_loader
from pix2seqd.data.sample import ClipDataset, Dataset
from pix2seqd.files import InputError, read_json, require, say, write_json
from pix2seqd.interop.official import load_tensorflow_checkpoint
from pix2seqd.layers.backbones import pretrained_backbone
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.speed import accelerate_training
from pix2seqd.speed.hardware import native_bfloat16
from pix2seqd.training.familiar import IMAGES, training_statistics
from pix2seqd.training.log import TrainLog
from pix2seqd.training.recipes import RECIPES
from pix2seqd.training.rollouts import own_predictions
from pix2seqd.training.state import TrainState, load_state, run_lock, save_state

if TYPE_CHECKING:
    from accelerate import Accelerator


PLAN_EVERY = 10
"""Steps after which a run with `TrainConfig.minutes` counts again how many steps fit; at first, each step does."""


def learning_rate(step: int, config: TrainConfig) -> float:
    """Rate of a step (from 0): linear warm-up from 0, then linear decay to lr · end_lr_factor (official code)."""
    if step < config.warmup_steps:
        return config.lr * step / config.warmup_steps
    done = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    return config.lr * (1 - (1 - config.end_lr_factor) * min(done, 1.0))


def fitted(config: TrainConfig, last: int) -> TrainConfig:
    """The settings of a run that ends at the step `last`; without `minutes`, unchanged."""
    if not config.minutes:
        return config
    return config.replace(steps=last, warmup_steps=min(config.warmup_steps, last // 10))


def plan(state: TrainState, config: TrainConfig) -> None:
    """Set `state.last`, and with `minutes` the decay of the EMA, by the time that the steps have taken so far."""
    state.last = config.steps
    if not config.minutes:
        return
    if state.step:
        left = 60 * config.minutes - state.seconds
        state.last = min(config.steps, state.step + max(0, int(left * state.step / max(state.seconds, 1e-3))))
    # Half of the average comes from the last twentieth of the run, or less.
    state.ema.multi_avg_fn = get_ema_multi_avg_fn(min(config.ema_decay, 0.5 ** (20 / max(state.last, 20))))


def train(
    recipe: Recipe | str,
    out: str | Path,
    resume: bool = False,
    build: Callable[[Recipe], Pix2SeqD] | None = None,
    inference: tuple[DataConfig, InferConfig] | None = None,
) -> Checkpoint:
    """Run a recipe to its end.

    Args:
        recipe: model, data and settings of the run, or the name of a bundled recipe (`RECIPES`).
        out: folder of the run: recipe.json, state/ (to resume), logs/ (TensorBoard), model/ (the EMA, published).
        resume: go on with the run in `out`; where it has no file yet, it begins.
            `train.steps` and `train.minutes` may differ from those that it began with; the learning rate follows the
            new ones from there. `train.patience` may differ, too.
        build: makes the model, which gives the loss too; None: `new_model`.
        inference: how the result sees images and is sampled; None: as the recipe says.

    Returns:
        The EMA model, as written to `out`/model: the last one, or with `train.evaluations` the best one.

    Raises:
        InputError: there is no recipe of this name; packages of the extra `train` are not installed; `out` holds
            another run, or one to be resumed, or another process trains there; the recipe's parts do not fit each
            other.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP, after everything was saved.
    """
    require("training", "train", "accelerate", "tensorboard")
    recipe = _named(recipe) if isinstance(recipe, str) else recipe
    out, accelerator = Path(out), _accelerator(recipe.train)
    load = partial(from_pretrained, trust_size=recipe.trust_size)
    is_main = accelerator.is_main_process
    with ExitStack() as kept:
        exists = out.is_dir() and (out / "recipe.json").exists()
        if exists and is_main:
            kept.enter_context(run_lock(out))
        before = _check_folder(recipe, out, resume)
        dataset, state = _begin(recipe, build, out if resume else None, accelerator)
        if before and (note := _extension(before, recipe.train, state.step, out)):
            accelerator.print(note)
        ema = cast(Pix2SeqD, state.ema.module)
        result = Checkpoint(ema, dataset.taxonomy, *(inference or (recipe.data, recipe.infer)), str(out / "model"))
        loader = training_loader(dataset, recipe, state.step, accelerator.process_index, accelerator.num_processes)
        log = TrainLog(out, recipe, state.step, result, is_main)
        if is_main:
            _say_remarks(recipe, dataset, log.eval_data)
        accelerator.wait_for_everyone()  # all have seen the folder as it was, and nothing is wrong with the data
        if is_main:
            if not exists:
                kept.enter_context(run_lock(out))
                _check_folder(recipe, out, resume=False)  # another run may have begun meanwhile
            write_json(out / "recipe.json", recipe.to_dict())
        with stop_signals() as stopped, log:
            fit(state, loader, recipe, accelerator, log, stopped)
            save_state(state, out / "state")  # before the log ends: whoever reads what it prints may be gone
            if is_main:
                result = _publish(result, state, dataset, log, load, str(accelerator.device))
        accelerator.wait_for_everyone()
    if state.step < state.last:
        accelerator.print(f"stopped at step {state.step} of {state.last}; go on with --resume")
        raise KeyboardInterrupt
    return load(out / "model") if log.has_best else result


def _named(recipe: str) -> Recipe:
    if recipe not in RECIPES:
        raise InputError(f"there is no recipe {recipe!r}; give one of {', '.join(RECIPES)}")
    return RECIPES[recipe]


def _begin(
    recipe: Recipe, build: Callable[[Recipe], Pix2SeqD] | None, out: Path | None, accelerator: "Accelerator"
) -> tuple[Dataset | ClipDataset, TrainState]:
    """The data, and the state at the first step, or where the run in `out` stopped."""
    if recipe.backbone:  # before all data are opened
        find_backbone(recipe.backbone)
    dataset = training_data(recipe)
    state = new_state(recipe, dataset, build)
    precision = torch.bfloat16 if accelerator.mixed_precision == "bf16" else torch.float32
    accelerate_training(state.model, accelerator.device, precision)
    if out is not None:
        load_state(state, out / "state")
    return dataset, state


def _publish(
    result: Checkpoint,
    state: TrainState,
    dataset: Dataset | ClipDataset,
    log: TrainLog,
    load: Callable[[Path], Checkpoint],
    device: str,
) -> Checkpoint:
    """Write model/, which is the best one where there are evaluations, and then last/ too; returns what is published.

    At the end of the run, the statistics of the training images (`familiar.training_statistics`) are added.
    """
    if log.results:
        save_pretrained(log.checkpoint, log.out / "last")
    finished = state.step >= state.last
    if finished:
        result = load(log.out / "model") if log.has_best else result
        count = min(IMAGES, state.step * log.config.batch_size)  # no more images than were trained on
        result = replace(result, familiarity=training_statistics(result, [(dataset, count)], device))
    if finished or not log.has_best:
        save_pretrained(result, log.out / "model")
    return result


def _accelerator(config: TrainConfig) -> "Accelerator":
    from accelerate import Accelerator

    precision, on_gpu = config.precision, torch.cuda.is_available()
    if precision == "auto":
        precision = "bf16" if native_bfloat16(torch.device("cuda" if on_gpu else "cpu")) else "no"
    # accelerate needs an argument where several processes compute on CPUs.
    on_cpus = distributed.world_size() > 1 and not on_gpu
    return Accelerator(cpu=on_cpus, mixed_precision=precision, gradient_accumulation_steps=config.accumulate)


def training_data(recipe: Recipe) -> Dataset | ClipDataset:
    """The recipe's images, or its clips if the model has past frames."""
    if not (past_frames := recipe.model.decoder.past_frames):
        return open_dataset(recipe.train_data, recipe.data.size)
    frames = past_frames * recipe.clips.past_stride + 1
    return open_clips(recipe.train_data, frame_size(recipe.data, recipe.augment), frames)


def _say_remarks(recipe: Recipe, dataset: Dataset | ClipDataset, eval_data: Dataset | None) -> None:
    """Print how images and labels of data sets of images are understood; once if both are understood alike."""
    said: dict[str, str] = {}
    for data, source in ((dataset, recipe.train_data), (eval_data, recipe.eval_data)):
        if data is not None and not is_clips(source):
            for line in remarks(cast(Dataset, data), source):
                said.setdefault(line.partition(": ")[2], line)
    for line in said.values():
        say(line)


def new_state(
    recipe: Recipe, dataset: Dataset | ClipDataset, build: Callable[[Recipe], Pix2SeqD] | None = None
) -> TrainState:
    """Model (random, from `recipe.init`, or as `build` makes it), its EMA as a copy, and the optimiser, at step 0."""
    torch.manual_seed(recipe.train.seed)
    try:
        model = (build or new_model)(recipe)
        check_size(model, recipe.data.size)
    except ValueError as error:
        raise InputError(f"the recipe's model cannot be built: {error}") from error
    needed, classes = len(dataset.taxonomy) + 1, recipe.model.mask.classes
    if needed > classes:
        bits = [max(recipe.model.mask.bits[0], (needed - 1).bit_length()), recipe.model.mask.bits[1]]
        raise InputError(
            f"{recipe.train_data} has {needed} classes with void; the model has {classes}: "
            f'give --model.mask.classes {needed} --model.mask.bits "{bits}"'
        )
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.train.ema_decay), use_buffers=True)
    ema.n_averaged.fill_(1)  # the EMA starts as a copy, and averages from the first step on
    backbone = list(model.pixel_encoder.backbone.parameters())
    of_backbone = {id(parameter) for parameter in backbone}
    groups = [
        {"params": backbone, "factor": recipe.train.backbone_lr_factor},
        {"params": [p for p in model.parameters() if id(p) not in of_backbone], "factor": 1.0},
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=recipe.train.lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=recipe.train.weight_decay
    )
    optimizer.register_step_pre_hook(_official_epsilon)
    return TrainState(model, ema, optimizer)


def _official_epsilon(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Keras adds ε to the second moment before the bias correction, PyTorch after it: convert ε (early steps only)."""
    done = float(next(iter(optimizer.state.values()), {"step": 0})["step"])
    for group in optimizer.param_groups:
        group["eps"] = 1e-8 / math.sqrt(1 - group["betas"][1] ** (done + 1))


def new_model(recipe: Recipe) -> Pix2SeqD:
    """The recipe's model: random weights, the backbone `recipe.backbone`, and all weights of `recipe.init` that fit."""
    if recipe.backbone:
        changes, network = pretrained_backbone(find_backbone(recipe.backbone))
        model = Pix2SeqD(recipe.model.replace(encoder=changes))
        weights = {k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
        model.pixel_encoder.backbone.network.load_state_dict(weights)
    else:
        model = Pix2SeqD(recipe.model)
    if (Path(recipe.init) / "checkpoint").is_file():
        load_tensorflow_checkpoint(model, recipe.init)
    elif recipe.init:
        transfer(from_pretrained(recipe.init, recipe.trust_size).model, model)
    # Mask pre-training does not train the encoder.
    decoder = recipe.model.decoder
    model.pixel_encoder.requires_grad_(decoder.condition_on_map or decoder.condition_on_tokens)
    return model


def fit(
    state: TrainState,
    loader: Iterable[dict[str, torch.Tensor]],
    recipe: Recipe,
    accelerator: "Accelerator",
    log: TrainLog,
    stopped: list[int],
) -> None:
    """The training loop, from `state.step` to the recipe's last step or until a signal arrives."""
    config = recipe.train
    plan(state, config)
    state.ema.to(accelerator.device)
    log.catch_up(state)
    if log.is_over:
        state.last = state.step
    if state.step >= state.last:
        return
    began = time.perf_counter() - state.seconds
    # `state.model` stays unwrapped; `model` may be wrapped for several processes and for autocast.
    model, optimizer = accelerator.prepare(state.model, state.optimizer)
    model.train()
    for number, batch in enumerate(log.timed(loader)):
        micro = number % config.accumulate
        torch.manual_seed(hash((config.seed, state.step, micro, accelerator.process_index)) % 2**63)
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * learning_rate(state.step, fitted(config, state.last))
        log.add(_learn(model, optimizer, batch, state.model, recipe, accelerator))
        if not accelerator.sync_gradients:
            continue
        state.ema.update_parameters(state.model)
        state.step += 1
        # At the end too, so that a resumed run comes to the same plan and does nothing.
        if config.minutes and (state.step < PLAN_EVERY or state.step % PLAN_EVERY == 0 or state.step >= state.last):
            state.seconds = distributed.mean(time.perf_counter() - began)  # processes must not differ
            plan(state, config)
        try:
            log.step(state)
        except (OSError, SystemExit):  # the terminal was closed, or `| tee` heard Ctrl-C too
            save_state(state, log.out / "state")
            raise
        if log.is_over:
            state.last = state.step
        if state.step >= state.last:
            break
        if stopped:
            accelerator.set_trigger()
        if accelerator.check_trigger():  # a signal may reach the processes at different steps
            break


def _learn(
    model: torch.nn.Module,
    optimizer: Any,
    batch: dict[str, torch.Tensor],
    unwrapped: Pix2SeqD,
    recipe: Recipe,
    accelerator: "Accelerator",
) -> torch.Tensor:
    """The loss of a micro-batch; the last one of a step changes the weights."""
    batch = to_device(batch, accelerator.device)
    if recipe.clips.self_past_prob or recipe.clips.rollout_prob:
        with accelerator.autocast():
            own_predictions(unwrapped, batch, recipe)
    with accelerator.accumulate(model):
        loss = model(**batch)
        accelerator.backward(loss)
        if accelerator.sync_gradients:
            accelerator.clip_grad_norm_(model.parameters(), recipe.train.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
    return loss


def to_device(batch: dict[str, torch.Tensor], device: torch.device) -> dict[str, Any]:
    """A batch on the device; images channels last, which is faster for convolutions in bf16."""
    moved = {key: value.to(device, non_blocking=True) for key, value in batch.items()}
    return {**moved, "images": moved["images"].contiguous(memory_format=torch.channels_last)}


def _check_folder(recipe: Recipe, out: Path, resume: bool) -> TrainConfig | None:
    """Refuse to start over an existing run, or to resume another one; a run without its first file can be resumed.

    Returns how the run in the folder was trained; None: there is none.
    """
    stored = out / "recipe.json"
    if not stored.exists():
        if (out / "state" / "latest.json").exists():
            raise InputError(f"{stored} is missing, though the run has checkpoints; restore it or choose another --out")
        return None
    if not resume:
        raise InputError(f"{out} already holds a run; go on with --resume or choose another --out")
    before = read_recipe(stored)
    train = recipe.train.replace(**{name: getattr(before.train, name) for name in MAY_CHANGE})
    now, then = (each.to_dict() for each in (recipe.replace(train=train), before))
    for part, values in then.items():
        if now[part] != values:
            raise InputError(f"{out} was started with another {part!r} section; see {stored}")
    return before.train


def read_recipe(path: Path) -> Recipe:
    """The recipe.json of a run; an `InputError` if it is missing, damaged or of another version."""
    try:
        return Recipe.from_dict(read_json(path), trust_size=True)  # it was checked when the run began
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is of another version ({error}); start anew with another --out") from error


MAY_CHANGE = ("steps", "minutes", "patience")
"""Settings of `TrainConfig` that a resumed run may change."""


def _extension(before: TrainConfig, now: TrainConfig, step: int, out: Path) -> str:
    """What changes when a run goes on with another length, which may not be too short; empty: nothing."""
    if (before.steps, before.minutes) == (now.steps, now.minutes):
        return ""
    if now.steps < step:
        raise InputError(f"{out} has trained {step} steps already; give --train.steps {step} or more")
    was, becomes = (f"{c.minutes:g} minutes" if c.minutes else f"{c.steps} steps" for c in (before, now))
    note = f"the run was planned for {was} and now for {becomes}, so the learning rate changes"
    if before.minutes or now.minutes:
        return f"{note}; it follows the time that is left"
    rates = [learning_rate(step, config) for config in (before, now)]
    return f"{note}: at step {step} from {rates[0]:.3g} to {rates[1]:.3g}"


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """A list that gets the number of a first Ctrl-C or of one of `ENDS`.

    A second Ctrl-C or SIGTERM interrupts at once. SIGHUP does not count: the end of a session sends it beside SIGTERM,
    and a terminal that is closed several times.
    """
    received: list[int] = []

    def note(number: int, frame: object) -> None:
        asked = {signal.SIGINT, signal.SIGTERM}
        if number in asked and asked.intersection(received):
            raise KeyboardInterrupt
        received.append(number)

    heard = {signal.SIGINT, *(number for number in ENDS if signal.getsignal(number) is not signal.SIG_IGN)}  # nohup
    previous = {number: signal.signal(number, note) for number in heard}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
