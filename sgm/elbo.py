"""What a finite diffusion time costs in likelihood: the evidence bound and its terms.

X_t = m X₀ + √v Z in ℝᵈ has law p_t, drift f(t) x, diffusion g = √β and J_t = E|∇log p_t|²;
p_noise = N(0, w(T) I) starts the backward simulation; s_θ is any score, mse = E_{p_t}|s_θ −
∇log p_t|². For the law q of the backward SDE's output, Girsanov's theorem and the data
processing inequality give

    E log q(X₀) ≥ ELBO = E log p₀(X₀) − G − KL(p_T ‖ p_noise),     G = ½ ∫₀ᵀ mse dB.

The loss of denoising, dsm = E|s_θ(t, X_t) + Z/√v|² = mse + d/v − J, knows the same number
without knowing p_t, but at a time ε > 0 alone. De Bruijn's identity between ε and T reads

    E log p_ε(X_ε) = E log p_T(X_T) + R_ε − K_ε,
    R_ε = ½ ∫_ε^T (g² d/v + 2 d f) dt = (d/2) log(v(T)/v(ε)),     K_ε = ½ ∫_ε^T (d/v − J) dB,

where d log(v/m²) = g²/v dt and d log m = f dt sum R_ε; hence the ELBO of X_ε is

    E log p_noise(X_T) + R_ε − ½ ∫_ε^T dsm dB.

R_ε and K_ε grow without bound as ε → 0, by (d/2) log 10 a decade of v; R_ε − K_ε tends to
½ ∫₀ᵀ (g² J + 2 d f) dt = E log p₀ − E log p_T.

The exact score has G = 0, and yet does not attain the bound. Its backward SDE draws X_T from
p_noise and X₀ from the true posterior, so that

    q(x₀) = p₀(x₀) r(x₀),     r(x₀) = ∫ N(y; m x₀, v) p_noise(y)/p_T(y) dy     (m, v at T),

and KL(p₀ ‖ q) = −E log r(X₀) < KL(p_T ‖ p_noise) unless p_T = p_noise (Jensen). The probability
flow is a bijection, and attains it.

Sources
-------
Franzese et al. (arXiv 2206.05173): the decomposition and Proposition 1, corrected: R and K are
infinite separately, and the exact score gives equality for the probability flow, not for the
SDE. The closed form of R_ε, q and the quadrature are derived here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from numpy.polynomial.legendre import leggauss

from sgm.densities.base import Law
from sgm.processes import Process

__all__ = [
    "EvidenceBound",
    "Start",
    "TimeQuadrature",
    "denoising_elbo",
    "denoising_terms",
    "evidence_bound",
    "line_panels",
    "mean_log_density",
    "mean_over_rows",
    "reverse_sde_kl",
    "time_quadrature",
]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TimeQuadrature:
    """Nodes and weights with Σ weights · φ(times) ≈ ∫ φ dB over [cutoff, T].

    Parameters
    ----------
    cutoff : float
        ε.
    times, weights : ndarray, shape (n,)
    """

    cutoff: float
    times: Array
    weights: Array

    def integrate(self, values: npt.ArrayLike) -> Array:
        """∫ φ dB from φ at the nodes, shape (..., n); shape (...)."""
        values = np.asarray(values, dtype=np.float64)
        if values.shape[-1:] != self.times.shape:
            raise ValueError(f"values has shape {values.shape}: must be (..., {len(self.times)})")
        # row by row: a BLAS adds up in an order that depends on how many rows there are
        return np.asarray(np.sum(values * self.weights, axis=-1))


def time_quadrature(
    process: Process, n_nodes: int, *, smallest_variance: float, cutoff: float = 0.0
) -> TimeQuadrature:
    """Gauss-Legendre quadrature in the logarithm of the noise level.

    p_t is, up to a factor m, the data at noise γ = v/m². In u = log(γ + c), with c the
    smallest variance in the data, errors and informations are smooth up to γ = 0, whatever
    the schedule and its kinks; dB = m² (γ + c) du.

    Parameters
    ----------
    process : Process
    n_nodes : int
    smallest_variance : float
        c ≥ 0: of a mixture, its narrowest component's. 0 suits losses that grow like 1/v,
        and needs a cutoff.
    cutoff : float
        ε in [0, T).

    Returns
    -------
    TimeQuadrature
        Its times increase.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the nodes are too few for ∫ dB, which is known.
    """
    if n_nodes < 1:
        raise ValueError(f"n_nodes = {n_nodes!r}: must be >= 1")
    if not 0 <= cutoff < process.horizon:
        raise ValueError(f"cutoff = {cutoff!r}: must lie in [0, {process.horizon!r})")
    if not 0 <= smallest_variance < np.inf or smallest_variance == cutoff == 0:
        raise ValueError(
            f"smallest_variance = {smallest_variance!r}: must be a finite number >= 0, "
            "and > 0 without a cutoff"
        )
    ends = np.array([cutoff, process.horizon])
    noise = process.kernel_variance(ends) / process.mean_scale(ends) ** 2
    low, high = np.log(noise + smallest_variance)
    nodes, weights = leggauss(n_nodes)
    level = np.exp(low + (high - low) / 2 * (1 + nodes))
    # c + γ − c cancels next to γ = 0
    gamma = np.maximum(level - smallest_variance, noise[0])
    sigma2 = process.variance
    integral = gamma if np.isinf(sigma2) else sigma2 * np.log1p(gamma / sigma2)
    times = process.schedule.inverse_integral(integral)
    shrink = process.mean_scale(times) ** 2
    quadrature = TimeQuadrature(cutoff, times, (high - low) / 2 * weights * level * shrink)
    error = float(np.sum(quadrature.weights) / np.diff(process.schedule.integral(ends))[0] - 1)
    if abs(error) > 1e-3:
        raise ValueError(
            f"n_nodes = {n_nodes!r}: must be larger: over {(high - low) / np.log(10):.1f} decades "
            f"of noise, B(T) − B(cutoff) itself has a relative error of {error:.1e}"
        )
    return quadrature


@dataclass(frozen=True, eq=False)
class EvidenceBound:
    """The terms of the evidence bound of a known law, in nats.

    Parameters
    ----------
    data_log_density : float
        E log p_ε(X_ε): the log-likelihood of a perfect model. ε = 0, the data, without cutoff.
    terminal_log_density : float
        E log p_T(X_T).
    terminal_kl : float
        KL(p_T ‖ p_noise).
    score_gap : ndarray, shape (...)
        G from ε on, one a network.
    """

    data_log_density: float
    terminal_log_density: float
    terminal_kl: float
    score_gap: Array

    @property
    def elbo(self) -> Array:
        """E log p_ε − G − KL(p_T ‖ p_noise), at most the model's log-likelihood; shape (...)."""
        return np.asarray(self.data_log_density - self.score_gap - self.terminal_kl)

    @property
    def finite_difference(self) -> float:
        """lim (R − K) = ½ ∫ (g² J + 2 d f) dt from ε on."""
        return self.data_log_density - self.terminal_log_density


