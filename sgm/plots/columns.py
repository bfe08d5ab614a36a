"""Schedules as columns along x: their places, their points and their tick labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from sgm.plots.style import Style, draw_curve
from sgm.reading import in_order, shapes


def column_positions(family: Sequence[str], others: Sequence[str]) -> npt.NDArray[np.float64]:
    """One column a schedule; a gap sets the schedules outside the β_a family apart."""
    return np.append(np.arange(len(family)), len(family) + 0.5 + 1.5 * np.arange(len(others)))


def draw_by_group(ax: Axes, rows: pd.DataFrame, style: Style, cells: xr.Dataset) -> None:
    """The β_a family as a curve, each other schedule as a point of its own."""
    family, _ = in_order(cells)
    inside = rows["schedule"].isin(family)
    for part in (rows[inside], *(rows[rows.index == at] for at in rows.index[~inside])):
        if part["y"].notna().any():
            draw_curve(ax, part, style)


def set_schedule_axis(ax: Axes, rows: pd.DataFrame, cells: xr.Dataset) -> None:
    """Tick labels: a for the β_a family, thinned to at most eleven; names for the others."""
    columns = rows.dropna(subset="x").drop_duplicates("x").sort_values("x")
    family, _ = in_order(cells)
    a = dict(zip(map(str, cells["schedule"].values), shapes(cells), strict=True))
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
    if family:
        ax.set_xlabel(r"$a$ of $\beta_a$" + (", and other schedules" if len(outside) else ""))
    else:
        ax.set_xlabel("noise schedule")
        ax.margins(x=0.15)
