"""Likelihoods of the probability flow against closed forms, quadrature and autograd."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.integrate import solve_ivp

from sgm import laws, scores, targets
from sgm.architectures import MLP, Mixer
from sgm.densities import GaussianMixture
from sgm.gaussian import Gaussian
from sgm.likelihood import bits_per_dimension, flow_likelihood, network_field, score_field
from sgm.networks import ScoreEnsemble
from sgm.processes import VEProcess, VPProcess
from sgm.schedules import BetaSchedule, GeometricSchedule, TruncatedSchedule

Array = npt.NDArray[np.float64]

PROCESSES = {
    "vp": VPProcess(BetaSchedule(1.0, 2.0, 0.1, 20.0), 2.5),
    "ve": VEProcess(GeometricSchedule(1.0, 0.01, 5.0)),
}
LAW = targets.correlated(4, 1.0, 1.0).law
TIGHT = {"rtol": 1e-9, "atol": 1e-9, "atol_nats": 1e-9, "method": "DOP853"}
NETWORKS = (
    ScoreEnsemble.initial(
        MLP(
            dimension=3,
            width=16,
            layers=2,
            time_width=16,
            time_scale=1.0,
            output="relative",
        ),
        [0, 1],
    )
    .bind(PROCESSES["vp"])
    .to(dtype=torch.float64)
)


@pytest.mark.parametrize("name", PROCESSES)
def test_exact_score_of_a_gaussian_gives_the_flows_law(name: str) -> None:
    process = PROCESSES[name]
    rows = 1.5 * LAW.sample(10, np.random.default_rng(0)).reshape(2, 5, 4)
    found = flow_likelihood(process, score_field(scores.exact(process, LAW)), rows, **TIGHT)
    expected = laws.probability_flow_limit(process, LAW).log_density(rows)
    np.testing.assert_allclose(found.log_likelihood, expected, atol=1e-7)


@pytest.mark.parametrize("name", PROCESSES)
def test_errors_follow_the_tolerance(name: str) -> None:
    process, rows = PROCESSES[name], LAW.sample(10, np.random.default_rng(1))
    expected = laws.probability_flow_limit(process, LAW).log_density(rows)
    field, errors, costs = score_field(scores.exact(process, LAW)), [], []
    for tolerance in (1e-4, 1e-7):
        tolerances = dict.fromkeys(("rtol", "atol", "atol_nats"), tolerance)
        found = flow_likelihood(process, field, rows, **tolerances)
        errors.append(np.max(np.abs(found.log_likelihood - expected)))
        costs.append(found.evaluations)
    assert errors[1] < 1e-5
    assert errors[1] < errors[0] / 50
    assert costs[0] < costs[1]


def test_perturbed_affine_score_with_a_cutoff() -> None:
    """The map of an affine flow is affine: q is Gaussian, of mass one, with its mean where the
    flow from the prior's mean arrives."""
    process, cutoff = PROCESSES["vp"], 0.1
    law = Gaussian.diagonal([1.0], [0.3])
    field = score_field(scores.GaussianScore(process, law, scale=1.2, bias=-0.3))
    x = np.linspace(-1, 3, 9)[:, None]
    found = flow_likelihood(process, field, x, cutoff=cutoff, **TIGHT).log_likelihood
    # a quadratic in x, whose curvature and vertex give a density of mass one
    curvature, slope, constant = np.polyfit(x[:, 0], found, 2)
    np.testing.assert_allclose(np.polyval([curvature, slope, constant], x[:, 0]), found, atol=1e-7)
    variance, center = -1 / (2 * curvature), -slope / (2 * curvature)
    peak = constant - slope**2 / (4 * curvature)
    assert peak == pytest.approx(-0.5 * np.log(2 * np.pi * variance), abs=1e-7)

    score = scores.GaussianScore(process, law, scale=1.2, bias=-0.3)

    def velocity(t: float, state: Array) -> Array:
        return process.drift(t) * state - process.schedule.beta(t) / 2 * score(state[None], t)[0]

    arrived = solve_ivp(velocity, (1.0, cutoff), [0.0], "RK45", rtol=1e-10, atol=1e-12).y[:, -1]
    assert center == pytest.approx(arrived[0], abs=1e-7)


