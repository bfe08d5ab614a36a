"""Figures: each a view of one grid, drawn from the table that is saved beside it.

A view maps a grid (the dataset of a study) to a pair (figure, frame). The frame is
computed first and the figure is drawn from it and from nothing else, so that the CSV
that `save` writes holds exactly the numbers drawn. Columns common to all frames:

    panel     number of the panel, with one column for each of its labels
    axis      the axis on which the row is drawn
    curve     what the row belongs to
    x, y      the point; x is empty for a level drawn across the panel
    low, high the band: y ∓ one standard deviation over runs; the range of the runs on a
              logarithmic axis; bottom and top of a bar
    n_runs    runs averaged in y; n_failed, runs that failed there

Statistics over runs are over the finite values of the axis `seed`. Bytes depend on the
grid and on the version of matplotlib alone: no date is stored, and fonts are the ones
matplotlib ships.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib
import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

__all__ = [
    "FIGURES",
    "View",
    "decomposition_figure",
    "kl_figure",
    "save",
    "schedules_figure",
]

PANEL_LABELS = ("horizon", "score", "sampler", "time_grid", "n_steps")
DONE, FAILED, NOT_APPLICABLE = 1, 2, 3
ROUND = [1, 2, 2.5, 5, 10]  # the steps between ticks
TITLE_WIDTH = 62  # characters
BANDS = SD, MEAN_SD, MEAN_RANGE = ", ± 1 sd", ", mean ± 1 sd", ", mean and range"
ROUNDING = 1e-12  # a relative standard deviation below this is none
LOG_RATIO = 100.0  # a linear axis that spans more than this is drawn in logarithms

BLUE, ORANGE, GREEN, VERMILLION, PURPLE, BROWN, PINK, GREY, YELLOW, SKY = sns.color_palette(
    "colorblind"
).as_hex()
INK, FAINT = "#222222", "#6E6E6E"
LineStyle: TypeAlias = str | tuple[int, tuple[float, ...]]
LEVEL_STYLES: tuple[
    tuple[str, LineStyle], ...
] = (  # of the schedules outside the β_a family, in the order of the grid
    (PURPLE, (0, (5, 2, 1, 2))),
    (BROWN, (0, (7, 2))),
    (SKY, (0, (3, 1, 1, 1, 1, 1))),
    (ORANGE, (0, (1, 1))),
)


# --- drawing -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Style:
    """How one curve looks; `band` says what the shaded band means in the legend."""

    label: str
    color: str
    line: LineStyle = "-"
    marker: str = ""
    width: float = 1.3
    size: float = 3.2
    band: str = ""


def _house_style() -> AbstractContextManager[None]:
    return matplotlib.rc_context(
        {
            **sns.plotting_context("paper"),
            **sns.axes_style("ticks"),
            "font.sans-serif": ["DejaVu Sans"],
            "font.size": 8,
            "axes.labelsize": 8.5,
            "axes.titlesize": 7.5,
            "axes.linewidth": 0.7,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.formatter.limits": (-3, 5),
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "legend.fontsize": 7,
            "legend.frameon": False,
            "figure.titlesize": 10,
            "pdf.fonttype": 42,
            "savefig.dpi": 200,
        }
    )


def _draw_curve(ax: Axes, rows: pd.DataFrame, style: _Style) -> None:
    """A line through the rows with its band; error bars where a band has no width."""
    x, y, low, high = (rows[column].to_numpy(float) for column in ("x", "y", "low", "high"))
    drawn = np.isfinite(y)
    banded = drawn & (high - low > ROUNDING * abs(y))
    if drawn.sum() == 1 and not style.marker:
        style = _Style(**{**vars(style), "marker": "D", "size": 3.0})
    ax.plot(
        x,
        y,
        color=style.color,
        linestyle=style.line,
        linewidth=style.width,
        marker=style.marker or None,
        markersize=style.size,
        label=style.label + (style.band if banded.any() else ""),
        zorder=3,
    )
    if banded.sum() > 1:
        ax.fill_between(x, low, high, where=banded, color=style.color, alpha=0.14, linewidth=0)
    elif banded.any():
        bars = np.array([(y - low)[banded], (high - y)[banded]])
        ax.errorbar(
            x[banded], y[banded], bars, color=style.color, capsize=3, linewidth=1, fmt="none"
        )
    partial = drawn & (rows["n_failed"].to_numpy(float) > 0)
    if style.marker and partial.any():
        ax.plot(
            x[partial],
            y[partial],
            linestyle="none",
            marker=style.marker,
            markersize=style.size + 2,
            markerfacecolor="white",
            markeredgecolor=style.color,
            label="point with failed runs",
            zorder=4,
        )


def _draw_level(ax: Axes, row: pd.Series[Any], style: _Style) -> None:
    banded = row["high"] > row["low"]
    ax.axhline(
        row["y"],
        color=style.color,
        linestyle=style.line,
        linewidth=style.width,
        label=style.label + (style.band if banded else ""),
        zorder=2,
    )
    if banded:
        ax.axhspan(row["low"], row["high"], color=style.color, alpha=0.07, linewidth=0, zorder=0.5)
        for edge in (row["low"], row["high"]):
            ax.axhline(edge, color=style.color, linewidth=0.4, alpha=0.7, zorder=0.6)


def _is_log(rows: pd.DataFrame) -> bool:
    values = rows["y"].to_numpy(float)
    values = values[np.isfinite(values)]
    return bool(values.size and values.min() > 0 and values.max() > LOG_RATIO * values.min())


def _set_scale(ax: Axes, log: bool, label: str, color: str) -> None:
    if log:
        ax.set_yscale("log", nonpositive="clip")
        label += " (log scale)"
    else:
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=ROUND))
    ax.set_ylabel(label, color=color)
    ax.tick_params(axis="y", colors=color, which="both")


def _legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend for all axes, below them: it can't cover data."""
    entries: dict[str, Artist] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    for label in list(entries):  # a curve with a band in one panel and without in another
        if any(label + band in entries for band in BANDS):
            del entries[label]
    if not entries:
        return
    inches = 0.062 * max(map(len, entries)) + 0.55  # of a column: text at 7 pt and its handle
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside lower center",
        ncols=max(1, min(len(entries), int(figure.get_figwidth() / inches))),
        handlelength=2.6,
        columnspacing=1.4,
    )


