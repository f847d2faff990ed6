"""Integers as bits, bits as real numbers, and their expectation under logits (paper §2, §3.2, Table 3)."""

from collections.abc import Sequence
from functools import cache
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor, nn


def int2bit(masks: Tensor, bits: Sequence[int]) -> Tensor:
    """Binary code of each mask channel, least significant bit first.

    Args:
        masks: integers `[b, c, h, w]`, channel k in `0 .. 2^bits[k] - 1` (higher bits are dropped).
        bits: number of bits of each channel.

    Returns:
        float32 0 or 1, `[b, sum(bits), h, w]`: the bits of channel 0, then of channel 1, ...
    """
    planes = [(masks[:, k] >> i) & 1 for k, n in enumerate(bits) for i in range(n)]
    return torch.stack(planes, dim=1).float()


def bit2int(bits_on: Tensor, bits: Sequence[int]) -> Tensor:
    """Inverse of `int2bit`: booleans or 0/1 `[b, sum(bits), h, w]` → int64 `[b, len(bits), h, w]`."""
    channels = []
    for group in bits_on.long().split(list(bits), dim=1):
        powers = 2 ** torch.arange(group.shape[1], device=group.device)
        channels.append((group * powers[:, None, None]).sum(dim=1))
    return torch.stack(channels, dim=1)


def analog(masks: Tensor, bits: Sequence[int], scale: float) -> Tensor:
    """Analog bits of masks (§2, §3.2, Algorithm 1).

    Args:
        masks: integers `[b, c, h, w]`, as `int2bit` takes them.
        bits: number of bits of each channel.
        scale: b.

    Returns:
        float32 `[b, sum(bits), h, w]`: -b where a bit is 0, +b where it is 1.
    """
    return (int2bit(masks, bits) * 2 - 1) * scale


def binary_codes(bits: int, device: torch.device | None = None) -> Tensor:
    """The bits of 0 .. 2^bits - 1, least significant first: float32 0 or 1, `[2^bits, bits]`."""
    codes, positions = torch.arange(2**bits, device=device), torch.arange(bits, device=device)
    # `>>` of two tensors is not known to ONNX's converter.
    return (torch.bitwise_right_shift(codes[:, None], positions) & 1).float()


def expected_bits(logits: Tensor, scale: float) -> Tensor:
    """Analog bits as the average of all binary codes under softmax(logits) (§3.2 "Softmax Cross Entropy Loss").

    Args:
        logits: `[b, 2^n, h, w]` over the values of one mask channel.
        scale: b.

    Returns:
        float32 `[b, n, h, w]` in [-scale, scale].
    """
    n = logits.shape[1].bit_length() - 1
    # Autocast would compute the sum in bfloat16, and bits near 0 would flip.
    with torch.autocast(logits.device.type, enabled=False):
        probabilities = logits.movedim(1, -1).float().softmax(dim=-1)
        mean = probabilities @ binary_codes(n, logits.device)
    return ((mean * 2 - 1) * scale).movedim(-1, 1)


