"""The grid as a figure reads it: panels, statistics over their runs, and titles."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import xarray as xr

from sgm.store import DONE, FAILED, NOT_APPLICABLE

PANEL_LABELS = ("horizon", "score", "sampler", "time_grid", "n_steps")
TITLE_WIDTH = 62  # characters


@dataclass(frozen=True)
class Quantity:
    """A divergence of the grid: the names of its variables, and its label."""

    axis: str
    label: str
    empirical: str
    floor: str
    floor_sd: str = ""
    exact: str = ""
    bound: str = ""


KL = Quantity(
    "KL", "KL(data ‖ generated)", "kl_plugin", "kl_floor", "kl_floor_sd", "kl_exact", "kl_bound"
)
HELDOUT = Quantity("held-out", "held-out NLL gap", "heldout_nll_gap", "heldout_nll_floor")
BOUNDS = (
    "kl_bound",
    "kl_bound_mixing",
    "kl_bound_score",
    "kl_bound_discretization",
    "kl_bound_discretization_refined",
    "kl_path",
)


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

    @property
    def has_bound(self) -> bool:
        return bool(np.isfinite(self.here["kl_bound"]).any())


def find_panels(grid: xr.Dataset, target: str) -> tuple[xr.Dataset, list[Panel]]:
    """The target's cells and its panels: the trained scores, else the perturbed, else exact.

    Panels without any run or number are left out.
    """
    if target not in grid.indexes["target"]:
        known = ", ".join(map(str, grid["target"].values))
        raise ValueError(f"target = {target!r}: the grid has {known}")
    cells = _completed(grid.sel(target=target).drop_dims("time_fraction", errors="ignore").load())
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
            if not (tried or np.isfinite(here["kl_exact"]).any()):
                continue
            reference = cells.sel({**labels, "score": exact[0]}) if exact else None
            panels.append(Panel(len(panels), labels, here, reference))
        if panels:
            break
    return cells, panels


def _completed(cells: xr.Dataset) -> xr.Dataset:
    """The cells with every variable that a figure reads, NaN where the study has none."""
    blank = xr.full_like(cells["status"], np.nan, dtype=float)
    names = dict.fromkeys((*BOUNDS, KL.empirical, HELDOUT.empirical), blank)
    floors = dict.fromkeys((KL.floor, KL.floor_sd, HELDOUT.floor), np.nan)
    return cells.assign({k: v for k, v in (names | floors).items() if k not in cells})


def in_order(cells: xr.Dataset) -> tuple[list[str], list[str]]:
    """Labels of the β_a schedules by increasing a, and of the others in grid order."""
    in_family = (cells["family"] == "beta_a").values
    names = np.array([str(s) for s in cells["schedule"].values], dtype=object)
    by_a = np.argsort(cells["a"].values[in_family], kind="stable")
    return list(names[in_family][by_a]), list(names[~in_family])


@dataclass(frozen=True)
class Runs:
    """Statistics over the runs of one quantity, each of shape (schedule,)."""

    mean: xr.DataArray
    sd: xr.DataArray
    median: xr.DataArray
    lowest: xr.DataArray
    highest: xr.DataArray
    count: xr.DataArray


def over_runs(values: xr.DataArray) -> Runs:
    if "seed" not in values.dims:
        values = values.expand_dims("seed")
    values = values.where(np.isfinite(values))
    return Runs(
        mean=values.mean("seed"),
        sd=values.std("seed", ddof=1),
        median=values.median("seed"),
        lowest=values.min("seed"),
        highest=values.max("seed"),
        count=values.count("seed"),
    )


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")


def _runs_note(panel: Panel, variable: str) -> str:
    """How many runs the panel shows, and what became of the others."""
    here = panel.here
    tried = here["status"] != NOT_APPLICABLE
    wanted = int(tried.sum("seed").max())
    shown = abs(here[variable]) < np.inf
    if wanted == 0 or not tried.any():
        return "closed form, no runs"
    counts = shown.sum("seed").values[tried.any("seed").values]
    failed = int((here["status"] == FAILED).sum())
    done = here["status"] == DONE
    if done.all() and not shown.any() and np.isfinite(here["kl_exact"]).any():
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


def panel_title(panel: Panel, grid: xr.Dataset, variable: str) -> str:
    labels, here = panel.labels, panel.here
    lines = [
        f"T = {labels['horizon']:g}, N = {labels['n_steps']} steps, {labels['time_grid']} time grid"
    ]
    sampler = f"sampler {labels['sampler']}"
    if not panel.has_bound:
        sampler += " (no bound" + ("" if here["law_known"] else ": law unknown") + ")"
    else:
        proved = bool(here["kl_bound_proved"])
        sampler += f" (bound {'proved' if proved else 'NOT proved'} for it)"
    lines.append(sampler)
    score = f"score {labels['score']}"
    recipe = str(here["recipe"].item())
    score += f", recipe {recipe}" if recipe else ""
    if "n_samples" in grid.attrs and np.isfinite(here[variable]).any():
        score += f"; {_number(float(grid.attrs['n_samples']))} samples a run"
    lines += [score, _runs_note(panel, variable)]
    return "\n".join(line for text in lines for line in textwrap.wrap(text, TITLE_WIDTH))


def target_title(cells: xr.Dataset) -> str:
    return f"{cells['target'].item()}, dimension {int(cells['dimension'])}"


def with_units(label: str, variable: xr.DataArray) -> str:
    """The label and, in the plural, the units of the variable."""
    units = str(variable.attrs.get("units", ""))
    units = "nats" if units == "nat" else units
    return label if units in {"", "1"} else f"{label}, {units}"
