"""Consensus and uncertainty of several segmentations of one image. Their ids need not correspond."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from pix2seqd.inference.postprocess import fill_small
from pix2seqd.panoptic.panoptic import Panoptic, compact
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
        _, _, iou, index = _overlaps(maps[i], classes[i], maps[j], classes[j])
        result += 1 - iou[index]
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
        regions = compact(joint)[1]
    first = np.zeros(int(regions.max()) + 1, np.int64)
    first[regions[::-1]] = np.arange(regions.size)[::-1]  # the first pixel of each region is written last
    order = np.argsort(first)  # by their first pixels: ties must not depend on the samples' ids
    first, regions = first[order], np.argsort(order)[regions]
    areas = np.bincount(regions)
    members = np.stack([labels.ravel()[first] for labels in maps])  # [samples, regions]: the segment of each region
    is_thing = np.array([False, *(category.isthing for category in taxonomy.categories)])
    things = np.zeros(members.shape, bool)
    votes = np.zeros((len(taxonomy) + 1, len(areas)), np.int64)
    for labels, class_of, thing in zip(members, classes, things, strict=True):
        votes[class_of[labels], np.arange(len(areas))] += 1
        thing[:] = is_thing[class_of[labels]]
    winner = votes.argmax(axis=0)
    merged, class_of = np.zeros(len(areas), np.int64), {}
    for class_index in np.unique(winner[winner != VOID]).tolist():
        inside = np.flatnonzero(winner == class_index)
        groups = np.zeros(len(inside), np.int64)
        if is_thing[class_index]:
            groups = _groups(members[:, inside], things[:, inside], areas[inside])
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
        one, two, iou, _ = _overlaps(labels, classes, other, other_classes)
        best = np.zeros(len(classes))
        np.maximum.at(best, one, iou * own[two])
        total += best
    return {label: round(float(total[label]) / len(samples), 4) for label in class_of}


def _overlaps(
    one: np.ndarray, classes: np.ndarray, two: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of labels of two maps that share pixels.

    Args:
        one: labels `[h, w]`.
        classes: the class of each label.
        two: labels of the other map, likewise.
        others: their classes.

    Returns:
        For each pair its label of the first map, its label of the second one, and their IoU, 0 if their classes differ;
        and the number of each pixel's pair, `[h, w]`.
    """
    pairs, index = compact(one.astype(np.int64) * len(others) + two)
    shared = np.bincount(index.ravel())
    i, j = np.divmod(pairs, len(others))
    union = np.bincount(one.ravel())[i] + np.bincount(two.ravel())[j] - shared
    return i, j, np.where(classes[i] == others[j], shared / union, 0), index


def _dense(sample: Panoptic) -> tuple[np.ndarray, np.ndarray]:
    """Labels 0 (void) .. n, int64 `[h, w]`, and the contiguous class of each, `[1 + n]`."""
    classes = [VOID, *(sample.taxonomy.class_of(segment.category_id) for segment in sample.segments)]
    return sample.renumbered().segmentation.astype(np.int64), np.array(classes)


def _groups(members: np.ndarray, things: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """The segment of each region, numbered from 0.

    Args:
        members: the segment of each region in each sample, `[samples, regions]`.
        things: whether that segment is a thing, likewise.
        areas: pixels of each region.
    """
    count, regions = members.shape
    # Only pairs that may be in one segment in more than half of the samples are compared. They share a thing, or both
    # are stuff in more than half of the samples. A pair of other regions may share stuff, which is a segment of many.
    stuff = 2 * things.sum(axis=0) < count
    near = sparse.csr_matrix((regions, regions))
    for labels, thing in zip(members, things, strict=True):
        used = np.flatnonzero(thing | stuff)
        incidence = sparse.csr_matrix((np.ones(len(used)), (used, labels[used])), (regions, int(labels.max()) + 1))
        near = near + incidence @ incidence.T
    one, other = near.nonzero()
    linked = _share(members[:, one], members[:, other]) > 0.5
    edges = sparse.csr_matrix((np.ones(int(linked.sum())), (one[linked], other[linked])), (regions, regions))
    _, component = connected_components(edges, directed=False)
    result, first = np.zeros(regions, np.int64), 0
    for inside in np.split(np.argsort(component, kind="stable"), np.cumsum(np.bincount(component))[:-1]):
        own = members[:, inside]
        groups = _agglomerated(_share(own[:, :, None], own[:, None]), areas[inside].astype(float))
        result[inside] = groups + first
        first += int(groups.max()) + 1
    return result


def _share(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Share of the samples (first axis) in which two regions are in one segment."""
    return (one == other).sum(axis=0) * (1 / len(one))


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