def _figure(width: float, height: float, title: str) -> Figure:
    layout = ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.08, hspace=0.03, wspace=0.05)
    figure = Figure(figsize=(width, height), layout=layout)
    figure.suptitle(title, fontweight="bold")
    return figure


# --- reading the grid --------------------------------------------------------------


@dataclass(frozen=True)
class _Quantity:
    """A divergence of the grid: the names of its variables, and its label."""

    axis: str
    label: str
    empirical: str
    floor: str
    floor_sd: str = ""
    exact: str = ""
    bound: str = ""


KL = _Quantity(
    "KL", "KL(data ‖ generated)", "kl_plugin", "kl_floor", "kl_floor_sd", "kl_exact", "kl_bound"
)
HELDOUT = _Quantity("held-out", "held-out NLL gap", "heldout_nll_gap", "heldout_nll_floor")
BOUNDS = (
    "kl_bound",
    "kl_bound_mixing",
    "kl_bound_score",
    "kl_bound_discretization",
    "kl_bound_discretization_refined",
    "kl_path",
)


@dataclass(frozen=True)
class _Panel:
    """One combination of `PANEL_LABELS`, and the grid at it: (schedule[, seed])."""

    number: int
    labels: dict[str, Any]
    here: xr.Dataset
    exact: xr.Dataset | None  # the same cells with the exact score

    @property
    def family(self) -> str:
        return str(self.here["score_family"].item())

    @property
    def has_bound(self) -> bool:
        return bool(np.isfinite(self.here["kl_bound"]).any())


def _panels(grid: xr.Dataset, target: str) -> tuple[xr.Dataset, list[_Panel]]:
    """The target's cells and its panels: the trained scores, else the perturbed, else exact.

    Panels without any run or number are left out.
    """
    if target not in grid.indexes["target"]:
        known = ", ".join(map(str, grid["target"].values))
        raise ValueError(f"target = {target!r}: the grid has {known}")
    cells = _completed(grid.sel(target=target).drop_dims("time_fraction", errors="ignore").load())
    families = {str(s): str(f) for s, f in cells["score_family"].to_series().items()}
    exact = [score for score, family in families.items() if family == "exact"]
    trained = [score for score, family in families.items() if family == "trained"]
    perturbed = [score for score in families if score not in (*exact, *trained)]
    panels: list[_Panel] = []
    for scores in (trained, perturbed, exact):
        axes = [scores if name == "score" else cells[name].values for name in PANEL_LABELS]
        for values in product(*axes):
            labels = dict(
                zip(PANEL_LABELS, (v.item() for v in map(np.asarray, values)), strict=True)
            )
            here = cells.sel(labels)
            tried = here["status"].isin([DONE, FAILED]).any()
            if not (tried or np.isfinite(here["kl_exact"]).any()):
                continue
            reference = cells.sel({**labels, "score": exact[0]}) if exact else None
            panels.append(_Panel(len(panels), labels, here, reference))
        if panels:
            break
    return cells, panels


def _completed(cells: xr.Dataset) -> xr.Dataset:
    """The cells with every variable that a figure reads, NaN where the study has none."""
    blank = xr.full_like(cells["status"], np.nan, dtype=float)
    names = dict.fromkeys((*BOUNDS, KL.empirical, HELDOUT.empirical), blank)
    floors = dict.fromkeys((KL.floor, KL.floor_sd, HELDOUT.floor), np.nan)
    return cells.assign({k: v for k, v in (names | floors).items() if k not in cells})


