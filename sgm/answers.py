"""What a study found, target by target: the best schedule, and what following each bound costs.

A `Finding` is of one divergence in the setting that says most: the first divergence that a bound is
of, else the first that ranks schedules; the sampled score if there is one, a network before the
exact one, the largest T and N, the first sampler and time grid. `ranking.csv` has all settings, and
what its numbers are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from sgm.comparison import cross_fitted, paired
from sgm.ranking import NO_BOUND, best_set, ranking_table
from sgm.reading import (
    SETTING,
    Divergence,
    divergence_named,
    divergences_of,
    finite,
    lowest,
    resolved,
)
from sgm.rounding import interval, rounded
from sgm.store import FAILED

__all__ = ["Finding", "Judgement", "answers", "answers_text", "errors_of", "findings"]

MOST = 6

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Judgement:
    """What a bound would have chosen, and the error there over the least.

    Parameters
    ----------
    bound : str
        A variable of the grid.
    pick : str
        The schedule of its lowest value.
    right, tied : bool
        Whether that is the best one, or another one that the runs can't tell from it.
    regret, low, high : float
        The ratio with its 95 % interval, NaN for exact values.
    """

    bound: str
    pick: str
    right: bool
    tied: bool
    regret: float
    low: float
    high: float

    @property
    def cost(self) -> str:
        """The ratio and its interval as text."""
        half = (self.high - self.low) / 2
        return f"{rounded(self.regret, half)} {interval(self.low, self.high)}".rstrip()


@dataclass(frozen=True)
class Finding:
    """The best schedule of a target, by one divergence in one setting.

    Parameters
    ----------
    divergence : Divergence
    setting : dict
        Labels of the cells.
    values : str
        ``coupled``, ``empirical`` or ``exact``.
    best : str
        The schedule of the least error.
    error, low, high : float
        Its error, cross-fitted where the runs allow it (`sgm.comparison`), and the 95 % interval,
        NaN for exact values and a single run.
    ties : tuple of str
        Other schedules that the runs can't tell from the best.
    bounded : bool
        Whether the study has a bound of the divergence.
    judgements : tuple of Judgement
        Of the bounds that are theorems there.
    """

    divergence: Divergence
    setting: dict[str, Any]
    values: str
    best: str
    error: float
    low: float
    high: float
    ties: tuple[str, ...]
    bounded: bool
    judgements: tuple[Judgement, ...]

    @property
    def target(self) -> str:
        return str(self.setting["target"])

    @property
    def amount(self) -> str:
        """The error in as many digits as its interval allows."""
        return rounded(self.error, (self.high - self.low) / 2)

    @property
    def sentence(self) -> str:
        """The finding in one line of plain text."""
        said = (
            f"{self.target}: {self.divergence.label}: smallest with {self.best}, "
            f"{self.amount} {interval(self.low, self.high)}".rstrip()
            + f" (score {self.setting['score']}, N = {self.setting['n_steps']:g})"
        )
        if self.ties:
            rest = " …" * (len(self.ties) > 3)
            said += f", not distinguishable from {', '.join(self.ties[:3])}{rest}"
        costs = [
            f"{j.bound} costs a factor of {j.cost} ({j.pick})"
            for j in self.judgements
            if not j.right
        ]
        follow = [f"following {', '.join(costs)}"] if costs else []
        right = [f"{j.bound} picks it" for j in self.judgements if j.right]
        return said + "".join(f"; {part}" for part in (*follow, *right)) + "."


def errors_of(here: xr.Dataset, divergence: Divergence) -> tuple[str, Array, Array]:
    """The errors of the schedules of a setting, as `ranking_table` takes them.

    Parameters
    ----------
    here : Dataset
        The grid at one setting: axes `schedule` and `seed`.
    divergence : Divergence

    Returns
    -------
    values : str
        ``coupled`` where there is such an estimate, ``empirical``, or ``exact`` where nothing was
        sampled.
    errors : ndarray, shape (n_schedules, n_runs)
        NaN for a lost run; exact errors are one run.
    shared : ndarray, shape (n_schedules, n_runs)
        The part of a coupled estimate's error that all seeds share; 0 of others.
    """
    name = resolved(here, divergence)
    values = "empirical" if name == divergence.name else "coupled"
    if not finite(here, name).notnull().any() and divergence.exact:
        name = divergence.exact
        values = "exact" if finite(here, name).notnull().any() else values
    errors = _by_schedule(here, name)
    shared = str(here[name].attrs.get("shared_error", "")) if values == "coupled" else ""
    return values, errors, np.nan_to_num(_by_schedule(here, shared) if shared else 0.0 * errors)


def _by_schedule(here: xr.Dataset, name: str) -> Array:
    values = finite(here, name)
    if "seed" not in values.dims:
        values = values.expand_dims("seed", -1)
    like = here["status"].isel(seed=slice(values.sizes["seed"])).transpose("schedule", "seed")
    return np.array(values.broadcast_like(like).transpose("schedule", "seed").values)


def findings(grid: xr.Dataset, ranking: pd.DataFrame | None = None) -> list[Finding]:
    """What was found of each target that has errors of two schedules or more.

    Parameters
    ----------
    grid : Dataset
    ranking : DataFrame, optional
        Its `ranking_table`, where it is known.

    Returns
    -------
    list of Finding
        In the order of the targets.
    """
    ranking = ranking_table(grid) if ranking is None else ranking
    if len(ranking):
        ranking = ranking[(ranking["varies"] == "schedule") & (ranking["among"] == "all")]
        ranking = ranking[(ranking["n"] > 1) & ranking["regret"].notna()]
    found = []
    for target in map(str, grid["target"].values):
        rows = ranking[ranking["target"] == target] if len(ranking) else ranking
        candidates = rows if len(rows) else _unbounded(grid, target)
        if len(candidates):
            own = _setting(candidates)
            found.append(_finding(grid, own.iloc[0], own if len(rows) else rows))
    return found


def _unbounded(grid: xr.Dataset, target: str) -> pd.DataFrame:
    """A row for the setting that says most of a target of which there is no bound, if any."""
    here, rows = grid.sel(target=target), []
    for divergence in (d for d in divergences_of(grid) if d.ranks):
        for name, kind in ((divergence.name, "empirical"), (divergence.exact, "exact")):
            known = finite(here, name).notnull()
            several = known.any([d for d in known.dims if d == "seed"]).sum("schedule") > 1
            dims = {dim: here[dim] for dim in SETTING if dim != "target"}
            own = several.expand_dims({k: v for k, v in dims.items() if k not in several.dims})
            labels = own.rename("several").to_series().loc[lambda x: x].index.to_frame(index=False)
            rows.append(labels.assign(target=target, divergence=divergence.name, error=kind))
    found = pd.concat(rows) if rows else pd.DataFrame()
    if found.empty:
        return found
    found = _setting(found).head(1)
    cells = grid.sel({axis: found.iloc[0][axis] for axis in SETTING})
    _, errors, _ = errors_of(cells, divergence_named(grid, found.iloc[0]["divergence"]))
    names = [str(label) for label in grid["schedule"].values]
    count = np.isfinite(errors).sum(axis=1)
    least = lowest(np.nansum(errors, axis=1) / np.where(count, count, np.nan), count)
    return found.assign(best=names[least or 0], best_set=best_set(errors, names))


def _setting(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the setting that says most."""
    if (rows["error"] != "exact").any():
        rows = rows[rows["error"] != "exact"]
        if (rows["score"] != "exact").any():  # beside a network the exact score is a control
            rows = rows[rows["score"] != "exact"]
    for axis in ("horizon", "n_steps"):
        rows = rows[rows[axis] == rows[axis].max()]
    for axis in ("score", "sampler", "time_grid", "divergence"):
        rows = rows[rows[axis] == rows[axis].iloc[0]]
    return rows


