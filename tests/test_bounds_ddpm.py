"""DDPM as a variational autoencoder: its evidence bound in two forms, and what it bounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgm import elbo, laws, samplers, scores, timegrids
from sgm.bounds import DDPMObjection, ddpm_bound, ddpm_objection, step_losses
from sgm.bounds.ddpm_times import ddpm_optimal
from sgm.densities import GaussianMixture
from sgm.gather import gather
from sgm.gaussian import Gaussian, kl_divergence
from sgm.processes import Process, VEProcess, VPProcess
from sgm.run.check import check
from sgm.schedules import BetaSchedule, GeometricSchedule
from sgm.study import Plan, Study
from tests.workflow import run_jobs, tiny

BASIS = np.linalg.qr(np.random.default_rng(5).standard_normal((3, 3)))[0]
NORMAL = Gaussian(np.array([1.0, -0.5, 0.2]), np.array([0.2, 0.7, 2.0]), BASIS)
MODES = GaussianMixture([0.3, 0.7], [[1.0], [3.0]], [[0.05], [0.25]])
PROCESSES: dict[str, Process] = {
    "vp": VPProcess(BetaSchedule(1.0, 2.0, 0.1, 20.0), 1.0),
    "vp of variance 2": VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0), 2.0),
    "ve": VEProcess(GeometricSchedule(1.0, 0.05, 20.0)),
}


def bound(process: Process, law: Any, n: int, variance: Any, eps: float = 0.05) -> Any:
    times = timegrids.uniform(1.0, n)
    mse, _ = scores.scaled(process, law, eps).error_moments(law, times[:-1])
    return ddpm_bound(process, law, times, mse, variance)


@pytest.mark.parametrize("variance", ["large", "small"])
@pytest.mark.parametrize("law", [NORMAL, MODES], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("name", PROCESSES)
def test_both_forms_are_one_number(name: str, law: Any, variance: Any) -> None:
    for n in (1, 2, 30):
        found = bound(PROCESSES[name], law, n, variance)
        entropy = -elbo.mean_log_density(law)
        assert float(found.total) == pytest.approx(float(-found.elbo - entropy), rel=1e-9)
        assert np.all(found.discretization >= 0)


@pytest.mark.parametrize("variance", ["large", "small"])
@pytest.mark.parametrize("name", PROCESSES)
def test_it_bounds_the_exact_divergence(name: str, variance: Any) -> None:
    process = PROCESSES[name]
    for n in (1, 2, 5, 40):
        times = timegrids.uniform(1.0, n)
        large = samplers.ancestral(process, times)
        noise = large.noise.copy()
        if variance == "small":  # whose decoder has the noise of the forward step
            noise[:-1] = samplers.ancestral_small(process, times).noise[:-1]
        score = scores.scaled(process, NORMAL, 0.05)
        output = laws.sampler_law(replace(large, noise=noise), score, process.prior(3))
        assert kl_divergence(NORMAL, output) <= bound(process, NORMAL, n, variance).total


def test_of_one_step_it_is_the_divergence_of_two_joint_gaussians() -> None:
    """X_T and X_0 of the encoder, against those of the model, both Gaussian on the plane."""
    process = PROCESSES["vp"]
    law = Gaussian.diagonal([0.7], [0.4])
    m, v = (float(f(1.0)) for f in (process.mean_scale, process.kernel_variance))
    score = scores.scaled(process, law, 0.1)
    slope, offset = (float(c[0]) for c in score.coefficients(1.0))
    gain, shift = (1 + v * slope) / m, v * offset / m  # of x_0 given x_T, with variance v
    encoder = Gaussian.from_covariance([m * 0.7, 0.7], [[m**2 * 0.4 + v, m * 0.4], [m * 0.4, 0.4]])
    model = Gaussian.from_covariance([0.0, shift], [[1.0, gain], [gain, gain**2 + v]])
    mse, _ = score.error_moments(law, np.array([1.0]))
    found = ddpm_bound(process, law, [1.0, 0.0], mse)
    assert float(found.total) == pytest.approx(float(kl_divergence(encoder, model)), rel=1e-10)


def test_a_step_of_a_mixture_is_the_mean_kl_by_quadrature() -> None:
    process = PROCESSES["vp"]
    start, stop = 0.4, 0.2
    x, x_weights = np.linspace(-6, 8, 1401, retstep=True)
    y = x
    m, m1 = (float(process.mean_scale(t)) for t in (start, stop))
    v, v1 = (float(process.kernel_variance(t)) for t in (start, stop))
    root = m / m1
    beta = v - root**2 * v1
    log_joint = MODES.log_density(y[:, None], m1, v1) + (
        -((x[:, None] - root * y) ** 2) / (2 * beta) - np.log(2 * np.pi * beta) / 2
    )
    mean = (x + beta * MODES.score(x[:, None], m, v)[:, 0]) / root
    for variance, own in (("large", beta), ("small", beta * v1 / v)):
        model = -((y - mean[:, None]) ** 2) / (2 * own) - np.log(2 * np.pi * own) / 2
        log_p = MODES.log_density(x[:, None], m, v)[:, None]
        expected = np.sum(np.exp(log_joint) * (log_joint - log_p - model)) * x_weights**2
        found = float(step_losses(process, MODES, start, stop, variance))
        assert found == pytest.approx(expected, rel=1e-6)


def test_a_step_is_weighted_denoising_to_first_order() -> None:
    """L_k − ½ β dsm is of second order in β; of the small variance where v is large beside β."""
    process, t = PROCESSES["vp"], 0.5
    v = float(process.kernel_variance(t))
    denoising = 1 / v - float(MODES.fisher_information(process.mean_scale(t), v)) + 0.3
    for variance in ("large", "small"):
        gaps = []
        for h in (1e-3, 5e-4):
            times = np.array([1.0, t, t - h, 0.0])
            mse = np.full(3, 0.3)
            found = ddpm_bound(process, MODES, times, mse, variance)
            beta = float(-np.expm1(-np.diff(process.schedule.integral([t - h, t]))[0]))
            gaps.append(abs(float(found.step_loss[1]) - beta * denoising / 2))
        assert abs(np.log2(gaps[0] / gaps[1]) - 2) < 0.02, variance


def test_many_steps_leave_the_terminal_term_of_the_large_variance() -> None:
    process = PROCESSES["vp"]
    found = [bound(process, MODES, n, "large", eps=0.0) for n in (400, 800)]
    losses = [float(np.sum(own.discretization)) for own in found]
    assert abs(np.log2(losses[0] / losses[1]) - 1) < 0.1  # a step loses O(β²)
    assert found[1].terminal == MODES.kl_to_normal(
        1.0, float(process.mean_scale(1.0)), float(process.kernel_variance(1.0))
    )


def test_of_one_endless_step_only_the_decoder_is_left() -> None:
    """It is N(μ, σ² I) where nothing is left of X_0."""
    for horizon in (30.0, 1e3, 1e6):
        process = VPProcess(BetaSchedule(horizon, 0.0, 1.0, 20.0), 1.0)
        for law in (NORMAL, MODES):
            found = ddpm_bound(process, law, [horizon, 0.0], np.zeros(1))
            expected = law.kl_to_normal(1.0) - np.sum(law.mean**2) / 2
            assert float(found.total) == pytest.approx(expected, rel=1e-9)
            entropy = -elbo.mean_log_density(law)
            assert float(-found.elbo) == pytest.approx(expected + entropy, rel=1e-9)


def test_objections() -> None:
    assert ddpm_objection(NORMAL, "ancestral", "large") == DDPMObjection.NONE
    assert ddpm_objection(NORMAL, "ddim", "large") == DDPMObjection.SAMPLER
    assert ddpm_objection(NORMAL, "ancestral_small", "small") == DDPMObjection.DECODER
    assert ddpm_objection(None, "ancestral", "large") == DDPMObjection.LAW_UNKNOWN


@pytest.mark.parametrize(
    ("times", "mse", "message"),
    [
        ([1.0, 0.5, 0.1], [0.0, 0.0], "times end at 0.1: must end at 0"),
        ([1.0, 0.0], [0.0, 0.0], r"score_mse has shape \(2,\): must be \(..., 1\)"),
    ],
)
def test_it_refuses(times: Any, mse: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ddpm_bound(PROCESSES["vp"], MODES, times, mse)


def test_a_study_has_it_for_exact_scores_and_networks(tmp_path: Path) -> None:
    study = Study.parse(tiny(bounds=["kl_ddpm", "kl_ddpm_small"], samplers=["ancestral"]))
    check(study)
    plan = Plan(study, tmp_path)
    run_jobs(plan)
    grid = gather(plan, {}).squeeze()
    for name in ("kl_ddpm", "kl_ddpm_small"):
        parts = grid.kl_terminal + grid[f"{name}_discretization"] + grid[f"{name}_score"]
        np.testing.assert_allclose(parts.transpose(*grid[name].dims), grid[name])
        losses = [grid[f"{name}_{part}_loss"] for part in ("prior", "step", "decoder")]
        np.testing.assert_allclose(-sum(losses), grid[f"{name}_elbo"].transpose("schedule", ...))
        assert np.isfinite(grid[name]).all()
    assert (grid.kl_ddpm_applicable == 1).all()
    scaled = grid.sel(score="scaled_eps=0.1")
    assert (scaled.kl_exact <= scaled.kl_ddpm.isel(seed=0)).all()


@pytest.mark.parametrize("variance", ["large", "small"])
def test_the_programme_finds_the_best_two_steps(variance: Any) -> None:
    process = PROCESSES["vp"]
    times = ddpm_optimal(process, 2, MODES, variance=variance)
    found = ddpm_bound(process, MODES, times, np.zeros(2), variance).total
    every = [
        ddpm_bound(process, MODES, [1.0, t, 0.0], np.zeros(2), variance).total
        for t in np.geomspace(1e-3, 0.99, 120)
    ]
    assert float(found) == pytest.approx(float(min(every)), rel=1e-3)


def test_the_programme_beats_the_usual_grids() -> None:
    process = PROCESSES["vp"]
    for law in (NORMAL, MODES):
        for n in (5, 20):
            grids = (
                ddpm_optimal(process, n, law),
                timegrids.uniform(1.0, n),
                timegrids.log_snr(process, n, sigma_min=0.05),
                timegrids.cosine(process, n, offset=0.008, scale=1.0),
            )
            best, *others = (float(ddpm_bound(process, law, t, np.zeros(n)).total) for t in grids)
            assert best < min(others)


def test_too_many_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="n_steps = 101: must be at most 100"):
        ddpm_optimal(PROCESSES["vp"], 101, MODES)
