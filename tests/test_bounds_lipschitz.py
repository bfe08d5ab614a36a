"""The bounds of W₂ by Lipschitz constants: curvature, the recursion, and laws of the line."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr
from scipy.stats import norm

from sgm import laws, samplers, scores, targets
from sgm.bounds import (
    ONE_EVALUATION,
    LipschitzObjection,
    brosse_dalalyan_w2_bound,
    lipschitz_objection,
    mixture_w2_bound,
    one_step_w2_bound,
)
from sgm.bounds.curvature import curvature, smallest_variance
from sgm.densities import Affine, GaussianMixture, Law, Product
from sgm.gaussian import Gaussian, wasserstein2
from sgm.measures.bounds import w2_brosse_dalalyan, w2_one_step_mixture
from sgm.processes import Process, VEProcess, VPProcess
from sgm.run.properties.bounds import cells
from sgm.samplers import Steps
from sgm.schedules import BetaSchedule, ConstantSchedule, GeometricSchedule
from sgm.timegrids import quadratic, uniform

PAIR = GaussianMixture([0.4, 0.6], [[-0.5], [0.5]], [[0.5], [0.5]])  # log-concave
MODES = GaussianMixture([0.4, 0.6], [[-1.0], [1.0]], [[0.25], [0.25]])
WIDTHS = GaussianMixture([0.3, 0.7], [[-0.5], [0.5]], [[0.2], [0.5]])
CROSS = GaussianMixture([0.5, 0.5], np.zeros((2, 2)), [[1.0, 0.1], [0.1, 1.0]])


def random_mixture(rng: np.random.Generator) -> GaussianMixture:
    """Equal covariances, or isotropic ones that differ; one or two dimensions."""
    k, d = int(rng.integers(1, 5)), int(rng.integers(1, 3))
    if rng.random() < 0.5:
        variances = np.tile(10 ** rng.uniform(-1.5, 1, d), (k, 1))
    else:
        variances = np.repeat(10 ** rng.uniform(-1.5, 1, (k, 1)), d, axis=1)
    means = rng.standard_normal((k, d)) * 10 ** rng.uniform(-1, 1)
    return GaussianMixture(rng.dirichlet(np.full(k, 2.0)), means, variances)


def hessians(law: Law, x: np.ndarray, m: float, v: float, step: float) -> np.ndarray:
    """Eigenvalues of ∇²log p by differences of the score."""
    shifts = step * np.eye(law.dimension)
    columns = [(law.score(x + e, m, v) - law.score(x - e, m, v)) / (2 * step) for e in shifts]
    found = np.stack(columns, axis=-1)
    return np.asarray(np.linalg.eigvalsh((found + found.swapaxes(-1, -2)) / 2))


def test_curvature_bounds_the_second_derivatives_of_random_mixtures() -> None:
    for i in range(500):
        rng = np.random.default_rng(i)
        law, m, v = random_mixture(rng), rng.uniform(0.05, 1), 10 ** rng.uniform(-3, 1)
        known = curvature(law, m, v)
        assert known is not None
        (low, high), (slope_low, slope_high) = known
        first, second = law.means[rng.integers(0, len(law.means), (2, 200))]
        x = m * (first + rng.uniform(-0.3, 1.3, (200, 1)) * (second - first))
        x += np.sqrt(m**2 * law.variances.max() + v) * rng.standard_normal(x.shape)
        width = np.sqrt(m**2 * law.variances.min() + v)
        found = hessians(law, x, m, v, 1e-5 * width)
        assert found.max() <= high + 1e-5 / width**2
        assert found.min() >= low - 1e-5 / width**2
        # of the denoiser (1 + vH)/m, where this difference does not cancel
        assert slope_high == pytest.approx((1 + v * high) / m, rel=1e-9, abs=1e-9)
        assert slope_low == pytest.approx((1 + v * low) / m, rel=1e-6, abs=1e-9)


def test_two_equal_modes_reach_the_bound_between_them() -> None:
    law = GaussianMixture([0.5, 0.5], [[-2.0], [2.0]], [[0.3], [0.3]])
    m, v = 0.8, 0.1
    known = curvature(law, m, v)
    assert known is not None
    spread = m**2 * 0.3 + v
    assert known.hessian[1] == pytest.approx(-1 / spread + m**2 * 16 / (4 * spread**2))
    assert hessians(law, np.zeros((1, 1)), m, v, 1e-5).max() == pytest.approx(known.hessian[1])


def test_noise_around_a_ball_has_the_constant_of_beyler_and_bach_or_less() -> None:
    """Data on a circle of radius R, noise t: 1 + h(R²/t² − 1/t) for an Euler step of h."""
    ring = targets.ring_mixture(modes=8, radius=2.0, variance=1e-12).law
    t = np.array([0.1, 1.0, 30.0])
    known = curvature(ring, 1.0, t)
    assert known is not None
    assert known.hessian[1] == pytest.approx(4 / t**2 - 1 / t, rel=1e-6)


@pytest.mark.parametrize(
    "law",
    [
        Gaussian(np.ones(2), np.array([0.3, 2.0]), np.eye(2)),
        Product((MODES, Gaussian.diagonal(np.zeros(1), np.array([3.0])))),
        Affine(MODES, np.array([0.7]), 2.5),
    ],
)
def test_curvature_of_other_laws_follows_their_definition(law: Law) -> None:
    known = curvature(law, 0.7, 0.2)
    assert known is not None
    x = 0.7 * law.sample(2000, np.random.default_rng(0)) + 0.3 * np.random.default_rng(
        1
    ).standard_normal((2000, law.dimension))
    found = hessians(law, x, 0.7, 0.2, 1e-5)
    low, high = known.hessian
    assert low - 1e-6 < found.min() < low + 0.1 * abs(low)
    assert found.max() < high + 1e-6
    assert known.denoiser[1] == pytest.approx((1 + 0.2 * high) / 0.7)
    least = smallest_variance(law)
    assert np.all(np.isfinite(law.log_density(x, 1.0, -0.99 * least)))


def test_laws_without_a_lipschitz_constant_have_no_number() -> None:
    funnel = targets.funnel(dimension=3, spread=1.0, slope=0.5).law
    process, times = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0)), uniform(1.0, 5)
    steps = samplers.ancestral(process, times)
    for law in (funnel, CROSS, Product((funnel, MODES)), Affine(CROSS, np.zeros(2), 2.0)):
        assert lipschitz_objection(law, "ancestral") is LipschitzObjection.LIPSCHITZ
        told = {"process": process, "law": law, "times": times, "steps": steps}
        values = w2_one_step_mixture(**told, score_mse_evaluations=np.zeros(5))
        assert np.all(np.isnan(list(values.values())))
    assert lipschitz_objection(None, "ancestral") is LipschitzObjection.LAW_UNKNOWN
    assert lipschitz_objection(MODES, "heun") is LipschitzObjection.SAMPLER
    assert lipschitz_objection(MODES, "ddim") is LipschitzObjection.NONE


def test_samplers_of_several_evaluations_have_no_number() -> None:
    process, times = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0)), uniform(1.0, 5)
    for steps in (samplers.heun(process, times), samplers.dpm_solver_pp_2m(process, times)):
        told = {"process": process, "law": MODES, "times": times, "steps": steps}
        errors = {"score_mse_evaluations": np.zeros(steps.nfe)}
        assert np.isnan(w2_one_step_mixture(**told, **errors)["w2_one_step_mixture"])
        assert np.isnan(w2_brosse_dalalyan(**told, **errors)["w2_brosse_dalalyan"])


@pytest.mark.parametrize("name", sorted(ONE_EVALUATION))
@pytest.mark.parametrize("variance", [1.0, 3.0])
def test_a_mixture_of_one_component_has_nearly_the_bound_of_its_gaussian(
    name: str, variance: float
) -> None:
    """There δ_k is a Bures distance; the flow's coupling is a little above it."""
    process = VPProcess(BetaSchedule(2.0, 1.0, 0.05, 8.0), variance)
    gaussian = Gaussian(np.array([0.5]), np.array([0.3]), np.eye(1))
    one, times = GaussianMixture([1.0], [[0.5]], [[0.3]]), uniform(2.0, 40)
    steps = getattr(samplers, name)(process, times)
    told = {"score_mse_generated": np.full((2, 40), 0.01)}
    exact = one_step_w2_bound(process, gaussian, times, steps, **told)
    found = mixture_w2_bound(process, one, times, steps, np.random.default_rng(0), 500, **told)
    assert found is not None
    error = 4 * float(found.standard_error)
    assert float(exact.discretization) - error < float(found.discretization)
    assert float(found.discretization) < 1.6 * float(exact.discretization) + error
    assert found.score_error == pytest.approx(exact.score_error, rel=1e-9)
    assert found.total.shape == (2,)
    assert float(found.mixing) >= float(exact.mixing) * (1 - 1e-9)
    assert float(found.growth) == pytest.approx(np.prod(found.lipschitz))


