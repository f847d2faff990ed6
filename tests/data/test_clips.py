"""DAVIS and KITTI-STEP as distributed: clips, and their frames as images."""

import pickle

import numpy as np
import pytest
from miniatures import draw_davis, draw_kitti_step, kitti_map, save, turn

from pix2seqd.data import open_clips, open_dataset
from pix2seqd.data.clips import every_nth
from pix2seqd.data.davis import BACKGROUND_ID, open_davis
from pix2seqd.data.kitti_step import TAXONOMY, open_kitti_step, to_mask
from pix2seqd.files import InputError

SIZE = (8, 8)


@pytest.fixture
def davis(tmp_path):
    return draw_davis(tmp_path / "DAVIS")


@pytest.fixture
def kitti(tmp_path):
    return draw_kitti_step(tmp_path / "kitti")


def test_every_nth_frames(davis):
    whole = open_clips(f"davis:{davis}@val", SIZE, 4)
    fast = every_nth(whole, 2)
    assert [clip.name for clip in fast] == ["cows", "bear"] and fast.taxonomy == whole.taxonomy
    assert [frame.name for frame in fast[1].frames] == ["bear/00000", "bear/00002"]
    assert len(every_nth(whole, 9)[1].frames) == 1, "the first frame always remains"


def test_davis_clips(davis):
    data = open_clips(f"davis:{davis}@val", SIZE, 4)
    assert [clip.name for clip in data] == ["cows", "bear"], "in the order of the list"
    frames = data[1].frames
    assert [frame.name for frame in frames] == ["bear/00000", "bear/00001", "bear/00002"]
    for t, frame in enumerate(frames):
        assert frame.image.shape == (4, 6, 3)
        assert abs(int(frame.image[0, 0, 0]) - 10 * t) <= 2
        facts = {s.id: (s.name, s.isthing, s.area) for s in frame.panoptic.segments}
        assert facts == {
            1: ("object", True, 1),
            2: ("object", True, 2),
            BACKGROUND_ID: ("background", False, 20),
        }
        assert frame.panoptic.segmentation[1, t] == 1
        assert frame.panoptic.segmentation[0, 5] == 0, "255 is void"


def test_kitti_step_clips(kitti):
    data = open_clips(f"kitti-step:{kitti}@val", SIZE, 4)
    assert [clip.name for clip in data] == ["0002", "0006"]
    first, second = data[0].frames
    facts = {(s.name, s.iscrowd): s.area for s in first.panoptic.segments}
    assert facts == {("road", False): 1, ("car", False): 1, ("car", True): 1, ("person", False): 1}
    ids = [{s.id for s in frame.panoptic.segments} for frame in (first, second)]
    assert len(ids[0] & ids[1]) == 4, "road, both cars and a person keep their ids"
    assert first.panoptic.segmentation[1, 2] == 0, "void"
    assert [c.name for c in TAXONOMY.categories if c.isthing] == ["person", "car"]


def test_kitti_step_to_mask():
    mask = to_mask(kitti_map(0).astype(np.uint8))
    assert mask.tolist() == [[[1, 14, 14], [12, 12, 0]], [[0, 300, 0], [1, 2, 0]]]
    with pytest.raises(ValueError, match=r"class 19 is outside 0\.\.18"):
        to_mask(np.array([[[19, 0, 0]]], np.uint8))


def everything(clips):
    return [
        (frame.name, frame.image.tobytes(), frame.panoptic.segmentation.tobytes(), frame.panoptic.segments)
        for clip in clips
        for frame in clip.frames
    ]


def test_davis_zip_file(davis, pack):
    expected = everything(open_davis(davis, "val"))
    assert everything(open_davis(davis.parent, "val")) == expected, "the folder above DAVIS/ is accepted"
    pack(davis, davis.parent / "DAVIS-2017-Unsupervised-trainval-480p.zip")
    clips = open_davis(davis.parent, "val")
    assert everything(clips) == expected
    assert everything(pickle.loads(pickle.dumps(clips))) == expected, "a pickled copy reads the same"


def test_kitti_step_zip_file_and_deeplab2_layout(kitti, pack):
    expected = everything(open_kitti_step(kitti, "val"))
    pack(kitti / "training", kitti / "data_tracking_image_2.zip")
    assert everything(open_kitti_step(kitti, "val")) == expected
    for folder in ("images", "panoptic_maps"):
        (kitti / folder).mkdir()
    for name in ("0002", "0006"):
        for t in range(2):
            save(np.full((2, 3, 3), t), kitti / "images" / "val" / name / f"{t:06d}.png")
    (kitti / "kitti-step" / "panoptic_maps" / "val").rename(kitti / "panoptic_maps" / "val")
    (kitti / "data_tracking_image_2.zip").unlink()
    assert everything(open_kitti_step(kitti, "val")) == expected


