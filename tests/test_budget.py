"""The error budget: shares of the one-step bound by quarters of the time axis, and their figure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr

from sgm import bounds, laws, plots, samplers, scores, targets
from sgm.measures.bounds import w2_one_step
from sgm.processes import VPProcess
from sgm.schedules import BetaSchedule
from sgm.timegrids import quadratic, uniform
from tests.grids import synthetic_grid

Array = npt.NDArray[np.float64]

HORIZON = 2.0
LAW = targets.heteroscedastic_slides(dimension=6, mean=1.0).law
PROCESS = VPProcess(BetaSchedule(HORIZON, 3.0, beta_min=0.1, beta_max=20.0), 1.3)


@pytest.mark.parametrize("grid", [uniform, quadratic])
@pytest.mark.parametrize("sampler", ["euler_maruyama", "heun", "dpm_solver_2s"])
@pytest.mark.parametrize("n_steps", [1, 2, 7, 40])
def test_each_share_is_that_of_its_quarter(
    grid: Callable[[float, int], Array], sampler: str, n_steps: int
) -> None:
    times = grid(HORIZON, n_steps)
    steps = getattr(samplers, sampler)(PROCESS, times)
    score = scores.scaled(PROCESS, LAW, eps=0.05)
    mse = laws.chain_error(steps, score, LAW, PROCESS.prior(6))[steps.evaluated]
    networks = mse * np.array([[1.0], [4.0], [0.0]])
    found = w2_one_step(PROCESS, LAW, times, steps, networks)
    whole = bounds.one_step_w2_bound(PROCESS, LAW, times, steps, score_mse_generated=networks)
    discretization, error = np.zeros(4), np.zeros((3, 4))
    evaluation = 0
    per_step = np.diff([*steps.departing, steps.nfe])
    for k in range(n_steps):
        quarter = int((times[k] + times[k + 1]) / 2 // (HORIZON / 4))
        discretization[quarter] += whole.steps[k]
        for _ in range(per_step[k]):
            error[:, quarter] += whole.evaluations[:, evaluation]
            evaluation += 1
    assert evaluation == steps.nfe
    for q in range(4):
        own = found[f"w2_one_step_discretization_q{q + 1}"]
        np.testing.assert_allclose(own, discretization[q], rtol=1e-12, atol=1e-300)
        own = found[f"w2_one_step_score_q{q + 1}"]
        np.testing.assert_allclose(own, error[:, q], rtol=1e-12, atol=1e-300)
    parts = {
        part: sum(found[f"w2_one_step_{part}_q{q}"] for q in (1, 2, 3, 4))
        for part in ("discretization", "score")
    }
    for part, value in parts.items():
        np.testing.assert_allclose(value, found[f"w2_one_step_{part}"], rtol=1e-12)
    np.testing.assert_allclose(
        found["w2_one_step_mixing"] + parts["discretization"] + parts["score"],
        found["w2_one_step"], rtol=1e-12,
    )  # fmt: skip


def test_an_early_stop_counts_to_the_last_part_of_the_way() -> None:
    times = np.linspace(HORIZON, 0.3, 11)
    steps = samplers.euler_maruyama(PROCESS, times)
    found = w2_one_step(PROCESS, LAW, times, steps, np.zeros(steps.nfe))
    whole = bounds.one_step_w2_bound(
        PROCESS, LAW, times, steps, score_mse_generated=np.zeros(steps.nfe)
    )
    assert whole.early_stop > 0
    middle = (times[:-1] + times[1:]) / 2
    own = whole.early_stop + whole.steps[middle < HORIZON / 4].sum()
    np.testing.assert_allclose(found["w2_one_step_discretization_q1"], own)


def budget_grid() -> xr.Dataset:
    """Shares that differ in every cell, and their sum as the bound."""
    grid = synthetic_grid(a=(0, 3, 5), scores=("exact", "scaled"), samplers=("ei_modified", "em"))
    names = [
        "w2_one_step_mixing",
        *(f"w2_one_step_discretization_q{q}" for q in (4, 3, 2, 1)),
        *(f"w2_one_step_score_q{q}" for q in (4, 3, 2, 1)),
    ]
    like = xr.ones_like(grid.status, dtype=float).drop_attrs()
    rng = np.random.default_rng(0)
    shares = {name: like * rng.random((*grid.status.shape[:-1], 1)) for name in names}
    total = sum(shares.values())
    about = {
        "role": "bound", "label": "one-step bound on W2", "units": "1", "divergence": "w2_plugin",
        "budget": " ".join(names),
    }  # fmt: skip
    labels = {name: share.assign_attrs(label=name) for name, share in shares.items()}
    return grid.assign(labels | {"w2_one_step": total.assign_attrs(about)})


def test_the_stack_adds_up_to_the_bound() -> None:
    grid = budget_grid()
    figure, frame = plots.draw(grid, "w2_one_step_budget/isotropic")
    stack = frame[frame["curve"].str.startswith("w2_one_step")]
    keys = ["panel", "x"]
    assert len(stack) == 9 * len(stack[keys].drop_duplicates())
    for (panel, x), rows in stack.groupby(keys):
        np.testing.assert_allclose(rows["high"] - rows["low"], rows["y"])
        np.testing.assert_array_equal(rows["low"].to_numpy()[1:], rows["high"].to_numpy()[:-1])
        one = rows.iloc[0]
        labels = {d: one[d] for d in ("schedule", "sampler", "score")}
        total = grid.w2_one_step.sel(labels).isel(seed=0).item()
        ends = [rows["low"].min(), rows["high"].max()]
        np.testing.assert_allclose(ends, [0, total], err_msg=f"{panel} {x}")
    exact = frame[frame["curve"] == "exact"]
    expected = grid.w2_exact.sel(score="scaled", sampler="em").squeeze(drop=True)
    np.testing.assert_array_equal(exact.loc[exact["sampler"] == "em", "y"], expected)
    bars = [patch for ax in figure.axes for patch in ax.patches]
    assert len(bars) == len(stack)


def test_a_grid_without_shares_has_no_budget() -> None:
    with pytest.raises(ValueError, match="w2_one_step_budget"):
        plots.draw(synthetic_grid(a=(0, 3)), "w2_one_step_budget/isotropic")