def _finding(grid: xr.Dataset, first: pd.Series, rows: pd.DataFrame) -> Finding:
    setting = {axis: np.asarray(first[axis]).item() for axis in SETTING}
    divergence = divergence_named(grid, str(first["divergence"]))
    here = grid.sel(setting)
    values, errors, shared = errors_of(here, divergence)
    places, half = cross_fitted(errors)
    run = np.arange(errors.shape[1])
    error, low, high, _ = paired(
        errors[places, run], half, float(np.sqrt(np.mean(shared[places, run] ** 2)))
    )
    judged: list[dict[Any, Any]] = []
    if len(rows):
        theorems = rows["covered"] & (rows["objection"] != NO_BOUND) & (rows["pick"] != "")
        judged = rows[theorems].to_dict("records")
    best, ties = first["best"], str(first["best_set"]).split()
    return Finding(
        divergence, setting, values, best, error, low, high,
        tuple(label for label in ties if label != best), bool(len(rows)),
        tuple(
            Judgement(
                str(row["bound"]), row["pick"], row["pick"] == best,
                row["pick"] != best and row["pick"] in ties,
                row["regret"], row["regret_low"], row["regret_high"],
            )
            for row in judged
        ),
    )  # fmt: skip


def answers(grid: xr.Dataset, ranking: pd.DataFrame | None = None) -> list[str]:
    """A sentence or two a target: the schedule of the least error, and what each bound would cost.

    Parameters
    ----------
    grid : Dataset
    ranking : DataFrame, optional
        Its `ranking_table`, where it is known.

    Returns
    -------
    list of str
        Targets without a bound of a divergence that is measured are left out.
    """
    return [found.sentence for found in findings(grid, ranking) if found.bounded]


def _lines(grid: xr.Dataset, root: str, ranking: pd.DataFrame | None) -> Iterator[str]:
    found = answers(grid, ranking)
    yield from found[:MOST]
    if len(found) > MOST:
        yield f"… and {len(found) - MOST} more targets, in {root}/tables/ranking.csv."
    failed = int((grid["status"] == FAILED).sum())
    if failed:
        yield f"{failed} runs failed; `make status` and the logs say why."
    yield f"Figures: {root}/figures; how each bound ranks the schedules: {root}/tables/ranking.csv."


def answers_text(grid: xr.Dataset, root: str, ranking: pd.DataFrame | None = None) -> str:
    """`answers` as the lines that `make study` ends with.

    Parameters
    ----------
    grid : Dataset
    root : str
        The folder of the study.
    ranking : DataFrame, optional
        As in `answers`.

    Returns
    -------
    str
        Ten lines at most.
    """
    return "".join(f"{line}\n" for line in _lines(grid, root, ranking))
