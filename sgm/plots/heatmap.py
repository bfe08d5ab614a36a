"""Divergences and bounds over (a, T): how far the bound's choice is from the true one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from sgm.plots.cells import evenly, target_cells, target_title
from sgm.plots.engine import C, Look, Page, Track, draw_page, is_geometric, wrap, wrapped
from sgm.plots.over_time import at_solver, shown_cells, solver_text
from sgm.reading import (
    Bound,
    Divergence,
    bounds_of,
    divergences_of,
    finite,
    in_order,
    lowest,
    objections,
    over_runs,
)

Array = npt.NDArray[np.float64]

TITLE = 34  # characters of a line
SCORES, QUANTITIES = 4, 5  # drawn at most
DECADES = 1e-8  # of the largest value: the dark end of a logarithmic colour scale
MARKERS = (("o", 12.0), ("s", 9.0), ("D", 6.0), ("^", 5.0), ("v", 4.0))  # one inside the other


@dataclass(frozen=True)
class Quantity:
    """What a column of panels shows: a divergence or the total of a bound."""

    name: str
    label: str
    units: str
    source: Divergence | Bound


@dataclass(frozen=True)
class Surface:
    """A quantity of one score over (a, T), shape (n_a, n_T), and where it is from."""

    values: Array
    counts: Array  # runs averaged, shape of the values
    runs: int  # most of them; 0 for an exact value
    solver: dict[str, Any]

    @property
    def lowest(self) -> tuple[int, int] | None:
        """Indices of a and T of the lowest value, of those that lost the fewest runs."""
        at = lowest(self.values, self.counts)
        if at is None:
            return None
        i, k = np.unravel_index(at, self.values.shape)
        return int(i), int(k)


def _quantities(cells: xr.Dataset) -> list[Quantity]:
    """Each bound after the divergences it is of, its own first; then the other divergences."""
    bounds = {bound.name: bound for bound in bounds_of(cells)}
    ranked = [d for d in divergences_of(cells) if d.ranks]

    def place(divergence: Divergence) -> tuple[bool, bool, str]:
        bound = bounds.get(divergence.bound)
        return (
            bound is None,
            bound is not None and bound.figure != divergence.figure,
            divergence.name,
        )

    found = [Quantity(d.name, d.label, d.units, d) for d in sorted(ranked, key=place)]
    for bound in bounds.values():
        of = [k for k, q in enumerate(found) if getattr(q.source, "bound", "") == bound.name]
        at = of[0] + 1 if of else len(found)
        found.insert(at, Quantity(bound.name, bound.label, bound.units, bound))
    return found


def _surface(cells: xr.Dataset, quantity: Quantity, score: str) -> Surface:
    """The exact values of a score where there are any, else the means over its runs."""
    names = [quantity.name]
    if isinstance(quantity.source, Divergence) and quantity.source.exact:
        names.insert(0, quantity.source.exact)
    for name in names:
        values, solver = at_solver(finite(cells, name).sel(score=score))
        if values.notnull().any():
            break
    runs = over_runs(values)
    count = int(runs.count.max()) if "seed" in values.dims and name == quantity.name else 0
    shape = {"schedule": cells["schedule"], "horizon": cells["horizon"]}
    mean, counts = (
        part.broadcast_like(xr.Dataset(coords=shape)).transpose(*shape).values
        for part in (runs.mean, runs.count)
    )
    return Surface(mean, counts, count, solver)


def map_figure(grid: xr.Dataset, target: str) -> tuple[Figure, pd.DataFrame]:
    """Heat maps over (a, T) of the β_a family: divergences, and the bounds on them.

    A row a score, a column a quantity: of a divergence the exact values, else the means over
    runs; of a bound its total. A symbol marks where each quantity of the row is lowest, filled
    in its own panel. The title of a bound's panel gives the regret: the divergence where the
    bound is lowest, over the lowest divergence; and why it is no theorem where it is none.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn: `x` is a, `y` is T, `value` the quantity named by `axis`; curve
        `minimum`, where it is lowest; curve `regret`, where a bound is lowest.

    Raises
    ------
    ValueError
        If the grid has no such target, fewer than two a or two T, or nothing to draw.
    """
    cells = target_cells(grid, target).drop_dims(["time_fraction", "bin", "rows"], errors="ignore")
    family, others = in_order(cells)
    if min(len(family), cells.sizes["horizon"]) < 2:
        raise ValueError(
            f"target = {target!r}: the grid must have two values of a and two of T for a map; "
            f"it has {len(family)} and {cells.sizes['horizon']}"
        )
    cells = cells.sel(schedule=family).sortby("horizon").load()
    quantities = _quantities(cells)
    names = [q.name for q in quantities] + [d.exact for d in divergences_of(cells) if d.exact]
    _, scores, note = shown_cells(cells, names, len(family), SCORES)
    surfaces = {(score, q.name): _surface(cells, q, score) for score in scores for q in quantities}
    drawn = [q for q in quantities if any(surfaces[s, q.name].lowest for s in scores)]
    notes = [f"{QUANTITIES} of {len(drawn)} quantities shown"] if len(drawn) > QUANTITIES else []
    notes += [note] if note else []
    notes += [f"without {', '.join(others)}"] if others else []
    solvers = dict.fromkeys(solver_text(surface.solver) for surface in surfaces.values())
    # a bound knows no sampler: its words end those of a divergence
    notes += [text for text in solvers if not any(o != text and o.endswith(text) for o in solvers)]
    drawn = drawn[:QUANTITIES]
    frame = _frame(cells, target, scores, drawn, surfaces)
    titles = {
        (score, q.name): _title(cells, frame, q, score, surfaces[score, q.name])
        for score in scores
        for q in drawn
    }
    notes = [*notes, "symbols: where each quantity of the row is lowest, filled in its own panel"]
    pairs = [(score, q) for score in scores for q in drawn]

    def paint(ax: Axes, rows: pd.DataFrame) -> None:
        score, q = pairs[rows["panel"].iloc[0]]
        _draw(ax, frame[frame["score"] == score], q, [other.name for other in drawn], cells)
        ax.set_xlabel(r"$a$ of $\beta_a$")
        if q is drawn[0]:
            ax.set_ylabel(f"score {score}\nT")

    page = Page(
        f"{target_title(cells)}: where divergences and bounds are lowest in a and T",
        wrapped(range(len(pairs)), [Track("map", height=1.6, paint=paint)], len(drawn)),
        notes=notes, titles={i: titles[score, q.name] for i, (score, q) in enumerate(pairs)},
        width=max(6.2, 2.6 * len(drawn) + 0.4), loose=True,
        handles=[
            Look("", C.INK, "none", marker, size=0.7 * size, face="none")
            .handle(f"lowest {q.label}", C.INK)
            for q, (marker, size) in zip(drawn, MARKERS, strict=False)
        ],
    )  # fmt: skip
    return draw_page(frame.assign(axis="map"), page), frame


def _frame(
    cells: xr.Dataset,
    target: str,
    scores: list[str],
    drawn: list[Quantity],
    surfaces: dict[tuple[str, str], Surface],
) -> pd.DataFrame:
    """A row a cell and quantity; then its minimum; then a bound's regret."""
    a, t = cells["a"].values, cells["horizon"].values
    schedules = np.array(list(map(str, cells["schedule"].values)))
    tables: list[pd.DataFrame] = []
    for panel, (score, q) in enumerate((s, q) for s in scores for q in drawn):
        surface = surfaces[score, q.name]
        labels: dict[str, Any] = {"target": target, "panel": panel, "score": score, "axis": q.name}
        n, k = surface.values.shape
        whole = {
            "curve": "value", "schedule": np.repeat(schedules, k), "x": np.repeat(a, k),
            "y": np.tile(t, n), "value": surface.values.ravel(), "n_runs": surface.runs,
        }  # fmt: skip
        tables.append(pd.DataFrame(labels | whole).dropna(subset="value"))
        low = surface.lowest
        if low is None:
            continue
        place = {"schedule": schedules[low[0]], "x": a[low[0]], "y": t[low[1]]}
        marks = [("minimum", surface.values[low], surface.runs)]
        of = [d for d in drawn if isinstance(q.source, Bound) and _is_of(d, q.source)]
        if of:
            truth = surfaces[score, of[0].name]
            if truth.lowest is not None:
                ratio = truth.values[low] / truth.values[truth.lowest]
                marks.append((f"regret in {of[0].label}", ratio, truth.runs))
        tables += [
            pd.DataFrame([labels | {"curve": c} | place | {"value": value, "n_runs": runs}])
            for c, value, runs in marks
        ]
    return pd.concat(tables, ignore_index=True)


