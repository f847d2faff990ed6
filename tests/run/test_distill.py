import torch

from pix2seqd.config import InferConfig
from pix2seqd.run.distill import Student


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
