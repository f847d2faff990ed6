"""Make street.jpg and streets.jpg: street photographs and what `facades` finds.

python docs/images/streets.py DIR    (DIR: the validation images of Building Facade Segmentation, CC BY 4.0)
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from pix2seqd import Segmenter

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "street.jpg"
TEN = ("0593", "0374", "0476", "0257", "0300", "0184", "0069", "0098", "0162", "0409")

segmenter = Segmenter.from_pretrained("facades")


def pair(path: Path, side: int) -> np.ndarray:
    """The image and its overlay, side by side."""
    image = Image.open(path).convert("RGB")
    shown = (image, segmenter.image(path).overlay(image))
    return np.concatenate([np.asarray(each.convert("RGB").resize((side, side))) for each in shown], axis=1)


Image.fromarray(pair(EXAMPLE, 512)).save(HERE / "street.jpg", quality=85)
pairs = [pair(Path(sys.argv[1]) / f"{name}.jpg", 240) for name in TEN]
rows = [np.concatenate(pairs[k : k + 2], axis=1) for k in range(0, len(pairs), 2)]
Image.fromarray(np.concatenate(rows)).save(HERE / "streets.jpg", quality=80)
