"""The one-step W₂ bound: above the exact error everywhere, and close to it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from sgm import laws, samplers, scores, targets
from sgm.bounds import one_step, one_step_w2_bound
from sgm.gaussian import Gaussian, wasserstein2
from sgm.processes import Process, VEProcess, VPProcess
from sgm.samplers import Stage, Steps, program, symbols
from sgm.schedules import BetaSchedule, ConstantSchedule, CosineSchedule, NoiseSchedule
from sgm.scores import GaussianScore
from sgm.timegrids import quadratic, uniform

PAPER = {
    "isotropic": targets.isotropic(dimension=50, mean=1.0, variance=0.5),
    "blocks": targets.heteroscedastic_blocks(dimension=50, mean=1.0),
    "correlated": targets.correlated(dimension=50, mean=1.0, offset=1.0),
    "slides": targets.heteroscedastic_slides(dimension=50, mean=1.0),
}
ONE_STEP = (
    "exponential_integrator_modified",
    "exponential_integrator",
    "euler_maruyama",
    "euler_arrival",
    "probability_flow_euler",
    "ancestral",
    "ancestral_small",
)


def adams_bashforth(process: Process, times: np.ndarray) -> Steps:
    """A scheme with memory: the probability flow, two-step, in the clock B."""
    clock = process.schedule.integral(times)[:, None]
    step = clock[:-1] - clock[1:]
    ratio = step / np.concatenate([[[np.inf]], step[:-1]])
    x, slope, s, _, _ = symbols(2)
    now = (x / process.variance + s) / 2
    moved = x + step * ((1 + ratio / 2) * now - ratio / 2 * slope)
    return program(process, len(step), [Stage(times[:-1, None], at=x, then=[moved, now])])


def heun(process: Process, times: np.ndarray) -> Steps:
    """Two evaluations a step, of the probability flow in the clock B."""
    clock = process.schedule.integral(times)[:, None]
    step = clock[:-1] - clock[1:]
    x, saved, s, _, _ = symbols(2)
    now = (x / process.variance + s) / 2
    stages = [
        Stage(times[:-1, None], at=x, then=[x + step * now, x + step / 2 * now]),
        Stage(times[1:, None], at=x, then=[saved + step / 2 * now, 0 * x]),
    ]
    return program(process, len(step), stages)


def bound_and_error(
    process: Process, law: Gaussian, times: np.ndarray, steps: Steps, score: GaussianScore
) -> tuple[float, float]:
    prior = process.prior(law.dimension)
    error = laws.chain_error(steps, score, law, prior)[steps.evaluated]
    bound = one_step_w2_bound(process, law, times, steps, score_mse_generated=error)
    return float(bound.total), float(wasserstein2(law, laws.sampler_law(steps, score, prior)))


def random_cell(
    rng: np.random.Generator,
) -> tuple[Process, Gaussian, np.ndarray, Steps, GaussianScore]:
    """Condition numbers to 10⁴, σ² from 10⁻² to 10², T from .1 to 10, N to 1,000, VP and VE."""
    d, horizon, variance = (
        int(rng.integers(1, 6)),
        10 ** rng.uniform(-1, 1),
        10 ** rng.uniform(-2, 2),
    )
    spread = 10 ** rng.uniform(0, 4)
    eigenvalues = 10 ** rng.uniform(-2, 2) * spread ** -rng.uniform(0, 1, d)
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    law = Gaussian(10 ** rng.uniform(-2, 1) * rng.standard_normal(d), eigenvalues, basis)
    schedule: NoiseSchedule = (
        BetaSchedule(horizon, rng.uniform(-10, 10), 0.1 / horizon, 20.0 / horizon)
        if rng.random() < 0.6
        else ConstantSchedule(horizon, 10 ** rng.uniform(-1, 1) / horizon)
    )
    process: Process = VPProcess(schedule, variance)
    if rng.random() < 0.15:
        process = VEProcess(schedule)
    elif rng.random() < 0.2:
        process = VPProcess(CosineSchedule(horizon, variance, 0.008, 999.0), variance)
    n_steps = int(10 ** rng.uniform(0, 3 if rng.random() < 0.1 else 1.5))
    times = (uniform if rng.random() < 0.5 else quadratic)(horizon, n_steps)
    if rng.random() < 0.2:
        times[1:] += 1e-3 * times[-2] * (1 - times[1:] / horizon)  # stops early
    own = (*ONE_STEP, "ddim", "predictor_corrector", "heun", "adams_bashforth")
    name = str(rng.choice(own[isinstance(process, VEProcess) :]))
    steps = {
        "ddim": lambda: samplers.ddim(process, times, eta=rng.random()),
        "predictor_corrector": lambda: samplers.predictor_corrector(
            process, times, int(rng.integers(0, 3)), 10 ** rng.uniform(-4, -1)
        ),
        "heun": lambda: heun(process, times),
        "adams_bashforth": lambda: adams_bashforth(process, times),
    }.get(name, lambda: getattr(samplers, name)(process, times))()
    other = Gaussian(
        law.mean + 0.1,
        eigenvalues * np.exp(0.1 * rng.standard_normal(d)),
        np.linalg.qr(rng.standard_normal((d, d)))[0],
    )
    score = (
        scores.exact(process, law),
        scores.scaled(process, law, 0.1 * rng.standard_normal()),
        scores.biased(process, law, rng.standard_normal()),
        scores.exact(process, other),
    )[rng.integers(4)]
    return process, law, times, steps, score


def violations(n: int, seed: int) -> list[int]:
    found = []
    for i in range(n):
        process, law, times, steps, score = random_cell(np.random.default_rng([seed, i]))
        with np.errstate(all="ignore"):
            bound, error = bound_and_error(process, law, times, steps, score)
        size = np.sqrt(np.sum(law.eigenvalues) + np.sum(law.mean**2))
        if not bound >= error * (1 - 1e-9) - 1e-12 * size and not np.isnan(error):
            found.append(i)
    return found


def test_no_random_cell_exceeds_the_bound() -> None:
    assert violations(300, 0) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_no_cell_of_twenty_thousand_exceeds_the_bound(seed: int) -> None:
    assert violations(5000, seed) == []


@pytest.mark.parametrize(
    ("name", "a", "least", "most"),
    [
        ("isotropic", -10, 1.31, 1.33), ("isotropic", 0, 1.32, 1.34), ("isotropic", 5, 1.05, 1.07),
        ("isotropic", 10, 1.01, 1.03), ("blocks", 0, 1.1, 1.2), ("blocks", 10, 1.0, 1.01),
        ("correlated", -10, 1.05, 1.15), ("correlated", 10, 1.0, 1.03), ("slides", 0, 1.3, 1.4),
    ],
)  # fmt: skip
def test_the_bound_is_within_a_third_of_the_error_of_the_paper_s_cells(
    name: str, a: float, least: float, most: float
) -> None:
    process, times = VPProcess(BetaSchedule(1.0, a, 0.1, 20.0), 1.0), uniform(1.0, 500)
    law = PAPER[name].law
    assert isinstance(law, Gaussian)
    steps = samplers.exponential_integrator_modified(process, times)
    bound, error = bound_and_error(process, law, times, steps, scores.exact(process, law))
    assert least < bound / error < most


def test_the_recursion_with_lipschitz_constants_is_never_smaller() -> None:
    """e_{k+1} = L_k e_k + W₂(p_k P̂_k, p_{k+1}), written with nothing but laws of Gaussians."""
    process, times = VPProcess(BetaSchedule(1.0, 2.0, 0.1, 20.0), 1.5), uniform(1.0, 40)
    law = Gaussian(np.array([1.0, -2.0, 0.5]), np.array([3.0, 0.2, 1.0]), np.eye(3))
    score, variance = scores.exact(process, law), process.variance
    e = float(wasserstein2(process.marginal(law, times[0]), process.prior(3)))
    for start, stop in pairwise(times):
        half = float(process.schedule.integral(start) - process.schedule.integral(stop))
        half /= 2 * variance
        here, there = process.marginal(law, float(start)), process.marginal(law, float(stop))
        slope = -1 / here.eigenvalues
        kept, gain = 2 - np.exp(-half), 2 * variance * -np.expm1(-half)
        factor = kept + gain * slope
        mean = kept * here.mean
        noise = -variance * np.expm1(-2 * half)
        made = Gaussian(mean, factor**2 * here.eigenvalues + noise, np.eye(3))
        e = float(np.max(np.abs(factor))) * e + float(wasserstein2(made, there))
    steps = samplers.exponential_integrator_modified(process, times)
    bound, error = bound_and_error(process, law, times, steps, score)
    assert error < bound < e


def test_one_direction_and_the_exact_score_make_the_recursion() -> None:
    process, times = VPProcess(ConstantSchedule(2.0, 1.0), 1.0), uniform(2.0, 7)
    law = Gaussian(np.array([0.7]), np.array([0.3]), np.eye(1))
    steps = samplers.euler_maruyama(process, times)
    e = float(wasserstein2(process.marginal(law, 2.0), process.prior(1)))
    for start, stop in pairwise(times):
        here, there = process.marginal(law, float(start)), process.marginal(law, float(stop))
        step = float(start - stop)
        factor = 1 + step / 2 - step / here.eigenvalues
        mean = here.mean + step * here.mean / 2
        made = Gaussian(mean, factor**2 * here.eigenvalues + step, np.eye(1))
        e = abs(float(factor[0])) * e + float(wasserstein2(made, there))
    bound, _ = bound_and_error(process, law, times, steps, scores.exact(process, law))
    assert bound == pytest.approx(e, rel=1e-12)


def test_the_error_of_the_score_arrives_with_the_factors_of_later_steps() -> None:
    """A constant error of the score in one direction moves the output by what the bound says."""
    process, times = VPProcess(ConstantSchedule(1.0, 4.0), 1.0), uniform(1.0, 30)
    law = Gaussian(np.zeros(2), np.array([0.5, 0.5]), np.eye(2))
    steps = samplers.ancestral(process, times)
    score = scores.biased(process, law, 0.3)
    prior = process.prior(2)
    mse = laws.chain_error(steps, score, law, prior)
    bound = one_step_w2_bound(process, law, times, steps, score_mse_generated=mse)
    moved = laws.sampler_law(steps, score, prior).mean
    unmoved = laws.sampler_law(steps, scores.exact(process, law), prior).mean
    assert float(bound.score_error) == pytest.approx(np.linalg.norm(moved - unmoved), rel=1e-9)


def test_parts_add_up_and_each_vanishes_where_it_should() -> None:
    process = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0), 1.0)
    law = Gaussian(np.ones(3), np.array([2.0, 0.5, 0.1]), np.eye(3))
    times = uniform(1.0, 50)
    steps = samplers.exponential_integrator_modified(process, times)
    mse = np.full((4, 50), 0.01)
    bound = one_step_w2_bound(process, law, times, steps, score_mse_generated=mse)
    assert bound.total.shape == bound.score_error.shape == (4,)
    assert bound.steps.shape == (50,)
    assert bound.evaluations.shape == (4, 50)
    assert float(bound.early_stop) == 0.0
    stationary = Gaussian(np.zeros(3), np.ones(3), np.eye(3))
    none = one_step_w2_bound(process, stationary, times, steps, score_mse_generated=0 * mse)
    assert float(none.total[0]) == pytest.approx(0.0, abs=1e-12)
    early = one_step_w2_bound(process, law, times[:-1], samplers.ancestral(process, times[:-1]),
                              score_mse_generated=np.zeros(49))  # fmt: skip
    at_end = process.marginal(law, float(times[-2]))
    assert float(early.early_stop) <= float(wasserstein2(law, at_end)) * (1 + 1e-12)


def test_long_steps_that_leave_the_range_of_float64_are_infinite() -> None:
    process = VPProcess(ConstantSchedule(1.0, 1e5), 1.0)
    law = Gaussian(np.ones(1), np.array([0.5]), np.eye(1))
    times = uniform(1.0, 2)
    with np.errstate(all="ignore"):
        steps = samplers.exponential_integrator(process, times)
        bound = one_step_w2_bound(process, law, times, steps, score_mse_generated=np.zeros(2))
    assert float(bound.total) == np.inf


@pytest.mark.parametrize(("seed", "cell"), [(3, 1411), (1, 719)])
def test_a_step_of_half_the_range_of_float64_hides_no_error(seed: int, cell: int) -> None:
    """A square of the score's error is below float64 there, or one of the output is above it."""
    with np.errstate(all="ignore"):
        bound, error = bound_and_error(*random_cell(np.random.default_rng([seed, cell])))
    assert bound >= error > 1


