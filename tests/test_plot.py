"""`sgm.plot`: the numbers of a grid on axes, and one error for what can't be drawn."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from matplotlib.axes import Axes

import sgm
from sgm.store import NOT_APPLICABLE
from tests.test_docs import one

CELLS = {"target": "correlated", "score": "exact", "sampler": "exponential_integrator_modified"}


@pytest.fixture(autouse=True)
def _closed() -> Any:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def grid() -> xr.Dataset:
    return sgm.load_published("exact-kl")


def curve(ax: Axes, label: str) -> npt.NDArray[np.float64]:
    """x and y of the curve of a legend's entry, without those that are levels."""
    found = [line for line in ax.lines if line.get_label() == label and len(line.get_xdata()) > 2]
    (line,) = found
    return np.array([line.get_xdata(), line.get_ydata()])


def numbers(grid: xr.Dataset, name: str) -> npt.NDArray[np.float64]:
    """a, and a variable along it, as the grid has them."""
    own = grid.isel(schedule=(grid["family"] == "beta_a").values)
    own = own.sel({key: value for key, value in CELLS.items() if key in own[name].dims})
    return np.array([own["a"].values, own[name].squeeze().values])


def test_the_papers_figure_is_a_few_lines(grid: xr.Dataset) -> None:
    text = one("README.md", "python", "Without running anything")
    assert len(text.splitlines()) < 10
    names: dict[str, Any] = {}
    exec(text, names)
    above, below = names["figure"].axes
    np.testing.assert_array_equal(curve(above, "upper bound"), numbers(grid, "kl_bound"))
    exact = curve(below, "exact score, exact value")
    np.testing.assert_array_equal(exact, numbers(grid, "kl_exact"))
    assert below.get_yscale() == "log"
    assert "a$ of beta_a" in below.get_xlabel()


def test_axes_are_the_users_or_new_ones(grid: xr.Dataset) -> None:
    figure, (first, second) = plt.subplots(2)
    assert sgm.plot.divergence(grid, "kl", ax=second, **CELLS) is second
    assert not first.lines
    assert figure.axes == [first, second]
    new = sgm.plot.divergence(grid, "kl", **CELLS)
    assert new.figure is plt.gcf() is not figure
    for ax in (second, new):
        assert "score exact" in ax.get_title("left").replace("\n", " ")
        assert "cosine" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_bound_is_grey_where_it_is_none(grid: xr.Dataset) -> None:
    ax = sgm.plot.bound(grid, "kl_bound", **CELLS | {"sampler": "euler_maruyama"})
    assert "NOT valid" in ax.get_ylabel().replace("\n", " ")
    assert "the theorem is about another sampler" in ax.get_title("left").replace("\n", " ")
    assert not [line for line in ax.lines if line.get_label() == "upper bound"]


def test_terms_and_theorems_are_the_grids(grid: xr.Dataset) -> None:
    ax = sgm.plot.decomposition(grid, "kl_bound", **CELLS)
    columns = {"E1 mixing": "kl_bound_mixing", "E3 discretization": "kl_bound_discretization"}
    for label, name in columns.items():
        own = curve(ax, label)[1]
        np.testing.assert_array_equal(own[:21], numbers(grid, name)[1])
    stack = sgm.plot.decomposition(grid, "kl_bound", stacked=True, **CELLS)
    tops = [bar.get_y() + bar.get_height() for bars in stack.containers for bar in bars]
    assert max(tops) == pytest.approx(numbers(grid, "kl_bound")[1].max())
    theory = sgm.plot.theory(grid, "kl", **CELLS)
    assert "path KL (Girsanov)" in [text.get_text() for text in theory.get_legend().get_texts()]


@pytest.mark.parametrize(("name", "variable"), [("beta", "schedule_beta"), ("std", "schedule_std")])
def test_schedules_are_curves_against_time(grid: xr.Dataset, name: str, variable: str) -> None:
    ax = sgm.plot.schedules(grid, name, schedule=["cosine"])
    times, values = curve(ax, "cosine")
    own = grid[variable].sel(schedule="cosine").squeeze()
    np.testing.assert_array_equal(values, own)
    np.testing.assert_array_equal(times, own["time_fraction"])


def test_cells_are_chosen_by_numbers_of_any_coordinate(grid: xr.Dataset) -> None:
    ax = sgm.plot.divergence(grid, "kl", a=[-3, 0, 2.0], n_steps=500, horizon=1, **CELLS)
    np.testing.assert_array_equal(curve(ax, "exact score, exact value")[0], [-3, 0, 2])
    ax = sgm.plot.divergence(grid, "kl", family="beta_a", **CELLS)
    assert "cosine" not in [text.get_text() for text in ax.get_legend().get_texts()]
    (chosen,) = (grid.sel(target=["correlated"], score=["exact"], sampler=[CELLS["sampler"]]),)
    ax = sgm.plot.divergence(chosen, "kl")
    np.testing.assert_array_equal(curve(ax, "exact score, exact value"), numbers(grid, "kl_exact"))


@pytest.mark.parametrize(
    ("name", "cells", "message"),
    [
        ("kl", {"target": None}, r"target = None: the cells have isotropic, .*correlated"),
        ("kl", {"sampler": ["euler_maruyama", "euler_arrival"]}, "sampler: must be one of euler_m"),
        ("kl", {"a": 77}, r"a = 77: the cells have -10.0, -9.0"),
        ("kl", {"shape": 1}, "shape: must be a coordinate along an axis of the grid, .*schedule"),
        ("kl", {"dimension": 50, "score": "trained"}, "score = 'trained': the cells have exact"),
        ("sliced", {}, "divergence = 'sliced': must be one of the grid's, kl"),
        ("kl", {"x": "eta"}, "x = 'eta': must be a number that varies in the grid, a"),
    ],
)
def test_what_can_not_be_drawn_is_one_line(
    grid: xr.Dataset, name: str, cells: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        sgm.plot.divergence(grid, name, **CELLS | cells)
    assert "\n" not in str(refused.value)
    assert not plt.get_fignums()


def test_what_a_grid_does_not_have_is_named(grid: xr.Dataset) -> None:
    with pytest.raises(ValueError, match="target: must be one of isotropic, "):
        sgm.plot.divergence(grid, "kl")
    with pytest.raises(ValueError, match="data: no longer has the axis 'score': must be chosen by"):
        sgm.plot.divergence(grid.sel(score="exact"), "kl", target="correlated")
    with pytest.raises(ValueError, match="bound = 'w2': must be one of the grid's, kl_bound"):
        sgm.plot.bound(grid, "w2", **CELLS)
    with pytest.raises(ValueError, match="name = 'snr': must be one of beta, mean_scale, std"):
        sgm.plot.schedules(grid, "snr")
    nothing = grid.copy()
    nothing["kl_exact"] = nothing["kl_exact"] * np.nan
    nothing["w2_exact"] = nothing["w2_exact"] * np.nan
    nothing["status"] = nothing["status"] * 0 + NOT_APPLICABLE
    with pytest.raises(ValueError, match=r"KL.*: no run in the study"):
        sgm.plot.divergence(nothing, "kl", **CELLS)
    without = grid.copy()
    without["kl_bound_objection"] = without["kl_bound_objection"] * 0 + 1
    without["kl_bound"] = without["kl_bound"] * np.nan
    with pytest.raises(ValueError, match="kl_bound: the cells have no value of it"):
        sgm.plot.bound(without, "kl_bound", **CELLS)


def test_every_name_is_documented() -> None:
    for name in sgm.plot.__all__:
        assert "Raises" in getattr(sgm.plot, name).__doc__, name
