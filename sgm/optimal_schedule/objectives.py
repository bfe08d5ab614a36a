"""What a schedule is judged by, and its gradient, as functions of the levels of noise.

Levels are u_k = B(τ_k)/σ², decreasing to u_N = 0; see `sgm.optimal_schedule.schemes`. With the
recursion (ε, w) of a direction, its adjoints (ε̄, w̄) run backwards,

    ε̄_k = P_k ε̄_{k+1},    w̄_k = P_k² w̄_{k+1},
    P̄_k = ε_k ε̄_{k+1} + 2 P_k w_k w̄_{k+1},    s̄_k = Σ ε̄_{k+1},    ρ̄²_k = Σ w̄_{k+1},

and with those of the coefficients by (u_k, u_{k+1}) give the gradient: twice the work of the
value, whatever N.

The path KL is KL(p_T ‖ π_∞) + Σ_k c(u_k, u_{k+1}), with

    c(u, u′) = ½ [g I(u) + Σ (q − log(1 + q))],    q = (V(u′) − V(u))/V(u),

in terms that don't cancel, see `sgm.bounds.kl`. By de Bruijn's identity it is also
KL(p_0 ‖ π_∞) + ½ Σ_k I(u_k) [Δ_k − 4 (e^{Δ_k/2} − 1)], of which the gradient is taken.

Sources
-------
Sabour, Fidler, Kreis (arXiv 2404.14507): the path KL as an objective for time grids.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm import samplers
from sgm.arguments import require_finite, require_instance, require_positive
from sgm.bounds import KL_BOUND_PROVED_FOR
from sgm.gaussian import Gaussian, log_excess, log_ratio_gap, require_single
from sgm.optimal_schedule.programs import Moments
from sgm.optimal_schedule.schemes import SCHEMES, differentiated
from sgm.samplers import Steps

__all__ = ["OBJECTIVES", "Spectrum", "evaluate", "require_objective", "step_costs", "terminal_kl"]

Array = npt.NDArray[np.float64]

OBJECTIVES = {
    "kl": "KL(data || output)",
    "w2": "W2(data, output)",
    "path": "KL of the path laws",
    "refined": "E1 + E2 + E3 refined",
    "theorem": "E1 + E2 + E3, the theorem",
}
"""Objectives and what they are; those after `w2` are bounds for the samplers of
`sgm.bounds.KL_BOUND_PROVED_FOR` alone."""

# A step of a program relative to u_0, below which its levels have no digits left to move by.
_SHORTEST = 1e-12

SMALLEST_RATIO, LARGEST_RATIO = 1e-12, 1e12


def require_objective(objective: str, sampler: str) -> None:
    """Refuse an objective that does not exist, or does not for a sampler."""
    if objective not in OBJECTIVES:
        raise ValueError(f"objective = {objective!r}: must be one of {', '.join(OBJECTIVES)}")
    if objective not in ("kl", "w2") and sampler not in KL_BOUND_PROVED_FOR:
        raise ValueError(
            f"objective = {objective!r}: is a bound for {', '.join(sorted(KL_BOUND_PROVED_FOR))} "
            f"alone; for sampler = {sampler!r} it must be kl or w2"
        )


@dataclass(frozen=True, eq=False)
class Spectrum:
    """A Gaussian law in units of σ²: all that its exact laws depend on.

    Parameters
    ----------
    variances : ndarray, shape (r,)
        Distinct λ/σ².
    multiplicities : ndarray, shape (r,)
        How many directions have each.
    energies : ndarray, shape (r,)
        |μ|²/σ² along these directions.
    variance : float
        σ².
    """

    variances: Array
    multiplicities: Array
    energies: Array
    variance: float

    @classmethod
    def of(cls, law: Gaussian, variance: float) -> Spectrum:
        """That of a law under a process of stationary variance σ².

        Raises
        ------
        ValueError
            If `law` is no single Gaussian, `variance` not positive and finite, an eigenvalue out
            of range, or `law` is π_∞ itself.
        """
        require_instance(Gaussian, law=law)
        require_single(law=law)
        require_positive(variance=variance)
        ratios = law.eigenvalues / variance
        outside = ~((ratios >= SMALLEST_RATIO) & (ratios <= LARGEST_RATIO))
        if np.any(outside):
            raise ValueError(
                f"law: an eigenvalue is {float(law.eigenvalues[outside][0])!r}: must be positive, "
                f"from {SMALLEST_RATIO:g} to {LARGEST_RATIO:g} times variance = {variance!r}"
            )
        mean = law.rotate(law.mean)
        require_finite(mean=float(np.sum(mean**2) / variance))
        # directions that agree to rounding, such as those of an eigendecomposition, are one
        order = np.argsort(ratios)
        first = np.append(True, np.diff(ratios[order]) > 1e-12 * ratios[order][1:])
        group = np.empty(len(ratios), dtype=np.intp)
        group[order] = np.cumsum(first) - 1
        spectrum = cls(
            ratios[order][first], np.bincount(group).astype(float),
            np.bincount(group, mean**2 / variance).astype(float), float(variance),
        )  # fmt: skip
        if np.all(np.abs(spectrum.variances - 1) < 1e-9) and np.sum(spectrum.energies) < 1e-18:
            raise ValueError(
                f"law: is the stationary law N(0, {variance!r} I): no schedule is better than none"
            )
        return spectrum

    @property
    def dimension(self) -> int:
        """d."""
        return int(np.sum(self.multiplicities))

    def noised(self, levels: Array) -> tuple[Array, Array]:
        """m of shape (...), and V of shape (..., r), at levels u."""
        scale = np.exp(-levels / 2)
        return scale, scale[..., None] ** 2 * self.variances - np.expm1(-levels)[..., None]

    def information(self, levels: Array) -> tuple[Array, Array]:
        """I(p_u | π_∞) in units of 1/σ², and dI/du, shape of `levels`."""
        scale, noised = self.noised(levels)
        gap = scale[..., None] ** 2 * (self.variances - 1)
        energy = scale**2 * np.sum(self.energies)
        value = (gap**2 / noised) @ self.multiplicities + energy
        slope = -(gap**2 * (noised + 1) / noised**2) @ self.multiplicities - energy
        return value, slope

    @cached_property
    def entropy(self) -> float:
        """KL(π_data ‖ π_∞)."""
        return float(terminal_kl(self, np.zeros(())))


def terminal_kl(spectrum: Spectrum, level: Array) -> Array:
    """KL(p_u ‖ π_∞), shape of `level`."""
    scale = np.exp(-level / 2)
    gap = scale[..., None] ** 2 * (spectrum.variances - 1)
    energy = scale**2 * np.sum(spectrum.energies)
    return np.asarray((log_excess(gap) @ spectrum.multiplicities + energy) / 2)


def _growth(spectrum: Spectrum, start: Array, stop: Array) -> tuple[Array, Array, Array]:
    """r² I(u), I(u′) − I(u) and q: sums of positive terms, as in `sgm.bounds.kl`."""
    (m, v), (m_next, v_next) = spectrum.noised(start), spectrum.noised(stop)
    lost = -np.expm1(-(start - stop))
    departing, arriving = (
        scale[..., None] ** 2 * (spectrum.variances - 1) for scale in (m, m_next)
    )
    relative = arriving * lost[..., None] / v
    innovation = (relative * arriving / v_next) @ spectrum.multiplicities
    grown = (departing * arriving / v) @ spectrum.multiplicities
    grown = grown + m_next**2 * np.sum(spectrum.energies)
    return grown, lost * grown + innovation, relative


def step_costs(spectrum: Spectrum, start: Array, stop: Array) -> Array:
    """c(u, u′) of the path KL for steps from levels u to u′ < u; shapes broadcast."""
    start, stop = np.broadcast_arrays(start, stop)
    grown, _, relative = _growth(spectrum, start, stop)
    frozen = _frozen((start - stop) / 2) * grown
    return np.asarray((frozen + log_excess(relative) @ spectrum.multiplicities) / 2)


def _frozen(half: Array) -> Array:
    """e⁻²ʰ ∫(r − 1)² dB = 1 − 4e⁻ʰ + (3 + 2h)e⁻²ʰ; by its series where that cancels."""
    near = np.polynomial.polynomial.polyval(np.minimum(half, 0.5), _SERIES)
    shrink = np.exp(-half)
    return np.asarray(
        np.where(half < 0.5, near * shrink**2, 1 - 4 * shrink + (3 + 2 * half) * shrink**2)
    )


# of e²ʰ − 4eʰ + 3 + 2h
_SERIES = np.concatenate(
    [np.zeros(3), (2.0 ** np.arange(3, 24) - 4) / np.cumprod(np.arange(1.0, 24))[2:]]
)


def evaluate(
    objective: str,
    spectrum: Spectrum,
    levels: Array,
    sampler: str,
    growth: Array | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> tuple[float, Array]:
    """An objective and its gradient by the levels.

    Parameters
    ----------
    objective : str
        One of `OBJECTIVES` that exists for the sampler: `require_objective`.
    spectrum : Spectrum
    levels : ndarray, shape (N + 1,)
        u_0 > … > u_N = 0.
    sampler : str
        One of `SCHEMES` or `PROGRAMS`.
    growth : ndarray, shape (N,), optional
        g_k of the samplers of `BY_RATE`; by default β is constant on each step.
    parameters : mapping, optional
        Of the sampler; with them a sampler of `SCHEMES`, too, is evaluated as those of `PROGRAMS`.

    Returns
    -------
    value : float
        +∞ where the chain leaves the range of float64.
    gradient : ndarray, shape (N,) or (2N,)
        By u_0, …, u_{N−1}, then by the growth if it is given. Of `theorem`, whose maxima have
        kinks, a subgradient.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        match objective:
            case "path":
                value, gradient = _path(spectrum, levels)
            case "refined":
                value, gradient = _refined(spectrum, levels)
            case "theorem":
                value, gradient = _theorem(spectrum, levels)
            case _ if sampler in SCHEMES and not parameters:
                value, gradient = _exact(objective, spectrum, levels, sampler, growth)
            case _:
                scheme = partial(getattr(samplers, sampler), **(parameters or {}))
                value, gradient = _of_program(objective, spectrum, levels, scheme)
    if not np.isfinite(value):
        return np.inf, np.full_like(gradient, np.nan)
    return value, gradient


