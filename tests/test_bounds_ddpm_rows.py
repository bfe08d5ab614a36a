"""The evidence bound of DDPM on rows: of densities, and of levels by the discretised decoder.

Data on the line under an affine score, so that the loss of denoising, the chain's output and every
probability are closed forms, and the means over noises quadratures.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from numpy.polynomial.hermite_e import hermegauss
from numpy.polynomial.legendre import leggauss
from scipy.stats import norm

from sgm import laws, samplers, scores, timegrids
from sgm.bounds import (
    DenoisedRows,
    RowsObjection,
    ddpm_bound,
    level_bins,
    row_losses,
    rows_objection,
)
from sgm.gather import gather
from sgm.gaussian import Gaussian
from sgm.processes import Process, VEProcess, VPProcess
from sgm.run.check import check
from sgm.schedules import BetaSchedule, GeometricSchedule
from sgm.study import Plan, Study
from sgm.targets.empirical import EmpiricalTarget
from tests.workflow import run_jobs, tiny

Array = npt.NDArray[np.float64]
Variance = Literal["large", "small"]

LEVELS = 5
DATA = np.repeat(np.arange(LEVELS), [8, 5, 3, 1, 2])[:, None]
TARGET = EmpiricalTarget.from_levels(DATA, 0.3, standardise=False, levels=LEVELS)
#: What the affine score is exact for: not the data's moments, so that it has an error.
NORMAL = Gaussian(np.array([-0.3]), np.array([0.4]), np.eye(1))
PROCESSES: dict[str, Process] = {
    "vp": VPProcess(BetaSchedule(1.0, 2.0, 0.1, 20.0), 1.0),
    "ve": VEProcess(GeometricSchedule(1.0, 0.05, 20.0)),
}
CELLS = [(p, n, v) for p in PROCESSES for n in (1, 4, 50) for v in ("large", "small")]


def losses_by_quadrature(
    process: Process, times: Array, rows: Array, with_levels: bool, variance: Variance
) -> tuple[Any, Array]:
    """The losses of rows (n, 1) beside 60 noises of the decoder each, and the noises' weights."""
    z, weights = hermegauss(60)
    m, v = process.mean_scale(times[:-1]), process.kernel_variance(times[:-1])
    (spread,), (mean,) = NORMAL.eigenvalues, NORMAL.mean
    rate = 1 / (m**2 * spread + v)
    # s + Z/√v = −c m (x₀ − μ) + (1 − c v) Z/√v, c the rate
    loss = (rate * m * (rows - mean)) ** 2 + (1 - rate * v) ** 2 / v
    x = m[-1] * rows + np.sqrt(v[-1]) * z
    denoised = mean + m[-1] * spread * rate[-1] * (x - m[-1] * mean)
    beside = np.repeat(rows[:, None, :], len(z), axis=1)
    heldout = DenoisedRows(beside, np.repeat(loss[:, None, :], len(z), axis=1), denoised[..., None])
    bins = level_bins(TARGET, beside)[1] if with_levels else None
    found = row_losses(process, times, heldout, bins, variance)
    return found, weights / weights.sum()


@pytest.mark.parametrize(("name", "n", "variance"), CELLS)
def test_of_a_density_it_is_the_bound_of_the_law(name: str, n: int, variance: Variance) -> None:
    """The mean over rows of N(0.2, 0.7) is `ddpm_bound`, which knows the law and no rows."""
    process, law = PROCESSES[name], Gaussian(np.array([0.2]), np.array([0.7]), np.eye(1))
    times = timegrids.uniform(1.0, n)
    nodes, weights = hermegauss(20)
    rows = law.mean + np.sqrt(law.eigenvalues) * nodes[:, None]
    found, noises = losses_by_quadrature(process, times, rows, False, variance)
    mean = float(weights / weights.sum() @ found.total @ noises)
    mse, _ = scores.exact(process, NORMAL).error_moments(law, times[:-1])
    known = ddpm_bound(process, law, times, mse, variance)
    assert mean == pytest.approx(-float(known.elbo), rel=1e-10)


@pytest.mark.parametrize(("name", "n", "variance"), CELLS)
def test_it_bounds_the_probability_of_every_level(name: str, n: int, variance: Variance) -> None:
    """P is that of a Gaussian's bins; the bound by densities bounds that of the inner ones too."""
    process, times = PROCESSES[name], timegrids.uniform(1.0, n)
    steps = samplers.ancestral(process, times)
    noise = steps.noise.copy()
    if variance == "small":
        noise[:-1] = samplers.ancestral_small(process, times).noise[:-1]
    scheme = replace(steps, noise=noise)
    output = laws.sampler_law(scheme, scores.exact(process, NORMAL), process.prior(1))
    nodes, weights = leggauss(20)
    for level in range(LEVELS):
        rows = TARGET.standardise((level + (1 + nodes) / 2)[:, None])
        middle, (low, high) = level_bins(TARGET, rows[:1])
        found, noises = losses_by_quadrature(process, times, middle, True, variance)
        bound = float((found.total @ noises)[0])
        found, noises = losses_by_quadrature(process, times, rows, False, variance)
        density = float(weights / 2 @ found.total @ noises)
        sd = float(np.sqrt(output.eigenvalues[0]))
        ends = norm.cdf([low[0, 0], high[0, 0]], output.mean[0], sd)
        exact = -np.log(ends[1] - ends[0])
        assert bound >= exact - 1e-12
        if 0 < level < LEVELS - 1:
            assert density - np.log(2 / LEVELS) >= exact - 1e-12