def _is_of(quantity: Quantity, bound: Bound) -> bool:
    """Whether a quantity is a divergence of which this is the bound."""
    return isinstance(quantity.source, Divergence) and quantity.source.bound == bound.name


def _title(
    cells: xr.Dataset, frame: pd.DataFrame, quantity: Quantity, score: str, surface: Surface
) -> str:
    """What the panel shows, where it is lowest; of a bound its regret, and why it is none."""
    rows = frame[(frame["score"] == score) & (frame["axis"] == quantity.name)]
    lines = [quantity.label]
    if surface.lowest is None:
        return quantity.label
    kind = f"mean of {surface.runs} runs" if surface.runs else "exact"
    if isinstance(quantity.source, Bound):
        lines += _bound_lines(cells, quantity.source, score, surface)
        kind = "" if surface.runs < 2 else kind
    lines += [kind] if kind else []
    low = rows[rows["curve"] == "minimum"].iloc[0]
    lines.append(f"lowest at a = {low['x']:g}, T = {low['y']:g}".replace("= -", "= −"))
    for _, row in rows[rows["curve"].str.startswith("regret")].iterrows():
        estimated = "" if row["n_runs"] == 0 else ", by means of runs"
        lines.append(f"{row['curve']}: ×\N{NO-BREAK SPACE}{row['value']:.3g}{estimated}")
    return wrap("\n".join(lines), TITLE)


