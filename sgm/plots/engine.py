"""The small-multiples engine: a frame of numbers in long form becomes panels.

A figure is a frame, a row a number drawn (see `sgm.plots`), and a `Page` that says what is on
it: bands of panels, the `Track`s of a panel from top to bottom, and a `Look` for each curve.
The engine does the rest: axes, scales, titles, one legend, the size of the sheet.

Colours, fonts and lines are seaborn's. Its own facets are not used: `seaborn.objects`, which its
authors call experimental, takes six times as long for eight panels, and draws one scale a
variable; these figures have several scales above each other.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import matplotlib.style
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator, NullLocator


class C:
    """Colours: seaborn's for the colour-blind, and greys."""

    BLUE, ORANGE, GREEN, VERMILLION, PURPLE, BROWN, PINK, _, _, SKY = sns.color_palette(
        "colorblind"
    ).as_hex()
    INK, FAINT, GREY_OUT = "#222222", "#6E6E6E", "#9A9A9A"


GREY = "grey: NOT a bound, see the title"
SERIES = (  # of curves that are told apart by colour alone
    (C.BLUE, "o"), (C.VERMILLION, "s"), (C.GREEN, "^"), (C.PURPLE, "D"),
    (C.ORANGE, "v"), (C.BROWN, "P"),
)  # fmt: skip
LineStyle: TypeAlias = str | tuple[int, tuple[float, ...]]
DASHES: tuple[LineStyle, ...] = (
    (0, (5, 2, 1, 2)),
    (0, (7, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (1, 1.2)),
)
SD, MEAN_SD, MEAN_RANGE = ", ± 1 sd", ", mean ± 1 sd", ", mean and range"
ROUNDING = 1e-12  # a relative standard deviation below this is none
LOG_RATIO = 100.0  # a linear axis that spans more than this is drawn in logarithms
LINE, LETTER, BOLD = 0.125, 0.058, 0.088  # inches: line and letter of a title, of the page's
ASIDE = 0.3  # inches of a panel's place that its labels take
LEGEND_WIDTH = 40  # characters
ROUND = [1, 2, 2.5, 5, 10]  # the steps between ticks
APART = 0.1  # ticks of a logarithmic axis, as a fraction of it: their labels must not touch


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
        "legend.fontsize": 7.5,
        "legend.frameon": False,
        "figure.titlesize": 10,
        "pdf.fonttype": 42,
        "savefig.dpi": 200,
    }
    return matplotlib.style.context(["default", own])


# --- marks -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Look:
    """How the rows of one curve are drawn, and what the legend says of them."""

    label: str = ""  # those with the same have one entry; without one, none
    color: Any = C.INK
    line: LineStyle = "-"
    marker: str = ""
    width: float = 1.3
    size: float = 3.2
    band: str = ""  # what the band means, where there is one
    face: Any = None  # of markers and bars; None: the colour
    mark: Callable[[Axes, pd.DataFrame, Look], None] | None = None  # None: `draw_line`
    alpha: float = 1.0
    order: float = 3.0

    def greyed(self, label: str) -> Look:
        """The same curve where its theorem does not apply: dashed grey."""
        return replace(self, label=label, color=C.GREY_OUT, line=(0, (3, 2)), width=1.0)

    def handle(self, label: str, color: Any) -> Artist:
        """The entry of the legend."""
        if self.mark is draw_bars:
            return Patch(label=label, **_face(self))
        return Line2D(
            [], [], label=label, color=color, linestyle=self.line,  # type: ignore[arg-type]
            linewidth=self.width,
            marker=self.marker, markersize=min(self.size, 8),
            markerfacecolor=color if self.face is None else self.face,
        )  # fmt: skip


def columns_of(rows: pd.DataFrame, *names: str) -> list[Any]:
    """Some columns as float64."""
    return [rows[name].to_numpy(float) for name in names]


