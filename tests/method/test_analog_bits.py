import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pix2seqd.analog_bits import (
    analog,
    binary_codes,
    bit2int,
    code_table,
    expected_bits,
    from_codes,
    int2bit,
    to_codes,
    value_probability,
)

BITS = st.lists(st.integers(1, 12), min_size=1, max_size=3)


@settings(max_examples=50, deadline=None)
@given(bits=BITS, seed=st.integers(0, 1000), height=st.integers(1, 5), width=st.integers(1, 5))
def test_int2bit_and_bit2int_round_trip(bits: list[int], seed: int, height: int, width: int):
    rng = np.random.default_rng(seed)
    masks = torch.from_numpy(np.stack([rng.integers(0, 2**n, (2, height, width)) for n in bits], axis=1))
    planes = int2bit(masks, bits)
    assert planes.shape == (2, sum(bits), height, width)
    assert planes.unique().tolist() in ([0.0], [1.0], [0.0, 1.0])
    assert torch.equal(bit2int(planes.bool(), bits), masks)
    assert torch.equal(bit2int(analog(masks, bits, 0.1) > 0, bits), masks)


@settings(max_examples=30, deadline=None)
@given(bits=BITS, encoding=st.sampled_from(["binary", "gray", "random"]), seed=st.integers(0, 1000))
def test_to_codes_and_from_codes_round_trip(bits: list[int], encoding: str, seed: int):
    rng = np.random.default_rng(seed)
    masks = torch.from_numpy(np.stack([rng.integers(0, 2**n, (2, 3, 4)) for n in bits], axis=1))
    coded = to_codes(masks, bits, encoding)
    assert coded.shape == masks.shape and coded.dtype == torch.int64
    assert all(coded[:, k].min() >= 0 and coded[:, k].max() < 2**n for k, n in enumerate(bits))
    assert torch.equal(from_codes(coded, bits, encoding), masks)


def test_code_table_values():
    assert code_table(3, "binary").tolist() == list(range(8))
    gray = binary_codes(5)[code_table(5, "gray")]
    assert (gray[1:] != gray[:-1]).sum(dim=1).tolist() == [1] * 31, "neighbours differ in one bit"
    assert code_table(3, "random").tolist() == [6, 2, 1, 7, 3, 0, 5, 4], "checkpoints depend on it"


def test_int2bit_equals_the_official_one(official):
    values = torch.from_numpy(official["unit/int2bits/in"]).long()
    planes = int2bit(values.reshape(1, 1, 1, -1), [8])
    assert np.array_equal(planes[0, :, 0].T.numpy(), official["unit/int2bits/out8"])
    assert bit2int(planes, [8]).flatten().tolist() == official["unit/bits2int/out"].tolist()


def test_analog_equals_the_official_one(official):
    masks = official.tensor("unit/map2bits/in")
    assert torch.equal(analog(masks, (8, 8), 0.1), official.tensor("unit/map2bits/out"))
    past = official.tensor("unit/map2bits/cond_in").unflatten(1, (2, 2))
    bits = torch.cat([analog(past[:, f], (8, 8), 0.1) for f in (0, 1)], dim=1)
    assert torch.equal(bits, official.tensor("unit/map2bits/cond_out"))


def test_to_masks_equals_the_official_one(official):
    masks = official.model.to_masks(official.tensor("unit/bits2map/in"))
    assert torch.equal(masks, official.tensor("unit/bits2map/out"))
    assert torch.equal(official.model.to_masks(torch.zeros(1, 16, 1, 1)), torch.zeros(1, 2, 1, 1).long()), "0 is off"
    assert official.model.to_masks(torch.ones(1, 16, 1, 1)).flatten().tolist() == [133, 100], (
        "illegal codes are clipped"
    )


@settings(max_examples=30, deadline=None)
@given(bits=st.integers(1, 8), scale=st.floats(0.01, 2.0), spread=st.floats(0.0, 100.0), seed=st.integers(0, 100))
def test_expected_bits_average_of_the_codes(bits: int, scale: float, spread: float, seed: int):
    logits = torch.randn(2, 2**bits, 3, 2, generator=torch.Generator().manual_seed(seed)) * spread
    ours = expected_bits(logits, scale)
    assert ours.shape == (2, bits, 3, 2)
    assert ours.abs().max() <= scale * (1 + 1e-5)
    exact = torch.einsum("bkhw,kn->bnhw", logits.double().softmax(dim=1), binary_codes(bits).double()) * 2 - 1
    assert torch.allclose(ours.double(), exact * scale, atol=1e-5 * scale)


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_expected_bits_certain_value(bits: int):
    values = torch.arange(2**bits).reshape(1, 1, 1, -1)
    logits = torch.full((1, 2**bits, 1, 2**bits), -1e4).scatter_(1, values, 1e4)
    assert torch.equal(expected_bits(logits, 0.1), analog(values, [bits], 0.1))


def test_expected_bits_float32_under_autocast():
    logits = torch.randn(1, 256, 4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(expected_bits(logits, 0.1), expected_bits(logits.float(), 0.1))
        assert expected_bits(logits.bfloat16(), 0.1).dtype == torch.float32


@pytest.mark.parametrize("scale", [0.1, 1.0])
def test_value_probability_of_independent_bits(scale: float):
    one = torch.tensor([1.0, 0.25, 0.5]) * 2 - 1  # probability that a bit is 1
    bits = (one * scale).reshape(1, 3, 1, 1).expand(2, 3, 4, 5)
    assert torch.allclose(value_probability(bits, scale), torch.tensor(1.0 * 0.75 * 0.5))
    assert value_probability(bits, scale).shape == (2, 4, 5)
    values = analog(torch.randint(0, 4, (1, 2, 4, 5)), (2, 2), scale)
    assert torch.allclose(value_probability(values, scale), torch.ones(1, 4, 5))
