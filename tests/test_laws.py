"""Exact laws against full-matrix recursions, simulation and the limit of small steps."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from mpmath import mp, mpf
from scipy.integrate import solve_ivp

from sgm import laws, samplers, scores, targets
from sgm.gaussian import Gaussian, kl_divergence, wasserstein2
from sgm.processes import VPProcess
from sgm.schedules import BetaSchedule, ConstantSchedule, CosineSchedule
from sgm.timegrids import quadratic, uniform

Array = npt.NDArray[np.float64]

STOCHASTIC = {
    "exponential_integrator_modified": samplers.exponential_integrator_modified,
    "exponential_integrator": samplers.exponential_integrator,
    "euler_maruyama": samplers.euler_maruyama,
    "euler_arrival": samplers.euler_arrival,
    "ancestral": samplers.ancestral,
    "ancestral_small": samplers.ancestral_small,
}
DETERMINISTIC = {
    "probability_flow_euler": samplers.probability_flow_euler,
    "ddim": samplers.ddim,
}
SCHEMES = {
    **STOCHASTIC,
    **DETERMINISTIC,
    "predictor_corrector": lambda vp, times: samplers.predictor_corrector(vp, times, 2, 0.01),
}
CORRELATED = targets.correlated(4, 1.0, 1.0).law
DIAGONAL = Gaussian.diagonal([1.0, -1.0, 0.5, 0.0], [0.1, 1.0, 10.0, 0.5])


def process(variance: float = 2.5, a: float = 2.0) -> VPProcess:
    return VPProcess(BetaSchedule(1.0, a, 0.1, 20.0), variance)


def matrix_recursion(
    steps: samplers.Steps, vp: VPProcess, law: Gaussian, scale: float, bias: float, prior: Gaussian
) -> tuple[Array, Array]:
    """Mean and covariance of all registers together, by inverses of full covariance matrices."""
    n, r, d = len(steps), steps.registers, law.dimension
    mean, covariance = np.zeros(r * d), np.zeros((r * d, r * d))
    mean[:d], covariance[:d, :d] = prior.mean, prior.covariance
    eye = np.eye(d)
    for k in range(n):
        move = np.kron(steps.state.reshape(n, r, r)[k], eye)
        gain, noise = (
            np.kron(part.reshape(n, r)[k][:, None], eye) for part in (steps.score, steps.noise)
        )
        shift = np.zeros(r * d)
        if steps.evaluated[k]:
            tau = steps.score_time[k]
            m, v = float(vp.mean_scale(tau)), float(vp.kernel_variance(tau))
            precision = np.linalg.inv(m**2 * law.covariance + v * eye)
            move = move - gain @ (scale * precision) @ np.kron(steps.point[k][None], eye)
            shift = gain @ (scale * precision @ (m * law.mean) + bias * np.ones(d))
        mean = move @ mean + shift
        covariance = move @ covariance @ move.T + noise @ noise.T
    return mean[:d], covariance[:d, :d]


def random_program(n: int, r: int, seed: int) -> samplers.Steps:
    """A scheme that means nothing, but has every kind of stage."""
    rng = np.random.default_rng(seed)
    score_time = rng.uniform(0.05, 1.0, n)
    score_time[1:][rng.uniform(size=n - 1) < 0.3] = np.nan
    evaluated = ~np.isnan(score_time)
    noise = rng.standard_normal((n, r)) * (rng.uniform(size=(n, 1)) < 0.5)
    noise = abs(noise) if r == 1 else noise
    return samplers.Steps(
        score_time,
        rng.standard_normal((n, r, r)) / np.sqrt(r),
        0.3 * rng.standard_normal((n, r)) * evaluated[:, None],
        noise,
        point=rng.standard_normal((n, r)),
        starts=np.flatnonzero(evaluated & (np.cumsum(evaluated) % 2 == 1)),
    )


@pytest.mark.parametrize("law", [CORRELATED, DIAGONAL], ids=["correlated", "diagonal"])
@pytest.mark.parametrize("registers", [1, 2, 4])
def test_law_of_registers_matches_an_independent_matrix_recursion(
    registers: int, law: Gaussian
) -> None:
    vp, score = process(), scores.GaussianScore(process(), law, scale=1.1, bias=-0.2)
    for seed in range(5):
        steps = random_program(12, registers, seed)
        if registers == 1:
            steps = replace(
                steps, state=steps.state[:, 0, 0], score=steps.score[:, 0],
                noise=steps.noise[:, 0], kept=np.nan, denoiser=np.nan,
            )  # fmt: skip
        found = laws.sampler_law(steps, score, vp.prior(4))
        mean, covariance = matrix_recursion(steps, vp, law, 1.1, -0.2, vp.prior(4))
        np.testing.assert_allclose(found.mean, mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.covariance, covariance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("registers", [2, 4])
def test_laws_of_the_points_are_those_of_runs_that_end_there(registers: int) -> None:
    """A run to stage k, and then the point as the sample."""
    vp, score = process(), scores.biased(process(), CORRELATED, 0.3)
    steps = random_program(9, registers, 3)
    chain = laws.chain_laws(steps, score, vp.prior(4))
    error = laws.chain_error(steps, score, CORRELATED, vp.prior(4))
    np.testing.assert_array_equal(np.isnan(error), ~steps.evaluated)
    for k in np.flatnonzero(steps.evaluated):
        head = np.arange(k + 1)
        state, gain, noise = steps.state[head], steps.score[head], steps.noise[head]
        state[-1], gain[-1], noise[-1] = 0.0, 0.0, 0.0
        state[-1, 0] = steps.point[k]
        ending = samplers.Steps(
            steps.score_time[head], state, gain, noise, point=steps.point[head],
            starts=np.array([0]),
        )  # fmt: skip
        mean, covariance = matrix_recursion(ending, vp, CORRELATED, 1.0, 0.3, vp.prior(4))
        np.testing.assert_allclose(chain.mean[k], mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(chain.covariance[k], covariance, rtol=1e-9, atol=1e-12)
        # s + 0.3 (1, …, 1)
        assert error[k] == pytest.approx(4 * 0.3**2, rel=1e-12)


@pytest.mark.parametrize("law", [CORRELATED, DIAGONAL], ids=["correlated", "diagonal"])
@pytest.mark.parametrize("name", SCHEMES)
def test_law_matches_an_independent_matrix_recursion(name: str, law: Gaussian) -> None:
    vp = VPProcess(CosineSchedule(1.0, 2.5, 0.008, 20.0), 2.5)
    score = scores.GaussianScore(vp, law, scale=1.1, bias=-0.2)
    for times in (uniform(1.0, 30), quadratic(1.0, 7)):
        steps = SCHEMES[name](vp, times)
        found = laws.sampler_law(steps, score, vp.prior(4))
        mean, covariance = matrix_recursion(steps, vp, law, 1.1, -0.2, vp.prior(4))
        np.testing.assert_allclose(found.mean, mean, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(found.covariance, covariance, rtol=1e-10, atol=1e-12)


def test_law_matches_a_simulation() -> None:
    vp, n = process(), 40_000
    score = scores.biased(vp, CORRELATED, 0.3)
    steps, rng = samplers.exponential_integrator(vp, uniform(1.0, 12)), np.random.default_rng(0)
    x = vp.prior(4).sample(n, rng)
    stages = zip(steps.score_time, steps.state, steps.score, steps.noise, strict=True)
    for tau, alpha, gamma, rho in stages:
        x = alpha * x + gamma * score(x, tau) + rho * rng.standard_normal(x.shape)
    law = laws.sampler_law(steps, score, vp.prior(4))
    whitened = law.rotate(x - law.mean) / np.sqrt(law.eigenvalues)
    assert np.max(np.abs(whitened.mean(axis=0))) < 4.5 / np.sqrt(n)
    assert np.max(np.abs(np.cov(whitened, rowvar=False) - np.eye(4))) < 4.5 * np.sqrt(2 / n)


@pytest.mark.parametrize("grid", [uniform, quadratic])
@pytest.mark.parametrize("name", [*STOCHASTIC, *DETERMINISTIC])
def test_weak_order_is_one(name: str, grid: Callable[[float, int], Array]) -> None:
    """Mean and variances approach the law of the continuous process at rate 1/N."""
    vp, scheme = process(), SCHEMES[name]
    limit = laws.reverse_sde_limit if name in STOCHASTIC else laws.probability_flow_limit
    target, score = limit(vp, CORRELATED), scores.exact(vp, CORRELATED)

    def error(n: int) -> float:
        law = laws.sampler_law(scheme(vp, grid(1.0, n)), score, vp.prior(4))
        gaps = np.concatenate([law.mean - target.mean, law.eigenvalues - target.eigenvalues])
        return float(np.linalg.norm(gaps))

    order = np.log2(error(2000) / error(4000))
    assert order == pytest.approx(1.0, abs=0.2)
    assert error(4000) < 0.02


@pytest.mark.parametrize("variance", [0.5, 1.0, 4.0])
def test_limits_solve_the_backward_equations(variance: float) -> None:
    """Against the moment equations of the SDE and of the flow, integrated numerically."""
    vp = process(variance, a=-3.0)
    lam, mu = DIAGONAL.eigenvalues, DIAGONAL.mean

    def slope(elapsed: float, state: Array, noise: bool) -> Array:
        mean, var = state.reshape(2, 4)
        t = max(1.0 - elapsed, 0.0)
        m, v, beta = vp.mean_scale(t), vp.kernel_variance(t), vp.schedule.beta(t)
        precision = 1 / (m**2 * lam + v)
        weight = 1.0 if noise else 0.5
        gain = beta * (1 / (2 * variance) - weight * precision)
        pull = weight * beta * precision * m * mu
        return np.concatenate([gain * mean + pull, 2 * gain * var + noise * beta])

    start = np.repeat([0.0, variance], 4)
    for noise, limit in [(1.0, laws.reverse_sde_limit), (0.0, laws.probability_flow_limit)]:
        solved = solve_ivp(
            slope, (0, 1), start, args=(noise,), method="DOP853", rtol=1e-10, atol=1e-12
        )
        found = limit(vp, DIAGONAL)
        np.testing.assert_allclose(found.mean, solved.y[:4, -1], rtol=1e-7, atol=1e-9)
        np.testing.assert_allclose(found.eigenvalues, solved.y[4:, -1], rtol=1e-7)


def test_started_at_the_marginal_the_limit_is_the_data() -> None:
    """A long horizon forgets the start: both limits tend to the data's law."""
    vp = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 200.0), 1.0)
    for limit in (laws.reverse_sde_limit, laws.probability_flow_limit):
        assert kl_divergence(CORRELATED, limit(vp, CORRELATED)) < 1e-20


