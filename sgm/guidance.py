"""Scores of a posterior by those who know its prior's score and the observation alone.

The target is the law of X₀ given y = H X₀ + √r ξ (`sgm.targets.posterior`), whose exact score is

    ∇log p_t(x | y) = ∇log p_t(x) + ∇_x log p(y | X_t = x).

Methods of controlled generation have the first term, a trained network, and approximate the second.
With the denoiser x̂₀ = E[X₀ | X_t = x] and its Jacobian J = (m/v) Cov(X₀ | X_t = x), which is
symmetric, those of this module say

    g = w J Hᵀ (H C Hᵀ + r)⁻¹ (y − H x̂₀):

    dps               C = 0:  ∇_x log p(y | X₀ = x̂₀)
    pigdm             C = s² v/(m² s² + v), as if X₀ ~ N(·, s² I)
    moment_guidance   C = Cov(X₀ | X_t = x), its derivative in x left out; exact if X₀ is Gaussian

`replacement` takes for the observed coordinates the score of their own noised law given y, and for
the others that of the prior; `classifier_free` mixes the exact scores of a posterior and the prior,
and `class_guidance` those of a component and the mixture.

For a Gaussian prior all of them are affine with matrices of no common basis: their samplers' laws
are exact (`sgm.laws.affine_law`), and so is their error. For a mixture x̂₀ and J are closed forms.

Each has a potential g̃_t, by which particles are weighed (`sgm.particles`): what it takes for
p(y | X_t = x), and, but for `replacement`, the function whose gradient it adds to ∇log p_t, with
the change of C with x left out.

Sources
-------
Chung et al. (arXiv 2209.14687) for `dps`; Song, Vahdat, Mardani and Kautz (ICLR 2023) for `pigdm`;
Boys et al. (arXiv 2310.06721) and Rozet et al. (arXiv 2405.13712) for `moment_guidance`; Song et
al. (arXiv 2011.13456) and Trippe et al. (arXiv 2206.04119) for `replacement`; Ho and Salimans
(arXiv 2207.12598) for `classifier_free`. J by differentiating Tweedie's formula.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from sgm.arguments import require_finite, require_instance, shown
from sgm.densities.base import Law
from sgm.densities.tilted import TiltedMixture
from sgm.gaussian import Gaussian
from sgm.processes import Process
from sgm.registry import NonNegative, register
from sgm.scores import exact
from sgm.targets.posteriors import GaussianPosterior, MixturePosterior, Observation, given

__all__ = [
    "ClassGuidanceScore",
    "ClassifierFreeScore",
    "ControlledScore",
    "GuidedScore",
    "Proposal",
    "ReplacementScore",
    "class_guidance",
    "classifier_free",
    "dps",
    "moment_guidance",
    "pigdm",
    "replacement",
]

Array = npt.NDArray[np.float64]
Posterior = GaussianPosterior | MixturePosterior


class Proposal(NamedTuple):
    """What moves particles at x, and what weighs them.

    Parameters
    ----------
    score, prior_score : ndarray, shape (..., d)
        s(t, x) and ∇log p_t(x) of the prior.
    log_potential : ndarray, shape (...)
        log g̃_t(x), up to one number for all t and x.
    """

    score: Array
    prior_score: Array
    log_potential: Array


@dataclass(frozen=True, eq=False)
class ControlledScore(ABC):
    """An approximation to the score of a posterior.

    Parameters
    ----------
    process : Process
    law : GaussianPosterior or MixturePosterior
        Law of X₀ given the observation.

    Raises
    ------
    ValueError
        If `law` is no posterior, or a rescaled one, which has lost its observation.
    """

    process: Process
    law: Posterior

    #: The laws that it is for, and the target that has one.
    laws: ClassVar[Any] = Posterior
    target: ClassVar[str] = "posterior"

    def __post_init__(self) -> None:
        require_instance(Process, process=self.process)
        if not isinstance(self.law, self.laws):
            raise ValueError(
                f"law = {shown(self.law)}: must be that of a target `{self.target}`, not rescaled; "
                "its prior may be"
            )

    @abstractmethod
    def __call__(self, x: npt.ArrayLike, t: npt.ArrayLike) -> Array:
        """s(t, x) of x of shape (..., d), t of shape () or that leading one; shape (..., d)."""

    def coefficients(self, t: npt.ArrayLike) -> tuple[Array, Array]:
        """(A, b) with s(t, x) = A x + b, for a Gaussian prior.

        Parameters
        ----------
        t : array_like, shape (...)

        Returns
        -------
        A : ndarray, shape (..., d, d)
        b : ndarray, shape (..., d)

        Raises
        ------
        ValueError
            For another prior than a Gaussian: the score is not affine.
        """
        raise ValueError(f"law = {shown(self.law)}: must be Gaussian for an affine score")

    def _gaussian(self, law: Law) -> Gaussian:
        """The law, which must be Gaussian."""
        if not isinstance(law, Gaussian):
            raise ValueError(f"law = {shown(law)}: must be Gaussian for an affine score")
        return law

    def error_moments(self, law: Law, t: npt.ArrayLike) -> tuple[Array, Array]:
        """Moments of the error under p_t, as `sgm.scores.GaussianScore.error_moments`.

        With e = M x + δ and p_t = N(a, C),

            mse = tr(M C Mᵀ) + |M a + δ|²,
            cross = tr(M (C − σ²))/σ² + ⟨a, M a + δ⟩/σ².

        Parameters
        ----------
        law : Law
            The posterior itself.
        t : array_like, shape (...)

        Returns
        -------
        mse, cross : ndarray, shape (...)
            NaN for another prior than a Gaussian: there they have no closed form.
        """
        if law is not self.law:
            raise ValueError(f"law = {shown(law)}: must be the law of the score itself")
        if not isinstance(law, Gaussian):
            unknown = np.full(np.shape(t), np.nan)
            return unknown, unknown.copy()
        noised, m = self.process.marginal(law, t), self.process.mean_scale(t)[..., None]
        own, true = self.coefficients(t), _exact_coefficients(self.process, law, t)
        matrix, offset = own[0] - true[0], own[1] - true[1]
        mean_error = (matrix @ noised.mean[..., None])[..., 0] + offset
        turned = matrix @ law.basis
        mse = np.sum(turned**2 * noised.eigenvalues[..., None, :], axis=(-2, -1))
        mse = mse + np.sum(mean_error**2, axis=-1)
        # C/σ² − 1 = m² (λ − σ²)/σ², which does not cancel at large times
        variance = self.process.variance
        gap = m**2 * (law.eigenvalues / variance - 1)
        cross = np.sum(np.einsum("ji,...ji->...i", law.basis, turned) * gap, axis=-1)
        cross = cross + np.sum(noised.mean * mean_error, axis=-1) / variance
        return np.asarray(mse), np.asarray(cross)


def _exact_coefficients(process: Process, law: Gaussian, t: npt.ArrayLike) -> tuple[Array, Array]:
    """(A, b) of the exact score A x + b."""
    slope, offset = exact(process, law).coefficients(t)
    matrix = (law.basis * slope[..., None, :]) @ law.basis.T
    return np.asarray(matrix), np.asarray(offset @ law.basis.T)


class _Denoised(NamedTuple):
    """The prior given X_t = x, in its basis: score, mean, J Hᵀ and H Cov Hᵀ."""

    score: Array
    mean: Array
    response: Array
    covariance: Array


@dataclass(frozen=True, eq=False)
class _Prior:
    """A prior as a mixture in a basis U, and the operator H U in that basis."""

    weights: Array
    means: Array
    variances: Array
    basis: Array
    operator: Array

    @classmethod
    def of(cls, observation: Observation) -> _Prior:
        prior, h = observation.prior, observation.operator
        if isinstance(prior, Gaussian):
            mean, variances = prior.rotate(prior.mean)[None], prior.eigenvalues[None]
            return cls(np.ones(1), mean, variances, prior.basis, h @ prior.basis)
        return cls(prior.weights, prior.means, prior.variances, np.eye(prior.dimension), h)

    def given(self, y: Array, m: Array, v: Array) -> _Denoised:
        """The prior given X_t, of coordinates y (..., d) in the basis; m and v of shape (...).

        Every component has its own denoiser a_k = μ_k + m S_k (y − m μ_k)/V_k and score s_k, with
        a_k − ā = (v/m)(s_k − s̄): no difference is taken that vanishes with v or with m.
        """
        m, v = m[..., None, None], v[..., None, None]
        shift, noised = y[..., None, :] - m * self.means, m**2 * self.variances + v
        joint = np.log(self.weights) - 0.5 * np.sum(shift**2 / noised + np.log(noised), axis=-1)
        share = np.exp(joint - np.max(joint, axis=-1, keepdims=True))
        share /= np.sum(share, axis=-1, keepdims=True)
        scores = -shift / noised
        means = self.means - m * self.variances * scores
        score, mean = (np.einsum("...k,...kd->...d", share, part) for part in (scores, means))
        scores, means = scores - score[..., None, :], means - mean[..., None, :]
        slope = np.einsum("...k,...kd->...d", share, m * self.variances / noised)
        within = np.einsum("...k,...kd->...d", share, self.variances * (v / noised))
        h = self.operator
        seen, seen_scores = means @ h.T, scores @ h.T
        response = slope[..., :, None] * h.T
        response = response + np.einsum("...k,...kd,...ki->...di", share, means, seen_scores)
        covariance = (h * within[..., None, :]) @ h.T
        covariance = covariance + np.einsum("...k,...ki,...kj->...ij", share, seen, seen)
        return _Denoised(score, mean, response, covariance)


Spread = Callable[["GuidedScore", _Denoised, Array, Array], Array]
"""H C Hᵀ, the covariance that a method ascribes to H X₀ given X_t, shape (..., k, k)."""


@dataclass(frozen=True, eq=False)
class GuidedScore(ControlledScore):
    """∇log p_t + w J Hᵀ (H C Hᵀ + r)⁻¹ (y − H x̂₀), with the prior's p_t, x̂₀ and J.

    Parameters
    ----------
    spread : callable
        What the method takes for H C Hᵀ.
    weight : float
        w ≥ 0; 1 is the formula as it is derived, 0 the prior.
    """

    spread: Spread
    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_finite(weight=self.weight)

    @cached_property
    def _prior(self) -> _Prior:
        return _Prior.of(self.law.observation)

    def _covariance(self, given: _Denoised, m: Array, v: Array) -> Array:
        """H C Hᵀ + r, shape (..., k, k)."""
        r, k = self.law.observation.variance, len(self.law.observation.value)
        return np.asarray(self.spread(self, given, m, v) + r * np.eye(k))

    def _gain(self, given: _Denoised, m: Array, v: Array) -> Array:
        """w J Hᵀ (H C Hᵀ + r)⁻¹, shape (..., d, k)."""
        covariance = self._covariance(given, m, v)
        return np.asarray(self.weight * given.response @ np.linalg.inv(covariance))

    def _at_zero(self, m: Array, v: Array) -> _Denoised:
        """A Gaussian prior given X_t = 0: score b, x̂₀ = v μ/V, and the J and C of every x."""
        return self._prior.given(np.zeros((*np.shape(m), self.law.dimension)), m, v)

    def __call__(self, x: npt.ArrayLike, t: npt.ArrayLike) -> Array:
        if isinstance(self.law, Gaussian):  # one matrix a time, not one a row
            matrix, offset = self.coefficients(t)
            x = np.asarray(x, dtype=np.float64)
            turned = x @ matrix.T if matrix.ndim == 2 else (matrix @ x[..., None])[..., 0]
            return np.asarray(turned + offset)
        m, v = self.process.mean_scale(t), self.process.kernel_variance(t)
        given, gap = self._given(x, m, v)
        return self._guided(given, gap, m, v)

    def _given(self, x: npt.ArrayLike, m: Array, v: Array) -> tuple[_Denoised, Array]:
        """The prior given X_t = x, and y − H x̂₀."""
        prior = self._prior
        given = prior.given(np.asarray(x, dtype=np.float64) @ prior.basis, m, v)
        return given, self.law.observation.value - given.mean @ prior.operator.T

    def _guided(self, given: _Denoised, gap: Array, m: Array, v: Array) -> Array:
        """The score, from what is known of the prior given X_t."""
        shift = (self._gain(given, m, v) @ gap[..., None])[..., 0]
        return np.asarray((given.score + shift) @ self._prior.basis.T)

    def propose(self, x: npt.ArrayLike, t: npt.ArrayLike) -> Proposal:
        """g̃_t(x) = N(y; H x̂₀, H C Hᵀ + r)^w, for t of shape ()."""
        m, v = self.process.mean_scale(t), self.process.kernel_variance(t)
        known, prior = self.law.observation, self._prior
        if isinstance(known.prior, Gaussian):
            given = self._at_zero(m, v)
            slope = m * prior.variances[0] / (m**2 * prior.variances[0] + v)
            mean = given.mean + (np.asarray(x, dtype=np.float64) @ prior.basis) * slope
            gap = known.value - mean @ prior.operator.T
            score, prior_score = self(x, t), known.prior.score(x, m, v)
        else:
            given, gap = self._given(x, m, v)
            score, prior_score = self._guided(given, gap, m, v), given.score @ prior.basis.T
        covariance = self._covariance(given, m, v)
        turned = np.einsum("...i,...ij->...j", gap, np.linalg.inv(covariance))
        spread = np.linalg.slogdet(2 * np.pi * covariance)[1]
        log_potential = -0.5 * self.weight * (np.sum(turned * gap, axis=-1) + spread)
        return Proposal(score, prior_score, np.asarray(log_potential))

    def coefficients(self, t: npt.ArrayLike) -> tuple[Array, Array]:
        self._gaussian(self.law)
        prior = self._prior
        m, v = self.process.mean_scale(t), self.process.kernel_variance(t)
        mean, variance, basis = prior.means[0], prior.variances[0], prior.basis
        at_zero = self._at_zero(m, v)
        gain = self._gain(at_zero, m, v)
        noised = m[..., None] ** 2 * variance + v[..., None]
        seen = prior.operator * (m[..., None] * variance / noised)[..., None, :]  # H J
        matrix = -(gain @ seen)
        places = np.arange(len(mean))
        matrix[..., places, places] -= 1 / noised
        gap = self.law.observation.value - (v[..., None] * mean / noised) @ prior.operator.T
        offset = at_zero.score + (gain @ gap[..., None])[..., 0]
        return np.asarray(basis @ matrix @ basis.T), np.asarray(offset @ basis.T)


def _nothing(score: GuidedScore, given: _Denoised, m: Array, v: Array) -> Array:
    return np.zeros_like(given.covariance)


def _isotropic(score: GuidedScore, given: _Denoised, m: Array, v: Array) -> Array:
    """s² v/(m² s² + v) H Hᵀ, s² the prior's mean variance; the paper has s = 1."""
    prior, h = score.law.observation.prior, score.law.observation.operator
    s2 = float(np.mean(prior.principal_variances))
    return np.asarray((s2 * v / (m**2 * s2 + v))[..., None, None] * (h @ h.T))


