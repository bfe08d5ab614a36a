"""The best schedule: gradients, closed forms, brute force, and the numbers of docs/schedules.md."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.optimize import minimize_scalar

from sgm import bounds, samplers, scores, targets, timegrids
from sgm.gaussian import Gaussian, kl_divergence, wasserstein2
from sgm.laws import sampler_law
from sgm.optimal_schedule import (
    BY_RATE,
    NEGLIGIBLE,
    OBJECTIVES,
    PROGRAMS,
    SCHEMES,
    NotConvergedError,
    OptimalSchedule,
    Spectrum,
    best_levels,
    evaluate,
    find_schedule,
    find_steps,
    flow_costs,
    gits_levels,
    shortest,
    step_costs,
    terminal_kl,
)
from sgm.processes import VPProcess
from sgm.schedules import BetaSchedule, ConstantSchedule, NoiseSchedule
from sgm.schedules.knots import IntegralSplineSchedule, PiecewiseLinearSchedule
from tests.workflow import ROOT

Array = npt.NDArray[np.float64]

MODIFIED = "exponential_integrator_modified"
DIVERGENCES = {"kl": kl_divergence, "w2": wasserstein2}
LAWS = {
    "isotropic": targets.isotropic(50, 1.0, 0.5).law,
    "correlated": targets.correlated(50, 1.0, 1.0).law,
    "heteroscedastic_slides": targets.heteroscedastic_slides(50, 1.0).law,
}
SMALL = Gaussian.from_covariance(
    [1.0, -0.5, 0.2], [[1.0, 0.6, 0.1], [0.6, 0.8, 0.0], [0.1, 0.0, 0.02]]
)


def stepwise(levels: Array, variance: float, horizon: float = 1.0) -> IntegralSplineSchedule:
    """A schedule with these levels at the points of the uniform grid."""
    places = np.linspace(0.0, 1.0, len(levels))
    return IntegralSplineSchedule(horizon, places, levels[::-1] * variance)


def some_levels(n: int, seed: int = 3, total: float = 4.0) -> Array:
    shares = np.random.default_rng(seed).dirichlet(np.full(n, 3.0))
    return np.append(np.cumsum((total * shares)[::-1])[::-1], 0.0)


def exact_law(
    law: Gaussian,
    sampler: str,
    schedule: NoiseSchedule,
    variance: float,
    times: npt.ArrayLike,
    **parameters: float,
) -> Gaussian:
    process = VPProcess(schedule, variance)
    steps = getattr(samplers, sampler)(process, times, **parameters)
    return sampler_law(steps, scores.exact(process, law), process.prior(law.dimension))


# --- objectives and gradients -----------------------------------------------------------


@pytest.mark.parametrize("sampler", SCHEMES)
@pytest.mark.parametrize("objective", DIVERGENCES)
@pytest.mark.parametrize("variance", [1.0, 0.3, 40.0])
def test_exact_objectives_are_those_of_the_samplers(
    sampler: str, objective: str, variance: float
) -> None:
    """Levels alone against `sgm.samplers` and `sgm.laws`, in a basis that is not the axes'."""
    levels = some_levels(7)
    schedule = stepwise(levels, variance, horizon=2.0)
    times = timegrids.uniform(2.0, 7)
    for law in (SMALL, LAWS["heteroscedastic_slides"]):
        output = exact_law(law, sampler, schedule, variance, times)
        growth = schedule.beta(times[:-1]) * 2.0 / 7 / variance
        value, _ = evaluate(objective, Spectrum.of(law, variance), levels, sampler, growth)
        assert value == pytest.approx(float(DIVERGENCES[objective](law, output)), rel=1e-10)


@pytest.mark.parametrize("variance", [1.0, 0.3, 40.0])
def test_bounds_are_those_of_the_bounds(variance: float) -> None:
    levels = some_levels(7, total=9.0)  # some steps beyond the turn of the maximum
    process = VPProcess(stepwise(levels, variance), variance)
    times = timegrids.uniform(1.0, 7)
    for law in LAWS.values():
        bound = bounds.gaussian_kl_bound(process, law, times, np.zeros(7), np.zeros(7))
        spectrum = Spectrum.of(law, variance)
        for objective, value in (("path", bound.path), ("refined", bound.total_refined)):
            own, _ = evaluate(objective, spectrum, levels, MODIFIED)
            assert own == pytest.approx(float(value), rel=1e-10), objective
        for total in (3.0, 90.0):  # steps on either side of the turn
            even = total * np.arange(7, -1, -1) / 7
            constant = VPProcess(ConstantSchedule(1.0, total * variance), variance)
            bound = bounds.gaussian_kl_bound(constant, law, times, np.zeros(7), np.zeros(7))
            own, _ = evaluate("theorem", spectrum, even, MODIFIED)
            assert own == pytest.approx(float(bound.total), rel=1e-10)