def _in_order(cells: xr.Dataset) -> tuple[list[str], list[str]]:
    """Labels of the β_a schedules by increasing a, and of the others in grid order."""
    in_family = (cells["family"] == "beta_a").values
    names = np.array([str(s) for s in cells["schedule"].values], dtype=object)
    by_a = np.argsort(cells["a"].values[in_family], kind="stable")
    return list(names[in_family][by_a]), list(names[~in_family])


@dataclass(frozen=True)
class _Runs:
    """Statistics over the runs of one quantity, each of shape (schedule,)."""

    mean: xr.DataArray
    sd: xr.DataArray
    median: xr.DataArray
    lowest: xr.DataArray
    highest: xr.DataArray
    count: xr.DataArray


def _over_runs(values: xr.DataArray) -> _Runs:
    if "seed" not in values.dims:
        values = values.expand_dims("seed")
    values = values.where(np.isfinite(values))
    return _Runs(
        mean=values.mean("seed"),
        sd=values.std("seed", ddof=1),
        median=values.median("seed"),
        lowest=values.min("seed"),
        highest=values.max("seed"),
        count=values.count("seed"),
    )


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")


def _runs_note(panel: _Panel, variable: str) -> str:
    """How many runs the panel shows, and what became of the others."""
    here = panel.here
    tried = here["status"] != NOT_APPLICABLE
    wanted = int(tried.sum("seed").max())
    shown = abs(here[variable]) < np.inf
    if wanted == 0 or not tried.any():
        return "closed form, no runs"
    counts = shown.sum("seed").values[tried.any("seed").values]
    failed = int((here["status"] == FAILED).sum())
    done = here["status"] == DONE
    if done.all() and not shown.any() and np.isfinite(here["kl_exact"]).any():
        return "closed form, no runs"
    lost = {
        "failed": failed,
        "not run": int((here["status"] == 0).sum()),
        "not finite": int((done & ~shown).sum()),
    }
    low, high = int(counts.min()), int(counts.max())
    runs = "run" if wanted == 1 else "runs"
    if low == wanted:
        return f"{wanted} {runs}"
    reasons = [(n, why) for why, n in lost.items() if n]
    if low == high and len(reasons) == 1:  # the same at every schedule
        n, why = reasons[0]
        return f"{low} of {wanted} {runs}, {n // counts.size} {why}"
    span = f"{low} of" if low == high else f"{low} to {high} of"
    listed = ", ".join(f"{n} {why}" for n, why in reasons)
    return f"{span} {wanted} {runs} a schedule ({listed} of {int(tried.sum())})"


def _panel_title(panel: _Panel, grid: xr.Dataset, variable: str) -> str:
    labels, here = panel.labels, panel.here
    lines = [
        f"T = {labels['horizon']:g}, N = {labels['n_steps']} steps, {labels['time_grid']} time grid"
    ]
    sampler = f"sampler {labels['sampler']}"
    if not panel.has_bound:
        sampler += " (no bound" + ("" if here["law_known"] else ": law unknown") + ")"
    else:
        proved = bool(here["kl_bound_proved"])
        sampler += f" (bound {'proved' if proved else 'NOT proved'} for it)"
    lines.append(sampler)
    score = f"score {labels['score']}"
    recipe = str(here["recipe"].item())
    score += f", recipe {recipe}" if recipe else ""
    if "n_samples" in grid.attrs and np.isfinite(here[variable]).any():
        score += f"; {_number(float(grid.attrs['n_samples']))} samples a run"
    lines += [score, _runs_note(panel, variable)]
    return "\n".join(line for text in lines for line in textwrap.wrap(text, TITLE_WIDTH))


def _target_title(cells: xr.Dataset) -> str:
    return f"{cells['target'].item()}, dimension {int(cells['dimension'])}"


def _with_units(label: str, variable: xr.DataArray) -> str:
    units = str(variable.attrs.get("units", ""))
    return label if units in {"", "1"} else f"{label}, {units}"


@dataclass
class _Rows:
    """The frame in the making: rows of one panel."""

    panel: _Panel
    rows: list[pd.DataFrame] = field(default_factory=list)

    def add(
        self,
        axis: str,
        curve: str,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        *,
        sd: npt.ArrayLike | None = None,
        low: npt.ArrayLike = np.nan,
        high: npt.ArrayLike = np.nan,
        n_runs: npt.ArrayLike = np.nan,
        n_failed: npt.ArrayLike = np.nan,
        schedule: Sequence[str] | str = "",
        keep_empty: bool = False,
    ) -> None:
        """Append a curve; one without any finite y is left out unless `keep_empty`."""
        values = np.atleast_1d(np.asarray(y, dtype=np.float64))
        values = np.where(np.isfinite(values), values, np.nan)
        if not (np.isfinite(values).any() or keep_empty):
            return
        if sd is not None:
            low, high = values - np.asarray(sd), values + np.asarray(sd)
        numbers = {"x": x, "y": values, "low": low, "high": high}
        counts = {"n_runs": n_runs, "n_failed": n_failed}
        self.rows.append(
            pd.DataFrame(
                {
                    "panel": self.panel.number,
                    **self.panel.labels,
                    "axis": axis,
                    "curve": curve,
                    "schedule": schedule,
                    **{
                        name: np.broadcast_to(np.asarray(column, dtype=np.float64), values.shape)
                        for name, column in (numbers | counts).items()
                    },
                }
            )
        )


