"""C beside our Python, compiled once for the machine's processor and kept for the next process."""

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

_FLAGS = [
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    # Nobody asks for errno, traps, NaNs or the sign of a zero; else the loops do not become vectors.
    *("-fno-math-errno", "-fno-trapping-math", "-ffinite-math-only", "-fno-signed-zeros"),
    # gcc leaves half of AVX512 unused unless it is told.
    *(["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []),
]
_TYPES = {"p": ctypes.c_void_p, "l": ctypes.c_int64, "f": ctypes.c_float, "i": ctypes.c_int}


def load(source: Path, arguments: dict[str, str]) -> ctypes.CDLL | None:
    """Compile and load, by gcc, in OpenMP's threads of PyTorch.

    Args:
        source: a file of C.
        arguments: of each of its functions, which return an int or nothing: p pointer, l int64, f float, i int.

    Returns:
        The functions; None where that cannot be, for want of gcc or of OpenMP.
    """
    compiler, openmp = shutil.which("gcc"), _openmp()
    if compiler is None or openmp is None:
        return None
    processor = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    kind = re.findall(r"^(?:model name|flags|Features)\s*:.*", processor, re.MULTILINE)
    facts = repr([source.read_text(), _FLAGS, compiler, openmp, kind])
    target = _cache() / f"{source.stem}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.so"
    command = [compiler, *_FLAGS, str(source), "-Wl,--as-needed", openmp, "-lm", "-o"]
    try:
        try:
            return _loaded(target, command, arguments)
        except OSError:  # that folder cannot be written, or nothing in it executed
            with tempfile.TemporaryDirectory() as folder:
                return _loaded(Path(folder) / target.name, command, arguments)
    except (OSError, subprocess.SubprocessError):
        return None


def _loaded(target: Path, command: list[str], arguments: dict[str, str]) -> ctypes.CDLL:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / target.name
            subprocess.run([*command, str(made)], check=True, capture_output=True, timeout=60)
            made.replace(target)
    functions = ctypes.CDLL(str(target))
    for name, letters in arguments.items():
        getattr(functions, name).argtypes = [_TYPES[letter] for letter in letters]
    return functions


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pix2seqd"


def _openmp() -> str | None:
    """PyTorch's OpenMP: a second one's threads would wait for work on the cores that those of the first need."""
    maps = Path("/proc/self/maps")
    found = re.findall(r"/.*/lib(?:gomp|iomp5)[^/]*$", maps.read_text(), re.MULTILINE) if maps.is_file() else []
    return min(found, key=lambda path: "/torch" not in path, default=None)  # other packages bring theirs
