"""DDPM as a variational autoencoder: what N ancestral steps lose, in closed form.

A step goes from τ to τ' < τ; with √α = m(τ)/m(τ') and β = v(τ) − α v(τ'), X_τ = √α X_τ' + √β ξ.
The encoder is this chain, q(x' | x, x₀) has the variance β̃ = β v(τ')/v(τ), and the model is

    p(x_T) = N(0, w I),     p(x' | x) = N((x + β s_θ(τ, x))/√α, ς² I),     ς² = β or β̃,

with ς² = β in the last step, the decoder, where β̃ = 0. Its evidence bound is minus

    L_T + Σ L_k + L_0,     L_T = E KL(q(x_T | x₀) ‖ p),
    L_k = ½ d [β̃/ς² − 1 − log(β̃/ς²)] + β² dsm/(2ας²),     L_0 = ½ d log(2πς²) + β² dsm/(2ας²),

with dsm = E|s_θ + Z/√v|² = mse + d/v − J at τ and J = E|∇log p_τ|². To first order in β, L_k is the
weighted loss ½ β dsm of denoising. With the entropy h of the data, L_T + Σ L_k + L_0 − h is the
KL of the two chains' paths, which bounds that of the output,

    KL(π_data ‖ output) ≤ KL(p_T ‖ p) + Σ [D_k + β² mse/(2ας²)],
    D_k = ½ d log(ς²/β) − ½ d + (d β − β² J)/(2ας²) + h(p_τ) − h(p_τ') ≥ 0:

D_k is the mean KL of q(x' | x), which is not Gaussian or not of variance ς², from the best
Gaussian of that variance; E|X_τ' − E[X_τ'|X_τ]|² = (d β − β² J)/α is Tweedie's formula.

Sources
-------
Sohl-Dickstein et al. (2015); Ho, Jain, Abbeel (arXiv 2006.11239), equations 5 to 12. The second
form, and all in J and h, are derived here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sgm.bounds.objection import Objection
from sgm.densities.base import Law
from sgm.processes import Process

__all__ = ["DDPMBound", "DDPMObjection", "ddpm_bound", "ddpm_objection", "step_losses"]

Array = npt.NDArray[np.float64]
Variance = Literal["large", "small"]


class DDPMObjection(Objection):
    """Why the bound is not a theorem for a law and a sampler; NONE if it is one."""

    NONE = 0, "none"
    LAW_UNKNOWN = 1, "the law of the data is unknown"
    SAMPLER = 2, "the theorem is about another sampler"
    INFORMATION = 3, "entropy and Fisher information are not known"
    DECODER = 4, "the sampler leaves out the noise of the last step"


def ddpm_objection(law: Law | None, sampler: str, variance: Variance) -> DDPMObjection:
    """The objection to `ddpm_bound` for a sampler named as in `sgm.samplers`."""
    if law is None:
        return DDPMObjection.LAW_UNKNOWN
    if np.isnan(law.negentropy(0.0)) or np.isnan(law.excess_information(1.0)):
        return DDPMObjection.INFORMATION
    if variance == "small" and sampler == "ancestral_small":
        return DDPMObjection.DECODER
    own = variance == "large" and sampler == "ancestral"
    return DDPMObjection.NONE if own else DDPMObjection.SAMPLER


@dataclass(frozen=True, eq=False)
class DDPMBound:
    """The bound in both forms, in nats; shapes () without replicates.

    Parameters
    ----------
    terminal : ndarray, shape ()
        KL(p_T ‖ p).
    discretization : ndarray, shape (N,)
        D_k, step by step.
    score_error : ndarray, shape (..., N)
        β² mse/(2ας²).
    prior_loss : ndarray, shape ()
        L_T.
    step_loss : ndarray, shape (..., N)
        L_k, and L_0 last.
    """

    terminal: Array
    discretization: Array
    score_error: Array
    prior_loss: Array
    step_loss: Array

    @property
    def total(self) -> Array:
        """Upper bound of KL(π_data ‖ output); shape (...)."""
        steps = np.sum(self.discretization) + np.sum(self.score_error, axis=-1)
        return np.asarray(self.terminal + steps)

    @property
    def elbo(self) -> Array:
        """−(L_T + Σ L_k + L_0), at most E log p_θ(X₀); shape (...)."""
        return np.asarray(-self.prior_loss - np.sum(self.step_loss, axis=-1))


def _entropy(law: Law, scale: Array, variance: Array) -> Array:
    """h of the noised law m X + √v Z, shape of `scale`."""
    spread = scale[..., None] ** 2 * law.principal_variances + variance[..., None]
    gaussian = 0.5 * np.sum(np.log(2 * np.pi * np.e * spread), axis=-1)
    with np.errstate(divide="ignore"):  # of pure noise
        return np.asarray(gaussian - law.negentropy(variance / scale**2))


@dataclass(frozen=True, eq=False)
class StepVariances:
    """α, β, ς² and β̃ of steps, each of their shape."""

    alpha: Array
    beta: Array
    model: Array
    posterior: Array

    def weighted(self, mse: Array) -> Array:
        """β² mse/(2ας²), 0 without an error however long the step."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            weight = self.beta**2 / (2 * self.alpha * self.model)
            return np.asarray(np.where(mse == 0, 0.0, weight * mse))


