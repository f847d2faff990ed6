"""C files, compiled once for the machine's processor and kept for later processes."""

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
    # errno, traps and the sign of zero are not used; with them the loops would not be vectorised.
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
    """Compile with gcc, once, and load. The library is linked with PyTorch's OpenMP, so that both share its threads.

    Args:
        source: a C file.
        arguments: argument types of each function: p pointer, l int64, f float, i int. Functions return int or nothing.

    Returns:
        The functions; None without gcc or OpenMP, or, with a warning, if gcc fails.
    """
    compiler, openmp, processor = shutil.which("gcc"), _openmp(), _processor()
    if compiler is None or openmp is None or not processor:
        return None
    code = [path.read_text() for path in (source, *sorted(source.parent.glob("*.h")))]
    inputs = repr([code, _FLAGS, compiler, Path(compiler).stat().st_mtime, openmp, processor])
    name = f"{source.stem}-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}.so"
    command = [compiler, *_FLAGS, str(source), "-Wl,--as-needed", openmp, "-lm", "-o"]
    try:
        try:
            return _loaded(_cache() / name, command, arguments)
        except (OSError, RuntimeError):  # no home folder, not writable, or mounted noexec
            with tempfile.TemporaryDirectory() as folder:
                return _loaded(Path(folder) / name, command, arguments)
    except (OSError, subprocess.SubprocessError) as error:
        why = " ".join(str(getattr(error, "stderr", None) or error).split())[:200]
        warnings.warn(
            f"{source.name} could not be compiled, so PyTorch's slower operations are used: {why}", stacklevel=2
        )
        return None


def _loaded(target: Path, command: list[str], arguments: dict[str, str]) -> ctypes.CDLL:
    if not target.exists():
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            compiled = Path(folder) / target.name
            subprocess.run([*command, str(compiled)], check=True, capture_output=True, text=True, timeout=60)
            compiled.replace(target)
    functions = ctypes.CDLL(str(target))
    for name, letters in arguments.items():
        getattr(functions, name).argtypes = [_TYPES[letter] for letter in letters]
    return functions


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pix2seqd"


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