RUNS = [
    ("ddim", {"eta": 0.5}),
    ("exponential_runge_kutta", {}),
    ("exponential_runge_kutta_modified", {}),
    ("randomised_midpoint", {"times_seed": 3}),
    ("heun", {}),
    ("edm", {"s_churn": 5.0}),
    ("dpm_solver_2s", {}),
    ("dpm_solver_pp_2s", {}),
    ("dpm_solver_pp_2m", {"eta": 0.0}),
    ("dpm_solver_pp_2m", {"eta": 1.0}),
    ("deis", {"order": 2}),
    ("deis", {"order": 3}),
    ("er_sde", {"order": 3}),
    ("unipc", {}),
    ("annealed_langevin", {"langevin_steps": 2, "step_size": 0.1}),
]
"""Samplers in any number of registers and stages, with their parameters."""


def test_all_samplers_are_run_that_depend_on_the_integral_alone() -> None:
    """Another clock of the schedule, with the same B at the grid points, changes nothing."""
    assert {name for name, _ in RUNS} == {"ddim", *PROGRAMS}
    linear = BetaSchedule(1.0, 0.0, 0.1, 20.0)
    times, total = timegrids.uniform(1.0, 12), float(linear.integral(1.0))
    moved = np.asarray(linear.integral(times)) / total
    others = {
        "predictor_corrector": {"corrector_steps": 1, "step_size": 0.01},
        "predictor_corrector_snr": {"corrector_steps": 1, "snr": 0.16},
        "restart": {"restarts": 2, "low": 0.0625, "high": 0.25},
    }
    known = dict(RUNS) | others
    # langevin asks at the last level alone: there is no schedule to seek
    others_than = {"Stage", "Steps", "program", "symbols", "langevin"}
    of_pairs = {"kinetic_euler_maruyama", "kinetic_ancestral", "sscs"}
    for name in set(samplers.__all__) - others_than - of_pairs:
        outputs = []
        for schedule, grid in ((linear, times), (ConstantSchedule(1.0, total), moved)):
            process = VPProcess(schedule, 1.0)
            steps = getattr(samplers, name)(process, grid, **known.get(name, {}))
            outputs.append(sampler_law(steps, scores.exact(process, SMALL), process.prior(3)))
        same = float(wasserstein2(*outputs)) < 1e-12
        assert same == (name in PROGRAMS or name in set(SCHEMES) - set(BY_RATE)), name


@pytest.mark.parametrize(("sampler", "parameters"), RUNS)
@pytest.mark.parametrize("objective", DIVERGENCES)
def test_exact_objectives_of_programs(
    sampler: str, parameters: dict[str, float], objective: str
) -> None:
    """As `test_exact_objectives_are_those_of_the_samplers`."""
    levels = some_levels(7)
    times = timegrids.uniform(2.0, 7)
    for variance, law in ((0.3, SMALL), (40.0, LAWS["heteroscedastic_slides"])):
        schedule = stepwise(levels, variance, horizon=2.0)
        output = exact_law(law, sampler, schedule, variance, times, **parameters)
        spectrum = Spectrum.of(law, variance)
        value, _ = evaluate(objective, spectrum, levels, sampler, parameters=parameters)
        assert value == pytest.approx(float(DIVERGENCES[objective](law, output)), rel=1e-9)


@pytest.mark.parametrize(("sampler", "parameters"), RUNS)
@pytest.mark.parametrize("n", [1, 7])
def test_gradients_of_programs_against_differences(
    sampler: str, parameters: dict[str, float], n: int
) -> None:
    levels, spectrum = some_levels(n, total=8.0), Spectrum.of(SMALL, 0.7)
    _, gradient = evaluate("kl", spectrum, levels, sampler, parameters=parameters)

    def at(place: int, by: float) -> float:
        moved = levels + by * np.eye(n + 1)[place]
        return evaluate("kl", spectrum, moved, sampler, parameters=parameters)[0]

    for k in range(n):
        delta = 1e-3 * min(levels[k] - levels[k + 1], 1.0)
        near, far = (at(k, d) - at(k, -d) for d in (delta, 2 * delta))
        difference = (8 * near - far) / (12 * delta)
        assert gradient[k] == pytest.approx(difference, rel=1e-5, abs=1e-6 * abs(gradient).max())


