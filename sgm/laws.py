"""Exact laws of what the samplers produce when the score is affine.

A stage R′ = M R + g s(τ, c·R) + ρ z with Uᵀs = A Uᵀy + b acts on each coordinate of the
basis U of the score as R′ = P R + q + ρ z, P = M + A g cᵀ, q = b g; or from the coefficients of
the denoiser, in which the terms of P don't cancel, see `sgm.samplers`. From N(c, w) the sample,
register 0, is Gaussian; with the first rows S_k of the suffix products P_{n−1} ⋯ P_{k+1},

    mean = S₋₁ e₀ c + Σ_k S_k q_k,     variance = (S₋₁ e₀)² w + Σ_k (S_k ρ_k)².

A score A(τ) y + b(τ) whose matrices share no basis couples the directions: the same recursion, of
r d numbers at once (`affine_law`).

No Monte Carlo, and with one register, whose products are numbers, no loop over the stages; the
laws along the chain come from the same recursion run forwards. As the step tends to zero with the
exact score, the law of the output tends to closed forms of m, v and V = m²λ + v at T.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sgm.arguments import require_instance
from sgm.gaussian import Gaussian, require_single
from sgm.processes import Process
from sgm.samplers import Steps
from sgm.scores import GaussianScore, exact

__all__ = [
    "StepDeviations",
    "affine_law",
    "affine_stages",
    "chain_error",
    "chain_laws",
    "law_from",
    "probability_flow_limit",
    "register_moments",
    "reverse_sde_limit",
    "sampler_law",
    "step_deviations",
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
    factor, shift = affine_stages(steps, score)
    start_mean = score.law.rotate(prior.mean)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, variance = _output(factor, shift, steps.noise, start_mean, start_variance)
        if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(variance))):
            means, variances = _recursion(steps, factor, shift, start_mean, start_variance)
            mean, variance = means[-1], variances[-1]
    if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(variance))):
        lost = np.full(prior.dimension, np.inf)
        return Gaussian(lost, lost, score.law.basis)
    return Gaussian(mean @ score.law.basis.T, variance, score.law.basis)


def law_from(steps: Steps, score: GaussianScore, start: Gaussian) -> Gaussian:
    """Exact law of the output of a sampler that starts at another Gaussian than the prior.

    Parameters
    ----------
    steps : Steps
    score : GaussianScore
    start : Gaussian
        In the basis of the score, such as p_T of the law that it believes in.

    Returns
    -------
    Gaussian
        In the basis of the score; of infinite variances where it leaves the range of float64.

    Raises
    ------
    ValueError
        If `start` has another basis, or is no single law of the dimension of the score.
    """
    require_instance(Steps, steps=steps)
    require_instance(GaussianScore, score=score)
    require_single(score=score.law, start=start)
    if not start.shares_basis(score.law):
        raise ValueError("start: must have the eigenbasis of the score's law")
    factor, shift = affine_stages(steps, score)
    mean, variance = start.rotate(start.mean), start.eigenvalues
    with np.errstate(over="ignore", invalid="ignore"):
        # a variance a direction serves as well as one for all
        mean, variance = _output(factor, shift, steps.noise, mean, variance)  # type: ignore[arg-type]
    if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(variance))):
        lost = np.full(start.dimension, np.inf)
        return Gaussian(lost, lost, score.law.basis)
    return Gaussian(mean @ score.law.basis.T, variance, score.law.basis)


def affine_law(
    steps: Steps, coefficients: Callable[[Array], tuple[Array, Array]], prior: Gaussian
) -> Gaussian:
    """Exact law of a sampler's output for an affine score whose matrices share no basis.

    The suffix products of the module's docstring with matrices in place of numbers: a stage
    R′ = M R + g s(τ, c·R) + ρ z takes the rows S of the output, shape (d, r, d), to
    S M + (Σ_i g_i S_i) A ⊗ c.

    Parameters
    ----------
    steps : Steps
    coefficients : callable
        Times (n,) to (A, b) of s(t, x) = A x + b, of shapes (n, d, d) and (n, d).
    prior : Gaussian
        Law of the start, isotropic.

    Returns
    -------
    Gaussian
        In its own eigenbasis. Variances that are lost in the rounding errors of larger ones are 0,
        so that a divergence is infinite; those of a law that leaves the range of float64 are
        infinite.

    Raises
    ------
    ValueError
        If `prior` is not isotropic, or steps are too long for float64, see
        `Steps.require_precision`: the score is taken as it is, not by its denoiser.
    """
    require_instance(Steps, steps=steps)
    _require_isotropic(prior)
    steps.require_precision(float(np.finfo(float).eps))
    n, r, d = len(steps), steps.registers, prior.dimension
    slopes, offsets = np.zeros((n, d, d)), np.zeros((n, d))
    slopes[steps.evaluated], offsets[steps.evaluated] = coefficients(
        steps.score_time[steps.evaluated]
    )
    state = steps.state.reshape(n, r, r)
    gain, noise = steps.score.reshape(n, r), steps.noise.reshape(n, r)
    rows = np.zeros((d, r, d))
    rows[:, 0] = np.eye(d)
    mean, covariance = np.zeros(d), np.zeros((d, d))
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(n - 1, -1, -1):
            drawn, kicked = (np.einsum("irk,r->ik", rows, own[k]) for own in (noise, gain))
            covariance += drawn @ drawn.T
            mean += kicked @ offsets[k]
            through = (kicked @ slopes[k])[:, None] * steps.point[k][:, None]
            rows = np.einsum("irk,rs->isk", rows, state[k]) + through
        mean += rows[:, 0] @ prior.mean
        covariance += prior.eigenvalues[0] * rows[:, 0] @ rows[:, 0].T
    if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(covariance))):
        return Gaussian(np.full(d, np.inf), np.full(d, np.inf), np.eye(d))
    variances, basis = np.linalg.eigh((covariance + covariance.T) / 2)
    lost = variances <= d * np.finfo(float).eps * variances[-1]
    return Gaussian(mean, np.where(lost, 0.0, variances), basis)


def chain_laws(steps: Steps, score: GaussianScore, prior: Gaussian) -> Gaussian:
    """Exact law of the point at which each stage of a sampler evaluates the score.

    Of a scheme in one register it is the state in which the stage finds the chain; of a stage
    that evaluates nothing, the sample.

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
    factor, shift = affine_stages(steps, score)
    start_mean = score.law.rotate(prior.mean)
    with np.errstate(over="ignore", invalid="ignore"):
        means, variances = _recursion(steps, factor, shift, start_mean, float(prior.eigenvalues[0]))
    lost = ~np.all(np.isfinite(means) & np.isfinite(variances), axis=-1)[:-1, None]
    means = np.where(lost, 0.0, means[:-1]) @ score.law.basis.T
    return Gaussian(
        np.where(lost, np.inf, means), np.where(lost, np.inf, variances[:-1]), score.law.basis
    )


