"""Clips of nuclei, made from synthetic images: grey disks on a dark background."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from pix2seqd.data import open_clips
from pix2seqd.data.sample import Clip, Sample
from pix2seqd.data.synthetic.nuclei_clips import BACKGROUND, Micrograph, NucleiClips, _inpaint
from pix2seqd.data.synthetic.nuclei_motion import MotionParameters, _separation, at_rest, simulate
from pix2seqd.data.synthetic.shapes import TAXONOMY
from pix2seqd.files import InputError
from pix2seqd.panoptic.panoptic import Panoptic
from pix2seqd.panoptic.taxonomy import Category, Taxonomy

NUCLEI = Taxonomy((Category(1, "nucleus", True, (220, 20, 60)), Category(2, "background", False, (40, 40, 40))))


class Disks:
    """Four images of 64 x 72 pixels with nine disks each."""

    taxonomy = NUCLEI

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Sample:
        y, x = np.mgrid[:64, :72]
        labels = np.ones((64, 72), np.int32)
        for k in range(9):
            labels[np.hypot(y - 10 - 22 * (k // 3), x - 12 - 24 * (k % 3)) < 5 + (k + index) % 3] = k + 2
        noise = np.random.default_rng(index).normal(0, 4, labels.shape)
        image = np.where(labels > 1, 150 + 5 * labels, 30) + noise
        panoptic = Panoptic.from_segmentation(labels, {1: 2, **dict.fromkeys(range(2, 11), 1)}, NUCLEI)
        return Sample(f"{index}", np.repeat(image.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2), panoptic)


def clips(
    length: int = 100, frames: int = 5, size: tuple[int, int] = (48, 56), seed: int = 0, **options
) -> NucleiClips:
    return NucleiClips(Disks(), length, frames, size, seed, **options)


def same(one: Clip, other: Clip) -> bool:
    pairs = zip(one.frames, other.frames, strict=True)
    frames = (zip(*((f.image, f.panoptic.segmentation) for f in pair), strict=True) for pair in pairs)
    return all(np.array_equal(a, b) for frame in frames for a, b in frame)


def test_nuclei_clips_depend_only_on_seed_and_index():
    dataset = clips()
    clip = dataset[7]
    assert same(clip, clips(length=8, cache_bytes=0)[7])
    assert same(Clip("", list(clip.frames)[::-1]), Clip("", [dataset[7].frames[k] for k in (4, 3, 2, 1, 0)]))
    assert not same(clip, dataset[8])
    assert not same(clip, clips(seed=1)[7])


@pytest.mark.parametrize("size", [(48, 56), (90, 100)])
def test_nuclei_clips_frame_size_and_labels(size: tuple[int, int]):
    clip = clips(size=size)[0]
    assert len(clip.frames) == 5
    for frame in clip.frames:
        assert frame.image.shape == (*size, 3) and frame.image.dtype == np.uint8
        assert frame.panoptic.segmentation.min() >= 1
        assert {s.name for s in frame.panoptic.segments} <= {"nucleus", "background"}
        assert {s.id for s in frame.panoptic.segments if not s.isthing} == {BACKGROUND}


def test_nuclei_clips_labels_match_bright_pixels():
    overlaps = []
    for i in range(20):
        for frame in clips()[i].frames:
            bright, labelled = frame.image[..., 0] > 90, frame.panoptic.segmentation > BACKGROUND
            overlaps.append((bright & labelled).sum() / max((bright | labelled).sum(), 1))
    assert np.median(overlaps) > 0.85


def test_nuclei_clips_ids_follow_nuclei():
    """Between frames, a nucleus moves by less than its size."""
    for i in range(20):
        before: dict[int, np.ndarray] = {}
        for frame in clips(frames=8)[i].frames:
            labels = frame.panoptic.segmentation
            ids = [s.id for s in frame.panoptic.segments if s.isthing and s.area > 20]
            now = {k: np.array(c) for k, c in zip(ids, ndimage.center_of_mass(labels > 0, labels, ids), strict=True)}
            assert all(np.linalg.norm(now[k] - before[k]) < 16 for k in now.keys() & before.keys())
            before = now


def test_simulate_division_larger_daughter_keeps_id():
    rng = np.random.default_rng(0)
    nuclei = at_rest(rng, np.array([0]), np.array([[50.0, 50.0]]), np.array([10.0]))
    motion = MotionParameters(pace=0.02, flow=np.zeros(2), division=0.2, defocus=0.0)
    history = simulate(rng, nuclei, motion, 20)
    counts = [len(b) for b in history]
    assert counts == sorted(counts) and counts[-1] >= 2
    first = next(b for b in history if len(b) == 2)
    assert first.id.tolist() == [0, 1]
    assert first.size[0] >= first.size[1]
    assert np.linalg.norm(first.center[0] - first.center[1]) > 10, "the daughters are apart"
    assert all(len(set(b.id.tolist())) == len(b) for b in history), "no id twice"


def test_separation_of_overlapping_nuclei():
    nuclei = at_rest(
        np.random.default_rng(0), np.arange(2), np.array([[50.0, 50.0], [50.0, 80.0]]), np.array([10.0, 10.0])
    )
    nuclei.center[1] = 50.0, 65.0
    apart = np.array([[0.0, 30.0], [30.0, 0.0]])
    push = _separation(nuclei, apart)
    assert push[0, 1] < 0 < push[1, 1]


def test_inpaint_removes_nuclei():
    sample = Disks()[0]
    nuclei = sample.panoptic.segmentation > 1
    painted = _inpaint(sample.image, nuclei)
    assert abs(painted[nuclei].mean() - 30) < 6
    far = ~ndimage.binary_dilation(nuclei, iterations=5)
    assert (painted[far] == sample.image[far]).all()


def plain_inpaint(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """`_inpaint` of a hole with its halo, computed at every pixel."""

    def blur(values: np.ndarray, width: int) -> np.ndarray:
        return ndimage.uniform_filter1d(ndimage.uniform_filter1d(values, width, axis=0), width, axis=1)

    known = (~hole).astype(np.float32)[..., None]
    smooth = fine = np.broadcast_to(image[~hole].mean(axis=0), image.shape)
    for width in (61, 21, 7):
        smooth, fine = fine, (blur(image * known, width) + 0.02 * fine) / (blur(known, width) + 0.02)
    nearest = np.asarray(ndimage.distance_transform_edt(hole, return_distances=False, return_indices=True))
    mirrored = np.clip(2 * nearest - np.indices(hole.shape), 0, np.array(hole.shape).reshape(2, 1, 1) - 1)
    rows, columns = np.where(hole[tuple(mirrored)], nearest, mirrored)
    texture = image[rows, columns] - fine[rows, columns]
    return np.where(hole[..., None], (smooth + texture).clip(0, 255), image).astype(np.uint8)


@pytest.mark.parametrize("index", range(4))
def test_inpaint_has_the_bits_of_the_plain_computation(index: int):
    sample = Disks()[index]
    nuclei = sample.panoptic.segmentation > 1
    hole = np.asarray(ndimage.binary_dilation(nuclei, iterations=4))
    assert np.array_equal(_inpaint(sample.image, nuclei), plain_inpaint(sample.image, hole))


def test_nuclei_clips_image_without_nuclei():
    class Empty(Disks):
        def __getitem__(self, index: int) -> Sample:
            panoptic = Panoptic.from_segmentation(np.ones((64, 72), int), {1: 2}, NUCLEI)
            return Sample("empty", np.full((64, 72, 3), 9, np.uint8), panoptic)

    frames = NucleiClips(Empty(), 1, 2, (48, 48))[0].frames
    assert [(f.panoptic.segmentation == BACKGROUND).all() for f in frames] == [True, True]


def test_nuclei_clips_nucleus_fills_image():
    class Full(Disks):
        def __getitem__(self, index: int) -> Sample:
            panoptic = Panoptic.from_segmentation(np.ones((64, 72), int), {1: 1}, NUCLEI)
            return Sample("full", np.full((64, 72, 3), 9, np.uint8), panoptic)

    assert len(list(NucleiClips(Full(), 1, 2, (48, 48))[0].frames)) == 2


def test_micrograph_mirrored_nuclei_are_separate():
    micrograph = Micrograph.from_sample(Disks()[0], (48, 56))
    pieces = [ndimage.label(micrograph.labels == k)[1] for k in range(1, len(micrograph.center) + 1)]
    assert len(pieces) > 9 and set(pieces) == {1}


@pytest.mark.parametrize("index", [-1, 100])
def test_nuclei_clips_index_out_of_range(index: int):
    with pytest.raises(IndexError):
        clips()[index]


def test_nuclei_clips_rejects_data_without_one_background():
    class Scenes(Disks):
        taxonomy = TAXONOMY

    with pytest.raises(InputError, match="background"):
        NucleiClips(Scenes(), 1, 1, (8, 8))
    with pytest.raises(InputError, match="1 or more"):
        clips(frames=0)


def test_open_clips_synthetic_sources(mini: Path):
    made = open_clips(f"nuclei-clips:{mini}@val:7x4", (16, 16), 3)
    assert len(made) == 7 and len(made[0].frames) == 4
    assert len(open_clips(f"nuclei-clips:{mini}@val:7", (16, 16), 3)[0].frames) == 3
    assert len(open_clips("shapes-clips:7x4@2", (16, 16), 3)[6].frames) == 4
    with pytest.raises(InputError, match=r"has no image 'z\.jpg' to leave out"):
        open_clips(f"nuclei-clips:{mini}@val,-z.jpg:7", (16, 16), 3)
    for wrong in (f"nuclei-clips:{mini}@val", "nuclei-clips:x", "shapes-clips:many", "movies:x"):
        with pytest.raises(InputError, match="not understood"):
            open_clips(wrong, (16, 16), 3)
