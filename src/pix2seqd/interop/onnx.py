"""Encoder and decoder step as ONNX graphs of a fixed size; the sampler stays outside (extra `onnx`)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pix2seqd.diffusion import ddim_step, gamma, time_steps
from pix2seqd.files import InputError, write_atomically
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.pixel_encoder import ImageFeatures

ENCODER, STEP = "encoder.onnx", "step.onnx"


class _Step(nn.Module):
    """The decoder with tensors as arguments and the expected bits as its only result."""

    def __init__(self, model: Pix2SeqD) -> None:
        super().__init__()
        self.decoder = model.mask_decoder

    def forward(self, m_t: Tensor, image_map: Tensor, tokens: Tensor, t: Tensor) -> Tensor:
        """As `MaskDecoder.forward`."""
        return self.decoder(m_t, ImageFeatures(image_map, tokens), t)[1]


def export_onnx(model: Pix2SeqD, folder: Path, size: tuple[int, int]) -> None:
    """Write encoder.onnx (images → map, tokens) and step.onnx (m_t, map, tokens, t → m_pred), float32, batch 1.

    Args:
        model: an image model; the graphs take no past masks, which video models need.
        folder: output folder; made if it does not exist.
        size: height and width of the network's input.

    Raises:
        InputError: the extra is not installed, or the model is a video model.
    """
    _imported("onnxscript")
    config = model.config
    if config.past_frames:
        raise InputError(
            "ONNX export takes image models only, and this model reads past masks; give an image checkpoint"
        )
    model = model.cpu().float().eval()
    folder.mkdir(parents=True, exist_ok=True)
    height, width = (n // config.mask_stride for n in size)
    images, m_t = torch.rand(1, 3, *size), torch.randn(1, config.total_bits, height, width)
    with torch.no_grad():
        h = model.pixel_encoder(images)
    _write(model.pixel_encoder, (images,), ["map", "tokens"], folder / ENCODER)
    _write(_Step(model).eval(), (m_t, h.map, h.tokens, torch.rand(1)), ["m_pred"], folder / STEP)


class OnnxSampler:
    """Algorithm 2 with the exported graphs, run by onnxruntime.

    Args of the constructor:
        folder: as `export_onnx` writes it.
        model: its sampler and its decoding of bits are used, not its networks.
    """

    def __init__(self, folder: Path, model: Pix2SeqD) -> None:
        runtime = _imported("onnxruntime")
        self.encoder, self.step = (
            runtime.InferenceSession(str(folder / name), providers=["CPUExecutionProvider"]) for name in (ENCODER, STEP)
        )
        self.model = model

    def infer(self, images: Tensor, noise: Tensor, steps: int = 20, td: float = 1.0) -> Tensor:
        """As `Pix2SeqD.infer`, batch 1 and the size of the export."""
        image_map, tokens = run(self.encoder, images.numpy())
        m_t = m_pred = self.model.initial_state(noise)
        for now, after in time_steps(steps, td):
            (found,) = run(self.step, m_t.numpy(), image_map, tokens, np.array([now], np.float32))
            m_pred = torch.from_numpy(found)
            m_t = ddim_step(m_t, m_pred, *gamma(torch.tensor([now, after]), self.model.config.schedule))
        return self.model.to_masks(m_pred)


def run(session: Any, *inputs: np.ndarray) -> list[np.ndarray]:
    """Run a graph with onnxruntime; `inputs` are in the order of the graph."""
    names = [given.name for given in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))


def _write(module: nn.Module, inputs: tuple[Tensor, ...], outputs: list[str], path: Path) -> None:
    with write_atomically(path) as temporary, torch.no_grad():
        torch.onnx.export(
            module, inputs, str(temporary), output_names=outputs, dynamo=True, external_data=False, verbose=False
        )


def _imported(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise InputError(f"{name} is not installed; pip install 'pix2seqd[onnx]'") from error
