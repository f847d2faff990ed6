"""Documented name of `pix2seqd.interop.hub`: publishing checkpoints on the Hugging Face hub."""

from pix2seqd.interop.hub import model_card, push_to_hub

__all__ = ["model_card", "push_to_hub"]
