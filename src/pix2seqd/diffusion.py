"""The diffusion process: how masks are corrupted and how states are denoised (paper §2, §3.3, Eq. 1, Algorithm 2).

Paper's names: t in [0, 1] is time, 1 = pure noise; γ(t) falls from 1 to 0; m_t is the state at t, m_pred the
predicted analog bits m_0.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor


def gamma(t: Tensor, schedule: str = "cosine") -> Tensor:
    """γ(t) of Eq. 1.

    Args:
        t: times in [0, 1].
        schedule: "cosine" (the paper's), "cosine@start,end,tau", "sigmoid@start,end,tau", "simple_linear",
            "log@start,end,reverse": the official code's spelling.

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
    if name == "log":
        if values[2].lower() in ("t", "true"):
            start, end = end, start
        curve, low = torch.log, 0.0
    else:
        tau, low = float(values[2]), 1e-9
        if name == "cosine":
            curve = lambda x: torch.cos(x * (math.pi / 2)) ** (2 * tau)  # noqa: E731
        else:
            curve = lambda x: torch.sigmoid(x / tau)  # noqa: E731
    first, last = (curve(t.new_full((), x)) for x in (start, end))
    return ((curve(t * (end - start) + start) - last) / (first - last)).clamp(low, 1)


def check_schedule(schedule: str) -> None:
    """Refuse a schedule that `gamma` does not know, or whose γ(t) does not fall.

    Raises:
        ValueError: it is such a one.
    """
    values = gamma(torch.tensor([0.0, 0.5, 1.0], device="cpu"), schedule)
    if not values.isfinite().all() or not values[0] >= values[1] >= values[2] or values[0] == values[2]:
        raise ValueError(f"schedule {schedule!r} does not fall from t = 0 to 1")


def corrupt(m: Tensor, noise: Tensor, gamma_t: Tensor) -> Tensor:
    """Eq. 1: m_t = √γ(t) m + √(1 - γ(t)) ε.

    Args:
        m: analog bits `[b, bits, h, w]`.
        noise: ε, standard normal, same shape.
        gamma_t: γ(t), `[b]`.
    """
    gamma_t = gamma_t[:, None, None, None]
    return gamma_t.sqrt() * m + (1 - gamma_t).sqrt() * noise


def time_steps(steps: int, td: float) -> Iterator[tuple[float, float]]:
    """(t_now, t_next) of each step of Algorithm 2; td ≥ 0 is τ_d, the asymmetric time interval (§3.3, Fig. 6b).

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
    """State at t_next by DDIM (Song et al. 2021): the same ε at the next noise level."""
    noise = predicted_noise(m_t, m_pred, gamma_now)
    return gamma_next.sqrt() * m_pred + (1 - gamma_next).sqrt() * noise


def ddpm_step(
    m_t: Tensor, m_pred: Tensor, gamma_now: Tensor, gamma_next: Tensor, fresh: Tensor, small_variance: bool = False
) -> Tensor:
    """State at t_next by ancestral sampling (Ho et al. 2020).

    Args:
        m_t: state at t_now, `[b, bits, h, w]`.
        m_pred: predicted analog bits, same shape.
        gamma_now: γ(t_now), scalar tensor.
        gamma_next: γ(t_next), scalar tensor.
        fresh: standard normal noise of this step, same shape.
        small_variance: the posterior's variance instead of the forward step's.
    """
    noise = predicted_noise(m_t, m_pred, gamma_now)
    alpha = (gamma_now / gamma_next).clamp(0, 1)
    mean = (m_t - (1 - alpha) / (1 - gamma_now).sqrt() * noise) / alpha.sqrt()
    variance = 1 - alpha
    if small_variance:
        variance = variance * (1 - gamma_next) / (1 - gamma_now)
    return mean + variance.sqrt() * fresh
