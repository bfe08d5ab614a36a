"""Histograms and maps over the diffusion time: against what the grid was built from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from scipy.special import ndtr

from sgm import plots
from sgm.plots.heatmap import edges
from sgm.plots.histogram import expected_variation, total_variation
from tests.grids_horizon import (
    DATA_VARIANCE,
    HORIZONS,
    N_SAMPLES,
    horizon_grid,
)

FAMILY = (-8.0, -2.0, 0.0, 4.0)


def of(frame: pd.DataFrame, axis: str, curve: str, **labels: object) -> pd.DataFrame:
    chosen = (frame["axis"] == axis) & (frame["curve"] == curve)
    for name, value in labels.items():
        chosen &= frame[name] == value
    return frame[chosen]


def titles(figure: Figure) -> str:
    texts = [text.get_text() for text in figure.texts]
    texts += [ax.get_title(loc="left") for ax in figure.axes]
    return " ".join(" ".join(texts).replace("\N{NO-BREAK SPACE}", " ").split())


# --- histograms --------------------------------------------------------------------


def test_histograms_are_means_over_runs_beside_the_exact_density() -> None:
    grid = horizon_grid(scores=("large", "small"))
    figure, frame = plots.histogram_figure(grid, "gaussian")
    assert "shown" not in titles(figure)
    assert frame["horizon"].nunique() == 8
    here = grid.sample_density.sel(score="small", horizon=0.4, n_steps=500).squeeze(drop=True)
    own = {"score": "small", "horizon": 0.4}
    rows = of(frame, "density", "generated", **own)
    np.testing.assert_array_equal(rows["x"], grid.bin)
    np.testing.assert_allclose(rows["y"], here.mean("seed"), rtol=1e-13)
    np.testing.assert_allclose(rows["high"] - rows["y"], here.std("seed", ddof=1), atol=1e-12)
    np.testing.assert_array_equal(
        of(frame, "density", "exact", **own)["y"], grid.target_density.squeeze()
    )
    drawn = [p.get_data().values for ax in figure.axes for p in ax.patches]
    assert any(np.array_equal(values, rows["y"]) for values in drawn)

    edges_ = np.linspace(-1, 1, 41)
    p = np.diff(ndtr(edges_ / np.sqrt(DATA_VARIANCE)))
    q = np.append(here.mean("seed").values * 0.05, 0)
    q[-1] = 1 - q.sum()
    by_hand = abs(q - np.append(p, 1 - p.sum())).sum() / 2
    distance = of(frame, "total variation", "mean", **own).iloc[0]
    assert distance["y"] == pytest.approx(by_hand)
    assert f"TV of mean {by_hand:.2g}, floor {distance['low']:.2g}" in titles(figure)
    # large means nearer, and the mean of the runs is nearer than a run
    by_run = of(frame, "total variation", "a run", score="large")
    assert by_run["y"].mean() < of(frame, "total variation", "a run", score="small")["y"].mean()
    assert (of(frame, "total variation", "mean")["y"].to_numpy() < of(
        frame, "total variation", "a run")["y"].to_numpy()).all()  # fmt: skip


def test_the_floor_is_what_true_draws_show() -> None:
    """Within 4.5 standard errors, also where a cell expects less than one draw."""
    chances = np.array([0.5, 0.3, 0.15, 0.0499, 1e-4, 0.0])
    n, reps = 200, 20_000
    counts = np.random.default_rng(3).multinomial(n, chances, reps)
    distances = abs(counts / n - chances).sum(axis=1) / 2
    error = distances.std(ddof=1) / np.sqrt(reps)
    assert abs(expected_variation(chances, n) - distances.mean()) < 4.5 * error
    normal = np.sqrt(2 / np.pi) * np.sqrt(chances * (1 - chances) / 10**6).sum() / 2
    assert expected_variation(chances, 10**6) == pytest.approx(normal, rel=1e-3)
    assert expected_variation(np.array([1.0]), 10) == 0


def test_true_draws_have_the_distance_of_the_floor() -> None:
    grid = horizon_grid(scores=("small",), n_seeds=40, horizons=(0.5, 1.0))
    width = 0.05
    true = grid.target_density.values.ravel() * width
    law = np.append(true, 1 - true.sum())
    shape = grid.sample_density.shape[:-1]
    counts = np.random.default_rng(4).multinomial(N_SAMPLES, law, shape)[..., :-1]
    drawn = grid.assign(sample_density=(grid.sample_density.dims, counts / N_SAMPLES / width))
    _, frame = plots.histogram_figure(drawn, "gaussian")
    for curve, runs in (("a run", 40), ("mean", 1)):
        rows = of(frame, "total variation", curve)
        # a distance scatters by less than a fifth of its mean over 41 cells
        assert (abs(rows["y"] / rows["low"] - 1) < 4.5 * 0.2 / np.sqrt(runs)).all()
    both = of(frame, "total variation", "a run")["low"].iloc[0]
    pooled = of(frame, "total variation", "mean")["low"].iloc[0]
    # 1/√40, but for cells that expect less than one draw of a run
    assert both / pooled == pytest.approx(np.sqrt(40), rel=0.05)


def test_what_lies_outside_of_the_bins_is_one_bin_more() -> None:
    true = np.array([0.5, 0.5])
    assert total_variation(np.array([0.25, 0.25]), true, 1.0) == 0.5
    assert total_variation(np.array([[0.5, 0.5], [1.0, 0.0]]), true, 1.0).tolist() == [0, 0.5]


def test_histograms_of_an_unknown_density_have_no_distance() -> None:
    grid = horizon_grid(scores=("small",))
    lost = grid.assign(target_density=np.nan * grid.target_density)
    for unknown in (lost, grid.drop_vars("target_density")):
        figure, frame = plots.histogram_figure(unknown, "gaussian")
        assert set(frame["curve"]) == {"generated"}
        assert "TV" not in titles(figure)
    figure, frame = plots.histogram_figure(grid.drop_attrs(deep=False), "gaussian")
    assert frame.loc[frame["axis"] == "total variation", "low"].isna().all()
    assert "floor" not in titles(figure)


def test_columns_beyond_six_are_left_out_and_said_so() -> None:
    grid = horizon_grid(a=(-5.0, 0.0, 5.0, 9.0), scores=("large", "small"), horizons=(0.5, 1.0))
    figure, frame = plots.histogram_figure(grid, "gaussian")
    assert "3 of 4 schedules shown" in titles(figure)
    assert frame["schedule"].unique().tolist() == ["beta_a=-5", "beta_a=5", "beta_a=9"]


# --- maps --------------------------------------------------------------------------


def test_maps_mark_the_minima_and_the_regret_of_a_bound() -> None:
    grid = horizon_grid(a=FAMILY, cosine=True, scores=("scaled", "small"))
    figure, frame = plots.map_figure(grid, "gaussian")
    order = ["kl_plugin", "kl_bound", "w2_plugin", "w2_bound"]
    assert frame["axis"].unique().tolist() == order
    family = grid.isel(schedule=slice(0, 4)).sel(n_steps=500).squeeze(drop=True)
    for score, error, low_of in (
        ("scaled", family.kl_exact, "kl_exact"),
        ("small", family.kl_plugin.mean("seed"), "kl_plugin"),
    ):
        total = family.kl_bound.sel(score=score).mean("seed")
        error, bound = (
            v.transpose("schedule", "horizon").values for v in (error.sel(score=score), total)
        )
        rows = of(frame, "kl_plugin", "value", score=score)
        np.testing.assert_allclose(rows["value"], error.ravel(), err_msg=low_of)
        i, k = np.unravel_index(error.argmin(), error.shape)
        low = of(frame, "kl_plugin", "minimum", score=score).iloc[0]
        assert (low["x"], low["y"]) == (FAMILY[i], HORIZONS[k])
        j, m = np.unravel_index(bound.argmin(), bound.shape)
        regret = of(frame, "kl_bound", "regret in KL(data ‖ generated)", score=score).iloc[0]
        assert (regret["x"], regret["y"]) == (FAMILY[j], HORIZONS[m])
        assert regret["value"] == pytest.approx(error[j, m] / error.min())
        assert regret["value"] > 1
        estimated = ", by means of runs" if score == "small" else ""
        assert f"× {regret['value']:.3g}{estimated}" in titles(figure)
    assert "without cosine" in titles(figure)
    text = titles(figure)
    assert text.count("NOT a bound: a Gaussian surrogate stands for the law") == 2
    meshes = [c for ax in figure.axes for c in ax.collections if isinstance(c, QuadMesh)]
    drawn = [np.asarray(mesh.get_array()).T.ravel() for mesh in meshes]
    for _, rows in frame[frame["curve"] == "value"].groupby(["score", "axis"]):
        assert any(np.array_equal(values, rows["value"]) for values in drawn)
    # each panel shows the minima of all quantities of its row
    marks = of(frame, "w2_bound", "minimum", score="scaled")
    shown = [
        ax for ax in [ax for ax in figure.axes if ax.get_title(loc="left")][:4]
        for line in ax.lines
        if (line.get_xdata()[0], line.get_ydata()[0]) == (marks["x"].item(), marks["y"].item())
    ]  # fmt: skip
    assert len(set(shown)) == 4


def test_exact_values_are_preferred_to_those_of_samples() -> None:
    grid = horizon_grid(a=FAMILY, scores=("scaled",), horizons=(0.5, 1.0))
    sampled = grid.assign(kl_plugin=(grid.kl_plugin.fillna(7.0)).assign_attrs(grid.kl_plugin.attrs))
    rows = plots.map_figure(sampled, "gaussian")[1].query("axis == 'kl_plugin'")
    pd.testing.assert_frame_equal(
        rows, plots.map_figure(grid, "gaussian")[1].query("axis == 'kl_plugin'")
    )
    assert (rows["n_runs"] == 0).all()
    unknown = sampled.drop_vars("kl_exact")
    rows = plots.map_figure(unknown, "gaussian")[1].query("axis == 'kl_plugin'")
    assert (rows["value"] == 7).all()
    assert (rows["n_runs"] == 6).all()


def test_edges_are_midpoints() -> None:
    np.testing.assert_allclose(edges([1.0, 2.0, 5.0]), [0.5, 1.5, 3.5, 6.5])
    np.testing.assert_allclose(edges([1.0, 4.0], geometric=True), [0.5, 2.0, 8.0])


def test_a_map_is_not_lowest_where_runs_were_lost() -> None:
    grid = horizon_grid(a=FAMILY, n_seeds=3, scores=("large",))
    measure = "kl_plugin"
    lost = grid[measure].copy()
    place = {"schedule": lost.schedule.values[0], "horizon": lost.horizon.values[0]}
    lost.loc[place] = np.nan
    lost.loc[place | {"seed": 0}] = 1e-9
    _, frame = plots.map_figure(grid.assign({measure: lost}), "gaussian")
    low = of(frame, measure, "minimum").iloc[0]
    assert low["value"] > 1e-9
    assert low["n_runs"] == 3
