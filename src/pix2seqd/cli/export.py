"""`pix2seqd export`: a checkpoint as ONNX graphs."""

from pathlib import Path


def export(checkpoint: str, /, *, out: Path) -> None:
    """Write a checkpoint's encoder and decoder step as ONNX graphs of its own input size (extra `onnx`).

    Args:
        checkpoint: bundled (nuclei, nuclei-fast, nuclei-video, shapes), a folder, or an id on the Hugging Face hub.
        out: folder for encoder.onnx and step.onnx.
    """
    from pix2seqd.checkpoint import from_pretrained
    from pix2seqd.inference.tiling import Windows
    from pix2seqd.interop.onnx import export_onnx
    from pix2seqd.panoptic.results import make_folders

    make_folders(out, (".",))
    pretrained = from_pretrained(checkpoint)
    export_onnx(pretrained.model, out, Windows(pretrained).size)
    print(f"written to {out}: encoder.onnx, step.onnx")