def test_many_steps_underflow_quietly() -> None:
    vp = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 2000.0), 0.5)
    for scheme in SCHEMES.values():
        steps = scheme(vp, uniform(1.0, 20_000))
        law = laws.sampler_law(steps, scores.exact(vp, DIAGONAL), vp.prior(4))
        assert np.all(np.isfinite(law.eigenvalues))
        assert kl_divergence(DIAGONAL, law) < 1


def test_an_unstable_step_size_gives_an_infinite_law_without_nan() -> None:
    vp = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0), 0.002)
    target = targets.isotropic(4, 1.0, 0.002).law
    steps = samplers.exponential_integrator(vp, uniform(1.0, 500))
    law = laws.sampler_law(steps, scores.exact(vp, target), vp.prior(4))
    assert np.all(law.eigenvalues == np.inf)
    assert kl_divergence(target, law) == np.inf
    assert wasserstein2(target, law) == np.inf


def test_overflow_of_a_suffix_alone_falls_back_to_the_recursion() -> None:
    """A stage with P = 0 forgets what came before, however large the products are."""
    vp, n = process(1.0, 0.0), 400
    score = scores.exact(vp, Gaussian.diagonal([0.0], [1.0]))
    # with the score −x: P = α − γ; the first stage has P = 0 and no noise, the rest P = 10
    gamma = np.zeros(n)
    gamma[0] = 1.0
    alpha = np.full(n, 10.0)
    alpha[0] = 1.0
    law = laws.sampler_law(
        samplers.Steps(np.full(n, 0.5), alpha, gamma, np.zeros(n)), score, vp.prior(1)
    )
    assert law.mean == 0
    assert law.eigenvalues == 0


