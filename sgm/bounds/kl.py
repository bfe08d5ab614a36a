"""The KL theorem for the modified exponential integrator, and the sharper forms of it.

Let p_t be the law of X_t, π_∞ = N(0, σ²I), s̃ = ∇log(p_t/π_∞), I_t = I(p_t | π_∞) = E|s̃|²,
mse_t = E_{p_t}|s_θ − s|², Δ_k = B(τ_k) − B(τ_{k+1}). If p̂ is the law of the output started
at π_∞,

    KL(p_{τ_N} ‖ p̂) ≤ E₁ + E₂ + E₃,
    E₁ = e^{−(B(τ₀) − B(τ_N))/σ²} KL(p_{τ_N} ‖ π_∞),
    E₂ = Σ_k Δ_k mse(τ_k),
    E₃ = 2 h β* max(h β*/(4σ²), 1) I_{τ_N},      β* = sup β, h the largest step,

for any positive β (the theorem's β(T) is the β* of an increasing schedule). Not telescoping
the last step of its proof gives the sharper

    E₃_refined = Σ_k 2Δ_k max(Δ_k/(4σ²), 1) (I_{τ_{k+1}} − I_{τ_k}),

and not bounding at all gives Girsanov's identity for the two path laws: KL ≤ KL(p_T ‖ π_∞) + G,
G = ½ Σ_k ∫_{step k} E|s̃(τ, X_τ) − s̃_θ(τ_k, X_{τ_k})|² dB. Backwards in time Y_τ = s̃(τ, X_τ)
obeys dY = β/(2σ²) Y dt + √β Z dB, so that E[Y_τ | X_{τ_k}] = r Y_{τ_k} with
r = e^{(B(τ_k) − B(τ))/(2σ²)}. With e = s_θ − s at τ_k, mse and cross = E⟨s̃, e⟩,

    G = ½ Σ_k ∫_{step k} [I_τ − 2r(I_k + cross_k) + I_k + 2 cross_k + mse_k] dB
      = ½ Σ_k [∫(r − 1)² I_k + ∫(I_τ − r² I_k) − 2 cross_k ∫(r − 1) + Δ_k mse_k].

Each bracket is ≥ 0 at cross = 0. For a Gaussian law every integral is a closed form: with
w = V − σ² and q = (V_{k+1} − V_k)/V_k, ∫(I_τ − r²I_k) dB = Σ_i (q_i − log(1 + q_i)). For any
law de Bruijn's identity dKL(p_t ‖ π_∞) = −½ I_t dB sums ∫I over the whole grid, whence

    KL(p_T ‖ π_∞) + G = KL(p_{τ_N} ‖ π_∞) + ½ Σ_k [I_k Δ_k − 2(I_k + cross_k) 2σ²(r_k − 1)
                                                 + (2 cross_k + mse_k) Δ_k].

The chain is  KL ≤ path ≤ terminal + E₂ + E₃_refined ≤ E₁ + E₂ + E₃.

In the clock B the process is an Ornstein-Uhlenbeck process with steps Δ_k, for which the bound is
of the form e^{−2T} KL + T ε² + h I (σ² = 1, β = 2, h the step). Its constants: for r ≥ 1,
E|Y_τ − Y_k|² = I_τ − (2r − 1) I_k ≤ I_{k+1} − I_k, whose sum over the grid telescopes under
Δ* = max Δ_k. The triangle inequality in L²(dB ⊗ P) separates the score's error, so that

    KL(p_{τ_N} ‖ p̂) ≤ E₁ + (√(E₂/2) + √(Δ* I_{τ_N}/2))²,

without a maximum, with Δ* ≤ h β*, and with a quarter of E₃ or less for the exact score.

Sources
-------
Strasman, Ocello, Boyer, Le Corff, Lemaire (arXiv 2402.04650), corrected: the maximum in E₃
(in their code, not on the slides), E₂ at departure times k = 0…N−1; the refined and the path
forms are derived above. Conforti, Durmus, Gentiloni Silveri (arXiv 2308.12240) for the form of
the last bound, which they have up to a constant; the constants are derived above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial

import numpy as np
import numpy.typing as npt

from sgm.bounds.objection import Objection
from sgm.densities.base import Law
from sgm.gaussian import Gaussian, kl_divergence, log_excess, relative_fisher_information
from sgm.processes import VPProcess

__all__ = [
    "KL_BOUND_PROVED_FOR",
    "ConfortiKLBound",
    "KLBound",
    "KLObjection",
    "conforti_kl_bound",
    "gaussian_kl_bound",
    "kl_bound",
    "kl_objection",
]

Array = npt.NDArray[np.float64]

KL_BOUND_PROVED_FOR = frozenset({"exponential_integrator_modified"})
"""Samplers for which the bounds of `KLBound` are theorems.