def _exact_moments(score: GuidedScore, given: _Denoised, m: Array, v: Array) -> Array:
    return given.covariance


@register("score", axes={"weight": "w"}, needs="posterior")
def dps(process: Process, law: Law, weight: NonNegative = 1.0) -> GuidedScore:
    """Diffusion posterior sampling: the gradient of log p(y | X₀ = x̂₀(x)), times a weight.

    The paper's own algorithm divides the gradient by |y − H x̂₀| and adds it once a step, whatever
    the step's length: no score, so not here.

    Parameters
    ----------
    process : Process
    law : Law
        Of a target `posterior`.
    weight : float
        w; 1 is the formula as it is derived, 0 samples the prior.

    Returns
    -------
    GuidedScore
    """
    return GuidedScore(process, law, _nothing, weight)  # type: ignore[arg-type]


@register("score", axes={"weight": "w"}, needs="posterior")
def pigdm(process: Process, law: Law, weight: NonNegative = 1.0) -> GuidedScore:
    """Pseudoinverse guidance (ΠGDM): as if X₀ given X_t had covariance s²v/(m²s² + v) I.

    Parameters
    ----------
    process : Process
    law : Law
        Of a target `posterior`; s² is the mean variance of a coordinate of its prior.
    weight : float
        w; 1 is the formula as it is derived, 0 samples the prior.

    Returns
    -------
    GuidedScore
    """
    return GuidedScore(process, law, _isotropic, weight)  # type: ignore[arg-type]


