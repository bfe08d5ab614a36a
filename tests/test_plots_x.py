"""What stands on x: any number that varies in the grid, without a line of code."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sgm import plots
from sgm.plots.divergence import RATES
from tests.grids import synthetic_grid

NAN = float("nan")


def parametrised(
    grid: xr.Dataset, dimension: str, name: str, numbers: dict[str, float], **about: str
) -> xr.Dataset:
    """The grid with these labels and the parameter as a coordinate on its dimension."""
    attrs = {"parameter": name, "symbol": name, "long_name": f"{name} of a family"} | about
    labels = {dimension: list(numbers), name: (dimension, list(numbers.values()), attrs)}
    grid = grid.assign_coords(labels)
    if dimension == "schedule":
        grid = grid.assign_coords(a=("schedule", [NAN] * len(numbers)))
    return grid


def power() -> xr.Dataset:
    numbers = {"power_exponent=1": 1.0, "power_exponent=2": 2.0, "power_exponent=4": 4.0}
    grid = synthetic_grid(a=(1, 2, 3), n_seeds=3)
    return parametrised(grid, "schedule", "exponent", {**numbers, "cosine": NAN})


def stochastic() -> xr.Dataset:
    names = {"ddim_eta=0": 0.0, "ddim_eta=0.5": 0.5, "ddim_eta=1": 1.0, "em": NAN}
    grid = synthetic_grid(a=(0,), cosine=False, samplers=tuple(names), n_seeds=3)
    return parametrised(grid, "sampler", "eta", names, symbol="η")


def corrected() -> xr.Dataset:
    names = {
        f"pc_corrector_steps={n}_step_size={size}": float(n) for size in (0.1, 0.2) for n in (1, 2)
    }
    grid = synthetic_grid(a=(0,), cosine=False, samplers=tuple(names), n_seeds=3)
    return parametrised(grid, "sampler", "corrector_steps", names)


CASES = {
    "a user's exponent": (power(), "exponent", [1, 2, 4], ["level cosine"]),
    "eta of DDIM": (stochastic(), "eta", [0, 0.5, 1], ["level em"]),
    "N": (
        synthetic_grid(a=(0,), cosine=False, n_steps=(50, 100, 500), n_seeds=3),
        "n_steps", [50, 100, 500], [],
    ),
    "T": (
        synthetic_grid(a=(0,), cosine=False, horizons=(0.5, 1.0, 3.0), n_seeds=3),
        "horizon", [0.5, 1, 3], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_number_that_varies_stands_on_x(case: str) -> None:
    grid, name, numbers, levels = CASES[case]
    figure, frame = plots.draw(grid, "kl/isotropic")
    rows = frame[frame["curve"] == "empirical"]
    assert rows["x"].tolist() == numbers
    assert rows[name].tolist() == numbers  # the CSV names it
    dimension = str(grid[name].dims[0])
    runs = grid.kl_plugin.sel(score="trained").mean("seed").squeeze(drop=True)
    if dimension != "schedule":
        runs = runs.squeeze(drop=True)
    labels = grid[dimension].values[np.isfinite(grid[name].values)]
    np.testing.assert_allclose(rows["y"], runs.sel({dimension: labels}))
    drawn = [line.get_ydata() for ax in figure.axes for line in ax.lines]
    assert any(np.array_equal(y, rows["y"]) for y in drawn)
    errors = frame.loc[frame["axis"] == "kl", "curve"].unique()
    assert [curve for curve in errors if curve.startswith("level")] == levels
    symbol = {"horizon": "T", "n_steps": "N", "eta": "η"}.get(name, name)
    assert symbol in figure.axes[-1].get_xlabel()
    stars = frame[(frame["curve"] == "minimum") & (frame["axis"] == "kl")]
    differ = rows["y"].max() > rows["y"].min()
    assert stars["y"].tolist() == [rows["y"].min()] * int(differ)
    _, told = plots.draw(grid, "kl/isotropic", x=name)
    pd.testing.assert_frame_equal(told, frame)
    figure, frame = plots.draw(grid, "kl_decomposition/isotropic", x=name)
    rows = frame[(frame["axis"] == "stack") & (frame["curve"] == "kl_bound_mixing")]
    if dimension != "sampler":  # the bound of every number, a column each
        assert rows[name].dropna().tolist() == numbers


def test_labels_without_the_number_are_columns_where_levels_can_not_be_told_apart() -> None:
    numbers = {f"power_exponent={k}": float(k) for k in (1, 2, 4)}
    others = dict.fromkeys(("cosine", "sigmoid", "edm", "laplace", "spline"), NAN)
    grid = parametrised(
        synthetic_grid(a=tuple(range(7)), n_seeds=3), "schedule", "exponent", numbers | others
    )
    figure, frame = plots.draw(grid, "kl/isotropic")
    rows = frame[frame["curve"] == "empirical"]
    assert rows["schedule"].tolist() == [*numbers, *others]
    assert rows["x"].is_monotonic_increasing
    assert not frame["curve"].str.startswith("level").any()
    ticks = [text.get_text() for text in figure.axes[-1].get_xticklabels()]
    assert ticks == ["1", "2", "4", *others]
    joined = [
        len(line.get_xdata()) for line in figure.axes[-1].lines if line.get_linestyle() == "-"
    ]
    assert max(joined) == 3  # the family alone
    assert not any(text.get_text() in others for text in figure.legends[0].get_texts())
    figure, frame = plots.draw(grid, "schedules")
    shown = frame.groupby("panel")["curve"].unique()
    assert len(shown) == 1  # five: one row, by colour
    looks = {(t.get_color(), str(t.get_linestyle())) for t in figure.legends[0].get_lines()}
    assert len(looks) == len(others)


def test_what_else_a_family_varies_is_a_curve_of_its_own() -> None:
    figure, frame = plots.draw(corrected(), "kl/isotropic")
    rows = frame[frame["curve"] == "empirical"]
    assert rows.groupby("series")["x"].apply(list).to_dict() == {
        "pc_step_size=0.1": [1, 2],
        "pc_step_size=0.2": [1, 2],
    }
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sum("pc_step_size" in label for label in labels) == 2


def test_schedules_are_curves_where_something_else_is_on_x() -> None:
    grid = synthetic_grid(a=(-5, 0, 5), n_steps=(50, 500), n_seeds=3)
    assert plots.draw(grid, "kl/isotropic")[1]["panel"].nunique() == 2  # against a, a panel an N
    figure, frame = plots.draw(grid, "kl/isotropic", x="n_steps")
    assert frame["panel"].nunique() == 1
    rows = frame[frame["curve"] == "empirical"]
    runs = grid.kl_plugin.sel(score="trained").mean("seed").squeeze(drop=True)
    for schedule in grid.schedule.values:
        own = rows[rows["series"] == schedule]
        np.testing.assert_allclose(own["y"], runs.sel(schedule=schedule))
    labels = [text.get_text().split(",")[0] for text in figure.legends[0].get_texts()]
    assert {"beta_a=-5", "cosine"} <= set(labels)


def test_rates_without_constants_are_slopes_against_the_number_of_steps() -> None:
    grid = synthetic_grid(a=(-5, 0), cosine=False, n_steps=(50, 100, 500), n_seeds=3)
    figure, frame = plots.draw(grid, "kl/isotropic", x="n_steps")
    told = [text.get_text().replace("\n", " ") for text in figure.legends[0].get_texts()]
    highest = frame.loc[(frame["curve"] == "empirical") & (frame["x"] == 50), "y"].max()
    for curve, exponent in RATES["kl"].items():
        own = frame[frame["curve"] == curve]
        n = np.array([50, 100, 500])
        assert own["x"].tolist() == n.tolist()
        np.testing.assert_allclose(own["y"], highest * (n / 50.0) ** exponent)
        assert f"slope of {curve}" in told
    slopes = set(RATES["kl"])
    assert not slopes & set(plots.draw(grid, "w2/isotropic", x="n_steps")[1]["curve"])
    assert not slopes & set(plots.draw(grid, "kl/isotropic")[1]["curve"])  # against a


def test_panels_of_a_row_that_is_not_full_are_as_wide_as_all() -> None:
    samplers = ("ei_modified", "em", "ddim", "heun", "unipc")
    grid = synthetic_grid(a=(0,), cosine=False, samplers=samplers, n_steps=(5, 10), n_seeds=2)
    figure, frame = plots.draw(grid, "kl/isotropic", x="n_steps")
    assert frame["panel"].nunique() == 5  # in rows of three
    figure.draw_without_rendering()
    widths = [ax.get_position().width for ax in figure.axes]
    assert max(widths) < 1.2 * min(widths)


def evaluated() -> xr.Dataset:
    """Two samplers of one and of two evaluations a step."""
    grid = synthetic_grid(
        a=(0,), cosine=False, samplers=("ei_modified", "heun"), n_steps=(5, 10, 20), n_seeds=3
    )
    n = grid.n_steps.values
    attrs = {"long_name": "evaluations of the score", "symbol": "NFE"}
    return grid.assign_coords(
        nfe=(("sampler", "time_grid", "n_steps"), np.array([[n], [2 * n - 1]]), attrs)
    )


def test_evaluations_of_the_score_stand_on_x_in_place_of_steps() -> None:
    grid = evaluated()
    _, by_steps = plots.draw(grid, "kl/isotropic")
    assert by_steps.loc[by_steps["curve"] == "empirical", "x"].tolist() == [5, 10, 20] * 2
    figure, frame = plots.draw(grid, "kl/isotropic", x="nfe")
    rows = frame[frame["curve"] == "empirical"]
    assert rows["x"].tolist() == rows["nfe"].tolist() == [5, 10, 20, 9, 19, 39]
    assert rows["n_steps"].tolist() == [5, 10, 20] * 2
    assert rows["y"].tolist() == by_steps.loc[by_steps["curve"] == "empirical", "y"].tolist()
    assert figure.axes[-1].get_xlabel() == "evaluations of the score NFE"
    assert len({ax.get_xlim() for ax in figure.axes if ax.get_xlabel()}) == 1
    # a bound is about steps: its columns are those of N
    _, frame = plots.draw(grid, "kl_decomposition/isotropic", x="nfe")
    rows = frame[(frame["axis"] == "stack") & (frame["curve"] == "kl_bound_mixing")]
    assert rows["n_steps"].tolist() == [5, 10, 20] * rows["panel"].nunique()
    with pytest.raises(ValueError, match="x = 'nfe': must be a number that varies in the grid"):
        plots.draw(grid.isel(n_steps=[0]), "kl/isotropic", x="nfe")


def test_a_number_that_does_not_vary_is_refused() -> None:
    for stem in ("kl/isotropic", "kl_decomposition/isotropic"):
        with pytest.raises(ValueError, match="x = 'exponent': must be a number that varies"):
            plots.draw(synthetic_grid(a=(0, 5)), stem, x="exponent")


def test_where_no_number_varies_labels_are_columns() -> None:
    grid = synthetic_grid(a=(0,), cosine=False, samplers=("ei_modified", "em"), n_seeds=3)
    figure, frame = plots.draw(grid, "kl/isotropic")
    rows = frame[frame["curve"] == "empirical"]
    assert rows["sampler"].tolist() == ["ei_modified", "em"]
    ticks = [text.get_text() for text in figure.axes[-1].get_xticklabels()]
    assert ticks == ["ei_modified", "em"]


def test_the_estimator_of_ten_thousand_rows_stands_beside_the_resolved_curve() -> None:
    grid = synthetic_grid(a=(-5, 0, 5), n_seeds=3)
    grid["kl_coupled"] = (0.01 * grid.kl_plugin).drop_attrs()
    grid["kl_plugin"].attrs["coupled"] = "kl_coupled"
    shown = grid["kl_coupled"] + 0.05
    grid["kl_plugin_expected"] = shown.assign_attrs(units="nat", plugin_rows=10_000)
    figure, frame = plots.draw(grid, "kl/isotropic")
    curves = set(frame.loc[frame["axis"] == "kl", "curve"])
    assert {"coupled", "expected"} <= curves
    assert not curves & {"empirical", "plain", "floor"}
    rows = frame[frame["curve"] == "expected"]
    trained = shown.sel(score="trained").squeeze(drop=True).mean("seed")
    np.testing.assert_allclose(rows["y"], trained.isel(schedule=slice(3)))
    labels = [" ".join(text.get_text().split()) for text in figure.legends[0].get_texts()]
    assert "what the plain estimate shows of 10 000 rows" in labels
