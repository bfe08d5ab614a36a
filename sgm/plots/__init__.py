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

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from sgm.plots.decomposition import decomposition_figure
from sgm.plots.kl import kl_figure
from sgm.plots.schedules import schedules_figure
from sgm.plots.style import house_style

__all__ = [
    "FIGURES",
    "View",
    "decomposition_figure",
    "kl_figure",
    "save",
    "schedules_figure",
]


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
    with house_style():
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
