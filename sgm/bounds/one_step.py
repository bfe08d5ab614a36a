"""A bound of W₂ that follows a sampler step by step, for Gaussian data.

Let p_k be the law of X_{τ_k}. A chain X that follows the p_k takes each step of the sampler with
the exact score, and after it the optimal map from the law of x to p_{k+1}: both are Gaussian and
have the eigenbasis of Σ, so the map moves each direction by itself, by the distance δ_k of two
Gaussians on a line. The sampler's own chain X̂, with whatever score, takes the same steps with the
same noise, without the maps. Stages are affine in the registers, so that in each direction

    X̂_N − X_N = S_{−1} (X̂_0 − X_0) + Σ_k S_k Δ_k + Σ_j G_j e_j,     ‖Δ_k‖ = δ_k,

with the products S_k of the later factors, and e_j = (s_θ − s)(τ, ŷ) at the j-th evaluation, which
arrives with G_j (`sgm.laws.step_deviations`). ‖·‖ being the norm of L², and ε_j² = E|e_j|²,

    W₂(p_{τ_N}, p̂) ≤ √(Σ_i b_i²) + Σ_j max_i |G_j|_i ε_j,
    b = |S_{−1}| W₂(p_T, π_∞) + Σ_k |S_k| δ_k,     one equation a direction.

It assumes nothing of Σ, of N or of the schedule, and holds for each sampler that is a linear
program of registers, those with memory included: registers other than x need no law to follow.
Mixing, each step and each error of the score arrive with the factor that the later steps give
them. Where a grid ends early, W₂(p_{τ_N}, π_data) joins b. The recursion of the literature,
e_{k+1} = L_k e_k + δ_k with the Lipschitz constant L_k = max_i of a step's factors, is larger.

Sources
-------
Derived here. The recursion in L_k is the synchronous coupling of Strasman, Ocello, Boyer, Le
Corff, Lemaire (arXiv 2402.04650), proof of their W₂ theorem, with exact constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from sgm.bounds.objection import Objection
from sgm.densities.base import Law
from sgm.gaussian import Gaussian
from sgm.laws import StepDeviations, step_deviations
from sgm.processes import Process
from sgm.samplers import Steps
from sgm.scores import exact

__all__ = ["OneStepBound", "OneStepObjection", "one_step_objection", "one_step_w2_bound"]

Array = npt.NDArray[np.float64]


class OneStepObjection(Objection):
    """Why the bound is not a theorem for a law; NONE if it is one, for any sampler."""

    NONE = 0, "none"
    LAW_UNKNOWN = 1, "the law of the data is unknown"
    NOT_GAUSSIAN = 2, "the law of the data is not Gaussian"


def one_step_objection(law: Law | None) -> OneStepObjection:
    """The objection to the bound for the data's law; None stands for a law known by draws."""
    if law is None:
        return OneStepObjection.LAW_UNKNOWN
    return OneStepObjection.NONE if isinstance(law, Gaussian) else OneStepObjection.NOT_GAUSSIAN


@dataclass(frozen=True, eq=False)
class OneStepBound:
    """The bound in parts, in units of x; they add up to `total`.

    Parameters
    ----------
    mixing : ndarray, shape ()
        Share of the start at π_∞ instead of p_T.
    steps : ndarray, shape (N,)
        Share of the discretisation of each step.
    early_stop : ndarray, shape ()
        Share of a grid that ends before 0.
    evaluations : ndarray, shape (..., NFE)
        Share of the score's error at each of its evaluations.
    """

    mixing: Array
    steps: Array
    early_stop: Array
    evaluations: Array

    @property
    def discretization(self) -> Array:
        """Share of all steps; shape ()."""
        return np.asarray(np.sum(self.steps))

    @property
    def score_error(self) -> Array:
        """Share of all errors of the score; shape (...)."""
        return np.asarray(np.sum(self.evaluations, axis=-1))

    @property
    def total(self) -> Array:
        """Upper bound on W₂(π_data, output); shape (...)."""
        return np.asarray(self.mixing + self.discretization + self.early_stop + self.score_error)


def one_step_w2_bound(
    process: Process,
    law: Gaussian,
    times: npt.ArrayLike,
    steps: Steps,
    *,
    score_mse_generated: npt.ArrayLike,
) -> OneStepBound:
    """The bound of W₂(π_data, output) for X₀ ~ N(μ, Σ) and any sampler.

    The shares of mixing and of the steps are those in |b| = Σ_i b_i (b_i/|b|).

    Parameters
    ----------
    process : Process
        VP or VE.
    law : Gaussian
        π_data, of batch shape ().
    times : array_like, shape (N + 1,)
        The grid of the solver.
    steps : Steps
        The sampler on this grid.
    score_mse_generated : array_like, shape (..., NFE)
        E|s_θ − s|² at each evaluation along the chain that is generated, see
        `sgm.laws.chain_error`.

    Returns
    -------
    OneStepBound
        Infinite where its square leaves the range of float64, as W₂'s is then.

    Raises
    ------
    ValueError
        If the numbers of times, steps and evaluations don't agree.
    """
    mse = np.asarray(score_mse_generated, dtype=np.float64)
    if mse.shape[-1:] != (steps.nfe,):
        raise ValueError(f"score_mse_generated has shape {mse.shape}: must be (..., {steps.nfe})")
    times = np.asarray(times, dtype=np.float64)
    found = _deviations(process, law, times, steps)
    data = process.marginal(law, float(times[-1]))
    early = np.hypot(
        law.rotate(law.mean - data.mean), np.sqrt(law.eigenvalues) - np.sqrt(data.eigenvalues)
    )
    with np.errstate(over="ignore", invalid="ignore"):
        parts = np.vstack([found.start_gain * found.start, early, found.local_gain * found.local])
        direct = np.sum(parts, axis=0)
        norm = np.linalg.norm(direct)
        shares = parts @ (direct / norm) if norm > 0 else np.zeros(len(parts))
        if not np.isfinite(norm):
            shares = np.where(np.arange(len(parts)) == 1, 0.0, np.inf)
        # A mean square of 0 may be too small for float64: a huge gain must not lose it.
        least = np.finfo(np.float64).tiny
        gain = np.max(found.score_gain, axis=-1)
        evaluations = np.sqrt(gain**2 * np.maximum(mse, least))
        evaluations[np.isnan(evaluations) & ~np.isnan(mse)] = np.inf
        evaluations[(mse == 0) & (evaluations < 1e-100)] = 0.0
    return OneStepBound(
        mixing=np.asarray(shares[0]),
        steps=shares[2:],
        early_stop=np.asarray(shares[1]),
        evaluations=evaluations,
    )


#: They know nothing of the score that is used: all scores of a sampler share them.
_FOUND: WeakKeyDictionary[Steps, tuple[Process, Gaussian, Array, StepDeviations]]
_FOUND = WeakKeyDictionary()


def _deviations(process: Process, law: Gaussian, times: Array, steps: Steps) -> StepDeviations:
    """The deviations of the exact score, found once for the same steps."""
    known = _FOUND.get(steps)
    if known and known[0] is process and known[1] is law and np.array_equal(known[2], times):
        return known[3]
    found = step_deviations(steps, exact(process, law), times)
    _FOUND[steps] = process, law, times.copy(), found
    return found
