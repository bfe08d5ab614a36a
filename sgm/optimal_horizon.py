"""How long to diffuse: the horizon of the largest evidence bound, exact and from runs.

Stop the process at t. Of ELBO(t) = E log p₀ − G(t) − KL(p_t ‖ p_noise,t), with
p_noise,t = N(0, w(t) I), the first term is fixed, and

    dG/dt = ½ g²(t) e(t),     dKL/dt = −½ g²(t) I(p_t | p_noise,t),

the second because p_t and p_noise,t solve the same Fokker-Planck equation, for VP and for VE.
So whatever the schedule, diffusing pays as long as

    I(p_t | p_noise,t) = E_{p_t}|∇log(p_t/p_noise,t)|²  >  e(t) = E_{p_t}|s_θ − ∇log p_t|²,

while the prior is a worse guess at the score of p_t than s_θ. I decreases in t, since p_noise,t
is log-concave; for an error that doesn't, there is one such time.

From runs on a grid of horizons T_1 < … < T_K, R paired seeds, a confidence set keeps each T_j
that no other horizon beats: with d_jk and s_jk the mean and standard deviation over the seeds
of loss(T_j) − loss(T_k),

    d_jk ≤ t_{R−1, 1−α/(K−1)} s_jk/√R     for all k ≠ j.

The best T_j on the grid has E d_jk ≤ 0 for all k; hence, for Gaussian differences, it is lost
with probability at most α, by Bonferroni, whatever the noise shared by a seed's runs. If the
expected loss falls and then rises, the optimum off the grid lies between the neighbours of
the set.

Why not the minimum of a smoothed curve: the loss falls fast below the optimum and rises slowly
above, and a parabola through the neighbours of the minimum is off by more than its standard
error. In simulations of KL(p_T ‖ π_∞) + ½ e B(T) for a mixture, with 10 to 20 horizons and 5 or
10 seeds, nominal 95 % intervals of its vertex covered 0 to 96 % (Fieller's) and 0 to 94 %
(bootstrap); a bootstrap of the grid's minimum covered 91 to 100 %, this set 99 to 100 %. It is
the safe choice, and the wide one: two to three times the bootstrap's width if noise is large.

Sources
-------
Franzese et al. (arXiv 2206.05173), for the trade-off; the condition is derived here. The set is
a multiple comparison with the best (Hsu, Ann. Stat. 9, 1981) by paired differences.
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
    "HorizonSet",
    "OptimalHorizon",
    "horizon_set",
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
        If the error is negative or not finite somewhere.
    """
    from scipy.optimize import brentq

    if n_scan < 2:
        raise ValueError(f"n_scan = {n_scan!r}: must be >= 2")

    def excess(t: npt.ArrayLike) -> Array:
        errors = np.broadcast_to(np.asarray(error(np.asarray(t)), dtype=np.float64), np.shape(t))
        wrong = ~(np.isfinite(errors) & (errors >= 0))
        if np.any(wrong):
            raise ValueError(f"error = {float(errors[wrong][0])!r}: must be finite and >= 0")
        return errors - relative_information(process, law, t)

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
    """ELBO(start) − ELBO(stop): the gain of G, by 16 panels, and the loss of KL."""
    nodes, weights = leggauss(16)
    edges = np.linspace(start, stop, 17)
    half = np.diff(edges)[:, None] / 2
    times = (edges[:-1, None] + half * (1 + nodes)).ravel()
    rate = process.schedule.beta(times) * np.asarray(error(times), dtype=np.float64)
    gained = float((half * weights).ravel() @ np.broadcast_to(rate, times.shape)) / 2
    ends = np.array([start, stop])
    noise, scale = process.noise_variance(ends).tolist(), process.mean_scale(ends).tolist()
    moments = zip(noise, scale, process.kernel_variance(ends).tolist(), strict=True)
    before, after = (law.kl_to_normal(w, m, v) for w, m, v in moments)
    return gained + after - before


@dataclass(frozen=True, eq=False)
class HorizonSet:
    """The horizons of a grid that runs can't tell from the best.

    Parameters
    ----------
    horizons : ndarray, shape (K,)
        Increasing.
    best : float
        The horizon of the lowest mean loss.
    plausible : ndarray of bool, shape (K,)
        Which horizons no other one beats; True at `best`.
    """

    horizons: Array
    best: float
    plausible: npt.NDArray[np.bool_]

    @property
    def low(self) -> float:
        """The shortest horizon of the set."""
        return float(self.horizons[self.plausible][0])

    @property
    def high(self) -> float:
        """The longest horizon of the set."""
        return float(self.horizons[self.plausible][-1])

    @property
    def bracket(self) -> tuple[float, float]:
        """The neighbours of the set, between which the optimum off the grid lies if the
        expected loss has one minimum; 0 or ∞ beyond the grid."""
        first, last = np.flatnonzero(self.plausible)[[0, -1]]
        padded = np.concatenate([[0.0], self.horizons, [np.inf]])
        return float(padded[first]), float(padded[last + 2])


def horizon_set(
    horizons: npt.ArrayLike, losses: npt.ArrayLike, *, confidence: float = 0.95
) -> HorizonSet:
    """Confidence set of the best horizon on a grid, from runs paired by their seeds.

    Parameters
    ----------
    horizons : array_like, shape (K,)
        Increasing, K ≥ 2.
    losses : array_like, shape (R, K)
        A row a seed, R ≥ 2: what is to be small, such as a divergence or a negative ELBO.
    confidence : float
        1 − α in (0, 1).

    Returns
    -------
    HorizonSet
        It holds the horizon of the lowest expected loss with at least this probability.

    Raises
    ------
    ValueError
        If a shape or a value is out of range.
    """
    from scipy.special import stdtrit

    grid = np.asarray(horizons, dtype=np.float64)
    values = np.asarray(losses, dtype=np.float64)
    if grid.ndim != 1 or len(grid) < 2 or not (np.all(np.diff(grid) > 0) and grid[0] > 0):
        raise ValueError(f"horizons = {grid.tolist()!r}: must be two or more, positive, increasing")
    if values.ndim != 2 or len(values) < 2 or values.shape[1] != len(grid):
        raise ValueError(f"losses has shape {values.shape}: must be (R, {len(grid)}) with R >= 2")
    if not np.all(np.isfinite(values)):
        raise ValueError("losses must be finite: leave out the seeds that lost a run")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence = {confidence!r}: must lie in (0, 1)")
    runs = len(values)
    quantile = float(stdtrit(runs - 1, 1 - (1 - confidence) / (len(grid) - 1)))
    difference = values[:, :, None] - values[:, None, :]
    mean = np.mean(difference, axis=0)
    error = np.std(difference, axis=0, ddof=1) / np.sqrt(runs)
    plausible = np.all(mean <= quantile * error, axis=1)
    return HorizonSet(grid, float(grid[np.argmin(np.mean(values, axis=0))]), plausible)
