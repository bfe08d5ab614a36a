"""Does a bound rank choices as the error does? Theory against error, a row a set of cells.

A set holds the cells of a setting that differ in one thing: the schedule, the horizon or the
number of steps. Beside the bound's totals an error may be the judge: the exact value of the same
score where the error is estimated, and that of the exact score.

The error is what resolves best (`sgm.reading.resolved`): the coupled estimate where there is
one, the empirical one, or where nothing was sampled the exact value. A rank correlation has a
bootstrap interval over runs, drawn anew for all cells of a set at once, since the runs of a seed
share their noise. The *regret* of following a judge is the error at its pick over the error of the
best choice, which is cross-fitted, as the comparison of schedules is (`sgm.comparison`); with
r = x̄/ȳ over the runs' errors x_s at the pick and y_s at the best, its interval is that of the mean
of (x_s − r y_s)/ȳ (the delta method).

A *violation* is a cell whose error exceeds the bound beyond its noise: of exact values beyond
rounding, of runs where the paired 95 % interval of error − bound lies above 0. The noise floor of
an empirical estimate is no violation: the estimate without its bias is judged, and none where
there is no such.

Sources
-------
Spearman's ρ with a percentile interval: Efron and Tibshirani, An Introduction to the Bootstrap,
1993, chapter 13.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from sgm.axes import GRID, REPLICATE
from sgm.comparison import cross_fitted, paired
from sgm.reading import (
    Divergence,
    bounds_of,
    divergences_of,
    finite,
    lowest,
    objection,
    parameters,
    unbeaten,
)
from sgm.store import FAILED, NOT_RUN

__all__ = [
    "NO_BOUND",
    "Bounding",
    "best_set",
    "bounding",
    "exceeds",
    "own_bounds",
    "ranking_table",
    "violations",
]

Array = npt.NDArray[np.float64]

VARYING = ("schedule", "horizon", "n_steps")
RESAMPLES = 1000
CONFIDENCE = 0.95
ROUNDING = (1e-9, 1e-13)  # relative and absolute, of exact values
NO_BOUND = "an error, no bound"


@dataclass(frozen=True)
class Bounding:
    """A total that bounds a divergence: its variable, and that of the bound it belongs to."""

    total: str
    bound: str


def bounding(grid: xr.Dataset, divergence: Divergence) -> list[Bounding]:
    """The totals that bound a divergence: of the bound it names, then of those that name it."""
    found: dict[str, Bounding] = {}
    bounds = bounds_of(grid)
    named = [b for b in bounds if b.name == divergence.bound]
    naming = [b for b in bounds if grid[b.name].attrs.get("divergence") == divergence.name]
    own = {b.name: b.name for b in bounds}
    for bound in (*named, *naming):
        for total in (bound.name, *bound.refined):
            found.setdefault(total, Bounding(total, own.get(total, bound.name)))
    return list(found.values())


def own_bounds(grid: xr.Dataset, divergence: Divergence) -> list[Bounding]:
    """The totals that bound a divergence itself, not another one that is above it."""
    return [
        judge
        for judge in bounding(grid, divergence)
        if grid[judge.bound].attrs.get("divergence", divergence.name) == divergence.name
    ]


def violations(grid: xr.Dataset, divergence: Divergence, total: str) -> xr.DataArray:
    """Where an error exceeds a bound beyond its noise.

    Parameters
    ----------
    grid : Dataset
        A grid or some of its cells, with an axis `seed`.
    divergence : Divergence
    total : str
        A variable that bounds it.

    Returns
    -------
    DataArray
        Over the axes of the grid without `seed`: 1 where it does, 0 where not, NaN where that can't
        be judged.
    """
    cells = grid["status"].isel(seed=0, drop=True)
    axes = {str(dim): grid.sizes[dim] for dim in (*cells.dims, "seed")}
    return cells.copy(data=_beyond(grid, divergence, total, axes)).drop_attrs()


def _beyond(grid: xr.Dataset, divergence: Divergence, total: str, axes: dict[str, int]) -> Array:
    """`violations` over some axes, of which `seed` is the last."""
    names = (divergence.coupled, divergence.unbiased, divergence.exact, total)
    coupled, unbiased, exact, bound = (_over(finite(grid, name), axes) for name in names)
    resolved = np.where(np.isfinite(coupled).any(-1, keepdims=True), coupled, unbiased)
    found = exceeds(exact, bound, exact=True)
    unknown = np.isnan(found)
    found[unknown] = exceeds(resolved[unknown], bound[unknown], exact=False)
    return found


def _over(values: xr.DataArray, axes: dict[str, int]) -> npt.NDArray[Any]:
    """A variable of the grid over axes of these sizes; one grid's labels need no alignment."""
    return np.asarray(values.variable.set_dims(axes).values)  # type: ignore[no-untyped-call]