def has_band(rows: pd.DataFrame) -> pd.Series[bool]:
    """Where a value has an interval that is wider than rounding."""
    return rows["y"].notna() & (rows["high"] - rows["low"] > ROUNDING * rows["y"].abs())


def draw_line(ax: Axes, rows: pd.DataFrame, look: Look) -> None:
    """A line with its band, error bars where the band has no width, open marks of failed runs.

    Rows without an x are levels across the panel.
    """
    if rows["x"].isna().all():
        for _, row in rows.iterrows():
            draw_level(ax, row, look)
        return
    x, y, low, high = columns_of(rows, "x", "y", "low", "high")
    drawn, banded = np.isfinite(y), has_band(rows).to_numpy()
    if drawn.sum() == 1 and not look.marker:
        look = replace(look, marker="D", size=3.0)
    style = {"color": look.color, "marker": look.marker or None, "markersize": look.size}
    style |= {"zorder": look.order, "alpha": look.alpha, "label": look.label}
    face = look.color if look.face is None else look.face
    ax.plot(x, y, linestyle=look.line, linewidth=look.width, markerfacecolor=face, **style)
    if banded.sum() > 1 and look.line != "none":
        ax.fill_between(x, low, high, where=banded, color=look.color, alpha=0.14, linewidth=0)
    elif banded.any():
        bars = np.array([(y - low)[banded], (high - y)[banded]])
        ax.errorbar(x[banded], y[banded], bars, color=look.color, elinewidth=0.8, fmt="none")
    partial = drawn & (rows["n_failed"].to_numpy(float) > 0) if "n_failed" in rows else drawn[:0]
    if look.marker and partial.any():
        own = {"color": look.color, "linestyle": "none", "markerfacecolor": "white", "zorder": 4}
        ax.plot(x[partial], y[partial], marker=look.marker, markersize=look.size + 2, **own)


def draw_level(ax: Axes, row: pd.Series[Any], look: Look, *, upright: bool = False) -> None:
    """A line across the panel with its band; `upright` where values are on the x axis."""
    line, span = (ax.axvline, ax.axvspan) if upright else (ax.axhline, ax.axhspan)
    style = {"color": look.color, "linestyle": look.line, "linewidth": look.width}
    line(row["y"], label=look.label, zorder=2, **style)
    if row["high"] > row["low"]:
        span(row["low"], row["high"], color=look.color, alpha=0.1, linewidth=0, zorder=0.5)


def draw_upright(ax: Axes, rows: pd.DataFrame, look: Look) -> None:
    """Levels on the x axis."""
    for _, row in rows.iterrows():
        draw_level(ax, row, look, upright=True)


def draw_bars(ax: Axes, rows: pd.DataFrame, look: Look) -> None:
    """Bars from `low` to `high`; a grey look is hatched, so that it is not taken for another."""
    x, low, high = columns_of(rows, "x", "low", "high")
    ax.bar(x, high - low, bottom=low, width=0.86, label=look.label, **_face(look))


def _face(look: Look) -> dict[str, Any]:
    grey = look.color == C.GREY_OUT
    color = look.color if look.face is None else look.face
    edge = {"edgecolor": "white" if grey else "none", "linewidth": 0}
    return {"facecolor": color, "hatch": "////" if grey else None} | edge


def draw_edge(ax: Axes, rows: pd.DataFrame, look: Look) -> None:
    """A ring; of a value without a place, such as a level, at the edge of the panel."""
    for _, row in rows.iterrows():
        placed = np.isfinite(row["x"])
        ax.plot(
            row["x"] if placed else 1.0, row["y"], look.marker, markersize=look.size,
            color=look.color, fillstyle="none", zorder=5, clip_on=False, label=look.label,
            transform=ax.transData if placed else ax.get_yaxis_transform(),
        )  # fmt: skip


