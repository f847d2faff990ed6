"""The command `pix2seqd export`."""

from pathlib import Path

from pix2seqd.cli.options import Flag
from pix2seqd.files import say


def export(checkpoint: str, /, *, out: Path, trust_size: Flag = False) -> None:
    """Export a checkpoint to ONNX.

    OUT receives encoder.onnx (the image encoder) and step.onnx (one decoder step). The graphs take images of the
    checkpoint's own input size. The command needs the extra onnx.

    Args:
        checkpoint: A bundled model (`pix2seqd models` lists them), the folder of a checkpoint, or the id of a model
            on the Hugging Face hub.
        out: Folder to write to.
        trust_size: Take a checkpoint of any size. Without it, sizes in config.json have limits (SECURITY.md), because a
            stranger's checkpoint may be made to exhaust the machine.
    """
    from pix2seqd.checkpoint import from_pretrained
    from pix2seqd.inference.tiling import Tiling
    from pix2seqd.interop.onnx import export_onnx
    from pix2seqd.panoptic.results import make_folders

    pretrained = from_pretrained(checkpoint, trust_size)
    make_folders(out, ())
    export_onnx(pretrained.model, out, Tiling(pretrained).size)
    say(f"written to {out}: encoder.onnx, step.onnx")
