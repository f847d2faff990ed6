import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pix2seqd.diffusion import corrupt, ddim_step, ddpm_step, gamma, predicted_noise, time_steps

SCHEDULES = [
    "cosine",
    "cosine@0,1,1",
    "cosine@0.2,1,1",
    "cosine@0,0.5,2",
    "sigmoid@-3,3,1",
    "sigmoid@0,3,0.3",
    "simple_linear",
    "log@1,100,false",
    "log@1,100,true",
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_gamma_equals_the_official_one(official, schedule: str):
    ours = gamma(torch.from_numpy(official["unit/gamma/t"]), schedule).numpy()
    assert np.abs(ours - official[f"unit/gamma/{schedule}"]).max() < 1e-6


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_gamma_falls_from_one_to_zero(schedule: str):
    values = gamma(torch.linspace(0, 1, 1001, dtype=torch.float64), schedule)
    assert values[0].item() == pytest.approx(1, abs=1e-6)
    assert values[-1].item() == pytest.approx(0, abs=1e-6)
    assert (values.diff() <= 0).all()
    assert (values[1:-1].diff() < 0).double().mean() > 0.95, "strictly, except where it is clipped"


@pytest.mark.parametrize("schedule", ["", "linear", "cosine@1,2", "sigmoid", "log@1", "simple_linear@1,2,3"])
def test_gamma_unknown_schedule_is_an_error(schedule: str):
    with pytest.raises(ValueError, match="there are cosine, cosine@start,end,tau"):
        gamma(torch.zeros(1), schedule)


def test_corrupt_mean_and_variance():
    generator = torch.Generator().manual_seed(0)
    m, noise = torch.full((3, 2, 100, 100), 0.1), torch.randn(3, 2, 100, 100, generator=generator)
    gamma_t = torch.tensor([1.0, 0.5, 0.0])
    m_t = corrupt(m, noise, gamma_t)
    assert torch.equal(m_t[0], m[0])
    assert torch.equal(m_t[2], noise[2])
    assert m_t[1].mean().item() == pytest.approx(0.1 * math.sqrt(0.5), abs=0.02)
    assert m_t[1].var().item() == pytest.approx(0.5, abs=0.02)


@settings(max_examples=100, deadline=None)
@given(steps=st.integers(1, 200), td=st.just(0.0) | st.floats(0.01, 10))
def test_time_steps_run_from_one_to_zero(steps: int, td: float):
    pairs = list(time_steps(steps, td))
    assert len(pairs) == steps
    assert pairs[0][0] == 1
    assert pairs[-1][1] == 0
    for now, after in pairs:
        assert 0 <= after < now <= 1
    for (one, _), (other, _) in pairwise(pairs):
        assert one - other == pytest.approx(1 / steps)
    if td == 0:
        assert all(after == pytest.approx(now) for (_, after), (now, _) in pairwise(pairs)), "steps meet"
    else:
        assert all(after < now for (_, after), (now, _) in pairwise(pairs)), "the state is ahead of the time"


@pytest.mark.parametrize(("steps", "td"), [(0, 0.0), (-3, 1.0), (4, -0.5), (4, float("nan"))])
def test_time_steps_no_steps_or_negative_td_is_an_error(steps: int, td: float):
    with pytest.raises(ValueError, match="must be"):
        list(time_steps(steps, td))


def test_ddim_step_true_mask_follows_eq_1():
    generator = torch.Generator().manual_seed(0)
    m, noise = (
        torch.sign(torch.randn(1, 4, 8, 8, generator=generator)) * 0.1,
        torch.randn(1, 4, 8, 8, generator=generator),
    )
    now, after = torch.tensor([0.2, 0.7])
    m_t = corrupt(m, noise, now[None])
    assert torch.allclose(predicted_noise(m_t, m, now), noise, atol=1e-6)
    assert torch.allclose(ddim_step(m_t, m, now, after), corrupt(m, noise, after[None]), atol=1e-6)


@pytest.mark.parametrize("small_variance", [False, True])
def test_ddpm_step_draws_the_posterior(small_variance: bool):
    """Mean and variance of q(m_s | m_t, m_0), worked out by completing the square."""
    now, after = torch.tensor([0.2, 0.7])
    m, noise = torch.full((1, 1, 400, 400), 0.5), torch.full((1, 1, 400, 400), -0.3)
    m_t = corrupt(m, noise, now[None])
    fresh = torch.randn(m.shape, generator=torch.Generator().manual_seed(0))
    state = ddpm_step(m_t, m, now, after, fresh, small_variance)
    alpha = now / after
    mean = alpha.sqrt() * (1 - after) / (1 - now) * m_t + after.sqrt() * (1 - alpha) / (1 - now) * m
    variance = (1 - alpha) * ((1 - after) / (1 - now) if small_variance else 1)
    assert state.mean().item() == pytest.approx(mean.mean().item(), abs=0.01)
    assert state.var().item() == pytest.approx(variance.item(), rel=0.02)
    assert torch.equal(
        ddpm_step(m_t, m, now, after, torch.zeros_like(m)), ddpm_step(m_t, m, now, after, 0 * fresh, True)
    )
