"""Forwards to `pix2seqd.interop.official`: reading weights of the official TensorFlow model."""

from pix2seqd.interop.official import *  # noqa: F403