# --- the page ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Track:
    """One kind of axes in a panel: which rows, on which scale.

    Parameters
    ----------
    axis : str
        Draws the rows of this `axis`.
    label : str
    height : float
        Inches.
    log : bool or None
        None: where what it shows spans two decades.
    zero : bool
        Whether a linear scale begins at 0, where values are not far above it.
    share : bool
        Whether panels beside and below have the same scale, if that flattens none.
    aside : sequence of str
        Curves that don't choose the scale.
    paint : callable
        Draws the rows, in place of a look for each curve.
    finish : callable
        Called last, for what is particular.
    """

    axis: str
    label: str = ""
    height: float = 2.0
    color: str = C.INK
    log: bool | None = None
    zero: bool = False
    share: bool = True
    aside: Sequence[str] = ()
    paint: Callable[[Axes, pd.DataFrame], None] | None = None
    finish: Callable[[Axes, pd.DataFrame], None] | None = None


@dataclass(frozen=True)
class Band:
    """Panels side by side, by their numbers, with the same tracks: above each other or beside.

    With fewer panels than `columns` the rest of the row is blank.
    """

    panels: Sequence[int]
    tracks: Sequence[Track]
    beside: bool = False
    columns: int = 0

    def places(self) -> list[list[tuple[int, Track]]]:
        """Panel and track of each axes, row by row."""
        if self.beside:
            return [[(panel, track) for panel in self.panels for track in self.tracks]]
        return [[(panel, track) for panel in self.panels] for track in self.tracks]


@dataclass(frozen=True)
class Page:
    """What is on a figure; see the module. Without bands it says why there is no number."""

    title: str
    bands: Sequence[Band] = ()
    look: Callable[[str, str], Look] = lambda curve, series: Look()
    notes: Sequence[str] = ()
    titles: Mapping[int, str] = field(default_factory=dict)
    x: Callable[[Axes, pd.DataFrame, bool], None] = lambda ax, rows, last: None
    width: float = 8.6
    handles: Sequence[Artist] = ()
    colorbar: Callable[[Sequence[Axes]], None] | None = None
    loose: bool = False  # whether x-axes differ from panel to panel
    why: str = ""


def wrapped(panels: Sequence[int], tracks: Sequence[Track], columns: int) -> list[Band]:
    """Bands of so many panels, all of one width."""
    return [
        Band(panels[i : i + columns], tracks, columns=min(columns, len(panels)))
        for i in range(0, len(panels), columns)
    ]


