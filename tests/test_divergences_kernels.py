"""MMD against its definition, its Fourier form and its closed form between Gaussians."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from sgm import divergences
from sgm.divergences import kernels
from sgm.gaussian import Gaussian

Array = npt.NDArray[np.float64]


def draws(n: int, d: int, seed: int, *, shift: float = 0.0, scale: float = 1.0) -> Array:
    return shift + scale * np.random.default_rng(seed).standard_normal((n, d))


def test_mmd_is_its_definition() -> None:
    x, y, bandwidth = draws(7, 3, 1), draws(5, 3, 2, shift=1.0), 0.8

    def kernel(a: Array, b: Array) -> Array:
        return np.exp(-np.sum((a[:, None] - b) ** 2, axis=-1) / (2 * bandwidth**2))

    apart = [np.mean(kernel(a, a)[~np.eye(len(a), dtype=bool)]) for a in (x, y)]
    expected = sum(apart) - 2 * np.mean(kernel(x, y))
    assert divergences.mmd(x, y, bandwidth) == pytest.approx(expected, rel=1e-12)
    assert divergences.mmd(y, x, bandwidth) == pytest.approx(expected, rel=1e-12)


def test_mmd_depends_on_neither_chunks_nor_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = draws(70, 3, 1), draws(50, 3, 2, shift=0.5)
    expected = divergences.mmd(x, y, 1.5)
    assert divergences.mmd(x + 1e6, y + 1e6, 1.5) == pytest.approx(expected, rel=1e-8)
    monkeypatch.setattr(kernels, "CHUNK_ENTRIES", 130)
    assert divergences.mmd(x, y, 1.5) == pytest.approx(expected, rel=1e-12)


def pair(d: int) -> tuple[Gaussian, Gaussian]:
    half = np.random.default_rng(d).standard_normal((d, d)) / np.sqrt(d)
    p = Gaussian.diagonal(np.zeros(d), np.geomspace(0.5, 2, d))
    return p, Gaussian.from_covariance(np.full(d, 0.3), half @ half.T + 0.5 * np.eye(d))


@pytest.mark.parametrize("bandwidth", [0.7, 1.0, 5.0])
def test_gaussian_mmd_is_the_distance_of_characteristic_functions(bandwidth: float) -> None:
    """E|φ_p(ω) − φ_q(ω)|², ω from N(0, I/h²), by trapezia in the plane."""
    p, q = pair(2)
    nodes = np.linspace(-9, 9, 301)
    weights = np.exp(-(nodes**2) / 2)
    omega = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2) / bandwidth
    mass = np.outer(weights, weights).ravel() / np.sum(weights) ** 2

    def characteristic(law: Gaussian) -> npt.NDArray[np.complex128]:
        quadratic = np.sum((omega @ law.covariance) * omega, axis=-1)
        return np.exp(1j * (omega @ law.mean) - quadratic / 2)

    expected = mass @ np.abs(characteristic(p) - characteristic(q)) ** 2
    assert divergences.gaussian_mmd(p, q, bandwidth) == pytest.approx(expected, rel=1e-10)
    assert divergences.gaussian_mmd(p, p, bandwidth) == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("d", [2, 10, 50])
def test_mmd_is_unbiased(d: int) -> None:
    p, q = pair(d)
    rng, replicates = np.random.default_rng(d), 200
    bandwidth = divergences.median_bandwidth(p.sample(500, rng))
    for other in (p, q):
        values = np.array(
            [
                divergences.mmd(p.sample(150, rng), other.sample(100, rng), bandwidth)
                for _ in range(replicates)
            ]
        )
        error = values.std(ddof=1) / np.sqrt(replicates)
        truth = divergences.gaussian_mmd(p, other, bandwidth)
        assert values.mean() == pytest.approx(truth, abs=4.5 * error)
        assert (np.mean(values < 0) > 0.3) == (other is p)


def test_median_bandwidth_is_the_median_distance() -> None:
    """|X − X′|² = 2 σ² χ²_d: median σ √(2 · 1.3863) in the plane."""
    x = draws(1000, 2, 0, shift=5.0, scale=3.0)
    # half a million dependent pairs of 1000 rows: 2 %
    assert divergences.median_bandwidth(x) == pytest.approx(3 * np.sqrt(4 * np.log(2)), rel=0.06)
    distances = np.sqrt(np.sum((x[:9, None] - x[:9]) ** 2, axis=-1))[np.triu_indices(9, 1)]
    assert divergences.median_bandwidth(x[:9]) == pytest.approx(np.median(distances), rel=1e-12)


@pytest.mark.parametrize("lost", [np.nan, np.inf, 1e200])
def test_lost_samples_are_infinitely_far(lost: float) -> None:
    x, y = draws(20, 3, 1), draws(20, 3, 2)
    x[3, 1] = lost
    assert divergences.mmd(x, y, 1.0) == np.inf
    assert divergences.mmd(y, x, 1.0) == np.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: divergences.mmd(np.zeros((4, 3)), np.zeros((4, 2)), 1.0),
            r"y has shape \(4, 2\): must be \(n, 3\)",
        ),
        (
            lambda: divergences.mmd(np.zeros((4, 2)), np.zeros((4, 2)), 0.0),
            "bandwidth = 0.0: must be a positive finite number",
        ),
        (lambda: divergences.gaussian_mmd(*pair(2), np.inf), "bandwidth = inf: must be"),
        (lambda: divergences.gaussian_mmd(*pair(2), True), "bandwidth = True: must be"),
        (
            lambda: divergences.gaussian_mmd(
                pair(2)[0], Gaussian(np.zeros((3, 2)), np.ones((3, 2)), np.eye(2)), 1.0
            ),
            r"q has batch shape \(3,\)",
        ),
        (lambda: divergences.median_bandwidth(np.full((4, 2), np.nan)), "sample must be finite"),
    ],
)
def test_values_out_of_range_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_gaussian_mmd_of_a_law_that_overflowed_is_infinite() -> None:
    law, lost = (
        Gaussian.diagonal(np.full(2, m), np.full(2, v)) for m, v in ((0, 1), (np.inf,) * 2)
    )
    assert kernels.gaussian_mmd(law, lost, 1.0) == kernels.gaussian_mmd(lost, law, 1.0) == np.inf
    with pytest.raises(ValueError, match="q: dimension = 1: must be 2"):
        kernels.gaussian_mmd(law, Gaussian.diagonal([0.0], [1.0]), 1.0)
