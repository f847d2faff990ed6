"""Consensus and uncertainty of several segmentations of one image. Their ids need not correspond."""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from pix2seqd.inference.postprocess import fill_small
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.runs import Runs, joint, shared_pixels
from pix2seqd.panoptic.taxonomy import VOID, Taxonomy


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
    maps, classes, _, _ = zip(*map(_dense, samples), strict=True)
    labels, starts = joint(maps)
    whole = Runs(starts, labels[0], maps[0].shape)
    result = np.zeros(len(starts))
    pairs = [(i, j) for j in range(len(samples)) for i in range(j)]
    for i, j in pairs:
        _, _, iou, index = _overlaps(labels[i], classes[i], labels[j], classes[j], whole.lengths)
        result += 1 - iou[index]
    return whole.decode((result / len(pairs)).astype(np.float32))


def consensus(samples: Iterable[Panoptic], min_pixels: int = 0) -> Panoptic:
    """One segmentation on which most samples agree.

    Pixels that no sample separates form a region. The class of a region is decided by majority. Regions of one thing
    class are joined if more than half of the samples, on average over their pixels, have them in one segment.

    Args:
        samples: one or more, of one size and taxonomy. Each is taken after the last one was read, and is not kept, so
            that the maps of a large image need not exist all at once.
        min_pixels: smaller things go to the nearest segment.

    Returns:
        The consensus. The score of a segment is the mean over the samples of the IoU with their most similar segment of
        its class, times that segment's own score.
    """
    # `map` lets each sample go before the next one is made.
    maps, classes, own_scores, taxonomies = zip(*map(_dense, samples), strict=True)
    taxonomy = taxonomies[0]
    labels, starts = joint(maps)
    regions, members = _regions(labels)
    whole = Runs(starts, regions, maps[0].shape)
    areas = whole.areas(0)
    del maps, labels, regions  # before maps of all pixels are made
    is_thing = np.array(taxonomy.things)
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
    merged = whole.decode(merged.astype(np.int32)[whole.values])
    labels, class_of = fill_small(merged, class_of, min_pixels, in_place=True)
    runs = Runs.encode(labels)
    del labels, merged  # before the map of segments is made
    scores = _scores(*shared_pixels(runs, whole), class_of, members, classes, own_scores)
    return Panoptic.from_runs(runs, class_of, taxonomy, scores)


def _regions(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Regions of pixels that no sample separates, from the labels of runs in each sample, `[samples, runs]`.

    Returns the region of each run, int32 `[runs]`, and the label of each region in each sample, `[samples, regions]`.
    """
    codes = np.zeros(labels.shape[1], np.int64)
    for one in labels:
        base = int(one.max()) + 1
        if (int(codes.max()) + 1) * base >= 2**63:
            codes = np.unique(codes, return_inverse=True)[1]
        codes = codes * base + one
    _, first, regions = np.unique(codes, return_index=True, return_inverse=True)
    order = np.argsort(first)  # by their first pixels: ties must not depend on the samples' ids
    return np.argsort(order)[regions].astype(np.int32), labels[:, first[order]]


def _scores(
    pairs: np.ndarray,
    shared: np.ndarray,
    class_of: dict[int, int],
    members: np.ndarray,
    classes: Sequence[np.ndarray],
    own_scores: Sequence[np.ndarray],
) -> dict[int, float]:
    """The score of every label (`consensus`); a segment of a sample without a score counts as 1.

    `pairs` are labels and regions that share pixels, `[2, pairs]`, `shared` how many; `class_of` has the class of each
    label, `members` the segment of each region in each sample, `[samples, regions]`, `classes` and `own_scores` of each
    sample those of its segments.
    """
    labels, regions = pairs
    class_of_label = np.array([class_of.get(label, VOID) for label in range(1 + max(class_of, default=0))])
    total = np.zeros(len(class_of_label))
    for member, other_classes, own in zip(members, classes, own_scores, strict=True):
        one, two, iou, _ = _overlaps(labels, class_of_label, member[regions], other_classes, shared)
        best = np.zeros(len(total))
        np.maximum.at(best, one, iou * own[two])
        total += best
    return {label: round(float(total[label]) / len(members), 4) for label in class_of}


def _overlaps(
    one: np.ndarray, classes: np.ndarray, two: np.ndarray, others: np.ndarray, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of labels of two maps that share pixels.

    `one` and `two` are the labels of `[n]` parts of the image in each, of so many `pixels`; `classes` and `others` are
    those of the labels. Returns for each pair its two labels and their IoU, 0 if their classes differ; and the number
    of each part's pair, `[n]`.
    """
    pairs, index = np.unique(one * np.int64(len(others)) + two, return_inverse=True)
    shared = np.bincount(index, pixels)
    i, j = np.divmod(pairs, len(others))
    union = np.bincount(one, pixels)[i] + np.bincount(two, pixels)[j] - shared
    return i, j, np.where(classes[i] == others[j], shared / union, 0), index


def _dense(sample: Panoptic) -> tuple[Runs, np.ndarray, np.ndarray, Taxonomy]:
    """Labels 0 (void) .. n; the contiguous class of each, `[1 + n]`; its score, 1 if it has none; the taxonomy."""
    classes = [VOID, *(sample.taxonomy.class_of(segment.category_id) for segment in sample.segments)]
    scores = [1.0, *(1.0 if segment.score is None else segment.score for segment in sample.segments)]
    ids = [VOID, *(segment.id for segment in sample.segments)]
    return Runs.encode(sample.segmentation).indexed(ids), np.array(classes), np.array(scores), sample.taxonomy


def _groups(members: np.ndarray, things: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """The segment of each region, numbered from 0.

    `members` is the segment of each region in each sample, `[samples, regions]`, `things` whether that is a thing, and
    `areas` are the pixels of each region.
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
    """Share 0..1 of the samples, the first axis, in which two regions are in one segment."""
    return (one == other).sum(axis=0) * (1 / len(one))


def _agglomerated(share: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """The group of each region, from 0, by average linkage weighted by area, while the mean share is above one half.

    `share` is `_share` of all pairs, `[n, n]`; it is changed. `areas` are the regions' pixels, float `[n]`.
    """
    group, areas = np.arange(len(areas)), areas.copy()
    np.fill_diagonal(share, 0)
    while share.flat[largest := int(share.argmax())] > 0.5:
        i, j = divmod(largest, len(areas))
        share[i] = share[:, i] = (areas[i] * share[i] + areas[j] * share[j]) / (areas[i] + areas[j])
        share[j] = share[:, j] = share[i, i] = 0
        areas[i] += areas[j]
        group[group == j] = i
    present = np.zeros(len(areas), np.int64)
    present[group] = 1
    return present.cumsum()[group] - 1