def _exact(
    objective: str, spectrum: Spectrum, levels: Array, sampler: str, growth: Array | None
) -> tuple[float, Array]:
    start, stop = levels[:-1], levels[1:]
    value, by_start, by_stop, by_growth = differentiated(
        SCHEMES[sampler], start, stop, -np.diff(levels) if growth is None else growth
    )
    scale, noised = spectrum.noised(start)
    slope = scale[:, None] * spectrum.variances / noised  # mλ/V, and its derivative by u
    bend = slope * ((noised - 1) / noised - 0.5)
    factor = value.kept[:, None] + value.denoiser[:, None] * slope

    shifts = np.empty((len(levels), len(spectrum.variances)))
    variances = np.empty_like(shifts)
    shifts[0], variances[0] = -scale[0], 1.0
    for k, (p, rho, s) in enumerate(zip(factor, value.noise, value.shift, strict=True)):
        shifts[k + 1] = p * shifts[k] + s
        variances[k + 1] = p**2 * variances[k] + rho

    result, shift_bar, variance_bar = _divergence(objective, spectrum, shifts[-1], variances[-1])
    factor_bar = np.empty_like(factor)
    shift_sum, variance_sum = np.empty(len(start)), np.empty(len(start))
    for k in range(len(start) - 1, -1, -1):
        factor_bar[k] = shifts[k] * shift_bar + 2 * factor[k] * variances[k] * variance_bar
        shift_sum[k], variance_sum[k] = shift_bar.sum(), variance_bar.sum()
        shift_bar, variance_bar = factor[k] * shift_bar, factor[k] ** 2 * variance_bar

    kept_bar, denoiser_bar = factor_bar.sum(axis=1), (factor_bar * slope).sum(axis=1)
    bars = kept_bar, denoiser_bar, variance_sum, shift_sum
    departing, arriving, growing = (
        np.sum([bar * part for bar, part in zip(bars, parts, strict=True)], axis=0)
        for parts in (by_start, by_stop, by_growth)
    )
    gradient = departing + value.denoiser * (factor_bar * bend).sum(axis=1)
    gradient[1:] += arriving[:-1]
    gradient[0] += np.sum(shift_bar) * scale[0] / 2  # ε_0 = −m(u_0)
    if growth is not None:
        return result, np.append(gradient, growing)
    gradient += growing
    gradient[1:] -= growing[:-1]
    return result, gradient


