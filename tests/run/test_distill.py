from pathlib import Path

import pytest
import torch

from pix2seqd.config import DataConfig, InferConfig, ModelConfig, TrainConfig
from pix2seqd.data.shapes import TAXONOMY
from pix2seqd.files import InputError
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.run.distill import Student, distill
from pix2seqd.weights import Pretrained, from_pretrained, save_pretrained


def test_a_student_comes_nearer_to_its_teacher_than_the_teacher_in_as_few_steps(tiny, build):
    teacher = build(tiny.replace(scale=0.5))
    images, noise = torch.rand(4, 3, 16, 16), torch.randn(4, 5, 8, 8)
    end = teacher.infer(images, noise, steps=6, td=0.0)
    student = Student(teacher, InferConfig(steps=6, td=0.0), InferConfig(steps=1, td=0.0))
    assert not {name for name in student.state_dict() if "teacher" in name}
    before = (student.eval().infer(images, noise, steps=1) == end).float().mean()
    optimizer = torch.optim.AdamW(student.parameters(), lr=2e-3)
    for _ in range(40):
        student(images, end, noise=noise).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = (student.infer(images, noise, steps=1) == end).float().mean()
    assert before < 0.95 and after > before + 0.5 * (1 - before)


def test_a_student_can_be_distilled_further(tmp_path: Path):
    model = Pix2SeqD(ModelConfig.preset("tiny").replace(bits=(4, 4), classes=10, max_instances=16))
    infer = InferConfig(steps=3, first_steps=4, consensus=3, min_pixels=5, enlarge=2)
    save_pretrained(Pretrained(model, TAXONOMY, DataConfig(size=(32, 32)), infer), tmp_path / "teacher")
    teacher, train = str(tmp_path / "teacher"), TrainConfig(batch_size=2, steps=1, workers=0, ema_decay=0.0)
    once = distill(teacher, "shapes:4", tmp_path / "once", full=0, few=1, td=1.0, config=train)
    assert (once.infer.steps, once.infer.first_steps, once.infer.consensus, once.infer.td) == (1, 0, 1, 1.0)
    assert once.infer.min_pixels == 5
    assert once.data.size == (64, 64) and once.infer.enlarge == 1, "it was shown windows as the teacher sees them"
    still = train.replace(lr=1e-12)
    twice = distill(
        teacher, "shapes:4", tmp_path / "twice", full=2, few=1, td=1.0, config=still, start=str(tmp_path / "once/model")
    )
    for name, weight in from_pretrained(tmp_path / "once" / "model").model.named_parameters():
        torch.testing.assert_close(twice.model.get_parameter(name), weight)
    assert any((a != b).any() for a, b in zip(model.parameters(), twice.model.parameters(), strict=True))
    with pytest.raises(InputError, match="other steps"):
        distill(teacher, "shapes:4", tmp_path / "once", full=5, few=1, td=1.0, config=train, resume=True)
    with pytest.raises(InputError, match="another network"):
        distill("nuclei", "shapes:4", tmp_path / "no", full=2, few=1, td=1.0, config=train, start=teacher)
    assert not (tmp_path / "no").exists()
