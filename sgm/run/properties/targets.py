"""Properties of a target: its law against differences, quadrature and draws; or its rows.

Of a law, each noised version Y = m X + √v Z is tested like the law itself, since the exact score
and the bounds are about those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import differentiate

from sgm.arguments import require_instance
from sgm.densities import Law
from sgm.gaussian import Gaussian
from sgm.run.build import build_target
from sgm.run.properties.findings import (
    SIGMAS,
    InapplicableError,
    Property,
    PropertyError,
    require_mean,
    require_where,
)
from sgm.study import Item
from sgm.targets import DataTarget, Target

__all__ = ["PROPERTIES", "Known", "Rows", "Subject", "subjects"]

Array = npt.NDArray[np.float64]

#: Draws of a law, fewer in high dimension: so many numbers at most.
DRAWS, NUMBERS = 20_000, 4_000_000
#: m, and v in units of the law's mean variance.
NOISES = ((1.0, 0.0), (0.9, 0.05), (0.6, 0.5), (0.05, 1.0))
#: Relative error of a score against differences, and of the mass of a density.
TOLERANCE, MASS_TOLERANCE = 1e-5, 2e-3
#: The largest share of one row in a sum of squares for which it counts as a mean of many.
LARGEST_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class Subject:
    """A target, and what its family is registered with."""

    target: Target
    registered: str


@dataclass(frozen=True, eq=False)
class Known(Subject):
    """A target of known law, with draws."""

    law: Law

    @cached_property
    def rows(self) -> Array:
        n = max(1000, min(DRAWS, NUMBERS // self.law.dimension))
        return np.asarray(self.target.sample(n, np.random.default_rng(0)), dtype=np.float64)

    @cached_property
    def noises(self) -> list[tuple[float, float]]:
        size = float(np.mean(self.law.principal_variances))
        return [(m, v * size) for m, v in NOISES]

    def noised(self, m: float, v: float) -> Array:
        z = np.random.default_rng(1).standard_normal(self.rows.shape)
        return np.asarray(m * self.rows + np.sqrt(v) * z)


@dataclass(frozen=True, eq=False)
class Rows(Subject):
    """A target of unknown law."""

    data: DataTarget


def subjects(item: Item) -> Mapping[str, Callable[[], Subject]]:
    """The target of the item."""

    def build() -> Subject:
        target = build_target(item.spec)
        if isinstance(target, DataTarget):
            return Rows(target, item.entry.law, target)
        require_instance(Law, law=target.law)
        assert target.law is not None
        return Known(target, item.entry.law, target.law)

    return {item.label: build}


def _known(subject: Subject) -> Known:
    if not isinstance(subject, Known):
        raise InapplicableError
    return subject


def _rows(subject: Subject) -> DataTarget:
    if not isinstance(subject, Rows):
        raise InapplicableError
    return subject.data


def is_what_it_is_registered_as(subject: Subject) -> str:
    """What is known of its law is what its family is registered with."""
    found = "unknown" if subject.target.law is None else "density"
    if isinstance(subject.target.law, Gaussian):
        found = "gaussian"
    if found != subject.registered:
        raise PropertyError(
            f"law={subject.registered!r} is registered, but the target has {found!r}"
        )
    return f"law={found!r}, d = {subject.target.dimension}"


def rows_are_drawn(subject: Subject) -> str:
    """`sample(n)` returns n finite rows of d numbers, the same from the same generator."""
    target = subject.target
    n = 7 if isinstance(subject, Known) else 2
    first, second = (
        np.asarray(target.sample(n, np.random.default_rng(5)), dtype=np.float64) for _ in range(2)
    )
    if first.shape != (n, target.dimension):
        raise PropertyError(
            f"sample({n}) has shape {first.shape}: must be ({n}, {target.dimension})"
        )
    require_where(np.isfinite(first), lambda i, j: f"row {i} has {first[i, j]} in column {j}")
    if not np.array_equal(first, second):
        raise PropertyError("equal generators gave different rows: it draws from another source")
    if np.array_equal(first, target.sample(n, np.random.default_rng(6))):
        raise PropertyError("two generators gave equal rows: it ignores its generator")
    return f"({n}, {target.dimension})"


def score_is_the_gradient(subject: Subject) -> str:
    """The score is the gradient of the log density, at every noise level, by differences."""
    known = _known(subject)
    law, rng = known.law, np.random.default_rng(2)
    directions = rng.standard_normal((min(40, len(known.rows)), law.dimension))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    worst = 0.0
    for m, v in known.noises:
        points = known.noised(m, v)[: len(directions)]
        step = 0.1 * np.sqrt(m**2 * law.principal_variances.min() + v)

        def along(h: Array, k: Array, x: Array = points, m: float = m, v: float = v) -> Array:
            index = np.asarray(k, dtype=int)
            moved = x[index] + h[..., None] * directions[index]
            return np.asarray(law.log_density(moved, m, v))

        found = differentiate.derivative(
            along, np.zeros(len(points)), args=(np.arange(len(points)),), initial_step=step,
            tolerances={"rtol": 1e-9, "atol": 1e-12},
        )  # fmt: skip
        scores = np.asarray(law.score(points, m, v))
        if scores.shape != points.shape:
            raise PropertyError(f"score(x) has shape {scores.shape} at x of shape {points.shape}")
        slope = np.sum(scores * directions, axis=1)
        widest = np.sqrt(m**2 * law.principal_variances.max() + v)
        size = np.linalg.norm(scores, axis=1) + 1 / widest
        trusted = found.error <= TOLERANCE * size
        gap = np.abs(slope - found.df) / size
        require_where(
            ~trusted | (gap <= TOLERANCE + found.error / size),
            lambda k, x=points, slope=slope, d=found, m=m, v=v: (
                f"along a direction u at x = {_vector(x[k])}, m = {m:g}, v = {v:.3g}: "
                f"⟨score, u⟩ = {slope[k]:.8g}, but log p has slope {d.df[k]:.8g}"
            ),
        )
        if np.mean(trusted) < 0.5:
            raise PropertyError(
                f"log density at m = {m:g}, v = {v:.3g} is too rough for differences: at "
                f"x = {_vector(points[np.argmin(trusted)])}"
            )
        worst = max(worst, float(gap[trusted].max()))
    return f"relative error {worst:.1e} at most (tolerance {TOLERANCE:g})"


def _vector(x: Array) -> str:
    shown = ", ".join(f"{value:.6g}" for value in x[:4])
    return f"({shown}{', …' if len(x) > 4 else ''})"


def density_has_mass_one(subject: Subject) -> str:
    """The density integrates to 1, where d is at most 2, by quadrature."""
    known = _known(subject)
    if known.law.dimension > 2:
        raise InapplicableError(f"d = {known.law.dimension}: quadrature is for at most 2")
    worst = 0.0
    for m, v in known.noises:
        draws = known.noised(m, v)
        coarse, fine = (_mass(known.law, m, v, draws, panels) for panels in (40, 80))
        doubt = abs(fine - coarse)
        if doubt > 0.1:
            raise InapplicableError(f"quadrature gives {coarse:.3g} and {fine:.3g}: not resolved")
        if not abs(fine - 1) <= MASS_TOLERANCE + doubt:
            raise PropertyError(f"∫ p = {fine:.6g} at m = {m:g}, v = {v:.3g}")
        worst = max(worst, abs(fine - 1))
    return f"off by {worst:.1e} at most (tolerance {MASS_TOLERANCE:g})"


def _mass(law: Law, m: float, v: float, draws: Array, panels: int) -> float:
    """∫ p by Gauss-Legendre over panels between the quantiles of draws, and far beyond them."""
    nodes, weights = np.polynomial.legendre.leggauss(6)
    points, factors = [], []
    for column in draws.T:
        inner = np.quantile(column, np.linspace(0, 1, panels + 1))
        reach = (inner[-1] - inner[0]) * 0.05 * 2.0 ** np.arange(8)
        edges = np.concatenate([inner[0] - reach[::-1], inner, inner[-1] + reach])
        half = np.diff(edges) / 2
        points.append((edges[:-1, None] + half[:, None] * (nodes + 1)).ravel())
        factors.append((half[:, None] * weights).ravel())
    mesh = np.stack(np.meshgrid(*points, indexing="ij"), axis=-1)
    density = np.exp(law.log_density(mesh, m, v))
    for factor in factors[::-1]:
        density = density @ factor
    return float(density)


def noising_is_a_convolution(subject: Subject) -> str:
    """The noised density is the mean of Gaussian densities around noiseless draws."""
    known = _known(subject)
    law, m = known.law, 0.8
    if law.dimension > 10:
        raise InapplicableError(f"d = {law.dimension}: draws resolve it up to 10")
    v = float(law.principal_variances.mean())
    worst = 0.0
    for y in known.noised(m, v)[:5]:
        exponent = -np.sum((y - m * known.rows) ** 2, axis=1) / (2 * v)
        kernel = np.exp(exponent) / (2 * np.pi * v) ** (law.dimension / 2)
        name = f"density at {_vector(y)} for m = {m:g}, v = {v:.3g}"
        density = float(np.exp(law.log_density(y, m, v)))
        worst = max(worst, require_mean(name, density, kernel))
    return f"within {worst:.1f} standard errors"


def moments_are_those_of_the_draws(subject: Subject) -> str:
    """Mean and covariance are those of draws, within their standard errors."""
    known = _known(subject)
    law, rows = known.law, known.rows
    centred = rows - law.mean
    share = (centred**2).max(axis=0) / np.sum(centred**2, axis=0)
    light = share < LARGEST_SHARE
    if not light.any():
        raise InapplicableError("tails too heavy for a mean of squares")
    worst = require_mean("mean", law.mean[light], rows[:, light])
    chosen = np.flatnonzero(light)[:30]
    products = centred[:, chosen, None] * centred[:, None, chosen]
    covariance = law.covariance[np.ix_(chosen, chosen)]
    worst = max(worst, require_mean("covariance", covariance, products))
    skipped = f"; {np.sum(~light)} coordinates have too heavy tails" if not light.all() else ""
    return f"{len(rows)} draws: {worst:.1f} standard errors at most{skipped}"


def information_is_that_of_the_draws(subject: Subject) -> str:
    """Fisher information E|score|² and entropy −E log p of noised versions are those of draws."""
    known = _known(subject)
    law, d = known.law, known.law.dimension
    worst, unknown = 0.0, 0
    for m, v in known.noises[1:]:
        draws = known.noised(m, v)
        information = float(law.fisher_information(m, v))
        spread = m**2 * law.principal_variances + v
        entropy = 0.5 * (d * np.log(2 * np.pi * np.e) + np.sum(np.log(spread)))
        entropy -= float(law.negentropy(np.asarray(v / m**2)))
        squares = np.sum(law.score(draws, m, v) ** 2, axis=1)
        for name, expected, values in (
            ("fisher_information", information, squares),
            ("entropy by negentropy", entropy, -law.log_density(draws, m, v)),
        ):
            if np.isnan(expected):  # which says that it is not known
                unknown += 1
                continue
            where = f"{name} at m = {m:g}, v = {v:.3g}"
            worst = max(worst, require_mean(where, expected, np.asarray(values)))
    if unknown == 2 * len(known.noises[1:]):
        raise InapplicableError("it says that neither is known (NaN)")
    return f"within {worst:.1f} standard errors of {len(known.rows)} draws"


def cells_have_their_probabilities(subject: Subject) -> str:
    """The cells of `partition` have the probabilities that they state."""
    known = _known(subject)
    cells = known.law.partition()
    count = len(cells.probabilities)
    if count == 1:
        raise InapplicableError("there is one cell")
    if not abs(np.sum(cells.probabilities) - 1) <= 1e-9:
        raise PropertyError(f"probabilities sum to {np.sum(cells.probabilities):.9g}")
    labels = np.asarray(cells.label(known.rows))
    require_where(
        (labels >= 0) & (labels < count), lambda k: f"row {k} is in cell {labels[k]} of {count}"
    )
    shares = np.bincount(labels, minlength=count) / len(labels)
    error = np.sqrt(cells.probabilities * (1 - cells.probabilities) / len(labels))
    require_where(
        np.abs(shares - cells.probabilities) <= SIGMAS * error + 2 / len(labels),
        lambda k: (
            f"cell {k} has probability {cells.probabilities[k]:.6g}, but {shares[k]:.6g} "
            f"of {len(labels)} draws lie there"
        ),
    )
    return f"{count} {cells.name}"


def rows_are_held_out(subject: Subject) -> str:
    """Training and held-out rows are finite, apart, and together all there are."""
    data = _rows(subject)
    train, heldout = data.partition(np.random.default_rng(3))
    both = np.concatenate([train, heldout])
    if not (len(train) and len(heldout)):
        raise PropertyError(f"{len(train)} training rows and {len(heldout)} held-out rows")
    numbers, times = np.unique(both, return_counts=True)
    require_where(times == 1, lambda k: f"row {numbers[k]} is in both parts, or twice in one")
    if len(both) != data.n_rows:
        raise PropertyError(f"{len(both)} rows in both parts: must be all {data.n_rows}")
    again, _ = data.partition(np.random.default_rng(3))
    if not np.array_equal(train, again):
        raise PropertyError("equal generators gave different parts")
    rows = np.asarray(data.take(heldout[: max(1, NUMBERS // data.dimension)]))
    if rows.shape[1:] != (data.dimension,):
        raise PropertyError(f"rows have shape {rows.shape[1:]}: must be ({data.dimension},)")
    require_where(np.isfinite(rows), lambda i, j: f"row {heldout[i]} has {rows[i, j]}")
    return f"{len(train)} and {len(heldout)} of {data.n_rows} rows"


def coordinates_are_restored(subject: Subject) -> str:
    """`standardise` undoes `restore`."""
    target = subject.target
    rows = np.asarray(target.sample(2, np.random.default_rng(4)), dtype=np.float64)
    again = target.standardise(target.restore(rows))
    gap = np.abs(again - rows)
    require_where(
        gap <= 1e-9 * (1 + np.abs(rows)),
        lambda i, j: f"{rows[i, j]:.9g} in column {j} comes back as {again[i, j]:.9g}",
    )
    return f"within {gap.max():.1e}"


PROPERTIES: Sequence[Property] = (
    is_what_it_is_registered_as,
    rows_are_drawn,
    coordinates_are_restored,
    moments_are_those_of_the_draws,
    score_is_the_gradient,
    density_has_mass_one,
    noising_is_a_convolution,
    information_is_that_of_the_draws,
    cells_have_their_probabilities,
    rows_are_held_out,
)