class ExpectedBits(nn.Module):
    """`expected_bits` as a module, so that a faster one can replace it."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, logits: Tensor) -> Tensor:
        """`[b, 2^n, h, w]` → float32 `[b, n, h, w]` in [-scale, scale]."""
        return expected_bits(logits, self.scale)


# Encodings of Bit Diffusion (Chen et al. 2022); the paper has the binary one.


def to_codes(masks: Tensor, bits: Sequence[int], encoding: str) -> Tensor:
    """Values in an encoding of Bit Diffusion (Chen et al. 2022), which is a permutation of the values.

    Args:
        masks: integers `[b, c, h, w]`, channel k in `0 .. 2^bits[k] - 1`.
        bits: number of bits of each channel.
        encoding: "binary": no change. "gray": consecutive values differ in one bit. "random": a fixed permutation.

    Returns:
        int64, the same shape: the integers whose bits (`int2bit`) stand for the values.
    """
    if encoding == "binary":
        return masks
    tables = (code_table(n, encoding).to(masks.device) for n in bits)
    return torch.stack([table[masks[:, k]] for k, table in enumerate(tables)], dim=1)


def from_codes(codes: Tensor, bits: Sequence[int], encoding: str) -> Tensor:
    """Inverse of `to_codes`."""
    if encoding == "binary":
        return codes
    tables = (code_table(n, encoding).argsort().to(codes.device) for n in bits)
    return torch.stack([table[codes[:, k]] for k, table in enumerate(tables)], dim=1)


@cache
def code_table(bits: int, encoding: str) -> Tensor:
    """The table of `to_codes`, value → code: int64 `[2^bits]`, on the CPU. It is cached: do not change it in place."""
    values = torch.arange(2**bits)
    if encoding == "gray":
        return values ^ (values >> 1)
    if encoding == "random":
        # Checkpoints depend on it: RandomState is the one generator of NumPy whose numbers stay the same.
        return torch.from_numpy(np.random.RandomState(0).permutation(2**bits)).long()
    return values


class Quantizer(nn.Module):
    """The integers that predicted analog bits stand for (§2), as a module, so that a faster one can replace it.

    Args of the constructor:
        bits: number of bits of each channel.
        scale: b.
        encoding: as `to_codes` takes it.
        limits: the largest value of each channel.
    """

    def __init__(self, bits: Sequence[int], scale: float, encoding: str, limits: Sequence[int]) -> None:
        super().__init__()
        self.bits, self.scale, self.encoding, self.limits = tuple(bits), scale, encoding, tuple(limits)

    def values(self, m_pred: Tensor) -> Tensor:
        """The values that the signs of the bits stand for: `[b, bits, h, w]` → int64 `[b, channels, h, w]`, clipped."""
        values = from_codes(bit2int(m_pred > 0, self.bits), self.bits, self.encoding)
        return values.minimum(torch.tensor(self.limits, device=values.device)[:, None, None])

    def probabilities(self, m_pred: Tensor) -> Tensor:
        """`value_probability` of each channel: `[b, bits, h, w]` → float32 `[b, channels, h, w]`, 0..1."""
        parts = m_pred.tensor_split(tuple(accumulate(self.bits))[:-1], dim=1)
        return torch.stack([value_probability(part, self.scale) for part in parts], dim=1)


# Not in the paper: the probability of a value, and logits of bits.


def value_probability(bits: Tensor, scale: float) -> Tensor:
    """Probability of the values that the signs of analog bits stand for.

    An analog bit is an expectation (§3.2), so it gives the probability of the bit. Bits are taken as independent.

    Args:
        bits: analog bits `[b, n, h, w]` in [-scale, scale].
        scale: b.

    Returns:
        float32 `[b, h, w]`, 0..1: all n bits are right.
    """
    return ((1 + bits.abs() / scale) / 2).prod(dim=1).clamp(max=1)


def bit_evidence(m_t: Tensor, scale: float, gamma_t: Tensor) -> Tensor:
    """Half the log-odds that each bit is 1, given only its noisy value (Eq. 1).

    Args:
        m_t: noisy analog bits `[b, bits, h, w]`.
        scale: b.
        gamma_t: γ(t), `[b]`, 0..1.

    Returns:
        `[b, bits, h, w]`, clipped to [-5, 5]: near t = 0 it would grow without limit.
    """
    return (m_t * evidence_gain(scale, gamma_t)[:, None, None, None]).clamp(-5, 5)


def evidence_gain(scale: float, gamma_t: Tensor) -> Tensor:
    """Factor of the noisy analog bits in `bit_evidence`, before clipping: γ(t) `[b]` → `[b]`."""
    return scale * gamma_t.sqrt() / (1 - gamma_t)


def value_logits(bit_logits: Tensor) -> Tensor:
    """Logits of all values of a channel from half the log-odds of their bits: `[b, n, h, w]` → `[b, 2^n, h, w]`."""
    signs = binary_codes(bit_logits.shape[1], bit_logits.device).to(bit_logits) * 2 - 1
    return torch.einsum("bnhw,kn->bkhw", bit_logits, signs)
