import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pix2seqd.checkpoint import from_pretrained
from pix2seqd.config import DataConfig, InferConfig, ModelConfig, Recipe, TrainConfig
from pix2seqd.data import open_dataset
from pix2seqd.data.loader import ENDS
from pix2seqd.data.synthetic.shapes import Shapes
from pix2seqd.files import InputError, write_json
from pix2seqd.training import state as checkpoint
from pix2seqd.training.log import TrainLog
from pix2seqd.training.state import load_state, save_state
from pix2seqd.training.train import fitted, learning_rate, new_state, plan, stop_signals, train

train_module = import_module("pix2seqd.training.train")
RUN = """
import json, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests may run under nohup, which trainings respect
from pix2seqd.config import Recipe
from pix2seqd.training.train import train
train(Recipe.from_dict(json.loads(sys.argv[1])), sys.argv[2])
"""


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    """12 steps on six scenes of 32 x 32, with checkpoints and evaluations between."""
    return Recipe(
        model=ModelConfig.preset("tiny"),
        data=DataConfig(size=(32, 32)),
        train=TrainConfig(
            batch_size=4,
            steps=12,
            warmup_steps=2,
            accumulate=2,
            precision="no",
            workers=0,
            save_every=3,
            log_every=5,
            evaluate_every=8,
            evaluate_images=1,
        ),
        infer=InferConfig(steps=1),
        train_data="shapes:6",
        eval_data="shapes:1@1",
    )


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory) -> Path:
    """The folder of a run that nothing interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(recipe, run)
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    """All tensors of a run's last state (model/, ema/, optimizer/) and of the published model (published/)."""
    folder = run / "state" / json.loads((run / "state" / "latest.json").read_text())["folder"]
    files = {part: folder / f"{part}.safetensors" for part in ("model", "ema", "optimizer")}
    files["published"] = run / "model" / "model.safetensors"
    return {f"{part}/{name}": value for part, file in files.items() for name, value in load_file(file).items()}


def assert_same_run(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert set(first) == set(second)
    assert not [name for name in first if not torch.equal(first[name], second[name])]


def scalars(run: Path, name: str) -> dict[int, float]:
    """Step → value in TensorBoard."""
    events = EventAccumulator(str(run / "logs"))
    events.Reload()
    return {event.step: event.value for event in events.Scalars(name)}


def start(recipe: Recipe, run: Path) -> subprocess.Popen[bytes]:
    """Train in a separate process group until the first checkpoint is written."""
    command = [sys.executable, "-c", RUN, json.dumps(recipe.to_dict()), str(run)]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 120
    while not (run / "state" / "latest.json").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()[0].decode()
    return process


def test_train_killed_and_resumed_gives_the_same_bits(recipe, whole, tmp_path):
    process = start(recipe, tmp_path / "killed")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "model").exists(), "it was still training"
    train(recipe, tmp_path / "killed", resume=True)
    assert_same_run(tmp_path / "killed", whole)