def output_quantiles(process: Process, law: Law, steps: Steps, levels: np.ndarray) -> np.ndarray:
    """Quantiles of the chain's output on the line, by its transition kernels on a grid.

    Steps without noise, all of them or the last, move points of equal mass.
    """

    def mean(k: int, x: np.ndarray) -> np.ndarray:
        tau = steps.score_time[k]
        m, v = float(process.mean_scale(tau)), float(process.kernel_variance(tau))
        return np.asarray(steps.state[k] * x + steps.score[k] * law.score(x[:, None], m, v)[:, 0])

    start, drawn = np.sqrt(process.prior_variance), int(np.sum(steps.noise > 0))
    assert np.all(steps.noise[:drawn] > 0)
    grid, width = np.linspace(-9 * start, 9 * start, 1000, retstep=True)
    edges = np.append(grid - width / 2, grid[-1] + width / 2)
    p = np.diff(ndtr(edges / start))
    for k in range(drawn):
        held = p > 1e-15
        p = p[held] @ np.diff(ndtr((edges - mean(k, grid[held])[:, None]) / steps.noise[k]))
    x = np.interp(levels, np.cumsum(p), edges[1:]) if drawn else start * norm.ppf(levels)
    for k in range(drawn, len(steps)):
        x = np.sort(mean(k, x))
    return np.asarray(x)


