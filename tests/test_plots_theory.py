"""Theory against error: every theorem above the error it bounds, and how well it ranks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sgm import plots
from sgm.plots.engine import C
from sgm.ranking import ranking_table
from tests.grids import fail, synthetic_grid

SAMPLERS = ("ei_modified", "em")


def lines_of(figure: Figure, label: str) -> list[Line2D]:
    return [line for ax in figure.axes for line in ax.lines if line.get_label() == label]


def test_all_totals_stand_above_the_error() -> None:
    grid = synthetic_grid(a=(0, 3, 5), samplers=SAMPLERS, scores=("exact",))
    figure, frame = plots.draw(grid, "theory/isotropic")
    assert set(frame["axis"]) == {"kl", "sliced_w2", "w2"}
    kl = frame[(frame["axis"] == "kl") & (frame["sampler"] == "ei_modified")]
    for name in ("kl_bound", "kl_bound_refined", "kl_path"):
        drawn = kl.loc[kl["curve"] == name, "y"].to_numpy()
        expected = grid[name].sel(score="exact").mean("seed").squeeze(drop=True)
        np.testing.assert_allclose(drawn, expected, rtol=1e-14)
    exact = grid.kl_exact.sel(sampler="ei_modified").squeeze(drop=True)
    np.testing.assert_array_equal(kl.loc[kl["curve"] == "exact kl", "y"], exact)
    assert all(ax.get_yscale() == "log" for ax in figure.axes)
    other = frame[(frame["axis"] == "kl") & (frame["sampler"] == "em")]
    why = " NOT VALID: the theorem is about another sampler"
    assert set(other["curve"]) - {"violation"} == {
        "exact kl", *(f"{name}{why}" for name in ("kl_bound", "kl_bound_refined", "kl_path"))
    }  # fmt: skip
    bounds = lines_of(figure, "path KL (Girsanov)")
    assert {line.get_color() for line in bounds} == {C.GREY_OUT, bounds[0].get_color()}
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert any("kl: the theorem is about another sampler" in title for title in titles)


def test_an_error_below_zero_everywhere_has_a_linear_axis() -> None:
    """As an unbiased estimate may be, where no bound is known."""
    grid = synthetic_grid(a=(0, 3, 5), scores=("exact",))
    for name in ("kl_bound", "kl_bound_refined", "kl_path"):
        grid[name][:] = np.nan
    for name in [n for n in grid.data_vars if str(n).startswith("kl_")]:
        if grid[name].dtype.kind == "f":
            grid[name] = (-abs(grid[name])).assign_attrs(grid[name].attrs)
    figure, frame = plots.draw(grid, "theory/isotropic")
    assert (frame.loc[frame["axis"] == "kl", "y"].dropna() <= 0).all()
    assert "linear" in [ax.get_yscale() for ax in figure.axes]


def test_a_cross_marks_where_the_error_exceeds_a_bound() -> None:
    grid = synthetic_grid(a=(0, 3, 5), samplers=SAMPLERS, scores=("exact",))
    assert "violation" not in set(plots.draw(grid, "theory/isotropic")[1]["curve"])
    low = xr.where(grid.a == 3, 0.5, 2) * grid.kl_exact.sel(sampler="em", drop=True)
    grid["kl_path"] = (low + 0 * grid.kl_path).transpose(*grid.kl_path.dims).assign_attrs(
        grid.kl_path.attrs
    )  # fmt: skip
    figure, frame = plots.draw(grid, "theory/isotropic")
    marks = frame[frame["curve"] == "violation"]
    table = ranking_table(grid)
    rows = table[(table["bound"] == "kl_path") & (table["among"] == "all")]
    assert len(marks) == rows["violations"].sum() > 0
    at = marks[(marks["sampler"] == "em") & (marks["axis"] == "kl")]
    assert at["a"].tolist() == [3.0]
    np.testing.assert_allclose(
        at["y"], 0.5 * grid.kl_exact.sel(sampler="em", schedule="beta_a=3").item()
    )
    assert lines_of(figure, "the error exceeds it")


def test_networks_are_drawn_by_what_their_runs_resolve() -> None:
    grid = synthetic_grid(a=(0, 3, 5))
    _, frame = plots.draw(grid, "theory/isotropic")
    assert "empirical kl" in set(frame["curve"])
    grid["kl_coupled"] = grid["kl_plugin"].drop_attrs() * 0.01
    grid["kl_plugin"].attrs["coupled"] = "kl_coupled"
    _, frame = plots.draw(grid, "theory/isotropic")
    drawn = frame[frame["curve"] == "coupled kl"]
    runs = grid.kl_coupled.sel(score="trained").squeeze(drop=True)
    np.testing.assert_allclose(drawn["y"], runs.mean("seed"))
    np.testing.assert_allclose(drawn["high"], runs.max("seed"))


@pytest.mark.parametrize(
    "options",
    [
        {"a": ()},
        {"a": (0.0,), "cosine": False},
        {"n_seeds": 1},
        {"horizons": (0.5, 1.0), "n_steps": (10, 20), "samplers": SAMPLERS},
        {"targets": ("isotropic", "other"), "scores": ("exact", "scaled")},
    ],
)
def test_every_study_draws(options: dict[str, Any]) -> None:
    grid = synthetic_grid(**({"a": (-5, 0, 5)} | options))
    for stem in ("theory/isotropic", "agreement"):
        figure, frame = plots.draw(grid, stem)
        figure.draw_without_rendering()
        several = grid.sizes["schedule"] > 1
        assert frame.empty == (stem == "agreement" and not several)


def test_a_failed_study_says_so() -> None:
    grid = fail(synthetic_grid(a=(-5, 0, 5), scores=("trained",)))
    for stem, why in (("theory/isotropic", "runs failed"), ("agreement", "no bound beside")):
        figure, frame = plots.draw(grid, stem)
        assert frame.empty
        assert any(why in text.get_text() for ax in figure.axes for text in ax.texts)


def test_agreement_draws_the_ranking() -> None:
    grid = synthetic_grid(a=(0, 3, 5, 8), targets=("one", "two"), samplers=SAMPLERS)
    figure, frame = plots.draw(grid, "agreement")
    table = ranking_table(grid)
    table = table[(table["varies"] == "schedule") & (table["among"] == "all")]
    ends = {"ratio": "ratio_median", "spearman": "spearman", "regret": "regret"}
    keys = ["target", "score", "sampler", "divergence"]
    for axis, column in ends.items():
        drawn = frame[frame["axis"] == axis].merge(
            table, left_on=[*keys, "curve"], right_on=[*keys, "bound"], suffixes=("", "_table")
        )
        assert len(drawn) == (frame["axis"] == axis).sum() > 0
        np.testing.assert_array_equal(drawn["y"], drawn[column])
    assert set(frame["series"]) == {"one", "two"}
    # what is a theorem comes first; a panel has three axes
    first = frame[frame["panel"] == 0]
    assert first["covered"].all()
    assert len(figure.axes) == 3 * frame["panel"].nunique()
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert "kl: path KL (Girsanov)" in names