@pytest.mark.parametrize("objective", DIVERGENCES)
def test_a_sampler_of_one_stage_is_a_program_too(objective: str) -> None:
    levels, spectrum = some_levels(9), Spectrum.of(LAWS["correlated"], 0.7)
    value, gradient = evaluate(objective, spectrum, levels, "ddim")
    own = evaluate(objective, spectrum, levels, "ddim", parameters={"eta": 0.0})
    assert own[0] == pytest.approx(value, rel=1e-12)
    assert own[1] == pytest.approx(gradient, rel=1e-6, abs=1e-7 * abs(gradient).max())


CASES = [(o, s) for o in ("kl", "w2") for s in SCHEMES] + [
    (o, MODIFIED) for o in ("path", "refined", "theorem")
]


@pytest.mark.parametrize(("objective", "sampler"), CASES)
@pytest.mark.parametrize("total", [0.5, 6.0, 30.0])
def test_gradients_against_differences(objective: str, sampler: str, total: float) -> None:
    levels = some_levels(6, total=total)
    for law in (SMALL, LAWS["isotropic"]):
        spectrum = Spectrum.of(law, 0.7)
        _, gradient = evaluate(objective, spectrum, levels, sampler)
        for k in range(6):
            delta = 1e-4 * min(levels[k] - levels[k + 1], 1.0)

            def moved(by: float, k: int = k, spectrum: Spectrum = spectrum) -> float:
                own = levels.copy()
                own[k] += by
                return evaluate(objective, spectrum, own, sampler)[0]

            near, far = (moved(d) - moved(-d) for d in (delta, 2 * delta))
            difference = (8 * near - far) / (12 * delta)
            scale = np.max(np.abs(gradient))
            assert gradient[k] == pytest.approx(difference, rel=1e-6, abs=1e-7 * scale)


@pytest.mark.parametrize("sampler", SCHEMES)
def test_gradients_by_the_growth_against_differences(sampler: str) -> None:
    levels, spectrum = some_levels(6), Spectrum.of(SMALL, 0.7)
    growth = -np.diff(levels) * np.array([0.3, 1.0, 2.0, 1.5, 0.8, 3.0])
    _, gradient = evaluate("kl", spectrum, levels, sampler, growth)
    differences = [
        (evaluate("kl", spectrum, levels, sampler, growth + step)[0]
         - evaluate("kl", spectrum, levels, sampler, growth - step)[0]) / 2e-6
        for step in 1e-6 * np.eye(6)
    ]  # fmt: skip
    assert gradient[6:] == pytest.approx(differences, rel=1e-6, abs=1e-7)
    assert np.any(gradient[6:] != 0) == (sampler in BY_RATE)


def test_the_cost_of_a_step_is_girsanovs_integral() -> None:
    """½ ∫ [I(τ) − 2 r I(u) + I(u)] dB, r = e^{(u − u_τ)/2}, by quadrature."""
    spectrum = Spectrum.of(SMALL, 0.7)

    def information(level: float) -> float:
        return float(spectrum.information(np.array(level))[0])

    for start, stop in ((3.0, 1.2), (0.4, 0.0), (1.0, 0.999)):
        departing = information(start)

        def integrand(level: float, start: float = start, departing: float = departing) -> float:
            r = np.exp((start - level) / 2)
            return (information(level) - 2 * r * departing + departing) / 2

        found, _ = quad(integrand, stop, start, epsabs=0, epsrel=1e-11, limit=200)
        own = float(step_costs(spectrum, np.array(start), np.array(stop)))
        assert own == pytest.approx(found, rel=1e-7)
    small = step_costs(spectrum, np.array(1.0 + 1e-7), np.array(1.0))
    # to second order in the increment: ½ (I/4 − I′ …) Δ², which the differences would lose
    twice = step_costs(spectrum, np.array(1.0 + 2e-7), np.array(1.0))
    assert twice / small == pytest.approx(4.0, rel=1e-5)


