"""The command `pix2seqd figures`."""

from pathlib import Path
from typing import Annotated

from pix2seqd.cli.options import count
from pix2seqd.files import InputError, say

SIZE = (240, 320)
"""Height and width of scenes that are drawn for the figures, in pixels."""


def figures(data: str, /, *, index: Annotated[int, count(0)] = 0, out: Path = Path()) -> None:
    """Draw the paper's Figures 3 and 4 from any data.

    Figure 3 shows noisy masks at several times and scales. Figure 4 shows the loss weights. No model is needed.

    Args:
        data: Labelled images, for example shapes:4@1 or coco:DIR@val. See docs/datasets.md.
        index: Number of the image in the data set, from 0.
        out: Folder to write figure3.png and figure4.png to.
    """
    from pix2seqd.data import open_dataset
    from pix2seqd.evaluation.figures import loss_weights, noisy_masks
    from pix2seqd.files import write_png
    from pix2seqd.panoptic.results import check_writable

    check_writable(out)
    dataset = open_dataset(data, SIZE)
    if index >= len(dataset):
        raise InputError(f"{data} has {len(dataset)} images; give an --index below {len(dataset)}")
    for name, image in (("figure3.png", noisy_masks(dataset[index])), ("figure4.png", loss_weights(dataset[index]))):
        write_png(out / name, image)
        say(f"written to {out / name}")
