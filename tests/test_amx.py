"""Attention by AMX: where a processor has none, in the plain C that stands in for its instructions."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pix2seqd import amx, native, transformer
from pix2seqd.sampler import Sampler


@pytest.fixture(scope="module", autouse=True)
def instructions(compiled):
    """As on a processor that has them."""
    functions = native.load(Path(amx.__file__).with_suffix(".c"), amx._ARGUMENTS)
    assert functions is not None
    functions.amx()  # where they are real, the system is asked for them
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(amx, "library", lambda: functions)
        yield


def random(*shape: int) -> Tensor:
    return torch.randn(shape).to(torch.bfloat16)


def error(found: Tensor, q: Tensor, k: Tensor, v: Tensor) -> float:
    """The largest, beside the largest value; results and shares are rounded to 8 bits."""
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    assert found.dtype == torch.bfloat16 and found.shape == exact.shape
    return float((found - exact).abs().max() / v.abs().max())


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 100), st.integers(1, 100), st.sampled_from([32, 64, 96]))
def test_it_is_attention(batch: int, heads: int, n: int, m: int, dim: int):
    torch.manual_seed(n)
    q = 3 * random(batch, n, heads, dim).transpose(1, 2)  # as they lie after a linear layer
    k, v = 3 * random(batch, m, heads, dim).transpose(1, 2), random(batch, heads, m, dim)
    with torch.inference_mode():
        assert amx.suits(q, k, v)
        found = transformer.attend(q, k, v)
    assert error(found, q, k, v) < 2**-7
    assert found.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("size", [1e2, 1e5])
def test_large_scores_overflow_nowhere(size: float):
    q, k, v = size * random(1, 1, 40, 32), size * random(1, 1, 50, 32), random(1, 1, 50, 32)
    assert error(amx.attention(q, k, v), q, k, v) < 2**-7


def test_what_is_no_number_stays_none():
    def where(x: Tensor) -> Tensor:
        x[0, 0, 7, 3] = torch.nan
        return amx.attention(q, k, v).isnan()[0, 0]

    q, k, v = (random(1, 1, 50, 32) for _ in range(3))
    assert where(q).all(dim=1).tolist() == [n == 7 for n in range(50)] == where(q).any(dim=1).tolist()
    q = random(1, 1, 50, 32)
    assert where(v).all(dim=0).tolist() == [n == 3 for n in range(32)] == where(v).any(dim=0).tolist()
    assert where(k).all()


def test_a_picture_gives_the_same_bits_alone_in_a_batch_and_with_any_number_of_threads(set_threads):
    q, k, v = random(4, 2, 133, 32), random(4, 2, 70, 32), random(4, 2, 70, 32)
    together = amx.attention(q, k, v)
    for n in (1, 2, 3):
        set_threads(n)
        assert all(
            torch.equal(amx.attention(q[i : i + 1], k[i : i + 1], v[i : i + 1])[0], together[i]) for i in range(4)
        )


def test_other_inputs_are_left_to_pytorch(monkeypatch):
    x = random(1, 2, 40, 32)
    with torch.inference_mode():
        assert amx.suits(x, x, x)
        assert not amx.suits(x.float(), x.float(), x.float())
        assert not amx.suits(*[x[..., :16]] * 3)
        assert not amx.suits(x[:, :, :0], x, x)
        for keys, values in ((x, x[:, :, 1:]), (x[..., :16], x), (x[:, :1], x[:, :1])):
            with pytest.raises(ValueError, match="40, 32"):
                amx.attention(x, keys, values)
        monkeypatch.setattr(amx, "library", lambda: None)
        assert not amx.suits(x, x, x)
    monkeypatch.undo()
    assert not amx.suits(x, x, x)  # there may be gradients


def test_the_networks_use_it(tiny, build, monkeypatch):
    sampler, errors, attention = Sampler(build(tiny), "cpu", "bfloat16"), [], amx.attention

    def checked(*given: Tensor) -> Tensor:
        found = attention(*given)
        errors.append(error(found, *given))
        return found

    monkeypatch.setattr(amx, "attention", checked)
    with sampler._precision():
        sampler.model.infer(torch.rand(1, 3, 64, 64), torch.randn(1, 5, 32, 32), 1)
    assert 0 < max(errors) < 2**-7