def chain_error(steps: Steps, score: GaussianScore, law: Gaussian, prior: Gaussian) -> Array:
    """E|s_θ(τ, Y) − s(τ, Y)|² for the point Y at which each stage evaluates the score.

    The W₂ theorem's error of the score; `GaussianScore.error_moments` has the one under the
    forward process. With K = UᵀU_θ, A and A_θ the slopes of the two scores, W the variances
    of Y in U_θ, the linear part of the error has second moment Σ K²_ij W_j (A_θj − A_i)².

    Parameters
    ----------
    steps, score, prior
        As in `sampler_law`.
    law : Gaussian
        π_data, of which s is the score; its basis may differ from the score's.

    Returns
    -------
    ndarray, shape (n_stages,)
        +∞ where the chain has left the range of float64, NaN where nothing is evaluated.
        `Steps.departures` are the stages that the theorem speaks of.
    """
    _require_chain(steps, score, prior)
    require_single(score=score.law, law=law)
    chain = chain_laws(steps, score, prior)
    lost = ~np.all(np.isfinite(chain.eigenvalues), axis=-1)
    center, variance = (
        np.where(lost[:, None], 0.0, moment) for moment in (chain.mean, chain.eigenvalues)
    )
    at = np.where(steps.evaluated, steps.score_time, score.process.horizon)
    believed, believed_offset = score.coefficients(at)
    true, true_offset = exact(score.process, law).coefficients(at)
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
    return np.where(steps.evaluated, np.where(lost, np.inf, error), np.nan)


@dataclass(frozen=True, eq=False)
class StepDeviations:
    """How far each step of a sampler leads off the forward process's laws, and what becomes of it.

    All in the directions of the basis of the data's law.

    Parameters
    ----------
    start : ndarray, shape (d,)
        W₂ between the prior and p_T.
    local : ndarray, shape (N, d)
        W₂ between p_{τ_{k+1}} and what step k makes of a chain that has followed the p_{τ_j}.
    start_gain : ndarray, shape (d,)
        Factor with which an error at the start arrives in the output.
    local_gain : ndarray, shape (N, d)
        Factor with which an error in x after step k arrives.
    score_gain : ndarray, shape (NFE, d)
        Factor with which an error of the score arrives, of each evaluation.
    """

    start: Array
    local: Array
    start_gain: Array
    local_gain: Array
    score_gain: Array


