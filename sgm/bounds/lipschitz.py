"""Bounds of W₂ by a recursion over the steps, for laws whose score has a known Lipschitz constant.

Let P̂_k be a step of a sampler with the exact score, x′ = α x + γ s(τ, x) + ρ z, p_k the law of
X_{τ_k}, and L_k a Lipschitz constant of x ↦ α x + γ s(τ, x). A second chain that meets the same
noise stays within L_k, so that with the errors ε_k of the score along the generated chain, in L²,

    e_0 ≥ W₂(p_0, π_∞),     e_{k+1} = L_k e_k + δ_k + |γ_k| ε_k,     δ_k ≥ W₂(p_k P̂_k, p_{k+1}),

end in W₂(p_N, p̂) ≤ e_N. As the slope of the map is symmetric with eigenvalues α + γ h, h one of
∇²log p_τ, the extremes of h give L_k (`sgm.bounds.curvature`); where the sampler is known by its
factors of the denoiser, those of ∇x̂₀ do, without cancelling. Of a Gaussian e_0 is exact; of other
laws X_T = m X₀ + √v Z beside √w Z, the start of the sampler, has e_0² = m² E|X₀|² + d (√v − √w)².
Two bounds differ by their δ_k.

**Any sampler of one evaluation a step, δ_k by Monte Carlo.** Let X ~ p_k. The probability flow in
the noise level g = v/m², dx/dg = −½ ∇log p_g(x) with p_g the law of X₀ + √g Z, takes X/m_k to the
level g* with m′² g* = v′ − ρ′², ρ′ ≤ ρ, and m′ Φ(X/m_k) + ρ′ z with the step's own z is a draw
of p_{k+1}. Hence

    δ_k² = E|α X + γ s(τ, X) − m′ Φ(X/m_k)|² + d (ρ − ρ′)².

The noise being common, δ_k is of the second order in the step. g* may be negative: a mixture whose
components have variances c or more is the law of something plus √c Z. So ρ′ = ρ unless
ρ² > v′ + 0.9 m′² c, which happens in long last steps. An average over draws and its standard error
stand for the expectation; the flow is solved to a relative tolerance of 10⁻⁸.

**DDIM with η = 0, δ_k for every law.** In x/m and ς = √v/m it is Euler's scheme for the probability
flow, the predictor of EDM: dx/dς = E[Z | x] = (x − x̂₀)/ς, whose slope along a solution is
−(dx̂₀/dς)/ς. So δ_k ≤ m′ ∫ (r − ς′)/r ‖dx̂₀/dr‖ dr over [ς′, ς], the norm of L². With
W = Z − E[Z | x], dx̂₀/dr = −E[W (Z·W) | x], and ‖W‖₆ ≤ 2‖Z‖₆ bounds its norm by
4‖Z‖₆³ = 4 √(d(d + 2)(d + 4)):

    δ_k ≤ 4 √(d(d + 2)(d + 4)) m′ [(ς − ς′) − ς′ log(ς/ς′)],

whatever the law of the data, of finite second moment or not.

Sources
-------
Brosse and Dalalyan (2026) for the last bound, with the constant 4 √d (d + 3), a little larger;
derived above. The recursion: see `sgm.bounds.one_step`. The coupling through the flow is derived
here. ∇x̂₀ = Cov(X₀ | x) m/v and the derivative of x̂₀ are Tweedie's formulas.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sgm.bounds.curvature import Curvature, curvature, smallest_variance
from sgm.bounds.objection import Objection
from sgm.bounds.one_step import OneStepBound
from sgm.densities import Law
from sgm.gaussian import Gaussian, log_excess, wasserstein2
from sgm.processes import Process
from sgm.samplers import Steps

__all__ = [
    "ONE_EVALUATION",
    "LipschitzBound",
    "LipschitzObjection",
    "brosse_dalalyan_w2_bound",
    "lipschitz_objection",
    "mixture_w2_bound",
]

Array = npt.NDArray[np.float64]

ONE_EVALUATION = frozenset(
    {
        "ancestral",
        "ancestral_small",
        "ddim",
        "euler_arrival",
        "euler_maruyama",
        "exponential_integrator",
        "exponential_integrator_modified",
        "probability_flow_euler",
    }
)
"""Samplers of one evaluation a step and without memory, for which `mixture_w2_bound` holds."""


class LipschitzObjection(Objection):
    """Why the recursion makes no theorem for a law and a sampler; NONE if it does."""

    NONE = 0, "none"
    LAW_UNKNOWN = 1, "the law of the data is unknown"
    SAMPLER = 2, "the theorem is about another sampler"
    LIPSCHITZ = 3, "no Lipschitz constant of the score is known"


def lipschitz_objection(
    law: Law | None, sampler: str, samplers: frozenset[str] = ONE_EVALUATION
) -> LipschitzObjection:
    """The objection for a sampler named as in `sgm.samplers`; `samplers` are those it is about."""
    if law is None:
        return LipschitzObjection.LAW_UNKNOWN
    if sampler not in samplers:
        return LipschitzObjection.SAMPLER
    known = curvature(law, 1.0, 1.0) is not None
    return LipschitzObjection.NONE if known else LipschitzObjection.LIPSCHITZ


@dataclass(frozen=True, eq=False)
class LipschitzBound(OneStepBound):
    """The parts of `OneStepBound`, each evaluation of the score a step, and what L_k does.

    Parameters
    ----------
    lipschitz : ndarray, shape (N,)
        L_k.
    standard_error : ndarray, shape ()
        Of the shares of the steps, by Monte Carlo; 0 if nothing is drawn.
    """

    lipschitz: Array
    standard_error: Array

    @property
    def growth(self) -> Array:
        """Π L_k, the factor with which an error at the start arrives; shape ()."""
        with np.errstate(over="ignore", under="ignore"):
            return np.asarray(np.prod(self.lipschitz))


def mixture_w2_bound(
    process: Process,
    law: Law,
    times: npt.ArrayLike,
    steps: Steps,
    generator: np.random.Generator,
    draws: int,
    *,
    score_mse_generated: npt.ArrayLike,
) -> LipschitzBound | None:
    """The recursion with δ_k by Monte Carlo, see the module.

    Parameters
    ----------
    process : Process
        VP or VE.
    law : Law
        π_data.
    times : array_like, shape (N + 1,)
        The grid of the solver.
    steps : Steps
        The sampler on this grid.
    generator : numpy.random.Generator
        Of the draws of X_{τ_k}, new ones in each step.
    draws : int
        Of each step, at least 2.
    score_mse_generated : array_like, shape (..., N)
        E|s_θ − s|² at each step along the chain that is generated.

    Returns
    -------
    LipschitzBound or None
        None where no theorem is known: of a law without a Lipschitz constant, or a sampler of
        several evaluations a step or with memory. Infinite where it leaves the range of float64.

    Raises
    ------
    ValueError
        If the numbers of times, steps and evaluations don't agree, or `draws` is less than 2.
    """
    if draws < 2:
        raise ValueError(f"draws = {draws}: must be at least 2, for a standard error")
    if not _has_one_evaluation(steps):
        return None
    lipschitz = _lipschitz(process, law, steps)
    if lipschitz is None:
        return None
    times = _grid(times, steps)
    local, error = _flow_deviations(process, law, times, steps, generator, draws)
    return _recursion(process, law, times, steps, lipschitz, local, error, score_mse_generated)


def brosse_dalalyan_w2_bound(
    process: Process,
    law: Law,
    times: npt.ArrayLike,
    steps: Steps,
    *,
    score_mse_generated: npt.ArrayLike,
) -> LipschitzBound | None:
    """The recursion with the δ_k that holds for every law, see the module.

    Parameters
    ----------
    process, law, times, steps, score_mse_generated
        As in `mixture_w2_bound`.

    Returns
    -------
    LipschitzBound or None
        None where no theorem is known: of a law without a Lipschitz constant, or a sampler that
        is not DDIM with η = 0.

    Raises
    ------
    ValueError
        If the numbers of times, steps and evaluations don't agree.
    """
    if not _has_one_evaluation(steps):
        return None
    times = _grid(times, steps)
    m, std = process.mean_scale(times), process.std(times)
    kept = std[1:] / std[:-1]
    close = np.allclose(steps.kept, kept, rtol=1e-9, atol=1e-300)
    with np.errstate(invalid="ignore"):
        recombined = m[1:] - m[:-1] * kept
    # this difference cancels, the sampler's own factor does not
    close &= np.allclose(steps.denoiser, recombined, rtol=1e-6, atol=1e-12)
    lipschitz = _lipschitz(process, law, steps)
    if lipschitz is None or np.any(steps.noise) or not close:
        return None
    d = law.dimension
    departing = m[1:] / m[:-1] * std[:-1]  # m′ς, beside m′ς′ = √v′
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # (ς − ς′) − ς′ log(ς/ς′), which does not cancel in short steps
        bracket = std[1:] * log_excess(departing / std[1:] - 1)
    bracket = np.where(std[1:] > 0, bracket, departing)
    local = 4 * np.sqrt(d * (d + 2.0) * (d + 4.0)) * bracket
    none = np.zeros_like(local)
    return _recursion(process, law, times, steps, lipschitz, local, none, score_mse_generated)


def _has_one_evaluation(steps: Steps) -> bool:
    plain = steps.registers == 1 and len(steps) == steps.n_steps
    return bool(plain and np.all(steps.point == 1))


def _grid(times: npt.ArrayLike, steps: Steps) -> Array:
    times = np.asarray(times, dtype=np.float64)
    if times.shape != (steps.n_steps + 1,):
        raise ValueError(f"times has shape {times.shape}: must be ({steps.n_steps} + 1,)")
    return times


def _lipschitz(process: Process, law: Law, steps: Steps) -> Array | None:
    """L_k, shape (N,); None if no bound of ∇²log p is known."""
    tau = steps.score_time
    found: Curvature | None = curvature(law, process.mean_scale(tau), process.kernel_variance(tau))
    if found is None:
        return None
    vector = (steps.state.reshape(-1), steps.score.reshape(-1))
    by_denoiser = (steps.kept.reshape(-1), steps.denoiser.reshape(-1))
    with np.errstate(over="ignore", invalid="ignore"):
        plain, known = (
            np.max([np.abs(kept + gain * slope) for slope in slopes], axis=0)
            for (kept, gain), slopes in (
                (vector, found.hessian),
                (by_denoiser, found.denoiser),
            )
        )
    chosen = np.where(steps.known, known, plain)
    return np.where(np.isnan(chosen), np.inf, chosen)


def _flow_deviations(
    process: Process, law: Law, times: Array, steps: Steps, generator: np.random.Generator,
    draws: int,
) -> tuple[Array, Array]:  # fmt: skip
    """δ_k and its standard error, shape (N,) each."""
    m, v = process.mean_scale(times), process.kernel_variance(times)
    m_score = process.mean_scale(steps.score_time)
    v_score = process.kernel_variance(steps.score_time)
    least, shape = smallest_variance(law), (draws, law.dimension)
    alpha, gamma, rho = (part.reshape(-1) for part in (steps.state, steps.score, steps.noise))
    squares, errors = np.empty((2, steps.n_steps))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for k in range(steps.n_steps):
            x = m[k] * law.sample(draws, generator)
            x += np.sqrt(v[k]) * generator.standard_normal(shape)
            moved = alpha[k] * x + gamma[k] * law.score(x, float(m_score[k]), float(v_score[k]))
            common = min(rho[k] ** 2, v[k + 1] + 0.9 * m[k + 1] ** 2 * least)
            level = (v[k + 1] - common) / m[k + 1] ** 2
            reached = m[k + 1] * _flow(law, x / m[k], v[k] / m[k] ** 2, level, least)
            squared = np.sum((moved - reached) ** 2, axis=1)
            alone = law.dimension * (rho[k] - np.sqrt(common)) ** 2
            squares[k] = np.mean(squared) + alone
            errors[k] = np.std(squared, ddof=1) / np.sqrt(draws)
        local = np.sqrt(squares)
        error = np.where(local > 0, errors / (2 * local), 0.0)
    lost = ~(np.isfinite(local) & np.isfinite(error))
    return np.where(lost, np.inf, local), np.where(lost, np.inf, error)


def _flow(law: Law, x: Array, start: float, stop: float, least: float) -> Array:
    """Where the probability flow takes X₀ + √g Z from the level `start` down to `stop`.

    In the clock u = log(g + c), c the smallest variance, along which the slope is bounded.
    """
    from scipy.integrate import solve_ivp

    ends = (float(np.log(start + least)), float(np.log(stop + least)))
    if not (np.all(np.isfinite(x)) and np.all(np.isfinite(ends))):
        return np.full_like(x, np.nan)

    def slope(u: float, flat: Array) -> Array:
        spread = float(np.exp(u))
        return (-spread / 2 * law.score(flat.reshape(x.shape), 1.0, spread - least)).ravel()

    size = float(np.sqrt(np.mean(x**2)))
    solved = solve_ivp(
        slope, ends, x.ravel(), method="DOP853", rtol=1e-8,
        atol=1e-10 * min(size, float(np.sqrt(least))), first_step=abs(ends[0] - ends[1]),
    )  # fmt: skip
    return solved.y[:, -1].reshape(x.shape) if solved.success else np.full_like(x, np.nan)


def _recursion(
    process: Process, law: Law, times: Array, steps: Steps, lipschitz: Array, local: Array,
    local_error: Array, score_mse: npt.ArrayLike,
) -> LipschitzBound:  # fmt: skip
    """The shares: each error times the product of the later L."""
    mse = np.asarray(score_mse, dtype=np.float64)
    if mse.shape[-1:] != (steps.n_steps,):
        raise ValueError(
            f"score_mse_generated has shape {mse.shape}: must be (..., {steps.n_steps})"
        )
    d = law.dimension
    (m, last), (v, end) = (f(times[[0, -1]]) for f in (process.mean_scale, process.kernel_variance))
    early = np.hypot((1 - last) * np.sqrt(law.second_moment), np.sqrt(end * d))
    if isinstance(law, Gaussian):
        start = float(wasserstein2(process.marginal(law, times[0]), process.prior(d)))
    else:
        gap = np.sqrt(v) - np.sqrt(process.prior_variance)
        start = float(np.hypot(m * np.sqrt(law.second_moment), np.sqrt(d) * gap))
    least = np.finfo(np.float64).tiny  # an error that underflows is not lost to an infinite factor
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        suffix = np.cumprod(np.append(1.0, lipschitz[::-1]))[::-1]
        later = suffix[1:]
        evaluations = later * np.abs(steps.score.reshape(-1)) * np.sqrt(mse)
        evaluations = np.where(mse == 0, 0.0, evaluations)
        shares = later * np.maximum(local, least)
        error = np.sqrt(np.sum((later * np.maximum(local_error, least)) ** 2))
    parts = (suffix[0] * max(start, least), shares, evaluations)
    mixing, shares, evaluations = (np.where(np.isnan(p), np.inf, p) for p in parts)
    evaluations = np.where(np.isnan(mse), np.nan, evaluations)
    return LipschitzBound(
        mixing=np.asarray(mixing),
        steps=shares,
        early_stop=np.asarray(early),
        evaluations=evaluations,
        lipschitz=lipschitz,
        standard_error=np.asarray(error if np.any(local_error) else 0.0),
    )
