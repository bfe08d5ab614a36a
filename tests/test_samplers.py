"""The schemes' coefficients against the formulas of their papers and each other."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sgm import laws, samplers, scores
from sgm.gaussian import Gaussian
from sgm.processes import VEProcess, VPProcess
from sgm.schedules import BetaSchedule, ConstantSchedule, GeometricSchedule
from sgm.timegrids import quadratic, uniform

Array = npt.NDArray[np.float64]

SCHEMES = {
    "exponential_integrator_modified": samplers.exponential_integrator_modified,
    "exponential_integrator": samplers.exponential_integrator,
    "euler_maruyama": samplers.euler_maruyama,
    "euler_arrival": samplers.euler_arrival,
    "probability_flow_euler": samplers.probability_flow_euler,
    "ancestral": samplers.ancestral,
    "ancestral_small": samplers.ancestral_small,
    "ddim": samplers.ddim,
}
FIELDS = ("score_time", "state", "score", "noise")


def process(variance: float = 2.5, a: float = 2.0) -> VPProcess:
    return VPProcess(BetaSchedule(1.5, a, 0.1, 20.0), variance)


def assert_same(
    first: samplers.Steps, second: samplers.Steps, rtol: float = 1e-11, atol: float = 1e-13
) -> None:
    for name in FIELDS:
        np.testing.assert_allclose(
            getattr(first, name), getattr(second, name), rtol=rtol, atol=atol, err_msg=name
        )


def printed(name: str, vp: VPProcess, times: Array) -> tuple[Array, Array, Array, Array]:
    """(τ, α, γ, ρ²) as the sources print them, with no care for cancellation."""
    start, stop, s2 = times[:-1], times[1:], vp.variance
    step, m, m_next = start - stop, vp.mean_scale(start), vp.mean_scale(stop)
    v, v_next = vp.kernel_variance(start), vp.kernel_variance(stop)
    beta, r, kept = vp.schedule.beta, m_next / m, (m / m_next) ** 2
    match name:
        case "exponential_integrator":
            return start, r, 2 * s2 * (r - 1), s2 * (r**2 - 1)
        case "exponential_integrator_modified":
            return start, 2 - 1 / r, 2 * s2 * (1 - 1 / r), s2 * (1 - r**-2)
        case "euler_maruyama":
            rate = step * beta(start)
            return start, 1 + rate / (2 * s2), rate, rate
        case "euler_arrival":
            rate = step * beta(stop)
            return stop, 1 + rate / (2 * s2), rate, rate
        case "probability_flow_euler":
            rate = step * beta(start) / 2
            return start, 1 + rate / s2, rate, 0 * rate
        case "ancestral":
            return start, r, s2 * (1 - kept) * r, s2 * (1 - kept)
        case "ancestral_small":
            return start, r, s2 * (1 - kept) * r, s2 * (1 - kept) * v_next / v
        case "ddim":
            return start, r, r * v - np.sqrt(v_next * v), 0 * r
    raise AssertionError(name)


@pytest.mark.parametrize("grid", [uniform, quadratic])
@pytest.mark.parametrize("variance", [0.5, 2.5])
@pytest.mark.parametrize("name", SCHEMES)
def test_coefficients_are_those_of_the_sources(
    name: str, variance: float, grid: Callable[[float, int], Array]
) -> None:
    vp, times = process(variance), grid(1.5, 23)
    steps = SCHEMES[name](vp, times)
    tau, state, score, squared_noise = printed(name, vp, times)
    assert_same(steps, samplers.Steps(tau, state, score, np.sqrt(squared_noise)), rtol=1e-9)
    assert len(steps) == 23


@pytest.mark.parametrize("grid", [uniform, quadratic])
def test_ddim_interpolates_to_the_small_variance_sampler(
    grid: Callable[[float, int], Array],
) -> None:
    vp, times = process(), grid(1.5, 40)
    assert_same(samplers.ddim(vp, times, eta=1.0), samplers.ancestral_small(vp, times), rtol=1e-13)


@pytest.mark.parametrize("eta", [0.0, 0.3, 0.8])
def test_ddim_keeps_the_marginals_of_a_point_mass(eta: float) -> None:
    """With the exact score of X₀ = 0, p_{τ_k} is carried to p_{τ_{k+1}} whatever η."""
    vp, times = process(), uniform(1.5, 11)
    steps = samplers.ddim(vp, times, eta)
    v, v_next = vp.kernel_variance(times[:-1]), vp.kernel_variance(times[1:])
    arrived = (steps.state - steps.score / v) ** 2 * v + steps.noise**2
    np.testing.assert_allclose(arrived, v_next, rtol=1e-12, atol=1e-15)


def test_exact_coefficients_do_not_cancel_on_tiny_steps() -> None:
    """On a step of 1e-9 every scheme is Euler's with relative error O(step)."""
    vp = process()
    times = np.array([1.0, 1.0 - 2.0**-30])
    reference = samplers.euler_maruyama(vp, times)
    for name in ("exponential_integrator", "exponential_integrator_modified", "ancestral"):
        steps = SCHEMES[name](vp, times)
        # B(τ_k) − B(τ_{k+1}) itself loses digits: B ~ 10, the step ~ 1e-8
        assert steps.score == pytest.approx(reference.score, rel=1e-6)
        assert steps.noise == pytest.approx(reference.noise, rel=1e-6)


