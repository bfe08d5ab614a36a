"""Figures are views: what they draw is what the CSV says, and that is what the grid says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure

from sgm import plots
from sgm.plots.cells import NOT_VALID
from sgm.plots.engine import C
from tests.grids import ABOUT, BEST_A, FLOOR, FLOOR_SD, W2_FLOOR, fail, synthetic_grid

KL_PARTS = str(ABOUT["kl_bound"]["parts"]).split()


def kl_figure(grid: xr.Dataset, target: str) -> tuple[Figure, pd.DataFrame]:
    return plots.divergence_figure(grid, target, "kl")


def curve(frame: pd.DataFrame, name: str, panel: int = 0, axis: str | None = None) -> pd.DataFrame:
    rows = frame[(frame["panel"] == panel) & (frame["curve"] == name)]
    return rows if axis is None else rows[rows["axis"] == axis]


def titles(figure: Figure) -> list[str]:
    return [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]


def said(figure: Figure) -> str:
    """All that the head and the titles say, in one line."""
    texts = [*(text.get_text() for text in figure.texts), *titles(figure)]
    return " ".join(" ".join(texts).split())


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()] if figure.legends else []


def drawn_lines(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(line.get_ydata(), float) for ax in figure.axes for line in ax.lines]


# --- the numbers -------------------------------------------------------------------


def test_the_kl_frame_holds_the_statistics_of_the_grid() -> None:
    grid = fail(synthetic_grid(), schedule="beta_a=4", seed=[1, 2])
    _, frame = kl_figure(grid, "isotropic")
    beta = grid.isel(schedule=slice(0, 21)).sel(score="trained").squeeze(drop=True)
    kl, bound = beta.kl_plugin.values, beta.kl_bound.values
    rows = curve(frame, "empirical")
    np.testing.assert_array_equal(rows["x"], beta.a.values)
    np.testing.assert_allclose(rows["y"], np.nanmean(kl, axis=1), rtol=1e-14)
    sd = np.nanstd(kl, axis=1, ddof=1)
    np.testing.assert_allclose(rows["high"] - rows["y"], sd, rtol=1e-10)
    np.testing.assert_allclose(rows["y"] - rows["low"], sd, rtol=1e-10)
    np.testing.assert_array_equal(rows["n_runs"], [10] * 14 + [8] + [10] * 6)
    np.testing.assert_array_equal(rows["n_failed"], [0] * 14 + [2] + [0] * 6)
    np.testing.assert_allclose(curve(frame, "bound")["y"], np.nanmean(bound, axis=1))
    exact = grid.isel(schedule=slice(0, 21)).sel(score="exact").kl_exact.values.ravel()
    np.testing.assert_array_equal(curve(frame, "exact score")["y"], exact)
    np.testing.assert_allclose(curve(frame, "exact score + floor")["y"], exact + FLOOR)


def test_levels_and_minima_of_the_kl_frame() -> None:
    grid = synthetic_grid(constant=True)
    _, frame = kl_figure(grid, "isotropic")
    trained = grid.sel(score="trained").squeeze(drop=True).kl_plugin
    labels = {"level a = 0": "beta_a=0", "level cosine": "cosine", "level constant": "constant"}
    for level, schedule in labels.items():
        (row,) = curve(frame, level, axis="kl").to_dict("records")
        runs = trained.sel(schedule=schedule).values
        assert np.isnan(row["x"])
        np.testing.assert_allclose(row["y"], runs.mean())
        if level != "level a = 0":  # its band is that of the curve at 0
            np.testing.assert_allclose(row["high"] - row["low"], 2 * runs.std(ddof=1))
    (floor,) = curve(frame, "floor").to_dict("records")
    np.testing.assert_allclose(
        [floor["y"], floor["low"], floor["high"]], [FLOOR, FLOOR - FLOOR_SD, FLOOR + FLOOR_SD]
    )
    assert curve(frame, "minimum")["x"].tolist() == [BEST_A["kl"]]
    assert curve(frame, "minimum of bound")["x"].tolist() == [BEST_A["bound"]]


@pytest.mark.parametrize("view", [kl_figure, plots.decomposition_figure])
def test_every_number_of_the_frame_is_drawn(view: Callable[..., plots.Drawn]) -> None:
    figure, frame = view(synthetic_grid(), "isotropic")
    lines = drawn_lines(figure)
    for (axis, name, _), rows in frame.groupby(["axis", "curve", "series"]):
        if axis == "stack" and name in KL_PARTS:
            bars = [p for ax in figure.axes for p in ax.patches]
            for low, high in zip(rows["low"], rows["high"], strict=True):
                assert any(
                    np.isclose(b.get_y(), low) and np.isclose(b.get_y() + b.get_height(), high)
                    for b in bars
                )
            continue
        y = rows["y"].to_numpy()
        level = rows["x"].isna().all() and not name.startswith("minimum")
        y = np.repeat(y, 2) if level else y  # a level has two ends
        assert any(line.shape == y.shape and np.array_equal(line, y) for line in lines), name


def test_the_stack_adds_up_to_the_bound() -> None:
    grid = synthetic_grid()
    _, frame = plots.decomposition_figure(grid, "isotropic")
    trained = grid.sel(score="trained").squeeze(drop=True)
    parts = {
        "kl_bound_discretization": trained.kl_bound_discretization,
        "kl_bound_score": trained.kl_bound_score.mean("seed"),
        "kl_bound_mixing": trained.kl_bound_mixing,
    }
    for name, value in parts.items():
        np.testing.assert_allclose(curve(frame, name, axis="stack")["y"], value.values)
        np.testing.assert_allclose(curve(frame, name, axis="lines")["y"], value.values)
    total = trained.kl_bound.mean("seed").values
    np.testing.assert_allclose(curve(frame, "kl_bound_mixing", axis="stack")["high"], total)
    np.testing.assert_allclose(curve(frame, "kl_bound", axis="lines")["y"], total)
    refined = sum(parts.values()) - trained.kl_bound_discretization
    refined = refined + trained.kl_bound_discretization_refined
    for axis in ("stack", "lines"):
        rows = curve(frame, "kl_bound_refined", axis=axis)
        np.testing.assert_allclose(rows["y"], refined.values)
    kl = trained.kl_plugin.values
    np.testing.assert_array_equal(curve(frame, "kl_plugin")["low"], kl.min(axis=1))
    np.testing.assert_array_equal(curve(frame, "kl_plugin")["high"], kl.max(axis=1))


def test_the_schedules_frame_is_the_grid() -> None:
    grid = synthetic_grid(a=(-10, 0, 10), horizons=(1.0, 2.0), constant=True)
    figure, frame = plots.schedules_figure(grid)
    assert frame["panel"].nunique() == 2
    rows = frame[
        (frame["horizon"] == 2) & (frame["axis"] == "schedule_std") & (frame["curve"] == "cosine")
    ]
    np.testing.assert_array_equal(rows["x"], 2 * grid.time_fraction)
    np.testing.assert_array_equal(rows["y"], grid.schedule_std.sel(horizon=2, schedule="cosine"))
    assert legend(figure) == ["cosine", "constant"]


# --- what the figure says ----------------------------------------------------------


def test_the_head_says_what_panels_share_and_titles_what_differs() -> None:
    figure, frame = kl_figure(synthetic_grid(samplers=("ei_modified", "em")), "isotropic")
    first, second = (" ".join(title.split()) for title in titles(figure))
    assert first == "sampler ei_modified the bound's theorem applies"
    assert second.startswith("sampler em the bound's theorem does NOT apply: ")
    assert second.endswith("the theorem is about another sampler")
    head = said(figure).partition(first)[0]
    assert head.startswith("isotropic, dimension 50: KL(data ‖ generated) T = 1, ")
    assert "N = 500 steps, uniform time grid, score trained, recipe default; " in head
    assert "; 10 000 samples a run; 10 runs" in head
    assert frame["panel"].nunique() == 2


@pytest.mark.parametrize(
    ("where", "note"),
    [
        ({"seed": 3}, "9 of 10 runs, 1 failed"),
        (
            {"schedule": "beta_a=3", "seed": [0, 4]},
            "8 to 10 of 10 runs a point (2 failed of 60)",
        ),
        ({"schedule": "cosine"}, "0 to 10 of 10 runs a point (10 failed of 60)"),
        ({}, "0 of 10 runs, 10 failed"),
    ],
)
def test_the_title_counts_failed_runs(where: dict[str, Any], note: str) -> None:
    grid = fail(synthetic_grid(a=(-10, -5, 0, 3, 8)), **where)
    figure, _ = kl_figure(grid, "isotropic")
    assert f"; {note}" in said(figure)


def test_runs_that_are_missing_or_infinite_are_named() -> None:
    grid = synthetic_grid(a=(0, 5), cosine=False)
    status, kl = grid.status.copy(), grid.kl_plugin.copy()
    status[0, :, 0, 1, 0, 0, 0, 0] = 0
    kl[0, :, 0, 1, 0, 0, 0, 0] = np.nan
    kl[0, 0, 0, 1, 0, 0, 0, 1] = np.inf
    figure, frame = kl_figure(grid.assign(status=status, kl_plugin=kl), "isotropic")
    assert "; 8 to 9 of 10 runs a point (2 not run, 1 not finite of 20)" in said(figure)
    assert np.isfinite(curve(frame, "empirical")["y"]).all()


def test_failed_points_are_marked() -> None:
    grid = synthetic_grid(a=(-5, 0, 5))
    assert "point with failed runs" not in legend(kl_figure(grid, "isotropic")[0])
    marked = kl_figure(fail(grid, seed=0), "isotropic")[0]
    assert "point with failed runs" in legend(marked)


def test_the_right_axis_is_logarithmic_only_past_two_decades() -> None:
    narrow, _ = kl_figure(synthetic_grid(), "isotropic")
    assert narrow.axes[1].get_yscale() == "linear"
    wide, _ = kl_figure(synthetic_grid(scale=100.0), "isotropic")
    assert wide.axes[1].get_yscale() == "log"
    assert "log scale" in wide.axes[1].get_ylabel()
    assert wide.axes[0].get_yscale() == "linear"


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'isotropc': the grid has isotropic"):
        kl_figure(synthetic_grid(a=(0,)), "isotropc")


# --- edge cases --------------------------------------------------------------------

GRIDS = {
    "one a": {"a": (0.0,)},
    "one seed, no cosine": {"a": (2.0,), "n_seeds": 1, "cosine": False},
    "no β_a": {"a": (), "constant": True},
    "exact only": {"scores": ("exact",), "a": (-5, 0, 5), "horizons": (1.0, 2.0)},
    "perturbed": {"scores": ("exact", "scaled"), "a": (-5, 0, 5)},
    "no exact score": {"scores": ("trained",), "a": (-5, 0, 5), "n_seeds": 2},
    "several steps and samplers": {
        "a": (-5, 5),
        "n_steps": (50, 500),
        "samplers": ("ei_modified", "em"),
    },
}


@pytest.mark.parametrize("name", GRIDS)
def test_every_study_draws(name: str) -> None:
    figure, frame = kl_figure(synthetic_grid(**GRIDS[name]), "isotropic")
    figure.draw_without_rendering()
    assert len(frame)


@pytest.mark.parametrize("name", ["one seed, no cosine", "no β_a", "no exact score"])
def test_every_decomposition_draws(name: str) -> None:
    figure, frame = plots.decomposition_figure(synthetic_grid(**GRIDS[name]), "isotropic")
    figure.draw_without_rendering()
    assert len(frame)


@pytest.mark.parametrize("name", ["one a", "no β_a"])
def test_every_set_of_schedules_draws(name: str) -> None:
    figure, frame = plots.schedules_figure(synthetic_grid(**GRIDS[name]))
    figure.draw_without_rendering()
    assert len(frame)


@pytest.mark.parametrize("scores", [("exact",), ("exact", "scaled"), ("exact", "trained")])
def test_without_a_beta_a_schedule_each_schedule_is_a_column(
    scores: tuple[str, str] | tuple[str],
) -> None:
    grid = synthetic_grid(a=(), constant=True, scores=scores)
    figure, frame = kl_figure(grid, "isotropic")
    figure.draw_without_rendering()
    assert not frame["curve"].str.startswith("level").any()
    name = "empirical" if "trained" in scores else "exact score"
    rows = curve(frame, name)
    assert rows["schedule"].tolist() == ["cosine", "constant"]
    assert rows["x"].is_monotonic_increasing
    kl = grid.kl_exact.sel(score="exact").squeeze(drop=True)
    if "trained" in scores:
        kl = grid.kl_plugin.sel(score="trained").squeeze(drop=True).mean("seed")
    np.testing.assert_allclose(rows["y"], kl)
    ticks = [text.get_text() for text in figure.axes[-1].get_xticklabels()]
    assert ticks == ["cosine", "constant"]
    assert len(curve(frame, "minimum")) == 1  # of the columns
    drawn = np.concatenate(drawn_lines(figure))
    assert np.isin(rows["y"], drawn).all()


def test_without_a_beta_a_schedule_failed_runs_draw() -> None:
    grid = fail(synthetic_grid(a=(), constant=True), schedule="constant")
    figure, frame = kl_figure(grid, "isotropic")
    figure.draw_without_rendering()
    assert curve(frame, "empirical")["y"].isna().tolist() == [False, True]
    figure, frame = kl_figure(fail(grid), "isotropic")
    figure.draw_without_rendering()


def test_labels_say_nats() -> None:
    grid = synthetic_grid(a=(-5, 0, 5), unknown_targets=("digits",))
    for variable in grid.data_vars.values():
        if variable.attrs.get("units") == "nats":
            variable.attrs["units"] = "nat"
    for view, target in product((kl_figure, plots.decomposition_figure), grid.target.values):
        figure, _ = view(grid, str(target))
        labels = [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel()]
        assert labels
        assert all("nats" in label for label in labels)


def test_a_seed_alone_has_no_band() -> None:
    _, frame = kl_figure(synthetic_grid(n_seeds=1), "isotropic")
    assert curve(frame, "empirical")[["low", "high"]].isna().all(axis=None)


def test_a_score_that_a_divergence_says_nothing_of_has_no_panel() -> None:
    """Its runs are done and have no number; one that failed, or an infinite one, is shown."""
    grid = synthetic_grid(scores=("scaled", "trained"))
    own = {"score": "trained", "target": "isotropic"}
    names = [name for name in grid if str(name).startswith("kl_") and "seed" in grid[name].dims]
    for name in names:
        grid[name].loc[own] = np.nan
    _, frame = kl_figure(grid, "isotropic")
    assert set(frame.loc[frame["axis"] == "kl", "score"]) == {"scaled"}
    grid["kl_plugin"].loc[own] = np.inf
    figure, _ = kl_figure(grid, "isotropic")
    assert "not finite" in said(figure)


def test_an_exact_study_shows_its_law() -> None:
    grid = synthetic_grid(scores=("exact",))
    figure, frame = kl_figure(grid, "isotropic")
    assert "; closed form, no runs" in said(figure)
    assert curve(frame, "minimum")["x"].tolist() == [BEST_A["kl_exact"]]
    level = float(grid.kl_exact.sel(schedule="cosine").item())
    assert curve(frame, "level cosine", axis="kl")["y"].tolist() == [level]


def test_data_of_unknown_law_have_no_bound_but_a_heldout_figure() -> None:
    grid = synthetic_grid(unknown_targets=("digits",))
    figure, frame = kl_figure(grid, "digits")
    figure.draw_without_rendering()
    assert set(frame["axis"]) == {"kl"}
    assert len(figure.axes) == 1  # no twin for a bound
    assert "no bound: the law of the data is unknown" in said(figure)
    figure, frame = plots.draw(grid, "heldout_nll/digits")
    figure.draw_without_rendering()
    assert "bound" not in said(figure)
    gap = grid.heldout_nll_gap.sel(target="digits", score="trained").squeeze(drop=True)
    rows = curve(frame, "empirical", axis="heldout_nll")
    np.testing.assert_allclose(rows["y"], gap.isel(schedule=slice(0, 21)).mean("seed"))
    floor = grid.heldout_nll_floor.sel(target="digits")
    (row,) = curve(frame, "floor", axis="heldout_nll").to_dict("records")
    np.testing.assert_allclose(row["y"], floor.mean())
    np.testing.assert_allclose(row["high"] - row["y"], floor.std(ddof=1))
    plots.decomposition_figure(grid, "digits")[0].draw_without_rendering()


@pytest.mark.parametrize("missing", ["kl_bound", "kl_unbiased", "kl_floor", "kl_exact"])
def test_a_study_without_a_companion_draws_the_others(missing: str) -> None:
    grid = synthetic_grid(a=(-5, 0, 5), unknown_targets=("digits",))
    full = set(kl_figure(grid, "isotropic")[1]["curve"])
    grid = grid.drop_vars([name for name in grid.data_vars if str(name).startswith(missing)])
    lost = {
        "kl_bound": {"bound", "minimum of bound"},
        "kl_unbiased": set(),
        "kl_floor": {"floor", "exact score + floor"},
        "kl_exact": {"exact score", "exact score + floor"},
    }
    assert set(kl_figure(grid, "isotropic")[1]["curve"]) == full - lost[missing]
    assert len(kl_figure(grid, "digits")[1])


def test_a_study_without_the_divergence_says_so() -> None:
    grid = synthetic_grid(a=(0, 5)).drop_vars("kl_plugin")
    with pytest.raises(
        ValueError, match=r"divergence = 'kl': must be one of the grid's, heldout_nll, "
    ):
        kl_figure(grid, "isotropic")
    with pytest.raises(ValueError, match=r"bound = 'mine': must be one of the grid's, kl_bound, "):
        plots.decomposition_figure(grid, "isotropic", "mine")


def test_a_target_without_cells_draws_an_empty_figure() -> None:
    grid = synthetic_grid(a=(0,), scores=("exact",), unknown_targets=("digits",))
    for view in (kl_figure, plots.decomposition_figure, plots.comparison_figure):
        figure, frame = view(grid, "digits")
        figure.draw_without_rendering()
        assert frame.empty


# --- any divergence, any bound -----------------------------------------------------

STEMS = (
    "kl/isotropic",
    "w2/isotropic",
    "sliced_w2/isotropic",
    "mmd/isotropic",
    "kl_decomposition/isotropic",
    "w2_decomposition/isotropic",
    "comparison/isotropic",
    "calibration",
    "schedules",
)


def test_another_divergence_is_drawn_like_the_kl() -> None:
    grid = synthetic_grid()
    figure, frame = plots.draw(grid, "w2/isotropic")
    beta = grid.isel(schedule=slice(0, 21))
    trained = beta.sel(score="trained").squeeze(drop=True)
    np.testing.assert_allclose(curve(frame, "empirical")["y"], trained.w2_plugin.mean("seed"))
    np.testing.assert_allclose(curve(frame, "bound")["y"], trained.w2_bound.mean("seed"))
    exact = beta.sel(score="exact").w2_exact.values.ravel()
    np.testing.assert_array_equal(curve(frame, "exact score")["y"], exact)
    assert curve(frame, "exact score + floor").empty  # nobody said how the floor adds
    (row,) = curve(frame, "floor").to_dict("records")
    floor = grid.w2_plugin_floor.values
    np.testing.assert_allclose(row["y"], floor.mean())
    np.testing.assert_allclose(row["high"] - row["y"], floor.std(ddof=1))
    assert abs(row["y"] - W2_FLOOR) < 0.01
    labels = [ax.get_ylabel() for ax in figure.axes]
    assert labels == ["upper bound on W2", "W2(data, generated)"]


def test_a_floor_may_add_in_squares() -> None:
    grid = synthetic_grid(a=(-5, 0, 5))
    grid.w2_plugin.attrs["floor_power"] = 2
    _, frame = plots.draw(grid, "w2/isotropic")
    exact = curve(frame, "exact score")["y"].to_numpy()
    floor = float(grid.w2_plugin_floor.mean())
    np.testing.assert_allclose(curve(frame, "exact score + floor")["y"], np.hypot(exact, floor))


def test_a_divergence_of_the_user_needs_no_companion() -> None:
    grid = synthetic_grid(a=(-5, 0, 5))
    grid["mine"] = grid.kl_plugin.copy().assign_attrs()
    grid["mine"].attrs = {"role": "divergence", "units": "bananas"}
    figure, frame = plots.draw(grid, "mine/isotropic")
    assert set(frame["curve"]) == {
        "empirical", "minimum", "minimum of all", "level a = 0", "level cosine",
    }  # fmt: skip
    assert figure.axes[0].get_ylabel() == "mine, bananas"


def test_two_divergences_with_one_figure_are_refused() -> None:
    grid = synthetic_grid(a=(0,))
    grid["mmd"].attrs["figure"] = "kl"
    with pytest.raises(
        ValueError, match="figure = 'kl' of mmd: must differ from that of kl_plugin"
    ):
        kl_figure(grid, "isotropic")


def test_a_level_far_from_zero_is_drawn_in_its_own_range() -> None:
    figure, _ = plots.draw(synthetic_grid(a=(-5, 0, 5)), "nll/isotropic")
    (ax,) = figure.axes
    assert ax.get_ylim()[0] > 49
    assert "axis not from 0" in ax.get_ylabel().replace("\n", " ")
    figure, _ = kl_figure(synthetic_grid(a=(-5, 0, 5)), "isotropic")
    assert figure.axes[1].get_ylim()[0] == 0


def colors(figure: Figure, y: np.ndarray) -> set[tuple[object, object]]:
    """Colour and line style of the lines that are drawn at these values."""
    return {
        (line.get_color(), line.get_linestyle())
        for ax in figure.axes
        for line in ax.lines
        if np.array_equal(np.asarray(line.get_ydata(), float), y, equal_nan=True)
    }


def test_a_bound_whose_theorem_fails_never_looks_like_one() -> None:
    grid = synthetic_grid(targets=("isotropic", "funnel"), surrogates=("funnel",), a=(-5, 0, 5))
    reason = "a Gaussian surrogate stands for the law"
    valid, frame = plots.draw(grid, "w2/isotropic")
    assert colors(valid, curve(frame, "bound")["y"].to_numpy()) == {(C.BLUE, "-")}
    figure, frame = plots.draw(grid, "w2/funnel")
    assert curve(frame, "bound").empty
    assert curve(frame, "minimum of bound").empty
    rows = curve(frame, f"bound{NOT_VALID}{reason}")
    np.testing.assert_allclose(
        rows["y"],
        grid.w2_bound.sel(target="funnel", score="trained").isel(schedule=slice(3)).mean("seed")
        .squeeze(),
    )  # fmt: skip
    assert colors(figure, rows["y"].to_numpy()) == {(C.GREY_OUT, "--")}
    assert f"does NOT apply: {reason}" in said(figure)
    assert sum("NOT a bound" in label for label in legend(figure)) == 1
    assert figure.axes[0].get_ylabel().split() == ["upper", "bound", "on", "W2,", "NOT", "valid"]
    # the KL theorem asks less: its bound of the same target is valid
    assert len(curve(plots.draw(grid, "kl/funnel")[1], "bound"))

    figure, frame = plots.draw(grid, "w2_decomposition/funnel")
    of_bound = frame[frame["curve"].str.startswith("w2_bound")]
    assert of_bound["curve"].str.contains(NOT_VALID).all()
    for ax in figure.axes:
        for line in ax.lines:
            if line.get_label().startswith(("upper bound", "mixing", "sharp", "safe")):
                assert line.get_color() == C.GREY_OUT
        assert all(bar.get_hatch() for bar in ax.patches if bar.get_height() > 1)
    assert f"does NOT apply: {reason}" in said(figure)
    assert sum("NOT a bound" in label for label in legend(figure)) == 1


def test_a_bound_may_fail_at_some_schedules() -> None:
    grid = synthetic_grid(a=(-5, 0, 5), cosine=False)
    codes = xr.DataArray([0, 0, 2], dims="schedule") + 0 * grid.kl_bound_objection
    grid["kl_bound_objection"] = codes.assign_attrs(grid.kl_bound_objection.attrs)
    figure, frame = kl_figure(grid, "isotropic")
    assert curve(frame, "bound")["x"].tolist() == [-5, 0]
    (failing,) = [c for c in frame["curve"].unique() if NOT_VALID in c]
    assert curve(frame, failing)["x"].tolist() == [5]
    assert "does NOT apply at 1 of 3 places" in said(figure)


def test_a_bound_that_names_no_objection_is_no_theorem() -> None:
    grid = synthetic_grid(a=(-5, 0, 5))
    del grid["kl_bound"].attrs["objection"]
    figure, frame = kl_figure(grid, "isotropic")
    assert curve(frame, "bound").empty
    assert "its hypotheses are not checked" in said(figure)


def test_a_refinement_may_have_hypotheses_of_its_own() -> None:
    grid = synthetic_grid(targets=("funnel",), surrogates=("funnel",), a=(-5, 0, 5))
    grid["always"] = (0 * grid.w2_bound_objection).assign_attrs(grid.w2_bound_objection.attrs)
    grid["w2_bound_safe"].attrs["objection"] = "always"
    _, frame = plots.draw(grid, "w2_decomposition/funnel")
    assert len(curve(frame, "w2_bound_safe"))
    assert curve(frame, "w2_bound_sharp").empty


def test_the_stack_of_the_w2_bound_adds_up() -> None:
    grid = synthetic_grid()
    _, frame = plots.draw(grid, "w2_decomposition/isotropic")
    total = grid.w2_bound.sel(score="trained").squeeze(drop=True).mean("seed").values
    np.testing.assert_allclose(curve(frame, "w2_bound_mixing", axis="stack")["high"], total)
    assert set(frame.loc[frame["axis"] == "lines", "curve"]) == {
        "w2_bound", "w2_bound_sharp", "w2_bound_safe", "w2_bound_time", "w2_bound_discretization",
        "w2_bound_score", "w2_bound_mixing", "w2_plugin", "w2_plugin exact score",
        "w2_plugin floor",
    }  # fmt: skip


# --- files -------------------------------------------------------------------------

DRAW = """
import sys
from tests.grids import fail, synthetic_grid
from sgm import plots
grid = fail(synthetic_grid(a=(-5, 0, 5)), schedule="beta_a=5", seed=1)
grid = grid.drop_vars(["nll", "mmd", "sliced_w2"])
for stem in ("kl/isotropic", "comparison/isotropic"):
    plots.save(*plots.draw(grid, stem), f"{sys.argv[1]}/{stem}")
