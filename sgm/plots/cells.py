"""The cells of a target that a figure draws, and how they become a frame in long form."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from sgm.plots.engine import set_labels, set_numbers
from sgm.reading import (
    NFE,
    Bound,
    Divergence,
    NumericAxis,
    along,
    default_x,
    divergences_of,
    finite,
    level,
    numbers_of,
    over_runs,
    x_axis,
)
from sgm.reading import objection as objection_of
from sgm.store import DONE, FAILED, NOT_APPLICABLE, NOT_RUN

#: Between the name of a curve and why its points are not a bound.
NOT_VALID = " NOT VALID: "
PANEL_AXES = ("horizon", "score", "sampler", "time_grid", "n_steps")
LABELS = ("schedule", *PANEL_AXES)
COLUMNS = ("axis", "curve", "series", "x", "y", "low", "high", "n_runs", "n_failed")
NETWORKS = ("trained", "module_file")  # families of scores whose error is estimated from draws
OWN_AXES = ("time_fraction", "bin", "rows")  # of some variables alone
SERIES = 4  # schedules drawn as curves, at most
LEVELS = 4  # labels without the number on x drawn as levels, at most: more are columns

T = TypeVar("T")


class NoNumbersError(ValueError):
    """The grid has no number of what a figure draws."""


def target_cells(grid: xr.Dataset, target: str) -> xr.Dataset:
    """The grid at one target, not yet loaded; ValueError if it has no such target."""
    if target not in grid.indexes["target"]:
        known = ", ".join(map(str, grid["target"].values))
        raise ValueError(f"target = {target!r}: the grid has {known}")
    return grid.sel(target=target)


def target_title(cells: xr.Dataset) -> str:
    """Name and dimension of a target."""
    return f"{cells['target'].item()}, dimension {int(cells['dimension'])}"


def evenly(labels: Sequence[T], room: int) -> tuple[list[T], int]:
    """At most `room` of some labels, evenly spread with both ends; and how many are left out."""
    n = len(labels)
    places = np.linspace(0, n - 1, min(n, room)) if room > 1 else np.zeros(min(n, 1))
    return [labels[int(i)] for i in np.round(places)], max(0, n - room)


def count_text(value: float) -> str:
    """A count, its thousands apart."""
    return f"{value:,.0f}".replace(",", " ")


def make_frame(tables: Iterable[pd.DataFrame], target: str, columns: Sequence[str]) -> pd.DataFrame:
    """The frame of a figure; a curve without any number is left out unless a run of it failed."""
    kept = [table for table in tables if len(table)]
    frame = pd.concat(kept, ignore_index=True) if kept else pd.DataFrame(columns=list(columns))
    series = frame["series"].fillna("") if "series" in frame else ""
    frame = frame.reindex(columns=list(columns)).assign(series=series)
    for name in ("n_runs", "n_failed"):
        frame[name] = frame[name].astype("Int64")
    frame.insert(0, "target", target)
    return frame


@dataclass(frozen=True, eq=False)
class View:
    """The cells of one target that a figure draws, in panels.

    Parameters
    ----------
    cells : Dataset
        The grid at the target, loaded.
    axis : NumericAxis or None
        What is on the x-axis; None for columns of labels.
    dimension : str
        Whose labels stand along x.
    places : dict
        x of a label of `dimension`; NaN for a level across the panel.
    names : dict
        Series that a label of `dimension` belongs to.
    panels : DataFrame
        A row a panel: its number `panel` and its labels.
    schedules, scores : list of str
        Those drawn.
    exact : str
        The exact score, beside others; empty without.
    """

    cells: xr.Dataset
    axis: NumericAxis | None
    dimension: str
    places: dict[Any, float]
    names: dict[Any, str]
    panels: pd.DataFrame
    schedules: list[str]
    scores: list[str]
    exact: str
    note: str
    in_columns: bool

    @classmethod
    def of(
        cls,
        grid: xr.Dataset,
        target: str,
        x: str | None = None,
        *,
        stacked: bool = False,
        settings: bool = False,
    ) -> View:
        """The trained scores, else the perturbed, else the exact; panels without a number left out.

        Parameters
        ----------
        grid : Dataset
        target : str
        x : str
            A numeric axis of the grid; by default the first that varies in what is drawn. Without
            any, labels are columns.
        stacked : bool
            Columns in any case, and a panel a schedule unless schedules stand along x.
        settings : bool
            Schedules as columns, whatever varies.
        """
        cells = target_cells(grid, target).drop_dims(OWN_AXES, errors="ignore").load()
        told = x_axis(cells, x) if x is not None else None
        there = cells["status"].isin([DONE, FAILED])
        for divergence in divergences_of(cells):
            if divergence.exact:
                there = there | np.isfinite(cells[divergence.exact])
        families = cells["score_family"].to_series().astype(str)
        if told is not None and told.dimension == "score":
            numbered = np.isfinite(cells[told.name].to_series())
            groups = [list(families.index[numbered])]
        else:
            trained = list(families.index[families.isin(NETWORKS)])
            exact_ones = list(families.index[families == "exact"])
            perturbed = [s for s in families.index if s not in (*trained, *exact_ones)]
            groups = [trained, perturbed, exact_ones]
        scores = next((g for g in groups if g and bool(there.sel(score=g).any())), [])
        exact = next((str(s) for s, f in families.items() if f == "exact"), "")
        shown = cells.sel(score=scores)
        axis = None if settings else told or default_x(shown)
        several = [] if settings else [d for d in LABELS if shown.sizes[d] > 1]
        dimension = axis.dimension if axis else next(iter(several), "schedule")
        ordered = along(shown, axis) if axis else None
        labels = shown[dimension].values.tolist()
        names = {label: str(label) for label in labels}
        if ordered is not None:
            assert axis is not None
            labels = [label for own in ordered.curves.values() for label in own] + ordered.others
            many = len(ordered.curves) > 1
            names = {k: c if many else "" for c, own in ordered.curves.items() for k in own}
            names |= {label: str(label) for label in ordered.others}  # no line joins them
            at = dict(
                zip(cells[dimension].values.tolist(), numbers_of(cells, axis).values, strict=True)
            )
        gap = len(ordered.others) if ordered is not None else 0
        columns = {k: i + 0.5 * (i >= len(labels) - gap > 0) for i, k in enumerate(labels)}
        numbers = {k: float(at[k]) for k in labels} if axis else columns
        in_columns = stacked or gap > LEVELS
        places = columns if in_columns else numbers
        schedules, note = [str(s) for s in shown["schedule"].values], ""
        if dimension == "schedule":
            schedules = labels
        elif not stacked:
            held = there.sel(score=scores).any([d for d in there.dims if d != "schedule"])
            schedules, left = evenly([s for s in schedules if bool(held.sel(schedule=s))], SERIES)
            note = f"{len(schedules)} of {len(schedules) + left} schedules shown" if left else ""
        dims = ["schedule"] * (stacked and dimension != "schedule")
        dims += [d for d in PANEL_AXES if d != dimension]
        tried = there.sel(score=scores).any([d for d in there.dims if d not in dims])
        table = tried.transpose(*dims).reset_coords(drop=True).to_series()
        panels = table[table].index.to_frame(index=False)
        panels.insert(0, "panel", range(len(panels)))
        return cls(
            cells, axis, dimension, places, names, panels, schedules, scores,
            exact if exact not in scores else "", note, axis is None or in_columns,
        )  # fmt: skip

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the frame."""
        own = () if self.axis is None or self.axis.name in (*LABELS, "x") else (self.axis.name,)
        return ("panel", *LABELS, *own, *COLUMNS)

    @property
    def several(self) -> bool:
        """Whether schedules are curves beside each other."""
        return (
            self.dimension != "schedule"
            and "schedule" not in self.panels
            and (len(self.schedules) > 1)
        )

    def table(self, name: str, *, score: str = "", spread: str = "sd") -> pd.DataFrame:
        """A row a cell of the panels: a variable, over its runs.

        Parameters
        ----------
        name : str
            A variable; all is NaN where the grid has none.
        score : str
            Of this score in place of the panel's.
        spread : str
            `low` and `high`: ``sd`` ± 1 about the mean, ``range`` of the runs, or ``none``.

        Returns
        -------
        DataFrame
            By panel and place: `panel`, the labels, `series`, `x`, `y`, `low`, `high`, `n_runs`,
            `n_failed`.
        """
        values = finite(self.cells, name)
        failed = (self.cells["status"] == FAILED).sum("seed")
        if score:
            values = values.sel(score=score) if "score" in values.dims else values
            failed = failed.sel(score=score)
        else:
            chosen = {"score": self.scores}
            values = values.sel(chosen) if "score" in values.dims else values
            failed = failed.sel(chosen)
        failed = failed.sel(schedule=self.schedules)
        if "schedule" in values.dims:
            values = values.sel(schedule=self.schedules)
        runs = over_runs(values)
        # variables, not arrays with labels: those are the grid's, and to align them takes longer
        mean, sd, count = runs.mean.variable, runs.sd.variable, runs.count.variable
        low, high = mean - sd, mean + sd
        if spread == "range":
            many = runs.count > 1
            low, high = (x.where(many).variable for x in (runs.lowest, runs.highest))
        elif spread == "none":
            low = high = mean * np.nan
        parts = {"y": mean, "low": low, "high": high, "n_runs": count, "n_failed": failed.variable}
        places = {str(dim): failed.coords[dim].variable for dim in failed.dims}
        frame = xr.Dataset(parts, places).to_dataframe().reset_index()
        shared = [c for c in self.panels if c in frame and not (score and c == "score")]
        frame = frame.drop(columns="score") if score and "score" in frame else frame
        frame = (
            frame.merge(self.panels, on=shared) if shared else frame.merge(self.panels, how="cross")
        )
        if self.dimension in frame:
            frame["x"] = frame[self.dimension].map(self.places)
            frame["series"] = frame[self.dimension].map(self.names)
            order = {label: i for i, label in enumerate(self.places)}
            frame["rank"] = frame[self.dimension].map(order)
        else:  # the exact score beside scores along x: a level
            frame["x"], frame["series"], frame["rank"] = np.nan, "", 0
        if self.axis == NFE:
            frame["nfe"] = self.cells["nfe"].to_series().reindex(
                pd.MultiIndex.from_frame(frame[list(self.cells["nfe"].dims)])
            ).to_numpy()  # fmt: skip
            frame["x"] = frame["nfe"] if not self.in_columns else frame["x"]
        elif self.axis is not None and self.axis.name not in LABELS:
            at = self.cells.coords[self.axis.name].to_series()
            labels = frame.get(self.dimension, pd.Series(np.nan, index=frame.index))
            frame[self.axis.name] = labels.map(at)
        if self.several:
            both = frame["series"].where(frame["series"] == "", ", " + frame["series"])
            frame["series"] = frame["schedule"].astype(str) + both
        if "score" not in frame:
            frame["score"] = score
        frame["at"] = frame["schedule"].map({s: i for i, s in enumerate(self.schedules)})
        return frame.sort_values(["panel", "at", "rank"], kind="stable", ignore_index=True).drop(
            columns=["rank", "at"]
        )

    def level(self, axis: str, curve: str, mean: str, sd: str) -> pd.DataFrame:
        """A number of the target, such as a floor, as a level in every panel."""
        y, spread = level(self.cells, mean, sd)
        rows = self.panels if np.isfinite(y) else self.panels.iloc[:0]
        return rows.assign(axis=axis, curve=curve, y=y, low=y - spread, high=y + spread)

    def objection(self, table: pd.DataFrame, bound: Bound, total: str = "") -> pd.Series[str]:
        """Why the bound's theorem does not apply to a row; empty where it does."""
        reasons = objection_of(self.cells, bound, total)
        if not reasons.dims:
            return pd.Series(str(reasons.item()), index=table.index)
        frame = reasons.reset_coords(drop=True).to_dataframe("reason").reset_index()
        merged = table[[str(d) for d in reasons.dims]].merge(frame, how="left")
        return pd.Series(merged["reason"].to_numpy(), index=table.index)

    def set_x(self, ax: Axes, rows: pd.DataFrame, last: bool) -> None:
        """The x-axis of a panel: numbers, or columns with the numbers or the labels' names."""
        if self.axis is not None and not self.in_columns:
            places = rows["x"] if self.axis == NFE else self.places.values()
            set_numbers(ax, [x for x in places if np.isfinite(x)], self.axis.label if last else "")
            if self.axis == NFE:  # panels are compared at equal numbers
                low, high = np.min(self.cells["nfe"]), np.max(self.cells["nfe"])
                ax.set_xlim(0.9 * low, 1.1 * high)
            return
        what = self.dimension.replace("_", " ")
        label, names = what, {x: str(k) for k, x in self.places.items()}
        if self.axis is not None:
            shown = self.cells.sel({self.dimension: list(self.places)})
            at = numbers_of(shown, self.axis).values
            names = {
                x: f"{number:g}" if np.isfinite(number) else str(k)
                for (k, x), number in zip(self.places.items(), at, strict=True)
            }
            others = f", and other {what}s" if np.isnan(at).any() else ""
            label = (what if self.axis == NFE else self.axis.label) + others
        set_labels(ax, rows, names, label if last else "")


