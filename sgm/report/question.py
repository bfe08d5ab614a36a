"""What a study asks, and its answers in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from sgm.answers import Finding, Judgement
from sgm.horizons import LIKELIHOODS
from sgm.leaderboard import COMBINATION
from sgm.reading import bounds_of, divergences_of, finite, over_runs, text_of, units_of, with_units
from sgm.report.source import Source
from sgm.rounding import rounded, significant

__all__ = [
    "Calibration",
    "Contest",
    "Horizon",
    "Standing",
    "Verdict",
    "calibrations",
    "contests",
    "horizons",
    "listed",
    "question",
    "setup",
    "standings",
    "verdicts",
]


@dataclass(frozen=True)
class Verdict:
    """A bound over the targets.

    How often its pick is the best schedule, or one that the runs can't tell from it, and what
    following it costs at most.
    """

    bound: str
    about: str
    targets: int
    right: int
    tied: int
    worst: str
    where: str


@dataclass(frozen=True)
class Contest:
    """The best combination of a target at a number of evaluations."""

    target: str
    budget: str
    divergence: str
    score: str
    combination: tuple[str, ...]
    error: str
    ties: int


@dataclass(frozen=True)
class Standing:
    """A combination over all contests: its place, mean and worst regret."""

    place: int
    score: str
    combination: tuple[str, ...]
    mean: str
    worst: str


@dataclass(frozen=True)
class Calibration:
    """An estimate of a divergence on the cells whose exact value is known."""

    divergence: str
    estimate: str
    cells: int
    ratio: str
    within: int


@dataclass(frozen=True)
class Horizon:
    """The best diffusion time of a target, schedule and score by a likelihood."""

    target: str
    schedule: str
    score: str
    measure: str
    best: str
    value: str
    others: str


def question(grid: xr.Dataset) -> str:
    """What the study asks, from what varies in it."""
    sizes = {name: grid.sizes[name] for name in ("schedule", "horizon", "sampler", "time_grid")}
    words = {
        "schedule": "noise schedules",
        "horizon": "diffusion times T",
        "sampler": "samplers",
        "time_grid": "time grids",
    }
    varies = [f"{sizes[name]} {word}" for name, word in words.items() if sizes[name] > 1]
    long = ""
    if sizes["horizon"] > 1 and any(name in grid for name in LIKELIHOODS):
        long = (
            f"How long to diffuse: which of {sizes['horizon']} times T gives the best likelihood?"
        )
        varies = [word for word in varies if "times T" not in word]
        if not varies:
            return long
    if not varies:
        return "How large is the error, and how well do its estimates measure it?"
    asked = f"Which of {listed(varies)} gives the least error"
    if sizes["sampler"] * sizes["time_grid"] > 1:
        asked += " at equal numbers of evaluations of the score"
    if bounds_of(grid) and divergences_of(grid) and sizes["schedule"] > 1:
        asked += ", and would the bounds have chosen it"
    return f"{asked}? {long}".rstrip()


def setup(grid: xr.Dataset) -> list[tuple[str, str]]:
    """What the study is of: heading and words."""

    def labels(name: str, most: int = 12) -> str:
        values = [f"{v:g}" if grid[name].dtype.kind in "if" else str(v) for v in grid[name].values]
        return ", ".join(values[:most]) + (f", … ({len(values)} in all)" * (len(values) > most))

    dimensions = {str(t): int(d) for t, d in zip(grid["target"].values, _of(grid), strict=True)}
    found = [("targets", ", ".join(f"{t} (d = {d})" if d else t for t, d in dimensions.items()))]
    for name, title in (
        ("schedule", "schedules"), ("horizon", "T"), ("score", "scores"), ("sampler", "samplers"),
        ("time_grid", "time grids"), ("n_steps", "N"),
    ):  # fmt: skip
        found.append((title, labels(name)))
    found.append(("runs", f"{grid.sizes['seed']} per cell"))
    return found


def _of(grid: xr.Dataset) -> list[int]:
    known = "dimension" in grid.coords
    return list(grid["dimension"].values) if known else [0] * grid.sizes["target"]


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def verdicts(grid: xr.Dataset, findings: Sequence[Finding]) -> list[Verdict]:
    """Each bound over the targets; the cheapest to follow first."""
    judged: dict[str, list[tuple[str, Judgement]]] = {}
    for found in findings:
        for judgement in found.judgements:
            judged.setdefault(judgement.bound, []).append((found.target, judgement))
    rows = []
    for bound, own in judged.items():
        wrong = [(j.regret, j.cost, target) for target, j in own if not (j.right or j.tied)]
        regret, cost, where = max(wrong, default=(1.0, "", ""))
        right, tied = (sum(getattr(j, name) for _, j in own) for name in ("right", "tied"))
        about = text_of(grid[bound]) if bound in grid else ""
        rows.append((regret, Verdict(bound, about, len(own), right, tied, cost, where)))
    return [row for _, row in sorted(rows, key=lambda row: row[0])]


def contests(source: Source) -> list[Contest]:
    """The winner of each contest of the first divergence, by target: see `sgm.leaderboard`."""
    grid = source.grid
    if grid.sizes["sampler"] * grid.sizes["time_grid"] < 2:
        return []
    table = source.table("leaderboard_targets")
    if table.empty:
        return []
    first = table["divergence"].iloc[0]
    label = {d.figure: d.label for d in divergences_of(grid)}.get(first, str(first))
    rows = []
    for target in grid["target"].values:
        of_target = table[(table["divergence"] == first) & (table["target"] == target)]
        for (score, budget), own in of_target.groupby(["score", "nfe"], sort=False):
            ranked = own[own["rank"].notna()]
            if len(ranked):
                best = ranked.iloc[0]
                ties = max(0, int((ranked["rank_low"] == 1).sum()) - 1)
                error = rounded(float(best["error"]))
                rows.append(
                    Contest(
                        str(target), f"{budget:g} evaluations", label, str(score),
                        _combination(grid, best), error, ties,
                    )
                )  # fmt: skip
    return rows


def standings(source: Source, most: int = 5) -> list[Standing]:
    """The first places over all targets and budgets of the first divergence."""
    grid, table = source.grid, source.table("leaderboard")
    if table.empty or grid.sizes["target"] < 2:
        return []
    table = table[(table["divergence"] == table["divergence"].iloc[0]) & table["place"].notna()]
    whole = table[table["nfe"].isna()] if table["nfe"].isna().any() else table
    return [
        Standing(
            int(row["place"]), str(row["score"]), _combination(grid, row),
            significant(float(row["geometric_mean_regret"])),
            significant(float(row["worst_regret"])),
        )
        for _, row in whole[whole["place"] <= most].iterrows()
    ]  # fmt: skip


def _combination(grid: xr.Dataset, row: pd.Series) -> tuple[str, ...]:
    """What varies of a combination, in words."""
    return tuple(_label(row[axis]) for axis in COMBINATION if grid.sizes[axis] > 1)


def _label(value: object) -> str:
    return f"{value:g}" if isinstance(value, (int, float, np.number)) else str(value)


def horizons(source: Source) -> list[Horizon]:
    """The best T of each target, schedule and score by its likelihood: see `sgm.horizons`."""
    if source.grid.sizes["horizon"] < 2:
        return []
    table = source.table("horizons")
    if table.empty or "best" not in table:
        return []
    found = []
    for (target, schedule, score), own in table.groupby(
        ["target", "schedule", "score"], sort=False
    ):
        true = {name: own[name].astype(str) == "True" for name in ("best", "plausible")}
        if not true["best"].any():
            continue
        best = own[true["best"]].iloc[0]
        others = own[true["plausible"] & ~true["best"]]["horizon"]
        name = str(best["loss"])
        spread = own[true["best"]].iloc[0].get(f"{name}_sd", np.nan)
        error = float(spread) / np.sqrt(max(1, int(best["runs_compared"])))
        variable = source.grid[name]
        found.append(
            Horizon(
                str(target), str(schedule), str(score),
                with_units(text_of(variable), units_of(variable)), f"{best['horizon']:g}",
                rounded(float(best[f"{name}_mean"]), error),
                ", ".join(f"{value:g}" for value in others),
            )
        )  # fmt: skip
    return found


def calibrations(grid: xr.Dataset) -> list[Calibration]:
    """Each estimate against the exact value, on the sampled cells that have both."""
    found = []
    for divergence in divergences_of(grid):
        names = {
            "plain": divergence.name,
            "without its bias": divergence.unbiased,
            "coupled": divergence.coupled,
        }
        exact = finite(grid, divergence.exact)
        for estimate, name in names.items():
            if not (name and divergence.exact):
                continue
            runs = over_runs(finite(grid, name))
            spread = runs.sd / np.sqrt(runs.count)
            known = exact.mean("seed") if "seed" in exact.dims else exact
            mean, truth, error = (x.values for x in xr.broadcast(runs.mean, known, spread))
            both = np.isfinite(mean) & np.isfinite(truth) & (truth > 0)
            if both.any():
                within = np.abs(mean - truth)[both] <= 2 * np.nan_to_num(error[both])
                ratio = float(np.median(mean[both] / truth[both]))
                found.append(
                    Calibration(
                        divergence.label, estimate, int(both.sum()), significant(ratio),
                        int(within.sum()),
                    )
                )  # fmt: skip
    return found
