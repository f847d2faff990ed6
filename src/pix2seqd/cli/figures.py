"""`pix2seqd figures`: Figures 3 and 4 of the paper."""

from pathlib import Path
from typing import Annotated

from pix2seqd.cli.options import count
from pix2seqd.files import InputError

SIZE = (240, 320)
"""Of scenes that are drawn for the figures."""


def figures(data: str, /, *, index: Annotated[int, count(0)] = 0, out: Path = Path()) -> None:
    """Draw the paper's Figure 3 (noisy masks at several times and scales) and Figure 4 (loss weights) from any data.

    Args:
        data: labelled pictures, as for `evaluate`, e.g. shapes:4@1.
        index: which picture, from 0.
        out: folder to write figure3.png and figure4.png to. Default: this one.
    """
    from pix2seqd.data import open_dataset
    from pix2seqd.evaluation.figures import loss_weights, noisy_masks
    from pix2seqd.files import write_atomically
    from pix2seqd.panoptic.results import check_writable

    check_writable(out)
    dataset = open_dataset(data, SIZE)
    if index >= len(dataset):
        raise InputError(f"{data} has {len(dataset)} pictures; give an --index below")
    for name, image in (("figure3.png", noisy_masks(dataset[index])), ("figure4.png", loss_weights(dataset[index]))):
        with write_atomically(out / name) as temporary:
            image.save(temporary, "PNG")
        print(f"written to {out / name}")
