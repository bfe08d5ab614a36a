"""Score-matching objectives: what a network is fitted to.

With X_t = m X₀ + √v Z, Z ~ N(0, I), and a weight λ(t),

    explicit     E λ(t) |s_θ(t, X_t) − ∇log p_t(X_t)|²              needs the exact score,
    denoising    E λ(t) |s_θ(t, X_t) + Z/√v|²                       needs data alone,
    implicit     E λ(t) [|s_θ|² + 2 ∇·s_θ](t, X_t)                  needs data alone,
    sliced       E λ(t) [⟨ζ, s_θ⟩² + 2 ζᵀ(∂s_θ)ζ](t, X_t)           the same,

ζ a random direction with E ζζᵀ = I. They differ by constants, since E⟨∇log p_t, s_θ⟩ =
−E ∇·s_θ by parts: with J_t = E|∇log p_t|², at each time

    denoising = explicit + λ (d/v − J_t),    implicit = sliced = explicit − λ J_t.

For a Gaussian target of covariance eigenvalues λ_i, J_t = Σ 1/V_i, V_i = m²λ_i + v.

∇·s_θ is exact, by d derivatives, or a mean of ζᵀ(∂s_θ)ζ over K directions (Hutchinson):
unbiased, with A the symmetric part of ∂s_θ of variance 2/K Σ_{i≠j} A²_ij for random signs
and 2/K Σ A²_ij for Gaussian directions. With either, "implicit" is what Song et al. call
sliced score matching with variance reduction. At t = 0, the time of `time_sampling`
"start" with `time_min` 0, it is score matching as Hyvärinen wrote it.

A derivative that jumps, as that of ReLU does, has no gradient where it jumps, and what
automatic differentiation returns is not the gradient of E ∇·s_θ: "implicit" and "sliced"
need a smooth network.

Weights. The slides' explicit loss has λ = 1 ("unit"). λ = v ("variance") is the usual one,
|√v s_θ + Z|², the error of the noise; the authors' conditional loss |v s_θ + √v Z|² has λ = v²
("variance_squared"). λ = β ("beta") is the theorem's E₂ and the likelihood: uniform in time,
½ E β |s_θ − ∇log p_t|² is what the score adds to KL(π_data ‖ π̂) of the backward SDE (Song,
Durkan, Murray and Ermon). "min_snr" is min(SNR, γ) |x̂₀ − x₀|², SNR = m²/v, γ = 5 (Hang et
al.). "information" is v times the rate ½β m² mmse/v² at which X_t loses information about X₀
(I-MMSE), to which InfoNoise (Raya et al.) makes the density of training times proportional:
here as a weight, and with the exact mmse in place of an estimate on the way. By Tweedie
m² mmse/v = d − v J_t, so that λ = β (1 − v J_t/d) but for a constant. "hybrid" is hybrid score
matching of a kinetic process, whose X_t, m, v are those of `sgm.kinetic`.

An objective says what is drawn with each row and the loss of each row, given the network's
score as a function of x alone. A new one is two functions and a row of `OBJECTIVES`.

Sources: Hyvärinen (2005); Vincent (2011); Song, Garg, Shi, Ermon (arXiv 1905.07088);
Song, Durkan, Murray, Ermon (arXiv 2101.09258); Hang et al. (arXiv 2303.09556); Raya et al.
(arXiv 2602.18647); Strasman et al. (arXiv 2402.04650). The constants are derived above.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sgm.densities import Law
from sgm.kinetic import KineticProcess
from sgm.processes import Process
from sgm.scores import Score

__all__ = [
    "OBJECTIVES",
    "PROBES",
    "WEIGHTS",
    "Examples",
    "Objective",
    "Weight",
    "denoising_score_matching",
    "explicit_score_matching",
    "implicit_loss",
    "implicit_score_matching",
    "sliced_loss",
    "squared_error",
]

Array = npt.NDArray[np.float64]

MIN_SNR = 5.0
"""γ of Hang et al.: above this ratio of signal to noise all noise levels weigh the same."""


@dataclass(frozen=True)
class Weight:
    """A weight λ of the loss in time.

    Parameters
    ----------
    value : callable
        (process, times of shape (n,), law of X₀ or None) → λ, shape (n,).
    needs_law : bool
        Whether it needs the law of X₀.
    """

    value: Callable[[Process, Array, Law | None], Array]
    needs_law: bool = False


def _min_snr(process: Process, t: Array, law: Law | None) -> Array:
    """min(v, γ v²/m²), which is min(SNR, γ) of |x̂₀ − x₀|² = (v/m)² |s_θ − s|²."""
    v, m = process.kernel_variance(t), process.mean_scale(t)
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(np.minimum(v, MIN_SNR * (v / m) ** 2))


def _information(process: Process, t: Array, law: Law | None) -> Array:
    """β (1 − v J_t/d), without the difference: 1 − v/V_i = m²λ_i/V_i."""
    assert law is not None
    v, m = process.kernel_variance(t), process.mean_scale(t)
    signal = m[:, None] ** 2 * law.principal_variances
    with np.errstate(divide="ignore", invalid="ignore"):
        noise = v / m**2
        excess = np.where(noise < np.inf, noise * law.excess_information(noise), 0.0)
    unknown = np.sum(signal / (signal + v[:, None]), axis=-1) - excess
    return np.asarray(process.schedule.beta(t) * np.maximum(unknown, 0.0) / law.dimension)


def _hybrid(process: Process, t: Array, law: Law | None) -> Array:
    if not isinstance(process, KineticProcess):
        raise ValueError("weight = 'hybrid': must be another, but for the process kinetic")
    return process.hybrid_weight(t)


WEIGHTS: dict[str, Weight] = {
    "unit": Weight(lambda process, t, law: np.ones_like(t)),
    "variance": Weight(lambda process, t, law: process.kernel_variance(t)),
    "variance_squared": Weight(lambda process, t, law: process.kernel_variance(t) ** 2),
    "beta": Weight(lambda process, t, law: process.schedule.beta(t)),
    "min_snr": Weight(_min_snr),
    "information": Weight(_information, needs_law=True),
    "hybrid": Weight(_hybrid),
}
"""λ(t) by name."""

PROBES: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Array]] = {
    "rademacher": lambda generator, shape: generator.choice(np.array([-1.0, 1.0]), shape),
    "gaussian": lambda generator, shape: generator.standard_normal(shape),
}
"""Random directions ζ with E ζζᵀ = I by name: random signs, which have the least variance of
all independent coordinates, and normal draws."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows to learn from, of one network.

    Parameters
    ----------
    states : ndarray, shape (n, d)
        x_t.
    targets : ndarray, shape (n, d) or (n, K, d)
        What the score is compared with, or directions of derivatives.
    """

    states: Array
    targets: Array


class ExampleMaker(Protocol):
    """Turns data, times and noise into examples."""

    def __call__(
        self,
        process: Process,
        exact_score: Score | None,
        x0: Array,
        t: Array,
        z: Array,
        probes: Array,
        /,
    ) -> Examples:
        """Examples of n rows.

        From x0, shape (n, d), t, shape (n,), z ~ N(0, I), shape (n, d), and K random directions
        a row, shape (n, K, d).
        """
        ...


RowLoss = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]
"""(score as a function of x, states (R, n, d), targets (R, n, …)) → losses (R, n)."""


@dataclass(frozen=True)
class Objective:
    """A score-matching objective.

    Parameters
    ----------
    examples : callable
        See `ExampleMaker`.
    row_loss : callable
        See `RowLoss`; the weight λ(t) multiplies its result.
    needs_exact_score : bool
        Whether `examples` wants the exact score of the target.
    divides_by_noise : bool
        Whether there is none at t = 0.
    differentiates : bool
        Whether `row_loss` takes derivatives of the score in x.
    fewest_probes : int or None
        How many random directions it needs at least; None: it takes none.
    """

    examples: ExampleMaker
    row_loss: RowLoss
    needs_exact_score: bool = False
    divides_by_noise: bool = False
    differentiates: bool = False
    fewest_probes: int | None = None


def explicit_score_matching(
    process: Process, exact_score: Score | None, x0: Array, t: Array, z: Array, probes: Array, /
) -> Examples:
    """Regression on the exact score at x_t.

    Parameters
    ----------
    process : Process
    exact_score : Score
    x0 : ndarray, shape (n, d)
    t : ndarray, shape (n,)
    z : ndarray, shape (n, d)
        Standard normal draws.
    probes : ndarray, shape (n, K, d)
        Not used.

    Returns
    -------
    Examples
    """
    if exact_score is None:
        raise ValueError("objective = 'explicit': needs a target whose exact score is known")
    states = process.perturb(x0, t, z)
    return Examples(states, exact_score(states, t))


def denoising_score_matching(
    process: Process, exact_score: Score | None, x0: Array, t: Array, z: Array, probes: Array, /
) -> Examples:
    """Regression on −z/√v, the score of the kernel from x₀; the exact score is not used.

    Parameters
    ----------
    process, exact_score, x0, t, z, probes
        As in `explicit_score_matching`.

    Returns
    -------
    Examples
    """
    return Examples(process.perturb(x0, t, z), -z / process.std(t)[:, None])


def implicit_score_matching(
    process: Process, exact_score: Score | None, x0: Array, t: Array, z: Array, probes: Array, /
) -> Examples:
    """States alone, with directions of derivatives; the exact score is not used.

    Parameters
    ----------
    process, exact_score, x0, t, z
        As in `explicit_score_matching`.
    probes : ndarray, shape (n, K, d)

    Returns
    -------
    Examples
    """
    return Examples(process.perturb(x0, t, z), probes)


def squared_error(score: Callable[[Tensor], Tensor], states: Tensor, targets: Tensor) -> Tensor:
    """|s_θ(x) − target|² of each row.

    Parameters
    ----------
    score : callable
    states, targets : Tensor, shape (R, n, d)

    Returns
    -------
    Tensor, shape (R, n)
    """
    return (score(states) - targets).square().sum(dim=-1)


def implicit_loss(score: Callable[[Tensor], Tensor], states: Tensor, probes: Tensor) -> Tensor:
    """|s_θ(x)|² + 2 ∇·s_θ(x) of each row.

    Parameters
    ----------
    score : callable
    states : Tensor, shape (R, n, d)
    probes : Tensor, shape (R, n, K, d)
        Directions of Hutchinson's estimate; none of them, K = 0, for the exact divergence.

    Returns
    -------
    Tensor, shape (R, n)
    """
    with torch.enable_grad():
        x = states.detach().requires_grad_()
        found = score(x)
        exact = probes.shape[-2] == 0
        directions = torch.eye(x.shape[-1]).to(x) if exact else probes.unbind(dim=-2)
        curvature = _curvature(found, x, directions)
        divergence = curvature.sum(dim=-1) if exact else curvature.mean(dim=-1)
        return found.square().sum(dim=-1) + 2 * divergence


def sliced_loss(score: Callable[[Tensor], Tensor], states: Tensor, probes: Tensor) -> Tensor:
    """⟨ζ, s_θ(x)⟩² + 2 ζᵀ(∂s_θ)ζ of each row, a mean over its directions ζ.

    Parameters
    ----------
    score, states
        As in `implicit_loss`.
    probes : Tensor, shape (R, n, K, d)
        K ≥ 1.

    Returns
    -------
    Tensor, shape (R, n)
    """
    with torch.enable_grad():
        x = states.detach().requires_grad_()
        found = score(x)
        slices = (found[..., None, :] * probes).sum(dim=-1)
        curvature = _curvature(found, x, probes.unbind(dim=-2))
        return (slices.square() + 2 * curvature).mean(dim=-1)


def _curvature(found: Tensor, x: Tensor, directions: Tensor | tuple[Tensor, ...]) -> Tensor:
    """ζᵀ(∂s)ζ of each row and direction, shape (R, n, K), to be differentiated in the weights."""
    terms = []
    for direction in directions:
        (pulled,) = torch.autograd.grad((found * direction).sum(), x, create_graph=True)
        terms.append((pulled * direction).sum(dim=-1))
    return torch.stack(terms, dim=-1)


OBJECTIVES: dict[str, Objective] = {
    "explicit": Objective(explicit_score_matching, squared_error, needs_exact_score=True),
    "denoising": Objective(denoising_score_matching, squared_error, divides_by_noise=True),
    "implicit": Objective(
        implicit_score_matching, implicit_loss, differentiates=True, fewest_probes=0
    ),
    "sliced": Objective(implicit_score_matching, sliced_loss, differentiates=True, fewest_probes=1),
}
"""Objectives by name."""
