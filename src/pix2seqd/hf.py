"""Documented name of `pix2seqd.interop.transformers`; importing it makes `transformers` know our checkpoints."""

from pix2seqd.interop.transformers import (
    Pix2SeqDConfig,
    Pix2SeqDForUniversalSegmentation,
    Pix2SeqDImageProcessor,
    Pix2SeqDOutput,
    Pix2SeqDPipeline,
)

__all__ = [
    "Pix2SeqDConfig",
    "Pix2SeqDForUniversalSegmentation",
    "Pix2SeqDImageProcessor",
    "Pix2SeqDOutput",
    "Pix2SeqDPipeline",
]