@pytest.mark.parametrize("name", ["vp", "ve"])
def test_flow_of_a_mixture_attains_the_terminal_divergence(name: str) -> None:
    """Mass one, and KL(π_data ‖ q) = KL(p_T ‖ p_noise), by quadrature on the line."""
    law = GaussianMixture([0.3, 0.7], [[1.0], [3.0]], [[0.01], [0.25]])
    process = {
        "vp": VPProcess(TruncatedSchedule(0.6, BetaSchedule(1.0, 0.0, 0.1, 20.0)), 1.0),
        "ve": VEProcess(GeometricSchedule(1.0, 0.01, 5.0)),
    }[name]
    nodes, weights = np.polynomial.legendre.leggauss(8)
    edges = np.concatenate([np.linspace(-3, 0.4, 14), np.linspace(0.4, 1.7, 20)[1:],
                            np.linspace(1.7, 10, 30)[1:]])  # fmt: skip
    half = np.diff(edges)[:, None] / 2
    x = (edges[:-1, None] + half * (1 + nodes)).reshape(-1, 1)
    weights = (half * weights).ravel()
    field = score_field(scores.exact(process, law), difference_step=1e-3)
    tolerances = {"rtol": 1e-7, "atol": 1e-7, "atol_nats": 1e-7, "method": "DOP853"}
    log_q = flow_likelihood(process, field, x, **tolerances).log_likelihood
    assert weights @ np.exp(log_q) == pytest.approx(1.0, abs=1e-6)
    log_p = law.log_density(x)
    ends = (float(f(process.horizon)) for f in (process.mean_scale, process.kernel_variance))
    terminal = law.kl_to_normal(process.prior_variance, *ends)
    assert weights @ (np.exp(log_p) * (log_p - log_q)) == pytest.approx(terminal, abs=1e-6)


def test_differences_give_the_divergence_of_an_affine_score() -> None:
    """Of a mixture of one component, against the closed form."""
    process = PROCESSES["vp"]
    law = GaussianMixture([1.0], [[1.0, -0.5]], [[0.3, 2.0]])
    field = score_field(scores.DensityScore(process, law, 1.3, 0.2), difference_step=1e-2)
    x = np.random.default_rng(2).standard_normal((3, 5, 2))
    score, divergence = field(x, 0.4)
    gaussian = Gaussian.diagonal([1.0, -0.5], [0.3, 2.0])
    expected = score_field(scores.GaussianScore(process, gaussian, 1.3, 0.2))(x, 0.4)
    np.testing.assert_allclose(score, expected[0], rtol=1e-12)
    np.testing.assert_allclose(divergence, expected[1], rtol=1e-10)


def variants() -> Iterator[tuple[str, ScoreEnsemble]]:
    """Every output and both architectures, for a process that has them."""
    plain = NETWORKS.architecture
    mixer = Mixer(
        dimension=4, image_shape=(2, 2), patch=1, channels=16, token_width=16, channel_width=16,
        layers=2, time_width=16, time_scale=1.0, output="preconditioned", data_std=0.6,
    )  # fmt: skip
    yield "relative", NETWORKS
    for output, name in (("score", "vp"), ("noise", "ve"), ("preconditioned", "ve")):
        architecture = replace(plain, output=output, time_input="log_noise")  # type: ignore[call-arg]
        yield output, ScoreEnsemble.initial(architecture, [0, 1]).bind(PROCESSES[name])
    yield "mixer", ScoreEnsemble.initial(mixer, [0, 1]).bind(PROCESSES["ve"])


VARIANTS = {name: networks.to(dtype=torch.float64) for name, networks in variants()}


@pytest.mark.parametrize("networks", VARIANTS.values(), ids=VARIANTS)
def test_divergence_of_networks_is_the_trace_of_autograds_jacobian(networks: ScoreEnsemble) -> None:
    x = np.random.default_rng(3).standard_normal((2, 4, networks.architecture.dimension))
    score, divergence = network_field(networks)(x, 0.3)
    np.testing.assert_array_equal(score[:, :1], networks(torch.as_tensor(x), 0.3)[:, :1].numpy())
    for r, i in np.ndindex(2, 4):
        point = torch.as_tensor(x[r, i])

        def value(y: torch.Tensor, r: int = r) -> torch.Tensor:
            return networks[slice(r, r + 1)](y[None, None], 0.3)[0, 0]

        jacobian = torch.autograd.functional.jacobian(value, point)
        assert divergence[r, i] == pytest.approx(float(jacobian.trace()), rel=1e-10)


@pytest.mark.parametrize("name", ["noise", "preconditioned", "mixer"])
def test_networks_that_divide_by_the_noise_need_a_cutoff(name: str) -> None:
    networks = VARIANTS[name]
    rows = np.random.default_rng(6).standard_normal((2, 2, networks.architecture.dimension))
    tolerances = {"rtol": 1e-3, "atol": 1e-3, "atol_nats": 1e-2}
    with pytest.raises(ValueError, match=r"^t = 0\.0: must be positive"):
        flow_likelihood(PROCESSES["ve"], network_field(networks), rows, **tolerances)
    found = flow_likelihood(
        PROCESSES["ve"], network_field(networks), rows, **tolerances, cutoff=1e-4
    )
    assert np.all(np.isfinite(found.log_likelihood))


