"""Several processes of one command. Most tests have a fake model, which needs no torch."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import active_children, get_context
from pathlib import Path

import pytest
from fake_segmenter import FakeSegmenter, draw

from pix2seqd.cli.segmenting import Job, segment_files
from pix2seqd.cli.workers import on_workers, start_loading
from pix2seqd.files import InputError
from pix2seqd.panoptic.extra_files import ExtraFiles
from pix2seqd.panoptic.results import make_folders

FOLDERS = ("images", "panoptic", "overlay", "labels")
LABELS = ExtraFiles.parse("labels", None)
pytestmark = pytest.mark.skipif(os.name == "nt", reason="POSIX signals")


class Deadly(FakeSegmenter):
    """Its process is killed at images of one blob."""

    def images(self, sources, **options):
        for panoptic in super().images(sources, **options):
            if sum(segment.isthing for segment in panoptic.segments) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            yield panoptic


class Slow(FakeSegmenter):
    def images(self, sources, **options):
        time.sleep(600)
        yield from super().images(sources, **options)


class Copy(FakeSegmenter):
    """Its process has torch, which nothing here imports, and one thread of it."""

    def images(self, sources, **options):
        if "torch" not in sys.modules or sys.modules["torch"].get_num_threads() != 1:
            raise InputError("this process did not begin as the copy of one with torch")
        yield from super().images(sources, **options)


def draw_all(folder: Path, blobs=(2, 1, 3, 4, 5)) -> list[tuple[Path, str]]:
    return [(draw(folder / f"{number}.png", count), f"{number}") for number, count in enumerate(blobs)]


def job_in(out: Path, kind=FakeSegmenter, batch_size=None) -> Job:
    make_folders(out, FOLDERS)
    return Job(partial(kind, "nuclei"), out, {"seed": 0}, {}, batch_size, also=LABELS)


def run_workers(todo, out, kind=FakeSegmenter, workers=2, batch_size=None, context=None):
    return on_workers(job_in(out, kind, batch_size), todo, workers, context or get_context("spawn"))


def content(out: Path) -> dict[Path, bytes]:
    return {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}


@pytest.mark.parametrize("batch_size", [None, 2])
def test_on_workers_gives_what_one_process_gives(tmp_path, batch_size):
    todo = draw_all(tmp_path)
    todo[3][0].write_text("not an image")
    several = dict(run_workers(todo, tmp_path / "several", batch_size=batch_size))
    bad, job = todo[3][0], job_in(tmp_path / "one", batch_size=batch_size)
    one = dict(segment_files(job.load(), todo, job))
    assert isinstance(several[bad], InputError) and str(several.pop(bad)) == str(one.pop(bad))
    assert several == one and len(one) == 4
    assert content(tmp_path / "several") == content(tmp_path / "one")
    assert not active_children()


def test_on_workers_killed_process_leaves_its_image(tmp_path):
    todo = draw_all(tmp_path)
    results = dict(run_workers(todo, tmp_path / "out", Deadly))
    assert [source for source, said in results.items() if isinstance(said, InputError)] == [todo[1][0]]
    said = str(results[todo[1][0]])
    assert f"{todo[1][0]} is not done" in said and "signal 9" in said and "repeat the command" in said
    assert len(results) == len(todo)
    done = run_workers(todo[1:2], tmp_path / "out")
    assert not isinstance(dict(done)[todo[1][0]], InputError)


@pytest.mark.parametrize("error", [OSError(11, "no room"), EOFError()], ids=["spawn", "fork server"])
def test_on_workers_that_cannot_be_started(tmp_path, monkeypatch, error):
    context = get_context("spawn")

    def start(process):
        raise error

    monkeypatch.setattr(context.Process, "start", start)
    with pytest.raises(InputError, match=r"^2 processes cannot be started \(.+\); give fewer --workers$"):
        list(run_workers(draw_all(tmp_path), tmp_path / "out", context=context))


def test_on_workers_all_processes_killed(tmp_path):
    todo, said = draw_all(tmp_path, (1, 1, 1, 1, 1)), []
    with pytest.raises(InputError, match="all 2 processes were ended; 3 more images are left"):
        said.extend(error for _, error in run_workers(todo, tmp_path / "out", Deadly))
    assert len(said) == 2 and all(isinstance(error, InputError) for error in said)


def test_on_workers_result_that_cannot_be_written_ends_all(tmp_path):
    todo = draw_all(tmp_path)
    results = run_workers(todo, tmp_path / "out")
    (tmp_path / "out" / "overlay").rmdir()
    with pytest.raises(InputError, match="overlay"):
        list(results)
    assert not active_children()


def test_on_workers_closed_ends_the_processes(tmp_path):
    results = run_workers(draw_all(tmp_path), tmp_path / "out")
    next(results)
    results.close()
    assert not active_children()


def python(code: str, folder: Path) -> subprocess.Popen[bytes]:
    """A process of its own in the folder, with this module's path and the files of `draw_all` as `todo`."""
    start = (
        "import test_workers; from pathlib import Path; here = Path()\n"
        "todo = [(here / f'{number}.png', f'{number}') for number in range(5)]\n"
    )
    path = os.pathsep.join(filter(None, sys.path))
    return subprocess.Popen(
        [sys.executable, "-c", start + code],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "2"},
    )


