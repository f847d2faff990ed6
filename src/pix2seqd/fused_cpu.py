"""What lies between the products on CPUs: `fused_cpu.c`, compiled once for the machine and kept for the next process.

PyTorch's own operations pass over whole maps one after the other, and their exponential, exact to the last bit, is
what most of their time goes into. Where there is no gcc, or PyTorch does not use OpenMP, they serve.
"""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

_SOURCE = Path(__file__).with_suffix(".c")
_FLAGS = [
    *("-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"),
    # Nobody asks for errno, traps, NaNs or the sign of a zero; else the loops do not become vectors.
    *("-fno-math-errno", "-fno-trapping-math", "-ffinite-math-only", "-fno-signed-zeros"),
]
_ARGUMENTS = {"group_norm": "ppllllpplfiii", "softmax": "plli", "gelu": "plii", "expected_bits": "ppllifii"}
_TYPES = {"p": ctypes.c_void_p, "l": ctypes.c_int64, "f": ctypes.c_float, "i": ctypes.c_int}


def suits(x: Tensor) -> bool:
    """Whether the functions below take a tensor: a real one (not traced) on a CPU, without gradients, if compiled."""
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and library() is not None
    )


def group_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> Tensor:
    """`[b, c, h, w]` with groups of channels normalised, times a weight, plus a bias; then SiLU if `silu`.

    `weight` and `bias` are `[b, c]`, or `[1, c]` for all examples. The result lies channels last.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.empty_like(x)
    weight, bias = weight.float().contiguous(), bias.float().contiguous()
    b, c, h, w = x.shape
    apart = c if len(weight) > 1 else 0
    affine = weight.data_ptr(), bias.data_ptr(), apart
    _call("group_norm", x.data_ptr(), y.data_ptr(), b, h * w, c, groups, *affine, eps, silu, _half(x))
    return y


def softmax_(x: Tensor) -> Tensor:
    """Softmax over the last dimension of contiguous bfloat16, in place."""
    assert x.is_contiguous() and _half(x)
    _call("softmax", x.data_ptr(), x.numel() // x.shape[-1], x.shape[-1])
    return x


def gelu_(x: Tensor) -> Tensor:
    """GELU of a contiguous tensor, in place."""
    assert x.is_contiguous()
    _call("gelu", x.data_ptr(), x.numel(), _half(x))
    return x


def expected_bits(logits: Tensor, scale: float) -> Tensor:
    """As `analog_bits.expected_bits`; the probabilities never exist in memory."""
    b, values, h, w = logits.shape
    flat, n = logits.movedim(1, -1).reshape(-1, values), values.bit_length() - 1
    flat = flat if flat.stride(1) == 1 else flat.contiguous()
    bits = torch.empty(len(flat), n)
    _call("expected_bits", flat.data_ptr(), bits.data_ptr(), len(flat), flat.stride(0), n, scale, _half(flat))
    return bits.view(b, h, w, n).movedim(-1, 1)


def _call(name: str, *arguments: float) -> None:
    getattr(library(), name)(*arguments, torch.get_num_threads())


def _half(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None: they cannot be compiled here."""
    compiler, openmp = shutil.which("gcc"), _openmp()
    if compiler is None or openmp is None:
        return None
    processor = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    kind = re.findall(r"^(?:model name|flags|Features)\s*:.*", processor, re.MULTILINE)
    facts = repr([_SOURCE.read_text(), _FLAGS, compiler, openmp, kind])
    target = _cache() / f"fused_cpu-{hashlib.sha256(facts.encode()).hexdigest()[:16]}.so"
    try:
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            _compile(compiler, openmp, target)
        return _load(target)
    except OSError:  # that folder cannot be written, or nothing in it executed
        try:
            with tempfile.TemporaryDirectory() as folder:
                _compile(compiler, openmp, Path(folder) / target.name)
                return _load(Path(folder) / target.name)
        except (OSError, subprocess.SubprocessError):
            return None
    except subprocess.SubprocessError:
        return None


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pix2seqd"


def _openmp() -> str | None:
    """PyTorch's OpenMP: a second one's threads would wait for work on the cores that those of the first need."""
    maps = Path("/proc/self/maps")
    loaded = re.findall(r"/.*/lib(?:gomp|iomp5)[^/]*$", maps.read_text(), re.MULTILINE) if maps.is_file() else []
    return loaded[0] if loaded else None


def _compile(compiler: str, openmp: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        command = [compiler, *_FLAGS, str(_SOURCE), "-o", str(made), "-Wl,--as-needed", openmp, "-lm"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        made.replace(target)


def _load(path: Path) -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(path))
    for name, letters in _ARGUMENTS.items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = [_TYPES[letter] for letter in letters], None
    return loaded
