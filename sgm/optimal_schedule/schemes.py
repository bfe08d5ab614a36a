"""Samplers in levels of noise: what one step does to a Gaussian, and its derivative.

In units of σ² a level is u = B(τ)/σ², with m = e^{−u/2} and v = 1 − e^{−u}. With the exact score
of N(μ, diag λ) the centred state of a direction, ε μ for the mean and w for the variance, goes
from a level u to the next one u′ < u by

    ε′ = P ε + s,    w′ = P² w + ρ²,    P = a + c m λ/V,    V = m² λ + v,

where a is the factor of the state beside the denoiser, c that of the denoiser, and s = α m − m′
what the scheme does to the mean of p_τ. Of most schemes a, c, ρ² and s depend on (u, u′) alone:
the law of the output depends on B at the grid points only. The Euler schemes of `BY_RATE` ask for
β besides: they depend on (u, u′, g) with the growth g = β(τ)(τ − τ′)/σ², which is u − u′ where β is
constant on the step, and any positive number otherwise.

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

__all__ = ["BY_RATE", "SCHEMES", "Coefficients", "differentiated"]

Array = npt.NDArray[np.float64]
Levels = npt.NDArray[Any]


class Coefficients(NamedTuple):
    """a, c, ρ² and s of each step, of shape (N,)."""

    kept: Levels
    denoiser: Levels
    noise: Levels
    shift: Levels


Scheme = Callable[[Levels, Levels, Levels], Coefficients]


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


def _modified(start: Levels, stop: Levels, _: Levels) -> Coefficients:
    h, m, v, m_next, v_next = _step(start, stop)
    lost = -np.expm1(-h)
    kept = np.exp(-h) * (v_next + (m_next * lost) ** 2) / v
    return Coefficients(kept, 2 * lost * m / v, -np.expm1(-2 * h), -m_next * lost**2)


def _exponential(start: Levels, stop: Levels, _: Levels) -> Coefficients:
    h, m, v, *_rest = _step(start, stop)
    gain = 2 * np.expm1(h)
    return Coefficients(np.exp(h) - gain / v, gain * m / v, np.expm1(2 * h), 0 * h)


def _euler(start: Levels, stop: Levels, growth: Levels) -> Coefficients:
    _, m, v, m_next, _ = _step(start, stop)
    kept, shift = 1 + growth / 2 - growth / v, m * (1 + growth / 2) - m_next
    return Coefficients(kept, growth * m / v, growth, shift)


def _flow(start: Levels, stop: Levels, growth: Levels) -> Coefficients:
    _, m, v, m_next, _ = _step(start, stop)
    kept, shift = 1 - growth / 2 * m**2 / v, m * (1 + growth / 2) - m_next
    return Coefficients(kept, growth / 2 * m / v, 0 * growth, shift)


def _ancestral(start: Levels, stop: Levels, _: Levels) -> Coefficients:
    h, _m, v, m_next, v_next = _step(start, stop)
    forgotten = -np.expm1(-2 * h)
    return Coefficients(np.exp(-h) * v_next / v, forgotten * m_next / v, forgotten, 0 * h)


def _ancestral_small(start: Levels, stop: Levels, _: Levels) -> Coefficients:
    large = _ancestral(start, stop, _)
    return large._replace(noise=large.noise * np.expm1(-stop) / np.expm1(-start))


def _ddim(start: Levels, stop: Levels, _: Levels) -> Coefficients:
    h, _m, v, m_next, v_next = _step(start, stop)
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

BY_RATE = ("euler_maruyama", "probability_flow_euler")
"""Those that depend on β at the grid points besides B."""

_DELTA = 1e-30  # f is real to δ², below any rounding error


def differentiated(
    scheme: Scheme, start: Array, stop: Array, growth: Array
) -> tuple[Coefficients, Coefficients, Coefficients, Coefficients]:
    """The coefficients of a scheme, and their derivatives by u, by u′ and by g.

    Parameters
    ----------
    scheme : callable
        One of `SCHEMES`.
    start, stop, growth : ndarray, shape (N,)
        u > u′ ≥ 0 and g > 0. At u′ = 0 the derivative by u′ may be infinite or arbitrary: data
        are level 0.

    Returns
    -------
    value, by_start, by_stop, by_growth : Coefficients
    """
    place = np.array([start, stop, growth])
    moved = (scheme(*(place + _DELTA * 1j * unit[:, None])) for unit in np.eye(3))
    by_start, by_stop, by_growth = (
        Coefficients(*(part.imag / _DELTA for part in parts)) for parts in moved
    )
    return scheme(start, stop, growth), by_start, by_stop, by_growth
