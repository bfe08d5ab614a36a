"""What the samplers tend to as N grows, and how fast; the table of docs/samplers.md."""

import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy.integrate import quad

from sgm import laws, samplers, scores, targets
from sgm.gaussian import Gaussian, kl_divergence
from sgm.processes import Process, VEProcess, VPProcess
from sgm.schedules import BetaSchedule, CosineSchedule, GeometricSchedule
from sgm.timegrids import quadratic, uniform

Array = npt.NDArray[np.float64]

ROOT = Path(__file__).parents[1]
LAW = targets.correlated(4, 1.0, 1.0).law
PROCESSES = {
    "VP": VPProcess(BetaSchedule(1.0, 2.0, 0.1, 20.0), 2.5),
    "VE": VEProcess(GeometricSchedule(1.0, 0.05, 3.0)),
}


def deviation(process: Process, t: float) -> tuple[Array, Array]:
    """m μ and V = m² λ + v of p_t, in the basis of the law."""
    m = float(process.mean_scale(t))
    return m * LAW.rotate(LAW.mean), m**2 * LAW.eigenvalues + float(process.kernel_variance(t))


def flow(process: Process, start: float, stop: float, langevin: float = 0.0) -> Array:
    """Factor of what deviates from p_t: √(V′/V) of the flow, times Langevin's.

    With noise η² times that of the backward SDE (η = 1), (m/m′ √(V′/V))^η; see `limit`.
    """
    (_, v), (_, v_stop) = deviation(process, start), deviation(process, stop)
    scale = float(process.mean_scale(start) / process.mean_scale(stop))
    return np.sqrt(v_stop / v) * (scale * np.sqrt(v_stop / v)) ** langevin


def limit(process: Process, factor: Array, stop: float = 0.0) -> Array:
    """Mean and variances at `stop`, if what deviates from p_T at T is multiplied by `factor`."""
    (mean, v), (mean_stop, v_stop) = deviation(process, 1.0), deviation(process, stop)
    return np.concatenate(
        [mean_stop - factor * mean, v_stop + factor**2 * (process.prior_variance - v)]
    )


