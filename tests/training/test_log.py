import io
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim.swa_utils import AveragedModel

from pix2seqd.checkpoint import Checkpoint
from pix2seqd.config import DataConfig, InferConfig, Recipe, TrainConfig
from pix2seqd.data.synthetic.shapes import TAXONOMY, Shapes
from pix2seqd.files import InputError
from pix2seqd.panoptic.taxonomy import Taxonomy
from pix2seqd.training.log import SAMPLES, TrainLog
from pix2seqd.training.state import TrainState

EVALUATION = {"eval/PQ all", "eval/PQ things", "eval/PQ stuff", "eval/AP50"}
TRAINING = {"train/loss", "train/images_per_second", "train/lr"}


@pytest.fixture
def recipe(tiny) -> Recipe:
    return Recipe(
        model=tiny.replace(mask={"bits": (4, 3), "classes": 10}),
        data=DataConfig(size=(32, 48)),
        train=TrainConfig(steps=6, batch_size=4, log_every=2, save_every=4, evaluate_every=3, evaluate_images=5),
        infer=InferConfig(steps=1, min_pixels=0),
        eval_data="shapes:9@1",
    )


@pytest.fixture
def run(recipe, build, tmp_path) -> Callable[..., None]:
    """A run without training: at step s the loss is s."""

    def steps(first: int, last: int, recipe: Recipe = recipe, taxonomy: Taxonomy = TAXONOMY) -> None:
        model = build(recipe.model)
        ema = AveragedModel(model, use_buffers=True)
        state = TrainState(model, ema, torch.optim.AdamW(model.parameters(), lr=0.5), first)
        pretrained = Checkpoint(ema.module, taxonomy, recipe.data, recipe.infer)
        with TrainLog(tmp_path, recipe, first, pretrained) as log:
            while state.step < last:
                state.step += 1
                log.add(torch.tensor(float(state.step)))
                log.step(state)

    return steps


def logged(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder / "logs"), size_guidance={"images": 0}).Reload()


def test_train_log_writes_scalars_images_and_states(run, recipe, tmp_path):
    run(0, 6)
    events = logged(tmp_path)
    assert set(events.Tags()["scalars"]) == TRAINING | EVALUATION
    curve = [(event.step, event.value) for event in events.Scalars("train/loss")]
    assert curve == [(2, 1.5), (4, 3.5), (6, 5.5)], "the mean since the last value"
    assert [event.value for event in events.Scalars("train/lr")] == [0.5] * 3
    for tag in EVALUATION:
        assert [event.step for event in events.Scalars(tag)] == [3, 6]
        assert all(0 <= event.value <= 1 for event in events.Scalars(tag))
    assert [path.name for path in (tmp_path / "state").glob("step-*")] == ["step-00000004"]

    data = Shapes(9, (32, 48), seed=1)
    assert events.Tags()["images"] == [f"samples/{i}" for i in range(SAMPLES)]
    for number, index in enumerate((0, 2, 4, 6)):  # of the five that are evenly spread over nine
        shown = events.Images(f"samples/{number}")
        assert [event.step for event in shown] == [3, 6]
        pixels = np.asarray(Image.open(io.BytesIO(shown[-1].encoded_image_string)))
        image, truth, prediction = np.split(pixels, 3, axis=1)
        sample = data[index]
        assert np.array_equal(image, sample.image)
        assert np.array_equal(truth, sample.panoptic.overlay(sample.image))
        assert prediction.std() > 10


def test_train_log_resumed_run_hides_later_events(run, tmp_path):
    run(0, 5)
    time.sleep(1)  # TensorBoard reads its files in the order of their names, which contain the time in seconds
    run(4, 6)  # from the checkpoint of step 4
    events = logged(tmp_path)
    assert [event.step for event in events.Scalars("train/loss")] == [2, 4, 6]
    assert [event.step for event in events.Scalars("eval/AP50")] == [3, 6]


@pytest.mark.parametrize("changes", [{"eval_data": ""}, {"evaluate_images": 0}])
def test_train_log_without_evaluation_data(run, recipe, tmp_path, changes):
    train = recipe.train.replace(**{k: v for k, v in changes.items() if k == "evaluate_images"})
    run(0, 6, replace(recipe, train=train, eval_data=changes.get("eval_data", recipe.eval_data)))
    assert set(logged(tmp_path).Tags()["scalars"]) == TRAINING
    assert logged(tmp_path).Tags()["images"] == []


def test_train_log_wrong_evaluation_data_is_an_error(run, recipe, tmp_path):
    with pytest.raises(InputError, match="categories"):
        run(0, 6, taxonomy=Taxonomy.from_coco([{"id": 1, "name": "cat"}]))
    with pytest.raises(InputError, match="nowhere"):
        run(0, 6, replace(recipe, eval_data=f"coco:{tmp_path}/nowhere@val"))
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize(("wait", "said"), [(1.0, "waits for images 50% of the time"), (0.1, "")])
def test_train_log_says_that_training_waits_for_images(recipe, build, tmp_path, monkeypatch, capsys, wait, said):
    clock = [0.0]
    monkeypatch.setattr("pix2seqd.training.log.time.perf_counter", lambda: clock[0])

    def batches() -> Iterator[int]:
        clock[0] += 100  # the start of the worker processes
        for number in range(4):
            yield number
            clock[0] += wait

    model = build(recipe.model)
    ema = AveragedModel(model, use_buffers=True)
    state = TrainState(model, ema, torch.optim.AdamW(model.parameters()), 0)
    pretrained = Checkpoint(ema.module, TAXONOMY, recipe.data, recipe.infer)
    recipe = recipe.replace(train={"steps": 4, "evaluate_every": 0}, eval_data="")
    with TrainLog(tmp_path, recipe, 0, pretrained) as log:
        for number in log.timed(batches()):
            clock[0] += 1
            assert number == state.step
            state.step += 1
            log.add(torch.tensor(1.0))
            log.step(state)
    first, last = (line for line in capsys.readouterr().out.splitlines() if line.startswith("step"))
    assert "waits" not in first, "the first batch is not counted"
    assert said in last and ("waits" in last) == bool(said)
