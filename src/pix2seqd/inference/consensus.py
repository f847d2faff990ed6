"""Consensus and uncertainty of several segmentations of one image. Their ids need not correspond."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from pix2seqd.inference.postprocess import fill_small
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import VOID


def uncertainty(samples: Sequence[Panoptic]) -> np.ndarray:
    """How much the samples disagree about the segment of each pixel.

    The agreement of two samples at a pixel is the IoU of the pixel's segments in both, or 0 if their classes differ.
    Void counts as a class with one segment. The uncertainty is 1 minus the mean over all pairs of samples.

    Args:
        samples: two or more, of one size and taxonomy.

    Returns:
        float32 `[h, w]`, from 0 (all samples agree) to 1 (no two segments overlap).

    Raises:
        ValueError: fewer than two samples.
    """
    if len(samples) < 2:
        raise ValueError("uncertainty needs two samples or more")
    maps, classes = zip(*(_dense(sample) for sample in samples), strict=True)
    result = np.zeros(maps[0].shape)
    pairs = [(i, j) for j in range(len(samples)) for i in range(j)]
    for i, j in pairs:
        result += 1 - _overlap(maps[i], classes[i], maps[j], classes[j])[maps[i], maps[j]]
    return (result / len(pairs)).astype(np.float32)


def consensus(samples: Sequence[Panoptic], min_pixels: int = 0) -> Panoptic:
    """One segmentation on which most samples agree.

    Pixels that no sample separates form a region. The class of a region is decided by majority. Regions of one thing
    class are joined if more than half of the samples, on average over their pixels, have them in one segment.

    Args:
        samples: one or more, of one size and taxonomy.
        min_pixels: smaller things go to the nearest segment.

    Returns:
        The consensus. The score of a segment is the mean over the samples of the IoU with their most similar segment of
        its class, times that segment's own score.
    """
    taxonomy = samples[0].taxonomy
    maps, classes = zip(*(_dense(sample) for sample in samples), strict=True)
    regions = np.zeros(maps[0].size, np.int64)
    for labels in maps:
        joint = regions * (int(labels.max()) + 1) + labels.ravel()
        regions = np.unique(joint, return_inverse=True)[1]
    _, first = np.unique(regions, return_index=True)
    order = np.argsort(first)  # by their first pixels: ties must not depend on the samples' ids
    first, regions = first[order], np.argsort(order)[regions]
    areas = np.bincount(regions)
    members = np.stack([labels.ravel()[first] for labels in maps])  # [samples, regions]: the segment of each region
    votes = np.zeros((len(taxonomy) + 1, len(areas)), np.int64)
    for labels, class_of in zip(members, classes, strict=True):
        votes[class_of[labels], np.arange(len(areas))] += 1
    winner = votes.argmax(axis=0)
    merged, class_of = np.zeros(len(areas), np.int64), {}
    for class_index in np.unique(winner[winner != VOID]).tolist():
        inside = np.flatnonzero(winner == class_index)
        isthing = taxonomy.category(class_index).isthing
        groups = _groups(members[:, inside], areas[inside]) if isthing else np.zeros(len(inside), np.int64)
        merged[inside] = groups + len(class_of) + 1
        class_of |= dict.fromkeys(range(len(class_of) + 1, len(class_of) + 2 + int(groups.max())), class_index)
    labels, class_of = fill_small(merged[regions].reshape(maps[0].shape), class_of, min_pixels)
    scores = _scores(labels, class_of, samples)
    return Panoptic.from_segmentation(labels, class_of, taxonomy, scores=scores).renumbered()


def _scores(labels: np.ndarray, class_of: dict[int, int], samples: Sequence[Panoptic]) -> dict[int, float]:
    """The score of every label (`consensus`); a segment of a sample without a score counts as 1."""
    classes = np.array([class_of.get(label, VOID) for label in range(1 + max(class_of, default=0))])
    total = np.zeros(len(classes))
    for sample in samples:
        other, other_classes = _dense(sample)
        own = np.array([1.0, *(1.0 if segment.score is None else segment.score for segment in sample.segments)])
        total += (_overlap(labels, classes, other, other_classes) * own).max(axis=1)
    return {label: round(float(total[label]) / len(samples), 4) for label in class_of}


def _overlap(one: np.ndarray, classes: np.ndarray, two: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of the labels of two maps, float `[classes, others]`; 0 for labels of different classes."""
    shape = len(classes), len(others)
    shared = np.bincount((one * shape[1] + two).ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    union = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0) - shared
    return np.where(classes[:, None] == others, shared / np.maximum(union, 1), 0)


def _dense(sample: Panoptic) -> tuple[np.ndarray, np.ndarray]:
    """Labels 0 (void) .. n, int64 `[h, w]`, and the contiguous class of each, `[1 + n]`."""
    classes = [VOID, *(sample.taxonomy.class_of(segment.category_id) for segment in sample.segments)]
    return sample.renumbered().segmentation.astype(np.int64), np.array(classes)


def _groups(members: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """The segment of each region, numbered from 0.

    Args:
        members: the segment of each region in each sample, `[samples, regions]`.
        areas: pixels of each region.
    """
    count, regions = members.shape
    together = sparse.csr_matrix((regions, regions))
    for labels in members:
        incidence = sparse.csr_matrix((np.ones(regions), (np.arange(regions), labels)))
        together = together + incidence @ incidence.T
    together = (together / count).tocsr()
    _, component = connected_components(together > 0.5, directed=False)
    result, first = np.zeros(regions, np.int64), 0
    for inside in np.split(np.argsort(component, kind="stable"), np.cumsum(np.bincount(component))[:-1]):
        groups = _agglomerated(together[inside][:, inside].toarray(), areas[inside].astype(float))
        result[inside] = groups + first
        first += int(groups.max()) + 1
    return result


def _agglomerated(share: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Average linkage weighted by area, down to a mean share of one half: the group of each region, from 0."""
    group, areas = np.arange(len(areas)), areas.copy()
    np.fill_diagonal(share, 0)
    while share.max() > 0.5:
        i, j = np.unravel_index(share.argmax(), share.shape)
        share[i] = share[:, i] = (areas[i] * share[i] + areas[j] * share[j]) / (areas[i] + areas[j])
        share[j] = share[:, j] = share[i, i] = 0
        areas[i] += areas[j]
        group[group == j] = i
    return np.unique(group, return_inverse=True)[1]