def step_deviations(steps: Steps, score: GaussianScore, times: npt.ArrayLike) -> StepDeviations:
    """Follow a sampler step by step along the laws that it should have.

    A chain X_k ~ p_{τ_k} starts at p_T and takes the steps of the sampler with the exact score;
    after each step the optimal map takes the law of x to p_{τ_{k+1}}, while what other registers
    hold stays as it is. Its registers are jointly Gaussian in each direction, so its moments
    are those of a recursion. Of a sampler's chain that starts elsewhere or has another score,
    the difference from X obeys the homogeneous recursion, whose factors are the gains.

    Parameters
    ----------
    steps : Steps
    score : GaussianScore
        The exact score of the data's law.
    times : array_like, shape (N + 1,)
        The grid of the solver.

    Returns
    -------
    StepDeviations
        Infinite where the factors of a step leave the range of float64.

    Raises
    ------
    ValueError
        If `times` are not N + 1 for the N steps.
    """
    process, law = score.process, score.law
    _require_chain(steps, score, process.prior(law.dimension))
    times = np.asarray(times, dtype=np.float64)
    if times.shape != (steps.n_steps + 1,):
        raise ValueError(f"times has shape {times.shape}: must be ({steps.n_steps} + 1,)")
    n, d, r = len(steps), law.dimension, steps.registers
    scale = process.mean_scale(times)[:, None]
    means = scale * law.rotate(law.mean)
    variances = scale**2 * law.eigenvalues + process.kernel_variance(times)[:, None]
    factor, shift = affine_stages(steps, score)
    noise = steps.noise.reshape(n, r)
    ends = np.append(steps.starts[1:], n) - 1
    center, covariance = np.zeros((d, r)), np.zeros((d, r, r))
    center[:, 0], covariance[:, 0, 0] = means[0], variances[0]
    local = np.empty((steps.n_steps, d))
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        for k, (first, last) in enumerate(zip(steps.starts, ends, strict=True)):
            for p, q, rho in zip(
                *(x[first : last + 1] for x in (factor, shift, noise)), strict=True
            ):
                covariance = p @ covariance @ p.swapaxes(-1, -2) + np.outer(rho, rho)
                center = (p @ center[..., None])[..., 0] + q
            mean, variance = means[k + 1], variances[k + 1]
            reached = np.sqrt(np.maximum(covariance[:, 0, 0], 0.0))
            local[k] = np.hypot(center[:, 0] - mean, reached - np.sqrt(variance))
            ratio = np.where(reached > 0, np.sqrt(variance) / reached, 0.0)
            center[:, 0] = mean
            covariance[:, 0] *= ratio[:, None]
            covariance[:, :, 0] *= ratio[:, None]
            covariance[:, 0, 0] = variance  # also where a step has left no variance
        rows = np.zeros((n + 1, d, r))  # of x in the output, to registers after each stage
        rows[n, :, 0] = 1.0
        for k in range(n - 1, -1, -1):
            rows[k] = (rows[k + 1][:, None] @ factor[k])[:, 0]
        kicks = np.einsum("kdr,kr->kd", rows[1:], steps.score.reshape(n, r))[steps.evaluated]
    start = np.hypot(means[0], np.sqrt(variances[0]) - np.sqrt(process.prior_variance))
    gains = (rows[0, :, 0], rows[ends + 1, :, 0], kicks)
    known = (np.where(np.isnan(part), np.inf, np.abs(part)) for part in (local, *gains))
    return StepDeviations(start, *known)


def affine_stages(steps: Steps, score: GaussianScore) -> tuple[Array, Array]:
    """P and q of each stage, shapes (n_stages, d, r, r) and (n_stages, d, r)."""
    n, r, d = len(steps), steps.registers, score.law.dimension
    state, kept = (m.reshape(n, 1, r, r) for m in (steps.state, steps.kept))
    gain, denoiser = (g.reshape(n, 1, r) for g in (steps.score, steps.denoiser))
    factor, shift = np.empty((n, d, r, r)), np.zeros((n, d, r))
    plain, known = steps.evaluated & ~steps.known, steps.evaluated & steps.known
    factor[~steps.evaluated] = state[~steps.evaluated]
    with np.errstate(over="ignore", invalid="ignore"):
        if np.any(plain):
            slope, offset = score.coefficients(steps.score_time[plain])
            factor[plain] = _response(slope, gain[plain], steps.point[plain]) + state[plain]
            shift[plain] = offset[..., None] * gain[plain]
        if np.any(known):
            slope, offset, *error = score.denoiser(steps.score_time[known])
            factor[known] = kept[known] + _response(slope, denoiser[known], steps.point[known])
            shift[known] = offset[..., None] * denoiser[known]
            # g = c̄ v/m, which may overflow, counts only where there is an error
            factor[known] += _response(error[0], gain[known], steps.point[known])
            shift[known] += _product(error[1][..., None], gain[known])
    return factor, shift