def mean_log_density(law: Law, scale: float = 1.0, variance: float = 0.0) -> float:
    """E log p(Y) of the noised law Y = m X + √v Z, minus its entropy, in nats.

    N(v/m²) − ½ Σ log(2πe (m² λ_i + v)): the negentropy, above a Gaussian's.

    Parameters
    ----------
    law : Law
    scale, variance : float
        m > 0 and v ≥ 0.

    Returns
    -------
    float
        NaN if the law does not know its entropy.
    """
    spread = scale**2 * law.principal_variances + variance
    gaussian = -0.5 * float(np.sum(np.log(2 * np.pi * spread) + 1))
    return gaussian + float(law.negentropy(np.asarray(variance / scale**2)))


def mean_over_rows(law: Law | None, x: Array, log_q: Array) -> tuple[float, float]:
    """Mean of log q, or of a bound of it, over rows of the law, by a control variate.

    Of a law of known entropy it is E log p + mean(log q − log p): most of the noise of the rows
    cancels.

    Parameters
    ----------
    law : Law or None
        That the rows are of; None if it is unknown.
    x : array, shape (n, d)
        Or (1, n, d).
    log_q : array, shape (n,)
        Or (1, n), in nats.

    Returns
    -------
    mean, standard_error : float
    """
    known = np.nan if law is None else mean_log_density(law)
    if law is None or np.isnan(known):
        known = 0.0
    else:
        log_q = log_q - law.log_density(x)
    return known + float(log_q.mean()), float(np.std(log_q, ddof=1) / np.sqrt(log_q.size))


def evidence_bound(
    process: Process, law: Law, score_mse: npt.ArrayLike, quadrature: TimeQuadrature
) -> EvidenceBound:
    """The evidence bound of a score of known error.

    Parameters
    ----------
    process : Process
    law : Law
        π_data.
    score_mse : array_like, shape (..., n)
        E_{p_t}|s_θ − ∇log p_t|² at `quadrature.times`: in closed form from the
        `error_moments` of a `sgm.scores.Score`, estimated for a network.
    quadrature : TimeQuadrature

    Returns
    -------
    EvidenceBound
    """
    end, start = (
        (float(process.mean_scale(t)), float(process.kernel_variance(t)))
        for t in (process.horizon, quadrature.cutoff)
    )
    return EvidenceBound(
        data_log_density=mean_log_density(law, *start),
        terminal_log_density=mean_log_density(law, *end),
        terminal_kl=law.kl_to_normal(process.prior_variance, *end),
        score_gap=np.asarray(quadrature.integrate(score_mse) / 2),
    )


