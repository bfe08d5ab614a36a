"""What the schemes know of a step: its ends, the increment of B, and the forward kernel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from sgm.processes import Process

__all__ = [
    "gain",
    "half_step",
    "increment",
    "kernel",
    "squared_decay",
    "squared_growth",
    "step_ends",
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
