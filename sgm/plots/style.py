"""House style and drawing primitives: a curve, a level, a scale, a legend, a figure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import matplotlib.style
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

ROUND = [1, 2, 2.5, 5, 10]  # the steps between ticks
BANDS = SD, MEAN_SD, MEAN_RANGE, SET = (
    ", ± 1 sd", ", mean ± 1 sd", ", mean and range", " and its 95% confidence set"
)  # fmt: skip
ROUNDING = 1e-12  # a relative standard deviation below this is none
LEGEND_WIDTH = 36  # characters
LINE = 0.125  # inches, a line of a panel's title
LOG_RATIO = 100.0  # a linear axis that spans more than this is drawn in logarithms

BLUE, ORANGE, GREEN, VERMILLION, PURPLE, BROWN, PINK, GREY, YELLOW, SKY = sns.color_palette(
    "colorblind"
).as_hex()
INK, FAINT, GREY_OUT = "#222222", "#6E6E6E", "#9A9A9A"
LineStyle: TypeAlias = str | tuple[int, tuple[float, ...]]


@dataclass(frozen=True)
class Style:
    """How one curve looks; `band` says what the shaded band means in the legend."""

    label: str
    color: str
    line: LineStyle = "-"
    marker: str = ""
    width: float = 1.3
    size: float = 3.2
    band: str = ""

    def invalid(self, label: str) -> Style:
        """The same curve where its theorem does not apply: dashed grey."""
        return replace(self, label=label, color=GREY_OUT, line=(0, (3, 2)), width=1.0)


def house_style() -> AbstractContextManager[None]:
    """What figures look like, whatever the user's matplotlibrc or an enclosing style says."""
    own = {
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
    return matplotlib.style.context(["default", own])


def draw_curve(ax: Axes, rows: pd.DataFrame, style: Style) -> None:
    """A line through the rows with its band; error bars where a band has no width."""
    x, y, low, high = (rows[column].to_numpy(float) for column in ("x", "y", "low", "high"))
    drawn = np.isfinite(y)
    banded = drawn & (high - low > ROUNDING * abs(y))
    if drawn.sum() == 1 and not style.marker:
        style = replace(style, marker="D", size=3.0)
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


def draw_level(ax: Axes, row: pd.Series[Any], style: Style, *, upright: bool = False) -> None:
    """A line across the panel with its band; `upright` where values are on the x axis."""
    line, span = (ax.axvline, ax.axvspan) if upright else (ax.axhline, ax.axhspan)
    banded = row["high"] > row["low"]
    line(
        row["y"],
        color=style.color,
        linestyle=style.line,
        linewidth=style.width,
        label=style.label + (style.band if banded else ""),
        zorder=2,
    )
    if banded:
        span(row["low"], row["high"], color=style.color, alpha=0.07, linewidth=0, zorder=0.5)
        for edge in (row["low"], row["high"]):
            line(edge, color=style.color, linewidth=0.4, alpha=0.7, zorder=0.6)


def is_log(rows: pd.DataFrame) -> bool:
    values = rows["y"].to_numpy(float)
    values = values[np.isfinite(values)]
    return bool(values.size and values.min() > 0 and values.max() > LOG_RATIO * values.min())


def set_scale(ax: Axes, log: bool, label: str, color: str) -> None:
    if log:
        ax.set_yscale("log", nonpositive="clip")
        label += " (log scale)"
    else:
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=ROUND))
    ax.set_ylabel(label, color=color)
    ax.tick_params(axis="y", colors=color, which="both")


def add_legend(figure: Figure, axes: Iterable[Axes]) -> None:
    """One legend for all axes, below them, where it can't cover data; the figure grows by it."""
    entries: dict[str, Artist] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    for label in list(entries):  # a curve with a band in one panel and without in another
        if any(label + band in entries for band in BANDS):
            del entries[label]
    if not entries:
        return
    labels = [
        textwrap.fill(label.replace("± ", "±\N{NO-BREAK SPACE}"), LEGEND_WIDTH) for label in entries
    ]
    longest = max(len(line) for label in labels for line in label.splitlines())
    inches = 0.062 * longest + 0.55  # of a column: text at 7 pt and its handle
    columns = max(1, min(len(entries), int(figure.get_figwidth() / inches)))
    lines = sum(label.count("\n") + 1 for label in labels) / columns
    figure.set_figheight(figure.get_figheight() + 0.15 * (lines + 1) + 0.1)
    figure.legend(
        list(entries.values()),
        labels,
        loc="outside lower center",
        ncols=columns,
        handlelength=2.6,
        columnspacing=1.4,
    )


def new_figure(width: float, height: float, title: str) -> Figure:
    layout = ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.08, hspace=0.03, wspace=0.05)
    figure = Figure(figsize=(width, height), layout=layout)
    figure.suptitle(title, fontweight="bold")
    return figure


def empty_page(title: str, why: str) -> Figure:
    """A figure without numbers that says why there are none."""
    figure = new_figure(6.0, 1.2, title)
    ax = figure.subplots()
    ax.set_axis_off()
    ax.text(0.5, 0.5, textwrap.fill(why, 80), ha="center", va="center", transform=ax.transAxes)
    return figure
