"""The tables of docs/which-schedule.md: `python docs/which_schedule.py` writes them.

All numbers are those of the published studies `optimised`, `optimised-beyond` and
`few-evaluations`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr
from scipy.stats import t

import sgm

PAGE = Path(__file__).parent / "which-schedule.md"
MADE, END = "<!-- made by docs/which_schedule.py -->\n", "<!-- end of what it made -->\n"
BOUNDS = {"path KL": "kl_path", "refined": "kl_bound_refined", "E1 + E2 + E3": "kl_bound"}


#: Of laws that are not Gaussian: the KL of their moments, and what sees their shape.
BEYOND = {
    "funnel": ("kl_coupled", "sliced_w2_coupled"),
    "mg25": ("kl_coupled", "sliced_w2_coupled"),
    "digits": ("heldout_nll_gap", "sliced_w2"),
}
NAMES = {
    "kl_coupled": "KL of moments",
    "sliced_w2_coupled": "sliced W2",
    "heldout_nll_gap": "held-out NLL",
    "sliced_w2": "sliced W2, plain",
}


class Cell(NamedTuple):
    """The runs of a target, a score and N, by schedule."""

    target: str
    n_steps: int
    grid: xr.Dataset
    divergence: str

    def errors(self) -> dict[str, np.ndarray]:
        """The divergence of each schedule's runs."""
        return {
            str(k): self.grid[self.divergence].sel(schedule=k).values
            for k in self.grid.schedule.values
        }


def optimised() -> Iterator[Cell]:
    """The networks of the study `optimised`."""
    grid = sgm.load_published("optimised").sel(score="explicit").squeeze(drop=True)
    for target in map(str, grid.target.values):
        for n in map(int, grid.n_steps.values):
            yield Cell(target, n, grid.sel(target=target, n_steps=n), "kl_coupled")


def gains() -> Iterator[str]:
    """What the best schedule of the exact score is worth to networks."""
    yield _gains_head("")
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for cell in optimised():
        yield f"| {cell.target} | {cell.n_steps} | " + _gain(cell)


def beyond() -> Iterator[str]:
    """The same for laws that are not Gaussian: the schedule of their mean and covariance."""
    grid = sgm.load_published("optimised-beyond").sel(score="denoising").squeeze(drop=True)
    yield _gains_head("divergence | ")
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for target, divergences in BEYOND.items():
        for divergence in divergences:
            for n in map(int, grid.n_steps.values):
                cell = Cell(target, n, grid.sel(target=target, n_steps=n), divergence)
                yield f"| {target} | {NAMES[divergence]} | {n} | " + _gain(cell)


def _gains_head(column: str) -> str:
    return (
        f"| target | {column}N | VP linear | cosine | best β_a (a) | own best schedule | "
        "difference to the best β_a, 95 % | the worst of the other laws' |"
    )


def _gain(cell: Cell) -> str:
    found = cell.errors()
    own = found[f"best-{cell.target}"]
    best = min((name for name in found if "beta_a" in name), key=lambda n: found[n].mean())
    pairs = own - found[best]
    half = t.ppf(0.975, len(pairs) - 1) * pairs.std(ddof=1) / np.sqrt(len(pairs))
    means = {name: values.mean() for name, values in found.items()}
    shown = {name: f"{mean:.3g}" for name, mean in means.items()}
    least = min(means, key=lambda name: means[name])
    shown[least] = f"**{shown[least]}**"
    others = [means[k] for k in found if k.startswith("best-") and k != f"best-{cell.target}"]
    difference = f"{pairs.mean():.2g} ± {half:.1g}".replace("-", "−")
    return (
        f"{shown['beta_a=0']} | {shown['cosine']} | {shown[best]} ({best.partition('=')[2]}) | "
        f"{shown[f'best-{cell.target}']} | {difference} | {max(others):.3g} |"
    )


def picks() -> Iterator[str]:
    """What following each bound would have cost, among all schedules of the study."""
    yield "| target | N | least error | " + " | ".join(BOUNDS) + " |"
    yield "| --- | ---: | ---: |" + " ---: |" * len(BOUNDS)
    for target, n_steps, cell, divergence in optimised():
        found = Cell(target, n_steps, cell, divergence).errors()
        means = {name: values.mean() for name, values in found.items()}
        best = min(means, key=lambda name: means[name])
        costs = []
        for bound in BOUNDS.values():
            values = cell[bound].mean("seed")
            pick = str(values.schedule.values[int(np.argmin(values.values))])
            costs.append(f"{means[pick] / means[best]:.2f} ({pick})")
        yield f"| {target} | {n_steps} | {means[best]:.3g} ({best}) | {' | '.join(costs)} |"


def few() -> Iterator[str]:
    """Few evaluations of one network by a sampler with memory: where its time points stand."""
    grid = sgm.load_published("few-evaluations").kl_coupled.sel(score="explicit").squeeze(drop=True)
    yield (
        "| target | evaluations | VP linear, uniform | quadratic | arc-tangent | best of cosine "
        "and β_a, any grid | own best points | the worst of the other laws' |"
    )
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for target in map(str, grid.target.values):
        for n in map(int, grid.n_steps.values):
            runs = grid.sel(target=target, n_steps=n).transpose("schedule", "time_grid", "seed")
            points = [
                k for k in runs.schedule.values if k.startswith("best-") and k.endswith(f"-{n}")
            ]
            usual = [k for k in runs.schedule.values if not k.startswith("best-")]
            means = runs.mean("seed", skipna=False)
            place = means.sel(schedule=usual).stack(cell=("schedule", "time_grid")).idxmin().item()
            own = f"best-{target}-{n}"
            told = [*(("beta_a=0", name) for name in _grids(grid)), place, (own, "uniform")]
            cells = [_told(runs.sel(schedule=k, time_grid=g).values) for k, g in told]
            least = int(np.argmin([float(means.sel(schedule=k, time_grid=g)) for k, g in told]))
            cells[least] = f"**{cells[least]}**"
            cells[3] += f" ({place[0]}, {place[1].partition('_')[0]})"
            others = means.sel(schedule=[k for k in points if k != own], time_grid="uniform")
            cells.append(_told(others.max().values.reshape(1)))
            yield f"| {target} | {n} | {' | '.join(cells)} |"


def _told(runs: np.ndarray) -> str:
    """Mean and standard error; ∞ if a run has no finite KL."""
    if not np.isfinite(runs).all():
        return "∞"
    error = f" ± {runs.std(ddof=1) / np.sqrt(len(runs)):.1g}" if len(runs) > 1 else ""
    return f"{runs.mean():.3g}{error}"


def _grids(grid: xr.DataArray) -> list[str]:
    return [str(label) for label in grid.time_grid.values]


def page(text: str) -> str:
    """The page with its tables made anew."""
    tables = iter("\n".join(table()) for table in (gains, beyond, few, picks))
    head, *rest = text.split(MADE)
    return head + "".join(f"{MADE}\n{next(tables)}\n\n{END}{part.split(END)[1]}" for part in rest)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
