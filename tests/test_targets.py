"""Targets of known law: eigenvalues, sample moments, rescaling and its undoing, refusals."""

from collections.abc import Callable

import numpy as np
import pytest

from sgm import targets
from sgm.gaussian import Gaussian

BUILT = {
    "isotropic": targets.isotropic(dimension=6, mean=1.0, variance=0.5),
    "slides": targets.heteroscedastic_slides(dimension=7, mean=-1.0),
    "blocks": targets.heteroscedastic_blocks(dimension=10, mean=1.0),
    "correlated": targets.correlated(dimension=6, mean=1.0, offset=1.0),
    "digits_gaussian": targets.digits_gaussian(),
}


def test_diagonal_targets_have_the_printed_variances() -> None:
    np.testing.assert_array_equal(BUILT["slides"].law.eigenvalues, [10] * 5 + [0.1] * 2)
    blocks = [1, 1, 0.01, 0.01, 1, 1, 1, 1, 1, 1]
    np.testing.assert_array_equal(BUILT["blocks"].law.eigenvalues, blocks)
    np.testing.assert_array_equal(BUILT["isotropic"].law.eigenvalues, 0.5)
    np.testing.assert_array_equal(BUILT["slides"].law.mean, -1.0)


@pytest.mark.parametrize("offset", [0.3, 1.0, 2.0])
def test_correlated_covariance_entry_by_entry(offset: float) -> None:
    law = targets.correlated(dimension=5, mean=0.0, offset=offset).law
    entries = [[1 / np.sqrt(abs(i - j) + offset) for j in range(5)] for i in range(5)]
    np.testing.assert_allclose(law.covariance, entries, rtol=1e-12)


@pytest.mark.parametrize(("dimension", "negative"), [(3, 1), (50, 20)])
def test_the_literal_matrix_of_the_slides_is_refused_with_the_reason(
    dimension: int, negative: int
) -> None:
    with pytest.raises(ValueError, match=f"offset = 0.*indefinite .{negative} of {dimension}"):
        targets.correlated(dimension=dimension, mean=1.0, offset=0)


def test_the_literal_matrix_is_singular_in_the_plane() -> None:
    with pytest.raises(ValueError, match=r"offset = 0.*singular in dimension = 2"):
        targets.correlated(dimension=2, mean=1.0, offset=0)


@pytest.mark.parametrize("name", BUILT)
def test_gaussian_samples_have_the_moments_of_the_law(name: str) -> None:
    target, n = BUILT[name], 20_000
    x = target.sample(n, np.random.default_rng(0))
    assert target.reference is target.law
    assert x.shape == (n, target.dimension)
    # whitened, so that one tolerance fits all coordinates
    z = target.law.rotate(x - target.law.mean) / np.sqrt(target.law.eigenvalues)
    assert np.max(np.abs(z.mean(axis=0))) < 5 / np.sqrt(n)
    assert np.max(np.abs(np.cov(z, rowvar=False) - np.eye(target.dimension))) < 5 * np.sqrt(2 / n)


@pytest.mark.parametrize(
    ("scale", "squared"),
    [
        (3.0, 9.0),
        ("unit_variance", 1.0),  # Σ has a unit diagonal at offset = 1
        ("unit_spectrum", (1 + np.sqrt(0.5))),  # the eigenvalues of [[1, c], [c, 1]] are 1 ± c
    ],
)
def test_rescaled_gaussian_in_the_plane(scale: float | str, squared: float) -> None:
    target = targets.correlated(dimension=2, mean=1.0, offset=1.0)
    law = target.rescaled(center=False, scale=scale).law
    np.testing.assert_allclose(law.covariance, target.law.covariance / squared, rtol=1e-12)
    np.testing.assert_allclose(law.mean, 1 / np.sqrt(squared), rtol=1e-12)
    np.testing.assert_array_equal(target.rescaled(center=True, scale=scale).law.mean, 0.0)


def test_a_unit_spectrum_never_rounds_to_above_one() -> None:
    variances = np.random.default_rng(0).gamma(2.0, 50.0, size=500)
    for variance in variances:
        law = Gaussian.diagonal(np.zeros(2), [variance, variance / 2])
        largest = targets.LawTarget(law).rescaled(True, "unit_spectrum").law.eigenvalues.max()
        assert 1 - 1e-14 < largest <= 1