def _require_chain(steps: Steps, score: GaussianScore, prior: Gaussian) -> None:
    require_instance(Steps, steps=steps)
    require_instance(GaussianScore, score=score)
    require_single(score=score.law, prior=prior)
    _require_isotropic(prior)


def _require_isotropic(prior: Gaussian) -> None:
    require_single(prior=prior)
    if np.any(prior.eigenvalues != prior.eigenvalues[0]):
        raise ValueError("prior must be isotropic: its eigenvalues differ")


def _response(slope: Array, gain: Array, point: Array) -> Array:
    """A g cᵀ of each direction, shape (n, d, r, r)."""
    return _product(slope[..., None, None], _product(gain[..., None], point[:, None, None]))


def _product(first: Array, second: Array) -> Array:
    """Products in which 0 · ∞ is 0: a term that is not there."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where((first == 0) | (second == 0), 0.0, first * second)


def _output(
    factor: Array, shift: Array, noise: Array, mean: Array, variance: float
) -> tuple[Array, Array]:
    """Mean and variance of the sample after the last stage, by suffix products."""
    n, d, r, _ = factor.shape
    if r == 1:
        # rows S_{n−1} = 1, S_{n−2}, …, S₀, S₋₁: the suffix products, backwards
        products = np.ones((n + 1, d))
        np.cumprod(factor[::-1, :, 0, 0], axis=0, out=products[1:])
        suffix, whole = products[-2::-1], products[-1]
        drawn = np.einsum("k,kd,kd->d", noise**2, suffix, suffix)
        shifted = np.einsum("kd,kd->d", suffix, shift[..., 0])
    else:
        row, shifted, drawn = np.zeros((d, 1, r)), np.zeros(d), np.zeros(d)
        row[..., 0] = 1.0
        for p, q, rho in zip(factor[::-1], shift[::-1], noise[::-1], strict=True):
            shifted += np.sum(row[:, 0] * q, axis=-1)
            drawn += (row[:, 0] @ rho) ** 2
            row = row @ p
        whole = row[:, 0, 0]
    return whole * mean + shifted, drawn + whole**2 * variance


def _recursion(
    steps: Steps, factor: Array, shift: Array, mean: Array, variance: float
) -> tuple[Array, Array]:
    """Means and variances of the point of each stage and of the output, shape (n_stages + 1, d)."""
    r = steps.registers
    points = np.concatenate([steps.point, np.eye(r)[:1]])
    centers, covariances = register_moments(steps, factor, shift, mean, variance)
    means = np.einsum("kr,kdr->kd", points, centers, order="C")
    variances = np.einsum("kr,kdrs,ks->kd", points, covariances, points)
    return means, np.maximum(variances, 0.0)


def register_moments(
    steps: Steps, factor: Array, shift: Array, mean: npt.ArrayLike, variance: float
) -> tuple[Array, Array]:
    """Means and covariances of the registers before each stage and after the last one.

    Parameters
    ----------
    steps : Steps
    factor, shift : ndarray
        Its `affine_stages`.
    mean : array_like, shape (d,) or ()
        Of the sample at the start; the other registers start at 0.
    variance : float
        The same of its variance.

    Returns
    -------
    means : ndarray, shape (n_stages + 1, d, r)
    covariances : ndarray, shape (n_stages + 1, d, r, r)
    """
    n, d, r, _ = factor.shape
    noise = steps.noise.reshape(n, r)
    center, covariance = np.zeros((d, r, 1)), np.zeros((d, r, r))
    center[:, 0, 0], covariance[:, 0, 0] = mean, variance
    centers, covariances = [center], [covariance]
    for p, q, rho in zip(factor, shift[..., None], noise, strict=True):
        if r == 1:
            covariances.append(p**2 * covariances[-1] + rho**2)
            centers.append(p * centers[-1] + q)
        else:
            covariances.append(p @ covariances[-1] @ p.swapaxes(-1, -2) + np.outer(rho, rho))
            centers.append(p @ centers[-1] + q)
    return np.array(centers)[..., 0], np.array(covariances)


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
