"""The comparison figure draws what the comparison table says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgm import plots
from sgm.comparison import comparison_table
from tests.grids import FLOOR, FLOOR_SD, fail, synthetic_grid


def test_the_frame_holds_the_runs_and_the_table() -> None:
    grid = synthetic_grid(constant=True)
    figure, frame = plots.comparison_figure(grid, "isotropic")
    table = comparison_table(grid)
    table = table[(table["score"] == "trained") & (table["schedule"] == "beta_a")]
    assert len(table) == 3 * 4
    figures = {"kl_plugin": "kl", "w2_plugin": "w2", "heldout_nll_gap": "heldout_nll"}
    for _, row in table.iterrows():
        axis = figures.get(row["divergence"], row["divergence"])
        name = "VPSDE" if row["reference"] == "beta_a=0" else row["reference"]
        here = frame[(frame["axis"] == f"{axis} difference") & (frame["schedule"] == name)]
        (mean,) = here[here["curve"] == "mean"].to_dict("records")
        assert mean["n_runs"] == row["pairs"] == 10
        np.testing.assert_array_equal(
            [mean["y"], mean["low"], mean["high"]], [row["difference"], row["low"], row["high"]]
        )
    runs = frame[(frame["axis"] == "kl") & (frame["curve"] == "runs")]
    assert runs["schedule"].unique().tolist() == ["best a = 3", "VPSDE", "cosine", "constant"]
    kl = grid.kl_plugin.sel(score="trained").squeeze(drop=True)
    for name, label in (("best a = 3", "beta_a=3"), ("VPSDE", "beta_a=0"), ("cosine", "cosine")):
        drawn = runs.loc[runs["schedule"] == name, "y"]
        np.testing.assert_array_equal(drawn, kl.sel(schedule=label))
    box = frame[(frame["curve"] == "quartiles") & (frame["schedule"] == "cosine")].iloc[0]
    np.testing.assert_allclose(
        box[["low", "y", "high"]].to_numpy(float),
        np.percentile(kl.sel(schedule="cosine"), [25, 50, 75]),
    )
    (floor,) = frame[(frame["axis"] == "kl") & (frame["curve"] == "floor")].to_dict("records")
    np.testing.assert_allclose([floor["y"], floor["high"]], [FLOOR, FLOOR + FLOOR_SD])

    points = [np.asarray(line.get_xdata(), float) for ax in _axes(figure) for line in ax.lines]
    for _, rows in frame[frame["curve"] == "runs"].groupby(["axis", "schedule"]):
        assert any(np.array_equal(p, rows["y"]) for p in points)
    for _, rows in frame[frame["curve"] == "mean"].iterrows():
        assert any(np.array_equal(p, rows[["low", "high"]].to_numpy(float)) for p in points)


def _axes(figure: Figure) -> list[Axes]:
    return list(figure.axes)


def test_the_titles_say_whether_a_difference_exceeds_the_noise() -> None:
    grid = synthetic_grid(a=(0, 3), noise=0.3)
    figure, _ = plots.comparison_figure(grid, "isotropic")
    (kl,) = [ax.get_title(loc="left") for ax in _axes(figure) if "KL(data" in ax.get_xlabel()]
    row = comparison_table(grid)
    row = row[row["schedule"] == "beta_a"].set_index(["score", "divergence", "reference"])
    row = row.loc["trained", "kl_plugin", "cosine"]
    words = "exceeds the noise" if row["beyond_noise"] else "within the noise"
    (line,) = [line for line in kl.splitlines() if "against cosine" in line]
    assert line.endswith(words)
    assert f"lower by {-row['difference']:.3g} nats [" in line


@pytest.mark.parametrize(
    "options",
    [
        {"n_seeds": 1},
        {"scores": ("exact",)},
        {"scores": ("exact", "scaled")},
        {"a": (0,)},
        {"a": ()},
        {"n_seeds": 7, "samplers": ("ei_modified", "em")},
    ],
)
def test_every_study_draws(options: dict[str, Any]) -> None:
    grid = synthetic_grid(**({"a": (-5, 0, 5)} | options))
    figure, frame = plots.comparison_figure(grid, "isotropic")
    figure.draw_without_rendering()
    assert frame.empty == (options.get("a") == ())


def test_the_first_side_of_the_study_stands_against_the_others() -> None:
    grid = synthetic_grid(a=(-5, 0, 5))
    grid = grid.isel(schedule=[3, 0, 1, 2])  # the cosine first
    figure, frame = plots.comparison_figure(grid, "isotropic")
    runs = frame[(frame["axis"] == "kl") & (frame["curve"] == "runs")]
    assert runs["schedule"].unique().tolist() == ["cosine", "VPSDE", "best a = 5"]
    assert "cosine against other schedules" in figure.get_suptitle()


def test_lost_runs_are_left_out() -> None:
    grid = fail(synthetic_grid(a=(-5, 0, 5)), schedule="cosine", seed=[1, 2, 3])
    _, frame = plots.comparison_figure(grid, "isotropic")
    mean = frame[(frame["axis"] == "kl difference") & (frame["curve"] == "mean")]
    assert mean.set_index("schedule")["n_runs"].to_dict() == {"VPSDE": 10, "cosine": 7}
