"""The law of X given a linear observation of it, y = H X + √r ξ with ξ ~ N(0, I).

For X ~ N(μ, Σ), with S = HΣHᵀ + r and the gain K = ΣHᵀS⁻¹,

    X | y ~ N(μ + K(y − Hμ), (I − KH) Σ (I − KH)ᵀ + r KKᵀ),

a sum of squares, which stays positive (Joseph's form). For a mixture each component does the
same, and its weight is multiplied by the evidence N(y; Hμ_k, S_k): so a posterior is a target
like others, of known density, noised scores and divergences. It remembers its prior and its
observation, for the scores that know these alone (`sgm.guidance`).

A component of a mixture, tilted by a power of its classifier, is what guidance by classes is said
to sample (`sgm.densities.tilted`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sgm.arguments import shown
from sgm.densities.affine import Affine
from sgm.densities.base import Law
from sgm.densities.mixture import GaussianMixture
from sgm.densities.product import Product
from sgm.densities.tilted import TiltedMixture
from sgm.gaussian import Gaussian
from sgm.random import stream
from sgm.registry import Index, NonNegative, Positive, Real, Seed, register
from sgm.targets.base import LawTarget, require_positive

__all__ = [
    "GaussianPosterior",
    "MixturePosterior",
    "Observation",
    "given",
    "posterior",
    "tilted",
]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Observation:
    """What is known of X: its prior, and y = H X + √r ξ.

    Parameters
    ----------
    prior : Gaussian or GaussianMixture
    operator : ndarray, shape (k, d)
        H.
    value : ndarray, shape (k,)
        y.
    variance : float
        r.
    """

    prior: Gaussian | GaussianMixture
    operator: Array
    value: Array
    variance: float

    @property
    def coordinates(self) -> npt.NDArray[np.intp] | None:
        """The coordinates that are observed, one a row of H; None if H mixes them."""
        rows, columns = np.nonzero(self.operator)
        single = np.array_equal(rows, np.arange(len(self.value)))
        distinct = len(set(columns.tolist())) == len(columns)
        ones = bool(np.all(self.operator[rows, columns] == 1))
        return columns if single and distinct and ones else None

    def log_likelihood(self, x: npt.ArrayLike) -> Array:
        """log N(y; H x, r I) of x of shape (..., d), shape (...)."""
        square = np.sum((self.value - np.asarray(x) @ self.operator.T) ** 2, axis=-1)
        constant = len(self.value) * np.log(2 * np.pi * self.variance)
        return np.asarray(-0.5 * (square / self.variance + constant))

    @property
    def log_evidence(self) -> float:
        """Log p(y) in nats, for a Gaussian prior: log N(y; H μ, H Σ Hᵀ + r I)."""
        if not isinstance(self.prior, Gaussian):
            raise ValueError(f"prior = {shown(self.prior)}: must be Gaussian")
        h, k = self.operator, len(self.value)
        covariance = h @ self.prior.covariance @ h.T + self.variance * np.eye(k)
        gap = self.value - h @ self.prior.mean
        square = gap @ np.linalg.solve(covariance, gap)
        return float(-0.5 * (square + np.linalg.slogdet(2 * np.pi * covariance)[1]))


@dataclass(frozen=True, eq=False)
class GaussianPosterior(Gaussian):
    """The Gaussian law of X given an observation of it.

    Parameters
    ----------
    observation : Observation
        Of a Gaussian prior.
    """

    observation: Observation


@dataclass(frozen=True, eq=False)
class MixturePosterior(GaussianMixture):
    """The law of X given an observation of some coordinates, a mixture as the prior is.

    Parameters
    ----------
    observation : Observation
        Of a mixture as prior.
    """

    observation: Observation


@register("target", of_prior="posterior")
def posterior(
    prior: LawTarget,
    observed: Sequence[Index] | Sequence[Sequence[Real]],
    noise: Positive,
    observation: Sequence[Real] | None = None,
    observation_seed: Seed = 0,
) -> LawTarget:
    """The law of X ~ prior given y = H X + √noise ξ; Gaussian or a mixture as the prior is.

    Parameters
    ----------
    prior : LawTarget
        A Gaussian target, or one of the mixtures of Gaussians: its keys as among `targets`.
    observed : list of k integers, or k lists of d numbers
        The coordinates that are observed, from 0; or, of a Gaussian prior, the rows of H.
    noise : float
        r, the variance of the noise of each observed number.
    observation : list of k numbers, optional
        y; by default drawn: H x + √r ξ of one draw x of the prior.
    observation_seed : int
        Seed of that draw.

    Returns
    -------
    LawTarget
        Its law is a `GaussianPosterior` or a `MixturePosterior`, in the coordinates of the prior.

    Raises
    ------
    ValueError
        If the prior is neither Gaussian nor a mixture of Gaussians, coordinates are out of range or
        repeated, H or y has another shape, or y is impossible under the prior in float64.
    """
    require_positive("noise", noise)
    law = prior.law if isinstance(prior.law, Gaussian) else _as_mixture(prior.law)
    if law is None:
        raise ValueError(
            f"prior: law = {shown(prior.law)}: must be Gaussian or a mixture of Gaussians"
        )
    operator = _operator(observed, law.dimension)
    value = _value(observation, observation_seed, operator, noise, law)
    conditioned = given(Observation(law, operator, value, noise))
    return LawTarget(conditioned, prior.coordinates, prior.image_shape)


def given(known: Observation) -> GaussianPosterior | MixturePosterior:
    """The law of X given an observation.

    Raises
    ------
    ValueError
        If H mixes coordinates of a mixture, or the law leaves the range of float64.
    """
    if isinstance(known.prior, Gaussian):
        return _gaussian_given(known.prior, known)
    return _mixture_given(known.prior, known)


@register("target", of_prior="tilted", axes={"weight": "w"})
def tilted(prior: LawTarget, component: Index, weight: NonNegative) -> LawTarget:
    """p(x | c) p(c | x)^w of a mixture whose classes are its components, in 1-D or 2-D.

    Parameters
    ----------
    prior : LawTarget
        One of the mixtures of Gaussians, of dimension 1 or 2: its keys as among `targets`.
    component : int
        c, from 0.
    weight : float
        w; 0 is the component itself.

    Returns
    -------
    LawTarget
        Of a `TiltedMixture`, in the coordinates of the prior.

    Raises
    ------
    ValueError
        If the prior is no mixture of Gaussians, or see `TiltedMixture`.
    """
    law = None if isinstance(prior.law, Gaussian) else _as_mixture(prior.law)
    if law is None:
        raise ValueError(f"prior: law = {shown(prior.law)}: must be a mixture of Gaussians")
    return LawTarget(TiltedMixture(law, component, weight), prior.coordinates, prior.image_shape)


def _as_mixture(law: Law) -> GaussianMixture | None:
    """A law as a mixture of Gaussians with diagonal covariances; None if it is none."""
    match law:
        case GaussianMixture():
            return law
        case Gaussian() if np.array_equal(law.basis, np.eye(law.dimension)):
            return GaussianMixture(np.ones(1), law.mean[None], law.eigenvalues[None])
        case Affine():
            base = _as_mixture(law.base)
            if base is None:
                return None
            means = (base.means - law.center) / law.scale
            return GaussianMixture(base.weights, means, base.variances / law.scale**2)
        case Product():
            product, *others = (_as_mixture(factor) for factor in law.factors)
            for factor in others:
                if product is None or factor is None:
                    return None
                product = _paired(product, factor)
            return product
    return None


def _paired(first: GaussianMixture, second: GaussianMixture) -> GaussianMixture:
    """The mixture of two independent blocks of coordinates."""
    i, j = (part.ravel() for part in np.indices((len(first.weights), len(second.weights))))
    means, variances = (
        np.concatenate([a[i], b[j]], axis=1)
        for a, b in ((first.means, second.means), (first.variances, second.variances))
    )
    return GaussianMixture(first.weights[i] * second.weights[j], means, variances)


def _operator(observed: Sequence[int] | Sequence[Sequence[float]], dimension: int) -> Array:
    """H, shape (k, d)."""
    try:
        given = np.asarray(observed, dtype=np.float64)
    except (TypeError, ValueError):
        given = np.empty(0)
    if given.ndim == 2 and given.shape[1] == dimension and len(given):
        if not (np.all(np.isfinite(given)) and np.all(np.any(given, axis=1))):
            raise ValueError(f"observed = {observed!r}: rows must be finite, and none all zero")
        return given
    places = [int(place) for place in given] if given.ndim == 1 else []
    distinct = bool(places) and len(set(places)) == len(places) and list(given) == places
    if not (distinct and all(0 <= place < dimension for place in places)):
        raise ValueError(
            f"observed = {observed!r}: must be distinct coordinates from 0 to {dimension - 1}, or "
            f"lists of {dimension} numbers"
        )
    return np.eye(dimension)[places]


def _value(
    observation: Sequence[float] | None, seed: int, operator: Array, noise: float, law: Law
) -> Array:
    """y, shape (k,)."""
    if observation is None:
        generator = stream(seed, "observation")
        x = law.sample(1, generator)[0]
        return np.asarray(operator @ x + np.sqrt(noise) * generator.standard_normal(len(operator)))
    value = np.asarray(observation, dtype=np.float64)
    if value.shape != (len(operator),) or not np.all(np.isfinite(value)):
        raise ValueError(
            f"observation = {list(observation)!r}: must be {len(operator)} finite numbers, one an "
            "observed one"
        )
    return value


def _gaussian_given(law: Gaussian, known: Observation) -> GaussianPosterior:
    h, r, covariance = known.operator, known.variance, law.covariance
    spread = h @ covariance @ h.T + r * np.eye(len(h))
    gain = np.linalg.solve(spread, h @ covariance).T
    kept = np.eye(law.dimension) - gain @ h
    remaining = kept @ covariance @ kept.T + r * gain @ gain.T
    mean = law.mean + gain @ (known.value - h @ law.mean)
    try:
        own = Gaussian.from_covariance(mean, (remaining + remaining.T) / 2)
    except ValueError as error:
        raise ValueError(
            f"noise = {r!r}: must leave a posterior that float64 can tell from a degenerate one: "
            f"{error}"
        ) from error
    return GaussianPosterior(own.mean, own.eigenvalues, own.basis, known)


def _mixture_given(law: GaussianMixture, known: Observation) -> MixturePosterior:
    """Each component given its observed coordinates, which its diagonal covariance keeps apart."""
    places, r = known.coordinates, known.variance
    if places is None:
        raise ValueError(
            "observed: must be coordinates, or lists with a single 1 each, for a prior that is a "
            "mixture: only then its posterior is one of diagonal covariances"
        )
    means, variances = law.means.copy(), law.variances.copy()
    seen = variances[:, places]
    gap, spread = known.value - means[:, places], seen + r
    means[:, places] += seen / spread * gap
    variances[:, places] = seen * (r / spread)
    evidence = np.log(law.weights) - 0.5 * np.sum(gap**2 / spread + np.log(spread), axis=1)
    weights = np.exp(evidence - np.max(evidence))
    weights /= np.sum(weights)
    held = weights > 0  # the others are impossible in float64
    if not np.all(np.isfinite(weights)) or np.any(variances <= 0):
        raise ValueError(
            f"observation = {known.value.tolist()!r}, noise = {r!r}: must give a posterior in the "
            "range of float64"
        )
    return MixturePosterior(weights[held], means[held], variances[held], known)
