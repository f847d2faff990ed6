"""Fit the statistics by which a checkpoint knows images unlike its training images:
python benchmarks/fit_familiarity.py FOLDER --data coco:DIR@train 256 [--data ...]

Training does this at its end; this is for checkpoints from before. It writes familiarity.safetensors into FOLDER.
"""

import argparse
from pathlib import Path

from pix2seqd.checkpoint import from_pretrained
from pix2seqd.data import is_clips, open_clips, open_dataset
from pix2seqd.images import familiarity
from pix2seqd.training.familiar import training_statistics

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--data", nargs=2, action="append", required=True, metavar=("DATA", "COUNT"), help="images or clips"
    )
    given = parser.parse_args()
    checkpoint = from_pretrained(given.folder)
    size = checkpoint.data.size
    opened = [open_clips(data, size, 3) if is_clips(data) else open_dataset(data, size) for data, _ in given.data]
    found = training_statistics(checkpoint, zip(opened, (int(count) for _, count in given.data), strict=True))
    familiarity.write(found, given.folder)
    print("too few images" if found is None else f"written to {given.folder / familiarity.FILE}")
