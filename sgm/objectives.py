"""Score-matching objectives: what a network is fitted to.

With X_t = m X₀ + √v Z, Z ~ N(0, I), and a weight λ(t),

    explicit     E λ(t) |s_θ(t, X_t) − ∇log p_t(X_t)|²        needs the exact score,
    denoising    E λ(t) |s_θ(t, X_t) + Z/√v|²                 needs data alone,

which differ by a constant: for a Gaussian target of covariance eigenvalues λ_i,
V_i = m²λ_i + v, at each time

    denoising = explicit + λ(t) Σ_i (1/v − 1/V_i).

The slides' explicit loss has λ = 1, the theorem's E₂ weighs by β(t) what it
measures. The authors' conditional loss is |v s_θ + √v Z|², that is λ = v²
("variance_squared"); λ = v ("variance") is the usual one, |√v s_θ + Z|².

An objective says two things: the data of an epoch, generated at once in float64,
and the loss of each row given the network's score as a function of x alone. A new
one (implicit score matching differentiates that function) is two functions and a
row of `OBJECTIVES`.

Sources: Hyvärinen (2005); Vincent (2011); Strasman et al. (arXiv 2402.04650).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from sgm.processes import Process
from sgm.scores import Score

__all__ = [
    "OBJECTIVES",
    "WEIGHTS",
    "Examples",
    "Objective",
    "denoising_score_matching",
    "explicit_score_matching",
    "squared_error",
]

Array = npt.NDArray[np.float64]

WEIGHTS: dict[str, Callable[[Process, Array], Array]] = {
    "unit": lambda process, t: np.ones_like(t),
    "variance": lambda process, t: process.kernel_variance(t),
    "variance_squared": lambda process, t: process.kernel_variance(t) ** 2,
}
"""λ(t) by name: 1, v and v²."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows to learn from, of one network.

    Parameters
    ----------
    states : ndarray, shape (n, d)
        x_t.
    targets : ndarray, shape (n, d)
        What the score is compared with.
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
        /,
    ) -> Examples:
        """Examples from x0, shape (n, d), t, shape (n,), and z ~ N(0, I), shape (n, d)."""
        ...


RowLoss = Callable[[Callable[[Tensor], Tensor], Tensor, Tensor], Tensor]
"""(score as a function of x, states (R, n, d), targets (R, n, d)) → losses (R, n)."""


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
    """

    examples: ExampleMaker
    row_loss: RowLoss
    needs_exact_score: bool


def explicit_score_matching(
    process: Process, exact_score: Score | None, x0: Array, t: Array, z: Array, /
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

    Returns
    -------
    Examples
    """
    if exact_score is None:
        raise ValueError("objective = 'explicit': needs a target whose exact score is known")
    states = process.perturb(x0, t, z)
    return Examples(states, exact_score(states, t))


def denoising_score_matching(
    process: Process, exact_score: Score | None, x0: Array, t: Array, z: Array, /
) -> Examples:
    """Regression on −z/√v, the score of the kernel from x₀; the exact score is not used.

    Parameters
    ----------
    process, exact_score, x0, t, z
        As in `explicit_score_matching`.

    Returns
    -------
    Examples
    """
    return Examples(process.perturb(x0, t, z), -z / process.std(t)[:, None])


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


OBJECTIVES: dict[str, Objective] = {
    "explicit": Objective(explicit_score_matching, squared_error, needs_exact_score=True),
    "denoising": Objective(denoising_score_matching, squared_error, needs_exact_score=False),
}
"""Objectives by name."""
