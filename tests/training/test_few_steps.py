import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from pix2seqd.analog_bits import analog, code_table, to_codes
from pix2seqd.checkpoint import Checkpoint, from_pretrained, save_pretrained
from pix2seqd.config import DataConfig, InferConfig, ModelConfig, TrainConfig
from pix2seqd.data.synthetic.shapes import TAXONOMY
from pix2seqd.files import InputError, read_json
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.training.few_steps import Student, distill

REUSED = DataConfig(size=(16, 16), ids="reused")


def squares() -> torch.Tensor:
    """Instance numbers of four squares in two pairs that touch, 0 between the pairs: int64 [1, 8, 8]."""
    numbers = torch.zeros(1, 8, 8, dtype=torch.long)
    numbers[0, 1:3, 0:2], numbers[0, 1:3, 2:4], numbers[0, 1:3, 6:8], numbers[0, 3:5, 6:8] = 1, 2, 3, 4
    return numbers


def first(student: Student, *ids: tuple[slice, slice, int]) -> torch.Tensor:
    """A first state that shows these ids in these places, and 7 elsewhere."""
    shown = torch.stack([torch.zeros(8, 8), torch.full((8, 8), 7)])[None].long()
    for rows, columns, value in ids:
        shown[0, 1, rows, columns] = value
    mask = student.config.mask
    return analog(to_codes(shown, mask.bits, mask.encoding), mask.bits, 1.0)


def relabelled(student: Student, state: torch.Tensor, numbers: torch.Tensor, favoured=(), **given) -> list[int]:
    """The id that each square gets; the prediction favours `favoured`, (square, id) each."""
    masks = torch.stack([(numbers > 0).long(), numbers], dim=1)
    logits = torch.zeros(1, 2 ** student.config.mask.bits[1], 8, 8)
    for square, value in favoured:
        logits[0, code_table(3, student.config.mask.encoding)[value]][numbers[0] == square] = 2.0
    result = student.relabel(masks, given.pop("instances", numbers), state, given.pop("before", None), logits, **given)
    assert torch.equal(result[:, 0], masks[:, 0])
    assert (result[:, 1][numbers == 0] == 0).all()
    return [int(result[:, 1][numbers == square].unique()) for square in (1, 2, 3, 4)]


LEFT, RIGHT, ALL = slice(0, 2), slice(2, 4), slice(None)