@pytest.mark.parametrize("name", BUILT)
def test_restored_samples_of_a_rescaled_law_have_the_original_law(name: str) -> None:
    # twice rescaled, so that the transforms have to be composed in the right order
    target, n = BUILT[name], 20_000
    rescaled = target.rescaled(center=False, scale=2.0).rescaled(center=True, scale="unit_variance")
    sample = rescaled.sample(n, np.random.default_rng(1))
    x = target.standardise(rescaled.restore(sample))
    z = target.law.rotate(x - target.law.mean) / np.sqrt(target.law.eigenvalues)
    assert np.max(np.abs(z.mean(axis=0))) < 5 / np.sqrt(n)
    assert np.max(np.abs(np.cov(z, rowvar=False) - np.eye(target.dimension))) < 5 * np.sqrt(2 / n)
    np.testing.assert_allclose(rescaled.standardise(rescaled.restore(sample)), sample, atol=1e-10)
    np.testing.assert_allclose(np.trace(rescaled.law.covariance), target.dimension, rtol=1e-12)


def test_a_target_as_built_is_in_its_original_coordinates() -> None:
    center, scale = BUILT["correlated"].transform
    np.testing.assert_array_equal((center, scale), (np.zeros(6), np.ones(6)))
    paths = np.random.default_rng(0).normal(size=(3, 4, 6))
    np.testing.assert_array_equal(BUILT["correlated"].restore(paths), paths)


def test_the_mean_of_rescaled_digits_is_restored_to_the_mean_image() -> None:
    from sklearn.datasets import load_digits

    target = BUILT["digits_gaussian"].rescaled(center=True, scale=0.3)
    image = target.restore(target.law.mean).reshape(target.image_shape)
    mean = load_digits().images.mean(axis=0)
    # dequantised: half a grey level above the pixels that vary, up to the noise of 1797 rows
    shift = np.where(mean > 0, 0.5, 0.0)
    shift[np.ptp(load_digits().images, axis=0) == 0] = 0.0
    assert np.max(np.abs(image - mean - shift)) < 5 / np.sqrt(12 * 1797)


NOT_GAUSSIAN = {
    "funnel": targets.funnel(dimension=3, spread=0.8, slope=0.6),
    "two_modes": targets.two_modes(),
    "grid": targets.grid_mixture(dimension=4, side=5, variance=0.01, rest_variance=0.1),
    "ring": targets.ring_mixture(modes=7, radius=2.0, variance=0.05),
    "mixture": targets.mixture([1, 3], [[0.0, 1.0, 2.0], [-1.0, 1.0, 0.5]], [0.3, 0.2]),
}
MOMENTS = {  # mean and covariance, by hand
    # E e^{2bX} = e^{2a²b²}
    "funnel": ([0, 0, 0], np.diag([0.64, *[np.exp(2 * 0.64 * 0.36)] * 2])),
    "two_modes": ([2.4], [[0.3 * 0.01 + 0.7 * 0.25 + 0.21 * 4]]),
    "grid": ([0] * 4, np.diag([2.01, 2.01, 0.1, 0.1])),
    "ring": ([0, 0], 2.05 * np.eye(2)),
    "mixture": (
        [-0.75, 1, 0.875],
        0.225 * np.eye(3) + 0.1875 * np.outer([1, 0, 1.5], [1, 0, 1.5]),
    ),
}


@pytest.mark.parametrize("name", NOT_GAUSSIAN)
def test_reference_has_the_moments_of_the_law(name: str) -> None:
    target, (mean, covariance) = NOT_GAUSSIAN[name], MOMENTS[name]
    assert target.dimension == len(mean)
    np.testing.assert_allclose(target.reference.mean, mean, atol=1e-14)
    np.testing.assert_allclose(target.reference.covariance, covariance, rtol=1e-12, atol=1e-14)
    n = 50_000
    x = target.sample(n, np.random.default_rng(2)) - mean
    standard_error = np.std(x[:, :, None] * x[:, None, :], axis=0) / np.sqrt(n)
    assert np.all(np.abs(x.T @ x / n - covariance) < 5 * standard_error)