def _of_program(
    objective: str, spectrum: Spectrum, levels: Array, scheme: Callable[..., Steps]
) -> tuple[float, Array]:
    if not np.all(-np.diff(levels) > _SHORTEST * levels[0]):  # a place of a line search
        return np.inf, np.full(len(levels) - 1, np.nan)
    output = Moments(scheme, spectrum.variances, spectrum.variance, levels)
    value, *bars = _divergence(objective, spectrum, output.shift, output.variance)
    if not np.isfinite(value):
        return np.inf, np.full(len(levels) - 1, np.nan)
    return value, output.gradient(*bars)


def _divergence(
    objective: str, spectrum: Spectrum, shift: Array, variance: Array
) -> tuple[float, Array, Array]:
    """The divergence, and its derivatives by ε and by w of the output."""
    n, energy, ratio = spectrum.multiplicities, spectrum.energies, spectrum.variances / variance
    squared = energy * shift**2
    if objective == "kl":
        gap = log_ratio_gap(spectrum.variances, variance)
        value = np.sum(n * gap + squared / variance) / 2
        by_variance = (n * (1 - ratio) - squared / variance) / (2 * variance)
        return float(value), energy * shift / variance, by_variance
    root = np.sqrt(spectrum.variances) - np.sqrt(variance)
    distance = np.sqrt(np.sum(squared + n * root**2))
    unit = np.sqrt(spectrum.variance)
    by_variance = n * (1 - np.sqrt(ratio)) / (2 * distance)
    return float(unit * distance), unit * energy * shift / distance, unit * by_variance


