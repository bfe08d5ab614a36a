"""What a grid says of itself: its divergences and bounds, and statistics over their runs.

Figures and tables know no measure by name. The attributes of a variable say what it is:

    role="divergence"  a measured error, lower is better; `figure` a short name, `label`
                       the axis label, `units`; names of its companions where it has them:
                       `floor` its value on true samples and `floor_sd` the standard
                       deviation of that over runs, `exact` its value for the exact law of
                       the sampler, `unbiased` the estimate without its bias,
                       `standard_error` that of one run, `coupled` the estimate
                       below the floor, `bound` the theorem's total;
                       `closed` "1" if each run is a closed form;
                       `floor_power` p if values add to the floor as pᵗʰ powers
    role="bound"       a theorem's total; `label`, `units`; `parts` the variables that sum
                       to it, from the bottom of the stack to its top, and `refined` other
                       totals, as words; `budget` its shares over time; `objection` the
                       variable of codes that says where
                       the theorem applies (0) and why it does not: `flag_values` and
                       `flag_meanings` of that variable, with underscores for blanks.
                       A bound without one is nowhere taken for a theorem.

A companion that the grid does not hold counts as not named. Statistics over runs are over
the finite values of the axis `seed`; standard deviations divide by n − 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.special import stdtrit

from sgm.axes import AXES, REPLICATE, SETTING, label_without
from sgm.store import DONE, FAILED, NOT_RUN

__all__ = [
    "NFE",
    "SETTING",
    "Along",
    "Bound",
    "Divergence",
    "NumericAxis",
    "Runs",
    "along",
    "bound_named",
    "bounds_of",
    "bounds_on",
    "default_x",
    "divergence_named",
    "divergences_of",
    "families",
    "finite",
    "in_order",
    "level",
    "lowest",
    "numbers_of",
    "numbers_text",
    "numeric_axes",
    "objection",
    "objections",
    "over_runs",
    "parameters",
    "resolved",
    "settings",
    "shapes",
    "text_of",
    "unbeaten",
    "units_of",
    "why_empty",
    "with_units",
    "x_axis",
]

COMPANIONS = ("floor", "floor_sd", "exact", "unbiased", "standard_error", "coupled", "bound")


@dataclass(frozen=True)
class Divergence:
    """A divergence of the grid: its variable, what to call it, and its companions' names."""

    name: str
    figure: str
    label: str
    units: str
    floor: str
    floor_sd: str
    exact: str
    unbiased: str
    standard_error: str
    coupled: str
    bound: str
    floor_power: float  # 0: unknown how values add to the floor
    ranks: bool  # whether less is better; an NLL below that of true rows is no better
    closed: bool = False  # whether each run is a closed form


@dataclass(frozen=True)
class Bound:
    """A bound of the grid: its total, what to call it, its parts, refinements, shares over time."""

    name: str
    figure: str
    label: str
    units: str
    parts: tuple[str, ...]
    refined: tuple[str, ...]
    budget: tuple[str, ...]


def divergences_of(grid: xr.Dataset) -> list[Divergence]:
    """The divergences of a grid, by name.

    Raises
    ------
    ValueError
        If two of them ask for the same figure.
    """
    found: dict[str, Divergence] = {}
    for name, variable in _with_role(grid, "divergence"):
        attrs = variable.attrs
        named = {key: str(attrs.get(key, "")) for key in COMPANIONS}
        divergence = Divergence(
            name=name,
            figure=str(attrs.get("figure", name)),
            label=text_of(variable),
            units=units_of(variable),
            floor_power=float(attrs.get("floor_power", 0)),
            ranks=str(attrs.get("ranks", "1")) != "0",
            closed=str(attrs.get("closed", "0")) == "1",
            **{key: value if value in grid else "" for key, value in named.items()},
        )
        if divergence.figure in found:
            raise ValueError(
                f"figure = {divergence.figure!r} of {name}: must differ from that of "
                f"{found[divergence.figure].name}"
            )
        found[divergence.figure] = divergence
    return list(found.values())


