"""Properties of a score of known error: finite wherever it is asked, and its error as stated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm.arguments import require_instance
from sgm.densities import GaussianMixture, Law
from sgm.gaussian import Gaussian
from sgm.guidance import ControlledScore
from sgm.learned import DescentScore
from sgm.processes import Process, VEProcess, VPProcess
from sgm.run.build import build
from sgm.run.properties.findings import (
    InapplicableError,
    Property,
    PropertyError,
    require_mean,
    require_where,
)
from sgm.schedules import BetaSchedule, GeometricSchedule
from sgm.scores import DensityScore, GaussianScore, Score, exact
from sgm.study import Item
from sgm.targets import LawTarget, posterior, tilted

__all__ = ["PROPERTIES", "Case", "subjects"]

Array = npt.NDArray[np.float64]

ROWS = 5000
#: An error of the score that is smaller, relative to it, is one of float64.
ROUNDING = 1e-12
HORIZON = 1.3
PROCESSES: dict[str, Process] = {
    "VP": VPProcess(BetaSchedule(HORIZON, 1.5, 0.1, 10.0), 2.0),
    "VE": VEProcess(GeometricSchedule(HORIZON, 0.1, 10.0)),
}
TIMES = HORIZON * np.array([1.0, 0.7, 0.3, 0.1, 1e-2, 1e-4, 1e-9])


def _laws() -> dict[str, Law]:
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))[0]
    gaussian = Gaussian(np.array([1.0, -0.5, 0.3]), np.array([0.1, 0.7, 3.0]), basis)
    mixture = GaussianMixture(
        np.array([0.4, 0.6]),
        np.array([[-1.0, 0.5], [1.0, 1.0]]),
        np.array([[0.2, 0.5], [0.4, 0.1]]),
    )
    return {"gaussian": gaussian, "density": mixture}


LAWS = _laws()
#: Those given their first coordinate, and a component of the mixture; by what a score needs.
MADE: dict[str, dict[str, Any]] = {
    "posterior": {
        kind: posterior(LawTarget(law), observed=[0], noise=0.3).law for kind, law in LAWS.items()
    },
    "tilted": {"density": tilted(LawTarget(LAWS["density"]), component=1, weight=1.5).law},
}


@dataclass(frozen=True, eq=False)
class Case:
    """A score for a process and a law."""

    score: Score | DescentScore | ControlledScore
    process: Process
    law: Law

    def draws(self, t: float) -> Array:
        """Rows of p_t, shape (ROWS, d)."""
        rng = np.random.default_rng(1)
        x0 = self.law.sample(ROWS, rng)
        return self.process.perturb(x0, np.full(ROWS, t), rng.standard_normal(x0.shape))


def subjects(item: Item) -> Mapping[str, Callable[[], Case]]:
    """The score of a Gaussian and of a mixture, whichever it is for, on VP and VE."""

    def at(process: Process, law: Law) -> Case:
        rng = np.random.default_rng(2)
        learning = {"train": law.sample(ROWS, rng), "generator": rng}
        built: Any = build(item.spec, process=process, law=law, **learning)
        require_instance(
            (GaussianScore, DensityScore, DescentScore, ControlledScore), returned=built
        )
        return Case(built, process, law)

    needs = item.entry.needs
    laws = MADE.get(needs, LAWS)
    kinds = [kind for kind in laws if needs in ("", "law", *MADE, kind)]
    return {
        f"{name}, {'Gaussian' if kind == 'gaussian' else 'mixture'}": (
            lambda p=process, law=laws[kind]: at(p, law)  # type: ignore[misc]
        )
        for kind in kinds
        for name, process in PROCESSES.items()
    }


def is_finite(case: Case) -> str:
    """It is finite at all times in [0, T], and has the shape of x; if learnt from noise, but 0."""
    learnt = isinstance(case.score, DescentScore)
    for t in TIMES if learnt else (*TIMES, 0.0):
        x = case.draws(float(t))[:50]
        score = np.asarray(case.score(x, t))
        if score.shape != x.shape:
            raise PropertyError(f"s(t, x) has shape {score.shape} at x of shape {x.shape}")
        require_where(
            np.isfinite(score),
            lambda i, j, t=t, score=score: f"at t = {t:.6g} coordinate {j} is {score[i, j]}",
        )
    return f"at t = 0, {TIMES[-1]:.1e}, …, T"


def coefficients_are_those_of_the_score(case: Case) -> str:
    """An affine score is A Uᵀx + b in the basis U, with finite A and b at all times.

    One without a basis of its own is A x + b with a matrix A.
    """
    score, steepest = case.score, 0.0
    if isinstance(score, DensityScore | DescentScore) or not isinstance(case.law, Gaussian):
        raise InapplicableError("it is not affine")
    for t in (*TIMES, 0.0):
        slope, offset = score.coefficients(float(t))
        require_where(
            np.isfinite(slope) & np.isfinite(offset),
            lambda *k, t=t, a=slope, b=offset: (
                f"at t = {t:.6g} A[{k[-1]}] = {a[k[-1]]}, b[{k[-1]}] = {b[k[-1]]}"
            ),
        )
        x = case.draws(float(t))[:50]
        if isinstance(score, GaussianScore):
            expected = (slope * score.law.rotate(x) + offset) @ score.law.basis.T
        else:
            expected = x @ slope.T + offset
        found = score(x, t)
        require_where(
            np.abs(found - expected) <= 1e-9 * (1 + np.abs(expected)),
            lambda i, j, t=t, f=found, e=expected: (
                f"at t = {t:.6g} s = {f[i, j]:.9g}, but A Uᵀx + b = {e[i, j]:.9g}"
            ),
        )
        steepest = max(steepest, float(np.abs(slope).max()))
    return f"|A| up to {steepest:.3g}"


def error_is_as_stated(case: Case) -> str:
    """`error_moments` are the means of |e|² and ⟨s̃, e⟩ over draws of p_t, e its error."""
    true = exact(case.process, case.law)
    worst, largest = 0.0, 0.0
    stated = case.score.error_moments(case.law, TIMES)  # type: ignore[arg-type]
    if np.isnan(stated[0]).all():
        raise InapplicableError("its error is not known")
    for t, mse, cross in zip(TIMES, *stated, strict=True):
        x = case.draws(float(t))
        s = true(x, t)
        error = case.score(x, t) - s
        modified = s + x / case.process.variance
        squares = np.sum(error**2, axis=1)
        size = float(np.mean(np.sum(s**2, axis=1)))
        if max(float(mse), float(squares.mean())) <= ROUNDING**2 * size:
            continue
        worst = max(worst, require_mean(f"mse at t = {t:.3g}", mse, squares))
        products = np.sum(modified * error, axis=1)
        worst = max(worst, require_mean(f"cross at t = {t:.3g}", cross, products))
        largest = max(largest, float(mse) / size)
    return f"E|e|² up to {largest:.3g} E|s|²; {worst:.1f} standard errors at most"


PROPERTIES: tuple[Property, ...] = (
    is_finite,
    coefficients_are_those_of_the_score,
    error_is_as_stated,
)