def error(
    process: Process, scheme: Callable[..., samplers.Steps], times: Array, expected: Array
) -> float:
    steps = scheme(process, times)
    law = laws.sampler_law(steps, scores.exact(process, LAW), process.prior(4))
    return float(np.linalg.norm(np.concatenate([LAW.rotate(law.mean), law.eigenvalues]) - expected))


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_the_limits_are_those_of_the_laws(process: Process) -> None:
    for langevin, known in [(0.0, laws.probability_flow_limit), (1.0, laws.reverse_sde_limit)]:
        expected = known(process, LAW)
        found = limit(process, flow(process, 1.0, 0.0, langevin))
        np.testing.assert_allclose(found[:4], LAW.rotate(expected.mean), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(found[4:], expected.eigenvalues, rtol=1e-12)


ORDERS = {
    "heun": (samplers.heun, 0.0, 2),
    "edm without churn": (partial(samplers.edm, s_churn=0.0), 0.0, 2),
    "dpm_solver_2s": (samplers.dpm_solver_2s, 0.0, 2),
    "dpm_solver_pp_2s": (samplers.dpm_solver_pp_2s, 0.0, 2),
    "dpm_solver_pp_2m": (partial(samplers.dpm_solver_pp_2m, eta=0.0), 0.0, 2),
    "dpm_solver_pp_2m, half": (partial(samplers.dpm_solver_pp_2m, eta=0.5), 0.5, 2),
    "dpm_solver_pp_2m, SDE": (partial(samplers.dpm_solver_pp_2m, eta=1.0), 1.0, 2),
    "deis_1": (partial(samplers.deis, order=1), 0.0, 1),
    "deis_2": (partial(samplers.deis, order=2), 0.0, 2),
    "unipc": (samplers.unipc, 0.0, 3),
    "er_sde_1, flow": (partial(samplers.er_sde, order=1, noise_scale="flow"), 0.0, 1),
    "er_sde_2, SDE": (partial(samplers.er_sde, order=2, noise_scale="sde"), 1.0, 2),
    "er_sde_3, flow": (partial(samplers.er_sde, order=3, noise_scale="flow"), 0.0, 2),
    "exponential_runge_kutta": (samplers.exponential_runge_kutta, 1.0, 2),
    "exponential_runge_kutta_modified": (samplers.exponential_runge_kutta_modified, 1.0, 2),
    "restart, none": (partial(samplers.restart, restarts=0, low=0.1, high=0.5), 0.0, 2),
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("kind", PROCESSES)
def test_weak_order_of_grids_that_stop_early(name: str, kind: str) -> None:
    """Where every step is alike, the order is that of the paper."""
    scheme, langevin, expected = ORDERS[name]
    if kind == "VE" and "modified" in name:
        pytest.skip("needs a stationary law")
    process, stop = PROCESSES[kind], 0.01
    target = limit(process, flow(process, 1.0, stop, langevin), stop)

    def early(n: int) -> Array:
        times = (np.sqrt(stop) + (1 - np.sqrt(stop)) * np.arange(n, -1, -1) / n) ** 2
        return np.append(1.0, times[1:])

    errors = [error(process, scheme, early(n), target) for n in (1000, 2000)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(expected, abs=0.15)
    assert errors[1] < 0.02


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
@pytest.mark.parametrize(("order", "expected"), [(1, 1.0), (2, 2.0), (3, 2.0)])
def test_er_sde_tends_to_the_sde_of_its_noise(
    process: Process, order: int, expected: float
) -> None:
    """u − x̂₀ is s²/(λ + s²) of a deviation of u, which du = (u − x̂₀) d log φ takes away."""

    def lost(x: float, spread: float) -> float:
        power, level = np.exp(0.3 * x), np.exp(2 * x)
        return (1 + 0.3 * power / (1 + 10 * np.exp(-power))) * level / (spread + level)

    m, v = float(process.mean_scale(1.0)), float(process.kernel_variance(1.0))
    top = np.log(v) / 2 - np.log(m)
    whole = [quad(lost, -20, top, args=(spread,), epsabs=1e-12)[0] for spread in LAW.eigenvalues]
    target = limit(process, np.exp(-np.array(whole)) / m)
    scheme = partial(samplers.er_sde, order=order)
    errors = [error(process, scheme, quadratic(1.0, n), target) for n in (300, 600)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(expected, abs=0.15)
    assert errors[1] < 0.02
    assert np.linalg.norm(target - limit(process, flow(process, 1.0, 0.0))) > 0.05


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_er_sde_of_first_order_is_ddim(process: Process) -> None:
    times = quadratic(1.0, 12)
    for noise_scale, eta in [("flow", 0.0), ("sde", 1.0)]:
        found = samplers.er_sde(process, times, 1, noise_scale)
        ddim = samplers.ddim(process, times, eta)
        np.testing.assert_allclose(found.kept[:, 0, 0], ddim.kept, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(found.denoiser[:, 0], ddim.denoiser, rtol=1e-10)
        np.testing.assert_allclose(found.noise[:, 0], ddim.noise, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("grid", [uniform, quadratic])
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_edm_tends_to_a_diffusion_with_the_churn_s_noise(
    process: Process, grid: Callable[[float, int], Array]
) -> None:
    """Each step leaves 1 − γ σ̃²/(λ + σ̃²) of a deviation more than the flow, γ = s_churn/N."""

    def share(fraction: float, spread: float) -> float:
        t = float(grid(1.0, 2)[0] * (1 - fraction) ** (2 if grid is quadratic else 1))
        level = float(process.kernel_variance(t) / process.mean_scale(t) ** 2)
        return level / (spread + level)

    lost = [quad(share, 0, 1, args=(spread,), epsabs=1e-12)[0] for spread in LAW.eigenvalues]
    target = limit(process, flow(process, 1.0, 0.0) * np.exp(-5.0 * np.array(lost)))
    scheme = partial(samplers.edm, s_churn=5.0)
    errors = [error(process, scheme, grid(1.0, n), target) for n in (500, 1000, 2000)]
    assert np.log2(errors[1] / errors[2]) == pytest.approx(1.0, abs=0.15)
    assert errors[2] < 2e-3
    # it is another law than that of the flow
    assert np.linalg.norm(target - limit(process, flow(process, 1.0, 0.0))) > 0.05


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_restart_tends_to_the_flow_gone_through_again(process: Process) -> None:
    """Back by the forward kernel, which multiplies a deviation by m/m′, and down by the flow."""
    low, high, restarts = 1 / 16, 1 / 4, 2
    back = float(process.mean_scale(high) / process.mean_scale(low))
    again = (back * flow(process, high, low)) ** restarts
    target = limit(process, flow(process, 1.0, 0.0) * again)
    scheme = partial(samplers.restart, restarts=restarts, low=low, high=high)
    errors = [error(process, scheme, quadratic(1.0, n), target) for n in (256, 512)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_langevin_steps_end_at_their_biased_stationary_law(process: Process) -> None:
    """x′ = x + δ s + √(2δ) z has mean mμ and the stationary variance V/(1 − δ/(2V))."""
    times, share = np.array([1.0, 0.5, 0.3]), 0.2
    steps = samplers.annealed_langevin(process, times, langevin_steps=4000, step_size=share)
    assert (steps.n_steps, steps.nfe, steps.score_time[-1]) == (2, 8000, 0.5)
    law = laws.sampler_law(steps, scores.exact(process, LAW), process.prior(4))
    mean, v = deviation(process, 0.5)
    size = share * float(process.kernel_variance(0.5))
    np.testing.assert_allclose(LAW.rotate(law.mean), mean, atol=1e-9)
    np.testing.assert_allclose(law.eigenvalues, v / (1 - size / (2 * v)), rtol=1e-9)


@pytest.mark.parametrize("stop", [0.0, 0.3])
def test_plain_langevin_stays_at_the_last_time(stop: float) -> None:
    """After many steps its law is the biased stationary one there, whatever the prior was."""
    process, size = PROCESSES["VP"], 0.02
    times = np.linspace(1.0, stop, 20_001)
    steps = samplers.langevin(process, times, step_size=size)
    assert (steps.n_steps, steps.nfe) == (20_000, 20_000)
    np.testing.assert_array_equal(steps.score_time, stop)
    law = laws.sampler_law(steps, scores.exact(process, LAW), process.prior(4))
    mean, v = deviation(process, stop)
    np.testing.assert_allclose(LAW.rotate(law.mean), mean, atol=1e-9)
    np.testing.assert_allclose(law.eigenvalues, v / (1 - size / (2 * v)), rtol=1e-9)


def test_the_signal_to_noise_step_is_that_of_pure_noise() -> None:
    """δ = (q |z|/|s|)² with |z|² = d, |s|² = d/v: the score of the noise of a point mass."""
    process, times = PROCESSES["VP"], uniform(1.0, 4)
    steps = samplers.predictor_corrector_snr(process, times, corrector_steps=2, snr=0.3)
    fixed = samplers.predictor_corrector(process, times, 2, 1.0)
    assert (steps.n_steps, steps.nfe, fixed.nfe) == (4, 10, 12)
    v = process.kernel_variance(times[1:-1])
    np.testing.assert_allclose(steps.score[:9].reshape(3, 3)[:, 1:], 0.09 * v[:, None] * [1, 1])
    np.testing.assert_array_equal(steps.score_time[steps.departures], times[:-1])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(samplers.edm, s_churn=-1.0), r"s_churn = -1.0: must lie in \[0"),
        (partial(samplers.edm, s_churn=1.0, s_tmin=2.0, s_tmax=1.0), "s_tmax = 1.0: must be at l"),
        (partial(samplers.edm, s_churn=1.0, s_noise=0.0), "s_noise = 0.0: must be a positive"),
        (partial(samplers.restart, restarts=-1, low=0.1, high=0.5), "restarts = -1: must be"),
        (partial(samplers.restart, restarts=1, low=0.1, high=1.5), "high = 1.5: must lie in"),
        (partial(samplers.restart, restarts=1, low=0.4, high=0.45), "low = 0.4, high = 0.45: must"),
        (partial(samplers.dpm_solver_pp_2m, eta=1.5), "eta = 1.5: must lie in"),
        (partial(samplers.deis, order=4), r"order = 4: must lie in \[1, 3\]"),
        (partial(samplers.deis, order=1.5), "order = 1.5: must be an integer"),
        (partial(samplers.er_sde, order=0), "order = 0: must be"),
        (partial(samplers.er_sde, order=1, noise_scale="ode"), "noise_scale = 'ode': must be 'fl"),
        (
            partial(samplers.annealed_langevin, langevin_steps=0, step_size=0.1),
            "langevin_steps =",
        ),
        (partial(samplers.annealed_langevin, langevin_steps=1, step_size=0.0), "step_size = 0.0"),
        (partial(samplers.langevin, step_size=-1.0), "step_size = -1.0: must be"),
        (partial(samplers.predictor_corrector_snr, corrector_steps=-1, snr=0.1), "corrector_steps"),
        (partial(samplers.predictor_corrector_snr, corrector_steps=1, snr=np.inf), "snr = inf"),
    ],
)
def test_values_out_of_range_are_named(
    build: Callable[[Process, Array], samplers.Steps], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(PROCESSES["VP"], uniform(1.0, 4))


def test_a_random_midpoint_needs_a_finite_clock() -> None:
    vp = VPProcess(CosineSchedule(1.0, 1.0, 0.008, np.inf), 1.0)
    with pytest.raises(ValueError, match=r"process = VPProcess.*: must have a finite B\(T\)"):
        samplers.randomised_midpoint(vp, uniform(1.0, 4), times_seed=0)
    with pytest.raises(ValueError, match=r"times_seed = -1: must be an integer"):
        samplers.randomised_midpoint(PROCESSES["VP"], uniform(1.0, 4), times_seed=-1)


def test_exponential_runge_kutta_of_the_modified_score_needs_a_stationary_law() -> None:
    with pytest.raises(ValueError, match=r"process = VEProcess.*: must have a stationary law"):
        samplers.exponential_runge_kutta_modified(PROCESSES["VE"], uniform(1.0, 4))


NEW = {name: scheme for name, (scheme, *_) in ORDERS.items() if name != "restart, none"} | {
    "deis_3": partial(samplers.deis, order=3),
    "er_sde_3": partial(samplers.er_sde, order=3),
    "edm": partial(samplers.edm, s_churn=3.0),
}


@pytest.mark.parametrize("name", NEW)
def test_one_step_from_pure_noise_onto_the_data(name: str) -> None:
    """h = 10⁶: eʰ is no number, but the output is E X₀, with noise or without."""
    vp = VPProcess(BetaSchedule(1.0, 0.0, 200.0, 200.0), 1e-4)
    law = Gaussian.diagonal([2.0], [0.5])
    found = laws.sampler_law(NEW[name](vp, [1.0, 0.0]), scores.exact(vp, law), vp.prior(1))
    if name == "exponential_runge_kutta":  # its linear part grows
        assert found.eigenvalues[0] == np.inf
        return
    noise = 1e-4 if "modified" in name else 0.0
    if "modified" not in name:
        assert found.mean[0] == pytest.approx(2.0, rel=1e-14)
        assert found.eigenvalues[0] == pytest.approx(noise, rel=1e-12, abs=1e-300)


@pytest.mark.parametrize("name", NEW)
def test_an_infinite_level_to_start_from(name: str) -> None:
    """β of an unclipped cosine has a pole at T: p_T is pure noise, from which x̂₀ = E X₀."""
    vp = VPProcess(CosineSchedule(1.0, 1.0, 0.008, np.inf), 1.0)
    law = Gaussian.diagonal([2.0], [0.5])
    for n in (1, 2, 60):
        output = laws.sampler_law(
            NEW[name](vp, uniform(1.0, n)), scores.exact(vp, law), vp.prior(1)
        )
        if name == "exponential_runge_kutta":  # its linear part grows
            assert output.eigenvalues[0] == np.inf
        elif n == 1 and "modified" not in name:
            np.testing.assert_allclose([output.mean[0], output.eigenvalues[0]], [2, 0], atol=1e-14)
    assert name == "exponential_runge_kutta" or kl_divergence(law, output) < 2e-3


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_networks_are_never_asked_for_the_data_s_own_score(name: str, n: int) -> None:
    """At time 0 scores that divide by the noise are no numbers."""
    steps = NEW[name](PROCESSES["VP"], uniform(1.0, n))
    assert np.nanmin(steps.score_time) > 0
    assert steps.n_steps == n


PAGE = runpy.run_path(str(ROOT / "docs/samplers.py"))
#: A row of one register, of two evaluations a step, and of memory with noise.
MEASURED = ("ancestral", "heun", "er_sde")


def test_the_table_of_samplers_has_a_row_for_each() -> None:
    lines = (ROOT / "docs/samplers.md").read_text(encoding="utf-8").splitlines()
    named = {PAGE["name"](row).split("`")[1] for row in PAGE["rows"]()}
    assert named == set(samplers.__all__) - {"Stage", "Steps", "program", "symbols"}
    for row in PAGE["rows"]():
        written = [line for line in lines if line.startswith(f"| {PAGE['name'](row)} |")]
        assert len(written) == 1
        if PAGE["name"](row).split("`")[1] in MEASURED:
            assert written == [PAGE["line"](row)]


@pytest.mark.slow
def test_the_table_of_samplers_is_what_is_measured() -> None:
    """docs/samplers.md has what docs/samplers.py measures today, in every row."""
    assert PAGE["table"]() in (ROOT / "docs/samplers.md").read_text(encoding="utf-8")
