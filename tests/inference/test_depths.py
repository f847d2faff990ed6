from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pytest
from drawn_stack import draw_stack
from PIL import Image
from scipy import ndimage

from pix2seqd.files import InputError
from pix2seqd.images.frames import DecodedFrame
from pix2seqd.inference.depths import segment_depths, segment_frames, sharpest
from pix2seqd.inference.tracking import Tracker
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_coco([{"id": 1, "name": "nucleus"}, {"id": 2, "name": "background", "isthing": 0}])


def reader(image: np.ndarray, missing: tuple[int, ...] = ()) -> Callable[[Iterable[int]], Iterator[DecodedFrame]]:
    """Reads the planes of a stack."""
    return lambda numbers: (
        DecodedFrame(number, Image.fromarray(image[number - 1]).convert("RGB"), 0.0)
        for number in numbers
        if number not in missing
    )


def bright(images: Iterable[Image.Image]) -> Iterator[Panoptic]:
    """Bright regions are nuclei, which are tracked by their overlap; the rest, if there is any, is background."""
    tracker = Tracker(unique=False)
    for image in images:
        labels, count = ndimage.label(np.asarray(image)[..., 0] > 90)
        labels = np.where(labels, labels, count + 1)
        yield tracker.update(
            Panoptic.from_segmentation(labels, {**dict.fromkeys(range(1, count + 1), 1), count + 1: 2}, TAXONOMY)
        )


def stacked(results: Iterable[tuple[DecodedFrame, Panoptic]], truth: np.ndarray) -> np.ndarray:
    """The ids of things; 0 otherwise."""
    labels = np.zeros(truth.shape, int)
    for plane, panoptic in results:
        things = [segment.id for segment in panoptic.things]
        labels[plane.number - 1] = np.where(np.isin(panoptic.segmentation, things), panoptic.segmentation, 0)
    return labels


def volumes(labels: np.ndarray, truth: np.ndarray) -> dict[int, float]:
    """Found volume / true volume by the id of each ellipsoid, of which each must have its own and only one."""
    found = {}
    for number in range(1, int(truth.max()) + 1):
        inside = labels[truth == number]
        counts = np.bincount(inside[inside > 0])
        assert counts.max() > 0.95 * counts.sum(), f"ellipsoid {number} has the ids {np.flatnonzero(counts)}"
        found[int(counts.argmax())] = (labels == counts.argmax()).sum() / (truth == number).sum()
    assert len(found) == truth.max()
    return found


@pytest.mark.parametrize("start", [1, 8, 24])
def test_segment_depths_ellipsoid_has_one_id_in_all_planes(start: int):
    image, truth = draw_stack((24, 96, 96), count=4, noise=0)
    results = list(segment_depths(bright, reader(image), start, 24))
    assert [plane.number for plane, _ in results] == list(range(1, 25))
    labels = stacked(results, truth)
    assert set(volumes(labels, truth)) == set(np.unique(labels).tolist()) - {0}
    background = {s.id for _, panoptic in results for s in panoptic.segments if not s.isthing}
    assert len(background) == 1 and not background & set(np.unique(labels).tolist())


def test_segment_depths_things_of_both_sides_do_not_share_ids():
    """In the first plane there is neither a thing that other planes have nor background."""
    image = np.full((3, 20, 20), 200, np.uint8)
    for plane, left in ((0, 2), (2, 12)):
        image[plane] = 0
        image[plane, 5:10, left : left + 4] = 200
    (_, one), (_, two), (_, three) = segment_depths(bright, reader(image), 2, 3)
    assert len(two.segments) == 1 and len(one.segments) == len(three.segments) == 2
    (left,), (right,) = one.things, three.things
    assert left.id != right.id or left.id == two.things[0].id
    assert [s.id for s in one.segments if not s.isthing] == [s.id for s in three.segments if not s.isthing]


def test_segment_depths_missing_plane_is_left_out():
    image, truth = draw_stack((24, 96, 96), count=4)
    results = list(segment_depths(bright, reader(image, missing=(5, 14)), 9, 24))
    assert [plane.number for plane, _ in results] == [n for n in range(1, 25) if n not in (5, 14)]
    volumes(stacked(results, truth), truth)


@pytest.mark.parametrize(("fails", "first"), [(4, 5), (12, 1)])
def test_segment_depths_interrupted_yields_what_is_done(fails: int, first: int):
    image, _ = draw_stack((24, 64, 64), count=1)
    read = reader(image)

    def planes(numbers: Iterable[int]) -> Iterator[DecodedFrame]:
        for plane in read(numbers):
            if plane.number == fails:
                raise KeyboardInterrupt
            yield plane

    done = []
    with pytest.raises(KeyboardInterrupt):
        for plane, _ in segment_depths(bright, planes, 8, 24):
            done.append(plane.number)
    assert done == list(range(first, 9 if fails < 8 else fails))


def test_sharpest_plane_of_other_size_is_an_error():
    sizes = {"z1.tif": (20, 20), "z2.tif": (20, 20), "z3.tif": (20, 24)}
    planes = (DecodedFrame(n, Image.new("RGB", size), 0.0, name) for n, (name, size) in enumerate(sizes.items(), 1))
    with pytest.raises(InputError, match=r"z3\.tif is 20 x 24 pixels, but the planes before are 20 x 20"):
        sharpest(planes)


@pytest.mark.parametrize("stretched", [False, True])
def test_sharpest_is_in_focus_and_not_noise(stretched: bool):
    """Noise, things out of focus, things in focus, fewer things; deep images are stretched plane by plane."""
    _, truth = draw_stack(count=10)
    rng, sharp = np.random.default_rng(0), 150.0 * (truth[14] > 0)
    few = 150.0 * (truth[14] == truth[14].max())
    planes = [np.zeros(sharp.shape), ndimage.gaussian_filter(sharp, 6), sharp, few]
    planes = [plane + rng.normal(40, 6, plane.shape) for plane in planes]
    if stretched:
        planes = [255 * (plane - plane.min()) / np.ptp(plane) for plane in planes]
    assert sharpest(reader(np.array(planes).clip(0, 255).astype(np.uint8))(range(1, 5))) == 3


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (16, 1)])
def test_sharpest_of_tiny_planes(size: tuple[int, int]):
    assert sharpest(DecodedFrame(n, Image.new("RGB", size), 0.0) for n in (1, 2)) == 1


def test_follow_reads_no_frame_before_it_is_needed():
    read = []

    def frames() -> Iterator[DecodedFrame]:
        for number in (1, 2, 3):
            read.append(number)
            yield DecodedFrame(number, Image.new("RGB", (20, 20)), 0.0)

    for frame, _ in segment_frames(bright, frames()):
        assert read == list(range(1, frame.number + 1))


@pytest.mark.slow
def test_segment_depths_nuclei_video_measures_ellipsoids():
    """The figures of docs/video.md."""
    from pix2seqd import Segmenter

    segmenter = Segmenter.from_pretrained("nuclei-video", device="cpu", dtype="float32")
    image, truth = draw_stack()
    planes = reader(image)
    start = sharpest(planes(range(1, len(image) + 1)))
    results = segment_depths(lambda images: segmenter.video(images, consensus=1), planes, start, len(image))
    labels = stacked(results, truth)
    found = volumes(labels, truth)
    print({number: round(float(ratio), 2) for number, ratio in found.items()})
    assert all(0.85 < ratio < 1.1 for ratio in found.values())
    assert sum((labels == number).any((1, 2)).sum() >= 3 for number in np.unique(labels)[1:]) == len(found)