"""


@pytest.mark.slow
def test_files_are_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", DRAW, str(tmp_path / "b")], check=True, env=env)
    grid = fail(synthetic_grid(a=(-5, 0, 5)), schedule="beta_a=5", seed=1)
    grid = grid.drop_vars(["nll", "mmd", "sliced_w2"])
    for stem in ("kl/isotropic", "comparison/isotropic"):
        figure, frame = plots.draw(grid, stem)
        here = plots.save(figure, frame, tmp_path / "a" / stem)
        assert [path.suffix for path in here] == [".png", ".pdf", ".csv"]
        for path in here:
            there = tmp_path / "b" / path.relative_to(tmp_path / "a")
            assert path.read_bytes() == there.read_bytes(), path.name
        read = pd.read_csv(here[2])
        for column in ("x", "y", "low", "high"):
            np.testing.assert_array_equal(read[column], frame[column])
        assert {"panel", "curve", "x", "y", "low", "high", "n_runs"} <= set(read.columns)


def test_a_stem_with_a_dot_keeps_it(tmp_path: Path) -> None:
    paths = plots.save(Figure(), pd.DataFrame({"x": [1]}), tmp_path / "kl.x")
    assert [path.name for path in paths] == ["kl.x.png", "kl.x.pdf", "kl.x.csv"]


@pytest.mark.slow
def test_every_stem_draws_from_a_stored_grid(tmp_path: Path) -> None:
    grid = synthetic_grid(a=(-5, 0, 5))
    grid = grid.assign_coords(
        {name: c.astype(object) for name, c in grid.coords.items() if c.dtype.kind == "U"}
    )
    grid.to_zarr(tmp_path / "grid.zarr", consolidated=False)
    stored = xr.open_zarr(tmp_path / "grid.zarr", consolidated=False)
    for stem in STEMS:
        _, frame = plots.draw(stored, stem)
        pd.testing.assert_frame_equal(frame, plots.draw(grid, stem)[1], check_dtype=False)


def test_no_schedule_is_best_by_a_divergence_of_which_less_is_not_better() -> None:
    grid = synthetic_grid()
    assert len(curve(plots.draw(grid, "kl/isotropic")[1], "minimum", axis="kl")) == 1
    frame = plots.draw(grid, "nll/isotropic")[1]
    assert len(curve(frame, "empirical", axis="nll")) > 0
    assert len(curve(frame, "minimum", axis="nll")) == 0


def test_every_bound_of_a_divergence_has_a_panel_of_its_own() -> None:
    """The one that the divergence names first; others say what they bound, or what that bounds."""
    grid = synthetic_grid()
    one, _ = plots.draw(grid, "w2/isotropic")
    grid["w2_tight"] = (0.1 * grid.w2_bound).assign_attrs(
        role="bound", label="tight bound", units="1", divergence="w2_plugin",
        objection="w2_bound_objection",
    )  # fmt: skip
    grid["kl_tight"] = grid.w2_tight.assign_attrs(divergence="kl_plugin")
    figure, frame = plots.draw(grid, "w2/isotropic")
    trained = grid.isel(schedule=slice(0, 21)).sel(score="trained").squeeze(drop=True)
    assert frame["axis"].unique().tolist() == ["w2_bound", "w2_tight", "w2"]
    for name in ("w2_bound", "w2_tight"):
        found = curve(frame, "bound", axis=name)["y"]
        np.testing.assert_allclose(found, trained[name].mean("seed"))
        (star,) = curve(frame, "minimum of bound", axis=name)["y"]
        assert star == found.min()
    labels = [" ".join(ax.get_ylabel().split()) for ax in figure.axes]
    assert labels == ["upper bound on W2", "tight bound", "W2(data, generated)"]
    assert "tight bound: the bound's theorem applies" in said(figure)
    assert len(figure.axes) == len(one.axes) + 1
    grid["w2_bound"].attrs["divergence"] = "w2_plugin"
    grid["sliced_w2"] = (0.5 * grid.w2_plugin).assign_attrs(
        role="divergence", figure="sliced_w2", label="sliced W2", units="1", bound="w2_bound"
    )
    axes = plots.draw(grid, "sliced_w2/isotropic")[1]["axis"].unique().tolist()
    assert axes == ["w2_bound", "w2_tight", "sliced_w2"]


def test_the_best_of_the_family_is_not_called_the_best_of_all() -> None:
    grid = synthetic_grid(a=(-5, 0, 5))
    for name in ("kl_plugin", "kl_bound"):
        lower = grid[name].copy()
        lower.loc[{"schedule": "cosine"}] = 0.9 * lower.min("schedule")
        grid[name] = lower
    figure, frame = kl_figure(grid, "isotropic")
    for axis, best in (("kl_bound", "minimum of bound"), ("kl", "minimum")):
        (star,) = curve(frame, best, axis=axis).to_dict("records")
        (ring,) = curve(frame, "minimum of all", axis=axis).to_dict("records")
        assert star["schedule"].startswith("beta_a=")
        assert ring["schedule"] == "cosine"
        assert np.isnan(ring["x"])
        assert ring["y"] == curve(frame, "level cosine", axis=axis)["y"].item()
    assert {"lowest error", "lowest of all schedules"} <= set(legend(figure))
    _, frame = kl_figure(synthetic_grid(cosine=False), "isotropic")  # the family is all there is
    assert curve(frame, "minimum of all").empty


def test_a_schedule_is_not_marked_lowest_for_the_runs_it_lost() -> None:
    grid = synthetic_grid(a=(-5, 0, 5))
    kl = grid.kl_plugin.copy()
    kl.loc[{"schedule": "beta_a=-5"}] = np.nan
    kl.loc[{"schedule": "beta_a=-5", "seed": 0}] = 1e-6
    grid["kl_plugin"] = kl
    _, frame = kl_figure(grid, "isotropic")
    assert curve(frame, "minimum")["schedule"].tolist() == ["beta_a=5"]


def test_no_two_scales_share_a_panel() -> None:
    figure, _ = kl_figure(synthetic_grid(a=(-5, 0, 5), horizons=(1.0, 2.0)), "isotropic")
    figure.draw_without_rendering()
    boxes = [ax.get_position() for ax in figure.axes]
    assert len(boxes) == 4
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])


@pytest.mark.parametrize("stem", ["kl", "kl_decomposition", "comparison"])
def test_a_figure_of_failed_runs_says_so(stem: str) -> None:
    figure, _ = plots.draw(fail(synthetic_grid(a=(0, 5), scores=("trained",))), f"{stem}/isotropic")
    figure.draw_without_rendering()
    texts = [
        text.get_text()
        for text in (*figure.texts, *(t for ax in figure.axes for t in (*ax.texts, ax._left_title)))
    ]
    assert any("failed" in text for text in texts)
    assert not any("no β_a schedule" in text for text in texts)


def test_the_coupled_estimate_is_what_stars_and_levels_mark() -> None:
    """It resolves what lies below the floor; the plain estimate's minimum there is chance."""
    grid = synthetic_grid(a=(-5, 0, 5))
    resolved = grid["kl_plugin"].copy(data=grid["kl_plugin"].values * 0.1)
    resolved.loc[{"schedule": "beta_a=5"}] = 1e-4
    grid["kl_coupled"] = resolved.drop_attrs()
    grid["kl_plugin"].attrs["coupled"] = "kl_coupled"
    _, frame = plots.draw(grid, "kl/isotropic")
    drawn = curve(frame, "coupled")
    np.testing.assert_allclose(drawn["y"].values[-1], 1e-4)
    assert curve(frame, "minimum")["schedule"].tolist() == ["beta_a=5"]
    assert len(curve(frame, "plain")) == 3
    _, frame = plots.draw(grid, "kl_decomposition/isotropic")
    drawn = curve(frame, "kl_plugin coupled", axis="lines").set_index("schedule")
    np.testing.assert_allclose(drawn.loc["beta_a=5", "y"], 1e-4)
    assert not frame["curve"].isin(["kl_plugin", "kl_plugin floor"]).any()