def test_numbers_that_do_not_belong_together_are_refused() -> None:
    process = VPProcess(ConstantSchedule(1.0, 1.0), 1.0)
    law = Gaussian(np.ones(1), np.array([0.5]), np.eye(1))
    times = uniform(1.0, 4)
    steps = samplers.ancestral(process, times)
    with pytest.raises(ValueError, match=r"score_mse_generated has shape \(3,\)"):
        one_step_w2_bound(process, law, times, steps, score_mse_generated=np.zeros(3))
    with pytest.raises(ValueError, match=r"times has shape \(4,\)"):
        one_step_w2_bound(process, law, times[:-1], steps, score_mse_generated=np.zeros(4))


def test_all_scores_of_a_sampler_share_its_deviations(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    def counted(steps: Steps, score: GaussianScore, times: np.ndarray) -> laws.StepDeviations:
        found.append(steps)
        return laws.step_deviations(steps, score, times)

    monkeypatch.setattr(one_step, "step_deviations", counted)
    vp, times = VPProcess(BetaSchedule(1.0, 1.0, 0.1, 20.0), 1.0), quadratic(1.0, 9)
    law, other = PAPER["isotropic"].law, PAPER["correlated"].law
    steps = samplers.ancestral(vp, times)
    for score in (scores.exact(vp, law), scores.scaled(vp, law, 0.1), scores.biased(vp, law, 0.1)):
        shared = bound_and_error(vp, law, times, steps, score)
        assert shared == bound_and_error(vp, law, times, samplers.ancestral(vp, times), score)
    assert len(found) == 4  # of one table of steps, and of three equal ones
    for process, data, grid in [
        (vp, other, times),
        (VPProcess(BetaSchedule(1.0, 2.0, 0.1, 20.0), 1.0), law, times),
        (vp, law, times**2),
    ]:
        bound_and_error(process, data, grid, steps, scores.exact(process, data))
    assert len(found) == 7
