"""Other starts of the backward process: the evidence bound, and where they lead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgm import elbo, laws, priors, samplers, scores, timegrids
from sgm.densities import GaussianMixture
from sgm.gather import gather
from sgm.gaussian import Gaussian, kl_divergence, wasserstein2
from sgm.optimal_horizon import optimal_horizon
from sgm.plots import draw
from sgm.processes import VEProcess, VPProcess
from sgm.run.check import check
from sgm.schedules import BetaSchedule, ConstantSchedule
from sgm.study import Plan, Study
from tests.workflow import run_jobs, tiny

MODES = GaussianMixture([0.3, 0.7], [[1.0], [3.0]], [[0.01], [0.25]])
PLANE = GaussianMixture([0.3, 0.7], [[1.0, 0.0], [3.0, 1.0]], [[0.1, 0.2], [0.25, 0.1]])
BASIS = np.linalg.qr(np.random.default_rng(5).standard_normal((3, 3)))[0]
NORMAL = Gaussian(np.array([1.0, -0.5, 0.2]), np.array([0.2, 0.7, 2.0]), BASIS)


def vp(horizon: float) -> VPProcess:
    return VPProcess(BetaSchedule(horizon, 0.0, 0.1, 0.1 + 19.9 * horizon), 1.0)


def noised(process: Any, law: Any, n: int, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    x0 = law.sample(n, rng)
    return process.perturb(x0, np.full(n, process.horizon), rng.standard_normal(x0.shape))


def test_the_moments_of_a_gaussian_are_its_law_at_t() -> None:
    process = vp(0.4)
    start = priors.moments_prior(process, NORMAL)
    assert kl_divergence(process.marginal(NORMAL, 0.4), start) == 0
    terms = priors.prior_terms(process, start, NORMAL, noised(process, NORMAL, 10))
    expected = kl_divergence(process.marginal(NORMAL, 0.4), process.prior(3))
    assert (terms.kl, terms.standard_error) == (0, 0)
    assert terms.gain == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("process", [vp(0.3), VEProcess(ConstantSchedule(0.5, 2.0))])
def test_the_moments_of_rows_tend_to_those_of_the_law(process: Any) -> None:
    exact = priors.moments_prior(process, PLANE)
    m, v = process.mean_scale(process.horizon), process.kernel_variance(process.horizon)
    assert np.allclose(exact.mean, m * PLANE.mean)
    assert np.allclose(exact.covariance, m**2 * PLANE.covariance + v * np.eye(2))
    rows = PLANE.sample(100_000, np.random.default_rng(0))
    assert kl_divergence(exact, priors.moments_prior(process, rows)) < 1e-4  # about d(d + 3)/(4n)


def test_a_quadrature_a_closed_form_and_a_mean_over_rows_agree() -> None:
    process = vp(0.2)
    start = priors.moments_prior(process, MODES)
    closed = priors.prior_terms(process, start, MODES, noised(process, MODES, 10))
    # off by rounding of its own, it is no Gaussian of the moments: by quadrature
    other = Gaussian.diagonal(start.mean + 1e-9, np.diag(start.covariance))
    line = priors.prior_terms(process, other, MODES, noised(process, MODES, 10))
    assert line.kl == pytest.approx(closed.kl, rel=1e-6)
    assert line.gain == pytest.approx(closed.gain, rel=1e-6)
    rows = priors.prior_terms(process, start, None, noised(process, MODES, 100_000))
    assert np.isnan(rows.kl)
    assert abs(rows.gain - closed.gain) < 4 * rows.standard_error


def test_in_the_plane_the_kl_of_a_mixture_is_a_mean_with_its_error() -> None:
    process = vp(0.2)
    m, v = (float(f(0.2)) for f in (process.mean_scale, process.kernel_variance))
    start = priors.mixture_prior(
        process, PLANE.sample(4000, np.random.default_rng(1)), 2, np.random.default_rng(2)
    )
    few, many = (
        priors.prior_terms(process, start, PLANE, noised(process, PLANE, n, n))
        for n in (5000, 100_000)
    )
    assert abs(few.kl - many.kl) < 4 * few.standard_error
    assert 0 < many.kl < 0.01
    assert many.gain == PLANE.kl_to_normal(1.0, m, v) - many.kl


def test_a_mixture_of_one_is_the_gaussian_of_the_noised_rows() -> None:
    process = vp(0.3)
    rows = PLANE.sample(500, np.random.default_rng(0))
    x = process.perturb(rows, np.full(500, 0.3), np.random.default_rng(3).standard_normal((500, 2)))
    start = priors.mixture_prior(process, rows, 1, np.random.default_rng(3))
    gaussian = Gaussian.from_covariance(x.mean(axis=0), np.cov(x.T, bias=True))
    assert np.allclose(start.log_density(x), gaussian.log_density(x), atol=1e-4)  # its reg_covar


@pytest.mark.parametrize("horizon", [0.15, 0.5])
def test_from_the_standard_prior_the_backward_sde_loses_what_it_did(horizon: float) -> None:
    process = vp(horizon)
    found = elbo.reverse_sde_kl(process, MODES, process.prior(1))
    assert found == pytest.approx(elbo.reverse_sde_kl(process, MODES), rel=1e-12)


def test_the_backward_sde_of_a_gaussian_from_another_gaussian_is_in_closed_form() -> None:
    process = vp(0.2)
    law = Gaussian.diagonal([0.7], [0.3])
    start = Gaussian.diagonal([0.4], [0.6])
    m, v = (float(f(0.2)) for f in (process.mean_scale, process.kernel_variance))
    share = 0.3 * m / (m**2 * 0.3 + v)  # X₀ | X_T = y is N(μ + share (y − m μ), λ v/V)
    output = Gaussian.diagonal(
        [0.7 + share * (0.4 - m * 0.7)], [0.3 * v / (m**2 * 0.3 + v) + share**2 * 0.6]
    )
    found = elbo.reverse_sde_kl(process, law, start)
    assert found == pytest.approx(kl_divergence(law, output), rel=1e-9)
    assert found < priors.prior_terms(process, start, law, np.zeros((2, 1))).kl


def test_the_best_time_is_where_the_derivative_of_the_bound_vanishes() -> None:
    process = vp(2.0)
    score = scores.scaled(process, MODES, eps=0.05)
    best = priors.moments_optimal_horizon(
        process, MODES, lambda t: score.error_moments(MODES, t)[0]
    )
    assert best.interior

    def loss(t: float) -> float:
        cut = vp(t)
        quadrature = elbo.time_quadrature(cut, 200, smallest_variance=0.01)
        mse = scores.scaled(cut, MODES, eps=0.05).error_moments(MODES, quadrature.times)[0]
        start = priors.moments_prior(cut, MODES)
        kl = priors.prior_terms(cut, start, MODES, np.zeros((2, 1))).kl
        return float(quadrature.integrate(mse)) / 2 + kl

    here = loss(best.horizon)
    assert here < min(loss(0.98 * best.horizon), loss(1.02 * best.horizon))
    standard = optimal_horizon(process, MODES, lambda t: score.error_moments(MODES, t)[0])
    assert best.horizon < standard.horizon / 2


def test_of_a_gaussian_there_is_nothing_to_wait_for() -> None:
    process = vp(2.0)
    score = scores.scaled(process, NORMAL, eps=0.05)
    best = priors.moments_optimal_horizon(
        process, NORMAL, lambda t: score.error_moments(NORMAL, t)[0]
    )
    assert (best.horizon, best.interior) == (2e-6, False)


@pytest.mark.parametrize("name", ["exponential_integrator_modified", "ddim", "unipc"])
def test_from_p_t_short_steps_lead_to_the_data(name: str) -> None:
    process, found = vp(0.2), []
    score = scores.exact(process, NORMAL)
    for n in (200, 400):
        steps = getattr(samplers, name)(process, timegrids.uniform(0.2, n))
        start = priors.moments_prior(process, NORMAL)
        found.append(float(wasserstein2(NORMAL, laws.law_from(steps, score, start))))
    assert found[0] < 0.01
    assert np.log2(found[0] / found[1]) > 0.95  # no part of it is mixing, which steps don't cure
    standard = laws.law_from(steps, score, Gaussian(np.zeros(3), np.ones(3), BASIS))
    assert kl_divergence(laws.sampler_law(steps, score, process.prior(3)), standard) < 1e-20


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: priors.mixture_prior(vp(1.0), np.zeros((9, 2)), 3, np.random.default_rng(0)),
         "components = 3: must be at most 2, a quarter of the rows"),
        (lambda: priors.moments_prior(vp(1.0), np.zeros(3)), r"rows has shape \(3,\)"),
        (lambda: elbo.reverse_sde_kl(vp(1.0), PLANE, vp(1.0).prior(2)), "dimension = 2"),
        (lambda: laws.law_from(
            samplers.ddim(vp(1.0), timegrids.uniform(1.0, 4)),
            scores.exact(vp(1.0), NORMAL), vp(1.0).prior(3)), "start: must have the eigenbasis"),
        (lambda: Study.parse(tiny(priors={"families": ["moments", "moments"]})), "distinct"),
        (lambda: Study.parse(tiny(priors={"components": 51})),
         "components = 51: must be at most 50, a quarter of n_train = 200"),
        (lambda: Study.parse(tiny(priors={"families": []})), "priors.families"),
    ],
)  # fmt: skip
def test_it_refuses(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


LIKELIHOOD = {
    "rows": 20, "nodes": 32, "cutoff": 0.001, "divergence": "exact", "directions": 1,
    "method": "RK45", "rtol": 0.01, "atol": 0.01, "atol_nats": 0.1,
}  # fmt: skip


def test_a_study_has_the_bound_of_every_start(tmp_path: Path) -> None:
    wine = {"family": "wine", "heldout_fraction": 0.3, "standardise": True}
    config = tiny(
        targets=["two_modes", {"family": "isotropic", "dimension": 3, "mean": 1.0, "variance": 0.5},
                 wine],
        scores=[{"family": "scaled", "eps": 0.05, "sampled": False},
                {**tiny()["scores"][1], "targets": ["wine"]}],
        schedules=[{"family": "beta_a", "a": 0, "beta_min": 0.1, "beta_max": 20.0,
                    "full_horizon": 1.0}],
        horizons=[0.2, 1.0], priors={"components": 2, "rows": 500}, likelihood=LIKELIHOOD,
        bounds=[], n_train=100,
    )  # fmt: skip
    study = Study.parse(config)
    check(study)
    plan = Plan(study, tmp_path)
    run_jobs(plan)
    grid = gather(plan, {}).squeeze(["schedule", "sampler", "time_grid", "n_steps"])
    known = grid.sel(target=["two_modes", "isotropic"])
    for name in ("moments", "mixture"):
        gain, kl = grid[f"prior_gain_{name}"], known[f"kl_terminal_{name}"]
        assert np.isfinite(gain).all()
        np.testing.assert_allclose(gain.sel(target=known.target), known.kl_terminal - kl)
        assert np.isnan(grid[f"kl_terminal_{name}"].sel(target="wine")).all()
    # the better start at small T, and no gain where p_T is the prior; whose mixture errs by its fit
    assert (grid.prior_gain_moments.sel(horizon=0.2) > 0.5).all()
    line = grid.sel(target="two_modes")
    assert (line.reverse_sde_kl_moments <= line.kl_terminal_moments + 1e-12).all()
    assert float(line.optimal_horizon_moments.sel(score="scaled_eps=0.05")) < float(
        line.optimal_horizon.sel(score="scaled_eps=0.05")
    )
    normal = grid.sel(target="isotropic", score="scaled_eps=0.05", horizon=0.2)
    assert (normal.kl_terminal_moments == 0).all()
    assert normal.kl_exact_moments < normal.kl_exact / 10
    _, frame = draw(gather(plan, {}), "priors/wine")
    bound = frame[frame["curve"] == "elbo, moments"].set_index("x")["y"]
    data = grid.sel(target="wine", score=plan.study.scores[1].label)
    expected = (data.denoising_elbo + data.prior_gain_moments).mean("seed")
    np.testing.assert_allclose(bound[[0.2, 1.0]], expected.values)