@register("score", axes={"weight": "w"}, needs="posterior")
def moment_guidance(process: Process, law: Law, weight: NonNegative = 1.0) -> GuidedScore:
    """Moment matching: X₀ given X_t as a Gaussian with the covariance (v/m) J of the denoiser.

    Exact for a Gaussian prior and weight 1.

    Parameters
    ----------
    process : Process
    law : Law
        Of a target `posterior`.
    weight : float
        w; 1 is the formula as it is derived, 0 samples the prior.

    Returns
    -------
    GuidedScore
    """
    return GuidedScore(process, law, _exact_moments, weight)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class ReplacementScore(ControlledScore):
    """−(x − m y)/(m² r + v) of the observed coordinates, the prior's score of the others.

    Raises
    ------
    ValueError
        If what is observed are not coordinates.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.law.observation.coordinates is None:
            raise ValueError("observed: must be coordinates for the score `replacement`")

    def __call__(self, x: npt.ArrayLike, t: npt.ArrayLike) -> Array:
        known = self.law.observation
        m, v = self.process.mean_scale(t), self.process.kernel_variance(t)
        x = np.asarray(x, dtype=np.float64)
        score = known.prior.score(x, m, v)
        shift = x[..., known.coordinates] - m[..., None] * known.value
        score[..., known.coordinates] = -shift / (m**2 * known.variance + v)[..., None]
        return score

    def propose(self, x: npt.ArrayLike, t: npt.ArrayLike) -> Proposal:
        """g̃_t(x) = N(H x; m y, m² r + v), for t of shape ()."""
        known = self.law.observation
        m, v = self.process.mean_scale(t), self.process.kernel_variance(t)
        shift = np.asarray(x)[..., known.coordinates] - m * known.value
        variance = m**2 * known.variance + v
        log_potential = -0.5 * np.sum(shift**2 / variance + np.log(2 * np.pi * variance), axis=-1)
        return Proposal(self(x, t), known.prior.score(x, m, v), np.asarray(log_potential))

    def coefficients(self, t: npt.ArrayLike) -> tuple[Array, Array]:
        known = self.law.observation
        matrix, offset = _exact_coefficients(self.process, self._gaussian(known.prior), t)
        m, v = self.process.mean_scale(t)[..., None], self.process.kernel_variance(t)[..., None]
        own = 1 / (m**2 * known.variance + v)
        matrix[..., known.coordinates, :] = 0.0
        matrix[..., known.coordinates, known.coordinates] = -own
        offset[..., known.coordinates] = m * known.value * own
        return matrix, offset


@register("score", needs="posterior")
def replacement(process: Process, law: Law) -> ReplacementScore:
    """Inpainting by replacement: the observed coordinates follow their own noised law given y.

    The others follow the prior's score at the point so made. With r → 0 the observed path is that
    of the noised observation, as in the method that draws and inserts it at every step.

    Parameters
    ----------
    process : Process
    law : Law
        Of a target `posterior` whose `observed` are coordinates.

    Returns
    -------
    ReplacementScore
    """
    return ReplacementScore(process, law)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class ClassifierFreeScore(ControlledScore):
    """(1 + w) ∇log p_t(x | y′) − w ∇log p_t(x), y′ = y observed with noise of variance (1 + w) r.

    Parameters
    ----------
    weight : float
        w ≥ 0.
    """

    weight: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require_finite(weight=self.weight)

    @cached_property
    def conditional(self) -> Posterior:
        """The law of X₀ given y′."""
        known = self.law.observation
        return given(replace(known, variance=(1 + self.weight) * known.variance))

    def __call__(self, x: npt.ArrayLike, t: npt.ArrayLike) -> Array:
        m, v, w = self.process.mean_scale(t), self.process.kernel_variance(t), self.weight
        known, prior = self.conditional, self.law.observation.prior
        return np.asarray((1 + w) * known.score(x, m, v) - w * prior.score(x, m, v))

    def propose(self, x: npt.ArrayLike, t: npt.ArrayLike) -> Proposal:
        """g̃_t(x) = [p_t(x | y′)/p_t(x)]^(1 + w), which is p(y′ | X_t = x)^(1 + w)/p(y′)^(1 + w)."""
        m, v = self.process.mean_scale(t), self.process.kernel_variance(t)
        known, prior = self.conditional, self.law.observation.prior
        evidence = known.log_density(x, m, v) - prior.log_density(x, m, v)
        return Proposal(self(x, t), prior.score(x, m, v), (1 + self.weight) * evidence)

    def coefficients(self, t: npt.ArrayLike) -> tuple[Array, Array]:
        laws = (self.conditional, self.law.observation.prior)
        known, prior = (_exact_coefficients(self.process, self._gaussian(law), t) for law in laws)
        w = self.weight
        return (1 + w) * known[0] - w * prior[0], (1 + w) * known[1] - w * prior[1]


@register("score", axes={"weight": "w"}, needs="posterior")
def classifier_free(process: Process, law: Law, weight: NonNegative) -> ClassifierFreeScore:
    """Classifier-free guidance: (1 + w) times a conditional score, less w times the prior's.

    Guidance is said to sample p(x | y′) p(y′ | x)^w ∝ p(x) p(y′ | x)^(1 + w).
    A Gaussian likelihood to the power 1 + w is one of 1/(1 + w) of its variance: so the
    conditional score is that of y observed with noise of variance (1 + w) r, and what is said to be
    sampled is the target, whatever w. At t = 0 the score is the target's, at w = 0 at all times.

    Parameters
    ----------
    process : Process
    law : Law
        Of a target `posterior`.
    weight : float
        w; 0 is no guidance.

    Returns
    -------
    ClassifierFreeScore
    """
    return ClassifierFreeScore(process, law, weight)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class ClassGuidanceScore(ControlledScore):
    """(1 + w) ∇log p_t(x | c) − w ∇log p_t(x), classes being the components of a mixture."""

    law: TiltedMixture  # type: ignore[assignment]

    laws = TiltedMixture
    target = "tilted"

    def __call__(self, x: npt.ArrayLike, t: npt.ArrayLike) -> Array:
        m, v, w = self.process.mean_scale(t), self.process.kernel_variance(t), self.law.weight
        return np.asarray((1 + w) * self.law.own.score(x, m, v) - w * self.law.base.score(x, m, v))


@register("score", needs="tilted")
def class_guidance(process: Process, law: Law) -> ClassGuidanceScore:
    """Classifier-free guidance with the weight w of a target `tilted`, which it is said to sample.

    Parameters
    ----------
    process : Process
    law : Law
        Of a target `tilted`: p(x | c) p(c | x)^w.

    Returns
    -------
    ClassGuidanceScore
    """
    return ClassGuidanceScore(process, law)  # type: ignore[arg-type]
