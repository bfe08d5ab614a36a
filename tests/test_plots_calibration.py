"""The calibration figure: estimates against exact values, and how far they are off."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sgm import plots
from tests.grids import calibrated_grid, synthetic_grid


def test_the_frame_sets_each_estimate_against_its_exact_value() -> None:
    grid = calibrated_grid(dimensions=(2, 10))
    figure, frame = plots.calibration_figure(grid)
    assert frame["axis"].unique().tolist() == ["kl", "w2"]
    for name, curve in (("kl_plugin", "estimate"), ("kl_unbiased", "unbiased")):
        rows = frame[(frame["axis"] == "kl") & (frame["curve"] == curve)]
        for (target, schedule), part in rows.groupby(["target", "schedule"]):
            at = {"target": target, "schedule": schedule}
            exact = grid.kl_exact.sel(at).values.ravel()
            runs = grid[name].sel(at).squeeze(drop=True)
            np.testing.assert_array_equal(np.sort(part["x"]), np.sort(exact))
            mean = np.nanmean(runs.values, axis=-1).ravel()
            part = part.sort_values("x")
            np.testing.assert_allclose(part["y"], np.sort(mean))
            np.testing.assert_allclose(part["relative_error"], part["y"] / part["x"] - 1)
            sd = np.nanstd(runs.values, axis=-1, ddof=1).ravel()[np.argsort(mean)]
            np.testing.assert_allclose(part["high"] - part["y"], sd)
            np.testing.assert_allclose(part["relative_sd"], sd / part["x"])
    floors = frame[(frame["axis"] == "kl") & (frame["curve"] == "floor")]
    np.testing.assert_allclose(floors["y"], [0.01, 0.05])
    # what the figure is for: the estimate is off by the floor, the unbiased one is not
    kl = frame[frame["axis"] == "kl"].dropna(subset="relative_error")
    gap = (kl["y"] - kl["x"])[kl["curve"] == "estimate"]
    floor = kl.loc[kl["curve"] == "estimate", "target"].map(
        {"gaussian-2": 0.01, "gaussian-10": 0.05}
    )
    noise = 0.1 * kl.loc[kl["curve"] == "estimate", "x"] / np.sqrt(8)
    assert (abs(gap - floor) < 4.5 * noise).all()

    values = [line for ax in figure.axes for line in ax.lines]
    drawn = [np.asarray(line.get_ydata(), float) for line in values]
    for (_, _, curve), part in kl.groupby(["axis", "target", "curve"]):
        assert any(np.array_equal(y, part["y"]) for y in drawn), curve
        assert any(np.array_equal(y, part["relative_error"]) for y in drawn), curve


def test_estimates_below_zero_are_counted_and_not_dropped_from_the_errors() -> None:
    grid = calibrated_grid(dimensions=(2,))
    kl = grid.kl_unbiased.copy()
    kl.loc[{"schedule": "beta_a=0"}] = -0.01
    figure, frame = plots.calibration_figure(grid.assign(kl_unbiased=kl))
    negative = frame[(frame["axis"] == "kl") & (frame["y"] < 0)]
    assert len(negative) == 2  # exact and scaled score
    (title,) = [
        ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left").startswith("KL")
    ]
    assert "2 means ≤ 0 not shown" in title
    assert (negative["relative_error"] < -1).all()


@pytest.mark.parametrize("dimensions", [(2,), tuple(range(2, 14))])
def test_any_number_of_targets_draws(dimensions: tuple[int, ...]) -> None:
    figure, _ = plots.calibration_figure(calibrated_grid(dimensions=dimensions, n_seeds=1))
    figure.draw_without_rendering()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"gaussian-{dimensions[-1]}, d = {dimensions[-1]}" in labels


def test_a_study_without_sampled_exact_laws_says_so() -> None:
    figure, frame = plots.calibration_figure(synthetic_grid(a=(0, 5)))
    figure.draw_without_rendering()
    assert frame.empty


def test_columns_and_rows_stand_in_the_order_of_the_divergence() -> None:
    grid = calibrated_grid(dimensions=(2, 10))
    _, frame = plots.calibration_figure(grid)
    order = [axis for axis in grid.kl_plugin.dims if axis != "seed"]
    assert list(frame.columns)[2 : 2 + len(order)] == order
    # a store lists its arrays in any order
    coords = dict(reversed(list(grid.coords.items())))
    turned = grid.drop_vars(list(coords)).assign_coords(coords)
    pd.testing.assert_frame_equal(plots.calibration_figure(turned)[1], frame)


def test_values_below_zero_have_linear_axes() -> None:
    """An entropy may be negative: a logarithmic axis has no place for it, nor limits."""
    grid = calibrated_grid(dimensions=(2, 10))
    for name in ("kl_exact", "kl_plugin", "kl_unbiased", "kl_floor"):
        grid[name] = (-grid[name]).assign_attrs(grid[name].attrs)
    figure, frame = plots.calibration_figure(grid)
    figure.draw_without_rendering()
    upper, lower = (next(ax for ax in figure.axes if label in ax.get_ylabel())
                    for label in ("estimate, nats", "error, nats"))  # fmt: skip
    assert {upper.get_xscale(), upper.get_yscale(), lower.get_yscale()} == {"linear"}
    kl = frame[(frame["axis"] == "kl") & (frame["curve"] == "estimate")]
    drawn = np.concatenate([line.get_ydata() for line in lower.lines])
    assert np.isin(kl["y"] - kl["x"], drawn).all()