# --- what the titles say -----------------------------------------------------------------


def split_notes(
    view: View, notes: Sequence[tuple[str, dict[int, str]]]
) -> tuple[list[str], dict[int, str]]:
    """What all panels share, for the page's head; and what differs, for the panels' titles.

    Parameters
    ----------
    notes : sequence of (separator, text by panel)
    """
    shared, own = [], dict.fromkeys(view.panels["panel"], "")
    for separator, texts in notes:
        if len(set(texts.values())) == 1:
            shared.append((separator, next(iter(texts.values()))))
            continue
        for panel, text in texts.items():
            own[panel] += (separator if own[panel] else "") + text
    head = ""
    for separator, text in shared:
        head += (separator if head and text else "") + text
    return head.splitlines(), own


def panel_notes(
    view: View, divergence: Divergence | None, *bounds: Bound | None
) -> tuple[list[str], dict[int, str]]:
    """What each panel shows: its labels, its samples and runs, whether the bounds apply."""
    texts: dict[str, dict[int, str]] = {}
    recipes = view.cells["recipe"].to_series().astype(str)
    words = {
        "schedule": "{}", "horizon": "T = {:g}", "n_steps": "N = {} steps",
        "time_grid": "{} time grid", "sampler": "sampler {}", "score": "score {}",
    }  # fmt: skip
    for name, word in words.items():
        if name not in view.panels:
            continue
        labels = dict(zip(view.panels["panel"], view.panels[name], strict=True))
        texts[name] = {panel: word.format(label) for panel, label in labels.items()}
        if name == "score":
            texts["recipe"] = {
                p: f"recipe {recipes[s]}" * bool(recipes[s]) for p, s in labels.items()
            }
    notes: list[tuple[str, dict[int, str]]] = [(", ", own) for own in texts.values()]
    if divergence is not None:
        n = view.cells.attrs.get("n_samples")
        sampled = bool(finite(view.cells, divergence.name).sel(score=view.scores).notnull().any())
        if n and sampled and not divergence.closed:
            text = f"{count_text(float(n))} samples a run"
            notes.append(("; ", dict.fromkeys(view.panels["panel"], text)))
        notes.append(("; ", runs_notes(view, divergence)))
    for bound in filter(None, bounds):
        name = f"{bound.label}: " if len(bounds) > 1 else ""
        notes.append(("\n", {p: name + text for p, text in bound_notes(view, bound).items()}))
    return split_notes(view, notes)


