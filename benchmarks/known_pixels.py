"""Measure hints and uncertainty (docs/annotation.md).

python benchmarks/known_pixels.py hints --data coco:DIR@val        PQ of the rest, with scribbles of the truth as hints
python benchmarks/known_pixels.py uncertainty --data coco:DIR@val  uncertainty against errors; consensus
"""

from collections import defaultdict

import numpy as np
from cyclopts import App

from pix2seqd import Panoptic, Segmenter
from pix2seqd.data import open_dataset
from pix2seqd.data.sample import Dataset
from pix2seqd.inference.consensus import consensus, uncertainty
from pix2seqd.metrics.overlap import overlap_matrix
from pix2seqd.metrics.panoptic_quality import PanopticQuality

app = App(help=__doc__)
NUCLEUS = 1


def opened(model: str, data: str, limit: int, side: int) -> tuple[Segmenter, Dataset, list[int]]:
    """Model, data and indices of `limit` images (0: all), evenly spread, of at most `side` pixels a side (0: any)."""
    segmenter = Segmenter.from_pretrained(model)
    dataset = open_dataset(data, segmenter.size)
    chosen = [i for i in range(len(dataset)) if not side or max(dataset[i].image.shape) <= side]
    return segmenter, dataset, chosen[:: -(-len(chosen) // limit)] if limit else chosen


def part(panoptic: Panoptic, where: np.ndarray) -> Panoptic:
    """The segmentation where `where` is True, void elsewhere."""
    crowds = [s.id for s in panoptic.segments if s.iscrowd]
    labels = np.where(where, panoptic.segmentation, 0)
    return Panoptic.from_segmentation(labels, panoptic.classes, panoptic.taxonomy, crowds)


def scribbles(labels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Strokes 3 pixels wide and up to 20 long, each within one segment, on `share` of all pixels; bool `[h, w]`."""
    height, width = labels.shape
    drawn = np.zeros(labels.shape, bool)
    brush = np.array([(-1, 0), (0, -1), (0, 0), (0, 1), (1, 0)]).T
    while drawn.sum() < share * labels.size:
        y, x, heading = rng.uniform(0, (height, width, 2 * np.pi))
        label = labels[int(y), int(x)]
        for _ in range(20 if label else 0):
            if not (0 <= y < height and 0 <= x < width and labels[int(y), int(x)] == label):
                break
            rows, columns = (brush[0] + int(y)).clip(0, height - 1), (brush[1] + int(x)).clip(0, width - 1)
            drawn[rows, columns] |= labels[rows, columns] == label
            heading += rng.normal(0, 0.3)
            y, x = y + np.sin(heading), x + np.cos(heading)
    return drawn


def report(name: str, quality: PanopticQuality, **more: float) -> None:
    """Print one line: PQ of all categories, and the first category's numbers, in percent."""
    result = quality.compute()
    first = next(iter(result["per_class"].values()))
    numbers = {"PQ": result["All"]["pq"], **{f"{k} {first['name']}": first[k] for k in ("pq", "sq", "rq")}}
    counts = {key: first[key] for key in ("tp", "fp", "fn")} | more
    print(f"{name:24}", *(f"{k} {100 * v:.1f}" for k, v in numbers.items()), *(f"{k} {v}" for k, v in counts.items()))


@app.command
def hints(
    data: str, model: str = "nuclei", limit: int = 0, side: int = 0, shares: tuple[float, ...] = (0.01, 0.03, 0.1)
):
    """PQ on the pixels that were not given, with and without hints on the others."""
    segmenter, dataset, chosen = opened(model, data, limit, side)
    quality = defaultdict(lambda: PanopticQuality(dataset.taxonomy))
    for number, index in enumerate(chosen, start=1):
        sample = dataset[index]
        without = segmenter.image(sample.image, consensus=1)  # as with hints
        for share in shares:
            given = scribbles(sample.panoptic.segmentation, share, np.random.default_rng(index))
            rest, hints = part(sample.panoptic, ~given), part(sample.panoptic, given)
            quality[share, "without"].update(rest, without)
            quality[share, "with"].update(rest, segmenter.image(sample.image, hints=hints))
        print(f"{number} of {len(chosen)} images")
        for (share, name), measured in quality.items():
            report(f"{share:.0%} {name}", measured)


def matches(truth: Panoptic, prediction: Panoptic) -> np.ndarray:
    """Pairs of segments that are true positives, bool `[1 + true, 1 + predicted]`, 0 = void."""
    shared = overlap_matrix(truth.taxonomy, truth, prediction)
    union = shared.sum(axis=1, keepdims=True) + shared[1:].sum(axis=0) - shared
    classes = [np.array([0, *(p.taxonomy.class_of(s.category_id) for s in p.segments)]) for p in (truth, prediction)]
    result = (2 * shared > union) & (classes[0][:, None] == classes[1])
    result[0] = result[:, 0] = False
    return result


@app.command(name="uncertainty")
def uncertainties(data: str, model: str = "nuclei", n: int = 5, limit: int = 0, side: int = 0):
    """PQ of single samples and of their consensus, and the area under the consensus's risk-coverage curve.

    A pixel is wrong unless its predicted segment is a true positive of its true one. The area is the mean, over all
    coverages, of the share of wrong pixels among the least uncertain ones. In random order this is the share of wrong
    pixels.
    """
    segmenter, dataset, chosen = opened(model, data, limit, side)
    single, agreed = PanopticQuality(dataset.taxonomy), PanopticQuality(dataset.taxonomy)
    doubts, wrongs = [], []
    for number, index in enumerate(chosen, start=1):
        sample = dataset[index]
        samples = segmenter.samples(sample.image, n)
        found = consensus(samples, segmenter.checkpoint.infer.min_pixels)
        for one in samples:
            single.update(sample.panoptic, one)
        agreed.update(sample.panoptic, found)
        rows = np.searchsorted([0, *(s.id for s in sample.panoptic.segments)], sample.panoptic.segmentation)
        right = matches(sample.panoptic, found)[rows, found.segmentation]
        doubts.append(uncertainty(samples)[rows > 0])
        wrongs.append(~right[rows > 0])
        print(f"{number} of {len(chosen)} images")
        report("single samples", single)
        report(f"consensus of {n}", agreed)
        wrong = np.concatenate(wrongs)
        areas = {"by disagreement": np.concatenate(doubts), "best possible": wrong}
        curves = {k: float(np.mean(risk(wrong, by))) for k, by in areas.items()} | {"at random": float(wrong.mean())}
        print("area under risk-coverage", *(f"{name} {value:.4f}" for name, value in curves.items()))


def risk(wrong: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Share of wrong pixels among the first k in the order of `by`, for each k; equal values share their mean."""
    order = np.argsort(by, kind="stable")
    _, first, group = np.unique(by[order], return_index=True, return_inverse=True)
    mean = np.add.reduceat(wrong[order], first, dtype=float) / np.diff(first, append=len(wrong))
    return np.cumsum(mean[group]) / np.arange(1, len(wrong) + 1)


if __name__ == "__main__":
    app()
