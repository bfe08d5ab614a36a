"""Combinations of schedule, time grid and sampler at equal numbers of evaluations: a heat map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from sgm.leaderboard import COMBINATION, SPENT, contests, standings
from sgm.plots.cells import NoNumbersError
from sgm.plots.engine import Band, C, Page, Track, draw_page, wrap
from sgm.reading import divergence_named

ROWS = 24  # the first of the standing that are shown; then the best with every other label
SCORES = 3  # panels at most
WORST = 1000.0  # regret at the dark end of the colours
GAP = 0.3  # between the columns of two targets, in columns
ALL = "all"

KEYS = list(COMBINATION)


def leaderboard_figure(grid: xr.Dataset, divergence: str) -> tuple[Figure, pd.DataFrame]:
    """Regret of the combinations of a study by target and number of evaluations; the best first.

    A panel a score; a row a combination, by the geometric mean of regret; a column a target and
    budget. Of many combinations the first `ROWS`, and the best with each schedule, horizon, time
    grid and sampler that is not among them.

    Parameters
    ----------
    grid : Dataset
    divergence : str
        Its figure's name.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn: `value`, regret, at column `x` and row `y`, with the combination and its
        `place`; curve ``contest``, with `error` and `rank` and its interval, and ``all``, the
        geometric mean.

    Raises
    ------
    ValueError
        If the grid has no such divergence, or no number of it (`NoNumbersError`).
    """
    named = divergence_named(grid, divergence)
    if not named.ranks:
        raise ValueError(f"divergence = {divergence!r}: must be one for which less is better")
    grid = grid.drop_dims(["time_fraction", "bin", "rows"], errors="ignore").load()
    found = contests(grid, named)
    standing = standings(found)
    if standing.empty:
        raise NoNumbersError(f"divergence = {divergence!r}: the grid has no value of it")
    scores = standing["score"].unique().tolist()
    varying = [dim for dim in COMBINATION if grid.sizes[dim] > 1]
    tables, titles = [], {}
    for panel, score in enumerate(scores[:SCORES]):
        own = standing[standing["score"] == score]
        own = own[own["nfe"].isna()] if own["nfe"].isna().any() else own
        there = found[(found["score"] == score) & found["rank"].notna()]
        rows = _shown(own)
        tables.append(_table(rows, there).assign(panel=panel, score=score))
        kinds = " and ".join(there["values"].unique())
        several = f"{len(rows)} of " if len(rows) < len(own) else ""
        rest = f": the first {ROWS}, then the best with each other label" if several else ""
        titles[panel] = f"score {score}, {kinds} errors: {several}{len(own)} combinations{rest}"
    frame = pd.concat(tables, ignore_index=True).assign(axis="leaderboard")
    heights = frame.groupby("panel")["y"].max() + 1
    columns = frame["x"].max() + 1
    names = frame[KEYS].drop_duplicates()
    longest = max(len(_name(row, varying)) for _, row in names.iterrows())

    def paint(ax: Axes, rows: pd.DataFrame) -> None:
        _draw(ax, rows, varying)

    left_out = f"{SCORES} of {len(scores)} scores shown" if len(scores) > SCORES else ""
    page = Page(
        f"{named.label}: schedules, time grids and samplers at equal numbers of evaluations",
        [
            Band([panel], [Track("leaderboard", height=0.165 * rows + 0.75, paint=paint)])  # type: ignore[list-item]
            for panel, rows in heights.items()
        ],
        notes=[
            f"columns: target and NFE, of which a combination spends {SPENT:g} to 1; colour and "
            "number: error divided by the least of the column, bold if the runs can't tell it from "
            "that; all: geometric mean, which sorts the rows; after each name: its place",
            left_out,
        ],
        titles=titles, width=max(7.4, 0.066 * longest + 0.46 * columns + 1.3), loose=True,
    )  # fmt: skip
    return draw_page(frame, page), frame


def _shown(standing: pd.DataFrame) -> pd.DataFrame:
    """The first rows, and the first with each label that is not among them."""
    first = np.arange(len(standing)) < ROWS
    if len(standing) > ROWS:
        for dim in COMBINATION:
            known = set(standing[dim][first])
            first |= (~standing[dim].isin(known) & ~standing[dim].duplicated()).to_numpy()
    return standing[first].reset_index(drop=True)


def _table(rows: pd.DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    """The numbers drawn of one score: the mean of all contests, then one column a contest."""
    rows = rows.assign(y=np.arange(len(rows)))
    means = rows[[*KEYS, "place", "y"]].assign(
        curve=ALL, target=ALL, x=0.0, value=rows["geometric_mean_regret"]
    )
    budgets = sorted(found["nfe"].unique().tolist())
    targets = found["target"].unique().tolist()
    places = {
        (target, nfe): 1 + (i + 1) * GAP + i * len(budgets) + k
        for i, target in enumerate(targets)
        for k, nfe in enumerate(budgets)
    }
    told = ["target", "nfe", "n_steps", "evaluations", "error", "rank", "rank_low", "rank_high"]
    cells = found[[*KEYS, *told, "regret"]].rename(columns={"regret": "value"})
    cells = rows[[*KEYS, "place", "y"]].merge(cells, on=KEYS).assign(curve="contest")
    cells["x"] = [places[key] for key in zip(cells["target"], cells["nfe"], strict=True)]
    return pd.concat([means, cells], ignore_index=True)


def _name(row: pd.Series, varying: Sequence[str]) -> str:
    """A combination in words: what varies in the grid."""
    words = [f"T = {row[d]:g}" if d == "horizon" else str(row[d]) for d in varying]
    return "  ·  ".join(words) or str(row["schedule"])


def _draw(ax: Axes, rows: pd.DataFrame, varying: Sequence[str]) -> None:
    n = int(rows["y"].max()) + 1
    norm = LogNorm(1.0, float(np.clip(np.fmax(rows["value"].max(), 1.1), 1.1, WORST)))
    for target, own in rows.groupby("target", sort=False):
        columns = np.sort(own["x"].unique())
        table = own.pivot(index="y", columns="x", values="value").reindex(range(n))
        ends = np.append(columns - 0.5, columns[-1] + 0.5)
        ax.axvspan(ends[0], ends[-1], color="#E4E4E4", zorder=0, linewidth=0)  # where none is
        ax.pcolormesh(
            ends, np.arange(n + 1) - 0.5, np.ma.masked_invalid(table.to_numpy(float)),
            norm=norm, cmap="viridis_r", rasterized=True, edgecolors="white", linewidth=0.3,
        )  # fmt: skip
        ax.annotate(
            wrap(str(target), 6 * len(columns) + 4), (columns.mean(), 0), (0, -15),
            xycoords=("data", "axes fraction"), textcoords="offset points", ha="center",
            va="top", fontsize=7, annotation_clip=False,
        )  # fmt: skip
    weights = np.where(rows["rank_low"].eq(1).fillna(False), "bold", "normal")
    for x, y, value, weight in zip(rows["x"], rows["y"], rows["value"], weights, strict=True):
        if np.isfinite(value):
            dark = float(norm(value)) > 0.45
            ax.text(
                x, y, _number(value), ha="center", va="center", fontsize=6, fontweight=weight,
                color="white" if dark else C.INK,
            )  # fmt: skip
    means = rows[rows["curve"] == ALL]
    ax.set_ylim(n - 0.5, -0.5)
    ax.set_xlim(-0.5, rows["x"].max() + 0.5)
    labels = [
        f"{_name(row, varying)}   {'–' if pd.isna(row['place']) else row['place']}"
        for _, row in means.iterrows()
    ]
    ax.set_yticks(means["y"].to_numpy(), labels=labels, fontsize=6.5)
    cells = rows[rows["curve"] != ALL].drop_duplicates("x").sort_values("x")
    ax.set_xticks(cells["x"].to_numpy(), labels=[f"{nfe:g}" for nfe in cells["nfe"]], fontsize=7)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def _number(value: float) -> str:
    """Three digits, or a power of ten."""
    if value >= 999.5:
        return f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"
