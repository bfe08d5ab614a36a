"""How long to diffuse: the horizon of the largest evidence bound.

Stop the process at t. Of ELBO(t) = E log p₀ − G(t) − KL(p_t ‖ p_noise,t), with
p_noise,t = N(0, w(t) I), the first term is fixed, and

    dG/dt = ½ g²(t) e(t),     dKL/dt = −½ g²(t) I(p_t | p_noise,t),

the second because p_t and p_noise,t solve the same Fokker-Planck equation, for VP and for VE.
So whatever the schedule, diffusing pays as long as

    I(p_t | p_noise,t) = E_{p_t}|∇log(p_t/p_noise,t)|²  >  e(t) = E_{p_t}|s_θ − ∇log p_t|²,

while the prior is a worse guess at the score of p_t than s_θ. I decreases in t, since p_noise,t
is log-concave; for an error that doesn't, there is one such time.

Sources
-------
Franzese et al. (arXiv 2206.05173), for the trade-off; the condition is derived here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.polynomial.legendre import leggauss

from sgm.densities.base import Law
from sgm.processes import Process

__all__ = [
    "OptimalHorizon",
    "optimal_horizon",
    "relative_information",
]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class OptimalHorizon:
    """The time at which to stop a process.

    Parameters
    ----------
    horizon : float
        In (0, T].
    interior : bool
        Whether e = I there; if not, the ELBO is largest at an end of the times considered.
    """

    horizon: float
    interior: bool


def relative_information(process: Process, law: Law, t: npt.ArrayLike) -> Array:
    """I(p_t | p_noise,t) = E_{p_t}|∇log(p_t/p_noise,t)|², in 1/x².

    Parameters
    ----------
    process : Process
    law : Law
        π_data.
    t : array_like, shape (...)
        Positive for VE, whose p_noise,0 is a point.

    Returns
    -------
    ndarray, shape (...)
    """
    t = np.asarray(t, dtype=np.float64)
    coefficients = (process.noise_variance(t), process.mean_scale(t), process.kernel_variance(t))
    moments = (np.ravel(array).tolist() for array in coefficients)
    values = [
        float(law.relative_fisher_information(w, m, v)) for w, m, v in zip(*moments, strict=True)
    ]
    return np.reshape(values, t.shape)


def optimal_horizon(
    process: Process, law: Law, error: Callable[[Array], npt.ArrayLike], *, n_scan: int = 256
) -> OptimalHorizon:
    """The time t ≤ T at which stopping gives the largest ELBO.

    Local maxima, where e − I turns positive, are bracketed on a geometric grid of times from
    10⁻⁶ T to T and found to rounding; of several the best is chosen by the ELBO itself.

    Parameters
    ----------
    process : Process
        With the longest horizon T that is considered.
    law : Law
        π_data.
    error : callable
        t ↦ e(t) = E_{p_t}|s_θ − ∇log p_t|², vectorised, such as the first of a score's
        `error_moments`.
    n_scan : int
        Number of times on the grid, at least 2.

    Returns
    -------
    OptimalHorizon
        At 10⁻⁶ T if the score is worse than the prior's from the start.

    Raises
    ------
    ValueError
        If the error is negative or not finite somewhere, or the law does not know its
        information.
    """
    from scipy.optimize import brentq

    if n_scan < 2:
        raise ValueError(f"n_scan = {n_scan!r}: must be >= 2")

    def excess(t: npt.ArrayLike) -> Array:
        errors = np.broadcast_to(np.asarray(error(np.asarray(t)), dtype=np.float64), np.shape(t))
        wrong = ~(np.isfinite(errors) & (errors >= 0))
        if np.any(wrong):
            raise ValueError(f"error = {float(errors[wrong][0])!r}: must be finite and >= 0")
        information = relative_information(process, law, t)
        if not np.all(np.isfinite(information)):
            raise ValueError(f"law = {type(law).__name__}: must know its Fisher information")
        return errors - information

    grid = process.horizon * np.geomspace(1e-6, 1, n_scan)
    positive = excess(grid) > 0
    turns = np.flatnonzero(positive[1:] & ~positive[:-1])
    maxima = [
        brentq(
            lambda t: float(excess(t)), grid[k], grid[k + 1],
            xtol=1e-300, rtol=4 * np.finfo(float).eps,
        )
        for k in turns
    ]  # fmt: skip
    stops = [(float(grid[0]), False)] if positive[0] else []
    stops += [(float(root), True) for root in maxima]
    stops += [] if positive[-1] else [(process.horizon, False)]
    best, *others = stops
    for other in others:
        if _loss_between(process, law, error, best[0], other[0]) < 0:
            best = other
    return OptimalHorizon(*best)


def _loss_between(
    process: Process, law: Law, error: Callable[[Array], npt.ArrayLike], start: float, stop: float
) -> float:
    """ELBO(start) − ELBO(stop): the gain of G, by 16 panels, and the loss of KL.

    The panels are geometric: errors of a score fall like 1/t where the data are narrow.
    """
    nodes, weights = leggauss(16)
    edges = np.geomspace(start, stop, 17)
    half = np.diff(edges)[:, None] / 2
    times = (edges[:-1, None] + half * (1 + nodes)).ravel()
    rate = process.schedule.beta(times) * np.asarray(error(times), dtype=np.float64)
    gained = float((half * weights).ravel() @ np.broadcast_to(rate, times.shape)) / 2
    ends = np.array([start, stop])
    noise, scale = process.noise_variance(ends).tolist(), process.mean_scale(ends).tolist()
    moments = zip(noise, scale, process.kernel_variance(ends).tolist(), strict=True)
    before, after = (law.kl_to_normal(w, m, v) for w, m, v in moments)
    return gained + after - before
