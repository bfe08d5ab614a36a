"""Schedules against each other, run by run: families at the best of their labels, or single ones.

What is compared are *sides*: a family whose labels differ in numbers, such as β_a, at the label of
least error, or any other schedule. Each side is set against every later one, in the order of the
study, and against VPSDE, β_a with a = 0.

The runs of a seed share data, initial weights and noise (common random numbers), so
schedules are compared by the paired differences d_s = D_s(first) − D_s(second).

The minimum over labels of noisy means is too low (the winner's curse): among K schedules with
equal errors the best of R runs lies about √(2 log K) standard errors below them. With six
runs or more the label is therefore cross-fitted: the even runs are compared at the one that is
lowest on the odd runs, and the reverse. Given one half, the differences of the other are
independent with mean D(â) − D(other), so their average is unbiased for what choosing
on half the runs yields. The interval is Welch's for the mean of two strata,

    d̄ ± t_ν se,  se² = Σ_h (n_h/n)² s_h²/n_h,  ν = se⁴ / Σ_h [(n_h/n)² s_h²/n_h]²/(n_h − 1).

It takes the two halves as independent. They are not quite where schedules are nearly equal:
each half's choice then correlates with the other's average, and an interval of nominal 95 %
covers 92 to 95 %, where one at the label chosen on the same ten runs covers 82 % among 21 equal
schedules (tests/test_comparison.py measures both). With fewer runs it is chosen on all of
them, and the sentence says so. Between two schedules without a choice the interval is Student's.

Intervals are not corrected for their number, since each is of interest on its own; of n at 95 %
about n/20 exclude zero by chance where nothing differs, and `multiplicity` says so beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from scipy.special import stdtrit

from sgm.reading import (
    SETTING,
    Divergence,
    divergences_of,
    families,
    finite,
    level,
    lowest,
    numbers_text,
    resolved,
    settings,
    shapes,
    why_empty,
)
from sgm.store import FAILED

__all__ = [
    "Comparison",
    "Side",
    "compare",
    "comparison_table",
    "comparison_text",
    "comparisons",
    "cross_fitted",
    "multiplicity",
    "nothing_compared",
    "paired",
]

Array = npt.NDArray[np.float64]
Found: TypeAlias = "Sequence[tuple[dict[str, Any], Comparison]]"
Integers = npt.NDArray[np.intp]

CONFIDENCE = 0.95
MIN_CROSS_FITTED = 6  # runs: three in each half
VPSDE = "VPSDE"
NOISE = {True: "exceeds the noise", False: "within the noise"}


@dataclass(frozen=True)
class Side:
    """What is compared: a family at the best of its labels, or one schedule.

    Parameters
    ----------
    key : str
        The family, or the schedule's label.
    name : str
        The same in words: VPSDE for a = 0.
    labels : tuple of str
    numbers : tuple of str
        Of a family, what tells each label from the others, such as ``a = 3``.
    parameters : str
        Of a family, what it is best in, such as ``a``; empty for one schedule.
    """

    key: str
    name: str
    labels: tuple[str, ...]
    numbers: tuple[str, ...] = ()
    parameters: str = ""

    def at(self, labels: Iterable[str]) -> str:
        """Its numbers at some of its labels, in words; empty for one schedule."""
        own = dict(zip(self.labels, self.numbers, strict=bool(self.numbers)))
        texts = list(dict.fromkeys(own[label] for label in labels if label in own))
        prefix = f"{self.parameters} = "
        if all(text.startswith(prefix) for text in texts[1:]):  # a = 3 and 5
            texts[1:] = [text.removeprefix(prefix) for text in texts[1:]]
        return " and ".join(texts)


@dataclass(frozen=True)
class Comparison:
    """One side against another, by one divergence in one setting.

    Parameters
    ----------
    divergence : Divergence
    side, other : Side
    exact : bool
        Whether exact values are compared, since nothing was sampled.
    coupled : bool
        Whether coupled estimates are compared; they have no floor.
    best : str
        Label of the lowest mean over all runs on the first side.
    chosen, other_chosen : tuple of str
        The labels compared: those chosen on each half of the runs, or one.
    cross_fitted : bool or None
        None where neither side has a choice.
    values, other_values : ndarray, shape (n_runs,)
        Values of the runs at the labels compared; NaN for a lost run.
    floor, floor_sd : float
    difference, low, high : float
        Mean of `values − other_values` and its 95 % interval, NaN under two pairs a half.
    pairs : int
    """

    divergence: Divergence
    side: Side
    other: Side
    exact: bool
    coupled: bool
    best: str
    chosen: tuple[str, ...]
    other_chosen: tuple[str, ...]
    cross_fitted: bool | None
    values: Array
    other_values: Array
    floor: float
    floor_sd: float
    difference: float
    low: float
    high: float
    pairs: int

    @property
    def same(self) -> bool:
        """Whether the best of the family is the other schedule."""
        return set(self.chosen) == set(self.other_chosen)

    @property
    def beyond_noise(self) -> bool | None:
        """Whether the interval excludes zero; None without an interval."""
        return None if np.isnan(self.low) else bool(self.low > 0 or self.high < 0)

    @property
    def name(self) -> str:
        """The first side in a figure."""
        return _best(self.side, self.chosen)

    @property
    def reference(self) -> str:
        """The other side in a figure."""
        return _best(self.other, self.other_chosen)

    @property
    def sign(self) -> str:
        return "lower" if self.difference <= 0 else "higher"

    @property
    def interval(self) -> str:
        """The interval of the amount by which the first side is lower, or higher."""
        ends = sorted(-x if self.sign == "lower" else x for x in (self.low, self.high))
        return f"[{', '.join(map(_number, ends))}]"

    @property
    def amount(self) -> str:
        return f"{_number(abs(self.difference))} {self.divergence.units}".rstrip()

    @property
    def verdict(self) -> str:
        """Lower or higher than the other, by how much, and whether that exceeds the noise."""
        if self.same:
            return f"the best {self.side.parameters} itself"
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
            at = self.side.at(self.chosen).partition(" = ")[2]
            return (
                f"By {self.divergence.label} the best {self.side.parameters} is {at}, "
                f"which is {self.other.name}."
            )
        first, second = (
            f"{side.name} at {side.at(chosen)}" if side.numbers else side.name
            for side, chosen in ((self.side, self.chosen), (self.other, self.other_chosen))
        )
        if len(set(self.chosen)) > 1:
            first += " (each chosen on the other half of the runs)"
        if len(set(self.other_chosen)) > 1:
            second += " (each chosen on the other half of the runs)"
        text = f"{first} has a {self.sign} {self.divergence.label} than {second} by {self.amount}"
        if self.exact:
            return f"{text}, by the exact laws."
        runs = f"{self.pairs} paired run" + ("" if self.pairs == 1 else "s")
        if self.beyond_noise is None:
            return f"{text} over {runs}: too few for an interval."
        text += f", 95% interval {self.interval} over {runs}: {NOISE[self.beyond_noise]}"
        if self.cross_fitted is not False:
            return f"{text}."
        what = " and ".join(s.parameters for s in (self.side, self.other) if s.numbers)
        return f"{text} ({what} chosen on the same runs: optimistic)."


def _best(side: Side, chosen: tuple[str, ...]) -> str:
    return f"best {side.at(chosen)}" if side.numbers else side.name


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def sides_of(here: xr.Dataset) -> list[Side]:
    """The sides that the schedules make, in the order of the grid."""
    zero = dict(zip(here["schedule"].values, shapes(here) == 0, strict=True))
    found = []
    for family, labels in families(here):
        if len(labels) > 1:
            texts = [numbers_text(here, label) for label in labels]
            parameters = " and ".join(
                dict.fromkeys(part.partition(" = ")[0] for part in texts[0].split(", "))
            )
            found.append(Side(family, family, tuple(labels), tuple(texts), parameters))
        else:
            words = _linear(here) if zero[labels[0]] else labels[0]
            found.append(Side(labels[0], words, tuple(labels)))
    return found


def _linear(here: xr.Dataset) -> str:
    """What β_a with a = 0 is called."""
    return VPSDE if here.attrs.get("process", "vp") == "vp" else "linear β"


def _pairs(here: xr.Dataset) -> Iterator[tuple[Side, Side]]:
    """Each side and VPSDE, if that is one of a family; then each side and every later one."""
    sides = sides_of(here)
    alone = {side.key for side in sides}
    zero = here["schedule"].values[shapes(here) == 0]
    vpsde = [Side(str(s), _linear(here), (str(s),)) for s in zero if str(s) not in alone]
    for i, side in enumerate(sides):
        for other in (*vpsde, *sides[i + 1 :]):
            yield side, other


def compare(
    here: xr.Dataset, divergence: Divergence, sides: Sequence[tuple[Side, Side]] | None = None
) -> list[Comparison]:
    """The sides of a setting, each against VPSDE and every later one.

    Parameters
    ----------
    here : Dataset
        The grid at one setting: axes `schedule` and `seed`.
    divergence : Divergence
    sides : sequence of (Side, Side), optional
        What is compared, where the caller has many settings of one grid; all by default.

    Returns
    -------
    list of Comparison
        Empty with one side alone or without a number, and for a divergence of which less
        is not better; `nothing_compared` says why. Sides that share no surviving seed
        are not compared. Coupled estimates are compared where there are any, and
        exact values where nothing was sampled.
    """
    if not divergence.ranks:
        return []
    estimate = resolved(here, divergence)
    runs = finite(here, estimate)
    exact = not bool(np.isfinite(runs).any())
    if exact:
        runs = finite(here, divergence.exact)
    plain = estimate == divergence.name  # a coupled estimate lies below the floor
    floor, floor_sd = level(here, divergence.floor, divergence.floor_sd) if plain else (np.nan,) * 2
    values = _by_schedule(runs)
    errors = _by_schedule(finite(here, here[estimate].attrs.get("shared_error", "")).fillna(0.0))
    row = {str(label): i for i, label in enumerate(here["schedule"].values)}
    result = []
    for side, other in _pairs(here) if sides is None else sides:
        places = [[row[label] for label in s.labels] for s in (side, other)]
        if not all(np.isfinite(values[own]).any() for own in places):
            continue
        choice = any(len(own) > 1 for own in places)
        alive = np.asarray(np.isfinite(values[[*places[0], *places[1]]]).any(0) & choice)
        halves = [cross_fitted(values[own], alive) for own in places]
        half = halves[0][1]
        picked = [np.array(own)[picks] for own, (picks, _) in zip(places, halves, strict=True)]
        run = np.arange(values.shape[1])
        first, second = (values[own, run] for own in picked)
        variances = errors[picked[0], run] ** 2 + errors[picked[1], run] ** 2
        shared = float(np.sqrt(np.mean((picked[0] != picked[1]) * variances)))
        difference, low, high, pairs = paired(first - second, half, shared)
        if not pairs:  # no seed of which both runs survived
            continue
        chosen = [
            tuple(str(here["schedule"].values[own[half == h][0]]) for h in np.unique(half))
            for own in picked
        ]
        result.append(
            Comparison(
                divergence=divergence,
                side=side,
                other=other,
                exact=exact,
                coupled=not (plain or exact),
                best=side.labels[_lowest(values[places[0]])],
                chosen=chosen[0],
                other_chosen=chosen[1],
                cross_fitted=bool(half.any()) if choice else None,
                values=first,
                other_values=second,
                floor=floor,
                floor_sd=floor_sd,
                difference=difference,
                low=low,
                high=high,
                pairs=pairs,
            )
        )
    return result


def _by_schedule(values: xr.DataArray) -> Array:
    """Values over schedules and seeds; of exact ones the axis `seed` has length 1."""
    if "seed" not in values.dims:
        values = values.expand_dims("seed", -1)
    return np.asarray(values.transpose("schedule", "seed").values)


def _lowest(values: Array) -> int:
    """Row of the lowest mean over runs, among those that lost the fewest."""
    count = np.isfinite(values).sum(1)
    return lowest(np.nansum(values, 1) / np.where(count, count, np.nan), count) or 0


def nothing_compared(here: xr.Dataset) -> str:
    """Why cells, over axes `schedule` and `seed` at least, hold nothing to compare, in words."""
    if not any(_pairs(here)):
        (side,) = sides_of(here)
        but = ": neither a = 0 nor another family" if np.isfinite(shapes(here)).any() else ""
        return f"the study has no schedule to compare {side.name} with{but}"
    if not any(divergence.ranks for divergence in divergences_of(here)):
        return "the study has no divergence for which less is better"
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


def cross_fitted(
    values: Array, alive: npt.NDArray[np.bool_] | None = None
) -> tuple[Integers, Integers]:
    """For each run the row to look at, chosen on the other half; and its half, 0 or 1.

    Parameters
    ----------
    values : ndarray, shape (n_schedules, n_runs)
        NaN for a lost run.
    alive : ndarray of bool, shape (n_runs,)
        The runs that are cut in halves, by default those with a value. Under six of them the row
        is chosen on all runs.
    """
    runs = np.flatnonzero(np.isfinite(values).any(0) if alive is None else alive)
    half = np.zeros(values.shape[1], dtype=np.intp)
    if len(runs) < MIN_CROSS_FITTED:
        return np.full(values.shape[1], _lowest(values)), half
    half[runs] = np.arange(len(runs)) % 2
    chosen = np.array([_lowest(values[:, half != h]) for h in (0, 1)])
    return chosen[half], half


def paired(
    differences: Array, half: Integers, shared: float = 0.0
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


def comparisons(grid: xr.Dataset) -> Iterator[tuple[dict[str, Any], Comparison]]:
    """All comparisons of a grid, each with the labels of its setting."""
    grid = grid.drop_dims("time_fraction", errors="ignore").load()
    sides, divergences = list(_pairs(grid)), divergences_of(grid)
    for labels in settings(grid):
        here = grid.sel(labels)
        for divergence in divergences:
            for comparison in compare(here, divergence, sides):
                yield labels, comparison


def comparison_table(grid: xr.Dataset, found: Found | None = None) -> pd.DataFrame:
    """One row a (setting, divergence, two sides): the paired difference, and in words.

    Parameters
    ----------
    grid : Dataset
    found : sequence, optional
        Its `comparisons`, where they are known.

    Returns
    -------
    DataFrame
        The setting; `divergence`, `label`, `units`; `schedule`, a family whose labels differ in
        numbers or one schedule, and `reference`, the one it is compared with; `values` empirical,
        coupled or exact; `best`, the label of `schedule` that is lowest on all runs, `chosen` and
        `reference_chosen`, the labels compared, `cross_fitted`, empty without a choice;
        `mean`, `reference_mean` over the runs compared and
        the `floor`; `difference` schedule − reference with `low`, `high` and `pairs`;
        `beyond_noise`, empty without an interval; `sentence`.
    """
    rows = [
        {
            **labels,
            "divergence": c.divergence.name,
            "label": c.divergence.label,
            "units": c.divergence.units,
            "schedule": c.side.key,
            "reference": c.other.key,
            "values": "exact" if c.exact else "coupled" if c.coupled else "empirical",
            "best": c.best,
            "chosen": " ".join(c.chosen),
            "reference_chosen": " ".join(c.other_chosen),
            "cross_fitted": pd.NA if c.cross_fitted is None else c.cross_fitted,
            "mean": float(c.values[np.isfinite(c.values)].mean()),
            "reference_mean": float(c.other_values[np.isfinite(c.other_values)].mean()),
            "floor": c.floor,
            "difference": c.difference,
            "low": c.low,
            "high": c.high,
            "pairs": c.pairs,
            "beyond_noise": pd.NA if c.beyond_noise is None else c.beyond_noise,
            "sentence": c.sentence,
        }
        for labels, c in (comparisons(grid) if found is None else found)
    ]
    return pd.DataFrame(rows, columns=None if rows else [*SETTING, "divergence", "sentence"])


def comparison_text(grid: xr.Dataset, found: Found | None = None) -> str:
    """Every comparison in words, as reStructuredText: a list of sentences a setting.

    First how many intervals exclude zero; where a setting or the study has no comparison, why.
    `found` is as in `comparison_table`.
    """
    by_setting: dict[str, list[Comparison]] = {}
    for labels, comparison in comparisons(grid) if found is None else found:
        by_setting.setdefault(_heading(labels), []).append(comparison)
    paragraphs = {
        heading: "\n".join(f"- {comparison.sentence}" for comparison in own)
        for heading, own in by_setting.items()
    }
    if not paragraphs:
        return f"Nothing to compare: {nothing_compared(grid)}.\n"
    for labels in settings(grid):
        here, heading = grid.sel(labels), _heading(labels)
        if heading not in paragraphs and (here["status"] == FAILED).any():
            paragraphs[heading] = f"- Nothing to compare: {nothing_compared(here)}."
    count = multiplicity(comparison for own in by_setting.values() for comparison in own)
    head = [f"{count[0].upper()}{count[1:]}.\n"] if count else []
    return "\n".join([*head, *(f"{heading}\n\n{lines}\n" for heading, lines in paragraphs.items())])


def _heading(labels: dict[str, Any]) -> str:
    return (
        f"{labels['target']}: score {labels['score']}, sampler {labels['sampler']}, "
        f"T = {labels['horizon']:g}, {labels['n_steps']} steps, {labels['time_grid']} time grid"
    )