def test_prior_must_be_isotropic() -> None:
    vp = process()
    steps = samplers.ancestral(vp, uniform(1.0, 3))
    with pytest.raises(ValueError, match="prior must be isotropic"):
        laws.sampler_law(steps, scores.exact(vp, DIAGONAL), DIAGONAL)


VP, STEPS = process(), samplers.ancestral(process(), uniform(1.0, 3))
SCORE = scores.exact(VP, DIAGONAL)
PAIR, BATCH = VP.prior(2), Gaussian(np.zeros((3, 4)), np.ones((3, 4)), np.eye(4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: laws.sampler_law(STEPS, SCORE, PAIR), "prior: dimension = 2: must be 4, that of"),
        (lambda: laws.sampler_law(STEPS, SCORE, BATCH), r"prior has batch shape \(3,\): must be"),
        (
            lambda: laws.sampler_law(STEPS, DIAGONAL, DIAGONAL),
            "score = Gaussian: must be a Gaussia",
        ),
        (lambda: laws.sampler_law(0.1, SCORE, VP.prior(4)), "steps = 0.1: must be a Steps"),
        (lambda: laws.chain_laws(STEPS, SCORE, PAIR), "prior: dimension = 2: must be 4"),
        (lambda: laws.chain_laws(STEPS, SCORE, BATCH), r"prior has batch shape \(3,\)"),
        (
            lambda: laws.chain_error(STEPS, SCORE, PAIR, VP.prior(4)),
            "law: dimension = 2: must be 4",
        ),
        (lambda: laws.chain_error(STEPS, SCORE, BATCH, VP.prior(4)), r"law has batch shape \(3,\)"),
        (lambda: laws.reverse_sde_limit(VP, BATCH), r"law has batch shape \(3,\)"),
        (lambda: laws.probability_flow_limit(VP, "law"), "law = 'law': must be a Gaussian"),
        (lambda: laws.probability_flow_limit(None, DIAGONAL), "process = None: must be a Process"),
    ],
)
def test_what_is_no_law_or_of_another_dimension_is_refused(
    call: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_prior_with_a_mean_is_carried() -> None:
    vp, law = process(), CORRELATED
    prior = Gaussian(np.array([1.0, 2.0, 3.0, 4.0]), np.full(4, 2.5), np.eye(4))
    steps = samplers.ddim(vp, uniform(1.0, 3))
    found = laws.sampler_law(steps, scores.exact(vp, law), prior)
    mean, _ = matrix_recursion(steps, vp, law, 1.0, 0.0, prior)
    np.testing.assert_allclose(found.mean, mean, rtol=1e-11)


@pytest.mark.parametrize("name", SCHEMES)
def test_chain_laws_are_those_of_shorter_runs(name: str) -> None:
    """The law before stage k is the output's law after the first k stages, and the prior's."""
    vp, score = process(), scores.biased(process(), CORRELATED, 0.3)
    steps = SCHEMES[name](vp, quadratic(1.0, 6))
    chain = laws.chain_laws(steps, score, vp.prior(4))
    assert chain.mean.shape == chain.eigenvalues.shape == (len(steps), 4)
    np.testing.assert_allclose(chain.mean[0], 0, atol=1e-15)
    np.testing.assert_allclose(chain.eigenvalues[0], 2.5)
    for k in range(1, len(steps)):
        named = ("score_time", "state", "score", "noise", "kept", "denoiser", "point")
        first = samplers.Steps(*(getattr(steps, field)[:k] for field in named))
        shorter = laws.sampler_law(first, score, vp.prior(4))
        np.testing.assert_allclose(chain.mean[k], shorter.mean, rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(chain.eigenvalues[k], shorter.eigenvalues, rtol=1e-11)


@pytest.mark.parametrize(
    ("believed", "true"),
    [(CORRELATED, CORRELATED), (CORRELATED, DIAGONAL), (DIAGONAL, CORRELATED)],
    ids=["same basis", "correlated", "diagonal"],
)
def test_chain_error_matches_full_matrices(believed: Gaussian, true: Gaussian) -> None:
    """E|Gx + g|² = tr(G C Gᵀ) + |G c + g|², G and g by evaluating both scores."""
    vp = process(a=-1.0)
    score = scores.GaussianScore(vp, believed, scale=1.1, bias=-0.2)
    steps = samplers.exponential_integrator_modified(vp, uniform(1.0, 9))
    found = laws.chain_error(steps, score, true, vp.prior(4))
    chain, exact = laws.chain_laws(steps, score, vp.prior(4)), scores.exact(vp, true)
    for k, tau in enumerate(steps.score_time):
        g = (score(np.zeros((1, 4)), tau) - exact(np.zeros((1, 4)), tau))[0]
        matrix = (score(np.eye(4), tau) - exact(np.eye(4), tau) - g).T
        spread = np.trace(matrix @ chain.covariance[k] @ matrix.T)
        expected = spread + np.sum((matrix @ chain.mean[k] + g) ** 2)
        assert found[k] == pytest.approx(expected, rel=1e-10)


def test_chain_error_matches_a_simulation() -> None:
    """Within 4.5 standard errors of the mean of |s_θ − s|² over 40 000 chains."""
    vp, n, rng = process(), 40_000, np.random.default_rng(1)
    score, exact = scores.plugin(vp, CORRELATED, 0.3), scores.exact(vp, CORRELATED)
    steps = samplers.exponential_integrator_modified(vp, uniform(1.0, 8))
    expected = laws.chain_error(steps, score, CORRELATED, vp.prior(4))
    x = vp.prior(4).sample(n, rng)
    stages = zip(steps.score_time, steps.state, steps.score, steps.noise, strict=True)
    for k, (tau, alpha, gamma, rho) in enumerate(stages):
        squares = np.sum((score(x, tau) - exact(x, tau)) ** 2, axis=1)
        assert squares.mean() == pytest.approx(expected[k], abs=4.5 * squares.std() / np.sqrt(n))
        x = alpha * x + gamma * score(x, tau) + rho * rng.standard_normal(x.shape)


def test_the_chain_follows_the_forward_process_as_steps_shrink() -> None:
    """With a long horizon the errors along both agree; the exact score has none."""
    vp = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 60.0), 1.0)
    # an error that vanishes leaves the chain on the forward process
    score, times = scores.scaled(vp, CORRELATED, 1e-4), uniform(1.0, 4000)
    steps = samplers.exponential_integrator_modified(vp, times)
    generated = laws.chain_error(steps, score, CORRELATED, vp.prior(4))
    forward, _ = score.error_moments(CORRELATED, times[:-1])
    np.testing.assert_allclose(generated, forward, rtol=2e-2)
    exact = laws.chain_error(steps, scores.exact(vp, CORRELATED), CORRELATED, vp.prior(4))
    assert np.all(exact == 0)