@pytest.mark.parametrize("name", ["exponential_integrator_modified", "ancestral"])
def test_one_step_onto_the_data_from_pure_noise_keeps_the_stationary_law(name: str) -> None:
    """With the score of π_∞ itself, the modified integrator keeps π_∞ exactly, for s̃ = 0."""
    vp = process()
    steps = SCHEMES[name](vp, uniform(1.5, 3))
    factor = steps.state - steps.score / vp.variance
    np.testing.assert_allclose(factor**2 * vp.variance + steps.noise**2, vp.variance, rtol=1e-12)


BY_DENOISER = [
    "exponential_integrator_modified",
    "probability_flow_euler",
    "ancestral",
    "ancestral_small",
    "ddim",
]


@pytest.mark.parametrize("name", BY_DENOISER)
@pytest.mark.parametrize("exploding", [False, True])
def test_both_forms_of_a_stage_are_one(name: str, exploding: bool) -> None:
    """a = α − γ/v and c = γ m/v, on steps short enough for the differences."""
    if exploding and name == "exponential_integrator_modified":
        pytest.skip("needs a stationary law")
    forward = EXPLODING if exploding else process()
    steps = SCHEMES[name](forward, quadratic(1.5, 12))
    m, v = forward.mean_scale(steps.score_time), forward.kernel_variance(steps.score_time)
    np.testing.assert_allclose(steps.kept, steps.state - steps.score / v, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(steps.denoiser, steps.score * m / v, rtol=1e-12)


def test_ddim_has_both_forms_at_any_eta() -> None:
    vp = process()
    steps = samplers.ddim(vp, uniform(1.5, 12), 0.4)
    v = vp.kernel_variance(steps.score_time)
    np.testing.assert_allclose(steps.kept, steps.state - steps.score / v, rtol=1e-10, atol=1e-14)


def test_other_schemes_say_nothing_of_the_denoiser() -> None:
    steps = samplers.euler_maruyama(process(), uniform(1.5, 3))
    assert steps.kept.shape == steps.denoiser.shape == (3,)
    assert np.all(np.isnan(steps.kept) & np.isnan(steps.denoiser))


def test_steps_too_long_for_a_simulation_are_refused() -> None:
    steps = samplers.ancestral(VPProcess(ConstantSchedule(1.0, 24.0), 1.0), [1.0, 0.0])  # e¹²
    steps.require_precision(np.finfo(np.float64).eps)
    with pytest.raises(ValueError, match=r"times: a step .* by 1\.63e\+05: must be at most 8e\+04"):
        steps.require_precision(np.finfo(np.float32).eps)
    # a scheme that diverges by itself has nothing to cancel
    samplers.exponential_integrator(
        VPProcess(ConstantSchedule(1.0, 24.0), 1.0), [1.0, 0.0]
    ).require_precision(np.finfo(np.float32).eps)


@pytest.mark.parametrize("remembered", [0.0, 1.0])
def test_rounding_errors_of_saved_scores_count_when_they_arrive_in_the_sample(
    remembered: float,
) -> None:
    """A denoiser at h = 12 has error e¹² ε; what is made of it at m′ counts, not the register."""
    vp = VPProcess(ConstantSchedule(1.0, 24.0), 1.0)
    x, saved, _, denoised, _ = samplers.symbols(2)
    times = np.array([[1.0], [0.9]])
    stage = samplers.Stage(times, x, [0.9 * x + remembered * saved, denoised])
    steps = samplers.program(vp, 2, [stage])
    eps = np.finfo(np.float32).eps
    if remembered:
        with pytest.raises(ValueError, match=r"by 1\.63e\+05: must be at most 8e\+04"):
            steps.require_precision(eps)
    else:
        steps.require_precision(eps)


def test_predictor_corrector_interleaves() -> None:
    vp, times = process(), uniform(1.5, 4)
    predictor = samplers.euler_maruyama(vp, times)
    steps = samplers.predictor_corrector(vp, times, corrector_steps=2, step_size=0.03)
    assert len(steps) == 12
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(steps, name)[::3], getattr(predictor, name))
    for first in (1, 2):
        np.testing.assert_array_equal(steps.score_time[first::3], times[1:])
        np.testing.assert_array_equal(steps.state[first::3], 1.0)
        np.testing.assert_array_equal(steps.score[first::3], 0.03)
        np.testing.assert_array_equal(steps.noise[first::3], np.sqrt(0.06))
    assert_same(samplers.predictor_corrector(vp, times, 0, 0.03), predictor, rtol=0, atol=0)


