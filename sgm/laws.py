"""Exact laws of what the samplers produce when the score is affine.

A stage x′ = α x + γ s(τ, x) + ρ z with Uᵀs = A Uᵀx + b acts on each coordinate of the
basis U of the score as x′ = P x + q + ρ z, P = α + γA, q = γb; or from the coefficients of the
denoiser, in which the terms of P don't cancel, see `sgm.samplers`. From N(c, w) the output is
Gaussian; with the suffix products S_k = P_{k+1} ⋯ P_{n−1},

    mean = S₋₁ c + Σ_k S_k q_k,     variance = S₋₁² w + Σ_k S_k² ρ_k².

No Monte Carlo, and no loop over the stages; the laws along the chain come from the same
recursion run forwards. As the step tends to zero with the exact score, the law of the output
tends to closed forms of m, v and V = m²λ + v at T.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sgm.arguments import require_instance
from sgm.gaussian import Gaussian, require_single
from sgm.processes import Process
from sgm.samplers import Steps
from sgm.scores import GaussianScore, exact

__all__ = [
    "chain_error",
    "chain_laws",
    "probability_flow_limit",
    "reverse_sde_limit",
    "sampler_law",
]

Array = npt.NDArray[np.float64]


def sampler_law(steps: Steps, score: GaussianScore, prior: Gaussian) -> Gaussian:
    """Exact law of a sampler's output.

    Parameters
    ----------
    steps : Steps
        Coefficients of the stages, see `sgm.samplers`.
    score : GaussianScore
    prior : Gaussian
        Law of the start, isotropic, as `Process.prior` is.

    Returns
    -------
    Gaussian
        In the basis of the score. A law that leaves the range of float64 (an unstable
        step size) has infinite variances, and is infinitely far in every divergence.

    Raises
    ------
    ValueError
        If `prior` is not isotropic, or no single law of the dimension of the score.
    """
    _require_chain(steps, score, prior)
    start_variance = float(prior.eigenvalues[0])
    factor, shift = _stages(steps, score)
    start_mean = score.law.rotate(prior.mean)
    with np.errstate(over="ignore", invalid="ignore"):
        # rows S_{n−1} = 1, S_{n−2}, …, S₀, S₋₁: the suffix products, backwards
        suffix = np.ones((len(steps) + 1, prior.dimension))
        np.cumprod(factor[::-1], axis=0, out=suffix[1:])
        suffix, whole = suffix[-2::-1], suffix[-1]
        mean = whole * start_mean + np.einsum("kd,kd->d", suffix, shift)
        variance = np.einsum("k,kd,kd->d", steps.noise**2, suffix, suffix)
        variance += whole**2 * start_variance
        if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(variance))):
            start = np.full_like(start_mean, start_variance)
            means, variances = _recursion(factor, shift, steps.noise, start_mean, start)
            mean, variance = means[-1], variances[-1]
    if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(variance))):
        lost = np.full(prior.dimension, np.inf)
        return Gaussian(lost, lost, score.law.basis)
    return Gaussian(mean @ score.law.basis.T, variance, score.law.basis)


def chain_laws(steps: Steps, score: GaussianScore, prior: Gaussian) -> Gaussian:
    """Exact law of the state in which each stage of a sampler finds the chain.

    Parameters
    ----------
    steps, score, prior
        As in `sampler_law`.

    Returns
    -------
    Gaussian
        Of batch shape (n_stages,), in the basis of the score; the first one is `prior`. A
        stage that leaves the range of float64 has infinite variances, as those after it.

    Raises
    ------
    ValueError
        If `prior` is not isotropic, or no single law of the dimension of the score.
    """
    _require_chain(steps, score, prior)
    factor, shift = _stages(steps, score)
    start_mean = score.law.rotate(prior.mean)
    start = np.full_like(start_mean, float(prior.eigenvalues[0]))
    with np.errstate(over="ignore", invalid="ignore"):
        means, variances = _recursion(factor, shift, steps.noise, start_mean, start)
    lost = ~np.all(np.isfinite(means) & np.isfinite(variances), axis=-1)[:-1, None]
    means = np.where(lost, 0.0, means[:-1]) @ score.law.basis.T
    return Gaussian(
        np.where(lost, np.inf, means), np.where(lost, np.inf, variances[:-1]), score.law.basis
    )


def chain_error(steps: Steps, score: GaussianScore, law: Gaussian, prior: Gaussian) -> Array:
    """E|s_θ(τ, X) − s(τ, X)|² for the state X in which each stage finds the chain.

    The W₂ theorem's error of the score; `GaussianScore.error_moments` has the one under the
    forward process. With K = UᵀU_θ, A and A_θ the slopes of the two scores, W the variances
    of X in U_θ, the linear part of the error has second moment Σ K²_ij W_j (A_θj − A_i)².

    Parameters
    ----------
    steps, score, prior
        As in `sampler_law`.
    law : Gaussian
        π_data, of which s is the score; its basis may differ from the score's.

    Returns
    -------
    ndarray, shape (n_stages,)
        +∞ where the chain has left the range of float64.
    """
    _require_chain(steps, score, prior)
    require_single(score=score.law, law=law)
    chain = chain_laws(steps, score, prior)
    lost = ~np.all(np.isfinite(chain.eigenvalues), axis=-1)
    center, variance = (
        np.where(lost[:, None], 0.0, moment) for moment in (chain.mean, chain.eigenvalues)
    )
    believed, believed_offset = score.coefficients(steps.score_time)
    true, true_offset = exact(score.process, law).coefficients(steps.score_time)
    with np.errstate(over="ignore"):
        if law.shares_basis(score.law):
            slope = believed - true
            shift = slope * law.rotate(center) + (believed_offset - true_offset)
            linear = np.sum(variance * slope**2, axis=-1)
        else:
            shift = (believed * score.law.rotate(center) + believed_offset) @ score.law.basis.T
            shift = shift - (true * law.rotate(center) + true_offset) @ law.basis.T
            slope = believed[:, None, :] - true[:, :, None]
            weight = (law.basis.T @ score.law.basis) ** 2
            linear = np.sum(weight * variance[:, None, :] * slope**2, axis=(-2, -1))
        error = linear + np.sum(shift**2, axis=-1)
    return np.asarray(np.where(lost, np.inf, error))


def _stages(steps: Steps, score: GaussianScore) -> tuple[Array, Array]:
    """P and q of each stage, shape (n_stages, d)."""
    known = ~np.isnan(steps.kept)
    if np.all(known):
        factor, shift = np.empty((2, len(steps), score.law.dimension))
    else:
        factor, shift = score.coefficients(steps.score_time)
        with np.errstate(over="ignore", invalid="ignore"):
            factor *= steps.score[:, None]
            factor += steps.state[:, None]
            shift *= steps.score[:, None]
    if np.any(known):
        slope, offset, *error = score.denoiser(steps.score_time[known])
        # γ = c v/m, which may overflow, counts only where there is an error
        with np.errstate(over="ignore"):
            error_slope, error_offset = (
                np.multiply(
                    steps.score[known, None], part, out=np.zeros_like(slope), where=part != 0
                )
                for part in error
            )
        factor[known] = steps.kept[known, None] + steps.denoiser[known, None] * slope + error_slope
        shift[known] = steps.denoiser[known, None] * offset + error_offset
    return factor, shift


def _require_chain(steps: Steps, score: GaussianScore, prior: Gaussian) -> None:
    require_instance(Steps, steps=steps)
    require_instance(GaussianScore, score=score)
    require_single(score=score.law, prior=prior)
    if np.any(prior.eigenvalues != prior.eigenvalues[0]):
        raise ValueError("prior must be isotropic: its eigenvalues differ")


def _recursion(
    factor: Array, shift: Array, noise: Array, mean: Array, variance: Array
) -> tuple[Array, Array]:
    """Means and variances before each stage and after the last, shape (n_stages + 1, d)."""
    means, variances = [mean], [variance]
    for p, q, rho in zip(factor, shift, noise, strict=True):
        means.append(p * means[-1] + q)
        variances.append(p**2 * variances[-1] + rho**2)
    return np.array(means), np.array(variances)


def _at_horizon(process: Process, law: Gaussian) -> tuple[float, float, Array]:
    """m, v and V = m²λ + v at T; V of shape (d,)."""
    require_instance(Process, process=process)
    require_single(law=law)
    m = float(process.mean_scale(process.horizon))
    v = float(process.kernel_variance(process.horizon))
    return m, v, m**2 * law.eigenvalues + v


def reverse_sde_limit(process: Process, law: Gaussian) -> Gaussian:
    """Law at time 0 of the backward SDE with the exact score, started at the prior.

    In the basis of `law`, mean μ v/V and variance λ v/V + (mλ/V)² w, w the prior's variance.
    Every stochastic sampler tends to it as the step tends to zero; it differs from `law` by
    the start only.

    Parameters
    ----------
    process : Process
    law : Gaussian
        π_data, of batch shape ().

    Returns
    -------
    Gaussian
    """
    m, v, marginal = _at_horizon(process, law)
    share = law.eigenvalues / marginal
    mean = (v / marginal * law.rotate(law.mean)) @ law.basis.T
    variance = share * v + (m * share) ** 2 * process.prior_variance
    return Gaussian(mean, variance, law.basis)


def probability_flow_limit(process: Process, law: Gaussian) -> Gaussian:
    """Law at time 0 of the probability-flow ODE with the exact score, started at the prior.

    In the basis of `law`, mean μ − √(λ/V) m μ and variance λ w/V, w the prior's variance.

    Parameters
    ----------
    process : Process
    law : Gaussian
        π_data, of batch shape ().

    Returns
    -------
    Gaussian
    """
    m, _, marginal = _at_horizon(process, law)
    share = law.eigenvalues / marginal
    mean = ((1 - m * np.sqrt(share)) * law.rotate(law.mean)) @ law.basis.T
    return Gaussian(mean, share * process.prior_variance, law.basis)
