"""A baseline for nuclei: Otsu's threshold and connected components, scored as in `pix2seqd evaluate`.

python benchmarks/otsu.py --data coco:DIR@val
"""

import numpy as np
from cyclopts import App
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from pix2seqd import Panoptic
from pix2seqd.data import open_dataset
from pix2seqd.metrics import percent
from pix2seqd.metrics.panoptic_quality import PanopticQuality
from pix2seqd.panoptic.taxonomy import Taxonomy

app = App(help=__doc__)
BACKGROUND, NUCLEUS = "background", "nucleus"


def threshold(grey: np.ndarray) -> float:
    """Otsu's threshold, with the smallest variance within both sides; `grey` is uint8."""
    counts = np.bincount(grey.ravel(), minlength=256)
    below = counts.cumsum()
    level = (counts * np.arange(256)).cumsum()
    above = below[-1] - below
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (level / below - (level[-1] - level) / above) ** 2
    return float(np.nan_to_num(between).argmax())


def segmented(image: np.ndarray, taxonomy: Taxonomy, min_pixels: int) -> Panoptic:
    """Nuclei are bright, unless most of the image's border is bright (stained tissue, bright field)."""
    grey = image.mean(axis=2).round().astype(np.uint8)
    bright = grey > threshold(grey)
    border = np.concatenate([bright[0], bright[-1], bright[:, 0], bright[:, -1]])
    inside = ndimage.binary_fill_holes(~bright if border.mean() > 0.5 else bright)
    labels, count = ndimage.label(inside)
    labels[(np.bincount(labels.ravel()) < min_pixels)[labels]] = 0
    index = {category.name: number for number, category in enumerate(taxonomy.categories, start=1)}
    classes = dict.fromkeys(range(1, count + 1), index[NUCLEUS]) | {count + 1: index[BACKGROUND]}
    return Panoptic.from_segmentation(np.where(labels, labels, count + 1), classes, taxonomy)


@app.default
def main(*, data: str, min_pixels: int = 16) -> None:
    """PQ of nuclei per modality.

    Args:
        data: a data set whose categories are background and nucleus.
        min_pixels: smaller components are background.
    """
    dataset = open_dataset(data, (256, 256))
    records = getattr(dataset, "records", [{}] * len(dataset))
    scores: dict[str, PanopticQuality] = {}
    for number, record in enumerate(records):
        sample = dataset[number]
        found = segmented(sample.image, dataset.taxonomy, min_pixels)
        for group in ("all", str(record.get("modality", "?"))):
            scores.setdefault(group, PanopticQuality(dataset.taxonomy)).update(sample.panoptic, found)
    table = Table("images", "PQ(nucleus)", "SQ", "RQ")
    for group, score in scores.items():
        result = next(scores for scores in score.compute()["per_class"].values() if scores["name"] == NUCLEUS)
        table.add_row(group, *(percent(result[key]) for key in ("pq", "sq", "rq")))
    Console().print(table)


if __name__ == "__main__":
    app()