FRAME_COLUMNS = (
    "panel", *PANEL_LABELS, "axis", "curve", "schedule",
    "x", "y", "low", "high", "n_runs", "n_failed",
)  # fmt: skip


def _frame(target: str, rows: Iterable[pd.DataFrame]) -> pd.DataFrame:
    rows = list(rows)
    frame = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=FRAME_COLUMNS)
    for column in ("n_runs", "n_failed"):
        frame[column] = frame[column].astype("Int64")
    frame.insert(0, "target", target)
    return frame


# --- the paper's figure ------------------------------------------------------------


CURVES = {
    "bound": _Style("upper bound (left axis)", BLUE, "-", "s", size=3.0, band=MEAN_SD),
    "empirical": _Style("empirical", VERMILLION, "-", "o", band=MEAN_SD),
    "empirical median": _Style("median over runs", VERMILLION, (0, (4, 1.5)), width=0.8),
    "exact law": _Style("exact KL of this score", INK, (0, (6, 2)), width=1.1),
    "exact score": _Style("exact score, exact KL", INK, ":", width=1.5),
    "exact score + floor": _Style("exact score, KL + noise floor", FAINT, ":", width=1.3),
    "exact score, empirical": _Style("exact score, empirical mean", INK, "none", "x", size=3.5),
    "floor": _Style("noise floor", FAINT, "--", width=0.9, band=SD),
    "minimum of bound": _Style("lowest bound", BLUE, "none", "*", size=10),
    "minimum": _Style("lowest error", VERMILLION, "none", "*", size=10),
}
VPSDE = "level a = 0"


def _curve_style(curve: str, others: Sequence[str]) -> _Style:
    """The style of a curve; levels are told apart by their place in the grid."""
    if curve in CURVES:
        return CURVES[curve]
    if curve == VPSDE:
        return _Style("VPSDE (a = 0)", GREEN, (0, (4, 1, 1, 1)), width=1.1, band=SD)
    name = curve.removeprefix("level ")
    color, line = LEVEL_STYLES[others.index(name) % len(LEVEL_STYLES)]
    return _Style(name, color, line, width=1.1, band=SD)


def _quantity_rows(panel: _Panel, quantity: _Quantity) -> list[pd.DataFrame]:
    here, rows, axis = panel.here, _Rows(panel), quantity.axis
    family, others = _in_order(here)
    curve = here.sel(schedule=family)
    a = curve["a"].values
    failed = (curve["status"] == FAILED).sum("seed")

    if quantity.bound:
        bound = _over_runs(curve[quantity.bound])
        incomplete = bound.count < curve.sizes["seed"]
        rows.add(
            "bound", "bound", a, bound.mean, sd=bound.sd, schedule=family,
            n_runs=bound.count, n_failed=failed.where(incomplete, 0),
        )  # fmt: skip
        rows.rows += _minimum(rows, "bound", "minimum of bound", a, bound.mean, family)
    runs = _over_runs(curve[quantity.empirical])
    rows.add(
        axis, "empirical", a, runs.mean, sd=runs.sd, schedule=family,
        n_runs=runs.count, n_failed=failed, keep_empty=bool(failed.any()),
    )  # fmt: skip
    if (runs.count > 2).any():
        rows.add(axis, "empirical median", a, runs.median, schedule=family, n_runs=runs.count)
    draws = _over_runs(here[quantity.floor])
    floor = float(draws.mean)
    floor_sd = float(here[quantity.floor_sd] if quantity.floor_sd else draws.sd)
    main = runs.mean
    if quantity.exact:
        own = curve[quantity.exact]
        if panel.family != "exact":
            rows.add(axis, "exact law", a, own, schedule=family)
        if not np.isfinite(main).any():
            main = own
        if panel.exact is not None:
            exact = panel.exact.sel(schedule=family)
            rows.add(axis, "exact score", a, exact[quantity.exact], schedule=family)
            if np.isfinite(floor):
                rows.add(
                    axis, "exact score + floor", a, exact[quantity.exact] + floor, schedule=family
                )
            if panel.family != "exact":
                sampled = _over_runs(exact[quantity.empirical])
                rows.add(
                    axis, "exact score, empirical", a, sampled.mean, schedule=family,
                    n_runs=sampled.count,
                )  # fmt: skip
    rows.add(axis, "floor", np.nan, floor, sd=floor_sd)
    rows.rows += _minimum(rows, axis, "minimum", a, main, family)

    vpsde = [name for name, value in zip(family, a, strict=True) if value == 0]
    for name in [*vpsde, *others]:
        at = here.sel(schedule=name)
        level = _over_runs(at[quantity.empirical])
        y = level.mean
        if quantity.exact and not np.isfinite(y):
            y = at[quantity.exact]
        rows.add(
            axis, VPSDE if name in vpsde else f"level {name}", np.nan, y, sd=level.sd,
            schedule=name, n_runs=level.count, n_failed=(at["status"] == FAILED).sum("seed"),
        )  # fmt: skip
    return rows.rows