def test_a_chain_that_overflows_has_an_infinite_error() -> None:
    vp = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0), 0.002)
    target = targets.isotropic(4, 1.0, 0.002).law
    steps = samplers.exponential_integrator(vp, uniform(1.0, 500))
    error = laws.chain_error(steps, scores.scaled(vp, target, 0.5), target, vp.prior(4))
    assert np.isfinite(error[0])
    assert error[-1] == np.inf
    lost = ~np.isfinite(laws.chain_laws(steps, scores.exact(vp, target), vp.prior(4)).mean)
    assert np.all(np.diff(lost.astype(int), axis=0) >= 0)


def in_many_digits(
    name: str, rate: float, variance: float, times: Array, spread: float, center: float
) -> tuple[float, float]:
    """Mean and variance of the output on the line, stage by stage as the papers print it."""
    mp.dps = 60 + int(rate / variance)  # P loses e^{2h}
    sigma, beta = mpf(variance), mpf(rate)
    mean, output = mpf(0), sigma
    for start, stop in zip(map(mpf, times[:-1]), map(mpf, times[1:]), strict=True):
        h, step = beta * (start - stop) / (2 * sigma), beta * (start - stop)
        growth, decay = mp.exp(h), mp.exp(-h)
        v, v_next = (-sigma * mp.expm1(-beta * t / sigma) for t in (start, stop))
        match name:
            case "exponential_integrator_modified":
                stages = [(2 - decay, 2 * sigma * (1 - decay), sigma * (1 - decay**2), start)]
            case "exponential_integrator":
                stages = [(growth, 2 * sigma * (growth - 1), sigma * (growth**2 - 1), start)]
            case "euler_maruyama":
                stages = [(1 + step / (2 * sigma), step, step, start)]
            case "euler_arrival":
                stages = [(1 + step / (2 * sigma), step, step, stop)]
            case "probability_flow_euler":
                stages = [(1 + step / (2 * sigma), step / 2, mpf(0), start)]
            case "ancestral":
                stages = [(growth, 2 * sigma * mp.sinh(h), sigma * (1 - decay**2), start)]
            case "ancestral_small":
                noise = sigma * (1 - decay**2) * v_next / v
                stages = [(growth, 2 * sigma * mp.sinh(h), noise, start)]
            case "ddim":
                stages = [(growth, growth * v - mp.sqrt(v * v_next), mpf(0), start)]
            case "predictor_corrector":
                stages = [(1 + step / (2 * sigma), step, step, start)]
                stages += 2 * [(mpf(1), mpf(0.01), 2 * mpf(0.01), stop)]
        for alpha, gamma, noise, t in stages:
            m = mp.exp(-beta * t / (2 * sigma))
            total = m**2 * mpf(spread) - sigma * mp.expm1(-beta * t / sigma)
            factor = alpha - gamma / total
            mean = factor * mean + gamma * m * mpf(center) / total
            output = factor**2 * output + noise
    return mean, output


