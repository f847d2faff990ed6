"""Normalisation with SiLU, softmax to bits, and bits to values, on CPUs in C (`fused_cpu.c`).

PyTorch's operations pass over whole maps one after the other, and spend most of their time in an exponential that is
exact to the last bit. They are used where nothing can be compiled.
"""

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from pix2seqd.analog_bits import ExpectedBits, Quantizer, evidence_gain
from pix2seqd.layers.norms import GroupNorm
from pix2seqd.mask_decoder import BitHead
from pix2seqd.speed import compile_c

_ARGUMENTS = {
    "group_norm": "ppllllpplfiii",
    "expected_bits": "ppllifii",
    "patch_bits": "pppplllplfii",
    "read_values": "pppllplfi",
}
_PATCH = 4
"""Side of the patches that `patch_bits` takes: their pixels fill a vector."""


class FusedGroupNorm(GroupNorm):
    """`GroupNorm` in two passes, one for the sums and one for everything else, SiLU included."""

    def forward(self, input: Tensor, time: Tensor | None = None, silu: bool = False) -> Tensor:
        """As `GroupNorm.forward`; the result is channels last."""
        if not is_supported(input):
            return super().forward(input, time, silu)
        return group_norm(input, *self.affine_map(time), self.num_groups, self.eps, silu)


class FusedExpectedBits(ExpectedBits):
    """`ExpectedBits` without the probabilities in memory."""

    def forward(self, logits: Tensor) -> Tensor:
        """As `ExpectedBits.forward`."""
        return expected_bits(logits, self.scale) if is_supported(logits) else super().forward(logits)


class FusedBitHead(BitHead):
    """`BitHead` in one pass over the logits, for patches of 4 × 4 pixels with logits of bits; otherwise as it was."""

    def forward(self, x: Tensor, m_t: Tensor, gammas: Tensor) -> Tensor:
        """As `BitHead.forward`; the result is channels last."""
        decoder, mask = self.config.decoder, self.config.mask
        if decoder.patch != _PATCH or not decoder.bit_logits or not is_supported(x) or not is_supported(m_t):
            return super().forward(x, m_t, gammas)
        return patch_bits(x, m_t, evidence_gain(mask.scale, gammas), mask.bits, mask.scale)


class FusedQuantizer(Quantizer):
    """`Quantizer` in one pass over the bits, for the binary encoding; otherwise as it was."""

    def values(self, m_pred: Tensor) -> Tensor:
        """As `Quantizer.values`."""
        if not self._reads(m_pred):
            return super().values(m_pred)
        return self._read(m_pred, torch.int64).minimum(torch.tensor(self.limits)[:, None, None])

    def probabilities(self, m_pred: Tensor) -> Tensor:
        """As `Quantizer.probabilities`."""
        return self._read(m_pred, torch.float32) if self._reads(m_pred) else super().probabilities(m_pred)

    def _reads(self, m_pred: Tensor) -> bool:
        fits = self.encoding == "binary" and m_pred.shape[1] == sum(self.bits)
        return fits and m_pred.dtype == torch.float32 and is_supported(m_pred)

    def _read(self, m_pred: Tensor, dtype: torch.dtype) -> Tensor:
        """The values (int64) or the probabilities (float32) of all channels, `[b, channels, h, w]`."""
        b, (h, w) = len(m_pred), m_pred.shape[2:]
        m_pred = m_pred.contiguous(memory_format=torch.channels_last)
        result = torch.empty(b, len(self.bits), h, w, dtype=dtype, device="cpu")
        pointers = (result.data_ptr(), 0) if dtype == torch.int64 else (0, result.data_ptr())
        counts = (ctypes.c_int64 * len(self.bits))(*self.bits)
        _call("read_values", m_pred.data_ptr(), *pointers, b, h * w, ctypes.addressof(counts), len(counts), self.scale)
        return result


