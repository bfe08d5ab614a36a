"""Plain SVG that answers to a pointer: errors of schedules, and bounds against errors.

Places are percentages of the drawing, so that it fits any width and its text stays readable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.special import stdtrit

from sgm.answers import Finding, errors_of
from sgm.ranking import bounding
from sgm.reading import finite
from sgm.rounding import interval, rounded, significant

__all__ = ["Dot", "Dots", "Mark", "Scatter", "dots", "scatter"]

MOST = 25
CONFIDENCE = 0.95
#: A shape and a class of colour for each bound of a scatter.
SHAPES = ("circle", "square", "diamond", "triangle", "cross", "star", "bar")


@dataclass(frozen=True)
class Dot:
    """A schedule on the scale: places in percent, and what there is to say."""

    schedule: str
    at: float
    low: float
    high: float
    amount: str
    cost: str
    picked: tuple[str, ...]
    best: bool
    tied: bool
    about: str


@dataclass(frozen=True)
class Dots:
    """Errors of schedules on one logarithmic scale, the least first.

    `left_out` counts those of the largest errors that are not drawn; `without` have no number.
    """

    dots: tuple[Dot, ...]
    ticks: tuple[tuple[float, str], ...]
    left_out: int
    without: tuple[str, ...]


@dataclass(frozen=True)
class Mark:
    """A cell: error along x, bound along y, in percent from the lower left."""

    x: float
    y: float
    shape: str
    about: str


@dataclass(frozen=True)
class Scatter:
    """Bounds against errors, both logarithmic; on the diagonal they are equal.

    `above`: every bound is above its error.
    """

    marks: tuple[Mark, ...]
    series: tuple[tuple[str, str], ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    diagonal: tuple[float, float, float, float] | None
    above: bool


class _Scale:
    """A logarithmic scale of the positive numbers among some, in percent."""

    def __init__(self, values: Iterable[float], pad: float = 4.0) -> None:
        known = [math.log10(v) for v in values if math.isfinite(v) and v > 0]
        low, high = (min(known), max(known)) if known else (0.0, 1.0)
        if high - low < 0.05:
            low, high = low - 0.025, high + 0.025
        self.low, self.high, self.pad = low, high, pad

    def __call__(self, value: float) -> float:
        if not (math.isfinite(value) and value > 0):
            return 0.0
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return round(min(100.0, max(0.0, self.pad + (100 - 2 * self.pad) * share)), 2)

    @property
    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Powers of ten, with 2 and 5 between where the scale is short."""
        first, last = math.floor(self.low), math.ceil(self.high)
        steps = (1, 2, 5) if self.high - self.low < 1.5 else (1,)
        values = [m * 10.0**e for e in range(first, last + 1) for m in steps]
        values = [v for v in values if self.low <= math.log10(v) <= self.high]
        every = max(1, len(values) // 5)
        return tuple((self(v), f"{v:.3g}") for v in values[::every])


def dots(grid: xr.Dataset, found: Finding) -> Dots:
    """The errors of the schedules of a finding, with 95 % intervals over runs."""
    here = grid.sel(found.setting)
    _, errors, shared = errors_of(here, found.divergence)
    count = np.isfinite(errors).sum(1)
    known = np.flatnonzero(count > 0)
    mean = np.array([np.nanmean(errors[i]) if count[i] else np.nan for i in range(len(errors))])
    half = np.full(len(errors), np.nan)
    for i in known:
        if count[i] > 1:
            own = errors[i][np.isfinite(errors[i])]
            error = math.hypot(own.std(ddof=1) / math.sqrt(count[i]), float(shared[i].mean()))
            half[i] = stdtrit(count[i] - 1, (1 + CONFIDENCE) / 2) * error
    order = known[np.argsort(mean[known], kind="stable")]
    labels = [str(label) for label in here["schedule"].values]
    least = mean[labels.index(found.best)]
    picks: dict[str, list[str]] = {}
    for judgement in found.judgements:
        picks.setdefault(judgement.pick, []).append(judgement.bound)
    shown = [i for k, i in enumerate(order) if k < MOST or labels[i] in picks]
    ends = np.concatenate([mean[shown], (mean - half)[shown], (mean + half)[shown]])
    scale, drawn = _Scale(ends), []
    for i in shown:
        cost = mean[i] / least if least > 0 else math.nan
        amount = rounded(mean[i], half[i])
        picked = tuple(picks.get(labels[i], ()))
        about = f"{labels[i]}: {amount} {interval(mean[i] - half[i], mean[i] + half[i])}".rstrip()
        times = f"× {significant(cost)}" if math.isfinite(cost) and labels[i] != found.best else ""
        about += f", {times} of the least" * bool(times)
        about += f"; lost runs: {errors.shape[1] - count[i]}" * bool(count[i] < count.max())
        about += f"; picked by {', '.join(picked)}" * bool(picked)
        ends_of = (mean[i] - half[i], mean[i] + half[i]) if count[i] > 1 else (mean[i],) * 2
        drawn.append(
            Dot(
                labels[i], scale(mean[i]), scale(ends_of[0]), scale(ends_of[1]), amount,
                f"× {significant(cost)}" if math.isfinite(cost) else "", picked,
                labels[i] == found.best, labels[i] in found.ties, about,
            )
        )  # fmt: skip
    without = tuple(label for label, n in zip(labels, count, strict=True) if not n)
    return Dots(tuple(drawn), scale.ticks, len(order) - len(shown), without)


def scatter(grid: xr.Dataset, found: Finding) -> Scatter | None:
    """The bounds of a finding's cells against their errors; None without a bound there."""
    here = grid.sel(found.setting)
    _, errors, _ = errors_of(here, found.divergence)
    error = _mean(errors)
    judged = {judgement.bound for judgement in found.judgements}
    totals: dict[str, np.ndarray] = {}
    for judge in bounding(grid, found.divergence):
        if judge.total in judged:
            runs = finite(here, judge.total)
            mean = runs.mean("seed") if "seed" in runs.dims else runs
            totals[judge.total] = np.broadcast_to(mean.values, len(error)).astype(float)
    both = [(e, b) for values in totals.values() for e, b in zip(error, values, strict=True)]
    both = [(e, b) for e, b in both if e > 0 and b > 0 and math.isfinite(e) and math.isfinite(b)]
    if len(both) < 2:
        return None
    x, y = _Scale(e for e, _ in both), _Scale(b for _, b in both)
    marks = []
    for shape, (name, values) in zip(_cycled(len(totals)), totals.items(), strict=True):
        for label, e, b in zip(here["schedule"].values, error, values, strict=True):
            if e > 0 and b > 0 and math.isfinite(e) and math.isfinite(b):
                about = f"{label}: {name} {b:.3g}, {b / e:.3g} times the error {e:.3g}"
                marks.append(Mark(x(e), y(b), shape, about))
    series = tuple(zip(_cycled(len(totals)), totals, strict=True))
    return Scatter(
        tuple(marks), series, x.ticks, y.ticks, _diagonal(x, y), all(b > e for e, b in both)
    )


def _cycled(n: int) -> Sequence[str]:
    return [SHAPES[i % len(SHAPES)] for i in range(n)]


def _mean(errors: np.ndarray) -> np.ndarray:
    count = np.isfinite(errors).sum(1)
    return np.nansum(errors, 1) / np.where(count, count, np.nan)  # type: ignore[no-any-return]


def _diagonal(x: _Scale, y: _Scale) -> tuple[float, float, float, float] | None:
    """Ends of the line on which bound and error are equal, if it crosses the drawing."""
    low, high = max(x.low, y.low), min(x.high, y.high)
    if high - low < 0.3:  # a corner
        return None
    ends = 10.0**low, 10.0**high
    return x(ends[0]), y(ends[0]), x(ends[1]), y(ends[1])