def test_the_flow_of_no_output_is_the_gaussians() -> None:
    """Weights of zero leave −x/V, the score of N(0, s_d² I): log q is then a closed form."""
    process, cutoff = PROCESSES["ve"], 1e-5
    networks = VARIANTS["mixer"]
    empty = {key: torch.zeros_like(weight) for key, weight in networks.weights.items()}
    field = network_field(ScoreEnsemble(networks.architecture, empty, process))
    rows = np.random.default_rng(7).standard_normal((2, 3, 4))
    found = flow_likelihood(process, field, rows, **TIGHT, cutoff=cutoff)
    law = Gaussian.diagonal(np.zeros(4), np.full(4, 0.6**2))
    flow = flow_likelihood(
        process, score_field(scores.exact(process, law)), rows, **TIGHT, cutoff=cutoff
    )
    np.testing.assert_allclose(found.log_likelihood, flow.log_likelihood, atol=1e-7)
    expected = laws.probability_flow_limit(process, law).log_density(rows)
    np.testing.assert_allclose(found.log_likelihood, expected, atol=1e-3)  # a cutoff apart


def test_hutchinson_is_unbiased() -> None:
    """Over all 2³ sign vectors the mean is the trace; one alone is not."""
    x = np.random.default_rng(4).standard_normal((2, 5, 3))
    _, exact = network_field(NETWORKS)(x, 0.3)
    cube = np.stack(np.meshgrid(*[[-1.0, 1.0]] * 3), axis=-1).reshape(8, 1, 1, 3)
    signs = np.broadcast_to(cube, (8, *x.shape))
    _, mean = network_field(NETWORKS, signs=signs)(x, 0.3)
    np.testing.assert_allclose(mean, exact, rtol=1e-10)
    _, one = network_field(NETWORKS, signs=signs[:1])(x, 0.3)
    assert np.max(np.abs(one - exact)) > 1e-3


def test_replicates_of_networks_flow_apart() -> None:
    process, rows = PROCESSES["vp"], np.random.default_rng(5).standard_normal((2, 3, 3))
    tolerances = {"rtol": 1e-5, "atol": 1e-5, "atol_nats": 3e-3}
    both = flow_likelihood(process, network_field(NETWORKS), rows, **tolerances)
    for r in range(2):
        alone = flow_likelihood(
            process, network_field(NETWORKS[slice(r, r + 1)]), rows[r : r + 1], **tolerances
        )
        # the steps are chosen for all rows together, and ReLU's jumps cost 0.02 nats each
        np.testing.assert_allclose(alone.log_likelihood[0], both.log_likelihood[r], atol=0.2)
    assert np.max(np.abs(both.log_likelihood[0] - both.log_likelihood[1])) > 0.2


def test_bits_per_dimension_of_uniform_rows() -> None:
    """Levels drawn uniformly cost log₂ levels, in any units; [−1, 1] at 256 has offset 7."""
    d = 5
    for span in (1.0, 2.0, 16.0):
        log_q = -d * np.log(span)
        assert bits_per_dimension(log_q, d, 16, span=span) == pytest.approx(4.0)
    assert bits_per_dimension(0.0, d, 256, span=2.0) == pytest.approx(7.0)
    halved = bits_per_dimension([0.0, d * np.log(2)], d, 256, span=2.0)
    np.testing.assert_allclose(halved, [7.0, 6.0])


def test_bits_of_dequantised_rows_are_at_least_those_of_the_bins() -> None:
    """Mean over uniform dequantisation, by quadrature, against the bins' probabilities."""
    from scipy.special import ndtr

    edges = np.linspace(-4, 4, 9)
    probability = np.diff(ndtr(edges))
    nodes, weights = np.polynomial.legendre.leggauss(20)
    x = edges[:-1, None] + (1 + nodes) / 2
    log_q = -(x**2) / 2 - np.log(2 * np.pi) / 2
    bits = bits_per_dimension(log_q, 1, 8, span=8.0) @ weights / 2
    assert np.all(bits > -np.log2(probability))
    np.testing.assert_allclose(bits[3:5], -np.log2(probability[3:5]), rtol=0.05)


FIELD = score_field(scores.exact(PROCESSES["vp"], LAW))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: bits_per_dimension(0.0, 0, 16, span=1.0), "dimension = 0: must"),
        (lambda: bits_per_dimension(0.0, 1, 1, span=1.0), "levels = 1: must"),
        (lambda: bits_per_dimension(0.0, 1, 16, span=0.0), "span = 0.0: must"),
        (
            lambda: score_field(scores.DensityScore(PROCESSES["vp"], LAW)),
            "difference_step = None: must",
        ),
        (
            lambda: flow_likelihood(
                PROCESSES["vp"], FIELD, np.zeros((1, 4)), **(TIGHT | {"atol": 0.0})
            ),
            "atol = 0.0: must",
        ),
        (
            lambda: flow_likelihood(PROCESSES["vp"], FIELD, np.zeros((1, 4)), **TIGHT, cutoff=1.0),
            "cutoff = 1.0: must lie",
        ),
    ],
)
def test_values_out_of_range_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