def is_supported(x: Tensor) -> bool:
    """Whether the functions below are compiled and accept this tensor."""
    return compile_c.is_supported(x) and x.dtype in (torch.float32, torch.bfloat16) and library() is not None


def group_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> Tensor:
    """Normalise groups of channels of `[b, c, h, w]`, multiply by a weight, add a bias, then SiLU if `silu`.

    `weight` and `bias` are `[b, c]`, or `[1, c]` for all examples; other shapes are a `ValueError`. The result is
    channels last.
    """
    b, c, h, w = x.shape
    if weight.shape != bias.shape or weight.shape not in ((b, c), (1, c)) or c % groups:
        raise ValueError(
            f"{groups} groups, weights {tuple(weight.shape)}, biases {tuple(bias.shape)} of {tuple(x.shape)}"
        )
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.empty_like(x)
    if x.numel():
        weight, bias = weight.float().contiguous(), bias.float().contiguous()
        affine = weight.data_ptr(), bias.data_ptr(), c if len(weight) > 1 else 0
        _call("group_norm", x.data_ptr(), y.data_ptr(), b, h * w, c, groups, *affine, eps, silu, _bf16(x))
    return y


def expected_bits(logits: Tensor, scale: float) -> Tensor:
    """As `analog_bits.expected_bits` of a power of 2 of logits; the probabilities never exist in memory."""
    b, values, h, w = logits.shape
    if values.bit_count() != 1:
        raise ValueError(f"{values} logits; the number of logits must be a power of 2")
    flat, n = logits.movedim(1, -1).reshape(-1, values), values.bit_length() - 1
    flat = flat if flat.stride(1) == 1 else flat.contiguous()
    bits = torch.empty(len(flat), n, dtype=torch.float32, device="cpu")
    _call("expected_bits", flat.data_ptr(), bits.data_ptr(), len(flat), flat.stride(0), n, scale, _bf16(flat))
    return bits.view(b, h, w, n).movedim(-1, 1)


def patch_bits(x: Tensor, m_t: Tensor, gain: Tensor, bits: Sequence[int], scale: float) -> Tensor:
    """Expected bits of patches of 4 × 4 pixels, as `mask_decoder.BitHead` gives them; the logits never exist in memory.

    `x` `[b, 16 · outputs, h, w]` has logits of all values of each mask channel, then of all bits; `m_t` is noisy analog
    bits `[b, bits, 4 h, 4 w]`, `gain` is `analog_bits.evidence_gain`, `[b]` or `[1]`, and `bits` the number of bits of
    each mask channel. Returns float32 `[b, bits, 4 h, 4 w]` in [-scale, scale], channels last. Shapes that do not fit
    each other are a ValueError.
    """
    (b, channels, h, w), outputs = x.shape, sum(bits) + sum(2**n for n in bits)
    if channels != _PATCH**2 * outputs or m_t.shape != (b, sum(bits), _PATCH * h, _PATCH * w):
        raise ValueError(f"{tuple(x.shape)} and noisy bits {tuple(m_t.shape)} for {tuple(bits)} bits")
    x = x.contiguous(memory_format=torch.channels_last)
    m_t = m_t.float().contiguous(memory_format=torch.channels_last)
    y, gain = torch.empty_like(m_t), gain.float().expand(b).contiguous()
    counts = (ctypes.c_int64 * len(bits))(*bits)
    pointers = x.data_ptr(), m_t.data_ptr(), gain.data_ptr(), y.data_ptr()
    _call("patch_bits", *pointers, b, h, w, ctypes.addressof(counts), len(bits), scale, _bf16(x))
    return y


def _call(name: str, *arguments: float) -> None:
    getattr(library(), name)(*arguments, torch.get_num_threads())


def _bf16(x: Tensor) -> bool:
    return x.dtype == torch.bfloat16


@cache
def library() -> ctypes.CDLL | None:
    """The compiled functions; None if they cannot be compiled here."""
    return compile_c.load(Path(__file__).with_suffix(".c"), _ARGUMENTS)