def _excess(law: Law, m_next: Array, m: Array, v: Array) -> Array:
    """E|∇log(p_τ/g_τ)|²/α, g_τ the Gaussian of p_τ's moments: by γ = v/m², for m² underflows."""
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = v / m**2
        excess = law.excess_information(noise)
        return np.asarray(np.where(excess == 0, 0.0, excess * (noise * m_next / v) ** 2))


def step_variances(
    process: Process, start: Array, stop: Array, variance: Variance
) -> StepVariances:
    """The numbers of steps from `start` to `stop`, with ς² = β, or β̃ but in a step to 0."""
    clock = process.schedule.integral(start) - process.schedule.integral(stop)
    sigma2 = process.variance
    beta = clock if np.isinf(sigma2) else -sigma2 * np.expm1(-clock / sigma2)
    posterior = beta * process.kernel_variance(stop) / process.kernel_variance(start)
    small = (variance == "small") & (posterior > 0)
    alpha = np.exp(-clock / sigma2)
    return StepVariances(alpha, beta, np.where(small, posterior, beta), posterior)


def step_losses(
    process: Process, law: Law, start: npt.ArrayLike, stop: npt.ArrayLike, variance: Variance
) -> Array:
    """D of steps from `start` to `stop` with the exact score, in nats; shapes broadcast.

    Parameters
    ----------
    process : Process
    law : Law
    start, stop : array_like
        Times τ > τ'.
    variance : {"large", "small"}
        ς² = β, or β̃ but in a step to 0.
    """
    start, stop = np.broadcast_arrays(np.asarray(start, float), np.asarray(stop, float))
    times, place = np.unique(np.concatenate([start.ravel(), stop.ravel()]), return_inverse=True)
    m, v = process.mean_scale(times), process.kernel_variance(times)
    shape = (2, *start.shape)
    entropy = _entropy(law, m, v)[place].reshape(shape)
    spreads = m[:, None] ** 2 * law.principal_variances + v[:, None]
    before, after = spreads[place].reshape(*shape, law.dimension)
    (m, m_next), (v, _) = m[place].reshape(shape), v[place].reshape(shape)
    own, d = step_variances(process, start, stop, variance), law.dimension
    # (d β − β² J)/α, whose terms nearly cancel in long steps
    spread = own.beta * np.sum(after / before, axis=-1)
    spread = spread - own.beta**2 * _excess(law, m_next, m, v)
    loss = 0.5 * (d * np.log(own.model / own.beta) - d + spread / own.model)
    loss = loss + entropy[0] - entropy[1]
    return np.asarray(np.maximum(loss, 0.0))  # rounding of a difference of entropies


def ddpm_bound(
    process: Process,
    law: Law,
    times: npt.ArrayLike,
    score_mse: npt.ArrayLike,
    variance: Variance = "large",
) -> DDPMBound:
    """The evidence bound of DDPM, and the bound of KL that it is, see the module.

    Parameters
    ----------
    process : Process
    law : Law
        π_data, of known entropy and Fisher information.
    times : array_like, shape (N + 1,)
        Decreasing grid from T to 0.
    score_mse : array_like, shape (..., N)
        E_{p_τ}|s_θ − s|² at the departure times τ₀, …, τ_{N−1}.
    variance : {"large", "small"}

    Returns
    -------
    DDPMBound

    Raises
    ------
    ValueError
        If a shape is wrong, or the grid does not end at the data.
    """
    times = np.asarray(times, dtype=np.float64)
    mse = np.asarray(score_mse, dtype=np.float64)
    if times.ndim != 1 or times.size < 2 or mse.shape[-1:] != (times.size - 1,):
        raise ValueError(f"score_mse has shape {mse.shape}: must be (..., {times.size - 1})")
    if times[-1] != 0:
        raise ValueError(f"times end at {float(times[-1])!r}: must end at 0, where the decoder is")
    start, stop, d = times[:-1], times[1:], law.dimension
    m, v = process.mean_scale(start), process.kernel_variance(start)
    m_next = process.mean_scale(stop)
    own = step_variances(process, start, stop, variance)
    # (d/v − J)/α
    spread = m[:, None] ** 2 * law.principal_variances + v[:, None]
    missing = m_next**2 / v * np.sum(law.principal_variances / spread, axis=-1)
    missing = missing - _excess(law, m_next, m, v)
    score_error = own.weighted(mse)
    ratio = np.append((own.posterior / own.model)[:-1], 1.0)
    gap = 0.5 * d * (ratio - 1 - np.log(ratio))
    gap[-1] = 0.5 * d * np.log(2 * np.pi * own.model[-1])
    prior, scale, noise = process.prior_variance, float(m[0]), float(v[0])
    share = noise / prior
    squared = scale**2 * law.second_moment / prior
    return DDPMBound(
        terminal=np.asarray(law.kl_to_normal(prior, scale, noise)),
        discretization=step_losses(process, law, start, stop, variance),
        score_error=score_error,
        prior_loss=np.asarray(0.5 * (squared + d * (share - 1 - np.log(share)))),
        step_loss=score_error + own.beta**2 / (2 * own.model) * missing + gap,
    )