@pytest.mark.parametrize("scale", [0.4, "unit_variance", "unit_spectrum"])
@pytest.mark.parametrize("name", NOT_GAUSSIAN)
def test_density_and_score_of_a_rescaled_law_are_a_change_of_variables(
    name: str, scale: float | str
) -> None:
    target = NOT_GAUSSIAN[name]
    rescaled = target.rescaled(center=True, scale=scale)
    d, s = target.dimension, float(rescaled.transform.scale[0])
    y = rescaled.sample(20, np.random.default_rng(3))
    x = rescaled.restore(y)
    np.testing.assert_allclose(
        rescaled.law.log_density(y), target.law.log_density(x) + d * np.log(s), rtol=1e-9, atol=1e-9
    )
    np.testing.assert_allclose(rescaled.law.score(y), s * target.law.score(x), rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(rescaled.reference.mean, 0, atol=1e-14)
    eigenvalues = np.linalg.eigvalsh(MOMENTS[name][1])
    expected = {"unit_variance": eigenvalues.mean(), "unit_spectrum": eigenvalues.max()}
    np.testing.assert_allclose(s**2, expected.get(scale, 0.16), rtol=1e-12)


def test_the_funnel_has_its_spread_and_its_slope() -> None:
    from scipy.stats import norm

    law = targets.funnel(dimension=4, spread=0.8, slope=0.6).law
    x = np.random.default_rng(5).normal(size=(20, 4))
    others = norm(0, np.exp(0.6 * x[:, :1])).logpdf(x[:, 1:]).sum(axis=1)
    np.testing.assert_allclose(
        law.log_density(x), norm(0, 0.8).logpdf(x[:, 0]) + others, rtol=1e-9, atol=1e-9
    )


def test_two_modes_have_the_published_entropy() -> None:
    x = np.linspace(-4.0, 10.0, 200_001)
    log_density = targets.two_modes().law.log_density(x[:, None])
    density = np.exp(log_density)
    np.testing.assert_allclose(np.trapezoid(density, x), 1.0, rtol=1e-9)
    np.testing.assert_allclose(np.trapezoid(density * log_density, x), -0.85196019, atol=1e-8)


def test_the_grid_has_its_modes_where_it_says() -> None:
    target = targets.grid_mixture(dimension=3, side=4, variance=0.01, rest_variance=0.1)
    corners = np.stack(np.meshgrid(*[[-1.5, -0.5, 0.5, 1.5]] * 2), axis=-1).reshape(-1, 2)
    peak = np.log(1 / 16) - np.log(2 * np.pi * 0.01) - 0.5 * np.log(2 * np.pi * 0.1)
    modes = np.column_stack([corners, np.zeros(16)])
    # the neighbours, at ten standard deviations, add e^{−50}
    np.testing.assert_allclose(target.law.log_density(modes), peak, rtol=1e-12)
    plane = targets.grid_mixture(dimension=2, side=4, variance=0.01, rest_variance=0.1)
    np.testing.assert_allclose(
        plane.law.log_density(corners), peak + 0.5 * np.log(0.2 * np.pi), rtol=1e-12
    )


def test_the_ring_is_invariant_under_its_rotations() -> None:
    law, angle = targets.ring_mixture(modes=7, radius=2.0, variance=0.05).law, 2 * np.pi / 7
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    x = np.random.default_rng(4).normal(size=(30, 2))
    np.testing.assert_allclose(law.log_density(x @ rotation.T), law.log_density(x), rtol=1e-9)
    # next to a mode on the positive axis, its own Gaussian and two distant neighbours
    peak = law.log_density(np.array([2.0, 0.0]))
    distance = (4 * np.sin(angle / 2)) ** 2
    expected = np.log((1 + 2 * np.exp(-distance / 0.1)) / 7 / (2 * np.pi * 0.05))
    np.testing.assert_allclose(peak, expected, rtol=1e-9)


def test_lists_of_a_mixture() -> None:
    from scipy.stats import norm

    x = np.linspace(-3, 3, 13)
    density = (norm(-1, 0.5).pdf(x) + 2 * norm(1, 2).pdf(x)) / 3
    for means, variances in (([-1, 1], [0.25, 4]), ([[-1], [1]], [[0.25], [4]])):
        law = targets.mixture([1, 2], means, variances).law
        np.testing.assert_allclose(law.log_density(x[:, None]), np.log(density), rtol=1e-12)
    whole = targets.mixture([2, 4], [[-1, 0], [1, 0]], [[0.25, 3], [4, 3]]).law
    points = np.column_stack([x, 0.7 * x])
    expected = density * norm(0, np.sqrt(3)).pdf(0.7 * x)
    np.testing.assert_allclose(whole.log_density(points), np.log(expected), rtol=1e-12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: targets.isotropic(0, 1.0, 0.5), "dimension = 0: must be at least 1"),
        (lambda: targets.isotropic(2, np.nan, 0.5), "mean = nan: must be"),
        (lambda: targets.isotropic(2, 1.0, 0.0), "variance = 0.0: must be"),
        (lambda: targets.heteroscedastic_slides(4, 1.0), "dimension = 4: must be at least 5"),
        (lambda: targets.heteroscedastic_blocks(0, 1.0), "dimension = 0: must be at least 5"),
        (lambda: targets.heteroscedastic_blocks(7, 1.0), "dimension = 7: must be a multiple of 5"),
        (lambda: targets.correlated(5, 1.0, -1.0), "offset = -1.0: must be"),
        (lambda: targets.correlated(0, 1.0, 1.0), "dimension = 0: must be"),
        (lambda: BUILT["slides"].rescaled(True, 0.0), "scale = 0.0: must be"),
        (lambda: BUILT["slides"].rescaled(True, np.inf), "scale = inf: must be"),
        (lambda: BUILT["slides"].rescaled(True, "unit"), "scale = 'unit': must be"),
        (lambda: targets.funnel(1, 1.0, 0.5), "dimension = 1: must be at least 2"),
        (lambda: targets.funnel(2, -1.0, 0.5), "spread = -1.0: must be"),
        (lambda: targets.funnel(2, 1.0, np.inf), "slope = inf: must be"),
        (lambda: targets.grid_mixture(1, 5, 0.1, 0.1), "dimension = 1: must be at least 2"),
        (lambda: targets.grid_mixture(2, 0, 0.1, 0.1), "side = 0: must be at least 1"),
        (lambda: targets.grid_mixture(2, 5, 0.0, 0.1), "variance = 0.0: must be"),
        (lambda: targets.grid_mixture(2, 5, 0.1, np.nan), "rest_variance = nan: must be"),
        (lambda: targets.ring_mixture(0, 1.0, 0.1), "modes = 0: must be at least 1"),
        (lambda: targets.ring_mixture(3, 0.0, 0.1), "radius = 0.0: must be"),
        (lambda: targets.ring_mixture(3, 1.0, -1.0), "variance = -1.0: must be"),
        (lambda: targets.mixture([], [], []), r"weights = \[\]: must be"),
        (lambda: targets.mixture([0, 1], [0, 1], [1, 1]), r"weights = \[0, 1\]: must be"),
        (lambda: targets.mixture([1, np.inf], [0, 1], [1, 1]), "weights = .*: must be"),
        (lambda: targets.mixture([1, 1], [[0, 1], [2]], [1, 1]), "means = .* as many numbers each"),
        (lambda: targets.mixture([1, 1], ["a", 1], [1, 1]), "means = .*: must be numbers"),
        (lambda: targets.mixture([1, 1], [0, 1, 2], [1, 1]), r"means = .*: must be"),
        (lambda: targets.mixture([1, 1], [0, np.inf], [1, 1]), "means = .*: must be finite"),
        (lambda: targets.mixture([1, 1], [0, 1], [1, 0]), "variances = .*: must be positive"),
        (lambda: targets.mixture([1, 1], [[0, 1], [1, 0]], [[1], [1]]), "variances = .*: must be"),
        (lambda: targets.mixture([1, 1], [0, 1], [1, 1, 1]), "variances = .*: must be"),
        (
            lambda: targets.LawTarget(BUILT["slides"].law, image_shape=(2, 3)),
            r"image_shape = \(2, 3\): must hold 7 pixels",
        ),
        (
            lambda: targets.LawTarget(BUILT["slides"].law, targets.Transform.identity(6)),
            "coordinates: must be .* with 7 nonzero",
        ),
    ],
)
def test_values_out_of_range_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