def test_train_resume_without_checkpoint_starts_over(recipe, tmp_path):
    short = recipe.replace(train=recipe.train.replace(steps=2), eval_data="")
    (tmp_path / "killed" / "state" / "step-00000003").mkdir(parents=True)  # saving had begun
    write_json(tmp_path / "killed" / "recipe.json", short.to_dict())
    train(short, tmp_path / "killed", resume=True)
    train(short, tmp_path / "whole")
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("leave", ["no folder", "an empty folder", "a lock"])
def test_train_resume_of_a_run_killed_before_its_first_file_begins_it(recipe, tmp_path, leave):
    short = recipe.replace(train=recipe.train.replace(steps=1), eval_data="")
    if leave != "no folder":
        (tmp_path / "run").mkdir()
    if leave == "a lock":
        (tmp_path / "run" / ".train.lock").touch()
    train(short, tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run" / "state" / "latest.json").read_text())["step"] == 1


def test_train_resume_without_recipe_is_refused(recipe, tmp_path):
    short = recipe.replace(train=recipe.train.replace(steps=1), eval_data="")
    train(short, tmp_path / "run")
    (tmp_path / "run" / "recipe.json").unlink()
    for resume in (True, False):
        with pytest.raises(InputError, match=r"recipe\.json is missing, though the run has checkpoints"):
            train(short, tmp_path / "run", resume=resume)


def test_train_second_run_in_a_folder_is_refused_by_its_process(recipe, tmp_path):
    long = recipe.replace(train=recipe.train.replace(steps=100_000, save_every=2), eval_data="")
    process = start(long, tmp_path / "run")
    try:
        before = (tmp_path / "run" / "recipe.json").read_text()
        for resume in (True, False):
            with pytest.raises(InputError, match=rf"run is in use: process {process.pid} on .* trains there"):
                train(long, tmp_path / "run", resume=resume)
        assert process.poll() is None and (tmp_path / "run" / "recipe.json").read_text() == before
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_train_two_runs_that_begin_at_once_in_one_folder(recipe, tmp_path, monkeypatch):
    """The second begins while the first still looks at its data: only one gets the folder."""
    short = recipe.replace(train=recipe.train.replace(steps=1), eval_data="")
    opened = checkpoint.run_lock
    monkeypatch.setattr(
        train_module, "new_state", lambda *given: (holder.enter_context(opened(run)), new_state(*given))[1]
    )
    run, holder = tmp_path / "run", ExitStack()
    with holder, pytest.raises(InputError, match=f"run is in use: process {os.getpid()} on"):
        train(short, run)
    assert not (run / "recipe.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(
            train_module, "new_state", lambda *given: (write_json(run / "recipe.json", {}), new_state(*given))[1]
        )
        with pytest.raises(InputError, match="already holds a run"):
            train(short, run)
    assert json.loads((run / "recipe.json").read_text()) == {}


def test_run_lock_waits_for_the_workers_of_a_killed_run(tmp_path):
    """They have inherited the lock, and end some seconds after the process that is gone."""
    code = "import os, time; from pathlib import Path; from pix2seqd.training.state import run_lock\n"
    code += f"with run_lock(Path({str(tmp_path)!r})):\n if os.fork(): os._exit(0)\n time.sleep(2)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with checkpoint.run_lock(tmp_path):
        pass


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_run_lock_writes_nothing_where_a_link_leads(tmp_path):
    (tmp_path / "precious.txt").write_text("precious")
    (tmp_path / ".train.pid").symlink_to(tmp_path / "precious.txt")
    with checkpoint.run_lock(tmp_path):
        assert (tmp_path / "precious.txt").read_text() == "precious"
        assert (tmp_path / ".train.pid").read_text().startswith(f"{os.getpid()} ")


def test_run_lock_removes_what_a_killed_run_left(recipe, tmp_path):
    short = recipe.replace(train=recipe.train.replace(steps=1), eval_data="")
    run = tmp_path / "run"
    train(short, run)
    kept = {path: path.read_bytes() for path in run.rglob("*.safetensors")}
    (run / "state" / "step-00000099").mkdir()
    left = [
        run / ".recipe.json.0123.part",
        run / "model" / ".config.json.4.part",
        run / "state" / ".latest.json.5.part",
    ]
    left += [run / "state" / "step-00000001" / ".model.safetensors.6.part", run / "state" / "step-00000099" / "x"]
    for path in left:
        path.write_text("half")
    (run / "notes.part").write_text("the user's own")
    train(short, run, resume=True)
    assert not any(path.exists() for path in left) and not (run / "state" / "step-00000099").exists()
    assert (run / "notes.part").exists()
    assert all(path.read_bytes() == content for path, content in kept.items() if "state" in path.parts)


@pytest.mark.parametrize(
    "latest",
    [
        *([], {}, {"step": 1}, {"step": "1", "folder": "step-1"}, {"step": 1, "folder": "../../x"}),
        *({"step": step, "folder": "step-1"} for step in (-1, 2**63, 10**400)),
        *({"step": 1, "folder": "step-1", "seconds": seconds} for seconds in (-1, 1e308, 10**400, "1", True)),
        {"step": 1, "folder": f"step-{'9' * 300}"},
    ],
)
def test_load_state_damaged_latest_json_is_a_one_line_error(recipe, tmp_path, latest):
    write_json(tmp_path / "latest.json", latest)
    with pytest.raises(InputError, match=r"latest\.json names no checkpoint"):
        load_state(new_state(recipe, Shapes(1)), tmp_path)


def test_save_state_folder_is_on_the_disk_before_latest_json_points_at_it(recipe, tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(checkpoint, "sync_folder", lambda folder: events.append(folder.name))
    write = checkpoint.write_json
    monkeypatch.setattr(
        checkpoint, "write_json", lambda path, content: (events.append(path.name), write(path, content))
    )
    save_state(new_state(recipe, Shapes(1)), tmp_path / "state")
    assert events == ["state", tmp_path.name, "latest.json"]


def test_ctrl_c_saves_and_the_run_goes_on_from_there(recipe, whole, tmp_path, monkeypatch):
    stopped = tmp_path / "stopped"
    step = TrainLog.step

    def interrupted(log: TrainLog, state: checkpoint.TrainState) -> None:
        step(log, state)
        if state.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(TrainLog, "step", interrupted)
    handlers = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, stopped)
    assert signal.getsignal(signal.SIGINT) is handlers
    assert json.loads((stopped / "state" / "latest.json").read_text())["step"] in (7, 8)
    assert from_pretrained(stopped / "model").model.config == recipe.model
    monkeypatch.undo()
    train(recipe, stopped, resume=True)
    assert_same_run(stopped, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, *sorted(ENDS)])
