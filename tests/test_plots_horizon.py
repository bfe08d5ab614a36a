"""Views over the diffusion time: what they draw is what the grid was built from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from scipy.special import ndtr

from sgm import plots
from sgm.horizons import horizon_set
from sgm.plots.heatmap import edges
from sgm.plots.histogram import expected_variation, total_variation
from sgm.plots.horizon_axis import evenly, is_geometric
from tests.grids import synthetic_grid
from tests.grids_horizon import (
    CUTOFF,
    DATA_VARIANCE,
    HORIZONS,
    N_SAMPLES,
    fail_runs,
    horizon_grid,
)

FAMILY = (-8.0, -2.0, 0.0, 4.0)


def of(frame: pd.DataFrame, axis: str, curve: str, **labels: object) -> pd.DataFrame:
    chosen = (frame["axis"] == axis) & (frame["curve"] == curve)
    for name, value in labels.items():
        chosen &= frame[name] == value
    return frame[chosen]


def titles(figure: Figure) -> str:
    texts = [figure.get_suptitle(), *(ax.get_title(loc="left") for ax in figure.axes)]
    return " ".join(" ".join(texts).replace("\N{NO-BREAK SPACE}", " ").split())


def legend(figure: Figure) -> list[str]:
    return [" ".join(text.get_text().split()) for text in figure.legends[0].get_texts()]


def is_drawn(figure: Figure, x: np.ndarray, y: np.ndarray) -> bool:
    lines = [line for ax in figure.axes for line in ax.lines]
    return any(
        np.array_equal(line.get_xdata(), x) and np.array_equal(line.get_ydata(), y)
        for line in lines
        if len(line.get_xdata()) == len(x)
    )


# --- the ELBO ----------------------------------------------------------------------


def test_the_elbo_frame_holds_the_terms_of_the_grid() -> None:
    grid = horizon_grid(noise=0.05)
    figure, frame = plots.elbo_figure(grid, "gaussian")
    here = grid.sel(score="medium").squeeze(drop=True)
    rows = of(frame, "likelihood", "elbo", score="medium")
    np.testing.assert_array_equal(rows["x"], HORIZONS)
    np.testing.assert_allclose(rows["y"], here.elbo.values.mean(axis=1), rtol=1e-13)
    sd = here.elbo.values.std(axis=1, ddof=1)
    np.testing.assert_allclose(rows["high"] - rows["y"], sd, rtol=1e-10)
    assert (rows["n_runs"] == 6).all()
    assert (rows["n_failed"] == 0).all()
    # what the ELBO loses is the sum of its costs, drawn with the range of the runs
    cost = of(frame, "cost", "loss", score="medium")
    parts = [of(frame, "cost", name, score="medium") for name in ("score gap", "terminal kl")]
    np.testing.assert_allclose(cost["y"], sum(part["y"].to_numpy() for part in parts))
    np.testing.assert_allclose(parts[0]["high"], here.score_gap.max("seed"))
    np.testing.assert_allclose(parts[0]["low"], here.score_gap.min("seed"))
    # E log p_T + (R − K) = E log p₀; the truncated difference is that of X_ε
    terms = [of(frame, "terms", name)["y"].to_numpy() for name in ("terminal", "difference")]
    truth = -0.5 * np.log(2 * np.pi * np.e * DATA_VARIANCE)
    np.testing.assert_allclose(sum(terms), truth)
    np.testing.assert_allclose(of(frame, "terms", "truth")["y"], truth)
    r, k = (of(frame, "truncated", name)["y"].to_numpy() for name in "RK")
    assert (abs(r - k - terms[1]) < 20 * CUTOFF).all()
    sde = of(frame, "likelihood", "backward SDE", score="medium")["y"]
    np.testing.assert_allclose(sde, truth - here.reverse_sde_kl)
    assert f"R from ε on, ε = {CUTOFF:g}" in legend(figure)


def test_the_marks_are_the_exact_optimum_and_the_set_of_the_runs() -> None:
    grid = horizon_grid(noise=0.05)
    figure, frame = plots.elbo_figure(grid, "gaussian")
    for score in grid.score.values:
        here = grid.sel(score=score).squeeze(drop=True)
        exact = of(frame, "horizon", "exact T*", score=score)
        np.testing.assert_array_equal(exact["y"], here.optimal_horizon)
        expected = horizon_set(HORIZONS, -here.elbo.transpose("seed", "horizon"))
        row = of(frame, "horizon", "best T", score=score).iloc[0]
        assert (row["y"], row["low"], row["high"]) == (expected.best, expected.low, expected.high)
        assert row["n_runs"] == 6
        for t in (float(here.optimal_horizon), expected.best):
            assert is_drawn(figure, np.array([t, t]), np.array([0, 1]))
    assert "best T of the runs by the ELBO and its 95% confidence set" in legend(figure)
    assert "beta_a=0 score small, 6 runs" in titles(figure)


def test_an_optimum_at_an_end_is_not_drawn() -> None:
    _, frame = plots.elbo_figure(horizon_grid(scores=("exact", "small")), "gaussian")
    assert of(frame, "horizon", "exact T*")["score"].tolist() == ["small"]


def test_an_unknown_law_has_its_denoising_elbo_and_flow_alone() -> None:
    grid = horizon_grid(known=False)
    figure, frame = plots.elbo_figure(grid, "gaussian")
    assert set(frame["axis"]) == {"likelihood", "horizon"}
    assert set(frame["curve"]) == {"denoising elbo", "flow", "best T"}
    best = of(frame, "horizon", "best T", score="small")["y"].item()
    losses = -grid.denoising_elbo.sel(score="small").mean("seed").squeeze()
    assert best == HORIZONS[int(np.argmin(losses.values))]
    assert f"ELBO of X_ε by denoising losses, ε = {CUTOFF:g}, mean ± 1 sd" in legend(figure)


@pytest.mark.parametrize("view", [plots.elbo_figure, plots.horizon_figure])
def test_every_curve_of_the_frame_is_drawn(view) -> None:
    figure, frame = view(horizon_grid(a=(-5.0, 5.0), noise=0.05), "gaussian")
    rows = frame[(frame["axis"] != "horizon") & (frame["axis"] != "saving")]
    curves = rows.dropna(subset="x").groupby(["axis", "curve", "schedule", "score"])
    assert len(curves) > 20
    for name, part in curves:
        assert is_drawn(figure, part["x"].to_numpy(), part["y"].to_numpy()), name
    levels = rows[rows["x"].isna()]
    assert len(levels)
    for y in levels["y"]:
        assert is_drawn(figure, np.array([0, 1]), np.array([y, y]))


def test_failed_runs_are_counted_and_do_not_choose_the_best() -> None:
    grid = fail_runs(horizon_grid(scores=("small",)), seed=[0, 3], horizon=[0.6])
    _, frame = plots.elbo_figure(grid, "gaussian")
    rows = of(frame, "likelihood", "elbo").set_index("x")
    assert (rows.loc[0.6, "n_runs"], rows.loc[0.6, "n_failed"]) == (4, 2)
    assert rows["n_failed"].sum() == 2
    assert of(frame, "horizon", "best T")["n_runs"].item() == 4
    figure, _ = plots.horizon_figure(grid, "gaussian")
    assert "beta_a=0, 4 to 6 runs" in titles(figure)
    assert "point with failed runs" in legend(figure)


# --- quality and cost --------------------------------------------------------------


def test_the_horizon_frame_holds_losses_costs_and_what_a_short_time_saves() -> None:
    grid = horizon_grid(noise=0.05)
    figure, frame = plots.horizon_figure(grid, "gaussian")
    here = grid.sel(score="medium").squeeze(drop=True)
    for axis, values in {
        "flow_log_likelihood": -here.flow_log_likelihood,
        "kl_plugin": here.kl_plugin.sel(n_steps=500),
        "flow_evaluations": here.flow_evaluations,
        "flow_seconds": here.flow_seconds,
    }.items():
        rows = of(frame, axis, "runs", score="medium")
        np.testing.assert_allclose(rows["y"], values.mean("seed"), rtol=1e-13)
        sd = values.std("seed", ddof=1)
        np.testing.assert_allclose(rows["high"] - rows["low"], 2 * sd, atol=1e-12)
    np.testing.assert_allclose(
        of(frame, "flow_log_likelihood", "truth")["y"], -grid.data_log_density
    )
    floor = of(frame, "kl_plugin", "floor").iloc[0]
    assert (floor["y"], floor["high"] - floor["y"]) == pytest.approx((0.01, 0.001))
    for axis, losses in {
        "flow_log_likelihood": -here.flow_log_likelihood,
        "kl_plugin": here.kl_plugin.sel(n_steps=500),
    }.items():
        expected = horizon_set(HORIZONS, losses.transpose("seed", "horizon"))
        strip = f"T by {axis}"
        plausible = of(frame, strip, "plausible", score="medium")
        np.testing.assert_array_equal(plausible["x"], expected.horizons[expected.plausible])
        assert (plausible["y"] == 1).all()  # the second score of the grid
        assert of(frame, strip, "best", score="medium")["x"].item() == expected.best
    exact = of(frame, "T by flow_log_likelihood", "exact T*", score="medium")["x"].item()
    assert exact == here.optimal_horizon

    losses = -here.flow_log_likelihood.transpose("seed", "horizon")
    shortest = horizon_set(HORIZONS, losses).low
    spent = here.flow_evaluations.mean("seed")
    saving = of(frame, "saving", "shortest plausible T", score="medium").iloc[0]
    assert saving["y"] == pytest.approx(float(1 - spent.sel(horizon=shortest) / spent[-1]))
    assert (saving["x"], saving["high"]) == (shortest, 1.0)
    assert 0.2 < saving["y"] < 0.8
    assert f"medium {100 * saving['y']:.0f}% (T = {shortest:g} for 1)" in titles(figure)
    assert "ei_modified, uniform time grid, 500 steps" in titles(figure)


def test_the_loss_is_the_first_that_the_grid_has() -> None:
    grid = horizon_grid()
    bits = plots.horizon_figure(horizon_grid(known=False), "gaussian")[1]
    assert bits["axis"].iloc[0] == "bits_per_dimension"
    elbo = grid.drop_vars([n for n in grid.data_vars if str(n).startswith("flow")])
    figure, frame = plots.horizon_figure(elbo, "gaussian")
    assert frame["axis"].iloc[0] == "elbo"
    assert not frame["axis"].isin(["flow_evaluations", "saving"]).any()
    figure.draw_without_rendering()
    sampled = grid[["kl_plugin", "kl_floor", "status"]]
    assert plots.horizon_figure(sampled, "gaussian")[1]["axis"].iloc[0] == "kl_plugin"


def test_one_run_has_a_best_time_and_no_set() -> None:
    figure, frame = plots.horizon_figure(horizon_grid(n_seeds=1), "gaussian")
    assert set(of(frame, "T by flow_log_likelihood", "best")["score"]) == {
        "large", "medium", "small"
    }  # fmt: skip
    assert not frame["curve"].isin(["plausible", "shortest plausible T"]).any()
    assert not any("confidence" in text for text in legend(figure))


# --- histograms --------------------------------------------------------------------


def test_histograms_are_means_over_runs_beside_the_exact_density() -> None:
    grid = horizon_grid(scores=("large", "small"))
    figure, frame = plots.histogram_figure(grid, "gaussian")
    assert "6 of 8 horizons shown" in titles(figure)
    assert frame["horizon"].unique().tolist() == [0.1, 0.2, 0.4, 0.5, 0.8, 1.0]
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
        ax for ax in figure.axes[:4]
        for line in ax.lines
        if (line.get_xdata()[0], line.get_ydata()[0]) == (marks["x"].item(), marks["y"].item())
    ]  # fmt: skip
    assert len(set(shown)) == 4


def test_edges_are_midpoints() -> None:
    np.testing.assert_allclose(edges([1.0, 2.0, 5.0]), [0.5, 1.5, 3.5, 6.5])
    np.testing.assert_allclose(edges([1.0, 4.0], geometric=True), [0.5, 2.0, 8.0])


# --- what can go missing -----------------------------------------------------------


@pytest.mark.parametrize(
    ("stem", "message"),
    [
        ("elbo", "target = 'isotropic': must have numbers of elbo or denoising_elbo or flow"),
        ("histogram", "target = 'isotropic': must have numbers of sample_density"),
        ("map", "two values of a and two of T for a map; it has 2 and 1"),
    ],
)
def test_a_grid_without_what_a_figure_draws_is_refused(stem, message) -> None:
    grid = synthetic_grid(a=(0, 5), n_seeds=2)
    with pytest.raises(ValueError, match=message):
        plots.draw(grid, f"{stem}/isotropic")
    with pytest.raises(ValueError, match="target = 'other': the grid has gaussian"):
        plots.draw(horizon_grid(n_seeds=2), f"{stem}/other")


def test_a_study_without_likelihood_or_samples_has_no_horizon_figure() -> None:
    grid = horizon_grid(n_seeds=2)
    with pytest.raises(ValueError, match="must have numbers of bits_per_dimension or flow"):
        plots.draw(grid[["kl_terminal", "status"]], "horizon/gaussian")
    with pytest.raises(ValueError, match="must have numbers of"):
        plots.draw(horizon_grid(a=FAMILY, n_seeds=2)[["kl_terminal", "status"]], "map/gaussian")


@pytest.mark.parametrize(
    "options",
    [
        {"n_seeds": 1, "scores": ("small",)},
        {"a": FAMILY, "cosine": True, "scores": ("exact", "scaled", "small")},
        {"a": (-5.0, 5.0), "horizons": (0.01, 0.03, 0.1, 0.3, 1.0), "dimension": 50},
        {"a": (0.0, 5.0), "horizons": (0.5, 1.0)},
    ],
)
def test_every_grid_draws_and_is_saved(options, tmp_path: Path) -> None:
    grid = horizon_grid(**options)
    grid = fail_runs(grid, seed=[0], horizon=grid.horizon.values[-1:])
    grid = grid.isel(horizon=slice(None, None, -1))  # the order of the file is not that of T
    stems = ["elbo", "horizon", "histogram"] + ["map"] * ("a" in options)
    for stem in stems:
        figure, frame = plots.draw(grid, f"{stem}/gaussian")
        for path in plots.save(figure, frame, tmp_path / stem / "gaussian"):
            assert path.stat().st_size > 0
        stored = pd.read_csv(tmp_path / stem / "gaussian.csv")
        assert len(stored) == len(frame)
        for _, part in frame[frame["curve"].isin(["runs", "elbo"])].groupby(
            ["axis", "schedule", "score"]
        ):
            assert part["x"].is_monotonic_increasing


def test_too_many_schedules_and_scores_are_thinned_and_said_so() -> None:
    grid = horizon_grid(a=(-8.0, -4.0, 0.0, 4.0, 8.0), n_seeds=2)
    figure, frame = plots.elbo_figure(grid, "gaussian")
    assert "3 of 5 schedules shown" in titles(figure)
    assert frame["schedule"].unique().tolist() == ["beta_a=-8", "beta_a=0", "beta_a=8"]
    figure, frame = plots.horizon_figure(grid, "gaussian")
    assert "4 of 5 schedules shown" in titles(figure)
    assert evenly([1, 2, 3, 4, 5], 1) == ([1], 4)
    assert evenly(list("ab"), 3) == (["a", "b"], 0)


def test_geometric_horizons_have_a_logarithmic_axis() -> None:
    assert is_geometric([0.01, 0.1, 1.0])
    assert not is_geometric([0.2, 0.4, 0.6, 0.8])
    assert not is_geometric([0.5, 1.0])
    figure, _ = plots.elbo_figure(horizon_grid(horizons=(0.01, 0.1, 1.0)), "gaussian")
    assert {ax.get_xscale() for ax in figure.axes} == {"log"}
    grid: xr.Dataset = horizon_grid(a=FAMILY, horizons=(0.01, 0.1, 1.0), scores=("small",))
    figure, _ = plots.map_figure(grid, "gaussian")
    assert figure.axes[0].get_yscale() == "log"
