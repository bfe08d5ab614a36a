"""Exact laws of what the samplers produce when the score is affine.

A stage x′ = α x + γ s(τ, x) + ρ z with Uᵀs = A Uᵀx + b acts on each coordinate of the
basis U of the score as x′ = P x + q + ρ z, P = α + γA, q = γb. From N(c, w) the output is
Gaussian; with the suffix products S_k = P_{k+1} ⋯ P_{n−1},

    mean = S₋₁ c + Σ_k S_k q_k,     variance = S₋₁² w + Σ_k S_k² ρ_k².

No Monte Carlo, and no loop over the stages. As the step tends to zero with the exact
score, the law of the output tends to closed forms of m, v and V = m²λ + v at T.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sgm.gaussian import Gaussian
from sgm.processes import VPProcess
from sgm.samplers import Steps
from sgm.scores import GaussianScore

__all__ = ["probability_flow_limit", "reverse_sde_limit", "sampler_law"]

Array = npt.NDArray[np.float64]


def sampler_law(steps: Steps, score: GaussianScore, prior: Gaussian) -> Gaussian:
    """Exact law of a sampler's output.

    Parameters
    ----------
    steps : Steps
        Coefficients of the stages, see `sgm.samplers`.
    score : GaussianScore
    prior : Gaussian
        Law of the start, isotropic, as `VPProcess.prior` is.

    Returns
    -------
    Gaussian
        In the basis of the score. A law that leaves the range of float64 (an unstable
        step size) has infinite variances, and is infinitely far in every divergence.

    Raises
    ------
    ValueError
        If `prior` is not isotropic.
    """
    start_variance = prior.eigenvalues[0]
    if np.any(prior.eigenvalues != start_variance):
        raise ValueError("prior must be isotropic: its eigenvalues differ")
    factor, offset = score.coefficients(steps.score_time)
    factor *= steps.score[:, None]
    factor += steps.state[:, None]
    start_mean = score.law.rotate(prior.mean)
    with np.errstate(over="ignore", invalid="ignore"):
        # rows S_{n−1} = 1, S_{n−2}, …, S₀, S₋₁: the suffix products, backwards
        suffix = np.ones((len(steps) + 1, prior.dimension))
        np.cumprod(factor[::-1], axis=0, out=suffix[1:])
        suffix, whole = suffix[-2::-1], suffix[-1]
        mean = whole * start_mean + np.einsum("k,kd,kd->d", steps.score, suffix, offset)
        variance = np.einsum("k,kd,kd->d", steps.noise**2, suffix, suffix)
        variance += whole**2 * start_variance
        if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(variance))):
            shift = steps.score[:, None] * offset
            start = np.full_like(start_mean, start_variance)
            mean, variance = _recursion(factor, shift, steps.noise, start_mean, start)
    if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(variance))):
        lost = np.full(prior.dimension, np.inf)
        return Gaussian(lost, lost, score.law.basis)
    return Gaussian(mean @ score.law.basis.T, variance, score.law.basis)


def _recursion(
    factor: Array, shift: Array, noise: Array, mean: Array, variance: Array
) -> tuple[Array, Array]:
    """The law stage by stage, for when a suffix product overflows and the law may not."""
    for p, q, rho in zip(factor, shift, noise, strict=True):
        mean, variance = p * mean + q, p**2 * variance + rho**2
    return mean, variance


def _at_horizon(process: VPProcess, law: Gaussian) -> tuple[float, float, Array]:
    """m, v and V = m²λ + v at T; V of shape (d,)."""
    m = float(process.mean_scale(process.horizon))
    v = float(process.kernel_variance(process.horizon))
    return m, v, m**2 * law.eigenvalues + v


def reverse_sde_limit(process: VPProcess, law: Gaussian) -> Gaussian:
    """Law at time 0 of the backward SDE with the exact score, started at π_∞.

    In the basis of `law`, mean μ v/V and variance λ v/V + (mλ/V)² σ². Every stochastic
    sampler tends to it as the step tends to zero; it differs from `law` by the start only.

    Parameters
    ----------
    process : VPProcess
    law : Gaussian
        π_data, of batch shape ().

    Returns
    -------
    Gaussian
    """
    m, v, marginal = _at_horizon(process, law)
    share = law.eigenvalues / marginal
    mean = (v / marginal * law.rotate(law.mean)) @ law.basis.T
    variance = share * v + (m * share) ** 2 * process.variance
    return Gaussian(mean, variance, law.basis)


def probability_flow_limit(process: VPProcess, law: Gaussian) -> Gaussian:
    """Law at time 0 of the probability-flow ODE with the exact score, started at π_∞.

    In the basis of `law`, mean μ − √(λ/V) m μ and variance λ σ²/V.

    Parameters
    ----------
    process : VPProcess
    law : Gaussian
        π_data, of batch shape ().

    Returns
    -------
    Gaussian
    """
    m, _, marginal = _at_horizon(process, law)
    share = law.eigenvalues / marginal
    mean = ((1 - m * np.sqrt(share)) * law.rotate(law.mean)) @ law.basis.T
    return Gaussian(mean, share * process.variance, law.basis)
