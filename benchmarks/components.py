"""What do the generated ids bring? A model beside its own classes, of which each connected component is a thing.

python benchmarks/components.py CHECKPOINT --data coco:DIR@val
"""

from pathlib import Path

import numpy as np
from cyclopts import App
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from pix2seqd import Panoptic, Segmenter
from pix2seqd.data import open_dataset
from pix2seqd.data.categories import with_categories
from pix2seqd.data.sample import spread
from pix2seqd.metrics import percent
from pix2seqd.metrics.panoptic_quality import PanopticQuality

app = App(help=__doc__)


def components(found: Panoptic, min_pixels: int) -> Panoptic:
    """The same classes, but each connected component of a thing class is a thing."""
    labels, classes = np.zeros_like(found.segmentation), {}
    for number, category in enumerate(found.taxonomy.categories, start=1):
        here = np.isin(found.segmentation, [s.id for s in found.segments if s.category_id == category.id])
        parts = ndimage.label(here)[0] if category.isthing else here.astype(np.int32)
        parts[(np.bincount(parts.ravel()) < min_pixels)[parts]] = 0
        first = labels.max()
        labels = np.where(parts > 0, parts + first, labels)
        classes |= dict.fromkeys(range(first + 1, labels.max() + 1), number)
    return Panoptic.from_segmentation(labels, {k: classes[k] for k in np.unique(labels) if k}, found.taxonomy)


@app.default
def main(checkpoint: str, *, data: str, limit: int = 0) -> None:
    """PQ of both.

    Args:
        checkpoint: a bundled name or a folder.
        data: a data set with the checkpoint's categories.
        limit: number of images, spread over the data set; 0: all.
    """
    segmenter = Segmenter.from_pretrained(checkpoint)
    dataset = with_categories(open_dataset(data, None), segmenter.taxonomy)
    dataset = spread(dataset, limit) if limit else dataset
    scores = {name: PanopticQuality(segmenter.taxonomy) for name in ("ids as generated", "components of the classes")}
    for sample in (dataset[k] for k in range(len(dataset))):
        found = segmenter.image(sample.image, min_pixels=0, min_score=0.0)
        smallest = segmenter.checkpoint.infer.min_pixels
        for score, answer in zip(
            scores.values(), (segmenter.image(sample.image), components(found, smallest)), strict=True
        ):
            score.update(sample.panoptic, answer)
    results = {name: score.compute() for name, score in scores.items()}
    rows = {key: [result[key]["pq"] for result in results.values()] for key in ("All", "Things", "Stuff")}
    for number, category in enumerate(next(iter(results.values()))["per_class"].values()):
        rows[category["name"]] = [list(result["per_class"].values())[number]["pq"] for result in results.values()]
    table = Table(f"PQ of {Path(checkpoint).name}", *scores)
    for name, values in rows.items():
        table.add_row(name, *map(percent, values))
    Console().print(table)


if __name__ == "__main__":
    app()
