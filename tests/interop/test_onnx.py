import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pix2seqd.diffusion import ddim_step, gamma, time_steps
from pix2seqd.files import InputError
from pix2seqd.interop.onnx import export_onnx
from pix2seqd.pix2seq_d import Pix2SeqD


def infer_exported(folder: Path, model: Pix2SeqD, images: Tensor, noise: Tensor, steps: int) -> Tensor:
    """`Pix2SeqD.infer` with the exported graphs in place of the model's networks."""
    onnxruntime = pytest.importorskip("onnxruntime")

    def run(name: str, *inputs: np.ndarray) -> list[np.ndarray]:
        session = onnxruntime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"])
        return session.run(None, dict(zip((i.name for i in session.get_inputs()), inputs, strict=True)))

    features = run("encoder.onnx", images.numpy())
    m_t = m_pred = model.initial_state(noise)
    for now, after in time_steps(steps, 1.0):
        m_pred = torch.from_numpy(run("step.onnx", m_t.numpy(), *features, np.array([now], np.float32))[0])
        m_t = ddim_step(m_t, m_pred, *gamma(torch.tensor([now, after]), model.config.schedule))
    return model.to_masks(m_pred)


@pytest.mark.parametrize("init_id_cell", [0, 4])
def test_onnx_sampler_gives_the_masks_of_the_model(init_id_cell, tiny, build, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model = build(tiny.replace(mask={"init_id_cell": init_id_cell}))
    export_onnx(model, tmp_path, (32, 48))
    images, noise = torch.rand(1, 3, 32, 48), torch.randn(1, 5, 16, 24)
    assert torch.equal(infer_exported(tmp_path, model, images, noise, 3), model.infer(images, noise, steps=3))


def test_export_onnx_video_model_is_an_error(tiny, build, tmp_path):
    pytest.importorskip("onnxscript")
    with pytest.raises(InputError, match="reads past masks"):
        export_onnx(build(tiny.replace(decoder={"past_frames": 1})), tmp_path, (32, 32))


def test_export_without_the_extra_is_one_line(tiny, build, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"onnxscript\); pip install \"pix2seqd\[onnx\]\""):
        export_onnx(build(tiny), tmp_path, (32, 32))


def test_export_onnx_files_of_two_models_never_mix(tiny, build, tmp_path, monkeypatch):
    """Not if one is exported while the other is, nor if one was before, nor if one is stopped between its files."""
    pytest.importorskip("onnxscript")
    out, model = tmp_path / "out", build(tiny)

    def fake(module, inputs, path, **_):
        nonlocal stopped
        if path.endswith("step.onnx"):
            with pytest.raises(InputError, match="another process writes into"):
                export_onnx(model, out, (32, 48))
            if stopped:
                stopped = False
                raise KeyboardInterrupt
        Path(path).write_text("a")

    monkeypatch.setattr(torch.onnx, "export", fake)
    stopped = True
    with pytest.raises(KeyboardInterrupt):
        export_onnx(model, out, (32, 48))
    assert not out.exists()
    export_onnx(model, out, (32, 48))
    assert sorted(path.name for path in out.iterdir()) == ["encoder.onnx", "step.onnx"]
    with pytest.raises(InputError, match=r"encoder.onnx exists already; choose another folder"):
        export_onnx(model, out, (32, 48))
    assert [path.read_text() for path in out.iterdir()] == ["a", "a"]