def test_train_signal_to_all_processes_saves(recipe, tmp_path, number: int):
    """A terminal sends SIGINT to the whole group of processes, or SIGHUP where it is closed, a scheduler SIGTERM."""
    long = recipe.replace(train=recipe.train.replace(steps=100_000, workers=1, save_every=2))
    process = start(long, tmp_path / "run")
    os.killpg(process.pid, number)
    output = process.communicate(timeout=60)[0].decode()
    assert "go on with --resume" in output
    assert "DataLoader" not in output
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


def test_stop_signals_the_end_of_a_session_is_one_signal():
    """It sends SIGTERM and SIGHUP, of which Python calls the lower number first."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with stop_signals() as received:
            signal.raise_signal(signal.SIGHUP)
            with suppress(KeyboardInterrupt):  # it would end the tests
                signal.raise_signal(signal.SIGTERM)
            assert received == [signal.SIGHUP, signal.SIGTERM]
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("log_every", [1, 1000])
def test_train_saves_where_the_terminal_was_closed(recipe, tmp_path, log_every):
    """What it prints is an error then, while it trains or when it ends."""
    changes = {"steps": 100_000, "workers": 1, "save_every": 50_000, "log_every": log_every, "evaluate_every": 3}
    long = recipe.replace(train=recipe.train.replace(**changes))
    process, terminal = pytest.importorskip("pty").fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-c", RUN, json.dumps(long.to_dict()), str(tmp_path / "run")])
    shown = b""
    while b": PQ" not in shown:
        shown += os.read(terminal, 10_000)  # an error where the training has ended
    os.close(terminal)
    os.waitpid(process, 0)
    assert json.loads((tmp_path / "run" / "state" / "latest.json").read_text())["step"] >= 3


def test_train_saves_where_ctrl_c_ends_the_reader_too(recipe, tmp_path):
    """In `pix2seqd train ... | tee log` both hear it."""
    long = recipe.replace(train=recipe.train.replace(steps=100_000, save_every=50_000, log_every=1000))
    command = [sys.executable, "-c", RUN, json.dumps(long.to_dict()), str(tmp_path / "run")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout and b": PQ" in process.stdout.readline()
        process.stdout.close()
        process.send_signal(signal.SIGINT)
    assert json.loads((tmp_path / "run" / "state" / "latest.json").read_text())["step"] >= 8
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


def test_train_same_result_with_other_workers_and_save_every(recipe, whole, tmp_path):
    train(recipe.replace(train=recipe.train.replace(workers=2, save_every=1000)), tmp_path / "run")
    assert_same_run(tmp_path / "run", whole)


def test_train_accumulate_gives_the_step_of_the_whole_batch(recipe, tmp_path):
    """Except for the statistics of batch normalisation, which are those of a micro-batch."""
    single = recipe.replace(train=recipe.train.replace(steps=1, warmup_steps=0, lr=1e-2))
    for accumulate in (1, 4):
        train(single.replace(train=single.train.replace(accumulate=accumulate)), tmp_path / str(accumulate))
    one, four = (weights(tmp_path / name) for name in ("1", "4"))
    start = new_state(single, Shapes(6, (32, 32))).model.state_dict()
    name = "mask_decoder.conv_out.bias"
    moves = [w[f"model/{name}"] - start[name] for w in (one, four)]
    assert moves[0].abs().max() > 1e-3
    assert torch.cosine_similarity(*moves, dim=0) > 0.8


def test_train_lowers_the_loss_and_publishes_the_ema(recipe, tmp_path):
    long = recipe.replace(train=recipe.train.replace(steps=40, accumulate=1, ema_decay=0.9))
    pretrained = train(long, tmp_path / "run")
    published = from_pretrained(tmp_path / "run" / "model")
    assert published.data == recipe.data
    assert [c.name for c in published.taxonomy.categories] == [c.name for c in Shapes.taxonomy.categories]
    latest = weights(tmp_path / "run")
    for name, value in published.model.state_dict().items():
        assert torch.equal(value, pretrained.model.state_dict()[name])
        assert torch.equal(value, latest[f"ema/{name}"])
    name = "mask_decoder.conv_out.bias"
    start = new_state(long, Shapes(6, (32, 32))).model.state_dict()[name]
    moved, averaged = ((latest[f"{part}/{name}"] - start).norm() for part in ("model", "ema"))
    assert 0.3 * moved < averaged < moved, "the average lags behind"
    losses = scalars(tmp_path / "run", "train/loss")
    assert losses[40] < 0.96 * losses[5]


# The schedule and the state


def test_learning_rate_equals_the_official_one(official):
    config = TrainConfig(lr=1e-4, end_lr_factor=0.1, warmup_steps=1155, steps=184_824)
    ours = [learning_rate(step, config) for step in official["unit/lr/steps"].tolist()]
    assert ours == pytest.approx(official["unit/lr/linear_w1155_T184824_1e-4_end0.1"].tolist(), rel=1e-5)


def test_train_backbone_lr_factor_changes_the_steps_of_the_backbone_only(recipe, tmp_path):
    """AdamW's first step moves a weight by about the learning rate, whatever its gradient."""
    moved = {}
    for factor in (1.0, 0.25, 0.0):
        one = recipe.replace(train={"steps": 1, "warmup_steps": 0, "ema_decay": 0.0, "backbone_lr_factor": factor})
        model = new_state(one, open_dataset(one.train_data, one.data.size)).model
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        after = train(one, tmp_path / str(factor)).model.named_parameters()
        of_backbone: dict[bool, list[float]] = {True: [], False: []}
        for name, value in after:
            change = (value.detach().cpu() - before[name]).abs().max().item()
            of_backbone[name.startswith("pixel_encoder.backbone.")].append(change)
        moved[factor] = {key: max(changes) for key, changes in of_backbone.items()}
    assert moved[1.0][False] == moved[0.25][False] == moved[0.0][False] > 0
    assert moved[0.25][True] == pytest.approx(0.25 * moved[1.0][True], rel=0.05)
    assert moved[0.0][True] == 0