def runs_notes(view: View, divergence: Divergence) -> dict[int, str]:
    """How many runs each panel shows, and what became of the others."""
    names = ["status", *{n for n in (divergence.name, divergence.exact) if n}]
    cells = view.cells[names]
    found = {}
    for _, panel in view.panels.iterrows():
        labels = {n: panel[n] for n in panel.index if n != "panel"}
        here = cells.sel(labels)
        if "schedule" not in labels:
            here = here.sel(schedule=view.schedules)
        if "score" not in labels and view.dimension == "score":  # the exact one is beside them
            here = here.sel(score=view.scores)
        found[panel["panel"]] = _runs_note(here, divergence)
    return found


def _runs_note(here: xr.Dataset, divergence: Divergence) -> str:
    status = here["status"].transpose("seed", ...)
    values = finite(here, divergence.name)
    runs_of = values.transpose("seed", ...).values if "seed" in values.dims else values.values[None]
    state = status.values.reshape(len(status), -1)
    shown = np.isfinite(runs_of).reshape(len(runs_of), -1)
    tried = state != NOT_APPLICABLE
    wanted = int(tried.sum(0).max(initial=0))
    exact = bool(np.isfinite(finite(here, divergence.exact)).any()) if divergence.exact else False
    done = state == DONE
    if wanted == 0 or (done.all() and not shown.any() and exact):
        return "closed form, no runs"
    counts = shown.sum(0)[tried.any(0)]
    low, high = int(counts.min()), int(counts.max())
    runs = "run" if wanted == 1 else "runs"
    if low == wanted:
        return f"{wanted} {runs}"
    lost = {
        "failed": int((state == FAILED).sum()),
        "not run": int((state == NOT_RUN).sum()),
        "not finite": int((done & ~shown).sum()),
    }
    reasons = [(n, why) for why, n in lost.items() if n]
    if low == high and len(reasons) == 1:  # the same at every place
        n, why = reasons[0]
        return f"{low} of {wanted} {runs}, {n // counts.size} {why}"
    span = f"{low} of" if low == high else f"{low} to {high} of"
    listed = ", ".join(f"{n} {why}" for n, why in reasons)
    return f"{span} {wanted} {runs} a point ({listed} of {int(tried.sum())})"