def resolved(here: xr.Dataset, divergence: Divergence) -> str:
    """The variable that resolves a divergence best: the coupled estimate where there is one."""
    coupled = divergence.coupled
    return coupled if coupled and bool(finite(here, coupled).notnull().any()) else divergence.name


def bounds_of(grid: xr.Dataset) -> list[Bound]:
    """The bounds of a grid, by name."""

    def words(variable: xr.DataArray, key: str) -> tuple[str, ...]:
        return tuple(word for word in str(variable.attrs.get(key, "")).split() if word in grid)

    return [
        Bound(
            name=name,
            figure=name.removesuffix("_bound"),
            label=text_of(variable),
            units=units_of(variable),
            parts=words(variable, "parts"),
            refined=words(variable, "refined"),
            budget=words(variable, "budget"),
        )
        for name, variable in _with_role(grid, "bound")
    ]


def _with_role(grid: xr.Dataset, role: str) -> list[tuple[str, xr.DataArray]]:
    """The variables of a role, in an order that does not depend on the folder of the grid."""
    names = sorted(map(str, grid.data_vars))
    return [(name, grid[name]) for name in names if grid.variables[name].attrs.get("role") == role]


def divergence_named(grid: xr.Dataset, name: str) -> Divergence:
    """The divergence of a grid by its figure's name or its variable's.

    Raises
    ------
    ValueError
        If there is none; the message lists those there are.
    """
    found = divergences_of(grid)
    for divergence in found:
        if name in (divergence.figure, divergence.name):
            return divergence
    known = ", ".join(divergence.figure for divergence in found) or "none"
    raise ValueError(f"divergence = {name!r}: must be one of the grid's, {known}")


def bound_named(grid: xr.Dataset, name: str) -> Bound:
    """The bound of a grid by its variable's name; ValueError if there is none."""
    found = {bound.name: bound for bound in bounds_of(grid)}
    if name not in found:
        raise ValueError(
            f"bound = {name!r}: must be one of the grid's, {', '.join(found) or 'none'}"
        )
    return found[name]


def bounds_on(grid: xr.Dataset, divergence: Divergence) -> list[Bound]:
    """The bounds of a divergence, the one that it names first; the others bound what that does."""
    about = {bound: str(grid[bound.name].attrs.get("divergence", "")) for bound in bounds_of(grid)}
    named = [bound for bound in about if bound.name == divergence.bound]
    bounded = {divergence.name, *(about[bound] for bound in named)} - {""}
    return [*named, *(b for b, name in about.items() if b not in named and name in bounded)]


def text_of(variable: xr.DataArray) -> str:
    """What to call a variable: its `label`, else its `long_name`, else its name."""
    attrs = variable.attrs
    text = str(attrs.get("label") or attrs.get("long_name") or variable.name)
    return text.replace("||", "‖")


def units_of(variable: xr.DataArray) -> str:
    """Units in the plural; empty for a pure number."""
    units = str(variable.attrs.get("units", ""))
    return {"nat": "nats", "1": ""}.get(units, units)


def with_units(label: str, units: str) -> str:
    """A label, and the units behind a comma where there are any."""
    return f"{label}, {units}" if units else label


def objection(cells: xr.Dataset, bound: Bound, total: str = "") -> xr.DataArray:
    """Why a bound's theorem does not apply, in words; "" where it does.

    Parameters
    ----------
    cells : Dataset
    bound : Bound
    total : str
        One of the refined totals, which may have hypotheses of its own; else it has those
        of the bound.

    Returns
    -------
    DataArray of str
        Over the axes on which it depends, without `seed`: of several reasons that of the last code.
    """
    unknown = "its hypotheses are not checked"
    own = cells[total].attrs.get("objection", "") if total else ""
    name = own or cells[bound.name].attrs.get("objection", "")
    if name not in cells:
        return xr.DataArray(unknown)
    codes = cells[name]
    meanings = [text.replace("_", " ") for text in str(codes.attrs["flag_meanings"]).split()]
    reasons = dict(zip(np.atleast_1d(codes.attrs["flag_values"]).tolist(), meanings, strict=True))
    worst = codes.max([dim for dim in codes.dims if dim == "seed"], skipna=False)
    texts = ["" if code == 0 else reasons.get(code, unknown) for code in worst.values.ravel()]
    return worst.copy(data=np.array(texts, dtype=object).reshape(worst.shape))