def test_new_state_ema_starts_as_a_copy(recipe):
    state = new_state(recipe, Shapes(1))
    for ours, average in zip(state.model.state_dict().values(), state.ema.module.state_dict().values(), strict=True):
        assert torch.equal(ours, average)
    with torch.no_grad():
        for parameter in state.model.parameters():
            parameter.add_(1.0)
    state.ema.update_parameters(state.model)
    change = [a - b for a, b in zip(state.model.parameters(), state.ema.module.parameters(), strict=True)]
    assert all(torch.allclose(c, torch.full_like(c, 0.999), atol=1e-4) for c in change), (
        "0.999 of the old value is kept"
    )


def test_save_state_and_load_state_round_trip(recipe, tmp_path):
    state = new_state(recipe, Shapes(1))
    for _ in range(2):
        state.model(torch.rand(2, 3, 32, 32), torch.zeros(2, 2, 16, 16).long()).backward()
        state.optimizer.step()
        state.ema.update_parameters(state.model)
        state.step += 1
    save_state(state, tmp_path)
    other = new_state(recipe.replace(train=recipe.train.replace(seed=5)), Shapes(1))
    load_state(other, tmp_path)
    assert other.step == 2
    for part in ("model", "ema", "optimizer"):
        one, two = (checkpoint._tensors(s)[part] for s in (state, other))
        assert one.keys() == two.keys()
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_save_state_killed_keeps_the_old_state(recipe, tmp_path, monkeypatch):
    state = new_state(recipe, Shapes(1))
    state.step = 1
    save_state(state, tmp_path)
    written = []

    def dying(tensors: dict[str, torch.Tensor]) -> bytes:
        if len(written) == 1:
            raise KeyboardInterrupt  # like a kill: nothing runs after it
        written.append(tensors)
        return b"half"

    monkeypatch.setattr(checkpoint, "save", dying)
    state.step = 2
    with pytest.raises(KeyboardInterrupt):
        save_state(state, tmp_path)
    state.step = 1
    save_state(state, tmp_path)  # an existing step is not written again
    monkeypatch.undo()
    load_state(state, tmp_path)
    assert state.step == 1
    state.step = 2
    save_state(state, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest.json", "step-00000002"]
    load_state(state, tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such limit")
def test_save_state_on_a_full_disk_is_one_line_and_keeps_the_old_state(recipe, tmp_path):
    import resource

    state = new_state(recipe, Shapes(1))
    save_state(state, tmp_path)
    state.step = 1
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write .*safetensors \(File too large\)"):
            save_state(state, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    load_state(state, tmp_path)
    assert state.step == 0


def test_load_state_damaged_or_of_another_model_is_an_error(recipe, tmp_path):
    state = new_state(recipe, Shapes(1))
    state.step = 1
    save_state(state, tmp_path)
    other = new_state(recipe.replace(model=recipe.model.replace(decoder={"dim": 16})), Shapes(1))
    with pytest.raises(InputError, match="another configuration"):
        load_state(other, tmp_path)
    for damaged in ({"x": torch.ones(1)}, {"0.exp_avg": torch.ones(7, 7, 7)}, {"99999.step": torch.ones(())}):
        save_file(damaged, tmp_path / "step-00000001" / "optimizer.safetensors")
        with pytest.raises(InputError, match="another configuration"):
            load_state(state, tmp_path)
    file = tmp_path / "step-00000001" / "ema.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"ema\.safetensors is damaged"):
        load_state(state, tmp_path)


def test_train_existing_run_is_neither_overwritten_nor_mixed(recipe, tmp_path):
    short = recipe.replace(train=recipe.train.replace(steps=1))
    train(short, tmp_path / "run")
    with pytest.raises(InputError, match="already holds a run"):
        train(short, tmp_path / "run")
    with pytest.raises(InputError, match="started with another 'train' section"):
        train(short.replace(train=short.train.replace(lr=1e-5)), tmp_path / "run", resume=True)
    again = train(short, tmp_path / "run", resume=True)
    assert again.model.state_dict().keys() == from_pretrained(tmp_path / "run" / "model").model.state_dict().keys()


def test_train_resume_earlier_version_is_an_error(recipe, tmp_path):
    stored = recipe.to_dict()
    stored["model"] |= {"fuse_dim": stored["model"].pop("encoder")["map_dim"]}
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run" / "recipe.json", stored)
    with pytest.raises(InputError, match=r"recipe\.json is of another version .*'fuse_dim'.*another --out"):
        train(recipe, tmp_path / "run", resume=True)


def test_train_too_many_classes_is_an_error(recipe, tmp_path):
    with pytest.raises(InputError, match="shapes:6 has 10 classes with void; the model has 4"):
        train(recipe.replace(model=recipe.model.replace(mask={"classes": 4})), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": DataConfig(size=(32, 40))}, "multiples of 16"),
        ({"train": TrainConfig(batch_size=4, accumulate=3)}, "does not divide"),
    ],
)
def test_train_impossible_recipe_is_an_error_without_a_folder(changes, says, recipe, tmp_path):
    with pytest.raises(InputError, match=says):
        train(recipe.replace(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_new_state_init_takes_the_weights(recipe, tmp_path):
    short = recipe.replace(train=recipe.train.replace(steps=1))
    first = train(short, tmp_path / "first")
    state = new_state(short.replace(init=str(tmp_path / "first" / "model")), Shapes(1))
    for name, value in first.model.state_dict().items():
        assert torch.equal(state.model.state_dict()[name], value)
    with pytest.raises(InputError, match="no checkpoint"):
        new_state(short.replace(init=str(tmp_path / "nowhere")), Shapes(1))


def test_train_logs_scalars(recipe, whole):
    assert list(scalars(whole, "train/loss")) == [5, 10, 12]
    rates = scalars(whole, "train/lr")
    assert rates[12] == pytest.approx(learning_rate(11, recipe.train))
    assert min(scalars(whole, "train/images_per_second").values()) > 0


# Time, the best checkpoint, early stop and extension


def test_plan_fits_the_steps_to_the_time(recipe):
    config = recipe.train.replace(minutes=2.0, steps=1000, warmup_steps=50)
    state = new_state(recipe, Shapes(1))
    plan(state, config)
    assert state.last == 1000, "nothing was measured yet"
    state.step, state.seconds = 10, 5.0
    plan(state, config)
    assert state.last == 10 + 230, "115 seconds are left, half a second each"
    assert fitted(config, state.last).warmup_steps == 24 and learning_rate(240, fitted(config, 240)) < 0.2 * config.lr
    state.step, state.seconds = 200, 121.0
    plan(state, config)
    assert state.last == 200, "the time is over"
    plan(state, recipe.train)
    assert state.last == recipe.train.steps and fitted(recipe.train, 7) is recipe.train


def test_plan_shortens_the_average_of_a_short_run(recipe):
    state = new_state(recipe, Shapes(1))
    state.step, state.seconds = 10, 60.0
    plan(state, recipe.train.replace(minutes=4.0, steps=1000))
    with torch.no_grad():
        for parameter in state.model.parameters():
            parameter.add_(1.0)
    state.ema.update_parameters(state.model)
    moved = next(a - b for a, b in zip(state.model.parameters(), state.ema.module.parameters(), strict=True))
    assert moved.mean().item() == pytest.approx(0.5 ** (20 / 40), abs=1e-3)


def test_train_minutes_ends_by_the_time_and_can_go_on(recipe, tmp_path, capsys):
    timed = recipe.replace(train=recipe.train.replace(steps=10_000, minutes=0.02), eval_data="")
    train(timed, tmp_path / "run")
    latest = json.loads((tmp_path / "run" / "state" / "latest.json").read_text())
    assert 1 <= latest["step"] < 1000 and latest["seconds"] > 0.5
    train(timed, tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run" / "state" / "latest.json").read_text())["step"] == latest["step"], "it is over"
    longer = round((2 + 3 * latest["seconds"]) / 60, 2)  # a step takes as long as the machine is busy
    train(timed.replace(train=timed.train.replace(minutes=longer)), tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run" / "state" / "latest.json").read_text())["step"] > latest["step"]
    assert f"planned for 0.02 minutes and now for {longer:g} minutes" in capsys.readouterr().out


def test_train_extended_says_that_the_schedule_changes(recipe, tmp_path, capsys):
    short = recipe.replace(train=recipe.train.replace(steps=4), eval_data="")
    train(short, tmp_path / "run")
    train(short.replace(train=short.train.replace(steps=6)), tmp_path / "run", resume=True)
    rates = [f"{learning_rate(4, short.train.replace(steps=steps)):.3g}" for steps in (4, 6)]
    assert f"so the learning rate changes: at step 4 from {rates[0]} to {rates[1]}" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["train"]["steps"] == 6
    with pytest.raises(InputError, match=r"has trained 6 steps already; give --train\.steps 6 or more"):
        train(short, tmp_path / "run", resume=True)


def scripted(monkeypatch, *quality: float) -> None:
    """Evaluations give these PQs, and choose a limit of the scores of 0.3."""
    left = list(quality)

    def scored(*given, **options):
        pq = left.pop(0)
        quality = {"All": {"pq": pq, "sq": pq, "rq": pq, "n": 1}, "per_class": {}}
        confusion = {"classes": ["void"], "pixels": [[1]]}
        thresholds = {"thresholds": {"0.50": {"ap": pq}}}
        return 0.3, {"panoptic_quality": quality, "average_precision": thresholds, "confusion": confusion}

    monkeypatch.setattr("pix2seqd.training.log.evaluate_min_scores", scored)


def test_train_keeps_the_best_and_the_last_and_stops_early(recipe, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    scripted(monkeypatch, 0.1, 0.3, 0.2, 0.2)
    tried = recipe.train.replace(steps=20, evaluations=10, patience=2, evaluate_every=0)
    result = train(recipe.replace(train=tried), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "state" / "latest.json").read_text())["step"] == 8
    scores = json.loads((tmp_path / "run" / "results.json").read_text())
    assert scores["best"] == 4 and [score["step"] for score in scores["evaluations"]] == [2, 4, 6, 8]
    best, last = (load_file(tmp_path / "run" / name / "model.safetensors") for name in ("model", "last"))
    assert any(not torch.equal(best[name], last[name]) for name in best)
    assert result.infer.min_score == from_pretrained(tmp_path / "run" / "last").infer.min_score == 0.3
    assert all(torch.equal(best[name], value) for name, value in result.model.state_dict().items())
    train(recipe.replace(train=tried), tmp_path / "run", resume=True)
    assert json.loads((tmp_path / "run" / "state" / "latest.json").read_text())["step"] == 8, "it is over"


def test_train_evaluations_need_data(recipe, tmp_path):
    with pytest.raises(InputError, match=r"train\.evaluations needs images to score; give --eval-data"):
        train(recipe.replace(train=recipe.train.replace(evaluations=2), eval_data=""), tmp_path / "run")
