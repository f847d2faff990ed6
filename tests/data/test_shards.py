import bz2
import gzip
import json
import lzma
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import webdataset
from strange_files import stored

from pix2seqd.config import DataConfig, ModelConfig, Recipe, TrainConfig
from pix2seqd.data import open_dataset
from pix2seqd.data import shards as module
from pix2seqd.data.coco import CocoPanoptic
from pix2seqd.data.loader import TrainingExamples, training_loader
from pix2seqd.data.shards import SHUFFLED_TOGETHER, Shards, _content, write_shards
from pix2seqd.data.synthetic.shapes import Shapes
from pix2seqd.files import InputError


@pytest.fixture(scope="module")
def scenes() -> list:
    return list(Shapes(23, (16, 20)))


@pytest.fixture
def shards(scenes, tmp_path):
    """23 scenes, two in each shard."""
    assert write_shards(Shapes.taxonomy, scenes, tmp_path, megabytes=0.006) == 12
    return tmp_path


def same(one, other) -> bool:
    return (
        one.name == other.name
        and np.array_equal(one.image, other.image)
        and np.array_equal(one.panoptic.segmentation, other.panoptic.segmentation)
        and one.panoptic.segments == other.panoptic.segments
    )


def test_samples_come_back_as_they_were(shards, scenes):
    data = open_dataset(f"shards:{shards}", (1, 1))
    assert data.taxonomy == Shapes.taxonomy
    assert len(data) == 23
    assert all(same(one, other) for one, other in zip(data, scenes, strict=True))
    with pytest.raises(IndexError):
        data[23]


def test_crowds_void_and_wide_ids_come_back(mini, tmp_path):
    coco = CocoPanoptic.open(mini, "val")
    write_shards(coco.taxonomy, iter(coco), tmp_path / "out", megabytes=1)
    assert all(same(one, other) for one, other in zip(Shards(tmp_path / "out"), coco, strict=True))


def test_notes_come_back(scenes, tmp_path):
    write_shards(Shapes.taxonomy, [replace(scenes[0], notes=("the first of 3 planes",)), scenes[1]], tmp_path, 1)
    assert [sample.notes for sample in Shards(tmp_path)] == [("the first of 3 planes",), ()]


def test_jpeg_pictures_are_close_and_labels_exact(scenes, tmp_path):
    write_shards(Shapes.taxonomy, scenes[:2], tmp_path, megabytes=1, quality=95)
    sample = Shards(tmp_path)[1]
    assert 0 < np.abs(sample.image.astype(int) - scenes[1].image).mean() < 10
    assert np.array_equal(sample.panoptic.segmentation, scenes[1].panoptic.segmentation)


def test_the_files_are_in_webdataset_layout(shards):
    with tarfile.open(shards / "shard-000003.tar") as tar:
        names = tar.getnames()
    assert names == [f"{n:09d}.{suffix}" for n in (6, 7) for suffix in ("png", "panoptic.png", "json")]


def test_webdataset_streams_them(shards, scenes):
    stream = webdataset.WebDataset(str(shards / "shard-{000000..000011}.tar"), shardshuffle=False).decode("rgb8")
    found = list(stream)
    assert len(found) == 23
    for item, scene in zip(found, scenes, strict=True):
        assert np.array_equal(item["png"], scene.image)
        assert np.array_equal(item["panoptic.png"], scene.panoptic.to_coco()[0])
        assert item["json"]["name"] == scene.name
        assert len(item["json"]["segments_info"]) == len(scene.panoptic.segments)


def recipe(**train) -> Recipe:
    return Recipe(
        model=ModelConfig.preset("tiny"),
        data=DataConfig(size=(16, 16)),
        train=TrainConfig(batch_size=23, steps=2, workers=0, seed=5).replace(**train),
    )