Of the others, over 15048 exact Gaussian cases each (4 targets, 3 variances, 19 schedules,
N from 1 to 1000, exact and perturbed scores): `exponential_integrator`, `euler_maruyama` and
`euler_arrival` never exceeded `total`; `exponential_integrator` exceeds `total_refined` at
N = 5 and 10. Not bounded: `ancestral_small` and `ddim` (N ≤ 5 with the exact score; up to
N = 20, respectively 1000, with a perturbed one), `ancestral` (N ≤ 2, perturbed) and
`probability_flow_euler` (N ≤ 3; any N when perturbed). A second sweep of 1800 cases with
other perturbations agrees, but for one case of `ancestral` at N = 5. `path` is the Girsanov
term of the named scheme alone: in that sweep `exponential_integrator` exceeds it up to N = 10,
`ancestral` up to N = 50, `euler_maruyama` and `euler_arrival` up to N = 200, the largest tried.
"""


class KLObjection(Objection):
    """Why a bound of KL is not a theorem for a law and a sampler; NONE if it is one."""

    NONE = 0, "none"
    LAW_UNKNOWN = 1, "the law of the data is unknown"
    SAMPLER = 2, "the theorem is about another sampler"
    INFORMATION = 3, "relative entropy and Fisher information are not known"


def kl_objection(law: Law | None, sampler: str) -> KLObjection:
    """The objection to the bounds of `KLBound`, for a sampler named as in `sgm.samplers`."""
    if law is None:
        return KLObjection.LAW_UNKNOWN
    if np.isnan(law.negentropy(0.0)):
        return KLObjection.INFORMATION
    return KLObjection.NONE if sampler in KL_BOUND_PROVED_FOR else KLObjection.SAMPLER


class BackwardSDEObjection(Objection):
    """Why the bound of the backward SDE is not a theorem about a sampler: it never is."""

    NONE = 0, "none"
    LAW_UNKNOWN = 1, "the law of the data is unknown"
    STEPS = 2, "the theorem is about the backward SDE, not about a sampler's steps"
    INFORMATION = 3, "relative entropy is not known"


def backward_sde_objection(law: Law | None) -> BackwardSDEObjection:
    """The objection to `backward_sde_kl`, for any sampler."""
    if law is None:
        return BackwardSDEObjection.LAW_UNKNOWN
    if np.isnan(law.negentropy(0.0)):
        return BackwardSDEObjection.INFORMATION
    return BackwardSDEObjection.STEPS


def backward_sde_kl(process: VPProcess, times: npt.ArrayLike, score_mse: npt.ArrayLike) -> Array:
    """What the score's error adds, in each step, to KL(π_data ‖ output) of the backward SDE.

    With the error e of its score, the SDE without steps, started from π_∞, has an output π̂ with

        KL(π_data ‖ π̂) ≤ KL(p_T ‖ π_∞) + ½ ∫ β E|e(t, X_t)|² dt    (Girsanov),

    the integral by its values at the departure times: ½ Σ_k Δ_k mse(τ_k), half of E₂.

    Parameters
    ----------
    process : VPProcess
    times : array_like, shape (N + 1,)
        Decreasing grid from T.
    score_mse : array_like, shape (..., N)
        E|e(τ_k, X_{τ_k})|².

    Returns
    -------
    ndarray, shape (..., N)
        ½ Δ_k mse(τ_k), in nats.

    Sources
    -------
    Song, Durkan, Murray, Ermon (arXiv 2101.09258), Theorem 1.
    """
    increments = -np.diff(process.schedule.integral(times))
    return np.asarray(increments * np.asarray(score_mse) / 2)


@dataclass(frozen=True, eq=False)
class KLBound:
    """The terms of the KL theorem, in nats; upper bounds of KL(p_{τ_N} ‖ output).

    Parameters
    ----------
    mixing : ndarray, shape ()
        E₁.
    score_error : ndarray, shape (...)
        E₂, one a network.
    discretization : ndarray, shape ()
        E₃, with the max factor and sup β.
    discretization_refined : ndarray, shape ()
        E₃_refined, which needs I along the grid.
    terminal : ndarray, shape ()
        KL(p_T ‖ π_∞) ≤ E₁; NaN where unknown.
    path : ndarray, shape (...)
        KL of the two path laws, KL(p_T ‖ π_∞) + G: the sharpest of the three bounds.
    """

    mixing: Array
    score_error: Array
    discretization: Array
    discretization_refined: Array
    terminal: Array
    path: Array

    @property
    def total(self) -> Array:
        """E₁ + E₂ + E₃, the theorem; shape (...)."""
        return np.asarray(self.mixing + self.score_error + self.discretization)

    @property
    def total_refined(self) -> Array:
        """E₁ + E₂ + E₃_refined; shape (...)."""
        return np.asarray(self.mixing + self.score_error + self.discretization_refined)


def kl_bound(
    process: VPProcess,
    times: npt.ArrayLike,
    *,
    kl_to_prior: float,
    fisher: Callable[[Array], npt.ArrayLike],
    terminal_kl: float,
    score_mse: npt.ArrayLike,
    score_cross: npt.ArrayLike,
) -> KLBound:
    """The bounds for a law known by its relative entropy and Fisher information.

    `path` is a difference of terms of the size of `kl_to_prior`: it keeps the absolute
    accuracy of `kl_to_prior` and `fisher`. Use `gaussian_kl_bound` for Gaussian laws.

    Parameters
    ----------
    process : VPProcess
    times : array_like, shape (N + 1,)
        Decreasing grid from T.
    kl_to_prior : float
        KL(p_{τ_N} ‖ π_∞), that of the data for a grid that ends at 0.
    fisher : callable
        t ↦ I(p_t | π_∞), vectorised; may be infinite at t = 0.
    terminal_kl : float
        KL(p_T ‖ π_∞), or NaN if unknown.
    score_mse, score_cross : array_like, shape (..., N)
        mse and cross at the departure times τ₀, …, τ_{N−1}.

    Returns
    -------
    KLBound
    """
    start, stop, increment = _increments(process, times)
    information = np.asarray(fisher(np.append(start, stop[-1])), dtype=np.float64)
    mse, cross = _errors(score_mse, score_cross, len(start))
    departure, half = information[:-1], increment / (2 * process.variance)
    growth = 2 * process.variance * np.expm1(np.minimum(half, _LARGEST_STEP))  # ∫ r dB
    drifted = (departure + cross) * growth
    if np.any(half >= _LARGEST_STEP):
        # I_k and cross underflow while r overflows: r² I_k ≤ I_{k+1} and |cross| ≤ √(I_k mse)
        # bound the term
        spread = np.where(mse == 0, 0.0, information[1:])
        worst = -2 * process.variance * np.sqrt(spread) * np.sqrt(mse)
        drifted = np.where(half < _LARGEST_STEP, drifted, worst)
    # the score at a departure time of infinite information makes the paths infinitely far
    known = np.isfinite(departure)
    drifted = np.where(known, drifted, 0.0)
    step = np.where(known, _weighted(departure + 2 * cross + mse, increment) - 2 * drifted, np.inf)
    path = kl_to_prior + np.sum(step, axis=-1) / 2
    # I increases along the grid: once it is infinite its gain is, and stays so
    gain = np.where(
        np.isinf(information[1:]), np.inf, information[1:] - np.where(known, departure, 0.0)
    )
    return _assemble(
        process, start, stop, increment, information[-1], gain, mse,
        kl_to_prior, terminal_kl, path,
    )  # fmt: skip


def gaussian_kl_bound(
    process: VPProcess,
    law: Gaussian,
    times: npt.ArrayLike,
    score_mse: npt.ArrayLike,
    score_cross: npt.ArrayLike,
) -> KLBound:
    """The bounds for X₀ ~ N(μ, Σ), from closed forms that don't cancel.

    Parameters
    ----------
    process : VPProcess
    law : Gaussian
        π_data, of batch shape ().
    times : array_like, shape (N + 1,)
        Decreasing grid from T.
    score_mse, score_cross : array_like, shape (..., N)
        mse and cross at the departure times, as `GaussianScore.error_moments` gives.

    Returns
    -------
    KLBound
        All its terms known.
    """
    start, stop, increment = _increments(process, times)
    mse, cross = _errors(score_mse, score_cross, len(start))
    variance, prior = process.variance, process.prior(law.dimension)
    marginals = process.marginal(law, np.append(start, stop[-1]))
    departing = marginals.eigenvalues[:-1]
    # with w = V − σ², q = (V_{k+1} − V_k)/V_k = w_{k+1} (1 − e⁻²ʰ)/V_k has the sign of w, so
    # that r²I_k and the innovation I_{k+1} − r²I_k = Σ q w_{k+1}/(σ²V_{k+1}) are sums of
    # positive terms; times r², nothing overflows
    half = increment / (2 * variance)
    lost = -np.expm1(-2 * half)
    scale = process.mean_scale(np.append(start, stop[-1]))
    gap = scale[:, None] ** 2 * (law.eigenvalues - variance)
    relative = gap[1:] * lost[:, None] / departing
    innovation = np.sum(relative * gap[1:] / marginals.eigenvalues[1:], axis=-1) / variance
    grown = np.sum(gap[:-1] * gap[1:] / departing + marginals.mean[1:] ** 2, axis=-1) / variance**2
    gain = lost * grown + innovation
    with np.errstate(over="ignore", invalid="ignore"):
        drifted = np.where(cross == 0, 0.0, cross * (2 * variance * _first_growth(half)))
    # past it cross underflows while its factor overflows: |cross| ≤ √(I mse) bounds the term
    worst = -2 * variance * np.sqrt(grown * mse)
    drifted = np.where(half < _LARGEST_STEP, drifted, worst)
    frozen = variance * _square_growth(half) * grown + np.sum(log_excess(relative), axis=-1)
    girsanov = np.sum(frozen - 2 * drifted + _weighted(mse, increment), axis=-1) / 2
    final = Gaussian(marginals.mean[-1], marginals.eigenvalues[-1], law.basis)
    first = Gaussian(marginals.mean[0], marginals.eigenvalues[0], law.basis)
    terminal = float(kl_divergence(first, prior))
    return _assemble(
        process, start, stop, increment,
        relative_fisher_information(final, variance), gain, mse,
        float(kl_divergence(final, prior)), terminal, terminal + girsanov,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class ConfortiKLBound:
    """The terms of the bound in the clock B, in nats; upper bounds of KL(p_{τ_N} ‖ output).

    Parameters
    ----------
    mixing : ndarray, shape ()
        E₁.
    discretization : ndarray, shape ()
        ½ Δ* I, all of the second term for the exact score.
    score_error : ndarray, shape (...)
        What the score's error adds to it, ½E₂ + √(E₂ Δ* I), one a network.
    """

    mixing: Array
    discretization: Array
    score_error: Array

    @property
    def total(self) -> Array:
        """The bound; shape (...)."""
        return np.asarray(self.mixing + self.discretization + self.score_error)


def conforti_kl_bound(
    process: VPProcess,
    times: npt.ArrayLike,
    *,
    kl_to_prior: float,
    information: float,
    score_mse: npt.ArrayLike,
) -> ConfortiKLBound:
    """The bound of Conforti, Durmus and Gentiloni Silveri in the clock B, see the module.

    Parameters
    ----------
    process : VPProcess
    times : array_like, shape (N + 1,)
        Decreasing grid from T.
    kl_to_prior, information : float
        KL(p_{τ_N} ‖ π_∞) and I(p_{τ_N} | π_∞); the bound is infinite with either.
    score_mse : array_like, shape (..., N)
        E_{p_τ}|s_θ − s|² at the departure times τ₀, …, τ_{N−1}.

    Returns
    -------
    ConfortiKLBound
    """
    _, _, increment = _increments(process, times)
    mse, _ = _errors(score_mse, score_mse, len(increment))
    score = np.sum(_weighted(mse, increment), axis=-1) / 2
    frozen = _weighted(np.asarray(information), np.max(increment) / 2)
    root = _weighted(np.sqrt(score), 2 * np.sqrt(frozen))
    return ConfortiKLBound(
        mixing=np.asarray(kl_to_prior * np.exp(-np.sum(increment) / process.variance)),
        discretization=np.asarray(frozen),
        score_error=np.asarray(score + root),
    )


def _require_stationary(process: VPProcess) -> None:
    if np.isinf(process.variance):
        raise ValueError(f"process = {process!r}: must have a stationary law")


def _increments(process: VPProcess, times: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """τ_k, τ_{k+1} and Δ_k, each of shape (N,)."""
    _require_stationary(process)
    times = np.asarray(times, dtype=np.float64)
    if times.ndim != 1 or times.size < 2:
        raise ValueError(f"times has shape {times.shape}: must be (N + 1,) with N >= 1")
    if not (np.all(np.diff(times) < 0) and times[-1] >= 0):
        raise ValueError(f"times = {times!r}: must decrease strictly and stay >= 0")
    return times[:-1], times[1:], -np.diff(process.schedule.integral(times))


def _errors(
    score_mse: npt.ArrayLike, score_cross: npt.ArrayLike, n_steps: int
) -> tuple[Array, Array]:
    mse = np.asarray(score_mse, dtype=np.float64)
    cross = np.asarray(score_cross, dtype=np.float64)
    for key, value in {"score_mse": mse, "score_cross": cross}.items():
        if value.shape[-1:] != (n_steps,):
            raise ValueError(f"{key} has shape {value.shape}: must be (..., {n_steps})")
    return mse, cross


def _assemble(
    process: VPProcess, start: Array, stop: Array, increment: Array, information: npt.ArrayLike,
    gain: Array, mse: Array, kl_to_prior: float, terminal: float, path: npt.ArrayLike,
) -> KLBound:  # fmt: skip
    """The terms, given I at the last time and its gain over each step."""
    variance = process.variance
    largest = np.max(start - stop) * process.schedule.supremum
    factor = np.maximum(increment / (4 * variance), 1.0)
    return KLBound(
        mixing=np.asarray(kl_to_prior * np.exp(-np.sum(increment) / variance)),
        score_error=np.asarray(np.sum(_weighted(mse, increment), axis=-1)),
        discretization=np.asarray(
            _weighted(np.asarray(information), 2 * largest * max(largest / (4 * variance), 1.0))
        ),
        discretization_refined=np.asarray(np.sum(_weighted(gain, 2 * increment * factor))),
        terminal=np.asarray(terminal, dtype=np.float64),
        path=np.asarray(path, dtype=np.float64),
    )


def _weighted(mse: Array, increment: Array | float) -> Array:
    """mse Δ, zero without an error whatever the step."""
    with np.errstate(invalid="ignore"):
        return np.where(mse == 0, 0.0, mse * increment)


_LARGEST_STEP = 600.0  # Δ/(2σ²), well below the 710 at which eʰ overflows

# Taylor coefficients of eʰ − 1 − h and of e²ʰ − 4eʰ + 3 + 2h
_FIRST = np.array([0.0, 0.0, *(1 / factorial(k) for k in range(2, 20))])
_SQUARE = np.array([0.0, 0.0, 0.0, *((2.0**k - 4) / factorial(k) for k in range(3, 28))])


def _first_growth(half: Array) -> Array:
    """eʰ − 1 − h = ∫(r − 1) dB/(2σ²) over a step, h = Δ/(2σ²)."""
    near = np.polynomial.polynomial.polyval(np.minimum(half, 1.0), _FIRST)
    return np.asarray(np.where(half < 1, near, np.expm1(half) - half))


def _square_growth(half: Array) -> Array:
    """e⁻²ʰ (e²ʰ − 4eʰ + 3 + 2h) = e⁻²ʰ ∫(r − 1)² dB/σ² over a step, h = Δ/(2σ²)."""
    near = np.polynomial.polynomial.polyval(np.minimum(half, 1.0), _SQUARE)
    shrink = np.exp(-half)
    # ∞ for a step from the pole of an unclipped β
    far = 1 - 4 * shrink + (3 + 2 * np.minimum(half, 1e3)) * shrink**2
    return np.asarray(np.where(half < 1, near * shrink**2, far))
