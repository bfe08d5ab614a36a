"""Which horizons the runs of a grid allow: the best T, a confidence set of it, and its table.

From runs on a grid of horizons T_1 < … < T_K, R paired seeds, the confidence set keeps each T
that no other horizon beats (`sgm.reading.unbeaten`). If the expected loss falls and then rises,
the optimum off the grid lies between the neighbours of the set.

Why not the minimum of a smoothed curve: the loss falls fast below the optimum and rises slowly
above, and a parabola through the neighbours of the minimum is off by more than its standard
error. In simulations of KL(p_T ‖ π_∞) + ½ e B(T) for a mixture, with 10 to 20 horizons and 5 or
10 seeds, nominal 95 % intervals of its vertex covered 0 to 96 % (Fieller's) and 0 to 94 %
(bootstrap); a bootstrap of the grid's minimum covered 91 to 100 %, this set 99 to 100 %. It is
the safe choice, and the wide one: two to three times the bootstrap's width if noise is large.

The *loss* is what a grid knows of the likelihood: bits per dimension, else minus the log-likelihood
by the probability flow, else minus an ELBO. A quantity of a closed form has runs that agree, and a
set of one horizon.

Sources
-------
The table is that of Franzese et al. (arXiv 2206.05173), data set, T, BPD and NFE, with its noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from sgm.reading import finite, over_runs, parameters, text_of, unbeaten, units_of

__all__ = [
    "BOUNDS",
    "LIKELIHOODS",
    "BestHorizon",
    "HorizonSet",
    "Loss",
    "best_horizon",
    "horizon_set",
    "horizons_table",
    "likelihood_loss",
]

Array = npt.NDArray[np.float64]

BOUNDS = ("elbo", "denoising_elbo")
#: What a loss is read from: the first that has a number.
LIKELIHOODS = ("bits_per_dimension", "flow_log_likelihood", *BOUNDS)


@dataclass(frozen=True, eq=False)
class HorizonSet:
    """The horizons of a grid that runs can't tell from the best.

    Parameters
    ----------
    horizons : ndarray, shape (K,)
        Increasing.
    best : float
        The horizon of the lowest mean loss.
    plausible : ndarray of bool, shape (K,)
        Which horizons no other one beats; True at `best`.
    """

    horizons: Array
    best: float
    plausible: npt.NDArray[np.bool_]

    @property
    def low(self) -> float:
        """The shortest horizon of the set."""
        return float(self.horizons[self.plausible][0])

    @property
    def high(self) -> float:
        """The longest horizon of the set."""
        return float(self.horizons[self.plausible][-1])

    @property
    def bracket(self) -> tuple[float, float]:
        """The neighbours of the set; 0 or ∞ beyond the grid.

        The optimum off the grid lies between them if the expected loss has one minimum.
        """
        first, last = np.flatnonzero(self.plausible)[[0, -1]]
        padded = np.concatenate([[0.0], self.horizons, [np.inf]])
        return float(padded[first]), float(padded[last + 2])


def horizon_set(
    horizons: npt.ArrayLike, losses: npt.ArrayLike, *, confidence: float = 0.95
) -> HorizonSet:
    """Confidence set of the best horizon on a grid, from runs paired by their seeds.

    Parameters
    ----------
    horizons : array_like, shape (K,)
        Increasing, K ≥ 2.
    losses : array_like, shape (R, K)
        A row a seed, R ≥ 2: what is to be small, such as a divergence or a negative ELBO.
    confidence : float
        1 − α in (0, 1).

    Returns
    -------
    HorizonSet
        It holds the horizon of the lowest expected loss with at least this probability.

    Raises
    ------
    ValueError
        If a shape or a value is out of range.
    """
    grid = np.asarray(horizons, dtype=np.float64)
    values = np.asarray(losses, dtype=np.float64)
    if grid.ndim != 1 or len(grid) < 2 or not (np.all(np.diff(grid) > 0) and grid[0] > 0):
        raise ValueError(f"horizons = {grid.tolist()!r}: must be two or more, positive, increasing")
    if values.ndim != 2 or len(values) < 2 or values.shape[1] != len(grid):
        raise ValueError(f"losses has shape {values.shape}: must be (R, {len(grid)}) with R >= 2")
    if not np.all(np.isfinite(values)):
        raise ValueError("losses must be finite: leave out the seeds that lost a run")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence = {confidence!r}: must lie in (0, 1)")
    best = float(grid[np.argmin(np.mean(values, axis=0))])
    return HorizonSet(grid, best, unbeaten(values, confidence))


@dataclass(frozen=True, eq=False)
class Loss:
    """What is to be small, one number a run: a likelihood of the grid with its sign turned.

    Parameters
    ----------
    name : str
        The variable it is read from.
    label, units : str
    values : DataArray
        With the axes `horizon` and `seed` among others; NaN for a lost run.
    """

    name: str
    label: str
    units: str
    values: xr.DataArray


def likelihood_loss(cells: xr.Dataset, names: Sequence[str] = LIKELIHOODS) -> Loss | None:
    """The first of some variables that has a number in these cells, as a loss; None without."""
    for name in names:
        values = finite(cells, name) if name in cells else xr.DataArray(np.nan)
        if np.isfinite(values).any():
            label, units = text_of(cells[name]), units_of(cells[name])
            if name == "bits_per_dimension":
                return Loss(name, label, units, values)
            return Loss(name, f"−{label}", units, -values)
    return None


@dataclass(frozen=True, eq=False)
class BestHorizon:
    """The best horizon of a grid by its runs.

    Parameters
    ----------
    best : float
        The horizon of the lowest mean; NaN unless a run has two horizons or more.
    allowed : HorizonSet or None
        None under two runs.
    n_runs : int
        Runs that have every horizon at which any run has a number: only these count.
    """

    best: float
    allowed: HorizonSet | None
    n_runs: int

    def plausible(self, horizons: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which horizons are in the set; none without a set."""
        asked = np.asarray(horizons, dtype=np.float64)
        if self.allowed is None:
            return np.zeros(asked.shape, dtype=bool)
        return np.isin(asked, self.allowed.horizons[self.allowed.plausible])