EXPLODING = VEProcess(GeometricSchedule(1.5, 0.05, 3.0))
OF_VE = sorted(SCHEMES.keys() - {"exponential_integrator_modified"})


@pytest.mark.parametrize("name", OF_VE)
def test_ve_coefficients_are_the_limit_of_vp(name: str) -> None:
    """σ² = 10⁷ in the VP formulas, which cancel there to 10⁻⁷."""
    times = quadratic(1.5, 12)
    steps = SCHEMES[name](EXPLODING, times)
    assert_same(steps, SCHEMES[name](VPProcess(EXPLODING.schedule, 1e7), times), rtol=1e-5)
    np.testing.assert_array_equal(steps.state, 1.0)


def test_ve_coefficients_are_those_of_song_et_al() -> None:
    """σ_i² − σ_{i−1}² in mean and noise; the ancestral noise is shrunk by σ_{i−1}²/σ_i²;
    DDIM moves by (σ_{i−1} − σ_i)(−σ_i s)."""
    times = uniform(1.5, 9)
    v, v_next = (EXPLODING.kernel_variance(t) for t in (times[:-1], times[1:]))
    for name, score, squared_noise in [
        ("exponential_integrator", v - v_next, v - v_next),
        ("ancestral", v - v_next, v - v_next),
        ("ancestral_small", v - v_next, (v - v_next) * v_next / v),
        ("ddim", v - np.sqrt(v * v_next), 0 * v),
    ]:
        steps = SCHEMES[name](EXPLODING, times)
        np.testing.assert_allclose(steps.score, score, rtol=1e-12, err_msg=name)
        np.testing.assert_allclose(steps.noise**2, squared_noise, rtol=1e-12, err_msg=name)
    assert_same(
        samplers.ddim(EXPLODING, times, 1.0), SCHEMES["ancestral_small"](EXPLODING, times), 1e-13
    )


@pytest.mark.parametrize("name", OF_VE)
def test_weak_order_on_ve_is_one(name: str) -> None:
    """Towards the exact laws of the backward SDE and of the flow, started at N(0, B(T) I)."""
    law = Gaussian.from_covariance([1.0, -0.5], [[1.0, 0.3], [0.3, 0.2]])
    deterministic = name in ("probability_flow_euler", "ddim")
    limit = laws.probability_flow_limit if deterministic else laws.reverse_sde_limit
    target, score = limit(EXPLODING, law), scores.exact(EXPLODING, law)

    def error(n: int) -> float:
        steps = SCHEMES[name](EXPLODING, uniform(1.5, n))
        output = laws.sampler_law(steps, score, EXPLODING.prior(2))
        gaps = np.concatenate([output.mean - target.mean, output.eigenvalues - target.eigenvalues])
        return float(np.linalg.norm(gaps))

    assert np.log2(error(1000) / error(2000)) == pytest.approx(1.0, abs=0.2)
    assert error(2000) < 0.02