def _minimum(
    rows: _Rows, axis: str, curve: str, a: npt.NDArray[Any], y: xr.DataArray, family: list[str]
) -> list[pd.DataFrame]:
    """The row that marks where a curve is lowest, unless it is a point or a constant."""
    values = y.values
    if np.isfinite(values).sum() < 2 or np.ptp(values[np.isfinite(values)]) == 0:
        return []
    at, mark = int(np.nanargmin(values)), _Rows(rows.panel)
    mark.add(axis, curve, a[at], float(values[at]), schedule=family[at])
    return mark.rows


def _draw_quantity(
    left: Axes, rows: pd.DataFrame, quantity: _Quantity, label: str, others: Sequence[str]
) -> list[Axes]:
    """One panel: the bound on the left axis if there is one, the divergence on the right."""
    bound, divergence = rows[rows["axis"] == "bound"], rows[rows["axis"] == quantity.axis]
    right = left.twinx() if len(bound) else left
    for ax, part in ((left, bound), (right, divergence)):
        for curve, points in part.groupby("curve", sort=False):
            style = _curve_style(str(curve), others)
            if points["x"].isna().all():
                _draw_level(ax, points.iloc[0], style)
            elif points["y"].notna().any():
                _draw_curve(ax, points, style)
    # The exact KL of the exact score may lie decades below what n samples can show; the
    # scale is chosen for what is compared on the axis.
    empirical = divergence["curve"].str.contains("empirical").any()
    compared = divergence[divergence["curve"] != "exact score"] if empirical else divergence
    log = _is_log(compared)
    if right is left:
        right.yaxis.set_label_position("right")
        right.yaxis.tick_right()
        right.spines["left"].set_visible(False)
    else:
        _set_scale(left, _is_log(bound), "upper bound E1 + E2 + E3, nats", BLUE)
        left.margins(y=0.08)
    right.spines["right"].set_visible(True)
    _set_scale(right, log, label, VERMILLION)
    right.margins(y=0.08)
    y = divergence["y"].dropna()
    if not log and len(y) and y.min() >= 0:
        right.set_ylim(bottom=0)
    return [left, right] if right is not left else [left]


