"""Properties of a divergence: zero at equality up to its floor, and what it sees.

A property is about the variables of the role "divergence"; the others need only keep the
promise of their row. Each value is that of `REPLICATES` independent pairs of samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm.densities import GaussianMixture, Law
from sgm.gaussian import Gaussian
from sgm.run.build import MeasureError, measured
from sgm.run.properties.findings import InapplicableError, Property, PropertyError
from sgm.study import Item, Variable
from sgm.targets import EmpiricalTarget, LawTarget

__all__ = ["PROPERTIES", "Measure", "subjects"]

Array = npt.NDArray[np.float64]

ROWS, REPLICATES = 500, 20
#: Standard errors of a mean over replicates that count as a difference.
SIGMAS = 4.0
#: How much smaller a value with a bias must be of four times the rows.
SHRINKS = 0.85
#: A value of few rows this many times that of `ROWS` is rounding error divided by itself.
ABSURD = 1e6

GAUSSIAN: Law = Gaussian.from_covariance(
    [1.0, 0.0, -1.0], [[1.0, 0.4, 0.0], [0.4, 2.0, 0.1], [0.0, 0.1, 0.5]]
)
MIXTURE: Law = GaussianMixture(
    np.array([0.4, 0.6]), np.array([[-2.0, 0.5], [2.0, 1.0]]), np.array([[0.4, 0.5], [0.4, 0.3]])
)


def _shifted(rows: Array, law: Law, rng: np.random.Generator) -> Array:
    return rows + np.sqrt(np.diag(law.covariance))


def _spread(rows: Array, law: Law, rng: np.random.Generator) -> Array:
    return np.asarray(law.mean + 1.5 * (rows - law.mean))


def _heavy(rows: Array, law: Law, rng: np.random.Generator) -> Array:
    """Tails of Student's t with 3 degrees of freedom, of the same covariance."""
    factor = np.sqrt(1 / rng.chisquare(3, len(rows)))
    return np.asarray(law.mean + (rows - law.mean) * factor[:, None])


CHANGES: dict[str, Callable[[Array, Law, np.random.Generator], Array]] = {
    "a shift": _shifted,
    "a scale": _spread,
    "heavy tails": _heavy,
}


@dataclass(frozen=True, eq=False)
class Measure:
    """A divergence of the config, and samples to compute it on."""

    spec: Mapping[str, Any]
    variables: tuple[Variable, ...]
    needs: str
    _computed: dict[tuple[int, str], dict[str, Array]] = field(default_factory=dict)

    @property
    def law(self) -> Law:
        """Of the true rows, also where the divergence is not told."""
        return GAUSSIAN if self.needs in ("", "law", "gaussian") else MIXTURE

    @property
    def judged(self) -> list[Variable]:
        """The variables that are divergences.

        Raises
        ------
        InapplicableError
            If there is none.
        """
        own = [v for v in self.variables if v.about.get("role") == "divergence"]
        if not own:
            raise InapplicableError(
                "none of its variables has the role 'divergence' in its `about`"
            )
        return own

    def once(self, n: int, seed: int, change: str = "") -> dict[str, Any]:
        """Its variables for n generated rows: true ones, or changed."""
        rng = np.random.default_rng([n, seed])
        sample, train, reference = (self.law.sample(n, rng) for _ in range(3))
        target: Any = LawTarget(self.law)
        heldout = None
        if self.needs == "data":
            target = EmpiricalTarget(np.concatenate([train, reference]), 0.5)
            heldout = reference
        if change:
            sample = CHANGES[change](sample, self.law, rng)
        context = {
            "sample": sample, "generated": sample, "reference": reference, "target": target,
            "train": train, "heldout": heldout, "control": None,
        }  # fmt: skip
        return measured([self.spec], context)

    def values(self, n: int = ROWS, change: str = "") -> dict[str, Array]:
        """Its variables of all replicates, each of shape (REPLICATES, …)."""
        if (n, change) not in self._computed:
            found = [self.once(n, seed, change) for seed in range(REPLICATES)]
            self._computed[n, change] = {
                name: np.array([one[name] for one in found], dtype=np.float64) for name in found[0]
            }
        return self._computed[n, change]


def subjects(item: Item) -> Mapping[str, Callable[[], Measure]]:
    """The divergence on the rows that it needs."""
    entry = item.entry
    measure = Measure(item.spec, tuple(entry.variables), entry.needs)
    d = measure.law.dimension
    return {f"{ROWS} rows, d = {d}, {REPLICATES} pairs": lambda: measure}


