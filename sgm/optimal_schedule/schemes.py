"""Samplers in levels of noise: what one step does to a Gaussian, and its derivative.

In units of σ² a level is u = B(τ)/σ², with m = e^{−u/2} and v = 1 − e^{−u}. With the exact score
of N(μ, diag λ) the centred state of a direction, ε μ for the mean and w for the variance, goes
from a level u to the next one u′ < u by

    ε′ = P ε + s,    w′ = P² w + ρ²,    P = a + c m λ/V,    V = m² λ + v,

where a, c, ρ² and s depend on (u, u′) alone: a is the factor of the state beside the denoiser, c
that of the denoiser, and s = (α m − m′) what the scheme does to the mean of p_τ. So the law of
the output depends on B at the grid points only. Of the Euler schemes, which ask for β, β is
constant on each step: β(τ_k)(τ_k − τ_{k+1}) is the increment of B.

The coefficients are those of `sgm.samplers`, written in levels and for complex ones, so that
their derivatives are exact: f(u + iδ) = f(u) + iδ f′(u) without a difference of near numbers.

Sources
-------
`sgm.samplers` for the schemes; Squire & Trapp (SIAM Review 40, 1998), the complex step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["SCHEMES", "Coefficients", "differentiated"]

Array = npt.NDArray[np.float64]
Levels = npt.NDArray[Any]


class Coefficients(NamedTuple):
    """a, c, ρ² and s of each step, of shape (N,)."""

    kept: Levels
    denoiser: Levels
    noise: Levels
    shift: Levels


Scheme = Callable[[Levels, Levels], Coefficients]


class _Step(NamedTuple):
    """h = (u − u′)/2, m and v at the departure, m′ and v′ at the arrival."""

    half: Levels
    scale: Levels
    variance: Levels
    next_scale: Levels
    next_variance: Levels


def _step(start: Levels, stop: Levels) -> _Step:
    return _Step(
        (start - stop) / 2, np.exp(-start / 2), -np.expm1(-start), np.exp(-stop / 2),
        -np.expm1(-stop),
    )  # fmt: skip


def _modified(start: Levels, stop: Levels) -> Coefficients:
    h, m, v, m_next, v_next = _step(start, stop)
    lost = -np.expm1(-h)
    kept = np.exp(-h) * (v_next + (m_next * lost) ** 2) / v
    return Coefficients(kept, 2 * lost * m / v, -np.expm1(-2 * h), -m_next * lost**2)


def _exponential(start: Levels, stop: Levels) -> Coefficients:
    h, m, v, *_ = _step(start, stop)
    gain = 2 * np.expm1(h)
    return Coefficients(np.exp(h) - gain / v, gain * m / v, np.expm1(2 * h), 0 * h)


def _euler(start: Levels, stop: Levels) -> Coefficients:
    h, m, v, m_next, _ = _step(start, stop)
    return Coefficients(1 + h - 2 * h / v, 2 * h * m / v, 2 * h, m * (1 + h) - m_next)


def _flow(start: Levels, stop: Levels) -> Coefficients:
    h, m, v, m_next, _ = _step(start, stop)
    return Coefficients(1 - h * m**2 / v, h * m / v, 0 * h, m * (1 + h) - m_next)


def _ancestral(start: Levels, stop: Levels) -> Coefficients:
    h, _, v, m_next, v_next = _step(start, stop)
    forgotten = -np.expm1(-2 * h)
    return Coefficients(np.exp(-h) * v_next / v, forgotten * m_next / v, forgotten, 0 * h)


def _ancestral_small(start: Levels, stop: Levels) -> Coefficients:
    large = _ancestral(start, stop)
    return large._replace(noise=large.noise * np.expm1(-stop) / np.expm1(-start))


def _ddim(start: Levels, stop: Levels) -> Coefficients:
    h, _, v, m_next, v_next = _step(start, stop)
    kept = np.sqrt(v_next / v)
    denoiser = -m_next * np.expm1(-2 * h) / (v * (1 + np.exp(-h) * kept))
    return Coefficients(kept, denoiser, 0 * h, 0 * h)


SCHEMES: dict[str, Scheme] = {
    "exponential_integrator_modified": _modified,
    "exponential_integrator": _exponential,
    "euler_maruyama": _euler,
    "probability_flow_euler": _flow,
    "ancestral": _ancestral,
    "ancestral_small": _ancestral_small,
    "ddim": _ddim,
}
"""Samplers of `sgm.samplers` that are one affine stage a step at its departure; `ddim` of η = 0."""

_DELTA = 1e-30  # f is real to δ², below any rounding error


def differentiated(
    scheme: Scheme, start: Array, stop: Array
) -> tuple[Coefficients, Coefficients, Coefficients]:
    """The coefficients of a scheme, and their derivatives by u and by u′.

    Parameters
    ----------
    scheme : callable
        One of `SCHEMES`.
    start, stop : ndarray, shape (N,)
        u > u′ ≥ 0. At u′ = 0 the derivative by u′ may be infinite or arbitrary: data are level 0.

    Returns
    -------
    value, by_start, by_stop : Coefficients
    """
    by_start = scheme(start + _DELTA * 1j, stop + 0j)
    by_stop = scheme(start + 0j, stop + _DELTA * 1j)
    return (
        scheme(start, stop),
        Coefficients(*(part.imag / _DELTA for part in by_start)),
        Coefficients(*(part.imag / _DELTA for part in by_stop)),
    )