@pytest.mark.parametrize("name", SCHEMES)
def test_laws_keep_their_digits_at_the_edges(name: str) -> None:
    """Against 60 digits: σ² and β over decades, few and many steps, narrow and wide data.

    σ² = ¼, β = 20 in one step had variance 256 with the ancestral sampler, for ¼.
    """
    rng = np.random.default_rng(1)
    cases = [(0.25, 20.0, 1, 0.5), (1e-2, 4.0, 1, 1e6), (1e4, 1e3, 3, 1e-6)]
    cases += [
        (10.0 ** rng.uniform(-2, 4), 10.0 ** rng.uniform(-2, 1), n, 10.0 ** rng.uniform(-6, 6))
        for n in (1, 2, 5, 30)
    ]
    for variance, rate, n, spread in cases:
        vp = VPProcess(ConstantSchedule(1.0, rate), variance)
        law, times = Gaussian.diagonal([-3.0], [spread]), quadratic(1.0, n)
        found = laws.sampler_law(SCHEMES[name](vp, times), scores.exact(vp, law), vp.prior(1))
        mean, output = in_many_digits(name, rate, variance, times, spread, -3.0)
        if output > 1e300:
            assert found.eigenvalues[0] == np.inf
            continue
        assert found.eigenvalues[0] == pytest.approx(float(output), rel=1e-10)
        assert found.mean[0] == pytest.approx(
            float(mean), rel=1e-9, abs=1e-12 * float(output) ** 0.5
        )
        ratio = mpf(spread) / output
        kl = (ratio - 1 - mp.log(ratio) + (mean + 3) ** 2 / output) / 2
        if kl < 1e300:
            assert kl_divergence(law, found) == pytest.approx(float(kl), rel=1e-7)


