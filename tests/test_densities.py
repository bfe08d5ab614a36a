"""Laws against finite differences, brute-force quadrature, Monte Carlo and closed forms."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import log_ndtr, ndtr
from scipy.stats import norm

from sgm.densities import Affine, Funnel, GaussianMixture, Law, Product
from sgm.densities.quadrature import DecayCurve, gaussian_panels
from sgm.gaussian import Gaussian
from sgm.processes import VPProcess
from sgm.schedules import BetaSchedule

Array = npt.NDArray[np.float64]

TWO_MODES = GaussianMixture([0.3, 0.7], [[1.0], [3.0]], [[0.01], [0.25]])
PLANE = GaussianMixture(
    [0.2, 0.5, 0.3],
    [[0.0, 1.0], [2.0, -1.0], [-1.0, 0.5]],
    [[0.1, 0.2], [0.3, 0.05], [0.2, 0.2]],
)
COMB = GaussianMixture(np.full(5, 0.2), np.arange(-2.0, 3.0)[:, None], np.full((5, 1), 0.01))
GRID = Product((COMB, COMB, Gaussian.diagonal(np.zeros(3), np.full(3, 0.1))))
FUNNEL = Funnel(4)
TILTED = Gaussian.from_covariance([0.5, -1.0], [[1.0, 0.6], [0.6, 0.7]])
LAWS = {
    "gaussian": TILTED,
    "two modes": TWO_MODES,
    "plane": PLANE,
    "funnel": FUNNEL,
    "wide funnel": Funnel(3, 0.7, 0.8),
    "product": Product((TWO_MODES, TILTED, Funnel(2))),
    "affine funnel": Affine(FUNNEL, np.array([0.5, 0.0, -1.0, 2.0]), 1.7),
    "affine plane": Affine(PLANE, PLANE.mean, 0.6),
}
NOISES = [(1.0, 0.0), (0.8, 0.3), (0.2, 2.0)]
every_law = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())
every_noise = pytest.mark.parametrize(("scale", "variance"), NOISES)


def draw(law: Law, scale: float, variance: float, n: int, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return scale * law.sample(n, rng) + np.sqrt(variance) * rng.standard_normal((n, law.dimension))


def assert_mean(value: npt.ArrayLike, draws: npt.ArrayLike, sigmas: float = 4.5) -> None:
    """`value` is the expectation of which `draws` are independent draws."""
    error = np.std(draws, axis=0) / np.sqrt(len(draws))
    gap = np.abs(np.mean(draws, axis=0) - value)
    assert np.all(gap <= sigmas * error + 1e-12 * np.abs(value)), (gap / error).max()


def log_normal(x: Array, variance: float) -> Array:
    d = x.shape[-1]
    return -0.5 * (np.sum(x**2, axis=-1) / variance + d * np.log(2 * np.pi * variance))


@every_law
@every_noise
def test_the_score_is_the_gradient_of_the_log_density(
    law: Law, scale: float, variance: float
) -> None:
    x, h = draw(law, scale, variance, 40), 1e-5
    gradient = np.stack(
        [
            law.log_density(x + h * e, scale, variance)
            - law.log_density(x - h * e, scale, variance)
            for e in np.eye(law.dimension)
        ],
        axis=-1,
    )
    score = law.score(x, scale, variance)
    np.testing.assert_allclose(score, gradient / (2 * h), rtol=1e-5, atol=1e-5)


@every_law
def test_noising_is_a_convolution(law: Law) -> None:
    """p_Y(y) = E N(y; m X, v)."""
    scale, variance = 0.8, 0.3
    x = law.sample(400_000, np.random.default_rng(1))
    for y in draw(law, scale, variance, 3):
        kernel = np.exp(log_normal(y - scale * x, variance))
        assert_mean(np.exp(law.log_density(y, scale, variance)), kernel)


@pytest.mark.parametrize("law", [TWO_MODES, PLANE, Funnel(2)], ids=["1-D", "plane", "funnel"])
@every_noise
def test_densities_have_mass_one(law: Law, scale: float, variance: float) -> None:
    step = 0.1 if law.dimension == 2 else 0.04
    axis = np.arange(-12, 12, step)
    mesh = np.stack(np.meshgrid(*[axis] * law.dimension, indexing="ij"), axis=-1)
    mass = np.sum(np.exp(law.log_density(mesh, scale, variance))) * step**law.dimension
    # the tail of the funnel itself beyond |x| = 12: P(|Z| > 12 e^{−x₁/2})
    assert mass == pytest.approx(1, abs=1e-4 if isinstance(law, Funnel) else 1e-10)


@every_law
def test_moments_are_those_of_the_sample(law: Law) -> None:
    x = law.sample(200_000, np.random.default_rng(2))
    assert_mean(law.mean, x)
    centered = x - law.mean
    assert_mean(law.covariance, centered[:, :, None] * centered[:, None, :])
    assert_mean(law.second_moment, np.sum(x**2, axis=1))
    np.testing.assert_allclose(law.principal_variances, np.linalg.eigvalsh(law.covariance))


@every_law
@pytest.mark.parametrize(
    ("scale", "variance"),
    [NOISES[1], *(pytest.param(*noise, marks=pytest.mark.slow) for noise in NOISES[::2])],
)
def test_informations_and_divergences_match_monte_carlo(
    law: Law, scale: float, variance: float
) -> None:
    y = draw(law, scale, variance, 50_000)
    score, s2 = law.score(y, scale, variance), 1.7
    assert_mean(law.fisher_information(scale, variance), np.sum(score**2, axis=1))
    relative = np.sum((score + y / s2) ** 2, axis=1)
    assert_mean(law.relative_fisher_information(s2, scale, variance), relative)
    log_ratio = law.log_density(y, scale, variance) - log_normal(y, s2)
    assert_mean(law.kl_to_normal(s2, scale, variance), log_ratio)


@every_law
def test_de_bruijn(law: Law) -> None:
    """dKL(p_γ ‖ φ)/dγ = d/(2s) − J/2: the noise adds its second moment, and entropy."""
    for noise in (0.01, 0.4, 30.0):
        h = 1e-4 * noise
        slope = law.kl_to_normal(3.0, 1.0, noise + h) - law.kl_to_normal(3.0, 1.0, noise - h)
        expected = law.dimension / 6 - law.fisher_information(1.0, noise) / 2
        assert slope / (2 * h) == pytest.approx(expected, rel=1e-6)


@every_law
def test_a_noise_a_row_equals_one_noise_at_a_time(law: Law) -> None:
    scale, variance = np.array([1.0, 0.5, 0.9]), np.array([0.0, 2.0, 1e-4])
    x = law.sample(3, np.random.default_rng(3))
    for function in (law.log_density, law.score):
        single = [function(x[k], scale[k], variance[k]) for k in range(3)]
        np.testing.assert_allclose(function(x, scale, variance), single, rtol=1e-12)
        table = function(x[None], scale[:, None], variance[:, None])
        np.testing.assert_allclose(np.stack([table[k, k] for k in range(3)]), single, rtol=1e-12)
    for function in (
        law.fisher_information,
        lambda m, v: law.relative_fisher_information(2.0, m, v),
    ):
        grid = function(scale[:, None], variance)
        assert grid.shape == (3, 3)
        assert grid[1, 2] == pytest.approx(float(function(0.5, 1e-4)), rel=1e-13)


@every_law
def test_pure_noise_is_gaussian(law: Law) -> None:
    x = np.random.default_rng(4).standard_normal((5, law.dimension))
    np.testing.assert_allclose(law.score(x, 0.0, 2.0), -x / 2, rtol=1e-12)
    np.testing.assert_allclose(law.log_density(x, 0.0, 2.0), log_normal(x, 2.0), rtol=1e-12)
    assert law.fisher_information(0.0, 2.0) == pytest.approx(law.dimension / 2, rel=1e-14)
    assert law.relative_fisher_information(2.0, 0.0, 2.0) == 0
    assert law.kl_to_normal(2.0, 0.0, 2.0) == 0


@pytest.mark.parametrize("noise", [0.0, 0.05, 2.0])
def test_one_dimensional_divergences_match_adaptive_quadrature(noise: float) -> None:
    law, var = TWO_MODES, float(TWO_MODES.covariance[0, 0]) + noise

    def integral(function: Callable[[float], float]) -> float:
        width = 12 * np.sqrt(0.25 + noise)
        edges = np.linspace(1 - width, 3 + width, 60)
        return sum(quad(function, a, b, epsabs=1e-14)[0] for a, b in pairwise(edges))

    def log_p(y: float) -> float:
        return float(law.log_density([y], 1.0, noise))

    def squared_score(y: float) -> float:
        return float(law.score([y], 1.0, noise)[0] ** 2)

    information = integral(lambda y: np.exp(log_p(y)) * squared_score(y))
    assert law.fisher_information(1.0, noise) == pytest.approx(information, rel=1e-9)
    gap = integral(lambda y: np.exp(log_p(y)) * (log_p(y) - norm.logpdf(y, 2.4, np.sqrt(var))))
    assert law.negentropy(noise) == pytest.approx(gap, rel=1e-9)


def test_the_toy_mixture_of_the_elbo() -> None:
    """Cross-checks of case 77: E log p and KL(p_T ‖ N(0, 1)) of the noised mixture."""
    process = VPProcess(BetaSchedule(0.6, 0.0, 0.1, 12.04), 1.0)
    m, v = float(process.mean_scale(0.6)), float(process.kernel_variance(0.6))
    cross = 0.5 * (TWO_MODES.second_moment + np.log(2 * np.pi))
    assert TWO_MODES.kl_to_normal(1.0) - cross == pytest.approx(-0.851960191108928, rel=1e-10)
    assert TWO_MODES.kl_to_normal(1.0, m, v) == pytest.approx(0.0754559660577834, rel=1e-9)


@pytest.mark.parametrize("noise", [0.3, 2.0])
def test_funnel_divergences_match_brute_force(noise: float) -> None:
    """d = 2: p|∇log p|² and p log(p/g) on a plain grid, by the pointwise density and score."""
    law = Funnel(2)
    # heavy tails in x₂ = sinh u
    x1, u = np.arange(-14, 14, 0.2), np.arange(-8, 8, 0.05)
    y = np.stack(np.meshgrid(x1, np.sinh(u), indexing="ij"), axis=-1)
    log_p, squared = law.log_density(y, 1.0, noise), np.sum(law.score(y, 1.0, noise) ** 2, axis=-1)
    p = np.exp(log_p) * 0.2 * 0.05 * np.cosh(u)
    assert law.fisher_information(1.0, noise) == pytest.approx(np.sum(p * squared), rel=1e-9)
    variances = 1.0 + noise, np.exp(0.5) + noise
    log_g = sum(norm.logpdf(y[..., j], 0, np.sqrt(variances[j])) for j in range(2))
    assert law.negentropy(noise) == pytest.approx(np.sum(p * (log_p - log_g)), rel=1e-8)


@pytest.mark.parametrize(
    ("d", "a", "b"), [(2, 1.0, 0.5), (50, 1.0, 0.5), (5, 1.5, 0.5), (7, 0.4, 1.3)]
)
def test_the_funnel_itself_has_closed_forms(d: int, a: float, b: float) -> None:
    law, s2, tilt = Funnel(d, a, b), 2.0, np.exp(2 * a**2 * b**2)
    second = a**2 + (d - 1) * tilt
    kl = d / 2 * (np.log(s2) - 1) - np.log(a) + second / (2 * s2)
    assert law.kl_to_normal(s2) == pytest.approx(kl, rel=1e-10)
    fisher = 1 / a**2 + 2 * b**2 * (d - 1) + (d - 1) * tilt
    assert law.fisher_information() == pytest.approx(fisher, rel=1e-12)
    relative = fisher - 2 * d / s2 + second / s2**2
    assert law.relative_fisher_information(s2) == pytest.approx(relative, rel=1e-12)


@pytest.mark.parametrize(
    "law",
    [TWO_MODES, COMB, PLANE, Funnel(2), Funnel(50)],
    ids=["two", "comb", "plane", "f2", "f50"],
)
def test_curves_agree_with_quadrature_between_their_nodes(law: Law) -> None:
    top = 1e4 * law.principal_variances[-1]
    for noise in np.geomspace(1e-5, 0.99 * top, 9):
        assert law.excess_information(noise) == pytest.approx(law._excess_at(noise), rel=1e-8)


@pytest.mark.parametrize("noise", [1e4, 1e7])
def test_tiny_divergences_keep_their_digits(noise: float) -> None:
    """Edgeworth: N ~ κ₃²/(12 V³), the skewness of a sum that forgets its law."""
    w, mu, var = TWO_MODES.weights, TWO_MODES.means[:, 0], TWO_MODES.variances[:, 0]
    shift = mu - w @ mu
    third = w @ (shift**3 + 3 * shift * var)
    total = float(TWO_MODES.covariance[0, 0]) + noise
    assert TWO_MODES.negentropy(noise) == pytest.approx(third**2 / (12 * total**3), rel=2e-3)
    assert TWO_MODES.excess_information(noise) == pytest.approx(third**2 / (2 * total**4), rel=2e-3)


def test_products_add_up() -> None:
    comb = GaussianMixture([0.3, 0.2, 0.5], [[-1.0], [0.0], [1.5]], [[0.1], [0.2], [0.1]])
    rest = Gaussian.diagonal(np.zeros(3), np.full(3, 0.1))
    law = Product((comb, comb, rest))
    # the same law with its first two coordinates as one mixture in the plane
    pairs = np.stack(np.meshgrid(range(3), range(3)), axis=-1).reshape(-1, 2)
    plane = GaussianMixture(
        np.prod(comb.weights[pairs], axis=1), comb.means[pairs, 0], comb.variances[pairs, 0]
    )
    other = Product((plane, rest))
    x = law.sample(5, np.random.default_rng(0))
    for scale, variance in NOISES:
        for method in ("kl_to_normal", "relative_fisher_information"):
            total = getattr(law, method)(1.5, scale, variance)
            parts = [getattr(factor, method)(1.5, scale, variance) for factor in law.factors]
            assert total == pytest.approx(sum(parts), rel=1e-12)
            assert total == pytest.approx(getattr(other, method)(1.5, scale, variance), rel=1e-8)
        for method in ("log_density", "score"):
            one, two = (getattr(either, method)(x, scale, variance) for either in (law, other))
            np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("v", [1e-12, 1e-6, 1e-3, 0.1, 1.0])
@pytest.mark.parametrize(
    ("first", "radius"),
    [(0.3, 7.0), (-2.0, 7.0), (2.5, 1e-3), (-3.0, 0.0), (0.0, 40.0), (4.0, 60.0), (-6.0, 0.4)],
)
def test_funnel_scores_at_hard_points(first: float, radius: float, v: float) -> None:
    """Against the trapezoidal rule with 10⁶ nodes in z, and the first component in the form
    −(x₁ − m E z)/v: d = 50, typical points, and points in conflict with each other."""
    law, m, n = Funnel(50), np.sqrt(1 - v / 1.01), 49
    x = np.full(50, radius / 7)
    x[0] = first
    rho, total = n * (radius / 7) ** 2, m**2 + v
    center, width = m * first / total, np.sqrt(v / total)
    # the left end: the funnel's own pull, −nbw, beyond the law given x₁
    spread = np.linspace(-12 - 0.5 * n * width, 12 + max(0.0, (8 - center) / width), 10**6)
    zeta = spread if spread[-1] < 200 else np.linspace(spread[0], 200, 10**6)
    q = m**2 * np.exp(center + width * zeta) + v
    log_weight = -(zeta**2) / 2 - n / 2 * np.log(2 * np.pi * q) - rho / (2 * q)
    weight = np.exp(log_weight - log_weight.max())
    share = weight / weight.sum()
    mass = weight.sum() * (zeta[1] - zeta[0]) / np.sqrt(2 * np.pi)
    log_p = norm.logpdf(first, 0, np.sqrt(total)) + log_weight.max() + np.log(mass)
    assert law.log_density(x, m, v) == pytest.approx(log_p, rel=1e-9)
    score = law.score(x, m, v)
    np.testing.assert_allclose(score[1:], -x[1:] * (share @ (1 / q)), rtol=1e-7)
    # x₁ − m E z = (v x₁ − …)/V without its cancellation
    drift = first / total - m * width * (share @ zeta) / v
    assert score[0] == pytest.approx(-drift, rel=1e-6, abs=1e-6 * (1 + np.sqrt(1 / v)) * 1e-4)


def test_the_funnel_itself() -> None:
    law = Funnel(4, 1.5, 0.7)
    x = law.sample(20, np.random.default_rng(0))
    precision = np.exp(-1.4 * x[:, :1])
    log_p = norm.logpdf(x[:, 0], 0, 1.5)
    log_p = log_p + np.sum(norm.logpdf(x[:, 1:], 0, np.exp(0.7 * x[:, :1])), axis=1)
    np.testing.assert_allclose(law.log_density(x), log_p, rtol=1e-12)
    first = -x[:, 0] / 2.25 + 0.7 * (precision[:, 0] * np.sum(x[:, 1:] ** 2, axis=1) - 3)
    np.testing.assert_allclose(law.score(x)[:, 0], first, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(law.score(x)[:, 1:], -x[:, 1:] * precision, rtol=1e-12)
    # continuous as the noise vanishes
    np.testing.assert_allclose(law.score(x, 1.0, 1e-13), law.score(x), rtol=1e-8, atol=1e-8)


@given(
    st.floats(-30, 30),
    st.floats(0, 1e4),
    st.floats(1e-12, 10),
    st.integers(1, 60),
    st.floats(0.05, 1.0),
)
@settings(max_examples=200, deadline=None)
def test_funnel_scores_are_finite_and_pull_inwards_everywhere(
    first: float, radius: float, v: float, n: int, m: float
) -> None:
    law = Funnel(n + 1)
    x = np.array([first, *[radius / np.sqrt(n)] * n])
    score = law.score(x, m, v)
    assert np.all(np.isfinite(score))
    assert np.isfinite(law.log_density(x, m, v))
    assert np.all(score[1:] * x[1:] <= 0)
    # q > v
    assert np.all(np.abs(score[1:]) <= np.abs(x[1:]) / v * (1 + 1e-12))


def test_marginals() -> None:
    rng = np.random.default_rng(0)
    for law, chosen in [
        (TILTED, [1, 0]),
        (PLANE, [1]),
        (FUNNEL, [0, 3]),
        (GRID, [3, 1]),
        (LAWS["product"], [3, 4, 2, 1, 0]),
        (LAWS["affine funnel"], [0, 2]),
        (Funnel(3), [0]),
    ]:
        marginal = law.marginal(chosen)
        np.testing.assert_allclose(marginal.mean, law.mean[chosen])
        np.testing.assert_allclose(marginal.covariance, law.covariance[np.ix_(chosen, chosen)])
        # Stein: under the marginal, E s = 0 and E s xᵀ = −I for its own score alone
        x = law.sample(50_000, rng)[:, chosen]
        score = marginal.score(x)
        assert_mean(0.0, score)
        assert_mean(-np.eye(len(chosen)), score[:, :, None] * x[:, None, :])


@every_law
def test_partitions_have_the_stated_probabilities(law: Law) -> None:
    part, n = law.partition(), 100_000
    labels = part.label(law.sample(n, np.random.default_rng(5)))
    p = part.probabilities
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert np.all(p > 0)
    counts = np.bincount(labels, minlength=p.size)
    assert counts.size == p.size
    error = np.sqrt(n * p * (1 - p))
    assert np.all(np.abs(counts - n * p) <= 4.5 * error + 5)


def test_partitions_of_known_probabilities() -> None:
    # equal variances: the cut is where w₁ N₁ = w₂ N₂
    law = GaussianMixture([0.3, 0.7], [[-1.0], [1.0]], [[0.5], [0.5]])
    cut = 0.25 * np.log(0.3 / 0.7)
    expected = [w * ndtr((cut - c) / np.sqrt(0.5)) for w, c in ((0.3, -1), (0.7, 1))]
    assert law.partition().probabilities[0] == pytest.approx(sum(expected), rel=1e-12)
    # a narrow component inside a wide one: two cuts, symmetric
    law = GaussianMixture([0.5, 0.5], [[0.0], [0.0]], [[1.0], [0.01]])
    cut = np.sqrt(np.log(100) / 99)
    inner = sum(0.5 * (1 - 2 * np.exp(log_ndtr(-cut / s))) for s in (1.0, 0.1))
    np.testing.assert_allclose(law.partition().probabilities, [1 - inner, inner], rtol=1e-12)
    # symmetry, in the plane: overlapping modes on a circle
    angle = 2 * np.pi * np.arange(8) / 8
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    law = GaussianMixture(np.full(8, 1 / 8), ring, np.full((8, 2), 0.09))
    np.testing.assert_allclose(law.partition().probabilities, 1 / 8, atol=2e-6)
    # a component that is nowhere the largest has no cell
    law = GaussianMixture([0.6, 0.4], [[0.0], [0.0]], [[1.0], [1.0]])
    assert law.partition().probabilities.tolist() == [1.0]
    assert set(law.partition().label(np.zeros((3, 1)))) == {0}


def test_partitions_of_products_and_images() -> None:
    part = GRID.partition()
    assert part.name == "modes"
    np.testing.assert_allclose(part.probabilities, 0.04, rtol=1e-12)
    centers = np.zeros((25, 5))
    centers[:, :2] = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 2, indexing="ij"), -1).reshape(
        -1, 2
    )
    assert part.label(centers).tolist() == list(range(25))
    moved = Affine(GRID, GRID.mean + 1, 3.0).partition()
    assert moved.label((centers - GRID.mean - 1) / 3).tolist() == list(range(25))
    mixed = Product((TWO_MODES, Funnel(2), TILTED)).partition()
    assert mixed.name == "modes × x1"
    assert mixed.probabilities.size == 100
    assert TILTED.partition().probabilities.tolist() == [1.0]


@pytest.mark.parametrize("noise", [0.0, 0.7, 1e9])
def test_gaussians_in_disguise_have_no_excess(noise: float) -> None:
    for law in (
        Funnel(1, 2.0),
        GaussianMixture([0.5, 0.5], np.ones((2, 3)), np.full((2, 3), 2.0)),
        Affine(TILTED, [0.1, 0.2], 2.0),
    ):
        assert law.excess_information(noise) == 0
        assert law.negentropy(np.full(3, noise)).tolist() == [0.0] * 3


def test_a_decay_curve_of_closed_form() -> None:
    curve = DecayCurve.fit(lambda noise: (2 + noise) ** -3, 0.5, 1e4)
    noise = np.array([0.0, 1e-9, 0.3, 50.0, 1e4, 1e7])
    np.testing.assert_allclose(curve(noise[:5]), (2 + noise[:5]) ** -3, rtol=1e-8)
    np.testing.assert_allclose(curve(noise), (2 + noise) ** -3, rtol=1e-2)
    np.testing.assert_allclose(curve.remainder(noise), (2 + noise) ** -2 / 2, rtol=1e-2)
    np.testing.assert_allclose(curve.remainder(noise[:4]), (2 + noise[:4]) ** -2 / 2, rtol=1e-8)
    assert curve(np.inf) == curve.remainder(np.inf) == 0
    with pytest.raises(ArithmeticError, match="not resolved"):
        DecayCurve.fit(lambda noise: 1.0 + (noise > 3), 0.5, 1e4)


def test_panels_integrate_bumps_of_any_scale() -> None:
    means, stds = np.array([0.0, 0.1, 7.0]), np.array([1.0, 1e-3, 0.2])
    nodes, weights = gaussian_panels(means, stds)
    for mean, std in zip(means, stds, strict=True):
        assert weights @ norm.pdf(nodes, mean, std) == pytest.approx(1, rel=1e-13)
        fourth = weights @ (norm.pdf(nodes, mean, std) * (nodes - mean) ** 4)
        assert fourth == pytest.approx(3 * std**4, rel=1e-11)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GaussianMixture([0.5, 0.6], [[0], [1]], [[1], [1]]), "weights = .*: must be pos"),
        (lambda: GaussianMixture([1.5, -0.5], [[0], [1]], [[1], [1]]), "weights = .*: must be pos"),
        (lambda: GaussianMixture([1.0], [[0], [1]], [[1], [1]]), r"means = .*of shape \(1, d\)"),
        (lambda: GaussianMixture([1.0], [[np.inf]], [[1.0]]), "means = .*: must be finite"),
        (lambda: GaussianMixture([1.0], [[0.0]], [[0.0]]), "variances = .*: must be positive"),
        (lambda: GaussianMixture([1.0], [[0.0]], [1.0]), r"variances = .*of shape \(1, 1\)"),
        (lambda: Funnel(0), "dimension = 0: must be at least 1"),
        (lambda: Funnel(5, 0.0), "spread = 0.0: must be a positive"),
        (lambda: Funnel(5, 1.0, np.nan), "slope = nan: must be a positive"),
        (lambda: Product(()), "factors = .*: must hold at least one"),
        (lambda: Affine(TILTED, np.zeros(3), 1.0), "center = .*: must be 2 finite numbers"),
        (lambda: Affine(TILTED, np.zeros(2), 0.0), "scale = 0.0: must be a positive"),
        (lambda: PLANE.marginal([0, 0]), r"coordinates = \[0, 0\]: must be distinct"),
        (
            lambda: PLANE.marginal([2]),
            r"coordinates = \[2\]: must be distinct integers from 0 to 1",
        ),
        (lambda: FUNNEL.marginal([1, 2]), r"coordinates = \[1, 2\]: must start with 0"),
        (lambda: LAWS["product"].marginal([4, 1]), r"coordinates = \[1\]: must start with 0"),
        (lambda: LAWS["product"].marginal([1, 0, 2]), "must not interleave"),
    ],
)
def test_values_out_of_range_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def _solid() -> GaussianMixture:
    return GaussianMixture([0.5, 0.5], np.eye(2, 3), np.ones((2, 3)))


def test_what_is_not_known_of_a_mixture_in_space_is_nan() -> None:
    law = _solid()
    assert np.isnan(law.kl_to_normal(1.0))
    assert np.isnan(law.fisher_information([1.0, 0.5], [0.0, 0.1])).all()
    assert law.partition().probabilities.tolist() == [1.0]
    assert np.isfinite(law.score(np.zeros(3), 0.5, 0.1)).all()


def _by_brute_force(law: Funnel, x: Array, m: float, v: float) -> tuple[float, float, float]:
    """log p, ∂₁log p and E[1/q] by the trapezoidal rule with 4·10⁵ nodes in z."""
    n, a, b = law.dimension - 1, law.spread, law.slope
    rho, total = np.sum(x[1:] ** 2), m**2 * a**2 + v
    center, width = 2 * b * m * a**2 * x[0] / total, 2 * b * a * np.sqrt(v / total)
    right = max(0.0, (np.log(rho / n / m**2) - center) / width)
    zeta = np.linspace(-25 - (n + 2) * width / 2, 25 + right, 400_001)
    log_q = np.logaddexp(2 * np.log(m) + center + width * zeta, np.log(v))
    log_weight = -0.5 * (zeta**2 + n * log_q + rho * np.exp(-log_q))
    weight = np.exp(log_weight - log_weight.max())
    mass, precision = weight.sum(), np.exp(-log_q)
    ratio = np.exp(2 * np.log(m) + center + width * zeta - log_q)
    pull = weight @ (ratio * (rho * precision - n)) / mass
    log_p = log_weight.max() + np.log(mass * (zeta[1] - zeta[0]))
    log_p -= 0.5 * (x[0] ** 2 / total + np.log(total) + (n + 2) * np.log(2 * np.pi))
    return log_p, (m * a**2 * b * pull - x[0]) / total, weight @ precision / mass


@pytest.mark.parametrize(
    ("d", "a", "b"), [(2, 3.0, 0.5), (50, 3.0, 0.5), (2, 3.0, 1.0), (10, 2.0, 2.0), (400, 1.0, 1.0)]
)
def test_steep_funnels_have_posteriors_of_two_scales(d: int, a: float, b: float) -> None:
    """Neal's own funnel has a = 3: nodes as wide as the prior miss the narrow mode."""
    law, rng = Funnel(d, a, b), np.random.default_rng(d)
    for v in (1e-4, 0.03, 0.5, 0.99):
        m = np.sqrt(1 - v)
        for stretch in (1.0, 0.01, 30.0):  # typical rows, and those of a radius in conflict
            x = m * law.sample(1, rng)[0] + np.sqrt(v) * rng.standard_normal(d)
            x[1:] *= stretch
            log_p, first, precision = _by_brute_force(law, x, m, v)
            score = law.score(x, m, v)
            assert law.log_density(x, m, v) == pytest.approx(log_p, rel=1e-9, abs=1e-8)
            size = m * a**2 * b * (d + np.sum(x[1:] ** 2) * precision) + abs(x[0])
            assert score[0] == pytest.approx(first, abs=1e-8 * size / (m**2 * a**2 + v))
            np.testing.assert_allclose(score[1:], -x[1:] * precision, rtol=1e-7)


