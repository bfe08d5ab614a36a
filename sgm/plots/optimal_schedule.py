"""A schedule that was searched for, beside the usual ones."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgm.plots.engine import Band, C, Look, Page, Track, draw_page

LOOKS = (
    Look(color=C.VERMILLION, width=1.8),
    Look(color=C.BLUE, line=(0, (5, 1.5, 1, 1.5))),
    Look(color=C.GREEN, line=(0, (4, 2))),
    Look(color=C.INK, line=(0, (1, 1.2))),
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
    """
    names = [str(curve) for curve in frame["curve"].unique()]
    looks = dict(zip(names, LOOKS, strict=False))

    def draw_costs(ax: Axes, rows: pd.DataFrame) -> None:
        places = range(len(rows))
        ax.barh(list(places), rows["y"], color=[looks[str(c)].color for c in rows["curve"]])
        for place, value in zip(places, rows["y"], strict=True):
            ax.annotate(
                f"{value:.4g}", (value, place), (3, 0), textcoords="offset points",
                va="center", fontsize=7, color=C.FAINT,
            )  # fmt: skip
        ax.set_yticks([])
        ax.invert_yaxis()
        ax.margins(x=0.25)

    def set_label(ax: Axes, rows: pd.DataFrame, last: bool) -> None:
        costs = bool((rows["axis"] == "objective").all())
        ax.set_xlabel(objective if costs else "$t/T$")

    tracks = [
        Track("rate", r"noise rate $\beta(t)$", log=True),
        Track("snr", r"signal-to-noise ratio $m_t^2/v_t$", log=True),
        Track("objective", paint=draw_costs),
    ]
    named = {name: Look(**{**vars(look), "label": name}) for name, look in looks.items()}
    page = Page(
        title, [Band([0], tracks, beside=True)], lambda curve, series: named[curve],
        x=set_label, loose=True,
    )  # fmt: skip
    whole = frame.assign(panel=0, series="", low=float("nan"), high=float("nan"))
    return draw_page(whole, page)