@pytest.mark.parametrize("name", ["ancestral", "ancestral_small", "ddim"])
def test_one_step_from_pure_noise_onto_the_data(name: str) -> None:
    """h = 10⁶: eʰ is no number, but the output is E X₀, with noise or without."""
    vp, law = VPProcess(ConstantSchedule(1.0, 200.0), 1e-4), Gaussian.diagonal([2.0], [0.5])
    found = laws.sampler_law(SCHEMES[name](vp, [1.0, 0.0]), scores.exact(vp, law), vp.prior(1))
    assert found.mean[0] == pytest.approx(2.0, rel=1e-14)
    noise = 0.0 if name in ("ancestral_small", "ddim") else 1e-4
    assert found.eigenvalues[0] == pytest.approx(noise, rel=1e-12)


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (1.3, -0.4)])
def test_a_perturbed_denoiser_is_that_of_its_score(scale: float, bias: float) -> None:
    vp = process()
    score, t = scores.GaussianScore(vp, CORRELATED, scale, bias), np.array([0.01, 0.4, 1.0])
    slope, offset, error_slope, error_offset = score.denoiser(t)
    plain_slope, plain_offset = score.coefficients(t)
    m, v = vp.mean_scale(t)[:, None], vp.kernel_variance(t)[:, None]
    slope, offset = slope + v / m * error_slope, offset + v / m * error_offset
    np.testing.assert_allclose(slope, (1 + v * plain_slope) / m, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(offset, v * plain_offset / m, rtol=1e-11)


@pytest.mark.parametrize(("scale", "bias"), [(1.1, 0.0), (0.3, 0.2)])
@pytest.mark.parametrize("variance", [0.004, 0.02, 1.0])
def test_a_perturbed_score_over_a_huge_step_keeps_its_law(
    variance: float, scale: float, bias: float
) -> None:
    """h up to 1250, where m underflows and v/m overflows: against 60 digits."""
    vp, times = VPProcess(ConstantSchedule(1.0, 10.0), variance), uniform(1.0, 3)
    law = Gaussian.diagonal([0.2], [0.01])
    score = scores.GaussianScore(vp, law, scale, bias)
    steps = samplers.exponential_integrator_modified(vp, times)
    found = laws.sampler_law(steps, score, vp.prior(1))
    mp.dps = 60
    sigma, mean, output = mpf(variance), mpf(0), mpf(variance)
    for start, stop in zip(map(mpf, times[:-1]), map(mpf, times[1:]), strict=True):
        decay, m = mp.exp(-5 * (start - stop) / sigma), mp.exp(-5 * start / sigma)
        total, gamma = m**2 * mpf(0.01) + sigma * (1 - m**2), 2 * sigma * (1 - decay)
        factor = 2 - decay - gamma * mpf(scale) / total
        mean = factor * mean + gamma * (mpf(scale) * m * mpf(0.2) / total + mpf(bias))
        output = factor**2 * output + sigma * (1 - decay**2)
    assert found.mean[0] == pytest.approx(float(mean), rel=1e-11)
    assert found.eigenvalues[0] == pytest.approx(float(output), rel=1e-11)