# --- dynamic programming ----------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 4, 9])
def test_dynamic_programming_against_brute_force(n: int) -> None:
    spectrum = Spectrum.of(SMALL, 1.0)
    levels = np.geomspace(0.01, 6.0, 9)

    def cost(start: Array, stop: Array) -> Array:
        return step_costs(spectrum, start, stop)

    def whole(chain: Array) -> float:
        chain = np.append(chain[::-1], 0.0)
        return float(terminal_kl(spectrum, chain[0]) + np.sum(cost(chain[:-1], chain[1:])))

    chain, value = shortest(cost, lambda u: terminal_kl(spectrum, u), levels, n)
    every = [whole(np.array(subset)) for subset in itertools.combinations(levels, n)]
    assert value == pytest.approx(min(every), rel=1e-12)
    assert whole(chain[-2::-1]) == pytest.approx(value, rel=1e-12)


def test_dynamic_programming_comes_near_the_best_path() -> None:
    spectrum = Spectrum.of(LAWS["correlated"], 1.0)
    value, _ = evaluate("path", spectrum, best_levels(spectrum, 10), MODIFIED)
    least = find_schedule(LAWS["correlated"], n_steps=10, objective="path").value
    assert least < value < 1.003 * least


@pytest.mark.parametrize("n", [1, 3, 5])
def test_later_steps_that_count_more_against_brute_force(n: int) -> None:
    spectrum = Spectrum.of(SMALL, 1.0)
    levels = np.geomspace(0.01, 6.0, 8)

    def whole(chain: Array) -> float:  # from the largest, down to 0
        chain = np.append(chain[::-1], 0.0)
        costs = flow_costs(spectrum, chain[:-1], chain[1:])
        return float(np.sum(1.15 ** np.arange(len(costs)) * costs))

    chain, value = shortest(
        lambda start, stop: flow_costs(spectrum, start, stop),
        lambda start: np.where(start == levels[-1], 0.0, np.inf),
        levels, n, 1.15,
    )  # fmt: skip
    every = [
        whole(np.append(subset, levels[-1]))
        for subset in itertools.combinations(levels[:-1], n - 1)
    ]
    assert value == pytest.approx(min(every), rel=1e-12)
    assert chain[0] == levels[-1]
    assert whole(chain[-2::-1]) == pytest.approx(value, rel=1e-12)


def test_the_cost_of_a_step_of_the_flow_against_an_ode_solver() -> None:
    """Euler's step in s = √v/m, which is DDIM's, and the flow dy/ds = s (y − μ)/(λ + s²)."""
    spectrum = Spectrum.of(SMALL, 0.7)
    for start, stop in ((3.0, 1.2), (0.4, 0.0), (5.0, 0.01)):
        s, t = np.sqrt(np.expm1([start, stop]))
        ratio = spectrum.variances
        flow = solve_ivp(
            lambda at, y, ratio=ratio: at * y / (ratio + at**2), (s, t), np.ones(len(ratio)),
            rtol=1e-12, atol=1e-14,
        ).y[:, -1]  # fmt: skip
        euler = 1 + (t - s) * s / (ratio + s**2)
        expected = np.sqrt(spectrum.multiplicities @ ((ratio + s**2) * (euler - flow) ** 2))
        own = float(flow_costs(spectrum, np.array(start), np.array(stop)))
        assert own == pytest.approx(expected, rel=1e-9)
        # DDIM, by its coefficients in levels: x/m of an arrival per x/m of a departure
        value = SCHEMES["ddim"](np.array([start]), np.array([stop]), np.array([1.0]))
        scale, noised = spectrum.noised(np.array([start]))
        factor = value.kept[0] + value.denoiser[0] * scale[0] * ratio / noised[0]
        assert factor * np.exp((stop - start) / 2) == pytest.approx(euler, rel=1e-9)


def test_gits_is_made_for_ddim() -> None:
    """From its first level 80 it beats steps that are even in √s; the optimum beats it."""
    for law in LAWS.values():
        spectrum = Spectrum.of(law, 1.0)
        levels = gits_levels(spectrum, 10)
        assert np.all(np.diff(levels) < 0)
        assert levels[-1] == 0.0
        assert np.expm1(levels[0]) == pytest.approx(80.0**2)
        even = np.log1p((80.0 * np.linspace(1, 0, 11) ** 2) ** 2)
        own, other = (evaluate("w2", spectrum, u, "ddim")[0] for u in (levels, even))
        assert own < other


# --- known optima -----------------------------------------------------------------------