def best_horizon(values: xr.DataArray, *, confidence: float = 0.95) -> BestHorizon:
    """The horizon of the lowest loss, and its confidence set where two runs have all horizons.

    Parameters
    ----------
    values : DataArray
        Axis `horizon`, in any order, and `seed` if there are runs.
    confidence : float
    """
    if "seed" not in values.dims:
        values = values.expand_dims("seed")
    values = values.sortby("horizon").transpose("seed", "horizon")
    losses = values.values
    tried = np.isfinite(losses).any(axis=0)
    horizons, losses = values["horizon"].values[tried], losses[:, tried]
    losses = losses[np.isfinite(losses).all(axis=1)]
    runs = len(losses)
    if runs == 0 or len(horizons) < 2:
        return BestHorizon(np.nan, None, runs)
    allowed = horizon_set(horizons, losses, confidence=confidence) if runs > 1 else None
    return BestHorizon(float(horizons[np.argmin(losses.mean(axis=0))]), allowed, runs)


MEASURED = {
    "bits_per_dimension": "bits_per_dimension",
    "flow_log_likelihood": "flow_log_likelihood",
    "elbo": "elbo",
    "denoising_elbo": "denoising_elbo",
    "evaluations": "flow_evaluations",
    "seconds": "flow_seconds",
}
LABELS = ("target", "dimension", "schedule", "score", "score_family", "horizon")
STATISTICS = (
    *(f"{column}_{kind}" for column in MEASURED for kind in ("mean", "sd")),
    "runs", "loss", "loss_mean", "runs_compared", "best", "plausible",
    "optimal_horizon", "optimal_horizon_interior",
)  # fmt: skip


def horizons_table(grid: xr.Dataset) -> pd.DataFrame:
    """One row a (target, schedule, score, T): likelihood, cost, and whether T may be the best.

    Returns
    -------
    DataFrame
        The labels, and the parameters of schedules and scores; `_mean` and `_sd` over runs of
        `bits_per_dimension`, `flow_log_likelihood`, `elbo`, `denoising_elbo`, `evaluations` of
        the probability flow and its `seconds`; `runs` with a finite loss, the variable that the
        `loss` is read from, and its `loss_mean`; of the runs that have every T,
        `runs_compared`, whether this T is the `best` and whether it is `plausible`, in the 95 %
        confidence set, empty under two such runs; the exact `optimal_horizon`, and whether it
        is interior. In the order of the grid, T increasing; no rows, but these columns, without
        any likelihood.
    """
    numbers = [a.name for a in parameters(grid) if a.dimension in ("schedule", "score")]
    columns = [*LABELS[:3], *numbers, *LABELS[3:], *STATISTICS]
    return pd.DataFrame(list(_rows(grid, numbers)), columns=columns)


def _rows(grid: xr.Dataset, numbers: Sequence[str]) -> Iterator[dict[str, Any]]:
    names = [*MEASURED.values(), "optimal_horizon", "optimal_horizon_interior"]
    cells = grid[[name for name in names if name in grid]].load()
    if not any(name in cells for name in LIKELIHOODS):
        return
    cells = cells.sortby("horizon")
    axes = ("target", "schedule", "score")
    for labels in product(*(cells[axis].values for axis in axes)):
        here = cells.sel(dict(zip(axes, labels, strict=True)))
        loss = likelihood_loss(here)
        if loss is None:
            continue
        found, runs = best_horizon(loss.values), over_runs(loss.values)
        statistics = {
            column: over_runs(here[name]) for column, name in MEASURED.items() if name in here
        }
        exact = {
            name: here[name].item() if name in here else np.nan
            for name in ("optimal_horizon", "optimal_horizon_interior")
        }
        for k, horizon in enumerate(here["horizon"].values.tolist()):
            if not runs.count[k]:
                continue
            yield {
                **{axis: str(label) for axis, label in zip(axes, labels, strict=True)},
                **{n: here[n].item() for n in (*numbers, "dimension", "score_family") if n in here},
                "horizon": horizon,
                **{f"{c}_mean": s.mean[k].item() for c, s in statistics.items()},
                **{f"{c}_sd": s.sd[k].item() for c, s in statistics.items()},
                "runs": int(runs.count[k]),
                "loss": loss.name,
                "loss_mean": runs.mean[k].item(),
                "runs_compared": found.n_runs,
                "best": pd.NA if np.isnan(found.best) else horizon == found.best,
                "plausible": pd.NA if found.allowed is None else bool(found.plausible(horizon)),
                **exact,
            }
