"""Products of bfloat16 by AMX: where a processor has none, in the plain C that stands in for its instructions."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pix2seqd import amx, native, transformer
from pix2seqd.hardware import in_bfloat16
from pix2seqd.sampler import Sampler

BF16 = torch.bfloat16


@pytest.fixture(scope="module", autouse=True)
def instructions(compiled):
    """As on a processor that has them; its cache is small, so that small pictures are cut into strips."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "_FLAGS", [*native._FLAGS, "-DCACHE=20000"])
        functions = native.load(Path(amx.__file__).with_suffix(".c"), amx._ARGUMENTS)
        assert functions is not None
        functions.amx()  # where they are real, the system is asked for them
        patch.setattr(amx, "library", lambda: functions)
        yield


def random(*shape: int) -> Tensor:
    return torch.randn(shape).to(BF16)


def close(found: Tensor, exact: Tensor) -> bool:
    """Equal but for the rounding of the result to bfloat16."""
    assert found.dtype == BF16 and found.shape == exact.shape
    return torch.allclose(found.double(), exact, rtol=2**-8, atol=1e-4 * float(exact.abs().max()))


def exactly(layer: nn.Module, x: Tensor) -> Tensor:
    return copy.deepcopy(layer).double()(x.double())


few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@few
@given(st.integers(1, 3), st.sampled_from([32, 96]), st.sampled_from([32, 64]), st.integers(1, 70), st.integers(1, 40))
def test_a_convolution(batch: int, channels: int, out: int, height: int, width: int):
    torch.manual_seed(height)
    for size, bias in ((1, True), (3, False)):
        layer = nn.Conv2d(channels, out, size, padding=size // 2, bias=bias).to(BF16)
        x = random(batch, channels, height, width)
        with torch.inference_mode():
            found = amx.Conv2d(layer)(x)
            assert close(found, exactly(layer, x))
        assert found.is_contiguous(memory_format=torch.channels_last)


@few
@given(st.integers(1, 3), st.integers(1, 300), st.sampled_from([32, 160]), st.sampled_from([32, 64]), st.booleans())
def test_a_linear_layer(batch: int, rows: int, inputs: int, out: int, bias: bool):
    layer, x = nn.Linear(inputs, out, bias).to(BF16), random(batch, rows, inputs)
    with torch.inference_mode():
        assert close(amx.Linear(layer)(x), exactly(layer, x))


@few
@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 100), st.integers(1, 100), st.sampled_from([32, 64, 96]))
def test_attention(batch: int, heads: int, n: int, m: int, dim: int):
    torch.manual_seed(n)
    q = 3 * random(batch, n, heads, dim).transpose(1, 2)
    k, v = 3 * random(batch, m, heads, dim).transpose(1, 2), random(batch, heads, m, dim)
    with torch.inference_mode():
        assert amx.attends(q, k, v)
        found, exact = transformer.attend(q, k, v), F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    assert found.dtype == BF16 and found.shape == exact.shape
    assert (found - exact).abs().max() < 2**-6 * v.abs().max()  # shares and results are rounded
    assert found.transpose(1, 2).is_contiguous()


def test_scores_that_are_large_overflow_nowhere():
    q, k, v = 100 * random(1, 1, 40, 32), 100 * random(1, 1, 50, 32), random(1, 1, 50, 32)
    with torch.inference_mode():
        found, exact = amx.attention(q, k, v), F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    assert (found - exact).abs().max() < 2**-6 * v.abs().max()


def test_what_is_no_number_stays_none():
    layer, x = nn.Conv2d(32, 32, 3, padding=1).to(BF16), random(1, 32, 40, 40)
    x[0, 5, 20, 20] = torch.nan
    with torch.inference_mode():
        found = amx.Conv2d(layer)(x).isnan().any(dim=1)[0]
        assert found[19:22, 19:22].all() and found.sum() == 9
        values = random(1, 1, 50, 32)
        values[0, 0, 7, 3] = torch.nan
        assert amx.attention(values, values, values).isnan().any()


def attend(x: Tensor) -> Tensor:
    q, k, v = (x.movedim(1, -1).flatten(1, 2)[:, i : i + 900].unflatten(2, (2, 32)).transpose(1, 2) for i in range(3))
    return amx.attention(q, k, v)


@pytest.mark.parametrize("kind", ["3 × 3", "1 × 1", "attention"])
def test_a_picture_gives_the_same_bits_alone_in_a_batch_and_with_any_number_of_threads(kind: str, set_threads):
    size = int(kind[0]) if kind[0].isdigit() else 0
    function = amx.Conv2d(nn.Conv2d(64, 96, size, padding=size // 2).to(BF16)) if size else attend
    x = random(4, 64, 37, 32).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        together = function(x)
        for n in (1, 2, 3):
            set_threads(n)
            assert all(torch.equal(function(x[i : i + 1])[0], together[i]) for i in range(4))


def test_a_model_gives_nearly_the_same_bits_and_stays_as_it_is(tiny, build):
    model = build(tiny.replace(dim=64, fuse_dim=64))
    before = copy.deepcopy(model.state_dict())
    images, noise = torch.rand(2, 3, 64, 64), torch.randn(2, 5, 32, 32)
    sampler = Sampler(model, "cpu", "bfloat16")
    kinds = {type(module) for module in sampler.model.modules()}
    assert {amx.Linear, amx.Conv2d} <= kinds
    assert not any(isinstance(module, amx.Linear | amx.Conv2d) for module in model.modules())
    with torch.inference_mode(), torch.autocast("cpu", BF16):
        plain = in_bfloat16(model)
        fast, slow = (list(m.denoise(m.pixel_encoder(images), noise, 1))[-1] for m in (sampler.model, plain))
    assert (fast - slow).abs().mean() < 0.05 * slow.abs().mean()
    assert sampler.model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def layer_for(layer: nn.Module) -> nn.Module:
    return amx.with_amx(nn.Sequential(layer.to(BF16)))[0]


def test_what_it_is_not_made_for_is_left_to_pytorch():
    for kept in (
        nn.Conv2d(64, 64, 3),
        nn.Conv2d(64, 64, 3, padding=1, stride=2),
        nn.Conv2d(64, 64, 3, padding=1, groups=2),
        nn.Conv2d(64, 64, 3, padding=2, dilation=2),
        nn.Conv2d(16, 64, 1),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(64, 64, 3, padding="same"),
        nn.Linear(64, 40),
    ):
        assert layer_for(kept) is kept or type(layer_for(kept)) is type(kept)
    x = torch.randn(2, 5, 64)
    layer = nn.Linear(64, 32).to(BF16)
    fast = layer_for(layer)
    assert isinstance(fast, amx.Linear)
    with torch.inference_mode():
        with torch.autocast("cpu", BF16):
            assert torch.allclose(fast(x), layer(x), rtol=2**-7, atol=1e-2)
            assert fast(x[:0]).shape == (0, 5, 32)
        with pytest.raises(RuntimeError):  # float32 times bfloat16
            fast(x)
        with pytest.raises(RuntimeError):
            fast(x[..., :32].to(BF16))
    assert fast.weight is layer.weight
    gradients = [torch.autograd.grad(f(x.to(BF16)).sum(), layer.weight)[0] for f in (fast, layer)]
    assert torch.equal(*gradients)


def test_without_the_instructions_the_layers_stay_pytorchs(monkeypatch):
    monkeypatch.setattr(amx, "library", lambda: None)
    assert type(layer_for(nn.Linear(32, 32))) is nn.Linear