def test_an_epoch_has_every_sample_once_and_few_shards_at_a_time(shards):
    data = Shards(shards)
    order = data.order(np.random.default_rng(1))
    assert sorted(order.tolist()) == list(range(23))
    assert not np.array_equal(order, data.order(np.random.default_rng(2)))
    assert len({index // 2 for index in order[: 2 * SHUFFLED_TOGETHER - 1].tolist()}) <= SHUFFLED_TOGETHER
    examples = TrainingExamples(data, recipe())
    epochs = [[int(examples._order(epoch)[place]) for place in range(23)] for epoch in (0, 1, 0)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(23))
    assert epochs[0] == epochs[2] != epochs[1]


def test_workers_and_processes_see_the_same_epoch(shards):
    """Each sample once, and the same examples on any number of workers and processes."""
    data = Shards(shards)
    whole = [batch["images"] for batch in training_loader(data, recipe(batch_size=4, steps=6), 0)]
    for processes, workers in ((1, 2), (2, 1)):
        changed = recipe(batch_size=4, steps=6, workers=workers)
        loaders = [training_loader(data, changed, 0, process, processes) for process in range(processes)]
        for expected, *parts in zip(whole, *loaders, strict=True):
            found = np.concatenate([part["images"].numpy() for part in parts])
            assert np.array_equal(found, expected.numpy())


def test_a_shard_may_be_a_link_to_elsewhere(shards, scenes, tmp_path_factory):
    other = tmp_path_factory.mktemp("disk") / "a.tar"
    (shards / "shard-000001.tar").rename(other)
    with pytest.raises(InputError, match=r"shard-000001\.tar is missing"):
        Shards(shards)
    (shards / "shard-000001.tar").symlink_to(other)
    assert same(Shards(shards)[2], scenes[2])


def test_damage_is_named(shards):
    content = (shards / "shard-000002.tar").read_bytes()
    (shards / "shard-000002.tar").write_bytes(content[:600])
    data = Shards(shards)
    assert data[3].name
    for index in (4, 5):
        with pytest.raises(InputError, match=r"shard-000002\.tar is damaged"):
            data[index]
    for text in ("{}", json.dumps({"categories": [], "shards": []})):
        (shards / "index.json").write_text(text)
        with pytest.raises(InputError, match=r"index\.json is damaged"):
            Shards(shards)
    (shards / "index.json").unlink()
    with pytest.raises(InputError, match="pix2seqd shard"):
        Shards(shards)


@pytest.mark.parametrize(
    ("file", "offsets"),
    [
        *((name, [0, 512]) for name in ("../a.tar", "/dev/zero", "a/b.tar", "..", "", "x" * 300, 5, None)),
        *(("shard-000000.tar", given) for given in (5, [], [[0], [1]], [-1, 5], [5, 5], [1e999], [10**400], None)),
    ],
)
def test_strange_index_is_refused_in_one_line(shards, file, offsets):
    index = json.loads((shards / "index.json").read_text())
    index["shards"] = [{"file": file, "offsets": offsets}]
    (shards / "index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"is (damaged|missing)"):
        Shards(shards)


def test_offset_far_behind_the_end_takes_no_memory(shards):
    index = json.loads((shards / "index.json").read_text())
    index["shards"] = [{"file": "shard-000000.tar", "offsets": [0, 2**60]}]
    (shards / "index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="is damaged"):
        Shards(shards)[0]


def tar(kind, type_, size):
    """A tar file with a member of this type and size, whose content is left out."""
    member = tarfile.TarInfo("0.png")
    member.type, member.size = type_, size
    content = member.tobuf(tarfile.GNU_FORMAT)
    return content if kind == "plain" else {"gz": gzip, "bz2": bz2, "xz": lzma}[kind].compress(content + bytes(2**21))


@pytest.mark.parametrize(
    ("kind", "type_", "size"),
    [
        *((kind, tarfile.REGTYPE, 0) for kind in ("gz", "bz2", "xz")),
        *(("plain", type_, size) for type_ in (tarfile.REGTYPE, b"Z") for size in (2**40, 2**80, -512)),
        ("plain", tarfile.GNUTYPE_SPARSE, 0),
        ("plain", tarfile.SYMTYPE, 0),
    ],
)
def test_strange_shard_is_refused_before_it_is_unpacked(shards, kind, type_, size, monkeypatch):
    """Compressed and sparse files, and sizes that are not there."""
    content = tar(kind, type_, size)
    monkeypatch.setattr(webdataset.tariterators, "tar_file_expander", lambda *_: pytest.fail("unpacked"))
    index = json.loads((shards / "index.json").read_text())
    index["shards"] = [{"file": "shard-000000.tar", "offsets": [0, len(content)]}]
    (shards / "index.json").write_text(json.dumps(index))
    (shards / "shard-000000.tar").write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        Shards(shards)[0]


@pytest.mark.parametrize(
    "changed",
    [
        {"png": stored(np.zeros((16, 20), np.uint8), "PNG")},
        {"png": stored(np.zeros((9, 20, 3), np.uint8), "PNG")},
        {"json": b"[" * 10**5},
        {"json": b"[]"},
        {"json": b'{"name": "a", "segments_info": [{"id": 1e999}]}'},
    ],
)
def test_strange_sample_is_refused_in_one_line(scenes, tmp_path, changed, monkeypatch):
    monkeypatch.setattr(module, "_content", lambda *given: (dict(_content(*given)) | changed).items())
    write_shards(Shapes.taxonomy, scenes[:1], tmp_path, megabytes=1)
    with pytest.raises(InputError, match=r"is damaged|not"):
        Shards(tmp_path)[0]


def test_what_is_there_is_not_written_over_and_half_a_job_leaves_no_index(shards, scenes, tmp_path):
    with pytest.raises(InputError, match="has shards already"):
        write_shards(Shapes.taxonomy, scenes, shards, 1)

    def broken():
        yield from scenes[:3]
        raise InputError("bad picture")

    with pytest.raises(InputError, match="bad picture"):
        write_shards(Shapes.taxonomy, broken(), tmp_path / "half", 0.006)
    assert not (tmp_path / "half").exists()


def test_write_shards_of_another_tool_are_not_replaced(scenes, tmp_path):
    (tmp_path / "shard-000000.tar").write_bytes(b"own")
    with pytest.raises(InputError, match=r"has shards already \(shard-000000\.tar\)"):
        write_shards(Shapes.taxonomy, scenes, tmp_path, 1)
    assert (tmp_path / "shard-000000.tar").read_bytes() == b"own"


def test_write_shards_two_processes_and_leftovers(scenes, tmp_path):
    (tmp_path / ".together.part").mkdir()
    (tmp_path / ".together.part" / "shard-000007.tar").write_bytes(b"left by a process that was killed")

    def meanwhile():
        yield from scenes[:2]
        with pytest.raises(InputError, match="another process writes into"):
            write_shards(Shapes.taxonomy, scenes, tmp_path, 1)
        yield scenes[2]

    write_shards(Shapes.taxonomy, meanwhile(), tmp_path, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.json", "shard-000000.tar"]
    assert len(Shards(tmp_path)) == 3
