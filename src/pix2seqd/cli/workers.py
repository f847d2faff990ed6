"""Segment many files with several processes of this machine. Each takes the next files when it has finished its own."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_all_start_methods, get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, cast

from pix2seqd.cli.segmenting import Job, Results, Todo, segment_files
from pix2seqd.files import InputError

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

LOADED = ["pix2seqd.cli.segmenting", "pix2seqd.segmenter"]
"""Modules that the processes of `on_workers` need."""


def start_loading() -> "ForkServerContext | SpawnContext":
    """Begin to load what the processes of `on_workers` need, as this one does, too; returns how they are started.

    One more process loads it once, and the others are its copies. Where that is not possible, each will load it.
    """
    # Before Python 3.11.1 other users of the machine may send it what it runs (CVE-2022-42919).
    if "forkserver" in get_all_start_methods() and sys.version_info >= (3, 11, 1):
        from multiprocessing.forkserver import ensure_running

        context = get_context("forkserver")
        context.set_forkserver_preload(LOADED)
        with _without_ctrl_c(), suppress(OSError):  # no process is left, or the path of its socket is too long
            ensure_running()
            return context
    return get_context("spawn")


def on_workers(job: Job, todo: Todo, workers: int, context: "ForkServerContext | SpawnContext") -> Results:
    """Segment files in `workers` new processes, which share the cores; the results come as they are finished.

    A process takes `batch_size` files at a time, or 1; no more are started than there are batches. If one is killed,
    the files that it was working on get an error, and the others continue. All of them end with the iterator, or with
    this process. `start_loading` gives the context: a fork of this process, which has threads, may wait for ever. If
    all are killed, or a result cannot be written, this is an `InputError`.
    """
    import torch

    batch = job.batch_size or 1
    batches = [todo[at : at + batch] for at in range(0, len(todo), batch)]
    workers = min(workers, len(batches))
    threads = max(1, torch.get_num_threads() // workers)
    waiting = iter(batches)
    processes = _start(context, workers, (threads, job))
    left: dict[Connection, list[Path]] = {pipe: [] for pipe in processes}
    try:
        while left:
            for pipe in cast(list[Connection], wait(list(left))):
                try:
                    said = pipe.recv()
                    if said is None:
                        files = next(waiting, [])
                        left[pipe] = [source for source, _ in files]
                        pipe.send(files)
                except (EOFError, OSError):
                    how = _how_it_ended(processes[pipe])
                    for source in left.pop(pipe):
                        yield source, InputError(f"{source} is not done: its process ended {how}; repeat the command")
                    continue
                if isinstance(said, InputError):
                    raise said
                if said is not None:
                    source, entry = said
                    if not isinstance(entry, str):
                        left[pipe].remove(source)
                    yield source, entry
        if rest := sum(map(len, waiting)):
            raise InputError(
                f"all {workers} processes were ended; {rest} more images are left: repeat the command, with fewer "
                "--workers if the memory is full"
            )
    finally:
        _end(processes)


def _start(
    context: "ForkServerContext | SpawnContext", workers: int, arguments: tuple[Any, ...]
) -> dict[Connection, BaseProcess]:
    """New processes that run `_work` with these arguments, each with its pipe; an `InputError` if that fails."""
    processes: dict[Connection, BaseProcess] = {}
    try:
        with _without_ctrl_c():
            for _ in range(workers):
                pipe, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, *arguments), daemon=True)
                process.start()
                processes[pipe] = process
                theirs.close()  # so that the pipe ends with the process
    except (OSError, EOFError) as error:  # the server that starts them may end for the same reasons
        _end(processes)
        reason = getattr(error, "strerror", None) or "the system ended them"
        raise InputError(f"{workers} processes cannot be started ({reason}); give fewer --workers") from error
    return processes


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Ctrl-C goes to all processes; those that are started within this context inherit to ignore it."""
    for_us = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, for_us)


def _how_it_ended(process: BaseProcess) -> str:
    process.join()
    code = process.exitcode or 0
    return f"by signal {-code} (is the memory full?)" if code < 0 else f"with exit code {code}"


def _end(processes: dict[Connection, BaseProcess]) -> None:
    for process in processes.values():
        process.terminate()
        process.join()


def _work(pipe: Connection, threads: int, job: Job) -> None:
    """Segment what comes through the pipe until it is an empty list. None is sent to ask for more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # not inherited on Windows
    Thread(target=_end_with_parent, daemon=True).start()
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is imported
    if torch := sys.modules.get("torch"):  # this process is a copy of one that has imported it
        torch.set_num_threads(threads)
    pipe.send(None)
    try:
        segmenter = job.load()
    except InputError as error:
        pipe.send(error)
        return
    while files := pipe.recv():
        try:
            for result in segment_files(segmenter, files, job):
                pipe.send(result)
        except InputError as error:
            pipe.send(error)
        pipe.send(None)


def _end_with_parent() -> None:
    """A result that nobody records must not be written any more: another command may write the same files."""
    if parent := parent_process():
        parent.join()
        os._exit(1)