@pytest.mark.parametrize("deterministic", [False, True])
def test_ve_limits_are_conditional_gaussians(deterministic: bool) -> None:
    """The SDE draws X₀ from the posterior of X₀ given X_T = y, y from the prior; the flow
    maps quantiles of p_T to quantiles of the data."""
    mean, variance, v = 0.7, 0.4, EXPLODING.prior_variance
    law, total = Gaussian.diagonal([mean], [variance]), variance + v
    if deterministic:
        found, slope = laws.probability_flow_limit(EXPLODING, law), np.sqrt(variance / total)
        residual = 0.0
    else:
        found, slope = laws.reverse_sde_limit(EXPLODING, law), variance / total
        residual = variance - variance**2 / total
    np.testing.assert_allclose(found.mean, mean + slope * (0 - mean), rtol=1e-12)
    np.testing.assert_allclose(found.eigenvalues, residual + slope**2 * v, rtol=1e-12)


def test_the_modified_score_needs_a_stationary_law() -> None:
    with pytest.raises(ValueError, match=r"process = VEProcess\(.*must have a stationary law"):
        samplers.exponential_integrator_modified(EXPLODING, uniform(1.5, 3))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda vp: samplers.ddim(vp, uniform(1.5, 3), 1.1), "eta = 1.1: must lie"),
        (lambda vp: samplers.ddim(vp, uniform(1.5, 3), np.nan), "eta = nan: must lie"),
        (
            lambda vp: samplers.predictor_corrector(vp, uniform(1.5, 3), -1, 0.1),
            "corrector_steps = -1: must be",
        ),
        (
            lambda vp: samplers.predictor_corrector(vp, uniform(1.5, 3), 1, 0.0),
            "step_size = 0.0: must be",
        ),
        (lambda vp: samplers.ancestral(vp, [1.0]), r"times has shape \(1,\)"),
        (lambda vp: samplers.ancestral(vp, [[1.0, 0.0]]), r"times has shape \(1, 2\)"),
        (lambda vp: samplers.ancestral(vp, [0.0, 1.0]), "times = .*must decrease"),
        (lambda vp: samplers.ancestral(vp, [1.0, -0.1]), "times = .*stay >= 0"),
    ],
)
def test_values_out_of_range_are_named(build: Callable[[VPProcess], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(process())


def test_stages_are_counted_by_steps() -> None:
    vp, times = process(), uniform(1.5, 3)
    steps = samplers.predictor_corrector(vp, times, 2, 0.1)
    assert (len(steps), steps.n_steps, steps.nfe, steps.registers) == (9, 3, 9, 1)
    np.testing.assert_array_equal(steps.score_time[steps.departures], times[:-1])


def test_a_stage_may_evaluate_nothing() -> None:
    """A step departs from its first evaluation, and evaluations are no stages."""
    silent = [np.nan, 1.0, 0.5, np.nan, 0.25, np.nan]
    zeros = np.zeros(6)
    steps = samplers.Steps(silent, zeros + 1, zeros, zeros, starts=np.array([0, 2, 3]))
    assert (len(steps), steps.n_steps, steps.nfe) == (6, 3, 3)
    np.testing.assert_array_equal(steps.departures, [1, 2, 4])


def two_registers(vp: VPProcess, times: Array, by_denoiser: bool) -> samplers.Steps:
    """Two-step Adams-Bashforth of the probability flow in B, and a stage in the last steps only."""
    start, stop = times[:-1, None], times[1:, None]
    step = vp.schedule.integral(start) - vp.schedule.integral(stop)
    ratio = np.append(0.0, step[1:, 0] / step[:-1, 0])[:, None]
    x, saved, s, denoised, z = samplers.symbols(2)
    if by_denoiser:
        m, v = vp.mean_scale(start), vp.kernel_variance(start)
        s = (m * denoised - x) / v
    now = (x / vp.variance + s) / 2
    moved = x + step * ((1 + ratio / 2) * now - ratio / 2 * saved)
    multistep = samplers.Stage(start, x, [moved, now])
    kick = samplers.Stage(None, x, [0.9 * x + 0.1 * z, saved - z], when=stop < 0.5)
    return samplers.program(vp, len(start), [multistep, kick])


def test_a_program_is_a_table_of_its_stages() -> None:
    vp, times = process(), quadratic(1.5, 5)
    steps = two_registers(vp, times, by_denoiser=False)
    late = np.flatnonzero(times[1:] < 0.5)
    assert (steps.n_steps, steps.nfe, len(steps), steps.registers) == (5, 5, 5 + len(late), 2)
    np.testing.assert_array_equal(steps.score_time[steps.departures], times[:-1])
    silent = ~steps.evaluated
    np.testing.assert_allclose(steps.state[silent], [[[0.9, 0], [0, 1]]] * len(late))
    np.testing.assert_allclose(steps.noise[silent], [[0.1, -1]] * len(late))
    b = vp.schedule.integral(times)
    np.testing.assert_allclose(steps.score[0], [(b[0] - b[1]) / 2, 0.5])
    np.testing.assert_allclose(steps.state[0], [[1 + (b[0] - b[1]) / 5, 0], [0.2, 0]])


def test_a_program_of_the_denoiser_is_that_of_the_score() -> None:
    """M = K + c̄ cᵀ/m and g = c̄ v/m."""
    vp, times = process(), quadratic(1.5, 5)
    by_score, by_denoiser = (two_registers(vp, times, by) for by in (False, True))
    for name in ("score_time", "state", "score", "noise", "point", "starts"):
        first, second = getattr(by_score, name), getattr(by_denoiser, name)
        np.testing.assert_allclose(first, second, rtol=1e-11, atol=1e-12, err_msg=name)
    assert np.all(by_denoiser.known)
    np.testing.assert_array_equal(by_score.known, ~by_score.evaluated)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([([1.0], 0, [0, 3])], "stage 0: must have 2 registers, and forms of 5 symbols"),
        ([([1.0], 1, [0, 1]), ([1.0], 0, [0])], "stage 1: must have 2 registers"),
        ([([1.0], 2, [0, 1])], "stage 0: must not use a score before it is evaluated"),
        ([([1.0], 0, [0, 1]), (None, 0, [2, 1])], "stage 1: must not use a score before"),
    ],
)
def test_a_program_of_other_symbols_is_refused(stages: list[tuple[Any, ...]], message: str) -> None:
    forms = np.eye(5)
    if message.startswith("stage 0: must have"):
        forms = np.eye(4)
    with pytest.raises(ValueError, match=message):
        samplers.program(
            process(),
            1,
            [
                samplers.Stage(None if t is None else np.array([t]), forms[at], forms[then])
                for t, at, then in stages
            ],
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"noise": [0.1, -0.1]}, r"noise\[1\] = -0.1: must be a number >= 0"),
        ({"noise": [0.1, np.nan]}, r"noise\[1\] = nan: must be"),
        ({"noise": 0.1}, r"noise has shape \(\): must be \(2,\)"),
        ({"state": [1.0, 1.0, 1.0]}, r"state has shape \(3,\): must be \(2,\)"),
        ({"state": [np.nan, 1.0]}, r"state\[0\] = nan: must be a number"),
        ({"score": ["a", "b"]}, "score = .*: must be an array of real numbers"),
        ({"score": [1j, 1.0]}, "score = .*: must be an array of real numbers"),
        ({"score_time": [1.0, -0.5]}, r"score_time\[1\] = -0.5: must be a number >= 0"),
        ({"score_time": [[1.0, 0.5]]}, r"score_time has shape \(1, 2\): must be \(n_stages,\)"),
        ({"kept": [1.0]}, r"kept has shape \(1,\): must be \(2,\)"),
        (
            {"score_time": [np.nan, 0.5]},
            r"score\[0\] = 1.0: must be 0 in a stage that evaluates no",
        ),
        ({"score_time": [np.inf, 0.5]}, r"score_time\[0\] = inf: must be a number >= 0"),
        ({"point": [[1.0], [np.inf]]}, r"point\[1, 0\] = inf: must be a finite number"),
        ({"point": [1.0, 1.0]}, r"point has shape \(2,\): must be \(2, 1\)"),
        ({"starts": [0, 2]}, "starts: stage 2: must be below 2"),
        ({"starts": [1]}, "starts = .*: must be integers that increase from 0"),
        ({"starts": [0.0, 1.0]}, "starts = .*: must be integers"),
        ({"state": np.ones((2, 3, 3))}, r"score has shape \(2,\): must be \(2, 3\)"),
        ({"state": np.ones((2, 3, 2))}, r"state has shape \(2, 3, 2\): must be \(2, 2, 2\)"),
        (
            {"score_time": [1.0, np.nan], "score": [1.0, 0.0]},
            "starts: step 1 must evaluate the score",
        ),
    ],
)
def test_steps_are_arrays_of_their_stages(changes: dict[str, Any], message: str) -> None:
    given = {"score_time": [1.0, 0.5], "state": [1.0, np.inf], "score": [1.0, 2.0]}
    samplers.Steps(**given, noise=[0.1, 0.0])
    with pytest.raises(ValueError, match=message):
        samplers.Steps(**{**given, "noise": [0.1, 0.0], **changes})