def _mean(values: Array) -> tuple[float, float]:
    """Mean over replicates and its standard error."""
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def returns_what_it_declares(measure: Measure) -> str:
    """It returns the variables that it declares, of their shapes, and divergences are finite."""
    found = measure.values()
    for variable in measure.variables:
        if variable.about.get("role") == "divergence":
            wrong = ~np.isfinite(found[variable.name])
            if wrong.any():
                k = int(np.argmax(wrong))
                raise PropertyError(f"{variable.name} = {found[variable.name][k]} of pair {k}")
    known = [name for name, values in found.items() if np.isfinite(values).any()]
    words = [", ".join(known)] if known else []
    if len(known) < len(found):
        words.append(f"{len(found) - len(known)} are NaN here, without a control")
    return "; ".join(words)


def vanishes_at_equality(measure: Measure) -> str:
    """Between two true samples it is zero, or at its floor, or a bias that falls with n."""
    words = []
    for variable in measure.judged:
        name = variable.name
        if variable.about.get("ranks") == "0":
            words.append(f"{name}: less is not better")
            continue
        found = measure.values()
        mean, error = _mean(found[name])
        floor, floor_error = 0.0, 0.0
        if (declared := variable.about.get("floor", "")) in found:
            floor, floor_error = _mean(found[declared])
        slack = SIGMAS * (error + floor_error) + 1e-12
        text = f"{name} = {mean:.3g} ± {error:.1g}"
        text += f", floor {floor:.3g}" if declared in found else ""
        if not -slack <= mean <= floor + slack:
            fewer = abs(_mean(measure.values(4 * ROWS)[name])[0])
            text += f", {fewer:.3g} of {4 * ROWS} rows"
            if not fewer <= SHRINKS * abs(mean):
                raise PropertyError(f"{text}: neither zero, nor at its floor, nor falling with n")
        words.append(text)
    return "; ".join(words)


def sees_a_difference(measure: Measure) -> str:
    """It is larger for a sample of another law, and never smaller for a shifted one."""
    words = []
    for variable in measure.judged:
        name = variable.name
        seen: list[str] = []
        blind: list[str] = []
        equal = measure.values()[name]
        mean, error = _mean(equal)
        for change in CHANGES:
            own = measure.values(change=change)[name]
            other, other_error = _mean(own)
            sigmas = (other - mean) / (np.hypot(error, other_error) + 1e-300)
            (seen if sigmas > SIGMAS else blind).append(change)
            if change == "a shift" and sigmas < -SIGMAS:
                raise PropertyError(
                    f"{name} = {other:.4g} ± {other_error:.1g} of a sample shifted by one standard "
                    f"deviation, below {mean:.4g} ± {error:.1g} of a true one"
                )
        if not seen:
            raise PropertyError(
                f"{name} = {mean:.4g} ± {error:.1g}: sees none of {', '.join(CHANGES)}"
            )
        words.append(f"{name} sees {', '.join(seen)}" + (f"; not {', '.join(blind)}" * bool(blind)))
    return "; ".join(words)


def says_where_rows_are_too_few(measure: Measure) -> str:
    """Of too few rows it is NaN, or a ValueError that says so, never a number without meaning."""
    usual, judged = measure.values(), measure.judged
    kinds: dict[str, set[int]] = {}
    for n in (1, 2, measure.law.dimension, measure.law.dimension + 1):
        try:
            found = measure.once(n, 0)
        except MeasureError as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            if type(cause) is not ValueError:
                raise PropertyError(
                    f"of n = {n} rows: {error}: must be NaN, or a ValueError"
                ) from None
            kinds.setdefault("refused", set()).add(n)
            continue
        except ValueError as error:  # the target itself: a data set of so few rows is none
            kinds.setdefault(f"no data set ({error})", set()).add(n)
            continue
        for variable in judged:
            value = float(found[variable.name])
            typical = 1 + float(np.abs(usual[variable.name]).max())
            if np.isfinite(value) and abs(value) > ABSURD * typical:
                raise PropertyError(f"of n = {n} rows {variable.name} = {value:.3g}: must be NaN")
            kinds.setdefault("NaN" if np.isnan(value) else "a number", set()).add(n)
    return "; ".join(f"{kind} of n = {', '.join(map(str, sorted(n)))}" for kind, n in kinds.items())


PROPERTIES: tuple[Property, ...] = (
    returns_what_it_declares,
    vanishes_at_equality,
    sees_a_difference,
    says_where_rows_are_too_few,
)
