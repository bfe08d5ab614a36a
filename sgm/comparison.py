"""β_a at its best a against the other schedules, run by run.

The runs of a seed share data, initial weights and noise (common random numbers), so
schedules are compared by the paired differences d_s = D_s(best a) − D_s(other).

The minimum over a of noisy means is too low (the winner's curse): among K schedules with
equal errors the best of R runs lies about √(2 log K) standard errors below them. With six
runs or more the a is therefore cross-fitted: the even runs are compared at the a that is
lowest on the odd runs, and the reverse. Given one half, the differences of the other are
independent with mean D(â) − D(other), so their average is unbiased for what choosing a
on half the runs yields. The interval is Welch's for the mean of two strata,

    d̄ ± t_ν se,  se² = Σ_h (n_h/n)² s_h²/n_h,  ν = se⁴ / Σ_h [(n_h/n)² s_h²/n_h]²/(n_h − 1).

It takes the two halves as independent. They are not quite where schedules are nearly equal:
each half's choice then correlates with the other's average, and an interval of nominal 95 %
covers 92 to 95 %, where one at the a chosen on the same ten runs covers 82 % among 21 equal
schedules (tests/test_comparison.py measures both). With fewer runs a is chosen on all of
them, and the sentence says so.

Intervals are not corrected for their number, since each is of interest on its own; of n at 95 %
about n/20 exclude zero by chance where nothing differs, and `multiplicity` says so beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from scipy.special import stdtrit

from sgm.reading import (
    SETTING,
    Divergence,
    divergences_of,
    finite,
    in_order,
    level,
    lowest,
    resolved,
    settings,
    shapes,
    why_empty,
)
from sgm.store import FAILED

__all__ = [
    "Comparison",
    "compare",
    "comparison_table",
    "comparison_text",
    "multiplicity",
    "nothing_compared",
]

Array = npt.NDArray[np.float64]

CONFIDENCE = 0.95
MIN_CROSS_FITTED = 6  # runs: three in each half
VPSDE = "VPSDE"
NOISE = {True: "exceeds the noise", False: "within the noise"}


@dataclass(frozen=True)
class Comparison:
    """β_a at its best a against one other schedule, by one divergence in one setting.

    Parameters
    ----------
    divergence : Divergence
    schedule : str
        Label of the other schedule.
    reference : str
        What to call it: VPSDE for a = 0.
    exact : bool
        Whether exact values are compared, since nothing was sampled.
    coupled : bool
        Whether coupled estimates are compared; they have no floor.
    best_a : float
        The a of the lowest mean over all runs.
    chosen_a : tuple of float
        The a's compared: that chosen on each half of the runs, or one.
    cross_fitted : bool
    best, other : ndarray, shape (n_runs,)
        Values of the runs at the chosen a and at the other schedule; NaN for a lost run.
    floor, floor_sd : float
    difference, low, high : float
        Mean of `best − other` and its 95 % interval, NaN under two pairs a half.
    pairs : int
    """

    divergence: Divergence
    schedule: str
    reference: str
    exact: bool
    coupled: bool
    best_a: float
    chosen_a: tuple[float, ...]
    cross_fitted: bool
    best: Array
    other: Array
    floor: float
    floor_sd: float
    difference: float
    low: float
    high: float
    pairs: int

    @property
    def same(self) -> bool:
        """Whether the best a is 0, so that β_a is VPSDE."""
        return self.reference == VPSDE and set(self.chosen_a) == {0.0}

    @property
    def beyond_noise(self) -> bool | None:
        """Whether the interval excludes zero; None without an interval."""
        return None if np.isnan(self.low) else bool(self.low > 0 or self.high < 0)

    @property
    def a(self) -> str:
        """The a compared, in words."""
        return " and ".join(dict.fromkeys(_number(a) for a in self.chosen_a))

    @property
    def sign(self) -> str:
        return "lower" if self.difference <= 0 else "higher"

    @property
    def interval(self) -> str:
        """The interval of the amount by which β_a is lower, or higher."""
        ends = sorted(-x if self.sign == "lower" else x for x in (self.low, self.high))
        return f"[{', '.join(map(_number, ends))}]"

    @property
    def amount(self) -> str:
        return f"{_number(abs(self.difference))} {self.divergence.units}".rstrip()

    @property
    def verdict(self) -> str:
        """Lower or higher than the other, by how much, and whether that exceeds the noise."""
        if self.same:
            return "the best a itself"
        text = f"{self.sign} by {self.amount}"
        if self.exact:
            return f"{text}, exact laws"
        if self.beyond_noise is None:
            return f"{text}, no interval"
        return f"{text} {self.interval}: " + NOISE[self.beyond_noise]

    @property
    def sentence(self) -> str:
        """The comparison in one sentence."""
        if self.same:
            return f"By {self.divergence.label} the best a is 0, which is {self.reference}."
        text = f"beta_a at a = {self.a}"
        if len(set(self.chosen_a)) > 1:
            text += " (each chosen on the other half of the runs)"
        text += f" has a {self.sign} {self.divergence.label} than {self.reference} by {self.amount}"
        if self.exact:
            return f"{text}, by the exact laws."
        runs = f"{self.pairs} paired run" + ("" if self.pairs == 1 else "s")
        if self.beyond_noise is None:
            return f"{text} over {runs}: too few for an interval."
        text += f", 95% interval {self.interval} over {runs}: {NOISE[self.beyond_noise]}"
        return text + ("." if self.cross_fitted else " (a chosen on the same runs: optimistic).")


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def compare(here: xr.Dataset, divergence: Divergence) -> list[Comparison]:
    """The best a of a setting against a = 0 and every schedule outside the family.

    Parameters
    ----------
    here : Dataset
        The grid at one setting: axes `schedule` and `seed`.
    divergence : Divergence

    Returns
    -------
    list of Comparison
        Empty without a β_a schedule or without a number, and for a divergence of which less
        is not better; `nothing_compared` says why. A schedule that shares no surviving seed
        with the best a is left out. Coupled estimates are compared where there are any, and
        exact values where nothing was sampled.
    """
    if not divergence.ranks:
        return []
    family, others = in_order(here)
    estimate = resolved(here, divergence)
    runs = finite(here, estimate)
    exact = not bool(np.isfinite(runs).any())
    if exact:
        runs = finite(here, divergence.exact)
    if "seed" not in runs.dims:
        runs = runs.expand_dims("seed", -1)
    values = runs.sel(schedule=family).transpose("schedule", "seed").values
    if not np.isfinite(values).any():
        return []
    a = np.sort(shapes(here))[: len(family)]  # NaN last
    picks, half = _cross_fitted(values)
    best = values[picks, np.arange(values.shape[1])]
    plain = estimate == divergence.name  # a coupled estimate lies below the floor
    floor, floor_sd = level(here, divergence.floor, divergence.floor_sd) if plain else (np.nan,) * 2
    vpsde = [name for name, at in zip(family, a, strict=True) if at == 0]
    errors = finite(here, here[estimate].attrs.get("shared_error", "")).fillna(0.0)
    if "seed" not in errors.dims:
        errors = errors.expand_dims("seed", -1)
    own_errors = errors.sel(schedule=family).transpose("schedule", "seed").values
    result = []
    for schedule in (*vpsde, *others):
        other = runs.sel(schedule=schedule).values
        if not np.isfinite(other).any():
            continue
        apart = np.array([family[pick] != schedule for pick in picks])
        variances = own_errors[picks, np.arange(len(picks))] ** 2
        variances = apart * (variances + errors.sel(schedule=schedule).values ** 2)
        shared = float(np.sqrt(variances.mean()))
        difference, low, high, pairs = _paired(best - other, half, shared)
        if not pairs:  # no seed of which both runs survived
            continue
        result.append(
            Comparison(
                divergence=divergence,
                schedule=schedule,
                reference=VPSDE if schedule in vpsde else schedule,
                exact=exact,
                coupled=not (plain or exact),
                best_a=float(a[_lowest(values)]),
                chosen_a=tuple(float(a[picks[half == h]][0]) for h in np.unique(half)),
                cross_fitted=bool(half.any()),
                best=best,
                other=other,
                floor=floor,
                floor_sd=floor_sd,
                difference=difference,
                low=low,
                high=high,
                pairs=pairs,
            )
        )
    return result


def _lowest(values: Array) -> int:
    """Row of the lowest mean over runs, among those that lost the fewest."""
    count = np.isfinite(values).sum(1)
    return lowest(np.nansum(values, 1) / np.where(count, count, np.nan), count) or 0


def nothing_compared(here: xr.Dataset) -> str:
    """Why cells, over axes `schedule` and `seed` at least, hold nothing to compare, in words."""
    family, others = in_order(here)
    at = set(np.sort(shapes(here))[: len(family)].tolist())
    if not family:
        families = ", ".join(dict.fromkeys(map(str, here["family"].values)))
        return f"the study has no schedule of the family beta_a, only of {families}"
    if not others and (0.0 not in at or len(at) < 2):
        return "the study has no schedule to compare beta_a with: neither a = 0 nor another family"
    if not any(divergence.ranks for divergence in divergences_of(here)):
        return "the study has no divergence of which less is better"
    return why_empty(here)


def multiplicity(comparisons: Iterable[Comparison]) -> str:
    """How many intervals exclude zero, and how many would by chance; empty without intervals."""
    judged = [c.beyond_noise for c in comparisons if c.beyond_noise is not None and not c.same]
    if len(judged) < 2:
        return ""
    chance = (1 - CONFIDENCE) * len(judged)
    return (
        f"of {len(judged)} intervals at 95%, {sum(judged)} exclude zero; "
        f"about {chance:.2g} would by chance if no schedules differed"
    )


def _cross_fitted(values: Array) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """For each run the row to look at, chosen on the other half; and its half, 0 or 1.

    Parameters
    ----------
    values : ndarray, shape (n_schedules, n_runs)
        NaN for a lost run.
    """
    alive = np.flatnonzero(np.isfinite(values).any(0))
    half = np.zeros(values.shape[1], dtype=np.intp)
    if len(alive) < MIN_CROSS_FITTED:
        return np.full(values.shape[1], _lowest(values)), half
    half[alive] = np.arange(len(alive)) % 2
    chosen = np.array([_lowest(values[:, half != h]) for h in (0, 1)])
    return chosen[half], half


def _paired(
    differences: Array, half: npt.NDArray[np.intp], shared: float = 0.0
) -> tuple[float, float, float, int]:
    """Mean of the differences, the ends of its interval, and the number of pairs.

    `shared` is the standard error of what is common to all pairs, which they don't show.
    """
    there = np.isfinite(differences)
    n = int(there.sum())
    groups = [differences[there & (half == h)] for h in np.unique(half)]
    mean = float(differences[there].mean()) if n else np.nan
    if min(map(len, groups)) < 2:
        return mean, np.nan, np.nan, n
    parts = np.array([len(d) / n**2 * d.var(ddof=1) for d in groups])
    square = parts.sum()
    if square == 0:
        return mean, mean, mean, n
    whole = square + shared**2  # of Welch and Satterthwaite, the last with no end of freedom
    freedom = whole**2 / sum(p**2 / (len(d) - 1) for p, d in zip(parts, groups, strict=True))
    reach = float(stdtrit(freedom, 0.5 + CONFIDENCE / 2) * np.sqrt(whole))
    return mean, mean - reach, mean + reach, n


def _comparisons(grid: xr.Dataset) -> Iterator[tuple[dict[str, Any], Comparison]]:
    grid = grid.drop_dims("time_fraction", errors="ignore").load()
    for labels in settings(grid):
        here = grid.sel(labels)
        for divergence in divergences_of(grid):
            for comparison in compare(here, divergence):
                yield labels, comparison


def comparison_table(grid: xr.Dataset) -> pd.DataFrame:
    """One row a (setting, divergence, other schedule): the paired difference, and in words.

    Parameters
    ----------
    grid : Dataset

    Returns
    -------
    DataFrame
        The setting; `divergence`, `label`, `units`; `reference`, the schedule compared
        with; `values` empirical, coupled or exact; `best_a` on all runs and `chosen_a`, the a's
        compared, `cross_fitted`; `best_mean`, `reference_mean` over the runs compared and
        the `floor`; `difference` best − reference with `low`, `high` and `pairs`;
        `beyond_noise`, empty without an interval; `sentence`.
    """
    rows = [
        {
            **labels,
            "divergence": c.divergence.name,
            "label": c.divergence.label,
            "units": c.divergence.units,
            "reference": c.schedule,
            "values": "exact" if c.exact else "coupled" if c.coupled else "empirical",
            "best_a": c.best_a,
            "chosen_a": " ".join(f"{a:g}" for a in c.chosen_a),
            "cross_fitted": c.cross_fitted,
            "best_mean": float(c.best[np.isfinite(c.best)].mean()),
            "reference_mean": float(c.other[np.isfinite(c.other)].mean()),
            "floor": c.floor,
            "difference": c.difference,
            "low": c.low,
            "high": c.high,
            "pairs": c.pairs,
            "beyond_noise": pd.NA if c.beyond_noise is None else c.beyond_noise,
            "sentence": c.sentence,
        }
        for labels, c in _comparisons(grid)
    ]
    return pd.DataFrame(rows, columns=None if rows else [*SETTING, "divergence", "sentence"])


def comparison_text(grid: xr.Dataset) -> str:
    """Every comparison in words, as reStructuredText: a list of sentences a setting.

    First how many intervals exclude zero; where a setting or the study has no comparison, why.
    """
    found: dict[str, list[Comparison]] = {}
    for labels, comparison in _comparisons(grid):
        found.setdefault(_heading(labels), []).append(comparison)
    paragraphs = {
        heading: "\n".join(f"- {comparison.sentence}" for comparison in comparisons)
        for heading, comparisons in found.items()
    }
    if not paragraphs:
        return f"Nothing to compare: {nothing_compared(grid)}.\n"
    for labels in settings(grid):
        here, heading = grid.sel(labels), _heading(labels)
        if heading not in paragraphs and (here["status"] == FAILED).any():
            paragraphs[heading] = f"- Nothing to compare: {nothing_compared(here)}."
    count = multiplicity(comparison for found_here in found.values() for comparison in found_here)
    head = [f"{count[0].upper()}{count[1:]}.\n"] if count else []
    return "\n".join([*head, *(f"{heading}\n\n{lines}\n" for heading, lines in paragraphs.items())])


def _heading(labels: dict[str, Any]) -> str:
    return (
        f"{labels['target']}: score {labels['score']}, sampler {labels['sampler']}, "
        f"T = {labels['horizon']:g}, {labels['n_steps']} steps, {labels['time_grid']} time grid"
    )