def exceeds(error: Array, bound: Array, *, exact: bool) -> Array:
    """1 where an error exceeds a bound beyond its noise, 0 where not, NaN where that is unknown.

    Parameters
    ----------
    error, bound : ndarray, shape (..., n_runs)
        NaN for a lost run.
    exact : bool
        Whether errors have no noise but rounding; else each needs two runs.

    Returns
    -------
    ndarray, shape (...)
    """
    if exact:
        relative, absolute = ROUNDING
        low = _means(error) * (1 - relative) - absolute - _means(bound)
    else:
        half = np.zeros(error.shape[-1], dtype=np.intp)
        pairs = (error - bound).reshape(-1, error.shape[-1])
        low = np.reshape([paired(own, half)[1] for own in pairs], error.shape[:-1])
    return np.where(np.isnan(low), np.nan, low > 0)


def ranking_table(grid: xr.Dataset) -> pd.DataFrame:
    """Does a bound rank choices as the error does? One row a (set, divergence, judge).

    Divergences that no bound is of are left out, and sets without an error unless runs were lost.

    Parameters
    ----------
    grid : Dataset

    Returns
    -------
    DataFrame
        `varies`: schedule, horizon or n_steps, and `among`: all of them, or a one-parameter family
        of schedules beside others. The labels of the set, empty for what varies, `nfe` and
        `recipe`; `divergence` and its `error`: coupled, empirical or exact; `bound`, the judge:
        a total, or `exact` and `exact_score`, the exact values of the same and of the exact score.
        `covered`: whether it is a theorem there, and the `objection`.

        `n` with a finite error, `n_runs` and `n_failed` over all of them; `ratio_min`,
        `ratio_median` and `ratio_max` of the judge over the error; `violations`, empty where they
        can't be judged; `spearman`, empty under three cells or for a constant, with `spearman_low`
        and `spearman_high`, empty for exact values.

        `best` has the least error, `best_set` are those that the runs can't tell from it
        (`sgm.reading.unbeaten`), `pick` is the judge's. With one `parameter` in the set,
        `best_at`, `pick_at` and the `distance` pick − best in it. `error_best` (with six runs or
        more at the best of the other half of the runs), `error_at_pick`, their ratio `regret` with
        `regret_low` and `regret_high`, empty for exact values.
    """
    grid = grid.drop_dims([d for d in grid.dims if d not in REPLICATE]).load()
    rows = []
    for varying in VARYING:
        if varying != "schedule" and grid.sizes[varying] < 2:
            continue
        sets = list(_sets(grid, varying))
        for divergence in divergences_of(grid):
            judges = bounding(grid, divergence)
            if judges:
                rows += list(_rows(grid, varying, sets, divergence, judges))
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class _Set:
    """Choices along what varies: their places in the grid, and their number if they have one."""

    among: str
    places: npt.NDArray[np.intp]
    parameter: str
    numbers: Array


def _sets(grid: xr.Dataset, varying: str) -> Iterator[_Set]:
    labels = [str(label) for label in grid[varying].values]
    every = np.arange(len(labels))
    if varying != "schedule":
        yield _Set("all", every, varying, np.asarray(grid[varying].values, dtype=np.float64))
        return
    families = np.array([str(family) for family in grid["family"].values])
    numbers = {a.name: grid[a.name].values for a in parameters(grid) if a.dimension == varying}
    found = []
    for family in dict.fromkeys(families):
        own = np.flatnonzero(families == family)
        varied = [n for n, v in numbers.items() if len(np.unique(v[own][np.isfinite(v[own])])) > 1]
        if len(varied) == 1 and np.isfinite(numbers[varied[0]][own]).all():
            found.append(_Set(family, own, varied[0], numbers[varied[0]]))
    whole = [one for one in found if len(one.places) == len(labels)]
    if whole:
        yield _Set("all", every, whole[0].parameter, whole[0].numbers)
        return
    yield _Set("all", every, "", np.full(len(labels), np.nan))
    yield from found