@pytest.mark.slow
def test_on_workers_are_copies_of_a_process_that_was_started_before(tmp_path):
    draw_all(tmp_path)
    process = python(
        "from pix2seqd.cli.workers import start_loading; context = start_loading()\n"
        "done = dict(test_workers.run_workers(todo, here / 'out', test_workers.Copy, context=context))\n"
        "print(done.keys() == dict(todo).keys())",
        tmp_path,
    )
    assert process.communicate(timeout=280) == (b"True\n", b"")


def test_start_loading_without_room_for_a_socket(monkeypatch):
    def refuse():
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", refuse)
    assert start_loading().get_start_method() == "spawn"
    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", lambda: None)
    assert start_loading().get_start_method() == "forkserver"


@pytest.mark.slow
def test_on_workers_end_with_a_killed_parent(tmp_path):
    """All of them hold the pipe of stdout, so it ends with the last one."""
    draw_all(tmp_path)
    process = python(
        "print('here', flush=True); list(test_workers.run_workers(todo, here / 'out', test_workers.Slow))", tmp_path
    )
    assert process.stdout is not None and process.stdout.readline() == b"here\n"
    time.sleep(10)  # at work, or still starting: both must end
    process.kill()
    _, err = process.communicate(timeout=120)
    assert err == b""


def test_segment_more_workers_than_cores(run, segmenter, tmp_path, monkeypatch):
    draw_all(tmp_path)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    code, _, err = run("segment", tmp_path, "--workers", 3)
    assert code == 2 and err == "pix2seqd: --workers 3: this machine has 2 cores; give at most 2\n"
    assert run("segment", tmp_path, "--workers", 0)[0] == 2
    monkeypatch.setattr("pix2seqd.distributed.world_size", lambda: 2)
    monkeypatch.setattr("pix2seqd.cli.workers.start_loading", lambda: None)  # it loads torch
    code, _, err = run("segment", tmp_path, "--workers", 2)
    assert code == 2 and "torchrun" in err


def test_segment_starts_processes_only_if_something_may_be_left(run, segmenter, tmp_path, monkeypatch):
    draw_all(tmp_path)
    assert run("segment", tmp_path)[0] == 0
    started = []
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr("pix2seqd.cli.workers.start_loading", lambda: started.append("server"))
    monkeypatch.setattr("pix2seqd.cli.workers.on_workers", lambda *_: iter(()))
    code, out, _ = run("segment", tmp_path, "--workers", 2)
    assert code == 0 and "5 skipped" in out and started == []
    for name in ("5.png", "6.png"):
        draw(tmp_path / name, 2)
    assert run("segment", tmp_path, "--workers", 2)[0] == 0 and started
