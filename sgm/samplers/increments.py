"""What the schemes know of a step: its ends, the increment of B, and the forward kernel.

The noise level σ̃ = √v/m is the noise-to-signal ratio: x/m = x₀ + σ̃ z. Over a step σ̃ falls to
σ̃′ = r σ̃, and the log signal-to-noise ratio λ = −log σ̃ of the literature grows by −log r.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial

import numpy as np
import numpy.typing as npt

from sgm.processes import Process

__all__ = [
    "factor",
    "gain",
    "half_step",
    "increment",
    "kernel",
    "level_ratio",
    "log_level",
    "log_ratio",
    "phi",
    "renoised",
    "squared_decay",
    "squared_growth",
    "step_columns",
    "step_ends",
    "time_of_level",
    "towards_denoiser",
]

Array = npt.NDArray[np.float64]


def step_ends(times: npt.ArrayLike) -> tuple[Array, Array]:
    """(τ_k, τ_{k+1}) for k = 0…N−1, each of shape (N,), from a decreasing grid."""
    times = np.asarray(times, dtype=np.float64)
    if times.ndim != 1 or times.size < 2:
        raise ValueError(f"times has shape {times.shape}: must be (N + 1,) with N >= 1")
    if not (np.all(np.diff(times) < 0) and times[-1] >= 0):
        raise ValueError(f"times = {times!r}: must decrease strictly and stay >= 0")
    return times[:-1], times[1:]


def step_columns(times: npt.ArrayLike) -> tuple[Array, Array]:
    """As `step_ends`, each of shape (N, 1): coefficients of linear forms."""
    start, stop = step_ends(times)
    return start[:, None], stop[:, None]


def half_step(process: Process, start: Array, stop: Array) -> Array:
    """h = (B(τ_k) − B(τ_{k+1}))/(2σ²), shape (N,)."""
    return increment(process, start, stop) / (2 * process.variance)


def increment(process: Process, start: Array, stop: Array) -> Array:
    """B(τ_k) − B(τ_{k+1}), shape (N,)."""
    integral = process.schedule.integral
    return np.asarray(integral(start) - integral(stop))


def gain(process: Process, start: Array, stop: Array, growth: Callable[[Array], Array]) -> Array:
    """2σ² φ(h) for a φ(h) = h + O(h²), the increment of B at σ² = ∞; shape (N,)."""
    if np.isinf(process.variance):
        return increment(process, start, stop)
    return np.asarray(2 * process.variance * growth(half_step(process, start, stop)))


def kernel(process: Process, start: Array, stop: Array) -> tuple[Array, Array, Array]:
    """m(τ_{k+1}), v(τ_k) and v(τ_{k+1}), each of shape (N,)."""
    return process.mean_scale(stop), process.kernel_variance(start), process.kernel_variance(stop)


def squared_growth(half: Array) -> Array:
    """(e²ʰ − 1)/2."""
    return np.asarray(np.expm1(2 * half) / 2)


def squared_decay(half: Array) -> Array:
    """(1 − e⁻²ʰ)/2."""
    return np.asarray(-np.expm1(-2 * half) / 2)


def level_ratio(process: Process, start: Array, stop: Array) -> tuple[Array, Array]:
    """r = σ̃′/σ̃ and 1 − r; the second without cancellation, from 1 − r² = σ²(1 − e⁻²ʰ)/v."""
    lost = gain(process, start, stop, squared_decay) / process.kernel_variance(start)
    r = np.exp(-half_step(process, start, stop)) * process.std(stop) / process.std(start)
    return r, lost / (1 + r)


def log_ratio(process: Process, start: Array, stop: Array) -> Array:
    """λ′ − λ = −log r > 0; ∞ where the step ends at the data."""
    r, lost = level_ratio(process, start, stop)
    with np.errstate(divide="ignore"):
        return np.where(lost < 0.5, -np.log1p(-np.minimum(lost, 0.5)), -np.log(r))


def towards_denoiser(process: Process, start: Array, stop: Array) -> tuple[Array, Array]:
    """√(v′/v) and m′(1 − r) of the step x′ = √(v′/v) x + m′(1 − r) x̂₀ that freezes x̂₀ (DDIM)."""
    _, lost = level_ratio(process, start, stop)
    return process.std(stop) / process.std(start), process.mean_scale(stop) * lost


def renoised(process: Process, start: Array, stop: Array) -> tuple[Array, Array]:
    """m′/m and the standard deviation of the forward kernel from τ to a later τ′."""
    spread = np.sqrt(gain(process, stop, start, squared_decay))
    return np.exp(-half_step(process, stop, start)), spread


def log_level(process: Process, t: Array) -> Array:
    """log σ̃²(t); −∞ at t = 0."""
    with np.errstate(divide="ignore"):
        if np.isinf(process.variance):
            return np.asarray(np.log(process.kernel_variance(t)))
        return process.schedule.integral(t) / process.variance + np.log(process.kernel_variance(t))


def time_of_level(process: Process, level: Array) -> Array:
    """The time t with log σ̃²(t) = level, at most T."""
    if np.isinf(process.variance):
        clock = np.exp(level)
    else:  # σ̃² = σ² (e^{B/σ²} − 1)
        clock = process.variance * np.logaddexp(0.0, level - np.log(process.variance))
    total = process.schedule.integral(process.horizon)
    with np.errstate(invalid="ignore"):  # the search's interpolation, where B(T) = ∞
        return process.schedule.inverse_integral(np.minimum(clock, total))


def factor(value: Array) -> Array:
    """A factor of a linear form, in which 0 · ∞ is no number: of ∞, one whose square is ∞."""
    return np.minimum(value, 1e300)


def phi(k: int, h: Array) -> Array:
    """φ_k(h), with φ₀ = eʰ and φ_k = (φ_{k−1} − 1/(k − 1)!)/h, of exponential integrators."""
    near = abs(h) < 1
    series = [1 / factorial(j + k) for j in range(20)]
    value, away = np.exp(h), np.where(near, 1.0, h)
    for j in range(k):
        value = (value - 1 / factorial(j)) / away
    return np.where(near, np.polynomial.polynomial.polyval(np.where(near, h, 0.0), series), value)