@pytest.mark.parametrize("n_steps", [1, 4, 30])
@pytest.mark.parametrize("objective", ["kl", "w2"])
def test_a_mean_alone_wants_a_linear_mean_scale(n_steps: int, objective: str) -> None:
    """For N(μ, σ²I) the output is N(μ − A μ, σ²I), A = m_0² + Σ (m_{k+1} − m_k)².

    N + 1 increments from 0 to 1: the sum of their squares is least where they are equal.
    """
    variance = 2.5
    mean = np.array([1.0, -2.0, 0.5])
    law = Gaussian.diagonal(mean, np.full(3, variance))
    found = find_schedule(law, n_steps=n_steps, objective=objective, variance=variance)
    scale = np.exp(-found.integral / (2 * variance))
    expected = np.arange(n_steps + 1, 0, -1) / (n_steps + 1)
    assert scale == pytest.approx(expected, abs=1e-6)
    assert found.integral[-1] == pytest.approx(2 * variance * np.log(n_steps + 1), rel=1e-6)
    length = np.linalg.norm(mean) / (n_steps + 1)
    assert found.w2 == pytest.approx(length, rel=1e-9)
    assert found.kl == pytest.approx(length**2 / (2 * variance), rel=1e-9)


@pytest.mark.parametrize("sampler", ["exponential_integrator_modified", "ancestral", "ddim"])
def test_one_step_is_the_best_single_total(sampler: str) -> None:
    law = LAWS["correlated"]
    found = find_schedule(law, n_steps=1, sampler=sampler)

    def kl(total: float) -> float:
        schedule = stepwise(np.array([total, 0.0]), 1.0)
        return float(kl_divergence(law, exact_law(law, sampler, schedule, 1.0, [1.0, 0.0])))

    totals = np.geomspace(1e-3, 50.0, 400)
    k = int(np.argmin([kl(total) for total in totals]))
    best = minimize_scalar(kl, bounds=(totals[k - 1], totals[k + 1]), method="bounded")
    assert found.value == pytest.approx(float(best.fun), rel=1e-9)
    assert found.integral[-1] == pytest.approx(float(best.x), rel=1e-3)


def test_the_theorem_wants_constant_steps() -> None:
    """E₁ + 2 I Δ of equal increments Δ ≤ 4σ² is least at B(T) = σ² log(N KL/(2 I σ²…))."""
    law, n = LAWS["isotropic"], 50
    found = find_schedule(law, n_steps=n, objective="theorem")
    spectrum = Spectrum.of(law, 1.0)
    information = float(spectrum.information(np.zeros(()))[0])
    total = np.log(n * spectrum.entropy / (2 * information))
    assert found.integral[-1] == pytest.approx(total, rel=1e-5)
    assert np.diff(found.integral) == pytest.approx(np.full(n, total / n), rel=1e-5)
    assert found.value == pytest.approx(
        spectrum.entropy * np.exp(-total) + 2 * information * total / n, rel=1e-10
    )
    # random others are no better
    for seed in range(5):
        for size in (0.3, 1.0, 3.0):
            levels = some_levels(n, seed, size * total)
            assert evaluate("theorem", spectrum, levels, MODIFIED)[0] > found.value


