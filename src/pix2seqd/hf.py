"""Forwards to `pix2seqd.interop.transformers`; importing it registers our classes with `transformers`."""

from pix2seqd.interop.transformers import *  # noqa: F403
