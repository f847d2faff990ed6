"""Forwards to `pix2seqd.interop.hub`: publishing checkpoints."""

from pix2seqd.interop.hub import *  # noqa: F403