def test_the_fewest_steps_for_an_error() -> None:
    """For N(μ, σ²I) the least W2 is |μ|/(N + 1)."""
    law = Gaussian.diagonal([3.0, 4.0], [1.0, 1.0])
    for error, n in ((2.5 * (1 + 1e-6), 1), (2.49, 2), (0.5001, 9), (0.4999, 10), (0.26, 19)):
        found, fewer = find_steps(law, error, objective="w2")
        assert found.n_steps == n
        assert found.value <= error
        if n == 1:
            assert fewer is None
        else:
            assert fewer.n_steps == n - 1
            assert fewer.value > error
    with pytest.raises(ValueError, match=r"error = 0.3: must be at least 0.3125, .* 15 steps"):
        find_steps(law, 0.3, objective="w2", most=15)


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (0.0, {}, "error = 0.0: must be a positive"),
        (float("nan"), {}, "error = nan"),
        (1.0, {"most": 0}, "most = 0"),
        (1.0, {"space": "a"}, "space = 'a': an error can be asked for where"),
        (1.0, {"sampler": "euler_maruyama"}, "sampler = 'euler_maruyama': an error can be"),
        (1.0, {"objective": "elbo"}, "objective = 'elbo': must be one of"),
    ],
)
def test_errors_that_cannot_be_asked_for(
    error: float, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        find_steps(SMALL, error, **options)


# --- what an optimum is -----------------------------------------------------------------


@cache
def widest(objective: str) -> OptimalSchedule:
    return find_schedule(SMALL, n_steps=8, objective=objective, variance=0.7)


@pytest.mark.parametrize(
    ("space", "objective"),
    [
        *itertools.product(["increments", "spline", "grid", "a"], ["kl", "path", "refined"]),
        ("spline", "w2"),
        ("a", "w2"),
        ("a,T", "kl"),
    ],
)
def test_an_optimum_is_no_worse_than_its_starts(space: str, objective: str) -> None:
    found = find_schedule(SMALL, n_steps=8, objective=objective, space=space, variance=0.7)
    starts = found.starts.values()
    assert all(found.value <= start.before * (1 + 1e-9) for start in starts)
    assert all(found.value <= start.after * (1 + 1e-8) for start in starts)
    wide = widest(objective)
    assert wide.value <= found.value * (1 + 1e-9)
    assert all(wide.value <= value for value in wide.references.values())
    if space in ("a", "a,T"):
        assert found.value <= found.references["best_beta_a"] * (1 + 1e-9)
    assert found.agreeing >= 1
    assert found.gradient < (1e-3 if space in ("a", "a,T") else 1e-6)


@pytest.mark.parametrize("sampler", sorted(set(SCHEMES) - set(BY_RATE)))
def test_every_step_away_from_an_optimum_is_uphill(sampler: str) -> None:
    found = find_schedule(SMALL, n_steps=6, sampler=sampler)
    spectrum, generator = Spectrum.of(SMALL, 1.0), np.random.default_rng(0)
    increments = np.diff(found.integral)[::-1]
    for size in (1e-3, 1e-2, 0.1):
        for _ in range(10):
            moved = increments * np.exp(size * generator.standard_normal(6))
            levels = np.append(np.cumsum(moved[::-1])[::-1], 0.0)
            assert evaluate("kl", spectrum, levels, sampler)[0] > found.value


@pytest.mark.parametrize("sampler", SCHEMES)
def test_an_optimum_is_exact_and_better_than_the_usual(sampler: str) -> None:
    """Its value is that of the real sampler under the schedule of its file."""
    law = LAWS["correlated"]
    found = find_schedule(law, n_steps=5, sampler=sampler, variance=0.7)
    knots, linear = found.knots(), sampler in BY_RATE
    kind = PiecewiseLinearSchedule if linear else IntegralSplineSchedule
    schedule = kind(2.0, knots["time"], np.array(knots["beta" if linear else "integral"]))
    if linear:  # rates are per unit of t/T
        schedule = kind(1.0, knots["time"], knots["beta"])
    times = timegrids.uniform(schedule.horizon, 5)
    output = exact_law(law, sampler, schedule, 0.7, times)
    assert float(kl_divergence(law, output)) == pytest.approx(found.value, rel=1e-9)
    assert float(wasserstein2(law, output)) == pytest.approx(found.w2, rel=1e-9)
    assert schedule.integral(times[::-1]) == pytest.approx(found.integral, rel=1e-9)
    assert all(found.value < value for value in found.references.values())
    assert found.agreeing >= 3


def test_an_optimum_of_a_program() -> None:
    """Better than the usual by far, for neighbouring laws too, and what its file does."""
    law = LAWS["correlated"]
    found = find_schedule(law, n_steps=4, sampler="unipc")
    assert found.gradient < 1e-6
    assert found.agreeing >= 2
    assert 20 * found.value < found.references["best_beta_a"]
    knots = found.knots()
    schedule = IntegralSplineSchedule(1.0, knots["time"], knots["integral"])
    times = timegrids.uniform(1.0, 4)
    for factor, value in {1.0: found.value, **found.nearby}.items():
        near = Gaussian(law.mean, factor * law.eigenvalues, law.basis)
        output = exact_law(near, "unipc", schedule, 1.0, times)
        assert float(kl_divergence(near, output)) == pytest.approx(value, rel=1e-8)


def test_steps_of_a_program_that_are_too_short_are_a_wall() -> None:
    spectrum = Spectrum.of(SMALL, 1.0)
    for levels in ([3.0, 1.0, 1.0, 0.0], [3.0, 2.0, 2.0 - 1e-13, 0.0]):
        assert evaluate("kl", spectrum, np.array(levels), "unipc")[0] == np.inf


def test_the_search_of_a_program_stops_where_no_error_is_left() -> None:
    law = Gaussian.diagonal([1.0, 0.0], [0.5, 2.0])
    found = find_schedule(law, n_steps=4, sampler="unipc", objective="w2")
    assert 0 <= found.value < NEGLIGIBLE["w2"]
    assert found.agreeing >= 2


def test_a_law_that_is_reached_is_an_optimum() -> None:
    """The probability flow has more steps than an isotropic law has moments."""
    found = find_schedule(LAWS["isotropic"], n_steps=6, sampler="probability_flow_euler")
    assert found.value < 1e-14
    assert found.agreeing >= 1
    output = exact_law(
        LAWS["isotropic"], "probability_flow_euler",
        PiecewiseLinearSchedule(1.0, found.knots()["time"], found.knots()["beta"]),
        1.0, timegrids.uniform(1.0, 6),
    )  # fmt: skip
    assert float(kl_divergence(LAWS["isotropic"], output)) < 1e-12


def test_a_grid_is_one_of_the_given_schedule() -> None:
    schedule = BetaSchedule(2.0, 1.5, 0.1, 7.0)
    found = find_schedule(SMALL, n_steps=6, space="grid", schedule=schedule)
    times = 2.0 * found.fractions[::-1]
    output = exact_law(SMALL, MODIFIED, schedule, 1.0, times)
    assert float(kl_divergence(SMALL, output)) == pytest.approx(found.value, rel=1e-8)
    assert found.integral == pytest.approx(schedule.integral(times[::-1]), rel=1e-9)
    assert found.integral[-1] == pytest.approx(float(schedule.integral(2.0)))


@pytest.mark.parametrize("sampler", ["exponential_integrator_modified", "euler_maruyama"])
def test_the_unit_of_length_changes_nothing(sampler: str) -> None:
    found = find_schedule(SMALL, n_steps=6, sampler=sampler)
    for scale in (1e-4, 1e4):
        law = Gaussian(SMALL.mean * scale, SMALL.eigenvalues * scale**2, SMALL.basis)
        other = find_schedule(law, n_steps=6, sampler=sampler, variance=scale**2)
        assert other.value == pytest.approx(found.value, rel=1e-9)
        assert other.w2 == pytest.approx(found.w2 * scale, rel=1e-6)
        assert other.integral == pytest.approx(found.integral * scale**2, rel=1e-4)
        assert other.references == pytest.approx(dict(found.references), rel=1e-9)


def test_a_rotation_changes_nothing() -> None:
    own = Gaussian.diagonal(SMALL.rotate(SMALL.mean), SMALL.eigenvalues)
    there, here = (find_schedule(law, n_steps=6) for law in (SMALL, own))
    assert there.value == pytest.approx(here.value, rel=1e-10)


# --- the numbers of the documentation ---------------------------------------------------

#: KL, N = 10: VP linear, cosine, best β_a and its a, optimum and its B(T).
NUMBERS = {
    "isotropic": (0.786, 0.364, 0.398, 3.38, 0.2947, 4.04),
    "correlated": (1.897, 1.141, 1.142, 2.85, 0.9881, 4.85),
    "heteroscedastic_slides": (5.345, 2.064, 1.701, 4.68, 1.510, 3.03),
}


@pytest.mark.parametrize("target", LAWS)
def test_ten_steps(target: str) -> None:
    found = find_schedule(LAWS[target], n_steps=10)
    own = (*found.references.values(), found.best_a, found.value, found.integral[-1])
    assert list(found.references) == ["vp_linear", "cosine", "best_beta_a"]
    assert own == pytest.approx(NUMBERS[target], rel=2e-3)
    assert found.agreeing == 4


PATH = ROOT / "docs/best_schedules.py"
SPEC = importlib.util.spec_from_file_location("best_schedules", PATH)
BEST = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(BEST)


def rows_of_the_page() -> list[Any]:
    """Those of programs take seconds each: they are slow, as the dearer ones of other samplers."""
    found = []
    for sampler, target in itertools.product(BEST.SAMPLERS, BEST.LAWS):
        program = sampler in PROGRAMS  # ten steps take many seconds
        if (target, sampler) == ("correlated", "ancestral") or (program and target != "correlated"):
            continue  # seconds too; the others are alike
        slow = program or (target != "isotropic" and sampler != MODIFIED)
        marks = [pytest.mark.slow] * slow
        found.append(pytest.param(sampler, target, 5 if program else 10, marks=marks))
    return found


@pytest.mark.parametrize(("sampler", "target", "n"), rows_of_the_page())
def test_rows_of_the_page_are_made_again(sampler: str, target: str, n: int) -> None:
    part = table_of_the_page(sampler)
    assert BEST.row(target, BEST.LAWS[target], sampler, n) in part


@pytest.mark.parametrize("sampler", BEST.SAMPLERS)
def test_the_tables_of_the_page_are_whole(sampler: str) -> None:
    part = table_of_the_page(sampler)
    assert next(iter(BEST.table(sampler, []))) in part
    for target, n in itertools.product(BEST.LAWS, BEST.steps_of(sampler)):
        assert f"| {target} | {n} | " in part


def table_of_the_page(sampler: str) -> str:
    page = (ROOT / "docs/best-schedule.md").read_text()
    _, part = re.split(rf"\n`{sampler}`(?:, \w+ = [\d.]+)?:\n", page)
    return part.split("\n\n`")[0]


# --- edges ------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [1e-10, 1e-4, 1e4, 1e8])
def test_data_far_from_the_process(ratio: float) -> None:
    law = Gaussian.diagonal([np.sqrt(ratio), 0.0], [ratio, 0.3 * ratio])
    try:
        found = find_schedule(law, n_steps=4)
    except NotConvergedError as error:
        assert "did not converge" in str(error)  # noqa: PT017
        return
    schedule = stepwise(found.integral[::-1], 1.0)
    output = exact_law(law, MODIFIED, schedule, 1.0, timegrids.uniform(1.0, 4))
    assert float(kl_divergence(law, output)) == pytest.approx(found.value, rel=1e-6)


def test_no_optimum_is_no_schedule() -> None:
    """For a spread spectrum and few steps the theorem is least where nothing is diffused."""
    with pytest.raises(NotConvergedError, match=r"theorem.*did not converge"):
        find_schedule(LAWS["heteroscedastic_slides"], n_steps=10, objective="theorem")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, "n_steps = 0: must be an integer"),
        ({"n_steps": 2.0}, "n_steps = 2.0"),
        ({"objective": "elbo"}, "objective = 'elbo': must be one of kl, w2"),
        ({"objective": "path", "sampler": "ddim"}, "objective = 'path': is a bound for"),
        ({"sampler": "restart"}, "sampler = 'restart': must be one of"),
        ({"sampler": "heun", "objective": "path"}, "objective = 'path': is a bound for"),
        ({"space": "b"}, "space = 'b': must be one of"),
        ({"space": "grid", "sampler": "euler_maruyama"}, "space = 'grid'.*depends on β"),
        ({"space": "spline", "sampler": "euler_maruyama"}, "space = 'spline'.*depends on β"),
        ({"space": "spline", "objective": "theorem"}, "space = 'spline'.*'theorem'"),
        ({"space": "spline", "knots": 1}, "knots = 1"),
        ({"space": "spline", "knots": 9}, "knots = 9: must be at most n_steps = 5"),
        ({"variance": 0.0}, "variance = 0.0"),
        ({"variance": np.inf}, "variance = inf"),
        ({"variance": 1e-30}, "eigenvalue"),
        ({"schedule": BetaSchedule(1.0, 0.0, 0.1, 20.0)}, "schedule: must be None"),
        ({"law": Gaussian.diagonal([0.0, 0.0], [1.0, 0.0])}, "eigenvalue is 0.0"),
        ({"law": Gaussian.diagonal([0.0, 0.0], [1.0, 1.0])}, "stationary law"),
        ({"law": None}, "law = None"),
    ],
)
def test_bad_input_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_schedule(**({"law": SMALL, "n_steps": 5} | options))


def test_the_certificate_is_json() -> None:
    found = find_schedule(SMALL, n_steps=3, variance=0.7)
    told = json.loads(json.dumps(found.certificate(), allow_nan=False))
    assert told["law"]["eigenvalues"] == pytest.approx(np.sort(SMALL.eigenvalues))
    assert sum(told["law"]["squared_means"]) == pytest.approx(np.sum(SMALL.mean**2))
    assert told["value"] == told["exact_kl"] == found.value
    assert told["starts_that_agree"] == found.agreeing
    assert set(OBJECTIVES) > {told["objective"]}