def columns_for(n: int) -> int:
    """How many of n panels stand side by side: up to four, the rows as full as can be."""
    rows = -(-n // 4)
    return 2 if n == 4 else -(-n // rows) if n else 1


def width_for(columns: int) -> float:
    """Inches of a page of so many columns."""
    return 6.2 if columns == 1 else max(7.4, 2.75 * columns + 0.5)


def draw_page(frame: pd.DataFrame, page: Page) -> Figure:
    """The figure of a frame: see the module."""
    with house_style():
        return _draw_page(frame, page) if page.bands else empty_page(page.title, page.why)


def draw_track(ax: Axes, frame: pd.DataFrame, page: Page, axis: str) -> None:
    """One track of a page of one panel, with title and legend, on axes that are there already."""
    (band,) = page.bands
    (panel,) = band.panels
    (track,) = (track for track in band.tracks if track.axis == axis)
    rows = frame[(frame["panel"] == panel) & (frame["axis"] == axis)]
    looks = _looks(rows, page)
    with house_style():
        _fill(ax, rows, track, looks)
        page.x(ax, rows, True)
        _scale({(panel, axis): (ax, rows, track, 0)})
        if track.finish is not None:
            track.finish(ax, rows)
        if page.colorbar is not None:
            page.colorbar([ax])
        width = ax.get_window_extent().width / ax.figure.dpi
        text = "\n".join(filter(None, (page.title, *page.notes, page.titles.get(panel, ""))))
        ax.set_title(wrap(text, int(width / LETTER)), loc="left")
        handles, _ = _legend(looks, rows, page)
        if handles:
            # curves may be everywhere: they shine through
            ax.legend(handles=handles, frameon=True, framealpha=0.8, edgecolor="none")


def _draw_page(frame: pd.DataFrame, page: Page) -> Figure:
    rows_of = [(band, line) for band in page.bands for line in band.places()]
    columns = math.lcm(*(max(len(line), band.columns) for band, line in rows_of))
    most = max(len(band.panels) for band in page.bands)
    letters = int(((page.width - 0.5) / most - ASIDE) / LETTER)
    titles = {panel: wrap(text, letters) for panel, text in page.titles.items()}
    looks = _looks(frame, page)
    lines = [max(titles.get(p, "").count("\n") + 1 for p in band.panels) for band in page.bands]
    heights = [max(track.height for _, track in line) + 0.3 for _, line in rows_of]
    head = [wrap(note, int((page.width - 0.3) / LETTER)) for note in page.notes if note]
    title = wrap(page.title, int((page.width - 0.2) / BOLD))
    below_title = 0.17 + 0.16 * (title.count("\n") + 1)
    top = below_title + 0.14 * sum(note.count("\n") + 1 for note in head)
    entries, below = _legend(looks, frame, page)
    height = sum(heights) + LINE * sum(lines) + 0.25 * len(page.bands) + top + below
    figure = Figure(figsize=(page.width, height))
    figure.suptitle(
        title, x=0.01, y=1 - 0.08 / height, ha="left", va="top",
        fontweight="bold", in_layout=False,
    )  # fmt: skip
    figure.text(
        0.01, 1 - below_title / height, "\n".join(head), va="top", fontsize=7.5, in_layout=False
    )
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    drawn: dict[tuple[int, str], tuple[Axes, pd.DataFrame, Track, int]] = {}
    by_axes = dict(list(frame.groupby(["panel", "axis"], sort=False)))
    firsts: dict[int, Axes] = {}
    for row, (band, line) in enumerate(rows_of):
        span = columns // max(len(line), band.columns)
        for column, (panel, track) in enumerate(line):
            first = firsts.get(panel)
            at = grid[row, span * column : span * (column + 1)]
            ax = figure.add_subplot(at, sharex=None if page.loose else first)
            rows = by_axes.get((panel, track.axis), frame.iloc[:0])
            last = page.loose or band.beside or track is band.tracks[-1]
            _fill(ax, rows, track, looks)
            page.x(ax, rows, last)
            ax.tick_params(labelbottom=last)
            if first is None:
                ax.set_title(titles.get(panel, ""), loc="left")
                firsts[panel] = ax
            drawn[panel, track.axis] = ax, rows, track, list(band.panels).index(panel)
    _scale(drawn)
    for ax, rows, track, _ in drawn.values():
        if track.finish is not None:
            track.finish(ax, rows)
    if page.colorbar is not None:
        page.colorbar([ax for ax, *_ in drawn.values()])
    if entries:
        lengths = [max(map(len, str(e.get_label()).splitlines())) for e in entries]
        figure.legend(
            handles=entries, loc="outside lower center", handlelength=2.6, columnspacing=1.4,
            ncols=_legend_columns(max(lengths), len(entries), page.width),
        )  # fmt: skip
    # once: savefig would lay out twice, which takes longer than to draw
    rect = (0, 0, 1, 1 - top / height)
    layout = ConstrainedLayoutEngine(h_pad=0.05, w_pad=0.06, hspace=0.02, wspace=0.03, rect=rect)
    layout.execute(figure)
    return figure


def wrap(text: str, width: int) -> str:
    """Each line of a text in lines of so many characters."""
    return "\n".join(part for line in text.splitlines() for part in textwrap.wrap(line, width))


def _looks(frame: pd.DataFrame, page: Page) -> dict[tuple[str, str], Look]:
    if "curve" not in frame:
        return {}
    series = frame["series"] if "series" in frame else pd.Series("", index=frame.index)
    pairs = dict.fromkeys(zip(frame["curve"], series, strict=True))
    return {(str(curve), str(own)): page.look(str(curve), str(own)) for curve, own in pairs}


def _fill(
    ax: Axes, rows: pd.DataFrame, track: Track, looks: Mapping[tuple[str, str], Look]
) -> None:
    if track.paint is not None:
        if len(rows):
            track.paint(ax, rows)
        else:
            ax.set_axis_off()
        return
    keys = ["curve", "series"] if "series" in rows else ["curve"]
    for key, part in rows.groupby(keys, sort=False):
        look = looks[(str(key[0]), str(key[1]) if len(keys) > 1 else "")]
        if part["y"].notna().any():
            (look.mark or draw_line)(ax, part, look)


def spans_decades(values: pd.Series[float]) -> bool:
    """Whether positive values span so much that they are drawn in logarithms."""
    values = values[np.isfinite(values.astype(float))]
    return bool(len(values) and values.min() > 0 and values.max() > LOG_RATIO * values.min())


def _scale(drawn: Mapping[tuple[int, str], tuple[Axes, pd.DataFrame, Track, int]]) -> None:
    """Scale and label of every y-axis: the same in all panels, unless that would flatten one."""
    for axis in dict.fromkeys(axis for _, axis in drawn):
        cells = [cell for (_, own), cell in drawn.items() if own == axis]
        track = cells[0][2]
        if track.paint is not None:
            continue
        judged = [rows.loc[~rows["curve"].isin(track.aside), "y"].dropna() for _, rows, *_ in cells]
        judged = [
            values if len(values) else rows["y"].dropna()
            for values, (_, rows, *_) in zip(judged, cells, strict=True)
        ]
        whole = pd.concat(judged)
        groups = [(cells, whole)]
        tops = [values.abs().max() for values in judged if len(values)]
        log = spans_decades(whole) if track.log is None else track.log
        if not track.share or (not log and len(tops) > 1 and min(tops) < max(tops) / 4):
            groups = [([cell], values) for cell, values in zip(cells, judged, strict=True)]
        for members, values in groups:
            _scale_together(members, values, track, alone=len(groups) > 1)


def _scale_together(
    members: Sequence[tuple[Axes, pd.DataFrame, Track, int]],
    values: pd.Series[float],
    track: Track,
    alone: bool,
) -> None:
    # an estimate may be below zero everywhere
    log = spans_decades(values) if track.log is None else track.log and bool((values > 0).any())
    label = track.label
    axes = [ax for ax, *_ in members]
    for ax in axes[1:]:
        ax.sharey(axes[0])
    first = axes[0]
    if log:
        first.set_yscale("log", nonpositive="clip")
        label += " (log scale)"
    else:
        first.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
    first.margins(y=0.08)
    if track.zero and not log and len(values) and values.min() >= 0:
        if values.max() > 1.25 * values.min():  # not far from zero, as an entropy is
            first.set_ylim(bottom=0)
        else:
            label += " (axis not from 0)"
    room = int(14 * track.height)
    for ax, rows, _, column in members:
        ax.autoscale_view(scaley=True)
        left = column == 0
        if left:
            ax.set_ylabel(wrap(label, room), color=track.color)
        ax.tick_params(axis="y", colors=track.color, which="both", labelleft=left or alone)
        if rows.empty or rows["y"].isna().all():
            ax.set_yticks([])


def _legend(
    looks: Mapping[tuple[str, str], Look], frame: pd.DataFrame, page: Page
) -> tuple[list[Artist], float]:
    """The entries, one a label, and the inches they take."""
    entries: dict[str, tuple[Look, Any, str]] = {}
    if len(looks):
        banded = frame[has_band(frame)] if "high" in frame else frame.iloc[:0]
        with_band = set(banded["curve"])
        for (curve, _), look in looks.items():
            if not look.label:
                continue
            band = look.band if curve in with_band else ""
            known = entries.get(look.label)
            told = known is None or look.color in (known[1], C.GREY_OUT)
            color = (known[1] if known else look.color) if told else C.INK
            entries[look.label] = (
                look if known is None else known[0],
                color,
                band or (known[2] if known else ""),
            )
    handles = [
        look.handle(textwrap.fill(label + band.replace("± ", "±\N{NO-BREAK SPACE}"), LEGEND_WIDTH), color)  # noqa: E501
        for label, (look, color, band) in entries.items()
    ]  # fmt: skip
    if "n_failed" in frame and (frame["n_failed"].fillna(0) > 0).any():
        handles.append(
            Look("", C.FAINT, "none", "o", size=5, face="white").handle(
                "point with failed runs", C.FAINT
            )
        )
    handles += page.handles
    if not handles:
        return [], 0.0
    labels = [str(handle.get_label()) for handle in handles]
    longest = max(len(line) for label in labels for line in label.splitlines())
    columns = _legend_columns(longest, len(handles), page.width)
    lines = sum(label.count("\n") + 1 for label in labels) / columns
    return handles, 0.15 * (lines + 1) + 0.1


def _legend_columns(longest: int, entries: int, width: float) -> int:
    return max(1, min(entries, int(width / (0.06 * longest + 0.55))))


def empty_page(title: str, why: str) -> Figure:
    """A figure without numbers that says why there are none."""
    with house_style():
        figure = Figure(figsize=(6.0, 1.2))
        figure.suptitle(title, fontweight="bold", x=0.01, ha="left")
        ax = figure.subplots()
        ax.set_axis_off()
        ax.text(0.5, 0.4, textwrap.fill(why, 80), ha="center", va="center", transform=ax.transAxes)
    return figure


# --- x-axes of numbers -------------------------------------------------------------------


def is_geometric(numbers: Any) -> bool:
    """Whether positive numbers are nearer to a geometric than to an even grid."""
    at = np.unique(np.asarray(numbers, dtype=np.float64))
    if len(at) < 2 or at[0] <= 0:
        return False
    steps = [np.diff(values) for values in (at, np.log(at))]
    even, geometric = (float(np.ptp(step) / step.mean()) for step in steps)
    return geometric < even


def set_numbers(ax: Axes, numbers: Any, label: str) -> None:
    """An x-axis of the numbers of a study: logarithmic where they are geometric."""
    at = np.unique(np.asarray(numbers, dtype=np.float64))
    ax.set_xlabel(label)
    if is_geometric(at):
        ax.set_xscale("log")
        ticks = spaced(at)
        ax.set_xticks(ticks, labels=[f"{t:g}" for t in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
    elif len(at) == 1:
        ax.set_xlim(at[0] - 1, at[0] + 1)
        ax.set_xticks(at)
    else:
        ax.margins(x=0.03)
        ax.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))


def spaced(numbers: Any) -> list[float]:
    """Ticks of a logarithmic axis, from the largest down, less those too near to a neighbour."""
    smallest, *others, largest = np.unique(np.asarray(numbers, dtype=np.float64)).tolist()
    gap = (largest / smallest) ** APART
    ticks = [largest]
    for t in reversed(others):
        if t * gap <= ticks[-1] and smallest * gap <= t:
            ticks.append(t)
    return [smallest, *reversed(ticks)]


def set_labels(ax: Axes, rows: pd.DataFrame, names: Mapping[float, str], label: str) -> None:
    """An x-axis of columns: their names, upright where they are short and few."""
    there = sorted(x for x in names if (rows["x"] == x).any()) if len(rows) else sorted(names)
    step = 1 + len([x for x in there if _is_number(names[x])]) // 12
    kept = [x for i, x in enumerate(there) if not _is_number(names[x]) or i % step == 0]
    ax.set_xticks(kept, labels=[names[x].replace("-", "−") for x in kept])
    ax.set_xlabel(label)
    for text in ax.get_xticklabels():
        if not _is_number(text.get_text().replace("−", "-")):
            text.set(rotation=35, ha="right", rotation_mode="anchor", fontsize=7)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
