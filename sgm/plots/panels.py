"""The panels of a figure: one a setting of the target; and their titles."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from sgm.reading import Bound, Divergence, divergences_of, finite, objections, why_empty
from sgm.store import DONE, FAILED, NOT_APPLICABLE

PANEL_LABELS = ("horizon", "score", "sampler", "time_grid", "n_steps")
TITLE_WIDTH = 62  # characters


@dataclass(frozen=True)
class Panel:
    """One combination of `PANEL_LABELS`, and the grid at it: (schedule[, seed])."""

    number: int
    labels: dict[str, Any]
    here: xr.Dataset
    exact: xr.Dataset | None  # the same cells with the exact score

    @property
    def family(self) -> str:
        return str(self.here["score_family"].item())


def target_cells(grid: xr.Dataset, target: str) -> xr.Dataset:
    """The grid at one target, not yet loaded; ValueError if it has no such target."""
    if target not in grid.indexes["target"]:
        known = ", ".join(map(str, grid["target"].values))
        raise ValueError(f"target = {target!r}: the grid has {known}")
    return grid.sel(target=target)


def find_panels(grid: xr.Dataset, target: str) -> tuple[xr.Dataset, list[Panel]]:
    """The target's cells and its panels: the trained scores, else the perturbed, else exact.

    Panels without any run or number are left out.
    """
    cells = (
        target_cells(grid, target)
        .drop_dims(["time_fraction", "bin", "rows"], errors="ignore")
        .load()
    )
    closed = [divergence.exact for divergence in divergences_of(grid) if divergence.exact]
    families = {str(s): str(f) for s, f in cells["score_family"].to_series().items()}
    exact = [score for score, family in families.items() if family == "exact"]
    trained = [score for score, family in families.items() if family == "trained"]
    perturbed = [score for score in families if score not in (*exact, *trained)]
    panels: list[Panel] = []
    for scores in (trained, perturbed, exact):
        axes = [scores if name == "score" else cells[name].values for name in PANEL_LABELS]
        for values in product(*axes):
            labels = dict(
                zip(PANEL_LABELS, (v.item() for v in map(np.asarray, values)), strict=True)
            )
            here = cells.sel(labels)
            tried = here["status"].isin([DONE, FAILED]).any()
            if not (tried or any(np.isfinite(here[name]).any() for name in closed)):
                continue
            reference = cells.sel({**labels, "score": exact[0]}) if exact else None
            panels.append(Panel(len(panels), labels, here, reference))
        if panels:
            break
    return cells, panels


def _count(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")


def _runs_note(panel: Panel, divergence: Divergence) -> str:
    """How many runs the panel shows, and what became of the others."""
    here = panel.here
    tried = here["status"] != NOT_APPLICABLE
    wanted = int(tried.sum("seed").max())
    shown = finite(here, divergence.name).notnull()
    if wanted == 0 or not tried.any():
        return "closed form, no runs"
    counts = shown.sum("seed").values[tried.any("seed").values]
    failed = int((here["status"] == FAILED).sum())
    done = here["status"] == DONE
    if done.all() and not shown.any() and np.isfinite(finite(here, divergence.exact)).any():
        return "closed form, no runs"
    lost = {
        "failed": failed,
        "not run": int((here["status"] == 0).sum()),
        "not finite": int((done & ~shown).sum()),
    }
    low, high = int(counts.min()), int(counts.max())
    runs = "run" if wanted == 1 else "runs"
    if low == wanted:
        return f"{wanted} {runs}"
    reasons = [(n, why) for why, n in lost.items() if n]
    if low == high and len(reasons) == 1:  # the same at every schedule
        n, why = reasons[0]
        return f"{low} of {wanted} {runs}, {n // counts.size} {why}"
    span = f"{low} of" if low == high else f"{low} to {high} of"
    listed = ", ".join(f"{n} {why}" for n, why in reasons)
    return f"{span} {wanted} {runs} a schedule ({listed} of {int(tried.sum())})"


def _bound_note(panel: Panel, bound: Bound) -> str:
    """Whether the bound's theorem applies to the panel, and if not, why."""
    here = panel.here
    reasons = objections(here, bound)
    failing = list(dict.fromkeys(filter(None, reasons)))
    if not np.isfinite(finite(here, bound.name)).any():
        if not failing and (here["status"] == FAILED).any():
            failing = [why_empty(here)]
        return "no bound" + "".join(f": {reason}" for reason in failing[:1])
    if not failing:
        return "the bound's theorem applies"
    where = "" if all(reasons) else f" at {sum(map(bool, reasons))} of {len(reasons)} schedules"
    return f"the bound's theorem does NOT apply{where}: {'; '.join(failing)}"


def panel_title(
    panel: Panel, grid: xr.Dataset, divergence: Divergence | None, bound: Bound | None
) -> str:
    """What the panel shows: its labels, whether the bound's theorem applies, its runs."""
    labels, here = panel.labels, panel.here
    score = f"score {labels['score']}"
    recipe = str(here["recipe"].item())
    score += f", recipe {recipe}" if recipe else ""
    sampled = divergence is not None and np.isfinite(finite(here, divergence.name)).any()
    if "n_samples" in grid.attrs and sampled:
        score += f"; {_count(float(grid.attrs['n_samples']))} samples a run"
    solver = f"N = {labels['n_steps']} steps, {labels['time_grid']} time grid"
    lines = [
        f"T = {labels['horizon']:g}, {solver}",
        f"sampler {labels['sampler']}",
        score,
        *([_bound_note(panel, bound)] if bound else []),
        *([_runs_note(panel, divergence)] if divergence else []),
    ]
    return "\n".join(line for text in lines for line in textwrap.wrap(text, TITLE_WIDTH))


def target_title(cells: xr.Dataset) -> str:
    return f"{cells['target'].item()}, dimension {int(cells['dimension'])}"
