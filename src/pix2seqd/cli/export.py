"""The command `pix2seqd export`."""

from pathlib import Path

from pix2seqd.cli.options import Checkpoint, TrustSize
from pix2seqd.files import say


def export(checkpoint: Checkpoint, /, *, out: Path, trust_size: TrustSize = False) -> None:
    """Export a checkpoint to ONNX.

    OUT receives encoder.onnx (the image encoder) and step.onnx (one decoder step). The graphs take images of the
    checkpoint's own input size. The command needs `pip install "pix2seqd[onnx]"`.

    Args:
        out: Folder to write to, which holds no other export.
    """
    from pix2seqd.checkpoint import from_pretrained
    from pix2seqd.inference.tiling import Tiling
    from pix2seqd.interop.onnx import export_onnx

    pretrained = from_pretrained(checkpoint, trust_size)
    export_onnx(pretrained.model, out, Tiling(pretrained).size)
    say(f"written to {out}: encoder.onnx, step.onnx")
