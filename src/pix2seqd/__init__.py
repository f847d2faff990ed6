"""Pix2Seq-D: panoptic segmentation of images and videos by bit diffusion (Chen et al. 2022, arXiv 2210.06366).

The whole public interface: `Segmenter` (images in, segmentations out), `Panoptic` and `Taxonomy` (what comes out),
`Checkpoint`, `Pix2SeqD` (the model), `ModelConfig`, `train` and `RECIPES` (training, extra `train`).

To read the code, begin with `pix2seq_d` (Algorithms 1 and 2). docs/paper.md says where each part of the paper is.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pix2seqd.checkpoint import Checkpoint
    from pix2seqd.config import ModelConfig
    from pix2seqd.panoptic.panoptic import Panoptic
    from pix2seqd.panoptic.taxonomy import Taxonomy
    from pix2seqd.pix2seq_d import Pix2SeqD
    from pix2seqd.segmenter import Segmenter
    from pix2seqd.training.recipes import RECIPES
    from pix2seqd.training.train import train

__all__ = ["RECIPES", "Checkpoint", "ModelConfig", "Panoptic", "Pix2SeqD", "Segmenter", "Taxonomy", "train"]

_HOMES = {
    "Checkpoint": "checkpoint",
    "ModelConfig": "config",
    "Panoptic": "panoptic.panoptic",
    "Pix2SeqD": "pix2seq_d",
    "Segmenter": "segmenter",
    "RECIPES": "training.recipes",
    "Taxonomy": "panoptic.taxonomy",
    "train": "training.train",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the command line answers --help without waiting for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pix2seqd' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pix2seqd.{_HOMES[name]}"), name)
