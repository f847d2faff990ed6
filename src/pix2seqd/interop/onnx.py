"""Encoder and decoder step as ONNX graphs of a fixed size; the sampler stays outside (extra `onnx`)."""

from pathlib import Path

import torch
from torch import Tensor, nn

from pix2seqd.files import InputError, require, write_together
from pix2seqd.pix2seq_d import Pix2SeqD
from pix2seqd.pixel_encoder import ImageFeatures

FILES = ("encoder.onnx", "step.onnx")
"""The files of an export."""


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

    `size` is height and width of the network's input. The graphs take no past masks, which video models need. Both
    files come into the folder, or neither.

    Raises:
        InputError: the extra is not installed, the model is a video model, or the folder has such files already or
            cannot be written to.
    """
    require("ONNX export", "onnx", "onnx", "onnxscript")
    config = model.config
    if config.decoder.past_frames:
        raise InputError(
            "ONNX export takes image models only, and this model reads past masks; give an image checkpoint"
        )
    model = model.cpu().float().eval()
    height, width = (n // config.mask.stride for n in size)
    images, m_t = torch.rand(1, 3, *size), torch.randn(1, config.mask.total_bits, height, width)
    with write_together(folder) as stage, torch.no_grad():
        if there := [folder / name for name in FILES if (folder / name).exists()]:  # before it takes its time
            raise InputError(f"{there[0]} exists already; choose another folder")
        h = model.pixel_encoder(images)
        _write(model.pixel_encoder, (images,), ["map", "tokens"], stage / FILES[0])
        _write(_Step(model).eval(), (m_t, h.map, h.tokens, torch.rand(1)), ["m_pred"], stage / FILES[1])


def _write(module: nn.Module, inputs: tuple[Tensor, ...], outputs: list[str], path: Path) -> None:
    torch.onnx.export(module, inputs, str(path), output_names=outputs, dynamo=True, external_data=False, verbose=False)