def w2_on_the_line(process: Process, law: GaussianMixture, steps: Steps) -> float:
    levels = (np.arange(8000) + 0.5) / 8000
    x = np.linspace(-12, 12, 100_001)
    parts = zip(law.weights, law.means, law.variances, strict=True)
    mass = sum(w * ndtr((x - mean) / np.sqrt(variance)) for w, mean, variance in parts)
    gap = output_quantiles(process, law, steps, levels) - np.interp(levels, mass, x)
    return float(np.sqrt(np.mean(gap**2)))


def bound_and_error(
    process: Process, law: GaussianMixture, times: np.ndarray, name: str
) -> tuple[float, float]:
    steps = getattr(samplers, name)(process, times)
    found = mixture_w2_bound(
        process, law, times, steps, np.random.default_rng(0), 300,
        score_mse_generated=np.zeros(steps.n_steps),
    )  # fmt: skip
    assert found is not None
    # upper end of the Monte-Carlo interval: the bound itself is an estimate
    return float(found.total + 3 * found.standard_error), w2_on_the_line(process, law, steps)


@pytest.mark.parametrize("name", sorted(ONE_EVALUATION))
@pytest.mark.parametrize("law", [PAIR, WIDTHS], ids=["equal", "unequal"])
def test_the_bound_lies_above_w2_of_mixtures_on_the_line(law: GaussianMixture, name: str) -> None:
    process = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0), 1.0)
    bound, error = bound_and_error(process, law, uniform(1.0, 15), name)
    assert error > 3e-4
    # the errors of the probability flow's steps cancel, which their sizes can't tell
    assert error < bound < (300 if name == "probability_flow_euler" else 30) * error


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_the_bound_lies_above_w2_of_random_mixtures_on_the_line(seed: int) -> None:
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 5))
    variances = np.full((k, 1), 10 ** rng.uniform(-1, 0))
    if rng.random() < 0.5:
        variances = 10 ** rng.uniform(-1, 0, (k, 1))
    law = GaussianMixture(rng.dirichlet(np.full(k, 2.0)), rng.uniform(-2, 2, (k, 1)), variances)
    name = str(rng.choice(sorted(ONE_EVALUATION)))
    grid, n = (uniform if rng.random() < 0.5 else quadratic), int(rng.integers(3, 60))
    if rng.random() < 0.2 and name not in ("exponential_integrator_modified",):
        process: Process = VEProcess(GeometricSchedule(1.0, 0.1, 5.0))
    else:
        a, variance = rng.uniform(-5, 5), 10 ** rng.uniform(-0.5, 0.5)
        process = VPProcess(BetaSchedule(1.0, a, 0.5, 12.0), variance)
    bound, error = bound_and_error(process, law, grid(1.0, n), name)
    assert bound >= error