def test_a_chain_of_one_endless_step_attains_it() -> None:
    """Its decoder knows nothing of the row: the losses are −log P of the data's moments."""
    process = VPProcess(BetaSchedule(1.0, 0.0, 60.0, 60.0), 1.0)
    rows, (low, high) = level_bins(TARGET, TARGET.standardise(np.arange(LEVELS)[:, None] + 0.1))
    found, noises = losses_by_quadrature(process, np.array([1.0, 0.0]), rows, True, "large")
    exact = norm.cdf(high, NORMAL.mean[0], 1.0) - norm.cdf(low, NORMAL.mean[0], 1.0)
    assert exact.sum() == pytest.approx(1.0, rel=1e-15)
    np.testing.assert_allclose(found.total @ noises, -np.log(exact[:, 0]), rtol=1e-6)


def test_bins_are_those_of_the_rows() -> None:
    middle, (low, high) = level_bins(TARGET, TARGET.rows)
    np.testing.assert_allclose(middle, TARGET.standardise(DATA + 0.5), rtol=1e-12)
    assert np.all((low <= TARGET.rows) & (TARGET.rows < high))
    assert np.isinf(low[DATA == 0]).all()
    assert np.isinf(high[DATA == LEVELS - 1]).all()
    inner = (DATA > 0) & (DATA < LEVELS - 1)
    np.testing.assert_allclose((high - low)[inner], 2 / LEVELS, rtol=1e-12)


@pytest.mark.parametrize("mean", [-30.0, 0.0, 30.0])
def test_levels_far_from_the_decoder_keep_their_digits(mean: float) -> None:
    """Sixty standard deviations off, where the probabilities underflow, against the tail."""
    process = VPProcess(BetaSchedule(1.0, 0.0, 1.0, 1.0), 1.0)
    rows, bins = level_bins(TARGET, TARGET.standardise(np.arange(LEVELS)[:, None] + 0.1))
    heldout = DenoisedRows(rows, np.zeros((LEVELS, 1)), np.full((LEVELS, 1), mean))
    found = row_losses(process, [1.0, 0.0], heldout, bins)
    sd = float(np.sqrt(process.kernel_variance(1.0)))
    nodes, weights = leggauss(40)
    for level in range(1, LEVELS - 1):
        low, high = float(bins[0][level, 0]), float(bins[1][level, 0])
        x = low + (high - low) * (1 + nodes) / 2
        terms = norm.logpdf(x, mean, sd) + np.log(weights * (high - low) / 2)
        exact = -np.logaddexp.reduce(terms)
        assert found.decoder[level] == pytest.approx(exact, rel=1e-12)


def test_objections() -> None:
    said = {
        (sampler, variance): rows_objection(sampler, variance)
        for sampler in ("ancestral", "ancestral_small", "ddim")
        for variance in ("large", "small")
    }
    assert [pair for pair, objection in said.items() if not objection] == [("ancestral", "large")]
    assert said["ancestral_small", "small"] is RowsObjection.DECODER


def test_a_grid_that_stops_early_is_refused() -> None:
    with pytest.raises(ValueError, match=r"times end at 0\.1: must end at 0"):
        row_losses(PROCESSES["vp"], [1.0, 0.1], DenoisedRows(*np.zeros((3, 2, 1))))


@pytest.mark.slow
def test_a_study_of_digits_has_it(tmp_path: Path) -> None:
    config = tiny(
        targets=[{"family": "digits_images", "heldout_fraction": 0.3, "standardise": False}],
        divergences=[{"family": "sliced_w2", "projections": 5, "projection_seed": 0}],
        bounds=["nll_ddpm"],
    )
    config["scores"] = [config["scores"][1]]
    study = Study.parse(config)
    check(study)
    plan = Plan(study, tmp_path)
    assert plan.cells("bounds")
    run_jobs(plan)
    grid = gather(plan, {}).squeeze()
    for name in ("nll_ddpm", "nll_ddpm_small"):
        parts = sum(grid[f"{name}_{part}"] for part in ("prior", "steps", "decoder"))
        np.testing.assert_allclose(parts, grid[name].transpose(*parts.dims), rtol=1e-12)
        bits = grid[f"{name}_bits_per_dimension"]
        np.testing.assert_allclose(bits, grid[name] / (64 * np.log(2)))
        assert np.isfinite(grid[f"{name}_bits_per_dimension_dequantised"]).all()
        assert (grid[f"{name}_standard_error"] > 0).all()