def _path(spectrum: Spectrum, levels: Array) -> tuple[float, Array]:
    start, increment = levels[:-1], -np.diff(levels)
    value = terminal_kl(spectrum, levels[0]) + np.sum(step_costs(spectrum, start, levels[1:]))
    information, slope = spectrum.information(start)
    weight = increment - 4 * np.expm1(increment / 2)
    by_increment = information * (1 - 2 * np.exp(increment / 2))
    gradient = slope * weight + by_increment
    gradient[1:] -= by_increment[:-1]
    return float(value), gradient / 2


def _refined(spectrum: Spectrum, levels: Array) -> tuple[float, Array]:
    start, stop, increment = levels[:-1], levels[1:], -np.diff(levels)
    mixing = spectrum.entropy * np.exp(-levels[0])
    _, gain, _ = _growth(spectrum, start, stop)
    weight = 2 * increment * np.maximum(increment / 4, 1.0)
    by_increment = np.where(increment > 4, increment, 2.0) * gain
    _, slope = spectrum.information(start)
    gradient = by_increment - weight * slope
    gradient[1:] += weight[:-1] * slope[1:] - by_increment[:-1]
    gradient[0] -= mixing
    return float(mixing + np.sum(weight * gain)), gradient


def _theorem(spectrum: Spectrum, levels: Array) -> tuple[float, Array]:
    """β is constant on each step of a uniform grid: h sup β is the largest increment."""
    increment = -np.diff(levels)
    k = int(np.argmax(increment))
    largest = increment[k]
    mixing = spectrum.entropy * np.exp(-levels[0])
    information = 2 * float(spectrum.information(np.zeros(()))[0])
    gradient = np.zeros(len(increment))
    gradient[0] -= mixing
    slope = information * max(largest / 2, 1.0) if largest > 4 else information
    gradient[k] += slope
    if k + 1 < len(increment):
        gradient[k + 1] -= slope
    return float(mixing + information * largest * max(largest / 4, 1.0)), gradient