def test_modes_far_apart_make_it_useless() -> None:
    """L_k exceeds 1 while modes part: their gap over the width, squared, is in the exponent."""
    process, times = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0)), uniform(1.0, 100)
    ring = targets.ring_mixture(modes=8, radius=2.0, variance=0.01).law
    steps = samplers.ancestral(process, times)
    told = {"score_mse_generated": np.zeros(100)}
    found = mixture_w2_bound(process, ring, times, steps, np.random.default_rng(0), 2, **told)
    assert found is not None
    assert float(found.growth) > 1e15


def test_it_falls_with_the_step() -> None:
    """δ_k is of the second order in the step, so that the bound is of the first."""
    process = VPProcess(ConstantSchedule(2.0, 1.0))
    totals = []
    for n in (20, 80):
        times = uniform(2.0, n)
        found = mixture_w2_bound(
            process, PAIR, times, samplers.euler_maruyama(process, times),
            np.random.default_rng(1), 400, score_mse_generated=np.zeros(n),
        )  # fmt: skip
        assert found is not None
        totals.append(float(found.discretization))
    assert 3.2 < totals[0] / totals[1] < 6


def test_parameters_out_of_range_are_refused() -> None:
    process, times = VPProcess(ConstantSchedule(1.0, 1.0)), uniform(1.0, 4)
    steps, rng = samplers.ddim(process, times), np.random.default_rng(0)
    with pytest.raises(ValueError, match="draws = 1: must be at least 2"):
        mixture_w2_bound(process, PAIR, times, steps, rng, 1, score_mse_generated=np.zeros(4))
    with pytest.raises(ValueError, match=r"times has shape \(4,\)"):
        mixture_w2_bound(process, PAIR, times[1:], steps, rng, 9, score_mse_generated=np.zeros(4))
    with pytest.raises(ValueError, match=r"score_mse_generated has shape \(3,\)"):
        brosse_dalalyan_w2_bound(process, PAIR, times, steps, score_mse_generated=np.zeros(3))


# --- Brosse and Dalalyan -------------------------------------------------------------


def test_the_universal_bound_holds_on_random_gaussian_cells() -> None:
    for k, cell in zip(range(300), cells(7), strict=False):
        context, error = cell.context("ddim", along_chain=True), cell.exact("ddim")["w2_exact"]
        bound = brosse_dalalyan_w2_bound(
            cell.process, cell.law, cell.times, context["steps"],
            score_mse_generated=context["score_mse_generated"],
        )  # fmt: skip
        assert bound is not None
        assert bound.total >= error * (1 - 1e-9), k
        mine = one_step_w2_bound(
            cell.process, cell.law, cell.times, context["steps"],
            score_mse_generated=context["score_mse_evaluations"],
        )  # fmt: skip
        assert bound.discretization >= mine.discretization * (1 - 1e-9), k


def test_the_universal_error_of_a_step_bounds_that_of_mixtures() -> None:
    process, times = VEProcess(GeometricSchedule(1.0, 0.05, 5.0)), uniform(1.0, 12)
    steps = samplers.ddim(process, times)
    told = {"score_mse_generated": np.zeros(12)}
    for law in (PAIR, MODES, WIDTHS):
        drawn = mixture_w2_bound(process, law, times, steps, np.random.default_rng(0), 400, **told)
        found = brosse_dalalyan_w2_bound(process, law, times, steps, **told)
        assert drawn is not None
        assert found is not None
        assert np.all(found.steps > drawn.steps)
        assert np.all(found.lipschitz == drawn.lipschitz)
        # (ς − ς′) − ς′ log(ς/ς′) with 4 √(d(d + 2)(d + 4)), as it is written
        std = process.std(times)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.where(std[1:] > 0, std[1:] * np.log(std[:-1] / std[1:]), 0.0)
        later = np.append(np.cumprod(found.lipschitz[:0:-1])[::-1], 1.0)
        assert found.steps == pytest.approx(4 * np.sqrt(15) * (-np.diff(std) - logs) * later)