@pytest.fixture(autouse=True)
def _near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only squares that touch are neighbours."""
    monkeypatch.setattr("pix2seqd.training.few_steps.ID_DISTANCE", 1)


@pytest.fixture
def student(tiny, build) -> Student:
    return Student(build(tiny), REUSED, InferConfig(steps=1))


@pytest.mark.parametrize("encoding", ["binary", "gray"])
def test_relabel_takes_the_id_of_the_first_state_at_the_middle(tiny, build, encoding):
    student = Student(build(tiny.replace(mask={"encoding": encoding})), REUSED, InferConfig(steps=1))
    state = first(
        student, (ALL, LEFT, 1), (ALL, RIGHT, 4), (slice(0, 3), slice(6, 8), 2), (slice(3, 8), slice(6, 8), 5)
    )
    assert relabelled(student, state, squares()) == [1, 4, 2, 5]
    assert relabelled(student, torch.zeros_like(state), squares(), favoured=[(1, 3)])[0] == 3


def test_relabel_between_two_cells_follows_the_prediction(student):
    numbers = squares()
    state = first(student, (slice(0, 2), LEFT, 1), (slice(2, 8), LEFT, 3), (ALL, RIGHT, 4))
    assert relabelled(student, state, numbers, favoured=[(1, 1)])[0] == 1
    assert relabelled(student, state, numbers, favoured=[(1, 3)])[0] == 3


def test_relabel_neighbours_in_one_cell_follow_the_prediction(student):
    state = first(student, (ALL, slice(0, 6), 2))
    first_id, second_id, _, _ = relabelled(student, state, squares(), favoured=[(2, 2)])
    assert second_id == 2 != first_id
    third, fourth = relabelled(student, state, squares(), favoured=[(3, 7)])[2:]
    assert third == 7 != fourth


def test_relabel_takes_the_id_that_the_noise_is_most_like(tiny, build):
    """Noise is most like the id whose bits have the signs of its sum over the instance."""
    student, numbers = Student(build(tiny), REUSED, InferConfig(steps=1), "noise"), squares()
    assert student.config.mask.init_id_cell == 0
    bits = student.config.mask.bits
    noise = torch.randn(1, sum(bits), 8, 8, generator=torch.Generator().manual_seed(1))
    sums = [noise[0, bits[0] :, numbers[0] == square].sum(dim=1) for square in (1, 2, 3, 4)]
    expected = [sum(int(bit > 0) << k for k, bit in enumerate(one)) for one in sums]
    assert expected[0] != expected[1] and expected[2] != expected[3], "neighbours get their own wish"
    assert relabelled(student, noise, numbers) == expected
    wish = expected[0]
    noise[0, bits[0] :, numbers[0] == 2] = noise[0, bits[0] :, numbers[0] == 1]
    found = relabelled(student, noise, numbers)
    assert wish in found[:2] and found[0] != found[1], "of two neighbours with one wish, one gets it"


def test_relabel_weak_noise_follows_the_prediction(tiny, build):
    student, numbers = Student(build(tiny), REUSED, InferConfig(steps=1), "noise"), squares()
    noise = 0.01 * torch.randn(1, sum(student.config.mask.bits), 8, 8, generator=torch.Generator().manual_seed(0))
    assert relabelled(student, noise, numbers, favoured=[(1, 3), (2, 5), (3, 6), (4, 1)]) == [3, 5, 6, 1]


def test_relabel_id_0_only_where_ids_are_reused(student):
    assert relabelled(student, first(student, (ALL, LEFT, 0)), squares())[0] == 0
    assert 0 not in relabelled(student, first(student, (ALL, LEFT, 0)), squares(), instances=None)


def test_relabel_later_step_keeps_the_majority_id(student):
    before = first(student, (slice(0, 2), LEFT, 1), (2, LEFT, 3), (ALL, RIGHT, 4), (2, 3, 3))
    state = first(student, (ALL, LEFT, 6))
    found = relabelled(student, state, squares(), favoured=[(1, 3), (2, 3)], before=before)
    assert found[:2] == [3, 4], "half and half: the prediction decides; three of four: the majority"


def test_relabel_unique_ids_stay_unique(student):
    found = relabelled(student, first(student), squares(), instances=None)
    assert 7 in found and len(set(found)) == 4 and 0 not in found


def test_relabel_ids_that_the_past_shows_stay(student):
    """The others, of instances that are new or were missed, are free."""
    past = torch.zeros(1, 1, 2, 8, 8, dtype=torch.long)
    state = first(student, (ALL, LEFT, 5))
    assert relabelled(student, state, squares(), past=past)[0] == 5
    past[0, 0] = squares()[0]
    assert relabelled(student, state, squares(), past=past) == [1, 2, 3, 4]
    past[past == 3] = 0
    one, two, three, four = relabelled(student, state, squares(), past=past)
    assert (one, two, four) == (1, 2, 4) and three == 7


@pytest.mark.parametrize("reused", [True, False])
@pytest.mark.parametrize("later", [True, False], ids=["a later step", "the first step"])
@pytest.mark.parametrize("start", ["cells", "noise"])
def test_relabel_same_ids_alone_and_in_batch(tiny, build, reused, later, start):
    student = Student(build(tiny), REUSED, InferConfig(steps=1), start)
    torch.manual_seed(0)
    bits = student.config.mask.bits
    blocks = torch.randint(0, 6, (5, 4, 4)) * (torch.arange(5) < 4)[:, None, None]  # the last one is empty
    numbers = blocks.repeat_interleave(2, 1).repeat_interleave(2, 2)
    masks = torch.stack([(numbers > 0).long(), numbers], dim=1)
    state, before = torch.randn(2, 5, sum(bits), 8, 8).sign()
    logits, past = torch.randn(5, 2 ** bits[1], 8, 8), torch.zeros(5, 1, 2, 8, 8, dtype=torch.long)
    past[1, 0] = masks[1]
    given = [masks, numbers if reused else None, state, before if later else None, logits, past]
    together = student.relabel(*given)
    for k in range(5):
        alone = student.relabel(*(None if value is None else value[k : k + 1] for value in given))
        assert torch.equal(together[k : k + 1], alone)
    assert torch.equal(together[1], masks[1]) and not torch.equal(together[0], masks[0])


@pytest.mark.parametrize("start, share", [("cells", 0.25), ("noise", 0.6)])
def test_student_learns_one_step_from_random_ids(tiny, build, start, share):
    """The ids of the truth are random at each step, so only a loss that does not depend on ids can fall this far."""
    teacher, numbers = build(tiny.replace(mask={"scale": 0.5})), squares().repeat(4, 1, 1)
    student = Student(teacher, REUSED, InferConfig(steps=1), start)
    assert all(torch.equal(a, b) for a, b in zip(student.parameters(), teacher.parameters(), strict=True))
    images = torch.nn.functional.interpolate(numbers[:, None] / 4.0, scale_factor=2.0).repeat(1, 3, 1, 1)
    optimizer = torch.optim.AdamW(student.parameters(), lr=3e-3)
    losses = []
    for _ in range(80):
        ids = torch.cat([torch.zeros(1, dtype=torch.long), torch.randperm(tiny.mask.max_instances - 1)[:4] + 1])
        masks = torch.stack([(numbers > 0).long(), ids[numbers]], dim=1)
        loss = student(images, masks, instances=numbers)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert sum(losses[-10:]) < share * sum(losses[:10])
    found = student.eval().infer(images, torch.randn(4, tiny.mask.total_bits, 8, 8), steps=1)
    assert (found[:, 0] == (numbers > 0)).float().mean() > 0.95


def test_distill_writes_a_checkpoint_with_the_settings_of_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = Pix2SeqD(ModelConfig.preset("tiny").replace(mask={"bits": (4, 4), "classes": 10, "max_instances": 16}))
    infer = InferConfig(steps=3, first_steps=4, consensus=3, min_pixels=5, input_scale=2)
    save_pretrained(Checkpoint(model, TAXONOMY, DataConfig(size=(32, 32)), infer), tmp_path / "teacher")
    teacher, train = str(tmp_path / "teacher"), TrainConfig(batch_size=2, steps=1, workers=0, ema_decay=0.0)
    once = distill(teacher, "shapes:4", tmp_path / "once", steps=1, td=1.0, config=train)
    assert (once.infer.steps, once.infer.first_steps, once.infer.consensus, once.infer.td) == (1, 0, 1, 1.0)
    assert once.infer.min_pixels == 5
    assert (model.config.mask.init_id_cell, once.model.config.mask.init_id_cell) == (0, 2), (
        "its coarsest map has half the size of the mask"
    )
    assert once.data.size == (32, 32) and once.infer.input_scale == 2, "its windows are the teacher's"
    shown = read_json(tmp_path / "once" / "recipe.json")
    assert shown["data"]["size"] == [64, 64] and shown["infer"]["input_scale"] == 1
    assert from_pretrained(tmp_path / "once" / "model").infer == once.infer
    assert any((a != b).any() for a, b in zip(model.parameters(), once.model.parameters(), strict=True))
    with monkeypatch.context() as stopping, pytest.raises(KeyboardInterrupt):
        stopping.setattr("pix2seqd.training.train.stop_signals", lambda: nullcontext([signal.SIGTERM]))
        distill(teacher, "shapes:4", tmp_path / "stopped", steps=1, td=1.0, config=train.replace(steps=2))
    stopped = from_pretrained(tmp_path / "stopped" / "model")
    assert (stopped.data, stopped.infer) == (once.data, once.infer)
    twice = distill(
        str(tmp_path / "once/model"), "shapes:4", tmp_path / "twice", steps=2, td=0.0, config=train, side=32
    )
    assert (twice.data.size, twice.infer.steps) == ((32, 32), 2)
    assert read_json(tmp_path / "twice" / "recipe.json")["data"]["size"] == [32, 32]
    with pytest.raises(InputError, match="another 'infer' section"):
        distill(teacher, "shapes:4", tmp_path / "once", steps=2, td=1.0, config=train, resume=True)
    linear = Pix2SeqD(model.config.replace(decoder={"head": "linear"}, loss="l2"))
    save_pretrained(Checkpoint(linear, TAXONOMY, DataConfig(size=(32, 32)), infer), tmp_path / "linear")
    with pytest.raises(InputError, match="linear head"):
        distill(str(tmp_path / "linear"), "shapes:4", tmp_path / "no", steps=1, td=1.0, config=train)
    assert not (tmp_path / "no").exists()
