"""Faster versions of the layers; `accelerate` is the only way in."""

from pix2seqd.speed.exchange import accelerate, accelerate_training, available
from pix2seqd.speed.hardware import is_plain

__all__ = ["accelerate", "accelerate_training", "available", "is_plain"]
