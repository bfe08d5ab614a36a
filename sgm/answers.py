"""What a study found, in a few lines: for each target the best schedule, and what the bounds say.

One line a target, of its first divergence that a bound is of, in the setting that says most: the
sampled score if there is one, a network before the exact one, the largest T and N, the first
sampler and time grid. `ranking.csv` has all of them, and what its numbers are.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

from sgm.ranking import NO_BOUND, ranking_table
from sgm.reading import divergences_of
from sgm.store import FAILED

__all__ = ["answers", "answers_text"]

MOST = 6


def answers(grid: xr.Dataset, ranking: pd.DataFrame | None = None) -> list[str]:
    """A sentence or two a target: the schedule of the least error, and what each bound would cost.

    Parameters
    ----------
    grid : Dataset
    ranking : DataFrame, optional
        Its `ranking_table`, where it is known.

    Returns
    -------
    list of str
        Targets without a bound of a divergence that is measured are left out.
    """
    ranking = ranking_table(grid) if ranking is None else ranking
    if ranking.empty:
        return []
    ranking = ranking[(ranking["varies"] == "schedule") & (ranking["among"] == "all")]
    ranking = ranking[(ranking["n"] > 1) & ranking["regret"].notna()]
    names = {divergence.name: divergence.label for divergence in divergences_of(grid)}
    return [
        _sentence(target, _setting(rows), names)
        for target, rows in ranking.groupby("target", sort=False)
    ]


def _setting(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the setting that says most."""
    if (rows["error"] != "exact").any():
        rows = rows[rows["error"] != "exact"]
        if (rows["score"] != "exact").any():  # beside a network the exact score is a control
            rows = rows[rows["score"] != "exact"]
    for axis in ("horizon", "n_steps"):
        rows = rows[rows[axis] == rows[axis].max()]
    for axis in ("score", "sampler", "time_grid", "divergence"):
        rows = rows[rows[axis] == rows[axis].iloc[0]]
    return rows


def _sentence(target: object, rows: pd.DataFrame, names: dict[str, str]) -> str:
    first = rows.iloc[0]
    said = (
        f"{target}: {names[first['divergence']]}: least with {first['best']}, "
        f"{first['error_best']:.3g} (score {first['score']}, N = {first['n_steps']:g})"
    )
    ties = [label for label in first["best_set"].split() if label != first["best"]]
    if ties:
        said += f", not told from {', '.join(ties[:3])}{' …' * (len(ties) > 3)}"
    judged = rows[rows["covered"] & (rows["objection"] != NO_BOUND) & (rows["pick"] != "")]
    right = [str(row["bound"]) for _, row in judged.iterrows() if row["pick"] == row["best"]]
    costs = [
        f"{row['bound']} costs {_times(row)} ({row['pick']})"
        for _, row in judged.iterrows()
        if row["pick"] != row["best"]
    ]
    follow = [f"following {', '.join(costs)}"] if costs else []
    said += "".join(f"; {part}" for part in [*follow, *(f"{name} picks it" for name in right)])
    return f"{said}."


def _times(row: pd.Series) -> str:
    """A regret and its interval."""
    low, high = row["regret_low"], row["regret_high"]
    return f"× {_short(row['regret'])}" + (
        f" [{_short(low)}, {_short(high)}]" if np.isfinite(low) else ""
    )


def _short(ratio: float) -> str:
    return f"{ratio:.2f}" if abs(ratio) < 10 else f"{ratio:.0f}"


def _lines(grid: xr.Dataset, root: str, ranking: pd.DataFrame | None) -> Iterator[str]:
    found = answers(grid, ranking)
    yield from found[:MOST]
    if len(found) > MOST:
        yield f"… and {len(found) - MOST} more targets, in {root}/tables/ranking.csv."
    failed = int((grid["status"] == FAILED).sum())
    if failed:
        yield f"{failed} runs failed; `make status` and the logs say why."
    yield f"Figures: {root}/figures; what each bound ranks: {root}/tables/ranking.csv."


def answers_text(grid: xr.Dataset, root: str, ranking: pd.DataFrame | None = None) -> str:
    """`answers` as the lines that `make study` ends with.

    Parameters
    ----------
    grid : Dataset
    root : str
        The folder of the study.
    ranking : DataFrame, optional
        As in `answers`.

    Returns
    -------
    str
        Ten lines at most.
    """
    return "".join(f"{line}\n" for line in _lines(grid, root, ranking))
