"""Leaderboard: which schedule, time grid and sampler is best at equal numbers of evaluations.

Competitors are combinations of schedule, horizon, time grid and sampler. They meet in *contests*:
one target, score, divergence and budget F of evaluations of the score.

*Equal NFE.* A combination enters with the N of its largest NFE ≤ F, and only if that is at least
0.9 F; it is out otherwise. So a scheme of two evaluations a step gets half the steps, and one that
spends 2N − 1 of them is held to 9 of 10. Nobody gets more than F, or may choose fewer. Budgets are
those N of the study at which at least 0.9 times as many samplers enter as at any other N.

*Error.* The exact value where there is one; else the mean over runs, of the coupled estimate where
there is one. Combinations that lost runs which others have are listed, but not ranked: a mean over
the runs that survived would reward them. *Regret* is the error over the least of the contest;
there is none where the least is not above rounding, as an estimate may be.

*Ranks.* 1 plus the number of those with a smaller error. Exact errors within rounding are a tie,
and [rank_low, rank_high] is what it spans. Of runs it is a confidence interval: combination k is
told to be better than j if, paired by seeds,

    d_jk > t_{R−1, 1−α/(K−1)} s_jk/√R,    rank_low = 1 + #{k better},  rank_high = K − #{k worse}.

Of each pair one of the two claims at most can be wrong, so that by Bonferroni the interval of one
combination holds its rank with probability 1 − α for Gaussian differences. Those with rank_low = 1
are `sgm.reading.unbeaten`, the confidence set of the best. An error that all seeds share, that of
a reference run, is added to s/√R. A single run is judged by the standard errors of the estimates,
as if they were independent, which with the noise they share is the safe side; without any there is
no interval.

*Over contests* the standing is the geometric mean of regret: an order that does not depend on what
errors are divided by, unlike that of arithmetic means.

Sources
-------
Mogstad, Romano, Shaikh, Wilhelm (Rev. Econ. Stud. 91, 2024): intervals of ranks from paired
differences. Fleming & Wallace (CACM 29, 1986): geometric means of ratios.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from scipy.special import ndtri, stdtrit

from sgm.reading import Divergence, divergences_of, finite
from sgm.store import FAILED

__all__ = ["COMBINATION", "budgets", "contests_table", "leaderboard_table", "rank_intervals"]

Array = npt.NDArray[np.float64]

#: The axes of a combination.
COMBINATION = ("schedule", "horizon", "time_grid", "sampler")
#: Least part of a budget that a combination must spend.
SPENT = 0.9
CONFIDENCE = 0.95
#: Errors that differ by less are equal to rounding.
RELATIVE, ABSOLUTE = 1e-9, 1e-14
#: Significant digits of the tables.
DIGITS = 6

PLACES = ("rank", "rank_low", "rank_high")


def _evaluations(grid: xr.Dataset) -> npt.NDArray[np.int64]:
    """NFE by time grid, sampler and N; that of grids from before it was counted is N."""
    sizes = {dim: grid.sizes[dim] for dim in ("time_grid", "sampler", "n_steps")}
    nfe = grid["nfe"] if "nfe" in grid.coords else grid["n_steps"]
    return np.asarray(nfe.variable.set_dims(sizes).transpose(*sizes).values)  # type: ignore[no-untyped-call]


def _entries(nfe: npt.NDArray[np.int64], budget: int) -> npt.NDArray[np.intp]:
    """Index of the N of the largest NFE within a budget, by time grid and sampler; −1: out."""
    within = np.where((nfe <= budget) & (nfe >= SPENT * budget), nfe, -1)
    return np.where(np.max(within, axis=-1) > 0, np.argmax(within, axis=-1), -1)


def budgets(grid: xr.Dataset) -> list[int]:
    """The numbers of evaluations at which the combinations of a grid are compared.

    Parameters
    ----------
    grid : Dataset

    Returns
    -------
    list of int
        Increasing: the values of N at which the most samplers enter, or at least 0.9 times as many.
    """
    nfe = _evaluations(grid)
    entering = {
        n: int((_entries(nfe, n) >= 0).any(axis=0).sum())
        for n in sorted(map(int, grid["n_steps"].values))
    }
    most = max(entering.values())
    return [n for n, count in entering.items() if count >= SPENT * most > 0]


def rank_intervals(
    values: npt.ArrayLike,
    standard_errors: npt.ArrayLike | None = None,
    shared_errors: npt.ArrayLike | None = None,
    confidence: float = CONFIDENCE,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]] | None:
    """Confidence intervals of the ranks of K means, one at a time; see the module.

    Parameters
    ----------
    values : array_like, shape (K, R)
        A row a choice, a column a seed; finite.
    standard_errors : array_like, shape (K,), optional
        Of the values, if R = 1.
    shared_errors : array_like, shape (K,), optional
        Standard errors of what all seeds of a choice share.
    confidence : float
        1 − α.

    Returns
    -------
    low, high : ndarray of int, shape (K,)
        None if there is a single run without a standard error.
    """
    values = np.asarray(values, dtype=np.float64)
    n, runs = values.shape
    shared = np.zeros(n) if shared_errors is None else np.asarray(shared_errors, dtype=np.float64)
    level = 1 - (1 - confidence) / max(1, n - 1)
    if runs == 1 and standard_errors is None:
        return None
    own = np.zeros(n) if standard_errors is None else np.asarray(standard_errors, dtype=np.float64)
    low, high = np.ones(n, dtype=np.intp), np.full(n, n, dtype=np.intp)
    for j in range(n):  # a row at a time: K² R numbers may be many
        differences = values[j] - values
        mean = differences.mean(axis=1)
        common = np.where(np.arange(n) == j, 0.0, shared**2 + shared[j] ** 2)
        if runs > 1:
            square = differences.var(axis=1, ddof=1) / runs
            with np.errstate(divide="ignore", invalid="ignore"):
                # Welch and Satterthwaite, the shared part with no end of freedom
                freedom = (runs - 1) * np.where(square > 0, 1 + common / square, 1.0) ** 2
            reach = stdtrit(freedom, level) * np.sqrt(square + common)
        else:
            reach = ndtri(level) * np.sqrt(own**2 + own[j] ** 2 + common)
        reach = np.maximum(reach, _rounding(values.mean(axis=1)))
        low[j] += np.sum(mean > reach)
        high[j] -= np.sum(mean < -reach)
    return low, high


def _rounding(values: Array) -> Array:
    return RELATIVE * np.abs(values) + ABSOLUTE


def _smaller(values: Array) -> npt.NDArray[np.intp]:
    """How many of some values are smaller than each, by more than rounding."""
    return np.searchsorted(np.sort(values), values - _rounding(values), side="left")


def _judged(
    values: Array, exact: bool, standard_errors: Array | None, shared: Array
) -> pd.DataFrame:
    """Error, regret and ranks of the combinations of one contest.

    Parameters
    ----------
    values : ndarray, shape (K, R)
        NaN for a run that was lost; exact errors are one run.
    """
    count = np.isfinite(values).sum(axis=1)
    error = np.where(count > 0, np.nansum(values, axis=1) / np.maximum(count, 1), np.nan)
    frame = pd.DataFrame({"error": error})
    frame["n_runs"] = 0 if exact else count
    frame["regret"] = np.nan
    frame = frame.assign(**{name: pd.array([pd.NA] * len(frame), dtype="Int64") for name in PLACES})
    ranked = np.flatnonzero((count > 0) & (count == count.max(initial=0)))
    if not len(ranked):
        return frame
    seeds = np.isfinite(values[ranked]).all(axis=0)
    own = error[ranked]
    if own.min() > ABSOLUTE:
        frame.loc[ranked, "regret"] = own / own.min()
    smaller = _smaller(own)
    frame.loc[ranked, "rank"] = 1 + smaller
    intervals = None
    if exact:
        intervals = 1 + smaller, len(own) - _smaller(-own)
    elif seeds.any():
        errors = None if standard_errors is None else standard_errors[ranked]
        intervals = rank_intervals(values[np.ix_(ranked, seeds)], errors, shared[ranked])
    if intervals is not None:
        frame.loc[ranked, "rank_low"], frame.loc[ranked, "rank_high"] = intervals
    return frame


@dataclass(frozen=True, eq=False)
class _Measure:
    """What errors are read from: values by target, score, combination, N and seed."""

    kind: str
    values: Array
    errors: Array  # standard errors of single runs
    shared: Array  # of what all seeds share


def _arranged(grid: xr.Dataset, name: str) -> Array:
    """A variable, of shape (target, score, combination, N, seed); one seed if it has none."""
    order = ("target", "score", *COMBINATION, "n_steps", "seed")
    variable = finite(grid, name).variable
    sizes = {dim: grid.sizes[dim] for dim in order}
    if "seed" not in variable.dims:
        sizes["seed"] = 1
    values = variable.set_dims(sizes).transpose(*order).values  # type: ignore[no-untyped-call]
    return values.reshape(*values.shape[:2], -1, *values.shape[-2:])  # type: ignore[no-any-return]


def _measures(grid: xr.Dataset, divergence: Divergence) -> list[_Measure]:
    """In the order of preference: exact, coupled, empirical."""
    coupled = divergence.coupled
    names = {
        "exact": (divergence.exact, ""),
        "coupled": (coupled, f"{coupled}_standard_error"),
        "empirical": (divergence.name, divergence.standard_error),
    }
    return [
        _Measure(
            kind, _arranged(grid, name), _arranged(grid, error),
            _arranged(grid, grid[name].attrs.get("shared_error", "")),
        )
        for kind, (name, error) in names.items() if name
    ]  # fmt: skip


def contests(grid: xr.Dataset, divergence: Divergence) -> pd.DataFrame:
    """The contests of a divergence, by score, budget and target; see `contests_table`.

    Every combination has a row in each, in the order of the grid, whether or not it enters.
    """
    nfe, compared = _evaluations(grid), budgets(grid)
    shape = [grid.sizes[dim] for dim in COMBINATION]
    labels = pd.MultiIndex.from_product(
        [grid[dim].values.tolist() for dim in COMBINATION], names=COMBINATION
    ).to_frame(index=False)
    spent = np.broadcast_to(nfe, (*shape, nfe.shape[-1])).reshape(len(labels), -1)
    numbers, every = grid["n_steps"].values, np.arange(len(labels))
    measures = _measures(grid, divergence)
    failed = _arranged(grid, "status") == FAILED
    frames = []
    for s, score in enumerate(grid["score"].values.tolist()):
        for budget in compared:
            # the same N for all schedules and horizons
            at = np.broadcast_to(_entries(nfe, budget), shape).ravel()
            enters = at >= 0
            for t, target in enumerate(grid["target"].values.tolist()):
                own = [m for m in measures if np.isfinite(m.values[t, s]).any()]
                if not own:
                    continue
                values, errors, shared = (
                    np.where(enters[:, None], part[t, s, every, at], np.nan)
                    for part in (own[0].values, own[0].errors, own[0].shared)
                )
                one = values.shape[1] == 1 and bool(np.isfinite(errors).any())
                frame = _judged(
                    values, own[0].kind == "exact", errors[:, 0] if one else None,
                    np.nan_to_num(shared).max(axis=1),
                )  # fmt: skip
                frame["n_failed"] = np.where(enters, failed[t, s, every, at].sum(axis=1), 0)
                told = {
                    "divergence": divergence.figure, "score": score,
                    "nfe": pd.array([budget] * len(labels), dtype="Int64"),
                    "target": target, "values": own[0].kind,
                    "n_steps": pd.array(numbers[at], dtype="Int64"),
                    "evaluations": pd.array(spent[every, at], dtype="Int64"),
                }  # fmt: skip
                frame = pd.concat([labels, frame], axis=1).assign(**told)
                frame.loc[~enters, ["n_steps", "evaluations"]] = pd.NA
                frames.append(frame)
    return _joined(frames, COLUMNS)


def _joined(frames: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    kept = [frame[list(columns)] for frame in frames if len(frame)]
    return pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=list(columns))


COLUMNS = (
    "divergence", "score", "nfe", "target", *COMBINATION, "n_steps", "evaluations", "values",
    "error", "regret", *PLACES, "n_runs", "n_failed",
)  # fmt: skip


def contests_table(grid: xr.Dataset) -> pd.DataFrame:
    """One row a contest and combination, the best first: see the module.

    Parameters
    ----------
    grid : Dataset

    Returns
    -------
    DataFrame
        `divergence` by its figure's name, `score`, the budget `nfe`, `target`; the combination;
        `n_steps` and the `evaluations` that it spends; `values` exact, coupled or empirical;
        `error`, `regret`, `rank` with its interval `rank_low`, `rank_high`; `n_runs`, 0 of an
        exact value, and `n_failed`. Combinations that the study lacks, or that do not enter, are
        left out.
    """
    whole = _joined([contests(grid, d) for d in divergences_of(grid) if d.ranks], COLUMNS)
    whole = whole[whole["error"].notna() | (whole["n_failed"] > 0)]
    place = whole.groupby(list(CONTEST), sort=False).ngroup().rename("place")
    order = whole.assign(place=place).sort_values(["place", "rank", "error"], kind="stable").index
    return _rounded(whole.loc[order, list(COLUMNS)].reset_index(drop=True))


OF_A_BUDGET = ("nfe", "n_steps", "evaluations")
CONTEST = ("divergence", "score", "nfe", "target")

STANDING = (
    "divergence", "score", "nfe", "place", *COMBINATION, "n_steps", "evaluations", "n_contests",
    "geometric_mean_regret", "worst_regret", "mean_rank", "worst_rank", "n_unbeaten",
)  # fmt: skip


def leaderboard_table(grid: xr.Dataset) -> pd.DataFrame:
    """One row a combination and budget, over all targets; the best first.

    Parameters
    ----------
    grid : Dataset

    Returns
    -------
    DataFrame
        `divergence`, `score` and the budget `nfe`, empty for all of them together, where
        `n_steps` and `evaluations` are empty too; `place` by `geometric_mean_regret` among those
        that are ranked in the most contests, empty for others, which come last; `n_contests` in
        which the combination is ranked, `worst_regret`, `mean_rank`, `worst_rank`, and
        `n_unbeaten`: in how many it is not told from the best.
    """
    found = (contests(grid, d) for d in divergences_of(grid) if d.ranks)
    return _rounded(_joined([standings(frame) for frame in found], STANDING))


def standings(found: pd.DataFrame) -> pd.DataFrame:
    """`leaderboard_table` of the `contests` of a divergence, unrounded."""
    ranked = found[found["rank"].notna()]
    if ranked.empty:
        return pd.DataFrame(columns=list(STANDING))
    ranked = ranked.assign(
        log_regret=np.log(ranked["regret"].astype(float)), unbeaten=ranked["rank_low"].eq(1)
    )
    frames = []
    for _, own in ranked.groupby("score", sort=False):
        parts = [part for _, part in own.groupby("nfe", sort=True)]
        if len(parts) > 1:
            several = {name: pd.array([pd.NA] * len(own), "Int64") for name in OF_A_BUDGET}
            parts = [own.assign(**several), *parts]
        frames += [_standing(part) for part in parts]
    return _joined(frames, STANDING)


def _standing(part: pd.DataFrame) -> pd.DataFrame:
    """Over the contests of one score and budget, or of all budgets."""
    keys = ["divergence", "score", *COMBINATION, *OF_A_BUDGET]
    frame = part.groupby(keys, sort=False, dropna=False).agg(
        n_contests=("rank", "size"),
        geometric_mean_regret=("log_regret", "mean"),
        worst_regret=("regret", "max"),
        mean_rank=("rank", "mean"),
        worst_rank=("rank", "max"),
        n_unbeaten=("unbeaten", "sum"),
    )
    frame = frame.reset_index()
    frame["geometric_mean_regret"] = np.exp(frame["geometric_mean_regret"])
    whole = frame["n_contests"] == frame["n_contests"].max()
    regret = frame["geometric_mean_regret"]
    by = regret if regret[whole].notna().any() else frame["mean_rank"].astype(float)
    frame["place"] = by.where(whole).rank(method="min").astype("Int64")
    frame = frame.assign(out=~whole, by=by)
    return frame.sort_values(["out", "by", "mean_rank"], kind="stable")


def _rounded(frame: pd.DataFrame) -> pd.DataFrame:
    """Numbers in so many digits as a reader takes in."""
    for name in ("error", "regret", "geometric_mean_regret", "worst_regret", "mean_rank"):
        if name in frame:
            values = frame[name].astype(float)
            frame[name] = [float(f"{value:.{DIGITS}g}") for value in values]
    return frame
