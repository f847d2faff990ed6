"""C beside our Python, compiled once for the machine's processor and kept for the next process."""

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor

_FLAGS = [
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    # Nobody asks for errno, traps or the sign of a zero; else the loops do not become vectors.
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros"),
    # gcc leaves half of AVX512 unused unless it is told.
    *(["-mprefer-vector-width=512"] if platform.machine() == "x86_64" else []),
]
_TYPES = {"p": ctypes.c_void_p, "l": ctypes.c_int64, "f": ctypes.c_float, "i": ctypes.c_int}


def is_supported(x: Tensor) -> bool:
    """Whether C may read a tensor by its address: it is a real one on a CPU, and neither traced nor differentiated."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return type(x) is Tensor and x.device.type == "cpu" and not torch.is_grad_enabled() and not traced


def load(source: Path, arguments: dict[str, str]) -> ctypes.CDLL | None:
    """Compile with gcc, once, and load; linked with PyTorch's OpenMP, so that both share its threads.

    Args:
        source: a file of C.
        arguments: of each of its functions, which return an int or nothing: p pointer, l int64, f float, i int.

    Returns:
        The functions; None where there is no gcc or no OpenMP, or, with a warning, where gcc fails.
    """
    compiler, openmp, processor = shutil.which("gcc"), _openmp(), _processor()
    if compiler is None or openmp is None or not processor:
        return None
    code = [path.read_text() for path in (source, *sorted(source.parent.glob("*.h")))]
    facts = repr([code, _FLAGS, compiler, Path(compiler).stat().st_mtime, openmp, processor])
    name = f"{source.stem}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.so"
    command = [compiler, *_FLAGS, str(source), "-Wl,--as-needed", openmp, "-lm", "-o"]
    try:
        try:
            return _loaded(_cache() / name, command, arguments)
        except (OSError, RuntimeError):  # there is no home, it cannot be written, or nothing in it executed
            with tempfile.TemporaryDirectory() as folder:
                return _loaded(Path(folder) / name, command, arguments)
    except (OSError, subprocess.SubprocessError) as error:
        why = " ".join(str(getattr(error, "stderr", None) or error).split())[:200]
        warnings.warn(f"{source.name} could not be compiled, so PyTorch's slower operations serve: {why}", stacklevel=2)
        return None


def _loaded(target: Path, command: list[str], arguments: dict[str, str]) -> ctypes.CDLL:
    if not target.exists():
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / target.name
            subprocess.run([*command, str(made)], check=True, capture_output=True, text=True, timeout=60)
            made.replace(target)
    functions = ctypes.CDLL(str(target))
    for name, letters in arguments.items():
        getattr(functions, name).argtypes = [_TYPES[letter] for letter in letters]
    return functions


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pix2seqd"


def _processor() -> list[str]:
    """What it is and can; the file may lie in a home that machines of other kinds share."""
    info = Path("/proc/cpuinfo")
    first = info.read_text().partition("\n\n")[0] if info.is_file() else ""
    return re.findall(r"^(?:model name|flags|Features)\s*:.*", first, re.MULTILINE)


def _openmp() -> str | None:
    """PyTorch's OpenMP: a second one's threads would wait for work on the cores that those of the first need."""
    maps = Path("/proc/self/maps")
    found = re.findall(r"/.*/lib(?:gomp|iomp5)[^/]*$", maps.read_text(), re.MULTILINE) if maps.is_file() else []
    ours = str(Path(torch.__file__).parent)  # other packages bring theirs
    return min(found, key=lambda path: not path.startswith(ours), default=None)