def objections(here: xr.Dataset, bound: Bound, total: str = "") -> list[str]:
    """`objection` at one setting, with axes `schedule` and `seed`: one reason a schedule."""
    reasons = objection(here, bound, total)
    return [str(reason) for reason in np.broadcast_to(reasons.values, here.sizes["schedule"])]


def finite(cells: xr.Dataset, name: str) -> xr.DataArray:
    """The finite values of a variable; NaN everywhere where the grid has none."""
    if name not in cells:
        return xr.full_like(cells["status"], np.nan, dtype=float)
    return _only_finite(cells[name])


def _only_finite(values: xr.DataArray) -> xr.DataArray:
    # `DataArray.where` aligns coordinates first: thousands of calls on small arrays add up
    return values.copy(deep=False, data=np.where(np.isfinite(values.data), values.data, np.nan))


def level(here: xr.Dataset, mean: str, sd: str) -> tuple[float, float]:
    """A level across a panel, such as a floor: its mean, and its sd stored or over runs."""
    values = finite(here, mean)
    if sd:
        return float(values.mean()), float(finite(here, sd).mean())
    return float(values.mean()), float(values.std(ddof=1)) if "seed" in values.dims else np.nan


@dataclass(frozen=True)
class Runs:
    """Statistics over the runs of one quantity, without the axis `seed`."""

    mean: xr.DataArray
    sd: xr.DataArray
    median: xr.DataArray
    lowest: xr.DataArray
    highest: xr.DataArray
    count: xr.DataArray


def over_runs(values: xr.DataArray) -> Runs:
    """Mean and standard deviation over the runs that have a number, and how many these are."""
    if "seed" not in values.dims:
        values = values.expand_dims("seed")
    values = _only_finite(values)
    return Runs(
        mean=values.mean("seed"),
        sd=values.std("seed", ddof=1),
        median=values.median("seed"),
        lowest=values.min("seed"),
        highest=values.max("seed"),
        count=values.count("seed"),
    )


def lowest(means: npt.ArrayLike, counts: npt.ArrayLike = 1) -> int | None:
    """Flat index of the lowest finite mean, among those of the most runs; None without one.

    A mean over the runs that survived would reward a schedule for the runs it lost.
    """
    values = np.asarray(means, dtype=np.float64)
    runs = np.broadcast_to(np.where(np.isfinite(values), counts, 0), values.shape)
    if not runs.any():
        return None
    return int(np.argmin(np.where(runs == runs.max(), values, np.inf)))


def unbeaten(losses: npt.ArrayLike, confidence: float = 0.95) -> npt.NDArray[np.bool_]:
    """Confidence set of the best of K choices, from runs paired by their seeds.

    With d_jk and s_jk the mean and the standard deviation over R seeds of loss_j − loss_k, choice
    j stays if no other one beats it,

        d_jk ≤ t_{R−1, 1−α/(K−1)} s_jk/√R     for all k ≠ j.

    The best one has E d_jk ≤ 0 for all k; hence, for Gaussian differences, it is lost with
    probability at most α, by Bonferroni, whatever the noise shared by a seed's runs.

    Parameters
    ----------
    losses : array_like, shape (R, K)
        Finite, R ≥ 2; a row a seed.
    confidence : float
        1 − α.

    Returns
    -------
    ndarray of bool, shape (K,)

    Sources
    -------
    A multiple comparison with the best (Hsu, Ann. Stat. 9, 1981) by paired differences.
    """
    values = np.asarray(losses, dtype=np.float64)
    runs, choices = values.shape
    quantile = stdtrit(runs - 1, 1 - (1 - confidence) / max(1, choices - 1))
    difference = values[:, :, None] - values[:, None, :]
    error = np.std(difference, axis=0, ddof=1) / np.sqrt(runs)
    kept: npt.NDArray[np.bool_] = np.all(np.mean(difference, axis=0) <= quantile * error, axis=1)
    return kept