def denoising_terms(process: Process, law: Law, cutoff: float) -> tuple[float, float]:
    """R_ε and K_ε, which are infinite at ε = 0; in nats.

    K_ε = R_ε − (E log p_ε − E log p_T), by de Bruijn's identity.

    Parameters
    ----------
    process : Process
    law : Law
        π_data.
    cutoff : float
        ε in (0, T].
    """
    if not 0 < cutoff <= process.horizon:
        raise ValueError(f"cutoff = {cutoff!r}: must lie in (0, {process.horizon!r}]")
    times = np.array([cutoff, process.horizon])
    scale, variance = process.mean_scale(times), process.kernel_variance(times)
    early, late = (
        mean_log_density(law, float(m), float(v)) for m, v in zip(scale, variance, strict=True)
    )
    reference = law.dimension / 2 * float(np.log(variance[1] / variance[0]))
    return reference, reference - (early - late)


def denoising_elbo(
    process: Process,
    dimension: int,
    second_moment: npt.ArrayLike,
    denoising_loss: npt.ArrayLike,
    quadrature: TimeQuadrature,
) -> Array:
    """The ELBO of X_ε from a score's denoising losses, for data of unknown law.

    Parameters
    ----------
    process : Process
    dimension : int
        d.
    second_moment : array_like, shape (...)
        E|X₀|²; of one row, |X₀|².
    denoising_loss : array_like, shape (..., n)
        dsm = E|s_θ(t, X_t) + Z/√v|² at `quadrature.times`; given X₀, of one row.
    quadrature : TimeQuadrature
        With a cutoff.

    Returns
    -------
    ndarray, shape (...)
        In nats a row.
    """
    if not quadrature.cutoff > 0:
        raise ValueError(f"cutoff = {quadrature.cutoff!r}: must be > 0, for R and K to be finite")
    first, last = process.kernel_variance(np.array([quadrature.cutoff, process.horizon]))
    scale, prior = float(process.mean_scale(process.horizon)), process.prior_variance
    squared = scale**2 * np.asarray(second_moment, dtype=np.float64) + dimension * last
    terminal = -(dimension * np.log(2 * np.pi * prior) + squared / prior) / 2
    reference = dimension / 2 * np.log(last / first)
    return np.asarray(terminal + reference - quadrature.integrate(denoising_loss) / 2)


class Start(Protocol):
    """A law at which a backward process starts: what is asked of it is its density."""

    def log_density(self, x: Array) -> Array:
        """Log ν(x) of rows (n, d), shape (n,)."""
        ...


def reverse_sde_kl(process: Process, law: Law, start: Start | None = None) -> float:
    """KL(π_data ‖ q) of the backward SDE with the exact score, on the line.

    −E log r(X₀), by Gauss-Legendre panels. For a Gaussian law in any dimension, see
    `sgm.laws.reverse_sde_limit`.

    Parameters
    ----------
    process : Process
    law : Law
        π_data, of dimension 1.
    start : Start, optional
        ν, the law at which the process starts, with tails not much heavier than those of p_T; by
        default the prior. The KL is at most KL(p_T ‖ ν).

    Returns
    -------
    float
        In nats.

    Raises
    ------
    ValueError
        If the law is not one-dimensional.
    ArithmeticError
        If the panels don't resolve the law: π_data or q is off mass one by 10⁻⁸.
    """
    if law.dimension != 1:
        raise ValueError(f"dimension = {law.dimension!r}: must be 1")
    m, v = (float(f(process.horizon)) for f in (process.mean_scale, process.kernel_variance))
    prior = process.prior(1) if start is None else start
    x, x_weights = line_panels(law.mean[0], np.sqrt(law.principal_variances[0]))
    spread = np.sqrt(max(m**2 * law.principal_variances[0] + v, process.prior_variance))
    y, y_weights = line_panels(m * law.mean[0], spread + abs(m * law.mean[0]))
    log_ratio = prior.log_density(y[:, None]) - law.log_density(y[:, None], m, v)
    exponent = log_ratio - (y - m * x[:, None]) ** 2 / (2 * v)
    peak = np.max(exponent, axis=-1)
    log_r = peak + np.log(np.exp(exponent - peak[:, None]) @ y_weights / np.sqrt(2 * np.pi * v))
    mass = x_weights * np.exp(law.log_density(x[:, None]))
    for name, total in {"the law": np.sum(mass), "q": np.sum(mass * np.exp(log_r))}.items():
        if abs(total - 1) > 1e-8:
            raise ArithmeticError(f"{name} has mass {total:.10f}: the panels don't resolve it")
    return float(-np.sum(mass * log_r))


def line_panels(center: float, scale: float) -> tuple[Array, Array]:
    """Nodes and weights on center ± 12 scale, shape (n,): 160 panels of 8 nodes."""
    nodes, weights = leggauss(8)
    half = 12 * scale / 160
    middle = center + half * np.arange(-159, 160, 2)
    return (middle[:, None] + half * nodes).ravel(), np.tile(half * weights, 160)
