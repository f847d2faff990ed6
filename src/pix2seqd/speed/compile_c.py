"""C files, compiled once for the machine's processor and kept for later processes."""

import ctypes
import hashlib
import os
import platform
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from pix2seqd.files import TEMPORARY, InputError, write_atomically
from pix2seqd.speed.hardware import is_plain

TIMEOUT = 30
"""Seconds that the compiler may take; it needs about two."""

_FLAGS = [
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    # Nobody asks for errno, traps or the sign of a zero; otherwise the loops do not become vectors.
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"),
    # Without this option gcc does not use the full width of AVX512.
    *(["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []),
]
_TYPES = {"p": ctypes.c_void_p, "l": ctypes.c_int64, "f": ctypes.c_float, "i": ctypes.c_int}


def is_supported(x: Tensor) -> bool:
    """Whether C can read a tensor by its address: a real tensor on a CPU, neither traced nor differentiated."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return type(x) is Tensor and x.device.type == "cpu" and not torch.is_grad_enabled() and not traced


def load(source: Path, arguments: dict[str, str]) -> ctypes.CDLL | None:
    """Compile a C file with gcc, once, and load it, linked with PyTorch's OpenMP, so that both share its threads.

    `arguments` has the argument types of each function: p pointer, l int64, f float, i int. Functions return int or
    nothing. Returns None where there is no gcc or no OpenMP, where plain PyTorch is asked for, or, with a warning,
    where gcc fails. What was compiled is kept in the user's cache. It is loaded from there only if it is whole, and if
    nobody else could have written it.
    """
    compiler, openmp, processor = shutil.which("gcc"), _openmp(), _processor()
    if is_plain() or compiler is None or openmp is None or not processor:
        return None
    code = [path.read_text() for path in (source, *sorted(source.parent.glob("*.h")))]
    facts = repr([code, _FLAGS, compiler, Path(compiler).stat().st_mtime, openmp, processor])
    name = f"{source.stem}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"
    command = [compiler, *_FLAGS, str(source), "-Wl,--as-needed", openmp, "-lm", "-o"]
    cache = _cache()
    try:
        functions = (_kept(cache, name) if cache else None) or _compiled(command, cache, name)
        for function, letters in arguments.items():
            getattr(functions, function).argtypes = [_TYPES[letter] for letter in letters]
        return functions
    except (OSError, subprocess.SubprocessError, AttributeError) as error:  # the last: a function is missing in it
        why = " ".join(str(getattr(error, "stderr", None) or error).split())[:200]
        warnings.warn(
            f"{source.name} could not be compiled, so PyTorch's slower operations are used: {why}", stacklevel=2
        )
        return None


def _kept(cache: Path, name: str) -> ctypes.CDLL | None:
    """What was compiled before. Its name ends in its digest; a file of other content or by other hands is removed."""
    for path in cache.glob(f"{name}-*.so"):
        with suppress(OSError):  # it cannot be read, or nothing in this folder may be executed
            facts = path.lstat()
            sound = stat.S_ISREG(facts.st_mode) and _is_ours(facts)
            if sound and path.stem == f"{name}-{hashlib.sha256(path.read_bytes()).hexdigest()}":
                return ctypes.CDLL(str(path))
            path.unlink()
    return None


def _compiled(command: list[str], cache: Path | None, name: str) -> ctypes.CDLL:
    """Compile, keep the result if there is a cache, and load it; an `OSError` or `SubprocessError` if it fails."""
    hung = cache / f"{name}.failed" if cache else None
    if hung and hung.exists():
        raise subprocess.SubprocessError(f"the compiler did not end before; remove {hung} to try again")
    with tempfile.TemporaryDirectory() as folder:  # only this user may enter it
        made = Path(folder) / f"{name}.so"
        try:
            _run([*command, str(made)])
        except subprocess.TimeoutExpired as error:
            if hung:
                with suppress(OSError):  # the disk is full; then it is tried again
                    hung.touch()
            raise subprocess.SubprocessError(f"the compiler did not end within {TIMEOUT} s") from error
        content = made.read_bytes()
        if cache:
            _sweep(cache)
            with suppress(OSError, InputError):  # the disk is full, or nothing in this folder may be executed
                target = cache / f"{name}-{hashlib.sha256(content).hexdigest()}.so"
                with write_atomically(target) as temporary:
                    temporary.write_bytes(content)
                    temporary.chmod(0o600)
                return ctypes.CDLL(str(target))
        return ctypes.CDLL(str(made))  # it stays in memory when the file is gone


def _sweep(cache: Path) -> None:
    """Remove what processes left that were killed while they wrote here."""
    for part in cache.glob(TEMPORARY):
        with suppress(OSError):  # another process was faster
            if time.time() - part.stat().st_mtime > TIMEOUT:
                part.unlink()


def _run(command: list[str]) -> None:
    """Run the compiler for `TIMEOUT` seconds at most; it and the programs that it starts never outlive this."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
        try:
            code = process.wait(TIMEOUT)
        except BaseException:  # Ctrl-C too: in its own session the compiler does not hear it
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        if code:
            said.seek(0)
            raise subprocess.CalledProcessError(code, command, stderr=said.read(10_000).decode(errors="replace"))


def _cache() -> Path | None:
    """The folder for what is compiled; None where there is none that this user alone can write to and put elsewhere.

    As the standard for XDG_CACHE_HOME says, a relative path counts as none: it may lead into files of others.
    """
    try:
        given = Path(os.environ.get("XDG_CACHE_HOME", ""))
        folder = (given if given.is_absolute() else Path.home() / ".cache") / "pix2seqd"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = folder.resolve()
        safe = _is_ours(folder.stat()) and not any(_is_open(above.stat()) for above in folder.parents)
        return folder if safe else None
    except (OSError, RuntimeError):  # it cannot be made, or there is no home
        return None


def _is_ours(facts: os.stat_result) -> bool:
    """Whether this user owns a file or folder and nobody else may write to it."""
    return facts.st_uid == os.geteuid() and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _is_open(facts: os.stat_result) -> bool:
    """Whether everyone may replace what is in a folder; in one with the sticky bit, only its owner may."""
    return bool(facts.st_mode & stat.S_IWOTH) and not facts.st_mode & stat.S_ISVTX


def _processor() -> list[str]:
    """Model and features of the processor: a home folder may be shared by different machines."""
    info = Path("/proc/cpuinfo")
    first = info.read_text().partition("\n\n")[0] if info.is_file() else ""
    return re.findall(r"^(?:model name|flags|Features)\s*:.*", first, re.MULTILINE)


def _openmp() -> str | None:
    """PyTorch's OpenMP library: threads of a second one would compete for the same cores."""
    maps = Path("/proc/self/maps")
    found = re.findall(r"/.*/lib(?:gomp|iomp5)[^/]*$", maps.read_text(), re.MULTILINE) if maps.is_file() else []
    torch_folder = str(Path(torch.__file__).parent)  # other packages bring their own
    return min(found, key=lambda path: not path.startswith(torch_folder), default=None)