def why_empty(cells: xr.Dataset) -> str:
    """Why cells without a number have none, in words."""
    status = cells["status"]
    failed, tried = (
        int(status.isin(states).sum()) for states in ([FAILED], [NOT_RUN, DONE, FAILED])
    )
    if not tried:
        return "no run in the study"
    if failed < tried:
        return "no finite value" + (f": {failed} of {tried} runs failed" if failed else "")
    runs = "the only run" if tried == 1 else f"all {tried} runs"
    return f"{runs} failed: the grid's attribute `failures` says why"


# --- what varies -------------------------------------------------------------------------

#: Dimensions whose numbers a figure can have on its x-axis, the likeliest first.
X_DIMENSIONS = ("schedule", "horizon", "n_steps", "sampler", "score", "time_grid")
#: Parameters of grids that don't say which coordinates are: only `a` was one.
UNTOLD = {"a": {"parameter": "a", "symbol": "a", "long_name": "a of beta_a"}}


@dataclass(frozen=True)
class NumericAxis:
    """A coordinate of numbers along a dimension: a parameter of its items, T or N.

    Parameters
    ----------
    name : str
        The coordinate.
    dimension : str
        Along which it lies.
    parameter : str
        What labels call it, as ``a`` in ``beta_a=0.3``; empty where the numbers are the labels.
    symbol : str
        The parameter's name if its family declares none.
    long_name : str
    """

    name: str
    dimension: str
    parameter: str
    symbol: str
    long_name: str

    @property
    def label(self) -> str:
        """What to write at an axis of a figure; mathtext sets a symbol that is no word."""
        symbol = self.symbol if re.fullmatch(r"\w\w+", self.symbol) else f"${self.symbol}$"
        families = self.long_name.partition(" of ")[2]
        return f"{symbol} of {families}" if self.parameter else f"{self.long_name} {symbol}"


#: How many evaluations N steps are depends on the sampler: it stands on x in place of N.
NFE = NumericAxis("nfe", "n_steps", "", "NFE", "evaluations of the score")


def numbers_of(cells: xr.Dataset, axis: NumericAxis) -> xr.DataArray:
    """The numbers by which the labels of an axis are ordered: its own; N's for the NFE."""
    return cells[axis.dimension if axis == NFE else axis.name]


@dataclass(frozen=True)
class Along:
    """How the labels of a dimension stand along one of its numeric axes.

    Parameters
    ----------
    curves : dict of str to list
        Labels by increasing number, by what they have in common: those of one curve differ in
        this number alone.
    others : list
        Labels without the number, in the order of the grid.
    """

    curves: dict[str, list[Any]]
    others: list[Any]


def parameters(grid: xr.Dataset) -> tuple[NumericAxis, ...]:
    """The coordinates that are parameters of items, whether or not they vary; by place and name."""
    found = []
    for name, values in grid.coords.items():
        attrs = values.attrs if "parameter" in values.attrs else UNTOLD.get(str(name))
        if attrs is not None and values.ndim == 1 and values.size:
            dimension = str(values.dims[0])
            told = (str(attrs[key]) for key in ("parameter", "symbol", "long_name"))
            place = REPLICATE.index(dimension), int(np.argmax(np.isfinite(values.values))), name
            found.append((place, NumericAxis(str(name), dimension, *told)))
    return tuple(axis for _, axis in sorted(found))


def numeric_axes(grid: xr.Dataset) -> tuple[NumericAxis, ...]:
    """The numbers that vary in a grid, in the order in which a figure prefers them.

    Those of schedules first, then the horizon, N, those of samplers, scores and time grids; on one
    dimension in the order of the grid.
    """
    rows = (AXES[name] for name in X_DIMENSIONS if name in grid.coords)
    found = [NumericAxis(r.name, r.name, "", r.symbol, r.about) for r in rows if r.of_numbers]
    found += [axis for axis in parameters(grid) if axis.dimension in X_DIMENSIONS]
    if NFE.name in grid.coords:
        found.append(NFE)
    varying = [a for a in found if len(np.unique(numbers_of(grid, a).dropna(a.dimension))) > 1]
    return tuple(sorted(varying, key=lambda axis: X_DIMENSIONS.index(axis.dimension)))