def bound_notes(view: View, bound: Bound) -> dict[int, str]:
    """Whether the bound's theorem applies to each panel, and if not, why."""
    table = view.table(bound.name, spread="none")
    table["reason"] = view.objection(table, bound)
    found = {}
    for panel, rows in table.groupby("panel"):
        failing = list(dict.fromkeys(filter(None, rows["reason"])))
        if rows["y"].isna().all():
            lost = int(rows["n_failed"].sum())
            why = failing or ([f"{lost} runs failed"] if lost else [])
            found[panel] = "no bound" + "".join(f": {reason}" for reason in why[:1])
        elif not failing:
            found[panel] = "the bound's theorem applies"
        else:
            n = int((rows["reason"] != "").sum())
            where = "" if n == len(rows) else f" at {n} of {len(rows)} places"
            text = f"the bound's theorem does NOT apply{where}: {'; '.join(failing)}"
            found[panel] = text
    return {p: found.get(p, "no bound") for p in view.panels["panel"]}


def lowest_rows(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The lowest row of each panel, among those with a place on x and among all.

    A mean over the runs that survived would reward a place for the runs it lost: only those of the
    most runs count. None where there are not two different values.
    """
    found = []
    for among in (table[table["x"].notna()], table):
        among = among.dropna(subset="y")
        panels = among.groupby("panel")
        among = among[among["n_runs"] == panels["n_runs"].transform("max")]
        differ = panels["y"].transform("max") > panels["y"].transform("min")
        among = among[differ.reindex(among.index)]
        found.append(among.loc[among.groupby("panel")["y"].idxmin()])
    return found[0], found[1]