def test_open_dataset_clip_frames_as_images(davis, kitti):
    data = open_dataset(f"davis:{davis}@val", SIZE)
    assert [sample.name for sample in data] == ["cows/00000", "cows/00001", "bear/00000", "bear/00001", "bear/00002"]
    assert len(data) == 5
    assert len(open_dataset(f"kitti-step:{kitti}@train", SIZE)) == 2
    for outside in (-1, 5):
        with pytest.raises(IndexError):
            data[outside]


@pytest.mark.parametrize("opened", [open_clips, lambda source, size, frames: open_dataset(source, size)])
@pytest.mark.parametrize("source", ["davis:", "davis:x", "davis:@val", "kitti-step:x", "kitti:x@val"])
def test_open_clips_and_open_dataset_unknown_source(opened, source):
    with pytest.raises(InputError, match="davis:DIR@SPLIT"):
        opened(source, SIZE, 4)


def test_davis_list_that_is_no_text_is_one_line(davis):
    (davis / "ImageSets" / "2017" / "val.txt").write_bytes(b"bear\xff\xfe")
    with pytest.raises(InputError, match="is not text in UTF-8"):
        open_davis(davis, "val")


@pytest.mark.parametrize("name", ["..", "../other", "/etc", "..\\other"])
def test_davis_list_of_split_does_not_lead_out_of_the_folder(davis, name):
    (davis / "ImageSets" / "2017" / "val.txt").write_text(f"bear\n{name}\n")
    with pytest.raises(InputError, match="is no name of a folder"):
        open_davis(davis, "val")


def test_davis_name_that_is_too_long_is_missing(davis):
    (davis / "ImageSets" / "2017" / "val.txt").write_text("x" * 300)
    with pytest.raises(InputError, match="x is missing"):
        open_davis(davis, "val")[0]


def test_davis_errors_name_missing_files(davis):
    with pytest.raises(
        InputError, match=r"'test' of DAVIS is missing; expected .*DAVIS/ImageSets/2017/test\.txt or .*480p\.zip"
    ):
        open_davis(davis, "test")
    (davis / "Annotations_unsupervised" / "480p" / "bear" / "00001.png").rename(davis / "x.png")
    assert len(open_davis(davis, "val")[1].frames) == 2, "only labelled frames count"
    (davis / "JPEGImages" / "480p" / "bear" / "00002.jpg").unlink()
    with pytest.raises(InputError, match=r"bear/00002\.jpg does not exist"):
        open_davis(davis, "val")[1].frames[1]
    (davis / "JPEGImages" / "480p" / "cows").rename(davis / "cows")
    with pytest.raises(InputError, match=r"JPEGImages/480p/cows is missing"):
        open_davis(davis, "val")[0]
    (davis / "ImageSets" / "2017" / "val.txt").write_text("")
    with pytest.raises(InputError, match=r"val\.txt lists no sequence"):
        open_davis(davis, "val")


def test_kitti_step_errors_name_missing_and_invalid_files(kitti):
    with pytest.raises(InputError, match=r"expected .*panoptic_maps/test or .*kitti-step/panoptic_maps/test"):
        open_kitti_step(kitti, "test")
    path = kitti / "kitti-step" / "panoptic_maps" / "val" / "0002" / "000001.png"
    save(np.full((2, 3, 3), 30), path)
    with pytest.raises(InputError, match=r"000001\.png: class 30 is outside"):
        open_kitti_step(kitti, "val")[0].frames[1]
    save(np.full((2, 3), 3), path)
    with pytest.raises(InputError, match=r"000001\.png is not RGB"):
        open_kitti_step(kitti, "val")[0].frames[1]
    (kitti / "training").rename(kitti / "train")
    with pytest.raises(InputError, match=r"expected .*images/val or .*image_02 or .*data_tracking_image_2\.zip"):
        open_kitti_step(kitti, "val")


def test_labelled_clips_say_how_labels_are_taken(davis, kitti):
    turn(davis / "JPEGImages/480p/bear/00001.jpg")
    turn(kitti / "training/image_02/0002/000001.png")
    for source, clip in ((f"davis:{davis}@val", 1), (f"kitti-step:{kitti}@val", 0)):
        first, second, *_ = open_clips(source, SIZE, 4)[clip].frames
        assert first.notes == () and "EXIF" in second.notes[0]
        assert [bool(sample.notes) for sample in open_dataset(source, SIZE)].count(True) == 1
