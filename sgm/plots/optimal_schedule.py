"""A schedule that was searched for, beside the usual ones."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from sgm.plots.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    VERMILLION,
    Style,
    add_legend,
    house_style,
    new_figure,
)

PANELS = {
    "rate": r"noise rate $\beta(t)$",
    "snr": r"signal-to-noise ratio $m_t^2/v_t$",
    "objective": "",
}
STYLES = (
    Style("", VERMILLION, width=1.8),
    Style("", BLUE, line=(0, (5, 1.5, 1, 1.5))),
    Style("", GREEN, line=(0, (4, 2))),
    Style("", INK, line=(0, (1, 1.2))),
)


def optimal_schedule_figure(frame: pd.DataFrame, title: str, objective: str) -> Figure:
    """β and the signal-to-noise ratio of the best schedule and the usual ones, and their costs.

    Parameters
    ----------
    frame : DataFrame
        Columns panel, axis, curve, x, y, in the order of the curves, the best one first: `axis`
        ``rate`` and ``snr`` with x = t/T, and ``objective``, one row a curve.
    title, objective : str
        What the schedule is for, and what the third panel shows.

    Returns
    -------
    Figure
    """
    names = list(dict.fromkeys(frame["curve"]))
    styles = dict(zip(names, STYLES, strict=False))
    with house_style():
        figure = new_figure(8.6, 3.0, title)
        axes = dict(zip(PANELS, figure.subplots(1, len(PANELS)), strict=True))
        for name, ax in axes.items():
            rows = frame[frame["axis"] == name]
            if name == "objective":
                values = rows["y"].to_numpy(float)
                places = range(len(rows))
                ax.barh(list(places), values, color=[styles[c].color for c in rows["curve"]])
                for place, value in zip(places, values, strict=True):
                    ax.annotate(
                        f"{value:.4g}", (value, place), (3, 0), textcoords="offset points",
                        va="center", fontsize=7, color=FAINT,
                    )  # fmt: skip
                ax.set_yticks([])
                ax.invert_yaxis()
                ax.margins(x=0.25)
                ax.set_xlabel(objective)
                continue
            for curve, points in rows.groupby("curve", sort=False):
                style = styles[str(curve)]
                ax.plot(
                    points["x"], points["y"], color=style.color, linestyle=style.line,
                    linewidth=style.width, label=str(curve),
                )  # fmt: skip
            ax.set_yscale("log")
            ax.set_xlabel("t / T")
            ax.set_ylabel(PANELS[name] + " (log scale)")
        add_legend(figure, axes.values())
    return figure