def _rows(
    grid: xr.Dataset, varying: str, sets: list[_Set], divergence: Divergence, judges: list[Bounding]
) -> Iterator[dict[str, Any]]:
    others = [name for name in GRID if name != varying]
    axes = {name: grid.sizes[name] for name in (*others, varying)}
    runs = axes | {"seed": grid.sizes["seed"]}
    labels = {name: np.asarray(grid[name].values) for name in GRID}

    def cube(values: xr.DataArray) -> Array:
        """Over the other axes, what varies and the runs, of which exact values have one."""
        return _over(values, axes | {"seed": values.sizes.get("seed", 1)})

    plain, coupled, exact, shared = (
        cube(finite(grid, name))
        for name in (
            divergence.name,
            divergence.coupled,
            divergence.exact,
            _shared_error(grid, divergence),
        )
    )
    exact, shared = exact[..., :1], np.nan_to_num(shared)
    totals = {judge.total: cube(finite(grid, judge.total)) for judge in judges}
    broken = {judge.total: _beyond(grid, divergence, judge.total, runs) for judge in judges}
    bounds = {bound.name: bound for bound in bounds_of(grid)}
    reasons = {
        judge.total: _over(objection(grid, bounds[judge.bound], judge.total), axes)
        for judge in judges
    }
    status = _over(grid["status"], runs)
    score_axis, scores = others.index("score"), (grid["score_family"] == "exact").values
    exact_score = int(np.argmax(scores)) if scores.any() else -1
    recipes = grid["recipe"].values
    evaluations = grid["nfe"] if "nfe" in grid.coords else None
    for place in np.ndindex(*status.shape[:-2]):
        at = dict(zip(others, place, strict=True))
        if np.isfinite(coupled[place]).any():
            kind, error = "coupled", coupled[place]
        elif np.isfinite(plain[place]).any() or not np.isfinite(exact[place]).any():
            kind, error = "empirical", plain[place]
        else:
            kind, error = "exact", exact[place]
        lost = np.isin(status[place], [NOT_RUN, FAILED])
        if not (lost.any() or np.isfinite(error).any()):
            continue
        found = {name: (values[place], reasons[name][place]) for name, values in totals.items()}
        ideal = (*place[:score_axis], exact_score, *place[score_axis + 1 :])
        for name, own_place, other in (
            ("exact", place, kind != "exact"),
            ("exact_score", ideal, exact_score not in (-1, at["score"])),
        ):
            if other and np.isfinite(exact[own_place]).any():
                found[name] = exact[own_place], np.full(len(error), NO_BOUND, dtype=object)
        nfe = np.nan
        if evaluations is not None and varying != "n_steps":
            nfe = int(evaluations.isel({dim: at[str(dim)] for dim in evaluations.dims}))
        head = {
            "varies": varying,
            "among": "",
            **{n: np.asarray(labels[n][at[n]]).item() if n in at else np.nan for n in GRID},
            "nfe": nfe,
            "recipe": str(recipes[at["score"]]),
            "divergence": divergence.name,
            "error": kind,
        }
        for own in sets:
            names = [str(label) for label in labels[varying][own.places]]
            numbers, here = own.numbers[own.places], error[own.places]
            noise = shared[place][own.places] if kind == "coupled" else 0.0 * here
            for name, (values, why) in found.items():
                said = "; ".join(dict.fromkeys(filter(None, map(str, why[own.places]))))
                judge = values[own.places]
                beyond = broken[name][place][own.places] if name in broken else np.array([np.nan])
                yield {
                    **head,
                    "among": own.among,
                    "bound": name,
                    "covered": not said,
                    "objection": said,
                    "n": int(np.isfinite(here).any(-1).sum()),
                    "n_runs": int(np.isfinite(here).sum()) * (kind != "exact"),
                    "n_failed": int((status[place][own.places] == FAILED).sum()),
                    **_agreement(here, judge, exact=kind == "exact"),
                    "violations": np.nansum(beyond) if np.isfinite(beyond).any() else np.nan,
                    "parameter": own.parameter,
                    **_choice(here, judge, names, numbers, noise, exact=kind == "exact"),
                }


def _shared_error(grid: xr.Dataset, divergence: Divergence) -> str:
    """The variable of the part of a coupled estimate's error that all seeds share."""
    name = str(grid[divergence.coupled].attrs.get("shared_error", "")) if divergence.coupled else ""
    return name if name in grid else ""