def kl_figure(grid: xr.Dataset, target: str) -> tuple[Figure, pd.DataFrame]:
    """The paper's figure: upper bound (left) and KL (right) against a, mean ± 1 sd over runs.

    One panel a (horizon, score, sampler, time grid, number of steps): of the trained
    scores where there are any, else of the perturbed ones, else of the exact one. The
    KL is the plug-in estimate; dotted, the exact KL of the exact score, and the same
    raised by the noise floor, which is what the estimator shows of it. The level of
    a = 0 (VPSDE) and those of the schedules outside the β_a family cross the panel as
    bands. A target without a known law has no bound, and a second panel with the gap
    of the held-out negative log-likelihood.

    Parameters
    ----------
    grid : Dataset
    target : str
        A label of the axis `target`.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn; `x` is a.

    Raises
    ------
    ValueError
        If the grid has no such target.
    """
    cells, panels = _panels(grid, target)
    _, others = _in_order(cells)
    quantities = [KL]
    if not bool(cells["law_known"]):
        measured = [q for q in (KL, HELDOUT) if np.isfinite(cells[q.empirical]).any()]
        quantities = measured or quantities
    frame = _frame(
        target,
        (rows for panel in panels for kind in quantities for rows in _quantity_rows(panel, kind)),
    )
    columns = min(2, max(1, len(panels)))
    bands = -(-max(1, len(panels)) // columns)
    with _house_style():
        width = 6.0 if columns == 1 else 8.6
        height = 3.3 * bands * len(quantities) + 1.3
        figure = _figure(width, height, _target_title(cells))
        axes = figure.subplots(bands * len(quantities), columns, squeeze=False)
        drawn: list[Axes] = []
        for ax in axes.ravel():
            ax.set_axis_off()
        for panel in panels:
            for row, quantity in enumerate(quantities):
                ax = axes[(panel.number // columns) * len(quantities) + row, panel.number % columns]
                ax.set_axis_on()
                here = frame[frame["panel"] == panel.number]
                label = quantity.label
                if quantity is KL and not bool(cells["law_known"]):
                    label = "KL between Gaussian fits"
                label = _with_units(label, cells[quantity.empirical])
                drawn += _draw_quantity(ax, here, quantity, label, others)
                title = _panel_title(panel, grid, quantity.empirical)
                ax.set_title(title if row == 0 else title.splitlines()[-1], loc="left")
                _set_a_axis(ax, here)
        if not panels:
            axes[0, 0].text(0.5, 0.5, "no run of this target in the grid", ha="center")
        _legend(figure, drawn)
    return figure, frame


def _set_a_axis(ax: Axes, rows: pd.DataFrame) -> None:
    a = rows["x"].dropna()
    ax.set_xlabel(r"$a$ of the noise schedule $\beta_a$")
    if a.empty:
        ax.set_xticks([])
    elif a.nunique() == 1:
        ax.set_xlim(a.iloc[0] - 1, a.iloc[0] + 1)
        ax.set_xticks([a.iloc[0]])
    else:
        ax.margins(x=0.03)
        ax.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))


# --- the decomposition -------------------------------------------------------------

STACK = {  # from the bottom: the flat term first, so that the others show on top of it
    "E3 discretization": ("kl_bound_discretization", "#BFDCEF"),
    "E2 score error": ("kl_bound_score", ORANGE),
    "E1 mixing": ("kl_bound_mixing", BLUE),
}
LINES = {
    "bound": _Style("upper bound E1 + E2 + E3", INK, "-", "s", size=2.8),
    "refined bound": _Style("refined bound E1 + E2 + E3 refined", INK, (0, (5, 2)), "x", 1.0),
    "E3 discretization": _Style("E3 discretization", SKY, "-", "_", 1.8, size=6),
    "E3 refined": _Style("E3 refined", SKY, (0, (5, 2)), "x", 1.3),
    "E2 score error": _Style("E2 score error", ORANGE, "-", "^"),
    "E1 mixing": _Style("E1 mixing", BLUE, "-", "v"),
    "path KL": _Style("path KL (Girsanov)", PURPLE, "-", "D", size=2.6),
    "empirical": _Style("empirical KL", VERMILLION, "-", "o", band=MEAN_RANGE),
    "exact law": _Style("exact KL of this score", INK, (0, (6, 2)), "d", 1.0),
    "exact score": _Style("exact score, exact KL", INK, ":", "+", 1.4, size=4),
    "floor": _Style("noise floor", FAINT, "--", width=0.9, band=SD),
}


def _decomposition_rows(panel: _Panel) -> list[pd.DataFrame]:
    here, rows = panel.here, _Rows(panel)
    family, others = _in_order(here)
    names = family + others
    here = here.sel(schedule=names)
    # one column a schedule; a gap sets the schedules outside the family apart
    x = np.append(np.arange(len(family)), len(family) + 0.5 + 1.5 * np.arange(len(others)))
    failed = (here["status"] == FAILED).sum("seed")
    parts = {curve: _over_runs(here[name]) for curve, (name, _) in STACK.items()}
    whole = xr.concat([part.mean for part in parts.values()], "part").sum("part", skipna=False)
    bottom = xr.zeros_like(whole)
    for curve, part in parts.items():
        top = bottom + part.mean
        rows.add(
            "stack", curve, x, part.mean.where(np.isfinite(whole)),
            low=bottom.where(np.isfinite(whole)), high=top.where(np.isfinite(whole)),
            schedule=names, n_runs=part.count,
        )  # fmt: skip
        bottom = top
    for axis in ("stack", "lines"):
        refined = (
            whole
            - parts["E3 discretization"].mean
            + _over_runs(here["kl_bound_discretization_refined"]).mean
        )
        rows.add(axis, "refined bound", x, refined, schedule=names)
    for curve, variable in (
        ("bound", "kl_bound"),
        ("E3 discretization", "kl_bound_discretization"),
        ("E3 refined", "kl_bound_discretization_refined"),
        ("E2 score error", "kl_bound_score"),
        ("E1 mixing", "kl_bound_mixing"),
        ("path KL", "kl_path"),
    ):
        runs = _over_runs(here[variable])
        rows.add("lines", curve, x, runs.mean, schedule=names, n_runs=runs.count)
    runs = _over_runs(here["kl_plugin"])
    # mean − sd may be negative, which a logarithmic axis can't show: the range of the runs
    several = runs.count > 1
    rows.add(
        "lines", "empirical", x, runs.mean,
        low=runs.lowest.where(several), high=runs.highest.where(several),
        schedule=names, n_runs=runs.count, n_failed=failed, keep_empty=bool(failed.any()),
    )  # fmt: skip
    if panel.family != "exact":
        rows.add("lines", "exact law", x, here["kl_exact"], schedule=names)
    if panel.exact is not None:
        exact = panel.exact.sel(schedule=names)["kl_exact"]
        rows.add("lines", "exact score", x, exact, schedule=names)
    rows.add("lines", "floor", np.nan, float(here["kl_floor"]), sd=float(here["kl_floor_sd"]))
    return rows.rows


def decomposition_figure(grid: xr.Dataset, target: str) -> tuple[Figure, pd.DataFrame]:
    """The bound taken apart, E1 + E2 + E3, and every error of the same cells beside it.

    A row of two panels for each panel of `kl_figure`: left, the terms stacked on a
    linear axis from zero; right, on one logarithmic axis, the terms, the refined bound,
    the path KL, the exact KL and the empirical KL. One column a schedule: the β_a
    family by increasing a, then the others. Terms are means over runs.

    Parameters
    ----------
    grid : Dataset
    target : str
        A label of the axis `target`.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn; `x` is the column, `schedule` its label.

    Raises
    ------
    ValueError
        If the grid has no such target.
    """
    cells, panels = _panels(grid, target)
    frame = _frame(target, (rows for panel in panels for rows in _decomposition_rows(panel)))
    with _house_style():
        figure = _figure(8.6, 3.5 * max(1, len(panels)) + 1.3, _target_title(cells))
        axes = figure.subplots(
            max(1, len(panels)), 2, squeeze=False, gridspec_kw={"width_ratios": [0.85, 1]}
        )
        for panel in panels:
            here = frame[frame["panel"] == panel.number]
            left, right = axes[panel.number]
            _draw_stack(left, here[here["axis"] == "stack"], cells)
            _draw_lines(right, here[here["axis"] == "lines"], cells)
            left.set_title(_panel_title(panel, grid, "kl_plugin"), loc="left")
        if not panels:
            axes[0, 0].text(0.5, 0.5, "no run of this target in the grid", ha="center")
        _legend(figure, [ax for pair in axes for ax in pair[::-1]])
    return figure, frame


def _draw_stack(ax: Axes, rows: pd.DataFrame, cells: xr.Dataset) -> None:
    for curve, (_, color) in STACK.items():
        part = rows[rows["curve"] == curve]
        if len(part):
            ax.bar(
                part["x"],
                part["high"] - part["low"],
                bottom=part["low"],
                width=0.86,
                color=color,
                linewidth=0,
                label=f"{curve}, stacked",
            )
    refined = rows[rows["curve"] == "refined bound"]
    if len(refined):
        _draw_by_group(ax, refined, LINES["refined bound"], cells)
    if rows.empty:
        ax.set_axis_off()
        ax.text(
            0.5, 0.5, "no bound on these cells", ha="center", va="center", transform=ax.transAxes
        )
    else:
        ax.set_ylabel(_with_units("upper bound, stacked", cells["kl_bound"]))
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    _set_schedule_axis(ax, rows, cells)


def _draw_by_group(ax: Axes, rows: pd.DataFrame, style: _Style, cells: xr.Dataset) -> None:
    """The β_a family as a curve, each other schedule as a point of its own."""
    family, _ = _in_order(cells)
    inside = rows["schedule"].isin(family)
    for part in (rows[inside], *(rows[rows.index == at] for at in rows.index[~inside])):
        if part["y"].notna().any():
            _draw_curve(ax, part, style)


def _draw_lines(ax: Axes, rows: pd.DataFrame, cells: xr.Dataset) -> None:
    lowest = np.inf
    for curve, style in LINES.items():
        part = rows[rows["curve"] == curve]
        positive = part.loc[part["y"] > 0, "y"]
        if positive.empty:  # nothing that a logarithm can show: E2 of an exact score
            continue
        if part["x"].isna().all():
            _draw_level(ax, part.iloc[0], style)
        else:
            _draw_by_group(ax, part, style, cells)
        if curve != "E1 mixing":  # it decays to e^{-B(T)}: let it leave the axis
            lowest = min(lowest, float(positive.min()))
    ax.set_yscale("log", nonpositive="clip")
    if np.isfinite(lowest):
        ax.set_ylim(bottom=lowest / 3)
    ax.set_ylabel(_with_units("errors and bounds", cells["kl_bound"]) + " (log scale)")
    ax.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    ax.set_axisbelow(True)
    _set_schedule_axis(ax, rows, cells)


def _set_schedule_axis(ax: Axes, rows: pd.DataFrame, cells: xr.Dataset) -> None:
    """Tick labels: a for the β_a family, thinned to at most eleven; names for the others."""
    columns = rows.dropna(subset="x").drop_duplicates("x").sort_values("x")
    family, _ = _in_order(cells)
    a = dict(zip(map(str, cells["schedule"].values), cells["a"].values, strict=True))
    inside = columns[columns["schedule"].isin(family)]
    outside = columns[~columns["schedule"].isin(family)]
    step = -(-len(inside) // 11)
    ticks = [*inside["x"].iloc[::step], *outside["x"]] if step else list(outside["x"])
    labels = [
        f"{a[name]:g}".replace("-", "−")
        for name in (inside["schedule"].iloc[::step] if step else [])
    ]
    ax.set_xticks(ticks, labels=[*labels, *outside["schedule"]])
    for label in ax.get_xticklabels()[len(labels) :]:
        label.set_rotation(45)
        label.set_horizontalalignment("right")
        label.set_rotation_mode("anchor")
    ax.set_xlabel(r"$a$ of $\beta_a$" + (", and other schedules" if len(outside) else ""))


# --- the schedules -----------------------------------------------------------------

SCHEDULE_PANELS = {
    "schedule_beta": r"noise rate $\beta(t)$",
    "schedule_mean_scale": r"mean scale $m_t$",
    "schedule_std": r"standard deviation $\sigma_t$",
}
DASHES = ((0, (4, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)))


def schedules_figure(grid: xr.Dataset) -> tuple[Figure, pd.DataFrame]:
    """β(t), m_t and σ_t of every schedule against t; one row of panels a horizon.

    The colour of a β_a schedule is its a, on a map that diverges from grey at a = 0;
    the other schedules are black and dashed.

    Parameters
    ----------
    grid : Dataset

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn; `x` is t = time_fraction · T, `curve` the schedule.
    """
    family, others = _in_order(grid)
    a = dict(zip(map(str, grid["schedule"].values), grid["a"].values, strict=True))
    horizons = [float(T) for T in grid["horizon"].values]
    rows = []
    for row, T in enumerate(horizons):
        for column, variable in enumerate(SCHEDULE_PANELS):
            for name in family + others:
                values = grid[variable].sel(horizon=T, schedule=name)
                table = {
                    "panel": row * len(SCHEDULE_PANELS) + column,
                    "horizon": T,
                    "axis": variable,
                    "curve": name,
                    "a": a[name],
                    "x": grid["time_fraction"].values * T,
                    "y": values.values,
                    "low": np.nan,
                    "high": np.nan,
                    "n_runs": pd.NA,
                }
                rows.append(pd.DataFrame(table))
    frame = pd.concat(rows, ignore_index=True)
    frame["n_runs"] = frame["n_runs"].astype("Int64")

    spread = max((abs(a[name]) for name in family), default=1.0) or 1.0
    norm = Normalize(-spread, spread)
    colors = LinearSegmentedColormap.from_list("a", [BLUE, SKY, "#8A8A8A", "#E8A23D", VERMILLION])
    with _house_style():
        figure = _figure(8.6, 2.5 * len(horizons) + 0.8, "noise schedules")
        axes = figure.subplots(len(horizons), len(SCHEDULE_PANELS), squeeze=False)
        for panel, ax in enumerate(axes.ravel()):
            for curve, points in frame[frame["panel"] == panel].groupby("curve", sort=False):
                name = str(curve)
                inside = name in family
                ax.plot(
                    points["x"],
                    points["y"],
                    color=colors(norm(a[name])) if inside else "black",
                    linestyle="-" if inside else DASHES[others.index(name) % len(DASHES)],
                    linewidth=1.0 if inside else 1.5,
                    label=None if inside else name,
                    zorder=2 if inside else 3,
                )
        for row, T in enumerate(horizons):
            for ax, label in zip(axes[row], SCHEDULE_PANELS.values(), strict=True):
                ax.set_title(label, loc="left", fontsize=8.5)
                ax.set_xlabel(f"time $t$, horizon $T$ = {T:g}")
                ax.set_xlim(0, T)
                ax.set_ylim(bottom=0)
                ax.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
        if family:
            bar = figure.colorbar(
                ScalarMappable(norm, colors),
                ax=axes,
                label=r"$a$ of $\beta_a$",
                aspect=30,
                pad=0.02,
            )
            bar.outline.set_visible(False)
        _legend(figure, axes.ravel())
    return figure, frame


# --- the table of figures ----------------------------------------------------------


def save(figure: Figure, frame: pd.DataFrame, stem: str | Path) -> list[Path]:
    """Write `stem`.png, `stem`.pdf and `stem`.csv; the CSV holds the numbers drawn.

    Parameters
    ----------
    figure, frame
        As a view returns them.
    stem : path
        Path without a suffix; its folder is made.

    Returns
    -------
    list of Path
        The three files.
    """
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_name(stem.name + suffix) for suffix in (".png", ".pdf", ".csv")]
    with _house_style():
        figure.savefig(paths[0], metadata={"Software": None})
        figure.savefig(paths[1], metadata={"CreationDate": None, "ModDate": None})
    frame.to_csv(paths[2], index=False)
    return paths


@dataclass(frozen=True)
class View:
    """A figure that the workflow can ask for by name.

    Parameters
    ----------
    draw : callable
        (grid, target) → (figure, frame), or (grid) → (figure, frame).
    per_target : bool
        Whether there is one such figure a target.
    """

    draw: Callable[..., tuple[Figure, pd.DataFrame]]
    per_target: bool


FIGURES = {
    "kl": View(kl_figure, per_target=True),
    "decomposition": View(decomposition_figure, per_target=True),
    "schedules": View(schedules_figure, per_target=False),
}
