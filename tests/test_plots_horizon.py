"""Views over the diffusion time: what they draw is what the grid was built from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.figure import Figure

from sgm import plots
from sgm.horizons import horizon_set
from sgm.plots.cells import evenly
from sgm.plots.engine import is_geometric, set_numbers
from tests.grids import FAILED, synthetic_grid
from tests.grids_horizon import (
    CUTOFF,
    DATA_VARIANCE,
    HORIZONS,
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
    texts = [text.get_text() for text in figure.texts]
    texts += [ax.get_title(loc="left") for ax in figure.axes]
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
    assert "beta_a=0, score small 6 runs" in titles(figure)


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
def test_every_curve_of_the_frame_is_drawn(view: Callable[..., plots.Drawn]) -> None:
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


# --- what can go missing -----------------------------------------------------------


@pytest.mark.parametrize(
    ("stem", "message"),
    [
        ("elbo", "target = 'isotropic': must have numbers of elbo or denoising_elbo or flow"),
        ("histogram", "target = 'isotropic': must have numbers of sample_density"),
        ("map", "two values of a and two of T for a map; it has 2 and 1"),
    ],
)
def test_a_grid_without_what_a_figure_draws_is_refused(stem: str, message: str) -> None:
    grid = synthetic_grid(a=(0, 5), n_seeds=2)
    with pytest.raises(ValueError, match=message):
        plots.draw(grid, f"{stem}/isotropic")
    with pytest.raises(ValueError, match="target = 'other': the grid has gaussian"):
        plots.draw(horizon_grid(n_seeds=2), f"{stem}/other")


@pytest.mark.parametrize("stem", ["elbo", "horizon"])
def test_a_figure_whose_every_number_failed_is_a_page_that_says_so(stem: str) -> None:
    """It would take all other figures of the study with it."""
    grid = horizon_grid(n_seeds=2)
    lost = {
        name: values.where(False) if values.dtype.kind == "f" else xr.full_like(values, FAILED)
        for name, values in grid.data_vars.items()
    }
    figure, frame = plots.draw(grid.assign(lost), f"{stem}/gaussian")
    figure.draw_without_rendering()
    assert frame.empty
    assert "runs failed: the grid's attribute `failures`" in figure.axes[0].texts[0].get_text()


def test_a_study_without_likelihood_or_samples_has_no_horizon_figure() -> None:
    grid = horizon_grid(n_seeds=2)
    with pytest.raises(ValueError, match="must have numbers of bits_per_dimension or flow"):
        plots.draw(grid[["kl_terminal", "status"]], "horizon/gaussian")
    with pytest.raises(ValueError, match="must have numbers of"):
        plots.draw(horizon_grid(a=FAMILY, n_seeds=2)[["kl_terminal", "status"]], "map/gaussian")


@pytest.mark.parametrize(
    "options",
    [
        {"n_seeds": 1, "scores": ("small",), "a": (0.0, 5.0)},
        pytest.param(
            {"a": FAMILY[:2], "cosine": True, "scores": ("exact", "small"), "horizons": (0.2, 1)},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"a": (-5.0, 5.0), "horizons": (0.01, 0.1, 1.0), "dimension": 50, "scores": ("small",)},
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.parametrize("stem", ["elbo", "horizon", "histogram", "map"])
def test_every_grid_draws(stem: str, options: dict[str, Any]) -> None:
    grid = horizon_grid(**options)
    grid = fail_runs(grid, seed=[0], horizon=grid.horizon.values[-1:])
    # the order of a file is not that of T
    figure, frame = plots.draw(grid.isel(horizon=slice(None, None, -1)), f"{stem}/gaussian")
    figure.draw_without_rendering()
    for _, part in frame[frame["curve"].isin(["runs", "elbo"])].groupby(
        ["axis", "schedule", "score"]
    ):
        assert part["x"].is_monotonic_increasing
    straight = plots.draw(grid, f"{stem}/gaussian")[1]
    pd.testing.assert_frame_equal(frame, straight)


def test_a_figure_is_saved_with_its_numbers(tmp_path: Path) -> None:
    figure, frame = plots.draw(horizon_grid(scores=("small",)), "elbo/gaussian")
    for path in plots.save(figure, frame, tmp_path / "elbo" / "gaussian"):
        assert path.stat().st_size > 0
    stored = pd.read_csv(tmp_path / "elbo" / "gaussian.csv")
    np.testing.assert_allclose(stored["y"], frame["y"], rtol=1e-12)


def test_the_best_time_is_by_the_flow_where_there_is_no_elbo() -> None:
    grid = horizon_grid(scores=("small",)).drop_vars(["elbo", "score_gap"])
    figure, frame = plots.elbo_figure(grid, "gaussian")
    expected = horizon_set(HORIZONS, -grid.flow_log_likelihood.squeeze().transpose("seed", ...))
    assert of(frame, "horizon", "best T by the flow")["y"].item() == expected.best
    assert any("by the flow's likelihood" in text for text in legend(figure))


@pytest.mark.slow
def test_too_many_schedules_and_scores_are_thinned_and_said_so() -> None:
    grid = horizon_grid(a=(-8.0, -4.0, 0.0, 4.0, 8.0), n_seeds=2)
    figure, frame = plots.elbo_figure(grid, "gaussian")
    assert "3 of 5 schedules shown" in titles(figure)
    assert frame["schedule"].unique().tolist() == ["beta_a=-8", "beta_a=0", "beta_a=8"]
    figure, frame = plots.horizon_figure(grid, "gaussian")
    assert "4 of 5 schedules shown" in titles(figure)
    assert evenly([1, 2, 3, 4, 5], 1) == ([1], 4)
    assert evenly(list("ab"), 3) == (["a", "b"], 0)


def test_losses_beyond_four_are_left_out_and_said_so() -> None:
    grid = horizon_grid(scores=("small",))
    more = {
        f"other_{k}": grid.kl_plugin.assign_attrs(role="divergence", figure=f"other {k}")
        for k in range(3)
    }
    figure, frame = plots.horizon_figure(grid.assign(more), "gaussian")
    assert "4 of 6 losses shown" in titles(figure)
    assert frame["axis"].str.startswith("T by").sum() > 0
    assert len({axis for axis in frame["axis"] if axis.startswith("T by")}) == 4


def test_labels_of_a_logarithmic_axis_stand_apart() -> None:
    ax = Figure().subplots()
    set_numbers(ax, [0.2, 0.35, 0.5, 0.6, 0.8, 1.0, 1.4, 2.0], "T")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0.2", "0.35", "0.6", "1", "1.4", "2"]


def test_geometric_horizons_have_a_logarithmic_axis() -> None:
    assert is_geometric([0.01, 0.1, 1.0])
    assert not is_geometric([0.2, 0.4, 0.6, 0.8])
    assert not is_geometric([0.5, 1.0])
    figure, _ = plots.elbo_figure(horizon_grid(horizons=(0.01, 0.1, 1.0)), "gaussian")
    assert {ax.get_xscale() for ax in figure.axes} == {"log"}
    grid: xr.Dataset = horizon_grid(a=FAMILY, horizons=(0.01, 0.1, 1.0), scores=("small",))
    figure, _ = plots.map_figure(grid, "gaussian")
    assert figure.axes[0].get_yscale() == "log"