def _means(values: Array) -> Array:
    """Means over the runs that were not lost."""
    count = np.isfinite(values).sum(-1)
    total = np.where(np.isfinite(values), values, 0.0).sum(-1)
    return np.asarray(total / np.where(count, count, np.nan))


def _agreement(error: Array, values: Array, *, exact: bool) -> dict[str, Any]:
    """How far above the error, and whether in its order; arrays of shape (n, n_runs)."""
    means, judge = _means(error), _means(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = judge / means
    ratio = ratio[np.isfinite(ratio)]
    known = np.isfinite(means) & np.isfinite(judge)
    low = high = np.nan
    rho = _spearman(means[known], judge[known])
    runs = error.shape[-1]
    if not exact and runs > 1 and np.isfinite(rho):
        draws = np.random.default_rng(0).integers(runs, size=(RESAMPLES, runs))
        drawn = [
            _means(own[known][:, draws]).T if own.shape[-1] == runs
            else np.broadcast_to(_means(own[known]), (RESAMPLES, known.sum()))
            for own in (error, values)
        ]  # fmt: skip
        resampled = _spearman(*drawn)
        if np.isfinite(resampled).any():
            tail = (1 - CONFIDENCE) / 2
            low, high = np.nanquantile(resampled, [tail, 1 - tail])
    return {
        "ratio_min": ratio.min() if len(ratio) else np.nan,
        "ratio_median": np.median(ratio) if len(ratio) else np.nan,
        "ratio_max": ratio.max() if len(ratio) else np.nan,
        "spearman": float(rho),
        "spearman_low": float(low),
        "spearman_high": float(high),
    }


def _spearman(x: Array, y: Array) -> Any:
    """Rank correlation along the last axis; NaN under three places or for a constant."""
    if x.shape[-1] < 3:
        return np.full(x.shape[:-1], np.nan)[()]
    from scipy.stats import rankdata  # half a second: figures and reports import this module too

    ranks = [rankdata(own, axis=-1) for own in (x, y)]
    ranks = [np.where(np.isfinite(own), r, np.nan) for own, r in zip((x, y), ranks, strict=True)]
    a, b = (r - r.mean(-1, keepdims=True) for r in ranks)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))


def _choice(
    error: Array, values: Array, names: list[str], numbers: Array, noise: Array, *, exact: bool
) -> dict[str, Any]:
    """What has the least error, what the judge picks, and what following it costs."""
    means = _means(error)
    known = np.isfinite(means)
    judge = np.where(known | ~known.any(), _means(values), np.nan)
    best = lowest(means, np.isfinite(error).sum(-1))
    pick = lowest(judge)
    found: dict[str, Any] = {
        "best": "" if best is None else names[best],
        "best_set": best_set(error, names),
        "pick": "" if pick is None else names[pick],
        "best_at": np.nan if best is None else numbers[best],
        "pick_at": np.nan if pick is None else numbers[pick],
    }
    found["distance"] = found["pick_at"] - found["best_at"]
    costs = ("error_best", "error_at_pick", "regret", "regret_low", "regret_high")
    if best is None or pick is None:
        return found | dict.fromkeys(costs, np.nan)
    rows, half = cross_fitted(error)
    run = np.arange(error.shape[-1])
    followed, least = error[pick], error[rows, run]
    together = np.isfinite(followed) & np.isfinite(least)
    if not together.any():
        return found | dict.fromkeys(costs, np.nan)
    top, bottom = followed[together].mean(), least[together].mean()
    regret = top / bottom if bottom > 0 else np.nan
    low = high = np.nan
    if not exact and bottom > 0:
        variance = noise[pick] ** 2 + regret**2 * noise[rows, run] ** 2
        shared = float(np.sqrt(np.mean((rows != pick) * variance)))
        _, low, high, _ = paired(followed - regret * least, half, shared)
        low, high = regret + low / bottom, regret + high / bottom
    return found | dict(zip(costs, (bottom, top, regret, low, high), strict=True))


def best_set(error: Array, names: list[str]) -> str:
    """Confidence set of the best of some errors, over the seeds that lost no run of them; words."""
    there = np.isfinite(error).any(-1)
    losses = error[there].T
    losses = losses[np.isfinite(losses).all(1)]
    if len(losses) < 2 or not losses.size:
        return ""
    kept = np.array(names, dtype=object)[there][unbeaten(losses)]
    return " ".join(kept)