def _bound_lines(cells: xr.Dataset, bound: Bound, score: str, surface: Surface) -> list[str]:
    reasons = {
        reason
        for t in cells["horizon"].values
        for reason in objections(cells.sel(surface.solver | {"score": score, "horizon": t}), bound)
    }
    failing = sorted(filter(None, reasons))
    where = "" if "" not in reasons else " at some (a, T)"
    return [f"NOT a bound{where}: {'; '.join(failing)}"] if failing else []


def edges(centres: npt.ArrayLike, *, geometric: bool = False) -> Array:
    """Ends of the cells about increasing centres: midpoints, in the logarithm if geometric."""
    at = np.asarray(centres, dtype=np.float64)
    at = np.log(at) if geometric else at
    middle = (at[1:] + at[:-1]) / 2
    ends = np.concatenate([[2 * at[0] - middle[0]], middle, [2 * at[-1] - middle[-1]]])
    return np.asarray(np.exp(ends) if geometric else ends)


def _draw(
    ax: Axes, rows: pd.DataFrame, quantity: Quantity, drawn: list[str], cells: xr.Dataset
) -> None:
    """The map, its colours, and the minima of all quantities of the score."""
    own = rows[(rows["axis"] == quantity.name) & (rows["curve"] == "value")]
    if own.empty:
        ax.set_axis_off()
        ax.text(0.5, 0.5, "no numbers", ha="center", va="center", transform=ax.transAxes)
        return
    table = own.pivot(index="y", columns="x", values="value")
    table = table.reindex(index=cells["horizon"].values, columns=cells["a"].values)
    values = own["value"]
    norm = Normalize()
    if values.min() > 0 and values.max() > 10 * values.min():
        norm = LogNorm(max(values.min(), DECADES * values.max()), values.max())
    geometric = is_geometric(cells["horizon"])
    mappable = ax.pcolormesh(
        edges(cells["a"]), edges(cells["horizon"], geometric=geometric), table.to_numpy(),
        norm=norm, cmap="viridis", rasterized=True,
    )  # fmt: skip
    ax.set_facecolor("#DDDDDD")
    if geometric:
        ax.set_yscale("log")
        ticks, _ = evenly(cells["horizon"].values.tolist(), 6)
        ax.set_yticks(ticks, labels=[f"{t:g}" for t in ticks])
        ax.minorticks_off()
    outline = [patheffects.withStroke(linewidth=2.2, foreground=C.INK)]
    for _, row in rows[rows["curve"] == "minimum"].iterrows():
        marker, size = MARKERS[drawn.index(row["axis"])]
        ax.plot(
            row["x"], row["y"], marker, markersize=size, color="white", path_effects=outline,
            fillstyle="full" if row["axis"] == quantity.name else "none", markeredgewidth=1.0,
        )  # fmt: skip
    assert ax.figure is not None
    bar = ax.figure.colorbar(mappable, ax=ax, pad=0.02, use_gridspec=False)
    bar.set_label(quantity.units, fontsize=7)
    bar.ax.tick_params(labelsize=6.5, which="both")
