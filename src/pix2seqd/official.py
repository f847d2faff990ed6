"""Documented name of `pix2seqd.interop.official`: reading weights of the official TensorFlow model."""

from pix2seqd.interop.official import (
    load_official,
    load_official_checkpoint,
    load_tensorflow_checkpoint,
    load_variables,
    model_config,
    official_names,
    read_tensorflow_checkpoint,
)

__all__ = [
    "load_official",
    "load_official_checkpoint",
    "load_tensorflow_checkpoint",
    "load_variables",
    "model_config",
    "official_names",
    "read_tensorflow_checkpoint",
]