def default_x(grid: xr.Dataset) -> NumericAxis | None:
    """What a figure has on its x-axis unless told: what the study says, else what varies first.

    None if no number varies.
    """
    found = {axis.name: axis for axis in numeric_axes(grid)}
    return found.get(grid.attrs.get("x", ""), next(iter(found.values()), None))


def x_axis(grid: xr.Dataset, name: str | None = None) -> NumericAxis | None:
    """The numeric axis of a name, by default `default_x`.

    Raises
    ------
    ValueError
        If no number of this name varies in the grid; the message lists those that do.
    """
    if name is None:
        return default_x(grid)
    found = {axis.name: axis for axis in numeric_axes(grid)}
    if name not in found:
        known = ", ".join(found) or "none does"
        raise ValueError(f"x = {name!r}: must be a number that varies in the grid, {known}")
    return found[name]


def along(cells: xr.Dataset, axis: NumericAxis) -> Along:
    """The labels of `axis.dimension` along its numbers; see `Along`."""
    labels, numbers = cells[axis.dimension].values.tolist(), numbers_of(cells, axis).values.tolist()
    curves: dict[str, list[tuple[float, Any]]] = {}
    others = []
    for label, number in zip(labels, numbers, strict=True):
        if not np.isfinite(number):
            others.append(label)
            continue
        common = label_without(label, axis.parameter, number) if axis.parameter else ""
        curves.setdefault(common, []).append((number, label))
    ordered = {common: [label for _, label in sorted(own)] for common, own in curves.items()}
    return Along(ordered, others)


def shapes(cells: xr.Dataset) -> npt.NDArray[np.float64]:
    """The a of each schedule, NaN outside the family β_a."""
    in_family = (cells["family"] == "beta_a").values
    if not in_family.any():  # the grid may lack the coordinate
        return np.full(in_family.shape, np.nan)
    return np.where(in_family, cells["a"].values, np.nan)


def families(cells: xr.Dataset) -> list[tuple[str, list[str]]]:
    """Schedules by what they are of, in the order of the grid: a family's name, and its labels.

    Labels that differ in numbers, the parameters that are coordinates, are one entry, by
    increasing numbers; a schedule without a number is an entry of its own.
    """
    names = [axis.name for axis in parameters(cells) if axis.dimension == "schedule"]
    numbers = np.array([cells[name].values for name in names])
    numbers = numbers.reshape(len(names), cells.sizes["schedule"])
    found: dict[tuple[str, str], list[tuple[tuple[float, ...], str]]] = {}
    for i, (label, family) in enumerate(
        zip(cells["schedule"].values, cells["family"].values, strict=True)
    ):
        own = tuple(float(x) for x in numbers[:, i] if np.isfinite(x))
        found.setdefault((str(family), "" if own else str(label)), []).append((own, str(label)))
    return [(family, [label for _, label in sorted(own)]) for (family, _), own in found.items()]


def numbers_text(cells: xr.Dataset, label: str) -> str:
    """What tells a schedule from the others of its family, in words: ``a = 3``."""
    own = cells.sel(schedule=label)
    axes = [axis for axis in parameters(cells) if axis.dimension == "schedule"]
    values = {axis.parameter: float(own[axis.name]) for axis in axes}
    return ", ".join(
        f"{k} = {x:.3g}".replace("-", "−") for k, x in values.items() if np.isfinite(x)
    )


def in_order(cells: xr.Dataset) -> tuple[list[str], list[str]]:
    """Labels of the β_a schedules by increasing a, and of the others in grid order."""
    a = shapes(cells)
    names: npt.NDArray[Any] = np.array([str(s) for s in cells["schedule"].values], dtype=object)
    by_a = np.argsort(a, kind="stable")[: np.isfinite(a).sum()]
    return list(names[by_a]), list(names[np.isnan(a)])


def settings(grid: xr.Dataset) -> Iterator[dict[str, Any]]:
    """Labels of every set of cells that differ in schedule and seed alone."""
    for values in product(*(grid[dim].values for dim in SETTING)):
        yield {dim: np.asarray(v).item() for dim, v in zip(SETTING, values, strict=True)}