def test_a_steep_funnel_at_one_point() -> None:
    score = Funnel(2, 3.0, 1.0).score([[0.0, 5.6]], np.exp(-2.355), -np.expm1(-4.71))
    np.testing.assert_allclose(score, [[0.399029709, -0.293892349]], rtol=1e-7)


@pytest.mark.parametrize(("d", "a", "b"), [(2, 3.0, 0.5), (3, 1.0, 1.5)])
def test_the_negentropy_of_steep_funnels_is_the_closed_form(d: int, a: float, b: float) -> None:
    assert Funnel(d, a, b).negentropy(0.0) == pytest.approx((d - 1) * (a * b) ** 2, rel=1e-6)


def test_what_is_not_resolved_of_a_funnel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from sgm.densities import posterior

    # next to a Gaussian the excess is below rounding errors
    with pytest.raises(ArithmeticError, match="not resolved"):
        Funnel(50, 0.01, 0.02).kl_to_normal(1.0, 0.5, 0.5)
    monkeypatch.setattr(posterior, "_DOUBLINGS", 0)
    monkeypatch.setattr(posterior, "_SETTLED", 0.0)
    rows = draw(Funnel(2, 3.0, 1.0), 1.0, 0.5, 50)
    with pytest.raises(ArithmeticError, match=r"56 intervals don't resolve .* variance 0\.5"):
        Funnel(2, 3.0, 1.0).score(rows, 1.0, 0.5)
    with pytest.raises(ValueError, match=r"spread \* slope = 10\.0: must be at most 9"):
        Funnel(2, 5.0, 2.0)


def test_rows_of_a_funnel_that_are_not_finite_stay_alone() -> None:
    law, x = Funnel(3), np.ones((3, 3))
    x[1, 2], x[2, 0] = np.nan, np.inf
    found = law.score(x, 0.8, 0.3)
    np.testing.assert_allclose(found[0], law.score(x[0], 0.8, 0.3), rtol=1e-12)
    assert not np.all(np.isfinite(found[1]))


def test_a_funnel_s_rows_as_far_as_an_unstable_sampler_goes() -> None:
    """Beyond all exponents of float64 the other coordinates' law no longer pulls inwards."""
    law, x = Funnel(50, 2.5, 2.9), np.full((2, 50), 1e5)
    x[:, 0] = 1e3, 9e5
    m, v = 0.004, 1e-3
    score = law.score(x, m, v)
    total = m**2 * 2.5**2 + v
    np.testing.assert_allclose(score[:, 0], -(m * 2.5**2 * 2.9 * 49 + x[:, 0]) / total, rtol=1e-10)
    np.testing.assert_allclose(score[:, 1:], 0.0, atol=1e-100)
