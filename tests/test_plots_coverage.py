"""The coverage figure: errors of coupled estimates, and the share of their intervals."""

from __future__ import annotations

import numpy as np
import xarray as xr

from sgm import plots
from sgm.measures.coverage import COVERAGE
from tests.grids import synthetic_grid

ROWS = [250, 1000]


def covered_grid() -> xr.Dataset:
    """Numbers of networks on two targets; the exact score has none."""
    grid = synthetic_grid(a=(0,), cosine=False, targets=("gaussian-2", "gaussian-10"), n_seeds=1)
    grid = grid.assign_coords(dimension=("target", [2, 10]), rows=ROWS)
    rng = np.random.default_rng(0)
    for variable in COVERAGE:
        values = 10.0 ** -rng.uniform(0, 3, [grid.sizes[axis] for axis in variable.axes])
        if variable.name.endswith("_share"):
            values = np.full_like(values, 0.95)
        own = xr.DataArray(values, dims=variable.axes, attrs=variable.attributes | {"sets": 10})
        grid[variable.name] = own.where(grid["score"] == "trained").assign_attrs(own.attrs)
    return grid


def test_errors_stand_against_the_truth_and_shares_against_rows() -> None:
    grid = covered_grid()
    figure, frame = plots.draw(grid, "coverage")
    figure.draw_without_rendering()
    assert set(frame["score"]) == {"trained"}
    assert set(frame["estimate"]) == {"kl", "w2", "sliced_w2", "w2_sample", "mmd", "nll"}
    at = frame.set_index(["estimate", "target", "rows"]).sort_index()
    for _, row in frame.iterrows():
        cell = grid.sel(target=row["target"], score="trained").squeeze(drop=True)
        for kind in ("error", "stated", "plain", "share"):
            value = cell[f"coverage_{row['estimate']}_{kind}"].sel(rows=row["rows"])
            assert row[kind] == value
        assert row["truth"] == cell[f"coverage_{row['estimate']}_truth"]
    # what is drawn: relative errors, but of the NLL, which may be zero, the error itself
    drawn = np.concatenate([line.get_ydata() for ax in figure.axes for line in ax.lines])
    kl, nll = at.loc[("kl", "gaussian-10", 250)], at.loc[("nll", "gaussian-10", 250)]
    assert np.isin([kl["error"] / kl["truth"], nll["error"]], drawn).all()
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]
    assert len(titles) == 6
    assert all("95% of intervals contain the truth" in title for title in titles)
