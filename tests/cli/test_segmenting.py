import threading
from typing import Any

import pytest
from fake_segmenter import FakeSegmenter, draw
from PIL import Image

from pix2seqd.cli import segmenting
from pix2seqd.cli.segmenting import Job, segment_files
from pix2seqd.files import InputError
from pix2seqd.panoptic.results import make_folders


@pytest.fixture
def todo(tmp_path):
    names = [f"{number}.png" for number in range(6)]
    for number, name in enumerate(names):
        draw(tmp_path / name, number + 1)
    return [(tmp_path / name, name[:-4]) for name in names]


def run(todo, out, kind: Any = FakeSegmenter) -> Any:
    make_folders(out)
    return segment_files(kind("nuclei"), todo, Job(lambda: kind("nuclei"), out, {}, {}, 2))


def test_segment_files_reads_and_writes_while_it_segments(todo, tmp_path, monkeypatch):
    """Reading, segmenting and writing wait for each other. Without overlap this would never end."""
    later_are_read, first_is_written, load, write = threading.Event(), threading.Event(), segmenting.open_pixels, []

    def loaded(source, *options):
        if source == todo[2][0]:
            later_are_read.set()
        return load(source, *options)

    class Waiting(FakeSegmenter):
        def images(self, sources, **options):
            for number, panoptic in enumerate(super().images(sources, **options)):
                assert later_are_read.wait(20)
                assert number == 0 or first_is_written.wait(20)
                yield panoptic

    def written(out, stem, *rest):
        first_is_written.set()
        write.append(stem)
        return stem, rest

    monkeypatch.setattr(segmenting, "open_pixels", loaded)
    monkeypatch.setattr(segmenting, "write_files", written)
    results = list(run(todo, tmp_path / "out", Waiting))
    assert [source for source, _ in results] == [source for source, _ in todo]
    assert [entry[0] for _, entry in results] == sorted(write) == [stem for _, stem in todo]


def test_segment_files_keeps_order_and_returns_errors(todo, tmp_path):
    todo[1][0].write_text("not an image")
    results = dict(run(todo, tmp_path / "out"))
    assert set(results) == {source for source, _ in todo}
    assert isinstance(results[todo[1][0]], InputError)
    for number in (0, 2, 3, 4, 5):
        record, annotation = results[todo[number][0]]
        assert record["file_name"] == f"{number}.png"
        assert len(annotation["segments_info"]) == number + 2
        assert Image.open(tmp_path / "out" / "panoptic" / f"{number}.png").size == (record["width"], record["height"])


def test_segment_files_interrupted_returns_finished_results(todo, tmp_path, monkeypatch):
    monkeypatch.setattr(FakeSegmenter, "seen", 0)
    monkeypatch.setattr(FakeSegmenter, "fail_at", 3)
    done = []
    with pytest.raises(KeyboardInterrupt):
        done.extend(source for source, _ in run(todo, tmp_path / "out"))
    assert done == [source for source, _ in todo[:3]]


def test_chunks_large_images_are_read_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(segmenting, "LARGE", 100)
    sides = [5, 5, 5, 11, 7, 8, 1, 1, 1]
    todo = [(tmp_path / f"{number}.png", "") for number in range(len(sides))]
    for (path, _), side in zip(todo, sides, strict=True):
        Image.new("L", (side, side)).save(path)
    todo.insert(3, (tmp_path / "missing.png", ""))
    chunks = list(segmenting._chunks(todo, 4))
    assert [name for chunk in chunks for name in chunk] == todo
    assert [len(chunk) for chunk in chunks] == [4, 1, 1, 4], "with the missing one; 121, 49 + 64 are too many"


def test_windows_bar_shows_images_of_many_windows(monkeypatch):
    bar = segmenting.WindowsBar(3)
    bar(1, 49)
    assert not bar.progress.tasks
    bar(30, 60)
    (task,) = bar.progress.tasks
    assert (task.completed, task.total) == (30, 60)
    bar(60, 60)
    assert not bar.progress.tasks