def test_the_derivative_of_the_denoiser_along_the_flow_is_within_the_universal_constant() -> None:
    """‖dx̂₀/dς‖ ≤ 4‖Z‖₆³ in L², by differences along a solution of the flow."""
    rng = np.random.default_rng(0)
    for law in (PAIR, MODES, targets.ring_mixture(modes=5, radius=2.0, variance=0.05).law):
        d = law.dimension
        for sigma in (0.2, 1.0, 3.0):
            x = law.sample(20_000, rng) + sigma * rng.standard_normal((20_000, d))
            step = 1e-4 * sigma
            slope = -sigma * law.score(x, 1.0, sigma**2)  # E[Z | x] = −ς s, dx/dς
            ends = []
            for sign in (-1, 1):
                r = sigma + sign * step
                y = x + sign * step * slope
                ends.append(y + r**2 * law.score(y, 1.0, r**2))
            derivative = (ends[1] - ends[0]) / (2 * step)
            norm_ = np.sqrt(np.mean(np.sum(derivative**2, axis=1)))
            assert 0 < norm_ < 4 * np.sqrt(d * (d + 2) * (d + 4))


def test_only_ddim_without_noise_is_covered() -> None:
    process, times = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0)), uniform(1.0, 10)
    told = {"score_mse_generated": np.zeros(10)}
    law = Gaussian(np.ones(1), np.array([0.5]), np.eye(1))
    covered = samplers.ddim(process, times)
    found = brosse_dalalyan_w2_bound(process, law, times, covered, **told)
    assert found is not None
    error = wasserstein2(
        law, laws.sampler_law(covered, scores.exact(process, law), process.prior(1))
    )
    assert float(error) < float(found.total) < 1e4 * float(error)
    for steps in (
        samplers.ddim(process, times, eta=0.5),
        samplers.probability_flow_euler(process, times),
        samplers.ancestral(process, times),
    ):
        assert brosse_dalalyan_w2_bound(process, law, times, steps, **told) is None


@pytest.mark.parametrize("variance", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("total", [1e-3, 60.0, 900.0])
def test_edges_are_bounds_or_infinite(variance: float, total: float) -> None:
    """Tiny and huge σ², one step and several, little noise and far more than float64 resolves."""
    process = VPProcess(ConstantSchedule(1.0, total * variance), variance)
    size = np.sqrt(variance)
    law = GaussianMixture([0.4, 0.6], [[-0.5 * size], [0.5 * size]], np.full((2, 1), variance / 2))
    one = Gaussian(np.zeros(1), np.array([variance / 2]), np.eye(1))
    with np.errstate(all="ignore"):
        for n in (1, 3):
            times = uniform(1.0, n)
            steps = samplers.ddim(process, times)
            told = {"score_mse_generated": np.zeros(n)}
            drawn = mixture_w2_bound(
                process, law, times, steps, np.random.default_rng(0), 50, **told
            )
            found = brosse_dalalyan_w2_bound(process, one, times, steps, **told)
            assert drawn is not None
            assert found is not None
            error = laws.sampler_law(steps, scores.exact(process, one), process.prior(1))
            assert found.total >= wasserstein2(one, error)
            assert drawn.total > 1e-3 * size
            assert not np.isnan(drawn.total)


# --- Perbost, Bach and Marion: not among the bounds, see docs/bounds.md ---------------


def test_the_bound_of_one_geometric_grid_holds_as_the_page_reads_it() -> None:
    for i in range(60):
        rng = np.random.default_rng(i)
        d, n = int(rng.integers(1, 8)), int(10 ** rng.uniform(0.5, 2))
        spectrum = 10 ** rng.uniform(-1, 1) * 10 ** rng.uniform(-3, 0, d)
        trace, fifth = np.sum(spectrum), np.sum(spectrum**5)
        top, stop = (fifth / trace) ** 0.25 * np.sqrt(n), trace / (d * n**2)
        rho = d * (fifth / trace) ** 0.25 / trace
        bound = 0.625 * n ** (2.5 / n) * rho ** (1 / n) * np.log(rho**0.4 * n) + 1 + np.sqrt(8)
        process, law = (
            VEProcess(ConstantSchedule(top, 1.0)),
            Gaussian.diagonal(0 * spectrum, spectrum),
        )
        times = top * (stop / top) ** (np.arange(n + 1) / n)
        made = laws.sampler_law(
            samplers.euler_maruyama(process, times), scores.exact(process, law), process.prior(d)
        )
        assert float(wasserstein2(law, made)) < np.sqrt(trace) / n * bound
