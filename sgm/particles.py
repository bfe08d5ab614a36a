"""Particles for a posterior: importance weights and twisted sequential Monte Carlo.

A sampler whose every step is Gaussian makes of the prior's score a Markov chain p_θ, x₀ → … → x_N,
in the order of the simulation. What can be sampled exactly with it is not the posterior, but

    φ(x_N) ∝ p_θ(x_N) g(x_N),    g(x) = N(y; H x, r I).

K particles follow the chain with another score s, a proposal of `sgm.guidance`. With s̄ the prior's
score, a step x′ = α x + γ s(x) + ρ z has

    log p_θ(x′ | x)/q(x′ | x) = −⟨δ, δ/2 + z⟩,    δ = (γ/ρ)(s(x) − s̄(x)),

and the particles' weights are the products of g̃_{k+1}(x′)/g̃_k(x) times these ratios, with the
potentials g̃ of the proposal and g̃_N = g. Where the effective sample size (ΣW)²/ΣW² falls below a
share κ of K, they are drawn anew with their weights, systematically. With κ = 0 they are not before
the end: the potentials cancel, and what is left are importance weights.

- The mean weights multiply to an estimate of the evidence p_θ(y) = ∫ p_θ g without bias, for any K.
- As K → ∞ the law of a particle drawn by its weight is φ: the error of the steps stays, that of the
  proposal goes. For a Gaussian prior φ and p_θ(y) are closed forms (`particle_limit`).
- One particle is the chain of the proposal.

A last step without noise, as `ancestral_small` has onto the data, is taken with the prior's score:
two such steps have no ratio.

Sources
-------
Wu, Trippe, Naesseth, Blei, Cunningham (arXiv 2306.17775), for the potentials p(y | X₀ = x̂₀);
Cardoso, Janati El Idrissi, Le Corff, Moulines (arXiv 2308.07983) for those of `replacement`, with
other kernels; Del Moral, Doucet, Jasra (Biometrika 2006) for weights and evidence; Kitagawa (1996)
for systematic resampling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from sgm.arguments import require_integer
from sgm.densities.base import Law
from sgm.gaussian import Gaussian
from sgm.guidance import (
    ClassifierFreeScore,
    ControlledScore,
    GuidedScore,
    ReplacementScore,
    classifier_free,
    dps,
    moment_guidance,
    pigdm,
    replacement,
)
from sgm.laws import sampler_law
from sgm.processes import Process
from sgm.registry import NonNegative, register
from sgm.samplers import Steps
from sgm.scores import exact
from sgm.targets.posteriors import GaussianPosterior, given

__all__ = [
    "Limit",
    "ParticleScore",
    "Weights",
    "particle_limit",
    "require_gaussian_steps",
    "systematic",
    "twisted_smc",
]

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class ParticleScore(ControlledScore):
    """A proposal, and how many particles follow it; called, the score of the proposal.

    Parameters
    ----------
    proposal : GuidedScore, ReplacementScore or ClassifierFreeScore
        Of the same process and law.
    particles : int
        K ≥ 1, of each filter.
    threshold : float
        κ in [0, 1]: resampling where the effective sample size is below κ K.
    kept : int
        Rows that a filter gives, from 1 to K. Those of different filters are independent.
    """

    proposal: GuidedScore | ReplacementScore | ClassifierFreeScore
    particles: int
    threshold: float
    kept: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer(1, particles=self.particles)
        require_integer(1, kept=self.kept)
        if self.kept > self.particles:
            raise ValueError(
                f"kept = {self.kept}: must be at most {self.particles}, the number of particles"
            )
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold = {self.threshold!r}: must lie in [0, 1]")

    def __call__(self, x: npt.ArrayLike, t: npt.ArrayLike) -> Array:
        return self.proposal(x, t)

    def coefficients(self, t: npt.ArrayLike) -> tuple[Array, Array]:
        return self.proposal.coefficients(t)

    def error_moments(self, law: Law, t: npt.ArrayLike) -> tuple[Array, Array]:
        """NaN: what the particles sample follows no score."""
        unknown = np.full(np.shape(t), np.nan)
        return unknown, unknown.copy()


Guidance = Literal["exact", "dps", "pigdm", "moment_guidance", "replacement", "classifier_free"]


@register("score", axes={"particles": "K", "threshold": "κ"}, needs="posterior")
def twisted_smc(
    process: Process,
    law: Law,
    guidance: Guidance,
    particles: Annotated[int, Interval(ge=1, le=10**5)],
    threshold: Annotated[float, Interval(ge=0, le=1)] = 0.5,
    weight: NonNegative = 1.0,
    kept: Annotated[int, Interval(ge=1, le=10**5)] = 1,
) -> ParticleScore:
    """Twisted sequential Monte Carlo: particles that a guided score moves, weighed and resampled.

    Samplers must draw Gaussian noise in each step, the last one apart.

    Parameters
    ----------
    process : Process
    law : Law
        Of a target `posterior`.
    guidance : str
        The score that moves the particles and whose potential twists their weights; exact is that
        of the posterior.
    particles : int
        K, of each filter.
    threshold : float
        κ: resampling where the effective sample size is below κ K. 0 never does before the end, and
        leaves importance weights; 1 does in each step.
    weight : float
        w of dps, pigdm, moment_guidance and classifier_free.
    kept : int
        Rows of a filter, at most K, which divide `n_samples`. Of 1 they are independent; more cost
        less, and make floors and standard errors too small.

    Returns
    -------
    ParticleScore

    Raises
    ------
    ValueError
        If a weight is given to a score without one, or see `ParticleScore`.
    """
    if guidance in ("exact", "replacement") and weight != 1:
        raise ValueError(f"weight = {weight!r}: must be left out for guidance = {guidance!r}")
    proposals: dict[str, Callable[[], Any]] = {
        "exact": lambda: classifier_free(process, law, 0.0),  # which without guidance is the score
        "dps": lambda: dps(process, law, weight),
        "pigdm": lambda: pigdm(process, law, weight),
        "moment_guidance": lambda: moment_guidance(process, law, weight),
        "replacement": lambda: replacement(process, law),
        "classifier_free": lambda: classifier_free(process, law, weight),
    }
    proposal = proposals[guidance]()
    return ParticleScore(process, proposal.law, proposal, particles, threshold, kept)


def require_gaussian_steps(steps: Steps) -> None:
    """Refuse a sampler that has no ratio of two Gaussian densities in each step.

    Raises
    ------
    ValueError
        If it has more than one register, a stage that evaluates no score or elsewhere than at x, or
        one before the last that draws no noise.
    """
    plain = steps.registers == 1 and bool(np.all(steps.evaluated) and np.all(steps.point == 1))
    if not (plain and np.all(steps.noise[:-1] > 0)):
        raise ValueError(
            "must draw Gaussian noise in each step, the last one apart, and remember nothing, such "
            "as ancestral or euler_maruyama, for the particles of a score twisted_smc"
        )


class Limit(NamedTuple):
    """What particles lead to as K → ∞, of a Gaussian prior.

    Parameters
    ----------
    law : GaussianPosterior
        φ ∝ p_θ g.
    log_evidence : float
        Log p_θ(y), in nats.
    """

    law: GaussianPosterior
    log_evidence: float


def particle_limit(steps: Steps, process: Process, law: GaussianPosterior) -> Limit:
    """The posterior and the evidence of the prior's chain p_θ, exactly.

    Parameters
    ----------
    steps : Steps
        Of the sampler.
    process : Process
    law : GaussianPosterior
        Its observation has the prior.

    Raises
    ------
    ValueError
        If the law of the chain leaves the range of float64.
    """
    known = law.observation
    assert isinstance(known.prior, Gaussian)
    chain = sampler_law(steps, exact(process, known.prior), process.prior(known.prior.dimension))
    if not np.all(np.isfinite(chain.eigenvalues)):
        raise ValueError("steps: must give a chain of the prior's score that stays in float64")
    observation = replace(known, prior=chain)
    limit = given(observation)
    assert isinstance(limit, GaussianPosterior)
    return Limit(limit, observation.log_evidence)


def systematic(shares: Array, uniform: Array, count: int) -> Indices:
    """Indices of particles drawn by their weights: those at (u + j)/n, j = 0 … n − 1.

    Parameters
    ----------
    shares : ndarray, shape (..., K)
        Weights of sum one.
    uniform : ndarray, shape (...)
        u in [0, 1), one a filter.
    count : int
        n.

    Returns
    -------
    ndarray of int, shape (..., n)
        Each particle ⌊n W⌋ or ⌈n W⌉ times, n W in the mean.
    """
    cumulative = np.cumsum(shares, axis=-1)
    below = np.ceil(count * cumulative / cumulative[..., -1:] - uniform[..., None])
    below[..., -1] = count  # which rounding may miss
    drawn = np.diff(np.clip(below, 0, count), axis=-1, prepend=0.0).astype(np.intp)
    places = np.broadcast_to(np.arange(shares.shape[-1]), shares.shape)
    return np.repeat(places.ravel(), drawn.ravel()).reshape(*shares.shape[:-1], count)


class Weights:
    """Weights of filters of K particles, and what they have estimated so far.

    Parameters
    ----------
    shape : tuple of int
        (..., K).

    Attributes
    ----------
    log : ndarray, shape (..., K)
        Log weights since the last resampling.
    log_evidence : ndarray, shape (...)
        Log of the product of mean weights up to there; NaN if all weights of a filter were lost.
    least : ndarray, shape (...)
        The least effective sample size before a resampling, as a share of K.
    resampled : ndarray, shape (...)
        How often a filter was resampled.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.log = np.zeros(shape)
        self.log_evidence = np.zeros(shape[:-1])
        self.least = np.ones(shape[:-1])
        self.resampled = np.zeros(shape[:-1])

    def _shares(self) -> tuple[Array, Array]:
        """The weights of sum one, and the log of their mean; NaN where none is finite."""
        peak = np.max(self.log, axis=-1, keepdims=True)
        with np.errstate(invalid="ignore"):
            weights = np.exp(self.log - peak)
        total = np.sum(weights, axis=-1, keepdims=True)
        log_mean = peak[..., 0] + np.log(total[..., 0] / self.log.shape[-1])
        return weights / total, log_mean

    def effective(self) -> Array:
        """Effective sample size 1/ΣW² as a share of K, shape (...)."""
        shares, _ = self._shares()
        return np.asarray(1 / (self.log.shape[-1] * np.sum(shares**2, axis=-1)))

    def resample(self, threshold: float, uniform: Array) -> Indices | None:
        """Draw the particles of filters below the threshold anew; their indices, None if none is.

        Parameters
        ----------
        threshold : float
            κ.
        uniform : ndarray, shape (...)
            As of `systematic`.
        """
        effective = self.effective()
        self.least = np.minimum(self.least, effective)
        chosen = effective < threshold
        if not np.any(chosen):
            return None
        shares, log_mean = self._shares()
        k = self.log.shape[-1]
        indices = np.broadcast_to(np.arange(k), self.log.shape).copy()
        indices[chosen] = systematic(shares[chosen], uniform[chosen], k)
        self.log_evidence[chosen] += log_mean[chosen]
        self.log[chosen] = 0.0
        self.resampled += chosen
        return indices

    def finish(self, count: int, uniform: Array) -> Indices:
        """The particles that a filter gives at its end, after which `log_evidence` is whole.

        Those of a filter that lost all its weights are its first one.
        """
        shares, log_mean = self._shares()
        self.least = np.minimum(self.least, self.effective())
        self.log_evidence += log_mean
        lost = ~np.isfinite(self.log_evidence)
        shares[lost] = np.eye(self.log.shape[-1])[0]
        return systematic(shares, uniform, count)
