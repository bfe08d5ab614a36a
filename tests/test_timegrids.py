"""Time grids: how each begins and ends, and the formula of each against something independent."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import beta as beta_law
from scipy.stats import laplace as laplace_law

from sgm import laws, samplers, schedules, scores, targets, timegrids
from sgm.bounds.ddpm_times import ddpm_optimal
from sgm.densities import GaussianMixture
from sgm.gaussian import Gaussian, kl_divergence, wasserstein2
from sgm.processes import Process, VEProcess, VPProcess
from sgm.registry import families
from sgm.run.build import build_process, build_steps, build_target, build_times
from sgm.run.check import check
from sgm.study import Study
from sgm.study.document import read_config
from sgm.timegrids.law import geometric_ends, mmse
from sgm.timegrids.level import log_level, time_at_level

Array = npt.NDArray[np.float64]

ROOT = Path(__file__).parents[1]
PAGE, STUDY = ROOT / "docs/timegrids.md", ROOT / "config/studies/time-grids.yaml"
WINE = {"family": "wine", "heldout_fraction": 0.3, "standardise": True}
LAW = targets.correlated(dimension=5, mean=1.0, offset=1.0).law
PROCESSES: dict[str, Process] = {
    "linear": VPProcess(schedules.BetaSchedule(1.0, a=0.0, beta_min=0.1, beta_max=20.0), 1.0),
    "convex": VPProcess(schedules.BetaSchedule(2.5, a=9.0, beta_min=0.1, beta_max=20.0), 4.0),
    "cosine": VPProcess(schedules.CosineSchedule(1.0, 1.0, offset=0.008, clip=20.0), 1.0),
    "geometric": VEProcess(schedules.GeometricSchedule(0.3, sigma_min=0.01, sigma_max=50.0)),
    "numerical": VPProcess(schedules.NumericalSchedule(2.0, lambda t: 1 + t + np.sin(5 * t)), 1.0),
}
POLE = VPProcess(schedules.CosineSchedule(1.0, 1.0, offset=0.008, clip=np.inf), 1.0)

Build = Callable[..., Array]


def in_time(build: Build, **parameters: float) -> Build:
    return lambda process, n_steps, law=LAW, stop=0.0: build(
        process.horizon, n_steps, stop, **parameters
    )


def by_level(build: Build, **parameters: object) -> Build:
    return lambda process, n_steps, law=LAW, stop=0.0: build(process, n_steps, stop, **parameters)


def by_law(build: Build, **parameters: object) -> Build:
    return lambda process, n_steps, law=LAW, stop=0.0: build(
        process, n_steps, law, stop, **parameters
    )


LOW = {"sigma_min": 0.01}
GRIDS: dict[str, Build] = {
    "uniform": in_time(timegrids.uniform),
    "quadratic": in_time(timegrids.quadratic),
    "beta_quantiles": in_time(timegrids.beta_quantiles, alpha=0.6, beta=0.6),
    "linear_steps": by_level(timegrids.linear_steps, ratio=200.0),
    "log_snr": by_level(timegrids.log_snr, **LOW),
    "karras": by_level(timegrids.karras, rho=7.0, **LOW),
    "arctangent": by_level(timegrids.arctangent, scale=1.0),
    "cosine": by_level(timegrids.cosine, offset=0.008, scale=1.0),
    "sigmoid": by_level(timegrids.sigmoid, start=-3.0, finish=3.0, temperature=1.0, scale=1.0),
    "laplace": by_level(timegrids.laplace, location=0.0, width=0.5),
    "dmn": by_level(timegrids.dmn, order=3, exponent=2.0, scale=1.0, **LOW),
    "gaussian_geometric": by_law(timegrids.gaussian_geometric),
    "entropic": by_law(timegrids.entropic, **LOW),
    "entropic_rescaled": by_law(timegrids.entropic_rescaled),
    "score_optimal": by_law(timegrids.score_optimal, velocity="unit"),
    "constant_rate": by_law(timegrids.constant_rate, exponent=1.0, scale=1.0),
    "ddpm_optimal": by_law(ddpm_optimal),
}
OF_TIME = {"uniform", "quadratic", "beta_quantiles"}
BY_LEVEL = sorted(set(GRIDS) - OF_TIME - {"linear_steps", "ddpm_optimal"})


def test_every_registered_grid_is_tested_and_documented() -> None:
    assert set(GRIDS) == set(families("time_grid")) == {*timegrids.__all__, "ddpm_optimal"}
    rows = re.findall(r"^\| `([\w=]+)` \|", PAGE.read_text(), flags=re.MULTILINE)
    assert rows == [*GRIDS, *MEASURED]


#: Grids of the study time-grids, as the page shows them, whose names may be longer.
MEASURED = [item.label for item in Study.parse(read_config(STUDY)).time_grids]


def test_the_errors_on_the_page_are_those_of_the_study() -> None:
    """KL of the exact law, N = 10 and 20, linear schedule."""
    study = Study.parse(read_config(STUDY))
    process = build_process(study.process.spec, study.schedules[0].spec, study.horizons[0])
    known = [build_target(target.spec).law for target in study.targets]
    rows = re.findall(r"^\| `([\w=]+)` \|(.*)\|$", PAGE.read_text(), flags=re.MULTILINE)
    shown = {name: row.split("|") for name, row in rows if name in MEASURED}
    for grid in study.time_grids:
        for law, cell in zip(known, shown[grid.label][-3:], strict=True):
            found = []
            for n_steps in (10, 20):
                times = build_times(grid.spec, process, n_steps, law)
                steps = build_steps(study.samplers[0].spec, process, times)
                output = laws.sampler_law(steps, scores.exact(process, law), process.prior(50))
                found.append(f"{float(kl_divergence(law, output)):.3g}")
            assert cell.strip() == " / ".join(found), grid.label


# --- through a config -----------------------------------------------------------------


def parse(**changes: object) -> Study:
    """A study of closed forms, without bounds."""
    config = read_config(STUDY) | {"n_steps": [5], "bounds": [], "time_grids": ["uniform"]}
    return Study.parse(config | changes)


def test_the_spec_of_a_grid_says_where_it_stops_only_if_it_does() -> None:
    plain, stopped = parse(
        time_grids=["uniform", {"family": "uniform", "name": "s", "early_stop": 0.001}]
    ).time_grids
    assert plain.spec == {"build": "sgm.timegrids:uniform", "parameters": {}}
    assert stopped.spec == plain.spec | {"early_stop": 0.001}
    times = build_times(stopped.spec, PROCESSES["linear"], 5, None)
    np.testing.assert_allclose(times, np.linspace(1, 0.001, 6), rtol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"time_grids": [{"family": "uniform", "early_stop": 2.0}]},
            r"time_grids: uniform: early_stop = 2.0: must be below T = 1.0",
        ),
        (
            {"time_grids": [{"family": "uniform", "early_stop": 0.01}], "bounds": ["kl"]},
            r"the grid ends at 0.01: must end at 0 in a study with bounds \(kl\)",
        ),
        (
            {"time_grids": [{"family": "karras", "rho": 7, "sigma_min": 200}]},
            r"time_grids: karras_rho=7: sigma_min = 200: must lie between the noise levels",
        ),
        (
            {
                "time_grids": [
                    {"family": "dmn", "order": 4, "exponent": 1.0, "scale": 1.0, "sigma_min": 0.1}
                ]
            },
            "dmn: order = 4",
        ),
        (
            {
                "time_grids": [
                    {"family": "log_snr", "sigma_min": 0.1, "end": "stop", "early_stop": 0.1}
                ]
            },
            "early_stop = 0.1: must be null with end = 'stop'",
        ),
        (
            {"time_grids": ["entropic_rescaled"], "targets": [WINE], "bounds": []},
            "time_grids: 'entropic_rescaled' needs a known law, which target 'wine' does not have",
        ),
        (
            {"time_grids": ["gaussian_geometric"], "targets": ["two_modes"]},
            "'gaussian_geometric' needs a Gaussian law, which target 'two_modes' does not have",
        ),
    ],
)
def test_what_makes_no_grid_is_refused_before_any_job(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        check(parse(**changes))


def test_an_extension_may_ask_for_the_process_the_law_and_the_end(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "import numpy as np\nfrom sgm.study import register\n\n\n"
        "@register('time_grid')\ndef old(horizon, n_steps, *, power: float):\n"
        "    return horizon * np.linspace(1, 0, n_steps + 1) ** power\n\n\n"
        "@register('time_grid', needs='gaussian')\ndef new(process, n_steps, law, stop=0.0):\n"
        "    last = process.schedule.integral(stop) / law.principal_variances.mean()\n"
        "    assert last >= 0\n"
        "    return np.linspace(process.horizon, stop, n_steps + 1)\n"
    )
    grids = [{"family": "old", "power": 2.0}, {"family": "new", "early_stop": 0.1}]
    study = parse(extensions=[str(own)], time_grids=grids)
    check(study)
    old, new = (build_times(g.spec, PROCESSES["linear"], 4, LAW) for g in study.time_grids)
    np.testing.assert_allclose(old, timegrids.quadratic(1.0, 4), rtol=1e-12)
    assert new[-1] == 0.1
    with pytest.raises(ValueError, match=r"early_stop = 0\.1: must be left out for .*own\.py:old"):
        check(parse(extensions=[str(own)], time_grids=[grids[0] | {"early_stop": 0.1}]))


def levels(process: Process, times: Array) -> Array:
    """σ = √v/m."""
    return process.std(times) / process.mean_scale(times)


# --- all grids -----------------------------------------------------------------------


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("grid", GRIDS)
def test_grids_decrease_from_the_horizon_to_the_end(grid: str, process: str) -> None:
    of = PROCESSES[process]
    for n_steps in (1, 2, 7, 60 if grid in ("dmn", "ddpm_optimal") else 1000):
        times = GRIDS[grid](of, n_steps)
        assert times.shape == (n_steps + 1,)
        assert times[0] == of.horizon
        assert times[-1] == 0.0
        assert np.all(np.diff(times) < 0)
    if grid != "gaussian_geometric":  # whose last level before 0 depends on N
        early = 1e-7 * of.horizon
        times = GRIDS[grid](of, 7, stop=early)
        assert times[-1] == early
        assert np.all(np.diff(times) < 0)


@pytest.mark.parametrize("grid", GRIDS)
def test_grids_of_random_schedules_decrease(grid: str) -> None:
    generator = np.random.default_rng(5)
    for _ in range(6):
        horizon, variance = 10 ** generator.uniform(-2, 2), 10 ** generator.uniform(-2, 2)
        a, peak = generator.uniform(-9, 9), variance * generator.uniform(4, 30) / horizon
        rate = schedules.BetaSchedule(horizon, a / horizon, peak / 100, peak)
        times = GRIDS[grid](VPProcess(rate, variance), 9)
        assert times[0] == horizon
        assert times[-1] == 0.0
        assert np.all(np.diff(times) < 0)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_pole_is_passed_or_refused(grid: str) -> None:
    """B(T) = ∞ of the unclipped cosine schedule: no grid invents a number for it."""
    if grid in ("linear_steps", "log_snr", "karras", "dmn", "gaussian_geometric", "ddpm_optimal"):
        with pytest.raises(ValueError, match=r"B\(T\) = inf, the integral of beta: must be"):
            GRIDS[grid](POLE, 5)
    else:
        times = GRIDS[grid](POLE, 5)
        assert times[0] == 1.0
        assert np.all(np.diff(times) < 0)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
@pytest.mark.parametrize("grid", sorted(set(GRIDS) - {"uniform", "quadratic", "beta_quantiles"}))
def test_tiny_and_huge_variances_and_horizons(grid: str, scale: float) -> None:
    """Either N + 1 times that decrease, or a sentence; never a number that is none."""
    rate = schedules.BetaSchedule(scale, 0.0, 1.0, 9.0)
    law = Gaussian.diagonal(np.ones(2), np.array([scale, 2.0]))
    for process in (VPProcess(rate, scale), VPProcess(rate, 1.0), VEProcess(rate)):
        try:
            times = GRIDS[grid](process, 6, law)
        except ValueError as error:
            refused = str(error)
        else:
            refused = ""
            assert times[0] == scale
            assert times[-1] == 0.0
            assert np.all(np.diff(times) < 0)
        assert not refused or "must" in refused


@pytest.mark.parametrize("grid", BY_LEVEL)
def test_levels_do_not_depend_on_the_schedule(grid: str) -> None:
    """Two schedules, VP and VE, that reach one level have the grid of one σ each."""
    linear = PROCESSES["linear"]
    total = float(linear.schedule.integral(1.0))
    other = VPProcess(schedules.ConstantSchedule(3.0, total / 3), 1.0)
    exploding = VEProcess(schedules.ConstantSchedule(2.0, np.expm1(total) / 2))
    own = levels(linear, GRIDS[grid](linear, 12))
    for process in (other, exploding):
        np.testing.assert_allclose(
            levels(process, GRIDS[grid](process, 12)), own, rtol=1e-6, atol=1e-12
        )


# --- in time -------------------------------------------------------------------------


def test_uniform_steps_are_equal_and_quadratic_is_its_square() -> None:
    np.testing.assert_allclose(np.diff(timegrids.uniform(2.0, 50)), -0.04, rtol=1e-12)
    np.testing.assert_allclose(
        timegrids.quadratic(1.0, 50), timegrids.uniform(1.0, 50) ** 2, rtol=1e-14
    )
    early = timegrids.quadratic(1.0, 50, stop=0.04)
    np.testing.assert_allclose(np.diff(np.sqrt(early)), -0.8 / 50, rtol=1e-11)


def test_grids_start_at_the_horizon_itself() -> None:
    """T·N/N is above T at T = 0.8 for N = 3, 6, …"""
    assert all(timegrids.uniform(0.8, n)[0] == 0.8 for n in range(1, 200))


def test_beta_quantiles_are_quantiles() -> None:
    times = timegrids.beta_quantiles(3.0, 11, alpha=0.6, beta=0.6)
    cells = np.diff(beta_law(0.6, 0.6).cdf(times / 3))
    np.testing.assert_allclose(cells, -1 / 11, rtol=1e-10)
    even = timegrids.beta_quantiles(3.0, 11, alpha=1.0, beta=1.0)
    np.testing.assert_allclose(even, timegrids.uniform(3.0, 11), rtol=1e-13)


@pytest.mark.parametrize(
    ("horizon", "n_steps", "message"),
    [
        (1.0, 0, "n_steps = 0: must be an integer"),
        (1.0, 2.0, "n_steps = 2.0: must be an integer"),
        (np.nan, 3, "horizon = nan: must be"),
        (-1.0, 3, "horizon = -1.0: must be"),
    ],
)
@pytest.mark.parametrize("build", [timegrids.uniform, timegrids.quadratic])
def test_values_out_of_range_are_named(
    build: Build, horizon: float, n_steps: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(horizon, n_steps)


# --- by level ------------------------------------------------------------------------


def test_levels_are_those_of_the_process_and_back() -> None:
    for process in PROCESSES.values():
        times = process.horizon * np.geomspace(1e-12, 1, 50)
        np.testing.assert_allclose(
            np.exp(log_level(process, times)), levels(process, times), rtol=1e-9
        )
        np.testing.assert_allclose(
            time_at_level(process, log_level(process, times)), times, rtol=1e-8
        )
    huge = VPProcess(schedules.ConstantSchedule(1.0, 1e6), 1.0)  # σ(T) = e^500000
    assert float(log_level(huge, 1.0)) == 5e5
    assert float(log_level(huge, 0.0)) == -np.inf


def test_the_levels_of_each_formula() -> None:
    process = PROCESSES["linear"]
    top = float(levels(process, np.array(1.0)))
    share = np.linspace(1, 0, 11)

    def found(grid: str) -> Array:
        return levels(process, GRIDS[grid](process, 10))

    log_steps = np.append(np.geomspace(top, 0.01, 10), 0.0)
    np.testing.assert_allclose(found("log_snr"), log_steps, rtol=1e-9)
    power = (top ** (1 / 7) + np.arange(10) / 9 * (0.01 ** (1 / 7) - top ** (1 / 7))) ** 7
    np.testing.assert_allclose(found("karras"), np.append(power, 0.0), rtol=1e-9)
    np.testing.assert_allclose(found("arctangent"), np.tan(share * np.arctan(top)), rtol=1e-9)

    first = np.pi / 2 * 0.008 / 1.008
    angle = np.arccos(np.cos(first) / np.sqrt(1 + top**2))
    signal = np.cos(first + share * (angle - first)) ** 2 / np.cos(first) ** 2
    np.testing.assert_allclose(found("cosine"), np.sqrt(1 / signal - 1), rtol=1e-8, atol=1e-9)

    times = GRIDS["laplace"](process, 10)
    cells = laplace_law(0, 0.5).cdf(2 * np.log(levels(process, times[:-1])))
    np.testing.assert_allclose(np.diff(cells), -cells[0] / 10, rtol=1e-9)

    def logistic(u: Array | float) -> Array:
        return np.asarray(1 / (1 + np.exp(-u)))

    inside = found("sigmoid")[:-1]
    kept = 1 / (1 + inside**2)  # m², of which u is linear in k
    u = -np.log(1 / (logistic(3) - kept * (logistic(3) - logistic(-3))) - 1)
    np.testing.assert_allclose(np.diff(np.append(u, -3.0)), -(u[0] + 3) / 10, rtol=1e-7)

    steps = -np.diff(process.schedule.integral(GRIDS["linear_steps"](process, 10)))
    np.testing.assert_allclose(np.diff(steps[::-1]), (steps[0] - steps[-1]) / 9, rtol=1e-8)
    assert steps[0] / steps[-1] == pytest.approx(200, rel=1e-8)


def test_limits_that_join_the_grids() -> None:
    process = PROCESSES["cosine"]
    for build, other in (
        (partial(timegrids.karras, rho=1e6, **LOW), GRIDS["log_snr"]),
        (partial(timegrids.cosine, offset=0.0, scale=1.0), GRIDS["arctangent"]),
        (partial(timegrids.dmn, order=1, exponent=1.0, scale=1.0, **LOW), GRIDS["log_snr"]),
    ):
        np.testing.assert_allclose(build(process, 9), other(process, 9), rtol=3e-4)
    # uniform steps of a linear β have increments that grow linearly
    linear = PROCESSES["linear"]
    increments = -np.diff(linear.schedule.integral(timegrids.uniform(1.0, 20)))
    same = timegrids.linear_steps(linear, 20, ratio=increments[0] / increments[-1])
    np.testing.assert_allclose(same, timegrids.uniform(1.0, 20), atol=1e-9)


def test_dmn_finds_the_minimum_of_its_sum() -> None:
    """With one value a step Σ ε_j (e^{λ_{j+1}} − e^{λ_j}), written out, minimised otherwise."""
    process = PROCESSES["linear"]
    times = timegrids.dmn(process, 6, order=1, exponent=2.0, scale=1.0, sigma_min=0.01, end="stop")
    found = -np.log(levels(process, times))

    def bound(inside: Array) -> float:
        lam = np.concatenate([found[:1], inside, found[-1:]])
        m = 1 / np.sqrt(1 + np.exp(-2 * lam[:-1]))
        return float(np.sum((1 - m**2) / m * np.diff(np.exp(lam))))

    start = np.linspace(found[0], found[-1], 7)[1:-1]
    best = minimize(bound, start, method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12})
    assert bound(found[1:-1]) == pytest.approx(best.fun, rel=1e-7)
    assert best.fun < 0.99 * bound(start)
    np.testing.assert_allclose(found[1:-1], best.x, atol=1e-3)


def test_grids_that_stop_at_a_level() -> None:
    process = PROCESSES["linear"]
    times = timegrids.karras(process, 10, rho=7.0, sigma_min=0.5, end="stop")
    assert len(times) == 11
    assert float(levels(process, times[-1])) == pytest.approx(0.5, rel=1e-10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"sigma_min": 1e9}, "sigma_min = 1e.09: must lie between the noise levels"),
        ({"sigma_min": 0.01, "stop": 0.5}, "sigma_min = 0.01: must lie between the noise levels"),
        (
            {"sigma_min": 0.1, "stop": 1e-6, "end": "stop"},
            "stop = 1e-06: must be 0 with end = 'stop'",
        ),
        ({"sigma_min": 0.1, "end": "here"}, "end = 'here': must be 'zero' or 'stop'"),
        ({"sigma_min": -1.0}, "sigma_min = -1.0: must be a positive"),
        ({"sigma_min": 0.1, "stop": 1.0}, r"stop = 1.0: must lie in \[0, T\)"),
        ({"sigma_min": 0.1, "n_steps": 0}, "n_steps = 0: must be an integer"),
    ],
)
def test_levels_that_make_no_grid_are_refused(call: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        timegrids.log_snr(PROCESSES["linear"], **({"n_steps": 5} | call))


def test_a_search_of_many_steps_and_a_degenerate_law_are_refused() -> None:
    with pytest.raises(ValueError, match="n_steps = 65: must be at most 64"):
        GRIDS["dmn"](PROCESSES["linear"], 65)
    still = Gaussian.diagonal(np.zeros(3), np.ones(3))
    with pytest.raises(ValueError, match=r"scale = 1\.0: must differ from the standard deviation"):
        GRIDS["constant_rate"](PROCESSES["linear"], 5, still)
    unknown = GaussianMixture([0.5, 0.5], [[0.0] * 3, [1.0] * 3], np.ones((2, 3)))
    with pytest.raises(ValueError, match="must know its Fisher information"):
        GRIDS["entropic"](PROCESSES["linear"], 5, unknown)


# --- by the law ----------------------------------------------------------------------


def test_mmse_of_a_mixture_is_the_error_of_its_posterior_mean() -> None:
    """Against quadrature over the noised mixture, whose score gives the posterior mean."""
    mixture = GaussianMixture([0.3, 0.7], [[1.0], [3.0]], [[0.01], [0.25]])
    for sigma in (0.05, 0.4, 2.0):

        def density(y: float, sigma: float = sigma) -> float:
            return float(np.exp(mixture.log_density([y], 1.0, sigma**2)))

        def squared_score(y: float, sigma: float = sigma) -> float:
            return float(mixture.score([y], 1.0, sigma**2)[0] ** 2) * density(y)

        ends = (-3 - 8 * sigma, 7 + 8 * sigma)
        points = [1.0, 3.0]
        fisher = quad(squared_score, *ends, points=points, limit=400, epsabs=1e-12)[0]
        # Var(X₀ | Y) = σ² − σ⁴ (−∇² log p), and E(−∇² log p) is the Fisher information
        assert float(mmse(mixture, sigma)) == pytest.approx(sigma**2 - sigma**4 * fisher, rel=1e-5)


def test_entropic_grids_against_quadrature_and_closed_forms() -> None:
    process, spread = PROCESSES["linear"], LAW.principal_variances
    for law in (LAW, GaussianMixture([0.3, 0.7], [[1.0], [3.0]], [[0.01], [0.25]])):
        for grid, power in (("entropic", 3), ("entropic_rescaled", 2)):
            sigma = levels(process, GRIDS[grid](process, 8, law))

            def rate(level: float, law: object = law, power: int = power) -> float:
                return float(mmse(law, np.exp(level))) * np.exp((1 - power) * level)

            inside = np.log(sigma[:-1])
            parts = [
                quad(rate, low, high, limit=200, epsrel=1e-9)[0]
                for high, low in itertools.pairwise(inside)
            ]
            np.testing.assert_allclose(parts, parts[0], rtol=1e-5)
    sigma = levels(process, GRIDS["entropic_rescaled"](process, 8))
    angles = np.sum(np.sqrt(spread) * np.arctan(sigma[:, None] / np.sqrt(spread)), axis=-1)
    np.testing.assert_allclose(np.diff(angles), -angles[0] / 8, rtol=1e-9)
    sigma = levels(process, GRIDS["entropic"](process, 8))[:-1]
    entropy = -np.sum(np.log1p(spread / sigma[:, None] ** 2), axis=-1) / 2
    np.testing.assert_allclose(np.diff(entropy), np.diff(entropy).mean(), rtol=1e-9)
    isotropic = Gaussian.diagonal(np.ones(3), np.full(3, 0.5))
    np.testing.assert_allclose(
        GRIDS["entropic_rescaled"](process, 8, isotropic),
        timegrids.arctangent(process, 8, scale=0.5**0.5),
        rtol=1e-9,
    )


def test_score_optimal_steps_have_equal_fisher_divergences() -> None:
    """E_{p}|∇log p′ − ∇log p|² of neighbours, from their scores; equal as N grows."""
    process, spread = PROCESSES["linear"], LAW.principal_variances
    for velocity, weight in (("unit", 0.0), ("noise", 2.0)):
        times = timegrids.score_optimal(process, 800, LAW, velocity=velocity)
        sigma = levels(process, times)
        v, w = spread + sigma[:-1, None] ** 2, spread + sigma[1:, None] ** 2
        fisher = np.sum((1 / w - 1 / v) ** 2 * (v + w) / 2, axis=-1)
        cost = fisher * ((sigma[:-1] + sigma[1:]) / 2) ** weight
        np.testing.assert_allclose(cost[1:-3], np.median(cost), rtol=0.05)


def test_constant_rate_moves_the_law_at_one_speed() -> None:
    """W2 between the laws of α X₀ + c√(1 − α²) Z at neighbours, by `wasserstein2`."""
    process = PROCESSES["linear"]
    sigma = levels(process, timegrids.constant_rate(process, 400, LAW, exponent=1.0, scale=0.7))
    alpha = 1 / np.sqrt(1 + sigma**2 / 0.49)
    steps = [float(wasserstein2(*(_mixed(a) for a in pair))) for pair in itertools.pairwise(alpha)]
    np.testing.assert_allclose(steps, np.mean(steps), rtol=1e-3)
    sigma = levels(process, timegrids.constant_rate(process, 9, LAW, exponent=0.0, scale=0.7))
    np.testing.assert_allclose(np.diff(1 / np.sqrt(1 + sigma**2 / 0.49), 2), 0, atol=1e-9)


def _mixed(alpha: float) -> Gaussian:
    spread = alpha**2 * LAW.eigenvalues + 0.49 * (1 - alpha**2)
    return Gaussian(alpha * LAW.mean, spread, LAW.basis)


@pytest.mark.parametrize("n_steps", [10, 20, 100])
def test_geometric_ends_keep_the_theorem_and_are_almost_the_best(n_steps: int) -> None:
    """Perbost et al.'s bound of W2 for Euler's scheme of the probability flow of VE,

    (√Tr Σ/N) (⅝ N^{5/2N} ρ^{1/N} log(ρ^{2/5} N) + 1 + √8),     ρ = d (Tr Σ⁵)^{1/4}/(Tr Σ)^{5/4}.
    """
    diagonal = targets.heteroscedastic_slides(dimension=50, mean=0.0).law
    traces = (5 * 10.0 + 45 * 0.1, 5 * 1e5 + 45 * 1e-5)
    largest, smallest = geometric_ends(diagonal, n_steps)
    assert largest == pytest.approx((traces[1] / traces[0]) ** 0.25 * n_steps**0.5, rel=1e-12)
    assert smallest == pytest.approx(traces[0] / 50 / n_steps**2, rel=1e-12)
    process = VEProcess(schedules.ConstantSchedule(1.0, largest))
    times = timegrids.gaussian_geometric(process, n_steps, diagonal, end="stop")
    variances = np.geomspace(largest, smallest, n_steps + 1)
    np.testing.assert_allclose(process.schedule.integral(times), variances, rtol=1e-9)

    def error(law: Gaussian, ends: Array) -> float:
        """ends = log τ_max, log τ_min."""
        process = VEProcess(schedules.ConstantSchedule(1.0, float(np.exp(ends[0]))))
        low = float(np.exp(ends[1] / 2))
        times = timegrids.log_snr(process, n_steps, sigma_min=low, end="stop")
        steps = samplers.probability_flow_euler(process, times)
        prior = process.prior(law.dimension)
        output = laws.sampler_law(steps, scores.exact(process, law), prior)
        return float(wasserstein2(law, output))

    for law in (diagonal, targets.correlated(dimension=50, mean=0.0, offset=1.0).law):
        ends = np.log(geometric_ends(law, n_steps))
        trace, fifth = (float(np.sum(law.eigenvalues**k)) for k in (1, 5))
        rho = 50 * fifth**0.25 / trace**1.25
        term = n_steps ** (2.5 / n_steps) * rho ** (1 / n_steps) * np.log(rho**0.4 * n_steps)
        own = error(law, ends)
        assert own < trace**0.5 / n_steps * (5 / 8 * term + 1 + 8**0.5)
        best = minimize(partial(error, law), ends, method="Nelder-Mead", options={"maxfev": 150})
        assert own < 1.4 * best.fun
        assert own < 0.9 * error(law, ends + np.array([4.0, 0.0]))


# --- invariance ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "invariant"),
    [
        ("exponential_integrator_modified", True),
        ("exponential_integrator", True),
        ("euler_maruyama", False),
    ],
)
def test_the_output_depends_on_the_integral_at_the_grid_alone(scheme: str, invariant: bool) -> None:
    """Another clock of the schedule, and the grid carried over to it, change nothing.

    True of schemes that integrate the linear part exactly, with the exact score; Euler-Maruyama
    takes h β(τ_k) for the increment of B.
    """
    linear = schedules.BetaSchedule(1.0, a=0.0, beta_min=0.1, beta_max=20.0)
    total = float(linear.integral(1.0))
    # u(t) = 1.5 t² + 0.1 t turns constant β into β(t) ∝ 3 t + 0.1: B at the grid is the same
    bent = schedules.NumericalSchedule(1.0, lambda t: total * (3 * t + 0.1) / 1.6)
    flat = schedules.ConstantSchedule(4.0, total / 4)
    outputs = []
    times = timegrids.uniform(1.0, 12)
    for schedule in (linear, bent, flat):
        process = VPProcess(schedule, 1.0)
        moved = schedule.inverse_integral(linear.integral(times))
        moved[0], moved[-1] = schedule.horizon, 0.0
        steps = getattr(samplers, scheme)(process, moved)
        outputs.append(laws.sampler_law(steps, scores.exact(process, LAW), process.prior(5)))
    first, *others = outputs
    for other in others:
        gap = float(wasserstein2(first, other))
        assert gap < 1e-6 if invariant else gap > 0.05
