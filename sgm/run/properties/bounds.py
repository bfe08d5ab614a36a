"""Properties of a bound: above the exact error on random Gaussian cells, where it applies.

A cell has its dimension, law, σ², T, schedule, N, grid and score drawn at random, the law of
the sampler's output is exact, and so is each divergence. What a total bounds, its `about` says:
``divergence`` names a variable of the grid whose exact value is known, such as `kl_plugin`; its
``refined`` forms bound the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sgm import laws, samplers, scores
from sgm.gaussian import Gaussian, kl_divergence, wasserstein2
from sgm.processes import VPProcess
from sgm.registry import families
from sgm.run.build import MeasureError, build, measured
from sgm.run.jobs.theory import bound_context, chain_context
from sgm.run.properties.findings import InapplicableError, Property, PropertyError
from sgm.schedules import BetaSchedule
from sgm.scores import GaussianScore
from sgm.study import Item, Variable
from sgm.timegrids import quadratic, uniform

__all__ = ["CELLS", "PROPERTIES", "Bound", "Cell", "cells", "subjects"]

Array = npt.NDArray[np.float64]

CELLS = 2500
#: The sampler of both theorems, and others of which an objection may say that they are none; each
#: evaluates the score once a step.
SAMPLERS = (
    "exponential_integrator_modified",
    "exponential_integrator",
    "euler_maruyama",
    "ancestral",
    "probability_flow_euler",
    "ddim",
)
#: Relative and absolute rounding error of two numbers that are compared.
ROUNDING = (1e-9, 1e-13)


@dataclass(frozen=True, eq=False)
class Cell:
    """A random cell, with what a bound may ask for."""

    numbers: Mapping[str, Any]
    process: VPProcess
    law: Gaussian
    score: GaussianScore
    times: Array

    def steps(self, sampler: str) -> samplers.Steps:
        steps: samplers.Steps = getattr(samplers, sampler)(self.process, self.times)
        return steps

    @functools.cached_property
    def known(self) -> dict[str, Any]:
        moments = self.score.error_moments(self.law, self.times[:-1])
        return bound_context(self.process, self.law, self.times, *moments)

    def context(self, sampler: str, along_chain: bool) -> dict[str, Any]:
        """As a job tells it."""
        if not along_chain:
            return self.known
        return chain_context(self.known, self.steps(sampler), self.score)

    def exact(self, sampler: str) -> dict[str, float]:
        """The exact values of what a bound may bound."""
        prior = self.process.prior(self.law.dimension)
        output = laws.sampler_law(self.steps(sampler), self.score, prior)
        terminal = self.process.marginal(self.law, self.process.horizon)
        return {
            "kl_exact": float(kl_divergence(self.law, output)),
            "kl_reverse_exact": float(kl_divergence(output, self.law)),
            "w2_exact": float(wasserstein2(self.law, output)),
            "kl_terminal": float(kl_divergence(terminal, prior)),
        }

    def __str__(self) -> str:
        return ", ".join(
            f"{key} = {np.array2string(np.asarray(value), precision=6, separator=', ')}"
            if isinstance(value, np.ndarray)
            else f"{key} = {value:.6g}" if isinstance(value, float) else f"{key} = {value}"
            for key, value in self.numbers.items()
        )  # fmt: skip


SCORES: dict[str, Callable[..., GaussianScore]] = {
    "exact": lambda process, law, eps: scores.exact(process, law),
    "scaled": scores.scaled,
    "biased": scores.biased,
    "plugin": scores.plugin,
}
GRIDS = {"uniform": uniform, "quadratic": quadratic}


def cells(seed: int = 0) -> Iterator[Cell]:
    """Random Gaussian cells without end, the same for the same seed.

    d from 1 to 6, condition numbers up to 10⁴, σ² from 1/4 to 4, T from 0.3 to 3, N to 60,
    λ_max from σ²/20 to 4σ², perturbed scores of size up to 1/2.
    """
    rng = np.random.default_rng(seed)
    while True:
        d = int(rng.integers(1, 7))
        variance = float(4 ** rng.uniform(-1, 1))
        horizon = float(10 ** rng.uniform(-0.5, 0.5))
        a, low = float(rng.uniform(-6, 6)), float(10 ** rng.uniform(-1.5, 0))
        high = low * float(10 ** rng.uniform(0, 2.3))
        largest = variance * float(10 ** rng.uniform(-1.3, 0.6))
        condition = float(10 ** rng.uniform(0, 4))
        eigenvalues = largest * condition ** -rng.permutation(
            np.concatenate([[0.0, 1.0], rng.uniform(size=4)])[:d]
        )
        mean = float(rng.choice([0.0, 1.0, 3.0])) * rng.standard_normal(d)
        basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
        n_steps = int(rng.integers(1, 61)) if rng.random() < 0.8 else int(rng.integers(1, 5))
        grid, name = str(rng.choice(list(GRIDS))), str(rng.choice(list(SCORES)))
        eps = float(rng.uniform(-0.5, 0.5)) if name != "exact" else 0.0
        process = VPProcess(BetaSchedule(horizon, a, low, high), variance)
        law = Gaussian(mean, eigenvalues, basis)
        numbers = {
            "d": d, "λ": eigenvalues, "Uᵀμ": law.rotate(mean), "σ²": variance, "T": horizon,
            "a": a, "β_min": low, "β_max": high, "N": n_steps, "grid": grid, "score": name,
            "ε": eps,
        }  # fmt: skip
        score = SCORES[name](process, law, eps)
        yield Cell(numbers, process, law, score, GRIDS[grid](horizon, n_steps))


class Compared(NamedTuple):
    """A total beside the exact value that it bounds, over the cells where it applies."""

    divergence: str
    bound: Array
    exact: Array
    places: list[tuple[Cell, str]]


@dataclass(frozen=True, eq=False)
class Bound:
    """A bound of the config."""

    spec: Mapping[str, Any]
    variables: tuple[Variable, ...]
    objection: str
    along_chain: bool
    n_cells: int = CELLS
    _compared: dict[str, Compared] = field(default_factory=dict)

    @property
    def totals(self) -> dict[str, tuple[str, str]]:
        """Name of each total to the exact divergence that it bounds, and its objection.

        Raises
        ------
        InapplicableError
            If no variable says which divergence it bounds, or none has an exact value.
        """
        by_name = {variable.name: variable for variable in self.variables}
        found = {}
        for variable in self.variables:
            if "divergence" not in variable.about:
                continue
            divergence = _exact_of(variable.about["divergence"])
            objection = variable.about.get("objection", "")
            for name in (variable.name, *variable.about.get("refined", "").split()):
                if divergence and name in by_name:
                    own = by_name[name].about.get("objection", objection)
                    found[name] = divergence, own
        if not found:
            raise InapplicableError(
                "no variable of it says in `about` which divergence it bounds, such as "
                '{"role": "bound", "divergence": "kl_plugin"}'
            )
        return found

    def applies(self, total: str, objection: str, cell: Cell, sampler: str) -> bool:
        """Whether the bound says that it is a theorem there; without an objection, for one."""
        if not (self.objection and objection):
            return sampler == SAMPLERS[0]
        spec = {"build": self.objection, "parameters": {"total": total}}
        variance = cell.process.variance
        return not build(spec, law=cell.law, variance=variance, sampler=sampler)

    def value(self, cell: Cell, sampler: str) -> dict[str, Any]:
        try:
            return measured([self.spec], cell.context(sampler, self.along_chain))
        except MeasureError as error:
            raise PropertyError(f"{error}; in the cell {cell}, sampler = {sampler}") from error

    @property
    def compared(self) -> dict[str, Compared]:
        """All totals on as many cells each as there should be, of ten times as many at most."""
        if self._compared:
            return self._compared
        found: dict[str, list[tuple[float, float, Cell, str]]] = {t: [] for t in self.totals}
        for k, cell in enumerate(cells()):
            wanting = [t for t, rows in found.items() if len(rows) < self.n_cells]
            # a total that does not apply to the first thousand is not waited for
            if k == 10 * self.n_cells or not any(found[t] or k < self.n_cells for t in wanting):
                break
            for sampler in SAMPLERS:
                own = [
                    total
                    for total in wanting
                    if self.applies(total, self.totals[total][1], cell, sampler)
                ]
                if own:
                    values, exact = self.value(cell, sampler), cell.exact(sampler)
                    for total in own:
                        value = float(values[total])
                        row = (value, exact[self.totals[total][0]], cell, sampler)
                        found[total].append(row)
        for total, rows in found.items():
            bound, exact_values = np.array([row[:2] for row in rows]).reshape(-1, 2).T
            places = [row[2:] for row in rows]
            self._compared[total] = Compared(self.totals[total][0], bound, exact_values, places)
        return self._compared


def _exact_of(divergence: str) -> str:
    """The exact variable of a cell for what a total says that it bounds; "" if there is none."""
    known = {"kl_exact", "kl_reverse_exact", "w2_exact", "kl_terminal"}
    if divergence in known:
        return divergence
    for entry in families("divergence").values():
        for variable in entry.variables:
            if variable.name == divergence and variable.about.get("exact") in known:
                return variable.about["exact"]
    return ""


def subjects(item: Item, n_cells: int = CELLS) -> Mapping[str, Callable[[], Bound]]:
    """The bound, which is to be about Gaussian laws too."""

    def build_bound() -> Bound:
        if item.entry.needs not in ("", "law", "gaussian"):
            raise ValueError(
                f"needs = {item.entry.needs!r}: must be '', 'law' or 'gaussian': no other error "
                "is exact"
            )
        entry = item.entry
        objection = entry.address(entry.objection) if entry.objection else ""
        return Bound(item.spec, tuple(entry.variables), objection, entry.along_chain, n_cells)

    return {f"{n_cells} random Gaussian cells": build_bound}


def returns_what_it_declares(bound: Bound) -> str:
    """It returns the variables that it declares, of their shapes."""
    unknown: set[str] = set()
    for _, cell in zip(range(50), cells(1), strict=False):
        for name, value in bound.value(cell, SAMPLERS[0]).items():
            if np.any(np.isnan(value)):
                unknown.add(name)
    return f"{len(bound.variables)} variables" + (
        f", sometimes NaN: {', '.join(sorted(unknown))}" if unknown else ""
    )


def takes_several_networks(bound: Bound) -> str:
    """Errors of R networks at once, of shape (R, N), give each its own value."""
    for _, cell in zip(range(20), cells(2), strict=False):
        context = cell.context(SAMPLERS[0], bound.along_chain)
        factors = np.array([1.0, 2.0])
        keys = [key for key in context if key.startswith(("score_mse", "score_cross"))]
        several = context | {key: factors[:, None] * context[key] for key in keys}
        try:
            together = measured([bound.spec], several, (2,))
            for r, factor in enumerate(factors):
                alone = measured(
                    [bound.spec], context | {key: factor * context[key] for key in keys}
                )
                for name, value in alone.items():
                    own = np.broadcast_to(together[name], 2)[r]
                    if not np.allclose(own, value, rtol=1e-9, atol=1e-13, equal_nan=True):
                        raise PropertyError(
                            f"{name} = {own:.9g} of network {r} among two, {float(value):.9g} "
                            f"alone; in the cell {cell}"
                        )
        except MeasureError as error:
            raise PropertyError(f"{error}; in the cell {cell}, R = 2") from error
    return "R = 2 as one by one"


def lies_above_the_exact_error(bound: Bound) -> str:
    """Wherever it says that it applies, it is at least the exact divergence."""
    words = []
    for total, (divergence, values, exact, places) in bound.compared.items():
        if not len(values):
            words.append(f"{total} applies nowhere")
            continue
        relative, absolute = ROUNDING
        wrong = ~(values >= exact * (1 - relative) - absolute)
        if np.any(np.isnan(values)):
            cell, sampler = places[int(np.argmax(np.isnan(values)))]
            raise PropertyError(
                f"{total} is NaN in {np.sum(np.isnan(values))} of {len(values)} cells, first in "
                f"the cell {cell}, sampler = {sampler}"
            )
        if wrong.any():
            k = int(np.argmax(wrong))
            cell, sampler = places[k]
            raise PropertyError(
                f"{total} is below {divergence} in {wrong.sum()} of {len(values)} cells, first "
                f"{values[k]:.9g} < {exact[k]:.9g} in the cell {cell}, sampler = {sampler}"
            )
        seen = np.isfinite(exact) & (exact > 1e-12)
        ratio = values[seen] / exact[seen]
        words.append(
            f"{total} ≥ {divergence} in {len(values)} cells, {np.min(ratio):.3g} times it at "
            f"least, {np.median(ratio):.3g} in the median"
        )
    return "; ".join(words)


PROPERTIES: tuple[Property, ...] = (
    returns_what_it_declares,
    takes_several_networks,
    lies_above_the_exact_error,
)
