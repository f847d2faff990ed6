import pytest
import torch

from pix2seqd.files import InputError
from pix2seqd.interop.onnx import OnnxSampler, export_onnx


@pytest.mark.parametrize("init_id_cell", [0, 4])
def test_onnx_sampler_gives_the_masks_of_the_model(init_id_cell, tiny, build, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model = build(tiny.replace(init_id_cell=init_id_cell))
    export_onnx(model, tmp_path, (32, 48))
    images, noise = torch.rand(1, 3, 32, 48), torch.randn(1, 5, 16, 24)
    found = OnnxSampler(tmp_path, model).infer(images, noise, steps=3)
    assert torch.equal(found, model.infer(images, noise, steps=3))


def test_export_onnx_video_model_is_an_error(tiny, build, tmp_path):
    pytest.importorskip("onnxscript")
    with pytest.raises(InputError, match="reads past masks"):
        export_onnx(build(tiny.replace(past_frames=1)), tmp_path, (32, 32))
