"""The diffusion process: how masks are corrupted and how states are denoised (paper §2, §3.3, Eq. 1, Algorithm 2).

Names as in the paper: t in [0, 1] is the time, 1 = pure noise; γ(t) falls from 1 to 0; m_t is the state (the noisy
analog bits) at t; m_pred are the predicted analog bits m_0.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor


def gamma(t: Tensor, schedule: str = "cosine") -> Tensor:
    """γ(t) of Eq. 1.

    Args:
        t: times in [0, 1], of any shape.
        schedule: "cosine" (the paper's), "cosine@start,end,tau", "sigmoid@start,end,tau", "simple_linear" or
            "log@start,end,reverse", spelt as in the official code.

    Returns:
        γ(t), of the same shape, 0..1.

    Raises:
        ValueError: unknown schedule.
    """
    name, _, arguments = schedule.partition("@")
    values = arguments.split(",") if arguments else []
    if name == "cosine" and not values:
        return torch.cos((t + 0.0002) / 1.00025 * (math.pi / 2)) ** 2
    if name == "simple_linear" and not values:
        return (1 - t).clamp(1e-9, 1)
    if name not in ("cosine", "sigmoid", "log") or len(values) != 3:
        raise ValueError(
            f"unknown schedule {schedule!r}; there are cosine, cosine@start,end,tau, sigmoid@start,end,tau, "
            "log@start,end,reverse and simple_linear"
        )
    start, end = float(values[0]), float(values[1])
    if name == "log" and values[2].lower() in ("t", "true"):
        start, end = end, start
    tau = 0.0 if name == "log" else float(values[2])

    def curve(x: Tensor) -> Tensor:
        if name == "log":
            return torch.log(x)
        return torch.cos(x * (math.pi / 2)) ** (2 * tau) if name == "cosine" else torch.sigmoid(x / tau)

    first, last = (curve(t.new_full((), x)) for x in (start, end))
    return ((curve(t * (end - start) + start) - last) / (first - last)).clamp(0.0 if name == "log" else 1e-9, 1)


def check_schedule(schedule: str) -> None:
    """Raise a `ValueError` unless `gamma` knows the schedule and γ(t) falls, before a model is built with it."""
    values = gamma(torch.tensor([0.0, 0.5, 1.0], device="cpu"), schedule)
    if not values.isfinite().all() or not values[0] >= values[1] >= values[2] or values[0] == values[2]:
        raise ValueError(f"schedule {schedule!r} does not fall from t = 0 to 1")


def corrupt(m: Tensor, noise: Tensor, gamma_t: Tensor) -> Tensor:
    """Eq. 1: m_t = √γ(t) m + √(1 - γ(t)) ε.

    Args:
        m: analog bits `[b, bits, h, w]`.
        noise: ε, standard normal, same shape.
        gamma_t: γ(t), `[b]`, 0..1.

    Returns:
        m_t, same shape.
    """
    gamma_t = gamma_t[:, None, None, None]
    return gamma_t.sqrt() * m + (1 - gamma_t).sqrt() * noise


def time_steps(steps: int, td: float) -> Iterator[tuple[float, float]]:
    """(t_now, t_next) of each step of Algorithm 2.

    Args:
        steps: number of steps, 1 or more.
        td: τ_d ≥ 0, the asymmetric time interval, in steps (§3.3, Figure 6b).

    Raises:
        ValueError: fewer than 1 step, or a negative td.
    """
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, not {steps}")
    if not td >= 0:
        raise ValueError(f"td must be 0 or more, not {td}")
    for step in range(steps):
        yield 1 - step / steps, max(1 - (step + 1 + td) / steps, 0.0)


def predicted_noise(m_t: Tensor, m_pred: Tensor, gamma_now: Tensor) -> Tensor:
    """The ε for which Eq. 1 gives m_t from m_pred; `gamma_now` is γ(t_now), a scalar tensor."""
    return (m_t - gamma_now.sqrt() * m_pred) / (1 - gamma_now).sqrt()


def ddim_step(m_t: Tensor, m_pred: Tensor, gamma_now: Tensor, gamma_next: Tensor) -> Tensor:
    """State at t_next by DDIM (Song et al. 2021): the same ε at the next noise level. Arguments as `ddpm_step`."""
    eps = predicted_noise(m_t, m_pred, gamma_now)
    return gamma_next.sqrt() * m_pred + (1 - gamma_next).sqrt() * eps


def ddpm_step(
    m_t: Tensor, m_pred: Tensor, gamma_now: Tensor, gamma_next: Tensor, noise: Tensor, small_variance: bool = False
) -> Tensor:
    """State at t_next by ancestral sampling (Ho et al. 2020).

    Args:
        m_t: state at t_now, `[b, bits, h, w]`.
        m_pred: predicted analog bits, same shape.
        gamma_now: γ(t_now), a scalar tensor.
        gamma_next: γ(t_next), likewise.
        noise: new standard normal noise for this step, same shape as `m_t`.
        small_variance: the variance of the posterior instead of that of the forward process (β̃ and β of Ho et al.).
    """
    eps = predicted_noise(m_t, m_pred, gamma_now)
    alpha = (gamma_now / gamma_next).clamp(0, 1)
    mean = (m_t - (1 - alpha) / (1 - gamma_now).sqrt() * eps) / alpha.sqrt()
    variance = 1 - alpha
    if small_variance:
        variance = variance * (1 - gamma_next) / (1 - gamma_now)
    return mean + variance.sqrt() * noise
