"""A bound of W₂ that follows a sampler step by step, for Gaussian data.

Let p_k be the law of X_{τ_k}, and let one step of the sampler with the exact score take x to
P_k x + q_k + noise of variance R_k, in each direction of the eigenbasis of Σ. Couple the output
X̂_k of the sampler, with whatever score, to X_k ~ p_k: the same noise in the step, then the
optimal map from the law that the step makes of p_k to p_{k+1}, which are Gaussians of one basis.
With the error e_j of the score at the j-th evaluation, which step k(j) multiplies by G_j,
the difference D_k = X̂_k − X_k obeys

    D_{k+1} = P_k D_k + Δ_k + Σ_j G_j e_j,
    ‖Δ_k‖² = (P_k m_k μ + q_k − m_{k+1} μ)² + (√(P_k² V_k + R_k) − √V_{k+1})²,

one equation a direction, ‖·‖ the norm of L². Hence with S_k = |P_{k+1} ⋯ P_{N−1}|

    W₂(p_{τ_N}, p̂) ≤ √(Σ_i b_i²) + Σ_j max_i (S_{k(j)} |G_j|)_i ε_j,
    b = S₋₁ ‖D₀‖ + Σ_k S_k ‖Δ_k‖,     ε_j² = E|s_θ − s|² along the generated chain.

It assumes nothing of Σ, of N or of the schedule: mixing, discretisation and the score's error
each arrive with the factor that the later steps give them. Where a grid ends early, √λ − √V_N
and μ − m_N μ join b. Without the directions, L_k = max_i |P_k| and the norms of vectors give

    e₀ = W₂(p_T, π_∞),     e_{k+1} = L_k e_k + W₂(p_k P̂_k, p_{k+1}) + Σ_j max_i |G_j|_i ε_j,

the one-step recursion of the literature, which is never smaller.

Sources
-------
Derived here. The recursion in L_k is the standard coupling argument, as in Strasman, Ocello,
Boyer, Le Corff, Lemaire (arXiv 2402.04650), proof of their W₂ theorem, with exact constants.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sgm.gaussian import Gaussian, require_single
from sgm.laws import StepMaps
from sgm.processes import Process

__all__ = ["OneStepBound", "one_step_w2_bound"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OneStepBound:
    """The bound and its parts, in units of x; the parts add up to `total`.

    Parameters
    ----------
    mixing : ndarray, shape ()
        Share of the start at π_∞ instead of p_T.
    steps : ndarray, shape (N,)
        Share of each step's discretisation.
    early_stop : ndarray, shape ()
        Share of a grid that ends before 0.
    evaluations : ndarray, shape (..., n_evaluations)
        Share of the score's error at each of its evaluations.
    recursion : ndarray, shape (...)
        The bound from the Lipschitz constants L_k, without the directions.
    """

    mixing: Array
    steps: Array
    early_stop: Array
    evaluations: Array
    recursion: Array

    @property
    def discretization(self) -> Array:
        """Share of all steps; shape ()."""
        return np.asarray(np.sum(self.steps))

    @property
    def score_error(self) -> Array:
        """Share of the score's error; shape (...)."""
        return np.asarray(np.sum(self.evaluations, axis=-1))

    @property
    def total(self) -> Array:
        """Upper bound on W₂(π_data, output); shape (...)."""
        return np.asarray(self.mixing + self.discretization + self.early_stop + self.score_error)


def one_step_w2_bound(
    process: Process,
    law: Gaussian,
    times: npt.ArrayLike,
    maps: StepMaps,
    score_mse_generated: npt.ArrayLike,
) -> OneStepBound:
    """The bound of W₂(π_data, output) for X₀ ~ N(μ, Σ).

    Parameters
    ----------
    process : Process
        VP or VE.
    law : Gaussian
        π_data, of batch shape ().
    times : array_like, shape (N + 1,)
        The grid of the solver.
    maps : StepMaps
        What the N steps do with the exact score of `law`, see `sgm.laws.step_maps`.
    score_mse_generated : array_like, shape (..., n_evaluations)
        E|s_θ − s|² at each evaluation of the score along the chain that is generated, see
        `sgm.laws.chain_error`.

    Returns
    -------
    OneStepBound
        Infinite where the factors of a step leave the range of float64.

    Raises
    ------
    ValueError
        If the numbers of times, steps and evaluations don't agree.
    """
    require_single(law=law)
    times = np.asarray(times, dtype=np.float64)
    mse = np.asarray(score_mse_generated, dtype=np.float64)
    if times.shape != (len(maps.factor) + 1,):
        raise ValueError(f"times has shape {times.shape}: must be ({len(maps.factor) + 1},)")
    if mse.shape[-1:] != maps.gain.shape[:1]:
        raise ValueError(
            f"score_mse_generated has shape {mse.shape}: must be (..., {len(maps.gain)})"
        )
    mean = process.mean_scale(times)[:, None] * law.rotate(law.mean)
    marginal = process.mean_scale(times)[:, None] ** 2 * law.eigenvalues
    std = np.sqrt(marginal + process.kernel_variance(times)[:, None])
    start = np.hypot(mean[0], std[0] - np.sqrt(process.prior_variance))
    end = np.hypot(law.rotate(law.mean) - mean[-1], np.sqrt(law.eigenvalues) - std[-1])
    rms = np.sqrt(mse)
    with np.errstate(over="ignore", invalid="ignore"):
        factor = np.abs(maps.factor)
        reached = np.sqrt((factor * std[:-1]) ** 2 + maps.noise_variance)
        local = np.hypot(
            maps.factor * mean[:-1] + maps.shift - mean[1:], reached - std[1:]
        )
        suffix = np.ones((len(factor) + 1, law.dimension))
        np.cumprod(factor[::-1], axis=0, out=suffix[1:])
        suffix, whole = suffix[-2::-1], suffix[-1]
        parts = np.vstack([whole * start, end, suffix * local])
        direct = np.sum(parts, axis=0)
        norm = np.linalg.norm(direct)
        # b_i/|b| · b_i adds up to |b|, whatever b is made of
        shares = parts @ (direct / norm) if norm > 0 else np.zeros(len(parts))
        amplified = np.max(suffix[maps.step] * np.abs(maps.gain), axis=-1)
        evaluations = np.where(rms == 0, 0.0, amplified * rms)
        # the same without directions
        lipschitz = np.max(factor, axis=-1)
        later = np.append(np.cumprod(lipschitz[::-1])[::-1][1:], 1.0)
        kicks = np.where(rms == 0, 0.0, later[maps.step] * np.max(np.abs(maps.gain), axis=-1) * rms)
        recursion = (
            later[0] * lipschitz[0] * np.linalg.norm(start)
            + np.linalg.norm(end)
            + np.sum(later * np.linalg.norm(local, axis=-1))
            + np.sum(kicks, axis=-1)
        )
    lost = not np.isfinite(norm)
    mixing, early_stop, steps = shares[0], shares[1], shares[2:]
    if lost:
        mixing, early_stop, steps = np.inf, 0.0, np.full(len(factor), np.inf)
    return OneStepBound(
        mixing=np.asarray(mixing),
        steps=np.asarray(steps),
        early_stop=np.asarray(early_stop),
        evaluations=np.where(np.isnan(evaluations) & ~np.isnan(rms), np.inf, evaluations),
        recursion=np.where(np.isnan(recursion) & ~np.isnan(rms).any(-1), np.inf, recursion),
    )
