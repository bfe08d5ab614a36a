"""Figures: each a view of one grid, drawn from the table that is saved beside it.

A view maps a grid (the dataset of a study) to a pair (figure, frame). The frame is computed first
and the figure is drawn from it and from nothing else (`sgm.plots.engine`), so that the CSV that
`save` writes holds exactly the numbers drawn. Columns common to the views of a grid:

    panel     number of the panel, with one column for each of its labels
    axis      the axis on which the row is drawn
    curve     what the row belongs to; series, which of several of the kind
    x, y      the place and the value; x is empty for a level drawn across the panel
    low, high the band: y ∓ one standard deviation over runs; the range of the runs on a
              logarithmic axis; bottom and top of a bar
    n_runs    runs averaged in y; n_failed, runs that failed there

Statistics over runs are over the finite values of the axis `seed`. Bytes depend on the
grid and on the version of matplotlib alone: no date is stored, and fonts are the ones
matplotlib ships.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from sgm.plots.agreement import agreement_figure
from sgm.plots.budget import budget_figure
from sgm.plots.calibration import calibration_figure
from sgm.plots.cells import NoNumbersError, target_title
from sgm.plots.comparison import comparison_figure
from sgm.plots.coverage import coverage_figure
from sgm.plots.decomposition import decomposition_figure
from sgm.plots.divergence import divergence_figure
from sgm.plots.elbo import elbo_figure
from sgm.plots.engine import empty_page, house_style
from sgm.plots.heatmap import map_figure
from sgm.plots.histogram import histogram_figure
from sgm.plots.horizon import horizon_figure
from sgm.plots.leaderboard import leaderboard_figure
from sgm.plots.learned import learned_figure
from sgm.plots.optimal_schedule import optimal_schedule_figure
from sgm.plots.priors import priors_figure
from sgm.plots.samples import samples_figure
from sgm.plots.schedules import schedules_figure
from sgm.plots.theory import theory_figure
from sgm.reading import bounds_of, why_empty
from sgm.store.cells import written_whole

__all__ = [
    "FIGURES",
    "FORMATS",
    "agreement_figure",
    "budget_figure",
    "calibration_figure",
    "comparison_figure",
    "coverage_figure",
    "decomposition_figure",
    "divergence_figure",
    "draw",
    "elbo_figure",
    "histogram_figure",
    "horizon_figure",
    "leaderboard_figure",
    "learned_figure",
    "map_figure",
    "optimal_schedule_figure",
    "priors_figure",
    "samples_figure",
    "save",
    "schedules_figure",
    "theory_figure",
]

Drawn: TypeAlias = tuple[Figure, pd.DataFrame]

#: Formats of a figure, and what matplotlib would write into one that is not the figure's.
FORMATS = {"png": ["Software"], "pdf": ["CreationDate", "ModDate"]}

#: Beside a page that says why there is no number.
EMPTY = pd.DataFrame(columns=["panel", "axis", "curve", "x", "y", "low", "high", "n_runs"])


def save(
    figure: Figure, frame: pd.DataFrame, stem: str | Path, formats: Sequence[str] = tuple(FORMATS)
) -> list[Path]:
    """Write `stem`.png, `stem`.pdf and `stem`.csv; the CSV holds the numbers drawn.

    Parameters
    ----------
    figure, frame
        As a view returns them.
    stem : path
        Path without a suffix; its folder is made.
    formats : sequence of str
        Of the figure: ``png``, ``pdf`` or both.

    Returns
    -------
    list of Path
        The files, the CSV last.
    """
    stem = Path(stem)
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in (*formats, "csv")]
    with house_style():
        for path, name in zip(paths, formats, strict=False):
            with written_whole(path) as aside:
                figure.savefig(aside, format=name, metadata=dict.fromkeys(FORMATS[name]))
    with written_whole(paths[-1]) as aside:
        frame.to_csv(aside, index=False)
    return paths


FIGURES: dict[str, Callable[..., Drawn]] = {
    "schedules": schedules_figure,
    "calibration": calibration_figure,
    "coverage": coverage_figure,
    "agreement": agreement_figure,
    "comparison": comparison_figure,
    "samples": samples_figure,
    "elbo": elbo_figure,
    "horizon": horizon_figure,
    "histogram": histogram_figure,
    "learned": learned_figure,
    "map": map_figure,
    "priors": priors_figure,
}


def draw(data: xr.Dataset, stem: str, x: str | None = None) -> Drawn:
    """Draw a figure by the stem of its file.

    Parameters
    ----------
    data : Dataset
        A grid; for ``samples/<target>`` the pictures of that target.
    stem : str
        ``schedules``, ``calibration``, ``coverage``, ``agreement``; or one a target:
        ``comparison/<target>``, ``samples/<target>``, ``elbo/<target>``, ``horizon/<target>``,
        ``histogram/<target>``, ``map/<target>``, ``learned/<target>``, ``priors/<target>``,
        ``theory/<target>``, ``<figure>/<target>`` for the `figure` of a divergence such as ``kl``,
        ``kl_decomposition/<target>`` for the bound ``kl_bound``, and
        ``w2_one_step_budget/<target>`` for a bound with shares over time;
        or one a divergence: ``leaderboard/<figure>``.
    x : str, optional
        What stands on x: a number that varies in the grid (`sgm.reading.numeric_axes`), such as
        ``a``, ``horizon`` or a parameter of the user's family. By default that of the study.
        Figures of divergences and bounds take it; the others have an x of their own.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn; empty where there are none, for a page that says why.

    Raises
    ------
    ValueError
        If the grid has no such figure or no such target.
    """
    name, _, target = stem.partition("/")
    labels = [target] if target else []
    with house_style():
        if name == "leaderboard":  # of all targets: what follows is a divergence
            try:
                return leaderboard_figure(data, target)
            except NoNumbersError:
                return empty_page(f"{target}: leaderboard", why_empty(data)), EMPTY.copy()
        if name in FIGURES:
            try:
                return FIGURES[name](data, *labels)
            except NoNumbersError:
                cells = data.sel(target=target)
                title = f"{target_title(cells)}: {name}"
                return empty_page(title, why_empty(cells)), EMPTY.copy()
        if name == "theory":
            return theory_figure(data, target, x)
        for bound in bounds_of(data):
            if name == f"{bound.figure}_decomposition":
                return decomposition_figure(data, target, bound.name, x)
            if name == f"{bound.figure}_budget" and bound.budget:
                return budget_figure(data, target, bound.name, x)
        return divergence_figure(data, target, name, x)
